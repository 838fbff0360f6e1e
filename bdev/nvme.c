/*
 * Controllers and their paths.  Each path is a fiber on the app thread that reads from top to bottom: connect, scan, give every
 * channel a queue; wait for what comes (a failure, an event, a reset, the end); take the queues away; and again.
 *
 * When the last live path goes, I/O waits; the controller's fate decides how long: fast_io_fail_s after that it fails, and when
 * a path's ctrlr_loss_s is over, or its function was removed, the path ends.  With the last path the bdevs go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"
#include "nvme/bar.h"

#define LOOK_AGAIN_US 1000000u
#define SHORT_LIFE_US 1000000u /* a path that failed after less is not tried again at once */

static struct list ctrlrs = LIST_INIT(ctrlrs);

struct bdev_nvme_options bdev_nvme_options = {
	.timeout_us = 30000000,
	.abort_timeout_us = 5000000,
	.keep_alive_ms = 10000,
	.retry_count = 4,
	.loss = { .reconnect_delay_s = 2, .ctrlr_loss_s = 600 },
};

void bdev_nvme_get_options(struct bdev_nvme_options *ret_options)
{
	*ret_options = bdev_nvme_options;
}

void bdev_nvme_set_options(const struct bdev_nvme_options *options)
{
	bdev_nvme_options = *options;
}

void bdev_nvme_attach_opts_init(struct bdev_nvme_attach_opts *opts)
{
	*opts = (struct bdev_nvme_attach_opts){ .loss = bdev_nvme_options.loss };
	nvme_connect_opts_init(&opts->connect);
	opts->connect.kato_ms = bdev_nvme_options.keep_alive_ms;
	opts->connect.timeout_us = bdev_nvme_options.timeout_us;
	opts->connect.abort_timeout_us = bdev_nvme_options.abort_timeout_us;
}

/* --- what I/O without a path meets ----------------------------------------------------------------- */

static void set_fate(struct bdev_nvme_ctrlr *ctrlr, enum bdev_nvme_fate fate)
{
	if (__atomic_exchange_n(&ctrlr->fate, fate, __ATOMIC_RELAXED) != fate)
		bdev_nvme_channels_kick(ctrlr);
}

static bool any_live(const struct bdev_nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (ctrlr->paths[i] && ctrlr->paths[i]->state == BDEV_NVME_LIVE)
			return true;
	}
	return false;
}

static void io_fail_due(void *arg)
{
	struct bdev_nvme_ctrlr *ctrlr = arg;

	if (ctrlr->ending || any_live(ctrlr))
		return;
	log_warning("%s: no path for its fast I/O fail time: I/O fails from now on", ctrlr->name);
	set_fate(ctrlr, BDEV_NVME_FAIL);
}

/* A path's state has changed. */
static void paths_changed(struct bdev_nvme_path *path)
{
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	bool live = any_live(ctrlr), was = ctrlr->any_live;

	fiber_cond_broadcast(&path->changed);
	__atomic_store_n(&ctrlr->any_live, live, __ATOMIC_RELAXED);
	if (ctrlr->ending)
		return;
	if (live) {
		timer_cancel(&ctrlr->fail_timer);
		set_fate(ctrlr, BDEV_NVME_WAIT);
	} else if (was && path->opts.loss.fast_io_fail_s) {
		timer_arm(&ctrlr->fail_timer, path->opts.loss.fast_io_fail_s * 1000000ull);
	}
}

static void set_state(struct bdev_nvme_path *path, enum bdev_nvme_path_state state)
{
	path->state = state;
	paths_changed(path);
}

/* --- what the controller tells ---------------------------------------------------------------------- */

static void on_failed(struct nvme_ctrlr *nvme, void *arg)
{
	struct bdev_nvme_path *path = arg;

	path->failed = true;
	fiber_cond_signal(&path->asked);
	/* Those who are closing the bdevs wait for nothing that cannot come. */
	if (path->ctrlr->ending)
		set_fate(path->ctrlr, BDEV_NVME_GONE);
}

