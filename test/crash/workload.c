/*
 * What runs until the power goes: several threads of seeded I/O on several volumes, and one fiber that creates, deletes,
 * resizes and renames them; or a short script of operations.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/sim.h"
#include "test/crash/ops.h"

static bool winding_down;

void workload_wind_down(void)
{
	work.ops_left = 0;
	winding_down = true;
}

/* --- I/O --- */

/* A range that can be read, or changed; false: not found this time. */
static bool pick(struct range *r, bool reading, bool unmapping)
{
	struct slot *s;
	uint32_t max;

	r->slot = sim_rand() % ORACLE_MAX_VOLUMES;
	s = &work.slots[r->slot];
	if (!s->desc || s->closing || s->usable < s->per)
		return false;
	if (!reading && lvol_bdev(s->lvol)->read_only)
		return false;
	max = work.h->small_io || sim_rand() % 4 ? work.h->io_blocks : OPS_MAX_IO_BLOCKS;
	if (unmapping)
		max = work.h->unmap_blocks;
	if (sim_rand() % work.h->cluster_one_in == 0) /* a whole cluster, where the map has no bits */
		max = 0;
	r->nr = max ? (1 + sim_rand() % max + s->per - 1) / s->per * s->per : work.h->cluster_bytes / ORACLE_BLOCK;
	if (r->nr > s->usable)
		r->nr = s->usable;
	r->first = sim_rand() % ((s->usable - r->nr) / s->per + 1) * s->per;
	if (sim_rand() % 100 < work.h->near_percent)
		r->first = r->first % (64 * s->per) / s->per * s->per;
	if (!max)
		r->first = r->first / r->nr * r->nr;
	return r->first + r->nr <= s->usable && range_free(r, reading);
}

static fiber_fn void one_op(char *buf)
{
	unsigned what = sim_rand() % 100, fua = sim_rand() % work.h->fua_one_in ? 0 : BDEV_IO_FUA;
	bool flush = sim_rand() % 100 < work.h->flush_percent;
	struct range r;

	if (!pick(&r, !flush && what < 24, what >= 24 && what < 29 + work.h->unmap_percent)) {
		fiber_sleep(1 + sim_rand() % 50);
		return;
	}
	if (work.ops_left)
		work.ops_left--;
	if (flush)
		op_flush(r.slot);
	else if (what < 24)
		op_read(&r, buf);
	else if (what < 24 + work.h->unmap_percent)
		op_change(&r, buf, BDEV_UNMAP, fua);
	else if (what < 29 + work.h->unmap_percent)
		op_change(&r, buf, BDEV_WRITE_ZEROES, fua);
	else
		op_change(&r, buf, BDEV_WRITE, fua);
}

static void ended(void *arg)
{
	if (--work.nr_running == 0)
		fiber_wake(&work.over, 0);
}

static void io_main(void *arg)
{
	char *buf = aligned_alloc(4096, OPS_MAX_IO_BLOCKS * ORACLE_BLOCK);

	while (work.ops_left) {
		one_op(buf);
		if (sim_rand() % 4 == 0 || work.h->pause_us > 200)
			fiber_sleep(sim_rand() % work.h->pause_us);
	}
	free(buf);
	thread_send(runtime_app_thread(), ended, NULL);
}

/* --- volumes --- */

static uint64_t random_clusters(void)
{
	uint64_t most = work.h->max_blocks / cluster_blocks();

	return work.h->taste == TASTE_COPIES && sim_rand() % 8 ? most : 1 + sim_rand() % most;
}

/* What was cut off must not be seen again. */
static fiber_fn void shrink_and_grow(unsigned i)
{
	op_resize(i, random_clusters());
	if (slot_idle(i) && sim_rand() % 2)
		op_resize(i, work.h->max_blocks / cluster_blocks());
}

