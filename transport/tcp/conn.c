/*
 * A connection's life.
 *
 *   WAIT_ICREQ    accepted; nothing is believed but an ICReq.  A deadline, and a short one once the ICReq has begun.
 *   WAIT_CONNECT  ICResp queued or sent; one request, for Connect.  Until then a connection costs under 16 KiB.  Deadlines alike.
 *   LIVE          Connect has succeeded; requests for the whole queue exist.  The group's tick looks for stalls.
 *   CLOSING       nvmf has been told; no PDU is looked at any more.  What must still go out (the rest of a PDU begun, a
 *                 C2HTermReq) is sent, then our direction is shut, and the host's end, an error or a timer ends the stream.
 *   GONE          the stream is closed and nvmf holds nothing of it: freed by a task.
 *
 *   WAIT_ICREQ -> WAIT_CONNECT      conn_established(): a good ICReq
 *   WAIT_CONNECT -> LIVE            conn_connected(): nvmf completes Connect with success
 *   any before CLOSING -> CLOSING   conn_fatal() (the host broke the protocol), conn_drop() (end of stream, error, deadline,
 *                                   stall, H2CTermReq, nvmf's close), or draining is over (nvmf's graceful close)
 *   CLOSING -> GONE                 stream closed, and nvmf_qpair_disconnect() has reported
 *
 * draining, in any state before CLOSING: nvmf has asked for a graceful end; nothing is received, queued responses go out.
 *
 * All that ends a connection from within a callback of nvmf is put off to conn_work(), so nobody's caller loses it underfoot.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trace.h"
#include "transport/tcp/internal.h"

/* What a peer can make us hold before Connect. */
static_assert(sizeof(struct tcp_conn) + NVME_TCP_ADMIN_CAPSULE_DATA + TCP_CAPSULE_OVERHEAD <= 16 * 1024,
	      "a connection before Connect");

#define NOTICE_PERIOD_US   (10 * 1000 * 1000ull)
#define NOTICES_PER_PERIOD 20u

static void conn_ready(void *arg, unsigned events);

static void set_state(struct tcp_conn *conn, enum tcp_conn_state state)
{
	assert(state > conn->state);
	TRACE(tcp, conn_state, conn, conn->state, state);
	conn->state = state;
}

static void handshake_over(struct tcp_conn *conn)
{
	if (list_empty(&conn->handshake_link))
		return;
	list_del(&conn->handshake_link);
	conn->group->nr_handshaking--;
}

static const char *peer_name(struct tcp_conn *conn, char *buf, size_t size)
{
	struct stream_addr addr;

	conn_peer_addr(&conn->qpair, &addr);
	snprintf(buf, size, addr.family == AF_INET6 ? "[%s]:%u" : "%s:%u", addr.host, addr.port);
	return buf;
}

/* --- work put off to the end of the turn ---------------------------------------------------------------------------------- */

static void conn_free(struct tcp_conn *conn)
{
	struct tcp_group *group = conn->group;

	set_state(conn, CONN_GONE);
	timer_cancel(&conn->timer);
	list_del(&conn->group_link);
	if (list_empty(&group->conns))
		timer_cancel(&group->tick_timer);
	listener_put(conn->listener);
	free(conn->reqs);
	free(conn->partial);
	free(conn);
	group_free_if_over(group);
}

static void drain(struct tcp_conn *conn)
{
	if (!conn_receives(conn))
		return;
	conn->draining = true;
	timer_arm(&conn->timer, TCP_LINGER_US);
	if (send_idle(conn))
		conn_sent_all(conn);
}

static void conn_work(void *arg)
{
	struct tcp_conn *conn = arg;
	unsigned flags = conn->work_flags;

	conn->work_flags = 0;
	conn->work_queued = false;
	if (flags & WORK_FREE) {
		conn_free(conn);
		return;
	}
	if (flags & WORK_CLOSE)
		conn_drop(conn, "closed by the target");
	if (flags & WORK_DEFERRED)
		req_start_deferred(conn);
	if (flags & WORK_DRAIN)
		drain(conn);
	if (flags & WORK_FLUSH)
		send_flush(conn);
}

void conn_work_later(struct tcp_conn *conn, unsigned flags)
{
	conn->work_flags |= flags;
	if (conn->work_queued)
		return;
	conn->work_queued = true;
	task_run_later(&conn->work, conn_work, conn);
}

/* --- ending -------------------------------------------------------------------------------------------------------------------- */