static void on_event(struct nvme_ctrlr *nvme, uint32_t dw0, void *arg)
{
	struct bdev_nvme_path *path = arg;

	if (NVME_AER_TYPE(dw0) == NVME_AER_NOTICE)
		path->rescan_asked = true;
	else
		log_warning("%s: event: type %u, information %02xh, log page %02xh", path->ctrlr->name, NVME_AER_TYPE(dw0),
			    NVME_AER_INFO(dw0), NVME_AER_LID(dw0));
	fiber_cond_signal(&path->asked);
}

static void on_removed(struct nvme_bar *bar, void *arg)
{
	struct bdev_nvme_path *path = arg;

	path->removed = true;
	fiber_cond_signal(&path->asked);
}

/* --- up --------------------------------------------------------------------------------------------- */

static fiber_fn int open_function(struct bdev_nvme_path *path)
{
	int rc;

	if (path->opts.connect.trtype != NVME_TRTYPE_PCIE || path->bar)
		return 0;
	rc = path->opts.bar_open(path->opts.address, path->opts.bar_arg, &path->bar, &path->error);
	if (rc)
		return rc;
	path->bar->on_removed = on_removed;
	path->bar->on_removed_arg = path;
	return 0;
}

/* Paths of one name lead to one subsystem. */
static int check_subsystem(struct bdev_nvme_path *path)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(path->nvme);
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	char subnqn[NVME_NQN_FIELD_SIZE];

	nvme_copy_field(subnqn, sizeof(subnqn), id->subnqn, sizeof(id->subnqn));
	if (!*ctrlr->subnqn)
		memcpy(ctrlr->subnqn, subnqn, sizeof(subnqn));
	if (!strcmp(ctrlr->subnqn, subnqn))
		return 0;
	nvme_error_set(&path->error, -EINVAL, 0, "%s is subsystem %.200s, and %.200s is there now", ctrlr->name, ctrlr->subnqn,
		       subnqn);
	return -EINVAL;
}

static fiber_fn void ask_for_events(struct bdev_nvme_path *path)
{
	uint32_t oaes = nvme_ctrlr_id(path->nvme)->oaes & (NVME_OAES_NS_ATTR | NVME_OAES_ANA);

	nvme_set_feature(path->nvme, NVME_FID_ASYNC_EVENT, oaes | NVME_AEC_SMART_MASK, NULL, 0, NULL);
}

/* From nothing to namespaces that can be read and written by every channel. */
static fiber_fn int path_up(struct bdev_nvme_path *path)
{
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	struct nvme_connect_opts connect = path->opts.connect;
	int rc;

	rc = open_function(path);
	if (rc)
		return rc;
	path->failed = path->rescan_asked = path->queues_missing = path->look_again = false;
	connect.bar = path->bar;
	connect.event = on_event;
	connect.event_arg = path;
	connect.failed = on_failed;
	connect.failed_arg = path;
	rc = nvme_ctrlr_connect(&connect, &path->nvme, &path->error);
	if (rc)
		return rc;
	rc = check_subsystem(path);
	if (!rc) {
		ask_for_events(path);
		path->nr_queues = nvme_ctrlr_nr_io_queues(path->nvme);
		if (!path->nr_queues) {
			nvme_error_set(&path->error, -EIO, 0, "%s gives no I/O queue", ctrlr->name);
			return -EIO;
		}
		if (path->opts.nr_io_queues && path->nr_queues > path->opts.nr_io_queues)
			path->nr_queues = path->opts.nr_io_queues;
		fiber_lock(&ctrlr->mutex);
		path->accepting = true; /* channels that come from now on know the path */
		bdev_nvme_channels_connect(path);
		rc = bdev_nvme_scan(path);
		fiber_unlock(&ctrlr->mutex);
		if (rc)
			nvme_error_set(&path->error, rc, 0, "%s: its namespaces cannot be listed: %s", ctrlr->name,
				       strerror(-rc));
	}
	if (rc || path->failed) {
		if (!rc)
			path->error = *nvme_ctrlr_error(path->nvme);
		return rc ? rc : path->error.err ? path->error.err : -EIO;
	}
	path->was_live = true;
	path->error = (struct nvme_error){ 0 };
	return 0;
}

