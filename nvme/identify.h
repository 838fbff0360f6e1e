/*
 * Identify's data structures.
 *
 * Source: NVM Express Base 2.0, 5.17; NVM Command Set 1.0, 4.1.5.
 */
#ifndef NVME_IDENTIFY_H
#define NVME_IDENTIFY_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum nvme_cns {
	NVME_CNS_NS = 0x00,
	NVME_CNS_CTRLR = 0x01,
	NVME_CNS_ACTIVE_NS_LIST = 0x02,
	NVME_CNS_NS_ID_DESCRIPTORS = 0x03,
	NVME_CNS_IOCS_NS = 0x05,
	NVME_CNS_IOCS_CTRLR = 0x06,
	NVME_CNS_IOCS_ACTIVE_NS_LIST = 0x07,
	NVME_CNS_IOCS_INDEPENDENT_NS = 0x08,
	NVME_CNS_ALLOCATED_NS_LIST = 0x10,
	NVME_CNS_ALLOCATED_NS = 0x11,
	NVME_CNS_NS_CTRLR_LIST = 0x12,
	NVME_CNS_CTRLR_LIST = 0x13,
	NVME_CNS_IOCS_VECTORS = 0x1c,
};

#define NVME_CSI_NVM       0u
#define NVME_IDENTIFY_SIZE 4096u

struct nvme_power_state {
	uint16_t mp;
	uint8_t rsvd;
	uint8_t flags;
	uint32_t enlat_us, exlat_us;
	uint8_t rrt, rrl, rwt, rwl;
	uint16_t idlp;
	uint8_t ips, rsvd2;
	uint16_t actp;
	uint8_t apws;
	uint8_t rsvd3[9];
};

static_assert(sizeof(struct nvme_power_state) == 32, "power state descriptor");

/* CNS 01h */
struct nvme_id_ctrlr {
	uint16_t vid, ssvid;
	char sn[20]; /* ASCII, padded with spaces */
	char mn[40];
	char fr[8];
	uint8_t rab;
	uint8_t ieee[3];
	uint8_t cmic;
	uint8_t mdts; /* power of two, in CAP.MPSMIN pages; 0: no limit */
	uint16_t cntlid;
	uint32_t ver;
	uint32_t rtd3r, rtd3e;
	uint32_t oaes;
	uint32_t ctratt;
	uint16_t rrls;
	uint8_t rsvd102[9];
	uint8_t cntrltype;
	uint8_t fguid[16];
	uint16_t crdt[3];
	uint8_t rsvd134[119];
	uint8_t nvmsr, vwci, mec;
	uint16_t oacs;
	uint8_t acl;  /* 0's based */
	uint8_t aerl; /* 0's based */
	uint8_t frmw;
	uint8_t lpa;
	uint8_t elpe; /* 0's based */
	uint8_t npss;
	uint8_t avscc, apsta;
	uint16_t wctemp_k, cctemp_k;
	uint16_t mtfa;
	uint32_t hmpre, hmmin;
	uint8_t tnvmcap[16], unvmcap[16];
	uint32_t rpmbs;
	uint16_t edstt;
	uint8_t dsto, fwug;
	uint16_t kas; /* in 100 ms */
	uint16_t hctma, mntmt, mxtmt;
	uint32_t sanicap;
	uint32_t hmminds;
	uint16_t hmmaxd;
	uint16_t nsetidmax, endgidmax;
	uint8_t anatt, anacap;
	uint32_t anagrpmax, nanagrpid;
	uint32_t pels;
	uint16_t domainid;
	uint8_t rsvd358[10];
	uint8_t megcap[16];
	uint8_t rsvd384[128];
	uint8_t sqes, cqes;
	uint16_t maxcmd;
	uint32_t nn;
	uint16_t oncs;
	uint16_t fuses;
	uint8_t fna;
	uint8_t vwc;
	uint16_t awun, awupf; /* 0's based */
	uint8_t icsvscc, nwpc;
	uint16_t acwu; /* 0's based */
	uint16_t cdfs;
	uint32_t sgls;
	uint32_t mnan;
	uint8_t maxdna[16];
	uint32_t maxcna;
	uint8_t rsvd564[204];
	char subnqn[256];
	uint8_t rsvd1024[768];
	uint32_t ioccsz, iorcsz; /* in 16 bytes */
	uint16_t icdoff;
	uint8_t fcatt;
	uint8_t msdbd;
	uint16_t ofcs;
	uint8_t rsvd1806[242];
	struct nvme_power_state psd[32];
	uint8_t vs[1024];
};

