/*
 * The machine's NVMe drives, as sysfs shows them, and whether anybody uses one: a mounted file system, swap, a volume or RAID on
 * top of it, or a process that has it open for itself.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mgmt/cli_host.h"

#define NVME_CLASS "0x010802"

static void read_line(const char *path, char *to, size_t size)
{
	FILE *f = fopen(path, "re");

	*to = '\0';
	if (!f)
		return;
	if (!fgets(to, (int)size, f))
		*to = '\0';
	to[strcspn(to, "\n")] = '\0';
	fclose(f);
}

/* The last part of what a link points to; "": there is none. */
static void link_name(const char *path, char *to, size_t size)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	const char *slash;

	target[n > 0 ? n : 0] = '\0';
	slash = strrchr(target, '/');
	snprintf(to, size, "%.*s", (int)size - 1, slash ? slash + 1 : target);
}

/* A line of @file whose first word is /dev/NAME, NAME being the block device or a partition of it. */
static bool listed(const char *root, const char *file, const char *name, char *ret_where, size_t size)
{
	char path[PATH_MAX], line[1024], device[256], where[256];
	size_t len = strlen(name);
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", root, file);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		*where = '\0';
		if (sscanf(line, "%255s %255s", device, where) < 1 || strncmp(device, "/dev/", 5))
			continue;
		found = !strncmp(device + 5, name, len) && (!device[5 + len] || device[5 + len] == 'p');
	}
	fclose(f);
	if (found)
		snprintf(ret_where, size, "%s", where);
	return found;
}

/* Something stands on the block device or a partition: device mapper, md, … */
static bool has_holders(const char *root, const char *name)
{
	char path[PATH_MAX];
	struct dirent *e;
	bool any = false;
	DIR *d;

	snprintf(path, sizeof(path), "%s/sys/class/block/%s/holders", root, name);
	d = opendir(path);
	if (!d)
		return false;
	while (!any && (e = readdir(d)))
		any = e->d_name[0] != '.';
	closedir(d);
	return any;
}

static bool is_held_open(const char *root, const char *name)
{
	char path[PATH_MAX];
	int fd;

	if (*root)
		return false; /* a tree for tests has no devices */
	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == EBUSY;
}

static void look_at_block(const char *root, const char *name, char *used, size_t size)
{
	char where[200], path[PATH_MAX];
	struct dirent *e;
	DIR *d;

	if (listed(root, "/proc/mounts", name, where, sizeof(where)))
		snprintf(used, size, "%.30s is mounted at %.80s", name, where);
	else if (listed(root, "/proc/swaps", name, where, sizeof(where)))
		snprintf(used, size, "%.30s is swap", name);
	else if (has_holders(root, name))
		snprintf(used, size, "%.30s has a volume on top of it", name);
	else if (is_held_open(root, name))
		snprintf(used, size, "%.30s is in use", name);
	if (*used)
		return;
	snprintf(path, sizeof(path), "%s/sys/class/block/%s", root, name);
	d = opendir(path);
	if (!d)
		return;
	while (!*used && (e = readdir(d))) {
		if (!strncmp(e->d_name, name, strlen(name)) && has_holders(root, e->d_name))
			snprintf(used, size, "%.30s has a volume on top of it", e->d_name);
	}
	closedir(d);
}

/* A path of a multipath device (nvme0c1n2) is hidden; what is mounted is the device (nvme0n2). */
static void visible_name(const char *name, char *to, size_t size)
{
	unsigned subsystem, path, ns;
	int end = 0;

	if (sscanf(name, "nvme%uc%un%u%n", &subsystem, &path, &ns, &end) == 3 && !name[end])
		snprintf(to, size, "nvme%un%u", subsystem, ns);
	else
		snprintf(to, size, "%.*s", (int)size - 1, name);
}

/* The block devices of a controller that the kernel's driver has: nvmeX/nvmeXnY below the function. */
static void find_use(const char *root, struct host_drive *drive)
{
	char path[PATH_MAX], below[PATH_MAX], name[64];
	struct dirent *c, *n;
	DIR *d, *b;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/nvme", root, drive->address);
	d = opendir(path);
	if (!d)
		return;
	while ((c = readdir(d))) {
		if (c->d_name[0] == '.')
			continue;
		snprintf(below, sizeof(below), "%.2000s/%s", path, c->d_name);
		b = opendir(below);
		while (b && !*drive->used && (n = readdir(b))) {
			if (strncmp(n->d_name, "nvme", 4))
				continue;
			visible_name(n->d_name, name, sizeof(name));
			look_at_block(root, name, drive->used, sizeof(drive->used));
		}
		if (b)
			closedir(b);
	}
	closedir(d);
}

static int by_address(const void *a, const void *b)
{
	return strcmp(((const struct host_drive *)a)->address, ((const struct host_drive *)b)->address);
}

void host_driver_of(const char *root, const char *address, char *ret_driver, size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/driver", root, address);
	link_name(path, ret_driver, size);
}

unsigned host_find_drives(const char *root, struct host_drive drives[HOST_MAX_DRIVES])
{
	char path[PATH_MAX], text[64];
	struct dirent *e;
	unsigned nr = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices", root);
	d = opendir(path);
	while (d && nr < HOST_MAX_DRIVES && (e = readdir(d))) {
		struct host_drive *drive = &drives[nr];

		if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof(drive->address))
			continue;
		snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/class", root, e->d_name);
		read_line(path, text, sizeof(text));
		if (strcmp(text, NVME_CLASS))
			continue;
		*drive = (struct host_drive){ .numa_node = -1 };
		snprintf(drive->address, sizeof(drive->address), "%.15s", e->d_name);
		host_driver_of(root, drive->address, drive->driver, sizeof(drive->driver));
		snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/driver_override", root, e->d_name);
		read_line(path, text, sizeof(text));
		snprintf(drive->override, sizeof(drive->override), "%.31s", strcmp(text, "(null)") ? text : "");
		snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/iommu_group", root, e->d_name);
		link_name(path, drive->group, sizeof(drive->group));
		snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/numa_node", root, e->d_name);
		read_line(path, text, sizeof(text));
		if (*text)
			drive->numa_node = atoi(text);
		find_use(root, drive);
		nr++;
	}
	if (d)
		closedir(d);
	qsort(drives, nr, sizeof(*drives), by_address);
	return nr;
}

bool host_has_iommu(const char *root)
{
	char path[PATH_MAX];
	struct dirent *e;
	bool any = false;
	DIR *d;

	snprintf(path, sizeof(path), "%s/sys/class/iommu", root);
	d = opendir(path);
	while (d && !any && (e = readdir(d)))
		any = e->d_name[0] != '.';
	if (d)
		closedir(d);
	return any;
}

bool host_no_iommu_enabled(const char *root)
{
	char path[PATH_MAX], text[16];

	snprintf(path, sizeof(path), "%s/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", root);
	read_line(path, text, sizeof(text));
	return *text == 'Y';
}
