/*
 * Properties: CAP, VS, CC, CSTS and CRTO, and what writing CC does: enable, reset, shut down.
 *
 * Source: NVM Express Base 2.0, 3.1.3, 3.5, 3.6.
 */
#include "nvmf/internal.h"

uint64_t nvmf_ctrlr_cap(const struct nvmf_ctrlr *ctrlr)
{
	uint64_t mqes = (ctrlr->discovery ? ctrlr->opts->max_aq_depth : ctrlr->max_queue_depth) - 1;

	return mqes | NVME_CAP_CQR | (uint64_t)NVMF_CAP_TO_500MS << NVME_CAP_TO_SHIFT | NVME_CAP_CSS_NVM |
	       NVME_CAP_CSS_IOCSS | NVME_CAP_CRWMS;
}

void nvmf_property_get(struct nvmf_req *req)
{
	const struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	bool wide = (req->cmd.property.attrib & 7) == NVME_PROP_SIZE_8;
	uint64_t value = 0;
	bool known = (req->cmd.property.attrib & 7) <= NVME_PROP_SIZE_8 &&
		     wide == (req->cmd.property.ofst == NVME_PROP_CAP);

	switch (req->cmd.property.ofst) {
	case NVME_PROP_CAP:
		value = ctrlr->cap;
		break;
	case NVME_PROP_VS:
		value = NVME_VS(2, 0, 0);
		break;
	case NVME_PROP_CC:
		value = ctrlr->cc;
		break;
	case NVME_PROP_CSTS:
		value = ctrlr->csts;
		break;
	case NVME_PROP_CRTO:
		value = NVMF_CAP_TO_500MS;
		break;
	default:
		known = false;
	}
	req->cqe.result = known ? value : 0;
	nvmf_req_complete(req, known ? NVME_SC_SUCCESS : NVME_SC_INVALID_FIELD | NVME_SC_DNR);
}

/* --- CC ------------------------------------------------------------------------------------ */

static bool cc_is_acceptable(const struct nvmf_ctrlr *ctrlr, uint32_t cc)
{
	uint32_t css = NVME_CC_CSS(cc);

	if (NVME_CC_MPS(cc) || NVME_CC_AMS(cc) || (css != NVME_CC_CSS_NVM && css != NVME_CC_CSS_ALL))
		return false;
	return ctrlr->discovery || (NVME_CC_IOSQES(cc) == 6 && NVME_CC_IOCQES(cc) == 4);
}

static void ctrlr_reset(struct nvmf_ctrlr *ctrlr)
{
	ctrlr->state = NVMF_CTRLR_RESETTING;
	ctrlr->clean_shutdown = true;
	nvmf_aer_reset(ctrlr);
	if (ctrlr->nr_io_queues)
		nvmf_ctrlr_close_io(ctrlr, false);
	else
		nvmf_ctrlr_queues_over(ctrlr);
}

static void shutdown_complete(struct nvmf_ctrlr *ctrlr)
{
	ctrlr->csts &= ~(3u << NVME_CSTS_SHST_SHIFT);
	ctrlr->csts |= NVME_CSTS_SHST_COMPLETE << NVME_CSTS_SHST_SHIFT;
	ctrlr->clean_shutdown = true;
	if (ctrlr->state == NVMF_CTRLR_SHUTTING_DOWN)
		ctrlr->state = NVMF_CTRLR_LIVE;
}

/* What a normal shutdown promises: nothing acknowledged is only in a cache. */
fiber_fn static void shutdown_flush(void *arg)
{
	struct nvmf_ctrlr *ctrlr = arg;
	struct nvmf_group_subsystem *gsub = ctrlr->gsub;

	for (uint32_t nsid = 1; nsid < gsub->nr_slots; nsid++) {
		struct nvmf_group_ns *gns = gsub->ns[nsid];
		int rc;

		if (!gns || !gns->has_write_cache)
			continue;
		gns->nr_inflight++;
		rc = bdev_flush(gns->channel);
		if (rc)
			log_error("flush of namespace %u of %s at shutdown: error %d", nsid,
				  ctrlr->subsystem->nqn, rc);
		if (!--gns->nr_inflight && gns->idle)
			fiber_wake(gns->idle, 0);
	}
	shutdown_complete(ctrlr);
	nvmf_ctrlr_queue_free(ctrlr, 0);
	nvmf_ctrlr_put(ctrlr);
}

