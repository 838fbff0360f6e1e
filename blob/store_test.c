/* Stores and blobs as their users see them: made, written, closed, opened, crashed. */
#include "blob/testing.h"

#include <errno.h>

static void empty_store(void *arg)
{
	struct bench b = { 0 };
	struct store_info info;

	bench_start(&b);
	store_get_info(b.store, &info);
	ck_assert_str_eq(info.name, "store");
	ck_assert_uint_eq(info.cluster_size_bytes, CLUSTER_BYTES);
	ck_assert_uint_eq(info.nr_blobs, 0);
	ck_assert(!info.read_only);
	ck_assert_ptr_null(store_first_blob(b.store));
	bench_close(&b);
	bench_check(&b);
	bench_open(&b);
	bench_end(&b);
}

START_TEST(an_empty_store_opens_again)
{
	run_sim(1, 1, empty_store, NULL);
}
END_TEST

static void basic_io(void *arg)
{
	struct bench b = { 0 };
	static uint8_t buf[64 * BLOCK];
	struct blob *blob;

	bench_start(&b);
	blob = make_blob(&b, "one", 1 << 20);
	/* Never written: zeros, on a disk full of noise. */
	fill_blocks(buf, 64, 0xee);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 100, 64, buf), 0);
	assert_blocks(buf, 64, 0);
	/* One block in a new sub-block: the rest of it is zero. */
	fill_blocks(buf, 1, 0x11);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 3, 1, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 64, buf), 0);
	assert_blocks(buf, 3, 0);
	assert_blocks(buf + 3 * BLOCK, 1, 0x11);
	assert_blocks(buf + 4 * BLOCK, 60, 0);
	/* Across a cluster's end. */
	fill_blocks(buf, 20, 0x22);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, BLOB_IO_FUA, 55, 20, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	blob_close(blob);
	bench_close(&b);
	bench_check(&b);
	bench_open(&b);
	blob = store_find_blob(b.store, "one");
	ck_assert_ptr_nonnull(blob);
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 50, 32, buf), 0);
	assert_blocks(buf, 5, 0);
	assert_blocks(buf + 5 * BLOCK, 20, 0x22);
	assert_blocks(buf + 25 * BLOCK, 7, 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 2048, 1, buf), -ERANGE);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(what_was_written_is_read_back_after_a_reopen)
{
	run_sim(2, 1, basic_io, NULL);
}
END_TEST

static void crash_keeps_flushed(void *arg)
{
	struct bench b = { 0 };
	static uint8_t buf[64 * BLOCK];
	struct blob *blob;

	bench_start(&b);
	blob = make_blob(&b, "one", 1 << 20);
	fill_blocks(buf, 10, 0x33);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 10, 10, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	fill_blocks(buf, 10, 0x44);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, BLOB_IO_FUA, 640, 10, buf), 0);
	blob_close(blob);
	bench_crash(&b, CRASH_FATE_LOSE_ALL, 3);
	ck_assert_uint_eq(store_check_memory(b.store, print_finding, NULL), 0);
	blob = store_find_blob(b.store, "one");
	ck_assert_ptr_nonnull(blob);
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 8, 14, buf), 0);
	assert_blocks(buf, 2, 0);
	assert_blocks(buf + 2 * BLOCK, 10, 0x33);
	assert_blocks(buf + 12 * BLOCK, 2, 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 640, 10, buf), 0);
	assert_blocks(buf, 10, 0x44);
	blob_close(blob);
	bench_close(&b);
	bench_check(&b);
	bench_end(&b);
}

START_TEST(what_was_flushed_survives_a_power_cut)
{
	run_sim(3, 1, crash_keeps_flushed, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { an_empty_store_opens_again, what_was_written_is_read_back_after_a_reopen,
				       what_was_flushed_survives_a_power_cut };

	return run_tests("store", tests, sizeof(tests) / sizeof(tests[0]));
}
