/*
 * Identify: what a controller is, and what its namespaces are.
 *
 * Source: NVM Express Base 2.0, 5.17; NVM Command Set 1.0, 4.1.5.
 */
#include <string.h>

#include "config.h"
#include "nvmf/internal.h"

#define INVALID_FIELD (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define INVALID_NS    (NVME_SC_INVALID_NS | NVME_SC_DNR)

/* --- the controller ------------------------------------------------------------------------ */

static void put_text(char *field, size_t size, const char *text)
{
	size_t len = strlen(text);

	memset(field, ' ', size);
	memcpy(field, text, len < size ? len : size);
}

/* In a capsule: the first stands in the command, or a list of them behind it. */
static uint8_t max_descriptors(const struct nvmf_ctrlr *ctrlr)
{
	uint32_t fit = ctrlr->opts->in_capsule_data_size / sizeof(struct nvme_sgl);

	if (fit < 1)
		return 1;
	return fit < ctrlr->ops->max_descriptors ? (uint8_t)fit : ctrlr->ops->max_descriptors;
}

/* What I/O and discovery controllers have in common. */
static void fill_common(const struct nvmf_ctrlr *ctrlr, struct nvme_id_ctrlr *id)
{
	const struct nvmf_subsystem *sub = ctrlr->subsystem;

	put_text(id->sn, sizeof(id->sn), sub->serial);
	put_text(id->mn, sizeof(id->mn), sub->model);
	put_text(id->fr, sizeof(id->fr), PACKAGE_VERSION);
	id->mdts = (uint8_t)__builtin_ctz(ctrlr->opts->max_io_size / NVMF_PAGE_SIZE);
	id->cntlid = ctrlr->cntlid;
	id->ver = NVME_VS(2, 0, 0);
	id->ctratt = NVME_CTRATT_HIDS | NVME_CTRATT_TBKAS;
	id->aerl = NVMF_AERL;
	id->lpa = NVME_LPA_EXTENDED | NVME_LPA_SUPPORTED;
	id->elpe = NVMF_NR_ERRORS - 1;
	id->kas = NVMF_KAS_100MS;
	id->sgls = NVME_SGLS_SUPPORTED | ctrlr->ops->sgls;
	memcpy(id->subnqn, sub->nqn, sizeof(id->subnqn));
	id->ioccsz = (sizeof(union nvme_cmd) + ctrlr->opts->in_capsule_data_size) / 16;
	id->iorcsz = sizeof(struct nvme_cqe) / 16;
	id->msdbd = max_descriptors(ctrlr);
}

static void fill_discovery(const struct nvmf_ctrlr *ctrlr, struct nvme_id_ctrlr *id)
{
	id->cntrltype = NVME_CNTRLTYPE_DISCOVERY;
	id->oaes = NVME_OAES_DISCOVERY;
	id->maxcmd = (uint16_t)ctrlr->opts->max_aq_depth;
	id->ioccsz = sizeof(union nvme_cmd) / 16;
}

static void fill_io(struct nvmf_ctrlr *ctrlr, struct nvme_id_ctrlr *id)
{
	const struct nvmf_subsystem *sub = ctrlr->subsystem;

	id->cntrltype = NVME_CNTRLTYPE_IO;
	id->cmic = NVME_CMIC_MULTI_PORT | NVME_CMIC_MULTI_CTRLR;
	id->oaes = NVME_OAES_NS_ATTR;
	id->lpa |= NVME_LPA_EFFECTS;
	id->acl = NVMF_ACL;
	id->frmw = 0x03; /* one slot, and it is read-only */
	id->wctemp_k = 343;
	id->cctemp_k = 353;
	id->sqes = 0x66;
	id->cqes = 0x44;
	id->maxcmd = (uint16_t)ctrlr->max_queue_depth;
	id->nn = sub->max_namespaces;
	id->mnan = sub->max_namespaces;
	id->oncs = NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES | NVME_ONCS_SAVE |
		   NVME_ONCS_VERIFY | NVME_ONCS_COPY;
	id->cdfs = NVME_CDFS_FORMAT_0;
	id->fuses = NVME_FUSES_COMPARE_AND_WRITE;
	/*
	 * Present whatever the namespaces are today: a host looks once, when it connects, and one that heard
	 * of no cache would send no flush to the namespace with a cache that comes later.  A flush that has
	 * nothing to do is answered at once.
	 */
	id->vwc = NVME_VWC_FLUSH_ALL_YES | NVME_VWC_PRESENT;
	id->acwu = NVMF_ACWU;
	id->ofcs = NVME_OFCS_DISCONNECT;
}

static uint16_t identify_ctrlr(struct nvmf_req *req, void *page)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;

	fill_common(ctrlr, page);
	if (ctrlr->discovery)
		fill_discovery(ctrlr, page);
	else
		fill_io(ctrlr, page);
	return NVME_SC_SUCCESS;
}

