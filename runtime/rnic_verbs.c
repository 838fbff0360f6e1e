/*
 * RDMA by libibverbs: devices and their asynchronous events, registered memory, completion queues, posting.
 *
 * A device's events are watched on the app thread, for as long as rnic_verbs_cm.c has a listener or a connection; they go to the
 * connection's thread by message before they are acknowledged, and destroying a queue pair waits for the acknowledgement.
 * A device that was taken away is closed when the last that was made on it is gone; until then some drivers do not let it go.
 * Completion queues are polled each turn, and before their reactor sleeps their channel is armed.
 */
#include "config.h"

#ifdef HAVE_RDMA

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_verbs.h"

#define CHAIN_MAX 64u
#define POLL_MAX  32u

#define SOFT_ROCE_VENDOR	0xffffffu
#define SOFT_ROCE_WITH_INVALIDATE (1u << 2) /* the kernel's number for it, which that driver hands out as it is */

struct list verbs_devices = LIST_INIT(verbs_devices);

/* --- descriptors that say something ---------------------------------------------------------------------------------------- */

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
		verbs_watch_begin(watch);
	}
}

void verbs_watch_begin(struct watch *watch)
{
	watch->on = true;
	watch->op.done = watch_done;
	ring_poll(&watch->op, watch->fd, POLLIN, true);
}

/* stopped() comes later.  Begun again meanwhile, it goes on. */
void verbs_watch_stop(struct watch *watch)
{
	if (watch->stopping)
		return;
	watch->stopping = true;
	ring_poll_cancel(&watch->op);
}

int verbs_set_nonblocking(int fd)
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
		case IBV_EVENT_CQ_ERR:
			rnic_queue_broken(&device->base, &((struct verbs_cq *)event.element.cq->cq_context)->cq);
			break;
		case IBV_EVENT_SRQ_ERR:
			rnic_queue_broken(&device->base, event.element.srq->srq_context);
			break;
		case IBV_EVENT_DEVICE_FATAL:
			verbs_device_removed(&device->base);
			/* fall through */
		default:
			log_notice("RDMA device %s: %s", device->base.info.name, ibv_event_type_str(event.event_type));
			break;
		}
		ibv_ack_async_event(&event);
	}
}

/* librdmacm looks for the devices that are gone only when it is asked for a list. */
static void forget_gone_devices(void)
{
	struct ibv_context **list = rdma_get_devices(NULL);

	if (list)
		rdma_free_devices(list);
}

static void device_close(void *arg)
{
	struct verbs_device *device = arg;

	log_notice("RDMA device %s is closed", device->base.info.name);
	ibv_dealloc_pd(device->pd);
	list_del(&device->link);
	free(device);
	forget_gone_devices();
}

static bool is_unused(struct verbs_device *device)
{
	return atomic_load(&device->users) == (device->base.pool_mr ? 1u : 0u);
}

/* Messages may find it closed already: they name no device. */
static void close_gone_devices(void *arg)
{
	struct list *it, *next;

	for (it = verbs_devices.next; it != &verbs_devices; it = next) {
		struct verbs_device *device = list_entry(it, struct verbs_device, link);

		next = it->next;
		if (!rnic_is_removed(&device->base) || device->closing || !is_unused(device))
			continue;
		device->closing = true;
		rnic_pool_forget(&device->base);
		device->watch.stopped = device_close;
		if (device->watch.on)
			verbs_watch_stop(&device->watch);
		else
			device_close(device);
	}
}

void verbs_device_use(struct verbs_device *device)
{
	atomic_fetch_add(&device->users, 1);
}

void verbs_device_unuse(struct verbs_device *device)
{
	if (atomic_fetch_sub(&device->users, 1) <= 2 && rnic_is_removed(&device->base))
		thread_send(runtime_app_thread(), close_gone_devices, NULL);
}

