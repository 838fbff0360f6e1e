/*
 * Receiving: all that the socket has, in one large call, into the group's chunk; then the PDUs in it, one after the other.
 *
 * Small payloads are used where they lie.  The data of H2CData PDUs is received straight into the request's buffers: while R2Ts
 * are outstanding only a small window is received in front of a payload, so that little has to be moved, and the call that takes
 * the payload also takes the next header.  The beginning of a PDU that is not all here is kept in conn->partial.
 */
#include <errno.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "transport/tcp/internal.h"

#define RX_R2T_WINDOW 512u /* received at once while H2CData is to be expected */
#define RX_MIN_ROOM   (16u * 1024)

static void fatal(struct tcp_conn *conn, const struct pdu_error *error, const uint8_t *pdu, size_t len)
{
	size_t hlen = len > 2 && pdu[2] > sizeof(struct nvme_tcp_hdr) ? pdu[2] : sizeof(struct nvme_tcp_hdr);

	conn_fatal(conn, error, pdu, len < hlen ? len : hlen);
}

/* --- payload of H2CData --------------------------------------------------------------------------------------------------- */

static uint32_t payload_offset(const struct tcp_conn *conn)
{
	return conn->rx_req->rx_next + conn->rx_pdu_len - conn->rx_left;
}

static void check_payload_digest(struct tcp_conn *conn)
{
	struct tcp_req *req = conn->rx_req;
	struct iovec iov[NVMF_REQ_IOVS];
	uint32_t received;
	unsigned n = iov_slice(req->nreq.iov, req->nreq.iovcnt, req->rx_next, conn->rx_pdu_len, iov);

	memcpy(&received, conn->rx_ddgst, sizeof(received));
	/* The command fails once all its data is here: until then its TTAG is in the host's hands. */
	if (crc32c_end(crc32c_more_iov(crc32c_begin(), iov, n, conn->rx_pdu_len)) != received)
		req->rx_bad_digest = true;
}

/* The PDU is all here. */
static void payload_done(struct tcp_conn *conn)
{
	struct tcp_req *req = conn->rx_req;

	if (conn->limits.ddgst)
		check_payload_digest(conn);
	conn->rx_req = NULL;
	req->rx_next += conn->rx_pdu_len;
	req->rx_tick = conn->group->tick;
	if (req->rx_next < req->nreq.len)
		return;
	conn->nr_r2t--;
	req_set_state(req, REQ_NVMF);
	if (req->rx_bad_digest)
		nvmf_req_data_failed(&req->nreq, NVME_SC_TRANSIENT_TRANSPORT_ERROR);
	else
		nvmf_req_data_received(&req->nreq);
}

/* Takes payload and digest from bytes that were received with something else; gives how many were taken. */
static size_t take_payload(struct tcp_conn *conn, const uint8_t *p, size_t len)
{
	struct tcp_req *req = conn->rx_req;
	size_t used = 0;

	if (conn->rx_left && len) {
		uint32_t n = len < conn->rx_left ? (uint32_t)len : conn->rx_left;
		struct iovec iov[NVMF_REQ_IOVS];
		unsigned nr = iov_slice(req->nreq.iov, req->nreq.iovcnt, payload_offset(conn), n, iov);

		for (unsigned i = 0; i < nr; i++) {
			memcpy(iov[i].iov_base, p + used, iov[i].iov_len);
			used += iov[i].iov_len;
		}
		conn->rx_left -= n;
	}
	if (conn->rx_left)
		return used;
	if (conn->limits.ddgst) {
		while (conn->rx_ddgst_len < NVME_TCP_DIGEST_SIZE && used < len)
			conn->rx_ddgst[conn->rx_ddgst_len++] = p[used++];
		if (conn->rx_ddgst_len < NVME_TCP_DIGEST_SIZE)
			return used;
	}
	payload_done(conn);
	return used;
}

static void take_h2c_data(struct tcp_conn *conn, const uint8_t *p)
{
	struct nvme_tcp_data pdu;
	struct pdu_error error;
	struct pdu_r2t r2t;
	struct tcp_req *req;

	memcpy(&pdu, p, sizeof(pdu));
	req = req_by_ttag(conn, pdu.ttag);
	if (req)
		r2t = (struct pdu_r2t){ .cccid = req->nreq.cmd.cid, .next = req->rx_next, .len = req->nreq.len };
	if (pdu_check_h2c_data(&pdu, req ? &r2t : NULL, &conn->limits, &error)) {
		fatal(conn, &error, p, sizeof(pdu));
		return;
	}
	conn->rx_req = req;
	conn->rx_left = conn->rx_pdu_len = pdu.datal;
	conn->rx_ddgst_len = 0;
}

