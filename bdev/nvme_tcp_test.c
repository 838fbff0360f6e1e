/*
 * Namespaces of targets over TCP, on simulated streams that cut and delay: connections that break, a target that is away for a
 * while, and one that is there and answers nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme.h"
#include "bdev/testing.h"
#include "nvme/fake_target.h"

#define SEEDS	 6
#define NR	 64u
#define BLOCKS	 8u /* in the capsule: the fake target takes one thing at a time */
#define DATA_LEN (NR * BLOCKS * FAKE_BLOCK_SIZE)
#define SECOND	 1000000ull

static const struct stream_addr addr = { .host = "127.0.0.1", .port = 4420, .family = AF_INET };
static struct bdev_nvme_attach_opts opts;
static struct nvme_error error;
static struct bdev_desc *desc;
static struct bdev_channel *ch;
static uint8_t *data, *back;
static unsigned nr_until_break, break_every; /* I/O commands; 0: never */
static bool away, mute;
static void (*test_body)(void);

/* Breaks the connection instead of an answer, or says nothing at all. */
static fiber_fn bool script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *buf, uint32_t len)
{
	if (mute && cmd->opcode != NVME_OPC_FABRICS)
		return true;
	if (away || (break_every && conn->qid && cmd->opcode != NVME_OPC_FABRICS && !--nr_until_break)) {
		nr_until_break = break_every;
		conn->gone = true;
		return true;
	}
	return false;
}

/* A discovery log of one entry, which points at another discovery controller. */
static fiber_fn bool referring_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *buf, uint32_t len)
{
	static uint64_t log[(sizeof(struct nvme_discovery_log) + sizeof(struct nvme_discovery_entry)) / 8];
	struct nvme_discovery_log *head = (void *)log;
	struct nvme_discovery_entry *entry = head->entries;
	uint64_t offset = nvme_get_log_offset_bytes(cmd), n = nvme_get_log_len_bytes(cmd);

	if (cmd->opcode != NVME_ADMIN_GET_LOG_PAGE || cmd->get_log.lid != NVME_LID_DISCOVERY || offset + n > sizeof(log))
		return false;
	memset(log, 0, sizeof(log));
	head->genctr = head->numrec = 1;
	entry->trtype = NVME_TRTYPE_TCP;
	entry->adrfam = NVME_ADRFAM_IPV4;
	entry->subtype = NVME_SUBTYPE_REFERRAL;
	memcpy(entry->traddr, "192.0.2.9", 9);
	memcpy(entry->trsvcid, "8009", 4);
	strcpy(entry->subnqn, NVME_DISCOVERY_NQN);
	fake_send_data(conn, cmd->cid, 0, (const uint8_t *)log + offset, (uint32_t)n, NVME_TCP_FLAG_LAST);
	fake_send_resp(conn, cmd->cid, 0, 0);
	return true;
}

static void world(void *arg)
{
	data = dma_alloc(DATA_LEN, 4096);
	back = dma_alloc(DATA_LEN, 4096);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 13);
	away = mute = false;
	break_every = 0;
	fake_reset();
	fake.command = script;
	fake_start(&addr);
	bdev_nvme_attach_opts_init(&opts);
	opts.name = "Far";
	opts.connect.addr = addr;
	opts.loss = (struct bdev_nvme_loss){ .reconnect_delay_s = 1, .ctrlr_loss_s = -1 };
	strcpy(opts.connect.subnqn, "nqn.2026-11.test:fake");
	test_body();
	bdev_nvme_detach_all();
	fake_stop();
	free(fake.disk);
	fake.disk = NULL;
	dma_free(data);
	dma_free(back);
}

static void in_sims(void (*body)(void))
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct sim_opts sopts = { .seed = 300 + seed, .nr_reactors = 1 + seed % 2 };

		if (seed) { /* the first without trouble */
			sopts.short_io_ppm = 200000;
			sopts.again_ppm = 100000;
			sopts.max_delay_us = 200;
		}
		test_body = body;
		testing_body = world;
		ck_assert_msg(sim_run(&sopts, testing_main, NULL) == 0, "seed %lu", (unsigned long)sopts.seed);
	}
}

#define SIM_TEST(name)                 \
	static void name##_body(void); \
	START_TEST(name)               \
	{                              \
		in_sims(name##_body);  \
	}                              \
	END_TEST                       \
	static void name##_body(void)

static void shut(void)
{
	if (ch)
		bdev_channel_put(ch);
	ch = NULL;
	bdev_close(desc);
}

static void shut_when_idle(void *arg);

/* The operations end first. */
static void on_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "shut", shut_when_idle, NULL), 0);
}

