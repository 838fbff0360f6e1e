/* Files through the ring: data, flush, FUA and its cost, unmap, memory of any alignment. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bdev/testing.h"
#include "runtime/suite.h"

#define BS   512u
#define SIZE (8u * 1024 * 1024)
#define QD   32u

static char path[64];

static void make_file(void)
{
	int fd;

	strcpy(path, "uring_test.XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	close(fd);
}

static void remove_file(void)
{
	unlink(path);
}

static struct bdev *open_file(struct bdev_desc **ret_desc, struct bdev_channel **ret_ch)
{
	const struct bdev_uring_opts opts = { .name = "file", .filename = path, .allow_punch = true };
	struct bdev *bdev;

	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
	ck_assert_uint_eq(bdev->nr_blocks, SIZE / BS);
	ck_assert(bdev->has_write_cache);
	ck_assert_int_eq(bdev_open("file", true, NULL, NULL, ret_desc), 0);
	*ret_ch = bdev_channel_get(*ret_desc);
	ck_assert_ptr_nonnull(*ret_ch);
	return bdev;
}

static void shut(struct bdev_desc *desc, struct bdev_channel *ch)
{
	bdev_channel_put(ch);
	bdev_close(desc);
}

static void contents(void *arg)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	char *buf = aligned_alloc(4096, 64 * BS), *in = aligned_alloc(4096, 64 * BS);
	struct bdev_io io = { .op = BDEV_WRITE_ZEROES, .offset_blocks = 110, .nr_blocks = 5 };
	struct stat before, after;

	open_file(&desc, &ch);
	for (unsigned i = 0; i < 64 * BS; i++)
		buf[i] = i / 7 + i;
	ck_assert_int_eq(bdev_write(ch, buf, 96, 64, 0), 0);
	ck_assert_int_eq(bdev_read(ch, in, 96, 64), 0);
	ck_assert_mem_eq(in, buf, 64 * BS);
	ck_assert_int_eq(bdev_flush(ch), 0);
	stat(path, &before);
	ck_assert_int_eq(bdev_unmap(ch, 96, 64), 0);
	stat(path, &after);
	ck_assert_msg(after.st_blocks < before.st_blocks, "%ld to %ld", (long)before.st_blocks, (long)after.st_blocks);
	ck_assert_int_eq(bdev_read(ch, in, 96, 64), 0);
	ck_assert(all_bytes(in, 64 * BS, 0));
	for (int flags = 0; flags < 4; flags++) {
		ck_assert_int_eq(bdev_write(ch, buf, 96, 64, BDEV_IO_FUA), 0);
		io.flags = flags;
		ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
		ck_assert_int_eq(bdev_read(ch, in, 96, 64), 0);
		ck_assert_mem_eq(in, buf, 14 * BS);
		ck_assert(all_bytes(in + 14 * BS, 5 * BS, 0));
		ck_assert_mem_eq(in + 19 * BS, buf + 19 * BS, 45 * BS);
	}
	ck_assert_int_eq(bdev_read(ch, in, SIZE / BS, 1), -ERANGE);
	free(buf);
	free(in);
	shut(desc, ch);
}

START_TEST(a_file_keeps_what_is_written_and_forgets_what_is_unmapped)
{
	run_real(NULL, contents, NULL);
}
END_TEST

static void unaligned(void *arg)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	char *mem = aligned_alloc(4096, 65536), *in = aligned_alloc(4096, 65536);
	struct iovec iov[3] = { { mem + 1, 700 }, { mem + 1003, 1 }, { mem + 2001, 7 * BS - 701 } };
	struct iovec to[2] = { { in + 3, 1000 }, { in + 2001, 7 * BS - 1000 } };
	struct bdev_io io = { .op = BDEV_WRITE, .iov = iov, .iovcnt = 3, .offset_blocks = 3, .nr_blocks = 7 };
	char want[7 * BS], got[7 * BS];

	open_file(&desc, &ch);
	for (unsigned i = 0; i < 65536; i++)
		mem[i] = i * 3 + i / 256;
	memcpy(want, mem + 1, 700);
	memcpy(want + 700, mem + 1003, 1);
	memcpy(want + 701, mem + 2001, 7 * BS - 701);
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	io.op = BDEV_READ;
	io.iov = to;
	io.iovcnt = 2;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	memcpy(got, in + 3, 1000);
	memcpy(got + 1000, in + 2001, 7 * BS - 1000);
	ck_assert_mem_eq(got, want, sizeof(want));
	free(mem);
	free(in);
	shut(desc, ch);
}

START_TEST(memory_of_any_alignment_will_do)
{
	run_real(NULL, unaligned, NULL);
}
END_TEST

struct fua_run {
	struct bdev_channel *ch;
	struct bdev_io io[QD];
	struct iovec iov[QD];
	unsigned nr_submitted, nr_done, most;
	struct fiber_wait over;
	uint8_t op;
};

static struct fua_run *fua_run;

static void fua_next(struct bdev_io *io)
{
	struct fua_run *r = fua_run;

	io->offset_blocks = 8 * (r->nr_submitted++ % 1000);
	io->flags = r->op == BDEV_WRITE ? BDEV_IO_FUA : 0;
	bdev_submit(r->ch, io);
}

static void fua_done(struct bdev_io *io, int status)
{
	struct fua_run *r = fua_run;

	ck_assert_int_eq(status, 0);
	r->nr_done++;
	if (r->nr_submitted < r->most)
		fua_next(io);
	else if (r->nr_done == r->most)
		fiber_wake(&r->over, 0);
}

/* Keeps QD of them in flight. */
static void keep_busy(struct fua_run *r, uint8_t op, unsigned most, void *mem)
{
	fua_run = r;
	r->op = op;
	r->most = most;
	fiber_wait_init(&r->over);
	for (unsigned i = 0; i < QD; i++) {
		r->iov[i] = (struct iovec){ mem, 8 * BS };
		r->io[i] = (struct bdev_io){ .done = fua_done, .op = op, .iov = &r->iov[i], .iovcnt = 1, .nr_blocks = 8 };
		fua_next(&r->io[i]);
	}
	fiber_wait(&r->over);
}

