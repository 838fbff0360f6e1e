/* Kept memory: found again by the next who opens it, and by nobody else's, nor after another boot. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/keep.h"
#include "runtime/testing.h"

#define BYTES 20000u

static char dir[32];

static void folder_make(void)
{
	strcpy(dir, "/tmp/keep_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(keep_set_folder(dir), 0);
}

static void folder_remove(void)
{
	char command[64];

	ck_assert_int_eq(keep_set_folder(NULL), 0);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void assert_byte(const struct keep *k, bool found, uint8_t value)
{
	ck_assert_int_eq(k->found, found);
	for (size_t i = 0; i < k->bytes; i++)
		ck_assert_uint_eq(((uint8_t *)k->mem)[i], value);
}

START_TEST(what_a_killed_process_stored_is_found_by_the_next)
{
	struct keep k;
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (keep_open(&k, "a", BYTES) || k.found)
			_exit(1);
		memset(k.mem, 7, BYTES);
		raise(SIGKILL);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(keep_open(&k, "a", BYTES), 0);
	assert_byte(&k, true, 7);
	keep_close(&k, true);
	ck_assert_int_eq(keep_open(&k, "a", BYTES), 0);
	assert_byte(&k, false, 0);
	keep_close(&k, false);
}
END_TEST

START_TEST(another_size_or_another_boot_shows_nothing_of_it)
{
	char path[64];
	struct keep k;
	int fd;

	ck_assert_int_eq(keep_open(&k, "a", BYTES), 0);
	memset(k.mem, 7, BYTES);
	keep_close(&k, false);
	ck_assert_int_eq(keep_open(&k, "a", BYTES + 1), 0);
	assert_byte(&k, false, 0);
	memset(k.mem, 7, BYTES + 1);
	keep_close(&k, false);
	snprintf(path, sizeof(path), "%s/a", dir);
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "x", 1, 20), 1); /* of the boot's name */
	close(fd);
	ck_assert_int_eq(keep_open(&k, "a", BYTES + 1), 0);
	assert_byte(&k, false, 0);
	keep_close(&k, false);
}
END_TEST

START_TEST(two_cannot_have_it_and_what_is_not_ours_is_refused)
{
	char a[64], b[64];
	struct keep k, other;

	ck_assert_int_eq(keep_open(&k, "a", BYTES), 0);
	ck_assert_int_eq(keep_open(&other, "a", BYTES), -EBUSY);
	keep_close(&k, false);
	ck_assert_int_eq(keep_open(&k, "../a", BYTES), -EINVAL);
	snprintf(a, sizeof(a), "%s/a", dir);
	snprintf(b, sizeof(b), "%s/b", dir);
	ck_assert_int_eq(link(a, b), 0);
	ck_assert_int_eq(keep_open(&k, "b", BYTES), -EPERM);
	unlink(b);
	ck_assert_int_eq(symlink(a, b), 0);
	ck_assert_int_eq(keep_open(&k, "b", BYTES), -ELOOP);
	chmod(dir, 0777);
	ck_assert_int_eq(keep_set_folder(dir), -EPERM);
	ck_assert_int_eq(keep_set_folder(NULL), 0);
	ck_assert_int_eq(keep_open(&k, "a", BYTES), -ENOENT);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_a_killed_process_stored_is_found_by_the_next,
		another_size_or_another_boot_shows_nothing_of_it,
		two_cannot_have_it_and_what_is_not_ours_is_refused,
	};

	return run_suite_within("keep", tests, sizeof(tests) / sizeof(tests[0]), 60, folder_make, folder_remove);
}
