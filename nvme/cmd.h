/*
 * Submission and completion queue entries, SGL descriptors, and opcodes.  All of it is little endian on the
 * wire, and so are the machines that Ferrule runs on: fields are used as they are.
 *
 * Source: NVM Express Base 2.0, 3.3.3 (entries), 4.1 (SGLs), 5 (admin), 6 (fabrics); NVM Command Set 1.0, 3.
 */
#ifndef NVME_CMD_H
#define NVME_CMD_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme/status.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire structures are used in place");

#define NVME_NSID_ALL 0xffffffffu

/* --- opcodes ---------------------------------------------------------------------------------- */

/* Bits 1:0 of an opcode, and of a fabrics command type, say which way its data goes (Base 2.0, figure 87). */
#define NVME_XFER_NONE           0u
#define NVME_XFER_TO_CTRLR       1u
#define NVME_XFER_TO_HOST        2u
#define NVME_XFER_BOTH           3u
#define nvme_opcode_xfer(opcode) ((opcode)&3u)

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_IO_SQ = 0x00,
	NVME_ADMIN_CREATE_IO_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_IO_CQ = 0x04,
	NVME_ADMIN_CREATE_IO_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_AER = 0x0c,
	NVME_ADMIN_NS_MANAGEMENT = 0x0d,
	NVME_ADMIN_FIRMWARE_COMMIT = 0x10,
	NVME_ADMIN_FIRMWARE_DOWNLOAD = 0x11,
	NVME_ADMIN_SELF_TEST = 0x14,
	NVME_ADMIN_NS_ATTACHMENT = 0x15,
	NVME_ADMIN_KEEP_ALIVE = 0x18,
	NVME_ADMIN_DIRECTIVE_SEND = 0x19,
	NVME_ADMIN_DIRECTIVE_RECEIVE = 0x1a,
	NVME_ADMIN_VIRTUALIZATION = 0x1c,
	NVME_ADMIN_MI_SEND = 0x1d,
	NVME_ADMIN_MI_RECEIVE = 0x1e,
	NVME_ADMIN_DOORBELL_BUFFER = 0x7c,
	NVME_OPC_FABRICS = 0x7f, /* on admin and I/O queues */
	NVME_ADMIN_FORMAT_NVM = 0x80,
	NVME_ADMIN_SECURITY_SEND = 0x81,
	NVME_ADMIN_SECURITY_RECEIVE = 0x82,
	NVME_ADMIN_SANITIZE = 0x84,
};

enum nvme_io_opcode {
	NVME_IO_FLUSH = 0x00,
	NVME_IO_WRITE = 0x01,
	NVME_IO_READ = 0x02,
	NVME_IO_WRITE_UNCORRECTABLE = 0x04,
	NVME_IO_COMPARE = 0x05,
	NVME_IO_WRITE_ZEROES = 0x08,
	NVME_IO_DSM = 0x09,
	NVME_IO_VERIFY = 0x0c,
	NVME_IO_RESERVATION_REGISTER = 0x0d,
	NVME_IO_RESERVATION_REPORT = 0x0e,
	NVME_IO_RESERVATION_ACQUIRE = 0x11,
	NVME_IO_RESERVATION_RELEASE = 0x15,
	NVME_IO_COPY = 0x19,
};

enum nvme_fctype {
	NVME_FCTYPE_PROPERTY_SET = 0x00,
	NVME_FCTYPE_CONNECT = 0x01,
	NVME_FCTYPE_PROPERTY_GET = 0x04,
	NVME_FCTYPE_AUTH_SEND = 0x05,
	NVME_FCTYPE_AUTH_RECEIVE = 0x06,
	NVME_FCTYPE_DISCONNECT = 0x08,
};

const char *nvme_admin_opcode_name(uint8_t opcode); /* never NULL */
const char *nvme_io_opcode_name(uint8_t opcode);

/* --- SGL descriptors (Base 2.0, 4.1.2) -------------------------------------------------------- */

struct nvme_sgl {
	uint64_t addr; /* an offset when the subtype says so */
	uint32_t len;
	uint8_t rsvd[3];
	uint8_t type; /* type << 4 | subtype */
};

static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");
static_assert(offsetof(struct nvme_sgl, type) == 15, "SGL descriptor type");

