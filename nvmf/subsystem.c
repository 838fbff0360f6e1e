/* Subsystems: created and deleted on the app thread, each with a part in every group. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

bool nvmf_nqn_is_valid(const char *nqn)
{
	return nvme_nqn_is_valid(nqn, strnlen(nqn, NVMF_NQN_SIZE) + 1);
}

/* Serial and model numbers: printable ASCII, as Identify Controller wants it. */
static bool text_is_valid(const char *text, size_t max)
{
	size_t len = strlen(text);

	if (!len || len > max)
		return false;
	for (; *text; text++) {
		if (*text < 0x20 || *text > 0x7e)
			return false;
	}
	return true;
}

static int subsystem_check(const struct nvmf_subsystem_opts *opts, bool discovery)
{
	uint16_t min = opts->min_cntlid ? opts->min_cntlid : 1,
		 max = opts->max_cntlid ? opts->max_cntlid : NVME_CNTLID_MAX;

	if (!discovery && (!nvmf_nqn_is_valid(opts->nqn) || !strcmp(opts->nqn, NVMF_DISCOVERY_NQN)))
		return -EINVAL;
	if (opts->serial && !text_is_valid(opts->serial, NVMF_SERIAL_MAX))
		return -EINVAL;
	if (opts->model && !text_is_valid(opts->model, NVMF_MODEL_MAX))
		return -EINVAL;
	if (opts->max_namespaces > 65535 || min > max || max > NVME_CNTLID_MAX)
		return -EINVAL;
	return 0;
}

static void subsystem_free(struct nvmf_subsystem *sub)
{
	struct list *it;

	while ((it = list_pop(&sub->hosts)))
		free(list_entry(it, struct nvmf_host, link));
	free(sub->ns);
	free(sub->error_recovery);
	free(sub);
}

static struct nvmf_subsystem *subsystem_alloc(struct nvmf_target *target,
					      const struct nvmf_subsystem_opts *opts, bool discovery)
{
	struct nvmf_subsystem *sub = calloc(1, sizeof(*sub));

	if (!sub)
		return NULL;
	sub->target = target;
	sub->discovery = discovery;
	snprintf(sub->nqn, sizeof(sub->nqn), "%s", opts->nqn);
	if (opts->serial)
		snprintf(sub->serial, sizeof(sub->serial), "%s", opts->serial);
	else
		nvmf_derive_serial(opts->nqn, sub->serial);
	snprintf(sub->model, sizeof(sub->model), "%s", opts->model ? opts->model : target->model);
	sub->max_namespaces = opts->max_namespaces ? opts->max_namespaces : NVMF_DEFAULT_MAX_NAMESPACES;
	sub->min_cntlid = opts->min_cntlid ? opts->min_cntlid : 1;
	sub->max_cntlid = opts->max_cntlid ? opts->max_cntlid : NVME_CNTLID_MAX;
	sub->next_cntlid = sub->min_cntlid;
	sub->dmrsl = opts->dmrsl;
	sub->wzsl = opts->wzsl;
	sub->allow_any_host = opts->allow_any_host;
	list_init(&sub->link);
	list_init(&sub->hosts);
	list_init(&sub->listeners);
	list_init(&sub->ctrlrs);
	fiber_cond_init(&sub->ctrlr_gone);
	sub->ns = calloc(sub->max_namespaces + 1, sizeof(sub->ns[0]));
	sub->error_recovery = calloc(sub->max_namespaces + 1, sizeof(sub->error_recovery[0]));
	if (!sub->ns || !sub->error_recovery) {
		subsystem_free(sub);
		return NULL;
	}
	return sub;
}

fiber_fn int nvmf_subsystem_create_locked(struct nvmf_target *target, const struct nvmf_subsystem_opts *opts,
					  bool discovery, struct nvmf_subsystem **ret_subsystem)
{
	struct nvmf_subsystem *sub;
	int rc = subsystem_check(opts, discovery);

	if (rc)
		return rc;
	if (nvmf_subsystem_find(target, opts->nqn))
		return -EEXIST;
	sub = subsystem_alloc(target, opts, discovery);
	if (!sub)
		return -ENOMEM;
	rc = nvmf_groups_add_subsystem(sub);
	if (rc) {
		subsystem_free(sub);
		return rc;
	}
	list_add_tail(&target->subsystems, &sub->link);
	*ret_subsystem = sub;
	return 0;
}

fiber_fn int nvmf_subsystem_create(struct nvmf_target *target, const struct nvmf_subsystem_opts *opts,
				   struct nvmf_subsystem **ret_subsystem)
{
	int rc;

	fiber_lock(&target->config);
	rc = target->stopping ? -ESHUTDOWN : nvmf_subsystem_create_locked(target, opts, false, ret_subsystem);
	fiber_unlock(&target->config);
	return rc;
}