static uint16_t identify_iocs_ctrlr(struct nvmf_req *req, void *page)
{
	const struct nvmf_subsystem *sub = req->qpair->ctrlr->subsystem;
	struct nvme_id_ctrlr_nvm *id = page;

	id->wzsl = sub->wzsl;
	id->dmrl = NVME_DSM_MAX_RANGES - 1;
	id->dmrsl = sub->dmrsl;
	return NVME_SC_SUCCESS;
}

/* --- a namespace --------------------------------------------------------------------------- */

/* NULL with success: the NSID is allowed but nothing is there. */
static const struct nvmf_group_ns *find_ns(struct nvmf_req *req, uint16_t *ret_status)
{
	const struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	uint32_t nsid = req->cmd.nsid;

	*ret_status = !nsid || nsid > ctrlr->subsystem->max_namespaces ? INVALID_NS : NVME_SC_SUCCESS;
	return nsid < ctrlr->gsub->nr_slots ? ctrlr->gsub->ns[nsid] : NULL;
}

static void fill_preferences(const struct bdev *bdev, struct nvme_id_ns *id)
{
	uint32_t write = bdev->optimal_blocks ? bdev->optimal_blocks : 1;
	uint32_t unmap = bdev->unmap_granularity_blocks ? bdev->unmap_granularity_blocks : 1;

	if (!bdev->optimal_blocks && !bdev->unmap_granularity_blocks)
		return;
	id->nsfeat |= NVME_NSFEAT_OPTPERF;
	id->npwg = id->npwa = (uint16_t)((write > 65536 ? 65536 : write) - 1);
	id->npdg = id->npda = (uint16_t)((unmap > 65536 ? 65536 : unmap) - 1);
	id->nows = id->npwg;
}

static uint16_t identify_ns(struct nvmf_req *req, void *page)
{
	struct nvme_id_ns *id = page;
	uint16_t status;
	const struct nvmf_group_ns *gns = find_ns(req, &status);
	uint64_t bytes;

	if (!gns)
		return status;
	id->nsze = id->ncap = bdev_nr_blocks(gns->bdev);
	id->nuse = req->step_blocks < id->nsze ? req->step_blocks : id->nsze;
	if (gns->bdev->thin)
		id->nsfeat |= NVME_NSFEAT_THIN;
	id->nmic = NVME_NMIC_SHARED;
	if (gns->bdev->unmap_zeroes)
		id->dlfeat = NVME_DLFEAT_READ_ZERO;
	id->dlfeat |= NVME_DLFEAT_WZ_DEAC;
	bytes = id->nsze << gns->block_shift;
	memcpy(id->nvmcap, &bytes, sizeof(bytes));
	fill_preferences(gns->bdev, id);
	id->mssrl = (uint16_t)nvmf_copy_max_blocks(gns->block_shift);
	id->mcl = id->mssrl;
	id->msrc = NVMF_COPY_MAX_RANGES - 1;
	id->anagrpid = 0;
	if (gns->bdev->read_only)
		id->nsattr = NVME_NSATTR_WRITE_PROTECTED;
	memcpy(id->nguid, gns->ns->nguid, sizeof(id->nguid));
	memcpy(id->eui64, gns->ns->eui64, sizeof(id->eui64));
	id->lbaf[0].lbads = (uint8_t)gns->block_shift;
	return NVME_SC_SUCCESS;
}

static uint16_t identify_iocs_ns(struct nvmf_req *req, void *page)
{
	uint16_t status;

	/* No protection information, no wide storage tags: all zero for the NVM command set. */
	find_ns(req, &status);
	return status;
}

static uint16_t identify_independent_ns(struct nvmf_req *req, void *page)
{
	struct nvme_id_ns_independent *id = page;
	uint16_t status;
	const struct nvmf_group_ns *gns = find_ns(req, &status);

	if (!gns)
		return status;
	id->nmic = NVME_NMIC_SHARED;
	if (gns->bdev->read_only)
		id->nsattr = NVME_NSATTR_WRITE_PROTECTED;
	id->nstat = NVME_NSTAT_READY;
	return NVME_SC_SUCCESS;
}

static size_t put_descriptor(uint8_t *page, size_t at, uint8_t type, const void *nid, uint8_t len)
{
	struct nvme_ns_id_descriptor *descriptor = (struct nvme_ns_id_descriptor *)(page + at);

	descriptor->nidt = type;
	descriptor->nidl = len;
	memcpy(descriptor->nid, nid, len);
	return at + sizeof(*descriptor) + len;
}

