/*
 * The disk behind bdev/crash.c: a platter, a volatile cache of writes in the order in which they reached it, and what a
 * power cut leaves of them.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bdev/crash_disk.h"
#include "bdev/leaf.h"

#define DEFAULT_CACHE (64ull * 1024 * 1024)
#define PAGE_UP(n)    (((n) + 4095) & ~4095ull)

uint64_t crash_rand(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t disk_bytes(const struct crash_disk *disk)
{
	return disk->opts.nr_blocks * disk->opts.block_size;
}

struct crash_disk *crash_disk_create(const struct crash_disk_opts *opts)
{
	uint64_t bytes = PAGE_UP(opts->nr_blocks * opts->block_size), seqs = PAGE_UP(opts->nr_blocks * sizeof(uint64_t));
	uint64_t arena = opts->max_cache_bytes ? PAGE_UP(opts->max_cache_bytes) : DEFAULT_CACHE;
	uint64_t head = PAGE_UP(sizeof(struct crash_disk));
	uint64_t pages = PAGE_UP(bytes / CRASH_PAGE * sizeof(struct crash_page));
	size_t len = head + 2 * bytes + seqs + pages + arena;
	struct crash_disk *disk;
	int fd = memfd_create("crash-disk", MFD_CLOEXEC);
	uint64_t rng;

	if (fd < 0)
		return NULL;
	disk = ftruncate(fd, len) ? MAP_FAILED : mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (disk == MAP_FAILED) {
		close(fd);
		return NULL;
	}
	disk->opts = *opts;
	if (!disk->opts.atomic_blocks)
		disk->opts.atomic_blocks = 1;
	disk->memfd = fd;
	disk->map_len = len;
	disk->rng = opts->seed;
	disk->durable = (char *)disk + head;
	disk->cache = disk->durable + bytes;
	disk->durable_seq = (uint64_t *)(void *)(disk->cache + bytes);
	disk->pages = (struct crash_page *)(void *)((char *)disk->durable_seq + seqs);
	disk->arena = (char *)disk->pages + pages;
	disk->arena_size = arena;
	pthread_mutex_init(&disk->mutex, NULL);
	if (opts->garbage) {
		rng = opts->seed ^ 0x6761726261676521ull;
		for (uint64_t i = 0; i < bytes / 8; i++)
			((uint64_t *)(void *)disk->durable)[i] = crash_rand(&rng);
		memcpy(disk->cache, disk->durable, bytes);
	}
	return disk;
}

void crash_disk_destroy(struct crash_disk *disk)
{
	if (!disk)
		return;
	close(disk->memfd);
	munmap(disk, disk->map_len);
}

/* --- the cache --- */

static struct crash_entry *entry(struct crash_disk *disk, uint64_t n)
{
	return &disk->entries[n % CRASH_NR_ENTRIES];
}

/* One block of an entry, whose data is in from's arena. */
static void block_copy(char *image, const struct crash_disk *from, const struct crash_entry *e, uint64_t block)
{
	uint32_t bs = from->opts.block_size;
	char *to = image + block * bs;

	if (e->data == CRASH_ZEROES)
		memset(to, 0, bs);
	else
		memcpy(to, from->arena + e->data + (block - e->offset_blocks) * bs, bs);
}

static void page_changed(struct crash_disk *disk, uint64_t page)
{
	disk->pages[page].version = ++disk->version;
	disk->pages[page].touched = true;
}

static void block_cache(struct crash_disk *disk, const struct crash_entry *e, uint64_t block)
{
	block_copy(disk->cache, disk, e, block);
	page_changed(disk, block * disk->opts.block_size / CRASH_PAGE);
}

static void block_arrive(struct crash_disk *disk, const struct crash_disk *from, const struct crash_entry *e, uint64_t block)
{
	if (e->seq < disk->durable_seq[block])
		return; /* a later write got there with FUA */
	block_copy(disk->durable, from, e, block);
	disk->durable_seq[block] = e->seq;
	page_changed(disk, block * disk->opts.block_size / CRASH_PAGE);
}