#define NVME_SGL_DATA_BLOCK           0x0u
#define NVME_SGL_BIT_BUCKET           0x1u
#define NVME_SGL_SEGMENT              0x2u
#define NVME_SGL_LAST_SEGMENT         0x3u
#define NVME_SGL_KEYED_DATA_BLOCK     0x4u
#define NVME_SGL_TRANSPORT_DATA_BLOCK 0x5u
#define NVME_SGL_SUB_ADDRESS          0x0u
#define NVME_SGL_SUB_OFFSET           0x1u
#define NVME_SGL_SUB_TRANSPORT        0xau
#define NVME_SGL_SUB_INVALIDATE_KEY   0xfu

#define NVME_SGL_TYPE(type, subtype) ((uint8_t)((type) << 4 | (subtype)))
#define NVME_SGL_IN_CAPSULE          NVME_SGL_TYPE(NVME_SGL_DATA_BLOCK, NVME_SGL_SUB_OFFSET) /* 01h */
#define NVME_SGL_TRANSPORT           NVME_SGL_TYPE(NVME_SGL_TRANSPORT_DATA_BLOCK, NVME_SGL_SUB_TRANSPORT) /* 5Ah */

#define NVME_SGL_KEYED               NVME_SGL_TYPE(NVME_SGL_KEYED_DATA_BLOCK, NVME_SGL_SUB_ADDRESS) /* 40h */
#define NVME_SGL_KEYED_INVALIDATE    NVME_SGL_TYPE(NVME_SGL_KEYED_DATA_BLOCK, NVME_SGL_SUB_INVALIDATE_KEY) /* 4Fh */
#define NVME_SGL_LIST_IN_CAPSULE     NVME_SGL_TYPE(NVME_SGL_LAST_SEGMENT, NVME_SGL_SUB_OFFSET) /* 31h */

/* Keyed SGL Data Block descriptor: memory of the host, by its RDMA key. */
struct nvme_keyed_sgl {
	uint64_t addr;
	uint8_t len[3];
	uint8_t key[4];
	uint8_t type;
};

static_assert(sizeof(struct nvme_keyed_sgl) == sizeof(struct nvme_sgl), "keyed SGL descriptor");

#define NVME_KEYED_SGL_MAX_LEN 0xffffffu

static inline uint32_t nvme_keyed_sgl_len(const struct nvme_keyed_sgl *sgl)
{
	return sgl->len[0] | (uint32_t)sgl->len[1] << 8 | (uint32_t)sgl->len[2] << 16;
}

static inline uint32_t nvme_keyed_sgl_key(const struct nvme_keyed_sgl *sgl)
{
	return sgl->key[0] | (uint32_t)sgl->key[1] << 8 | (uint32_t)sgl->key[2] << 16 | (uint32_t)sgl->key[3] << 24;
}

static inline void nvme_keyed_sgl_set(struct nvme_keyed_sgl *sgl, uint64_t addr, uint32_t len, uint32_t key, uint8_t type)
{
	sgl->addr = addr;
	for (unsigned i = 0; i < 3; i++)
		sgl->len[i] = (uint8_t)(len >> (8 * i));
	for (unsigned i = 0; i < 4; i++)
		sgl->key[i] = (uint8_t)(key >> (8 * i));
	sgl->type = type;
}

/* --- submission queue entry (Base 2.0, 3.3.3.1) ----------------------------------------------- */

#define NVME_CMD_FUSE_MASK   0x03u /* of flags */
#define NVME_CMD_FUSE_FIRST  0x01u
#define NVME_CMD_FUSE_SECOND 0x02u
#define NVME_CMD_PSDT_MASK   0xc0u
#define NVME_CMD_PSDT_SGL    0x40u /* 01b: SGLs, metadata contiguous; the one for fabrics */

/* rw.control */
#define NVME_RW_LR          0x8000u
#define NVME_RW_FUA         0x4000u
#define NVME_RW_PRINFO_MASK 0x3c00u
#define NVME_RW_DEAC        0x0200u /* Write Zeroes: deallocate */
#define NVME_RW_STC         0x0100u

#define NVME_DSM_AD         0x4u /* dsm.attributes: deallocate */
#define NVME_DSM_MAX_RANGES 256u

#define NVME_QUEUE_CONTIGUOUS 0x1u /* queue.flags */
#define NVME_QUEUE_INTERRUPT  0x2u /* of a completion queue */

#define NVME_LOG_RAE      0x80u /* get_log.lsp */
#define NVME_LOG_LSP_MASK 0x7fu

