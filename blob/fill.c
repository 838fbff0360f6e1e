/*
 * Writes on the store's owner thread: first writes, which change a map, and in a store with checksums all others.  A request is cut at
 * clusters; each part is a fill.
 *
 *   LOCK   nobody else changes these sub-blocks
 *   SPACE  the cluster to write: the one mapped, if it is this blob's alone; one that another fill of the same cluster has just
 *          allocated; or a new one
 *   SUMS   in a store with checksums: the cluster is marked, and their pages are here (csum_fill.c)
 *   ADMIT  room in the journal and for the next checkpoint's pages
 *   COPY   only where a third source would be needed (cow.c)
 *   READ   a sub-block that is written in part only is completed: from its base, or with zeros
 *   WRITE  the data goes to the device, whole sub-blocks where they are new
 *   DONE   the record is made and the map shows the data; FUA then waits for the commit, together with its request
 */
#include "blob/csum.h"
#include "blob/fill.h"

/* What the map has for a fill's cluster, as long as nobody is waited for. */
struct found {
	struct node *leaf;
	bool shared, settled;
};

static void fill_space(struct fill *f);
static void fill_found(struct fill *f, struct found at, const struct entry *old);
static void fill_admit(struct fill *f);
static void fill_admitted(struct fill *f);
static bool edge_needs_read(const struct fill *f, unsigned which);
static void write_go_on(struct req *req);

int fills_init(struct store *s)
{
	s->fills = calloc(NR_FILLS, sizeof(struct fill));
	if (!s->fills)
		return -ENOMEM;
	s->zeroes = dma_alloc(ZERO_BYTES, PAGE_BYTES);
	if (!s->zeroes)
		return -ENOMEM;
	memset(s->zeroes, 0, ZERO_BYTES);
	for (unsigned i = 0; i < NR_FILLS; i++)
		fifo_push(&s->free_fills, &s->fills[i].link);
	return 0;
}

void fills_destroy(struct store *s)
{
	for (unsigned i = 0; s->fills && i < NR_FILLS; i++)
		for (unsigned k = 0; k < 2; k++)
			if (s->fills[i].edge[k])
				dma_free(s->fills[i].edge[k]);
	free(s->fills);
	if (s->zeroes)
		dma_free(s->zeroes);
}

/* --- requests --- */

static void committed(struct commit_wait *wait, int status)
{
	req_return(container_of(wait, struct req, commit), status ? -EIO : 0);
}

static void commit_then_return(struct req *req, bool flush)
{
	req->commit.flush = flush;
	req->commit.done = committed;
	journal_wait_add(req->ch->store, &req->commit);
}

static void write_over(struct req *req)
{
	if (!req->status && req->io->flags & BLOB_IO_FUA && !BLOB_MUTANT(EARLY_FUA_ACK))
		commit_then_return(req, true);
	else
		req_return(req, req->status);
}

static void retry_request(struct waiter *w)
{
	write_go_on(container_of(w, struct req, waiter));
}

/* How many blocks from req->pos on one fill can take: to the end of the cluster, and of what fits its
 * segments. */
static uint32_t fill_segments(struct req *req, struct fill *f, uint64_t nr)
{
	struct store *s = req->ch->store;
	struct blob_io *io = req->io;
	uint64_t start = (uint64_t)f->in_block << s->block_shift, bytes, end;

	f->nr_iov = blob_iov_slice(io->iov, io->iovcnt, req->pos << s->block_shift, nr << s->block_shift,
				   f->iov + 1, FILL_IOVS, &bytes);
	if (bytes == nr << s->block_shift)
		return nr;
	end = (start + bytes) & ~(uint64_t)(BLOB_SUB_SIZE - 1);
	if (end <= start)
		end = (start + bytes) >> s->block_shift << s->block_shift;
	f->nr_iov = blob_iov_slice(io->iov, io->iovcnt, req->pos << s->block_shift, end - start, f->iov + 1,
				   FILL_IOVS, &bytes);
	return (end - start) >> s->block_shift;
}

