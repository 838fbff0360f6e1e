/*
 * RDMA by librdmacm and libibverbs.
 *
 * One event channel of connection management and the asynchronous events of every device are watched on the app thread, for as
 * long as there is a listener or a connection; what they say goes to the connection's thread by message, before the event is
 * acknowledged, and destroying waits for the acknowledgement: so nobody is told of something he no longer has.
 * Completion queues are polled each turn, and before their reactor sleeps their channel is armed.
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
#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#define CHAIN_MAX    64u
#define POLL_MAX     32u
#define REPLY_MS_MAX 60000u

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
	struct watch watch;
};

struct verbs_mr {
	struct rnic_mr mr;
	struct ibv_mr *ibv;
};

struct verbs_cq {
	struct rnic_cq cq;
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
	struct rdma_cm_id *id;
};

struct verbs_conn {
	struct verbs_id kind;
	struct rnic_conn conn;
	struct rdma_cm_id *id;
	struct fiber_wait *resolve; /* until route and device are known */
};

/* Owner: the app thread. */
static struct rdma_event_channel *channel;
static struct watch channel_watch;
static struct list devices = LIST_INIT(devices);
static atomic_uint nr_users;

static struct verbs_conn *to_verbs(const struct rnic_conn *conn)
{
	return container_of((struct rnic_conn *)(uintptr_t)conn, struct verbs_conn, conn);
}

static struct verbs_device *device_of(const struct rnic_device *device)
{
	return container_of((struct rnic_device *)(uintptr_t)device, struct verbs_device, base);
}

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

/* --- descriptors that say something ---------------------------------------------------------------------------------------- */

static void watch_begin(struct watch *watch);

static void watch_done(struct ring_op *op, int res, bool more)
{
	struct watch *watch = container_of(op, struct watch, op);

	if (res >= 0 && !watch->stopping)
		watch->ready(watch->arg);
	if (more)
		return;
	watch->on = false;
	if (watch->stopping) {
		watch->stopping = false;
		if (watch->stopped)
			watch->stopped(watch->arg);
	} else {
		watch_begin(watch);
	}
}

static void watch_begin(struct watch *watch)
{
	watch->on = true;
	watch->op.done = watch_done;
	ring_poll(&watch->op, watch->fd, POLLIN, true);
}

