/*
 * A command's data pointer: PRPs, an SGL, or a bounce buffer.
 *
 * PRPs want every piece but the first to begin at a page and every piece but the last to end at one; an SGL takes pieces of
 * any length.  Both are built in the slot's own page.
 */
#include <errno.h>
#include <string.h>

#include "nvme/pcie.h"

#define PAGE_MASK ((uint64_t)PCIE_PAGE_SIZE - 1)

/* Return: 0, -EINVAL when the pieces do not fit together at pages, -EFAULT for memory out of the function's reach.
 * Source: NVM Express Base 2.0, 4.1.1 "Physical Region Page Entry and List". */
static int point_prps(struct pcie_qpair *qpair, const struct pcie_slot *slot, union nvme_cmd *cmd,
		      const struct iovec *iov, uint32_t iovcnt)
{
	uint64_t *list = slot->page;
	uint32_t nr = 0; /* of entries, PRP1 included */
	uint64_t addr;

	for (uint32_t i = 0; i < iovcnt; i++) {
		const char *at = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		if (!left)
			continue;
		while (left) {
			uint64_t in_page = (uintptr_t)at & PAGE_MASK;
			size_t n = PCIE_PAGE_SIZE - in_page < left ? PCIE_PAGE_SIZE - in_page : left;

			if ((nr && in_page) || (in_page & 3))
				return -EINVAL;
			if (!qpair->bar->ops->dma_addr(qpair->bar, at, &addr))
				return -EFAULT;
			if (nr)
				list[nr - 1] = addr;
			else
				cmd->prp1 = addr;
			nr++;
			at += n;
			left -= n;
		}
		if (i + 1 < iovcnt && ((uintptr_t)at & PAGE_MASK))
			return -EINVAL;
	}
	if (nr == 2)
		cmd->prp2 = list[0];
	else if (nr > 2)
		cmd->prp2 = slot->page_addr;
	return 0;
}

/* Source: NVM Express Base 2.0, 4.1.2 "Scatter Gather List". */
static int point_sgl(struct pcie_qpair *qpair, const struct pcie_slot *slot, union nvme_cmd *cmd,
		     const struct iovec *iov, uint32_t iovcnt)
{
	struct nvme_sgl *list = slot->page;
	uint32_t nr = 0;
	uint64_t addr;

	for (uint32_t i = 0; i < iovcnt; i++) {
		const char *at = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left) {
			uint64_t in_page = (uintptr_t)at & PAGE_MASK;
			size_t n = PCIE_PAGE_SIZE - in_page < left ? PCIE_PAGE_SIZE - in_page : left;

			if (((uintptr_t)at | n) & 3)
				return -EINVAL;
			if (!qpair->bar->ops->dma_addr(qpair->bar, at, &addr))
				return -EFAULT;
			if (nr && list[nr - 1].addr + list[nr - 1].len == addr) {
				list[nr - 1].len += (uint32_t)n;
			} else {
				if (nr == PCIE_SLOT_ENTRIES)
					return -EINVAL;
				list[nr++] = (struct nvme_sgl){.addr = addr, .len = (uint32_t)n};
			}
			at += n;
			left -= n;
		}
	}
	cmd->flags |= NVME_CMD_PSDT_SGL;
	if (nr == 1) {
		cmd->sgl = list[0];
		return 0;
	}
	cmd->sgl = (struct nvme_sgl){
		.addr = slot->page_addr,
		.len = nr * (uint32_t)sizeof(struct nvme_sgl),
		.type = NVME_SGL_TYPE(NVME_SGL_LAST_SEGMENT, NVME_SGL_SUB_ADDRESS),
	};
	return 0;
}

static bool to_ctrlr(const struct nvme_request *req)
{
	return nvme_opcode_xfer(req->cmd.opcode) & NVME_XFER_TO_CTRLR;
}

static int point_bounce(struct pcie_qpair *qpair, struct pcie_slot *slot, struct nvme_request *req)
{
	struct iovec iov;
	char *p;

	slot->bounce = dma_alloc(req->len, PCIE_PAGE_SIZE);
	if (!slot->bounce)
		return -ENOMEM;
	if (to_ctrlr(req)) {
		p = slot->bounce;
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			memcpy(p, req->iov[i].iov_base, req->iov[i].iov_len);
			p += req->iov[i].iov_len;
		}
	}
	iov = (struct iovec){slot->bounce, req->len};
	return point_prps(qpair, slot, &req->cmd, &iov, 1) ? -ENOMEM : 0;
}

/* What a function is given to go on with after the data's last page: a list, of which every entry is the sink, the last one, by
 * which it would go on to a further list, the list itself. */
static void fill_list(uint64_t *list, uint64_t from, uint64_t list_addr, uint64_t sink_addr)
{
	for (uint64_t i = from; i < PCIE_PAGE_SIZE / sizeof(*list) - 1; i++)
		list[i] = sink_addr;
	list[PCIE_PAGE_SIZE / sizeof(*list) - 1] = list_addr;
}

