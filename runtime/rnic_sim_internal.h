/* What the files of the simulated RDMA fabric share: rnic_sim.c, rnic_sim_qp.c, rnic_sim_cm.c. */
#ifndef RUNTIME_RNIC_SIM_INTERNAL_H
#define RUNTIME_RNIC_SIM_INTERNAL_H

#include "runtime/internal.h"
#include "runtime/rnic_internal.h"
#include "runtime/rnic_sim.h"

#define NO_ANSWER_US   20000u /* until a piece of work that nobody answers fails */
#define NOT_READY_US   100u
#define CM_TIMEOUT_US  1000000u
#define FIRST_PORT     40000u
#define FIRST_QP       17u /* of accepted connections */
#define FIRST_ACTIVE_QP 0x10000u

struct sim_device {
	struct rnic_device base;
};

struct sim_mr {
	struct rnic_mr mr;
	struct list link;
	struct rnic_device *device;
	uint8_t *addr;
	size_t len, registered_bytes; /* differ in a window's */
	unsigned access;
	bool valid;
};

/* Its key is that of a registration which is valid while it is bound. */
struct sim_window {
	struct rnic_window window;
	struct rnic_mr *mr;
};

struct sim_cq {
	struct rnic_cq cq;
	struct rnic_device *device;
	struct rnic_wc *ring;
	uint32_t size, head, nr;
	bool told, held, destroyed, broken;
	struct poller *poller; /* finds nothing: completions come by message; its thread stays while it is there */
};

/* A posted receive or a posted piece of work; sges follow. */
struct sim_work {
	struct fifo_link link;
	struct rnic_send send;
	bool executed; /* the peer has it; the acknowledgement is on its way */
	struct rnic_sge sge[RNIC_MAX_SGE];
};

struct sim_srq {
	struct fifo recvs;
	uint32_t size, nr;
	bool broken;
};

struct sim_listener {
	struct rnic_listener listener;
	struct list link;
	struct stream_addr addr;
	unsigned refs; /* open, and requests on their way to the app thread */
	bool closed;
};

enum sim_state { SIM_IDLE, SIM_ASKED, SIM_UP, SIM_DOWN };

struct sim_conn {
	struct rnic_conn conn;
	struct list link;
	enum sim_state state;
	struct sim_conn *peer;
	bool active;
	struct stream_addr local, remote;
	struct rnic_params asked; /* of the request */
	/* the queue pair */
	bool has_qp, error, cut;
	enum rnic_status fail_next;
	uint32_t qp_num;
	struct rnic_qp_opts opts;
	struct fifo sends, recvs;
	uint32_t nr_sends, nr_recvs;
	uint32_t nr_covered; /* done and not told: their room comes back with the next that is */
	unsigned nr_reads, nr_responses;
	struct sim_event step;
};

/* Connection management on its way. */
enum sim_cm_op { CM_REQUEST, CM_ACCEPTED, CM_TELL };

struct sim_cm {
	struct sim_event event;
	struct list link;
	enum sim_cm_op op;
	struct sim_conn *conn; /* whom it reaches */
	struct rnic_event tell;
};

/* All there is; empty again with rnic_sim_reset(). */
struct sim_fabric {
	struct sim_device devices[2];
	struct list mrs, conns, listeners, cms;
	struct rnic_sim_stats stats;
	uint32_t next_key, next_qp_num;
	uint16_t next_port;
	bool no_devices;
	unsigned nr_qp_create_fails, nr_cq_resize_fails, nr_mr_create_fails;
};

extern struct sim_fabric sim;

static inline struct sim_conn *to_sim(const struct rnic_conn *conn)
{
	return container_of((struct rnic_conn *)(uintptr_t)conn, struct sim_conn, conn);
}

static inline uint64_t sim_delay_us(void)
{
	return 1 + sim_rand() % (sim_options()->max_delay_us + 1);
}

/* --- rnic_sim.c: devices and memory --- */

struct rnic_device *sim_device_of(const struct stream_addr *addr);
int sim_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr);
void sim_mr_free(struct rnic_mr *base);
struct sim_mr *sim_mr_find(const struct rnic_device *device, uint32_t key);
bool sim_may(const struct rnic_device *device, uint32_t key, uint64_t addr, uint64_t len, unsigned access);

/* --- rnic_sim_qp.c: completion queues, posting, execution --- */

int sim_cq_create(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq);
int sim_cq_start(struct rnic_cq *base);
int sim_cq_resize(struct rnic_cq *base, uint32_t nr_entries);
void sim_cq_destroy(struct rnic_cq *base);
unsigned sim_cq_poll(struct rnic_cq *base, struct rnic_wc *wcs, unsigned max);
int sim_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq);
void sim_srq_destroy(struct rnic_srq *base);
int sim_srq_post(struct rnic_srq *base, struct rnic_recv *recv);
int sim_post_recv(struct rnic_conn *base, struct rnic_recv *recv);
int sim_post_send(struct rnic_conn *base, struct rnic_send *send);
void sim_cq_break(struct sim_conn *conn);
void sim_srq_break(struct sim_conn *conn);
void sim_cq_hold(struct rnic_cq *base, bool hold);
void sim_stray(struct sim_conn *conn, enum rnic_status status);
void sim_works_free(struct fifo *works);
void sim_qp_fail(struct sim_conn *conn, bool tell);

/* --- rnic_sim_cm.c: listeners and connections --- */

void sim_cm_send(struct sim_conn *to, enum sim_cm_op op, const struct rnic_event *tell, uint64_t delay);
void sim_cm_free(struct sim_cm *cm);
int sim_listen(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener);
void sim_listener_close(struct rnic_listener *base);
fiber_fn int sim_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn);
void sim_local_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr);
void sim_peer_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr);
int sim_qp_create(struct rnic_conn *base, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num);
void sim_qp_destroy(struct rnic_conn *base);
int sim_accept(struct rnic_conn *base, const struct rnic_params *params);
void sim_reject(struct rnic_conn *base, const void *private_data, uint8_t private_len);
int sim_connect(struct rnic_conn *base, const struct rnic_params *params);
void sim_disconnect(struct rnic_conn *base);
void sim_conn_destroy(struct rnic_conn *base);

#endif
