/* Snapshots and clones of volumes: what each shows, who is whose parent, what each takes, and what differs. */
#include "lvol/testing.h"

static struct lvol_info info_of(struct lvol *lvol)
{
	struct lvol_info info;

	do {
		lvol_get_info(lvol, &info);
		if (info.counting)
			fiber_sleep(1000);
	} while (info.counting);
	return info;
}

static uint64_t free_clusters(struct lvol_store *store)
{
	struct lvol_store_info info;

	ck_assert_int_eq(store_wait_free(lvol_store_blobstore(store)), 0);
	lvol_store_get_info(store, &info);
	return info.free_clusters;
}

static void shows(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 8, true), *snap, *clone, *none;
	const struct lvol_copy_opts taken = { .name = "a" };

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'x', 0, 4096), 0);
	ck_assert_int_eq(lvol_clone(a, &(struct lvol_copy_opts){ .name = "c" }, &none), -EPERM);
	ck_assert_int_eq(lvol_snapshot(a, &taken, &none), -EEXIST);
	snap = snapshot_of(a, "s");
	ck_assert(lvol_bdev(snap)->read_only);
	ck_assert_int_eq(lvol_snapshot(snap, &(struct lvol_copy_opts){ .name = "t" }, &none), -EPERM);
	ck_assert_int_eq(lvol_resize(snap, MIB), -EPERM);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'y', 8, 8), 0);
	ck_assert_int_eq(io("pool/s", BDEV_READ, 'x', 0, 4096), 0);
	ck_assert_int_eq(io("pool/s", BDEV_WRITE, 'x', 0, 8), -EROFS);
	clone = clone_of(snap, "c");
	ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 0, 4096), 0);
	ck_assert_int_eq(io("pool/c", BDEV_WRITE, 'z', 3, 2), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, 'z', 3, 2), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 5, 20), 0);
	ck_assert_int_eq(io("pool/s", BDEV_READ, 'x', 0, 4096), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'y', 8, 8), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'x', 16, 4080), 0);
	ck_assert(info_of(snap).snapshot && !info_of(snap).clone && info_of(snap).nr_clones == 2);
	ck_assert(info_of(a).clone && info_of(clone).clone);
	ck_assert_ptr_eq(lvol_parent(a), snap);
	ck_assert_ptr_eq(lvol_first_clone(snap), a);
	ck_assert_ptr_eq(lvol_next_clone(a), clone);
	ck_assert_ptr_null(lvol_next_clone(clone));
	lvol_fini();
}

START_TEST(a_snapshot_keeps_what_its_volume_held_and_a_clone_begins_with_it)
{
	run_sim(1, 1, shows, NULL);
}
END_TEST

/* parent names, in order, of a volume */
static void assert_parents(const char *name, const char *const *parents)
{
	struct lvol *lvol = lvol_find(name);

	for (; *parents; parents++) {
		lvol = lvol_parent(lvol);
		ck_assert_ptr_nonnull(lvol);
		ck_assert_str_eq(info_of(lvol).name, *parents);
	}
	ck_assert_ptr_null(lvol_parent(lvol));
}

