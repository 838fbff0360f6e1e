/*
 * Work on the simulated fabric: a queue pair executes the head of its send queue in an event of the simulation's outside, then the
 * next after another delay.  An error completes the piece of work, flushes the rest and leaves the queue pair in error, as the
 * verbs have it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim_internal.h"

#define UNKNOWN_QP 0xbad00u

static bool sges_are_good(const struct sim_conn *conn, const struct sim_work *work, unsigned access)
{
	for (unsigned i = 0; i < work->send.nr_sge; i++) {
		if (!sim_may(conn->conn.device, work->sge[i].lkey, work->sge[i].addr, work->sge[i].len, access))
			return false;
	}
	return true;
}

static uint64_t work_len(const struct sim_work *work)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < work->send.nr_sge; i++)
		len += work->sge[i].len;
	return len;
}

/* Between a flat piece of memory and the places of a piece of work. */
static void copy(const struct sim_work *work, uint8_t *flat, uint64_t len, bool gather)
{
	for (unsigned i = 0; i < work->send.nr_sge && len; i++) {
		uint32_t n = work->sge[i].len < len ? work->sge[i].len : (uint32_t)len;
		void *at = (void *)(uintptr_t)work->sge[i].addr;

		if (gather)
			memcpy(flat, at, n);
		else
			memcpy(at, flat, n);
		flat += n;
		len -= n;
	}
}

/* --- completion queues --------------------------------------------------------------------------------------------------- */

int sim_cq_create(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq)
{
	struct sim_cq *cq = calloc(1, sizeof(*cq));

	if (cq)
		cq->ring = calloc(nr_entries, sizeof(*cq->ring));
	if (!cq || !cq->ring) {
		free(cq);
		return -ENOMEM;
	}
	assert(nr_entries <= device->info.max_cqe);
	cq->device = device;
	cq->size = nr_entries;
	sim.stats.nr_cqs++;
	*ret_cq = &cq->cq;
	return 0;
}

static enum poll_result nothing_to_do(void *arg)
{
	return POLL_IDLE;
}

int sim_cq_start(struct rnic_cq *base)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);

	cq->poller = poller_start("rdma_cq", nothing_to_do, cq, 0);
	return cq->poller ? 0 : -ENOMEM;
}

int sim_cq_resize(struct rnic_cq *base, uint32_t nr_entries)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);
	struct rnic_wc *ring;

	if (cq->device->info.iwarp)
		return -ENOTSUP;
	assert(nr_entries <= cq->device->info.max_cqe && nr_entries >= cq->nr);
	ring = sim.nr_cq_resize_fails ? NULL : calloc(nr_entries, sizeof(*ring));
	if (!ring) {
		sim.nr_cq_resize_fails -= sim.nr_cq_resize_fails > 0;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < cq->nr; i++)
		ring[i] = cq->ring[(cq->head + i) % cq->size];
	free(cq->ring);
	cq->ring = ring;
	cq->head = 0;
	cq->size = nr_entries;
	sim.stats.nr_cq_resizes++;
	return 0;
}

static void cq_free(struct sim_cq *cq)
{
	free(cq->ring);
	free(cq);
}

void sim_cq_destroy(struct rnic_cq *base)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);

	sim.stats.nr_cqs--;
	poller_stop(cq->poller);
	cq->destroyed = true;
	if (!cq->told)
		cq_free(cq);
}

static void ready_msg(void *arg)
{
	struct sim_cq *cq = arg;

	cq->told = false;
	if (cq->destroyed)
		cq_free(cq);
	else
		cq->cq.ready(cq->cq.arg);
}

unsigned sim_cq_poll(struct rnic_cq *base, struct rnic_wc *wcs, unsigned max)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);
	unsigned n = 0;

	while (n < max && cq->nr) {
		wcs[n++] = cq->ring[cq->head++ % cq->size];
		cq->nr--;
	}
	return n;
}

static void cq_tell(struct sim_cq *cq)
{
	if (cq->told || cq->held || !cq->nr)
		return;
	cq->told = true;
	thread_send(cq->cq.thread, ready_msg, cq);
}

static void cq_add_of(struct sim_conn *conn, uint32_t qp_num, const struct rnic_wc *wc)
{
	struct sim_cq *cq = container_of(conn->opts.cq, struct sim_cq, cq);
	struct rnic_wc *at = &cq->ring[(cq->head + cq->nr) % cq->size];

	if (cq->broken)
		return;
	assert(cq->nr < cq->size); /* an overrun: nothing would save a device either */
	*at = *wc;
	at->qp_num = qp_num;
	cq->nr++;
	cq_tell(cq);
}