void nvmf_ctrlr_queues_over(struct nvmf_ctrlr *ctrlr)
{
	if (ctrlr->state == NVMF_CTRLR_RESETTING) {
		ctrlr->csts = 0;
		nvmf_features_reset(ctrlr);
		ctrlr->state = NVMF_CTRLR_LIVE;
		return;
	}
	/* Shutting down; the flushes hold the association like a queue does. */
	ctrlr->nr_io_queues++;
	if (!fiber_spawn(ctrlr->group->thread, "nvmf_shutdown", shutdown_flush, nvmf_ctrlr_get(ctrlr)))
		return;
	nvmf_ctrlr_put(ctrlr);
	log_error("no memory to flush the namespaces of %s at shutdown", ctrlr->subsystem->nqn);
	ctrlr->csts |= NVME_CSTS_CFS;
	shutdown_complete(ctrlr);
	nvmf_ctrlr_queue_free(ctrlr, 0);
}

static void ctrlr_shutdown(struct nvmf_ctrlr *ctrlr, uint32_t shn)
{
	ctrlr->csts &= ~(3u << NVME_CSTS_SHST_SHIFT);
	ctrlr->csts |= NVME_CSTS_SHST_OCCURRING << NVME_CSTS_SHST_SHIFT;
	if (!(ctrlr->csts & NVME_CSTS_RDY)) {
		shutdown_complete(ctrlr);
		return;
	}
	ctrlr->state = NVMF_CTRLR_SHUTTING_DOWN;
	if (ctrlr->nr_io_queues)
		nvmf_ctrlr_close_io(ctrlr, shn == NVME_CC_SHN_NORMAL);
	else
		nvmf_ctrlr_queues_over(ctrlr);
}

static uint16_t cc_write(struct nvmf_ctrlr *ctrlr, uint32_t cc)
{
	uint32_t old = ctrlr->cc;

	/* While a reset or shutdown is under way, the host is to wait for CSTS. */
	if (ctrlr->state != NVMF_CTRLR_LIVE &&
	    !(ctrlr->state == NVMF_CTRLR_SHUTTING_DOWN && !((cc ^ old) & NVME_CC_EN)))
		return NVME_SC_CMD_SEQUENCE_ERROR | NVME_SC_DNR;
	ctrlr->cc = cc;
	if (cc & NVME_CC_EN && !(old & NVME_CC_EN)) {
		if (cc_is_acceptable(ctrlr, cc)) {
			ctrlr->csts = NVME_CSTS_RDY;
			ctrlr->clean_shutdown = false;
		} else {
			ctrlr->csts |= NVME_CSTS_CFS;
		}
	} else if (!(cc & NVME_CC_EN) && old & NVME_CC_EN) {
		ctrlr_reset(ctrlr);
		return NVME_SC_SUCCESS;
	}
	if (NVME_CC_SHN(cc) && !NVME_CC_SHN(old))
		ctrlr_shutdown(ctrlr, NVME_CC_SHN(cc));
	return NVME_SC_SUCCESS;
}

void nvmf_property_set(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_INVALID_FIELD | NVME_SC_DNR;

	if (req->cmd.property.ofst == NVME_PROP_CC && (req->cmd.property.attrib & 7) == NVME_PROP_SIZE_4)
		status = cc_write(req->qpair->ctrlr, (uint32_t)req->cmd.property.value);
	nvmf_req_complete(req, status);
}
