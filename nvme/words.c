/* The names of NVMe's numbers, what every PDU type's header is long, and what makes an NQN. */
#include <errno.h>
#include <string.h>

#include "nvme/nvme.h"

const char *nvme_status_name(uint16_t status)
{
	switch (nvme_status_code(status)) {
#define STATUS_TEXT(name, value, text) \
	case value:                    \
		return text;
		NVME_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
	}
	return NVME_SCT(status) == 7 ? "Vendor Specific" : "Unknown Status";
}

uint16_t nvme_status_from_errno(int err)
{
	switch (err < 0 ? -err : err) {
	case 0:
		return NVME_SC_SUCCESS;
	case EILSEQ:
		return NVME_SC_COMPARE_FAILURE | NVME_SC_DNR;
	case ENOSPC:
		return NVME_SC_CAPACITY_EXCEEDED | NVME_SC_DNR;
	case ERANGE:
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	case EROFS:
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	case ENODEV:
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	case ENOTSUP:
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	case EINVAL:
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	case ECANCELED:
		return NVME_SC_ABORT_REQUESTED;
	case EAGAIN:
	case EBUSY:
	case ENOMEM:
	case ETIMEDOUT:
		return NVME_SC_COMMAND_INTERRUPTED;
	}
	return NVME_SC_INTERNAL_ERROR;
}

int nvme_status_to_errno(uint16_t status)
{
	switch (nvme_status_code(status)) {
	case NVME_SC_SUCCESS:
		return 0;
	case NVME_SC_COMPARE_FAILURE:
		return -EILSEQ;
	case NVME_SC_CAPACITY_EXCEEDED:
		return -ENOSPC;
	case NVME_SC_LBA_OUT_OF_RANGE:
		return -ERANGE;
	case NVME_SC_NS_WRITE_PROTECTED:
		return -EROFS;
	case NVME_SC_INVALID_NS:
		return -ENODEV;
	case NVME_SC_INVALID_OPCODE:
		return -ENOTSUP;
	case NVME_SC_INVALID_FIELD:
	case NVME_SC_INVALID_LOG_PAGE:
		return -EINVAL;
	case NVME_SC_ABORT_REQUESTED:
	case NVME_SC_ABORTED_SQ_DELETION:
		return -ECANCELED;
	case NVME_SC_COMMAND_INTERRUPTED:
	case NVME_SC_NS_NOT_READY:
		return -EAGAIN;
	case NVME_SC_AUTH_REQUIRED:
	case NVME_SC_ACCESS_DENIED:
		return -EACCES;
	}
	return -EIO;
}

static const char *const admin_names[256] = {
	[NVME_ADMIN_DELETE_IO_SQ] = "Delete I/O Submission Queue",
	[NVME_ADMIN_CREATE_IO_SQ] = "Create I/O Submission Queue",
	[NVME_ADMIN_GET_LOG_PAGE] = "Get Log Page",
	[NVME_ADMIN_DELETE_IO_CQ] = "Delete I/O Completion Queue",
	[NVME_ADMIN_CREATE_IO_CQ] = "Create I/O Completion Queue",
	[NVME_ADMIN_IDENTIFY] = "Identify",
	[NVME_ADMIN_ABORT] = "Abort",
	[NVME_ADMIN_SET_FEATURES] = "Set Features",
	[NVME_ADMIN_GET_FEATURES] = "Get Features",
	[NVME_ADMIN_AER] = "Asynchronous Event Request",
	[NVME_ADMIN_NS_MANAGEMENT] = "Namespace Management",
	[NVME_ADMIN_FIRMWARE_COMMIT] = "Firmware Commit",
	[NVME_ADMIN_FIRMWARE_DOWNLOAD] = "Firmware Image Download",
	[NVME_ADMIN_SELF_TEST] = "Device Self-test",
	[NVME_ADMIN_NS_ATTACHMENT] = "Namespace Attachment",
	[NVME_ADMIN_KEEP_ALIVE] = "Keep Alive",
	[NVME_ADMIN_DIRECTIVE_SEND] = "Directive Send",
	[NVME_ADMIN_DIRECTIVE_RECEIVE] = "Directive Receive",
	[NVME_ADMIN_VIRTUALIZATION] = "Virtualization Management",
	[NVME_ADMIN_MI_SEND] = "NVMe-MI Send",
	[NVME_ADMIN_MI_RECEIVE] = "NVMe-MI Receive",
	[NVME_ADMIN_DOORBELL_BUFFER] = "Doorbell Buffer Config",
	[NVME_OPC_FABRICS] = "Fabrics",
	[NVME_ADMIN_FORMAT_NVM] = "Format NVM",
	[NVME_ADMIN_SECURITY_SEND] = "Security Send",
	[NVME_ADMIN_SECURITY_RECEIVE] = "Security Receive",
	[NVME_ADMIN_SANITIZE] = "Sanitize",
};

