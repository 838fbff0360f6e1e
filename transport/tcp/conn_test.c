/* What connections carry and what breaks them: what others have been broken by stands here as tests of ours. */
#include "transport/tcp/conn_testing.h"

/* --- what works ------------------------------------------------------------------------------------------------------------------- */

SIM_TEST(small_writes_and_reads_come_through_with_every_choice_of_digests_and_alignment)
{
	for (unsigned i = 0; i < 12; i++) {
		static const uint8_t hpda[] = { 0, 7, 31 };
		struct raw_host host;

		raw_open(&host, &addr);
		raw_ic(&host, i & 3, hpda[i / 4]);
		ck_assert_uint_eq(raw_connect(&host, 1, 32), NVME_SC_SUCCESS);
		write_in_capsule(&host, 1, 8 * i, data + 512 * i, 4096);
		ck_assert(read_back(&host, 2, 8 * i, 4096));
		ck_assert_int_eq(memcmp(back, data + 512 * i, 4096), 0);
		raw_close(&host, false);
	}
}

SIM_TEST(capsules_may_be_as_large_as_was_configured_and_no_larger)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 2, 0, 130, true);
	size_t len;

	fake.opts.in_capsule_data_size = NVMF_MAX_CAPSULE_DATA;
	raw_up(&host, &addr, 3, 8);
	for (unsigned i = 0; i < 5; i++) {
		write_in_capsule(&host, 1, i, data + i, NVMF_MAX_CAPSULE_DATA);
		ck_assert_int_eq(memcmp(fake.disk + 512 * i, data + i, NVMF_MAX_CAPSULE_DATA), 0);
	}
	len = raw_make_capsule(&host, pdus, &cmd, data, NVMF_MAX_CAPSULE_DATA + 4);
	ck_assert(raw_send(&host, pdus, len < 200 ? len : 200));
	raw_expect_term(&host, HDR_FIELD, 4, pdus, 72);
	raw_close(&host, false);
}

SIM_TEST(a_host_with_flow_control_gets_a_response_for_each_read)
{
	struct raw_host host;

	raw_open(&host, &addr);
	raw_ic(&host, 3, 0);
	host.flow_control = true;
	ck_assert_uint_eq(raw_connect(&host, 1, 8), NVME_SC_SUCCESS);
	ck_assert(!read_back(&host, 1, 0, 4096));
	raw_close(&host, false);
}

SIM_TEST(without_c2h_success_each_read_has_its_response)
{
	struct raw_host host;

	fake.opts.c2h_success = false;
	raw_up(&host, &addr, 3, 8);
	ck_assert(!read_back(&host, 1, 0, 4096));
	raw_close(&host, false);
}

/* Sends the data for a write in pieces. */
static fiber_fn void send_h2c(struct raw_host *host, uint16_t cid, uint16_t ttag, const uint8_t *buf, uint32_t len, uint32_t piece)
{
	for (uint32_t off = 0; off < len; off += piece) {
		uint32_t n = len - off < piece ? len - off : piece;
		size_t pdu_len = raw_make_h2c(host, pdus, cid, ttag, off, buf + off, n, off + n == len);

		ck_assert(raw_send(host, pdus, pdu_len));
	}
}

static fiber_fn void write_by_r2t(struct raw_host *host, uint16_t cid, uint32_t block, const uint8_t *buf, uint32_t len,
				  uint32_t piece)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, cid, block, len / 512, false);
	uint16_t ttag;

	ck_assert(raw_send_cmd(host, &cmd, NULL, 0));
	ttag = raw_expect_r2t(host, cid, len);
	send_h2c(host, cid, ttag, buf, len, piece);
	ck_assert_uint_eq(raw_expect_resp(host, cid), NVME_SC_SUCCESS);
}

