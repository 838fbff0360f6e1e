/* Scrubbing, what settles after a crash, and the pace of both. */
#include "blob/csum.h"
#include "blob/testing.h"

#define SUB_BLOCKS (BLOB_SUB_SIZE / BLOCK)

static uint64_t block_of(struct blob *blob, uint64_t block)
{
	const struct store *s = blob->store;
	struct node *leaf;
	bool shared;
	struct entry e = map_entry(blob, block >> s->cluster_block_shift, &leaf, &shared);

	ck_assert_uint_ne(e.own, 0);
	return cluster_block(s, e.own) + (block & ((1u << s->cluster_block_shift) - 1));
}

static void flip(struct store *s, uint64_t device_block)
{
	uint8_t buf[BLOCK];

	ck_assert_int_eq(bdev_read(s->bch, buf, device_block, 1), 0);
	buf[77] ^= 4;
	ck_assert_int_eq(bdev_write(s->bch, buf, device_block, 1, 0), 0);
}

static void write_all(struct bench *b, struct blob *blob, uint64_t nr, uint8_t value)
{
	uint8_t *buf = malloc(nr * BLOCK);

	fill_blocks(buf, nr, value);
	ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, 0, nr, buf), 0);
	free(buf);
}

static void scrub_finds(void *arg)
{
	struct bench b = {.create.checksums = true};
	struct store_scrub_cursor at = {0};
	struct store_scrub_result result = {0};
	struct progress progress = {0};
	struct blob *first, *second, *snap;

	bench_start(&b);
	first = make_blob(&b, "first", 1 << 20);
	second = make_blob(&b, "second", 1 << 20);
	write_all(&b, first, 256, 1);
	write_all(&b, second, 64 + SUB_BLOCKS, 2);
	ck_assert_int_eq(blob_snapshot(first, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	write_all(&b, first, 64, 3); /* one cluster is its own now */
	ck_assert_int_eq(store_scrub(b.store, &at, &result, &progress), 0);
	ck_assert_uint_eq(result.nr_bad + result.nr_unverified + result.nr_unreadable, 0);
	ck_assert_uint_eq(result.nr_bytes, (256 + 64 + SUB_BLOCKS + 64) * BLOCK); /* what two share once */
	ck_assert_uint_eq(progress.done, 4 + 2 + 4);
	ck_assert_uint_eq(progress.total, 4 + 2 + 4);
	flip(b.store, block_of(first, 20));
	flip(b.store, block_of(second, 70));
	flip(b.store, block_of(snap, 200)); /* which first shows as well: it is read once */
	at = (struct store_scrub_cursor){0};
	result = (struct store_scrub_result){0};
	ck_assert_int_eq(store_scrub(b.store, &at, &result, NULL), 0);
	ck_assert_uint_eq(result.nr_bad, 3);
	ck_assert_uint_eq(result.nr_unverified, 0);
	bench_end(&b);
}

START_TEST(a_scrub_finds_all_rot_and_nothing_else)
{
	run_sim(1, 1, scrub_finds, NULL);
}
END_TEST

static void cancel_soon(void *arg)
{
	fiber_sleep(300);
	((struct progress *)arg)->cancel = true;
}

static void scrub_resumes(void *arg)
{
	struct bench b = {.create.checksums = true};
	struct store_scrub_cursor at = {0};
	struct store_scrub_result result = {0};
	struct progress progress = {0};
	struct blob *blob;
	unsigned nr_rounds = 0;
	int rc;

	bench_start(&b);
	blob = make_blob(&b, "blob", 2 << 20);
	write_all(&b, blob, 4096, 1);
	do {
		progress.cancel = false;
		ck_assert_int_eq(fiber_spawn(thread_current(), "cancel", cancel_soon, &progress), 0);
		rc = store_scrub(b.store, &at, &result, &progress);
		nr_rounds++;
	} while (rc == -ECANCELED && nr_rounds < 1000);
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_gt(nr_rounds, 2);
	ck_assert_uint_ge(result.nr_bytes, 4096 * BLOCK);
	ck_assert_uint_lt(result.nr_bytes, 4096 * BLOCK + nr_rounds * CLUSTER_BYTES);
	ck_assert_uint_eq(progress.done, progress.total);
	fiber_sleep(1000); /* the last one who cancels */
	bench_end(&b);
}

START_TEST(a_scrub_that_was_ended_goes_on_where_it_was)
{
	run_sim(1, 1, scrub_resumes, NULL);
}
END_TEST

struct both {
	struct bench *b;
	int rc;
	bool over;
};

static void scrub_behind(void *arg)
{
	struct both *t = arg;
	struct store_scrub_cursor at = {0};
	struct store_scrub_result result = {0};

	t->rc = store_scrub(t->b->store, &at, &result, NULL);
	ck_assert_uint_eq(result.nr_bad, 0);
	t->over = true;
}

/* Volumes come, change and go under it. */
static void scrub_under_load(void *arg)
{
	struct bench b = {.create.checksums = true};
	struct both t = {.b = &b};
	struct store_scrub_cursor at = {0};
	struct store_scrub_result result = {0};
	struct blob *blob, *other, *snap;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	bench_start(&b);
	blob = make_blob(&b, "blob", 1 << 20);
	other = make_blob(&b, "other", 1 << 20);
	write_all(&b, blob, 2048, 1);
	write_all(&b, other, 1024, 1);
	ck_assert_int_eq(fiber_spawn(thread_current(), "scrub", scrub_behind, &t), 0);
	for (unsigned i = 0; !t.over || i < 20; i++) {
		fill_blocks(buf, SUB_BLOCKS, i);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, sim_rand() % 2040, SUB_BLOCKS, buf), 0);
		if (i == 3)
			ck_assert_int_eq(store_scrub(b.store, &at, &result, NULL), -EBUSY);
		if (i == 5) {
			blob_close(other);
			ck_assert_int_eq(blob_delete(other), 0);
		}
		if (i == 8)
			ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	}
	ck_assert_int_eq(t.rc, 0);
	bench_end(&b);
}

