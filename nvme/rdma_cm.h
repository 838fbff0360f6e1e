/*
 * What NVMe/RDMA says in connection management: the private data of a request, of its acceptance and of its rejection.
 *
 * Source: NVMe over RDMA Transport Specification 1.0, 3.2 "Queue initialization".
 */
#ifndef NVME_RDMA_CM_H
#define NVME_RDMA_CM_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define NVME_RDMA_PORT 4420

struct nvme_rdma_cm_request {
	uint16_t recfmt;
	uint16_t qid;
	uint16_t hrqsize; /* entries of the host's receive queue */
	uint16_t hsqsize; /* entries of its submission queue, 0's based */
	uint16_t cntlid;  /* of an I/O queue's controller; for the admin queue FFFFh or reserved */
	uint8_t rsvd[22];
};

static_assert(sizeof(struct nvme_rdma_cm_request) == 32, "RDMA_CM_REQUEST");
static_assert(offsetof(struct nvme_rdma_cm_request, cntlid) == 8, "CNTLID of a request");

struct nvme_rdma_cm_accept {
	uint16_t recfmt;
	uint16_t crqsize; /* entries of the controller's receive queue */
	uint8_t rsvd[28];
};

static_assert(sizeof(struct nvme_rdma_cm_accept) == 32, "RDMA_CM_ACCEPT");

struct nvme_rdma_cm_reject {
	uint16_t recfmt;
	uint16_t sts;
};

static_assert(sizeof(struct nvme_rdma_cm_reject) == 4, "RDMA_CM_REJECT");

enum nvme_rdma_cm_status {
	NVME_RDMA_CM_OK = 0, /* ours: no rejection */
	NVME_RDMA_CM_INVALID_LEN = 1,
	NVME_RDMA_CM_INVALID_RECFMT = 2,
	NVME_RDMA_CM_INVALID_QID = 3,
	NVME_RDMA_CM_INVALID_HSQSIZE = 4,
	NVME_RDMA_CM_INVALID_HRQSIZE = 5,
	NVME_RDMA_CM_NO_RESOURCES = 6,
	NVME_RDMA_CM_INVALID_IRD = 7,
	NVME_RDMA_CM_INVALID_ORD = 8,
	NVME_RDMA_CM_INVALID_CNTLID = 9,
};

const char *nvme_rdma_cm_status_name(uint16_t sts); /* never NULL */

#endif
