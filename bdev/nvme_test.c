/*
 * Namespaces as bdevs, on drives of software in simulations: data, limits, caches, events; and what happens to I/O when a drive
 * is reset, dies, hangs, is pulled out and comes back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme.h"
#include "bdev/testing.h"
#include "nvme/soft/soft.h"

#define SEEDS	 4
#define DATA_LEN (4u << 20)
#define BS	 512u
#define MS	 1000ull
#define SECOND	 1000000ull

static struct soft_opts sopts;
static struct soft_drive *drive;
static bool present;
static bool mad; /* the drive breaks the rules: what it counts as the host's errors may be its own */
static struct bdev_nvme_attach_opts opts;
static struct nvme_error error;
static struct bdev_desc *desc;
static struct bdev_channel *ch;
static unsigned nr_removals, nr_resizes;
static unsigned nr_done, nr_want; /* of many operations at a time */
static uint8_t *data, *back;
static void (*test_body)(void);

static int open_soft(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *ret_error)
{
	if (!present) {
		nvme_error_set(ret_error, -ENOENT, 0, "%s is not there", address);
		return -ENOENT;
	}
	*ret_bar = soft_plug(drive, address);
	return 0;
}

static void world(void *arg)
{
	data = dma_alloc(DATA_LEN, 4096);
	back = dma_alloc(DATA_LEN, 4096);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 13);
	sopts = (struct soft_opts){ .jitter_us = 100 };
	bdev_nvme_attach_opts_init(&opts);
	opts.name = "Nvme0";
	opts.connect.trtype = NVME_TRTYPE_PCIE;
	opts.bar_open = open_soft;
	strcpy(opts.address, "0000:01:00.0");
	present = true;
	mad = false;
	nr_removals = nr_resizes = nr_done = nr_want = 0;
	drive = NULL;
	desc = NULL;
	ch = NULL;
	test_body();
	bdev_nvme_detach_all();
	ck_assert_msg(mad || !soft_host_errors(drive), "%s", soft_last_host_error(drive));
	soft_destroy(drive);
	dma_free(data);
	dma_free(back);
}

#define SIM_TEST(name)                                              \
	static void name##_body(void);                              \
	START_TEST(name)                                            \
	{                                                           \
		for (uint64_t seed = 0; seed < SEEDS; seed++) {     \
			test_body = name##_body;                    \
			run_sim(900 + seed, 1 + seed % 2, world, NULL); \
		}                                                   \
	}                                                           \
	END_TEST                                                    \
	static void name##_body(void)

static void shut(void)
{
	if (ch)
		bdev_channel_put(ch);
	if (desc)
		bdev_close(desc);
	ch = NULL;
	desc = NULL;
}

/* A channel is put when its last operation has ended. */
static void shut_when_idle(void *arg)
{
	while (nr_done < nr_want)
		fiber_sleep(100);
	shut();
}

static void on_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	if (event == BDEV_EVENT_RESIZE) {
		nr_resizes++;
		return;
	}
	nr_removals++;
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "shut", shut_when_idle, NULL), 0);
}

