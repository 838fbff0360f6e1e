/*
 * The PCIe driver on a drive of software, in simulations: what is written reads back, whatever the memory looks like and whichever
 * thread a queue belongs to.
 */
#include "nvme/pcie_testing.h"

/* --- honest drives ---------------------------------------------------------------------------------- */

SIM_TEST(what_is_written_reads_back)
{
	start_ok(32);
	write_and_read_back(0);
	write_and_read_back(512); /* PRP1 with an offset */
	write_and_read_back(4);
	stop();
}

SIM_TEST(memory_that_no_prp_describes_goes_through_a_bounce_buffer)
{
	start_ok(32);
	write_and_read_back(1);
	write_and_read_back(4095);
	stop();
}

SIM_TEST(a_drive_with_wide_doorbells_and_small_queues_works)
{
	sopts.dstrd = 3;
	sopts.max_entries = 4;
	sopts.block_size = 512;
	start_ok(64);
	ck_assert_uint_eq(nvme_qpair_depth(qpair), 3);
	write_and_read_back(0);
	stop();
}

SIM_TEST(hundreds_of_requests_share_doorbells_and_complete_in_any_order)
{
	struct soft_counters c;

	sopts.jitter_us = 2000;
	start_ok(64);
	submit_many(300, NVME_IO_WRITE, data);
	wait_many();
	for (unsigned i = 0; i < 300; i++)
		ck_assert_uint_eq(many[i].status, 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 300 * 4096));
	submit_many(300, NVME_IO_READ, back);
	wait_many();
	ck_assert(!memcmp(back, data, 300 * 4096));
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_io, 600);
	stop();
}

SIM_TEST(a_turns_requests_ring_one_doorbell)
{
	struct soft_counters before, after;

	sopts.jitter_us = 0;
	start_ok(64);
	soft_get_counters(drive, &before);
	submit_many(60, NVME_IO_WRITE, data);
	wait_many();
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(after.nr_io - before.nr_io, 60);
	ck_assert_uint_le(after.nr_doorbells - before.nr_doorbells, 4); /* one to submit, the rest to free completions */
	stop();
}

SIM_TEST(shadow_doorbells_save_most_of_the_real_ones)
{
	struct soft_counters c;

	sopts.shadow = true;
	start_ok(64);
	for (unsigned round = 0; round < 8; round++) {
		submit_many(200, NVME_IO_WRITE, data + round * 512);
		wait_many();
		ck_assert(!memcmp(soft_ns_data(drive, 1), data + round * 512, 200 * 4096));
	}
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_io, 1600);
	ck_assert_uint_lt(c.nr_doorbells, 800); /* two for each, without */
	stop();
}

static int vectored(uint8_t opcode, struct iovec *iov, unsigned iovcnt, uint32_t len)
{
	memset(many, 0, sizeof(many[0]));
	nr_many_done = 0;
	many_want = 1;
	nvme_cmd_rw(&many[0].req.cmd, opcode, 1, 40, len / 512);
	many[0].req.iov = iov;
	many[0].req.iovcnt = iovcnt;
	many[0].req.len = len;
	many[0].req.done = many_done;
	nvme_qpair_submit(qpair, &many[0].req);
	wait_many();
	return many[0].status;
}

