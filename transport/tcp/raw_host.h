/* A host for tests that says exactly what it is told, byte for byte, right or wrong.  All functions are for fibers. */
#ifndef TRANSPORT_TCP_RAW_HOST_H
#define TRANSPORT_TCP_RAW_HOST_H

#include "nvme/nvme.h"
#include "runtime/runtime.h"

struct raw_host {
	struct stream *stream;
	struct fiber_cond cond;
	uint8_t *rx;
	size_t rx_len, rx_size;
	int end; /* 1: the target has shut its side; -errno: broken */
	bool writable;
	bool hdgst, ddgst;
	bool flow_control; /* set before Connect: the host goes by SQHD */
	uint8_t hpda;
};

fiber_fn void raw_open(struct raw_host *host, const struct stream_addr *addr);
void raw_close(struct raw_host *host, bool abort);
/* All of it, or false when the stream is broken. */
fiber_fn bool raw_send(struct raw_host *host, const void *buf, size_t len);
/* The next PDU whole, with digests and padding, at host->rx; NULL: the stream has ended.  raw_next() takes it away. */
fiber_fn const struct nvme_tcp_hdr *raw_recv(struct raw_host *host);
void raw_next(struct raw_host *host);
/* Waits for the end of the stream; asserts that nothing more comes. */
fiber_fn void raw_expect_end(struct raw_host *host);
/* A C2HTermReq with this FES and FEI, that repeats these bytes, and then the end. */
fiber_fn void raw_expect_term(struct raw_host *host, uint16_t fes, uint32_t fei, const void *bad, size_t bad_len);

/* ICReq and its answer. */
fiber_fn void raw_ic(struct raw_host *host, uint8_t dgst, uint8_t hpda);
/* A good Connect and its answer; returns the status. */
fiber_fn uint16_t raw_connect(struct raw_host *host, uint16_t qid, uint16_t queue_size);
/* raw_open, raw_ic, raw_connect */
fiber_fn void raw_up(struct raw_host *host, const struct stream_addr *addr, uint8_t dgst, uint16_t queue_size);

/* Builds PDUs in buf, with digests as negotiated; give the length.  data_len 0: none. */
size_t raw_make_capsule(const struct raw_host *host, void *buf, const union nvme_cmd *cmd, const void *data, uint32_t data_len);
size_t raw_make_h2c(const struct raw_host *host, void *buf, uint16_t cccid, uint16_t ttag, uint32_t datao, const void *data,
		    uint32_t datal, bool last);

union nvme_cmd raw_rw(uint8_t opcode, uint16_t cid, uint32_t block, uint32_t nr_blocks, bool in_capsule);
fiber_fn bool raw_send_cmd(struct raw_host *host, const union nvme_cmd *cmd, const void *data, uint32_t data_len);
/* Expects a CapsuleResp for cid; returns its status. */
fiber_fn uint16_t raw_expect_resp(struct raw_host *host, uint16_t cid);
/* Expects an R2T for cid and a length; gives its TTAG. */
fiber_fn uint16_t raw_expect_r2t(struct raw_host *host, uint16_t cid, uint32_t len);
/* Expects C2HData for the whole of it, checks digests; copies the data; says whether SUCCESS stood in it. */
fiber_fn bool raw_expect_data(struct raw_host *host, uint16_t cid, void *buf, uint32_t len);

#endif