#define NVME_FEATURE_SAVE      0x80000000u /* cdw10 of Set Features */
#define NVME_FEATURE_SEL_SHIFT 8           /* cdw10 of Get Features, three bits */
#define NVME_FEATURE_SEL_MASK  0x7u

/* connect.cattr */
#define NVME_CONNECT_NO_SQ_FLOW_CONTROL 0x04u

#define NVME_CMD_HEAD   \
	uint8_t opcode; \
	uint8_t flags;  \
	uint16_t cid

union nvme_cmd {
	/* any command */
	struct {
		NVME_CMD_HEAD;
		uint32_t nsid;
		uint32_t cdw2, cdw3;
		uint64_t mptr;
		union {
			struct nvme_sgl sgl;
			struct nvme_keyed_sgl keyed_sgl;
			struct {
				uint64_t prp1, prp2;
			};
		};
		uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
	};
	/* Read, Write, Compare, Write Zeroes, Verify */
	struct {
		uint8_t head[40];
		uint64_t slba;
		uint16_t nlb; /* 0's based */
		uint16_t control;
		uint32_t dsmgmt;
		uint32_t reftag;
		uint16_t apptag, appmask;
	} rw;
	struct {
		uint8_t head[40];
		uint8_t nr; /* 0's based */
		uint8_t rsvd[3];
		uint32_t attributes;
	} dsm;
	struct {
		uint8_t head[40];
		uint64_t sdlba;
		uint8_t nr;	/* 0's based */
		uint8_t format; /* bits 3:0; above them PRINFOR */
		uint16_t control; /* as rw.control */
		uint32_t dsmgmt;
		uint32_t reftag;
		uint16_t apptag, appmask;
	} copy;
	struct {
		uint8_t head[40];
		uint8_t cns;
		uint8_t rsvd;
		uint16_t cntid;
		uint16_t cnssid;
		uint8_t rsvd2;
		uint8_t csi;
		uint32_t rsvd3[2];
		uint32_t uuid_idx;
	} identify;
	struct {
		uint8_t head[40];
		uint8_t lid;
		uint8_t lsp; /* bit 7: RAE */
		uint16_t numdl;
		uint16_t numdu; /* number of dwords, 0's based, in two halves */
		uint16_t lsi;
		uint32_t lpol, lpou;
		uint8_t uuid_idx;
		uint8_t rsvd;
		uint8_t ot; /* bit 7: the offset is an index */
		uint8_t csi;
	} get_log;
	struct {
		uint8_t head[40];
		uint16_t sqid;
		uint16_t cid;
	} abort;
	/* Create I/O Completion and Submission Queue; Delete has the identifier alone */
	struct {
		uint8_t head[40];
		uint16_t qid;
		uint16_t qsize; /* 0's based */
		uint16_t flags; /* NVME_QUEUE_… */
		uint16_t vector_or_cqid;
	} queue;
	/* fabrics commands (opcode 7Fh; Base 2.0, 6): fctype stands where nsid does */
	struct {
		NVME_CMD_HEAD;
		uint8_t fctype;
		uint8_t rsvd[19];
		struct nvme_sgl sgl;
		uint8_t specific[24];
	} fabrics;
	struct {
		NVME_CMD_HEAD;
		uint8_t fctype;
		uint8_t rsvd[19];
		struct nvme_sgl sgl;
		uint16_t recfmt;
		uint16_t qid;
		uint16_t sqsize; /* 0's based */
		uint8_t cattr;
		uint8_t rsvd2;
		uint32_t kato_ms;
		uint8_t rsvd3[12];
	} connect;
	struct {
		NVME_CMD_HEAD;
		uint8_t fctype;
		uint8_t rsvd[35];
		uint8_t attrib; /* bits 2:0: 0 for 4 bytes, 1 for 8 */
		uint8_t rsvd2[3];
		uint32_t ofst;
		uint64_t value; /* Property Set */
		uint8_t rsvd3[8];
	} property;
	struct {
		NVME_CMD_HEAD;
		uint8_t fctype;
		uint8_t rsvd[35];
		uint16_t recfmt;
		uint8_t rsvd2[22];
	} disconnect;
	uint8_t bytes[64];
	uint32_t dwords[16];
	uint64_t qwords[8];
};

#undef NVME_CMD_HEAD

