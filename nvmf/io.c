/*
 * Read, Write and Compare: the hot path between a request and a bdev, and the table of I/O commands.  No
 * allocation, no lock; the namespace is one array index away.
 */
#include "nvmf/internal.h"

struct nvmf_group_ns *nvmf_io_ns(struct nvmf_req *req, uint16_t *ret_status)
{
	struct nvmf_group_subsystem *gsub = req->qpair->gsub;
	uint32_t nsid = req->cmd.nsid;

	/* Slot 0 is never used. */
	if (nsid < gsub->nr_slots && gsub->ns[nsid])
		return gsub->ns[nsid];
	*ret_status = NVME_SC_INVALID_NS | NVME_SC_DNR;
	return NULL;
}

bool nvmf_io_range_ok(const struct nvmf_group_ns *gns, uint64_t slba, uint64_t nr_blocks)
{
	uint64_t size = bdev_nr_blocks(gns->bdev);

	return slba < size && nr_blocks <= size - slba;
}

/* A write is through the cache when it says so, or when the host has switched the cache off. */
uint8_t nvmf_io_fua(struct nvmf_req *req, const struct nvmf_group_ns *gns)
{
	if (req->cmd.rw.control & NVME_RW_FUA)
		return BDEV_IO_FUA;
	return gns->has_write_cache &&
			       atomic_load_explicit(&req->qpair->ctrlr->write_through, memory_order_relaxed) ?
		       BDEV_IO_FUA :
		       0;
}

/* The specification's word for what a bdev said, and for the drive's health. */
uint16_t nvmf_io_status(struct nvmf_req *req, int err)
{
	if (!err)
		return NVME_SC_SUCCESS;
	if (err != -EIO)
		return nvme_status_from_errno(err);
	nvmf_counter_add(&req->qpair->gsub->counters.media_errors, 1);
	switch (req->cmd.opcode) {
	case NVME_IO_READ:
	case NVME_IO_COMPARE:
	case NVME_IO_VERIFY:
		return NVME_SC_UNRECOVERED_READ_ERROR;
	default:
		return NVME_SC_WRITE_FAULT;
	}
}

/* --- at the bdev --------------------------------------------------------------------------- */

/* Submits req->io, of which the caller has set all but done. */
void nvmf_io_start(struct nvmf_req *req, struct nvmf_group_ns *gns,
		   void (*done)(struct bdev_io *io, int status))
{
	struct nvmf_group_subsystem *gsub = req->qpair->gsub;

	req->gns = gns;
	gns->nr_inflight++;
	if (!gsub->nr_io++)
		gsub->busy_since_ticks = clock_ticks();
	req->io.done = done;
	bdev_submit(gns->channel, &req->io);
}

/* The same for the command's own range and data; the caller has set io.flags, and compare_iov where there is
 * one. */
void nvmf_io_submit(struct nvmf_req *req, struct nvmf_group_ns *gns, uint8_t op,
		    void (*done)(struct bdev_io *io, int status))
{
	struct bdev_io *io = &req->io;

	io->op = op;
	io->iov = req->iov;
	io->iovcnt = req->iovcnt;
	io->offset_blocks = req->cmd.rw.slba;
	io->nr_blocks = req->cmd.rw.nlb + 1u;
	nvmf_io_start(req, gns, done);
}

void nvmf_io_end(struct nvmf_req *req)
{
	struct nvmf_group_subsystem *gsub = req->qpair->gsub;
	struct nvmf_group_ns *gns = req->gns;

	req->gns = NULL;
	if (!--gsub->nr_io)
		nvmf_counter_add(&gsub->counters.busy_ticks, clock_ticks() - gsub->busy_since_ticks);
	if (!--gns->nr_inflight && __builtin_expect(gns->idle != NULL, 0))
		fiber_wake(gns->idle, 0);
}

/* --- Read, Write, Compare ------------------------------------------------------------------ */

static uint16_t rw_prepare(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);
	uint32_t nr_blocks = req->cmd.rw.nlb + 1u;

	if (!gns)
		return status;
	if ((uint64_t)nr_blocks << gns->block_shift > req->qpair->opts->max_io_size)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (!nvmf_io_range_ok(gns, req->cmd.rw.slba, nr_blocks))
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	req->len = nr_blocks << gns->block_shift;
	return NVME_SC_SUCCESS;
}

