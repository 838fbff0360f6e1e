/* The core on memory: names, claims, checks, errors, removal, statistics. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/histogram.h"
#include "bdev/testing.h"
#include "runtime/suite.h"

#define BS 512u

struct opened {
	struct bdev *bdev;
	struct bdev_desc *desc;
	struct bdev_channel *ch;
};

static struct opened open_malloc(const char *name, uint64_t nr_blocks)
{
	struct opened o;

	ck_assert_int_eq(bdev_malloc_create(name, NULL, nr_blocks, BS, &o.bdev), 0);
	ck_assert_int_eq(bdev_open(name, true, NULL, NULL, &o.desc), 0);
	o.ch = bdev_channel_get(o.desc);
	ck_assert_ptr_nonnull(o.ch);
	return o;
}

static void shut(struct opened *o)
{
	bdev_channel_put(o->ch);
	bdev_close(o->desc);
}

static void write_and_read_back(void *arg)
{
	struct opened o = open_malloc("m", 1024);
	char out[4 * BS], in[4 * BS];

	memset(out, 0x5a, sizeof(out));
	memset(in, 1, sizeof(in));
	ck_assert_int_eq(bdev_read(o.ch, in, 100, 4), 0);
	ck_assert(all_bytes(in, sizeof(in), 0));
	ck_assert_int_eq(bdev_write(o.ch, out, 100, 4, 0), 0);
	ck_assert_int_eq(bdev_read(o.ch, in, 100, 4), 0);
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_assert_int_eq(bdev_flush(o.ch), 0);
	ck_assert_int_eq(bdev_unmap(o.ch, 101, 1), 0);
	ck_assert_int_eq(bdev_read(o.ch, in, 100, 4), 0);
	ck_assert_int_eq(in[0], 0x5a);
	ck_assert_int_eq(in[BS], 0);
	ck_assert_int_eq(in[2 * BS], 0x5a);
	shut(&o);
}

START_TEST(what_was_written_is_read_back_simulated)
{
	run_sim(1, 1, write_and_read_back, NULL);
}
END_TEST

START_TEST(what_was_written_is_read_back_for_real)
{
	run_real(NULL, write_and_read_back, NULL);
}
END_TEST

static void null_zeroes(void *arg)
{
	struct bdev *bdev;
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	char buf[8 * BS];

	ck_assert_int_eq(bdev_null_create("n", NULL, 64, BS, &bdev), 0);
	ck_assert_int_eq(bdev_open("n", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	memset(buf, 0xff, sizeof(buf));
	ck_assert_int_eq(bdev_write(ch, buf, 0, 8, 0), 0);
	ck_assert_int_eq(bdev_read(ch, buf, 0, 8), 0);
	ck_assert(all_bytes(buf, sizeof(buf), 0));
	bdev_channel_put(ch);
	bdev_close(desc);
}

START_TEST(null_reads_give_zeroes_and_never_old_bytes)
{
	run_sim(1, 1, null_zeroes, NULL);
}
END_TEST

static void names(void *arg)
{
	struct bdev *a, *b, *c;
	char text[UUID_STR_LEN];

	ck_assert_int_eq(bdev_malloc_create("a", NULL, 64, BS, &a), 0);
	ck_assert_int_eq(bdev_malloc_create("a", NULL, 64, BS, &b), -EEXIST);
	ck_assert_int_eq(bdev_null_create("a", NULL, 64, BS, &b), -EEXIST);
	ck_assert_int_eq(bdev_rename_alias(a, "store/volume"), 0);
	ck_assert_int_eq(bdev_malloc_create("store/volume", NULL, 64, BS, &b), -EEXIST);
	ck_assert_int_eq(bdev_malloc_create("b", NULL, 64, BS, &b), 0);
	ck_assert_int_eq(bdev_rename_alias(b, "store/volume"), -EEXIST);
	ck_assert_int_eq(bdev_rename_alias(a, "store/other"), 0);
	ck_assert_int_eq(bdev_rename_alias(b, "store/volume"), 0);
	ck_assert_ptr_eq(bdev_find("store/volume"), b);
	ck_assert_ptr_eq(bdev_find("store/other"), a);
	uuid_unparse_upper(a->uuid, text);
	ck_assert_ptr_eq(bdev_find(text), a);
	ck_assert_ptr_null(bdev_find("none"));
	ck_assert_ptr_eq(bdev_first(), a);
	ck_assert_ptr_eq(bdev_next(a), b);
	ck_assert_ptr_null(bdev_next(b));
	ck_assert_int_eq(bdev_malloc_create("c", NULL, 0, BS, &c), -EINVAL);
	ck_assert_int_eq(bdev_malloc_create("c", NULL, 64, 513, &c), -EINVAL);
	ck_assert_int_eq(bdev_malloc_create("c", NULL, UINT64_MAX / 2, BS, &c), -EINVAL);
	ck_assert_int_eq(bdev_unregister_wait(a), 0);
	ck_assert_int_eq(bdev_malloc_create("a", NULL, 64, BS, &a), 0);
}

START_TEST(a_name_or_alias_that_is_taken_is_refused)
{
	run_sim(1, 1, names, NULL);
}
END_TEST

static void claims(void *arg)
{
	struct bdev_desc *a, *b, *c;
	const char *who;
	struct bdev *bdev;

	ck_assert_int_eq(bdev_malloc_create("m", NULL, 64, BS, &bdev), 0);
	ck_assert_int_eq(bdev_open("none", true, NULL, NULL, &a), -ENODEV);
	ck_assert_int_eq(bdev_open("m", true, NULL, NULL, &a), 0);
	ck_assert_int_eq(bdev_open("m", false, NULL, NULL, &b), 0);
	ck_assert_int_eq(bdev_claim(b, "store"), -EBUSY);
	bdev_close(a);
	ck_assert(!bdev_is_claimed(bdev, &who));
	ck_assert_int_eq(bdev_claim(b, "store"), 0);
	ck_assert(bdev_is_claimed(bdev, &who));
	ck_assert_str_eq(who, "store");
	ck_assert_int_eq(bdev_open("m", true, NULL, NULL, &a), -EBUSY);
	ck_assert_int_eq(bdev_open("m", false, NULL, NULL, &c), 0);
	ck_assert_int_eq(bdev_claim(c, "other"), -EBUSY);
	bdev_close(c);
	bdev_close(b);
	ck_assert_int_eq(bdev_open("m", true, NULL, NULL, &a), 0);
	bdev_close(a);
}

START_TEST(a_claim_keeps_other_writers_out)
{
	run_sim(1, 1, claims, NULL);
}
END_TEST

static void count_call(void *arg)
{
	++*(unsigned *)arg;
}

static void still_claims(void *arg)
{
	struct bdev_desc *a, *b, *c;
	unsigned nr_told = 0;
	struct bdev *bdev;

	bdev_on_writers_gone(count_call, &nr_told);
	ck_assert_int_eq(bdev_malloc_create("m", NULL, 64, BS, &bdev), 0);
	ck_assert_int_eq(bdev_open("m", true, NULL, NULL, &a), 0);
	ck_assert_int_eq(bdev_open("m", false, NULL, NULL, &b), 0);
	ck_assert_int_eq(bdev_open("m", false, NULL, NULL, &c), 0);
	ck_assert_int_eq(bdev_claim_still(a, "itself a writer"), -EBUSY);
	ck_assert_int_eq(bdev_claim_still(b, "clones"), -EBUSY);
	bdev_close(a);
	fiber_sleep(1000);
	ck_assert_uint_eq(nr_told, 1);
	ck_assert_int_eq(bdev_claim_of(bdev), BDEV_CLAIM_NONE);
	ck_assert_int_eq(bdev_claim_still(b, "clones"), 0);
	ck_assert_int_eq(bdev_claim_still(b, "clones"), 0);
	ck_assert_int_eq(bdev_claim_still(c, "more clones"), 0);
	ck_assert_int_eq(bdev_claim_of(bdev), BDEV_CLAIM_STILL);
	bdev_close(b);
	ck_assert_int_eq(bdev_open("m", true, NULL, NULL, &a), -EBUSY);
	ck_assert_int_eq(bdev_open("m", false, NULL, NULL, &b), 0);
	ck_assert_int_eq(bdev_claim(b, "a store"), -EBUSY);
	bdev_close(b);
	bdev_close(c);
	ck_assert_int_eq(bdev_claim_of(bdev), BDEV_CLAIM_NONE);
	ck_assert_int_eq(bdev_open("m", true, NULL, NULL, &a), 0);
	bdev_close(a);
	ck_assert_int_eq(bdev_open("m", false, NULL, NULL, &b), 0);
	ck_assert_int_eq(bdev_claim(b, "a store"), 0);
	ck_assert_int_eq(bdev_claim_of(bdev), BDEV_CLAIM_WRITER);
	ck_assert_int_eq(bdev_claim_still(b, "a store"), -EBUSY);
	bdev_close(b);
	fiber_sleep(1000);
	ck_assert_uint_eq(nr_told, 3);
	bdev_on_writers_gone(NULL, NULL);
}

START_TEST(what_is_claimed_to_stay_still_has_no_writer_until_the_last_claim_goes)
{
	run_sim(1, 1, still_claims, NULL);
}
END_TEST

static void refusals(void *arg)
{
	struct opened o = open_malloc("m", 64);
	char buf[64 * BS];
	struct iovec iov = { buf, sizeof(buf) };
	struct bdev_io io = { .op = BDEV_WRITE, .iov = &iov, .iovcnt = 1, .nr_blocks = 65 };

	ck_assert_int_eq(bdev_read(o.ch, buf, 64, 1), -ERANGE);
	ck_assert_int_eq(bdev_read(o.ch, buf, 63, 2), -ERANGE);
	ck_assert_int_eq(bdev_read(o.ch, buf, UINT64_MAX, 2), -ERANGE);
	ck_assert_int_eq(bdev_unmap(o.ch, 1, UINT64_MAX), -ERANGE);
	ck_assert_int_eq(bdev_read(o.ch, buf, 63, 1), 0);
	ck_assert_int_eq(bdev_submit_wait(o.ch, &io), -ERANGE);
	io.nr_blocks = 63; /* the vector is longer */
	ck_assert_int_eq(bdev_submit_wait(o.ch, &io), -EINVAL);
	io.op = 77;
	ck_assert_int_eq(bdev_submit_wait(o.ch, &io), -ENOTSUP);
	o.bdev->read_only = true;
	ck_assert_int_eq(bdev_write(o.ch, buf, 0, 1, 0), -EROFS);
	ck_assert_int_eq(bdev_unmap(o.ch, 0, 1), -EROFS);
	ck_assert_int_eq(bdev_read(o.ch, buf, 0, 1), 0);
	ck_assert_int_eq(bdev_read(o.ch, buf, 0, 0), 0);
	shut(&o);
}