static_assert(sizeof(struct nvme_id_ctrlr) == 4096, "Identify Controller");
static_assert(offsetof(struct nvme_id_ctrlr, cntlid) == 78, "CNTLID");
static_assert(offsetof(struct nvme_id_ctrlr, oaes) == 92, "OAES");
static_assert(offsetof(struct nvme_id_ctrlr, cntrltype) == 111, "CNTRLTYPE");
static_assert(offsetof(struct nvme_id_ctrlr, oacs) == 256, "OACS");
static_assert(offsetof(struct nvme_id_ctrlr, wctemp_k) == 266, "WCTEMP");
static_assert(offsetof(struct nvme_id_ctrlr, tnvmcap) == 280, "TNVMCAP");
static_assert(offsetof(struct nvme_id_ctrlr, kas) == 320, "KAS");
static_assert(offsetof(struct nvme_id_ctrlr, anatt) == 342, "ANATT");
static_assert(offsetof(struct nvme_id_ctrlr, anagrpmax) == 344, "ANAGRPMAX");
static_assert(offsetof(struct nvme_id_ctrlr, sqes) == 512, "SQES");
static_assert(offsetof(struct nvme_id_ctrlr, nn) == 516, "NN");
static_assert(offsetof(struct nvme_id_ctrlr, vwc) == 525, "VWC");
static_assert(offsetof(struct nvme_id_ctrlr, sgls) == 536, "SGLS");
static_assert(offsetof(struct nvme_id_ctrlr, subnqn) == 768, "SUBNQN");
static_assert(offsetof(struct nvme_id_ctrlr, ioccsz) == 1792, "IOCCSZ");
static_assert(offsetof(struct nvme_id_ctrlr, ofcs) == 1804, "OFCS");
static_assert(offsetof(struct nvme_id_ctrlr, psd) == 2048, "PSD");

#define NVME_CMIC_MULTI_PORT          0x1u
#define NVME_CMIC_MULTI_CTRLR         0x2u
#define NVME_CMIC_ANA                 0x8u
#define NVME_OAES_NS_ATTR             (1u << 8)
#define NVME_OAES_ANA                 (1u << 11)
#define NVME_OAES_DISCOVERY           (1u << 31)
#define NVME_CTRATT_HIDS              0x1u  /* 128-bit host identifiers */
#define NVME_CTRATT_TBKAS             0x40u /* traffic based keep alive */
#define NVME_CNTRLTYPE_IO             1u
#define NVME_CNTRLTYPE_DISCOVERY      2u
#define NVME_OACS_FORMAT              0x2u
#define NVME_OACS_NS_MANAGEMENT       0x8u
#define NVME_OACS_DOORBELL_BUFFER     0x100u
#define NVME_LPA_SMART_NS             0x1u
#define NVME_LPA_EFFECTS              0x2u
#define NVME_LPA_EXTENDED             0x4u  /* offsets and NUMDU */
#define NVME_LPA_SUPPORTED            0x20u /* pages 00h, 12h, 13h */
#define NVME_ONCS_COMPARE             0x1u
#define NVME_ONCS_WRITE_UNCORRECTABLE 0x2u
#define NVME_ONCS_DSM                 0x4u
#define NVME_ONCS_WRITE_ZEROES        0x8u
#define NVME_ONCS_SAVE                0x10u
#define NVME_ONCS_RESERVATIONS        0x20u
#define NVME_ONCS_TIMESTAMP           0x40u
#define NVME_ONCS_VERIFY              0x80u
#define NVME_ONCS_COPY                0x100u
#define NVME_FUSES_COMPARE_AND_WRITE  0x1u
#define NVME_VWC_PRESENT              0x1u
#define NVME_VWC_FLUSH_ALL_NO         0x4u /* bits 2:1: Flush with NSID FFFFFFFFh is not supported */
#define NVME_VWC_FLUSH_ALL_YES        0x6u /* it is */
#define NVME_SGLS_SUPPORTED           0x1u
#define NVME_SGLS_DWORD               0x2u /* instead: supported, and aligned to four bytes */
#define NVME_SGLS_KEYED               (1u << 2)
#define NVME_SGLS_OFFSET              (1u << 20)
#define NVME_SGLS_TRANSPORT           (1u << 21)
#define NVME_OFCS_DISCONNECT          0x1u
#define NVME_CDFS_FORMAT_0            0x1u /* Copy takes source ranges in format 0h */

struct nvme_lba_format {
	uint16_t ms;
	uint8_t lbads; /* power of two */
	uint8_t rp;
};

/* CNS 00h */
struct nvme_id_ns {
	uint64_t nsze, ncap, nuse; /* logical blocks */
	uint8_t nsfeat;
	uint8_t nlbaf; /* 0's based */
	uint8_t flbas;
	uint8_t mc, dpc, dps;
	uint8_t nmic;
	uint8_t rescap;
	uint8_t fpi;
	uint8_t dlfeat;
	uint16_t nawun, nawupf, nacwu; /* 0's based */
	uint16_t nabsn, nabo, nabspf;
	uint16_t noiob;
	uint8_t nvmcap[16];
	uint16_t npwg, npwa, npdg, npda, nows; /* 0's based */
	uint16_t mssrl;
	uint32_t mcl;
	uint8_t msrc;
	uint8_t rsvd81[11];
	uint32_t anagrpid;
	uint8_t rsvd96[3];
	uint8_t nsattr;
	uint16_t nvmsetid, endgid;
	uint8_t nguid[16];
	uint8_t eui64[8];
	struct nvme_lba_format lbaf[64];
	uint8_t vs[3712];
};

