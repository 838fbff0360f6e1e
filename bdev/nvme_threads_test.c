/*
 * Namespaces used by many threads: queues of their own, and queues that are shared because there are too few.
 */
#include "bdev/nvme_testing.h"

/* --- threads ------------------------------------------------------------------------------------------------ */

static int on_other_thread(void *arg)
{
	uint64_t at = (uintptr_t)arg;
	struct bdev_channel *other = bdev_channel_get(desc);
	uint8_t *buf = dma_alloc(64 * BS, 4096);

	ck_assert_ptr_nonnull(other);
	for (unsigned i = 0; i < 20; i++) {
		ck_assert_int_eq(bdev_write(other, data + i, at, 64, 0), 0);
		ck_assert_int_eq(bdev_read(other, buf, at, 64), 0);
		ck_assert(!memcmp(buf, data + i, 64 * BS));
	}
	bdev_channel_put(other);
	dma_free(buf);
	return 0;
}

/* All at once, on threads for which the drive has no queue; resets come between. */
static unsigned nr_sharing;

static void sharing_thread(void *arg)
{
	on_other_thread(arg);
	__atomic_fetch_sub(&nr_sharing, 1, __ATOMIC_RELEASE);
}

static void sharing_body(void)
{
	struct thread *threads[5];
	struct soft_counters c;

	sopts.nr_io_queues = 1;
	attach(); /* this thread has it, and keeps it */
	for (unsigned round = 0; round < 3; round++) {
		nr_sharing = 5;
		for (unsigned i = 0; i < 5; i++) {
			threads[i] = thread_create("io", i % runtime_nr_reactors());
			ck_assert_int_eq(fiber_spawn(threads[i], "io", sharing_thread, (void *)(uintptr_t)(i * 64)), 0);
		}
		for (unsigned i = 0; round == 1 && i < 3; i++) {
			fiber_sleep(300);
			ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
		}
		while (__atomic_load_n(&nr_sharing, __ATOMIC_ACQUIRE))
			fiber_sleep(100);
		for (unsigned i = 0; i < 5; i++)
			thread_exit(threads[i]);
	}
	soft_get_counters(drive, &c);
	ck_assert_uint_ge(c.nr_io, 3 * 5 * 40);
	shut();
}

START_TEST(more_threads_than_queues_share_them)
{
	test_body = sharing_body;
	for (uint64_t seed = 1; seed < 9; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

START_TEST(more_os_threads_than_queues_share_them)
{
	test_body = sharing_body;
	run_real("0,1", world, NULL);
}
END_TEST

/* The one that has the drive's only queue goes while others use it: they have it from then on. */
static void lender_leaves_body(void)
{
	struct thread *other = thread_create("io", 0);

	sopts.nr_io_queues = 1;
	attach();
	nr_sharing = 1;
	ck_assert_int_eq(fiber_spawn(other, "io", sharing_thread, (void *)(uintptr_t)64), 0);
	fiber_sleep(400);
	bdev_channel_put(ch);
	ch = NULL;
	while (__atomic_load_n(&nr_sharing, __ATOMIC_ACQUIRE))
		fiber_sleep(100);
	thread_exit(other);
	shut();
}

START_TEST(a_queue_that_was_shared_goes_to_those_who_are_left)
{
	test_body = lender_leaves_body;
	for (uint64_t seed = 1; seed < 9; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

/* What is with the lender when the drive hangs or dies comes back, and is done after the reset. */
static void trouble_body(void)
{
	static const enum soft_fault_kind kinds[] = { SOFT_FATAL, SOFT_DROP, SOFT_STALL };
	struct thread *threads[3];

	sopts.nr_io_queues = 1;
	opts.connect.timeout_us = 2 * SECOND;
	opts.connect.abort_timeout_us = SECOND;
	attach();
	for (unsigned round = 0; round < 3; round++) {
		fault(kinds[round], NVME_IO_WRITE, 10, 1, 0);
		nr_sharing = 3;
		for (unsigned i = 0; i < 3; i++) {
			threads[i] = thread_create("io", i % runtime_nr_reactors());
			ck_assert_int_eq(fiber_spawn(threads[i], "io", sharing_thread, (void *)(uintptr_t)(i * 64)), 0);
		}
		for (unsigned us = 0; __atomic_load_n(&nr_sharing, __ATOMIC_ACQUIRE); us += 1000) {
			ck_assert_uint_lt(us, 60 * SECOND);
			fiber_sleep(1000);
		}
		for (unsigned i = 0; i < 3; i++)
			thread_exit(threads[i]);
	}
	shut();
}

START_TEST(what_others_sent_by_a_shared_queue_survives_a_drive_that_hangs)
{
	test_body = trouble_body;
	for (uint64_t seed = 1; seed < 5; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

static void threads_body(void)
{
	struct thread *threads[3];

	attach();
	for (unsigned i = 0; i < 3; i++)
		threads[i] = thread_create("io", i % runtime_nr_reactors());
	for (unsigned i = 0; i < 3; i++) {
		thread_call_fiber(threads[i], on_other_thread, (void *)(uintptr_t)(i * 64));
		thread_exit(threads[i]);
	}
	shut();
}

START_TEST(each_thread_has_queues_of_its_own)
{
	test_body = threads_body;
	for (uint64_t seed = 1; seed < 6; seed++)
		run_sim(seed, 2, world, NULL);
}
END_TEST

START_TEST(each_os_thread_has_queues_of_its_own)
{
	test_body = threads_body;
	run_real("0,1", world, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		more_threads_than_queues_share_them,
		more_os_threads_than_queues_share_them,
		a_queue_that_was_shared_goes_to_those_who_are_left,
		what_others_sent_by_a_shared_queue_survives_a_drive_that_hangs,
		each_thread_has_queues_of_its_own,
		each_os_thread_has_queues_of_its_own,
	};

	return nvme_suite("nvme threads", tests, sizeof(tests) / sizeof(tests[0]));
}