/* --- down ------------------------------------------------------------------------------------------- */

/* orderly: by request, with all that is in flight completed first as far as the controller does it. */
static fiber_fn void path_down(struct bdev_nvme_path *path, enum bdev_nvme_path_state state, bool orderly)
{
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;

	if (path->state == BDEV_NVME_LIVE)
		path->down_since_us = clock_now_us();
	fiber_lock(&ctrlr->mutex);
	path->state = state;
	path->accepting = false;
	bdev_nvme_path_access_none(path);
	if (path->nvme && !orderly)
		nvme_ctrlr_disable(path->nvme);
	bdev_nvme_channels_disconnect(path);
	fiber_unlock(&ctrlr->mutex);
	if (path->nvme)
		nvme_ctrlr_disconnect(path->nvme);
	path->nvme = NULL;
	paths_changed(path);
}

static void close_function(struct bdev_nvme_path *path)
{
	if (path->bar)
		path->bar->ops->close(path->bar);
	path->bar = NULL;
}

/* --- the path's life ---------------------------------------------------------------------------------- */

/* Until the path is of no use any more, for whatever reason. */
static fiber_fn void watch(struct bdev_nvme_path *path)
{
	while (!path->failed && !path->removed && !path->reset_asked && !path->end_asked) {
		if (path->rescan_asked) {
			path->rescan_asked = path->queues_missing = path->look_again = false;
			fiber_lock(&path->ctrlr->mutex);
			if (!path->failed)
				bdev_nvme_channels_connect(path);
			if (!path->failed && bdev_nvme_scan(path))
				path->look_again = true;
			fiber_unlock(&path->ctrlr->mutex);
			bdev_nvme_channels_kick(path->ctrlr);
		} else if (path->queues_missing || path->look_again) {
			if (fiber_cond_timedwait(&path->asked, LOOK_AGAIN_US) == -ETIMEDOUT)
				path->rescan_asked = true;
		} else {
			fiber_cond_wait(&path->asked);
		}
	}
}

static uint64_t reconnect_delay_us(const struct bdev_nvme_path *path)
{
	return (path->opts.loss.reconnect_delay_s ? path->opts.loss.reconnect_delay_s : 1) * 1000000ull;
}

/* Whether there is to be another try. */
static bool goes_on(const struct bdev_nvme_path *path)
{
	const struct bdev_nvme_loss *loss = &path->opts.loss;

	if (path->end_asked || path->removed)
		return false;
	if (!path->was_live)
		return path->opts.background; /* for as long as it takes */
	return loss->ctrlr_loss_s < 0 || loss->never_reconnect ||
	       clock_now_us() - path->down_since_us < loss->ctrlr_loss_s * 1000000ull;
}

static fiber_fn void wait_for_next_try(struct bdev_nvme_path *path)
{
	uint64_t until_us = clock_now_us() + reconnect_delay_us(path);

	if (path->opts.loss.never_reconnect && path->was_live && !any_live(path->ctrlr))
		set_fate(path->ctrlr, BDEV_NVME_FAIL);
	while (!path->reset_asked && !path->end_asked && !path->removed) {
		uint64_t now_us = clock_now_us();

		if (path->opts.loss.never_reconnect && path->was_live)
			fiber_cond_wait(&path->asked);
		else if (now_us >= until_us)
			return;
		else
			fiber_cond_timedwait(&path->asked, until_us - now_us);
	}
}

/* Whoever waits for the first try, on his stack. */
struct bdev_nvme_attaching {
	struct fiber_wait wait;
	struct nvme_error *error;
};

static void attached(struct bdev_nvme_path *path, int rc)
{
	struct bdev_nvme_attaching *a = path->attaching;

	path->attaching = NULL;
	if (!a)
		return;
	*a->error = path->error;
	fiber_wake(&a->wait, rc);
}

/* A path that is let go while it is the last one that works: the bdevs go first, and what stands on them closes in good
 * order. */
