/* Starting and stopping: cores, memory, the reactors' OS threads, signals, and the end. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/budget.h"
#include "runtime/cores.h"
#include "runtime/internal.h"

#define IDLE_US_DEFAULT 100

struct runtime runtime;

static atomic_uint nr_signals;

/* Reactors of one process wait for each other twice: all have a ring (or have failed), and all may go. */
struct start {
	pthread_barrier_t barrier;
	bool pin;
	atomic_int rc;
};

static struct start start;

int runtime_prepare(unsigned nr_reactors, const unsigned *cores)
{
	memset(&runtime, 0, sizeof(runtime));
	threads_reset();
	runtime.reactors = aligned_alloc(64, nr_reactors * sizeof(struct reactor));
	if (!runtime.reactors)
		return -ENOMEM;
	runtime.nr_reactors = nr_reactors;
	for (unsigned i = 0; i < nr_reactors; i++)
		reactor_init(&runtime.reactors[i], i, cores ? cores[i] : i);
	return 0;
}

void runtime_release(void)
{
	fibers_fini();
	free(runtime.reactors);
	runtime.reactors = NULL;
	runtime.nr_reactors = 0;
}

int runtime_start_app(void (*main_fn)(void *arg), void *arg)
{
	runtime.app = thread_create("app", 0);
	if (!runtime.app)
		return -ENOMEM;
	return fiber_spawn(runtime.app, "main", main_fn, arg);
}

