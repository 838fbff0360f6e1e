/*
 * The request machine: what every command goes through, whatever it is and whichever transport it came by.
 *
 *   FREE         the transport's.  nvmf_req_begin(): checked, then NEED_BUFFER, NEED_DATA, EXECUTING or
 * COMPLETING NEED_BUFFER  in the pool's queue or the group's for large buffers.  A buffer comes -> NEED_DATA
 * or EXECUTING NEED_DATA    the transport fetches data from the host.  It is there -> EXECUTING, FUSED_WAIT;
 * it fails -> COMPLETING FUSED_WAIT   half of a Compare-and-Write whose other half is not ready.  It is ->
 * EXECUTING; it fails -> COMPLETING EXECUTING    a bdev, a message or a fiber has it.  Done -> COMPLETING; an
 * event request -> AER AER          held until there is an event -> COMPLETING COMPLETING   the transport
 * sends data and response.  nvmf_req_release() -> FREE
 *
 * QUEUED is a command that waits behind others of its own kind and has not started.  Whatever waits may be
 * ended by nvmf_req_cancel().
 */
#include <string.h>

#include "nvmf/internal.h"

static const uint16_t allowed_next[] = {
	[NVMF_REQ_FREE] = 1u << NVMF_REQ_NEED_BUFFER | 1u << NVMF_REQ_NEED_DATA | 1u << NVMF_REQ_EXECUTING |
			  1u << NVMF_REQ_FUSED_WAIT | 1u << NVMF_REQ_COMPLETING,
	[NVMF_REQ_NEED_BUFFER] =
		1u << NVMF_REQ_NEED_DATA | 1u << NVMF_REQ_EXECUTING | 1u << NVMF_REQ_COMPLETING,
	[NVMF_REQ_NEED_DATA] = 1u << NVMF_REQ_EXECUTING | 1u << NVMF_REQ_FUSED_WAIT |
			       1u << NVMF_REQ_COMPLETING | 1u << NVMF_REQ_FREE,
	[NVMF_REQ_FUSED_WAIT] = 1u << NVMF_REQ_EXECUTING | 1u << NVMF_REQ_COMPLETING,
	[NVMF_REQ_QUEUED] = 1u << NVMF_REQ_EXECUTING | 1u << NVMF_REQ_COMPLETING,
	[NVMF_REQ_EXECUTING] = 1u << NVMF_REQ_AER | 1u << NVMF_REQ_QUEUED | 1u << NVMF_REQ_COMPLETING,
	[NVMF_REQ_AER] = 1u << NVMF_REQ_COMPLETING,
	[NVMF_REQ_COMPLETING] = 1u << NVMF_REQ_FREE,
};

void nvmf_req_set_state(struct nvmf_req *req, enum nvmf_req_state state)
{
	assert(allowed_next[req->state] & 1u << state);
	req->state = state;
}

/* --- the end ------------------------------------------------------------------------------- */

static void req_failed(struct nvmf_req *req, uint16_t status)
{
	if (req->qpair->ctrlr)
		nvmf_error_log_add(req, status);
	req->len = 0;
}

void nvmf_req_complete(struct nvmf_req *req, uint16_t status)
{
	struct nvmf_qpair *qpair = req->qpair;

	if (req->aborter)
		nvmf_abort_victim_done(req, status);
	if (nvmf_status_is_error(status))
		req_failed(req, status);
	qpair->group->nr_completed += qpair->qid != 0;
	nvme_cqe_set_status(&req->cqe, status);
	req->cqe.cid = req->cmd.cid;
	if (qpair->sq_flow_control_disabled) {
		req->cqe.sqhd = 0xffff;
	} else {
		if (++qpair->sqhd >= qpair->sq_size)
			qpair->sqhd = 0;
		req->cqe.sqhd = qpair->sqhd;
	}
	nvmf_req_set_state(req, NVMF_REQ_COMPLETING);
	qpair->ops->complete(req);
}

/* The connection went while the transport fetched its data: others may wait for its end. */
static void req_abandoned(struct nvmf_req *req)
{
	if (req->aborter)
		nvmf_abort_victim_done(req, NVME_SC_ABORTED_SQ_DELETION);
	if (req->op->flags & NVMF_OP_FUSED)
		nvmf_fused_failed(req, NVME_SC_ABORTED_SQ_DELETION);
}