static uint16_t identify_descriptors(struct nvmf_req *req, void *page)
{
	static const uint8_t csi = NVME_CSI_NVM;
	uint16_t status;
	const struct nvmf_group_ns *gns = find_ns(req, &status);
	size_t at = 0;

	if (!gns)
		return INVALID_NS;
	if (gns->ns->eui64_given)
		at = put_descriptor(page, at, NVME_NIDT_EUI64, gns->ns->eui64, 8);
	at = put_descriptor(page, at, NVME_NIDT_NGUID, gns->ns->nguid, 16);
	at = put_descriptor(page, at, NVME_NIDT_UUID, gns->ns->uuid, 16);
	put_descriptor(page, at, NVME_NIDT_CSI, &csi, 1);
	return NVME_SC_SUCCESS;
}

/* --- lists --------------------------------------------------------------------------------- */

static uint16_t identify_ns_list(struct nvmf_req *req, void *page)
{
	const struct nvmf_group_subsystem *gsub = req->qpair->ctrlr->gsub;
	struct nvme_ns_list *list = page;
	unsigned nr = 0;

	if (req->cmd.nsid >= NVME_NSID_ALL - 1)
		return INVALID_NS;
	for (uint32_t nsid = req->cmd.nsid + 1; nsid < gsub->nr_slots && nr < 1024; nsid++) {
		if (gsub->ns[nsid])
			list->nsid[nr++] = nsid;
	}
	return NVME_SC_SUCCESS;
}

/* There is one combination of command sets: the NVM one. */
static uint16_t identify_iocs_vectors(struct nvmf_req *req, void *page)
{
	struct nvme_id_iocs *iocs = page;

	if (req->cmd.identify.cntid != 0xffff && req->cmd.identify.cntid != 0 &&
	    req->cmd.identify.cntid != req->qpair->ctrlr->cntlid)
		return INVALID_FIELD;
	iocs->vector[0] = 1u << NVME_CSI_NVM;
	return NVME_SC_SUCCESS;
}

/* --- the table ----------------------------------------------------------------------------- */

static const struct {
	uint16_t (*fill)(struct nvmf_req *req, void *page);
	bool has_csi;
	bool discovery;
} pages[256] = {
	[NVME_CNS_NS] = { identify_ns, false, false },
	[NVME_CNS_CTRLR] = { identify_ctrlr, false, true },
	[NVME_CNS_ACTIVE_NS_LIST] = { identify_ns_list, false, false },
	[NVME_CNS_NS_ID_DESCRIPTORS] = { identify_descriptors, false, false },
	[NVME_CNS_IOCS_NS] = { identify_iocs_ns, true, false },
	[NVME_CNS_IOCS_CTRLR] = { identify_iocs_ctrlr, true, false },
	[NVME_CNS_IOCS_ACTIVE_NS_LIST] = { identify_ns_list, true, false },
	[NVME_CNS_IOCS_INDEPENDENT_NS] = { identify_independent_ns, false, false },
	[NVME_CNS_IOCS_VECTORS] = { identify_iocs_vectors, false, false },
};

uint16_t nvmf_identify_prepare(struct nvmf_req *req)
{
	uint8_t cns = req->cmd.identify.cns;

	if (!pages[cns].fill || (req->qpair->ctrlr->discovery && !pages[cns].discovery))
		return INVALID_FIELD;
	if (pages[cns].has_csi && req->cmd.identify.csi != NVME_CSI_NVM)
		return INVALID_FIELD;
	req->len = NVME_IDENTIFY_SIZE;
	return NVME_SC_SUCCESS;
}

static void identify_answer(void *arg)
{
	struct nvmf_req *req = arg;
	uint64_t page[NVME_IDENTIFY_SIZE / 8] = { 0 };
	uint16_t status = pages[req->cmd.identify.cns].fill(req, page);

	if (!nvmf_status_is_error(status))
		nvmf_req_put(req, 0, page, sizeof(page));
	nvmf_req_complete(req, status);
}

/* How much of a thin namespace has storage is known on the app thread; the request, and with it the
 * subsystem, stays. */
static void identify_count_blocks(void *arg)
{
	struct nvmf_req *req = arg;
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	const struct nvmf_ns *ns = ctrlr->subsystem->ns[req->cmd.nsid];

	if (ns && ns->desc && ns->bdev->ops->allocated_blocks)
		req->step_blocks = ns->bdev->ops->allocated_blocks(ns->bdev);
	thread_send(ctrlr->group->thread, identify_answer, req);
}

void nvmf_identify_execute(struct nvmf_req *req)
{
	const struct nvmf_group_ns *gns = NULL;
	uint16_t status;

	if (req->cmd.identify.cns == NVME_CNS_NS)
		gns = find_ns(req, &status);
	req->step_blocks = UINT64_MAX;
	if (gns && gns->bdev->thin)
		thread_send(runtime_app_thread(), identify_count_blocks, req);
	else
		identify_answer(req);
}
