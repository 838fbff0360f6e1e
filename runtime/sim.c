/*
 * The simulation: one OS thread, virtual time, and a seed that picks whose turn it is.
 *
 * A step is one turn of one runnable thread, or an event of the outside world (bytes that arrive).  A thread is runnable
 * while it has work or its last turn found some.  Each step takes a little virtual time; when nothing is runnable, time
 * jumps to the next timer or event; when there is none, that is a deadlock.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/internal.h"
#include "runtime/rnic_internal.h"

#define NR_SMALL_DEFAULT   256u
#define NR_LARGE_DEFAULT   64u
#define MAX_VIRTUAL_US	   3600000000ull
#define MAX_STEPS	   100000000ull
#define START_NS	   1000000000ull
#define STEP_NS_MAX	   2000	 /* virtual time that one turn takes, at most */
#define STALL_PPM	   2000	 /* the odds that a thread is kept from its turn for a while */
#define STALL_US_MAX	   500

bool sim_on;
uint64_t sim_now_ns;

static struct sim_opts options;
static uint64_t rng[4];
static uint64_t trace_hash, nr_steps;
static struct list events = LIST_INIT(events);
static struct sigaction abort_before;

static uint64_t rotate_left(uint64_t x, int by)
{
	return (x << by) | (x >> (64 - by));
}

/* xoshiro256**, by Blackman and Vigna. */
uint64_t sim_rand(void)
{
	uint64_t result = rotate_left(rng[1] * 5, 7) * 9, t = rng[1] << 17;

	assert(sim_on);
	rng[2] ^= rng[0];
	rng[3] ^= rng[1];
	rng[1] ^= rng[2];
	rng[0] ^= rng[3];
	rng[2] ^= t;
	rng[3] = rotate_left(rng[3], 45);
	return result;
}

static void seed_rng(uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15ull;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		rng[i] = z ^ (z >> 31);
	}
}

bool sim_active(void)
{
	return sim_on;
}

const struct sim_opts *sim_options(void)
{
	return &options;
}

bool sim_chance(unsigned ppm)
{
	return ppm && sim_rand() % 1000000 < ppm;
}

void sim_trace(uint64_t value)
{
	trace_hash = (trace_hash ^ value) * 0x100000001b3ull;
	trace_hash ^= trace_hash >> 29;
}

uint64_t sim_trace_hash(void)
{
	return trace_hash;
}

void sim_event_set(struct sim_event *event, uint64_t at_us, sim_event_fn fn, void *arg)
{
	struct list *it;

	sim_event_clear(event);
	event->at_us = at_us;
	event->fn = fn;
	event->arg = arg;
	for (it = events.prev; it != &events; it = it->prev) {
		if (list_entry(it, struct sim_event, link)->at_us <= at_us)
			break;
	}
	list_insert_between(&event->link, it, it->next);
}

void sim_event_clear(struct sim_event *event)
{
	if (event->link.next)
		list_del(&event->link);
}

static void run_events(void)
{
	struct list *link;

	while ((link = list_first(&events))) {
		struct sim_event *event = list_entry(link, struct sim_event, link);

		if (event->at_us > clock_now_us())
			break;
		list_del(link);
		sim_trace(event->at_us);
		event->fn(event->arg);
	}
}

static bool is_runnable(struct thread *thread, uint64_t now_us)
{
	return thread->stalled_until_us <= now_us &&
	       (!thread->idle || timers_next_us(thread) <= now_us || thread_has_work(thread));
}

/* One of the runnable threads, each as likely as the others; NULL when there is none. */
static struct thread *pick_thread(void)
{
	uint64_t now_us = clock_now_us();
	struct thread *picked = NULL;
	unsigned nr = 0;
	struct list *it;

	list_for_each (it, &threads_all) {
		struct thread *thread = list_entry(it, struct thread, registry_link);

		if (is_runnable(thread, now_us) && sim_rand() % ++nr == 0)
			picked = thread;
	}
	return picked;
}

static void step(struct thread *thread)
{
	static const unsigned msgs_max[] = { 1, 2, 8, 256 };

	if (sim_chance(STALL_PPM)) {
		thread->stalled_until_us = clock_now_us() + 1 + sim_rand() % STALL_US_MAX;
		return;
	}
	sim_trace(thread->id);
	sim_trace(sim_now_ns);
	reactor_current = thread->reactor;
	reactor_current->now_ticks = clock_ticks();
	thread_turn(thread, msgs_max[sim_rand() % 4]);
	reactor_current = NULL;
	sim_now_ns += sim_rand() % STEP_NS_MAX;
}

/* What a reactor does before it sleeps.  True when that has made something runnable. */
static bool before_sleep(void)
{
	struct list *it;
	bool woken = false;

	for (unsigned i = 0; i < runtime.nr_reactors; i++)
		iobuf_flush(&runtime.reactors[i]);
	list_for_each (it, &threads_all) {
		struct thread *thread = list_entry(it, struct thread, registry_link);

		reactor_current = thread->reactor;
		if (!thread_may_sleep(thread))
			thread->idle = false; /* a stalled one turns when its stall is over */
		reactor_current = NULL;
		woken = woken || is_runnable(thread, clock_now_us());
	}
	return woken;
}

