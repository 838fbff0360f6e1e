/* The initiator against honest targets: what it says, in which order, and what comes of it. */
#include "nvme/initiator_testing.h"

static void write_and_read_back(void)
{
	static const uint32_t lens[] = {512, 4096, 4608, 8192, 12288, 65536, 131072, 524288};
	uint64_t slba = 3;

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		ck_assert_int_eq(io(NVME_IO_WRITE, slba, data + i, lens[i]), 0);
		ck_assert_mem_eq(fake.disk + slba * FAKE_BLOCK_SIZE, data + i, lens[i]);
		memset(back, 0xa5, sizeof(back));
		ck_assert_int_eq(io(NVME_IO_READ, slba, back, lens[i]), 0);
		ck_assert_mem_eq(back, data + i, lens[i]);
		ck_assert_uint_eq(back[lens[i]], 0xa5);
		slba += lens[i] / FAKE_BLOCK_SIZE;
	}
}

SIM_TEST(what_is_written_reads_back)
{
	connect_ok(32);
	write_and_read_back();
	disconnect();
}

SIM_TEST(what_is_written_reads_back_with_digests)
{
	opts.hdgst = opts.ddgst = true;
	connect_ok(32);
	ck_assert(nvme_qpair_has_hdgst(qpair) && nvme_qpair_has_ddgst(qpair));
	write_and_read_back();
	disconnect();
}

SIM_TEST(a_target_with_small_limits_and_wide_alignment_is_obeyed)
{
	opts.ddgst = true;
	fake.maxh2cdata = 4096;
	fake.r2t_bytes = 20480;
	fake.c2h_bytes = 5120;
	fake.in_capsule_bytes = 0;
	fake.cpda = 15;
	fake.pdo_pad = 100;
	fake.use_success = true;
	connect_ok(4);
	write_and_read_back();
	disconnect();
}

SIM_TEST(a_digest_that_the_target_refuses_is_done_without)
{
	opts.hdgst = opts.ddgst = true;
	fake.no_hdgst = true;
	connect_ok(4);
	ck_assert(!nvme_qpair_has_hdgst(qpair) && nvme_qpair_has_ddgst(qpair));
	write_and_read_back();
	disconnect();
}

SIM_TEST(connect_says_who_we_are)
{
	opts.hostid[0] = 0x12;
	connect_ok(4);
	ck_assert_str_eq(fake.connect_data.subnqn, "nqn.2026-11.test:fake");
	ck_assert_int_eq(strncmp(fake.connect_data.hostnqn, "nqn.2014-08.org.nvmexpress:uuid:12", 34), 0);
	ck_assert_mem_eq(fake.connect_data.hostid, opts.hostid, 16);
	ck_assert_uint_eq(fake.connect_data.cntlid, 5); /* that of the admin queue's response */
	disconnect();
	ck_assert_uint_eq(NVME_CC_SHN(fake.cc), NVME_CC_SHN_NORMAL);
}

SIM_TEST(more_requests_than_the_queue_takes_wait_and_all_complete)
{
	connect_ok(8);
	ck_assert_uint_eq(nvme_qpair_depth(qpair), 7);
	begin(300);
	for (unsigned i = 0; i < 300; i++) {
		prepare(&reqs[i], NVME_IO_WRITE, i * 8, i % 3 ? 4096 : 1024);
		memset(reqs[i].buf, (int)i + 1, sizeof(reqs[i].buf));
		nvme_qpair_submit(qpair, &reqs[i].req);
		ck_assert(!reqs[i].done);
	}
	fiber_wait(&all_done);
	begin(300);
	for (unsigned i = 0; i < 300; i++) {
		prepare(&reqs[i], NVME_IO_READ, i * 8, 512);
		nvme_qpair_submit(qpair, &reqs[i].req);
	}
	fiber_wait(&all_done);
	for (unsigned i = 0; i < 300; i++) {
		ck_assert_uint_eq(reqs[i].status, 0);
		ck_assert_uint_eq(reqs[i].buf[0], (uint8_t)(i + 1));
		ck_assert_uint_eq(reqs[i].buf[511], (uint8_t)(i + 1));
	}
	disconnect();
}

