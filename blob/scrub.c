/*
 * Scrubbing: all that the blobs map is read and compared with its checksums, a run of sub-blocks at a time and without locks; what
 * does not match is looked at again under its lock, since it may just have been written.
 *
 * A cluster that several maps name as their own is read once; a scrub also looks at both copies of the pages of checksums themselves.
 *
 * The same walk settles a store after a crash: the clusters that were marked then are read once, and what does not match
 * is stamped anew.  Then their marks can be taken back, and from there on a mismatch is rot again.
 */
#include "blob/csum.h"
#include "nvme/crc32c.h"

#define RUN_SUBS 16u

struct walk {
	struct store *s;
	struct store_scrub_cursor *at;
	struct store_scrub_result *result;
	struct progress *progress;
	bool unsettled_only;
	uint8_t *buf;
	uint32_t *seen;		 /* by cluster: what was read of it as some map's own, as sight_of() says; 0: nothing */
	uint64_t nr_seen;
	uint64_t *left;		 /* clusters of which something could not be read, when a store is settled; else NULL */
};

/* What sub-blocks [first, ...) of an entry are read from: a run within one cluster; *ret_cluster 0: nothing is there. */
static uint32_t run_of(const struct store *s, const struct entry *e, uint32_t first, uint32_t *ret_cluster)
{
	bool own = entry_has(e, first);
	uint32_t nr = 1;

	while (nr < RUN_SUBS && first + nr < s->subs_a_cluster && entry_has(e, first + nr) == own)
		nr++;
	*ret_cluster = own ? e->own : e->base;
	return nr;
}

/* Whether a sub-block that did not match is really bad; the blob may be gone by now. */
static fiber_fn int again(struct walk *w, uint64_t blob_id, uint64_t sub_of_blob, uint8_t *buf)
{
	struct blob *b = blob_by_id(w->s, blob_id);
	int rc;

	if (!b || sub_of_blob >= b->nr_clusters * w->s->subs_a_cluster)
		return 0;
	b->nr_walks++; /* a deletion waits for it */
	rc = csum_read_sub(b, sub_of_blob, buf);
	b->nr_walks--;
	return rc;
}

static fiber_fn int compare_run(struct walk *w, uint64_t blob_id, uint64_t sub_of_blob, uint32_t cluster, uint32_t first,
				uint32_t nr)
{
	struct store *s = w->s;
	uint64_t block = cluster_block(s, cluster) + (uint64_t)first * s->blocks_a_sub;
	uint64_t nr_bad = s->csum->nr_bad, nr_unverified = s->csum->nr_unverified;
	int rc = bdev_read(s->bch, w->buf, block, (uint64_t)nr * s->blocks_a_sub);

	if (rc == -ENODEV)
		return rc;
	for (uint32_t i = 0; i < nr; i++) {
		uint8_t *buf = w->buf + (size_t)i * BLOB_SUB_SIZE;
		uint32_t slot, crc = csum_of_sub(buf);
		struct sum_page *page = sum_page_wait(s->csum, sum_page_of(s, cluster, first + i, &slot));

		if (!rc && !page->broken && atomic_load_explicit(&page->sum[slot], memory_order_relaxed) == crc)
			continue;
		nr_bad = s->csum->nr_bad;
		nr_unverified = s->csum->nr_unverified;
		if (again(w, blob_id, sub_of_blob + i, buf) && s->csum->nr_bad == nr_bad) {
			w->result->nr_unreadable++;
			if (w->left && cluster < w->nr_seen)
				sum_bit_set(w->left, cluster, true);
		}
		w->result->nr_bad += s->csum->nr_bad - nr_bad;
		w->result->nr_unverified += s->csum->nr_unverified - nr_unverified;
	}
	w->result->nr_bytes += (uint64_t)nr * BLOB_SUB_SIZE;
	pace(s, (uint64_t)nr * BLOB_SUB_SIZE);
	return 0;
}

#define SIGHT_WHOLE 1u

/* Which sub-blocks an entry has.  Maps that share a cluster need not have the same ones: discards take them from one of them alone. */
static uint32_t sight_of(const struct store *s, const struct entry *e)
{
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];
	uint32_t crc;

	if (e->full)
		return SIGHT_WHOLE;
	entry_get_mask(s, e, mask);
	crc = crc32c(mask, s->mask_words * sizeof(mask[0]));
	return crc > SIGHT_WHOLE ? crc : SIGHT_WHOLE + 1;
}

