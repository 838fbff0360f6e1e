/*
 * Volumes: blobs of a store by name and UUID, each shown as a bdev whose name is its UUID and whose alias is "store/volume".
 *
 * Everything here is on the app thread; what may suspend says so.  Stores are found by themselves when a bdev that holds one
 * is registered (lvol_init()), and go when their bdev goes.  A pointer that was looked up is good until the fiber suspends;
 * the operations below hold what they are given.
 */
#ifndef LVOL_LVOL_H
#define LVOL_LVOL_H

#include "bdev/bdev.h"
#include "blob/blob.h"

struct lvol_store;
struct lvol;

#define LVOL_NAME_MAX 63u /* bytes of a store's or volume's name */
bool lvol_name_ok(const char *name); /* has bytes, and none that is a '/' or a control character */

/* Who is told of stores; fn must not suspend.  NULL: nobody. */
struct lvol_hooks {
	void (*opened)(struct lvol_store *store);
	/* A bdev's store was not opened when it came: -EILSEQ: it holds none.  reason: for people, perhaps empty. */
	void (*refused)(const char *bdev_name, int rc, const char *reason);
	/* A volume is not shown, since its name is another's (lvol_why_hidden()); or it is, at last: lvol_is_hidden(). */
	void (*hidden)(struct lvol *lvol);
	bool (*is_read_only)(const uuid_t uuid); /* whether a store that comes is to be opened read-only */
};
void lvol_set_hooks(const struct lvol_hooks *hooks);

/* From now on stores are opened when their bdevs appear.  Once. */
void lvol_init(void);
/* Closes every store: their volumes' bdevs are unregistered first.  Then the leaves may go. */
fiber_fn void lvol_fini(void);

/* --- stores --- */

struct lvol_store_create_opts {
	const char *name;
	const char *base_bdev; /* name, alias or UUID */
	uuid_t uuid;	       /* null: a new one */
	uint32_t cluster_size_bytes; /* 0: the default, 1 MiB */
	uint32_t journal_pages;	     /* of 4 KiB; 0: a default */
	bool overwrite;	       /* a store that is there is lost instead of refused */
	bool checksums;	       /* CRC32C of each 4 KiB of data, for the store's life */
};

/* For stores that are opened from now on: memory for nodes of maps, each; 0: as blob/blob.h says.  tiny, for tests: less than 16 MiB is
 * taken at its word. */
void lvol_set_map_cache(uint64_t bytes, bool tiny);

/* 0, or -EEXIST (a store of that name is open; or one is on the device), -ENODEV (no such base), -EPERM (the base is claimed
 * or open for writing), -EINVAL, -ENOSPC (too small), -EIO, -ENOMEM.  reason may be NULL. */
fiber_fn int lvol_store_create(const struct lvol_store_create_opts *opts, struct lvol_store **ret_store,
			       struct blob_reason *reason);
/* Opens the store on a bdev; what the examiner does.  As store_open() returns; -EEXIST when a store of its name or UUID is
 * open. */
fiber_fn int lvol_store_open(const char *base_bdev, struct lvol_store **ret_store, struct blob_reason *reason);
/* The same, but nothing is written, a damaged journal is used up to the damage, and all volumes are read-only: to save what
 * a damaged store still has. */
fiber_fn int lvol_store_open_read_only(const char *base_bdev, struct lvol_store **ret_store, struct blob_reason *reason);
/* As store_grow(): the base bdev has grown. */
fiber_fn int lvol_store_grow(struct lvol_store *store);
/* Unregisters its volumes and closes it; what is on the device stays. */
fiber_fn int lvol_store_close(struct lvol_store *store);
/* The same, and what is on the device goes.  Volumes in use go too: their openers are told. */
fiber_fn int lvol_store_delete(struct lvol_store *store);
/* Aliases of its volumes change with it.  Its own name is a success.  -EEXIST, -EINVAL. */
fiber_fn int lvol_store_rename(struct lvol_store *store, const char *name);

/* Who is told of data that do not match their checksum; NULL: nobody.  fn must not suspend. */
typedef void (*lvol_bad_fn)(struct lvol_store *store, const struct store_bad *bad);
void lvol_on_bad(lvol_bad_fn fn);

/* For work on what lvol_store_blobstore() gives: closing waits until the store is released.  -ENODEV: it closes already. */
int lvol_store_hold(struct lvol_store *store);
void lvol_store_release(struct lvol_store *store);