static void family(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 8, true);

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 2048), 0);
	snapshot_of(a, "s1");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 2048, 2048), 0);
	snapshot_of(a, "s2");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '3', 4096, 2048), 0);
	clone_of(lvol_find("pool/s2"), "c2");
	ck_assert_int_eq(io("pool/c2", BDEV_WRITE, 'c', 0, 8), 0);
	snapshot_of(lvol_find("pool/c2"), "s3");
	clone_of(lvol_find("pool/s3"), "c3");
	assert_parents("pool/a", (const char *const[]){ "s2", "s1", NULL });
	assert_parents("pool/c3", (const char *const[]){ "s3", "s2", "s1", NULL });
	ck_assert_uint_eq(info_of(lvol_find("pool/s1")).num_allocated_clusters, 1);
	ck_assert_uint_eq(info_of(lvol_find("pool/s2")).num_allocated_clusters, 1);
	ck_assert_uint_eq(info_of(a).num_allocated_clusters, 1);
	ck_assert_uint_eq(info_of(lvol_find("pool/s3")).num_allocated_clusters, 1);
	ck_assert_uint_eq(info_of(lvol_find("pool/c3")).num_allocated_clusters, 0);
	ck_assert_uint_eq(info_of(a).referenced_bytes, 3 * MIB);
	ck_assert_uint_eq(info_of(lvol_find("pool/c3")).referenced_bytes, 3 * MIB);
	lvol_store_close(store);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	assert_parents("pool/c3", (const char *const[]){ "s3", "s2", "s1", NULL });
	ck_assert_uint_eq(info_of(lvol_find("pool/s2")).num_allocated_clusters, 1);
	ck_assert_uint_eq(info_of(lvol_find("pool/c3")).num_allocated_clusters, 0);
	/* Any snapshot goes, with any number of clones; they get its parent, and what was its counts as theirs. */
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s2")), 0);
	assert_parents("pool/a", (const char *const[]){ "s1", NULL });
	assert_parents("pool/c3", (const char *const[]){ "s3", "s1", NULL });
	ck_assert_uint_eq(info_of(lvol_find("pool/a")).num_allocated_clusters, 2);
	ck_assert_uint_eq(info_of(lvol_find("pool/s3")).num_allocated_clusters, 2);
	ck_assert_int_eq(lvol_decouple(lvol_find("pool/a")), 0);
	assert_parents("pool/a", (const char *const[]){ NULL });
	ck_assert_uint_eq(info_of(lvol_find("pool/a")).num_allocated_clusters, 3);
	ck_assert_int_eq(lvol_decouple(lvol_find("pool/a")), -EINVAL);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s1")), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s3")), 0);
	assert_parents("pool/c3", (const char *const[]){ NULL });
	ck_assert_int_eq(io("pool/a", BDEV_READ, '1', 0, 2048), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, '3', 4096, 2048), 0);
	ck_assert_int_eq(io("pool/c3", BDEV_READ, 'c', 0, 8), 0);
	ck_assert_int_eq(io("pool/c3", BDEV_READ, '1', 8, 2040), 0);
	ck_assert_int_eq(io("pool/c3", BDEV_READ, '2', 2048, 2048), 0);
	ck_assert_int_eq(io("pool/c3", BDEV_READ, 0, 4096, 2048), 0);
	lvol_fini();
}

START_TEST(any_snapshot_can_be_deleted_and_its_clones_get_its_parent)
{
	run_sim(1, 1, family, NULL);
}
END_TEST

static void revert(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 8, true), *s1, *s2;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 2048), 0);
	s1 = snapshot_of(a, "s1");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 1024, 2048), 0);
	ck_assert_int_eq(lvol_resize(a, 16 * MIB), 0);
	s2 = snapshot_of(a, "s2");
	ck_assert_int_eq(lvol_revert(a, a), -EINVAL);
	ck_assert_int_eq(lvol_revert(s2, s1), -EPERM);
	ck_assert_int_eq(lvol_revert(a, s1), 0);
	ck_assert_ptr_eq(lvol_parent(a), s1);
	ck_assert_uint_eq(lvol_bdev(a)->nr_blocks, 8 * MIB / BS);
	ck_assert_int_eq(io("pool/a", BDEV_READ, '1', 0, 2048), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 2048, 2048), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '3', 0, 9), 0);
	ck_assert_int_eq(lvol_revert(a, s2), 0);
	ck_assert_uint_eq(lvol_bdev(a)->nr_blocks, 16 * MIB / BS);
	ck_assert_int_eq(io("pool/a", BDEV_READ, '1', 0, 1024), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, '2', 1024, 2048), 0);
	ck_assert_int_eq(io("pool/s1", BDEV_READ, '1', 0, 2048), 0);
	lvol_fini();
}

START_TEST(a_volume_goes_back_to_a_snapshot_in_place_and_forward_again)
{
	run_sim(1, 1, revert, NULL);
}
END_TEST

