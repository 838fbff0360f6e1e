/*
 * Which memory DMA buffers come from, for those who have to tell a device: all of it now, and what EAL adds or gives back later.
 *
 * Physical addresses are for machines without an IOMMU; they are the kernel's to tell, page by page, and only to root.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <rte_memory.h>

#include "runtime/internal.h"

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_PFN	((1ull << 55) - 1)

struct watch {
	dma_region_fn fn;
	void *arg;
};

static struct watch watches[DMA_WATCHES_MAX];
static unsigned nr_watches;

static int walked(const struct rte_memseg_list *msl, const struct rte_memseg *ms, size_t len, void *arg)
{
	const struct watch *watch = arg;

	if (msl->external)
		return 0;
	watch->fn(ms->addr, len, ms->hugepage_sz, true, watch->arg);
	return 0;
}

static void changed(enum rte_mem_event type, const void *addr, size_t len, void *arg)
{
	const struct watch *watch = arg;
	const struct rte_memseg *ms = rte_mem_virt2memseg(addr, NULL);

	watch->fn((void *)(uintptr_t)addr, len, ms ? ms->hugepage_sz : 4096, type == RTE_MEM_EVENT_ALLOC, watch->arg);
}

int dma_watch(dma_region_fn fn, void *arg)
{
	struct watch *watch;
	char name[32];

	if (!memory_uses_eal())
		return -ENOTSUP;
	if (nr_watches == DMA_WATCHES_MAX)
		return -ENOSPC;
	watch = &watches[nr_watches];
	*watch = (struct watch){ fn, arg };
	snprintf(name, sizeof(name), "ferrule-%u", nr_watches++);
	/* Without hugepages there is nothing dynamic to hear of. */
	rte_mem_event_callback_register(name, changed, watch);
	rte_memseg_contig_walk(walked, watch);
	return 0;
}

int dma_physical(const void *va, uint64_t *ret_addr)
{
	uint64_t entry = 0, page = (uintptr_t)va / 4096;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (pread(fd, &entry, sizeof(entry), (off_t)(page * sizeof(entry))) != sizeof(entry))
		rc = -EIO;
	close(fd);
	if (!rc && !(entry & PAGEMAP_PRESENT))
		rc = -EFAULT;
	if (!rc && !(entry & PAGEMAP_PFN))
		rc = -EPERM;
	*ret_addr = (entry & PAGEMAP_PFN) * 4096 + (uintptr_t)va % 4096;
	return rc;
}
