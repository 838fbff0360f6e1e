/*
 * Discovery: a fiber that stays connected to a discovery controller and has a controller attached for each subsystem in its log.
 *
 * Subsystems become NAME0, NAME1 and so on, further addresses of one further paths.  The log is read again when the target says
 * that it changed, and whenever the connection was lost; what has gone from it is let go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"

#define RETRY_US      2000000u
#define POLL_LOG_US   60000000u /* for targets that do not tell */
#define MAX_ATTACHED  256u

/* One entry of the log that is attached. */
struct attached_entry {
	struct list link;
	struct stream_addr addr;
	enum nvme_trtype trtype;
	char subnqn[NVME_NQN_FIELD_SIZE];
	unsigned number; /* of the controller's name */
	bool seen;
};

/* Owner: its fiber on the app thread. */
struct bdev_nvme_discovery {
	struct list link;
	struct bdev_nvme_attach_opts opts;
	char name[BDEV_NAME_MAX];
	struct list entries;
	unsigned nr_entries, next_number;
	struct fiber_cond asked, changed;
	struct bdev_nvme_referral referrals[BDEV_NVME_MAX_REFERRALS];
	unsigned nr_referrals;
	bool failed, log_changed, end_asked, read_once;
	struct nvme_error error;
};

static struct list discoveries = LIST_INIT(discoveries);

static void on_event(struct nvme_ctrlr *nvme, uint32_t dw0, void *arg)
{
	struct bdev_nvme_discovery *d = arg;

	d->log_changed = true;
	fiber_cond_signal(&d->asked);
}

static void on_failed(struct nvme_ctrlr *nvme, void *arg)
{
	struct bdev_nvme_discovery *d = arg;

	d->failed = true;
	fiber_cond_signal(&d->asked);
}

/* --- the log ---------------------------------------------------------------------------------------- */

/* An entry of the log as an address.  False: it is none that we attach. */
static bool decode_entry(const struct nvme_discovery_entry *e, unsigned subtype, struct attached_entry *ret_entry)
{
	char port[33], *end;
	unsigned long number;

	if (e->subtype != subtype || (e->trtype != NVME_TRTYPE_TCP && e->trtype != NVME_TRTYPE_RDMA) ||
	    (e->adrfam != NVME_ADRFAM_IPV4 && e->adrfam != NVME_ADRFAM_IPV6))
		return false;
	*ret_entry = (struct attached_entry){ .trtype = e->trtype };
	ret_entry->addr.family = e->adrfam == NVME_ADRFAM_IPV6 ? AF_INET6 : AF_INET;
	nvme_copy_field(ret_entry->addr.host, sizeof(ret_entry->addr.host), e->traddr, sizeof(e->traddr));
	nvme_copy_field(port, sizeof(port), e->trsvcid, sizeof(e->trsvcid));
	nvme_copy_field(ret_entry->subnqn, sizeof(ret_entry->subnqn), e->subnqn, sizeof(e->subnqn));
	number = strtoul(port, &end, 10);
	ret_entry->addr.port = (uint16_t)number;
	return *port && !*end && number && number < 65536 && *ret_entry->addr.host &&
	       nvme_nqn_is_valid(ret_entry->subnqn, sizeof(ret_entry->subnqn));
}

/* Other discovery controllers that the log points at: they are shown, and whoever wants what they list starts a discovery there. */
static void note_referral(struct bdev_nvme_discovery *d, const struct attached_entry *found)
{
	struct bdev_nvme_referral *r = &d->referrals[d->nr_referrals];

	if (d->nr_referrals == BDEV_NVME_MAX_REFERRALS)
		return;
	*r = (struct bdev_nvme_referral){ .trtype = found->trtype, .addr = found->addr };
	strcpy(r->subnqn, found->subnqn);
	d->nr_referrals++;
}

static bool same_entry(const struct attached_entry *a, const struct attached_entry *b)
{
	return a->trtype == b->trtype && a->addr.port == b->addr.port && !strcmp(a->addr.host, b->addr.host) &&
	       !strcmp(a->subnqn, b->subnqn);
}

static struct attached_entry *find_entry(struct bdev_nvme_discovery *d, const struct attached_entry *want, bool any_path)
{
	struct list *it;

	list_for_each(it, &d->entries) {
		struct attached_entry *e = list_entry(it, struct attached_entry, link);

		if (any_path ? !strcmp(e->subnqn, want->subnqn) : same_entry(e, want))
			return e;
	}
	return NULL;
}

static void ctrlr_name(const struct bdev_nvme_discovery *d, const struct attached_entry *e, char *to, size_t size)
{
	snprintf(to, size, "%.180s%u", d->name, e->number);
}

