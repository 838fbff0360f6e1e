/*
 * The receiving half of a queue: takes all that the socket has, cuts it into PDUs, checks each, and puts data
 * where its request wants it.  Large payloads are received in place, small ones are copied from the buffer
 * that many share.
 *
 * States: RX_HEADER until a header with digest and padding is whole; RX_DATA while a C2HData's payload comes
 * in; RX_DDGST for the four bytes after it.  Header -> Data -> [Ddgst ->] Header.
 */
#include <errno.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "nvme/internal.h"

#define IN_PLACE_MIN_BYTES 8192u /* of a payload still to come */
#define LARGE_BYTES \
	16384u /* payloads of this size: read little beyond them, the next should be in place too */
#define SMALL_READ_BYTES 4096u
#define RX_ROUNDS        4 /* receives a call, so that one queue does not starve the thread's others */

static void protocol_error(struct tcp_qpair *qpair, uint16_t fes, uint32_t fei, const char *what)
{
	const struct rx *rx = &qpair->rx;
	const uint8_t *hdr = rx->buf + rx->head;
	uint32_t len = nvme_tcp_hlen(*hdr) ? nvme_tcp_hlen(*hdr) : sizeof(struct nvme_tcp_hdr);

	if (len > rx->tail - rx->head)
		len = rx->tail - rx->head;
	tcp_terminate(qpair, fes, fei, hdr, len, what);
}

#define bad_field(qpair, type, field, what) \
	protocol_error(qpair, NVME_TCP_FES_INVALID_HEADER, offsetof(struct type, field), what)

static bool expected_type(const struct tcp_qpair *qpair, uint8_t type)
{
	if (type == NVME_TCP_C2H_TERM_REQ)
		return true;
	if (qpair->q.state == QPAIR_CONNECTING)
		return type == NVME_TCP_IC_RESP;
	return type == NVME_TCP_CAPSULE_RESP || type == NVME_TCP_C2H_DATA || type == NVME_TCP_R2T;
}

/*
 * Checks the common header, of which all eight bytes are here, and finds how many bytes from the PDU's
 * beginning must be here before it can be handled.  False: the queue has failed.
 */
static bool check_common(struct tcp_qpair *qpair, const struct nvme_tcp_hdr *hdr, uint32_t *ret_need)
{
	bool plain = hdr->type == NVME_TCP_IC_RESP || hdr->type == NVME_TCP_C2H_TERM_REQ;
	bool hdgst = qpair->hdgst && !plain;
	uint32_t need = hdr->hlen + (hdgst ? NVME_TCP_DIGEST_SIZE : 0);

	if (!nvme_tcp_hlen(hdr->type)) {
		bad_field(qpair, nvme_tcp_hdr, type, "there is no such PDU type");
		return false;
	}
	if (!expected_type(qpair, hdr->type)) {
		protocol_error(qpair, NVME_TCP_FES_SEQUENCE, 0, "a PDU that may not come now");
		return false;
	}
	if (hdr->hlen != nvme_tcp_hlen(hdr->type)) {
		bad_field(qpair, nvme_tcp_hdr, hlen, "wrong HLEN");
		return false;
	}
	if (!plain && !!(hdr->flags & NVME_TCP_FLAG_HDGST) != qpair->hdgst) {
		bad_field(qpair, nvme_tcp_hdr, flags, "HDGSTF is not what was agreed");
		return false;
	}
	if (hdr->type == NVME_TCP_C2H_TERM_REQ) {
		need = hdr->plen;
		if (need < hdr->hlen || need - hdr->hlen > NVME_TCP_TERM_MAX_DATA) {
			bad_field(qpair, nvme_tcp_hdr, plen, "wrong PLEN");
			return false;
		}
	} else if (hdr->type == NVME_TCP_C2H_DATA) {
		if (hdr->pdo < need) {
			bad_field(qpair, nvme_tcp_hdr, pdo, "wrong PDO");
			return false;
		}
		need = hdr->pdo;
	} else if (hdr->plen != need) {
		bad_field(qpair, nvme_tcp_hdr, plen, "wrong PLEN");
		return false;
	}
	*ret_need = need;
	return true;
}

/* @pdu: the header as received, with its digest behind it. */
static bool check_header_digest(struct tcp_qpair *qpair, const uint8_t *pdu, uint8_t hlen)
{
	uint32_t got, want = crc32c(pdu, hlen);

	memcpy(&got, pdu + hlen, sizeof(got));
	if (got == want)
		return true;
	protocol_error(qpair, NVME_TCP_FES_HDGST, got, "wrong header digest");
	return false;
}

