/*
 * A PCIe function under uio_pci_generic, the last resort: BAR 0 through sysfs, our memory by its physical addresses, no interrupts.
 *
 * Nothing keeps such a function within its bounds, and nobody tells when it goes: its configuration space is asked three times a
 * second, and should touching its registers be a bus error by then, they read as all ones (mapped_bar.c).  Its queues are polled for
 * as long as commands are out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "nvme/vfio_internal.h"

#define LOOK_US 300000u

/* Owner: app thread. */
struct uio_bar {
	struct mapped_bar mapped;
	char function[256]; /* its folder in sysfs */
	int uio_fd;	    /* while it is open the kernel's driver stays; the kernel ends bus mastering when it closes */
	int config_fd;
	struct timer look_timer;
};

static struct uio_bar *uio_of(struct nvme_bar *bar)
{
	return container_of(bar, struct uio_bar, mapped.bar);
}

static int config_command(struct uio_bar *u, uint16_t set, uint16_t clear)
{
	uint16_t command;

	if (pread(u->config_fd, &command, sizeof(command), PCI_COMMAND) != sizeof(command))
		return -EIO;
	command = (uint16_t)((command & ~clear) | set);
	return pwrite(u->config_fd, &command, sizeof(command), PCI_COMMAND) == sizeof(command) ? 0 : -EIO;
}

/* What the registers of a function that is gone read is up to the machine; its configuration space is the kernel's to know. */
static bool is_there(const struct uio_bar *u)
{
	uint16_t vendor;

	return pread(u->config_fd, &vendor, sizeof(vendor), PCI_VENDOR_ID) == sizeof(vendor) && vendor != 0xffff;
}

static void look(void *arg)
{
	struct uio_bar *u = arg;
	struct nvme_bar *bar = &u->mapped.bar;

	if (is_there(u)) {
		timer_arm(&u->look_timer, LOOK_US);
		return;
	}
	log_notice("%s: it is gone", bar->name);
	__atomic_store_n(&bar->removed, true, __ATOMIC_RELEASE);
	if (bar->on_removed)
		bar->on_removed(bar, bar->on_removed_arg);
}

/* Its registers are ours, it may write to memory, and it is quiet: nobody would hear its interrupt. */
static int switch_on(struct uio_bar *u)
{
	return config_command(u, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE, 0);
}

static int write_reset(struct uio_bar *u)
{
	char path[PATH_MAX];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/reset", u->function);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, "1", 1) != 1)
		rc = -errno;
	close(fd);
	return rc;
}

/* As with VFIO: bus mastering goes first, and what cannot be reset is not used again. */
static fiber_fn int uio_stop(struct nvme_bar *bar)
{
	struct uio_bar *u = uio_of(bar);
	int rc = config_command(u, 0, PCI_COMMAND_MASTER);

	if (!write_reset(u))
		return switch_on(u);
	__atomic_store_n(&bar->removed, true, __ATOMIC_RELEASE);
	return rc;
}

static void uio_close(struct nvme_bar *bar)
{
	struct uio_bar *u = uio_of(bar);

	timer_cancel(&u->look_timer);
	if (u->config_fd >= 0) {
		config_command(u, 0, PCI_COMMAND_MASTER);
		close(u->config_fd);
	}
	mapped_bar_unmap(&u->mapped);
	if (u->uio_fd >= 0)
		close(u->uio_fd);
	free(u);
}

/* Never called: it has no vectors. */
static void no_irq_arm(struct nvme_bar *bar, struct nvme_irq *irq)
{
}

static fiber_fn void no_irq_release(struct nvme_bar *bar, struct nvme_irq *irq)
{
}

static uint8_t *uio_map_memory(struct nvme_bar *bar, unsigned bir, uint64_t offset, uint64_t len, uint64_t *ret_bus_addr)
{
	struct uio_bar *u = uio_of(bar);
	char path[PATH_MAX];
	bool is_new = !u->mapped.memory;
	uint8_t *memory = NULL;
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/resource%u", u->function, bir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && offset <= (uint64_t)st.st_size && len <= (uint64_t)st.st_size - offset)
		memory = mapped_bar_memory(&u->mapped, fd, offset, bir, offset, len);
	close(fd);
	if (memory && is_new && mapped_bar_watch(&u->mapped, memory, len))
		memory = NULL;
	*ret_bus_addr = mapped_bar_bus_addr(u->function, bir) + offset;
	if (*ret_bus_addr == offset)
		*ret_bus_addr = 0;
	return memory;
}

