/* The TCP transport as nvmf sees it: its operations, its defaults, and what it has in each poll group. */
#include <errno.h>
#include <stdlib.h>

#include "transport/tcp/internal.h"

static void group_tick(void *arg)
{
	struct tcp_group *group = arg;
	struct list *it, *tmp;

	group->tick++;
	list_for_each_safe(it, tmp, &group->conns)
		conn_check_stall(container_of(it, struct tcp_conn, group_link));
	if (!list_empty(&group->conns))
		timer_arm(&group->tick_timer, TCP_TICK_US);
}

/* A quarter of the pool for one connection, within bounds. */
static uint32_t inflight_max_bytes(void)
{
	struct iobuf_stats stats;
	uint64_t bytes;

	iobuf_get_stats(&stats);
	bytes = stats.nr_large * IOBUF_LARGE_SIZE / 4;
	if (bytes < TCP_INFLIGHT_MIN_BYTES)
		return TCP_INFLIGHT_MIN_BYTES;
	return bytes > TCP_INFLIGHT_MAX_BYTES ? TCP_INFLIGHT_MAX_BYTES : (uint32_t)bytes;
}

int group_create(struct nvmf_group *nvmf_group, void **ret_tgroup)
{
	struct tcp_group *group = calloc(1, sizeof(*group));

	if (!group)
		return -ENOMEM;
	group->group = nvmf_group;
	list_init(&group->conns);
	list_init(&group->handshaking);
	timer_init(&group->tick_timer, group_tick, group);
	group->inflight_max_bytes = inflight_max_bytes();
	if (chunk_group_init(group)) {
		free(group);
		return -ENOMEM;
	}
	*ret_tgroup = group;
	return 0;
}

void group_free_if_over(struct tcp_group *group)
{
	if (!group->destroyed || !list_empty(&group->conns))
		return;
	timer_cancel(&group->tick_timer);
	chunk_group_fini(group);
	free(group);
}

/* nvmf has nothing of any connection; some may still wait for their host's end, and their last task. */
void group_destroy(struct nvmf_group *nvmf_group, void *tgroup)
{
	struct tcp_group *group = tgroup;
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &group->conns)
		conn_drop(container_of(it, struct tcp_conn, group_link), "the target ends");
	group->destroyed = true;
	group_free_if_over(group);
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
		.acceptor_backlog = 512,
		.c2h_success = true,
	};
}

const struct nvmf_transport_ops tcp_transport_ops = {
	.name = "TCP",
	.trtype = NVME_TRTYPE_TCP,
	.sgls = NVME_SGLS_OFFSET | NVME_SGLS_TRANSPORT,
	.max_descriptors = 1,
	.discovery_port = true,
	.opts_default = opts_default,
	.group_create = group_create,
	.group_destroy = group_destroy,
	.listen = listener_listen,
	.stop_listen = listener_stop,
	.parse_sgl = req_parse_sgl,
	.receive_data = req_receive_data,
	.complete = req_complete,
	.close = conn_close,
	.abort_held = req_abort_deferred,
	.local_addr = conn_local_addr,
	.peer_addr = conn_peer_addr,
};
