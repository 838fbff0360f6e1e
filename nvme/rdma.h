/* What the RDMA initiator's files share: a queue over RDMA, and the registered memory that its data goes through. */
#ifndef NVME_RDMA_H
#define NVME_RDMA_H

#include "nvme/internal.h"
#include "runtime/rnic.h"

#define RDMA_MAX_XFER_BYTES (1u << 20)
#define RDMA_ARENA_UNIT	    4096u

/* Where the data of a request lies while it is in flight. */
struct rdma_bounce {
	uint32_t first, nr; /* units of the arena; 0: none */
	uint32_t key;	    /* of its window; 0: none is open */
};

/* A queue over RDMA.  Owner: the thread that connected it. */
struct rdma_qpair {
	struct nvme_qpair q;
	struct rnic_conn *conn; /* NULL: closed */
	struct rnic_cq *cq;
	uint32_t in_capsule_max; /* bytes of data that a capsule may carry */
	uint32_t capsule_size;	 /* room for one */
	uint32_t nr_recvs;
	uint16_t reject_status;
	bool established;
	struct fiber_wait *cm_wait;
	/* One registration: capsules, one a slot; responses; the arena, which the target may read and write. */
	uint8_t *memory, *responses, *arena;
	size_t memory_size;
	struct rnic_mr *mr;
	struct rdma_bounce *bounces; /* by slot */
	struct rnic_window **windows; /* by slot; NULL: the device has none, and one key lets the target at the whole arena */
	bool *closing;		      /* by slot: answered, and its window is being closed */
	uint64_t *arena_map;	     /* a bit for each unit in use */
	uint32_t nr_units;
};

static inline struct rdma_qpair *rdma_of(struct nvme_qpair *qpair)
{
	return container_of(qpair, struct rdma_qpair, q);
}

/* rdma_data.c */
int rdma_memory_create(struct rdma_qpair *qpair); /* 0 or -errno */
void rdma_memory_free(struct rdma_qpair *qpair);
/* Room for len bytes in one piece; false: none now. */
bool rdma_bounce_take(struct rdma_qpair *qpair, uint32_t len, struct rdma_bounce *ret_bounce);
void rdma_bounce_put(struct rdma_qpair *qpair, struct rdma_bounce *bounce);
void rdma_copy(const struct nvme_request *req, void *flat, bool to_flat);

#endif
