/*
 * Marks: a cluster is marked while its checksums on the device may lag behind its data.  Marks are bits of the stored counts,
 * set and taken back by records.
 *
 *   A cluster that comes into use is marked by the record that maps it, at no cost.
 *   One that is clean is marked by a record of its own, durable before its first overwrite.
 *   A mark is taken back when data and checksums are durable and nobody has written the cluster meanwhile.
 *
 * What is marked when a store is opened was being written at a crash: until all of it has been read once, what does not match
 * there is stamped anew instead of refused.
 */
#include "blob/csum.h"

/* --- what records do --- */

static void marked_set(struct csums *c, uint32_t cluster, bool on)
{
	if (sum_bit(c->marked, cluster) == on)
		return;
	sum_bit_set(c->marked, cluster, on);
	c->nr_marked += on ? 1 : -1;
	if (on && c->nr_marked == c->nr_unsettled + 1)
		fiber_cond_signal(&c->wake);
}

static void unsettled_clear(struct csums *c, uint32_t cluster)
{
	if (!sum_bit(c->unsettled, cluster))
		return;
	sum_bit_set(c->unsettled, cluster, false);
	c->nr_unsettled--;
}

void csum_cluster_new(struct store *s, uint32_t cluster)
{
	struct csums *c = s->csum;

	marked_set(c, cluster, true);
	sum_bit_set(c->touched, cluster, true);
	sum_bit_set(c->cleaning, cluster, false);
	unsettled_clear(c, cluster);
}

void csum_cluster_gone(struct store *s, uint32_t cluster)
{
	struct csums *c = s->csum;

	marked_set(c, cluster, false);
	sum_bit_set(c->marking, cluster, false);
	sum_bit_set(c->cleaning, cluster, false);
	unsettled_clear(c, cluster);
}

/* By a record that is not durable yet, the cluster is not to be written; replayed, it is as good as written. */
void csum_mark(struct store *s, uint32_t cluster)
{
	mpage_touch(s, TABLE_COUNTS, cluster / COUNTS_A_PAGE);
	if (s->loading)
		marked_set(s->csum, cluster, true);
	else
		sum_bit_set(s->csum->marking, cluster, true);
}

void csum_clean(struct store *s, uint32_t cluster)
{
	mpage_touch(s, TABLE_COUNTS, cluster / COUNTS_A_PAGE);
	marked_set(s->csum, cluster, false);
}

bool csum_is_marked(const struct store *s, uint32_t cluster)
{
	return sum_bit(s->csum->marked, cluster) || sum_bit(s->csum->marking, cluster);
}

void csum_marked_durably(struct store *s, uint32_t cluster)
{
	struct csums *c = s->csum;

	if (!sum_bit(c->marking, cluster))
		return; /* it was freed, or another waiter came first */
	sum_bit_set(c->marking, cluster, false);
	marked_set(c, cluster, true);
}

/* What a page of counts says of a cluster. */
void csum_load_mark(struct store *s, uint32_t cluster)
{
	marked_set(s->csum, cluster, true);
}

/* The store is loaded and not yet written to. */
void csum_loaded(struct store *s)
{
	struct csums *c = s->csum;

	memcpy(c->unsettled, c->marked, (s->nr_clusters / 64 + 1) * sizeof(uint64_t));
	c->nr_unsettled = c->nr_marked;
}

/* --- taking marks back --- */

/* Clusters that nobody writes, at most nr; those written lately have until the next tick. */
static unsigned choose(struct csums *c, uint64_t *cursor, uint32_t *batch, unsigned nr)
{
	struct store *s = c->store;
	unsigned found = 0;

	for (uint64_t w = *cursor / 64; w < s->nr_clusters / 64 + 1 && found < nr; w++) {
		uint64_t bits = c->marked[w] & ~c->unsettled[w];

		for (; bits && found < nr; bits &= bits - 1) {
			uint32_t cluster = w * 64 + __builtin_ctzll(bits);

			if (cluster < *cursor)
				continue;
			*cursor = cluster + 1ull;
			if (sum_bit(c->touched, cluster) && !c->all)
				sum_bit_set(c->touched, cluster, false);
			else if (!csum_fill_holds(s, cluster))
				batch[found++] = cluster;
		}
		if (found < nr)
			*cursor = (w + 1) * 64;
	}
	return found;
}

static fiber_fn int write_pages_of(struct csums *c, uint32_t cluster)
{
	struct store *s = c->store;
	uint32_t slot;
	uint64_t first = sum_page_of(s, cluster, 0, &slot), last = sum_page_of(s, cluster, s->subs_a_cluster - 1, &slot);
	int rc = 0;

	for (uint64_t i = first; i <= last && !rc; i++) {
		struct sum_page *page = sum_page_find(c, i);

		if (page && !list_empty(&page->dirty_link) && !page->writing)
			rc = sum_page_write(c, page);
	}
	return rc;
}

/* Records of marks taken back; each touches its page of counts. */
static fiber_fn int record_clean(struct store *s, const uint32_t *batch, unsigned nr)
{
	struct csums *c = s->csum;
	struct admission admission = {0};
	uint64_t counts = (s->nr_clusters + COUNTS_A_PAGE - 1) / COUNTS_A_PAGE;
	uint32_t still[SUM_CLEAN_BATCH];
	unsigned nr_still = 0;
	int rc = admit_wait(s, &admission, counts < nr ? counts : nr, OP_FREEING);

	if (rc)
		return rc;
	for (unsigned i = 0; i < nr; i++)
		if (sum_bit(c->cleaning, batch[i]) && sum_bit(c->marked, batch[i]) && !csum_fill_holds(s, batch[i]))
			still[nr_still++] = batch[i];
	if (nr_still) {
		journal_begin(s, 16 + 4 * nr_still);
		rec_sums(s, REC_SUMS_CLEAN, still, nr_still);
		journal_end(s);
	}
	admit_release(s, &admission);
	return 0;
}

