/*
 * Asymmetric Namespace Access with two drives of software that say they are one subsystem: I/O goes where it may, whatever the
 * controllers say first: a status, an event, or a log that is slow, large, wrong, or not to be had.
 */
#include "bdev/nvme_testing.h"

static struct soft_drive *second;

static int open_second(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *ret_error)
{
	*ret_bar = soft_plug(second, address);
	return 0;
}

static void attach_second(void)
{
	strcpy(opts.address, "0000:02:00.0");
	opts.bar_open = open_second;
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
}

static void attach_both(unsigned nr_ns)
{
	sopts.ana = true;
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	ck_assert_int_eq(soft_create(&sopts, &second), 0);
	for (unsigned i = 2; i <= nr_ns; i++) {
		soft_ns_set(drive, i, 64);
		soft_ns_set(second, i, 64);
	}
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
	attach_second();
	open_ns("Nvme0n1");
	fiber_sleep(SECOND);
}

static void end_both(void)
{
	shut();
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_msg(!soft_host_errors(second), "%s", soft_last_host_error(second));
	soft_destroy(second);
}

static uint64_t nr_io(const struct soft_drive *of)
{
	struct soft_counters c;

	soft_get_counters(of, &c);
	return c.nr_io;
}

static uint64_t timed_write(int want)
{
	uint64_t from_us = clock_now_us();

	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), want);
	return clock_now_us() - from_us;
}

static void slow_identify(struct soft_drive *of)
{
	struct soft_fault f = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_IDENTIFY, .count = 1000, .arg = 50 * MS };

	soft_fault_add(of, &f);
}

SIM_TEST(a_path_that_refuses_without_a_word_is_left_at_once)
{
	attach_both(1);
	fault(SOFT_STATUS, SOFT_ANY_OPCODE, 0, 1000000, NVME_SC_ANA_INACCESSIBLE);
	ck_assert_uint_lt(timed_write(0), 20 * MS);
	ck_assert_uint_eq(nr_io(second), 1);
	/* Its log says that all is well: it is tried again now and then, and costs no operation. */
	ck_assert_int_eq(bdev_nvme_set_policy(bdev_nvme_find("Nvme0"), BDEV_NVME_ACTIVE_ACTIVE), 0);
	for (unsigned i = 0; i < 300; i++) {
		timed_write(0);
		fiber_sleep(10 * MS);
	}
	ck_assert_uint_lt(nr_io(drive), 10);
	soft_faults_clear(drive);
	fiber_sleep(3 * SECOND);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "optimized");
	end_both();
}

SIM_TEST(each_refusal_has_the_command_go_by_the_other_path)
{
	static const uint16_t statuses[] = { NVME_SC_ANA_PERSISTENT_LOSS, NVME_SC_ANA_INACCESSIBLE, NVME_SC_ANA_TRANSITION };

	attach_both(1);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t before = nr_io(second);

		fiber_sleep(3 * SECOND);
		ck_assert_int_eq(bdev_nvme_set_policy(bdev_nvme_find("Nvme0"), BDEV_NVME_ACTIVE_ACTIVE), 0);
		fault(SOFT_STATUS, SOFT_ANY_OPCODE, 0, 1, statuses[i] | NVME_SC_DNR);
		timed_write(0);
		timed_write(0);
		ck_assert_uint_eq(nr_io(second), before + 2);
	}
	end_both();
}

SIM_TEST(with_the_namespace_lost_on_all_paths_io_fails_at_once)
{
	attach_both(1);
	soft_ana_set(drive, NVME_ANA_PERSISTENT_LOSS);
	timed_write(0);
	soft_ana_set(second, NVME_ANA_PERSISTENT_LOSS);
	ck_assert_uint_lt(timed_write(-EIO), SECOND);
	soft_ana_set(second, NVME_ANA_OPTIMIZED);
	fiber_sleep(SECOND);
	timed_write(0);
	end_both();
}

SIM_TEST(without_access_io_fails_when_its_time_is_up)
{
	opts.loss.fast_io_fail_s = 5;
	attach_both(1);
	soft_ana_set(drive, NVME_ANA_INACCESSIBLE);
	soft_ana_set(second, NVME_ANA_INACCESSIBLE);
	ck_assert_uint_gt(timed_write(-EIO), 4 * SECOND);
	end_both();
}

