/*
 * The blobstore: crash-safe, thin-provisioned blobs on one bdev.  A blob is a sparse array of clusters with a name, a UUID
 * and a few attributes; what a completed Flush or FUA covered survives anything, and what was never written reads zero.
 *
 * A store belongs to the thread that opened it, its owner (the app thread, since it opens a bdev).  I/O is submitted on
 * any thread through a channel of that thread; everything else is fiber code on the owner.
 */
#ifndef BLOB_BLOB_H
#define BLOB_BLOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uuid/uuid.h>

#include "runtime/progress.h"
#include "runtime/runtime.h"

struct store;
struct blob;
struct blob_channel;

#define BLOB_SUB_SIZE	     4096u /* bytes of a sub-block: what is tracked as written or not, and copied on a write */
#define BLOB_NAME_MAX	     255u  /* bytes, without the final zero */
#define BLOB_XATTR_MAX	     2048u /* bytes of all extended attributes of a blob: key, value and 4 more for each */
#define BLOB_CLUSTER_MIN     (32u * 1024)
#define BLOB_CLUSTER_MAX     (16u * 1024 * 1024)
#define BLOB_CLUSTER_DEFAULT (1024u * 1024)

/* Why something was refused, for a person: which page, and what is wrong with it.  Owner: the caller. */
struct blob_reason {
	char text[256];
};

/* --- stores --- */

struct store_create_opts {
	const char *name;	     /* 1 to BLOB_NAME_MAX bytes */
	uuid_t uuid;		     /* null: a new random one */
	uint32_t cluster_size_bytes; /* power of two, BLOB_CLUSTER_MIN to _MAX; 0: BLOB_CLUSTER_DEFAULT */
	uint32_t journal_pages;	     /* 4 KiB each, at least 8, at most 1/32 of the store; 0: a default */
	uint8_t leaf_shift;	     /* small geometry for tests: 2^n entries a leaf; 0: the most that fit a page */
	uint8_t inner_shift;	     /* 2^n children an inner node, 1 to 8; 0: 8 */
	bool overwrite;		     /* a store that is there is not refused but lost */
	bool checksums;		     /* CRC32C of each 4 KiB of data; for the store's life (doc/blob.md) */
};

enum store_event {
	STORE_EVENT_REMOVED,   /* the bdev went away: close the store; all I/O fails with -ENODEV */
	STORE_EVENT_READ_ONLY, /* a flush or a journal write failed: see store_info.read_only_reason */
	STORE_EVENT_CHECKSUM,  /* data do not match their checksum: see store_take_bad() */
};

struct store_open_opts {
	/* Writes nothing at all, whatever must be recovered; a damaged journal is used up to the damage, and what lies behind the end of a
	 * device that has become shorter answers -EIO: see store_degraded(). */
	bool read_only;
	uint32_t max_dirty_pages; /* a checkpoint starts at so many; 0: a default */
	void (*event)(struct store *store, enum store_event event, void *arg); /* on the owner; may be NULL */
	void *event_arg;
	bool map_cache_tiny;	  /* for tests: less than 16 MiB is taken at its word */
	uint64_t map_cache_bytes; /* for nodes of maps, at least 16 MiB; 0: a default, 56 MiB for each TiB of the device */
	uint64_t checksum_cache_bytes; /* 0: a default, 64 MiB: checksums of 62 GiB of data */
};

/**
 * store_create - make an empty store on a bdev, and open it
 * @bdev_name: name, alias or UUID of the bdev; it is claimed
 * @opts:      not kept
 * @open_opts: may be NULL
 * @reason:    filled when it fails; may be NULL
 *
 * Thread: app, in a fiber; the calling thread becomes the owner.
 * Return: 0, or -ENODEV, -EBUSY (claimed), -EEXIST (holds a store, not to be overwritten), -EINVAL (sizes, name),
 *         -ENOSPC (too small), -EROFS, -EIO, -ENOMEM.
 */
fiber_fn int store_create(const char *bdev_name, const struct store_create_opts *opts,
			  const struct store_open_opts *open_opts, struct store **ret_store, struct blob_reason *reason);

