/*
 * The simulated RDMA fabric: two devices, queue pairs joined in pairs, and connection management, in virtual time.  Here are the
 * devices, their memory, and what a test reaches for; rnic_sim_qp.c executes work, rnic_sim_cm.c joins queue pairs.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rnic_sim_internal.h"

struct sim_fabric sim = {
	.mrs = LIST_INIT(sim.mrs),
	.conns = LIST_INIT(sim.conns),
	.listeners = LIST_INIT(sim.listeners),
	.cms = LIST_INIT(sim.cms),
};

static void devices_init(void)
{
	if (sim.devices[0].base.info.max_wr)
		return;
	rnic_device_init(&sim.devices[0].base);
	rnic_device_init(&sim.devices[1].base);
	sim.devices[0].base.info = (struct rnic_info){ .name = "sim0", .windows = true, .max_wr = 4096, .max_sge = 16, .max_read_sge = 16, .max_cqe = 65536,
						   .max_srq_wr = 4096, .max_message_bytes = 1u << 30, .max_reads = 16, .max_peer_reads = 16 };
	sim.devices[1].base.info = (struct rnic_info){ .name = "sim1", .iwarp = true, .max_wr = 1024, .max_sge = 6, .max_read_sge = 1,
						   .max_cqe = 65536, .max_message_bytes = 96 * 1024, .max_reads = 4, .max_peer_reads = 4 };
}

struct rnic_device *sim_device_of(const struct stream_addr *addr)
{
	struct sim_device *device = &sim.devices[addr->family == AF_INET6];

	devices_init();
	return sim.no_devices || device->base.removed ? NULL : &device->base;
}

static int sim_available(char *ret_why, size_t size)
{
	if (!sim.no_devices)
		return 0;
	snprintf(ret_why, size, "there is no RDMA device: add one (rdma link add) or load its driver");
	return -ENODEV;
}

/* --- memory ------------------------------------------------------------------------------------------------------------ */

int sim_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr)
{
	struct sim_mr *mr = sim.nr_mr_create_fails ? NULL : calloc(1, sizeof(*mr));

	if (!mr) {
		sim.nr_mr_create_fails -= sim.nr_mr_create_fails > 0;
		return -ENOMEM;
	}
	sim.next_key += 0x101;
	*mr = (struct sim_mr){ .mr = { sim.next_key, sim.next_key }, .device = device, .addr = addr, .len = len, .registered_bytes = len, .access = access, .valid = true };
	list_add_tail(&sim.mrs, &mr->link);
	sim.stats.nr_mrs++;
	sim.stats.mr_bytes += len;
	*ret_mr = &mr->mr;
	return 0;
}

void sim_mr_free(struct rnic_mr *base)
{
	struct sim_mr *mr = container_of(base, struct sim_mr, mr);

	list_del(&mr->link);
	sim.stats.nr_mrs--;
	sim.stats.mr_bytes -= mr->registered_bytes;
	free(mr);
}

static int sim_window_create(struct rnic_device *device, struct rnic_window **ret_window)
{
	struct sim_window *window = calloc(1, sizeof(*window));

	if (!window || sim_mr_create(device, NULL, 0, 0, &window->mr)) {
		free(window);
		return -ENOMEM;
	}
	assert(device->info.windows);
	/* Room for the byte that the consumer chooses. */
	sim.next_key = (sim.next_key + 0x200) & ~0xffu;
	window->window.key = window->mr->lkey = window->mr->rkey = sim.next_key;
	container_of(window->mr, struct sim_mr, mr)->valid = false;
	*ret_window = &window->window;
	return 0;
}

static void sim_window_free(struct rnic_window *base)
{
	struct sim_window *window = container_of(base, struct sim_window, window);

	sim_mr_free(window->mr);
	free(window);
}

struct sim_mr *sim_mr_find(const struct rnic_device *device, uint32_t key)
{
	struct list *it;

	list_for_each(it, &sim.mrs) {
		struct sim_mr *mr = list_entry(it, struct sim_mr, link);

		if (mr->device == device && mr->mr.lkey == key)
			return mr;
	}
	return NULL;
}

bool sim_may(const struct rnic_device *device, uint32_t key, uint64_t addr, uint64_t len, unsigned access)
{
	const struct sim_mr *mr = sim_mr_find(device, key);
	uint64_t base = mr ? (uintptr_t)mr->addr : 0;

	return mr && mr->valid && (mr->access & access) == access && addr >= base && addr - base <= mr->len &&
	       len <= mr->len - (addr - base);
}

