/*
 * Operations of a workload: each is told to the oracle before it is asked of the store, and again when it is done; reads are
 * judged as they come.  What is wrong ends the process.
 */
#ifndef TEST_CRASH_OPS_H
#define TEST_CRASH_OPS_H

#include "lvol/lvol.h"
#include "test/crash/history.h"

#define OPS_MAX_IO_BLOCKS 160u /* of 512 bytes */

/* A volume as the workload sees it.  Owner: app thread opens and closes; users are counted (one OS thread). */
struct slot {
	struct bdev_desc *desc;
	struct lvol *lvol;
	unsigned nr_users;
	bool closing;
	bool controlled; /* an operation on the volume is under way */
	uint64_t usable; /* blocks of 512 bytes that I/O may touch: the lesser size while it is resized */
	uint32_t per;	 /* 512-byte blocks of an LBA */
};

struct work {
	struct history *h;
	struct slot slots[ORACLE_MAX_VOLUMES + 1]; /* the last is no volume: calls on the bdev outside line up there */
	unsigned ops_left, nr_running;
	struct fiber_wait over;
	/* what each kind of call is waiting for now, should it never end */
	unsigned nr_waiting[BDEV_NR_OPS];
	const char *volume_call;
	unsigned nr_calls; /* operations on volumes under way */
	bool store_controlled, copying; /* an operation on the store is under way; there is one bdev to copy to */
};

extern struct work work;

_Noreturn void fail_errno(const char *what, int rc);

/* I/O on a range that nobody changes but we. */
struct range {
	unsigned slot;
	uint32_t first, nr;
};

bool range_free(const struct range *r, bool reading);
fiber_fn bool op_read(const struct range *r, char *buf); /* whether it was read */
fiber_fn void op_change(const struct range *r, char *buf, enum bdev_op op, unsigned flags);
fiber_fn void op_flush(unsigned slot);

/* Volumes.  In fibers of the app thread. */
void slot_open(unsigned i, struct lvol *lvol);
fiber_fn void slot_close(unsigned i);
uint64_t cluster_blocks(void);
fiber_fn void op_create(unsigned i, uint64_t clusters, bool thin);
fiber_fn void op_delete(unsigned i);
fiber_fn void op_rename(unsigned i);
fiber_fn void op_resize(unsigned i, uint64_t clusters);
fiber_fn void op_xattr(unsigned i);
/* Into a free slot, if there is one. */
fiber_fn void op_snapshot(unsigned i);
fiber_fn void op_clone(unsigned i); /* of the snapshot in slot i */
fiber_fn void op_revert(unsigned i, unsigned snapshot);
fiber_fn void op_decouple(unsigned i);
fiber_fn void op_set_parent(unsigned i, unsigned snapshot); /* or ORACLE_OUTSIDE_SLOT */
fiber_fn void op_inflate(unsigned i);
fiber_fn void op_set_read_only(unsigned i);
fiber_fn void op_clone_outside(unsigned i); /* slot i is free */
fiber_fn void op_shallow_copy(unsigned i);  /* of what cannot be written */
fiber_fn void op_rename_store(void);
fiber_fn void op_grow_store(void); /* with its disk, if that can */
int slot_snapshot_of(unsigned i, bool newest); /* -1: it has none */
bool slot_is_free(unsigned i);
bool slot_frozen(unsigned i); /* a snapshot, or read-only */
bool slot_idle(unsigned i); /* a volume is there, and no operation on it is under way */


/* between ops.c and ops_copies.c */
/* Names the call while it lasts, should it hang. */
fiber_fn void call_begin(unsigned i, const char *what);
/* False: nobody knows whether it was done.  The volume then is left alone, and the oracle permits either. */
bool call_end(unsigned i, int rc, bool may_lack_space);
void slot_new_name(char *name, char kind);
int slot_free(void); /* -1: none */
fiber_fn void slot_wait_tail(unsigned i, uint64_t blocks); /* until nothing is in flight beyond a new end */

#endif
