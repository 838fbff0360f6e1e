/*
 * A volume as a bdev: the hot path.  An operation goes straight to its blob, with the blob's request in the scratch of the
 * bdev's.
 */
#include <assert.h>
#include <errno.h>

#include "lvol/internal.h"

/* Owner: its thread. */
struct lvol_channel {
	struct blob_channel *blobs;
	struct blob *blob;
};

static const uint8_t blob_ops[BDEV_NR_OPS] = {
	[BDEV_READ] = BLOB_READ,
	[BDEV_WRITE] = BLOB_WRITE,
	[BDEV_FLUSH] = BLOB_FLUSH,
	[BDEV_UNMAP] = BLOB_UNMAP,
	[BDEV_WRITE_ZEROES] = BLOB_WRITE_ZEROES,
};

static void lvol_done(struct blob_io *bio, int status)
{
	bdev_io_complete(container_of((char *)bio, struct bdev_io, scratch.bytes[0]), status);
}

static void lvol_submit(struct bdev_io *io, void *channel_ctx)
{
	struct lvol_channel *ch = channel_ctx;
	struct blob_io *bio = (struct blob_io *)(void *)io->scratch.bytes;

	bio->done = lvol_done;
	bio->blob = ch->blob;
	bio->iov = io->iov;
	bio->iovcnt = io->iovcnt;
	bio->op = blob_ops[io->op];
	bio->flags = io->flags & BDEV_IO_FUA && io->op != BDEV_READ ? BLOB_IO_FUA : 0;
	bio->offset_blocks = io->offset_blocks;
	bio->nr_blocks = io->nr_blocks;
	blob_submit(ch->blobs, bio);
}

static int lvol_channel_create(struct bdev *bdev, void *channel_ctx)
{
	struct lvol *lvol = container_of(bdev, struct lvol, bdev);
	struct lvol_channel *ch = channel_ctx;

	ch->blob = lvol->blob;
	ch->blobs = blob_channel_get(blob_store(lvol->blob));
	return ch->blobs ? 0 : -ENOMEM;
}

static void lvol_channel_destroy(struct bdev *bdev, void *channel_ctx)
{
	blob_channel_put(((struct lvol_channel *)channel_ctx)->blobs);
}

/* The volume outlives its bdev: who unregistered it goes on with it. */
static void lvol_destroy(struct bdev *bdev)
{
	bdev_destroy_done(bdev);
}

static int lvol_temperature_k(struct bdev *bdev)
{
	struct bdev *base = bdev_find(container_of(bdev, struct lvol, bdev)->store->base_bdev);

	return base && base->ops->temperature_k ? base->ops->temperature_k(base) : 0;
}

static uint64_t lvol_allocated_blocks(struct bdev *bdev)
{
	struct blob_info info;

	blob_get_info(container_of(bdev, struct lvol, bdev)->blob, &info);
	return info.nr_clusters ? info.nr_allocated_clusters * (info.size_bytes / info.nr_clusters / bdev->block_size) : 0;
}

const struct bdev_ops lvol_ops = {
	.submit = lvol_submit,
	.destroy = lvol_destroy,
	.channel_create = lvol_channel_create,
	.channel_destroy = lvol_channel_destroy,
	.channel_ctx_size = sizeof(struct lvol_channel),
	.temperature_k = lvol_temperature_k,
	.allocated_blocks = lvol_allocated_blocks,
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP | 1u << BDEV_WRITE_ZEROES,
};
