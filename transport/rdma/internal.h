/* What the files of transport/rdma share.  All of it belongs to the connection's poll group thread unless it says otherwise. */
#ifndef TRANSPORT_RDMA_INTERNAL_H
#define TRANSPORT_RDMA_INTERNAL_H

#include <stdatomic.h>

#include "nvme/nvme.h"
#include "nvmf/transport.h"
#include "runtime/rnic.h"
#include "runtime/runtime.h"
#include "transport/rdma/rdma.h"

struct rdma_conn;
struct rdma_group;
struct rdma_port;

#define RDMA_MAX_DESCRIPTORS 16u /* keyed ones of a command, in a list: MSDBD */
#define RDMA_MAX_DEPTH	     4096u /* of a queue; what max_queue_depth may be */
#define RDMA_CHAIN_MAX	     32u /* pieces of work posted at once for a request */
#define RDMA_SQ_EXTRA	     32u /* send queue entries beyond two for each command */
#define RDMA_CQ_ROOM	     4096u /* for queue pairs, in a port's first completion queue */
#define RDMA_FIRST_RECVS     1u /* of a connection without a shared receive queue, until it has said who it is */
/* Of a group's connections that have not sent Connect: when there are more the oldest go, and twice as many are never let in. */
#define RDMA_MAX_HANDSHAKING 1024u
#define RDMA_MAX_STRANGE_CQES 65536u /* completions that they have room for */
#define RDMA_DRAIN_US	     (2 * 1000 * 1000ull) /* for what is posted to come back, before the queue pair is taken away */
#define RDMA_LINGER_US	     (1500 * 1000ull)	  /* for queued responses to go out before a graceful end */
#define RDMA_TICK_US	     (1000 * 1000ull)
#define RDMA_STALL_TICKS     30u /* without the end of a chain while some are posted */
#define RDMA_SHORT_TICKS     5u	 /* the same when the pool is short; a chain may move a mebibyte */

/* --- sgl.c: where a command's data is ---------------------------------------------------------------------------------- */

struct rdma_descriptor {
	uint64_t addr;
	uint32_t len;
	uint32_t key;
};

struct rdma_sgl {
	uint32_t len; /* of all */
	uint32_t offset; /* into the capsule's data, when in_capsule */
	uint32_t invalidate_key;
	uint8_t nr;
	bool in_capsule, invalidate;
	struct rdma_descriptor descriptors[RDMA_MAX_DESCRIPTORS];
};

/**
 * sgl_parse - what a command's SGL says
 * @capsule:     the data that came with the command; read for a list of descriptors
 * @capsule_len: bytes that really came
 *
 * Return: an NVMe status; descriptors are bounded, and none of them wraps around.
 */
uint16_t rdma_sgl_parse(const union nvme_cmd *cmd, const void *capsule, uint32_t capsule_len, struct rdma_sgl *ret_sgl);

/* How far a transfer has been turned into work: a place in the descriptors and one in the local pieces. */
struct rdma_cursor {
	uint32_t left; /* bytes still to be posted */
	uint32_t descriptor_offset, iov_offset;
	uint8_t descriptor, iov;
};

/* Turns the next bytes into one piece of work with at most max_sge local places; fills addr, key, sge. */
void rdma_sgl_next_work(const struct rdma_sgl *sgl, const struct iovec *iov, struct rdma_cursor *cursor, uint32_t max_sge,
		   uint32_t max_bytes, uint32_t lkey, struct rnic_send *send);

/* --- cm.c: connection requests --------------------------------------------------------------------------------------------- */

struct rdma_request {
	uint16_t qid;
	uint16_t cntlid;  /* of an I/O queue; 0: not said */
	uint32_t depth;	  /* commands at a time: HSQSIZE + 1 */
	uint32_t hrqsize; /* responses that the host has room for */
	uint8_t reads;	  /* RDMA READs we may have outstanding */
	uint8_t peer_reads;
};

/* What is wrong with a request, as the specification numbers it; NVME_RDMA_CM_OK: nothing. */
enum nvme_rdma_cm_status rdma_cm_check_request(const struct rnic_params *params, const struct nvmf_transport_opts *opts,
					  struct rdma_request *ret_request);
void rdma_cm_reject(struct rnic_conn *conn, enum nvme_rdma_cm_status status);

/* --- listener.c -------------------------------------------------------------------------------------------------------------- */

/* Owner: the app thread; freed when it is closed and its last connection is gone. */
struct rdma_listener {
	struct rnic_listener *rnic_listener;
	struct nvmf_target *target;
	atomic_uint refs; /* any thread */
};

