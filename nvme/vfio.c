/*
 * A PCIe function under VFIO: found in sysfs, its group opened and joined to the container, BAR 0 mapped, an eventfd for each
 * interrupt vector, and one for the kernel's request to let it go.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "nvme/fabrics.h"
#include "nvme/msix.h"
#include "nvme/vfio_internal.h"

#define VECTORS_MAX 129u

/* Owner: app thread; eventfds are read by the threads of their queues. */
struct vfio_bar {
	struct mapped_bar mapped;
	int group_fd, device_fd;
	uint64_t config_offset;
	bool can_reset, joined, no_iommu;
	int vectors[VECTORS_MAX]; /* eventfds */
	int request_fd;
	struct ring_op request_op;
	bool request_armed, closing;
	uint8_t *msix_table; /* NULL: its vectors cannot be masked */
	void *msix_map;	     /* when it is not in BAR 0 */
	size_t msix_map_len;
};

static struct vfio_bar *vfio_of(struct nvme_bar *bar)
{
	return container_of(bar, struct vfio_bar, mapped.bar);
}

/* --- interrupts --------------------------------------------------------------------------------- */

/* The thread polls from here on until it arms again: an interrupt for each completion would only cost. */
static void mask(struct nvme_irq *irq, bool masked)
{
	struct vfio_bar *v = vfio_of(irq->bar);

	if (v->msix_table && (irq->alone || !masked) && !nvme_bar_removed(irq->bar))
		msix_mask(v->msix_table, irq->vector, masked);
}

static void irq_fired(struct ring_op *op, int res, bool more)
{
	struct nvme_irq *irq = container_of(op, struct nvme_irq, op);
	uint64_t count;

	irq->armed = false;
	mask(irq, true);
	if (res > 0 && read(vfio_of(irq->bar)->vectors[irq->vector], &count, sizeof(count)) < 0)
		count = 0; /* another queue of this vector has read it */
	if (irq->release_wait)
		fiber_wake(irq->release_wait, 0);
	irq->release_wait = NULL;
}

static void irq_arm(struct nvme_bar *bar, struct nvme_irq *irq)
{
	if (irq->armed)
		return;
	irq->armed = true;
	irq->thread = thread_current();
	irq->op.done = irq_fired;
	ring_poll(&irq->op, vfio_of(bar)->vectors[irq->vector], POLLIN, false);
	mask(irq, false); /* what was held back comes now */
}

static fiber_fn void irq_release(struct nvme_bar *bar, struct nvme_irq *irq)
{
	struct fiber_wait wait;

	if (!irq->armed)
		return;
	fiber_wait_init(&wait);
	irq->release_wait = &wait;
	ring_poll_cancel(&irq->op);
	fiber_wait(&wait);
}

static int set_irqs(struct vfio_bar *v, unsigned index, const int *fds, unsigned nr)
{
	size_t len = sizeof(struct vfio_irq_set) + nr * sizeof(int);
	struct vfio_irq_set *set = calloc(1, len);
	int rc;

	if (!set)
		return -ENOMEM;
	set->argsz = (uint32_t)len;
	set->flags = VFIO_IRQ_SET_ACTION_TRIGGER | (nr ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
	set->index = index;
	set->count = nr;
	memcpy(set->data, fds, nr * sizeof(int));
	rc = ioctl(v->device_fd, VFIO_DEVICE_SET_IRQS, set) ? -errno : 0;
	free(set);
	return rc;
}

static unsigned nr_irqs(struct vfio_bar *v, unsigned index)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};

	return ioctl(v->device_fd, VFIO_DEVICE_GET_IRQ_INFO, &info) ? 0 : info.count;
}

static void close_vectors(struct vfio_bar *v, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		close(v->vectors[i]);
}

/* The table, where the kernel lets us have it; without it interrupts come while we poll, too. */
static void map_msix_table(struct vfio_bar *v)
{
	struct vfio_region_info region = {.argsz = sizeof(region)};
	uint8_t config[PCI_CONFIG_SIZE];
	struct msix_place place;
	uint64_t end;

	if (pread(v->device_fd, config, sizeof(config), (off_t)v->config_offset) != sizeof(config) || msix_find(config, &place))
		return;
	region.index = VFIO_PCI_BAR0_REGION_INDEX + place.bar;
	end = (uint64_t)place.offset + (uint64_t)place.nr * MSIX_ENTRY_SIZE;
	if (ioctl(v->device_fd, VFIO_DEVICE_GET_REGION_INFO, &region) || end > region.size || place.nr < v->mapped.bar.nr_vectors)
		return;
	if (place.bar == 0) {
		v->msix_table = v->mapped.map + place.offset;
		return;
	}
	v->msix_map_len = region.size;
	v->msix_map = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, v->device_fd, (off_t)region.offset);
	if (v->msix_map == MAP_FAILED)
		v->msix_map = NULL;
	else
		v->msix_table = (uint8_t *)v->msix_map + place.offset;
}

