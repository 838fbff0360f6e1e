/*
 * A controller over PCIe: the steps of memory-based initialization, creating queues, Doorbell Buffer Config, and stopping
 * it in whatever state it is.
 *
 * Source: NVM Express Base 2.0, 3.5.1 "Memory-based Controller Initialization", 3.1.3 (registers).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/pcie.h"

#define READY_POLL_US 1000u
#define ADMIN_MAX     4096u

static bool wide(uint32_t offset)
{
	return offset == NVME_PROP_CAP || offset == NVME_PROP_ASQ || offset == NVME_PROP_ACQ;
}

static int reg_get(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t *ret_value)
{
	struct nvme_bar *bar = ctrlr->pcie->bar;

	if (wide(offset))
		*ret_value = bar->ops->read64(bar, offset);
	else
		*ret_value = bar->ops->read32(bar, offset);
	/* No register is all ones: nobody is there. */
	if (*ret_value == (wide(offset) ? UINT64_MAX : UINT32_MAX))
		__atomic_store_n(&bar->removed, true, __ATOMIC_RELEASE);
	return nvme_bar_removed(bar) ? -ENODEV : 0;
}

static int reg_set(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t value)
{
	struct nvme_bar *bar = ctrlr->pcie->bar;

	if (nvme_bar_removed(bar))
		return -ENODEV;
	if (wide(offset))
		bar->ops->write64(bar, offset, value);
	else
		bar->ops->write32(bar, offset, (uint32_t)value);
	return 0;
}

static int gone(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	nvme_error_set(error, -ENODEV, 0, "%s is gone: its registers read all ones", ctrlr->pcie->bar->name);
	return -ENODEV;
}

static uint64_t ready_limit_us(const struct nvme_ctrlr *ctrlr)
{
	return clock_now_us() + (NVME_CAP_TO(ctrlr->cap) + 1) * 500000;
}

/* Waits for CSTS.RDY to be @ready.  Return: 0, -ENODEV, -ETIMEDOUT; -EIO for a fatal status on the way to ready. */
static fiber_fn int wait_rdy(struct nvme_ctrlr *ctrlr, bool ready)
{
	uint64_t limit_us = ready_limit_us(ctrlr);
	uint64_t csts;

	for (;;) {
		if (reg_get(ctrlr, NVME_PROP_CSTS, &csts))
			return -ENODEV;
		if ((csts & NVME_CSTS_RDY) == (ready ? NVME_CSTS_RDY : 0u))
			return 0;
		if (ready && (csts & NVME_CSTS_CFS))
			return -EIO;
		if (clock_now_us() >= limit_us)
			return -ETIMEDOUT;
		fiber_sleep(READY_POLL_US);
	}
}

/* CC.EN off, whatever CC.EN and CSTS.RDY are now.  A change of EN must not come while RDY has not followed the last one. */
static fiber_fn int switch_off(struct nvme_ctrlr *ctrlr)
{
	uint64_t cc;
	int rc;

	if (reg_get(ctrlr, NVME_PROP_CC, &cc))
		return -ENODEV;
	if (cc & NVME_CC_EN) {
		rc = wait_rdy(ctrlr, true);
		if (rc == -ENODEV)
			return rc; /* fatal, or never ready: off all the same */
		if (reg_set(ctrlr, NVME_PROP_CC, cc & ~(uint64_t)NVME_CC_EN))
			return -ENODEV;
	}
	return wait_rdy(ctrlr, false);
}

static void dma_has_stopped(struct pcie_ctrlr *pcie)
{
	__atomic_store_n(&pcie->dma_stopped, true, __ATOMIC_RELEASE);
}

/*
 * The function's DMA stops by the first of: it is gone; CC.EN off and CSTS.RDY followed; a reset of the function, or bus
 * mastering taken from it.  The last cannot fail short of a machine that is broken.
 */
