/*
 * The management socket.  Bytes are scanned for the ends of JSON texts as they arrive, each text becomes an exchange, and
 * answers go out in the order in which they are ready.
 *
 * A connection is read only while it has few enough calls under way and few enough bytes waiting to be sent, and a peer that
 * takes no bytes for a minute is closed: so what a slow reader can hold is bounded.
 */
#include "mgmt/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mgmt/exchange.h"
#include "mgmt/json_scan.h"
#include "mgmt/rpc.h"
#include "runtime/runtime.h"

#define MAX_CONNS	 256u
#define READ_SIZE	 (64u * 1024)
#define READS_A_TURN	 16u
#define MAX_RUNNING	 256u
#define MAX_CONN_OUT	 (4u * 1024 * 1024)
#define MAX_TOTAL_OUT	 (256u * 1024 * 1024)
#define SEND_TIMEOUT_US	 (60u * 1000 * 1000)
#define SEND_IOVS	 16
#define KEEP_TEXT_BYTES	 (64u * 1024)

/* Owner: the app thread. */
struct server {
	struct stream_listener *listener;
	char path[108];
	int lock_fd;
	struct list conns;
	unsigned nr_conns;
	size_t out_bytes; /* of all connections */
	bool quiesced;
	struct fiber_cond progress; /* bytes went out, or a connection ended */
};

struct out {
	struct list link;
	char *text;
	size_t len, pos;
};

/* Owner: the app thread.  Freed when the stream is closed and no exchange is under way. */
struct conn {
	struct server *server;
	struct list link;
	struct stream *stream; /* NULL: closed */
	/* what was received and not yet scanned */
	char *in;
	size_t in_pos, in_len;
	/* the text that is growing */
	struct json_scan scan;
	char *text;
	size_t text_len, text_size;
	bool too_long, told_garbage;
	bool readable, at_end;
	unsigned nr_running;
	bool batch; /* a batch is under way: what follows waits for it, so that changes stay in order */
	struct list out;
	size_t out_bytes;
	struct timer send_timeout;
	struct task resume;
	bool resume_queued;
};

static void conn_advance(struct conn *conn);

/* --- the end of a connection ---------------------------------------------------------------------------------------- */

static void drop_output(struct conn *conn)
{
	struct list *e;

	while ((e = list_pop(&conn->out))) {
		struct out *out = list_entry(e, struct out, link);

		free(out->text);
		free(out);
	}
	conn->server->out_bytes -= conn->out_bytes;
	conn->out_bytes = 0;
}

static void conn_close(struct conn *conn)
{
	if (!conn->stream)
		return;
	stream_close(conn->stream, false);
	conn->stream = NULL;
	timer_cancel(&conn->send_timeout);
	drop_output(conn);
	list_del(&conn->link);
	conn->server->nr_conns--;
	fiber_cond_broadcast(&conn->server->progress);
}

static void conn_free_if_over(struct conn *conn)
{
	if (conn->stream || conn->nr_running || conn->resume_queued)
		return;
	free(conn->in);
	free(conn->text);
	free(conn);
}

/* --- sending -------------------------------------------------------------------------------------------------------- */

static void resume_main(void *arg)
{
	struct conn *conn = arg;

	conn->resume_queued = false;
	conn_advance(conn);
	conn_free_if_over(conn);
}

static void conn_resume_later(struct conn *conn)
{
	if (conn->resume_queued)
		return;
	conn->resume_queued = true;
	task_run_later(&conn->resume, resume_main, conn);
}

static void sent(struct conn *conn, size_t len)
{
	struct server *server = conn->server;
	bool was_full = server->out_bytes >= MAX_TOTAL_OUT;
	struct list *e;

	conn->out_bytes -= len;
	server->out_bytes -= len;
	while (len) {
		struct out *out = list_entry(list_first(&conn->out), struct out, link);
		size_t n = len < out->len - out->pos ? len : out->len - out->pos;

		out->pos += n;
		len -= n;
		if (out->pos == out->len) {
			list_del(&out->link);
			free(out->text);
			free(out);
		}
	}
	if (was_full && server->out_bytes < MAX_TOTAL_OUT) {
		list_for_each(e, &server->conns)
			conn_resume_later(list_entry(e, struct conn, link));
	}
	fiber_cond_broadcast(&server->progress);
}

