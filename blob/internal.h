/*
 * What the files of this room share: the store in memory, and the declarations of each file.
 *
 * Everything belongs to the store's owner thread unless it says otherwise.  Other threads read, without locks, what is
 * _Atomic below: a blob's root and size, nodes, entries, and a few sequence numbers.
 */
#ifndef BLOB_INTERNAL_H
#define BLOB_INTERNAL_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "blob/blob.h"
#include "blob/format.h"
#include "blob/map.h"
#include "blob/mutant.h"
#include "runtime/keep.h"
#include "runtime/runtime.h"

#define NAME_BUCKETS	4096u
#define REQS_A_CHANNEL	512u
#define REQ_IOVS	18u
#define NR_FILLS	256u
#define UNSHARED_BUCKETS 65536u
#define LOCK_BUCKETS	1024u
#define FILL_IOVS	36u
#define PUNCH_FIBERS	16u
#define ZERO_BYTES	65536u
#define COMMIT_DELAY_US 500000u
#define BLOB_IO_UNSHARE 0x80u /* of a write: what the map shows there now, into clusters of the blob's own */
#define PACE_BUCKETS	512u
#define FUA_GROUP_FROM	4u /* so many FUA writes in flight on a channel share device flushes */

/* --- metadata pages --- */

/* One page of a table.  Owner: its table. */
struct mpage {
	struct page_ref ref; /* where the newest checkpoint has it */
	struct list dirty_link, frozen_link;
	uint8_t *image; /* while frozen, once it changed again: the payload as frozen */
	uint32_t image_used, index;
	uint8_t image_type, table;
	bool lost;
	bool seen; /* read at least once: what is wrong with it has been told */
};

struct tpage {
	struct page_ref ref;
	bool dirty, lost;
};

struct mtable {
	struct mpage **chunks; /* of TABLE_FANOUT */
	uint64_t nr_chunks, nr_pages;
	uint32_t height;
	struct tpage *level[TABLE_LEVELS + 1]; /* [1] to [height] */
	uint64_t nr_level[TABLE_LEVELS + 1];
};

struct u64_vec {
	uint64_t *v;
	size_t nr, cap;
};

/* --- waiting --- */

/* Somebody who tries again when kicked.  Owner: who waits. */
struct waiter {
	struct list link;
	void (*retry)(struct waiter *waiter);
};

/* Waits for the next commit that begins from now on.  Owner: who waits, until done. */
struct commit_wait {
	struct list link;
	bool flush; /* data of its own, written in place, must be flushed as well */
	void (*done)(struct commit_wait *wait, int status);
};

enum op_kind { OP_THIN, OP_THICK, OP_FREEING };

struct admission {
	uint32_t nr_pages;
	bool held;
	bool control; /* somebody waits for this one call, which takes few pages: not behind a checkpoint that data writes fill */
};

/* A range of sub-blocks of a blob that is being changed.  Owner: who changes it. */
struct range_lock {
	struct list link, ready_link;
	uint64_t first, end; /* sub-blocks of the blob */
	bool held;
	struct fiber_wait *wait;
	void (*ready)(struct range_lock *lock);
};

/* --- requests --- */

enum req_state {
	REQ_FREE,
	REQ_DEVICE, /* its pieces are at the device */
	REQ_OWNER,  /* at the owner thread: first writes, unmaps, commits */
	REQ_FLUSH,  /* waits for its channel's device flush */
	REQ_DONE,
};

enum piece_kind { PIECE_ZERO, PIECE_DEVICE, PIECE_EXTERNAL, PIECE_LOST, PIECE_SLOW, PIECE_MISS };

struct piece {
	enum piece_kind kind;
	uint64_t block;	    /* of the device, or of the external bdev */
	uint64_t nr_blocks; /* of this kind */
};

/* One I/O, or a piece of one.  Owner: its channel's thread; the owner thread while REQ_OWNER. */
struct req {
	struct fifo_link link;
	struct bdev_io bio;
	struct blob_channel *ch;
	struct blob_io *io;
	struct req *parent;  /* a piece's */
	struct drain *drain; /* who waits until it is over; NULL: nobody */
	uint64_t pos;	    /* blocks handled */
	uint32_t pending;
	int status;
	enum req_state state;
	struct ext_channel *ext; /* of a piece that is read from an external bdev */
	uint64_t timed_ticks; /* when it came, if it is timed; else 0 */
	uint8_t parity;
	bool bio_busy, go_slow, group_flush, counted;
	bool sum_bad;	 /* what was read did not match its checksum */
	uint64_t sum_at; /* sub-block of the blob: checksums of what is before it have been in memory */
	bool map_miss;	 /* what it reads next is not in memory: the owner finds it */
	bool have_piece; /* it did */
	struct piece piece;
	struct node_wait node_wait;
	uint8_t *edge;	 /* bytes around a read that is not whole sub-blocks; DMA, or NULL */
	struct task task;
	struct list list;
	struct waiter waiter;
	struct commit_wait commit;
	struct iovec iov[REQ_IOVS];
};