/* Of an entry's own cluster the same was read for another; or all of the one that a run of it comes from. */
static bool seen(const struct walk *w, const struct entry *e, uint32_t cluster)
{
	return cluster < w->nr_seen &&
	       (w->seen[cluster] == SIGHT_WHOLE || (cluster == e->own && w->seen[cluster] == sight_of(w->s, e)));
}

/* One entry; what it is may change while it is read, so it is looked up for each run. */
static fiber_fn int walk_cluster(struct walk *w, uint64_t blob_id, uint64_t index)
{
	struct store *s = w->s;
	uint32_t own = 0, sight = 0;
	int rc = 0;

	for (uint32_t sub = 0, nr; !rc && sub < s->subs_a_cluster; sub += nr) {
		struct blob *b = blob_by_id(s, blob_id);
		struct node *leaf;
		struct entry e;
		uint32_t cluster;
		bool shared;

		if (!b || s->stopping || (w->progress && w->progress->cancel))
			return 0;
		rc = map_load(b, index);
		if (rc)
			return rc;
		e = map_entry(b, index, &leaf, &shared);
		if (!e.own && !e.base)
			return 0;
		if (sub == 0) {
			own = e.own;
			sight = sight_of(s, &e);
		} else if (own != e.own || sight != sight_of(s, &e)) {
			own = 0;
		}
		nr = run_of(s, &e, sub, &cluster);
		if (cluster && !seen(w, &e, cluster) && (!w->unsettled_only || sum_bit(s->csum->unsettled, cluster)))
			rc = compare_run(w, blob_id, index * s->subs_a_cluster + sub, cluster, sub, nr);
	}
	if (!rc && own && own < w->nr_seen) /* it was the same all the way */
		w->seen[own] = sight;
	return rc;
}

static fiber_fn int entry_present(struct blob *b, uint64_t index, bool *ret_present)
{
	struct node *leaf;
	bool shared;
	struct entry e;
	int rc = map_load(b, index);

	if (rc)
		return rc;
	e = map_entry(b, index, &leaf, &shared);
	*ret_present = e.own || e.base;
	return 0;
}

static fiber_fn int walk_blob(struct walk *w, uint64_t blob_id)
{
	struct blob *b;
	unsigned nr_passed = 0;
	int rc = 0;

	while (!rc && (b = blob_by_id(w->s, blob_id))) {
		uint64_t index;
		bool present;

		rc = map_next(b, w->at->cluster, b->nr_clusters, &index);
		if (rc || index >= b->nr_clusters)
			break;
		if (w->s->stopping || (w->progress && w->progress->cancel))
			return -ECANCELED;
		rc = entry_present(b, index, &present);
		if (rc)
			break;
		if (present) {
			rc = walk_cluster(w, blob_id, index);
			if (rc)
				break;
			if (w->progress)
				w->progress->done++;
		} else if (!(++nr_passed % 1024)) {
			fiber_yield();
		}
		if (w->s->stopping || (w->progress && w->progress->cancel))
			return -ECANCELED; /* the cursor stays before what may not be done */
		w->at->cluster = index + 1;
	}
	return rc;
}

/* Blobs are in order of their ids, and those that come later come at the end. */
static struct blob *blob_from(struct store *s, uint64_t id)
{
	struct blob *b = store_first_blob(s);

	while (b && b->id < id)
		b = store_next_blob(b);
	return b;
}

/* Pages of checksums that clusters in use need: what is bad in one copy only is written anew. */
static fiber_fn int walk_sums(struct walk *w)
{
	struct store *s = w->s;
	uint64_t last = UINT64_MAX;
	int rc = 0;

	for (uint64_t c = 0; c < s->nr_clusters && !rc; c++) {
		uint32_t slot;
		uint64_t first = sum_page_of(s, c, 0, &slot), end = sum_page_of(s, c, s->subs_a_cluster - 1, &slot);

		if (!s->counts[c] || s->counts[c] >= COUNT_MAX)
			continue;
		for (uint64_t page = first; page <= end && !rc; page++) {
			if (page == last)
				continue;
			if (s->stopping || (w->progress && w->progress->cancel))
				return -ECANCELED;
			rc = sum_page_compare(s->csum, page, w->buf, w->buf + PAGE_BYTES);
			last = page;
			pace(s, 2 * PAGE_BYTES);
		}
	}
	return rc;
}