SIM_TEST(large_writes_come_by_r2t_in_one_or_several_pieces)
{
	static const uint32_t pieces[] = { 1u << 20, 128 * 1024, 65536 + 4, 5000 };

	for (unsigned i = 0; i < 8; i++) {
		struct raw_host host;

		raw_up(&host, &addr, i / 4 * 3, 8);
		write_by_r2t(&host, 1, 8, data, 512, pieces[i % 4]);
		write_by_r2t(&host, 2, 16, data + i, 131072, pieces[i % 4]);
		read_back(&host, 3, 16, 131072);
		ck_assert_int_eq(memcmp(back, data + i, 131072), 0);
		write_by_r2t(&host, 4, 0, data + i, 1u << 20, pieces[i % 4]);
		read_back(&host, 5, 0, 1u << 20);
		ck_assert_int_eq(memcmp(back, data + i, 1u << 20), 0);
		raw_close(&host, false);
	}
}

SIM_TEST(a_whole_queue_of_commands_in_one_send_is_answered)
{
	struct raw_host host;
	size_t len = 0;

	raw_up(&host, &addr, NVME_TCP_DGST_DATA, 128);
	for (uint16_t i = 0; i < 127; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, i, 8u * i, 8, true);

		len += raw_make_capsule(&host, pdus + len, &cmd, data + 4096 * i, 4096);
	}
	ck_assert(raw_send(&host, pdus, len));
	for (uint16_t i = 0; i < 127; i++)
		ck_assert_uint_eq(raw_expect_resp(&host, i), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(fake.disk, data, 127 * 4096), 0);
	len = 0;
	for (uint16_t i = 0; i < 127; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_READ, i, 8u * i, 8, false);

		len += raw_make_capsule(&host, pdus + len, &cmd, NULL, 0);
	}
	ck_assert(raw_send(&host, pdus, len));
	for (uint16_t i = 0; i < 127; i++) {
		ck_assert(raw_expect_data(&host, i, back, 4096));
		ck_assert_int_eq(memcmp(back, data + 4096 * i, 4096), 0);
	}
	raw_close(&host, false);
}

SIM_TEST(data_by_r2t_and_in_capsules_may_be_mixed)
{
	struct raw_host host;
	size_t len = 0;
	uint16_t ttag;
	union nvme_cmd large = raw_rw(NVME_IO_WRITE, 100, 1024, 256, false);

	raw_up(&host, &addr, 0, 64);
	ck_assert(raw_send_cmd(&host, &large, NULL, 0));
	ttag = raw_expect_r2t(&host, 100, 131072);
	for (uint32_t off = 0; off < 131072; off += 8192) {
		union nvme_cmd small = raw_rw(NVME_IO_WRITE, (uint16_t)(off / 8192), off / 8192 * 8, 8, true);

		len += raw_make_capsule(&host, pdus + len, &small, data + off / 2, 4096);
		len += raw_make_h2c(&host, pdus + len, 100, ttag, off, data + 262144 + off, 8192, off + 8192 == 131072);
	}
	ck_assert(raw_send(&host, pdus, len));
	for (uint16_t i = 0; i < 16; i++)
		ck_assert_uint_eq(raw_expect_resp(&host, i), NVME_SC_SUCCESS);
	ck_assert_uint_eq(raw_expect_resp(&host, 100), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(fake.disk, data, 65536), 0);
	ck_assert_int_eq(memcmp(fake.disk + 1024 * 512, data + 262144, 131072), 0);
	raw_close(&host, false);
}

SIM_TEST(data_of_held_commands_stays_as_it_came)
{
	struct raw_host host;

	fake.hold = true;
	raw_up(&host, &addr, 0, 128);
	for (uint16_t i = 0; i < 120; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, i, 8u * i, 8, true);

		ck_assert(raw_send_cmd(&host, &cmd, data + 4096 * i, 4096));
	}
	fake_wait_for(&fake.nr_begun, 121);
	fake_release();
	for (uint16_t i = 0; i < 120; i++)
		ck_assert_uint_eq(raw_expect_resp(&host, i), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(fake.disk, data, 120 * 4096), 0);
	raw_close(&host, false);
}

