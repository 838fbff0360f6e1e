/* For the tests of this room and those above: run a function as the app thread's fiber, simulated or real. */
#ifndef BDEV_TESTING_H
#define BDEV_TESTING_H

#include <check.h>

#include "bdev/bdev.h"
#include "runtime/sim.h"

/* One assertion for many bytes: each costs a system call. */
static inline bool all_bytes(const void *buf, size_t len, char c)
{
	const char *p = buf;

	for (size_t i = 0; i < len; i++) {
		if (p[i] != c)
			return false;
	}
	return true;
}

static void (*testing_body)(void *arg);

static inline void testing_main(void *arg)
{
	testing_body(arg);
	bdev_unregister_all();
	runtime_stop(0);
}

static inline void run_sim(uint64_t seed, unsigned nr_reactors, void (*body)(void *arg), void *arg)
{
	const struct sim_opts opts = { .seed = seed, .nr_reactors = nr_reactors };

	testing_body = body;
	ck_assert_msg(sim_run(&opts, testing_main, arg) == 0, "seed %lu", (unsigned long)seed);
}

static inline void run_real(const char *cores, void (*body)(void *arg), void *arg)
{
	const struct runtime_opts opts = { .name = "test", .cores = cores };

	testing_body = body;
	ck_assert_int_eq(runtime_run(&opts, testing_main, arg), 0);
}

#endif
