/*
 * Memory that a poll group's connections receive into: large pool buffers, one being filled at a time and shared by all
 * connections of the group, so that an idle connection holds none and the one in use stays in the processor's cache.
 *
 * A request whose data came in its capsule points into the chunk and holds it.  When the pool has nothing to give, or the
 * group holds its share, the group's own home chunk stands in: then nothing may stay in it, and requests copy their data.
 */
#include <errno.h>

#include "transport/tcp/internal.h"

int chunk_group_init(struct tcp_group *group)
{
	struct iobuf_stats stats;

	group->home.group = group;
	group->home.home = true;
	group->home.base = dma_alloc(IOBUF_LARGE_SIZE, 4096);
	if (!group->home.base)
		return -ENOMEM;
	fifo_init(&group->unused_chunks);
	iobuf_get_stats(&stats);
	group->max_chunks = stats.nr_large / 8;
	if (group->max_chunks < 2)
		group->max_chunks = 2;
	if (group->max_chunks > TCP_MAX_CHUNKS)
		group->max_chunks = TCP_MAX_CHUNKS;
	for (unsigned i = 0; i < group->max_chunks; i++) {
		group->chunks[i].group = group;
		fifo_push(&group->unused_chunks, &group->chunks[i].link);
	}
	return 0;
}

static void chunk_free(struct tcp_chunk *chunk)
{
	iobuf_put(IOBUF_LARGE, chunk->base);
	chunk->base = NULL;
	fifo_push(&chunk->group->unused_chunks, &chunk->link);
}

void chunk_group_fini(struct tcp_group *group)
{
	if (group->chunk)
		chunk_free(group->chunk);
	group->chunk = NULL;
	dma_free(group->home.base);
}

/* NULL: the home chunk has to do. */
static struct tcp_chunk *chunk_new(struct tcp_group *group)
{
	struct tcp_chunk *chunk;
	void *base;

	if (fifo_empty(&group->unused_chunks))
		return NULL;
	base = iobuf_get(IOBUF_LARGE, NULL);
	if (!base)
		return NULL;
	chunk = container_of(fifo_pop(&group->unused_chunks), struct tcp_chunk, link);
	chunk->base = base;
	chunk->fill = 0;
	chunk->refs = 0;
	return chunk;
}

struct tcp_chunk *chunk_get(struct tcp_group *group, uint32_t min_room)
{
	struct tcp_chunk *chunk = group->chunk;

	if (chunk && IOBUF_LARGE_SIZE - chunk->fill < min_room)
		chunk = NULL; /* the requests that point into it keep it */
	if (!chunk)
		chunk = group->chunk = chunk_new(group);
	if (!chunk)
		chunk = &group->home;
	chunk_hold(chunk);
	return chunk;
}

void chunk_put(struct tcp_chunk *chunk)
{
	if (--chunk->refs > 0)
		return;
	chunk->fill = 0;
	if (chunk != chunk->group->chunk && !chunk->home)
		chunk_free(chunk);
}
