/* What NVMe's words are worth: digests, names, statuses, NQNs. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "nvme/nvme.h"
#include "nvme/transfer.h"
#include "runtime/suite.h"

START_TEST(crc32c_gives_the_check_value_of_its_definition)
{
	ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283);
}
END_TEST

START_TEST(crc32c_in_parts_equals_the_whole)
{
	char buf[1000];
	struct iovec iov[3] = {{buf, 1}, {buf + 1, 499}, {buf + 500, 500}};
	uint32_t crc = crc32c_begin();

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i * 7);
	ck_assert_uint_eq(crc32c_end(crc32c_more_iov(crc, iov, 3, sizeof(buf))), crc32c(buf, sizeof(buf)));
	ck_assert_uint_eq(crc32c_end(crc32c_more_iov(crc, iov, 3, 777)), crc32c(buf, 777));
}
END_TEST

static void check_transfer(const union nvme_cmd *cmd, uint32_t io_block_size, enum nvme_transfer want, uint64_t want_len)
{
	uint64_t len;

	ck_assert_uint_eq(io_block_size ? nvme_io_transfer(cmd, io_block_size, &len) : nvme_admin_transfer(cmd, &len), want);
	ck_assert_uint_eq(len, want_len);
}

START_TEST(a_command_says_how_much_data_it_moves)
{
	union nvme_cmd cmd = {.opcode = NVME_ADMIN_IDENTIFY};
	uint64_t len;

	check_transfer(&cmd, 0, NVME_TRANSFER_KNOWN, 4096);
	cmd = (union nvme_cmd){.opcode = NVME_ADMIN_GET_LOG_PAGE};
	cmd.get_log.numdl = 0xffff;
	cmd.get_log.numdu = 1;
	check_transfer(&cmd, 0, NVME_TRANSFER_KNOWN, 0x20000 * 4);
	cmd = (union nvme_cmd){.opcode = NVME_ADMIN_GET_FEATURES, .cdw10 = NVME_FID_NR_QUEUES};
	check_transfer(&cmd, 0, NVME_TRANSFER_NONE, 0);
	cmd.cdw10 = NVME_FID_HOST_BEHAVIOR;
	check_transfer(&cmd, 0, NVME_TRANSFER_KNOWN, 512);
	cmd.cdw10 |= NVME_FEATURE_SEL_SUPPORTED << NVME_FEATURE_SEL_SHIFT;
	check_transfer(&cmd, 0, NVME_TRANSFER_NONE, 0);
	cmd = (union nvme_cmd){.opcode = NVME_ADMIN_GET_FEATURES, .cdw10 = 0xc1};
	check_transfer(&cmd, 0, NVME_TRANSFER_UNKNOWN, 0);
	cmd = (union nvme_cmd){.opcode = NVME_ADMIN_NS_MANAGEMENT, .cdw10 = 1};
	check_transfer(&cmd, 0, NVME_TRANSFER_NONE, 0);
	cmd = (union nvme_cmd){.opcode = NVME_ADMIN_FORMAT_NVM};
	check_transfer(&cmd, 0, NVME_TRANSFER_NONE, 0);
	cmd = (union nvme_cmd){.opcode = 0xc2};
	check_transfer(&cmd, 0, NVME_TRANSFER_UNKNOWN, 0);
	cmd = (union nvme_cmd){.opcode = NVME_IO_READ};
	cmd.rw.nlb = 7;
	check_transfer(&cmd, 512, NVME_TRANSFER_KNOWN, 4096);
	ck_assert_uint_eq(nvme_io_transfer(&cmd, 0, &len), NVME_TRANSFER_UNKNOWN);
	cmd = (union nvme_cmd){.opcode = NVME_IO_DSM};
	cmd.dsm.nr = 255;
	check_transfer(&cmd, 512, NVME_TRANSFER_KNOWN, 4096);
	cmd = (union nvme_cmd){.opcode = NVME_IO_WRITE_ZEROES};
	check_transfer(&cmd, 512, NVME_TRANSFER_NONE, 0);
}
END_TEST

START_TEST(a_status_travels_above_the_phase_bit)
{
	struct nvme_cqe cqe = {0};

	nvme_cqe_set_status(&cqe, NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR);
	ck_assert_uint_eq(cqe.status_field, 0x8100);
	ck_assert_uint_eq(nvme_cqe_status(&cqe), NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR);
	nvme_cqe_set_status(&cqe, NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(cqe.status_field, 0x0304);
}
END_TEST

START_TEST(an_errno_goes_to_a_status_and_back)
{
	static const int errs[] = {0,       -EILSEQ,  -ENOSPC, -ERANGE,    -EROFS,
				   -ENODEV, -ENOTSUP, -EINVAL, -ECANCELED, -EIO};

	for (unsigned i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		ck_assert_int_eq(nvme_status_to_errno(nvme_status_from_errno(errs[i])), errs[i]);
	ck_assert_uint_eq(nvme_status_code(nvme_status_from_errno(-ENOSPC)), 0x081);
	ck_assert_uint_eq(nvme_status_from_errno(-EIO) & NVME_SC_DNR, 0);
}
END_TEST

START_TEST(every_status_has_a_name_and_flags_do_not_change_it)
{
	ck_assert_str_eq(nvme_status_name(0x109 | NVME_SC_DNR), "Invalid Log Page");
	ck_assert_str_eq(nvme_status_name(0x7fe), "Vendor Specific");
	for (unsigned status = 0; status <= 0xffff; status++)
		ck_assert_ptr_nonnull(nvme_status_name((uint16_t)status));
}
END_TEST

START_TEST(names_of_every_number_can_be_asked_for)
{
	for (unsigned n = 0; n <= 0xffff; n++)
		ck_assert_ptr_nonnull(nvme_tcp_fes_name((uint16_t)n));
	for (unsigned n = 0; n <= 0xff; n++) {
		ck_assert_ptr_nonnull(nvme_tcp_pdu_name((uint8_t)n));
		ck_assert_ptr_nonnull(nvme_admin_opcode_name((uint8_t)n));
		ck_assert_ptr_nonnull(nvme_io_opcode_name((uint8_t)n));
	}
	ck_assert_uint_eq(nvme_tcp_hlen(8), 0);
	ck_assert_uint_eq(nvme_tcp_hlen(NVME_TCP_R2T), 24);
	ck_assert_uint_eq(nvme_tcp_hlen(0xff), 0);
}
END_TEST

START_TEST(data_begins_where_alignment_wants_it)
{
	ck_assert_uint_eq(nvme_tcp_pdo(24, false, 0), 24);
	ck_assert_uint_eq(nvme_tcp_pdo(24, true, 0), 28);
	ck_assert_uint_eq(nvme_tcp_pdo(24, true, 15), 64);
	ck_assert_uint_eq(nvme_tcp_pdo(72, true, 31), 128);
}
END_TEST

START_TEST(an_nqn_without_an_end_is_refused)
{
	char field[NVME_NQN_FIELD_SIZE];

	memset(field, 'a', sizeof(field));
	memcpy(field, "nqn.2026-11.", 12);
	ck_assert(!nvme_nqn_is_valid(field, sizeof(field)));
	field[NVME_NQN_MAX_LEN] = 0;
	ck_assert(nvme_nqn_is_valid(field, sizeof(field)));
	field[NVME_NQN_MAX_LEN] = 'a';
	field[NVME_NQN_MAX_LEN + 1] = 0;
	ck_assert(!nvme_nqn_is_valid(field, sizeof(field)));
}
END_TEST

START_TEST(an_nqn_has_its_form)
{
	ck_assert(nvme_nqn_is_valid(NVME_DISCOVERY_NQN, sizeof(NVME_DISCOVERY_NQN)));
	ck_assert(!nvme_nqn_is_valid("", 1));
	ck_assert(!nvme_nqn_is_valid("nqn.2014-08.", 13));
	ck_assert(!nvme_nqn_is_valid("iqn.2014-08.org.example", 24));
	ck_assert(!nvme_nqn_is_valid("nqn.2014-8.org.example:a", 25));
	ck_assert(!nvme_nqn_is_valid("nqn.2014-08.org\nexample", 24));
}
END_TEST

START_TEST(an_nqn_is_utf8)
{
	static const struct {
		const char *name;
		bool valid;
	} cases[] = {
		{ "\x7e", true },	       { "\xc2\x80", true },	   { "\xdf\xbf", true },
		{ "\xe0\xa0\x80", true },    { "\xef\xbf\xbf", true },	   { "\xf0\x90\x80\x80", true },
		{ "\xf4\x8f\xbf\xbf", true }, { "\x80", false },	   { "\xc1\xbf", false }, /* too long a form */
		{ "\xe0\x9f\xbf", false },   { "\xf0\x8f\xbf\xbf", false }, { "\xed\xa0\x80", false }, /* half a pair */
		{ "\xf4\x90\x80\x80", false }, { "\xf8\x88\x80\x80\x80", false }, { "\xff", false },
		{ "\xc3", false },	       { "\xe2\x82", false },	   { "\xc3(", false },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char nqn[64];

		snprintf(nqn, sizeof(nqn), "nqn.2014-08.org.example:%s", cases[i].name);
		ck_assert_msg(nvme_nqn_is_valid(nqn, sizeof(nqn)) == cases[i].valid, "case %u", i);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		crc32c_gives_the_check_value_of_its_definition,
		crc32c_in_parts_equals_the_whole,
		a_command_says_how_much_data_it_moves,
		a_status_travels_above_the_phase_bit,
		an_errno_goes_to_a_status_and_back,
		every_status_has_a_name_and_flags_do_not_change_it,
		names_of_every_number_can_be_asked_for,
		data_begins_where_alignment_wants_it,
		an_nqn_without_an_end_is_refused,
		an_nqn_has_its_form,
		an_nqn_is_utf8,
	};

	return run_suite("words", tests, sizeof(tests) / sizeof(tests[0]));
}
