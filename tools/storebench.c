/*
 * storebench: what a large store takes.  On a made-up device of terabytes that keeps metadata and drops data, it maps a volume
 * whole, takes snapshots and clones, counts, compares, deletes, makes many small volumes, opens again; and prints how
 * long each took, in microseconds unless it says otherwise, and the store's memory.
 *
 * --recovery: it maps a volume whole, fills the journal with random first writes while no checkpoint ends, dies, and opens
 * the store with nothing in memory.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "bdev/leaf.h"
#include "blob/blob.h"

#define PAGE  4096u
#define BLOCK 4096u
#define DEPTH 32u
#define MIB   (1ull << 20)

/* --- the device: pages that were ever written with something --- */

static char *memory, *data; /* data: what the bench writes, and the device drops */
static uint64_t nr_device_pages;
static uint8_t *kept;
static uint64_t data_bytes = 4 * MIB;
static bool dead;	      /* nothing reaches it any more */
static bool hold_supers;      /* superblocks wait, so that no checkpoint ends */
static struct bdev_io *held;
static uint64_t nr_pages_read, nr_reads;

static void sparse_one(struct bdev_io *io, uint64_t page, char *buf, bool drop)
{
	bool is = kept[page / 8] >> (page % 8) & 1;

	if (io->op == BDEV_READ) {
		if (is)
			memcpy(buf, memory + page * PAGE, PAGE);
		else
			memset(buf, 0, PAGE);
	} else if (!drop || is) {
		memcpy(memory + page * PAGE, buf, PAGE);
		kept[page / 8] |= 1u << (page % 8);
	}
}

static void sparse_submit(struct bdev_io *io, void *channel_ctx)
{
	uint64_t page = io->offset_blocks;

	if (io->op == BDEV_WRITE && hold_supers && (page == 0 || page == MIB / PAGE)) {
		held = io;
		return;
	}
	if (dead) {
		bdev_io_complete_later(io, -EIO);
		return;
	}
	if (io->op == BDEV_READ) {
		nr_reads++;
		nr_pages_read += io->nr_blocks;
	}
	for (uint32_t i = 0; (io->op == BDEV_READ || io->op == BDEV_WRITE) && i < io->iovcnt; i++) {
		char *buf = io->iov[i].iov_base;
		bool drop = buf >= data && buf < data + data_bytes;

		for (size_t at = 0; at < io->iov[i].iov_len; at += PAGE)
			sparse_one(io, page++, buf + at, drop);
	}
	if (io->op == BDEV_UNMAP)
		for (; page < io->offset_blocks + io->nr_blocks; page += 8)
			kept[page / 8] = 0;
	bdev_io_complete_later(io, 0);
}

static void sparse_destroy(struct bdev *bdev)
{
	bdev_destroy_done(bdev);
}

static const struct bdev_ops sparse_ops = {
	.submit = sparse_submit,
	.destroy = sparse_destroy,
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP,
};

static int sparse_register(void)
{
	static struct bdev bdev;

	memset(&bdev, 0, sizeof(bdev));
	strcpy(bdev.name, "sparse");
	leaf_uuid(bdev.uuid, NULL);
	bdev.product_name = "Sparse disk";
	bdev.module = "sparse";
	bdev.block_size = BLOCK;
	bdev.nr_blocks = nr_device_pages;
	bdev.write_unit_blocks = 1;
	bdev.unmap_zeroes = true;
	bdev.ops = &sparse_ops;
	return bdev_register(&bdev);
}

static int sparse_create(uint64_t bytes)
{

	nr_device_pages = bytes / PAGE;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	kept = calloc(nr_device_pages / 8 + 1, 1);
	data = aligned_alloc(PAGE, data_bytes);
	if (memory == MAP_FAILED || !kept || !data)
		return -ENOMEM;
	memset(data, 0, data_bytes);
	return sparse_register();
}

/* --- I/O at depth --- */

struct run {
	struct blob *blob;
	struct blob_channel *ch;
	uint64_t nr, next, nr_done, places, stride_blocks, rng;
	enum blob_op op;
	bool random;
	int status;
	struct fiber_wait over;
	struct slot {
		struct run *run;
		struct blob_io io;
		struct iovec iov;
		struct task task;
	} slots[DEPTH];
	unsigned nr_in_flight;
};

static void slot_next(void *arg);

static void slot_done(struct blob_io *io, int status)
{
	struct slot *slot = container_of(io, struct slot, io);
	struct run *r = slot->run;

	r->nr_done++;
	r->nr_in_flight--;
	if (status && !r->status)
		r->status = status;
	slot_next(slot);
}