/* As many vectors as there are, up to our limit.  Without any the function is polled. */
static void open_vectors(struct vfio_bar *v)
{
	unsigned nr = nr_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX), made = 0;

	if (nr > VECTORS_MAX)
		nr = VECTORS_MAX;
	while (made < nr && (v->vectors[made] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0)
		made++;
	if (made == nr && nr && !set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, v->vectors, nr)) {
		v->mapped.bar.nr_vectors = (uint16_t)nr;
		map_msix_table(v);
		for (unsigned i = 0; v->msix_table && i < nr; i++)
			msix_mask(v->msix_table, i, true);
		return;
	}
	log_warning("%s: no interrupts: its reactors poll while commands are out", v->mapped.bar.name);
	close_vectors(v, made);
}

/* --- the kernel wants it back ------------------------------------------------------------------- */

static void request_arm(struct vfio_bar *v);

static void vfio_free(struct vfio_bar *v)
{
	if (v->request_fd >= 0)
		close(v->request_fd);
	free(v);
}

static void requested(struct ring_op *op, int res, bool more)
{
	struct vfio_bar *v = container_of(op, struct vfio_bar, request_op);
	uint64_t count;

	v->request_armed = false;
	if (v->closing) {
		vfio_free(v);
		return;
	}
	if (res <= 0 || read(v->request_fd, &count, sizeof(count)) < 0 || nvme_bar_removed(&v->mapped.bar)) {
		request_arm(v);
		return;
	}
	log_notice("%s: the kernel asks for it back", v->mapped.bar.name);
	/* One that was pulled out answers nothing any more; one that is to be pulled out waits for us. */
	if (!v->mapped.bar.on_removed || mapped_read32(&v->mapped.bar, NVME_PROP_CSTS) == UINT32_MAX)
		__atomic_store_n(&v->mapped.bar.removed, true, __ATOMIC_RELEASE);
	if (v->mapped.bar.on_removed)
		v->mapped.bar.on_removed(&v->mapped.bar, v->mapped.bar.on_removed_arg);
}

static void request_arm(struct vfio_bar *v)
{
	v->request_armed = true;
	v->request_op.done = requested;
	ring_poll(&v->request_op, v->request_fd, POLLIN, false);
}

static void watch_request(struct vfio_bar *v)
{
	v->request_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (v->request_fd < 0)
		return;
	if (!nr_irqs(v, VFIO_PCI_REQ_IRQ_INDEX) || set_irqs(v, VFIO_PCI_REQ_IRQ_INDEX, &v->request_fd, 1)) {
		log_warning("%s: hot unplug will not be told to us", v->mapped.bar.name);
		return;
	}
	request_arm(v);
}

/* --- the function ------------------------------------------------------------------------------- */

static int config_command(struct vfio_bar *v, uint16_t set, uint16_t clear)
{
	off_t at = (off_t)v->config_offset + PCI_COMMAND;
	uint16_t command;

	if (pread(v->device_fd, &command, sizeof(command), at) != sizeof(command))
		return -EIO;
	command = (uint16_t)((command & ~clear) | set);
	return pwrite(v->device_fd, &command, sizeof(command), at) == sizeof(command) ? 0 : -EIO;
}

/* Bus mastering goes first: that alone ends its DMA.  A function that cannot be reset is not used again.  The reset holds
 * the thread up for about 100 ms: it is for drives that do not even switch off. */