struct lvol_store *lvol_store_find(const char *name_or_uuid); /* NULL: none */
struct lvol_store *lvol_store_first(void);
struct lvol_store *lvol_store_next(struct lvol_store *store);
struct store *lvol_store_blobstore(struct lvol_store *store);

struct lvol_store_info {
	uuid_t uuid;
	char name[LVOL_NAME_MAX + 1];
	char base_bdev[BDEV_NAME_MAX];
	uint64_t total_data_clusters;
	uint64_t free_clusters;		 /* neither used nor promised */
	uint64_t coming_clusters;	 /* freed, on their way back */
	uint64_t reserved_clusters;	 /* promised to thick volumes, not yet used */
	uint64_t metadata_clusters;
	uint64_t logical_clusters;	 /* sizes of all volumes that can be written, together */
	uint64_t overcommitted_clusters; /* what that is more than the store has; 0: nothing */
	uint32_t block_size, cluster_size_bytes, nr_lvols, nr_hidden;
	bool read_only, checksums;
};

void lvol_store_get_info(struct lvol_store *store, struct lvol_store_info *ret_info);

/* --- volumes --- */

struct lvol_create_opts {
	const char *name;
	uuid_t uuid;	     /* null: a new one */
	uint64_t size_bytes; /* rounded up to clusters */
	bool thin;	     /* otherwise all it may ever need is promised to it now */
};

/* Atomic, durable and visible when 0 is returned.  -EEXIST name taken, -EINVAL, -ENOSPC (thick), -EROFS, -ENODEV (the store is
 * closing), -EIO, -ENOMEM. */
fiber_fn int lvol_create(struct lvol_store *store, const struct lvol_create_opts *opts, struct lvol **ret_lvol);
/* A thin volume of the size of another bdev, whose bytes it shows where it was not written itself.  The bdev is kept open, and
 * nobody may write it meanwhile; while it is missing, reads of what is its fail with -EIO.  uuid null: a new one.  As lvol_create(), and
 * -ENODEV (no such bdev), -EBUSY (others may write it), -ERANGE (other volumes show more of it than there is). */
fiber_fn int lvol_clone_bdev(struct lvol_store *store, const char *bdev_name, const char *name, const uuid_t uuid,
			     struct lvol **ret_lvol);
/* Openers are told and waited for.  -EBUSY, with nothing changed: a volume that has it as its parent is being copied, or is getting another
 * parent. */
fiber_fn int lvol_delete(struct lvol *lvol);
/* Rounded up to clusters; openers are told.  -EPERM: a snapshot or read-only; -EBUSY: it would shrink under a store that stands on it, or
 * below volumes that were cloned from its bdev. */
fiber_fn int lvol_resize(struct lvol *lvol, uint64_t size_bytes);
fiber_fn int lvol_rename(struct lvol *lvol, const char *name);	  /* its own name: -EEXIST */

/* --- snapshots and clones; errors besides these as with lvol_create() and in blob/blob.h --- */

struct lvol_copy_opts {
	const char *name;
	uuid_t uuid;			 /* null: a new one */
	const struct blob_xattr *xattrs; /* its extended attributes */
	uint32_t nr_xattrs;
};

/* While I/O goes on.  The snapshot takes the volume's place below its parent, and becomes the volume's parent.  -EPERM it is
 * a snapshot; -ENOSPC a thick volume's size cannot be promised to it again. */
fiber_fn int lvol_snapshot(struct lvol *lvol, const struct lvol_copy_opts *opts, struct lvol **ret_snapshot);
/* A thin volume that begins with what a snapshot, or a read-only volume, holds.  -EPERM it can be written. */
fiber_fn int lvol_clone(struct lvol *snapshot, const struct lvol_copy_opts *opts, struct lvol **ret_clone);
/* The volume becomes, in place and with its size, what a snapshot of its store holds.  Openers are told of the size.  -EINVAL
 * no snapshot, or of another store; -EPERM the volume is read-only; -EBUSY volumes that were cloned from its bdev stand on it (also at the
 * next two). */
fiber_fn int lvol_revert(struct lvol *lvol, struct lvol *snapshot);
/* Its parent's parent becomes its parent; moves no data.  -EINVAL it has none. */
fiber_fn int lvol_decouple(struct lvol *lvol);
/* Clusters that it has as its parent has them (without one: that it does not have) become a snapshot's of the same store and size; others
 * stay.  As blob_set_parent(). */
fiber_fn int lvol_set_parent(struct lvol *lvol, struct lvol *snapshot);
/* The same with another bdev, as blob_set_external(): the volume has no parent afterwards.  -EINVAL also: it is a volume of the store;
 * -EBUSY also: another device or store is on the volume. */
