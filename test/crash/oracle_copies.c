/*
 * The oracle on what volumes have of each other: snapshots and clones, reverts, parents.
 *
 * While a volume is *altered* (reverted, or given another parent) it is wholly what it was, or what the other makes of it; changes that
 * were in flight then, or issued since, may be in either.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "test/crash/oracle.h"

/* --- parents --- */

void oracle_parent_may(struct oracle_volume *v, uint32_t parent)
{
	v->parents[1] = parent;
	v->nr_parents = 2;
}

void oracle_parent_is(struct oracle_volume *v, bool ok)
{
	if (ok && v->nr_parents == 2)
		v->parents[0] = v->parents[1];
	v->nr_parents = 1;
}

static int find_generation(const struct oracle *o, uint32_t generation)
{
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++)
		if (o->volumes[i].used && o->volumes[i].generation == generation)
			return i;
	return -1;
}

void oracle_decouple_begin(struct oracle *o, unsigned volume)
{
	int parent = find_generation(o, o->volumes[volume].parents[0]);

	if (parent >= 0)
		oracle_parent_may(&o->volumes[volume], o->volumes[parent].parents[0]);
}

void oracle_decouple_end(struct oracle *o, unsigned volume, bool ok)
{
	oracle_parent_is(&o->volumes[volume], ok);
}

void oracle_inflate_begin(struct oracle *o, unsigned volume)
{
	oracle_parent_may(&o->volumes[volume], 0);
	if (o->volumes[volume].thick == ORACLE_NO)
		o->volumes[volume].thick = ORACLE_MAYBE;
}

void oracle_inflate_end(struct oracle *o, unsigned volume, bool ok)
{
	oracle_parent_is(&o->volumes[volume], ok);
	if (o->volumes[volume].thick == ORACLE_MAYBE)
		o->volumes[volume].thick = ok ? ORACLE_YES : ORACLE_NO;
}

/* --- snapshots --- */

bool oracle_can_take(const struct oracle *o, unsigned origin)
{
	const struct oracle_volume *v = &o->volumes[origin];

	return v->nr_windows + !v->snapshot <= ORACLE_MAX_WINDOWS && v->nr_sizes == 1 && v->altering < 0;
}

void oracle_take_begin(struct oracle *o, unsigned volume, unsigned origin, bool snapshot, const char *name)
{
	const struct oracle_volume *from = &o->volumes[origin];
	struct oracle_volume *v = oracle_volume_init(o, volume, name, from->sizes[0]);
	struct oracle_block *b = oracle_blocks(o, volume);

	memcpy(v->windows, from->windows, sizeof(v->windows));
	v->nr_windows = from->nr_windows;
	if (!from->snapshot)
		v->windows[v->nr_windows++] = (struct oracle_window){ from->generation, UINT32_MAX };
	v->snapshot = snapshot;
	v->origin = from->generation;
	v->taken_from = origin;
	v->parents[0] = snapshot ? from->parents[0] : from->generation;
	if (snapshot)
		oracle_parent_may(&o->volumes[origin], v->generation);
	memcpy(b, oracle_blocks(o, origin), o->max_blocks * sizeof(*b));
	for (uint32_t i = 0; i < o->max_blocks; i++) {
		b[i].busy = false;
		b[i].nr_readers = 0;
		if (!snapshot)
			b[i].from = 0;
	}
}

void oracle_take_end(struct oracle *o, unsigned volume, bool ok)
{
	struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *b = oracle_blocks(o, volume), *from = oracle_blocks(o, v->taken_from);

	oracle_create_end(o, volume, ok);
	if (v->snapshot)
		oracle_parent_is(&o->volumes[v->taken_from], ok);
	if (v->nr_windows && v->windows[v->nr_windows - 1].end == UINT32_MAX)
		v->windows[v->nr_windows - 1].end = o->next_version;
	for (uint32_t i = 0; i < v->sizes[0]; i++) {
		/* What was zeroed while it was taken, it may have caught. */
		if (from[i].zeroed > b[i].zeroed)
			b[i].zeroed = from[i].zeroed;
		/* What is in a snapshot is durable with it. */
		if (v->snapshot && ok) {
			b[i].floor = b[i].latest;
			b[i].floor_zero = b[i].latest_zero;
		}
	}
	v->taken_from = -1;
}

