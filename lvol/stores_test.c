/* Stores as a whole: copies, growing, and what a damaged one still gives. */
#include "blob/format.h"
#include "lvol/testing.h"

static fiber_fn void copy_bdev(const char *from, const char *to)
{
	struct bdev_desc *in, *out;
	struct bdev_channel *in_ch, *out_ch;
	char *buf = aligned_alloc(4096, MIB);

	ck_assert_int_eq(bdev_open(from, false, NULL, NULL, &in), 0);
	ck_assert_int_eq(bdev_open(to, true, NULL, NULL, &out), 0);
	in_ch = bdev_channel_get(in);
	out_ch = bdev_channel_get(out);
	for (uint64_t at = 0; at < bdev_find(from)->nr_blocks; at += MIB / BS) {
		ck_assert_int_eq(bdev_read(in_ch, buf, at, MIB / BS), 0);
		ck_assert_int_eq(bdev_write(out_ch, buf, at, MIB / BS, 0), 0);
	}
	bdev_channel_put(in_ch);
	bdev_channel_put(out_ch);
	bdev_close(in);
	bdev_close(out);
	free(buf);
}

static void copies(void *arg)
{
	struct lvol_store *store = make_store(16);
	struct blob_reason reason = { "" };

	make_volume(store, "a", 4, true);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(bdev_malloc_create("copy", NULL, 16 * MIB / BS, BS, NULL), 0);
	copy_bdev("base", "copy");
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert_int_eq(lvol_store_open("copy", NULL, &reason), -EEXIST);
	ck_assert_ptr_nonnull(strstr(reason.text, "copy of store pool on base"));
	/* Another name makes it no other store. */
	ck_assert_int_eq(lvol_store_rename(store, "renamed"), 0);
	ck_assert_int_eq(lvol_store_open("copy", NULL, &reason), -EEXIST);
	ck_assert_ptr_nonnull(strstr(reason.text, "copy of store renamed on base"));
	ck_assert_int_eq(lvol_store_open_read_only("copy", NULL, &reason), -EEXIST);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("copy", &store, NULL), 0);
	ck_assert_ptr_nonnull(lvol_find("pool/a"));
	lvol_fini();
}

START_TEST(a_copy_of_an_open_store_is_refused_with_a_word)
{
	run_sim(1, 1, copies, NULL);
}
END_TEST

/* Both are examined at once. */
static void twins(void *arg)
{
	struct lvol_store *store = make_store(16);
	unsigned nr = 0;

	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(bdev_malloc_create("copy", NULL, 16 * MIB / BS, BS, NULL), 0);
	copy_bdev("base", "copy");
	lvol_init();
	bdev_wait_for_examine();
	for (store = lvol_store_first(); store; store = lvol_store_next(store))
		nr++;
	ck_assert_uint_eq(nr, 1);
	lvol_fini();
}

START_TEST(of_two_copies_that_appear_at_once_one_is_opened)
{
	run_sim(_i, 1, twins, NULL); /* _i: the seed */
}
END_TEST

/* The journal's second page goes, though later ones knew it. */
static fiber_fn void damage_journal(const char *name)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	struct blob_reason why;
	struct super super;
	char *buf = aligned_alloc(4096, PAGE_BYTES);
	uint64_t page;

	ck_assert_int_eq(bdev_open(name, true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_int_eq(bdev_read(ch, buf, 0, PAGE_BYTES / BS), 0);
	ck_assert_int_eq(super_decode(buf, 0, &super, &why), 0);
	page = super.journal_page + (super.journal_start + 4) % super.journal_pages;
	memset(buf, 0x33, PAGE_BYTES);
	ck_assert_int_eq(bdev_write(ch, buf, page * PAGE_BYTES / BS, PAGE_BYTES / BS, 0), 0);
	bdev_channel_put(ch);
	bdev_close(desc);
	free(buf);
}

static void damaged(void *arg)
{
	struct lvol_store *store = make_store(16);
	struct lvol_store_info info;
	struct blob_reason reason = { "" };
	struct lvol *lvol;

	ck_assert_int_eq(bdev_malloc_create("copy", NULL, 16 * MIB / BS, BS, NULL), 0);
	make_volume(store, "a", 8, true);
	for (unsigned i = 0; i < 8; i++) {
		ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'a' + i, i * MIB / BS, 8), 0);
		ck_assert_int_eq(io("pool/a", BDEV_FLUSH, 0, 0, 1), 0);
	}
	copy_bdev("base", "copy"); /* as a power cut would leave it */
	damage_journal("copy");
	ck_assert_int_eq(lvol_store_delete(store), 0);
	ck_assert_int_eq(lvol_store_open("copy", &store, &reason), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(reason.text, "journal"));
	ck_assert_int_eq(lvol_store_open_read_only("copy", &store, &reason), 0);
	lvol_store_get_info(store, &info);
	ck_assert(info.read_only);
	lvol = lvol_find("pool/a");
	ck_assert_ptr_nonnull(lvol);
	ck_assert(lvol_bdev(lvol)->read_only);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'a', 0, 8), 0); /* from before the damage */
	ck_assert_int_ne(io("pool/a", BDEV_WRITE, 'z', 0, 8), 0);
	ck_assert_int_eq(lvol_store_grow(store), -EROFS);
	ck_assert_int_eq(lvol_store_delete(store), -EROFS);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'a', 0, 8), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("copy", &store, &reason), -EUCLEAN); /* nothing was written */
	lvol_fini();
}