static void block_harden(struct crash_disk *disk, const struct crash_entry *e, uint64_t block)
{
	block_arrive(disk, disk, e, block);
}

static void oldest_harden(struct crash_disk *disk)
{
	struct crash_entry *e = entry(disk, disk->first_entry++);

	for (uint64_t b = e->offset_blocks; b < e->offset_blocks + e->nr_blocks; b++)
		block_harden(disk, e, b);
	if (e->data != CRASH_ZEROES)
		disk->arena_tail = e->data + e->nr_blocks * disk->opts.block_size;
	if (disk->first_entry == disk->next_entry)
		disk->arena_head = disk->arena_tail = 0;
}

void crash_disk_flush_to(struct crash_disk *disk, uint64_t seq)
{
	while (disk->first_entry < disk->next_entry && entry(disk, disk->first_entry)->seq <= seq)
		oldest_harden(disk);
}

/* Room for len bytes in the arena, a ring; the oldest writes become durable to make it. */
static uint64_t arena_take(struct crash_disk *disk, uint64_t len)
{
	uint64_t at;

	assert(len < disk->arena_size / 2);
	for (;;) {
		bool empty = disk->first_entry == disk->next_entry;

		if (empty)
			disk->arena_head = disk->arena_tail = 0;
		if (disk->arena_head >= disk->arena_tail) {
			if (disk->arena_size - disk->arena_head >= len)
				break;
			if (disk->arena_tail > len || empty) {
				disk->arena_head = 0;
				break;
			}
		} else if (disk->arena_tail - disk->arena_head > len) {
			break;
		}
		oldest_harden(disk);
	}
	at = disk->arena_head;
	disk->arena_head += len;
	return at;
}

/* A new entry with the operation's data, not yet applied to anything. */
static struct crash_entry *entry_add(struct crash_disk *disk, const struct bdev_io *io)
{
	struct crash_entry e = { .offset_blocks = io->offset_blocks, .nr_blocks = io->nr_blocks, .data = CRASH_ZEROES };

	if (io->op == BDEV_WRITE) {
		e.data = arena_take(disk, io->nr_blocks * disk->opts.block_size);
		leaf_copy_in(disk->arena + e.data, io->iov, io->iovcnt);
	}
	while (disk->next_entry - disk->first_entry >= CRASH_NR_ENTRIES)
		oldest_harden(disk);
	e.seq = ++disk->seq;
	*entry(disk, disk->next_entry) = e;
	return entry(disk, disk->next_entry++);
}

/* Whether an unmap of this disk does something to a unit. */
static bool unmap_acts(struct crash_disk *disk, const struct bdev_io *io)
{
	return io->op != BDEV_UNMAP || !disk->opts.unmap_keeps || crash_rand(&disk->rng) % 2;
}

/* Splits a torn write into entries of one unit each, of which each arrives or not. */
static void put_units(struct crash_disk *disk, const struct bdev_io *io, bool durable)
{
	uint64_t end = io->offset_blocks + io->nr_blocks, unit = disk->opts.atomic_blocks, next;
	struct crash_entry whole = *entry_add(disk, io);

	disk->next_entry--;
	for (uint64_t b = io->offset_blocks; b < end; b = next) {
		struct crash_entry *e;

		next = (b / unit + 1) * unit;
		if (next > end)
			next = end;
		if (crash_rand(&disk->rng) % 2 || !unmap_acts(disk, io))
			continue;
		while (disk->next_entry - disk->first_entry >= CRASH_NR_ENTRIES)
			oldest_harden(disk);
		e = entry(disk, disk->next_entry++);
		*e = whole;
		e->offset_blocks = b;
		e->nr_blocks = next - b;
		if (whole.data != CRASH_ZEROES)
			e->data = whole.data + (b - whole.offset_blocks) * disk->opts.block_size;
		for (uint64_t i = b; i < next; i++) {
			block_cache(disk, e, i);
			if (durable)
				block_harden(disk, e, i);
		}
	}
}