/**
 * store_open - open the store on a bdev, recovering it if it was not closed
 *
 * Reads superblocks, live metadata and the journal; writes nothing that is live.
 *
 * Thread: app, in a fiber; the calling thread becomes the owner.
 * Return: 0, or -ENODEV, -EBUSY, -EILSEQ (no store of ours), -ENOTSUP (too new: an incompat bit or version that we do not
 *         know), -EUCLEAN (damaged: the reason names the page), -EIO, -ENOMEM.
 */
fiber_fn int store_open(const char *bdev_name, const struct store_open_opts *open_opts, struct store **ret_store,
			struct blob_reason *reason);

/* Whether a bdev holds a store, and which; reads the superblocks only, claims nothing.  As store_open() returns. */
struct store_label {
	uuid_t uuid;
	char name[BLOB_NAME_MAX + 1];
};
fiber_fn int store_probe(const char *bdev_name, struct store_label *ret_label, struct blob_reason *reason);

/**
 * store_close - make everything durable, and free the store
 *
 * Every blob must be closed and every channel put, or on its way to be: it waits for channels.  Reaping goes on after the
 * next open.  The store is gone whatever is returned.
 * Thread: owner, fiber.  Return: 0, or -EIO when the last checkpoint failed (the next open recovers).
 */
fiber_fn int store_close(struct store *store);

/* Closes the store and wipes both superblocks, durably.  -EBUSY when a blob is open, -EROFS when it was opened read-only (the store then
 * stays open). */
fiber_fn int store_destroy(struct store *store);

/* Renames the store; durable when it returns.  Owner, fiber. */
fiber_fn int store_rename(struct store *store, const char *name);

/**
 * store_grow - use what the bdev has grown by
 *
 * New clusters are free when it returns; nothing moves.  Atomic across a crash.  Nothing to gain is a success.
 * Thread: owner, fiber.
 * Return: 0, or -EROFS, -EIO, -ENODEV, -EBUSY (it is being grown), -ENOMEM.
 */
fiber_fn int store_grow(struct store *store);

/* A checkpoint now; afterwards the journal is empty but for what came meanwhile.  Owner, fiber. */
fiber_fn int store_checkpoint(struct store *store);

/* Waits until everything deleted and unmapped until now is free again.  Owner, fiber. */
fiber_fn int store_wait_free(struct store *store);

struct store_info {
	uuid_t uuid;
	char name[BLOB_NAME_MAX + 1];
	char bdev_name[256];
	uint64_t nr_clusters;	       /* that data and metadata may use: without superblocks and journal */
	uint64_t nr_free_clusters;     /* neither used nor promised to a thick blob */
	uint64_t nr_coming_clusters;   /* freed, on their way back */
	uint64_t nr_reserved_clusters; /* promised to thick blobs, not yet used */
	uint64_t nr_metadata_clusters;
	uint64_t nr_logical_clusters; /* sizes of all blobs but snapshots and read-only ones */
	uint32_t block_size;	       /* of I/O: 512 or 4096 */
	uint32_t cluster_size_bytes;
	uint32_t nr_blobs;
	uint32_t journal_pages, journal_used_pages;
	uint64_t generation; /* of the newest checkpoint */
	bool read_only;
	bool opened_read_only;	    /* as store_open_opts.read_only said */
	char read_only_reason[256]; /* empty: none */
	uint32_t nr_degraded;	    /* metadata pages lost with both copies; see store_degraded() */
	uint32_t nr_healed;	    /* copies found bad since the open and written anew from the good one */
	uint32_t write_unit_blocks; /* atomic at power failure */
	bool has_write_cache;
	bool checksums;
	uint64_t nr_bad;	/* sub-blocks read since the open that did not match their checksum */
	uint64_t nr_unverified; /* sub-blocks of clusters that a crash left dirty, that did not match and were stamped anew */
	uint64_t nr_unknown;	/* sub-blocks whose checksum was lost, and taken as they were */
};

void store_get_info(struct store *store, struct store_info *ret_info); /* owner */

/* Opens external bdevs that were missing and have come.  Owner. */
void store_find_externals(struct store *store);

/* What was lost, one line each, idx from 0; NULL past the last.  Owner. */
const char *store_degraded(struct store *store, uint32_t idx);

/* A block that did not match its checksum.  Owner. */
struct store_bad {
	uint64_t blob_id;
	char blob_name[BLOB_NAME_MAX + 1];
	uint64_t offset_blocks, nr_blocks; /* of the blob: the sub-block */
	uint32_t cluster;		   /* of the store */
	uint32_t crc_stored, crc_found;
};

