/* Blobs that show another bdev's bytes where they have none, through all that can happen to either. */
#include "blob/internal.h"
#include "blob/testing.h"

#define EXT_BYTES  (300u * 1024 + 1536) /* neither whole clusters nor whole sub-blocks */
#define EXT_BLOCKS (EXT_BYTES / BLOCK)
#define IMAGE_UUID "6b29fc40-ca47-1067-b31d-00dd010662da"

struct ext_case {
	bool checksums;
};

/* @value: in all its blocks; 0: in each another. */
static void make_bdev(const char *name, const char *uuid_text, uint64_t nr_blocks, uint8_t value)
{
	uuid_t uuid;
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	uint8_t buf[BLOCK];

	uuid_parse(uuid_text, uuid);
	ck_assert_int_eq(bdev_malloc_create(name, uuid, nr_blocks, BLOCK, NULL), 0);
	ck_assert_int_eq(bdev_open(name, true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	for (uint64_t i = 0; i < nr_blocks; i++) {
		fill_blocks(buf, 1, value ? value : 1 + i % 200);
		ck_assert_int_eq(bdev_write(ch, buf, i, 1, 0), 0);
	}
	bdev_channel_put(ch);
	bdev_close(desc);
}

static struct blob *clone_image(struct bench *b, const char *name)
{
	struct blob *blob;

	ck_assert_int_eq(blob_create(b->store, &(struct blob_create_opts){.name = name, .external = "image"}, &blob), 0);
	blob_open(blob);
	return blob;
}

/* value 0: what the external bdev has there, or zero behind its end; -1: zero; else that. */
static void expect(struct bench *b, struct blob *blob, uint64_t from, uint64_t end, int value)
{
	uint8_t *buf = malloc((end - from) * BLOCK);

	ck_assert_int_eq(blob_rw(b, blob, BLOB_READ, 0, from, end - from, buf), 0);
	for (uint64_t i = from; i < end; i++) {
		int want = value < 0 ? 0 : value ? value : i < EXT_BLOCKS ? (int)(1 + i % 200) : 0;

		for (unsigned k = 0; k < BLOCK; k++)
			if (buf[(i - from) * BLOCK + k] != want)
				ck_abort_msg("%s: block %lu, byte %u is %u, not %d", blob->name, (unsigned long)i, k,
					     buf[(i - from) * BLOCK + k], want);
	}
	free(buf);
}

static void put(struct bench *b, struct blob *blob, uint64_t from, uint64_t end, uint8_t value)
{
	uint8_t *buf = malloc((end - from) * BLOCK);

	fill_blocks(buf, end - from, value);
	ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, from, end - from, buf), 0);
	free(buf);
}

static void start(struct bench *b, const struct ext_case *c)
{
	b->create.checksums = c->checksums;
	b->create.leaf_shift = b->create.inner_shift = 2;
	bench_start(b);
	make_bdev("image", IMAGE_UUID, EXT_BLOCKS, 0);
}

static void reopen(struct bench *b, struct blob **blob)
{
	char name[64];

	snprintf(name, sizeof(name), "%s", (*blob)->name);
	blob_close(*blob);
	ck_assert_uint_eq(store_check_memory(b->store, print_finding, NULL), 0);
	bench_close(b);
	bench_check(b);
	bench_open(b);
	*blob = store_find_blob(b->store, name);
	ck_assert_ptr_nonnull(*blob);
	blob_open(*blob);
}

static void shows(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	struct blob_info info;
	uint64_t size;

	start(&b, arg);
	blob = clone_image(&b, "clone");
	size = blob_nr_blocks(blob);
	ck_assert_uint_eq(size, 10 * 64);
	expect(&b, blob, 0, size, 0);
	expect(&b, blob, 3, 5, 0);
	put(&b, blob, 9, 10, 250);	/* within a sub-block: the rest comes along */
	put(&b, blob, 130, 150, 251);	/* several */
	put(&b, blob, 600, 602, 252);	/* where the bdev ends within the sub-block */
	put(&b, blob, 630, 632, 253);	/* behind its end */
	for (unsigned i = 0; i < 2; i++) {
		expect(&b, blob, 0, 9, 0);
		expect(&b, blob, 9, 10, 250);
		expect(&b, blob, 10, 130, 0);
		expect(&b, blob, 130, 150, 251);
		expect(&b, blob, 150, 600, 0);
		expect(&b, blob, 600, 602, 252);
		expect(&b, blob, 602, 630, 0);
		expect(&b, blob, 630, 632, 253);
		expect(&b, blob, 632, size, 0);
		blob_get_info(blob, &info);
		ck_assert(info.external && !info.external_missing);
		ck_assert_uint_eq(info.nr_allocated_clusters, 3);
		if (!i)
			reopen(&b, &blob);
	}
	bench_end(&b);
}

