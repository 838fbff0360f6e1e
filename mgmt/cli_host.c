/*
 * ferrule host: shows what a machine has for drives of our own (hugepages, an IOMMU, NVMe drives and who uses them), gives drives
 * to vfio-pci (or uio_pci_generic, the last resort), and gives them back.  With --dry-run each write that would be made is shown instead.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mgmt/cli_host.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define MIB	    (1ull << 20)

/* FERRULE_HOST_ROOT stands for / in tests. */
static const char *root(void)
{
	const char *dir = getenv("FERRULE_HOST_ROOT");

	return dir ? dir : "";
}

static int write_text(const char *path, const char *text, bool dry_run)
{
	char full[PATH_MAX];
	FILE *f;
	int rc = 0;

	if (dry_run) {
		printf("would write \"%s\" to %s\n", text, path);
		return 0;
	}
	snprintf(full, sizeof(full), "%s%s", root(), path);
	f = fopen(full, "we");
	if (!f || fputs(text, f) < 0)
		rc = -errno;
	if (f && fclose(f) && !rc)
		rc = -errno;
	if (rc)
		cli_error("%s: %s", path, strerror(-rc));
	return rc;
}

static bool exists(const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", root(), path);
	return access(full, F_OK) == 0;
}

/* --- hugepages -------------------------------------------------------------------------------------------------------- */

static long read_number(const char *path)
{
	char full[PATH_MAX];
	long n = -1;
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root(), path);
	f = fopen(full, "re");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

static void hugepage_path(unsigned node, const char *what, char *path, size_t size)
{
	snprintf(path, size, "/sys/devices/system/node/node%u/hugepages/hugepages-2048kB/%s", node, what);
}

static json_t *hugepages_json(void)
{
	json_t *nodes = json_array();
	char path[PATH_MAX];

	for (unsigned node = 0; node < 64; node++) {
		long nr, nr_free;

		hugepage_path(node, "nr_hugepages", path, sizeof(path));
		nr = read_number(path);
		hugepage_path(node, "free_hugepages", path, sizeof(path));
		nr_free = read_number(path);
		if (nr >= 0)
			json_array_append_new(nodes, json_pack("{s:i,s:i,s:i}", "node", node, "hugepages_2m", (int)nr,
							       "free", (int)nr_free));
	}
	return nodes;
}

static int set_hugepages(uint64_t bytes, bool dry_run)
{
	unsigned long want = (unsigned long)((bytes + 2 * MIB - 1) / (2 * MIB));
	char path[PATH_MAX], text[32];
	int rc = 0;

	snprintf(text, sizeof(text), "%lu", want);
	for (unsigned node = 0; node < 64 && !rc; node++) {
		hugepage_path(node, "nr_hugepages", path, sizeof(path));
		if (!exists(path))
			continue;
		rc = write_text(path, text, dry_run);
		if (!rc && !dry_run && read_number(path) < (long)want) {
			cli_error("node %u gives %ld of %lu hugepages: its memory is too fragmented, or too small", node,
				  read_number(path), want);
			rc = -ENOMEM;
		}
	}
	return rc;
}

/* --- status ----------------------------------------------------------------------------------------------------------- */

static const char *iommu_text(void)
{
	if (host_has_iommu(root()))
		return "on: drives reach only the memory they are given";
	if (host_no_iommu_enabled(root()))
		return "none, and vfio's unsafe mode is on: a drive can write to any memory of this machine";
	return "none: with vfio's unsafe mode (enable_unsafe_noiommu_mode=Y) drives work, and could write to any memory";
}

int cli_host_status(struct cli *cli, json_t *args, const struct cli_verb *verb)
{
	static const struct cli_column drive_columns[] = {
		{ "DRIVE", "address", CLI_TEXT }, { "DRIVER", "driver", CLI_TEXT }, { "NODE", "numa_node", CLI_COUNT },
		{ "GROUP", "iommu_group", CLI_TEXT }, { "USED", "used", CLI_TEXT }, { NULL, NULL, 0 },
	};
	static const struct cli_column page_columns[] = {
		{ "NODE", "node", CLI_COUNT }, { "HUGEPAGES", "hugepages_2m", CLI_COUNT }, { "FREE", "free", CLI_COUNT },
		{ NULL, NULL, 0 },
	};
	struct host_drive *drives = calloc(HOST_MAX_DRIVES, sizeof(*drives));
	unsigned nr = drives ? host_find_drives(root(), drives) : 0;
	json_t *list = json_array(), *out;

	for (unsigned i = 0; i < nr; i++)
		json_array_append_new(list, json_pack("{s:s,s:s,s:i,s:s,s:s}", "address", drives[i].address, "driver",
						      drives[i].driver, "numa_node", drives[i].numa_node, "iommu_group",
						      drives[i].group, "used", drives[i].used));
	free(drives);
	out = json_pack("{s:b,s:b,s:b,s:o,s:o}", "iommu", host_has_iommu(root()), "no_iommu_mode", host_no_iommu_enabled(root()),
			"vfio_pci", exists("/sys/bus/pci/drivers/vfio-pci"), "hugepages", hugepages_json(), "drives", list);
	if (cli->json) {
		cli_show_json(out);
	} else {
		printf("IOMMU: %s\n", iommu_text());
		if (!exists("/sys/bus/pci/drivers/vfio-pci"))
			printf("vfio-pci: not loaded (modprobe vfio-pci)\n");
		cli_show_table(json_object_get(out, "hugepages"), page_columns, "hugepages");
		cli_show_table(list, drive_columns, "NVMe drives");
	}
	json_decref(out);
	return EXIT_SUCCESS;
}

