/* The initiator against lying targets: what other hosts have been broken by, and noise. */
#include "nvme/initiator_testing.h"

static void (*lie)(struct fake_conn *conn, union nvme_cmd *cmd);

/* The I/O queue's first command is answered with a lie. */
static bool lying_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	if (!conn->qid || cmd->opcode == NVME_OPC_FABRICS)
		return false;
	lie(conn, cmd);
	return true;
}

/* After the lie the queue is over, for a reason it can tell, and the target has been told. */
static void expect_end(uint8_t opcode, uint32_t len, uint16_t fes, const char *reason)
{
	fake.command = lying_script;
	connect_ok(8);
	ck_assert_int_eq(io(opcode, 0, back, len), -EPROTO);
	ck_assert(!nvme_qpair_is_live(qpair));
	ck_assert_msg(strstr(nvme_qpair_error(qpair)->text, reason) != NULL, "%s",
		      nvme_qpair_error(qpair)->text);
	/* Another queue and the admin queue do not notice. */
	nvme_qpair_disconnect(qpair);
	fake.command = NULL;
	ck_assert_int_eq(nvme_qpair_connect(ctrlr, 1, 4, &qpair, NULL), 0);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 512), 0);
	disconnect();
	ck_assert_uint_eq(fake.nr_term_reqs, 1);
	ck_assert_uint_eq(fake.term_fes, fes);
}

static void data_for_write(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0, data, 512, NVME_TCP_FLAG_LAST);
}

SIM_TEST(data_for_a_write_ends_the_queue)
{
	lie = data_for_write;
	expect_end(NVME_IO_WRITE, 512, NVME_TCP_FES_INVALID_HEADER, "data for a command that expects none");
}

static void data_for_nobody(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid ^ 3, 0, data, 512, NVME_TCP_FLAG_LAST);
}

SIM_TEST(data_for_an_unknown_command_ends_the_queue)
{
	lie = data_for_nobody;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER, "data for a command that expects none");
}

static void data_too_long(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0, data, 1024, NVME_TCP_FLAG_LAST);
}

SIM_TEST(more_data_than_asked_for_ends_the_queue)
{
	lie = data_too_long;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_OUT_OF_RANGE, "data outside of what was asked for");
}

static void data_offset_wraps(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0xfffffe00, data, 512, NVME_TCP_FLAG_LAST);
}

SIM_TEST(an_offset_that_would_wrap_ends_the_queue)
{
	lie = data_offset_wraps;
	expect_end(NVME_IO_READ, 1024, NVME_TCP_FES_OUT_OF_RANGE, "data outside of what was asked for");
}

static void data_twice(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0, data, 512, 0);
	fake_send_data(conn, cmd->cid, 0, data, 512, NVME_TCP_FLAG_LAST);
}

SIM_TEST(the_same_data_twice_ends_the_queue)
{
	lie = data_twice;
	expect_end(NVME_IO_READ, 1024, NVME_TCP_FES_OUT_OF_RANGE, "data outside of what was asked for");
}

static void data_after_last(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0, data, 512, NVME_TCP_FLAG_LAST);
	fake_send_data(conn, cmd->cid, 512, data, 512, NVME_TCP_FLAG_LAST);
}

SIM_TEST(data_after_the_last_ends_the_queue)
{
	lie = data_after_last;
	expect_end(NVME_IO_READ, 1024, NVME_TCP_FES_INVALID_HEADER, "data for a command that expects none");
}

static void no_data(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_data pdu = {
		.hdr = {.type = NVME_TCP_C2H_DATA,
			.flags = NVME_TCP_FLAG_LAST,
			.hlen = 24,
			.pdo = 24,
			.plen = 24},
		.cccid = cmd->cid,
	};

	fake_send_header(conn, &pdu);
}

SIM_TEST(a_data_pdu_without_data_ends_the_queue)
{
	lie = no_data;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_OUT_OF_RANGE, "data outside");
}

static void success_without_last(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0, data, 512, NVME_TCP_FLAG_SUCCESS);
}

SIM_TEST(success_without_last_ends_the_queue)
{
	lie = success_without_last;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER, "SUCCESS without LAST_PDU");
}