fiber_fn void pcie_stop_dma(struct nvme_ctrlr *ctrlr)
{
	struct pcie_ctrlr *pcie = ctrlr->pcie;
	struct nvme_bar *bar = pcie->bar;
	int rc;

	fiber_lock(&pcie->mutex);
	if (!pcie_dma_stopped(pcie)) {
		rc = pcie->enabled ? switch_off(ctrlr) : 0;
		if (rc && rc != -ENODEV) {
			log_warning("%s: CC.EN off was not followed by CSTS.RDY (%s): the function is reset", bar->name,
				    strerror(-rc));
			rc = bar->ops->stop(bar);
			if (rc)
				log_error("%s: resetting the function failed: %s", bar->name, strerror(-rc));
		}
		dma_has_stopped(pcie);
	}
	fiber_unlock(&pcie->mutex);
}

static fiber_fn void stop_fiber(void *arg)
{
	struct nvme_ctrlr *ctrlr = arg;

	pcie_stop_dma(ctrlr);
	__atomic_fetch_sub(&ctrlr->nr_told, 1, __ATOMIC_RELEASE);
}

bool pcie_stop_dma_later(struct nvme_ctrlr *ctrlr)
{
	__atomic_fetch_add(&ctrlr->nr_told, 1, __ATOMIC_RELAXED);
	if (!fiber_spawn(ctrlr->thread, "nvme-stop", stop_fiber, ctrlr))
		return true;
	__atomic_fetch_sub(&ctrlr->nr_told, 1, __ATOMIC_RELEASE);
	return false;
}

static fiber_fn void disable(struct nvme_ctrlr *ctrlr)
{
	if (!ctrlr->pcie)
		return;
	pcie_stop_dma(ctrlr);
	if (ctrlr->admin && ctrlr->admin->state < QPAIR_ENDING)
		qpair_fail(ctrlr->admin, -ECONNABORTED, "%s was disabled", ctrlr->pcie->bar->name);
}

/* --- up ----------------------------------------------------------------------------------------- */

static int check_cap(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	struct pcie_ctrlr *pcie = ctrlr->pcie;
	struct nvme_bar *bar = pcie->bar;

	if ((ctrlr->cap >> NVME_CAP_MPSMIN_SHIFT) & 0xf) {
		nvme_error_set(error, -ENOTSUP, 0, "%s wants memory pages larger than 4 KiB", bar->name);
		return -ENOTSUP;
	}
	if (!(ctrlr->cap & (NVME_CAP_CSS_NVM | NVME_CAP_CSS_IOCSS))) {
		nvme_error_set(error, -ENOTSUP, 0, "%s has no NVM command set (CAP %016llxh)", bar->name,
			       (unsigned long long)ctrlr->cap);
		return -ENOTSUP;
	}
	pcie->doorbell_stride = 4u << NVME_CAP_DSTRD(ctrlr->cap);
	if (bar->size < PCIE_DOORBELLS || bar->size - PCIE_DOORBELLS < 2 * pcie->doorbell_stride) {
		nvme_error_set(error, -EPROTO, 0, "%s has no room for doorbells in %u bytes", bar->name, bar->size);
		return -EPROTO;
	}
	return 0;
}

static int make_admin(struct nvme_ctrlr *ctrlr, uint32_t size, struct nvme_error *error)
{
	uint32_t limit = NVME_CAP_MQES(ctrlr->cap) + 1;
	struct pcie_qpair *admin;
	int rc;

	if (size > limit)
		size = limit;
	if (size > ADMIN_MAX)
		size = ADMIN_MAX;
	if (size < 3) {
		nvme_error_set(error, -EPROTO, 0, "%s has queues of %u entries", ctrlr->pcie->bar->name, limit);
		return -EPROTO;
	}
	rc = pcie_qpair_alloc(ctrlr, 0, size, &admin);
	if (rc) {
		nvme_error_set(error, rc, 0, "%s: no DMA memory for the admin queue", ctrlr->pcie->bar->name);
		return rc;
	}
	ctrlr->admin = &admin->q;
	reg_set(ctrlr, NVME_PROP_AQA, (size - 1) << 16 | (size - 1));
	reg_set(ctrlr, NVME_PROP_ASQ, admin->sq_addr);
	reg_set(ctrlr, NVME_PROP_ACQ, admin->cq_addr);
	return 0;
}