/* Owner: its thread.  internal: the store's own, not a runtime channel. */
struct blob_channel {
	struct store *store;
	struct thread *thread;
	struct bdev_channel *bch;
	struct fifo free;    /* of struct req.link */
	struct fifo waiting; /* of struct blob_io.link */
	/* I/O that may know clusters and nodes, by the parity of the grace period in which it began */
	uint32_t in_flight[2];
	uint8_t parity;
	bool draining;
	uint32_t nr_fua;
	/* group flush */
	struct list flush_waiting, flush_current;
	struct bdev_io flush_io;
	bool flush_running;
	struct req *reqs;
	uint32_t nr_reqs;
	struct list externals; /* struct ext_channel */
	uint32_t latencies[PACE_BUCKETS]; /* since they were last gathered (pace.c) */
	uint64_t nr_ops[BLOB_NR_OPS], nr_slow, nr_pool_waits, nr_flushes;
};

/* --- the store --- */

struct journal {
	uint64_t epoch;
	uint64_t start_seq;  /* the newest durable checkpoint needs pages from here on */
	uint64_t open_seq;   /* the page that is being filled */
	uint32_t open_used, open_records;
	uint32_t op_start; /* where the operation's records begin in it */
	bool has_data;	     /* records since the last device flush rely on data writes */
	_Atomic bool in_op;	     /* some records of an operation may be at work that the mirror does not have yet */
	_Atomic uint64_t committed_seq; /* all pages below are durable */
	_Atomic uint64_t pending_seq;	/* all pages below hold records */
	uint8_t *ram;	     /* ring of nr_ram pages; page of seq at seq % nr_ram */
	uint32_t nr_ram;
	uint32_t nr_admitted; /* operations that may each begin one more page */
	struct list waiters;  /* struct commit_wait */
	bool demanded, running;
	struct fiber_cond wake;
	struct timer timer;
};

/* mirror.c; keep.mem is NULL when there is none */
struct mirror {
	struct keep keep;
	uint64_t nr_slots;
	uint32_t crc; /* of the records of the page that is being filled */
};

struct freed {
	uint32_t cluster;
	uint64_t seq;
};

/* How fast background work may go: pace.c. */
struct pace {
	uint32_t nr_active; /* who works */
	bool quiet;	    /* nobody does, for a moment */
	bool idle;	    /* hosts do nothing */
	bool over;
	uint64_t rate, refilled_us; /* bytes a second */
	int64_t tokens;		    /* bytes */
	struct fiber_cond wake, go;
	uint32_t without[PACE_BUCKETS], with[PACE_BUCKETS]; /* hosts' latencies */
};

struct store {
	struct thread *owner;
	struct bdev_desc *desc;
	struct bdev *bdev;
	struct bdev_channel *bch;
	struct blob_channel internal;
	struct super super; /* as the newest checkpoint wrote it, or will */
	uint64_t id;

	/* geometry; constant */
	uint8_t block_shift, cluster_shift, cluster_block_shift, leaf_shift, inner_shift;
	uint8_t sub_shift, sub_block_shift; /* sub-blocks of a cluster, blocks of a sub-block */
	uint32_t subs_a_cluster, mask_words, mask_bytes, blocks_a_sub, slots_a_cluster;
	uint64_t nr_clusters, nr_data_clusters;
	bool has_cache, can_unmap, opened_read_only;
	_Atomic bool timing; /* hosts' I/O is timed */
	struct csums *csum; /* NULL: a store without checksums */
	uint64_t sum_cache_bytes;

	struct task kick_task, event_task;
	int failed_told; /* what the opener was told of failed */
	uint32_t nr_tasks; /* of these, that have yet to run */
	_Atomic int failed; /* 0, or the error that writes get */
	char read_only_reason[256];
	void (*event)(struct store *store, enum store_event event, void *arg);
	void *event_arg;
	bool loading; /* replay: records change memory, nothing is freed or dirty pages counted for admission */