/* stopped() comes later.  Begun again meanwhile, it goes on. */
static void watch_stop(struct watch *watch)
{
	watch->stopping = true;
	ring_poll_cancel(&watch->op);
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

/* --- devices ----------------------------------------------------------------------------------------------------------------- */

static void device_ready(void *arg)
{
	struct verbs_device *device = arg;
	struct ibv_async_event event;

	while (!ibv_get_async_event(device->context, &event)) {
		struct rnic_event tell = { .type = RNIC_BROKEN, .err = -EIO };

		switch (event.event_type) {
		case IBV_EVENT_QP_LAST_WQE_REACHED:
			tell.type = RNIC_RECVS_DRAINED;
			/* fall through */
		case IBV_EVENT_QP_FATAL:
		case IBV_EVENT_QP_REQ_ERR:
		case IBV_EVENT_QP_ACCESS_ERR:
			rnic_conn_tell(event.element.qp->qp_context, &tell);
			break;
		case IBV_EVENT_COMM_EST:
		case IBV_EVENT_SQ_DRAINED:
			break;
		case IBV_EVENT_DEVICE_FATAL:
			device->base.removed = true;
			/* fall through */
		default:
			log_notice("RDMA device %s: %s", device->base.info.name, ibv_event_type_str(event.event_type));
			break;
		}
		ibv_ack_async_event(&event);
	}
}

static uint8_t u8_of(int n)
{
	return n < 0 ? 0 : n > UINT8_MAX ? UINT8_MAX : (uint8_t)n;
}

static int device_query(struct verbs_device *device, uint8_t port)
{
	struct rnic_info *info = &device->base.info;
	struct ibv_device_attr attr;
	struct ibv_port_attr port_attr;

	if (ibv_query_device(device->context, &attr) || ibv_query_port(device->context, port, &port_attr))
		return -EIO;
	snprintf(info->name, sizeof(info->name), "%s", ibv_get_device_name(device->context->device));
	info->iwarp = device->context->device->transport_type == IBV_TRANSPORT_IWARP;
	info->max_wr = (uint32_t)attr.max_qp_wr;
	info->max_sge = (uint32_t)attr.max_sge < RNIC_MAX_SGE ? (uint32_t)attr.max_sge : RNIC_MAX_SGE;
	info->max_read_sge = attr.max_sge_rd < 1 ? 1 : (uint32_t)attr.max_sge_rd;
	if (info->max_read_sge > info->max_sge)
		info->max_read_sge = info->max_sge;
	info->max_cqe = (uint32_t)attr.max_cqe;
	info->max_srq_wr = attr.max_srq > 0 && attr.max_srq_sge >= 2 ? (uint32_t)attr.max_srq_wr : 0;
	info->max_message_bytes = port_attr.max_msg_sz;
	info->max_reads = u8_of(attr.max_qp_init_rd_atom);
	info->max_peer_reads = u8_of(attr.max_qp_rd_atom);
	return 0;
}

/* On the app thread; NULL: the device is no good. */
static struct rnic_device *device_get(struct rdma_cm_id *id)
{
	struct verbs_device *device;
	struct list *it;

	list_for_each (it, &devices) {
		device = list_entry(it, struct verbs_device, link);
		if (device->context == id->verbs && !device->base.removed)
			return &device->base;
	}
	device = calloc(1, sizeof(*device));
	if (!device)
		return NULL;
	device->context = id->verbs;
	device->pd = ibv_alloc_pd(id->verbs);
	if (!device->pd || device_query(device, id->port_num) || set_nonblocking(id->verbs->async_fd)) {
		log_warning("RDMA device %s cannot be used: %s", ibv_get_device_name(id->verbs->device), strerror(errno));
		if (device->pd)
			ibv_dealloc_pd(device->pd);
		free(device);
		return NULL;
	}
	device->watch = (struct watch){ .fd = id->verbs->async_fd, .ready = device_ready, .arg = device };
	watch_begin(&device->watch);
	list_add_tail(&devices, &device->link);
	log_notice("RDMA device %s%s: %u shared receives, %u places in a request, %u in an RDMA READ", device->base.info.name,
		   device->base.info.iwarp ? " (iWARP)" : "", device->base.info.max_srq_wr, device->base.info.max_sge,
		   device->base.info.max_read_sge);
	return &device->base;
}

static int verbs_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr)
{
	struct verbs_mr *mr = calloc(1, sizeof(*mr));
	int flags = (access & RNIC_LOCAL_WRITE ? IBV_ACCESS_LOCAL_WRITE : 0) | (access & RNIC_REMOTE_READ ? IBV_ACCESS_REMOTE_READ : 0) |
		    (access & RNIC_REMOTE_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0);

	if (!mr)
		return -ENOMEM;
	mr->ibv = ibv_reg_mr(device_of(device)->pd, addr, len, flags);
	if (!mr->ibv) {
		free(mr);
		return -errno;
	}
	mr->mr.lkey = mr->ibv->lkey;
	mr->mr.rkey = mr->ibv->rkey;
	*ret_mr = &mr->mr;
	return 0;
}

static void verbs_mr_free(struct rnic_mr *base)
{
	struct verbs_mr *mr = container_of(base, struct verbs_mr, mr);

	ibv_dereg_mr(mr->ibv);
	free(mr);
}

/* --- completion queues --------------------------------------------------------------------------------------------------------- */