/* Of a hundred operations on a volume, and on a snapshot, how many are what. */
static const struct mix {
	unsigned delete, resize, rename, xattr, snapshot, decouple, revert, set_parent, inflate, read_only;
	unsigned delete_frozen, clone, copy;
	unsigned outside, store; /* of a hundred new volumes; of a hundred operations of any kind */
} mixes[] = {
	[TASTE_ALL] = { 12, 12, 8, 8, 18, 5, 12, 12, 8, 2, 30, 35, 10, 20, 1 },
	[TASTE_FEW] = { 20, 20, 5, 5, 5, 0, 0, 0, 2, 0, 40, 5, 0, 10, 0 },
	[TASTE_SNAPSHOTS] = { 3, 3, 0, 2, 63, 3, 10, 7, 0, 0, 50, 15, 0, 0, 0 },
	[TASTE_COPIES] = { 4, 0, 0, 0, 28, 8, 20, 25, 7, 3, 22, 45, 20, 20, 1 },
	[TASTE_ATTRIBUTES] = { 3, 5, 15, 60, 3, 0, 1, 1, 1, 1, 30, 10, 0, 10, 3 },
};

/* Any snapshot that will do. */
static fiber_fn void control_parent(unsigned i)
{
	if (sim_rand() % 4 == 0 && !work.slots[ORACLE_OUTSIDE_SLOT].controlled && oracle_can_be_parent(work.h->oracle, i, ORACLE_OUTSIDE_SLOT)) {
		op_set_parent(i, ORACLE_OUTSIDE_SLOT);
		return;
	}
	for (unsigned n = 0, k = sim_rand(); n < ORACLE_MAX_VOLUMES; n++, k++) {
		unsigned snapshot = k % ORACLE_MAX_VOLUMES;

		if (slot_idle(snapshot) && oracle_can_be_parent(work.h->oracle, i, snapshot)) {
			op_set_parent(i, snapshot);
			return;
		}
	}
}

static fiber_fn void control_volume(unsigned i, unsigned what)
{
	const struct mix *mix = &mixes[work.h->taste];
	int snapshot = slot_snapshot_of(i, sim_rand() % 2);

	if (what < mix->delete)
		op_delete(i);
	else if ((what -= mix->delete) < mix->resize)
		shrink_and_grow(i);
	else if ((what -= mix->resize) < mix->rename)
		op_rename(i);
	else if ((what -= mix->rename) < mix->xattr)
		op_xattr(i);
	else if ((what -= mix->xattr) < mix->snapshot)
		op_snapshot(i);
	else if ((what -= mix->snapshot) < mix->decouple)
		op_decouple(i);
	else if ((what -= mix->decouple) < mix->revert && snapshot >= 0)
		op_revert(i, snapshot);
	else if ((what -= mix->revert) < mix->set_parent)
		control_parent(i);
	else if ((what -= mix->set_parent) < mix->inflate)
		op_inflate(i);
	else if (what - mix->inflate < mix->read_only)
		op_set_read_only(i);
}

static fiber_fn void control_frozen(unsigned i, unsigned what)
{
	const struct mix *mix = &mixes[work.h->taste];

	if (what < mix->delete_frozen)
		op_delete(i);
	else if ((what -= mix->delete_frozen) < mix->clone)
		op_clone(i);
	else if ((what -= mix->clone) < mix->copy)
		op_shallow_copy(i);
	else if ((what -= mix->copy) < 5)
		op_rename(i);
	else if (what < 10)
		op_xattr(i);
}

static fiber_fn void control_store(void)
{
	if (sim_rand() % 2)
		op_rename_store();
	else
		op_grow_store();
}

static void control_main(void *arg)
{
	const unsigned nr_made = work.h->taste == TASTE_COPIES ? 3 : 6; /* the others are copies of something */

	while (work.ops_left) {
		unsigned i = sim_rand() % ORACLE_MAX_VOLUMES, what = sim_rand() % 100;

		if (sim_rand() % 100 < mixes[work.h->taste].store)
			control_store();
		else if (slot_is_free(i) && i < nr_made && what < mixes[work.h->taste].outside)
			op_clone_outside(i);
		else if (slot_is_free(i) && i < nr_made)
			op_create(i, random_clusters(), sim_rand() % 4);
		else if (slot_idle(i) && slot_frozen(i))
			control_frozen(i, what);
		else if (slot_idle(i))
			control_volume(i, what);
		fiber_sleep(sim_rand() % work.h->control_pause_us);
	}
	ended(NULL);
}