static_assert(sizeof(struct nvme_id_ns) == 4096, "Identify Namespace");
static_assert(offsetof(struct nvme_id_ns, nmic) == 30, "NMIC");
static_assert(offsetof(struct nvme_id_ns, dlfeat) == 33, "DLFEAT");
static_assert(offsetof(struct nvme_id_ns, nvmcap) == 48, "NVMCAP");
static_assert(offsetof(struct nvme_id_ns, npwg) == 64, "NPWG");
static_assert(offsetof(struct nvme_id_ns, anagrpid) == 92, "ANAGRPID");
static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "NGUID");
static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "LBAF");

#define NVME_NSFEAT_THIN            0x1u
#define NVME_NSFEAT_NSABP           0x2u  /* NAWUN, NAWUPF, NACWU are defined */
#define NVME_NSFEAT_DAE             0x4u  /* deallocated blocks' errors */
#define NVME_NSFEAT_UIDREUSE        0x8u  /* NGUID and EUI64 are never used again */
#define NVME_NSFEAT_OPTPERF         0x10u /* NPWG … NOWS are defined */
#define NVME_NMIC_SHARED            0x1u
#define NVME_FLBAS_INDEX(flbas)     (((flbas)&0xf) | (((flbas) >> 1) & 0x30))
#define NVME_DLFEAT_READ_ZERO       0x1u /* bits 2:0: deallocated blocks read zero */
#define NVME_DLFEAT_WZ_DEAC         0x8u /* Write Zeroes takes DEAC */
#define NVME_NSATTR_WRITE_PROTECTED 0x1u

/* CNS 03h: a list of these, ended by length 0 or the end of the page */
struct nvme_ns_id_descriptor {
	uint8_t nidt;
	uint8_t nidl;
	uint16_t rsvd;
	uint8_t nid[];
};

static_assert(sizeof(struct nvme_ns_id_descriptor) == 4, "namespace identification descriptor");

#define NVME_NIDT_EUI64 1u
#define NVME_NIDT_NGUID 2u
#define NVME_NIDT_UUID  3u
#define NVME_NIDT_CSI   4u

/* CNS 02h, 07h, and log page 04h */
struct nvme_ns_list {
	uint32_t nsid[1024];
};

static_assert(sizeof(struct nvme_ns_list) == 4096, "namespace list");

/* CNS 05h, CSI 0 */
struct nvme_id_ns_nvm {
	uint64_t lbstm;
	uint8_t pic;
	uint8_t rsvd9[3];
	uint32_t elbaf[64];
	uint8_t rsvd268[3828];
};

static_assert(sizeof(struct nvme_id_ns_nvm) == 4096, "NVM command set Identify Namespace");
static_assert(offsetof(struct nvme_id_ns_nvm, elbaf) == 12, "ELBAF");

/* CNS 06h, CSI 0 */
struct nvme_id_ctrlr_nvm {
	uint8_t vsl, wzsl, wusl; /* powers of two, in CAP.MPSMIN pages; 0: no limit */
	uint8_t dmrl;            /* ranges */
	uint32_t dmrsl;          /* blocks in a range */
	uint64_t dmsl;           /* blocks in all */
	uint8_t rsvd16[4080];
};

static_assert(sizeof(struct nvme_id_ctrlr_nvm) == 4096, "NVM command set Identify Controller");
static_assert(offsetof(struct nvme_id_ctrlr_nvm, dmsl) == 8, "DMSL");

/* CNS 08h */
struct nvme_id_ns_independent {
	uint8_t nsfeat; /* bit 3: UIDREUSE as in nvme_id_ns */
	uint8_t nmic;
	uint8_t rescap;
	uint8_t fpi;
	uint32_t anagrpid;
	uint8_t nsattr;
	uint8_t rsvd9;
	uint16_t nvmsetid;
	uint16_t endgid;
	uint8_t nstat;
	uint8_t rsvd15[4081];
};

static_assert(sizeof(struct nvme_id_ns_independent) == 4096,
	      "I/O command set independent Identify Namespace");
static_assert(offsetof(struct nvme_id_ns_independent, anagrpid) == 4, "ANAGRPID");
static_assert(offsetof(struct nvme_id_ns_independent, nstat) == 14, "NSTAT");

#define NVME_NSTAT_READY 0x1u

/* CNS 1Ch: bit n of a vector: command set n */
struct nvme_id_iocs {
	uint64_t vector[512];
};

static_assert(sizeof(struct nvme_id_iocs) == 4096, "I/O command set data");

#endif