static void free_if_over(struct tcp_conn *conn)
{
	if (conn->nvmf_gone && !conn->stream)
		conn_work_later(conn, WORK_FREE);
}

static void nvmf_is_gone(void *arg)
{
	struct tcp_conn *conn = arg;

	conn->nvmf_gone = true;
	free_if_over(conn);
}

/* Enters CLOSING; @unfinished is the request whose PDU must be completed before anything else may be sent, or NULL. */
static void begin_close(struct tcp_conn *conn, struct tcp_req *unfinished)
{
	set_state(conn, CONN_CLOSING);
	timer_cancel(&conn->timer);
	handshake_over(conn);
	conn->rx_req = NULL;
	conn->partial_len = 0;
	nvmf_qpair_disconnect(&conn->qpair, nvmf_is_gone, conn);
	req_release_held(conn, unfinished);
}

/* Whoever likes can send nonsense: a few lines of the log are enough to say so. */
static bool may_notice(struct tcp_group *group)
{
	uint64_t now = clock_now_us();

	if (now - group->notices_since_us >= NOTICE_PERIOD_US) {
		group->notices_since_us = now;
		group->nr_notices = 0;
	}
	return group->nr_notices++ < NOTICES_PER_PERIOD;
}

static void drop(struct tcp_conn *conn, enum log_level level, const char *why)
{
	char peer[128];

	if (!conn->stream)
		return;
	if (conn->state < CONN_CLOSING) {
		log_at(level, "%s: qid %u: %s", peer_name(conn, peer, sizeof(peer)), conn->qpair.qid, why);
		conn->out_sent = 0;
		begin_close(conn, NULL);
	} else {
		conn->out_sent = 0;
		req_release_held(conn, NULL); /* what was to be finished never will be */
	}
	timer_cancel(&conn->timer);
	stream_close(conn->stream, false);
	conn->stream = NULL;
	free_if_over(conn);
}

void conn_drop(struct tcp_conn *conn, const char *why)
{
	drop(conn, LOG_INFO, why);
}

void conn_give_up(struct tcp_conn *conn, const char *why)
{
	drop(conn, conn->stream && conn->state < CONN_CLOSING && may_notice(conn->group) ? LOG_NOTICE : LOG_INFO, why);
}

void conn_broken(struct tcp_conn *conn, int err)
{
	char why[128];

	snprintf(why, sizeof(why), "the connection broke: %s", strerror(-err));
	conn_give_up(conn, why);
}

/* Enters CLOSING with the stream still open: what is to be sent goes out, and the host's end is waited for, for a while. */
static void linger(struct tcp_conn *conn)
{
	struct tcp_req *unfinished = NULL;

	if (conn->out_sent)
		unfinished = container_of(conn->out.head, struct tcp_req, link);
	begin_close(conn, unfinished);
	timer_arm(&conn->timer, TCP_LINGER_US);
	conn_work_later(conn, WORK_FLUSH);
}

void conn_fatal(struct tcp_conn *conn, const struct pdu_error *error, const void *bad, size_t bad_len)
{
	enum log_level level;
	char peer[128];

	if (conn->state >= CONN_CLOSING)
		return;
	level = may_notice(conn->group) ? LOG_NOTICE : LOG_DEBUG;
	log_at(level, "%s: qid %u: bad PDU of type %02xh: %s, FEI %u", peer_name(conn, peer, sizeof(peer)), conn->qpair.qid,
	       *(const uint8_t *)bad, nvme_tcp_fes_name(error->fes), error->fei);
	linger(conn);
	if (conn->ctl_sent == conn->ctl_len)
		conn->ctl_len = conn->ctl_sent = 0;
	conn->ctl_len += pdu_make_term_req(conn->ctl + conn->ctl_len, error, bad, bad_len);
}

void conn_sent_all(struct tcp_conn *conn)
{
	if (conn->draining && conn->state < CONN_CLOSING)
		linger(conn);
	if (conn->state != CONN_CLOSING || conn->write_shut)
		return;
	conn->write_shut = true;
	stream_shutdown_write(conn->stream);
}

void conn_close(struct nvmf_qpair *qpair, bool graceful)
{
	conn_work_later(conn_of(qpair), graceful ? WORK_DRAIN : WORK_CLOSE);
}

