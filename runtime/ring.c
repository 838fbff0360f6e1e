/*
 * The reactor's io_uring: operations with callbacks, one submit a turn, and the sleep.
 *
 * A turn with nothing to submit and nothing completed makes no system call: the kernel raises a flag in the shared ring
 * when it has completions to post, and only then do we enter it.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/internal.h"

#define SQ_ENTRIES     512
#define CQ_ENTRIES     8192
/* What such a ring takes of what an ordinary user may lock, generously. */
#define RING_MEMLOCK_KIB 256u
/* user_data that is no pointer to an operation */
#define USER_DATA_NONE 0
#define USER_DATA_WAKE 1

/* The best kind of ring that the kernel has: 6.1 and later take the first. */
static int ring_create(struct io_uring *ring)
{
	static const unsigned kinds[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int rc = -EINVAL;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && rc == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = kinds[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = CQ_ENTRIES,
		};

		rc = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
	}
	return rc;
}

static struct io_uring_sqe *sqe_get(struct reactor *reactor)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&reactor->ring);

	while (unlikely(!sqe)) {
		/* Full: give the kernel what we have.  -EBUSY means completions must be reaped first; they wait in the
		 * kernel's own list, and submitting works again once it has room there. */
		int rc = io_uring_submit_and_get_events(&reactor->ring);

		if (rc < 0 && rc != -EBUSY && rc != -EAGAIN && rc != -EINTR) {
			log_error("io_uring submit: %s; ending", strerror(-rc));
			abort();
		}
		sqe = io_uring_get_sqe(&reactor->ring);
	}
	return sqe;
}

static void arm_wake(struct reactor *reactor)
{
	struct io_uring_sqe *sqe = sqe_get(reactor);

	io_uring_prep_read(sqe, reactor->wake_fd, &reactor->wake_count, sizeof(reactor->wake_count), 0);
	io_uring_sqe_set_data64(sqe, USER_DATA_WAKE);
}

static void log_refusal(const struct reactor *reactor, int rc)
{
	struct rlimit limit = { 0 };

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (rc == -ENOMEM && limit.rlim_cur != RLIM_INFINITY)
		log_error("reactor %u: no memory for an io_uring, which counts as locked: the limit is %llu KiB; raise it with "
			  "ulimit -l %u for each reactor, or LimitMEMLOCK= of the service",
			  reactor->idx, (unsigned long long)limit.rlim_cur / 1024, RING_MEMLOCK_KIB);
	else if (rc == -ENOMEM)
		log_error("reactor %u: no memory for an io_uring", reactor->idx);
	else
		log_error("reactor %u: the kernel refuses an io_uring: %s (is kernel.io_uring_disabled set, or does the "
			  "container forbid it?)",
			  reactor->idx, strerror(-rc));
}

int ring_init(struct reactor *reactor)
{
	int rc;

	/* Blocking, since the ring would otherwise complete the read with -EAGAIN at once. */
	reactor->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (reactor->wake_fd < 0) {
		rc = -errno;
		log_error("reactor %u: eventfd: %s", reactor->idx, strerror(-rc));
		return rc;
	}
	rc = ring_create(&reactor->ring);
	if (rc) {
		log_refusal(reactor, rc);
		close(reactor->wake_fd);
		reactor->wake_fd = -1;
		return rc;
	}
	io_uring_register_ring_fd(&reactor->ring); /* saves a lookup for each call; older kernels refuse it */
	reactor->has_ring = true;
	arm_wake(reactor);
	return 0;
}

void ring_fini(struct reactor *reactor)
{
	if (!reactor->has_ring)
		return;
	io_uring_queue_exit(&reactor->ring);
	reactor->has_ring = false;
	close(reactor->wake_fd);
	reactor->wake_fd = -1;
}

