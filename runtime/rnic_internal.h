/* The two sides of rnic.h: what both implementations share, and the table that chooses between them. */
#ifndef RUNTIME_RNIC_INTERNAL_H
#define RUNTIME_RNIC_INTERNAL_H

#include <stdatomic.h>

#include "runtime/rnic.h"

struct rnic_ops {
	int (*available)(char *ret_why, size_t size);
	int (*mr_create)(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr);
	void (*mr_free)(struct rnic_mr *mr);
	int (*window_create)(struct rnic_device *device, struct rnic_window **ret_window);
	void (*window_free)(struct rnic_window *window);
	int (*cq_create)(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq);
	int (*cq_start)(struct rnic_cq *cq);
	int (*cq_resize)(struct rnic_cq *cq, uint32_t nr_entries);
	void (*cq_destroy)(struct rnic_cq *cq);
	unsigned (*cq_poll)(struct rnic_cq *cq, struct rnic_wc *wcs, unsigned max);
	int (*srq_create)(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq);
	void (*srq_destroy)(struct rnic_srq *srq);
	int (*srq_post)(struct rnic_srq *srq, struct rnic_recv *recv);
	int (*listen)(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener);
	void (*listener_close)(struct rnic_listener *listener);
	fiber_fn int (*resolve)(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn);
	void (*local_addr)(const struct rnic_conn *conn, struct stream_addr *ret_addr);
	void (*peer_addr)(const struct rnic_conn *conn, struct stream_addr *ret_addr);
	int (*qp_create)(struct rnic_conn *conn, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num);
	void (*qp_destroy)(struct rnic_conn *conn);
	int (*post_send)(struct rnic_conn *conn, struct rnic_send *send);
	int (*post_recv)(struct rnic_conn *conn, struct rnic_recv *recv);
	int (*accept)(struct rnic_conn *conn, const struct rnic_params *params);
	void (*reject)(struct rnic_conn *conn, const void *private_data, uint8_t private_len);
	int (*connect)(struct rnic_conn *conn, const struct rnic_params *params);
	void (*disconnect)(struct rnic_conn *conn);
	void (*conn_destroy)(struct rnic_conn *conn);
};

extern const struct rnic_ops rnic_sim_ops, rnic_verbs_ops;

/* Each implementation's struct begins with one of these. */
struct rnic_device {
	struct rnic_info info;
	atomic_bool removed;
	/* whoever holds the lock of rnic.c */
	struct rnic_mr *pool_mr;
	struct list watches;
};

struct rnic_mr {
	uint32_t lkey, rkey;
};

struct rnic_window {
	uint32_t key; /* of the last bind, or as it was made */
};

struct rnic_cq {
	bool (*ready)(void *arg);
	void *arg;
	struct thread *thread;
};

struct rnic_listener {
	struct rnic_device *device; /* with its address; NULL: any may have it */
	rnic_request_fn request;
	void *arg;
};

/* Owner: its thread, but for refs. */
struct rnic_conn {
	struct rnic_device *device;
	struct thread *thread; /* set on the app thread, by give or resolve, before anything is told */
	rnic_event_fn event;
	void *arg;
	struct rnic_event *early; /* told before there was a callback */
	bool destroyed;		  /* what is on its way is not told */
	atomic_uint refs;	  /* the owner's, and one for each message on its way */
	void (*free)(struct rnic_conn *conn);
};

void rnic_conn_init(struct rnic_conn *conn, struct rnic_device *device, void (*free)(struct rnic_conn *conn));
/*
 * Tells the owner, by message.  Not called any more once the implementation's conn_destroy() has returned.  Thread: any.
 */
void rnic_conn_tell(struct rnic_conn *conn, const struct rnic_event *event);
void rnic_conn_put(struct rnic_conn *conn);
void rnic_device_init(struct rnic_device *device);
/* It goes away: tells those who watch it.  Thread: any; once or several times. */
void rnic_device_removed(struct rnic_device *device);
/* A completion queue or shared receive queue: tells those who watch the device.  Thread: any. */
void rnic_queue_broken(struct rnic_device *device, const void *queue);
/* Nothing that reaches the pool by the device is left. */
void rnic_pool_forget(struct rnic_device *device);
void rnic_sim_reset(void);

#endif
