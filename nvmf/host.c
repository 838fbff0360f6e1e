/* Hosts: who may connect to a subsystem.  Nobody may unless listed, or unless anybody may. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

static struct nvmf_host *host_find(const struct nvmf_subsystem *sub, const char *host_nqn)
{
	struct list *it;

	list_for_each(it, &sub->hosts) {
		struct nvmf_host *host = list_entry(it, struct nvmf_host, link);

		if (!strcmp(host->nqn, host_nqn))
			return host;
	}
	return NULL;
}

bool nvmf_subsystem_allows(const struct nvmf_subsystem *sub, const char *host_nqn)
{
	return sub->allow_any_host || host_find(sub, host_nqn);
}

bool nvmf_subsystem_lists_not(const struct nvmf_subsystem *sub, const char *host_nqn)
{
	return !host_find(sub, host_nqn);
}

fiber_fn int nvmf_subsystem_add_host(struct nvmf_subsystem *sub, const char *host_nqn)
{
	struct nvmf_host *host;

	if (!nvmf_nqn_is_valid(host_nqn))
		return -EINVAL;
	if (sub->deleting)
		return -EBUSY;
	if (host_find(sub, host_nqn))
		return -EEXIST;
	host = calloc(1, sizeof(*host));
	if (!host)
		return -ENOMEM;
	snprintf(host->nqn, sizeof(host->nqn), "%s", host_nqn);
	list_add_tail(&sub->hosts, &host->link);
	if (!sub->allow_any_host)
		nvmf_discovery_changed_for(sub, host_nqn);
	return 0;
}

static bool ctrlr_is_of_host(struct nvmf_ctrlr *ctrlr, void *arg)
{
	return !strcmp(ctrlr->host_nqn, arg);
}

static bool ctrlr_is_refused(struct nvmf_ctrlr *ctrlr, void *arg)
{
	return !nvmf_subsystem_allows(ctrlr->subsystem, ctrlr->host_nqn);
}

fiber_fn int nvmf_subsystem_remove_host(struct nvmf_subsystem *sub, const char *host_nqn)
{
	struct nvmf_target *target = sub->target;
	char nqn[NVMF_NQN_SIZE];
	struct nvmf_host *host;
	int rc;

	snprintf(nqn, sizeof(nqn), "%s", host_nqn);
	rc = nvmf_subsystem_lock(sub);
	if (rc)
		return rc;
	host = host_find(sub, nqn);
	if (!host) {
		rc = -ENOENT;
		goto out;
	}
	list_del(&host->link);
	free(host);
	if (!sub->allow_any_host) {
		nvmf_discovery_changed_for(sub, nqn);
		nvmf_subsystem_end_ctrlrs(sub, ctrlr_is_of_host, nqn);
	}
out:
	fiber_unlock(&target->config);
	return rc;
}

fiber_fn int nvmf_subsystem_allow_any_host(struct nvmf_subsystem *sub, bool allow)
{
	struct nvmf_target *target = sub->target;
	int rc = nvmf_subsystem_lock(sub);

	if (rc)
		return rc;
	if (sub->allow_any_host != allow) {
		sub->allow_any_host = allow;
		nvmf_discovery_changed(sub, nvmf_subsystem_lists_not);
		if (!allow)
			nvmf_subsystem_end_ctrlrs(sub, ctrlr_is_refused, NULL);
	}
	fiber_unlock(&target->config);
	return 0;
}

const char *nvmf_subsystem_host(struct nvmf_subsystem *sub, unsigned idx)
{
	struct list *it;

	list_for_each(it, &sub->hosts) {
		if (!idx--)
			return list_entry(it, struct nvmf_host, link)->nqn;
	}
	return NULL;
}
