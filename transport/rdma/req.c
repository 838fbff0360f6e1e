/*
 * Commands on their way through the transport: received, handed to nvmf, fetched data for by RDMA READ, answered with RDMA
 * WRITE and a send behind it, and given back.  The states and their transitions stand at struct rdma_req.
 *
 * What is posted for a request at a time is a chain of which only the last piece is signaled.  Room in the send queue and
 * credits for RDMA READ are taken for a chain and come back with its completion; who finds none waits in order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trace.h"
#include "transport/rdma/internal.h"

#define TAG_LAST 1u

static struct rdma_req *req_of(struct nvmf_req *nreq)
{
	return container_of(nreq, struct rdma_req, nreq);
}

static void set_state(struct rdma_req *req, enum rdma_req_state state)
{
	static const uint8_t allowed[] = {
		[REQ_FREE] = 1u << REQ_NVMF,
		[REQ_NVMF] = 1u << REQ_READ_WAIT | 1u << REQ_SEND_WAIT | 1u << REQ_FREE,
		[REQ_READ_WAIT] = 1u << REQ_READING | 1u << REQ_FREE,
		[REQ_READING] = 1u << REQ_READ_WAIT | 1u << REQ_NVMF | 1u << REQ_FREE,
		[REQ_SEND_WAIT] = 1u << REQ_SENDING | 1u << REQ_FREE,
		[REQ_SENDING] = 1u << REQ_SEND_WAIT | 1u << REQ_FREE,
	};

	assert(allowed[req->state] & 1u << state);
	TRACE(rdma, req_state, req, req->state, state);
	req->state = state;
}

void rdma_req_init(struct rdma_req *req, struct rdma_conn *conn, uint16_t idx)
{
	req->conn = conn;
	req->idx = idx;
	req->nreq.qpair = &conn->qpair;
	list_init(&req->nreq.link);
	list_init(&req->nreq.wait_link);
	fifo_push(&conn->free, &req->link);
}

int rdma_req_grow(struct rdma_conn *conn, uint32_t nr)
{
	if (nr <= 1)
		return 0;
	conn->reqs = calloc(nr - 1, sizeof(*conn->reqs));
	if (!conn->reqs)
		return -ENOMEM;
	conn->nr_reqs = nr - 1;
	for (uint32_t i = 0; i < conn->nr_reqs; i++)
		rdma_req_init(&conn->reqs[i], conn, (uint16_t)(i + 1));
	return 0;
}

static void drop_slot(struct rdma_req *req)
{
	if (req->slot)
		rdma_slot_release(req->slot);
	req->slot = NULL;
}

static void req_release(struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;

	drop_slot(req);
	count(&conn->port->stats.request_latency_ticks, clock_ticks() - req->nreq.start_ticks);
	set_state(req, REQ_FREE);
	fifo_push(&conn->free, &req->link);
	nvmf_req_release(&req->nreq); /* last: it may be what the connection's end waited for */
}

static void release_if_held(struct rdma_req *req, bool force)
{
	if (req->state == REQ_READ_WAIT || req->state == REQ_SEND_WAIT) {
		req_release(req);
	} else if (force && (req->state == REQ_READING || req->state == REQ_SENDING)) {
		req->conn->nr_busy--;
		req_release(req);
	}
}

void rdma_req_release_held(struct rdma_conn *conn, bool force)
{
	struct fifo_link *link;

	while ((link = fifo_pop(&conn->capsule_wait)))
		rdma_slot_release(container_of(link, struct rdma_slot, link));
	fifo_init(&conn->read_wait);
	fifo_init(&conn->send_wait);
	release_if_held(&conn->first_req, force);
	for (uint32_t i = 0; i < conn->nr_reqs; i++)
		release_if_held(&conn->reqs[i], force);
}

/* --- received -------------------------------------------------------------------------------------------------------------- */

static void start(struct rdma_req *req, struct rdma_slot *slot)
{
	struct rdma_conn *conn = req->conn;

	req->nreq.cmd = *slot->cmd;
	req->nreq.in_capsule = false;
	req->nreq.iovcnt = 0;
	req->capsule_len = slot->len - (uint32_t)sizeof(union nvme_cmd);
	req->response_posted = false;
	req->sgl_status = rdma_sgl_parse(&req->nreq.cmd, slot->data, req->capsule_len, &req->sgl);
	req->slot = slot;
	/* The one for Connect is posted again only if that fails. */
	if (!req->sgl.in_capsule && !slot->slots->first)
		drop_slot(req);
	count(&conn->port->stats.requests, 1);
	set_state(req, REQ_NVMF);
	nvmf_req_begin(&req->nreq);
}