static fiber_fn void let_go(struct bdev_nvme_path *path)
{
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (i != path->idx && ctrlr->paths[i] && !ctrlr->paths[i]->end_asked)
			return;
	}
	ctrlr->ending = true;
	bdev_nvme_unregister_all(ctrlr);
}

static void remember_removed(const struct bdev_nvme_path *path);
static fiber_fn void ctrlr_end(struct bdev_nvme_ctrlr *ctrlr);

static fiber_fn void path_end(struct bdev_nvme_path *path)
{
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	bool last = true;

	set_state(path, BDEV_NVME_ENDING);
	if (path->removed && path->was_live && !path->end_asked)
		remember_removed(path);
	close_function(path);
	fiber_lock(&ctrlr->mutex);
	ctrlr->paths[path->idx] = NULL;
	fiber_unlock(&ctrlr->mutex);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++)
		last = last && !ctrlr->paths[i];
	if (last)
		ctrlr_end(ctrlr);
	attached(path, path->error.err ? path->error.err : -EIO);
	free(path);
}

static fiber_fn void path_life(void *arg)
{
	struct bdev_nvme_path *path = arg;
	bool asked;
	int rc;

	path->down_since_us = clock_now_us();
	for (;;) {
		path->reset_asked = false;
		rc = path_up(path);
		path->nr_tries++;
		if (!rc) {
			if (path->nr_tries > 1)
				log_notice("%s: path %u is back", path->ctrlr->name, path->idx);
			path->live_since_us = clock_now_us();
			set_state(path, BDEV_NVME_LIVE);
			attached(path, 0);
			bdev_nvme_channels_kick(path->ctrlr);
			watch(path);
			if (path->end_asked && !path->failed && !path->removed)
				let_go(path);
			if (path->failed && path->nvme)
				path->error = *nvme_ctrlr_error(path->nvme);
		}
		if (path->bar && nvme_bar_removed(path->bar))
			path->removed = true;
		if (!path->end_asked && (path->was_live || path->nr_tries == 1) && !path->reset_asked)
			log_warning("%s: path %u is down: %s", path->ctrlr->name, path->idx,
				    path->removed && !*path->error.text ? "it was removed" : path->error.text);
		asked = path->reset_asked;
		path_down(path, goes_on(path) ? BDEV_NVME_DOWN : BDEV_NVME_ENDING, path->end_asked && !rc);
		if (!goes_on(path))
			break;
		/* What was live for a while and failed is tried again at once. */
		if (rc || (!asked && clock_now_us() - path->live_since_us < SHORT_LIFE_US))
			wait_for_next_try(path);
		if (path->end_asked || path->removed)
			break;
		path->nr_resets++;
		set_state(path, BDEV_NVME_CONNECTING);
	}
	path_end(path);
}

/* --- controllers ---------------------------------------------------------------------------------------- */

static void device_gone(void *arg)
{
	fiber_wake(arg, 0);
}

static fiber_fn void ctrlr_end(struct bdev_nvme_ctrlr *ctrlr)
{
	struct fiber_wait wait;

	ctrlr->ending = true;
	timer_cancel(&ctrlr->fail_timer);
	set_fate(ctrlr, BDEV_NVME_GONE);
	bdev_nvme_unregister_all(ctrlr);
	fiber_wait_init(&wait);
	device_unregister(ctrlr, device_gone, &wait);
	fiber_wait(&wait);
	while (__atomic_load_n(&ctrlr->nr_channels, __ATOMIC_ACQUIRE))
		fiber_sleep(1000);
	while (ctrlr->nr_users)
		fiber_sleep(1000);
	list_del(&ctrlr->link);
	free(ctrlr);
}

static struct bdev_nvme_ctrlr *ctrlr_create(const struct bdev_nvme_attach_opts *opts)
{
	struct bdev_nvme_ctrlr *ctrlr = calloc(1, sizeof(*ctrlr));

