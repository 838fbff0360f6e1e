/*
 * Threads: their registry, their life, and one turn of them.
 *
 * A turn of a thread runs in this order: messages, pollers, timers, readable streams, tasks, fibers, tasks again.  The real
 * reactor takes the turns of its threads round robin; the simulation takes one at a time, as its seed says.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/internal.h"

__thread struct thread *thread_running;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_id;
struct list threads_all = LIST_INIT(threads_all);

void threads_lock(void)
{
	pthread_mutex_lock(&registry_lock);
}

void threads_unlock(void)
{
	pthread_mutex_unlock(&registry_lock);
}

void threads_reset(void)
{
	assert(list_empty(&threads_all));
	last_id = 0;
}

void threads_discard(void)
{
	struct list *link;

	while ((link = list_pop(&threads_all))) {
		struct thread *thread = list_entry(link, struct thread, registry_link);

		list_del(&thread->link);
		pollers_discard(thread);
		timers_fini(thread);
		msg_discard(thread);
		msg_fini(thread);
		free(thread);
	}
	runtime.app = NULL;
	atomic_store(&runtime.nr_threads, 0);
}

static struct thread *thread_alloc(const char *name, struct reactor *reactor)
{
	struct thread *thread = aligned_alloc(64, (sizeof(*thread) + 63) & ~(size_t)63);

	if (!thread)
		return NULL;
	memset(thread, 0, sizeof(*thread));
	if (msg_init(thread)) {
		free(thread);
		return NULL;
	}
	snprintf(thread->name, sizeof(thread->name), "%s", name);
	thread->reactor = reactor;
	thread->start_ticks = clock_ticks();
	list_init(&thread->iobuf_granted);
	list_init(&thread->link);
	fifo_init(&thread->tasks);
	fifo_init(&thread->tasks_next);
	list_init(&thread->pollers);
	list_init(&thread->timed_pollers);
	list_init(&thread->fibers_ready);
	list_init(&thread->streams_ready);
	list_init(&thread->streams_hot);
	list_init(&thread->channels);
	return thread;
}

struct thread *thread_create(const char *name, unsigned reactor_idx)
{
	struct reactor *reactor = &runtime.reactors[reactor_idx];
	struct thread *thread;

	assert(reactor_idx < runtime.nr_reactors);
	thread = thread_alloc(name, reactor);
	if (!thread)
		return NULL;
	atomic_fetch_add(&runtime.nr_threads, 1);
	threads_lock();
	thread->id = ++last_id;
	list_add_tail(&threads_all, &thread->registry_link);
	list_add_tail(&reactor->incoming, &thread->link);
	atomic_store(&reactor->has_incoming, true);
	threads_unlock();
	reactor_wake_if_asleep(reactor);
	TRACE(runtime, thread_create, thread, thread->id);
	return thread;
}

static void exit_msg(void *arg)
{
	struct thread *thread = arg;

	thread->exiting = true;
}

void thread_exit(struct thread *thread)
{
	thread_send(thread, exit_msg, thread);
}

static bool thread_is_finished(struct thread *thread)
{
	return thread->exiting && !thread->nr_pollers && !thread->nr_timed_pollers && !thread->nr_fibers &&
	       !thread->nr_ring_ops && !thread->nr_streams && !thread->nr_visits && list_empty(&thread->channels) &&
	       list_empty(&thread->streams_ready) && fifo_empty(&thread->tasks) &&
	       fifo_empty(&thread->tasks_next) && !msg_pending(thread);
}

static void thread_destroy(struct thread *thread)
{
	TRACE(runtime, thread_destroy, thread, thread->id);
	list_del(&thread->link);
	timers_fini(thread);
	msg_fini(thread);
	free(thread);
	if (atomic_fetch_sub(&runtime.nr_threads, 1) == 1 && atomic_load(&runtime.stopping))
		reactors_wake_all();
}

/* Whoever sends under the registry's lock finds either a thread that will run the message or none. */
static void thread_try_finish(struct thread *thread)
{
	bool finished;

	if (!thread_is_finished(thread))
		return;
	threads_lock();
	finished = !msg_pending(thread);
	if (finished) {
		list_del(&thread->registry_link);
		if (runtime.app == thread)
			runtime.app = NULL;
	}
	threads_unlock();
	if (finished)
		thread_destroy(thread);
}

static inline enum turn_result max_result(enum turn_result a, enum turn_result b)
{
	return a > b ? a : b;
}