static void odd_vectors(void)
{
	/* Pages that fit together; pieces that do not, and are whole dwords; pieces that are not; a page that begins late. */
	struct iovec fit[] = {{data + 512, 4096 - 512}, {data + 16384, 8192}, {data + 65536, 512}};
	struct iovec dwords[] = {{data + 100, 1000}, {data + 8192 + 4, 3000}, {data + 32768, 96}};
	struct iovec odd[] = {{data + 101, 1001}, {data + 8192 + 3, 2999}, {data + 32768, 96}};
	struct iovec late[] = {{data, 4096}, {data + 8192 + 8, 4096}, {data + 32768, 512}};
	struct iovec *sets[] = {fit, dwords, odd, late};

	for (unsigned s = 0; s < 4; s++) {
		uint8_t *at = soft_ns_data(drive, 1) + 40 * 512;
		struct iovec to[3];
		uint32_t len = 0;

		for (unsigned i = 0; i < 3; i++) {
			to[i] = (struct iovec){back + ((uint8_t *)sets[s][i].iov_base - data), sets[s][i].iov_len};
			len += (uint32_t)to[i].iov_len;
		}
		len &= ~511u;
		to[2].iov_len = sets[s][2].iov_len = len - to[0].iov_len - to[1].iov_len;
		ck_assert_int_eq(vectored(NVME_IO_WRITE, sets[s], 3, len), 0);
		ck_assert_int_eq(vectored(NVME_IO_COMPARE, sets[s], 3, len), 0);
		memset(back, 0xa5, DATA_LEN);
		ck_assert_int_eq(vectored(NVME_IO_READ, to, 3, len), 0);
		for (unsigned i = 0; i < 3; i++) {
			ck_assert(!memcmp(at, sets[s][i].iov_base, sets[s][i].iov_len));
			ck_assert(!memcmp(at, to[i].iov_base, to[i].iov_len));
			at += to[i].iov_len;
		}
	}
}

SIM_TEST(vectors_of_any_pieces_are_moved_with_prps)
{
	start_ok(8);
	odd_vectors();
	stop();
}

SIM_TEST(vectors_of_any_pieces_are_moved_with_sgls)
{
	struct soft_counters c;

	sopts.sgl = true;
	start_ok(8);
	odd_vectors();
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_sgl, 6); /* three for each set of dwords that do not fit: pages are PRPs, odd bytes are bounced */
	stop();
}

static void in_the_buffer(unsigned nr_want)
{
	struct soft_counters c;

	start_ok(64);
	write_and_read_back(0);
	submit_many(300, NVME_IO_WRITE, data);
	wait_many();
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 300 * 4096));
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_cmb_queues, nr_want);
	stop();
}

SIM_TEST(submission_queues_are_in_the_controllers_memory_where_it_has_some)
{
	sopts.cmb_bytes = 1u << 20;
	in_the_buffer(1);
}

SIM_TEST(a_controller_memory_buffer_of_the_old_kind_is_known_by_its_address_on_the_bus)
{
	sopts.cmb_bytes = 1u << 20;
	sopts.cmb_old = true;
	in_the_buffer(1);
}

SIM_TEST(a_controller_memory_buffer_is_where_its_last_user_has_left_it_too)
{
	sopts.cmb_bytes = 1u << 20;
	sopts.cmb_left = true;
	sopts.cmb_old = true;
	in_the_buffer(1);
}

SIM_TEST(a_controller_memory_buffer_whose_address_is_of_no_use_gets_another_or_is_left_alone)
{
	sopts.cmb_bytes = 1u << 20;
	sopts.cmb_far = true;
	in_the_buffer(1);
	soft_destroy(drive);
	sopts.cmb_old = true;
	in_the_buffer(0);
}

SIM_TEST(a_buffer_that_is_too_small_for_all_serves_some_queues)
{
	struct nvme_qpair *others[2];
	struct soft_counters c;

	sopts.cmb_bytes = 20 * 1024;
	start_ok(256);
	for (uint16_t i = 0; i < 2; i++)
		ck_assert_msg(!nvme_qpair_connect(ctrlr, (uint16_t)(i + 2), 256, &others[i], &error), "%s", error.text);
	write_and_read_back(0);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_cmb_queues, 1);
	for (unsigned i = 0; i < 2; i++)
		nvme_qpair_disconnect(others[i]);
	stop();
}

SIM_TEST(a_queue_that_the_controller_does_not_want_in_its_memory_is_in_ours)
{
	const struct soft_fault refused = {.kind = SOFT_STATUS, .admin = true, .opcode = NVME_ADMIN_CREATE_IO_SQ, .count = 1,
					   .arg = NVME_SC_CMB_INVALID};

	sopts.cmb_bytes = 1u << 20;
	plug();
	soft_fault_add(drive, &refused);
	ck_assert_msg(!start(64), "%s", error.text);
	write_and_read_back(0);
	stop();
}

