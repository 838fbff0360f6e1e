/*
 * The hot path: I/O on a blob, on any thread.
 *
 * Reads, and writes to what is mapped and belongs to the blob alone, are looked up here without locks and go
 * to the device in as many pieces as the map has.  Everything that changes a map goes to the store's owner
 * (fill.c, punch.c).
 *
 *   FREE -> DEVICE   a read or an overwrite; its pieces are at the device, or it waits for requests for more
 * of them
 *        -> OWNER    a first write, unmap, write zeroes; a flush or FUA that must wait for a commit
 *        -> FLUSH    a flush, or a FUA write among many, that waits for its channel's device flush
 *   DEVICE -> OWNER  the map changed under a write of several pieces: the owner writes it again, whole
 *   DEVICE -> FLUSH, and each -> DONE -> FREE
 */
#include "blob/internal.h"

static void req_start(struct req *req, struct blob_io *io);

/* --- channels --- */

static void flush_done(struct bdev_io *bio, int status);

int blob_channel_init(struct blob_channel *ch, struct store *s, uint32_t nr_reqs)
{
	memset(ch, 0, sizeof(*ch));
	ch->store = s;
	ch->thread = thread_current();
	fifo_init(&ch->free);
	fifo_init(&ch->waiting);
	list_init(&ch->flush_waiting);
	list_init(&ch->flush_current);
	list_init(&ch->externals);
	ch->flush_io.done = flush_done;
	ch->bch = bdev_channel_get(s->desc);
	if (!ch->bch)
		return -ENOMEM;
	ch->reqs = calloc(nr_reqs, sizeof(ch->reqs[0]));
	if (!ch->reqs) {
		bdev_channel_put(ch->bch);
		return -ENOMEM;
	}
	ch->nr_reqs = nr_reqs;
	for (uint32_t i = nr_reqs; i-- > 0;) {
		ch->reqs[i].ch = ch;
		fifo_push(&ch->free, &ch->reqs[i].link);
	}
	return 0;
}

void blob_channel_fini(struct blob_channel *ch)
{
	if (ch->bch)
		bdev_channel_put(ch->bch);
	ext_channels_fini(ch);
	for (uint32_t i = 0; i < ch->nr_reqs; i++)
		if (ch->reqs[i].edge)
			dma_free(ch->reqs[i].edge);
	free(ch->reqs);
}

static int channel_create(void *device, void *ctx)
{
	return blob_channel_init(ctx, device, REQS_A_CHANNEL);
}

static void channel_destroy(void *device, void *ctx)
{
	struct blob_channel *ch = ctx;

	assert(!ch->in_flight[0] && !ch->in_flight[1]);
	blob_channel_fini(ch);
}

const struct device_ops blob_channel_ops = {
	.ctx_size = sizeof(struct blob_channel),
	.channel_create = channel_create,
	.channel_destroy = channel_destroy,
};

struct blob_channel *blob_channel_get(struct store *s)
{
	struct channel *channel = channel_get(s);

	return channel ? channel_ctx(channel) : NULL;
}

void blob_channel_put(struct blob_channel *ch)
{
	channel_put(channel_from_ctx(ch));
}

/* --- segments --- */

unsigned blob_iov_slice(const struct iovec *iov, unsigned iovcnt, uint64_t skip, uint64_t bytes,
			struct iovec *out, unsigned max, uint64_t *ret_bytes)
{
	unsigned i = 0, nr = 0;
	uint64_t got = 0;

	while (i < iovcnt && skip >= iov[i].iov_len)
		skip -= iov[i++].iov_len;
	for (; i < iovcnt && nr < max && got < bytes; i++, skip = 0) {
		uint64_t n = iov[i].iov_len - skip;

		if (n > bytes - got)
			n = bytes - got;
		if (!n)
			continue;
		out[nr].iov_base = (char *)iov[i].iov_base + skip;
		out[nr++].iov_len = n;
		got += n;
	}
	*ret_bytes = got;
	return nr;
}

static void iov_zero(const struct iovec *iov, unsigned iovcnt, uint64_t skip, uint64_t bytes)
{
	for (unsigned i = 0; i < iovcnt && bytes; i++) {
		uint64_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n -= skip;
		if (n > bytes)
			n = bytes;
		memset((char *)iov[i].iov_base + skip, 0, n);
		bytes -= n;
		skip = 0;
	}
}

