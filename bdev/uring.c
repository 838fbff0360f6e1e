/*
 * Files and block devices through the reactor's ring: O_DIRECT where the file system has it, else buffered.
 *
 * Flushes are shared: those that come while a fdatasync runs wait for the next, which covers them all.  A write with FUA
 * that is alone goes out with RWF_DSYNC; one that has company goes out plain and then joins a shared flush, so that many
 * cost few.  States of an operation:
 *   MOVING    read or write under way; short -> MOVING with the rest; FUA in company -> FLUSHING; otherwise ends
 *   CHANGING  fallocate or discard under way; FUA -> FLUSHING; otherwise ends
 *   FLUSHING  waits for a fdatasync that was submitted after it came here; then ends
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bdev/leaf.h"
#include "bdev/uring.h"

#define IOV_LIMIT 1024u

enum uring_state { URING_MOVING, URING_CHANGING, URING_FLUSHING };

/* Owner: its thread. */
struct uring_channel {
	struct uring_bdev *u;
	struct fifo flush_next;	   /* bdev_io.leaf_link: wait for the next fdatasync */
	struct fifo flush_current; /* wait for the one under way */
	struct ring_op flush_op;
	struct task flush_task;
	bool flushing;		  /* a fdatasync is under way, or its task */
	bool flush_asked;	  /* a flush proper waits, not only writes with FUA */
	unsigned nr_flush_next;	  /* in flush_next */
	unsigned nr_fua;	  /* writes with FUA under way, wherever they are */
	unsigned nr_fua_moving;	  /* of those that will join a flush: still moving */
};

/* In bdev_io.scratch. */
struct uring_io {
	struct ring_op op;
	struct uring_channel *ch;
	void *bounce;	  /* NULL: the submitter's memory is used */
	struct iovec iov; /* what is being moved, when it is one piece */
	uint64_t done_bytes;
	enum uring_state state;
	bool gathered; /* FUA by a shared flush */
};

static_assert(sizeof(struct uring_io) <= BDEV_IO_SCRATCH, "the scratch holds it");

static struct uring_io *uring_io(struct bdev_io *io)
{
	return (struct uring_io *)(void *)io->scratch.bytes;
}

static struct bdev_io *parent(struct uring_io *uio)
{
	return container_of((char *)uio, struct bdev_io, scratch.bytes[0]);
}

static uint64_t len_bytes(const struct uring_io *uio, const struct bdev_io *io)
{
	return io->nr_blocks * uio->ch->u->bdev.block_size;
}

static void flush_consider(struct uring_channel *ch);

static void finish(struct bdev_io *io, int status)
{
	struct uring_io *uio = uring_io(io);

	if (uio->bounce) {
		if (!status && io->op == BDEV_READ)
			leaf_copy_out(io->iov, io->iovcnt, uio->bounce);
		dma_free(uio->bounce);
	}
	if (io->op == BDEV_WRITE && (io->flags & BDEV_IO_FUA))
		uio->ch->nr_fua--;
	if (uio->gathered && uio->state == URING_MOVING) {
		uio->ch->nr_fua_moving--;
		flush_consider(uio->ch);
	}
	switch (status) {
	case 0:
	case -ENOSPC:
	case -EROFS:
		break;
	case -EDQUOT:
	case -EFBIG:
		status = -ENOSPC;
		break;
	case -ENOMEM:
		break;
	default:
		log_warning("%s: operation %u at block %lu, %lu blocks: %s", uio->ch->u->bdev.name, io->op,
			    (unsigned long)io->offset_blocks, (unsigned long)io->nr_blocks, strerror(-status));
		status = -EIO;
	}
	bdev_io_complete(io, status);
}

/* --- flushing --- */

static void flush_start(void *arg);

/*
 * A flush proper starts at once.  Writes with FUA wait until as many of them have moved as are still moving: with many in
 * flight that gathers half of them into one flush, and a lone one waits for nobody.
 */
static void flush_consider(struct uring_channel *ch)
{
	if (ch->flushing || !ch->nr_flush_next || (!ch->flush_asked && ch->nr_flush_next < ch->nr_fua_moving))
		return;
	ch->flushing = true;
	task_run_later(&ch->flush_task, flush_start, ch); /* later in this turn: others of it share it */
}

