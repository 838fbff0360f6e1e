/* DMA memory: DPDK's heap while EAL runs, otherwise the C library's. */
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_malloc.h>

#include "runtime/budget.h"
#include "runtime/internal.h"

#define ALIGN_MINIMUM 64

static bool use_eal;

void memory_use_eal(bool on)
{
	use_eal = on;
}

bool memory_uses_eal(void)
{
	return use_eal;
}

void *dma_alloc_dirty(size_t len, size_t align)
{
	if (align < ALIGN_MINIMUM)
		align = ALIGN_MINIMUM;
	if (use_eal)
		return rte_malloc(NULL, len ? len : 1, (unsigned)align);
	if (len > SIZE_MAX - align)
		return NULL;
	len = (len + align - 1) & ~(align - 1);
	return aligned_alloc(align, len ? len : align);
}

void *dma_alloc(size_t len, size_t align)
{
	void *buf;

	if (use_eal)
		return rte_zmalloc(NULL, len ? len : 1, (unsigned)(align < ALIGN_MINIMUM ? ALIGN_MINIMUM : align));
	buf = dma_alloc_dirty(len, align);
	if (buf)
		memset(buf, 0, len);
	return buf;
}

void dma_free(void *buf)
{
	if (use_eal)
		rte_free(buf);
	else
		free(buf);
}

uint64_t dma_left_bytes(void)
{
	uint64_t left_bytes = 0;

	if (!use_eal)
		return UINT64_MAX;
	for (unsigned i = 0; i < rte_socket_count(); i++) {
		struct rte_malloc_socket_stats stats;

		if (rte_malloc_get_socket_stats(rte_socket_id_by_idx(i), &stats) == 0)
			left_bytes += stats.heap_freesz_bytes;
	}
	/* The heap grows by those. */
	if (rte_eal_has_hugepages())
		left_bytes += budget_free_hugepages_mib() << 20;
	return left_bytes;
}