void crash_disk_put(struct crash_disk *disk, const struct bdev_io *io, bool durable, bool torn)
{
	struct crash_entry *e;

	if (torn || (io->op == BDEV_UNMAP && disk->opts.unmap_keeps)) {
		put_units(disk, io, durable);
		return;
	}
	e = entry_add(disk, io);
	for (uint64_t b = e->offset_blocks; b < e->offset_blocks + e->nr_blocks; b++) {
		block_cache(disk, e, b);
		if (durable)
			block_harden(disk, e, b);
	}
}

/* --- power --- */

void crash_disk_capture(struct crash_disk *disk)
{
	struct list *it;

	disk->captured_from = disk->next_entry;
	disk->captured_head = disk->arena_head;
	disk->captured_seq = disk->seq;
	if (!disk->in_flight)
		return;
	list_for_each(it, disk->in_flight) {
		struct bdev_io *io = container_of((char *)it, struct bdev_io, scratch.bytes[0]);

		if (io->op == BDEV_WRITE || io->op == BDEV_UNMAP || io->op == BDEV_WRITE_ZEROES)
			entry_add(disk, io)->in_flight = true;
	}
}

void crash_disk_release(struct crash_disk *disk)
{
	if (disk->next_entry == disk->captured_from)
		return;
	assert(disk->first_entry <= disk->captured_from);
	disk->next_entry = disk->captured_from;
	disk->arena_head = disk->captured_head;
	disk->seq = disk->captured_seq;
}

/* All that an entry is about. */
static void pages_changed(struct crash_disk *disk, const struct crash_entry *e)
{
	uint64_t bs = disk->opts.block_size;

	for (uint64_t i = e->offset_blocks * bs / CRASH_PAGE; i * CRASH_PAGE < (e->offset_blocks + e->nr_blocks) * bs; i++)
		page_changed(disk, i);
}

struct fate {
	enum crash_fate kind;
	uint64_t nr, pick, rng;
};

static bool keeps_entry(struct fate *f, uint64_t i)
{
	switch (f->kind) {
	case CRASH_FATE_LOSE_ALL:
		return false;
	case CRASH_FATE_HALF:
		return crash_rand(&f->rng) % 2;
	case CRASH_FATE_PREFIX:
		return i < f->pick;
	case CRASH_FATE_SUFFIX:
		return i >= f->pick;
	case CRASH_FATE_ONE_LOST:
		return i != f->pick;
	case CRASH_FATE_ONE_KEPT:
		return i == f->pick;
	default:
		return true;
	}
}

static void entry_fate(struct crash_disk *to, struct crash_disk *from, struct fate *f, uint64_t i)
{
	const struct crash_entry *e = entry(from, from->first_entry + i);
	uint64_t end = e->offset_blocks + e->nr_blocks, unit = from->opts.atomic_blocks, next;
	bool keep = keeps_entry(f, i), torn = e->in_flight || f->kind == CRASH_FATE_TORN;
	uint64_t style, cut;

	/* What was in flight may arrive in part whatever happens to the rest, but not when all is lost. */
	if (!keep && !(e->in_flight && f->kind != CRASH_FATE_LOSE_ALL && f->kind != CRASH_FATE_ONE_KEPT))
		return;
	if (torn && crash_rand(&f->rng) % 3 == 0)
		torn = false; /* the whole of it */
	style = crash_rand(&f->rng) % 4;
	cut = e->offset_blocks + crash_rand(&f->rng) % e->nr_blocks;
	for (uint64_t b = e->offset_blocks; b < end; b = next) {
		next = (b / unit + 1) * unit;
		if (next > end)
			next = end;
		/* Its beginning arrives, or its end, or each unit or not. */
		if (torn && (style == 0 ? b > cut : style == 1 ? b < cut : crash_rand(&f->rng) % 2))
			continue;
		for (uint64_t k = b; k < next; k++)
			block_arrive(to, from, e, k);
	}
}

