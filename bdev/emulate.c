/*
 * What the core does for devices that cannot: compare, verify, copy, write zeroes, and for all of them compare-and-write.
 *
 * A channel has a few contexts with a buffer each; operations beyond that queue in order.  States of a context:
 *   LOCKING    compare-and-write waits for its range lock; range_lock_get's callback -> COMPARING
 *   COMPARING  a read of the next piece is under way; equal and more to come -> COMPARING; a compare-and-write whose last
 *              piece was equal -> WRITING; otherwise ends
 *   WRITING    the write of a compare-and-write is under way; then ends
 *   ZEROING    a write of the next piece of zeroes is under way; more to come -> ZEROING; otherwise ends
 *   VERIFYING  a read of the next piece from the medium is under way; more to come -> VERIFYING; otherwise ends
 *   FETCHING   a read of a copy's next piece is under way -> STORING
 *   STORING    its write is under way; more to come -> FETCHING; otherwise ends
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/internal.h"

#define EMUL_BUF_SIZE	 (64u * 1024)
#define EMUL_MAX	 4u
#define EMUL_ZERO_IOVS	 16u
#define EMUL_ZERO_BUFFER EMUL_BUF_SIZE

enum emul_state {
	EMUL_FREE,
	EMUL_LOCKING,
	EMUL_COMPARING,
	EMUL_WRITING,
	EMUL_ZEROING,
	EMUL_VERIFYING,
	EMUL_FETCHING,
	EMUL_STORING,
};

/* Owner: its channel's thread. */
struct emul {
	struct list link; /* bdev_channel.emul_free */
	struct bdev_channel *channel;
	struct bdev_io *parent;
	enum emul_state state;
	uint64_t done_blocks, piece_blocks;
	struct bdev_io child;
	struct iovec iov[EMUL_ZERO_IOVS];
	struct range_lock lock;
	void *buf;
};

static void *zeroes; /* EMUL_ZERO_BUFFER bytes, read by all; made once and kept */

uint32_t emulate_supported(uint32_t native)
{
	uint32_t ops = native;

	if (native & OP_BIT(BDEV_READ))
		ops |= OP_BIT(BDEV_COMPARE) | OP_BIT(BDEV_VERIFY);
	if (native & OP_BIT(BDEV_WRITE))
		ops |= OP_BIT(BDEV_WRITE_ZEROES);
	if ((native & OP_BIT(BDEV_READ)) && (native & OP_BIT(BDEV_WRITE)))
		ops |= OP_BIT(BDEV_COMPARE_AND_WRITE) | OP_BIT(BDEV_COPY);
	return ops | OP_BIT(BDEV_FLUSH);
}

int emulate_prepare(void)
{
	if (!zeroes)
		zeroes = dma_alloc(EMUL_ZERO_BUFFER, 4096);
	return zeroes ? 0 : -ENOMEM;
}

static struct emul *emul_take(struct bdev_channel *ch)
{
	struct list *l = list_pop(&ch->emul_free);
	struct emul *e;

	if (l)
		return list_entry(l, struct emul, link);
	if (ch->nr_emuls == EMUL_MAX)
		return NULL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->buf = dma_alloc(EMUL_BUF_SIZE, 4096);
	if (!e->buf) {
		free(e);
		return NULL;
	}
	list_init(&e->link);
	e->channel = ch;
	ch->nr_emuls++;
	return e;
}

void emulate_free(struct bdev_channel *ch)
{
	struct list *l;

	while ((l = list_pop(&ch->emul_free))) {
		struct emul *e = list_entry(l, struct emul, link);

		dma_free(e->buf);
		free(e);
	}
}

static void emul_end(struct emul *e, int status)
{
	struct bdev_channel *ch = e->channel;
	struct bdev_io *parent = e->parent;
	struct list *l;

	if (parent->op == BDEV_COMPARE_AND_WRITE && e->state != EMUL_LOCKING)
		range_lock_put(&e->lock);
	e->state = EMUL_FREE;
	e->parent = NULL;
	list_add_tail(&ch->emul_free, &e->link);
	/* The next goes through the range locks again: it was not waited for while it was queued. */
	while (!list_empty(&ch->emul_free) && (l = list_pop(&ch->emul_queue))) {
		struct bdev_io *next = list_entry(l, struct bdev_io, link);

		next->flags &= ~(IO_QUEUED | IO_EMULATED);
		list_add_tail(&ch->in_flight, &next->link);
		bdev_submit_dispatch(ch, next);
	}
	bdev_io_complete(parent, status);
}

static void child_submit(struct emul *e, enum bdev_op op, const struct iovec *iov, uint32_t iovcnt)
{
	struct bdev_io *child = &e->child;

	child->op = op;
	child->flags = IO_CHILD | (op == BDEV_WRITE ? e->parent->flags & BDEV_IO_FUA : 0);
	if (e->state == EMUL_VERIFYING)
		child->flags |= BDEV_IO_FUA;
	child->iov = iov;
	child->iovcnt = iovcnt;
	child->offset_blocks = e->done_blocks + (e->state == EMUL_FETCHING ? e->parent->from_blocks : e->parent->offset_blocks);
	child->nr_blocks = e->piece_blocks;
	child->channel = e->channel;
	e->channel->submit(child, e->channel->leaf_ctx);
}

static void read_piece(struct emul *e)
{
	uint32_t block_size = e->channel->block_size;

	e->piece_blocks = e->parent->nr_blocks - e->done_blocks;
	if (e->piece_blocks > EMUL_BUF_SIZE / block_size)
		e->piece_blocks = EMUL_BUF_SIZE / block_size;
	e->iov[0] = (struct iovec){ e->buf, e->piece_blocks * block_size };
	child_submit(e, BDEV_READ, e->iov, 1);
}