SIM_TEST(a_target_s_status_reaches_the_caller_with_its_flags)
{
	connect_ok(4);
	ck_assert_int_eq(io(NVME_IO_READ, FAKE_NR_BLOCKS, back, 512), NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR);
	ck_assert_uint_eq(back[0], 0xa5);
	ck_assert_int_eq(io(NVME_IO_READ, FAKE_NR_BLOCKS - 1, back, 512), 0);
	disconnect();
}

static uint16_t fused_cid[2];

static bool fused_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	static uint8_t last_fuse;
	uint8_t fuse = cmd->flags & NVME_CMD_FUSE_MASK;

	if (!conn->qid || cmd->opcode == NVME_OPC_FABRICS)
		return false;
	ck_assert_uint_eq(fuse == NVME_CMD_FUSE_SECOND, last_fuse == NVME_CMD_FUSE_FIRST);
	last_fuse = fuse;
	if (fuse)
		fused_cid[fuse - 1] = cmd->cid;
	fake_send_resp(conn, cmd->cid, cmd->opcode == NVME_IO_COMPARE ? NVME_SC_COMPARE_FAILURE : 0, 0);
	return true;
}

SIM_TEST(nothing_comes_between_the_halves_of_a_fused_pair)
{
	fake.command = fused_script;
	connect_ok(6);
	begin(40);
	for (unsigned i = 0; i < 40; i += 4) {
		prepare(&reqs[i], NVME_IO_WRITE, i, 512);
		prepare(&reqs[i + 1], NVME_IO_COMPARE, i, 512);
		prepare(&reqs[i + 2], NVME_IO_WRITE, i, 512);
		prepare(&reqs[i + 3], NVME_IO_WRITE, i, 512);
		nvme_qpair_submit(qpair, &reqs[i].req);
		nvme_qpair_submit_fused(qpair, &reqs[i + 1].req, &reqs[i + 2].req);
		nvme_qpair_submit(qpair, &reqs[i + 3].req);
	}
	fiber_wait(&all_done);
	ck_assert_uint_eq(reqs[1].status, NVME_SC_COMPARE_FAILURE);
	ck_assert_uint_eq(reqs[2].status, 0);
	ck_assert_uint_ne(fused_cid[0], fused_cid[1]);
	disconnect();
}

SIM_TEST(keep_alive_is_sent_twice_in_each_timeout)
{
	opts.kato_ms = 10000;
	connect_ok(4);
	fiber_sleep(60000000);
	ck_assert_uint_ge(fake.nr_keep_alives, 11);
	ck_assert_uint_le(fake.nr_keep_alives, 13);
	ck_assert(nvme_qpair_is_live(nvme_ctrlr_admin(ctrlr)));
	disconnect();
}

static uint16_t held_cid;
static struct fake_conn *held_conn;

static bool abort_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	if (conn->qid && cmd->opcode == NVME_IO_READ) {
		held_cid = cmd->cid;
		held_conn = conn;
		return true;
	}
	if (!conn->qid && cmd->opcode == NVME_ADMIN_ABORT) {
		ck_assert_uint_eq(cmd->abort.cid, held_cid);
		ck_assert_uint_eq(cmd->abort.sqid, 1);
		fake_send_resp(held_conn, held_cid, NVME_SC_ABORT_REQUESTED, 0);
		fake_send_resp(conn, cmd->cid, 0, 0);
		return true;
	}
	return false;
}

SIM_TEST(abort_names_the_command_and_its_queue)
{
	bool aborted;

	fake.command = abort_script;
	held_conn = NULL;
	connect_ok(4);
	begin(1);
	prepare(&reqs[0], NVME_IO_READ, 0, 512);
	nvme_qpair_submit(qpair, &reqs[0].req);
	while (!held_conn)
		fiber_sleep(100);
	ck_assert_int_eq(nvme_abort(ctrlr, qpair, &reqs[0].req, &aborted), 0);
	ck_assert(aborted);
	fiber_wait(&all_done);
	ck_assert_uint_eq(reqs[0].status, NVME_SC_ABORT_REQUESTED);
	disconnect();
}