static int verbs_cq_create(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq)
{
	struct ibv_context *context = device_of(device)->context;
	struct verbs_cq *cq = calloc(1, sizeof(*cq));
	int rc = -ENOMEM;

	if (!cq)
		return rc;
	cq->channel = ibv_create_comp_channel(context);
	if (!cq->channel) {
		rc = -errno;
		goto out_free;
	}
	rc = set_nonblocking(cq->channel->fd);
	if (rc)
		goto out_channel;
	cq->ibv = ibv_create_cq(context, (int)nr_entries, cq, cq->channel, 0);
	if (!cq->ibv) {
		rc = -errno;
		goto out_channel;
	}
	*ret_cq = &cq->cq;
	return 0;

out_channel:
	ibv_destroy_comp_channel(cq->channel);
out_free:
	free(cq);
	return rc;
}

static void cq_signalled(void *arg)
{
	struct verbs_cq *cq = arg;
	struct ibv_cq *ibv;
	void *context;

	while (!ibv_get_cq_event(cq->channel, &ibv, &context)) {
		ibv_ack_cq_events(ibv, 1);
		cq->armed = false;
	}
}

static enum poll_result cq_turn(void *arg)
{
	struct verbs_cq *cq = arg;

	return cq->cq.ready(cq->cq.arg) ? POLL_BUSY : POLL_IDLE;
}

/* What completed between the last poll and the arming is found by one more. */
static bool cq_arm(void *arg)
{
	struct verbs_cq *cq = arg;

	if (!cq->armed && ibv_req_notify_cq(cq->ibv, 0))
		return false;
	cq->armed = true;
	return !cq->cq.ready(cq->cq.arg);
}

static void cq_free(void *arg)
{
	struct verbs_cq *cq = arg;

	if (ibv_destroy_cq(cq->ibv))
		log_error("a completion queue cannot be destroyed: something on it is left");
	ibv_destroy_comp_channel(cq->channel);
	free(cq);
}

static int verbs_cq_start(struct rnic_cq *base)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);

	cq->poller = poller_start("rdma_cq", cq_turn, cq, 0);
	if (!cq->poller)
		return -ENOMEM;
	poller_set_wake(cq->poller, cq_arm);
	cq->watch = (struct watch){ .fd = cq->channel->fd, .ready = cq_signalled, .stopped = cq_free, .arg = cq };
	watch_begin(&cq->watch);
	return 0;
}

static void verbs_cq_destroy(struct rnic_cq *base)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);

	if (!cq->poller) {
		cq_free(cq);
		return;
	}
	poller_stop(cq->poller);
	watch_stop(&cq->watch);
}

static uint8_t status_of(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return RNIC_OK;
	case IBV_WC_WR_FLUSH_ERR:
		return RNIC_FLUSHED;
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
	case IBV_WC_LOC_QP_OP_ERR:
		return RNIC_LOCAL_ERROR;
	case IBV_WC_REM_ACCESS_ERR:
		return RNIC_REMOTE_ACCESS;
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_OP_ERR:
	case IBV_WC_REM_ABORT_ERR:
		return RNIC_REMOTE_ERROR;
	case IBV_WC_RETRY_EXC_ERR:
		return RNIC_RETRIES;
	case IBV_WC_RNR_RETRY_EXC_ERR:
		return RNIC_NOT_READY;
	default:
		return RNIC_OTHER_ERROR;
	}
}

static unsigned verbs_cq_poll(struct rnic_cq *base, struct rnic_wc *wcs, unsigned max)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);
	struct ibv_wc got[POLL_MAX];
	int nr = ibv_poll_cq(cq->ibv, max < POLL_MAX ? (int)max : (int)POLL_MAX, got);

	for (int i = 0; i < nr; i++) {
		bool invalidated = got[i].status == IBV_WC_SUCCESS && got[i].wc_flags & IBV_WC_WITH_INV;

		wcs[i] = (struct rnic_wc){
			.id = got[i].wr_id,
			.qp_num = got[i].qp_num,
			.len = got[i].byte_len,
			.key = invalidated ? got[i].invalidated_rkey : 0,
			.status = status_of(got[i].status),
			.invalidated = invalidated,
		};
	}
	return nr > 0 ? (unsigned)nr : 0;
}

