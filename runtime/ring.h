/*
 * The reactor's io_uring as operations with callbacks.  Each operation is a struct in its owner; the callback runs on the
 * thread that submitted, never before the submit returned.  Not available in a simulation: what uses it has a simulated twin.
 */
#ifndef RUNTIME_RING_H
#define RUNTIME_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct thread;

struct ring_op {
	/* res: what the system call would give, or -errno.  more: a multishot operation stays armed. */
	void (*done)(struct ring_op *op, int res, bool more);
	struct thread *thread; /* set by the submit */
};

void ring_readv(struct ring_op *op, int fd, const struct iovec *iov, unsigned iovcnt, uint64_t offset_bytes);
/* rw_flags: RWF_DSYNC for FUA, else 0 */
void ring_writev(struct ring_op *op, int fd, const struct iovec *iov, unsigned iovcnt, uint64_t offset_bytes, int rw_flags);
void ring_fdatasync(struct ring_op *op, int fd);
void ring_fallocate(struct ring_op *op, int fd, int mode, uint64_t offset_bytes, uint64_t len_bytes);
void ring_poll(struct ring_op *op, int fd, uint32_t events, bool multishot);
/* Ends a poll; op->done then runs once more with -ECANCELED, unless it was over already. */
void ring_poll_cancel(struct ring_op *op);

#endif
