/*
 * What happens to I/O on namespaces when a drive is reset, dies, hangs, answers nonsense, loses a path, is pulled out and comes back.
 */
#include "bdev/nvme_testing.h"

SIM_TEST(a_hundred_resets_under_load_cost_no_operation)
{
	attach();
	for (unsigned round = 0; round < 25; round++) {
		submit_many(400, BDEV_WRITE, data + round * BS, 8);
		fiber_sleep(round * 20);
		ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
		wait_many(60 * SECOND);
		ck_assert_uint_eq(nr_with_status(0), 400);
		ck_assert(!memcmp(soft_ns_data(drive, 1), data + round * BS, 400 * 8 * BS));
	}
	shut();
}

SIM_TEST(a_reset_may_be_of_one_controller_by_its_identifier)
{
	struct bdev_nvme_path_info path;
	uint16_t cntlid;

	attach();
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &path));
	cntlid = path.cntlid;
	ck_assert_int_eq(bdev_nvme_reset("Nvme0", &cntlid), 0);
	cntlid++;
	ck_assert_int_eq(bdev_nvme_reset("Nvme0", &cntlid), -ENODEV);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &path));
	ck_assert_uint_eq(path.nr_resets, 1);
	ck_assert_int_eq(bdev_nvme_reset("Nvme9", NULL), -ENODEV);
	shut();
}

SIM_TEST(a_fatal_status_under_load_costs_no_operation)
{
	attach();
	fault(SOFT_FATAL, NVME_IO_WRITE, 30, 1, 0);
	submit_many(400, BDEV_WRITE, data, 8);
	wait_many(10 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), 400);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 400 * 8 * BS));
	shut();
}

SIM_TEST(a_drive_that_answers_nonsense_is_reset_and_costs_no_operation)
{
	attach();
	fault(SOFT_WRONG_CID, NVME_IO_WRITE, 30, 1, 0x111);
	fault(SOFT_TWICE, NVME_IO_WRITE, 200, 1, 0);
	submit_many(400, BDEV_WRITE, data, 8);
	wait_many(10 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), 400);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 400 * 8 * BS));
	shut();
}

SIM_TEST(a_command_that_kills_the_drive_each_time_fails_in_the_end)
{
	opts.loss.reconnect_delay_s = 1;
	attach();
	fault(SOFT_FATAL, NVME_IO_COMPARE, 0, 1000, 0);
	submit_many(1, BDEV_COMPARE, data, 8);
	wait_many(200 * SECOND);
	ck_assert_int_eq(many[0].status, -EIO);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	shut();
}

SIM_TEST(a_swallowed_command_is_aborted_then_the_drive_is_reset_then_it_succeeds)
{
	struct soft_counters c;

	opts.connect.timeout_us = 2 * SECOND;
	opts.connect.abort_timeout_us = SECOND;
	attach();
	fault(SOFT_DROP, NVME_IO_WRITE, 0, 1, 0);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_aborts, 1);
	ck_assert_uint_ge(c.nr_resets, 2);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 8 * BS));
	shut();
}

/* The drive counts more Aborts than it takes as an error of ours. */
SIM_TEST(many_commands_that_hang_are_aborted_as_many_at_a_time_as_the_drive_takes)
{
	const struct soft_fault slow = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_ABORT, .count = 1000, .arg = 100 * MS };
	struct soft_counters before, after;

	opts.connect.timeout_us = 2 * SECOND;
	opts.connect.abort_timeout_us = 10 * SECOND;
	attach();
	soft_fault_add(drive, &slow);
	fault(SOFT_STALL, NVME_IO_WRITE, 0, 20, 0);
	soft_get_counters(drive, &before);
	submit_many(20, BDEV_WRITE, data, 8);
	wait_many(60 * SECOND);
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(nr_with_status(0), 20);
	ck_assert_uint_eq(after.nr_aborts - before.nr_aborts, 20);
	ck_assert_uint_eq(after.nr_resets, before.nr_resets);
	ck_assert_msg(!soft_host_errors(drive), "%s", soft_last_host_error(drive));
	shut();
}

static unsigned nr_warnings;
static uint8_t warning;

static void on_warning(const struct bdev_nvme_event *event)
{
	ck_assert_str_eq(event->ctrlr, "Nvme0");
	ck_assert_ptr_nonnull(event->smart);
	nr_warnings++;
	warning = event->smart->critical_warning;
}