static struct iobuf_wait never;
static void *taken[4096];

SIM_TEST(with_the_pool_dry_writes_in_capsules_still_work)
{
	struct raw_host host;
	unsigned n = 0;

	(void)never;
	while (n < 4096 && (taken[n] = iobuf_get(IOBUF_LARGE, NULL)))
		n++;
	fake.hold = true;
	raw_up(&host, &addr, 0, 64);
	for (uint16_t i = 0; i < 60; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, i, 8u * i, 8, true);

		ck_assert(raw_send_cmd(&host, &cmd, data + 4096 * i, 4096));
	}
	fake_wait_for(&fake.nr_begun, 61);
	fake_release();
	for (uint16_t i = 0; i < 60; i++)
		ck_assert_uint_eq(raw_expect_resp(&host, i), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(fake.disk, data, 60 * 4096), 0);
	raw_close(&host, false);
	while (n)
		iobuf_put(IOBUF_LARGE, taken[--n]);
}

SIM_TEST(a_refused_connect_may_be_tried_again)
{
	struct raw_host host;

	fake.connect_fails = true;
	raw_open(&host, &addr);
	raw_ic(&host, 0, 0);
	ck_assert_uint_eq(raw_connect(&host, 1, 8), NVME_SC_CONNECT_INVALID_HOST);
	fake.connect_fails = false;
	ck_assert_uint_eq(raw_connect(&host, 1, 8), NVME_SC_SUCCESS);
	write_in_capsule(&host, 1, 0, data, 512);
	raw_close(&host, false);
}

/* --- SGLs --------------------------------------------------------------------------------------------------------------------------- */

static fiber_fn uint16_t write_with_sgl(struct raw_host *host, uint64_t sgl_addr, uint32_t sgl_len, uint8_t type)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 5, 0, 1, true);

	cmd.sgl = (struct nvme_sgl){ .addr = sgl_addr, .len = sgl_len, .type = type };
	ck_assert(raw_send_cmd(host, &cmd, data, 1024));
	return raw_expect_resp(host, 5);
}

SIM_TEST(descriptors_that_point_out_of_the_capsule_are_refused_and_the_connection_stays)
{
	struct raw_host host;
	union nvme_cmd cmd;

	raw_up(&host, &addr, 0, 8);
	ck_assert_uint_eq(write_with_sgl(&host, 0xfffffffffffffe00, 0x1000, NVME_SGL_IN_CAPSULE), NVME_SC_SGL_OFFSET_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 0xfffffffffffffe00, 512, NVME_SGL_IN_CAPSULE), NVME_SC_SGL_OFFSET_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 1025, 512, NVME_SGL_IN_CAPSULE), NVME_SC_SGL_OFFSET_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 513, 512, NVME_SGL_IN_CAPSULE), NVME_SC_SGL_LENGTH_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 0, 0xffffffff, NVME_SGL_IN_CAPSULE), NVME_SC_SGL_LENGTH_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 0, 512, 0x40), NVME_SC_SGL_TYPE_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 0, 512, 0x00), NVME_SC_SGL_TYPE_INVALID);
	ck_assert_uint_eq(write_with_sgl(&host, 512, 512, NVME_SGL_IN_CAPSULE), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(fake.disk, data + 512, 512), 0);
	/* A read has no business with the capsule. */
	cmd = raw_rw(NVME_IO_READ, 6, 0, 1, true);
	ck_assert(raw_send_cmd(&host, &cmd, data, 512));
	ck_assert_uint_eq(raw_expect_resp(&host, 6), NVME_SC_SGL_TYPE_INVALID);
	/* In-capsule data promised and not sent. */
	cmd = raw_rw(NVME_IO_WRITE, 7, 0, 1, true);
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	ck_assert_uint_eq(raw_expect_resp(&host, 7), NVME_SC_SGL_LENGTH_INVALID);
	/* None promised and none sent. */
	cmd.sgl.len = 0;
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	ck_assert_uint_eq(raw_expect_resp(&host, 7), NVME_SC_SGL_LENGTH_INVALID);
	raw_close(&host, false);
}

