/*
 * Maps in memory: trees of nodes that blobs share, and their entries; what changes them, and how nodes come and go.
 *
 * Changed on the store's owner thread alone; other threads look without locks, and what they may still see is freed when they cannot any more.
 */
#ifndef BLOB_MAP_H
#define BLOB_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "blob/blob.h"
#include "runtime/runtime.h"

/* --- memory freed once no other thread can see it --- */

struct retired {
	struct retired *next;
};

/* --- maps --- */

/* An entry that is not full: a TiB may have a million, so nothing more is in it.  Owner: its leaf; own and base never change, bits of
 * the mask are only set. */
struct partial {
	uint32_t own, base; /* base: BASE_EXTERNAL: what it does not have is the external bdev's */
	_Atomic uint64_t mask[];
};
#define BASE_EXTERNAL UINT32_MAX

/* One that is no longer in a map, but other threads may be reading it. */
struct retired_entry {
	struct retired_entry *next;
	struct partial *partial;
};

/*
 * A node of a map in memory, shared by those who count in it.  slots: a leaf's entries (0 none; odd: full, own cluster << 1 | 1;
 * else a struct partial), or an inner node's children (0 none; odd: the number of a node << 1 | 1; else the node itself).
 */
struct node {
	struct retired retired;
	uint32_t id;
	uint8_t level;
	bool lost;		     /* both its copies are: nothing is known of what it maps */
	bool maybe_shared;	     /* a leaf: its clusters may have counts above 1 */
	_Atomic bool hot;	     /* looked at since the hand came by (evict.c) */
	_Atomic uint32_t count;	     /* as store.node_counts has it */
	_Atomic uint64_t last_seq;   /* journal page of the newest record that changed it */
	_Atomic uint64_t unshared_seq; /* of the record that made its count 1 again */
	uint32_t nr_present;
	uint32_t nr_links;  /* slots and roots that point to it; others name it */
	uint32_t nr_linked; /* its own slots that point to a node */
	uint32_t nr_pins;   /* stays in memory until they are 0 */
	bool gone;	    /* discarded while pinned: freed with the last pin */
	_Atomic uint64_t slots[];
};

/* Somebody who waits for a node.  Owner: who waits, until done. */
struct node_wait {
	struct list link;
	uint32_t id;
	uint8_t level;		/* that it must have */
	struct blob *blob;	/* whose map it is; NULL: none that is known */
	struct node *parent;	/* pinned meanwhile, so that the way to the node stays; NULL: none */
	_Atomic uint64_t *slot; /* that names it */
	void (*done)(struct node_wait *wait, struct node *node, int status); /* -ENODEV, -ENOMEM; what is lost is a node */
};

/* An entry taken apart.  partial is NULL when full or none. */
struct entry {
	uint32_t own, base;
	bool full;
	bool external; /* what it does not have is the external bdev's */
	struct partial *partial;
};

/* map.c */
struct node *node_new(struct store *s, uint32_t id, unsigned level); /* count 1 */
uint32_t node_id_alloc(struct store *s); /* 0: no memory */
void node_discard(struct store *s, struct node *node); /* gone from memory and table; children are the caller's */
int node_install(struct store *s, struct node *node);
void node_set_count(struct store *s, uint32_t id, uint32_t count);
size_t node_bytes(const struct store *s, unsigned level);
struct partial *partial_new(struct store *s, uint32_t own, uint32_t base);
void partial_free(struct store *s, struct partial *partial); /* at once */
void entry_free(struct store *s, uint64_t entry);
/* 0: no memory.  No mask: full.  With neither own, base nor external it reads zero, whatever an external bdev has there. */
uint64_t entry_make(struct store *s, uint32_t own, uint32_t base, bool external, const uint64_t *mask);
/* Where the entry of index is; NULL: the path is not there. *ret_shared: a node on it is. */
struct node *map_leaf(const struct blob *b, uint64_t index, bool *ret_shared);
/* The same for a write in place: *ret_settled: who shared a node here before durably does so no more.  Until
 * then a power cut may bring the sharer back, and it must not find what is written now. */
struct node *map_leaf_settled(const struct blob *b, uint64_t index, bool *ret_shared, bool *ret_settled);
struct entry map_entry(const struct blob *b, uint64_t index, struct node **ret_leaf, bool *ret_shared);
/* The next index from first on below end whose leaf exists (in memory or not); end: none.  0, -ENODEV, -ENOMEM. */
fiber_fn int map_next(struct blob *b, uint64_t first, uint64_t end, uint64_t *ret_index);
#define OWN_LEAF_PAGES 5u /* that a change of an entry makes dirty at most, in a leaf that is the blob's alone */
uint32_t map_path_pages(const struct blob *b, uint64_t index); /* the same, whatever is there of the path */
void map_prepare_path(struct store *s, struct blob *b, uint64_t index); /* records: the path exists and is its own */
bool map_height_fits(const struct store *s, const struct node *root, uint64_t index);
int map_take_root(struct blob *b, uint32_t root); /* instead of the one it has, which is reaped; counts are the caller's */
void map_slot_set(struct node *parent, _Atomic uint64_t *slot, uint64_t raw); /* parent NULL: a blob's root */
/* What records do.  0 or -EUCLEAN, -ENOMEM. */
int map_apply_fill(struct blob *b, uint64_t index, uint32_t own, uint32_t first, uint32_t nr, struct blob_reason *why);
int map_apply_put(struct blob *b, uint64_t index, uint32_t own, uint32_t base, const uint64_t *mask, bool external,
		  struct blob_reason *why);