SIM_TEST(the_access_is_known_before_a_slow_scan)
{
	attach_both(16);
	slow_identify(drive);
	soft_ns_set(drive, 16, 32);
	soft_ns_set(second, 16, 32);
	fiber_sleep(200 * MS); /* a scan of a second and a half has begun */
	soft_ana_set(drive, NVME_ANA_INACCESSIBLE);
	ck_assert_uint_lt(timed_write(0), 100 * MS);
	fiber_sleep(100 * MS);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "inaccessible");
	end_both();
}

SIM_TEST(a_scan_does_not_forget_the_access)
{
	uint64_t before;

	attach_both(16);
	soft_ana_set(drive, NVME_ANA_INACCESSIBLE);
	fiber_sleep(SECOND);
	ck_assert_int_eq(bdev_nvme_set_policy(bdev_nvme_find("Nvme0"), BDEV_NVME_ACTIVE_ACTIVE), 0);
	before = nr_io(drive);
	slow_identify(drive);
	soft_ns_set(drive, 16, 32);
	soft_ns_set(second, 16, 32);
	for (unsigned i = 0; i < 200; i++) {
		timed_write(0);
		fiber_sleep(10 * MS);
	}
	ck_assert_uint_eq(nr_io(drive), before);
	end_both();
}

SIM_TEST(a_path_whose_log_is_not_to_be_had_comes_after_those_that_are_good)
{
	struct soft_fault f = {
		.kind = SOFT_STATUS, .admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .count = 4, .arg = NVME_SC_INTERNAL_ERROR
	};

	sopts.ana = true;
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	ck_assert_int_eq(soft_create(&sopts, &second), 0);
	soft_fault_add(drive, &f);
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
	attach_second();
	open_ns("Nvme0n1");
	fiber_sleep(500 * MS);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "non_optimized");
	timed_write(0);
	ck_assert_uint_eq(nr_io(drive), 0);
	fiber_sleep(5 * SECOND); /* it is asked again */
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "optimized");
	end_both();
}

SIM_TEST(a_log_of_several_pieces_that_changes_under_way_is_read_again)
{
	struct soft_fault f = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .count = 2, .arg = 20 * MS };

	sopts.ana_groups = 200; /* 32 bytes each */
	attach_both(1);
	soft_ana_set(drive, NVME_ANA_INACCESSIBLE);
	fiber_sleep(SECOND);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "inaccessible");
	soft_fault_add(drive, &f);
	soft_ana_set(drive, NVME_ANA_CHANGE);
	fiber_sleep(30 * MS); /* between the first piece and the second */
	soft_ana_set(drive, NVME_ANA_NON_OPTIMIZED);
	fiber_sleep(500 * MS);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "non_optimized");
	end_both();
}

SIM_TEST(a_change_of_access_that_never_ends_resets_the_path)
{
	struct bdev_nvme_path_info info;

	attach_both(1);
	soft_ana_set(drive, NVME_ANA_CHANGE);
	fiber_sleep(5 * SECOND);
	timed_write(0);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &info));
	ck_assert_uint_eq(info.nr_resets, 0);
	fiber_sleep(10 * SECOND);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &info));
	ck_assert_uint_ge(info.nr_resets, 1);
	end_both();
}

int main(void)
{
	const TTest *const tests[] = {
		a_path_that_refuses_without_a_word_is_left_at_once,
		each_refusal_has_the_command_go_by_the_other_path,
		with_the_namespace_lost_on_all_paths_io_fails_at_once,
		without_access_io_fails_when_its_time_is_up,
		the_access_is_known_before_a_slow_scan,
		a_scan_does_not_forget_the_access,
		a_path_whose_log_is_not_to_be_had_comes_after_those_that_are_good,
		a_log_of_several_pieces_that_changes_under_way_is_read_again,
		a_change_of_access_that_never_ends_resets_the_path,
	};

	(void)attach;
	return nvme_suite("bdev/nvme_ana", tests, sizeof(tests) / sizeof(*tests));
}