	/* clusters: alloc.c */
	_Atomic uint32_t *_Atomic counts;
	/* Journal page of the newest record that made the count of one of these clusters 1 again: those of a bucket. */
	_Atomic uint64_t unshared[UNSHARED_BUCKETS];
	uint64_t *avail, *avail_summary; /* bits: may be allocated now */
	uint64_t nr_avail, alloc_cursor;
	uint64_t nr_promised; /* to thick blobs, not yet used */
	uint64_t nr_logical;  /* sizes of blobs that can be written */
	uint64_t nr_metadata;
	struct freed *coming; /* ring: freed, in order */
	uint64_t coming_head, coming_tail, coming_cap;
	uint64_t nr_freeing; /* taken off coming, not yet available */
	struct retired *retired;
	struct retired_entry *retired_entries, *spare_entry;
	uint64_t nr_retired; /* of both */
	uint16_t nr_locks[LOCK_BUCKETS]; /* on one cluster of a blob each, held or waited for, by a hash of both: lock.c */
	struct list space_waiters;
	uint32_t nr_space_urgent; /* fibers that wait for space besides those */
	struct fiber_cond free_wake, freed_cond;
	struct fiber_wait *grace_wait;
	_Atomic uint32_t grace_left;

	/* maps: map.c */
	struct node **nodes; /* by id; NULL: not in memory, or none */
	uint32_t *node_counts; /* by id; 0: no such node; COUNT_MAX: not known, so it is never freed */
	uint64_t nr_nodes, nodes_cap, node_counts_cap, nr_live_nodes;
	struct map_cache *cache;
	uint64_t map_cache_bytes; /* as asked for */
	bool map_cache_tiny;
	struct u64_vec free_node_ids;
	uint64_t resident_bytes; /* but maps */
	uint64_t map_bytes;	 /* of nodes and entries */

	/* metadata pages: page.c */
	struct mtable table[NR_TABLES];
	struct list dirty, frozen;
	uint64_t nr_dirty, nr_frozen, nr_tpages, max_dirty;
	struct u64_vec free_slots[2]; /* classes A and B */
	struct u64_vec replaced, replaced_before; /* by the checkpoint under way or just over, and the one before */
	uint64_t pages_admitted;
	uint32_t hold; /* online checks: replaced pages stay */

	struct journal journal;
	struct mirror mirror;
	struct list admit_waiters;

	/* checkpoint.c */
	struct fiber_cond ckpt_wake, ckpt_done;
	bool ckpt_demanded, ckpt_running;
	uint32_t nr_ckpt_waiting;
	uint64_t nr_ckpt_begun, nr_ckpt_ended;

	/* blobs */
	struct list blobs; /* by id */
	struct list externals; /* struct external */
	struct list *by_name, *by_uuid, *by_id;
	struct blob **slots; /* of the blob table */
	uint64_t nr_slots, slots_cap, slot_hint;
	uint32_t nr_blobs;

	/* reaper */
	uint32_t *reap;
	uint64_t nr_reap, reap_cap;
	struct fiber_cond reap_wake;
	bool reaping;

	/* slow path */
	struct fill *fills;
	struct fifo free_fills;
	struct list fill_waiters;
	uint32_t nr_copies; /* of clusters, under way (cow.c) */
	struct list copy_waiters;
	struct list punches; /* struct req.list */
	uint32_t nr_punch_fibers, nr_trimming;
	uint8_t *zeroes; /* ZERO_BYTES, DMA */

	/* fibers that live as long as the store */
	bool stopping, stopping_core; /* core: commits and checkpoints, which the others need to end */
	uint32_t nr_fibers, nr_core_fibers;
	struct fiber_cond fibers_gone;
	struct page_writer *writer;
	struct u64_vec heal; /* owners of pages of which one copy is bad */
	bool checking;	     /* loaded by store_check(): both copies are read, findings told */

	struct pace pace;
	uint32_t nr_reverts;
	bool growing;
	char **degraded;
	uint32_t nr_degraded, nr_healed;
	struct store_stats stats;
	store_finding_fn found; /* check.c */
	void *found_arg;
	struct store_check_result *check_result;
	struct progress *progress; /* of an online check; NULL: nobody looks */
};

/* What a blob's map amounts to.  Owner: the blob; changed with every entry (map.c). */
struct blob_figures {
	uint64_t nr_entries;  /* that name a cluster */
	uint64_t nr_named;    /* clusters that they name: own and base */
	uint64_t nr_own;      /* entries known to be written in place: at least so many are */
	uint64_t nr_differ;   /* entries that differ from the parent's, if differ_known */
	bool differ_known;
	uint64_t nr_changes;  /* since the open: a count that takes time notices */
};

/* A bdev whose bytes blobs show where they have none.  Owner: the store's; ready and what it covers are read by any thread. */
struct external {
	struct retired retired;
	struct list link;
	struct store *store;
	uuid_t uuid;
	uint32_t refs;
	struct bdev_desc *desc;
	uint64_t nr_blocks; /* of the store's size; constant while ready */
	uint8_t block_shift; /* how many of its blocks one of those is */
	_Atomic bool ready;
	bool leaving;
};