int map_apply_share(struct blob *b, uint64_t first, uint32_t nr, struct blob *from, struct blob_reason *why);
int map_apply_clear(struct blob *b, uint64_t first, uint32_t nr, struct blob_reason *why);
int map_apply_node_new(struct blob *b, uint64_t index, unsigned level, uint32_t id, struct blob_reason *why);
int map_apply_node_copy(struct blob *b, uint64_t index, unsigned level, uint32_t id, struct blob_reason *why);
int map_apply_root_grow(struct blob *b, uint32_t id, struct blob_reason *why);
int map_apply_reap(struct store *s, uint32_t id, struct blob_reason *why);
int reap_push(struct store *s, uint32_t node);

static inline struct entry entry_decode(uint64_t raw)
{
	struct entry e = { 0 };

	if (raw & 1) {
		e.own = raw >> 1;
		e.full = true;
	} else if (raw) {
		e.partial = (struct partial *)(uintptr_t)raw;
		e.own = e.partial->own;
		e.external = e.partial->base == BASE_EXTERNAL;
		e.base = e.external ? 0 : e.partial->base;
	}
	return e;
}

/* What an inner node's slot or a root points to; it must not name a node that is not in memory. */
static inline struct node *slot_node(uint64_t raw)
{
	return (struct node *)(uintptr_t)raw;
}

static inline uint32_t slot_id(uint64_t raw)
{
	return raw & 1 ? raw >> 1 : raw ? slot_node(raw)->id : 0;
}

/* Whether sub-block sub is in the own cluster. */
static inline bool entry_has(const struct entry *e, uint32_t sub)
{
	if (e->full)
		return true;
	return e->partial && atomic_load_explicit(&e->partial->mask[sub / 64], memory_order_acquire) >> (sub % 64) & 1;
}

bool entry_has_range(const struct entry *e, uint32_t first, uint32_t nr);
bool mask_is_full(const struct store *s, const uint64_t *mask);
bool mask_is_empty(const struct store *s, const uint64_t *mask);
void entry_get_mask(const struct store *s, const struct entry *e, uint64_t *mask);
void mask_set_range(uint64_t *mask, uint32_t first, uint32_t nr, bool on);

/* nodes.c: pages of nodes, and nodes that come into memory when somebody needs them.  On the owner. */
int cache_init(struct store *s, uint64_t max_bytes);
fiber_fn void cache_destroy(struct store *s);
extern struct node map_missing; /* stands for a node that is not in memory; it seems lost and shared */
/* The node that a slot names, to which the slot points from now on; NULL: none; &map_missing.  What cannot be the parent's child makes
 * the parent lost, and is the parent. */
struct node *node_resolve(struct store *s, _Atomic uint64_t *slot, struct node *parent);
/* What of the way to an index is not in memory; false: nothing, until the owner does something else. */
bool path_missing(struct blob *b, uint64_t index, struct node_wait *ret_wait);
/* True: the way to an index is in memory, until the owner does something else.  False: done comes, to try again. */
bool map_want(struct blob *b, uint64_t index, struct node_wait *wait);
fiber_fn int map_load(struct blob *b, uint64_t index); /* the same for fibers */
fiber_fn int node_wait_for(struct store *s, struct node_wait *wait, struct node **pinned); /* puts the one pinned, pins what came */
/* What is missing, and its parent's children behind it that only the parent has, side by side.  Nobody says that they stay. */
fiber_fn void nodes_ahead(struct store *s, const struct node_wait *miss);
fiber_fn int node_get(struct store *s, uint32_t id, struct node **ret_node); /* stays until node_put() */
void node_pin(struct node *node);
void node_put(struct store *s, struct node *node); /* NULL is fine */
/* Every node there is, in memory or read for the moment; lost ones too. */
typedef int (*node_visit_fn)(struct store *s, const struct node *node, void *arg);
fiber_fn int nodes_visit(struct store *s, node_visit_fn visit, void *arg);
fiber_fn int nodes_load_all(struct store *s); /* until the owner does something else; the caller holds the cache */
fiber_fn int nodes_load_many(struct store *s, const uint32_t *ids, uint64_t nr);

/* evict.c */
#define MAP_CACHE_MIN (16u << 20)
void cache_check(struct store *s); /* more has come */
void cache_hold(struct store *s, bool on);
void evict_fiber(void *arg);
void node_drop(struct store *s, struct node *node); /* out of memory; nothing points to it */
void node_free(struct store *s, struct node *node); /* at once: nobody else can see it */

#endif
