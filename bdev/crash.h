/*
 * A disk that loses power: a device model with a volatile cache, for tests.
 *
 * What completed but was not flushed may be lost, may arrive in any order, and may be torn at the disk's atomic unit; so may
 * what was in flight.  The disk outlives the bdev that shows it, and its memory is one shared mapping at one address, so that
 * a test can fork, let the child run into a power cut at any write, and look at the remains from another child.
 * Everything the disk decides comes from its seed.
 */
#ifndef BDEV_CRASH_H
#define BDEV_CRASH_H

#include "bdev/bdev.h"

struct crash_disk;

struct crash_disk_opts {
	uint64_t nr_blocks;
	uint32_t block_size;
	uint32_t atomic_blocks; /* a write is torn only at multiples of this; 0: 1.  Also the bdev's write_unit_blocks */
	bool write_through;	/* no volatile cache: what completed is durable */
	bool unmap_keeps;	/* unmap may leave what was there: unmap_zeroes is false */
	uint64_t max_cache_bytes; /* what was written longest ago becomes durable by itself beyond this; 0: 64 MiB */
	uint64_t seed;
	/* faults, each in parts per million of operations */
	unsigned read_error_ppm, write_error_ppm, flush_error_ppm;
	uint64_t max_delay_us; /* an operation takes up to this long; 0: it completes in the next task */
	/* Stragglers: one in so many (0: none) of the operations in the mask (1u << enum bdev_op) takes up to this long. */
	unsigned straggler_one_in, straggler_ops;
	uint64_t straggler_us;
	bool garbage;	       /* never written blocks read as noise, as on a used drive, instead of zeroes */
};

/* NULL: no memory.  Thread: any, as are all of these. */
struct crash_disk *crash_disk_create(const struct crash_disk_opts *opts);
void crash_disk_destroy(struct crash_disk *disk);

/* The disk has so many blocks from now on, of the nr_blocks that it was made with; its bdev tells.  Thread: app. */
void crash_disk_show(struct crash_disk *disk, uint64_t nr_blocks);

/* Shows the disk as a bdev, product "Crash disk"; one at a time.  Thread: app. */
int bdev_crash_create(const char *name, struct crash_disk *disk, struct bdev **ret_bdev);

/*
 * Events: each write, unmap, write zeroes and flush submitted is one, counted from 1 over the life of the disk.
 */
uint64_t crash_disk_nr_events(const struct crash_disk *disk);
/* From event nr on (which is in flight then) nothing reaches the disk any more: everything fails with -EIO.  0: never. */
void crash_disk_cut_at(struct crash_disk *disk, uint64_t event);
bool crash_disk_is_cut(const struct crash_disk *disk);
/* Called in submit, at each event, with the operation in flight.  Process-local: set again after a fork. */
void crash_disk_on_event(struct crash_disk *disk, void (*fn)(struct crash_disk *disk, uint64_t event, void *arg), void *arg);

/* Notes what is in flight as writes that may or may not arrive, so that another process can make the remains of it; release
 * takes that back, and life goes on.  From the event function. */
void crash_disk_capture(struct crash_disk *disk);
void crash_disk_release(struct crash_disk *disk);

/* How much of the cache a power cut takes. */
enum crash_fate {
	CRASH_FATE_SEEDED,  /* one of the others */
	CRASH_FATE_LOSE_ALL, /* nothing but what is durable */
	CRASH_FATE_KEEP_ALL, /* everything completed; what was in flight is torn */
	CRASH_FATE_HALF,    /* each write, or not */
	CRASH_FATE_TORN,    /* each atomic unit of each write, or not */
	CRASH_FATE_PREFIX,  /* the first writes until some point */
	CRASH_FATE_SUFFIX,  /* the last writes from some point on */
	CRASH_FATE_ONE_LOST,
	CRASH_FATE_ONE_KEPT,
	CRASH_FATE_NR
};

