/* A host for tests: streams of bytes with a fiber in front of them. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "transport/tcp/raw_host.h"

static void ready(void *arg, unsigned events)
{
	struct raw_host *host = arg;

	if (events & STREAM_WRITABLE)
		host->writable = true;
	fiber_cond_broadcast(&host->cond);
}

fiber_fn void raw_open(struct raw_host *host, const struct stream_addr *addr)
{
	memset(host, 0, sizeof(*host));
	fiber_cond_init(&host->cond);
	host->rx_size = 2u << 20;
	host->rx = malloc(host->rx_size);
	ck_assert_ptr_nonnull(host->rx);
	ck_assert_int_eq(stream_connect(addr, 5000000, &host->stream), 0);
	stream_set_ready(host->stream, ready, host);
}

void raw_close(struct raw_host *host, bool abort)
{
	stream_close(host->stream, abort);
	free(host->rx);
	memset(host, 0, sizeof(*host));
}

fiber_fn bool raw_send(struct raw_host *host, const void *buf, size_t len)
{
	while (len) {
		const struct iovec iov = { (void *)(uintptr_t)buf, len };
		ssize_t n = stream_sendv(host->stream, &iov, 1);

		if (n > 0) {
			buf = (const uint8_t *)buf + n;
			len -= n;
			continue;
		}
		if (n != -EAGAIN)
			return false;
		host->writable = false;
		stream_want_write(host->stream);
		while (!host->writable)
			fiber_cond_wait(&host->cond);
	}
	return true;
}

/* Receives until there are len bytes; false: the end came first. */
static fiber_fn bool fill(struct raw_host *host, size_t len)
{
	ck_assert_uint_le(len, host->rx_size);
	while (host->rx_len < len && !host->end) {
		ssize_t n = stream_recv(host->stream, host->rx + host->rx_len, len - host->rx_len);

		if (n > 0)
			host->rx_len += n;
		else if (n == 0)
			host->end = 1;
		else if (n != -EAGAIN)
			host->end = (int)n;
		else
			fiber_cond_wait(&host->cond);
	}
	return host->rx_len >= len;
}

fiber_fn const struct nvme_tcp_hdr *raw_recv(struct raw_host *host)
{
	const struct nvme_tcp_hdr *hdr = (const struct nvme_tcp_hdr *)host->rx;

	if (!fill(host, sizeof(*hdr)) || !fill(host, hdr->plen))
		return NULL;
	return hdr;
}

void raw_next(struct raw_host *host)
{
	const struct nvme_tcp_hdr *hdr = (const struct nvme_tcp_hdr *)host->rx;

	ck_assert_uint_eq(host->rx_len, hdr->plen);
	host->rx_len = 0;
}

fiber_fn void raw_expect_end(struct raw_host *host)
{
	ck_assert_ptr_null(raw_recv(host));
	ck_assert_uint_eq(host->rx_len, 0);
}

fiber_fn void raw_expect_term(struct raw_host *host, uint16_t fes, uint32_t fei, const void *bad, size_t bad_len)
{
	const struct nvme_tcp_term_req *term = (const void *)raw_recv(host);

	ck_assert_ptr_nonnull(term);
	ck_assert_uint_eq(term->hdr.type, NVME_TCP_C2H_TERM_REQ);
	ck_assert_uint_eq(term->fes, fes);
	ck_assert_uint_eq(nvme_tcp_term_fei(term), fei);
	ck_assert_uint_le(term->hdr.plen, 152);
	ck_assert_uint_eq(term->hdr.plen, sizeof(*term) + bad_len);
	ck_assert_int_eq(memcmp(term + 1, bad, bad_len), 0);
	raw_next(host);
	raw_expect_end(host);
}

