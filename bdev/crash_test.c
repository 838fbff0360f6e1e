/* The crash disk loses what it may and keeps what it must, and the write log's images do the same. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bdev/crash.h"
#include "bdev/testing.h"
#include "bdev/writelog.h"
#include "runtime/suite.h"

#define BS	  512u
#define NR_BLOCKS 1024u

static struct crash_disk *disk;
static struct bdev_desc *desc;
static struct bdev_channel *ch;

static void attach(void)
{
	ck_assert_int_eq(bdev_crash_create("crash", disk, NULL), 0);
	ck_assert_int_eq(bdev_open("crash", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
}

static void detach(void)
{
	bdev_channel_put(ch);
	bdev_close(desc);
}

static char at(uint64_t block)
{
	return ((const char *)crash_disk_image(disk))[block * BS];
}

static void put(char c, uint64_t block, uint64_t nr, unsigned flags)
{
	char *buf = malloc(nr * BS);

	memset(buf, c, nr * BS);
	ck_assert_int_eq(bdev_write(ch, buf, block, nr, flags), 0);
	free(buf);
}

static void durability(void *arg)
{
	attach();
	put('a', 0, 8, 0);
	ck_assert_int_eq(bdev_flush(ch), 0);
	put('b', 4, 8, 0);
	put('c', 20, 1, BDEV_IO_FUA);
	put('d', 21, 1, 0);
	put('e', 30, 1, 0);
	put('f', 30, 1, BDEV_IO_FUA);
	detach();
}

START_TEST(what_was_flushed_or_fua_stays_and_the_rest_may_go)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 5, .max_delay_us = 30 };

	for (int fate = CRASH_FATE_LOSE_ALL; fate < CRASH_FATE_NR; fate++) {
		for (uint64_t seed = 0; seed < 20; seed++) {
			disk = crash_disk_create(&opts);
			run_sim(seed, 1, durability, NULL);
			ck_assert_int_eq(at(4), 'b');
			ck_assert_int_eq(crash_disk_lose_power(disk, fate, seed), fate);
			ck_assert_int_eq(at(0), 'a');
			ck_assert(at(4) == 'a' || at(4) == 'b');
			ck_assert(at(9) == 0 || at(9) == 'b');
			ck_assert_int_eq(at(20), 'c');
			ck_assert(at(21) == 0 || at(21) == 'd');
			ck_assert_int_eq(at(30), 'f'); /* an older write must not come over a durable one */
			if (fate == CRASH_FATE_LOSE_ALL) {
				ck_assert_int_eq(at(4), 'a');
				ck_assert_int_eq(at(21), 0);
			}
			if (fate == CRASH_FATE_KEEP_ALL) {
				ck_assert_int_eq(at(11), 'b');
				ck_assert_int_eq(at(21), 'd');
			}
			crash_disk_destroy(disk);
		}
	}
}
END_TEST

static void three_writes(void *arg)
{
	attach();
	put('1', 0, 8, 0);
	put('2', 8, 8, 0);
	put('3', 16, 8, 0);
	detach();
}

START_TEST(writes_are_reordered_and_torn_only_at_atomic_units)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .atomic_blocks = 4, .seed = 9 };
	bool reordered = false, torn = false;

	for (uint64_t seed = 0; seed < 200; seed++) {
		disk = crash_disk_create(&opts);
		run_sim(1, 1, three_writes, NULL);
		crash_disk_lose_power(disk, CRASH_FATE_SEEDED, seed);
		for (unsigned b = 0; b < 24; b += 4) {
			for (unsigned i = 1; i < 4; i++)
				ck_assert_int_eq(at(b + i), at(b));
		}
		reordered |= !at(0) && at(16);
		torn |= (at(8) != 0) != (at(12) != 0);
		crash_disk_destroy(disk);
	}
	ck_assert(reordered);
	ck_assert(torn);
}
END_TEST

static void cut(void *arg)
{
	char *buf = calloc(8, BS);

	attach();
	put('1', 0, 8, BDEV_IO_FUA);
	memset(buf, '2', 8 * BS);
	ck_assert_int_eq(bdev_write(ch, buf, 0, 8, BDEV_IO_FUA), -EIO);
	ck_assert_int_eq(bdev_write(ch, buf, 8, 8, BDEV_IO_FUA), -EIO);
	ck_assert_int_eq(bdev_read(ch, buf, 8, 8), -EIO);
	ck_assert_int_eq(bdev_flush(ch), -EIO);
	ck_assert(crash_disk_is_cut(disk));
	free(buf);
	detach();
}