static fiber_fn int clean_batch(struct csums *c, uint32_t *batch, unsigned nr)
{
	struct store *s = c->store;
	int rc = 0;

	for (unsigned i = 0; i < nr; i++)
		sum_bit_set(c->cleaning, batch[i], true);
	if (BLOB_MUTANT(SUMS_CLEARED_EARLY))
		rc = record_clean(s, batch, nr);
	for (unsigned i = 0; i < nr && !rc; i++)
		rc = write_pages_of(c, batch[i]);
	if (!rc && s->has_cache) {
		s->stats.nr_device_flushes++;
		rc = bdev_flush(s->bch);
		if (rc)
			store_fail(s, rc, "a device flush failed");
	}
	if (!rc && !BLOB_MUTANT(SUMS_CLEARED_EARLY))
		rc = record_clean(s, batch, nr);
	for (unsigned i = 0; i < nr; i++)
		sum_bit_set(c->cleaning, batch[i], false);
	return rc;
}

static fiber_fn int clean_round(struct csums *c)
{
	struct store *s = c->store;
	uint32_t batch[SUM_CLEAN_BATCH];
	uint64_t cursor = 0;
	unsigned nr;
	int rc = 0;

	while (!rc && store_writable(s) && (nr = choose(c, &cursor, batch, SUM_CLEAN_BATCH))) {
		rc = clean_batch(c, batch, nr);
		fiber_yield();
	}
	return rc;
}

/* Pages that were healed, or stamped where nothing was marked. */
static fiber_fn int write_mended(struct csums *c)
{
	struct list *it, *next;
	int rc = 0;

	for (bool again = true; again && !rc && c->nr_mend;) {
		again = false;
		list_for_each_safe (it, next, &c->dirty) {
			struct sum_page *page = list_entry(it, struct sum_page, dirty_link);

			if (!page->mend || page->writing)
				continue;
			rc = sum_page_write(c, page);
			again = true; /* the list may be another by now */
			break;
		}
	}
	return rc;
}

/* Pages that changed go out when they are half of the cache, whether or not their clusters rest. */
static fiber_fn int write_pressure(struct csums *c)
{
	int rc = 0;

	while (!rc && c->nr_dirty_pages > c->max_cached / 4 && store_writable(c->store)) {
		struct sum_page *page = list_entry(list_first(&c->dirty), struct sum_page, dirty_link);

		rc = sum_page_write(c, page);
		fiber_yield();
	}
	return rc;
}

void csum_fiber(void *arg)
{
	struct store *s = arg;
	struct csums *c = s->csum;
	uint64_t next = clock_now_us() + c->tick_us;
	int rc;

	while (!s->stopping) {
		bool all = c->all;

		if (store_writable(s) && c->nr_dirty_pages > c->max_cached / 2) {
			rc = write_pressure(c);
			if (rc)
				store_fail(s, rc, "checksums could not be written");
		}
		if (store_writable(s) && (all || (c->nr_marked > c->nr_unsettled && clock_now_us() >= next))) {
			rc = clean_round(c);
			if (rc && rc != -ESHUTDOWN)
				store_fail(s, rc, "checksums could not be written");
			next = clock_now_us() + c->tick_us;
		}
		if (store_writable(s) && c->nr_mend) {
			rc = write_mended(c);
			if (rc)
				store_fail(s, rc, "checksums could not be written");
		}
		if (c->nr_broken && clock_now_us() >= next) {
			sum_pages_drop_broken(c);
			next = clock_now_us() + c->tick_us;
		}
		c->nr_rounds++;
		if (all)
			c->all = false;
		fiber_cond_broadcast(&c->cleaned);
		if (s->stopping)
			break;
		if (c->nr_broken || (store_writable(s) && (c->nr_mend || c->nr_marked > c->nr_unsettled)))
			(void)fiber_cond_timedwait(&c->wake, c->tick_us);
		else
			fiber_cond_wait(&c->wake);
	}
	fiber_cond_broadcast(&c->cleaned);
	store_fiber_over(s);
}

fiber_fn void csum_clean_all(struct store *s)
{
	struct csums *c = s->csum;
	uint64_t nr;

	if (!c || !store_writable(s) || s->stopping)
		return;
	nr = c->nr_rounds + 2; /* the one under way may have gone past what is marked */
	while ((c->nr_marked > c->nr_unsettled || c->nr_mend) && c->nr_rounds < nr && store_writable(s)) {
		c->all = true;
		fiber_cond_signal(&c->wake);
		(void)fiber_cond_timedwait(&c->cleaned, 1000);
	}
	c->all = false;
}

void csum_kick(struct store *s)
{
	fiber_cond_broadcast(&s->csum->wake);
}

void csum_get_info(const struct store *s, struct store_info *info)
{
	info->checksums = s->csum;
	if (!s->csum)
		return;
	info->nr_bad = s->csum->nr_bad;
	info->nr_unverified = s->csum->nr_unverified;
	info->nr_unknown = s->csum->nr_unknown;
}

bool csum_unsettled(const struct store *s)
{
	return s->csum->nr_unsettled;
}
