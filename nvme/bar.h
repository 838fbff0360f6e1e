/*
 * A PCIe function as the driver sees it: registers, addresses for DMA, interrupts, reset, and its disappearance.
 *
 * Behind it stands a real function under VFIO or uio (nvme/vfio.h) or a drive of software (nvme/soft/soft.h): everything above
 * runs on all of them.
 */
#ifndef NVME_BAR_H
#define NVME_BAR_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/runtime.h"

struct nvme_bar;

/* One queue's way to sleep.  Owner: the thread that arms it. */
struct nvme_irq {
	struct nvme_bar *bar;
	uint16_t vector;
	bool alone; /* no other queue has the vector: it may be masked while nobody sleeps */
	bool armed;
	struct thread *thread; /* where armed */
	struct ring_op op;
	struct fiber_wait *release_wait;
};

struct nvme_bar_ops {
	/* Offsets in bytes from the beginning of BAR 0; all ones when the function is gone.  Any thread. */
	uint32_t (*read32)(struct nvme_bar *bar, uint32_t offset);
	uint64_t (*read64)(struct nvme_bar *bar, uint32_t offset);
	void (*write32)(struct nvme_bar *bar, uint32_t offset, uint32_t value);
	void (*write64)(struct nvme_bar *bar, uint32_t offset, uint64_t value);
	/* The function's address of a byte of our memory, good to the end of its 4 KiB page.  False: memory that the function
	 * cannot reach.  Any thread. */
	bool (*dma_addr)(struct nvme_bar *bar, const void *va, uint64_t *ret_addr);
	/* Memory of the function's in one of its BARs, mapped until the bar is closed, and its address on the bus (0: none that means
	 * only this to the function).  NULL: it cannot be.  The same part each time.  The op may be NULL.  App thread. */
	uint8_t *(*map_memory)(struct nvme_bar *bar, unsigned bir, uint64_t offset, uint64_t len, uint64_t *ret_bus_addr);
	/* From now on an interrupt of irq->vector wakes the current thread's reactor, once.  One that came before counts.
	 * Armed twice is armed once. */
	void (*irq_arm)(struct nvme_bar *bar, struct nvme_irq *irq);
	/* No interrupt of it reaches the thread after this has returned.  On the thread that armed it. */
	fiber_fn void (*irq_release)(struct nvme_bar *bar, struct nvme_irq *irq);
	/* Stops the function's DMA whatever state it is in: a function level reset, or bus mastering taken away.  0 or -errno. */
	fiber_fn int (*stop)(struct nvme_bar *bar);
	/* Lets the function go and frees.  Its controller must be gone. */
	void (*close)(struct nvme_bar *bar);
};

/* Owner: whoever opened it; what queues read is constant but for removed. */
struct nvme_bar {
	const struct nvme_bar_ops *ops;
	char name[64];	     /* "0000:03:00.0" */
	uint32_t size;	     /* bytes that may be accessed */
	uint16_t nr_vectors; /* 0: no interrupts */
	bool removed;	     /* atomic; never becomes false again */
	/* The function is gone, or, while removed is not set, somebody asks to have it: it is still there and is to be shut down
	 * and closed.  On the app thread, once for each at most; NULL: nobody listens, and being asked is being gone. */
	void (*on_removed)(struct nvme_bar *bar, void *arg);
	void *on_removed_arg;
};

static inline bool nvme_bar_removed(const struct nvme_bar *bar)
{
	return __atomic_load_n(&bar->removed, __ATOMIC_ACQUIRE);
}

#endif
