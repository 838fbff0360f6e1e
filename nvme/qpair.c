/*
 * A queue's life, and that of the requests on it: identifiers, completion, time limits, and the one way in
 * which a queue ends.
 *
 * A request is READY until it has a command identifier and room in the batch being sent; IN_FLIGHT until it
 * is answered; DRAINING when its answer came before its data had left, so that done never gives back memory
 * that is still being read. A queue fails once, for a reason it keeps; whatever is outstanding then completes
 * from a task.  When the target is to be told why, the queue is ENDING until the target has closed, at most
 * half a second: closing at once, with bytes unread, would have TCP throw the H2CTermReq away.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define CID_SLOT_BITS      12
#define DEFAULT_TIMEOUT_US 30000000ull
#define SOCKET_BUFFER_BYTES \
	(2u << 20) /* measured: smaller ones slow large transfers down, larger ones gain nothing */

void nvme_error_set(struct nvme_error *error, int err, uint16_t status, const char *fmt, ...)
{
	va_list ap;

	if (!error)
		return;
	error->err = err;
	error->status = status;
	va_start(ap, fmt);
	vsnprintf(error->text, sizeof(error->text), fmt, ap);
	va_end(ap);
}

/* --- requests --------------------------------------------------------------------------------- */

static void queue_flush(struct nvme_qpair *qpair)
{
	if (qpair->flush_queued)
		return;
	qpair->flush_queued = true;
	task_run_later(&qpair->flush_task, qpair->flush_task.fn, qpair);
}

void nvme_qpair_submit(struct nvme_qpair *qpair, struct nvme_request *req)
{
	assert(req->state == NVME_REQUEST_IDLE && req->iovcnt <= NVME_REQUEST_MAX_IOVS);
	req->state = NVME_REQUEST_READY;
	qpair->nr_outstanding++;
	fifo_push(&qpair->ready, &req->link);
	queue_flush(qpair);
}

void nvme_qpair_submit_fused(struct nvme_qpair *qpair, struct nvme_request *first,
			     struct nvme_request *second)
{
	assert(qpair->depth >= 2);
	first->cmd.flags |= NVME_CMD_FUSE_FIRST;
	second->cmd.flags |= NVME_CMD_FUSE_SECOND;
	nvme_qpair_submit(qpair, first);
	nvme_qpair_submit(qpair, second);
}

bool qpair_start_request(struct nvme_qpair *qpair, struct nvme_request *req)
{
	if (!qpair->nr_free)
		return false;
	uint16_t idx = qpair->free_slots[--qpair->nr_free];
	struct slot *slot = &qpair->slots[idx];

	slot->req = req;
	req->slot = idx;
	req->cmd.cid = (uint16_t)(slot->generation << CID_SLOT_BITS | idx);
	req->state = NVME_REQUEST_IN_FLIGHT;
	req->nr_tx = 0;
	req->bad_digest = req->last_seen = req->in_capsule = false;
	req->data_done = req->h2c_next = req->h2c_left = 0;
	req->start_tick = qpair->tick;
	list_init(&req->h2c_link);
	return true;
}

/* The request in flight with this identifier; NULL: none, or one from before. */
struct nvme_request *qpair_find(struct nvme_qpair *qpair, uint16_t cid)
{
	uint16_t idx = cid & ((1u << CID_SLOT_BITS) - 1);
	struct nvme_request *req;

	if (idx >= qpair->depth || !(req = qpair->slots[idx].req))
		return NULL;
	return req->cmd.cid == cid && req->state == NVME_REQUEST_IN_FLIGHT ? req : NULL;
}

static void complete(struct nvme_qpair *qpair, struct nvme_request *req, uint16_t status)
{
	qpair->nr_outstanding--;
	req->state = NVME_REQUEST_IDLE;
	req->done(req, status);
}

static void complete_slot(struct nvme_qpair *qpair, struct nvme_request *req, uint16_t status)
{
	struct slot *slot = &qpair->slots[req->slot];

	slot->req = NULL;
	slot->generation++;
	qpair->free_slots[qpair->nr_free++] = req->slot;
	complete(qpair, req, status);
}

void qpair_request_answered(struct nvme_qpair *qpair, struct nvme_request *req, uint16_t status)
{
	list_del(&req->h2c_link);
	req->h2c_left = 0;
	if (req->nr_tx) {
		req->state = NVME_REQUEST_DRAINING;
		req->status = status;
		return;
	}
	complete_slot(qpair, req, status);
	if (!fifo_empty(&qpair->ready))
		queue_flush(qpair);
}

