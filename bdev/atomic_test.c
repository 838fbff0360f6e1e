/*
 * What the core does for devices that cannot, on a slow device that only reads and writes: compare, write zeroes, and
 * compare-and-write against every other write on other threads.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/leaf.h"
#include "bdev/testing.h"

#define BS	 512u
#define NR_BLOCKS 4096u

/* Memory behind a delay: data moves at a random moment of it. */
struct slow {
	struct bdev bdev;
	char data[NR_BLOCKS * BS];
	uint64_t bad_block; /* which cannot be read; 0: none */
	uint64_t nr_medium, nr_durable; /* blocks read from the medium, and written with FUA */
};

struct slow_io {
	struct timer timer;
	struct slow *slow;
	bool moved;
};

static uint64_t rng_us(uint64_t most)
{
	return rand_u64() % most;
}

static void slow_timer(void *arg)
{
	struct bdev_io *io = arg;
	struct slow_io *s = (struct slow_io *)(void *)io->scratch.bytes;
	char *p = s->slow->data + io->offset_blocks * BS;

	if (!s->moved) {
		s->moved = true;
		if (io->op == BDEV_READ)
			leaf_copy_out(io->iov, io->iovcnt, p);
		else
			leaf_copy_in(p, io->iov, io->iovcnt);
		timer_arm(&s->timer, rng_us(50));
		return;
	}
	if (io->flags & BDEV_IO_FUA)
		*(io->op == BDEV_READ ? &s->slow->nr_medium : &s->slow->nr_durable) += io->nr_blocks;
	bdev_io_complete(io, s->slow->bad_block && io->op == BDEV_READ && s->slow->bad_block >= io->offset_blocks &&
				     s->slow->bad_block - io->offset_blocks < io->nr_blocks ? -EIO : 0);
}

static void slow_submit(struct bdev_io *io, void *channel_ctx)
{
	struct slow_io *s = (struct slow_io *)(void *)io->scratch.bytes;

	s->slow = container_of(bdev_channel_bdev(io->channel), struct slow, bdev);
	s->moved = false;
	timer_init(&s->timer, slow_timer, io);
	timer_arm(&s->timer, rng_us(50));
}

static void slow_destroy(struct bdev *bdev)
{
	bdev_destroy_done(bdev);
	free(container_of(bdev, struct slow, bdev));
}

static const struct bdev_ops slow_ops = {
	.submit = slow_submit,
	.destroy = slow_destroy,
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE,
};

static struct slow *slow_create(void)
{
	struct slow *slow = calloc(1, sizeof(*slow));

	strcpy(slow->bdev.name, "slow");
	slow->bdev.block_size = BS;
	slow->bdev.nr_blocks = NR_BLOCKS;
	slow->bdev.ops = &slow_ops;
	slow->bdev.product_name = "Slow";
	slow->bdev.module = "test";
	ck_assert_int_eq(bdev_register(&slow->bdev), 0);
	return slow;
}

static int copy(struct bdev_channel *ch, uint64_t from, uint64_t to, uint64_t nr, uint8_t flags)
{
	struct bdev_io io = { .op = BDEV_COPY, .flags = flags, .from_blocks = from, .offset_blocks = to, .nr_blocks = nr };

	return bdev_submit_wait(ch, &io);
}

static int verify(struct bdev_channel *ch, uint64_t block, uint64_t nr)
{
	struct bdev_io io = { .op = BDEV_VERIFY, .offset_blocks = block, .nr_blocks = nr };

	return bdev_submit_wait(ch, &io);
}

static int compare_and_write(struct bdev_channel *ch, const char *old, const char *new, uint64_t block, uint64_t nr)
{
	struct iovec from = { (void *)old, nr * BS }, to = { (void *)new, nr * BS };
	struct bdev_io io = { .op = BDEV_COMPARE_AND_WRITE, .iov = &to, .iovcnt = 1, .compare_iov = &from,
			      .compare_iovcnt = 1, .offset_blocks = block, .nr_blocks = nr };

	return bdev_submit_wait(ch, &io);
}

