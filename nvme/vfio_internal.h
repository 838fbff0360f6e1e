/* What vfio.c (functions) and vfio_dma.c (the container and its memory) share. */
#ifndef NVME_VFIO_INTERNAL_H
#define NVME_VFIO_INTERNAL_H

#include "nvme/vfio.h"

/* vfio_dma.c: one container for all functions of the process; app thread but for the address */
/* Adds a group, opened already, to the container; makes the container with the first. */
int vfio_container_add(int group_fd, bool no_iommu, struct nvme_error *error);
bool vfio_dma_addr(struct nvme_bar *bar, const void *va, uint64_t *ret_addr);

#endif