static fiber_fn int walk_all(struct walk *w)
{
	struct blob *b;
	int rc = 0;

	w->buf = dma_alloc(RUN_SUBS * BLOB_SUB_SIZE, PAGE_BYTES);
	w->nr_seen = w->s->nr_clusters;
	w->seen = calloc(w->nr_seen, sizeof(w->seen[0]));
	if (!w->buf || !w->seen) {
		free(w->seen);
		if (w->buf)
			dma_free(w->buf);
		return -ENOMEM;
	}
	pace_begin(w->s);
	while (!rc && (b = blob_from(w->s, w->at->blob_id))) {
		uint64_t id = b->id;

		if (id != w->at->blob_id)
			w->at->cluster = 0;
		w->at->blob_id = id;
		rc = walk_blob(w, id);
		if (!rc)
			*w->at = (struct store_scrub_cursor){.blob_id = id + 1};
	}
	if (!rc && !w->unsettled_only)
		rc = walk_sums(w);
	pace_end(w->s);
	free(w->seen);
	dma_free(w->buf);
	return rc;
}

static uint64_t entries_from(struct store *s, uint64_t id)
{
	uint64_t nr = 0;

	for (struct blob *b = blob_from(s, id); b; b = store_next_blob(b))
		nr += b->figures.nr_entries;
	return nr;
}

fiber_fn int store_scrub(struct store *s, struct store_scrub_cursor *cursor, struct store_scrub_result *result,
			 struct progress *progress)
{
	struct walk w = {.s = s, .at = cursor, .result = result, .progress = progress};
	int rc;

	if (!s->csum)
		return -ENOTSUP;
	if (s->csum->scrubbing)
		return -EBUSY;
	if (s->stopping)
		return -ECANCELED;
	s->csum->scrubbing = true;
	s->nr_fibers++; /* the store waits for it before it closes */
	if (progress)
		progress->total = progress->done + entries_from(s, cursor->blob_id);
	rc = walk_all(&w);
	if (!rc && progress)
		progress->total = progress->done; /* volumes came and went */
	s->csum->scrubbing = false;
	store_fiber_over(s);
	return rc;
}

/* --- after a crash --- */

#define SETTLE_AGAIN_US (1000 * 1000ull)
#define SETTLE_TRIES	5u

/* What was read is settled; of what could not be, nobody knows yet whether it is rot or the crash's. */
static void settled_but(struct csums *c, const uint64_t *left, uint64_t nr)
{
	c->nr_unsettled = 0;
	for (uint64_t w = 0; w < nr / 64 + 1; w++) {
		c->unsettled[w] &= left[w];
		c->nr_unsettled += __builtin_popcountll(c->unsettled[w]);
	}
	fiber_cond_signal(&c->wake);
}

static fiber_fn int settle(struct store *s)
{
	uint64_t nr = s->nr_clusters, *left = calloc(nr / 64 + 1, sizeof(uint64_t));
	uint32_t nr_reverts;
	int rc = left ? 0 : -ENOMEM;

	if (rc)
		return rc;
	do { /* a revert may bring what was not read yet to where the walk has been */
		struct store_scrub_cursor at = {0};
		struct store_scrub_result result = {0};
		struct walk w = {.s = s, .at = &at, .result = &result, .unsettled_only = true, .left = left};

		nr_reverts = s->nr_reverts;
		rc = walk_all(&w);
	} while (!rc && nr_reverts != s->nr_reverts);
	if (!rc)
		settled_but(s->csum, left, nr);
	free(left);
	return rc;
}

/* What cannot be read now may be so in a while; what never can be stays as it is until the store is opened again. */
void settle_fiber(void *arg)
{
	struct store *s = arg;
	struct csums *c = s->csum;
	int rc = 0;

	for (unsigned i = 0; i < SETTLE_TRIES && c->nr_unsettled && !s->stopping; i++) {
		for (uint64_t us = 0; i && us < SETTLE_AGAIN_US && !s->stopping; us += SETTLE_AGAIN_US / 100)
			fiber_sleep(SETTLE_AGAIN_US / 100);
		rc = settle(s);
	}
	if (!s->stopping && c->nr_unsettled)
		log_warning("store %s: %llu clusters that were being written at the crash cannot be read now%s%s: until the next opening "
			    "rot in them is not told from what the crash left", s->super.name, (unsigned long long)c->nr_unsettled,
			    rc ? ": " : "", rc ? strerror(-rc) : "");
	if (!c->nr_unsettled && c->nr_unverified)
		log_notice("store %s: %llu blocks that were being written at the crash are stamped anew", s->super.name,
			   (unsigned long long)c->nr_unverified);
	store_fiber_over(s);
}
