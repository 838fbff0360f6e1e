/*
 * The controller memory buffer: submission queues in the drive's own memory, where it has some, so that it need not fetch commands
 * over the bus.
 *
 * Each queue identifier has its own part of the buffer, so nothing is allocated or given back.  A controller that does not want
 * a queue there gets it in our memory, as those do for which there is no room.
 * Source: NVM Express Base 2.0, 8.5 "Controller Memory Buffer", 3.1.3 (CMBLOC, CMBSZ, CMBMSC, CMBSTS).
 */
#include <errno.h>
#include <string.h>

#include "nvme/pcie.h"

#define CMB_MAX_BYTES  (16u << 20)
#define CMB_PART_MAX   (PCIE_QUEUE_MAX * (uint32_t)sizeof(union nvme_cmd))
#define CMB_PART_LEAST (16u * 1024) /* 256 entries: better some queues than none */

/* Where CMBLOC and CMBSZ say that it is.  False: there is none, or none for submission queues. */
static bool locate(struct nvme_bar *bar, unsigned *ret_bir, uint64_t *ret_offset, uint64_t *ret_len)
{
	uint32_t loc = bar->ops->read32(bar, NVME_PROP_CMBLOC), size = bar->ops->read32(bar, NVME_PROP_CMBSZ);
	uint64_t unit;

	if (nvme_bar_removed(bar) || size == UINT32_MAX || !(size & NVME_CMBSZ_SQS) || NVME_CMBSZ_SZU(size) > 6)
		return false;
	unit = 4096ull << 4 * NVME_CMBSZ_SZU(size);
	*ret_bir = NVME_CMBLOC_BIR(loc);
	*ret_offset = NVME_CMBLOC_OFST(loc) * unit;
	*ret_len = NVME_CMBSZ_SZ(size) * unit;
	return *ret_len >= CMB_PART_LEAST;
}

/* Tells the controller by which addresses we mean its buffer. */
static bool name_addresses(struct nvme_bar *bar, uint64_t addr)
{
	bar->ops->write64(bar, NVME_PROP_CMBMSC, addr | NVME_CMBMSC_CRE | NVME_CMBMSC_CMSE);
	if (!(bar->ops->read32(bar, NVME_PROP_CMBSTS) & NVME_CMBSTS_CBAI))
		return true;
	bar->ops->write64(bar, NVME_PROP_CMBMSC, 0);
	return false;
}

/* A controller that shows its buffer though CMBMSC does not ask for it is of the old kind, whatever CAP says: it is meant by its
 * address on the bus alone.  Who had it before may have asked, so that one may be taken for the new kind. */
static bool shown_unasked(struct nvme_bar *bar)
{
	return !(bar->ops->read64(bar, NVME_PROP_CMBMSC) & NVME_CMBMSC_CRE) && bar->ops->read32(bar, NVME_PROP_CMBSZ);
}

/* Before CC.EN. */
void pcie_cmb_find(struct nvme_ctrlr *ctrlr)
{
	struct pcie_ctrlr *pcie = ctrlr->pcie;
	struct nvme_bar *bar = pcie->bar;
	bool by_msc;
	uint64_t offset, len, bus_addr;
	uint8_t *va;
	unsigned bir;

	pcie->cmb_len = 0;
	if (!bar->ops->map_memory)
		return;
	by_msc = (ctrlr->cap & NVME_CAP_CMBS) && !shown_unasked(bar);
	if (by_msc) /* the registers say something once that is asked for */
		bar->ops->write64(bar, NVME_PROP_CMBMSC, NVME_CMBMSC_CRE);
	if (!locate(bar, &bir, &offset, &len))
		return;
	if (len > CMB_MAX_BYTES)
		len = CMB_MAX_BYTES;
	va = bar->ops->map_memory(bar, bir, offset, len, &bus_addr);
	/* Its address on the bus suits both kinds, where none of our memory has it; ours of it is no other's, but suits the new alone. */
	if (by_msc && !bus_addr)
		bus_addr = (uintptr_t)va;
	if (!va || !bus_addr || (by_msc && !name_addresses(bar, bus_addr))) {
		log_notice("%s: its controller memory buffer cannot be used", bar->name);
		return;
	}
	pcie->cmb = va;
	pcie->cmb_addr = bus_addr;
	pcie->cmb_len = len;
	log_notice("%s: submission queues go into its controller memory buffer of %llu KiB at %llx%s", bar->name,
		   (unsigned long long)len >> 10, (unsigned long long)bus_addr, by_msc ? ", as CMBMSC says" : "");
}

void pcie_cmb_place(struct pcie_qpair *qpair)
{
	const struct pcie_ctrlr *pcie = qpair->pcie;
	const struct nvme_ctrlr *ctrlr = qpair->q.ctrlr;
	uint64_t len = pcie->cmb_len, part, at;

	if (!len || !ctrlr->nr_io_queues)
		return;
	part = len / ctrlr->nr_io_queues & ~(uint64_t)(PCIE_PAGE_SIZE - 1);
	if (part > CMB_PART_MAX)
		part = CMB_PART_MAX;
	if (part < CMB_PART_LEAST)
		part = CMB_PART_LEAST;
	at = (qpair->q.qid - 1) * part;
	if (qpair->size * sizeof(*qpair->sq) > part || at > len || part > len - at)
		return;
	dma_free(qpair->sq);
	qpair->sq = (union nvme_cmd *)(void *)(pcie->cmb + at);
	qpair->sq_addr = pcie->cmb_addr + at;
	qpair->in_cmb = true;
}

int pcie_cmb_leave(struct pcie_qpair *qpair)
{
	qpair->in_cmb = false;
	qpair->sq = pcie_dma_alloc(qpair->bar, qpair->size * sizeof(*qpair->sq), &qpair->sq_addr);
	return qpair->sq ? 0 : -ENOMEM;
}

/* Eight bytes at a time: a device's memory need not take more. */
void pcie_cmb_write(union nvme_cmd *to, const union nvme_cmd *cmd)
{
	volatile uint64_t *words = (volatile uint64_t *)(void *)to;
	uint64_t word;

	for (unsigned i = 0; i < sizeof(*cmd) / sizeof(word); i++) {
		memcpy(&word, cmd->bytes + i * sizeof(word), sizeof(word));
		words[i] = word;
	}
}
