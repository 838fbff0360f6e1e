/*
 * Functions under uio, and what real functions share, on made-up folders in place of sysfs: a file that shrinks is a BAR that goes.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "nvme/msix.h"
#include "nvme/vfio_internal.h"
#include "runtime/suite.h"
#include "runtime/testing.h"

#define BAR_SIZE 16384u

static char root[64], function[96], dev[96];
static struct nvme_error error;
static struct nvme_bar *bar;

static void path_of(const char *folder, const char *name, char path[256])
{
	snprintf(path, 256, "%s/%s", folder, name);
}

static void make_file(const char *folder, const char *name, size_t len)
{
	char path[256];
	int fd;

	path_of(folder, name, path);
	fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	ck_assert(fd >= 0 && !ftruncate(fd, (off_t)len));
	close(fd);
}

static void make_function(void)
{
	char path[256];

	strcpy(root, "/tmp/ferrule-uio-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	snprintf(function, sizeof(function), "%s/function", root);
	snprintf(dev, sizeof(dev), "%s/dev", root);
	ck_assert(!mkdir(function, 0700) && !mkdir(dev, 0700));
	path_of(function, "uio", path);
	ck_assert(!mkdir(path, 0700));
	path_of(function, "uio/uio7", path);
	ck_assert(!mkdir(path, 0700));
	make_file(dev, "uio7", 0);
	make_file(function, "config", 256);
	make_file(function, "resource0", BAR_SIZE);
	make_file(function, "reset", 0);
}

static void remove_function(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", root);
	ck_assert_int_eq(system(command), 0);
}

static void read_file(const char *name, uint64_t offset, void *to, size_t len)
{
	char path[256];
	int fd;

	path_of(function, name, path);
	fd = open(path, O_RDONLY);
	ck_assert(fd >= 0);
	ck_assert_int_eq(pread(fd, to, len, (off_t)offset), (ssize_t)len);
	close(fd);
}

static uint16_t command_register(void)
{
	uint16_t command;

	read_file("config", PCI_COMMAND, &command, sizeof(command));
	return command;
}

static void open_bar(void)
{
	make_function();
	ck_assert_msg(!uio_bar_open("0000:01:00.0", function, dev, &bar, &error), "%s", error.text);
}

START_TEST(registers_are_those_of_the_bar)
{
	uint64_t value;

	open_bar();
	ck_assert_uint_eq(bar->size, BAR_SIZE);
	ck_assert_uint_eq(bar->nr_vectors, 0);
	bar->ops->write64(bar, 0x28, 0x1122334455667788ull);
	bar->ops->write32(bar, 0x1004, 77);
	ck_assert_uint_eq(bar->ops->read64(bar, 0x28), 0x1122334455667788ull);
	ck_assert_uint_eq(bar->ops->read32(bar, 0x2c), 0x11223344u);
	read_file("resource0", 0x28, &value, sizeof(value));
	ck_assert_uint_eq(value, 0x1122334455667788ull);
	bar->ops->close(bar);
	remove_function();
}
END_TEST

START_TEST(a_function_is_master_of_the_bus_while_it_is_ours_and_quiet)
{
	open_bar();
	ck_assert_uint_eq(command_register(), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	bar->ops->close(bar);
	ck_assert_uint_eq(command_register() & PCI_COMMAND_MASTER, 0);
	remove_function();
}
END_TEST

START_TEST(a_function_has_one_owner)
{
	struct nvme_bar *second;

	open_bar();
	ck_assert_int_eq(uio_bar_open("0000:01:00.0", function, dev, &second, &error), -EBUSY);
	bar->ops->close(bar);
	ck_assert_int_eq(uio_bar_open("0000:01:00.0", function, dev, &bar, &error), 0);
	bar->ops->close(bar);
	remove_function();
}
END_TEST

START_TEST(what_is_missing_is_told)
{
	char path[256];

	make_function();
	path_of(function, "resource0", path);
	ck_assert(!unlink(path));
	ck_assert_int_eq(uio_bar_open("0000:01:00.0", function, dev, &bar, &error), -ENOENT);
	ck_assert_ptr_nonnull(strstr(error.text, "BAR 0"));
	path_of(function, "uio/uio7", path);
	ck_assert(!rmdir(path));
	ck_assert_int_eq(uio_bar_open("0000:01:00.0", function, dev, &bar, &error), -ENODEV);
	remove_function();
}
END_TEST

START_TEST(a_function_that_vanishes_reads_all_ones_and_is_gone)
{
	char path[256];

	open_bar();
	bar->ops->write32(bar, 0x14, 1);
	ck_assert(!nvme_bar_removed(bar));
	path_of(function, "resource0", path);
	ck_assert(!truncate(path, 0));
	bar->ops->write32(bar, 0x1000, 5); /* a doorbell into nothing */
	ck_assert(nvme_bar_removed(bar));
	ck_assert_uint_eq(bar->ops->read32(bar, 0x14), UINT32_MAX);
	ck_assert_uint_eq(bar->ops->read64(bar, 0), UINT64_MAX);
	bar->ops->close(bar);
	remove_function();
}
END_TEST