/* Those who wait for fills, in order, as long as there are some. */
static void fills_hand_out(struct store *s)
{
	struct list *it;

	while (!fifo_empty(&s->free_fills) && (it = list_pop(&s->fill_waiters)))
		retry_request(list_entry(it, struct waiter, link));
}

static void lock_ready(struct range_lock *l)
{
	fill_space(container_of(l, struct fill, lock));
}

static void fill_node_came(struct node_wait *wait, struct node *node, int status)
{
	struct fill *f = container_of(wait, struct fill, node_wait);

	if (status)
		fill_over(f, status);
	else
		f->again(f);
}

static struct found look_up(const struct fill *f)
{
	struct found at;

	at.leaf = map_leaf_settled(f->blob, f->index, &at.shared, &at.settled);
	return at;
}

/* What the map has there, if it is in memory; else @again comes when it is. */
static bool fill_look_up(struct fill *f, void (*again)(struct fill *f), struct found *ret_at)
{
	*ret_at = look_up(f);
	if (__builtin_expect(!ret_at->leaf || !ret_at->leaf->lost, 1)) /* what is not in memory seems lost */
		return true;
	f->again = again;
	f->node_wait.done = fill_node_came;
	if (!map_want(f->blob, f->index, &f->node_wait))
		return false;
	*ret_at = look_up(f);
	return true;
}

static bool is_exclusive(const struct fill *f, struct found at, const struct entry *e)
{
	return !at.shared && (!e->own || f->blob->store->counts[e->own] == 1);
}

static void fill_start(struct fill *f)
{
	struct store *s = f->blob->store;
	uint64_t base = f->index << s->sub_shift;
	uint64_t first = base + f->first_sub, end = first + f->nr_subs;
	struct found at;

	f->state = FILL_LOCK;
	if (!fill_look_up(f, fill_start, &at))
		return;

	struct entry e = leaf_entry(f->blob, f->index, at.leaf);

	fill_plan(f, &e, is_exclusive(f, at, &e));
	if (f->copy) {
		first = base;
		end = base + s->subs_a_cluster;
	}
	range_lock_init(&f->lock, first, end, lock_ready);
	if (range_lock(f->blob, &f->lock))
		fill_found(f, at, &e);
}

static void write_go_on(struct req *req)
{
	struct store *s = req->ch->store;
	struct blob_io *io = req->io;
	uint32_t a_cluster = 1u << s->cluster_block_shift;

	req->pending++; /* so that fills that end at once do not end the request under us */
	while (req->pos < io->nr_blocks && !req->status) {
		uint64_t at = io->offset_blocks + req->pos, left = io->nr_blocks - req->pos;
		struct fifo_link *link = fifo_pop(&s->free_fills);
		struct fill *f;

		if (!link) {
			s->stats.nr_pool_waits++;
			req->waiter.retry = retry_request;
			list_add_tail(&s->fill_waiters, &req->waiter.link);
			break;
		}
		f = container_of(link, struct fill, link);
		f->req = req;
		f->blob = io->blob;
		f->index = at >> s->cluster_block_shift;
		f->in_block = at & (a_cluster - 1);
		f->unshare = io->flags & BLOB_IO_UNSHARE;
		if (left > a_cluster - f->in_block)
			left = a_cluster - f->in_block;
		f->nr_blocks = fill_segments(req, f, left);
		f->own_held = f->in_place = f->in_own = f->read_tail = f->sums_held = false;
		f->admission.held = false;
		f->own = 0;
		if (!f->nr_blocks) {
			req->status = -EINVAL;
			fifo_push_first(&s->free_fills, &f->link);
			break;
		}
		f->first_sub = f->in_block >> s->sub_block_shift;
		f->nr_subs = ((f->in_block + f->nr_blocks - 1) >> s->sub_block_shift) - f->first_sub + 1;
		req->pos += f->nr_blocks;
		req->pending++;
		fill_start(f);
	}
	if (!--req->pending && (req->pos == io->nr_blocks || req->status))
		write_over(req);
}

