/* Dataset Management: up to 256 ranges, all checked before the first is touched, then deallocated one after
 * the other. */
#include "nvmf/internal.h"

uint16_t nvmf_dsm_prepare(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (!gns)
		return status;
	if (req->cmd.dsm.attributes & NVME_DSM_AD && gns->bdev->read_only)
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	req->len = (req->cmd.dsm.nr + 1u) * sizeof(struct nvme_dsm_range);
	return NVME_SC_SUCCESS;
}

static struct nvme_dsm_range dsm_range(struct nvmf_req *req, uint32_t i)
{
	struct nvme_dsm_range range;

	nvmf_req_get(req, i * sizeof(range), &range, sizeof(range));
	return range;
}

static uint16_t dsm_check(struct nvmf_req *req, const struct nvmf_group_ns *gns)
{
	uint32_t limit = req->qpair->gsub->subsystem->dmrsl;

	for (uint32_t i = 0; i <= req->cmd.dsm.nr; i++) {
		struct nvme_dsm_range range = dsm_range(req, i);

		if (range.nlb && !nvmf_io_range_ok(gns, range.slba, range.nlb))
			return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
		if (limit && range.nlb > limit)
			return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	return NVME_SC_SUCCESS;
}

static void dsm_next(struct nvmf_req *req);

static void dsm_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);

	nvmf_io_end(req);
	/* A deallocation is advice: a bdev that cannot has taken it. */
	if (err && err != -ENOTSUP)
		nvmf_req_complete(req, nvmf_io_status(req, err));
	else
		dsm_next(req);
}

static void dsm_next(struct nvmf_req *req)
{
	while (req->step <= req->cmd.dsm.nr) {
		struct nvme_dsm_range range = dsm_range(req, req->step++);
		uint16_t status = NVME_SC_SUCCESS;
		struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

		if (!gns) {
			nvmf_req_complete(req, status);
			return;
		}
		if (!range.nlb)
			continue;
		req->io.op = BDEV_UNMAP;
		req->io.flags = 0;
		req->io.iovcnt = 0;
		req->io.offset_blocks = range.slba;
		req->io.nr_blocks = range.nlb;
		nvmf_io_start(req, gns, dsm_done);
		return;
	}
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

void nvmf_dsm_execute(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (gns)
		status = dsm_check(req, gns);
	if (nvmf_status_is_error(status) || !(req->cmd.dsm.attributes & NVME_DSM_AD)) {
		nvmf_req_complete(req, status);
		return;
	}
	req->step = 0;
	dsm_next(req);
}