START_TEST(a_blob_shows_the_external_bdev_where_it_was_not_written)
{
	run_sim(1, 1, shows, &(struct ext_case){.checksums = false});
	run_sim(1, 1, shows, &(struct ext_case){.checksums = true});
}
END_TEST

static void unmapped(void *arg)
{
	struct bench b = {0};
	struct blob *blob;

	start(&b, arg);
	blob = clone_image(&b, "clone");
	put(&b, blob, 64, 72, 9);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 5, 1, NULL), 0);	 /* in a sub-block */
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 60, 150, NULL), 0);	 /* parts and whole clusters */
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE_ZEROES, 0, 320, 128, NULL), 0); /* two whole ones */
	for (unsigned i = 0; i < 2; i++) {
		expect(&b, blob, 0, 5, 0);
		expect(&b, blob, 5, 6, -1);
		expect(&b, blob, 6, 60, 0);
		expect(&b, blob, 60, 210, -1);
		expect(&b, blob, 210, 320, 0);
		expect(&b, blob, 320, 448, -1);
		expect(&b, blob, 448, 600, 0);
		if (!i)
			reopen(&b, &blob);
	}
	/* What was unmapped is written as anything else: zeros around it, and nothing of the bdev. */
	put(&b, blob, 330, 331, 77);
	expect(&b, blob, 320, 330, -1);
	expect(&b, blob, 330, 331, 77);
	expect(&b, blob, 331, 448, -1);
	bench_end(&b);
}

START_TEST(what_was_unmapped_reads_zero_and_not_the_external_bdev)
{
	run_sim(1, 1, unmapped, &(struct ext_case){.checksums = false});
	run_sim(1, 1, unmapped, &(struct ext_case){.checksums = true});
}
END_TEST

static void family(void *arg)
{
	struct bench b = {0};
	struct blob *blob, *snap, *clone;
	struct blob_info info;
	struct bdev *image;

	start(&b, arg);
	blob = clone_image(&b, "blob");
	put(&b, blob, 10, 20, 9);
	ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = "snap"}, &snap), 0);
	put(&b, blob, 100, 101, 10);
	put(&b, blob, 12, 13, 11);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 256, 64, NULL), 0);
	ck_assert_int_eq(blob_clone(snap, &(struct blob_copy_opts){.name = "clone"}, &clone), 0);
	blob_open(clone);
	put(&b, clone, 20, 21, 12);
	expect(&b, snap, 0, 10, 0);
	expect(&b, snap, 10, 20, 9);
	expect(&b, snap, 20, 640, 0);
	expect(&b, blob, 12, 13, 11);
	expect(&b, blob, 13, 20, 9);
	expect(&b, blob, 20, 100, 0);
	expect(&b, blob, 100, 101, 10);
	expect(&b, blob, 256, 320, -1);
	expect(&b, blob, 320, 640, 0);
	expect(&b, clone, 10, 20, 9);
	expect(&b, clone, 20, 21, 12);
	expect(&b, clone, 21, 640, 0);
	/* Inflated, it needs nobody. */
	ck_assert_int_eq(blob_inflate(clone, NULL), 0);
	blob_get_info(clone, &info);
	ck_assert(!info.external);
	ck_assert_int_eq(blob_revert(blob, snap), 0);
	expect(&b, blob, 0, 10, 0);
	expect(&b, blob, 10, 20, 9);
	expect(&b, blob, 20, 640, 0);
	ck_assert_int_eq(blob_resize(clone, 20 * 32768), 0);
	image = bdev_find("image");
	ck_assert_int_eq(bdev_unregister_wait(image), 0);
	expect(&b, clone, 10, 20, 9);
	expect(&b, clone, 20, 21, 12);
	expect(&b, clone, 21, 1280, 0);
	blob_close(clone);
	reopen(&b, &blob);
	clone = store_find_blob(b.store, "clone");
	expect(&b, clone, 21, 1280, 0);
	bench_end(&b);
}