START_TEST(what_cannot_be_is_refused_with_its_reason)
{
	run_sim(1, 1, refusals, NULL);
}
END_TEST

static bool submitted, completed;

static void early_done(struct bdev_io *io, int status)
{
	ck_assert(submitted);
	ck_assert_int_eq(status, io->offset_blocks ? -ERANGE : 0);
	completed = true;
}

static void never_early(void *arg)
{
	struct opened o = open_malloc("m", 64);
	char buf[BS];
	struct iovec iov = { buf, sizeof(buf) };

	for (int i = 0; i < 2; i++) {
		struct bdev_io io = { .done = early_done, .op = BDEV_WRITE, .iov = &iov, .iovcnt = 1, .nr_blocks = 1,
				      .offset_blocks = i * 1000 };

		submitted = completed = false;
		bdev_submit(o.ch, &io);
		ck_assert(!completed);
		submitted = true;
		while (!completed)
			fiber_yield();
		ck_assert(!io.in_flight);
	}
	shut(&o);
}

START_TEST(done_never_runs_before_submit_has_returned)
{
	run_sim(1, 1, never_early, NULL);
}
END_TEST

#define LARGE_BYTES (64u << 20)
#define LARGE_TURNS (LARGE_BYTES / (2u << 20) / 2) /* what takes longer than a slice or two is spread */