/* The next one that was found since the last call; of more than 256 only the newest.  false: none. */
bool store_take_bad(struct store *store, struct store_bad *ret_bad);

struct store_stats {
	uint64_t nr_reads, nr_writes, nr_flushes, nr_unmaps; /* I/Os of blobs */
	uint64_t nr_slow_writes;   /* that had to change a map or wait for its owner */
	uint64_t nr_copied_subs;   /* sub-blocks copied from a base */
	uint64_t nr_commits, nr_device_flushes, nr_journal_pages, nr_records;
	uint64_t nr_checkpoints, nr_checkpoint_pages;
	uint64_t nr_reaped_nodes, nr_freed_clusters;
	uint64_t nr_space_waits, nr_admit_waits, nr_pool_waits;
	uint64_t nr_sum_reads, nr_sum_writes, nr_sum_marks; /* pages of checksums; marks of clusters made durable */
	uint64_t recovery_us, recovered_records;
	uint64_t resident_bytes; /* of maps and counts */
	uint64_t map_bytes;	 /* of that, nodes of maps: see store_open_opts.map_cache_bytes */
	uint64_t nr_node_reads, nr_node_evictions;
};

fiber_fn void store_get_stats(struct store *store, struct store_stats *ret_stats); /* owner */

/* --- blobs: control --- */

struct blob_create_opts {
	const char *name;   /* unique in the store */
	uuid_t uuid;	    /* null: a new random one; unique in the store */
	uint64_t size_bytes; /* rounded up to clusters; 0 is fine */
	bool thick;	    /* all it may ever need is promised to it: -ENOSPC now or never */
	/* Name, alias or UUID of a bdev whose bytes it shows where it has none itself; size_bytes 0: as large as that.  NULL: none.
	 * Nobody may write the bdev meanwhile; it is found again by its UUID.  -ENODEV, -EBUSY (others may write it), -EINVAL (thick, or larger blocks). */
	const char *external;
};

/* Each is atomic across a crash, durable and visible when it returns 0.  Owner, fiber.
 * Besides what is named: -EROFS, -EIO (the store became read-only), -ENOMEM, -ENOSPC. */

/* -EEXIST name or uuid taken, -EINVAL, -EFBIG.  The blob is not opened. */
fiber_fn int blob_create(struct store *store, const struct blob_create_opts *opts, struct blob **ret_blob);
/* -EBUSY while it is open, or needed (blob_leave()).  The space comes back in the background.  Its children get its parent. */
fiber_fn int blob_delete(struct blob *blob);
/* Announces that, so that it is not refused after the blob's users were sent away: until blob_delete() has returned, nothing begins
 * that needs the blob to stay.  -EBUSY: a child of it is being copied (blob_shallow_copy()), or is getting another parent. */
int blob_leave(struct blob *blob);
/* Up or down; what is cut off is freed in the background and reads zero should it grow again.  -EFBIG, -EPERM: read-only. */
fiber_fn int blob_resize(struct blob *blob, uint64_t size_bytes);
fiber_fn int blob_rename(struct blob *blob, const char *name); /* -EEXIST, -EINVAL */
/* value NULL removes.  -EINVAL the key is empty or longer than 255 bytes, -ENODATA nothing to remove, -E2BIG. */
fiber_fn int blob_set_xattr(struct blob *blob, const char *key, const void *value, uint16_t value_len);

struct blob_xattr {
	const char *key; /* 1 to 255 bytes */
	const void *value;
	uint16_t value_len;
};

struct blob_copy_opts {
	const char *name; /* unique in the store */
	uuid_t uuid;	  /* null: a new random one; unique in the store */
	const struct blob_xattr *xattrs; /* its extended attributes, in the same moment; the other's are not copied */
	uint32_t nr_xattrs;
};

/**
 * blob_snapshot - freeze what a blob holds at one moment, in a new blob
 *
 * Takes no time that depends on sizes, and no I/O fails or waits for it but by the time of writes in flight.  The moment lies
 * between call and return; a write is in the snapshot only with all that had completed before it was submitted.  The snapshot is
 * read-only; it takes the blob's place as its parent's child, and becomes the blob's parent.
 *
 * Return: 0, or -EPERM (it is a snapshot), -EEXIST, -EINVAL, -E2BIG (attributes), -ENOSPC: for a thick blob all that it has
 *         written so far must be promised to it again.
 */
