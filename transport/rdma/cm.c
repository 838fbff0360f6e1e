/*
 * Connection requests as strangers send them: private data decoded and checked, and the specification's numbers for what is
 * wrong with it.
 *
 * An I/O queue's request may name its controller.  Hosts from before the specification had that send 0 (Linux before 6.12 does), which
 * no controller of ours has; the admin queue's controller is not known yet, and what SPDK's host sends there is that of the connection
 * before.  So 0, and anything for an admin queue, is passed over.
 *
 * Source: NVMe over RDMA Transport Specification 1.0, 3.2.
 */
#include <string.h>

#include "transport/rdma/internal.h"

enum nvme_rdma_cm_status rdma_cm_check_request(const struct rnic_params *params, const struct nvmf_transport_opts *opts,
					  struct rdma_request *ret_request)
{
	struct nvme_rdma_cm_request asked;

	if (params->private_len < sizeof(asked))
		return NVME_RDMA_CM_INVALID_LEN;
	memcpy(&asked, params->private_data, sizeof(asked));
	if (asked.recfmt)
		return NVME_RDMA_CM_INVALID_RECFMT;
	if (asked.qid > opts->max_io_qpairs_per_ctrlr)
		return NVME_RDMA_CM_INVALID_QID;
	/* Connect wants SQSIZE, which is the same number, to be at least 1. */
	if (!asked.hsqsize || asked.hsqsize + 1u > (asked.qid ? opts->max_queue_depth : opts->max_aq_depth))
		return NVME_RDMA_CM_INVALID_HSQSIZE;
	if (!asked.hrqsize)
		return NVME_RDMA_CM_INVALID_HRQSIZE;
	/* A host that serves no RDMA READ could never write anything larger than its capsules. */
	if (!params->reads)
		return NVME_RDMA_CM_INVALID_IRD;
	if (asked.qid && asked.cntlid > NVME_CNTLID_MAX)
		return NVME_RDMA_CM_INVALID_CNTLID;
	*ret_request = (struct rdma_request){
		.qid = asked.qid,
		.cntlid = asked.qid ? asked.cntlid : 0,
		.depth = asked.hsqsize + 1u,
		.hrqsize = asked.hrqsize,
		.reads = params->reads,
		.peer_reads = params->peer_reads,
	};
	return NVME_RDMA_CM_OK;
}

void rdma_cm_reject(struct rnic_conn *conn, enum nvme_rdma_cm_status status)
{
	struct nvme_rdma_cm_reject reject = { .sts = (uint16_t)status };

	log_info("a connection request is rejected: %s", nvme_rdma_cm_status_name((uint16_t)status));
	rnic_reject(conn, &reject, sizeof(reject));
	rnic_conn_destroy(conn);
}
