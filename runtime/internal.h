/* What the files of runtime share among themselves: the reactor, the thread, and how one turn is made of their parts. */
#ifndef RUNTIME_INTERNAL_H
#define RUNTIME_INTERNAL_H

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/runtime.h"
#include "runtime/sim.h"
#include "runtime/trace.h"

#define NAME_LEN	  32
#define REACTORS_MAX	  128
#define IOBUF_NR_CLASSES  2
#define IOBUF_CACHE_MAX	  128
#define THREAD_RING_SLOTS 1024 /* messages from other reactors before they overflow to a list */

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct rte_ring;

struct msg {
	msg_fn fn;
	void *arg;
};

/* Growing ring of messages between threads of one reactor.  Owner: the reactor. */
struct msg_queue {
	struct msg *slots;
	uint32_t head, nr, nr_slots; /* nr_slots is a power of two, or 0 */
};

/* What a turn found to do.  Only TURN_WORK puts off the reactor's sleep. */
enum turn_result {
	TURN_IDLE,
	TURN_SOME, /* timers, fibers, tasks: go round again, but do not poll on for more */
	TURN_WORK, /* something came from outside */
};

/* Min-heap of armed timers; slot 0 is not used, so that heap_idx 0 means "not armed". */
struct timer_heap {
	struct timer **slots;
	uint32_t nr, nr_slots;
	uint64_t check_ticks; /* do not look at the clock before this */
};

/* Owner: its reactor, but for what says otherwise. */
struct thread {
	/* any thread, immutable */
	char name[NAME_LEN];
	uint64_t id;
	struct reactor *reactor;
	uint64_t start_ticks;
	/* any thread: messages from other reactors */
	struct rte_ring *ring;
	atomic_bool overflowed; /* senders go by the list until the owner has found it empty */
	pthread_mutex_t overflow_lock;
	struct fifo overflow;
	/* registry.lock */
	struct list registry_link;
	/* iobuf's lock */
	struct list iobuf_granted;

	/* its reactor's alone, on cache lines that no sender reads */
	_Alignas(64) struct list link; /* reactor->threads or reactor->incoming */
	struct msg_queue local;
	struct fifo tasks, tasks_next;
	struct task *task_running;
	struct list pollers, timed_pollers;
	unsigned nr_pollers, nr_timed_pollers, nr_wake_pollers;
	bool pollers_dead; /* stopped ones are on the lists still */
	struct timer_heap timers;
	struct list fibers_ready;
	unsigned nr_fibers;
	struct list streams_ready, streams_hot;
	unsigned nr_streams, nr_streams_hot;
	bool streams_worked; /* something came in this turn */
	struct list channels;
	unsigned nr_ring_ops;
	unsigned nr_visits; /* walks over all threads that it started and that are not over */
	bool exiting;
	bool idle; /* the last turn found nothing */
	uint64_t stalled_until_us; /* simulation: takes no turn before this */
	atomic_uint_fast64_t busy_ticks, idle_ticks;
};

struct iobuf_cache {
	void *bufs[IOBUF_CACHE_MAX];
	unsigned nr;
};

/* Owner: its OS thread, but for what says otherwise. */
struct reactor {
	unsigned idx, core;
	int tid;
	pthread_t os_thread;
	struct io_uring ring;
	bool has_ring;
	uint64_t now_ticks; /* as of the end of the last thread's turn */
	int wake_fd;
	uint64_t wake_count; /* where the read of wake_fd puts it */
	struct list threads;
	struct iobuf_cache iobufs[IOBUF_NR_CLASSES];
	/* read by any thread for statistics */
	atomic_uint_fast64_t busy_ticks, idle_ticks, sleep_ticks;
	/* any thread; a sender reads asleep for each message, so nothing beside it is written often */
	_Alignas(64) atomic_int asleep;
	atomic_bool has_incoming;
	struct list incoming; /* registry.lock */
};

/* Owner: any thread; written by starting and stopping. */
struct runtime {
	struct reactor *reactors;
	unsigned nr_reactors;
	struct thread *app;
	bool poll;
	uint32_t idle_us;
	bool eal;
	atomic_bool stopping;
	atomic_int result;
	atomic_uint nr_threads;
	atomic_bool terminate; /* set by the signal handler */
	msg_fn terminate_fn;
	void *terminate_arg;
};

