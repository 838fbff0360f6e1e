/*
 * Unmaps, write zeroes, and the cutting off of tails: a leaf's worth of clusters at a time, each a record of
 * its own.
 *
 * Whole clusters become empty entries; whole sub-blocks lose their bit; what is left at the edges, and
 * sub-blocks that would then show a base, are written with zeros.
 */
#include "blob/internal.h"

struct cut {
	struct blob *b;
	uint64_t first, end; /* sub-blocks */
};

/* Zeros over what a range of sub-blocks, or of blocks in one, shows now. */
static fiber_fn int zero_blocks(struct blob *b, uint64_t block, uint64_t nr)
{
	struct store *s = b->store;

	while (nr) {
		uint64_t n = nr < ZERO_BYTES >> s->block_shift ? nr : ZERO_BYTES >> s->block_shift;
		struct iovec iov = {.iov_base = s->zeroes, .iov_len = n << s->block_shift};
		struct blob_io io = {.blob = b,
				     .op = BLOB_WRITE,
				     .iov = &iov,
				     .iovcnt = 1,
				     .offset_blocks = block,
				     .nr_blocks = n};
		int rc = blob_submit_wait(&s->internal, &io);

		if (rc)
			return rc;
		block += n;
		nr -= n;
	}
	return 0;
}

/* Zeros where a range of one sub-block shows anything but zeros. */
static fiber_fn int zero_part(struct blob *b, uint64_t block, uint64_t nr)
{
	const struct store *s = b->store;
	int rc = map_load(b, block >> s->cluster_block_shift);
	uint32_t sub = (block & ((1u << s->cluster_block_shift) - 1)) / s->blocks_a_sub;
	struct node *leaf;
	struct entry e;
	bool shared;

	if (rc)
		return rc;
	e = map_entry(b, block >> s->cluster_block_shift, &leaf, &shared);
	return (leaf && leaf->lost) || e.base || e.external || entry_has(&e, sub) ? zero_blocks(b, block, nr) : 0;
}

/* Part of one cluster: bits are cleared, or zeros written where a base would show. *ret_zero: the latter is
 * to be done. */
static void cut_part(struct cut *c, uint64_t index, uint32_t first, uint32_t nr, bool *ret_zero)
{
	struct store *s = c->b->store;
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];
	struct node *leaf;
	bool shared, any = false;
	struct entry e = map_entry(c->b, index, &leaf, &shared);

	*ret_zero = (e.base || e.external) && !BLOB_MUTANT(PUNCH_SHOWS_BASE);
	if (!e.own || e.base || e.external)
		return;
	for (uint32_t i = first; i < first + nr && !any; i++)
		any = entry_has(&e, i);
	if (!any)
		return;
	entry_get_mask(s, &e, mask);
	mask_set_range(mask, first, nr, false);
	if (mask_is_empty(s, mask))
		rec_map_clear(s, c->b, index, 1);
	else
		rec_map_put(s, c->b, index, e.own, 0, false, mask);
}

/* Whether anything is mapped in a range of clusters of one leaf. */
static bool any_mapped(struct blob *b, uint64_t first, uint64_t end, bool *ret_lost)
{
	bool shared;
	struct node *leaf = map_leaf(b, first, &shared);

	*ret_lost = leaf && leaf->lost;
	if (!*ret_lost && first < b->external_clusters)
		return true;
	if (!leaf || leaf->lost)
		return *ret_lost;
	for (uint64_t i = first; i < end; i++)
		if (leaf->slots[map_slot(b->store, i, 0)])
			return true;
	return false;
}

/* The records for sub-blocks [first, end) of one leaf. ret_zero[0], [1]: the first or last cluster needs
 * zeros written. */
static void cut_leaf(struct cut *c, uint64_t first, uint64_t end, bool ret_zero[2])
{
	struct store *s = c->b->store;
	uint32_t n = s->subs_a_cluster;
	uint64_t whole = (first + n - 1) / n, whole_end = end / n;

	journal_begin(s, 3500);
	map_prepare_path(s, c->b, first / n);
	if (whole > whole_end) { /* within one cluster */
		cut_part(c, first / n, first % n, end - first, &ret_zero[0]);
	} else {
		if (first % n)
			cut_part(c, first / n, first % n, n - first % n, &ret_zero[0]);
		if (end % n)
			cut_part(c, end / n, 0, end % n, &ret_zero[1]);
		if (whole < whole_end) {
			bool shared;

			/* The parts may have taken the leaf with them. */
			if (map_leaf(c->b, whole, &shared))
				rec_map_clear(s, c->b, whole, whole_end - whole);
		}
	}
	journal_end(s);
	blob_promise(c->b);
}

static fiber_fn int cut_zero(struct cut *c, uint64_t first, uint64_t end, const bool zero[2])
{
	struct store *s = c->b->store;
	uint32_t n = s->subs_a_cluster;
	uint64_t head_end = (first / n + 1) * n < end ? (first / n + 1) * n : end, tail = end / n * n;
	int rc = 0;

	if (zero[0])
		rc = zero_blocks(c->b, first * s->blocks_a_sub, (head_end - first) * s->blocks_a_sub);
	if (!rc && zero[1])
		rc = zero_blocks(c->b, tail * s->blocks_a_sub, (end - tail) * s->blocks_a_sub);
	return rc;
}

