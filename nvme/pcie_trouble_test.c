/* Drives that are slow, dead, gone or mad cost the PCIe driver neither memory nor time. */
#include "nvme/pcie_testing.h"

static void fault(enum soft_fault_kind kind, bool admin, unsigned opcode, unsigned skip, uint64_t arg)
{
	struct soft_fault f = {.kind = kind, .admin = admin, .opcode = (uint16_t)opcode, .skip = skip, .count = 1, .arg = arg};

	soft_fault_add(drive, &f);
}

static unsigned nr_path_errors(unsigned nr)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr; i++) {
		ck_assert(many[i].done);
		n += nvme_status_code(many[i].status) == NVME_SC_HOST_PATH_ERROR;
	}
	return n;
}

/* Under load; everything completes, and the owner hears once. */
static void under_load_everything_ends_within(uint64_t limit_us)
{
	uint64_t start_us = clock_now_us();

	submit_many(200, NVME_IO_READ, back);
	wait_many();
	ck_assert_uint_le(clock_now_us() - start_us, limit_us);
	ck_assert_uint_gt(nr_path_errors(200), 0);
	fiber_sleep(MS);
	ck_assert_uint_eq(nr_failed, 1);
}

SIM_TEST(a_drive_pulled_out_under_load_ends_everything_within_two_seconds)
{
	start_ok(64);
	fault(SOFT_UNPLUG, false, NVME_IO_READ, 20, 0);
	under_load_everything_ends_within(2 * SECOND);
	ck_assert_int_eq(nvme_qpair_error(qpair)->err, -ENODEV);
	stop();
}

SIM_TEST(a_drive_that_goes_without_a_word_is_noticed_within_two_seconds)
{
	start_ok(64);
	fault(SOFT_UNPLUG, false, NVME_IO_READ, 20, 1);
	under_load_everything_ends_within(2 * SECOND);
	ck_assert_int_eq(nvme_qpair_error(qpair)->err, -ENODEV);
	stop();
}

SIM_TEST(a_fatal_status_under_load_ends_everything)
{
	start_ok(64);
	fault(SOFT_FATAL, false, NVME_IO_READ, 20, 0);
	under_load_everything_ends_within(2 * SECOND);
	stop();
}

SIM_TEST(a_fatal_drive_that_cannot_be_switched_off_is_stopped_as_a_function)
{
	struct soft_counters c;

	start_ok(64);
	soft_stick(drive, true);
	fault(SOFT_FATAL, false, NVME_IO_READ, 20, 0);
	under_load_everything_ends_within(8 * SECOND);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_stops, 1);
	stop();
}

SIM_TEST(a_completion_for_no_command_ends_the_queue_and_hits_nobody)
{
	start_ok(64);
	fault(SOFT_WRONG_CID, false, NVME_IO_READ, 7, 0x333);
	under_load_everything_ends_within(2 * SECOND);
	ck_assert_int_eq(nvme_qpair_error(qpair)->err, -EPROTO);
	stop();
}

SIM_TEST(a_completion_of_a_command_from_before_ends_the_queue)
{
	start_ok(64);
	fault(SOFT_TWICE, false, NVME_IO_READ, 7, 0);
	under_load_everything_ends_within(2 * SECOND);
	stop();
}

SIM_TEST(nothing_is_written_to_memory_that_was_given_back)
{
	bool untouched = true;

	sopts.jitter_us = 20000;
	start_ok(64);
	fault(SOFT_WRONG_CID, false, NVME_IO_READ, 7, 0x333);
	submit_many(60, NVME_IO_READ, back);
	wait_many();
	memset(back, 0x5a, DATA_LEN);
	fiber_sleep(100 * MS);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		untouched = untouched && back[i] == 0x5a;
	ck_assert(untouched);
	stop();
}

SIM_TEST(a_completion_for_another_queue_ends_the_queue)
{
	start_ok(64);
	fault(SOFT_WRONG_SQID, false, NVME_IO_READ, 7, 3);
	under_load_everything_ends_within(2 * SECOND);
	stop();
}