void rdma_listener_put(struct rdma_listener *listener);
fiber_fn int rdma_listener_listen(const struct nvmf_listen_opts *opts, struct nvmf_target *target, void **ret_listener);
fiber_fn void rdma_listener_stop(void *listener);

/* --- slot.c: where capsules are received --------------------------------------------------------------------------------------- */

struct rdma_slots;

/* A capsule's place: posted, or held by the request whose data lies in it. */
struct rdma_slot {
	struct rnic_recv recv;
	struct rnic_sge sge[2];
	struct rdma_slots *slots;
	union nvme_cmd *cmd;
	uint8_t *data;
	struct fifo_link link; /* conn->capsule_wait, or port->spares */
	uint32_t len;	       /* of the capsule that waits */
};

/* Slots of a port's shared receive queue, or of one connection. */
struct rdma_slots {
	struct rdma_port *port;
	struct rdma_conn *conn; /* NULL: shared */
	bool spare;		/* no receives: capsules move here */
	bool first;		/* for Connect alone */
	struct rdma_slots *next; /* a connection gets more when it has said who it is */
	uint32_t nr, data_size;
	uint8_t *memory;
	struct rnic_mr *mr;
	struct rdma_slot slot[];
};

#define RDMA_SLOTS_SHARE 2u /* of the memory that is left, this part at most goes to shared receives */

/* What rdma_slots_create() allocates. */
uint64_t rdma_slots_bytes(uint32_t nr, uint32_t data_size);
int rdma_check_memory(const struct nvmf_transport_opts *opts, uint64_t left_bytes, char *ret_why, size_t size);

#define RDMA_SLOT_ALIGN 4096u /* of the data, and of the commands in front */

int rdma_slots_create(struct rdma_port *port, struct rdma_conn *conn, uint32_t nr, uint32_t data_size, struct rdma_slots **ret_slots);
void rdma_slots_free(struct rdma_slots *slots); /* nothing of it is posted any more; the next ones too */
int rdma_slots_post(struct rdma_slots *slots);
/* The capsule has been dealt with: posts it again. */
void rdma_slot_release(struct rdma_slot *slot);
/*
 * A capsule of @len bytes is to stay a while: in its slot, or where few shared receives are left in a spare place, and its slot is
 * posted again.  NULL: there is none, and the slot is posted again all the same.
 */
struct rdma_slot *rdma_slot_keep(struct rdma_slot *slot, uint32_t len);

/* --- sink.c: on iWARP, where a connection's RDMA READs go ------------------------------------------------------------------------ */

#define RDMA_SINK_SIZE	     (128u * 1024)
#define RDMA_SINK_FIRST_SIZE 2048u /* for Connect, and of admin queues */

/* A ring: reads complete in the order in which they were posted. */
struct rdma_sink {
	uint8_t *memory;
	struct rnic_mr *mr;
	uint32_t size, head; /* head: where the next read goes */
	uint32_t used;	     /* behind head, by reads on their way */
};

/* There is one of that size at least; if there was one, nothing is on its way to it.  0 or -errno. */
int rdma_sink_open(struct rdma_sink *sink, struct rnic_device *device, uint32_t size);
void rdma_sink_close(struct rdma_sink *sink); /* no queue pair reaches it any more */
/* The next place that is free, in one piece; of length 0: none is. */
struct iovec rdma_sink_place(const struct rdma_sink *sink);
void rdma_sink_take(struct rdma_sink *sink, uint32_t len);
void rdma_sink_give_back(struct rdma_sink *sink, uint32_t len);

/* --- port.c: a device in a poll group ---------------------------------------------------------------------------------------- */

/* Counters as nvmf_get_stats tells them. */
struct rdma_stats {
	uint64_t polls, idle_polls, completions;
	uint64_t requests, request_latency_ticks;
	uint64_t pending_free_request, pending_rdma_read, pending_rdma_write, pending_rdma_send;
	uint64_t total_send_wrs, send_doorbell_updates, total_recv_wrs, recv_doorbell_updates;
};

static inline void count(uint64_t *counter, uint64_t n)
{
	*counter += n;
}

#define RDMA_QP_BUCKETS 256u

/* Made for the group's first connection on the device; goes with the group, or when the device is taken away, then with its last connection. */
struct rdma_port {
	struct list link;
	struct rdma_group *group;
	struct rnic_device *device;
	const struct rnic_info *info;
	struct rnic_watch *watch;
	struct list cqs; /* one, as long as it is large enough */
	unsigned nr_cqs, most_cqs;
	bool cqs_are_fixed; /* the device cannot enlarge them */
	struct rnic_srq *srq; /* NULL: receives belong to connections */
	struct rdma_slots *srq_slots;
	uint32_t nr_shared_recvs;
	uint32_t max_depth; /* of a queue that the device can serve */
	uint32_t nr_recvs_posted; /* of the shared ones */
	struct fifo spares;	  /* free ones of spare_slots */
	struct rdma_slots *spare_slots;
	uint32_t nr_spares;
	uint32_t pool_lkey;
	unsigned nr_conns;
	bool broken; /* one of its queues is in error: it is none of the group's any more, and goes with its last connection */
	struct list conns_by_qp[RDMA_QP_BUCKETS];
	struct rdma_stats stats;
};