SIM_TEST(shutdown_is_told_to_the_drive_and_flushes_it)
{
	struct soft_counters c;

	start_ok(8);
	ck_assert_int_eq(io(NVME_IO_WRITE, 0, data, 4096), 0);
	stop();
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_shutdowns, 1);
	soft_power_cut(drive);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 4096));
}

SIM_TEST(a_compare_that_fails_says_so)
{
	start_ok(8);
	ck_assert_int_eq(io(NVME_IO_COMPARE, 0, data, 4096), NVME_SC_COMPARE_FAILURE | NVME_SC_DNR);
	stop();
}

static uint32_t seen_event;

static void on_event(struct nvme_ctrlr *c, uint32_t dw0, void *arg)
{
	seen_event = dw0;
}

SIM_TEST(a_namespace_that_comes_is_told_of_and_listed)
{
	struct nvme_ns ns;
	uint32_t nsids[8];

	opts.event = on_event;
	seen_event = 0;
	start_ok(8);
	ck_assert_int_eq(nvme_set_feature(ctrlr, NVME_FID_ASYNC_EVENT, NVME_AEC_NS_ATTR, NULL, 0, NULL), 0);
	ck_assert_int_eq(nvme_ns_list(ctrlr, 0, nsids, 8), 1);
	soft_ns_set(drive, 5, 1000);
	fiber_sleep(10 * MS);
	ck_assert_uint_eq(NVME_AER_TYPE(seen_event), NVME_AER_NOTICE);
	ck_assert_uint_eq(NVME_AER_LID(seen_event), NVME_LID_CHANGED_NS);
	ck_assert_int_eq(nvme_ns_list(ctrlr, 0, nsids, 8), 2);
	ck_assert_uint_eq(nsids[1], 5);
	ck_assert_int_eq(nvme_ns_open(ctrlr, 5, &ns, &error), 0);
	ck_assert_uint_eq(ns.nr_blocks, 1000);
	stop();
}

/* --- sleeping --------------------------------------------------------------------------------------- */

#define SLOW_US 3000u

static uint32_t nr_seen_events;

static void count_event(struct nvme_ctrlr *c, uint32_t dw0, void *arg)
{
	nr_seen_events++;
}

/* The drive has a thread to itself, whose timers wake nobody else. */
static int plug_elsewhere(void *arg)
{
	const struct soft_fault slow = {.kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_IDENTIFY, .count = 1000, .arg = SLOW_US};

	sopts.latency_us = SLOW_US;
	plug();
	soft_fault_add(drive, &slow);
	return 0;
}

static int unplug_elsewhere(void *arg)
{
	ck_assert_msg(!soft_host_errors(drive), "%s", soft_last_host_error(drive));
	bar->ops->close(bar);
	soft_destroy(drive);
	drive = NULL;
	return 0;
}

/* Nobody waits for a tick, which comes four times a second, on whichever queue; a busy machine may take its time, too. */
static void slow_commands_take_their_time_alone(void)
{
	struct thread *theirs = thread_create("drive", 1);
	static uint8_t page[NVME_IDENTIFY_SIZE];
	struct soft_counters c;
	uint64_t start_us;

	host_may_err = true; /* it is looked at where the drive is */
	thread_call_fiber(theirs, plug_elsewhere, NULL);
	opts.event = count_event;
	ck_assert_msg(!start(32), "%s", error.text);
	start_us = clock_now_us();
	for (unsigned i = 0; i < 40; i++)
		ck_assert_int_eq(io(NVME_IO_READ, i, back, 4096), 0);
	ck_assert_uint_le(clock_now_us() - start_us, 8 * SECOND);
	start_us = clock_now_us();
	for (unsigned i = 0; i < 40; i++)
		ck_assert_int_eq(nvme_identify(ctrlr, NVME_CNS_CTRLR, 0, 0, page), 0);
	ck_assert_uint_le(clock_now_us() - start_us, 8 * SECOND);
	ck_assert_uint_eq(nr_seen_events, 0);
	soft_get_counters(drive, &c);
	ck_assert(sopts.no_irq ? !c.nr_irqs : c.nr_irqs >= 80);
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
	thread_call_fiber(theirs, unplug_elsewhere, NULL);
	thread_exit(theirs);
}

