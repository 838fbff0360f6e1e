/* For the tests of this room: a store on a disk with a volatile cache and noise on it, simulated or on memory. */
#ifndef BLOB_TESTING_H
#define BLOB_TESTING_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/crash.h"
#include "bdev/testing.h"
#include "blob/blob.h"
#include "runtime/suite.h"

#define DISK_BYTES    (16u << 20)
#define CLUSTER_BYTES (32u * 1024)
#define BLOCK	      512u

/* What a test works on. */
struct bench {
	struct crash_disk *disk;
	struct bdev *bdev;
	struct store *store;
	struct blob_channel *ch;
	struct store_create_opts create;
	struct store_open_opts open;
	uint32_t disk_bytes;
};

static inline void bench_open(struct bench *b)
{
	struct blob_reason why;
	int rc = store_open("disk", &b->open, &b->store, &why);

	ck_assert_msg(rc == 0, "open: %d %s", rc, why.text);
	b->ch = blob_channel_get(b->store);
	ck_assert_ptr_nonnull(b->ch);
}

static inline void bench_close(struct bench *b)
{
	blob_channel_put(b->ch);
	ck_assert_int_eq(store_close(b->store), 0);
	b->store = NULL;
	b->ch = NULL;
}

static inline void bench_disk(struct bench *b)
{
	struct crash_disk_opts opts = { .nr_blocks = (b->disk_bytes ? b->disk_bytes : DISK_BYTES) / BLOCK,
					.block_size = BLOCK,
					.atomic_blocks = 1,
					.unmap_keeps = true,
					.seed = 7,
					.max_delay_us = 50,
					.garbage = true };

	b->disk = crash_disk_create(&opts);
	ck_assert_ptr_nonnull(b->disk);
	ck_assert_int_eq(bdev_crash_create("disk", b->disk, &b->bdev), 0);
}

/* A store of small geometry on a used disk. */
static inline void bench_start(struct bench *b)
{
	struct blob_reason why;
	int rc;

	bench_disk(b);
	if (!b->create.name)
		b->create.name = "store";
	if (!b->create.cluster_size_bytes)
		b->create.cluster_size_bytes = CLUSTER_BYTES;
	rc = store_create("disk", &b->create, &b->open, &b->store, &why);
	ck_assert_msg(rc == 0, "create: %d %s", rc, why.text);
	b->ch = blob_channel_get(b->store);
	ck_assert_ptr_nonnull(b->ch);
}

static inline void print_finding(const struct store_finding *finding, void *arg)
{
	fprintf(stderr, "finding: kind %d, page %llu: %s\n", finding->kind, (unsigned long long)finding->page, finding->text);
}

static inline void bench_check(struct bench *b)
{
	struct store_check_result result;
	struct blob_reason why;
	int rc = store_check("disk", print_finding, NULL, &result, &why);

	ck_assert_msg(rc == 0, "check: %d %s", rc, why.text);
	ck_assert_uint_eq(result.nr_findings, 0);
}

static inline void bench_end(struct bench *b)
{
	if (b->store)
		bench_close(b);
	bdev_unregister_all();
	crash_disk_destroy(b->disk);
}

static inline struct blob *make_blob(struct bench *b, const char *name, uint64_t size_bytes)
{
	struct blob_create_opts opts = { .name = name, .size_bytes = size_bytes };
	struct blob *blob;

	ck_assert_int_eq(blob_create(b->store, &opts, &blob), 0);
	blob_open(blob);
	return blob;
}

static inline int blob_rw(struct bench *b, struct blob *blob, enum blob_op op, unsigned flags, uint64_t block, uint64_t nr,
			  void *buf)
{
	struct iovec iov = { .iov_base = buf, .iov_len = nr * BLOCK };
	struct blob_io io = { .blob = blob,
			      .op = op,
			      .flags = flags,
			      .iov = &iov,
			      .iovcnt = buf ? 1 : 0,
			      .offset_blocks = block,
			      .nr_blocks = nr };

	return blob_submit_wait(b->ch, &io);
}

static inline void fill_blocks(uint8_t *buf, uint64_t nr, uint8_t value)
{
	memset(buf, value, nr * BLOCK);
}

static inline void assert_blocks(const uint8_t *buf, uint64_t nr, uint8_t value)
{
	for (uint64_t i = 0; i < nr * BLOCK; i++)
		if (buf[i] != value)
			ck_abort_msg("byte %lu is %02x, not %02x", (unsigned long)i, buf[i], value);
}

/* Power goes; what the fate leaves is opened anew. */
static inline void bench_crash(struct bench *b, enum crash_fate fate, uint64_t seed)
{
	crash_disk_cut_at(b->disk, crash_disk_nr_events(b->disk) + 1);
	blob_channel_put(b->ch);
	store_close(b->store);
	b->store = NULL;
	b->ch = NULL;
	bdev_unregister_all();
	crash_disk_lose_power(b->disk, fate, seed);
	crash_disk_cut_at(b->disk, 0);
	ck_assert_int_eq(bdev_crash_create("disk", b->disk, &b->bdev), 0);
	bench_open(b);
}

static inline int run_tests(const char *name, const TTest *const *tests, size_t nr)
{
	return run_suite_within(name, tests, nr, 120, NULL, NULL);
}

#endif
