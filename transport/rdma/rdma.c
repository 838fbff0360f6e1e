/* The RDMA transport as nvmf sees it: its operations, its defaults, and what it has in each poll group. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "transport/rdma/internal.h"

static void group_tick(void *arg)
{
	struct rdma_group *group = arg;
	struct list *it;

	list_for_each(it, &group->conns)
		rdma_conn_check_stall(list_entry(it, struct rdma_conn, group_link));
	if (!list_empty(&group->conns))
		timer_arm(&group->tick_timer, RDMA_TICK_US);
}

int rdma_group_create(struct nvmf_group *nvmf_group, void **ret_tgroup)
{
	struct rdma_group *group = calloc(1, sizeof(*group));

	if (!group)
		return -ENOMEM;
	group->group = nvmf_group;
	list_init(&group->conns);
	list_init(&group->ports);
	list_init(&group->handshaking);
	timer_init(&group->tick_timer, group_tick, group);
	*ret_tgroup = group;
	return 0;
}

void rdma_group_free_if_over(struct rdma_group *group)
{
	struct list *link;

	if (!group->destroyed || !list_empty(&group->conns))
		return;
	timer_cancel(&group->tick_timer);
	while ((link = list_first(&group->ports)))
		rdma_port_free(list_entry(link, struct rdma_port, link));
	free(group);
}

/* nvmf has nothing of any connection; some may still wait for what they have posted, or their last task. */
void rdma_group_destroy(struct nvmf_group *nvmf_group, void *tgroup)
{
	struct rdma_group *group = tgroup;

	group->destroyed = true;
	rdma_group_free_if_over(group);
}

int rdma_check_memory(const struct nvmf_transport_opts *opts, uint64_t left_bytes, char *ret_why, size_t size)
{
	uint64_t bytes = rdma_slots_bytes(opts->no_srq ? 0 : opts->max_srq_depth, opts->in_capsule_data_size);

	if (bytes <= left_bytes / RDMA_SLOTS_SHARE)
		return 0;
	snprintf(ret_why, size,
		 "shared receives would take %llu MiB for each poll group and device, and %llu MiB of memory are left: lower max_srq_depth or "
		 "in_capsule_data_size, or give more with --mem",
		 (unsigned long long)(bytes >> 20), (unsigned long long)(left_bytes >> 20));
	return -ENOMEM;
}

static int check(const struct nvmf_transport_opts *opts, char *ret_why, size_t size)
{
	int rc = rnic_available(ret_why, size);

	return rc ? rc : rdma_check_memory(opts, dma_left_bytes(), ret_why, size);
}

static void opts_default(struct nvmf_transport_opts *opts)
{
	*opts = (struct nvmf_transport_opts){
		.max_queue_depth = 128,
		.max_io_qpairs_per_ctrlr = 127,
		.in_capsule_data_size = 4096,
		.max_io_size = NVMF_MAX_XFER,
		.max_aq_depth = 128,
		.abort_timeout_sec = 1,
		.acceptor_backlog = 100,
		.max_srq_depth = 4096,
	};
}

const struct nvmf_transport_ops rdma_transport_ops = {
	.name = "RDMA",
	.trtype = NVME_TRTYPE_RDMA,
	.sgls = NVME_SGLS_KEYED | NVME_SGLS_OFFSET,
	.max_descriptors = RDMA_MAX_DESCRIPTORS,
	/* Discovery: reliable connected queue pairs, no provider named, by the RDMA connection manager. */
	.tsas = { 1, 1, 1 },
	.check = check,
	.opts_default = opts_default,
	.group_create = rdma_group_create,
	.group_destroy = rdma_group_destroy,
	.listen = rdma_listener_listen,
	.stop_listen = rdma_listener_stop,
	.parse_sgl = rdma_req_parse_sgl,
	.receive_data = rdma_req_receive_data,
	.complete = rdma_req_complete,
	.close = rdma_conn_close,
	.device_stats = rdma_device_stats,
	.local_addr = rdma_conn_local_addr,
	.peer_addr = rdma_conn_peer_addr,
};