static void ranges(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 32, true), *s1, *s2;
	struct lvol_diff diff;
	struct blob_range r[4];
	uint32_t nr;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 2048), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 10 * 2048, 8), 0);
	s1 = snapshot_of(a, "s1");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 17, 1), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 2048 + 8, 16), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 20 * 2048, 8), 0);
	ck_assert_int_eq(io("pool/a", BDEV_UNMAP, 0, 10 * 2048, 2048), 0);
	s2 = snapshot_of(a, "s2");
	diff = (struct lvol_diff){ .from = s1, .to = s2 };
	ck_assert_int_eq(lvol_diff_next(&diff, r, 3, &nr), 0);
	ck_assert_uint_eq(nr, 3);
	ck_assert(r[0].offset_bytes == 8192 && r[0].len_bytes == 4096 && r[0].mapped);
	ck_assert(r[1].offset_bytes == MIB + 4096 && r[1].len_bytes == 8192 && r[1].mapped);
	ck_assert(r[2].offset_bytes == 10 * MIB && r[2].len_bytes == 4096 && !r[2].mapped);
	ck_assert_int_eq(lvol_diff_next(&diff, r, 3, &nr), 0);
	ck_assert_uint_eq(nr, 1);
	ck_assert(r[0].offset_bytes == 20 * MIB && r[0].len_bytes == 4096 && r[0].mapped);
	diff = (struct lvol_diff){ .from = s1, .to = s2, .whole_clusters = true };
	ck_assert_int_eq(lvol_diff_next(&diff, r, 4, &nr), 0);
	ck_assert_uint_eq(nr, 3);
	ck_assert(r[0].offset_bytes == 0 && r[0].len_bytes == 2 * MIB && r[0].mapped);
	diff = (struct lvol_diff){ .to = s1 };
	ck_assert_int_eq(lvol_diff_next(&diff, r, 4, &nr), 0);
	ck_assert_uint_eq(nr, 2);
	ck_assert(r[0].offset_bytes == 0 && r[0].len_bytes == MIB && r[1].offset_bytes == 10 * MIB);
	lvol_fini();
}

START_TEST(what_differs_between_two_snapshots_is_told_by_4_kib)
{
	run_sim(1, 1, ranges, NULL);
}
END_TEST

static void space(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true), *thick, *none;
	uint64_t before, bytes;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 4 * 2048), 0);
	ck_assert_uint_eq(info_of(a).exclusive_age_us, UINT64_MAX);
	ck_assert_int_eq(lvol_exclusive(a, &bytes), 0);
	ck_assert_uint_eq(bytes, 4 * MIB);
	snapshot_of(a, "s");
	ck_assert_uint_eq(info_of(a).exclusive_bytes, 4 * MIB);
	ck_assert_int_eq(lvol_exclusive(a, &bytes), 0);
	ck_assert_uint_eq(bytes, 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 0, 2048 + 8), 0);
	ck_assert_int_eq(lvol_exclusive(a, &bytes), 0);
	ck_assert_uint_eq(bytes, 2 * MIB);
	ck_assert_int_eq(lvol_exclusive(lvol_find("pool/s"), &bytes), 0);
	ck_assert_uint_eq(bytes, MIB); /* the second one's rest is read by both */
	before = free_clusters(store);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s")), 0);
	ck_assert_uint_eq(free_clusters(store), before + 1);
	ck_assert_int_eq(io("pool/a", BDEV_READ, '2', 0, 2048 + 8), 0);
	ck_assert_int_eq(io("pool/a", BDEV_READ, '1', 2048 + 8, 2048), 0);
	/* A thick volume's snapshot is promised its size once more, or is not made. */
	thick = make_volume(store, "thick", 22, false);
	ck_assert_int_eq(io("pool/thick", BDEV_WRITE, 't', 0, 22 * 2048), 0);
	snapshot_of(thick, "t1");
	ck_assert_int_eq(lvol_snapshot(thick, &(struct lvol_copy_opts){ .name = "t0" }, &none), 0);
	ck_assert_int_eq(io("pool/thick", BDEV_WRITE, 'u', 0, 22 * 2048), 0);
	ck_assert_int_eq(lvol_snapshot(thick, &(struct lvol_copy_opts){ .name = "t2" }, &none), -ENOSPC);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/t1")), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/t0")), 0);
	free_clusters(store);
	ck_assert_int_eq(lvol_snapshot(thick, &(struct lvol_copy_opts){ .name = "t2" }, &none), 0);
	ck_assert_int_eq(io("pool/thick", BDEV_WRITE, 'v', 0, 22 * 2048), 0);
	lvol_fini();
}

