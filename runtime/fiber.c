/*
 * Fibers: their stacks, their life, and the switch between a fiber and the turn of its thread.
 *
 * A fiber runs only from fibers_run(), never nested in another.  States: new, ready (on its thread's fibers_ready),
 * running, suspended (somebody's list or a wait names it), finished (freed by fibers_run()).
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/asan.h"
#include "runtime/fiber_switch.h"
#include "runtime/internal.h"

#define STACK_LEN	  (256u * 1024)
#define STACKS_CACHED_MAX 64

/* Owner: its thread; what fiber_walk() reads is written with care for readers elsewhere. */
struct fiber {
	struct list link; /* ready, or waiting for a mutex or condition */
	struct list registry_link;
	struct thread *thread;
	struct fiber_context context;
	void *stack;
	void *asan_fake_stack;
	void (*fn)(void *arg);
	void *arg;
	char name[NAME_LEN];
	const char *state;
	const void *pc;
	uint64_t since_ticks;
	bool finished;
};

/* A free stack, at its lowest address. */
struct free_stack {
	struct free_stack *next;
};

static pthread_mutex_t fibers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list fibers_all = LIST_INIT(fibers_all);
static struct free_stack *free_stacks;
static unsigned nr_free_stacks;

static __thread struct fiber *running;
static __thread struct fiber_context turn_context;
static __thread void *turn_fake_stack;
static __thread const void *turn_stack;
static __thread size_t turn_stack_len;

