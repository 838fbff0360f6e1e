/*
 * Scripts: all sequences of up to three operations over two volumes, one after another or all at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/sim.h"
#include "test/crash/ops.h"

#define MAX_STEPS 3u

struct step {
	const char *name;
	void (*run)(unsigned slot, char *buf);
	bool control; /* on the volume itself: in a fiber of the app thread */
};

/* --- steps --- */

/* A range in clusters' eighths, cut to what the volume has. */
static bool place(struct range *r, unsigned slot, uint32_t first_eighth, uint32_t nr_eighths)
{
	struct slot *s = &work.slots[slot];
	uint32_t eighth = work.h->cluster_bytes / ORACLE_BLOCK / 8, nr = nr_eighths * eighth;

	*r = (struct range){ .slot = slot, .first = first_eighth * eighth, .nr = nr };
	if (nr_eighths == 0) { /* within one sub-block */
		r->first += s->per;
		r->nr = s->per;
	}
	if (!s->desc || s->closing || r->first + r->nr > s->usable)
		return false;
	while (!range_free(r, false) && !s->closing)
		fiber_sleep(10);
	return s->desc && !s->closing && r->first + r->nr <= s->usable;
}

static void change(unsigned slot, char *buf, enum bdev_op op, unsigned flags, uint32_t first_eighth, uint32_t nr_eighths)
{
	struct range r;

	if (place(&r, slot, first_eighth, nr_eighths) && !slot_frozen(slot))
		op_change(&r, buf, op, flags);
}

static void write_head(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_WRITE, 0, 0, 2);
}

static void write_tiny(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_WRITE, 0, 3, 0);
}

static void write_across(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_WRITE, 0, 5, 6);
}

static void write_fua(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_WRITE, BDEV_IO_FUA, 8, 1);
}

static void write_cluster(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_WRITE, 0, 8, 8);
}

static void unmap_cluster(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_UNMAP, 0, 0, 8);
}

static void unmap_across(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_UNMAP, 0, 4, 10);
}

static void unmap_tail(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_UNMAP, 0, 2, 6);
}

static void zeroes_fua(unsigned slot, char *buf)
{
	change(slot, buf, BDEV_WRITE_ZEROES, BDEV_IO_FUA, 1, 0);
}


static void read_head(unsigned slot, char *buf)
{
	struct range r;

	if (place(&r, slot, 0, 12))
		op_read(&r, buf);
}

static void flush(unsigned slot, char *buf)
{
	if (work.slots[slot].desc && !work.slots[slot].closing)
		op_flush(slot);
}

static void create(unsigned slot, char *buf)
{
	if (!work.slots[slot].desc && !work.slots[slot].controlled)
		op_create(slot, slot || work.h->max_blocks < 2 * cluster_blocks() ? work.h->max_blocks / cluster_blocks() : 2, slot != 1);
}

static void delete(unsigned slot, char *buf)
{
	if (slot_idle(slot))
		op_delete(slot);
}

static void rename_it(unsigned slot, char *buf)
{
	if (slot_idle(slot))
		op_rename(slot);
}

static void shrink(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot))
		op_resize(slot, 1);
}

static void grow(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot))
		op_resize(slot, work.h->max_blocks / cluster_blocks());
}

static void attribute(unsigned slot, char *buf)
{
	if (slot_idle(slot))
		op_xattr(slot);
}

static void checkpoint(unsigned slot, char *buf)
{
	store_checkpoint(lvol_store_blobstore(lvol_store_first()));
}

static void snapshot(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot))
		op_snapshot(slot);
}

static void clone_newest(unsigned slot, char *buf)
{
	int i = slot_idle(slot) && slot_frozen(slot) ? (int)slot : slot_snapshot_of(slot, true);

	if (i >= 0)
		op_clone(i);
}

static void revert_oldest(unsigned slot, char *buf)
{
	int i = slot_snapshot_of(slot, false);

	if (i >= 0 && slot_idle(slot) && !slot_frozen(slot))
		op_revert(slot, i);
}

static void delete_oldest(unsigned slot, char *buf)
{
	int i = slot_snapshot_of(slot, false);

	if (i >= 0)
		op_delete(i);
}

static void decouple(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot))
		op_decouple(slot);
}

static void inflate(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot))
		op_inflate(slot);
}

/* The other volume's newest snapshot, or its own that is not its parent. */
static void set_parent(unsigned slot, char *buf)
{
	int i = slot_snapshot_of(!slot, true);

	if (i < 0 || !slot_idle(slot) || slot_frozen(slot) || !oracle_can_be_parent(work.h->oracle, slot, i))
		i = slot_snapshot_of(slot, false);
	if (i >= 0 && slot_idle(slot) && !slot_frozen(slot) && oracle_can_be_parent(work.h->oracle, slot, i))
		op_set_parent(slot, i);
}

static void set_parent_outside(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot) && !work.slots[ORACLE_OUTSIDE_SLOT].controlled &&
	    oracle_can_be_parent(work.h->oracle, slot, ORACLE_OUTSIDE_SLOT))
		op_set_parent(slot, ORACLE_OUTSIDE_SLOT);
}

