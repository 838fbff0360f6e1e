/* Pollers, and tasks: the two ways for a thread to do something again without being sent a message. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/internal.h"

/* Tasks of one turn: a chain of tasks that queue each other gives way to the rest of the reactor after so many. */
#define TASKS_PER_TURN 4096

/* Owner: its thread. */
struct poller {
	struct list link;
	char name[NAME_LEN];
	poller_fn fn;
	void *arg;
	struct thread *thread;
	uint64_t period_us;
	bool (*arm)(void *arg);
	struct timer timer;
	bool stopped; /* freed at the end of the turn */
};

static void poller_timer(void *arg)
{
	struct poller *poller = arg;

	poller->fn(poller->arg);
	if (!poller->stopped)
		timer_arm(&poller->timer, poller->period_us);
}

struct poller *poller_start(const char *name, poller_fn fn, void *arg, uint64_t period_us)
{
	struct poller *poller = calloc(1, sizeof(*poller));
	struct thread *thread = thread_running;

	assert(thread);
	if (!poller)
		return NULL;
	snprintf(poller->name, sizeof(poller->name), "%s", name);
	poller->fn = fn;
	poller->arg = arg;
	poller->thread = thread;
	poller->period_us = period_us;
	timer_init(&poller->timer, poller_timer, poller);
	if (period_us) {
		list_add_tail(&thread->timed_pollers, &poller->link);
		thread->nr_timed_pollers++;
		timer_arm(&poller->timer, period_us);
	} else {
		list_add_tail(&thread->pollers, &poller->link);
		thread->nr_pollers++;
		thread->idle = false;
	}
	return poller;
}

void poller_stop(struct poller *poller)
{
	struct thread *thread;

	if (!poller)
		return;
	thread = poller->thread;
	assert(thread == thread_running && !poller->stopped);
	poller->stopped = true;
	timer_cancel(&poller->timer);
	if (poller->period_us)
		thread->nr_timed_pollers--;
	else
		thread->nr_pollers--;
	if (poller->arm)
		thread->nr_wake_pollers--;
	thread->pollers_dead = true;
}

void poller_set_wake(struct poller *poller, bool (*arm)(void *arg))
{
	assert(poller->thread == thread_running);
	poller->thread->nr_wake_pollers += !!arm - !!poller->arm;
	poller->arm = arm;
}

enum turn_result pollers_run(struct thread *thread)
{
	enum turn_result result = TURN_IDLE;
	struct list *it;

	/* Nothing leaves the list before pollers_reap(), so that a poller may stop any of them. */
	list_for_each (it, &thread->pollers) {
		struct poller *poller = list_entry(it, struct poller, link);

		if (!poller->stopped && poller->fn(poller->arg) == POLL_BUSY)
			result = TURN_WORK;
	}
	return result;
}

static void reap(struct list *pollers, bool all)
{
	struct list *it, *tmp;

	list_for_each_safe (it, tmp, pollers) {
		struct poller *poller = list_entry(it, struct poller, link);

		if (poller->stopped || all) {
			list_del(it);
			free(poller);
		}
	}
}

void pollers_reap(struct thread *thread)
{
	if (likely(!thread->pollers_dead))
		return;
	thread->pollers_dead = false;
	reap(&thread->pollers, false);
	reap(&thread->timed_pollers, false);
}

void pollers_discard(struct thread *thread)
{
	reap(&thread->pollers, true);
	reap(&thread->timed_pollers, true);
}

static bool arm_pollers(struct thread *thread)
{
	struct list *it;

	list_for_each (it, &thread->pollers) {
		struct poller *poller = list_entry(it, struct poller, link);

		if (!poller->stopped && poller->arm && !poller->arm(poller->arg))
			return false;
	}
	return true;
}

bool thread_may_sleep(struct thread *thread)
{
	bool may;

	thread_running = thread;
	streams_before_sleep(thread);
	may = !thread->nr_wake_pollers || arm_pollers(thread);
	thread_running = NULL;
	return may;
}

void task_run_later(struct task *task, msg_fn fn, void *arg)
{
	struct thread *thread = thread_running;

	assert(thread);
	task->fn = fn;
	task->arg = arg;
	fifo_push(task == thread->task_running ? &thread->tasks_next : &thread->tasks, &task->link);
}

bool tasks_run(struct thread *thread)
{
	struct fifo_link *link;
	unsigned nr = 0;

	while (nr < TASKS_PER_TURN && (link = fifo_pop(&thread->tasks))) {
		struct task *task = container_of(link, struct task, link);

		thread->task_running = task;
		task->fn(task->arg);
		nr++;
	}
	thread->task_running = NULL;
	while ((link = fifo_pop(&thread->tasks_next)))
		fifo_push(&thread->tasks, link);
	return nr > 0;
}
