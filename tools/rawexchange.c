/*
 * The most that the kernel's TCP gives here: two processes exchange messages of NVMe/TCP's sizes over
 * loopback, with no NVMe in them.  A reader sends 72 bytes for a header and a block of data; a writer sends
 * 72 bytes and a block for a header.
 *
 * Each process has a core and polls; it takes all that its socket has and answers with one send, as target
 * and host do.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_BYTES  72u
#define RESPONSE_BYTES 24u
#define IN_BYTES       (512u * 1024)
#define OUT_IOVS       512u

static struct {
	unsigned depth, size, seconds;
	int server_core, client_core, buffer_bytes;
	bool write, json;
	const char *congestion;
} opts = {.depth = 128,
	  .size = 4096,
	  .seconds = 3,
	  .server_core = 0,
	  .client_core = 1,
	  .buffer_bytes = 2 << 20,
	  .congestion = "reno"};

/* One direction's other end: how much of a message is here, and how many are to be sent. */
struct end {
	int fd;
	uint8_t *in;
	size_t msg_in_bytes, have;
	struct iovec msg[2]; /* one message that goes out: header, data */
	unsigned msg_iovs;
	struct iovec out[OUT_IOVS];
	unsigned first, count;
	uint64_t due;
};

static void die(const char *what)
{
	fprintf(stderr, "rawexchange: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void pin(int core)
{
	cpu_set_t set;

	if (core < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot pin to the core (--server-core and --client-core name them)");
}

static void end_init(struct end *e, int fd, size_t msg_in_bytes, size_t msg_out_bytes, size_t head_bytes)
{
	int one = 1;

	*e = (struct end){.fd = fd, .msg_in_bytes = msg_in_bytes};
	e->in = malloc(IN_BYTES);
	e->msg[0] = (struct iovec){calloc(1, head_bytes), head_bytes};
	e->msg_iovs = 1;
	if (msg_out_bytes > head_bytes) {
		e->msg[1] = (struct iovec){calloc(1, msg_out_bytes - head_bytes), msg_out_bytes - head_bytes};
		e->msg_iovs = 2;
	}
	if (!e->in || !e->msg[0].iov_base || (e->msg_iovs == 2 && !e->msg[1].iov_base))
		die("memory");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (opts.congestion &&
	    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, opts.congestion, (socklen_t)strlen(opts.congestion)))
		die("--congestion: sysctl net.ipv4.tcp_available_congestion_control lists them");
	if (opts.buffer_bytes) {
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &opts.buffer_bytes, sizeof(opts.buffer_bytes));
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &opts.buffer_bytes, sizeof(opts.buffer_bytes));
	}
}

