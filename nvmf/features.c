/*
 * Get and Set Features.  Nothing is saveable; a reset brings the defaults back.
 *
 * Source: NVM Express Base 2.0, 5.15, 5.27; NVM Command Set 1.0, 4.1.3.
 */
#include <string.h>

#include "nvmf/internal.h"

#define DEFAULT_OVER_K 343u /* 70 degrees Celsius */

struct feature {
	uint8_t fid;
	uint8_t caps;	  /* what SEL 3 says */
	uint16_t len;	  /* bytes of data, either way */
	uint32_t effects; /* in log page 12h, beside being supported */
	bool discovery;	  /* discovery controllers have it too */
	uint16_t (*get)(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0);
	uint16_t (*set)(struct nvmf_req *req);
};

#define INVALID_FIELD (NVME_SC_INVALID_FIELD | NVME_SC_DNR)

static struct nvmf_ctrlr *ctrlr_of(const struct nvmf_req *req)
{
	return req->qpair->ctrlr;
}

static bool ns_is_active(const struct nvmf_ctrlr *ctrlr, uint32_t nsid)
{
	return nsid < ctrlr->gsub->nr_slots && ctrlr->gsub->ns[nsid];
}

/* --- 01h Arbitration, 02h Power Management ------------------------------------------------- */

static uint16_t arbitration_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	*ret_dw0 = default_value ? 0 : ctrlr_of(req)->arbitration;
	return NVME_SC_SUCCESS;
}

static uint16_t arbitration_set(struct nvmf_req *req)
{
	ctrlr_of(req)->arbitration = req->cmd.cdw11 & 0xffffff07;
	return NVME_SC_SUCCESS;
}

static uint16_t power_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	*ret_dw0 = 0;
	return NVME_SC_SUCCESS;
}

/* There is power state 0 and no other. */
static uint16_t power_set(struct nvmf_req *req)
{
	return req->cmd.cdw11 & 0x1f ? INVALID_FIELD : NVME_SC_SUCCESS;
}

/* --- 04h Temperature Threshold ------------------------------------------------------------- */

/* Sensor 0 is the composite one, which is all there are; a Set for all sensors (Fh) is one for it. */
static uint32_t *threshold_of(struct nvmf_req *req, bool set)
{
	unsigned sensor = req->cmd.cdw11 >> 16 & 0xf, type = req->cmd.cdw11 >> 20 & 3;

	if ((sensor && !(set && sensor == 0xf)) || type > 1)
		return NULL;
	return type ? &ctrlr_of(req)->temperature_under_k : &ctrlr_of(req)->temperature_over_k;
}

static uint16_t threshold_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	uint32_t *threshold_k = threshold_of(req, false);

	if (!threshold_k)
		return INVALID_FIELD;
	*ret_dw0 = *threshold_k;
	if (default_value)
		*ret_dw0 = threshold_k == &ctrlr_of(req)->temperature_over_k ? DEFAULT_OVER_K : 0;
	return NVME_SC_SUCCESS;
}

static uint16_t threshold_set(struct nvmf_req *req)
{
	uint32_t *threshold_k = threshold_of(req, true);

	if (!threshold_k)
		return INVALID_FIELD;
	*threshold_k = req->cmd.cdw11 & 0xffff;
	return NVME_SC_SUCCESS;
}

/* --- 05h Error Recovery, 06h Volatile Write Cache ------------------------------------------ */

/* A namespace's; without one, or for all, what was last set for all of them, since nvme-cli asks like that. */
static uint16_t recovery_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	uint32_t nsid = req->cmd.nsid == NVME_NSID_ALL ? 0 : req->cmd.nsid;

	if (nsid && !ns_is_active(ctrlr_of(req), nsid))
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	*ret_dw0 = default_value ? 0 : atomic_load(&ctrlr_of(req)->subsystem->error_recovery[nsid]);
	return NVME_SC_SUCCESS;
}