void owner_start(void *arg)
{
	struct req *req = arg;
	struct store *s = req->ch->store;
	int failed = atomic_load(&s->failed);

	if (failed && req->io->op != BLOB_READ) {
		req_return(req, failed == -ENODEV || req->io->op == BLOB_FLUSH ? failed : -EROFS);
		return;
	}
	switch (req->io->op) {
	case BLOB_FLUSH:
		commit_then_return(req, true);
		return;
	case BLOB_READ:
		req->sum_at = req->io->offset_blocks / s->blocks_a_sub;
		if (req->map_miss)
			read_missed(req);
		else
			csum_read_owner(req);
		return;
	case BLOB_WRITE:
		req->pos = 0;
		req->pending = 0;
		req->status = 0;
		list_init(&req->waiter.link);
		s->stats.nr_slow_writes++;
		if (req->io->offset_blocks + req->io->nr_blocks > blob_nr_blocks(req->io->blob))
			req_return(req, -ERANGE); /* it shrank meanwhile */
		else
			write_go_on(req);
		return;
	default:
		punch_start(req);
	}
}

/* --- fills --- */

/* Another fill of the same cluster that has a new one for it. */
static struct fill *sibling(const struct fill *f)
{
	struct store *s = f->blob->store;
	uint64_t base = f->index * s->subs_a_cluster;
	struct list *it;

	list_for_each (it, &f->blob->locks) {
		struct range_lock *l = list_entry(it, struct range_lock, link);

		if (l->first >= base && l->end <= base + s->subs_a_cluster && l->ready == lock_ready &&
		    l != &f->lock) {
			struct fill *o = container_of(l, struct fill, lock);

			if (o->own_held && o->state >= FILL_SUMS)
				return o;
		}
	}
	return NULL;
}

static void own_leave(struct fill *f)
{
	struct blob *b = f->blob;

	if (f->in_own && --b->nr_in_own == 0)
		fiber_cond_broadcast(&b->own_idle);
	f->in_own = false;
}

void fill_over(struct fill *f, int status)
{
	struct store *s = f->blob->store;
	struct blob *b = f->blob;
	struct req *req = f->req;

	if (f->own_held && status && !sibling(f))
		cluster_release(s, b, f->own);
	f->own_held = false;
	own_leave(f);
	if (s->csum)
		csum_fill_over(f);
	f->state = FILL_FREE;
	range_unlock(b, &f->lock);
	admit_release(s, &f->admission);
	fifo_push_first(&s->free_fills, &f->link);
	fills_hand_out(s);
	if (status && !req->status)
		req->status = status;
	if (!--req->pending && (req->pos == req->io->nr_blocks || req->status)) {
		list_del(&req->waiter.link); /* after an error it may still wait for a fill */
		write_over(req);
	}
}

static void retry_space(struct waiter *w)
{
	fill_space(container_of(w, struct fill, waiter));
}

static void retry_settled(struct commit_wait *c, int status)
{
	struct fill *f = container_of(c, struct fill, commit);

	if (status)
		fill_over(f, -EIO);
	else
		fill_space(f);
}

/* A fill may write into a cluster that is its blob's own, unless a snapshot is about to be taken: then it waits until that is done,
 * and finds the cluster shared. */
static bool own_enter(struct fill *f)
{
	struct blob *b = f->blob;

	if (b->snapshotting) {
		f->waiter.retry = retry_space;
		list_add_tail(&b->own_waiters, &f->waiter.link);
		return false;
	}
	f->in_own = true;
	b->nr_in_own++;
	return true;
}

static void retry_sums(struct waiter *w);

static void retry_marked(struct commit_wait *c, int status)
{
	struct fill *f = container_of(c, struct fill, commit);

	if (!status)
		csum_fill_marked(f);
	retry_settled(c, status);
}

/* It has its cluster: its checksums are needed before anything is written there. */
static void fill_sums(struct fill *f)
{
	if (f->blob->store->csum && !csum_fill_ready(f, retry_sums, retry_marked))
		return;
	if (!f->in_place)
		fill_admit(f);
	else if (own_enter(f))
		fill_go_on(f);
}

