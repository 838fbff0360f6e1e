/*
 * The simulated RDMA fabric: two devices, queue pairs joined in pairs, and connection management, in virtual time.
 *
 * A queue pair executes the head of its send queue in an event of the simulation's outside, then the next after another
 * delay.  An error completes the piece of work, flushes the rest and leaves the queue pair in error, as the verbs have it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/internal.h"
#include "runtime/rnic_internal.h"
#include "runtime/rnic_sim.h"

#define NO_ANSWER_US   20000u /* until a piece of work that nobody answers fails */
#define NOT_READY_US   100u
#define CM_TIMEOUT_US  1000000u
#define FIRST_PORT     40000u

struct sim_device {
	struct rnic_device base;
};

struct sim_mr {
	struct rnic_mr mr;
	struct list link;
	struct rnic_device *device;
	uint8_t *addr;
	size_t len;
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
	struct rnic_wc *ring;
	uint32_t size, head, nr;
	bool told, destroyed;
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
	unsigned nr_reads;
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

static struct sim_device devices[2];
static struct list mrs = LIST_INIT(mrs), conns = LIST_INIT(conns), listeners = LIST_INIT(listeners), cms = LIST_INIT(cms);
static struct rnic_sim_stats stats;
static uint32_t next_key, next_qp_num;
static uint16_t next_port;
static bool no_devices;
static unsigned nr_qp_create_fails;

static struct sim_conn *to_sim(const struct rnic_conn *conn)
{
	return container_of((struct rnic_conn *)(uintptr_t)conn, struct sim_conn, conn);
}

static uint64_t delay_us(void)
{
	return 1 + sim_rand() % (sim_options()->max_delay_us + 1);
}

static void devices_init(void)
{
	if (devices[0].base.info.max_wr)
		return;
	devices[0].base.info = (struct rnic_info){ .name = "sim0", .windows = true, .max_wr = 4096, .max_sge = 16, .max_read_sge = 16, .max_cqe = 65536,
						   .max_srq_wr = 4096, .max_message_bytes = 1u << 30, .max_reads = 16, .max_peer_reads = 16 };
	devices[1].base.info = (struct rnic_info){ .name = "sim1", .iwarp = true, .max_wr = 1024, .max_sge = 6, .max_read_sge = 1,
						   .max_cqe = 65536, .max_message_bytes = 96 * 1024, .max_reads = 4, .max_peer_reads = 4 };
}

static struct rnic_device *device_of(const struct stream_addr *addr)
{
	struct sim_device *device = &devices[addr->family == AF_INET6];

	devices_init();
	return no_devices || device->base.removed ? NULL : &device->base;
}

static int sim_available(char *ret_why, size_t size)
{
	if (!no_devices)
		return 0;
	snprintf(ret_why, size, "there is no RDMA device: add one (rdma link add) or load its driver");
	return -ENODEV;
}

/* --- memory ------------------------------------------------------------------------------------------------------------ */

static int sim_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr)
{
	struct sim_mr *mr = calloc(1, sizeof(*mr));

	if (!mr)
		return -ENOMEM;
	next_key += 0x101;
	*mr = (struct sim_mr){ .mr = { next_key, next_key }, .device = device, .addr = addr, .len = len, .access = access, .valid = true };
	list_add_tail(&mrs, &mr->link);
	stats.nr_mrs++;
	*ret_mr = &mr->mr;
	return 0;
}