extern struct runtime runtime;
extern __thread struct reactor *reactor_current;
extern __thread struct thread *thread_running;

/* Locks, innermost last: registry.lock, a thread's overflow_lock; fiber.c's and iobuf's are leaves of their own. */

/* runtime.c */
int runtime_prepare(unsigned nr_reactors, const unsigned *cores);
void runtime_release(void);
int runtime_start_app(void (*main_fn)(void *arg), void *arg);

/* reactor.c */
void reactor_init(struct reactor *reactor, unsigned idx, unsigned core);
void reactor_loop(struct reactor *reactor); /* until the runtime has stopped and no thread is left */
void reactor_wake(struct reactor *reactor);
void reactor_wake_if_asleep(struct reactor *reactor);
void reactors_wake_all(void);
void reactor_adopt(struct reactor *reactor); /* takes in new threads */

/* thread.c */
enum turn_result thread_turn(struct thread *thread, unsigned msgs_max);
bool thread_has_work(struct thread *thread);
bool thread_may_sleep(struct thread *thread); /* has its streams watched, and its pollers' wake sources armed */
void threads_lock(void);
void threads_unlock(void);
extern struct list threads_all; /* under threads_lock(), oldest first */
void threads_reset(void);
void threads_discard(void); /* frees all that are left, as they are: the end of a failed simulation */

/* message.c */
int msg_init(struct thread *thread);
void msg_fini(struct thread *thread);
void msg_discard(struct thread *thread);
enum turn_result msg_run(struct thread *thread, unsigned msgs_max);
bool msg_pending(struct thread *thread);

/* poller.c */
bool tasks_run(struct thread *thread);
enum turn_result pollers_run(struct thread *thread);
void pollers_reap(struct thread *thread);
void pollers_discard(struct thread *thread);

/* timer.c */
bool timers_run(struct thread *thread, uint64_t now_ticks);
uint64_t timers_next_us(const struct thread *thread); /* UINT64_MAX: none */
void timers_fini(struct thread *thread);

/* fiber.c */
bool fibers_run(struct thread *thread);
void fiber_ready(struct fiber *fiber);
void fiber_suspend(const char *state, const void *pc);
struct thread *fiber_thread(const struct fiber *fiber);
struct list *fiber_link(struct fiber *fiber);
struct fiber *fiber_from_link(struct list *link);
void fibers_discard(void);
void fibers_fini(void);

/* clock.c */
void clock_init(void);

/* memory.c, eal.c, iobuf.c */
void memory_use_eal(bool on);
bool memory_uses_eal(void);
void *dma_alloc_dirty(size_t len, size_t align);
int eal_start(const struct runtime_opts *opts, unsigned mem_mib, unsigned main_core);
void eal_stop(void);
int iobuf_init(unsigned nr_small, unsigned nr_large);
void iobuf_fini(void);
void *iobuf_region(size_t *ret_len); /* all pool buffers, for registration; once the pool is there it stays */
void iobuf_turn(struct reactor *reactor);  /* gives cached buffers to those who wait */
void iobuf_flush(struct reactor *reactor); /* before a sleep: gives back all that is cached */

/* ring.c */
int ring_init(struct reactor *reactor);
void ring_fini(struct reactor *reactor);
enum turn_result ring_turn(struct reactor *reactor); /* submits and reaps */
void ring_sleep(struct reactor *reactor, uint64_t timeout_us);

/* stream.c */
bool streams_run(struct thread *thread);
void streams_before_sleep(struct thread *thread);

/* sim.c */
extern bool sim_on;
extern uint64_t sim_now_ns;
typedef void (*sim_event_fn)(void *arg);
struct sim_event {
	struct list link; /* by time, then by when it was set */
	uint64_t at_us;
	sim_event_fn fn;
	void *arg;
};
void sim_event_set(struct sim_event *event, uint64_t at_us, sim_event_fn fn, void *arg);
void sim_event_clear(struct sim_event *event);
const struct sim_opts *sim_options(void);
bool sim_chance(unsigned ppm);
void sim_trace(uint64_t value); /* into the run's hash */

/* stream_sim.c */
void stream_sim_reset(void);

#endif
