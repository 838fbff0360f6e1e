/*
 * DMA memory, and the buffer pool that queues instead of failing.
 *
 * With EAL running, DMA memory comes from DPDK (hugepages, or ordinary pages under --no-huge); without it (unit tests, the
 * simulation, the CLI) from the C library, aligned.
 */
#ifndef RUNTIME_MEMORY_H
#define RUNTIME_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/list.h"

/* Thread: any; may lock: not for hot paths.  NULL when there is no memory.  Contents zeroed. */
void *dma_alloc(size_t len, size_t align);
void dma_free(void *buf);
/* About what dma_alloc() can still give in all.  UINT64_MAX without EAL.  Thread: any; reads files. */
uint64_t dma_left_bytes(void);

/*
 * For those who have to make DMA memory known to a device: calls fn for all there is, and whenever there is more or less.
 * page_bytes: what it is contiguous by, physically.  Once for a process each; fn may be called on any OS thread.
 * Return: 0, -ENOTSUP without EAL.
 */
typedef void (*dma_region_fn)(void *va, size_t len, size_t page_bytes, bool added, void *arg);

#define DMA_WATCHES_MAX 4u

int dma_watch(dma_region_fn fn, void *arg);
/* The physical address of a byte of memory that stays where it is.  -EPERM: the kernel tells only root. */
int dma_physical(const void *va, uint64_t *ret_addr);

/* Two sizes of pool buffer, both 4096-aligned. */
#define IOBUF_SMALL_SIZE 8192u
#define IOBUF_LARGE_SIZE (128u * 1024)

enum iobuf_class { IOBUF_SMALL, IOBUF_LARGE };

struct thread;

/* Embedded in the request that waits.  Owner: the requester; the pool keeps it from a failed get until ready runs. */
struct iobuf_wait {
	struct list link;				   /* zeroed, or list_init(): not queued */
	void (*ready)(struct iobuf_wait *wait, void *buf); /* on the thread that asked; the buffer is the waiter's */
	/* the pool's */
	struct thread *thread;
	void *buf;
	enum iobuf_class class;
};

/**
 * iobuf_get - take a buffer, or queue for one
 * @wait: queued, in order, when NULL is returned; its ready is called later with a buffer.  NULL: do not queue.
 *
 * Contents are undefined: whoever reads into it must fill or zero what a host will see.
 * Thread: any reactor thread; the hit is a pop from the thread's own cache.
 */
void *iobuf_get(enum iobuf_class class, struct iobuf_wait *wait);
void iobuf_put(enum iobuf_class class, void *buf);
void iobuf_wait_cancel(struct iobuf_wait *wait); /* on the thread that asked; harmless when not queued */

struct iobuf_stats {
	uint64_t nr_small, nr_large;	       /* in the pool's budget */
	uint64_t nr_small_free, nr_large_free; /* about: caches of other threads are read without a lock */
	uint64_t nr_waits;
	unsigned nr_small_cached, nr_large_cached; /* free ones that a reactor keeps at most */
};

void iobuf_get_stats(struct iobuf_stats *stats);

#endif