fiber_fn void raw_ic(struct raw_host *host, uint8_t dgst, uint8_t hpda)
{
	const struct nvme_tcp_ic_req req = {
		.hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 }, .dgst = dgst, .hpda = hpda
	};
	const struct nvme_tcp_ic_resp *resp;

	ck_assert(raw_send(host, &req, sizeof(req)));
	resp = (const void *)raw_recv(host);
	ck_assert_ptr_nonnull(resp);
	ck_assert_uint_eq(resp->hdr.type, NVME_TCP_IC_RESP);
	ck_assert_uint_eq(resp->hdr.plen, 128);
	ck_assert_uint_eq(resp->pfv, 0);
	ck_assert_uint_eq(resp->cpda, 0);
	ck_assert_uint_eq(resp->dgst, dgst);
	ck_assert_uint_ge(resp->maxh2cdata, 4096);
	ck_assert_uint_eq(resp->maxh2cdata % 4, 0);
	raw_next(host);
	host->hdgst = dgst & NVME_TCP_DGST_HEADER;
	host->ddgst = dgst & NVME_TCP_DGST_DATA;
	host->hpda = hpda;
}

/* Lays header, digest, data and digest out; the lengths in the header are set here. */
static size_t make(const struct raw_host *host, void *buf, struct nvme_tcp_hdr *hdr, const void *data, uint32_t data_len)
{
	uint8_t *p = buf;
	uint32_t crc;

	hdr->flags |= host->hdgst ? NVME_TCP_FLAG_HDGST : 0;
	hdr->pdo = data_len ? hdr->hlen + (host->hdgst ? 4 : 0) : 0;
	hdr->plen = hdr->hlen + (host->hdgst ? 4 : 0) + data_len;
	if (data_len && host->ddgst) {
		hdr->flags |= NVME_TCP_FLAG_DDGST;
		hdr->plen += 4;
	}
	memcpy(p, hdr, hdr->hlen);
	p += hdr->hlen;
	if (host->hdgst) {
		crc = crc32c(hdr, hdr->hlen);
		memcpy(p, &crc, 4);
		p += 4;
	}
	if (data_len) {
		memcpy(p, data, data_len);
		p += data_len;
	}
	if (data_len && host->ddgst) {
		crc = crc32c(data, data_len);
		memcpy(p, &crc, 4);
	}
	return hdr->plen;
}

size_t raw_make_capsule(const struct raw_host *host, void *buf, const union nvme_cmd *cmd, const void *data, uint32_t data_len)
{
	struct nvme_tcp_capsule_cmd pdu = { .hdr = { .type = NVME_TCP_CAPSULE_CMD, .hlen = sizeof(pdu) }, .cmd = *cmd };

	return make(host, buf, &pdu.hdr, data, data_len);
}

size_t raw_make_h2c(const struct raw_host *host, void *buf, uint16_t cccid, uint16_t ttag, uint32_t datao, const void *data,
		    uint32_t datal, bool last)
{
	struct nvme_tcp_data pdu = { .hdr = { .type = NVME_TCP_H2C_DATA,
					      .flags = last ? NVME_TCP_FLAG_LAST : 0,
					      .hlen = sizeof(pdu) },
				     .cccid = cccid,
				     .ttag = ttag,
				     .datao = datao,
				     .datal = datal };

	return make(host, buf, &pdu.hdr, data, datal);
}

union nvme_cmd raw_rw(uint8_t opcode, uint16_t cid, uint32_t block, uint32_t nr_blocks, bool in_capsule)
{
	union nvme_cmd cmd = { .opcode = opcode, .flags = NVME_CMD_PSDT_SGL, .cid = cid, .nsid = 1 };

	cmd.rw.slba = block;
	cmd.rw.nlb = (uint16_t)(nr_blocks - 1);
	cmd.sgl.type = in_capsule ? NVME_SGL_IN_CAPSULE : NVME_SGL_TRANSPORT;
	cmd.sgl.len = nr_blocks * 512;
	return cmd;
}

fiber_fn bool raw_send_cmd(struct raw_host *host, const union nvme_cmd *cmd, const void *data, uint32_t data_len)
{
	uint8_t *buf = malloc(data_len + 256);
	size_t len = raw_make_capsule(host, buf, cmd, data, data_len);
	bool ok = raw_send(host, buf, len);

	free(buf);
	return ok;
}

