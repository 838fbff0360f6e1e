/*
 * Registers of a BAR that is mapped, and what a bus error in one means: the function is gone.
 *
 * The handler puts memory full of ones where the BAR was and returns; the access is made again and reads what it would read
 * from a slot that is empty.  A bus error anywhere else is what it would be without us.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "nvme/mapped_bar.h"

#define WATCHES_MAX 64u

uint32_t mapped_read32(struct nvme_bar *bar, uint32_t offset)
{
	return *(volatile uint32_t *)(void *)(container_of(bar, struct mapped_bar, bar)->map + offset);
}

uint64_t mapped_read64(struct nvme_bar *bar, uint32_t offset)
{
	/* In two halves: not every function takes eight bytes at once. */
	uint32_t low = mapped_read32(bar, offset);

	return (uint64_t)mapped_read32(bar, offset + 4) << 32 | low;
}

void mapped_write32(struct nvme_bar *bar, uint32_t offset, uint32_t value)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	*(volatile uint32_t *)(void *)(container_of(bar, struct mapped_bar, bar)->map + offset) = value;
}

void mapped_write64(struct nvme_bar *bar, uint32_t offset, uint64_t value)
{
	/* What switches something on is in the lower half (CMBMSC): it goes last. */
	mapped_write32(bar, offset + 4, (uint32_t)(value >> 32));
	mapped_write32(bar, offset, (uint32_t)value);
}

uint8_t *mapped_bar_memory(struct mapped_bar *mapped, int fd, uint64_t at, unsigned bir, uint64_t offset, uint64_t len)
{
	void *memory;

	if (mapped->memory) /* a controller has one buffer, and does not move it */
		return bir == mapped->memory_bir && offset == mapped->memory_offset && len <= mapped->memory_len ? mapped->memory
														  : NULL;
	memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)at);
	if (memory == MAP_FAILED)
		return NULL;
	mapped->memory = memory;
	mapped->memory_len = len;
	mapped->memory_bir = bir;
	mapped->memory_offset = offset;
	return memory;
}

uint64_t mapped_bar_bus_addr(const char *function, unsigned bir)
{
	unsigned long long addr = 0;
	char path[300], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/resource", function);
	f = fopen(path, "re");
	if (!f)
		return 0;
	for (unsigned i = 0; i <= bir; i++) {
		if (!fgets(line, sizeof(line), f) || sscanf(line, "%llx", &addr) != 1)
			addr = 0;
	}
	fclose(f);
	return addr;
}

/* --- functions that vanish ------------------------------------------------------------------------ */

struct watch {
	struct mapped_bar *mapped; /* atomic; NULL: the place is free.  The rest is set before it. */
	char *at;
	size_t len;
};

static struct watch watches[WATCHES_MAX];
static struct sigaction before;
static bool handling;

/* In one step: nobody sees the place without either. */
static bool replace_by_ones(char *at, size_t len)
{
	void *ones = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ones == MAP_FAILED)
		return false;
	memset(ones, 0xff, len);
	return mremap(ones, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at;
}

/* In a signal handler: system calls and atomics alone. */
static void on_bus_error(int signo, siginfo_t *info, void *context)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++) {
		struct mapped_bar *mapped = __atomic_load_n(&watches[i].mapped, __ATOMIC_ACQUIRE);
		char *at = watches[i].at;

		if (!mapped || (uintptr_t)info->si_addr - (uintptr_t)at >= watches[i].len)
			continue;
		if (!replace_by_ones(at, watches[i].len))
			break;
		__atomic_store_n(&mapped->bar.removed, true, __ATOMIC_RELEASE);
		return;
	}
	/* Not ours: it happens again, to whoever handled it before. */
	sigaction(SIGBUS, &before, NULL);
}

static int handle_bus_errors(void)
{
	struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};

	if (handling)
		return 0;
	if (sigaction(SIGBUS, &action, &before))
		return -errno;
	handling = true;
	return 0;
}

int mapped_bar_watch(struct mapped_bar *mapped, void *at, size_t len)
{
	int rc = handle_bus_errors();

	for (unsigned i = 0; i < WATCHES_MAX && !rc; i++) {
		if (watches[i].mapped)
			continue;
		watches[i].at = at;
		watches[i].len = len;
		__atomic_store_n(&watches[i].mapped, mapped, __ATOMIC_RELEASE);
		return 0;
	}
	return rc ? rc : -ENOSPC;
}

static void unwatch(const struct mapped_bar *mapped)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++) {
		if (watches[i].mapped == mapped)
			__atomic_store_n(&watches[i].mapped, NULL, __ATOMIC_RELEASE);
	}
}

void mapped_bar_unmap(struct mapped_bar *mapped)
{
	unwatch(mapped);
	if (mapped->memory)
		munmap(mapped->memory, mapped->memory_len);
	if (mapped->map)
		munmap(mapped->map, mapped->map_len);
	mapped->map = mapped->memory = NULL;
}
