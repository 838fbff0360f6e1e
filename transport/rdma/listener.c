/*
 * Listeners: connection requests come to the app thread, are checked there, and go to the poll group that nvmf picks.
 *
 * A listener outlives its closing until the last connection that came in by it is gone, because that is how nvmf tells which
 * listener a connection belongs to.
 */
#include <errno.h>
#include <stdlib.h>

#include "transport/rdma/internal.h"

/* On its way from the app thread to the group's. */
struct arrival {
	struct rdma_group *group;
	struct rdma_listener *listener;
	struct rnic_conn *rnic;
	struct rdma_request request;
};

void rdma_listener_put(struct rdma_listener *listener)
{
	if (atomic_fetch_sub(&listener->refs, 1) == 1)
		free(listener);
}

static void arrive(void *arg)
{
	struct arrival *arrival = arg;

	rdma_conn_start(arrival->group, arrival->listener, arrival->rnic, &arrival->request);
	free(arrival);
}

static void requested(void *arg, struct rnic_conn *rnic, const struct rnic_params *params)
{
	struct rdma_listener *listener = arg;
	enum nvme_rdma_cm_status status;
	struct rdma_request request;
	struct nvmf_group *group;
	struct arrival *arrival;

	status = rdma_cm_check_request(params, nvmf_target_transport_opts(listener->target, &rdma_transport_ops), &request);
	if (status == NVME_RDMA_CM_OK && request.cntlid &&
	    !nvmf_target_has_ctrlr(listener->target, &rdma_transport_ops, request.cntlid))
		status = NVME_RDMA_CM_INVALID_CNTLID;
	if (status != NVME_RDMA_CM_OK) {
		rdma_cm_reject(rnic, status);
		return;
	}
	group = nvmf_target_pick_group(listener->target);
	arrival = group ? malloc(sizeof(*arrival)) : NULL;
	if (!arrival) {
		rdma_cm_reject(rnic, NVME_RDMA_CM_NO_RESOURCES);
		return;
	}
	atomic_fetch_add(&listener->refs, 1);
	*arrival = (struct arrival){ nvmf_group_transport(group, &rdma_transport_ops), listener, rnic, request };
	rnic_conn_give(rnic, nvmf_group_thread(group));
	thread_send(nvmf_group_thread(group), arrive, arrival);
}

fiber_fn int rdma_listener_listen(const struct nvmf_listen_opts *opts, struct nvmf_target *target, void **ret_listener)
{
	struct rdma_listener *listener = calloc(1, sizeof(*listener));
	int rc;

	if (!listener)
		return -ENOMEM;
	listener->target = target;
	atomic_store(&listener->refs, 1);
	rc = rnic_listen(&opts->addr, opts->backlog, requested, listener, &listener->rnic_listener);
	if (rc) {
		free(listener);
		return rc;
	}
	*ret_listener = listener;
	return 0;
}

fiber_fn void rdma_listener_stop(void *arg)
{
	struct rdma_listener *listener = arg;

	rnic_listener_close(listener->rnic_listener);
	listener->rnic_listener = NULL;
	rdma_listener_put(listener);
}
