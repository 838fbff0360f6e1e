/* What the leaves share when they are made. */
#ifndef BDEV_LEAF_H
#define BDEV_LEAF_H

#include "bdev/bdev.h"

/* 0, -EINVAL for sizes or a name that cannot be, -EEXIST for a name that is taken. */
int leaf_check(const char *name, uint64_t nr_blocks, uint32_t block_size);
/* Copies from, or makes a random one when that is NULL or null. */
void leaf_uuid(uuid_t to, const uuid_t from);
/* Copies between a vector and one buffer of the vector's length. */
void leaf_copy_out(const struct iovec *iov, uint32_t iovcnt, const void *from);
void leaf_copy_in(void *to, const struct iovec *iov, uint32_t iovcnt);

#endif