static void slot_next(void *arg)
{
	struct slot *slot = arg;
	struct run *r = slot->run;
	uint64_t place;

	if (r->next == r->nr || r->status) {
		if (!r->nr_in_flight)
			fiber_wake(&r->over, r->status);
		return;
	}
	r->rng = r->rng * 6364136223846793005ull + 1442695040888963407ull;
	place = r->random ? (r->rng >> 20) % r->places : r->next;
	r->next++;
	slot->iov = (struct iovec){ .iov_base = data, .iov_len = PAGE };
	slot->io = (struct blob_io){ .done = slot_done, .blob = r->blob, .op = r->op, .iov = &slot->iov, .iovcnt = 1,
				     .offset_blocks = place * r->stride_blocks, .nr_blocks = 1 };
	r->nr_in_flight++;
	blob_submit(r->ch, &slot->io);
}

static uint64_t places_max = UINT64_MAX; /* random writes stay in front */

/* Operations a second. */
static fiber_fn double run(struct blob *blob, struct blob_channel *ch, enum blob_op op, uint64_t nr, uint64_t stride_bytes, bool random)
{
	struct run *r = calloc(1, sizeof(*r));
	uint64_t start = clock_now_us();
	int rc;

	*r = (struct run){ .blob = blob, .ch = ch, .op = op, .nr = nr, .random = random, .rng = 1,
			   .stride_blocks = stride_bytes / BLOCK };
	r->places = blob_nr_blocks(blob) / r->stride_blocks;
	if (op == BLOB_WRITE && random && r->places > places_max)
		r->places = places_max;
	fiber_wait_init(&r->over);
	for (unsigned i = 0; i < DEPTH && i < nr; i++) {
		r->slots[i].run = r;
		slot_next(&r->slots[i]);
	}
	rc = fiber_wait(&r->over);
	if (rc)
		printf("I/O failed: %s\n", strerror(-rc));
	free(r);
	return nr * 1e6 / (clock_now_us() - start + 1);
}

/* --- what is measured --- */

static uint64_t started, cpu_started;

/* Of the process; what it waited for a CPU on a busy machine is not in it. */
static uint64_t cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000ull + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static void begin(void)
{
	started = clock_now_us();
	cpu_started = cpu_us();
}

static void end(const char *what)
{
	printf("%-48s %12llu   CPU %llu\n", what, (unsigned long long)(clock_now_us() - started),
	       (unsigned long long)(cpu_us() - cpu_started));
	fflush(stdout);
}

static void check(const char *what, int rc)
{
	if (!rc)
		return;
	printf("%s: %s\n", what, strerror(-rc));
	exit(1);
}

static struct blob *copy(struct blob *from, const char *name, bool snapshot)
{
	struct blob_copy_opts opts = { .name = name };
	struct blob *blob = NULL;

	check(name, snapshot ? blob_snapshot(from, &opts, &blob) : blob_clone(from, &opts, &blob));
	return blob;
}

static void memory_now(struct store *store, const char *when)
{
	struct store_stats stats;

	store_get_stats(store, &stats);
	printf("%-48s %12.1f MiB in maps and counts\n", when, stats.resident_bytes / 1048576.0);
	fflush(stdout);
}

