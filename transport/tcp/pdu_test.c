/* Each bad PDU gets the FES and the FEI that name what is wrong with it; each good one passes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "transport/tcp/pdu.h"

static const struct pdu_limits fresh = { .max_capsule_data = 8192, .max_h2c_data = 65536 };
static const struct pdu_limits plain = { .established = true, .max_capsule_data = 8192, .max_h2c_data = 65536 };
static const struct pdu_limits digests = {
	.established = true, .hdgst = true, .ddgst = true, .max_capsule_data = 8192, .max_h2c_data = 65536
};
static const struct pdu_limits aligned = { .established = true, .cpda = 3, .max_capsule_data = 8192, .max_h2c_data = 65536 };

#define HD NVME_TCP_FLAG_HDGST
#define DD NVME_TCP_FLAG_DDGST
#define LAST NVME_TCP_FLAG_LAST
#define HDR_FIELD NVME_TCP_FES_INVALID_HEADER
#define SEQ NVME_TCP_FES_SEQUENCE

/* fes 0: good */
static const struct header_case {
	const char *what;
	const struct pdu_limits *limits;
	struct nvme_tcp_hdr hdr;
	uint16_t fes;
	uint32_t fei;
} header_cases[] = {
	/* type, flags, hlen, pdo, plen */
	{ "a first ICReq", &fresh, { 0x00, 0, 128, 0, 128 }, 0, 0 },
	{ "a second ICReq", &plain, { 0x00, 0, 128, 0, 128 }, SEQ, 0 },
	{ "a second ICReq with digests on", &digests, { 0x00, 0, 128, 0, 128 }, SEQ, 0 },
	{ "an ICReq that is longer than one", &fresh, { 0x00, 0, 128, 0, 132 }, HDR_FIELD, 4 },
	{ "an ICReq that is shorter than its header", &fresh, { 0x00, 0, 128, 0, 127 }, HDR_FIELD, 4 },
	{ "an ICReq with HLEN of 8", &fresh, { 0x00, 0, 8, 0, 128 }, HDR_FIELD, 2 },
	{ "a command before ICReq", &fresh, { 0x04, 0, 72, 0, 72 }, SEQ, 0 },
	{ "data before ICReq", &fresh, { 0x06, LAST, 24, 24, 28 }, SEQ, 0 },
	{ "an ICResp from a host", &plain, { 0x01, 0, 128, 0, 128 }, HDR_FIELD, 0 },
	{ "a C2HTermReq from a host", &plain, { 0x03, 0, 24, 0, 24 }, HDR_FIELD, 0 },
	{ "a CapsuleResp from a host", &plain, { 0x05, 0, 24, 0, 24 }, HDR_FIELD, 0 },
	{ "C2HData from a host", &plain, { 0x07, 0, 24, 24, 28 }, HDR_FIELD, 0 },
	{ "R2T from a host", &plain, { 0x09, 0, 24, 0, 24 }, HDR_FIELD, 0 },
	{ "a type that there is not", &plain, { 0x08, 0, 24, 0, 24 }, HDR_FIELD, 0 },
	{ "another type that there is not", &fresh, { 0xff, 0, 24, 0, 24 }, HDR_FIELD, 0 },
	{ "an H2CTermReq", &plain, { 0x02, 0, 24, 0, 24 + 128 }, 0, 0 },
	{ "an H2CTermReq before ICReq", &fresh, { 0x02, 0, 24, 0, 24 }, 0, 0 },
	{ "an H2CTermReq of 153 bytes", &plain, { 0x02, 0, 24, 0, 153 }, HDR_FIELD, 4 },
	{ "an H2CTermReq of 4 GiB", &plain, { 0x02, 0, 24, 0, 0xffffffff }, HDR_FIELD, 4 },
	{ "an H2CTermReq shorter than its header", &plain, { 0x02, 0, 24, 0, 23 }, HDR_FIELD, 4 },
	{ "a command", &plain, { 0x04, 0, 72, 0, 72 }, 0, 0 },
	{ "a command with PDO and no data", &plain, { 0x04, 0, 72, 72, 72 }, 0, 0 },
	{ "a command with HLEN 255", &plain, { 0x04, 0, 255, 0, 255 }, HDR_FIELD, 2 },
	{ "a command with HLEN 255 and digests", &digests, { 0x04, HD, 255, 0, 255 }, HDR_FIELD, 2 },
	{ "a command with HLEN 0", &plain, { 0x04, 0, 0, 0, 72 }, HDR_FIELD, 2 },
	{ "a command cut short", &plain, { 0x04, 0, 72, 0, 71 }, HDR_FIELD, 4 },
	{ "a command with PLEN 0", &plain, { 0x04, 0, 72, 0, 0 }, HDR_FIELD, 4 },
	{ "a command with a header digest nobody asked for", &plain, { 0x04, HD, 72, 0, 76 }, HDR_FIELD, 1 },
	{ "a command without the header digest", &digests, { 0x04, 0, 72, 0, 72 }, HDR_FIELD, 1 },
	{ "a command with header digest", &digests, { 0x04, HD, 72, 0, 76 }, 0, 0 },
	{ "a command whose PLEN forgets the digest", &digests, { 0x04, HD, 72, 0, 72 }, HDR_FIELD, 4 },
	{ "in-capsule data", &plain, { 0x04, 0, 72, 72, 72 + 4096 }, 0, 0 },
	{ "in-capsule data, the most", &plain, { 0x04, 0, 72, 72, 72 + 8192 }, 0, 0 },
	{ "in-capsule data, one too many", &plain, { 0x04, 0, 72, 72, 72 + 8193 }, HDR_FIELD, 4 },
	{ "in-capsule data of 4 GiB", &plain, { 0x04, 0, 72, 72, 0xffffffff }, HDR_FIELD, 4 },
	{ "in-capsule data inside the header", &plain, { 0x04, 0, 72, 8, 72 + 512 }, HDR_FIELD, 3 },
	{ "in-capsule data at PDO 0", &plain, { 0x04, 0, 72, 0, 72 + 512 }, HDR_FIELD, 3 },
	{ "in-capsule data over the digest", &digests, { 0x04, HD | DD, 72, 72, 76 + 512 + 4 }, HDR_FIELD, 3 },
	{ "in-capsule data at an odd PDO", &plain, { 0x04, 0, 72, 73, 73 + 512 }, HDR_FIELD, 3 },
	{ "in-capsule data against CPDA", &aligned, { 0x04, 0, 72, 72, 72 + 512 }, HDR_FIELD, 3 },
	{ "in-capsule data with padding", &aligned, { 0x04, 0, 72, 80, 80 + 512 }, 0, 0 },
	{ "PDO behind the end", &plain, { 0x04, 0, 72, 200, 100 }, HDR_FIELD, 4 },
	{ "PDO at the end", &plain, { 0x04, 0, 72, 76, 76 }, HDR_FIELD, 4 },
	{ "a data digest nobody asked for", &plain, { 0x04, DD, 72, 72, 72 + 512 }, HDR_FIELD, 1 },
	{ "no data digest", &digests, { 0x04, HD, 72, 76, 76 + 512 }, HDR_FIELD, 1 },
	{ "data and digests", &digests, { 0x04, HD | DD, 72, 76, 76 + 512 + 4 }, 0, 0 },
	{ "a digest and no data before it", &digests, { 0x04, HD | DD, 72, 76, 76 + 4 }, HDR_FIELD, 4 },
	{ "H2CData", &plain, { 0x06, LAST, 24, 24, 24 + 512 }, 0, 0 },
	{ "H2CData without data", &plain, { 0x06, LAST, 24, 24, 24 }, HDR_FIELD, 4 },
	{ "H2CData with HLEN 23", &plain, { 0x06, LAST, 23, 24, 24 + 512 }, HDR_FIELD, 2 },
	{ "H2CData inside its header", &plain, { 0x06, LAST, 24, 20, 24 + 512 }, HDR_FIELD, 3 },
	{ "H2CData shorter than its header", &plain, { 0x06, LAST, 24, 24, 12 }, HDR_FIELD, 4 },
	{ "H2CData of which PDO takes all", &plain, { 0x06, LAST, 24, 252, 28 }, HDR_FIELD, 4 },
	{ "H2CData with digests", &digests, { 0x06, LAST | HD | DD, 24, 28, 28 + 512 + 4 }, 0, 0 },
	{ "H2CData without the data digest's flag", &digests, { 0x06, LAST | HD, 24, 28, 28 + 512 + 4 }, HDR_FIELD, 1 },
};

