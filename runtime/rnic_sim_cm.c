/*
 * Connection management on the simulated fabric: listeners, requests, answers and ends, each of which takes a while to arrive, and
 * arrives on the thread that owns the connection.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim_internal.h"

static void conn_free(struct rnic_conn *base)
{
	sim.stats.nr_conns--;
	list_del(&to_sim(base)->link);
	free(to_sim(base));
}

static struct sim_conn *conn_new(struct rnic_device *device)
{
	struct sim_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	rnic_conn_init(&conn->conn, device, conn_free);
	fifo_init(&conn->sends);
	fifo_init(&conn->recvs);
	list_add_tail(&sim.conns, &conn->link);
	sim.stats.nr_conns++;
	return conn;
}

static struct sim_listener *listener_find(const struct stream_addr *addr)
{
	struct list *it;

	list_for_each(it, &sim.listeners) {
		struct sim_listener *l = list_entry(it, struct sim_listener, link);

		if (l->addr.port == addr->port && l->addr.family == addr->family && !strcmp(l->addr.host, addr->host))
			return l;
	}
	return NULL;
}

static void listener_put(struct sim_listener *listener)
{
	if (--listener->refs == 0)
		free(listener);
}

static void tell_rejected(struct sim_conn *conn, const void *private_data, uint8_t len, int err)
{
	struct rnic_event event = { .type = RNIC_REJECTED, .err = err, .params.private_len = len };

	if (len)
		memcpy(event.params.private_data, private_data, len);
	sim_cm_send(conn, CM_TELL, &event, sim_delay_us());
}

/* A request has reached the app thread. */
struct sim_request {
	struct sim_listener *listener;
	struct sim_conn *conn;
};

static void request_msg(void *arg)
{
	struct sim_request *request = arg;
	struct sim_listener *listener = request->listener;
	struct sim_conn *conn = request->conn;

	free(request);
	if (listener->closed)
		rnic_conn_destroy(&conn->conn);
	else
		listener->listener.request(listener->listener.arg, &conn->conn, &conn->asked);
	listener_put(listener);
}

static uint8_t min_u8(uint8_t a, uint8_t b)
{
	return a < b ? a : b;
}

static void request_arrives(struct sim_conn *client)
{
	struct sim_listener *listener = listener_find(&client->remote);
	struct sim_request *request;
	struct sim_conn *server;

	if (!listener) {
		tell_rejected(client, NULL, 0, -ECONNREFUSED);
		return;
	}
	server = conn_new(client->conn.device);
	request = malloc(sizeof(*request));
	assert(server && request);
	server->peer = client;
	client->peer = server;
	server->state = SIM_ASKED;
	server->local = client->remote;
	server->remote = client->local;
	server->asked = client->asked;
	server->asked.reads = min_u8(client->asked.peer_reads, server->conn.device->info.max_reads);
	server->asked.peer_reads = min_u8(client->asked.reads, server->conn.device->info.max_peer_reads);
	listener->refs++;
	*request = (struct sim_request){ listener, server };
	thread_send(runtime_app_thread(), request_msg, request);
}

/* The client learns that it is accepted; the server that the client knows. */
static void accept_arrives(struct sim_conn *client, const struct rnic_event *tell)
{
	if (client->state != SIM_ASKED || !client->peer)
		return;
	client->state = SIM_UP;
	sim_cm_send(client->peer, CM_TELL, &(struct rnic_event){ .type = RNIC_ESTABLISHED }, sim_delay_us());
	rnic_conn_tell(&client->conn, tell);
}

void sim_cm_free(struct sim_cm *cm)
{
	sim_event_clear(&cm->event);
	list_del(&cm->link);
	rnic_conn_put(&cm->conn->conn);
	free(cm);
}

static void cm_arrives(void *arg)
{
	struct sim_cm *cm = arg;
	struct sim_conn *conn = cm->conn;

	if (!conn->conn.destroyed) {
		if (cm->op == CM_REQUEST)
			request_arrives(conn);
		else if (cm->op == CM_ACCEPTED)
			accept_arrives(conn, &cm->tell);
		else
			rnic_conn_tell(&conn->conn, &cm->tell);
	}
	sim_cm_free(cm);
}

void sim_cm_send(struct sim_conn *to, enum sim_cm_op op, const struct rnic_event *tell, uint64_t delay)
{
	struct sim_cm *cm = calloc(1, sizeof(*cm));

	assert(cm);
	cm->op = op;
	cm->conn = to;
	if (tell)
		cm->tell = *tell;
	atomic_fetch_add(&to->conn.refs, 1);
	list_add_tail(&sim.cms, &cm->link);
	sim_event_set(&cm->event, clock_now_us() + delay, cm_arrives, cm);
}

int sim_listen(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener)
{
	struct sim_listener *listener;

	if (!sim_device_of(addr))
		return -ENODEV;
	if (listener_find(addr))
		return -EADDRINUSE;
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return -ENOMEM;
	listener->addr = *addr;
	listener->refs = 1;
	listener->listener.device = sim_device_of(addr);
	list_add_tail(&sim.listeners, &listener->link);
	*ret_listener = &listener->listener;
	return 0;
}

void sim_listener_close(struct rnic_listener *base)
{
	struct sim_listener *listener = container_of(base, struct sim_listener, listener);

	list_del(&listener->link);
	listener->closed = true;
	listener_put(listener);
}