static void attach(void)
{
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
	ck_assert_int_eq(bdev_open("Farn1", true, on_event, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_ptr_nonnull(ch);
}

struct one {
	struct bdev_io io;
	struct iovec iov;
	int status;
};

static struct one ones[NR];
static unsigned nr_done;

static void one_done(struct bdev_io *io, int status)
{
	container_of(io, struct one, io)->status = status;
	nr_done++;
}

static void all(enum bdev_op op, uint8_t *buf)
{
	nr_done = 0;
	for (unsigned i = 0; i < NR; i++) {
		struct one *o = &ones[i];

		o->iov = (struct iovec){ buf + (size_t)i * BLOCKS * FAKE_BLOCK_SIZE, BLOCKS * FAKE_BLOCK_SIZE };
		o->io = (struct bdev_io){ .op = op,
					  .iov = &o->iov,
					  .iovcnt = 1,
					  .offset_blocks = i * BLOCKS,
					  .nr_blocks = BLOCKS,
					  .done = one_done };
		bdev_submit(ch, &o->io);
	}
}

static void wait_all(uint64_t limit_us)
{
	uint64_t until_us = clock_now_us() + limit_us;

	while (nr_done < NR) {
		ck_assert_msg(clock_now_us() < until_us, "%u of %u done", nr_done, NR);
		fiber_sleep(1000);
	}
}

static void shut_when_idle(void *arg)
{
	wait_all(60 * SECOND);
	shut();
}

static unsigned nr_with(int status)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NR; i++)
		n += ones[i].status == status;
	return n;
}

static void write_and_check(uint64_t limit_us)
{
	all(BDEV_WRITE, data);
	wait_all(limit_us);
	ck_assert_uint_eq(nr_with(0), NR);
	memset(back, 0xa5, DATA_LEN);
	all(BDEV_READ, back);
	wait_all(limit_us);
	ck_assert_uint_eq(nr_with(0), NR);
	ck_assert(!memcmp(back, data, DATA_LEN));
	ck_assert(!memcmp(fake.disk, data, DATA_LEN));
}

SIM_TEST(a_namespace_of_a_target_is_read_and_written)
{
	attach();
	ck_assert_uint_eq(bdev_nr_blocks(bdev_find("Farn1")), FAKE_NR_BLOCKS);
	write_and_check(20 * SECOND);
	shut();
}

SIM_TEST(connections_that_break_cost_no_operation)
{
	struct bdev_nvme_path_info path;

	attach();
	nr_until_break = break_every = 7;
	for (unsigned i = 0; i < NR; i++) {
		uint8_t *from = data + (size_t)i * BLOCKS * FAKE_BLOCK_SIZE, *to = back + (size_t)i * BLOCKS * FAKE_BLOCK_SIZE;

		ck_assert_int_eq(bdev_write(ch, from, i * BLOCKS, BLOCKS, 0), 0);
		ck_assert_int_eq(bdev_read(ch, to, i * BLOCKS, BLOCKS), 0);
	}
	ck_assert(!memcmp(back, data, DATA_LEN));
	ck_assert(bdev_nvme_path(bdev_nvme_find("Far"), 0, &path));
	ck_assert_uint_gt(path.nr_resets, 2);
	shut();
}

SIM_TEST(a_target_that_is_away_for_a_while_is_waited_for)
{
	attach();
	away = true;
	all(BDEV_WRITE, data);
	fiber_sleep(20 * SECOND);
	ck_assert_uint_eq(nr_done, 0);
	away = false;
	wait_all(20 * SECOND);
	ck_assert_uint_eq(nr_with(0), NR);
	write_and_check(20 * SECOND);
	shut();
}

SIM_TEST(a_target_that_answers_nothing_is_given_up_by_keep_alive)
{
	uint64_t start_us;

	opts.connect.kato_ms = 2000;
	opts.loss.fast_io_fail_s = 3;
	attach();
	mute = true;
	start_us = clock_now_us();
	all(BDEV_WRITE, data);
	wait_all(60 * SECOND);
	ck_assert_uint_eq(nr_with(-EIO), NR);
	ck_assert_uint_ge(clock_now_us() - start_us, 3 * SECOND);
	ck_assert_uint_le(clock_now_us() - start_us, 10 * SECOND);
	mute = false;
	fiber_sleep(60 * SECOND);
	write_and_check(20 * SECOND);
	shut();
}

static uint8_t identity; /* of the drive behind the target */

/* The same names at the same place, and another drive: EUI-64, serial number and model say so. */
static fiber_fn bool other_drive(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *buf, uint32_t len)
{
	uint8_t page[NVME_IDENTIFY_SIZE] = { 0 };
	struct nvme_id_ns *ns = (struct nvme_id_ns *)(void *)page;

	if (conn->qid || cmd->opcode != NVME_ADMIN_IDENTIFY || cmd->identify.cns != NVME_CNS_NS)
		return script(conn, cmd, buf, len);
	ns->nsze = ns->ncap = ns->nuse = FAKE_NR_BLOCKS;
	ns->lbaf[0].lbads = 9;
	memset(ns->eui64, identity, sizeof(ns->eui64));
	fake_send_data(conn, cmd->cid, 0, page, sizeof(page), NVME_TCP_FLAG_LAST);
	fake_send_resp(conn, cmd->cid, 0, 0);
	return true;
}