START_TEST(each_common_header_gets_its_verdict)
{
	const struct header_case *c = &header_cases[_i];
	struct pdu_error error = { 0 };
	int rc = pdu_check_type(&c->hdr, c->limits, &error);

	if (rc == 0)
		rc = pdu_check_lengths(&c->hdr, c->limits, &error);
	ck_assert_msg((rc == -EPROTO) == (c->fes != 0), "%s: %d", c->what, rc);
	ck_assert_msg(error.fes == c->fes && error.fei == c->fei, "%s: FES %u FEI %u", c->what, error.fes, error.fei);
}
END_TEST

static struct nvme_tcp_data h2c(uint16_t cccid, uint32_t datao, uint32_t datal, uint8_t flags)
{
	return (struct nvme_tcp_data){ .hdr = { NVME_TCP_H2C_DATA, flags, 24, 24, 24 + datal },
				       .cccid = cccid,
				       .datao = datao,
				       .datal = datal };
}

static const struct data_case {
	const char *what;
	struct pdu_r2t r2t;
	uint16_t cccid;
	uint32_t datao, datal;
	uint8_t flags;
	int32_t plen_off; /* PLEN is wrong by this */
	uint16_t fes;
	uint32_t fei;
} data_cases[] = {
	{ "all of it", { 7, 0, 8192 }, 7, 0, 8192, LAST, 0, 0, 0 },
	{ "all of it, without LAST", { 7, 0, 8192 }, 7, 0, 8192, 0, 0, 0, 0 },
	{ "the first half", { 7, 0, 8192 }, 7, 0, 4096, 0, 0, 0, 0 },
	{ "the second half", { 7, 4096, 8192 }, 7, 4096, 4096, LAST, 0, 0, 0 },
	{ "half of it as the last", { 7, 0, 8192 }, 7, 0, 4096, LAST, 0, HDR_FIELD, 1 },
	{ "another command's CCCID", { 7, 0, 8192 }, 8, 0, 8192, LAST, 0, HDR_FIELD, 8 },
	{ "the second half first", { 7, 0, 8192 }, 7, 4096, 4096, LAST, 0, NVME_TCP_FES_OUT_OF_RANGE, 12 },
	{ "the first half twice", { 7, 4096, 8192 }, 7, 0, 4096, 0, 0, NVME_TCP_FES_OUT_OF_RANGE, 12 },
	{ "one byte past the end", { 7, 0, 8192 }, 7, 0, 8193, 0, 0, NVME_TCP_FES_OUT_OF_RANGE, 12 },
	{ "an offset that wraps", { 7, 4096, 8192 }, 7, 0xfffff000, 8192, 0, 0, NVME_TCP_FES_OUT_OF_RANGE, 12 },
	{ "more than MAXH2CDATA", { 7, 0, 1 << 20 }, 7, 0, 65537, 0, 0, NVME_TCP_FES_LIMIT, 16 },
	{ "as much as MAXH2CDATA", { 7, 0, 1 << 20 }, 7, 0, 65536, 0, 0, 0, 0 },
	{ "DATAL less than PLEN says", { 7, 0, 8192 }, 7, 0, 4096, 0, 1, HDR_FIELD, 16 },
	{ "DATAL more than PLEN says", { 7, 0, 8192 }, 7, 0, 4096, 0, -1, HDR_FIELD, 16 },
};