fiber_fn int blob_snapshot(struct blob *blob, const struct blob_copy_opts *opts, struct blob **ret_blob);

/* A new thin blob that begins with what a snapshot, or a read-only blob, holds: its child.  As blob_snapshot(); -EPERM: it can be
 * written. */
fiber_fn int blob_clone(struct blob *from, const struct blob_copy_opts *opts, struct blob **ret_blob);

/* The blob, size included, becomes what a snapshot of the store holds, and the snapshot its parent.  Writes under way happen before
 * or after.  -EINVAL it is no snapshot; -EPERM the blob is read-only; -ENOSPC (thick). */
fiber_fn int blob_revert(struct blob *blob, struct blob *snapshot);

/* What it has as its parent has it (without one: what it does not have) becomes what a snapshot of the same size has, cluster by
 * cluster, and that its parent.  Clusters that differ stay as they are.  First writes and unmaps wait meanwhile.  -EINVAL no snapshot, or
 * of another size; -EEXIST it is the parent; -EPERM the blob is read-only or thick; -EAGAIN its parent is being deleted. */
fiber_fn int blob_set_parent(struct blob *blob, struct blob *snapshot);

/* What it has as its parent has it (without one: what it does not have) becomes what another bdev has there, and it has no parent; what
 * it reads from another external bdev it reads from this one.  The bdev as in blob_create_opts.external, of any size: zeros lie behind
 * it.  -ENODEV, -EBUSY (others may write it), -EINVAL (the store's own, or larger blocks, or no UUID), -EEXIST it is shown already,
 * -EPERM the blob is read-only or thick; -EAGAIN its parent is being deleted. */
fiber_fn int blob_set_external(struct blob *blob, const char *bdev_name);

/* Its parent's parent becomes its parent.  Moves no data: maps are shared, and nothing depends on the parent.  -EINVAL: none. */
fiber_fn int blob_decouple(struct blob *blob);

/**
 * blob_inflate - make all that a blob shares its own, and it thick
 * @progress: in clusters; may be NULL
 *
 * Its size is promised to it at once; then what it shares is copied, paced, while I/O goes on.  At the end it is thick and has no parent,
 * unless a snapshot was taken meanwhile.  Ended early, or by a crash, what was copied stays copied, and another call goes on from there.
 *
 * Thread: owner, fiber.
 * Return: 0, or -EPERM (read-only), -EBUSY (one runs), -ENOSPC, -ECANCELED, -ESHUTDOWN, -EIO, -ENOMEM.
 */
fiber_fn int blob_inflate(struct blob *blob, struct progress *progress);

/* For good.  Writes that began before are done when it returns; others fail with -EROFS. */
fiber_fn int blob_set_read_only(struct blob *blob);

/* What deleting it alone would give back, in clusters: a walk over what nobody shares.  Exact if nothing is written meanwhile. */
fiber_fn int blob_exclusive(struct blob *blob, uint64_t *ret_clusters);

struct blob_range {
	uint64_t offset_bytes, len_bytes;
	bool mapped; /* false: it reads zero now; beside no other blob, what an external bdev shows is not told at all */
};

/* A walk over what differs between two blobs of a store, or (from NULL) over what one maps.  Owner: the caller. */
struct blob_diff {
	struct blob *from, *to; /* open; ranges lie in to */
	bool whole_clusters;	/* which clusters, not which 4 KiB of them: an entry differs, or is there */
	uint64_t at_bytes;	/* begins at 0 or any sub-block; goes on from where the last call ended */
};

/* The next ranges, by rising offset; fewer than max: that was all.  Passes over what both share.  -EIO: lost there. */
fiber_fn int blob_diff_next(struct blob_diff *diff, struct blob_range *ranges, uint32_t max, uint32_t *ret_nr);

/* Synchronous, owner; valid until the fiber suspends, unless open.  NULL: none. */
struct blob *blob_parent(const struct blob *blob);
struct blob *blob_first_child(const struct blob *blob);
struct blob *blob_next_child(const struct blob *child); /* of the same parent */

