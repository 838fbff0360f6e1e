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
	struct slot slots[ORACLE_MAX_VOLUMES];
	unsigned ops_left, nr_running;
	struct fiber_wait over;
	/* what each kind of call is waiting for now, should it never end */
	unsigned nr_waiting[BDEV_NR_OPS];
	const char *volume_call;
	unsigned nr_calls; /* operations on volumes under way */
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
int slot_snapshot_of(unsigned i, bool newest); /* -1: it has none */
bool slot_idle(unsigned i); /* a volume is there, and no operation on it is under way */

#endif
