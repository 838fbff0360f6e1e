/*
 * Copy: up to 128 source ranges, one after the other to one destination.  All are checked before the first is touched; then
 * each is one operation of the bdev, which may have the drive do it.
 *
 * Source: NVM Command Set 1.0, 3.2.2.
 */
#include "nvmf/internal.h"

#define COPY_MAX_BYTES (8u << 20) /* of a command: how long others wait for it, and an Abort of it */

uint32_t nvmf_copy_max_blocks(unsigned block_shift)
{
	uint32_t blocks = COPY_MAX_BYTES >> block_shift;

	return blocks < UINT16_MAX ? blocks : UINT16_MAX;
}

uint16_t nvmf_copy_prepare(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (!gns)
		return status;
	if (gns->bdev->read_only)
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	/* One format of ranges; no protection information, no directives. */
	if (req->cmd.copy.format || req->cmd.copy.control & NVME_RW_PRINFO_MASK || req->cmd.copy.control >> 4 & 0xf)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req->cmd.copy.nr >= NVMF_COPY_MAX_RANGES)
		return NVME_SC_CMD_SIZE_LIMIT | NVME_SC_DNR;
	req->len = (req->cmd.copy.nr + 1u) * sizeof(struct nvme_copy_range);
	return NVME_SC_SUCCESS;
}

static struct nvme_copy_range copy_range(struct nvmf_req *req, uint32_t i)
{
	struct nvme_copy_range range;

	nvmf_req_get(req, i * sizeof(range), &range, sizeof(range));
	return range;
}

static uint16_t copy_check(struct nvmf_req *req, const struct nvmf_group_ns *gns)
{
	uint64_t to = req->cmd.copy.sdlba, nr_blocks = 0;

	for (uint32_t i = 0; i <= req->cmd.copy.nr; i++) {
		struct nvme_copy_range range = copy_range(req, i);

		if (!nvmf_io_range_ok(gns, range.slba, range.nlb + 1u))
			return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
		nr_blocks += range.nlb + 1u;
	}
	if (nr_blocks > nvmf_copy_max_blocks(gns->block_shift))
		return NVME_SC_CMD_SIZE_LIMIT | NVME_SC_DNR;
	if (!nvmf_io_range_ok(gns, to, nr_blocks))
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	/* A source that an earlier range of the same command overwrites has no contents that are meant. */
	for (uint32_t i = 0; i <= req->cmd.copy.nr; i++) {
		struct nvme_copy_range range = copy_range(req, i);

		if (range.slba < to ? to - range.slba <= range.nlb : range.slba - to < nr_blocks)
			return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	return NVME_SC_SUCCESS;
}

static void copy_next(struct nvmf_req *req);

static void copy_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);

	nvmf_io_end(req);
	req->step_blocks += io->nr_blocks;
	if (err || ++req->step > req->cmd.copy.nr)
		nvmf_req_complete(req, nvmf_io_status(req, err));
	else
		copy_next(req);
}

static void copy_next(struct nvmf_req *req)
{
	struct nvme_copy_range range = copy_range(req, req->step);
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (!gns) {
		nvmf_req_complete(req, status);
		return;
	}
	req->io.op = BDEV_COPY;
	req->io.flags = nvmf_io_fua(req, gns);
	req->io.iovcnt = 0;
	req->io.from_blocks = range.slba;
	req->io.offset_blocks = req->cmd.copy.sdlba + req->step_blocks;
	req->io.nr_blocks = range.nlb + 1u;
	nvmf_io_start(req, gns, copy_done);
}

void nvmf_copy_execute(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (gns)
		status = copy_check(req, gns);
	if (nvmf_status_is_error(status)) {
		nvmf_req_complete(req, status);
		return;
	}
	req->step = 0;
	req->step_blocks = 0;
	copy_next(req);
}
