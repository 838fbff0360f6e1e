/* Deletions that meet what else is under way: each has one outcome, and what is refused is refused before anybody notices. */
#include "lvol/testing.h"

static void deleter(void *arg)
{
	struct fiber_wait *over = arg;

	fiber_wake(over, lvol_delete(lvol_find("pool/c")));
}

static void inflate_ends(void *arg)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true);
	struct fiber_wait over;

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 8 * 2048), 0);
	clone_of(snapshot_of(a, "s"), "c");
	fiber_wait_init(&over);
	ck_assert_int_eq(fiber_spawn(thread_current(), "deleter", deleter, &over), 0);
	ck_assert_int_eq(lvol_inflate(lvol_find("pool/c"), NULL), -ECANCELED);
	ck_assert_int_eq(fiber_wait(&over), 0);
	ck_assert_ptr_null(lvol_find("pool/c"));
	lvol_fini();
}

START_TEST(deleting_a_volume_ends_its_inflation)
{
	run_sim(1, 1, inflate_ends, NULL);
}
END_TEST

/* --- a snapshot, and a copy of what was made from it ------------------------------------------------------------------ */

static struct lvol_store *snapshots(void)
{
	struct lvol_store *store = make_store(64);
	struct lvol *a = make_volume(store, "a", 16, true);

	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '1', 0, 4 * 2048), 0);
	snapshot_of(a, "s");
	ck_assert_int_eq(io("pool/a", BDEV_WRITE, '2', 0, 16 * 2048), 0);
	snapshot_of(a, "t");
	ck_assert_int_eq(bdev_malloc_create("target", NULL, 16 * MIB / BS, BS, NULL), 0);
	return store;
}

struct copier {
	struct progress progress;
	struct fiber_wait over;
};

static void copier(void *arg)
{
	struct copier *c = arg;

	fiber_wake(&c->over, lvol_shallow_copy(lvol_find("pool/t"), "target", &c->progress));
}

/* An opener, who must not hear of a deletion that does not happen. */
static void heard(struct bdev *bdev, enum bdev_event event, void *arg)
{
	*(bool *)arg |= event == BDEV_EVENT_REMOVE;
}

static void copied(void *arg)
{
	struct copier c = { .progress = { 0 } };
	struct bdev_desc *desc;
	bool removed = false;

	snapshots();
	ck_assert_int_eq(bdev_open("pool/s", false, heard, &removed, &desc), 0);
	fiber_wait_init(&c.over);
	ck_assert_int_eq(fiber_spawn(thread_current(), "copier", copier, &c), 0);
	while (!c.progress.done)
		fiber_sleep(10);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s")), -EBUSY);
	ck_assert(!removed);
	ck_assert_ptr_nonnull(lvol_find("pool/s"));
	ck_assert_int_eq(fiber_wait(&c.over), 0);
	ck_assert_uint_eq(c.progress.done, 16);
	bdev_close(desc);
	ck_assert_int_eq(lvol_delete(lvol_find("pool/s")), 0);
	ck_assert_ptr_null(lvol_find("pool/s"));
	ck_assert_int_eq(io("target", BDEV_READ, '2', 0, 16 * 2048), 0);
	lvol_fini();
}

START_TEST(a_snapshot_whose_child_is_being_copied_is_not_deleted_and_its_users_hear_nothing)
{
	run_sim(1, 1, copied, NULL);
}
END_TEST

static void delete_s(void *arg)
{
	fiber_wake(arg, lvol_delete(lvol_find("pool/s")));
}

static void refused(void *arg)
{
	struct fiber_wait over;
	struct bdev_desc *desc;
	bool removed = false;

	snapshots();
	ck_assert_int_eq(bdev_open("pool/s", false, heard, &removed, &desc), 0);
	fiber_wait_init(&over);
	ck_assert_int_eq(fiber_spawn(thread_current(), "deleter", delete_s, &over), 0);
	while (!removed)
		fiber_sleep(10);
	/* The deletion waits for the opener; what would hold it up for longer does not begin. */
	ck_assert_int_eq(lvol_shallow_copy(lvol_find("pool/t"), "target", NULL), -EAGAIN);
	bdev_close(desc);
	ck_assert_int_eq(fiber_wait(&over), 0);
	ck_assert_ptr_null(lvol_parent(lvol_find("pool/t")));
	ck_assert_int_eq(lvol_shallow_copy(lvol_find("pool/t"), "target", NULL), 0);
	ck_assert_int_eq(io("target", BDEV_READ, '2', 0, 16 * 2048), 0);
	lvol_fini();
}

START_TEST(a_volume_whose_parent_is_being_deleted_is_copied_afterwards)
{
	run_sim(1, 1, refused, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		deleting_a_volume_ends_its_inflation,
		a_snapshot_whose_child_is_being_copied_is_not_deleted_and_its_users_hear_nothing,
		a_volume_whose_parent_is_being_deleted_is_copied_afterwards,
	};

	return run_suite("deleting", tests, sizeof(tests) / sizeof(tests[0]));
}