struct blob {
	struct store *store;
	_Atomic uint64_t root; /* like an inner node's slot */
	_Atomic uint64_t nr_clusters;
	void *user;
	uint64_t id, created_ms;
	_Atomic(struct external *) external; /* NULL: none */
	_Atomic uint64_t external_clusters;  /* what is not mapped below is the external bdev's; 0: nothing is */
	uint64_t parent_id; /* the snapshot that it shares with; 0: none */
	struct list children, child_link; /* blobs that have this one as their parent */
	uint32_t nr_children;
	uint64_t marked_up_to; /* clusters in front of it were marked last (csum_fill.c) */
	uint64_t promised, logical, nr_held; /* held: clusters for first writes */
	struct blob_figures figures;
	uint64_t exclusive_clusters, exclusive_us; /* as last counted, and when; 0: not since the open */
	uint32_t exclusive_s;			   /* the same by the wall clock; 0: never */
	uint32_t slot, nr_open;
	bool leaving;	   /* about to be deleted: walks that take time end, and nothing begins that needs it */
	uint32_t nr_needs; /* long operations on children of it that need it to stay */
	bool counting;	   /* what differs from its parent's, in a fiber */
	uint32_t nr_walks; /* fibers that look at its map, or wait for a node of it: its deletion waits for them */
	uint8_t flags;
	bool trimming, deleting;
	_Atomic bool degraded; /* a node of its map is lost, as far as anybody has looked: set on any thread */
	bool inflating; /* promised its size already, and not yet thick */
	_Atomic bool frozen; /* read-only or a snapshot: writes are refused */
	uint16_t xattr_len;
	uint8_t *xattrs;
	uuid_t uuid;
	char *name;
	struct list link, name_link, uuid_link, id_link;
	struct list locks, lock_waiters;
	uint32_t nr_wide_locks; /* of these, on more than a cluster */
	struct fiber_mutex mutex; /* one operation that changes it as a whole at a time */
	/* snapshot.c */
	bool snapshotting;	/* first writes do not go into clusters that are its own */
	bool draining;		/* writes from before the snapshot are in flight: what was its own is not copied from */
	uint32_t map_seq;	/* how often what was its own has become shared at once */
	uint32_t nr_in_own;	/* first writes that go into its own clusters */
	struct list own_waiters, drain_waiters; /* struct waiter */
	struct fiber_cond own_idle;
};

static inline uint64_t cluster_page(const struct store *s, uint32_t cluster)
{
	return (uint64_t)cluster << (s->cluster_shift - PAGE_SHIFT_BITS);
}

static inline uint64_t page_block(const struct store *s, uint64_t page)
{
	return page << (PAGE_SHIFT_BITS - s->block_shift);
}

static inline uint64_t cluster_block(const struct store *s, uint32_t cluster)
{
	return (uint64_t)cluster << s->cluster_block_shift;
}

static inline bool blob_is_thick(const struct blob *b)
{
	return b->flags & BLOB_FLAG_THICK || b->inflating;
}

/* Whether who shared a cluster, whose count is found to be 1, durably does so no more. */
static inline bool cluster_settled(struct store *s, uint32_t cluster)
{
	uint64_t seq = atomic_load(&s->unshared[cluster % UNSHARED_BUCKETS]);

	return BLOB_MUTANT(UNSETTLED_IN_PLACE) || !seq || seq < atomic_load(&s->journal.committed_seq);
}

static inline bool store_writable(struct store *s)
{
	return atomic_load_explicit(&s->failed, memory_order_relaxed) == 0;
}

/* Of a number from wherever: what cannot be is never freed. */
static inline uint32_t node_count(const struct store *s, uint32_t id)
{
	return id && id < s->nr_nodes ? s->node_counts[id] : COUNT_MAX;
}

static inline unsigned map_slot(const struct store *s, uint64_t index, unsigned level)
{
	if (!level)
		return index & ((1u << s->leaf_shift) - 1);
	return index >> (s->leaf_shift + (level - 1) * s->inner_shift) & ((1u << s->inner_shift) - 1);
}

static inline uint32_t node_nr_slots(const struct store *s, unsigned level)
{
	return 1u << (level ? s->inner_shift : s->leaf_shift);
}

/* The entry in a leaf that was found for its index; no leaf, or a lost one: nothing is there. */
static inline struct entry leaf_entry(const struct blob *b, uint64_t index, const struct node *leaf)
{
	uint64_t raw = 0;
	struct entry e;

	if (leaf && leaf->lost)
		return (struct entry){0};
	if (leaf)
		raw = atomic_load_explicit(&leaf->slots[map_slot(b->store, index, 0)], memory_order_acquire);
	e = entry_decode(raw);
	if (!raw)
		e.external = index < atomic_load_explicit(&b->external_clusters, memory_order_relaxed);
	return e;
}