/* What it found in the map may have changed while it waited, unless the cluster is its own. */
static void retry_sums(struct waiter *w)
{
	struct fill *f = container_of(w, struct fill, waiter);

	if (f->own_held)
		fill_sums(f);
	else
		fill_space(f);
}

static bool must_relock(const struct fill *f)
{
	return f->copy && f->lock.end - f->lock.first != f->blob->store->subs_a_cluster;
}

static void fill_space(struct fill *f)
{
	struct store *s = f->blob->store;
	struct found at;

	if (s->csum)
		csum_fill_over(f); /* of the cluster that it had chosen before */
	f->state = FILL_SPACE;
	if (!fill_look_up(f, fill_space, &at))
		return;

	struct entry old = leaf_entry(f->blob, f->index, at.leaf);

	fill_plan(f, &old, is_exclusive(f, at, &old));
	fill_found(f, at, &old);
}

/* It has its lock, and a plan for what the map has now. */
static void fill_found(struct fill *f, struct found at, const struct entry *old)
{
	struct store *s = f->blob->store;
	bool exclusive = is_exclusive(f, at, old);
	struct fill *o;

	f->state = FILL_SPACE;
	if (at.leaf && at.leaf->lost)
		f->blob->degraded = true;
	if ((at.leaf && at.leaf->lost) || f->index >= f->blob->nr_clusters) {
		fill_over(f, at.leaf && at.leaf->lost ? -EIO : -ERANGE); /* it may have shrunk while we waited */
		return;
	}
	/* Kept as it is now: the entry itself may be gone once we have waited. */
	f->old_own = old->own;
	f->old_base = old->external ? SOURCE_EXTERNAL : old->base;
	entry_get_mask(s, old, f->mask);
	f->map_seq = f->blob->map_seq;
	f->read_own = !exclusive && old->partial && old->own; /* what is planned hangs on what it holds */
	f->in_place = f->stale = false;
	if (must_relock(f)) {
		range_unlock(f->blob, &f->lock);
		fill_start(f);
		return;
	}
	f->source = f->unshare ? fill_unshare_source(f, exclusive) : 0;
	if (f->unshare && !f->source) {
		fill_over(f, 0);
		return;
	}
	if (old->own && exclusive && (!at.settled || !cluster_settled(s, old->own))) {
		f->commit.flush = false;
		f->commit.done = retry_settled;
		journal_wait_add(s, &f->commit);
		return;
	}
	if (old->own && exclusive) {
		f->own = old->own;
		f->in_place = entry_has_range(old, f->first_sub, f->nr_subs);
	} else if ((o = sibling(f))) {
		f->own = o->own;
		f->own_held = true;
	} else {
		f->own = cluster_alloc(s, f->blob);
		f->own_held = f->own;
	}
	if (!f->own && !store_writable(s)) {
		fill_over(f, -EROFS); /* what is on its way back stays there */
	} else if (!f->own && space_is_coming(s)) {
		s->stats.nr_space_waits++;
		f->waiter.retry = retry_space;
		list_add_tail(&s->space_waiters, &f->waiter.link);
		pace_hurry(s);
		journal_demand(s);
		fiber_cond_signal(&s->free_wake);
	} else if (!f->own) {
		fill_over(f, -ENOSPC);
	} else {
		fill_sums(f);
	}
}

static void retry_drained(struct waiter *w)
{
	fill_admitted(container_of(w, struct fill, waiter));
}

static void fill_admitted(struct fill *f)
{
	struct blob *b = f->blob;

	/* What it would read may still be written by those who came before a snapshot. */
	if (b->draining && (f->copy || f->unshare || edge_needs_read(f, 0) || edge_needs_read(f, 1))) {
		f->waiter.retry = retry_drained;
		list_add_tail(&b->drain_waiters, &f->waiter.link);
	} else if (f->copy) {
		f->state = FILL_COPY;
		fill_copy_start(f);
	} else {
		fill_go_on(f);
	}
}

static void retry_admit(struct waiter *w)
{
	fill_admit(container_of(w, struct fill, waiter));
}

