/* Checksums: rot under the store is found, where it is and nowhere else; and the life of their pages and marks. */
#include "blob/csum.h"
#include "blob/testing.h"

#define SUB_BLOCKS (BLOB_SUB_SIZE / BLOCK)

static unsigned nr_events;

static void count_event(struct store *store, enum store_event event, void *arg)
{
	nr_events += event == STORE_EVENT_CHECKSUM;
}

static void start(struct bench *b)
{
	b->create.checksums = true;
	b->open.event = count_event;
	nr_events = 0;
	bench_start(b);
}

static uint64_t block_of(struct blob *blob, uint64_t block)
{
	const struct store *s = blob->store;
	struct node *leaf;
	bool shared;
	struct entry e;

	ck_assert_int_eq(map_load(blob, block >> s->cluster_block_shift), 0);
	e = map_entry(blob, block >> s->cluster_block_shift, &leaf, &shared);
	ck_assert_uint_ne(e.own, 0);
	return cluster_block(s, e.own) + (block & ((1u << s->cluster_block_shift) - 1));
}

static void flip(struct store *s, uint64_t device_block, unsigned byte)
{
	uint8_t buf[BLOCK];

	ck_assert_int_eq(bdev_read(s->bch, buf, device_block, 1), 0);
	buf[byte] ^= 0x10;
	ck_assert_int_eq(bdev_write(s->bch, buf, device_block, 1, 0), 0);
}

static void write_all(struct bench *b, struct blob *blob, uint64_t nr, uint8_t value)
{
	uint8_t *buf = malloc(nr * BLOCK);

	fill_blocks(buf, nr, value);
	ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, 0, nr, buf), 0);
	free(buf);
}

/* Waits until no cluster is marked. */
static void wait_clean(struct bench *b)
{
	struct csums *c = b->store->csum;

	c->tick_us = 100;
	fiber_cond_signal(&c->wake);
	while (c->nr_marked)
		fiber_sleep(100);
	c->tick_us = SUM_TICK_US;
}

static void rot(void *arg)
{
	struct bench b = {0};
	struct store_info info;
	struct store_bad bad;
	struct blob *blob;
	uint8_t *buf = malloc(128 * BLOCK);

	start(&b);
	blob = make_blob(&b, "rotten", 1 << 20);
	write_all(&b, blob, 128, 7);
	flip(b.store, block_of(blob, 41), 99);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 128, buf), -EIO);
	for (uint64_t at = 0; at < 128; at += SUB_BLOCKS) {
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, at, SUB_BLOCKS, buf), at == 40 ? -EIO : 0);
		if (at != 40)
			assert_blocks(buf, SUB_BLOCKS, 7);
	}
	/* Any block of it, and none beside it, however little is read. */
	for (uint64_t at = 30; at < 60; at++)
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, at, 1, buf), at >= 40 && at < 48 ? -EIO : 0);
	ck_assert(store_take_bad(b.store, &bad));
	ck_assert_str_eq(bad.blob_name, "rotten");
	ck_assert_uint_eq(bad.offset_blocks, 40);
	ck_assert_uint_eq(bad.nr_blocks, SUB_BLOCKS);
	fiber_yield();
	ck_assert_uint_ge(nr_events, 1);
	/* What is left of it must not be stamped anew with what was written beside it. */
	fill_blocks(buf, 1, 9);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 47, 1, buf), -EIO);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 47, 1, buf), -EIO);
	/* Written whole, it is well again. */
	fill_blocks(buf, SUB_BLOCKS, 9);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 40, SUB_BLOCKS, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 32, 24, buf), 0);
	assert_blocks(buf, 8, 7);
	assert_blocks(buf + 8 * BLOCK, 8, 9);
	assert_blocks(buf + 16 * BLOCK, 8, 7);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_unverified, 0);
	ck_assert_uint_eq(info.nr_unknown, 0);
	free(buf);
	bench_end(&b);
}

