/*
 * Discovery: log page 70h, made anew for each command on the app thread so that it is of one generation, and
 * the event that tells hosts whose view has changed.
 *
 * Source: NVM Express Base 2.0, 5.16.1.23.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

/* --- the event ----------------------------------------------------------------------------- */

static void tell_msg(void *arg)
{
	struct nvmf_ctrlr *ctrlr = arg;

	nvmf_aer_raise(ctrlr, NVMF_EVENT_DISCOVERY_CHANGED);
	nvmf_ctrlr_put(ctrlr);
}

static void tell_hosts(struct nvmf_subsystem *sub,
		       bool (*affects)(const struct nvmf_subsystem *, const char *host_nqn),
		       const char *host_nqn)
{
	struct nvmf_target *target = sub->target;
	struct list *it;

	/* What cannot be reached shows in nobody's view. */
	if (sub->discovery || list_empty(&sub->listeners))
		return;
	target->genctr++;
	list_for_each(it, &target->discovery->ctrlrs) {
		struct nvmf_ctrlr *ctrlr = list_entry(it, struct nvmf_ctrlr, sub_link);

		if (affects ? affects(sub, ctrlr->host_nqn) : !strcmp(ctrlr->host_nqn, host_nqn))
			nvmf_ctrlr_send(ctrlr, tell_msg);
	}
}

void nvmf_discovery_changed(struct nvmf_subsystem *sub,
			    bool (*affects)(const struct nvmf_subsystem *, const char *host_nqn))
{
	tell_hosts(sub, affects, NULL);
}

void nvmf_discovery_changed_for(struct nvmf_subsystem *sub, const char *host_nqn)
{
	tell_hosts(sub, NULL, host_nqn);
}

/* --- the log ------------------------------------------------------------------------------- */

/* A Get Log Page on its way to the app thread and back.  The request, and with it the controller, stays
 * meanwhile. */
struct discovery_log {
	struct nvmf_req *req;
	struct stream_addr local; /* where the host reached us */
	uint64_t nr_entries;
};

static bool is_wildcard(const struct stream_addr *addr)
{
	return !strcmp(addr->host, addr->family == AF_INET6 ? "::" : "0.0.0.0");
}

static void put_entry(struct discovery_log *log, const struct nvmf_listener *listener, const char *nqn,
		      uint8_t subtype)
{
	const struct nvmf_transport_opts *opts = &listener->transport->opts;
	const struct stream_addr *addr = &listener->addr;
	struct nvme_discovery_entry entry = {
		.trtype = listener->transport->ops->trtype,
		.adrfam = addr->family == AF_INET6 ? NVME_ADRFAM_IPV6 : NVME_ADRFAM_IPV4,
		.subtype = subtype,
		.treq = NVME_TREQ_SECURE_NOT_REQUIRED | NVME_TREQ_NO_SQ_FLOW_CONTROL,
		.portid = listener->portid,
		.cntlid = NVME_CNTLID_DYNAMIC,
		.asqsz = (uint16_t)opts->max_aq_depth,
		.eflags = subtype == NVME_SUBTYPE_DISCOVERY ? NVME_EFLAGS_EPCSD | NVME_EFLAGS_DUPRETINFO : 0,
	};
	char port[8];

	/* A host can do nothing with "any address": it is told the one by which it came. */
	if (is_wildcard(addr) && log->local.family == addr->family)
		addr = &log->local;
	memcpy(entry.tsas, listener->transport->ops->tsas, sizeof(listener->transport->ops->tsas));
	snprintf(port, sizeof(port), "%u", listener->addr.port);
	memset(entry.trsvcid, ' ', sizeof(entry.trsvcid));
	memcpy(entry.trsvcid, port, strlen(port));
	memset(entry.traddr, ' ', sizeof(entry.traddr));
	memcpy(entry.traddr, addr->host, strlen(addr->host));
	snprintf(entry.subnqn, sizeof(entry.subnqn), "%s", nqn);
	nvmf_log_put(log->req, sizeof(struct nvme_discovery_log) + log->nr_entries * sizeof(entry), &entry,
		     sizeof(entry));
	log->nr_entries++;
}

static void put_subsystem(struct discovery_log *log, struct nvmf_subsystem *sub)
{
	struct list *it;

	list_for_each(it, &sub->listeners)
		put_entry(log, list_entry(it, struct nvmf_sub_listener, link)->listener, sub->nqn,
			  NVME_SUBTYPE_NVM);
}

static void discovery_done(void *arg)
{
	struct discovery_log *log = arg;
	struct nvmf_req *req = log->req;
	uint64_t size =
		sizeof(struct nvme_discovery_log) + log->nr_entries * sizeof(struct nvme_discovery_entry);

	free(log);
	nvmf_req_complete(req, nvme_get_log_offset_bytes(&req->cmd) > size ?
				       NVME_SC_INVALID_FIELD | NVME_SC_DNR :
				       NVME_SC_SUCCESS);
}

static void discovery_collect(void *arg)
{
	struct discovery_log *log = arg;
	struct nvmf_qpair *qpair = log->req->qpair;
	struct nvmf_ctrlr *ctrlr = qpair->ctrlr;
	struct nvmf_target *target = ctrlr->subsystem->target;
	struct nvmf_listener *mine = nvmf_listener_by_handle(target, qpair->ops, qpair->listener);
	struct nvme_discovery_log head = { .genctr = target->genctr };
	struct list *it;

	if (mine)
		put_entry(log, mine, NVMF_DISCOVERY_NQN, NVME_SUBTYPE_DISCOVERY);
	list_for_each(it, &target->subsystems) {
		struct nvmf_subsystem *sub = list_entry(it, struct nvmf_subsystem, link);

		if (!sub->discovery && !sub->deleting && nvmf_subsystem_allows(sub, ctrlr->host_nqn))
			put_subsystem(log, sub);
	}
	head.numrec = log->nr_entries;
	nvmf_log_put(log->req, 0, &head, sizeof(head));
	thread_send(ctrlr->group->thread, discovery_done, log);
}

void nvmf_discovery_log_execute(struct nvmf_req *req)
{
	struct discovery_log *log = calloc(1, sizeof(*log));

	if (!log) {
		nvmf_req_complete(req, NVME_SC_COMMAND_INTERRUPTED);
		return;
	}
	log->req = req;
	req->qpair->ops->local_addr(req->qpair, &log->local);
	thread_send(runtime_app_thread(), discovery_collect, log);
}