fiber_fn int lvol_set_parent_bdev(struct lvol *lvol, const char *bdev_name);
/* Makes all that it shares its own, and it thick and without a parent: as blob_inflate().  It goes on where it was when it is asked again
 * after an end before its time: -ECANCELED (progress, or the volume or its store goes), or a crash.  progress, in clusters, may be NULL. */
fiber_fn int lvol_inflate(struct lvol *lvol, struct progress *progress);
/* As blob_shallow_copy(): what a snapshot, or read-only volume, has itself is written to another bdev.  One a volume at a time: -EBUSY.
 * -EAGAIN: its parent is being deleted. */
fiber_fn int lvol_shallow_copy(struct lvol *lvol, const char *bdev_name, struct progress *progress);
fiber_fn int lvol_set_read_only(struct lvol *lvol); /* for good */

/* value NULL removes.  -EINVAL, -ENODATA (nothing to remove), -E2BIG (more than BLOB_XATTR_MAX in all). */
fiber_fn int lvol_set_xattr(struct lvol *lvol, const char *key, const void *value, uint16_t value_len);
/* As blob_get_xattr() and blob_xattr_at(). */
int lvol_get_xattr(const struct lvol *lvol, const char *key, const void **ret_value, uint16_t *ret_len);
bool lvol_xattr_at(const struct lvol *lvol, uint32_t idx, const char **ret_key, uint8_t *ret_key_len, const void **ret_value,
		   uint16_t *ret_len);

/* What deleting it alone would give back: a walk over what nobody shares. */
fiber_fn int lvol_exclusive(struct lvol *lvol, uint64_t *ret_bytes);

/* A walk over what differs between two volumes of a store (from NULL: over what one maps), as struct blob_diff. */
struct lvol_diff {
	struct lvol *from, *to;
	bool whole_clusters;
	uint64_t at_bytes;
};
fiber_fn int lvol_diff_next(struct lvol_diff *diff, struct blob_range *ranges, uint32_t max, uint32_t *ret_nr);

/* Synchronous.  NULL: none. */
struct lvol *lvol_parent(const struct lvol *lvol);
struct lvol *lvol_first_clone(const struct lvol *lvol);
struct lvol *lvol_next_clone(const struct lvol *clone);

struct lvol *lvol_find(const char *name); /* UUID, or "store/volume"; NULL: none */
struct lvol *lvol_from_bdev(const struct bdev *bdev); /* NULL: no volume */
struct lvol *lvol_first(struct lvol_store *store);
struct lvol *lvol_next(struct lvol *lvol);

/*
 * A volume whose UUID or alias is another bdev's when its store is opened is hidden: not a bdev, and not found by the functions above.  It
 * is shown as soon as that name is free, or it has another: lvol_rename(), lvol_delete() and lvol_get_info() are all it takes.
 */
struct lvol *lvol_find_hidden(const char *name); /* UUID, or "store/volume"; NULL: none */
struct lvol *lvol_first_hidden(struct lvol_store *store);
struct lvol *lvol_next_hidden(struct lvol *lvol);
bool lvol_is_hidden(const struct lvol *lvol);
void lvol_why_hidden(const struct lvol *lvol, char *text, size_t size); /* a sentence, and what to do about it */
struct bdev *lvol_bdev(struct lvol *lvol);
struct lvol_store *lvol_get_store(struct lvol *lvol);

struct lvol_info {
	uuid_t uuid, store_uuid;
	char name[BLOB_NAME_MAX + 1];
	char store_name[LVOL_NAME_MAX + 1];
	char base_bdev[BDEV_NAME_MAX];
	uint64_t size_bytes, created_ms;
	uint64_t num_allocated_clusters; /* mapped, and not as its parent has them */
	uint64_t referenced_bytes;	 /* of the store, that it refers to; exact, at once */
	uint64_t exclusive_bytes;	 /* that only it refers to, as lvol_exclusive() counted them last */
	uint64_t exclusive_age_us;	 /* how long ago; UINT64_MAX: never */
	uint32_t nr_clones;		 /* volumes that have it as their parent */
	bool thin, snapshot, read_only, degraded, hidden;
	bool counting; /* num_allocated_clusters is being counted: until then it is all that are mapped */
	bool clone; /* it has a parent: lvol_parent() */
	char external[BDEV_NAME_MAX]; /* the bdev whose bytes it shows where it has none: its name, or its UUID while it is missing (the
				       * volume is degraded then); empty: none */
};

void lvol_get_info(const struct lvol *lvol, struct lvol_info *ret_info);

#endif
