/* The buffer pool: it queues instead of failing, and nobody starves. */
#include <stdatomic.h>
#include <string.h>

#include "runtime/testing.h"

#define NR_SMALL 64u
#define NR_LARGE 16u

static void run_pool(void (*main_fn)(void *arg))
{
	for (unsigned nr = 1; nr <= 2; nr++) {
		struct runtime_opts opts = {
			.name = "test", .cores = nr == 2 ? "0,1" : NULL, .nr_small = NR_SMALL, .nr_large = NR_LARGE
		};

		ck_assert_int_eq(runtime_run(&opts, main_fn, NULL), 0);
	}
	for (unsigned seed = 1; seed <= 50; seed++) {
		struct sim_opts opts = { .seed = seed, .nr_reactors = 2, .nr_small = NR_SMALL, .nr_large = NR_LARGE };

		ck_assert_int_eq(sim_run(&opts, main_fn, NULL), 0);
	}
}

struct waiter {
	struct iobuf_wait wait;
	struct fiber_wait *over;
	void *buf;
	unsigned place;
};

static unsigned nr_served;

static void served(struct iobuf_wait *wait, void *buf)
{
	struct waiter *waiter = (struct waiter *)wait;

	ck_assert_ptr_nonnull(buf);
	waiter->buf = buf;
	waiter->place = nr_served++;
	memset(buf, 1, IOBUF_LARGE_SIZE);
	if (waiter->over)
		fiber_wake(waiter->over, 0);
}

static unsigned take_all(void **bufs)
{
	unsigned nr = 0;

	while ((bufs[nr] = iobuf_get(IOBUF_LARGE, NULL)))
		nr++;
	return nr;
}

static void order_main(void *arg)
{
	struct waiter waiters[4] = { 0 };
	struct fiber_wait wait;
	void *bufs[NR_LARGE + 1];

	nr_served = 0;
	ck_assert_uint_eq(take_all(bufs), NR_LARGE);
	fiber_wait_init(&wait);
	for (int i = 0; i < 4; i++) {
		waiters[i].wait.ready = served;
		ck_assert_ptr_null(iobuf_get(IOBUF_LARGE, &waiters[i].wait));
	}
	waiters[3].over = &wait;
	iobuf_wait_cancel(&waiters[1].wait);
	for (unsigned i = 0; i < NR_LARGE; i++)
		iobuf_put(IOBUF_LARGE, bufs[i]);
	ck_assert_uint_eq(nr_served, 0); /* never from within the put */
	iobuf_wait_cancel(&waiters[2].wait); /* its buffer was granted already, and goes back */
	fiber_wait(&wait);
	ck_assert_uint_eq(waiters[0].place, 0);
	ck_assert_uint_eq(waiters[3].place, 1);
	ck_assert_ptr_null(waiters[1].buf);
	ck_assert_ptr_null(waiters[2].buf);
	iobuf_put(IOBUF_LARGE, waiters[0].buf);
	iobuf_put(IOBUF_LARGE, waiters[3].buf);
	ck_assert_uint_eq(take_all(bufs), NR_LARGE);
	for (unsigned i = 0; i < NR_LARGE; i++)
		iobuf_put(IOBUF_LARGE, bufs[i]);
	runtime_stop(0);
}

START_TEST(waiters_are_served_in_order_and_a_cancel_gives_back)
{
	run_pool(order_main);
}
END_TEST

static struct thread *worker;
static void *worker_bufs[NR_LARGE + 1];
static unsigned nr_worker_bufs;

static int worker_take(void *arg)
{
	nr_worker_bufs = take_all(worker_bufs);
	return 0;
}

static struct poller *worker_poller;

static enum poll_result always_busy(void *arg)
{
	return POLL_BUSY;
}

/* A reactor that does not sleep keeps its cache, unless somebody waits. */
static int worker_start(void *arg)
{
	worker_poller = poller_start("busy", always_busy, NULL, 0);
	return 0;
}

static int worker_stop(void *arg)
{
	poller_stop(worker_poller);
	return 0;
}

static int worker_give(void *arg)
{
	/* Into its own cache, as far as that goes; and then it says nothing any more. */
	while (nr_worker_bufs)
		iobuf_put(IOBUF_LARGE, worker_bufs[--nr_worker_bufs]);
	return 0;
}

