/* Nodes of maps that come when they are needed and go again: what is read, what stays, and what a node that cannot be read costs. */
#include "blob/internal.h"
#include "blob/testing.h"

#define NR_CLUSTERS 64u /* of a blob; four to a leaf */
#define A_CLUSTER   (CLUSTER_BYTES / BLOCK)

static uint8_t buf[A_CLUSTER * BLOCK];

static struct blob *build(struct bench *b)
{
	struct blob *blob;

	b->create.leaf_shift = 2;
	b->create.inner_shift = 1;
	bench_start(b);
	blob = make_blob(b, "blob", NR_CLUSTERS * CLUSTER_BYTES);
	for (unsigned i = 0; i < NR_CLUSTERS; i++) {
		fill_blocks(buf, 8, i + 1);
		ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, i * A_CLUSTER, 8, buf), 0);
	}
	return blob;
}

static struct blob *reopen(struct bench *b, struct blob *blob)
{
	blob_close(blob);
	bench_close(b);
	bench_open(b);
	blob = store_find_blob(b->store, "blob");
	blob_open(blob);
	return blob;
}

static int read_cluster(struct bench *b, struct blob *blob, unsigned cluster)
{
	int rc = blob_rw(b, blob, BLOB_READ, 0, cluster * A_CLUSTER, 8, buf);

	if (!rc)
		assert_blocks(buf, 8, cluster + 1);
	return rc;
}

static uint64_t nr_reads(struct bench *b)
{
	struct store_stats stats;

	store_get_stats(b->store, &stats);
	return stats.nr_node_reads;
}

static uint64_t map_bytes(struct bench *b)
{
	struct store_stats stats;

	store_get_stats(b->store, &stats);
	return stats.map_bytes;
}

static unsigned nr_levels(struct blob *blob)
{
	return slot_node(blob->root)->level + 1;
}

static void opening(void *arg)
{
	struct bench b = {0};
	struct blob *blob = build(&b);
	struct blob_info info;

	blob = reopen(&b, blob);
	blob_get_info(blob, &info);
	ck_assert_uint_eq(info.nr_allocated_clusters, NR_CLUSTERS);
	ck_assert_uint_eq(nr_reads(&b), 0);
	ck_assert_uint_eq(map_bytes(&b), 0);
	ck_assert_int_eq(read_cluster(&b, blob, 17), 0);
	ck_assert_uint_eq(nr_reads(&b), nr_levels(blob));
	blob_close(blob);
	bench_end(&b);
}

START_TEST(opening_reads_no_node_and_a_read_only_those_on_its_way)
{
	run_sim(1, 1, opening, NULL);
}
END_TEST

struct shot {
	struct blob_io io;
	struct iovec iov;
	uint8_t buf[BLOCK];
	unsigned *left;
	struct fiber_wait *wait;
};

static void shot_done(struct blob_io *io, int status)
{
	struct shot *s = container_of(io, struct shot, io);

	ck_assert_int_eq(status, 0);
	if (--*s->left == 0)
		fiber_wake(s->wait, 0);
}

static void sharing(void *arg)
{
	struct bench b = {0};
	struct blob *blob = build(&b);
	struct shot shots[16];
	struct fiber_wait wait;
	unsigned left = 16;

	blob = reopen(&b, blob);
	fiber_wait_init(&wait);
	for (unsigned i = 0; i < 16; i++) {
		shots[i].left = &left;
		shots[i].wait = &wait;
		shots[i].iov = (struct iovec){shots[i].buf, BLOCK};
		memset(shots[i].buf, 21, BLOCK);
		shots[i].io = (struct blob_io){.done = shot_done, .blob = blob, .op = i % 4 ? BLOB_READ : BLOB_WRITE,
					       .iov = &shots[i].iov, .iovcnt = 1,
					       .offset_blocks = (20 + i % 4) * A_CLUSTER, .nr_blocks = 1};
		blob_submit(b.ch, &shots[i].io);
	}
	fiber_wait(&wait);
	for (unsigned i = 0; i < 16; i++)
		if (i % 4)
			assert_blocks(shots[i].buf, 1, 21 + i % 4);
	ck_assert_uint_eq(nr_reads(&b), nr_levels(blob));
	blob_close(blob);
	bench_end(&b);
}