/* What a queue pair has for a queue of so many commands.  No receives: they are shared. */
uint32_t rdma_port_max_send(const struct rdma_port *port, uint32_t depth);
uint32_t rdma_port_max_recv(const struct rdma_port *port, uint32_t depth);
/* 0 or -errno; counts as a use until rdma_port_put(). */
int rdma_port_get(struct rdma_group *group, struct rnic_device *device, const struct nvmf_transport_opts *opts,
	     struct rdma_port **ret_port);
void rdma_port_put(struct rdma_port *port);
void rdma_port_free(struct rdma_port *port);
void rdma_port_completed(struct rdma_port *port, const struct rnic_wc *wc);
int rdma_device_stats(void *tgroup, unsigned idx, struct nvmf_device_stats *ret_stats);

/* --- cq.c: where completions go ---------------------------------------------------------------------------------------------- */

struct rdma_cq {
	struct list link;
	struct rdma_port *port;
	struct rnic_cq *rnic;
	uint32_t size;
	uint32_t room; /* completions that no queue pair and no shared receive has a claim to */
	unsigned nr_claims;
};

/* The most entries that one may have. */
uint32_t rdma_cq_largest(const struct rdma_port *port);
/* One more, with room for @nr completions.  -ENOSPC: the device has none so large. */
int rdma_cq_open(struct rdma_port *port, uint32_t nr);
void rdma_cq_close(struct rdma_cq *cq);
/* Room for a queue pair's @nr completions, in a queue that is there, or enlarged, or opened for it. */
int rdma_cq_claim(struct rdma_port *port, uint32_t nr, struct rdma_cq **ret_cq);
/* The queue pair is gone.  The queue may go too. */
void rdma_cq_unclaim(struct rdma_cq *cq, uint32_t nr);
/* All that is in it now. */
void rdma_cq_poll_dry(struct rdma_cq *cq);

/* One for each poll group. */
struct rdma_group {
	struct nvmf_group *group;
	bool destroyed; /* goes with its last connection */
	struct list conns, ports;
	struct timer tick_timer; /* while there are connections */
	struct list handshaking; /* oldest first */
	unsigned nr_handshaking;
	/* Of those that never were LIVE, until they are freed. */
	unsigned nr_strange;
	uint32_t strange_cqes;
	uint64_t notices_since_us;
	unsigned nr_notices;
};

int rdma_group_create(struct nvmf_group *group, void **ret_tgroup);
void rdma_group_destroy(struct nvmf_group *group, void *tgroup);
void rdma_group_free_if_over(struct rdma_group *group);

/* --- req.c ---------------------------------------------------------------------------------------------------------------------- */

/*
 * A command on its way through the transport.
 *
 *   FREE -> NVMF                    nvmf_req_begin()
 *   NVMF -> READ_WAIT -> READING -> NVMF        the host's data is fetched, in as many portions as credits and room ask for
 *   NVMF -> SEND_WAIT -> SENDING -> FREE        data, in portions too, and the response behind it in one chain
 *   READING -> READ_WAIT, SENDING -> SEND_WAIT  another portion
 *   READ_WAIT, SEND_WAIT -> FREE    the connection ends
 *   READING, SENDING -> FREE        the same, once the device has let go of the memory
 *   NVMF -> FREE                    the same, when nvmf completes it
 */
enum rdma_req_state { REQ_FREE, REQ_NVMF, REQ_READ_WAIT, REQ_READING, REQ_SEND_WAIT, REQ_SENDING };

struct rdma_req {
	struct nvmf_req nreq;
	struct rdma_conn *conn;
	struct fifo_link link; /* conn->free, read_wait or send_wait */
	enum rdma_req_state state;
	uint16_t idx;	       /* of its response in conn->cqes */
	uint16_t sgl_status;
	uint16_t nr_posted; /* pieces of work whose end the next completion tells */
	bool response_posted;
	struct rdma_slot *slot; /* in which its data lies; else NULL */
	uint32_t capsule_len;
	struct rdma_cursor cursor;
	/* On iWARP: the portion that is on its way to the sink, and what has been copied from there before. */
	uint32_t sink_at, sink_len, copied_offset;
	uint8_t copied_iov;
	struct rdma_sgl sgl;
};

