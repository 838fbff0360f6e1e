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

void qpair_flush_later(struct nvme_qpair *qpair)
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
	qpair_flush_later(qpair);
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
	req->bad_digest = req->last_seen = req->in_capsule = req->abort_sent = false;
	req->data_done = req->h2c_next = req->h2c_left = 0;
	req->start_tick = qpair->tick;
	list_init(&req->h2c_link);
	return true;
}

void qpair_unstart_request(struct nvme_qpair *qpair, struct nvme_request *req)
{
	qpair->slots[req->slot].req = NULL;
	qpair->free_slots[qpair->nr_free++] = req->slot;
	req->state = NVME_REQUEST_READY;
	req->link.next = qpair->ready.head;
	if (!qpair->ready.head)
		qpair->ready.tail = &req->link.next;
	qpair->ready.head = &req->link;
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
		qpair_flush_later(qpair);
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
	qpair->ops->close(qpair);
	qpair_flush_later(qpair);
}

void qpair_fail(struct nvme_qpair *qpair, int err, const char *fmt, ...)
{
	va_list ap;

	if (qpair->state < QPAIR_ENDING) {
		qpair->error.err = err;
		va_start(ap, fmt);
		vsnprintf(qpair->error.text, sizeof(qpair->error.text), fmt, ap);
		va_end(ap);
		ctrlr_queue_failed(qpair);
	}
	if (qpair->ops->fail && qpair->state != QPAIR_FAILED)
		qpair->ops->fail(qpair);
	else
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
	ctrlr_queue_failed(qpair);
	timer_cancel(&qpair->tick_timer);
	timer_init(&qpair->tick_timer, ending_over, qpair);
	timer_arm(&qpair->tick_timer, QPAIR_ENDING_US);
	qpair_flush_later(qpair);
}

static void flush_task(void *arg)
{
	struct nvme_qpair *qpair = arg;

	qpair->flush_queued = false;
	if (qpair->state == QPAIR_FAILED)
		fail_all(qpair);
	else
		qpair->ops->flush(qpair);
}

/* A command has had its time: Abort first, when there is to be one; then the queue is given up. */
static bool expired(struct nvme_qpair *qpair, struct nvme_request *req)
{
	uint64_t abort_us = qpair->qid ? qpair->ctrlr->opts.abort_timeout_us : 0;
	uint32_t age = qpair->tick - req->start_tick, limit = qpair->timeout_ticks;

	if (req->timeout_ms)
		limit = req->timeout_ms / (QPAIR_TICK_US / 1000) + 1;
	if (age <= limit)
		return false;
	if (abort_us && !req->abort_sent) {
		req->abort_sent = true;
		ctrlr_abort_later(qpair, req);
	}
	return age - limit > abort_us / QPAIR_TICK_US;
}

static void tick(void *arg)
{
	struct nvme_qpair *qpair = arg;

	qpair->tick++;
	for (uint32_t i = 0; i < qpair->depth; i++) {
		struct nvme_request *req = qpair->slots[i].req;

		if (req && !req->never_expires && expired(qpair, req)) {
			qpair_fail(qpair, -ETIMEDOUT, "the %s did not answer %s (opcode %02xh) for %u s",
				   qpair->ctrlr->transport->peer,
				   qpair->qid ? nvme_io_opcode_name(req->cmd.opcode)
					      : nvme_admin_opcode_name(req->cmd.opcode),
				   req->cmd.opcode,
				   (qpair->tick - req->start_tick) / (1000000u / QPAIR_TICK_US));
			return;
		}
	}
	if (qpair->ops->tick)
		qpair->ops->tick(qpair);
	if (qpair->state == QPAIR_LIVE)
		timer_arm(&qpair->tick_timer, QPAIR_TICK_US);
}

bool nvme_qpair_poll(struct nvme_qpair *qpair)
{
	return qpair->ops->poll(qpair);
}

void qpair_start_ticking(struct nvme_qpair *qpair)
{
	timer_init(&qpair->tick_timer, tick, qpair);
	timer_arm(&qpair->tick_timer, QPAIR_TICK_US);
}

/* --- making one ------------------------------------------------------------------------------- */

