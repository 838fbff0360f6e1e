/*
 * RDMA by librdmacm: addresses, listeners, connections; and the table of what libibverbs and librdmacm do, or of their absence.
 *
 * One event channel is watched on the app thread, for as long as there is a listener or a connection.  What it says goes to the
 * connection's thread by message, before the event is acknowledged, and destroying waits for the acknowledgement: so nobody is told
 * of something he no longer has.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>

#include "runtime/internal.h"
#include "runtime/rnic_internal.h"

#ifndef HAVE_RDMA

static int verbs_available(char *ret_why, size_t size)
{
	snprintf(ret_why, size, "this build has no RDMA: configure it with librdmacm-dev and libibverbs-dev installed");
	return -ENOTSUP;
}

static int verbs_listen(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener)
{
	return -ENOTSUP;
}

static fiber_fn int verbs_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn)
{
	return -ENOTSUP;
}

/* Nothing else can be reached without a listener or a connection. */
const struct rnic_ops rnic_verbs_ops = {
	.available = verbs_available,
	.listen = verbs_listen,
	.resolve = verbs_resolve,
};

#else

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_verbs.h"

#define REPLY_MS_MAX	60000u
#define RNR_TIMER	12 /* 640 us, as InfiniBand counts */
#define LISTEN_AGAIN_US 1000000u

/* Owner: the app thread. */
static struct rdma_event_channel *channel;
static struct watch channel_watch;
static atomic_uint nr_users, nr_listeners;

static int verbs_available(char *ret_why, size_t size)
{
	struct rdma_event_channel *test;
	int nr = 0;
	struct ibv_device **list = ibv_get_device_list(&nr);

	if (list)
		ibv_free_device_list(list);
	if (!list || !nr) {
		snprintf(ret_why, size,
			 "there is no RDMA device: load its driver and ib_uverbs, or make a software one (modprobe rdma_rxe; "
			 "rdma link add rxe0 type rxe netdev eth0)");
		return -ENODEV;
	}
	test = rdma_create_event_channel();
	if (!test) {
		snprintf(ret_why, size, "the RDMA connection manager does not answer (%s): modprobe rdma_ucm, and see who may open "
					"/dev/infiniband/rdma_cm", strerror(errno));
		return -ENODEV;
	}
	rdma_destroy_event_channel(test);
	return 0;
}

/* --- addresses ------------------------------------------------------------------------------------------------------------------------ */

static int addr_to_sockaddr(const struct stream_addr *addr, struct sockaddr_storage *ret_sa)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret_sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_sa;

	memset(ret_sa, 0, sizeof(*ret_sa));
	ret_sa->ss_family = (sa_family_t)addr->family;
	if (addr->family == AF_INET) {
		in->sin_port = htons(addr->port);
		return inet_pton(AF_INET, addr->host, &in->sin_addr) == 1 ? 0 : -EINVAL;
	}
	in6->sin6_port = htons(addr->port);
	return addr->family == AF_INET6 && inet_pton(AF_INET6, addr->host, &in6->sin6_addr) == 1 ? 0 : -EINVAL;
}

static void addr_from_sockaddr(const struct sockaddr *sa, struct stream_addr *addr)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;

	*addr = (struct stream_addr){ .family = sa->sa_family == AF_INET6 ? AF_INET6 : AF_INET };
	if (addr->family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, addr->host, sizeof(addr->host));
		addr->port = ntohs(in6->sin6_port);
	} else {
		inet_ntop(AF_INET, &in->sin_addr, addr->host, sizeof(addr->host));
		addr->port = ntohs(in->sin_port);
	}
}

static void verbs_local_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	addr_from_sockaddr(rdma_get_local_addr(to_verbs(conn)->id), ret_addr);
}

static void verbs_peer_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	addr_from_sockaddr(rdma_get_peer_addr(to_verbs(conn)->id), ret_addr);
}

/* --- connection management ---------------------------------------------------------------------------------------------------------- */

