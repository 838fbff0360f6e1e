/* What the files of transport/tcp share.  All of it belongs to the connection's poll group thread unless it says otherwise. */
#ifndef TRANSPORT_TCP_INTERNAL_H
#define TRANSPORT_TCP_INTERNAL_H

#include <stdatomic.h>

#include "nvme/nvme.h"
#include "nvmf/transport.h"
#include "runtime/runtime.h"
#include "transport/tcp/pdu.h"
#include "transport/tcp/tcp.h"

struct tcp_conn;
struct tcp_group;

#define TCP_MAX_H2C_DATA NVMF_MAX_XFER /* MAXH2CDATA: a whole transfer in one PDU, since payload goes straight to its place */
/* Header, digest, padding to a PDO of at most 255, data digest. */
#define TCP_CAPSULE_OVERHEAD (256u + NVME_TCP_DIGEST_SIZE)

#define TCP_ICREQ_TIMEOUT_US   (5 * 1000 * 1000ull)
#define TCP_CONNECT_TIMEOUT_US (10 * 1000 * 1000ull)
/* An ICReq or Connect that has begun: from its first byte to its last. */
#define TCP_HANDSHAKE_PDU_US   (2 * 1000 * 1000ull)
#define TCP_LINGER_US	       (1500 * 1000ull)
/* A peer that owes us bytes, or does not take ours, is given up after this many group ticks. */
#define TCP_TICK_US	 (1000 * 1000ull)
#define TCP_STALL_TICKS	 30u
/* One that stands in the middle of a PDU: room for TCP's retransmissions, 0.2 to 6.4 s after a loss. */
#define TCP_PDU_TICKS	 10u
/* The same while requests, anybody's, wait for the pool's large buffers. */
#define TCP_SHORT_TICKS	 2u
/* Connections of one group that have not said who they are yet; one more drops the oldest. */
#define TCP_MAX_HANDSHAKING 1024u

/* A connection's commands with more data than this between them wait their turn, so that a host that asks for much and takes
 * little does not hold the whole buffer pool. */
#define TCP_INFLIGHT_MAX_BYTES (16u * 1024 * 1024)
#define TCP_INFLIGHT_MIN_BYTES (2u * NVMF_MAX_XFER)

#define TCP_RX_BUDGET_BYTES (128u * 1024) /* one connection, one turn */
#define TCP_RX_BUDGET_CALLS 16u
#define TCP_RX_BEGIN_BYTES (512u * 1024) /* of reads that one connection begins in one turn, when they are large */
#define TCP_RX_LARGE_READ_BYTES (32u * 1024)
#define TCP_TX_MAX_IOV	    512u
#define TCP_TX_BUDGET_BYTES (1024u * 1024)

/* --- chunk.c: memory that a group's connections receive into ------------------------------------------------------- */

/*
 * Received bytes of one or more connections; the data of in-capsule writes is used in place, so the chunk lives until the
 * last request that points into it is released.
 */
struct tcp_chunk {
	struct fifo_link link; /* on the group's unused ones */
	struct tcp_group *group;
	uint8_t *base;
	uint32_t fill; /* bytes that requests may still point to */
	uint32_t refs;
	bool home; /* the group's own: nothing may stay in it past a turn */
};

int chunk_group_init(struct tcp_group *group);
void chunk_group_fini(struct tcp_group *group);
/* A chunk with at least min_room bytes behind fill; never NULL.  Held until chunk_put(). */
struct tcp_chunk *chunk_get(struct tcp_group *group, uint32_t min_room);
void chunk_put(struct tcp_chunk *chunk);

static inline void chunk_hold(struct tcp_chunk *chunk)
{
	chunk->refs++;
}

/* --- group and listener -------------------------------------------------------------------------------------------- */

#define TCP_MAX_CHUNKS 64u

/* One for each poll group.  Owner: the group's thread. */
struct tcp_group {
	struct nvmf_group *group;
	bool destroyed; /* goes with its last connection */
	struct list conns;
	struct list handshaking; /* oldest first */
	unsigned nr_handshaking;
	struct timer tick_timer;
	uint32_t tick;
	uint32_t inflight_max_bytes; /* of one connection */
	uint64_t notices_since_us;
	unsigned nr_notices;
	/* chunk.c */
	struct tcp_chunk *chunk; /* the one being filled */
	struct tcp_chunk home;
	struct tcp_chunk chunks[TCP_MAX_CHUNKS];
	struct fifo unused_chunks;
	unsigned max_chunks;
	/* send.c: used only while a connection's gather list is built and sent */
	struct iovec iov[TCP_TX_MAX_IOV];
	uint8_t small[16 * 1024];
};

/* Owner: the app thread; freed when it is closed and its last connection is gone. */
struct tcp_listener {
	struct stream_listener *stream_listener;
	struct nvmf_target *target;
	atomic_uint refs; /* any thread */
};