static void fua_cost(void *arg)
{
	struct fua_run *r = calloc(1, sizeof(*r));
	void *mem = aligned_alloc(4096, 4096);
	struct bdev_desc *desc;
	uint64_t flushes;
	struct bdev *bdev = open_file(&desc, &r->ch);

	keep_busy(r, BDEV_WRITE, 1024, memset(mem, 7, 4096));
	flushes = bdev_uring_nr_flushes(bdev) + bdev_uring_nr_dsyncs(bdev);
	ck_assert_msg(flushes * 8 <= 1024, "%lu flushes for 1024 writes", (unsigned long)flushes);
	ck_assert_uint_gt(flushes, 0);
	shut(desc, r->ch);
	free(r);
	free(mem);
}

START_TEST(fua_at_depth_32_costs_at_most_a_flush_for_eight_writes)
{
	run_real(NULL, fua_cost, NULL);
}
END_TEST

static void flush_cost(void *arg)
{
	struct fua_run *r = calloc(1, sizeof(*r));
	struct bdev_desc *desc;
	struct bdev *bdev = open_file(&desc, &r->ch);
	uint64_t before;

	keep_busy(r, BDEV_FLUSH, 320, NULL);
	ck_assert_uint_le(bdev_uring_nr_flushes(bdev), 320 / 8);
	before = bdev_uring_nr_flushes(bdev);
	ck_assert_int_eq(bdev_flush(r->ch), 0);
	ck_assert_uint_eq(bdev_uring_nr_flushes(bdev), before + 1); /* none is left out */
	shut(desc, r->ch);
	free(r);
}

START_TEST(flushes_that_come_together_share_one)
{
	run_real(NULL, flush_cost, NULL);
}
END_TEST

static void refused(void *arg)
{
	struct bdev_uring_opts opts = { .name = "x", .filename = "/nowhere/at/all" };
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	struct bdev *bdev;
	uuid_t uuid;
	char buf[BS] = { 0 };

	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), -ENOENT);
	opts.filename = "/";
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), -EINVAL);
	opts.filename = path;
	opts.block_size = 1000;
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), -EINVAL);
	opts.block_size = 4096;
	opts.read_only = true;
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
	ck_assert_uint_eq(bdev->nr_blocks, SIZE / 4096);
	ck_assert_str_eq(bdev_uring_filename(bdev), path);
	uuid_copy(uuid, bdev->uuid);
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), -EEXIST);
	ck_assert_int_eq(bdev_open("x", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_int_eq(bdev_write(ch, buf, 0, 1, 0), -EROFS);
	ck_assert(!bdev_supports(bdev, BDEV_UNMAP));
	shut(desc, ch);
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
	ck_assert_msg(uuid_compare(uuid, bdev->uuid) == 0, "the UUID must be the same after a restart");
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	/* One writer. */
	opts.read_only = false;
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
	opts.name = "y";
	ck_assert_int_eq(bdev_uring_create(&opts, NULL), -EBUSY);
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
}

START_TEST(what_is_no_device_is_refused_and_identity_is_stable)
{
	run_real(NULL, refused, NULL);
}
END_TEST

/* A block device of the file.  False: not on this machine, or not for us. */
static bool loop_attach(char device[64], int *ret_fd)
{
	struct loop_config config = { .block_size = BS };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file = open(path, O_RDWR | O_CLOEXEC), nr;
	bool ok = false;

	*ret_fd = -1;
	for (unsigned tries = 0; control >= 0 && !ok && tries < 10; tries++) { /* another may take the free one first */
		nr = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(device, 64, "/dev/loop%d", nr);
		*ret_fd = nr < 0 ? -1 : open(device, O_RDWR | O_CLOEXEC);
		if (*ret_fd < 0)
			break;
		config.fd = (uint32_t)file;
		config.info.lo_flags = LO_FLAGS_AUTOCLEAR; /* gone with its last descriptor */
		ok = !ioctl(*ret_fd, LOOP_CONFIGURE, &config);
		if (!ok)
			close(*ret_fd);
	}
	if (control >= 0)
		close(control);
	close(file);
	return ok;
}

static void claimed(void *arg)
{
	struct bdev_uring_opts opts = { .name = "x" };
	char device[64];
	struct bdev *bdev;
	int fd, other;

	if (!loop_attach(device, &fd))
		return;
	opts.filename = device;
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
	ck_assert_int_eq(open(device, O_RDONLY | O_EXCL | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, EBUSY);
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	other = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);
	ck_assert_int_ge(other, 0);
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), -EBUSY);
	opts.read_only = true;
	ck_assert_int_eq(bdev_uring_create(&opts, &bdev), 0);
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	close(other);
	close(fd);
}

START_TEST(a_block_device_that_is_written_to_is_held_against_the_kernel)
{
	run_real(NULL, claimed, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_file_keeps_what_is_written_and_forgets_what_is_unmapped,
		memory_of_any_alignment_will_do,
		fua_at_depth_32_costs_at_most_a_flush_for_eight_writes,
		flushes_that_come_together_share_one,
		what_is_no_device_is_refused_and_identity_is_stable,
		a_block_device_that_is_written_to_is_held_against_the_kernel,
	};

	return run_suite_within("uring", tests, sizeof(tests) / sizeof(tests[0]), 60, make_file, remove_file);
}
