/* Starting: lists of cores, the memory budget, EAL without hugepages, the log's levels. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/budget.h"
#include "runtime/cores.h"
#include "runtime/testing.h"

START_TEST(lists_of_cores_are_read_and_nonsense_is_refused)
{
	static const char *const bad[] = { "", ",", "1,", "-1", "3-1", "a", "1-", "0,0", "1-3,2", "99999", "1 2" };
	unsigned cores[8], nr;

	ck_assert_int_eq(cores_parse("0,2-4", cores, 8, &nr), 0);
	ck_assert_uint_eq(nr, 4);
	ck_assert_uint_eq(cores[0], 0);
	ck_assert_uint_eq(cores[3], 4);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(cores_parse(bad[i], cores, 8, &nr), -EINVAL);
	ck_assert_int_eq(cores_parse("0-8", cores, 8, &nr), -E2BIG);
}
END_TEST

START_TEST(a_budget_that_cannot_be_is_refused)
{
	struct runtime_opts opts = { .eal = true, .no_huge = true };
	struct budget budget;

	opts.mem_mib = 128;
	ck_assert_int_eq(budget_compute(&opts, &budget), 0);
	ck_assert_uint_eq(budget.nr_small, 128 * 1024 / 4 / 8);
	ck_assert_uint_eq(budget.nr_large, 128 * 1024 / 4 / 128);
	opts.nr_small = 100000;
	ck_assert_int_eq(budget_compute(&opts, &budget), -EINVAL);
	opts.nr_small = 100;
	opts.mem_mib = 1u << 30;
	ck_assert_int_eq(budget_compute(&opts, &budget), -ENOMEM);
}
END_TEST

static void eal_main(void *arg)
{
	struct iobuf_stats stats;
	void *buf = dma_alloc(1 << 20, 4096), *small;

	ck_assert_ptr_nonnull(buf);
	ck_assert_uint_eq((uintptr_t)buf % 4096, 0);
	dma_free(buf);
	small = iobuf_get(IOBUF_SMALL, NULL);
	ck_assert_ptr_nonnull(small);
	memset(small, 1, IOBUF_SMALL_SIZE);
	iobuf_put(IOBUF_SMALL, small);
	iobuf_get_stats(&stats);
	ck_assert_uint_eq(stats.nr_small, 1000);
	runtime_stop(5);
}

START_TEST(eal_starts_without_hugepages_in_a_folder_of_its_own)
{
	char dir[] = "/tmp/start_test.XXXXXX", files[64], command[128];
	struct runtime_opts opts = { .name = "test", .eal = true, .no_huge = true, .nr_small = 1000, .nr_large = 10 };
	struct stat st;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	opts.runtime_dir = dir;
	opts.file_prefix = "start-test";
	ck_assert_int_eq(runtime_run(&opts, eal_main, NULL), 5);
	snprintf(files, sizeof(files), "%s/dpdk", dir);
	ck_assert_int_eq(stat(files, &st), 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(log_levels_have_the_names_that_management_uses)
{
	enum log_level level;

	ck_assert_int_eq(log_level_from_name("WARNING", &level), 0);
	ck_assert_int_eq(level, LOG_WARNING);
	ck_assert_str_eq(log_level_name(LOG_DEBUG), "DEBUG");
	ck_assert_int_eq(log_level_from_name("warning", &level), -EINVAL);
	log_set_level(LOG_ERROR);
	ck_assert_int_eq(log_get_level(), LOG_ERROR);
}
END_TEST

START_TEST(a_log_line_is_one_line_whatever_it_says)
{
	char text[256] = { 0 };
	int fds[2], saved = dup(STDERR_FILENO);

	ck_assert_int_eq(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	log_error("name \"%s\"", "a\nb\x1b[31m");
	dup2(saved, STDERR_FILENO);
	ck_assert_int_gt((int)read(fds[0], text, sizeof(text) - 1), 0);
	ck_assert_ptr_nonnull(strstr(text, " ERROR   runtime/start_test.c:"));
	ck_assert_ptr_nonnull(strstr(text, "name \"a?b?[31m\"\n"));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		lists_of_cores_are_read_and_nonsense_is_refused,
		a_budget_that_cannot_be_is_refused,
		eal_starts_without_hugepages_in_a_folder_of_its_own,
		log_levels_have_the_names_that_management_uses,
		a_log_line_is_one_line_whatever_it_says,
	};

	return run_suite("start", tests, sizeof(tests) / sizeof(tests[0]));
}
