/*
 * A store on a device that has become shorter: refused for writing; read-only it shows what is there, and of what lies behind the
 * end an error, never zeros and never other bytes.
 */
#include "blob/internal.h"
#include "blob/testing.h"

#define NR_BLOBS    3u
#define BLOB_BLOCKS 6144u
#define MIB	    (1u << 20)

struct cut {
	struct bench b;
	bool crashed; /* what was written lately is in the journal */
	uint64_t nr_good, nr_lost, nr_gone;
};

static const char *const names[NR_BLOBS] = {"old", "new", "other"};

static uint8_t stamp(unsigned k, uint64_t sub)
{
	if (k == 1 && sub % 3)
		k = 0; /* as the snapshot has it */
	return 1 + (k * 83 + sub * 7) % 250;
}

static void write_blob(struct bench *b, struct blob *blob, unsigned k, uint64_t step)
{
	uint8_t buf[BLOB_SUB_SIZE];

	for (uint64_t sub = 0; sub < BLOB_BLOCKS / 8; sub += step) {
		memset(buf, stamp(k, sub), sizeof(buf));
		ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, sub * 8, 8, buf), 0);
	}
}

static void build(struct cut *c)
{
	struct bench *b = &c->b;
	struct blob *blob, *old, *other;

	b->create.leaf_shift = 3;
	b->create.inner_shift = 2;
	b->create.journal_pages = 64;
	bench_start(b);
	blob = make_blob(b, "new", BLOB_BLOCKS * BLOCK);
	write_blob(b, blob, 0, 1);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "old"}, &old), 0);
	other = make_blob(b, "other", BLOB_BLOCKS * BLOCK);
	write_blob(b, other, 2, 1);
	ck_assert_int_eq(store_checkpoint(b->store), 0);
	write_blob(b, blob, 1, 3);
	ck_assert_int_eq(blob_rw(b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	blob_close(blob);
	blob_close(other);
	if (!c->crashed)
		bench_close(b);
}

static void copy_to(const char *name, uint64_t bytes)
{
	struct bdev_desc *in, *out;
	struct bdev_channel *in_ch, *out_ch;
	char *buf = aligned_alloc(4096, 65536);

	ck_assert_int_eq(bdev_malloc_create(name, NULL, bytes / BLOCK, BLOCK, NULL), 0);
	ck_assert_int_eq(bdev_open("disk", false, NULL, NULL, &in), 0);
	ck_assert_int_eq(bdev_open(name, true, NULL, NULL, &out), 0);
	in_ch = bdev_channel_get(in);
	out_ch = bdev_channel_get(out);
	for (uint64_t at = 0; at < bytes / BLOCK; at += 65536 / BLOCK) {
		uint64_t nr = bytes / BLOCK - at < 65536 / BLOCK ? bytes / BLOCK - at : 65536 / BLOCK;

		ck_assert_int_eq(bdev_read(in_ch, buf, at, nr), 0);
		ck_assert_int_eq(bdev_write(out_ch, buf, at, nr, 0), 0);
	}
	bdev_channel_put(in_ch);
	bdev_channel_put(out_ch);
	bdev_close(in);
	bdev_close(out);
	free(buf);
}

/* Without the end of the journal a blob is as the checkpoint had it, and the store says so. */
static uint8_t expected(struct bench *b, uint8_t found, unsigned k, uint64_t sub)
{
	const char *second = store_degraded(b->store, 1);

	if (k == 1 && second && strstr(second, "journal lies behind") && found == stamp(0, sub))
		return found;
	return stamp(k, sub);
}

static void look_at(struct cut *c, struct bench *b, unsigned k)
{
	struct blob *blob = store_find_blob(b->store, names[k]);
	uint8_t buf[2 * BLOB_SUB_SIZE];
	struct blob_info info;
	uint64_t nr_lost = 0;

	if (!blob) {
		struct store_info store;

		store_get_info(b->store, &store);
		ck_assert_uint_gt(store.nr_degraded, 1); /* its page, or what leads there */
		c->nr_gone++;
		return;
	}
	blob_open(blob);
	for (uint64_t sub = 0; sub < BLOB_BLOCKS / 8; sub++) {
		/* A whole one, then a part that needs more read around it where there are checksums, then two at once. */
		uint64_t nr = sub % 2 ? 8 : sub % 4 ? 3 : 16;
		int rc = blob_rw(b, blob, BLOB_READ, 0, sub * 8, nr, buf);

		ck_assert(rc == 0 || rc == -EIO);
		nr_lost += rc != 0;
		if (rc)
			continue;
		assert_blocks(buf, nr < 8 ? nr : 8, expected(b, buf[0], k, sub));
		if (nr == 16)
			assert_blocks(buf + BLOB_SUB_SIZE, 8, expected(b, buf[BLOB_SUB_SIZE], k, sub + 1));
		c->nr_good++;
	}
	ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, 0, 8, buf), -EROFS);
	blob_get_info(blob, &info);
	ck_assert_int_eq(info.degraded, nr_lost != 0);
	c->nr_lost += nr_lost;
	blob_close(blob);
}

static void cut_at(struct cut *c, uint64_t bytes)
{
	struct bench b = {.open = {.read_only = true}};
	struct blob_reason why;
	struct store_label label;

	copy_to("short", bytes);
	ck_assert_int_eq(store_open("short", NULL, &b.store, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "the device only"));
	ck_assert_int_eq(store_probe("short", &label, &why), 0);
	ck_assert_str_eq(label.name, "store");
	ck_assert_int_eq(store_open("short", &b.open, &b.store, &why), 0);
	ck_assert_ptr_nonnull(strstr(store_degraded(b.store, 0), "the device ends"));
	b.ch = blob_channel_get(b.store);
	for (unsigned k = 0; k < NR_BLOBS; k++)
		look_at(c, &b, k);
	bench_close(&b);
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("short")), 0);
}

static void run_cut(void *arg)
{
	struct cut *c = arg;
	uint64_t good = UINT64_MAX;

	build(c);
	for (uint64_t mib = DISK_BYTES / MIB - 1; mib; mib--) {
		c->nr_good = 0;
		cut_at(c, mib * MIB + (mib > 1 ? 0 : 8192)); /* at last just what has both superblocks */
		ck_assert_uint_le(c->nr_good, good);
		good = c->nr_good;
		if (mib == DISK_BYTES / MIB - 1)
			ck_assert_uint_eq(c->nr_good, NR_BLOBS * BLOB_BLOCKS / 8); /* only copies of metadata are gone */
		if (mib == 6)
			ck_assert_uint_gt(c->nr_good, 100);
	}
	ck_assert_uint_gt(c->nr_lost, 1000);
	bench_end(&c->b);
}

static void both(bool checksums)
{
	struct cut closed = {.b.create.checksums = checksums}, crashed = {.b.create.checksums = checksums, .crashed = true};

	run_sim(1, 1, run_cut, &closed);
	run_sim(1, 1, run_cut, &crashed);
}

START_TEST(a_store_on_a_device_that_was_cut_shows_what_is_there_and_an_error_for_the_rest)
{
	both(false);
}
END_TEST

START_TEST(so_does_one_with_checksums)
{
	both(true);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_store_on_a_device_that_was_cut_shows_what_is_there_and_an_error_for_the_rest,
				      so_does_one_with_checksums};

	return run_tests("cut", tests, sizeof(tests) / sizeof(tests[0]));
}
