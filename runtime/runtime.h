/* Starting and stopping the runtime, and everything others need of it. */
#ifndef RUNTIME_RUNTIME_H
#define RUNTIME_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/clock.h"
#include "runtime/fiber.h"
#include "runtime/list.h"
#include "runtime/log.h"
#include "runtime/memory.h"
#include "runtime/ring.h"
#include "runtime/stream.h"
#include "runtime/thread.h"

struct runtime_opts {
	const char *name;	/* of the process, for EAL and the log */
	const char *cores;	/* list such as "0,2-3"; NULL: the first core the process may run on */
	bool eal;		/* start DPDK's EAL; false for tools and tests */
	bool no_huge;		/* EAL without hugepages */
	const char *file_prefix; /* EAL's; unique to each process */
	const char *runtime_dir; /* EAL's files; one of its own for each process */
	unsigned mem_mib;	/* DMA memory in all; 0: computed from the rest */
	unsigned nr_small, nr_large; /* pool buffers; 0: as many as a quarter of mem_mib allows, or a default */
	bool poll;		/* never sleep */
	uint32_t idle_us;	/* poll this long without work before sleeping; 0: the default, 100 */
	bool pin;		/* pin reactors to their cores */
};

/**
 * runtime_run - start the reactors, run main_fn(arg) as a fiber of the first thread ("app", reactor 0), and turn until
 *               runtime_stop()
 *
 * The calling OS thread becomes reactor 0.  Return: what runtime_stop() was given, or -errno when starting failed (the
 * reason, with numbers, is in the log).
 */
int runtime_run(const struct runtime_opts *opts, void (*main_fn)(void *arg), void *arg);

/* Asks the app thread to exit, and ends runtime_run() once every thread has; the others are asked by those who made them.
 * Thread: any. */
void runtime_stop(int result);

/* SIGTERM and SIGINT, as a message to the app thread; a second one ends the process at once. */
void runtime_on_terminate(msg_fn fn, void *arg);

unsigned runtime_nr_reactors(void);
unsigned runtime_reactor_core(unsigned reactor); /* the OS's number of its core */
struct thread *runtime_app_thread(void);

struct reactor_info {
	unsigned core;
	int tid;
	uint64_t busy_ticks, idle_ticks, sleep_ticks;
	bool asleep;
};

int runtime_reactor_info(unsigned reactor, struct reactor_info *ret_info); /* -ENOENT past the last */

#endif
