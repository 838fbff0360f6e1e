/*
 * The target whole, from its listener to the disk, in one simulated process: a disk model with a volatile cache, on it the
 * namespace's bdev (the disk itself, or a thin volume of a store), nvmf, and the TCP transport.
 */
#ifndef TEST_SIM_STACK_H
#define TEST_SIM_STACK_H

#include "bdev/crash.h"
#include "nvmf/nvmf.h"
#include "runtime/sim.h"

#define STACK_NQN  "nqn.2025-01.invalid.ferrule:sim"
#define STACK_PORT 4420

struct stack_opts {
	bool store;    /* a thin volume; else the disk itself */
	bool create;   /* the store is to be made: the disk is fresh */
	uint64_t volume_bytes;
	uint32_t in_capsule_data_size, max_queue_depth;
	bool c2h_success;
};

/* Asserts that all of it works.  On the app thread. */
fiber_fn void stack_start(const struct stack_opts *opts, struct crash_disk *disk);
fiber_fn void stack_stop(void);

#endif