/* --- alterations --- */

static void alter_begin(struct oracle *o, unsigned volume, unsigned by)
{
	struct oracle_volume *v = &o->volumes[volume];

	v->altering = by;
	v->altered_at = o->moment++;
	v->nr_alterations++;
	oracle_parent_may(v, by == ORACLE_OUTSIDE_SLOT ? 0 : o->volumes[by].generation);
}

static void alter_end(struct oracle_volume *v, bool ok)
{
	v->altering = -1;
	v->nr_alterations++;
	oracle_parent_is(v, ok);
}

bool oracle_in_window(const struct oracle *o, const struct oracle_volume *v, uint32_t version)
{
	const struct oracle_change *c = &o->changes[version];

	/* What a crash has ended is either there or gone. */
	return version && version >= o->epoch && c->generation == v->generation && (!c->completed || c->completed >= v->altered_at);
}

/* From which version on each block's own versions count: of those in the window the first. */
static void set_from(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr)
{
	const struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *b = oracle_blocks(o, volume);

	for (uint32_t i = first; i < first + nr; i++)
		b[i].from = o->next_version;
	for (uint32_t version = o->next_version - 1; version && version >= o->epoch; version--) {
		const struct oracle_change *c = &o->changes[version];

		if (!oracle_in_window(o, v, version))
			continue;
		for (uint32_t i = c->first; i < c->first + c->nr; i++)
			if (i >= first && i - first < nr)
				b[i].from = version;
	}
}

/* A block becomes the other's, but for who is at it. */
static void replace(struct oracle_block *b, const struct oracle_block *with, uint64_t moment)
{
	struct oracle_block old = *b;

	*b = *with;
	b->replaced_at = moment;
	b->busy = old.busy;
	b->nr_readers = old.nr_readers;
}

void oracle_revert_begin(struct oracle *o, unsigned volume, unsigned snapshot)
{
	struct oracle_volume *v = &o->volumes[volume];

	alter_begin(o, volume, snapshot);
	v->keeps = false;
	v->sizes[1] = o->volumes[snapshot].sizes[0];
	v->nr_sizes = 2;
}

void oracle_revert_end(struct oracle *o, unsigned volume, bool ok)
{
	struct oracle_volume *v = &o->volumes[volume];
	const struct oracle_volume *snap = &o->volumes[v->altering];
	struct oracle_block *b = oracle_blocks(o, volume);
	const struct oracle_block *from = oracle_blocks(o, v->altering);

	v->nr_sizes = 1;
	if (ok) {
		for (uint32_t i = 0; i < o->max_blocks; i++)
			replace(&b[i], &from[i], v->altered_at);
		set_from(o, volume, 0, o->max_blocks);
		/* What was written meanwhile is there, or was there before and is not. */
		for (uint32_t version = o->epoch; version < o->next_version; version++) {
			struct oracle_change *c = &o->changes[version];

			if (!oracle_in_window(o, v, version))
				continue;
			c->vague = true;
			for (uint32_t i = c->first; c->zero && i < c->first + c->nr; i++)
				b[i].zeroed = version;
		}
		memcpy(v->windows, snap->windows, sizeof(v->windows));
		v->nr_windows = snap->nr_windows;
		v->sizes[0] = snap->sizes[0];
	}
	alter_end(v, ok);
}

static bool never_changed(const struct oracle_block *b)
{
	return !b->floor && !b->latest && !b->zeroed;
}

/* Of a change that failed, or may have come before or after what replaced it, any part may be there, though nothing shows it. */
static bool may_hold_part(const struct oracle *o, unsigned volume, uint32_t first)
{
	for (uint32_t version = o->epoch; version < o->next_version; version++) {
		const struct oracle_change *c = &o->changes[version];

		if (c->generation == o->volumes[volume].generation && (!c->completed || c->vague) && c->first < first + o->cluster_blocks &&
		    first < c->first + c->nr)
			return true;
	}
	return false;
}

/* Whether a cluster differs from the parent's: where it shows other bytes it does; where it shows the same written bytes in all its blocks,
 * or was never written in either, it does not; else who knows. */