fiber_fn uint16_t raw_connect(struct raw_host *host, uint16_t qid, uint16_t queue_size)
{
	union nvme_cmd cmd = { .connect = { .opcode = NVME_OPC_FABRICS,
					    .flags = NVME_CMD_PSDT_SGL,
					    .cid = 0xc0,
					    .fctype = NVME_FCTYPE_CONNECT,
					    .sgl = { .len = 1024, .type = NVME_SGL_IN_CAPSULE },
					    .qid = qid,
					    .sqsize = queue_size - 1,
					    .cattr = host->flow_control ? 0 : NVME_CONNECT_NO_SQ_FLOW_CONTROL } };
	uint8_t data[1024] = { 0 };

	ck_assert(raw_send_cmd(host, &cmd, data, sizeof(data)));
	return raw_expect_resp(host, 0xc0);
}

fiber_fn void raw_up(struct raw_host *host, const struct stream_addr *addr, uint8_t dgst, uint16_t queue_size)
{
	raw_open(host, addr);
	raw_ic(host, dgst, 0);
	ck_assert_uint_eq(raw_connect(host, 1, queue_size), NVME_SC_SUCCESS);
}

/* --- answers ---------------------------------------------------------------------------------------------------------------------- */

static fiber_fn const void *expect(struct raw_host *host, uint8_t type, uint8_t hlen)
{
	const struct nvme_tcp_hdr *hdr = raw_recv(host);
	uint32_t crc;

	ck_assert_ptr_nonnull(hdr);
	ck_assert_msg(hdr->type == type, "%s instead of %s", nvme_tcp_pdu_name(hdr->type), nvme_tcp_pdu_name(type));
	ck_assert_uint_eq(hdr->hlen, hlen);
	ck_assert_int_eq(!!(hdr->flags & NVME_TCP_FLAG_HDGST), host->hdgst);
	if (host->hdgst) {
		memcpy(&crc, (const uint8_t *)hdr + hlen, 4);
		ck_assert_uint_eq(crc, crc32c(hdr, hlen));
	}
	return hdr;
}

fiber_fn uint16_t raw_expect_resp(struct raw_host *host, uint16_t cid)
{
	const struct nvme_tcp_capsule_resp *resp = expect(host, NVME_TCP_CAPSULE_RESP, 24);
	uint16_t status = nvme_cqe_status(&resp->cqe);

	ck_assert_uint_eq(resp->hdr.plen, host->hdgst ? 28 : 24);
	ck_assert_uint_eq(resp->cqe.cid, cid);
	raw_next(host);
	return status;
}

fiber_fn uint16_t raw_expect_r2t(struct raw_host *host, uint16_t cid, uint32_t len)
{
	const struct nvme_tcp_r2t *r2t = expect(host, NVME_TCP_R2T, 24);
	uint16_t ttag = r2t->ttag;

	ck_assert_uint_eq(r2t->cccid, cid);
	ck_assert_uint_eq(r2t->r2to, 0);
	ck_assert_uint_eq(r2t->r2tl, len);
	raw_next(host);
	return ttag;
}

fiber_fn bool raw_expect_data(struct raw_host *host, uint16_t cid, void *buf, uint32_t len)
{
	const struct nvme_tcp_data *pdu = expect(host, NVME_TCP_C2H_DATA, 24);
	const uint8_t *data = (const uint8_t *)pdu + pdu->hdr.pdo;
	bool success = pdu->hdr.flags & NVME_TCP_FLAG_SUCCESS;
	uint32_t crc;

	ck_assert_uint_eq(pdu->cccid, cid);
	ck_assert_uint_eq(pdu->datao, 0);
	ck_assert_uint_eq(pdu->datal, len);
	ck_assert(pdu->hdr.flags & NVME_TCP_FLAG_LAST);
	ck_assert_uint_eq(pdu->hdr.pdo % ((host->hpda + 1u) * 4), 0);
	ck_assert_uint_ge(pdu->hdr.pdo, host->hdgst ? 28 : 24);
	ck_assert_uint_eq(pdu->hdr.plen, pdu->hdr.pdo + len + (host->ddgst ? 4 : 0));
	ck_assert_int_eq(!!(pdu->hdr.flags & NVME_TCP_FLAG_DDGST), host->ddgst);
	if (host->ddgst) {
		memcpy(&crc, data + len, 4);
		ck_assert_uint_eq(crc, crc32c(data, len));
	}
	memcpy(buf, data, len);
	raw_next(host);
	return success;
}