/* Deallocated blocks read as zeroes, never as errors: DULBE cannot be had. */
static uint16_t recovery_set(struct nvmf_req *req)
{
	struct nvmf_subsystem *sub = ctrlr_of(req)->subsystem;
	uint16_t value = req->cmd.cdw11 & 0xffff;

	if (req->cmd.cdw11 & 0x10000)
		return INVALID_FIELD;
	if (req->cmd.nsid != NVME_NSID_ALL) {
		atomic_store(&sub->error_recovery[req->cmd.nsid], value);
		return NVME_SC_SUCCESS;
	}
	for (uint32_t nsid = 0; nsid <= sub->max_namespaces; nsid++)
		atomic_store(&sub->error_recovery[nsid], value);
	return NVME_SC_SUCCESS;
}

static void set_write_cache(struct nvmf_ctrlr *ctrlr, bool enabled)
{
	ctrlr->wce = enabled;
	atomic_store_explicit(&ctrlr->write_through, !enabled, memory_order_relaxed);
}

static uint16_t cache_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	*ret_dw0 = default_value || ctrlr_of(req)->wce;
	return NVME_SC_SUCCESS;
}

static uint16_t cache_set(struct nvmf_req *req)
{
	set_write_cache(ctrlr_of(req), req->cmd.cdw11 & 1);
	return NVME_SC_SUCCESS;
}

/* --- 07h Number of Queues ------------------------------------------------------------------ */

static uint32_t nr_queues_dw0(uint32_t nr)
{
	return (nr - 1) << 16 | (nr - 1);
}

static uint16_t nr_queues_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	const struct nvmf_ctrlr *ctrlr = ctrlr_of(req);

	*ret_dw0 = nr_queues_dw0(default_value ? ctrlr->opts->max_io_qpairs_per_ctrlr : ctrlr->nr_queues);
	return NVME_SC_SUCCESS;
}

static uint16_t nr_queues_set(struct nvmf_req *req)
{
	struct nvmf_ctrlr *ctrlr = ctrlr_of(req);
	uint32_t nsq = req->cmd.cdw11 & 0xffff, ncq = req->cmd.cdw11 >> 16, nr;

	if (nsq == 0xffff || ncq == 0xffff)
		return INVALID_FIELD;
	if (ctrlr->nr_io_queues)
		return NVME_SC_CMD_SEQUENCE_ERROR | NVME_SC_DNR;
	/* Over fabrics a queue is a pair: the smaller number counts. */
	nr = (nsq < ncq ? nsq : ncq) + 1;
	if (nr > ctrlr->opts->max_io_qpairs_per_ctrlr)
		nr = ctrlr->opts->max_io_qpairs_per_ctrlr;
	ctrlr->nr_queues = (uint16_t)nr;
	req->cqe.dw0 = nr_queues_dw0(nr);
	return NVME_SC_SUCCESS;
}

/* --- 0Ah Write Atomicity, 0Bh Asynchronous Events ------------------------------------------ */

static uint16_t atomicity_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	*ret_dw0 = default_value ? 0 : ctrlr_of(req)->write_atomicity;
	return NVME_SC_SUCCESS;
}

static uint16_t atomicity_set(struct nvmf_req *req)
{
	ctrlr_of(req)->write_atomicity = req->cmd.cdw11 & 1;
	return NVME_SC_SUCCESS;
}

static uint16_t events_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	*ret_dw0 = default_value ? 0 : ctrlr_of(req)->async_events;
	return NVME_SC_SUCCESS;
}

static uint16_t events_set(struct nvmf_req *req)
{
	struct nvmf_ctrlr *ctrlr = ctrlr_of(req);
	uint32_t offered = ctrlr->discovery ? NVME_AEC_DISCOVERY : NVME_AEC_SMART_MASK | NVME_AEC_NS_ATTR;

	/* What is not offered stays off; stock hosts set bits without looking. */
	ctrlr->async_events = req->cmd.cdw11 & offered;
	return NVME_SC_SUCCESS;
}

/* --- 0Fh Keep Alive Timer ------------------------------------------------------------------ */