/* Several at once, and then each again by turns. */
static void told(void *arg)
{
	struct bench b = {0};
	struct store_bad bad;
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];
	unsigned nr = 0;

	start(&b);
	blob = make_blob(&b, "rotten", 1 << 20);
	write_all(&b, blob, 128, 7);
	for (unsigned i = 0; i < 5; i++)
		flip(b.store, block_of(blob, (3 * i + 1) * SUB_BLOCKS), i);
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, (3 * (i % 5) + 1) * SUB_BLOCKS, SUB_BLOCKS, buf), -EIO);
	for (; store_take_bad(b.store, &bad); nr++)
		ck_assert_uint_eq(bad.offset_blocks, (3 * nr + 1) * SUB_BLOCKS);
	ck_assert_uint_eq(nr, 5);
	bench_end(&b);
}

START_TEST(each_rotten_block_is_told_once)
{
	run_sim(1, 1, told, NULL);
}
END_TEST

START_TEST(a_rotten_block_is_an_error_and_its_neighbours_are_not)
{
	run_sim(1, 1, rot, NULL);
}
END_TEST

static void reopened(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];
	struct store_info info;

	start(&b);
	blob = make_blob(&b, "kept", 1 << 20);
	write_all(&b, blob, 64, 3);
	blob_close(blob);
	bench_close(&b);
	bench_check(&b);
	bench_open(&b);
	ck_assert_uint_eq(b.store->csum->nr_marked, 0);
	blob = store_find_blob(b.store, "kept");
	blob_open(blob);
	flip(b.store, block_of(blob, 8), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 8, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 8, 8, buf), -EIO);
	store_get_info(b.store, &info);
	ck_assert(info.checksums);
	ck_assert_uint_eq(info.nr_unknown, 0);
	bench_end(&b);
}

START_TEST(checksums_are_there_after_a_reopen)
{
	run_sim(1, 1, reopened, NULL);
}
END_TEST

/* Data beyond what the cache holds, read in another order. */
static void small_cache(void *arg)
{
	struct bench b = {.disk_bytes = 96u << 20, .create.cluster_size_bytes = 256 * 1024, .open.checksum_cache_bytes = 1};
	struct store_stats stats;
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	start(&b);
	blob = make_blob(&b, "wide", 64u << 20);
	for (uint64_t at = 0; at < 131072; at += 1024) {
		fill_blocks(buf, SUB_BLOCKS, at / 1024);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, at, SUB_BLOCKS, buf), 0);
	}
	ck_assert_uint_le(b.store->csum->nr_cached, SUM_PAGES_MIN);
	for (uint64_t at = 0; at < 131072; at += 1024) {
		uint64_t block = (at * 37) % 131072;

		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, block, SUB_BLOCKS, buf), 0);
		assert_blocks(buf, SUB_BLOCKS, block / 1024);
	}
	ck_assert_uint_le(b.store->csum->nr_cached, SUM_PAGES_MIN);
	store_get_stats(b.store, &stats);
	ck_assert_uint_gt(stats.nr_sum_reads, 32);
	ck_assert_uint_eq(b.store->csum->nr_unknown, 0);
	ck_assert_uint_eq(b.store->csum->nr_bad, 0);
	bench_end(&b);
}

START_TEST(a_small_cache_of_checksums_is_enough)
{
	run_sim(1, 1, small_cache, NULL);
}
END_TEST

static void spoil(struct store *s, bool copy_b)
{
	uint8_t page[PAGE_BYTES];

	memset(page, 0x5a, sizeof(page));
	ck_assert_int_eq(bdev_write(s->bch, page, cluster_block(s, sums_cluster(&s->super, 0, copy_b)), SUB_BLOCKS, 0), 0);
}

