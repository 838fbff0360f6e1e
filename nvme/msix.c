/* Finding the MSI-X table through the list of capabilities, and masking vectors in it. */
#include <errno.h>
#include <string.h>

#include <linux/pci_regs.h>

#include "nvme/msix.h"

#define VECTOR_CONTROL 12u

static uint16_t config16(const uint8_t *config, unsigned at)
{
	return (uint16_t)(config[at] | config[at + 1] << 8);
}

static uint32_t config32(const uint8_t *config, unsigned at)
{
	return config16(config, at) | (uint32_t)config16(config, at + 2) << 16;
}

int msix_find(const uint8_t config[PCI_CONFIG_SIZE], struct msix_place *ret_place)
{
	unsigned at = config[PCI_CAPABILITY_LIST] & ~3u, nr = 0;

	if (!(config16(config, PCI_STATUS) & PCI_STATUS_CAP_LIST))
		return -ENOENT;
	while (at && config[at] != PCI_CAP_ID_MSIX) {
		if (++nr > PCI_CONFIG_SIZE / 4)
			return -EPROTO;
		at = config[at + 1] & ~3u;
	}
	if (!at)
		return -ENOENT;
	if (at > PCI_CONFIG_SIZE - 12)
		return -EPROTO;
	ret_place->nr = (config16(config, at + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u;
	ret_place->bar = config32(config, at + PCI_MSIX_TABLE) & PCI_MSIX_TABLE_BIR;
	ret_place->offset = config32(config, at + PCI_MSIX_TABLE) & PCI_MSIX_TABLE_OFFSET;
	return ret_place->bar <= 5 ? 0 : -EPROTO;
}

void msix_mask(uint8_t *table, unsigned vector, bool masked)
{
	*(volatile uint32_t *)(void *)(table + (size_t)vector * MSIX_ENTRY_SIZE + VECTOR_CONTROL) = masked;
}