static void lengths_disagree(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_data pdu = {
		.hdr = {.type = NVME_TCP_C2H_DATA,
			.flags = NVME_TCP_FLAG_LAST,
			.hlen = 24,
			.pdo = 24,
			.plen = 24 + 100},
		.cccid = cmd->cid,
		.datal = 512,
	};

	fake_send_header(conn, &pdu);
}

SIM_TEST(lengths_that_disagree_end_the_queue)
{
	lie = lengths_disagree;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER, "PLEN and DATAL do not agree");
}

static void pdo_short(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_data pdu = {
		.hdr = {.type = NVME_TCP_C2H_DATA,
			.flags = NVME_TCP_FLAG_LAST,
			.hlen = 24,
			.pdo = 20,
			.plen = 532},
		.cccid = cmd->cid,
		.datal = 512,
	};

	fake_send_header(conn, &pdu);
}

SIM_TEST(data_that_begins_within_its_header_ends_the_queue)
{
	lie = pdo_short;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER, "wrong PDO");
}

static void unknown_cid(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_resp(conn, 0x0fff, 0, 0);
}

SIM_TEST(a_response_to_an_unknown_command_ends_the_queue)
{
	lie = unknown_cid;
	expect_end(NVME_IO_WRITE, 512, NVME_TCP_FES_INVALID_HEADER, "a response to no outstanding command");
}

static bool double_script(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	if (!conn->qid || cmd->opcode == NVME_OPC_FABRICS)
		return false;
	fake_send_resp(conn, cmd->cid, 0, 0);
	fake_send_resp(conn, cmd->cid, 0, 0);
	return true;
}

SIM_TEST(a_second_completion_hits_nobody_even_when_its_identifier_is_in_use_again)
{
	fake.command = double_script;
	connect_ok(2); /* one slot: whatever is submitted next has it */
	begin(3);
	for (unsigned i = 0; i < 3; i++) {
		prepare(&reqs[i], NVME_IO_WRITE, 0, 512);
		nvme_qpair_submit(qpair, &reqs[i].req);
	}
	fiber_wait(&all_done);
	ck_assert_uint_eq(reqs[0].status, 0);
	ck_assert_uint_eq(reqs[1].status, NVME_SC_HOST_PATH_ERROR);
	ck_assert_uint_eq(reqs[2].status, NVME_SC_HOST_PATH_ERROR);
	ck_assert_int_eq(nvme_qpair_error(qpair)->err, -EPROTO);
	disconnect();
}

static void hlen_255(struct fake_conn *conn, union nvme_cmd *cmd)
{
	uint8_t bytes[300] = {NVME_TCP_C2H_DATA, NVME_TCP_FLAG_HDGST, 255, 0, 0, 2, 0, 0};

	fake_send(conn, bytes, sizeof(bytes));
}

SIM_TEST(a_header_length_of_255_with_digests_ends_the_queue)
{
	opts.hdgst = true;
	lie = hlen_255;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER, "wrong HLEN");
}

static void bad_header_digest(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_capsule_resp resp = {
		.hdr = {.type = NVME_TCP_CAPSULE_RESP, .flags = NVME_TCP_FLAG_HDGST, .hlen = 24, .plen = 28},
		.cqe.cid = cmd->cid,
	};
	uint8_t bytes[28] = {0};

	memcpy(bytes, &resp, sizeof(resp));
	bytes[24] = 0x44;
	fake_send(conn, bytes, sizeof(bytes));
}

SIM_TEST(a_wrong_header_digest_ends_the_queue_and_is_named)
{
	opts.hdgst = true;
	lie = bad_header_digest;
	expect_end(NVME_IO_WRITE, 512, NVME_TCP_FES_HDGST, "wrong header digest");
	ck_assert_uint_eq(fake.term_fei, 0x44);
}

static void digest_flag_missing(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_capsule_resp resp = {
		.hdr = {.type = NVME_TCP_CAPSULE_RESP, .hlen = 24, .plen = 24},
		.cqe.cid = cmd->cid,
	};

	fake_send(conn, &resp, sizeof(resp));
}

