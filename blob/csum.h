/*
 * Checksums of data in memory: the cache of checksum pages, and the marks of clusters whose checksums on the device may lag
 * behind their data.  The bytes: doc/format-blob.md; why so: doc/adr/0022-checksums-beside-their-clusters.md.
 */
#ifndef BLOB_CSUM_H
#define BLOB_CSUM_H

#include "blob/internal.h"

struct fill;

#define SUM_PAGES_MIN	8u
#define SUM_LOADS	64u
#define SUM_CLEAN_BATCH 256u
#define SUM_BAD_MAX	256u
/* A cluster is clean one to two of these after it was written last. */
#ifdef BLOB_MUTANTS
#define SUM_TICK_US 2000u /* the crash laboratory's stores do not live for seconds */
#else
#define SUM_TICK_US 1000000u
#endif

/*
 * One checksum page in memory.  Owner: the store's owner thread; sums are read by any thread.  Freed once no I/O is left that
 * may have found it.
 */
struct sum_page {
	struct retired retired;
	struct list lru, dirty_link;
	uint64_t index;
	uint32_t nr_pins;
	bool writing;
	bool mend; /* to be written soon, though none of its clusters may be marked */
	bool broken; /* neither copy could be read: its blocks cannot be either, until it is tried again */
	_Atomic bool used; /* since eviction last came by */
	_Atomic uint32_t sum[SUMS_A_PAGE]; /* 0: none */
};

/* A page on its way into memory. */
struct sum_load {
	struct list link;
	struct csums *all;
	uint64_t index;
	bool busy, copy_b;
	bool failed[2]; /* the device could not read the copy */
	uint8_t *buf[2];
	struct iovec iov;
	struct bdev_io bio;
	struct list waiters; /* struct waiter */
};

struct csums {
	struct store *store;
	_Atomic(struct sum_page *) *_Atomic pages; /* by index */
	uint64_t nr_pages, nr_cached, max_cached;
	struct list lru, dirty; /* struct sum_page; dirty: changed since they were written */
	uint64_t nr_dirty_pages;
	struct sum_load load[SUM_LOADS];
	struct list no_load; /* struct waiter: of a free load, or of room in the cache */
	/* clusters, a bit each */
	uint64_t *marked;    /* the mark is durable, or follows from the record that maps the cluster */
	uint64_t *marking;   /* the mark is recorded, but not yet durable: not in marked */
	uint64_t *touched;   /* written since the cleaner last came by */
	uint64_t *cleaning;  /* the cleaner is about to take the mark back */
	uint64_t *unsettled; /* marked when the store was opened: mismatches are a crash's */
	uint64_t nr_marked, nr_unsettled;
	uint64_t nr_bad, nr_unverified, nr_unknown;
	struct store_bad told[SUM_BAD_MAX]; /* a ring of those that were found last, each once */
	uint64_t nr_told, nr_taken;	    /* found; and taken by who is told */
	struct task event_task;
	bool event_pending;
	struct fiber_cond wake, cleaned;
	uint64_t nr_rounds;
	uint64_t tick_us; /* between rounds; constant */
	uint32_t nr_broken, nr_mend;
	bool all; /* the next round takes what was just written as well */
	bool scrubbing;
};

static inline bool sum_bit(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static inline void sum_bit_set(uint64_t *bits, uint64_t i, bool on)
{
	if (on)
		bits[i / 64] |= 1ull << (i % 64);
	else
		bits[i / 64] &= ~(1ull << (i % 64));
}

/* Where the checksum of a sub-block of the device is: its page, and its slot there. */
static inline uint64_t sum_page_of(const struct store *s, uint32_t cluster, uint32_t sub, uint32_t *ret_slot)
{
	uint64_t in = (uint64_t)(cluster % SUM_GROUP) * s->subs_a_cluster + sub;

	*ret_slot = in % SUMS_A_PAGE;
	return (uint64_t)(cluster / SUM_GROUP) * s->subs_a_cluster + in / SUMS_A_PAGE;
}

static inline struct sum_page *sum_page_find(const struct csums *c, uint64_t index)
{
	return atomic_load_explicit(&atomic_load_explicit(&c->pages, memory_order_acquire)[index], memory_order_acquire);
}

/* csum.c: the cache.  Owner thread. */
uint32_t csum_crc(uint32_t seed, const void *buf, size_t len);
uint32_t csum_of_sub(const void *buf); /* of 4 KiB; never 0 */
/* The page, or NULL: it is on its way, and the waiter is kicked when it is worth trying again. */
struct sum_page *sum_page_get(struct csums *c, uint64_t index, struct waiter *w);
fiber_fn struct sum_page *sum_page_wait(struct csums *c, uint64_t index);
void sum_pages_drop_broken(struct csums *c);
void sum_page_changed(struct csums *c, struct sum_page *page);
void sum_page_mend(struct csums *c, struct sum_page *page); /* the same, where no mark leads to its being written */
/* Looks at both copies on the device; one that is bad is written anew with what the other, or memory, has. */
fiber_fn int sum_page_compare(struct csums *c, uint64_t index, uint8_t *buf_a, uint8_t *buf_b);
fiber_fn int sum_page_write(struct csums *c, struct sum_page *page);

/* csum_mark.c: marks, and the fiber that takes them back */
void csum_marked_durably(struct store *s, uint32_t cluster);

/* csum_fill.c: first writes and overwrites */
/* Whether a fill may write its cluster: marked, and its pages here and pinned.  If not, what it waits for calls again. */
bool csum_fill_ready(struct fill *f, void (*again)(struct waiter *waiter),
		     void (*committed)(struct commit_wait *wait, int status));
void csum_fill_marked(struct fill *f); /* the record of the marks it waited for is durable */
void csum_fill_written(struct fill *f, int status); /* the device has the data, or status says why not: stamps them */
void csum_fill_over(struct fill *f);
/* Judges a sub-block that a fill has read around its data.  -EAGAIN: what it waits for calls again; -EIO. */
int csum_edge(struct fill *f, uint32_t cluster, uint32_t sub, const void *buf, void (*again)(struct waiter *waiter));
uint32_t csum_of_iov(const struct iovec *iov, unsigned iovcnt, uint64_t skip); /* of 4 KiB from byte skip on */
bool csum_fill_holds(struct store *s, uint32_t cluster); /* a fill is writing it, or about to */

/* csum_read.c: reads, and the judgement of what does not match */
int csum_judge(struct blob *b, uint64_t sub_of_blob, uint32_t cluster, uint32_t sub, struct sum_page *page, uint32_t slot,
	       uint32_t crc);
/* The sub-block as it is now, under its lock, judged.  0 or -EIO, -ENOMEM. */
fiber_fn int csum_read_sub(struct blob *b, uint64_t sub_of_blob, void *buf);

#endif