static void conn_deadline(void *arg)
{
	struct tcp_conn *conn = arg;

	if (conn->draining || conn->state >= CONN_LIVE)
		conn_give_up(conn, "does not take what is left");
	else if (conn->state == CONN_WAIT_ICREQ)
		conn_give_up(conn, conn->handshake_pdu ? "stopped in the middle of its ICReq" : "no ICReq in time");
	else
		conn_give_up(conn, conn->handshake_pdu ? "stopped in the middle of its Connect" : "no Connect in time");
}

static void handshake_step(struct tcp_conn *conn, uint64_t timeout_us)
{
	conn->handshake_pdu = false;
	conn->handshake_end_us = clock_now_us() + timeout_us;
	timer_arm(&conn->timer, timeout_us);
}

void conn_handshake_heard(struct tcp_conn *conn)
{
	bool in_pdu = conn->partial_len || conn->rx_req;
	uint64_t now_us, left_us;

	if (!conn_receives(conn) || in_pdu == conn->handshake_pdu)
		return;
	now_us = clock_now_us();
	left_us = conn->handshake_end_us > now_us ? conn->handshake_end_us - now_us : 0;
	if (in_pdu && left_us > TCP_HANDSHAKE_PDU_US)
		left_us = TCP_HANDSHAKE_PDU_US;
	conn->handshake_pdu = in_pdu;
	timer_arm(&conn->timer, left_us);
}

static bool no_progress(bool owed, uint64_t bytes, uint64_t *seen_bytes, uint8_t *ticks, uint8_t max_ticks)
{
	*ticks = owed && bytes == *seen_bytes ? *ticks + 1 : 0;
	*seen_bytes = bytes;
	return *ticks >= max_ticks;
}

void conn_check_stall(struct tcp_conn *conn)
{
	uint8_t max_ticks = nvmf_buffers_short() ? TCP_SHORT_TICKS : TCP_STALL_TICKS;
	uint8_t pdu_ticks = max_ticks < TCP_PDU_TICKS ? max_ticks : TCP_PDU_TICKS;

	if (conn->state != CONN_LIVE)
		return;
	if (no_progress(conn->partial_len || conn->rx_req, conn->nr_rx_bytes, &conn->seen_rx_bytes, &conn->rx_stalled,
			pdu_ticks)) {
		conn_give_up(conn, "stopped in the middle of a PDU");
		return;
	}
	if (no_progress(!send_idle(conn), conn->nr_tx_bytes, &conn->seen_tx_bytes, &conn->tx_stalled, max_ticks)) {
		conn_give_up(conn, "does not read");
		return;
	}
	for (uint32_t i = 0; conn->nr_r2t && i <= conn->nr_reqs; i++) {
		struct tcp_req *req = i ? &conn->reqs[i - 1] : &conn->first_req;

		if (req->state == REQ_R2T_SENT && conn->group->tick - req->rx_tick > max_ticks) {
			conn_give_up(conn, "does not send the data it was asked for");
			return;
		}
	}
}

/* --- beginning ----------------------------------------------------------------------------------------------------------------- */

void conn_established(struct tcp_conn *conn, const struct nvme_tcp_ic_req *req)
{
	struct nvme_tcp_ic_resp *resp = (struct nvme_tcp_ic_resp *)conn->ctl;

	*resp = (struct nvme_tcp_ic_resp){
		.hdr = { .type = NVME_TCP_IC_RESP, .hlen = sizeof(*resp), .plen = sizeof(*resp) },
		.cpda = conn->limits.cpda,
		.dgst = req->dgst & (NVME_TCP_DGST_HEADER | NVME_TCP_DGST_DATA),
		.maxh2cdata = conn->limits.max_h2c_data,
	};
	conn->ctl_len = sizeof(*resp);
	conn->ctl_sent = 0;
	conn->hpda = req->hpda;
	conn->limits.established = true;
	conn->limits.hdgst = conn->qpair.header_digest = req->dgst & NVME_TCP_DGST_HEADER;
	conn->limits.ddgst = conn->qpair.data_digest = req->dgst & NVME_TCP_DGST_DATA;
	set_state(conn, CONN_WAIT_CONNECT);
	handshake_step(conn, TCP_CONNECT_TIMEOUT_US);
	conn_work_later(conn, WORK_FLUSH);
}