/* --- posting -------------------------------------------------------------------------------------------------------------------- */

static unsigned convert_recvs(struct rnic_recv **recv, struct ibv_recv_wr *wrs)
{
	unsigned nr = 0;

	for (; *recv && nr < CHAIN_MAX; *recv = (*recv)->next, nr++) {
		wrs[nr] = (struct ibv_recv_wr){ .wr_id = (*recv)->id, .sg_list = (struct ibv_sge *)(*recv)->sge, .num_sge = (*recv)->nr_sge };
		if (nr)
			wrs[nr - 1].next = &wrs[nr];
	}
	return nr;
}

static int verbs_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq)
{
	struct ibv_srq_init_attr attr = { .attr = { .max_wr = nr_entries, .max_sge = max_sge } };
	struct ibv_srq *srq = ibv_create_srq(device_of(device)->pd, &attr);

	if (!srq)
		return -errno;
	*ret_srq = (struct rnic_srq *)srq;
	return 0;
}

static void verbs_srq_destroy(struct rnic_srq *srq)
{
	if (ibv_destroy_srq((struct ibv_srq *)srq))
		log_error("a shared receive queue cannot be destroyed: a queue pair on it is left");
}

static int verbs_srq_post(struct rnic_srq *srq, struct rnic_recv *recv)
{
	struct ibv_recv_wr wrs[CHAIN_MAX], *bad;
	int rc = 0;

	while (!rc && convert_recvs(&recv, wrs))
		rc = ibv_post_srq_recv((struct ibv_srq *)srq, wrs, &bad);
	return -rc;
}

static int verbs_post_recv(struct rnic_conn *conn, struct rnic_recv *recv)
{
	struct ibv_recv_wr wrs[CHAIN_MAX], *bad;
	int rc = 0;

	while (!rc && convert_recvs(&recv, wrs))
		rc = ibv_post_recv(to_verbs(conn)->id->qp, wrs, &bad);
	return -rc;
}

static void convert_send(const struct rnic_send *send, struct ibv_send_wr *wr)
{
	static const enum ibv_wr_opcode opcodes[] = {
		[RNIC_SEND] = IBV_WR_SEND,
		[RNIC_SEND_INVALIDATE] = IBV_WR_SEND_WITH_INV,
		[RNIC_WRITE] = IBV_WR_RDMA_WRITE,
		[RNIC_READ] = IBV_WR_RDMA_READ,
	};

	*wr = (struct ibv_send_wr){
		.wr_id = send->id,
		.sg_list = (struct ibv_sge *)send->sge,
		.num_sge = send->nr_sge,
		.opcode = opcodes[send->op],
		.send_flags = send->signaled ? IBV_SEND_SIGNALED : 0,
	};
	if (send->op == RNIC_SEND_INVALIDATE) {
		wr->invalidate_rkey = send->remote_key;
	} else if (send->op != RNIC_SEND) {
		wr->wr.rdma.remote_addr = send->remote_addr;
		wr->wr.rdma.rkey = send->remote_key;
	}
}