static void emulation(void *arg)
{
	struct slow *slow = slow_create();
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	size_t len = 3000 * BS;
	char *a = malloc(len), *b = malloc(len);
	struct iovec iov[3] = { { a, 700 }, { a + 700, 1300 }, { a + 2000, len - 2000 } };
	struct bdev_io io = { .op = BDEV_COMPARE, .iov = iov, .iovcnt = 3, .offset_blocks = 7, .nr_blocks = 3000 };

	ck_assert_int_eq(bdev_open("slow", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert(bdev_supports(&slow->bdev, BDEV_COMPARE) && bdev_supports(&slow->bdev, BDEV_WRITE_ZEROES));
	ck_assert(bdev_supports(&slow->bdev, BDEV_COMPARE_AND_WRITE) && bdev_supports(&slow->bdev, BDEV_FLUSH));
	ck_assert(!bdev_supports(&slow->bdev, BDEV_UNMAP));
	for (size_t i = 0; i < len; i++)
		a[i] = i * 7 + i / 512;
	memcpy(b, a, len);
	memset(slow->data, 0xee, sizeof(slow->data));
	ck_assert_int_eq(bdev_write(ch, a, 7, 3000, 0), 0);
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	a[len - 1] ^= 1;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), -EILSEQ);
	ck_assert_int_eq(compare_and_write(ch, a, a, 7, 3000), -EILSEQ);
	ck_assert_mem_eq(slow->data + 7 * BS, b, len);
	ck_assert_int_eq(compare_and_write(ch, b, a, 7, 3000), 0);
	ck_assert_mem_eq(slow->data + 7 * BS, a, len);
	io.op = BDEV_WRITE_ZEROES;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	ck_assert(all_bytes(slow->data + 7 * BS, len, 0));
	ck_assert_int_eq((uint8_t)slow->data[7 * BS - 1], 0xee);
	ck_assert_int_eq((uint8_t)slow->data[3007 * BS], 0xee);
	free(a);
	free(b);
	bdev_channel_put(ch);
	bdev_close(desc);
}

START_TEST(a_device_that_only_reads_and_writes_compares_and_zeroes)
{
	run_sim(1, 1, emulation, NULL);
}
END_TEST

#define NR_WORKERS 4
#define NR_ROUNDS  40

struct worker {
	struct bdev_desc *desc;
	struct fiber_wait *over;
	unsigned id, *nr_left;
	unsigned nr_won;
};

static void worker_end(struct worker *w)
{
	if (__atomic_sub_fetch(w->nr_left, 1, __ATOMIC_ACQ_REL) == 0)
		fiber_wake(w->over, 0);
}

/* Counts up a block by compare-and-write; every success must be exactly one step. */
static void counter_main(void *arg)
{
	struct worker *w = arg;
	struct bdev_channel *ch = bdev_channel_get(w->desc);
	char old[2 * BS], new[2 * BS];
	int rc;

	for (int i = 0; i < NR_ROUNDS; i++) {
		uint64_t n;

		ck_assert_int_eq(bdev_read(ch, old, 8, 2), 0);
		memcpy(&n, old, sizeof(n));
		n++;
		memcpy(new, old, sizeof(new));
		memcpy(new, &n, sizeof(n));
		memcpy(new + BS, &n, sizeof(n));
		rc = compare_and_write(ch, old, new, 8, 2);
		ck_assert(rc == 0 || rc == -EILSEQ);
		w->nr_won += rc == 0;
		/* Neighbours that overlap nothing go through meanwhile. */
		ck_assert_int_eq(bdev_write(ch, new, 100 + w->id, 1, 0), 0);
	}
	bdev_channel_put(ch);
	worker_end(w);
}

static void with_workers(void (*main_fn)(void *arg), struct worker *workers, struct slow **ret_slow, struct bdev_desc **ret_desc)
{
	struct thread *threads[NR_WORKERS];
	unsigned nr_left = NR_WORKERS;
	struct fiber_wait over;

	*ret_slow = slow_create();
	ck_assert_int_eq(bdev_open("slow", true, NULL, NULL, ret_desc), 0);
	fiber_wait_init(&over);
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		threads[i] = thread_create("worker", i % runtime_nr_reactors());
		workers[i] = (struct worker){ .desc = *ret_desc, .over = &over, .id = i, .nr_left = &nr_left };
		ck_assert_int_eq(fiber_spawn(threads[i], "worker", main_fn, &workers[i]), 0);
	}
	fiber_wait(&over);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		thread_exit(threads[i]);
}

static void counting(void *arg)
{
	struct worker workers[NR_WORKERS];
	struct bdev_desc *desc;
	struct slow *slow;
	uint64_t total = 0, n;

	with_workers(counter_main, workers, &slow, &desc);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		total += workers[i].nr_won;
	memcpy(&n, slow->data + 8 * BS, sizeof(n));
	ck_assert_uint_eq(n, total);
	ck_assert_uint_gt(total, 0);
	memcpy(&n, slow->data + 9 * BS, sizeof(n));
	ck_assert_uint_eq(n, total);
	bdev_close(desc);
}

START_TEST(compare_and_writes_of_all_threads_count_exactly_simulated)
{
	run_sim(_i + 1, 2, counting, NULL);
}
END_TEST

START_TEST(compare_and_writes_of_all_threads_count_exactly_for_real)
{
	run_real("0,1", counting, NULL);
}
END_TEST