static_assert(sizeof(union nvme_cmd) == 64, "submission queue entry");
static_assert(offsetof(union nvme_cmd, nsid) == 4, "NSID");
static_assert(offsetof(union nvme_cmd, sgl) == 24, "DPTR");
static_assert(offsetof(union nvme_cmd, cdw10) == 40, "CDW10");
static_assert(offsetof(union nvme_cmd, rw.nlb) == 48, "NLB");
static_assert(offsetof(union nvme_cmd, dsm.attributes) == 44, "DSM attributes");
static_assert(offsetof(union nvme_cmd, copy.control) == offsetof(union nvme_cmd, rw.control), "Copy's control");
static_assert(offsetof(union nvme_cmd, copy.nr) == 48, "NR of Copy");
static_assert(offsetof(union nvme_cmd, identify.csi) == 47, "CSI");
static_assert(offsetof(union nvme_cmd, identify.uuid_idx) == 56, "UUID index");
static_assert(offsetof(union nvme_cmd, get_log.lpol) == 48, "LPOL");
static_assert(offsetof(union nvme_cmd, get_log.csi) == 59, "CSI of a log page");
static_assert(offsetof(union nvme_cmd, fabrics.fctype) == 4, "FCTYPE");
static_assert(offsetof(union nvme_cmd, fabrics.sgl) == 24, "SGL of a fabrics command");
static_assert(offsetof(union nvme_cmd, connect.recfmt) == 40, "RECFMT");
static_assert(offsetof(union nvme_cmd, connect.kato_ms) == 48, "KATO");
static_assert(offsetof(union nvme_cmd, property.attrib) == 40, "ATTRIB");
static_assert(offsetof(union nvme_cmd, property.value) == 48, "VALUE");

/* One range of Dataset Management (NVM Command Set 1.0, 3.2.3). */
struct nvme_dsm_range {
	uint32_t cattr;
	uint32_t nlb; /* not 0's based */
	uint64_t slba;
};

static_assert(sizeof(struct nvme_dsm_range) == 16, "DSM range");

/* One source range of Copy, descriptor format 0h (NVM Command Set 1.0, 3.2.2). */
struct nvme_copy_range {
	uint64_t rsvd;
	uint64_t slba;
	uint16_t nlb; /* 0's based */
	uint8_t rsvd18[6];
	uint32_t reftag;
	uint16_t apptag, appmask;
};

static_assert(sizeof(struct nvme_copy_range) == 32, "source range of Copy");
static_assert(offsetof(struct nvme_copy_range, nlb) == 16, "NLB of a source range");

/* Bytes that a Get Log Page asks for, and where they begin.  The length may be up to 16 GiB: check it. */
static inline uint64_t nvme_get_log_len_bytes(const union nvme_cmd *cmd)
{
	return ((uint64_t)((uint32_t)cmd->get_log.numdu << 16 | cmd->get_log.numdl) + 1) * 4;
}

static inline uint64_t nvme_get_log_offset_bytes(const union nvme_cmd *cmd)
{
	return (uint64_t)cmd->get_log.lpou << 32 | cmd->get_log.lpol;
}

/* --- completion queue entry (Base 2.0, 3.3.3.2) ----------------------------------------------- */

struct nvme_cqe {
	union {
		struct {
			uint32_t dw0, dw1;
		};
		uint64_t result;
		struct {
			uint16_t cntlid; /* Connect's response */
			uint16_t authreq;
		} connect;
		struct {               /* Connect Invalid Parameters */
			uint16_t ipo;  /* offset of the field that is wrong */
			uint8_t iattr; /* 0: in the command, 1: in the data */
			uint8_t rsvd;
		} connect_invalid;
	};
	uint16_t sqhd;
	uint16_t sqid; /* reserved in fabrics */
	uint16_t cid;
	uint16_t status_field; /* phase in bit 0, zero in fabrics; the status above it */
};

static_assert(sizeof(struct nvme_cqe) == 16, "completion queue entry");
static_assert(offsetof(struct nvme_cqe, sqhd) == 8, "SQHD");
static_assert(offsetof(struct nvme_cqe, cid) == 12, "CID");
static_assert(offsetof(struct nvme_cqe, status_field) == 14, "status field");

static inline void nvme_cqe_set_status(struct nvme_cqe *cqe, uint16_t status)
{
	cqe->status_field = (uint16_t)(status << 1);
}

/* With its flag bits; nvme_status_code() takes them off. */
static inline uint16_t nvme_cqe_status(const struct nvme_cqe *cqe)
{
	return cqe->status_field >> 1;
}

#endif
