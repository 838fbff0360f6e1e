/*
 * bdevbench: how fast a bdev is, without a network.  One thread a core keeps a number of operations in flight; it prints
 * IOPS, MiB/s, latency percentiles and CPU time per operation.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bdev/bdev.h"
#include "bdev/histogram.h"
#include "lvol/lvol.h"

#define MAX_WORKERS 64u
#define FILL_BYTES  (1024u * 1024)

enum pattern { SEQUENTIAL, RANDOM };

static struct {
	const char *bdev, *cores;
	uint32_t bs, qd, read_percent, time_s, block_size;
	uint64_t size_mib;
	enum pattern pattern;
	bool fua, json, fill, checksums, scrub;
	const char *rw;
} opt = {
	.bdev = "malloc", .bs = 4096, .qd = 128, .read_percent = 100, .time_s = 5, .block_size = 512, .size_mib = 256,
	.pattern = RANDOM, .fill = true, .rw = "randread",
};

struct worker;

/* One operation in flight, again and again.  Owner: its worker's thread. */
struct slot {
	struct bdev_io io;
	struct worker *worker;
	struct iovec iov;
};

/* Owner: its thread, but for over. */
struct worker {
	struct thread *thread;
	struct bdev_channel *ch;
	struct slot *slots;
	char *buffers;
	uint64_t rng, next, nr_places, nr_done;
	uint32_t nr_blocks, nr_in_flight;
	bool stop;
	int error;
	struct fiber_wait *over;
};

static struct worker workers[MAX_WORKERS];
static unsigned nr_workers;
static struct bdev_desc *desc;
static int result;

static void submit(struct slot *s)
{
	struct worker *w = s->worker;
	uint64_t place;

	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	place = opt.pattern == RANDOM ? (uint64_t)(((unsigned __int128)w->rng * w->nr_places) >> 64) : w->next;
	if (++w->next == w->nr_places)
		w->next = 0;
	s->io.offset_blocks = place * w->nr_blocks;
	s->io.op = opt.read_percent == 100 || (opt.read_percent && w->rng % 100 < opt.read_percent) ? BDEV_READ : BDEV_WRITE;
	s->io.flags = opt.fua && s->io.op == BDEV_WRITE ? BDEV_IO_FUA : 0;
	bdev_submit(w->ch, &s->io);
}

static void slot_done(struct bdev_io *io, int status)
{
	struct slot *s = container_of(io, struct slot, io);
	struct worker *w = s->worker;

	w->nr_done++;
	if (status && !w->error) {
		w->error = status;
		w->stop = true;
	}
	if (!w->stop)
		submit(s);
	else if (--w->nr_in_flight == 0)
		fiber_wake(w->over, 0);
}

static int worker_start(void *arg)
{
	struct worker *w = arg;

	w->ch = bdev_channel_get(desc);
	w->slots = calloc(opt.qd, sizeof(*w->slots));
	w->buffers = dma_alloc((size_t)opt.qd * opt.bs, 4096);
	if (!w->ch || !w->slots || !w->buffers)
		return -ENOMEM;
	memset(w->buffers, 0xa5, (size_t)opt.qd * opt.bs);
	w->nr_in_flight = opt.qd;
	for (uint32_t i = 0; i < opt.qd; i++) {
		struct slot *s = &w->slots[i];

		s->worker = w;
		s->iov = (struct iovec){ w->buffers + (size_t)i * opt.bs, opt.bs };
		s->io.done = slot_done;
		s->io.iov = &s->iov;
		s->io.iovcnt = 1;
		s->io.nr_blocks = w->nr_blocks;
		submit(s);
	}
	return 0;
}

static int worker_stop(void *arg)
{
	struct worker *w = arg;

	w->stop = true;
	return 0;
}

static int worker_end(void *arg)
{
	struct worker *w = arg;

	bdev_channel_put(w->ch);
	dma_free(w->buffers);
	free(w->slots);
	return 0;
}

/* --- the device --- */

static fiber_fn int make_lvol(const char **ret_name)
{
	const struct lvol_store_create_opts store_opts = { .name = "bench", .base_bdev = "base", .checksums = opt.checksums };
	struct lvol_create_opts opts = { .name = "volume", .size_bytes = opt.size_mib << 20, .thin = true };
	struct lvol_store *store;
	struct lvol *lvol;
	int rc;

	rc = bdev_malloc_create("base", NULL, ((opt.size_mib * 5 / 4 + 64) << 20) / opt.block_size, opt.block_size, NULL);
	if (!rc)
		rc = lvol_store_create(&store_opts, &store, NULL);
	if (!rc)
		rc = lvol_create(store, &opts, &lvol);
	if (!rc)
		*ret_name = lvol_bdev(lvol)->name;
	return rc;
}