static void starve_main(void *arg)
{
	struct waiter waiter = { .wait.ready = served };
	struct fiber_wait wait;

	worker = thread_create("worker", runtime_nr_reactors() - 1);
	thread_call(worker, worker_start, NULL);
	for (int round = 0; round < 20; round++) {
		void *bufs[NR_LARGE + 1];
		unsigned nr;

		thread_call(worker, worker_take, NULL);
		/* All but what may lie in a cache of this side. */
		ck_assert_uint_gt(nr_worker_bufs, NR_LARGE / 2);
		if (round % 2)
			thread_call(worker, worker_give, NULL);
		nr = take_all(bufs); /* all but what the other's cache holds */
		fiber_wait_init(&wait);
		waiter.over = &wait;
		ck_assert_ptr_null(iobuf_get(IOBUF_LARGE, &waiter.wait));
		if (round % 2 == 0)
			thread_call(worker, worker_give, NULL);
		/* Nothing was hidden from us, on the same reactor. */
		if (nr == NR_LARGE)
			iobuf_put(IOBUF_LARGE, bufs[--nr]);
		fiber_wait(&wait);
		iobuf_put(IOBUF_LARGE, waiter.buf);
		while (nr)
			iobuf_put(IOBUF_LARGE, bufs[--nr]);
	}
	thread_call(worker, worker_stop, NULL);
	thread_exit(worker);
	runtime_stop(0);
}

START_TEST(buffers_in_the_cache_of_another_thread_reach_who_waits)
{
	run_pool(starve_main);
}
END_TEST

/* Fibers on two reactors that take buffers from a pool too small for them. */
#define NR_CHURNERS 40u

static atomic_uint nr_churning;
static struct fiber_wait *churn_over;

static void got_small(struct iobuf_wait *wait, void *buf)
{
	struct waiter *waiter = (struct waiter *)wait;

	waiter->buf = buf;
	fiber_wake(waiter->over, 0);
}

static fiber_fn void *get_small(void)
{
	struct waiter waiter = { .wait.ready = got_small };
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	waiter.over = &wait;
	waiter.buf = iobuf_get(IOBUF_SMALL, &waiter.wait);
	if (!waiter.buf)
		fiber_wait(&wait);
	return waiter.buf;
}

static void churn(void *arg)
{
	for (int i = 0; i < 200; i++) {
		uint32_t *buf = get_small();

		buf[0] = (uint32_t)(uintptr_t)arg;
		if (rand_u64() % 2)
			fiber_yield();
		ck_assert_uint_eq(buf[0], (uint32_t)(uintptr_t)arg);
		if (rand_u64() % 4 == 0)
			fiber_sleep(10);
		iobuf_put(IOBUF_SMALL, buf);
	}
	if (atomic_fetch_sub(&nr_churning, 1) == 1)
		fiber_wake(churn_over, 0);
}

static void churn_main(void *arg)
{
	struct iobuf_stats stats;
	struct fiber_wait wait;

	worker = thread_create("worker", runtime_nr_reactors() - 1);
	fiber_wait_init(&wait);
	churn_over = &wait;
	atomic_store(&nr_churning, NR_CHURNERS);
	for (uintptr_t i = 0; i < NR_CHURNERS; i++)
		fiber_spawn(i % 2 ? worker : thread_current(), "churn", churn, (void *)i);
	fiber_wait(&wait);
	iobuf_get_stats(&stats);
	ck_assert_uint_eq(stats.nr_small, 8);
	ck_assert_uint_eq(stats.nr_small_free, 8);
	ck_assert_uint_gt(stats.nr_waits, 0);
	thread_exit(worker);
	runtime_stop(0);
}

START_TEST(a_pool_too_small_slows_everybody_and_loses_nothing)
{
	for (unsigned nr = 1; nr <= 2; nr++) {
		struct runtime_opts opts = {
			.name = "test", .cores = nr == 2 ? "0,1" : NULL, .nr_small = 8, .nr_large = 1
		};

		ck_assert_int_eq(runtime_run(&opts, churn_main, NULL), 0);
	}
	for (unsigned seed = 1; seed <= 20; seed++) {
		struct sim_opts opts = { .seed = seed, .nr_reactors = 2, .nr_small = 8, .nr_large = 1 };

		ck_assert_int_eq(sim_run(&opts, churn_main, NULL), 0);
	}
}
END_TEST

START_TEST(dma_memory_is_aligned_and_zeroed)
{
	char *buf = dma_alloc(5000, 4096);

	ck_assert_uint_eq((uintptr_t)buf % 4096, 0);
	for (int i = 0; i < 5000; i++)
		ck_assert_int_eq(buf[i], 0);
	dma_free(buf);
	ck_assert_ptr_null(dma_alloc(SIZE_MAX - 10, 4096));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		waiters_are_served_in_order_and_a_cancel_gives_back,
		buffers_in_the_cache_of_another_thread_reach_who_waits,
		a_pool_too_small_slows_everybody_and_loses_nothing,
		dma_memory_is_aligned_and_zeroed,
	};

	return run_suite("iobuf", tests, sizeof(tests) / sizeof(tests[0]));
}