static void cm_ready(void *arg);

static int cm_start(void *arg)
{
	struct list *it;

	if (!channel) {
		channel = rdma_create_event_channel();
		if (!channel)
			return -errno;
		if (verbs_set_nonblocking(channel->fd)) {
			rdma_destroy_event_channel(channel);
			channel = NULL;
			return -EIO;
		}
		channel_watch = (struct watch){ .fd = channel->fd, .ready = cm_ready };
	}
	atomic_fetch_add(&nr_users, 1);
	/* Begun again while it is being stopped: it then goes on. */
	channel_watch.stopping = false;
	if (!channel_watch.on)
		verbs_watch_begin(&channel_watch);
	list_for_each (it, &verbs_devices) {
		struct verbs_device *device = list_entry(it, struct verbs_device, link);

		if (device->closing)
			continue;
		device->watch.stopping = false;
		if (!device->watch.on)
			verbs_watch_begin(&device->watch);
	}
	return 0;
}

static void cm_maybe_stop(void *arg)
{
	struct list *it;

	if (atomic_load(&nr_users) || !channel_watch.on || channel_watch.stopping)
		return;
	verbs_watch_stop(&channel_watch);
	list_for_each (it, &verbs_devices) {
		struct watch *watch = &list_entry(it, struct verbs_device, link)->watch;

		if (watch->on)
			verbs_watch_stop(watch);
	}
}

static void user_gone(void)
{
	if (atomic_fetch_sub(&nr_users, 1) == 1)
		thread_send(runtime_app_thread(), cm_maybe_stop, NULL);
}

/* From here on it keeps the device from being closed, until its identifier is destroyed. */
static void conn_set_device(struct verbs_conn *conn, struct rnic_device *device)
{
	conn->conn.device = device;
	if (device)
		verbs_device_use(device_of(device));
}

static void conn_free(struct rnic_conn *base)
{
	free(to_verbs(base));
	user_gone();
}

static struct verbs_conn *conn_new(struct rdma_cm_id *id, struct rnic_device *device)
{
	struct verbs_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	rnic_conn_init(&conn->conn, device, conn_free);
	conn_set_device(conn, device);
	conn->id = id;
	if (id)
		id->context = &conn->kind;
	return conn;
}

bool verbs_serves(void)
{
	return atomic_load(&nr_listeners) > 0;
}

static void params_of(const struct rdma_conn_param *from, struct rnic_params *params)
{
	memset(params, 0, sizeof(*params));
	params->reads = from->initiator_depth;
	params->peer_reads = from->responder_resources;
	params->private_len = from->private_data_len < RNIC_MAX_PRIVATE ? from->private_data_len : RNIC_MAX_PRIVATE;
	if (from->private_data)
		memcpy(params->private_data, from->private_data, params->private_len);
	else
		params->private_len = 0;
}

static void connect_request(struct verbs_listener *listener, struct rdma_cm_id *id, const struct rnic_params *params)
{
	struct rnic_device *device = verbs_device_get(id);
	struct verbs_conn *conn = device ? conn_new(id, device) : NULL;

	if (!conn) {
		rdma_reject(id, NULL, 0);
		rdma_destroy_id(id);
		return;
	}
	atomic_fetch_add(&nr_users, 1);
	listener->listener.request(listener->listener.arg, &conn->conn, params);
}

static void resolved(struct verbs_conn *conn, int rc)
{
	struct fiber_wait *wait = conn->resolve;

	conn->resolve = NULL;
	if (wait)
		fiber_wake(wait, rc);
}

static void addr_resolved(struct verbs_conn *conn)
{
	conn_set_device(conn, verbs_device_get(conn->id));
	if (!conn->conn.device)
		resolved(conn, -ENODEV);
	else if (rdma_resolve_route(conn->id, 5000))
		resolved(conn, -errno);
}

