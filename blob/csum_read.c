/*
 * Reads in a store with checksums.  What comes from the device is compared on the thread that reads; the bytes around a read that
 * begins or ends within a sub-block are read along.  A page of checksums that is not in memory is fetched by the owner first.  What
 * does not match may have been overwritten while it was read: the owner reads it again under its lock, and judges that.
 */
#include "blob/csum.h"

#include <stdio.h>

/* --- judgement --- */

static void tell_bad(void *arg)
{
	struct store *s = arg;

	s->nr_tasks--;
	s->csum->event_pending = false;
	if (s->event)
		s->event(s, STORE_EVENT_CHECKSUM, s->event_arg);
}

/* Hosts try again, and by turns: one line and one event for each block are enough. */
static bool was_told(const struct csums *c, uint64_t blob_id, uint64_t offset_blocks, uint32_t found)
{
	uint64_t nr = c->nr_told < SUM_BAD_MAX ? c->nr_told : SUM_BAD_MAX;

	for (uint64_t i = 0; i < nr; i++)
		if (c->told[i].blob_id == blob_id && c->told[i].offset_blocks == offset_blocks && c->told[i].crc_found == found)
			return true;
	return false;
}

static void note_bad(struct blob *b, uint64_t sub_of_blob, uint32_t cluster, uint32_t stored, uint32_t found)
{
	struct store *s = b->store;
	struct csums *c = s->csum;
	struct store_bad *bad = &c->told[c->nr_told % SUM_BAD_MAX];

	c->nr_bad++;
	if (was_told(c, b->id, sub_of_blob * s->blocks_a_sub, found))
		return;
	c->nr_told++;
	memset(bad, 0, sizeof(*bad));
	bad->blob_id = b->id;
	snprintf(bad->blob_name, sizeof(bad->blob_name), "%s", b->name);
	bad->offset_blocks = sub_of_blob * s->blocks_a_sub;
	bad->nr_blocks = s->blocks_a_sub;
	bad->cluster = cluster;
	bad->crc_stored = stored;
	bad->crc_found = found;
	log_error("store %s: volume %s, LBA %llu: %u bytes do not match their checksum: %08x, not %08x (cluster %u)", s->super.name,
		  b->name, (unsigned long long)bad->offset_blocks, BLOB_SUB_SIZE, found, stored, cluster);
	if (c->event_pending)
		return;
	c->event_pending = true;
	s->nr_tasks++;
	task_run_later(&c->event_task, tell_bad, s);
}

int csum_judge(struct blob *b, uint64_t sub_of_blob, uint32_t cluster, uint32_t sub, struct sum_page *page, uint32_t slot,
	       uint32_t crc)
{
	struct store *s = b->store;
	struct csums *c = s->csum;
	uint32_t stored = atomic_load_explicit(&page->sum[slot], memory_order_relaxed);

	if (page->broken)
		return -EIO;
	if (stored == crc)
		return 0;
	if (stored && !sum_bit(c->unsettled, cluster)) {
		note_bad(b, sub_of_blob, cluster, stored, crc);
		return -EIO;
	}
	if (sum_bit(c->unsettled, cluster)) {
		c->nr_unverified++;
	} else {
		c->nr_unknown++;
		log_warning("store %s: volume %s, LBA %llu: its checksum was lost; what is there now is taken for good",
			    s->super.name, b->name, (unsigned long long)sub_of_blob * s->blocks_a_sub);
	}
	atomic_store_explicit(&page->sum[slot], crc, memory_order_relaxed);
	if (store_writable(s))
		sum_page_mend(c, page);
	return 0;
}

bool store_take_bad(struct store *s, struct store_bad *ret_bad)
{
	struct csums *c = s->csum;

	if (!c || c->nr_taken == c->nr_told)
		return false;
	if (c->nr_told - c->nr_taken > SUM_BAD_MAX) /* the log has them */
		c->nr_taken = c->nr_told - SUM_BAD_MAX;
	*ret_bad = c->told[c->nr_taken++ % SUM_BAD_MAX];
	return true;
}

/* --- one sub-block, for certain --- */

