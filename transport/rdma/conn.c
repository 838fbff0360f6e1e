/*
 * A connection's life.
 *
 *   ACCEPTING     its request was good, its queue pair exists, and the acceptance is on its way
 *   WAIT_CONNECT  established; one request, for Connect.  nvmf's deadline for Connect covers both
 *   LIVE          Connect has succeeded; requests for the whole queue exist
 *   CLOSING       nvmf has been told and the queue pair is in error, so that all that is posted comes back; when it has, or after
 *                 two seconds, the queue pair is taken away, and with it whatever did not come
 *   GONE          nvmf holds nothing of it: freed
 *
 *   ACCEPTING -> WAIT_CONNECT   the peer's acknowledgement, or its first capsule, which may be faster
 *   WAIT_CONNECT -> LIVE        rdma_conn_connected(): nvmf completes Connect with success
 *   any -> CLOSING              rdma_conn_fail() (a completion in error, a broken protocol), an event (disconnected, device removed,
 *                               queue pair broken), nvmf's close; with graceful, after what is queued has gone out
 *   CLOSING -> GONE             the queue pair is gone, and nvmf_qpair_disconnect() has reported
 *
 * Memory that a device may touch is given back only after its completion or after the queue pair has been taken away.  All that
 * ends a connection is put off to conn_work(), so nobody's caller loses it underfoot.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trace.h"
#include "transport/rdma/internal.h"

#define CONNECT_DATA_SIZE sizeof(struct nvme_connect_data)

/* What a peer can make us hold before Connect, the queue pair itself aside: commands and data of its slots have pages of their own. */
static_assert(sizeof(struct rdma_conn) + sizeof(struct rdma_slots) +
			      RDMA_FIRST_RECVS * (sizeof(struct rdma_slot) + RDMA_SLOT_ALIGN) + RDMA_SLOT_ALIGN + RDMA_SINK_FIRST_SIZE + 64 <= 16 * 1024 &&
		      CONNECT_DATA_SIZE <= RDMA_SLOT_ALIGN,
	      "a connection before Connect");

#define NOTICE_PERIOD_US   (10 * 1000 * 1000ull)
#define NOTICES_PER_PERIOD 20u

static void set_state(struct rdma_conn *conn, enum rdma_conn_state state)
{
	assert(state > conn->state);
	TRACE(rdma, conn_state, conn, conn->state, state);
	conn->state = state;
}

static void handshake_over(struct rdma_conn *conn)
{
	if (!conn->handshaking)
		return;
	list_del(&conn->handshake_link);
	conn->group->nr_handshaking--;
	conn->handshaking = false;
}

static void strange_over(struct rdma_conn *conn)
{
	if (!conn->strange)
		return;
	conn->group->nr_strange--;
	conn->group->strange_cqes -= conn->cq_claim;
	conn->strange = false;
}

/* --- the end ------------------------------------------------------------------------------------------------------------------------- */

static void conn_free(struct rdma_conn *conn)
{
	struct rdma_group *group = conn->group;

	assert(!conn->work_queued);
	set_state(conn, CONN_GONE);
	strange_over(conn);
	timer_cancel(&conn->timer);
	list_del(&conn->group_link);
	rnic_conn_destroy(conn->rnic);
	rdma_slots_free(conn->slots);
	rdma_sink_close(&conn->sink);
	rnic_mr_free(conn->cqes_mr);
	dma_free(conn->cqes);
	rdma_cq_unclaim(conn->cq, conn->cq_claim);
	rdma_port_put(conn->port);
	rdma_listener_put(conn->listener);
	free(conn->reqs);
	free(conn);
	rdma_group_free_if_over(group);
}

static void nvmf_is_gone(void *arg)
{
	struct rdma_conn *conn = arg;

	conn->nvmf_gone = true;
	rdma_conn_work_later(conn, WORK_ADVANCE);
}

static bool is_drained(const struct rdma_conn *conn)
{
	if (conn->drain_over || conn->port->broken || rnic_is_removed(conn->port->device))
		return true;
	return !conn->nr_busy && (conn->port->srq ? conn->recvs_drained : !conn->nr_recvs_posted);
}