static void conn_event(struct verbs_conn *conn, const struct rdma_cm_event *from)
{
	struct rnic_event event = { .err = from->status > 0 ? -EIO : from->status };

	if (atomic_load(&conn->parked) && from->event != RDMA_CM_EVENT_DEVICE_REMOVAL)
		return;
	params_of(&from->param.conn, &event.params);
	switch (from->event) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		addr_resolved(conn);
		return;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		resolved(conn, 0);
		return;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		resolved(conn, from->status < 0 ? from->status : -EHOSTUNREACH);
		return;
	case RDMA_CM_EVENT_ESTABLISHED:
		event.type = RNIC_ESTABLISHED;
		break;
	case RDMA_CM_EVENT_REJECTED:
		event.type = RNIC_REJECTED;
		event.err = -ECONNREFUSED;
		break;
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		event.type = RNIC_UNREACHABLE;
		if (!event.err)
			event.err = -EHOSTUNREACH;
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_ADDR_CHANGE:
		event.type = RNIC_DISCONNECTED;
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		event.type = RNIC_REMOVED;
		if (conn->conn.device)
			verbs_device_removed(conn->conn.device);
		if (conn->resolve)
			resolved(conn, -ENODEV);
		if (atomic_load(&conn->parked))
			return;
		break;
	default:
		return;
	}
	rnic_conn_tell(&conn->conn, &event);
}

/* --- listeners ------------------------------------------------------------------------------------------------------------------- */

static int listener_open(struct verbs_listener *listener)
{
	struct sockaddr_storage sa;
	int on = 1, rc;

	rc = addr_to_sockaddr(&listener->addr, &sa);
	if (rc)
		return rc;
	if (rdma_create_id(channel, &listener->id, &listener->kind, RDMA_PS_TCP))
		return -errno;
	rdma_set_option(listener->id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, sizeof(on));
	if (listener->addr.family == AF_INET6)
		rdma_set_option(listener->id, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &on, sizeof(on));
	if (!rdma_bind_addr(listener->id, (struct sockaddr *)&sa) && !rdma_listen(listener->id, listener->backlog))
		return 0;
	rc = -errno;
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	return rc;
}

/* What it listens by, when its address is a device's; the pool is registered before the first host comes. */
static void listener_find_device(struct verbs_listener *listener)
{
	listener->listener.device = listener->id->verbs ? verbs_device_get(listener->id) : NULL;
}

static void listener_try(void *arg)
{
	struct verbs_listener *listener = arg;
	uint32_t lkey;

	if (listener_open(listener)) {
		timer_arm(&listener->timer, LISTEN_AGAIN_US);
		return;
	}
	listener_find_device(listener);
	if (listener->listener.device)
		rnic_pool_lkey(listener->listener.device, &lkey);
	log_notice("RDMA: listening on %s port %u again", listener->addr.host, listener->addr.port);
}

/* The device with its address goes away, and may come back. */
static void listener_lost(struct verbs_listener *listener)
{
	log_warning("RDMA: the device of %s is gone; listening again when it is back", listener->addr.host);
	if (listener->listener.device)
		verbs_device_removed(listener->listener.device);
	listener->listener.device = NULL;
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	timer_arm(&listener->timer, LISTEN_AGAIN_US);
}

/* Its address is at another device now, or another port of it; there nobody listens yet. */
static void listener_moved(struct verbs_listener *listener)
{
	log_notice("RDMA: the address %s has moved", listener->addr.host);
	listener->listener.device = NULL;
	rdma_destroy_id(listener->id);
	listener->id = NULL;
	listener_try(listener);
}