void rdma_req_init(struct rdma_req *req, struct rdma_conn *conn, uint16_t idx);
int rdma_req_grow(struct rdma_conn *conn, uint32_t nr);
/* A capsule has come.  The slot is the request's from now on, or posted again. */
void rdma_req_capsule(struct rdma_conn *conn, struct rdma_slot *slot, uint32_t len);
void rdma_req_work_done(struct rdma_req *req, uint8_t status);
/* Posts what waits, as far as there is room. */
void rdma_req_pump(struct rdma_conn *conn);
/* Releases what waits; with @force also what is posted, which no device touches any more. */
void rdma_req_release_held(struct rdma_conn *conn, bool force);
uint16_t rdma_req_parse_sgl(struct nvmf_req *nreq);
void rdma_req_receive_data(struct nvmf_req *nreq);
void rdma_req_complete(struct nvmf_req *nreq);

/* --- conn.c --------------------------------------------------------------------------------------------------------------------- */

enum rdma_conn_state { CONN_ACCEPTING, CONN_WAIT_CONNECT, CONN_LIVE, CONN_CLOSING, CONN_GONE };

#define WORK_CLOSE   0x1u
#define WORK_DRAIN   0x2u
#define WORK_ADVANCE 0x4u

struct rdma_conn {
	struct nvmf_qpair qpair;
	struct rdma_group *group;
	struct rdma_port *port;
	struct rdma_listener *listener; /* a reference */
	struct rnic_conn *rnic;
	enum rdma_conn_state state;
	bool draining, nvmf_gone, qp_gone, recvs_drained, drain_over, handshaking;
	bool strange; /* has not been LIVE */
	struct list handshake_link; /* while handshaking */
	struct list group_link, qp_link; /* qp_link: as long as it has its queue pair */
	struct timer timer; /* of an end */
	struct task work;
	unsigned work_flags;
	bool work_queued;

	uint32_t qp_num;
	uint16_t qid_asked; /* in the connection request */
	uint32_t depth;	    /* commands, as the connection request had it */
	uint32_t max_send, sq_free;
	uint32_t responses_free; /* receives of the host's that no response is on its way to: HRQSIZE at first */
	uint16_t sqhd; /* of the response posted last */
	uint32_t max_recv;
	struct rdma_cq *cq;
	uint32_t cq_claim;
	unsigned max_reads, reads_free;
	struct rdma_slots *slots; /* without a shared receive queue */
	struct rdma_sink sink;	  /* on iWARP, from the first read on */
	uint32_t nr_recvs_posted;

	struct fifo free, read_wait, send_wait;
	struct fifo capsule_wait; /* slots whose capsule waits for a request */
	uint32_t nr_unanswered;	  /* capsules received and not answered: at most what the host's queue holds */
	unsigned nr_busy; /* requests with work posted */
	/* The group's tick: chains that have ended, and since how many ticks none has though some are posted. */
	uint32_t nr_chains_done, seen_chains_done;
	uint8_t ticks_stalled;
	struct nvme_cqe *cqes; /* one a request, registered; one alone until Connect */
	struct rnic_mr *cqes_mr;
	/*
	 * From Connect on; indices 1 and up.  Twice what the queue holds: the host may send the next command when it has the answer,
	 * before we hear that it has.
	 */
	struct rdma_req *reqs;
	uint32_t nr_reqs;
	struct rdma_req first_req;
};

static inline struct rdma_conn *conn_of(struct nvmf_qpair *qpair)
{
	return container_of(qpair, struct rdma_conn, qpair);
}

static inline bool conn_receives(const struct rdma_conn *conn)
{
	return conn->state < CONN_CLOSING && !conn->draining;
}

/* On the group's thread; takes the connection and the caller's reference to the listener. */
void rdma_conn_start(struct rdma_group *group, struct rdma_listener *listener, struct rnic_conn *rnic,
		const struct rdma_request *request);
void rdma_conn_work_later(struct rdma_conn *conn, unsigned flags);
void rdma_conn_established(struct rdma_conn *conn);
int rdma_conn_connected(struct rdma_conn *conn);
/* The queue pair is no good any more, or the peer has broken the protocol; the end comes later in this turn. */
void rdma_conn_fail(struct rdma_conn *conn, const char *why);
/* Each second: ends it when it holds buffers and its peer takes nothing, or gives nothing. */
void rdma_conn_check_stall(struct rdma_conn *conn);
void rdma_conn_close(struct nvmf_qpair *qpair, bool graceful);
void rdma_conn_local_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr);
void rdma_conn_peer_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr);

#endif