void nvmf_req_release(struct nvmf_req *req)
{
	struct nvmf_qpair *qpair = req->qpair;

	if (__builtin_expect(req->state != NVMF_REQ_COMPLETING, 0))
		req_abandoned(req);
	nvmf_buffers_put(req);
	list_del(&req->link);
	qpair->nr_outstanding--;
	nvmf_req_set_state(req, NVMF_REQ_FREE);
	if (__builtin_expect(qpair->closing, 0))
		nvmf_qpair_check(qpair);
}

bool nvmf_req_cancel(struct nvmf_req *req, uint16_t status)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;

	switch (req->state) {
	case NVMF_REQ_NEED_BUFFER:
		nvmf_buffers_cancel(req);
		break;
	case NVMF_REQ_FUSED_WAIT:
		break;
	case NVMF_REQ_AER:
		list_del(&req->wait_link);
		ctrlr->nr_aers--;
		break;
	case NVMF_REQ_QUEUED:
		list_del(&req->wait_link);
		break;
	default:
		return false;
	}
	if (req->op->flags & NVMF_OP_FUSED)
		nvmf_fused_failed(req, status);
	nvmf_req_complete(req, status);
	return true;
}

/* --- the data ------------------------------------------------------------------------------ */

static void req_fail_early(struct nvmf_req *req, uint16_t status)
{
	if (req->op && req->op->flags & NVMF_OP_FUSED)
		nvmf_fused_failed(req, status);
	nvmf_req_complete(req, status);
}

/* Everything the command needs is there. */
static void req_execute(struct nvmf_req *req)
{
	if (__builtin_expect(req->end_status || req->qpair->disconnected, 0)) {
		req_fail_early(req, req->end_status ? req->end_status : NVME_SC_ABORTED_SQ_DELETION);
		return;
	}
	if (__builtin_expect(req->cmd.flags & NVME_CMD_FUSE_MASK, 0)) {
		nvmf_fused_ready(req);
		return;
	}
	nvmf_req_set_state(req, NVMF_REQ_EXECUTING);
	req->op->execute(req);
}

void nvmf_req_buffers_ready(struct nvmf_req *req)
{
	if (req->xfer == NVMF_XFER_FROM_HOST && !req->qpair->disconnected) {
		nvmf_req_set_state(req, NVMF_REQ_NEED_DATA);
		req->qpair->ops->receive_data(req);
		return;
	}
	req_execute(req);
}

void nvmf_req_data_received(struct nvmf_req *req)
{
	req_execute(req);
}

void nvmf_req_data_failed(struct nvmf_req *req, uint16_t status)
{
	req_fail_early(req, req->end_status ? req->end_status : status);
}

/* The host's SGL against what the command moves. */
static uint16_t req_check_sgl(struct nvmf_req *req)
{
	uint16_t status = req->qpair->ops->parse_sgl(req);
	bool exact;

	if (nvmf_status_is_error(status))
		return status | NVME_SC_DNR;
	if (req->in_capsule && req->xfer != NVMF_XFER_FROM_HOST)
		return NVME_SC_SGL_TYPE_INVALID | NVME_SC_DNR;
	/*
	 * A buffer may be larger than what the command moves: for an answer, and for Dataset Management,
	 * whose ranges Linux hands over in a buffer for all 256 of them.  Blocks, and what else comes from a
	 * host, have exactly the command's length.
	 */
	if (req->sgl_len < req->len)
		return NVME_SC_SGL_LENGTH_INVALID | NVME_SC_DNR;
	exact = req->op->flags & NVMF_OP_IO ? req->cmd.opcode != NVME_IO_DSM :
					      req->xfer == NVMF_XFER_FROM_HOST;
	if (exact && req->sgl_len != req->len)
		return NVME_SC_SGL_LENGTH_INVALID | NVME_SC_DNR;
	return NVME_SC_SUCCESS;
}

static void req_start(struct nvmf_req *req)
{
	uint16_t status;

	if (!req->len) {
		req->xfer = NVMF_XFER_NONE;
		req_execute(req);
		return;
	}
	/* The two low bits of an opcode, and of a fabrics command's type, are the direction. */
	req->xfer = nvme_opcode_xfer(req->cmd.opcode == NVME_OPC_FABRICS ?
					     req->cmd.fabrics.fctype :
					     req->cmd.opcode) == NVME_XFER_TO_CTRLR ?
			    NVMF_XFER_FROM_HOST :
			    NVMF_XFER_TO_HOST;
	status = req_check_sgl(req);
	if (nvmf_status_is_error(status)) {
		req_fail_early(req, status);
	} else if (req->in_capsule) {
		req_execute(req);
	} else if (nvmf_buffers_get(req)) {
		nvmf_req_buffers_ready(req);
	} else {
		nvmf_req_set_state(req, NVMF_REQ_NEED_BUFFER);
		nvmf_group_count_buffer_wait(req->qpair->group, req->qpair->ops);
	}
}

