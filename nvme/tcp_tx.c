/*
 * The sending half of a queue: turns waiting requests and R2Ts into PDUs, many to one send, data from where
 * the caller has it.
 *
 * A batch is built when the one before is out.  R2Ts come before new commands: the target waits for them with
 * buffers held.
 */
#include <errno.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "nvme/internal.h"

/* The most that one PDU takes of the arena: header, its digest, padding, the data's digest. */
#define PDU_ARENA_MAX ((NVME_TCP_PDA_MAX + 1u) * 4 + 2 * NVME_TCP_DIGEST_SIZE)

/* Kept free at the end, so that an H2CTermReq can always follow. */
#define TERM_MAX (sizeof(struct nvme_tcp_term_req) + NVME_TCP_TERM_MAX_DATA)

static bool has_room(const struct tx_batch *tx, const struct nvme_request *req)
{
	return tx->data_bytes < tx->max_data_bytes && TX_IOVS - 1 - tx->count >= req->iovcnt + 2 &&
	       TX_ARENA_SIZE - TERM_MAX - tx->arena_used >= PDU_ARENA_MAX;
}

static void *arena_add(struct tx_batch *tx, uint32_t len)
{
	uint8_t *at = tx->arena + tx->arena_used;
	struct iovec *last = tx->count ? &tx->iov[tx->count - 1] : NULL;

	tx->arena_used += len;
	if (last && !tx->owner[tx->count - 1] && (uint8_t *)last->iov_base + last->iov_len == at) {
		last->iov_len += len;
		return at;
	}
	tx->iov[tx->count] = (struct iovec){at, len};
	tx->owner[tx->count++] = NULL;
	return at;
}

/* Adds a piece of the request's data, and its digest when there is to be one. */
static void data_add(struct tcp_qpair *qpair, struct nvme_request *req, uint32_t offset, uint32_t len)
{
	struct tx_batch *tx = &qpair->tx;
	uint32_t crc = crc32c_begin();

	tx->data_bytes += len;
	for (const struct iovec *iov = req->iov; len; iov++) {
		if (offset >= iov->iov_len) {
			offset -= (uint32_t)iov->iov_len;
			continue;
		}
		uint32_t n = iov->iov_len - offset < len ? (uint32_t)(iov->iov_len - offset) : len;
		void *at = (uint8_t *)iov->iov_base + offset;

		if (qpair->ddgst)
			crc = crc32c_more(crc, at, n);
		tx->iov[tx->count] = (struct iovec){at, n};
		tx->owner[tx->count++] = req;
		req->nr_tx++;
		len -= n;
		offset = 0;
	}
	if (qpair->ddgst) {
		crc = crc32c_end(crc);
		memcpy(arena_add(tx, sizeof(crc)), &crc, sizeof(crc));
	}
}

/* Fills the common header of a PDU with so much data, and returns the room that its header, digest and
 * padding take. */
static uint32_t fill_common(const struct tcp_qpair *qpair, struct nvme_tcp_hdr *hdr,
			    enum nvme_tcp_pdu_type type, uint32_t data_len)
{
	uint8_t hlen = nvme_tcp_hlen((uint8_t)type);
	uint32_t room = hlen + (qpair->hdgst ? NVME_TCP_DIGEST_SIZE : 0);

	if (data_len)
		room = nvme_tcp_pdo(hlen, qpair->hdgst, qpair->cpda);
	hdr->type = (uint8_t)type;
	hdr->flags = qpair->hdgst ? NVME_TCP_FLAG_HDGST : 0;
	hdr->hlen = hlen;
	hdr->pdo = 0;
	hdr->plen = room;
	if (data_len) {
		hdr->pdo = (uint8_t)room;
		hdr->plen += data_len + (qpair->ddgst ? NVME_TCP_DIGEST_SIZE : 0);
		if (qpair->ddgst)
			hdr->flags |= NVME_TCP_FLAG_DDGST;
	}
	return room;
}

/* Puts a finished header into the batch, with its digest and padding.  The arena has no alignment: headers
 * are copied in. */
static void header_add(struct tcp_qpair *qpair, const void *hdr, uint8_t hlen, uint32_t room)
{
	uint8_t *at = arena_add(&qpair->tx, room);

	memcpy(at, hdr, hlen);
	if (room == hlen)
		return;
	memset(at + hlen, 0, room - hlen);
	if (qpair->hdgst) {
		uint32_t crc = crc32c(hdr, hlen);

		memcpy(at + hlen, &crc, sizeof(crc));
	}
}

static uint32_t in_capsule_max(const struct tcp_qpair *qpair, const struct nvme_request *req)
{
	return req->cmd.opcode == NVME_OPC_FABRICS ? NVME_TCP_ADMIN_CAPSULE_DATA : qpair->in_capsule_max;
}

static unsigned xfer_of(const union nvme_cmd *cmd)
{
	return nvme_opcode_xfer(cmd->opcode == NVME_OPC_FABRICS ? cmd->fabrics.fctype : cmd->opcode);
}

static void capsule_add(struct tcp_qpair *qpair, struct nvme_request *req)
{
	uint32_t len = req->len;
	struct nvme_tcp_capsule_cmd pdu;
	uint32_t room;

	req->in_capsule =
		len && xfer_of(&req->cmd) == NVME_XFER_TO_CTRLR && len <= in_capsule_max(qpair, req);
	req->cmd.flags = (req->cmd.flags & NVME_CMD_FUSE_MASK) | NVME_CMD_PSDT_SGL;
	req->cmd.sgl = (struct nvme_sgl){
		.len = len,
		.type = req->in_capsule ? NVME_SGL_IN_CAPSULE : NVME_SGL_TRANSPORT,
	};
	room = fill_common(qpair, &pdu.hdr, NVME_TCP_CAPSULE_CMD, req->in_capsule ? len : 0);
	pdu.cmd = req->cmd;
	header_add(qpair, &pdu, sizeof(pdu), room);
	if (req->in_capsule)
		data_add(qpair, req, 0, len);
}

