/*
 * The registered memory of a queue over RDMA.
 *
 * The caller's data may lie anywhere, and what is registered must not go away behind a device's back: so data passes through an
 * arena of the queue's own, which is all that a target can ever read or write.  Requests that find no room in it wait.
 * Where the device has memory windows, each command opens one for its data, for the way that it goes, and closes it with its
 * response: the target then reaches nothing else, and nothing later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/rdma.h"

#define ARENA_MIN (2u * RDMA_MAX_XFER_BYTES)
#define ARENA_MAX (16u << 20)
#define PER_SLOT  (128u * 1024)
#define PAGE	  4096u

static size_t page_up(size_t len)
{
	return (len + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static int make_keys(struct rdma_qpair *qpair)
{
	struct rnic_device *device = rnic_conn_device(qpair->conn);
	unsigned access = RNIC_REMOTE_READ | RNIC_REMOTE_WRITE;
	int rc = 0;

	if (rnic_info(device)->windows) {
		access = RNIC_WINDOWS;
		qpair->windows = calloc(qpair->q.depth, sizeof(qpair->windows[0]));
		if (!qpair->windows)
			return -ENOMEM;
		for (uint32_t i = 0; i < qpair->q.depth && !rc; i++)
			rc = rnic_window_create(device, &qpair->windows[i]);
	}
	return rc ? rc : rnic_mr_create(device, qpair->memory, qpair->memory_size, RNIC_LOCAL_WRITE | access, &qpair->mr);
}

int rdma_memory_create(struct rdma_qpair *qpair)
{
	uint64_t arena = (uint64_t)qpair->q.depth * PER_SLOT;
	size_t capsules = page_up((size_t)qpair->q.depth * qpair->capsule_size);
	size_t responses = page_up((size_t)qpair->nr_recvs * sizeof(struct nvme_cqe));

	arena = arena < ARENA_MIN ? ARENA_MIN : arena > ARENA_MAX ? ARENA_MAX : arena;
	qpair->nr_units = (uint32_t)(arena / RDMA_ARENA_UNIT);
	qpair->memory_size = capsules + responses + arena;
	qpair->memory = dma_alloc(qpair->memory_size, PAGE);
	qpair->arena_map = calloc((qpair->nr_units + 63) / 64, sizeof(*qpair->arena_map));
	qpair->bounces = calloc(qpair->q.depth, sizeof(*qpair->bounces));
	qpair->closing = calloc(qpair->q.depth, sizeof(*qpair->closing));
	if (!qpair->memory || !qpair->arena_map || !qpair->bounces || !qpair->closing)
		return -ENOMEM;
	qpair->responses = qpair->memory + capsules;
	qpair->arena = qpair->responses + responses;
	return make_keys(qpair);
}

void rdma_memory_free(struct rdma_qpair *qpair)
{
	for (uint32_t i = 0; qpair->windows && i < qpair->q.depth; i++)
		rnic_window_free(qpair->windows[i]);
	free(qpair->windows);
	rnic_mr_free(qpair->mr);
	dma_free(qpair->memory);
	free(qpair->arena_map);
	free(qpair->bounces);
	free(qpair->closing);
}

static bool unit_is_used(const struct rdma_qpair *qpair, uint32_t unit)
{
	return qpair->arena_map[unit / 64] >> unit % 64 & 1;
}

static void mark(struct rdma_qpair *qpair, const struct rdma_bounce *bounce)
{
	for (uint32_t i = bounce->first; i < bounce->first + bounce->nr; i++)
		qpair->arena_map[i / 64] ^= 1ull << i % 64;
}

bool rdma_bounce_take(struct rdma_qpair *qpair, uint32_t len, struct rdma_bounce *ret_bounce)
{
	uint32_t nr = (len + RDMA_ARENA_UNIT - 1) / RDMA_ARENA_UNIT, run = 0;

	for (uint32_t unit = 0; unit < qpair->nr_units; unit++) {
		run = unit_is_used(qpair, unit) ? 0 : run + 1;
		if (run < nr)
			continue;
		*ret_bounce = (struct rdma_bounce){ unit + 1 - nr, nr, 0 };
		mark(qpair, ret_bounce);
		return true;
	}
	return false;
}

void rdma_bounce_put(struct rdma_qpair *qpair, struct rdma_bounce *bounce)
{
	mark(qpair, bounce);
	bounce->nr = 0;
}

void rdma_copy(const struct nvme_request *req, void *flat, bool to_flat)
{
	uint32_t left = req->len;
	uint8_t *at = flat;

	for (uint32_t i = 0; i < req->iovcnt && left; i++) {
		uint32_t n = req->iov[i].iov_len < left ? (uint32_t)req->iov[i].iov_len : left;

		if (to_flat)
			memcpy(at, req->iov[i].iov_base, n);
		else
			memcpy(req->iov[i].iov_base, at, n);
		at += n;
		left -= n;
	}
}
