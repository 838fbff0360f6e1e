/*
 * Pool buffers for a request's data: one small one up to 8 KiB, else as many large ones as it takes.
 *
 * A request that holds some of its large buffers while it waits for the rest could deadlock with others that
 * do the same, so in each group one request at a time takes large buffers, in order of arrival.
 */
#include <stdatomic.h>

#include "nvmf/internal.h"

/* Groups whose taker waits for the pool.  Any thread. */
static atomic_uint nr_starved;

static void set_taker(struct nvmf_group *group, struct nvmf_req *req)
{
	if (req && !group->large_taker)
		atomic_fetch_add(&nr_starved, 1);
	else if (!req && group->large_taker)
		atomic_fetch_sub(&nr_starved, 1);
	group->large_taker = req;
}

bool nvmf_buffers_short(void)
{
	return atomic_load_explicit(&nr_starved, memory_order_relaxed) > 0;
}

static void iov_fill(struct nvmf_req *req)
{
	uint32_t size = req->iobuf_class == IOBUF_SMALL ? IOBUF_SMALL_SIZE : IOBUF_LARGE_SIZE;
	uint32_t left = req->len;

	for (unsigned i = 0; i < req->nr_iobufs; i++) {
		req->iov[i].iov_len = left < size ? left : size;
		left -= req->iov[i].iov_len;
	}
	req->iovcnt = req->nr_iobufs;
}

static void small_ready(struct iobuf_wait *wait, void *buf)
{
	struct nvmf_req *req = container_of(wait, struct nvmf_req, buffer_wait);

	req->iov[0].iov_base = buf;
	req->nr_iobufs = 1;
	iov_fill(req);
	nvmf_req_buffers_ready(req);
}

static bool large_take(struct nvmf_req *req);

/* The next in the queue has its turn. */
static void large_turn(struct nvmf_group *group)
{
	struct list *it;

	while (!group->large_taker && (it = list_pop(&group->large_waiters))) {
		struct nvmf_req *req = list_entry(it, struct nvmf_req, wait_link);

		if (large_take(req))
			nvmf_req_buffers_ready(req);
	}
}

static void large_ready(struct iobuf_wait *wait, void *buf)
{
	struct nvmf_req *req = container_of(wait, struct nvmf_req, buffer_wait);
	struct nvmf_group *group = req->qpair->group;

	req->iov[req->nr_iobufs++].iov_base = buf;
	set_taker(group, NULL);
	if (!large_take(req))
		return;
	nvmf_req_buffers_ready(req);
	large_turn(group);
}

/* Has its turn: takes what it needs.  False: the pool is dry, and it stays the taker until large_ready(). */
static bool large_take(struct nvmf_req *req)
{
	unsigned nr = (req->len + IOBUF_LARGE_SIZE - 1) / IOBUF_LARGE_SIZE;

	while (req->nr_iobufs < nr) {
		void *buf;

		req->buffer_wait.ready = large_ready;
		buf = iobuf_get(IOBUF_LARGE, &req->buffer_wait);
		if (!buf) {
			set_taker(req->qpair->group, req);
			return false;
		}
		req->iov[req->nr_iobufs++].iov_base = buf;
	}
	iov_fill(req);
	return true;
}

bool nvmf_buffers_get(struct nvmf_req *req)
{
	struct nvmf_group *group = req->qpair->group;
	void *buf;

	req->nr_iobufs = 0;
	if (req->len <= IOBUF_SMALL_SIZE) {
		req->iobuf_class = IOBUF_SMALL;
		req->buffer_wait.ready = small_ready;
		buf = iobuf_get(IOBUF_SMALL, &req->buffer_wait);
		if (!buf)
			return false;
		req->iov[0].iov_base = buf;
		req->nr_iobufs = 1;
		iov_fill(req);
		return true;
	}
	req->iobuf_class = IOBUF_LARGE;
	if (group->large_taker || !list_empty(&group->large_waiters)) {
		list_add_tail(&group->large_waiters, &req->wait_link);
		return false;
	}
	return large_take(req);
}

void nvmf_buffers_put(struct nvmf_req *req)
{
	while (req->nr_iobufs)
		iobuf_put(req->iobuf_class, req->iov[--req->nr_iobufs].iov_base);
}

/* Takes a waiting request out of every queue; what it had goes back. */
bool nvmf_buffers_cancel(struct nvmf_req *req)
{
	struct nvmf_group *group = req->qpair->group;

	if (req->state != NVMF_REQ_NEED_BUFFER)
		return false;
	list_del(&req->wait_link);
	iobuf_wait_cancel(&req->buffer_wait);
	nvmf_buffers_put(req);
	if (group->large_taker == req) {
		set_taker(group, NULL);
		large_turn(group);
	}
	return true;
}
