/*
 * Streams of the simulation: two pipes in memory for each connection, and listeners found by their address.
 *
 * Bytes written stand in their pipe as segments with the time at which they arrive.  The seed cuts reads and writes short,
 * says -EAGAIN, delays, and breaks connections.  A connection is freed when both of its ends are closed.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/stream_internal.h"

#define PIPE_BYTES_MAX	 (256u * 1024)
#define FIRST_PORT	 49152
#define AGAIN_DELAY_US	 200 /* at most, before a stream that said -EAGAIN by whim is ready again */

struct segment {
	struct fifo_link link;
	uint64_t at_us;
	size_t len, taken;
	bool end; /* of the stream; no bytes */
	uint8_t bytes[];
};

struct sim_stream {
	struct stream stream;
	struct sim_connection *connection;
	struct sim_stream *peer;
	struct stream_addr local, remote;
	bool closed, broken, eof_sent, eof_read, want_write;
	/* what comes towards this end */
	struct fifo segments;
	size_t nr_bytes;
	uint64_t last_at_us;
	struct sim_event arrival, whim; /* bytes arrive; a whim is over */
};

struct sim_connection {
	struct sim_stream ends[2];
	struct list link; /* connections */
};

struct sim_listener {
	struct stream_listener listener;
	struct list link; /* listeners */
	unsigned nr_pending;
	bool closed;
};

static struct list connections = LIST_INIT(connections);
static struct list listeners = LIST_INIT(listeners);
static uint16_t next_port;

static const struct stream_ops sim_ops;

static uint64_t delay_us(void)
{
	uint64_t max_us = sim_options()->max_delay_us;

	return max_us ? sim_rand() % (max_us + 1) : 0;
}

static struct sim_stream *to_sim(const struct stream *stream)
{
	return container_of((struct stream *)(uintptr_t)stream, struct sim_stream, stream);
}

static void drop_segments(struct sim_stream *end)
{
	struct fifo_link *link;

	while ((link = fifo_pop(&end->segments)))
		free(container_of(link, struct segment, link));
	end->nr_bytes = 0;
}

static void connection_free(struct sim_connection *connection)
{
	list_del(&connection->link);
	for (int i = 0; i < 2; i++) {
		drop_segments(&connection->ends[i]);
		sim_event_clear(&connection->ends[i].arrival);
		sim_event_clear(&connection->ends[i].whim);
	}
	free(connection);
}

void stream_sim_reset(void)
{
	struct list *link;

	while ((link = list_first(&connections)))
		connection_free(list_entry(link, struct sim_connection, link));
	while ((link = list_pop(&listeners)))
		free(list_entry(link, struct sim_listener, link));
	next_port = FIRST_PORT;
}

/* Both ends learn that the connection is gone; what was on its way is lost. */
static void break_connection(struct sim_stream *stream)
{
	for (int i = 0; i < 2; i++) {
		struct sim_stream *end = &stream->connection->ends[i];

		end->broken = true;
		drop_segments(end);
		if (!end->closed)
			stream_notify(&end->stream, STREAM_READABLE | STREAM_WRITABLE);
	}
}

static struct segment *first_segment(struct sim_stream *end)
{
	return end->segments.head ? container_of(end->segments.head, struct segment, link) : NULL;
}

static void arrived(void *arg)
{
	struct sim_stream *end = arg;

	if (!end->closed)
		stream_notify(&end->stream, STREAM_READABLE);
}

static void schedule_arrival(struct sim_stream *end)
{
	struct segment *segment = first_segment(end);

	if (segment)
		sim_event_set(&end->arrival, segment->at_us, arrived, end);
}

static void whim_over(void *arg)
{
	struct sim_stream *end = arg;

	if (end->closed)
		return;
	end->want_write = false;
	stream_notify(&end->stream, STREAM_READABLE | STREAM_WRITABLE);
}

static ssize_t say_again(struct sim_stream *end)
{
	sim_event_set(&end->whim, clock_now_us() + 1 + sim_rand() % AGAIN_DELAY_US, whim_over, end);
	return -EAGAIN;
}

/* Bytes leave the pipe: its writer, if it waits, may go on. */
static void made_room(struct sim_stream *end)
{
	struct sim_stream *writer = end->peer;

	if (writer->want_write && !writer->closed && end->nr_bytes < PIPE_BYTES_MAX) {
		writer->want_write = false;
		stream_notify(&writer->stream, STREAM_WRITABLE);
	}
}

static size_t copy_out(struct sim_stream *end, uint8_t *buf, size_t len)
{
	struct segment *segment;
	size_t done = 0;

	while (done < len && (segment = first_segment(end)) && !segment->end && segment->at_us <= clock_now_us()) {
		size_t part = segment->len - segment->taken;

		if (part > len - done)
			part = len - done;
		memcpy(buf + done, segment->bytes + segment->taken, part);
		segment->taken += part;
		done += part;
		if (segment->taken == segment->len) {
			fifo_pop(&end->segments);
			free(segment);
		}
	}
	end->nr_bytes -= done;
	return done;
}

