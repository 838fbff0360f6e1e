/*
 * Sinks: on iWARP the memory that an RDMA READ fills must be writable by the peer, and its key stands in the request.  So each
 * connection has some memory for that alone, whose key no other host is told, and data is copied from there to the pool's buffers.
 */
#include <errno.h>

#include "transport/rdma/internal.h"

int rdma_sink_open(struct rdma_sink *sink, struct rnic_device *device, uint32_t size)
{
	int rc;

	if (sink->size >= size)
		return 0;
	assert(!sink->used);
	rdma_sink_close(sink);
	sink->memory = dma_alloc(size, 64);
	if (!sink->memory)
		return -ENOMEM;
	rc = rnic_mr_create(device, sink->memory, size, RNIC_LOCAL_WRITE | RNIC_REMOTE_WRITE, &sink->mr);
	if (rc) {
		rdma_sink_close(sink);
		return rc;
	}
	sink->size = size;
	return 0;
}

void rdma_sink_close(struct rdma_sink *sink)
{
	rnic_mr_free(sink->mr);
	dma_free(sink->memory);
	*sink = (struct rdma_sink){ 0 };
}

struct iovec rdma_sink_place(const struct rdma_sink *sink)
{
	uint32_t free_len = sink->size - sink->used, to_end = sink->size - sink->head;

	return (struct iovec){ sink->memory + sink->head, free_len < to_end ? free_len : to_end };
}

void rdma_sink_take(struct rdma_sink *sink, uint32_t len)
{
	assert(len <= sink->size - sink->used);
	sink->used += len;
	sink->head = (sink->head + len) % sink->size;
}

void rdma_sink_give_back(struct rdma_sink *sink, uint32_t len)
{
	assert(len <= sink->used);
	sink->used -= len;
}