static bool complete(struct reactor *reactor, const struct io_uring_cqe *cqe)
{
	struct ring_op *op = (struct ring_op *)(uintptr_t)cqe->user_data;
	bool more = cqe->flags & IORING_CQE_F_MORE;
	int res = cqe->res;

	io_uring_cq_advance(&reactor->ring, 1);
	if ((uintptr_t)op == USER_DATA_WAKE) {
		arm_wake(reactor);
		return false;
	}
	if ((uintptr_t)op == USER_DATA_NONE)
		return false;
	if (!more)
		op->thread->nr_ring_ops--;
	thread_running = op->thread;
	op->done(op, res, more);
	thread_running = NULL;
	return true;
}

enum turn_result ring_turn(struct reactor *reactor)
{
	struct io_uring *ring = &reactor->ring;
	unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED), nr;
	enum turn_result result = TURN_IDLE;

	if (io_uring_sq_ready(ring) || (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
		int rc = io_uring_submit_and_get_events(ring);

		if (unlikely(rc < 0 && rc != -EBUSY && rc != -EAGAIN && rc != -EINTR)) {
			log_error("io_uring submit: %s; ending", strerror(-rc));
			abort();
		}
	}
	for (nr = io_uring_cq_ready(ring); nr; nr--) {
		if (complete(reactor, &ring->cq.cqes[*ring->cq.khead & *ring->cq.kring_mask]))
			result = TURN_WORK;
	}
	return result;
}

void ring_sleep(struct reactor *reactor, uint64_t timeout_us)
{
	struct __kernel_timespec timeout = {
		.tv_sec = (long long)(timeout_us / 1000000),
		.tv_nsec = (long long)(timeout_us % 1000000) * 1000,
	};
	struct io_uring_cqe *cqe;

	io_uring_submit_and_wait_timeout(&reactor->ring, &cqe, 1, timeout_us == UINT64_MAX ? NULL : &timeout, NULL);
}

static struct io_uring_sqe *op_begin(struct ring_op *op)
{
	struct thread *thread = thread_running;
	struct io_uring_sqe *sqe;

	assert(thread && thread->reactor->has_ring);
	op->thread = thread;
	thread->nr_ring_ops++;
	sqe = sqe_get(thread->reactor);
	return sqe;
}

void ring_readv(struct ring_op *op, int fd, const struct iovec *iov, unsigned iovcnt, uint64_t offset_bytes)
{
	struct io_uring_sqe *sqe = op_begin(op);

	if (iovcnt == 1)
		io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, offset_bytes);
	else
		io_uring_prep_readv(sqe, fd, iov, iovcnt, offset_bytes);
	io_uring_sqe_set_data(sqe, op);
}

void ring_writev(struct ring_op *op, int fd, const struct iovec *iov, unsigned iovcnt, uint64_t offset_bytes, int rw_flags)
{
	struct io_uring_sqe *sqe = op_begin(op);

	if (iovcnt == 1)
		io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, offset_bytes);
	else
		io_uring_prep_writev(sqe, fd, iov, iovcnt, offset_bytes);
	sqe->rw_flags = rw_flags;
	io_uring_sqe_set_data(sqe, op);
}

void ring_fdatasync(struct ring_op *op, int fd)
{
	struct io_uring_sqe *sqe = op_begin(op);

	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, op);
}

void ring_fallocate(struct ring_op *op, int fd, int mode, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct io_uring_sqe *sqe = op_begin(op);

	io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset_bytes, (off_t)len_bytes);
	io_uring_sqe_set_data(sqe, op);
}

void ring_poll(struct ring_op *op, int fd, uint32_t events, bool multishot)
{
	struct io_uring_sqe *sqe = op_begin(op);

	if (multishot)
		io_uring_prep_poll_multishot(sqe, fd, events);
	else
		io_uring_prep_poll_add(sqe, fd, events);
	io_uring_sqe_set_data(sqe, op);
}

void ring_poll_cancel(struct ring_op *op)
{
	struct io_uring_sqe *sqe;

	assert(op->thread == thread_running);
	sqe = sqe_get(op->thread->reactor);
	/* Not a poll removal: that one gives up (-EALREADY) on a poll that an event is just waking. */
	io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	io_uring_sqe_set_data64(sqe, USER_DATA_NONE);
}