void qpair_request_sent(struct nvme_qpair *qpair, struct nvme_request *req)
{
	if (req->state == NVME_REQUEST_DRAINING)
		complete_slot(qpair, req, req->status);
}

/* --- the queue's end -------------------------------------------------------------------------- */

static void fail_all(void *arg)
{
	struct nvme_qpair *qpair = arg;
	struct fifo ready = qpair->ready;

	/* What is submitted from the callbacks waits for the next turn of this. */
	if (fifo_empty(&qpair->ready))
		fifo_init(&ready);
	fifo_init(&qpair->ready);
	for (uint32_t i = 0; i < qpair->depth; i++) {
		struct nvme_request *req = qpair->slots[i].req;

		if (!req)
			continue;
		list_del(&req->h2c_link);
		complete_slot(qpair, req, NVME_SC_HOST_PATH_ERROR);
	}
	for (struct fifo_link *link; (link = fifo_pop(&ready)) != NULL;)
		complete(qpair, container_of(link, struct nvme_request, link), NVME_SC_HOST_PATH_ERROR);
	if (qpair->ic_wait)
		fiber_wake(qpair->ic_wait, qpair->error.err);
	qpair->ic_wait = NULL;
	if (qpair->drain_wait)
		fiber_wake(qpair->drain_wait, 0);
	qpair->drain_wait = NULL;
}

void qpair_end(struct nvme_qpair *qpair)
{
	if (qpair->state == QPAIR_FAILED)
		return;
	qpair->state = QPAIR_FAILED;
	timer_cancel(&qpair->tick_timer);
	stream_close(qpair->stream, false);
	qpair->stream = NULL;
	qpair->tx.first = qpair->tx.count = 0;
	queue_flush(qpair);
}

void qpair_fail(struct nvme_qpair *qpair, int err, const char *fmt, ...)
{
	va_list ap;

	if (qpair->state < QPAIR_ENDING) {
		qpair->error.err = err;
		va_start(ap, fmt);
		vsnprintf(qpair->error.text, sizeof(qpair->error.text), fmt, ap);
		va_end(ap);
	}
	qpair_end(qpair);
}

static void ending_over(void *arg)
{
	qpair_end(arg);
}

void qpair_end_after_send(struct nvme_qpair *qpair, int err, const char *fmt, ...)
{
	va_list ap;

	qpair->state = QPAIR_ENDING;
	qpair->error.err = err;
	va_start(ap, fmt);
	vsnprintf(qpair->error.text, sizeof(qpair->error.text), fmt, ap);
	va_end(ap);
	timer_cancel(&qpair->tick_timer);
	timer_init(&qpair->tick_timer, ending_over, qpair);
	timer_arm(&qpair->tick_timer, QPAIR_ENDING_US);
	queue_flush(qpair);
}

static void flush_task(void *arg)
{
	struct nvme_qpair *qpair = arg;

	qpair->flush_queued = false;
	if (qpair->state == QPAIR_FAILED)
		fail_all(qpair);
	else
		tcp_flush(qpair);
}

static void tick(void *arg)
{
	struct nvme_qpair *qpair = arg;

	qpair->tick++;
	for (uint32_t i = 0; i < qpair->depth; i++) {
		const struct nvme_request *req = qpair->slots[i].req;

		if (req && !req->never_expires && qpair->tick - req->start_tick > qpair->timeout_ticks) {
			qpair_fail(qpair, -ETIMEDOUT, "the target did not answer %s (opcode %02xh) for %u s",
				   qpair->qid ? nvme_io_opcode_name(req->cmd.opcode)
					      : nvme_admin_opcode_name(req->cmd.opcode),
				   req->cmd.opcode, qpair->timeout_ticks / (1000000u / QPAIR_TICK_US));
			return;
		}
	}
	timer_arm(&qpair->tick_timer, QPAIR_TICK_US);
}

static void ic_timeout(void *arg)
{
	qpair_fail(arg, -ETIMEDOUT,
		   "the peer took the connection but did not answer ICReq: is it an NVMe/TCP port?");
}