	if (!ctrlr)
		return NULL;
	snprintf(ctrlr->name, sizeof(ctrlr->name), "%s", opts->name);
	ctrlr->multipath = opts->multipath;
	list_init(&ctrlr->namespaces);
	list_init(&ctrlr->channels);
	fiber_mutex_init(&ctrlr->mutex);
	fiber_cond_init(&ctrlr->gone);
	timer_init(&ctrlr->fail_timer, io_fail_due, ctrlr);
	device_register(ctrlr, &bdev_nvme_device_ops, ctrlr->name);
	list_add_tail(&ctrlrs, &ctrlr->link);
	return ctrlr;
}

static bool same_place(const struct bdev_nvme_attach_opts *a, const struct bdev_nvme_attach_opts *b)
{
	if (a->connect.trtype != b->connect.trtype)
		return false;
	if (a->connect.trtype == NVME_TRTYPE_PCIE)
		return !strcmp(a->address, b->address);
	return !strcmp(a->connect.addr.host, b->connect.addr.host) && a->connect.addr.port == b->connect.addr.port &&
	       !strcmp(a->connect.subnqn, b->connect.subnqn);
}

static struct bdev_nvme_path *path_create(struct bdev_nvme_ctrlr *ctrlr, const struct bdev_nvme_attach_opts *opts,
					  unsigned idx)
{
	struct bdev_nvme_path *path = calloc(1, sizeof(*path));

	if (!path)
		return NULL;
	path->ctrlr = ctrlr;
	path->idx = idx;
	path->opts = *opts;
	snprintf(path->name, sizeof(path->name), "%s", opts->name);
	path->opts.name = path->name;
	fiber_cond_init(&path->asked);
	fiber_cond_init(&path->changed);
	if (fiber_spawn(runtime_app_thread(), "nvme-path", path_life, path)) {
		free(path);
		return NULL;
	}
	ctrlr->paths[idx] = path;
	return path;
}

/* Where a further path of the name could stand.  Return: its index, or -errno with *error filled. */
static int place_for(const struct bdev_nvme_ctrlr *ctrlr, const struct bdev_nvme_attach_opts *opts, struct nvme_error *error)
{
	int place = -1;

	for (int i = BDEV_NVME_MAX_PATHS - 1; i >= 0; i--) {
		if (!ctrlr->paths[i]) {
			place = i;
		} else if (same_place(&ctrlr->paths[i]->opts, opts)) {
			nvme_error_set(error, -EEXIST, 0, "%s has this path already", ctrlr->name);
			return -EEXIST;
		}
	}
	if (opts->multipath == BDEV_NVME_SINGLE || ctrlr->multipath == BDEV_NVME_SINGLE) {
		nvme_error_set(error, -EALREADY, 0, "%s is there already, and multipath is off", ctrlr->name);
		return -EALREADY;
	}
	if (place < 0)
		nvme_error_set(error, -ENOSPC, 0, "%s has %u paths already", ctrlr->name, BDEV_NVME_MAX_PATHS);
	return place < 0 ? -ENOSPC : place;
}

fiber_fn int bdev_nvme_attach(const struct bdev_nvme_attach_opts *opts, struct nvme_error *error)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(opts->name);
	struct bdev_nvme_attaching attaching;
	struct bdev_nvme_path *path;
	struct nvme_error scratch;
	int place = 0;

	error = error ? error : &scratch;
	*error = (struct nvme_error){ 0 };
	if (!*opts->name || strlen(opts->name) > 200) {
		nvme_error_set(error, -EINVAL, 0, "a controller's name has 1 to 200 bytes");
		return -EINVAL;
	}
	if (ctrlr && ctrlr->ending) {
		nvme_error_set(error, -EBUSY, 0, "%s is on its way out", opts->name);
		return -EBUSY;
	}
	if (ctrlr) {
		place = place_for(ctrlr, opts, error);
		if (place < 0)
			return place;
	} else if (!(ctrlr = ctrlr_create(opts))) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for a controller");
		return -ENOMEM;
	}
	path = path_create(ctrlr, opts, (unsigned)place);
	if (!path) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for a path");
		for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
			if (ctrlr->paths[i])
				return -ENOMEM;
		}
		ctrlr_end(ctrlr);
		return -ENOMEM;
	}
	if (opts->background)
		return 0;
	attaching.error = error;
	fiber_wait_init(&attaching.wait);
	path->attaching = &attaching;
	return fiber_wait(&attaching.wait);
}