static void open_ns(const char *name)
{
	ck_assert_int_eq(bdev_open(name, true, on_event, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_ptr_nonnull(ch);
}

static void attach_only(void)
{
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
}

static void attach(void)
{
	attach_only();
	open_ns("Nvme0n1");
}

static void fault(enum soft_fault_kind kind, unsigned opcode, unsigned skip, unsigned count, uint64_t arg)
{
	struct soft_fault f = { .kind = kind, .opcode = (uint16_t)opcode, .skip = skip, .count = count, .arg = arg };

	soft_fault_add(drive, &f);
}

/* --- many at a time --------------------------------------------------------------------------------- */

#define MANY 1500u

struct many {
	struct bdev_io io;
	struct iovec iov;
	int status;
	bool done;
};

static struct many *many;

static void many_done(struct bdev_io *io, int status)
{
	struct many *m = container_of(io, struct many, io);

	if (m->done) /* an assertion costs a system call */
		ck_abort_msg("an operation has ended twice");
	m->done = true;
	m->status = status;
	nr_done++;
}

static void submit_many(unsigned nr, enum bdev_op op, uint8_t *buf, unsigned blocks)
{
	free(many);
	many = calloc(nr, sizeof(*many));
	nr_done = 0;
	nr_want = nr;
	for (unsigned i = 0; i < nr; i++) {
		struct many *m = &many[i];

		m->iov = (struct iovec){ buf + (size_t)i * blocks * BS, blocks * BS };
		m->io = (struct bdev_io){ .op = op,
					  .iov = &m->iov,
					  .iovcnt = 1,
					  .offset_blocks = (uint64_t)i * blocks,
					  .nr_blocks = blocks,
					  .done = many_done };
		bdev_submit(ch, &m->io);
		if (m->done)
			ck_abort_msg("an operation has ended within its submission");
	}
}

static void wait_many(uint64_t limit_us)
{
	uint64_t until_us = clock_now_us() + limit_us;

	while (nr_done < nr_want) {
		if (clock_now_us() >= until_us)
			ck_abort_msg("%u of %u done", nr_done, nr_want);
		fiber_sleep(100);
	}
}

static unsigned nr_with_status(int status)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr_want; i++)
		n += many[i].status == status;
	return n;
}

/* --- what a namespace is ------------------------------------------------------------------------------ */

SIM_TEST(a_namespace_is_a_bdev_with_its_limits)
{
	struct bdev *bdev;
	uint32_t nsid;

	sopts.awupf = 7;
	sopts.npwg = 15;
	attach();
	bdev = bdev_find("Nvme0n1");
	ck_assert_ptr_nonnull(bdev);
	ck_assert_str_eq(bdev->product_name, "NVMe disk");
	ck_assert_uint_eq(bdev->block_size, 512);
	ck_assert_uint_eq(bdev->nr_blocks, 8192);
	ck_assert_uint_eq(bdev->write_unit_blocks, 8);
	ck_assert_uint_eq(bdev->optimal_blocks, 16);
	ck_assert_uint_eq(bdev->unmap_granularity_blocks, 16);
	ck_assert(bdev->has_write_cache && !bdev->unmap_zeroes && !bdev->read_only);
	ck_assert(!uuid_is_null(bdev->uuid));
	ck_assert_ptr_eq(bdev_nvme_of(bdev, &nsid), bdev_nvme_find("Nvme0"));
	ck_assert_uint_eq(nsid, 1);
	shut();
}

SIM_TEST(a_drive_without_a_cache_is_one_without_a_cache)
{
	sopts.no_write_cache = true;
	attach();
	ck_assert(!bdev_find("Nvme0n1")->has_write_cache);
	ck_assert_int_eq(bdev_flush(ch), 0);
	shut();
}

SIM_TEST(transfers_of_any_size_read_back)
{
	static const unsigned lens[] = { 1, 8, 9, 255, 256, 257, 1024, 2048, 2051 };

	sopts.noiob = 100;
	attach();
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		unsigned at = 37 * i;

		ck_assert_int_eq(bdev_write(ch, data + i, at, lens[i], 0), 0);
		ck_assert(!memcmp(soft_ns_data(drive, 1) + at * BS, data + i, lens[i] * BS));
		memset(back, 0xa5, DATA_LEN);
		ck_assert_int_eq(bdev_read(ch, back + 3, at, lens[i]), 0);
		ck_assert(!memcmp(back + 3, data + i, lens[i] * BS));
	}
	shut();
}

SIM_TEST(transfers_are_cut_at_the_optimal_boundary_and_at_the_largest_transfer)
{
	struct soft_counters before, after;

	sopts.noiob = 100;
	attach();
	soft_get_counters(drive, &before);
	ck_assert_int_eq(bdev_write(ch, data, 50, 200, 0), 0);
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(after.nr_io - before.nr_io, 3); /* to 100, to 200, to 250 */
	shut();
}