bool nvme_qpair_poll(struct nvme_qpair *qpair)
{
	bool queued = qpair->flush_queued;
	bool worked;

	if (qpair->state >= QPAIR_ENDING) {
		tcp_flush(qpair);
		if (qpair->state == QPAIR_ENDING)
			tcp_discard(qpair);
		return queued;
	}
	/* What completions submit is sent once, below, without a task. */
	qpair->flush_queued = true;
	worked = tcp_receive(qpair);
	qpair->flush_queued = queued;
	if (qpair->state == QPAIR_FAILED)
		queue_flush(qpair);
	else
		tcp_flush(qpair);
	return worked;
}

static void on_ready(void *arg, unsigned events)
{
	struct nvme_qpair *qpair = arg;

	if (events & STREAM_WRITABLE)
		qpair->tx.blocked = false;
	nvme_qpair_poll(qpair);
}

/* --- making one ------------------------------------------------------------------------------- */

static void qpair_free(struct nvme_qpair *qpair)
{
	free(qpair->slots);
	free(qpair->free_slots);
	free(qpair->rx.buf);
	free(qpair);
}

static struct nvme_qpair *qpair_alloc(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size)
{
	struct nvme_qpair *qpair = calloc(1, sizeof(*qpair));
	uint64_t timeout_us = ctrlr->opts.timeout_us ? ctrlr->opts.timeout_us : DEFAULT_TIMEOUT_US;

	if (!qpair)
		return NULL;
	qpair->depth = size - 1;
	qpair->slots = calloc(qpair->depth, sizeof(*qpair->slots));
	qpair->free_slots = calloc(qpair->depth, sizeof(*qpair->free_slots));
	qpair->rx.buf = malloc(RX_BUFFER_SIZE);
	if (!qpair->slots || !qpair->free_slots || !qpair->rx.buf) {
		qpair_free(qpair);
		return NULL;
	}
	for (uint32_t i = 0; i < qpair->depth; i++)
		qpair->free_slots[qpair->nr_free++] = (uint16_t)(qpair->depth - 1 - i);
	qpair->ctrlr = ctrlr;
	qpair->thread = thread_current();
	qpair->qid = qid;
	qpair->timeout_ticks = (uint32_t)(timeout_us / QPAIR_TICK_US) + 1;
	qpair->in_capsule_max = NVME_TCP_ADMIN_CAPSULE_DATA;
	qpair->flush_task.fn = flush_task;
	qpair->tx.max_data_bytes = ctrlr->opts.batch_bytes ? ctrlr->opts.batch_bytes : TX_BATCH_BYTES;
	fifo_init(&qpair->ready);
	list_init(&qpair->h2c);
	timer_init(&qpair->tick_timer, ic_timeout, qpair);
	return qpair;
}

/* Takes the answer to ICReq.  Source: NVMe/TCP 1.0, 3.6.2.3 "ICResp". */
static int apply_ic_resp(struct nvme_qpair *qpair, struct nvme_error *error)
{
	const struct nvme_tcp_ic_resp *resp = &qpair->ic_resp;
	uint8_t asked = (uint8_t)((qpair->ctrlr->opts.hdgst ? NVME_TCP_DGST_HEADER : 0) |
				  (qpair->ctrlr->opts.ddgst ? NVME_TCP_DGST_DATA : 0));
	uint32_t bad;

	if (resp->pfv)
		bad = offsetof(struct nvme_tcp_ic_resp, pfv);
	else if (resp->cpda > NVME_TCP_PDA_MAX)
		bad = offsetof(struct nvme_tcp_ic_resp, cpda);
	else if (resp->dgst & ~asked)
		bad = offsetof(struct nvme_tcp_ic_resp, dgst);
	else if (resp->maxh2cdata < NVME_TCP_MIN_MAXH2CDATA || resp->maxh2cdata % 4)
		bad = offsetof(struct nvme_tcp_ic_resp, maxh2cdata);
	else {
		qpair->hdgst = resp->dgst & NVME_TCP_DGST_HEADER;
		qpair->ddgst = resp->dgst & NVME_TCP_DGST_DATA;
		qpair->cpda = resp->cpda;
		qpair->maxh2cdata = resp->maxh2cdata;
		return 0;
	}
	tcp_terminate(qpair, NVME_TCP_FES_UNSUPPORTED_PARAM, bad, resp, sizeof(*resp),
		      "an ICResp with a value out of range");
	*error = qpair->error;
	return error->err;
}

