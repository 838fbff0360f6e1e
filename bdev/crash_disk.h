/* Shared by crash.c (the bdev) and crash_disk.c (platter, cache and power). */
#ifndef BDEV_CRASH_DISK_H
#define BDEV_CRASH_DISK_H

#include <pthread.h>

#include "bdev/crash.h"

#define CRASH_NR_ENTRIES 32768u
#define CRASH_ZEROES	 UINT64_MAX /* crash_entry.data of an unmap or write zeroes */

/* A write in the cache.  Entries are in the order in which they reached it. */
struct crash_entry {
	uint64_t seq;
	uint64_t offset_blocks, nr_blocks;
	uint64_t data; /* offset in the arena, or CRASH_ZEROES */
	bool in_flight; /* captured: was never completed */
};

/* All in one shared mapping.  Owner: any thread under mutex; other processes while the one that maps it waits. */
struct crash_disk {
	struct crash_disk_opts opts;
	int memfd;
	size_t map_len;
	uint64_t rng;
	uint64_t seq;	    /* of the newest write that reached the cache */
	uint64_t nr_events; /* submitted */
	uint64_t cut_at;
	bool cut;
	pthread_mutex_t mutex; /* between threads of one process */
	void (*on_event)(struct crash_disk *disk, uint64_t event, void *arg);
	void *on_event_arg;
	struct list *in_flight; /* the bdev's, process-local */
	struct crash_disk_stats stats;
	uint64_t first_entry, next_entry; /* entries[n % CRASH_NR_ENTRIES] */
	uint64_t captured_from;		  /* next_entry and arena before a capture */
	uint64_t arena_head, arena_tail, arena_size, captured_head;
	char *durable, *cache, *arena; /* in the mapping */
	uint64_t *durable_seq;	       /* per block: of the write that is durable there */
	struct crash_entry entries[CRASH_NR_ENTRIES];
};

uint64_t crash_rand(uint64_t *state);

/* Under the mutex.  The write reaches the cache (and the platter, if durable); units of atomic_blocks of it for which keep
 * says no do not. */
void crash_disk_put(struct crash_disk *disk, const struct bdev_io *io, bool durable, bool torn);
void crash_disk_flush_to(struct crash_disk *disk, uint64_t seq);

#endif
