/* What the leaves share when they are made, and copying to and from vectors. */
#include <errno.h>
#include <string.h>

#include "bdev/leaf.h"

int leaf_check(const char *name, uint64_t nr_blocks, uint32_t block_size)
{
	if (!name || !*name || strlen(name) >= BDEV_NAME_MAX)
		return -EINVAL;
	if (block_size < 512 || block_size > 65536 || (block_size & (block_size - 1)))
		return -EINVAL;
	if (!nr_blocks || nr_blocks > INT64_MAX / block_size)
		return -EINVAL;
	return bdev_find(name) ? -EEXIST : 0;
}

void leaf_uuid(uuid_t to, const uuid_t from)
{
	if (from && !uuid_is_null(from)) {
		uuid_copy(to, from);
		return;
	}
	rand_bytes(to, sizeof(uuid_t));
	to[6] = (to[6] & 0x0f) | 0x40; /* RFC 4122: version 4, variant 1 */
	to[8] = (to[8] & 0x3f) | 0x80;
}

void leaf_copy_out(const struct iovec *iov, uint32_t iovcnt, const void *from)
{
	const char *p = from;

	for (uint32_t i = 0; i < iovcnt; i++) {
		memcpy(iov[i].iov_base, p, iov[i].iov_len);
		p += iov[i].iov_len;
	}
}

void leaf_copy_in(void *to, const struct iovec *iov, uint32_t iovcnt)
{
	char *p = to;

	for (uint32_t i = 0; i < iovcnt; i++) {
		memcpy(p, iov[i].iov_base, iov[i].iov_len);
		p += iov[i].iov_len;
	}
}