void listener_put(struct tcp_listener *listener);
fiber_fn int listener_listen(const struct nvmf_listen_opts *opts, struct nvmf_target *target, void **ret_listener);
fiber_fn void listener_stop(void *listener);

int group_create(struct nvmf_group *group, void **ret_tgroup);
void group_destroy(struct nvmf_group *group, void *tgroup);
void group_free_if_over(struct tcp_group *group);

/* --- req.c ---------------------------------------------------------------------------------------------------------- */

/*
 * A command on its way through the transport.
 *
 *   FREE -> DEFERRED -> NVMF      begins when the connection's bytes in flight allow
 *   FREE -> NVMF                  nvmf_req_begin()
 *   NVMF -> R2T_QUEUED -> R2T_SENT -> NVMF     the host's data is fetched
 *   NVMF -> SENDING -> FREE       response, with data before it, until the last byte is out
 *   any  -> FREE                  the connection ends; from NVMF only when nvmf completes it
 */
enum tcp_req_state {
	REQ_FREE,
	REQ_DEFERRED,
	REQ_NVMF,
	REQ_R2T_QUEUED, /* its R2T stands in conn->out */
	REQ_R2T_SENT,	/* only now does its TTAG mean anything */
	REQ_SENDING,	/* stands in conn->out */
};

#define REQ_HEAD_MAX 128u /* PDO of C2HData under the largest HPDA */
#define REQ_TAIL_MAX 32u  /* data digest, CapsuleResp, its digest */

struct tcp_req {
	struct nvmf_req nreq;
	struct tcp_conn *conn;
	struct fifo_link link; /* conn->free, conn->deferred or conn->out */
	enum tcp_req_state state;
	uint16_t ttag;
	uint16_t early_status; /* NVMe status found while receiving the capsule, told by parse_sgl */
	/* in-capsule data, where it lies */
	uint8_t *capsule_data;
	uint32_t capsule_len;
	struct tcp_chunk *chunk; /* held when the data is used in place */
	void *copy;		 /* else memory of its own */
	/* data by R2T */
	uint32_t rx_next; /* bytes received and accepted */
	uint32_t rx_tick; /* group tick of the last progress */
	bool rx_bad_digest;
	uint32_t charge_bytes;
	/* what is to be sent: head, data_len bytes of nreq.iov, tail */
	uint8_t head_len, tail_len;
	uint32_t data_len;
	uint8_t head[REQ_HEAD_MAX] __attribute__((aligned(8)));
	uint8_t tail[REQ_TAIL_MAX];
};

void req_init(struct tcp_req *req, struct tcp_conn *conn, uint16_t ttag);
void req_set_state(struct tcp_req *req, enum tcp_req_state state);
struct tcp_req *req_take(struct tcp_conn *conn); /* NULL: the host sends more than its queue holds */
struct tcp_req *req_by_ttag(struct tcp_conn *conn, uint16_t ttag); /* NULL unless an R2T with that tag has been sent */
/* Begins it, or defers it until the connection has fewer bytes in flight. */
void req_start(struct tcp_req *req);
void req_start_deferred(struct tcp_conn *conn);
/* Back to nvmf and then to the free ones; REQ_DEFERRED ones were never nvmf's. */
void req_release(struct tcp_req *req);
/* Every request that the transport holds, but for @except (may be NULL), is released; conn->out is emptied. */
void req_release_held(struct tcp_conn *conn, struct tcp_req *except);
int req_grow(struct tcp_conn *conn, uint32_t nr); /* room for nr in all; 0 or -ENOMEM */
uint16_t req_parse_sgl(struct nvmf_req *nreq);
void req_receive_data(struct nvmf_req *nreq);
bool req_abort_deferred(struct nvmf_qpair *qpair, uint16_t cid);
void req_complete(struct nvmf_req *nreq);

/* --- conn.c --------------------------------------------------------------------------------------------------------- */

enum tcp_conn_state { CONN_WAIT_ICREQ, CONN_WAIT_CONNECT, CONN_LIVE, CONN_CLOSING, CONN_GONE };

#define WORK_FLUSH    0x1u
#define WORK_DEFERRED 0x2u
#define WORK_CLOSE    0x4u /* nvmf wants it closed at once */
#define WORK_DRAIN    0x8u /* nvmf wants it closed when all is sent */
#define WORK_FREE     0x10u

/* Owner: the group's thread. */
struct tcp_conn {
	struct nvmf_qpair qpair;
	struct tcp_group *group;
	struct tcp_listener *listener; /* a reference */
	struct stream *stream;	       /* NULL: closed */
	enum tcp_conn_state state;
	bool draining; /* nothing more is received; closes when all is sent */
	bool nvmf_gone;
	struct list group_link, handshake_link;
	struct timer timer; /* handshake deadline; later the end of lingering */
	uint64_t handshake_end_us; /* when the ICReq, or the Connect, must have come */
	bool handshake_pdu;	   /* it has begun, and the timer is set for its end */
	struct task work;
	unsigned work_flags;
	bool work_queued;