static void fetch_piece(struct emul *e)
{
	e->state = EMUL_FETCHING;
	read_piece(e);
}

static void zero_piece(struct emul *e)
{
	uint32_t block_size = e->channel->block_size, iovcnt = 0;
	uint64_t left = e->parent->nr_blocks - e->done_blocks;

	e->piece_blocks = 0;
	while (left && iovcnt < EMUL_ZERO_IOVS) {
		uint64_t nr = left < EMUL_ZERO_BUFFER / block_size ? left : EMUL_ZERO_BUFFER / block_size;

		e->iov[iovcnt++] = (struct iovec){ zeroes, nr * block_size };
		e->piece_blocks += nr;
		left -= nr;
	}
	child_submit(e, BDEV_WRITE, e->iov, iovcnt);
}

/* Whether len bytes at skip_bytes of the vector equal buf. */
bool bdev_iov_equals(const struct iovec *iov, uint32_t iovcnt, uint64_t skip_bytes, const void *buf, uint64_t len_bytes)
{
	const char *p = buf;

	for (uint32_t i = 0; i < iovcnt && len_bytes; i++) {
		uint64_t n = iov[i].iov_len;

		if (skip_bytes >= n) {
			skip_bytes -= n;
			continue;
		}
		n -= skip_bytes;
		if (n > len_bytes)
			n = len_bytes;
		if (memcmp((const char *)iov[i].iov_base + skip_bytes, p, n))
			return false;
		skip_bytes = 0;
		p += n;
		len_bytes -= n;
	}
	return len_bytes == 0;
}

static void compared(struct emul *e)
{
	struct bdev_io *io = e->parent;
	bool cw = io->op == BDEV_COMPARE_AND_WRITE;
	uint32_t block_size = e->channel->block_size;

	if (!bdev_iov_equals(cw ? io->compare_iov : io->iov, cw ? io->compare_iovcnt : io->iovcnt,
			     e->done_blocks * block_size, e->buf, e->piece_blocks * block_size)) {
		emul_end(e, -EILSEQ);
		return;
	}
	e->done_blocks += e->piece_blocks;
	if (e->done_blocks < io->nr_blocks) {
		read_piece(e);
	} else if (cw) {
		e->state = EMUL_WRITING;
		e->done_blocks = 0;
		e->piece_blocks = io->nr_blocks;
		child_submit(e, BDEV_WRITE, io->iov, io->iovcnt);
	} else {
		emul_end(e, 0);
	}
}

/* A piece of the operation is over. */
static void piece_done(struct emul *e, void (*next)(struct emul *e))
{
	e->done_blocks += e->piece_blocks;
	if (e->done_blocks < e->parent->nr_blocks)
		next(e);
	else
		emul_end(e, 0);
}

static void child_done(struct bdev_io *child, int status)
{
	struct emul *e = container_of(child, struct emul, child);

	if (status) {
		emul_end(e, status);
		return;
	}
	switch (e->state) {
	case EMUL_COMPARING:
		compared(e);
		return;
	case EMUL_ZEROING:
		piece_done(e, zero_piece);
		return;
	case EMUL_VERIFYING:
		piece_done(e, read_piece);
		return;
	case EMUL_FETCHING:
		e->state = EMUL_STORING;
		child_submit(e, BDEV_WRITE, e->iov, 1);
		return;
	case EMUL_STORING:
		piece_done(e, fetch_piece);
		return;
	case EMUL_WRITING:
		emul_end(e, 0);
		return;
	default:
		assert(!"a child in no state that has one");
	}
}

static void lock_acquired(struct range_lock *lock, int status)
{
	struct emul *e = container_of(lock, struct emul, lock);

	e->state = EMUL_COMPARING;
	if (status)
		emul_end(e, status);
	else
		read_piece(e);
}

static void emul_begin(struct emul *e, struct bdev_io *io)
{
	e->parent = io;
	e->done_blocks = 0;
	e->child.done = child_done;
	switch (io->op) {
	case BDEV_COMPARE:
		e->state = EMUL_COMPARING;
		read_piece(e);
		return;
	case BDEV_WRITE_ZEROES:
		e->state = EMUL_ZEROING;
		zero_piece(e);
		return;
	case BDEV_VERIFY:
		e->state = EMUL_VERIFYING;
		read_piece(e);
		return;
	case BDEV_COPY:
		fetch_piece(e);
		return;
	default:
		assert(io->op == BDEV_COMPARE_AND_WRITE);
		e->state = EMUL_LOCKING;
		e->lock.channel = e->channel;
		e->lock.offset_blocks = io->offset_blocks;
		e->lock.nr_blocks = io->nr_blocks;
		e->lock.acquired = lock_acquired;
		range_lock_get(&e->lock);
	}
}

void emulate_start(struct bdev_channel *ch, struct bdev_io *io)
{
	struct emul *e = emul_take(ch);

	io->flags |= IO_EMULATED;
	if (e) {
		emul_begin(e, io);
	} else if (ch->nr_emuls) {
		list_del(&io->link);
		io->flags |= IO_QUEUED;
		list_add_tail(&ch->emul_queue, &io->link);
	} else {
		bdev_io_complete_later(io, -ENOMEM);
	}
}

void bdev_emulate(struct bdev_io *io)
{
	assert(OP_BIT(io->op) & OPS_EMULATED);
	emulate_start(io->channel, io);
}

/* Return: whether the operation was queued, and now is on no list. */
bool emulate_abort(struct bdev_channel *ch, struct bdev_io *io)
{
	if (!(io->flags & IO_QUEUED))
		return false;
	io->flags &= ~IO_QUEUED;
	list_del(&io->link);
	return true;
}
