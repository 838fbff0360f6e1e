/*
 * What may be on the volumes after a crash, by the promises alone; knows nothing of how a store keeps them.
 *
 * Each change of data has a number, the version, which its blocks carry together with the volume's and their own number and a CRC, so
 * that foreign and stale bytes are recognised by sight.  For each 512-byte block the oracle knows the last durable version
 * (the floor) and whether later ones were issued; for each volume whether it may be there, and under which names and sizes.
 * A snapshot or clone inherits its origin's floors, and a window: the origin's versions that were issued until it was taken.
 * It is plain memory: a copy of it stands for one moment of a history.
 */
#ifndef TEST_CRASH_ORACLE_H
#define TEST_CRASH_ORACLE_H

#include <stdbool.h>
#include <stdint.h>
#include <uuid/uuid.h>

#define ORACLE_BLOCK	   512u
#define ORACLE_MAX_VOLUMES 10u
#define ORACLE_OUTSIDE_SLOT ORACLE_MAX_VOLUMES /* stands for the bdev outside */
#define ORACLE_MAX_WINDOWS 6u
#define ORACLE_NAME_MAX	   32u
#define ORACLE_XATTR_MAX   1900u
#define ORACLE_MAX_CLUSTERS 16u /* of a volume that is given another parent */
#define ORACLE_OUTSIDE	   1u  /* generation and version of the bytes of the bdev that volumes are cloned from */

struct oracle_block {
	uint32_t floor;	 /* version that is durable */
	uint32_t latest; /* version of the newest completed change: what a read gives while nothing crashes */
	uint32_t zeroed; /* newest issued version that zeroes; 0 counts: never written */
	uint32_t from;	 /* the volume's own versions (a snapshot's: its origin's) count from here on: others were reverted */
	uint64_t replaced_at; /* moment: what had completed before is no more, and no flush makes it durable */
	bool floor_zero, latest_zero;
	bool busy;	    /* a change is in flight */
	uint8_t nr_readers; /* a read is */
};

/* Versions of another volume that may show in this one. */
struct oracle_window {
	uint32_t generation, end;
};

enum oracle_flag { ORACLE_NO, ORACLE_YES, ORACLE_MAYBE };

/* What another parent makes of a cluster: it stays as it is, goes over to the new parent's, or either. */
enum oracle_rule { ORACLE_EITHER, ORACLE_STAYS, ORACLE_GOES };

struct oracle_volume {
	bool used, snapshot;
	uint32_t generation; /* of the volume in this slot; in its blocks and its UUID */
	uuid_t uuid;
	bool may_be_absent, may_be_present;
	char names[2][ORACLE_NAME_MAX];
	uint64_t sizes[2];  /* blocks of 512 bytes */
	uint32_t xattrs[2];  /* numbers; 0: none */
	uint32_t parents[2]; /* generations; 0: none */
	unsigned nr_names, nr_sizes, nr_xattrs, nr_parents;
	enum oracle_flag thick, read_only; /* thick: not of snapshots */
	struct oracle_window windows[ORACLE_MAX_WINDOWS];
	unsigned nr_windows;
	int altering;	     /* slot of the snapshot that it may show instead; -1: none */
	bool keeps;	     /* not all of that: as the rules say, by cluster, and with all that is written meanwhile */
	uint8_t rules[ORACLE_MAX_CLUSTERS];
	uint64_t altered_at; /* the moment: changes not complete then are in either */
	uint32_t nr_alterations; /* begun, and ended */
	int taken_from; /* slot of the volume that it is being taken from; -1: it is taken */
	uint32_t origin; /* generation of the volume it was taken from */
};

struct oracle_change {
	uint32_t volume, generation, first, nr;
	uint64_t issued, completed; /* moments; completed 0: not (with success) */
	bool zero, durable;
	bool vague; /* it may have come before what replaced it */
};

struct oracle_store {
	char names[2][ORACLE_NAME_MAX];
	uint64_t sizes[2]; /* blocks of its disk that it knows of */
	unsigned nr_names, nr_sizes;
	uint64_t disk_blocks; /* that the disk has */
};