START_TEST(a_damaged_store_is_opened_read_only_when_asked)
{
	run_sim(1, 1, damaged, NULL);
}
END_TEST

static void nested(void *arg)
{
	struct lvol_store *store = make_store(64), *inner;
	struct lvol *a = make_volume(store, "a", 32, true);

	ck_assert_int_eq(lvol_store_create(&(struct lvol_store_create_opts){ .name = "inner", .base_bdev = "pool/a" }, &inner, NULL),
			 0);
	ck_assert_int_eq(lvol_resize(a, 16 * MIB), -EBUSY);
	ck_assert_int_eq(lvol_resize(a, 40 * MIB), 0);
	ck_assert_int_eq(lvol_store_grow(inner), 0);
	ck_assert_int_eq(lvol_store_close(inner), 0);
	ck_assert_int_eq(lvol_resize(a, 16 * MIB), 0);
	lvol_fini();
}

START_TEST(a_volume_does_not_shrink_under_a_store)
{
	run_sim(1, 1, nested, NULL);
}
END_TEST

static void grown(void *arg)
{
	struct lvol_store *store;
	struct lvol_store_info before, after;

	ck_assert_int_eq(bdev_malloc_create("base", NULL, 64 * MIB / BS, BS, NULL), 0);
	bdev_notify_resize(bdev_find("base"), 16 * MIB / BS);
	ck_assert_int_eq(lvol_store_create(&(struct lvol_store_create_opts){ .name = "pool", .base_bdev = "base" }, &store, NULL),
			 0);
	lvol_store_get_info(store, &before);
	bdev_notify_resize(bdev_find("base"), 64 * MIB / BS);
	ck_assert_int_eq(lvol_store_grow(store), 0);
	lvol_store_get_info(store, &after);
	ck_assert_uint_eq(after.total_data_clusters, before.total_data_clusters + 48);
	make_volume(store, "large", 40, false);
	ck_assert_int_eq(io("pool/large", BDEV_WRITE, 'x', 39 * MIB / BS, 8), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert_int_eq(io("pool/large", BDEV_READ, 'x', 39 * MIB / BS, 8), 0);
	lvol_fini();
}

START_TEST(a_store_grows_with_its_base)
{
	run_sim(1, 1, grown, NULL);
}
END_TEST

static void external(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol_info info;
	struct lvol *lvol;
	uuid_t none, image;

	uuid_clear(none);
	uuid_parse("6b29fc40-ca47-1067-b31d-00dd010662da", image);
	ck_assert_int_eq(bdev_malloc_create("image", image, 3 * MIB / BS, BS, NULL), 0);
	ck_assert_int_eq(io("image", BDEV_WRITE, 'i', 0, 3 * MIB / BS), 0);
	ck_assert_int_eq(lvol_clone_bdev(store, "nothing", "clone", none, &lvol), -ENODEV);
	ck_assert_int_eq(lvol_clone_bdev(store, "base", "clone", none, &lvol), -EINVAL);
	ck_assert_int_eq(lvol_clone_bdev(store, "image", "clone", none, &lvol), 0);
	ck_assert_int_eq(lvol_clone_bdev(store, "image", "clone", none, &lvol), -EEXIST);
	lvol_get_info(lvol_find("pool/clone"), &info);
	ck_assert_str_eq(info.external, "image");
	ck_assert(info.thin && !info.degraded);
	ck_assert_uint_eq(info.size_bytes, 3 * MIB);
	ck_assert_int_eq(io("pool/clone", BDEV_WRITE, 'c', 100, 10), 0);
	ck_assert_int_eq(io("pool/clone", BDEV_READ, 'i', 0, 100), 0);
	ck_assert_int_eq(io("pool/clone", BDEV_READ, 'c', 100, 10), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	/* The store comes before the image does. */
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("image")), 0);
	lvol_init();
	bdev_wait_for_examine();
	lvol_get_info(lvol_find("pool/clone"), &info);
	ck_assert(info.degraded);
	ck_assert_str_eq(info.external, "6b29fc40-ca47-1067-b31d-00dd010662da");
	ck_assert_int_eq(io("pool/clone", BDEV_READ, 'c', 100, 10), 0);
	ck_assert_int_eq(io("pool/clone", BDEV_READ, 'i', 110, 10), -EIO);
	ck_assert_int_eq(bdev_malloc_create("image", image, 3 * MIB / BS, BS, NULL), 0);
	ck_assert_int_eq(io("image", BDEV_WRITE, 'i', 0, 3 * MIB / BS), 0);
	bdev_wait_for_examine();
	ck_assert_int_eq(io("pool/clone", BDEV_READ, 'i', 110, 10), 0);
	lvol_fini();
}

START_TEST(a_volume_cloned_from_a_bdev_waits_for_it)
{
	run_sim(1, 1, external, NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stores");
	TCase *tcase = tcase_create("stores");
	SRunner *runner;
	int nr_failed;

	tcase_add_test(tcase, a_copy_of_an_open_store_is_refused_with_a_word);
	tcase_add_loop_test(tcase, of_two_copies_that_appear_at_once_one_is_opened, 1, 6);
	tcase_add_test(tcase, a_damaged_store_is_opened_read_only_when_asked);
	tcase_add_test(tcase, a_volume_does_not_shrink_under_a_store);
	tcase_add_test(tcase, a_store_grows_with_its_base);
	tcase_add_test(tcase, a_volume_cloned_from_a_bdev_waits_for_it);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
