/*
 * Checks of what a host sends, as pure functions: bytes in, and either 0 or the reason for a C2HTermReq out.
 *
 * They know nothing of connections or memory, so that each bad PDU is a line in a table of tests.
 */
#ifndef TRANSPORT_TCP_PDU_H
#define TRANSPORT_TCP_PDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme/nvme.h"

/* What a C2HTermReq says. */
struct pdu_error {
	uint16_t fes;
	uint32_t fei; /* offset of the wrong field, or the digest received */
};

/* What has been negotiated.  Owner: the connection. */
struct pdu_limits {
	bool established; /* an ICReq has been answered */
	bool hdgst, ddgst;
	uint8_t cpda;		   /* alignment that we asked for: 0's based dwords */
	uint32_t max_capsule_data; /* bytes */
	uint32_t max_h2c_data;	   /* bytes: MAXH2CDATA */
};

/* What an H2CData PDU must fit: the R2T that its TTAG names. */
struct pdu_r2t {
	uint16_t cccid;
	uint32_t next; /* offset of the first byte still to come */
	uint32_t len;  /* bytes asked for, from offset 0 */
};

/**
 * pdu_check_type - the first look at a PDU: its type, whether it may come now, and its header's length
 *
 * Needs the 8 bytes of the common header.  What is checked here says where the header digest is.
 *
 * Return: 0, or -EPROTO with *ret_error set.
 * Source: NVMe/TCP Transport Specification 1.0, 3.6.1 and the figure of each PDU.
 */
int pdu_check_type(const struct nvme_tcp_hdr *hdr, const struct pdu_limits *limits, struct pdu_error *ret_error);

/* Compares the digest that follows a header of hlen bytes, of any alignment.  0 or -EPROTO; only where pdu_has_hdgst(). */
int pdu_check_hdgst(const void *pdu, uint8_t hlen, struct pdu_error *ret_error);

/* FLAGS, PDO and PLEN against the type and each other; after pdu_check_type() and, with digests, pdu_check_hdgst(). */
int pdu_check_lengths(const struct nvme_tcp_hdr *hdr, const struct pdu_limits *limits, struct pdu_error *ret_error);

/* The fields of ICReq that this controller must agree with. */
int pdu_check_ic_req(const struct nvme_tcp_ic_req *req, struct pdu_error *ret_error);

/**
 * pdu_check_h2c_data - decide whether an H2CData PDU may be accepted
 * @pdu:  whole header; lengths have been checked
 * @r2t:  what its TTAG names; NULL when no R2T with that tag has been sent
 *
 * Refuses data outside the range of the R2T that asked for it, out of order, or incoherent with PLEN.
 *
 * Units:  offsets and lengths in bytes.
 * Return: 0, or -EPROTO with *ret_error set.
 * Source: NVMe/TCP Transport Specification 1.0, 3.6.2.9 (H2CData).
 */
int pdu_check_h2c_data(const struct nvme_tcp_data *pdu, const struct pdu_r2t *r2t, const struct pdu_limits *limits,
		       struct pdu_error *ret_error);

/* Does the PDU's header have a digest behind it? */
static inline bool pdu_has_hdgst(uint8_t type, const struct pdu_limits *limits)
{
	return limits->hdgst && type != NVME_TCP_IC_REQ && type != NVME_TCP_H2C_TERM_REQ;
}

/* How many bytes from the PDU's beginning are wanted in one piece before it can be acted on: for H2CData all before the
 * data, for others the whole.  After pdu_check_lengths(). */
uint32_t pdu_unit_len(const struct nvme_tcp_hdr *hdr);

/* Bytes of in-capsule data in a CapsuleCmd.  After pdu_check_lengths(). */
uint32_t pdu_capsule_data_len(const struct nvme_tcp_hdr *hdr, const struct pdu_limits *limits);

/* Fills @buf with a C2HTermReq that carries the first bytes of what was wrong; gives its length, at most 152. */
size_t pdu_make_term_req(void *buf, const struct pdu_error *error, const void *bad, size_t bad_len);
#define PDU_TERM_REQ_MAX (sizeof(struct nvme_tcp_term_req) + NVME_TCP_TERM_MAX_DATA)

#endif
