/*
 * Fabrics: the data of Connect, NQNs, the controller's properties, discovery log entries.
 *
 * Source: NVM Express Base 2.0, 3.1.3 (properties), 4.5 (NQN), 5.16.1.23 (discovery log), 6.3 (Connect).
 */
#ifndef NVME_FABRICS_H
#define NVME_FABRICS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVME_NQN_FIELD_SIZE 256u /* a field, with its NUL and padding */
#define NVME_NQN_MAX_LEN    223u
#define NVME_DISCOVERY_NQN  "nqn.2014-08.org.nvmexpress.discovery"

#define NVME_CNTLID_DYNAMIC    0xffffu
#define NVME_CNTLID_STATIC_ANY 0xfffeu
#define NVME_CNTLID_MAX        0xffefu

struct nvme_connect_data {
	uint8_t hostid[16];
	uint16_t cntlid;
	uint8_t rsvd[238];
	char subnqn[NVME_NQN_FIELD_SIZE]; /* must hold a NUL: check before use */
	char hostnqn[NVME_NQN_FIELD_SIZE];
	uint8_t rsvd2[256];
};

static_assert(sizeof(struct nvme_connect_data) == 1024, "Connect data");
static_assert(offsetof(struct nvme_connect_data, cntlid) == 16, "CNTLID");
static_assert(offsetof(struct nvme_connect_data, subnqn) == 256, "SUBNQN");
static_assert(offsetof(struct nvme_connect_data, hostnqn) == 512, "HOSTNQN");

/**
 * nvme_nqn_is_valid - is this an NQN one may use as a name
 * @nqn:  not necessarily ended by a NUL
 * @size: bytes that may be read
 *
 * Asks for a NUL within @size, 1 to 223 bytes of printable characters before it, and "nqn." in front with a
 * date and a dot.
 */
bool nvme_nqn_is_valid(const char *nqn, size_t size);
/* The length of the character of UTF-8 at @text, of which at most len bytes (at least 1) may be read; 0: none is there. */
size_t nvme_utf8_char_len(const char *text, size_t len);

/* --- properties (Base 2.0, 3.1.3) ------------------------------------------------------------- */

enum nvme_property {
	NVME_PROP_CAP = 0x00, /* 8 bytes */
	NVME_PROP_VS = 0x08,
	NVME_PROP_INTMS = 0x0c,
	NVME_PROP_INTMC = 0x10,
	NVME_PROP_CC = 0x14,
	NVME_PROP_CSTS = 0x1c,
	NVME_PROP_NSSR = 0x20,
	NVME_PROP_AQA = 0x24, /* from here on of PCIe alone, but for CRTO */
	NVME_PROP_ASQ = 0x28, /* 8 bytes */
	NVME_PROP_ACQ = 0x30, /* 8 bytes */
	NVME_PROP_CMBLOC = 0x38,
	NVME_PROP_CMBSZ = 0x3c,
	NVME_PROP_CMBMSC = 0x50, /* 8 bytes */
	NVME_PROP_CMBSTS = 0x58,
	NVME_PROP_CRTO = 0x68,
};

#define NVME_PROP_SIZE_4 0u /* property.attrib */
#define NVME_PROP_SIZE_8 1u

#define NVME_VS(major, minor, tertiary) ((uint32_t)(major) << 16 | (minor) << 8 | (tertiary))

/* CAP: shift and mask of each field */
#define NVME_CAP_MQES(cap)    ((cap)&0xffff) /* 0's based */
#define NVME_CAP_CQR          (1ull << 16)
#define NVME_CAP_TO(cap)      (((cap) >> 24) & 0xff) /* in 500 ms */
#define NVME_CAP_TO_SHIFT     24
#define NVME_CAP_DSTRD(cap)   (((cap) >> 32) & 0xf) /* doorbells are 4 << this apart */
#define NVME_CAP_DSTRD_SHIFT  32
#define NVME_CAP_NSSRS        (1ull << 36)
#define NVME_CAP_CSS_NVM      (1ull << 37)
#define NVME_CAP_CSS_IOCSS    (1ull << 43) /* I/O command sets named by CNS 1Ch */
#define NVME_CAP_MPSMIN_SHIFT 48
#define NVME_CAP_MPSMAX_SHIFT 52
#define NVME_CAP_CMBS         (1ull << 57) /* the buffer's addresses are given by CMBMSC */
#define NVME_CAP_CRWMS        (1ull << 59)
#define NVME_CAP_CRIMS        (1ull << 60)

#define NVME_CMBLOC_BIR(loc)  ((loc)&7)
#define NVME_CMBLOC_OFST(loc) ((loc) >> 12) /* in units of CMBSZ.SZU */
#define NVME_CMBSZ_SQS	      (1u << 0)	    /* submission queues may be in it */
#define NVME_CMBSZ_SZU(size)  (((size) >> 8) & 0xf) /* units of 4 KiB << 4 times this */
#define NVME_CMBSZ_SZ(size)   ((size) >> 12)
#define NVME_CMBMSC_CRE	      (1ull << 0) /* CMBLOC and CMBSZ are shown */
#define NVME_CMBMSC_CMSE      (1ull << 1) /* and the addresses from CBA on mean it */
#define NVME_CMBMSC_CBA_MASK  (~4095ull)
#define NVME_CMBSTS_CBAI      (1u << 0) /* that CBA will not do */