static void handle_ic_resp(struct tcp_qpair *qpair, const struct nvme_tcp_ic_resp *pdu)
{
	qpair->ic_resp = *pdu;
	qpair->q.state = QPAIR_LIVE;
	if (qpair->ic_wait)
		fiber_wake(qpair->ic_wait, 0);
	qpair->ic_wait = NULL;
}

static void handle_term_req(struct tcp_qpair *qpair, const struct nvme_tcp_term_req *pdu)
{
	qpair_fail(&qpair->q, -ECONNRESET, "the target ended the connection: %s (field information %xh)",
		   nvme_tcp_fes_name(pdu->fes), nvme_tcp_term_fei(pdu));
}

static bool is_to_host(const struct nvme_request *req)
{
	const union nvme_cmd *cmd = &req->cmd;

	return nvme_opcode_xfer(cmd->opcode == NVME_OPC_FABRICS ? cmd->fabrics.fctype : cmd->opcode) ==
	       NVME_XFER_TO_HOST;
}

/* What a success is worth: all data must have come, or have been asked for. */
static uint16_t final_status(const struct nvme_request *req, uint16_t status)
{
	if (req->bad_digest)
		return NVME_SC_TRANSIENT_TRANSPORT_ERROR;
	if (nvme_status_code(status) != NVME_SC_SUCCESS || !req->len || req->in_capsule)
		return status;
	if (is_to_host(req) ? req->data_done != req->len : req->h2c_next != req->len || req->h2c_left)
		return NVME_SC_DATA_TRANSFER_ERROR;
	return status;
}

static void handle_capsule_resp(struct tcp_qpair *qpair, const struct nvme_tcp_capsule_resp *pdu)
{
	struct nvme_request *req = qpair_find(&qpair->q, pdu->cqe.cid);

	if (!req) {
		bad_field(qpair, nvme_tcp_capsule_resp, cqe.cid, "a response to no outstanding command");
		return;
	}
	req->cqe = pdu->cqe;
	qpair_request_answered(&qpair->q, req, final_status(req, nvme_cqe_status(&pdu->cqe)));
}

static void handle_r2t(struct tcp_qpair *qpair, const struct nvme_tcp_r2t *pdu)
{
	struct nvme_request *req = qpair_find(&qpair->q, pdu->cccid);

	if (!req || is_to_host(req) || !req->len || req->in_capsule) {
		bad_field(qpair, nvme_tcp_r2t, cccid, "an R2T for a command that has no data to give");
		return;
	}
	if (req->h2c_left) {
		protocol_error(qpair, NVME_TCP_FES_R2T_LIMIT, 0, "a second R2T for one command");
		return;
	}
	if (!pdu->r2tl || pdu->r2to < req->h2c_next || pdu->r2to > req->len ||
	    pdu->r2tl > req->len - pdu->r2to) {
		protocol_error(qpair, NVME_TCP_FES_OUT_OF_RANGE, 0, "an R2T outside of the command's data");
		return;
	}
	req->h2c_ttag = pdu->ttag;
	req->h2c_offset = pdu->r2to;
	req->h2c_left = pdu->r2tl;
	req->h2c_next = pdu->r2to + pdu->r2tl;
	list_add_tail(&qpair->h2c, &req->h2c_link);
}