/* --- other PDUs -------------------------------------------------------------------------------------------------------------- */

static void keep_capsule_data(struct tcp_req *req, struct tcp_chunk *chunk, uint8_t *data, uint32_t len)
{
	req->capsule_len = len;
	if (req->conn->limits.ddgst) {
		uint32_t received;

		memcpy(&received, data + len, sizeof(received));
		if (crc32c(data, len) != received) {
			req->early_status = NVME_SC_TRANSIENT_TRANSPORT_ERROR;
			return;
		}
	}
	if (!chunk->home) {
		chunk_hold(chunk);
		chunk->fill = (uint32_t)(data + len - chunk->base + 63) & ~63u;
		req->chunk = chunk;
		req->capsule_data = data;
		return;
	}
	req->copy = req->capsule_data = dma_alloc(len, 64);
	if (req->copy)
		memcpy(req->copy, data, len);
	else
		req->early_status = NVME_SC_COMMAND_INTERRUPTED; /* a host tries again */
}

static void take_capsule(struct tcp_conn *conn, struct tcp_chunk *chunk, const struct nvme_tcp_hdr *hdr, uint8_t *p)
{
	uint32_t data_len = pdu_capsule_data_len(hdr, &conn->limits);
	struct tcp_req *req = req_take(conn);

	if (!req) {
		const struct pdu_error error = { .fes = NVME_TCP_FES_SEQUENCE };

		fatal(conn, &error, p, hdr->hlen);
		return;
	}
	memcpy(&req->nreq.cmd, p + sizeof(*hdr), sizeof(req->nreq.cmd));
	if (data_len)
		keep_capsule_data(req, chunk, p + hdr->pdo, data_len);
	req_start(req);
	conn->rx_read_bytes = nvme_opcode_xfer(req->nreq.cmd.opcode) == NVME_XFER_TO_HOST ? req->charge_bytes : 0;
	conn->rx_begun_bytes += conn->rx_read_bytes;
}

static void take_ic_req(struct tcp_conn *conn, const uint8_t *p)
{
	struct nvme_tcp_ic_req req;
	struct pdu_error error;

	memcpy(&req, p, sizeof(req));
	if (pdu_check_ic_req(&req, &error)) {
		fatal(conn, &error, p, sizeof(req));
		return;
	}
	conn_established(conn, &req);
}

static void take_term_req(struct tcp_conn *conn, const uint8_t *p)
{
	struct nvme_tcp_term_req term;

	memcpy(&term, p, sizeof(term));
	log_info("qid %u: host ends the connection: %s, FEI %u", conn->qpair.qid, nvme_tcp_fes_name(term.fes),
		 nvme_tcp_term_fei(&term));
	conn_drop(conn, "H2CTermReq");
}

/* Takes one PDU, or its part before the data; gives its length, or 0 when it is not all here. */
static size_t take_pdu(struct tcp_conn *conn, struct tcp_chunk *chunk, uint8_t *p, size_t len)
{
	struct nvme_tcp_hdr hdr;
	struct pdu_error error;
	uint32_t unit;

	if (len < sizeof(hdr))
		return 0;
	memcpy(&hdr, p, sizeof(hdr));
	if (pdu_check_type(&hdr, &conn->limits, &error))
		goto bad;
	if (pdu_has_hdgst(hdr.type, &conn->limits)) {
		if (len < hdr.hlen + NVME_TCP_DIGEST_SIZE)
			return 0;
		if (pdu_check_hdgst(p, hdr.hlen, &error))
			goto bad;
	}
	if (pdu_check_lengths(&hdr, &conn->limits, &error))
		goto bad;
	unit = pdu_unit_len(&hdr);
	if (len < unit)
		return 0;
	switch (hdr.type) {
	case NVME_TCP_CAPSULE_CMD:
		take_capsule(conn, chunk, &hdr, p);
		break;
	case NVME_TCP_H2C_DATA:
		take_h2c_data(conn, p);
		break;
	case NVME_TCP_IC_REQ:
		take_ic_req(conn, p);
		break;
	default:
		take_term_req(conn, p);
		break;
	}
	return unit;
bad:
	fatal(conn, &error, p, len);
	return len;
}

