/*
 * A device in a poll group: completion queues (cq.c), one shared receive queue where the device has them, and the way from a
 * completion to the connection and the request it is about.  Completions name queue pairs by number: those of one that is gone
 * find no connection and touch nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/rdma/internal.h"

#define TAG_MASK 7u
#define TAG_LAST 1u
#define TAG_RECV 2u
#define SRQ_MIN	 16u

static struct rdma_conn *find_conn(struct rdma_port *port, uint32_t qp_num)
{
	struct list *bucket = &port->conns_by_qp[qp_num % RDMA_QP_BUCKETS], *it;

	list_for_each(it, bucket) {
		struct rdma_conn *conn = list_entry(it, struct rdma_conn, qp_link);

		if (conn->qp_num == qp_num)
			return conn;
	}
	return NULL;
}

static void recv_done(struct rdma_port *port, struct rdma_conn *conn, struct rdma_slot *slot, const struct rnic_wc *wc)
{
	if (slot->slots->conn)
		slot->slots->conn->nr_recvs_posted--;
	else
		port->nr_recvs_posted--;
	if (wc->status != RNIC_OK) {
		/* A connection's own would come back at once, for as long as somebody polls. */
		if (!slot->slots->conn)
			rdma_slot_release(slot);
		if (conn)
			rdma_conn_fail(conn, rnic_status_name(wc->status));
	} else if (!conn || !conn_receives(conn)) {
		rdma_slot_release(slot);
	} else {
		rdma_req_capsule(conn, slot, wc->len);
	}
	if (conn && conn->state == CONN_CLOSING)
		rdma_conn_work_later(conn, WORK_ADVANCE);
}