static int set_capsule_size(struct tcp_conn *conn)
{
	uint32_t max = conn->qpair.qid ? conn->qpair.opts->in_capsule_data_size : NVME_TCP_ADMIN_CAPSULE_DATA;
	uint8_t *partial;

	assert(max <= NVMF_MAX_CAPSULE_DATA); /* a chunk holds one whole */
	if (max + TCP_CAPSULE_OVERHEAD > conn->partial_size) {
		partial = realloc(conn->partial, max + TCP_CAPSULE_OVERHEAD);
		if (!partial)
			return -ENOMEM;
		conn->partial = partial;
		conn->partial_size = max + TCP_CAPSULE_OVERHEAD;
	}
	conn->limits.max_capsule_data = max;
	return 0;
}

int conn_connected(struct tcp_conn *conn)
{
	if (set_capsule_size(conn) || req_grow(conn, nvmf_qpair_max_outstanding(&conn->qpair))) {
		log_warning("qid %u: no memory for its queue", conn->qpair.qid);
		conn_work_later(conn, WORK_CLOSE);
		return -ENOMEM;
	}
	set_state(conn, CONN_LIVE);
	timer_cancel(&conn->timer);
	handshake_over(conn);
	return 0;
}

static void conn_ready(void *arg, unsigned events)
{
	struct tcp_conn *conn = arg;

	if (events & STREAM_WRITABLE) {
		conn->send_blocked = false;
		send_flush(conn);
	}
	if (!(events & STREAM_READABLE) || !conn->stream)
		return;
	if (conn_receives(conn))
		recv_turn(conn);
	else if (!recv_discard(conn))
		conn_drop(conn, "closed by the host");
}

/* What was asked for when the transport was created. */
static void set_priority(struct tcp_conn *conn)
{
	int rc = conn->qpair.opts->sock_priority ?
			 stream_set_priority(conn->stream, (int)conn->qpair.opts->sock_priority) :
			 0;

	if (rc && may_notice(conn->group))
		log_warning("a connection does not get sock_priority %u: %s", conn->qpair.opts->sock_priority, strerror(-rc));
}

static void make_room(struct tcp_group *group)
{
	struct list *oldest;

	if (group->nr_handshaking < TCP_MAX_HANDSHAKING)
		return;
	oldest = list_first(&group->handshaking);
	conn_drop(container_of(oldest, struct tcp_conn, handshake_link), "others want to connect, and it does not");
}

void conn_start(struct tcp_group *group, struct tcp_listener *listener, struct stream *stream)
{
	struct tcp_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		goto out_stream;
	conn->partial_size = NVME_TCP_ADMIN_CAPSULE_DATA + TCP_CAPSULE_OVERHEAD;
	conn->partial = malloc(conn->partial_size);
	if (!conn->partial)
		goto out_conn;
	make_room(group);
	conn->group = group;
	conn->listener = listener;
	conn->stream = stream;
	conn->limits.max_capsule_data = NVME_TCP_ADMIN_CAPSULE_DATA;
	conn->limits.max_h2c_data = TCP_MAX_H2C_DATA;
	fifo_init(&conn->out);
	fifo_init(&conn->free);
	fifo_init(&conn->deferred);
	req_init(&conn->first_req, conn, 0);
	timer_init(&conn->timer, conn_deadline, conn);
	handshake_step(conn, TCP_ICREQ_TIMEOUT_US);
	if (list_empty(&group->conns))
		timer_arm(&group->tick_timer, TCP_TICK_US);
	list_add_tail(&group->conns, &conn->group_link);
	list_add_tail(&group->handshaking, &conn->handshake_link);
	group->nr_handshaking++;
	conn->qpair.ops = &tcp_transport_ops;
	conn->qpair.opts = nvmf_target_transport_opts(listener->target, &tcp_transport_ops);
	conn->qpair.listener = listener;
	set_priority(conn);
	nvmf_qpair_init(&conn->qpair, group->group);
	stream_attach(stream, conn_ready, conn);
	return;

out_conn:
	free(conn);
out_stream:
	log_warning("no memory for a connection");
	stream_close(stream, true);
	listener_put(listener);
}

static void no_addr(struct stream_addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	addr->family = AF_INET;
}

void conn_local_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr)
{
	struct tcp_conn *conn = conn_of(qpair);

	if (conn->stream)
		stream_local_addr(conn->stream, ret_addr);
	else
		no_addr(ret_addr);
}

void conn_peer_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr)
{
	struct tcp_conn *conn = conn_of(qpair);

	if (conn->stream)
		stream_peer_addr(conn->stream, ret_addr);
	else
		no_addr(ret_addr);
}
