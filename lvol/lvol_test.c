/* Stores and volumes as bdevs, on memory: creating to deleting, names, full stores, reopening, threads. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lvol/testing.h"

static void life(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *lvol = make_volume(store, "a", 8, true);
	struct bdev *bdev = lvol_bdev(lvol);
	struct lvol_store_info store_info;
	struct lvol_info info;
	char uuid_text[UUID_STR_LEN];
	const char *who;

	uuid_unparse_lower(bdev->uuid, uuid_text);
	ck_assert_str_eq(bdev->name, uuid_text);
	ck_assert_str_eq(bdev->alias, "pool/a");
	ck_assert_str_eq(bdev->product_name, "Logical Volume");
	ck_assert_uint_eq(bdev->nr_blocks, 8 * MIB / BS);
	ck_assert(bdev->thin && bdev->unmap_zeroes && !bdev->has_write_cache);
	ck_assert_uint_eq(bdev->unmap_granularity_blocks, 4096 / BS);
	ck_assert_ptr_eq(lvol_find("pool/a"), lvol);
	ck_assert_ptr_eq(lvol_find(uuid_text), lvol);
	ck_assert_ptr_eq(lvol_store_find("pool"), store);
	ck_assert(bdev_is_claimed(bdev_find("base"), &who));
	lvol_get_info(lvol, &info);
	ck_assert_uint_eq(info.num_allocated_clusters, 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 0, 64), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'x', 5, 3), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'x', 5, 3), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 0, 5), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 8, 20), 0);
	ck_assert_int_eq(io("pool/a", BDEV_FLUSH, 0, 0, 1), 0);
	lvol_get_info(lvol, &info);
	ck_assert_uint_eq(info.num_allocated_clusters, 1);
	ck_assert_str_eq(info.base_bdev, "base");
	ck_assert_str_eq(info.store_name, "pool");
	ck_assert_int_eq(io("pool/a", BDEV_UNMAP, 0, 0, 16), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 0, 16), 0);
	ck_assert_int_eq(lvol_delete(lvol), 0);
	ck_assert_ptr_null(lvol_find("pool/a"));
	ck_assert_ptr_null(lvol_first(store));
	lvol_store_get_info(store, &store_info);
	ck_assert_uint_eq(store_info.nr_lvols, 0);
	lvol_fini();
	ck_assert(!bdev_is_claimed(bdev_find("base"), &who));
}

START_TEST(a_volume_lives_from_creating_to_deleting)
{
	run_sim(1, 1, life, NULL);
}
END_TEST

START_TEST(a_volume_lives_from_creating_to_deleting_for_real)
{
	run_real(NULL, life, NULL);
}
END_TEST

static void names(void *arg)
{
	struct lvol_store *store = make_store(64), *other;
	struct lvol *a = make_volume(store, "a", 4, true), *b = make_volume(store, "b", 4, true), *c;
	struct lvol_create_opts opts = { .name = "a", .size_bytes = MIB, .thin = true };
	struct lvol_store_create_opts again = { .name = "pool", .base_bdev = "second" };
	char uuid_text[UUID_STR_LEN];

	ck_assert_int_eq(lvol_create(store, &opts, &c), -EEXIST);
	opts.name = "x/y";
	ck_assert_int_eq(lvol_create(store, &opts, &c), -EINVAL);
	opts.name = "";
	ck_assert_int_eq(lvol_create(store, &opts, &c), -EINVAL);
	opts.name = "c";
	opts.size_bytes = 0;
	ck_assert_int_eq(lvol_create(store, &opts, &c), -EINVAL);
	ck_assert_int_eq(lvol_rename(a, "b"), -EEXIST);
	ck_assert_int_eq(lvol_rename(a, "a"), -EEXIST);
	ck_assert_int_eq(lvol_rename(a, "d"), 0);
	ck_assert_ptr_eq(lvol_find("pool/d"), a);
	ck_assert_ptr_null(lvol_find("pool/a"));
	ck_assert_int_eq(lvol_rename(b, "a"), 0);
	ck_assert_ptr_eq(lvol_find("pool/a"), b);

	ck_assert_int_eq(bdev_malloc_create("second", NULL, 64 * MIB / BS, BS, NULL), 0);
	ck_assert_int_eq(lvol_store_create(&again, &other, NULL), -EEXIST);
	again.name = "two";
	again.base_bdev = "base";
	ck_assert_int_eq(lvol_store_create(&again, &other, NULL), -EPERM);
	again.base_bdev = "none";
	ck_assert_int_eq(lvol_store_create(&again, &other, NULL), -ENODEV);
	again.base_bdev = "second";
	ck_assert_int_eq(lvol_store_create(&again, &other, NULL), 0);
	ck_assert_int_eq(lvol_store_rename(other, "pool"), -EEXIST);
	ck_assert_int_eq(lvol_store_rename(store, "pool"), 0);
	ck_assert_int_eq(lvol_store_rename(store, "three"), 0);
	ck_assert_ptr_eq(lvol_find("three/a"), b);
	ck_assert_ptr_null(lvol_find("pool/a"));
	uuid_unparse_upper(lvol_bdev(b)->uuid, uuid_text);
	ck_assert_ptr_eq(lvol_find(uuid_text), b);
	lvol_fini();
}

START_TEST(names_are_unique_and_aliases_follow_them)
{
	run_sim(1, 1, names, NULL);
}
END_TEST

static void reopening(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a;
	char uuid_text[UUID_STR_LEN];

	strcpy(uuid_text, lvol_bdev(make_volume(store, "a", 4, true))->name);
	make_volume(store, "gone", 4, false);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'q', 100, 50), 0);
	ck_assert_int_eq(lvol_rename(lvol_find("pool/a"), "b"), 0);
	ck_assert_int_eq(lvol_resize(lvol_find("pool/b"), 6 * MIB - 1), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/gone")), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_ptr_null(bdev_find(uuid_text));
	lvol_init(); /* looks at what is there */
	bdev_wait_for_examine();
	a = lvol_find(uuid_text);
	ck_assert_ptr_nonnull(a);
	ck_assert_ptr_eq(lvol_find("pool/b"), a);
	ck_assert_ptr_null(lvol_find("pool/gone"));
	ck_assert_uint_eq(lvol_bdev(a)->nr_blocks, 6 * MIB / BS);
	ck_assert_int_eq(io("pool/b", BDEV_READ, 'q', 100, 50), 0);
	ck_assert_int_eq(io("pool/b", BDEV_READ, 0, 150, 50), 0);
	ck_assert_int_eq(lvol_store_delete(lvol_store_find("pool")), 0);
	ck_assert_ptr_null(lvol_find(uuid_text));
	ck_assert_int_eq(lvol_store_open("base", NULL, NULL), -EILSEQ);
	lvol_fini();
}