/* One H2CData of the R2T that a request serves.  The last of them takes it off the list. */
static void h2c_add(struct tcp_qpair *qpair, struct nvme_request *req)
{
	uint32_t len = req->h2c_left < qpair->maxh2cdata ? req->h2c_left : qpair->maxh2cdata;
	struct nvme_tcp_data pdu = {
		.cccid = req->cmd.cid,
		.ttag = req->h2c_ttag,
		.datao = req->h2c_offset,
		.datal = len,
	};
	uint32_t room = fill_common(qpair, &pdu.hdr, NVME_TCP_H2C_DATA, len);

	if (len == req->h2c_left)
		pdu.hdr.flags |= NVME_TCP_FLAG_LAST;
	header_add(qpair, &pdu, sizeof(pdu), room);
	data_add(qpair, req, req->h2c_offset, len);
	req->h2c_offset += len;
	req->h2c_left -= len;
	if (!req->h2c_left)
		list_del(&req->h2c_link);
}

static void build_batch(struct tcp_qpair *qpair)
{
	struct tx_batch *tx = &qpair->tx;

	while (!list_empty(&qpair->h2c)) {
		struct nvme_request *req = list_entry(qpair->h2c.next, struct nvme_request, h2c_link);

		if (!has_room(tx, req))
			return;
		h2c_add(qpair, req);
	}
	while (!fifo_empty(&qpair->q.ready)) {
		struct nvme_request *req = container_of(qpair->q.ready.head, struct nvme_request, link);

		if (!has_room(tx, req) || !qpair_start_request(&qpair->q, req))
			return;
		fifo_pop(&qpair->q.ready);
		capsule_add(qpair, req);
	}
}

static void consume(struct tcp_qpair *qpair, size_t len)
{
	struct tx_batch *tx = &qpair->tx;

	while (len) {
		struct iovec *iov = &tx->iov[tx->first];

		if (len < iov->iov_len) {
			iov->iov_base = (uint8_t *)iov->iov_base + len;
			iov->iov_len -= len;
			return;
		}
		len -= iov->iov_len;
		struct nvme_request *owner = tx->owner[tx->first++];

		if (owner && --owner->nr_tx == 0)
			qpair_request_sent(&qpair->q, owner);
	}
	if (tx->first == tx->count) {
		tx->first = tx->count = 0;
		tx->arena_used = tx->data_bytes = 0;
	}
}

void tcp_flush(struct tcp_qpair *qpair)
{
	struct tx_batch *tx = &qpair->tx;

	while (qpair->q.state != QPAIR_FAILED && !tx->blocked) {
		if (!tx->count && qpair->q.state == QPAIR_LIVE)
			build_batch(qpair);
		if (!tx->count) {
			if (qpair->q.state == QPAIR_ENDING && !qpair->shut) {
				qpair->shut = true;
				stream_shutdown_write(qpair->stream);
			}
			return;
		}
		ssize_t n = stream_sendv(qpair->stream, tx->iov + tx->first, tx->count - tx->first);

		if (n == -EAGAIN) {
			tx->blocked = true;
			stream_want_write(qpair->stream);
			return;
		}
		if (n < 0) {
			qpair_fail(&qpair->q, (int)n, "sending to the target failed: %s", strerror((int)-n));
			return;
		}
		consume(qpair, (size_t)n);
	}
}

void tcp_send_ic_req(struct tcp_qpair *qpair, bool hdgst, bool ddgst)
{
	struct nvme_tcp_ic_req pdu = {
		.dgst = (uint8_t)((hdgst ? NVME_TCP_DGST_HEADER : 0) | (ddgst ? NVME_TCP_DGST_DATA : 0)),
	};
	uint32_t room = fill_common(qpair, &pdu.hdr, NVME_TCP_IC_REQ, 0);

	header_add(qpair, &pdu, sizeof(pdu), room);
	tcp_flush(qpair);
}

void tcp_terminate(struct tcp_qpair *qpair, uint16_t fes, uint32_t fei, const void *hdr, uint32_t hdr_len,
		   const char *what)
{
	struct {
		struct nvme_tcp_term_req term;
		uint8_t hdr[NVME_TCP_TERM_MAX_DATA];
	} pdu = {0};

	if (qpair->q.state >= QPAIR_ENDING)
		return;
	if (hdr_len > sizeof(pdu.hdr))
		hdr_len = sizeof(pdu.hdr);
	pdu.term.hdr.type = NVME_TCP_H2C_TERM_REQ;
	pdu.term.hdr.hlen = sizeof(pdu.term);
	pdu.term.hdr.plen = (uint32_t)sizeof(pdu.term) + hdr_len;
	pdu.term.fes = fes;
	nvme_tcp_term_set_fei(&pdu.term, fei);
	memcpy(pdu.hdr, hdr, hdr_len);
	memcpy(arena_add(&qpair->tx, pdu.term.hdr.plen), &pdu, pdu.term.hdr.plen);
	qpair_end_after_send(&qpair->q, -EPROTO, "the target broke the protocol: %s (%s, %s)", what,
			     nvme_tcp_pdu_name(*(const uint8_t *)hdr), nvme_tcp_fes_name(fes));
}
