/* The honest part of the fake target, and the pieces that scripts make their lies of. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "nvme/fake_target.h"

struct fake_target fake;
static unsigned nr_open;

void fake_reset(void)
{
	free(fake.disk);
	fake = (struct fake_target){
		.maxh2cdata = 65536,
		.in_capsule_bytes = 4096,
		.max_queue = 128,
		.c2h_bytes = 1u << 20,
		.r2t_bytes = 1u << 20,
		.disk = calloc(FAKE_NR_BLOCKS, FAKE_BLOCK_SIZE),
	};
}

static void on_ready(void *arg, unsigned events)
{
	struct fake_conn *conn = arg;

	fiber_cond_broadcast(&conn->readable);
	fiber_cond_broadcast(&conn->writable);
}

fiber_fn bool fake_recv(struct fake_conn *conn, void *buf, uint32_t len)
{
	uint32_t done = 0;

	while (done < len && !conn->gone) {
		ssize_t n = stream_recv(conn->stream, (uint8_t *)buf + done, len - done);

		if (n == -EAGAIN)
			fiber_cond_wait(&conn->readable);
		else if (n <= 0)
			conn->gone = true;
		else
			done += (uint32_t)n;
	}
	return !conn->gone;
}

fiber_fn bool fake_send(struct fake_conn *conn, const void *buf, uint32_t len)
{
	uint32_t done = 0;

	while (done < len && !conn->gone) {
		struct iovec iov = {(uint8_t *)(uintptr_t)buf + done, len - done};
		ssize_t n = stream_sendv(conn->stream, &iov, 1);

		if (n == -EAGAIN) {
			stream_want_write(conn->stream);
			fiber_cond_wait(&conn->writable);
		} else if (n < 0) {
			conn->gone = true;
		} else {
			done += (uint32_t)n;
		}
	}
	return !conn->gone;
}

fiber_fn void fake_send_header(struct fake_conn *conn, const void *hdr)
{
	uint8_t bytes[24 + NVME_TCP_DIGEST_SIZE];
	uint32_t crc = crc32c(hdr, 24);

	memcpy(bytes, hdr, 24);
	memcpy(bytes + 24, &crc, sizeof(crc));
	fake_send(conn, bytes, conn->hdgst ? sizeof(bytes) : 24);
}

static struct nvme_tcp_hdr header(const struct fake_conn *conn, uint8_t type)
{
	return (struct nvme_tcp_hdr){
		.type = type,
		.flags = conn->hdgst ? NVME_TCP_FLAG_HDGST : 0,
		.hlen = 24,
		.plen = conn->hdgst ? 28 : 24,
	};
}

fiber_fn void fake_send_resp(struct fake_conn *conn, uint16_t cid, uint16_t status, uint64_t result)
{
	struct nvme_tcp_capsule_resp resp = {.hdr = header(conn, NVME_TCP_CAPSULE_RESP)};

	resp.cqe.cid = cid;
	resp.cqe.result = result;
	nvme_cqe_set_status(&resp.cqe, status);
	fake_send_header(conn, &resp);
}

fiber_fn void fake_send_r2t(struct fake_conn *conn, uint16_t cid, uint16_t ttag, uint32_t offset,
			    uint32_t len)
{
	struct nvme_tcp_r2t r2t = {
		.hdr = header(conn, NVME_TCP_R2T), .cccid = cid, .ttag = ttag, .r2to = offset, .r2tl = len};

	fake_send_header(conn, &r2t);
}

fiber_fn void fake_send_data(struct fake_conn *conn, uint16_t cid, uint32_t offset, const void *data,
			     uint32_t len, uint8_t flags)
{
	struct nvme_tcp_data pdu = {
		.hdr = header(conn, NVME_TCP_C2H_DATA), .cccid = cid, .datao = offset, .datal = len};
	static const uint8_t pad[256];
	uint32_t crc = crc32c(data, len);

	pdu.hdr.pdo = (uint8_t)(pdu.hdr.plen + fake.pdo_pad);
	pdu.hdr.plen = pdu.hdr.pdo + len + (conn->ddgst ? NVME_TCP_DIGEST_SIZE : 0);
	pdu.hdr.flags |= flags | (conn->ddgst ? NVME_TCP_FLAG_DDGST : 0);
	fake_send_header(conn, &pdu);
	fake_send(conn, pad, fake.pdo_pad);
	fake_send(conn, data, len);
	if (conn->ddgst)
		fake_send(conn, &crc, sizeof(crc));
}

/* Reads one PDU's header; honest hosts only. */
static fiber_fn bool recv_header(struct fake_conn *conn, void *hdr, uint32_t len)
{
	struct nvme_tcp_hdr common;
	uint8_t pad[256];
	uint32_t crc, at = len;

	if (!fake_recv(conn, hdr, len))
		return false;
	memcpy(&common, hdr, sizeof(common));
	assert(common.hlen == len && !(common.flags & NVME_TCP_FLAG_HDGST) == !conn->hdgst);
	if (conn->hdgst) {
		if (!fake_recv(conn, &crc, sizeof(crc)))
			return false;
		assert(crc == crc32c(hdr, len));
		at += sizeof(crc);
	}
	if (common.pdo) {
		assert(common.pdo >= at && common.pdo % ((fake.cpda + 1u) * 4) == 0);
		return fake_recv(conn, pad, common.pdo - at);
	}
	assert(common.plen == at);
	return true;
}