static void read_only(unsigned slot, char *buf)
{
	if (slot_idle(slot) && !slot_frozen(slot))
		op_set_read_only(slot);
}

/* In its place, where there is none. */
static void clone_outside(unsigned slot, char *buf)
{
	int i = slot_is_free(slot) ? (int)slot : slot_free();

	if (i >= 0)
		op_clone_outside(i);
}

static void copy(unsigned slot, char *buf)
{
	int i = slot_idle(slot) && slot_frozen(slot) ? (int)slot : slot_snapshot_of(slot, true);

	if (i >= 0)
		op_shallow_copy(i);
}

/* To one that can be written, of the clones that there are. */
static void write_clone(unsigned slot, char *buf)
{
	for (unsigned i = ORACLE_MAX_VOLUMES - 1; i > 1; i--)
		if (slot_idle(i) && !slot_frozen(i)) {
			change(i, buf, BDEV_WRITE, 0, 3 + slot, slot);
			return;
		}
}

static void grow_store(unsigned slot, char *buf)
{
	op_grow_store();
}

static void rename_store(unsigned slot, char *buf)
{
	op_rename_store();
}

static const struct step steps[] = {
	{ "write-head", write_head, false },	 { "write-tiny", write_tiny, false },	{ "write-across", write_across, false },
	{ "write-fua", write_fua, false },	 { "write-cluster", write_cluster, false }, { "unmap-cluster", unmap_cluster, false },
	{ "unmap-across", unmap_across, false }, { "unmap-tail", unmap_tail, false }, { "zeroes-fua", zeroes_fua, false },	{ "read", read_head, false },
	{ "flush", flush, false },		 { "create", create, true },		{ "delete", delete, true },
	{ "rename", rename_it, true },		 { "shrink", shrink, true },		{ "grow", grow, true },
	{ "attribute", attribute, true },	 { "checkpoint", checkpoint, true },	{ "snapshot", snapshot, true },
	{ "clone", clone_newest, true },	 { "revert", revert_oldest, true },	{ "delete-snapshot", delete_oldest, true },
	{ "decouple", decouple, true },		 { "inflate", inflate, true },		{ "set-parent", set_parent, true },
	{ "read-only", read_only, true },	 { "clone-outside", clone_outside, true }, { "shallow-copy", copy, true },
	{ "write-clone", write_clone, false },	 { "grow-store", grow_store, true },	{ "rename-store", rename_store, true },
	{ "set-parent-outside", set_parent_outside, true },
};

#define NR_STEPS (sizeof(steps) / sizeof(steps[0]))
#define NR_KINDS (2 * NR_STEPS) /* on either volume */

/* --- numbers of scripts --- */

struct script {
	unsigned nr;
	bool at_once;
	struct {
		const struct step *step;
		unsigned slot;
	} part[MAX_STEPS];
};

uint64_t script_nr_single(void)
{
	return NR_KINDS;
}

uint64_t script_single(uint64_t i)
{
	return 2 * i;
}

uint64_t script_count(void)
{
	uint64_t n = 0, power = 1;

	for (unsigned i = 0; i < MAX_STEPS; i++)
		n += power *= NR_KINDS;
	return 2 * n;
}

static struct script script_get(uint64_t number)
{
	struct script s = { .nr = 1, .at_once = number % 2 };
	uint64_t power = NR_KINDS;

	for (number /= 2; number >= power; s.nr++) {
		number -= power;
		power *= NR_KINDS;
	}
	for (unsigned i = 0; i < s.nr; i++) {
		s.part[i].step = &steps[number % NR_KINDS / 2];
		s.part[i].slot = number % 2;
		number /= NR_KINDS;
	}
	return s;
}

void script_name(uint64_t number, char *buf, size_t size)
{
	struct script s = script_get(number);
	size_t n = 0;

	for (unsigned i = 0; i < s.nr && n < size; i++)
		n += snprintf(buf + n, size - n, "%s%s %c", i ? s.at_once ? " | " : ", " : "", s.part[i].step->name,
			      'a' + s.part[i].slot);
}

/* --- running --- */

struct runner {
	const struct step *step;
	unsigned slot, *left;
	struct fiber_wait *over;
};

static void run_step(void *arg)
{
	struct runner *r = arg;
	char *buf = aligned_alloc(4096, OPS_MAX_IO_BLOCKS * ORACLE_BLOCK);

	r->step->run(r->slot, buf);
	free(buf);
	if (--*r->left == 0)
		fiber_wake(r->over, 0);
}

void script_run(struct history *h, uint64_t number)
{
	struct script s = script_get(number);
	struct runner runners[MAX_STEPS];
	unsigned left = 0;
	struct fiber_wait over;

	for (unsigned i = 0; i < s.nr; i++) {
		runners[i] = (struct runner){ s.part[i].step, s.part[i].slot, &left, &over };
		if (left++ == 0)
			fiber_wait_init(&over);
		fiber_spawn(runtime_app_thread(), "step", run_step, &runners[i]);
		if (!s.at_once || i + 1 == s.nr)
			fiber_wait(&over);
	}
}
