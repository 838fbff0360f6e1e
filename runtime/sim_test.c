/* The simulation itself: a seed replays, seeds differ, hangs are found. */
#include <errno.h>

#include "runtime/testing.h"

static unsigned nr_busy;

static void busy_fiber(void *arg)
{
	for (int i = 0; i < 20; i++) {
		if (sim_rand() % 2)
			fiber_yield();
		else
			fiber_sleep(sim_rand() % 50);
	}
	if (!--nr_busy) {
		thread_exit(arg);
		runtime_stop(7);
	}
}

static void busy_main(void *arg)
{
	struct thread *other = thread_create("other", 1);

	nr_busy = 10;
	for (int i = 0; i < 10; i++)
		fiber_spawn(i % 2 ? other : thread_current(), "busy", busy_fiber, other);
}

static uint64_t run_seed(uint64_t seed)
{
	struct sim_opts opts = { .seed = seed, .nr_reactors = 2 };

	ck_assert_int_eq(sim_run(&opts, busy_main, NULL), 7);
	return sim_trace_hash();
}

START_TEST(a_seed_replays_exactly_and_seeds_differ)
{
	for (uint64_t seed = 1; seed < 20; seed++) {
		uint64_t hash = run_seed(seed);

		ck_assert_uint_eq(run_seed(seed), hash);
		ck_assert_uint_ne(run_seed(seed + 1), hash);
	}
}
END_TEST

static void wait_for_nobody(void *arg)
{
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	fiber_wait(&wait);
}

START_TEST(a_deadlock_is_reported)
{
	struct sim_opts opts = { .seed = 1 };

	ck_assert_int_eq(sim_run(&opts, wait_for_nobody, NULL), -EDEADLK);
	ck_assert_int_eq(run_seed(1) == run_seed(1), 1); /* and the next run starts afresh */
}
END_TEST

static void sleep_forever(void *arg)
{
	for (;;)
		fiber_sleep(1000);
}

START_TEST(a_run_that_is_not_over_in_time_is_ended)
{
	struct sim_opts opts = { .seed = 1, .max_virtual_us = 10000000 };

	ck_assert_int_eq(sim_run(&opts, sleep_forever, NULL), -ETIMEDOUT);
}
END_TEST

static void sleep_a_day(void *arg)
{
	uint64_t start_us = clock_now_us();

	fiber_sleep(24 * 3600 * 1000000ull);
	ck_assert_uint_ge(clock_now_us() - start_us, 24 * 3600 * 1000000ull);
	runtime_stop(0);
}

START_TEST(virtual_time_jumps)
{
	struct sim_opts opts = { .seed = 1, .max_virtual_us = 48 * 3600 * 1000000ull };

	ck_assert_int_eq(sim_run(&opts, sleep_a_day, NULL), 0);
}
END_TEST

/* Two senders to one thread: across seeds, either may come first. */
static char first_sender;

static void arrive(void *arg)
{
	if (!first_sender)
		first_sender = (char)(uintptr_t)arg;
}

static struct thread *threads[3];
static unsigned nr_senders;

static void sender(void *arg)
{
	thread_send(threads[2], arrive, arg);
	if (!--nr_senders) {
		for (int i = 0; i < 3; i++)
			thread_exit(threads[i]);
		runtime_stop(0);
	}
}

static void race_main(void *arg)
{
	first_sender = 0;
	nr_senders = 2;
	for (unsigned i = 0; i < 3; i++)
		threads[i] = thread_create("racer", i);
	fiber_spawn(threads[0], "a", sender, (void *)(uintptr_t)'a');
	fiber_spawn(threads[1], "b", sender, (void *)(uintptr_t)'b');
}

START_TEST(seeds_interleave_threads_in_either_order)
{
	unsigned nr_a = 0;

	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct sim_opts opts = { .seed = seed, .nr_reactors = 3 };

		ck_assert_int_eq(sim_run(&opts, race_main, NULL), 0);
		nr_a += first_sender == 'a';
	}
	ck_assert_uint_gt(nr_a, 20);
	ck_assert_uint_lt(nr_a, 80);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_seed_replays_exactly_and_seeds_differ,
		a_deadlock_is_reported,
		a_run_that_is_not_over_in_time_is_ended,
		virtual_time_jumps,
		seeds_interleave_threads_in_either_order,
	};

	return run_suite("sim", tests, sizeof(tests) / sizeof(tests[0]));
}
