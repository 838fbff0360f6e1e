/* What is asked about controllers and queues, collected over the groups' threads. */
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

/* --- controllers --------------------------------------------------------------------------- */

struct ctrlr_query {
	struct nvmf_group_subsystem *gsub;
	struct nvmf_ctrlr_info *infos;
	unsigned nr, room;
};

static int ctrlrs_collect(void *arg)
{
	struct ctrlr_query *query = arg;
	struct list *it;

	list_for_each(it, &query->gsub->ctrlrs) {
		const struct nvmf_ctrlr *ctrlr = list_entry(it, struct nvmf_ctrlr, gsub_link);
		struct nvmf_ctrlr_info *info = &query->infos[query->nr];

		/* Those that came since the room was made are left out. */
		if (query->nr == query->room)
			break;
		info->cntlid = ctrlr->cntlid;
		info->kato_ms = ctrlr->kato_ms;
		info->nr_queues = ctrlr->nr_io_queues + 1;
		memcpy(info->host_nqn, ctrlr->host_nqn, sizeof(info->host_nqn));
		memcpy(info->host_id, ctrlr->host_id, sizeof(info->host_id));
		query->nr++;
	}
	return 0;
}

static int by_cntlid(const void *a, const void *b)
{
	const struct nvmf_ctrlr_info *one = a, *other = b;

	return (int)one->cntlid - (int)other->cntlid;
}

fiber_fn int nvmf_subsystem_get_ctrlrs(struct nvmf_subsystem *sub, struct nvmf_ctrlr_info **ret_infos,
				       unsigned *ret_nr)
{
	struct nvmf_target *target = sub->target;
	struct ctrlr_query query = { .room = sub->nr_ctrlrs };
	int rc;

	query.infos = calloc(query.room + 1, sizeof(query.infos[0]));
	if (!query.infos)
		return -ENOMEM;
	rc = nvmf_subsystem_lock(sub);
	if (rc) {
		free(query.infos);
		return rc;
	}
	for (unsigned i = 0; i < target->nr_groups; i++) {
		query.gsub = sub->gsubs[i];
		thread_call(target->groups[i]->thread, ctrlrs_collect, &query);
	}
	fiber_unlock(&target->config);
	qsort(query.infos, query.nr, sizeof(query.infos[0]), by_cntlid);
	*ret_infos = query.infos;
	*ret_nr = query.nr;
	return 0;
}

/* --- queues -------------------------------------------------------------------------------- */

struct qpair_query {
	struct nvmf_group *group;
	const struct nvmf_subsystem *subsystem;
	struct nvmf_qpair_info *infos;
	unsigned nr;
};

static void qpair_describe(const struct nvmf_qpair *qpair, struct nvmf_qpair_info *info)
{
	memset(info, 0, sizeof(*info));
	info->cntlid = qpair->ctrlr->cntlid;
	info->qid = qpair->qid;
	info->state = qpair->closing ? "deactivating" : "active";
	strncpy(info->thread, thread_name(qpair->group->thread), sizeof(info->thread) - 1);
	memcpy(info->host_nqn, qpair->ctrlr->host_nqn, sizeof(info->host_nqn));
	info->trtype = qpair->ops->name;
	info->header_digest = qpair->header_digest;
	info->data_digest = qpair->data_digest;
	info->sq_size = qpair->sq_size;
	info->nr_outstanding = qpair->nr_outstanding;
	if (qpair->disconnected)
		return;
	qpair->ops->local_addr((struct nvmf_qpair *)(uintptr_t)qpair, &info->local_addr);
	qpair->ops->peer_addr((struct nvmf_qpair *)(uintptr_t)qpair, &info->peer_addr);
}

static int qpairs_collect(void *arg)
{
	struct qpair_query *query = arg;
	struct nvmf_qpair_info *infos;
	struct list *it;
	unsigned nr = 0;

	list_for_each(it, &query->group->qpairs)
		nr++;
	infos = realloc(query->infos, (query->nr + nr + 1) * sizeof(infos[0]));
	if (!infos)
		return -ENOMEM;
	query->infos = infos;
	list_for_each(it, &query->group->qpairs) {
		const struct nvmf_qpair *qpair = list_entry(it, struct nvmf_qpair, group_link);

		if (qpair->ctrlr && qpair->ctrlr->subsystem == query->subsystem)
			qpair_describe(qpair, &infos[query->nr++]);
	}
	return 0;
}

static int by_queue(const void *a, const void *b)
{
	const struct nvmf_qpair_info *one = a, *other = b;

	return one->cntlid != other->cntlid ? (int)one->cntlid - (int)other->cntlid :
					      (int)one->qid - (int)other->qid;
}

fiber_fn int nvmf_subsystem_get_qpairs(struct nvmf_subsystem *sub, struct nvmf_qpair_info **ret_infos,
				       unsigned *ret_nr)
{
	struct nvmf_target *target = sub->target;
	struct qpair_query query = { .subsystem = sub };
	int rc = nvmf_subsystem_lock(sub);

	if (rc)
		return rc;
	for (unsigned i = 0; i < target->nr_groups && !rc; i++) {
		query.group = target->groups[i];
		rc = thread_call(query.group->thread, qpairs_collect, &query);
	}
	fiber_unlock(&target->config);
	if (rc) {
		free(query.infos);
		return rc;
	}
	qsort(query.infos, query.nr, sizeof(query.infos[0]), by_queue);
	*ret_infos = query.infos;
	*ret_nr = query.nr;
	return 0;
}