static void handle_c2h_data(struct tcp_qpair *qpair, const struct nvme_tcp_data *pdu)
{
	struct rx *rx = &qpair->rx;
	struct nvme_request *req = qpair_find(&qpair->q, pdu->cccid);
	bool ddgst = pdu->hdr.flags & NVME_TCP_FLAG_DDGST;
	uint32_t tail_len = ddgst ? NVME_TCP_DIGEST_SIZE : 0;

	if (!req || !is_to_host(req) || req->last_seen) {
		bad_field(qpair, nvme_tcp_data, cccid, "data for a command that expects none");
		return;
	}
	if (ddgst != qpair->ddgst) {
		bad_field(qpair, nvme_tcp_hdr, flags, "DDGSTF is not what was agreed");
		return;
	}
	if ((pdu->hdr.flags & NVME_TCP_FLAG_SUCCESS) && !(pdu->hdr.flags & NVME_TCP_FLAG_LAST)) {
		bad_field(qpair, nvme_tcp_hdr, flags, "SUCCESS without LAST_PDU");
		return;
	}
	if (!pdu->datal || pdu->datao != req->data_done || pdu->datal > req->len - req->data_done) {
		protocol_error(qpair, NVME_TCP_FES_OUT_OF_RANGE, 0, "data outside of what was asked for");
		return;
	}
	if (pdu->hdr.plen < (uint32_t)pdu->hdr.pdo + tail_len ||
	    pdu->hdr.plen - pdu->hdr.pdo - tail_len != pdu->datal) {
		bad_field(qpair, nvme_tcp_hdr, plen, "PLEN and DATAL do not agree");
		return;
	}
	rx->req = req;
	rx->data_left = pdu->datal;
	rx->flags = pdu->hdr.flags;
	rx->crc = crc32c_begin();
	rx->large = pdu->datal >= LARGE_BYTES;
	rx->state = RX_DATA;
	req->last_seen = pdu->hdr.flags & NVME_TCP_FLAG_LAST;
}

static void c2h_data_done(struct tcp_qpair *qpair)
{
	struct rx *rx = &qpair->rx;
	struct nvme_request *req = rx->req;

	rx->state = RX_HEADER;
	rx->req = NULL;
	if (!(rx->flags & NVME_TCP_FLAG_SUCCESS))
		return;
	req->cqe = (struct nvme_cqe){.cid = req->cmd.cid};
	qpair_request_answered(&qpair->q, req, final_status(req, NVME_SC_SUCCESS));
}

/* Payload has arrived in its place. */
static void data_arrived(struct tcp_qpair *qpair, uint32_t len)
{
	struct rx *rx = &qpair->rx;

	rx->req->data_done += len;
	rx->data_left -= len;
	if (rx->data_left)
		return;
	if (qpair->ddgst)
		rx->state = RX_DDGST;
	else
		c2h_data_done(qpair);
}

/* Gives the pieces of memory for the next len bytes of the payload; how many they are. */
static unsigned data_places(const struct nvme_request *req, uint32_t len, struct iovec *out, unsigned max)
{
	uint32_t offset = req->data_done;
	unsigned nr = 0;

	for (const struct iovec *iov = req->iov; len && nr < max; iov++) {
		if (offset >= iov->iov_len) {
			offset -= (uint32_t)iov->iov_len;
			continue;
		}
		uint32_t n = iov->iov_len - offset < len ? (uint32_t)(iov->iov_len - offset) : len;

		out[nr++] = (struct iovec){(uint8_t *)iov->iov_base + offset, n};
		len -= n;
		offset = 0;
	}
	return nr;
}

static void copy_data(struct tcp_qpair *qpair)
{
	struct rx *rx = &qpair->rx;
	uint32_t len = rx->tail - rx->head < rx->data_left ? rx->tail - rx->head : rx->data_left;
	struct iovec place;

	while (len) {
		data_places(rx->req, len, &place, 1);
		memcpy(place.iov_base, rx->buf + rx->head, place.iov_len);
		if (qpair->ddgst)
			rx->crc = crc32c_more(rx->crc, place.iov_base, place.iov_len);
		rx->head += (uint32_t)place.iov_len;
		len -= (uint32_t)place.iov_len;
		data_arrived(qpair, (uint32_t)place.iov_len);
	}
}

/* A header where its fields are aligned, as they are not in the buffer. */
union any_header {
	struct nvme_tcp_hdr common;
	struct nvme_tcp_ic_resp ic_resp;
	struct nvme_tcp_term_req term_req;
	struct nvme_tcp_capsule_resp capsule_resp;
	struct nvme_tcp_data data;
	struct nvme_tcp_r2t r2t;
};

static void handle_header(struct tcp_qpair *qpair, const union any_header *pdu)
{
	switch (pdu->common.type) {
	case NVME_TCP_IC_RESP:
		handle_ic_resp(qpair, &pdu->ic_resp);
		break;
	case NVME_TCP_C2H_TERM_REQ:
		handle_term_req(qpair, &pdu->term_req);
		break;
	case NVME_TCP_CAPSULE_RESP:
		handle_capsule_resp(qpair, &pdu->capsule_resp);
		break;
	case NVME_TCP_C2H_DATA:
		handle_c2h_data(qpair, &pdu->data);
		break;
	case NVME_TCP_R2T:
		handle_r2t(qpair, &pdu->r2t);
		break;
	}
}

