/*
 * The VFIO container, and what of our memory functions can reach.
 *
 * Regions are added by the app thread or whoever makes EAL's heap grow, under regions_lock; queues look them up without it: a
 * region is complete before the count says so, and one that went has length 0.  Its table of pages stays: somebody may be reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "nvme/vfio_internal.h"

#define REGIONS_MAX 4096u

struct region {
	uintptr_t start;
	size_t len; /* atomic; 0: gone */
	size_t page_bytes, piece_bytes; /* pieces: what the IOMMU has it in */
	uint64_t *physical; /* of each page; NULL: the IOMMU has it at its virtual address */
};

static struct region regions[REGIONS_MAX];
static unsigned nr_regions; /* atomic */
static pthread_mutex_t regions_lock = PTHREAD_MUTEX_INITIALIZER;
static int container = -1;
static unsigned nr_groups; /* a container without any loses its type, and all that was mapped */
static bool physical, watching; /* physical: devices know memory by its physical addresses */
static int map_error;

/* In pieces of so many bytes: what may be given back in part has to be mapped in parts. */
static int map_iommu(uintptr_t start, size_t len, size_t piece)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.size = piece,
	};

	for (size_t at = 0; at < len; at += piece) {
		map.vaddr = map.iova = start + at;
		if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
			return -errno;
	}
	return 0;
}

static int look_up_pages(struct region *region, size_t len)
{
	size_t nr = len / region->page_bytes;
	int rc = 0;

	if (region->page_bytes < 2u << 20)
		return -ENOTSUP; /* small pages may be moved under the device's feet */
	region->physical = calloc(nr, sizeof(*region->physical));
	if (!region->physical)
		return -ENOMEM;
	for (size_t i = 0; i < nr && !rc; i++) {
		volatile char *page = (volatile char *)(region->start + i * region->page_bytes);

		*page = *page; /* present */
		rc = dma_physical((const void *)page, &region->physical[i]);
	}
	return rc;
}

static int region_append(const struct region *region)
{
	if (nr_regions == REGIONS_MAX)
		return -ENOSPC;
	regions[nr_regions] = *region;
	__atomic_store_n(&nr_regions, nr_regions + 1, __ATOMIC_RELEASE);
	return 0;
}

static void region_add(uintptr_t start, size_t len, size_t page_bytes)
{
	struct region region = {.start = start, .len = len, .page_bytes = page_bytes, .piece_bytes = page_bytes};
	int rc = 0;

	if (!watching)
		region.piece_bytes = len; /* what is there from the beginning stays whole */
	if (physical)
		rc = look_up_pages(&region, len);
	else if (nr_groups)
		rc = map_iommu(start, len, region.piece_bytes);
	if (!rc)
		rc = region_append(&region);
	if (rc) {
		map_error = rc;
		log_error("%zu MiB of memory cannot be made known to PCIe drives: %s%s", len >> 20, strerror(-rc),
			  rc == -ENOMEM ? ": raise the limit of locked memory (ulimit -l)" : "");
	}
}

/* The part of a region from @from on, @len bytes of it. */
static void region_keep(const struct region *region, uintptr_t from, size_t len)
{
	struct region rest = *region;

	if (!len)
		return;
	rest.start = from;
	rest.len = len;
	rest.piece_bytes = region->page_bytes;
	if (rest.physical)
		rest.physical += (from - region->start) / region->page_bytes;
	if (region_append(&rest))
		log_error("memory at %lx is lost to PCIe drives: too many regions", (unsigned long)from);
}

static void region_remove(uintptr_t start, size_t len)
{
	struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap), .iova = start, .size = len};
	unsigned nr = nr_regions;

	for (unsigned i = 0; i < nr; i++) {
		struct region was = regions[i];

		if (start < was.start || start - was.start >= was.len || len > was.len - (start - was.start))
			continue;
		region_keep(&was, was.start, start - was.start);
		region_keep(&was, start + len, was.len - (start - was.start) - len);
		__atomic_store_n(&regions[i].len, 0, __ATOMIC_RELEASE);
	}
	if (!physical && nr_groups && ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		log_warning("memory at %lx stays mapped for PCIe drives: %s", (unsigned long)start, strerror(errno));
}