SIM_TEST(a_header_without_the_digest_agreed_on_ends_the_queue)
{
	opts.hdgst = true;
	lie = digest_flag_missing;
	expect_end(NVME_IO_WRITE, 512, NVME_TCP_FES_INVALID_HEADER, "HDGSTF is not what was agreed");
}

static void no_such_type(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_data pdu = {.hdr = {.type = 8, .hlen = 24, .plen = 24}};

	fake_send_header(conn, &pdu);
}

SIM_TEST(a_pdu_type_that_does_not_exist_ends_the_queue)
{
	lie = no_such_type;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER, "there is no such PDU type");
}

static void host_type(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_data pdu = {.hdr = {.type = NVME_TCP_H2C_DATA, .hlen = 24, .pdo = 24, .plen = 536},
				    .datal = 512};

	fake_send_header(conn, &pdu);
}

SIM_TEST(a_host_s_pdu_from_a_target_ends_the_queue)
{
	lie = host_type;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_SEQUENCE, "a PDU that may not come now");
}

static void second_ic_resp(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct nvme_tcp_ic_resp resp = {.hdr = {.type = NVME_TCP_IC_RESP, .hlen = 128, .plen = 128},
					.maxh2cdata = 4096};

	fake_send(conn, &resp, sizeof(resp));
}

SIM_TEST(a_second_icresp_ends_the_queue)
{
	lie = second_ic_resp;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_SEQUENCE, "a PDU that may not come now");
}

static void r2t_for_read(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_r2t(conn, cmd->cid, 1, 0, 512);
}

SIM_TEST(an_r2t_for_a_read_ends_the_queue)
{
	lie = r2t_for_read;
	expect_end(NVME_IO_READ, 512, NVME_TCP_FES_INVALID_HEADER,
		   "an R2T for a command that has no data to give");
}

SIM_TEST(an_r2t_for_data_that_was_in_the_capsule_ends_the_queue)
{
	lie = r2t_for_read;
	expect_end(NVME_IO_WRITE, 512, NVME_TCP_FES_INVALID_HEADER,
		   "an R2T for a command that has no data to give");
}

static void r2t_beyond(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_r2t(conn, cmd->cid, 1, 4096, 65536 - 4096 + 1);
}

SIM_TEST(an_r2t_beyond_the_data_ends_the_queue)
{
	lie = r2t_beyond;
	expect_end(NVME_IO_WRITE, 65536, NVME_TCP_FES_OUT_OF_RANGE, "an R2T outside of the command's data");
}

static void r2t_again(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_r2t(conn, cmd->cid, 1, 0, 8192);
	if (fake_take_h2c(conn, cmd->cid, 1, 0, 8192, back + DATA_LEN / 2))
		fake_send_r2t(conn, cmd->cid, 2, 4096, 8192);
}

SIM_TEST(an_r2t_for_data_already_asked_for_ends_the_queue)
{
	lie = r2t_again;
	expect_end(NVME_IO_WRITE, 65536, NVME_TCP_FES_OUT_OF_RANGE, "an R2T outside of the command's data");
}

static void wrong_data_digest(struct fake_conn *conn, union nvme_cmd *cmd)
{
	uint8_t bad[4] = {1, 2, 3, 4};
	struct nvme_tcp_data pdu = {
		.hdr = {.type = NVME_TCP_C2H_DATA,
			.flags = NVME_TCP_FLAG_LAST | NVME_TCP_FLAG_DDGST | NVME_TCP_FLAG_SUCCESS,
			.hlen = 24,
			.pdo = 24,
			.plen = 24 + 512 + 4},
		.cccid = cmd->cid,
		.datal = 512,
	};

	fake_send_header(conn, &pdu);
	fake_send(conn, data, 512);
	fake_send(conn, bad, 4);
}

SIM_TEST(a_wrong_data_digest_fails_that_command_alone)
{
	opts.ddgst = true;
	lie = wrong_data_digest;
	fake.command = lying_script;
	connect_ok(4);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 512), NVME_SC_TRANSIENT_TRANSPORT_ERROR);
	fake.command = NULL;
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 512), 0);
	disconnect();
}

static void half_of_it(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_data(conn, cmd->cid, 0, data, 512, NVME_TCP_FLAG_LAST | NVME_TCP_FLAG_SUCCESS);
}