/* The drive holds events of a kind back until the page of the last one has been read. */
SIM_TEST(each_warning_of_a_drive_is_heard_not_only_the_first)
{
	nr_warnings = 0;
	bdev_nvme_listen(on_warning);
	attach();
	soft_warn(drive, NVME_SMART_TEMPERATURE);
	fiber_sleep(SECOND);
	ck_assert_uint_eq(nr_warnings, 1);
	ck_assert_uint_eq(warning, NVME_SMART_TEMPERATURE);
	soft_warn(drive, NVME_SMART_TEMPERATURE | NVME_SMART_READ_ONLY);
	fiber_sleep(SECOND);
	ck_assert_uint_eq(nr_warnings, 2);
	ck_assert_uint_eq(warning, NVME_SMART_TEMPERATURE | NVME_SMART_READ_ONLY);
	bdev_nvme_listen(NULL);
	shut();
}

/* What a mad drive tells again and again is read each time, and passed on once. */
SIM_TEST(a_drive_that_warns_without_end_floods_nobody)
{
	nr_warnings = 0;
	bdev_nvme_listen(on_warning);
	attach();
	for (unsigned i = 0; i < 100; i++) {
		soft_event(drive, NVME_AER_RESULT(NVME_AER_SMART, NVME_AER_SMART_SPARE, NVME_LID_SMART));
		fiber_sleep(10 * MS);
	}
	ck_assert_uint_eq(nr_warnings, 1);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	bdev_nvme_listen(NULL);
	shut();
}

SIM_TEST(a_drive_that_is_dead_for_a_while_fails_io_in_its_time_and_comes_back)
{
	uint64_t start_us;

	opts.loss = (struct bdev_nvme_loss){ .reconnect_delay_s = 1, .fast_io_fail_s = 3, .ctrlr_loss_s = -1 };
	attach();
	soft_stick(drive, true);
	fault(SOFT_FATAL, NVME_IO_WRITE, 30, 1, 0);
	start_us = clock_now_us();
	submit_many(100, BDEV_WRITE, data, 8);
	wait_many(10 * SECOND);
	ck_assert_uint_ge(clock_now_us() - start_us, 3 * SECOND);
	ck_assert_uint_gt(nr_with_status(-EIO), 0);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), -EIO);
	soft_stick(drive, false);
	fiber_sleep(10 * SECOND);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), 0);
	shut();
}

SIM_TEST(a_drive_that_stays_dead_is_given_up_and_its_bdevs_go)
{
	opts.loss = (struct bdev_nvme_loss){ .reconnect_delay_s = 1, .ctrlr_loss_s = 5 };
	attach();
	soft_stick(drive, true);
	fault(SOFT_FATAL, NVME_IO_WRITE, 30, 1, 0);
	submit_many(100, BDEV_WRITE, data, 8);
	wait_many(20 * SECOND);
	ck_assert_uint_gt(nr_with_status(-ENODEV), 0);
	fiber_sleep(SECOND);
	ck_assert_uint_eq(nr_removals, 1);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
}

SIM_TEST(a_drive_pulled_out_under_load_goes_and_comes_back)
{
	attach();
	for (unsigned round = 0; round < 20; round++) {
		uint64_t start_us;

		fault(SOFT_UNPLUG, NVME_IO_WRITE, 30 + round, 1, round & 1);
		start_us = clock_now_us();
		submit_many(400, BDEV_WRITE, data, 8);
		present = false;
		wait_many(2 * SECOND);
		ck_assert_uint_gt(nr_with_status(-ENODEV), 0);
		ck_assert_uint_eq(nr_with_status(0) + nr_with_status(-ENODEV), 400);
		ck_assert_uint_le(clock_now_us() - start_us, 2 * SECOND);
		fiber_sleep(SECOND);
		ck_assert_uint_eq(nr_removals, round + 1);
		ck_assert_ptr_null(bdev_find("Nvme0n1"));
		soft_faults_clear(drive);
		present = true;
		fiber_sleep(3 * SECOND);
		ck_assert_ptr_nonnull(bdev_find("Nvme0n1"));
		open_ns("Nvme0n1");
		ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
	}
	shut();
}

SIM_TEST(a_drive_that_others_ask_for_is_shut_down_while_it_is_there_and_comes_back)
{
	struct soft_counters before, after;

	sopts.latency_us = 200;
	attach();
	soft_get_counters(drive, &before);
	submit_many(200, BDEV_READ, back, 8);
	fiber_sleep(300);
	present = false;
	soft_ask_back(drive);
	wait_many(2 * SECOND);
	fiber_sleep(SECOND);
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(nr_with_status(0) + nr_with_status(-ENODEV), 200);
	ck_assert_uint_eq(after.nr_shutdowns, before.nr_shutdowns + 1);
	ck_assert_uint_eq(nr_removals, 1);
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
	present = true;
	fiber_sleep(3 * SECOND);
	ck_assert_ptr_nonnull(bdev_find("Nvme0n1"));
	shut();
}