static bool iov_adds_up(const struct blob_io *io, uint64_t bytes)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < io->iovcnt; i++)
		sum += io->iov[i].iov_len;
	return sum == bytes;
}

/* --- completion --- */

static void uncount(struct req *req)
{
	if (req->counted) {
		req->counted = false;
		in_flight_put(req->ch, req->parity);
		if (__builtin_expect(req->drain != NULL, 0))
			drain_over(req);
	}
}

static void req_put(struct req *req)
{
	struct blob_channel *ch = req->ch;
	struct fifo_link *io;

	req->state = REQ_FREE;
	io = fifo_pop(&ch->waiting);
	if (io)
		req_start(req, container_of(io, struct blob_io, link));
	else
		fifo_push_first(&ch->free, &req->link);
}

void req_finish(struct req *req, int status)
{
	struct blob_io *io = req->io;

	if (io->flags & BLOB_IO_FUA)
		req->ch->nr_fua--;
	if (__builtin_expect(req->timed_ticks != 0, 0))
		pace_note(req->ch, clock_ticks() - req->timed_ticks);
	uncount(req);
	req->state = REQ_DONE;
	req_put(req);
	io->done(io, status);
}

static void finish_task(void *arg)
{
	struct req *req = arg;

	req_finish(req, req->status);
}

static void req_finish_later(struct req *req, int status)
{
	req->status = status;
	task_run_later(&req->task, finish_task, req);
}

void req_return(struct req *req, int status)
{
	req->status = status;
	if (req->ch->thread == thread_current())
		task_run_later(&req->task, finish_task, req);
	else
		thread_send(req->ch->thread, finish_task, req);
}

static void req_to_owner(struct req *req)
{
	struct store *s = req->ch->store;

	uncount(req);
	req->state = REQ_OWNER;
	req->ch->nr_slow++;
	if (req->ch->thread == s->owner)
		task_run_later(&req->task, owner_start, req);
	else
		thread_send(s->owner, owner_start, req);
}

/* --- device flushes of a channel --- */

static void flush_failed(void *arg)
{
	store_fail(arg, -EIO, "a device flush failed");
}

static void flush_start(struct blob_channel *ch)
{
	list_splice_tail(&ch->flush_current, &ch->flush_waiting);
	ch->flush_running = true;
	ch->nr_flushes++;
	ch->flush_io.op = BDEV_FLUSH;
	ch->flush_io.offset_blocks = 0;
	ch->flush_io.nr_blocks = 0;
	bdev_submit(ch->bch, &ch->flush_io);
}

static void flush_done(struct bdev_io *bio, int status)
{
	struct blob_channel *ch = container_of(bio, struct blob_channel, flush_io);
	struct list now, *it;

	list_init(&now);
	list_splice_tail(&now, &ch->flush_current);
	ch->flush_running = false;
	if (status) { /* before anybody's next flush: that one's success would not cover what this one lost */
		store_fail_now(ch->store, -EIO);
		thread_send(ch->store->owner, flush_failed, ch->store);
	}
	if (!list_empty(&ch->flush_waiting))
		flush_start(ch);
	while ((it = list_pop(&now)))
		req_finish(list_entry(it, struct req, list), status ? -EIO : 0);
}

/* The next flush that is submitted covers this request; those that come meanwhile share the one after. */
static void flush_join(struct req *req)
{
	struct blob_channel *ch = req->ch;

	req->state = REQ_FLUSH;
	list_add_tail(ch->flush_running && BLOB_MUTANT(FLUSH_JOINS_RUNNING) ? &ch->flush_current : &ch->flush_waiting, &req->list);
	if (!ch->flush_running)
		flush_start(ch);
}

static void start_flush(struct req *req)
{
	struct store *s = req->ch->store;
	int rc = atomic_load_explicit(&s->failed, memory_order_relaxed);

	if (rc) /* a store that was opened read-only has nothing to flush */
		req_finish_later(req, rc == -EROFS ? 0 : rc);
	else if (atomic_load(&s->journal.pending_seq) != atomic_load(&s->journal.committed_seq) &&
		 !BLOB_MUTANT(EARLY_FLUSH_ACK))
		req_to_owner(req);
	else if (!s->has_cache)
		req_finish_later(req, 0);
	else
		flush_join(req);
}

/* --- pieces --- */