START_TEST(a_scrub_under_load_finds_nothing_that_is_not_there)
{
	for (unsigned seed = 1; seed < 8; seed++)
		run_sim(seed, 1, scrub_under_load, NULL);
}
END_TEST

/* After a crash the dirty clusters are read once; from then on they are as strict as all others. */
static void settles(void *arg)
{
	struct bench b = {.create.checksums = true};
	struct store_info info;
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];

	bench_start(&b);
	blob = make_blob(&b, "data", 1 << 20);
	write_all(&b, blob, 256, 3);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	blob_close(blob);
	bench_crash(&b, CRASH_FATE_LOSE_ALL, 1);
	ck_assert_uint_eq(b.store->csum->nr_unsettled, 4);
	while (b.store->csum->nr_unsettled)
		fiber_sleep(1000);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_unverified, 256 / SUB_BLOCKS);
	blob = store_find_blob(b.store, "data");
	blob_open(blob);
	flip(b.store, block_of(blob, 64));
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 64, SUB_BLOCKS, buf), -EIO);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 72, SUB_BLOCKS, buf), 0);
	blob_close(blob);
	bench_close(&b);
	bench_open(&b);
	ck_assert_uint_eq(b.store->csum->nr_marked, 0);
	blob = store_find_blob(b.store, "data");
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 128, SUB_BLOCKS, buf), 0);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_unverified, 0);
	bench_end(&b);
}

/* A discard takes sub-blocks of a shared cluster from one map: what is left of them in the other was written before the crash, too. */
static void settles_apart(void *arg)
{
	struct blob_copy_opts opts = {.name = "snapshot"};
	struct bench b = {.create.checksums = true};
	uint8_t buf[SUB_BLOCKS * BLOCK];
	struct blob *blob, *snapshot;

	bench_start(&b);
	blob = make_blob(&b, "data", 1 << 20);
	write_all(&b, blob, 8 * SUB_BLOCKS, 3);
	csum_clean_all(b.store);
	write_all(&b, blob, 8 * SUB_BLOCKS, 4);
	ck_assert_int_eq(blob_snapshot(blob, &opts, &snapshot), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 3 * SUB_BLOCKS, 2 * SUB_BLOCKS, NULL), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	blob_close(blob);
	bench_crash(&b, CRASH_FATE_LOSE_ALL, 1);
	ck_assert_uint_eq(b.store->csum->nr_unsettled, 1);
	while (b.store->csum->nr_unsettled)
		fiber_sleep(1000);
	for (unsigned sub = 0; sub < 8; sub++) {
		ck_assert_int_eq(blob_rw(&b, store_find_blob(b.store, "snapshot"), BLOB_READ, 0, sub * SUB_BLOCKS, SUB_BLOCKS, buf), 0);
		assert_blocks(buf, SUB_BLOCKS, 4);
		ck_assert_int_eq(blob_rw(&b, store_find_blob(b.store, "data"), BLOB_READ, 0, sub * SUB_BLOCKS, SUB_BLOCKS, buf), 0);
		assert_blocks(buf, SUB_BLOCKS, sub == 3 || sub == 4 ? 0 : 4);
	}
	bench_end(&b);
}

START_TEST(what_maps_have_of_a_shared_cluster_apart_settles_for_each)
{
	run_sim(1, 1, settles_apart, NULL);
}
END_TEST

START_TEST(what_a_crash_left_dirty_settles_and_is_strict_again)
{
	run_sim(1, 1, settles, NULL);
}
END_TEST

static bool copy_is_whole(struct store *s, bool copy_b)
{
	uint8_t page[PAGE_BYTES];
	uint32_t sums[SUMS_A_UNIT];
	bool whole = true;

	ck_assert_int_eq(bdev_read(s->bch, page, cluster_block(s, sums_cluster(&s->super, 0, copy_b)), SUB_BLOCKS), 0);
	for (unsigned u = 0; u < UNITS_A_PAGE; u++)
		whole &= sum_unit_decode(page + u * SUM_UNIT_BYTES, s->id, u, sums) != -EUCLEAN;
	return whole;
}