/* --- binding ---------------------------------------------------------------------------------------------------------- */

/* Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci, driver_override. */
static int bind(const struct host_drive *drive, const char *override, bool dry_run)
{
	char path[PATH_MAX];
	int rc;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver_override", drive->address);
	rc = write_text(path, *override ? override : "\n", dry_run);
	if (!rc && *drive->driver) {
		snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver/unbind", drive->address);
		rc = write_text(path, drive->address, dry_run);
	}
	return rc ? rc : write_text("/sys/bus/pci/drivers_probe", drive->address, dry_run);
}

/* A driver that keeps a drive for user space. */
static bool is_ours(const char *driver)
{
	return !strncmp(driver, "vfio", 4) || !strcmp(driver, "uio_pci_generic");
}

/* Whether it is to be given to the driver.  *ret_failed: it was asked for by name and cannot be. */
static bool may_take(const struct host_drive *drive, const char *driver, bool named, bool *ret_failed)
{
	if (!strcmp(drive->driver, driver))
		return false;
	if (!*drive->used)
		return true;
	if (named) {
		cli_error("%s is not taken: %s", drive->address, drive->used);
		*ret_failed = true;
	} else {
		printf("%s is left alone: %s\n", drive->address, drive->used);
	}
	return false;
}

/* Gives the drive that is named, or all that nobody uses, to the driver; "": back to the kernel's. */
static int each_drive(json_t *args, const char *driver, bool dry_run)
{
	const char *address = json_string_value(json_object_get(args, "address"));
	struct host_drive *drives = calloc(HOST_MAX_DRIVES, sizeof(*drives));
	unsigned nr = drives ? host_find_drives(root(), drives) : 0;
	bool failed = false, found = !address;

	for (unsigned i = 0; i < nr; i++) {
		const struct host_drive *drive = &drives[i];

		if (address && strcmp(address, drive->address))
			continue;
		found = true;
		if (*driver ? !may_take(drive, driver, address, &failed) : !is_ours(drive->driver))
			continue;
		if (bind(drive, driver, dry_run))
			failed = true;
		else if (!dry_run)
			printf("%s: given %s%s\n", drive->address, *driver ? "to " : "back to the kernel", driver);
	}
	free(drives);
	if (!found) {
		cli_error("there is no NVMe drive %s: see ferrule host status", address);
		failed = true;
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What it means to have drives so on this machine. */
static int check_driver(const char *driver, bool dry_run)
{
	bool vfio = !strcmp(driver, "vfio-pci");
	char path[64];

	if (!vfio && strcmp(driver, "uio_pci_generic")) {
		cli_error("--driver is vfio-pci or uio_pci_generic");
		return -EINVAL;
	}
	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s", driver);
	if (!exists(path) && !dry_run) {
		cli_error("%s is not loaded: modprobe %s", driver, driver);
		return -ENODEV;
	}
	if (!vfio && host_has_iommu(root()))
		printf("uio_pci_generic beside an IOMMU: drives work only where it lets everything through (iommu=pt); vfio-pci is better\n");
	else if (!vfio)
		printf("uio_pci_generic: a drive can write to any memory of this machine, and has no interrupts: a core polls\n");
	else if (!host_has_iommu(root()))
		printf("no IOMMU: %s\n", iommu_text());
	return 0;
}

int cli_host_setup(struct cli *cli, json_t *args, const struct cli_verb *verb)
{
	bool dry_run = json_is_true(json_object_get(args, "dry_run"));
	json_t *hugepages = json_object_get(args, "hugepages");
	const char *driver = json_string_value(json_object_get(args, "driver"));

	driver = driver ? driver : "vfio-pci";
	if (hugepages && set_hugepages((uint64_t)json_integer_value(hugepages), dry_run))
		return EXIT_FAILURE;
	return check_driver(driver, dry_run) ? EXIT_FAILURE : each_drive(args, driver, dry_run);
}

int cli_host_reset(struct cli *cli, json_t *args, const struct cli_verb *verb)
{
	return each_drive(args, "", json_is_true(json_object_get(args, "dry_run")));
}
