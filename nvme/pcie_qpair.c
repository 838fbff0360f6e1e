/*
 * A queue pair over PCIe: commands go into the ring when the turn's task runs, one doorbell for all of them; completions are
 * found by their phase.
 *
 * The function may write to a request's memory until it has answered, or is stopped.  A queue that is given up is therefore
 * ENDING, with nothing completed, until the controller's DMA has stopped (pcie_ctrlr.dma_stopped) or the function is gone;
 * then it is FAILED and everything completes.  A queue that is given up takes its controller with it: it has it stopped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/pcie.h"

#define ENDING_POLL_US 5000u

#define unlikely(x) __builtin_expect(!!(x), 0)

void *pcie_dma_alloc(struct nvme_bar *bar, size_t len, uint64_t *ret_addr)
{
	size_t align = PCIE_PAGE_SIZE;
	void *va;

	/* A power of two aligned to itself never straddles two hugepages: contiguous whatever the addresses are. */
	while (align < len)
		align <<= 1;
	va = dma_alloc((len + PCIE_PAGE_SIZE - 1) & ~(size_t)(PCIE_PAGE_SIZE - 1), align);
	if (va && !bar->ops->dma_addr(bar, va, ret_addr)) {
		dma_free(va);
		va = NULL;
	}
	return va;
}

/* --- doorbells -------------------------------------------------------------------------------- */

/* Whether moving from old to now passes the index at which the controller wants to be told.
 * Source: NVM Express Base 2.0, B.5 "Updating Controller Doorbell Properties using a Shadow Doorbell Buffer". */
static bool passes_event(uint32_t event, uint32_t now, uint32_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static void ring(struct pcie_qpair *qpair, struct pcie_doorbell *db, uint32_t value)
{
	uint32_t old = db->value;

	db->value = value;
	if (db->shadow) {
		__atomic_store_n(db->shadow, value, __ATOMIC_RELEASE);
		/* The controller writes the event index and then reads the shadow; we the other way round. */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!passes_event(__atomic_load_n(db->event, __ATOMIC_RELAXED), value, old))
			return;
	}
	qpair->bar->ops->write32(qpair->bar, db->offset, value);
}

/* --- submitting ------------------------------------------------------------------------------- */

static void refuse(struct pcie_qpair *qpair, struct nvme_request *req)
{
	pcie_data_release(qpair, req, false);
	qpair_request_answered(&qpair->q, req, NVME_SC_INVALID_FIELD);
}