SIM_TEST(a_vector_of_many_pieces_is_cut_at_whole_blocks)
{
	struct iovec iov[1200];
	struct bdev_io io = { .op = BDEV_WRITE, .iov = iov, .iovcnt = 1200, .offset_blocks = 11 };
	uint64_t len = 0;

	attach();
	for (unsigned i = 0; i < 1200; i++) {
		iov[i] = (struct iovec){ data + len, 100 + i % 500 };
		len += iov[i].iov_len;
	}
	while (len % BS) {
		len--;
		if (!--iov[io.iovcnt - 1].iov_len)
			io.iovcnt--;
	}
	io.nr_blocks = len / BS;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 11 * BS, data, len));
	shut();
}

SIM_TEST(more_operations_than_requests_wait_in_order)
{
	attach();
	submit_many(MANY, BDEV_WRITE, data, 5);
	wait_many(60 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), MANY);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, MANY * 5 * BS));
	submit_many(8, BDEV_READ, back, 1000);
	wait_many(60 * SECOND);
	ck_assert(!memcmp(back, data, MANY * 5 * BS));
	shut();
}

SIM_TEST(what_was_flushed_or_written_with_fua_survives_a_power_cut)
{
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
	ck_assert_int_eq(bdev_flush(ch), 0);
	ck_assert_int_eq(bdev_write(ch, data, 100, 64, BDEV_IO_FUA), 0);
	shut();
	soft_power_cut(drive);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 64 * BS));
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 100 * BS, data, 64 * BS));
}

SIM_TEST(unmap_zeroes_and_compare_reach_the_drive)
{
	struct bdev_io io = { .op = BDEV_WRITE_ZEROES, .offset_blocks = 10, .nr_blocks = 20 };
	struct iovec iov = { data, 4 * BS };
	struct soft_counters c;

	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	ck_assert(all_bytes(soft_ns_data(drive, 1) + 10 * BS, 20 * BS, 0));
	ck_assert_int_eq(bdev_unmap(ch, 40, 8), 0);
	ck_assert(all_bytes(soft_ns_data(drive, 1) + 40 * BS, 8 * BS, 0));
	io = (struct bdev_io){ .op = BDEV_COMPARE, .iov = &iov, .iovcnt = 1, .offset_blocks = 0, .nr_blocks = 4 };
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	io.offset_blocks = 10;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), -EILSEQ);
	/* Dataset Management knows no FUA: a flush comes behind it. */
	io = (struct bdev_io){ .op = BDEV_UNMAP, .flags = BDEV_IO_FUA, .offset_blocks = 0, .nr_blocks = 8 };
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_flushes, 1);
	shut();
}

SIM_TEST(errors_of_the_medium_are_told_and_not_tried_again)
{
	struct soft_counters before, after;

	attach();
	soft_get_counters(drive, &before);
	fault(SOFT_STATUS, NVME_IO_READ, 0, 1, NVME_SC_UNRECOVERED_READ_ERROR | NVME_SC_DNR);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), -EIO);
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(after.nr_io - before.nr_io, 1);
	fault(SOFT_STATUS, NVME_IO_WRITE, 0, 1, NVME_SC_CAPACITY_EXCEEDED);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), -ENOSPC);
	shut();
}

SIM_TEST(what_the_drive_refuses_for_the_moment_is_tried_again)
{
	attach();
	fault(SOFT_STATUS, NVME_IO_READ, 0, 2, NVME_SC_COMMAND_INTERRUPTED);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), 0);
	fault(SOFT_STATUS, NVME_IO_READ, 0, 20, NVME_SC_COMMAND_INTERRUPTED);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), -EIO);
	shut();
}

/* --- namespaces come, go, grow -------------------------------------------------------------------------- */