static struct fate fate_make(const struct crash_disk *disk, enum crash_fate kind, uint64_t seed)
{
	struct fate f = { .kind = kind, .nr = disk->next_entry - disk->first_entry, .rng = seed };

	if (kind == CRASH_FATE_SEEDED)
		f.kind = 1 + crash_rand(&f.rng) % (CRASH_FATE_NR - 1);
	f.pick = f.nr ? crash_rand(&f.rng) % f.nr : 0;
	return f;
}

/* An empty cache; nobody holds the disk. */
static void power_on(struct crash_disk *disk)
{
	disk->first_entry = disk->next_entry;
	disk->arena_head = disk->arena_tail = 0;
	disk->in_flight = NULL;
	disk->bdev = NULL;
	disk->cut = false;
	disk->cut_at = 0;
	disk->on_event = NULL;
	disk->on_write = NULL;
	disk->tape = NULL;
	pthread_mutex_init(&disk->mutex, NULL); /* the process that held it is no more */
}

enum crash_fate crash_disk_lose_power(struct crash_disk *disk, enum crash_fate kind, uint64_t seed)
{
	struct fate f = fate_make(disk, kind, seed);

	for (uint64_t i = 0; i < f.nr; i++)
		entry_fate(disk, disk, &f, i);
	/* Only where writes were in the cache do the two differ. */
	for (uint64_t i = disk->first_entry; i < disk->next_entry; i++) {
		uint64_t at = entry(disk, i)->offset_blocks * disk->opts.block_size;

		memcpy(disk->cache + at, disk->durable + at, entry(disk, i)->nr_blocks * disk->opts.block_size);
		pages_changed(disk, entry(disk, i));
	}
	power_on(disk);
	return f.kind;
}

void crash_disk_process_died(struct crash_disk *disk, uint64_t seed)
{
	uint64_t rng = seed, kept = disk->captured_from;

	for (uint64_t i = disk->captured_from; i < disk->next_entry; i++) {
		struct crash_entry e = *entry(disk, i);

		if (crash_rand(&rng) % 2)
			continue;
		e.in_flight = false;
		*entry(disk, kept++) = e;
		for (uint64_t b = e.offset_blocks; b < e.offset_blocks + e.nr_blocks; b++) {
			block_cache(disk, &e, b);
			if (disk->opts.write_through)
				block_harden(disk, &e, b);
		}
	}
	disk->next_entry = kept;
	disk->in_flight = NULL;
	disk->bdev = NULL;
	disk->on_event = NULL;
	pthread_mutex_init(&disk->mutex, NULL);
}

/* --- copies --- */

static uint64_t page_hash(const char *at, uint64_t page)
{
	uint64_t h[4] = { page, page + 1, page + 2, page + 3 }, w[4];

	for (unsigned i = 0; i < CRASH_PAGE; i += sizeof(w)) {
		memcpy(w, at + i, sizeof(w));
		for (unsigned k = 0; k < 4; k++) {
			h[k] = (h[k] ^ w[k]) * 0x9fb21c651e98df25ull;
			h[k] ^= h[k] >> 32;
		}
	}
	return crash_rand(&h[0]) + crash_rand(&h[1]) * 3 + crash_rand(&h[2]) * 5 + crash_rand(&h[3]) * 7;
}

static void page_rehash(struct crash_disk *disk, uint64_t page)
{
	struct crash_page *p = &disk->pages[page];

	if (p->hashed == p->version + 1)
		return;
	disk->image_hash -= p->hash;
	p->hash = page_hash(disk->durable + page * CRASH_PAGE, page);
	p->hashed = p->version + 1;
	disk->image_hash += p->hash;
}