static unsigned nr_log_reads;

/* A log whose generation changes while the host reads it the first two times. */
static bool discovery_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	static struct {
		struct nvme_discovery_log head;
		struct nvme_discovery_entry entries[3];
	} log;
	uint64_t at = nvme_get_log_offset_bytes(cmd);

	if (cmd->opcode != NVME_ADMIN_GET_LOG_PAGE)
		return false;
	ck_assert_uint_eq(cmd->get_log.lid, NVME_LID_DISCOVERY);
	nr_log_reads++;
	log.head.genctr = nr_log_reads < 5 ? nr_log_reads : 5;
	log.head.numrec = 3;
	for (unsigned i = 0; i < 3; i++) {
		log.entries[i].trtype = NVME_TRTYPE_TCP;
		memset(log.entries[i].trsvcid, ' ', sizeof(log.entries[i].trsvcid));
		memcpy(log.entries[i].trsvcid, "4420", 4);
	}
	ck_assert_uint_le(at + cmd->sgl.len, sizeof(log));
	ck_assert_uint_eq(cmd->sgl.len, nvme_get_log_len_bytes(cmd));
	fake_send_data(conn, cmd->cid, 0, (uint8_t *)&log + at, cmd->sgl.len, NVME_TCP_FLAG_LAST);
	fake_send_resp(conn, cmd->cid, 0, 0);
	return true;
}

SIM_TEST(a_discovery_log_that_changes_under_way_is_read_again)
{
	struct nvme_discovery_log *log;
	char port[33];

	nr_log_reads = 0;
	fake.command = discovery_script;
	connect_ok(4);
	ck_assert_int_eq(nvme_discover(ctrlr, &log), 0);
	ck_assert_uint_eq(log->genctr, 5);
	ck_assert_uint_eq(log->numrec, 3);
	ck_assert_uint_eq(log->entries[2].trtype, NVME_TRTYPE_TCP);
	nvme_copy_field(port, sizeof(port), log->entries[2].trsvcid, sizeof(log->entries[2].trsvcid));
	ck_assert_str_eq(port, "4420");
	free(log);
	disconnect();
}

static bool endless_log_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	struct nvme_discovery_log head = {.numrec = 1ull << 54};

	if (cmd->opcode != NVME_ADMIN_GET_LOG_PAGE)
		return false;
	fake_send_data(conn, cmd->cid, 0, &head, sizeof(head), NVME_TCP_FLAG_LAST | NVME_TCP_FLAG_SUCCESS);
	return true;
}

SIM_TEST(a_discovery_log_with_an_absurd_length_is_refused)
{
	struct nvme_discovery_log *log;

	fake.command = endless_log_script;
	connect_ok(4);
	ck_assert_int_eq(nvme_discover(ctrlr, &log), -EPROTO);
	disconnect();
}

int main(void)
{
	const TTest *const tests[] = {
		what_is_written_reads_back,
		what_is_written_reads_back_with_digests,
		a_target_with_small_limits_and_wide_alignment_is_obeyed,
		a_digest_that_the_target_refuses_is_done_without,
		connect_says_who_we_are,
		more_requests_than_the_queue_takes_wait_and_all_complete,
		a_target_s_status_reaches_the_caller_with_its_flags,
		nothing_comes_between_the_halves_of_a_fused_pair,
		keep_alive_is_sent_twice_in_each_timeout,
		abort_names_the_command_and_its_queue,
		a_discovery_log_that_changes_under_way_is_read_again,
		a_discovery_log_with_an_absurd_length_is_refused,
	};

	return run_suite("initiator", tests, sizeof(tests) / sizeof(tests[0]));
}