SIM_TEST(namespaces_come_go_and_grow_while_the_controller_stays)
{
	attach();
	soft_ns_set(drive, 3, 2000);
	fiber_sleep(50 * MS);
	ck_assert_ptr_nonnull(bdev_find("Nvme0n3"));
	soft_ns_set(drive, 1, 9000);
	fiber_sleep(50 * MS);
	ck_assert_uint_eq(nr_resizes, 1);
	ck_assert_uint_eq(bdev_nr_blocks(bdev_find("Nvme0n1")), 9000);
	ck_assert_int_eq(bdev_write(ch, data, 8990, 10, 0), 0);
	soft_ns_set(drive, 1, 0);
	fiber_sleep(50 * MS);
	ck_assert_uint_eq(nr_removals, 1);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
	ck_assert_ptr_nonnull(bdev_find("Nvme0n3"));
	soft_ns_set(drive, 1, 100);
	fiber_sleep(50 * MS);
	ck_assert_ptr_nonnull(bdev_find("Nvme0n1"));
}

/* --- trouble ---------------------------------------------------------------------------------------------- */

SIM_TEST(a_hundred_resets_under_load_cost_no_operation)
{
	attach();
	for (unsigned round = 0; round < 25; round++) {
		submit_many(400, BDEV_WRITE, data + round * BS, 8);
		fiber_sleep(round * 20);
		ck_assert_int_eq(bdev_nvme_reset("Nvme0"), 0);
		wait_many(60 * SECOND);
		ck_assert_uint_eq(nr_with_status(0), 400);
		ck_assert(!memcmp(soft_ns_data(drive, 1), data + round * BS, 400 * 8 * BS));
	}
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
	bdev_nvme_reset("Nvme0");
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	shut();
}

SIM_TEST(a_namespace_does_not_go_for_want_of_an_answer)
{
	const struct soft_fault refused = { .kind = SOFT_STATUS, .admin = true, .opcode = NVME_ADMIN_IDENTIFY, .cns = 1 + NVME_CNS_NS,
					    .count = 2, .arg = NVME_SC_INTERNAL_ERROR };

	attach();
	soft_fault_add(drive, &refused);
	ck_assert_int_eq(bdev_nvme_reset("Nvme0"), 0);
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
	wait_many(100 * SECOND);
	ck_assert_uint_eq(nr_with_status(-EIO), 40); /* a minute is too long */
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
			bdev_nvme_reset("Nvme0");
		wait_many(120 * SECOND);
		memset(back, 0x5a, DATA_LEN);
		soft_faults_clear(drive);
		fiber_sleep(30 * SECOND);
		ck_assert(all_bytes(back, DATA_LEN, 0x5a));
		/* A drive that denied its namespace is asked again at the next reset. */
		if (!bdev_find("Nvme0n1")) {
			ck_assert_int_eq(bdev_nvme_reset("Nvme0"), 0);
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

SIM_TEST(health_is_read_from_the_drive)
{
	struct nvme_log_smart smart;

	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	ck_assert_int_eq(bdev_nvme_smart("Nvme0", &smart), 0);
	ck_assert_uint_eq(smart.host_writes[0], 1);
	ck_assert_uint_eq(smart.avail_spare, 100);
	ck_assert_int_eq(bdev_nvme_smart("Nvme1", &smart), -ENODEV);
	shut();
}

SIM_TEST(a_format_takes_its_time_and_other_commands_the_time_they_were_given)
{
	const struct soft_fault slow_format = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_FORMAT_NVM, .count = 1, .arg = 60 * SECOND };
	const struct soft_fault slow_log = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .count = 3,
					     .arg = 4 * SECOND };
	union nvme_cmd format = { .opcode = NVME_ADMIN_FORMAT_NVM, .nsid = 1 };
	union nvme_cmd log = { .opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = NVME_NSID_ALL };
	struct bdev_nvme_path_info path;
	uint8_t page[512];

	opts.connect.timeout_us = 10 * SECOND;
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, BDEV_IO_FUA), 0);
	soft_fault_add(drive, &slow_format);
	soft_fault_add(drive, &slow_log); /* the scan that comes after a Format reads one, too */
	ck_assert_int_eq(bdev_nvme_admin("Nvme0", &format, NULL, 0, 0, NULL), 0);
	ck_assert(all_bytes(soft_ns_data(drive, 1), 64 * BS, 0));
	log.get_log.lid = NVME_LID_SMART;
	log.get_log.numdl = sizeof(page) / 4 - 1;
	ck_assert_int_eq(bdev_nvme_admin("Nvme0", &log, page, sizeof(page), 5000, NULL), 0);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &path));
	ck_assert_uint_eq(path.nr_resets, 0);
	ck_assert_int_lt(bdev_nvme_admin("Nvme0", &log, page, sizeof(page), 1000, NULL), 0);
	fiber_sleep(10 * SECOND);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &path));
	ck_assert_uint_eq(path.nr_resets, 1);
	shut();
}