SIM_TEST(detaching_closes_in_good_order_and_io_in_flight_ends)
{
	struct soft_counters c;

	attach();
	submit_many(400, BDEV_WRITE, data, 8);
	wait_many(SECOND);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_uint_eq(nr_removals, 1);
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_shutdowns, 1);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), -ENODEV);
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
}

static void close_in_good_order(void *arg)
{
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
	ck_assert_int_eq(bdev_flush(ch), 0);
	shut();
}

static void on_polite_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	nr_removals++;
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "close", close_in_good_order, NULL), 0);
}

SIM_TEST(what_stands_on_a_namespace_that_is_let_go_can_still_write)
{
	attach_only();
	ck_assert_int_eq(bdev_open("Nvme0n1", true, on_polite_event, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_uint_eq(nr_removals, 1);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 64 * BS));
}

SIM_TEST(a_drive_that_is_not_there_is_not_attached)
{
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	present = false;
	ck_assert_int_eq(bdev_nvme_attach(&opts, &error), -ENOENT);
	ck_assert_str_ne(error.text, "");
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
}

SIM_TEST(the_same_path_twice_is_refused)
{
	attach();
	ck_assert_int_eq(bdev_nvme_attach(&opts, &error), -EEXIST);
	shut();
}

SIM_TEST(an_identify_full_of_nonsense_attaches_nothing_wild)
{
	struct soft_fault f = { .kind = SOFT_GARBAGE, .admin = true, .opcode = NVME_ADMIN_IDENTIFY, .count = 2 };

	for (unsigned skip = 0; skip < 4; skip++) {
		f.skip = skip;
		if (!drive)
			ck_assert_int_eq(soft_create(&sopts, &drive), 0);
		soft_faults_clear(drive);
		soft_fault_add(drive, &f);
		bdev_nvme_attach(&opts, &error);
		bdev_nvme_detach("Nvme0", NULL);
	}
}

SIM_TEST(a_queue_that_is_refused_is_asked_for_again)
{
	const struct soft_fault refused = { .kind = SOFT_STATUS, .admin = true, .opcode = NVME_ADMIN_CREATE_IO_SQ, .count = 3,
					    .arg = NVME_SC_INTERNAL_ERROR };

	attach_only();
	soft_fault_add(drive, &refused);
	open_ns("Nvme0n1");
	submit_many(10, BDEV_WRITE, data, 8);
	wait_many(10 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), 10);
	shut();
}

SIM_TEST(a_controller_that_gives_no_queues_is_connected_to_again)
{
	const struct soft_fault refused = { .kind = SOFT_STATUS, .admin = true, .opcode = NVME_ADMIN_SET_FEATURES, .skip = 1,
					    .count = 1, .arg = NVME_SC_INTERNAL_ERROR };

	attach();
	soft_fault_add(drive, &refused); /* the first sets what events are told */
	bdev_nvme_reset("Nvme0", NULL);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	shut();
}

SIM_TEST(a_namespace_does_not_go_for_want_of_an_answer)
{
	const struct soft_fault refused = { .kind = SOFT_STATUS, .admin = true, .opcode = NVME_ADMIN_IDENTIFY, .cns = 1 + NVME_CNS_NS,
					    .count = 2, .arg = NVME_SC_INTERNAL_ERROR };

	attach();
	soft_fault_add(drive, &refused);
	ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	ck_assert_uint_eq(nr_removals, 0);
	shut();
}

SIM_TEST(io_waits_while_the_only_path_is_inaccessible)
{
	sopts.ana = true;
	attach();
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "optimized");
	soft_ana_set(drive, NVME_ANA_INACCESSIBLE);
	submit_many(40, BDEV_WRITE, data, 8);
	fiber_sleep(20 * SECOND);
	ck_assert_uint_eq(nr_done, 0);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "inaccessible");
	soft_ana_set(drive, NVME_ANA_NON_OPTIMIZED);
	wait_many(2 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), 40);
	ck_assert_str_eq(bdev_nvme_access_name(bdev_find("Nvme0n1"), 0), "non_optimized");
	soft_ana_set(drive, NVME_ANA_INACCESSIBLE);
	fiber_sleep(SECOND);
	submit_many(40, BDEV_WRITE, data, 8);
	fiber_sleep(600 * SECOND);
	ck_assert_uint_eq(nr_done, 0); /* nobody has said for how long I/O may wait */
	soft_ana_set(drive, NVME_ANA_OPTIMIZED);
	wait_many(2 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), 40);
	shut();
}

