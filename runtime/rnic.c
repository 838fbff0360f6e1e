/*
 * RDMA's interface: passes calls on to librdmacm and libibverbs or to the simulated fabric, and brings events to the thread
 * that owns a connection.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/internal.h"
#include "runtime/rnic_internal.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const struct rnic_ops *ops(void)
{
	return sim_on ? &rnic_sim_ops : &rnic_verbs_ops;
}

int rnic_available(char *ret_why, size_t size)
{
	return ops()->available(ret_why, size);
}

const struct rnic_info *rnic_info(const struct rnic_device *device)
{
	return &device->info;
}

bool rnic_is_removed(const struct rnic_device *device)
{
	return atomic_load((atomic_bool *)(uintptr_t)&device->removed);
}

/* --- devices that go away ---------------------------------------------------------------------------------------------- */

struct rnic_watch {
	struct rnic_device *device;
	struct thread *thread;
	const struct rnic_watch_ops *ops;
	void *arg;
	struct list link; /* device->watches */
	bool told, destroyed;
	atomic_uint refs; /* the owner's, and the message's on its way */
};

void rnic_device_init(struct rnic_device *device)
{
	list_init(&device->watches);
}

static void watch_put(struct rnic_watch *watch)
{
	if (atomic_fetch_sub(&watch->refs, 1) == 1)
		free(watch);
}

static void removed_msg(void *arg)
{
	struct rnic_watch *watch = arg;

	if (!watch->destroyed)
		watch->ops->removed(watch->arg);
	watch_put(watch);
}

/* With the lock held. */
static void watch_tell(struct rnic_watch *watch)
{
	if (watch->told)
		return;
	watch->told = true;
	atomic_fetch_add(&watch->refs, 1);
	thread_send(watch->thread, removed_msg, watch);
}

void rnic_device_removed(struct rnic_device *device)
{
	struct list *it;

	pthread_mutex_lock(&lock);
	atomic_store(&device->removed, true);
	list_for_each (it, &device->watches)
		watch_tell(list_entry(it, struct rnic_watch, link));
	pthread_mutex_unlock(&lock);
}

struct broken_queue {
	struct rnic_watch *watch;
	const void *queue; /* compared only */
};

static void broken_msg(void *arg)
{
	struct broken_queue *broken = arg;
	struct rnic_watch *watch = broken->watch;

	if (!watch->destroyed)
		watch->ops->queue_broken(watch->arg, broken->queue);
	watch_put(watch);
	free(broken);
}

void rnic_queue_broken(struct rnic_device *device, const void *queue)
{
	struct list *it;

	log_error("RDMA device %s: a queue is in error", device->info.name);
	pthread_mutex_lock(&lock);
	list_for_each (it, &device->watches) {
		struct broken_queue *broken = malloc(sizeof(*broken));

		if (!broken) {
			log_warning("RDMA device %s: no memory to tell of it", device->info.name);
			break;
		}
		*broken = (struct broken_queue){ list_entry(it, struct rnic_watch, link), queue };
		atomic_fetch_add(&broken->watch->refs, 1);
		thread_send(broken->watch->thread, broken_msg, broken);
	}
	pthread_mutex_unlock(&lock);
}

int rnic_watch_create(struct rnic_device *device, const struct rnic_watch_ops *watch_ops, void *arg, struct rnic_watch **ret_watch)
{
	struct rnic_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return -ENOMEM;
	watch->device = device;
	watch->thread = thread_current();
	watch->ops = watch_ops;
	watch->arg = arg;
	atomic_init(&watch->refs, 1);
	pthread_mutex_lock(&lock);
	list_add_tail(&device->watches, &watch->link);
	if (rnic_is_removed(device))
		watch_tell(watch);
	pthread_mutex_unlock(&lock);
	*ret_watch = watch;
	return 0;
}

void rnic_watch_destroy(struct rnic_watch *watch)
{
	if (!watch)
		return;
	assert(watch->thread == thread_current());
	pthread_mutex_lock(&lock);
	list_del(&watch->link);
	pthread_mutex_unlock(&lock);
	watch->destroyed = true;
	watch_put(watch);
}

