/*
 * Background work beside bdevbench's load: a store's own (scrub, inflate, freeing, checkpoints), which is paced, and snapshots of
 * the volume under load.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bdev/bdev.h"
#include "tools/bdevbench_work.h"

#define STEP_BYTES (1024u * 1024)
#define LEAF_CLUSTERS 64u

const char *const work_names[NR_WORKS] = {
	[WORK_NONE] = "none",	    [WORK_SCRUB] = "scrub",	      [WORK_INFLATE] = "inflate",
	[WORK_FREE] = "free",	    [WORK_CHECKPOINT] = "checkpoint", [WORK_SNAPSHOT] = "snapshot",
};

static struct {
	enum work_kind kind;
	struct lvol *volume, *other; /* other: a second volume, or a clone */
	unsigned nr_prepared;
	uint64_t bytes, stride, nr_done;
	struct progress progress;
	int rc;
	bool running;
	struct fiber_wait over;
} work;

/* Writes of one size, a stride apart, over all of a volume. */
static fiber_fn int write_over(struct lvol *lvol, uint32_t size, uint64_t stride, const bool *stop)
{
	struct bdev *bdev = lvol_bdev(lvol);
	struct bdev_channel *ch;
	struct bdev_desc *desc;
	char *buf;
	int rc = bdev_open(bdev->name, true, NULL, NULL, &desc);

	if (rc)
		return rc;
	ch = bdev_channel_get(desc);
	buf = dma_alloc(size, 4096);
	rc = ch && buf ? 0 : -ENOMEM;
	if (!rc)
		memset(buf, 0x5a, size);
	for (uint64_t at = 0; !rc && at + size <= work.bytes && !(stop && *stop); at += stride) {
		rc = bdev_write(ch, buf, at / bdev->block_size, size / bdev->block_size, 0);
		if (stop)
			fiber_sleep(50); /* few at a time: it is the checkpoints that are to be seen */
	}
	dma_free(buf);
	if (ch)
		bdev_channel_put(ch);
	bdev_close(desc);
	return rc;
}

static fiber_fn int make_other(const char *what, bool written)
{
	char name[48];
	const struct lvol_create_opts opts = { .name = name, .size_bytes = work.bytes, .thin = true };
	int rc;

	snprintf(name, sizeof(name), "%s-%u", what, work.nr_prepared);
	rc = lvol_create(lvol_get_store(work.volume), &opts, &work.other);

	if (!rc && written)
		rc = write_over(work.other, STEP_BYTES, STEP_BYTES, NULL);
	return rc;
}

static fiber_fn int make_clone(void)
{
	char base_name[32], clone_name[32];
	const struct lvol_copy_opts snapshot = { .name = base_name }, clone = { .name = clone_name };
	struct lvol *base, *original;
	int rc = make_other("original", true);

	snprintf(base_name, sizeof(base_name), "base-%u", work.nr_prepared);
	snprintf(clone_name, sizeof(clone_name), "clone-%u", work.nr_prepared);
	if (!rc)
		rc = lvol_snapshot(work.other, &snapshot, &base);
	if (rc)
		return rc;
	original = work.other;
	rc = lvol_clone(base, &clone, &work.other);
	if (!rc)
		rc = lvol_delete(original);
	return rc;
}

fiber_fn int work_prepare(enum work_kind kind, struct lvol *volume, uint64_t bytes)
{
	struct lvol_store_info info;
	struct lvol *base;
	char name[48];
	int rc = 0;

	work.kind = kind;
	work.volume = volume;
	work.bytes = bytes;
	work.nr_prepared++;
	if (work.other) { /* of the round before */
		rc = lvol_delete(work.other);
		snprintf(name, sizeof(name), "bench/base-%u", work.nr_prepared - 1);
		base = lvol_find(name);
		if (!rc && base)
			rc = lvol_delete(base);
		work.other = NULL;
	}
	if (!rc && kind != WORK_NONE)
		rc = store_wait_free(lvol_store_blobstore(lvol_get_store(volume)));
	if (rc)
		return rc;
	switch (kind) {
	case WORK_INFLATE:
		return make_clone();
	case WORK_FREE:
		return make_other("freed", true);
	case WORK_CHECKPOINT:
		lvol_store_get_info(lvol_get_store(volume), &info);
		work.stride = LEAF_CLUSTERS * info.cluster_size_bytes; /* a leaf of the map each: as many dirty pages as can be */
		work.bytes = work.stride * 8192;
		return make_other("written", false);
	default:
		return 0;
	}
}

/* --- the work --- */

static fiber_fn int scrub(void)
{
	struct store_scrub_result result = { 0 };
	struct store_scrub_cursor cursor = { 0 };
	int rc = store_scrub(lvol_store_blobstore(lvol_get_store(work.volume)), &cursor, &result, &work.progress);

	work.nr_done += result.nr_bytes >> 20;
	return rc == -ECANCELED ? 0 : rc;
}

/* It goes on where it was; a clone that is inflated has nothing left to do. */
static fiber_fn int inflate(void)
{
	struct progress *p = &work.progress;
	int rc = lvol_inflate(work.other, p);

	work.nr_done = p->done;
	if (!rc)
		p->cancel = true;
	return rc == -ECANCELED ? 0 : rc;
}

static fiber_fn int free_one(void)
{
	struct store *store = lvol_store_blobstore(lvol_get_store(work.volume));
	struct store_stats stats;
	uint64_t before;
	int rc = 0;

	store_get_stats(store, &stats);
	before = stats.nr_freed_clusters;
	if (work.other)
		rc = lvol_delete(work.other);
	work.other = NULL;
	while (!rc && !work.progress.cancel)
		fiber_sleep(1000);
	store_get_stats(store, &stats);
	work.nr_done += stats.nr_freed_clusters - before;
	return rc;
}

static fiber_fn int first_writes(void)
{
	struct store *store = lvol_store_blobstore(lvol_get_store(work.volume));
	struct store_stats stats;
	uint64_t before;
	int rc;

	store_get_stats(store, &stats);
	before = stats.nr_checkpoints;
	rc = write_over(work.other, 4096, work.stride, &work.progress.cancel);
	store_get_stats(store, &stats);
	work.nr_done += stats.nr_checkpoints - before;
	return rc;
}

static fiber_fn int snapshot(void)
{
	char name[32];
	const struct lvol_copy_opts opts = { .name = name };
	struct lvol *made;

	snprintf(name, sizeof(name), "snapshot-%llu", (unsigned long long)work.nr_done++);
	fiber_sleep(WORK_SNAPSHOT_US);
	return lvol_snapshot(work.volume, &opts, &made);
}

static void work_main(void *arg)
{
	static int (*const steps[NR_WORKS])(void) = {
		[WORK_SCRUB] = scrub,	    [WORK_INFLATE] = inflate, [WORK_FREE] = free_one, [WORK_CHECKPOINT] = first_writes,
		[WORK_SNAPSHOT] = snapshot,
	};

	while (!work.rc && !work.progress.cancel)
		work.rc = steps[work.kind]();
	work.running = false;
	fiber_wake(&work.over, 0);
}

int work_start(void)
{
	int rc;

	work.progress = (struct progress){ 0 };
	if (work.kind != WORK_SNAPSHOT)
		work.nr_done = 0;
	work.rc = 0;
	fiber_wait_init(&work.over);
	rc = fiber_spawn(thread_current(), "work", work_main, NULL);
	work.running = !rc;
	return rc;
}

fiber_fn int64_t work_stop(void)
{
	work.progress.cancel = true;
	fiber_wait(&work.over);
	return work.rc ? work.rc : (int64_t)work.nr_done;
}