static enum poll_result count_turn(void *arg)
{
	(*(unsigned *)arg)++;
	return POLL_IDLE;
}

static void large_zeroes(void *arg)
{
	struct opened o = open_malloc("m", LARGE_BYTES / BS);
	unsigned nr_turns = 0;
	struct poller *poller = poller_start("turns", count_turn, &nr_turns, 0);
	uint64_t last = LARGE_BYTES / BS - 1;
	char buf[BS], zeroes[BS] = { 0 };

	for (unsigned i = 0; i < 2; i++) {
		struct bdev_io io = { .op = i ? BDEV_WRITE_ZEROES : BDEV_UNMAP, .offset_blocks = 3, .nr_blocks = last - 3 };
		uint64_t edges[] = { 2, 3, last - 1, last };
		unsigned begun;

		memset(buf, 0x77, sizeof(buf));
		for (unsigned k = 0; k < 4; k++)
			ck_assert_int_eq(bdev_write(o.ch, buf, edges[k], 1, 0), 0);
		begun = nr_turns;
		ck_assert_int_eq(bdev_submit_wait(o.ch, &io), 0);
		ck_assert_uint_ge(nr_turns - begun, LARGE_TURNS);
		for (unsigned k = 0; k < 4; k++) {
			ck_assert_int_eq(bdev_read(o.ch, buf, edges[k], 1), 0);
			if (k == 0 || k == 3)
				ck_assert_int_eq(buf[0], 0x77);
			else
				ck_assert_mem_eq(buf, zeroes, BS);
		}
	}
	poller_stop(poller);
	shut(&o);
}