void verbs_device_removed(struct rnic_device *base)
{
	if (!rnic_is_removed(base))
		log_warning("RDMA device %s is taken away", base->info.name);
	rnic_device_removed(base);
	thread_send(runtime_app_thread(), close_gone_devices, NULL);
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
	device->port = port;
	device->soft_roce = attr.vendor_id == SOFT_ROCE_VENDOR;
	device->invalidated_flags = IBV_WC_WITH_INV | (device->soft_roce ? SOFT_ROCE_WITH_INVALIDATE : 0);
	info->windows = attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B && attr.max_mw > 0;
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
struct rnic_device *verbs_device_get(struct rdma_cm_id *id)
{
	struct verbs_device *device;
	struct list *it;

	list_for_each (it, &verbs_devices) {
		device = list_entry(it, struct verbs_device, link);
		if (device->context == id->verbs && !device->base.removed)
			return &device->base;
	}
	device = calloc(1, sizeof(*device));
	if (!device)
		return NULL;
	rnic_device_init(&device->base);
	verbs_park_init(device);
	device->context = id->verbs;
	device->pd = ibv_alloc_pd(id->verbs);
	if (!device->pd || device_query(device, id->port_num) || verbs_set_nonblocking(id->verbs->async_fd)) {
		log_warning("RDMA device %s cannot be used: %s", ibv_get_device_name(id->verbs->device), strerror(errno));
		if (device->pd)
			ibv_dealloc_pd(device->pd);
		free(device);
		return NULL;
	}
	device->watch = (struct watch){ .fd = id->verbs->async_fd, .ready = device_ready, .arg = device };
	verbs_watch_begin(&device->watch);
	list_add_tail(&verbs_devices, &device->link);
	log_notice("RDMA device %s%s: %u shared receives, %u places in a request, %u in an RDMA READ", device->base.info.name,
		   device->base.info.iwarp ? " (iWARP)" : "", device->base.info.max_srq_wr, device->base.info.max_sge,
		   device->base.info.max_read_sge);
	return &device->base;
}

int verbs_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr)
{
	struct verbs_mr *mr = calloc(1, sizeof(*mr));
	int flags = (access & RNIC_LOCAL_WRITE ? IBV_ACCESS_LOCAL_WRITE : 0) | (access & RNIC_REMOTE_READ ? IBV_ACCESS_REMOTE_READ : 0) |
		    (access & RNIC_REMOTE_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0) | (access & RNIC_WINDOWS ? IBV_ACCESS_MW_BIND : 0);

	if (!mr)
		return -ENOMEM;
	mr->ibv = ibv_reg_mr(device_of(device)->pd, addr, len, flags);
	if (!mr->ibv) {
		free(mr);
		return -errno;
	}
	mr->device = device_of(device);
	verbs_device_use(mr->device);
	mr->mr.lkey = mr->ibv->lkey;
	mr->mr.rkey = mr->ibv->rkey;
	*ret_mr = &mr->mr;
	return 0;
}

void verbs_mr_free(struct rnic_mr *base)
{
	struct verbs_mr *mr = container_of(base, struct verbs_mr, mr);

	ibv_dereg_mr(mr->ibv);
	verbs_device_unuse(mr->device);
	free(mr);
}

int verbs_window_create(struct rnic_device *device, struct rnic_window **ret_window)
{
	struct verbs_window *window = calloc(1, sizeof(*window));

	if (!window)
		return -ENOMEM;
	window->ibv = ibv_alloc_mw(device_of(device)->pd, IBV_MW_TYPE_2);
	if (!window->ibv) {
		free(window);
		return -errno;
	}
	window->device = device_of(device);
	verbs_device_use(window->device);
	window->window.key = window->ibv->rkey;
	*ret_window = &window->window;
	return 0;
}

void verbs_window_free(struct rnic_window *base)
{
	struct verbs_window *window = container_of(base, struct verbs_window, window);

	ibv_dealloc_mw(window->ibv);
	verbs_device_unuse(window->device);
	free(window);
}

/* --- completion queues --------------------------------------------------------------------------------------------------------- */

int verbs_cq_create(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq)
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
	rc = verbs_set_nonblocking(cq->channel->fd);
	if (rc)
		goto out_channel;
	cq->ibv = ibv_create_cq(context, (int)nr_entries, cq, cq->channel, 0);
	if (!cq->ibv) {
		rc = -errno;
		goto out_channel;
	}
	cq->device = device_of(device);
	verbs_device_use(cq->device);
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
	verbs_device_unuse(cq->device);
	free(cq);
}

int verbs_cq_start(struct rnic_cq *base)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);

	cq->poller = poller_start("rdma_cq", cq_turn, cq, 0);
	if (!cq->poller)
		return -ENOMEM;
	poller_set_wake(cq->poller, cq_arm);
	cq->watch = (struct watch){ .fd = cq->channel->fd, .ready = cq_signalled, .stopped = cq_free, .arg = cq };
	verbs_watch_begin(&cq->watch);
	return 0;
}

int verbs_cq_resize(struct rnic_cq *base, uint32_t nr_entries)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);
	int rc = ibv_resize_cq(cq->ibv, (int)nr_entries);

	cq->armed = false; /* whether it still is, drivers need not say */
	if (rc < 0)
		rc = errno;
	/* The library says ENOSYS or EOPNOTSUPP by its age, kernel and provider either. */
	return rc == ENOSYS || rc == EOPNOTSUPP ? -ENOTSUP : -rc;
}

void verbs_cq_destroy(struct rnic_cq *base)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);

	if (!cq->poller) {
		cq_free(cq);
		return;
	}
	poller_stop(cq->poller);
	verbs_watch_stop(&cq->watch);
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

