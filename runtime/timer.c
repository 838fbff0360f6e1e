/* Timers: a binary heap of each thread, ordered by deadline. */
#include <assert.h>
#include <stdlib.h>

#include "runtime/internal.h"

#define SLOTS_MINIMUM 32
/* Ticks and the clock part by some parts per million: look at the clock at least this often while a timer is armed. */
#define CHECK_MAX_US  100000ull

static void heap_set(struct timer_heap *heap, uint32_t idx, struct timer *timer)
{
	heap->slots[idx] = timer;
	timer->heap_idx = idx;
}

static void heap_up(struct timer_heap *heap, uint32_t idx, struct timer *timer)
{
	while (idx > 1 && timer->deadline_us < heap->slots[idx / 2]->deadline_us) {
		heap_set(heap, idx, heap->slots[idx / 2]);
		idx /= 2;
	}
	heap_set(heap, idx, timer);
}

static void heap_down(struct timer_heap *heap, uint32_t idx, struct timer *timer)
{
	for (;;) {
		uint32_t child = 2 * idx;

		if (child > heap->nr)
			break;
		if (child < heap->nr && heap->slots[child + 1]->deadline_us < heap->slots[child]->deadline_us)
			child++;
		if (timer->deadline_us <= heap->slots[child]->deadline_us)
			break;
		heap_set(heap, idx, heap->slots[child]);
		idx = child;
	}
	heap_set(heap, idx, timer);
}

static void heap_grow(struct timer_heap *heap)
{
	uint32_t nr_slots = heap->nr_slots ? 2 * heap->nr_slots : SLOTS_MINIMUM;
	struct timer **slots = realloc(heap->slots, nr_slots * sizeof(struct timer *));

	if (!slots) {
		log_error("no memory for a timer; ending");
		abort();
	}
	heap->slots = slots;
	heap->nr_slots = nr_slots;
}

static void heap_remove(struct timer_heap *heap, uint32_t idx)
{
	struct timer *last = heap->slots[heap->nr--];

	heap->slots[idx]->heap_idx = 0;
	if (idx > heap->nr)
		return;
	if (idx > 1 && last->deadline_us < heap->slots[idx / 2]->deadline_us)
		heap_up(heap, idx, last);
	else
		heap_down(heap, idx, last);
}

void timer_init(struct timer *timer, msg_fn fn, void *arg)
{
	*timer = (struct timer){ .fn = fn, .arg = arg };
}

void timer_arm(struct timer *timer, uint64_t delay_us)
{
	struct thread *thread = thread_running;
	struct timer_heap *heap = &thread->timers;
	uint64_t now_us = clock_now_us();

	assert(thread);
	timer_cancel(timer);
	timer->thread = thread;
	timer->deadline_us = delay_us < UINT64_MAX - now_us ? now_us + delay_us : UINT64_MAX - 1;
	if (heap->nr + 2 > heap->nr_slots)
		heap_grow(heap);
	heap->nr++;
	heap_up(heap, heap->nr, timer);
	if (timer->heap_idx == 1)
		heap->check_ticks = 0;
}

void timer_cancel(struct timer *timer)
{
	if (!timer->heap_idx)
		return;
	assert(timer->thread == thread_running);
	heap_remove(&timer->thread->timers, timer->heap_idx);
}

bool timer_armed(const struct timer *timer)
{
	return timer->heap_idx != 0;
}

uint64_t timers_next_us(const struct thread *thread)
{
	return thread->timers.nr ? thread->timers.slots[1]->deadline_us : UINT64_MAX;
}

static void set_check(struct timer_heap *heap, uint64_t now_us, uint64_t now_ticks)
{
	uint64_t at_us = heap->slots[1]->deadline_us, left_us = at_us > now_us ? at_us - now_us : 0;

	if (left_us > CHECK_MAX_US)
		left_us = CHECK_MAX_US;
	heap->check_ticks = now_ticks + left_us * clock_tick_rate() / 1000000;
}

bool timers_run(struct thread *thread, uint64_t now_ticks)
{
	struct timer_heap *heap = &thread->timers;
	bool found = false;
	uint64_t now_us;
	uint32_t left; /* a timer that arms itself with no delay waits for the next turn */

	if (!heap->nr || (!sim_on && now_ticks < heap->check_ticks))
		return false;
	now_us = clock_now_us();
	for (left = heap->nr; left && heap->nr && heap->slots[1]->deadline_us <= now_us; left--) {
		struct timer *timer = heap->slots[1];

		heap_remove(heap, 1);
		found = true;
		timer->fn(timer->arg);
	}
	if (heap->nr)
		set_check(heap, now_us, now_ticks);
	return found;
}

void timers_fini(struct thread *thread)
{
	for (uint32_t i = 1; i <= thread->timers.nr; i++)
		thread->timers.slots[i]->heap_idx = 0;
	free(thread->timers.slots);
}