/* Sub-blocks [first, end), in the clusters of one leaf. */
static fiber_fn int cut_run(struct cut *c, uint64_t first, uint64_t end)
{
	struct store *s = c->b->store;
	uint32_t n = s->subs_a_cluster;
	uint64_t index = first / n, index_end = (end + n - 1) / n;
	struct range_lock lock;
	struct admission admission = {0};
	bool zero[2] = {false, false}, lost;
	int rc = 0;

	range_lock_init(&lock, index * n, index_end * n, NULL);
	if (!BLOB_MUTANT(PUNCH_UNLOCKED))
		range_lock_wait(c->b, &lock);
	rc = map_load(c->b, index);
	if (!rc && any_mapped(c->b, index, index_end, &lost)) {
		rc = lost ? -EIO
			  : admit_wait(s, &admission, freeing_pages(s) + map_path_pages(c->b, index),
				       OP_FREEING);
		if (!rc)
			rc = map_load(c->b, index);
		if (!rc && any_mapped(c->b, index, index_end, &lost))
			rc = lost ? -EIO : 0;
		if (!rc) {
			cut_leaf(c, first, end, zero);
			if (!store_writable(s))
				rc = -EIO;
		}
		admit_release(s, &admission);
	}
	range_unlock(c->b, &lock);
	return rc ? rc : cut_zero(c, first, end, zero);
}

static fiber_fn int cut_subs(struct cut *c)
{
	struct store *s = c->b->store;
	uint64_t n = s->subs_a_cluster, at = c->first;
	int rc = 0;

	while (!rc && at < c->end && !s->stopping) {
		uint64_t index, end;

		rc = map_next(c->b, at / n, (c->end + n - 1) / n, &index);
		if (rc || index * n >= c->end)
			break;
		if (index * n > at)
			at = index * n;
		end = ((index >> s->leaf_shift) + 1) << s->leaf_shift;
		end = end * n < c->end ? end * n : c->end;
		rc = cut_run(c, at, end);
		at = end;
		fiber_yield();
	}
	return rc;
}

fiber_fn int blob_punch(struct blob *b, uint64_t block, uint64_t nr)
{
	struct store *s = b->store;
	uint64_t end = block + nr, sub = s->blocks_a_sub;
	struct cut c = {.b = b, .first = (block + sub - 1) / sub, .end = end / sub};
	int rc = 0;

	if (c.first > c.end) /* within one sub-block */
		return zero_part(b, block, nr);
	if (block % sub)
		rc = zero_part(b, block, c.first * sub - block);
	if (!rc && end % sub)
		rc = zero_part(b, c.end * sub, end - c.end * sub);
	return rc ? rc : cut_subs(&c);
}

/* --- requests --- */

static fiber_fn void punch_one(struct store *s, struct req *req)
{
	struct blob_io *io = req->io;
	int rc = -ERANGE;

	if (io->offset_blocks + io->nr_blocks <= blob_nr_blocks(io->blob))
		rc = blob_punch(io->blob, io->offset_blocks, io->nr_blocks);
	if (!rc && io->flags & BLOB_IO_FUA)
		rc = journal_commit_wait(s, true);
	req_return(req, rc);
}

static void punch_fiber(void *arg)
{
	struct store *s = arg;
	struct list *it;

	while ((it = list_pop(&s->punches)))
		punch_one(s, list_entry(it, struct req, list));
	s->nr_punch_fibers--;
	store_fiber_over(s);
}

void punch_start(struct req *req)
{
	struct store *s = req->ch->store;

	list_add_tail(&s->punches, &req->list);
	if (s->nr_punch_fibers == PUNCH_FIBERS)
		return;
	s->nr_fibers++;
	if (!fiber_spawn(s->owner, "blob-punch", punch_fiber, s)) {
		s->nr_punch_fibers++;
		return;
	}
	s->nr_fibers--;
	if (!s->nr_punch_fibers) { /* nobody else will take it */
		list_del(&req->list);
		req_return(req, -ENOMEM);
	}
}

/* --- tails --- */

static void trim_fiber(void *arg)
{
	struct blob *b = arg;
	struct store *s = b->store;
	struct cut c = {.b = b,
			.first = b->nr_clusters * s->subs_a_cluster,
			.end = (uint64_t)UINT32_MAX * s->subs_a_cluster};
	struct admission admission = {0};
	int rc = cut_subs(&c);

	if (!rc)
		rc = admit_wait(s, &admission, 1, OP_FREEING);
	if (!rc && !s->stopping) {
		mpage_touch(s, TABLE_BLOBS, b->slot);
		b->flags &= ~BLOB_FLAG_TAIL; /* should a crash forget this, there is nothing to cut next time */
	}
	admit_release(s, &admission);
	if (rc && !s->stopping && store_writable(s))
		log_warning("store %s: the tail of blob %s stays mapped: %s", s->super.name, b->name,
			    strerror(-rc));
	b->trimming = false;
	s->nr_trimming--;
	blob_promise(b);
	blob_close(b);
	fiber_cond_broadcast(&s->freed_cond);
	waiters_kick(&s->space_waiters);
	store_fiber_over(s);
}

void blob_trim_start(struct blob *b)
{
	struct store *s = b->store;

	if (b->trimming || BLOB_MUTANT(RESIZE_KEEPS_TAIL))
		return;
	b->trimming = true;
	s->nr_trimming++;
	blob_open(b);
	s->nr_fibers++;
	if (fiber_spawn(s->owner, "blob-trim", trim_fiber, b)) {
		b->trimming = false; /* the next open does it */
		s->nr_trimming--;
		s->nr_fibers--;
		blob_close(b);
	}
}