START_TEST(snapshots_and_clones_show_it_and_an_inflated_one_needs_it_no_more)
{
	run_sim(1, 1, family, &(struct ext_case){.checksums = false});
	run_sim(1, 1, family, &(struct ext_case){.checksums = true});
}
END_TEST

static void shrunk(void *arg)
{
	struct bench b = {0};
	struct blob *blob;

	start(&b, arg);
	blob = clone_image(&b, "blob");
	ck_assert_int_eq(blob_resize(blob, 4 * 32768), 0);
	ck_assert_int_eq(blob_resize(blob, 10 * 32768), 0);
	expect(&b, blob, 0, 256, 0);
	expect(&b, blob, 256, 640, -1);
	reopen(&b, &blob);
	expect(&b, blob, 0, 256, 0);
	expect(&b, blob, 256, 640, -1);
	bench_end(&b);
}

/* Four clusters show the image; behind them are zeros, where the parent shows it, has its own, or has nothing. */
static void shown_anew(void *arg)
{
	struct blob_copy_opts opts = {.name = "snapshot"};
	struct blob *blob, *snapshot;
	struct bench b = {0};

	start(&b, arg);
	make_bdev("other", "6b29fc40-ca47-1067-b31d-00dd010662db", 16 * 64, 255);
	blob = clone_image(&b, "blob");
	ck_assert_int_eq(blob_resize(blob, 14 * 32768), 0);
	put(&b, blob, 0, 8, 7);
	put(&b, blob, 5 * 64, 5 * 64 + 8, 7);
	put(&b, blob, 12 * 64, 12 * 64 + 8, 7);
	ck_assert_int_eq(blob_snapshot(blob, &opts, &snapshot), 0);
	put(&b, blob, 8, 16, 8);
	ck_assert_int_eq(blob_resize(blob, 4 * 32768), 0);
	ck_assert_int_eq(blob_resize(blob, 14 * 32768), 0);
	ck_assert_int_eq(blob_set_external(blob, "other"), 0);
	for (unsigned i = 0; i < 2; i++) {
		expect(&b, blob, 8, 16, 8);
		expect(&b, blob, 64, 4 * 64, 255);
		expect(&b, blob, 4 * 64, 10 * 64, -1);
		expect(&b, blob, 12 * 64, 13 * 64, -1);
		reopen(&b, &blob);
	}
	bench_end(&b);
}

/* What a host made zero, where the external bdev ends and the parent had something. */
static void zeroed_behind(void *arg)
{
	struct blob_copy_opts opts = {.name = "snapshot"};
	struct blob *blob, *snapshot;
	struct bench b = {0};

	start(&b, arg);
	make_bdev("other", "6b29fc40-ca47-1067-b31d-00dd010662db", 16 * 64, 255);
	blob = clone_image(&b, "blob");
	ck_assert_int_eq(blob_resize(blob, 14 * 32768), 0);
	put(&b, blob, 10 * 64, 12 * 64, 7);
	ck_assert_int_eq(blob_snapshot(blob, &opts, &snapshot), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, 10 * 64, 128, NULL), 0);
	ck_assert_int_eq(blob_set_external(blob, "other"), 0);
	expect(&b, blob, 0, 10 * 64, 255);
	expect(&b, blob, 10 * 64, 12 * 64, -1);
	expect(&b, blob, 12 * 64, 14 * 64, 255);
	bench_end(&b);
}

START_TEST(zeros_behind_what_showed_a_bdev_stay_zeros_when_another_is_shown)
{
	run_sim(1, 1, shown_anew, &(struct ext_case){.checksums = false});
	run_sim(1, 1, zeroed_behind, &(struct ext_case){.checksums = true});
}
END_TEST

START_TEST(what_was_cut_off_does_not_show_it_again)
{
	run_sim(1, 1, shrunk, &(struct ext_case){.checksums = false});
}
END_TEST

