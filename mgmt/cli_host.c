/*
 * ferrule host: shows what a machine has for drives of our own (hugepages, an IOMMU, NVMe drives and who uses them), gives drives
 * to vfio-pci (or uio_pci_generic, the last resort), and gives them back.  With --dry-run each write that would be made is shown instead.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mgmt/cli_host.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define MIB	    (1ull << 20)
#define BIND_LIMIT_MS 2000u
#define BIND_POLL_MS  20u
#define NO_IOMMU_SWITCH "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"

/* FERRULE_HOST_ROOT stands for / in tests. */
static const char *root(void)
{
	const char *dir = getenv("FERRULE_HOST_ROOT");

	return dir ? dir : "";
}

/* What one call of setup or reset does, and has to say of it. */
struct host_run {
	bool json, dry_run;
	json_t *report; /* with --json: "writes", "notes", "drives" */
};

static void run_begin(struct host_run *run, const struct cli *cli, json_t *args)
{
	*run = (struct host_run){ .json = cli->json, .dry_run = json_is_true(json_object_get(args, "dry_run")) };
	run->report = json_pack("{s:b,s:[],s:[],s:[]}", "dry_run", run->dry_run, "writes", "notes", "drives");
	if (!run->report)
		abort(); /* no memory for a word */
}

static int run_end(struct host_run *run, int rc)
{
	if (run->json)
		cli_show_json(run->report);
	json_decref(run->report);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void note(struct host_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct host_run *run, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (run->json)
		json_array_append_new(json_object_get(run->report, "notes"), json_string(text));
	else
		printf("%s\n", text);
}

/* What became of a drive: "taken", "given back", "left alone" or "failed", and why. */
static void tell_drive(struct host_run *run, const char *address, const char *result, const char *why)
{
	json_array_append_new(json_object_get(run->report, "drives"),
			      json_pack("{s:s,s:s,s:s}", "address", address, "result", result, "reason", why));
}

static int write_text(struct host_run *run, const char *path, const char *text)
{
	char full[PATH_MAX];
	FILE *f;
	int rc = 0;

	if (run->dry_run) {
		json_array_append_new(json_object_get(run->report, "writes"),
				      json_pack("{s:s,s:s}", "path", path, "value", text));
		if (!run->json)
			printf("would write \"%s\" to %s\n", strcmp(text, "\n") ? text : "", path);
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

/* At least so much on each node; a node that has more keeps it. */
static int set_hugepages(struct host_run *run, uint64_t bytes)
{
	unsigned long want = (unsigned long)((bytes + 2 * MIB - 1) / (2 * MIB));
	char path[PATH_MAX], text[32];
	int rc = 0;

	snprintf(text, sizeof(text), "%lu", want);
	for (unsigned node = 0; node < 64 && !rc; node++) {
		long has;

		hugepage_path(node, "nr_hugepages", path, sizeof(path));
		has = read_number(path);
		if (has < 0)
			continue;
		if (has >= (long)want) {
			note(run, "node %u has %ld hugepages already", node, has);
			continue;
		}
		rc = write_text(run, path, text);
		if (!rc && !run->dry_run && read_number(path) < (long)want) {
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

/* Whether a driver keeps a drive for user space. */
static bool is_ours(const char *driver)
{
	return !strncmp(driver, "vfio", 4) || !strcmp(driver, "uio_pci_generic");
}

/* Lets go of the drive's driver and has the one that is named look at it; "": any.
 * Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci, driver_override. */
static int bind(struct host_run *run, const struct host_drive *drive, const char *override)
{
	char path[PATH_MAX];
	int rc;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver_override", drive->address);
	rc = write_text(run, path, *override ? override : "\n");
	if (!rc && *drive->driver) {
		snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver/unbind", drive->address);
		rc = write_text(run, path, drive->address);
	}
	return rc ? rc : write_text(run, "/sys/bus/pci/drivers_probe", drive->address);
}

/* A driver may look at a drive later than drivers_probe is written.  want "": any driver of the kernel's own. */
static bool is_bound(const struct host_drive *drive, const char *want)
{
	const struct timespec pause = { .tv_nsec = BIND_POLL_MS * 1000000l };
	char driver[32];

	for (unsigned ms = 0; ms < BIND_LIMIT_MS; ms += BIND_POLL_MS) {
		host_driver_of(root(), drive->address, driver, sizeof(driver));
		if (*want ? !strcmp(driver, want) : *driver && !is_ours(driver))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

static int drive_failed(struct host_run *run, const struct host_drive *drive, const char *why)
{
	tell_drive(run, drive->address, "failed", why);
	cli_error("%s: %s", drive->address, why);
	return -EIO;
}

/* With a driver that does not take it the drive goes back to where it was. */
static int take(struct host_run *run, const struct host_drive *drive, const char *driver)
{
	struct host_drive now = *drive;
	char why[160];

	if (bind(run, drive, driver) == 0 && (run->dry_run || is_bound(drive, driver))) {
		tell_drive(run, drive->address, "taken", "");
		if (!run->json && !run->dry_run)
			printf("%s: given to %s\n", drive->address, driver);
		return 0;
	}
	if (run->dry_run)
		return -EIO;
	host_driver_of(root(), drive->address, now.driver, sizeof(now.driver));
	if (!strcmp(now.driver, drive->driver))
		*now.driver = '\0'; /* it never went */
	if (bind(run, &now, drive->override) == 0 && (!*drive->driver || is_bound(drive, drive->driver)))
		snprintf(why, sizeof(why), "%s has not taken it (dmesg says why): it is back where it was", driver);
	else
		snprintf(why, sizeof(why), "%s has not taken it (dmesg says why), nor %.31s again", driver,
			 *drive->driver ? drive->driver : "any other driver");
	return drive_failed(run, drive, why);
}

static int give_back(struct host_run *run, const struct host_drive *drive)
{
	if (bind(run, drive, ""))
		return drive_failed(run, drive, "it cannot be given back");
	if (!run->dry_run && !is_bound(drive, ""))
		return drive_failed(run, drive, "no driver of the kernel has taken it back: is nvme loaded? (modprobe nvme)");
	tell_drive(run, drive->address, "given back", "");
	if (!run->json && !run->dry_run)
		printf("%s: given back to the kernel\n", drive->address);
	return 0;
}

/* Whether it is to be given to the driver.  *ret_failed: it was asked for by name and cannot be. */
static bool may_take(struct host_run *run, const struct host_drive *drive, const char *driver, bool named, bool *ret_failed)
{
	if (!strcmp(drive->driver, driver))
		return false;
	if (!*drive->used)
		return true;
	tell_drive(run, drive->address, named ? "failed" : "left alone", drive->used);
	if (named) {
		cli_error("%s is not taken: %s", drive->address, drive->used);
		*ret_failed = true;
	} else if (!run->json) {
		printf("%s is left alone: %s\n", drive->address, drive->used);
	}
	return false;
}

/* Gives the drive that is named, or all that nobody uses, to the driver; "": back to the kernel's.  One that has no driver, and may
 * have ours alone, was left so by somebody. */
static int each_drive(struct host_run *run, json_t *args, const char *driver)
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
		if (*driver) {
			if (may_take(run, drive, driver, address, &failed) && take(run, drive, driver))
				failed = true;
		} else if (is_ours(drive->driver) || (!*drive->driver && is_ours(drive->override))) {
			if (give_back(run, drive))
				failed = true;
		}
	}
	free(drives);
	if (!found) {
		cli_error("there is no NVMe drive %s: see ferrule host status", address);
		failed = true;
	}
	return failed ? -EIO : 0;
}

/* Whether drives can be had so on this machine, and what it means. */
static int check_driver(struct host_run *run, const char *driver)
{
	bool vfio = !strcmp(driver, "vfio-pci");
	char path[64];

	if (!vfio && strcmp(driver, "uio_pci_generic")) {
		cli_error("--driver is vfio-pci or uio_pci_generic");
		return -EINVAL;
	}
	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s", driver);
	if (!exists(path) && !run->dry_run) {
		cli_error("%s is not loaded: modprobe %s", driver, driver);
		return -ENODEV;
	}
	if (vfio && !host_has_iommu(root()) && !host_no_iommu_enabled(root())) {
		cli_error("there is no IOMMU, and vfio-pci takes no drive without one: switch it on (the firmware's VT-d or AMD-Vi; "
			  "intel_iommu=on), or, where a drive may write to any memory of this machine, use vfio's unsafe mode (echo Y > "
			  NO_IOMMU_SWITCH ") or --driver uio_pci_generic");
		return -ENODEV;
	}
	if (!vfio && host_has_iommu(root()))
		note(run, "uio_pci_generic beside an IOMMU: drives work only where it lets everything through (iommu=pt); vfio-pci is better");
	else if (!vfio)
		note(run, "uio_pci_generic: a drive can write to any memory of this machine, and has no interrupts: a core polls");
	else if (!host_has_iommu(root()))
		note(run, "no IOMMU: %s", iommu_text());
	return 0;
}

int cli_host_setup(struct cli *cli, json_t *args, const struct cli_verb *verb)
{
	json_t *hugepages = json_object_get(args, "hugepages");
	const char *driver = json_string_value(json_object_get(args, "driver"));
	bool drives = !hugepages || json_object_get(args, "address") || json_is_true(json_object_get(args, "all"));
	struct host_run run;
	int rc = 0;

	if (json_object_get(args, "address") && json_object_get(args, "all")) {
		cli_error("--all and the address of one drive do not go together");
		return EXIT_FAILURE;
	}
	run_begin(&run, cli, args);
	driver = driver ? driver : "vfio-pci";
	if (drives)
		rc = check_driver(&run, driver);
	if (!rc && hugepages)
		rc = set_hugepages(&run, (uint64_t)json_integer_value(hugepages));
	if (!rc && drives)
		rc = each_drive(&run, args, driver);
	return run_end(&run, rc);
}

int cli_host_reset(struct cli *cli, json_t *args, const struct cli_verb *verb)
{
	struct host_run run;

	run_begin(&run, cli, args);
	return run_end(&run, each_drive(&run, args, ""));
}