static void region_changed(void *va, size_t len, size_t page_bytes, bool added, void *arg)
{
	pthread_mutex_lock(&regions_lock);
	if (added)
		region_add((uintptr_t)va, len, page_bytes);
	else
		region_remove((uintptr_t)va, len);
	pthread_mutex_unlock(&regions_lock);
}

bool vfio_dma_addr(struct nvme_bar *bar, const void *va, uint64_t *ret_addr)
{
	unsigned nr = __atomic_load_n(&nr_regions, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < nr; i++) {
		const struct region *r = &regions[i];
		uintptr_t at = (uintptr_t)va - r->start;

		if (at >= __atomic_load_n(&r->len, __ATOMIC_ACQUIRE))
			continue;
		*ret_addr = r->physical ? r->physical[at / r->page_bytes] + at % r->page_bytes : (uintptr_t)va;
		return true;
	}
	return false;
}

static int container_open(struct nvme_error *error)
{
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (container < 0) {
		nvme_error_set(error, -errno, 0, "/dev/vfio/vfio: %s: is the module vfio-pci loaded, and may we open it?",
			       strerror(errno));
		return error->err;
	}
	if (ioctl(container, VFIO_GET_API_VERSION) != VFIO_API_VERSION) {
		nvme_error_set(error, -ENOTSUP, 0, "/dev/vfio/vfio speaks another version of VFIO");
		return -ENOTSUP;
	}
	return 0;
}

/* The first function decides how devices know our memory; what it finds wrong stays so for the process. */
static int watch_memory(bool by_physical, struct nvme_error *error)
{
	int rc = 0;

	if (watching && by_physical != physical) {
		nvme_error_set(error, -EINVAL, 0, "drives with and without an IOMMU do not go together in one process");
		return -EINVAL;
	}
	if (!watching) {
		physical = by_physical;
		rc = dma_watch(region_changed, NULL);
		watching = true;
	}
	if (rc)
		map_error = rc;
	if (map_error)
		nvme_error_set(error, map_error, 0, "PCIe drives need DMA memory that they can reach: %s%s", strerror(-map_error),
			       physical ? "; without an IOMMU that is hugepages, and takes root" : "");
	return map_error;
}

int vfio_physical(struct nvme_error *error)
{
	return watch_memory(true, error);
}

/* For the container's first group, and for the first after all had left. */
static int container_begin(bool no_iommu, struct nvme_error *error)
{
	int rc = 0;

	if (ioctl(container, VFIO_SET_IOMMU, no_iommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU)) {
		nvme_error_set(error, -errno, 0, "VFIO does not give us its IOMMU: %s", strerror(errno));
		return error->err;
	}
	pthread_mutex_lock(&regions_lock);
	nr_groups = 1;
	for (unsigned i = 0; i < nr_regions && !physical && !rc; i++)
		rc = map_iommu(regions[i].start, regions[i].len, regions[i].piece_bytes);
	pthread_mutex_unlock(&regions_lock);
	if (!rc)
		return 0;
	nvme_error_set(error, rc, 0, "DMA memory cannot be made known to PCIe drives again: %s", strerror(-rc));
	nr_groups = 0;
	return rc;
}

int vfio_container_add(int group_fd, bool no_iommu, struct nvme_error *error)
{
	int rc = container < 0 ? container_open(error) : 0;

	if (rc)
		return rc;
	if (watching && no_iommu != physical)
		return watch_memory(no_iommu, error);
	if (ioctl(group_fd, VFIO_GROUP_SET_CONTAINER, &container)) {
		nvme_error_set(error, -errno, 0, "its IOMMU group does not join the container: %s", strerror(errno));
		return error->err;
	}
	if (nr_groups)
		nr_groups++;
	else
		rc = container_begin(no_iommu, error);
	if (rc)
		return rc;
	rc = watch_memory(no_iommu, error);
	if (rc)
		vfio_container_left();
	return rc;
}

void vfio_container_left(void)
{
	pthread_mutex_lock(&regions_lock);
	nr_groups--;
	pthread_mutex_unlock(&regions_lock);
}