START_TEST(each_h2c_data_gets_its_verdict)
{
	const struct data_case *c = &data_cases[_i];
	struct nvme_tcp_data pdu = h2c(c->cccid, c->datao, c->datal, c->flags);
	struct pdu_error error = { 0 };
	int rc;

	pdu.hdr.plen += c->plen_off;
	rc = pdu_check_h2c_data(&pdu, &c->r2t, &plain, &error);
	ck_assert_msg((rc == -EPROTO) == (c->fes != 0), "%s: %d", c->what, rc);
	ck_assert_msg(error.fes == c->fes && error.fei == c->fei, "%s: FES %u FEI %u", c->what, error.fes, error.fei);
}
END_TEST

START_TEST(h2c_data_that_no_r2t_asked_for_is_refused_at_its_ttag)
{
	struct nvme_tcp_data pdu = h2c(7, 0, 512, LAST);
	struct pdu_error error = { 0 };

	ck_assert_int_eq(pdu_check_h2c_data(&pdu, NULL, &plain, &error), -EPROTO);
	ck_assert_uint_eq(error.fes, HDR_FIELD);
	ck_assert_uint_eq(error.fei, 10);
}
END_TEST

START_TEST(a_data_length_of_zero_is_refused)
{
	const struct pdu_r2t r2t = { 7, 0, 8192 };
	struct nvme_tcp_data pdu = h2c(7, 0, 0, 0);
	struct pdu_error error = { 0 };

	ck_assert_int_eq(pdu_check_h2c_data(&pdu, &r2t, &plain, &error), -EPROTO);
	ck_assert_uint_eq(error.fei, 16);
}
END_TEST