static fiber_fn int read_locked(struct blob *b, uint64_t at, void *buf)
{
	struct store *s = b->store;
	uint64_t index = at / s->subs_a_cluster;
	uint32_t sub = at % s->subs_a_cluster, slot, cluster;
	struct node *leaf;
	struct sum_page *page;
	struct entry e;
	bool shared;
	int rc;

	rc = map_load(b, index);
	if (rc)
		return rc;
	e = map_entry(b, index, &leaf, &shared);
	if (leaf && leaf->lost)
		return -EIO;
	cluster = entry_has(&e, sub) ? e.own : e.base;
	if (!cluster && e.external)
		return ext_read_wait(b, buf, at * s->blocks_a_sub, s->blocks_a_sub);
	if (!cluster) {
		memset(buf, 0, BLOB_SUB_SIZE);
		return 0;
	}
	page = sum_page_wait(s->csum, sum_page_of(s, cluster, sub, &slot));
	page->nr_pins++;
	rc = bdev_read(s->bch, buf, cluster_block(s, cluster) + (uint64_t)sub * s->blocks_a_sub, s->blocks_a_sub);
	page->nr_pins--;
	waiters_kick(&s->csum->no_load);
	b->degraded |= rc == -ERANGE; /* the device is shorter than the store */
	if (rc)
		return rc == -ERANGE ? -EIO : rc;
	return csum_judge(b, at, cluster, sub, page, slot, csum_of_sub(buf));
}

fiber_fn int csum_read_sub(struct blob *b, uint64_t at, void *buf)
{
	struct range_lock lock;
	int rc;

	range_lock_init(&lock, at, at + 1, NULL);
	range_lock_wait(b, &lock);
	rc = read_locked(b, at, buf);
	range_unlock(b, &lock);
	return rc;
}

/* --- requests, on their threads --- */

/* Reads what is around the piece as well, so that it is whole sub-blocks. */
int csum_read_wrap(struct req *carrier)
{
	struct store *s = carrier->ch->store;
	struct bdev_io *bio = &carrier->bio;
	uint32_t mask = s->blocks_a_sub - 1, head = bio->offset_blocks & mask;
	uint32_t tail = -(bio->offset_blocks + bio->nr_blocks) & mask;

	if (!head && !tail)
		return 0;
	if (!carrier->edge)
		carrier->edge = dma_alloc(2 * BLOB_SUB_SIZE, BLOB_SUB_SIZE); /* kept for the next time */
	if (!carrier->edge)
		return -ENOMEM;
	if (head) {
		memmove(carrier->iov + 1, carrier->iov, bio->iovcnt * sizeof(struct iovec));
		carrier->iov[0] = (struct iovec){.iov_base = carrier->edge, .iov_len = head << s->block_shift};
		bio->iovcnt++;
	}
	if (tail)
		carrier->iov[bio->iovcnt++] = (struct iovec){.iov_base = carrier->edge + BLOB_SUB_SIZE,
							     .iov_len = tail << s->block_shift};
	bio->offset_blocks -= head;
	bio->nr_blocks += head + tail;
	return 0;
}

/* Whether the checksums of a range of the device's blocks within one cluster are in memory. */
bool csum_resident(const struct store *s, uint64_t block, uint64_t nr)
{
	uint32_t cluster = block >> s->cluster_block_shift, first_slot, slot;
	uint64_t in = block & ((1ull << s->cluster_block_shift) - 1);
	uint64_t first = sum_page_of(s, cluster, in >> s->sub_block_shift, &first_slot);
	uint64_t last = sum_page_of(s, cluster, (in + nr - 1) >> s->sub_block_shift, &slot);
	const struct sum_page *page;

	for (uint64_t i = first; i <= last; i++) {
		page = sum_page_find(s->csum, i);
		if (!page)
			return false;
		if (i == first) { /* by the time the data has come, these are in the cache */
			__builtin_prefetch(&page->sum[first_slot]);
			__builtin_prefetch(&page->used);
		}
	}
	return true;
}

/* Whether what was read is what its checksums say; whole sub-blocks of one cluster. */
bool csum_matches(const struct store *s, const struct bdev_io *bio)
{
	uint32_t cluster = bio->offset_blocks >> s->cluster_block_shift, slot;
	uint64_t in = bio->offset_blocks & ((1ull << s->cluster_block_shift) - 1);
	uint32_t sub = in >> s->sub_block_shift, nr = bio->nr_blocks >> s->sub_block_shift;

	for (uint32_t i = 0; i < nr; i++) {
		struct sum_page *page = sum_page_find(s->csum, sum_page_of(s, cluster, sub + i, &slot));

		if (!page || atomic_load_explicit(&page->sum[slot], memory_order_acquire) !=
				     csum_of_iov(bio->iov, bio->iovcnt, (uint64_t)i * BLOB_SUB_SIZE))
			return false;
		if (!atomic_load_explicit(&page->used, memory_order_relaxed))
			atomic_store_explicit(&page->used, true, memory_order_relaxed);
	}
	return true;
}