static fiber_fn void whole(struct store *store, struct blob_channel *ch, uint64_t tib)
{
	struct blob_create_opts opts = { .name = "volume", .size_bytes = tib << 40 };
	struct blob *volume, *snapshot, *clone, *deep;
	struct blob_diff diff;
	struct blob_range ranges[64];
	uint64_t clusters = tib << 20, nr_ranges = 0, exclusive;
	char name[32];
	uint32_t nr;

	check("create", blob_create(store, &opts, &volume));
	blob_open(volume);
	printf("%-48s %12.0f /s\n", "first writes, a cluster each", run(volume, ch, BLOB_WRITE, clusters, MIB, false));
	memory_now(store, "mapped, 4 KiB in each cluster");
	printf("%-48s %12.0f /s\n", "random overwrites", run(volume, ch, BLOB_WRITE, 1000000, MIB, true));
	printf("%-48s %12.0f /s\n", "random reads", run(volume, ch, BLOB_READ, 1000000, MIB, true));
	begin();
	check("exclusive", blob_exclusive(volume, &exclusive));
	end("exclusive space, all its own");
	begin();
	snapshot = copy(volume, "snapshot", true);
	end("snapshot");
	places_max = clusters / 8;
	printf("%-48s %12.0f /s\n", "first random writes after it", run(volume, ch, BLOB_WRITE, clusters / 12, MIB, true));
	printf("%-48s %12.0f /s\n", "... and more of them, most overwrites", run(volume, ch, BLOB_WRITE, 1000000, MIB, true));
	printf("%-48s %12.0f /s\n", "random overwrites", run(volume, ch, BLOB_WRITE, 1000000, MIB, true));
	memory_now(store, "after those");
	begin();
	check("exclusive", blob_exclusive(volume, &exclusive));
	end("exclusive space");
	begin();
	diff = (struct blob_diff){ .from = snapshot, .to = volume };
	do {
		check("diff", blob_diff_next(&diff, ranges, 64, &nr));
		nr_ranges += nr;
	} while (nr);
	end("all ranges that differ");
	begin();
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "clone-%u", i);
		copy(snapshot, name, false);
	}
	end("100 clones");
	deep = store_find_blob(store, "clone-0");
	blob_open(deep);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "deep-%u", i);
		run(deep, ch, BLOB_WRITE, 100, MIB, true);
		clone = copy(deep, name, true);
		snprintf(name, sizeof(name), "deeper-%u", i);
		clone = copy(clone, name, false);
		blob_close(deep);
		deep = clone;
		blob_open(deep);
		if (i == 0 || i == 9 || i == 99) {
			printf("%-45s%3u %12.0f /s\n", "random reads, clone depth", i + 1,
			       run(deep, ch, BLOB_READ, 1000000, MIB, true));
		}
	}
	blob_close(deep);
	begin();
	check("delete", blob_delete(snapshot));
	end("delete the snapshot with its 100 clones: answer");
	begin();
	check("wait", store_wait_free(store));
	end("... space back");
	blob_close(volume);
	while ((clone = store_first_blob(store)))
		check("delete", blob_delete(clone));
	begin();
	check("wait", store_wait_free(store));
	end("all volumes deleted: space back");
	memory_now(store, "empty");
}

struct maker {
	struct store *store;
	unsigned first, nr, *left;
	struct fiber_wait *over;
};

static void maker_fiber(void *arg)
{
	struct maker *m = arg;
	struct blob *blob;
	char name[32];

	for (unsigned i = m->first; i < m->first + m->nr; i++) {
		struct blob_create_opts opts = { .name = name, .size_bytes = MIB };

		snprintf(name, sizeof(name), "small-%u", i);
		check(name, blob_create(m->store, &opts, &blob));
	}
	if (!--*m->left)
		fiber_wake(m->over, 0);
}

static fiber_fn void many(struct store *store, struct blob_channel *ch, unsigned nr)
{
	struct maker makers[16];
	struct fiber_wait over;
	unsigned left = 16;
	struct blob *blob;

	begin();
	fiber_wait_init(&over);
	for (unsigned i = 0; i < 16; i++) {
		makers[i] = (struct maker){ store, i * (nr / 16), nr / 16, &left, &over };
		check("fiber", fiber_spawn(thread_current(), "maker", maker_fiber, &makers[i]));
	}
	fiber_wait(&over);
	end("small volumes made, 16 at once: all");
	begin();
	for (blob = store_first_blob(store); blob; blob = store_next_blob(blob)) {
		blob_open(blob);
		run(blob, ch, BLOB_WRITE, 1, MIB, false);
		blob_close(blob);
	}
	end("a write to each");
	memory_now(store, "with them");
}

/* --- recovery --- */

struct filler {
	struct blob *blob;
	struct blob_channel *ch;
	uint64_t nr_done, rng;
	unsigned nr_left;
	bool over;
	struct fiber_wait wait;
};

/* First writes to random places, until one fails. */
static void filler_fiber(void *arg)
{
	struct filler *f = arg;
	int rc = 0;

	while (!rc && !f->over) {
		struct iovec iov = { .iov_base = data, .iov_len = PAGE };
		struct blob_io io = { .blob = f->blob, .op = BLOB_WRITE, .iov = &iov, .iovcnt = 1, .nr_blocks = 1 };

		f->rng = f->rng * 6364136223846793005ull + 1442695040888963407ull;
		io.offset_blocks = (f->rng >> 16) % blob_nr_blocks(f->blob);
		rc = blob_submit_wait(f->ch, &io);
		f->nr_done += !rc;
	}
	if (!--f->nr_left)
		fiber_wake(&f->wait, 0);
}

/* The journal as full as it gets: no write goes on. */
static fiber_fn void fill_journal(struct filler *f)
{
	uint64_t before = UINT64_MAX;

	hold_supers = true;
	fiber_wait_init(&f->wait);
	f->nr_left = DEPTH;
	f->rng = 1;
	for (unsigned i = 0; i < DEPTH; i++)
		check("fiber", fiber_spawn(thread_current(), "filler", filler_fiber, f));
	while (before != f->nr_done) {
		before = f->nr_done;
		fiber_sleep(1000000);
	}
}