	struct pdu_limits limits;
	uint8_t hpda;

	/* receiving: either the beginning of a PDU is in partial, or data of rx_req is coming, or neither */
	uint8_t *partial;
	uint32_t partial_len, partial_size;
	uint32_t rx_read_bytes;	 /* of the last command, when it reads */
	uint32_t rx_begun_bytes; /* of the reads begun in this turn */
	struct tcp_req *rx_req; /* whose H2CData is being received */
	uint32_t rx_left;	/* bytes of its data still to come */
	uint32_t rx_pdu_len;	/* of this PDU's data, in all */
	uint8_t rx_ddgst_len;	/* bytes of the digest behind it already here */
	uint8_t rx_ddgst[NVME_TCP_DIGEST_SIZE];
	unsigned nr_r2t; /* requests in REQ_R2T_SENT or _QUEUED: H2CData is to be expected */

	/* sending: first what is left of a PDU begun, then ctl, then out */
	struct fifo out;
	uint32_t out_sent; /* bytes of the first of out that are gone */
	/* ICResp, C2HTermReq, or one behind the other */
	uint8_t ctl[sizeof(struct nvme_tcp_ic_resp) + PDU_TERM_REQ_MAX] __attribute__((aligned(8)));
	uint16_t ctl_len, ctl_sent;
	bool send_blocked;	   /* waits for STREAM_WRITABLE */
	bool write_shut;

	/* group ticks without progress while the peer owes some */
	uint64_t nr_rx_bytes, nr_tx_bytes, seen_rx_bytes, seen_tx_bytes;
	uint8_t rx_stalled, tx_stalled;

	struct fifo free, deferred;
	uint32_t inflight_bytes;
	struct tcp_req *reqs; /* from Connect on; TTAG 1 and up */
	uint32_t nr_reqs;
	struct tcp_req first_req; /* TTAG 0: all there is before Connect */
};

static inline struct tcp_conn *conn_of(struct nvmf_qpair *qpair)
{
	return container_of(qpair, struct tcp_conn, qpair);
}

static inline bool conn_receives(const struct tcp_conn *conn)
{
	return conn->state < CONN_CLOSING && !conn->draining;
}

/* On the group's thread; takes the stream and the caller's reference to the listener. */
void conn_start(struct tcp_group *group, struct tcp_listener *listener, struct stream *stream);
/* Does the work of @flags later in this turn. */
void conn_work_later(struct tcp_conn *conn, unsigned flags);
/* Before LIVE: bytes have come in. */
void conn_handshake_heard(struct tcp_conn *conn);
/* The ICReq is in and good. */
void conn_established(struct tcp_conn *conn, const struct nvme_tcp_ic_req *req);
/* Connect has succeeded.  0, or -ENOMEM: the connection is on its way out. */
int conn_connected(struct tcp_conn *conn);
/* The peer has broken the protocol: C2HTermReq, then the end. */
void conn_fatal(struct tcp_conn *conn, const struct pdu_error *error, const void *bad, size_t bad_len);
/* The peer is gone, or is to be: no more bytes either way. */
void conn_drop(struct tcp_conn *conn, const char *why);
/* The same where the host did not ask for it: told in the log, a few times in ten seconds, since an operator who sees a connection reset
 * will look for why. */
void conn_give_up(struct tcp_conn *conn, const char *why);
void conn_broken(struct tcp_conn *conn, int err); /* -errno of the stream */
/* All that was to be sent before the end is out. */
void conn_sent_all(struct tcp_conn *conn);
void conn_check_stall(struct tcp_conn *conn);
void conn_close(struct nvmf_qpair *qpair, bool graceful);
void conn_local_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr);
void conn_peer_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr);

/* --- recv.c, send.c -------------------------------------------------------------------------------------------------- */

/* Takes what the socket has, within this turn's budget. */
void recv_turn(struct tcp_conn *conn);
/* Reads and forgets, until the peer's end comes.  False: the stream is over. */
bool recv_discard(struct tcp_conn *conn);

/* Sends what is ready, in one call. */
void send_flush(struct tcp_conn *conn);
void send_queue(struct tcp_req *req);
static inline bool send_idle(const struct tcp_conn *conn)
{
	return fifo_empty(&conn->out) && conn->ctl_sent == conn->ctl_len;
}

/* --- sgl.c ------------------------------------------------------------------------------------------------------------ */

/* Entries of @iov that hold len bytes from offset; gives their number.  @ret_iov has room for iovcnt. */
unsigned iov_slice(const struct iovec *iov, unsigned iovcnt, uint32_t offset, uint32_t len, struct iovec *ret_iov);
/* Where a command's data is, as its SGL says; 0 or an NVMe status. */
uint16_t sgl_parse(const struct nvme_sgl *sgl, bool from_host, uint32_t capsule_len, bool *ret_in_capsule,
		   uint32_t *ret_offset, uint32_t *ret_len);

#endif
