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

static uint64_t after(const struct store *s, uint64_t index, unsigned level)
{
	unsigned bits = level_bits(s, level);

	return bits >= 63 ? UINT64_MAX : ((index >> bits) + 1) << bits;
}

/* Of a node that begins at index 0 and may be lower than @level: what it has below that level at index. */
static struct node *below(const struct store *s, struct node *node, unsigned level, uint64_t index)
{
	unsigned slot = map_slot(s, index, level);

	if (node && node->level == level)
		return slot_node(node->slots[slot]);
	return slot ? NULL : node;
}

static unsigned level_of(const struct node *node)
{
	return node ? node->level : 0;
}

uint64_t pair_next(const struct store *s, struct leaf_pair *pair, uint64_t index, uint64_t end)
{
	while (index < end) {
		struct node *a = pair->root_a, *b = pair->root_b;
		unsigned level = level_of(a) > level_of(b) ? level_of(a) : level_of(b);
		bool lost = (a && a->lost) || (b && b->lost);

		if (!lost && level_bits(s, level) < 63 && index >> level_bits(s, level))
			return end;
		while (a != b && level && !lost) {
			a = below(s, a, level, index);
			b = below(s, b, level, index);
			level--;
			lost = (a && a->lost) || (b && b->lost);
		}
		if (a != b) {
			pair->a = a;
			pair->b = b;
			pair->lost = lost;
			return index;
		}
		index = after(s, index, level);
	}
	return end;
}

