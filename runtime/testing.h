/* Helpers of this room's tests: run a fiber as the app's main in the real runtime or in simulations. */
#ifndef RUNTIME_TESTING_H
#define RUNTIME_TESTING_H

#include <check.h>
#include <stdlib.h>

#include "runtime/runtime.h"
#include "runtime/sim.h"
#include "runtime/suite.h"

/* As many OS threads as reactors, wherever the machine puts them. */
static inline void run_real(unsigned nr_reactors, void (*main_fn)(void *arg))
{
	struct runtime_opts opts = { .name = "test", .cores = nr_reactors == 2 ? "0,1" : NULL };

	ck_assert_int_eq(runtime_run(&opts, main_fn, NULL), 0);
}

static inline void run_sim(unsigned nr_reactors, unsigned nr_seeds, void (*main_fn)(void *arg))
{
	for (unsigned seed = 1; seed <= nr_seeds; seed++) {
		struct sim_opts opts = { .seed = seed,
					 .nr_reactors = nr_reactors,
					 .max_delay_us = 300,
					 .short_io_ppm = 200000,
					 .again_ppm = 100000 };
		int rc = sim_run(&opts, main_fn, NULL);

		ck_assert_msg(rc == 0, "seed %u: result %d", seed, rc);
	}
}

#endif