static fiber_fn bool recv_payload(struct fake_conn *conn, uint8_t *out, uint32_t len)
{
	uint32_t crc;

	if (!fake_recv(conn, out, len))
		return false;
	if (!conn->ddgst)
		return true;
	if (!fake_recv(conn, &crc, sizeof(crc)))
		return false;
	assert(crc == crc32c(out, len));
	return true;
}

fiber_fn bool fake_take_h2c(struct fake_conn *conn, uint16_t cid, uint16_t ttag, uint32_t offset,
			    uint32_t len, uint8_t *out)
{
	for (uint32_t done = 0; done < len;) {
		struct nvme_tcp_data pdu;

		if (!recv_header(conn, &pdu, sizeof(pdu)))
			return false;
		assert(pdu.hdr.type == NVME_TCP_H2C_DATA && pdu.cccid == cid && pdu.ttag == ttag);
		assert(pdu.datao == offset + done && pdu.datal && pdu.datal <= len - done &&
		       pdu.datal <= fake.maxh2cdata);
		assert(!(pdu.hdr.flags & NVME_TCP_FLAG_LAST) == (pdu.datal != len - done));
		if (!recv_payload(conn, out + done, pdu.datal))
			return false;
		done += pdu.datal;
	}
	return true;
}

static fiber_fn void send_buffer(struct fake_conn *conn, const union nvme_cmd *cmd, const uint8_t *data,
				 uint32_t len)
{
	for (uint32_t at = 0; at < len;) {
		uint32_t n = len - at < fake.c2h_bytes ? len - at : fake.c2h_bytes;
		uint8_t flags = at + n == len
					? NVME_TCP_FLAG_LAST | (fake.use_success ? NVME_TCP_FLAG_SUCCESS : 0)
					: 0;

		fake_send_data(conn, cmd->cid, at, data + at, n, flags);
		at += n;
	}
	if (!fake.use_success || !len)
		fake_send_resp(conn, cmd->cid, 0, 0);
}

static fiber_fn void serve_write(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *data, uint32_t len,
				 uint8_t *to)
{
	uint32_t want = cmd->sgl.len;

	if (cmd->sgl.type == NVME_SGL_IN_CAPSULE) {
		assert(len == want);
		memcpy(to, data, len);
	} else {
		for (uint32_t at = 0; at < want;) {
			uint32_t n = want - at < fake.r2t_bytes ? want - at : fake.r2t_bytes;

			fake_send_r2t(conn, cmd->cid, (uint16_t)(at + 7), at, n);
			if (!fake_take_h2c(conn, cmd->cid, (uint16_t)(at + 7), at, n, to + at))
				return;
			at += n;
		}
	}
	fake_send_resp(conn, cmd->cid, 0, 0);
}

static fiber_fn void serve_io(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *data, uint32_t len)
{
	uint32_t nr = cmd->rw.nlb + 1u;

	if (cmd->opcode != NVME_IO_READ && cmd->opcode != NVME_IO_WRITE) {
		fake_send_resp(conn, cmd->cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0);
		return;
	}
	if (cmd->rw.slba > FAKE_NR_BLOCKS || nr > FAKE_NR_BLOCKS - cmd->rw.slba) {
		fake_send_resp(conn, cmd->cid, NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR, 0);
		return;
	}
	assert(cmd->sgl.len == nr * FAKE_BLOCK_SIZE);
	if (cmd->opcode == NVME_IO_READ)
		send_buffer(conn, cmd, fake.disk + cmd->rw.slba * FAKE_BLOCK_SIZE, cmd->sgl.len);
	else
		serve_write(conn, cmd, data, len, fake.disk + cmd->rw.slba * FAKE_BLOCK_SIZE);
}

