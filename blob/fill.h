/* A first write to a part of one cluster, as fill.c drives it and cow.c helps it. */
#ifndef BLOB_FILL_H
#define BLOB_FILL_H

#include "blob/internal.h"

#define MARKS_AHEAD 8u

enum fill_state {
	FILL_FREE,
	FILL_LOCK,  /* waits for its range of sub-blocks */
	FILL_SPACE, /* waits for a cluster, or until the one it has is durably nobody else's */
	FILL_SUMS,  /* waits for pages of checksums */
	FILL_ADMIT, /* waits for metadata pages and journal room */
	FILL_COPY,  /* the valid sub-blocks of a shared cluster are being copied */
	FILL_READ,  /* its first and last sub-block are being read from the base */
	FILL_WRITE, /* its data is being written */
	FILL_DONE,  /* record made */
};

enum fill_copy {
	COPY_NOTHING,
	COPY_VALID,   /* its valid sub-blocks; its base stays the base */
	COPY_MISSING, /* those it has not, from its base or as zeros; it becomes the base */
};

/* Owner: the store's owner thread. */
struct fill {
	struct fifo_link link;
	enum fill_state state;
	struct req *req;
	struct blob *blob;
	uint64_t index;		     /* of the cluster in the blob */
	uint32_t in_block, nr_blocks; /* in the cluster */
	uint32_t first_sub, nr_subs;  /* which these are part of */
	uint32_t own;
	bool in_own;	  /* own is the blob's alone, and no snapshot is taken until this is over */
	uint32_t map_seq; /* the blob's when own was chosen */
	bool in_place;	  /* everything is there: no record */
	bool own_held;	  /* own is allocated but not yet mapped */
	enum fill_copy copy; /* what of a shared cluster that is not full comes along */
	uint32_t new_base;   /* what the rest is read from then, if own is new */
	bool new_external;   /* or the external bdev */
	bool unshare;	  /* its data is what the map shows there: a run that comes from one cluster */
	uint32_t source;  /* that cluster */
	uint32_t nr_judged; /* sub-blocks of it that match their checksums */
	bool read_tail;   /* the tail is still to be read */
	bool read_own;	  /* something was read from the cluster that the map had, or hangs on what it holds */
	bool stale;	  /* which was written in place since, or may have been */
	bool sums_held;	  /* its pages of checksums are pinned */
	uint32_t marks[MARKS_AHEAD], nr_marks; /* clusters of the mark that it waits for */
	struct ext_channel *ext;    /* what is being read is the external bdev's */
	uint32_t old_own, old_base; /* what the map had when own was chosen */
	struct range_lock lock;
	struct admission admission;
	struct waiter waiter;
	struct node_wait node_wait;
	void (*again)(struct fill *f); /* when the node is there */
	struct commit_wait commit;
	struct bdev_io bio;
	struct iovec edge_iov;
	struct task task;
	unsigned nr_iov;
	struct iovec iov[FILL_IOVS + 2];
	uint8_t *edge[2]; /* what surrounds the data in its first and last sub-block; DMA */
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64]; /* of the old entry */
};

static inline bool fill_old_has(const struct fill *f, uint32_t sub)
{
	return f->mask[sub / 64] >> (sub % 64) & 1;
}

/* fill.c */
void fill_go_on(struct fill *f);	      /* after a copy */
void fill_over(struct fill *f, int status);

void fill_write(struct fill *f);

/* cow.c */
/* f->bio, into one buffer, from block in_cluster of the cluster on: read from the external bdev instead, zeros behind its end. */
void fill_read_external(struct fill *f, uint64_t in_cluster);
void fill_external_over(struct fill *f); /* what f->bio.done does first */
/* What a run comes from, if it is not the blob's own yet; 0: it is, or it comes from nowhere, or from more than one place. */
uint32_t fill_unshare_source(const struct fill *f, bool exclusive);
void fill_read_source(struct fill *f); /* then fill_write() or fill_over() */
/* Sets copy and new_base for what the map has now; exclusive: the blob alone has it. */
void fill_plan(struct fill *f, const struct entry *e, bool exclusive);
void fill_copy_start(struct fill *f); /* then fill_go_on() or fill_over() */

#endif