static enum oracle_rule rule_of(const struct oracle *o, unsigned volume, int parent, uint32_t first)
{
	static const struct oracle_block nothing = { .floor_zero = true, .latest_zero = true };
	const struct oracle_block *a = oracle_blocks(o, volume), *b = parent < 0 ? NULL : oracle_blocks(o, parent);
	unsigned nr_written = 0, nr_never = 0;

	if (may_hold_part(o, volume, first))
		return ORACLE_EITHER;
	for (uint32_t i = first; i < first + o->cluster_blocks; i++) {
		const struct oracle_block *p = b ? &b[i] : &nothing;

		if (a[i].busy)
			return ORACLE_EITHER;
		if (!b && a[i].latest == ORACLE_OUTSIDE && !a[i].zeroed)
			p = &a[i]; /* the outside's, with a parent or without */
		if (a[i].latest_zero != p->latest_zero || (!a[i].latest_zero && a[i].latest != p->latest))
			return ORACLE_STAYS;
		nr_written += !a[i].latest_zero;
		nr_never += never_changed(&a[i]) && never_changed(p);
	}
	return nr_written == o->cluster_blocks || nr_never == o->cluster_blocks ? ORACLE_GOES : ORACLE_EITHER;
}

bool oracle_can_be_parent(const struct oracle *o, unsigned volume, unsigned snapshot)
{
	const struct oracle_volume *v = &o->volumes[volume], *snap = &o->volumes[snapshot];

	if (snapshot == ORACLE_OUTSIDE_SLOT)
		return v->altering < 0 && v->nr_sizes == 1;
	return snap->snapshot && !snap->nr_windows && v->altering < 0 && v->nr_sizes == 1 && v->sizes[0] == snap->sizes[0] &&
	       v->parents[0] != snap->generation;
}

void oracle_set_parent_begin(struct oracle *o, unsigned volume, unsigned snapshot)
{
	struct oracle_volume *v = &o->volumes[volume];
	int parent = find_generation(o, v->parents[0]);

	assert(v->sizes[0] <= (uint64_t)ORACLE_MAX_CLUSTERS * o->cluster_blocks);
	for (uint32_t i = 0; i < v->sizes[0] / o->cluster_blocks; i++)
		v->rules[i] = v->parents[0] && parent < 0 ? ORACLE_EITHER : rule_of(o, volume, parent, i * o->cluster_blocks);
	alter_begin(o, volume, snapshot);
	v->keeps = true;
}

/* What a change in the window made of a block stays. */
static void merge(const struct oracle *o, const struct oracle_volume *v, struct oracle_block *b, const struct oracle_block *with)
{
	struct oracle_block old = *b;

	replace(b, with, v->altered_at);
	if (oracle_in_window(o, v, old.latest)) {
		b->latest = old.latest;
		b->latest_zero = old.latest_zero;
	}
	if (oracle_in_window(o, v, old.floor)) {
		b->floor = old.floor;
		b->floor_zero = old.floor_zero;
	}
	if (oracle_in_window(o, v, old.zeroed))
		b->zeroed = old.zeroed;
}

const char *oracle_set_parent_end(struct oracle *o, unsigned volume, const void *seen)
{
	struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *b = oracle_blocks(o, volume);
	const struct oracle_block *with = oracle_blocks(o, v->altering);
	const char *wrong = NULL;

	for (uint32_t i = 0; seen && !wrong && i < v->sizes[0]; i += o->cluster_blocks) {
		bool goes;

		wrong = oracle_judge_altered(o, volume, i, (const char *)seen + (uint64_t)i * ORACLE_BLOCK, &goes);
		if (wrong || !goes)
			continue;
		for (uint32_t k = i; k < i + o->cluster_blocks; k++)
			if (b[k].latest_zero && !oracle_is_zero((const char *)seen + (uint64_t)k * ORACLE_BLOCK))
				replace(&b[k], &with[k], v->altered_at);
			else
				merge(o, v, &b[k], &with[k]);
		set_from(o, volume, i, o->cluster_blocks);
	}
	alter_end(v, seen != NULL);
	return wrong;
}
