/*
 * MSI-X as its owner in user space needs it: where the table is, and masking a vector in it.
 *
 * A vector that is masked keeps its interrupt pending in the function and sends it when it is unmasked: nothing is lost.
 * Source: PCI Local Bus Specification 3.0, 6.8.2 "MSI-X Capability and Table Structures".
 */
#ifndef NVME_MSIX_H
#define NVME_MSIX_H

#include <stdbool.h>
#include <stdint.h>

#define MSIX_ENTRY_SIZE 16u
#define PCI_CONFIG_SIZE 256u

struct msix_place {
	unsigned bar; /* 0 to 5 */
	uint32_t offset;
	unsigned nr; /* vectors */
};

/* The bytes are the function's: a list that goes in a circle, or a table nowhere, is -EPROTO; no MSI-X: -ENOENT. */
int msix_find(const uint8_t config[PCI_CONFIG_SIZE], struct msix_place *ret_place);
void msix_mask(uint8_t *table, unsigned vector, bool masked);

#endif