START_TEST(what_a_volume_takes_is_known_and_a_thick_one_never_runs_out)
{
	run_sim(1, 1, space, NULL);
}
END_TEST

static void set_parent(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true), *b = make_volume(store, "b", 16, true), *s, *t, *c;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 4 * 2048), 0);
	s = snapshot_of(a, "s");
	ck_assert_int_eq(io("pool/b", BDEV_WRITE, '2', 2048, 4 * 2048), 0);
	t = snapshot_of(b, "t");
	c = clone_of(s, "c");
	ck_assert_int_eq(io("pool/c", BDEV_WRITE, '3', 0, 8), 0);	     /* differs, and goes on reading s */
	ck_assert_int_eq(io("pool/c", BDEV_UNMAP, 0, 3 * 2048, 2048), 0); /* a hole stays a hole */
	ck_assert_int_eq(lvol_set_parent(c, s), -EEXIST);
	ck_assert_int_eq(lvol_set_parent(s, t), -EPERM);
	ck_assert_int_eq(lvol_set_parent(c, a), -EINVAL);
	ck_assert_int_eq(lvol_set_parent(c, t), 0);
	ck_assert_ptr_eq(lvol_parent(c), t);
	ck_assert_uint_eq(info_of(c).num_allocated_clusters, 1);
	ck_assert_uint_eq(info_of(c).referenced_bytes, 5 * MIB);
	lvol_store_close(store);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s")), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/a")), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/b")), 0);
	free_clusters(store);
	ck_assert_int_eq(io("pool/c", BDEV_READ, '3', 0, 8), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, '1', 8, 2040), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, '2', 2048, 2 * 2048), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, 0, 3 * 2048, 2048), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, '2', 4 * 2048, 2048), 0);
	/* One that has no parent. */
	b = make_volume(store, "b", 16, true);
	ck_assert_int_eq(io("pool/b", BDEV_WRITE, '4', 4 * 2048, 8), 0);
	ck_assert_int_eq(lvol_set_parent(b, lvol_find("pool/t")), 0);
	ck_assert_int_eq(io("pool/b", BDEV_READ, '2', 2048, 3 * 2048), 0);
	ck_assert_int_eq(io("pool/b", BDEV_READ, '4', 4 * 2048, 8), 0);
	ck_assert_int_eq(io("pool/b", BDEV_READ, 0, 4 * 2048 + 8, 2040), 0);
	lvol_fini();
}

START_TEST(a_volume_with_another_parent_keeps_what_differs_and_shows_the_others_rest)
{
	run_sim(1, 1, set_parent, NULL);
}
END_TEST

static void make_image(const char *name, char value, unsigned mib)
{
	uuid_t uuid;

	uuid_generate(uuid);
	ck_assert_int_eq(bdev_malloc_create(name, uuid, mib * 2048, 512, NULL), 0);
	ck_assert_int_eq(io(name, BDEV_WRITE, value, 0, mib * 2048), 0);
}

static void reopen(struct lvol_store **store)
{
	lvol_store_close(*store);
	ck_assert_int_eq(lvol_store_open("base", store, NULL), 0);
}

