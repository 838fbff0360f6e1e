/* Flush, Write Zeroes and Verify: commands without data on the wire; a Flush may take several operations. */
#include "nvmf/internal.h"

/* --- Flush --------------------------------------------------------------------------------- */

static bool flush_next(struct nvmf_req *req);
static void flush_done(struct bdev_io *io, int err);

/* A flush has no range, whatever the command's fields say. */
static void flush_submit(struct nvmf_req *req, struct nvmf_group_ns *gns)
{
	req->io.op = BDEV_FLUSH;
	req->io.flags = 0;
	req->io.iovcnt = 0;
	req->io.offset_blocks = 0;
	req->io.nr_blocks = 0;
	nvmf_io_start(req, gns, flush_done);
}

static void flush_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);

	nvmf_io_end(req);
	if (err || req->cmd.nsid != NVME_NSID_ALL || !flush_next(req))
		nvmf_req_complete(req, nvmf_io_status(req, err));
}

/* NSID FFFFFFFFh: every namespace in turn.  False when there is no other. */
static bool flush_next(struct nvmf_req *req)
{
	struct nvmf_group_subsystem *gsub = req->qpair->gsub;

	while (++req->step < gsub->nr_slots) {
		if (!gsub->ns[req->step])
			continue;
		flush_submit(req, gsub->ns[req->step]);
		return true;
	}
	return false;
}

void nvmf_flush_execute(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns;

	req->step = 0;
	if (req->cmd.nsid == NVME_NSID_ALL) {
		if (!flush_next(req))
			nvmf_req_complete(req, NVME_SC_SUCCESS);
		return;
	}
	gns = nvmf_io_ns(req, &status);
	if (!gns) {
		nvmf_req_complete(req, status);
		return;
	}
	flush_submit(req, gns);
}

/* --- Write Zeroes -------------------------------------------------------------------------- */

uint16_t nvmf_write_zeroes_prepare(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);
	uint8_t wzsl = req->qpair->gsub->subsystem->wzsl;
	uint64_t nr_blocks = req->cmd.rw.nlb + 1u;

	if (!gns)
		return status;
	if (wzsl && wzsl < 32 && nr_blocks << gns->block_shift > (uint64_t)NVMF_PAGE_SIZE << wzsl)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (!nvmf_io_range_ok(gns, req->cmd.rw.slba, nr_blocks))
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	if (gns->bdev->read_only)
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	return NVME_SC_SUCCESS;
}

static void write_zeroes_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);

	nvmf_io_end(req);
	nvmf_req_complete(req, nvmf_io_status(req, err));
}

void nvmf_write_zeroes_execute(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (!gns) {
		nvmf_req_complete(req, status);
		return;
	}
	req->iovcnt = 0;
	req->io.flags = nvmf_io_fua(req, gns);
	if (req->cmd.rw.control & NVME_RW_DEAC)
		req->io.flags |= BDEV_IO_UNMAP_OK;
	nvmf_io_submit(req, gns, BDEV_WRITE_ZEROES, write_zeroes_done);
}

/* --- Verify -------------------------------------------------------------------------------- */

uint16_t nvmf_verify_prepare(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (!gns)
		return status;
	if (!nvmf_io_range_ok(gns, req->cmd.rw.slba, req->cmd.rw.nlb + 1u))
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	return NVME_SC_SUCCESS;
}

static void verify_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);
	struct nvmf_counters *counters = &req->qpair->gsub->counters;

	nvmf_counter_add(&counters->blocks512_read, io->nr_blocks << req->gns->block_shift >> 9);
	nvmf_io_end(req);
	nvmf_counter_add(&counters->nr_reads, 1);
	nvmf_req_complete(req, nvmf_io_status(req, err));
}

/* The bdev has its drive look at the range, or reads it. */
void nvmf_verify_execute(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (!gns) {
		nvmf_req_complete(req, status);
		return;
	}
	req->iovcnt = 0;
	req->io.flags = 0;
	nvmf_io_submit(req, gns, BDEV_VERIFY, verify_done);
}