/* Jumps to when something happens next.  False when nothing ever will. */
static bool jump(void)
{
	uint64_t next_us = UINT64_MAX, now_us = clock_now_us();
	struct list *it;

	if (!list_empty(&events))
		next_us = list_entry(events.next, struct sim_event, link)->at_us;
	list_for_each (it, &threads_all) {
		struct thread *thread = list_entry(it, struct thread, registry_link);
		uint64_t at_us = timers_next_us(thread);

		if (thread->stalled_until_us > now_us && (!thread->idle || thread_has_work(thread)))
			at_us = thread->stalled_until_us;
		else if (thread->stalled_until_us > at_us)
			at_us = thread->stalled_until_us;
		if (at_us < next_us)
			next_us = at_us;
	}
	if (next_us == UINT64_MAX)
		return false;
	if (next_us > now_us)
		sim_now_ns = next_us * 1000;
	return true;
}

static void log_fiber(const struct fiber_info *info, void *arg)
{
	log_error("  fiber %s on thread %s: %s since %llu us, at %p", info->name, info->thread, info->state,
		  (unsigned long long)info->since_us, info->pc);
}

static void log_left(void)
{
	struct list *it;

	list_for_each (it, &threads_all) {
		struct thread *thread = list_entry(it, struct thread, registry_link);
		bool channels = !list_empty(&thread->channels);

		log_error("  thread %s: %sexiting, %u pollers, %u timed, %u fibers, %u streams, %u ring operations, %u walks%s",
			  thread->name, thread->exiting ? "" : "not ", thread->nr_pollers, thread->nr_timed_pollers,
			  thread->nr_fibers, thread->nr_streams, thread->nr_ring_ops, thread->nr_visits, channels ? ", channels" : "");
	}
	fiber_walk(log_fiber, NULL);
}

static int give_up(int rc, const char *why)
{
	log_error("simulation, seed %llu, at %llu us: %s", (unsigned long long)options.seed,
		  (unsigned long long)clock_now_us(), why);
	log_left();
	return rc;
}

static int turn_until_over(void)
{
	uint64_t end_us = clock_now_us() + options.max_virtual_us;

	while (!atomic_load(&runtime.stopping) || atomic_load(&runtime.nr_threads)) {
		struct thread *thread;

		if (clock_now_us() >= end_us)
			return give_up(-ETIMEDOUT, "virtual time has run out");
		if (++nr_steps > MAX_STEPS)
			return give_up(-ETIMEDOUT, "too many steps");
		run_events();
		for (unsigned i = 0; i < runtime.nr_reactors; i++) {
			reactor_adopt(&runtime.reactors[i]);
			iobuf_turn(&runtime.reactors[i]);
		}
		thread = pick_thread();
		if (thread)
			step(thread);
		else if (!before_sleep() && !jump())
			return give_up(-EDEADLK, "deadlock: nothing is runnable and no timer is armed");
	}
	return atomic_load(&runtime.result);
}

/* A failed assertion should say which seed it was. */
static void on_abort(int sig)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "simulation seed %llu\n", (unsigned long long)options.seed);

	if (write(STDERR_FILENO, text, (size_t)len) < 0)
		len = 0;
	sigaction(SIGABRT, &abort_before, NULL);
	raise(SIGABRT);
}

static void begin(const struct sim_opts *opts)
{
	struct sigaction action = { .sa_handler = on_abort };

	options = *opts;
	if (!options.nr_reactors)
		options.nr_reactors = 1;
	if (!options.max_virtual_us)
		options.max_virtual_us = MAX_VIRTUAL_US;
	seed_rng(options.seed);
	sim_on = true;
	sim_now_ns = START_NS;
	trace_hash = 0xcbf29ce484222325ull;
	nr_steps = 0;
	stream_sim_reset();
	rnic_sim_reset();
	sigemptyset(&action.sa_mask);
	sigaction(SIGABRT, &action, &abort_before);
}

static void end(void)
{
	if (atomic_load(&runtime.nr_threads)) {
		fibers_discard();
		threads_discard();
	}
	while (!list_empty(&events))
		list_del(events.next);
	stream_sim_reset();
	rnic_sim_reset();
	sigaction(SIGABRT, &abort_before, NULL);
	thread_running = NULL;
	reactor_current = NULL;
}

int sim_run(const struct sim_opts *opts, void (*main_fn)(void *arg), void *arg)
{
	int rc;

	assert(!sim_on && !thread_running);
	begin(opts);
	rc = runtime_prepare(options.nr_reactors, NULL);
	if (rc)
		goto out_end;
	rc = iobuf_init(options.nr_small ? options.nr_small : NR_SMALL_DEFAULT,
			options.nr_large ? options.nr_large : NR_LARGE_DEFAULT);
	if (rc)
		goto out_release;
	rc = runtime_start_app(main_fn, arg);
	if (!rc)
		rc = turn_until_over();
	end();
	iobuf_fini();
out_release:
	runtime_release();
out_end:
	sim_on = false;
	return rc;
}
