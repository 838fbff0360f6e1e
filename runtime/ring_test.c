/* Operations of the ring, on a file, a pipe and an eventfd. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/testing.h"

struct waited_op {
	struct ring_op op;
	struct fiber_wait wait;
};

static void op_done(struct ring_op *op, int res, bool more)
{
	ck_assert(!more);
	ck_assert_ptr_eq(op->thread, thread_current());
	fiber_wake(&((struct waited_op *)op)->wait, res);
}

static void op_init(struct waited_op *waited)
{
	waited->op.done = op_done;
	fiber_wait_init(&waited->wait);
}

static int temporary_file(void)
{
	char path[] = "/tmp/ring_test.XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	unlink(path);
	return fd;
}

static void file_main(void *arg)
{
	struct waited_op op;
	char a[100], b[200], back[300];
	struct iovec iov[2] = { { a, sizeof(a) }, { b, sizeof(b) } }, all = { back, sizeof(back) };
	int fd = temporary_file();

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	op_init(&op);
	ring_writev(&op.op, fd, iov, 2, 50, RWF_DSYNC);
	ck_assert_int_eq(fiber_wait(&op.wait), 300);
	op_init(&op);
	ring_fdatasync(&op.op, fd);
	ck_assert_int_eq(fiber_wait(&op.wait), 0);
	op_init(&op);
	ring_fallocate(&op.op, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 50, 10);
	ck_assert_int_eq(fiber_wait(&op.wait), 0);
	op_init(&op);
	ring_readv(&op.op, fd, &all, 1, 50);
	ck_assert_int_eq(fiber_wait(&op.wait), 300);
	ck_assert_int_eq(back[9], 0);
	ck_assert_int_eq(back[10], 'a');
	ck_assert_int_eq(back[299], 'b');
	op_init(&op);
	ring_readv(&op.op, -1, &all, 1, 0);
	ck_assert_int_eq(fiber_wait(&op.wait), -EBADF);
	close(fd);
	runtime_stop(0);
}

START_TEST(file_operations_complete_with_their_results)
{
	run_real(1, file_main);
}
END_TEST

#define NR_MANY 2000u

static struct ring_op many[NR_MANY];
static unsigned nr_many_done;
static struct fiber_wait *many_over;

static void one_of_many(struct ring_op *op, int res, bool more)
{
	ck_assert_int_eq(res, 1);
	if (++nr_many_done == NR_MANY)
		fiber_wake(many_over, 0);
}

static void many_main(void *arg)
{
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct fiber_wait wait;
	int fd = temporary_file();

	fiber_wait_init(&wait);
	many_over = &wait;
	for (unsigned i = 0; i < NR_MANY; i++) {
		many[i].done = one_of_many;
		ring_writev(&many[i], fd, &iov, 1, i, 0);
		ck_assert_uint_eq(nr_many_done, 0); /* never before the submit returned */
	}
	fiber_wait(&wait);
	close(fd);
	runtime_stop(0);
}

START_TEST(more_operations_than_the_ring_has_entries_all_complete)
{
	run_real(1, many_main);
}
END_TEST

struct watched {
	struct ring_op op;
	struct fiber_wait *wait;
	int fd;
	unsigned nr_events;
	bool over;
};

static void watched_event(struct ring_op *op, int res, bool more)
{
	struct watched *watched = (struct watched *)op;
	uint64_t value;

	watched->over = !more;
	if (res > 0) {
		watched->nr_events++;
		ck_assert_int_eq((int)read(watched->fd, &value, sizeof(value)), (int)sizeof(value));
	} else {
		ck_assert_int_eq(res, -ECANCELED);
	}
	fiber_wake(watched->wait, res);
}

static void watch_main(void *arg)
{
	struct watched watched = { .op.done = watched_event, .fd = eventfd(0, EFD_CLOEXEC) };
	struct fiber_wait wait;
	uint64_t one = 1;

	ring_poll(&watched.op, watched.fd, POLLIN, true);
	for (unsigned i = 1; i <= 3; i++) {
		fiber_wait_init(&wait);
		watched.wait = &wait;
		ck_assert_int_eq((int)write(watched.fd, &one, sizeof(one)), (int)sizeof(one));
		ck_assert_int_eq(fiber_wait(&wait), POLLIN);
		ck_assert_uint_eq(watched.nr_events, i);
		ck_assert(!watched.over);
	}
	fiber_wait_init(&wait);
	watched.wait = &wait;
	ring_poll_cancel(&watched.op);
	ck_assert_int_eq(fiber_wait(&wait), -ECANCELED);
	ck_assert(watched.over);
	close(watched.fd);
	runtime_stop(0);
}

START_TEST(a_multishot_poll_tells_every_event_until_it_is_cancelled)
{
	run_real(1, watch_main);
}
END_TEST

static void no_main(void *arg)
{
	runtime_stop(0);
}

/* In a process that may lock next to nothing: whatever the result, a refusal for want of memory says how to get it. */
static int start_without_locked_memory(int log_fd)
{
	const struct rlimit little = { 16 * 1024, 16 * 1024 };
	struct runtime_opts opts = { .name = "test" };
	int rc;

	dup2(log_fd, STDERR_FILENO);
	if (setrlimit(RLIMIT_MEMLOCK, &little) || (geteuid() == 0 && setresuid(65534, 65534, 65534)))
		return 1;
	rc = runtime_run(&opts, no_main, NULL);
	return rc == 0 ? 0 : rc == -ENOMEM ? 2 : 3;
}

START_TEST(a_limit_of_locked_memory_is_named)
{
	char text[1024] = { 0 };
	int fds[2], status;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(start_without_locked_memory(fds[1]));
	close(fds[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == 0)
		return; /* this kernel does not count rings */
	ck_assert_int_eq(WEXITSTATUS(status), 2);
	ck_assert_int_gt((int)read(fds[0], text, sizeof(text) - 1), 0);
	ck_assert_msg(strstr(text, "ulimit -l") && strstr(text, "16 KiB"), "%s", text);
	close(fds[0]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		file_operations_complete_with_their_results,
		more_operations_than_the_ring_has_entries_all_complete,
		a_multishot_poll_tells_every_event_until_it_is_cancelled,
		a_limit_of_locked_memory_is_named,
	};

	return run_suite("ring", tests, sizeof(tests) / sizeof(tests[0]));
}