static fiber_fn int make_bdev(const char **ret_name)
{
	uint64_t nr_blocks = (opt.size_mib << 20) / opt.block_size;

	*ret_name = "bench";
	if (!strcmp(opt.bdev, "malloc"))
		return bdev_malloc_create("bench", NULL, nr_blocks, opt.block_size, NULL);
	if (!strcmp(opt.bdev, "null"))
		return bdev_null_create("bench", NULL, nr_blocks, opt.block_size, NULL);
	if (!strcmp(opt.bdev, "lvol"))
		return make_lvol(ret_name);
	if (!strncmp(opt.bdev, "uring:", 6)) {
		const struct bdev_uring_opts u = { .name = "bench", .filename = opt.bdev + 6, .allow_punch = true };

		return bdev_uring_create(&u, NULL);
	}
	return -EINVAL;
}

/* Reads of what was never written are cheaper than those of data. */
static fiber_fn int fill(void)
{
	struct bdev *bdev = bdev_desc_bdev(desc);
	struct bdev_channel *ch = bdev_channel_get(desc);
	uint64_t step = FILL_BYTES / bdev->block_size, nr = bdev_nr_blocks(bdev);
	char *buf = dma_alloc(FILL_BYTES, 4096);
	int rc = ch && buf ? 0 : -ENOMEM;

	if (!rc)
		memset(buf, 0x3c, FILL_BYTES);
	for (uint64_t b = 0; !rc && b < nr; b += step)
		rc = bdev_write(ch, buf, b, nr - b < step ? nr - b : step, 0);
	if (!rc)
		rc = bdev_flush(ch);
	dma_free(buf);
	if (ch)
		bdev_channel_put(ch);
	return rc;
}

/* --- what it says --- */

static uint64_t cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000ull + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

static void report(struct bdev *bdev, uint64_t nr_done, uint64_t wall_us, uint64_t cpu)
{
	static const double fractions[] = { 0.5, 0.9, 0.99, 0.999, 0.9999 };
	static const char *const names[] = { "p50", "p90", "p99", "p99.9", "p99.99" };
	struct bdev_histogram *h = calloc(2, sizeof(*h));
	double us = clock_tick_rate() / 1e6, iops = nr_done * 1e6 / wall_us;

	bdev_get_histogram(bdev, BDEV_READ, &h[0]);
	bdev_get_histogram(bdev, BDEV_WRITE, &h[1]);
	histogram_sum(&h[0], &h[1]);
	if (opt.json)
		printf("{\"bdev\":\"%s\",\"rw\":\"%s\",\"bs\":%u,\"qd\":%u,\"cores\":%u,\"iops\":%.0f,\"mib_s\":%.1f,"
		       "\"cpu_ns_per_io\":%.0f,\"latency_us\":{",
		       opt.bdev, opt.rw, opt.bs, opt.qd, nr_workers, iops, iops * opt.bs / 1048576, cpu * 1e3 / nr_done);
	else
		printf("%s %s bs %u qd %u cores %u: %.0f IOPS, %.1f MiB/s, %.0f ns CPU per I/O;", opt.bdev, opt.rw, opt.bs,
		       opt.qd, nr_workers, iops, iops * opt.bs / 1048576, cpu * 1e3 / nr_done);
	for (unsigned i = 0; i < 5; i++)
		printf(opt.json ? "%s\"%s\":%.1f" : "%s %s %.1f us", i ? "," : "", names[i],
		       histogram_percentile(&h[0], fractions[i]) / us);
	printf(opt.json ? "}}\n" : "\n");
	free(h);
}

/* Beside the load, for as long as that lasts. */
static struct progress scrubbing;

static void scrub_main(void *arg)
{
	struct lvol_store *store = lvol_store_first();
	struct store_scrub_result scrubbed = { 0 };

	while (store && !scrubbing.cancel) {
		struct store_scrub_cursor cursor = { 0 };

		if (store_scrub(lvol_store_blobstore(store), &cursor, &scrubbed, &scrubbing))
			break;
	}
	fprintf(stderr, "scrubbed %llu MiB\n", (unsigned long long)(scrubbed.nr_bytes >> 20));
}

