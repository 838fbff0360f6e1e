/* Threads, messages, tasks, pollers, timers and channels. */
#include <stdatomic.h>
#include <signal.h>
#include <string.h>

#include "runtime/testing.h"

#define NR_MESSAGES 5000u

static struct thread *worker;

/* Runs @main_fn for real on one and two reactors, and in simulations of two. */
static void run_everywhere(void (*main_fn)(void *arg))
{
	run_real(1, main_fn);
	run_real(2, main_fn);
	run_sim(2, 50, main_fn);
}

static void finish(void)
{
	thread_exit(worker);
	runtime_stop(0);
}

static void start_worker(void)
{
	worker = thread_create("worker", runtime_nr_reactors() - 1);
	ck_assert_ptr_nonnull(worker);
}

static unsigned nr_arrived;

static void count_in_order(void *arg)
{
	/* A check by libcheck costs a system call. */
	if (thread_current() != worker || (uintptr_t)arg != nr_arrived)
		ck_abort_msg("message %lu came as number %u", (unsigned long)(uintptr_t)arg, nr_arrived);
	__atomic_store_n(&nr_arrived, nr_arrived + 1, __ATOMIC_RELAXED);
}

static int nothing(void *arg)
{
	return 0;
}

static void send_many(void *arg)
{
	nr_arrived = 0;
	start_worker();
	for (uintptr_t i = 0; i < NR_MESSAGES; i++)
		thread_send(worker, count_in_order, (void *)i);
	ck_assert_int_eq(thread_call(worker, nothing, NULL), 0);
	ck_assert_uint_eq(nr_arrived, NR_MESSAGES);
	finish();
}

START_TEST(messages_of_one_sender_arrive_in_order_however_many)
{
	run_everywhere(send_many);
}
END_TEST

#define NR_ROUNDS 50u

static void flood(void *arg)
{
	nr_arrived = 0;
	start_worker();
	for (unsigned round = 0; round < NR_ROUNDS; round++) {
		unsigned before = __atomic_load_n(&nr_arrived, __ATOMIC_RELAXED);

		for (unsigned i = 0; i < NR_MESSAGES; i++)
			thread_send(worker, count_in_order, (void *)(uintptr_t)(round * NR_MESSAGES + i));
		/* The next lot goes out while this one is being drained. */
		while (__atomic_load_n(&nr_arrived, __ATOMIC_RELAXED) == before)
			;
	}
	ck_assert_int_eq(thread_call(worker, nothing, NULL), 0);
	ck_assert_uint_eq(nr_arrived, NR_ROUNDS * NR_MESSAGES);
	finish();
}

START_TEST(order_holds_while_the_other_reactor_drains_what_overflows)
{
	run_real(2, flood);
}
END_TEST

/* Two threads that send each other the same number back and forth. */
static struct thread *pinger;
static unsigned nr_rounds;
static struct fiber_wait *rounds_over;

static void ping(void *arg);

static void pong(void *arg)
{
	thread_send(pinger, ping, arg);
}

static void ping(void *arg)
{
	if (++nr_rounds == NR_MESSAGES)
		fiber_wake(rounds_over, 0);
	else
		thread_send(worker, pong, arg);
}

static void ping_pong(void *arg)
{
	struct fiber_wait wait;

	nr_rounds = 0;
	start_worker();
	pinger = thread_current();
	fiber_wait_init(&wait);
	rounds_over = &wait;
	thread_send(worker, pong, NULL);
	fiber_wait(&wait);
	finish();
}

START_TEST(two_threads_wake_each_other_thousands_of_times)
{
	run_everywhere(ping_pong);
}
END_TEST

/* A slow ping: both reactors have time to fall asleep between rounds. */
static void slow_calls(void *arg)
{
	start_worker();
	for (int i = 0; i < 200; i++) {
		fiber_sleep(rand_u64() % 300);
		ck_assert_int_eq(thread_call(worker, nothing, NULL), 0);
	}
	finish();
}

START_TEST(a_message_wakes_a_reactor_at_any_moment_of_falling_asleep)
{
	run_everywhere(slow_calls);
}
END_TEST

static unsigned nr_visited;
static struct fiber_wait *visited;

static void visit(void *arg)
{
	nr_visited++;
}

static void visit_done(void *arg)
{
	ck_assert_ptr_eq(thread_current(), arg);
	fiber_wake(visited, 0);
}

static void visit_all(void *arg)
{
	struct fiber_wait wait;

	nr_visited = 0;
	start_worker();
	fiber_wait_init(&wait);
	visited = &wait;
	thread_for_each(visit, thread_current(), visit_done);
	fiber_wait(&wait);
	ck_assert_uint_eq(nr_visited, 2);
	finish();
}

START_TEST(a_walk_over_threads_visits_each_once_and_ends_where_it_began)
{
	run_everywhere(visit_all);
}
END_TEST

static struct task task;
static unsigned nr_task_runs;
static bool submit_returned;

static void task_fn(void *arg)
{
	ck_assert(submit_returned);
	if (++nr_task_runs < 3)
		task_run_later(&task, task_fn, arg);
	else
		fiber_wake(arg, 0);
}