/* Takes what is whole; gives how much that was. */
static size_t take_all(struct tcp_conn *conn, struct tcp_chunk *chunk, uint8_t *p, size_t len)
{
	size_t off = 0, n;

	while (conn_receives(conn)) {
		if (conn->rx_req) {
			off += take_payload(conn, p + off, len - off);
			if (conn->rx_req)
				break;
			continue;
		}
		n = take_pdu(conn, chunk, p + off, len - off);
		if (n == 0)
			break;
		off += n;
	}
	return off;
}

/* --- the call ---------------------------------------------------------------------------------------------------------------- */

/* How much to receive behind what is already in partial. */
static uint32_t rx_window(const struct tcp_conn *conn, uint32_t room)
{
	uint32_t window = room - conn->partial_len;
	uint32_t want = RX_R2T_WINDOW;

	if (conn->nr_r2t == 0 && conn->rx_read_bytes < TCP_RX_LARGE_READ_BYTES)
		return window;
	if (conn->nr_r2t == 0) {
		/* Large reads are begun a few at a time, so that each turn uses the buffers of the one before, still in the cache. */
		want = TCP_RX_BEGIN_BYTES / conn->rx_read_bytes * sizeof(struct nvme_tcp_capsule_cmd);
		want = want > sizeof(struct nvme_tcp_capsule_cmd) ? want : sizeof(struct nvme_tcp_capsule_cmd);
	}
	if (conn->partial_len >= sizeof(struct nvme_tcp_hdr)) {
		struct nvme_tcp_hdr hdr;

		memcpy(&hdr, conn->partial, sizeof(hdr));
		if (hdr.type != NVME_TCP_H2C_DATA && hdr.plen > conn->partial_len && hdr.plen <= conn->partial_size)
			want += hdr.plen - conn->partial_len;
	}
	return want < window ? want : window;
}

/* One receive.  Gives the number of bytes, or 0 when there are no more for now, or the connection is over. */
static size_t recv_once(struct tcp_conn *conn, bool *ret_drained)
{
	struct tcp_chunk *chunk = chunk_get(conn->group, conn->partial_size + RX_MIN_ROOM);
	uint8_t *p = chunk->base + chunk->fill;
	struct iovec iov[NVMF_REQ_IOVS + 1];
	size_t direct = conn->rx_req ? conn->rx_left : 0, asked, len, used;
	unsigned n = 0;
	ssize_t got;

	if (direct)
		n = iov_slice(conn->rx_req->nreq.iov, conn->rx_req->nreq.iovcnt, payload_offset(conn), conn->rx_left, iov);
	iov[n].iov_base = p + conn->partial_len;
	iov[n].iov_len = rx_window(conn, IOBUF_LARGE_SIZE - chunk->fill);
	asked = direct + iov[n++].iov_len;
	got = n == 1 ? stream_recv(conn->stream, iov[0].iov_base, iov[0].iov_len) : stream_recvv(conn->stream, iov, n);
	*ret_drained = got < 0 || got < asked;
	if (got <= 0) {
		chunk_put(chunk);
		if (got == 0)
			conn_drop(conn, "closed by the host");
		else if (got != -EAGAIN)
			conn_broken(conn, (int)got);
		return 0;
	}
	conn->nr_rx_bytes += got;
	if (direct > got)
		direct = got;
	conn->rx_left -= direct;
	memcpy(p, conn->partial, conn->partial_len);
	len = conn->partial_len + (got - direct);
	conn->partial_len = 0;
	used = take_all(conn, chunk, p, len);
	if (conn_receives(conn) && used < len) {
		assert(len - used <= conn->partial_size);
		conn->partial_len = len - used;
		memcpy(conn->partial, p + used, conn->partial_len);
	}
	chunk_put(chunk);
	if (conn->state < CONN_LIVE)
		conn_handshake_heard(conn);
	return got;
}

void recv_turn(struct tcp_conn *conn)
{
	size_t total = 0;
	bool drained = false;

	conn->rx_begun_bytes = 0;
	for (unsigned i = 0; i < TCP_RX_BUDGET_CALLS && total < TCP_RX_BUDGET_BYTES; i++) {
		total += recv_once(conn, &drained);
		if (drained || !conn_receives(conn) || conn->rx_begun_bytes >= TCP_RX_BEGIN_BYTES)
			return;
	}
}

bool recv_discard(struct tcp_conn *conn)
{
	struct tcp_chunk *home = &conn->group->home;

	for (unsigned i = 0; i < TCP_RX_BUDGET_CALLS; i++) {
		ssize_t got = stream_recv(conn->stream, home->base, IOBUF_LARGE_SIZE);

		if (got == -EAGAIN)
			return true;
		if (got <= 0)
			return false;
	}
	return true;
}