static void set_parent_bdev(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 8, true), *c, *thick = make_volume(store, "thick", 8, false), *none;
	struct bdev_desc *desc;
	uuid_t null;

	uuid_clear(null);
	make_image("x", 'x', 8);
	make_image("y", 'y', 6);
	/* A clone of a snapshot: what differs stays, holes too; what does not is the other's. */
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 4 * 2048), 0);
	c = clone_of(snapshot_of(a, "s"), "c");
	ck_assert_int_eq(io("pool/c", BDEV_WRITE, '3', 0, 8), 0);
	ck_assert_int_eq(io("pool/c", BDEV_UNMAP, 0, 3 * 2048, 2048), 0);
	ck_assert_int_eq(lvol_set_parent_bdev(c, "nothing"), -ENODEV);
	ck_assert_int_eq(lvol_set_parent_bdev(c, "base"), -EINVAL);
	ck_assert_int_eq(lvol_set_parent_bdev(c, "pool/s"), -EINVAL);
	ck_assert_int_eq(lvol_set_parent_bdev(thick, "x"), -EPERM);
	ck_assert_int_eq(lvol_set_parent_bdev(lvol_find("pool/s"), "x"), -EPERM);
	ck_assert_int_eq(lvol_set_parent_bdev(c, "x"), 0);
	ck_assert_int_eq(lvol_set_parent_bdev(c, "x"), -EEXIST);
	ck_assert_ptr_null(lvol_parent(c));
	ck_assert_str_eq(info_of(c).external, "x");
	ck_assert_int_eq(bdev_open("x", true, NULL, NULL, &desc), -EBUSY);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(io("pool/c", BDEV_READ, '3', 0, 8), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, '1', 8, 2040), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 2048, 2 * 2048), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 0, 3 * 2048, 2048), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 4 * 2048, 4 * 2048), 0);
		if (!i)
			reopen(&store);
	}
	/* Another one below what it has written itself, and the first is free again. */
	ck_assert_int_eq(io("pool/c", BDEV_WRITE, '4', 2048 + 3, 2), 0);
	ck_assert_int_eq(lvol_set_parent_bdev(lvol_find("pool/c"), "y"), 0);
	fiber_sleep(1000);
	ck_assert_int_eq(bdev_open("x", true, NULL, NULL, &desc), 0);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(io("pool/c", BDEV_READ, '3', 0, 8), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, '4', 2048 + 3, 2), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 2048 + 5, 3), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 'y', 2048 + 8, 2040 + 2048), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 0, 3 * 2048, 2048), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 'y', 4 * 2048, 2 * 2048), 0);
		ck_assert_int_eq(io("pool/c", BDEV_READ, 0, 6 * 2048, 2 * 2048), 0);
		if (!i)
			reopen(&store);
	}
	/* While others may write it, it is nobody's parent. */
	ck_assert_int_eq(lvol_set_parent_bdev(lvol_find("pool/c"), "x"), -EBUSY);
	ck_assert_int_eq(lvol_clone_bdev(store, "x", "d", null, &none), -EBUSY);
	bdev_close(desc);
	ck_assert_int_eq(lvol_clone_bdev(store, "x", "d", null, &none), 0);
	/* There and back at once. */
	ck_assert_int_eq(lvol_set_parent_bdev(none, "y"), 0);
	ck_assert_int_eq(lvol_set_parent_bdev(none, "x"), 0);
	ck_assert_int_eq(lvol_set_parent_bdev(none, "y"), 0);
	ck_assert_int_eq(io("pool/d", BDEV_READ, 'y', 0, 6 * 2048), 0);
	lvol_fini();
}

START_TEST(a_volume_with_a_bdev_for_a_parent_keeps_what_differs_and_shows_the_bdevs_rest)
{
	run_sim(1, 1, set_parent_bdev, NULL);
}
END_TEST