START_TEST(an_ic_req_of_another_format_version_is_unsupported)
{
	struct nvme_tcp_ic_req req = { .pfv = 1 };
	struct pdu_error error;

	ck_assert_int_eq(pdu_check_ic_req(&req, &error), -EPROTO);
	ck_assert_uint_eq(error.fes, NVME_TCP_FES_UNSUPPORTED_PARAM);
	ck_assert_uint_eq(error.fei, 8);
}
END_TEST

START_TEST(hpda_has_a_limit)
{
	struct nvme_tcp_ic_req req = { .hpda = 31 };
	struct pdu_error error;

	ck_assert_int_eq(pdu_check_ic_req(&req, &error), 0);
	req.hpda = 32;
	ck_assert_int_eq(pdu_check_ic_req(&req, &error), -EPROTO);
	ck_assert_uint_eq(error.fes, HDR_FIELD);
	ck_assert_uint_eq(error.fei, 10);
}
END_TEST

START_TEST(a_wrong_header_digest_is_told_back)
{
	uint8_t pdu[28] = { NVME_TCP_H2C_DATA, 0, 24 };
	uint32_t crc = crc32c(pdu, 24);
	struct pdu_error error;

	memcpy(pdu + 24, &crc, 4);
	ck_assert_int_eq(pdu_check_hdgst(pdu, 24, &error), 0);
	pdu[5] ^= 0x10;
	ck_assert_int_eq(pdu_check_hdgst(pdu, 24, &error), -EPROTO);
	ck_assert_uint_eq(error.fes, NVME_TCP_FES_HDGST);
	ck_assert_uint_eq(error.fei, crc);
}
END_TEST

START_TEST(a_term_req_carries_at_most_128_bytes_of_what_was_wrong)
{
	uint8_t bad[300], buf[PDU_TERM_REQ_MAX];
	const struct pdu_error error = { NVME_TCP_FES_HDGST, 0x12345678 };
	struct nvme_tcp_term_req term;

	for (unsigned i = 0; i < sizeof(bad); i++)
		bad[i] = (uint8_t)i;
	ck_assert_uint_eq(pdu_make_term_req(buf, &error, bad, sizeof(bad)), 152);
	memcpy(&term, buf, sizeof(term));
	ck_assert_uint_eq(term.hdr.type, NVME_TCP_C2H_TERM_REQ);
	ck_assert_uint_eq(term.hdr.hlen, 24);
	ck_assert_uint_eq(term.hdr.plen, 152);
	ck_assert_uint_eq(term.fes, NVME_TCP_FES_HDGST);
	ck_assert_uint_eq(nvme_tcp_term_fei(&term), 0x12345678);
	ck_assert_int_eq(memcmp(buf + 24, bad, 128), 0);
	ck_assert_uint_eq(pdu_make_term_req(buf, &error, bad, 8), 32);
}
END_TEST

START_TEST(capsule_data_is_what_is_between_pdo_and_the_digest)
{
	const struct nvme_tcp_hdr none = { 0x04, HD, 72, 0, 76 }, some = { 0x04, HD | DD, 72, 80, 80 + 512 + 4 };

	ck_assert_uint_eq(pdu_capsule_data_len(&none, &digests), 0);
	ck_assert_uint_eq(pdu_capsule_data_len(&some, &digests), 512);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tcp pdu");
	TCase *tc = tcase_create("checks");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, each_common_header_gets_its_verdict, 0, sizeof(header_cases) / sizeof(header_cases[0]));
	tcase_add_loop_test(tc, each_h2c_data_gets_its_verdict, 0, sizeof(data_cases) / sizeof(data_cases[0]));
	tcase_add_test(tc, h2c_data_that_no_r2t_asked_for_is_refused_at_its_ttag);
	tcase_add_test(tc, a_data_length_of_zero_is_refused);
	tcase_add_test(tc, an_ic_req_of_another_format_version_is_unsupported);
	tcase_add_test(tc, hpda_has_a_limit);
	tcase_add_test(tc, a_wrong_header_digest_is_told_back);
	tcase_add_test(tc, a_term_req_carries_at_most_128_bytes_of_what_was_wrong);
	tcase_add_test(tc, capsule_data_is_what_is_between_pdo_and_the_digest);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