static void cq_add(struct sim_conn *conn, const struct rnic_wc *wc)
{
	cq_add_of(conn, conn->qp_num, wc);
}

void sim_cq_break(struct sim_conn *conn)
{
	struct sim_cq *cq = container_of(conn->opts.cq, struct sim_cq, cq);

	cq->broken = true;
	cq->nr = 0;
	rnic_queue_broken(cq->device, &cq->cq);
}

void sim_cq_hold(struct rnic_cq *base, bool hold)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);

	cq->held = hold;
	cq_tell(cq);
}

/* --- posting --------------------------------------------------------------------------------------------------------------- */

static struct sim_work *work_of_recv(const struct rnic_recv *recv)
{
	struct sim_work *work = calloc(1, sizeof(*work));

	if (!work)
		return NULL;
	assert(recv->nr_sge <= RNIC_MAX_SGE);
	work->send.id = recv->id;
	work->send.nr_sge = recv->nr_sge;
	memcpy(work->sge, recv->sge, recv->nr_sge * sizeof(work->sge[0]));
	return work;
}

int sim_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq)
{
	struct sim_srq *srq = calloc(1, sizeof(*srq));

	if (!srq)
		return -ENOMEM;
	assert(nr_entries <= device->info.max_srq_wr && max_sge <= device->info.max_sge);
	fifo_init(&srq->recvs);
	srq->size = nr_entries;
	sim.stats.nr_srqs++;
	*ret_srq = (struct rnic_srq *)srq;
	return 0;
}

void sim_works_free(struct fifo *works)
{
	struct fifo_link *link;

	while ((link = fifo_pop(works)))
		free(container_of(link, struct sim_work, link));
}

void sim_srq_destroy(struct rnic_srq *base)
{
	struct sim_srq *srq = (struct sim_srq *)base;

	sim_works_free(&srq->recvs);
	sim.stats.nr_srqs--;
	free(srq);
}

int sim_srq_post(struct rnic_srq *base, struct rnic_recv *recv)
{
	struct sim_srq *srq = (struct sim_srq *)base;

	for (; recv; recv = recv->next) {
		struct sim_work *work = work_of_recv(recv);

		if (!work || srq->nr == srq->size || srq->broken) {
			free(work);
			return -ENOMEM;
		}
		fifo_push(&srq->recvs, &work->link);
		srq->nr++;
	}
	return 0;
}

void sim_srq_break(struct sim_conn *conn)
{
	struct sim_srq *srq = (struct sim_srq *)conn->opts.srq;

	sim_works_free(&srq->recvs);
	srq->nr = 0;
	srq->broken = true;
	rnic_queue_broken(conn->conn.device, srq);
}

static void flush_recvs(struct sim_conn *conn)
{
	struct fifo_link *link;

	while ((link = fifo_pop(&conn->recvs))) {
		struct sim_work *work = container_of(link, struct sim_work, link);

		conn->nr_recvs--;
		cq_add(conn, &(struct rnic_wc){ .id = work->send.id, .status = RNIC_FLUSHED });
		free(work);
	}
}

int sim_post_recv(struct rnic_conn *base, struct rnic_recv *recv)
{
	struct sim_conn *conn = to_sim(base);

	assert(conn->has_qp && !conn->opts.srq);
	for (; recv; recv = recv->next) {
		struct sim_work *work = work_of_recv(recv);

		if (!work || conn->nr_recvs == conn->opts.max_recv) {
			free(work);
			return -ENOMEM;
		}
		fifo_push(&conn->recvs, &work->link);
		conn->nr_recvs++;
	}
	if (conn->error)
		flush_recvs(conn);
	return 0;
}

static bool is_response(const struct sim_conn *conn, const struct rnic_send *send)
{
	return !conn->active && (send->op == RNIC_SEND || send->op == RNIC_SEND_INVALIDATE);
}

/* Its room comes back only when it is told, or one behind it. */
static void send_done(struct sim_conn *conn, enum rnic_status status)
{
	struct sim_work *work = container_of(fifo_pop(&conn->sends), struct sim_work, link);

	if (work->send.op == RNIC_READ)
		conn->nr_reads--;
	if (is_response(conn, &work->send))
		conn->nr_responses--;
	conn->nr_covered++;
	if (work->send.signaled || status != RNIC_OK) {
		conn->nr_sends -= conn->nr_covered;
		conn->nr_covered = 0;
		cq_add(conn, &(struct rnic_wc){ .id = work->send.id, .status = (uint8_t)status });
	}
	free(work);
}

