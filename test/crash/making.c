/* What a seed makes of a history: the disk, the store's geometry, and the load. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lvol/lvol.h"
#include "test/crash/history.h"

static void choose_disk(struct history *h, uint64_t *rng)
{
	static const uint64_t mib = 1024 * 1024;
	struct crash_disk_opts *d = &h->disk_opts;
	bool small = h->seed % 8 < 6 || history_rand(rng) % 2;

	*d = (struct crash_disk_opts){ .block_size = 512, .seed = h->seed, .garbage = true };
	d->atomic_blocks = history_rand(rng) % 4 ? 1 : 8;
	d->unmap_keeps = history_rand(rng) % 4 == 0;
	d->write_through = history_rand(rng) % 10 == 0;
	d->max_delay_us = 1 + history_rand(rng) % 300;
	d->nr_blocks = (small ? 2 : 4 + history_rand(rng) % 3 * 4) * mib / d->block_size;
	d->max_cache_bytes = (small ? 4 : 16) * mib;
	if (history_rand(rng) % 4) { /* an adversarial order of completions */
		d->straggler_one_in = 2 + history_rand(rng) % 6;
		d->straggler_ops = history_rand(rng) % (1u << BDEV_NR_OPS);
		d->straggler_us = 500 << history_rand(rng) % 5;
	}
	h->cluster_bytes = small ? 32768 : 32768u << history_rand(rng) % 2;
	h->journal_pages = small ? 8 : 8u << history_rand(rng) % 3;
	while (h->journal_pages * 4096ull * 32 > d->nr_blocks * d->block_size / 4 * 3 && h->journal_pages > 8)
		h->journal_pages /= 2;
	h->leaf_shift = small ? 2 : 2 + history_rand(rng) % 3;
	h->inner_shift = small ? 2 : 1 + history_rand(rng) % 3;
	h->max_blocks = small ? 512 : 512u << history_rand(rng) % 2;
	h->small_io = small;
}

static void choose_load(struct history *h, uint64_t *rng)
{
	h->nr_threads = 1 + history_rand(rng) % 3;
	h->nr_fibers = history_rand(rng) % 2 ? 2 + history_rand(rng) % 3 : 6 + history_rand(rng) % 6;
	h->nr_ops = 60 + history_rand(rng) % 160;
	/* Few of either: commits are large, and their journal pages full. */
	h->flush_percent = history_rand(rng) % 2 ? 12 : history_rand(rng) % 2 ? 2 : 40;
	h->fua_one_in = history_rand(rng) % 2 ? 6 : 40;
	/* Much I/O while few volumes change, or the other way round. */
	h->pause_us = history_rand(rng) % 3 ? 200 * h->nr_threads * h->nr_fibers : 200;
	h->control_pause_us = history_rand(rng) % 3 ? 400 : 40;
	h->nr_controls = history_rand(rng) % 2 ? 1 : 2 + history_rand(rng) % 3;
	h->io_blocks = 12;
	h->near_percent = 33;
	h->unmap_percent = 11;
	h->unmap_blocks = history_rand(rng) % 2 ? 12 : 48;
	h->cluster_one_in = 8;
}

static void straggle(struct history *h, unsigned ops, unsigned one_in, uint64_t us)
{
	h->disk_opts.max_delay_us = 20;
	h->disk_opts.straggler_ops = ops;
	h->disk_opts.straggler_one_in = one_in;
	h->disk_opts.straggler_us = us;
}

/* A few clusters that come and go all the time, under reads, unmaps, or first writes that take long. */
static void choose_hot(struct history *h, bool reads)
{
	straggle(h, 1u << (!reads ? BDEV_WRITE : h->seed / 8 % 2 ? BDEV_UNMAP : BDEV_READ), 2, reads ? 20000 : 2000);
	h->max_blocks = reads ? 128 : 64;
	h->unmap_percent = 30;
	h->unmap_blocks = 32;
	h->io_blocks = 8;
	h->cluster_one_in = reads ? 2 : 16;
	h->flush_percent = 20;
	h->pause_us = 200;
	h->control_pause_us = 4000;
	h->taste = TASTE_FEW;
}

/* The same places are written over and over with FUA, or flushed, from one thread or few. */
static void choose_overwrites(struct history *h, bool fua)
{
	straggle(h, 1u << BDEV_FLUSH | 1u << BDEV_WRITE, 3, 1000);
	h->disk_opts.write_through = false;
	h->checksums = false;
	h->max_blocks = 128;
	h->io_blocks = 4;
	h->near_percent = 90;
	h->nr_threads = 1 + h->seed % 2;
	h->nr_fibers = 12;
	h->flush_percent = fua ? 3 : 30;
	h->fua_one_in = fua ? 1 : 40;
	h->unmap_percent = 1;
	h->cluster_one_in = 16;
	h->pause_us = 100;
	h->control_pause_us = 10000;
	h->taste = TASTE_FEW;
}