/*
 * Worker 0 swaps A for B over several blocks, the others write C over parts.  A write of C that came first makes the swap
 * fail where it compares; one that came later stays.  Either way a C that was written is there in the end: B over C means
 * that a write came between comparing and writing.
 */
static void intruder_main(void *arg)
{
	struct worker *w = arg;
	struct bdev_channel *ch = bdev_channel_get(w->desc);
	char a[8 * BS], b[8 * BS], c[2 * BS];

	memset(a, 0, sizeof(a));
	memset(b, 'B', sizeof(b));
	memset(c, 'C', sizeof(c));
	fiber_sleep(rng_us(300));
	if (w->id == 0) {
		int rc = compare_and_write(ch, a, b, 8, 8);

		ck_assert(rc == 0 || rc == -EILSEQ);
		w->nr_won = rc == 0;
	} else {
		ck_assert_int_eq(bdev_write(ch, c, 7 + 2 * w->id, 2, w->id & 1 ? BDEV_IO_FUA : 0), 0);
	}
	bdev_channel_put(ch);
	worker_end(w);
}

static void intruding(void *arg)
{
	struct worker workers[NR_WORKERS];
	struct bdev_desc *desc;
	struct slow *slow;

	with_workers(intruder_main, workers, &slow, &desc);
	for (unsigned block = 8; block < 16; block++) {
		char expected = block >= 9 && block < 15 ? 'C' : workers[0].nr_won ? 'B' : 0;

		ck_assert(all_bytes(slow->data + block * BS, BS, expected));
	}
	bdev_close(desc);
}

START_TEST(no_write_comes_between_comparing_and_writing)
{
	for (uint64_t seed = 1; seed <= 300; seed++)
		run_sim(seed, 3, intruding, NULL);
}
END_TEST

struct aborted {
	struct bdev_io io;
	int status;
	bool over;
};

static void aborted_done(struct bdev_io *io, int status)
{
	struct aborted *a = container_of(io, struct aborted, io);

	a->status = status;
	a->over = true;
}