/* What of a cluster that is not full a run of sub-blocks is read from. */
static void partial_piece(const struct store *s, const struct entry *e, uint64_t in, struct piece *piece)
{
	uint32_t sub = in / s->blocks_a_sub, last = (in + piece->nr_blocks - 1) / s->blocks_a_sub,
		 next = sub + 1;
	bool own = entry_has(e, sub);
	uint64_t end;

	while (next <= last && entry_has(e, next) == own)
		next++;
	end = (uint64_t)next * s->blocks_a_sub;
	if (end - in < piece->nr_blocks)
		piece->nr_blocks = end - in;
	if (!own && !e->base) {
		piece->kind = e->external ? PIECE_EXTERNAL : PIECE_ZERO;
		return;
	}
	piece->kind = PIECE_DEVICE;
	piece->block = cluster_block(s, own ? e->own : e->base) + in;
}

/* Behind the external bdev's end are zeros; without it nobody knows. */
static void external_piece(const struct external *ext, struct piece *piece)
{
	if (!ext || !atomic_load_explicit(&ext->ready, memory_order_acquire))
		piece->kind = PIECE_LOST;
	else if (!ext_range(ext, piece->block, piece->nr_blocks, &piece->nr_blocks))
		piece->kind = PIECE_ZERO;
}

static void read_piece(struct blob *b, uint64_t offset, uint64_t nr, struct piece *piece)
{
	const struct store *s = b->store;
	uint64_t in = offset & ((1ull << s->cluster_block_shift) - 1),
		 left = (1ull << s->cluster_block_shift) - in;
	struct node *leaf;
	bool shared;
	struct entry e = map_entry(b, offset >> s->cluster_block_shift, &leaf, &shared);

	*piece = (struct piece){.kind = PIECE_ZERO, .block = offset, .nr_blocks = nr < left ? nr : left};
	if (e.full) {
		piece->kind = PIECE_DEVICE;
		piece->block = cluster_block(s, e.own) + in;
	} else if (leaf && leaf->lost) {
		piece->kind = leaf == &map_missing ? PIECE_MISS : PIECE_LOST;
		if (piece->kind == PIECE_LOST) /* it may have been met by another blob first */
			atomic_store_explicit(&b->degraded, true, memory_order_relaxed);
	} else if (e.partial) {
		partial_piece(s, &e, in, piece);
	} else if (e.external) {
		piece->kind = PIECE_EXTERNAL;
	}
	if (piece->kind == PIECE_EXTERNAL)
		external_piece(b->external, piece);
}

/* A write may go straight to the device if its sub-blocks are written in a cluster that nobody else has. */
static void write_piece(const struct blob *b, uint64_t offset, uint64_t nr, bool fua, struct piece *piece)
{
	const struct store *s = b->store;
	uint64_t in = offset & ((1ull << s->cluster_block_shift) - 1),
		 left = (1ull << s->cluster_block_shift) - in;
	uint64_t index = offset >> s->cluster_block_shift;
	bool shared, settled;
	struct node *leaf = map_leaf_settled(b, index, &shared, &settled);
	uint32_t sub = in >> s->sub_block_shift;
	struct entry e;

	*piece = (struct piece){.kind = PIECE_SLOW, .nr_blocks = nr < left ? nr : left};
	if (BLOB_MUTANT(SNAPSHOT_NOT_CAUSAL) && b->draining)
		shared = false;
	if (!leaf || shared || !settled || leaf->lost)
		return;
	e = entry_decode(atomic_load_explicit(&leaf->slots[map_slot(s, index, 0)], memory_order_acquire));
	if (!e.own)
		return;
	if (leaf->maybe_shared && !BLOB_MUTANT(SHARED_IN_PLACE) &&
	    (atomic_load_explicit(&s->counts[e.own], memory_order_acquire) != 1 || !cluster_settled(b->store, e.own)))
		return;
	if (!e.full && !entry_has_range(&e, sub, ((in + piece->nr_blocks - 1) >> s->sub_block_shift) - sub + 1))
		return;
	/* FUA on a mapping that is not durable waits for the commit. */
	if (fua && !BLOB_MUTANT(FUA_ON_VOLATILE_MAP) &&
	    atomic_load_explicit(&leaf->last_seq, memory_order_relaxed) >=
			   atomic_load(&s->journal.committed_seq))
		return;
	/* What maps it may be at work, and be lost if the process died now: the owner's turn comes after its end. */
	if (atomic_load_explicit(&s->journal.in_op, memory_order_acquire))
		return;
	piece->kind = PIECE_DEVICE;
	piece->block = cluster_block(s, e.own) + in;
}

static void pieces_go_on(struct req *req, bool in_submit);

