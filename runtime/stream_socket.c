/*
 * Streams and listeners that are sockets: bytes by plain non-blocking recvmsg and sendmsg, readiness by a poll in the
 * reactor's ring, or by trying.
 *
 * A socket that had bytes a moment ago is tried again in the following turns: a try in vain costs a fifth of what arming a
 * poll, its wake-up and its completion do.  One that has been found empty too often, or whose reactor goes to sleep, is
 * polled; the poll looks at the socket as it is armed, so nothing is lost in between.
 *
 * A stream is freed when its polls have ended: closing cancels them and the last completion closes the descriptor.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/stream_internal.h"

#define ACCEPTS_PER_TURN   64
/* Turns for which an empty socket is tried before it is polled, when it is the only one; many share them. */
#define TRIES_MAX	   64
#define ACCEPT_BACKOFF_US  100000
#define UNIX_SOCKET_MODE   0660
#define UNIX_RETRY_US	   1000

struct socket_stream {
	struct stream stream;
	int fd;
	bool tcp;
	bool read_armed, write_armed, closing;
	unsigned nr_misses; /* tries in vain since the last that found bytes */
	struct ring_op read_poll, write_poll;
};

static struct socket_stream *to_socket(const struct stream *stream)
{
	return container_of((struct stream *)(uintptr_t)stream, struct socket_stream, stream);
}

/* Addresses. */

static int addr_to_sockaddr(const struct stream_addr *addr, struct sockaddr_storage *sa, socklen_t *ret_len)
{
	memset(sa, 0, sizeof(*sa));
	sa->ss_family = (sa_family_t)addr->family;
	if (addr->family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)sa;

		in->sin_port = htons(addr->port);
		*ret_len = sizeof(*in);
		return inet_pton(AF_INET, addr->host, &in->sin_addr) == 1 ? 0 : -EINVAL;
	}
	if (addr->family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sa;

		in6->sin6_port = htons(addr->port);
		*ret_len = sizeof(*in6);
		return inet_pton(AF_INET6, addr->host, &in6->sin6_addr) == 1 ? 0 : -EINVAL;
	}
	if (addr->family == AF_UNIX) {
		struct sockaddr_un *un = (struct sockaddr_un *)sa;
		size_t len = strnlen(addr->host, sizeof(addr->host));

		if (!len || len >= sizeof(un->sun_path))
			return -EINVAL;
		memcpy(un->sun_path, addr->host, len);
		*ret_len = sizeof(*un);
		return 0;
	}
	return -EAFNOSUPPORT;
}

static void sockaddr_to_addr(const struct sockaddr_storage *sa, struct stream_addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	addr->family = sa->ss_family;
	if (sa->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		inet_ntop(AF_INET, &in->sin_addr, addr->host, sizeof(addr->host));
		addr->port = ntohs(in->sin_port);
	} else if (sa->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;

		inet_ntop(AF_INET6, &in6->sin6_addr, addr->host, sizeof(addr->host));
		addr->port = ntohs(in6->sin6_port);
	} else if (sa->ss_family == AF_UNIX) {
		const struct sockaddr_un *un = (const struct sockaddr_un *)sa;

		snprintf(addr->host, sizeof(addr->host), "%.*s", (int)sizeof(addr->host) - 1, un->sun_path);
	}
}

static void socket_local_addr(const struct stream *stream, struct stream_addr *ret_addr)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);

	getsockname(to_socket(stream)->fd, (struct sockaddr *)&sa, &len);
	sockaddr_to_addr(&sa, ret_addr);
}

static void socket_peer_addr(const struct stream *stream, struct stream_addr *ret_addr)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);

	getpeername(to_socket(stream)->fd, (struct sockaddr *)&sa, &len);
	sockaddr_to_addr(&sa, ret_addr);
}

/* Bytes. */