/* store.c */
void store_fail(struct store *s, int status, const char *what); /* becomes read-only, for good */
void store_fail_now(struct store *s, int status); /* the part of it that cannot wait; any thread, store_fail() must follow */
void store_fiber_start(struct store *s, const char *name, void (*fn)(void *arg));
void store_fiber_over(struct store *s); /* the last thing such a fiber does */
void store_core_over(struct store *s);
void waiters_kick(struct list *waiters);
fiber_fn void store_free(struct store *s);
int store_attach(struct store *s, const char *bdev_name, bool write);
void store_heal(struct store *s, const struct u64_vec *owners);
fiber_fn int store_load(struct store *s, bool journal, struct blob_reason *reason);
struct store *store_new(void);
void store_set_geometry(struct store *s);
void store_start_fibers(struct store *s);
fiber_fn void store_stop_fibers(struct store *s);
__attribute__((format(printf, 2, 3))) void store_degrade(struct store *s, const char *fmt, ...);

/* vec.c */
int vec_push(struct u64_vec *vec, uint64_t value);
int vec_reserve(struct u64_vec *vec, size_t nr);
void vec_free(struct u64_vec *vec);
int array_grow(void *array_ptr, uint64_t *cap, uint64_t need, size_t elem_size); /* zeroes what is new */

/* page.c */
struct mpage *mpage_get(struct store *s, enum table_id table, uint64_t index); /* NULL: no memory */
void mpage_touch(struct store *s, enum table_id table, uint64_t index);	      /* before its content changes */
int mtable_grow(struct store *s, enum table_id table, uint64_t nr_pages);
bool mpage_encode(struct store *s, const struct mpage *page, uint8_t *payload, uint32_t *ret_used, enum page_type *ret_type);
void pages_freeze(struct store *s);
uint64_t pages_needed(const struct store *s); /* slot pairs that the next checkpoint may take */
uint64_t pages_free(const struct store *s);
int slots_add_cluster(struct store *s, uint32_t cluster, unsigned class);
void pages_destroy(struct store *s);

/* alloc.c */
int alloc_init(struct store *s);
_Atomic uint32_t *counts_alloc(uint64_t nr);
struct retired *counts_retired(_Atomic uint32_t *counts);
int avail_grow(struct store *s, uint64_t nr_clusters);
void cluster_gained(struct store *s, uint64_t cluster); /* a new one */
void alloc_destroy(struct store *s);
void alloc_build_available(struct store *s); /* after loading: from counts */
void cluster_ref(struct store *s, uint32_t cluster);
void cluster_unref(struct store *s, uint32_t cluster);
uint32_t cluster_alloc(struct store *s, struct blob *blob); /* 0: none now */
void cluster_release(struct store *s, struct blob *blob, uint32_t cluster); /* allocated, never mapped */
bool space_is_coming(const struct store *s);
int meta_grow(struct store *s, enum op_kind kind); /* one more cluster of each class; 0 or -ENOSPC, -ENOMEM */
uint64_t thick_promise(const struct store *s, uint64_t nr_clusters);
uint64_t thick_overhead(const struct store *s, uint64_t nr_clusters);
uint64_t clusters_unpromised(const struct store *s);
void blob_promise(struct blob *b); /* after its size, map or flags changed */
void cluster_available(struct store *s, uint32_t cluster); /* it has come all the way back */

/* grace.c */
void retire(struct store *s, struct retired *mem);
void retire_entry(struct store *s, struct partial *partial);
void retired_free(struct retired *memory, struct retired_entry *entries);
fiber_fn void grace_wait(struct store *s);
void free_fiber(void *arg);
static inline uint8_t in_flight_get(struct blob_channel *ch)
{
	ch->in_flight[ch->parity]++;
	return ch->parity;
}
void channel_drained(struct blob_channel *ch);
static inline void in_flight_put(struct blob_channel *ch, uint8_t parity)
{
	if (--ch->in_flight[parity] == 0 && __builtin_expect(ch->draining, 0) && parity != ch->parity)
		channel_drained(ch);
}

/* admit.c */
/* 0: admitted; -EAGAIN: wait on s->admit_waiters and try again; -ENOSPC; -EROFS… */
int admit(struct store *s, struct admission *admission, uint32_t nr_pages, enum op_kind kind);
fiber_fn void waiters_wait(struct list *waiters); /* until they are kicked */
fiber_fn int admit_wait(struct store *s, struct admission *admission, uint32_t nr_pages, enum op_kind kind);
void admit_release(struct store *s, struct admission *admission);
uint32_t freeing_pages(const struct store *s); /* the most that one freeing operation makes dirty */