static fiber_fn int run(void)
{
	struct bdev *bdev = bdev_desc_bdev(desc);
	struct fiber_wait over[MAX_WORKERS];
	uint64_t before, cpu, nr_done = 0;
	int rc = 0;

	if (opt.bs % bdev->block_size || !opt.bs || bdev_nr_blocks(bdev) * bdev->block_size < opt.bs)
		return -EINVAL;
	bdev_reset_stats(bdev, BDEV_RESET_ALL);
	nr_workers = runtime_nr_reactors() < MAX_WORKERS ? runtime_nr_reactors() : MAX_WORKERS;
	before = clock_now_us();
	cpu = cpu_us();
	for (unsigned i = 0; i < nr_workers && !rc; i++) {
		struct worker *w = &workers[i];

		fiber_wait_init(&over[i]);
		*w = (struct worker){ .over = &over[i], .rng = 0x9e3779b97f4a7c15ull * (i + 1) };
		w->nr_blocks = opt.bs / bdev->block_size;
		w->nr_places = bdev_nr_blocks(bdev) / w->nr_blocks;
		w->next = w->nr_places / nr_workers * i;
		w->thread = thread_create("bench", i);
		rc = w->thread ? thread_call(w->thread, worker_start, w) : -ENOMEM;
	}
	if (rc)
		return rc;
	if (opt.scrub)
		rc = fiber_spawn(thread_current(), "scrub", scrub_main, NULL);
	fiber_sleep(opt.time_s * 1000000ull);
	scrubbing.cancel = true;
	for (unsigned i = 0; i < nr_workers; i++) {
		thread_call(workers[i].thread, worker_stop, &workers[i]);
		fiber_wait(&over[i]);
		nr_done += workers[i].nr_done;
		if (workers[i].error)
			rc = workers[i].error;
	}
	report(bdev, nr_done, clock_now_us() - before, cpu_us() - cpu);
	for (unsigned i = 0; i < nr_workers; i++) {
		thread_call(workers[i].thread, worker_end, &workers[i]);
		thread_exit(workers[i].thread);
	}
	return rc;
}

static void bench_main(void *arg)
{
	const char *name;
	int rc = make_bdev(&name);

	if (!rc)
		rc = bdev_open(name, true, NULL, NULL, &desc);
	if (!rc) {
		if (opt.fill)
			rc = fill();
		if (!rc)
			rc = run();
		bdev_close(desc);
	}
	lvol_fini();
	bdev_unregister_all();
	if (rc)
		fprintf(stderr, "bdevbench: %s: %s\n", opt.bdev, strerror(-rc));
	result = rc;
	runtime_stop(rc);
}

static void usage(void)
{
	fputs("usage: bdevbench [--bdev malloc|null|lvol|uring:PATH] [--rw read|write|randread|randwrite|rw|randrw]\n"
	      "                 [--bs BYTES] [--qd N] [--time SECONDS] [--read-percent N] [--cores LIST] [--size MIB]\n"
	      "                 [--block-size BYTES] [--fua] [--no-fill] [--json] [--checksums] [--scrub]\n"
	      "--checksums: of lvol's store; --scrub: it is scrubbed again and again meanwhile.\n"
	      "--fill is implied but for uring; what --bdev uring:PATH names is overwritten by writes.\n",
	      stderr);
	exit(2);
}

static void set_rw(const char *rw)
{
	opt.rw = rw;
	opt.pattern = strncmp(rw, "rand", 4) ? SEQUENTIAL : RANDOM;
	if (opt.pattern == RANDOM)
		rw += 4;
	if (!strcmp(rw, "read"))
		opt.read_percent = 100;
	else if (!strcmp(rw, "write"))
		opt.read_percent = 0;
	else if (!strcmp(rw, "rw"))
		opt.read_percent = 70;
	else
		usage();
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "bdev", 1, NULL, 'b' }, { "rw", 1, NULL, 'w' },	 { "bs", 1, NULL, 's' },
		{ "qd", 1, NULL, 'q' },	  { "time", 1, NULL, 't' },	 { "read-percent", 1, NULL, 'p' },
		{ "cores", 1, NULL, 'c' }, { "size", 1, NULL, 'z' },	 { "block-size", 1, NULL, 'B' },
		{ "checksums", 0, NULL, 'k' }, { "scrub", 0, NULL, 'S' },
		{ "fua", 0, NULL, 'f' },  { "no-fill", 0, NULL, 'n' }, { "json", 0, NULL, 'j' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'b':
			opt.bdev = optarg;
			opt.fill = strncmp(optarg, "uring:", 6) && strcmp(optarg, "null");
			break;
		case 'w':
			set_rw(optarg);
			break;
		case 's':
			opt.bs = strtoul(optarg, NULL, 0);
			break;
		case 'q':
			opt.qd = strtoul(optarg, NULL, 0);
			break;
		case 't':
			opt.time_s = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			opt.read_percent = strtoul(optarg, NULL, 0);
			break;
		case 'c':
			opt.cores = optarg;
			break;
		case 'z':
			opt.size_mib = strtoull(optarg, NULL, 0);
			break;
		case 'B':
			opt.block_size = strtoul(optarg, NULL, 0);
			break;
		case 'k':
			opt.checksums = true;
			break;
		case 'S':
			opt.scrub = true;
			break;
		case 'f':
			opt.fua = true;
			break;
		case 'n':
			opt.fill = false;
			break;
		case 'j':
			opt.json = true;
			break;
		default:
			usage();
		}
	}
	if (optind != argc || !opt.qd || !opt.bs || !opt.time_s || opt.block_size < 512)
		usage();
}

int main(int argc, char **argv)
{
	struct runtime_opts runtime = { .name = "bdevbench", .pin = true };
	int rc;

	parse(argc, argv);
	runtime.cores = opt.cores;
	rc = runtime_run(&runtime, bench_main, NULL);
	return rc || result ? 1 : 0;
}
