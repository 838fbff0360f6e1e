/*
 * Get Log Page: which pages there are, the window of a page that the host asks for, and the short pages.
 *
 * The answer's buffer is zeroed first; a page then puts its parts, of which what falls into the window is
 * kept.
 *
 * Source: NVM Express Base 2.0, 5.16.
 */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "nvmf/internal.h"

#define INVALID_FIELD (NVME_SC_INVALID_FIELD | NVME_SC_DNR)

void nvmf_log_put(struct nvmf_req *req, uint64_t at, const void *part, uint32_t len)
{
	uint64_t offset = nvme_get_log_offset_bytes(&req->cmd);
	const char *from = part;

	if (at < offset) {
		if (len <= offset - at)
			return;
		from += offset - at;
		len -= (uint32_t)(offset - at);
		at = offset;
	}
	if (at - offset >= req->len)
		return;
	if (len > req->len - (at - offset))
		len = (uint32_t)(req->len - (at - offset));
	nvmf_req_put(req, (uint32_t)(at - offset), from, len);
}

/* --- 00h ----------------------------------------------------------------------------------- */

static bool page_is_offered(const struct nvmf_ctrlr *ctrlr, uint8_t lid);

static void log_supported(struct nvmf_req *req)
{
	struct nvme_log_supported log = { 0 };

	for (unsigned lid = 0; lid < 256; lid++) {
		if (page_is_offered(req->qpair->ctrlr, (uint8_t)lid))
			log.page[lid] = NVME_LOG_SUPP_LSUPP;
	}
	nvmf_log_put(req, 0, &log, sizeof(log));
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

/* --- 01h ----------------------------------------------------------------------------------- */

/* An error of a queue on another thread, on its way to the controller's.  Owner: the message. */
struct error_msg {
	struct nvmf_ctrlr *ctrlr;
	struct nvme_log_error entry;
};

static void error_store(struct nvmf_ctrlr *ctrlr, struct nvme_log_error *entry)
{
	entry->error_count = ++ctrlr->error_count;
	ctrlr->errors[(ctrlr->error_count - 1) % NVMF_NR_ERRORS] = *entry;
}

static void error_arrived(void *arg)
{
	struct error_msg *msg = arg;

	error_store(msg->ctrlr, &msg->entry);
	nvmf_ctrlr_put(msg->ctrlr);
	free(msg);
}

void nvmf_error_log_add(struct nvmf_req *req, uint16_t status)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	struct nvme_log_error entry = {
		.sqid = req->qpair->qid,
		.cid = req->cmd.cid,
		.status_field = (uint16_t)(status << 1),
		.param_location = 0xffff,
		.lba = req->op->flags & NVMF_OP_IO ? req->cmd.rw.slba : 0,
		.nsid = req->cmd.opcode == NVME_OPC_FABRICS ? 0 : req->cmd.nsid,
		.trtype = req->qpair->ops->trtype,
	};
	struct error_msg *msg;

	/* Connections that end are no errors, and would push the others out. */
	if (nvme_status_code(status) == NVME_SC_ABORTED_SQ_DELETION)
		return;
	if (req->qpair->group == ctrlr->group) {
		error_store(ctrlr, &entry);
		return;
	}
	msg = malloc(sizeof(*msg));
	if (!msg)
		return;
	*msg = (struct error_msg){ nvmf_ctrlr_get(ctrlr), entry };
	thread_send(ctrlr->group->thread, error_arrived, msg);
}

