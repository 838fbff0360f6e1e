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

/*
 * What a kind of queue does for qpair.c.  All of it on the queue's thread.
 */
struct qpair_ops {
	/* Sends what waits in ready, as far as there are identifiers and room.  Not called on a FAILED queue. */
	void (*flush)(struct nvme_qpair *qpair);
	/* Takes what has come; true when there was something.  A queue that is ENDING is polled too. */
	bool (*poll)(struct nvme_qpair *qpair);
	/* The queue is FAILED from now on: its connection goes, and no memory of a request is touched any more. */
	void (*close)(struct nvme_qpair *qpair);
	/*
	 * The rest may be NULL.  fail: the queue is given up, for the reason in error: the kind calls qpair_end(), now or when
	 * the peer can no longer touch memory; until then the queue is ENDING.  tick: every QPAIR_TICK_US while LIVE.
	 * disconnect: in good order, before the end.
	 */
	void (*fail)(struct nvme_qpair *qpair);
	void (*tick)(struct nvme_qpair *qpair);
	fiber_fn void (*disconnect)(struct nvme_qpair *qpair);
	/* Frees what is the kind's; qpair_release() and the struct's own memory are left to it too. */
	void (*free)(struct nvme_qpair *qpair);
};

/* What all queues have; a kind embeds it at the head of its own struct.  Owner: the thread that connected it. */
struct nvme_qpair {
	const struct qpair_ops *ops;
	struct nvme_ctrlr *ctrlr;
	struct thread *thread;
	uint16_t qid;
	enum qpair_state state;
	uint32_t depth;
	struct slot *slots;
	uint16_t *free_slots;
	uint32_t nr_free;
	uint32_t nr_outstanding; /* submitted and not done */
	struct fifo ready;       /* of nvme_request.link */
	bool flush_queued;
	struct task flush_task;
	struct timer tick_timer;
	uint32_t tick, timeout_ticks;
	struct fiber_wait *drain_wait;
	struct nvme_error error;
};

/* A queue over TCP. */
struct tcp_qpair {
	struct nvme_qpair q;
	struct stream *stream;
	bool hdgst, ddgst;
	uint8_t cpda;
	uint32_t maxh2cdata;
	uint32_t in_capsule_max; /* bytes of data that a capsule may carry */
	struct list h2c;         /* requests with an R2T to serve */
	bool shut;
	struct fiber_wait *ic_wait;
	struct nvme_tcp_ic_resp ic_resp;
	struct rx rx;
	struct tx_batch tx;
};

static inline struct tcp_qpair *tcp_of(struct nvme_qpair *qpair)
{
	return container_of(qpair, struct tcp_qpair, q);
}

/*
 * How a controller is reached: chosen by opts.trtype.  Connect, properties and the list of steps are ctrlr.c's for all
 * fabrics; a kind opens queues.
 */
struct nvme_transport {
	const char *name;
	const char *peer; /* what a person calls the other side: "target", "drive" */
	uint32_t max_xfer_bytes; /* 0: whatever the controller allows */
	/* PCIe has no Connect: these are NULL for fabrics.  open: makes ctrlr's part for the transport. */
	int (*open)(struct nvme_ctrlr *ctrlr, struct nvme_error *error);
	void (*close)(struct nvme_ctrlr *ctrlr);
	/* The steps up to and including CC.EN, with the admin queue made; afterwards the controller becomes ready. */
	fiber_fn int (*enable)(struct nvme_ctrlr *ctrlr, uint32_t admin_queue_size, struct nvme_error *error);
	fiber_fn int (*identified)(struct nvme_ctrlr *ctrlr, struct nvme_error *error); /* after Identify */
	fiber_fn void (*disable)(struct nvme_ctrlr *ctrlr);
	int (*property_get)(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t *ret_value);
	int (*property_set)(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t value);
	fiber_fn int (*qpair_create)(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
				     struct nvme_error *error);
	/* Fabrics: a live queue on which Connect may be sent, for the current thread. */
	fiber_fn int (*qpair_open)(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
				   struct nvme_error *error);
	/* After Connect and Identify: I/O queues take what the controller allows (IOCCSZ); may be NULL. */
	void (*qpair_set_limits)(struct nvme_qpair *qpair);
};

extern const struct nvme_transport nvme_transport_tcp, nvme_transport_rdma, nvme_transport_pcie;

/* Owner: the thread that connected it; what I/O queues read of it is constant from then on. */
struct nvme_ctrlr {
	const struct nvme_transport *transport;
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
	unsigned nr_keep_alives_missed;
	struct list aborts; /* of ctrlr_fail.c: not yet sent */
	unsigned nr_aborts; /* sent and not answered; at most id.acl + 1 */
	bool failed; /* opts.failed was called, or there is nobody to call any more */
	struct nvme_error error;
	uint32_t nr_told; /* atomic: messages from queues under way, and the Aborts they asked for */
	struct pcie_ctrlr *pcie; /* of pcie_ctrlr.c; NULL for fabrics */
};

/* qpair.c */
#define QPAIR_DEFAULT_TIMEOUT_US 30000000ull
/* Fills the common part of a zeroed queue, CONNECTING, with no timer armed.  0 or -ENOMEM: release it then too. */
int qpair_init(struct nvme_qpair *qpair, const struct qpair_ops *ops, struct nvme_ctrlr *ctrlr, uint16_t qid,
	       uint32_t size);
void qpair_release(struct nvme_qpair *qpair);
/* The queue is LIVE: requests' time limits begin to be watched. */
void qpair_start_ticking(struct nvme_qpair *qpair);
void qpair_flush_later(struct nvme_qpair *qpair);
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
/* Nothing of it went out: it is the first of those that wait again. */
void qpair_unstart_request(struct nvme_qpair *qpair, struct nvme_request *req);

/* ctrlr.c */
uint32_t ctrlr_cc(const struct nvme_ctrlr *ctrlr);
const char *ctrlr_name(const struct nvme_ctrlr *ctrlr); /* for messages: its address or its subsystem's NQN */

/* ctrlr_fail.c: any thread that has one of the controller's queues */
void ctrlr_queue_failed(struct nvme_qpair *qpair);
void ctrlr_abort_later(struct nvme_qpair *qpair, const struct nvme_request *req);
fiber_fn void ctrlr_wait_untold(struct nvme_ctrlr *ctrlr); /* until no message from a queue is under way */

/* tcp_tx.c */
void tcp_flush(struct tcp_qpair *qpair);
/* A last PDU that says what was wrong, and the end of the queue. */
void tcp_terminate(struct tcp_qpair *qpair, uint16_t fes, uint32_t fei, const void *hdr, uint32_t hdr_len,
		   const char *what);
void tcp_send_ic_req(struct tcp_qpair *qpair, bool hdgst, bool ddgst);

/* tcp_rx.c */
bool tcp_receive(struct tcp_qpair *qpair);
/* Throws away what comes; the end of it ends the queue. */
void tcp_discard(struct tcp_qpair *qpair);

#endif
