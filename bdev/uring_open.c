/*
 * Making a uring device: opens the file or block device and finds out what it can: direct I/O and its alignment, the sizes,
 * a volatile cache, discarding.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "bdev/leaf.h"
#include "bdev/uring.h"

/* Reads a line of a block device's queue/ in sysfs; a partition's is its disk's.  Return: whether there is one. */
static bool queue_attr(dev_t rdev, const char *attr, char *ret_text, size_t size)
{
	static const char *const forms[] = { "/sys/dev/block/%u:%u/queue/%s", "/sys/dev/block/%u:%u/../queue/%s" };
	char path[256];
	bool ok = false;

	for (unsigned i = 0; i < 2 && !ok; i++) {
		FILE *f;

		snprintf(path, sizeof(path), forms[i], major(rdev), minor(rdev), attr);
		f = fopen(path, "re");
		if (!f)
			continue;
		ok = fgets(ret_text, size, f);
		fclose(f);
	}
	return ok;
}

static bool queue_attr_positive(dev_t rdev, const char *attr)
{
	char text[64];

	return queue_attr(rdev, attr, text, sizeof(text)) && strtoull(text, NULL, 10) > 0;
}

/* What direct I/O demands.  Return: whether the file has direct I/O that suits blocks of block_size. */
static bool direct_alignment(const char *filename, uint32_t block_size, uint32_t *ret_mem_align)
{
	struct statx stx;

	*ret_mem_align = block_size;
#ifdef STATX_DIOALIGN
	if (!syscall(SYS_statx, AT_FDCWD, filename, 0, STATX_DIOALIGN, &stx) && (stx.stx_mask & STATX_DIOALIGN)) {
		if (!stx.stx_dio_offset_align || stx.stx_dio_offset_align > block_size)
			return false;
		if (stx.stx_dio_mem_align)
			*ret_mem_align = stx.stx_dio_mem_align;
		return true;
	}
#endif
	(void)stx;
	return true; /* not said: open() and the first read tell */
}

/* A file system may take O_DIRECT at open and refuse the alignment only when it comes to it. */
static bool direct_read_works(int fd, uint32_t block_size)
{
	void *buf = dma_alloc(block_size, 4096);
	bool ok = buf && pread(fd, buf, block_size, 0) == (ssize_t)block_size;

	dma_free(buf);
	return ok;
}