/* Whatever has become possible on the way out. */
static void advance(struct rdma_conn *conn)
{
	if (conn->state != CONN_CLOSING)
		return;
	if (!conn->qp_gone && is_drained(conn)) {
		rnic_qp_destroy(conn->rnic);
		conn->qp_gone = true;
		/*
		 * From here on its number may be another's.  What completed before is in the queue still, and finds no connection; shared
		 * slots are posted again.
		 */
		list_del(&conn->qp_link);
		rdma_cq_poll_dry(conn->cq);
		rdma_req_release_held(conn, true);
		timer_cancel(&conn->timer);
	}
	/* Who has a task waiting comes here again with it. */
	if (conn->qp_gone && conn->nvmf_gone && !conn->work_queued)
		conn_free(conn);
}

static void drain_over(void *arg)
{
	struct rdma_conn *conn = arg;

	conn->drain_over = true;
	rdma_conn_work_later(conn, conn->state < CONN_CLOSING ? WORK_CLOSE : WORK_ADVANCE);
}

static void begin_close(struct rdma_conn *conn)
{
	if (conn->state >= CONN_CLOSING)
		return;
	set_state(conn, CONN_CLOSING);
	handshake_over(conn);
	conn->drain_over = false;
	timer_arm(&conn->timer, RDMA_DRAIN_US);
	rnic_disconnect(conn->rnic);
	nvmf_qpair_disconnect(&conn->qpair, nvmf_is_gone, conn);
	rdma_req_release_held(conn, false);
	rdma_conn_work_later(conn, WORK_ADVANCE);
}

static void drain(struct rdma_conn *conn)
{
	if (!conn_receives(conn))
		return;
	conn->draining = true;
	timer_arm(&conn->timer, RDMA_LINGER_US);
}

static void conn_work(void *arg)
{
	struct rdma_conn *conn = arg;
	unsigned flags = conn->work_flags;

	conn->work_flags = 0;
	conn->work_queued = false;
	if (flags & WORK_DRAIN)
		drain(conn);
	if (flags & WORK_CLOSE || (conn->draining && !conn->nr_busy && fifo_empty(&conn->send_wait)))
		begin_close(conn);
	advance(conn);
}

void rdma_conn_work_later(struct rdma_conn *conn, unsigned flags)
{
	conn->work_flags |= flags;
	if (conn->work_queued)
		return;
	conn->work_queued = true;
	task_run_later(&conn->work, conn_work, conn);
}

/* Whoever likes can send nonsense: a few lines of the log are enough to say so. */
static bool may_notice(struct rdma_group *group)
{
	uint64_t now = clock_now_us();

	if (now - group->notices_since_us >= NOTICE_PERIOD_US) {
		group->notices_since_us = now;
		group->nr_notices = 0;
	}
	return group->nr_notices++ < NOTICES_PER_PERIOD;
}

void rdma_conn_fail(struct rdma_conn *conn, const char *why)
{
	struct stream_addr peer;

	if (conn->state >= CONN_CLOSING || conn->work_flags & WORK_CLOSE)
		return;
	rnic_conn_peer_addr(conn->rnic, &peer);
	log_at(may_notice(conn->group) ? LOG_NOTICE : LOG_DEBUG, "%s on %s: qid %u: %s", peer.host, conn->port->info->name,
	       conn->qid_asked, why);
	rdma_conn_work_later(conn, WORK_CLOSE);
}

/*
 * What waits to be posted waits for what is: a host without receives, or one that does not answer a read, keeps chains posted and
 * the buffers of all that is behind them.
 */
void rdma_conn_check_stall(struct rdma_conn *conn)
{
	bool progress = !conn->nr_busy || conn->nr_chains_done != conn->seen_chains_done;

	conn->seen_chains_done = conn->nr_chains_done;
	conn->ticks_stalled = progress ? 0 : conn->ticks_stalled + 1;
	if (conn->ticks_stalled >= (nvmf_buffers_short() ? RDMA_SHORT_TICKS : RDMA_STALL_TICKS))
		rdma_conn_fail(conn, "takes no answers and gives no data");
}

void rdma_conn_close(struct nvmf_qpair *qpair, bool graceful)
{
	rdma_conn_work_later(conn_of(qpair), graceful ? WORK_DRAIN : WORK_CLOSE);
}

/* --- the beginning --------------------------------------------------------------------------------------------------------------------- */

void rdma_conn_established(struct rdma_conn *conn)
{
	if (conn->state == CONN_ACCEPTING)
		set_state(conn, CONN_WAIT_CONNECT);
}

