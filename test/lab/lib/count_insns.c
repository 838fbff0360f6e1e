/*
 * A QEMU plugin that counts how often each block of the guest's user mode code runs while a file exists, and writes "address
 * instructions times" at the end.  Meanwhile each block also costs the guest time, so that its drives are never what it waits for.
 *
 * gcc -shared -fPIC; arguments: out=FILE while=FILE.  QEMU 7.2 and its successors, whose header no Debian package carries: what is
 * used of the interface (docs/devel/tcg-plugins) is declared here.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*cb)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*cb)(unsigned vcpu, void *arg), int flags, void *arg);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*cb)(uint64_t id, void *arg), void *arg);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION 1
#endif
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

#define USER_END   (1ull << 47)
#define NR_BUCKETS (1u << 18)
#define SLOW_TURNS 200

struct block {
	uint64_t address, nr_insns;
	uint64_t nr_runs; /* atomic */
	struct block *next;
};

static struct block *buckets[NR_BUCKETS]; /* under lock; blocks are never freed */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *out_path, *while_path;
static bool counting; /* atomic */

static void block_ran(unsigned vcpu, void *arg)
{
	struct block *block = arg;

	(void)vcpu;
	if (!__atomic_load_n(&counting, __ATOMIC_RELAXED))
		return;
	__atomic_fetch_add(&block->nr_runs, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < SLOW_TURNS; i++)
		__builtin_ia32_pause();
}

/* The same code is translated more than once; it counts as one. */
static struct block *block_get(uint64_t address, uint64_t nr_insns)
{
	struct block **head = &buckets[(address * 0x9e3779b97f4a7c15ull + nr_insns) >> 46];
	struct block *block;

	pthread_mutex_lock(&lock);
	for (block = *head; block && (block->address != address || block->nr_insns != nr_insns); block = block->next)
		;
	if (!block && (block = calloc(1, sizeof(*block)))) {
		*block = (struct block){.address = address, .nr_insns = nr_insns, .next = *head};
		*head = block;
	}
	pthread_mutex_unlock(&lock);
	return block;
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	struct block *block;

	(void)id;
	if (address >= USER_END)
		return;
	block = block_get(address, qemu_plugin_tb_n_insns(tb));
	if (block)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, block_ran, 0, block);
}

static void *watch(void *arg)
{
	(void)arg;
	for (;; usleep(20000))
		__atomic_store_n(&counting, access(while_path, F_OK) == 0, __ATOMIC_RELAXED);
	return NULL;
}

static void finished(uint64_t id, void *arg)
{
	FILE *f = fopen(out_path, "w");

	(void)id;
	(void)arg;
	if (!f)
		return;
	for (unsigned i = 0; i < NR_BUCKETS; i++) {
		for (struct block *b = buckets[i]; b; b = b->next) {
			if (b->nr_runs)
				fprintf(f, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->address, b->nr_insns, b->nr_runs);
		}
	}
	fclose(f);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	pthread_t thread;

	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			out_path = strdup(argv[i] + 4);
		else if (!strncmp(argv[i], "while=", 6))
			while_path = strdup(argv[i] + 6);
	}
	if (!out_path || !while_path || pthread_create(&thread, NULL, watch, NULL))
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finished, NULL);
	return 0;
}