static void bad_pages(void *arg)
{
	struct bench b = {0};
	struct store_info info;
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	start(&b);
	blob = make_blob(&b, "kept", 1 << 20);
	write_all(&b, blob, 64, 3);
	wait_clean(&b);
	spoil(b.store, false);
	blob_close(blob);
	bench_close(&b);
	bench_open(&b);
	blob = store_find_blob(b.store, "kept");
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, SUB_BLOCKS, buf), 0);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_healed, 1);
	ck_assert_uint_eq(info.nr_degraded, 0);
	ck_assert_uint_eq(info.nr_unknown, 0);
	/* Healed in both places, so that the other may go now. */
	fiber_cond_signal(&b.store->csum->wake);
	blob_close(blob);
	bench_close(&b);
	bench_open(&b);
	spoil(b.store, true);
	blob = store_find_blob(b.store, "kept");
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, SUB_BLOCKS, buf), 0);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_healed, 0);
	ck_assert_uint_eq(info.nr_unknown, 0);
	ck_assert_uint_eq(info.nr_degraded, 0);
	blob_close(blob);
	bench_close(&b);
	/* Both: the data are served, and the store says that nobody vouches for them. */
	bench_open(&b);
	spoil(b.store, false);
	spoil(b.store, true);
	blob = store_find_blob(b.store, "kept");
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, SUB_BLOCKS, buf), 0);
	assert_blocks(buf, SUB_BLOCKS, 3);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_degraded, 1);
	ck_assert_uint_eq(info.nr_unknown, 1);
	bench_end(&b);
}

START_TEST(a_page_of_checksums_is_healed_from_its_copy)
{
	run_sim(1, 1, bad_pages, NULL);
}
END_TEST

/* The cluster is clean; its overwrite reached the device, or not, when the power went. */
static void overwritten_at_a_crash(void *arg)
{
	bool durable = *(bool *)arg;
	struct bench b = {0};
	struct store_info info;
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	start(&b);
	blob = make_blob(&b, "data", 1 << 20);
	write_all(&b, blob, 64, 3);
	wait_clean(&b);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	fill_blocks(buf, SUB_BLOCKS, 4);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, durable ? BLOB_IO_FUA : 0, 8, SUB_BLOCKS, buf), 0);
	blob_close(blob);
	bench_crash(&b, CRASH_FATE_LOSE_ALL, 1);
	blob = store_find_blob(b.store, "data");
	blob_open(blob);
	ck_assert_uint_eq(b.store->csum->nr_unsettled, 1);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 8, SUB_BLOCKS, buf), 0);
	assert_blocks(buf, SUB_BLOCKS, durable ? 4 : 3);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_unverified, durable);
	bench_end(&b);
}

START_TEST(a_cluster_dirty_at_a_crash_is_stamped_anew)
{
	run_sim(1, 1, overwritten_at_a_crash, &(bool){false});
	run_sim(1, 1, overwritten_at_a_crash, &(bool){true});
}
END_TEST

static void rot_beside_a_crash(void *arg)
{
	struct bench b = {0};
	struct store_info info;
	struct blob *blob;
	uint64_t rotten;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	start(&b);
	blob = make_blob(&b, "data", 1 << 20);
	write_all(&b, blob, 256, 3); /* four clusters */
	wait_clean(&b);
	rotten = block_of(blob, 128);
	flip(b.store, rotten, 1);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	fill_blocks(buf, SUB_BLOCKS, 4);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, BLOB_IO_FUA, 8, SUB_BLOCKS, buf), 0);
	blob_close(blob);
	bench_crash(&b, CRASH_FATE_LOSE_ALL, 1);
	blob = store_find_blob(b.store, "data");
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 8, SUB_BLOCKS, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 128, SUB_BLOCKS, buf), -EIO);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_unverified, 1);
	ck_assert_uint_eq(info.nr_bad, 1);
	bench_end(&b);
}

START_TEST(rot_in_a_clean_cluster_is_found_after_a_crash)
{
	run_sim(1, 1, rot_beside_a_crash, NULL);
}
END_TEST

/* Marks taken back, and the journal durable because of another cluster's mark: then everything unflushed is lost. */
static void cleaned_before_a_crash(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	start(&b);
	blob = make_blob(&b, "data", 1 << 20);
	write_all(&b, blob, 256, 3);
	wait_clean(&b);
	fill_blocks(buf, SUB_BLOCKS, 4);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 8, SUB_BLOCKS, buf), 0);
	wait_clean(&b);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 128, SUB_BLOCKS, buf), 0);
	blob_close(blob);
	bench_crash(&b, *(enum crash_fate *)arg, 3);
	blob = store_find_blob(b.store, "data");
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 8, SUB_BLOCKS, buf), 0);
	assert_blocks(buf, SUB_BLOCKS, 4);
	bench_end(&b);
}

