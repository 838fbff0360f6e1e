/* A delaying device: how much later each operation completes, and that nothing else of the base changes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/delay.h"
#include "bdev/testing.h"
#include "runtime/suite.h"

#define BS 512u

static const uint64_t latency_us[DELAY_NR] = { 80, 500, 15, 300 };

struct opened {
	struct bdev *bdev;
	struct bdev_desc *desc;
	struct bdev_channel *ch;
};

static struct opened open_delayed(void)
{
	struct opened o;
	uuid_t none = { 0 };

	ck_assert_int_eq(bdev_malloc_create("m", NULL, 1024, BS, NULL), 0);
	ck_assert_int_eq(bdev_delay_create("d", "m", latency_us, none, &o.bdev), 0);
	ck_assert_int_eq(bdev_open("d", true, NULL, NULL, &o.desc), 0);
	o.ch = bdev_channel_get(o.desc);
	ck_assert_ptr_nonnull(o.ch);
	return o;
}

static void shut(struct opened *o)
{
	bdev_channel_put(o->ch);
	bdev_close(o->desc);
}

static unsigned nr_late;

/* The simulation stalls a thread now and then: few may be late, none early. */
static void assert_took(uint64_t begun_us, uint64_t us)
{
	uint64_t took_us = clock_now_us() - begun_us;

	ck_assert_msg(took_us >= us, "%lu us, not %lu", (unsigned long)took_us, (unsigned long)us);
	nr_late += took_us > us + 5;
}

static void one_by_one(void *arg)
{
	struct opened o = open_delayed();
	uint64_t begun_us;
	char out[BS], in[BS];

	memset(out, 0x5a, sizeof(out));
	for (unsigned i = 1; i <= 200; i++) {
		begun_us = clock_now_us();
		ck_assert_int_eq(bdev_write(o.ch, out, i, 1, 0), 0);
		assert_took(begun_us, i % 100 ? 15 : 300);
		begun_us = clock_now_us();
		ck_assert_int_eq(bdev_read(o.ch, in, i, 1), 0);
		assert_took(begun_us, i % 100 ? 80 : 500);
		ck_assert_mem_eq(in, out, BS);
		begun_us = clock_now_us();
		ck_assert_int_eq(bdev_flush(o.ch), 0);
		assert_took(begun_us, 0);
	}
	ck_assert_int_eq(bdev_delay_set(o.bdev, DELAY_AVG_READ, 501), -EINVAL);
	ck_assert_int_eq(bdev_delay_set(o.bdev, DELAY_AVG_READ, 0), 0);
	begun_us = clock_now_us();
	ck_assert_int_eq(bdev_read(o.ch, in, 1, 1), 0);
	assert_took(begun_us, 0);
	ck_assert_uint_le(nr_late, 30);
	ck_assert_int_eq(bdev_read(o.ch, in, 1024, 1), -ERANGE);
	shut(&o);
}

START_TEST(each_operation_takes_so_much_longer)
{
	run_sim(1, 1, one_by_one, NULL);
}
END_TEST

/* Many at once. */
struct shot {
	struct bdev_io io;
	struct iovec iov;
	char buf[BS];
	uint64_t done_us;
	unsigned *left;
	struct fiber_wait *wait;
};

static void shot_done(struct bdev_io *io, int status)
{
	struct shot *shot = container_of(io, struct shot, io);

	ck_assert_int_eq(status, 0);
	shot->done_us = clock_now_us();
	if (--*shot->left == 0)
		fiber_wake(shot->wait, 0);
}

static void many_at_once(void *arg)
{
	struct opened o = open_delayed();
	static struct shot shots[64];
	uint64_t begun_us = clock_now_us();
	unsigned left = 64;
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	for (unsigned i = 0; i < 64; i++) {
		shots[i] = (struct shot){ .left = &left, .wait = &wait };
		shots[i].iov = (struct iovec){ shots[i].buf, BS };
		shots[i].io = (struct bdev_io){ .done = shot_done, .iov = &shots[i].iov, .iovcnt = 1, .offset_blocks = i,
						.nr_blocks = 1, .op = i % 2 ? BDEV_WRITE : BDEV_READ };
		bdev_submit(o.ch, &shots[i].io);
	}
	fiber_wait(&wait);
	/* The shorter latency does not wait behind the longer. */
	for (unsigned i = 0; i < 64; i++)
		ck_assert_uint_le(shots[i].done_us - begun_us, i % 2 ? 25 : 90);
	shut(&o);
}

START_TEST(those_in_flight_together_are_delayed_together)
{
	run_sim(1, 1, many_at_once, NULL);
}
END_TEST

static void refused_and_removed(void *arg)
{
	const uint64_t wrong[DELAY_NR] = { 80, 79, 15, 300 };
	uuid_t none = { 0 };

	ck_assert_int_eq(bdev_malloc_create("m", NULL, 1024, BS, NULL), 0);
	ck_assert_int_eq(bdev_delay_create("d", "m", wrong, none, NULL), -EINVAL);
	ck_assert_int_eq(bdev_delay_create("d", "x", latency_us, none, NULL), -ENODEV);
	ck_assert_int_eq(bdev_delay_create("d", "m", latency_us, none, NULL), 0);
	ck_assert_int_eq(bdev_delay_create("e", "m", latency_us, none, NULL), -EBUSY);
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("m")), 0);
	ck_assert_ptr_null(bdev_find("d"));
}

START_TEST(it_goes_with_its_base_and_wrong_ones_are_refused)
{
	run_sim(1, 1, refused_and_removed, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_operation_takes_so_much_longer,
		those_in_flight_together_are_delayed_together,
		it_goes_with_its_base_and_wrong_ones_are_refused,
	};

	return run_suite("delay", tests, sizeof(tests) / sizeof(tests[0]));
}