static fiber_fn int enable(struct nvme_ctrlr *ctrlr, uint32_t admin_queue_size, struct nvme_error *error)
{
	struct pcie_ctrlr *pcie = ctrlr->pcie;
	struct pcie_qpair *admin;
	uint64_t value;
	int rc;

	if (reg_get(ctrlr, NVME_PROP_CAP, &ctrlr->cap) || reg_get(ctrlr, NVME_PROP_VS, &value))
		return gone(ctrlr, error);
	ctrlr->vs = (uint32_t)value;
	rc = check_cap(ctrlr, error);
	if (rc)
		return rc;
	rc = switch_off(ctrlr);
	if (rc == -ETIMEDOUT)
		rc = pcie->bar->ops->stop(pcie->bar);
	if (rc) {
		nvme_error_set(error, rc, 0, "%s cannot be reset: CSTS.RDY does not follow CC.EN (%s)", pcie->bar->name,
			       strerror(-rc));
		return rc;
	}
	pcie_cmb_find(ctrlr);
	rc = make_admin(ctrlr, admin_queue_size, error);
	if (rc)
		return rc;
	admin = pcie_of(ctrlr->admin);
	pcie->enabled = true;
	if (reg_set(ctrlr, NVME_PROP_CC, ctrlr_cc(ctrlr)))
		return gone(ctrlr, error);
	admin->created = true;
	admin->has_irq = pcie->bar->nr_vectors > 0;
	admin->irq = (struct nvme_irq){.bar = pcie->bar, .vector = 0, .alone = pcie->bar->nr_vectors > 1};
	pcie_qpair_go(admin);
	return 0;
}

/* Source: NVM Express Base 2.0, 5.9 "Doorbell Buffer Config command". */
static fiber_fn int configure_shadow(struct nvme_ctrlr *ctrlr)
{
	struct pcie_ctrlr *pcie = ctrlr->pcie;
	union nvme_cmd cmd = {.opcode = NVME_ADMIN_DOORBELL_BUFFER};
	uint64_t shadow_addr, event_addr;
	int rc = -ENOMEM;

	pcie->shadow = pcie_dma_alloc(pcie->bar, PCIE_PAGE_SIZE, &shadow_addr);
	pcie->event = pcie_dma_alloc(pcie->bar, PCIE_PAGE_SIZE, &event_addr);
	if (pcie->shadow && pcie->event) {
		cmd.prp1 = shadow_addr;
		cmd.prp2 = event_addr;
		rc = nvme_execute(ctrlr->admin, &cmd, NULL, 0, NULL);
	}
	if (rc) {
		/* A controller that may have taken the addresses keeps the pages: they go with it. */
		log_notice("%s: no shadow doorbells (%d)", pcie->bar->name, rc);
		if (rc > 0 || rc == -ENOMEM) {
			dma_free(pcie->shadow);
			dma_free(pcie->event);
			pcie->shadow = pcie->event = NULL;
		}
	}
	return rc < 0 && rc != -ENOMEM ? rc : 0;
}