/* --- requests, on the owner --- */

static void copy_out(const struct iovec *iov, unsigned iovcnt, uint64_t skip, const uint8_t *from, uint64_t bytes)
{
	for (unsigned i = 0; i < iovcnt && bytes; i++) {
		uint64_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n -= skip;
		n = n < bytes ? n : bytes;
		memcpy((char *)iov[i].iov_base + skip, from, n);
		from += n;
		bytes -= n;
		skip = 0;
	}
}

static fiber_fn int read_again(struct req *req)
{
	struct store *s = req->ch->store;
	struct blob_io *io = req->io;
	uint64_t end = io->offset_blocks + io->nr_blocks, at = io->offset_blocks;
	uint8_t *buf = dma_alloc(BLOB_SUB_SIZE, BLOB_SUB_SIZE);
	int rc = buf ? 0 : -ENOMEM;

	while (!rc && at < end) {
		uint64_t sub = at / s->blocks_a_sub, next = (sub + 1) * s->blocks_a_sub;

		next = next < end ? next : end;
		rc = csum_read_sub(io->blob, sub, buf);
		if (!rc)
			copy_out(io->iov, io->iovcnt, (at - io->offset_blocks) << s->block_shift,
				 buf + (at % s->blocks_a_sub << s->block_shift), (next - at) << s->block_shift);
		at = next;
	}
	if (buf)
		dma_free(buf);
	return rc;
}

static void read_again_fiber(void *arg)
{
	struct req *req = arg;
	struct store *s = req->ch->store;

	req_return(req, read_again(req));
	store_fiber_over(s);
}

static void retry_pages(struct waiter *w)
{
	csum_read_owner(container_of(w, struct req, waiter));
}

/* The next page that a cluster's run of sub-blocks needs and that is not here is asked for; false: it comes. */
static bool have_pages(struct req *req, uint32_t cluster, uint32_t first, uint32_t last)
{
	struct store *s = req->ch->store;
	uint32_t slot;
	uint64_t page = sum_page_of(s, cluster, first, &slot), end = sum_page_of(s, cluster, last, &slot);

	for (; page <= end; page++)
		if (!sum_page_get(s->csum, page, &req->waiter))
			return false;
	return true;
}

static void node_came(struct node_wait *wait, struct node *node, int status)
{
	struct req *req = container_of(wait, struct req, node_wait);

	if (status)
		req_return(req, status);
	else
		csum_read_owner(req);
}

/* A read for which a page of checksums was missing begins again once they are all here; one that did not match is read again. */
void csum_read_owner(struct req *req)
{
	struct store *s = req->ch->store;
	struct blob_io *io = req->io;
	uint64_t at = req->sum_at,
		 end = (io->offset_blocks + io->nr_blocks + s->blocks_a_sub - 1) / s->blocks_a_sub;

	if (req->sum_bad) {
		s->nr_fibers++;
		if (fiber_spawn(s->owner, "blob-read-again", read_again_fiber, req)) {
			s->nr_fibers--;
			req_return(req, -ENOMEM);
		}
		return;
	}
	req->waiter.retry = retry_pages;
	while (at < end) {
		uint64_t index = at / s->subs_a_cluster, next = (index + 1) * s->subs_a_cluster;
		uint32_t first = at % s->subs_a_cluster, last;
		struct node *leaf;
		struct entry e;
		bool shared;

		req->node_wait.done = node_came;
		if (!map_want(io->blob, index, &req->node_wait))
			return;
		e = map_entry(io->blob, index, &leaf, &shared);
		next = next < end ? next : end;
		last = (next - 1) % s->subs_a_cluster;
		if ((e.own && !have_pages(req, e.own, first, last)) || (e.base && !have_pages(req, e.base, first, last)))
			return;
		at = req->sum_at = next; /* what came before may go again, but not the request back to it */
	}
	req_restart(req);
}