START_TEST(memory_of_another_bar_is_mapped_once_and_has_its_address_on_the_bus)
{
	uint64_t bus_addr;
	uint8_t *memory;
	char path[256];
	FILE *f;

	open_bar();
	ck_assert_ptr_null(bar->ops->map_memory(bar, 2, 8192, 4096, &bus_addr));
	make_file(function, "resource2", 16384);
	path_of(function, "resource", path);
	f = fopen(path, "w");
	fputs("0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n0x0 0x0 0x0\n0x00000000fe800000 0x00000000fe803fff 0x14220c\n", f);
	fclose(f);
	ck_assert_ptr_null(bar->ops->map_memory(bar, 2, 8192, 8193, &bus_addr));
	memory = bar->ops->map_memory(bar, 2, 8192, 8192, &bus_addr);
	ck_assert_ptr_nonnull(memory);
	ck_assert_uint_eq(bus_addr, 0xfe802000);
	ck_assert_ptr_eq(bar->ops->map_memory(bar, 2, 8192, 8192, &bus_addr), memory);
	memory[8191] = 7;
	read_file("resource2", 16383, path, 1);
	ck_assert_int_eq(path[0], 7);
	path_of(function, "resource2", path);
	ck_assert(!truncate(path, 0));
	memory[0] = 1; /* into nothing */
	ck_assert(nvme_bar_removed(bar));
	bar->ops->close(bar);
	remove_function();
}
END_TEST

static void stop_body(void *arg)
{
	char path[256], text[2] = "";

	open_bar();
	ck_assert_int_eq(bar->ops->stop(bar), 0);
	read_file("reset", 0, text, 1);
	ck_assert_str_eq(text, "1");
	ck_assert(command_register() & PCI_COMMAND_MASTER);
	path_of(function, "reset", path);
	ck_assert(!unlink(path));
	bar->ops->stop(bar);
	ck_assert(nvme_bar_removed(bar)); /* it could not be reset: it is not used again */
	ck_assert_uint_eq(command_register() & PCI_COMMAND_MASTER, 0);
	bar->ops->close(bar);
	remove_function();
	runtime_stop(0);
}

START_TEST(stopping_resets_the_function_or_takes_the_bus_from_it)
{
	struct sim_opts opts = {.seed = 1, .nr_reactors = 1};

	ck_assert_int_eq(sim_run(&opts, stop_body, NULL), 0);
}
END_TEST

static unsigned nr_told;

static void told(struct nvme_bar *b, void *arg)
{
	nr_told++;
}

/* Its registers go on reading something: the kernel knows better. */
static void look_body(void *arg)
{
	char path[256];

	open_bar();
	bar->on_removed = told;
	nr_told = 0;
	fiber_sleep(5000000);
	ck_assert_uint_eq(nr_told, 0);
	path_of(function, "config", path);
	ck_assert(!truncate(path, 0));
	fiber_sleep(1000000);
	ck_assert_uint_eq(nr_told, 1);
	ck_assert(nvme_bar_removed(bar));
	bar->ops->close(bar);
	remove_function();
	runtime_stop(0);
}

START_TEST(a_function_that_the_kernel_does_not_know_any_more_is_gone)
{
	struct sim_opts opts = {.seed = 1, .nr_reactors = 1};

	ck_assert_int_eq(sim_run(&opts, look_body, NULL), 0);
}
END_TEST