static void without_interrupts(void)
{
	sopts.no_irq = true;
	slow_commands_take_their_time_alone();
}

static void everywhere(void (*body)(void))
{
	test_body = body;
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_opts simopts = {.seed = seed, .nr_reactors = 2};

		ck_assert_int_eq(sim_run(&simopts, world, NULL), 0);
	}
	run_real(2, world); /* where a reactor that sleeps does sleep */
}

START_TEST(a_reactor_that_sleeps_is_woken_by_each_queues_interrupt)
{
	everywhere(slow_commands_take_their_time_alone);
}
END_TEST

START_TEST(without_interrupts_a_reactor_polls_while_commands_are_out)
{
	everywhere(without_interrupts);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------------- */

static int other_thread(void *arg)
{
	ck_assert_msg(!nvme_qpair_connect(ctrlr, 2, 32, &qpair, &error), "%s", error.text);
	write_and_read_back(0);
	submit_many(300, NVME_IO_WRITE, data);
	wait_many();
	write_and_read_back(1);
	nvme_qpair_disconnect(qpair);
	return 0;
}

static void queue_elsewhere(void)
{
	struct thread *other = thread_create("other", 1);

	plug();
	ck_assert_msg(!nvme_ctrlr_connect(&opts, &ctrlr, &error), "%s", error.text);
	thread_call_fiber(other, other_thread, NULL);
	thread_exit(other);
	nvme_ctrlr_disconnect(ctrlr);
	bar->ops->close(bar);
}

START_TEST(a_queue_belongs_to_any_thread)
{
	struct sim_opts simopts = {.seed = 7, .nr_reactors = 2};

	test_body = queue_elsewhere;
	ck_assert_int_eq(sim_run(&simopts, world, NULL), 0);
}
END_TEST

START_TEST(a_queue_belongs_to_any_os_thread)
{
	test_body = queue_elsewhere;
	run_real(2, world);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_written_reads_back,
		memory_that_no_prp_describes_goes_through_a_bounce_buffer,
		a_drive_with_wide_doorbells_and_small_queues_works,
		hundreds_of_requests_share_doorbells_and_complete_in_any_order,
		a_turns_requests_ring_one_doorbell,
		shadow_doorbells_save_most_of_the_real_ones,
		vectors_of_any_pieces_are_moved_with_prps,
		vectors_of_any_pieces_are_moved_with_sgls,
		submission_queues_are_in_the_controllers_memory_where_it_has_some,
		a_controller_memory_buffer_of_the_old_kind_is_known_by_its_address_on_the_bus,
		a_controller_memory_buffer_is_where_its_last_user_has_left_it_too,
		a_controller_memory_buffer_whose_address_is_of_no_use_gets_another_or_is_left_alone,
		a_buffer_that_is_too_small_for_all_serves_some_queues,
		a_queue_that_the_controller_does_not_want_in_its_memory_is_in_ours,
		shutdown_is_told_to_the_drive_and_flushes_it,
		a_compare_that_fails_says_so,
		a_namespace_that_comes_is_told_of_and_listed,
		a_reactor_that_sleeps_is_woken_by_each_queues_interrupt,
		without_interrupts_a_reactor_polls_while_commands_are_out,
		a_queue_belongs_to_any_thread,
		a_queue_belongs_to_any_os_thread,
	};

	return pcie_suite("pcie", tests, sizeof(tests) / sizeof(tests[0]));
}
