/*
 * Commands on their way through the transport: taken when a capsule arrives, handed to nvmf, fetched data for by R2T, answered
 * with C2HData and CapsuleResp, and given back.  The states and their transitions stand at struct tcp_req.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "runtime/trace.h"
#include "transport/tcp/internal.h"

static struct tcp_req *req_of(struct nvmf_req *nreq)
{
	return container_of(nreq, struct tcp_req, nreq);
}

void req_set_state(struct tcp_req *req, enum tcp_req_state state)
{
	static const uint8_t allowed[] = {
		[REQ_FREE] = 1u << REQ_DEFERRED | 1u << REQ_NVMF,
		[REQ_DEFERRED] = 1u << REQ_NVMF | 1u << REQ_FREE,
		[REQ_NVMF] = 1u << REQ_R2T_QUEUED | 1u << REQ_SENDING | 1u << REQ_FREE,
		[REQ_R2T_QUEUED] = 1u << REQ_R2T_SENT | 1u << REQ_FREE,
		[REQ_R2T_SENT] = 1u << REQ_NVMF | 1u << REQ_FREE,
		[REQ_SENDING] = 1u << REQ_FREE,
	};

	assert(allowed[req->state] & 1u << state);
	TRACE(tcp, req_state, req, req->state, state);
	req->state = state;
}

void req_init(struct tcp_req *req, struct tcp_conn *conn, uint16_t ttag)
{
	req->conn = conn;
	req->ttag = ttag;
	req->nreq.qpair = &conn->qpair;
	list_init(&req->nreq.link);
	list_init(&req->nreq.wait_link);
	req->state = REQ_FREE;
	fifo_push(&conn->free, &req->link);
}

int req_grow(struct tcp_conn *conn, uint32_t nr)
{
	if (nr <= 1)
		return 0;
	/* A queue of 65,536 entries and its 1 would not fit a TTAG; nvmf's limits are far below. */
	if (nr - 1 > UINT16_MAX)
		nr = UINT16_MAX;
	conn->reqs = calloc(nr - 1, sizeof(*conn->reqs));
	if (!conn->reqs)
		return -ENOMEM;
	conn->nr_reqs = nr - 1;
	for (uint32_t i = 0; i < conn->nr_reqs; i++)
		req_init(&conn->reqs[i], conn, (uint16_t)(i + 1));
	return 0;
}

struct tcp_req *req_take(struct tcp_conn *conn)
{
	struct fifo_link *link = fifo_pop(&conn->free);
	struct tcp_req *req;

	if (!link)
		return NULL;
	req = container_of(link, struct tcp_req, link);
	req->nreq.in_capsule = false;
	req->nreq.iovcnt = 0;
	req->early_status = NVME_SC_SUCCESS;
	req->capsule_data = NULL;
	req->capsule_len = 0;
	req->charge_bytes = 0;
	return req;
}

struct tcp_req *req_by_ttag(struct tcp_conn *conn, uint16_t ttag)
{
	struct tcp_req *req;

	if (ttag == 0)
		req = &conn->first_req;
	else if (ttag - 1u < conn->nr_reqs)
		req = &conn->reqs[ttag - 1];
	else
		return NULL;
	return req->state == REQ_R2T_SENT ? req : NULL;
}

/* --- begin and defer -------------------------------------------------------------------------------------------------- */

static bool may_begin(const struct tcp_conn *conn, const struct tcp_req *req)
{
	return conn->inflight_bytes == 0 || req->charge_bytes <= conn->group->inflight_max_bytes - conn->inflight_bytes;
}

static void begin(struct tcp_req *req)
{
	req->conn->inflight_bytes += req->charge_bytes;
	req_set_state(req, REQ_NVMF);
	nvmf_req_begin(&req->nreq);
}

void req_start(struct tcp_req *req)
{
	struct tcp_conn *conn = req->conn;
	const struct nvme_sgl *sgl = &req->nreq.cmd.sgl;

	/* nvmf refuses what is longer; a command without data may have anything here, which costs it only its place in line. */
	if (sgl->type == NVME_SGL_TRANSPORT)
		req->charge_bytes = sgl->len < NVMF_MAX_XFER ? sgl->len : NVMF_MAX_XFER;
	/* In order: the halves of a fused command stay neighbours. */
	if (fifo_empty(&conn->deferred) && may_begin(conn, req)) {
		begin(req);
		return;
	}
	req_set_state(req, REQ_DEFERRED);
	fifo_push(&conn->deferred, &req->link);
}