static int verbs_post_send(struct rnic_conn *conn, struct rnic_send *send)
{
	struct ibv_send_wr wrs[CHAIN_MAX], *bad;
	int rc = 0;

	while (send && !rc) {
		unsigned nr = 0;

		for (; send && nr < CHAIN_MAX; send = send->next, nr++) {
			convert_send(send, &wrs[nr]);
			if (nr)
				wrs[nr - 1].next = &wrs[nr];
		}
		rc = ibv_post_send(to_verbs(conn)->id->qp, wrs, &bad);
	}
	return -rc;
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
		if (set_nonblocking(channel->fd)) {
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
		watch_begin(&channel_watch);
	list_for_each (it, &devices) {
		struct watch *watch = &list_entry(it, struct verbs_device, link)->watch;

		watch->stopping = false;
		if (!watch->on)
			watch_begin(watch);
	}
	return 0;
}

static void cm_maybe_stop(void *arg)
{
	struct list *it;

	if (atomic_load(&nr_users) || !channel_watch.on || channel_watch.stopping)
		return;
	watch_stop(&channel_watch);
	list_for_each (it, &devices) {
		struct watch *watch = &list_entry(it, struct verbs_device, link)->watch;

		if (watch->on)
			watch_stop(watch);
	}
}

static void user_gone(void)
{
	if (atomic_fetch_sub(&nr_users, 1) == 1)
		thread_send(runtime_app_thread(), cm_maybe_stop, NULL);
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
	conn->id = id;
	if (id)
		id->context = &conn->kind;
	return conn;
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
	struct rnic_device *device = device_get(id);
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
	conn->conn.device = device_get(conn->id);
	if (!conn->conn.device)
		resolved(conn, -ENODEV);
	else if (rdma_resolve_route(conn->id, 5000))
		resolved(conn, -errno);
}

static void conn_event(struct verbs_conn *conn, const struct rdma_cm_event *from)
{
	struct rnic_event event = { .err = from->status > 0 ? -EIO : from->status };

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
			conn->conn.device->removed = true;
		if (conn->resolve)
			resolved(conn, -ENODEV);
		break;
	default:
		return;
	}
	rnic_conn_tell(&conn->conn, &event);
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
		if (((struct verbs_id *)id->context)->listens)
			log_notice("an RDMA listener: %s", rdma_event_str(event->event));
		else
			conn_event(container_of(id->context, struct verbs_conn, kind), event);
		rdma_ack_cm_event(event);
	}
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

/* --- listeners and connections ---------------------------------------------------------------------------------------------------------- */

static int verbs_listen(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener)
{
	struct verbs_listener *listener;
	struct sockaddr_storage sa;
	int on = 1, rc;

	rc = addr_to_sockaddr(addr, &sa);
	if (rc)
		return rc;
	rc = cm_start(NULL);
	if (rc)
		return rc;
	listener = calloc(1, sizeof(*listener));
	if (!listener) {
		rc = -ENOMEM;
		goto out_user;
	}
	listener->kind.listens = true;
	if (rdma_create_id(channel, &listener->id, &listener->kind, RDMA_PS_TCP)) {
		rc = -errno;
		goto out_free;
	}
	rdma_set_option(listener->id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, sizeof(on));
	if (addr->family == AF_INET6)
		rdma_set_option(listener->id, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &on, sizeof(on));
	if (rdma_bind_addr(listener->id, (struct sockaddr *)&sa) || rdma_listen(listener->id, backlog)) {
		rc = -errno;
		rdma_destroy_id(listener->id);
		goto out_free;
	}
	*ret_listener = &listener->listener;
	return 0;

out_free:
	free(listener);
out_user:
	user_gone();
	return rc;
}

static void verbs_listener_close(struct rnic_listener *base)
{
	struct verbs_listener *listener = container_of(base, struct verbs_listener, listener);

	/* Requests that are in the channel and not yet read go with it. */
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
		.srq = (struct ibv_srq *)opts->srq,
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
	struct rdma_conn_param param = param_of(params);

	return rdma_accept(to_verbs(base)->id, &param) ? -errno : 0;
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

	rdma_disconnect(conn->id);
	/* Also when there was no connection to end, so that everything posted comes back. */
	if (conn->id->qp)
		ibv_modify_qp(conn->id->qp, &attr, IBV_QP_STATE);
}

static void verbs_conn_destroy(struct rnic_conn *base)
{
	struct verbs_conn *conn = to_verbs(base);

	if (conn->id)
		rdma_destroy_id(conn->id);
	conn->id = NULL;
}

const struct rnic_ops rnic_verbs_ops = {
	.available = verbs_available,
	.mr_create = verbs_mr_create,
	.mr_free = verbs_mr_free,
	.cq_create = verbs_cq_create,
	.cq_start = verbs_cq_start,
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