START_TEST(a_store_is_found_again_by_examining_with_all_that_was_in_it)
{
	run_sim(1, 1, reopening, NULL);
}
END_TEST

static void filling(void *arg)
{
	struct lvol_store *store = make_store(16);
	struct lvol_create_opts opts = { .name = "fat", .size_bytes = 64 * MIB };
	struct lvol *lvol;
	uint64_t block = 0;
	int rc;

	ck_assert_int_eq(lvol_create(store, &opts, &lvol), -ENOSPC);
	ck_assert_ptr_null(lvol_find("pool/fat"));
	make_volume(store, "thin", 64, true);
	while (!(rc = io("pool/thin", BDEV_WRITE, 'f', block, MIB / BS)))
		block += MIB / BS;
	ck_assert_int_eq(rc, -ENOSPC);
	ck_assert_uint_gt(block, 8 * MIB / BS);
	for (uint64_t b = 0; b < block; b += MIB / BS)
		ck_assert_int_eq(io("pool/thin", BDEV_READ, 'f', b, MIB / BS), 0);
	ck_assert_int_eq(io("pool/thin", BDEV_WRITE, 'g', 0, 8), 0); /* what has space is written as ever */
	ck_assert_int_eq(io("pool/thin", BDEV_UNMAP, 0, 2 * MIB / BS, MIB / BS), 0);
	ck_assert_int_eq(io("pool/thin", BDEV_FLUSH, 0, 0, 1), 0);
	ck_assert_int_eq(io("pool/thin", BDEV_WRITE, 'h', block, MIB / BS), 0); /* freed space comes back */
	ck_assert_int_eq(lvol_delete(lvol_find("pool/thin")), 0);
	ck_assert_int_eq(store_wait_free(lvol_store_blobstore(store)), 0);
	make_volume(store, "fat", 8, false);
	lvol_fini();
}

