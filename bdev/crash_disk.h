/* Shared by crash.c (the bdev) and crash_disk.c (platter, cache and power). */
#ifndef BDEV_CRASH_DISK_H
#define BDEV_CRASH_DISK_H

#include <pthread.h>

#include "bdev/crash.h"

#define CRASH_NR_ENTRIES 32768u
#define CRASH_PAGE	 4096u
#define CRASH_ZEROES	 UINT64_MAX /* crash_entry.data of an unmap or write zeroes */

/* A write in the cache.  Entries are in the order in which they reached it. */
struct crash_entry {
	uint64_t seq;
	uint64_t offset_blocks, nr_blocks;
	uint64_t data; /* offset in the arena, or CRASH_ZEROES */
	bool in_flight; /* captured: was never completed */
};

/* What copies of a disk know of a page, so that only what differs is copied. */
struct crash_page {
	uint64_t version;      /* of its newest change, in cache or on the platter; counted by its disk */
	uint64_t copied;       /* the original's version that was copied here */
	uint64_t hash, hashed; /* of the platter, and at which version + 1 */
	bool touched;	       /* changed since it was copied, or copied with a cache that differs from the platter */
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
	uint64_t nr_performed, fail_nr, fail_end; /* operations of any kind since crash_disk_fail_nth(), and which fail */
	bool cut;
	pthread_mutex_t mutex; /* between threads of one process */
	void (*on_event)(struct crash_disk *disk, uint64_t event, void *arg);
	void *on_event_arg;
	enum crash_lie (*on_write)(const struct bdev_io *io, uint64_t *ret_offset_blocks, void *arg); /* process-local */
	void *on_write_arg;
	struct list *in_flight; /* the bdev's, process-local */
	struct bdev *bdev;	/* process-local; NULL: not shown */
	uint64_t nr_shown;	/* blocks; 0: all */
	struct crash_disk_stats stats;
	uint64_t first_entry, next_entry; /* entries[n % CRASH_NR_ENTRIES] */
	uint64_t captured_from;		  /* next_entry and arena before a capture */
	uint64_t arena_head, arena_tail, arena_size, captured_head, captured_seq;
	char *durable, *cache, *arena; /* in the mapping */
	uint64_t *durable_seq;	       /* per block: of the write that is durable there */
	struct crash_page *pages;      /* per CRASH_PAGE bytes */
	uint64_t version, image_hash;  /* of the newest change; sum of the pages' hashes */
	const struct crash_disk *original; /* what it was copied from last */
	struct crash_tape *tape;       /* records what happens; process-local */
	struct crash_entry entries[CRASH_NR_ENTRIES];
};

/* The head of bdev_io.scratch of an operation in flight. */
struct crash_flight {
	struct list link;
	uint64_t tape_io; /* its number on the tape, if there is one */
};

uint64_t crash_rand(uint64_t *state);

/* Under the mutex.  The write reaches the cache (and the platter, if durable); units of atomic_blocks of it for which keep
 * says no do not. */
void crash_disk_put(struct crash_disk *disk, const struct bdev_io *io, bool durable, bool torn);
void crash_disk_flush_to(struct crash_disk *disk, uint64_t seq);

/* crash_tape.c, under the mutex */
void crash_tape_submit(struct crash_disk *disk, struct bdev_io *io);
/* puts: the operation reaches the cache as crash_disk_put(durable, torn) or crash_disk_flush_to() says; else it failed. */
void crash_tape_done(struct crash_disk *disk, uint64_t tape_io, bool puts, bool durable, bool torn, uint64_t flush_seq);
/* As crash_tape_done(), for a write that arrives somewhere else. */
void crash_tape_strayed(struct crash_disk *disk, uint64_t tape_io, bool durable, uint64_t offset_blocks);

#endif
