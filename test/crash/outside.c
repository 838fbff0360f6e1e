/*
 * The bdevs beside the store's disk: "outside", read-only, which always holds the same bytes and which volumes are cloned from, and
 * "target", which volumes are copied to.  Both answer after a while that the simulation's seed decides.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/leaf.h"
#include "runtime/sim.h"
#include "test/crash/history.h"

struct outside {
	struct bdev bdev;
	char *bytes;
};

/* In bdev_io.scratch. */
struct outside_io {
	struct outside *o;
	struct timer timer;
};

static char *target;

static void outside_timer(void *arg)
{
	struct bdev_io *io = arg;
	const struct outside *o = ((const struct outside_io *)(const void *)io->scratch.bytes)->o;
	char *at = o->bytes + io->offset_blocks * ORACLE_BLOCK;

	if (io->op == BDEV_READ)
		leaf_copy_out(io->iov, io->iovcnt, at);
	else if (io->op == BDEV_WRITE)
		leaf_copy_in(at, io->iov, io->iovcnt);
	else if (io->op == BDEV_WRITE_ZEROES)
		memset(at, 0, io->nr_blocks * ORACLE_BLOCK);
	bdev_io_complete(io, 0);
}

static void outside_submit(struct bdev_io *io, void *channel_ctx)
{
	struct outside_io *oio = (struct outside_io *)(void *)io->scratch.bytes;

	oio->o = *(struct outside **)channel_ctx;
	timer_init(&oio->timer, outside_timer, io);
	timer_arm(&oio->timer, sim_rand() % 40);
}

static int outside_channel_create(struct bdev *bdev, void *channel_ctx)
{
	*(struct outside **)channel_ctx = container_of(bdev, struct outside, bdev);
	return 0;
}

static void outside_destroy(struct bdev *bdev)
{
	struct outside *o = container_of(bdev, struct outside, bdev);

	bdev_destroy_done(bdev);
	free(o->bytes);
	free(o);
}

static const struct bdev_ops outside_ops = {
	.submit = outside_submit,
	.destroy = outside_destroy,
	.channel_create = outside_channel_create,
	.channel_ctx_size = sizeof(struct outside *),
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_WRITE_ZEROES,
};

static int create(const char *name, uint8_t number, uint64_t nr_blocks, bool read_only, char **ret_bytes)
{
	const uuid_t uuid = { 0x6f, 0x75, 0x74, 0x73, 0x69, 0x64, 0x40, 0x65, 0x80, number };
	struct outside *o = calloc(1, sizeof(*o));

	if (!o || !(o->bytes = calloc(nr_blocks, ORACLE_BLOCK)))
		return -ENOMEM;
	strcpy(o->bdev.name, name);
	leaf_uuid(o->bdev.uuid, uuid);
	o->bdev.product_name = "Outside";
	o->bdev.module = "outside";
	o->bdev.block_size = ORACLE_BLOCK;
	o->bdev.nr_blocks = nr_blocks;
	o->bdev.write_unit_blocks = 1;
	o->bdev.read_only = read_only;
	o->bdev.ops = &outside_ops;
	*ret_bytes = o->bytes;
	return bdev_register(&o->bdev);
}

uint64_t outside_blocks(uint64_t max_blocks)
{
	return max_blocks * 3 / 4 - 13;
}

int outside_create(uint64_t max_blocks)
{
	char *bytes;
	int rc = create("outside", 1, outside_blocks(max_blocks), true, &bytes);

	if (!rc)
		oracle_fill_outside(0, outside_blocks(max_blocks), bytes);
	return rc ? rc : create("target", 2, max_blocks, false, &target);
}

char *outside_target(void)
{
	return target;
}
