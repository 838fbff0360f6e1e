/* Fibers and what they wait with. */
#include <errno.h>
#include <string.h>

#include "runtime/testing.h"

static void run_both(void (*main_fn)(void *arg))
{
	run_real(1, main_fn);
	run_sim(1, 50, main_fn);
}

static char order[64];

static void note(char c)
{
	size_t len = strlen(order);

	order[len] = c;
	order[len + 1] = 0;
}

static unsigned nr_left;
static struct fiber_wait *all_left;

static void leave(void)
{
	if (!--nr_left)
		fiber_wake(all_left, 0);
}

/* Runs fibers of fn with these arguments, and waits for all of them. */
static void run_fibers(void (*fn)(void *arg), const char *args)
{
	struct fiber_wait wait;

	order[0] = 0;
	nr_left = (unsigned)strlen(args);
	fiber_wait_init(&wait);
	all_left = &wait;
	for (; *args; args++)
		ck_assert_int_eq(fiber_spawn(thread_current(), "fiber", fn, (void *)(uintptr_t)*args), 0);
	fiber_wait(&wait);
}

static void yielding(void *arg)
{
	note((char)(uintptr_t)arg);
	fiber_yield();
	note((char)(uintptr_t)arg);
	leave();
}

static void yield_main(void *arg)
{
	run_fibers(yielding, "abc");
	ck_assert_str_eq(order, "abcabc");
	runtime_stop(0);
}

START_TEST(a_fiber_that_yields_goes_to_the_end_of_the_line)
{
	run_real(1, yield_main); /* a simulation may start them in turns of their own */
}
END_TEST

static struct fiber_mutex mutex;

static void locking(void *arg)
{
	fiber_lock(&mutex);
	note((char)(uintptr_t)arg);
	fiber_sleep(100);
	note((char)(uintptr_t)arg);
	fiber_unlock(&mutex);
	leave();
}

static void lock_main(void *arg)
{
	fiber_mutex_init(&mutex);
	run_fibers(locking, "abcd");
	ck_assert_str_eq(order, "aabbccdd");
	runtime_stop(0);
}

START_TEST(a_mutex_admits_one_at_a_time_in_order)
{
	run_both(lock_main);
}
END_TEST

static struct fiber_cond cond;

static void waiting(void *arg)
{
	fiber_cond_wait(&cond);
	note((char)(uintptr_t)arg);
	leave();
}

static void signalling(void *arg)
{
	fiber_yield();
	fiber_yield();
	fiber_cond_signal(&cond);
	fiber_sleep(1000);
	note('|');
	fiber_cond_broadcast(&cond);
}

static void cond_main(void *arg)
{
	fiber_cond_init(&cond);
	fiber_spawn(thread_current(), "signalling", signalling, NULL);
	run_fibers(waiting, "abc");
	ck_assert_str_eq(order, "a|bc");
	ck_assert_int_eq(fiber_cond_timedwait(&cond, 100), -ETIMEDOUT);
	fiber_cond_signal(&cond); /* nobody waits: nothing happens */
	runtime_stop(0);
}

START_TEST(a_condition_wakes_one_or_all_and_a_timed_wait_ends)
{
	run_both(cond_main);
}
END_TEST

static void use_much_stack(void *arg)
{
	volatile char big[200 * 1024];

	for (size_t i = 0; i < sizeof(big); i += 512)
		big[i] = (char)i;
	fiber_yield();
	ck_assert_int_eq(big[512 * 100], (char)(512 * 100));
	leave();
}

static void stack_main(void *arg)
{
	for (int i = 0; i < 20; i++)
		run_fibers(use_much_stack, "aaaaaaaaaa");
	runtime_stop(0);
}

START_TEST(stacks_are_deep_and_are_used_again)
{
	run_both(stack_main);
}
END_TEST

static double half(double x)
{
	return x / 2;
}

static void computing(void *arg)
{
	double x = (double)(uintptr_t)arg;

	for (int i = 0; i < 10; i++) {
		double before = x;

		fiber_yield();
		x = half(x) + half(before);
	}
	ck_assert(x == (double)(uintptr_t)arg);
	leave();
}

static void compute_main(void *arg)
{
	run_fibers(computing, "xyz");
	runtime_stop(0);
}

START_TEST(registers_survive_a_switch)
{
	run_both(compute_main);
}
END_TEST

static struct thread *worker;

static int add_on_worker(void *arg)
{
	ck_assert_ptr_eq(thread_current(), worker);
	return *(int *)arg + 1;
}

static int sleep_on_worker(void *arg)
{
	ck_assert_ptr_eq(thread_current(), worker);
	fiber_sleep(50);
	return *(int *)arg + 2;
}

static void call_main(void *arg)
{
	int number = 40;

	worker = thread_create("worker", runtime_nr_reactors() - 1);
	ck_assert_int_eq(thread_call(worker, add_on_worker, &number), 41);
	ck_assert_int_eq(thread_call_fiber(worker, sleep_on_worker, &number), 42);
	thread_exit(worker);
	runtime_stop(0);
}

START_TEST(a_call_runs_on_the_other_thread_and_brings_its_result_back)
{
	run_real(2, call_main);
	run_sim(2, 100, call_main);
}
END_TEST

static void look(const struct fiber_info *info, void *arg)
{
	if (!strcmp(info->name, "fiber") && !strcmp(info->state, "condition"))
		++*(unsigned *)arg;
}

static void walk_main(void *arg)
{
	unsigned nr = 0;

	order[0] = 0;
	fiber_cond_init(&cond);
	for (int i = 0; i < 3; i++)
		fiber_spawn(thread_current(), "fiber", waiting, (void *)(uintptr_t)'w');
	fiber_sleep(1000);
	fiber_walk(look, &nr);
	ck_assert_uint_eq(nr, 3);
	nr_left = 4; /* nobody waits for the last */
	fiber_cond_broadcast(&cond);
	runtime_stop(0);
}

START_TEST(suspended_fibers_are_listed_with_what_they_wait_for)
{
	run_both(walk_main);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_fiber_that_yields_goes_to_the_end_of_the_line,
		a_mutex_admits_one_at_a_time_in_order,
		a_condition_wakes_one_or_all_and_a_timed_wait_ends,
		stacks_are_deep_and_are_used_again,
		registers_survive_a_switch,
		a_call_runs_on_the_other_thread_and_brings_its_result_back,
		suspended_fibers_are_listed_with_what_they_wait_for,
	};

	return run_suite("fiber", tests, sizeof(tests) / sizeof(tests[0]));
}
