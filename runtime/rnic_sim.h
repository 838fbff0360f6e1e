/*
 * The simulated RDMA fabric, as tests reach into it.  IPv4 addresses belong to the device "sim0", which has shared receive
 * queues; IPv6 addresses to "sim1", which is like soft-iWARP: no shared receive queues, one place in an RDMA READ, completion
 * queues that stay as they were made, and its memory must be writable from outside.  The number of an accepted connection's queue pair is used again at once, as devices may.
 * Work runs in order, each piece after a delay by the seed; keys, ranges, access and
 * the room in every queue are checked as a device would.
 */
#ifndef RUNTIME_RNIC_SIM_H
#define RUNTIME_RNIC_SIM_H

#include "runtime/rnic.h"

struct rnic_sim_stats {
	unsigned nr_sends, nr_writes, nr_reads, nr_invalidated;
	unsigned nr_not_ready; /* a send found no receive, and was tried again */
	unsigned max_reads;    /* most RDMA READs that one queue pair had posted */
	unsigned max_responses; /* most sends that the queue pair of an accepted connection had posted */
	unsigned nr_cq_resizes;
	uint64_t mr_bytes; /* in registrations that are there */
	unsigned nr_qps, nr_mrs, nr_cqs, nr_srqs, nr_conns; /* that are there */
};

const struct rnic_sim_stats *rnic_sim_stats(void);
/* No device is there until the end of the run. */
void rnic_sim_no_devices(void);
/* Nothing goes through any more, either way, and nobody is told. */
void rnic_sim_cut(struct rnic_conn *conn);
/* The next piece of work that this end has posted, or posts, fails so. */
void rnic_sim_fail_next(struct rnic_conn *conn, enum rnic_status status);
/* This end's queue pair goes into error by itself. */
void rnic_sim_break(struct rnic_conn *conn);
/* Its completion queue tells nobody of what is in it, until it may again. */
void rnic_sim_hold(struct rnic_conn *conn, bool hold);
/* Its completion queue, or the shared receive queue it has, is in error: what is in it is lost, and those who watch the device hear of it. */
void rnic_sim_break_cq(struct rnic_conn *conn);
void rnic_sim_break_srq(struct rnic_conn *conn);
/* The receives that this end has posted are gone, as if they had never been. */
void rnic_sim_drop_recvs(struct rnic_conn *conn);
/* A receive and a piece of work of a queue pair that is unknown complete in its completion queue. */
void rnic_sim_stray(struct rnic_conn *conn, enum rnic_status status);
/* The other end; NULL when it is gone. */
struct rnic_conn *rnic_sim_peer(struct rnic_conn *conn);
/* Does that to every connection that is up. */
void rnic_sim_each(void (*fn)(struct rnic_conn *conn));
/* The device of the family is taken away: its connections and listeners hear of it. */
void rnic_sim_remove(int family);
/* The next calls of this kind fail with -ENOMEM: so many of them. */
void rnic_sim_fail_qp_create(unsigned nr);
void rnic_sim_fail_cq_resize(unsigned nr);
void rnic_sim_fail_mr_create(unsigned nr);
/* Completion queues have no more entries than that, on either device, until the end of the run. */
void rnic_sim_max_cqe(uint32_t nr);

#endif