void rdma_port_completed(struct rdma_port *port, const struct rnic_wc *wc)
{
	struct rdma_conn *conn = find_conn(port, wc->qp_num);
	void *what = (void *)(uintptr_t)(wc->id & ~(uint64_t)TAG_MASK);

	if ((wc->id & TAG_MASK) == TAG_RECV) {
		/* A connection's own slots are gone with it. */
		if (conn || port->srq)
			recv_done(port, conn, what, wc);
		return;
	}
	if (!conn)
		return;
	if (wc->status != RNIC_OK)
		rdma_conn_fail(conn, rnic_status_name(wc->status));
	if ((wc->id & TAG_MASK) == TAG_LAST)
		rdma_req_work_done(what, wc->status);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The port goes with its last connection. */
static void end_all(struct rdma_port *port, const char *why)
{
	if (!port->nr_conns) {
		rdma_port_free(port);
		return;
	}
	for (unsigned i = 0; i < RDMA_QP_BUCKETS; i++) {
		struct list *it;

		list_for_each(it, &port->conns_by_qp[i])
			rdma_conn_fail(list_entry(it, struct rdma_conn, qp_link), why);
	}
}

static void device_removed(void *arg)
{
	end_all(arg, "its device was taken away");
}

static bool has_queue(const struct rdma_port *port, const void *queue)
{
	const struct list *it;

	for (it = port->cqs.next; it != &port->cqs; it = it->next) {
		if (list_entry(it, struct rdma_cq, link)->rnic == queue)
			return true;
	}
	return port->srq && port->srq == queue;
}

/* Nothing can be hoped for from its queues.  Whoever comes next gets a port of his own. */
static void queue_broken(void *arg, const void *queue)
{
	struct rdma_port *port = arg;

	if (port->broken || !has_queue(port, queue))
		return;
	port->broken = true;
	list_del(&port->link);
	end_all(port, "a queue that it shares with others is in error");
}

static const struct rnic_watch_ops watch_ops = { .removed = device_removed, .queue_broken = queue_broken };

/* Half of the largest completion queue at most: queue pairs need room as well. */
static uint32_t shared_recvs(const struct rdma_port *port, const struct nvmf_transport_opts *opts)
{
	uint32_t most = min_u32(port->info->max_srq_wr, rdma_cq_largest(port) / 2);

	if (opts->no_srq || !most)
		return 0;
	if (opts->max_srq_depth > most)
		log_notice("RDMA device %s: %u shared receives and not max_srq_depth's %u, for its queues hold no more",
			   port->info->name, most, opts->max_srq_depth);
	return min_u32(most, opts->max_srq_depth);
}

uint32_t rdma_port_max_send(const struct rdma_port *port, uint32_t depth)
{
	return min_u32(2 * depth + RDMA_SQ_EXTRA, port->info->max_wr);
}

uint32_t rdma_port_max_recv(const struct rdma_port *port, uint32_t depth)
{
	return port->nr_shared_recvs ? 0 : min_u32(depth + RDMA_FIRST_RECVS, port->info->max_wr);
}

/* One whose receives the device can have, and whose completions one queue can hold. */
static uint32_t max_depth(const struct rdma_port *port)
{
	uint32_t room = rdma_cq_largest(port) - port->nr_shared_recvs;
	uint32_t depth = port->nr_shared_recvs ? RDMA_MAX_DEPTH : min_u32(RDMA_MAX_DEPTH, port->info->max_wr);

	while (depth > 1 && rdma_port_max_send(port, depth) + rdma_port_max_recv(port, depth) > room)
		depth--;
	return depth;
}

/* As many as were asked for, or half as many where there is no memory for them, or half of those… */
static int make_shared_slots(struct rdma_port *port, uint32_t nr, uint32_t data_size)
{
	uint64_t max_bytes = dma_left_bytes() / RDMA_SLOTS_SHARE;
	uint32_t asked = nr;
	int rc = -ENOMEM;

	for (;; nr /= 2) {
		if (rdma_slots_bytes(nr, data_size) <= max_bytes)
			rc = rdma_slots_create(port, NULL, nr, data_size, &port->srq_slots);
		if (rc != -ENOMEM || nr / 2 < SRQ_MIN)
			break;
	}
	if (rc)
		return rc;
	if (nr < asked)
		log_warning("RDMA device %s: %u shared receives instead of %u, for want of memory", port->info->name, nr, asked);
	port->nr_shared_recvs = nr;
	return 0;
}

static int port_open(struct rdma_port *port, const struct nvmf_transport_opts *opts)
{
	uint32_t nr_recvs = shared_recvs(port, opts);
	int rc;

	rc = rnic_watch_create(port->device, &watch_ops, port, &port->watch);
	if (!rc)
		rc = rnic_pool_lkey(port->device, &port->pool_lkey);
	if (rc)
		return rc;
	if (nr_recvs)
		rc = make_shared_slots(port, nr_recvs, opts->in_capsule_data_size);
	if (rc)
		return rc;
	port->max_depth = max_depth(port);
	rc = rdma_cq_open(port, 1);
	if (rc || !nr_recvs)
		return rc;
	rc = rnic_srq_create(port->device, port->nr_shared_recvs, 2, &port->srq);
	return rc ? rc : rdma_slots_post(port->srq_slots);
}

void rdma_port_free(struct rdma_port *port)
{
	struct list *link;

	list_del(&port->link);
	rnic_watch_destroy(port->watch);
	if (port->srq)
		rnic_srq_destroy(port->srq);
	rdma_slots_free(port->srq_slots);
	rdma_slots_free(port->spare_slots);
	while ((link = list_first(&port->cqs)))
		rdma_cq_close(list_entry(link, struct rdma_cq, link));
	free(port);
}

int rdma_port_get(struct rdma_group *group, struct rnic_device *device, const struct nvmf_transport_opts *opts,
	     struct rdma_port **ret_port)
{
	struct rdma_port *port;
	struct list *it;
	int rc;

	list_for_each(it, &group->ports) {
		port = list_entry(it, struct rdma_port, link);
		if (port->device == device) {
			port->nr_conns++;
			*ret_port = port;
			return 0;
		}
	}
	port = calloc(1, sizeof(*port));
	if (!port)
		return -ENOMEM;
	port->group = group;
	port->device = device;
	port->info = rnic_info(device);
	for (unsigned i = 0; i < RDMA_QP_BUCKETS; i++)
		list_init(&port->conns_by_qp[i]);
	list_init(&port->cqs);
	fifo_init(&port->spares);
	list_add_tail(&group->ports, &port->link);
	rc = port_open(port, opts);
	if (rc) {
		log_warning("RDMA device %s cannot be used: %s; see the limit on locked memory (ulimit -l) and max_srq_depth",
			    port->info->name, strerror(-rc));
		rdma_port_free(port);
		return rc;
	}
	port->nr_conns = 1;
	*ret_port = port;
	return 0;
}

int rdma_device_stats(void *tgroup, unsigned idx, struct nvmf_device_stats *ret_stats)
{
	struct rdma_group *group = tgroup;
	struct list *it;

	list_for_each(it, &group->ports) {
		const struct rdma_port *port = list_entry(it, struct rdma_port, link);
		const struct rdma_stats *s = &port->stats;

		if (idx--)
			continue;
		*ret_stats = (struct nvmf_device_stats){
			.nr = 13,
			.counters = {
				{ "polls", s->polls },
				{ "idle_polls", s->idle_polls },
				{ "completions", s->completions },
				{ "requests", s->requests },
				{ "request_latency", s->request_latency_ticks },
				{ "pending_rdma_read", s->pending_rdma_read },
				{ "pending_rdma_write", s->pending_rdma_write },
				{ "pending_rdma_send", s->pending_rdma_send },
				{ "total_send_wrs", s->total_send_wrs },
				{ "send_doorbell_updates", s->send_doorbell_updates },
				{ "total_recv_wrs", s->total_recv_wrs },
				{ "recv_doorbell_updates", s->recv_doorbell_updates },
				{ "pending_free_request", s->pending_free_request },
			},
		};
		snprintf(ret_stats->name, sizeof(ret_stats->name), "%s", port->info->name);
		return 0;
	}
	return -ENOENT;
}

void rdma_port_put(struct rdma_port *port)
{
	if (--port->nr_conns == 0 && (port->broken || rnic_is_removed(port->device)))
		rdma_port_free(port);
}