/*
 * Takes the configuration's lock for a change to a subsystem.  Waiting for it is a suspension, during which
 * the subsystem may be deleted: those who wait keep its memory.  0, or -EBUSY when it is being or has been
 * deleted; the lock is then not held.
 */
fiber_fn int nvmf_subsystem_lock(struct nvmf_subsystem *sub)
{
	struct nvmf_target *target = sub->target;
	bool deleting;

	sub->nr_lockers++;
	fiber_lock(&target->config);
	sub->nr_lockers--;
	deleting = sub->deleting;
	if (sub->deleted && !sub->nr_lockers)
		subsystem_free(sub);
	if (deleting)
		fiber_unlock(&target->config);
	return deleting ? -EBUSY : 0;
}

static bool every_ctrlr(struct nvmf_ctrlr *ctrlr, void *arg)
{
	return true;
}

fiber_fn int nvmf_subsystem_delete_locked(struct nvmf_subsystem *sub)
{
	if (sub->deleting)
		return -EBUSY;
	sub->deleting = true;
	nvmf_listeners_remove_all(sub);
	nvmf_subsystem_end_ctrlrs(sub, every_ctrlr, NULL);
	nvmf_ns_remove_all(sub);
	nvmf_groups_remove_subsystem(sub);
	list_del(&sub->link);
	sub->deleted = true;
	if (!sub->nr_lockers)
		subsystem_free(sub);
	return 0;
}

fiber_fn int nvmf_subsystem_delete(struct nvmf_subsystem *sub)
{
	struct nvmf_target *target = sub->target;
	int rc;

	if (sub->discovery)
		return -EPERM;
	rc = nvmf_subsystem_lock(sub);
	if (rc)
		return rc;
	rc = nvmf_subsystem_delete_locked(sub);
	fiber_unlock(&target->config);
	return rc;
}

struct nvmf_subsystem *nvmf_subsystem_find(struct nvmf_target *target, const char *nqn)
{
	struct list *it;

	list_for_each(it, &target->subsystems) {
		struct nvmf_subsystem *sub = list_entry(it, struct nvmf_subsystem, link);

		if (!sub->deleting && !strcmp(sub->nqn, nqn))
			return sub;
	}
	return NULL;
}

struct nvmf_subsystem *nvmf_subsystem_first(struct nvmf_target *target)
{
	return list_entry(target->subsystems.next, struct nvmf_subsystem, link);
}

struct nvmf_subsystem *nvmf_subsystem_next(struct nvmf_subsystem *sub)
{
	return sub->link.next == &sub->target->subsystems ?
		       NULL :
		       list_entry(sub->link.next, struct nvmf_subsystem, link);
}

static unsigned list_length(const struct list *head)
{
	const struct list *it;
	unsigned nr = 0;

	list_for_each(it, head)
		nr++;
	return nr;
}

void nvmf_subsystem_info(struct nvmf_subsystem *sub, struct nvmf_subsystem_info *ret_info)
{
	*ret_info = (struct nvmf_subsystem_info){
		.nqn = sub->nqn,
		.serial = sub->serial,
		.model = sub->model,
		.discovery = sub->discovery,
		.allow_any_host = sub->allow_any_host,
		.max_namespaces = sub->max_namespaces,
		.min_cntlid = sub->min_cntlid,
		.max_cntlid = sub->max_cntlid,
		.dmrsl = sub->dmrsl,
		.wzsl = sub->wzsl,
		.nr_hosts = list_length(&sub->hosts),
		.nr_listeners = list_length(&sub->listeners),
		.nr_namespaces = sub->nr_namespaces,
		.nr_ctrlrs = sub->nr_ctrlrs,
	};
}

static bool any_ctrlr(struct nvmf_subsystem *sub, bool (*ends)(struct nvmf_ctrlr *, void *), void *arg)
{
	struct list *it;

	list_for_each(it, &sub->ctrlrs) {
		if (ends(list_entry(it, struct nvmf_ctrlr, sub_link), arg))
			return true;
	}
	return false;
}

/* Ends the associations that @ends names and waits until their CNTLIDs are free.  What executes at bdevs is
 * waited for, five seconds at most before its connection is cut; after that the bdevs are obliged to answer.
 */
fiber_fn void nvmf_subsystem_end_ctrlrs(struct nvmf_subsystem *sub, bool (*ends)(struct nvmf_ctrlr *, void *),
					void *arg)
{
	struct list *it;

	list_for_each(it, &sub->ctrlrs) {
		struct nvmf_ctrlr *ctrlr = list_entry(it, struct nvmf_ctrlr, sub_link);

		if (ends(ctrlr, arg) && !ctrlr->ending) {
			ctrlr->ending = true;
			nvmf_ctrlr_end_from_app(ctrlr);
		}
	}
	while (any_ctrlr(sub, ends, arg))
		fiber_cond_wait(&sub->ctrlr_gone);
}
