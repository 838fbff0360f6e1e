/*
 * The device of storebench, terabytes that keep metadata and drop data, and its load: operations on a blob, so many in flight.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bdev/leaf.h"
#include "tools/storebench.h"

#define PAGE  4096u
#define BLOCK 4096u

/* --- the device: pages that were ever written with something --- */

static char *memory;
char *data; /* what the bench writes, and the device drops */
static uint64_t nr_device_pages;
static uint8_t *kept;
static uint64_t data_bytes = 4 * MIB;
static struct bdev_io *held;
bool dead, hold_supers;
uint64_t nr_pages_read, nr_reads;

static void sparse_one(struct bdev_io *io, uint64_t page, char *buf, bool drop)
{
	bool is = kept[page / 8] >> (page % 8) & 1;

	if (io->op == BDEV_READ) {
		if (is)
			memcpy(buf, memory + page * PAGE, PAGE);
		else
			memset(buf, 0, PAGE);
	} else if (!drop || is) {
		memcpy(memory + page * PAGE, buf, PAGE);
		kept[page / 8] |= 1u << (page % 8);
	}
}

static void sparse_submit(struct bdev_io *io, void *channel_ctx)
{
	uint64_t page = io->offset_blocks;

	if (io->op == BDEV_WRITE && hold_supers && (page == 0 || page == MIB / PAGE)) {
		held = io;
		return;
	}
	if (dead) {
		bdev_io_complete_later(io, -EIO);
		return;
	}
	if (io->op == BDEV_READ) {
		nr_reads++;
		nr_pages_read += io->nr_blocks;
	}
	for (uint32_t i = 0; (io->op == BDEV_READ || io->op == BDEV_WRITE) && i < io->iovcnt; i++) {
		char *buf = io->iov[i].iov_base;
		bool drop = buf >= data && buf < data + data_bytes;

		for (size_t at = 0; at < io->iov[i].iov_len; at += PAGE)
			sparse_one(io, page++, buf + at, drop);
	}
	if (io->op == BDEV_UNMAP)
		for (; page < io->offset_blocks + io->nr_blocks; page += 8)
			kept[page / 8] = 0;
	bdev_io_complete_later(io, 0);
}

static void sparse_destroy(struct bdev *bdev)
{
	bdev_destroy_done(bdev);
}

static const struct bdev_ops sparse_ops = {
	.submit = sparse_submit,
	.destroy = sparse_destroy,
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP,
};

int sparse_register(void)
{
	static struct bdev bdev;

	memset(&bdev, 0, sizeof(bdev));
	strcpy(bdev.name, "sparse");
	leaf_uuid(bdev.uuid, NULL);
	bdev.product_name = "Sparse disk";
	bdev.module = "sparse";
	bdev.block_size = BLOCK;
	bdev.nr_blocks = nr_device_pages;
	bdev.write_unit_blocks = 1;
	bdev.unmap_zeroes = true;
	bdev.ops = &sparse_ops;
	return bdev_register(&bdev);
}

int sparse_create(uint64_t bytes)
{
	nr_device_pages = bytes / PAGE;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	kept = calloc(nr_device_pages / 8 + 1, 1);
	data = aligned_alloc(PAGE, data_bytes);
	if (memory == MAP_FAILED || !kept || !data)
		return -ENOMEM;
	memset(data, 0, data_bytes);
	return sparse_register();
}

/* --- I/O at depth --- */

struct run {
	struct blob *blob;
	struct blob_channel *ch;
	uint64_t nr, next, nr_done, places, stride_blocks, rng;
	enum blob_op op;
	enum order order;
	int status;
	struct fiber_wait over;
	struct slot {
		struct run *run;
		struct blob_io io;
		struct iovec iov;
		struct task task;
	} slots[DEPTH];
	unsigned nr_in_flight;
};

static void slot_next(void *arg);

static void slot_done(struct blob_io *io, int status)
{
	struct slot *slot = container_of(io, struct slot, io);
	struct run *r = slot->run;

	r->nr_done++;
	r->nr_in_flight--;
	if (status && !r->status)
		r->status = status;
	slot_next(slot);
}

static uint64_t pick(struct run *r)
{
	r->rng = r->rng * 6364136223846793005ull + 1442695040888963407ull;
	switch (r->order) {
	case RANDOM:
		return (r->rng >> 20) % r->places;
	case ONCE: /* a prime that divides no number of places there is here */
		return (r->next * 2654435761ull + 12345) % r->places;
	default:
		return r->next;
	}
}

static void slot_next(void *arg)
{
	struct slot *slot = arg;
	struct run *r = slot->run;
	uint64_t place;

	if (r->next == r->nr || r->status) {
		if (!r->nr_in_flight)
			fiber_wake(&r->over, r->status);
		return;
	}
	place = pick(r);
	r->next++;
	slot->iov = (struct iovec){ .iov_base = data, .iov_len = PAGE };
	slot->io = (struct blob_io){ .done = slot_done, .blob = r->blob, .op = r->op, .iov = &slot->iov, .iovcnt = 1,
				     .offset_blocks = place * r->stride_blocks, .nr_blocks = 1 };
	r->nr_in_flight++;
	blob_submit(r->ch, &slot->io);
}

uint64_t places_max = UINT64_MAX;

fiber_fn double run(struct blob *blob, struct blob_channel *ch, enum blob_op op, uint64_t nr, uint64_t stride_bytes, enum order order)
{
	struct run *r = calloc(1, sizeof(*r));
	uint64_t start = clock_now_us();
	int rc;

	*r = (struct run){ .blob = blob, .ch = ch, .op = op, .nr = nr, .order = order, .rng = 1,
			   .stride_blocks = stride_bytes / BLOCK };
	r->places = blob_nr_blocks(blob) / r->stride_blocks;
	if (op == BLOB_WRITE && order == RANDOM && r->places > places_max)
		r->places = places_max;
	fiber_wait_init(&r->over);
	for (unsigned i = 0; i < DEPTH && i < nr; i++) {
		r->slots[i].run = r;
		slot_next(&r->slots[i]);
	}
	rc = fiber_wait(&r->over);
	if (rc)
		printf("I/O failed: %s\n", strerror(-rc));
	free(r);
	return nr * 1e6 / (clock_now_us() - start + 1);
}

void device_dies(void)
{
	dead = true;
	hold_supers = false;
	if (held)
		bdev_io_complete_later(held, -EIO);
	held = NULL;
}