START_TEST(a_large_unmap_of_memory_leaves_turns_to_others)
{
	run_sim(1, 1, large_zeroes, NULL);
}
END_TEST

static void large_end(void *arg)
{
	unsigned nr_turns = 0;
	struct poller *poller = poller_start("turns", count_turn, &nr_turns, 0);
	struct bdev *bdev;

	ck_assert_int_eq(bdev_malloc_create("m", NULL, LARGE_BYTES / BS, BS, &bdev), 0);
	nr_turns = 0;
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	ck_assert_uint_ge(nr_turns, LARGE_TURNS);
	ck_assert_ptr_null(bdev_find("m"));
	poller_stop(poller);
}

START_TEST(the_end_of_much_memory_leaves_turns_to_others)
{
	run_sim(1, 1, large_end, NULL);
}
END_TEST

struct told {
	struct opened o;
	int nr_removed, nr_resized;
	bool unregistered, found;
};

static void told_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	struct told *t = arg;

	if (event == BDEV_EVENT_RESIZE)
		t->nr_resized++;
	else
		t->nr_removed++;
}

static void told_unregistered(void *arg, int status)
{
	((struct told *)arg)->unregistered = true;
}

static void removal(void *arg)
{
	struct told t = { 0 };
	struct bdev_desc *second;
	char buf[BS];

	ck_assert_int_eq(bdev_malloc_create("m", NULL, 64, BS, &t.o.bdev), 0);
	ck_assert_int_eq(bdev_open("m", true, told_event, &t, &t.o.desc), 0);
	ck_assert_int_eq(bdev_open("m", false, told_event, &t, &second), 0);
	t.o.ch = bdev_channel_get(t.o.desc);
	bdev_notify_resize(t.o.bdev, 32);
	ck_assert_int_eq(t.nr_resized, 2);
	ck_assert_int_eq(bdev_read(t.o.ch, buf, 40, 1), -ERANGE);
	bdev_unregister(t.o.bdev, told_unregistered, &t);
	ck_assert_int_eq(t.nr_removed, 0);
	ck_assert_ptr_null(bdev_find("m"));
	while (t.nr_removed < 2)
		fiber_yield();
	ck_assert_int_eq(bdev_malloc_create("m", NULL, 64, BS, NULL), -EEXIST);
	ck_assert_int_eq(bdev_read(t.o.ch, buf, 0, 1), 0);
	bdev_close(second);
	bdev_channel_put(t.o.ch);
	for (int i = 0; i < 10; i++)
		fiber_yield();
	ck_assert(!t.unregistered);
	bdev_close(t.o.desc);
	while (!t.unregistered)
		fiber_yield();
	ck_assert_int_eq(bdev_malloc_create("m", NULL, 64, BS, NULL), 0);
}

START_TEST(removal_waits_for_every_opener_to_close)
{
	run_sim(1, 1, removal, NULL);
}
END_TEST

static int nr_examined, nr_watched;
static bool examine_over;

static void examine(const char *name)
{
	ck_assert_ptr_nonnull(bdev_find(name));
	fiber_sleep(1000);
	nr_examined++;
	examine_over = true;
}

static void watch(struct bdev *bdev, void *arg)
{
	nr_watched++;
}

static void examining(void *arg)
{
	static struct bdev_examiner examiner = { .name = "test", .examine = examine };

	ck_assert_int_eq(bdev_malloc_create("early", NULL, 64, BS, NULL), 0);
	bdev_wait_for_examine();
	bdev_examiner_register(&examiner);
	bdev_on_register(watch, NULL);
	ck_assert_int_eq(nr_watched, 1);
	ck_assert_int_eq(bdev_malloc_create("late", NULL, 64, BS, NULL), 0);
	ck_assert(!examine_over);
	bdev_wait_for_examine();
	ck_assert_int_eq(nr_examined, 2);
	ck_assert_int_eq(nr_watched, 2);
}

