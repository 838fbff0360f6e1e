/*
 * What the PCIe driver's files share: the controller's part, and its queues.
 *
 * A queue is a ring of commands and a ring of completions in DMA memory and two doorbells.  What a request needs beyond its
 * queue entry, a page for its PRP list or SGL segment, belongs to its slot: nothing is allocated on the way.
 */
#ifndef NVME_PCIE_H
#define NVME_PCIE_H

#include "nvme/bar.h"
#include "nvme/internal.h"

#define PCIE_PAGE_SIZE	    4096u /* CC.MPS 0 */
#define PCIE_DOORBELLS	    0x1000u
#define PCIE_MAX_XFER_BYTES (1u << 20) /* 257 PRPs, or 256 SGL descriptors: what a slot's page takes */
#define PCIE_SLOT_ENTRIES   (PCIE_PAGE_SIZE / sizeof(struct nvme_sgl))
#define PCIE_QUEUE_MAX	    1024u /* entries: 64 KiB of commands, 4 MiB of slots' pages */
#define PCIE_POLL_MAX	    64u	  /* completions taken at a time */

/* Owner: the controller's thread; queues on other threads read what is constant, and the atomics. */
struct pcie_ctrlr {
	struct nvme_bar *bar;
	uint32_t doorbell_stride; /* bytes */
	bool dma_stopped;	  /* atomic: the function writes to no memory any more */
	bool sgl;		  /* it takes SGLs */
	bool enabled;
	uint32_t *shadow, *event; /* Doorbell Buffer Config: one page each; NULL: it has none */
	uint8_t *cmb;		  /* the controller memory buffer, for submission queues */
	uint64_t cmb_addr, cmb_len; /* len 0: there is none */
	struct fiber_mutex mutex; /* disabling, one at a time */
};

/* What belongs to a command identifier. */
struct pcie_slot {
	void *page;	   /* of pages: PRP list or SGL segment */
	uint64_t page_addr;
	void *bounce;	   /* memory that the function can reach instead of the caller's; NULL: not needed */
};

/* A doorbell, and its shadow when the controller reads those. */
struct pcie_doorbell {
	uint32_t offset; /* in the BAR */
	uint32_t value;
	uint32_t *shadow, *event;
};

struct pcie_qpair {
	struct nvme_qpair q;
	struct pcie_ctrlr *pcie;
	struct nvme_bar *bar;
	uint32_t size; /* entries of each ring */
	union nvme_cmd *sq;
	struct nvme_cqe *cq;
	uint64_t sq_addr, cq_addr;
	uint32_t sq_tail, cq_head;
	uint16_t phase; /* of the entries that are new in this round */
	bool stop_asked;
	struct pcie_doorbell sq_doorbell, cq_doorbell;
	struct pcie_slot *slots;
	void *pages;
	struct poller *poller;
	struct nvme_irq irq;
	bool has_irq;
	bool created; /* the controller knows it */
	bool in_cmb;  /* sq is the controller's memory */
};

static inline struct pcie_qpair *pcie_of(struct nvme_qpair *qpair)
{
	return container_of(qpair, struct pcie_qpair, q);
}

static inline bool pcie_dma_stopped(const struct pcie_ctrlr *pcie)
{
	return __atomic_load_n(&pcie->dma_stopped, __ATOMIC_ACQUIRE);
}

/* pcie_data.c */
/**
 * pcie_data_point - have a command point at its data
 *
 * PRPs where the pieces fit together at pages, else SGLs where the controller takes them, else a bounce buffer: for memory
 * that the function cannot reach, too.
 * Return: 0, -EMSGSIZE for more than the controller takes at a time, -ENOMEM for want of a bounce buffer.
 */
int pcie_data_point(struct pcie_qpair *qpair, struct nvme_request *req);
void pcie_data_release(struct pcie_qpair *qpair, struct nvme_request *req, bool succeeded); /* copies back */

/* pcie_qpair.c */
/* Rings and slots, not yet known to the controller. */
int pcie_qpair_alloc(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size, struct pcie_qpair **ret_qpair);
void pcie_qpair_go(struct pcie_qpair *qpair); /* LIVE, and polled from now on */
/* Contiguous for the function, page-aligned, zeroed; NULL: no such memory. */
void *pcie_dma_alloc(struct nvme_bar *bar, size_t len, uint64_t *ret_addr);

/* pcie_cmb.c; on the controller's thread but for pcie_cmb_write() */
void pcie_cmb_find(struct nvme_ctrlr *ctrlr);
void pcie_cmb_place(struct pcie_qpair *qpair); /* moves its submission queue there, if there is room */
int pcie_cmb_leave(struct pcie_qpair *qpair);  /* and back: 0 or -ENOMEM */
void pcie_cmb_write(union nvme_cmd *to, const union nvme_cmd *cmd);

/* pcie_ctrlr.c */
bool pcie_stop_dma_later(struct nvme_ctrlr *ctrlr); /* any thread with a queue; false: no memory, try again */
fiber_fn void pcie_stop_dma(struct nvme_ctrlr *ctrlr); /* on its thread; whatever it takes */

#endif