static fiber_fn int vfio_stop(struct nvme_bar *bar)
{
	struct vfio_bar *v = vfio_of(bar);
	int rc = config_command(v, 0, PCI_COMMAND_MASTER);

	if (v->can_reset && !ioctl(v->device_fd, VFIO_DEVICE_RESET))
		return config_command(v, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	__atomic_store_n(&bar->removed, true, __ATOMIC_RELEASE);
	return rc;
}

static void vfio_close(struct nvme_bar *bar)
{
	struct vfio_bar *v = vfio_of(bar);

	if (bar->nr_vectors) {
		set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, NULL, 0);
		close_vectors(v, bar->nr_vectors);
	}
	if (v->msix_map)
		munmap(v->msix_map, v->msix_map_len);
	mapped_bar_unmap(&v->mapped);
	if (v->device_fd >= 0)
		close(v->device_fd);
	if (v->joined)
		vfio_container_left();
	if (v->group_fd >= 0)
		close(v->group_fd);
	v->closing = true;
	if (v->request_armed)
		ring_poll_cancel(&v->request_op); /* frees it when that is over */
	else
		vfio_free(v);
}

/* A bus address means the function's memory to the function alone as long as none of our memory has it.  Behind an IOMMU our
 * memory has its virtual addresses, and none of those that DMA memory gets is below 4 GiB. */
static uint8_t *vfio_map_memory(struct nvme_bar *bar, unsigned bir, uint64_t offset, uint64_t len, uint64_t *ret_bus_addr)
{
	struct vfio_region_info region = {.argsz = sizeof(region), .index = VFIO_PCI_BAR0_REGION_INDEX + bir};
	struct vfio_bar *v = vfio_of(bar);
	char function[128];

	if (bir > 5 || ioctl(v->device_fd, VFIO_DEVICE_GET_REGION_INFO, &region) || offset > region.size ||
	    len > region.size - offset)
		return NULL;
	snprintf(function, sizeof(function), "/sys/bus/pci/devices/%s", bar->name);
	*ret_bus_addr = mapped_bar_bus_addr(function, bir) + offset;
	if (*ret_bus_addr == offset || (!v->no_iommu && *ret_bus_addr + len > 1ull << 32))
		*ret_bus_addr = 0;
	return mapped_bar_memory(&v->mapped, v->device_fd, region.offset + offset, bir, offset, len);
}

static const struct nvme_bar_ops vfio_ops = {
	.read32 = mapped_read32,
	.read64 = mapped_read64,
	.write32 = mapped_write32,
	.write64 = mapped_write64,
	.dma_addr = vfio_dma_addr,
	.map_memory = vfio_map_memory,
	.irq_arm = irq_arm,
	.irq_release = irq_release,
	.stop = vfio_stop,
	.close = vfio_close,
};

