/*
 * Byte streams and their listeners: TCP and Unix sockets, or, in a simulation, pairs of pipes that cut, delay and reset by
 * a seed.  Same interface, chosen by the runtime when the process starts.
 */
#ifndef RUNTIME_STREAM_H
#define RUNTIME_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "runtime/fiber.h"
#include "runtime/thread.h"

struct stream;
struct stream_listener;

struct stream_addr {
	char host[108]; /* numeric IPv4 or IPv6 address without brackets, or the path of a Unix socket */
	uint16_t port;
	int family; /* AF_INET, AF_INET6, AF_UNIX */
};

#define STREAM_READABLE 1u
#define STREAM_WRITABLE 2u

typedef void (*stream_ready_fn)(void *arg, unsigned events);

/**
 * stream_listen - accept connections
 * @accepted: called on the listening thread for each; the stream belongs to no thread yet (see stream_attach)
 *
 * Return: 0, or -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -EINVAL…
 */
int stream_listen(const struct stream_addr *addr, int backlog, void (*accepted)(void *arg, struct stream *stream), void *arg,
		  struct stream_listener **ret_listener);
void stream_listener_close(struct stream_listener *listener);
/* The address it really has (the port when 0 was asked for). */
void stream_listener_addr(const struct stream_listener *listener, struct stream_addr *ret_addr);

/* Connects and attaches to the current thread, with no callback until stream_set_ready().  0 or -errno (-ETIMEDOUT, -ECONNREFUSED…). */
fiber_fn int stream_connect(const struct stream_addr *addr, uint64_t timeout_us, struct stream **ret_stream);

/**
 * stream_attach - bind a stream to the current thread and hear of its events
 * @ready: called with STREAM_READABLE when bytes or an end may be there, until a recv says -EAGAIN again; with
 *         STREAM_WRITABLE when asked for by stream_want_write().  A first STREAM_READABLE always comes.
 *
 * Readiness is a hint: it comes at least once after every change from empty to readable, and may come too often.  While
 * the last recv has not said -EAGAIN, ready is called again each turn: who cannot take more for now pauses the stream.
 * stream_recv() says -EAGAIN without a system call while nothing has come since the socket was last found empty.
 */
void stream_attach(struct stream *stream, stream_ready_fn ready, void *arg);
/* Another callback; it too gets a first STREAM_READABLE.  NULL: none is called. */
void stream_set_ready(struct stream *stream, stream_ready_fn ready, void *arg);
/* While paused no STREAM_READABLE is called; what came meanwhile is told after. */
void stream_pause(struct stream *stream, bool paused);
/* Unbinds, so that another thread may attach it (send it there by message). */
void stream_detach(struct stream *stream, msg_fn done, void *arg);
/* One STREAM_WRITABLE when a blocked send may go on. */
void stream_want_write(struct stream *stream);

/* Bytes moved (short counts are normal), 0 at the end of the stream, -EAGAIN, or another -errno when it is broken. */
ssize_t stream_recv(struct stream *stream, void *buf, size_t len);
ssize_t stream_recvv(struct stream *stream, const struct iovec *iov, unsigned iovcnt);
ssize_t stream_sendv(struct stream *stream, const struct iovec *iov, unsigned iovcnt);

void stream_shutdown_write(struct stream *stream);
/* No ready callback comes after this returns; the stream is freed by the runtime.  abort: RST instead of FIN. */
void stream_close(struct stream *stream, bool abort);

void stream_local_addr(const struct stream *stream, struct stream_addr *ret_addr);
void stream_peer_addr(const struct stream *stream, struct stream_addr *ret_addr);
void stream_set_buffer_sizes(struct stream *stream, size_t send_bytes, size_t recv_bytes);
/* SO_PRIORITY, by which the machine queues what it sends.  0, or -EPERM: above 6 it takes CAP_NET_ADMIN. */
int stream_set_priority(struct stream *stream, int priority);
int stream_check_priority(int priority); /* whether that would succeed */

#endif
