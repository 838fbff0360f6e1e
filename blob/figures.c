/*
 * What maps amount to, and where two of them differ: entries, clusters named, what belongs to one blob alone.  Walks go from leaf to
 * leaf and find their place anew each time, so that they can be left between any two; nodes that both maps
 * share, or that others share, are passed over whole.
 */
#include "blob/figures.h"

#define LEAVES_A_TURN 32u

static unsigned level_bits(const struct store *s, unsigned level)
{
	return s->leaf_shift + level * s->inner_shift;
}

/* The first index that a node of a level no longer has, from one that it has. */
static uint64_t after(const struct store *s, uint64_t index, unsigned level)
{
	unsigned bits = level_bits(s, level);

	return bits >= 63 ? UINT64_MAX : ((index >> bits) + 1) << bits;
}

/* How far a walk down one map has come: the slot that names the node; NULL: nothing is there. */
struct place {
	_Atomic uint64_t *slot;
	struct node *parent, *node;
};

static uint32_t place_id(const struct place *p)
{
	return p->slot ? slot_id(*p->slot) : 0;
}

/* False: the node of a place is not in memory. */
static bool place_node(struct store *s, struct place *p, struct blob *b, struct node_wait *miss)
{
	p->node = p->slot ? node_resolve(s, p->slot, p->parent) : NULL;
	if (p->node != &map_missing)
		return true;
	*miss = (struct node_wait){.id = *p->slot >> 1, .level = LEVEL_ANY, .blob = b, .parent = p->parent, .slot = p->slot};
	return false;
}

/* Below a level, at an index.  A map may be lower than that level: then it begins at index 0. */
static void place_below(const struct store *s, struct place *p, unsigned level, uint64_t index)
{
	unsigned slot = map_slot(s, index, level);

	if (p->node && p->node->level == level) {
		p->parent = p->node;
		p->slot = &p->node->slots[slot];
	} else if (slot) {
		p->slot = NULL;
	}
}

static unsigned level_of(const struct place *p)
{
	return p->node ? p->node->level : 0;
}

static bool is_lost(const struct place *p)
{
	return p->node && p->node->lost;
}

uint64_t pair_next(struct store *s, struct leaf_pair *pair, uint64_t index, uint64_t end)
{
	pair->miss.id = 0;
	while (index < end) {
		struct place a = {.slot = &pair->map_a->root}, b = {.slot = pair->map_b ? &pair->map_b->root : NULL};
		unsigned level;

		if (place_id(&a) == place_id(&b))
			return end;
		if (!place_node(s, &a, pair->map_a, &pair->miss) || !place_node(s, &b, pair->map_b, &pair->miss))
			return index;
		level = level_of(&a) > level_of(&b) ? level_of(&a) : level_of(&b);
		if (!is_lost(&a) && !is_lost(&b) && level_bits(s, level) < 63 && index >> level_bits(s, level))
			return end;
		while (level && place_id(&a) != place_id(&b) && !is_lost(&a) && !is_lost(&b)) {
			place_below(s, &a, level, index);
			place_below(s, &b, level, index);
			level--;
			/* What both share is passed over without being read. */
			if (place_id(&a) != place_id(&b) &&
			    (!place_node(s, &a, pair->map_a, &pair->miss) || !place_node(s, &b, pair->map_b, &pair->miss)))
				return index;
		}
		if (place_id(&a) != place_id(&b)) {
			pair->a = a.slot ? a.node : NULL;
			pair->b = b.slot ? b.node : NULL;
			pair->lost = is_lost(&a) || is_lost(&b);
			return index;
		}
		index = after(s, index, level);
	}
	return end;
}

fiber_fn int pair_load(struct store *s, struct leaf_pair *pair, uint64_t index, uint64_t end, uint64_t *ret_next)
{
	struct node *pinned = NULL;
	int rc = 0;

	cache_hold(s, true); /* one leaf does not go while the other comes */
	while (!rc && (*ret_next = pair_next(s, pair, index, end)) < end && pair->miss.id) {
		index = *ret_next;
		rc = node_wait_for(s, &pair->miss, &pinned);
	}
	node_put(s, pinned);
	cache_hold(s, false);
	return rc;
}

/* The next index below end whose leaf belongs to the blob alone, with its whole path.  miss->id not 0: a node is needed first.
 * *any_lost: what was passed over may have been the blob's alone; nobody knows. */
static uint64_t alone_next(struct blob *b, uint64_t index, uint64_t end, struct node **ret_leaf, struct node_wait *miss, bool *any_lost)
{
	struct store *s = b->store;

	miss->id = 0;
	while (index < end) {
		struct place p = {.slot = &b->root};
		unsigned level = 0;

		for (;;) {
			uint32_t id = place_id(&p);

			if (p.parent)
				level = p.parent->level - 1;
			if (!id || node_count(s, id) != 1)
				break;
			if (!place_node(s, &p, b, miss))
				return index;
			*any_lost |= p.node->lost;
			b->degraded |= p.node->lost;
			if (p.node->lost || (!p.parent && !map_height_fits(s, p.node, index)))
				break;
			if (!p.node->level) {
				*ret_leaf = p.node;
				return index;
			}
			place_below(s, &p, p.node->level, index);
		}
		if (!p.parent)
			return end; /* the root is shared, lost or none, or ends before */
		index = after(s, index, level);
	}
	return end;
}

