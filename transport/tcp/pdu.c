/*
 * Checks of what a host sends.  A PDU is looked at in the order in which its bytes can be believed: type and header length,
 * header digest, lengths, and then the fields of its type; all comparisons are by subtraction from what is known to be good.
 */
#include <errno.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "transport/tcp/pdu.h"

#define FEI_OF(type, field) ((uint32_t)offsetof(struct type, field))

static int bad(struct pdu_error *ret_error, uint16_t fes, uint32_t fei)
{
	ret_error->fes = fes;
	ret_error->fei = fei;
	return -EPROTO;
}

static int bad_field(struct pdu_error *ret_error, uint32_t fei)
{
	return bad(ret_error, NVME_TCP_FES_INVALID_HEADER, fei);
}

int pdu_check_type(const struct nvme_tcp_hdr *hdr, const struct pdu_limits *limits, struct pdu_error *ret_error)
{
	switch (hdr->type) {
	case NVME_TCP_IC_REQ:
		/* A second one is refused before any of its bytes are kept. */
		if (limits->established)
			return bad(ret_error, NVME_TCP_FES_SEQUENCE, 0);
		break;
	case NVME_TCP_CAPSULE_CMD:
	case NVME_TCP_H2C_DATA:
		if (!limits->established)
			return bad(ret_error, NVME_TCP_FES_SEQUENCE, 0);
		break;
	case NVME_TCP_H2C_TERM_REQ:
		break;
	default: /* unknown, or a PDU that only controllers send */
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, type));
	}
	if (hdr->hlen != nvme_tcp_hlen(hdr->type))
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, hlen));
	return 0;
}

int pdu_check_hdgst(const void *pdu, uint8_t hlen, struct pdu_error *ret_error)
{
	uint32_t received;

	memcpy(&received, (const uint8_t *)pdu + hlen, sizeof(received));
	if (crc32c(pdu, hlen) != received)
		return bad(ret_error, NVME_TCP_FES_HDGST, received);
	return 0;
}

/* PDO and PLEN of a PDU that has data, behind @head bytes of header and digest. */
static int check_data_place(const struct nvme_tcp_hdr *hdr, uint32_t head, const struct pdu_limits *limits,
			    struct pdu_error *ret_error)
{
	uint32_t tail = limits->ddgst ? NVME_TCP_DIGEST_SIZE : 0;

	if (!!(hdr->flags & NVME_TCP_FLAG_DDGST) != limits->ddgst)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, flags));
	if (hdr->pdo < head || hdr->pdo % ((limits->cpda + 1u) * 4) != 0)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, pdo));
	/* at least one byte of data between PDO and the digest */
	if (hdr->plen <= hdr->pdo || hdr->plen - hdr->pdo <= tail)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, plen));
	return 0;
}

int pdu_check_lengths(const struct nvme_tcp_hdr *hdr, const struct pdu_limits *limits, struct pdu_error *ret_error)
{
	bool has_hdgst = pdu_has_hdgst(hdr->type, limits);
	uint32_t head = hdr->hlen + (has_hdgst ? NVME_TCP_DIGEST_SIZE : 0);
	int rc;

	if (hdr->type == NVME_TCP_IC_REQ || hdr->type == NVME_TCP_H2C_TERM_REQ) {
		uint32_t most = hdr->type == NVME_TCP_IC_REQ ? hdr->hlen : PDU_TERM_REQ_MAX;

		if (hdr->plen < hdr->hlen || hdr->plen > most)
			return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, plen));
		return 0;
	}
	if (!!(hdr->flags & NVME_TCP_FLAG_HDGST) != has_hdgst)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, flags));
	if (hdr->plen < head)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, plen));
	if (hdr->type == NVME_TCP_CAPSULE_CMD && hdr->plen == head)
		return 0;
	rc = check_data_place(hdr, head, limits, ret_error);
	if (rc)
		return rc;
	if (hdr->type == NVME_TCP_CAPSULE_CMD && pdu_capsule_data_len(hdr, limits) > limits->max_capsule_data)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, plen));
	return 0;
}

int pdu_check_ic_req(const struct nvme_tcp_ic_req *req, struct pdu_error *ret_error)
{
	if (req->pfv != 0)
		return bad(ret_error, NVME_TCP_FES_UNSUPPORTED_PARAM, FEI_OF(nvme_tcp_ic_req, pfv));
	if (req->hpda > NVME_TCP_PDA_MAX)
		return bad_field(ret_error, FEI_OF(nvme_tcp_ic_req, hpda));
	return 0;
}

int pdu_check_h2c_data(const struct nvme_tcp_data *pdu, const struct pdu_r2t *r2t, const struct pdu_limits *limits,
		       struct pdu_error *ret_error)
{
	uint32_t tail = limits->ddgst ? NVME_TCP_DIGEST_SIZE : 0;

	if (!r2t)
		return bad_field(ret_error, FEI_OF(nvme_tcp_data, ttag));
	if (pdu->cccid != r2t->cccid)
		return bad_field(ret_error, FEI_OF(nvme_tcp_data, cccid));
	if (pdu->datal == 0 || pdu->hdr.plen - pdu->hdr.pdo - tail != pdu->datal)
		return bad_field(ret_error, FEI_OF(nvme_tcp_data, datal));
	if (pdu->datal > limits->max_h2c_data)
		return bad(ret_error, NVME_TCP_FES_LIMIT, FEI_OF(nvme_tcp_data, datal));
	if (pdu->datao != r2t->next || pdu->datal > r2t->len - r2t->next)
		return bad(ret_error, NVME_TCP_FES_OUT_OF_RANGE, FEI_OF(nvme_tcp_data, datao));
	/* The last one ends the range; that a host forgets the flag on it does no harm. */
	if ((pdu->hdr.flags & NVME_TCP_FLAG_LAST) && pdu->datal != r2t->len - r2t->next)
		return bad_field(ret_error, FEI_OF(nvme_tcp_hdr, flags));
	return 0;
}

uint32_t pdu_unit_len(const struct nvme_tcp_hdr *hdr)
{
	return hdr->type == NVME_TCP_H2C_DATA ? hdr->pdo : hdr->plen;
}

uint32_t pdu_capsule_data_len(const struct nvme_tcp_hdr *hdr, const struct pdu_limits *limits)
{
	uint32_t head = hdr->hlen + (limits->hdgst ? NVME_TCP_DIGEST_SIZE : 0);

	if (hdr->plen == head)
		return 0;
	return hdr->plen - hdr->pdo - (limits->ddgst ? NVME_TCP_DIGEST_SIZE : 0);
}

size_t pdu_make_term_req(void *buf, const struct pdu_error *error, const void *bad_bytes, size_t bad_len)
{
	struct nvme_tcp_term_req *term = buf;

	if (bad_len > NVME_TCP_TERM_MAX_DATA)
		bad_len = NVME_TCP_TERM_MAX_DATA;
	memset(term, 0, sizeof(*term));
	term->hdr.type = NVME_TCP_C2H_TERM_REQ;
	term->hdr.hlen = sizeof(*term);
	term->hdr.plen = sizeof(*term) + bad_len;
	term->fes = error->fes;
	nvme_tcp_term_set_fei(term, error->fei);
	memcpy(term + 1, bad_bytes, bad_len);
	return sizeof(*term) + bad_len;
}