static void fill_identify(const union nvme_cmd *cmd, uint8_t *page)
{
	struct nvme_id_ctrlr *ctrlr = (void *)page;
	struct nvme_id_ns *ns = (void *)page;

	switch (cmd->identify.cns) {
	case NVME_CNS_CTRLR:
		ctrlr->cntrltype = NVME_CNTRLTYPE_IO;
		ctrlr->mdts = 8;
		ctrlr->ioccsz = (64 + fake.in_capsule_bytes) / 16;
		ctrlr->iorcsz = 1;
		strcpy(ctrlr->subnqn, fake.connect_data.subnqn);
		break;
	case NVME_CNS_ACTIVE_NS_LIST:
		if (cmd->nsid < FAKE_NSID)
			((struct nvme_ns_list *)(void *)page)->nsid[0] = FAKE_NSID;
		break;
	case NVME_CNS_NS:
		if (cmd->nsid == FAKE_NSID) {
			ns->nsze = ns->ncap = ns->nuse = FAKE_NR_BLOCKS;
			ns->lbaf[0].lbads = 9;
		}
		break;
	}
}

static fiber_fn void serve_admin(struct fake_conn *conn, union nvme_cmd *cmd)
{
	uint8_t *page;

	switch (cmd->opcode) {
	case NVME_ADMIN_IDENTIFY:
		page = calloc(1, NVME_IDENTIFY_SIZE);
		fill_identify(cmd, page);
		send_buffer(conn, cmd, page, NVME_IDENTIFY_SIZE);
		free(page);
		return;
	case NVME_ADMIN_SET_FEATURES:
		fake_send_resp(conn, cmd->cid, 0, 0x00030003);
		return;
	case NVME_ADMIN_KEEP_ALIVE:
		fake.nr_keep_alives++;
		fake_send_resp(conn, cmd->cid, 0, 0);
		return;
	case NVME_ADMIN_AER:
		return;
	}
	fake_send_resp(conn, cmd->cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0);
}

static uint64_t property_get(uint32_t offset)
{
	switch (offset) {
	case NVME_PROP_CAP:
		return (fake.max_queue - 1u) | NVME_CAP_CQR | 20ull << NVME_CAP_TO_SHIFT | NVME_CAP_CSS_NVM;
	case NVME_PROP_VS:
		return NVME_VS(2, 0, 0);
	case NVME_PROP_CC:
		return fake.cc;
	}
	return fake.csts;
}

static fiber_fn void serve_fabrics(struct fake_conn *conn, union nvme_cmd *cmd, const uint8_t *data,
				   uint32_t len)
{
	switch (cmd->fabrics.fctype) {
	case NVME_FCTYPE_CONNECT:
		assert(len == sizeof(fake.connect_data) && cmd->sgl.type == NVME_SGL_IN_CAPSULE);
		memcpy(&fake.connect_data, data, len);
		conn->qid = cmd->connect.qid;
		fake_send_resp(conn, cmd->cid, 0, 5);
		return;
	case NVME_FCTYPE_PROPERTY_GET:
		fake_send_resp(conn, cmd->cid, 0, property_get(cmd->property.ofst));
		return;
	case NVME_FCTYPE_PROPERTY_SET:
		fake.cc = (uint32_t)cmd->property.value;
		fake.csts = fake.cc & NVME_CC_EN ? NVME_CSTS_RDY : 0;
		if (NVME_CC_SHN(fake.cc))
			fake.csts |= NVME_CSTS_SHST_COMPLETE << NVME_CSTS_SHST_SHIFT;
		fake_send_resp(conn, cmd->cid, 0, 0);
		return;
	}
	fake_send_resp(conn, cmd->cid, NVME_SC_INVALID_FIELD | NVME_SC_DNR, 0);
}

fiber_fn void fake_serve(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *data, uint32_t len)
{
	if (cmd->opcode == NVME_OPC_FABRICS)
		serve_fabrics(conn, cmd, data, len);
	else if (conn->qid)
		serve_io(conn, cmd, data, len);
	else
		serve_admin(conn, cmd);
}

