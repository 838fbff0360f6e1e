/*
 * Completion queues of a port: one while it is large enough.  It begins small and is enlarged as queue pairs claim room in it; where
 * the device cannot do that, or it is as large as it may be, another one is opened beside it.
 *
 * Whoever makes a queue pair claims room for all that it can have posted, and each queue has room for all shared receives, whose
 * completions go to the queue of the queue pair that took them.  So none of them ever overruns.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/rdma/internal.h"

#define POLL_BATCH   32u
#define POLL_BATCHES 8u /* in a turn, then the others */
#define CQ_MAX	     (1u << 18)
#define MAX_DOUBLED  10u

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static unsigned poll_once(struct rdma_cq *cq)
{
	struct rnic_wc wcs[POLL_BATCH];
	unsigned nr = rnic_cq_poll(cq->rnic, wcs, POLL_BATCH);

	for (unsigned i = 0; i < nr; i++)
		rdma_port_completed(cq->port, &wcs[i]);
	return nr;
}

static bool cq_ready(void *arg)
{
	struct rdma_cq *cq = arg;
	struct rdma_stats *stats = &cq->port->stats;
	unsigned nr, all = 0;

	for (unsigned i = 0; i < POLL_BATCHES; i++) {
		nr = poll_once(cq);
		all += nr;
		if (nr < POLL_BATCH)
			break;
	}
	count(&stats->polls, 1);
	count(&stats->idle_polls, !all);
	count(&stats->completions, all);
	return all > 0;
}

/* What comes meanwhile is behind what was there: as many as it can hold are enough. */
void rdma_cq_poll_dry(struct rdma_cq *cq)
{
	unsigned nr, all = 0;

	do {
		nr = poll_once(cq);
		all += nr;
	} while (nr && all < cq->size);
}

uint32_t rdma_cq_largest(const struct rdma_port *port)
{
	return min_u32(port->info->max_cqe, CQ_MAX);
}

/* Each is twice as large as the one before, so that there are few. */
static uint32_t first_size(const struct rdma_port *port, uint32_t nr)
{
	unsigned doubled = port->nr_cqs < MAX_DOUBLED ? port->nr_cqs : MAX_DOUBLED;
	uint32_t room = nr > RDMA_CQ_ROOM << doubled ? nr : RDMA_CQ_ROOM << doubled;

	return min_u32(port->nr_shared_recvs + room, rdma_cq_largest(port));
}

int rdma_cq_open(struct rdma_port *port, uint32_t nr)
{
	uint32_t size = first_size(port, nr);
	struct rdma_cq *cq;
	int rc;

	if (size <= port->nr_shared_recvs || size - port->nr_shared_recvs < nr)
		return -ENOSPC;
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return -ENOMEM;
	cq->port = port;
	rc = rnic_cq_create(port->device, size, cq_ready, cq, &cq->rnic);
	if (rc) {
		log_warning("RDMA device %s: no completion queue of %u entries: %s", port->info->name, size, strerror(-rc));
		free(cq);
		return rc;
	}
	cq->size = size;
	cq->room = size - port->nr_shared_recvs;
	list_add_tail(&port->cqs, &cq->link);
	/* Told once: whoever connects and goes can have it opened and closed. */
	if (++port->nr_cqs > port->most_cqs && port->most_cqs++)
		log_notice("RDMA device %s: another completion queue, of %u entries", port->info->name, size);
	return 0;
}

void rdma_cq_close(struct rdma_cq *cq)
{
	list_del(&cq->link);
	cq->port->nr_cqs--;
	rnic_cq_destroy(cq->rnic);
	free(cq);
}

/* Makes room for @nr; false: not here. */
static bool enlarge(struct rdma_cq *cq, uint32_t nr)
{
	struct rdma_port *port = cq->port;
	uint32_t missing = nr - cq->room, size;
	int rc;

	if (port->cqs_are_fixed || missing > rdma_cq_largest(port) - cq->size)
		return false;
	size = cq->size + (missing > cq->size ? missing : min_u32(cq->size, rdma_cq_largest(port) - cq->size));
	rc = rnic_cq_resize(cq->rnic, size);
	if (rc) {
		port->cqs_are_fixed = rc == -ENOTSUP;
		log_info("RDMA device %s: a completion queue cannot have %u entries: %s", port->info->name, size, strerror(-rc));
		return false;
	}
	log_notice("RDMA device %s: a completion queue is enlarged to %u entries", port->info->name, size);
	cq->room += size - cq->size;
	cq->size = size;
	return true;
}

static struct rdma_cq *find_room(struct rdma_port *port, uint32_t nr)
{
	struct list *it;

	list_for_each(it, &port->cqs) {
		if (nr <= list_entry(it, struct rdma_cq, link)->room)
			return list_entry(it, struct rdma_cq, link);
	}
	list_for_each(it, &port->cqs) {
		if (enlarge(list_entry(it, struct rdma_cq, link), nr))
			return list_entry(it, struct rdma_cq, link);
	}
	return NULL;
}

int rdma_cq_claim(struct rdma_port *port, uint32_t nr, struct rdma_cq **ret_cq)
{
	struct rdma_cq *cq = find_room(port, nr);
	int rc;

	if (!cq) {
		rc = rdma_cq_open(port, nr);
		if (rc)
			return rc;
		cq = list_entry(port->cqs.prev, struct rdma_cq, link);
	}
	cq->room -= nr;
	cq->nr_claims++;
	*ret_cq = cq;
	return 0;
}

void rdma_cq_unclaim(struct rdma_cq *cq, uint32_t nr)
{
	cq->room += nr;
	if (--cq->nr_claims == 0 && cq->port->nr_cqs > 1) {
		/* What is in it still is of queue pairs that are gone, and their shared receives. */
		rdma_cq_poll_dry(cq);
		rdma_cq_close(cq);
	}
}