START_TEST(a_power_cut_leaves_the_write_in_flight_torn_and_nothing_after_it)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 9 };
	bool old = false, new = false, mixed = false;

	for (uint64_t seed = 0; seed < 200; seed++) {
		unsigned nr = 0;

		disk = crash_disk_create(&opts);
		crash_disk_cut_at(disk, 2);
		run_sim(1, 1, cut, NULL);
		crash_disk_lose_power(disk, CRASH_FATE_SEEDED, seed);
		for (unsigned b = 0; b < 8; b++) {
			ck_assert(at(b) == '1' || at(b) == '2');
			nr += at(b) == '2';
			ck_assert_int_eq(at(b + 8), 0);
		}
		old |= nr == 0;
		new |= nr == 8;
		mixed |= nr > 0 && nr < 8;
		crash_disk_destroy(disk);
	}
	ck_assert(old && new && mixed);
}
END_TEST

static void die_at_event(struct crash_disk *d, uint64_t event, void *arg)
{
	if (event != 3)
		return;
	crash_disk_capture(d);
	_exit(7);
}

START_TEST(a_forked_child_can_die_and_another_look_at_the_remains)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 9, .max_delay_us = 10 };
	int status;
	pid_t pid;

	disk = crash_disk_create(&opts);
	pid = fork();
	if (!pid) {
		crash_disk_on_event(disk, die_at_event, NULL);
		run_sim(1, 1, three_writes, NULL);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	ck_assert_int_eq(at(0), '1');
	ck_assert_int_eq(at(8), '2');
	ck_assert_int_eq(at(16), 0);
	pid = fork();
	if (!pid) {
		ck_assert_int_eq(crash_disk_make_private(disk), 0);
		crash_disk_lose_power(disk, CRASH_FATE_LOSE_ALL, 1);
		_exit(at(0) || at(8) ? 1 : 0);
	}
	waitpid(pid, &status, 0);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(at(8), '2'); /* the child's disk was its own */
	crash_disk_process_died(disk, 4);
	crash_disk_lose_power(disk, CRASH_FATE_LOSE_ALL, 1);
	ck_assert_int_eq(at(0), 0);
	crash_disk_destroy(disk);
}
END_TEST

static void faults(void *arg)
{
	unsigned nr_failed = 0;
	char buf[BS];

	attach();
	for (unsigned i = 0; i < 500; i++)
		nr_failed += bdev_read(ch, buf, i, 1) == -EIO;
	ck_assert_uint_gt(nr_failed, 10);
	ck_assert_uint_lt(nr_failed, 200);
	ck_assert_int_eq(bdev_write(ch, buf, 0, 1, 0), 0);
	detach();
}

START_TEST(errors_come_by_chance_and_seed)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 1, .read_error_ppm = 100000 };

	disk = crash_disk_create(&opts);
	run_sim(1, 1, faults, NULL);
	crash_disk_destroy(disk);
}
END_TEST

static void many_writes(void *arg)
{
	attach();
	for (unsigned i = 0; i < 2000; i++)
		put('A' + i % 26, i * 7 % 1000, 1 + i % 17, i % 97 ? 0 : BDEV_IO_FUA);
	detach();
}

START_TEST(a_full_cache_writes_its_oldest_back_by_itself)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 1, .max_cache_bytes = 65536 };
	char *before = malloc(NR_BLOCKS * BS);

	disk = crash_disk_create(&opts);
	run_sim(1, 1, many_writes, NULL);
	memcpy(before, crash_disk_image(disk), NR_BLOCKS * BS);
	crash_disk_lose_power(disk, CRASH_FATE_KEEP_ALL, 1);
	ck_assert_mem_eq(before, crash_disk_image(disk), NR_BLOCKS * BS);
	free(before);
	crash_disk_destroy(disk);
}
END_TEST

static char log_path[64], image_path[64];