static uint64_t raw_at(const struct store *s, const struct node *leaf, uint64_t index)
{
	return leaf ? leaf->slots[map_slot(s, index, 0)] : 0;
}

bool entries_same(const struct store *s, uint64_t raw_a, uint64_t raw_b)
{
	struct entry a = entry_decode(raw_a), b = entry_decode(raw_b);

	if (raw_a == raw_b)
		return true;
	if (!a.partial || !b.partial || a.own != b.own || a.base != b.base || a.external != b.external)
		return false;
	for (uint32_t i = 0; i < s->mask_words; i++)
		if (a.partial->mask[i] != b.partial->mask[i])
			return false;
	return true;
}

static bool differs(struct blob *parent, uint64_t index, uint64_t raw)
{
	struct node *leaf;
	bool shared;

	if (!raw)
		return false;
	leaf = map_leaf(parent, index, &shared); /* what is not in memory counts as differing: see figures_change() */
	return !leaf || leaf->lost || !entries_same(parent->store, raw, raw_at(parent->store, leaf, index));
}

/* Entries that are not full lie anywhere: all of a leaf's are fetched at once. */
static void fetch_entries(const struct store *s, const struct node *leaf)
{
	for (uint32_t i = 0; i < node_nr_slots(s, 0); i++) {
		uint64_t raw = atomic_load_explicit(&leaf->slots[i], memory_order_relaxed);

		if (raw && !(raw & 1))
			__builtin_prefetch((const void *)(uintptr_t)raw);
	}
}

/* --- kept true --- */

void figures_change(struct blob *b, uint64_t index, uint64_t raw, bool gain)
{
	struct blob_figures *f = &b->figures;
	struct entry e = entry_decode(raw);
	struct blob *parent = blob_parent(b), *child;
	uint64_t by = gain ? 1 : UINT64_MAX;
	struct node_wait miss;

	f->nr_changes++;
	if (raw)
		f->nr_entries += by;
	f->nr_named += by * ((e.own != 0) + (e.base != 0));
	/* It may have become its own without our knowing. */
	if (e.own && b->store->counts[e.own] == 1 && (gain || f->nr_own))
		f->nr_own += by;
	if (parent && f->differ_known && path_missing(parent, index, &miss))
		f->differ_known = false;
	if (parent && f->differ_known && differs(parent, index, raw))
		f->nr_differ += by;
	for (child = blob_first_child(b); child; child = blob_next_child(child))
		if (child->figures.differ_known) {
			mpage_touch(b->store, TABLE_BLOBS, child->slot);
			child->figures.differ_known = false;
		}
}

void figures_keep(struct blob *b)
{
	struct admission admission = {0};

	if (admit(b->store, &admission, 1, OP_THIN))
		return;
	mpage_touch(b->store, TABLE_BLOBS, b->slot);
	admit_release(b->store, &admission);
}

static uint64_t differing_in_leaf(const struct store *s, const struct leaf_pair *pair, uint64_t index, uint64_t end)
{
	uint64_t nr = 0;

	for (; index < end && pair->a && !pair->a->lost && !pair->a->level; index++) {
		uint64_t raw = raw_at(s, pair->a, index);

		nr += raw && (pair->lost || !entries_same(s, raw, raw_at(s, pair->b, index)));
	}
	return nr;
}

/* What would make a count of both maps wrong while it is under way. */
static uint64_t changes_of(const struct blob *b, const struct blob *parent)
{
	return b->figures.nr_changes + b->map_seq + b->parent_id + parent->figures.nr_changes + parent->map_seq;
}

/* Counts what differs, in one go if all is in memory; else -EAGAIN unless it @may_wait. */
static fiber_fn int count_differing(struct blob *b, struct blob *parent, bool may_wait)
{
	struct store *s = b->store;
	struct leaf_pair pair = {.map_a = b, .map_b = parent};
	uint64_t end = UINT32_MAX, index = 0, nr = 0, changes = changes_of(b, parent);
	unsigned left = LEAVES_A_TURN;
	int rc = 0;

	while (!rc && (index = pair_next(s, &pair, index, end)) < end) {
		uint64_t leaf_end;

		if (pair.miss.id)
			rc = may_wait ? pair_load(s, &pair, index, end, &index) : -EAGAIN;
		if (rc || index >= end)
			break;
		leaf_end = after(s, index, 0);
		nr += differing_in_leaf(s, &pair, index, leaf_end);
		index = leaf_end;
		if (may_wait && !--left) {
			left = LEAVES_A_TURN;
			fiber_yield();
		}
		if (may_wait && (s->stopping || b->leaving || parent->leaving || changes != changes_of(b, parent)))
			rc = -EAGAIN;
	}
	if (rc || changes != changes_of(b, parent))
		return -EAGAIN;
	b->figures.nr_differ = nr;
	b->figures.differ_known = true;
	figures_keep(b);
	return 0;
}

