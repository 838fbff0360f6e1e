/* What vfio.c and uio.c (functions), vfio_dma.c (the container and its memory) and msix.c (interrupts' masks) share. */
#ifndef NVME_VFIO_INTERNAL_H
#define NVME_VFIO_INTERNAL_H

#include "nvme/mapped_bar.h"
#include "nvme/vfio.h"

/* vfio_dma.c: one container for all functions of the process; app thread but for the address */
/* Adds a group, opened already, to the container; makes the container with the first. */
int vfio_container_add(int group_fd, bool no_iommu, struct nvme_error *error);
/* A group that was added is about to be closed. */
void vfio_container_left(void);
/* The same for functions that stand outside of VFIO: our memory by its physical addresses. */
int vfio_physical(struct nvme_error *error);
bool vfio_dma_addr(struct nvme_bar *bar, const void *va, uint64_t *ret_addr);

/* uio.c */
/* @function: its folder in sysfs; @dev: where uio's files are, "/dev".  As nvme_vfio_open. */
int uio_bar_open(const char *address, const char *function, const char *dev, struct nvme_bar **ret_bar, struct nvme_error *error);

#endif