static void sim_mr_free(struct rnic_mr *base)
{
	struct sim_mr *mr = container_of(base, struct sim_mr, mr);

	list_del(&mr->link);
	stats.nr_mrs--;
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
	next_key = (next_key + 0x200) & ~0xffu;
	window->window.key = window->mr->lkey = window->mr->rkey = next_key;
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

static struct sim_mr *mr_find(const struct rnic_device *device, uint32_t key)
{
	struct list *it;

	list_for_each(it, &mrs) {
		struct sim_mr *mr = list_entry(it, struct sim_mr, link);

		if (mr->device == device && mr->mr.lkey == key)
			return mr;
	}
	return NULL;
}

static bool may(const struct rnic_device *device, uint32_t key, uint64_t addr, uint64_t len, unsigned access)
{
	const struct sim_mr *mr = mr_find(device, key);
	uint64_t base = mr ? (uintptr_t)mr->addr : 0;

	return mr && mr->valid && (mr->access & access) == access && addr >= base && addr - base <= mr->len &&
	       len <= mr->len - (addr - base);
}

static bool sges_are_good(const struct sim_conn *conn, const struct sim_work *work, unsigned access)
{
	for (unsigned i = 0; i < work->send.nr_sge; i++) {
		if (!may(conn->conn.device, work->sge[i].lkey, work->sge[i].addr, work->sge[i].len, access))
			return false;
	}
	return true;
}

static uint64_t work_len(const struct sim_work *work)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < work->send.nr_sge; i++)
		len += work->sge[i].len;
	return len;
}

/* Between a flat piece of memory and the places of a piece of work. */
static void copy(const struct sim_work *work, uint8_t *flat, uint64_t len, bool gather)
{
	for (unsigned i = 0; i < work->send.nr_sge && len; i++) {
		uint32_t n = work->sge[i].len < len ? work->sge[i].len : (uint32_t)len;
		void *at = (void *)(uintptr_t)work->sge[i].addr;

		if (gather)
			memcpy(flat, at, n);
		else
			memcpy(at, flat, n);
		flat += n;
		len -= n;
	}
}

/* --- completion queues --------------------------------------------------------------------------------------------------- */

static int sim_cq_create(struct rnic_device *device, uint32_t nr_entries, struct rnic_cq **ret_cq)
{
	struct sim_cq *cq = calloc(1, sizeof(*cq));

	if (cq)
		cq->ring = calloc(nr_entries, sizeof(*cq->ring));
	if (!cq || !cq->ring) {
		free(cq);
		return -ENOMEM;
	}
	cq->size = nr_entries;
	stats.nr_cqs++;
	*ret_cq = &cq->cq;
	return 0;
}

static enum poll_result nothing_to_do(void *arg)
{
	return POLL_IDLE;
}

static int sim_cq_start(struct rnic_cq *base)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);

	cq->poller = poller_start("rdma_cq", nothing_to_do, cq, 0);
	return cq->poller ? 0 : -ENOMEM;
}

static void cq_free(struct sim_cq *cq)
{
	free(cq->ring);
	free(cq);
}

static void sim_cq_destroy(struct rnic_cq *base)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);

	stats.nr_cqs--;
	poller_stop(cq->poller);
	cq->destroyed = true;
	if (!cq->told)
		cq_free(cq);
}

static void ready_msg(void *arg)
{
	struct sim_cq *cq = arg;

	cq->told = false;
	if (cq->destroyed)
		cq_free(cq);
	else
		cq->cq.ready(cq->cq.arg);
}

static unsigned sim_cq_poll(struct rnic_cq *base, struct rnic_wc *wcs, unsigned max)
{
	struct sim_cq *cq = container_of(base, struct sim_cq, cq);
	unsigned n = 0;

	while (n < max && cq->nr) {
		wcs[n++] = cq->ring[cq->head++ % cq->size];
		cq->nr--;
	}
	return n;
}

static void cq_add(struct sim_conn *conn, const struct rnic_wc *wc)
{
	struct sim_cq *cq = container_of(conn->opts.cq, struct sim_cq, cq);
	struct rnic_wc *at = &cq->ring[(cq->head + cq->nr) % cq->size];

	assert(cq->nr < cq->size); /* an overrun: nothing would save a device either */
	*at = *wc;
	at->qp_num = conn->qp_num;
	cq->nr++;
	if (cq->told)
		return;
	cq->told = true;
	thread_send(cq->cq.thread, ready_msg, cq);
}

/* --- posting --------------------------------------------------------------------------------------------------------------- */

static struct sim_work *work_of_recv(const struct rnic_recv *recv)
{
	struct sim_work *work = calloc(1, sizeof(*work));