SIM_TEST(a_phase_that_does_not_flip_ends_in_a_timeout)
{
	opts.timeout_us = SECOND;
	start_ok(64);
	fault(SOFT_BAD_PHASE, false, NVME_IO_READ, 100, 0);
	under_load_everything_ends_within(4 * SECOND);
	stop();
}

SIM_TEST(a_command_that_is_slow_is_aborted_and_nothing_else_suffers)
{
	struct soft_counters c;

	opts.timeout_us = SECOND;
	opts.abort_timeout_us = SECOND;
	start_ok(64);
	fault(SOFT_STALL, false, NVME_IO_READ, 7, 0);
	submit_many(100, NVME_IO_READ, back);
	wait_many();
	ck_assert_uint_eq(many[7].status, NVME_SC_ABORT_REQUESTED);
	for (unsigned i = 0; i < 100; i++)
		ck_assert(i == 7 || !many[i].status);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_aborts, 1);
	ck_assert_uint_eq(nr_failed, 0);
	stop();
}

SIM_TEST(a_command_that_no_abort_reaches_ends_the_queue)
{
	struct soft_counters c;

	opts.timeout_us = SECOND;
	opts.abort_timeout_us = SECOND;
	start_ok(64);
	fault(SOFT_DROP, false, NVME_IO_READ, 7, 0);
	under_load_everything_ends_within(4 * SECOND);
	ck_assert_int_eq(nvme_qpair_error(qpair)->err, -ETIMEDOUT);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_aborts, 1);
	stop();
}

SIM_TEST(after_its_end_a_controller_is_set_up_anew_and_works)
{
	start_ok(64);
	for (unsigned round = 0; round < 5; round++) {
		fault(SOFT_FATAL, false, NVME_IO_READ, 20, 0);
		nr_failed = 0;
		under_load_everything_ends_within(2 * SECOND);
		nvme_qpair_disconnect(qpair);
		nvme_ctrlr_disconnect(ctrlr);
		soft_faults_clear(drive);
		ck_assert_msg(!start(64), "%s", error.text);
		write_and_read_back(0);
	}
	stop();
}

SIM_TEST(disconnecting_under_load_completes_everything)
{
	sopts.latency_us = 5000;
	start_ok(64);
	submit_many(200, NVME_IO_READ, back);
	fiber_sleep(2 * MS);
	nvme_qpair_disconnect(qpair);
	ck_assert_uint_eq(nr_many_done, 200);
	ck_assert_uint_eq(nr_path_errors(200), 200);
	ck_assert_uint_eq(soft_nr_in_flight(drive), 0);
	nvme_ctrlr_disconnect(ctrlr);
	bar->ops->close(bar);
}

SIM_TEST(an_identify_full_of_nonsense_is_refused_or_harmless)
{
	struct soft_fault f = {.kind = SOFT_GARBAGE, .admin = true, .opcode = NVME_ADMIN_IDENTIFY, .count = 1};
	uint32_t nsids[8];
	struct nvme_ns ns;

	plug();
	soft_fault_add(drive, &f);
	if (!start(8))
		nvme_qpair_disconnect(qpair), nvme_ctrlr_disconnect(ctrlr);
	else
		ck_assert_str_ne(error.text, "");
	soft_faults_clear(drive);
	ck_assert_msg(!start(8), "%s", error.text);
	f.count = 3;
	soft_fault_add(drive, &f);
	nvme_ns_list(ctrlr, 0, nsids, 8);
	nvme_ns_open(ctrlr, 1, &ns, &error);
	nvme_ns_open(ctrlr, 1, &ns, &error);
	stop();
}

SIM_TEST(a_drive_that_never_becomes_ready_is_given_up_in_time)
{
	uint64_t start_us;

	plug();
	soft_stick(drive, true);
	start_us = clock_now_us();
	ck_assert_int_eq(start(8), -ETIMEDOUT);
	ck_assert_uint_le(clock_now_us() - start_us, 8 * SECOND);
	bar->ops->close(bar);
}

