/*
 * The reactor: an OS thread that turns its threads round, and sleeps in its io_uring when there is nothing to do.
 *
 * Sleep and wake: the reactor writes `asleep` and then looks for work once more; a sender queues its message and then reads
 * `asleep`.  With a full fence between the two steps on either side, one of them sees the other.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "runtime/internal.h"

/* A turn may run this many messages of one thread before it looks at the thread's pollers again. */
#define MSGS_PER_TURN	 256
#define SLEEP_FOREVER_US UINT64_MAX

__thread struct reactor *reactor_current;

void reactor_init(struct reactor *reactor, unsigned idx, unsigned core)
{
	memset(reactor, 0, sizeof(*reactor));
	reactor->idx = idx;
	reactor->core = core;
	reactor->wake_fd = -1;
	list_init(&reactor->threads);
	list_init(&reactor->incoming);
}

void reactor_wake(struct reactor *reactor)
{
	uint64_t one = 1;

	if (reactor->wake_fd < 0)
		return;
	while (write(reactor->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void reactor_wake_if_asleep(struct reactor *reactor)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (unlikely(atomic_load_explicit(&reactor->asleep, memory_order_relaxed)) &&
	    atomic_exchange(&reactor->asleep, 0)) {
		TRACE(runtime, reactor_kick, reactor->idx);
		reactor_wake(reactor);
	}
}

void reactors_wake_all(void)
{
	for (unsigned i = 0; i < runtime.nr_reactors; i++)
		reactor_wake_if_asleep(&runtime.reactors[i]);
}

void reactor_adopt(struct reactor *reactor)
{
	if (likely(!atomic_load_explicit(&reactor->has_incoming, memory_order_acquire)))
		return;
	threads_lock();
	list_splice_tail(&reactor->threads, &reactor->incoming);
	atomic_store(&reactor->has_incoming, false);
	threads_unlock();
}

static void deliver_terminate(void)
{
	msg_fn fn = runtime.terminate_fn;

	atomic_store(&runtime.terminate, false);
	if (fn && runtime.app)
		thread_send(runtime.app, fn, runtime.terminate_arg);
}

static enum turn_result reactor_turn(struct reactor *reactor)
{
	enum turn_result result = ring_turn(reactor);
	struct list *it, *tmp;

	reactor_adopt(reactor);
	if (unlikely(reactor->idx == 0 && atomic_load_explicit(&runtime.terminate, memory_order_relaxed)))
		deliver_terminate();
	iobuf_turn(reactor);
	if (unlikely(list_empty(&reactor->threads)))
		reactor->now_ticks = clock_ticks();
	list_for_each_safe (it, tmp, &reactor->threads) {
		enum turn_result part = thread_turn(list_entry(it, struct thread, link), MSGS_PER_TURN);

		if (part > result)
			result = part;
	}
	return result;
}

static bool reactor_has_work(struct reactor *reactor)
{
	struct list *it;

	if (atomic_load(&reactor->has_incoming) || (reactor->idx == 0 && atomic_load(&runtime.terminate)))
		return true;
	list_for_each (it, &reactor->threads) {
		if (thread_has_work(list_entry(it, struct thread, link)))
			return true;
	}
	return false;
}

static bool reactor_over(void)
{
	return atomic_load_explicit(&runtime.stopping, memory_order_relaxed) && !atomic_load(&runtime.nr_threads);
}

static uint64_t sleep_timeout_us(struct reactor *reactor)
{
	uint64_t next_us = UINT64_MAX, now_us;
	struct list *it;

	list_for_each (it, &reactor->threads) {
		uint64_t at_us = timers_next_us(list_entry(it, struct thread, link));

		if (at_us < next_us)
			next_us = at_us;
	}
	if (next_us == UINT64_MAX)
		return SLEEP_FOREVER_US;
	now_us = clock_now_us();
	return next_us > now_us ? next_us - now_us : 0;
}

static void reactor_sleep(struct reactor *reactor)
{
	uint64_t start_ticks = reactor->now_ticks, timeout_us;
	struct list *it;

	iobuf_flush(reactor);
	list_for_each (it, &reactor->threads) {
		if (!thread_may_sleep(list_entry(it, struct thread, link)))
			return;
	}
	atomic_store(&reactor->asleep, 1);
	atomic_thread_fence(memory_order_seq_cst);
	timeout_us = sleep_timeout_us(reactor);
	if (timeout_us && !reactor_has_work(reactor) && !reactor_over()) {
		TRACE(runtime, reactor_sleep, reactor->idx, timeout_us);
		ring_sleep(reactor, timeout_us);
		TRACE(runtime, reactor_wake, reactor->idx);
	}
	atomic_store(&reactor->asleep, 0);
	atomic_fetch_add_explicit(&reactor->sleep_ticks, clock_ticks() - start_ticks, memory_order_relaxed);
}

static void account(atomic_uint_fast64_t *counter, uint64_t ticks)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + ticks,
			      memory_order_relaxed);
}

void reactor_loop(struct reactor *reactor)
{
	uint64_t idle_ticks = runtime.idle_us * clock_tick_rate() / 1000000;
	uint64_t start_ticks = clock_ticks(), worked_ticks = start_ticks;

	reactor_current = reactor;
	reactor->now_ticks = start_ticks;
	while (!reactor_over()) {
		enum turn_result result = reactor_turn(reactor);
		uint64_t end_ticks = reactor->now_ticks;

		account(result == TURN_IDLE ? &reactor->idle_ticks : &reactor->busy_ticks, end_ticks - start_ticks);
		start_ticks = end_ticks;
		if (result == TURN_WORK)
			worked_ticks = end_ticks;
		if (result != TURN_IDLE || runtime.poll || end_ticks - worked_ticks < idle_ticks)
			continue;
		reactor_sleep(reactor);
		start_ticks = reactor->now_ticks = clock_ticks();
	}
	reactor_current = NULL;
}