static bool matches(const struct bdev_nvme_path *path, const struct bdev_nvme_path_match *m)
{
	const struct nvme_connect_opts *c = &path->opts.connect;
	bool pcie = c->trtype == NVME_TRTYPE_PCIE;
	char port[16];

	if (!m)
		return true;
	snprintf(port, sizeof(port), "%u", c->addr.port);
	return (!m->trtype || m->trtype == c->trtype) &&
	       (!m->address || !*m->address || !strcmp(m->address, pcie ? path->opts.address : c->addr.host)) &&
	       (!m->service || !*m->service || !strcmp(m->service, port)) &&
	       (!m->subnqn || !*m->subnqn || !strcmp(m->subnqn, c->subnqn));
}

bool bdev_nvme_has_path(const char *name, const struct bdev_nvme_path_match *match)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);

	for (unsigned i = 0; ctrlr && i < BDEV_NVME_MAX_PATHS; i++) {
		if (ctrlr->paths[i] && matches(ctrlr->paths[i], match))
			return true;
	}
	return false;
}

static void forget_removed(const char *name, const struct bdev_nvme_path_match *match);

fiber_fn int bdev_nvme_detach(const char *name, const struct bdev_nvme_path_match *match)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	unsigned nr = 0, nr_left = 0;

	forget_removed(name, match);
	if (!ctrlr)
		return -ENODEV;
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_path *path = ctrlr->paths[i];

		if (path && matches(path, match)) {
			path->end_asked = true;
			fiber_cond_signal(&path->asked);
			nr++;
		} else if (path) {
			nr_left++;
		}
	}
	if (!nr)
		return -ENODEV;
	while (bdev_nvme_find(name) == ctrlr) {
		unsigned nr_now = 0;

		for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++)
			nr_now += ctrlr->paths[i] && ctrlr->paths[i]->end_asked;
		if (nr_left && !nr_now)
			break;
		fiber_sleep(1000);
	}
	return 0;
}

fiber_fn int bdev_nvme_reset(const char *name)
{
	int rc = -ENODEV;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
		struct bdev_nvme_path *path = ctrlr ? ctrlr->paths[i] : NULL;
		unsigned tries;

		if (!path)
			continue;
		tries = path->nr_tries;
		path->reset_asked = true;
		fiber_cond_signal(&path->asked);
		/* The path may go meanwhile: it is looked up again each time. */
		for (;;) {
			ctrlr = bdev_nvme_find(name);
			if (!ctrlr || ctrlr->paths[i] != path)
				return -ENODEV;
			if (path->nr_tries != tries && path->state != BDEV_NVME_CONNECTING)
				break;
			fiber_sleep(1000);
		}
		rc = path->state == BDEV_NVME_LIVE ? 0 : -EIO;
	}
	return rc;
}

/* --- drives that were pulled out -------------------------------------------------------------------------- */

/* What to attach again when it is back.  Owner: app thread. */
struct removed_path {
	struct list link;
	struct bdev_nvme_attach_opts opts;
	char name[BDEV_NAME_MAX];
};

static struct list removed_paths = LIST_INIT(removed_paths);
static bool hotplug = true, hotplug_running;
static uint64_t hotplug_period_us = 1000000;
static struct timer hotplug_timer;

static void hotplug_due(void *arg);

static void hotplug_arm(void)
{
	if (!hotplug || list_empty(&removed_paths) || hotplug_running)
		return;
	timer_cancel(&hotplug_timer);
	timer_init(&hotplug_timer, hotplug_due, NULL);
	timer_arm(&hotplug_timer, hotplug_period_us);
}