/* The next index below end whose leaf belongs to the blob alone, with its whole path. */
static uint64_t alone_next(const struct blob *b, uint64_t index, uint64_t end, struct node **ret_leaf)
{
	const struct store *s = b->store;

	while (index < end) {
		struct node *node = b->root;

		if (!node || node->lost || !map_height_fits(s, node, index))
			return end;
		while (node->level && node->count == 1) {
			struct node *child = slot_node(node->slots[map_slot(s, index, node->level)]);

			if (!child || child->lost) {
				index = after(s, index, node->level - 1);
				break;
			}
			node = child;
		}
		if (!node->level && node->count == 1) {
			*ret_leaf = node;
			return index;
		}
		if (node->count != 1)
			index = after(s, index, node->level);
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
	leaf = map_leaf(parent, index, &shared);
	return !leaf || leaf->lost || !entries_same(parent->store, raw, raw_at(parent->store, leaf, index));
}

/* --- kept true --- */

void figures_change(struct blob *b, uint64_t index, uint64_t raw, bool gain)
{
	struct blob_figures *f = &b->figures;
	struct entry e = entry_decode(raw);
	struct blob *parent = blob_parent(b), *child;
	uint64_t by = gain ? 1 : UINT64_MAX;

	if (raw)
		f->nr_entries += by;
	f->nr_named += by * ((e.own != 0) + (e.base != 0));
	/* It may have become its own without our knowing. */
	if (e.own && b->store->counts[e.own] == 1 && (gain || f->nr_own))
		f->nr_own += by;
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

uint64_t figures_differ(struct blob *b)
{
	struct blob *parent = blob_parent(b);
	struct store *s = b->store;
	uint64_t end = UINT32_MAX, index = 0, nr = 0;
	struct leaf_pair pair = {.root_a = b->root};

	if (!parent)
		return b->figures.nr_entries;
	if (b->figures.differ_known)
		return b->figures.nr_differ;
	pair.root_b = parent->root;
	while ((index = pair_next(s, &pair, index, end)) < end) {
		uint64_t leaf_end = after(s, index, 0);

		for (uint64_t i = index; i < leaf_end && pair.a && !pair.a->lost && !pair.a->level; i++) {
			uint64_t raw = raw_at(s, pair.a, i);

			nr += raw && (pair.lost || !entries_same(s, raw, raw_at(s, pair.b, i)));
		}
		index = leaf_end;
	}
	b->figures.nr_differ = nr;
	b->figures.differ_known = true;
	figures_keep(b);
	return nr;
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

/* Entries that are written in place, counted anew.  A walk that is not left: for thick blobs, whose promise hangs on it. */
void figures_recount(struct blob *b)
{
	struct store *s = b->store;
	uint64_t index = 0, end = UINT32_MAX, nr = 0;
	struct node *leaf;

	while ((index = alone_next(b, index, end, &leaf)) < end) {
		for (uint32_t i = 0; i < node_nr_slots(s, 0); i++) {
			struct entry e = entry_decode(leaf->slots[i]);

			nr += e.own && s->counts[e.own] == 1;
		}
		index = after(s, index, 0);
	}
	b->figures.nr_own = nr;
}

/* --- exclusive space --- */

fiber_fn int blob_exclusive(struct blob *b, uint64_t *ret_clusters)
{
	struct store *s = b->store;
	uint64_t index = 0, end = UINT32_MAX, nr = 0;
	unsigned left = LEAVES_A_TURN;
	struct node *leaf;

	blob_open(b);
	while ((index = alone_next(b, index, end, &leaf)) < end && !s->stopping) {
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
	b->exclusive_clusters = nr;
	b->exclusive_us = clock_now_us();
	blob_close(b);
	*ret_clusters = nr;
	return s->stopping ? -ESHUTDOWN : 0;
}

/* --- differences --- */

struct ranges {
	struct blob_range *v;
	uint32_t nr, max;
};

/* Whether it fits: next to the last one, or as one more. */
static bool range_add(struct ranges *r, uint64_t offset, uint64_t len, bool mapped)
{
	struct blob_range *last = r->nr ? &r->v[r->nr - 1] : NULL;

	if (last && last->mapped == mapped && last->offset_bytes + last->len_bytes == offset) {
		last->len_bytes += len;
		return true;
	}
	if (r->nr == r->max)
		return false;
	r->v[r->nr++] = (struct blob_range){offset, len, mapped};
	return true;
}

static uint32_t source(const struct entry *e, uint32_t sub)
{
	if (entry_has(e, sub))
		return e->own;
	return e->external ? SOURCE_EXTERNAL : e->base;
}

/* One entry of each, from byte *at on; false: no more ranges fit, and *at is where to go on. */
static bool diff_entry(const struct store *s, const struct blob_diff *d, uint64_t raw_a, uint64_t raw_b,
		       struct ranges *r, uint64_t *at)
{
	struct entry a = entry_decode(raw_a), b = entry_decode(raw_b);
	uint64_t index = *at >> s->cluster_shift;
	uint64_t mask = (1ull << s->cluster_shift) - 1, end = (*at | mask) + 1;

	a.external |= !raw_a && index < d->to->external_clusters;
	b.external |= !raw_b && d->from && index < d->from->external_clusters;
	if (entries_same(s, raw_a, raw_b)) {
		*at = end;
	} else if (d->whole_clusters) {
		if (!range_add(r, *at, end - *at, raw_a != 0))
			return false;
		*at = end;
	}
	while (*at < end) {
		uint32_t sub = (*at & mask) / BLOB_SUB_SIZE;

		if (source(&a, sub) != source(&b, sub) &&
		    !range_add(r, *at, BLOB_SUB_SIZE, source(&a, sub) != 0 && source(&a, sub) != SOURCE_EXTERNAL))
			return false;
		*at += BLOB_SUB_SIZE;
	}
	return true;
}

static int diff_leaf(const struct store *s, struct blob_diff *d, const struct leaf_pair *pair, uint64_t end,
		     struct ranges *r)
{
	uint64_t index = d->at_bytes >> s->cluster_shift, leaf_end = after(s, index, 0);

	if (pair->lost)
		return -EIO;
	for (; index < leaf_end && index < end; index++)
		if (!diff_entry(s, d, raw_at(s, pair->a, index), raw_at(s, pair->b, index), r, &d->at_bytes))
			return 0;
	return 0;
}

fiber_fn int blob_diff_next(struct blob_diff *d, struct blob_range *ranges, uint32_t max, uint32_t *ret_nr)
{
	struct store *s = d->to->store;
	struct ranges r = {.v = ranges, .max = max};
	unsigned left = LEAVES_A_TURN;
	int rc = 0;

	if (d->at_bytes & (BLOB_SUB_SIZE - 1) || !max || (d->from && d->from->store != s))
		return -EINVAL;
	blob_open(d->to);
	if (d->from)
		blob_open(d->from);
	while (!rc && !s->stopping) {
		uint64_t at = d->at_bytes, end = d->to->nr_clusters, index = at >> s->cluster_shift;
		struct leaf_pair pair = {.root_a = d->to->root, .root_b = d->from ? d->from->root : NULL};
		uint64_t next = pair_next(s, &pair, index, end);

		if (next > index)
			d->at_bytes = next << s->cluster_shift;
		if (next >= end)
			break;
		rc = diff_leaf(s, d, &pair, end, &r);
		if (d->at_bytes < (end < after(s, next, 0) ? end : after(s, next, 0)) << s->cluster_shift)
			break; /* no more ranges fit */
		if (!--left) {
			left = LEAVES_A_TURN;
			fiber_yield();
		}
	}
	if (d->from)
		blob_close(d->from);
	blob_close(d->to);
	*ret_nr = r.nr;
	return s->stopping ? -ESHUTDOWN : rc;
}