static void missing(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	struct blob_info info;
	uint8_t buf[64 * BLOCK];

	start(&b, arg);
	blob = clone_image(&b, "blob");
	put(&b, blob, 8, 16, 5);
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("image")), 0);
	for (unsigned i = 0; i < 2; i++) {
		blob_get_info(blob, &info);
		ck_assert(info.external && info.external_missing);
		expect(&b, blob, 8, 16, 5);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 1, buf), -EIO);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 64, buf), -EIO);
		fill_blocks(buf, 1, 6);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 100, 1, buf), -EIO); /* the rest of the sub-block is missing */
		put(&b, blob, 16 + 8 * i, 24 + 8 * i, 7);
		if (!i)
			reopen(&b, &blob);
	}
	make_bdev("image", IMAGE_UUID, EXT_BLOCKS, 0);
	store_find_externals(b.store);
	expect(&b, blob, 0, 8, 0);
	expect(&b, blob, 8, 16, 5);
	expect(&b, blob, 16, 32, 7);
	expect(&b, blob, 32, 640, 0);
	/* Nobody shows it any more: it is let go. */
	blob_close(blob);
	ck_assert_int_eq(blob_delete(blob), 0);
	while (bdev_is_open(bdev_find("image")))
		fiber_sleep(100);
	bench_end(&b);
}

START_TEST(without_the_external_bdev_only_what_is_its_is_an_error)
{
	run_sim(1, 1, missing, &(struct ext_case){.checksums = false});
	run_sim(1, 1, missing, &(struct ext_case){.checksums = true});
}
END_TEST

static void refused(void *arg)
{
	struct bench b = {0};
	struct blob *blob;

	start(&b, arg);
	ck_assert_int_eq(blob_create(b.store, &(struct blob_create_opts){.name = "a", .external = "none"}, &blob), -ENODEV);
	ck_assert_int_eq(blob_create(b.store, &(struct blob_create_opts){.name = "a", .external = "disk"}, &blob), -EINVAL);
	ck_assert_int_eq(blob_create(b.store, &(struct blob_create_opts){.name = "a", .external = "image", .thick = true}, &blob),
			 -EINVAL);
	ck_assert_ptr_null(store_find_blob(b.store, "a"));
	bench_end(&b);
}

static void cut_short(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	struct blob_info info;
	uint8_t buf[BLOCK];

	start(&b, arg);
	blob = clone_image(&b, "blob");
	put(&b, blob, 8, 16, 5);
	bdev_notify_resize(bdev_find("image"), 4 * 64);
	for (unsigned i = 0; i < 2; i++) {
		fiber_sleep(10000);
		blob_get_info(blob, &info);
		ck_assert(info.external && info.external_missing);
		expect(&b, blob, 8, 16, 5);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 1, buf), -EIO);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 5 * 64, 1, buf), -EIO);
		if (!i)
			reopen(&b, &blob);
	}
	bdev_notify_resize(bdev_find("image"), EXT_BLOCKS);
	store_find_externals(b.store);
	expect(&b, blob, 16, 640, 0);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(an_external_bdev_that_was_cut_is_not_taken_for_zeros)
{
	run_sim(1, 1, cut_short, &(struct ext_case){.checksums = false});
}
END_TEST

START_TEST(what_cannot_be_shown_is_refused)
{
	run_sim(1, 1, refused, &(struct ext_case){.checksums = false});
}
END_TEST

/* A power cut anywhere in writes and unmaps: the bdev's bytes, what was written, or zero, and never a mixture within a block. */
static void cut(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct bench b = {0};
	struct blob *blob;
	uint8_t buf[8 * BLOCK], *all = malloc(640 * BLOCK);

	start(&b, &(struct ext_case){.checksums = seed % 2});
	blob = clone_image(&b, "blob");
	crash_disk_cut_at(b.disk, crash_disk_nr_events(b.disk) + 1 + seed);
	for (unsigned i = 0; i < 12; i++) {
		fill_blocks(buf, 8, 240 + i % 2);
		(void)blob_rw(&b, blob, i % 3 == 2 ? BLOB_UNMAP : BLOB_WRITE, i % 4 ? 0 : BLOB_IO_FUA, (i * 61) % 600, 1 + i % 8,
			      i % 3 == 2 ? NULL : buf);
	}
	blob_close(blob);
	bench_crash(&b, CRASH_FATE_SEEDED, seed);
	make_bdev("image", IMAGE_UUID, EXT_BLOCKS, 0); /* it went with the power */
	store_find_externals(b.store);
	blob = store_find_blob(b.store, "blob");
	ck_assert_uint_eq(store_check_memory(b.store, print_finding, NULL), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 640, all), 0);
	for (uint64_t i = 0; i < 640; i++) {
		uint8_t v = all[i * BLOCK];

		ck_assert(v == 240 || v == 241 || v == 0 || (i < EXT_BLOCKS && v == 1 + i % 200));
		assert_blocks(all + i * BLOCK, 1, v);
	}
	free(all);
	bench_end(&b);
}

