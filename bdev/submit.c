/*
 * The hot path: an operation's way into a device and back.  Checks, one look at the range locks, the device; on the way
 * back the counters and the submitter's done.  Nothing here allocates, locks or blocks unless a range lock is held.
 */
#include <assert.h>
#include <errno.h>

#include "bdev/internal.h"

static uint64_t iov_bytes(const struct iovec *iov, uint32_t iovcnt)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < iovcnt; i++)
		n += iov[i].iov_len;
	return n;
}

static int copy_check(const struct bdev_io *io, uint64_t nr_blocks)
{
	if (io->from_blocks > nr_blocks - io->nr_blocks)
		return -ERANGE;
	/* No order of pieces would be right for all who overlap: what they mean is not guessed. */
	return ranges_overlap(io->from_blocks, io->nr_blocks, io->offset_blocks, io->nr_blocks) ? -EINVAL : 0;
}

/* Return: 0, or why the operation cannot be. */
static inline int io_check(const struct bdev_channel *ch, const struct bdev_io *io)
{
	const struct bdev *bdev = ch->bdev;
	uint64_t nr_blocks;
	uint32_t bit;

	if (unlikely(io->op >= BDEV_NR_OPS))
		return -ENOTSUP;
	bit = OP_BIT(io->op);
	if (unlikely(!(ch->core->supported & bit)))
		return -ENOTSUP;
	if (bit & OP_BIT(BDEV_FLUSH))
		return 0;
	nr_blocks = __atomic_load_n(&bdev->nr_blocks, __ATOMIC_RELAXED);
	if (unlikely(io->nr_blocks > nr_blocks || io->offset_blocks > nr_blocks - io->nr_blocks))
		return -ERANGE;
	if (unlikely((bit & OPS_CHANGE) && bdev->read_only))
		return -EROFS;
	if (bit & OPS_DATA) {
		uint64_t len = io->nr_blocks * ch->block_size;

		if (unlikely(iov_bytes(io->iov, io->iovcnt) != len))
			return -EINVAL;
		if (unlikely(io->op == BDEV_COMPARE_AND_WRITE && iov_bytes(io->compare_iov, io->compare_iovcnt) != len))
			return -EINVAL;
	}
	return unlikely(io->op == BDEV_COPY) ? copy_check(io, nr_blocks) : 0;
}

void bdev_submit_dispatch(struct bdev_channel *ch, struct bdev_io *io)
{
	uint32_t bit = OP_BIT(io->op);

	if (unlikely(__atomic_load_n(&ch->core->nr_locks, __ATOMIC_RELAXED)) && (bit & OPS_LOCKED) &&
	    range_lock_holds_back(ch, io))
		return;
	if (likely(ch->native & bit))
		ch->submit(io, ch->leaf_ctx);
	else if (io->op == BDEV_FLUSH)
		bdev_io_complete_later(io, 0); /* a device without a cache has nothing to flush */
	else
		emulate_start(ch, io);
}

void bdev_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	int rc;

	assert(ch->thread == thread_current());
	assert(!(io->flags & IO_CORE));
	io->channel = ch;
	io->start_ticks = clock_ticks();
	io->in_flight = true;
	__atomic_store_n(&ch->nr_submitted, ch->nr_submitted + 1, __ATOMIC_RELAXED);
	list_add_tail(&ch->in_flight, &io->link);
	rc = io_check(ch, io);
	if (unlikely(rc || (!io->nr_blocks && io->op != BDEV_FLUSH))) {
		io->flags |= IO_IDLE;
		bdev_io_complete_later(io, rc);
		return;
	}
	bdev_submit_dispatch(ch, io);
}

void bdev_io_complete(struct bdev_io *io, int status)
{
	struct bdev_channel *ch = io->channel;

	if (unlikely(io->flags & IO_CHILD)) {
		io->done(io, status);
		return;
	}
	io->link.prev->next = io->link.next;
	io->link.next->prev = io->link.prev;
	if (unlikely(!list_empty(&ch->drains)) && io->op < BDEV_NR_OPS)
		range_lock_write_done(ch, io);
	if (likely(io->op < BDEV_NR_OPS))
		bdev_channel_account(ch, io, status);
	__atomic_store_n(&ch->nr_completed, ch->nr_completed + 1, __ATOMIC_RELAXED);
	io->flags &= ~IO_CORE;
	io->in_flight = false;
	io->done(io, status);
}

void bdev_abort(struct bdev_channel *ch, struct bdev_io *io)
{
	assert(ch->thread == thread_current());
	if (!io->in_flight || io->channel != ch)
		return;
	if (range_lock_abort(ch, io) || emulate_abort(ch, io)) {
		io->flags |= IO_IDLE;
		list_add_tail(&ch->in_flight, &io->link);
		bdev_io_complete_later(io, -ECANCELED);
		return;
	}
	if (!(io->flags & IO_EMULATED) && ch->bdev->ops->abort)
		ch->bdev->ops->abort(io, ch->leaf_ctx);
}

/* --- fibers' way --- */

struct waiting_io {
	struct bdev_io io;
	struct fiber_wait wait;
};


static void waiting_done(struct bdev_io *io, int status)
{
	fiber_wake(&container_of(io, struct waiting_io, io)->wait, status);
}

static fiber_fn int submit_and_wait(struct bdev_channel *ch, struct waiting_io *w)
{
	w->io.done = waiting_done;
	fiber_wait_init(&w->wait);
	bdev_submit(ch, &w->io);
	return fiber_wait(&w->wait);
}

fiber_fn int bdev_submit_wait(struct bdev_channel *ch, struct bdev_io *io)
{
	struct waiting_io w = { .io = *io };

	return submit_and_wait(ch, &w);
}

static fiber_fn int rw_wait(struct bdev_channel *ch, struct bdev_io io, void *buf)
{
	struct iovec iov = { buf, io.nr_blocks * ch->block_size };
	struct waiting_io w = { .io = io };

	w.io.iov = &iov;
	w.io.iovcnt = 1;
	return submit_and_wait(ch, &w);
}

fiber_fn int bdev_read(struct bdev_channel *ch, void *buf, uint64_t offset_blocks, uint64_t nr_blocks)
{
	return rw_wait(ch, (struct bdev_io){ .op = BDEV_READ, .offset_blocks = offset_blocks, .nr_blocks = nr_blocks }, buf);
}

fiber_fn int bdev_write(struct bdev_channel *ch, const void *buf, uint64_t offset_blocks, uint64_t nr_blocks, unsigned flags)
{
	return rw_wait(ch,
		       (struct bdev_io){ .op = BDEV_WRITE,
					 .flags = flags,
					 .offset_blocks = offset_blocks,
					 .nr_blocks = nr_blocks },
		       (void *)buf);
}

fiber_fn int bdev_flush(struct bdev_channel *ch)
{
	struct waiting_io w = { .io = { .op = BDEV_FLUSH } };

	return submit_and_wait(ch, &w);
}

fiber_fn int bdev_unmap(struct bdev_channel *ch, uint64_t offset_blocks, uint64_t nr_blocks)
{
	struct waiting_io w = { .io = { .op = BDEV_UNMAP, .offset_blocks = offset_blocks, .nr_blocks = nr_blocks } };

	return submit_and_wait(ch, &w);
}
