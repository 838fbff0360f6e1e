/* Streams, over real sockets and over simulated pipes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/testing.h"

#define TRANSFER_BYTES (1u * 1024 * 1024 + 17)

/* A stream as a fiber likes it: calls that wait. */
struct pipe_end {
	struct stream *stream;
	struct fiber_wait *reader, *writer;
};

static void end_ready(void *arg, unsigned events)
{
	struct pipe_end *end = arg;
	struct fiber_wait *wait;

	if ((events & STREAM_READABLE) && end->reader) {
		wait = end->reader;
		end->reader = NULL;
		fiber_wake(wait, 0);
	}
	if ((events & STREAM_WRITABLE) && end->writer) {
		wait = end->writer;
		end->writer = NULL;
		fiber_wake(wait, 0);
	}
	stream_pause(end->stream, !end->reader);
}

static fiber_fn ssize_t end_recv(struct pipe_end *end, void *buf, size_t len)
{
	struct fiber_wait wait;
	ssize_t n;

	while ((n = stream_recv(end->stream, buf, len)) == -EAGAIN) {
		fiber_wait_init(&wait);
		end->reader = &wait;
		stream_pause(end->stream, false);
		fiber_wait(&wait);
	}
	return n;
}

static fiber_fn int end_send(struct pipe_end *end, const void *buf, size_t len)
{
	struct fiber_wait wait;

	while (len) {
		/* Two pieces, to use the vector. */
		struct iovec iov[2] = { { (void *)(uintptr_t)buf, len / 2 }, { (char *)(uintptr_t)buf + len / 2, len - len / 2 } };
		ssize_t n = stream_sendv(end->stream, iov, 2);

		if (n == -EAGAIN) {
			fiber_wait_init(&wait);
			end->writer = &wait;
			stream_want_write(end->stream);
			fiber_wait(&wait);
			continue;
		}
		if (n < 0)
			return (int)n;
		buf = (const char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

static struct thread *server_thread;
static struct stream_listener *listener;
static struct stream_addr address;
static struct fiber_wait *server_over;
static unsigned nr_servers;

static void echo_fiber(void *arg)
{
	struct pipe_end end = { .stream = arg };
	char buf[10000];
	ssize_t n;

	stream_attach(end.stream, end_ready, &end);
	while ((n = end_recv(&end, buf, sizeof(buf))) > 0) {
		if (end_send(&end, buf, (size_t)n))
			break;
	}
	stream_close(end.stream, false);
	if (!--nr_servers)
		fiber_wake(server_over, (int)n);
}

static void accepted(void *arg, struct stream *stream)
{
	ck_assert_int_eq(fiber_spawn(server_thread, "echo", echo_fiber, stream), 0);
}

static void connect_to_server(struct pipe_end *end)
{
	*end = (struct pipe_end){ 0 };
	ck_assert_int_eq(stream_connect(&address, 1000000, &end->stream), 0);
	stream_set_ready(end->stream, end_ready, end);
}

static const char *unix_path;

static void start_server(struct fiber_wait *wait)
{
	struct stream_addr addr = { .host = "127.0.0.1", .family = AF_INET };

	if (unix_path) {
		addr = (struct stream_addr){ .family = AF_UNIX };
		snprintf(addr.host, sizeof(addr.host), "%s", unix_path);
	}
	server_thread = thread_create("server", runtime_nr_reactors() - 1);
	ck_assert_int_eq(stream_listen(&addr, 16, accepted, NULL, &listener), 0);
	stream_listener_addr(listener, &address);
	fiber_wait_init(wait);
	server_over = wait;
	nr_servers = 1;
}

static void stop_server(struct fiber_wait *wait)
{
	fiber_wait(wait);
	stream_listener_close(listener);
	thread_exit(server_thread);
	runtime_stop(0);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7);
}

static void send_pattern(void *arg)
{
	struct pipe_end *end = arg;
	uint8_t buf[30000];

	for (size_t sent = 0; sent < TRANSFER_BYTES;) {
		size_t len = TRANSFER_BYTES - sent < sizeof(buf) ? TRANSFER_BYTES - sent : sizeof(buf);

		for (size_t i = 0; i < len; i++)
			buf[i] = pattern(sent + i);
		ck_assert_int_eq(end_send(end, buf, len), 0);
		sent += len;
	}
	stream_shutdown_write(end->stream);
}

static void transfer_main(void *arg)
{
	struct pipe_end end;
	struct fiber_wait wait;
	uint8_t buf[20000];
	size_t got = 0;
	ssize_t n;

	start_server(&wait);
	connect_to_server(&end);
	fiber_spawn(thread_current(), "sender", send_pattern, &end);
	while ((n = end_recv(&end, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] != pattern(got + (size_t)i))
				ck_abort_msg("byte %zu is wrong", got + (size_t)i);
		}
		got += (size_t)n;
	}
	ck_assert_int_eq(n, 0);
	ck_assert_uint_eq(got, TRANSFER_BYTES);
	stream_close(end.stream, false);
	stop_server(&wait);
}

START_TEST(bytes_arrive_whole_and_in_order_and_the_end_after_them)
{
	run_real(1, transfer_main);
	run_real(2, transfer_main);
	run_sim(2, 10, transfer_main);
}
END_TEST

START_TEST(unix_sockets_do_the_same)
{
	char dir[] = "/tmp/stream_test.XXXXXX", path[64];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	unix_path = path;
	run_real(2, transfer_main);
	run_real(1, transfer_main);
	ck_assert_int_eq(rmdir(dir), 0); /* closing the listener has removed the socket */
	run_sim(2, 5, transfer_main);
}
END_TEST

static void abort_main(void *arg)
{
	struct pipe_end end;
	struct fiber_wait wait;
	char byte = 'x';

	start_server(&wait);
	connect_to_server(&end);
	ck_assert_int_eq(end_send(&end, &byte, 1), 0);
	ck_assert_int_eq((int)end_recv(&end, &byte, 1), 1);
	stream_close(end.stream, true);
	ck_assert_int_eq(fiber_wait(&wait), -ECONNRESET);
	stop_server(&wait);
}

START_TEST(an_abort_is_a_reset_to_the_peer)
{
	run_real(1, abort_main);
	run_sim(1, 50, abort_main);
}
END_TEST

static void close_early_main(void *arg)
{
	struct fiber_wait wait;
	char buf[100];

	start_server(&wait);
	nr_servers = 20;
	for (int i = 0; i < 20; i++) {
		struct pipe_end end;

		connect_to_server(&end);
		ck_assert_int_eq(end_send(&end, "x", 1), 0);
		/* Less than there is room for: the stream is about to be tried again. */
		ck_assert_int_eq((int)end_recv(&end, buf, sizeof(buf)), 1);
		stream_close(end.stream, false);
	}
	stop_server(&wait);
}

START_TEST(a_stream_may_be_closed_right_after_a_short_read)
{
	run_real(1, close_early_main);
	run_sim(2, 20, close_early_main);
}
END_TEST

static void no_callback(void *arg, unsigned events)
{
	ck_abort_msg("a callback after the close");
}

static void close_main(void *arg)
{
	struct pipe_end end;
	struct fiber_wait wait;

	start_server(&wait);
	connect_to_server(&end);
	ck_assert_int_eq(end_send(&end, "hello", 5), 0);
	fiber_sleep(2000);
	stream_set_ready(end.stream, no_callback, NULL);
	stream_close(end.stream, false);
	stop_server(&wait);
}

START_TEST(no_callback_comes_after_a_close)
{
	run_real(2, close_main);
	run_sim(2, 100, close_main);
}
END_TEST

static void refused_main(void *arg)
{
	struct stream_addr addr = { .host = "127.0.0.1", .family = AF_INET }, bad = { .host = "here", .family = AF_INET };
	struct stream *stream;

	if (!sim_active())
		ck_assert_int_eq(stream_connect(&bad, 1000000, &stream), -EINVAL);
	ck_assert_int_eq(stream_listen(&addr, 1, accepted, NULL, &listener), 0);
	stream_listener_addr(listener, &addr);
	ck_assert_uint_ne(addr.port, 0);
	stream_listener_close(listener);
	fiber_sleep(2000);
	ck_assert_int_eq(stream_connect(&addr, 1000000, &stream), -ECONNREFUSED);
	runtime_stop(0);
}

START_TEST(a_closed_listener_refuses)
{
	run_real(1, refused_main);
	run_sim(1, 20, refused_main);
}
END_TEST

/* A stream changes threads while bytes are on their way: none is lost, and the new thread hears of them. */
static struct thread *movers[2];
static struct stream *moving;
static unsigned nr_moves;
static struct fiber_wait *move_over;
static size_t nr_moved_bytes;

static void moved(void *arg);

static void detached(void *arg)
{
	nr_moves++;
	thread_send(movers[nr_moves % 2], moved, NULL);
}

static void moving_ready(void *arg, unsigned events)
{
	char buf[100];
	ssize_t n = stream_recv(moving, buf, sizeof(buf));

	ck_assert_ptr_eq(thread_current(), movers[nr_moves % 2]);
	if (n > 0)
		nr_moved_bytes += (size_t)n;
	if (n == 0) {
		stream_close(moving, false);
		fiber_wake(move_over, 0);
	} else if (nr_moves < 20) {
		stream_detach(moving, detached, NULL);
	}
}

static void moved(void *arg)
{
	stream_attach(moving, moving_ready, NULL);
}

static void accept_mover(void *arg, struct stream *stream)
{
	moving = stream;
	thread_send(movers[0], moved, NULL);
}

static void move_main(void *arg)
{
	struct stream_addr addr = { .host = "::1", .family = AF_INET6 };
	struct pipe_end end;
	struct fiber_wait wait;

	nr_moves = 0;
	nr_moved_bytes = 0;
	movers[0] = thread_create("mover", 0);
	movers[1] = thread_create("mover", runtime_nr_reactors() - 1);
	if (stream_listen(&addr, 1, accept_mover, NULL, &listener)) {
		/* A machine without IPv6. */
		snprintf(addr.host, sizeof(addr.host), "127.0.0.1");
		addr.family = AF_INET;
		ck_assert_int_eq(stream_listen(&addr, 1, accept_mover, NULL, &listener), 0);
	}
	stream_listener_addr(listener, &address);
	fiber_wait_init(&wait);
	move_over = &wait;
	connect_to_server(&end);
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(end_send(&end, "0123456789", 10), 0);
		if (i % 10 == 0)
			fiber_sleep(200);
	}
	stream_shutdown_write(end.stream);
	fiber_wait(&wait);
	ck_assert_uint_eq(nr_moved_bytes, 1000);
	stream_close(end.stream, false);
	stream_listener_close(listener);
	thread_exit(movers[0]);
	thread_exit(movers[1]);
	runtime_stop(0);
}

