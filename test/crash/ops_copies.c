/*
 * Operations on what volumes have of each other, and of bdev outside: snapshots, clones, reverts, parents, inflating, shallow copies.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/sim.h"
#include "test/crash/ops.h"

/* --- whole volumes --- */

static char *volume_alloc(unsigned i)
{
	return aligned_alloc(4096, (work.h->oracle->volumes[i].sizes[0] + 7) / 8 * 8 * ORACLE_BLOCK);
}

/* False: it could not be read. */
static fiber_fn bool volume_read(unsigned i, char *buf)
{
	uint32_t nr = work.h->oracle->volumes[i].sizes[0], n;
	bool seen = true;

	for (uint32_t b = 0; b < nr; b += n) {
		n = nr - b < OPS_MAX_IO_BLOCKS ? nr - b : OPS_MAX_IO_BLOCKS;
		seen &= op_read(&(struct range){ i, b, n }, buf + (size_t)b * ORACLE_BLOCK);
	}
	return seen;
}

/* Nobody uses it from now on, until it is opened to them again. */
static fiber_fn void slot_drain(unsigned i)
{
	work.slots[i].closing = true;
	while (work.slots[i].nr_users)
		fiber_sleep(5);
}

/* --- snapshots and clones --- */

static fiber_fn void judge_snapshot(unsigned i)
{
	char *buf = volume_alloc(i);
	const char *wrong = volume_read(i, buf) ? oracle_judge_snapshot(work.h->oracle, i, buf) : NULL;

	if (wrong)
		workload_fail(wrong);
	free(buf);
}

static fiber_fn int take(unsigned from, unsigned to, bool snapshot, struct lvol **ret_lvol)
{
	struct lvol_copy_opts opts = { 0 };
	char name[ORACLE_NAME_MAX];

	slot_new_name(name, snapshot ? 's' : 'c');
	oracle_take_begin(work.h->oracle, to, from, snapshot, name);
	opts.name = name;
	uuid_copy(opts.uuid, work.h->oracle->volumes[to].uuid);
	return snapshot ? lvol_snapshot(work.slots[from].lvol, &opts, ret_lvol) :
			  lvol_clone(work.slots[from].lvol, &opts, ret_lvol);
}

static fiber_fn void take_into_slot(unsigned from, bool snapshot)
{
	struct lvol *lvol;
	int to, rc;

	call_begin(from, snapshot ? "snapshot" : "clone");
	to = slot_free();
	if (to < 0 || !oracle_can_take(work.h->oracle, from)) {
		call_end(from, 0, true);
		return;
	}
	rc = take(from, to, snapshot, &lvol);
	if (!call_end(from, rc, true))
		return;
	oracle_take_end(work.h->oracle, to, rc == 0);
	if (!rc) {
		slot_open(to, lvol);
		witness->nr_snapshots += snapshot;
		witness->nr_clones += !snapshot;
	}
	if (rc || !snapshot)
		return;
	/* Nobody else reads it before it is known what it caught. */
	work.slots[to].controlled = work.slots[to].closing = true;
	judge_snapshot(to);
	work.slots[to].controlled = work.slots[to].closing = false;
}

fiber_fn void op_snapshot(unsigned i)
{
	take_into_slot(i, true);
}

fiber_fn void op_clone(unsigned i)
{
	take_into_slot(i, false);
}

/* Into slot i, which is free. */
fiber_fn void op_clone_outside(unsigned i)
{
	struct history *h = work.h;
	uint64_t nr = outside_blocks(h->max_blocks);
	char name[ORACLE_NAME_MAX];
	struct lvol *lvol;
	int rc;

	call_begin(i, "clone from a bdev");
	slot_new_name(name, 'o');
	oracle_create_outside_begin(h->oracle, i, name, (nr + cluster_blocks() - 1) / cluster_blocks() * cluster_blocks(), nr);
	rc = lvol_clone_bdev(lvol_store_first(), "outside", name, h->oracle->volumes[i].uuid, &lvol);
	if (!call_end(i, rc, true))
		return;
	oracle_create_end(h->oracle, i, rc == 0);
	if (rc)
		return;
	slot_open(i, lvol);
	witness->nr_outsides++;
}