void req_start_deferred(struct tcp_conn *conn)
{
	while (!fifo_empty(&conn->deferred) && conn->state < CONN_CLOSING) {
		struct tcp_req *req = container_of(conn->deferred.head, struct tcp_req, link);

		if (!may_begin(conn, req))
			return;
		fifo_pop(&conn->deferred);
		begin(req);
	}
}

/* Takes the deferred command of a CID out of the line, to be ended instead of begun. */
bool req_abort_deferred(struct nvmf_qpair *qpair, uint16_t cid)
{
	struct tcp_conn *conn = container_of(qpair, struct tcp_conn, qpair);
	struct fifo rest;
	struct fifo_link *link;
	struct tcp_req *victim = NULL;

	if (conn->state >= CONN_CLOSING)
		return false;
	fifo_init(&rest);
	while ((link = fifo_pop(&conn->deferred))) {
		struct tcp_req *req = container_of(link, struct tcp_req, link);

		if (!victim && req->nreq.cmd.cid == cid)
			victim = req;
		else
			fifo_push(&rest, link);
	}
	fifo_init(&conn->deferred);
	while ((link = fifo_pop(&rest)))
		fifo_push(&conn->deferred, link);
	if (!victim)
		return false;
	victim->charge_bytes = 0;
	req_set_state(victim, REQ_NVMF);
	nvmf_req_begin_aborted(&victim->nreq);
	return true;
}

/* --- release ------------------------------------------------------------------------------------------------------------ */

void req_release(struct tcp_req *req)
{
	struct tcp_conn *conn = req->conn;
	bool was_nvmfs = req->state != REQ_DEFERRED;

	if (req->state == REQ_R2T_QUEUED || req->state == REQ_R2T_SENT)
		conn->nr_r2t--;
	if (was_nvmfs)
		conn->inflight_bytes -= req->charge_bytes;
	req_set_state(req, REQ_FREE);
	if (req->chunk) {
		chunk_put(req->chunk);
		req->chunk = NULL;
	} else if (req->copy) {
		dma_free(req->copy);
		req->copy = NULL;
	}
	fifo_push(&conn->free, &req->link);
	if (!fifo_empty(&conn->deferred))
		conn_work_later(conn, WORK_DEFERRED);
	if (was_nvmfs)
		nvmf_req_release(&req->nreq); /* last: it may be what the connection's end waited for */
}

static void release_if_held(struct tcp_req *req, const struct tcp_req *except)
{
	if (req != except && req->state != REQ_FREE && req->state != REQ_NVMF)
		req_release(req);
}

void req_release_held(struct tcp_conn *conn, struct tcp_req *except)
{
	fifo_init(&conn->out);
	fifo_init(&conn->deferred);
	release_if_held(&conn->first_req, except);
	for (uint32_t i = 0; i < conn->nr_reqs; i++)
		release_if_held(&conn->reqs[i], except);
	if (except)
		fifo_push(&conn->out, &except->link);
}

/* --- what nvmf calls ---------------------------------------------------------------------------------------------------- */

uint16_t req_parse_sgl(struct nvmf_req *nreq)
{
	struct tcp_req *req = req_of(nreq);
	uint32_t offset;
	uint16_t status;

	nreq->in_capsule = false;
	nreq->sgl_len = 0;
	if (req->early_status)
		return req->early_status;
	status = sgl_parse(&nreq->cmd.sgl, nreq->xfer == NVMF_XFER_FROM_HOST, req->capsule_len, &nreq->in_capsule, &offset,
			   &nreq->sgl_len);
	/* A capsule without data has nothing to point to, and nvmf nothing to do with none. */
	if (status == NVME_SC_SUCCESS && nreq->in_capsule && nreq->sgl_len) {
		nreq->iov[0].iov_base = req->capsule_data + offset;
		nreq->iov[0].iov_len = nreq->sgl_len;
		nreq->iovcnt = 1;
	}
	return status;
}

/* Writes the header digest behind a header of @len bytes and gives the length of both. */
static uint8_t seal_header(const struct tcp_conn *conn, void *pdu, uint8_t len)
{
	uint32_t crc;

	if (!conn->limits.hdgst)
		return len;
	crc = crc32c(pdu, len);
	memcpy((uint8_t *)pdu + len, &crc, sizeof(crc));
	return len + sizeof(crc);
}

static uint8_t digest_flag(const struct tcp_conn *conn)
{
	return conn->limits.hdgst ? NVME_TCP_FLAG_HDGST : 0;
}

