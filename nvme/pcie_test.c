/*
 * The PCIe driver on a drive of software, in simulations: what is written reads back, whatever the memory looks like; and
 * drives that are slow, dead, gone or mad cost neither memory nor time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/initiator.h"
#include "nvme/soft/soft.h"
#include "runtime/testing.h"

#define SEEDS	 6
#define DATA_LEN (2u << 20)
#define MS	 1000ull
#define SECOND	 1000000ull

static struct soft_opts sopts;
static struct soft_drive *drive;
static struct nvme_bar *bar;
static struct nvme_connect_opts opts;
static struct nvme_ctrlr *ctrlr;
static struct nvme_qpair *qpair;
static struct nvme_error error;
static uint8_t *data, *back;
static unsigned nr_failed;
static bool host_may_err;
static void (*test_body)(void);

static void on_failed(struct nvme_ctrlr *c, void *arg)
{
	nr_failed++;
}

static void world(void *arg)
{
	data = dma_alloc(DATA_LEN, 4096);
	back = dma_alloc(DATA_LEN, 4096);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 11);
	memset(back, 0xa5, DATA_LEN);
	sopts = (struct soft_opts){.jitter_us = 50};
	nvme_connect_opts_init(&opts);
	opts.trtype = NVME_TRTYPE_PCIE;
	opts.failed = on_failed;
	nr_failed = 0;
	host_may_err = false;
	drive = NULL;
	test_body();
	ck_assert_msg(host_may_err || !soft_host_errors(drive), "%s", soft_last_host_error(drive));
	soft_destroy(drive);
	dma_free(data);
	dma_free(back);
	runtime_stop(0);
}

static void in_sim(void (*body)(void), uint64_t seed)
{
	struct sim_opts simopts = {.seed = 500 + seed, .nr_reactors = 1};
	int rc;

	test_body = body;
	rc = sim_run(&simopts, world, NULL);
	ck_assert_msg(rc == 0, "seed %llu: result %d", (unsigned long long)simopts.seed, rc);
}

#define SIM_TEST(name)                                        \
	static void name##_body(void);                        \
	START_TEST(name)                                      \
	{                                                     \
		for (uint64_t seed = 0; seed < SEEDS; seed++) \
			in_sim(name##_body, seed);            \
	}                                                     \
	END_TEST                                              \
	static void name##_body(void)

static void plug(void)
{
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	bar = soft_plug(drive, "0000:01:00.0");
	opts.bar = bar;
}

static int start(uint32_t queue_size)
{
	int rc = nvme_ctrlr_connect(&opts, &ctrlr, &error);

	if (!rc)
		nvme_ctrlr_nr_io_queues(ctrlr);
	return rc ? rc : nvme_qpair_connect(ctrlr, 1, queue_size, &qpair, &error);
}

static void start_ok(uint32_t queue_size)
{
	plug();
	ck_assert_msg(!start(queue_size), "%s", error.text);
}

static void stop(void)
{
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
	bar->ops->close(bar);
}

static int io(uint8_t opcode, uint64_t slba, void *buf, uint32_t len)
{
	union nvme_cmd cmd;

	nvme_cmd_rw(&cmd, opcode, 1, slba, len / 512);
	return nvme_execute(qpair, &cmd, buf, len, NULL);
}

static void write_and_read_back(uint32_t at)
{
	static const uint32_t lens[] = {512, 4096, 4608, 8192, 12288, 65536, 131072};
	uint64_t slba = 3;

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		ck_assert_int_eq(io(NVME_IO_WRITE, slba, data + at, lens[i]), 0);
		ck_assert(!memcmp(soft_ns_data(drive, 1) + slba * 512, data + at, lens[i]));
		memset(back, 0xa5, DATA_LEN);
		ck_assert_int_eq(io(NVME_IO_READ, slba, back + at, lens[i]), 0);
		ck_assert(!memcmp(back + at, data + at, lens[i]));
		ck_assert_uint_eq(back[at + lens[i]], 0xa5);
		slba += lens[i] / 512;
	}
}

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

struct many {
	struct nvme_request req;
	struct iovec iov[4];
	bool done;
	uint16_t status;
};

static struct many many[300];
static unsigned nr_many_done;
static struct fiber_wait *many_wait;
static unsigned many_want;

static void many_done(struct nvme_request *req, uint16_t status)
{
	struct many *m = container_of(req, struct many, req);

	ck_assert(!m->done);
	m->done = true;
	m->status = status;
	if (++nr_many_done == many_want && many_wait)
		fiber_wake(many_wait, 0);
}

static void submit_many(unsigned nr, uint8_t opcode, uint8_t *buf)
{
	memset(many, 0, sizeof(many));
	nr_many_done = 0;
	many_want = nr;
	for (unsigned i = 0; i < nr; i++) {
		struct many *m = &many[i];

		nvme_cmd_rw(&m->req.cmd, opcode, 1, i * 8, 8);
		m->iov[0] = (struct iovec){buf + i * 4096, 4096};
		m->req.iov = m->iov;
		m->req.iovcnt = 1;
		m->req.len = 4096;
		m->req.done = many_done;
		nvme_qpair_submit(qpair, &m->req);
	}
}

static void wait_many(void)
{
	struct fiber_wait wait;

	if (nr_many_done == many_want)
		return;
	fiber_wait_init(&wait);
	many_wait = &wait;
	fiber_wait(&wait);
	many_wait = NULL;
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

/* --- trouble ---------------------------------------------------------------------------------------- */

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
		a_buffer_that_is_too_small_for_all_serves_some_queues,
		a_queue_that_the_controller_does_not_want_in_its_memory_is_in_ours,
		shutdown_is_told_to_the_drive_and_flushes_it,
		a_compare_that_fails_says_so,
		a_namespace_that_comes_is_told_of_and_listed,
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
		a_queue_belongs_to_any_thread,
		a_queue_belongs_to_any_os_thread,
	};

	return run_suite("pcie", tests, sizeof(tests) / sizeof(tests[0]));
}