/* --- reverts and parents --- */

/* Of two calls that are one, on a volume and a snapshot.  A snapshot whose volume may or may not be it is left alone. */
static bool pair_end(unsigned i, unsigned snapshot, int rc, bool may_lack_space)
{
	bool known = call_end(i, rc, may_lack_space);

	work.slots[snapshot].controlled = !known;
	work.slots[i].closing = false;
	if (!known)
		work.slots[i].usable = 0;
	return known;
}

static fiber_fn void pair_begin(unsigned i, unsigned snapshot, const char *what)
{
	call_begin(i, what);
	call_begin(snapshot, what);
	work.nr_calls--;
}

fiber_fn void op_revert(unsigned i, unsigned snapshot)
{
	struct oracle *o = work.h->oracle;
	struct slot *s = &work.slots[i];
	int rc;

	pair_begin(i, snapshot, "revert");
	if (sim_rand() % 3 == 0) {
		slot_drain(i);
	} else if (o->volumes[snapshot].sizes[0] < s->usable) {
		s->usable = o->volumes[snapshot].sizes[0];
		slot_wait_tail(i, s->usable);
	}
	oracle_revert_begin(o, i, snapshot);
	rc = lvol_revert(s->lvol, work.slots[snapshot].lvol);
	if (!pair_end(i, snapshot, rc, true))
		return;
	oracle_revert_end(o, i, rc == 0);
	witness->nr_reverts += rc == 0;
	s->usable = o->volumes[i].sizes[0];
}

/* The slot of a volume's parent, to be held while that must not go; -1: none, or not to be had. */
static int parent_hold(unsigned i)
{
	struct lvol *parent = lvol_parent(work.slots[i].lvol);
	struct lvol_info info;
	int slot;

	if (!parent)
		return -1;
	lvol_get_info(parent, &info);
	slot = oracle_find(work.h->oracle, info.uuid);
	if (slot < 0 || !slot_idle(slot))
		return -1;
	work.slots[slot].controlled = true;
	return slot;
}

/* It may have one that is not shown any more, since it is being deleted. */
static bool has_parent(unsigned i)
{
	struct lvol_info info;

	lvol_get_info(work.slots[i].lvol, &info);
	return info.clone;
}

static void parent_release(int slot)
{
	if (slot >= 0)
		work.slots[slot].controlled = false;
}

fiber_fn void op_decouple(unsigned i)
{
	int rc, parent;

	call_begin(i, "decouple");
	parent = parent_hold(i);
	if (parent < 0) {
		call_end(i, 0, false);
		return;
	}
	oracle_decouple_begin(work.h->oracle, i);
	rc = lvol_decouple(work.slots[i].lvol);
	parent_release(parent);
	if (call_end(i, rc, false))
		oracle_decouple_end(work.h->oracle, i, rc == 0);
}

/* Whether the store must take it. */
static bool can_be_parent(unsigned i, unsigned snapshot)
{
	struct lvol_info volume, other;

	if (!oracle_can_be_parent(work.h->oracle, i, snapshot))
		return false;
	lvol_get_info(work.slots[i].lvol, &volume);
	if (snapshot == ORACLE_OUTSIDE_SLOT)
		return volume.thin;
	lvol_get_info(work.slots[snapshot].lvol, &other);
	return volume.thin && !*volume.external && !*other.external;
}

static fiber_fn int set_parent(unsigned i, unsigned snapshot)
{
	return snapshot == ORACLE_OUTSIDE_SLOT ? lvol_set_parent_bdev(work.slots[i].lvol, "outside") :
						 lvol_set_parent(work.slots[i].lvol, work.slots[snapshot].lvol);
}