static void run_task(void *arg)
{
	struct fiber_wait wait;

	nr_task_runs = 0;
	submit_returned = false;
	fiber_wait_init(&wait);
	task_run_later(&task, task_fn, &wait);
	submit_returned = true;
	fiber_wait(&wait);
	ck_assert_uint_eq(nr_task_runs, 3);
	runtime_stop(0);
}

START_TEST(a_task_runs_after_its_submitter_returned_and_may_queue_itself_again)
{
	run_real(1, run_task);
	run_sim(1, 20, run_task);
}
END_TEST

struct polling {
	struct poller *pollers[3];
	unsigned nr_calls[3];
	struct fiber_wait wait;
};

static enum poll_result poll_first(void *arg)
{
	struct polling *polling = arg;

	/* Stops its neighbour, itself and the timed one from within. */
	if (++polling->nr_calls[0] < 10)
		return POLL_BUSY;
	for (int i = 0; i < 3; i++)
		poller_stop(polling->pollers[i]);
	fiber_wake(&polling->wait, 0);
	return POLL_IDLE;
}

static enum poll_result poll_second(void *arg)
{
	struct polling *polling = arg;

	polling->nr_calls[1]++;
	return POLL_IDLE;
}

static void poll_some(void *arg)
{
	struct polling polling = { 0 };

	fiber_wait_init(&polling.wait);
	polling.pollers[0] = poller_start("first", poll_first, &polling, 0);
	polling.pollers[1] = poller_start("second", poll_second, &polling, 0);
	polling.pollers[2] = poller_start("timed", poll_second, &polling, 1000000);
	fiber_wait(&polling.wait);
	fiber_yield();
	ck_assert_uint_eq(polling.nr_calls[0], 10);
	ck_assert_uint_eq(polling.nr_calls[1], 9);
	runtime_stop(0);
}

START_TEST(a_poller_may_stop_itself_and_others_from_within)
{
	run_real(1, poll_some);
	run_sim(1, 20, poll_some);
}
END_TEST

static enum poll_result count_periods(void *arg)
{
	unsigned *nr = arg;

	++*nr;
	return POLL_IDLE;
}

static void poll_timed(void *arg)
{
	unsigned nr = 0;
	struct poller *poller = poller_start("periods", count_periods, &nr, 1000);

	fiber_sleep(100500);
	poller_stop(poller);
	/* Virtual time is exact but for what each step takes, and for stalls. */
	ck_assert_uint_ge(nr, 60);
	ck_assert_uint_le(nr, 100);
	runtime_stop(0);
}

START_TEST(a_timed_poller_is_called_once_each_period)
{
	run_sim(1, 20, poll_timed);
}
END_TEST

#define NR_TIMERS 200

struct timers {
	struct timer timers[NR_TIMERS];
	uint64_t last_us;
	unsigned nr_fired;
};

static struct timers timers;

static void timer_fired(void *arg)
{
	struct timer *timer = arg;

	ck_assert(!timer_armed(timer));
	ck_assert_uint_ge(timer->deadline_us, timers.last_us);
	ck_assert_uint_ge(clock_now_us(), timer->deadline_us);
	timers.last_us = timer->deadline_us;
	timers.nr_fired++;
}

static void run_timers(void *arg)
{
	memset(&timers, 0, sizeof(timers));
	for (int i = 0; i < NR_TIMERS; i++) {
		timer_init(&timers.timers[i], timer_fired, &timers.timers[i]);
		timer_arm(&timers.timers[i], rand_u64() % 20000);
	}
	for (int i = 0; i < NR_TIMERS; i += 4)
		timer_cancel(&timers.timers[i]);
	for (int i = 1; i < NR_TIMERS; i += 4)
		timer_arm(&timers.timers[i], rand_u64() % 20000);
	fiber_sleep(25000);
	ck_assert_uint_eq(timers.nr_fired, NR_TIMERS - NR_TIMERS / 4);
	runtime_stop(0);
}

START_TEST(timers_fire_in_order_unless_cancelled_and_where_they_were_moved)
{
	run_real(1, run_timers);
	run_sim(1, 50, run_timers);
}
END_TEST

static int device_a;
static atomic_int nr_contexts, nr_context_visits;

static int context_create(void *device, void *ctx)
{
	ck_assert_ptr_eq(device, &device_a);
	ck_assert_int_eq(*(int *)ctx, 0);
	*(int *)ctx = 42;
	atomic_fetch_add(&nr_contexts, 1);
	return 0;
}

static void context_destroy(void *device, void *ctx)
{
	ck_assert_int_eq(*(int *)ctx, 42);
	atomic_fetch_sub(&nr_contexts, 1);
}

static const struct device_ops device_ops = {
	.ctx_size = sizeof(int),
	.channel_create = context_create,
	.channel_destroy = context_destroy,
};

static struct channel *worker_channel;

static int worker_get(void *arg)
{
	worker_channel = channel_get(&device_a);
	ck_assert_ptr_eq(channel_thread(worker_channel), worker);
	return 0;
}

static int worker_put(void *arg)
{
	channel_put(worker_channel);
	return 0;
}