static fiber_fn int identified(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	const struct nvme_id_ctrlr *id = &ctrlr->id;
	unsigned sqe_min = id->sqes & 0xf, sqe_max = id->sqes >> 4;
	unsigned cqe_min = id->cqes & 0xf, cqe_max = id->cqes >> 4;
	int rc = 0;

	if (sqe_min > 6 || sqe_max < 6 || cqe_min > 4 || cqe_max < 4) {
		nvme_error_set(error, -EPROTO, 0,
			       "%s identifies itself with queue entries of 2^%u to 2^%u and 2^%u to 2^%u bytes: that "
			       "is no NVMe drive, or a broken one",
			       ctrlr->pcie->bar->name, sqe_min, sqe_max, cqe_min, cqe_max);
		return -EPROTO;
	}
	ctrlr->cntlid = id->cntlid;
	ctrlr->pcie->sgl = (id->sgls & 3) == NVME_SGLS_SUPPORTED || (id->sgls & 3) == NVME_SGLS_DWORD;
	if (id->oacs & NVME_OACS_DOORBELL_BUFFER)
		rc = configure_shadow(ctrlr);
	if (rc)
		nvme_error_set(error, rc, 0, "%s: Doorbell Buffer Config: %s", ctrlr->pcie->bar->name, strerror(-rc));
	return rc;
}

/* --- I/O queues --------------------------------------------------------------------------------- */

struct create_call {
	struct pcie_qpair *qpair;
	struct nvme_error *error;
};

static int refused(struct nvme_ctrlr *ctrlr, int rc, const char *what, uint16_t qid, struct nvme_error *error)
{
	if (rc < 0) {
		*error = *nvme_qpair_error(ctrlr->admin);
		return rc;
	}
	nvme_error_set(error, nvme_status_to_errno((uint16_t)rc), (uint16_t)rc, "%s refuses to create %s queue %u: %s (%03xh)",
		       ctrlr->pcie->bar->name, what, qid, nvme_status_name((uint16_t)rc), nvme_status_code((uint16_t)rc));
	return error->err;
}

static fiber_fn int send_create_sq(struct pcie_qpair *qpair)
{
	union nvme_cmd cmd = {.opcode = NVME_ADMIN_CREATE_IO_SQ};

	cmd.queue.qid = qpair->q.qid;
	cmd.queue.qsize = (uint16_t)(qpair->size - 1);
	cmd.queue.flags = NVME_QUEUE_CONTIGUOUS;
	cmd.queue.vector_or_cqid = qpair->q.qid;
	cmd.prp1 = qpair->sq_addr;
	return nvme_execute(qpair->q.ctrlr->admin, &cmd, NULL, 0, NULL);
}

/* In the controller's memory, if it has some; one that it does not want there goes into ours. */
static fiber_fn int create_sq(struct pcie_qpair *qpair)
{
	int rc;

	pcie_cmb_place(qpair);
	rc = send_create_sq(qpair);
	if (rc <= 0 || !qpair->in_cmb || pcie_cmb_leave(qpair))
		return rc;
	return send_create_sq(qpair);
}

/* On the controller's thread.  Source: NVM Express Base 2.0, 5.4 and 5.5. */
static fiber_fn int create_queues(void *arg)
{
	struct create_call *call = arg;
	struct pcie_qpair *qpair = call->qpair;
	struct nvme_ctrlr *ctrlr = qpair->q.ctrlr;
	union nvme_cmd cmd = {.opcode = NVME_ADMIN_CREATE_IO_CQ};
	int rc;

	if (!nvme_qpair_is_live(ctrlr->admin))
		return refused(ctrlr, ctrlr->admin->error.err ? ctrlr->admin->error.err : -ENODEV, "", 0, call->error);
	/* The controller must know of no ring that is about to be freed: from here on deleting is up to disconnect. */
	qpair->created = true;
	cmd.queue.qid = qpair->q.qid;
	cmd.queue.qsize = (uint16_t)(qpair->size - 1);
	cmd.queue.flags = NVME_QUEUE_CONTIGUOUS | (qpair->has_irq ? NVME_QUEUE_INTERRUPT : 0);
	cmd.queue.vector_or_cqid = qpair->irq.vector;
	cmd.prp1 = qpair->cq_addr;
	rc = nvme_execute(ctrlr->admin, &cmd, NULL, 0, NULL);
	if (rc) {
		qpair->created = rc < 0;
		return refused(ctrlr, rc, "completion", qpair->q.qid, call->error);
	}
	rc = create_sq(qpair);
	if (!rc)
		return 0;
	refused(ctrlr, rc, "submission", qpair->q.qid, call->error);
	if (rc > 0) {
		cmd = (union nvme_cmd){.opcode = NVME_ADMIN_DELETE_IO_CQ};
		cmd.queue.qid = qpair->q.qid;
		qpair->created = nvme_execute(ctrlr->admin, &cmd, NULL, 0, NULL) != 0;
	}
	return call->error->err;
}