static fiber_fn void attach_entry(struct bdev_nvme_discovery *d, const struct attached_entry *found)
{
	struct attached_entry *sibling = find_entry(d, found, true), *e;
	struct bdev_nvme_attach_opts opts = d->opts;
	char name[BDEV_NAME_MAX];
	struct nvme_error error;
	int rc;

	if (d->nr_entries == MAX_ATTACHED || !(e = malloc(sizeof(*e))))
		return;
	*e = *found;
	e->seen = true;
	e->number = sibling ? sibling->number : d->next_number;
	ctrlr_name(d, e, name, sizeof(name));
	while (!sibling && bdev_nvme_find(name)) { /* somebody else's */
		e->number++;
		ctrlr_name(d, e, name, sizeof(name));
	}
	opts.name = name;
	opts.connect.trtype = e->trtype;
	opts.connect.addr = e->addr;
	strcpy(opts.connect.subnqn, e->subnqn);
	rc = bdev_nvme_attach(&opts, &error);
	if (rc) {
		/* It stays in the log: the next reading tries again. */
		log_warning("%s: %s at %s port %u is not attached: %s", d->name, e->subnqn, e->addr.host, e->addr.port, error.text);
		free(e);
		return;
	}
	if (!sibling)
		d->next_number = e->number + 1;
	d->nr_entries++;
	list_add_tail(&d->entries, &e->link);
}

static void fill_match(const struct attached_entry *e, struct bdev_nvme_path_match *match, char port[8])
{
	snprintf(port, 8, "%u", e->addr.port);
	*match = (struct bdev_nvme_path_match){
		.trtype = e->trtype, .address = e->addr.host, .service = port, .subnqn = e->subnqn };
}

static fiber_fn void detach_entry(struct bdev_nvme_discovery *d, struct attached_entry *e)
{
	struct bdev_nvme_path_match match;
	char name[BDEV_NAME_MAX], port[8];

	fill_match(e, &match, port);
	ctrlr_name(d, e, name, sizeof(name));
	list_del(&e->link);
	d->nr_entries--;
	bdev_nvme_detach(name, &match);
	free(e);
}

/* Whether the path is there yet: one that was lost for too long has given itself up. */
static bool is_attached(const struct bdev_nvme_discovery *d, const struct attached_entry *e)
{
	struct bdev_nvme_path_match match;
	char name[BDEV_NAME_MAX], port[8];

	fill_match(e, &match, port);
	ctrlr_name(d, e, name, sizeof(name));
	return bdev_nvme_nr_paths(name, &match);
}

/* Has what the log says attached, and nothing else.  0, or why the log could not be read. */
static fiber_fn int follow_log(struct bdev_nvme_discovery *d, struct nvme_ctrlr *nvme)
{
	struct nvme_discovery_log *log;
	struct attached_entry found, *e;
	struct list *it, *tmp;
	int rc;

	d->log_changed = false;
	rc = nvme_discover(nvme, &log);
	if (rc)
		return rc < 0 ? rc : nvme_status_to_errno((uint16_t)rc);
	d->nr_referrals = 0;
	list_for_each(it, &d->entries)
		list_entry(it, struct attached_entry, link)->seen = false;
	for (uint64_t i = 0; i < log->numrec && !d->end_asked; i++) {
		if (decode_entry(&log->entries[i], NVME_SUBTYPE_REFERRAL, &found))
			note_referral(d, &found);
		if (!decode_entry(&log->entries[i], NVME_SUBTYPE_NVM, &found))
			continue;
		e = find_entry(d, &found, false);
		if (e && !is_attached(d, e)) {
			detach_entry(d, e);
			e = NULL;
		}
		if (e)
			e->seen = true;
		else
			attach_entry(d, &found);
	}
	free(log);
	list_for_each_safe(it, tmp, &d->entries) {
		e = list_entry(it, struct attached_entry, link);
		if (!e->seen && !d->end_asked)
			detach_entry(d, e);
	}
	return 0;
}

/* --- the fiber ----------------------------------------------------------------------------------------- */

static fiber_fn int connect_discovery(struct bdev_nvme_discovery *d, struct nvme_ctrlr **ret_nvme)
{
	struct nvme_connect_opts connect = d->opts.connect;
	int rc;

	d->failed = false;
	connect.event = on_event;
	connect.failed = on_failed;
	connect.event_arg = connect.failed_arg = d;
	rc = nvme_ctrlr_connect(&connect, ret_nvme, &d->error);
	if (!rc)
		nvme_set_feature(*ret_nvme, NVME_FID_ASYNC_EVENT, NVME_AEC_DISCOVERY, NULL, 0, NULL);
	return rc;
}

