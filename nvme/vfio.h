/*
 * Real PCIe functions: one that is bound to vfio-pci, or to uio_pci_generic, becomes a struct nvme_bar.
 *
 * With an IOMMU all DMA memory is mapped at its virtual addresses; without one (vfio's no-IOMMU mode, and uio) physical
 * addresses are used, which takes hugepages and root.
 */
#ifndef NVME_VFIO_H
#define NVME_VFIO_H

#include "nvme/bar.h"
#include "nvme/initiator.h"

/**
 * nvme_vfio_open - take a function
 * @address: "0000:01:00.0"
 *
 * Thread: app.  Return: 0; -ENOENT no such function, -ENODEV bound to neither, -EBUSY another process has it,
 * -ENOTSUP no EAL, -EPERM… with *error saying what to do.
 */
int nvme_vfio_open(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *error);

/* Whether the text is a PCI address; the whole of it. */
bool nvme_vfio_is_address(const char *text);

#endif
