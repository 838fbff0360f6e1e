/* Volumes whose name is another bdev's when their store is opened: known, and shown as soon as they have a name. */
#include "lvol/testing.h"

static unsigned nr_hidden, nr_shown;

static void count(struct lvol *lvol)
{
	if (lvol_is_hidden(lvol))
		nr_hidden++;
	else
		nr_shown++;
}

static void nobody_cares(struct lvol_store *store)
{
}

static void no_store(const char *bdev_name, int rc, const char *reason)
{
}

static bool writable(const uuid_t uuid)
{
	return false;
}

static const struct lvol_hooks hooks = { .opened = nobody_cares, .refused = no_store, .hidden = count, .is_read_only = writable };

/* A store with volumes a and b, a written, is opened when another device has one's name. */
static struct lvol_store *start(const char *name, bool with_uuid)
{
	struct lvol_store *store;
	struct lvol *a;
	uuid_t uuid;

	lvol_init();
	lvol_set_hooks(&hooks);
	store = make_store(64);
	a = make_volume(store, "a", 8, true);
	make_volume(store, "b", 8, true);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'x', 0, 8), 0);
	uuid_copy(uuid, lvol_bdev(a)->uuid);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(bdev_malloc_create(name, with_uuid ? uuid : NULL, 2048, BS, NULL), 0);
	bdev_wait_for_examine();
	nr_hidden = nr_shown = 0;
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	return store;
}

static void end(void)
{
	lvol_fini();
	lvol_set_hooks(NULL);
	bdev_on_name_free(NULL, NULL);
}

static void settle(void)
{
	fiber_sleep(1000);
}

static void alias(void *arg)
{
	struct lvol_store *store = start("pool/a", false);
	struct lvol_store_info info;
	struct lvol_info hidden;
	struct lvol *a;
	char why[512];

	ck_assert_uint_eq(nr_hidden, 1);
	ck_assert_ptr_null(lvol_find("pool/a"));
	ck_assert_str_eq(lvol_bdev(lvol_first(store))->alias, "pool/b");
	ck_assert_ptr_null(lvol_next(lvol_first(store)));
	a = lvol_first_hidden(store);
	ck_assert_ptr_nonnull(a);
	ck_assert_ptr_null(lvol_next_hidden(a));
	ck_assert_ptr_eq(lvol_find_hidden("pool/a"), a);
	ck_assert_ptr_eq(lvol_find_hidden(lvol_bdev(a)->name), a);
	lvol_get_info(a, &hidden);
	ck_assert(hidden.hidden && hidden.size_bytes == 8 * MIB);
	lvol_why_hidden(a, why, sizeof(why));
	ck_assert_ptr_nonnull(strstr(why, "device pool/a has its name"));
	lvol_store_get_info(store, &info);
	ck_assert(info.nr_lvols == 2 && info.nr_hidden == 1);
	/* Another device goes: nothing for it. */
	ck_assert_int_eq(lvol_delete(lvol_find("pool/b")), 0);
	settle();
	ck_assert(lvol_is_hidden(a));
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("pool/a")), 0);
	settle();
	ck_assert_uint_eq(nr_shown, 1);
	ck_assert_ptr_eq(lvol_find("pool/a"), a);
	ck_assert_ptr_null(lvol_first_hidden(store));
	ck_assert_int_eq(io("pool/a", BDEV_READ, 'x', 0, 8), 0);
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, 'y', 0, 8), 0);
	ck_assert_int_eq(lvol_resize(a, 16 * MIB), 0);
	end();
}

START_TEST(a_volume_whose_alias_is_taken_is_shown_when_the_alias_is_free)
{
	run_sim(1, 1, alias, NULL);
}
END_TEST

static void uuid(void *arg)
{
	struct lvol_store *store = start("other", true);
	char why[512];

	ck_assert_ptr_nonnull(lvol_first_hidden(store));
	lvol_why_hidden(lvol_first_hidden(store), why, sizeof(why));
	ck_assert_ptr_nonnull(strstr(why, "device other has its UUID"));
	/* A name of its own does not help. */
	ck_assert_int_eq(lvol_rename(lvol_first_hidden(store), "c"), 0);
	ck_assert_ptr_null(lvol_find("pool/c"));
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("other")), 0);
	settle();
	ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 0, 8), 0);
	end();
}

START_TEST(a_volume_whose_uuid_is_taken_is_shown_when_that_device_goes)
{
	run_sim(1, 1, uuid, NULL);
}
END_TEST

static void renamed(void *arg)
{
	struct lvol_store *store = start("pool/a", false);
	struct lvol *a = lvol_first_hidden(store);

	ck_assert_int_eq(lvol_rename(a, "b"), -EEXIST);
	ck_assert_int_eq(lvol_rename(a, "c"), 0);
	ck_assert_uint_eq(nr_shown, 1);
	ck_assert_ptr_eq(lvol_find("pool/c"), a);
	ck_assert_int_eq(io("pool/c", BDEV_READ, 'x', 0, 8), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert_ptr_nonnull(lvol_find("pool/c"));
	/* The whole store by another name does as well. */
	ck_assert_int_eq(lvol_rename(lvol_find("pool/c"), "d"), 0);
	ck_assert_int_eq(lvol_store_close(store), 0);
	ck_assert_int_eq(bdev_malloc_create("pool/d", NULL, 2048, BS, NULL), 0);
	ck_assert_int_eq(lvol_store_open("base", &store, NULL), 0);
	ck_assert_ptr_nonnull(lvol_find_hidden("pool/d"));
	ck_assert_int_eq(lvol_store_rename(store, "lake"), 0);
	ck_assert_int_eq(io("lake/d", BDEV_READ, 'x', 0, 8), 0);
	end();
}

START_TEST(a_hidden_volume_is_shown_when_it_or_its_store_gets_another_name)
{
	run_sim(1, 1, renamed, NULL);
}
END_TEST

static void deleted(void *arg)
{
	struct lvol_store *store = start("pool/a", false);

	ck_assert_int_eq(lvol_delete(lvol_first_hidden(store)), 0);
	ck_assert_ptr_null(lvol_first_hidden(store));
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("pool/a")), 0);
	settle();
	ck_assert_uint_eq(nr_shown, 0);
	ck_assert_ptr_null(lvol_find("pool/a"));
	make_volume(store, "a", 8, true);
	ck_assert_int_eq(io("pool/a", BDEV_READ, 0, 0, 8), 0);
	end();
}

START_TEST(a_hidden_volume_can_be_deleted)
{
	run_sim(1, 1, deleted, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_volume_whose_alias_is_taken_is_shown_when_the_alias_is_free,
		a_volume_whose_uuid_is_taken_is_shown_when_that_device_goes,
		a_hidden_volume_is_shown_when_it_or_its_store_gets_another_name,
		a_hidden_volume_can_be_deleted,
	};

	return run_suite("hidden", tests, sizeof(tests) / sizeof(tests[0]));
}
