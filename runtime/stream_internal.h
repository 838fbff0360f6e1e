/* What a kind of stream (socket, simulated pipe) gives to stream.c, and what that gives to it. */
#ifndef RUNTIME_STREAM_INTERNAL_H
#define RUNTIME_STREAM_INTERNAL_H

#include "runtime/internal.h"

struct stream_ops {
	ssize_t (*recvv)(struct stream *stream, const struct iovec *iov, unsigned iovcnt);
	ssize_t (*sendv)(struct stream *stream, const struct iovec *iov, unsigned iovcnt);
	void (*attach)(struct stream *stream);
	void (*before_sleep)(struct stream *stream); /* after stream_try_again(): have it watched */
	void (*detach)(struct stream *stream); /* ends with stream_detached(), in this call or later */
	void (*want_write)(struct stream *stream);
	void (*shutdown_write)(struct stream *stream);
	void (*close)(struct stream *stream, bool abort); /* and frees, now or later */
	void (*local_addr)(const struct stream *stream, struct stream_addr *ret_addr);
	void (*peer_addr)(const struct stream *stream, struct stream_addr *ret_addr);
	void (*set_buffer_sizes)(struct stream *stream, size_t send_bytes, size_t recv_bytes);
	int (*set_priority)(struct stream *stream, int priority);
};

/* Owner: the thread it is attached to, or whoever holds it while it is not. */
struct stream {
	const struct stream_ops *ops;
	struct thread *thread; /* NULL: attached to none */
	stream_ready_fn ready;
	void *arg;
	struct list link; /* thread->streams_ready: has events to tell */
	struct list hot_link; /* thread->streams_hot: to be tried next turn */
	unsigned events;
	bool paused;
	msg_fn detached;
	void *detached_arg;
};

struct stream_listener {
	struct stream_addr addr;
	struct thread *thread;
	void (*accepted)(void *arg, struct stream *stream);
	void *arg;
	void (*close)(struct stream_listener *listener); /* and frees, now or later */
};

/* stream.c */
void stream_init(struct stream *stream, const struct stream_ops *ops);
void stream_notify(struct stream *stream, unsigned events);
void stream_drained(struct stream *stream); /* nothing to read until the next STREAM_READABLE */
void stream_try_again(struct stream *stream); /* STREAM_READABLE next turn, unless the reactor sleeps first */
void stream_detached(struct stream *stream);

/* stream_socket.c */
int stream_socket_listen(const struct stream_addr *addr, int backlog, struct stream_listener **ret_listener);
int stream_socket_check_priority(int priority);
int stream_socket_connect(const struct stream_addr *addr, uint64_t timeout_us, struct stream **ret_stream);

/* stream_sim.c */
int stream_sim_listen(const struct stream_addr *addr, struct stream_listener **ret_listener);
int stream_sim_connect(const struct stream_addr *addr, uint64_t timeout_us, struct stream **ret_stream);

#endif