	if (!work)
		return NULL;
	assert(recv->nr_sge <= RNIC_MAX_SGE);
	work->send.id = recv->id;
	work->send.nr_sge = recv->nr_sge;
	memcpy(work->sge, recv->sge, recv->nr_sge * sizeof(work->sge[0]));
	return work;
}

static int sim_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq)
{
	struct sim_srq *srq = calloc(1, sizeof(*srq));

	if (!srq)
		return -ENOMEM;
	assert(nr_entries <= device->info.max_srq_wr && max_sge <= device->info.max_sge);
	fifo_init(&srq->recvs);
	srq->size = nr_entries;
	stats.nr_srqs++;
	*ret_srq = (struct rnic_srq *)srq;
	return 0;
}

static void works_free(struct fifo *works)
{
	struct fifo_link *link;

	while ((link = fifo_pop(works)))
		free(container_of(link, struct sim_work, link));
}

static void sim_srq_destroy(struct rnic_srq *base)
{
	struct sim_srq *srq = (struct sim_srq *)base;

	works_free(&srq->recvs);
	stats.nr_srqs--;
	free(srq);
}

static int sim_srq_post(struct rnic_srq *base, struct rnic_recv *recv)
{
	struct sim_srq *srq = (struct sim_srq *)base;

	for (; recv; recv = recv->next) {
		struct sim_work *work = work_of_recv(recv);

		if (!work || srq->nr == srq->size) {
			free(work);
			return -ENOMEM;
		}
		fifo_push(&srq->recvs, &work->link);
		srq->nr++;
	}
	return 0;
}

static void flush_recvs(struct sim_conn *conn)
{
	struct fifo_link *link;

	while ((link = fifo_pop(&conn->recvs))) {
		struct sim_work *work = container_of(link, struct sim_work, link);

		conn->nr_recvs--;
		cq_add(conn, &(struct rnic_wc){ .id = work->send.id, .status = RNIC_FLUSHED });
		free(work);
	}
}

static int sim_post_recv(struct rnic_conn *base, struct rnic_recv *recv)
{
	struct sim_conn *conn = to_sim(base);

	assert(conn->has_qp && !conn->opts.srq);
	for (; recv; recv = recv->next) {
		struct sim_work *work = work_of_recv(recv);

		if (!work || conn->nr_recvs == conn->opts.max_recv) {
			free(work);
			return -ENOMEM;
		}
		fifo_push(&conn->recvs, &work->link);
		conn->nr_recvs++;
	}
	if (conn->error)
		flush_recvs(conn);
	return 0;
}

/* Its room comes back only when it is told, or one behind it. */
static void send_done(struct sim_conn *conn, enum rnic_status status)
{
	struct sim_work *work = container_of(fifo_pop(&conn->sends), struct sim_work, link);

	if (work->send.op == RNIC_READ)
		conn->nr_reads--;
	conn->nr_covered++;
	if (work->send.signaled || status != RNIC_OK) {
		conn->nr_sends -= conn->nr_covered;
		conn->nr_covered = 0;
		cq_add(conn, &(struct rnic_wc){ .id = work->send.id, .status = (uint8_t)status });
	}
	free(work);
}

static void flush(struct sim_conn *conn)
{
	while (!fifo_empty(&conn->sends))
		send_done(conn, RNIC_FLUSHED);
	flush_recvs(conn);
}

static void cm_send(struct sim_conn *to, enum sim_cm_op op, const struct rnic_event *tell, uint64_t delay);

static void qp_fail(struct sim_conn *conn, bool tell)
{
	if (!conn->has_qp || conn->error)
		return;
	conn->error = true;
	sim_event_clear(&conn->step);
	flush(conn);
	if (tell)
		cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_BROKEN }, 0);
	if (conn->opts.srq)
		cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_RECVS_DRAINED }, delay_us());
}

/* The head of the send queue ends so, and with it the queue pair. */
static void send_failed(struct sim_conn *conn, enum rnic_status status)
{
	send_done(conn, status);
	qp_fail(conn, false);
}

static void step(void *arg);