static void inflate(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true), *clone, *big;
	struct progress progress = { .cancel = true };
	struct lvol_store_info info;
	uint64_t before, bytes;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 4 * 2048), 0);
	clone = clone_of(snapshot_of(a, "s"), "c");
	ck_assert_int_eq(io("pool/c", BDEV_WRITE, '2', 2048 + 3, 2), 0);
	ck_assert_int_eq(lvol_inflate(lvol_find("pool/s"), NULL), -EPERM);
	ck_assert_int_eq(lvol_inflate(clone, &progress), -ECANCELED);
	ck_assert(info_of(clone).thin && info_of(clone).clone);
	progress = (struct progress){ 0 };
	before = free_clusters(store);
	ck_assert_int_eq(lvol_inflate(clone, &progress), 0);
	ck_assert_uint_eq(progress.done, 16);
	ck_assert_uint_eq(progress.total, 16);
	ck_assert(!info_of(clone).thin && !info_of(clone).clone && !lvol_bdev(clone)->thin);
	ck_assert_uint_eq(info_of(clone).num_allocated_clusters, 4);
	ck_assert_int_eq(lvol_exclusive(clone, &bytes), 0);
	ck_assert_uint_eq(bytes, 4 * MIB);
	ck_assert_uint_lt(free_clusters(store), before - 14);
	lvol_store_get_info(store, &info);
	ck_assert_uint_ge(info.reserved_clusters, 12);
	ck_assert_int_eq(io("pool/c", BDEV_READ, '2', 2048 + 3, 2), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, '1', 2048 + 5, 3 * 2048 - 5), 0);
	ck_assert_int_eq(io("pool/c", BDEV_READ, 0, 4 * 2048, 2048), 0);
	big = make_volume(store, "big", 60, true);
	ck_assert_int_eq(lvol_inflate(big, NULL), -ENOSPC);
	ck_assert(info_of(big).thin);
	lvol_fini();
}

START_TEST(an_inflated_clone_has_all_of_its_own_and_never_runs_out)
{
	run_sim(1, 1, inflate, NULL);
}
END_TEST

/* After an opening no node is in memory, and with another parent what differs from it is not known. */
static void counting(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true);
	struct lvol_info info;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 8 * 2048), 0);
	snapshot_of(a, "s");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 0, 2 * 2048), 0);
	snapshot_of(a, "t");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '3', 4 * 2048, 2048), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	a = lvol_find("pool/a");
	lvol_get_info(a, &info);
	ck_assert(!info.counting); /* it was known, and is still */
	ck_assert_uint_eq(info.num_allocated_clusters, 1);
	ck_assert_int_eq(lvol_decouple(a), 0);
	ck_assert_ptr_eq(lvol_parent(a), lvol_find("pool/s"));
	lvol_get_info(a, &info);
	ck_assert(info.counting);
	ck_assert_uint_eq(info.num_allocated_clusters, 8); /* all that are mapped, until then */
	info = info_of(a);
	ck_assert(!info.counting);
	ck_assert_uint_eq(info.num_allocated_clusters, 3);
	lvol_fini();
}

START_TEST(what_differs_from_a_new_parent_is_counted_in_the_background_and_said_to_be)
{
	run_sim(1, 1, counting, NULL);
}
END_TEST

/* Closed and opened again. */
static void aged(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true);
	struct lvol_info info;
	uint64_t bytes;

	make_volume(store, "never", 16, true);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 4 * 2048), 0);
	snapshot_of(a, "s");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 0, 2 * 2048), 0);
	ck_assert_uint_eq(info_of(a).num_allocated_clusters, 2);
	ck_assert_int_eq(store_checkpoint(lvol_store_blobstore(store)), 0); /* nothing else has its page written */
	ck_assert_int_eq(lvol_exclusive(a, &bytes), 0);
	ck_assert_uint_eq(bytes, 2 * MIB);
	fiber_sleep(30 * 1000000);
	ck_assert_uint_eq(info_of(a).exclusive_age_us / 1000000, 30);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	fiber_sleep(30 * 1000000);
	info = info_of(lvol_find("pool/a"));
	ck_assert_uint_eq(info.exclusive_bytes, 2 * MIB);
	ck_assert_uint_ge(info.exclusive_age_us, 59 * 1000000);
	ck_assert_uint_le(info.exclusive_age_us, 62 * 1000000);
	ck_assert(info_of(lvol_find("pool/never")).exclusive_age_us == UINT64_MAX);
	/* What is made of it has not been counted; what it is called does not matter. */
	ck_assert_int_eq(lvol_rename(lvol_find("pool/a"), "b"), 0);
	ck_assert(info_of(snapshot_of(lvol_find("pool/b"), "t")).exclusive_age_us == UINT64_MAX);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert_uint_eq(info_of(lvol_find("pool/b")).exclusive_bytes, 2 * MIB);
	ck_assert(info_of(lvol_find("pool/t")).exclusive_age_us == UINT64_MAX);
	/* Counted anew it is as it is now, and young. */
	ck_assert_int_eq(lvol_exclusive(lvol_find("pool/b"), &bytes), 0);
	ck_assert_uint_eq(bytes, 0);
	ck_assert_uint_lt(info_of(lvol_find("pool/b")).exclusive_age_us, 1000000);
	lvol_fini();
}