static void flush(struct sim_conn *conn)
{
	while (!fifo_empty(&conn->sends))
		send_done(conn, RNIC_FLUSHED);
	flush_recvs(conn);
}

void sim_qp_fail(struct sim_conn *conn, bool tell)
{
	if (!conn->has_qp || conn->error)
		return;
	conn->error = true;
	sim_event_clear(&conn->step);
	flush(conn);
	if (tell)
		sim_cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_BROKEN }, 0);
	if (conn->opts.srq)
		sim_cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_RECVS_DRAINED }, sim_delay_us());
}

/* The head of the send queue ends so, and with it the queue pair. */
static void send_failed(struct sim_conn *conn, enum rnic_status status)
{
	send_done(conn, status);
	sim_qp_fail(conn, false);
}

static void step(void *arg);

static void step_later(struct sim_conn *conn, uint64_t after_us)
{
	if (!fifo_empty(&conn->sends) && !conn->error)
		sim_event_set(&conn->step, clock_now_us() + after_us, step, conn);
}

/* --- execution -------------------------------------------------------------------------------------------------------------- */

static struct sim_work *take_recv(struct sim_conn *conn)
{
	struct sim_srq *srq = (struct sim_srq *)conn->opts.srq;
	struct fifo_link *link = fifo_pop(srq ? &srq->recvs : &conn->recvs);

	if (!link)
		return NULL;
	if (srq)
		srq->nr--;
	else
		conn->nr_recvs--;
	return container_of(link, struct sim_work, link);
}

/* What belongs to no shared receive queue names memory that nobody has. */
void sim_stray(struct sim_conn *conn, enum rnic_status status)
{
	struct rnic_wc recv = { .id = 0xfffffff0 | 2, .len = 64, .status = (uint8_t)status };
	struct rnic_wc send = { .id = 0xfffffff0 | 1, .status = (uint8_t)status };
	struct sim_work *work = conn->opts.srq ? take_recv(conn) : NULL;

	if (work)
		recv.id = work->send.id;
	if (work || !conn->opts.srq)
		cq_add_of(conn, UNKNOWN_QP, &recv);
	cq_add_of(conn, UNKNOWN_QP, &send);
	free(work);
}

/* False: it was no success, and all about it is done. */
static bool execute_send(struct sim_conn *conn, struct sim_work *work)
{
	struct sim_conn *peer = conn->peer;
	uint64_t len = work_len(work);
	struct rnic_wc wc = { .len = (uint32_t)len };
	struct sim_work *recv;
	uint8_t *flat;

	if (!sges_are_good(conn, work, 0)) {
		send_failed(conn, RNIC_LOCAL_ERROR);
		return false;
	}
	if (work->send.op == RNIC_SEND_INVALIDATE) {
		struct sim_mr *mr = sim_mr_find(peer->conn.device, work->send.remote_key);

		if (!mr || !mr->valid) {
			send_failed(conn, RNIC_REMOTE_ACCESS);
			sim_qp_fail(peer, true);
			return false;
		}
	}
	recv = take_recv(peer);
	if (!recv) {
		sim.stats.nr_not_ready++;
		step_later(conn, NOT_READY_US);
		return false;
	}
	wc.id = recv->send.id;
	if (len > work_len(recv) || !sges_are_good(peer, recv, RNIC_LOCAL_WRITE)) {
		free(recv);
		wc.status = RNIC_LOCAL_ERROR;
		cq_add(peer, &wc);
		send_failed(conn, RNIC_REMOTE_ERROR);
		sim_qp_fail(peer, true);
		return false;
	}
	flat = malloc(len + 1);
	assert(flat);
	copy(work, flat, len, true);
	copy(recv, flat, len, false);
	free(flat);
	free(recv);
	if (work->send.op == RNIC_SEND_INVALIDATE) {
		wc.invalidated = true;
		wc.key = work->send.remote_key;
		sim_mr_find(peer->conn.device, wc.key)->valid = false;
		sim.stats.nr_invalidated++;
	}
	sim.stats.nr_sends++;
	cq_add(peer, &wc);
	return true;
}