static const char *const io_names[256] = {
	[NVME_IO_FLUSH] = "Flush",
	[NVME_IO_WRITE] = "Write",
	[NVME_IO_READ] = "Read",
	[NVME_IO_WRITE_UNCORRECTABLE] = "Write Uncorrectable",
	[NVME_IO_COMPARE] = "Compare",
	[NVME_IO_WRITE_ZEROES] = "Write Zeroes",
	[NVME_IO_DSM] = "Dataset Management",
	[NVME_IO_VERIFY] = "Verify",
	[NVME_IO_RESERVATION_REGISTER] = "Reservation Register",
	[NVME_IO_RESERVATION_REPORT] = "Reservation Report",
	[NVME_IO_RESERVATION_ACQUIRE] = "Reservation Acquire",
	[NVME_IO_RESERVATION_RELEASE] = "Reservation Release",
	[NVME_IO_COPY] = "Copy",
	[NVME_OPC_FABRICS] = "Fabrics",
};

const char *nvme_admin_opcode_name(uint8_t opcode)
{
	return admin_names[opcode] ? admin_names[opcode] : "Unknown";
}

const char *nvme_io_opcode_name(uint8_t opcode)
{
	return io_names[opcode] ? io_names[opcode] : "Unknown";
}

static const struct {
	const char *name;
	uint8_t hlen;
} pdus[] = {
	[NVME_TCP_IC_REQ] = {"ICReq", sizeof(struct nvme_tcp_ic_req)},
	[NVME_TCP_IC_RESP] = {"ICResp", sizeof(struct nvme_tcp_ic_resp)},
	[NVME_TCP_H2C_TERM_REQ] = {"H2CTermReq", sizeof(struct nvme_tcp_term_req)},
	[NVME_TCP_C2H_TERM_REQ] = {"C2HTermReq", sizeof(struct nvme_tcp_term_req)},
	[NVME_TCP_CAPSULE_CMD] = {"CapsuleCmd", sizeof(struct nvme_tcp_capsule_cmd)},
	[NVME_TCP_CAPSULE_RESP] = {"CapsuleResp", sizeof(struct nvme_tcp_capsule_resp)},
	[NVME_TCP_H2C_DATA] = {"H2CData", sizeof(struct nvme_tcp_data)},
	[NVME_TCP_C2H_DATA] = {"C2HData", sizeof(struct nvme_tcp_data)},
	[NVME_TCP_R2T] = {"R2T", sizeof(struct nvme_tcp_r2t)},
};

uint8_t nvme_tcp_hlen(uint8_t type)
{
	return type < sizeof(pdus) / sizeof(pdus[0]) ? pdus[type].hlen : 0;
}

const char *nvme_tcp_pdu_name(uint8_t type)
{
	return nvme_tcp_hlen(type) ? pdus[type].name : "unknown PDU";
}

const char *nvme_tcp_fes_name(uint16_t fes)
{
	static const char *const names[] = {
		[NVME_TCP_FES_INVALID_HEADER] = "Invalid PDU Header Field",
		[NVME_TCP_FES_SEQUENCE] = "PDU Sequence Error",
		[NVME_TCP_FES_HDGST] = "Header Digest Error",
		[NVME_TCP_FES_OUT_OF_RANGE] = "Data Transfer Out of Range",
		[NVME_TCP_FES_LIMIT] = "Limit Exceeded",
		[NVME_TCP_FES_UNSUPPORTED_PARAM] = "Unsupported Parameter",
	};

	return fes < sizeof(names) / sizeof(names[0]) && names[fes] ? names[fes] : "unknown error";
}

const char *nvme_rdma_cm_status_name(uint16_t sts)
{
	static const char *const names[] = {
		[NVME_RDMA_CM_INVALID_LEN] = "Invalid Private Data Length",
		[NVME_RDMA_CM_INVALID_RECFMT] = "Invalid RECFMT",
		[NVME_RDMA_CM_INVALID_QID] = "Invalid QID",
		[NVME_RDMA_CM_INVALID_HSQSIZE] = "Invalid HSQSIZE",
		[NVME_RDMA_CM_INVALID_HRQSIZE] = "Invalid HRQSIZE",
		[NVME_RDMA_CM_NO_RESOURCES] = "No Resources",
		[NVME_RDMA_CM_INVALID_IRD] = "Invalid IRD",
		[NVME_RDMA_CM_INVALID_ORD] = "Invalid ORD",
		[NVME_RDMA_CM_INVALID_CNTLID] = "Invalid CNTLID",
	};

	return sts < sizeof(names) / sizeof(names[0]) && names[sts] ? names[sts] : "unknown reason";
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

size_t nvme_utf8_char_len(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 }; /* a shorter form is the right one below */
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
	uint32_t c = s[0] & (0xff >> (n + 1));

	if (n <= 1 || n > len)
		return n <= 1 ? n : 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

static bool is_utf8(const char *s, size_t len)
{
	for (size_t off = 0, n; off < len; off += n) {
		n = nvme_utf8_char_len(s + off, len - off);
		if (!n)
			return false;
	}
	return true;
}

bool nvme_nqn_is_valid(const char *nqn, size_t size)
{
	static const char form[] = "nqn.dddd-dd.";
	size_t len = strnlen(nqn, size);

	if (len == size || len < sizeof(form) || len > NVME_NQN_MAX_LEN)
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)nqn[i] < 0x20 || nqn[i] == 0x7f)
			return false;
	}
	for (size_t i = 0; i < sizeof(form) - 1; i++) {
		if (form[i] == 'd' ? !is_digit(nqn[i]) : nqn[i] != form[i])
			return false;
	}
	return is_utf8(nqn, len);
}
