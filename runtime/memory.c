/* DMA memory: DPDK's heap while EAL runs, otherwise the C library's. */
#include <stdlib.h>
#include <string.h>

#include <rte_malloc.h>

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