static void step_later(struct sim_conn *conn, uint64_t after_us)
{
	if (!fifo_empty(&conn->sends) && !conn->error)
		sim_event_set(&conn->step, clock_now_us() + after_us, step, conn);
}

/* --- execution -------------------------------------------------------------------------------------------------------------- */

static struct sim_work *take_recv(struct sim_conn *conn)
{
	struct sim_srq *srq = (struct sim_srq *)conn->opts.srq;
	struct fifo_link *link = fifo_pop(srq ? &srq->recvs : &conn->recvs);

	if (!link)
		return NULL;
	if (srq)
		srq->nr--;
	else
		conn->nr_recvs--;
	return container_of(link, struct sim_work, link);
}

/* False: it was no success, and all about it is done. */
static bool execute_send(struct sim_conn *conn, struct sim_work *work)
{
	struct sim_conn *peer = conn->peer;
	uint64_t len = work_len(work);
	struct rnic_wc wc = { .len = (uint32_t)len };
	struct sim_work *recv;
	uint8_t *flat;

	if (!sges_are_good(conn, work, 0)) {
		send_failed(conn, RNIC_LOCAL_ERROR);
		return false;
	}
	if (work->send.op == RNIC_SEND_INVALIDATE) {
		struct sim_mr *mr = mr_find(peer->conn.device, work->send.remote_key);

		if (!mr || !mr->valid) {
			send_failed(conn, RNIC_REMOTE_ACCESS);
			qp_fail(peer, true);
			return false;
		}
	}
	recv = take_recv(peer);
	if (!recv) {
		stats.nr_not_ready++;
		step_later(conn, NOT_READY_US);
		return false;
	}
	wc.id = recv->send.id;
	if (len > work_len(recv) || !sges_are_good(peer, recv, RNIC_LOCAL_WRITE)) {
		free(recv);
		wc.status = RNIC_LOCAL_ERROR;
		cq_add(peer, &wc);
		send_failed(conn, RNIC_REMOTE_ERROR);
		qp_fail(peer, true);
		return false;
	}
	flat = malloc(len + 1);
	assert(flat);
	copy(work, flat, len, true);
	copy(recv, flat, len, false);
	free(flat);
	free(recv);
	if (work->send.op == RNIC_SEND_INVALIDATE) {
		wc.invalidated = true;
		wc.key = work->send.remote_key;
		mr_find(peer->conn.device, wc.key)->valid = false;
		stats.nr_invalidated++;
	}
	stats.nr_sends++;
	cq_add(peer, &wc);
	return true;
}

static bool execute_rdma(struct sim_conn *conn, struct sim_work *work)
{
	bool read = work->send.op == RNIC_READ;
	struct sim_conn *peer = conn->peer;
	uint8_t *remote = (uint8_t *)(uintptr_t)work->send.remote_addr;
	uint64_t len = work_len(work);
	unsigned sink = RNIC_LOCAL_WRITE | (conn->conn.device->info.iwarp ? RNIC_REMOTE_WRITE : 0);

	if (!sges_are_good(conn, work, read ? sink : 0)) {
		send_failed(conn, RNIC_LOCAL_ERROR);
		return false;
	}
	if (!may(peer->conn.device, work->send.remote_key, work->send.remote_addr, len, read ? RNIC_REMOTE_READ : RNIC_REMOTE_WRITE)) {
		send_failed(conn, RNIC_REMOTE_ACCESS);
		qp_fail(peer, true);
		return false;
	}
	copy(work, remote, len, !read);
	if (read)
		stats.nr_reads++;
	else
		stats.nr_writes++;
	return true;
}

