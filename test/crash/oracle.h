/*
 * What may be on the volumes after a crash, by the promises alone; knows nothing of how a store keeps them.
 *
 * Each change of data has a number, the version, which its blocks carry together with the volume's and their own number, so
 * that foreign and stale bytes are recognised.  For each 512-byte block the oracle knows the last durable version (the
 * floor) and whether any later one was issued; for each volume whether it may be there, and under which names and sizes.
 * It lies in memory shared between the processes of one history, of which one runs at a time.
 */
#ifndef TEST_CRASH_ORACLE_H
#define TEST_CRASH_ORACLE_H

#include <stdbool.h>
#include <stdint.h>
#include <uuid/uuid.h>

#define ORACLE_BLOCK	   512u
#define ORACLE_MAX_VOLUMES 6u
#define ORACLE_MAX_BLOCKS  4096u /* of a volume: 2 MiB */
#define ORACLE_MAX_CHANGES 16384u
#define ORACLE_NAME_MAX	   32u

struct oracle_block {
	uint32_t floor;	  /* version that is durable */
	uint32_t latest;  /* version of the newest completed change: what a read gives while nothing crashes */
	uint32_t zeroed;  /* newest issued version that zeroes; 0 counts: never written */
	bool floor_zero, latest_zero;
	bool busy; /* a change or checked read is in flight */
};

struct oracle_volume {
	bool used;
	uint32_t generation; /* of the volume in this slot; in its blocks and its UUID */
	uuid_t uuid;
	bool may_be_absent, may_be_present;
	char names[2][ORACLE_NAME_MAX];
	uint64_t sizes[2]; /* blocks of 512 bytes */
	unsigned nr_names, nr_sizes;
	struct oracle_block blocks[ORACLE_MAX_BLOCKS];
};

struct oracle_change {
	uint32_t volume, generation, first, nr;
	uint64_t completed; /* moment; 0: not (with success) */
	bool zero, durable;
};

struct oracle {
	int memfd;
	bool may_lack_store, may_have_store;
	bool power_lost; /* since the last recovery; otherwise what has completed is there, durable or not */
	uint32_t next_version; /* also the number of changes */
	uint32_t epoch;	       /* versions from here on were issued since the last crash */
	uint32_t next_generation;
	uint64_t next_name; /* names are never used again in a history */
	uint64_t moment;
	struct oracle_volume volumes[ORACLE_MAX_VOLUMES];
	struct oracle_change changes[ORACLE_MAX_CHANGES]; /* by version */
};

struct oracle *oracle_create(void); /* shared, zeroed */
void oracle_destroy(struct oracle *o);
int oracle_make_private(struct oracle *o); /* what this process changes, others do not see; 0 or -1 */

/* Data.  A change is issued before it is submitted. */
uint32_t oracle_change_begin(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, bool zero);
void oracle_change_end(struct oracle *o, uint32_t version, bool ok, bool durable);
/* Everything completed before the moment that begin gives is durable. */
uint64_t oracle_flush_begin(struct oracle *o);
void oracle_flush_end(struct oracle *o, uint64_t moment);
/* Fills nr blocks with what version puts there. */
void oracle_fill(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, uint32_t version, void *buf);

/* Volumes.  begin before the call, end after it. */
void oracle_create_begin(struct oracle *o, unsigned volume, const char *name, uint64_t blocks);
void oracle_create_end(struct oracle *o, unsigned volume, bool ok);
void oracle_delete_begin(struct oracle *o, unsigned volume);
void oracle_delete_end(struct oracle *o, unsigned volume, bool ok);
void oracle_rename_begin(struct oracle *o, unsigned volume, const char *name);
void oracle_rename_end(struct oracle *o, unsigned volume, bool ok);
void oracle_resize_begin(struct oracle *o, unsigned volume, uint64_t blocks);
void oracle_resize_end(struct oracle *o, unsigned volume, bool ok);

/*
 * Judging.  after_crash: against what must have survived; otherwise against what has completed.  Returns NULL when all is
 * well, else what is wrong, in a static buffer.
 */
const char *oracle_judge(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const void *buf,
			 bool after_crash);
/* The volume that has this UUID; -1: none, now or ever in this slot. */
int oracle_find(const struct oracle *o, const uuid_t uuid);
const char *oracle_judge_volume(const struct oracle *o, int volume, const char *name, uint64_t blocks);

/* After a recovery: what is seen now is what is.  seen: contents of the volume's blocks, or NULL for a volume not there. */
void oracle_rebase_volume(struct oracle *o, unsigned volume, const char *name, uint64_t blocks, const void *seen);
void oracle_rebase_end(struct oracle *o);

#endif