/* --- a phase --- */

static fiber_fn void begin_store(struct history *h)
{
	const struct store_create_opts create = { .name = "store", .cluster_size_bytes = h->cluster_bytes,
						  .journal_pages = h->journal_pages, .leaf_shift = h->leaf_shift,
						  .inner_shift = h->inner_shift, .overwrite = true,
						  .checksums = h->checksums };
	struct blob_reason reason = { "" };
	struct store *store;
	int rc;

	h->oracle->may_have_store = true;
	rc = store_create("disk", &create, NULL, &store, &reason);
	if (rc) {
		printf("  %s\n", reason.text);
		fail_errno("store create", rc);
	}
	h->oracle->may_lack_store = false;
	rc = store_close(store);
	if (rc)
		fail_errno("store close", rc);
	rc = lvol_store_open("disk", NULL, &reason);
	if (rc)
		fail_errno("store open", rc);
}

/* False: the store did not open, and was not to. */
static fiber_fn bool begin_again(struct history *h)
{
	const char *wrong;
	bool no_store;

	wrong = verify_open(h, true, &no_store, NULL);
	/* Made to fail: whoever comes next looks at what is left. */
	if (wrong && h->failing && !lvol_store_first())
		return false;
	if (wrong && h->failing && verify_hides_any(h)) {
		lvol_store_close(lvol_store_first());
		return false;
	}
	if (wrong)
		workload_fail(wrong);
	if (no_store) {
		begin_store(h);
		return true;
	}
	for (struct lvol *lvol = lvol_first(lvol_store_first()); lvol; lvol = lvol_next(lvol)) {
		struct lvol_info info;

		lvol_get_info(lvol, &info);
		slot_open(oracle_find(h->oracle, info.uuid), lvol);
	}
	return true;
}

static fiber_fn void run_workers(struct history *h)
{
	struct thread *threads[8];

	assert(h->nr_threads <= 8);
	work.ops_left = winding_down ? 0 : h->nr_ops;
	work.nr_running = h->nr_controls + h->nr_threads * h->nr_fibers;
	fiber_wait_init(&work.over);
	for (unsigned i = 0; i < h->nr_controls; i++)
		fiber_spawn(runtime_app_thread(), "control", control_main, NULL);
	for (unsigned i = 0; i < h->nr_threads; i++) {
		threads[i] = thread_create("io", i % runtime_nr_reactors());
		for (unsigned f = 0; f < h->nr_fibers; f++)
			fiber_spawn(threads[i], "io", io_main, NULL);
	}
	fiber_wait(&work.over);
	for (unsigned i = 0; i < h->nr_threads; i++)
		thread_exit(threads[i]);
}

static fiber_fn void end_store(struct history *h)
{
	int rc;

	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++) {
		if (work.slots[i].desc)
			slot_close(i);
	}
	rc = lvol_store_close(lvol_store_first());
	if (rc && !h->failing)
		fail_errno("store close", rc);
	/* Closing makes everything durable. */
	if (!rc)
		oracle_flush_end(h->oracle, oracle_flush_begin(h->oracle));
}

void workload_main(void *arg)
{
	struct workload *w = arg;
	struct history *h = w->h;
	bool opened = true;

	memset(&work, 0, sizeof(work));
	work.h = h;
	winding_down = false;
	crash_disk_show(h->disk, h->oracle->store.disk_blocks);
	if (outside_create(h->max_blocks) || bdev_crash_create("disk", h->disk, NULL))
		workload_fail("the disk cannot be shown");
	if (w->phase == 0)
		begin_store(h);
	else
		opened = begin_again(h);
	if (opened && h->begins)
		h->begins(h);
	if (opened && w->script == HISTORY_NO_SCRIPT)
		run_workers(h);
	else if (opened)
		script_run(h, w->script);
	if (opened && h->over)
		h->over(h);
	if (opened && !h->failing && verify_lost_clusters(h, 0))
		workload_fail("invariant 7, full is not broken: clusters leaked, or were promised twice");
	if (opened)
		end_store(h);
	bdev_unregister_all();
	w->clean = true;
	runtime_stop(0);
}
