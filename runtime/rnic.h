/*
 * RDMA as everything above reaches it: devices, registered memory, completion queues, and connections with their queue
 * pairs.  Two implementations, chosen when the process starts: librdmacm with libibverbs, or in a simulation a fabric in
 * memory (rnic_sim.h) that delays by a seed and breaks at a test's word.
 *
 * A connection is found or made on the app thread and then belongs to the thread that attaches it; completion queues and
 * shared receive queues belong to the thread that made them.  Errors are -errno.
 */
#ifndef RUNTIME_RNIC_H
#define RUNTIME_RNIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/fiber.h"
#include "runtime/stream.h"

struct rnic_device;
struct rnic_mr;
struct rnic_cq;
struct rnic_srq;
struct rnic_conn;
struct rnic_listener;

/* 0, or -ENODEV or -ENOTSUP with a sentence that names the remedy.  Thread: any. */
int rnic_available(char *ret_why, size_t size);

/* --- devices and memory ---------------------------------------------------------------------------------------------- */

/* Constant.  A device that has been taken away stays known as long as anything is left that was made on it. */
struct rnic_info {
	char name[64];
	bool windows; /* memory windows of type 2B: keys for a part of a registration, made and ended by work requests */
	bool iwarp; /* the memory that an RDMA READ fills must be writable by the peer */
	uint32_t max_wr;       /* in a queue pair, either way */
	uint32_t max_sge;      /* in a work request */
	uint32_t max_read_sge; /* in an RDMA READ */
	uint32_t max_cqe;
	uint32_t max_srq_wr; /* 0: no shared receive queues */
	uint32_t max_message_bytes;
	uint8_t max_reads;	 /* RDMA READs that a queue pair may have outstanding */
	uint8_t max_peer_reads;	 /* and serve */
};

const struct rnic_info *rnic_info(const struct rnic_device *device);
bool rnic_is_removed(const struct rnic_device *device); /* any thread */

/*
 * Tells the current thread, once, that the device has been taken away: who has queues or memory there must free them, since some
 * drivers (soft-RoCE's and soft-iWARP's among them) wait for that.  Connections hear of it by themselves.
 */
struct rnic_watch;

struct rnic_watch_ops {
	void (*removed)(void *arg);
	/* A completion queue or shared receive queue of the device, of whichever thread, is in error and good for nothing any more. */
	void (*queue_broken)(void *arg, const void *queue);
};

int rnic_watch_create(struct rnic_device *device, const struct rnic_watch_ops *ops, void *arg, struct rnic_watch **ret_watch);
void rnic_watch_destroy(struct rnic_watch *watch); /* on the same thread, also from removed(); NULL is fine */

#define RNIC_LOCAL_WRITE  0x1u
#define RNIC_REMOTE_READ  0x2u
#define RNIC_REMOTE_WRITE 0x4u
#define RNIC_WINDOWS	  0x8u /* windows may be bound to it */

/* Makes memory known to the device; keys are good until rnic_mr_free().  May take a while: not for hot paths. */
int rnic_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr);
void rnic_mr_free(struct rnic_mr *mr); /* NULL is fine */
uint32_t rnic_mr_lkey(const struct rnic_mr *mr);
uint32_t rnic_mr_rkey(const struct rnic_mr *mr);
/* A window: bound by RNIC_BIND to one queue pair and a part of a registration, until its key is invalidated from either side. */
struct rnic_window;
int rnic_window_create(struct rnic_device *device, struct rnic_window **ret_window);
void rnic_window_free(struct rnic_window *window); /* before its registration, after its queue pair; NULL is fine */
/* The key for the next bind: never the one before. */
uint32_t rnic_window_next_key(struct rnic_window *window);
/* The local key of all pool buffers (iobuf_get); registered once for each device, for nobody from outside.  Thread: any. */
int rnic_pool_lkey(struct rnic_device *device, uint32_t *ret_lkey);

/* --- work ------------------------------------------------------------------------------------------------------------- */

struct rnic_sge {
	uint64_t addr;
	uint32_t len;
	uint32_t lkey;
};

enum rnic_op {
	RNIC_SEND,
	RNIC_SEND_INVALIDATE, /* the peer's key remote_key ends with it */
	RNIC_WRITE,
	RNIC_READ,
	RNIC_BIND,	 /* window to the part of mr in its one sge, with remote_key and access */
	RNIC_INVALIDATE, /* our own key remote_key */
};

#define RNIC_MAX_SGE 16u

/* Posted as a chain, in order.  It and its sges may be used again once the post has returned. */
struct rnic_send {
	struct rnic_send *next;
	uint64_t id;
	struct rnic_sge *sge;
	uint8_t nr_sge;
	uint8_t op;
	bool signaled; /* a completion when it is done; in error there is one always */
	uint32_t remote_key;
	uint64_t remote_addr;
	/* RNIC_BIND */
	struct rnic_window *window;
	struct rnic_mr *mr;
	unsigned access;
};

struct rnic_recv {
	struct rnic_recv *next;
	uint64_t id;
	struct rnic_sge *sge;
	uint8_t nr_sge;
};