static fiber_fn void take_term_req(struct fake_conn *conn, const struct nvme_tcp_hdr *common)
{
	struct nvme_tcp_term_req term = {.hdr = *common};

	if (!fake_recv(conn, (uint8_t *)&term + sizeof(*common), sizeof(term) - sizeof(*common)))
		return;
	fake.nr_term_reqs++;
	fake.term_fes = term.fes;
	fake.term_fei = nvme_tcp_term_fei(&term);
	conn->gone = true;
}

static fiber_fn void take_capsule(struct fake_conn *conn, const struct nvme_tcp_hdr *common)
{
	struct nvme_tcp_capsule_cmd pdu = {.hdr = *common};
	uint32_t at = sizeof(pdu), len = 0, crc;
	uint8_t pad[256], *data;

	assert(common->type == NVME_TCP_CAPSULE_CMD && common->hlen == sizeof(pdu));
	if (!fake_recv(conn, (uint8_t *)&pdu + sizeof(*common), sizeof(pdu) - sizeof(*common)))
		return;
	if (conn->hdgst) {
		if (!fake_recv(conn, &crc, sizeof(crc)))
			return;
		assert(crc == crc32c(&pdu, sizeof(pdu)));
		at += sizeof(crc);
	}
	if (common->pdo) {
		assert(common->pdo >= at && common->pdo % ((fake.cpda + 1u) * 4) == 0);
		if (!fake_recv(conn, pad, common->pdo - at))
			return;
		len = common->plen - common->pdo - (conn->ddgst ? NVME_TCP_DIGEST_SIZE : 0);
	} else {
		assert(common->plen == at);
	}
	assert(len <= NVME_TCP_ADMIN_CAPSULE_DATA);
	data = malloc(len + 1);
	if (!len || recv_payload(conn, data, len)) {
		conn->nr_commands++;
		if (!fake.command || !fake.command(conn, &pdu.cmd, data, len))
			fake_serve(conn, &pdu.cmd, data, len);
	}
	free(data);
}

static fiber_fn bool handshake(struct fake_conn *conn)
{
	struct nvme_tcp_ic_req req;
	struct nvme_tcp_ic_resp resp = {
		.hdr = {.type = NVME_TCP_IC_RESP, .hlen = sizeof(resp), .plen = sizeof(resp)},
		.cpda = fake.cpda,
		.maxh2cdata = fake.maxh2cdata,
	};

	if (!fake_recv(conn, &req, sizeof(req)))
		return false;
	assert(req.hdr.type == NVME_TCP_IC_REQ && req.hdr.plen == sizeof(req) && req.pfv == 0);
	if (fake.mute)
		return true;
	resp.dgst = req.dgst & (fake.no_hdgst ? NVME_TCP_DGST_DATA : 3);
	if (fake.ic_resp)
		fake.ic_resp(conn, &resp);
	if (!fake_send(conn, &resp, sizeof(resp)))
		return false;
	conn->hdgst = resp.dgst & NVME_TCP_DGST_HEADER;
	conn->ddgst = resp.dgst & NVME_TCP_DGST_DATA;
	return true;
}

static void conn_fiber(void *arg)
{
	struct fake_conn *conn = arg;
	struct nvme_tcp_hdr common;

	if (handshake(conn)) {
		while (fake_recv(conn, &common, sizeof(common))) {
			if (common.type == NVME_TCP_H2C_TERM_REQ)
				take_term_req(conn, &common);
			else
				take_capsule(conn, &common);
		}
	}
	stream_close(conn->stream, false);
	free(conn);
	nr_open--;
}

static void accepted(void *arg, struct stream *stream)
{
	struct fake_conn *conn = calloc(1, sizeof(*conn));

	fake.nr_conns++;
	nr_open++;
	conn->stream = stream;
	fiber_cond_init(&conn->readable);
	fiber_cond_init(&conn->writable);
	stream_attach(stream, on_ready, conn);
	fiber_spawn(thread_current(), "fake", conn_fiber, conn);
}

void fake_start(const struct stream_addr *addr)
{
	int rc = stream_listen(addr, 16, accepted, NULL, &fake.listener);

	assert(!rc);
	(void)rc;
}

fiber_fn void fake_stop(void)
{
	stream_listener_close(fake.listener);
	while (nr_open)
		fiber_sleep(100);
	free(fake.disk);
	fake.disk = NULL;
}
