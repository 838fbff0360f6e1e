/*
 * Fused Compare and Write: two commands that arrive one behind the other and become one compare-and-write of
 * the bdev, which is what makes them atomic across queues, controllers and hosts.
 *
 * The first waits as the queue's first_fused for the next command to arrive.  Once paired, each fetches its
 * data by itself and waits in FUSED_WAIT; when both are there, they execute.  A half that ends before that
 * takes the other one along.
 */
#include "nvmf/internal.h"

/* Ends a half that has not started: now, or once its data is in. */
static void half_end(struct nvmf_req *half, uint16_t status)
{
	if (!nvmf_req_cancel(half, status) && !half->end_status)
		half->end_status = status;
}

static bool is_pair(const struct nvmf_req *first, const struct nvmf_req *second)
{
	return first->cmd.opcode == NVME_IO_COMPARE && second->cmd.opcode == NVME_IO_WRITE &&
	       first->cmd.nsid == second->cmd.nsid;
}

static bool same_range(const struct nvmf_req *first, const struct nvmf_req *second)
{
	return first->cmd.rw.slba == second->cmd.rw.slba && first->cmd.rw.nlb == second->cmd.rw.nlb;
}

static uint16_t second_begin(struct nvmf_req *first, struct nvmf_req *second, bool first_failed)
{
	if (first_failed)
		return NVME_SC_ABORTED_FAILED_FUSED;
	if (!first)
		return NVME_SC_ABORTED_MISSING_FUSED | NVME_SC_DNR;
	if (!is_pair(first, second)) {
		half_end(first, NVME_SC_ABORTED_FAILED_FUSED);
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	/* Here the specification gives both commands the same status. */
	if (!same_range(first, second)) {
		half_end(first, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	first->fused = second;
	second->fused = first;
	return NVME_SC_SUCCESS;
}

/* Called for every command that is fused or comes when a first is waiting; @status is what is known of it
 * already. */
uint16_t nvmf_fused_begin(struct nvmf_req *req, uint16_t status)
{
	struct nvmf_qpair *qpair = req->qpair;
	struct nvmf_req *first = qpair->first_fused;
	bool first_failed = qpair->first_fused_failed;
	unsigned fuse = req->cmd.flags & NVME_CMD_FUSE_MASK;

	qpair->first_fused = NULL;
	qpair->first_fused_failed = false;
	if (first && fuse != NVME_CMD_FUSE_SECOND)
		half_end(first, NVME_SC_ABORTED_MISSING_FUSED | NVME_SC_DNR);
	else if (first && nvmf_status_is_error(status))
		half_end(first, NVME_SC_ABORTED_FAILED_FUSED);
	if (nvmf_status_is_error(status) || !fuse)
		return status;
	if (fuse == NVME_CMD_FUSE_SECOND)
		return second_begin(first, req, first_failed);
	if (fuse != NVME_CMD_FUSE_FIRST || req->cmd.opcode != NVME_IO_COMPARE)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (req->cmd.rw.nlb > NVMF_ACWU) {
		qpair->first_fused_failed = true;
		return NVME_SC_ATOMIC_UNIT_EXCEEDED | NVME_SC_DNR;
	}
	qpair->first_fused = req;
	return NVME_SC_SUCCESS;
}

void nvmf_fused_failed(struct nvmf_req *req, uint16_t status)
{
	struct nvmf_qpair *qpair = req->qpair;
	struct nvmf_req *other = req->fused;

	if (qpair->first_fused == req) {
		qpair->first_fused = NULL;
		qpair->first_fused_failed = true;
	}
	if (!other)
		return;
	req->fused = NULL;
	other->fused = NULL;
	half_end(other, NVME_SC_ABORTED_FAILED_FUSED);
}

static void fused_done(struct bdev_io *io, int err)
{
	struct nvmf_req *second = container_of(io, struct nvmf_req, io);
	struct nvmf_req *first = second->fused;
	uint16_t status = nvmf_io_status(second, err);

	nvmf_io_end(second);
	second->fused = first->fused = NULL;
	if (!err) {
		nvmf_req_complete(first, NVME_SC_SUCCESS);
		nvmf_req_complete(second, NVME_SC_SUCCESS);
	} else if (err == -EILSEQ) {
		nvmf_req_complete(first, status);
		nvmf_req_complete(second, NVME_SC_ABORTED_FAILED_FUSED);
	} else {
		nvmf_req_complete(first, NVME_SC_ABORTED_FAILED_FUSED);
		nvmf_req_complete(second, status);
	}
}

static void pair_execute(struct nvmf_req *first, struct nvmf_req *second)
{
	uint16_t status = NVME_SC_SUCCESS;
	struct nvmf_group_ns *gns = nvmf_io_ns(second, &status);

	nvmf_req_set_state(first, NVMF_REQ_EXECUTING);
	nvmf_req_set_state(second, NVMF_REQ_EXECUTING);
	if (!gns) {
		second->fused = first->fused = NULL;
		nvmf_req_complete(first, status);
		nvmf_req_complete(second, NVME_SC_ABORTED_FAILED_FUSED);
		return;
	}
	second->io.compare_iov = first->iov;
	second->io.compare_iovcnt = first->iovcnt;
	second->io.flags = nvmf_io_fua(second, gns);
	nvmf_io_submit(second, gns, BDEV_COMPARE_AND_WRITE, fused_done);
}

void nvmf_fused_ready(struct nvmf_req *req)
{
	struct nvmf_req *other = req->fused;

	if (!other || other->state != NVMF_REQ_FUSED_WAIT)
		nvmf_req_set_state(req, NVMF_REQ_FUSED_WAIT);
	else if (req->cmd.opcode == NVME_IO_COMPARE)
		pair_execute(req, other);
	else
		pair_execute(other, req);
}