/* A vector for each queue; the last one is for all queues that are left. */
static void choose_vector(struct pcie_qpair *qpair)
{
	const struct nvme_ctrlr *ctrlr = qpair->q.ctrlr;
	uint16_t last = (uint16_t)(qpair->bar->nr_vectors - 1);
	bool enough = ctrlr->queues_asked && ctrlr->nr_io_queues <= last;

	qpair->has_irq = qpair->bar->nr_vectors > 0;
	qpair->irq = (struct nvme_irq){.bar = qpair->bar};
	if (!qpair->has_irq)
		return;
	qpair->irq.vector = qpair->q.qid < last ? qpair->q.qid : last;
	qpair->irq.alone = last && (qpair->q.qid < last || enough);
}

static fiber_fn int qpair_create(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct nvme_qpair **ret_qpair,
				 struct nvme_error *error)
{
	struct pcie_ctrlr *pcie = ctrlr->pcie;
	uint32_t limit = NVME_CAP_MQES(ctrlr->cap) + 1;
	struct create_call call = {.error = error};
	int rc;

	if (size > PCIE_QUEUE_MAX)
		size = PCIE_QUEUE_MAX;
	if (size > limit)
		size = limit;
	if (size < 2 || !qid || (2u * qid + 2) * pcie->doorbell_stride > pcie->bar->size - PCIE_DOORBELLS) {
		nvme_error_set(error, -EINVAL, 0, "%s has no queue %u of %u entries", pcie->bar->name, qid, size);
		return -EINVAL;
	}
	rc = pcie_qpair_alloc(ctrlr, qid, size, &call.qpair);
	if (rc) {
		nvme_error_set(error, rc, 0, "%s: no DMA memory for a queue of %u entries", pcie->bar->name, size);
		return rc;
	}
	choose_vector(call.qpair);
	rc = thread_call_fiber(ctrlr->thread, create_queues, &call);
	if (rc) {
		call.qpair->q.state = QPAIR_ENDING;
		nvme_qpair_disconnect(&call.qpair->q);
		return rc;
	}
	pcie_qpair_go(call.qpair);
	*ret_qpair = &call.qpair->q;
	return 0;
}

/* --- the part that hangs on struct nvme_ctrlr ---------------------------------------------------- */

static int open_pcie(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	if (!ctrlr->opts.bar) {
		nvme_error_set(error, -EINVAL, 0, "no PCIe function was given");
		return -EINVAL;
	}
	ctrlr->pcie = calloc(1, sizeof(*ctrlr->pcie));
	if (!ctrlr->pcie) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for a controller");
		return -ENOMEM;
	}
	ctrlr->pcie->bar = ctrlr->opts.bar;
	fiber_mutex_init(&ctrlr->pcie->mutex);
	return 0;
}

static void close_pcie(struct nvme_ctrlr *ctrlr)
{
	if (!ctrlr->pcie)
		return;
	dma_free(ctrlr->pcie->shadow);
	dma_free(ctrlr->pcie->event);
	free(ctrlr->pcie);
}

const struct nvme_transport nvme_transport_pcie = {
	.name = "PCIe",
	.peer = "drive",
	.max_xfer_bytes = PCIE_MAX_XFER_BYTES,
	.open = open_pcie,
	.close = close_pcie,
	.enable = enable,
	.identified = identified,
	.disable = disable,
	.property_get = reg_get,
	.property_set = reg_set,
	.qpair_create = qpair_create,
};
