/* The map cache: nodes on their way into memory (nodes.c), and the hand that takes those out that nobody looks at (evict.c). */
#ifndef BLOB_CACHE_H
#define BLOB_CACHE_H

#include "blob/internal.h"

#define NODE_LOADS  64u
#define NODES_AHEAD 32u
#define LEVEL_ANY   255u

/* A node on its way into memory. */
struct node_load {
	struct store *store;
	bool busy, copy_b;
	struct page_read read;
	struct blob_reason why_a;
	uint8_t *buf;
	struct iovec iov;
	struct bdev_io bio;
	struct list waiters; /* struct node_wait */
};

/* Owner: the store's owner thread. */
struct map_cache {
	struct node_load load[NODE_LOADS];
	uint8_t *mem;
	uint32_t nr_loading;
	struct list queue; /* struct node_wait: of a free load */
	uint64_t max_bytes;
	uint32_t nr_holds;  /* nothing goes meanwhile */
	uint64_t hand;	    /* nodes by their number, then blobs by their slot */
	unsigned nr_rounds; /* of the hand */
	/* The newest journal page in which a node that was not in memory was shared no more. */
	uint64_t unshared_seq;
	struct fiber_cond wake;
};

#endif