static const struct nvme_bar_ops uio_ops = {
	.read32 = mapped_read32,
	.read64 = mapped_read64,
	.write32 = mapped_write32,
	.write64 = mapped_write64,
	.dma_addr = vfio_dma_addr,
	.map_memory = uio_map_memory,
	.irq_arm = no_irq_arm,
	.irq_release = no_irq_release,
	.stop = uio_stop,
	.close = uio_close,
};

/* The kernel's name for it: the one entry of the function's folder uio.  Return: 0 or -errno. */
static int find_uio(struct uio_bar *u, char *name, size_t size)
{
	char path[PATH_MAX];
	struct dirent *e;
	int rc = -ENODEV;
	DIR *d;

	snprintf(path, sizeof(path), "%s/uio", u->function);
	d = opendir(path);
	if (!d)
		return -errno;
	while (rc && (e = readdir(d))) {
		if (strncmp(e->d_name, "uio", 3) || strlen(e->d_name) >= size)
			continue;
		snprintf(name, size, "%s", e->d_name);
		rc = 0;
	}
	closedir(d);
	return rc;
}

/* Any number of processes may open it; the lock makes us one. */
static int open_uio(struct uio_bar *u, const char *dev, struct nvme_error *error)
{
	char path[PATH_MAX], name[32];
	int rc = find_uio(u, name, sizeof(name));

	if (rc) {
		nvme_error_set(error, -ENODEV, 0, "%s: the kernel shows no uio device of it", u->mapped.bar.name);
		return -ENODEV;
	}
	snprintf(path, sizeof(path), "%s/%s", dev, name);
	u->uio_fd = open(path, O_RDWR | O_CLOEXEC);
	if (u->uio_fd < 0) {
		nvme_error_set(error, -errno, 0, "%s: %s: %s", u->mapped.bar.name, path, strerror(errno));
		return error->err;
	}
	if (flock(u->uio_fd, LOCK_EX | LOCK_NB)) {
		nvme_error_set(error, -EBUSY, 0, "%s: %s: another process has it", u->mapped.bar.name, path);
		return -EBUSY;
	}
	return 0;
}

static int map_bar0(struct uio_bar *u)
{
	char path[PATH_MAX];
	struct stat st;
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/resource0", u->function);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		rc = -errno;
	} else {
		u->mapped.map_len = (size_t)st.st_size;
		u->mapped.bar.size = st.st_size > UINT32_MAX ? UINT32_MAX : (uint32_t)st.st_size;
		u->mapped.map = mmap(NULL, u->mapped.map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (u->mapped.map == MAP_FAILED) {
			u->mapped.map = NULL;
			rc = -errno;
		}
	}
	close(fd);
	return rc ? rc : mapped_bar_watch(&u->mapped, u->mapped.map, u->mapped.map_len);
}

static int open_function(struct uio_bar *u, struct nvme_error *error)
{
	char path[PATH_MAX];
	int rc;

	snprintf(path, sizeof(path), "%s/config", u->function);
	u->config_fd = open(path, O_RDWR | O_CLOEXEC);
	if (u->config_fd < 0) {
		nvme_error_set(error, -errno, 0, "%s: %s: %s", u->mapped.bar.name, path, strerror(errno));
		return error->err;
	}
	rc = switch_on(u);
	if (rc) {
		nvme_error_set(error, rc, 0, "%s: its configuration space cannot be written", u->mapped.bar.name);
		return rc;
	}
	rc = map_bar0(u);
	if (rc)
		nvme_error_set(error, rc, 0, "%s: its BAR 0 cannot be mapped: %s", u->mapped.bar.name, strerror(-rc));
	return rc;
}

int uio_bar_open(const char *address, const char *function, const char *dev, struct nvme_bar **ret_bar, struct nvme_error *error)
{
	struct uio_bar *u = calloc(1, sizeof(*u));
	int rc;

	if (!u) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for %s", address);
		return -ENOMEM;
	}
	u->uio_fd = u->config_fd = -1;
	timer_init(&u->look_timer, look, u);
	u->mapped.bar.ops = &uio_ops;
	snprintf(u->mapped.bar.name, sizeof(u->mapped.bar.name), "%s", address);
	snprintf(u->function, sizeof(u->function), "%s", function);
	rc = open_uio(u, dev, error);
	if (!rc)
		rc = open_function(u, error);
	if (rc) {
		uio_close(&u->mapped.bar);
		return rc;
	}
	if (thread_current())
		timer_arm(&u->look_timer, LOOK_US);
	*ret_bar = &u->mapped.bar;
	return 0;
}