#define NVME_CC_EN           0x1u
#define NVME_CC_CSS(cc)      (((cc) >> 4) & 0x7)
#define NVME_CC_CSS_NVM      0u
#define NVME_CC_CSS_ALL      6u
#define NVME_CC_CSS_SHIFT    4
#define NVME_CC_MPS(cc)      (((cc) >> 7) & 0xf)
#define NVME_CC_AMS(cc)      (((cc) >> 11) & 0x7)
#define NVME_CC_SHN(cc)      (((cc) >> 14) & 0x3)
#define NVME_CC_SHN_NONE     0u
#define NVME_CC_SHN_NORMAL   1u
#define NVME_CC_SHN_ABRUPT   2u
#define NVME_CC_SHN_SHIFT    14
#define NVME_CC_IOSQES(cc)   (((cc) >> 16) & 0xf)
#define NVME_CC_IOSQES_SHIFT 16
#define NVME_CC_IOCQES(cc)   (((cc) >> 20) & 0xf)
#define NVME_CC_IOCQES_SHIFT 20
#define NVME_CC_CRIME        (1u << 24)

#define NVME_CSTS_RDY            0x1u
#define NVME_CSTS_CFS            0x2u
#define NVME_CSTS_SHST(csts)     (((csts) >> 2) & 0x3)
#define NVME_CSTS_SHST_SHIFT     2
#define NVME_CSTS_SHST_NORMAL    0u
#define NVME_CSTS_SHST_OCCURRING 1u
#define NVME_CSTS_SHST_COMPLETE  2u
#define NVME_CSTS_NSSRO          0x10u

#define NVME_CRTO_CRWMT(crto) ((crto)&0xffff) /* in 500 ms */
#define NVME_CRTO_CRIMT(crto) ((crto) >> 16)

/* --- discovery log page 70h (Base 2.0, 5.16.1.23) --------------------------------------------- */

/* PCIe has no number on the wire. */
enum nvme_trtype { NVME_TRTYPE_PCIE = 256, NVME_TRTYPE_RDMA = 1, NVME_TRTYPE_FC = 2, NVME_TRTYPE_TCP = 3, NVME_TRTYPE_LOOP = 254 };
enum nvme_adrfam { NVME_ADRFAM_IPV4 = 1, NVME_ADRFAM_IPV6 = 2, NVME_ADRFAM_IB = 3, NVME_ADRFAM_FC = 4 };
enum nvme_subtype { NVME_SUBTYPE_REFERRAL = 1, NVME_SUBTYPE_NVM = 2, NVME_SUBTYPE_DISCOVERY = 3 };

#define NVME_TREQ_SECURE_NOT_SPECIFIED 0u
#define NVME_TREQ_SECURE_REQUIRED      1u
#define NVME_TREQ_SECURE_NOT_REQUIRED  2u
#define NVME_TREQ_NO_SQ_FLOW_CONTROL   4u /* the target can do without */
#define NVME_EFLAGS_DUPRETINFO         0x1u
#define NVME_EFLAGS_EPCSD              0x2u /* explicit persistent connections */
#define NVME_EFLAGS_NCC                0x4u
#define NVME_TCP_SECTYPE_NONE          0u
#define NVME_TCP_SECTYPE_TLS12         1u
#define NVME_TCP_SECTYPE_TLS13         2u
#define NVME_ASQSZ_MIN                 32u

struct nvme_discovery_entry {
	uint8_t trtype;
	uint8_t adrfam;
	uint8_t subtype;
	uint8_t treq;
	uint16_t portid;
	uint16_t cntlid;
	uint16_t asqsz;
	uint16_t eflags;
	uint8_t rsvd[20];
	char trsvcid[32]; /* ASCII; padded with spaces, or by many targets with NULs */
	uint8_t rsvd2[192];
	char subnqn[NVME_NQN_FIELD_SIZE];
	char traddr[256];
	union {
		uint8_t tsas[256];
		struct {
			uint8_t sectype;
		} tcp;
		struct {
			uint8_t qptype, prtype, cms;
			uint8_t rsvd[5];
			uint16_t pkey;
		} rdma;
	};
};

static_assert(sizeof(struct nvme_discovery_entry) == 1024, "discovery log entry");
static_assert(offsetof(struct nvme_discovery_entry, trsvcid) == 32, "TRSVCID");
static_assert(offsetof(struct nvme_discovery_entry, subnqn) == 256, "SUBNQN of an entry");
static_assert(offsetof(struct nvme_discovery_entry, traddr) == 512, "TRADDR");
static_assert(offsetof(struct nvme_discovery_entry, tsas) == 768, "TSAS");

struct nvme_discovery_log {
	uint64_t genctr;
	uint64_t numrec;
	uint16_t recfmt;
	uint8_t rsvd[1006];
	struct nvme_discovery_entry entries[];
};

static_assert(sizeof(struct nvme_discovery_log) == 1024, "discovery log header");

/* get_log.lsp of page 70h */
#define NVME_DISCOVERY_LSP_EXTDLPE 0x1u
#define NVME_DISCOVERY_LSP_PLEO    0x2u
#define NVME_DISCOVERY_LSP_ALLSUBE 0x4u

#endif
