/* What the two files that speak to librdmacm and libibverbs share; neither is more than includes without those libraries. */
#ifndef RUNTIME_RNIC_VERBS_H
#define RUNTIME_RNIC_VERBS_H

#include <assert.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "runtime/internal.h"
#include "runtime/rnic_internal.h"

static_assert(sizeof(struct rnic_sge) == sizeof(struct ibv_sge) && offsetof(struct rnic_sge, len) == offsetof(struct ibv_sge, length) &&
		      offsetof(struct rnic_sge, lkey) == offsetof(struct ibv_sge, lkey),
	      "places are handed on as they are");

/* A descriptor watched through the ring of the thread that began it, until it is told to stop. */
struct watch {
	struct ring_op op;
	int fd;
	void (*ready)(void *arg);
	void (*stopped)(void *arg);
	void *arg;
	bool on, stopping;
};

struct verbs_device {
	struct rnic_device base;
	struct list link;
	struct ibv_context *context;
	struct ibv_pd *pd;
	unsigned invalidated_flags; /* of a completion: a key was invalidated */
	struct watch watch;
	atomic_uint users; /* identifiers, queues, registrations, windows */
	bool closing;	   /* app thread */
	uint8_t port;
	bool soft_roce;
	struct list parked; /* app thread, as the timer */
	struct timer park_timer;
};

struct verbs_mr {
	struct rnic_mr mr;
	struct verbs_device *device;
	struct ibv_mr *ibv;
};

struct verbs_window {
	struct rnic_window window;
	struct verbs_device *device;
	struct ibv_mw *ibv;
};

struct verbs_srq {
	struct verbs_device *device;
	struct ibv_srq *ibv;
};

struct verbs_cq {
	struct rnic_cq cq;
	struct verbs_device *device;
	struct ibv_cq *ibv;
	struct ibv_comp_channel *channel;
	struct watch watch;
	struct poller *poller;
	bool armed;
};

/* What the context of an identifier points to. */
struct verbs_id {
	bool listens;
};

struct verbs_listener {
	struct verbs_id kind;
	struct rnic_listener listener;
	struct rdma_cm_id *id; /* NULL: its address is nowhere, and it is tried again */
	struct stream_addr addr;
	int backlog;
	struct timer timer;
};

struct verbs_conn {
	struct verbs_id kind;
	struct rnic_conn conn;
	struct rdma_cm_id *id;
	struct fiber_wait *resolve; /* until route and device are known */
	bool silent;		    /* it ends so: see rnic_verbs_park.c */
	atomic_bool parked;	    /* destroyed for its owner */
	struct list park_link;
};

/* Owner: the app thread. */
extern struct list verbs_devices;

static inline struct verbs_conn *to_verbs(const struct rnic_conn *conn)
{
	return container_of((struct rnic_conn *)(uintptr_t)conn, struct verbs_conn, conn);
}

static inline struct verbs_device *device_of(const struct rnic_device *device)
{
	return container_of((struct rnic_device *)(uintptr_t)device, struct verbs_device, base);
}

/* rnic_verbs_cm.c */
bool verbs_serves(void); /* there is a listener */
void verbs_id_destroy(struct verbs_conn *conn);

/* rnic_verbs_park.c */
void verbs_park_init(struct verbs_device *device);
bool verbs_must_keep_silent(const struct verbs_conn *conn);
void verbs_park(struct verbs_conn *conn);

/* rnic_verbs.c */
void verbs_watch_begin(struct watch *watch);
void verbs_watch_stop(struct watch *watch);
int verbs_set_nonblocking(int fd);
struct rnic_device *verbs_device_get(struct rdma_cm_id *id);
void verbs_device_use(struct verbs_device *device);
/* With the last user of a device that was taken away, it is closed: soft-RoCE's and soft-iWARP's removal waits for that. */
void verbs_device_unuse(struct verbs_device *device);
void verbs_device_removed(struct rnic_device *device);
int verbs_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr);
void verbs_mr_free(struct rnic_mr *base);
int verbs_window_create(struct rnic_device *device, struct rnic_window **ret_window);
void verbs_window_free(struct rnic_window *base);
int verbs_cq_create(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq);
int verbs_cq_start(struct rnic_cq *base);
int verbs_cq_resize(struct rnic_cq *base, uint32_t nr_entries);
void verbs_cq_destroy(struct rnic_cq *base);
unsigned verbs_cq_poll(struct rnic_cq *base, struct rnic_wc *wcs, unsigned max);
int verbs_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq);
void verbs_srq_destroy(struct rnic_srq *srq);
int verbs_srq_post(struct rnic_srq *srq, struct rnic_recv *recv);
int verbs_post_recv(struct rnic_conn *conn, struct rnic_recv *recv);
int verbs_post_send(struct rnic_conn *conn, struct rnic_send *send);

#endif