SIM_TEST(a_success_with_half_of_the_data_is_a_transfer_error)
{
	lie = half_of_it;
	fake.command = lying_script;
	connect_ok(4);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 1024), NVME_SC_DATA_TRANSFER_ERROR);
	fake.command = NULL;
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 1024), 0);
	disconnect();
}

static void success_unasked(struct fake_conn *conn, union nvme_cmd *cmd)
{
	fake_send_resp(conn, cmd->cid, 0, 0);
}

SIM_TEST(a_write_whose_data_was_never_asked_for_has_not_succeeded)
{
	lie = success_unasked;
	fake.command = lying_script;
	connect_ok(4);
	ck_assert_int_eq(io(NVME_IO_WRITE, 0, data, 65536), NVME_SC_DATA_TRANSFER_ERROR);
	disconnect();
}

static bool all_arrived;

/* Refuses the write after a first piece of its data, and takes the rest slowly. */
static void answer_amid_data(struct fake_conn *conn, union nvme_cmd *cmd)
{
	static uint8_t in[524288 + 8 * 24];
	uint32_t at = 1000;

	fake.command = NULL;
	fake_send_r2t(conn, cmd->cid, 9, 0, 524288);
	if (!fake_recv(conn, in, at))
		return;
	fake_send_resp(conn, cmd->cid, NVME_SC_CAPACITY_EXCEEDED | NVME_SC_DNR, 0);
	for (; at < sizeof(in); at += 1000) {
		fiber_sleep(500);
		if (!fake_recv(conn, in + at, sizeof(in) - at < 1000 ? (uint32_t)sizeof(in) - at : 1000))
			return;
	}
	for (uint32_t i = 0; i < 8; i++)
		ck_assert_mem_eq(in + i * (65536 + 24) + 24, data + i * 65536, 65536);
	all_arrived = true;
}

/* Its memory is still being sent when the answer comes: the caller gets it back only after that. */
SIM_TEST(a_write_that_is_refused_amid_its_data_keeps_its_memory_until_it_is_out)
{
	all_arrived = false;
	opts.batch_bytes = 1u << 20; /* all eight PDUs in one batch, built before the answer */
	lie = answer_amid_data;
	fake.command = lying_script;
	connect_ok(4);
	memcpy(back, data, 524288);
	ck_assert_int_eq(io(NVME_IO_WRITE, 0, back, 524288), NVME_SC_CAPACITY_EXCEEDED | NVME_SC_DNR);
	memset(back, 0xee, 524288);
	while (!all_arrived)
		fiber_sleep(1000);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 512), 0);
	disconnect();
}

static void term_req(struct fake_conn *conn, union nvme_cmd *cmd)
{
	struct {
		struct nvme_tcp_term_req term;
		uint8_t hdr[72];
	} pdu = {.term = {.hdr = {.type = NVME_TCP_C2H_TERM_REQ, .hlen = 24, .plen = sizeof(pdu)},
			  .fes = NVME_TCP_FES_INVALID_HEADER}};

	nvme_tcp_term_set_fei(&pdu.term, 0x20);
	fake_send(conn, &pdu, sizeof(pdu));
}

SIM_TEST(a_c2htermreq_is_told_to_the_caller)
{
	lie = term_req;
	fake.command = lying_script;
	connect_ok(4);
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 512), -ECONNRESET);
	ck_assert_ptr_nonnull(
		strstr(nvme_qpair_error(qpair)->text, "Invalid PDU Header Field (field information 20h)"));
	disconnect();
}

static void hang_up(struct fake_conn *conn, union nvme_cmd *cmd)
{
	conn->gone = true;
}

SIM_TEST(a_closed_connection_fails_everything_outstanding_once)
{
	lie = hang_up;
	fake.command = lying_script;
	connect_ok(4);
	begin(10);
	for (unsigned i = 0; i < 10; i++) {
		prepare(&reqs[i], NVME_IO_READ, 0, 512);
		nvme_qpair_submit(qpair, &reqs[i].req);
	}
	fiber_wait(&all_done);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(reqs[i].status, NVME_SC_HOST_PATH_ERROR);
	/* and what comes later too */
	ck_assert_int_lt(io(NVME_IO_READ, 0, back, 512), 0);
	disconnect();
}

