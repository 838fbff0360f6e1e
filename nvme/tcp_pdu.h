/*
 * NVMe/TCP protocol data units.
 *
 * Source: NVM Express TCP Transport 1.0, 3.6 "Transport Specific Content: PDUs".
 */
#ifndef NVME_TCP_PDU_H
#define NVME_TCP_PDU_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme/cmd.h"

enum nvme_tcp_pdu_type {
	NVME_TCP_IC_REQ = 0x00,
	NVME_TCP_IC_RESP = 0x01,
	NVME_TCP_H2C_TERM_REQ = 0x02,
	NVME_TCP_C2H_TERM_REQ = 0x03,
	NVME_TCP_CAPSULE_CMD = 0x04,
	NVME_TCP_CAPSULE_RESP = 0x05,
	NVME_TCP_H2C_DATA = 0x06,
	NVME_TCP_C2H_DATA = 0x07,
	NVME_TCP_R2T = 0x09,
};

#define NVME_TCP_FLAG_HDGST   0x01u
#define NVME_TCP_FLAG_DDGST   0x02u
#define NVME_TCP_FLAG_LAST    0x04u /* H2CData, C2HData */
#define NVME_TCP_FLAG_SUCCESS 0x08u /* C2HData: stands for a successful response */

#define NVME_TCP_DIGEST_SIZE        4u
#define NVME_TCP_PDA_MAX            31u /* HPDA, CPDA: 0's based dwords */
#define NVME_TCP_MIN_MAXH2CDATA     4096u
#define NVME_TCP_ADMIN_CAPSULE_DATA 8192u /* in-capsule data that admin and fabrics commands may have */
#define NVME_TCP_TERM_MAX_DATA \
	128u /* the header of the PDU that was wrong, up to 128 bytes: 152 bytes in all */
#define NVME_TCP_PORT           4420u
#define NVME_TCP_DISCOVERY_PORT 8009u

struct nvme_tcp_hdr {
	uint8_t type;
	uint8_t flags;
	uint8_t hlen;  /* bytes of header, without its digest */
	uint8_t pdo;   /* offset of data, from the beginning of the PDU */
	uint32_t plen; /* of the PDU, with digests */
};

static_assert(sizeof(struct nvme_tcp_hdr) == 8, "common header");

#define NVME_TCP_DGST_HEADER 0x1u
#define NVME_TCP_DGST_DATA   0x2u

struct nvme_tcp_ic_req {
	struct nvme_tcp_hdr hdr;
	uint16_t pfv; /* 0 */
	uint8_t hpda;
	uint8_t dgst;
	uint32_t maxr2t; /* 0's based */
	uint8_t rsvd[112];
};

static_assert(sizeof(struct nvme_tcp_ic_req) == 128, "ICReq");
static_assert(offsetof(struct nvme_tcp_ic_req, maxr2t) == 12, "MAXR2T");

struct nvme_tcp_ic_resp {
	struct nvme_tcp_hdr hdr;
	uint16_t pfv;
	uint8_t cpda;
	uint8_t dgst;
	uint32_t maxh2cdata; /* bytes, a multiple of 4, at least 4096 */
	uint8_t rsvd[112];
};

static_assert(sizeof(struct nvme_tcp_ic_resp) == 128, "ICResp");
static_assert(offsetof(struct nvme_tcp_ic_resp, maxh2cdata) == 12, "MAXH2CDATA");

struct nvme_tcp_capsule_cmd {
	struct nvme_tcp_hdr hdr;
	union nvme_cmd cmd;
};

static_assert(sizeof(struct nvme_tcp_capsule_cmd) == 72, "CapsuleCmd");

struct nvme_tcp_capsule_resp {
	struct nvme_tcp_hdr hdr;
	struct nvme_cqe cqe;
};

static_assert(sizeof(struct nvme_tcp_capsule_resp) == 24, "CapsuleResp");

/* H2CData and C2HData; ttag is reserved in the latter */
struct nvme_tcp_data {
	struct nvme_tcp_hdr hdr;
	uint16_t cccid;
	uint16_t ttag;
	uint32_t datao;
	uint32_t datal;
	uint8_t rsvd[4];
};

static_assert(sizeof(struct nvme_tcp_data) == 24, "H2CData, C2HData");
static_assert(offsetof(struct nvme_tcp_data, datao) == 12, "DATAO");
static_assert(offsetof(struct nvme_tcp_data, datal) == 16, "DATAL");

struct nvme_tcp_r2t {
	struct nvme_tcp_hdr hdr;
	uint16_t cccid;
	uint16_t ttag;
	uint32_t r2to;
	uint32_t r2tl;
	uint8_t rsvd[4];
};

static_assert(sizeof(struct nvme_tcp_r2t) == 24, "R2T");
static_assert(offsetof(struct nvme_tcp_r2t, r2tl) == 16, "R2TL");

enum nvme_tcp_fes {
	NVME_TCP_FES_INVALID_HEADER = 0x01, /* fei: offset of the field */
	NVME_TCP_FES_SEQUENCE = 0x02,
	NVME_TCP_FES_HDGST = 0x03, /* fei: the digest received */
	NVME_TCP_FES_OUT_OF_RANGE = 0x04,
	NVME_TCP_FES_R2T_LIMIT = 0x05,         /* H2CTermReq */
	NVME_TCP_FES_LIMIT = 0x05,             /* C2HTermReq: data transfer limit exceeded */
	NVME_TCP_FES_UNSUPPORTED_PARAM = 0x06, /* fei: offset of the field */
};

/* H2CTermReq and C2HTermReq; the header of the offending PDU follows */
struct nvme_tcp_term_req {
	struct nvme_tcp_hdr hdr;
	uint16_t fes;
	uint16_t fei_lo, fei_hi; /* 32 bits, not aligned */
	uint8_t rsvd[10];
};

static_assert(sizeof(struct nvme_tcp_term_req) == 24, "TermReq");
static_assert(offsetof(struct nvme_tcp_term_req, fei_lo) == 10, "FEI");

static inline void nvme_tcp_term_set_fei(struct nvme_tcp_term_req *term, uint32_t fei)
{
	term->fei_lo = (uint16_t)fei;
	term->fei_hi = (uint16_t)(fei >> 16);
}

static inline uint32_t nvme_tcp_term_fei(const struct nvme_tcp_term_req *term)
{
	return (uint32_t)term->fei_hi << 16 | term->fei_lo;
}

/* The header length that a PDU type must have; 0 for a type that there is not. */
uint8_t nvme_tcp_hlen(uint8_t type);
const char *nvme_tcp_pdu_name(uint8_t type); /* never NULL */
const char *nvme_tcp_fes_name(uint16_t fes); /* never NULL */

/* Where data begins in a PDU with a header of @hlen and digest, under an alignment of (pda + 1) * 4. */
static inline uint8_t nvme_tcp_pdo(uint8_t hlen, bool hdgst, uint8_t pda)
{
	uint32_t align = (pda + 1u) * 4, at = hlen + (hdgst ? NVME_TCP_DIGEST_SIZE : 0);

	return (uint8_t)((at + align - 1) / align * align);
}

#endif
