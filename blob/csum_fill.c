/*
 * Writes in a store with checksums.  All of them are fills, so that what is written to a sub-block, and its checksum, change under
 * one lock and on one thread; each writes whole sub-blocks, so that what it stamps it has seen.
 */
#include "blob/csum.h"
#include "blob/fill.h"

bool csum_fill_holds(struct store *s, uint32_t cluster)
{
	for (unsigned i = 0; i < NR_FILLS; i++) {
		const struct fill *f = &s->fills[i];

		if (f->state >= FILL_SUMS && f->own == cluster)
			return true;
	}
	return false;
}

/* The cluster, and where a blob is written in order the clean ones behind it: they share its record and its commit. */
static void choose_marks(struct fill *f)
{
	struct blob *b = f->blob;
	struct store *s = b->store;
	bool in_order = f->index && b->marked_up_to == f->index;

	f->marks[0] = f->own;
	f->nr_marks = 1;
	for (uint64_t i = f->index + 1; in_order && f->nr_marks < MARKS_AHEAD && i < b->nr_clusters; i++) {
		struct node *leaf;
		bool shared;
		struct entry e = map_entry(b, i, &leaf, &shared);

		if (!e.own || shared || s->counts[e.own] != 1 || csum_is_marked(s, e.own))
			break;
		f->marks[f->nr_marks++] = e.own;
		sum_bit_set(s->csum->touched, e.own, true); /* its write is on its way */
	}
	b->marked_up_to = f->index + f->nr_marks;
}

/* Records the mark of a cluster that is clean, unless somebody has. -EAGAIN: f waits for admission. */
static int record_mark(struct fill *f, void (*again)(struct waiter *waiter))
{
	struct store *s = f->blob->store;
	struct admission admission = {0};
	int rc;

	f->nr_marks = 0;
	if (sum_bit(s->csum->marking, f->own))
		return 0;
	rc = admit(s, &admission, MARKS_AHEAD, OP_FREEING);
	if (rc == -EAGAIN) {
		f->waiter.retry = again;
		list_add_tail(&s->admit_waiters, &f->waiter.link);
	}
	if (rc)
		return rc;
	choose_marks(f);
	journal_begin(s, 16 + 4 * MARKS_AHEAD);
	rec_sums(s, REC_SUMS_MARK, f->marks, f->nr_marks);
	journal_end(s);
	admit_release(s, &admission);
	s->stats.nr_sum_marks += f->nr_marks;
	return 0;
}

static uint64_t fill_pages(const struct fill *f, uint64_t *ret_last)
{
	struct store *s = f->blob->store;
	uint32_t slot;

	*ret_last = sum_page_of(s, f->own, f->first_sub + f->nr_subs - 1, &slot);
	return sum_page_of(s, f->own, f->first_sub, &slot);
}

static bool pin_pages(struct fill *f, void (*again)(struct waiter *waiter))
{
	struct csums *c = f->blob->store->csum;
	uint64_t last, first = fill_pages(f, &last);

	f->waiter.retry = again;
	for (uint64_t i = first; i <= last; i++) {
		struct sum_page *page = sum_page_get(c, i, &f->waiter);

		if (page && page->broken)
			fill_over(f, -EIO);
		if (!page || page->broken)
			return false;
	}
	for (uint64_t i = first; i <= last; i++)
		sum_page_find(c, i)->nr_pins++;
	f->sums_held = true;
	return true;
}

void csum_fill_marked(struct fill *f)
{
	struct store *s = f->blob->store;

	csum_marked_durably(s, f->own);
	for (unsigned i = 0; i < f->nr_marks; i++)
		csum_marked_durably(s, f->marks[i]);
	f->nr_marks = 0;
}