/* A page of the original, with what its cache has, or as if that was lost. */
static void page_copy(struct crash_disk *to, const struct crash_disk *from, uint64_t page, bool cache)
{
	const struct crash_page *f = &from->pages[page];
	uint64_t at = page * CRASH_PAGE, bs = from->opts.block_size;
	struct crash_page *p = &to->pages[page];

	memcpy(to->durable + at, from->durable + at, CRASH_PAGE);
	memcpy(to->cache + at, (cache ? from->cache : from->durable) + at, CRASH_PAGE);
	memcpy(to->durable_seq + at / bs, from->durable_seq + at / bs, CRASH_PAGE / bs * sizeof(to->durable_seq[0]));
	p->touched = false;
	p->copied = f->version;
	p->version = ++to->version;
	to->image_hash += f->hash - p->hash;
	p->hash = f->hash;
	p->hashed = f->hashed == f->version + 1 ? p->version + 1 : 0;
}

/* Those that are not here as they are there. */
static void pages_copy(struct crash_disk *to, const struct crash_disk *from, bool cache)
{
	bool all = to->original != from;

	assert(to->map_len == from->map_len);
	for (uint64_t i = 0; i < disk_bytes(from) / CRASH_PAGE; i++)
		if (all || to->pages[i].touched || to->pages[i].copied != from->pages[i].version)
			page_copy(to, from, i, cache);
	to->original = from;
}

static void entries_copy(struct crash_disk *to, const struct crash_disk *from)
{
	for (uint64_t n = from->first_entry; n < from->next_entry; n++) {
		const struct crash_entry *e = &from->entries[n % CRASH_NR_ENTRIES];
		uint64_t bs = from->opts.block_size, end = (e->offset_blocks + e->nr_blocks) * bs;

		*entry(to, n) = *e;
		if (e->data != CRASH_ZEROES)
			memcpy(to->arena + e->data, from->arena + e->data, e->nr_blocks * bs);
		/* Here alone can cache and platter differ. */
		for (uint64_t i = e->offset_blocks * bs / CRASH_PAGE; i * CRASH_PAGE < end; i++) {
			page_copy(to, from, i, true);
			to->pages[i].touched = true;
		}
	}
}

void crash_disk_copy(struct crash_disk *to, const struct crash_disk *from)
{
	pages_copy(to, from, true);
	to->opts = from->opts;
	to->rng = from->rng;
	to->seq = from->seq;
	to->nr_events = from->nr_events;
	to->cut_at = from->cut_at;
	to->cut = from->cut;
	to->nr_performed = from->nr_performed;
	to->fail_nr = from->fail_nr;
	to->fail_end = from->fail_end;
	to->stats = from->stats;
	to->first_entry = from->first_entry;
	to->next_entry = from->next_entry;
	to->captured_from = from->captured_from;
	to->arena_head = from->arena_head;
	to->arena_tail = from->arena_tail;
	to->captured_head = from->captured_head;
	to->captured_seq = from->captured_seq;
	to->in_flight = NULL;
	to->bdev = NULL;
	to->nr_shown = from->nr_shown;
	to->on_event = NULL;
	to->on_write = NULL;
	to->tape = NULL;
	pthread_mutex_init(&to->mutex, NULL);
	entries_copy(to, from);
}

enum crash_fate crash_disk_remains(struct crash_disk *to, struct crash_disk *from, enum crash_fate kind, uint64_t seed,
				   uint64_t *ret_hash)
{
	struct fate f = fate_make(from, kind, seed);
	uint64_t nr_pages = disk_bytes(from) / CRASH_PAGE;

	for (uint64_t i = 0; i < nr_pages; i++)
		page_rehash(from, i);
	pages_copy(to, from, false);
	to->opts = from->opts;
	to->nr_shown = from->nr_shown;
	to->seq = from->seq;
	to->nr_events = from->nr_events;
	to->rng = seed;
	to->fail_nr = 0;
	for (uint64_t i = 0; i < f.nr; i++)
		entry_fate(to, from, &f, i);
	for (uint64_t i = 0; i < nr_pages; i++)
		if (to->pages[i].touched) {
			memcpy(to->cache + i * CRASH_PAGE, to->durable + i * CRASH_PAGE, CRASH_PAGE);
			page_rehash(to, i);
		}
	power_on(to);
	*ret_hash = to->image_hash;
	return f.kind;
}