static bool execute_rdma(struct sim_conn *conn, struct sim_work *work)
{
	bool read = work->send.op == RNIC_READ;
	struct sim_conn *peer = conn->peer;
	uint8_t *remote = (uint8_t *)(uintptr_t)work->send.remote_addr;
	uint64_t len = work_len(work);
	unsigned sink = RNIC_LOCAL_WRITE | (conn->conn.device->info.iwarp ? RNIC_REMOTE_WRITE : 0);

	if (!sges_are_good(conn, work, read ? sink : 0)) {
		send_failed(conn, RNIC_LOCAL_ERROR);
		return false;
	}
	if (!sim_may(peer->conn.device, work->send.remote_key, work->send.remote_addr, len, read ? RNIC_REMOTE_READ : RNIC_REMOTE_WRITE)) {
		send_failed(conn, RNIC_REMOTE_ACCESS);
		sim_qp_fail(peer, true);
		return false;
	}
	copy(work, remote, len, !read);
	if (read)
		sim.stats.nr_reads++;
	else
		sim.stats.nr_writes++;
	return true;
}

/* False: it was no success, and all about it is done. */
static bool execute_local(struct sim_conn *conn, struct sim_work *work)
{
	const struct rnic_send *send = &work->send;
	struct sim_mr *mr;

	if (send->op == RNIC_INVALIDATE) {
		mr = sim_mr_find(conn->conn.device, send->remote_key);
		if (!mr || !mr->valid) {
			send_failed(conn, RNIC_LOCAL_ERROR);
			return false;
		}
		mr->valid = false;
		return true;
	}
	mr = container_of(container_of(send->window, struct sim_window, window)->mr, struct sim_mr, mr);
	if (mr->valid || mr->mr.lkey == send->remote_key || (mr->mr.lkey ^ send->remote_key) >> 8 ||
	    !sim_may(conn->conn.device, send->mr->lkey, work->sge[0].addr, work->sge[0].len, RNIC_WINDOWS)) {
		send_failed(conn, RNIC_LOCAL_ERROR);
		return false;
	}
	mr->mr.lkey = mr->mr.rkey = send->remote_key;
	mr->addr = (uint8_t *)(uintptr_t)work->sge[0].addr;
	mr->len = work->sge[0].len;
	mr->access = send->access;
	mr->valid = true;
	return true;
}

static void step(void *arg)
{
	struct sim_conn *conn = arg;
	struct sim_work *work = container_of(conn->sends.head, struct sim_work, link);
	bool good;

	if (work->executed) {
		send_done(conn, RNIC_OK);
		step_later(conn, sim_delay_us());
		return;
	}
	if (conn->fail_next) {
		enum rnic_status status = conn->fail_next;

		conn->fail_next = RNIC_OK;
		send_failed(conn, status);
		return;
	}
	if (work->send.op == RNIC_BIND || work->send.op == RNIC_INVALIDATE) {
		if (execute_local(conn, work)) {
			send_done(conn, RNIC_OK);
			step_later(conn, 1);
		}
		return;
	}
	if (conn->cut || !conn->peer || !conn->peer->has_qp || conn->peer->error) {
		send_failed(conn, RNIC_RETRIES);
		return;
	}
	if (work->send.op == RNIC_SEND || work->send.op == RNIC_SEND_INVALIDATE)
		good = execute_send(conn, work);
	else
		good = execute_rdma(conn, work);
	if (!good)
		return;
	/* The peer may act on it before the acknowledgement is back. */
	work->executed = true;
	step_later(conn, sim_rand() % 3 ? 1 : sim_delay_us());
}

static bool nobody_answers(const struct sim_conn *conn)
{
	return conn->cut || !conn->peer || !conn->peer->has_qp || conn->peer->error;
}

int sim_post_send(struct rnic_conn *base, struct rnic_send *send)
{
	struct sim_conn *conn = to_sim(base);
	bool idle = fifo_empty(&conn->sends);

	assert(conn->has_qp);
	for (; send; send = send->next) {
		const struct rnic_info *info = &base->device->info;
		struct sim_work *work;

		assert(send->nr_sge <= (send->op == RNIC_READ ? info->max_read_sge : conn->opts.max_send_sge));
		if (conn->nr_sends == conn->opts.max_send || !(work = calloc(1, sizeof(*work))))
			return -ENOMEM;
		work->send = *send;
		memcpy(work->sge, send->sge, send->nr_sge * sizeof(work->sge[0]));
		assert(work_len(work) <= info->max_message_bytes);
		fifo_push(&conn->sends, &work->link);
		conn->nr_sends++;
		if (send->op == RNIC_READ && ++conn->nr_reads > sim.stats.max_reads)
			sim.stats.max_reads = conn->nr_reads;
		if (is_response(conn, send) && ++conn->nr_responses > sim.stats.max_responses)
			sim.stats.max_responses = conn->nr_responses;
	}
	if (conn->error)
		flush(conn);
	else if (idle)
		step_later(conn, nobody_answers(conn) ? NO_ANSWER_US : sim_delay_us());
	return 0;
}