/* Those that wait, in order, as far as there are requests. */
static void start_waiting(struct rdma_conn *conn)
{
	while (conn->state < CONN_CLOSING && !fifo_empty(&conn->capsule_wait) && !fifo_empty(&conn->free)) {
		struct rdma_req *req = container_of(fifo_pop(&conn->free), struct rdma_req, link);

		start(req, container_of(fifo_pop(&conn->capsule_wait), struct rdma_slot, link));
	}
}

void rdma_req_capsule(struct rdma_conn *conn, struct rdma_slot *slot, uint32_t len)
{
	/* The capsule may overtake the news that the connection is there. */
	if (conn->state == CONN_ACCEPTING)
		rdma_conn_established(conn);
	if (len < sizeof(union nvme_cmd) || conn->nr_unanswered >= nvmf_qpair_max_outstanding(&conn->qpair)) {
		rdma_slot_release(slot);
		rdma_conn_fail(conn, len < sizeof(union nvme_cmd) ? "a capsule of less than a command" :
								    "the host sends more commands than its queue holds");
		return;
	}
	if (fifo_empty(&conn->free) || (slot->cmd->sgl.type == NVME_SGL_IN_CAPSULE && len > sizeof(union nvme_cmd)))
		slot = rdma_slot_keep(slot, len);
	if (!slot) {
		rdma_conn_fail(conn, "there is no room for what it sends");
		return;
	}
	conn->nr_unanswered++;
	slot->len = len;
	fifo_push(&conn->capsule_wait, &slot->link);
	if (fifo_empty(&conn->free))
		count(&conn->port->stats.pending_free_request, 1);
	start_waiting(conn);
}

uint16_t rdma_req_parse_sgl(struct nvmf_req *nreq)
{
	struct rdma_req *req = req_of(nreq);

	nreq->in_capsule = false;
	nreq->sgl_len = 0;
	if (req->sgl_status != NVME_SC_SUCCESS)
		return req->sgl_status;
	nreq->in_capsule = req->sgl.in_capsule;
	nreq->sgl_len = req->sgl.len;
	/* A capsule without data has nothing to point to, and nvmf nothing to do with none. */
	if (nreq->in_capsule && nreq->sgl_len) {
		nreq->iov[0].iov_base = req->slot->data + req->sgl.offset;
		nreq->iov[0].iov_len = nreq->sgl_len;
		nreq->iovcnt = 1;
	}
	return NVME_SC_SUCCESS;
}

/* --- posting ---------------------------------------------------------------------------------------------------------------- */

struct chain {
	struct rnic_send sends[RDMA_CHAIN_MAX];
	struct rnic_sge sges[RDMA_CHAIN_MAX][RNIC_MAX_SGE];
	unsigned nr;
};

static struct rnic_send *chain_add(struct chain *chain, uint8_t op)
{
	struct rnic_send *send = &chain->sends[chain->nr];

	*send = (struct rnic_send){ .op = op, .sge = chain->sges[chain->nr] };
	if (chain->nr)
		chain->sends[chain->nr - 1].next = send;
	chain->nr++;
	return send;
}

static void chain_add_data(struct chain *chain, struct rdma_req *req, uint8_t op)
{
	const struct rnic_info *info = req->conn->port->info;
	uint32_t max_sge = op == RNIC_READ ? info->max_read_sge : info->max_sge;
	struct rnic_send *send = chain_add(chain, op);

	/*
	 * On iWARP a completion says that TCP has the data.  soft-iWARP lets TCP send what is not signaled from where it lies, which may
	 * be after the response's completion has given the buffer to somebody else; what is signaled it copies.
	 */
	send->signaled = info->iwarp && op == RNIC_WRITE;
	rdma_sgl_next_work(&req->sgl, req->nreq.iov, &req->cursor, max_sge < RNIC_MAX_SGE ? max_sge : RNIC_MAX_SGE,
		      info->max_message_bytes, req->conn->port->pool_lkey, send);
}

/*
 * One that needs several portions is overtaken by others, and the host sees the queue's head in the order of posting: it tells how
 * many have been answered, and never goes back.
 */
static void set_sqhd(struct rdma_conn *conn, struct nvme_cqe *cqe)
{
	if (conn->qpair.sq_flow_control_disabled)
		return;
	if (++conn->sqhd >= conn->qpair.sq_size)
		conn->sqhd = 0;
	cqe->sqhd = conn->sqhd;
}