const struct rnic_ops rnic_sim_ops = {
	.available = sim_available,
	.mr_create = sim_mr_create,
	.mr_free = sim_mr_free,
	.window_create = sim_window_create,
	.window_free = sim_window_free,
	.cq_create = sim_cq_create,
	.cq_start = sim_cq_start,
	.cq_resize = sim_cq_resize,
	.cq_destroy = sim_cq_destroy,
	.cq_poll = sim_cq_poll,
	.srq_create = sim_srq_create,
	.srq_destroy = sim_srq_destroy,
	.srq_post = sim_srq_post,
	.listen = sim_listen,
	.listener_close = sim_listener_close,
	.resolve = sim_resolve,
	.local_addr = sim_local_addr,
	.peer_addr = sim_peer_addr,
	.qp_create = sim_qp_create,
	.qp_destroy = sim_qp_destroy,
	.post_send = sim_post_send,
	.post_recv = sim_post_recv,
	.accept = sim_accept,
	.reject = sim_reject,
	.connect = sim_connect,
	.disconnect = sim_disconnect,
	.conn_destroy = sim_conn_destroy,
};

/* --- a test's reach ------------------------------------------------------------------------------------------------------------ */

const struct rnic_sim_stats *rnic_sim_stats(void)
{
	return &sim.stats;
}

void rnic_sim_no_devices(void)
{
	sim.no_devices = true;
}

void rnic_sim_cut(struct rnic_conn *conn)
{
	to_sim(conn)->cut = true;
	if (to_sim(conn)->peer)
		to_sim(conn)->peer->cut = true;
}

void rnic_sim_fail_next(struct rnic_conn *conn, enum rnic_status status)
{
	to_sim(conn)->fail_next = status;
}

void rnic_sim_break(struct rnic_conn *conn)
{
	sim_qp_fail(to_sim(conn), true);
}

void rnic_sim_hold(struct rnic_conn *conn, bool hold)
{
	sim_cq_hold(to_sim(conn)->opts.cq, hold);
}

void rnic_sim_break_cq(struct rnic_conn *conn)
{
	sim_cq_break(to_sim(conn));
}

void rnic_sim_break_srq(struct rnic_conn *conn)
{
	sim_srq_break(to_sim(conn));
}

void rnic_sim_drop_recvs(struct rnic_conn *conn)
{
	sim_works_free(&to_sim(conn)->recvs);
	to_sim(conn)->nr_recvs = 0;
}

void rnic_sim_stray(struct rnic_conn *conn, enum rnic_status status)
{
	sim_stray(to_sim(conn), status);
}

struct rnic_conn *rnic_sim_peer(struct rnic_conn *conn)
{
	struct sim_conn *peer = to_sim(conn)->peer;

	return peer ? &peer->conn : NULL;
}

void rnic_sim_each(void (*fn)(struct rnic_conn *conn))
{
	struct list *it;

	list_for_each(it, &sim.conns) {
		struct sim_conn *conn = list_entry(it, struct sim_conn, link);

		if (conn->state == SIM_UP && !conn->conn.destroyed)
			fn(&conn->conn);
	}
}

void rnic_sim_fail_qp_create(unsigned nr)
{
	sim.nr_qp_create_fails = nr;
}

void rnic_sim_max_cqe(uint32_t nr)
{
	devices_init();
	sim.devices[0].base.info.max_cqe = sim.devices[1].base.info.max_cqe = nr;
}

void rnic_sim_fail_cq_resize(unsigned nr)
{
	sim.nr_cq_resize_fails = nr;
}

void rnic_sim_fail_mr_create(unsigned nr)
{
	sim.nr_mr_create_fails = nr;
}

void rnic_sim_remove(int family)
{
	struct sim_device *device = &sim.devices[family == AF_INET6];
	struct list *it;

	rnic_device_removed(&device->base);
	list_for_each(it, &sim.conns) {
		struct sim_conn *conn = list_entry(it, struct sim_conn, link);

		if (conn->conn.device != &device->base || conn->conn.destroyed)
			continue;
		sim_qp_fail(conn, false);
		sim_cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_REMOVED }, sim_delay_us());
	}
}

void rnic_sim_reset(void)
{
	struct list *link;

	while ((link = list_first(&sim.cms)))
		sim_cm_free(list_entry(link, struct sim_cm, link));
	for (unsigned i = 0; i < 2; i++) {
		if (sim.devices[i].base.pool_mr)
			sim_mr_free(sim.devices[i].base.pool_mr);
		sim.devices[i] = (struct sim_device){ 0 };
	}
	while ((link = list_first(&sim.listeners)))
		sim_listener_close(&list_entry(link, struct sim_listener, link)->listener);
	sim.stats = (struct rnic_sim_stats){ 0 };
	sim.next_key = 0x1000;
	sim.next_qp_num = FIRST_ACTIVE_QP;
	sim.next_port = FIRST_PORT;
	sim.no_devices = false;
	sim.nr_qp_create_fails = 0;
	sim.nr_cq_resize_fails = 0;
	sim.nr_mr_create_fails = 0;
}