unsigned verbs_cq_poll(struct rnic_cq *base, struct rnic_wc *wcs, unsigned max)
{
	struct verbs_cq *cq = container_of(base, struct verbs_cq, cq);
	struct ibv_wc got[POLL_MAX];
	int nr = ibv_poll_cq(cq->ibv, max < POLL_MAX ? (int)max : (int)POLL_MAX, got);

	for (int i = 0; i < nr; i++) {
		bool invalidated = got[i].status == IBV_WC_SUCCESS && got[i].wc_flags & cq->device->invalidated_flags;

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

int verbs_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq)
{
	struct ibv_srq_init_attr attr = { .attr = { .max_wr = nr_entries, .max_sge = max_sge } };
	struct verbs_srq *srq = calloc(1, sizeof(*srq));

	if (!srq)
		return -ENOMEM;
	srq->ibv = ibv_create_srq(device_of(device)->pd, &attr);
	if (!srq->ibv) {
		int rc = -errno;

		free(srq);
		return rc;
	}
	srq->ibv->srq_context = srq;
	srq->device = device_of(device);
	verbs_device_use(srq->device);
	*ret_srq = (struct rnic_srq *)srq;
	return 0;
}

void verbs_srq_destroy(struct rnic_srq *base)
{
	struct verbs_srq *srq = (struct verbs_srq *)base;

	if (ibv_destroy_srq(srq->ibv))
		log_error("a shared receive queue cannot be destroyed: a queue pair on it is left");
	verbs_device_unuse(srq->device);
	free(srq);
}

int verbs_srq_post(struct rnic_srq *srq, struct rnic_recv *recv)
{
	struct ibv_recv_wr wrs[CHAIN_MAX], *bad;
	int rc = 0;

	while (!rc && convert_recvs(&recv, wrs))
		rc = ibv_post_srq_recv(((struct verbs_srq *)srq)->ibv, wrs, &bad);
	return -rc;
}

int verbs_post_recv(struct rnic_conn *conn, struct rnic_recv *recv)
{
	struct ibv_recv_wr wrs[CHAIN_MAX], *bad;
	int rc = 0;

	while (!rc && convert_recvs(&recv, wrs))
		rc = ibv_post_recv(to_verbs(conn)->id->qp, wrs, &bad);
	return -rc;
}

/* The library finds a window by the key it has: what was posted counts. */
static void keys_posted(const struct rnic_send *send, const struct rnic_send *end)
{
	for (; send != end; send = send->next) {
		if (send->op == RNIC_BIND)
			container_of(send->window, struct verbs_window, window)->ibv->rkey = send->remote_key;
	}
}

static void convert_send(const struct rnic_send *send, struct ibv_send_wr *wr)
{
	static const enum ibv_wr_opcode opcodes[] = {
		[RNIC_SEND] = IBV_WR_SEND,
		[RNIC_SEND_INVALIDATE] = IBV_WR_SEND_WITH_INV,
		[RNIC_WRITE] = IBV_WR_RDMA_WRITE,
		[RNIC_READ] = IBV_WR_RDMA_READ,
		[RNIC_BIND] = IBV_WR_BIND_MW,
		[RNIC_INVALIDATE] = IBV_WR_LOCAL_INV,
	};

	*wr = (struct ibv_send_wr){
		.wr_id = send->id,
		.sg_list = (struct ibv_sge *)send->sge,
		.num_sge = send->nr_sge,
		.opcode = opcodes[send->op],
		.send_flags = send->signaled ? IBV_SEND_SIGNALED : 0,
	};
	if (send->op == RNIC_BIND) {
		wr->sg_list = NULL;
		wr->num_sge = 0;
		wr->bind_mw.mw = container_of(send->window, struct verbs_window, window)->ibv;
		wr->bind_mw.rkey = send->remote_key;
		wr->bind_mw.bind_info = (struct ibv_mw_bind_info){
			.mr = container_of(send->mr, struct verbs_mr, mr)->ibv,
			.addr = send->sge[0].addr,
			.length = send->sge[0].len,
			.mw_access_flags = (send->access & RNIC_REMOTE_READ ? IBV_ACCESS_REMOTE_READ : 0) |
					   (send->access & RNIC_REMOTE_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0),
		};
	} else if (send->op == RNIC_SEND_INVALIDATE || send->op == RNIC_INVALIDATE) {
		wr->invalidate_rkey = send->remote_key;
		wr->wr.rdma.rkey = send->remote_key; /* where soft-iWARP's provider looks for it */
	} else if (send->op != RNIC_SEND) {
		wr->wr.rdma.remote_addr = send->remote_addr;
		wr->wr.rdma.rkey = send->remote_key;
	}
}

int verbs_post_send(struct rnic_conn *conn, struct rnic_send *send)
{
	struct ibv_send_wr wrs[CHAIN_MAX], *bad;
	int rc = 0;

	while (send && !rc) {
		const struct rnic_send *first = send;
		unsigned nr = 0;

		for (; send && nr < CHAIN_MAX; send = send->next, nr++) {
			convert_send(send, &wrs[nr]);
			if (nr)
				wrs[nr - 1].next = &wrs[nr];
		}
		rc = ibv_post_send(to_verbs(conn)->id->qp, wrs, &bad);
		keys_posted(first, send);
	}
	return -rc;
}

#endif