START_TEST(requests_that_miss_the_same_node_share_one_read)
{
	for (unsigned seed = 1; seed <= 4; seed++)
		run_sim(seed, 1, sharing, NULL);
}
END_TEST

static void wait_small(struct bench *b, uint64_t bytes)
{
	for (unsigned i = 0; i < 100 && map_bytes(b) > bytes; i++)
		fiber_sleep(1000);
}

static void eviction(void *arg)
{
	struct bench b = {.open = {.map_cache_tiny = true, .map_cache_bytes = 2000}};
	struct blob *blob = build(&b);
	struct store_stats stats;

	for (unsigned i = 0; i < NR_CLUSTERS; i++)
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, i * A_CLUSTER + 8, 8, buf), 0);
	wait_small(&b, 2000);
	ck_assert_uint_le(map_bytes(&b), 2000);
	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < NR_CLUSTERS; i++)
			ck_assert_int_eq(read_cluster(&b, blob, i), 0);
	store_get_stats(b.store, &stats);
	ck_assert_uint_gt(stats.nr_node_evictions, NR_CLUSTERS / 4);
	ck_assert_uint_gt(stats.nr_node_reads, NR_CLUSTERS / 4);
	ck_assert_uint_eq(store_check_memory(b.store, print_finding, NULL), 0);
	wait_small(&b, 2000);
	ck_assert_uint_le(map_bytes(&b), 2000);
	blob_close(blob);
	bench_close(&b);
	bench_check(&b);
	bench_end(&b);
}

START_TEST(what_the_cache_may_not_hold_is_checkpointed_and_goes_and_comes_back_as_it_was)
{
	for (unsigned seed = 1; seed <= 3; seed++)
		run_sim(seed, 1, eviction, NULL);
}
END_TEST

static void unreadable(void *arg)
{
	struct bench b = {0};
	struct blob *blob = build(&b), *snapshot;
	struct store_info store;
	struct blob_info info;

	log_set_level(LOG_ERROR - 1);
	blob = reopen(&b, blob);
	ck_assert_int_eq(read_cluster(&b, blob, 56), 0); /* all above the leaf of 60 to 63 is here now */
	crash_disk_set_faults(b.disk, 1000000, 0, 0);
	ck_assert_int_eq(read_cluster(&b, blob, 61), -EIO);
	crash_disk_set_faults(b.disk, 0, 0, 0);
	store_get_info(b.store, &store);
	blob_get_info(blob, &info);
	ck_assert_uint_eq(store.nr_degraded, 1);
	ck_assert(info.degraded);
	for (unsigned i = 0; i < NR_CLUSTERS; i++)
		ck_assert_int_eq(read_cluster(&b, blob, i), i < 60 ? 0 : -EIO);
	for (unsigned i = 56; i < NR_CLUSTERS; i++) {
		fill_blocks(buf, 8, i + 1);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, i * A_CLUSTER, 8, buf), i < 60 ? 0 : -EIO);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, i * A_CLUSTER + 16, 8, buf), i < 60 ? 0 : -EIO);
	}
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 62 * A_CLUSTER, A_CLUSTER, NULL), -EIO);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snapshot"}, &snapshot), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 3 * A_CLUSTER, A_CLUSTER, NULL), 0);
	ck_assert_int_eq(store_checkpoint(b.store), 0);
	/* It was only the device's weakness: the next opening finds what is there. */
	blob = reopen(&b, blob);
	for (unsigned i = 0; i < NR_CLUSTERS; i++)
		if (i != 3)
			ck_assert_int_eq(read_cluster(&b, blob, i), 0);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(a_node_that_cannot_be_read_costs_its_range_alone)
{
	run_sim(5, 1, unreadable, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {opening_reads_no_node_and_a_read_only_those_on_its_way,
				      requests_that_miss_the_same_node_share_one_read,
				      what_the_cache_may_not_hold_is_checkpointed_and_goes_and_comes_back_as_it_was,
				      a_node_that_cannot_be_read_costs_its_range_alone};

	return run_tests("cache", tests, sizeof(tests) / sizeof(tests[0]));
}