SIM_TEST(a_write_that_claims_4_gib_takes_no_buffer)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 1, 0, 1, false);

	raw_up(&host, &addr, 0, 8);
	cmd.sgl.len = 0xffffffff;
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	ck_assert_uint_eq(raw_expect_resp(&host, 1), NVME_SC_SGL_LENGTH_INVALID);
	ck_assert_uint_eq(fake.max_buffer_bytes, 0);
	raw_close(&host, false);
}

/* --- digests -------------------------------------------------------------------------------------------------------------------------- */

SIM_TEST(a_data_digest_error_in_a_capsule_fails_that_command_only)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 1, 0, 8, true);
	size_t len;

	raw_up(&host, &addr, 3, 8);
	len = raw_make_capsule(&host, pdus, &cmd, data, 4096);
	pdus[len - 1] ^= 0x80;
	ck_assert(raw_send(&host, pdus, len));
	ck_assert_uint_eq(raw_expect_resp(&host, 1), NVME_SC_TRANSIENT_TRANSPORT_ERROR);
	write_in_capsule(&host, 1, 0, data, 4096);
	raw_close(&host, false);
}

SIM_TEST(a_data_digest_error_by_r2t_fails_that_command_when_its_data_is_all_here)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 9, 0, 256, false);
	size_t len;
	uint16_t ttag;

	raw_up(&host, &addr, 3, 8);
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	ttag = raw_expect_r2t(&host, 9, 131072);
	len = raw_make_h2c(&host, pdus, 9, ttag, 0, data, 65536, false);
	pdus[len - 2] ^= 1;
	ck_assert(raw_send(&host, pdus, len));
	write_in_capsule(&host, 1, 2048, data, 4096); /* meanwhile */
	ck_assert_uint_eq(fake.nr_failures, 0);
	len = raw_make_h2c(&host, pdus, 9, ttag, 65536, data + 65536, 65536, true);
	ck_assert(raw_send(&host, pdus, len));
	ck_assert_uint_eq(raw_expect_resp(&host, 9), NVME_SC_TRANSIENT_TRANSPORT_ERROR);
	ck_assert_uint_eq(fake.last_failure, NVME_SC_TRANSIENT_TRANSPORT_ERROR);
	write_by_r2t(&host, 9, 0, data, 131072, 65536);
	ck_assert_int_eq(memcmp(fake.disk, data, 131072), 0);
	raw_close(&host, false);
}

SIM_TEST(a_header_digest_error_ends_the_connection_and_tells_the_digest)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 1, 0, 8, true);
	uint32_t crc;
	size_t len;

	raw_up(&host, &addr, 3, 8);
	len = raw_make_capsule(&host, pdus, &cmd, data, 4096);
	memcpy(&crc, pdus + 72, 4);
	pdus[20] ^= 1;
	ck_assert(raw_send(&host, pdus, len));
	raw_expect_term(&host, NVME_TCP_FES_HDGST, crc, pdus, 72);
	raw_close(&host, false);
	ck_assert_int_eq(memcmp(fake.disk, back, 4096), 0);
}

/* --- what breaks the protocol ------------------------------------------------------------------------------------------------------ */

SIM_TEST(a_second_icreq_is_refused_also_with_digests)
{
	const struct nvme_tcp_ic_req again = { .hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 } };

	for (unsigned i = 0; i < 4; i++) {
		struct raw_host host;

		raw_open(&host, &addr);
		raw_ic(&host, i & 1 ? 3 : 0, 0);
		if (i & 2)
			ck_assert_uint_eq(raw_connect(&host, 1, 8), NVME_SC_SUCCESS);
		ck_assert(raw_send(&host, &again, 8)); /* its first bytes are enough */
		raw_expect_term(&host, SEQ, 0, &again, 8);
		raw_close(&host, false);
	}
}

