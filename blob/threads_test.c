/*
 * Several threads on one blob: writers whose blocks lie in the same sub-blocks and clusters, while others
 * unmap theirs, blobs come and go, and checkpoints run.  Each block has one writer, who always finds what it
 * wrote last.
 */
#include "blob/internal.h"
#include "blob/testing.h"

#define NR_THREADS 2u
#define NR_WRITERS 6u /* on each thread */
#define NR_ALL     (NR_THREADS * NR_WRITERS)
#define NR_BLOCKS  1920u

struct world {
	struct bench b;
	struct blob *blob;
	unsigned nr_steps;
	_Atomic unsigned nr_running;
	struct fiber_wait all_done;
	uint8_t now[NR_BLOCKS]; /* each written by one writer only */
};

struct writer {
	struct world *w;
	unsigned id;
	uint64_t seed;
	struct fiber_wait wait;
};

static uint64_t next(struct writer *wr)
{
	wr->seed = wr->seed * 6364136223846793005ull + 1442695040888963407ull;
	return wr->seed >> 33;
}

static void one_step(struct writer *wr, struct blob_channel *ch, uint8_t *buf)
{
	struct world *w = wr->w;
	uint64_t block = next(wr) % (NR_BLOCKS / NR_ALL) * NR_ALL + wr->id;
	struct iovec iov = {buf, BLOCK};
	struct blob_io io = {
		.blob = w->blob, .iov = &iov, .iovcnt = 1, .offset_blocks = block, .nr_blocks = 1};
	unsigned what = next(wr) % 16;
	int rc;

	io.op = what < 8 ? BLOB_WRITE : what < 9 ? BLOB_WRITE_ZEROES : what < 10 ? BLOB_FLUSH : BLOB_READ;
	io.flags = what == 0 ? BLOB_IO_FUA : 0;
	if (io.op == BLOB_WRITE) {
		w->now[block] = 1 + next(wr) % 255;
		memset(buf, w->now[block], BLOCK);
	} else if (io.op == BLOB_WRITE_ZEROES) {
		w->now[block] = 0;
	}
	rc = blob_submit_wait(ch, &io);
	if (rc)
		ck_abort_msg("op %u: %d", io.op, rc);
	for (unsigned i = 0; io.op == BLOB_READ && i < BLOCK; i++)
		if (buf[i] != w->now[block])
			ck_abort_msg("writer %u, block %lu: %u, not %u", wr->id, (unsigned long)block, buf[i],
				     w->now[block]);
}

static void writer_over(void *arg)
{
	struct world *w = arg;

	if (atomic_fetch_sub(&w->nr_running, 1) == 1)
		fiber_wake(&w->all_done, 0);
}

static void writer_fiber(void *arg)
{
	struct writer *wr = arg;
	struct blob_channel *ch = blob_channel_get(wr->w->b.store);
	uint8_t buf[BLOCK];

	ck_assert_ptr_nonnull(ch);
	for (unsigned i = 0; i < wr->w->nr_steps; i++)
		one_step(wr, ch, buf);
	blob_channel_put(ch);
	writer_over(wr->w);
}

static void side_work(struct world *w)
{
	struct store_check_result result;
	static uint8_t buf[64 * BLOCK];
	struct blob *other;

	for (unsigned i = 0; w->nr_running; i++) {
		char name[16];

		snprintf(name, sizeof(name), "side-%u", i);
		other = make_blob(&w->b, name, 1 << 20);
		for (unsigned k = 0; k < 32; k += 3)
			ck_assert_int_eq(blob_rw(&w->b, other, BLOB_WRITE, 0, k * 64, 64, buf), 0);
		blob_close(other);
		ck_assert_int_eq(blob_delete(other), 0);
		if (i % 4 == 0)
			ck_assert_int_eq(store_checkpoint(w->b.store), 0);
		if (i % 8 == 1) {
			ck_assert_int_eq(store_check_online(w->b.store, print_finding, NULL, NULL, &result), 0);
			ck_assert_uint_eq(result.nr_findings, 0);
		}
		fiber_sleep(200);
	}
}

struct run {
	unsigned nr_steps;
	bool checksums;
	uint64_t map_cache_bytes; /* next to nothing; 0: all of the map */
};