/* Whole messages that have come; -1 at the end. */
static int64_t take(struct end *e)
{
	ssize_t n = recv(e->fd, e->in, IN_BYTES, MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		return -1;
	if (n < 0)
		return 0;
	e->have += (size_t)n;
	int64_t whole = (int64_t)(e->have / e->msg_in_bytes);

	e->have %= e->msg_in_bytes;
	return whole;
}

static int give(struct end *e)
{
	while (e->due || e->count) {
		if (!e->count) {
			e->first = 0;
			for (; e->due && e->count + e->msg_iovs <= OUT_IOVS; e->due--) {
				memcpy(e->out + e->count, e->msg, e->msg_iovs * sizeof(e->msg[0]));
				e->count += e->msg_iovs;
			}
		}
		struct msghdr msg = {.msg_iov = e->out + e->first, .msg_iovlen = e->count - e->first};
		ssize_t n = sendmsg(e->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		while (n > 0) {
			struct iovec *iov = &e->out[e->first];
			size_t take_bytes = (size_t)n < iov->iov_len ? (size_t)n : iov->iov_len;

			iov->iov_base = (uint8_t *)iov->iov_base + take_bytes;
			iov->iov_len -= take_bytes;
			n -= (ssize_t)take_bytes;
			if (!iov->iov_len)
				e->first++;
		}
		if (e->first == e->count)
			e->count = 0;
	}
	return 0;
}

static void serve(int fd)
{
	struct end e;
	size_t in = REQUEST_BYTES + (opts.write ? opts.size : 0);
	size_t out = RESPONSE_BYTES + (opts.write ? 0 : opts.size);
	int64_t n;

	end_init(&e, fd, in, out, RESPONSE_BYTES);
	while ((n = take(&e)) >= 0) {
		e.due += (uint64_t)n;
		if (give(&e))
			break;
	}
}

static uint64_t exchange(int fd, double *ret_seconds)
{
	struct end e;
	size_t in = RESPONSE_BYTES + (opts.write ? 0 : opts.size);
	size_t out = REQUEST_BYTES + (opts.write ? opts.size : 0);
	double begin = now_s(), end = begin + opts.seconds, now = begin;
	uint64_t total = 0;

	end_init(&e, fd, in, out, REQUEST_BYTES);
	e.due = opts.depth;
	for (unsigned turn = 0; now < end; turn++) {
		if (give(&e))
			die("send");
		int64_t n = take(&e);

		if (n < 0)
			die("the other process ended");
		total += (uint64_t)n;
		e.due += (uint64_t)n;
		if (turn % 64 == 0)
			now = now_s();
	}
	*ret_seconds = now_s() - begin;
	return total;
}

static void usage(FILE *to)
{
	fprintf(to, "usage: rawexchange [--qd N] [--size BYTES] [--write] [--time SECONDS] [--server-core N] "
		    "[--client-core N] \n"
		    "       [--buffer BYTES] [--congestion NAME] [--json]\n"
		    "Exchanges messages of NVMe/TCP's sizes between two processes over loopback: the limit "
		    "for a target's numbers.\n"
		    "A core of -1 leaves that process unpinned; --buffer is of the sockets (2 MiB; 0: as the "
		    "kernel likes), --congestion\n"
		    "the algorithm (reno, which our connections use within a machine; bbr paces and is half "
		    "as fast there).\n");
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"qd", 1, NULL, 'q'},
		{"size", 1, NULL, 's'},
		{"write", 0, NULL, 'w'},
		{"time", 1, NULL, 't'},
		{"server-core", 1, NULL, 'S'},
		{"client-core", 1, NULL, 'C'},
		{"buffer", 1, NULL, 'b'},
		{"congestion", 1, NULL, 'c'},
		{"json", 0, NULL, 'j'},
		{"help", 0, NULL, 'h'},
		{0},
	};

	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		switch (c) {
		case 'q':
			opts.depth = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 's':
			opts.size = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'w':
			opts.write = true;
			break;
		case 't':
			opts.seconds = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'S':
			opts.server_core = atoi(optarg);
			break;
		case 'C':
			opts.client_core = atoi(optarg);
			break;
		case 'b':
			opts.buffer_bytes = atoi(optarg);
			break;
		case 'c':
			opts.congestion = optarg;
			break;
		case 'j':
			opts.json = true;
			break;
		default:
			usage(c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
	if (!opts.depth || !opts.seconds || opts.size > 16u << 20) {
		usage(stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t addr_len = sizeof(addr);
	struct rusage usage_server;
	double seconds;

	parse(argc, argv);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, (void *)&addr, addr_len) || listen(listener, 1) ||
	    getsockname(listener, (void *)&addr, &addr_len))
		die("listening on loopback");
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(opts.server_core);
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			die("accept");
		serve(fd);
		_exit(0);
	}
	pin(opts.client_core);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (void *)&addr, addr_len))
		die("connect");
	uint64_t total = exchange(fd, &seconds);

	close(fd);
	wait4(child, NULL, 0, &usage_server);
	double rate = (double)total / seconds;
	double cpu_s = (double)(usage_server.ru_utime.tv_sec + usage_server.ru_stime.tv_sec) +
		       (double)(usage_server.ru_utime.tv_usec + usage_server.ru_stime.tv_usec) * 1e-6;

	if (opts.json)
		printf("{\"iops\": %.0f, \"mib_s\": %.1f, \"avg_us\": %.2f, \"server_cpu_us_per_io\": "
		       "%.3f}\n",
		       rate, rate * opts.size / 1048576, 1e6 * opts.depth / rate,
		       total ? cpu_s * 1e6 / (double)total : 0);
	else
		printf("%s %u bytes, depth %u: %.0f exchanges/s, %.1f MiB/s, %.2f us each\n",
		       opts.write ? "write" : "read", opts.size, opts.depth, rate, rate * opts.size / 1048576,
		       1e6 * opts.depth / rate);
	return 0;
}