static void flush_done(struct ring_op *op, int res, bool more)
{
	struct uring_channel *ch = container_of(op, struct uring_channel, flush_op);
	struct fifo_link *e = ch->flush_current.head, *next;

	fifo_init(&ch->flush_current);
	ch->flushing = false;
	flush_consider(ch);
	for (; e; e = next) {
		next = e->next;
		finish(container_of(e, struct bdev_io, leaf_link), res);
	}
}

static void flush_start(void *arg)
{
	struct uring_channel *ch = arg;
	struct fifo_link *e;

	while ((e = fifo_pop(&ch->flush_next)))
		fifo_push(&ch->flush_current, e);
	ch->nr_flush_next = 0;
	ch->flush_asked = false;
	ch->flush_op.done = flush_done;
	__atomic_fetch_add(&ch->u->nr_flushes, 1, __ATOMIC_RELAXED);
	ring_fdatasync(&ch->flush_op, ch->u->fd);
}

/* Completes the operation after a fdatasync submitted from now on. */
static void flush_join(struct bdev_io *io)
{
	struct uring_channel *ch = uring_io(io)->ch;

	uring_io(io)->state = URING_FLUSHING;
	fifo_push(&ch->flush_next, &io->leaf_link);
	ch->nr_flush_next++;
	if (io->op != BDEV_WRITE)
		ch->flush_asked = true;
	flush_consider(ch);
}

/* --- moving data --- */

static void move_done(struct ring_op *op, int res, bool more);