START_TEST(the_last_count_of_exclusive_space_and_its_age_outlive_a_restart)
{
	run_sim(1, 1, aged, NULL);
}
END_TEST

static void attributes(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 8, true), *snap;
	const struct blob_xattr given[] = { { "user", "lh", 2 }, { "label", "x=1", 3 } };
	struct lvol_copy_opts opts = { .name = "s", .xattrs = given, .nr_xattrs = 2 };
	const void *value;
	const char *key;
	uint8_t key_len;
	uint16_t len;

	ck_assert_int_eq(lvol_set_xattr(a, "k", "v", 1), 0);
	ck_assert_int_eq(lvol_snapshot(a, &opts, &snap), 0);
	ck_assert_int_eq(lvol_get_xattr(snap, "k", &value, &len), -ENODATA);
	ck_assert_int_eq(lvol_get_xattr(snap, "label", &value, &len), 0);
	ck_assert(len == 3 && !memcmp(value, "x=1", 3));
	ck_assert(lvol_xattr_at(snap, 0, &key, &key_len, &value, &len));
	ck_assert(key_len == 4 && !memcmp(key, "user", 4) && len == 2);
	ck_assert(!lvol_xattr_at(snap, 2, &key, &key_len, &value, &len));
	/* Read-only: for writers at once, and for good. */
	ck_assert_int_eq(lvol_set_read_only(a), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 8), -EROFS);
	ck_assert_int_eq(lvol_resize(a, MIB), -EPERM);
	ck_assert_int_eq(lvol_resize(a, 16 * MIB), -EPERM);
	ck_assert_ptr_eq(lvol_parent(clone_of(a, "c")), a);
	lvol_store_close(store);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert(info_of(lvol_find("pool/a")).read_only);
	ck_assert_int_eq(lvol_get_xattr(lvol_find("pool/s"), "user", &value, &len), 0);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/a")), 0);
	lvol_fini();
}

START_TEST(attributes_come_with_a_snapshot_and_read_only_stays)
{
	run_sim(1, 1, attributes, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_snapshot_keeps_what_its_volume_held_and_a_clone_begins_with_it,
		any_snapshot_can_be_deleted_and_its_clones_get_its_parent,
		a_volume_goes_back_to_a_snapshot_in_place_and_forward_again,
		what_differs_between_two_snapshots_is_told_by_4_kib,
		what_a_volume_takes_is_known_and_a_thick_one_never_runs_out,
		a_volume_with_another_parent_keeps_what_differs_and_shows_the_others_rest,
		a_volume_with_a_bdev_for_a_parent_keeps_what_differs_and_shows_the_bdevs_rest,
		an_inflated_clone_has_all_of_its_own_and_never_runs_out,
		what_differs_from_a_new_parent_is_counted_in_the_background_and_said_to_be,
		the_last_count_of_exclusive_space_and_its_age_outlive_a_restart,
		attributes_come_with_a_snapshot_and_read_only_stays,
	};

	return run_suite("copies", tests, sizeof(tests) / sizeof(tests[0]));
}