/* --- the beginning ------------------------------------------------------------------------- */

static void req_init(struct nvmf_req *req)
{
	struct nvmf_qpair *qpair = req->qpair;

	assert(req->state == NVMF_REQ_FREE);
	req->cqe = (struct nvme_cqe){ 0 };
	req->xfer = NVMF_XFER_NONE;
	req->len = 0;
	req->nr_iobufs = 0;
	req->fused = NULL;
	req->aborter = NULL;
	req->gns = NULL;
	req->end_status = 0;
	req->zero_copy = false;
	req->start_ticks = clock_ticks();
	list_init(&req->wait_link);
	list_init(&req->buffer_wait.link);
	list_add_tail(&qpair->outstanding, &req->link);
	qpair->nr_outstanding++;
	req->op = &qpair->op_table[req->cmd.opcode];
}

/* What may be said of a command before it is looked at. */
static uint16_t req_check(struct nvmf_req *req)
{
	struct nvmf_qpair *qpair = req->qpair;
	const struct nvmf_op *op = req->op;

	if (qpair->closing)
		return NVME_SC_ABORTED_SQ_DELETION;
	if (!op->execute)
		return (qpair->connected ? NVME_SC_INVALID_OPCODE : NVME_SC_CMD_SEQUENCE_ERROR) | NVME_SC_DNR;
	if ((req->cmd.flags & NVME_CMD_PSDT_MASK) != NVME_CMD_PSDT_SGL)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if ((req->cmd.flags & NVME_CMD_FUSE_MASK) && !(op->flags & NVMF_OP_FUSED))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (qpair->connected && !qpair->qid && !(op->flags & NVMF_OP_ANYTIME) &&
	    !(qpair->ctrlr->csts & NVME_CSTS_RDY))
		return NVME_SC_CMD_SEQUENCE_ERROR | NVME_SC_DNR;
	return NVME_SC_SUCCESS;
}

void nvmf_req_begin(struct nvmf_req *req)
{
	struct nvmf_qpair *qpair = req->qpair;
	uint16_t status;

	req_init(req);
	/* Read first: most of the time it is set, and no cache line moves between threads. */
	if (qpair->ctrlr && !atomic_load_explicit(&qpair->ctrlr->traffic, memory_order_relaxed))
		atomic_store_explicit(&qpair->ctrlr->traffic, true, memory_order_relaxed);
	status = req_check(req);
	if (__builtin_expect(qpair->first_fused || qpair->first_fused_failed ||
				     req->cmd.flags & NVME_CMD_FUSE_MASK,
			     0))
		status = nvmf_fused_begin(req, status);
	if (!nvmf_status_is_error(status) && req->op->prepare)
		status = req->op->prepare(req);
	if (nvmf_status_is_error(status)) {
		req_fail_early(req, status);
		return;
	}
	req_start(req);
}

void nvmf_req_begin_aborted(struct nvmf_req *req)
{
	req_init(req);
	nvmf_req_complete(req, NVME_SC_ABORT_REQUESTED);
}

/* --- payloads ------------------------------------------------------------------------------ */

static void req_copy(struct nvmf_req *req, uint32_t offset, void *buf, uint32_t len, bool put)
{
	assert(len <= req->len && offset <= req->len - len);
	for (unsigned i = 0; len; i++) {
		uint32_t there = req->iov[i].iov_len, n;

		if (offset >= there) {
			offset -= there;
			continue;
		}
		n = len < there - offset ? len : there - offset;
		if (put)
			memcpy((char *)req->iov[i].iov_base + offset, buf, n);
		else
			memcpy(buf, (char *)req->iov[i].iov_base + offset, n);
		buf = (char *)buf + n;
		len -= n;
		offset = 0;
	}
}

void nvmf_req_put(struct nvmf_req *req, uint32_t offset, const void *src, uint32_t len)
{
	req_copy(req, offset, (void *)(uintptr_t)src, len, true);
}

void nvmf_req_get(struct nvmf_req *req, uint32_t offset, void *dst, uint32_t len)
{
	req_copy(req, offset, dst, len, false);
}

void nvmf_req_zero(struct nvmf_req *req)
{
	/* Without data, what iov says is of the request's last life. */
	for (unsigned i = 0; req->len && i < req->iovcnt; i++)
		memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
}