fiber_fn int sim_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn)
{
	struct rnic_device *device = sim_device_of(addr);
	struct sim_conn *conn;

	fiber_sleep(sim_delay_us());
	if (!device)
		return -ENODEV;
	conn = conn_new(device);
	if (!conn)
		return -ENOMEM;
	conn->conn.thread = thread_current();
	conn->active = true;
	conn->remote = *addr;
	conn->local = *addr;
	conn->local.port = sim.next_port++;
	*ret_conn = &conn->conn;
	return 0;
}

void sim_local_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	*ret_addr = to_sim(conn)->local;
}

void sim_peer_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	*ret_addr = to_sim(conn)->remote;
}

static bool qp_num_is_used(uint32_t qp_num)
{
	struct list *it;

	list_for_each(it, &sim.conns) {
		const struct sim_conn *conn = list_entry(it, struct sim_conn, link);

		if (conn->has_qp && conn->qp_num == qp_num)
			return true;
	}
	return false;
}

static uint32_t new_qp_num(const struct sim_conn *conn)
{
	uint32_t qp_num = FIRST_QP;

	if (conn->active)
		return sim.next_qp_num++;
	while (qp_num_is_used(qp_num))
		qp_num++;
	return qp_num;
}

int sim_qp_create(struct rnic_conn *base, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num)
{
	struct sim_conn *conn = to_sim(base);
	const struct rnic_info *info = &base->device->info;

	if (sim.nr_qp_create_fails) {
		sim.nr_qp_create_fails--;
		return -ENOMEM;
	}
	if (opts->max_send > info->max_wr || opts->max_recv > info->max_wr || opts->max_send_sge > info->max_sge ||
	    opts->max_recv_sge > info->max_sge)
		return -EINVAL;
	conn->opts = *opts;
	conn->qp_num = new_qp_num(conn);
	conn->has_qp = true;
	sim.stats.nr_qps++;
	*ret_qp_num = conn->qp_num;
	return 0;
}

void sim_qp_destroy(struct rnic_conn *base)
{
	struct sim_conn *conn = to_sim(base);

	if (!conn->has_qp)
		return;
	conn->has_qp = false;
	sim.stats.nr_qps--;
	sim_event_clear(&conn->step);
	sim_works_free(&conn->sends);
	sim_works_free(&conn->recvs);
}

int sim_accept(struct rnic_conn *base, const struct rnic_params *params)
{
	struct sim_conn *conn = to_sim(base);
	struct rnic_event event = { .type = RNIC_ESTABLISHED, .params = *params };

	assert(conn->state == SIM_ASKED && conn->has_qp);
	assert(params->reads <= conn->asked.reads && params->peer_reads <= conn->asked.peer_reads);
	if (!conn->peer) {
		sim_cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_UNREACHABLE, .err = -ETIMEDOUT }, CM_TIMEOUT_US);
		return 0;
	}
	conn->state = SIM_UP;
	event.params.reads = params->peer_reads;
	event.params.peer_reads = params->reads;
	sim_cm_send(conn->peer, CM_ACCEPTED, &event, sim_delay_us());
	return 0;
}

/* They know nothing of each other from now on. */
static struct sim_conn *part(struct sim_conn *conn)
{
	struct sim_conn *peer = conn->peer;

	if (peer)
		peer->peer = NULL;
	conn->peer = NULL;
	return peer;
}

void sim_reject(struct rnic_conn *base, const void *private_data, uint8_t private_len)
{
	struct sim_conn *client = part(to_sim(base));

	to_sim(base)->state = SIM_DOWN;
	if (client)
		tell_rejected(client, private_data, private_len, -ECONNREFUSED);
}

int sim_connect(struct rnic_conn *base, const struct rnic_params *params)
{
	struct sim_conn *conn = to_sim(base);

	conn->state = SIM_ASKED;
	conn->asked = *params;
	sim_cm_send(conn, CM_REQUEST, NULL, sim_delay_us());
	return 0;
}

void sim_disconnect(struct rnic_conn *base)
{
	struct sim_conn *conn = to_sim(base);
	static const struct rnic_event event = { .type = RNIC_DISCONNECTED };

	if (conn->state == SIM_UP) {
		if (conn->peer && conn->peer->state == SIM_UP && !conn->cut)
			sim_cm_send(conn->peer, CM_TELL, &event, sim_delay_us());
		sim_cm_send(conn, CM_TELL, &event, conn->cut ? CM_TIMEOUT_US : 2 * sim_delay_us());
		conn->state = SIM_DOWN;
	}
	sim_qp_fail(conn, false);
}

void sim_conn_destroy(struct rnic_conn *base)
{
	struct sim_conn *conn = to_sim(base);
	enum sim_state state = conn->state;
	struct sim_conn *peer = part(conn);

	conn->state = SIM_DOWN;
	if (!peer || conn->cut)
		return;
	if (peer->state == SIM_UP && state == SIM_UP)
		sim_cm_send(peer, CM_TELL, &(struct rnic_event){ .type = RNIC_DISCONNECTED }, sim_delay_us());
	else if (peer->active && peer->state == SIM_ASKED)
		tell_rejected(peer, NULL, 0, -ECONNRESET);
	else if (!peer->active && peer->state == SIM_UP)
		sim_cm_send(peer, CM_TELL, &(struct rnic_event){ .type = RNIC_UNREACHABLE, .err = -ETIMEDOUT }, CM_TIMEOUT_US);
}