/* ICReq and its answer, within the time limit. */
static fiber_fn int exchange_ic(struct nvme_qpair *qpair, struct nvme_error *error)
{
	struct fiber_wait wait;
	int rc;

	fiber_wait_init(&wait);
	qpair->ic_wait = &wait;
	tcp_send_ic_req(qpair, qpair->ctrlr->opts.hdgst, qpair->ctrlr->opts.ddgst);
	rc = fiber_wait(&wait);
	if (rc) {
		*error = qpair->error;
		return rc;
	}
	return apply_ic_resp(qpair, error);
}

fiber_fn int qpair_open(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
			struct nvme_error *error)
{
	const struct stream_addr *addr = &ctrlr->opts.addr;
	struct nvme_qpair *qpair = qpair_alloc(ctrlr, qid, size);
	uint64_t timeout_us = ctrlr->opts.timeout_us ? ctrlr->opts.timeout_us : DEFAULT_TIMEOUT_US;
	int rc;

	if (!qpair) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for a queue of %u entries", size);
		return -ENOMEM;
	}
	rc = stream_connect(addr, timeout_us, &qpair->stream);
	if (rc) {
		nvme_error_set(error, rc, 0, "cannot connect to %s port %u: %s%s", addr->host, addr->port,
			       strerror(-rc), rc == -ECONNREFUSED ? ": does a target listen there?" : "");
		qpair_free(qpair);
		return rc;
	}
	stream_set_buffer_sizes(qpair->stream, SOCKET_BUFFER_BYTES, SOCKET_BUFFER_BYTES);
	timer_arm(&qpair->tick_timer, timeout_us);
	stream_set_ready(qpair->stream, on_ready, qpair);
	rc = exchange_ic(qpair, error);
	if (rc) {
		nvme_qpair_disconnect(qpair);
		return rc;
	}
	timer_cancel(&qpair->tick_timer);
	timer_init(&qpair->tick_timer, tick, qpair);
	timer_arm(&qpair->tick_timer, QPAIR_TICK_US);
	*ret_qpair = qpair;
	return 0;
}

fiber_fn void nvme_qpair_disconnect(struct nvme_qpair *qpair)
{
	struct fiber_wait wait;

	if (!qpair)
		return;
	if (qpair->state < QPAIR_ENDING) {
		nvme_error_set(&qpair->error, -ECONNABORTED, 0, "the queue was disconnected");
		qpair_end(qpair);
	}
	while (qpair->state != QPAIR_FAILED || qpair->nr_outstanding || qpair->flush_queued) {
		fiber_wait_init(&wait);
		qpair->drain_wait = &wait;
		queue_flush(qpair);
		fiber_wait(&wait);
	}
	qpair_free(qpair);
}

/* --- what others ask -------------------------------------------------------------------------- */

uint32_t nvme_qpair_depth(const struct nvme_qpair *qpair)
{
	return qpair->depth;
}

bool nvme_qpair_is_live(const struct nvme_qpair *qpair)
{
	return qpair->state == QPAIR_LIVE;
}

const struct nvme_error *nvme_qpair_error(const struct nvme_qpair *qpair)
{
	return &qpair->error;
}

bool nvme_qpair_has_hdgst(const struct nvme_qpair *qpair)
{
	return qpair->hdgst;
}

bool nvme_qpair_has_ddgst(const struct nvme_qpair *qpair)
{
	return qpair->ddgst;
}

/* --- the way of fibers ------------------------------------------------------------------------ */

struct execution {
	struct nvme_request req;
	struct fiber_wait wait;
};

static void executed(struct nvme_request *req, uint16_t status)
{
	struct execution *exec = container_of(req, struct execution, req);

	fiber_wake(&exec->wait, status);
}

fiber_fn int nvme_execute(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
			  struct nvme_cqe *ret_cqe)
{
	struct iovec iov = {buf, len_bytes};
	struct execution exec = {
		.req = {.cmd = *cmd,
			.iov = &iov,
			.iovcnt = len_bytes ? 1 : 0,
			.len = len_bytes,
			.done = executed},
	};
	int status;

	fiber_wait_init(&exec.wait);
	nvme_qpair_submit(qpair, &exec.req);
	status = fiber_wait(&exec.wait);
	if (ret_cqe)
		*ret_cqe = exec.req.cqe;
	if (nvme_status_code((uint16_t)status) == NVME_SC_HOST_PATH_ERROR && qpair->state >= QPAIR_ENDING)
		return qpair->error.err;
	return status;
}