static int map_bar0(struct vfio_bar *v, struct nvme_error *error)
{
	struct vfio_device_info device = {.argsz = sizeof(device)};
	struct vfio_region_info bar0 = {.argsz = sizeof(bar0), .index = VFIO_PCI_BAR0_REGION_INDEX};
	struct vfio_region_info config = {.argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX};
	int rc;

	if (ioctl(v->device_fd, VFIO_DEVICE_GET_INFO, &device) || ioctl(v->device_fd, VFIO_DEVICE_GET_REGION_INFO, &bar0) ||
	    ioctl(v->device_fd, VFIO_DEVICE_GET_REGION_INFO, &config)) {
		nvme_error_set(error, -errno, 0, "%s: VFIO does not describe it: %s", v->mapped.bar.name, strerror(errno));
		return error->err;
	}
	v->can_reset = device.flags & VFIO_DEVICE_FLAGS_RESET;
	v->config_offset = config.offset;
	rc = config_command(v, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	if (rc) {
		nvme_error_set(error, rc, 0, "%s: its configuration space cannot be written", v->mapped.bar.name);
		return rc;
	}
	v->mapped.map = mmap(NULL, bar0.size, PROT_READ | PROT_WRITE, MAP_SHARED, v->device_fd, (off_t)bar0.offset);
	if (v->mapped.map == MAP_FAILED) {
		v->mapped.map = NULL;
		nvme_error_set(error, -errno, 0, "%s: its BAR 0 cannot be mapped: %s", v->mapped.bar.name, strerror(errno));
		return error->err;
	}
	v->mapped.map_len = bar0.size;
	v->mapped.bar.size = bar0.size > UINT32_MAX ? UINT32_MAX : (uint32_t)bar0.size;
	return 0;
}

/* Its IOMMU group's number and file.  Source: the kernel's Documentation/driver-api/vfio.rst. */
static int open_group(struct vfio_bar *v, bool *ret_no_iommu, struct nvme_error *error)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	char path[128], link[256];
	const char *group;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", v->mapped.bar.name);
	n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = '\0';
	group = strrchr(link, '/') ? strrchr(link, '/') + 1 : "";
	snprintf(path, sizeof(path), "/dev/vfio/noiommu-%.32s", group);
	*ret_no_iommu = access(path, F_OK) == 0;
	if (!*ret_no_iommu)
		snprintf(path, sizeof(path), "/dev/vfio/%.32s", group);
	v->group_fd = open(path, O_RDWR | O_CLOEXEC);
	if (v->group_fd < 0) {
		nvme_error_set(error, -errno, 0, "%s: %s: %s", v->mapped.bar.name, path,
			       errno == EBUSY ? "another process has it" : strerror(errno));
		return error->err;
	}
	if (ioctl(v->group_fd, VFIO_GROUP_GET_STATUS, &status) || !(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		nvme_error_set(error, -EBUSY, 0, "%s: another function of its IOMMU group has another driver: bind all of them",
			       v->mapped.bar.name);
		return -EBUSY;
	}
	return 0;
}

static int vfio_bar_open(const char *address, struct nvme_bar **ret_bar, struct nvme_error *error)
{
	struct vfio_bar *v = calloc(1, sizeof(*v));
	int rc;

	if (!v) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for %s", address);
		return -ENOMEM;
	}
	v->group_fd = v->device_fd = v->request_fd = -1;
	v->mapped.bar.ops = &vfio_ops;
	snprintf(v->mapped.bar.name, sizeof(v->mapped.bar.name), "%s", address);
	rc = open_group(v, &v->no_iommu, error);
	if (!rc)
		rc = vfio_container_add(v->group_fd, v->no_iommu, error);
	if (rc)
		goto out;
	v->joined = true;
	v->device_fd = ioctl(v->group_fd, VFIO_GROUP_GET_DEVICE_FD, address);
	if (v->device_fd < 0) {
		rc = -errno;
		nvme_error_set(error, rc, 0, "%s: VFIO does not give us the function: %s", address, strerror(-rc));
		goto out;
	}
	rc = map_bar0(v, error);
	if (rc)
		goto out;
	open_vectors(v);
	watch_request(v);
	*ret_bar = &v->mapped.bar;
	return 0;
out:
	vfio_close(&v->mapped.bar);
	return rc;
}

/* --- whichever driver has it ---------------------------------------------------------------------- */

/* An IOMMU that translates would stop what a function under uio does. */
static bool is_translated(const char *function)
{
	char path[128], type[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/iommu_group/type", function);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(type, sizeof(type), f))
		*type = '\0';
	fclose(f);
	return strncmp(type, "identity", 8) != 0;
}

static int uio_function_open(const char *address, const char *function, struct nvme_bar **ret_bar, struct nvme_error *error)
{
	int rc;

	if (is_translated(function)) {
		nvme_error_set(error, -ENOTSUP, 0, "%s: there is an IOMMU: bind it to vfio-pci instead of uio_pci_generic", address);
		return -ENOTSUP;
	}
	rc = vfio_physical(error);
	return rc ? rc : uio_bar_open(address, function, "/dev", ret_bar, error);
}

int nvme_vfio_open(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *error)
{
	char function[64], path[128], link[256];
	ssize_t n;

	if (!nvme_vfio_is_address(address)) {
		nvme_error_set(error, -EINVAL, 0, "%s is no PCI address, such as 0000:01:00.0", address);
		return -EINVAL;
	}
	snprintf(function, sizeof(function), "/sys/bus/pci/devices/%s", address);
	if (access(function, F_OK)) {
		nvme_error_set(error, -ENOENT, 0, "there is no PCI function %s", address);
		return -ENOENT;
	}
	snprintf(path, sizeof(path), "%s/driver", function);
	n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = '\0';
	if (strstr(link, "vfio"))
		return vfio_bar_open(address, ret_bar, error);
	if (strstr(link, "uio_pci_generic"))
		return uio_function_open(address, function, ret_bar, error);
	nvme_error_set(error, -ENODEV, 0, "%s is not bound to vfio-pci: see ferrule host status and ferrule host setup", address);
	return -ENODEV;
}

bool nvme_vfio_is_address(const char *text)
{
	unsigned domain, bus, device, function;
	int end = 0;

	return sscanf(text, "%4x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &end) == 4 && !text[end];
}
