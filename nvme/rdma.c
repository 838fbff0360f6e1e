/*
 * A queue over RDMA: connection and queue pair, capsules out, responses in, and the end.
 *
 * A request is done when its response has come and its capsule's send has completed, in either order: until then the device may
 * read the capsule once more; and when the window to its data is closed: by the target with the response, or else by us.  What a target says is compared with what was asked; what it does to memory stays in the arena.
 * Source: NVMe over RDMA Transport Specification 1.0.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/rdma.h"

#define ID_RECV	      (1ull << 32)
#define ID_INVALIDATE (1ull << 33)
#define ID_BIND	      (1ull << 34) /* told only in error */
#define EXTRA_RECVS 2u
#define POLL_BATCH  16u

/* --- out ---------------------------------------------------------------------------------------------------------------------- */

static unsigned xfer_of(const union nvme_cmd *cmd)
{
	return nvme_opcode_xfer(cmd->opcode == NVME_OPC_FABRICS ? cmd->fabrics.fctype : cmd->opcode);
}

static bool goes_in_capsule(const struct rdma_qpair *qpair, const struct nvme_request *req)
{
	return req->len && req->len <= qpair->in_capsule_max && xfer_of(&req->cmd) == NVME_XFER_TO_CTRLR;
}

static uint8_t *data_of(const struct rdma_qpair *qpair, const struct rdma_bounce *bounce)
{
	return qpair->arena + (size_t)bounce->first * RDMA_ARENA_UNIT;
}

static void prepare(struct rdma_qpair *qpair, struct nvme_request *req, uint8_t *capsule, struct rdma_bounce *bounce)
{
	uint8_t *at = data_of(qpair, bounce), type = NVME_SGL_KEYED;
	uint32_t key = rnic_mr_rkey(qpair->mr);

	req->cmd.flags = (req->cmd.flags & NVME_CMD_FUSE_MASK) | NVME_CMD_PSDT_SGL;
	if (goes_in_capsule(qpair, req)) {
		req->in_capsule = true;
		req->cmd.sgl = (struct nvme_sgl){ .len = req->len, .type = NVME_SGL_IN_CAPSULE };
		rdma_copy(req, capsule + sizeof(req->cmd), true);
	} else if (req->len) {
		if (qpair->windows) {
			key = bounce->key = rnic_window_next_key(qpair->windows[req->slot]);
			type = NVME_SGL_KEYED_INVALIDATE;
		}
		nvme_keyed_sgl_set(&req->cmd.keyed_sgl, (uintptr_t)at, req->len, key, type);
		if (xfer_of(&req->cmd) == NVME_XFER_TO_CTRLR)
			rdma_copy(req, at, true);
		else
			memset(at, 0, req->len); /* nobody is shown what another request left */
	} else {
		nvme_keyed_sgl_set(&req->cmd.keyed_sgl, 0, 0, 0, NVME_SGL_KEYED);
	}
	memcpy(capsule, &req->cmd, sizeof(req->cmd));
}

static void send_capsule(struct rdma_qpair *qpair, struct nvme_request *req)
{
	uint8_t *capsule = qpair->memory + (size_t)req->slot * qpair->capsule_size;
	struct rdma_bounce *bounce = &qpair->bounces[req->slot];
	struct rnic_sge sge = { (uintptr_t)capsule, sizeof(union nvme_cmd), rnic_mr_lkey(qpair->mr) };
	struct rnic_sge part = { (uintptr_t)data_of(qpair, bounce), req->len, 0 };
	struct rnic_send send = { .id = req->slot, .sge = &sge, .nr_sge = 1, .op = RNIC_SEND, .signaled = true };
	struct rnic_send bind = { .next = &send, .id = ID_BIND, .sge = &part, .nr_sge = 1, .op = RNIC_BIND, .mr = qpair->mr };
	int rc;

	prepare(qpair, req, capsule, bounce);
	if (req->in_capsule)
		sge.len += req->len;
	if (bounce->key) {
		bind.window = qpair->windows[req->slot];
		bind.remote_key = bounce->key;
		bind.access = xfer_of(&req->cmd) == NVME_XFER_TO_CTRLR ? RNIC_REMOTE_READ : RNIC_REMOTE_WRITE;
	}
	req->nr_tx = 1;
	rc = rnic_post_send(qpair->conn, bounce->key ? &bind : &send);
	if (rc)
		qpair_fail(&qpair->q, rc, "a command cannot be sent: %s", strerror(-rc));
}