SIM_TEST(two_icreqs_in_one_send_get_the_answer_and_the_term_req)
{
	const struct nvme_tcp_ic_req req = { .hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 } };
	struct raw_host host;

	raw_open(&host, &addr);
	memcpy(pdus, &req, 128);
	memcpy(pdus + 128, &req, 8);
	ck_assert(raw_send(&host, pdus, 136));
	ck_assert_ptr_nonnull(raw_recv(&host));
	ck_assert_uint_eq(host.rx[0], NVME_TCP_IC_RESP);
	raw_next(&host);
	raw_expect_term(&host, SEQ, 0, &req, 8);
	raw_close(&host, false);
}

SIM_TEST(an_icreq_of_another_version_is_unsupported)
{
	const struct nvme_tcp_ic_req req = { .hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 }, .pfv = 7 };
	struct raw_host host;

	raw_open(&host, &addr);
	ck_assert(raw_send(&host, &req, sizeof(req)));
	raw_expect_term(&host, NVME_TCP_FES_UNSUPPORTED_PARAM, 8, &req, 128);
	raw_close(&host, false);
}

SIM_TEST(a_command_before_icreq_is_out_of_sequence)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_FLUSH, 1, 0, 1, false);

	raw_open(&host, &addr);
	raw_make_capsule(&host, pdus, &cmd, NULL, 0);
	ck_assert(raw_send(&host, pdus, 8));
	raw_expect_term(&host, SEQ, 0, pdus, 8);
	raw_close(&host, false);
}

SIM_TEST(a_second_command_while_connect_is_not_answered_is_one_too_many)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 2, 0, 1, false);
	size_t len;

	raw_open(&host, &addr);
	raw_ic(&host, 0, 0);
	cmd.opcode = NVME_OPC_FABRICS;
	cmd.nsid = NVME_FCTYPE_CONNECT;
	cmd.sgl.len = 1024; /* its data by R2T: so it waits */
	len = raw_make_capsule(&host, pdus, &cmd, NULL, 0);
	ck_assert(raw_send(&host, pdus, len));
	raw_expect_r2t(&host, 2, 1024);
	ck_assert(raw_send(&host, pdus, len));
	raw_expect_term(&host, SEQ, 0, pdus, 72);
	raw_close(&host, false);
}

SIM_TEST(more_commands_than_the_queue_holds_are_refused)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_FLUSH, 1, 0, 1, false);
	size_t len;

	fake.hold = true;
	raw_up(&host, &addr, 0, 4);
	len = raw_make_capsule(&host, pdus, &cmd, NULL, 0);
	for (unsigned i = 0; i < 5; i++)
		ck_assert(raw_send(&host, pdus, len));
	raw_expect_term(&host, SEQ, 0, pdus, 72);
	ck_assert_uint_le(fake.max_outstanding, 4);
	raw_close(&host, false);
}

/* Sends an H2CData that is wrong somewhere while an R2T for 131072 bytes with CID 9 is out, and one read held with CID 3. */
static fiber_fn void bad_h2c(uint16_t cccid, uint16_t ttag_off, uint32_t datao, uint32_t datal, uint16_t fes, uint32_t fei)
{
	struct raw_host host;
	union nvme_cmd write = raw_rw(NVME_IO_WRITE, 9, 0, 256, false), read = raw_rw(NVME_IO_READ, 3, 0, 256, false);
	uint16_t ttag;
	size_t len;

	fake.hold = true;
	raw_up(&host, &addr, 0, 8);
	ck_assert(raw_send_cmd(&host, &read, NULL, 0));
	ck_assert(raw_send_cmd(&host, &write, NULL, 0));
	ttag = raw_expect_r2t(&host, 9, 131072);
	len = raw_make_h2c(&host, pdus, cccid, (uint16_t)(ttag + ttag_off), datao, data, datal, false);
	ck_assert(raw_send(&host, pdus, len < 200 ? len : 200));
	raw_expect_term(&host, fes, fei, pdus, 24);
	raw_close(&host, false);
	fake_wait_for(&fake.nr_qpairs, 0);
}

