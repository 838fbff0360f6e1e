/*
 * What an administrator says of paths: which I/O is to take first, and which are not to be used for a while.  Both hold as long as
 * the path is attached, and no longer: a controller's identifier may be another's after the next start.
 */
#include <errno.h>

#include "bdev/nvme_internal.h"

int bdev_nvme_set_preferred(struct bdev *bdev, uint16_t cntlid)
{
	struct bdev_nvme_ctrlr *ctrlr;
	struct bdev_nvme_ns *ns;
	uint32_t nsid;

	ctrlr = bdev_nvme_of(bdev, &nsid);
	if (!ctrlr)
		return -ENODEV;
	ns = container_of(bdev, struct bdev_nvme_ns, bdev);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		const struct bdev_nvme_path *path = ctrlr->paths[i];

		if (!path || !path->was_live || path->end_asked || path->cntlid != cntlid)
			continue;
		__atomic_store_n(&ns->preferred, (uint8_t)(i + 1), __ATOMIC_RELAXED);
		return 0;
	}
	return -ENOENT;
}

int bdev_nvme_preferred(const struct bdev *bdev)
{
	uint32_t nsid;

	return bdev_nvme_of(bdev, &nsid) ? container_of((struct bdev *)(uintptr_t)bdev, struct bdev_nvme_ns, bdev)->preferred - 1 : -1;
}

void bdev_nvme_forget_preferred(struct bdev_nvme_path *path)
{
	struct list *it;

	list_for_each(it, &path->ctrlr->namespaces) {
		struct bdev_nvme_ns *ns = list_entry(it, struct bdev_nvme_ns, link);

		if (ns->preferred == path->idx + 1)
			__atomic_store_n(&ns->preferred, 0, __ATOMIC_RELAXED);
	}
}

/* Nobody waits for what will not come back by itself. */
bool bdev_nvme_all_disabled(const struct bdev_nvme_ctrlr *ctrlr)
{
	bool any = false;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		const struct bdev_nvme_path *path = ctrlr->paths[i];

		if (path && path->state != BDEV_NVME_ENDING && path->state != BDEV_NVME_DISABLED)
			return false;
		any |= path && path->state == BDEV_NVME_DISABLED;
	}
	return any;
}

fiber_fn void bdev_nvme_stay_disabled(struct bdev_nvme_path *path)
{
	log_notice("%s: path %u is disabled", path->ctrlr->name, path->idx);
	while (path->disabled && !path->end_asked && !path->removed)
		fiber_cond_wait(&path->asked);
	path->down_since_us = clock_now_us(); /* it was not lost meanwhile */
}

/* Waits until the path is as it was told to be.  -ENODEV: it has gone; -EIO: enabled, and not to be had; -EALREADY: told otherwise. */
static fiber_fn int switch_path(const char *name, unsigned idx, bool enabled)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	struct bdev_nvme_path *path = ctrlr->paths[idx];
	unsigned tries = path->nr_tries;

	path->disabled = !enabled;
	fiber_cond_signal(&path->asked);
	for (;;) {
		fiber_sleep(1000);
		ctrlr = bdev_nvme_find(name);
		if (!ctrlr || ctrlr->paths[idx] != path)
			return -ENODEV;
		if (path->disabled == enabled)
			return -EALREADY;
		if (!enabled && path->state == BDEV_NVME_DISABLED)
			return 0;
		if (enabled && path->nr_tries != tries && path->state != BDEV_NVME_CONNECTING)
			return path->state == BDEV_NVME_LIVE ? 0 : -EIO;
	}
}

fiber_fn int bdev_nvme_set_enabled(const char *name, const uint16_t *cntlid, bool enabled)
{
	int rc = -ENODEV;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
		const struct bdev_nvme_path *path = ctrlr ? ctrlr->paths[i] : NULL;
		int one;

		if (!path || path->end_asked || (cntlid && (!path->was_live || path->cntlid != *cntlid)))
			continue;
		if (path->attaching)
			one = -EBUSY;
		else if (path->disabled == !enabled)
			one = -EALREADY;
		else
			one = switch_path(name, i, enabled);
		/* What was already so is no failure beside what was done. */
		if (rc == -ENODEV || rc == -EALREADY || (one && one != -EALREADY))
			rc = one;
	}
	return rc;
}