/* The process dies: nothing that is under way arrives. */
static fiber_fn void die(struct store *store, struct filler *f)
{
	dead = true;
	hold_supers = false;
	f->over = true;
	if (held)
		bdev_io_complete_later(held, -EIO);
	held = NULL;
	fiber_wait(&f->wait);
	blob_close(f->blob);
	blob_channel_put(f->ch);
	(void)store_close(store);
	bdev_unregister_all();
	check("device", sparse_register());
	dead = false;
}

static fiber_fn void recovery(struct store *store, struct blob_channel *ch, uint64_t tib, const struct store_open_opts *open)
{
	struct blob_create_opts opts = { .name = "volume", .size_bytes = tib << 40 };
	struct filler f = { .ch = ch };
	struct store_stats stats;
	struct store_info info;

	check("create", blob_create(store, &opts, &f.blob));
	blob_open(f.blob);
	printf("%-48s %12.0f /s\n", "first writes, a cluster each", run(f.blob, ch, BLOB_WRITE, tib << 20, MIB, false));
	memory_now(store, "mapped, 4 KiB in each cluster");
	check("checkpoint", store_checkpoint(store));
	fill_journal(&f);
	store_get_info(store, &info);
	printf("%-48s %12llu\n", "random first writes without a checkpoint", (unsigned long long)f.nr_done);
	printf("%-48s %12u of %u\n", "pages of the journal in use", info.journal_used_pages, info.journal_pages);
	die(store, &f);
	nr_reads = nr_pages_read = 0;
	begin();
	check("open", store_open("sparse", open, &store, NULL));
	end("open after a kill");
	printf("%-48s %12llu in %llu reads\n", "pages read", (unsigned long long)nr_pages_read, (unsigned long long)nr_reads);
	store_get_stats(store, &stats);
	printf("%-48s %12llu, %llu nodes read\n", "records replayed", (unsigned long long)stats.recovered_records,
	       (unsigned long long)stats.nr_node_reads);
	memory_now(store, "after it");
	f.ch = blob_channel_get(store);
	f.blob = store_find_blob(store, "volume");
	blob_open(f.blob);
	printf("%-48s %12.0f /s\n", "random reads", run(f.blob, f.ch, BLOB_READ, 1000000, MIB, true));
	memory_now(store, "after those");
	blob_close(f.blob);
	blob_channel_put(f.ch);
	check("close", store_close(store));
}

static uint64_t tib = 1, nr_small = 100000;
static struct store_open_opts open_opts;
static bool only_recovery;

static void bench(void *arg)
{
	struct store_create_opts create = { .name = "store" };
	struct blob_channel *ch;
	struct store *store;

	check("device", sparse_create(tib ? (tib << 40) + (tib << 39) : 1ull << 40));
	check("create", store_create("sparse", &create, &open_opts, &store, NULL));
	ch = blob_channel_get(store);
	if (only_recovery) {
		recovery(store, ch, tib, &open_opts);
		bdev_unregister_all();
		runtime_stop(0);
		return;
	}
	if (tib)
		whole(store, ch, tib);
	many(store, ch, nr_small);
	blob_channel_put(ch);
	begin();
	check("close", store_close(store));
	end("close");
	begin();
	check("open", store_open("sparse", &open_opts, &store, NULL));
	end("open");
	memory_now(store, "opened");
	check("close", store_close(store));
	bdev_unregister_all();
	runtime_stop(0);
}

int main(int argc, char **argv)
{
	struct runtime_opts runtime = { .name = "storebench" };

	only_recovery = argc > 1 && !strcmp(argv[1], "--recovery");
	if (only_recovery) {
		argc--;
		argv++;
		if (argc > 2)
			open_opts.map_cache_bytes = strtoull(argv[2], NULL, 10) * MIB;
		nr_small = 16;
	}
	if (argc > 1)
		tib = strtoull(argv[1], NULL, 10);
	if (argc > 2 && !only_recovery)
		nr_small = strtoull(argv[2], NULL, 10);
	if ((!tib && only_recovery) || nr_small < 16) {
		fprintf(stderr, "usage: storebench [TIB] [SMALL-VOLUMES] | --recovery [TIB] [MAP-CACHE-MIB]\n");
		return 1;
	}
	return runtime_run(&runtime, bench, NULL) ? 1 : 0;
}