/* False: it was no success, and all about it is done. */
static bool execute_local(struct sim_conn *conn, struct sim_work *work)
{
	const struct rnic_send *send = &work->send;
	struct sim_mr *mr;

	if (send->op == RNIC_INVALIDATE) {
		mr = mr_find(conn->conn.device, send->remote_key);
		if (!mr || !mr->valid) {
			send_failed(conn, RNIC_LOCAL_ERROR);
			return false;
		}
		mr->valid = false;
		return true;
	}
	mr = container_of(container_of(send->window, struct sim_window, window)->mr, struct sim_mr, mr);
	if (mr->valid || mr->mr.lkey == send->remote_key || (mr->mr.lkey ^ send->remote_key) >> 8 ||
	    !may(conn->conn.device, send->mr->lkey, work->sge[0].addr, work->sge[0].len, RNIC_WINDOWS)) {
		send_failed(conn, RNIC_LOCAL_ERROR);
		return false;
	}
	mr->mr.lkey = mr->mr.rkey = send->remote_key;
	mr->addr = (uint8_t *)(uintptr_t)work->sge[0].addr;
	mr->len = work->sge[0].len;
	mr->access = send->access;
	mr->valid = true;
	return true;
}

static void step(void *arg)
{
	struct sim_conn *conn = arg;
	struct sim_work *work = container_of(conn->sends.head, struct sim_work, link);
	bool good;

	if (work->executed) {
		send_done(conn, RNIC_OK);
		step_later(conn, delay_us());
		return;
	}
	if (conn->fail_next) {
		enum rnic_status status = conn->fail_next;

		conn->fail_next = RNIC_OK;
		send_failed(conn, status);
		return;
	}
	if (work->send.op == RNIC_BIND || work->send.op == RNIC_INVALIDATE) {
		if (execute_local(conn, work)) {
			send_done(conn, RNIC_OK);
			step_later(conn, 1);
		}
		return;
	}
	if (conn->cut || !conn->peer || !conn->peer->has_qp || conn->peer->error) {
		send_failed(conn, RNIC_RETRIES);
		return;
	}
	if (work->send.op == RNIC_SEND || work->send.op == RNIC_SEND_INVALIDATE)
		good = execute_send(conn, work);
	else
		good = execute_rdma(conn, work);
	if (!good)
		return;
	/* The peer may act on it before the acknowledgement is back. */
	work->executed = true;
	step_later(conn, sim_rand() % 3 ? 1 : delay_us());
}

static bool nobody_answers(const struct sim_conn *conn)
{
	return conn->cut || !conn->peer || !conn->peer->has_qp || conn->peer->error;
}

static int sim_post_send(struct rnic_conn *base, struct rnic_send *send)
{
	struct sim_conn *conn = to_sim(base);
	bool idle = fifo_empty(&conn->sends);

	assert(conn->has_qp);
	for (; send; send = send->next) {
		const struct rnic_info *info = &base->device->info;
		struct sim_work *work;

		assert(send->nr_sge <= (send->op == RNIC_READ ? info->max_read_sge : conn->opts.max_send_sge));
		if (conn->nr_sends == conn->opts.max_send || !(work = calloc(1, sizeof(*work))))
			return -ENOMEM;
		work->send = *send;
		memcpy(work->sge, send->sge, send->nr_sge * sizeof(work->sge[0]));
		assert(work_len(work) <= info->max_message_bytes);
		fifo_push(&conn->sends, &work->link);
		conn->nr_sends++;
		if (send->op == RNIC_READ && ++conn->nr_reads > stats.max_reads)
			stats.max_reads = conn->nr_reads;
	}
	if (conn->error)
		flush(conn);
	else if (idle)
		step_later(conn, nobody_answers(conn) ? NO_ANSWER_US : delay_us());
	return 0;
}

/* --- connection management ---------------------------------------------------------------------------------------------------- */

static void conn_free(struct rnic_conn *base)
{
	stats.nr_conns--;
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
	list_add_tail(&conns, &conn->link);
	stats.nr_conns++;
	return conn;
}

static struct sim_listener *listener_find(const struct stream_addr *addr)
{
	struct list *it;

	list_for_each(it, &listeners) {
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
	cm_send(conn, CM_TELL, &event, delay_us());
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
	cm_send(client->peer, CM_TELL, &(struct rnic_event){ .type = RNIC_ESTABLISHED }, delay_us());
	rnic_conn_tell(&client->conn, tell);
}

static void cm_free(struct sim_cm *cm)
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
	cm_free(cm);
}