struct oracle {
	uint32_t max_blocks, max_changes;
	uint32_t cluster_blocks;
	struct oracle_store store;
	bool may_lack_store, may_have_store;
	bool parents_vague; /* since the last recovery several operations at once have changed them: they are not judged */
	bool power_lost; /* since the last recovery; otherwise what has completed is there, durable or not */
	uint32_t next_version; /* also the number of changes */
	uint32_t epoch;	       /* versions from here on were issued since the last crash */
	uint32_t next_generation, next_xattr;
	uint64_t next_name; /* names are never used again in a history */
	uint64_t moment;
	struct oracle_volume volumes[ORACLE_MAX_VOLUMES + 1];
	struct oracle_block *blocks;   /* max_blocks a volume */
	struct oracle_block *outside;  /* of the bdev; never changed, and all copies' own */
	struct oracle_change *changes; /* by version */
};

struct oracle *oracle_create(uint32_t max_blocks, uint32_t max_changes); /* ends the process when there is no memory */
struct oracle *oracle_dup(const struct oracle *o);			 /* to be kept, not to be changed much */
void oracle_copy(struct oracle *to, const struct oracle *from);	 /* to: as large at least */
void oracle_destroy(struct oracle *o);
uint64_t oracle_hash(const struct oracle *o); /* of what it permits */

static inline struct oracle_block *oracle_blocks(const struct oracle *o, unsigned volume)
{
	return volume == ORACLE_OUTSIDE_SLOT ? o->outside : o->blocks + (uint64_t)volume * o->max_blocks;
}

/* Data.  A change is issued before it is submitted. */
uint32_t oracle_change_begin(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, bool zero);
void oracle_change_end(struct oracle *o, uint32_t version, bool ok, bool durable);
/* Everything completed before the moment that begin gives is durable. */
uint64_t oracle_flush_begin(struct oracle *o);
void oracle_flush_end(struct oracle *o, uint64_t moment);
/* Fills nr blocks with what version puts there. */
void oracle_fill(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, uint32_t version, void *buf);

/* The same of the bdev that volumes are cloned from. */
void oracle_fill_outside(uint32_t first, uint32_t nr, void *buf);

/* The store. */
void oracle_store_init(struct oracle *o, const char *name, uint64_t disk_blocks, uint64_t outside_blocks);
void oracle_store_rename_begin(struct oracle *o, const char *name);
void oracle_store_rename_end(struct oracle *o, bool ok);
void oracle_store_grow_begin(struct oracle *o, uint64_t disk_blocks); /* the disk has grown */
void oracle_store_grow_end(struct oracle *o, bool ok);

/* Volumes.  begin before the call, end after it. */
void oracle_create_begin(struct oracle *o, unsigned volume, const char *name, uint64_t blocks, bool thick);
/* One that shows the first outside_blocks of the other bdev. */
void oracle_create_outside_begin(struct oracle *o, unsigned volume, const char *name, uint64_t blocks, uint64_t outside_blocks);
void oracle_create_end(struct oracle *o, unsigned volume, bool ok);
void oracle_delete_begin(struct oracle *o, unsigned volume);
void oracle_delete_end(struct oracle *o, unsigned volume, bool ok);
void oracle_rename_begin(struct oracle *o, unsigned volume, const char *name);
void oracle_rename_end(struct oracle *o, unsigned volume, bool ok);
void oracle_resize_begin(struct oracle *o, unsigned volume, uint64_t blocks);
void oracle_resize_end(struct oracle *o, unsigned volume, bool ok);
void oracle_read_only_begin(struct oracle *o, unsigned volume);
void oracle_read_only_end(struct oracle *o, unsigned volume, bool ok);
uint32_t oracle_xattr_begin(struct oracle *o, unsigned volume); /* the new attribute's number */
void oracle_xattr_end(struct oracle *o, unsigned volume, bool ok);
uint32_t oracle_xattr_fill(uint32_t number, void *buf); /* its value, at most ORACLE_XATTR_MAX bytes; returns its length */
/* A snapshot of origin, or a clone of a snapshot, in a free slot. */
bool oracle_can_take(const struct oracle *o, unsigned origin);
void oracle_take_begin(struct oracle *o, unsigned volume, unsigned origin, bool snapshot, const char *name);
void oracle_take_end(struct oracle *o, unsigned volume, bool ok);
/* A volume goes back to a snapshot of its.  Nothing beyond the lesser of both sizes is in flight. */
void oracle_revert_begin(struct oracle *o, unsigned volume, unsigned snapshot);
void oracle_revert_end(struct oracle *o, unsigned volume, bool ok);
/* Its parent's parent becomes its parent. */
void oracle_decouple_begin(struct oracle *o, unsigned volume);
void oracle_decouple_end(struct oracle *o, unsigned volume, bool ok);
/* A snapshot of its size becomes its parent; or what the bdev outside holds, without a parent: ORACLE_OUTSIDE_SLOT.  seen: all of it afterwards, with nothing in flight; NULL: it was refused. */
bool oracle_can_be_parent(const struct oracle *o, unsigned volume, unsigned snapshot);
void oracle_set_parent_begin(struct oracle *o, unsigned volume, unsigned snapshot);
const char *oracle_set_parent_end(struct oracle *o, unsigned volume, const void *seen);
/* It becomes thick, and has no parent. */
void oracle_inflate_begin(struct oracle *o, unsigned volume);
void oracle_inflate_end(struct oracle *o, unsigned volume, bool ok);