static void flush_queue(struct nvme_qpair *q)
{
	struct pcie_qpair *qpair = pcie_of(q);
	bool any = false;

	if (q->state != QPAIR_LIVE)
		return;
	while (!fifo_empty(&q->ready)) {
		struct nvme_request *req = container_of(q->ready.head, struct nvme_request, link);
		int rc;

		if (!qpair_start_request(q, req))
			break;
		fifo_pop(&q->ready);
		rc = pcie_data_point(qpair, req);
		if (unlikely(rc == -ENOMEM)) {
			/* No memory means waiting: for a completion that gives some back, or a tick. */
			pcie_data_release(qpair, req, false);
			qpair_unstart_request(q, req);
			break;
		}
		if (unlikely(rc)) {
			refuse(qpair, req);
			continue;
		}
		if (unlikely(qpair->in_cmb))
			pcie_cmb_write(&qpair->sq[qpair->sq_tail], &req->cmd);
		else
			memcpy(&qpair->sq[qpair->sq_tail], &req->cmd, sizeof(req->cmd));
		if (++qpair->sq_tail == qpair->size)
			qpair->sq_tail = 0;
		any = true;
	}
	if (!any)
		return;
	/* The entries are written before the controller is told. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	ring(qpair, &qpair->sq_doorbell, qpair->sq_tail);
}

/* --- completing ------------------------------------------------------------------------------- */

static void bad_completion(struct pcie_qpair *qpair, const struct nvme_cqe *cqe)
{
	qpair_fail(&qpair->q, -EPROTO, "%s completes what was never asked for: queue %u, identifier %04xh, status %03xh",
		   qpair->bar->name, cqe->sqid, cqe->cid, nvme_status_code(nvme_cqe_status(cqe)));
}

static bool take_completion(struct pcie_qpair *qpair, struct nvme_cqe cqe)
{
	struct nvme_request *req = qpair_find(&qpair->q, cqe.cid);
	uint16_t status = nvme_cqe_status(&cqe);

	if (unlikely(!req || cqe.sqid != qpair->q.qid || cqe.sqhd >= qpair->size)) {
		bad_completion(qpair, &cqe);
		return false;
	}
	req->cqe = cqe;
	if (unlikely(qpair->slots[req->slot].bounce != NULL))
		pcie_data_release(qpair, req, !nvme_status_code(status));
	qpair_request_answered(&qpair->q, req, status);
	return true;
}

static bool is_new(const struct pcie_qpair *qpair)
{
	uint16_t field = __atomic_load_n(&qpair->cq[qpair->cq_head].status_field, __ATOMIC_ACQUIRE);

	return (field & 1) == qpair->phase;
}

static bool take_completions(struct pcie_qpair *qpair)
{
	unsigned nr = 0;

	while (nr < PCIE_POLL_MAX && is_new(qpair)) {
		struct nvme_cqe cqe = qpair->cq[qpair->cq_head];

		if (++qpair->cq_head == qpair->size) {
			qpair->cq_head = 0;
			qpair->phase ^= 1;
		}
		nr++;
		if (!take_completion(qpair, cqe))
			return true;
	}
	if (nr)
		ring(qpair, &qpair->cq_doorbell, qpair->cq_head);
	return nr;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void watch_ending(struct pcie_qpair *qpair)
{
	if (pcie_dma_stopped(qpair->pcie) || nvme_bar_removed(qpair->bar))
		qpair_end(&qpair->q);
}

static void ending_tick(void *arg)
{
	struct pcie_qpair *qpair = arg;

	if (!qpair->stop_asked)
		qpair->stop_asked = pcie_stop_dma_later(qpair->q.ctrlr);
	watch_ending(qpair);
	if (qpair->q.state == QPAIR_ENDING)
		timer_arm(&qpair->q.tick_timer, ENDING_POLL_US);
}

static void fail_queue(struct nvme_qpair *q)
{
	if (q->state == QPAIR_ENDING)
		return;
	q->state = QPAIR_ENDING;
	timer_cancel(&q->tick_timer);
	timer_init(&q->tick_timer, ending_tick, pcie_of(q));
	timer_arm(&q->tick_timer, 0);
}

/* Of its queues, the one that asks first finds the reason; the others find the controller stopped. */
static void notice_stop(struct pcie_qpair *qpair)
{
	if (nvme_bar_removed(qpair->bar))
		qpair_fail(&qpair->q, -ENODEV, "%s was removed", qpair->bar->name);
	else if (pcie_dma_stopped(qpair->pcie))
		qpair_fail(&qpair->q, -ECONNABORTED, "%s was disabled", qpair->bar->name);
}

/* A controller that is gone, stopped or in a fatal state is noticed within a tick. */
static void tick_queue(struct nvme_qpair *q)
{
	struct pcie_qpair *qpair = pcie_of(q);
	uint32_t csts;

	notice_stop(qpair);
	if (q->state == QPAIR_LIVE && !fifo_empty(&q->ready))
		flush_queue(q);
	if (q->qid || q->state != QPAIR_LIVE)
		return;
	csts = qpair->bar->ops->read32(qpair->bar, NVME_PROP_CSTS);
	if (csts == UINT32_MAX) {
		__atomic_store_n(&qpair->bar->removed, true, __ATOMIC_RELEASE);
		qpair_fail(q, -ENODEV, "%s is gone", qpair->bar->name);
	} else if (csts & NVME_CSTS_CFS) {
		qpair_fail(q, -EIO, "%s reports a fatal status", qpair->bar->name);
	}
}

static bool poll_queue(struct nvme_qpair *q)
{
	struct pcie_qpair *qpair = pcie_of(q);
	bool queued = q->flush_queued, worked;

	if (unlikely(q->state != QPAIR_LIVE)) {
		if (q->state == QPAIR_ENDING)
			watch_ending(qpair);
		return false;
	}
	/* What completions submit is rung for once, below, without a task. */
	q->flush_queued = true;
	worked = take_completions(qpair);
	if (unlikely(pcie_dma_stopped(qpair->pcie)) && q->state == QPAIR_LIVE)
		notice_stop(qpair);
	q->flush_queued = queued;
	if (worked && q->state == QPAIR_LIVE)
		flush_queue(q);
	else if (q->state == QPAIR_FAILED)
		qpair_flush_later(q);
	return worked;
}

static enum poll_result poll_turn(void *arg)
{
	return poll_queue(arg) ? POLL_BUSY : POLL_IDLE;
}

/* Of what is out: the request for events, which nobody waits for. */
static unsigned waits_for_ever(const struct pcie_qpair *qpair)
{
	return !qpair->q.qid && qpair->q.ctrlr->aer_busy;
}

static bool arm_wake(void *arg)
{
	struct pcie_qpair *qpair = arg;

	if (qpair->q.state != QPAIR_LIVE)
		return true; /* its timer looks after it */
	if (qpair->has_irq)
		qpair->bar->ops->irq_arm(qpair->bar, &qpair->irq);
	else if (qpair->q.nr_outstanding > waits_for_ever(qpair))
		return false; /* nothing would wake us */
	return !is_new(qpair);
}

/* --- making and freeing ----------------------------------------------------------------------- */

static void close_queue(struct nvme_qpair *q)
{
	struct pcie_qpair *qpair = pcie_of(q);

	if (qpair->poller)
		poller_stop(qpair->poller);
	qpair->poller = NULL;
	for (uint32_t i = 0; i < q->depth; i++) {
		dma_free(qpair->slots[i].bounce);
		qpair->slots[i].bounce = NULL;
	}
}

static void free_queue(struct nvme_qpair *q)
{
	struct pcie_qpair *qpair = pcie_of(q);

	if (!qpair->in_cmb)
		dma_free(qpair->sq);
	dma_free(qpair->cq);
	dma_free(qpair->pages);
	free(qpair->slots);
	qpair_release(q);
	free(qpair);
}

struct queue_call {
	struct nvme_ctrlr *ctrlr;
	uint16_t qid;
	bool stop; /* with the controller, not by itself */
};

/* On the controller's thread.  The function has let go of the rings when both are deleted. */
static int delete_queue(void *arg)
{
	struct queue_call *call = arg;
	union nvme_cmd cmd = {.opcode = NVME_ADMIN_DELETE_IO_SQ};
	int rc = -ENODEV;

	cmd.queue.qid = call->qid;
	if (!call->stop && nvme_qpair_is_live(call->ctrlr->admin))
		rc = nvme_execute(call->ctrlr->admin, &cmd, NULL, 0, NULL);
	if (!rc) {
		cmd.opcode = NVME_ADMIN_DELETE_IO_CQ;
		rc = nvme_execute(call->ctrlr->admin, &cmd, NULL, 0, NULL);
	}
	if (rc)
		pcie_stop_dma(call->ctrlr);
	return 0;
}

/* Upon return the function uses neither rings nor requests' memory. */
static fiber_fn void disconnect_queue(struct nvme_qpair *q)
{
	struct pcie_qpair *qpair = pcie_of(q);
	struct queue_call call = {.ctrlr = q->ctrlr, .qid = q->qid, .stop = q->state != QPAIR_LIVE || !q->qid};

	if (q->state == QPAIR_LIVE) {
		nvme_error_set(&q->error, -ECONNABORTED, 0, "the queue was disconnected");
		q->state = QPAIR_ENDING;
		timer_cancel(&q->tick_timer);
	}
	if (q->state == QPAIR_ENDING && qpair->created && !pcie_dma_stopped(qpair->pcie)) {
		if (thread_call_fiber(q->ctrlr->thread, delete_queue, &call) == -ENOMEM)
			pcie_stop_dma(q->ctrlr);
	}
	qpair_end(q);
	if (qpair->has_irq)
		qpair->bar->ops->irq_release(qpair->bar, &qpair->irq);
	qpair->has_irq = false;
}

static const struct qpair_ops pcie_ops = {
	.flush = flush_queue,
	.poll = poll_queue,
	.close = close_queue,
	.fail = fail_queue,
	.tick = tick_queue,
	.disconnect = disconnect_queue,
	.free = free_queue,
};

static int alloc_slots(struct pcie_qpair *qpair)
{
	uint32_t nr = qpair->q.depth;

	qpair->slots = calloc(nr, sizeof(*qpair->slots));
	qpair->pages = dma_alloc((size_t)nr * PCIE_PAGE_SIZE, PCIE_PAGE_SIZE);
	if (!qpair->slots || !qpair->pages)
		return -ENOMEM;
	for (uint32_t i = 0; i < nr; i++) {
		qpair->slots[i].page = (char *)qpair->pages + (size_t)i * PCIE_PAGE_SIZE;
		if (!qpair->bar->ops->dma_addr(qpair->bar, qpair->slots[i].page, &qpair->slots[i].page_addr))
			return -ENOMEM;
	}
	return 0;
}

static void set_doorbells(struct pcie_qpair *qpair)
{
	struct pcie_ctrlr *pcie = qpair->pcie;
	uint32_t qid = qpair->q.qid;

	qpair->sq_doorbell.offset = PCIE_DOORBELLS + 2 * qid * pcie->doorbell_stride;
	qpair->cq_doorbell.offset = PCIE_DOORBELLS + (2 * qid + 1) * pcie->doorbell_stride;
	if (!pcie->shadow || !qid || (2 * qid + 2) * pcie->doorbell_stride > PCIE_PAGE_SIZE)
		return;
	qpair->sq_doorbell.shadow = pcie->shadow + 2 * qid * pcie->doorbell_stride / 4;
	qpair->sq_doorbell.event = pcie->event + 2 * qid * pcie->doorbell_stride / 4;
	qpair->cq_doorbell.shadow = pcie->shadow + (2 * qid + 1) * pcie->doorbell_stride / 4;
	qpair->cq_doorbell.event = pcie->event + (2 * qid + 1) * pcie->doorbell_stride / 4;
	*qpair->sq_doorbell.shadow = *qpair->sq_doorbell.event = 0;
	*qpair->cq_doorbell.shadow = *qpair->cq_doorbell.event = 0;
}

int pcie_qpair_alloc(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct pcie_qpair **ret_qpair)
{
	struct pcie_qpair *qpair = calloc(1, sizeof(*qpair));
	int rc;

	if (!qpair)
		return -ENOMEM;
	qpair->pcie = ctrlr->pcie;
	qpair->bar = ctrlr->pcie->bar;
	qpair->size = size;
	qpair->phase = 1;
	rc = qpair_init(&qpair->q, &pcie_ops, ctrlr, qid, size);
	if (!rc)
		rc = alloc_slots(qpair);
	if (!rc) {
		qpair->sq = pcie_dma_alloc(qpair->bar, size * sizeof(*qpair->sq), &qpair->sq_addr);
		qpair->cq = pcie_dma_alloc(qpair->bar, size * sizeof(*qpair->cq), &qpair->cq_addr);
		if (!qpair->sq || !qpair->cq)
			rc = -ENOMEM;
	}
	if (rc) {
		free_queue(&qpair->q);
		return rc;
	}
	set_doorbells(qpair);
	*ret_qpair = qpair;
	return 0;
}

void pcie_qpair_go(struct pcie_qpair *qpair)
{
	qpair->q.state = QPAIR_LIVE;
	qpair_start_ticking(&qpair->q);
	qpair->poller = poller_start("nvme", poll_turn, qpair, 0);
	poller_set_wake(qpair->poller, arm_wake);
}