static void remember_removed(const struct bdev_nvme_path *path)
{
	struct removed_path *r = calloc(1, sizeof(*r));

	if (!r)
		return;
	r->opts = path->opts;
	snprintf(r->name, sizeof(r->name), "%s", path->name);
	r->opts.name = r->name;
	r->opts.background = false;
	list_add_tail(&removed_paths, &r->link);
	hotplug_arm();
}

static void forget_removed(const char *name, const struct bdev_nvme_path_match *match)
{
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &removed_paths) {
		struct removed_path *r = list_entry(it, struct removed_path, link);

		if (strcmp(r->name, name) || hotplug_running)
			continue;
		list_del(it);
		free(r);
	}
}

/* Tries each once; those that are not back stay. */
static fiber_fn void hotplug_look(void *arg)
{
	struct list tried = LIST_INIT(tried), *l;

	while (hotplug && (l = list_pop(&removed_paths))) {
		struct removed_path *r = list_entry(l, struct removed_path, link);
		struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(r->name);
		struct nvme_bar *bar;
		struct nvme_error error;
		int rc = -EBUSY;

		/* Cheap, and quiet, while there is no such function. */
		if (!ctrlr || !ctrlr->ending) {
			rc = r->opts.bar_open(r->opts.address, r->opts.bar_arg, &bar, &error);
			if (!rc) {
				bar->ops->close(bar);
				rc = bdev_nvme_attach(&r->opts, &error);
			}
		}
		if (!rc || rc == -EEXIST) {
			log_notice("%s: %s is back", r->name, r->opts.address);
			free(r);
		} else {
			list_add_tail(&tried, &r->link);
		}
	}
	list_splice_tail(&removed_paths, &tried);
	hotplug_running = false;
	hotplug_arm();
}

static void hotplug_due(void *arg)
{
	hotplug_running = true;
	if (fiber_spawn(runtime_app_thread(), "nvme-hotplug", hotplug_look, NULL)) {
		hotplug_running = false;
		hotplug_arm();
	}
}

void bdev_nvme_set_hotplug(bool enable, uint64_t period_us)
{
	hotplug = enable;
	if (period_us)
		hotplug_period_us = period_us;
	if (!enable)
		timer_cancel(&hotplug_timer);
	hotplug_arm();
}

fiber_fn void bdev_nvme_detach_all(void)
{
	bool was = hotplug;
	struct list *l;

	bdev_nvme_discovery_stop_all();
	hotplug = false;
	timer_cancel(&hotplug_timer);
	while (hotplug_running)
		fiber_sleep(1000);
	while ((l = list_pop(&removed_paths)))
		free(list_entry(l, struct removed_path, link));
	while (!list_empty(&ctrlrs)) {
		struct bdev_nvme_ctrlr *ctrlr = list_entry(ctrlrs.next, struct bdev_nvme_ctrlr, link);

		for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
			if (!ctrlr->paths[i])
				continue;
			ctrlr->paths[i]->end_asked = true;
			fiber_cond_signal(&ctrlr->paths[i]->asked);
		}
		fiber_sleep(1000);
	}
	hotplug = was;
}

/* --- looking ------------------------------------------------------------------------------------------------ */

struct bdev_nvme_ctrlr *bdev_nvme_find(const char *name)
{
	struct list *it;

	list_for_each(it, &ctrlrs) {
		struct bdev_nvme_ctrlr *ctrlr = list_entry(it, struct bdev_nvme_ctrlr, link);

		if (!strcmp(ctrlr->name, name))
			return ctrlr;
	}
	return NULL;
}

struct bdev_nvme_ctrlr *bdev_nvme_first(void)
{
	return list_empty(&ctrlrs) ? NULL : list_entry(ctrlrs.next, struct bdev_nvme_ctrlr, link);
}

struct bdev_nvme_ctrlr *bdev_nvme_next(struct bdev_nvme_ctrlr *ctrlr)
{
	return ctrlr->link.next == &ctrlrs ? NULL : list_entry(ctrlr->link.next, struct bdev_nvme_ctrlr, link);
}

const char *bdev_nvme_name(const struct bdev_nvme_ctrlr *ctrlr)
{
	return ctrlr->name;
}