/* Still counted: the owner looks up for it, and what it finds stays. */
static void req_miss(struct req *req)
{
	struct store *s = req->ch->store;

	req->state = REQ_OWNER;
	if (req->ch->thread == s->owner)
		task_run_later(&req->task, owner_start, req);
	else
		thread_send(s->owner, owner_start, req);
}

static void pieces_over(struct req *req, bool in_submit)
{
	if (req->map_miss && !req->status)
		req_miss(req);
	else if (req->go_slow && !req->status)
		req_to_owner(req);
	else if (!req->status && req->group_flush && !BLOB_MUTANT(GROUP_FLUSH_SKIPPED))
		flush_join(req);
	else if (in_submit)
		req_finish_later(req, req->status);
	else
		req_finish(req, req->status);
}

/* Behind the end of a device that is shorter than its store: lost, like what the medium has lost. */
static int device_status(struct req *req, int status)
{
	if (status != -ERANGE)
		return status;
	atomic_store_explicit(&req->io->blob->degraded, true, memory_order_relaxed);
	return -EIO;
}

static void piece_done(struct bdev_io *bio, int status)
{
	struct req *piece = container_of(bio, struct req, bio);
	struct req *req = piece->parent ? piece->parent : piece;
	struct store *s = req->ch->store;

	if (piece->ext)
		ext_end(piece->ext);
	else if (s->csum && !status && !csum_matches(s, bio))
		req->sum_bad = req->go_slow = true;
	if (piece == req) {
		req->bio_busy = false;
	} else {
		piece->parent = NULL;
		req_put(piece);
	}
	if (status && !req->status)
		req->status = device_status(req, status);
	req->pending--;
	if (req->pos < req->io->nr_blocks && !req->status && !req->go_slow)
		pieces_go_on(req, false);
	else if (!req->pending)
		pieces_over(req, false);
}

/* A request whose bdev_io can carry a piece: its own, or one from the pool. */
static struct req *piece_get(struct req *req)
{
	struct fifo_link *link;

	if (!req->bio_busy) {
		req->bio_busy = true;
		req->parent = NULL;
		return req;
	}
	link = fifo_pop(&req->ch->free);
	if (!link)
		return NULL;
	container_of(link, struct req, link)->parent = req;
	return container_of(link, struct req, link);
}

/* 0, or why it cannot be. */
static int piece_submit(struct req *req, struct req *carrier, struct piece *piece)
{
	const struct blob_io *io = req->io;
	struct store *s = req->ch->store;
	struct bdev_io *bio = &carrier->bio;
	uint64_t bytes, mask = (1ull << s->block_shift) - 1;

	bio->iovcnt = blob_iov_slice(io->iov, io->iovcnt, req->pos << s->block_shift,
				     piece->nr_blocks << s->block_shift, carrier->iov,
				     s->csum ? REQ_IOVS - 2 : REQ_IOVS, &bytes);
	while (bytes & mask) { /* segments that end within a block: leave what is over for the next piece */
		struct iovec *last = &carrier->iov[bio->iovcnt - 1];
		uint64_t cut = bytes & mask;

		if (cut < last->iov_len) {
			last->iov_len -= cut;
			bytes -= cut;
		} else {
			bytes -= last->iov_len;
			bio->iovcnt--;
		}
	}
	if (!bytes)
		return -EINVAL;
	bio->done = piece_done;
	bio->iov = carrier->iov;
	bio->op = io->op == BLOB_READ ? BDEV_READ : BDEV_WRITE;
	bio->flags = io->flags & BLOB_IO_FUA && !req->group_flush && !BLOB_MUTANT(FUA_DROPPED) ? BDEV_IO_FUA : 0;
	bio->offset_blocks = piece->block;
	bio->nr_blocks = bytes >> s->block_shift;
	carrier->ext = NULL;
	if (piece->kind == PIECE_EXTERNAL) {
		carrier->ext = ext_begin(req->ch, io->blob->external);
		if (!carrier->ext)
			return -EIO; /* it has just gone */
	} else if (s->csum && csum_read_wrap(carrier)) {
		return -ENOMEM;
	}
	req->pending++;
	req->pos += bytes >> s->block_shift;
	if (carrier->ext)
		ext_submit(carrier->ext, bio);
	else
		bdev_submit(req->ch->bch, bio);
	return 0;
}

