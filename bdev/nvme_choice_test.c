/* Paths that an administrator prefers, or has disabled: which of two drives of software gets the commands. */
#include "bdev/nvme_testing.h"

#define FIRST	  7 /* controller identifiers */
#define SECOND_ID 8

/* Two drives that say they are one subsystem. */
static struct soft_drive *second;

static int open_second(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *ret_error)
{
	*ret_bar = soft_plug(second, address);
	return 0;
}

static void attach_both(void)
{
	sopts.ana = true;
	attach();
	sopts.cntlid = SECOND_ID;
	ck_assert_int_eq(soft_create(&sopts, &second), 0);
	strcpy(opts.address, "0000:02:00.0");
	opts.bar_open = open_second;
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
}

static void done_with_both(void)
{
	shut();
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_msg(!soft_host_errors(second), "%s", soft_last_host_error(second));
	soft_destroy(second);
}

/* How many of 10 writes each drive got. */
static void check_share(unsigned want_first, unsigned want_second)
{
	struct soft_counters a, b, a2, b2;

	soft_get_counters(drive, &a);
	soft_get_counters(second, &b);
	submit_many(10, BDEV_WRITE, data, 1);
	wait_many(SECOND);
	ck_assert_uint_eq(nr_with_status(0), 10);
	soft_get_counters(drive, &a2);
	soft_get_counters(second, &b2);
	ck_assert_uint_eq(a2.nr_io - a.nr_io, want_first);
	ck_assert_uint_eq(b2.nr_io - b.nr_io, want_second);
}

static enum bdev_nvme_path_state state_of(unsigned idx)
{
	struct bdev_nvme_path_info path;

	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), idx, &path));
	return path.state;
}

static int set_enabled(uint16_t cntlid, bool enabled)
{
	return bdev_nvme_set_enabled("Nvme0", cntlid ? &cntlid : NULL, enabled);
}

SIM_TEST(io_takes_the_preferred_path_and_comes_back_to_it)
{
	struct bdev *bdev;
	uint16_t cntlid = SECOND_ID;

	attach_both();
	bdev = bdev_find("Nvme0n1");
	check_share(10, 0);
	ck_assert_int_eq(bdev_nvme_preferred(bdev), -1);
	ck_assert_int_eq(bdev_nvme_set_preferred(bdev, 9), -ENOENT);
	ck_assert_int_eq(bdev_nvme_set_preferred(bdev, SECOND_ID), 0);
	ck_assert_int_eq(bdev_nvme_preferred(bdev), 1);
	check_share(0, 10);
	/* Away and back. */
	ck_assert_int_eq(set_enabled(SECOND_ID, false), 0);
	check_share(10, 0);
	ck_assert_int_eq(set_enabled(SECOND_ID, true), 0);
	check_share(0, 10);
	ck_assert_int_eq(bdev_nvme_reset("Nvme0", &cntlid), 0);
	check_share(0, 10);
	/* One that ANA has for better is better. */
	soft_ana_set(second, NVME_ANA_NON_OPTIMIZED);
	fiber_sleep(SECOND);
	check_share(10, 0);
	soft_ana_set(drive, NVME_ANA_NON_OPTIMIZED);
	fiber_sleep(SECOND);
	check_share(0, 10);
	/* With the path its preference goes. */
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", &(struct bdev_nvme_path_match){.address = "0000:02:00.0"}), 0);
	ck_assert_int_eq(bdev_nvme_preferred(bdev), -1);
	ck_assert_int_eq(bdev_nvme_set_preferred(bdev, SECOND_ID), -ENOENT);
	ck_assert_int_eq(bdev_nvme_set_preferred(bdev, FIRST), 0);
	check_share(10, 0);
	done_with_both();
}

SIM_TEST(a_path_that_is_disabled_under_load_costs_no_operation_while_there_is_another)
{
	attach_both();
	for (unsigned i = 0; i < 8; i++) {
		submit_many(200, BDEV_WRITE, data, 8);
		fiber_sleep(i * 30);
		ck_assert_int_eq(set_enabled(i % 2 ? SECOND_ID : FIRST, false), 0);
		wait_many(10 * SECOND);
		ck_assert_uint_eq(nr_with_status(0), 200);
		ck_assert_int_eq(state_of(i % 2), BDEV_NVME_DISABLED);
		ck_assert_int_eq(state_of(1 - i % 2), BDEV_NVME_LIVE);
		/* It stays so, whatever else is asked. */
		fiber_sleep(10 * SECOND);
		ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
		ck_assert_int_eq(state_of(i % 2), BDEV_NVME_DISABLED);
		ck_assert_int_eq(set_enabled(i % 2 ? SECOND_ID : FIRST, false), -EALREADY);
		ck_assert_int_eq(set_enabled(0, true), 0);
		ck_assert_int_eq(state_of(i % 2), BDEV_NVME_LIVE);
	}
	ck_assert_int_eq(set_enabled(0, true), -EALREADY);
	ck_assert_int_eq(set_enabled(9, true), -ENODEV);
	ck_assert_int_eq(bdev_nvme_set_enabled("Nvme9", NULL, true), -ENODEV);
	done_with_both();
}

SIM_TEST(io_fails_at_once_when_all_paths_are_disabled_and_the_bdev_stays)
{
	uint64_t before_us;

	opts.loss.ctrlr_loss_s = 5;
	attach_both();
	submit_many(100, BDEV_WRITE, data, 8);
	ck_assert_int_eq(set_enabled(0, false), 0);
	wait_many(SECOND);
	before_us = clock_now_us();
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), -EIO);
	ck_assert_uint_lt(clock_now_us() - before_us, 100 * MS);
	ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), -EALREADY);
	/* Longer than a path that is lost is waited for. */
	fiber_sleep(60 * SECOND);
	ck_assert_ptr_nonnull(bdev_find("Nvme0n1"));
	ck_assert_uint_eq(nr_removals, 0);
	ck_assert_int_eq(set_enabled(SECOND_ID, true), 0);
	check_share(0, 10);
	ck_assert_int_eq(set_enabled(FIRST, true), 0);
	/* One that was let go takes what is disabled for the rest. */
	ck_assert_int_eq(set_enabled(FIRST, false), 0);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", &(struct bdev_nvme_path_match){.address = "0000:02:00.0"}), 0);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), -EIO);
	done_with_both();
}

SIM_TEST(a_disabled_drive_may_be_pulled_out_or_detached)
{
	attach();
	ck_assert_int_eq(set_enabled(0, false), 0);
	present = false;
	soft_unplug(drive);
	fiber_sleep(2 * SECOND);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
	present = true;
	fiber_sleep(3 * SECOND);
	open_ns("Nvme0n1");
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	shut();
	ck_assert_int_eq(set_enabled(0, false), 0);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
}

int main(void)
{
	const TTest *const tests[] = {
		io_takes_the_preferred_path_and_comes_back_to_it,
		a_path_that_is_disabled_under_load_costs_no_operation_while_there_is_another,
		io_fails_at_once_when_all_paths_are_disabled_and_the_bdev_stays,
		a_disabled_drive_may_be_pulled_out_or_detached,
	};

	return nvme_suite("nvme choice", tests, sizeof(tests) / sizeof(tests[0]));
}