uint16_t nvmf_io_write_prepare(struct nvmf_req *req)
{
	uint16_t status = rw_prepare(req);

	if (nvmf_status_is_error(status))
		return status;
	if (req->qpair->gsub->ns[req->cmd.nsid]->bdev->read_only)
		return NVME_SC_NS_WRITE_PROTECTED | NVME_SC_DNR;
	/* Directives are not offered: the directive type must be 0. */
	if (req->cmd.rw.control >> 4 & 0xf)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	return NVME_SC_SUCCESS;
}

/* The namespace as it is now: the one that was looked at first may have gone while data was fetched. */
static inline struct nvmf_group_ns *rw_ns(struct nvmf_req *req)
{
	uint16_t status = NVME_SC_INVALID_NS | NVME_SC_DNR;
	struct nvmf_group_ns *gns = nvmf_io_ns(req, &status);

	if (__builtin_expect(gns && (req->cmd.rw.nlb + 1u) << gns->block_shift == req->len, 1))
		return gns;
	nvmf_req_complete(req, status);
	return NULL;
}

static void read_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);
	struct nvmf_counters *counters = &req->qpair->gsub->counters;

	nvmf_io_end(req);
	nvmf_counter_add(&counters->nr_reads, 1);
	nvmf_counter_add(&counters->blocks512_read, req->len / 512);
	nvmf_req_complete(req, nvmf_io_status(req, err));
}

static void write_done(struct bdev_io *io, int err)
{
	struct nvmf_req *req = container_of(io, struct nvmf_req, io);
	struct nvmf_counters *counters = &req->qpair->gsub->counters;

	nvmf_io_end(req);
	nvmf_counter_add(&counters->nr_writes, 1);
	nvmf_counter_add(&counters->blocks512_written, req->len / 512);
	nvmf_req_complete(req, nvmf_io_status(req, err));
}

static void read_execute(struct nvmf_req *req)
{
	struct nvmf_group_ns *gns = rw_ns(req);

	if (!gns)
		return;
	req->io.flags = req->cmd.rw.control & NVME_RW_FUA ? BDEV_IO_FUA : 0;
	nvmf_io_submit(req, gns, BDEV_READ, read_done);
}

static void write_execute(struct nvmf_req *req)
{
	struct nvmf_group_ns *gns = rw_ns(req);

	if (!gns)
		return;
	req->io.flags = nvmf_io_fua(req, gns);
	nvmf_io_submit(req, gns, BDEV_WRITE, write_done);
}

static void compare_execute(struct nvmf_req *req)
{
	struct nvmf_group_ns *gns = rw_ns(req);

	if (!gns)
		return;
	req->io.flags = 0;
	nvmf_io_submit(req, gns, BDEV_COMPARE, read_done);
}

const struct nvmf_op nvmf_ops_io[256] = {
	[NVME_IO_FLUSH] = { NULL, nvmf_flush_execute, NVMF_OP_IO },
	[NVME_IO_WRITE] = { nvmf_io_write_prepare, write_execute, NVMF_OP_IO | NVMF_OP_FUSED },
	[NVME_IO_READ] = { rw_prepare, read_execute, NVMF_OP_IO },
	[NVME_IO_COMPARE] = { rw_prepare, compare_execute, NVMF_OP_IO | NVMF_OP_FUSED },
	[NVME_IO_WRITE_ZEROES] = { nvmf_write_zeroes_prepare, nvmf_write_zeroes_execute, NVMF_OP_IO },
	[NVME_IO_DSM] = { nvmf_dsm_prepare, nvmf_dsm_execute, NVMF_OP_IO },
	[NVME_IO_VERIFY] = { nvmf_verify_prepare, nvmf_verify_execute, NVMF_OP_IO },
	[NVME_IO_COPY] = { nvmf_copy_prepare, nvmf_copy_execute, NVMF_OP_IO },
	[NVME_OPC_FABRICS] = { nvmf_fabrics_prepare, nvmf_fabrics_execute, NVMF_OP_ANYTIME },
};