fiber_fn void op_set_parent(unsigned i, unsigned snapshot)
{
	bool held, known;
	const char *wrong = NULL;
	int rc, parent;
	char *seen;

	pair_begin(i, snapshot, "set parent");
	parent = parent_hold(i);
	held = parent >= 0 || !has_parent(i);
	if (!held || !can_be_parent(i, snapshot)) {
		parent_release(parent);
		pair_end(i, snapshot, 0, false);
		return;
	}
	if (sim_rand() % 3 == 0)
		slot_drain(i);
	oracle_set_parent_begin(work.h->oracle, i, snapshot);
	rc = set_parent(i, snapshot);
	slot_drain(i);
	seen = volume_alloc(i);
	known = rc || volume_read(i, seen);
	if (!rc && known && oracle_altered_unclear(work.h->oracle, i, seen))
		op_flush(i); /* then those changes stay, whichever way it was below them */
	parent_release(parent);
	if (rc == -EEXIST && snapshot == ORACLE_OUTSIDE_SLOT) { /* it shows it already */
		pair_end(i, snapshot, 0, true);
		oracle_set_parent_end(work.h->oracle, i, NULL);
	} else if (pair_end(i, snapshot, known ? rc : -EIO, true))
		wrong = oracle_set_parent_end(work.h->oracle, i, rc ? NULL : seen);
	if (wrong)
		workload_fail(wrong);
	free(seen);
	witness->nr_set_parents += rc == 0;
}

fiber_fn void op_inflate(unsigned i)
{
	int rc, parent;

	call_begin(i, "inflate");
	parent = parent_hold(i);
	oracle_inflate_begin(work.h->oracle, i);
	rc = lvol_inflate(work.slots[i].lvol, NULL);
	parent_release(parent);
	if (!call_end(i, rc, true))
		return;
	oracle_inflate_end(work.h->oracle, i, rc == 0);
	witness->nr_inflates += rc == 0;
}

/* --- shallow copies --- */

#define UNTOUCHED 0xee

/* A cluster of the copy is the volume's; or it was left alone, where the volume has nothing or what is outside. */
static bool copied(const char *copy, const char *volume, uint32_t first, uint32_t nr)
{
	char outside[ORACLE_BLOCK];

	if (!memcmp(copy, volume, (size_t)nr * ORACLE_BLOCK))
		return true;
	for (uint32_t b = 0; b < nr; b++, copy += ORACLE_BLOCK, volume += ORACLE_BLOCK) {
		oracle_fill_outside(first + b, 1, outside);
		if ((unsigned char)*copy != UNTOUCHED || memcmp(copy, copy + 1, ORACLE_BLOCK - 1))
			return false;
		if ((*volume || memcmp(volume, volume + 1, ORACLE_BLOCK - 1)) && memcmp(volume, outside, ORACLE_BLOCK))
			return false;
	}
	return true;
}

static fiber_fn void judge_copy(unsigned i)
{
	uint32_t nr = work.h->oracle->volumes[i].sizes[0], a_cluster = cluster_blocks();
	char *seen = volume_alloc(i);

	if (volume_read(i, seen))
		for (uint32_t b = 0; b < nr; b += a_cluster)
			if (!copied(outside_target() + (size_t)b * ORACLE_BLOCK, seen + (size_t)b * ORACLE_BLOCK, b, a_cluster))
				workload_fail("a shallow copy over a copy of the parent is not what the volume is");
	free(seen);
}

/* Over what its parent holds. */
static fiber_fn bool prepare_target(int parent)
{
	memset(outside_target(), UNTOUCHED, work.h->max_blocks * ORACLE_BLOCK);
	return parent < 0 || volume_read(parent, outside_target());
}

fiber_fn void op_shallow_copy(unsigned i)
{
	bool ready = false;
	int rc = 0, parent;

	if (work.copying)
		return;
	work.copying = true;
	call_begin(i, "shallow copy");
	parent = parent_hold(i);
	if (parent >= 0 || !has_parent(i))
		ready = prepare_target(parent);
	if (ready)
		rc = lvol_shallow_copy(work.slots[i].lvol, "target", NULL);
	if (ready && !rc)
		judge_copy(i);
	parent_release(parent);
	call_end(i, rc, false);
	work.slots[i].controlled = false; /* it changes nothing */
	work.copying = false;
	witness->nr_copies += ready && !rc;
}
