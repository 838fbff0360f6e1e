/*
 * What real PCIe functions share, whoever gives them to us: a BAR 0 that is mapped into our memory.
 *
 * Where a function may vanish without its driver being asked (uio), touching what was its BAR is a bus error; such BARs are
 * watched, and read as all ones from then on, as hardware that is gone does.
 */
#ifndef NVME_MAPPED_BAR_H
#define NVME_MAPPED_BAR_H

#include <stddef.h>

#include "nvme/bar.h"

/* Owner: whoever opened it; constant but for bar.removed. */
struct mapped_bar {
	struct nvme_bar bar;
	uint8_t *map;
	size_t map_len;
	/* what map_memory() gave; NULL: nothing yet */
	uint8_t *memory;
	size_t memory_len;
	unsigned memory_bir;
	uint64_t memory_offset;
};

uint32_t mapped_read32(struct nvme_bar *bar, uint32_t offset);
uint64_t mapped_read64(struct nvme_bar *bar, uint32_t offset);
void mapped_write32(struct nvme_bar *bar, uint32_t offset, uint32_t value);
void mapped_write64(struct nvme_bar *bar, uint32_t offset, uint64_t value);

/* Memory of the function's, @at in the file that shows its BAR: the one there is, or a new one.  NULL: it cannot be mapped. */
uint8_t *mapped_bar_memory(struct mapped_bar *mapped, int fd, uint64_t at, unsigned bir, uint64_t offset, uint64_t len);
/* A BAR's address on the bus, by the function's folder in sysfs; 0: none. */
uint64_t mapped_bar_bus_addr(const char *function, unsigned bir);
void mapped_bar_unmap(struct mapped_bar *mapped);

/* A mapping of a function that may vanish: app thread.  A bus error within it turns it into ones and says removed.  Return: 0,
 * -ENOSPC. */
int mapped_bar_watch(struct mapped_bar *mapped, void *at, size_t len);
#endif
