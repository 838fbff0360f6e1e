/*
 * Paths.  Each is a fiber on the app thread that reads from top to bottom: connect, scan, give every channel a queue; wait for what
 * comes (a failure, an event, a reset, the end); take the queues away; and again.
 *
 * When the last live path goes, I/O waits; the controller's fate decides how long: fast_io_fail_s after that it fails, and when
 * a path's ctrlr_loss_s is over, or its function was removed, the path ends.  One that is disabled waits until it is enabled.  With the last path the bdevs go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"
#include "nvme/bar.h"

#define LOOK_AGAIN_US 1000000u
#define SHORT_LIFE_US 1000000u /* a path that failed after less is not tried again at once */

/* --- what I/O without a path meets ----------------------------------------------------------------- */

void bdev_nvme_set_fate(struct bdev_nvme_ctrlr *ctrlr, enum bdev_nvme_fate fate)
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

void bdev_nvme_io_fail_due(void *arg)
{
	struct bdev_nvme_ctrlr *ctrlr = arg;

	if (ctrlr->ending || any_live(ctrlr))
		return;
	log_warning("%s: no path for its fast I/O fail time: I/O fails from now on", ctrlr->name);
	bdev_nvme_set_fate(ctrlr, BDEV_NVME_FAIL);
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
		bdev_nvme_set_fate(ctrlr, BDEV_NVME_WAIT);
	} else if (bdev_nvme_all_disabled(ctrlr)) {
		timer_cancel(&ctrlr->fail_timer);
		bdev_nvme_set_fate(ctrlr, BDEV_NVME_FAIL);
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
		bdev_nvme_set_fate(path->ctrlr, BDEV_NVME_GONE);
}

static void on_event(struct nvme_ctrlr *nvme, uint32_t dw0, void *arg)
{
	struct bdev_nvme_path *path = arg;

	if (NVME_AER_TYPE(dw0) == NVME_AER_NOTICE && NVME_AER_INFO(dw0) == NVME_AER_NOTICE_ANA)
		path->ana_asked = true;
	else if (NVME_AER_TYPE(dw0) == NVME_AER_NOTICE)
		path->rescan_asked = true;
	else
		bdev_nvme_event_came(path, dw0);
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

/* A drive without a subsystem's name is known by its serial number and its model. */
static int check_drive(struct bdev_nvme_path *path)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(path->nvme);
	const struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;

	if (!memcmp(ctrlr->serial, id->sn, sizeof(ctrlr->serial)) && !memcmp(ctrlr->model, id->mn, sizeof(ctrlr->model)))
		return 0;
	nvme_error_set(&path->error, -EINVAL, 0, "%s is the drive %.20s (%.40s), and %.20s (%.40s) is there now", ctrlr->name,
		       ctrlr->serial, ctrlr->model, id->sn, id->mn);
	return -EINVAL;
}

/* Paths of one name lead to one subsystem. */
static int check_subsystem(struct bdev_nvme_path *path)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(path->nvme);
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	char subnqn[NVME_NQN_FIELD_SIZE];

	nvme_copy_field(subnqn, sizeof(subnqn), id->subnqn, sizeof(id->subnqn));
	if (!ctrlr->identified) {
		memcpy(ctrlr->subnqn, subnqn, sizeof(subnqn));
		memcpy(ctrlr->serial, id->sn, sizeof(ctrlr->serial));
		memcpy(ctrlr->model, id->mn, sizeof(ctrlr->model));
		ctrlr->identified = true;
	}
	if (!*subnqn && !*ctrlr->subnqn)
		return check_drive(path);
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
	path->nr_events = 0;
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
	path->cntlid = nvme_ctrlr_cntlid(path->nvme);
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
	bdev_nvme_forget_ana(path);
	paths_changed(path);
}

static void close_function(struct bdev_nvme_path *path)
{
	if (path->bar)
		path->bar->ops->close(path->bar);
	path->bar = NULL;
}

/* The function is there, and others want it: it goes in good order, and comes back when it is ours again. */
static bool asked_back(const struct bdev_nvme_path *path)
{
	return path->removed && path->bar && !nvme_bar_removed(path->bar);
}

/* --- the path's life ---------------------------------------------------------------------------------- */

/* What a scan of many namespaces, say, does not hold up. */
fiber_fn void bdev_nvme_attend(struct bdev_nvme_path *path)
{
	if (path->ana_asked && !path->failed)
		bdev_nvme_read_ana(path);
}