static size_t total_len(const struct iovec *iov, unsigned iovcnt)
{
	size_t len = 0;

	for (unsigned i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

static size_t cut_short(size_t len)
{
	return len > 1 && sim_chance(sim_options()->short_io_ppm) ? 1 + sim_rand() % (len - 1) : len;
}

static bool breaks_now(struct sim_stream *end)
{
	if (!end->broken && !end->peer->closed && sim_chance(sim_options()->reset_ppm))
		break_connection(end);
	return end->broken;
}

static ssize_t sim_recvv(struct stream *stream, const struct iovec *iov, unsigned iovcnt)
{
	struct sim_stream *end = to_sim(stream);
	size_t left = cut_short(total_len(iov, iovcnt)), done = 0;
	struct segment *segment;

	if (breaks_now(end))
		return -ECONNRESET;
	if (end->eof_read)
		return 0;
	segment = first_segment(end);
	if (!segment || segment->at_us > clock_now_us()) {
		schedule_arrival(end);
		return -EAGAIN;
	}
	if (sim_chance(sim_options()->again_ppm))
		return say_again(end);
	if (segment->end) {
		end->eof_read = true;
		return 0;
	}
	for (unsigned i = 0; i < iovcnt && left; i++) {
		size_t len = iov[i].iov_len < left ? iov[i].iov_len : left, part = copy_out(end, iov[i].iov_base, len);

		done += part;
		left -= part;
		if (part < len)
			break;
	}
	made_room(end);
	return (ssize_t)done;
}

static struct segment *segment_add(struct sim_stream *towards, size_t len)
{
	struct segment *segment = malloc(sizeof(*segment) + len);
	uint64_t at_us = clock_now_us() + delay_us();

	if (!segment) {
		log_error("no memory for simulated bytes; ending");
		abort();
	}
	if (at_us < towards->last_at_us)
		at_us = towards->last_at_us;
	towards->last_at_us = at_us;
	*segment = (struct segment){ .at_us = at_us, .len = len, .end = !len };
	fifo_push(&towards->segments, &segment->link);
	towards->nr_bytes += len;
	schedule_arrival(towards);
	return segment;
}

static ssize_t sim_sendv(struct stream *stream, const struct iovec *iov, unsigned iovcnt)
{
	struct sim_stream *end = to_sim(stream), *peer = end->peer;
	size_t len = total_len(iov, iovcnt), room = PIPE_BYTES_MAX - peer->nr_bytes, done = 0;
	struct segment *segment;

	if (breaks_now(end))
		return -ECONNRESET;
	if (end->eof_sent || peer->closed)
		return -EPIPE;
	if (!len)
		return 0;
	if (!room)
		return -EAGAIN;
	if (sim_chance(sim_options()->again_ppm))
		return say_again(end);
	len = cut_short(len < room ? len : room);
	segment = segment_add(peer, len);
	for (unsigned i = 0; done < len; i++) {
		size_t part = iov[i].iov_len < len - done ? iov[i].iov_len : len - done;

		if (part)
			memcpy(segment->bytes + done, iov[i].iov_base, part);
		done += part;
	}
	return (ssize_t)len;
}

static void sim_attach(struct stream *stream)
{
	schedule_arrival(to_sim(stream));
}

static void sim_detach(struct stream *stream)
{
	stream_detached(stream);
}

static void sim_want_write(struct stream *stream)
{
	struct sim_stream *end = to_sim(stream);

	end->want_write = true;
	if (end->broken || end->peer->closed || end->peer->nr_bytes < PIPE_BYTES_MAX)
		sim_event_set(&end->whim, clock_now_us() + 1 + sim_rand() % AGAIN_DELAY_US, whim_over, end);
}

static void sim_shutdown_write(struct stream *stream)
{
	struct sim_stream *end = to_sim(stream);

	if (end->eof_sent || end->broken || end->peer->closed)
		return;
	end->eof_sent = true;
	segment_add(end->peer, 0);
}

/* As TCP does: an end that closes with bytes unread, or aborts, resets the connection. */
static void sim_close(struct stream *stream, bool abort)
{
	struct sim_stream *end = to_sim(stream);

	stream->thread = NULL;
	end->closed = true;
	if (end->peer->closed) {
		connection_free(end->connection);
		return;
	}
	if (abort || end->nr_bytes)
		break_connection(end);
	else
		sim_shutdown_write(stream);
	if (!end->peer->closed && end->peer->want_write)
		stream_notify(&end->peer->stream, STREAM_WRITABLE);
}

static void sim_local_addr(const struct stream *stream, struct stream_addr *ret_addr)
{
	*ret_addr = to_sim(stream)->local;
}

static void sim_peer_addr(const struct stream *stream, struct stream_addr *ret_addr)
{
	*ret_addr = to_sim(stream)->remote;
}

static void sim_set_buffer_sizes(struct stream *stream, size_t send_bytes, size_t recv_bytes)
{
}

static int sim_set_priority(struct stream *stream, int priority)
{
	return 0;
}

static const struct stream_ops sim_ops = {
	.recvv = sim_recvv,
	.sendv = sim_sendv,
	.attach = sim_attach,
	.detach = sim_detach,
	.want_write = sim_want_write,
	.shutdown_write = sim_shutdown_write,
	.close = sim_close,
	.local_addr = sim_local_addr,
	.peer_addr = sim_peer_addr,
	.set_buffer_sizes = sim_set_buffer_sizes,
	.set_priority = sim_set_priority,
};

/* Listening and connecting. */

static bool is_wildcard(const char *host)
{
	return !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

static struct sim_listener *find_listener(const struct stream_addr *addr)
{
	struct list *it;

	list_for_each (it, &listeners) {
		struct sim_listener *listener = list_entry(it, struct sim_listener, link);
		const struct stream_addr *at = &listener->listener.addr;

		if (at->family == addr->family && at->port == addr->port &&
		    (!strcmp(at->host, addr->host) || (at->family != AF_UNIX && is_wildcard(at->host))))
			return listener;
	}
	return NULL;
}

static void listener_finish(struct sim_listener *listener)
{
	if (listener->closed && !listener->nr_pending)
		free(listener);
}

static void sim_listener_close(struct stream_listener *base)
{
	struct sim_listener *listener = container_of(base, struct sim_listener, listener);

	base->thread->nr_ring_ops--;
	list_del(&listener->link);
	listener->closed = true;
	listener_finish(listener);
}

int stream_sim_listen(const struct stream_addr *addr, struct stream_listener **ret_listener)
{
	struct sim_listener *listener;

	if (addr->family != AF_INET && addr->family != AF_INET6 && addr->family != AF_UNIX)
		return -EAFNOSUPPORT;
	if (addr->family == AF_UNIX || addr->port) {
		if (find_listener(addr))
			return -EADDRINUSE;
	}
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return -ENOMEM;
	listener->listener.addr = *addr;
	if (addr->family != AF_UNIX && !addr->port)
		listener->listener.addr.port = next_port++;
	listener->listener.thread = thread_running;
	listener->listener.close = sim_listener_close;
	thread_running->nr_ring_ops++;
	list_add_tail(&listeners, &listener->link);
	*ret_listener = &listener->listener;
	return 0;
}

/* A connection on its way to its listener. */
struct incoming {
	struct sim_listener *listener;
	struct stream *stream;
};

static void accept_msg(void *arg)
{
	struct incoming *incoming = arg;
	struct sim_listener *listener = incoming->listener;

	listener->nr_pending--;
	if (listener->closed) {
		stream_close(incoming->stream, true);
		listener_finish(listener);
	} else {
		listener->listener.accepted(listener->listener.arg, incoming->stream);
	}
	free(incoming);
}

static void connection_init(struct sim_connection *connection, const struct stream_addr *addr)
{
	struct stream_addr client = { .family = addr->family };

	if (addr->family != AF_UNIX) {
		strcpy(client.host, addr->family == AF_INET ? "127.0.0.1" : "::1");
		client.port = next_port++;
	}
	for (int i = 0; i < 2; i++) {
		struct sim_stream *end = &connection->ends[i];

		stream_init(&end->stream, &sim_ops);
		fifo_init(&end->segments);
		end->connection = connection;
		end->peer = &connection->ends[!i];
		end->local = i ? *addr : client;
		end->remote = i ? client : *addr;
	}
	list_add_tail(&connections, &connection->link);
}

int stream_sim_connect(const struct stream_addr *addr, uint64_t timeout_us, struct stream **ret_stream)
{
	struct sim_connection *connection;
	struct sim_listener *listener;
	struct incoming *incoming;
	uint64_t wait_us = delay_us();

	fiber_sleep(wait_us < timeout_us ? wait_us : timeout_us);
	if (wait_us > timeout_us)
		return -ETIMEDOUT;
	listener = find_listener(addr);
	if (!listener)
		return addr->family == AF_UNIX ? -ENOENT : -ECONNREFUSED;
	connection = calloc(1, sizeof(*connection));
	incoming = calloc(1, sizeof(*incoming));
	if (!connection || !incoming) {
		free(connection);
		free(incoming);
		return -ENOMEM;
	}
	connection_init(connection, addr);
	listener->nr_pending++;
	incoming->listener = listener;
	incoming->stream = &connection->ends[1].stream;
	thread_send(listener->listener.thread, accept_msg, incoming);
	stream_attach(&connection->ends[0].stream, NULL, NULL);
	*ret_stream = &connection->ends[0].stream;
	return 0;
}