/* Either copy of a page of checksums rots, in memory or not. */
static void pages_rot(void *arg)
{
	struct bench b = {.create.checksums = true};
	struct store_scrub_result result = {0};
	struct store_info info;
	struct blob *blob;
	uint8_t page[PAGE_BYTES];

	bench_start(&b);
	memset(page, 0x77, sizeof(page));
	blob = make_blob(&b, "blob", 1 << 20);
	write_all(&b, blob, 256, 1);
	for (unsigned i = 0; i < 4; i++) {
		struct store_scrub_cursor at = {0};

		if (i < 2) { /* not in memory */
			blob_close(blob);
			bench_close(&b);
			bench_open(&b);
			blob = store_find_blob(b.store, "blob");
			blob_open(blob);
		}
		ck_assert_int_eq(bdev_write(b.store->bch, page,
					    cluster_block(b.store, sums_cluster(&b.store->super, 0, i % 2)), SUB_BLOCKS, 0),
				 0);
		ck_assert(!copy_is_whole(b.store, i % 2));
		ck_assert_int_eq(store_scrub(b.store, &at, &result, NULL), 0);
		b.store->csum->tick_us = 100;
		csum_kick(b.store);
		while (!copy_is_whole(b.store, false) || !copy_is_whole(b.store, true))
			fiber_sleep(1000);
	}
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_unknown + info.nr_degraded + result.nr_bad, 0);
	bench_end(&b);
}

START_TEST(a_scrub_heals_either_copy_of_a_page_of_checksums)
{
	run_sim(1, 1, pages_rot, NULL);
}
END_TEST

static void no_sums(void *arg)
{
	struct bench b = {0};
	struct store_scrub_cursor at = {0};
	struct store_scrub_result result = {0};

	bench_start(&b);
	ck_assert_int_eq(store_scrub(b.store, &at, &result, NULL), -ENOTSUP);
	bench_end(&b);
}

START_TEST(a_store_without_checksums_has_nothing_to_scrub)
{
	run_sim(1, 1, no_sums, NULL);
}
END_TEST

START_TEST(background_work_slows_down_when_hosts_suffer)
{
	uint32_t quiet[PACE_BUCKETS] = {0}, working[PACE_BUCKETS] = {0};

	quiet[100] = working[100] = 10000;
	ck_assert_uint_gt(pace_judge(64 << 20, quiet, working), 64 << 20);
	working[140] = 90; /* less than one in a hundred */
	ck_assert_uint_gt(pace_judge(64 << 20, quiet, working), 64 << 20);
	working[140] = 200;
	ck_assert_uint_eq(pace_judge(64 << 20, quiet, working), 32 << 20);
	quiet[140] = 200; /* as bad without it */
	ck_assert_uint_gt(pace_judge(64 << 20, quiet, working), 64 << 20);
	memset(quiet, 0, sizeof(quiet)); /* too few to say */
	quiet[3] = 10;
	ck_assert_uint_eq(pace_judge(64 << 20, quiet, working), 64 << 20);
}
END_TEST

/* A host with one write at a time, and a scrub of much data behind it. */
static void paced(void *arg)
{
	struct bench b = {.create.checksums = true, .disk_bytes = 64u << 20};
	struct both t = {.b = &b};
	struct blob *blob;
	uint8_t buf[SUB_BLOCKS * BLOCK];
	uint64_t nr = 0, start;

	bench_start(&b);
	blob = make_blob(&b, "blob", 32 << 20);
	for (uint64_t at = 0; at < 65536; at += 2048)
		for (unsigned i = 0; i < 2048; i += SUB_BLOCKS)
			ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, at + i, SUB_BLOCKS, buf), 0);
	start = clock_now_us();
	ck_assert_int_eq(fiber_spawn(thread_current(), "scrub", scrub_behind, &t), 0);
	while (!t.over && clock_now_us() < start + 3000000) {
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, sim_rand() % 65000, SUB_BLOCKS, buf), 0);
		nr++;
	}
	ck_assert(b.store->pace.nr_active == !t.over);
	/* It saw the host, and measured both ways of working. */
	ck_assert(!b.store->pace.idle || t.over);
	ck_assert_uint_gt(nr, 1000);
	while (!t.over)
		fiber_sleep(1000);
	ck_assert_int_eq(t.rc, 0);
	bench_end(&b);
}

START_TEST(a_scrub_goes_on_beside_a_host)
{
	run_sim(1, 1, paced, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_scrub_finds_all_rot_and_nothing_else,
				      a_scrub_that_was_ended_goes_on_where_it_was,
				      a_scrub_under_load_finds_nothing_that_is_not_there,
				      what_a_crash_left_dirty_settles_and_is_strict_again,
				      what_maps_have_of_a_shared_cluster_apart_settles_for_each,
				      a_scrub_heals_either_copy_of_a_page_of_checksums,
				      a_store_without_checksums_has_nothing_to_scrub,
				      background_work_slows_down_when_hosts_suffer,
				      a_scrub_goes_on_beside_a_host};

	return run_tests("scrub", tests, sizeof(tests) / sizeof(tests[0]));
}