START_TEST(examiners_and_watchers_see_devices_early_and_late)
{
	run_sim(1, 1, examining, NULL);
}
END_TEST

static void statistics(void *arg)
{
	struct opened o = open_malloc("m", 64);
	struct bdev_histogram *h = calloc(1, sizeof(*h));
	struct bdev_stats s;
	char buf[4 * BS];

	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(bdev_write(o.ch, memset(buf, 0, sizeof(buf)), 0, 4, 0), 0);
	ck_assert_int_eq(bdev_read(o.ch, buf, 0, 1), 0);
	ck_assert_int_eq(bdev_read(o.ch, buf, 64, 1), -ERANGE);
	bdev_get_stats(o.bdev, &s);
	ck_assert_uint_eq(s.op[BDEV_WRITE].nr_ops, 10);
	ck_assert_uint_eq(s.op[BDEV_WRITE].nr_bytes, 40 * BS);
	ck_assert_uint_eq(s.op[BDEV_READ].nr_ops, 2);
	ck_assert_uint_eq(s.op[BDEV_READ].nr_errors, 1);
	ck_assert_uint_eq(s.nr_in_flight, 0);
	bdev_get_histogram(o.bdev, BDEV_WRITE, h);
	ck_assert_uint_eq(histogram_count(h), 10);
	bdev_channel_put(o.ch); /* what it counted stays */
	for (int i = 0; i < 10; i++)
		fiber_yield();
	bdev_get_stats(o.bdev, &s);
	ck_assert_uint_eq(s.op[BDEV_WRITE].nr_ops, 10);
	o.ch = bdev_channel_get(o.desc);
	ck_assert_int_eq(bdev_read(o.ch, buf, 0, 1), 0);
	bdev_get_stats(o.bdev, &s);
	ck_assert_uint_eq(s.op[BDEV_READ].nr_ops, 3);
	bdev_reset_stats(o.bdev, BDEV_RESET_ALL);
	bdev_get_stats(o.bdev, &s);
	ck_assert_uint_eq(s.op[BDEV_READ].nr_ops, 0);
	free(h);
	shut(&o);
}

START_TEST(statistics_count_operations_bytes_and_errors)
{
	run_sim(1, 1, statistics, NULL);
}
END_TEST

START_TEST(a_percentile_is_at_most_a_sixteenth_off)
{
	struct bdev_histogram *h = calloc(1, sizeof(*h));
	const double fractions[] = { 0.0, 0.5, 0.9, 0.99, 0.999 };

	for (uint64_t v = 1; v <= 100000; v++)
		histogram_add(h, v);
	for (unsigned i = 0; i < 5; i++) {
		double exact = 1 + fractions[i] * 99999, got = histogram_percentile(h, fractions[i]);

		ck_assert_msg(got >= exact - 1 && got <= exact * 17 / 16 + 1, "%g: %g", exact, got);
	}
	histogram_add(h, UINT64_MAX);
	ck_assert_uint_eq(histogram_count(h), 100001);
	for (unsigned i = 1; i < HISTOGRAM_NR_BUCKETS; i++)
		ck_assert_uint_eq(histogram_bucket(histogram_bucket_floor(i)), i);
	free(h);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_was_written_is_read_back_simulated,
		what_was_written_is_read_back_for_real,
		null_reads_give_zeroes_and_never_old_bytes,
		a_name_or_alias_that_is_taken_is_refused,
		a_claim_keeps_other_writers_out,
		what_is_claimed_to_stay_still_has_no_writer_until_the_last_claim_goes,
		what_cannot_be_is_refused_with_its_reason,
		done_never_runs_before_submit_has_returned,
		a_large_unmap_of_memory_leaves_turns_to_others,
		the_end_of_much_memory_leaves_turns_to_others,
		removal_waits_for_every_opener_to_close,
		examiners_and_watchers_see_devices_early_and_late,
		statistics_count_operations_bytes_and_errors,
		a_percentile_is_at_most_a_sixteenth_off,
	};

	return run_suite("bdev", tests, sizeof(tests) / sizeof(tests[0]));
}
