/* What fibers wait with: yield, sleep, waits for callbacks, mutexes, conditions, and calls to other threads. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "runtime/internal.h"

#define HERE __builtin_return_address(0)

void fiber_yield(void)
{
	struct fiber *fiber = fiber_current();

	assert(fiber);
	fiber_ready(fiber);
	fiber_suspend("yield", HERE);
}

static void sleep_over(void *arg)
{
	fiber_ready(arg);
}

void fiber_sleep(uint64_t delay_us)
{
	struct timer timer;

	timer_init(&timer, sleep_over, fiber_current());
	timer_arm(&timer, delay_us);
	fiber_suspend("sleep", HERE);
}

void fiber_wait_init(struct fiber_wait *wait)
{
	assert(fiber_current());
	*wait = (struct fiber_wait){ .fiber = fiber_current(), .thread = thread_running };
}

int fiber_wait(struct fiber_wait *wait)
{
	assert(wait->fiber == fiber_current());
	if (!wait->done) {
		wait->waiting = true;
		fiber_suspend("wait", HERE);
		assert(wait->done);
	}
	return wait->result;
}

static void wake_here(void *arg)
{
	struct fiber_wait *wait = arg;

	assert(!wait->done);
	wait->done = true;
	if (wait->waiting)
		fiber_ready(wait->fiber);
}

void fiber_wake(struct fiber_wait *wait, int result)
{
	/* The waiter looks at the result only when done is set, and that happens on its own thread. */
	wait->result = result;
	if (wait->thread == thread_running)
		wake_here(wait);
	else
		thread_send(wait->thread, wake_here, wait);
}

void fiber_mutex_init(struct fiber_mutex *mutex)
{
	mutex->owner = NULL;
	list_init(&mutex->waiters);
}

void fiber_lock(struct fiber_mutex *mutex)
{
	struct fiber *fiber = fiber_current();

	assert(fiber && mutex->owner != fiber);
	if (!mutex->owner) {
		mutex->owner = fiber;
		return;
	}
	assert(fiber_thread(mutex->owner) == thread_running);
	list_add_tail(&mutex->waiters, fiber_link(fiber));
	fiber_suspend("mutex", HERE);
	assert(mutex->owner == fiber);
}

void fiber_unlock(struct fiber_mutex *mutex)
{
	struct list *link;

	assert(mutex->owner == fiber_current());
	link = list_pop(&mutex->waiters);
	mutex->owner = link ? fiber_from_link(link) : NULL;
	if (mutex->owner)
		fiber_ready(mutex->owner);
}

/* One fiber at a condition.  Owner: the fiber, on its stack. */
struct cond_waiter {
	struct list link;
	struct fiber *fiber;
	struct timer timer;
	int result;
};

void fiber_cond_init(struct fiber_cond *cond)
{
	list_init(&cond->waiters);
}

static void cond_release(struct cond_waiter *waiter, int result)
{
	list_del(&waiter->link);
	timer_cancel(&waiter->timer);
	waiter->result = result;
	fiber_ready(waiter->fiber);
}

static void cond_timeout(void *arg)
{
	cond_release(arg, -ETIMEDOUT);
}

static void cond_enter(struct fiber_cond *cond, struct cond_waiter *waiter)
{
	assert(fiber_current());
	waiter->fiber = fiber_current();
	timer_init(&waiter->timer, cond_timeout, waiter);
	list_add_tail(&cond->waiters, &waiter->link);
}

void fiber_cond_wait(struct fiber_cond *cond)
{
	struct cond_waiter waiter;

	cond_enter(cond, &waiter);
	fiber_suspend("condition", HERE);
}

int fiber_cond_timedwait(struct fiber_cond *cond, uint64_t timeout_us)
{
	struct cond_waiter waiter;

	cond_enter(cond, &waiter);
	timer_arm(&waiter.timer, timeout_us);
	fiber_suspend("condition", HERE);
	return waiter.result;
}

void fiber_cond_signal(struct fiber_cond *cond)
{
	struct list *link = list_first(&cond->waiters);

	if (link)
		cond_release(list_entry(link, struct cond_waiter, link), 0);
}

void fiber_cond_broadcast(struct fiber_cond *cond)
{
	struct list *link;

	while ((link = list_first(&cond->waiters)))
		cond_release(list_entry(link, struct cond_waiter, link), 0);
}

/* A call to another thread.  Owner: the caller, on its stack, until it is woken. */
struct call {
	struct fiber_wait wait;
	struct thread *thread;
	int (*fn)(void *arg);
	void *arg;
};

static void call_run(void *arg)
{
	struct call *call = arg;

	fiber_wake(&call->wait, call->fn(call->arg));
}

int thread_call(struct thread *thread, int (*fn)(void *arg), void *arg)
{
	struct call call = { .thread = thread, .fn = fn, .arg = arg };

	fiber_wait_init(&call.wait);
	thread_send(thread, call_run, &call);
	return fiber_wait(&call.wait);
}

int thread_call_fiber(struct thread *thread, int (*fn)(void *arg), void *arg)
{
	struct call call = { .thread = thread, .fn = fn, .arg = arg };
	int rc;

	fiber_wait_init(&call.wait);
	rc = fiber_spawn(thread, "call", call_run, &call);
	return rc ? rc : fiber_wait(&call.wait);
}
