/*
 * Poll groups: one thread on each reactor that owns connections and has a part of every subsystem, namespace
 * by namespace.  The app thread changes these parts by calling onto the group's thread, one group after the
 * other; I/O goes on meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

#define SWEEP_PERIOD_US 1000000u

/* Cuts off hosts that began a write and do not send its data, and ends first halves whose second does not
 * come. */
static void sweep_qpair(struct nvmf_qpair *qpair, uint64_t oldest_ticks)
{
	struct list *it;

	list_for_each(it, &qpair->outstanding) {
		struct nvmf_req *req = list_entry(it, struct nvmf_req, link);

		if ((int64_t)(req->start_ticks - oldest_ticks) >= 0)
			continue;
		if (req->state == NVMF_REQ_FUSED_WAIT && req == qpair->first_fused) {
			nvmf_req_cancel(req, NVME_SC_ABORTED_MISSING_FUSED);
			return;
		}
		if (req->state == NVMF_REQ_NEED_DATA) {
			log_notice(
				"a host began a write and sent no data for %llu s: its connection is closed",
				NVMF_DATA_TIMEOUT_US / 1000000);
			nvmf_qpair_close(qpair, false);
			return;
		}
	}
}

static enum poll_result sweep(void *arg)
{
	struct nvmf_group *group = arg;
	uint64_t oldest_ticks = clock_ticks() - NVMF_DATA_TIMEOUT_US / 1000 * (clock_tick_rate() / 1000);
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &group->qpairs) {
		struct nvmf_qpair *qpair = list_entry(it, struct nvmf_qpair, group_link);

		if (qpair->connected && !qpair->qid && !qpair->closing && !qpair->ctrlr->discovery)
			nvmf_temperature_check(qpair->ctrlr);
		sweep_qpair(qpair, oldest_ticks);
	}
	return POLL_IDLE;
}

static int group_init(void *arg)
{
	struct nvmf_group *group = arg;

	group->sweeper = poller_start("nvmf_sweep", sweep, group, SWEEP_PERIOD_US);
	return group->sweeper ? 0 : -ENOMEM;
}

fiber_fn int nvmf_group_create(struct nvmf_target *target, unsigned reactor, struct nvmf_group **ret_group)
{
	struct nvmf_group *group = calloc(1, sizeof(*group));
	char name[32];
	int rc;

	if (!group)
		return -ENOMEM;
	group->target = target;
	group->idx = target->nr_groups;
	list_init(&group->qpairs);
	list_init(&group->large_waiters);
	snprintf(name, sizeof(name), "nvmf_tgt_poll_group_%03u", group->idx);
	group->thread = thread_create(name, reactor);
	if (!group->thread) {
		free(group);
		return -ENOMEM;
	}
	rc = thread_call(group->thread, group_init, group);
	if (rc) {
		thread_exit(group->thread);
		free(group);
		return rc;
	}
	*ret_group = group;
	return 0;
}

fiber_fn static int group_stop(void *arg)
{
	struct nvmf_group *group = arg;
	struct fiber_wait empty;
	struct list *it, *tmp;

	if (!list_empty(&group->qpairs)) {
		fiber_wait_init(&empty);
		group->empty = &empty;
		list_for_each_safe(it, tmp, &group->qpairs)
			nvmf_qpair_close(list_entry(it, struct nvmf_qpair, group_link), false);
		fiber_wait(&empty);
		group->empty = NULL;
	}
	for (unsigned i = 0; i < group->target->nr_transports; i++) {
		if (group->target->transports[i].created)
			group->target->transports[i].ops->group_destroy(group, group->tgroups[i]);
	}
	poller_stop(group->sweeper);
	return 0;
}

fiber_fn void nvmf_group_destroy(struct nvmf_group *group)
{
	thread_call_fiber(group->thread, group_stop, group);
	thread_exit(group->thread);
	free(group);
}

struct nvmf_group *nvmf_target_pick_group(struct nvmf_target *target)
{
	static atomic_uint turn;
	unsigned first = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % target->nr_groups;
	struct nvmf_group *best = target->groups[first];

	/* Fewest connections; among equals in turn, since a burst is placed before it is counted. */
	for (unsigned i = 1; i < target->nr_groups; i++) {
		struct nvmf_group *group = target->groups[(first + i) % target->nr_groups];

		if (atomic_load_explicit(&group->nr_qpairs, memory_order_relaxed) + 1 <
		    atomic_load_explicit(&best->nr_qpairs, memory_order_relaxed))
			best = group;
	}
	return best;
}

struct nvmf_qpair *nvmf_group_find_qpair(struct nvmf_group *group, const struct nvmf_ctrlr *ctrlr,
					 uint16_t qid)
{
	struct list *it;

	list_for_each(it, &group->qpairs) {
		struct nvmf_qpair *qpair = list_entry(it, struct nvmf_qpair, group_link);

		if (qpair->ctrlr == ctrlr && qpair->qid == qid)
			return qpair;
	}
	return NULL;
}

struct thread *nvmf_group_thread(struct nvmf_group *group)
{
	return group->thread;
}

void *nvmf_group_transport(struct nvmf_group *group, const struct nvmf_transport_ops *ops)
{
	for (unsigned i = 0; i < group->target->nr_transports; i++) {
		if (group->target->transports[i].ops == ops)
			return group->tgroups[i];
	}
	return NULL;
}

/* --- subsystems ---------------------------------------------------------------------------- */

struct sub_args {
	struct nvmf_subsystem *subsystem;
	struct nvmf_group *group;
};

