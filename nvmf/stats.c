/* Statistics by poll group: queues, commands, and what each transport has counted for its devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

struct stats_query {
	struct nvmf_group *group;
	struct nvmf_group_stats *stats;
};

void nvmf_group_count_buffer_wait(struct nvmf_group *group, const struct nvmf_transport_ops *ops)
{
	for (unsigned i = 0; i < group->target->nr_transports; i++)
		group->nr_buffer_waits[i] += group->target->transports[i].ops == ops;
}

static int collect_devices(struct nvmf_group *group, unsigned idx, struct nvmf_transport_stats *stats)
{
	const struct nvmf_transport_ops *ops = group->target->transports[idx].ops;
	struct nvmf_device_stats device, *devices;

	stats->trtype = ops->name;
	stats->nr_buffer_waits = group->nr_buffer_waits[idx];
	while (ops->device_stats && ops->device_stats(group->tgroups[idx], stats->nr_devices, &device) == 0) {
		devices = realloc(stats->devices, (stats->nr_devices + 1) * sizeof(device));
		if (!devices)
			return -ENOMEM;
		stats->devices = devices;
		stats->devices[stats->nr_devices++] = device;
	}
	return 0;
}

static void count_qpairs(struct nvmf_group *group, struct nvmf_group_stats *stats)
{
	struct list *it, *req;

	list_for_each(it, &group->qpairs) {
		const struct nvmf_qpair *qpair = list_entry(it, struct nvmf_qpair, group_link);

		stats->nr_current_io_qpairs += qpair->connected && qpair->qid;
		stats->nr_current_admin_qpairs += qpair->connected && !qpair->qid;
		list_for_each(req, &qpair->outstanding) {
			const struct nvmf_req *nreq = list_entry(req, struct nvmf_req, link);

			stats->nr_pending_bdev_io += nreq->state == NVMF_REQ_EXECUTING && nreq->gns;
		}
	}
}

static int collect(void *arg)
{
	struct stats_query *query = arg;
	struct nvmf_group *group = query->group;
	struct nvmf_group_stats *stats = query->stats;
	int rc = 0;

	snprintf(stats->name, sizeof(stats->name), "%s", thread_name(group->thread));
	stats->nr_admin_qpairs = group->nr_admin_qpairs;
	stats->nr_io_qpairs = group->nr_io_qpairs;
	stats->nr_completed = group->nr_completed;
	count_qpairs(group, stats);
	for (unsigned i = 0; i < group->target->nr_transports && !rc; i++) {
		if (group->target->transports[i].created)
			rc = collect_devices(group, i, &stats->transports[stats->nr_transports++]);
	}
	return rc;
}

void nvmf_stats_free(struct nvmf_group_stats *stats, unsigned nr)
{
	for (unsigned i = 0; stats && i < nr; i++) {
		for (unsigned k = 0; k < stats[i].nr_transports; k++)
			free(stats[i].transports[k].devices);
	}
	free(stats);
}

fiber_fn int nvmf_get_stats(struct nvmf_target *target, struct nvmf_group_stats **ret_stats, unsigned *ret_nr)
{
	unsigned nr = target->nr_groups;
	struct nvmf_group_stats *stats = calloc(nr + 1, sizeof(*stats));
	int rc = 0;

	static_assert(sizeof(stats->transports) / sizeof(stats->transports[0]) == NVMF_MAX_TRANSPORTS, "one for each");
	if (!stats)
		return -ENOMEM;
	fiber_lock(&target->config);
	for (unsigned i = 0; i < nr && !rc; i++) {
		struct stats_query query = { target->groups[i], &stats[i] };

		rc = thread_call(query.group->thread, collect, &query);
	}
	fiber_unlock(&target->config);
	if (rc) {
		nvmf_stats_free(stats, nr);
		return rc;
	}
	*ret_stats = stats;
	*ret_nr = nr;
	return 0;
}