SIM_TEST(io_commands_from_outside_need_no_channel_of_anybody)
{
	union nvme_cmd cmd;

	attach_only();
	nvme_cmd_rw(&cmd, NVME_IO_WRITE, 1, 16, 8);
	ck_assert_int_eq(bdev_nvme_io("Nvme0", &cmd, data, 8 * BS, 0, NULL), 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 16 * BS, data, 8 * BS));
	nvme_cmd_rw(&cmd, NVME_IO_READ, 1, 8192, 8);
	ck_assert_int_eq(nvme_status_code((uint16_t)bdev_nvme_io("Nvme0", &cmd, back, 8 * BS, 0, NULL)), NVME_SC_LBA_OUT_OF_RANGE);
	ck_assert_int_eq(bdev_nvme_io("Nvme1", &cmd, back, 8 * BS, 0, NULL), -ENODEV);
	soft_stick(drive, true);
	soft_set_fatal(drive);
	fiber_sleep(SECOND);
	ck_assert_int_eq(bdev_nvme_io("Nvme0", &cmd, back, 8 * BS, 0, NULL), -ENODEV);
	soft_stick(drive, false);
}

SIM_TEST(a_drive_that_is_detached_while_it_is_out_does_not_come_back)
{
	attach();
	present = false;
	soft_unplug(drive);
	fiber_sleep(3 * SECOND);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", &(struct bdev_nvme_path_match){ .address = "0000:02:00.0" }), -ENODEV);
	bdev_nvme_detach("Nvme0", NULL);
	present = true;
	fiber_sleep(5 * SECOND);
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
}

/* --- threads ------------------------------------------------------------------------------------------------ */

static int on_other_thread(void *arg)
{
	uint64_t at = (uintptr_t)arg;
	struct bdev_channel *other = bdev_channel_get(desc);
	uint8_t *buf = dma_alloc(64 * BS, 4096);

	ck_assert_ptr_nonnull(other);
	for (unsigned i = 0; i < 20; i++) {
		ck_assert_int_eq(bdev_write(other, data + i, at, 64, 0), 0);
		ck_assert_int_eq(bdev_read(other, buf, at, 64), 0);
		ck_assert(!memcmp(buf, data + i, 64 * BS));
	}
	bdev_channel_put(other);
	dma_free(buf);
	return 0;
}

/* All at once, on threads for which the drive has no queue; resets come between. */
static unsigned nr_sharing;

static void sharing_thread(void *arg)
{
	on_other_thread(arg);
	__atomic_fetch_sub(&nr_sharing, 1, __ATOMIC_RELEASE);
}

static void sharing_body(void)
{
	struct thread *threads[5];
	struct soft_counters c;

	sopts.nr_io_queues = 1;
	attach(); /* this thread has it, and keeps it */
	for (unsigned round = 0; round < 3; round++) {
		nr_sharing = 5;
		for (unsigned i = 0; i < 5; i++) {
			threads[i] = thread_create("io", i % runtime_nr_reactors());
			ck_assert_int_eq(fiber_spawn(threads[i], "io", sharing_thread, (void *)(uintptr_t)(i * 64)), 0);
		}
		for (unsigned i = 0; round == 1 && i < 3; i++) {
			fiber_sleep(300);
			ck_assert_int_eq(bdev_nvme_reset("Nvme0"), 0);
		}
		while (__atomic_load_n(&nr_sharing, __ATOMIC_ACQUIRE))
			fiber_sleep(100);
		for (unsigned i = 0; i < 5; i++)
			thread_exit(threads[i]);
	}
	soft_get_counters(drive, &c);
	ck_assert_uint_ge(c.nr_io, 3 * 5 * 40);
	shut();
}