START_TEST(a_mark_is_taken_back_when_data_and_checksums_are_durable)
{
	for (enum crash_fate fate = CRASH_FATE_LOSE_ALL; fate < CRASH_FATE_NR; fate++)
		run_sim(1, 1, cleaned_before_a_crash, &fate);
}
END_TEST

/* A read that meets a write of the same block sees one or the other, and no error. */
struct crossing {
	struct blob_io io;
	struct iovec iov;
	uint8_t buf[SUB_BLOCKS * BLOCK];
	unsigned *left;
	struct fiber_wait *wait;
	int status;
};

static void crossed(struct blob_io *io, int status)
{
	struct crossing *c = container_of(io, struct crossing, io);

	c->status = status;
	if (--*c->left == 0)
		fiber_wake(c->wait, 0);
}

static void crossings(void *arg)
{
	struct bench b = {0};
	struct crossing *c = calloc(48, sizeof(*c));
	struct blob *blob;

	start(&b);
	blob = make_blob(&b, "busy", 1 << 20);
	write_all(&b, blob, 64, 3);
	for (unsigned round = 0; round < 20; round++) {
		struct fiber_wait wait;
		unsigned left = 48;

		fiber_wait_init(&wait);
		for (unsigned i = 0; i < 48; i++) {
			bool write = i % 3 == 0;

			c[i].left = &left;
			c[i].wait = &wait;
			c[i].iov = (struct iovec){c[i].buf, i % 5 ? SUB_BLOCKS * BLOCK : BLOCK};
			if (write)
				fill_blocks(c[i].buf, SUB_BLOCKS, round + i);
			c[i].io = (struct blob_io){.done = crossed,
						   .blob = blob,
						   .op = write ? BLOB_WRITE : BLOB_READ,
						   .iov = &c[i].iov,
						   .iovcnt = 1,
						   .offset_blocks = i % 4 + (write ? 2 : 0),
						   .nr_blocks = c[i].iov.iov_len / BLOCK};
		}
		for (unsigned i = 0; i < 48; i++)
			blob_submit(b.ch, &c[i].io);
		fiber_wait(&wait);
		for (unsigned i = 0; i < 48; i++)
			ck_assert_int_eq(c[i].status, 0);
	}
	ck_assert_uint_eq(b.store->csum->nr_bad, 0);
	free(c);
	bench_end(&b);
}

START_TEST(reads_and_writes_of_one_block_at_once_are_no_rot)
{
	for (unsigned seed = 1; seed < 6; seed++)
		run_sim(seed, 1, crossings, NULL);
}
END_TEST

static void rot_below_a_snapshot(void *arg)
{
	struct bench b = {0};
	struct blob *blob, *snap;
	uint8_t buf[64 * BLOCK];

	start(&b);
	blob = make_blob(&b, "origin", 1 << 20);
	fill_blocks(buf, 32, 5); /* half a cluster: its valid part is copied when it is written again */
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 0, 32, buf), 0);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	flip(b.store, block_of(blob, 16), 5);
	fill_blocks(buf, SUB_BLOCKS, 6);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 0, SUB_BLOCKS, buf), 0);
	/* The copy of what is rotten is not taken for good. */
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 16, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 16, 8, buf), -EIO);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 24, 8, buf), 0);
	ck_assert_int_eq(blob_rw(&b, snap, BLOB_READ, 0, 16, 8, buf), -EIO);
	ck_assert_int_eq(blob_rw(&b, snap, BLOB_READ, 0, 0, 16, buf), 0);
	bench_end(&b);
}

START_TEST(rot_that_is_copied_stays_rot)
{
	run_sim(1, 1, rot_below_a_snapshot, NULL);
}
END_TEST