static void conn_send(struct conn *conn)
{
	while (conn->stream && !list_empty(&conn->out)) {
		struct iovec iov[SEND_IOVS];
		unsigned n = 0;
		struct list *e;
		ssize_t rc;

		list_for_each(e, &conn->out) {
			struct out *out = list_entry(e, struct out, link);

			if (n == SEND_IOVS)
				break;
			iov[n++] = (struct iovec){ out->text + out->pos, out->len - out->pos };
		}
		rc = stream_sendv(conn->stream, iov, n);
		if (rc == -EAGAIN) {
			stream_want_write(conn->stream);
			if (!timer_armed(&conn->send_timeout))
				timer_arm(&conn->send_timeout, SEND_TIMEOUT_US);
			return;
		}
		if (rc <= 0) {
			conn_close(conn);
			return;
		}
		timer_cancel(&conn->send_timeout);
		sent(conn, (size_t)rc);
	}
	if (conn->stream)
		timer_cancel(&conn->send_timeout);
}

static void queue_output(struct conn *conn, char *text, size_t len)
{
	struct out *out;

	if (!text || !conn->stream) {
		free(text);
		return;
	}
	out = calloc(1, sizeof(*out));
	if (!out) {
		free(text);
		conn_close(conn);
		return;
	}
	out->text = text;
	out->len = len;
	list_add_tail(&conn->out, &out->link);
	conn->out_bytes += len;
	conn->server->out_bytes += len;
	conn_send(conn);
}

static void send_timed_out(void *arg)
{
	struct conn *conn = arg;

	log_warning("%s: a client has not read for a minute with %zu bytes waiting: closed", conn->server->path,
		    conn->out_bytes);
	conn_close(conn);
	conn_free_if_over(conn);
}

/* --- receiving ------------------------------------------------------------------------------------------------------ */

static void exchange_done(void *arg, char *text, size_t len)
{
	struct conn *conn = arg;

	conn->nr_running--;
	conn->batch = false;
	queue_output(conn, text, len);
	conn_resume_later(conn);
}

static void answer_error(struct conn *conn, int code, const char *message, const char *detail)
{
	size_t len;
	char *text = exchange_error(code, message, detail, &len);

	queue_output(conn, text, len);
}

static void text_ended(struct conn *conn)
{
	const char *why;

	conn->told_garbage = false;
	if (conn->too_long) {
		answer_error(conn, RPC_INVALID_REQUEST, "Invalid request", "the request is longer than 8 MiB");
	} else if (!json_scan_sane(&conn->scan, &why)) {
		answer_error(conn, RPC_INVALID_REQUEST, "Invalid request", why);
	} else {
		conn->nr_running++;
		conn->batch = exchange_submit(conn->text, conn->text_len, exchange_done, conn);
	}
	conn->text_len = 0;
	conn->too_long = false;
	if (conn->text_size > KEEP_TEXT_BYTES) {
		free(conn->text);
		conn->text = NULL;
		conn->text_size = 0;
	}
}

static void text_append(struct conn *conn, const char *buf, size_t len)
{
	if (conn->too_long)
		return;
	if (len > EXCHANGE_MAX_REQUEST - conn->text_len) {
		conn->too_long = true;
		return;
	}
	if (len > conn->text_size - conn->text_len) {
		size_t size = (conn->text_len + len) * 2;
		char *grown = realloc(conn->text, size);

		if (!grown) {
			conn->too_long = true;
			return;
		}
		conn->text = grown;
		conn->text_size = size;
	}
	memcpy(conn->text + conn->text_len, buf, len);
	conn->text_len += len;
}

/* One piece of what was received. */
static void scan_input(struct conn *conn)
{
	const char *buf = conn->in + conn->in_pos;
	enum json_scan_event event;
	size_t n = json_scan(&conn->scan, buf, conn->in_len - conn->in_pos, &event);

	conn->in_pos += n;
	switch (event) {
	case JSON_SCAN_SPACE:
		break;
	case JSON_SCAN_MORE:
		text_append(conn, buf, n);
		break;
	case JSON_SCAN_TEXT:
		text_append(conn, buf, n);
		text_ended(conn);
		break;
	case JSON_SCAN_GARBAGE:
		conn->text_len = 0;
		conn->too_long = false;
		if (!conn->told_garbage)
			answer_error(conn, RPC_PARSE_ERROR, "Parse error", "expected a JSON object");
		conn->told_garbage = true;
		break;
	}
}

static bool may_read(const struct conn *conn)
{
	return conn->stream && !conn->server->quiesced && !conn->batch && conn->nr_running < MAX_RUNNING &&
	       conn->out_bytes < MAX_CONN_OUT && conn->server->out_bytes < MAX_TOTAL_OUT;
}

/* False when there is nothing to be had now. */
static bool receive(struct conn *conn)
{
	ssize_t n;

	if (conn->at_end || !conn->readable)
		return false;
	if (!conn->in)
		conn->in = malloc(READ_SIZE);
	n = conn->in ? stream_recv(conn->stream, conn->in, READ_SIZE) : -ENOMEM;
	if (n == -EAGAIN) {
		conn->readable = false;
		return false;
	}
	if (n < 0) {
		conn_close(conn);
		return false;
	}
	conn->in_pos = 0;
	conn->in_len = (size_t)n;
	if (n == 0) {
		conn->at_end = true;
		if (conn->scan.depth)
			answer_error(conn, RPC_PARSE_ERROR, "Parse error", "the stream ended inside of a request");
		return false;
	}
	return true;
}