static uint16_t kato_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	*ret_dw0 = default_value ? (ctrlr_of(req)->discovery ? NVMF_DISCOVERY_KATO_MS : 0) :
				   ctrlr_of(req)->kato_ms;
	return NVME_SC_SUCCESS;
}

static uint16_t kato_set(struct nvmf_req *req)
{
	uint32_t kato_ms = req->cmd.cdw11;

	/* Rounded up to the granularity that Identify's KAS gives. */
	if (kato_ms > UINT32_MAX - 100)
		return NVME_SC_KEEP_ALIVE_INVALID | NVME_SC_DNR;
	nvmf_keep_alive_start(ctrlr_of(req), (kato_ms + 99) / 100 * 100);
	return NVME_SC_SUCCESS;
}

/* --- 16h Host Behavior Support, 81h Host Identifier ---------------------------------------- */

static uint16_t behavior_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	if (!default_value)
		nvmf_req_put(req, 0, &ctrlr_of(req)->behavior, sizeof(struct nvme_host_behavior));
	return NVME_SC_SUCCESS;
}

static uint16_t behavior_set(struct nvmf_req *req)
{
	struct nvme_host_behavior behavior;

	nvmf_req_get(req, 0, &behavior, sizeof(behavior));
	if (behavior.acre > 1 || behavior.etdas > 1 || behavior.lbafee > 1)
		return INVALID_FIELD;
	ctrlr_of(req)->behavior = (struct nvme_host_behavior){ .acre = behavior.acre };
	return NVME_SC_SUCCESS;
}

/* Over fabrics it is the 128-bit one of Connect, which cannot be changed. */
static uint16_t host_id_get(struct nvmf_req *req, bool default_value, uint32_t *ret_dw0)
{
	if (!(req->cmd.cdw11 & 1))
		return INVALID_FIELD;
	nvmf_req_put(req, 0, ctrlr_of(req)->host_id, sizeof(ctrlr_of(req)->host_id));
	return NVME_SC_SUCCESS;
}

static uint16_t host_id_set(struct nvmf_req *req)
{
	return NVME_SC_CMD_SEQUENCE_ERROR | NVME_SC_DNR;
}

/* --- the table ----------------------------------------------------------------------------- */

#define CHANGEABLE NVME_FEATURE_CAP_CHANGEABLE
#define CTRLR	   NVME_FEATURE_EFFECTS_SCOPE_CTRLR

static const struct feature features[] = {
	{ NVME_FID_ARBITRATION, CHANGEABLE, 0, CTRLR, false, arbitration_get, arbitration_set },
	{ NVME_FID_POWER, CHANGEABLE, 0, CTRLR, false, power_get, power_set },
	{ NVME_FID_TEMPERATURE_THRESHOLD, CHANGEABLE, 0, CTRLR, false, threshold_get, threshold_set },
	{ NVME_FID_ERROR_RECOVERY, CHANGEABLE | NVME_FEATURE_CAP_NS_SPECIFIC, 0, NVME_FEATURE_EFFECTS_SCOPE_NS, false,
	  recovery_get, recovery_set },
	{ NVME_FID_VWC, CHANGEABLE, 0, CTRLR, false, cache_get, cache_set },
	{ NVME_FID_NR_QUEUES, CHANGEABLE, 0, CTRLR, false, nr_queues_get, nr_queues_set },
	{ NVME_FID_WRITE_ATOMICITY, CHANGEABLE, 0, CTRLR, false, atomicity_get, atomicity_set },
	{ NVME_FID_ASYNC_EVENT, CHANGEABLE, 0, CTRLR, true, events_get, events_set },
	{ NVME_FID_KEEP_ALIVE, CHANGEABLE, 0, CTRLR, true, kato_get, kato_set },
	{ NVME_FID_HOST_BEHAVIOR, CHANGEABLE, sizeof(struct nvme_host_behavior), CTRLR, false, behavior_get,
	  behavior_set },
	{ NVME_FID_HOST_ID, 0, 16, CTRLR, false, host_id_get, host_id_set },
};