static void say_nothing(struct fake_conn *conn, union nvme_cmd *cmd)
{
}

SIM_TEST(a_command_that_is_never_answered_ends_the_queue_in_time)
{
	uint64_t begin_us;

	lie = say_nothing;
	fake.command = lying_script;
	opts.timeout_us = 5000000;
	connect_ok(4);
	begin_us = clock_now_us();
	ck_assert_int_eq(io(NVME_IO_READ, 0, back, 512), -ETIMEDOUT);
	ck_assert_uint_ge(clock_now_us() - begin_us, 5000000);
	ck_assert_uint_le(clock_now_us() - begin_us, 6000000);
	ck_assert_ptr_nonnull(strstr(nvme_qpair_error(qpair)->text, "Read"));
	disconnect();
}

static void expect_no_connection(int err, const char *reason)
{
	struct nvme_error error = {0};

	fake_start(&addr);
	ck_assert_int_eq(nvme_ctrlr_connect(&opts, &ctrlr, &error), err);
	ck_assert_msg(strstr(error.text, reason) != NULL, "%s", error.text);
}

SIM_TEST(a_peer_that_does_not_answer_icreq_is_given_up)
{
	fake.mute = true;
	opts.timeout_us = 3000000;
	expect_no_connection(-ETIMEDOUT, "is it an NVMe/TCP port?");
}

static void bad_pfv(struct fake_conn *conn, struct nvme_tcp_ic_resp *resp)
{
	resp->pfv = 1;
}

static void bad_maxh2cdata(struct fake_conn *conn, struct nvme_tcp_ic_resp *resp)
{
	resp->maxh2cdata = 100;
}

static void bad_cpda(struct fake_conn *conn, struct nvme_tcp_ic_resp *resp)
{
	resp->cpda = 32;
}

static void digest_not_asked_for(struct fake_conn *conn, struct nvme_tcp_ic_resp *resp)
{
	resp->dgst = NVME_TCP_DGST_DATA;
}

SIM_TEST(an_icresp_with_values_out_of_range_is_refused)
{
	static void (*const lies[])(struct fake_conn *, struct nvme_tcp_ic_resp *) = {
		bad_pfv, bad_maxh2cdata, bad_cpda, digest_not_asked_for};
	static const uint32_t places[] = {8, 12, 10, 11};
	struct nvme_error error = {0};

	fake_start(&addr);
	for (unsigned i = 0; i < 4; i++) {
		fake.ic_resp = lies[i];
		ck_assert_int_eq(nvme_ctrlr_connect(&opts, &ctrlr, &error), -EPROTO);
		ck_assert_ptr_nonnull(strstr(error.text, "an ICResp with a value out of range"));
		while (fake.nr_term_reqs != i + 1)
			fiber_sleep(1000);
		ck_assert_uint_eq(fake.term_fes, NVME_TCP_FES_UNSUPPORTED_PARAM);
		ck_assert_uint_eq(fake.term_fei, places[i]);
	}
}

static bool refuse_connect(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	/* IPO 256, IATTR 1: the subsystem's name */
	fake_send_resp(conn, cmd->cid, NVME_SC_CONNECT_INVALID_PARAMETERS | NVME_SC_DNR, 256 | 1u << 16);
	return true;
}

SIM_TEST(a_refused_connect_says_what_to_do)
{
	fake.command = refuse_connect;
	expect_no_connection(-EINVAL, "there is no such subsystem");
}

static bool silent_keep_alive(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *in, uint32_t len)
{
	return !conn->qid && cmd->opcode == NVME_ADMIN_KEEP_ALIVE;
}

SIM_TEST(a_keep_alive_that_is_not_answered_ends_the_admin_queue)
{
	opts.kato_ms = 10000;
	opts.timeout_us = 4000000;
	fake.command = silent_keep_alive;
	connect_ok(4);
	fiber_sleep(12000000);
	ck_assert(!nvme_qpair_is_live(nvme_ctrlr_admin(ctrlr)));
	ck_assert_ptr_nonnull(strstr(nvme_qpair_error(nvme_ctrlr_admin(ctrlr))->text, "Keep Alive"));
	disconnect();
}

