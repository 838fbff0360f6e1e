/*
 * Threads, messages, tasks, pollers, timers and channels: who runs what, and where.
 *
 * A reactor is one OS thread pinned to one core; it turns its threads round in a loop: messages, tasks, pollers, timers,
 * submit to the io_uring, reap.  A thread here is a light execution context placed on a reactor.  Every object belongs
 * to one thread or says otherwise, and nothing that runs on a thread may block.
 */
#ifndef RUNTIME_THREAD_H
#define RUNTIME_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/list.h"

struct thread;
struct poller;
struct channel;

typedef void (*msg_fn)(void *arg);

/**
 * thread_create - make a thread on a reactor
 * @name:    copied
 * @reactor: index of the reactor, 0 to runtime_nr_reactors() - 1
 *
 * Thread: any.
 * Return: the thread, or NULL when there is no memory.  It runs until thread_exit().
 */
struct thread *thread_create(const char *name, unsigned reactor);

/**
 * thread_exit - ask a thread to end
 *
 * It ends, and is freed, once its pollers are stopped, its channels put, its fibers returned and its messages handled.
 * Thread: any.
 */
void thread_exit(struct thread *thread);

/* The thread that the caller runs on; NULL on an OS thread that is no reactor. */
struct thread *thread_current(void);
const char *thread_name(const struct thread *thread);
uint64_t thread_id(const struct thread *thread);

/**
 * thread_send - run fn(arg) on @thread
 *
 * Never fails and never blocks; messages of one sender to one thread arrive in order.  Wakes the reactor if it sleeps.
 * Thread: any OS thread, signal handlers excepted.
 */
void thread_send(struct thread *thread, msg_fn fn, void *arg);

/* Runs @fn on every thread in turn, then @done on the calling thread.  Thread: any thread. */
void thread_for_each(msg_fn fn, void *arg, msg_fn done);

/*
 * A task is local work for later in this turn, without allocation: the way a submit function completes "never before it
 * has returned".  Owner: the caller, until fn runs; a task may be queued again from its own fn (it then runs next turn).
 */
struct task {
	struct fifo_link link;
	msg_fn fn;
	void *arg;
};

void task_run_later(struct task *task, msg_fn fn, void *arg);

/*
 * Pollers.  Belong to the thread that starts them; a poller may stop itself or another of its thread from within a
 * callback.  With period_us 0 it is called every turn while the reactor is awake; otherwise when the period has passed.
 */
enum poll_result { POLL_IDLE = 0, POLL_BUSY = 1 };

typedef enum poll_result (*poller_fn)(void *arg);

struct poller *poller_start(const char *name, poller_fn fn, void *arg, uint64_t period_us);
void poller_stop(struct poller *poller);

/**
 * poller_set_wake - name a poller's wake source, for adaptive sleep
 * @arm:  called before the reactor sleeps; arms an event source that will end the sleep (an eventfd or socket watched
 *        through the ring).  Returns false when there is work already: the reactor then does not sleep.
 *
 * A poller with period 0 and no wake source is for work that only tasks, messages or ring completions create: it does not
 * keep the reactor awake by itself; while it returns POLL_BUSY the reactor stays awake.
 */
void poller_set_wake(struct poller *poller, bool (*arm)(void *arg));

/* Timers: one shot, embedded in the owner's struct, thread-local.  Resolution is one turn. */
struct timer {
	uint64_t deadline_us; /* time_now_us() at which fn runs; managed by the runtime */
	uint32_t heap_idx;    /* 0: not armed */
	struct thread *thread;
	msg_fn fn;
	void *arg;
};

void timer_init(struct timer *timer, msg_fn fn, void *arg);
void timer_arm(struct timer *timer, uint64_t delay_us); /* arming again moves it */
void timer_cancel(struct timer *timer);			/* harmless when not armed */
bool timer_armed(const struct timer *timer);

/*
 * Channels: state per thread and device, so that hot paths need no locks.  A device is anything with an address.
 */
struct device_ops {
	size_t ctx_size;
	int (*channel_create)(void *device, void *ctx); /* on the thread that gets it; 0 or -errno */
	void (*channel_destroy)(void *device, void *ctx);
};

void device_register(void *device, const struct device_ops *ops, const char *name);
/* Calls done(arg) on the calling thread once no channel is left; channel_get() fails from now on. */
void device_unregister(void *device, msg_fn done, void *arg);
struct channel *channel_get(void *device); /* one per thread, reference-counted; NULL: no memory, or unregistered */
void channel_put(struct channel *channel);
void *channel_ctx(struct channel *channel);
struct thread *channel_thread(struct channel *channel);
struct channel *channel_from_ctx(void *ctx);
/* Runs fn(channel ctx, arg) on each thread that has a channel of the device, one after the other, then done(arg) here. */
void device_for_each_channel(void *device, void (*fn)(void *ctx, void *arg), void *arg, msg_fn done);

/* What thread_get_stats and framework_get_reactors tell. */
struct thread_stats {
	uint64_t busy_ticks, idle_ticks;
	unsigned nr_active_pollers, nr_timed_pollers, nr_paused_pollers;
};

struct thread_info {
	const char *name;
	uint64_t id;
	unsigned reactor;
	struct thread_stats stats;
	uint64_t elapsed_ticks;
};

/* Calls fn once for each thread, under the registry's lock; fn must not call back into the runtime. */
void thread_walk(void (*fn)(const struct thread_info *info, void *arg), void *arg);

#endif