static void aborting(void *arg)
{
	struct slow *slow = slow_create();
	char old[BS] = { 0 }, new[BS] = { 1 }, third[BS] = { 2 };
	struct iovec from = { old, BS }, to = { new, BS }, other = { third, BS };
	struct aborted cw = { .io = { .done = aborted_done, .op = BDEV_COMPARE_AND_WRITE, .iov = &to, .iovcnt = 1,
				      .compare_iov = &from, .compare_iovcnt = 1, .nr_blocks = 1 } };
	struct aborted w = { .io = { .done = aborted_done, .op = BDEV_WRITE, .iov = &other, .iovcnt = 1, .nr_blocks = 1 } };
	struct bdev_desc *desc;
	struct bdev_channel *ch;

	ck_assert_int_eq(bdev_open("slow", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	bdev_submit(ch, &cw.io);
	bdev_submit(ch, &w.io); /* held back by the other's lock */
	bdev_abort(ch, &w.io);
	bdev_abort(ch, &cw.io); /* has started: goes on */
	ck_assert(!w.over);
	while (!w.over || !cw.over)
		fiber_sleep(10);
	ck_assert_int_eq(w.status, -ECANCELED);
	ck_assert_int_eq(cw.status, 0);
	ck_assert_int_eq(slow->data[0], 1);
	w.io.flags = 0;
	ck_assert_int_eq(bdev_submit_wait(ch, &w.io), 0);
	ck_assert_int_eq(slow->data[0], 2);
	bdev_channel_put(ch);
	bdev_close(desc);
}

START_TEST(a_write_that_was_held_back_can_be_aborted)
{
	run_sim(1, 1, aborting, NULL);
}
END_TEST

static void verifying_and_copying(void *arg)
{
	struct slow *slow = slow_create();
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	struct bdev_stats stats;

	ck_assert_int_eq(bdev_open("slow", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert(bdev_supports(&slow->bdev, BDEV_VERIFY) && bdev_supports(&slow->bdev, BDEV_COPY));
	for (size_t i = 0; i < sizeof(slow->data); i++)
		slow->data[i] = (char)(i / BS * 7 + i % BS);
	ck_assert_int_eq(verify(ch, 3, 1000), 0);
	ck_assert_uint_eq(slow->nr_medium, 1000);
	slow->bad_block = 1003;
	ck_assert_int_eq(verify(ch, 3, 1000), 0);
	ck_assert_int_eq(verify(ch, 4, 1000), -EIO);
	ck_assert_int_eq(verify(ch, NR_BLOCKS - 1, 2), -ERANGE);
	/* Of more than one piece, to both sides, and from one block on to the next. */
	ck_assert_int_eq(copy(ch, 2000, 500, 300, 0), 0);
	ck_assert_mem_eq(slow->data + 500 * BS, slow->data + 2000 * BS, 300 * BS);
	ck_assert_int_eq(slow->data[800 * BS], (char)(800 * 7));
	ck_assert_int_eq(slow->data[499 * BS], (char)(499 * 7));
	ck_assert_uint_eq(slow->nr_durable, 0);
	ck_assert_int_eq(copy(ch, 0, NR_BLOCKS - 200, 200, BDEV_IO_FUA), 0);
	ck_assert_mem_eq(slow->data + (NR_BLOCKS - 200) * BS, slow->data, 200 * BS);
	ck_assert_uint_eq(slow->nr_durable, 200);
	ck_assert_int_eq(copy(ch, 10, 11, 1, 0), 0);
	ck_assert_mem_eq(slow->data + 10 * BS, slow->data + 11 * BS, BS);
	/* What cannot be meant, or is not there, changes nothing. */
	ck_assert_int_eq(copy(ch, 10, 11, 2, 0), -EINVAL);
	ck_assert_int_eq(copy(ch, 11, 10, 2, 0), -EINVAL);
	ck_assert_int_eq(copy(ch, NR_BLOCKS - 1, 10, 2, 0), -ERANGE);
	ck_assert_int_eq(copy(ch, UINT64_MAX, 10, 2, 0), -ERANGE);
	ck_assert_int_eq(copy(ch, 10, NR_BLOCKS - 1, 2, 0), -ERANGE);
	ck_assert_int_eq(copy(ch, 1003, 20, 1, 0), -EIO);
	ck_assert_int_eq(slow->data[20 * BS], (char)(20 * 7));
	slow->bdev.read_only = true;
	ck_assert_int_eq(copy(ch, 0, 20, 1, 0), -EROFS);
	ck_assert_int_eq(verify(ch, 0, 20), 0);
	bdev_get_stats(&slow->bdev, &stats);
	ck_assert_uint_eq(stats.op[BDEV_COPY].nr_bytes, 501 * BS);
	ck_assert_uint_eq(stats.op[BDEV_COPY].nr_errors, 7);
	ck_assert_uint_eq(stats.op[BDEV_VERIFY].nr_ops, 5);
	bdev_channel_put(ch);
	bdev_close(desc);
}

START_TEST(a_device_that_only_reads_and_writes_verifies_and_copies)
{
	run_sim(2, 1, verifying_and_copying, NULL);
}
END_TEST

/* The copy's destination is what the compare-and-write has locked: it waits, and copies after it. */
static void copying_into_a_lock(void *arg)
{
	struct slow *slow = slow_create();
	char zero[BS] = {0}, one[BS];
	struct iovec from = {zero, BS}, to = {one, BS};
	struct aborted cw = {.io = {.done = aborted_done, .op = BDEV_COMPARE_AND_WRITE, .iov = &to, .iovcnt = 1,
				    .compare_iov = &from, .compare_iovcnt = 1, .nr_blocks = 1}};
	struct aborted c = {.io = {.done = aborted_done, .op = BDEV_COPY, .from_blocks = 9, .nr_blocks = 1}};
	struct bdev_desc *desc;
	struct bdev_channel *ch;

	memset(one, 1, BS);
	memset(slow->data + 9 * BS, 9, BS);
	ck_assert_int_eq(bdev_open("slow", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	bdev_submit(ch, &cw.io);
	bdev_submit(ch, &c.io);
	while (!cw.over)
		fiber_sleep(1);
	ck_assert(!c.over);
	ck_assert_int_eq(cw.status, 0);
	while (!c.over)
		fiber_sleep(10);
	ck_assert_int_eq(c.status, 0);
	ck_assert_int_eq(slow->data[0], 9);
	bdev_channel_put(ch);
	bdev_close(desc);
}

START_TEST(no_copy_comes_between_comparing_and_writing)
{
	run_sim(3, 1, copying_into_a_lock, NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bdev emulation");
	TCase *tc = tcase_create("emulation");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_device_that_only_reads_and_writes_compares_and_zeroes);
	tcase_add_loop_test(tc, compare_and_writes_of_all_threads_count_exactly_simulated, 0, 20);
	tcase_add_test(tc, compare_and_writes_of_all_threads_count_exactly_for_real);
	tcase_add_test(tc, no_write_comes_between_comparing_and_writing);
	tcase_add_test(tc, a_write_that_was_held_back_can_be_aborted);
	tcase_add_test(tc, a_device_that_only_reads_and_writes_verifies_and_copies);
	tcase_add_test(tc, no_copy_comes_between_comparing_and_writing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
