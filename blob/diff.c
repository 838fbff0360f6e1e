/*
 * Where two blobs differ, and what one maps.  A walk goes from leaf to leaf and finds its place anew each time; what both maps share is
 * passed over whole, but for where an external bdev shows through: there, equal maps do not make equal blobs.
 */
#include "blob/figures.h"

#define LEAVES_A_TURN	     32u
#define SOURCE_EXTERNAL_FROM (SOURCE_EXTERNAL - 1) /* another bdev than the one that the newer blob shows */

struct ranges {
	struct blob_range *v;
	uint32_t nr, max;
};

/* Clusters in which what is empty, or an external bdev's, may differ though the maps do not. */
struct shown {
	uint64_t first, end;
	uint32_t from_source;
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

static struct shown shown_differently(const struct blob_diff *d)
{
	uint64_t a = d->to->external_clusters, b = d->from ? d->from->external_clusters : 0;
	struct shown shown = {.first = a < b ? a : b, .end = a < b ? b : a, .from_source = SOURCE_EXTERNAL};

	if (!d->from) /* what shows through it has not been written */
		return (struct shown){.from_source = SOURCE_EXTERNAL};
	if (a && b && d->to->external != d->from->external) {
		shown.first = 0;
		shown.from_source = SOURCE_EXTERNAL_FROM;
	}
	return shown;
}

static uint32_t source(const struct entry *e, uint32_t sub, uint32_t external)
{
	if (entry_has(e, sub))
		return e->own;
	return e->external ? external : e->base;
}

static uint64_t raw_of(const struct store *s, const struct node *leaf, uint64_t index)
{
	return leaf ? leaf->slots[map_slot(s, index, 0)] : 0;
}

/* An entry as it shows: an empty one may be an external bdev's. */
static struct entry entry_of(const struct blob *b, uint64_t index, uint64_t raw)
{
	struct entry e = entry_decode(raw);

	e.external |= !raw && b && index < b->external_clusters;
	return e;
}

/* One entry of each, from byte *at on; false: no more ranges fit, and *at is where to go on. */
static bool diff_entry(const struct store *s, const struct blob_diff *d, const struct leaf_pair *pair, struct ranges *r, uint64_t *at)
{
	struct shown shown = shown_differently(d);
	uint64_t index = *at >> s->cluster_shift, mask = (1ull << s->cluster_shift) - 1, end = (*at | mask) + 1;
	uint64_t raw_a = raw_of(s, pair->a, index), raw_b = raw_of(s, pair->b, index);
	struct entry a = entry_of(d->from ? d->to : NULL, index, raw_a), b = entry_of(d->from, index, raw_b);

	if (entries_same(s, raw_a, raw_b) && (a.external ? SOURCE_EXTERNAL : 0) == (b.external ? shown.from_source : 0)) {
		*at = end;
	} else if (d->whole_clusters) {
		if (!range_add(r, *at, end - *at, raw_a || a.external))
			return false;
		*at = end;
	}
	while (*at < end) {
		uint32_t sub = (*at & mask) / BLOB_SUB_SIZE, now = source(&a, sub, d->from ? SOURCE_EXTERNAL : 0);

		if (now != source(&b, sub, shown.from_source) && !range_add(r, *at, BLOB_SUB_SIZE, now))
			return false;
		*at += BLOB_SUB_SIZE;
	}
	return true;
}

static uint64_t leaf_end(const struct store *s, uint64_t index, uint64_t end)
{
	uint64_t next = ((index >> s->leaf_shift) + 1) << s->leaf_shift;

	return next < end ? next : end;
}

static int diff_leaf(const struct store *s, struct blob_diff *d, const struct leaf_pair *pair, uint64_t end, struct ranges *r)
{
	uint64_t index = d->at_bytes >> s->cluster_shift;

	if (pair->lost)
		return -EIO;
	for (end = leaf_end(s, index, end); index < end; index++)
		if (!diff_entry(s, d, pair, r, &d->at_bytes))
			return 0;
	return 0;
}

/* The leaves at an index, whether or not both maps share them. */
static fiber_fn int leaves_load(struct store *s, struct leaf_pair *pair, uint64_t index)
{
	struct node_wait miss;
	bool shared;
	int rc = 0;

	cache_hold(s, true);
	while (!rc && (path_missing(pair->map_a, index, &miss) || path_missing(pair->map_b, index, &miss))) {
		rc = map_load(pair->map_a, index);
		if (!rc)
			rc = map_load(pair->map_b, index);
	}
	pair->a = map_leaf(pair->map_a, index, &shared);
	pair->b = map_leaf(pair->map_b, index, &shared);
	pair->lost = (pair->a && pair->a->lost) || (pair->b && pair->b->lost);
	cache_hold(s, false);
	return rc;
}

/* The next index where the maps or what shows through them may differ, and the leaves there. */
static fiber_fn int next_leaves(struct store *s, const struct blob_diff *d, struct leaf_pair *pair, uint64_t index, uint64_t end,
				uint64_t *ret_next)
{
	struct shown shown = shown_differently(d);
	uint64_t there = index > shown.first ? index : shown.first;
	int rc = pair_load(s, pair, index, end, ret_next);

	if (rc || there >= shown.end || there >= end || there >= *ret_next)
		return rc;
	*ret_next = there;
	return leaves_load(s, pair, there);
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
		uint64_t end = d->to->nr_clusters, index = d->at_bytes >> s->cluster_shift, next;
		struct leaf_pair pair = {.map_a = d->to, .map_b = d->from};

		rc = next_leaves(s, d, &pair, index, end, &next);
		if (rc)
			break;
		if (next > index)
			d->at_bytes = next << s->cluster_shift;
		if (next >= end)
			break;
		rc = diff_leaf(s, d, &pair, end, &r);
		if (d->at_bytes < leaf_end(s, next, end) << s->cluster_shift)
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