static void cm_send(struct sim_conn *to, enum sim_cm_op op, const struct rnic_event *tell, uint64_t delay)
{
	struct sim_cm *cm = calloc(1, sizeof(*cm));

	assert(cm);
	cm->op = op;
	cm->conn = to;
	if (tell)
		cm->tell = *tell;
	atomic_fetch_add(&to->conn.refs, 1);
	list_add_tail(&cms, &cm->link);
	sim_event_set(&cm->event, clock_now_us() + delay, cm_arrives, cm);
}

static int sim_listen(const struct stream_addr *addr, int backlog, struct rnic_listener **ret_listener)
{
	struct sim_listener *listener;

	if (!device_of(addr))
		return -ENODEV;
	if (listener_find(addr))
		return -EADDRINUSE;
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return -ENOMEM;
	listener->addr = *addr;
	listener->refs = 1;
	listener->listener.device = device_of(addr);
	list_add_tail(&listeners, &listener->link);
	*ret_listener = &listener->listener;
	return 0;
}

static void sim_listener_close(struct rnic_listener *base)
{
	struct sim_listener *listener = container_of(base, struct sim_listener, listener);

	list_del(&listener->link);
	listener->closed = true;
	listener_put(listener);
}

static fiber_fn int sim_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn)
{
	struct rnic_device *device = device_of(addr);
	struct sim_conn *conn;

	fiber_sleep(delay_us());
	if (!device)
		return -ENODEV;
	conn = conn_new(device);
	if (!conn)
		return -ENOMEM;
	conn->conn.thread = thread_current();
	conn->active = true;
	conn->remote = *addr;
	conn->local = *addr;
	conn->local.port = next_port++;
	*ret_conn = &conn->conn;
	return 0;
}

static void sim_local_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	*ret_addr = to_sim(conn)->local;
}

static void sim_peer_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	*ret_addr = to_sim(conn)->remote;
}

static int sim_qp_create(struct rnic_conn *base, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num)
{
	struct sim_conn *conn = to_sim(base);
	const struct rnic_info *info = &base->device->info;

	if (nr_qp_create_fails) {
		nr_qp_create_fails--;
		return -ENOMEM;
	}
	if (opts->max_send > info->max_wr || opts->max_recv > info->max_wr || opts->max_send_sge > info->max_sge ||
	    opts->max_recv_sge > info->max_sge)
		return -EINVAL;
	conn->opts = *opts;
	conn->has_qp = true;
	conn->qp_num = next_qp_num++;
	stats.nr_qps++;
	*ret_qp_num = conn->qp_num;
	return 0;
}

static void sim_qp_destroy(struct rnic_conn *base)
{
	struct sim_conn *conn = to_sim(base);

	if (!conn->has_qp)
		return;
	conn->has_qp = false;
	stats.nr_qps--;
	sim_event_clear(&conn->step);
	works_free(&conn->sends);
	works_free(&conn->recvs);
}

static int sim_accept(struct rnic_conn *base, const struct rnic_params *params)
{
	struct sim_conn *conn = to_sim(base);
	struct rnic_event event = { .type = RNIC_ESTABLISHED, .params = *params };

	assert(conn->state == SIM_ASKED && conn->has_qp);
	assert(params->reads <= conn->asked.reads && params->peer_reads <= conn->asked.peer_reads);
	if (!conn->peer) {
		cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_UNREACHABLE, .err = -ETIMEDOUT }, CM_TIMEOUT_US);
		return 0;
	}
	conn->state = SIM_UP;
	event.params.reads = params->peer_reads;
	event.params.peer_reads = params->reads;
	cm_send(conn->peer, CM_ACCEPTED, &event, delay_us());
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

static void sim_reject(struct rnic_conn *base, const void *private_data, uint8_t private_len)
{
	struct sim_conn *client = part(to_sim(base));

	to_sim(base)->state = SIM_DOWN;
	if (client)
		tell_rejected(client, private_data, private_len, -ECONNREFUSED);
}