SIM_TEST(a_drive_that_is_another_after_a_reconnect_takes_no_write_that_was_waiting)
{
	fake.command = other_drive;
	identity = 'A';
	attach();
	all(BDEV_WRITE, data);
	wait_all(10 * SECOND);
	ck_assert_uint_eq(nr_with(0), NR);
	identity = 'B';
	memset(fake.disk, 0x11, DATA_LEN);
	break_every = nr_until_break = 1;
	all(BDEV_WRITE, data);
	fiber_sleep(100000);
	break_every = 0;
	wait_all(60 * SECOND);
	ck_assert_uint_eq(nr_with(0), 0);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		ck_assert(fake.disk[i] == 0x11);
}

static bool format_ended, detached;

static fiber_fn bool format_hangs(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *buf, uint32_t len)
{
	return (!conn->qid && cmd->opcode == NVME_ADMIN_FORMAT_NVM) || script(conn, cmd, buf, len);
}

static void format_fiber(void *arg)
{
	union nvme_cmd cmd = { .opcode = NVME_ADMIN_FORMAT_NVM, .nsid = 1 };

	ck_assert_int_lt(bdev_nvme_admin("Far", &cmd, NULL, 0, 0, NULL), 0);
	format_ended = true;
}

static void begin_format(void)
{
	fake.command = format_hangs;
	attach();
	fiber_sleep(SECOND);
	format_ended = detached = false;
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "format", format_fiber, NULL), 0);
	fiber_sleep(SECOND);
	ck_assert(!format_ended);
}

SIM_TEST(a_format_under_way_does_not_hold_up_a_reconnect)
{
	begin_format();
	break_every = nr_until_break = 1000;
	nr_until_break = 1;
	all(BDEV_WRITE, data);
	wait_all(20 * SECOND);
	ck_assert_uint_eq(nr_with(0), NR);
	ck_assert(format_ended);
	shut();
}

static void detach_fiber(void *arg)
{
	bdev_nvme_detach("Far", NULL);
	detached = true;
}

SIM_TEST(a_detach_does_not_wait_for_a_format)
{
	begin_format();
	shut();
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "detach", detach_fiber, NULL), 0);
	fiber_sleep(20 * SECOND);
	ck_assert(detached && format_ended);
}

SIM_TEST(detaching_while_the_target_is_away_ends_what_waits)
{
	attach();
	away = true;
	all(BDEV_WRITE, data);
	fiber_sleep(5 * SECOND);
	ck_assert_int_eq(bdev_nvme_detach("Far", NULL), 0);
	ck_assert_uint_eq(nr_with(-ENODEV), NR);
}

SIM_TEST(another_discovery_controller_that_is_listed_is_shown_and_not_followed)
{
	struct bdev_nvme_discovery_info info;

	fake.command = referring_script;
	opts.name = "D";
	ck_assert_int_eq(bdev_nvme_discovery_start(&opts, 30000000, &error), 0);
	ck_assert(bdev_nvme_discovery_info(0, &info));
	ck_assert_uint_eq(info.nr_referrals, 1);
	ck_assert_str_eq(info.referrals[0].addr.host, "192.0.2.9");
	ck_assert_uint_eq(info.referrals[0].addr.port, 8009);
	ck_assert_str_eq(info.referrals[0].subnqn, NVME_DISCOVERY_NQN);
	ck_assert_uint_eq(info.nr_attached, 0);
	ck_assert_int_eq(bdev_nvme_discovery_stop("D"), 0);
}

int main(void)
{
	Suite *suite = suite_create("nvme over TCP");
	TCase *tcase = tcase_create("tcp");
	SRunner *runner = srunner_create(suite);
	int nr_failed;

	tcase_set_timeout(tcase, 240);
	tcase_add_test(tcase, a_namespace_of_a_target_is_read_and_written);
	tcase_add_test(tcase, connections_that_break_cost_no_operation);
	tcase_add_test(tcase, a_target_that_is_away_for_a_while_is_waited_for);
	tcase_add_test(tcase, a_target_that_answers_nothing_is_given_up_by_keep_alive);
	tcase_add_test(tcase, a_drive_that_is_another_after_a_reconnect_takes_no_write_that_was_waiting);
	tcase_add_test(tcase, a_format_under_way_does_not_hold_up_a_reconnect);
	tcase_add_test(tcase, a_detach_does_not_wait_for_a_format);
	tcase_add_test(tcase, detaching_while_the_target_is_away_ends_what_waits);
	tcase_add_test(tcase, another_discovery_controller_that_is_listed_is_shown_and_not_followed);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