static void fill_admit(struct fill *f)
{
	struct store *s = f->blob->store;
	struct found at;
	int rc;

	f->state = FILL_ADMIT;
	if (!fill_look_up(f, fill_admit, &at))
		return;
	if (f->index >= f->blob->nr_clusters) { /* it shrank while we waited; the trim waits for our lock */
		fill_over(f, -ERANGE);
		return;
	}
	rc = admit(s, &f->admission, at.leaf && !at.shared ? OWN_LEAF_PAGES : map_path_pages(f->blob, f->index),
		   blob_is_thick(f->blob) ? OP_THICK : OP_THIN);
	if (rc == -EAGAIN) {
		f->waiter.retry = retry_admit;
		list_add_tail(&s->admit_waiters, &f->waiter.link);
	} else if (rc) {
		fill_over(f, rc);
	} else if (!f->own_held && f->map_seq != f->blob->map_seq) {
		admit_release(s, &f->admission); /* own is shared since */
		fill_space(f);
	} else if (!f->own_held && !own_enter(f)) {
		admit_release(s, &f->admission);
	} else {
		fill_admitted(f);
	}
}

/* --- edges --- */

/* Bytes before the data in its first sub-block (which 0), or after it in its last, that must be written with
 * it. */
static uint32_t edge_bytes(const struct fill *f, unsigned which)
{
	struct store *s = f->blob->store;
	uint64_t start = (uint64_t)f->in_block << s->block_shift,
		 end = start + ((uint64_t)f->nr_blocks << s->block_shift);
	uint32_t bytes = (which ? -end : start) % BLOB_SUB_SIZE;
	uint32_t sub = which ? f->first_sub + f->nr_subs - 1 : f->first_sub;

	if (!s->csum && bytes && (f->in_place || (f->old_own == f->own && fill_old_has(f, sub))))
		return 0;
	return bytes;
}

/* The cluster that holds what a sub-block reads now; 0: zeros; or the external bdev. */
static uint32_t edge_source(const struct fill *f, unsigned which)
{
	struct store *s = f->blob->store;
	uint64_t block = which ? f->in_block + f->nr_blocks - 1 : f->in_block;

	if (BLOB_MUTANT(EDGE_WITHOUT_BASE))
		return 0;
	return fill_old_has(f, block / s->blocks_a_sub) ? f->old_own : f->old_base;
}

static void edge_read(struct fill *f, unsigned which);

static void edge_read_done(struct bdev_io *bio, int status);

static void retry_edge(struct waiter *w)
{
	edge_read_done(&container_of(w, struct fill, waiter)->bio, 0);
}

/* As csum_edge(), for the edge that has just been read. */
static int edge_judge(struct fill *f)
{
	unsigned which = f->edge_iov.iov_base == f->edge[1];
	uint64_t block = which ? f->in_block + f->nr_blocks - 1 : f->in_block;

	return csum_edge(f, edge_source(f, which), block / f->blob->store->blocks_a_sub, f->edge[which], retry_edge);
}

static void edge_read_done(struct bdev_io *bio, int status)
{
	struct fill *f = container_of(bio, struct fill, bio);

	if (f->ext)
		fill_external_over(f);
	else if (!status && f->blob->store->csum)
		status = edge_judge(f);
	if (status == -EAGAIN)
		return;
	if (status)
		fill_over(f, status);
	else if (f->read_tail)
		edge_read(f, 1);
	else
		fill_write(f);
}

static void edge_read(struct fill *f, unsigned which)
{
	struct store *s = f->blob->store;
	uint64_t block = which ? f->in_block + f->nr_blocks - 1 : f->in_block;

	if (which)
		f->read_tail = false;
	s->stats.nr_copied_subs++;
	f->read_own |= edge_source(f, which) == f->old_own;
	f->edge_iov = (struct iovec){.iov_base = f->edge[which], .iov_len = BLOB_SUB_SIZE};
	f->bio.done = edge_read_done;
	f->bio.op = BDEV_READ;
	f->bio.flags = 0;
	f->bio.iov = &f->edge_iov;
	f->bio.iovcnt = 1;
	f->bio.offset_blocks =
		cluster_block(s, edge_source(f, which)) + block / s->blocks_a_sub * s->blocks_a_sub;
	f->bio.nr_blocks = s->blocks_a_sub;
	if (edge_source(f, which) == SOURCE_EXTERNAL)
		fill_read_external(f, block / s->blocks_a_sub * s->blocks_a_sub);
	else
		bdev_submit(s->bch, &f->bio);
}

