/*
 * A whole nvmf behind the seam of nvmf/transport.h, small and under the test's thumb: one target, one group on its own thread,
 * a disk of 2 MiB, and commands that can be held back.  Everything runs on the group's thread unless it says otherwise.
 */
#ifndef TRANSPORT_TCP_FAKE_NVMF_H
#define TRANSPORT_TCP_FAKE_NVMF_H

#include "nvmf/transport.h"

#define FAKE_BLOCK_SIZE 512u
#define FAKE_DISK_SIZE	(2u * 1024 * 1024)

struct fake_nvmf {
	struct thread *thread;
	void *tgroup;
	struct nvmf_transport_opts opts;
	uint8_t disk[FAKE_DISK_SIZE];
	bool hold;	     /* commands with an I/O opcode stay until fake_release() */
	bool buffers_short;  /* what nvmf_buffers_short() says */
	bool connect_fails;  /* Connect ends with Connect Invalid Host */
	uint16_t last_failure; /* what nvmf_req_data_failed() was told last */
	unsigned nr_failures;
	unsigned nr_qpairs; /* made and not gone */
	unsigned nr_begun, nr_outstanding, max_outstanding;
	uint64_t buffer_bytes, max_buffer_bytes;
	struct list held;
	struct nvmf_qpair *last_qpair;
};

extern struct fake_nvmf fake;

/* Resets the fake, makes its thread and the transport's part of the group. */
fiber_fn void fake_start(const struct nvmf_transport_ops *ops);
/* Waits until every connection is gone, then ends the thread. */
fiber_fn void fake_stop(const struct nvmf_transport_ops *ops);
/* Executes what was held, from any thread's fiber. */
fiber_fn void fake_release(void);
/* Waits until a number that the group's thread changes is what is wanted. */
fiber_fn void fake_wait_for(const unsigned *number, unsigned wanted);
/* ops->close() on the last connection made. */
fiber_fn void fake_close_last(bool graceful);

#endif
