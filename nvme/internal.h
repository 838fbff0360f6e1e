/* What the initiator's files share. */
#ifndef NVME_INTERNAL_H
#define NVME_INTERNAL_H

#include "nvme/initiator.h"

#define TX_IOVS         512u
#define TX_ARENA_SIZE   (48u * 1024)
#define TX_BATCH_BYTES  (1u << 20) /* by default */
#define RX_BUFFER_SIZE  (256u * 1024)
#define QPAIR_MAX_SIZE  4096u /* twelve bits of a CID; the other four count its uses */
#define QPAIR_TICK_US   250000u
#define QPAIR_ENDING_US 500000u

enum qpair_state {
	QPAIR_CONNECTING, /* ICReq is out: nothing but ICResp may come */
	QPAIR_LIVE,
	QPAIR_ENDING, /* error is set; H2CTermReq is on its way; what comes is thrown away until the target
			 closes */
	QPAIR_FAILED, /* requests complete with HOST_PATH_ERROR; the stream is closed */
};

enum rx_state {
	RX_HEADER, /* of the next PDU, with digest and padding */
	RX_DATA,   /* of a C2HData */
	RX_DDGST,
};

/*
 * What is being sent: built from waiting requests when the one before is out.  Headers and digests are in the
 * arena, one after the other, so that a batch of reads is one iovec; data is where the caller has it.  Owner:
 * the queue.
 */
struct tx_batch {
	struct iovec iov[TX_IOVS];
	struct nvme_request *owner[TX_IOVS]; /* of caller's data; NULL for the arena */
	unsigned first, count;
	bool blocked; /* the socket is full: STREAM_WRITABLE will say when not */
	uint32_t data_bytes, max_data_bytes;
	uint32_t arena_used;
	uint8_t arena[TX_ARENA_SIZE];
};

struct rx {
	enum rx_state state;
	uint8_t *buf;
	uint32_t head, tail;
	/* the C2HData under way */
	struct nvme_request *req;
	uint32_t data_left;
	uint32_t crc;
	uint8_t flags;
	uint8_t ddgst[NVME_TCP_DIGEST_SIZE];
	bool large; /* the last payload was worth reading in place */
};

struct slot {
	struct nvme_request *req; /* NULL: free */
	uint16_t generation;
};

/* One queue and its connection.  Owner: the thread that connected it. */
struct nvme_qpair {
	struct nvme_ctrlr *ctrlr;
	struct thread *thread;
	struct stream *stream;
	uint16_t qid;
	enum qpair_state state;
	uint32_t depth;
	bool hdgst, ddgst;
	uint8_t cpda;
	uint32_t maxh2cdata;
	uint32_t in_capsule_max; /* bytes of data that a capsule may carry */
	struct slot *slots;
	uint16_t *free_slots;
	uint32_t nr_free;
	uint32_t nr_outstanding; /* submitted and not done */
	struct fifo ready;       /* of nvme_request.link */
	struct list h2c;         /* requests with an R2T to serve */
	bool flush_queued, shut;
	struct task flush_task;
	struct timer tick_timer;
	uint32_t tick, timeout_ticks;
	struct fiber_wait *ic_wait;
	struct fiber_wait *drain_wait;
	struct nvme_error error;
	struct nvme_tcp_ic_resp ic_resp;
	struct rx rx;
	struct tx_batch tx;
};

/* Owner: the thread that connected it; what I/O queues read of it is constant from then on. */
struct nvme_ctrlr {
	struct thread *thread;
	struct nvme_connect_opts opts;
	struct nvme_qpair *admin;
	uint16_t cntlid;
	uint64_t cap;
	uint32_t vs;
	struct nvme_id_ctrlr id;
	unsigned nr_io_queues;
	bool queues_asked;
	struct timer keep_alive_timer;
	struct nvme_request keep_alive, aer;
	bool keep_alive_busy, aer_busy;
};

/* qpair.c */
fiber_fn int qpair_open(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
			struct nvme_error *error);
/* The connection is over: everything outstanding completes from a task. */
void qpair_fail(struct nvme_qpair *qpair, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same once what is in the batch is out and the target has closed, or has had its time. */
void qpair_end_after_send(struct nvme_qpair *qpair, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void qpair_end(struct nvme_qpair *qpair);
void qpair_request_answered(struct nvme_qpair *qpair, struct nvme_request *req, uint16_t status);
void qpair_request_sent(struct nvme_qpair *qpair,
			struct nvme_request *req); /* no data of it is being sent any more */
struct nvme_request *qpair_find(struct nvme_qpair *qpair, uint16_t cid);
bool qpair_start_request(struct nvme_qpair *qpair, struct nvme_request *req); /* false: no free identifier */

/* tcp_tx.c */
void tcp_flush(struct nvme_qpair *qpair);
/* A last PDU that says what was wrong, and the end of the queue. */
void tcp_terminate(struct nvme_qpair *qpair, uint16_t fes, uint32_t fei, const void *hdr, uint32_t hdr_len,
		   const char *what);
void tcp_send_ic_req(struct nvme_qpair *qpair, bool hdgst, bool ddgst);

/* tcp_rx.c */
bool tcp_receive(struct nvme_qpair *qpair);
/* Throws away what comes; the end of it ends the queue. */
void tcp_discard(struct nvme_qpair *qpair);

#endif