static void run_world(void *arg)
{
	const struct run *run = arg;
	struct world *w = calloc(1, sizeof(*w));
	struct writer writers[NR_ALL];
	struct thread *threads[NR_THREADS];

	w->nr_steps = run->nr_steps;
	w->b.create.checksums = run->checksums;
	w->b.open.checksum_cache_bytes = 1;
	w->b.open.map_cache_tiny = true;
	w->b.open.map_cache_bytes = run->map_cache_bytes;
	w->b.create.journal_pages = 64;
	w->b.create.leaf_shift = 2;
	w->b.create.inner_shift = 2;
	bench_start(&w->b);
	w->blob = make_blob(&w->b, "shared", NR_BLOCKS * BLOCK);
	fiber_wait_init(&w->all_done);
	w->nr_running = NR_ALL;
	for (unsigned t = 0; t < NR_THREADS; t++)
		threads[t] = thread_create(t ? "io-1" : "io-0", t % runtime_nr_reactors());
	for (unsigned i = 0; i < NR_ALL; i++) {
		writers[i] = (struct writer){.w = w, .id = i, .seed = i * 7919 + 1};
		ck_assert_int_eq(fiber_spawn(threads[i % NR_THREADS], "writer", writer_fiber, &writers[i]),
				 0);
	}
	side_work(w);
	fiber_wait(&w->all_done);
	for (unsigned t = 0; t < NR_THREADS; t++)
		thread_exit(threads[t]);
	ck_assert_uint_eq(store_check_memory(w->b.store, print_finding, NULL), 0);
	blob_close(w->blob);
	bench_close(&w->b);
	bench_check(&w->b);
	bench_open(&w->b);
	w->blob = store_find_blob(w->b.store, "shared");
	blob_open(w->blob);
	for (uint64_t i = 0; i < NR_BLOCKS; i++) {
		uint8_t buf[BLOCK];

		ck_assert_int_eq(blob_rw(&w->b, w->blob, BLOB_READ, 0, i, 1, buf), 0);
		assert_blocks(buf, 1, w->now[i]);
	}
	blob_close(w->blob);
	bench_end(&w->b);
	free(w);
}

START_TEST(writers_on_two_threads_find_what_they_wrote_simulated)
{
	struct run run = {.nr_steps = 300};

	for (unsigned seed = 1; seed <= 8; seed++) {
		run.checksums = seed % 2 == 0;
		run.map_cache_bytes = seed % 4 < 2 ? 1 : 16u << 20;
		run_sim(seed, 2, run_world, &run);
	}
}
END_TEST

START_TEST(writers_on_two_cores_find_what_they_wrote)
{
	struct run run = {.nr_steps = 2000};

	run_real("0,1", run_world, &run);
}
END_TEST

START_TEST(writers_on_two_cores_find_what_they_wrote_in_a_store_with_checksums)
{
	struct run run = {.nr_steps = 2000, .checksums = true};

	run_real("0,1", run_world, &run);
}
END_TEST

START_TEST(writers_on_two_cores_find_what_they_wrote_though_the_map_comes_and_goes)
{
	struct run run = {.nr_steps = 1000, .map_cache_bytes = 1};

	run_real("0,1", run_world, &run);
}
END_TEST

struct overwrite {
	struct bench *b;
	struct blob *blob;
	uint64_t nr_slow;
	int rc;
	struct fiber_wait over;
};

static void overwrite_fiber(void *arg)
{
	struct overwrite *o = arg;
	struct blob_channel *ch = blob_channel_get(o->b->store);
	uint8_t buf[8 * BLOCK] = {1};
	struct iovec iov = {buf, sizeof(buf)};
	struct blob_io io = {.blob = o->blob, .op = BLOB_WRITE, .iov = &iov, .iovcnt = 1, .nr_blocks = 8};
	uint64_t before = ch->nr_slow;

	o->rc = blob_submit_wait(ch, &io);
	o->nr_slow = ch->nr_slow - before;
	blob_channel_put(ch);
	fiber_wake(&o->over, 0);
}

static uint64_t overwrite_from(struct thread *thread, struct bench *b, struct blob *blob)
{
	struct overwrite o = {.b = b, .blob = blob};

	fiber_wait_init(&o.over);
	ck_assert_int_eq(fiber_spawn(thread, "overwrite", overwrite_fiber, &o), 0);
	fiber_wait(&o.over);
	ck_assert_int_eq(o.rc, 0);
	return o.nr_slow;
}

/* The owner between an operation's begin and its end, as another thread may find it. */
static void held_in_operation(void *arg)
{
	struct bench b = {0};
	struct thread *thread = thread_create("io", 0);
	struct blob *blob;

	bench_start(&b);
	blob = make_blob(&b, "mapped", 1 << 20);
	overwrite_from(thread, &b, blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	ck_assert_uint_eq(overwrite_from(thread, &b, blob), 0);
	journal_begin(b.store, 16);
	ck_assert_uint_eq(overwrite_from(thread, &b, blob), 1);
	journal_end(b.store);
	ck_assert_uint_eq(overwrite_from(thread, &b, blob), 0);
	thread_exit(thread);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(an_overwrite_waits_for_records_that_would_be_lost_with_the_process)
{
	run_sim(1, 2, held_in_operation, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {writers_on_two_threads_find_what_they_wrote_simulated,
				      writers_on_two_cores_find_what_they_wrote,
				      writers_on_two_cores_find_what_they_wrote_though_the_map_comes_and_goes,
				      writers_on_two_cores_find_what_they_wrote_in_a_store_with_checksums,
				      an_overwrite_waits_for_records_that_would_be_lost_with_the_process};

	return run_tests("threads", tests, sizeof(tests) / sizeof(tests[0]));
}