/* Snapshots all the time, under overwrites that take long. */
static void choose_snapshots(struct history *h)
{
	straggle(h, 1u << BDEV_WRITE, 4, 5000);
	h->max_blocks = 128;
	h->nr_threads = 2 + h->seed % 2;
	h->nr_fibers = 6;
	h->flush_percent = 5;
	h->unmap_blocks = 48;
	h->pause_us = 100;
	h->control_pause_us = 300;
	h->taste = TASTE_SNAPSHOTS;
}

/* Many attributes at once, so that a commit is of several pages. */
static void choose_attributes(struct history *h)
{
	straggle(h, 1u << BDEV_FLUSH, 2, 500);
	h->max_blocks = 128;
	h->nr_controls = 8;
	h->nr_threads = 1;
	h->nr_fibers = 2;
	h->control_pause_us = 20;
	h->taste = TASTE_ATTRIBUTES;
}

/* Volumes that are made of each other, while I/O goes on. */
static void choose_copies(struct history *h)
{
	h->max_blocks = 2 * h->cluster_bytes / ORACLE_BLOCK;
	h->nr_controls = 3;
	h->nr_fibers = 4;
	h->flush_percent = 5;
	h->control_pause_us = 200;
	h->cluster_one_in = 4;
	h->taste = TASTE_COPIES;
}

/* Each kind in turn; half of the last ones are of any kind. */
static void choose_kind(struct history *h)
{
	switch (h->seed % 8) {
	case 0:
		choose_snapshots(h);
		break;
	case 1:
		choose_hot(h, true);
		break;
	case 2:
		choose_overwrites(h, true);
		break;
	case 3:
		choose_attributes(h);
		break;
	case 4:
		choose_hot(h, false);
		break;
	case 5:
		choose_overwrites(h, false);
		break;
	default:
		if (h->seed / 8 % 2 == 0)
			choose_copies(h);
		break;
	}
}

void history_make(struct history *h, uint64_t seed, bool verbose)
{
	uint64_t rng = seed * 0x2545f4914f6cdd1dull;
	const struct crash_disk_opts *d = &h->disk_opts;

	memset(h, 0, sizeof(*h));
	h->seed = seed;
	h->verbose = verbose;
	choose_disk(h, &rng);
	choose_load(h, &rng);
	h->checksums = history_rand(&rng) % 4 == 0;
	h->map_cache_bytes = (uint64_t[]){ 16u << 20, 1, 4000 }[history_rand(&rng) % 3];
	lvol_set_map_cache(h->map_cache_bytes, true);
	choose_kind(h);
	if (seed % 8 == 6)
		h->lies = LIES_LOST;
	if (seed % 8 == 7)
		h->lies = seed / 8 % 3 ? seed / 8 % 2 ? LIES_ROT : LIES_MISDIRECTED : LIES_NONE;
	if (verbose)
		printf("seed %lu: %lu MiB, atomic %u, %s%s, delays to %lu us, 1 in %u of %x to %lu; clusters of %u, journal of %u "
		       "pages, leaves 2^%u, inner 2^%u; %u threads of %u fibers, %u operations, %u%% flushes, FUA 1 in %u, volumes "
		       "to %lu blocks, map cache of %lu bytes%s\n",
		       (unsigned long)seed, (unsigned long)(d->nr_blocks * d->block_size >> 20), d->atomic_blocks,
		       d->write_through ? "write-through" : "write-back", d->unmap_keeps ? ", unmap keeps" : "",
		       (unsigned long)d->max_delay_us, d->straggler_one_in, d->straggler_ops, (unsigned long)d->straggler_us,
		       h->cluster_bytes, h->journal_pages, h->leaf_shift, h->inner_shift, h->nr_threads, h->nr_fibers, h->nr_ops,
		       h->flush_percent, h->fua_one_in, (unsigned long)h->max_blocks, (unsigned long)h->map_cache_bytes,
		       h->checksums ? "; checksums" : "");
	h->disk = crash_disk_create(d);
	h->oracle = oracle_create(h->max_blocks, 8192);
	h->oracle->cluster_blocks = h->cluster_bytes / ORACLE_BLOCK;
	oracle_store_init(h->oracle, "store", seed / 3 % 2 ? d->nr_blocks : d->nr_blocks / 4 * 3, outside_blocks(h->max_blocks));
	if (!h->disk) {
		fprintf(stderr, "no memory for a history\n");
		exit(2);
	}
}

void history_unmake(struct history *h)
{
	crash_disk_destroy(h->disk);
	oracle_destroy(h->oracle);
}