/* On iWARP whoever is told a key may write there too, at any time: the data is copied out once, and looked at nowhere else. */
static void chain_add_sink_read(struct chain *chain, struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;
	struct rnic_send *send = chain_add(chain, RNIC_READ);
	struct iovec place = rdma_sink_place(&conn->sink);
	uint32_t max_bytes = conn->port->info->max_message_bytes;

	if (place.iov_len < max_bytes)
		max_bytes = (uint32_t)place.iov_len;
	rdma_sgl_next_work(&req->sgl, &place, &req->cursor, 1, max_bytes, rnic_mr_lkey(conn->sink.mr), send);
	req->cursor.iov = 0;
	req->cursor.iov_offset = 0;
	req->sink_len += send->sge[0].len;
	rdma_sink_take(&conn->sink, send->sge[0].len);
}

static bool may_read(const struct rdma_conn *conn)
{
	return conn->sq_free && conn->reads_free && (!conn->port->info->iwarp || rdma_sink_place(&conn->sink).iov_len);
}

static void copy_from_sink(struct rdma_req *req)
{
	const struct rdma_sink *sink = &req->conn->sink;
	uint32_t at = req->sink_at, left = req->sink_len;

	while (left) {
		const struct iovec *to = &req->nreq.iov[req->copied_iov];
		uint32_t n = (uint32_t)to->iov_len - req->copied_offset;

		n = n < left ? n : left;
		n = n < sink->size - at ? n : sink->size - at;
		memcpy((uint8_t *)to->iov_base + req->copied_offset, sink->memory + at, n);
		left -= n;
		at = at + n == sink->size ? 0 : at + n;
		req->copied_offset += n;
		if (req->copied_offset == to->iov_len) {
			req->copied_iov++;
			req->copied_offset = 0;
		}
	}
}

static void chain_add_response(struct chain *chain, struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;
	struct rnic_send *send = chain_add(chain, req->sgl.invalidate ? RNIC_SEND_INVALIDATE : RNIC_SEND);

	conn->cqes[req->idx] = req->nreq.cqe;
	set_sqhd(conn, &conn->cqes[req->idx]);
	send->remote_key = req->sgl.invalidate ? req->sgl.invalidate_key : 0;
	send->sge[0] = (struct rnic_sge){ (uintptr_t)&conn->cqes[req->idx], sizeof(struct nvme_cqe), rnic_mr_lkey(conn->cqes_mr) };
	send->nr_sge = 1;
	req->response_posted = true;
	conn->responses_free--;
	conn->nr_unanswered--;
}

static void chain_post(struct chain *chain, struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;
	struct rdma_stats *stats = &conn->port->stats;
	struct rnic_send *last = &chain->sends[chain->nr - 1];

	last->signaled = true;
	last->id = (uintptr_t)req | TAG_LAST;
	req->nr_posted = (uint16_t)chain->nr;
	conn->sq_free -= chain->nr;
	conn->nr_busy++;
	count(&stats->total_send_wrs, chain->nr);
	count(&stats->send_doorbell_updates, 1);
	if (rnic_post_send(conn->rnic, chain->sends))
		rdma_conn_fail(conn, "work cannot be posted");
}

static void post_read(struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;
	struct chain chain;

	chain.nr = 0;
	req->sink_at = conn->sink.head;
	req->sink_len = 0;
	while (req->cursor.left && chain.nr < RDMA_CHAIN_MAX && chain.nr < conn->reads_free && chain.nr < conn->sq_free) {
		if (!conn->port->info->iwarp)
			chain_add_data(&chain, req, RNIC_READ);
		else if (rdma_sink_place(&conn->sink).iov_len)
			chain_add_sink_read(&chain, req);
		else
			break;
	}
	conn->reads_free -= chain.nr;
	set_state(req, REQ_READING);
	chain_post(&chain, req);
}

static void post_response(struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;
	struct chain chain;

	chain.nr = 0;
	while (req->cursor.left && chain.nr < RDMA_CHAIN_MAX && chain.nr < conn->sq_free)
		chain_add_data(&chain, req, RNIC_WRITE);
	if (!req->cursor.left && conn->responses_free && chain.nr < RDMA_CHAIN_MAX && chain.nr < conn->sq_free)
		chain_add_response(&chain, req);
	set_state(req, REQ_SENDING);
	chain_post(&chain, req);
}

