/*
 * Fibers: stackful coroutines on a thread, for everything that is not the hot path.  Fiber code reads like blocking code.
 *
 * Nothing looked up before a suspension may be trusted after it without looking again.
 */
#ifndef RUNTIME_FIBER_H
#define RUNTIME_FIBER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/list.h"

struct fiber;
struct thread;

/* Marks a function that may suspend: it may be called only from a fiber. */
#define fiber_fn

/**
 * fiber_spawn - start fn(arg) as a fiber on @thread
 *
 * Thread: any.  The fiber first runs in a later task of its thread, never before this returns.
 * Return: 0, or -ENOMEM.
 */
int fiber_spawn(struct thread *thread, const char *name, void (*fn)(void *arg), void *arg);

struct fiber *fiber_current(void); /* NULL outside of one */
fiber_fn void fiber_yield(void);   /* to the end of this thread's runnable work */
fiber_fn void fiber_sleep(uint64_t delay_us);

/* What `ferrule debug` tells of a fiber that is suspended. */
struct fiber_info {
	const char *name, *thread;
	const char *state; /* "sleep", "wait", "mutex", "condition", "yield", "new", "running" */
	const void *pc;	   /* the code that suspended */
	uint64_t since_us; /* clock_now_us() when it did */
};

/* Calls fn once for each fiber of the process, under the registry's lock; fn must not call back into the runtime.  Thread:
 * any; of fibers of other reactors the state may be a moment old. */
void fiber_walk(void (*fn)(const struct fiber_info *info, void *arg), void *arg);

/*
 * A wait: the waiter owns it (on its stack), somebody else completes it exactly once, before or after the wait begins.
 * It is how a fiber waits for a callback.
 */
struct fiber_wait {
	struct fiber *fiber;
	struct thread *thread;
	int result;
	bool done, waiting;
};

void fiber_wait_init(struct fiber_wait *wait);		 /* on the fiber that will wait */
fiber_fn int fiber_wait(struct fiber_wait *wait);	 /* returns what fiber_wake gave */
void fiber_wake(struct fiber_wait *wait, int result); /* any thread; the wait may be gone when this returns */

/* A mutex between fibers of one thread; hands over in order. */
struct fiber_mutex {
	struct fiber *owner;
	struct list waiters;
};

void fiber_mutex_init(struct fiber_mutex *mutex);
fiber_fn void fiber_lock(struct fiber_mutex *mutex);
void fiber_unlock(struct fiber_mutex *mutex);

/* A condition between fibers of one thread: wait returns after the next signal or broadcast; look again at what you
 * waited for. */
struct fiber_cond {
	struct list waiters;
};

void fiber_cond_init(struct fiber_cond *cond);
fiber_fn void fiber_cond_wait(struct fiber_cond *cond);
/* -ETIMEDOUT when timeout_us passed first */
fiber_fn int fiber_cond_timedwait(struct fiber_cond *cond, uint64_t timeout_us);
void fiber_cond_signal(struct fiber_cond *cond);
void fiber_cond_broadcast(struct fiber_cond *cond);

/* Runs fn(arg) on @thread and suspends until it has returned; gives its result.  fn itself must not suspend. */
fiber_fn int thread_call(struct thread *thread, int (*fn)(void *arg), void *arg);
/* The same with fn run as a fiber over there. */
fiber_fn int thread_call_fiber(struct thread *thread, int (*fn)(void *arg), void *arg);

#endif