/* Two drives of software that say they are one subsystem: what one must not serve the other does. */
static struct soft_drive *second;

static int open_second(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *ret_error)
{
	*ret_bar = soft_plug(second, address);
	return 0;
}

SIM_TEST(io_takes_the_path_that_ana_prefers)
{
	struct soft_counters a, b;

	sopts.ana = true;
	attach();
	ck_assert_int_eq(soft_create(&sopts, &second), 0);
	strcpy(opts.address, "0000:02:00.0");
	opts.bar_open = open_second;
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
	soft_ana_set(drive, NVME_ANA_NON_OPTIMIZED);
	fiber_sleep(SECOND);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	soft_get_counters(drive, &a);
	soft_get_counters(second, &b);
	ck_assert_uint_eq(a.nr_io, 0);
	ck_assert_uint_eq(b.nr_io, 1);
	soft_ana_set(second, NVME_ANA_INACCESSIBLE);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	soft_get_counters(drive, &a);
	ck_assert_uint_eq(a.nr_io, 1);
	/* Active and active, both optimized: in turn. */
	soft_ana_set(drive, NVME_ANA_OPTIMIZED);
	soft_ana_set(second, NVME_ANA_OPTIMIZED);
	fiber_sleep(SECOND);
	ck_assert_int_eq(bdev_nvme_set_policy(bdev_nvme_find("Nvme0"), BDEV_NVME_ACTIVE_ACTIVE), 0);
	soft_get_counters(drive, &a);
	soft_get_counters(second, &b);
	submit_many(100, BDEV_WRITE, data, 8);
	wait_many(SECOND);
	ck_assert_uint_eq(nr_with_status(0), 100);
	{
		struct soft_counters a2, b2;

		soft_get_counters(drive, &a2);
		soft_get_counters(second, &b2);
		ck_assert_uint_eq(a2.nr_io - a.nr_io, 50);
		ck_assert_uint_eq(b2.nr_io - b.nr_io, 50);
	}
	/* One of them dies under load: the other serves. */
	fault(SOFT_FATAL, NVME_IO_WRITE, 20, 1, 0);
	soft_stick(drive, true);
	submit_many(200, BDEV_WRITE, data, 8);
	wait_many(20 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), 200);
	shut();
	soft_stick(drive, false);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_msg(!soft_host_errors(second), "%s", soft_last_host_error(second));
	soft_destroy(second);
}

static int attach_other_drive(void)
{
	sopts.serial = "DRIVE-B";
	ck_assert_int_eq(soft_create(&sopts, &second), 0);
	strcpy(opts.address, "0000:02:00.0");
	opts.bar_open = open_second;
	return bdev_nvme_attach(&opts, &error);
}

SIM_TEST(two_drives_without_names_are_not_two_paths_of_one)
{
	sopts.ids = SOFT_IDS_OLD;
	attach();
	ck_assert_int_eq(attach_other_drive(), -EINVAL);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	ck_assert_uint_eq(nr_removals, 0);
	shut();
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	soft_destroy(second);
}

SIM_TEST(a_namespace_that_stays_what_it_was_survives_resets_whatever_names_it_has)
{
	static const enum soft_ids ids[] = { SOFT_IDS_NEW, SOFT_IDS_OLD, SOFT_IDS_NONE };

	for (unsigned i = 0; i < 3; i++) {
		sopts.ids = ids[i];
		attach();
		ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
		ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
		ck_assert_uint_eq(nr_removals, 0);
		shut();
		ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
		soft_destroy(drive);
		drive = NULL;
	}
	sopts.ids = SOFT_IDS_NEW;
	attach_only();
}

SIM_TEST(a_namespace_of_another_command_set_is_not_shown)
{
	sopts.csi = 2;
	attach_only();
	fiber_sleep(SECOND);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
}

SIM_TEST(a_namespace_that_is_not_ready_is_waited_for)
{
	attach();
	fault(SOFT_STATUS, NVME_IO_WRITE, 0, 200, NVME_SC_NS_NOT_READY);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	fault(SOFT_STATUS, NVME_IO_WRITE, 0, 1, NVME_SC_NS_NOT_READY | NVME_SC_DNR);
	ck_assert_int_ne(bdev_write(ch, data, 0, 8, 0), 0);
	shut();
}

