/* Flush, Write Zeroes and Verify: commands without data on the wire, some of which take several operations of
 * the bdev. */
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

static void verify_next(struct nvmf_req *req);

static void verify_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);
	struct nvmf_counters *counters = &req->qpair->gsub->counters;

	nvmf_io_end(req);
	nvmf_counter_add(&counters->blocks512_read, req->step_iov.iov_len / 512);
	req->step_blocks += io->nr_blocks;
	if (!err && req->step_blocks <= req->cmd.rw.nlb) {
		verify_next(req);
		return;
	}
	nvmf_counter_add(&counters->nr_reads, 1);
	nvmf_req_complete(req, nvmf_io_status(req, err));
}

/* Reads the next piece into the one buffer it has, and looks no further at it. */
static void verify_next(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);
	uint64_t left = req->cmd.rw.nlb + 1u - req->step_blocks, piece;

	if (!gns) {
		nvmf_req_complete(req, status);
		return;
	}
	piece = IOBUF_LARGE_SIZE >> gns->block_shift;
	if (piece > left)
		piece = left;
	req->step_iov = (struct iovec){ req->iov[0].iov_base, piece << gns->block_shift };
	req->io.op = BDEV_READ;
	req->io.flags = 0;
	req->io.iov = &req->step_iov;
	req->io.iovcnt = 1;
	req->io.offset_blocks = req->cmd.rw.slba + req->step_blocks;
	req->io.nr_blocks = piece;
	nvmf_io_start(req, gns, verify_done);
}

static void verify_buffer_ready(struct iobuf_wait *wait, void *buf)
{
	struct nvmf_req *req = container_of(wait, struct nvmf_req, buffer_wait);

	req->iov[0].iov_base = buf;
	req->iobuf_class = IOBUF_LARGE;
	req->nr_iobufs = 1;
	verify_next(req);
}

void nvmf_verify_execute(struct nvmf_req *req)
{
	void *buf;

	req->step_blocks = 0;
	req->buffer_wait.ready = verify_buffer_ready;
	buf = iobuf_get(IOBUF_LARGE, &req->buffer_wait);
	if (buf)
		verify_buffer_ready(&req->buffer_wait, buf);
}