START_TEST(a_bus_error_elsewhere_is_one)
{
	char path[256];
	volatile char *at;
	int fd;

	signal(SIGBUS, SIG_DFL); /* a sanitizer's handler would end us otherwise */
	open_bar();
	make_file(function, "other", 4096);
	path_of(function, "other", path);
	fd = open(path, O_RDWR);
	at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	ck_assert(!truncate(path, 0));
	(void)*at; /* ends the process */
}
END_TEST

/* --- MSI-X ---------------------------------------------------------------------------------------- */

static void put16(uint8_t *config, unsigned at, unsigned value)
{
	config[at] = (uint8_t)value;
	config[at + 1] = (uint8_t)(value >> 8);
}

START_TEST(the_msix_table_is_found_through_the_capabilities)
{
	uint8_t config[PCI_CONFIG_SIZE] = {0};
	struct msix_place place;

	ck_assert_int_eq(msix_find(config, &place), -ENOENT);
	put16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
	ck_assert_int_eq(msix_find(config, &place), -ENOENT);
	config[PCI_CAPABILITY_LIST] = 0x40;
	config[0x40] = PCI_CAP_ID_EXP;
	config[0x41] = 0x80;
	config[0x80] = PCI_CAP_ID_MSIX;
	put16(config, 0x82, 64);
	put16(config, 0x84, 0x3000 | 4);
	ck_assert_int_eq(msix_find(config, &place), 0);
	ck_assert_uint_eq(place.nr, 65);
	ck_assert_uint_eq(place.bar, 4);
	ck_assert_uint_eq(place.offset, 0x3000);
}
END_TEST

START_TEST(capabilities_that_make_no_sense_are_refused)
{
	uint8_t config[PCI_CONFIG_SIZE] = {0};
	struct msix_place place;

	put16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
	config[PCI_CAPABILITY_LIST] = 0x40;
	config[0x41] = 0x40; /* a circle */
	ck_assert_int_eq(msix_find(config, &place), -EPROTO);
	config[0x41] = 0xfc;
	config[0xfc] = PCI_CAP_ID_MSIX; /* it would lead past the end */
	ck_assert_int_eq(msix_find(config, &place), -EPROTO);
	config[0x41] = 0x80;
	config[0x80] = PCI_CAP_ID_MSIX;
	put16(config, 0x84, 7); /* there is no BAR 7 */
	ck_assert_int_eq(msix_find(config, &place), -EPROTO);
	memset(config, 0xff, sizeof(config)); /* a function that is gone */
	ck_assert_int_eq(msix_find(config, &place), -EPROTO);
}
END_TEST

START_TEST(masking_touches_one_vectors_control)
{
	uint8_t table[4 * MSIX_ENTRY_SIZE], want[sizeof(table)];

	memset(table, 0xab, sizeof(table));
	memcpy(want, table, sizeof(table));
	memcpy(want + 2 * MSIX_ENTRY_SIZE + 12, (uint8_t[]){1, 0, 0, 0}, 4);
	msix_mask(table, 2, true);
	ck_assert(!memcmp(table, want, sizeof(table)));
	want[2 * MSIX_ENTRY_SIZE + 12] = 0;
	msix_mask(table, 2, false);
	ck_assert(!memcmp(table, want, sizeof(table)));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("uio");
	TCase *tcase = tcase_create("uio");
	SRunner *runner = srunner_create(suite);
	int nr_failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, registers_are_those_of_the_bar);
	tcase_add_test(tcase, a_function_is_master_of_the_bus_while_it_is_ours_and_quiet);
	tcase_add_test(tcase, a_function_has_one_owner);
	tcase_add_test(tcase, what_is_missing_is_told);
	tcase_add_test(tcase, a_function_that_vanishes_reads_all_ones_and_is_gone);
	tcase_add_test(tcase, memory_of_another_bar_is_mapped_once_and_has_its_address_on_the_bus);
	tcase_add_test(tcase, stopping_resets_the_function_or_takes_the_bus_from_it);
	tcase_add_test(tcase, a_function_that_the_kernel_does_not_know_any_more_is_gone);
	tcase_add_test_raise_signal(tcase, a_bus_error_elsewhere_is_one, SIGBUS);
	tcase_add_test(tcase, the_msix_table_is_found_through_the_capabilities);
	tcase_add_test(tcase, capabilities_that_make_no_sense_are_refused);
	tcase_add_test(tcase, masking_touches_one_vectors_control);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
