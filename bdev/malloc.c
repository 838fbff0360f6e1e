/*
 * A device of memory: one mapping, shared by all threads.  An operation is done within its submit, by copying; completions
 * of one turn are given back together.
 *
 * To give memory back takes the kernel long: large unmaps, and the end of a device, do it in slices, one or two a turn.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bdev/leaf.h"

#define PAGE	      4096u
#define UNMAP_MADVISE (256u * 1024) /* from here on, pages are given back instead of being filled */
#define SLICE	      (2ull << 20)  /* of small pages some 0.2 ms; the size of a large one */

/* Owner: app thread; memory is shared by all. */
struct malloc_bdev {
	struct bdev bdev;
	char *memory;
	size_t len;
	uint32_t block_shift;
	struct task task; /* its end */
};

/* Owner: its thread. */
struct malloc_channel {
	struct malloc_bdev *m;
	struct fifo zeroing; /* bdev_io.leaf_link: large ones, in order; how far the first is stands in its scratch */
	struct task task;
};

static void zero(char *p, uint64_t len)
{
	char *first = (char *)(((uintptr_t)p + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
	char *last = (char *)((uintptr_t)(p + len) & ~(uintptr_t)(PAGE - 1));

	if (len < UNMAP_MADVISE || madvise(first, last - first, MADV_DONTNEED)) {
		memset(p, 0, len);
		return;
	}
	memset(p, 0, first - p);
	memset(last, 0, p + len - last);
}

/* A slice of the first. */
static void zero_turn(void *arg)
{
	struct malloc_channel *ch = arg;
	struct bdev_io *io = container_of(ch->zeroing.head, struct bdev_io, leaf_link);
	uint64_t len = io->nr_blocks << ch->m->block_shift, done;

	memcpy(&done, io->scratch.bytes, sizeof(done));
	zero(ch->m->memory + (io->offset_blocks << ch->m->block_shift) + done, len - done < SLICE ? len - done : SLICE);
	done += SLICE;
	memcpy(io->scratch.bytes, &done, sizeof(done));
	if (done >= len) {
		fifo_pop(&ch->zeroing);
		bdev_io_complete_later(io, 0);
	}
	if (!fifo_empty(&ch->zeroing))
		task_run_later(&ch->task, zero_turn, ch);
}

static void zero_later(struct malloc_channel *ch, struct bdev_io *io)
{
	const uint64_t done = 0;

	memcpy(io->scratch.bytes, &done, sizeof(done));
	if (fifo_empty(&ch->zeroing))
		task_run_later(&ch->task, zero_turn, ch);
	fifo_push(&ch->zeroing, &io->leaf_link);
}

static void malloc_submit(struct bdev_io *io, void *channel_ctx)
{
	struct malloc_channel *ch = channel_ctx;
	struct malloc_bdev *m = ch->m;
	char *p = m->memory + (io->offset_blocks << m->block_shift);
	uint64_t len = io->nr_blocks << m->block_shift;
	int status = 0;

	switch (io->op) {
	case BDEV_READ:
		leaf_copy_out(io->iov, io->iovcnt, p);
		break;
	case BDEV_WRITE:
		leaf_copy_in(p, io->iov, io->iovcnt);
		break;
	case BDEV_UNMAP:
	case BDEV_WRITE_ZEROES:
		if (len > SLICE) {
			zero_later(ch, io);
			return;
		}
		zero(p, len);
		break;
	case BDEV_COMPARE:
		status = bdev_iov_equals(io->iov, io->iovcnt, 0, p, len) ? 0 : -EILSEQ;
		break;
	case BDEV_FLUSH:
		break;
	default:
		status = -ENOTSUP;
	}
	bdev_io_complete_later(io, status);
}

static int malloc_channel_create(struct bdev *bdev, void *channel_ctx)
{
	struct malloc_channel *ch = channel_ctx;

	ch->m = container_of(bdev, struct malloc_bdev, bdev);
	fifo_init(&ch->zeroing);
	return 0;
}

/* From the end, at the borders of large pages. */
static void destroy_turn(void *arg)
{
	struct malloc_bdev *m = arg;
	uintptr_t begin = (uintptr_t)m->memory, end = begin + m->len, cut = (end - 1) & ~(uintptr_t)(SLICE - 1);

	if (!m->len) {
		bdev_destroy_done(&m->bdev);
		free(m);
		return;
	}
	cut = cut > begin ? cut : begin;
	munmap((void *)cut, end - cut);
	m->len = cut - begin;
	task_run_later(&m->task, destroy_turn, m);
}

static void malloc_destroy(struct bdev *bdev)
{
	destroy_turn(container_of(bdev, struct malloc_bdev, bdev));
}

static const struct bdev_ops malloc_ops = {
	.submit = malloc_submit,
	.destroy = malloc_destroy,
	.channel_create = malloc_channel_create,
	.channel_ctx_size = sizeof(struct malloc_channel),
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP | 1u << BDEV_WRITE_ZEROES |
		     1u << BDEV_COMPARE,
};

int bdev_malloc_create(const char *name, const uuid_t uuid, uint64_t nr_blocks, uint32_t block_size, struct bdev **ret_bdev)
{
	struct malloc_bdev *m;
	int rc;

	rc = leaf_check(name, nr_blocks, block_size);
	if (rc)
		return rc;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->len = nr_blocks * block_size;
	/* Mapped rather than from the DMA budget: nothing but the CPU touches it, and pages come when first used. */
	m->memory = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->memory == MAP_FAILED) {
		rc = -ENOMEM;
		goto out_free;
	}
	madvise(m->memory, m->len, MADV_HUGEPAGE);
	m->block_shift = __builtin_ctz(block_size);
	strcpy(m->bdev.name, name);
	leaf_uuid(m->bdev.uuid, uuid);
	m->bdev.product_name = "Malloc disk";
	m->bdev.module = "malloc";
	m->bdev.block_size = block_size;
	m->bdev.nr_blocks = nr_blocks;
	m->bdev.write_unit_blocks = 1;
	m->bdev.unmap_zeroes = true;
	m->bdev.ops = &malloc_ops;
	rc = bdev_register(&m->bdev);
	if (rc)
		goto out_unmap;
	if (ret_bdev)
		*ret_bdev = &m->bdev;
	return 0;

out_unmap:
	munmap(m->memory, m->len);
out_free:
	free(m);
	return rc;
}
