/*
 * A target for the initiator's tests: small, honest, and in fibers, until a script of the test takes over a
 * command or a connection and sends what it likes.  Runs on simulated streams.
 */
#ifndef NVME_FAKE_TARGET_H
#define NVME_FAKE_TARGET_H

#include "nvme/nvme.h"
#include "runtime/runtime.h"

#define FAKE_BLOCK_SIZE 512u
#define FAKE_NR_BLOCKS  8192u /* 4 MiB */
#define FAKE_NSID       1u

/* One connection.  Owner: its fiber. */
struct fake_conn {
	struct stream *stream;
	struct fiber_cond readable, writable;
	bool hdgst, ddgst, gone;
	uint16_t qid;
	uint16_t nr_commands; /* on this connection, Connect included */
};

/* Owner: the app thread.  Set what a test wants before fake_start(). */
struct fake_target {
	/* Change the answer to ICReq. */
	void (*ic_resp)(struct fake_conn *conn, struct nvme_tcp_ic_resp *resp);
	/* A command with its in-capsule data; true: the script has dealt with it. */
	fiber_fn bool (*command)(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *data, uint32_t len);
	bool mute; /* never answers ICReq */
	bool no_hdgst;
	uint32_t maxh2cdata;
	uint32_t in_capsule_bytes;
	uint16_t max_queue;
	uint8_t cpda, pdo_pad; /* pdo_pad: C2HData begins so many bytes later than it must */
	bool use_success;      /* C2HData's SUCCESS instead of a response */
	uint32_t c2h_bytes;    /* of one C2HData at most */
	uint32_t r2t_bytes;    /* of one R2T at most */
	/* what the target has seen */
	unsigned nr_keep_alives, nr_conns, nr_term_reqs;
	uint16_t term_fes;
	uint32_t term_fei;
	uint8_t *disk;
	struct nvme_connect_data connect_data;
	struct stream_listener *listener;
	uint32_t cc, csts;
};

extern struct fake_target fake;

void fake_reset(void); /* the defaults */
void fake_start(const struct stream_addr *addr);
fiber_fn void fake_stop(void); /* waits until every connection has ended */

/* False: the connection is gone. */
fiber_fn bool fake_recv(struct fake_conn *conn, void *buf, uint32_t len);
fiber_fn bool fake_send(struct fake_conn *conn, const void *buf, uint32_t len);
fiber_fn void fake_send_resp(struct fake_conn *conn, uint16_t cid, uint16_t status, uint64_t result);
/* Fills plen, flags and digests; flags are added to those. */
fiber_fn void fake_send_data(struct fake_conn *conn, uint16_t cid, uint32_t offset, const void *data,
			     uint32_t len, uint8_t flags);
fiber_fn void fake_send_r2t(struct fake_conn *conn, uint16_t cid, uint16_t ttag, uint32_t offset,
			    uint32_t len);
/* A header of 24 bytes with the right digest, whatever it says. */
fiber_fn void fake_send_header(struct fake_conn *conn, const void *hdr);
/* Takes the H2CData PDUs of one R2T; false: the connection is gone, or they were wrong. */
fiber_fn bool fake_take_h2c(struct fake_conn *conn, uint16_t cid, uint16_t ttag, uint32_t offset,
			    uint32_t len, uint8_t *out);
/* What an honest target does. */
fiber_fn void fake_serve(struct fake_conn *conn, union nvme_cmd *cmd, uint8_t *data, uint32_t len);

#endif