/* What has space is written as ever, although a mark needs a record and its page. */
static void full(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	uint8_t *buf = malloc(64 * BLOCK);
	uint64_t end = 0;

	start(&b);
	blob = make_blob(&b, "greedy", 32u << 20);
	fill_blocks(buf, 64, 1);
	while (!blob_rw(&b, blob, BLOB_WRITE, 0, end, 64, buf))
		end += 64;
	ck_assert_uint_gt(end, 1000);
	for (unsigned round = 2; round < 5; round++) {
		wait_clean(&b);
		fill_blocks(buf, 64, round);
		for (uint64_t at = 0; at < end; at += 64)
			ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, at % 3 ? 0 : BLOB_IO_FUA, at, 64, buf), 0);
		for (uint64_t at = 0; at < end; at += 64) {
			ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, at, 64, buf), 0);
			assert_blocks(buf, 64, round);
		}
	}
	free(buf);
	bench_end(&b);
}

START_TEST(a_full_store_is_overwritten_cluster_by_clean_cluster)
{
	run_sim(1, 1, full, NULL);
}
END_TEST

/* Clusters written in order share records; so few that a commit for each eighth is enough. */
static void in_order(void *arg)
{
	struct bench b = {0};
	struct store_stats before, after;
	struct blob *blob;
	uint8_t *buf = calloc(64, BLOCK);

	start(&b);
	blob = make_blob(&b, "ordered", 4u << 20);
	write_all(&b, blob, 8192, 1);
	wait_clean(&b);
	store_get_stats(b.store, &before);
	for (uint64_t at = 0; at < 8192; at += 64)
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, at, 64, buf), 0);
	store_get_stats(b.store, &after);
	ck_assert_uint_eq(after.nr_sum_marks - before.nr_sum_marks, 128);
	ck_assert_uint_le(after.nr_records - before.nr_records, 128 / 8 + 4);
	free(buf);
	bench_end(&b);
}

START_TEST(clusters_written_in_order_are_marked_together)
{
	run_sim(1, 1, in_order, NULL);
}
END_TEST

/* Writes that fail go over blocks that the cluster had and over blocks it had not: some of each reach the device. */
static void failed_over_both(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	uint8_t *buf = malloc(64 * BLOCK), *sub = malloc(BLOB_SUB_SIZE);
	unsigned nr_changed = 0;

	start(&b);
	blob = make_blob(&b, "half written", 1 << 20);
	for (unsigned round = 0; round < 16; round++) {
		uint64_t cluster = round * 64;

		fill_blocks(buf, 16, 3);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, cluster + 16, 16, buf), 0);
		fill_blocks(buf, 64, 5);
		crash_disk_fail_nth(b.disk, 1, 1);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, cluster, 64, buf), -EIO);
		ck_assert(crash_disk_has_failed(b.disk));
		crash_disk_fail_nth(b.disk, 0, 0);
	}
	for (uint64_t at = 16; at < 16 * 64; at += at % 64 == 24 ? 64 - SUB_BLOCKS : SUB_BLOCKS) {
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, at, SUB_BLOCKS, sub), 0);
		nr_changed += sub[0] != 3;
	}
	ck_assert_uint_gt(nr_changed, 0);
	free(sub);
	free(buf);
	bench_end(&b);
}

START_TEST(blocks_under_a_write_that_failed_stay_readable)
{
	run_sim(1, 1, failed_over_both, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_rotten_block_is_an_error_and_its_neighbours_are_not,
				      each_rotten_block_is_told_once,
				      checksums_are_there_after_a_reopen,
				      a_small_cache_of_checksums_is_enough,
				      a_page_of_checksums_is_healed_from_its_copy,
				      a_cluster_dirty_at_a_crash_is_stamped_anew,
				      rot_in_a_clean_cluster_is_found_after_a_crash,
				      a_mark_is_taken_back_when_data_and_checksums_are_durable,
				      reads_and_writes_of_one_block_at_once_are_no_rot,
				      rot_that_is_copied_stays_rot,
				      a_full_store_is_overwritten_cluster_by_clean_cluster,
				      clusters_written_in_order_are_marked_together,
				      blocks_under_a_write_that_failed_stay_readable};

	return run_tests("csum", tests, sizeof(tests) / sizeof(tests[0]));
}
