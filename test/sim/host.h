/* Hosts: each a controller with a few queues and fibers that read, write and flush their own piece of the namespace, compare
 * everything with the model, and come back when their connection is lost. */
#ifndef TEST_SIM_HOST_H
#define TEST_SIM_HOST_H

#include "nvme/initiator.h"
#include "runtime/sim.h"
#include "test/sim/model.h"

struct host_opts {
	struct model *model;
	struct stream_addr addr;
	const char *nqn;
	uint32_t first_block, nr_blocks; /* this host's */
	unsigned nr_queues, nr_workers, nr_ops;
	uint32_t queue_size;
	bool hdgst, ddgst;
	bool faults; /* commands may fail: the disk or the network is bad */
	uint64_t settle_us; /* after a lost connection, until nothing of it can still be under way */
};

/* Reads everything, compares it, and makes what it found the model's. */
fiber_fn void host_verify(const struct host_opts *opts);
/* Runs to the end of its operations. */
fiber_fn void host_work(const struct host_opts *opts);

#endif
