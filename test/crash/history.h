/*
 * One history: a disk, a store on it, an oracle, and the processes that take turns with them.  Shared by the crash
 * laboratory's files.
 */
#ifndef TEST_CRASH_HISTORY_H
#define TEST_CRASH_HISTORY_H

#include "bdev/crash.h"
#include "test/crash/oracle.h"

/* What a seed makes of a history; the same in all its processes. */
struct history {
	uint64_t seed;
	struct crash_disk *disk;
	struct oracle *oracle;
	uint32_t cluster_bytes, journal_pages;
	uint8_t leaf_shift, inner_shift;
	unsigned nr_threads, nr_fibers, nr_ops; /* nr_ops: of all fibers in one phase */
	uint64_t max_blocks;			/* of a volume */
	unsigned flush_percent, fua_one_in;	/* of operations; of changes */
	unsigned pause_us;			/* between a fiber's operations, at most */
	bool verbose;
};

/* workload.c: in a process of its own.  Phase 0 makes the store; later ones open what is left, judge it and go on. */
void workload_main(void *history_and_phase);
void workload_print_waiting(void); /* what it waits for, should it hang */

struct workload {
	struct history *h;
	unsigned phase;
	bool clean; /* it ended, and the store was closed */
};

/* verify.c */
/* In a fiber: opens the store, judges everything on it; then, when use is set, writes more and judges again.  Returns NULL or
 * what is wrong.  rebase: the oracle takes what it sees for what is. */
const char *verify_open(struct history *h, bool rebase, bool *ret_no_store);
const char *verify_volumes(struct history *h, bool after_crash, bool rebase);
const char *verify_use(struct history *h, uint64_t seed);
const char *verify_check(struct history *h, bool crashed);
void verify_main(void *verification);

struct verification {
	struct history *h;
	uint64_t seed;
	const char *wrong;
};

uint64_t history_rand(uint64_t *state);

#endif