static void flush_queue(struct nvme_qpair *q)
{
	struct rdma_qpair *qpair = rdma_of(q);

	while (q->state == QPAIR_LIVE && !fifo_empty(&q->ready)) {
		struct nvme_request *req = container_of(q->ready.head, struct nvme_request, link);
		struct rdma_bounce bounce = { 0 };

		if (!q->nr_free)
			return;
		if (req->len && req->len <= RDMA_MAX_XFER_BYTES && !goes_in_capsule(qpair, req) &&
		    !rdma_bounce_take(qpair, req->len, &bounce))
			return;
		fifo_pop(&q->ready);
		qpair_start_request(q, req);
		qpair->bounces[req->slot] = bounce;
		if (req->len > RDMA_MAX_XFER_BYTES)
			qpair_request_answered(q, req, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
		else
			send_capsule(qpair, req);
	}
}

/* --- in ----------------------------------------------------------------------------------------------------------------------- */

static int post_recv(struct rdma_qpair *qpair, uint32_t idx)
{
	struct rnic_sge sge = { (uintptr_t)qpair->responses + idx * sizeof(struct nvme_cqe), sizeof(struct nvme_cqe),
				rnic_mr_lkey(qpair->mr) };
	struct rnic_recv recv = { .id = ID_RECV | idx, .sge = &sge, .nr_sge = 1 };

	return rnic_post_recv(qpair->conn, &recv);
}

/* The data is here, and nobody can change it any more. */
static void finish(struct rdma_qpair *qpair, struct nvme_request *req)
{
	struct rdma_bounce *bounce = &qpair->bounces[req->slot];
	uint16_t status = nvme_cqe_status(&req->cqe);

	if (bounce->nr) {
		if (xfer_of(&req->cmd) == NVME_XFER_TO_HOST && nvme_status_code(status) == NVME_SC_SUCCESS)
			rdma_copy(req, data_of(qpair, bounce), false);
		rdma_bounce_put(qpair, bounce);
	}
	qpair_request_answered(&qpair->q, req, status);
}

static void close_window(struct rdma_qpair *qpair, struct nvme_request *req)
{
	struct rnic_send send = { .id = ID_INVALIDATE | req->slot,
				  .op = RNIC_INVALIDATE,
				  .remote_key = qpair->bounces[req->slot].key,
				  .signaled = true };
	int rc = rnic_post_send(qpair->conn, &send);

	if (rc)
		qpair_fail(&qpair->q, rc, "a key cannot be taken back: %s", strerror(-rc));
}

static void answered(struct rdma_qpair *qpair, const struct nvme_cqe *cqe, const struct rnic_wc *wc)
{
	struct nvme_request *req = qpair_find(&qpair->q, cqe->cid);
	uint32_t key = req ? qpair->bounces[req->slot].key : 0;

	if (!req || qpair->closing[req->slot]) {
		qpair_fail(&qpair->q, -EPROTO, "the target broke the protocol: a response to no outstanding command");
		return;
	}
	if (wc->invalidated && wc->key != key) {
		qpair_fail(&qpair->q, -EPROTO, "the target broke the protocol: it invalidated a key that is another command's");
		return;
	}
	req->cqe = *cqe;
	if (!key || wc->invalidated) {
		finish(qpair, req);
		return;
	}
	qpair->closing[req->slot] = true;
	close_window(qpair, req);
}

static void received(struct rdma_qpair *qpair, const struct rnic_wc *wc)
{
	uint32_t idx = (uint32_t)wc->id;
	struct nvme_cqe cqe;

	if (wc->len != sizeof(cqe)) {
		qpair_fail(&qpair->q, -EPROTO, "the target broke the protocol: a response of %u bytes", wc->len);
		return;
	}
	memcpy(&cqe, qpair->responses + idx * sizeof(cqe), sizeof(cqe));
	if (post_recv(qpair, idx))
		qpair_fail(&qpair->q, -EIO, "a receive cannot be posted");
	else
		answered(qpair, &cqe, wc);
}

static void completed(struct rdma_qpair *qpair, const struct rnic_wc *wc)
{
	struct nvme_request *req;

	if (wc->status != RNIC_OK) {
		qpair_fail(&qpair->q, -ECONNRESET, "the connection to the target is lost: %s", rnic_status_name(wc->status));
		return;
	}
	if (wc->id & ID_RECV) {
		received(qpair, wc);
		return;
	}
	req = qpair->q.slots[(uint32_t)wc->id].req;
	if (wc->id & ID_INVALIDATE) {
		qpair->closing[req->slot] = false;
		finish(qpair, req);
		return;
	}
	if (req && req->nr_tx && --req->nr_tx == 0)
		qpair_request_sent(&qpair->q, req);
}

static bool poll_queue(struct nvme_qpair *q)
{
	struct rdma_qpair *qpair = rdma_of(q);
	struct rnic_wc wcs[POLL_BATCH];
	bool worked = false;
	unsigned nr;

	/* The connection may end with any of them. */
	do {
		nr = qpair->conn ? rnic_cq_poll(qpair->cq, wcs, POLL_BATCH) : 0;
		for (unsigned i = 0; i < nr && qpair->conn; i++)
			completed(qpair, &wcs[i]);
		worked = worked || nr;
	} while (nr == POLL_BATCH);
	if (worked && q->state == QPAIR_LIVE)
		flush_queue(q);
	return worked;
}

static bool cq_ready(void *arg)
{
	struct rdma_qpair *qpair = arg;

	return poll_queue(&qpair->q);
}

/* --- the connection ------------------------------------------------------------------------------------------------------------ */

static void cm_answer(struct rdma_qpair *qpair, int rc)
{
	struct fiber_wait *wait = qpair->cm_wait;

	qpair->cm_wait = NULL;
	if (wait)
		fiber_wake(wait, rc);
}

static void close_queue(struct nvme_qpair *q)
{
	struct rdma_qpair *qpair = rdma_of(q);

	if (qpair->conn) {
		rnic_disconnect(qpair->conn);
		rnic_conn_destroy(qpair->conn); /* no memory is touched from here on */
	}
	if (qpair->cq)
		rnic_cq_destroy(qpair->cq);
	qpair->conn = NULL;
	qpair->cq = NULL;
	for (uint32_t i = 0; i < q->depth; i++) {
		if (q->slots[i].req)
			q->slots[i].req->nr_tx = 0;
	}
	cm_answer(qpair, q->error.err);
}

static void free_queue(struct nvme_qpair *q)
{
	struct rdma_qpair *qpair = rdma_of(q);

	if (qpair->conn)
		rnic_conn_destroy(qpair->conn);
	if (qpair->cq)
		rnic_cq_destroy(qpair->cq);
	rdma_memory_free(qpair);
	qpair_release(q);
	free(qpair);
}

static void rejected(struct rdma_qpair *qpair, const struct rnic_event *event)
{
	struct nvme_rdma_cm_reject reject;

	if (event->params.private_len < sizeof(reject)) {
		qpair_fail(&qpair->q, -ECONNREFUSED, "the connection is refused: does an NVMe/RDMA target listen there?");
		return;
	}
	memcpy(&reject, event->params.private_data, sizeof(reject));
	qpair->reject_status = reject.sts;
	qpair_fail(&qpair->q, -ECONNREFUSED, "the target rejects queue %u: %s (%u)", qpair->q.qid,
		   nvme_rdma_cm_status_name(reject.sts), reject.sts);
}

static void established(struct rdma_qpair *qpair, const struct rnic_event *event)
{
	struct nvme_rdma_cm_accept accept;

	if (event->params.private_len < sizeof(accept)) {
		qpair_fail(&qpair->q, -EPROTO, "the target broke the protocol: its acceptance says nothing");
		return;
	}
	memcpy(&accept, event->params.private_data, sizeof(accept));
	if (accept.recfmt || !accept.crqsize) {
		qpair_fail(&qpair->q, -EPROTO, "the target broke the protocol: an acceptance of format %u, CRQSIZE %u", accept.recfmt,
			   accept.crqsize);
		return;
	}
	/* It has receives for so many commands at a time. */
	if (qpair->q.nr_free > accept.crqsize)
		qpair->q.nr_free = accept.crqsize;
	qpair->established = true;
	cm_answer(qpair, 0);
}

static void on_event(void *arg, const struct rnic_event *event)
{
	struct rdma_qpair *qpair = arg;

	switch (event->type) {
	case RNIC_ESTABLISHED:
		established(qpair, event);
		break;
	case RNIC_REJECTED:
		rejected(qpair, event);
		break;
	case RNIC_UNREACHABLE:
		qpair_fail(&qpair->q, -EHOSTUNREACH, "the target does not answer");
		break;
	case RNIC_DISCONNECTED:
		qpair_fail(&qpair->q, -ECONNRESET, "the target closed the connection");
		break;
	case RNIC_REMOVED:
		qpair_fail(&qpair->q, -ENODEV, "the RDMA device was taken away");
		break;
	case RNIC_BROKEN:
		qpair_fail(&qpair->q, -ECONNRESET, "the connection to the target is lost");
		break;
	default:
		break;
	}
}

static const struct qpair_ops rdma_ops = {
	.flush = flush_queue,
	.poll = poll_queue,
	.close = close_queue,
	.free = free_queue,
};

static int make_queues(struct rdma_qpair *qpair)
{
	struct rnic_device *device = rnic_conn_device(qpair->conn);
	struct rnic_qp_opts opts = {
		.max_send = rnic_info(device)->windows ? 3 * qpair->q.depth : qpair->q.depth,
		.max_recv = qpair->nr_recvs,
		.max_send_sge = 1,
		.max_recv_sge = 1,
	};
	uint32_t qp_num;
	int rc;

	rc = rdma_memory_create(qpair);
	if (!rc)
		rc = rnic_cq_create(device, opts.max_send + opts.max_recv, cq_ready, qpair, &qpair->cq);
	opts.cq = qpair->cq;
	if (!rc)
		rc = rnic_qp_create(qpair->conn, &opts, &qp_num);
	for (uint32_t i = 0; !rc && i < qpair->nr_recvs; i++)
		rc = post_recv(qpair, i);
	return rc;
}

static void cm_timeout(void *arg)
{
	qpair_fail(arg, -ETIMEDOUT, "the target does not answer the connection request");
}

static fiber_fn int cm_connect(struct rdma_qpair *qpair, uint64_t timeout_us)
{
	struct nvme_rdma_cm_request request = {
		.qid = qpair->q.qid,
		.hrqsize = (uint16_t)(qpair->q.depth + 1),
		.hsqsize = (uint16_t)qpair->q.depth,
		.cntlid = qpair->q.qid ? qpair->q.ctrlr->cntlid : NVME_CNTLID_DYNAMIC,
	};
	struct rnic_params params = {
		.private_len = sizeof(request),
		.peer_reads = rnic_info(rnic_conn_device(qpair->conn))->max_peer_reads,
	};
	struct fiber_wait wait;
	int rc;

	memcpy(params.private_data, &request, sizeof(request));
	fiber_wait_init(&wait);
	qpair->cm_wait = &wait;
	timer_init(&qpair->q.tick_timer, cm_timeout, qpair);
	timer_arm(&qpair->q.tick_timer, timeout_us);
	rc = rnic_connect(qpair->conn, &params);
	if (rc)
		qpair_fail(&qpair->q, rc, "the connection request cannot be sent: %s", strerror(-rc));
	return fiber_wait(&wait);
}

static void no_route(struct nvme_error *error, const struct stream_addr *addr, int rc)
{
	nvme_error_set(error, rc, 0, "cannot find a way to %s port %u over RDMA: %s%s", addr->host, addr->port, strerror(-rc),
		       rc == -ENODEV ? ": no RDMA device has a route there" : "");
}

static fiber_fn int rdma_open(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
			      struct nvme_error *error)
{
	uint64_t timeout_us = ctrlr->opts.timeout_us ? ctrlr->opts.timeout_us : QPAIR_DEFAULT_TIMEOUT_US;
	const struct stream_addr *addr = &ctrlr->opts.addr;
	struct rdma_qpair *qpair;
	char why[256];
	int rc;

	rc = rnic_available(why, sizeof(why));
	if (rc) {
		nvme_error_set(error, rc, 0, "%s", why);
		return rc;
	}
	qpair = calloc(1, sizeof(*qpair));
	if (!qpair || qpair_init(&qpair->q, &rdma_ops, ctrlr, qid, size)) {
		if (qpair)
			qpair_release(&qpair->q);
		free(qpair);
		nvme_error_set(error, -ENOMEM, 0, "no memory for a queue of %u entries", size);
		return -ENOMEM;
	}
	qpair->nr_recvs = qpair->q.depth + EXTRA_RECVS;
	/* An admin queue's capsules have no data; an I/O queue's as much as the controller says. */
	if (qid && !ctrlr->id.icdoff && ctrlr->id.ioccsz * 16ull > sizeof(union nvme_cmd))
		qpair->in_capsule_max = ctrlr->id.ioccsz * 16 - (uint32_t)sizeof(union nvme_cmd);
	if (qpair->in_capsule_max > RDMA_ARENA_UNIT)
		qpair->in_capsule_max = RDMA_ARENA_UNIT;
	qpair->capsule_size = (uint32_t)sizeof(union nvme_cmd) + qpair->in_capsule_max;
	rc = rnic_resolve(addr, timeout_us, &qpair->conn);
	if (rc) {
		no_route(error, addr, rc);
		free_queue(&qpair->q);
		return rc;
	}
	rnic_conn_attach(qpair->conn, on_event, qpair);
	rc = make_queues(qpair);
	if (rc) {
		nvme_error_set(error, rc, 0, "no room on RDMA device %s for a queue of %u entries: %s; see the limit on locked memory (ulimit -l)",
			       rnic_info(rnic_conn_device(qpair->conn))->name, size, strerror(-rc));
		free_queue(&qpair->q);
		return rc;
	}
	rc = cm_connect(qpair, timeout_us);
	if (rc) {
		*error = qpair->q.error;
		nvme_qpair_disconnect(&qpair->q);
		return rc;
	}
	timer_cancel(&qpair->q.tick_timer);
	qpair->q.state = QPAIR_LIVE;
	qpair_start_ticking(&qpair->q);
	*ret_qpair = &qpair->q;
	return 0;
}

const struct nvme_transport nvme_transport_rdma = {
	.name = "RDMA",
	.peer = "target",
	.max_xfer_bytes = RDMA_MAX_XFER_BYTES,
	.qpair_open = rdma_open,
};