static bool edge_needs_read(const struct fill *f, unsigned which)
{
	return edge_bytes(f, which) && edge_source(f, which);
}

void fill_go_on(struct fill *f)
{
	bool read[2] = {edge_needs_read(f, 0), edge_needs_read(f, 1)};

	for (unsigned i = 0; i < 2; i++)
		if (read[i] && !f->edge[i]) {
			f->edge[i] = dma_alloc(BLOB_SUB_SIZE, BLOB_SUB_SIZE); /* kept for the next time */
			if (!f->edge[i]) {
				fill_over(f, -ENOMEM);
				return;
			}
		}
	f->state = FILL_READ;
	if (f->unshare) {
		fill_read_source(f);
		return;
	}
	f->read_tail = read[0] && read[1];
	if (read[0])
		edge_read(f, 0);
	else if (read[1])
		edge_read(f, 1);
	else
		fill_write(f);
}

/* --- data and record --- */

/* What a fill read from a shared cluster is of no use any more if that became the blob's own meanwhile: who writes in place asks nobody. */
static bool has_stale_copy(const struct fill *f, struct found at)
{
	if (!f->read_own || f->own == f->old_own)
		return false;
	if (f->stale || f->map_seq != f->blob->map_seq)
		return true;

	struct entry e = leaf_entry(f->blob, f->index, at.leaf);

	return e.own && e.own == f->old_own && is_exclusive(f, at, &e);
}

/* A record is about to end what other fills of the same cluster read from: they would not see that it was the blob's own. */
static void mark_stale(struct fill *f)
{
	uint64_t base = f->index * f->blob->store->subs_a_cluster;
	struct list *it;

	list_for_each (it, &f->blob->locks) {
		struct range_lock *l = list_entry(it, struct range_lock, link);

		if (l->ready == lock_ready && l->first >= base && l->first < base + f->blob->store->subs_a_cluster)
			container_of(l, struct fill, lock)->stale = true;
	}
}

/* From the beginning, with a cluster of its own if need be. */
static void fill_again(struct fill *f)
{
	struct store *s = f->blob->store;

	if (f->own_held && !sibling(f))
		cluster_release(s, f->blob, f->own);
	f->own_held = false;
	own_leave(f);
	admit_release(s, &f->admission);
	fill_space(f);
}

/*
 * Whoever else holds the cluster no longer does: it is the blob's own now.  Those at work in it must be over before a snapshot shares
 * it; the others will ask whether they may enter.
 */
static void fill_mapped(struct fill *f)
{
	struct fill *o;

	while ((o = sibling(f)) && o->own == f->own) {
		o->own_held = false;
		if (o->admission.held && !o->in_own && !BLOB_MUTANT(SNAPSHOT_PASSES_SIBLING)) {
			o->in_own = true;
			o->blob->nr_in_own++;
		}
	}
}