const char *rnic_status_name(uint8_t status)
{
	static const char *const names[] = {
		[RNIC_OK] = "success",
		[RNIC_FLUSHED] = "flushed",
		[RNIC_LOCAL_ERROR] = "an error of our own memory",
		[RNIC_REMOTE_ACCESS] = "the peer does not grant access to that memory",
		[RNIC_REMOTE_ERROR] = "the peer could not do it",
		[RNIC_RETRIES] = "the peer does not answer",
		[RNIC_NOT_READY] = "the peer has no receive for it",
		[RNIC_OTHER_ERROR] = "an error",
	};

	return status < sizeof(names) / sizeof(names[0]) ? names[status] : "an unknown error";
}

/* --- memory ------------------------------------------------------------------------------------------------------------ */

int rnic_mr_create(struct rnic_device *device, void *addr, size_t len, unsigned access, struct rnic_mr **ret_mr)
{
	return ops()->mr_create(device, addr, len, access, ret_mr);
}

void rnic_mr_free(struct rnic_mr *mr)
{
	if (mr)
		ops()->mr_free(mr);
}

uint32_t rnic_mr_lkey(const struct rnic_mr *mr)
{
	return mr->lkey;
}

uint32_t rnic_mr_rkey(const struct rnic_mr *mr)
{
	return mr->rkey;
}

int rnic_window_create(struct rnic_device *device, struct rnic_window **ret_window)
{
	return ops()->window_create(device, ret_window);
}

void rnic_window_free(struct rnic_window *window)
{
	if (window)
		ops()->window_free(window);
}

/* The low byte is the consumer's to choose. */
uint32_t rnic_window_next_key(struct rnic_window *window)
{
	window->key = (window->key & ~0xffu) | ((window->key + 1) & 0xffu);
	return window->key;
}

int rnic_pool_lkey(struct rnic_device *device, uint32_t *ret_lkey)
{
	size_t len;
	void *pool = iobuf_region(&len);
	int rc = 0;

	pthread_mutex_lock(&lock);
	if (!device->pool_mr)
		rc = rnic_mr_create(device, pool, len, RNIC_LOCAL_WRITE, &device->pool_mr);
	if (!rc)
		*ret_lkey = device->pool_mr->lkey;
	pthread_mutex_unlock(&lock);
	return rc;
}

void rnic_pool_forget(struct rnic_device *device)
{
	pthread_mutex_lock(&lock);
	rnic_mr_free(device->pool_mr);
	device->pool_mr = NULL;
	pthread_mutex_unlock(&lock);
}

/* --- queues ------------------------------------------------------------------------------------------------------------ */

int rnic_cq_create(struct rnic_device *device, uint32_t nr_entries, bool (*ready)(void *arg), void *arg,
		   struct rnic_cq **ret_cq)
{
	int rc = ops()->cq_create(device, nr_entries, ret_cq);

	if (rc)
		return rc;
	(*ret_cq)->ready = ready;
	(*ret_cq)->arg = arg;
	(*ret_cq)->thread = thread_current();
	rc = ops()->cq_start(*ret_cq);
	if (rc)
		ops()->cq_destroy(*ret_cq);
	return rc;
}

int rnic_cq_resize(struct rnic_cq *cq, uint32_t nr_entries)
{
	assert(cq->thread == thread_current());
	return ops()->cq_resize(cq, nr_entries);
}

void rnic_cq_destroy(struct rnic_cq *cq)
{
	assert(cq->thread == thread_current());
	ops()->cq_destroy(cq);
}

unsigned rnic_cq_poll(struct rnic_cq *cq, struct rnic_wc *wcs, unsigned max)
{
	return ops()->cq_poll(cq, wcs, max);
}

int rnic_srq_create(struct rnic_device *device, uint32_t nr_entries, uint32_t max_sge, struct rnic_srq **ret_srq)
{
	return ops()->srq_create(device, nr_entries, max_sge, ret_srq);
}

void rnic_srq_destroy(struct rnic_srq *srq)
{
	ops()->srq_destroy(srq);
}

int rnic_srq_post(struct rnic_srq *srq, struct rnic_recv *recv)
{
	return ops()->srq_post(srq, recv);
}

/* --- connections -------------------------------------------------------------------------------------------------------- */

/* A message on its way to the owner. */
struct tell {
	struct rnic_conn *conn;
	struct rnic_event event;
};

void rnic_conn_init(struct rnic_conn *conn, struct rnic_device *device, void (*free)(struct rnic_conn *conn))
{
	conn->device = device;
	conn->free = free;
	atomic_init(&conn->refs, 1);
}

void rnic_conn_put(struct rnic_conn *conn)
{
	if (atomic_fetch_sub(&conn->refs, 1) != 1)
		return;
	free(conn->early);
	conn->free(conn);
}