static size_t iov_len(const struct iovec *iov, unsigned iovcnt)
{
	size_t len = 0;

	for (unsigned i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

static void arm_read(struct socket_stream *sock)
{
	if (sock->read_armed || !sock->stream.thread)
		return;
	sock->read_armed = true;
	ring_poll(&sock->read_poll, sock->fd, POLLIN | POLLRDHUP, false);
}

/* Found empty: tries again next turn while that has paid of late, or else has the socket polled. */
static void found_empty(struct socket_stream *sock)
{
	struct thread *thread = sock->stream.thread;

	if (!thread || sock->read_armed)
		return;
	if (++sock->nr_misses <= TRIES_MAX / (thread->nr_streams_hot + 1))
		stream_try_again(&sock->stream);
	else
		arm_read(sock);
}

static ssize_t socket_recvv(struct stream *stream, const struct iovec *iov, unsigned iovcnt)
{
	struct socket_stream *sock = to_socket(stream);
	ssize_t rc;

	if (iovcnt == 1) {
		rc = recv(sock->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT);
	} else {
		struct msghdr msg = {
			.msg_iov = (struct iovec *)(uintptr_t)iov,
			.msg_iovlen = iovcnt < IOV_MAX ? iovcnt : IOV_MAX,
		};

		rc = recvmsg(sock->fd, &msg, MSG_DONTWAIT);
	}
	if (rc < 0) {
		rc = errno == EINTR ? -EAGAIN : -errno;
		if (rc == -EAGAIN)
			found_empty(sock);
		return rc;
	}
	sock->nr_misses = 0;
	/* TCP gives all it has: a short read has emptied the socket. */
	if (rc && sock->tcp && iovcnt < IOV_MAX && (size_t)rc < iov_len(iov, iovcnt)) {
		stream_drained(stream);
		found_empty(sock);
	}
	return rc;
}

static ssize_t socket_sendv(struct stream *stream, const struct iovec *iov, unsigned iovcnt)
{
	struct socket_stream *sock = to_socket(stream);
	ssize_t rc;

	do {
		if (iovcnt == 1) {
			rc = send(sock->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else {
			struct msghdr msg = {
				.msg_iov = (struct iovec *)(uintptr_t)iov,
				.msg_iovlen = iovcnt < IOV_MAX ? iovcnt : IOV_MAX,
			};

			rc = sendmsg(sock->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		}
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

/* Readiness. */

/* True when the descriptor has been closed, and the stream freed. */
static bool finish_close(struct socket_stream *sock)
{
	if (!sock->closing || sock->read_armed || sock->write_armed)
		return false;
	close(sock->fd);
	free(sock);
	return true;
}

static void finish(struct socket_stream *sock)
{
	if (finish_close(sock))
		return;
	if (!sock->closing && sock->stream.detached && !sock->read_armed && !sock->write_armed)
		stream_detached(&sock->stream);
}

static void read_polled(struct ring_op *op, int res, bool more)
{
	struct socket_stream *sock = container_of(op, struct socket_stream, read_poll);

	sock->read_armed = more;
	if (sock->closing || sock->stream.detached) {
		if (!more)
			finish(sock);
		return;
	}
	/* An error of the poll itself: the socket's next recv says what it is. */
	stream_notify(&sock->stream, STREAM_READABLE);
}

static void write_polled(struct ring_op *op, int res, bool more)
{
	struct socket_stream *sock = container_of(op, struct socket_stream, write_poll);

	sock->write_armed = more;
	if (sock->closing || sock->stream.detached) {
		if (!more)
			finish(sock);
		return;
	}
	stream_notify(&sock->stream, STREAM_WRITABLE);
}

static void socket_attach(struct stream *stream)
{
	struct socket_stream *sock = to_socket(stream);

	stream->detached = NULL;
	sock->nr_misses = TRIES_MAX;
}

static void socket_before_sleep(struct stream *stream)
{
	arm_read(to_socket(stream));
}

static void cancel_polls(struct socket_stream *sock)
{
	if (sock->read_armed)
		ring_poll_cancel(&sock->read_poll);
	if (sock->write_armed)
		ring_poll_cancel(&sock->write_poll);
}

static void socket_detach(struct stream *stream)
{
	struct socket_stream *sock = to_socket(stream);

	cancel_polls(sock);
	finish(sock);
}

static void socket_want_write(struct stream *stream)
{
	struct socket_stream *sock = to_socket(stream);

	if (sock->write_armed)
		return;
	sock->write_armed = true;
	ring_poll(&sock->write_poll, sock->fd, POLLOUT, false);
}

static void socket_shutdown_write(struct stream *stream)
{
	shutdown(to_socket(stream)->fd, SHUT_WR);
}

static void socket_close(struct stream *stream, bool abort)
{
	struct socket_stream *sock = to_socket(stream);

	if (abort) {
		struct linger linger = { .l_onoff = 1 };

		setsockopt(sock->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	} else {
		/* The polls hold the file open for a moment more; the peer should hear of the end now. */
		shutdown(sock->fd, SHUT_WR);
	}
	sock->closing = true;
	cancel_polls(sock);
	finish_close(sock);
}

static void socket_set_buffer_sizes(struct stream *stream, size_t send_bytes, size_t recv_bytes)
{
	int fd = to_socket(stream)->fd, size = (int)(send_bytes > INT_MAX ? INT_MAX : send_bytes);

	if (size)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	size = (int)(recv_bytes > INT_MAX ? INT_MAX : recv_bytes);
	if (size)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static void socket_set_nodelay(struct stream *stream, bool on)
{
	int value = on;

	if (to_socket(stream)->tcp)
		setsockopt(to_socket(stream)->fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value));
}

static int set_priority(int fd, int priority)
{
	return setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority)) ? -errno : 0;
}

static int socket_set_priority(struct stream *stream, int priority)
{
	return set_priority(to_socket(stream)->fd, priority);
}

int stream_socket_check_priority(int priority)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return -errno;
	rc = set_priority(fd, priority);
	close(fd);
	return rc;
}

static const struct stream_ops socket_ops = {
	.recvv = socket_recvv,
	.sendv = socket_sendv,
	.attach = socket_attach,
	.before_sleep = socket_before_sleep,
	.detach = socket_detach,
	.want_write = socket_want_write,
	.shutdown_write = socket_shutdown_write,
	.close = socket_close,
	.local_addr = socket_local_addr,
	.peer_addr = socket_peer_addr,
	.set_buffer_sizes = socket_set_buffer_sizes,
	.set_priority = socket_set_priority,
};

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return !memcmp(&((const struct sockaddr_in *)a)->sin_addr, &((const struct sockaddr_in *)b)->sin_addr,
			       sizeof(struct in_addr));
	return a->ss_family == AF_INET6 &&
	       !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
		       sizeof(struct in6_addr));
}

/*
 * A connection that never leaves the machine meets no congestion; where the system's algorithm is one that paces (BBR), a
 * third of a core would go into its timers.  Reno is always there; a system that does not allow it keeps its own.
 */
static void unpace_local(int fd)
{
	struct sockaddr_storage local = { 0 }, peer = { 0 };
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);

	if (getsockname(fd, (struct sockaddr *)&local, &local_len) || getpeername(fd, (struct sockaddr *)&peer, &peer_len))
		return;
	if (same_host(&local, &peer))
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static struct socket_stream *socket_stream_create(int fd, bool tcp)
{
	struct socket_stream *sock = calloc(1, sizeof(*sock));

	if (!sock)
		return NULL;
	stream_init(&sock->stream, &socket_ops);
	sock->fd = fd;
	sock->tcp = tcp;
	sock->read_poll.done = read_polled;
	sock->write_poll.done = write_polled;
	socket_set_nodelay(&sock->stream, true);
	if (tcp)
		unpace_local(fd);
	return sock;
}

/* Listening. */

struct socket_listener {
	struct stream_listener listener;
	int fd;
	bool armed, closing, accepting, out_of_files;
	struct ring_op poll;
	struct timer again;
};

static void listener_finish(struct socket_listener *listener)
{
	if (!listener->closing || listener->armed || listener->accepting)
		return;
	close(listener->fd);
	free(listener);
}

/* One connection.  0, or -errno: -EAGAIN when there is none. */
static int accept_one(struct socket_listener *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct socket_stream *sock;

	if (fd < 0)
		return -errno;
	sock = socket_stream_create(fd, listener->listener.addr.family != AF_UNIX);
	if (!sock) {
		close(fd);
		return -ENOMEM;
	}
	listener->listener.accepted(listener->listener.arg, &sock->stream);
	return 0;
}

static bool is_shortage(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS;
}

/* Out of something: let connections wait in the kernel for a while; say so once. */
static void accept_shortage(struct socket_listener *listener, int rc)
{
	if (!listener->out_of_files)
		log_warning("%s:%u: cannot accept connections for now: %s", listener->listener.addr.host,
			    listener->listener.addr.port, strerror(-rc));
	listener->out_of_files = true;
	timer_arm(&listener->again, ACCEPT_BACKOFF_US);
}

static void accept_all(void *arg)
{
	struct socket_listener *listener = arg;
	int rc = 0;

	listener->accepting = true;
	for (unsigned i = 0; i < ACCEPTS_PER_TURN && !listener->closing; i++) {
		rc = accept_one(listener);
		if (!rc)
			listener->out_of_files = false;
		/* Anything else is the end of one connection that never was. */
		else if (rc == -EAGAIN || is_shortage(rc))
			break;
	}
	listener->accepting = false;
	if (listener->closing)
		listener_finish(listener);
	else if (is_shortage(rc))
		accept_shortage(listener, rc);
	else if (rc != -EAGAIN)
		timer_arm(&listener->again, 0);
}

static void listener_polled(struct ring_op *op, int res, bool more)
{
	struct socket_listener *listener = container_of(op, struct socket_listener, poll);

	listener->armed = more;
	if (listener->closing) {
		listener_finish(listener);
		return;
	}
	if (!more) {
		listener->armed = true;
		ring_poll(&listener->poll, listener->fd, POLLIN, true);
	}
	if (!timer_armed(&listener->again))
		accept_all(listener);
}

static void socket_listener_close(struct stream_listener *base)
{
	struct socket_listener *listener = container_of(base, struct socket_listener, listener);

	listener->closing = true;
	timer_cancel(&listener->again);
	if (base->addr.family == AF_UNIX)
		unlink(base->addr.host);
	else
		shutdown(listener->fd, SHUT_RDWR); /* nobody is let in while the poll ends */
	if (listener->armed)
		ring_poll_cancel(&listener->poll);
	listener_finish(listener);
}

/* A Unix socket's file outlives a process that was killed: if nobody listens there, it is in the way. */
static void remove_stale(const struct stream_addr *addr, const struct sockaddr *sa, socklen_t len)
{
	struct stat st;
	int fd;

	if (lstat(addr->host, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (connect(fd, sa, len) && errno == ECONNREFUSED)
		unlink(addr->host);
	close(fd);
}

static int bind_and_listen(int fd, const struct stream_addr *addr, int backlog)
{
	struct sockaddr_storage sa;
	int on = 1, rc;
	socklen_t len;

	rc = addr_to_sockaddr(addr, &sa, &len);
	if (rc)
		return rc;
	if (addr->family == AF_UNIX) {
		remove_stale(addr, (struct sockaddr *)&sa, len);
		if (fchmod(fd, UNIX_SOCKET_MODE))
			return -errno;
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	}
	if (addr->family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa, len) || listen(fd, backlog))
		return -errno;
	return 0;
}

int stream_socket_listen(const struct stream_addr *addr, int backlog, struct stream_listener **ret_listener)
{
	struct socket_listener *listener = calloc(1, sizeof(*listener));
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);
	int rc;

	if (!listener)
		return -ENOMEM;
	listener->fd = socket(addr->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener->fd < 0) {
		rc = -errno;
		goto out_free;
	}
	rc = bind_and_listen(listener->fd, addr, backlog);
	if (rc)
		goto out_close;
	listener->listener.addr = *addr;
	if (addr->family != AF_UNIX) {
		getsockname(listener->fd, (struct sockaddr *)&sa, &len);
		sockaddr_to_addr(&sa, &listener->listener.addr);
	}
	listener->listener.thread = thread_running;
	listener->listener.close = socket_listener_close;
	listener->poll.done = listener_polled;
	timer_init(&listener->again, accept_all, listener);
	listener->armed = true;
	ring_poll(&listener->poll, listener->fd, POLLIN, true);
	*ret_listener = &listener->listener;
	return 0;

out_close:
	close(listener->fd);
out_free:
	free(listener);
	return rc;
}

/* Connecting: a poll for POLLOUT and a timer; the fiber goes on when the poll has ended, whichever came first. */
struct connecting {
	struct ring_op poll;
	struct timer timer;
	struct fiber_wait wait;
	bool timed_out;
};

static void connect_polled(struct ring_op *op, int res, bool more)
{
	struct connecting *connecting = container_of(op, struct connecting, poll);

	timer_cancel(&connecting->timer);
	fiber_wake(&connecting->wait, res < 0 ? res : 0);
}

static void connect_timeout(void *arg)
{
	struct connecting *connecting = arg;

	connecting->timed_out = true;
	ring_poll_cancel(&connecting->poll);
}

static fiber_fn int wait_connected(int fd, uint64_t timeout_us)
{
	struct connecting connecting = { .poll.done = connect_polled };
	int rc, error = 0;
	socklen_t len = sizeof(error);

	fiber_wait_init(&connecting.wait);
	timer_init(&connecting.timer, connect_timeout, &connecting);
	ring_poll(&connecting.poll, fd, POLLOUT, false);
	timer_arm(&connecting.timer, timeout_us);
	rc = fiber_wait(&connecting.wait);
	if (rc)
		return connecting.timed_out ? -ETIMEDOUT : rc;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len))
		return -errno;
	return -error;
}

int stream_socket_connect(const struct stream_addr *addr, uint64_t timeout_us, struct stream **ret_stream)
{
	struct socket_stream *sock;
	struct sockaddr_storage sa;
	socklen_t len;
	int fd, rc;

	rc = addr_to_sockaddr(addr, &sa, &len);
	if (rc)
		return rc;
	fd = socket(addr->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = connect(fd, (struct sockaddr *)&sa, len) ? -errno : 0;
	/* A Unix socket says so when its listener's queue is full, and there is nothing to poll for. */
	while (rc == -EAGAIN && timeout_us > UNIX_RETRY_US) {
		fiber_sleep(UNIX_RETRY_US);
		timeout_us -= UNIX_RETRY_US;
		rc = connect(fd, (struct sockaddr *)&sa, len) ? -errno : 0;
	}
	if (rc == -EINPROGRESS)
		rc = wait_connected(fd, timeout_us);
	if (rc)
		goto out_close;
	sock = socket_stream_create(fd, addr->family != AF_UNIX);
	if (!sock) {
		rc = -ENOMEM;
		goto out_close;
	}
	stream_attach(&sock->stream, NULL, NULL);
	*ret_stream = &sock->stream;
	return 0;

out_close:
	close(fd);
	return rc;
}