static bool aligned(const struct uring_bdev *u, const struct bdev_io *io)
{
	uintptr_t bits = 0;

	if (io->iovcnt > IOV_LIMIT)
		return false;
	for (uint32_t i = 0; i < io->iovcnt; i++)
		bits |= (uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len;
	return !(bits & (u->mem_align - 1));
}

static int bounce_take(struct bdev_io *io)
{
	struct uring_io *uio = uring_io(io);

	uio->bounce = dma_alloc(len_bytes(uio, io), 4096);
	if (!uio->bounce)
		return -ENOMEM;
	if (io->op == BDEV_WRITE)
		leaf_copy_in(uio->bounce, io->iov, io->iovcnt);
	return 0;
}

static void move(struct bdev_io *io)
{
	struct uring_io *uio = uring_io(io);
	struct uring_bdev *u = uio->ch->u;
	uint64_t offset = io->offset_blocks * u->bdev.block_size + uio->done_bytes;
	const struct iovec *iov = io->iov;
	uint32_t iovcnt = io->iovcnt;
	bool dsync = (io->flags & BDEV_IO_FUA) && !uio->gathered;

	if (uio->bounce || uio->done_bytes) {
		char *base = uio->bounce ? uio->bounce : io->iov[0].iov_base;

		uio->iov = (struct iovec){ base + uio->done_bytes, len_bytes(uio, io) - uio->done_bytes };
		iov = &uio->iov;
		iovcnt = 1;
	}
	if (dsync)
		__atomic_fetch_add(&u->nr_dsyncs, 1, __ATOMIC_RELAXED);
	uio->state = URING_MOVING;
	uio->op.done = move_done;
	if (io->op == BDEV_READ)
		ring_readv(&uio->op, u->fd, iov, iovcnt, offset);
	else
		ring_writev(&uio->op, u->fd, iov, iovcnt, offset, dsync ? RWF_DSYNC : 0);
}

static void move_done(struct ring_op *op, int res, bool more)
{
	struct uring_io *uio = container_of(op, struct uring_io, op);
	struct bdev_io *io = parent(uio);

	if (res <= 0) {
		finish(io, res < 0 ? res : -EIO); /* 0: somebody cut the file off behind us */
		return;
	}
	uio->done_bytes += res;
	if (uio->done_bytes < len_bytes(uio, io)) {
		int rc = 0;

		if (io->iovcnt > 1 && !uio->bounce) {
			uio->done_bytes = 0; /* once more, in one piece */
			rc = bounce_take(io);
		}
		if (rc)
			finish(io, rc);
		else
			move(io);
	} else if (uio->gathered) {
		uio->ch->nr_fua_moving--;
		flush_join(io);
	} else {
		finish(io, 0);
	}
}

/* --- changing without data --- */

static void change_done(struct ring_op *op, int res, bool more)
{
	struct uring_io *uio = container_of(op, struct uring_io, op);
	struct bdev_io *io = parent(uio);
	struct uring_bdev *u = uio->ch->u;

	if (res == -EOPNOTSUPP || res == -ENOTSUP) {
		if (io->op == BDEV_WRITE_ZEROES) {
			__atomic_store_n(&u->zero_range, false, __ATOMIC_RELAXED);
			bdev_emulate(io);
		} else {
			bdev_io_complete(io, -ENOTSUP);
		}
	} else if (res < 0) {
		finish(io, res);
	} else if (io->flags & BDEV_IO_FUA) {
		flush_join(io);
	} else {
		finish(io, 0);
	}
}

void uring_discarded(struct bdev_io *io, int res)
{
	change_done(&uring_io(io)->op, res, false);
}

static void change(struct bdev_io *io, int mode)
{
	struct uring_io *uio = uring_io(io);
	struct uring_bdev *u = uio->ch->u;

	uio->state = URING_CHANGING;
	uio->op.done = change_done;
	ring_fallocate(&uio->op, u->fd, mode, io->offset_blocks * u->bdev.block_size, len_bytes(uio, io));
}

static void uring_submit(struct bdev_io *io, void *channel_ctx)
{
	struct uring_channel *ch = channel_ctx;
	struct uring_bdev *u = ch->u;
	struct uring_io *uio = uring_io(io);

	memset(uio, 0, sizeof(*uio));
	uio->ch = ch;
	switch (io->op) {
	case BDEV_WRITE:
		/* The cache of a device that has none needs no flush after the write has been through it. */
		if ((io->flags & BDEV_IO_FUA) && (ch->nr_fua++ || ch->flushing))
			uio->gathered = true;
		/* fall through */
	case BDEV_READ:
		if (unlikely(!aligned(u, io)) && bounce_take(io)) {
			if (io->op == BDEV_WRITE && (io->flags & BDEV_IO_FUA))
				ch->nr_fua--;
			bdev_io_complete_later(io, -ENOMEM);
			return;
		}
		ch->nr_fua_moving += uio->gathered;
		move(io);
		return;
	case BDEV_FLUSH:
		flush_join(io);
		return;
	case BDEV_UNMAP:
		if (u->discard_by_ioctl)
			uring_discard(u, io);
		else
			change(io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
		return;
	case BDEV_WRITE_ZEROES:
		if ((io->flags & BDEV_IO_UNMAP_OK) && u->punch_zeroes)
			change(io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
		else if (__atomic_load_n(&u->zero_range, __ATOMIC_RELAXED))
			change(io, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
		else
			bdev_emulate(io);
		return;
	default:
		bdev_io_complete_later(io, -ENOTSUP);
	}
}

static int uring_channel_create(struct bdev *bdev, void *channel_ctx)
{
	struct uring_channel *ch = channel_ctx;

	ch->u = container_of(bdev, struct uring_bdev, bdev);
	fifo_init(&ch->flush_next);
	fifo_init(&ch->flush_current);
	return 0;
}

static void uring_destroy(struct bdev *bdev)
{
	struct uring_bdev *u = container_of(bdev, struct uring_bdev, bdev);

	bdev_destroy_done(bdev);
	uring_discard_stop(u);
	close(u->fd);
	if (u->lock_fd >= 0)
		close(u->lock_fd);
	free(u->filename);
	free(u);
}

const struct bdev_ops uring_ops = {
	.submit = uring_submit,
	.destroy = uring_destroy,
	.channel_create = uring_channel_create,
	.channel_ctx_size = sizeof(struct uring_channel),
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP | 1u << BDEV_WRITE_ZEROES,
};

const struct bdev_ops uring_ops_no_unmap = {
	.submit = uring_submit,
	.destroy = uring_destroy,
	.channel_create = uring_channel_create,
	.channel_ctx_size = sizeof(struct uring_channel),
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_WRITE_ZEROES,
};

const char *bdev_uring_filename(const struct bdev *bdev)
{
	return container_of(bdev, struct uring_bdev, bdev)->filename;
}

uint64_t bdev_uring_nr_flushes(const struct bdev *bdev)
{
	return __atomic_load_n(&container_of(bdev, struct uring_bdev, bdev)->nr_flushes, __ATOMIC_RELAXED);
}

uint64_t bdev_uring_nr_dsyncs(const struct bdev *bdev)
{
	return __atomic_load_n(&container_of(bdev, struct uring_bdev, bdev)->nr_dsyncs, __ATOMIC_RELAXED);
}