/* journal.c */
uint32_t journal_ram_pages(const struct store *s);
int blob_journal_init(struct store *s);
void blob_journal_destroy(struct store *s);
void journal_begin(struct store *s, uint32_t max_bytes); /* an operation: its records come into one page */
uint8_t *journal_record(struct store *s, uint8_t type, uint32_t body_bytes); /* its body, to be filled in */
void journal_end(struct store *s);
void journal_demand(struct store *s); /* a commit now */
uint64_t journal_cut(struct store *s); /* what is recorded from now on comes into pages from this one on */
void journal_wait_add(struct store *s, struct commit_wait *wait);
fiber_fn int journal_commit_wait(struct store *s, bool flush);
void commit_fiber(void *arg);

/* mirror.c: on the owner, but for mirror_invalidate() */
void mirror_open(struct store *s); /* once the superblock is known */
/* From now on it does not count: what it relies on may be lost.  Any thread. */
void mirror_invalidate(struct store *s);
void mirror_close(struct store *s, bool forget);
/* After the journal's pages below *journal_end: those that the process before kept.  0, -ENOMEM, or -EUCLEAN. */
fiber_fn int mirror_replay(struct store *s, uint64_t *journal_end, struct blob_reason *reason);
void mirror_start(struct store *s); /* under the epoch that is durable now */
/* An operation is whole: bytes from to to of the page's records are new, of which there are nr now. */
void mirror_put(struct store *s, uint64_t seq, const uint8_t *records, uint32_t from, uint32_t to, uint32_t nr);
void mirror_committed(struct store *s, uint64_t seq); /* all pages below seq are durable */

/* record.c */
enum record_type {
	REC_MAP_FILL = 1,
	REC_MAP_PUT,
	REC_MAP_CLEAR,
	REC_NODE_NEW,
	REC_NODE_COPY,
	REC_ROOT_GROW,
	REC_BLOB_CREATE,
	REC_BLOB_DELETE,
	REC_BLOB_RESIZE,
	REC_BLOB_ATTR,
	REC_REAP,
	REC_BLOB_SNAPSHOT,
	REC_STORE_NAME,
	REC_BLOB_REVERT,
	REC_BLOB_PARENT,
	REC_MAP_SHARE,
	REC_BLOB_TAKE,
	REC_SUMS_MARK = 32,
	REC_SUMS_CLEAN,
};
#define RECORD_HEADER 4u
int record_apply(struct store *s, const uint8_t *record, uint32_t len, struct blob_reason *why);
/* Those of a page, one after another: replay. */
fiber_fn int records_apply(struct store *s, const uint8_t *payload, uint32_t used, uint64_t *ret_nr, struct blob_reason *why);
/* The nodes that many pages of records need, read side by side. */
fiber_fn int records_prefetch(struct store *s, const uint8_t *pages, uint64_t seq, uint64_t nr_pages);
/* Adds a record of the current operation and applies it. */
void rec_map_fill(struct store *s, struct blob *b, uint64_t index, uint32_t own, uint32_t first_sub, uint32_t nr_subs);
#define PUT_EXTERNAL 1u
void rec_map_put(struct store *s, struct blob *b, uint64_t index, uint32_t own, uint32_t base, bool external,
		 const uint64_t *mask);
void rec_map_clear(struct store *s, struct blob *b, uint64_t first, uint32_t nr);
void rec_node(struct store *s, uint8_t type, struct blob *b, uint64_t index, unsigned level, uint32_t node);
void rec_root_grow(struct store *s, struct blob *b, uint32_t node);
void rec_blob(struct store *s, uint8_t type, uint32_t slot, const struct blob_image *image);
void rec_blob_delete(struct store *s, struct blob *b);
void rec_blob_resize(struct store *s, struct blob *b, uint64_t nr_clusters);
void rec_reap(struct store *s, uint32_t node);
void rec_store_name(struct store *s, const char *name);
void rec_sums(struct store *s, uint8_t type, const uint32_t *clusters, uint32_t nr);
void rec_blob_snapshot(struct store *s, struct blob *b, uint32_t slot, const struct blob_image *image);
void rec_blob_revert(struct store *s, struct blob *b, const struct blob *snapshot);
void rec_blob_parent(struct store *s, struct blob *b, uint64_t parent_id);
void rec_map_share(struct store *s, struct blob *b, uint64_t first, uint32_t nr, const struct blob *from);
void rec_blob_take(struct store *s, struct blob *b, const struct blob *from, uint64_t parent_id);

/* blob.c */
int blob_from_image(struct store *s, uint32_t slot, const struct blob_image *image, uint32_t root, struct blob **ret_blob);
void blob_to_image(const struct blob *b, struct blob_image *image);
int blob_take_attrs(struct blob *b, const struct blob_image *image);
void blob_forget(struct blob *b); /* out of all lists, freed once no other thread can see it */
void blob_free(struct blob *b);
int blobs_sort(struct store *s); /* by id, as walks that go on from an id rely on; 0 or -ENOMEM */
struct blob *blob_by_id(struct store *s, uint64_t id); /* NULL: none */
void blob_relate(struct blob *b, uint64_t parent_id);
void blobs_relate(struct store *s); /* all of them, after loading */