static void logged_body(void *arg)
{
	ck_assert_int_eq(bdev_malloc_create("base", NULL, NR_BLOCKS, BS, NULL), 0);
	ck_assert_int_eq(bdev_writelog_create("logged", "base", log_path, NULL), 0);
	ck_assert_int_eq(bdev_open("base", true, NULL, NULL, &desc), -EBUSY);
	ck_assert_int_eq(bdev_open("logged", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	put('a', 0, 8, 0);
	ck_assert_int_eq(bdev_flush(ch), 0);
	put('b', 4, 8, 0);
	put('c', 20, 1, BDEV_IO_FUA);
	put('d', 21, 1, 0);
	ck_assert_int_eq(bdev_unmap(ch, 0, 2), 0);
	detach();
}

static char image_at(uint64_t block)
{
	char c = 0;
	int fd = open(image_path, O_RDONLY);

	ck_assert_int_eq(pread(fd, &c, 1, block * BS), 1);
	close(fd);
	return c;
}

START_TEST(images_from_a_write_log_keep_what_was_durable_at_the_cut)
{
	struct writelog_info info;
	bool lost = false, kept = false, ignored = false;

	snprintf(log_path, sizeof(log_path), "crash_test.%d.log", getpid());
	snprintf(image_path, sizeof(image_path), "crash_test.%d.img", getpid());
	run_sim(1, 1, logged_body, NULL);
	ck_assert_int_eq(writelog_inspect(log_path, &info), 0);
	ck_assert_uint_eq(info.nr_records, 12);
	ck_assert_uint_eq(info.nr_writes, 5);
	ck_assert_uint_eq(info.nr_flushes, 1);
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct writelog_cut c = { .record = UINT64_MAX, .seed = seed };

		ck_assert_int_eq(writelog_make_image(log_path, NULL, image_path, &c), 0);
		ck_assert_int_eq(image_at(2), 'a');
		ck_assert(image_at(5) == 'a' || image_at(5) == 'b');
		ck_assert(image_at(0) == 'a' || image_at(0) == 0);
		ck_assert_int_eq(image_at(20), 'c');
		lost |= image_at(21) == 0;
		kept |= image_at(21) == 'd';
		c.ignore_flushes = true;
		ck_assert_int_eq(writelog_make_image(log_path, NULL, image_path, &c), 0);
		ignored |= image_at(20) != 'c';
		c = (struct writelog_cut){ .record = 3, .seed = seed }; /* the flush was submitted, no more */
		ck_assert_int_eq(writelog_make_image(log_path, NULL, image_path, &c), 0);
		ck_assert(image_at(2) == 'a' || image_at(2) == 0);
		ck_assert_int_eq(image_at(20), 0);
		c.keep_all = true;
		ck_assert_int_eq(writelog_make_image(log_path, NULL, image_path, &c), 0);
		ck_assert_int_eq(image_at(2), 'a');
	}
	ck_assert(lost && kept && ignored);
	unlink(log_path);
	unlink(image_path);
}
END_TEST

/* --- tapes --- */

static struct crash_tape *tape;
static struct crash_disk *copy;

static void recorded(void *arg)
{
	attach();
	put('a', 0, 8, 0);
	crash_disk_copy(copy, disk);
	tape = crash_tape_create();
	crash_disk_record(disk, tape);
	put('b', 4, 8, 0);
	put('c', 20, 1, BDEV_IO_FUA);
	ck_assert_int_eq(bdev_flush(ch), 0);
	put('d', 21, 4, 0);
	crash_disk_record(disk, NULL);
	put('e', 40, 1, BDEV_IO_FUA);
	detach();
}

static char copy_at(struct crash_disk *of, uint64_t block)
{
	return ((const char *)crash_disk_image(of))[block * BS];
}

START_TEST(a_player_does_again_what_was_recorded_event_by_event)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 5, .max_delay_us = 30 };
	struct crash_player *player;

	disk = crash_disk_create(&opts);
	copy = crash_disk_create(&opts);
	run_sim(1, 1, recorded, NULL);
	ck_assert_uint_eq(crash_tape_nr_events(tape), 4);
	player = crash_player_create(tape, copy);
	ck_assert_uint_eq(crash_player_next(player), 2);
	ck_assert_int_eq(copy_at(copy, 4), 'a'); /* in flight */
	ck_assert_uint_eq(crash_player_next(player), 3);
	ck_assert_int_eq(copy_at(copy, 4), 'b');
	ck_assert_uint_eq(crash_player_next(player), 4);
	ck_assert(crash_player_at_flush(player));
	ck_assert_uint_eq(crash_player_next(player), 5);
	ck_assert_int_eq(copy_at(copy, 21), 0);
	ck_assert_uint_eq(crash_player_next(player), 0);
	ck_assert_int_eq(copy_at(copy, 21), 'd');
	ck_assert_int_eq(copy_at(copy, 40), 0);
	crash_disk_lose_power(copy, CRASH_FATE_LOSE_ALL, 1);
	ck_assert_int_eq(copy_at(copy, 4), 'b');
	ck_assert_int_eq(copy_at(copy, 21), 0);
	crash_player_destroy(player);
	crash_tape_destroy(tape);
	crash_disk_destroy(copy);
	crash_disk_destroy(disk);
}
END_TEST