/*
 * A command that others made may move more than its len: the function goes by its words alone.  Its data is in a bounce buffer
 * of whole pages, and wherever the function goes on after those it finds two pages that are there for it: a list and a sink.
 * With two pages of data the second stands where a longer transfer has its list; for what comes from the function it is one until it
 * is written to.
 */
static int point_guarded(struct pcie_qpair *qpair, struct pcie_slot *slot, struct nvme_request *req)
{
	uint32_t nr = (req->len + PCIE_PAGE_SIZE - 1) / PCIE_PAGE_SIZE, data_len = (nr ? nr : 1) * PCIE_PAGE_SIZE;
	uint64_t list_addr, sink_addr, addr;
	uint64_t *list, *second;
	char *bounce, *p;

	bounce = p = slot->bounce = dma_alloc(data_len + 2 * PCIE_PAGE_SIZE, PCIE_PAGE_SIZE);
	if (!bounce)
		return -ENOMEM;
	memset(bounce, 0, data_len + 2 * PCIE_PAGE_SIZE);
	list = (void *)(bounce + data_len);
	if (!qpair->bar->ops->dma_addr(qpair->bar, bounce, &req->cmd.prp1) ||
	    !qpair->bar->ops->dma_addr(qpair->bar, list, &list_addr) ||
	    !qpair->bar->ops->dma_addr(qpair->bar, bounce + data_len + PCIE_PAGE_SIZE, &sink_addr))
		return -ENOMEM;
	for (uint32_t i = 0; to_ctrlr(req) && i < req->iovcnt; i++) {
		memcpy(p, req->iov[i].iov_base, req->iov[i].iov_len);
		p += req->iov[i].iov_len;
	}
	for (uint32_t i = 1; i < nr; i++) {
		if (!qpair->bar->ops->dma_addr(qpair->bar, bounce + (size_t)i * PCIE_PAGE_SIZE, &addr))
			return -ENOMEM;
		list[i - 1] = addr;
	}
	fill_list(list, nr > 1 ? nr - 1 : 0, list_addr, sink_addr);
	req->cmd.prp2 = nr == 2 ? list[0] : list_addr;
	second = (void *)(bounce + PCIE_PAGE_SIZE);
	if (nr == 2 && !to_ctrlr(req))
		fill_list(second, 0, list_addr, sink_addr);
	return 0;
}

/* One piece of memory on one page or two: two PRPs and no list.  False: it is more than that, or out of reach. */
static inline bool point_simple(struct pcie_qpair *qpair, struct nvme_request *req)
{
	const char *at = req->iov->iov_base;
	uint32_t in_first = PCIE_PAGE_SIZE - (uint32_t)((uintptr_t)at & PAGE_MASK);

	if (req->iovcnt != 1 || ((uintptr_t)at & 3) || req->len > in_first + PCIE_PAGE_SIZE)
		return false;
	req->cmd.prp2 = 0;
	if (!qpair->bar->ops->dma_addr(qpair->bar, at, &req->cmd.prp1))
		return false;
	return req->len <= in_first || qpair->bar->ops->dma_addr(qpair->bar, at + in_first, &req->cmd.prp2);
}

int pcie_data_point(struct pcie_qpair *qpair, struct nvme_request *req)
{
	struct pcie_slot *slot;
	int rc;

	req->cmd.flags &= NVME_CMD_FUSE_MASK;
	if (req->guarded && nvme_opcode_xfer(req->cmd.opcode))
		return req->len > PCIE_MAX_XFER_BYTES ? -EMSGSIZE : point_guarded(qpair, &qpair->slots[req->slot], req);
	if (!req->len || point_simple(qpair, req)) /* without data, whoever knows addresses has put them there */
		return 0;
	slot = &qpair->slots[req->slot];
	req->cmd.prp1 = req->cmd.prp2 = 0;
	if (req->len > PCIE_MAX_XFER_BYTES)
		return -EMSGSIZE;
	rc = point_prps(qpair, slot, &req->cmd, req->iov, req->iovcnt);
	/* Admin commands are all PRPs over PCIe. */
	if (rc == -EINVAL && qpair->pcie->sgl && qpair->q.qid)
		rc = point_sgl(qpair, slot, &req->cmd, req->iov, req->iovcnt);
	if (rc) {
		req->cmd.flags &= NVME_CMD_FUSE_MASK;
		rc = point_bounce(qpair, slot, req);
	}
	return rc;
}

void pcie_data_release(struct pcie_qpair *qpair, struct nvme_request *req, bool succeeded)
{
	struct pcie_slot *slot = &qpair->slots[req->slot];
	const char *p = slot->bounce;

	if (!p)
		return;
	if (succeeded && (nvme_opcode_xfer(req->cmd.opcode) & NVME_XFER_TO_HOST)) {
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			memcpy(req->iov[i].iov_base, p, req->iov[i].iov_len);
			p += req->iov[i].iov_len;
		}
	}
	dma_free(slot->bounce);
	slot->bounce = NULL;
}