static void *stack_map(void)
{
	size_t guard_len = (size_t)sysconf(_SC_PAGESIZE);
	char *base = mmap(NULL, guard_len + STACK_LEN, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (base == MAP_FAILED)
		return NULL;
	if (mprotect(base, guard_len, PROT_NONE)) {
		munmap(base, guard_len + STACK_LEN);
		return NULL;
	}
	return base + guard_len;
}

static void stack_unmap(void *stack)
{
	size_t guard_len = (size_t)sysconf(_SC_PAGESIZE);

	munmap((char *)stack - guard_len, guard_len + STACK_LEN);
}

static void *stack_get_locked(void)
{
	struct free_stack *stack = free_stacks;

	if (!stack)
		return stack_map();
	free_stacks = stack->next;
	nr_free_stacks--;
	return stack;
}

/* ASan knows nothing of frames that a fiber never left: its last one.  Clear them for the next user. */
static void stack_put_locked(void *stack)
{
	struct free_stack *entry = stack;

	ASAN_UNPOISON_MEMORY_REGION(stack, STACK_LEN);
	if (nr_free_stacks >= STACKS_CACHED_MAX) {
		stack_unmap(stack);
		return;
	}
	entry->next = free_stacks;
	free_stacks = entry;
	nr_free_stacks++;
}

void fibers_fini(void)
{
	pthread_mutex_lock(&fibers_lock);
	while (free_stacks) {
		struct free_stack *stack = free_stacks;

		free_stacks = stack->next;
		stack_unmap(stack);
	}
	nr_free_stacks = 0;
	pthread_mutex_unlock(&fibers_lock);
}

static void enter_stack(void **fake_stack, const void *stack, size_t len)
{
#if WITH_ASAN
	__sanitizer_start_switch_fiber(fake_stack, stack, len);
#endif
}

static void entered_stack(void *fake_stack, const void **old_stack, size_t *old_len)
{
#if WITH_ASAN
	__sanitizer_finish_switch_fiber(fake_stack, old_stack, old_len);
#endif
}

/* The first frame of every fiber. */
static void fiber_entry(void)
{
	struct fiber *fiber = running;

	entered_stack(NULL, &turn_stack, &turn_stack_len);
	fiber->fn(fiber->arg);
	fiber->finished = true;
	enter_stack(NULL, turn_stack, turn_stack_len);
	fiber_context_switch(&fiber->context, &turn_context);
	abort();
}

static void set_state(struct fiber *fiber, const char *state, const void *pc)
{
	__atomic_store_n(&fiber->pc, pc, __ATOMIC_RELAXED);
	/* The turn's start is near enough, and costs no look at a clock. */
	__atomic_store_n(&fiber->since_ticks, reactor_current ? reactor_current->now_ticks : clock_ticks(),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&fiber->state, state, __ATOMIC_RELAXED);
}

static void fiber_free(struct fiber *fiber)
{
	pthread_mutex_lock(&fibers_lock);
	list_del(&fiber->registry_link);
	stack_put_locked(fiber->stack);
	pthread_mutex_unlock(&fibers_lock);
	free(fiber);
}

static void fiber_resume(struct fiber *fiber)
{
	running = fiber;
	__atomic_store_n(&fiber->state, "running", __ATOMIC_RELAXED);
	TRACE(runtime, fiber_resume, fiber, fiber->name);
	enter_stack(&turn_fake_stack, fiber->stack, STACK_LEN);
	fiber_context_switch(&turn_context, &fiber->context);
	entered_stack(turn_fake_stack, NULL, NULL);
	running = NULL;
	TRACE(runtime, fiber_suspend, fiber, fiber->name, fiber->state);
	if (fiber->finished) {
		fiber->thread->nr_fibers--;
		fiber_free(fiber);
	}
}

void fiber_suspend(const char *state, const void *pc)
{
	struct fiber *fiber = running;

	assert(fiber);
	set_state(fiber, state, pc);
	enter_stack(&fiber->asan_fake_stack, turn_stack, turn_stack_len);
	fiber_context_switch(&fiber->context, &turn_context);
	entered_stack(fiber->asan_fake_stack, &turn_stack, &turn_stack_len);
}

bool fibers_run(struct thread *thread)
{
	struct list batch, *link;

	if (likely(list_empty(&thread->fibers_ready)))
		return false;
	list_init(&batch);
	list_splice_tail(&batch, &thread->fibers_ready);
	while ((link = list_pop(&batch)))
		fiber_resume(list_entry(link, struct fiber, link));
	return true;
}

void fiber_ready(struct fiber *fiber)
{
	assert(fiber->thread == thread_running);
	list_add_tail(&fiber->thread->fibers_ready, &fiber->link);
}

void fibers_discard(void)
{
	struct list *link;

	while ((link = list_first(&fibers_all)))
		fiber_free(list_entry(link, struct fiber, registry_link));
	running = NULL;
}

static void start_msg(void *arg)
{
	struct fiber *fiber = arg;

	fiber->thread->nr_fibers++;
	fiber_ready(fiber);
}

int fiber_spawn(struct thread *thread, const char *name, void (*fn)(void *arg), void *arg)
{
	struct fiber *fiber = calloc(1, sizeof(*fiber));

	if (!fiber)
		return -ENOMEM;
	list_init(&fiber->link);
	fiber->thread = thread;
	fiber->fn = fn;
	fiber->arg = arg;
	snprintf(fiber->name, sizeof(fiber->name), "%s", name);
	set_state(fiber, "new", __builtin_return_address(0));
	pthread_mutex_lock(&fibers_lock);
	fiber->stack = stack_get_locked();
	if (fiber->stack)
		list_add_tail(&fibers_all, &fiber->registry_link);
	pthread_mutex_unlock(&fibers_lock);
	if (!fiber->stack) {
		free(fiber);
		return -ENOMEM;
	}
	fiber_context_init(&fiber->context, fiber->stack, STACK_LEN, fiber_entry);
	thread_send(thread, start_msg, fiber);
	return 0;
}

struct fiber *fiber_current(void)
{
	return running;
}

struct thread *fiber_thread(const struct fiber *fiber)
{
	return fiber->thread;
}

struct list *fiber_link(struct fiber *fiber)
{
	return &fiber->link;
}

struct fiber *fiber_from_link(struct list *link)
{
	return list_entry(link, struct fiber, link);
}

static uint64_t ticks_to_us(uint64_t then_ticks)
{
	uint64_t now_ticks = clock_ticks(), ago_ticks = now_ticks > then_ticks ? now_ticks - then_ticks : 0;

	return clock_now_us() - (uint64_t)((double)ago_ticks * 1e6 / (double)clock_tick_rate());
}

void fiber_walk(void (*fn)(const struct fiber_info *info, void *arg), void *arg)
{
	struct list *it;

	pthread_mutex_lock(&fibers_lock);
	list_for_each (it, &fibers_all) {
		struct fiber *fiber = list_entry(it, struct fiber, registry_link);
		struct fiber_info info = {
			.name = fiber->name,
			.thread = fiber->thread->name,
			.state = __atomic_load_n(&fiber->state, __ATOMIC_RELAXED),
			.pc = __atomic_load_n(&fiber->pc, __ATOMIC_RELAXED),
			.since_us = ticks_to_us(__atomic_load_n(&fiber->since_ticks, __ATOMIC_RELAXED)),
		};

		fn(&info, arg);
	}
	pthread_mutex_unlock(&fibers_lock);
}