SIM_TEST(h2c_data_that_fits_no_r2t_is_refused)
{
	bad_h2c(9, 1, 0, 4096, HDR_FIELD, 10);
	bad_h2c(9, 0xfff0, 0, 4096, HDR_FIELD, 10);
	bad_h2c(8, 0, 0, 4096, HDR_FIELD, 8);
	bad_h2c(9, 0, 4096, 4096, NVME_TCP_FES_OUT_OF_RANGE, 12);
	bad_h2c(9, 0, 0, 131072 + 4, NVME_TCP_FES_OUT_OF_RANGE, 12);
	bad_h2c(9, 0, 0, (1u << 20) + 4, NVME_TCP_FES_LIMIT, 16);
	/* the read that is in nvmf's hands has a slot too: every tag but the one asked for is nobody's */
	for (uint16_t i = 2; i < 8; i++)
		bad_h2c(3, i, 0, 4096, HDR_FIELD, 10);
}

SIM_TEST(unsolicited_h2c_data_is_refused)
{
	struct raw_host host;
	size_t len;

	raw_up(&host, &addr, 0, 8);
	for (uint16_t ttag = 0; ttag < 8; ttag++) {
		struct raw_host one;

		raw_up(&one, &addr, 0, 8);
		len = raw_make_h2c(&one, pdus, 1, ttag, 0, data, 512, true);
		ck_assert(raw_send(&one, pdus, len));
		raw_expect_term(&one, HDR_FIELD, 10, pdus, 24);
		raw_close(&one, false);
	}
	write_in_capsule(&host, 1, 0, data, 4096); /* the neighbour has noticed nothing */
	raw_close(&host, false);
}

SIM_TEST(data_after_the_last_is_unsolicited)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 9, 0, 16, false);
	uint16_t ttag;
	size_t len;

	fake.hold = true;
	raw_up(&host, &addr, 0, 8);
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	ttag = raw_expect_r2t(&host, 9, 8192);
	send_h2c(&host, 9, ttag, data, 8192, 8192);
	len = raw_make_h2c(&host, pdus, 9, ttag, 0, data, 8192, true);
	ck_assert(raw_send(&host, pdus, len));
	raw_expect_term(&host, HDR_FIELD, 10, pdus, 24);
	raw_close(&host, false);
}

static const struct nvme_tcp_hdr bad_headers[] = {
	{ 0x01, 0, 128, 0, 128 },  { 0x05, 0, 24, 0, 24 },	  { 0x07, 0, 24, 24, 512 },	    { 0x09, 0, 24, 0, 24 },
	{ 0x0a, 0, 24, 0, 24 },	   { 0xff, 0xff, 0xff, 0xff, ~0u }, { 0x04, 0, 255, 0, 255 },	    { 0x04, 0, 72, 0, 71 },
	{ 0x04, 0, 72, 72, ~0u },  { 0x04, 0, 72, 72, 72 + 8193 }, { 0x04, 0, 72, 8, 200 },	    { 0x04, 1, 72, 0, 76 },
	{ 0x06, 4, 24, 24, 24 },   { 0x06, 4, 24, 25, 600 },	  { 0x06, 4, 0, 24, 600 },	    { 0x02, 0, 24, 0, ~0u },
};

SIM_TEST(each_bad_header_ends_its_connection_within_two_seconds_and_no_other)
{
	struct raw_host host;

	raw_up(&host, &addr, 0, 8);
	for (unsigned i = 0; i < sizeof(bad_headers) / sizeof(bad_headers[0]); i++) {
		struct raw_host bad;
		uint64_t begun;

		raw_up(&bad, &addr, 0, 8);
		begun = clock_now_us();
		ck_assert(raw_send(&bad, &bad_headers[i], 8));
		ck_assert_ptr_nonnull(raw_recv(&bad));
		ck_assert_uint_eq(bad.rx[0], NVME_TCP_C2H_TERM_REQ);
		raw_next(&bad);
		raw_expect_end(&bad);
		fake_wait_for(&fake.nr_qpairs, 1); /* this host never closes */
		ck_assert_uint_le(clock_now_us() - begun, 2000000);
		raw_close(&bad, false);
		write_in_capsule(&host, 1, 0, data, 4096);
	}
	raw_close(&host, false);
}