static void pieces_go_on(struct req *req, bool in_submit)
{
	struct blob_io *io = req->io;
	struct store *s = req->ch->store;

	while (req->pos < io->nr_blocks && !req->status && !req->go_slow) {
		struct req *carrier;
		struct piece piece;
		int rc;

		if (req->have_piece)
			piece = req->piece;
		else if (io->op == BLOB_READ)
			read_piece(io->blob, io->offset_blocks + req->pos, io->nr_blocks - req->pos, &piece);
		else
			write_piece(io->blob, io->offset_blocks + req->pos, io->nr_blocks - req->pos,
				    io->flags & BLOB_IO_FUA, &piece);
		req->have_piece = false;
		if (piece.kind == PIECE_ZERO) {
			iov_zero(io->iov, io->iovcnt, req->pos << s->block_shift,
				 piece.nr_blocks << s->block_shift);
			req->pos += piece.nr_blocks;
			continue;
		}
		if (piece.kind == PIECE_LOST)
			req->status = -EIO;
		else if (piece.kind == PIECE_MISS)
			req->map_miss = req->go_slow = true;
		else if (piece.kind == PIECE_SLOW ||
			 (piece.kind == PIECE_DEVICE && s->csum && !csum_resident(s, piece.block, piece.nr_blocks)))
			req->go_slow = true;
		if ((piece.kind != PIECE_DEVICE && piece.kind != PIECE_EXTERNAL) || req->go_slow)
			break;
		carrier = piece_get(req);
		if (!carrier) {
			req->ch->nr_pool_waits++;
			break; /* its own bdev_io is under way, and goes on when that is done */
		}
		rc = piece_submit(req, carrier, &piece);
		if (rc) {
			req->status = rc;
			if (carrier == req)
				req->bio_busy = false;
			else
				req_put(carrier);
		}
	}
	if (!req->pending)
		pieces_over(req, in_submit);
}

/* --- start --- */

static void fast_done(struct bdev_io *bio, int status)
{
	struct req *req = container_of(bio, struct req, bio);

	req_finish(req, device_status(req, status));
}

static void fast_sums_done(struct bdev_io *bio, int status)
{
	struct req *req = container_of(bio, struct req, bio);

	if (!status && !csum_matches(req->ch->store, bio)) {
		req->sum_bad = true;
		req_to_owner(req);
		return;
	}
	req_finish(req, device_status(req, status));
}

/* Whether a read of a store with checksums needs nothing but the comparison. */
static bool sums_fast(const struct store *s, const struct blob_io *io, const struct piece *piece)
{
	return io->op == BLOB_READ && !((piece->block | piece->nr_blocks) & (s->blocks_a_sub - 1)) &&
	       csum_resident(s, piece->block, piece->nr_blocks);
}

/* Almost every I/O: one full cluster, nothing to wait for. */
static bool start_fast(struct req *req, struct blob_io *io)
{
	const struct store *s = req->ch->store;
	struct bdev_io *bio = &req->bio;
	struct piece piece;

	if (io->op == BLOB_READ)
		read_piece(io->blob, io->offset_blocks, io->nr_blocks, &piece);
	else
		write_piece(io->blob, io->offset_blocks, io->nr_blocks, false, &piece);
	if (piece.kind == PIECE_SLOW && io->op == BLOB_WRITE) { /* at its beginning, so all of it */
		req_to_owner(req);
		return true;
	}
	if (piece.kind != PIECE_DEVICE || piece.nr_blocks != io->nr_blocks)
		return false;
	if (s->csum && !sums_fast(s, io, &piece))
		return false;
	bio->done = s->csum ? fast_sums_done : fast_done;
	bio->iov = io->iov;
	bio->iovcnt = io->iovcnt;
	bio->op = io->op == BLOB_READ ? BDEV_READ : BDEV_WRITE;
	bio->flags = 0;
	bio->offset_blocks = piece.block;
	bio->nr_blocks = io->nr_blocks;
	bdev_submit(req->ch->bch, bio);
	return true;
}