/* A drive that does anything at all, at random: commands swallowed, doubled, misnumbered, in the wrong phase, garbage, fatal,
 * gone.  Every operation ends in its time, none of our memory is touched after that, and once it behaves, it works. */
SIM_TEST(a_mad_drive_costs_time_and_errors_and_nothing_else)
{
	static const enum soft_fault_kind kinds[] = { SOFT_DELAY, SOFT_DROP,  SOFT_STALL, SOFT_STATUS, SOFT_WRONG_CID, SOFT_WRONG_SQID,
						      SOFT_TWICE, SOFT_BAD_PHASE, SOFT_FATAL, SOFT_UNPLUG, SOFT_GARBAGE };
	const unsigned nr_kinds = sizeof(kinds) / sizeof(kinds[0]);

	opts.connect.timeout_us = 2 * SECOND;
	opts.connect.abort_timeout_us = SECOND;
	opts.loss = (struct bdev_nvme_loss){ .reconnect_delay_s = 1, .fast_io_fail_s = 10, .ctrlr_loss_s = -1 };
	mad = true;
	attach();
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 4; i++) {
			struct soft_fault f = { .kind = kinds[rand_u64() % nr_kinds],
						.admin = rand_u64() % 4 == 0,
						.opcode = SOFT_ANY_OPCODE,
						.skip = rand_u64() % 60,
						.count = 1 + rand_u64() % 3,
						.arg = rand_u64() % 0x300 };

			soft_fault_add(drive, &f);
		}
		submit_many(200, round & 1 ? BDEV_READ : BDEV_WRITE, round & 1 ? back : data, 8);
		if (rand_u64() % 3 == 0)
			bdev_nvme_reset("Nvme0", NULL);
		wait_many(120 * SECOND);
		memset(back, 0x5a, DATA_LEN);
		soft_faults_clear(drive);
		fiber_sleep(30 * SECOND);
		ck_assert(all_bytes(back, DATA_LEN, 0x5a));
		/* A drive that denied its namespace is asked again at the next reset. */
		if (!bdev_find("Nvme0n1")) {
			ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
			fiber_sleep(SECOND);
		}
		if (!desc) {
			ck_assert_ptr_nonnull(bdev_find("Nvme0n1"));
			open_ns("Nvme0n1");
		}
		ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
		ck_assert_int_eq(bdev_read(ch, back, 0, 64), 0);
		ck_assert(!memcmp(back, data, 64 * BS));
	}
	shut();
}

int main(void)
{
	const TTest *const tests[] = {
		a_hundred_resets_under_load_cost_no_operation,
		a_reset_may_be_of_one_controller_by_its_identifier,
		a_fatal_status_under_load_costs_no_operation,
		a_drive_that_answers_nonsense_is_reset_and_costs_no_operation,
		a_command_that_kills_the_drive_each_time_fails_in_the_end,
		a_swallowed_command_is_aborted_then_the_drive_is_reset_then_it_succeeds,
		each_warning_of_a_drive_is_heard_not_only_the_first,
		a_drive_that_warns_without_end_floods_nobody,
		many_commands_that_hang_are_aborted_as_many_at_a_time_as_the_drive_takes,
		a_drive_that_is_dead_for_a_while_fails_io_in_its_time_and_comes_back,
		a_drive_that_stays_dead_is_given_up_and_its_bdevs_go,
		a_drive_pulled_out_under_load_goes_and_comes_back,
		a_drive_that_others_ask_for_is_shut_down_while_it_is_there_and_comes_back,
		detaching_closes_in_good_order_and_io_in_flight_ends,
		what_stands_on_a_namespace_that_is_let_go_can_still_write,
		a_drive_that_is_not_there_is_not_attached,
		the_same_path_twice_is_refused,
		an_identify_full_of_nonsense_attaches_nothing_wild,
		a_queue_that_is_refused_is_asked_for_again,
		a_controller_that_gives_no_queues_is_connected_to_again,
		a_namespace_does_not_go_for_want_of_an_answer,
		io_waits_while_the_only_path_is_inaccessible,
		io_takes_the_path_that_ana_prefers,
		two_drives_without_names_are_not_two_paths_of_one,
		a_namespace_that_stays_what_it_was_survives_resets_whatever_names_it_has,
		a_namespace_of_another_command_set_is_not_shown,
		a_namespace_that_is_not_ready_is_waited_for,
		a_mad_drive_costs_time_and_errors_and_nothing_else,
	};

	return nvme_suite("nvme trouble", tests, sizeof(tests) / sizeof(tests[0]));
}