/* Until the path is of no use any more, for whatever reason. */
static fiber_fn void watch(struct bdev_nvme_path *path)
{
	while (!path->failed && !path->removed && !path->reset_asked && !path->end_asked && !path->disabled) {
		if (path->rescan_asked) {
			path->rescan_asked = path->queues_missing = path->look_again = false;
			fiber_lock(&path->ctrlr->mutex);
			if (!path->failed)
				bdev_nvme_channels_connect(path);
			if (!path->failed && bdev_nvme_scan(path))
				path->look_again = true;
			fiber_unlock(&path->ctrlr->mutex);
			bdev_nvme_channels_kick(path->ctrlr);
		} else if (path->ana_asked) {
			bdev_nvme_attend(path);
		} else if (path->nr_events) {
			bdev_nvme_read_events(path);
		} else if (path->queues_missing || path->look_again || path->look_at_ana) {
			if (fiber_cond_timedwait(&path->asked, LOOK_AGAIN_US) == -ETIMEDOUT) {
				path->rescan_asked = path->rescan_asked || path->queues_missing || path->look_again;
				path->ana_asked = true;
			}
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
	if (path->disabled)
		return true;
	if (!path->was_live)
		return path->opts.background; /* for as long as it takes */
	return loss->ctrlr_loss_s < 0 || loss->never_reconnect ||
	       clock_now_us() - path->down_since_us < loss->ctrlr_loss_s * 1000000ull;
}

static fiber_fn void wait_for_next_try(struct bdev_nvme_path *path)
{
	uint64_t until_us = clock_now_us() + reconnect_delay_us(path);

	if (path->opts.loss.never_reconnect && path->was_live && !any_live(path->ctrlr))
		bdev_nvme_set_fate(path->ctrlr, BDEV_NVME_FAIL);
	while (!path->reset_asked && !path->end_asked && !path->removed && !path->disabled) {
		uint64_t now_us = clock_now_us();

		if (path->opts.loss.never_reconnect && path->was_live)
			fiber_cond_wait(&path->asked);
		else if (now_us >= until_us)
			return;
		else
			fiber_cond_timedwait(&path->asked, until_us - now_us);
	}
}

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

static fiber_fn void path_end(struct bdev_nvme_path *path)
{
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	bool last = true;

	bdev_nvme_forget_preferred(path);
	set_state(path, BDEV_NVME_ENDING);
	if (path->removed && path->was_live && !path->end_asked)
		bdev_nvme_remember_removed(path);
	close_function(path);
	fiber_lock(&ctrlr->mutex);
	ctrlr->paths[path->idx] = NULL;
	__atomic_fetch_sub(&ctrlr->nr_paths, 1, __ATOMIC_RELAXED);
	fiber_unlock(&ctrlr->mutex);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++)
		last = last && !ctrlr->paths[i];
	if (last)
		bdev_nvme_ctrlr_end(ctrlr);
	attached(path, path->error.err ? path->error.err : -EIO);
	free(path);
}

fiber_fn void bdev_nvme_path_life(void *arg)
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
			if (!path->failed && (path->removed ? asked_back(path) : path->end_asked))
				let_go(path);
			if (path->failed && path->nvme)
				path->error = *nvme_ctrlr_error(path->nvme);
		}
		if (path->bar && nvme_bar_removed(path->bar))
			path->removed = true;
		if (!path->end_asked && (path->was_live || path->nr_tries == 1) && !path->reset_asked && !path->disabled)
			log_warning("%s: path %u is down: %s", path->ctrlr->name, path->idx,
				    !path->removed || *path->error.text ? path->error.text :
				    asked_back(path)			? "it is asked for by others" :
									  "it was removed");
		asked = path->reset_asked;
		path_down(path, goes_on(path) ? BDEV_NVME_DOWN : BDEV_NVME_ENDING,
			  !rc && (path->end_asked || (asked_back(path) && !path->failed)));
		if (!goes_on(path))
			break;
		/* What was live for a while and failed is tried again at once. */
		if (!path->disabled && (rc || (!asked && clock_now_us() - path->live_since_us < SHORT_LIFE_US)))
			wait_for_next_try(path);
		if (path->disabled && !path->end_asked && !path->removed) {
			set_state(path, BDEV_NVME_DISABLED);
			bdev_nvme_stay_disabled(path);
		}
		if (path->end_asked || path->removed)
			break;
		path->nr_resets++;
		set_state(path, BDEV_NVME_CONNECTING);
	}
	path_end(path);
}
