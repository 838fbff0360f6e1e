/* Shallow copies to another bdev. */
#include "blob/internal.h"
#include "blob/testing.h"

#define SIZE_BLOCKS 2048u

static void target_rw(enum bdev_op op, uint64_t block, uint64_t nr, uint8_t *buf)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;

	ck_assert_int_eq(bdev_open("target", op == BDEV_WRITE, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_int_eq(op == BDEV_WRITE ? bdev_write(ch, buf, block, nr, 0) : bdev_read(ch, buf, block, nr), 0);
	bdev_channel_put(ch);
	bdev_close(desc);
}

static void expect(uint64_t block, uint64_t nr, uint8_t value)
{
	uint8_t *buf = malloc(nr * BLOCK);

	target_rw(BDEV_READ, block, nr, buf);
	assert_blocks(buf, nr, value);
	free(buf);
}

static void put(struct bench *b, struct blob *blob, uint64_t block, uint64_t nr, uint8_t value)
{
	uint8_t *buf = malloc(nr * BLOCK);

	fill_blocks(buf, nr, value);
	ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, block, nr, buf), 0);
	free(buf);
}

static struct blob *start(struct bench *b, uint64_t target_blocks)
{
	uint8_t *buf = malloc(target_blocks * BLOCK);

	bench_start(b);
	ck_assert_int_eq(bdev_malloc_create("target", NULL, target_blocks, BLOCK, NULL), 0);
	fill_blocks(buf, target_blocks, 0xee);
	target_rw(BDEV_WRITE, 0, target_blocks, buf);
	free(buf);
	return make_blob(b, "blob", SIZE_BLOCKS * BLOCK);
}

static void own(void *arg)
{
	struct bench b = {.create.checksums = *(bool *)arg};
	struct progress progress = {0};
	struct blob *blob = start(&b, SIZE_BLOCKS), *first, *second;

	put(&b, blob, 0, 640, 1);
	ck_assert_int_eq(blob_shallow_copy(blob, "target", NULL), -EPERM);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "first"}, &first), 0);
	put(&b, blob, 70, 2, 2);  /* a part of a cluster */
	put(&b, blob, 1920, 1, 3); /* where there was none */
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 512, 64, NULL), 0);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "second"}, &second), 0);
	put(&b, blob, 0, 8, 9);
	ck_assert_int_eq(blob_shallow_copy(second, "target", &progress), 0);
	ck_assert_uint_eq(progress.done, progress.total);
	ck_assert_uint_ge(progress.done, 2);
	expect(0, 64, 0xee); /* the first one's */
	expect(64, 6, 1);
	expect(70, 2, 2);
	expect(72, 56, 1);
	expect(128, 384, 0xee);
	expect(512, 64, 0); /* that it has no longer */
	expect(576, 1344, 0xee);
	expect(1920, 1, 3);
	expect(1921, 63, 0);
	expect(1984, 64, 0xee);
	/* One over the other is all of it. */
	ck_assert_int_eq(blob_shallow_copy(first, "target", NULL), 0);
	ck_assert_int_eq(blob_shallow_copy(second, "target", NULL), 0);
	expect(0, 70, 1);
	expect(70, 2, 2);
	expect(72, 440, 1);
	expect(512, 64, 0);
	expect(576, 64, 1);
	bench_end(&b);
}

START_TEST(a_shallow_copy_is_what_the_snapshot_below_has_not)
{
	run_sim(1, 1, own, &(bool){false});
	run_sim(1, 1, own, &(bool){true});
}
END_TEST

static void refused(void *arg)
{
	struct bench b = {0};
	struct blob *blob = start(&b, SIZE_BLOCKS - 1), *snap;
	struct bdev_desc *desc;

	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	ck_assert_int_eq(blob_shallow_copy(snap, "target", NULL), -EINVAL);
	ck_assert_int_eq(blob_shallow_copy(snap, "nothing", NULL), -ENODEV);
	ck_assert_int_eq(blob_shallow_copy(snap, "disk", NULL), -EBUSY);
	ck_assert_int_eq(bdev_malloc_create("other", NULL, SIZE_BLOCKS / 8, 4096, NULL), 0);
	ck_assert_int_eq(blob_shallow_copy(snap, "other", NULL), -EINVAL);
	ck_assert_int_eq(bdev_malloc_create("used", NULL, SIZE_BLOCKS, BLOCK, NULL), 0);
	ck_assert_int_eq(bdev_open("used", true, NULL, NULL, &desc), 0);
	ck_assert_int_eq(blob_shallow_copy(snap, "used", NULL), -EBUSY);
	bdev_close(desc);
	ck_assert_int_eq(blob_shallow_copy(snap, "used", NULL), 0);
	ck_assert(!bdev_is_open(bdev_find("used")));
	ck_assert_int_eq(blob_delete(snap), 0); /* nobody holds it */
	bench_end(&b);
}

START_TEST(a_target_that_does_not_fit_is_refused)
{
	run_sim(1, 1, refused, NULL);
}
END_TEST

static void cancel_soon(void *arg)
{
	fiber_sleep(300);
	((struct progress *)arg)->cancel = true;
}

static void cancelled(void *arg)
{
	struct bench b = {0};
	struct progress progress = {0};
	struct blob *blob = start(&b, SIZE_BLOCKS), *snap;

	put(&b, blob, 0, SIZE_BLOCKS, 1);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	ck_assert_int_eq(fiber_spawn(thread_current(), "cancel", cancel_soon, &progress), 0);
	ck_assert_int_eq(blob_shallow_copy(snap, "target", &progress), -ECANCELED);
	ck_assert_uint_gt(progress.done, 0);
	ck_assert_uint_lt(progress.done, progress.total);
	ck_assert_uint_eq(progress.total, SIZE_BLOCKS / 64);
	ck_assert(!bdev_is_open(bdev_find("target")));
	bench_end(&b);
}

static void delete_soon(void *arg)
{
	fiber_sleep(300);
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("target")), 0);
	*(bool *)arg = true;
}

static void target_deleted(void *arg)
{
	struct bench b = {0};
	struct blob *blob = start(&b, SIZE_BLOCKS), *snap;
	struct progress progress = {0};
	bool deleted = false;

	put(&b, blob, 0, SIZE_BLOCKS, 1);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	ck_assert_int_eq(fiber_spawn(thread_current(), "delete", delete_soon, &deleted), 0);
	ck_assert_int_eq(blob_shallow_copy(snap, "target", &progress), -ENODEV);
	ck_assert_uint_lt(progress.done, progress.total);
	while (!deleted)
		fiber_yield();
	bench_end(&b);
}

START_TEST(the_deletion_of_its_target_ends_a_shallow_copy)
{
	run_sim(1, 1, target_deleted, NULL);
}
END_TEST

START_TEST(a_shallow_copy_can_be_ended)
{
	run_sim(1, 1, cancelled, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_shallow_copy_is_what_the_snapshot_below_has_not, a_target_that_does_not_fit_is_refused,
				      a_shallow_copy_can_be_ended, the_deletion_of_its_target_ends_a_shallow_copy};

	return run_tests("copy", tests, sizeof(tests) / sizeof(tests[0]));
}