static int gsub_create(void *arg)
{
	struct sub_args *args = arg;
	struct nvmf_group_subsystem *gsub = calloc(1, sizeof(*gsub));

	if (!gsub)
		return -ENOMEM;
	gsub->subsystem = args->subsystem;
	gsub->group = args->group;
	list_init(&gsub->ctrlrs);
	args->subsystem->gsubs[args->group->idx] = gsub;
	return 0;
}

static int gsub_destroy(void *arg)
{
	struct sub_args *args = arg;
	struct nvmf_group_subsystem *gsub = args->subsystem->gsubs[args->group->idx];

	if (!gsub)
		return 0;
	assert(list_empty(&gsub->ctrlrs));
	args->subsystem->gsubs[args->group->idx] = NULL;
	free(gsub->ns);
	free(gsub);
	return 0;
}

fiber_fn int nvmf_groups_add_subsystem(struct nvmf_subsystem *sub)
{
	struct nvmf_target *target = sub->target;
	int rc = 0;

	for (unsigned i = 0; i < target->nr_groups && !rc; i++) {
		struct sub_args args = { sub, target->groups[i] };

		rc = thread_call(args.group->thread, gsub_create, &args);
	}
	if (rc)
		nvmf_groups_remove_subsystem(sub);
	return rc;
}

fiber_fn void nvmf_groups_remove_subsystem(struct nvmf_subsystem *sub)
{
	struct nvmf_target *target = sub->target;

	for (unsigned i = 0; i < target->nr_groups; i++) {
		struct sub_args args = { sub, target->groups[i] };

		thread_call(args.group->thread, gsub_destroy, &args);
	}
}

/* --- namespaces ---------------------------------------------------------------------------- */

struct ns_args {
	struct nvmf_ns *ns;
	struct nvmf_group_subsystem *gsub;
};

static int gsub_grow(struct nvmf_group_subsystem *gsub, uint32_t nsid)
{
	uint32_t nr = gsub->nr_slots ? gsub->nr_slots : 8;
	struct nvmf_group_ns **slots;

	while (nr <= nsid)
		nr *= 2;
	if (nr == gsub->nr_slots)
		return 0;
	slots = realloc(gsub->ns, nr * sizeof(slots[0]));
	if (!slots)
		return -ENOMEM;
	memset(slots + gsub->nr_slots, 0, (nr - gsub->nr_slots) * sizeof(slots[0]));
	gsub->ns = slots;
	gsub->nr_slots = nr;
	return 0;
}

static int gns_create(void *arg)
{
	struct ns_args *args = arg;
	struct nvmf_ns *ns = args->ns;
	struct nvmf_group_ns *gns;

	if (gsub_grow(args->gsub, ns->nsid))
		return -ENOMEM;
	gns = calloc(1, sizeof(*gns));
	if (!gns)
		return -ENOMEM;
	gns->ns = ns;
	gns->bdev = ns->bdev;
	gns->block_shift = ns->block_shift;
	gns->has_write_cache = ns->bdev->has_write_cache;
	gns->channel = bdev_channel_get(ns->desc);
	if (!gns->channel) {
		free(gns);
		return -ENOMEM;
	}
	args->gsub->ns[ns->nsid] = gns;
	return 0;
}

/* No command starts on it from here on; those at the bdev are waited for: the bdev is obliged to answer. */
fiber_fn static int gns_destroy(void *arg)
{
	struct ns_args *args = arg;
	struct nvmf_group_subsystem *gsub = args->gsub;
	uint32_t nsid = args->ns->nsid;
	struct nvmf_group_ns *gns = nsid < gsub->nr_slots ? gsub->ns[nsid] : NULL;
	struct fiber_wait idle;

	if (!gns)
		return 0;
	gsub->ns[nsid] = NULL;
	if (gns->nr_inflight) {
		fiber_wait_init(&idle);
		gns->idle = &idle;
		fiber_wait(&idle);
	}
	bdev_channel_put(gns->channel);
	free(gns);
	return 0;
}

static int gns_tell(void *arg)
{
	struct ns_args *args = arg;
	struct list *it;

	list_for_each(it, &args->gsub->ctrlrs)
		nvmf_aer_ns_changed(list_entry(it, struct nvmf_ctrlr, gsub_link), args->ns->nsid);
	return 0;
}

/* Hosts hear of it once all groups know: they may come with I/O at once. */
fiber_fn void nvmf_groups_ns_changed(struct nvmf_ns *ns)
{
	struct nvmf_subsystem *sub = ns->subsystem;

	if (!sub->nr_ctrlrs)
		return;
	for (unsigned i = 0; i < sub->target->nr_groups; i++) {
		struct ns_args args = { ns, sub->gsubs[i] };

		thread_call(sub->target->groups[i]->thread, gns_tell, &args);
	}
}

fiber_fn static void groups_drop_ns(struct nvmf_ns *ns)
{
	struct nvmf_subsystem *sub = ns->subsystem;

	for (unsigned i = 0; i < sub->target->nr_groups; i++) {
		struct ns_args args = { ns, sub->gsubs[i] };

		thread_call_fiber(sub->target->groups[i]->thread, gns_destroy, &args);
	}
}

fiber_fn int nvmf_groups_add_ns(struct nvmf_ns *ns)
{
	struct nvmf_subsystem *sub = ns->subsystem;
	int rc = 0;

	for (unsigned i = 0; i < sub->target->nr_groups && !rc; i++) {
		struct ns_args args = { ns, sub->gsubs[i] };

		rc = thread_call(sub->target->groups[i]->thread, gns_create, &args);
	}
	if (rc)
		groups_drop_ns(ns);
	else
		nvmf_groups_ns_changed(ns);
	return rc;
}

fiber_fn void nvmf_groups_remove_ns(struct nvmf_ns *ns)
{
	groups_drop_ns(ns);
	nvmf_groups_ns_changed(ns);
}