int crash_disk_make_private(struct crash_disk *disk)
{
	void *map = mmap(disk, disk->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, disk->memfd, 0);

	if (map == MAP_FAILED)
		return -1;
	pthread_mutex_init(&disk->mutex, NULL);
	return 0;
}

/* --- looking and meddling --- */

const char *crash_fate_name(enum crash_fate fate)
{
	static const char *const names[] = {
		[CRASH_FATE_SEEDED] = "seeded",	    [CRASH_FATE_LOSE_ALL] = "lose all", [CRASH_FATE_KEEP_ALL] = "keep all",
		[CRASH_FATE_HALF] = "half",	    [CRASH_FATE_TORN] = "torn",		[CRASH_FATE_PREFIX] = "prefix",
		[CRASH_FATE_SUFFIX] = "suffix",	    [CRASH_FATE_ONE_LOST] = "one lost", [CRASH_FATE_ONE_KEPT] = "one kept",
	};

	return fate < CRASH_FATE_NR ? names[fate] : "?";
}

uint64_t crash_disk_nr_events(const struct crash_disk *disk)
{
	return disk->nr_events;
}

void crash_disk_cut_at(struct crash_disk *disk, uint64_t event)
{
	disk->cut_at = event;
}

bool crash_disk_is_cut(const struct crash_disk *disk)
{
	return disk->cut;
}

void crash_disk_on_write(struct crash_disk *disk,
			 enum crash_lie (*fn)(const struct bdev_io *io, uint64_t *ret_offset_blocks, void *arg), void *arg)
{
	disk->on_write = fn;
	disk->on_write_arg = arg;
}

void crash_disk_on_event(struct crash_disk *disk, void (*fn)(struct crash_disk *disk, uint64_t event, void *arg), void *arg)
{
	disk->on_event = fn;
	disk->on_event_arg = arg;
}

void crash_disk_set_delays(struct crash_disk *disk, uint64_t max_delay_us, unsigned straggler_one_in)
{
	disk->opts.max_delay_us = max_delay_us;
	disk->opts.straggler_one_in = straggler_one_in;
}

void crash_disk_set_faults(struct crash_disk *disk, unsigned read_error_ppm, unsigned write_error_ppm,
			   unsigned flush_error_ppm)
{
	disk->opts.read_error_ppm = read_error_ppm;
	disk->opts.write_error_ppm = write_error_ppm;
	disk->opts.flush_error_ppm = flush_error_ppm;
}

void crash_disk_fail_nth(struct crash_disk *disk, uint64_t nr, uint64_t count)
{
	disk->fail_nr = nr;
	disk->fail_end = nr + count;
	disk->nr_performed = 0;
}

bool crash_disk_has_failed(const struct crash_disk *disk)
{
	return disk->fail_nr && disk->nr_performed >= disk->fail_nr;
}

const void *crash_disk_image(const struct crash_disk *disk)
{
	return disk->cache;
}

void crash_disk_poke(struct crash_disk *disk, uint64_t offset_bytes, const void *buf, size_t len)
{
	assert(len <= disk_bytes(disk) && offset_bytes <= disk_bytes(disk) - len);
	memcpy(disk->cache + offset_bytes, buf, len);
	memcpy(disk->durable + offset_bytes, buf, len);
	for (uint64_t i = offset_bytes / CRASH_PAGE; len && i <= (offset_bytes + len - 1) / CRASH_PAGE; i++)
		page_changed(disk, i);
}

void crash_disk_get_stats(const struct crash_disk *disk, struct crash_disk_stats *ret_stats)
{
	*ret_stats = disk->stats;
	ret_stats->nr_cached = disk->next_entry - disk->first_entry;
}