START_TEST(a_full_store_says_so_and_keeps_what_it_has)
{
	run_sim(1, 1, filling, NULL);
}
END_TEST

/* Volumes that come, are written, snapshot, and go: what of the store's metadata has no use is used again. */
static void long_life(void *arg)
{
	struct lvol_store *store = make_store(256);
	struct lvol_store_info info;
	uint64_t early = 0;
	char name[32];

	for (unsigned cycle = 0; cycle < 40; cycle++) {
		for (unsigned i = 0; i < 64; i++) {
			struct lvol *lvol, *snapshot;

			snprintf(name, sizeof(name), "pool/v%u", i);
			lvol = make_volume(store, name + 5, 2, true);
			ck_assert_int_eq(io(name, BDEV_WRITE, 'v', 0, 8), 0);
			ck_assert_int_eq(lvol_snapshot(lvol, &(struct lvol_copy_opts){ .name = "s" }, &snapshot), 0);
			ck_assert_int_eq(io(name, BDEV_WRITE, 'w', 0, 8), 0);
			ck_assert_int_eq(lvol_delete(snapshot), 0);
		}
		ck_assert_int_eq(store_checkpoint(lvol_store_blobstore(store)), 0); /* while all of it is there */
		for (unsigned i = 0; i < 64; i++) {
			snprintf(name, sizeof(name), "pool/v%u", i);
			ck_assert_int_eq(lvol_delete(lvol_find(name)), 0);
		}
		ck_assert_int_eq(store_wait_free(lvol_store_blobstore(store)), 0);
		lvol_store_get_info(store, &info);
		if (cycle == 4)
			early = info.metadata_clusters;
	}
	ck_assert_uint_eq(info.metadata_clusters, early);
	ck_assert_uint_eq(info.free_clusters, info.total_data_clusters - info.metadata_clusters);
	lvol_fini();
}

START_TEST(a_long_life_takes_no_more_metadata_than_its_fullest_moment)
{
	run_sim(1, 1, long_life, NULL);
}
END_TEST

static unsigned nr_told, last_told;

static void told(struct bdev *bdev, enum bdev_event event, void *arg)
{
	nr_told++;
	last_told = event;
	if (event == BDEV_EVENT_REMOVE)
		bdev_close(*(struct bdev_desc **)arg);
}

static void resizing(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *lvol = make_volume(store, "a", 4, true);
	struct bdev_desc *desc;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'r', 0, 4 * MIB / BS), 0);
	ck_assert_int_eq(bdev_open("pool/a", true, told, &desc, &desc), 0);
	ck_assert_int_eq(lvol_resize(lvol, 2 * MIB), 0);
	ck_assert_uint_eq(nr_told, 1);
	ck_assert_uint_eq(bdev_nr_blocks(lvol_bdev(lvol)), 2 * MIB / BS);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'r', 2 * MIB / BS, 1), -ERANGE);
	ck_assert_int_eq(lvol_resize(lvol, 8 * MIB), 0);
	ck_assert_uint_eq(nr_told, 2);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'r', 0, 2 * MIB / BS), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 2 * MIB / BS, 6 * MIB / BS), 0);
	ck_assert_int_eq(lvol_resize(lvol, 0), -EINVAL);
	ck_assert_int_eq(lvol_delete(lvol), 0);
	ck_assert_uint_eq(nr_told, 3);
	ck_assert_uint_eq(last_told, BDEV_EVENT_REMOVE);
	lvol_fini();
}

