/* The memory budget: what the options come to, and whether the machine has it. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/budget.h"
#include "runtime/internal.h"

#define HUGEPAGES_DIR	  "/sys/kernel/mm/hugepages"
#define MEM_DEFAULT_MIB	  512u
#define MEM_BESIDES_MIB	  64u /* at least, for all that is no pool buffer */
#define NR_SMALL_DEFAULT  2048u
#define NR_LARGE_DEFAULT  512u
#define MIB		  (1024ull * 1024)

static uint64_t read_number(const char *path)
{
	unsigned long long number = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	if (fscanf(file, "%llu", &number) != 1)
		number = 0;
	fclose(file);
	return number;
}

uint64_t budget_free_hugepages_mib(void)
{
	DIR *dir = opendir(HUGEPAGES_DIR);
	struct dirent *entry;
	uint64_t total_kib = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		unsigned long long page_kib;
		char path[512];

		if (sscanf(entry->d_name, "hugepages-%llukB", &page_kib) != 1)
			continue;
		snprintf(path, sizeof(path), HUGEPAGES_DIR "/%s/free_hugepages", entry->d_name);
		total_kib += read_number(path) * page_kib;
	}
	closedir(dir);
	return total_kib / 1024;
}

static uint64_t available_mib(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[256];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	fclose(file);
	return kib / 1024;
}

static unsigned pool_mib(const struct budget *budget)
{
	uint64_t bytes = (uint64_t)budget->nr_small * IOBUF_SMALL_SIZE + (uint64_t)budget->nr_large * IOBUF_LARGE_SIZE;

	return (unsigned)((bytes + MIB - 1) / MIB);
}

static void fill_in(const struct runtime_opts *opts, struct budget *budget)
{
	budget->nr_small = opts->nr_small;
	budget->nr_large = opts->nr_large;
	budget->mem_mib = opts->mem_mib;
	if (!budget->mem_mib && budget->nr_small && budget->nr_large)
		budget->mem_mib = pool_mib(budget) + MEM_DEFAULT_MIB / 2;
	if (!budget->mem_mib)
		budget->mem_mib = MEM_DEFAULT_MIB;
	if (!budget->nr_small)
		budget->nr_small = (unsigned)(budget->mem_mib * MIB / 4 / IOBUF_SMALL_SIZE);
	if (!budget->nr_large)
		budget->nr_large = (unsigned)(budget->mem_mib * MIB / 4 / IOBUF_LARGE_SIZE);
}

static int check_machine(const struct budget *budget)
{
	uint64_t have_mib = budget->no_huge ? available_mib() : budget_free_hugepages_mib();

	if (budget->mem_mib <= have_mib)
		return 0;
	log_error("the memory budget is %u MiB (%u MiB of pool buffers), the machine has %llu MiB of %s free: give less "
		  "with --mem, or %s",
		  budget->mem_mib, pool_mib(budget), (unsigned long long)have_mib,
		  budget->no_huge ? "memory" : "hugepages",
		  budget->no_huge ? "add memory" : "reserve more hugepages, or use --no-huge");
	return -ENOMEM;
}

int budget_compute(const struct runtime_opts *opts, struct budget *ret_budget)
{
	struct budget budget = { .no_huge = opts->no_huge };

	if (!opts->eal) {
		budget.nr_small = opts->nr_small ? opts->nr_small : NR_SMALL_DEFAULT;
		budget.nr_large = opts->nr_large ? opts->nr_large : NR_LARGE_DEFAULT;
		*ret_budget = budget;
		return 0;
	}
	fill_in(opts, &budget);
	if (pool_mib(&budget) + MEM_BESIDES_MIB > budget.mem_mib) {
		log_error("the memory budget of %u MiB is too small: %u buffers of %u bytes and %u of %u need %u MiB, and "
			  "%u MiB must be left for the rest",
			  budget.mem_mib, budget.nr_small, IOBUF_SMALL_SIZE, budget.nr_large, IOBUF_LARGE_SIZE,
			  pool_mib(&budget), MEM_BESIDES_MIB);
		return -EINVAL;
	}
	if (!budget.no_huge && !budget_free_hugepages_mib()) {
		log_notice("no hugepages are free: using ordinary memory");
		budget.no_huge = true;
	}
	*ret_budget = budget;
	return check_machine(&budget);
}