void req_receive_data(struct nvmf_req *nreq)
{
	struct tcp_req *req = req_of(nreq);
	struct tcp_conn *conn = req->conn;
	struct nvme_tcp_r2t *r2t = (struct nvme_tcp_r2t *)req->head;

	if (conn->state >= CONN_CLOSING) {
		req_release(req);
		return;
	}
	*r2t = (struct nvme_tcp_r2t){
		.hdr = { .type = NVME_TCP_R2T, .flags = digest_flag(conn), .hlen = sizeof(*r2t) },
		.cccid = nreq->cmd.cid,
		.ttag = req->ttag,
		.r2tl = nreq->len,
	};
	r2t->hdr.plen = sizeof(*r2t) + (conn->limits.hdgst ? NVME_TCP_DIGEST_SIZE : 0);
	req->head_len = seal_header(conn, r2t, sizeof(*r2t));
	req->data_len = req->tail_len = 0;
	req->rx_next = 0;
	req->rx_bad_digest = false;
	conn->nr_r2t++;
	req_set_state(req, REQ_R2T_QUEUED);
	send_queue(req);
}

static uint8_t make_response(struct tcp_req *req, uint8_t *buf)
{
	struct tcp_conn *conn = req->conn;
	struct nvme_tcp_hdr hdr = { .type = NVME_TCP_CAPSULE_RESP,
				    .flags = digest_flag(conn),
				    .hlen = sizeof(struct nvme_tcp_capsule_resp),
				    .plen = sizeof(struct nvme_tcp_capsule_resp) };

	if (conn->limits.hdgst)
		hdr.plen += NVME_TCP_DIGEST_SIZE;
	memcpy(buf, &hdr, sizeof(hdr));
	memcpy(buf + sizeof(hdr), &req->nreq.cqe, sizeof(req->nreq.cqe));
	return seal_header(conn, buf, sizeof(struct nvme_tcp_capsule_resp));
}

/* The header, the digest, and whether the flag SUCCESS spares the response: then the response would say nothing. */
static void make_data(struct tcp_req *req, bool success)
{
	struct tcp_conn *conn = req->conn;
	struct nvme_tcp_data *pdu = (struct nvme_tcp_data *)req->head;
	uint8_t sealed, pdo = nvme_tcp_pdo(sizeof(*pdu), conn->limits.hdgst, conn->hpda);

	*pdu = (struct nvme_tcp_data){
		.hdr = { .type = NVME_TCP_C2H_DATA,
			 .flags = digest_flag(conn) | NVME_TCP_FLAG_LAST,
			 .hlen = sizeof(*pdu),
			 .pdo = pdo,
			 .plen = pdo + req->nreq.len },
		.cccid = req->nreq.cmd.cid,
		.datal = req->nreq.len,
	};
	if (success)
		pdu->hdr.flags |= NVME_TCP_FLAG_SUCCESS;
	if (conn->limits.ddgst) {
		uint32_t crc = crc32c_end(
			crc32c_more_iov(crc32c_begin(), req->nreq.iov, req->nreq.iovcnt, req->nreq.len));

		pdu->hdr.flags |= NVME_TCP_FLAG_DDGST;
		pdu->hdr.plen += NVME_TCP_DIGEST_SIZE;
		memcpy(req->tail, &crc, sizeof(crc));
		req->tail_len = sizeof(crc);
	}
	sealed = seal_header(conn, pdu, sizeof(*pdu));
	memset(req->head + sealed, 0, pdo - sealed);
	req->head_len = pdo;
	req->data_len = req->nreq.len;
}

void req_complete(struct nvmf_req *nreq)
{
	struct tcp_req *req = req_of(nreq);
	struct tcp_conn *conn = req->conn;
	bool success = false;

	if (conn->state >= CONN_CLOSING ||
	    (conn->state == CONN_WAIT_CONNECT && conn->qpair.connected && conn_connected(conn))) {
		req_release(req);
		return;
	}
	req->head_len = req->tail_len = 0;
	req->data_len = 0;
	if (nreq->xfer == NVMF_XFER_TO_HOST && nreq->len > 0 && nvme_cqe_status(&nreq->cqe) == NVME_SC_SUCCESS) {
		/* Without a response there is no SQHD, which a host that left flow control on lives by. */
		success = conn->qpair.opts->c2h_success && conn->qpair.sq_flow_control_disabled && nreq->cqe.result == 0;
		make_data(req, success);
	}
	if (!success)
		req->tail_len += make_response(req, req->tail + req->tail_len);
	req_set_state(req, REQ_SENDING);
	send_queue(req);
}
