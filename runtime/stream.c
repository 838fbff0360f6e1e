/*
 * Streams, whatever they are made of: which events are pending, and when they are told.
 *
 * A stream with events stands on its thread's streams_ready.  STREAM_READABLE stays pending until a recv finds nothing;
 * STREAM_WRITABLE is told once.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "runtime/stream_internal.h"

void stream_init(struct stream *stream, const struct stream_ops *ops)
{
	memset(stream, 0, sizeof(*stream));
	stream->ops = ops;
	stream->events = STREAM_READABLE;
	list_init(&stream->link);
	list_init(&stream->hot_link);
}

static unsigned events_to_tell(const struct stream *stream)
{
	if (!stream->ready)
		return 0;
	return stream->paused ? stream->events & ~STREAM_READABLE : stream->events;
}

/* Puts the stream on its thread's list, or takes it off, as its events say. */
static void relist(struct stream *stream)
{
	bool listed = !list_empty(&stream->link), wanted = stream->thread && events_to_tell(stream);

	if (wanted && !listed)
		list_add_tail(&stream->thread->streams_ready, &stream->link);
	else if (!wanted && listed)
		list_del(&stream->link);
}

void stream_notify(struct stream *stream, unsigned events)
{
	stream->events |= events;
	relist(stream);
}

void stream_drained(struct stream *stream)
{
	stream->events &= ~STREAM_READABLE;
	relist(stream);
}

void stream_try_again(struct stream *stream)
{
	struct thread *thread = stream->thread;

	if (!list_empty(&stream->hot_link))
		return;
	list_add_tail(&thread->streams_hot, &stream->hot_link);
	thread->nr_streams_hot++;
}

static void cool_down(struct stream *stream)
{
	if (list_empty(&stream->hot_link))
		return;
	list_del(&stream->hot_link);
	stream->thread->nr_streams_hot--;
}

/* Those that had bytes a moment ago may have more: that costs one system call, and a poll of the ring costs more. */
static void heat_up(struct thread *thread)
{
	struct list *link;

	while ((link = list_pop(&thread->streams_hot)))
		stream_notify(list_entry(link, struct stream, hot_link), STREAM_READABLE);
	thread->nr_streams_hot = 0;
}

void streams_before_sleep(struct thread *thread)
{
	struct list *link;

	while ((link = list_pop(&thread->streams_hot))) {
		struct stream *stream = list_entry(link, struct stream, hot_link);

		stream->ops->before_sleep(stream);
	}
	thread->nr_streams_hot = 0;
}

bool streams_run(struct thread *thread)
{
	struct list batch, *link;

	thread->streams_worked = !list_empty(&thread->streams_ready);
	if (thread->nr_streams_hot)
		heat_up(thread);
	if (likely(list_empty(&thread->streams_ready)))
		return false;
	list_init(&batch);
	list_splice_tail(&batch, &thread->streams_ready);
	while ((link = list_pop(&batch))) {
		struct stream *stream = list_entry(link, struct stream, link);
		unsigned events = events_to_tell(stream);

		stream->events &= ~STREAM_WRITABLE;
		relist(stream); /* before the callback, which may free the stream */
		if (events)
			stream->ready(stream->arg, events);
	}
	return thread->streams_worked;
}

void stream_attach(struct stream *stream, stream_ready_fn ready, void *arg)
{
	assert(thread_running && !stream->thread);
	stream->thread = thread_running;
	stream->thread->nr_streams++;
	stream->ready = ready;
	stream->arg = arg;
	stream_notify(stream, STREAM_READABLE);
	stream->ops->attach(stream);
}

void stream_set_ready(struct stream *stream, stream_ready_fn ready, void *arg)
{
	stream->ready = ready;
	stream->arg = arg;
	stream_notify(stream, STREAM_READABLE);
}

void stream_pause(struct stream *stream, bool paused)
{
	stream->paused = paused;
	relist(stream);
}

void stream_detached(struct stream *stream)
{
	stream->thread->nr_streams--;
	stream->thread = NULL;
	thread_send(thread_running, stream->detached, stream->detached_arg);
}

void stream_detach(struct stream *stream, msg_fn done, void *arg)
{
	assert(stream->thread == thread_running);
	list_del(&stream->link);
	cool_down(stream);
	stream->paused = false;
	stream->detached = done;
	stream->detached_arg = arg;
	stream->ops->detach(stream);
}

void stream_want_write(struct stream *stream)
{
	assert(stream->thread == thread_running);
	stream->ops->want_write(stream);
}

ssize_t stream_recvv(struct stream *stream, const struct iovec *iov, unsigned iovcnt)
{
	ssize_t rc;

	if (!(stream->events & STREAM_READABLE))
		return -EAGAIN;
	rc = stream->ops->recvv(stream, iov, iovcnt);
	if (rc == -EAGAIN)
		stream_drained(stream);
	else if (stream->thread)
		stream->thread->streams_worked = true;
	return rc;
}

ssize_t stream_recv(struct stream *stream, void *buf, size_t len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };

	return stream_recvv(stream, &iov, 1);
}

ssize_t stream_sendv(struct stream *stream, const struct iovec *iov, unsigned iovcnt)
{
	return stream->ops->sendv(stream, iov, iovcnt);
}

void stream_shutdown_write(struct stream *stream)
{
	stream->ops->shutdown_write(stream);
}

void stream_close(struct stream *stream, bool abort)
{
	assert(!stream->thread || stream->thread == thread_running);
	list_del(&stream->link);
	cool_down(stream);
	if (stream->thread)
		stream->thread->nr_streams--;
	stream->ready = NULL;
	stream->ops->close(stream, abort);
}

void stream_local_addr(const struct stream *stream, struct stream_addr *ret_addr)
{
	stream->ops->local_addr(stream, ret_addr);
}

void stream_peer_addr(const struct stream *stream, struct stream_addr *ret_addr)
{
	stream->ops->peer_addr(stream, ret_addr);
}

void stream_set_buffer_sizes(struct stream *stream, size_t send_bytes, size_t recv_bytes)
{
	stream->ops->set_buffer_sizes(stream, send_bytes, recv_bytes);
}

int stream_set_priority(struct stream *stream, int priority)
{
	return stream->ops->set_priority(stream, priority);
}

int stream_check_priority(int priority)
{
	return sim_on ? 0 : stream_socket_check_priority(priority);
}

int stream_listen(const struct stream_addr *addr, int backlog, void (*accepted)(void *arg, struct stream *stream), void *arg,
		  struct stream_listener **ret_listener)
{
	struct stream_listener *listener;
	int rc;

	assert(thread_running);
	rc = sim_on ? stream_sim_listen(addr, &listener) : stream_socket_listen(addr, backlog, &listener);
	if (rc)
		return rc;
	listener->accepted = accepted;
	listener->arg = arg;
	*ret_listener = listener;
	return 0;
}

void stream_listener_close(struct stream_listener *listener)
{
	assert(listener->thread == thread_running);
	listener->close(listener);
}

void stream_listener_addr(const struct stream_listener *listener, struct stream_addr *ret_addr)
{
	*ret_addr = listener->addr;
}

int stream_connect(const struct stream_addr *addr, uint64_t timeout_us, struct stream **ret_stream)
{
	assert(fiber_current());
	if (sim_on)
		return stream_sim_connect(addr, timeout_us, ret_stream);
	return stream_socket_connect(addr, timeout_us, ret_stream);
}