/* Whatever was on the other disk before, and however it was changed since the last time. */
START_TEST(remains_made_beside_a_disk_are_what_a_power_cut_leaves_of_it)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 5, .max_delay_us = 30 };
	struct crash_disk *remains = crash_disk_create(&opts), *same = crash_disk_create(&opts);
	struct crash_player *player;
	uint64_t hash, before, nr_same = 0;

	disk = crash_disk_create(&opts);
	copy = crash_disk_create(&opts);
	run_sim(1, 1, recorded, NULL);
	player = crash_player_create(tape, copy);
	crash_disk_remains(remains, copy, CRASH_FATE_KEEP_ALL, 1, &before);
	while (crash_player_next(player)) {
		crash_disk_capture(copy);
		for (uint64_t seed = 0; seed < 50; seed++) {
			crash_disk_remains(remains, copy, CRASH_FATE_SEEDED, seed, &hash);
			crash_disk_copy(same, copy);
			crash_disk_lose_power(same, CRASH_FATE_SEEDED, seed);
			ck_assert_mem_eq(crash_disk_image(remains), crash_disk_image(same), NR_BLOCKS * BS);
			nr_same += hash == before;
			before = hash;
			crash_disk_poke(remains, seed * 3 % NR_BLOCKS * BS, "changed", 7);
		}
		crash_disk_release(copy);
	}
	ck_assert_uint_gt(nr_same, 0); /* equal images hash alike, and others do not */
	ck_assert_uint_lt(nr_same, 200);
	crash_player_destroy(player);
	crash_tape_destroy(tape);
	crash_disk_destroy(remains);
	crash_disk_destroy(same);
	crash_disk_destroy(copy);
	crash_disk_destroy(disk);
}
END_TEST

static int nth_rc[4];

static void nth(void *arg)
{
	char buf[BS] = "x";

	attach();
	crash_disk_fail_nth(disk, 3, 1);
	for (unsigned i = 0; i < 4; i++)
		nth_rc[i] = bdev_write(ch, buf, i, 1, 0);
	ck_assert(crash_disk_has_failed(disk));
	detach();
}

START_TEST(the_operation_that_was_named_fails_and_no_other)
{
	const struct crash_disk_opts opts = { .nr_blocks = NR_BLOCKS, .block_size = BS, .seed = 5 };

	disk = crash_disk_create(&opts);
	run_sim(1, 1, nth, NULL);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(nth_rc[i], i == 2 ? -EIO : 0);
	crash_disk_destroy(disk);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_was_flushed_or_fua_stays_and_the_rest_may_go,
		writes_are_reordered_and_torn_only_at_atomic_units,
		a_power_cut_leaves_the_write_in_flight_torn_and_nothing_after_it,
		a_forked_child_can_die_and_another_look_at_the_remains,
		errors_come_by_chance_and_seed,
		a_full_cache_writes_its_oldest_back_by_itself,
		images_from_a_write_log_keep_what_was_durable_at_the_cut,
		a_player_does_again_what_was_recorded_event_by_event,
		remains_made_beside_a_disk_are_what_a_power_cut_leaves_of_it,
		the_operation_that_was_named_fails_and_no_other,
	};

	return run_suite("crash", tests, sizeof(tests) / sizeof(tests[0]));
}