bool bdev_nvme_path(const struct bdev_nvme_ctrlr *ctrlr, unsigned idx, struct bdev_nvme_path_info *ret_info)
{
	const struct bdev_nvme_path *path = idx < BDEV_NVME_MAX_PATHS ? ctrlr->paths[idx] : NULL;

	if (!path)
		return false;
	*ret_info = (struct bdev_nvme_path_info){
		.state = path->state,
		.connect = &path->opts.connect,
		.address = path->opts.address,
		.nr_resets = path->nr_resets,
		.error = path->error.text,
	};
	if (path->nvme && path->state == BDEV_NVME_LIVE) {
		ret_info->cntlid = nvme_ctrlr_cntlid(path->nvme);
		ret_info->id = nvme_ctrlr_id(path->nvme);
		ret_info->vs = nvme_ctrlr_vs(path->nvme);
	}
	return true;
}

struct bdev_nvme_ctrlr *bdev_nvme_of(const struct bdev *bdev, uint32_t *ret_nsid)
{
	const struct bdev_nvme_ns *ns;

	if (!bdev->module || strcmp(bdev->module, "nvme"))
		return NULL;
	ns = container_of(bdev, struct bdev_nvme_ns, bdev);
	*ret_nsid = ns->ns.nsid;
	return ns->ctrlr;
}

const struct nvme_ns *bdev_nvme_ns_of(const struct bdev *bdev)
{
	uint32_t nsid;

	return bdev_nvme_of(bdev, &nsid) ? &container_of((struct bdev *)(uintptr_t)bdev, struct bdev_nvme_ns, bdev)->ns : NULL;
}

const char *bdev_nvme_access_name(const struct bdev *bdev, unsigned path_idx)
{
	const struct bdev_nvme_ns *ns = container_of((struct bdev *)(uintptr_t)bdev, struct bdev_nvme_ns, bdev);

	switch (path_idx < BDEV_NVME_MAX_PATHS ? ns->access[path_idx] : ACCESS_NONE) {
	case ACCESS_OPTIMIZED:
		return "optimized";
	case ACCESS_NON_OPTIMIZED:
		return "non_optimized";
	default:
		return "inaccessible";
	}
}

enum bdev_nvme_multipath bdev_nvme_policy(const struct bdev_nvme_ctrlr *ctrlr)
{
	return ctrlr->multipath;
}

int bdev_nvme_set_policy(struct bdev_nvme_ctrlr *ctrlr, enum bdev_nvme_multipath policy)
{
	if (policy == BDEV_NVME_SINGLE || ctrlr->multipath == BDEV_NVME_SINGLE)
		return -EINVAL;
	__atomic_store_n(&ctrlr->multipath, policy, __ATOMIC_RELAXED);
	return 0;
}

/* --- admin commands from outside ---------------------------------------------------------------------------- */

fiber_fn int bdev_nvme_admin(const char *name, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
			     struct nvme_cqe *ret_cqe)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	int rc = -ENODEV;

	if (!ctrlr)
		return -ENODEV;
	/* The mutex keeps paths from going meanwhile. */
	ctrlr->nr_users++;
	fiber_lock(&ctrlr->mutex);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_path *path = ctrlr->paths[i];

		if (path && path->nvme && path->state == BDEV_NVME_LIVE) {
			rc = nvme_execute(nvme_ctrlr_admin(path->nvme), cmd, buf, len_bytes, ret_cqe);
			break;
		}
	}
	fiber_unlock(&ctrlr->mutex);
	ctrlr->nr_users--;
	return rc;
}

fiber_fn int bdev_nvme_smart(const char *name, struct nvme_log_smart *ret_smart)
{
	union nvme_cmd cmd = { .opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = NVME_NSID_ALL };

	cmd.get_log.lid = NVME_LID_SMART;
	cmd.get_log.numdl = sizeof(*ret_smart) / 4 - 1;
	return bdev_nvme_admin(name, &cmd, ret_smart, sizeof(*ret_smart), NULL);
}