static int more_recvs(struct rdma_conn *conn, uint32_t nr, uint32_t data_size)
{
	struct rdma_slots *slots;
	int rc;

	rc = rdma_slots_create(conn->port, conn, nr, data_size, &slots);
	if (rc)
		return rc;
	slots->first = !conn->slots;
	slots->next = conn->slots;
	conn->slots = slots;
	return rdma_slots_post(slots);
}

/* Instead of those there are: none of them is on its way. */
static int make_cqes(struct rdma_conn *conn, uint32_t nr)
{
	struct nvme_cqe *cqes = dma_alloc(nr * sizeof(*cqes), 64);
	struct rnic_mr *mr;
	int rc = -ENOMEM;

	if (!cqes)
		return rc;
	rc = rnic_mr_create(conn->port->device, cqes, nr * sizeof(*cqes), RNIC_LOCAL_WRITE, &mr);
	if (rc) {
		dma_free(cqes);
		return rc;
	}
	rnic_mr_free(conn->cqes_mr);
	dma_free(conn->cqes);
	conn->cqes = cqes;
	conn->cqes_mr = mr;
	return 0;
}

int rdma_conn_connected(struct rdma_conn *conn)
{
	uint32_t nr = nvmf_qpair_max_outstanding(&conn->qpair);
	int rc = 0;

	assert(nr <= conn->depth && conn->qpair.qid == conn->qid_asked);
	if (!conn->port->srq)
		rc = more_recvs(conn, nr, conn->qpair.opts->in_capsule_data_size);
	if (!rc)
		rc = make_cqes(conn, 2 * nr);
	if (!rc)
		rc = rdma_req_grow(conn, 2 * nr);
	if (rc) {
		log_warning("qid %u: no memory for its queue", conn->qpair.qid);
		rdma_conn_work_later(conn, WORK_CLOSE);
		return rc;
	}
	set_state(conn, CONN_LIVE);
	handshake_over(conn);
	strange_over(conn);
	return 0;
}