/* snapshot.c */
/* A blob that shares the map of another, in one record.  NULL: the store has failed. */
struct blob *blob_make_copy(struct blob *from, const struct blob_copy_opts *opts, uint8_t flags, uint64_t parent_id,
			    const uint8_t *xattrs, uint16_t xattr_len);
fiber_fn int blob_part_children(struct blob *b); /* until one record can do the rest: they become its parent's */

/* figures.c */
void figures_change(struct blob *b, uint64_t index, uint64_t raw, bool gain);
void figures_share(struct blob *b, const struct blob *from); /* its map is the other's now; after they are related */
void figures_keep(struct blob *b);			     /* what was counted is written with the next checkpoint, if there is room */
void figures_same(struct blob *b);			     /* its map is its parent's */
fiber_fn void figures_recount(struct blob *b);		     /* nr_own */
uint64_t figures_differ(struct blob *b);		     /* entries that differ from its parent's */

/* control.c */
void store_new_uuid(uuid_t uuid);
int blob_check_name(struct store *s, const char *name, const struct blob *but);
uint32_t blob_free_slot(struct store *s);
fiber_fn int promise_wait(struct store *s, uint64_t nr); /* until so many more clusters can be promised; -ENOSPC */
fiber_fn int blob_wait_trimmed(struct blob *b);
int blob_need(struct blob *b); /* that stays until blob_unneed(); NULL is fine.  -EAGAIN: it is being deleted */
void blob_unneed(struct blob *b);
fiber_fn int blob_set_attrs(struct blob *b, const struct blob_image *change);
int blob_xattrs_with(const struct blob *b, const char *key, const void *value, uint16_t value_len, uint8_t *out);

/* drain.c */
struct drain {
	struct blob *blob;
	_Atomic uint32_t left;
	struct fiber_wait wait;
};
fiber_fn void drain_writes(struct blob *b); /* that found the map as it was before now, and go in place */
void drain_over(struct req *req);

/* lock.c */
void range_lock_init(struct range_lock *l, uint64_t first, uint64_t end, void (*ready)(struct range_lock *lock));
bool range_lock(struct blob *b, struct range_lock *l); /* false: ready comes later */
void range_unlock(struct blob *b, struct range_lock *l);
fiber_fn void range_lock_wait(struct blob *b, struct range_lock *l);

/* io.c */
int blob_channel_init(struct blob_channel *ch, struct store *s, uint32_t nr_reqs);
void blob_channel_fini(struct blob_channel *ch);
void req_finish(struct req *req, int status); /* on its thread, not within blob_submit() */
void req_return(struct req *req, int status); /* from the owner, to its thread */
void read_missed(struct req *req);	     /* on the owner */
void req_restart(struct req *req);	     /* the same, to begin again */
/* Up to iovs pieces of iov, from byte skip on, for at most bytes; their number, and *ret_bytes what they hold. */
unsigned blob_iov_slice(const struct iovec *iov, unsigned iovcnt, uint64_t skip, uint64_t bytes, struct iovec *out, unsigned max,
		   uint64_t *ret_bytes);
extern const struct device_ops blob_channel_ops;

/* fill.c */
int fills_init(struct store *s);
void fills_destroy(struct store *s);
void owner_start(void *arg); /* a request that the owner must serve */
uint32_t fill_sibling_own(struct blob *b, uint64_t index);

/* punch.c */
void punch_start(struct req *req);
fiber_fn int blob_punch(struct blob *b, uint64_t first_block, uint64_t nr_blocks);
void blob_trim_start(struct blob *b);

/* reaper.c */
void reap_fiber(void *arg);

/* checkpoint.c */
void checkpoint_demand(struct store *s);
void checkpoint_fiber(void *arg);
fiber_fn int checkpoint_wait(struct store *s); /* for one that begins from now on */
fiber_fn int checkpoint_run(struct store *s, bool clean);
fiber_fn int super_write(struct store *s, const struct super *super);
int page_writer_init(struct store *s);
void page_writer_destroy(struct store *s);

/* load.c */
struct page_read {
	uint64_t key; /* the reader's */
	struct page_ref ref;
	enum page_type type;
	uint64_t owner;
	void *ctx;
};
/* Reads all, several at a time, and hands each whole payload to take (NULL: lost); in check mode reads both copies. */
fiber_fn int pages_read(struct store *s, const struct page_read *reads, uint64_t nr,
			int (*take)(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used,
				    enum page_type type));
fiber_fn int load_tables(struct store *s);
fiber_fn int load_all(struct store *s);

/* create.c */
fiber_fn int sums_clear(struct store *s, const struct super *super, uint64_t from); /* checksums of groups from that one on */

