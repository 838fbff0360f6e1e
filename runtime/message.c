/*
 * Messages: thread_send() and the queues behind it.
 *
 * Between threads of one reactor a message is an entry in a plain growing ring.  From elsewhere it is a slot of the thread's
 * DPDK ring (many producers, one consumer, and no producer waits for a preempted one).  When that ring is full, messages go
 * to a list, and everybody's do until the owner has found the list empty.
 *
 * Why order holds: a sender that has used the list sees `overflowed` until its messages on the list have run.  The owner
 * takes the list first, then empties the ring of all that stood in it then (what those senders had sent before), and only
 * then runs the list.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ring_elem.h>

#include "runtime/internal.h"

#define BATCH	      32
#define QUEUE_MINIMUM 64

static_assert(sizeof(struct msg) == 16, "a message is one 16-byte ring element");

struct overflow_msg {
	struct fifo_link link;
	struct msg msg;
};

int msg_init(struct thread *thread)
{
	ssize_t len = rte_ring_get_memsize_elem(sizeof(struct msg), THREAD_RING_SLOTS);
	int rc;

	if (len < 0)
		return (int)len;
	thread->ring = aligned_alloc(128, ((size_t)len + 127) & ~(size_t)127);
	if (!thread->ring)
		return -ENOMEM;
	rc = rte_ring_init(thread->ring, "messages", THREAD_RING_SLOTS, RING_F_MP_RTS_ENQ | RING_F_SC_DEQ);
	if (rc) {
		free(thread->ring);
		return rc;
	}
	pthread_mutex_init(&thread->overflow_lock, NULL);
	fifo_init(&thread->overflow);
	return 0;
}

void msg_fini(struct thread *thread)
{
	assert(!msg_pending(thread));
	free(thread->local.slots);
	free(thread->ring);
	pthread_mutex_destroy(&thread->overflow_lock);
}

static void out_of_memory(void)
{
	log_error("no memory for a message between threads; ending");
	abort();
}

static void queue_grow(struct msg_queue *queue)
{
	uint32_t nr_slots = queue->nr_slots ? 2 * queue->nr_slots : QUEUE_MINIMUM;
	struct msg *slots = malloc(nr_slots * sizeof(*slots));

	if (!slots)
		out_of_memory();
	for (uint32_t i = 0; i < queue->nr; i++)
		slots[i] = queue->slots[(queue->head + i) & (queue->nr_slots - 1)];
	free(queue->slots);
	queue->slots = slots;
	queue->nr_slots = nr_slots;
	queue->head = 0;
}

static void queue_push(struct msg_queue *queue, struct msg msg)
{
	if (unlikely(queue->nr == queue->nr_slots))
		queue_grow(queue);
	queue->slots[(queue->head + queue->nr++) & (queue->nr_slots - 1)] = msg;
}

static struct msg queue_pop(struct msg_queue *queue)
{
	struct msg msg = queue->slots[queue->head];

	queue->head = (queue->head + 1) & (queue->nr_slots - 1);
	queue->nr--;
	return msg;
}

static void send_overflow(struct thread *thread, struct msg msg)
{
	struct overflow_msg *node = malloc(sizeof(*node));

	if (!node)
		out_of_memory();
	node->msg = msg;
	pthread_mutex_lock(&thread->overflow_lock);
	fifo_push(&thread->overflow, &node->link);
	atomic_store(&thread->overflowed, true);
	pthread_mutex_unlock(&thread->overflow_lock);
}

static void send_remote(struct thread *thread, struct msg msg)
{
	if (unlikely(atomic_load_explicit(&thread->overflowed, memory_order_acquire)) ||
	    unlikely(rte_ring_mp_rts_enqueue_bulk_elem(thread->ring, &msg, sizeof(msg), 1, NULL) != 1))
		send_overflow(thread, msg);
}

void thread_send(struct thread *thread, msg_fn fn, void *arg)
{
	struct msg msg = { .fn = fn, .arg = arg };

	TRACE(runtime, thread_send, thread, fn, arg);
	if (reactor_current == thread->reactor) {
		queue_push(&thread->local, msg);
		return;
	}
	/* The reactor may be asleep: the message first, then the look at its flag; it does the opposite. */
	struct reactor *reactor = thread->reactor;

	send_remote(thread, msg);
	reactor_wake_if_asleep(reactor);
}

bool msg_pending(struct thread *thread)
{
	return thread->local.nr || !rte_ring_empty(thread->ring) || atomic_load(&thread->overflowed);
}

void msg_discard(struct thread *thread)
{
	struct fifo_link *link;

	thread->local.nr = 0;
	rte_ring_reset(thread->ring);
	atomic_store(&thread->overflowed, false);
	while ((link = fifo_pop(&thread->overflow)))
		free(container_of(link, struct overflow_msg, link));
}

static unsigned run_local(struct thread *thread, unsigned msgs_max)
{
	unsigned nr = thread->local.nr < msgs_max ? thread->local.nr : msgs_max;

	for (unsigned i = 0; i < nr; i++) {
		struct msg msg = queue_pop(&thread->local);

		msg.fn(msg.arg);
	}
	return nr;
}

static unsigned run_ring(struct thread *thread, unsigned msgs_max)
{
	unsigned total = 0, left = rte_ring_count(thread->ring);
	struct msg msgs[BATCH];

	if (left > msgs_max)
		left = msgs_max;
	while (left) {
		unsigned nr = rte_ring_sc_dequeue_burst_elem(thread->ring, msgs, sizeof(msgs[0]),
							     left < BATCH ? left : BATCH, NULL);

		if (!nr)
			break;
		for (unsigned i = 0; i < nr; i++)
			msgs[i].fn(msgs[i].arg);
		total += nr;
		left -= nr;
	}
	return total;
}

static unsigned run_overflow(struct thread *thread)
{
	struct fifo taken;
	struct fifo_link *link;
	unsigned nr;

	fifo_init(&taken);
	pthread_mutex_lock(&thread->overflow_lock);
	if (fifo_empty(&thread->overflow)) {
		atomic_store(&thread->overflowed, false);
	} else {
		taken = thread->overflow;
		fifo_init(&thread->overflow);
	}
	pthread_mutex_unlock(&thread->overflow_lock);
	nr = run_ring(thread, THREAD_RING_SLOTS);
	if (!taken.head)
		return nr;
	while ((link = fifo_pop(&taken))) {
		struct overflow_msg *node = container_of(link, struct overflow_msg, link);
		struct msg msg = node->msg;

		free(node);
		msg.fn(msg.arg);
		nr++;
	}
	return nr;
}

static unsigned run_remote(struct thread *thread, unsigned msgs_max)
{
	if (unlikely(atomic_load_explicit(&thread->overflowed, memory_order_relaxed)))
		return run_overflow(thread);
	if (rte_ring_empty(thread->ring))
		return 0;
	return run_ring(thread, msgs_max);
}

enum turn_result msg_run(struct thread *thread, unsigned msgs_max)
{
	unsigned local, remote;

	if (unlikely(sim_on) && sim_rand() % 2) {
		remote = run_remote(thread, msgs_max);
		local = run_local(thread, msgs_max);
	} else {
		local = run_local(thread, msgs_max);
		remote = run_remote(thread, msgs_max);
	}
	if (remote)
		return TURN_WORK;
	return local ? TURN_SOME : TURN_IDLE;
}
