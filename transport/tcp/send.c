/*
 * Sending: once a connection and turn, one gather list of everything that is ready.
 *
 * The order on the wire is what is left of a PDU already begun, then ctl (ICResp, C2HTermReq), then conn->out.  Headers and
 * other small pieces are put side by side, so that a run of responses is one entry of the list; data goes from where it is.
 */
#include <errno.h>
#include <string.h>

#include "transport/tcp/internal.h"

struct gather {
	struct tcp_group *group;
	unsigned n;
	uint32_t small_len;
	size_t bytes;
};

static void add_small(struct gather *g, const uint8_t *piece, uint32_t len)
{
	uint8_t *to = g->group->small + g->small_len;
	struct iovec *last = g->n ? &g->group->iov[g->n - 1] : NULL;

	if (len == 0)
		return;
	memcpy(to, piece, len);
	g->small_len += len;
	g->bytes += len;
	if (last && (uint8_t *)last->iov_base + last->iov_len == to)
		last->iov_len += len;
	else
		g->group->iov[g->n++] = (struct iovec){ to, len };
}

static uint32_t req_wire_len(const struct tcp_req *req)
{
	return req->head_len + req->data_len + req->tail_len;
}

/* What of a piece of len bytes is left when @skip bytes are to be passed over; lowers *skip by what it passes. */
static uint32_t pass_over(uint32_t *skip, uint32_t len)
{
	uint32_t passed = *skip < len ? *skip : len;

	*skip -= passed;
	return passed;
}

static void add_req(struct gather *g, const struct tcp_req *req, uint32_t skip)
{
	uint32_t passed = pass_over(&skip, req->head_len);

	add_small(g, req->head + passed, req->head_len - passed);
	if (req->data_len) {
		passed = pass_over(&skip, req->data_len);
		g->n += iov_slice(req->nreq.iov, req->nreq.iovcnt, passed, req->data_len - passed, &g->group->iov[g->n]);
		g->bytes += req->data_len - passed;
	}
	passed = pass_over(&skip, req->tail_len);
	add_small(g, req->tail + passed, req->tail_len - passed);
}

/* Room for one more of any kind? */
static bool gather_full(const struct gather *g)
{
	return g->n > TCP_TX_MAX_IOV - NVMF_REQ_IOVS - 2 || g->bytes >= TCP_TX_BUDGET_BYTES ||
	       g->small_len > sizeof(g->group->small) - REQ_HEAD_MAX - REQ_TAIL_MAX;
}

static void gather_conn(struct gather *g, const struct tcp_conn *conn)
{
	struct fifo_link *link = conn->out.head;

	if (link && conn->out_sent) {
		add_req(g, container_of(link, struct tcp_req, link), conn->out_sent);
		link = link->next;
	}
	add_small(g, conn->ctl + conn->ctl_sent, conn->ctl_len - conn->ctl_sent);
	for (; link && !gather_full(g); link = link->next)
		add_req(g, container_of(link, struct tcp_req, link), 0);
}

static void sent_req(struct tcp_req *req)
{
	if (req->state == REQ_R2T_QUEUED && req->conn->state < CONN_CLOSING) {
		req->rx_tick = req->conn->group->tick;
		req_set_state(req, REQ_R2T_SENT);
		return;
	}
	req_release(req);
}

/* Takes up to *sent bytes of the first of out; false when it is not wholly out. */
static bool account_first(struct tcp_conn *conn, size_t *sent)
{
	struct tcp_req *req = container_of(conn->out.head, struct tcp_req, link);
	uint32_t left = req_wire_len(req) - conn->out_sent;

	if (*sent < left) {
		conn->out_sent += *sent;
		*sent = 0;
		return false;
	}
	*sent -= left;
	conn->out_sent = 0;
	fifo_pop(&conn->out);
	sent_req(req);
	return true;
}

static void account(struct tcp_conn *conn, size_t sent)
{
	size_t ctl;

	conn->nr_tx_bytes += sent;
	if (conn->out_sent && !account_first(conn, &sent))
		return;
	ctl = conn->ctl_len - conn->ctl_sent;
	if (ctl > sent)
		ctl = sent;
	conn->ctl_sent += ctl;
	sent -= ctl;
	while (sent && account_first(conn, &sent))
		;
}

void send_flush(struct tcp_conn *conn)
{
	struct gather g = { .group = conn->group };
	ssize_t sent;

	if (!conn->stream || conn->send_blocked || conn->write_shut)
		return;
	gather_conn(&g, conn);
	if (g.n) {
		sent = stream_sendv(conn->stream, g.group->iov, g.n);
		if (sent < 0 && sent != -EAGAIN) {
			conn_broken(conn, (int)sent);
			return;
		}
		if (sent > 0)
			account(conn, sent);
		if (sent != g.bytes) {
			conn->send_blocked = true;
			stream_want_write(conn->stream);
		} else if (!send_idle(conn)) {
			conn_work_later(conn, WORK_FLUSH); /* the rest next turn: others have theirs first */
		}
	}
	if (send_idle(conn))
		conn_sent_all(conn);
}

void send_queue(struct tcp_req *req)
{
	fifo_push(&req->conn->out, &req->link);
	conn_work_later(req->conn, WORK_FLUSH);
}