bool csum_fill_ready(struct fill *f, void (*again)(struct waiter *waiter),
		     void (*committed)(struct commit_wait *wait, int status))
{
	struct store *s = f->blob->store;
	struct csums *c = s->csum;

	if (f->sums_held)
		return true;
	/* A cluster that is not mapped yet is marked by the record that will map it. */
	if (f->own == f->old_own && !sum_bit(c->marked, f->own)) {
		int rc = record_mark(f, again);

		if (!rc && !BLOB_MUTANT(SUMS_LATE_MARK)) {
			f->commit.flush = false;
			f->commit.done = committed;
			journal_wait_add(s, &f->commit);
		} else if (rc != -EAGAIN && rc) {
			fill_over(f, rc);
		}
		if (rc || !BLOB_MUTANT(SUMS_LATE_MARK))
			return false;
		csum_fill_marked(f);
	}
	f->state = FILL_SUMS;
	if (!pin_pages(f, again))
		return false;
	sum_bit_set(c->touched, f->own, true);
	if (!BLOB_MUTANT(SUMS_CLEANING_KEPT))
		sum_bit_set(c->cleaning, f->own, false);
	return true;
}

/* The checksum of bytes [skip, skip + 4 KiB) of a vector. */
uint32_t csum_of_iov(const struct iovec *iov, unsigned iovcnt, uint64_t skip)
{
	uint64_t left = BLOB_SUB_SIZE;
	uint32_t crc = ~0u;

	for (unsigned i = 0; i < iovcnt && left; i++) {
		uint64_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n -= skip;
		n = n < left ? n : left;
		crc = csum_crc(crc, (char *)iov[i].iov_base + skip, n);
		left -= n;
		skip = 0;
	}
	crc = ~crc;
	return crc ? crc : 1;
}

/* status: the write's.  Of what failed nobody knows how much is there, of sub-blocks that the cluster already had as well as of
 * new ones: its checksum is unknown, and what shares its sub-blocks stays readable. */
void csum_fill_written(struct fill *f, int status)
{
	struct store *s = f->blob->store;
	struct csums *c = s->csum;
	uint32_t first = f->first_sub, slot;

	for (uint32_t sub = first; sub < first + f->nr_subs; sub++) {
		struct sum_page *page = sum_page_find(c, sum_page_of(s, f->own, sub, &slot));
		uint32_t crc = csum_of_iov(f->bio.iov, f->bio.iovcnt, (uint64_t)(sub - first) * BLOB_SUB_SIZE);

		atomic_store_explicit(&page->sum[slot], status ? 0 : crc, memory_order_release);
		sum_page_changed(c, page);
	}
}

void csum_fill_over(struct fill *f)
{
	struct csums *c = f->blob->store->csum;
	uint64_t last, first;

	if (!f->sums_held)
		return;
	first = fill_pages(f, &last);
	for (uint64_t i = first; i <= last; i++)
		sum_page_find(c, i)->nr_pins--;
	f->sums_held = false;
	waiters_kick(&c->no_load);
}

int csum_edge(struct fill *f, uint32_t cluster, uint32_t sub, const void *buf, void (*again)(struct waiter *waiter))
{
	struct store *s = f->blob->store;
	struct sum_page *page;
	uint32_t slot;

	f->waiter.retry = again;
	page = sum_page_get(s->csum, sum_page_of(s, cluster, sub, &slot), &f->waiter);
	if (!page)
		return -EAGAIN;
	return csum_judge(f->blob, f->index * s->subs_a_cluster + sub, cluster, sub, page, slot, csum_of_sub(buf));
}

fiber_fn int csum_copied(struct blob *b, uint64_t index, uint32_t from, uint32_t to, uint32_t first, uint32_t nr,
			 const uint8_t *buf)
{
	struct store *s = b->store;
	struct csums *c = s->csum;

	for (uint32_t sub = first; sub < first + nr; sub++, buf += BLOB_SUB_SIZE) {
		uint32_t slot, crc = csum_of_sub(buf);
		struct sum_page *page = sum_page_wait(c, sum_page_of(s, from, sub, &slot));

		if (page->broken)
			return -EIO;
		/* What is bad stays so in the copy, and is found there. */
		if (csum_judge(b, index * s->subs_a_cluster + sub, from, sub, page, slot, crc))
			crc = atomic_load_explicit(&page->sum[slot], memory_order_relaxed);
		page = sum_page_wait(c, sum_page_of(s, to, sub, &slot));
		if (page->broken)
			return -EIO;
		atomic_store_explicit(&page->sum[slot], crc, memory_order_release);
		sum_page_changed(c, page);
	}
	return 0;
}