static const struct feature *feature_find(const struct nvmf_req *req)
{
	uint8_t fid = req->cmd.cdw10 & 0xff;

	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		if (features[i].fid == fid && (features[i].discovery || !ctrlr_of(req)->discovery))
			return &features[i];
	}
	return NULL;
}

static unsigned feature_sel(const struct nvmf_req *req)
{
	return req->cmd.cdw10 >> NVME_FEATURE_SEL_SHIFT & NVME_FEATURE_SEL_MASK;
}

uint16_t nvmf_get_features_prepare(struct nvmf_req *req)
{
	const struct feature *feature = feature_find(req);

	if (!feature || feature_sel(req) > NVME_FEATURE_SEL_SUPPORTED)
		return INVALID_FIELD;
	/* The 64-bit form of the host identifier is refused before its length is looked at. */
	if (feature->fid == NVME_FID_HOST_ID && !(req->cmd.cdw11 & 1) &&
	    feature_sel(req) != NVME_FEATURE_SEL_SUPPORTED)
		return INVALID_FIELD;
	if (feature_sel(req) != NVME_FEATURE_SEL_SUPPORTED)
		req->len = feature->len;
	return NVME_SC_SUCCESS;
}

void nvmf_get_features_execute(struct nvmf_req *req)
{
	const struct feature *feature = feature_find(req);
	unsigned sel = feature_sel(req);
	uint32_t dw0 = 0;
	uint16_t status;

	if (sel == NVME_FEATURE_SEL_SUPPORTED) {
		req->cqe.dw0 = feature->caps;
		nvmf_req_complete(req, NVME_SC_SUCCESS);
		return;
	}
	nvmf_req_zero(req);
	/* Nothing is saved, so the saved value is the default one. */
	status = feature->get(req, sel != NVME_FEATURE_SEL_CURRENT, &dw0);
	req->cqe.dw0 = dw0;
	nvmf_req_complete(req, status);
}

uint16_t nvmf_set_features_prepare(struct nvmf_req *req)
{
	const struct feature *feature = feature_find(req);
	uint32_t nsid = req->cmd.nsid;
	bool ns_specific;

	if (!feature)
		return INVALID_FIELD;
	ns_specific = feature->caps & NVME_FEATURE_CAP_NS_SPECIFIC;
	if (req->cmd.cdw10 & NVME_FEATURE_SAVE)
		return NVME_SC_FEATURE_NOT_SAVEABLE | NVME_SC_DNR;
	if (nsid != NVME_NSID_ALL && (nsid || ns_specific) && !ns_is_active(ctrlr_of(req), nsid))
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	if (nsid != NVME_NSID_ALL && nsid && !ns_specific)
		return NVME_SC_FEATURE_NOT_NS_SPECIFIC | NVME_SC_DNR;
	if (feature->fid == NVME_FID_HOST_ID)
		return host_id_set(req);
	req->len = feature->len;
	return NVME_SC_SUCCESS;
}

void nvmf_set_features_execute(struct nvmf_req *req)
{
	nvmf_req_complete(req, feature_find(req)->set(req));
}

void nvmf_features_reset(struct nvmf_ctrlr *ctrlr)
{
	ctrlr->arbitration = 0;
	ctrlr->temperature_over_k = DEFAULT_OVER_K;
	ctrlr->temperature_under_k = 0;
	ctrlr->write_atomicity = 0;
	ctrlr->async_events = 0;
	ctrlr->nr_queues = (uint16_t)ctrlr->opts->max_io_qpairs_per_ctrlr;
	ctrlr->behavior = (struct nvme_host_behavior){ 0 };
	set_write_cache(ctrlr, true);
}

void nvmf_log_feature_effects_fill(const struct nvmf_ctrlr *ctrlr, struct nvme_log_feature_effects *log)
{
	memset(log, 0, sizeof(*log));
	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		if (features[i].discovery || !ctrlr->discovery)
			log->feature[features[i].fid] = NVME_FEATURE_EFFECTS_FSUPP | features[i].effects;
	}
}