static void conn_event(void *arg, const struct rnic_event *event)
{
	struct rdma_conn *conn = arg;

	switch (event->type) {
	case RNIC_ESTABLISHED:
		rdma_conn_established(conn);
		break;
	case RNIC_RECVS_DRAINED:
		conn->recvs_drained = true;
		rdma_conn_work_later(conn, WORK_ADVANCE);
		break;
	case RNIC_BROKEN:
		rdma_conn_fail(conn, "its queue pair is in error");
		break;
	default:
		rdma_conn_work_later(conn, WORK_CLOSE);
		break;
	}
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/*
 * Those who have asked for a queue and said nothing since have room in completion queues, and memory, for all of it.  When they have
 * their share the oldest of them goes; what it had comes back when its queue pair is gone.  False: too many of those.
 */
static bool make_room(struct rdma_group *group, uint32_t cqes)
{
	if (!group->nr_strange)
		return true;
	if (group->nr_handshaking && (group->nr_strange >= RDMA_MAX_HANDSHAKING || group->strange_cqes + cqes > RDMA_MAX_STRANGE_CQES)) {
		struct rdma_conn *oldest = list_entry(list_first(&group->handshaking), struct rdma_conn, handshake_link);

		handshake_over(oldest);
		rdma_conn_fail(oldest, "others want to connect, and it does not");
	}
	return group->nr_strange < 2 * RDMA_MAX_HANDSHAKING && group->strange_cqes + cqes <= 2 * RDMA_MAX_STRANGE_CQES;
}

static int make_queues(struct rdma_conn *conn)
{
	const struct rnic_info *info = conn->port->info;
	struct rnic_qp_opts opts = {
		.srq = conn->port->srq,
		.max_send_sge = min_u32(info->max_sge, RNIC_MAX_SGE),
		.max_recv_sge = 2,
	};
	int rc;

	opts.max_send = rdma_port_max_send(conn->port, conn->depth);
	opts.max_recv = rdma_port_max_recv(conn->port, conn->depth);
	conn->cq_claim = opts.max_send + opts.max_recv;
	if (!make_room(conn->group, conn->cq_claim))
		return -EAGAIN;
	rc = rdma_cq_claim(conn->port, conn->cq_claim, &conn->cq);
	if (rc)
		return rc;
	opts.cq = conn->cq->rnic;
	conn->sq_free = conn->max_send = opts.max_send;
	conn->max_recv = opts.max_recv;
	rc = make_cqes(conn, 1);
	if (!rc)
		rc = rnic_qp_create(conn->rnic, &opts, &conn->qp_num);
	if (!rc && !opts.srq)
		rc = more_recvs(conn, RDMA_FIRST_RECVS, CONNECT_DATA_SIZE);
	return rc;
}

static int accept_request(struct rdma_conn *conn, const struct rdma_request *request)
{
	struct nvme_rdma_cm_accept answer = { .crqsize = (uint16_t)conn->depth };
	struct rnic_params params = {
		.private_len = sizeof(answer),
		.reads = (uint8_t)conn->max_reads,
		.peer_reads = (uint8_t)min_u32(request->peer_reads, conn->port->info->max_peer_reads),
	};

	memcpy(params.private_data, &answer, sizeof(answer));
	return rnic_accept(conn->rnic, &params);
}

/* Nobody knows of it yet. */
static void conn_undo(struct rdma_conn *conn, enum nvme_rdma_cm_status status)
{
	struct rdma_group *group = conn->group;

	rnic_qp_destroy(conn->rnic);
	/* What its own receives left in the completion queue finds no connection. */
	rdma_cm_reject(conn->rnic, status);
	rdma_slots_free(conn->slots);
	rnic_mr_free(conn->cqes_mr);
	dma_free(conn->cqes);
	if (conn->cq)
		rdma_cq_unclaim(conn->cq, conn->cq_claim);
	rdma_port_put(conn->port);
	rdma_listener_put(conn->listener);
	free(conn);
	rdma_group_free_if_over(group);
}

void rdma_conn_start(struct rdma_group *group, struct rdma_listener *listener, struct rnic_conn *rnic,
		const struct rdma_request *request)
{
	const struct nvmf_transport_opts *opts = nvmf_target_transport_opts(listener->target, &rdma_transport_ops);
	struct rdma_conn *conn = calloc(1, sizeof(*conn));

	if (!conn || rdma_port_get(group, rnic_conn_device(rnic), opts, &conn->port)) {
		free(conn);
		rdma_cm_reject(rnic, NVME_RDMA_CM_NO_RESOURCES);
		rdma_listener_put(listener);
		return;
	}
	conn->group = group;
	conn->listener = listener;
	conn->rnic = rnic;
	conn->depth = request->depth;
	conn->responses_free = request->hrqsize;
	conn->qid_asked = request->qid;
	conn->max_reads = conn->reads_free = min_u32(request->reads, conn->port->info->max_reads);
	conn->qpair.opts = opts;
	if (conn->depth > conn->port->max_depth) {
		conn_undo(conn, NVME_RDMA_CM_INVALID_HSQSIZE);
		return;
	}
	if (!conn->max_reads || make_queues(conn)) {
		conn_undo(conn, NVME_RDMA_CM_NO_RESOURCES);
		return;
	}
	list_add_tail(&conn->port->conns_by_qp[conn->qp_num % RDMA_QP_BUCKETS], &conn->qp_link);
	if (list_empty(&group->conns))
		timer_arm(&group->tick_timer, RDMA_TICK_US);
	list_add_tail(&group->conns, &conn->group_link);
	conn->handshaking = conn->strange = true;
	list_add_tail(&group->handshaking, &conn->handshake_link);
	group->nr_handshaking++;
	group->nr_strange++;
	group->strange_cqes += conn->cq_claim;
	fifo_init(&conn->free);
	fifo_init(&conn->read_wait);
	fifo_init(&conn->send_wait);
	fifo_init(&conn->capsule_wait);
	rdma_req_init(&conn->first_req, conn, 0);
	timer_init(&conn->timer, drain_over, conn);
	conn->qpair.ops = &rdma_transport_ops;
	conn->qpair.listener = listener;
	nvmf_qpair_init(&conn->qpair, group->group);
	conn->qpair.max_queue_depth = conn->port->max_depth;
	conn->qpair.announced = (struct nvmf_announced){ true, request->qid, request->cntlid, request->depth };
	rnic_conn_attach(rnic, conn_event, conn);
	if (accept_request(conn, request))
		rdma_conn_fail(conn, "it cannot be accepted");
}

void rdma_conn_local_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr)
{
	rnic_conn_local_addr(conn_of(qpair)->rnic, ret_addr);
}

void rdma_conn_peer_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr)
{
	rnic_conn_peer_addr(conn_of(qpair)->rnic, ret_addr);
}
