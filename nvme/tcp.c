/*
 * A queue over TCP from its connection to its end: ICReq and ICResp, readiness, and closing.
 *
 * tcp_tx.c and tcp_rx.c are its two halves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define SOCKET_BUFFER_BYTES \
	(2u << 20) /* measured: smaller ones slow large transfers down, larger ones gain nothing */

static void ic_timeout(void *arg)
{
	qpair_fail(arg, -ETIMEDOUT,
		   "the peer took the connection but did not answer ICReq: is it an NVMe/TCP port?");
}

static bool poll_queue(struct nvme_qpair *q)
{
	struct tcp_qpair *qpair = tcp_of(q);
	bool queued = q->flush_queued;
	bool worked;

	if (q->state >= QPAIR_ENDING) {
		tcp_flush(qpair);
		if (q->state == QPAIR_ENDING)
			tcp_discard(qpair);
		return queued;
	}
	/* What completions submit is sent once, below, without a task. */
	q->flush_queued = true;
	worked = tcp_receive(qpair);
	q->flush_queued = queued;
	if (q->state == QPAIR_FAILED)
		qpair_flush_later(q);
	else
		tcp_flush(qpair);
	return worked;
}

static void on_ready(void *arg, unsigned events)
{
	struct tcp_qpair *qpair = arg;

	if (events & STREAM_WRITABLE)
		qpair->tx.blocked = false;
	poll_queue(&qpair->q);
}

static void flush_queue(struct nvme_qpair *q)
{
	tcp_flush(tcp_of(q));
}

static void close_queue(struct nvme_qpair *q)
{
	struct tcp_qpair *qpair = tcp_of(q);

	stream_close(qpair->stream, false);
	qpair->stream = NULL;
	qpair->tx.first = qpair->tx.count = 0;
	if (qpair->ic_wait)
		fiber_wake(qpair->ic_wait, q->error.err);
	qpair->ic_wait = NULL;
}

static void free_queue(struct nvme_qpair *q)
{
	struct tcp_qpair *qpair = tcp_of(q);

	qpair_release(q);
	free(qpair->rx.buf);
	free(qpair);
}

static const struct qpair_ops tcp_ops = {
	.flush = flush_queue,
	.poll = poll_queue,
	.close = close_queue,
	.free = free_queue,
};

static struct tcp_qpair *tcp_alloc(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size)
{
	struct tcp_qpair *qpair = calloc(1, sizeof(*qpair));

	if (!qpair)
		return NULL;
	qpair->rx.buf = malloc(RX_BUFFER_SIZE);
	if (qpair_init(&qpair->q, &tcp_ops, ctrlr, qid, size) || !qpair->rx.buf) {
		free_queue(&qpair->q);
		return NULL;
	}
	qpair->in_capsule_max = NVME_TCP_ADMIN_CAPSULE_DATA;
	qpair->tx.max_data_bytes = ctrlr->opts.batch_bytes ? ctrlr->opts.batch_bytes : TX_BATCH_BYTES;
	list_init(&qpair->h2c);
	timer_init(&qpair->q.tick_timer, ic_timeout, qpair);
	return qpair;
}

/* Takes the answer to ICReq.  Source: NVMe/TCP 1.0, 3.6.2.3 "ICResp". */
static int apply_ic_resp(struct tcp_qpair *qpair, struct nvme_error *error)
{
	const struct nvme_tcp_ic_resp *resp = &qpair->ic_resp;
	uint8_t asked = (uint8_t)((qpair->q.ctrlr->opts.hdgst ? NVME_TCP_DGST_HEADER : 0) |
				  (qpair->q.ctrlr->opts.ddgst ? NVME_TCP_DGST_DATA : 0));
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
	*error = qpair->q.error;
	return error->err;
}

/* ICReq and its answer, within the time limit. */
static fiber_fn int exchange_ic(struct tcp_qpair *qpair, struct nvme_error *error)
{
	struct fiber_wait wait;
	int rc;

	fiber_wait_init(&wait);
	qpair->ic_wait = &wait;
	tcp_send_ic_req(qpair, qpair->q.ctrlr->opts.hdgst, qpair->q.ctrlr->opts.ddgst);
	rc = fiber_wait(&wait);
	if (rc) {
		*error = qpair->q.error;
		return rc;
	}
	return apply_ic_resp(qpair, error);
}

static fiber_fn int tcp_open(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
			     struct nvme_error *error)
{
	const struct stream_addr *addr = &ctrlr->opts.addr;
	struct tcp_qpair *qpair = tcp_alloc(ctrlr, qid, size);
	uint64_t timeout_us = ctrlr->opts.timeout_us ? ctrlr->opts.timeout_us : QPAIR_DEFAULT_TIMEOUT_US;
	int rc;

	if (!qpair) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for a queue of %u entries", size);
		return -ENOMEM;
	}
	rc = stream_connect(addr, timeout_us, &qpair->stream);
	if (rc) {
		nvme_error_set(error, rc, 0, "cannot connect to %s port %u: %s%s", addr->host, addr->port,
			       strerror(-rc), rc == -ECONNREFUSED ? ": does a target listen there?" : "");
		free_queue(&qpair->q);
		return rc;
	}
	stream_set_buffer_sizes(qpair->stream, SOCKET_BUFFER_BYTES, SOCKET_BUFFER_BYTES);
	timer_arm(&qpair->q.tick_timer, timeout_us);
	stream_set_ready(qpair->stream, on_ready, qpair);
	rc = exchange_ic(qpair, error);
	if (rc) {
		nvme_qpair_disconnect(&qpair->q);
		return rc;
	}
	timer_cancel(&qpair->q.tick_timer);
	qpair_start_ticking(&qpair->q);
	*ret_qpair = &qpair->q;
	return 0;
}

static void tcp_set_limits(struct nvme_qpair *q)
{
	const struct nvme_id_ctrlr *id = &q->ctrlr->id;
	uint64_t capsule_bytes = (uint64_t)id->ioccsz * 16;

	tcp_of(q)->in_capsule_max = 0;
	if (capsule_bytes > sizeof(union nvme_cmd) && !id->icdoff)
		tcp_of(q)->in_capsule_max = (uint32_t)(capsule_bytes - sizeof(union nvme_cmd));
}

const struct nvme_transport nvme_transport_tcp = {
	.name = "TCP",
	.peer = "target",
	.qpair_open = tcp_open,
	.qpair_set_limits = tcp_set_limits,
};

bool nvme_qpair_has_hdgst(const struct nvme_qpair *qpair)
{
	return qpair->ops == &tcp_ops && container_of((struct nvme_qpair *)qpair, struct tcp_qpair, q)->hdgst;
}

bool nvme_qpair_has_ddgst(const struct nvme_qpair *qpair)
{
	return qpair->ops == &tcp_ops && container_of((struct nvme_qpair *)qpair, struct tcp_qpair, q)->ddgst;
}