static void start_data(struct req *req, struct blob_io *io)
{
	struct store *s = req->ch->store;
	int failed = atomic_load_explicit(&s->failed, memory_order_relaxed);

	if (!iov_adds_up(io, io->nr_blocks << s->block_shift)) {
		req_finish_later(req, -EINVAL);
		return;
	}
	if (io->op == BLOB_WRITE &&
	    (failed || atomic_load_explicit(&io->blob->frozen, memory_order_relaxed))) {
		req_finish_later(req, failed == -ENODEV ? failed : -EROFS);
		return;
	}
	req->counted = true;
	req->parity = in_flight_get(req->ch);
	req->state = REQ_DEVICE;
	req->sum_bad = false;
	/* With checksums: whole sub-blocks, one at a time (csum_fill.c). */
	if ((s->csum && io->op == BLOB_WRITE) || io->flags & BLOB_IO_UNSHARE) {
		req_to_owner(req);
		return;
	}
	if (!io->flags && start_fast(req, io))
		return;
	req->pos = 0;
	req->pending = 0;
	req->bio_busy = req->go_slow = req->map_miss = req->have_piece = false;
	/* Many FUA writes at once share device flushes instead of each making the device write through. */
	req->group_flush = io->op == BLOB_WRITE && io->flags & BLOB_IO_FUA && s->has_cache &&
			   req->ch->nr_fua >= FUA_GROUP_FROM;
	pieces_go_on(req, true);
}

/* --- what is not in memory --- */

static void resume_task(void *arg)
{
	struct req *req = arg;

	req->state = REQ_DEVICE;
	req->go_slow = req->map_miss = false;
	pieces_go_on(req, false);
}

static void read_came(struct node_wait *wait, struct node *node, int status)
{
	struct req *req = container_of(wait, struct req, node_wait);

	if (status)
		req->status = status;
	read_missed(req);
}

/* On the owner: the piece for which a node was missing. */
void read_missed(struct req *req)
{
	struct blob_io *io = req->io;
	uint64_t at = io->offset_blocks + req->pos;

	req->node_wait.done = read_came;
	if (!req->status && !map_want(io->blob, at >> req->ch->store->cluster_block_shift, &req->node_wait))
		return;
	if (!req->status) {
		read_piece(io->blob, at, io->nr_blocks - req->pos, &req->piece);
		req->have_piece = true;
		if (req->piece.kind == PIECE_MISS)
			req->status = -ENOMEM; /* for a node that is lost */
	}
	if (req->ch->thread == thread_current())
		task_run_later(&req->task, resume_task, req);
	else
		thread_send(req->ch->thread, resume_task, req);
}

static void restart_task(void *arg)
{
	struct req *req = arg;

	start_data(req, req->io);
}

void req_restart(struct req *req)
{
	if (req->ch->thread == thread_current())
		task_run_later(&req->task, restart_task, req);
	else
		thread_send(req->ch->thread, restart_task, req);
}

static void req_start(struct req *req, struct blob_io *io)
{
	struct blob_channel *ch = req->ch;
	uint64_t size = blob_nr_blocks(io->blob);

	req->io = io;
	req->status = 0;
	req->counted = false;
	req->timed_ticks = atomic_load_explicit(&ch->store->timing, memory_order_relaxed) ? clock_ticks() : 0;
	if (io->op >= BLOB_NR_OPS) {
		io->flags = 0;
		req_finish_later(req, -ENOTSUP);
		return;
	}
	if (io->flags & BLOB_IO_FUA)
		ch->nr_fua++;
	ch->nr_ops[io->op]++;
	if (io->op == BLOB_FLUSH)
		start_flush(req);
	else if (io->nr_blocks > size || io->offset_blocks > size - io->nr_blocks)
		req_finish_later(req, -ERANGE);
	else if (!io->nr_blocks)
		req_finish_later(req, 0);
	else if (io->op == BLOB_READ || io->op == BLOB_WRITE)
		start_data(req, io);
	else if (io->blob->frozen)
		req_finish_later(req, -EROFS);
	else
		req_to_owner(req);
}

void blob_submit(struct blob_channel *ch, struct blob_io *io)
{
	struct fifo_link *link = fifo_pop(&ch->free);

	io->channel = ch;
	if (__builtin_expect(!link, 0)) {
		ch->nr_pool_waits++;
		fifo_push(&ch->waiting, &io->link);
		return;
	}
	req_start(container_of(link, struct req, link), io);
}

struct submit_wait {
	struct blob_io io;
	struct fiber_wait wait;
};

static void submit_done(struct blob_io *io, int status)
{
	fiber_wake(&container_of(io, struct submit_wait, io)->wait, status);
}

fiber_fn int blob_submit_wait(struct blob_channel *ch, struct blob_io *io)
{
	struct submit_wait w = {.io = *io};

	w.io.done = submit_done;
	fiber_wait_init(&w.wait);
	blob_submit(ch, &w.io);
	return fiber_wait(&w.wait);
}