SIM_TEST(a_drive_that_does_not_answer_identify_is_given_up_in_time)
{
	opts.timeout_us = SECOND;
	plug();
	fault(SOFT_DROP, true, NVME_ADMIN_IDENTIFY, 0, 0);
	ck_assert_int_eq(start(8), -ETIMEDOUT);
	ck_assert_msg(!start(8), "%s", error.text);
	stop();
}

SIM_TEST(a_drive_that_is_not_there_is_said_to_be_gone)
{
	plug();
	soft_unplug(drive);
	ck_assert_int_eq(start(8), -ENODEV);
	fiber_sleep(MS);
	bar->ops->close(bar);
}

SIM_TEST(a_queue_that_the_drive_refuses_costs_nothing)
{
	plug();
	fault(SOFT_STATUS, true, NVME_ADMIN_CREATE_IO_SQ, 0, NVME_SC_INVALID_QUEUE_SIZE | NVME_SC_DNR);
	ck_assert_int_ne(start(8), 0);
	ck_assert_msg(!nvme_qpair_connect(ctrlr, 1, 8, &qpair, &error), "%s", error.text);
	write_and_read_back(0);
	stop();
}

SIM_TEST(a_status_of_the_drive_reaches_the_submitter)
{
	start_ok(8);
	fault(SOFT_STATUS, false, NVME_IO_READ, 0, NVME_SC_UNRECOVERED_READ_ERROR);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 4096), NVME_SC_UNRECOVERED_READ_ERROR);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 4096), 0);
	stop();
}

SIM_TEST(no_memory_for_a_request_means_waiting)
{
	start_ok(64);
	soft_set_reach(drive, false);
	submit_many(100, NVME_IO_WRITE, data);
	fiber_sleep(3 * SECOND);
	ck_assert_uint_eq(nr_many_done, 0);
	soft_set_reach(drive, true);
	wait_many();
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq(many[i].status, 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 100 * 4096));
	stop();
}

SIM_TEST(more_than_a_transfer_takes_is_refused_before_the_drive_sees_it)
{
	union nvme_cmd cmd;

	start_ok(8);
	nvme_cmd_rw(&cmd, NVME_IO_READ, 1, 0, (1536u << 10) / 512);
	ck_assert_int_eq(nvme_execute(qpair, &cmd, back, 1536u << 10, NULL), NVME_SC_INVALID_FIELD);
	stop();
}

int main(void)
{
	const TTest *const tests[] = {
		a_drive_pulled_out_under_load_ends_everything_within_two_seconds,
		a_drive_that_goes_without_a_word_is_noticed_within_two_seconds,
		a_fatal_status_under_load_ends_everything,
		a_fatal_drive_that_cannot_be_switched_off_is_stopped_as_a_function,
		a_completion_for_no_command_ends_the_queue_and_hits_nobody,
		a_completion_of_a_command_from_before_ends_the_queue,
		nothing_is_written_to_memory_that_was_given_back,
		a_completion_for_another_queue_ends_the_queue,
		a_phase_that_does_not_flip_ends_in_a_timeout,
		a_command_that_is_slow_is_aborted_and_nothing_else_suffers,
		a_command_that_no_abort_reaches_ends_the_queue,
		after_its_end_a_controller_is_set_up_anew_and_works,
		disconnecting_under_load_completes_everything,
		an_identify_full_of_nonsense_is_refused_or_harmless,
		a_drive_that_never_becomes_ready_is_given_up_in_time,
		a_drive_that_does_not_answer_identify_is_given_up_in_time,
		a_drive_that_is_not_there_is_said_to_be_gone,
		a_queue_that_the_drive_refuses_costs_nothing,
		a_status_of_the_drive_reaches_the_submitter,
		no_memory_for_a_request_means_waiting,
		more_than_a_transfer_takes_is_refused_before_the_drive_sees_it,
	};

	return pcie_suite("pcie trouble", tests, sizeof(tests) / sizeof(tests[0]));
}