enum turn_result thread_turn(struct thread *thread, unsigned msgs_max)
{
	struct reactor *reactor = thread->reactor;
	uint64_t start_ticks = reactor->now_ticks;
	atomic_uint_fast64_t *counter;
	enum turn_result result;

	thread_running = thread;
	result = msg_run(thread, msgs_max);
	result = max_result(result, pollers_run(thread));
	if (timers_run(thread, start_ticks))
		result = max_result(result, TURN_SOME);
	if (streams_run(thread))
		result = TURN_WORK;
	if (tasks_run(thread))
		result = max_result(result, TURN_SOME);
	if (fibers_run(thread)) {
		result = max_result(result, TURN_SOME);
		tasks_run(thread);
	}
	pollers_reap(thread);
	thread->idle = result == TURN_IDLE;
	counter = thread->idle ? &thread->idle_ticks : &thread->busy_ticks;
	/* One look at the clock serves as the end of this turn and the start of the next thread's. */
	reactor->now_ticks = clock_ticks();
	atomic_store_explicit(counter,
			      atomic_load_explicit(counter, memory_order_relaxed) + reactor->now_ticks - start_ticks,
			      memory_order_relaxed);
	if (unlikely(thread->exiting))
		thread_try_finish(thread);
	thread_running = NULL;
	return result;
}

bool thread_has_work(struct thread *thread)
{
	return msg_pending(thread) || !fifo_empty(&thread->tasks) || !fifo_empty(&thread->tasks_next) ||
	       !list_empty(&thread->fibers_ready) || !list_empty(&thread->streams_ready) ||
	       (thread->exiting && thread_is_finished(thread));
}

struct thread *thread_current(void)
{
	return thread_running;
}

const char *thread_name(const struct thread *thread)
{
	return thread->name;
}

uint64_t thread_id(const struct thread *thread)
{
	return thread->id;
}

/* A walk over all threads, oldest first.  Owner: the walk; moves from thread to thread as a message. */
struct visit {
	msg_fn fn, done;
	void *arg;
	struct thread *origin;
	uint64_t last_id;
};

static void visit_done(void *arg)
{
	struct visit *visit = arg;

	visit->origin->nr_visits--;
	visit->done(visit->arg);
	free(visit);
}

static void visit_next(struct visit *visit);

static void visit_thread(void *arg)
{
	struct visit *visit = arg;

	visit->fn(visit->arg);
	visit_next(visit);
}

static void visit_next(struct visit *visit)
{
	struct list *it;

	threads_lock();
	list_for_each (it, &threads_all) {
		struct thread *thread = list_entry(it, struct thread, registry_link);

		if (thread->id > visit->last_id) {
			visit->last_id = thread->id;
			thread_send(thread, visit_thread, visit);
			threads_unlock();
			return;
		}
	}
	threads_unlock();
	thread_send(visit->origin, visit_done, visit);
}

void thread_for_each(msg_fn fn, void *arg, msg_fn done)
{
	struct visit *visit = malloc(sizeof(*visit));

	assert(thread_running);
	if (!visit) {
		log_error("no memory to visit the threads; ending");
		abort();
	}
	*visit = (struct visit){ .fn = fn, .done = done, .arg = arg, .origin = thread_running };
	thread_running->nr_visits++;
	visit_next(visit);
}

void thread_walk(void (*fn)(const struct thread_info *info, void *arg), void *arg)
{
	uint64_t now_ticks = clock_ticks();
	struct list *it;

	threads_lock();
	list_for_each (it, &threads_all) {
		struct thread *thread = list_entry(it, struct thread, registry_link);
		struct thread_info info = {
			.name = thread->name,
			.id = thread->id,
			.reactor = thread->reactor->idx,
			.elapsed_ticks = now_ticks - thread->start_ticks,
		};

		info.stats.busy_ticks = atomic_load_explicit(&thread->busy_ticks, memory_order_relaxed);
		info.stats.idle_ticks = atomic_load_explicit(&thread->idle_ticks, memory_order_relaxed);
		info.stats.nr_active_pollers = __atomic_load_n(&thread->nr_pollers, __ATOMIC_RELAXED);
		info.stats.nr_timed_pollers = __atomic_load_n(&thread->nr_timed_pollers, __ATOMIC_RELAXED);
		fn(&info, arg);
	}
	threads_unlock();
}