static void log_error_page(struct nvmf_req *req)
{
	const struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;

	/* The newest first. */
	for (uint64_t i = 0; i < NVMF_NR_ERRORS && i < ctrlr->error_count; i++)
		nvmf_log_put(req, i * sizeof(ctrlr->errors[0]),
			     &ctrlr->errors[(ctrlr->error_count - 1 - i) % NVMF_NR_ERRORS],
			     sizeof(ctrlr->errors[0]));
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

/* --- 03h, 04h, 05h, 12h -------------------------------------------------------------------- */

static void log_firmware(struct nvmf_req *req)
{
	struct nvme_log_firmware_slot log = { .afi = 1 };
	size_t len = strlen(PACKAGE_VERSION);

	memset(log.frs[0], ' ', sizeof(log.frs[0]));
	memcpy(log.frs[0], PACKAGE_VERSION, len < sizeof(log.frs[0]) ? len : sizeof(log.frs[0]));
	nvmf_log_put(req, 0, &log, sizeof(log));
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

static void log_changed_ns(struct nvmf_req *req)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	unsigned nr = ctrlr->nr_changed_ns > NVMF_CHANGED_NS_MAX ? 1 : ctrlr->nr_changed_ns;

	nvmf_log_put(req, 0, ctrlr->changed_ns, nr * sizeof(ctrlr->changed_ns[0]));
	if (!(req->cmd.get_log.lsp & NVME_LOG_RAE))
		ctrlr->nr_changed_ns = 0;
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

static void log_effects(struct nvmf_req *req)
{
	struct nvme_log_effects log;

	nvmf_log_effects_fill(&log);
	/* CAP.CSS says that sets can be chosen, so nvme-cli asks for the zoned one too and takes no error for
	 * an answer. */
	if (req->cmd.get_log.csi != NVME_CSI_NVM)
		memset(log.io, 0, sizeof(log.io));
	nvmf_log_put(req, 0, &log, sizeof(log));
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

static void log_feature_effects(struct nvmf_req *req)
{
	struct nvme_log_feature_effects log;

	nvmf_log_feature_effects_fill(req->qpair->ctrlr, &log);
	nvmf_log_put(req, 0, &log, sizeof(log));
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

/* --- the table ----------------------------------------------------------------------------- */

static const struct log_page {
	void (*execute)(struct nvmf_req *req);
	uint32_t size; /* 0: varies; its own affair */
	bool io, discovery;
} pages[256] = {
	[NVME_LID_SUPPORTED] = { log_supported, sizeof(struct nvme_log_supported), true, true },
	[NVME_LID_ERROR] = { log_error_page, NVMF_NR_ERRORS * sizeof(struct nvme_log_error), true, true },
	[NVME_LID_SMART] = { nvmf_log_page_smart, sizeof(struct nvme_log_smart), true, false },
	[NVME_LID_FIRMWARE_SLOT] = { log_firmware, sizeof(struct nvme_log_firmware_slot), true, false },
	[NVME_LID_CHANGED_NS] = { log_changed_ns, sizeof(struct nvme_ns_list), true, false },
	[NVME_LID_EFFECTS] = { log_effects, sizeof(struct nvme_log_effects), true, false },
	[NVME_LID_FEATURE_EFFECTS] = { log_feature_effects, sizeof(struct nvme_log_feature_effects), true,
				       true },
	[NVME_LID_DISCOVERY] = { nvmf_discovery_log_execute, 0, false, true },
};

static bool page_is_offered(const struct nvmf_ctrlr *ctrlr, uint8_t lid)
{
	return ctrlr->discovery ? pages[lid].discovery : pages[lid].io;
}

uint16_t nvmf_log_page_prepare(struct nvmf_req *req)
{
	const struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	uint8_t lid = req->cmd.get_log.lid;
	uint64_t len = nvme_get_log_len_bytes(&req->cmd), offset = nvme_get_log_offset_bytes(&req->cmd);

	if (!page_is_offered(ctrlr, lid))
		return NVME_SC_INVALID_LOG_PAGE | NVME_SC_DNR;
	if (req->cmd.get_log.ot & 0x80 || offset % 4 || len > ctrlr->opts->max_io_size)
		return INVALID_FIELD;
	if (pages[lid].size && offset > pages[lid].size)
		return INVALID_FIELD;
	/* Pages are the controller's: no namespace has one of its own. */
	if (req->cmd.nsid && req->cmd.nsid != NVME_NSID_ALL)
		return INVALID_FIELD;
	req->len = (uint32_t)len;
	return NVME_SC_SUCCESS;
}

void nvmf_log_page_execute(struct nvmf_req *req)
{
	nvmf_req_zero(req);
	if (!(req->cmd.get_log.lsp & NVME_LOG_RAE))
		nvmf_aer_log_read(req->qpair->ctrlr, req->cmd.get_log.lid);
	pages[req->cmd.get_log.lid].execute(req);
}