static void fill_record(struct fill *f, struct found at)
{
	struct store *s = f->blob->store;
	struct entry e = leaf_entry(f->blob, f->index, at.leaf);
	bool had = e.own == f->own, held = f->own_held;

	if (e.own && !had && is_exclusive(f, at, &e))
		mark_stale(f);
	journal_begin(s, at.leaf && !at.shared ? 32 + s->mask_bytes : 1400 + s->mask_bytes);
	if (!at.leaf || at.shared)
		map_prepare_path(s, f->blob, f->index);
	if (had || (!e.own && !e.base && !e.external && !e.partial)) {
		rec_map_fill(s, f->blob, f->index, f->own, f->first_sub, f->nr_subs);
	} else {
		for (uint32_t i = 0; i < s->mask_words; i++)
			f->mask[i] = f->copy == COPY_VALID ? f->mask[i] : f->copy == COPY_MISSING ? ~f->mask[i] : 0;
		if (BLOB_MUTANT(COPY_FORGETS_MASK))
			memset(f->mask, 0, sizeof(f->mask));
		mask_set_range(f->mask, f->first_sub, f->nr_subs, true);
		if (s->subs_a_cluster < 64)
			f->mask[0] &= (1ull << s->subs_a_cluster) - 1;
		rec_map_put(s, f->blob, f->index, f->own, f->new_base, f->new_external, f->mask);
	}
	journal_end(s);
	if (held && !had) {
		f->blob->nr_held--;
		blob_promise(f->blob);
	}
	f->own_held = false;
	if (held)
		fill_mapped(f);
}

static bool records_early(const struct fill *f)
{
	return BLOB_MUTANT(RECORD_BEFORE_DATA) || (BLOB_MUTANT(BIT_BEFORE_DATA) && f->own == f->old_own);
}

/* Its data is written: the record. */
static void fill_written(struct fill *f)
{
	struct found at = {0};
	int status = 0;

	if (!f->in_place && f->index >= f->blob->nr_clusters)
		status = -ERANGE; /* cut off meanwhile, and nobody would trim what we map now */
	else if (!f->in_place && !fill_look_up(f, fill_written, &at))
		return;
	if (at.leaf && at.leaf->lost)
		status = -EIO;
	if (!status && !f->in_place && has_stale_copy(f, at)) {
		fill_again(f);
		return;
	}
	if (!status && !f->in_place && !records_early(f)) {
		fill_record(f, at);
		f->state = FILL_DONE;
		if (!store_writable(f->blob->store))
			status = -EIO;
	}
	fill_over(f, status);
}

static void write_done(struct bdev_io *bio, int status)
{
	struct fill *f = container_of(bio, struct fill, bio);

	if (f->blob->store->csum)
		csum_fill_written(f, status);
	if (status)
		fill_over(f, status);
	else
		fill_written(f);
}

static void add_edge(struct fill *f, unsigned which, uint32_t bytes)
{
	uint8_t *from = f->blob->store->zeroes;

	if (edge_source(f, which))
		from = f->edge[which] + (which ? BLOB_SUB_SIZE - bytes : 0);
	f->iov[which ? 1 + f->nr_iov : 0] = (struct iovec){.iov_base = from, .iov_len = bytes};
}

/* A mutant's: so long that a snapshot comes before its end. */
static void write_slowly(void *arg)
{
	struct fill *f = arg;

	fiber_sleep(2000);
	bdev_submit(f->blob->store->bch, &f->bio);
}

void fill_write(struct fill *f)
{
	struct store *s = f->blob->store;
	uint32_t head = edge_bytes(f, 0), tail = edge_bytes(f, 1);

	if (BLOB_MUTANT(NO_ZERO_FILL) && !edge_source(f, 0))
		head = 0;
	if (BLOB_MUTANT(NO_ZERO_FILL) && !edge_source(f, 1))
		tail = 0;
	f->state = FILL_WRITE;
	if (head)
		add_edge(f, 0, head);
	if (tail)
		add_edge(f, 1, tail);
	f->bio.done = write_done;
	f->bio.op = BDEV_WRITE;
	f->bio.flags = 0;
	f->bio.iov = head ? f->iov : f->iov + 1;
	f->bio.iovcnt = f->nr_iov + (head != 0) + (tail != 0);
	f->bio.offset_blocks = cluster_block(s, f->own) + f->in_block - (head >> s->block_shift);
	f->bio.nr_blocks = f->nr_blocks + ((head + tail) >> s->block_shift);
	if (!BLOB_MUTANT(SNAPSHOT_PASSES_SIBLING) || !f->own_held || f->first_sub % 2 ||
	    fiber_spawn(s->owner, "mutant", write_slowly, f))
		bdev_submit(s->bch, &f->bio);
	if (records_early(f) && !f->in_place)
		fill_record(f, look_up(f));
}