void qpair_release(struct nvme_qpair *qpair)
{
	free(qpair->slots);
	free(qpair->free_slots);
}

int qpair_init(struct nvme_qpair *qpair, const struct qpair_ops *ops, struct nvme_ctrlr *ctrlr, uint16_t qid,
	       uint32_t size)
{
	uint64_t timeout_us = ctrlr->opts.timeout_us ? ctrlr->opts.timeout_us : QPAIR_DEFAULT_TIMEOUT_US;

	qpair->ops = ops;
	qpair->ctrlr = ctrlr;
	qpair->thread = thread_current();
	qpair->qid = qid;
	qpair->depth = size - 1;
	qpair->timeout_ticks = (uint32_t)(timeout_us / QPAIR_TICK_US) + 1;
	qpair->flush_task.fn = flush_task;
	fifo_init(&qpair->ready);
	timer_init(&qpair->tick_timer, tick, qpair);
	qpair->slots = calloc(qpair->depth, sizeof(*qpair->slots));
	qpair->free_slots = calloc(qpair->depth, sizeof(*qpair->free_slots));
	if (!qpair->slots || !qpair->free_slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < qpair->depth; i++)
		qpair->free_slots[qpair->nr_free++] = (uint16_t)(qpair->depth - 1 - i);
	return 0;
}

fiber_fn void nvme_qpair_disconnect(struct nvme_qpair *qpair)
{
	struct fiber_wait wait;

	if (!qpair)
		return;
	if (qpair->ops->disconnect)
		qpair->ops->disconnect(qpair);
	if (qpair->state < QPAIR_ENDING) {
		nvme_error_set(&qpair->error, -ECONNABORTED, 0, "the queue was disconnected");
		qpair_end(qpair);
	}
	while (qpair->state != QPAIR_FAILED || qpair->nr_outstanding || qpair->flush_queued) {
		fiber_wait_init(&wait);
		qpair->drain_wait = &wait;
		qpair_flush_later(qpair);
		fiber_wait(&wait);
	}
	qpair->ops->free(qpair);
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

/* --- the way of fibers ------------------------------------------------------------------------ */

struct execution {
	struct nvme_request req;
	struct fiber_wait wait;
	struct nvme_qpair *qpair;
	int err; /* of the queue, when that is why it ended */
};

static void executed(struct nvme_request *req, uint16_t status)
{
	struct execution *exec = container_of(req, struct execution, req);

	/* The queue may be gone when the fiber runs. */
	if (nvme_status_code(status) == NVME_SC_HOST_PATH_ERROR && exec->qpair->state >= QPAIR_ENDING)
		exec->err = exec->qpair->error.err;
	fiber_wake(&exec->wait, status);
}

static fiber_fn int execute(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
			    uint32_t timeout_ms, bool guarded, struct nvme_cqe *ret_cqe)
{
	struct iovec iov = {buf, len_bytes};
	struct execution exec = {
		.req = {.cmd = *cmd,
			.iov = &iov,
			.iovcnt = len_bytes ? 1 : 0,
			.len = len_bytes,
			.done = executed,
			.timeout_ms = timeout_ms,
			.guarded = guarded},
		.qpair = qpair,
	};
	int status;

	fiber_wait_init(&exec.wait);
	nvme_qpair_submit(qpair, &exec.req);
	status = fiber_wait(&exec.wait);
	if (ret_cqe)
		*ret_cqe = exec.req.cqe;
	return exec.err ? exec.err : status;
}

fiber_fn int nvme_execute(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
			  struct nvme_cqe *ret_cqe)
{
	return execute(qpair, cmd, buf, len_bytes, 0, false, ret_cqe);
}

fiber_fn int nvme_execute_within(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
				 uint32_t timeout_ms, struct nvme_cqe *ret_cqe)
{
	return execute(qpair, cmd, buf, len_bytes, timeout_ms, false, ret_cqe);
}

fiber_fn int nvme_execute_guarded(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
				  uint32_t timeout_ms, struct nvme_cqe *ret_cqe)
{
	return execute(qpair, cmd, buf, len_bytes, timeout_ms, true, ret_cqe);
}
