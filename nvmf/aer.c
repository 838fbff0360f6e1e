/*
 * Asynchronous events: requests held until something happens; an event told once is masked until the host has
 * read its log page.
 *
 * Source: NVM Express Base 2.0, 5.2.
 */
#include <string.h>

#include "nvmf/internal.h"

static const struct {
	uint32_t enable; /* bit in feature 0Bh */
	uint32_t result;
	uint8_t lid; /* whose reading takes the mask away */
} events[NVMF_NR_EVENTS] = {
	[NVMF_EVENT_NS_CHANGED] = { NVME_AEC_NS_ATTR,
				    NVME_AER_RESULT(NVME_AER_NOTICE, NVME_AER_NOTICE_NS_ATTR,
						    NVME_LID_CHANGED_NS),
				    NVME_LID_CHANGED_NS },
	[NVMF_EVENT_DISCOVERY_CHANGED] = { NVME_AEC_DISCOVERY,
					   NVME_AER_RESULT(NVME_AER_NOTICE, NVME_AER_NOTICE_DISCOVERY,
							   NVME_LID_DISCOVERY),
					   NVME_LID_DISCOVERY },
	[NVMF_EVENT_TEMPERATURE] = { NVMF_SMART_TEMPERATURE,
				     NVME_AER_RESULT(NVME_AER_SMART, 1, NVME_LID_SMART), NVME_LID_SMART },
};

static void aer_complete(struct nvmf_ctrlr *ctrlr, uint32_t result, uint16_t status)
{
	struct nvmf_req *req = list_entry(list_pop(&ctrlr->aers), struct nvmf_req, wait_link);

	ctrlr->nr_aers--;
	req->cqe.dw0 = result;
	nvmf_req_complete(req, status);
}

static void aer_deliver(struct nvmf_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < NVMF_NR_EVENTS && ctrlr->nr_aers; i++) {
		uint32_t bit = 1u << i;

		if (!(ctrlr->events_pending & bit) || ctrlr->events_masked & bit)
			continue;
		ctrlr->events_pending &= ~bit;
		ctrlr->events_masked |= bit;
		aer_complete(ctrlr, events[i].result, NVME_SC_SUCCESS);
	}
}

void nvmf_aer_raise(struct nvmf_ctrlr *ctrlr, enum nvmf_event event)
{
	if (!ctrlr->admin || ctrlr->admin->closing || !(ctrlr->async_events & events[event].enable))
		return;
	ctrlr->events_pending |= 1u << event;
	aer_deliver(ctrlr);
}

void nvmf_aer_log_read(struct nvmf_ctrlr *ctrlr, uint8_t lid)
{
	for (unsigned i = 0; i < NVMF_NR_EVENTS; i++) {
		if (events[i].lid == lid) {
			ctrlr->events_masked &= ~(1u << i);
			/* What happened before the log was read, the host has read. */
			ctrlr->events_pending &= ~(1u << i);
		}
	}
}

void nvmf_aer_execute(struct nvmf_req *req)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;

	if (ctrlr->nr_aers > NVMF_AERL) {
		nvmf_req_complete(req, NVME_SC_AER_LIMIT | NVME_SC_DNR);
		return;
	}
	nvmf_req_set_state(req, NVMF_REQ_AER);
	list_add_tail(&ctrlr->aers, &req->wait_link);
	ctrlr->nr_aers++;
	aer_deliver(ctrlr);
}

/* A reset takes the requests and the events with it. */
void nvmf_aer_reset(struct nvmf_ctrlr *ctrlr)
{
	ctrlr->events_pending = 0;
	ctrlr->events_masked = 0;
	ctrlr->nr_changed_ns = 0;
	while (ctrlr->nr_aers)
		aer_complete(ctrlr, 0, NVME_SC_ABORTED_SQ_DELETION);
}

/* Keeps the list sorted; one more than it can hold is said by a single FFFFFFFFh. */
static void changed_ns_add(struct nvmf_ctrlr *ctrlr, uint32_t nsid)
{
	unsigned nr = ctrlr->nr_changed_ns, i = 0;

	if (nr > NVMF_CHANGED_NS_MAX)
		return;
	while (i < nr && ctrlr->changed_ns[i] < nsid)
		i++;
	if (i < nr && ctrlr->changed_ns[i] == nsid)
		return;
	if (nr == NVMF_CHANGED_NS_MAX) {
		memset(ctrlr->changed_ns, 0, sizeof(ctrlr->changed_ns));
		ctrlr->changed_ns[0] = NVME_NSID_ALL;
	} else {
		memmove(&ctrlr->changed_ns[i + 1], &ctrlr->changed_ns[i],
			(nr - i) * sizeof(ctrlr->changed_ns[0]));
		ctrlr->changed_ns[i] = nsid;
	}
	ctrlr->nr_changed_ns++;
}

void nvmf_aer_ns_changed(struct nvmf_ctrlr *ctrlr, uint32_t nsid)
{
	changed_ns_add(ctrlr, nsid);
	nvmf_aer_raise(ctrlr, NVMF_EVENT_NS_CHANGED);
}
