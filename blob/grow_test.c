/* Growing a store with its bdev, and a power cut at each write of it. */
#include "blob/csum.h"
#include "blob/testing.h"

#define SMALL_BYTES (9u << 20)
#define BIG_BYTES   (20u << 20)

struct plan {
	bool checksums;
	uint64_t cut; /* at that event of the growing; 0: none */
	enum crash_fate fate;
	bool cut_came; /* out */
};

/* Written and read in pieces: many first writes at once would turn much of so small a store into metadata. */
static void use(struct bench *b, struct blob *blob, uint64_t nr, uint8_t value)
{
	uint8_t *buf = malloc(512 * BLOCK);

	for (uint64_t at = 0; at < nr; at += 512) {
		uint64_t n = nr - at < 512 ? nr - at : 512;

		fill_blocks(buf, n, value);
		ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, at, n, buf), 0);
	}
	for (uint64_t at = 0; at < nr; at += 512) {
		uint64_t n = nr - at < 512 ? nr - at : 512;

		ck_assert_int_eq(blob_rw(b, blob, BLOB_READ, 0, at, n, buf), 0);
		assert_blocks(buf, n, value);
	}
	free(buf);
}

static void check_kept(struct bench *b)
{
	struct blob *blob = store_find_blob(b->store, "kept");
	uint8_t *buf = malloc(512 * BLOCK);

	ck_assert_ptr_nonnull(blob);
	ck_assert_int_eq(blob_rw(b, blob, BLOB_READ, 0, 0, 512, buf), 0);
	assert_blocks(buf, 512, 3);
	free(buf);
	ck_assert_uint_eq(store_check_memory(b->store, print_finding, NULL), 0);
}

static void start(struct bench *b, const struct plan *plan)
{
	struct blob_reason why;

	b->disk_bytes = BIG_BYTES;
	b->create.name = "store";
	b->create.cluster_size_bytes = CLUSTER_BYTES;
	b->create.checksums = plan->checksums;
	b->create.leaf_shift = b->create.inner_shift = 2;
	bench_disk(b);
	bdev_notify_resize(b->bdev, SMALL_BYTES / BLOCK);
	ck_assert_int_eq(store_create("disk", &b->create, &b->open, &b->store, &why), 0);
	b->ch = blob_channel_get(b->store);
	use(b, make_blob(b, "kept", 1 << 20), 512, 3);
	ck_assert_int_eq(blob_rw(b, store_find_blob(b->store, "kept"), BLOB_FLUSH, 0, 0, 0, NULL), 0);
}

static void grows(void *arg)
{
	struct plan *plan = arg;
	struct bench b = {0};
	struct store_info before, after;
	struct blob *blob;
	uint64_t first;
	int rc;

	start(&b, plan);
	store_get_info(b.store, &before);
	ck_assert_int_eq(store_grow(b.store), 0);
	store_get_info(b.store, &after);
	ck_assert_uint_eq(after.nr_clusters, before.nr_clusters);
	bdev_notify_resize(b.bdev, BIG_BYTES / BLOCK);
	first = crash_disk_nr_events(b.disk);
	if (plan->cut)
		crash_disk_cut_at(b.disk, first + plan->cut);
	rc = store_grow(b.store);
	plan->cut_came = crash_disk_is_cut(b.disk);
	blob_close(store_find_blob(b.store, "kept"));
	if (plan->cut_came) {
		ck_assert_int_ne(rc, 0);
		bench_crash(&b, plan->fate, plan->cut);
		check_kept(&b);
		ck_assert_int_eq(store_grow(b.store), 0);
	} else {
		ck_assert_int_eq(rc, 0);
		crash_disk_cut_at(b.disk, 0);
	}
	store_get_info(b.store, &after);
	ck_assert_uint_gt(after.nr_clusters, before.nr_clusters + (BIG_BYTES - SMALL_BYTES) / CLUSTER_BYTES - 8);
	ck_assert_uint_gt(after.nr_free_clusters, before.nr_free_clusters + (BIG_BYTES - SMALL_BYTES) / CLUSTER_BYTES - 8);
	/* All of it can be used, and survives. */
	blob = make_blob(&b, "large", 12u << 20);
	use(&b, blob, 24576, 5);
	check_kept(&b);
	blob_close(blob);
	bench_close(&b);
	bench_check(&b);
	bench_open(&b);
	blob = store_find_blob(b.store, "large");
	{
		uint8_t buf[8 * BLOCK];

		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 24000, 8, buf), 0);
		assert_blocks(buf, 8, 5);
	}
	check_kept(&b);
	if (b.store->csum)
		ck_assert_uint_eq(b.store->csum->nr_unknown, 0);
	bench_end(&b);
}