static void context_visit(void *ctx, void *arg)
{
	ck_assert_ptr_eq(channel_thread(channel_from_ctx(ctx)), thread_current());
	atomic_fetch_add(&nr_context_visits, 1);
}

static void wake(void *arg)
{
	fiber_wake(arg, 0);
}

static void use_channels(void *arg)
{
	struct channel *first, *second;
	struct fiber_wait wait;

	start_worker();
	atomic_store(&nr_context_visits, 0);
	device_register(&device_a, &device_ops, "a");
	first = channel_get(&device_a);
	second = channel_get(&device_a);
	ck_assert_ptr_eq(first, second);
	thread_call(worker, worker_get, NULL);
	ck_assert_int_eq(atomic_load(&nr_contexts), 2);

	fiber_wait_init(&wait);
	device_for_each_channel(&device_a, context_visit, &wait, wake);
	fiber_wait(&wait);
	ck_assert_int_eq(atomic_load(&nr_context_visits), 2);

	fiber_wait_init(&wait);
	device_unregister(&device_a, wake, &wait);
	ck_assert_ptr_null(channel_get(&device_a));
	channel_put(first);
	channel_put(second);
	thread_call(worker, worker_put, NULL);
	fiber_wait(&wait);
	ck_assert_int_eq(atomic_load(&nr_contexts), 0);
	finish();
}

START_TEST(a_device_has_one_channel_a_thread_and_goes_with_the_last)
{
	run_everywhere(use_channels);
}
END_TEST

static void count_thread(const struct thread_info *info, void *arg)
{
	unsigned *nr = arg;

	ck_assert(!strcmp(info->name, "app") || !strcmp(info->name, "worker"));
	++*nr;
}

static void walk(void *arg)
{
	struct reactor_info info;
	unsigned nr = 0;

	start_worker();
	thread_walk(count_thread, &nr);
	ck_assert_uint_eq(nr, 2);
	ck_assert_int_eq(runtime_reactor_info(0, &info), 0);
	ck_assert_int_eq(runtime_reactor_info(runtime_nr_reactors(), &info), -2);
	finish();
}

START_TEST(threads_and_reactors_can_be_listed)
{
	run_everywhere(walk);
}
END_TEST

static enum poll_result never(void *arg)
{
	return POLL_IDLE;
}

static void sit_idle(void *arg)
{
	unsigned other = runtime_nr_reactors() - 1;
	struct reactor_info info, later;

	start_worker();
	do {
		fiber_sleep(1000);
		runtime_reactor_info(other, &info);
	} while (!info.asleep);
	fiber_sleep(50000);
	runtime_reactor_info(other, &later);
	ck_assert(later.asleep);
	ck_assert_uint_eq(later.idle_ticks, info.idle_ticks);
	ck_assert_uint_eq(later.busy_ticks, info.busy_ticks);
	finish();
}

static void start_idle_poller(void *arg)
{
	/* No wake source, never busy: it must not keep the reactor awake. */
	*(struct poller **)arg = poller_start("never", never, NULL, 0);
}

static struct poller *idle_poller;

static int stop_idle_poller(void *arg)
{
	poller_stop(idle_poller);
	return 0;
}

static void sit_idle_with_poller(void *arg)
{
	struct reactor_info info;

	start_worker();
	thread_send(worker, start_idle_poller, &idle_poller);
	do {
		fiber_sleep(1000);
		runtime_reactor_info(1, &info);
	} while (!info.asleep);
	thread_call(worker, stop_idle_poller, NULL);
	finish();
}

START_TEST(a_reactor_with_nothing_to_do_sleeps_until_it_is_sent_something)
{
	run_real(2, sit_idle);
	run_real(2, sit_idle_with_poller);
}
END_TEST

static void on_terminate(void *arg)
{
	ck_assert_ptr_eq(thread_current(), runtime_app_thread());
	runtime_stop(0);
}

static void terminate_self(void *arg)
{
	runtime_on_terminate(on_terminate, NULL);
	raise(SIGTERM);
}

START_TEST(a_signal_to_terminate_arrives_as_a_message)
{
	run_real(1, terminate_self);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		messages_of_one_sender_arrive_in_order_however_many,
		order_holds_while_the_other_reactor_drains_what_overflows,
		two_threads_wake_each_other_thousands_of_times,
		a_message_wakes_a_reactor_at_any_moment_of_falling_asleep,
		a_walk_over_threads_visits_each_once_and_ends_where_it_began,
		a_task_runs_after_its_submitter_returned_and_may_queue_itself_again,
		a_poller_may_stop_itself_and_others_from_within,
		a_timed_poller_is_called_once_each_period,
		timers_fire_in_order_unless_cancelled_and_where_they_were_moved,
		a_device_has_one_channel_a_thread_and_goes_with_the_last,
		threads_and_reactors_can_be_listed,
		a_reactor_with_nothing_to_do_sleeps_until_it_is_sent_something,
		a_signal_to_terminate_arrives_as_a_message,
	};

	return run_suite("thread", tests, sizeof(tests) / sizeof(tests[0]));
}