static void tell_msg(void *arg)
{
	struct tell *tell = arg;
	struct rnic_conn *conn = tell->conn;

	if (conn->destroyed) {
		free(tell);
	} else if (conn->event) {
		struct rnic_event event = tell->event;

		free(tell);
		conn->event(conn->arg, &event);
	} else if (!conn->early && (conn->early = malloc(sizeof(*conn->early)))) {
		*conn->early = tell->event;
		free(tell);
	} else {
		free(tell);
	}
	rnic_conn_put(conn);
}

void rnic_conn_tell(struct rnic_conn *conn, const struct rnic_event *event)
{
	struct tell *tell = conn->thread ? malloc(sizeof(*tell)) : NULL;

	if (!tell) {
		log_warning("an RDMA event of type %u is lost: %s", event->type, conn->thread ? "no memory" : "nobody owns it");
		return;
	}
	*tell = (struct tell){ conn, *event };
	atomic_fetch_add(&conn->refs, 1);
	thread_send(conn->thread, tell_msg, tell);
}

/* Registering the pool takes a while, which the first to connect need not wait for; and what forbids it is better known now. */
static int warm_up(struct rnic_listener *listener)
{
	uint32_t lkey;
	int rc = listener->device ? rnic_pool_lkey(listener->device, &lkey) : 0;

	if (rc) {
		log_error("RDMA device %s: the buffer pool cannot be registered: %s; see the limit on locked memory (ulimit -l)",
			  listener->device->info.name, strerror(-rc));
		rnic_listener_close(listener);
	}
	return rc;
}

int rnic_listen(const struct stream_addr *addr, int backlog, rnic_request_fn request, void *arg,
		struct rnic_listener **ret_listener)
{
	int rc;

	assert(thread_current() == runtime_app_thread());
	rc = ops()->listen(addr, backlog, ret_listener);
	if (rc)
		return rc;
	(*ret_listener)->request = request;
	(*ret_listener)->arg = arg;
	return warm_up(*ret_listener);
}

void rnic_listener_close(struct rnic_listener *listener)
{
	ops()->listener_close(listener);
}

fiber_fn int rnic_resolve(const struct stream_addr *addr, uint64_t timeout_us, struct rnic_conn **ret_conn)
{
	return ops()->resolve(addr, timeout_us, ret_conn);
}

void rnic_conn_give(struct rnic_conn *conn, struct thread *thread)
{
	conn->thread = thread;
}

void rnic_conn_attach(struct rnic_conn *conn, rnic_event_fn event, void *arg)
{
	assert(!conn->thread || conn->thread == thread_current());
	conn->thread = thread_current();
	conn->event = event;
	conn->arg = arg;
	if (conn->early) {
		rnic_conn_tell(conn, conn->early);
		free(conn->early);
		conn->early = NULL;
	}
}

struct rnic_device *rnic_conn_device(const struct rnic_conn *conn)
{
	return conn->device;
}

void rnic_conn_local_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	ops()->local_addr(conn, ret_addr);
}

void rnic_conn_peer_addr(const struct rnic_conn *conn, struct stream_addr *ret_addr)
{
	ops()->peer_addr(conn, ret_addr);
}

int rnic_qp_create(struct rnic_conn *conn, const struct rnic_qp_opts *opts, uint32_t *ret_qp_num)
{
	return ops()->qp_create(conn, opts, ret_qp_num);
}

void rnic_qp_destroy(struct rnic_conn *conn)
{
	ops()->qp_destroy(conn);
}

int rnic_post_send(struct rnic_conn *conn, struct rnic_send *send)
{
	return ops()->post_send(conn, send);
}

int rnic_post_recv(struct rnic_conn *conn, struct rnic_recv *recv)
{
	return ops()->post_recv(conn, recv);
}

int rnic_accept(struct rnic_conn *conn, const struct rnic_params *params)
{
	return ops()->accept(conn, params);
}

void rnic_reject(struct rnic_conn *conn, const void *private_data, uint8_t private_len)
{
	ops()->reject(conn, private_data, private_len);
}

int rnic_connect(struct rnic_conn *conn, const struct rnic_params *params)
{
	return ops()->connect(conn, params);
}

void rnic_disconnect(struct rnic_conn *conn)
{
	ops()->disconnect(conn);
}

void rnic_conn_destroy(struct rnic_conn *conn)
{
	conn->destroyed = true;
	ops()->qp_destroy(conn);
	ops()->conn_destroy(conn);
	rnic_conn_put(conn);
}