/* Synchronous, owner.  What is returned is valid until the fiber suspends or the blob changes. */
int blob_get_xattr(const struct blob *blob, const char *key, const void **ret_value, uint16_t *ret_len); /* -ENODATA */
/* idx from 0; false past the last */
bool blob_xattr_at(const struct blob *blob, uint32_t idx, const char **ret_key, uint8_t *ret_key_len, const void **ret_value,
		   uint16_t *ret_len);

/* Blobs in order of creation; valid until the fiber suspends, unless open. */
struct blob *store_first_blob(struct store *store);
struct blob *store_next_blob(struct blob *blob);
struct blob *store_find_blob(struct store *store, const char *name); /* NULL: none */
struct blob *store_find_blob_uuid(struct store *store, const uuid_t uuid);

struct blob_info {
	uint64_t id; /* never used again in this store */
	uuid_t uuid;
	char name[BLOB_NAME_MAX + 1];
	uint64_t size_bytes, nr_clusters;
	uint32_t cluster_size_bytes;
	uint64_t nr_allocated_clusters; /* of those, mapped; shared ones too */
	uint64_t nr_differing_clusters; /* of the allocated, not as its parent has them; without a parent: all */
	bool counting;			/* what differs is not known: nodes of the maps are being read; all of them until then */
	uint64_t nr_named_clusters;	/* of the store, that it refers to: what it would take alone.  Exact, at once */
	uint64_t exclusive_clusters;	/* that only it refers to, as blob_exclusive() counted them last */
	uint64_t exclusive_age_us;	/* how long ago; UINT64_MAX: never.  From before the open: by the wall clock, to the second */
	uint64_t created_ms;		/* wall clock */
	uint64_t parent_id;		/* id of the snapshot that it shares with; 0: none */
	uint32_t nr_children;		/* blobs that have this one as their parent */
	bool thick, read_only, snapshot;
	bool degraded; /* a page of its map is lost: reads and writes there fail with -EIO */
	bool external;		/* it shows another bdev's bytes where it has none */
	bool external_missing;	/* which is not there: reads of those fail with -EIO */
	uuid_t external_uuid;
};

void blob_get_info(struct blob *blob, struct blob_info *ret_info);

/* An open blob cannot be deleted, and its pointer stays valid.  Counted.  Owner. */
void blob_open(struct blob *blob);
void blob_close(struct blob *blob);

uint64_t blob_nr_blocks(const struct blob *blob); /* any thread */
struct store *blob_store(const struct blob *blob);
void *blob_user(const struct blob *blob); /* the opener's; any thread that got the blob after it was set */
void blob_set_user(struct blob *blob, void *user);

/* --- blobs: I/O --- */

enum blob_op { BLOB_READ, BLOB_WRITE, BLOB_FLUSH, BLOB_UNMAP, BLOB_WRITE_ZEROES, BLOB_NR_OPS };

#define BLOB_IO_FUA 0x1u /* everything but READ: durable when completed */

/*
 * One operation; small enough for the scratch of a struct bdev_io.  Owner: the submitter, from blob_submit() until done
 * this room's.  done runs on the submitting thread, never before blob_submit() has returned.  Status 0, or -ERANGE,
 * -EINVAL (segments do not add up to nr_blocks, or cannot be cut at blocks), -ENOSPC (nothing was changed by the part that
 * found none), -EROFS, -EIO (the medium, or the map is lost there), -ENODEV, -ENOTSUP.
 *
 * FLUSH covers all blobs of the store: every write completed before it was submitted, on any thread.  UNMAP and WRITE_ZEROES:
 * the whole range reads zero afterwards; whole sub-blocks are given back.  Writes are atomic in what the device promises.
 */
struct blob_io {
	/* the submitter's; iov and what it points to must stay until done */
	void (*done)(struct blob_io *io, int status);
	struct blob *blob; /* open */
	const struct iovec *iov;
	uint32_t iovcnt;
	uint8_t op, flags;
	uint64_t offset_blocks, nr_blocks;
	/* this room's */
	struct fifo_link link;
	struct blob_channel *channel;
};

_Static_assert(sizeof(struct blob_io) <= 96, "blob_io must fit the scratch of a bdev_io");

/* One a thread and store, counted; NULL: no memory, or the store is closing.  Any thread; put it on the same. */
struct blob_channel *blob_channel_get(struct store *store);
void blob_channel_put(struct blob_channel *channel);

void blob_submit(struct blob_channel *channel, struct blob_io *io);