static void cm_ready(void *arg)
{
	struct rdma_cm_event *event;

	while (!rdma_get_cm_event(channel, &event)) {
		struct rdma_cm_id *id = event->id;
		struct verbs_listener *listener;
		struct rnic_params params;

		if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
			/* Acknowledged first: whoever refuses destroys it at once. */
			listener = container_of(event->listen_id->context, struct verbs_listener, kind);
			params_of(&event->param.conn, &params);
			rdma_ack_cm_event(event);
			connect_request(listener, id, &params);
			continue;
		}
		if (((struct verbs_id *)id->context)->listens) {
			enum rdma_cm_event_type type = event->event;

			listener = container_of(id->context, struct verbs_listener, kind);
			rdma_ack_cm_event(event);
			if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
				listener_lost(listener);
			else if (type == RDMA_CM_EVENT_ADDR_CHANGE)
				listener_moved(listener);
			continue;
		}
		conn_event(container_of(id->context, struct verbs_conn, kind), event);
		rdma_ack_cm_event(event);
	}
}

/* --- listeners and connections ---------------------------------------------------------------------------------------------------------- */

static int verbs_listen(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener)
{
	struct verbs_listener *listener;
	int rc;

	rc = cm_start(NULL);
	if (rc)
		return rc;
	listener = calloc(1, sizeof(*listener));
	if (!listener) {
		user_gone();
		return -ENOMEM;
	}
	listener->kind.listens = true;
	listener->addr = *addr;
	listener->backlog = backlog;
	timer_init(&listener->timer, listener_try, listener);
	rc = listener_open(listener);
	if (rc) {
		free(listener);
		user_gone();
		return rc;
	}
	listener_find_device(listener);
	atomic_fetch_add(&nr_listeners, 1);
	*ret_listener = &listener->listener;
	return 0;
}

static void verbs_listener_close(struct rnic_listener *base)
{
	struct verbs_listener *listener = container_of(base, struct verbs_listener, listener);

	atomic_fetch_sub(&nr_listeners, 1);
	timer_cancel(&listener->timer);
	/* Requests that are in the channel and not yet read go with it. */
	if (listener->id)
		rdma_destroy_id(listener->id);
	free(listener);
	user_gone();
}

static fiber_fn int verbs_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn)
{
	uint64_t timeout_ms = timeout_us / 1000;
	struct sockaddr_storage sa;
	struct verbs_conn *conn;
	struct fiber_wait wait;
	int rc;

	rc = addr_to_sockaddr(addr, &sa);
	if (!rc)
		rc = thread_call(runtime_app_thread(), cm_start, NULL);
	if (rc)
		return rc;
	conn = conn_new(NULL, NULL);
	if (!conn) {
		user_gone();
		return -ENOMEM;
	}
	conn->conn.thread = thread_current();
	fiber_wait_init(&wait);
	conn->resolve = &wait;
	if (rdma_create_id(channel, &conn->id, &conn->kind, RDMA_PS_TCP)) {
		rc = -errno;
		rnic_conn_put(&conn->conn);
		return rc;
	}
	if (rdma_resolve_addr(conn->id, NULL, (struct sockaddr *)&sa, timeout_ms < REPLY_MS_MAX ? (int)timeout_ms : (int)REPLY_MS_MAX))
		rc = -errno;
	else
		rc = fiber_wait(&wait);
	if (rc) {
		rnic_conn_destroy(&conn->conn);
		return rc;
	}
	*ret_conn = &conn->conn;
	return 0;
}

static int verbs_qp_create(struct rnic_conn *base, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num)
{
	struct verbs_conn *conn = to_verbs(base);
	struct verbs_device *device = device_of(base->device);
	struct ibv_cq *cq = container_of(opts->cq, struct verbs_cq, cq)->ibv;
	struct ibv_qp_init_attr attr = {
		.qp_context = base,
		.send_cq = cq,
		.recv_cq = cq,
		.srq = opts->srq ? ((struct verbs_srq *)opts->srq)->ibv : NULL,
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = opts->max_send,
			.max_recv_wr = opts->srq ? 0 : opts->max_recv,
			.max_send_sge = opts->max_send_sge,
			.max_recv_sge = opts->max_recv_sge,
		},
	};

	if (rdma_create_qp(conn->id, device->pd, &attr))
		return -errno;
	*ret_qp_num = conn->id->qp->qp_num;
	return 0;
}