static int open_file(const struct bdev_uring_opts *opts, uint32_t block_size, uint32_t *ret_mem_align)
{
	int flags = (opts->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	int fd;

	if (direct_alignment(opts->filename, block_size, ret_mem_align)) {
		fd = open(opts->filename, flags | O_DIRECT);
		if (fd >= 0 && direct_read_works(fd, block_size))
			return fd;
		if (fd >= 0)
			close(fd);
		else if (errno != EINVAL)
			return -errno;
	}
	log_notice("%s: no direct I/O here: the page cache is used, and flushed", opts->filename);
	*ret_mem_align = 1;
	fd = open(opts->filename, flags);
	return fd < 0 ? -errno : fd;
}

/*
 * Two writers of one store would ruin it.  The lock has a descriptor of its own, which the ring never refers to: so it is
 * gone as soon as its process is, however that ended.  A block device is also claimed from the kernel, by O_EXCL: nobody mounts it,
 * nor takes it away, and one that is mounted or has a volume on it is not taken.
 */
static int lock_file(const struct bdev_uring_opts *opts, bool is_block, int *ret_fd)
{
	*ret_fd = -1;
	if (opts->read_only)
		return 0;
	*ret_fd = open(opts->filename, O_RDONLY | O_CLOEXEC | (is_block ? O_EXCL : 0));
	if (*ret_fd < 0)
		return -errno;
	if (flock(*ret_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return -EBUSY;
	log_warning("%s: cannot be locked against other writers: %s", opts->filename, strerror(errno));
	return 0;
}

/* A name-based UUID of what the file is, the same after each restart. */
static void identity_uuid(uuid_t uuid, const char *filename, const struct stat *st)
{
	static const uuid_t space = { 0x5d, 0x0a, 0x1c, 0x6e, 0x37, 0x0b, 0x4f, 0x52,
				      0x9b, 0x1e, 0x60, 0x8f, 0x3c, 0x21, 0xd4, 0x77 };
	char *path = realpath(filename, NULL);
	char text[4096 + 32];

	snprintf(text, sizeof(text), "%s:%lu", path ? path : filename,
		 S_ISBLK(st->st_mode) ? 0ul : (unsigned long)st->st_ino);
	uuid_generate_sha1(uuid, space, text, strlen(text));
	free(path);
}

static void describe_block(struct uring_bdev *u, dev_t rdev)
{
	char text[64];
	bool cached = !queue_attr(rdev, "write_cache", text, sizeof(text)) || strncmp(text, "write through", 13);
	unsigned physical = 0;

	/* Without O_DIRECT the page cache is a volatile cache, whatever the drive has. */
	u->bdev.has_write_cache = cached || u->mem_align == 1;
	u->punch_zeroes = u->zero_range = queue_attr_positive(rdev, "write_zeroes_max_bytes");
	u->discard_by_ioctl = !u->punch_zeroes;
	u->bdev.unmap_zeroes = u->punch_zeroes;
	if (!ioctl(u->fd, BLKPBSZGET, &physical) && physical > u->bdev.block_size)
		u->bdev.optimal_blocks = physical / u->bdev.block_size;
	if (queue_attr(rdev, "discard_granularity", text, sizeof(text)))
		u->bdev.unmap_granularity_blocks = strtoul(text, NULL, 10) / u->bdev.block_size;
}

/* Of a file what it is; of a drive which appearance of it: a drive pulled and put back may have lost its cache. */
static uint64_t identity(const struct uring_bdev *u, const char *filename)
{
	uint64_t seq = 0, id = 0xcbf29ce484222325ull;
	struct statx stx;
	uint64_t of[5];

	if (u->is_block)
		return ioctl(u->fd, BLKGETDISKSEQ, &seq) ? 0 : seq;
	if (statx(AT_FDCWD, filename, 0, STATX_INO | STATX_BTIME, &stx))
		return 0;
	of[0] = (uint64_t)stx.stx_dev_major << 32 | stx.stx_dev_minor;
	of[1] = stx.stx_ino;
	of[2] = stx.stx_mask & STATX_BTIME ? (uint64_t)stx.stx_btime.tv_sec : 0;
	of[3] = stx.stx_mask & STATX_BTIME ? stx.stx_btime.tv_nsec : 0;
	of[4] = 1;
	for (unsigned i = 0; i < sizeof(of); i++) /* FNV-1a */
		id = (id ^ ((const uint8_t *)of)[i]) * 0x100000001b3ull;
	return id ? id : 1;
}

static void describe_file(struct uring_bdev *u, const struct stat *st)
{
	u->bdev.has_write_cache = true;
	u->punch_zeroes = u->zero_range = true;
	u->bdev.unmap_zeroes = true;
	u->bdev.optimal_blocks = st->st_blksize / u->bdev.block_size;
	u->bdev.unmap_granularity_blocks = st->st_blksize / u->bdev.block_size;
	u->bdev.thin = (uint64_t)st->st_blocks * 512 < (uint64_t)st->st_size;
}

static int size_of(struct uring_bdev *u, const struct stat *st, uint64_t *ret_len)
{
	if (!u->is_block) {
		*ret_len = st->st_size;
		return 0;
	}
	return ioctl(u->fd, BLKGETSIZE64, ret_len) ? -errno : 0;
}

/* Block size when none is asked for: the device's, which is also the least. */
static int logical_size(const char *filename, uint32_t *block_size)
{
	int fd = open(filename, O_RDONLY | O_CLOEXEC), logical = 512, rc = 0;

	if (fd < 0)
		return -errno;
	if (ioctl(fd, BLKSSZGET, &logical))
		rc = -errno;
	close(fd);
	if (!rc && !*block_size)
		*block_size = logical;
	return rc ? rc : *block_size < (uint32_t)logical ? -EINVAL : 0;
}

fiber_fn int bdev_uring_create(const struct bdev_uring_opts *opts, struct bdev **ret_bdev)
{
	uint32_t block_size = opts->block_size;
	struct uring_bdev *u;
	uint64_t len = 0;
	struct stat st;
	int rc;

	if (stat(opts->filename, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -EINVAL;
	rc = S_ISBLK(st.st_mode) ? logical_size(opts->filename, &block_size) : 0;
	if (rc)
		return rc;
	if (!block_size)
		block_size = 512;
	rc = leaf_check(opts->name, 1, block_size);
	if (rc)
		return rc;
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->is_block = S_ISBLK(st.st_mode);
	u->lock_fd = -1;
	rc = -ENOMEM;
	u->filename = strdup(opts->filename);
	if (!u->filename)
		goto out_free;
	rc = lock_file(opts, u->is_block, &u->lock_fd);
	if (rc)
		goto out_free;
	rc = u->fd = open_file(opts, block_size, &u->mem_align);
	if (rc < 0)
		goto out_free;
	rc = size_of(u, &st, &len);
	if (rc)
		goto out_close;
	rc = -EINVAL;
	if (len < block_size)
		goto out_close;
	strcpy(u->bdev.name, opts->name);
	if (uuid_is_null(opts->uuid))
		identity_uuid(u->bdev.uuid, opts->filename, &st);
	else
		uuid_copy(u->bdev.uuid, opts->uuid);
	u->bdev.product_name = opts->product_name ? opts->product_name : "URING bdev";
	u->bdev.module = "uring";
	u->bdev.block_size = block_size;
	u->bdev.nr_blocks = len / block_size;
	u->bdev.write_unit_blocks = 1;
	u->bdev.read_only = opts->read_only;
	u->bdev.ops = opts->allow_punch ? &uring_ops : &uring_ops_no_unmap;
	u->bdev.continuity = identity(u, opts->filename);
	if (u->is_block)
		describe_block(u, st.st_rdev);
	else
		describe_file(u, &st);
	/* The only way left to unmap may be one the drive has not got. */
	if (u->is_block && !u->punch_zeroes && !queue_attr_positive(st.st_rdev, "discard_max_bytes"))
		u->bdev.ops = &uring_ops_no_unmap;
	if (!opts->allow_punch)
		u->punch_zeroes = u->bdev.unmap_zeroes = false;
	rc = bdev_register(&u->bdev);
	if (rc)
		goto out_close;
	if (ret_bdev)
		*ret_bdev = &u->bdev;
	return 0;

out_close:
	close(u->fd);
out_free:
	if (u->lock_fd >= 0)
		close(u->lock_fd);
	free(u->filename);
	free(u);
	return rc;
}

int bdev_uring_rescan(struct bdev *bdev)
{
	struct uring_bdev *u = container_of(bdev, struct uring_bdev, bdev);
	struct stat st;
	uint64_t len;
	int rc;

	assert(strcmp(bdev->module, "uring") == 0);
	if (fstat(u->fd, &st))
		return -errno;
	rc = size_of(u, &st, &len);
	if (rc)
		return rc;
	if (len / bdev->block_size < bdev->nr_blocks && bdev_is_open(bdev))
		return -EBUSY;
	if (len < bdev->block_size)
		return -EINVAL;
	if (len / bdev->block_size != bdev->nr_blocks)
		bdev_notify_resize(bdev, len / bdev->block_size);
	return 0;
}
