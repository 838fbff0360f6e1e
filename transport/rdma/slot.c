/*
 * Slots: the registered memory that capsules are received into, 64 bytes of command and the data behind it in a place of its
 * own, so that data is aligned for the device it goes to.
 *
 * Data in a capsule stays in its slot until its command ends, which is as long as a drive likes.  So that no drive and no host takes
 * all shared receives away from the others, the last of them are not kept: capsules move to spare places, of which there are as many
 * again, made as they are needed.  Who finds none there either loses its connection.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/rdma/internal.h"

#define SPARES_AT_ONCE	  64u
#define RECVS_NOT_KEPT(nr) ((nr) / 8 + 1)

static size_t align_up(size_t len)
{
	return (len + RDMA_SLOT_ALIGN - 1) & ~(size_t)(RDMA_SLOT_ALIGN - 1);
}

uint64_t rdma_slots_bytes(uint32_t nr, uint32_t data_size)
{
	return align_up((size_t)nr * sizeof(union nvme_cmd)) + nr * align_up(data_size);
}

static int slots_create(struct rdma_port *port, struct rdma_conn *conn, uint32_t nr, uint32_t data_size, bool spare,
			struct rdma_slots **ret_slots)
{
	size_t data_at = align_up((size_t)nr * sizeof(union nvme_cmd)), step = align_up(data_size);
	struct rdma_slots *slots = calloc(1, sizeof(*slots) + nr * sizeof(slots->slot[0]));
	int rc = -ENOMEM;

	if (!slots)
		return rc;
	slots->port = port;
	slots->conn = conn;
	slots->nr = nr;
	slots->data_size = data_size;
	slots->spare = spare;
	slots->memory = dma_alloc(data_at + nr * step, RDMA_SLOT_ALIGN);
	if (!slots->memory)
		goto out_slots;
	rc = spare ? 0 : rnic_mr_create(port->device, slots->memory, data_at + nr * step, RNIC_LOCAL_WRITE, &slots->mr);
	if (rc)
		goto out_memory;
	for (uint32_t i = 0; i < nr; i++) {
		struct rdma_slot *slot = &slots->slot[i];

		slot->slots = slots;
		slot->cmd = (union nvme_cmd *)slots->memory + i;
		slot->data = slots->memory + data_at + i * step;
		if (spare)
			continue;
		slot->sge[0] = (struct rnic_sge){ (uintptr_t)slot->cmd, sizeof(*slot->cmd), rnic_mr_lkey(slots->mr) };
		slot->sge[1] = (struct rnic_sge){ (uintptr_t)slot->data, data_size, rnic_mr_lkey(slots->mr) };
		slot->recv = (struct rnic_recv){ .id = (uintptr_t)slot | 2, .sge = slot->sge, .nr_sge = data_size ? 2 : 1 };
	}
	*ret_slots = slots;
	return 0;

out_memory:
	dma_free(slots->memory);
out_slots:
	free(slots);
	return rc;
}

int rdma_slots_create(struct rdma_port *port, struct rdma_conn *conn, uint32_t nr, uint32_t data_size, struct rdma_slots **ret_slots)
{
	return slots_create(port, conn, nr, data_size, false, ret_slots);
}

void rdma_slots_free(struct rdma_slots *slots)
{
	while (slots) {
		struct rdma_slots *next = slots->next;

		rnic_mr_free(slots->mr);
		dma_free(slots->memory);
		free(slots);
		slots = next;
	}
}

static int post(struct rdma_slots *slots, struct rnic_recv *recv, uint32_t nr)
{
	struct rdma_port *port = slots->port;
	int rc;

	count(&port->stats.total_recv_wrs, nr);
	count(&port->stats.recv_doorbell_updates, 1);
	if (!slots->conn) {
		rc = rnic_srq_post(port->srq, recv);
		if (!rc)
			port->nr_recvs_posted += nr;
		return rc;
	}
	rc = rnic_post_recv(slots->conn->rnic, recv);
	if (!rc)
		slots->conn->nr_recvs_posted += nr;
	return rc;
}

int rdma_slots_post(struct rdma_slots *slots)
{
	int rc;

	for (uint32_t i = 0; i + 1 < slots->nr; i++)
		slots->slot[i].recv.next = &slots->slot[i + 1].recv;
	rc = post(slots, &slots->slot[0].recv, slots->nr);
	for (uint32_t i = 0; i < slots->nr; i++)
		slots->slot[i].recv.next = NULL;
	return rc;
}

void rdma_slot_release(struct rdma_slot *slot)
{
	struct rdma_conn *conn = slot->slots->conn;

	if (slot->slots->spare) {
		fifo_push(&slot->slots->port->spares, &slot->link);
		return;
	}
	/* A connection's own are not posted any more once it ends, and the one for Connect when the queue has its own. */
	if (conn && (conn->state >= CONN_CLOSING || conn->qp_gone || (slot->slots->first && conn->state == CONN_LIVE)))
		return;
	if (post(slot->slots, &slot->recv, 1) && conn)
		rdma_conn_fail(conn, "a receive cannot be posted");
}

static struct rdma_slot *take_spare(struct rdma_port *port)
{
	uint32_t data_size = port->srq_slots->data_size, nr = port->nr_shared_recvs - port->nr_spares;
	struct rdma_slots *slots;

	if (fifo_empty(&port->spares)) {
		nr = nr < SPARES_AT_ONCE ? nr : SPARES_AT_ONCE;
		if (!nr || slots_create(port, NULL, nr, data_size, true, &slots))
			return NULL;
		slots->next = port->spare_slots;
		port->spare_slots = slots;
		port->nr_spares += nr;
		for (uint32_t i = 0; i < nr; i++)
			fifo_push(&port->spares, &slots->slot[i].link);
		log_info("RDMA device %s: few shared receives are left; room for %u capsules beside them", port->info->name,
			 port->nr_spares);
	}
	return container_of(fifo_pop(&port->spares), struct rdma_slot, link);
}

struct rdma_slot *rdma_slot_keep(struct rdma_slot *slot, uint32_t len)
{
	struct rdma_port *port = slot->slots->port;
	struct rdma_slot *spare;

	if (slot->slots->conn || port->nr_recvs_posted >= RECVS_NOT_KEPT(port->nr_shared_recvs))
		return slot;
	spare = take_spare(port);
	if (spare) {
		*spare->cmd = *slot->cmd;
		memcpy(spare->data, slot->data, len - sizeof(*slot->cmd));
	}
	rdma_slot_release(slot);
	return spare;
}