/* What a block must hold at least: taken before a read under which changes may be in flight. */
struct oracle_least {
	uint32_t version;
	bool zero;
};
/* Returns what read_end wants to know. */
uint32_t oracle_read_begin(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, struct oracle_least *least);
const char *oracle_read_end(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const struct oracle_least *least,
			    uint32_t begun, const void *buf);
/*
 * Judging.  after_crash: against what must have survived; otherwise against what has completed.  Returns NULL when all is
 * well, else what is wrong and which invariant that breaks, in a static buffer.
 */
const char *oracle_judge(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const void *buf,
			 bool after_crash);
/* A whole snapshot, before any crash: nothing in it without what had completed before that was issued; from now on it is
 * what was seen. */
const char *oracle_judge_snapshot(struct oracle *o, unsigned volume, const void *buf);
int oracle_find(const struct oracle *o, const uuid_t uuid); /* the slot of the volume with this UUID; -1: none, now or ever */
/* parents: by slot, for those that are present: the slot of its parent; -1: none. */
const char *oracle_judge_parents(const struct oracle *o, const bool *present, const int *parents);
/* Whether it cannot be told of some cluster, which changes meanwhile have made the same either way. */
bool oracle_altered_unclear(const struct oracle *o, unsigned volume, const void *buf);
/* One cluster of a volume that is altered.  *ret_goes: it is the other's, and not as it was. */
const char *oracle_judge_altered(const struct oracle *o, unsigned volume, uint32_t first, const void *buf, bool *ret_goes);
/* What a volume says of itself. */
struct oracle_sight {
	const char *name;
	uint64_t blocks;
	const void *xattr;
	uint32_t xattr_len;
	bool thick, read_only;
};
const char *oracle_judge_volume(const struct oracle *o, int volume, const struct oracle_sight *sight);
const char *oracle_judge_store(const struct oracle *o, const char *name, uint64_t nr_clusters);

/* After a recovery: what is seen now is what is.  seen: contents of the volume's blocks, or NULL for a volume not there. */
void oracle_rebase_volume(struct oracle *o, unsigned volume, const struct oracle_sight *sight, const void *seen);
void oracle_rebase_store(struct oracle *o, const char *name, uint64_t nr_clusters);
void oracle_rebase_parents(struct oracle *o, const bool *present, const int *parents);
void oracle_rebase_end(struct oracle *o);
uint32_t oracle_xattr_number(const void *value, uint32_t len); /* 0: none */

/* between the oracle's files */
/* Repeated through a block: whose it is. */
struct oracle_stamp {
	uint32_t crc, generation, block, version; /* CRC32C of the others */
};
bool oracle_stamp_ok(const struct oracle_stamp *p);
bool oracle_is_zero(const void *block);
bool oracle_store_fits(uint64_t disk_clusters, uint64_t nr_clusters);
struct oracle_volume *oracle_volume_init(struct oracle *o, unsigned volume, const char *name, uint64_t blocks);
void oracle_parent_may(struct oracle_volume *v, uint32_t parent);
void oracle_parent_is(struct oracle_volume *v, bool ok);
/* Whether a version of the volume's own was not complete when its alteration began. */
bool oracle_in_window(const struct oracle *o, const struct oracle_volume *v, uint32_t version);

#endif