START_TEST(more_threads_than_queues_share_them)
{
	test_body = sharing_body;
	for (uint64_t seed = 1; seed < 9; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

START_TEST(more_os_threads_than_queues_share_them)
{
	test_body = sharing_body;
	run_real("0,1", world, NULL);
}
END_TEST

/* The one that has the drive's only queue goes while others use it: they have it from then on. */
static void lender_leaves_body(void)
{
	struct thread *other = thread_create("io", 0);

	sopts.nr_io_queues = 1;
	attach();
	nr_sharing = 1;
	ck_assert_int_eq(fiber_spawn(other, "io", sharing_thread, (void *)(uintptr_t)64), 0);
	fiber_sleep(400);
	bdev_channel_put(ch);
	ch = NULL;
	while (__atomic_load_n(&nr_sharing, __ATOMIC_ACQUIRE))
		fiber_sleep(100);
	thread_exit(other);
	shut();
}

START_TEST(a_queue_that_was_shared_goes_to_those_who_are_left)
{
	test_body = lender_leaves_body;
	for (uint64_t seed = 1; seed < 9; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

static void threads_body(void)
{
	struct thread *threads[3];

	attach();
	for (unsigned i = 0; i < 3; i++)
		threads[i] = thread_create("io", i % runtime_nr_reactors());
	for (unsigned i = 0; i < 3; i++) {
		thread_call_fiber(threads[i], on_other_thread, (void *)(uintptr_t)(i * 64));
		thread_exit(threads[i]);
	}
	shut();
}

START_TEST(each_thread_has_queues_of_its_own)
{
	test_body = threads_body;
	for (uint64_t seed = 1; seed < 6; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

START_TEST(each_os_thread_has_queues_of_its_own)
{
	test_body = threads_body;
	run_real("0,1", world, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_namespace_is_a_bdev_with_its_limits,
		a_drive_without_a_cache_is_one_without_a_cache,
		transfers_of_any_size_read_back,
		transfers_are_cut_at_the_optimal_boundary_and_at_the_largest_transfer,
		a_vector_of_many_pieces_is_cut_at_whole_blocks,
		more_operations_than_requests_wait_in_order,
		what_was_flushed_or_written_with_fua_survives_a_power_cut,
		unmap_zeroes_and_compare_reach_the_drive,
		errors_of_the_medium_are_told_and_not_tried_again,
		what_the_drive_refuses_for_the_moment_is_tried_again,
		namespaces_come_go_and_grow_while_the_controller_stays,
		a_hundred_resets_under_load_cost_no_operation,
		a_fatal_status_under_load_costs_no_operation,
		a_drive_that_answers_nonsense_is_reset_and_costs_no_operation,
		a_command_that_kills_the_drive_each_time_fails_in_the_end,
		a_swallowed_command_is_aborted_then_the_drive_is_reset_then_it_succeeds,
		a_drive_that_is_dead_for_a_while_fails_io_in_its_time_and_comes_back,
		a_drive_that_stays_dead_is_given_up_and_its_bdevs_go,
		a_drive_pulled_out_under_load_goes_and_comes_back,
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
		a_mad_drive_costs_time_and_errors_and_nothing_else,
		health_is_read_from_the_drive,
		a_format_takes_its_time_and_other_commands_the_time_they_were_given,
		io_commands_from_outside_need_no_channel_of_anybody,
		a_drive_that_is_detached_while_it_is_out_does_not_come_back,
		each_thread_has_queues_of_its_own,
		each_os_thread_has_queues_of_its_own,
		more_threads_than_queues_share_them,
		more_os_threads_than_queues_share_them,
		a_queue_that_was_shared_goes_to_those_who_are_left,
	};
	Suite *suite = suite_create("nvme bdev");
	TCase *tcase = tcase_create("nvme");
	SRunner *runner = srunner_create(suite);
	int nr_failed;

	tcase_set_timeout(tcase, 240);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