/* Something of the first that waits can be posted: data, or its response to where the host has a receive for it. */
static bool may_send(const struct rdma_conn *conn)
{
	return conn->state < CONN_CLOSING && conn->sq_free && !fifo_empty(&conn->send_wait) &&
	       (conn->responses_free || container_of(conn->send_wait.head, struct rdma_req, link)->cursor.left);
}

void rdma_req_pump(struct rdma_conn *conn)
{
	/* What is answered frees buffers: it goes before what fills them. */
	while (may_send(conn))
		post_response(container_of(fifo_pop(&conn->send_wait), struct rdma_req, link));
	while (conn->state < CONN_CLOSING && !fifo_empty(&conn->read_wait) && may_read(conn))
		post_read(container_of(fifo_pop(&conn->read_wait), struct rdma_req, link));
}

static void cursor_start(struct rdma_req *req, uint32_t len)
{
	req->cursor = (struct rdma_cursor){ .left = len };
}

static uint32_t sink_size(const struct rdma_conn *conn)
{
	return conn->state == CONN_LIVE && conn->qpair.qid ? RDMA_SINK_SIZE : RDMA_SINK_FIRST_SIZE;
}

void rdma_req_receive_data(struct nvmf_req *nreq)
{
	struct rdma_req *req = req_of(nreq);
	struct rdma_conn *conn = req->conn;

	set_state(req, REQ_READ_WAIT);
	if (conn->state >= CONN_CLOSING) {
		req_release(req);
		return;
	}
	cursor_start(req, nreq->len);
	req->copied_iov = 0;
	req->copied_offset = 0;
	if (conn->port->info->iwarp && rdma_sink_open(&conn->sink, conn->port->device, sink_size(conn)))
		rdma_conn_fail(conn, "there is no memory for what is read from it");
	fifo_push(&conn->read_wait, &req->link);
	if (!may_read(conn))
		count(&conn->port->stats.pending_rdma_read, 1);
	rdma_req_pump(conn);
}

void rdma_req_complete(struct nvmf_req *nreq)
{
	struct rdma_req *req = req_of(nreq);
	struct rdma_conn *conn = req->conn;
	bool data = nreq->xfer == NVMF_XFER_TO_HOST && nreq->len > 0 && nvme_cqe_status(&nreq->cqe) == NVME_SC_SUCCESS;

	if (conn->state >= CONN_CLOSING ||
	    (conn->state == CONN_WAIT_CONNECT && conn->qpair.connected && rdma_conn_connected(conn))) {
		req_release(req);
		return;
	}
	/* The host may send the next command as soon as it has the answer. */
	drop_slot(req);
	cursor_start(req, data ? nreq->len : 0);
	set_state(req, REQ_SEND_WAIT);
	fifo_push(&conn->send_wait, &req->link);
	if (!conn->sq_free || !conn->responses_free)
		count(data ? &conn->port->stats.pending_rdma_write : &conn->port->stats.pending_rdma_send, 1);
	rdma_req_pump(conn);
}

/* --- done ------------------------------------------------------------------------------------------------------------------------ */

static void portion_done(struct rdma_req *req)
{
	struct rdma_conn *conn = req->conn;

	if (req->state == REQ_READING && req->cursor.left) {
		set_state(req, REQ_READ_WAIT);
		fifo_push(&conn->read_wait, &req->link);
	} else if (req->state == REQ_READING) {
		set_state(req, REQ_NVMF);
		nvmf_req_data_received(&req->nreq);
	} else if (!req->response_posted) {
		set_state(req, REQ_SEND_WAIT);
		fifo_push_first(&conn->send_wait, &req->link);
	} else {
		req_release(req);
	}
}

void rdma_req_work_done(struct rdma_req *req, uint8_t status)
{
	struct rdma_conn *conn = req->conn;

	assert(req->state == REQ_READING || req->state == REQ_SENDING);
	conn->nr_busy--;
	conn->nr_chains_done++;
	conn->sq_free += req->nr_posted;
	if (req->state == REQ_READING) {
		conn->reads_free += req->nr_posted;
		if (req->sink_len && status == RNIC_OK && conn->state < CONN_CLOSING)
			copy_from_sink(req);
		rdma_sink_give_back(&conn->sink, req->sink_len);
	}
	if (req->response_posted)
		conn->responses_free++;
	if (conn->state >= CONN_CLOSING || status != RNIC_OK) {
		req_release(req);
		rdma_conn_work_later(conn, WORK_ADVANCE);
		return;
	}
	portion_done(req);
	start_waiting(conn);
	rdma_req_pump(conn);
	if (conn->draining)
		rdma_conn_work_later(conn, WORK_ADVANCE);
}
