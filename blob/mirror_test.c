/*
 * What a process had acknowledged and not flushed when it died alone: the next one has it, but only where the device and
 * what was kept fit each other.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blob/internal.h"
#include "blob/testing.h"
#include "runtime/keep.h"

#define NR_CLUSTERS_WRITTEN 12u
#define CLUSTER_BLOCKS	    (CLUSTER_BYTES / BLOCK)

static char dir[32];
static struct bench bench; /* its disk outlives processes */

static void setup(void)
{
	strcpy(dir, "/tmp/mirror_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(keep_set_folder(dir), 0);
	memset(&bench, 0, sizeof(bench));
}

static void teardown(void)
{
	char command[64];

	crash_disk_destroy(bench.disk);
	ck_assert_int_eq(keep_set_folder(NULL), 0);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void make_store(void *arg)
{
	bench_start(&bench);
	make_blob(&bench, "one", 1 << 20);
	blob_close(store_find_blob(bench.store, "one"));
	bench_close(&bench);
	bdev_unregister_all();
}

static struct blob *open_one(void)
{
	struct blob *blob;

	ck_assert_int_eq(bdev_crash_create("disk", bench.disk, &bench.bdev), 0);
	bench_open(&bench);
	blob = store_find_blob(bench.store, "one");
	ck_assert_ptr_nonnull(blob);
	blob_open(blob);
	return blob;
}

static void write_and_die(void *arg)
{
	struct blob *blob = open_one();
	uint8_t buf[8 * BLOCK];

	for (unsigned i = 0; i < NR_CLUSTERS_WRITTEN; i++) {
		fill_blocks(buf, 8, 0x10 + i);
		if (blob_rw(&bench, blob, BLOB_WRITE, 0, i * CLUSTER_BLOCKS, 8, buf))
			_exit(1);
		/* Some of it durable: what is kept goes on from there. */
		if (i == 3 && blob_rw(&bench, blob, BLOB_FLUSH, 0, 0, 0, NULL))
			_exit(1);
	}
	crash_disk_capture(bench.disk);
	raise(SIGKILL);
}

static void run_then_die(void (*fn)(void *arg))
{
	pid_t pid;
	int status;

	run_sim(1, 1, make_store, NULL);
	pid = fork();
	if (!pid) {
		run_sim(1, 1, fn, NULL);
		_exit(1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
	crash_disk_process_died(bench.disk, 1);
}

static void run_and_die(void)
{
	run_then_die(write_and_die);
}

/* arg: the number of clusters that hold what was written; the others read zero. */
static void look(void *arg)
{
	unsigned nr = *(const unsigned *)arg;
	struct blob *blob = open_one();
	uint8_t buf[8 * BLOCK];

	for (unsigned i = 0; i < NR_CLUSTERS_WRITTEN; i++) {
		ck_assert_int_eq(blob_rw(&bench, blob, BLOB_READ, 0, i * CLUSTER_BLOCKS, 8, buf), 0);
		assert_blocks(buf, 8, i < nr ? 0x10 + i : 0);
	}
	blob_close(blob);
	bench_close(&bench);
	bench_check(&bench);
	bdev_unregister_all();
}

static void assert_written(unsigned nr)
{
	run_sim(1, 1, look, &nr);
}

/* Changes a 64-bit number of what was kept: its header at byte 4096 of the file, page n of the journal at 8192 + n * 4096. */
static void alter(uint64_t offset, uint64_t value)
{
	char command[128];
	FILE *names;
	char path[300];
	FILE *file;

	snprintf(command, sizeof(command), "ls -d %s/*", dir);
	names = popen(command, "r");
	ck_assert_ptr_nonnull(fgets(path, sizeof(path), names));
	ck_assert_int_eq(pclose(names), 0);
	path[strcspn(path, "\n")] = '\0';
	file = fopen(path, "r+b");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fseek(file, (long)offset, SEEK_SET), 0);
	ck_assert_uint_eq(fwrite(&value, sizeof(value), 1, file), 1);
	fclose(file);
}

START_TEST(writes_that_were_not_flushed_outlive_the_process)
{
	run_and_die();
	assert_written(NR_CLUSTERS_WRITTEN);
	/* Durable now: nothing is left to be kept. */
	crash_disk_lose_power(bench.disk, CRASH_FATE_LOSE_ALL, 1);
	assert_written(NR_CLUSTERS_WRITTEN);
}
END_TEST

/* Each sub-block is a record; more than a journal page of them, none durable. */
static void write_all_and_die(void *arg)
{
	struct blob *blob = open_one();
	uint64_t committed = bench.store->journal.committed_seq;
	uint8_t buf[8 * BLOCK];

	for (unsigned i = 0; i < (1 << 20) / sizeof(buf); i++) {
		fill_blocks(buf, 8, 1 + i % 250);
		if (blob_rw(&bench, blob, BLOB_WRITE, 0, i * 8ull, 8, buf))
			_exit(1);
	}
	if (bench.store->journal.committed_seq != committed || bench.store->journal.open_seq == committed)
		_exit(2); /* the test proves nothing */
	crash_disk_capture(bench.disk);
	raise(SIGKILL);
}

static void look_at_all(void *arg)
{
	struct blob *blob = open_one();
	uint8_t buf[8 * BLOCK];

	for (unsigned i = 0; i < (1 << 20) / sizeof(buf); i++) {
		ck_assert_int_eq(blob_rw(&bench, blob, BLOB_READ, 0, i * 8ull, 8, buf), 0);
		assert_blocks(buf, 8, 1 + i % 250);
	}
	blob_close(blob);
	bench_close(&bench);
	bench_check(&bench);
	bdev_unregister_all();
}

START_TEST(whole_journal_pages_that_were_not_flushed_outlive_the_process)
{
	run_then_die(write_all_and_die);
	run_sim(1, 1, look_at_all, NULL);
}
END_TEST

START_TEST(without_kept_memory_only_what_was_flushed_is_there)
{
	run_and_die();
	ck_assert_int_eq(keep_set_folder(NULL), 0);
	assert_written(4);
}
END_TEST

START_TEST(a_device_that_may_have_lost_something_since_is_not_believed_to_have_it)
{
	run_and_die();
	alter(4096 + 8, 99); /* continuity */
	assert_written(4);
}
END_TEST

START_TEST(a_copy_from_before_the_last_commit_is_not_taken_for_the_same_device)
{
	run_and_die();
	alter(4096 + 24, 1000); /* committed */
	assert_written(4);
}
END_TEST

START_TEST(damaged_records_are_not_applied)
{
	run_and_die();
	for (unsigned i = 0; i < 8; i++)
		alter(8192 + i * 4096 + 64, 0x5555555555555555ull);
	assert_written(4);
}
END_TEST

static void open_fails(void *arg)
{
	struct blob_reason why;

	ck_assert_int_eq(bdev_crash_create("disk", bench.disk, &bench.bdev), 0);
	crash_disk_set_faults(bench.disk, 0, 0, 1000000);
	ck_assert_int_eq(store_open("disk", NULL, &bench.store, &why), -EIO);
	crash_disk_set_faults(bench.disk, 0, 0, 0);
	bdev_unregister_all();
}

START_TEST(after_a_flush_that_failed_the_next_one_proves_nothing)
{
	run_and_die();
	run_sim(1, 1, open_fails, NULL);
	assert_written(4);
}
END_TEST

static void close_after_writing(void *arg)
{
	struct blob *blob = open_one();
	uint8_t buf[8 * BLOCK];

	fill_blocks(buf, 8, 1);
	ck_assert_int_eq(blob_rw(&bench, blob, BLOB_WRITE, 0, 0, 8, buf), 0);
	blob_close(blob);
	bench_close(&bench);
	bdev_unregister_all();
}

START_TEST(a_store_closed_in_order_leaves_nothing_behind)
{
	char command[64];

	run_sim(1, 1, make_store, NULL);
	run_sim(1, 1, close_after_writing, NULL);
	snprintf(command, sizeof(command), "test -z \"$(ls %s)\"", dir);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		writes_that_were_not_flushed_outlive_the_process,
		whole_journal_pages_that_were_not_flushed_outlive_the_process,
		without_kept_memory_only_what_was_flushed_is_there,
		a_device_that_may_have_lost_something_since_is_not_believed_to_have_it,
		a_copy_from_before_the_last_commit_is_not_taken_for_the_same_device,
		damaged_records_are_not_applied,
		after_a_flush_that_failed_the_next_one_proves_nothing,
		a_store_closed_in_order_leaves_nothing_behind,
	};

	return run_suite_within("mirror", tests, sizeof(tests) / sizeof(tests[0]), 120, setup, teardown);
}