START_TEST(a_store_grows_with_its_bdev)
{
	run_sim(1, 1, grows, &(struct plan){.checksums = false});
	run_sim(1, 1, grows, &(struct plan){.checksums = true});
}
END_TEST

START_TEST(a_store_cut_off_while_it_grows_has_one_size_or_the_other)
{
	for (unsigned sums = 0; sums < 2; sums++) {
		struct plan plan = {.checksums = sums, .cut_came = true};

		for (plan.cut = 1; plan.cut_came; plan.cut++) {
			plan.fate = CRASH_FATE_LOSE_ALL + plan.cut % (CRASH_FATE_NR - CRASH_FATE_LOSE_ALL);
			plan.cut_came = false;
			run_sim(plan.cut, 1, grows, &plan);
		}
		ck_assert_uint_gt(plan.cut, 5);
	}
}
END_TEST

static void full(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	uint8_t *buf = calloc(64, BLOCK);
	uint64_t at = 0;

	start(&b, &(struct plan){.checksums = true});
	blob = make_blob(&b, "greedy", 32u << 20);
	while (!blob_rw(&b, blob, BLOB_WRITE, 0, at, 64, buf))
		at += 64;
	ck_assert_uint_lt(at, SMALL_BYTES / BLOCK);
	bdev_notify_resize(b.bdev, BIG_BYTES / BLOCK);
	ck_assert_int_eq(store_grow(b.store), 0);
	for (unsigned i = 0; i < 200; i++, at += 64)
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, at, 64, buf), 0);
	free(buf);
	bench_end(&b);
}

START_TEST(a_full_store_grows)
{
	run_sim(1, 1, full, NULL);
}
END_TEST

/* More than one group of checksums, before and after. */
static void groups(void *arg)
{
	struct bench b = {.disk_bytes = 100u << 20,
			  .create = {.name = "store", .cluster_size_bytes = CLUSTER_BYTES, .checksums = true}};
	struct blob_reason why;
	struct blob *blob;

	bench_disk(&b);
	bdev_notify_resize(b.bdev, (uint64_t)SUM_GROUP * CLUSTER_BYTES / BLOCK + 20 * CLUSTER_BYTES / BLOCK);
	ck_assert_int_eq(store_create("disk", &b.create, &b.open, &b.store, &why), 0);
	b.ch = blob_channel_get(b.store);
	blob = make_blob(&b, "large", 80u << 20);
	use(&b, blob, 50000, 1);
	bdev_notify_resize(b.bdev, b.disk_bytes / BLOCK);
	ck_assert_int_eq(store_grow(b.store), 0);
	use(&b, blob, 160000, 2);
	ck_assert_uint_eq(b.store->csum->nr_unknown, 0);
	ck_assert_uint_eq(b.store->csum->nr_bad, 0);
	blob_close(blob);
	bench_close(&b);
	bench_check(&b);
	bench_open(&b);
	blob = store_find_blob(b.store, "large");
	use(&b, blob, 160000, 3);
	ck_assert_uint_eq(b.store->csum->nr_unknown, 0);
	bench_end(&b);
}

START_TEST(a_store_grows_into_new_groups_of_checksums)
{
	run_sim(1, 1, groups, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_store_grows_with_its_bdev,
				      a_store_cut_off_while_it_grows_has_one_size_or_the_other,
				      a_full_store_grows,
				      a_store_grows_into_new_groups_of_checksums};

	return run_tests("grow", tests, sizeof(tests) / sizeof(tests[0]));
}