static fiber_fn void stay_connected(struct bdev_nvme_discovery *d, struct nvme_ctrlr *nvme)
{
	while (!d->failed && !d->end_asked) {
		if (follow_log(d, nvme))
			return;
		d->read_once = true;
		fiber_cond_broadcast(&d->changed);
		while (!d->failed && !d->end_asked && !d->log_changed) {
			if (fiber_cond_timedwait(&d->asked, POLL_LOG_US) == -ETIMEDOUT)
				break;
		}
	}
}

static fiber_fn void discovery_life(void *arg)
{
	struct bdev_nvme_discovery *d = arg;
	struct nvme_ctrlr *nvme;
	struct list *l;

	while (!d->end_asked) {
		if (!connect_discovery(d, &nvme)) {
			stay_connected(d, nvme);
			if (d->failed)
				nvme_ctrlr_disable(nvme);
			nvme_ctrlr_disconnect(nvme);
		}
		fiber_cond_broadcast(&d->changed);
		if (!d->end_asked)
			fiber_cond_timedwait(&d->asked, RETRY_US);
	}
	while ((l = list_first(&d->entries)))
		detach_entry(d, list_entry(l, struct attached_entry, link));
	list_del(&d->link);
	free(d);
}

/* --- from outside ---------------------------------------------------------------------------------------- */

static struct bdev_nvme_discovery *find(const char *name)
{
	struct list *it;

	list_for_each(it, &discoveries) {
		struct bdev_nvme_discovery *d = list_entry(it, struct bdev_nvme_discovery, link);

		if (!strcmp(d->name, name))
			return d;
	}
	return NULL;
}

fiber_fn int bdev_nvme_discovery_start(const struct bdev_nvme_attach_opts *opts, uint64_t wait_us, struct nvme_error *error)
{
	uint64_t until_us = clock_now_us() + wait_us;
	struct bdev_nvme_discovery *d;

	if (find(opts->name)) {
		nvme_error_set(error, -EEXIST, 0, "there is a discovery of the name %.180s", opts->name);
		return -EEXIST;
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		nvme_error_set(error, -ENOMEM, 0, "no memory");
		return -ENOMEM;
	}
	d->opts = *opts;
	snprintf(d->name, sizeof(d->name), "%.180s", opts->name);
	d->opts.name = d->name;
	d->opts.background = false;
	strcpy(d->opts.connect.subnqn, NVME_DISCOVERY_NQN);
	list_init(&d->entries);
	fiber_cond_init(&d->asked);
	fiber_cond_init(&d->changed);
	list_add_tail(&discoveries, &d->link);
	if (fiber_spawn(runtime_app_thread(), "nvme-discovery", discovery_life, d)) {
		list_del(&d->link);
		free(d);
		nvme_error_set(error, -ENOMEM, 0, "no memory");
		return -ENOMEM;
	}
	/* It may be stopped meanwhile: it is looked up again each time. */
	while (find(opts->name) == d && !d->read_once && clock_now_us() < until_us)
		fiber_sleep(2000);
	return 0;
}

fiber_fn int bdev_nvme_discovery_stop(const char *name)
{
	struct bdev_nvme_discovery *d = find(name);

	if (!d)
		return -ENODEV;
	d->end_asked = true;
	fiber_cond_signal(&d->asked);
	while (find(name) == d)
		fiber_sleep(1000);
	return 0;
}

fiber_fn void bdev_nvme_discovery_stop_all(void)
{
	while (!list_empty(&discoveries))
		bdev_nvme_discovery_stop(list_entry(discoveries.next, struct bdev_nvme_discovery, link)->name);
}

bool bdev_nvme_is_discovered(const struct bdev *bdev)
{
	uint32_t nsid;
	const struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_of(bdev, &nsid);
	char name[BDEV_NAME_MAX];
	struct list *i, *j;

	list_for_each(i, &discoveries) {
		struct bdev_nvme_discovery *d = list_entry(i, struct bdev_nvme_discovery, link);

		list_for_each(j, &d->entries) {
			ctrlr_name(d, list_entry(j, struct attached_entry, link), name, sizeof(name));
			if (ctrlr && ctrlr == bdev_nvme_find(name))
				return true;
		}
	}
	return false;
}

bool bdev_nvme_discovery_info(unsigned idx, struct bdev_nvme_discovery_info *ret_info)
{
	struct list *it;

	list_for_each(it, &discoveries) {
		struct bdev_nvme_discovery *d = list_entry(it, struct bdev_nvme_discovery, link);

		if (idx--)
			continue;
		*ret_info = (struct bdev_nvme_discovery_info){
			.name = d->name,
			.connect = &d->opts.connect,
			.nr_attached = d->nr_entries,
			.referrals = d->referrals,
			.nr_referrals = d->nr_referrals,
			.connected = d->read_once && !d->failed,
		};
		return true;
	}
	return false;
}