/* False: not all there yet, or the queue has failed. */
static bool take_header(struct tcp_qpair *qpair)
{
	struct rx *rx = &qpair->rx;
	const uint8_t *at = rx->buf + rx->head;
	uint32_t avail = rx->tail - rx->head, need;
	union any_header pdu;

	if (avail < sizeof(pdu.common))
		return false;
	memcpy(&pdu.common, at, sizeof(pdu.common));
	if (!check_common(qpair, &pdu.common, &need) || avail < need)
		return false;
	if (qpair->hdgst && pdu.common.type != NVME_TCP_C2H_TERM_REQ &&
	    !check_header_digest(qpair, at, pdu.common.hlen))
		return false;
	/* check_common() has made sure that this is the length of one of them. */
	memcpy(&pdu, at, pdu.common.hlen);
	handle_header(qpair, &pdu);
	if (qpair->q.state >= QPAIR_ENDING)
		return false;
	rx->head += need;
	return true;
}

static bool take_data_digest(struct tcp_qpair *qpair)
{
	struct rx *rx = &qpair->rx;
	uint32_t got;

	if (rx->tail - rx->head < sizeof(got))
		return false;
	memcpy(&got, rx->buf + rx->head, sizeof(got));
	rx->head += sizeof(got);
	if (got != crc32c_end(rx->crc))
		rx->req->bad_digest = true;
	c2h_data_done(qpair);
	return true;
}

static void parse(struct tcp_qpair *qpair)
{
	struct rx *rx = &qpair->rx;

	while (qpair->q.state < QPAIR_ENDING && rx->head != rx->tail) {
		if (rx->state == RX_DATA)
			copy_data(qpair);
		else if (!(rx->state == RX_HEADER ? take_header(qpair) : take_data_digest(qpair)))
			return;
	}
}

/* Bytes received, as stream_recv; those of a large payload go to their place.  *ret_asked: what there was
 * room for. */
static ssize_t receive_some(struct tcp_qpair *qpair, size_t *ret_asked)
{
	struct rx *rx = &qpair->rx;
	struct iovec iov[NVME_REQUEST_MAX_IOVS + 1];
	uint32_t left = rx->tail - rx->head;
	uint32_t room = rx->large ? SMALL_READ_BYTES : RX_BUFFER_SIZE - left;

	if (rx->head) {
		memmove(rx->buf, rx->buf + rx->head, left);
		rx->head = 0;
		rx->tail = left;
	}
	if (rx->state != RX_DATA || rx->data_left < IN_PLACE_MIN_BYTES) {
		ssize_t n = stream_recv(qpair->stream, rx->buf + rx->tail, room);

		if (n > 0)
			rx->tail += (uint32_t)n;
		*ret_asked = room;
		return n;
	}
	uint32_t payload = rx->data_left;
	unsigned nr = data_places(rx->req, payload, iov, NVME_REQUEST_MAX_IOVS);

	iov[nr] = (struct iovec){rx->buf, room};
	*ret_asked = payload + room;
	ssize_t n = stream_recvv(qpair->stream, iov, nr + 1);

	if (n <= 0)
		return n;
	uint32_t in_place = n < payload ? (uint32_t)n : payload;

	if (qpair->ddgst)
		rx->crc = crc32c_more_iov(rx->crc, iov, nr, in_place);
	rx->tail = (uint32_t)n - in_place;
	data_arrived(qpair, in_place);
	return n;
}

bool tcp_receive(struct tcp_qpair *qpair)
{
	bool worked = false;
	size_t asked;

	for (int round = 0; round < RX_ROUNDS && qpair->q.state < QPAIR_ENDING; round++) {
		ssize_t n = receive_some(qpair, &asked);

		if (n == -EAGAIN)
			break;
		worked = true;
		if (n == 0)
			qpair_fail(&qpair->q, -ECONNRESET, "the target closed the connection");
		else if (n < 0)
			qpair_fail(&qpair->q, (int)n, "receiving from the target failed: %s", strerror((int)-n));
		else
			parse(qpair);
		if (n < (ssize_t)asked)
			break;
	}
	return worked;
}

void tcp_discard(struct tcp_qpair *qpair)
{
	ssize_t n = stream_recv(qpair->stream, qpair->rx.buf, RX_BUFFER_SIZE);

	if (n <= 0 && n != -EAGAIN)
		qpair_end(&qpair->q);
}