static void noise(struct fake_conn *conn, union nvme_cmd *cmd)
{
	uint8_t bytes[600];
	uint32_t len = 8 + (uint32_t)(sim_rand() % (sizeof(bytes) - 8));

	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)sim_rand();
	/* Often something that looks like a PDU for the command. */
	if (sim_rand() % 4) {
		static const uint8_t types[] = {3, 5, 7, 7, 7, 9};
		struct nvme_tcp_data pdu = {.cccid = cmd->cid, .datal = 512};

		pdu.hdr = (struct nvme_tcp_hdr){
			.type = types[sim_rand() % 6], .hlen = 24, .pdo = 24, .plen = 24};
		pdu.hdr.flags = sim_rand() % 2 ? 0 : (uint8_t)(sim_rand() % 16 & 12);
		if (pdu.hdr.type == 7)
			pdu.hdr.plen += 512;
		if (sim_rand() % 2)
			((uint8_t *)&pdu)[sim_rand() % sizeof(pdu)] = (uint8_t)sim_rand();
		memcpy(bytes, &pdu, sizeof(pdu) < len ? sizeof(pdu) : len);
	}
	fake_send(conn, bytes, len);
	if (sim_rand() % 3)
		fake_send(conn, data, 4096);
	conn->gone = true;
}

static void noise_body(void)
{
	lie = noise;
	fake.command = lying_script;
	connect_ok(8);
	begin(12);
	for (unsigned i = 0; i < 12; i++) {
		prepare(&reqs[i], i % 3 ? NVME_IO_READ : NVME_IO_WRITE, i, i % 2 ? 512 : 8192);
		nvme_qpair_submit(qpair, &reqs[i].req);
	}
	fiber_wait(&all_done);
	disconnect();
}

START_TEST(whatever_a_target_sends_every_request_completes_once)
{
	for (uint64_t seed = 1000; seed < 1400; seed++)
		in_sim(noise_body, seed);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		data_for_a_write_ends_the_queue,
		data_for_an_unknown_command_ends_the_queue,
		more_data_than_asked_for_ends_the_queue,
		an_offset_that_would_wrap_ends_the_queue,
		the_same_data_twice_ends_the_queue,
		data_after_the_last_ends_the_queue,
		a_data_pdu_without_data_ends_the_queue,
		success_without_last_ends_the_queue,
		lengths_that_disagree_end_the_queue,
		data_that_begins_within_its_header_ends_the_queue,
		a_response_to_an_unknown_command_ends_the_queue,
		a_second_completion_hits_nobody_even_when_its_identifier_is_in_use_again,
		a_header_length_of_255_with_digests_ends_the_queue,
		a_wrong_header_digest_ends_the_queue_and_is_named,
		a_header_without_the_digest_agreed_on_ends_the_queue,
		a_pdu_type_that_does_not_exist_ends_the_queue,
		a_host_s_pdu_from_a_target_ends_the_queue,
		a_second_icresp_ends_the_queue,
		an_r2t_for_a_read_ends_the_queue,
		an_r2t_for_data_that_was_in_the_capsule_ends_the_queue,
		an_r2t_beyond_the_data_ends_the_queue,
		an_r2t_for_data_already_asked_for_ends_the_queue,
		a_wrong_data_digest_fails_that_command_alone,
		a_success_with_half_of_the_data_is_a_transfer_error,
		a_write_whose_data_was_never_asked_for_has_not_succeeded,
		a_write_that_is_refused_amid_its_data_keeps_its_memory_until_it_is_out,
		a_c2htermreq_is_told_to_the_caller,
		a_closed_connection_fails_everything_outstanding_once,
		a_command_that_is_never_answered_ends_the_queue_in_time,
		a_peer_that_does_not_answer_icreq_is_given_up,
		an_icresp_with_values_out_of_range_is_refused,
		a_refused_connect_says_what_to_do,
		a_keep_alive_that_is_not_answered_ends_the_admin_queue,
		whatever_a_target_sends_every_request_completes_once,
	};

	return run_suite("initiator, lies", tests, sizeof(tests) / sizeof(tests[0]));
}
