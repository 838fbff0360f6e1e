/*
 * The simulation: reactors, streams and time on one OS thread, in virtual time, decided by a seed.
 *
 * sim_run() stands in for runtime_run(): the same threads, pollers, timers, fibers and streams, but each step is one thread's
 * turn, picked by the seed; when nothing is runnable, time jumps to the next timer.  A failing run prints its seed, and the
 * seed replays it exactly.
 */
#ifndef RUNTIME_SIM_H
#define RUNTIME_SIM_H

#include "runtime/runtime.h"

struct sim_opts {
	uint64_t seed;
	unsigned nr_reactors;
	unsigned nr_small, nr_large;	 /* pool buffers; 0: a default */
	uint64_t max_virtual_us;	 /* a run that is not over by then has hung: -ETIMEDOUT; 0: one hour */
	/* streams, each in parts per million of calls */
	unsigned short_io_ppm;		 /* a recv or send moves fewer bytes than it could */
	unsigned again_ppm;		 /* says -EAGAIN first, readiness comes later */
	unsigned reset_ppm;		 /* the connection breaks */
	uint64_t max_delay_us;		 /* of bytes on their way */
};

/**
 * sim_run - run main_fn(arg) as a fiber of the thread "app" until runtime_stop() and every thread has exited
 *
 * Return: what runtime_stop() was given; -EDEADLK when nothing is runnable and no timer is armed; -ETIMEDOUT when virtual
 * time (or the number of steps) has run out; -ENOMEM.  The log then names the seed, and the threads and fibers left.  Their
 * stacks are thrown away, so what they held leaks.
 */
int sim_run(const struct sim_opts *opts, void (*main_fn)(void *arg), void *arg);
bool sim_active(void);
uint64_t sim_rand(void); /* the run's own generator */
/* Of every step of the present run, or of the last: equal for equal runs. */
uint64_t sim_trace_hash(void);

#endif