/* Every sub-block that reads differently is told, and what is told as not mapped reads zero. */
static void expect_diff(struct bench *b, struct blob *from, struct blob *to, bool whole_clusters)
{
	struct blob_diff diff = {.from = from, .to = to, .whole_clusters = whole_clusters};
	uint64_t size = blob_nr_blocks(to), told = 0;
	uint8_t *old = malloc(size * BLOCK), *new = malloc(size * BLOCK);
	struct blob_range range;
	uint32_t nr;

	ck_assert_int_eq(blob_rw(b, from, BLOB_READ, 0, 0, size, old), 0);
	ck_assert_int_eq(blob_rw(b, to, BLOB_READ, 0, 0, size, new), 0);
	while (!blob_diff_next(&diff, &range, 1, &nr) && nr) {
		ck_assert_uint_ge(range.offset_bytes, told);
		ck_assert_int_eq(memcmp(old + told, new + told, range.offset_bytes - told), 0);
		told = range.offset_bytes + range.len_bytes;
		for (uint64_t i = range.offset_bytes; i < told && !range.mapped; i++)
			ck_assert_uint_eq(new[i], 0);
	}
	ck_assert_int_eq(memcmp(old + told, new + told, size * BLOCK - told), 0);
	free(old);
	free(new);
}

static void diffed(void *arg)
{
	struct bench b = {0};
	struct blob *blob, *snap[3], *plain;

	start(&b, arg);
	blob = clone_image(&b, "blob");
	plain = make_blob(&b, "plain", 320 * 1024);
	put(&b, blob, 20, 30, 240);
	for (unsigned i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "s%u", i);
		ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){.name = name}, &snap[i]), 0);
		blob_open(snap[i]);
		ck_assert_int_eq(blob_resize(blob, (6 - 2 * i) * CLUSTER_BYTES), 0);
		ck_assert_int_eq(blob_resize(blob, 10 * CLUSTER_BYTES), 0);
		if (i == 1)
			put(&b, blob, 9 * 64, 9 * 64 + 3, 241);
	}
	for (unsigned i = 0; i < 9; i++)
		for (unsigned whole = 0; whole < 2; whole++)
			expect_diff(&b, snap[i / 3], snap[i % 3], whole);
	for (unsigned i = 0; i < 3; i++) {
		expect_diff(&b, plain, snap[i], i % 2);
		expect_diff(&b, snap[i], plain, i % 2);
		blob_close(snap[i]);
	}
	blob_close(blob);
	blob_close(plain);
	bench_end(&b);
}

START_TEST(what_shows_the_external_bdev_no_more_is_told_as_changed)
{
	run_sim(1, 1, diffed, &(struct ext_case){.checksums = false});
}
END_TEST

START_TEST(a_power_cut_leaves_nothing_but_what_was_there_or_written)
{
	for (uint64_t seed = 1; seed < 30; seed++)
		run_sim(seed, 1, cut, &seed);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_blob_shows_the_external_bdev_where_it_was_not_written,
				      what_was_unmapped_reads_zero_and_not_the_external_bdev,
				      snapshots_and_clones_show_it_and_an_inflated_one_needs_it_no_more,
				      what_was_cut_off_does_not_show_it_again,
				      zeros_behind_what_showed_a_bdev_stay_zeros_when_another_is_shown,
				      without_the_external_bdev_only_what_is_its_is_an_error,
				      an_external_bdev_that_was_cut_is_not_taken_for_zeros,
				      what_cannot_be_shown_is_refused,
				      what_shows_the_external_bdev_no_more_is_told_as_changed,
				      a_power_cut_leaves_nothing_but_what_was_there_or_written};

	return run_tests("external", tests, sizeof(tests) / sizeof(tests[0]));
}