static void conn_advance(struct conn *conn)
{
	for (unsigned reads = 0; may_read(conn);) {
		if (conn->in_pos < conn->in_len) {
			scan_input(conn);
			continue;
		}
		if (reads++ == READS_A_TURN) {
			conn_resume_later(conn);
			break;
		}
		if (!receive(conn))
			break;
	}
	if (conn->stream && conn->at_end && conn->in_pos == conn->in_len && !conn->nr_running && list_empty(&conn->out))
		conn_close(conn);
}

static void conn_ready(void *arg, unsigned events)
{
	struct conn *conn = arg;

	if (events & STREAM_WRITABLE)
		conn_send(conn);
	if (events & STREAM_READABLE)
		conn->readable = true;
	if (conn->stream)
		conn_advance(conn);
	conn_free_if_over(conn);
}

/* --- connections come ----------------------------------------------------------------------------------------------- */

static void accepted(void *arg, struct stream *stream)
{
	struct server *server = arg;
	struct conn *conn = server->nr_conns < MAX_CONNS && !server->quiesced ? calloc(1, sizeof(*conn)) : NULL;

	if (!conn) {
		log_warning("%s: refused a connection, %u are open", server->path, server->nr_conns);
		stream_close(stream, false);
		return;
	}
	conn->server = server;
	conn->stream = stream;
	list_init(&conn->out);
	timer_init(&conn->send_timeout, send_timed_out, conn);
	list_add_tail(&server->conns, &conn->link);
	server->nr_conns++;
	stream_attach(stream, conn_ready, conn);
}

static int take_lock(struct server *server)
{
	char path[120];
	int fd;

	snprintf(path, sizeof(path), "%s.lock", server->path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		int rc = -errno;

		log_error("%s: %s", path, strerror(-rc));
		return rc;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		log_error("%s is another daemon's: end it, or give --rpc-socket another path", server->path);
		return -EADDRINUSE;
	}
	server->lock_fd = fd;
	return 0;
}

static int listen_on_path(struct server *server)
{
	struct stream_addr addr = { .family = AF_UNIX };
	struct stat st;
	mode_t old_umask;
	int rc;

	/* Under the lock a socket that stands here is a dead one's; anything else is not ours to remove. */
	if (lstat(server->path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode)) {
			log_error("%s exists and is no socket", server->path);
			return -EEXIST;
		}
		unlink(server->path);
	}
	snprintf(addr.host, sizeof(addr.host), "%s", server->path);
	old_umask = umask(0117);
	rc = stream_listen(&addr, 128, accepted, server, &server->listener);
	umask(old_umask);
	if (rc)
		log_error("cannot listen on %s: %s", server->path, strerror(-rc));
	return rc;
}

int server_start(const char *path, struct server **ret_server)
{
	struct server *server;
	int rc;

	if (strlen(path) >= sizeof(server->path)) {
		log_error("%s: a socket's path has at most %zu bytes", path, sizeof(server->path) - 1);
		return -ENAMETOOLONG;
	}
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	strcpy(server->path, path);
	server->lock_fd = -1;
	list_init(&server->conns);
	fiber_cond_init(&server->progress);
	rc = take_lock(server);
	if (!rc)
		rc = listen_on_path(server);
	if (rc) {
		if (server->lock_fd >= 0)
			close(server->lock_fd);
		free(server);
		return rc;
	}
	*ret_server = server;
	return 0;
}

void server_quiesce(struct server *server)
{
	server->quiesced = true;
	if (server->listener)
		stream_listener_close(server->listener);
	server->listener = NULL;
}

static bool owes_output(struct server *server)
{
	struct list *e;

	list_for_each(e, &server->conns) {
		struct conn *conn = list_entry(e, struct conn, link);

		if (conn->nr_running || !list_empty(&conn->out))
			return true;
	}
	return false;
}

fiber_fn void server_stop(struct server *server, uint64_t timeout_us)
{
	uint64_t deadline_us = clock_now_us() + timeout_us, now_us;
	struct list *e, *tmp;

	if (!server)
		return;
	server_quiesce(server);
	while (owes_output(server) && (now_us = clock_now_us()) < deadline_us)
		fiber_cond_timedwait(&server->progress, deadline_us - now_us);
	list_for_each_safe(e, tmp, &server->conns) {
		struct conn *conn = list_entry(e, struct conn, link);

		conn_close(conn);
		conn_free_if_over(conn);
	}
	fiber_yield(); /* queued resumes run and free their connections */
	unlink(server->path);
	close(server->lock_fd);
	free(server);
}