static void verbs_qp_destroy(struct rnic_conn *base)
{
	struct verbs_conn *conn = to_verbs(base);

	if (conn->id && conn->id->qp)
		rdma_destroy_qp(conn->id);
}

static struct rdma_conn_param param_of(const struct rnic_params *params)
{
	return (struct rdma_conn_param){
		.private_data = params->private_data,
		.private_data_len = params->private_len,
		.responder_resources = params->peer_reads,
		.initiator_depth = params->reads,
		.flow_control = 1,
		.retry_count = 7,
		.rnr_retry_count = 7, /* for ever: who has no receive for us now has commands outstanding, and a keep alive */
	};
}

static int verbs_accept(struct rnic_conn *base, const struct rnic_params *params)
{
	struct ibv_qp_attr attr = { .min_rnr_timer = RNR_TIMER };
	struct rdma_conn_param param = param_of(params);
	struct rdma_cm_id *id = to_verbs(base)->id;

	if (rdma_accept(id, &param))
		return -errno;
	/* The connection manager leaves it at 0, by which a sender that found no receive waits 655 ms. */
	if (!base->device->info.iwarp && ibv_modify_qp(id->qp, &attr, IBV_QP_MIN_RNR_TIMER))
		log_debug("RDMA device %s: senders that find no receive wait long: %s", base->device->info.name, strerror(errno));
	return 0;
}

static void verbs_reject(struct rnic_conn *base, const void *private_data, uint8_t private_len)
{
	rdma_reject(to_verbs(base)->id, private_data, private_len);
}

static int verbs_connect(struct rnic_conn *base, const struct rnic_params *params)
{
	struct rdma_conn_param param = param_of(params);

	return rdma_connect(to_verbs(base)->id, &param) ? -errno : 0;
}

static void verbs_disconnect(struct rnic_conn *base)
{
	struct verbs_conn *conn = to_verbs(base);
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	conn->silent = verbs_must_keep_silent(conn);
	if (!conn->silent)
		rdma_disconnect(conn->id);
	/* Also when there was no connection to end, so that everything posted comes back. */
	if (conn->id->qp)
		ibv_modify_qp(conn->id->qp, &attr, IBV_QP_STATE);
}

void verbs_id_destroy(struct verbs_conn *conn)
{
	if (conn->id)
		rdma_destroy_id(conn->id);
	conn->id = NULL;
	if (conn->conn.device)
		verbs_device_unuse(device_of(conn->conn.device));
}

static void verbs_conn_destroy(struct rnic_conn *base)
{
	struct verbs_conn *conn = to_verbs(base);

	if (conn->silent)
		verbs_park(conn);
	else
		verbs_id_destroy(conn);
}

const struct rnic_ops rnic_verbs_ops = {
	.available = verbs_available,
	.mr_create = verbs_mr_create,
	.mr_free = verbs_mr_free,
	.window_create = verbs_window_create,
	.window_free = verbs_window_free,
	.cq_create = verbs_cq_create,
	.cq_start = verbs_cq_start,
	.cq_resize = verbs_cq_resize,
	.cq_destroy = verbs_cq_destroy,
	.cq_poll = verbs_cq_poll,
	.srq_create = verbs_srq_create,
	.srq_destroy = verbs_srq_destroy,
	.srq_post = verbs_srq_post,
	.listen = verbs_listen,
	.listener_close = verbs_listener_close,
	.resolve = verbs_resolve,
	.local_addr = verbs_local_addr,
	.peer_addr = verbs_peer_addr,
	.qp_create = verbs_qp_create,
	.qp_destroy = verbs_qp_destroy,
	.post_send = verbs_post_send,
	.post_recv = verbs_post_recv,
	.accept = verbs_accept,
	.reject = verbs_reject,
	.connect = verbs_connect,
	.disconnect = verbs_disconnect,
	.conn_destroy = verbs_conn_destroy,
};

#endif
