/* The null device: writes go nowhere, reads give zeroes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/leaf.h"

static void null_submit(struct bdev_io *io, void *channel_ctx)
{
	if (io->op == BDEV_READ) {
		for (uint32_t i = 0; i < io->iovcnt; i++)
			memset(io->iov[i].iov_base, 0, io->iov[i].iov_len);
	}
	bdev_io_complete_later(io, 0);
}

static void null_destroy(struct bdev *bdev)
{
	bdev_destroy_done(bdev);
	free(bdev);
}

static const struct bdev_ops null_ops = {
	.submit = null_submit,
	.destroy = null_destroy,
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP | 1u << BDEV_WRITE_ZEROES,
};

int bdev_null_create(const char *name, const uuid_t uuid, uint64_t nr_blocks, uint32_t block_size, struct bdev **ret_bdev)
{
	struct bdev *bdev;
	int rc;

	rc = leaf_check(name, nr_blocks, block_size);
	if (rc)
		return rc;
	bdev = calloc(1, sizeof(*bdev));
	if (!bdev)
		return -ENOMEM;
	strcpy(bdev->name, name);
	leaf_uuid(bdev->uuid, uuid);
	bdev->product_name = "Null disk";
	bdev->module = "null";
	bdev->block_size = block_size;
	bdev->nr_blocks = nr_blocks;
	bdev->write_unit_blocks = 1;
	bdev->unmap_zeroes = true;
	bdev->ops = &null_ops;
	rc = bdev_register(bdev);
	if (rc) {
		free(bdev);
		return rc;
	}
	if (ret_bdev)
		*ret_bdev = bdev;
	return 0;
}