static int sim_connect(struct rnic_conn *base, const struct rnic_params *params)
{
	struct sim_conn *conn = to_sim(base);

	conn->state = SIM_ASKED;
	conn->asked = *params;
	cm_send(conn, CM_REQUEST, NULL, delay_us());
	return 0;
}

static void sim_disconnect(struct rnic_conn *base)
{
	struct sim_conn *conn = to_sim(base);
	static const struct rnic_event event = { .type = RNIC_DISCONNECTED };

	if (conn->state == SIM_UP) {
		if (conn->peer && conn->peer->state == SIM_UP && !conn->cut)
			cm_send(conn->peer, CM_TELL, &event, delay_us());
		cm_send(conn, CM_TELL, &event, conn->cut ? CM_TIMEOUT_US : 2 * delay_us());
		conn->state = SIM_DOWN;
	}
	qp_fail(conn, false);
}

static void sim_conn_destroy(struct rnic_conn *base)
{
	struct sim_conn *conn = to_sim(base);
	enum sim_state state = conn->state;
	struct sim_conn *peer = part(conn);

	conn->state = SIM_DOWN;
	if (!peer || conn->cut)
		return;
	if (peer->state == SIM_UP && state == SIM_UP)
		cm_send(peer, CM_TELL, &(struct rnic_event){ .type = RNIC_DISCONNECTED }, delay_us());
	else if (peer->active && peer->state == SIM_ASKED)
		tell_rejected(peer, NULL, 0, -ECONNRESET);
	else if (!peer->active && peer->state == SIM_UP)
		cm_send(peer, CM_TELL, &(struct rnic_event){ .type = RNIC_UNREACHABLE, .err = -ETIMEDOUT }, CM_TIMEOUT_US);
}

const struct rnic_ops rnic_sim_ops = {
	.available = sim_available,
	.mr_create = sim_mr_create,
	.mr_free = sim_mr_free,
	.window_create = sim_window_create,
	.window_free = sim_window_free,
	.cq_create = sim_cq_create,
	.cq_start = sim_cq_start,
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
	return &stats;
}

void rnic_sim_no_devices(void)
{
	no_devices = true;
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
	qp_fail(to_sim(conn), true);
}

struct rnic_conn *rnic_sim_peer(struct rnic_conn *conn)
{
	struct sim_conn *peer = to_sim(conn)->peer;

	return peer ? &peer->conn : NULL;
}

void rnic_sim_each(void (*fn)(struct rnic_conn *conn))
{
	struct list *it;

	list_for_each(it, &conns) {
		struct sim_conn *conn = list_entry(it, struct sim_conn, link);

		if (conn->state == SIM_UP && !conn->conn.destroyed)
			fn(&conn->conn);
	}
}

void rnic_sim_fail_qp_create(unsigned nr)
{
	nr_qp_create_fails = nr;
}

void rnic_sim_remove(int family)
{
	struct sim_device *device = &devices[family == AF_INET6];
	struct list *it;

	device->base.removed = true;
	list_for_each(it, &conns) {
		struct sim_conn *conn = list_entry(it, struct sim_conn, link);

		if (conn->conn.device != &device->base || conn->conn.destroyed)
			continue;
		qp_fail(conn, false);
		cm_send(conn, CM_TELL, &(struct rnic_event){ .type = RNIC_REMOVED }, delay_us());
	}
}

void rnic_sim_reset(void)
{
	struct list *link;

	while ((link = list_first(&cms)))
		cm_free(list_entry(link, struct sim_cm, link));
	for (unsigned i = 0; i < 2; i++) {
		if (devices[i].base.pool_mr)
			sim_mr_free(devices[i].base.pool_mr);
		devices[i] = (struct sim_device){ 0 };
	}
	while ((link = list_first(&listeners)))
		sim_listener_close(&list_entry(link, struct sim_listener, link)->listener);
	stats = (struct rnic_sim_stats){ 0 };
	next_key = 0x1000;
	next_qp_num = 17;
	next_port = FIRST_PORT;
	no_devices = false;
	nr_qp_create_fails = 0;
}
