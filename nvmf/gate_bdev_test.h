/* A bdev that does as it is told: it holds what it is given until the test lets it go. */
#ifndef NVMF_GATE_BDEV_TEST_H
#define NVMF_GATE_BDEV_TEST_H

#ifndef NVMF_FUZZ /* the fuzzer brings its own ck_assert */
#include <check.h>
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "nvmf/internal.h"

#define GATE_BLOCKS 8192u

struct gate {
	struct bdev bdev;
	char *data;
	bool hold; /* keep what comes until gate_open() */
	int fail;  /* every operation ends with this */
	unsigned nr_held, nr_flushes, nr_unmaps, nr_writes;
	uint8_t last_flags;
	int temperature_k;
	uint64_t allocated_blocks;
	struct bdev_io *held[64];
};

static void gate_do(struct gate *gate, struct bdev_io *io)
{
	char *at = gate->data + io->offset_blocks * 512;

	if (gate->fail) {
		bdev_io_complete_later(io, gate->fail);
		return;
	}
	gate->last_flags = io->flags & (BDEV_IO_FUA | BDEV_IO_UNMAP_OK);
	gate->nr_flushes += io->op == BDEV_FLUSH;
	gate->nr_unmaps += io->op == BDEV_UNMAP;
	gate->nr_writes += io->op == BDEV_WRITE;
	for (uint32_t i = 0; i < io->iovcnt && io->op <= BDEV_WRITE; i++) {
		if (io->op == BDEV_READ)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		else
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	if (io->op == BDEV_UNMAP || io->op == BDEV_WRITE_ZEROES)
		memset(at, 0, io->nr_blocks * 512);
	bdev_io_complete_later(io, 0);
}

static void gate_submit(struct bdev_io *io, void *channel_ctx)
{
	struct gate *gate = container_of(bdev_channel_bdev(io->channel), struct gate, bdev);

	if (gate->hold) {
		ck_assert_uint_lt(gate->nr_held, 64);
		gate->held[gate->nr_held++] = io;
	} else {
		gate_do(gate, io);
	}
}

static void gate_abort(struct bdev_io *io, void *channel_ctx)
{
	struct gate *gate = container_of(bdev_channel_bdev(io->channel), struct gate, bdev);

	for (unsigned i = 0; i < gate->nr_held; i++) {
		if (gate->held[i] == io) {
			gate->held[i] = gate->held[--gate->nr_held];
			bdev_io_complete_later(io, -ECANCELED);
			return;
		}
	}
}

static void gate_do_msg(void *arg)
{
	struct bdev_io *io = arg;

	gate_do(container_of(bdev_channel_bdev(io->channel), struct gate, bdev), io);
}

static void gate_destroy(struct bdev *bdev)
{
	struct gate *gate = container_of(bdev, struct gate, bdev);

	bdev_destroy_done(bdev);
	free(gate->data);
	free(gate);
}

static int gate_temperature(struct bdev *bdev)
{
	return container_of(bdev, struct gate, bdev)->temperature_k;
}

static uint64_t gate_allocated_blocks(struct bdev *bdev)
{
	return container_of(bdev, struct gate, bdev)->allocated_blocks;
}

static const struct bdev_ops gate_ops = {
	.submit = gate_submit,
	.abort = gate_abort,
	.destroy = gate_destroy,
	.temperature_k = gate_temperature,
	.allocated_blocks = gate_allocated_blocks,
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP |
		     1u << BDEV_WRITE_ZEROES,
};

static inline struct gate *gate_create(const char *name, bool has_write_cache)
{
	struct gate *gate = calloc(1, sizeof(*gate));

	snprintf(gate->bdev.name, sizeof(gate->bdev.name), "%s", name);
	gate->bdev.product_name = "Gate";
	gate->bdev.module = "test";
	gate->bdev.block_size = 512;
	gate->bdev.nr_blocks = GATE_BLOCKS;
	gate->bdev.write_unit_blocks = 1;
	gate->bdev.has_write_cache = has_write_cache;
	gate->bdev.unmap_zeroes = true;
	gate->bdev.ops = &gate_ops;
	gate->data = calloc(GATE_BLOCKS, 512);
	ck_assert_int_eq(bdev_register(&gate->bdev), 0);
	return gate;
}

/* Lets what was held go, on the threads it came from. */
static inline void gate_open(struct gate *gate, struct nvmf_group *group)
{
	gate->hold = false;
	while (gate->nr_held)
		thread_send(nvmf_group_thread(group), gate_do_msg, gate->held[--gate->nr_held]);
}

#endif