bool copy_bad(struct store *s, const struct page_read *read, bool copy_b, const struct blob_reason *why); /* the other is used */
void copies_bad(struct store *s, const struct page_read *read, const struct blob_reason *why_a, const struct blob_reason *why_b);
int copy_check(struct store *s, const struct page_read *read, bool copy_b, const uint8_t *page, int status,
	       enum page_type *ret_type, uint32_t *ret_used, struct blob_reason *why);
void page_refused(struct store *s, const struct page_read *read, const struct blob_reason *why);

/* recover.c */
fiber_fn int supers_read(struct store *s, struct blob_reason *reason);
fiber_fn int journal_replay(struct store *s, struct blob_reason *reason);

/* csum.c, csum_mark.c, csum_read.c, csum_fill.c: what others call; the rest is in csum.h.  s->csum is not NULL */
int csum_init(struct store *s);
int csum_resize(struct store *s, uint64_t nr_clusters);
void csum_destroy(struct store *s);
void csum_cluster_new(struct store *s, uint32_t cluster);  /* its count is no longer 0 */
void csum_cluster_gone(struct store *s, uint32_t cluster); /* its count is 0 */
void csum_mark(struct store *s, uint32_t cluster);	   /* by a record */
void csum_clean(struct store *s, uint32_t cluster);
bool csum_is_marked(const struct store *s, uint32_t cluster);
void csum_load_mark(struct store *s, uint32_t cluster);
void csum_loaded(struct store *s);
void csum_fiber(void *arg);
void csum_kick(struct store *s);
bool csum_unsettled(const struct store *s);
void csum_get_info(const struct store *s, struct store_info *info); /* of any store */
fiber_fn void csum_clean_all(struct store *s); /* no I/O is left: takes back all marks it can */
int csum_read_wrap(struct req *carrier);
bool csum_resident(const struct store *s, uint64_t block, uint64_t nr);
bool csum_matches(const struct store *s, const struct bdev_io *bio);
void csum_read_owner(struct req *req);
/* What was read from one cluster of blob b (or of who shares it), at index, and is written to another under its lock: the
 * checksums come along. */
fiber_fn int csum_copied(struct blob *b, uint64_t index, uint32_t from, uint32_t to, uint32_t first, uint32_t nr,
			 const uint8_t *buf);

/* external.c */
#define SOURCE_EXTERNAL UINT32_MAX /* where a cluster is named as what something is read from */
struct external *ext_get(struct store *s, const uuid_t uuid); /* a reference; NULL: no memory */
void ext_put(struct external *ext);
void ext_find(struct store *s); /* opens those that are there by now */
void ext_destroy_all(struct store *s);
void ext_channels_fini(struct blob_channel *ch);
struct ext_channel *ext_begin(struct blob_channel *ch, struct external *ext); /* NULL: it is missing */
void ext_submit(struct ext_channel *xc, struct bdev_io *bio); /* a read, in the store's blocks */
void ext_end(struct ext_channel *xc);
/* How many blocks from offset on are alike: the bdev's, or (false) behind its end, where zeros are read. */
bool ext_range(const struct external *ext, uint64_t offset, uint64_t nr, uint64_t *ret_nr);
/* Finds and opens what a new blob is to show: 0 and a reference. */
int ext_choose(struct store *s, const char *bdev_name, struct blob_image *image, struct external **ret_ext);
/* Waits while a bdev, shown until now, is being let go. */
fiber_fn void ext_wait_left(struct store *s, const char *bdev_name);
fiber_fn int ext_read_wait(struct blob *b, void *buf, uint64_t offset, uint64_t nr); /* blocks of the blob; owner */
int blob_take_external(struct blob *b, const uuid_t uuid, uint64_t nr_clusters);
bool blob_same_external(const struct blob *a, const struct blob *b);

/* scrub.c */
void settle_fiber(void *arg);

/* pace.c: background work in steps, each followed by pace() with the bytes it read or wrote */
void pace_init(struct store *s);
void pace_stop(struct store *s);
void pace_begin(struct store *s);
fiber_fn void pace(struct store *s, uint64_t bytes); /* suspends, at least to let others run */
/* The same, but not while urgent() says that somebody waits for this work; who comes to wait calls pace_hurry(). */
fiber_fn void pace_unless(struct store *s, uint64_t bytes, bool (*urgent)(const struct store *s));
void pace_hurry(struct store *s);
void pace_end(struct store *s);
void pace_fiber(void *arg);
void pace_note(struct blob_channel *ch, uint64_t ticks);
uint64_t pace_judge(uint64_t rate, const uint32_t *quiet, const uint32_t *working);

/* check.c */
__attribute__((format(printf, 4, 5))) void check_found(struct store *s, enum store_finding_kind kind, uint64_t page,
						       const char *fmt, ...);

#include "blob/mutant_alloc.h"

#endif