START_TEST(openers_hear_of_resizing_and_deleting_and_a_cut_tail_reads_zero)
{
	run_sim(1, 1, resizing, NULL);
}
END_TEST

static void base_removal(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct bdev_desc *desc;

	make_volume(store, "a", 4, true);
	nr_told = 0;
	ck_assert_int_eq(bdev_open("pool/a", true, told, &desc, &desc), 0);
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("base")), 0);
	ck_assert_uint_eq(nr_told, 1);
	ck_assert_ptr_null(lvol_store_first());
	ck_assert_ptr_null(bdev_first());
}

START_TEST(a_store_and_its_volumes_go_with_their_device)
{
	run_sim(1, 1, base_removal, NULL);
}
END_TEST

/* --- two threads --- */

#define NR_WORKERS 4u

struct worker {
	struct bdev_desc *desc;
	struct fiber_wait *over;
	unsigned id, *nr_left;
};

/* Each worker has every NR_WORKERS-th block of the volume: neighbours share sub-blocks and clusters. */
static void worker_main(void *arg)
{
	struct worker *w = arg;
	struct bdev_channel *ch = bdev_channel_get(w->desc);
	uint8_t last[64] = { 0 };
	char buf[BS];

	for (unsigned i = 0; i < 400; i++) {
		unsigned k = rand_u64() % 64;

		if (rand_u64() % 3) {
			last[k] = 1 + i % 255;
			memset(buf, last[k], BS);
			ck_assert_int_eq(bdev_write(ch, buf, k * NR_WORKERS + w->id, 1, i % 7 ? 0 : BDEV_IO_FUA), 0);
		} else {
			ck_assert_int_eq(bdev_read(ch, buf, k * NR_WORKERS + w->id, 1), 0);
			ck_assert(all_bytes(buf, BS, last[k]));
		}
	}
	bdev_channel_put(ch);
	if (__atomic_sub_fetch(w->nr_left, 1, __ATOMIC_ACQ_REL) == 0)
		fiber_wake(w->over, 0);
}

static void threads(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct thread *t[NR_WORKERS];
	struct worker workers[NR_WORKERS];
	unsigned nr_left = NR_WORKERS;
	struct bdev_desc *desc;
	struct fiber_wait over;

	make_volume(store, "a", 4, true);
	ck_assert_int_eq(bdev_open("pool/a", true, NULL, NULL, &desc), 0);
	fiber_wait_init(&over);
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		t[i] = thread_create("io", i % runtime_nr_reactors());
		workers[i] = (struct worker){ .desc = desc, .over = &over, .id = i, .nr_left = &nr_left };
		ck_assert_int_eq(fiber_spawn(t[i], "io", worker_main, &workers[i]), 0);
	}
	fiber_wait(&over);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		thread_exit(t[i]);
	bdev_close(desc);
	lvol_fini();
}

START_TEST(threads_write_neighbouring_blocks_of_a_thin_volume_simulated)
{
	run_sim(_i + 1, 3, threads, NULL);
}
END_TEST

START_TEST(threads_write_neighbouring_blocks_of_a_thin_volume_for_real)
{
	run_real("0,1", threads, NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lvol");
	TCase *tc = tcase_create("lvol");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_volume_lives_from_creating_to_deleting);
	tcase_add_test(tc, a_volume_lives_from_creating_to_deleting_for_real);
	tcase_add_test(tc, names_are_unique_and_aliases_follow_them);
	tcase_add_test(tc, a_store_is_found_again_by_examining_with_all_that_was_in_it);
	tcase_add_test(tc, a_full_store_says_so_and_keeps_what_it_has);
	tcase_add_test(tc, a_long_life_takes_no_more_metadata_than_its_fullest_moment);
	tcase_add_test(tc, openers_hear_of_resizing_and_deleting_and_a_cut_tail_reads_zero);
	tcase_add_test(tc, a_store_and_its_volumes_go_with_their_device);
	tcase_add_loop_test(tc, threads_write_neighbouring_blocks_of_a_thin_volume_simulated, 0, 20);
	tcase_add_test(tc, threads_write_neighbouring_blocks_of_a_thin_volume_for_real);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