/* Fibers' way: submits and waits.  Any thread. */
fiber_fn int blob_submit_wait(struct blob_channel *channel, struct blob_io *io);

/* --- long operations: paced, so that hosts' I/O comes first --- */

/* Where a scrub has come to: clusters of blobs with smaller ids, and smaller clusters of this one, are done. */
struct store_scrub_cursor {
	uint64_t blob_id, cluster;
};

struct store_scrub_result {
	uint64_t nr_bytes;	/* read and compared */
	uint64_t nr_bad;	/* sub-blocks that do not match: see STORE_EVENT_CHECKSUM */
	uint64_t nr_unverified; /* sub-blocks of clusters that a crash left dirty, stamped anew */
	uint64_t nr_unreadable; /* sub-blocks that the device could not read */
};

/**
 * store_scrub - read all that the blobs map, and compare it with the checksums
 * @cursor:   where to begin (zeroes: at the beginning); kept true, so that another call can go on from there
 * @result:   added to
 * @progress: in clusters that maps name; may be NULL
 *
 * I/O goes on meanwhile.  What is bad is told in the log with volume and block, and as STORE_EVENT_CHECKSUM.
 *
 * Thread: owner, in a fiber; cursor and result may be looked at while it runs.
 * Return: 0 when it came to the end (whatever it found), or -ENOTSUP (no checksums), -EBUSY (one runs), -ECANCELED (progress, or the
 *         store closes), -ENOMEM, -ENODEV.
 */
fiber_fn int store_scrub(struct store *store, struct store_scrub_cursor *cursor, struct store_scrub_result *result,
			 struct progress *progress);

/**
 * blob_shallow_copy - write what a blob has itself, and not from the snapshot it was made from, to another bdev
 * @bdev_name: at least as large as the blob, with blocks of the same size; nobody else writes it
 * @progress:  in clusters; may be NULL
 *
 * Each cluster in its place; together with a copy of the snapshot that is the blob.  Flushed when it returns 0.
 *
 * Thread: owner, in a fiber.
 * Return: 0, or -EPERM (the blob can be written), -ENODEV, -EBUSY (claimed), -EINVAL (smaller, or other blocks), -EROFS, -EIO,
 *         -ENOSPC, -ECANCELED, -ENOMEM, -EAGAIN (its parent is being deleted).
 */
fiber_fn int blob_shallow_copy(struct blob *blob, const char *bdev_name, struct progress *progress);

/* --- checking --- */

enum store_finding_kind {
	STORE_FINDING_COPY,   /* one copy of a page is bad: nothing is lost */
	STORE_FINDING_LOST,   /* both are */
	STORE_FINDING_COUNT,  /* a reference count differs from what the maps say */
	STORE_FINDING_MAP,    /* a map, blob or table says what cannot be */
	STORE_FINDING_JOURNAL /* a gap or a bad record below what is known durable */
};

struct store_finding {
	enum store_finding_kind kind;
	uint64_t page;	/* 4 KiB page of the device; 0 when it is about none (or the first superblock) */
	char text[224]; /* which page, and why */
};

struct store_check_result {
	uint64_t nr_pages, nr_findings, nr_blobs, nr_nodes, nr_used_clusters, nr_records;
	uint64_t generation;
};

typedef void (*store_finding_fn)(const struct store_finding *finding, void *arg);

/**
 * store_check - read both copies of every metadata page of a store that is not open, and prove its counts
 *
 * Writes nothing; reads the checkpoint, then applies the journal in memory and proves the counts again.
 * Return: 0 when it could look (findings or not), or as store_open().
 */
fiber_fn int store_check(const char *bdev_name, store_finding_fn found, void *arg, struct store_check_result *ret_result,
			 struct blob_reason *reason);

/*
 * The same for an open store: takes a checkpoint, holds its pages, and looks at that while I/O goes on.  Owner, fiber.
 * progress (NULL: nobody looks) counts pages; their number is not known before.  -ECANCELED: it was told to end.
 */
fiber_fn int store_check_online(struct store *store, store_finding_fn found, void *arg, struct progress *progress,
				struct store_check_result *ret_result);

/* The counts and maps of an open store, all at one moment, which are read into memory before: for tests.  Number of findings. */
fiber_fn uint64_t store_check_memory(struct store *store, store_finding_fn found, void *arg);

#endif
