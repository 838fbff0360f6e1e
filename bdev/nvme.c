/*
 * Controllers: a name, and the paths to its subsystem (nvme_path.c).  Attaching makes the name or adds a path to it; detaching ends
 * paths, and with the last of them the name and its bdevs go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"

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

/* --- controllers ---------------------------------------------------------------------------------------- */

static void device_gone(void *arg)
{
	fiber_wake(arg, 0);
}

fiber_fn void bdev_nvme_ctrlr_end(struct bdev_nvme_ctrlr *ctrlr)
{
	struct fiber_wait wait;

	ctrlr->ending = true;
	timer_cancel(&ctrlr->fail_timer);
	bdev_nvme_set_fate(ctrlr, BDEV_NVME_GONE);
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
	timer_init(&ctrlr->fail_timer, bdev_nvme_io_fail_due, ctrlr);
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
	if (fiber_spawn(runtime_app_thread(), "nvme-path", bdev_nvme_path_life, path)) {
		free(path);
		return NULL;
	}
	ctrlr->paths[idx] = path;
	__atomic_fetch_add(&ctrlr->nr_paths, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&ctrlr->fast_io_fail_s, opts->loss.fast_io_fail_s, __ATOMIC_RELAXED);
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
		bdev_nvme_ctrlr_end(ctrlr);
		return -ENOMEM;
	}
	if (opts->background)
		return 0;
	attaching.error = error;
	fiber_wait_init(&attaching.wait);
	path->attaching = &attaching;
	return fiber_wait(&attaching.wait);
}

bool bdev_nvme_opts_match(const struct bdev_nvme_attach_opts *opts, const struct bdev_nvme_path_match *m)
{
	const struct nvme_connect_opts *c = &opts->connect;
	bool pcie = c->trtype == NVME_TRTYPE_PCIE;
	char port[16];

	if (!m)
		return true;
	snprintf(port, sizeof(port), "%u", c->addr.port);
	return (!m->trtype || m->trtype == c->trtype) &&
	       (!m->address || !*m->address || !strcmp(m->address, pcie ? opts->address : c->addr.host)) &&
	       (!m->service || !*m->service || !strcmp(m->service, port)) &&
	       (!m->subnqn || !*m->subnqn || !strcmp(m->subnqn, c->subnqn));
}

unsigned bdev_nvme_nr_paths(const char *name, const struct bdev_nvme_path_match *match)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	unsigned nr = 0;

	for (unsigned i = 0; ctrlr && i < BDEV_NVME_MAX_PATHS; i++)
		nr += ctrlr->paths[i] && bdev_nvme_opts_match(&ctrlr->paths[i]->opts, match);
	return nr;
}

fiber_fn int bdev_nvme_detach(const char *name, const struct bdev_nvme_path_match *match)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	unsigned nr = bdev_nvme_forget_removed(name, match), nr_left = 0;

	if (!ctrlr)
		return nr ? 0 : -ENODEV;
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_path *path = ctrlr->paths[i];

		if (path && bdev_nvme_opts_match(&path->opts, match)) {
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

/* 0, -EIO when it is not back, -ENODEV when it has gone meanwhile. */
static fiber_fn int reset_path(const char *name, unsigned idx)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	struct bdev_nvme_path *path = ctrlr->paths[idx];
	unsigned tries = path->nr_tries;

	path->reset_asked = true;
	fiber_cond_signal(&path->asked);
	/* The path may go meanwhile: it is looked up again each time. */
	do {
		fiber_sleep(1000);
		ctrlr = bdev_nvme_find(name);
		if (!ctrlr || ctrlr->paths[idx] != path)
			return -ENODEV;
		if (path->disabled)
			return -EALREADY;
	} while (path->nr_tries == tries || path->state == BDEV_NVME_CONNECTING);
	return path->state == BDEV_NVME_LIVE ? 0 : -EIO;
}

fiber_fn int bdev_nvme_reset(const char *name, const uint16_t *cntlid)
{
	int rc = -ENODEV;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
		const struct bdev_nvme_path *path = ctrlr ? ctrlr->paths[i] : NULL;

		if (!path || (cntlid && (!path->nvme || nvme_ctrlr_cntlid(path->nvme) != *cntlid)))
			continue;
		if (path->disabled) {
			rc = rc == -ENODEV ? -EALREADY : rc;
			continue;
		}
		rc = reset_path(name, i);
		if (rc == -ENODEV)
			break;
	}
	return rc;
}

fiber_fn void bdev_nvme_detach_all(void)
{
	bool was;

	bdev_nvme_discovery_stop_all();
	was = bdev_nvme_hotplug_stop();
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
	bdev_nvme_set_hotplug(was, 0);
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