START_TEST(a_stream_can_change_threads_under_traffic)
{
	run_real(2, move_main);
	run_sim(2, 50, move_main);
}
END_TEST

static unsigned nr_fds_taken;
static int taken[64];

static void starve_main(void *arg)
{
	struct rlimit limit = { 64, 64 };
	struct pipe_end end;
	struct fiber_wait wait;
	char byte = 'x';

	start_server(&wait);
	setrlimit(RLIMIT_NOFILE, &limit);
	while (nr_fds_taken < 64 && (taken[nr_fds_taken] = dup(0)) >= 0)
		nr_fds_taken++;
	close(taken[--nr_fds_taken]); /* one is left, for the client's end */
	connect_to_server(&end);
	fiber_sleep(20000);
	while (nr_fds_taken)
		close(taken[--nr_fds_taken]);
	/* The listener has not died of it. */
	ck_assert_int_eq(end_send(&end, &byte, 1), 0);
	ck_assert_int_eq((int)end_recv(&end, &byte, 1), 1);
	stream_close(end.stream, false);
	stop_server(&wait);
}

START_TEST(connections_wait_while_the_process_is_out_of_files)
{
	run_real(1, starve_main);
}
END_TEST

/* With resets: every wait ends, whatever breaks. */
static void reset_main(void *arg)
{
	struct pipe_end end;
	struct fiber_wait wait;
	char buf[1000] = { 0 };

	start_server(&wait);
	connect_to_server(&end);
	for (int i = 0; i < 200; i++) {
		ssize_t n = end_send(&end, buf, sizeof(buf));

		for (size_t got = 0; n >= 0 && got < sizeof(buf); got += (size_t)n) {
			n = end_recv(&end, buf, sizeof(buf) - got);
			if (n <= 0)
				break;
		}
		if (n <= 0) {
			stream_close(end.stream, i % 2);
			fiber_wait(&wait);
			fiber_wait_init(&wait);
			nr_servers = 1;
			connect_to_server(&end);
		}
	}
	stream_close(end.stream, false);
	stop_server(&wait);
}

START_TEST(simulated_resets_end_every_wait)
{
	for (unsigned seed = 1; seed <= 100; seed++) {
		struct sim_opts opts = { .seed = seed, .nr_reactors = 2, .reset_ppm = 5000, .max_delay_us = 100 };

		ck_assert_int_eq(sim_run(&opts, reset_main, NULL), 0);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		bytes_arrive_whole_and_in_order_and_the_end_after_them,
		unix_sockets_do_the_same,
		an_abort_is_a_reset_to_the_peer,
		a_stream_may_be_closed_right_after_a_short_read,
		no_callback_comes_after_a_close,
		a_closed_listener_refuses,
		a_stream_can_change_threads_under_traffic,
		connections_wait_while_the_process_is_out_of_files,
		simulated_resets_end_every_wait,
	};

	return run_suite("stream", tests, sizeof(tests) / sizeof(tests[0]));
}