const char *crash_fate_name(enum crash_fate fate);

/* Power goes and comes back: what is left is durable, and the cache is empty.  Return: the fate it was. */
enum crash_fate crash_disk_lose_power(struct crash_disk *disk, enum crash_fate fate, uint64_t seed);
/* The process dies, the disk does not: what was captured arrives in the cache or not, and the cache stays volatile. */
void crash_disk_process_died(struct crash_disk *disk, uint64_t seed);
/* This process's view becomes its own: what it does to the disk from now on nobody else sees.  In a forked child, before
 * it has a bdev. */
int crash_disk_make_private(struct crash_disk *disk);
/* Copies another's whole state, cache and all. */
void crash_disk_copy(struct crash_disk *to, const struct crash_disk *from);
/* Makes of @to what a power cut would leave of @from, which stays as it is; copies only what differs since the last time.
 * *ret_hash: of the image.  Return: the fate it was. */
enum crash_fate crash_disk_remains(struct crash_disk *to, struct crash_disk *from, enum crash_fate fate, uint64_t seed,
				   uint64_t *ret_hash);
/* No stragglers when that is 0. */
void crash_disk_set_delays(struct crash_disk *disk, uint64_t max_delay_us, unsigned straggler_one_in);
void crash_disk_set_faults(struct crash_disk *disk, unsigned read_error_ppm, unsigned write_error_ppm,
			   unsigned flush_error_ppm);
/* The nr-th operation from now on, of any kind, fails with -EIO (a write may arrive in part), and so do those that follow, count
 * in all.  0: none does. */
void crash_disk_fail_nth(struct crash_disk *disk, uint64_t nr, uint64_t count);
bool crash_disk_has_failed(const struct crash_disk *disk); /* that one has come */

/*
 * A tape records what happens to a disk; a player does it again to a copy, event by event, so that what a power cut would
 * leave at each is looked at after the run, without another process.  The copy must be as the disk was when recording began.
 */
struct crash_tape;
struct crash_player;
struct crash_tape *crash_tape_create(void);
void crash_tape_destroy(struct crash_tape *tape);
uint64_t crash_tape_nr_events(const struct crash_tape *tape);
void crash_disk_record(struct crash_disk *disk, struct crash_tape *tape); /* NULL: no more */
struct crash_player *crash_player_create(const struct crash_tape *tape, struct crash_disk *copy);
void crash_player_destroy(struct crash_player *player);
/* On to the next event, whose operation is in flight then, as in the event function.  Its number; 0: the tape is over, and
 * all of it has been played. */
uint64_t crash_player_next(struct crash_player *player);
/* What that operation is: a write of the device's first block that is to be durable at once, as roots are written; a flush. */
bool crash_player_at_root(const struct crash_player *player);
bool crash_player_at_flush(const struct crash_player *player);

/*
 * Lies, when asked for: a write is acknowledged, and is lost, or arrives where it does not belong.  fn is asked as a write
 * completes, with its first bytes; process-local, NULL: none.
 */
enum crash_lie { CRASH_HONEST, CRASH_LOST, CRASH_MISDIRECTED };
void crash_disk_on_write(struct crash_disk *disk,
			 enum crash_lie (*fn)(const struct bdev_io *io, uint64_t *ret_offset_blocks, void *arg), void *arg);

/* What a read gives now, for planting corruption: write to both through crash_disk_poke(). */
const void *crash_disk_image(const struct crash_disk *disk);
void crash_disk_poke(struct crash_disk *disk, uint64_t offset_bytes, const void *buf, size_t len);

struct crash_disk_stats {
	uint64_t nr_reads, nr_writes, nr_fua_writes, nr_flushes, nr_unmaps;
	uint64_t nr_cached; /* writes completed and not durable */
};

void crash_disk_get_stats(const struct crash_disk *disk, struct crash_disk_stats *ret_stats);

#endif
