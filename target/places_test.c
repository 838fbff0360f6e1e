/* Folders of processes that live, have ended, or are known under another number. */
#include <check.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/suite.h"
#include "target/places.h"

static char base[64];

static void make_base(void)
{
	strcpy(base, "/tmp/places_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(base));
}

static void remove_base(void)
{
	places_remove_dir(base);
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/* Another process with a folder of its own, until it is ended. */
struct other {
	pid_t pid;
	char dir[256];
};

static void other_start(struct other *other)
{
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	other->pid = fork();
	ck_assert_int_ge(other->pid, 0);
	if (other->pid == 0) {
		char dir[sizeof(other->dir)] = "";

		if (places_own_dir(base, dir, sizeof(dir)) || write(fds[1], dir, sizeof(dir)) != sizeof(dir))
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(fds[0], other->dir, sizeof(other->dir)), sizeof(other->dir));
	close(fds[0]);
	close(fds[1]);
}

static void other_kill(struct other *other)
{
	kill(other->pid, SIGKILL);
	ck_assert_int_eq(waitpid(other->pid, NULL, 0), other->pid);
}

START_TEST(the_folder_of_a_killed_process_is_removed_by_the_next)
{
	struct other other;
	char path[300], dir[256];
	FILE *file;

	other_start(&other);
	snprintf(path, sizeof(path), "%s/config", other.dir);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fclose(file);
	other_kill(&other);
	ck_assert(exists(path));
	ck_assert_int_eq(places_own_dir(base, dir, sizeof(dir)), 0);
	ck_assert(!exists(other.dir));
	ck_assert(exists(dir));
}
END_TEST

/* As a container sees the processes of another: by a number that nobody has, or somebody else. */
START_TEST(a_living_process_of_another_pid_namespace_keeps_its_folder)
{
	struct other gone, same;
	char unknown[256], namesake[256], dir[256];

	other_start(&gone);
	other_start(&same);
	snprintf(unknown, sizeof(unknown), "%s/999999999.aaaaaa", base);
	ck_assert_int_eq(rename(gone.dir, unknown), 0);
	snprintf(namesake, sizeof(namesake), "%s/%ld.aaaaaa", base, (long)getpid());
	ck_assert_int_eq(rename(same.dir, namesake), 0);
	ck_assert_int_eq(places_own_dir(base, dir, sizeof(dir)), 0);
	ck_assert(exists(unknown));
	ck_assert(exists(namesake));
	ck_assert_str_ne(dir, namesake);
	other_kill(&gone);
	other_kill(&same);
}
END_TEST

START_TEST(what_is_not_a_daemons_is_left_alone)
{
	char dir[256], path[300];
	static const char *const names[] = { "notes", "12", "12.", "0.abcdef", "12.abcdefg" };

	ck_assert_int_eq(places_own_dir(base, dir, sizeof(dir)), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", base, names[i]);
		ck_assert_int_eq(mkdir(path, 0700), 0);
	}
	ck_assert_int_eq(places_own_dir(base, dir, sizeof(dir)), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", base, names[i]);
		ck_assert(exists(path));
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_folder_of_a_killed_process_is_removed_by_the_next,
		a_living_process_of_another_pid_namespace_keeps_its_folder,
		what_is_not_a_daemons_is_left_alone,
	};

	return run_suite_within("places", tests, sizeof(tests) / sizeof(tests[0]), 60, make_base, remove_base);
}