static void pin_to_core(struct reactor *reactor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(reactor->core, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		log_warning("reactor %u cannot run on core %u: %s; it runs anywhere", reactor->idx, reactor->core,
			    strerror(errno));
}

/* The ring must be made by the OS thread that will use it. */
static void reactor_prepare(struct reactor *reactor)
{
	int rc;

	reactor->tid = (int)gettid();
	if (start.pin)
		pin_to_core(reactor);
	rc = ring_init(reactor);
	if (rc)
		atomic_store(&start.rc, rc);
}

static void *reactor_main(void *arg)
{
	struct reactor *reactor = arg;
	char name[16];

	snprintf(name, sizeof(name), "reactor-%u", reactor->idx % 1000);
	pthread_setname_np(pthread_self(), name);
	reactor_prepare(reactor);
	pthread_barrier_wait(&start.barrier);
	pthread_barrier_wait(&start.barrier);
	if (!atomic_load(&start.rc))
		reactor_loop(reactor);
	return NULL;
}

/* Starts the other reactors; a reactor that does not start ends the process, since the barrier counts on it. */
static void start_os_threads(void)
{
	for (unsigned i = 1; i < runtime.nr_reactors; i++) {
		int rc = pthread_create(&runtime.reactors[i].os_thread, NULL, reactor_main, &runtime.reactors[i]);

		if (rc) {
			log_error("cannot start reactor %u: %s; ending", i, strerror(rc));
			exit(EXIT_FAILURE);
		}
	}
}

static int run_reactors(const struct runtime_opts *opts, void (*main_fn)(void *arg), void *arg)
{
	cpu_set_t affinity;
	int rc;

	sched_getaffinity(0, sizeof(affinity), &affinity);
	atomic_store(&start.rc, 0);
	start.pin = opts->pin;
	pthread_barrier_init(&start.barrier, NULL, runtime.nr_reactors);
	start_os_threads();
	reactor_prepare(&runtime.reactors[0]);
	pthread_barrier_wait(&start.barrier);
	rc = atomic_load(&start.rc);
	if (!rc)
		rc = runtime_start_app(main_fn, arg);
	atomic_store(&start.rc, rc);
	pthread_barrier_wait(&start.barrier);
	if (!rc) {
		reactor_loop(&runtime.reactors[0]);
		rc = atomic_load(&runtime.result);
	}
	for (unsigned i = 1; i < runtime.nr_reactors; i++)
		pthread_join(runtime.reactors[i].os_thread, NULL);
	for (unsigned i = 0; i < runtime.nr_reactors; i++)
		ring_fini(&runtime.reactors[i]);
	pthread_barrier_destroy(&start.barrier);
	sched_setaffinity(0, sizeof(affinity), &affinity);
	return rc;
}

static int choose_cores(const struct runtime_opts *opts, unsigned *cores, unsigned *ret_nr)
{
	int rc;

	if (!opts->cores) {
		*ret_nr = 1;
		return cores_default(&cores[0]);
	}
	rc = cores_parse(opts->cores, cores, REACTORS_MAX, ret_nr);
	if (rc)
		log_error("\"%s\" is no list of cores such as 0,2-3", opts->cores);
	/* EAL would say so among pages of its own usage. */
	for (unsigned i = 0; !rc && opts->eal && i < *ret_nr; i++) {
		if (cores[i] >= sysconf(_SC_NPROCESSORS_CONF)) {
			log_error("there is no core %u: this machine has 0 to %ld", cores[i], sysconf(_SC_NPROCESSORS_CONF) - 1);
			rc = -EINVAL;
		}
	}
	return rc;
}

static int run_with_memory(const struct runtime_opts *opts, const struct budget *budget, void (*main_fn)(void *arg),
			   void *arg)
{
	struct runtime_opts eal_opts = *opts;
	int rc;

	if (opts->eal) {
		eal_opts.no_huge = budget->no_huge;
		rc = eal_start(&eal_opts, budget->mem_mib, runtime.reactors[0].core);
		if (rc)
			return rc;
	}
	rc = iobuf_init(budget->nr_small, budget->nr_large);
	if (!rc) {
		rc = run_reactors(opts, main_fn, arg);
		iobuf_fini();
	}
	if (opts->eal)
		eal_stop();
	return rc;
}

int runtime_run(const struct runtime_opts *opts, void (*main_fn)(void *arg), void *arg)
{
	unsigned cores[REACTORS_MAX], nr;
	struct budget budget;
	int rc;

	signal(SIGPIPE, SIG_IGN);
	clock_init();
	rc = choose_cores(opts, cores, &nr);
	if (rc)
		return rc;
	rc = budget_compute(opts, &budget);
	if (rc)
		return rc;
	rc = runtime_prepare(nr, cores);
	if (rc)
		return rc;
	runtime.poll = opts->poll;
	runtime.idle_us = opts->idle_us ? opts->idle_us : IDLE_US_DEFAULT;
	rc = run_with_memory(opts, &budget, main_fn, arg);
	if (atomic_exchange(&nr_signals, 0) || runtime.terminate_fn) {
		signal(SIGTERM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
	}
	runtime_release();
	return rc;
}

void runtime_stop(int result)
{
	threads_lock();
	if (!atomic_exchange(&runtime.stopping, true)) {
		atomic_store(&runtime.result, result);
		if (runtime.app)
			thread_exit(runtime.app);
	}
	threads_unlock();
	reactors_wake_all();
}

/* In a signal: a flag for reactor 0 to find, and a write that ends its sleep. */
static void on_signal(int sig)
{
	int saved_errno = errno;

	if (atomic_fetch_add(&nr_signals, 1)) {
		signal(sig, SIG_DFL);
		raise(sig);
	} else {
		atomic_store(&runtime.terminate, true);
		reactor_wake(&runtime.reactors[0]);
	}
	errno = saved_errno;
}

void runtime_on_terminate(msg_fn fn, void *arg)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	runtime.terminate_arg = arg;
	runtime.terminate_fn = fn;
	if (sim_on)
		return;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

unsigned runtime_nr_reactors(void)
{
	return runtime.nr_reactors;
}

unsigned runtime_reactor_core(unsigned reactor)
{
	assert(reactor < runtime.nr_reactors);
	return runtime.reactors[reactor].core;
}

struct thread *runtime_app_thread(void)
{
	return runtime.app;
}

int runtime_reactor_info(unsigned idx, struct reactor_info *ret_info)
{
	struct reactor *reactor;

	if (idx >= runtime.nr_reactors)
		return -ENOENT;
	reactor = &runtime.reactors[idx];
	*ret_info = (struct reactor_info){
		.core = reactor->core,
		.tid = reactor->tid,
		.busy_ticks = atomic_load_explicit(&reactor->busy_ticks, memory_order_relaxed),
		.idle_ticks = atomic_load_explicit(&reactor->idle_ticks, memory_order_relaxed),
		.sleep_ticks = atomic_load_explicit(&reactor->sleep_ticks, memory_order_relaxed),
		.asleep = atomic_load_explicit(&reactor->asleep, memory_order_relaxed),
	};
	return 0;
}