enum rnic_status {
	RNIC_OK,
	RNIC_FLUSHED,	     /* the queue pair is in error; this one was not tried */
	RNIC_LOCAL_ERROR,    /* length or protection of our own memory */
	RNIC_REMOTE_ACCESS,  /* a key or a range that the peer does not grant */
	RNIC_REMOTE_ERROR,   /* the peer could not do it */
	RNIC_RETRIES,	     /* no answer */
	RNIC_NOT_READY,	     /* the peer has no receive for it, and retries are over */
	RNIC_OTHER_ERROR,
};

const char *rnic_status_name(uint8_t status);

struct rnic_wc {
	uint64_t id;
	uint32_t qp_num;
	uint32_t len;	    /* of a receive */
	uint32_t key;	    /* that the peer invalidated with it */
	uint8_t status;
	bool invalidated;
};

/**
 * rnic_cq_create - a completion queue on the current thread
 * @ready: called when completions may be there, each turn while the thread is awake; says whether there were any
 *
 * It must never hold more than nr_entries: who makes queue pairs on it counts.
 */
int rnic_cq_create(struct rnic_device *device, uint32_t nr_entries, bool (*ready)(void *arg), void *arg,
		   struct rnic_cq **ret_cq);
/* What is in it stays.  Its size is as before after an error; -ENOTSUP: the device never can. */
int rnic_cq_resize(struct rnic_cq *cq, uint32_t nr_entries);
void rnic_cq_destroy(struct rnic_cq *cq); /* its queue pairs are gone; ready is not called any more */
unsigned rnic_cq_poll(struct rnic_cq *cq, struct rnic_wc *wcs, unsigned max);

int rnic_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq);
void rnic_srq_destroy(struct rnic_srq *srq);
int rnic_srq_post(struct rnic_srq *srq, struct rnic_recv *recv);

/* --- connections ------------------------------------------------------------------------------------------------------- */

#define RNIC_MAX_PRIVATE 196u

/* What connection requests, their answers and rejections carry. */
struct rnic_params {
	uint8_t private_data[RNIC_MAX_PRIVATE];
	uint8_t private_len; /* of what arrives: some transports pad with zeros */
	/* Of what is sent: what we ask for, or grant.  Of what arrives: what we may have at most. */
	uint8_t reads;	    /* RDMA READs that we have outstanding */
	uint8_t peer_reads; /* that we serve */
};

enum rnic_event_type {
	RNIC_ESTABLISHED,
	RNIC_REJECTED,	   /* by the peer; params.private_data may say why */
	RNIC_UNREACHABLE,
	RNIC_DISCONNECTED, /* by the peer, or our own disconnect is over */
	RNIC_REMOVED,	   /* the device goes away, or its address: destroy the connection */
	RNIC_BROKEN,	   /* the queue pair is in error */
	RNIC_RECVS_DRAINED, /* after an error: it takes nothing from its shared receive queue any more */
};

struct rnic_event {
	enum rnic_event_type type;
	int err;
	struct rnic_params params;
};

typedef void (*rnic_event_fn)(void *arg, const struct rnic_event *event);
/* On the app thread.  The connection is the callee's, which gives it to a thread, or attaches it here, or rejects and
 * destroys it. */
typedef void (*rnic_request_fn)(void *arg, struct rnic_conn *conn, const struct rnic_params *params);

/* Thread: app.  0, -EADDRINUSE, -EADDRNOTAVAIL, -ENODEV (no RDMA device has the address)… */
int rnic_listen(const struct stream_addr *addr, int backlog, rnic_request_fn request, void *arg,
		struct rnic_listener **ret_listener);
void rnic_listener_close(struct rnic_listener *listener);

/* Finds device and route of an address, and attaches the connection to the current thread.  -ENODEV, -EHOSTUNREACH, -ETIMEDOUT… */
fiber_fn int rnic_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn);

/* It will be attached on @thread: on the app thread, in the request's callback. */
void rnic_conn_give(struct rnic_conn *conn, struct thread *thread);
/* Binds it to the current thread and hears of its events, also of what came before. */
void rnic_conn_attach(struct rnic_conn *conn, rnic_event_fn event, void *arg);
struct rnic_device *rnic_conn_device(const struct rnic_conn *conn);
void rnic_conn_local_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr);
void rnic_conn_peer_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr);

struct rnic_qp_opts {
	struct rnic_cq *cq;
	struct rnic_srq *srq; /* NULL: receives of its own, max_recv of them */
	uint32_t max_send, max_recv;
	uint32_t max_send_sge, max_recv_sge;
};

int rnic_qp_create(struct rnic_conn *conn, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num);
/* The device touches no memory for it any more; completions that are in the queue already stay there.  Harmless without one. */
void rnic_qp_destroy(struct rnic_conn *conn);
int rnic_post_send(struct rnic_conn *conn, struct rnic_send *send); /* all of the chain or, in error, some of it */
int rnic_post_recv(struct rnic_conn *conn, struct rnic_recv *recv);

int rnic_accept(struct rnic_conn *conn, const struct rnic_params *params); /* RNIC_ESTABLISHED follows */
void rnic_reject(struct rnic_conn *conn, const void *private_data, uint8_t private_len);
int rnic_connect(struct rnic_conn *conn, const struct rnic_params *params);
/* The queue pair goes into error, so that everything posted completes, and the peer is told. */
void rnic_disconnect(struct rnic_conn *conn);
/* No event comes after this; freed by the runtime. */
void rnic_conn_destroy(struct rnic_conn *conn);

#endif