static void count_fiber(void *arg)
{
	struct blob *b = arg;
	struct store *s = b->store;
	struct blob *parent = blob_parent(b);

	if (parent) {
		parent->nr_walks++;
		(void)count_differing(b, parent, true); /* who asks again has it counted again */
		parent->nr_walks--;
	}
	b->counting = false;
	b->nr_walks--;
	store_fiber_over(s);
}

uint64_t figures_differ(struct blob *b)
{
	struct blob *parent = blob_parent(b);
	struct store *s = b->store;

	if (!parent)
		return b->figures.nr_entries;
	if (b->figures.differ_known || !count_differing(b, parent, false))
		return b->figures.nr_differ;
	if (!b->counting && !s->stopping) {
		s->nr_fibers++;
		b->counting = true;
		b->nr_walks++;
		if (fiber_spawn(s->owner, "blob-count", count_fiber, b)) {
			s->nr_fibers--;
			b->counting = false;
			b->nr_walks--;
		}
	}
	return b->figures.nr_entries;
}

void figures_same(struct blob *b)
{
	b->figures.nr_differ = 0;
	b->figures.differ_known = true;
}

void figures_share(struct blob *b, const struct blob *from)
{
	b->figures.nr_entries = from->figures.nr_entries;
	b->figures.nr_named = from->figures.nr_named;
	b->figures.nr_own = 0;
	b->figures.differ_known = false;
	if (b->parent_id == from->id) {
		figures_same(b);
	} else if (b->parent_id == from->parent_id) {
		b->figures.nr_differ = from->figures.nr_differ;
		b->figures.differ_known = from->figures.differ_known;
	}
}

/* More than one at a time, once; then it is waited for alone, so that the walk comes on however small the cache is. */
static fiber_fn int alone_wait(struct store *s, struct node_wait *miss, uint32_t *ahead_of, struct node **pinned)
{
	if (!miss->parent || *ahead_of == miss->id)
		return node_wait_for(s, miss, pinned);
	*ahead_of = miss->id;
	nodes_ahead(s, miss);
	return 0;
}

/* Entries that are written in place, counted anew.  A count that was disturbed is a lower bound only if it is no more than what is
 * known: then what is known stays. */
fiber_fn void figures_recount(struct blob *b)
{
	struct store *s = b->store;
	uint64_t index = 0, end = UINT32_MAX, nr = 0, changes = b->figures.nr_changes + b->map_seq;
	struct node *leaf, *pinned = NULL;
	struct node_wait miss;
	uint32_t ahead_of = 0;
	bool any_lost = false;
	int rc = 0;

	while (!rc && (index = alone_next(b, index, end, &leaf, &miss, &any_lost)) < end) {
		if (miss.id) {
			rc = alone_wait(s, &miss, &ahead_of, &pinned);
			continue;
		}
		fetch_entries(s, leaf);
		for (uint32_t i = 0; i < node_nr_slots(s, 0); i++) {
			struct entry e = entry_decode(leaf->slots[i]);

			nr += e.own && s->counts[e.own] == 1;
		}
		index = after(s, index, 0);
	}
	node_put(s, pinned);
	if (!rc && changes == b->figures.nr_changes + b->map_seq)
		b->figures.nr_own = nr;
}

/* --- exclusive space --- */

fiber_fn int blob_exclusive(struct blob *b, uint64_t *ret_clusters)
{
	struct store *s = b->store;
	uint64_t index = 0, end = UINT32_MAX, nr = 0;
	unsigned left = LEAVES_A_TURN;
	struct node *leaf, *pinned = NULL;
	struct node_wait miss;
	uint32_t ahead_of = 0;
	bool any_lost = false;
	int rc = 0;

	blob_open(b);
	while (!rc && (index = alone_next(b, index, end, &leaf, &miss, &any_lost)) < end && !s->stopping) {
		if (miss.id) {
			rc = alone_wait(s, &miss, &ahead_of, &pinned);
			continue;
		}
		fetch_entries(s, leaf);
		for (uint32_t i = 0; i < node_nr_slots(s, 0); i++) {
			struct entry e = entry_decode(leaf->slots[i]);

			nr += (e.own && s->counts[e.own] == 1) + (e.base && s->counts[e.base] == 1);
		}
		index = after(s, index, 0);
		if (!--left) {
			left = LEAVES_A_TURN;
			fiber_yield();
		}
	}
	node_put(s, pinned);
	if (!rc && s->stopping)
		rc = -ESHUTDOWN;
	if (!rc && any_lost)
		rc = -EIO; /* at least so many is no answer */
	if (rc) {
		blob_close(b);
		return rc;
	}
	b->exclusive_clusters = nr;
	b->exclusive_us = clock_now_us();
	b->exclusive_s = clock_wall_ms() / 1000;
	figures_keep(b);
	blob_close(b);
	*ret_clusters = nr;
	return 0;
}