SIM_TEST(an_h2c_term_req_ends_the_connection_without_an_answer)
{
	struct nvme_tcp_term_req term = { .hdr = { .type = NVME_TCP_H2C_TERM_REQ, .hlen = 24, .plen = 24 }, .fes = 0xffff };
	struct raw_host host;

	raw_up(&host, &addr, 3, 8);
	ck_assert(raw_send(&host, &term, sizeof(term)));
	raw_expect_end(&host);
	raw_close(&host, false);
}

SIM_TEST(a_term_req_waits_for_the_end_of_the_pdu_on_its_way)
{
	struct raw_host host;
	const struct nvme_tcp_hdr bad = { .type = 0x0b };
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 1, 0, 2048, false);
	unsigned nr = 0;

	memcpy(fake.disk, data, sizeof(fake.disk));
	raw_up(&host, &addr, 0, 8);
	for (unsigned i = 0; i < 4; i++)
		ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	fiber_sleep(100000); /* the socket is full by now */
	ck_assert(raw_send(&host, &bad, 8));
	fiber_sleep(100000);
	for (;;) {
		ck_assert_ptr_nonnull(raw_recv(&host));
		if (host.rx[0] == NVME_TCP_C2H_TERM_REQ)
			break;
		ck_assert(raw_expect_data(&host, 1, back, 1u << 20));
		ck_assert_int_eq(memcmp(back, data, 1u << 20), 0);
		nr++;
	}
	ck_assert_uint_le(nr, 4);
	raw_next(&host);
	raw_expect_end(&host);
	raw_close(&host, false);
}

int main(void)
{
	const TTest *const tests[] = {
		small_writes_and_reads_come_through_with_every_choice_of_digests_and_alignment,
		capsules_may_be_as_large_as_was_configured_and_no_larger,
		a_host_with_flow_control_gets_a_response_for_each_read,
		without_c2h_success_each_read_has_its_response,
		large_writes_come_by_r2t_in_one_or_several_pieces,
		a_whole_queue_of_commands_in_one_send_is_answered,
		data_by_r2t_and_in_capsules_may_be_mixed,
		data_of_held_commands_stays_as_it_came,
		with_the_pool_dry_writes_in_capsules_still_work,
		a_refused_connect_may_be_tried_again,
		descriptors_that_point_out_of_the_capsule_are_refused_and_the_connection_stays,
		a_write_that_claims_4_gib_takes_no_buffer,
		a_data_digest_error_in_a_capsule_fails_that_command_only,
		a_data_digest_error_by_r2t_fails_that_command_when_its_data_is_all_here,
		a_header_digest_error_ends_the_connection_and_tells_the_digest,
		a_second_icreq_is_refused_also_with_digests,
		two_icreqs_in_one_send_get_the_answer_and_the_term_req,
		an_icreq_of_another_version_is_unsupported,
		a_command_before_icreq_is_out_of_sequence,
		a_second_command_while_connect_is_not_answered_is_one_too_many,
		more_commands_than_the_queue_holds_are_refused,
		h2c_data_that_fits_no_r2t_is_refused,
		unsolicited_h2c_data_is_refused,
		data_after_the_last_is_unsolicited,
		each_bad_header_ends_its_connection_within_two_seconds_and_no_other,
		an_h2c_term_req_ends_the_connection_without_an_answer,
		a_term_req_waits_for_the_end_of_the_pdu_on_its_way,
	};

	return run_sim_tests("tcp connections", tests, sizeof(tests) / sizeof(tests[0]));
}
