/*
 * The buffer pool.  Each reactor keeps a small stack of free buffers; the rest stand in a shared ring; who finds neither
 * queues, and is served in order.
 *
 * Nobody starves: while somebody waits, puts go to the shared ring and from there to the first in the queue, every reactor
 * gives up its stack at its next turn, and a reactor that sleeps has given it up before.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ring.h>

#include "runtime/asan.h"
#include "runtime/internal.h"

#define ALIGNMENT 4096

/* Owner: any thread; waiters and nr_waits under the lock. */
struct iobuf_pool {
	struct rte_ring *store;
	size_t buf_len;
	unsigned nr, cache_max, batch;
	atomic_uint nr_waiters;
	struct list waiters;
	uint64_t nr_waits;
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct iobuf_pool pools[IOBUF_NR_CLASSES];
static void *slab;

static unsigned power_of_two_above(unsigned n)
{
	unsigned p = 2;

	while (p <= n)
		p *= 2;
	return p;
}

static int pool_init(struct iobuf_pool *pool, size_t buf_len, unsigned nr, char *bufs)
{
	unsigned nr_slots = power_of_two_above(nr), share = nr / (4 * runtime.nr_reactors);
	size_t len = (size_t)rte_ring_get_memsize(nr_slots);

	*pool = (struct iobuf_pool){ .buf_len = buf_len, .nr = nr };
	list_init(&pool->waiters);
	pool->cache_max = share < 2 ? 2 : share > IOBUF_CACHE_MAX ? IOBUF_CACHE_MAX : share;
	pool->batch = pool->cache_max / 2;
	pool->store = aligned_alloc(128, (len + 127) & ~(size_t)127);
	if (!pool->store)
		return -ENOMEM;
	rte_ring_init(pool->store, "iobuf", nr_slots, RING_F_MP_RTS_ENQ | RING_F_MC_RTS_DEQ);
	for (unsigned i = 0; i < nr; i++)
		rte_ring_enqueue(pool->store, bufs + i * buf_len);
	return 0;
}

static uint64_t count_free(enum iobuf_class class)
{
	uint64_t nr = pools[class].store ? rte_ring_count(pools[class].store) : 0;

	for (unsigned i = 0; i < runtime.nr_reactors; i++)
		nr += __atomic_load_n(&runtime.reactors[i].iobufs[class].nr, __ATOMIC_RELAXED);
	return nr;
}

void iobuf_fini(void)
{
	size_t len = 0;

	for (unsigned class = 0; class < IOBUF_NR_CLASSES; class++) {
		struct iobuf_pool *pool = &pools[class];

		if (pool->store && count_free(class) != pool->nr)
			log_warning("%llu of %u buffers of %zu bytes never came back to the pool",
				    (unsigned long long)(pool->nr - count_free(class)), pool->nr, pool->buf_len);
		len += pool->nr * pool->buf_len;
		free(pool->store);
		*pool = (struct iobuf_pool){ 0 };
	}
	ASAN_UNPOISON_MEMORY_REGION(slab, len);
	/* DPDK would write all of it to zero before it gives the whole heap back. */
	if (!memory_uses_eal())
		dma_free(slab);
	slab = NULL;
}

int iobuf_init(unsigned nr_small, unsigned nr_large)
{
	size_t small_len = (size_t)nr_small * IOBUF_SMALL_SIZE, large_len = (size_t)nr_large * IOBUF_LARGE_SIZE;
	int rc;

	slab = dma_alloc_dirty(small_len + large_len, ALIGNMENT);
	if (!slab) {
		log_error("no memory for the buffer pool: %u buffers of %u bytes and %u of %u need %zu MiB", nr_small,
			  IOBUF_SMALL_SIZE, nr_large, IOBUF_LARGE_SIZE, (small_len + large_len) >> 20);
		return -ENOMEM;
	}
	rc = pool_init(&pools[IOBUF_SMALL], IOBUF_SMALL_SIZE, nr_small, slab);
	if (!rc)
		rc = pool_init(&pools[IOBUF_LARGE], IOBUF_LARGE_SIZE, nr_large, (char *)slab + small_len);
	if (rc) {
		iobuf_fini();
		return rc;
	}
	ASAN_POISON_MEMORY_REGION(slab, small_len + large_len);
	return 0;
}

void *iobuf_region(size_t *ret_len)
{
	*ret_len = 0;
	for (unsigned class = 0; class < IOBUF_NR_CLASSES; class++)
		*ret_len += pools[class].nr * pools[class].buf_len;
	return slab;
}

/* On the waiter's thread: one message for each buffer granted; a cancel may have taken it back. */
static void granted_msg(void *arg)
{
	struct thread *thread = arg;
	struct iobuf_wait *wait = NULL;
	struct list *link;

	pthread_mutex_lock(&pool_lock);
	link = list_pop(&thread->iobuf_granted);
	pthread_mutex_unlock(&pool_lock);
	if (!link)
		return;
	wait = list_entry(link, struct iobuf_wait, link);
	ASAN_UNPOISON_MEMORY_REGION(wait->buf, pools[wait->class].buf_len);
	wait->ready(wait, wait->buf);
}

/* Gives what stands in the shared ring to those who wait. */
static void serve(struct iobuf_pool *pool)
{
	void *buf;

	pthread_mutex_lock(&pool_lock);
	while (!list_empty(&pool->waiters) && !rte_ring_dequeue(pool->store, &buf)) {
		struct iobuf_wait *wait = list_entry(list_pop(&pool->waiters), struct iobuf_wait, link);

		atomic_fetch_sub(&pool->nr_waiters, 1);
		wait->buf = buf;
		list_add_tail(&wait->thread->iobuf_granted, &wait->link);
		thread_send(wait->thread, granted_msg, wait->thread);
	}
	pthread_mutex_unlock(&pool_lock);
}

static void store_put(struct iobuf_pool *pool, void *const *bufs, unsigned nr)
{
	unsigned put = rte_ring_enqueue_bulk(pool->store, bufs, nr, NULL);

	assert(put == nr);
	(void)put;
}

static void enqueue_wait(struct iobuf_pool *pool, enum iobuf_class class, struct iobuf_wait *wait)
{
	assert(thread_running);
	wait->thread = thread_running;
	wait->class = class;
	wait->buf = NULL;
	pthread_mutex_lock(&pool_lock);
	list_add_tail(&pool->waiters, &wait->link);
	atomic_fetch_add(&pool->nr_waiters, 1);
	pool->nr_waits++;
	pthread_mutex_unlock(&pool_lock);
	TRACE(runtime, iobuf_wait, class, wait);
	/* What came back between our look and the queue. */
	serve(pool);
}

static void *get_slow(enum iobuf_class class, struct iobuf_wait *wait)
{
	struct iobuf_pool *pool = &pools[class];
	struct iobuf_cache *cache = reactor_current ? &reactor_current->iobufs[class] : NULL;
	void *buf = NULL;

	if (!atomic_load(&pool->nr_waiters)) {
		if (cache) {
			cache->nr = rte_ring_dequeue_burst(pool->store, cache->bufs, pool->batch, NULL);
			if (cache->nr)
				buf = cache->bufs[--cache->nr];
		} else if (rte_ring_dequeue(pool->store, &buf)) {
			buf = NULL;
		}
	}
	if (buf)
		ASAN_UNPOISON_MEMORY_REGION(buf, pool->buf_len);
	else if (wait)
		enqueue_wait(pool, class, wait);
	return buf;
}

void *iobuf_get(enum iobuf_class class, struct iobuf_wait *wait)
{
	struct reactor *reactor = reactor_current;

	if (likely(reactor && reactor->iobufs[class].nr)) {
		struct iobuf_cache *cache = &reactor->iobufs[class];
		void *buf = cache->bufs[--cache->nr];

		ASAN_UNPOISON_MEMORY_REGION(buf, pools[class].buf_len);
		return buf;
	}
	return get_slow(class, wait);
}

void iobuf_put(enum iobuf_class class, void *buf)
{
	struct iobuf_pool *pool = &pools[class];
	struct iobuf_cache *cache = reactor_current ? &reactor_current->iobufs[class] : NULL;

	ASAN_POISON_MEMORY_REGION(buf, pool->buf_len);
	if (unlikely(!cache || atomic_load_explicit(&pool->nr_waiters, memory_order_relaxed))) {
		store_put(pool, &buf, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load(&pool->nr_waiters))
			serve(pool);
		return;
	}
	if (unlikely(cache->nr == pool->cache_max)) {
		cache->nr -= pool->batch;
		store_put(pool, &cache->bufs[cache->nr], pool->batch);
	}
	cache->bufs[cache->nr++] = buf;
}

void iobuf_wait_cancel(struct iobuf_wait *wait)
{
	struct iobuf_pool *pool = &pools[wait->class];
	void *buf = NULL;

	if (!wait->link.next)
		return;
	pthread_mutex_lock(&pool_lock);
	if (!list_empty(&wait->link)) {
		list_del(&wait->link);
		buf = wait->buf;
		if (!buf)
			atomic_fetch_sub(&pool->nr_waiters, 1);
	}
	pthread_mutex_unlock(&pool_lock);
	if (buf)
		iobuf_put(wait->class, buf);
}

static void flush_class(struct reactor *reactor, enum iobuf_class class)
{
	struct iobuf_cache *cache = &reactor->iobufs[class];
	struct iobuf_pool *pool = &pools[class];

	if (!cache->nr)
		return;
	store_put(pool, cache->bufs, cache->nr);
	cache->nr = 0;
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&pool->nr_waiters))
		serve(pool);
}

void iobuf_turn(struct reactor *reactor)
{
	for (unsigned class = 0; class < IOBUF_NR_CLASSES; class++) {
		if (unlikely(atomic_load_explicit(&pools[class].nr_waiters, memory_order_relaxed)))
			flush_class(reactor, class);
	}
}

void iobuf_flush(struct reactor *reactor)
{
	for (unsigned class = 0; class < IOBUF_NR_CLASSES; class++)
		flush_class(reactor, class);
}

void iobuf_get_stats(struct iobuf_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	stats->nr_small = pools[IOBUF_SMALL].nr;
	stats->nr_large = pools[IOBUF_LARGE].nr;
	stats->nr_small_cached = pools[IOBUF_SMALL].cache_max;
	stats->nr_large_cached = pools[IOBUF_LARGE].cache_max;
	stats->nr_small_free = count_free(IOBUF_SMALL);
	stats->nr_large_free = count_free(IOBUF_LARGE);
	pthread_mutex_lock(&pool_lock);
	stats->nr_waits = pools[IOBUF_SMALL].nr_waits + pools[IOBUF_LARGE].nr_waits;
	pthread_mutex_unlock(&pool_lock);
}
