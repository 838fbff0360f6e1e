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
#include <time.h>

#include "bdev/bdev.h"
#include "bdev/histogram.h"
#include "bdev/delay.h"
#include "tools/bdevbench_work.h"

#define MAX_WORKERS 64u
#define FILL_BYTES  (1024u * 1024)
#define PAUSE_FROM_US 100u /* from here on it is asked whether the thread had a CPU */
#define SAMPLE_OPS    256u

enum pattern { SEQUENTIAL, RANDOM };

static struct {
	const char *bdev, *cores;
	uint32_t bs, qd, read_percent, time_s, block_size;
	uint64_t size_mib;
	enum pattern pattern;
	bool fua, json, fill, checksums, delay;
	enum work_kind background;
	uint32_t rounds, cluster;
	const char *rw;
} opt = {
	.bdev = "malloc", .bs = 4096, .qd = 128, .read_percent = 100, .time_s = 5, .block_size = 512, .size_mib = 256,
	.rounds = 5, .pattern = RANDOM, .fill = true, .rw = "randread",
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
	/* The longest time without a completion, but for those in which the thread had no CPU. */
	uint64_t pause_us, last_us, sample_us, sample_cpu_us;
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

static uint64_t thread_cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void note_pause(struct worker *w)
{
	uint64_t now = clock_now_us(), pause = now - w->last_us;

	w->last_us = now;
	if (pause > PAUSE_FROM_US || w->nr_done % SAMPLE_OPS == 0) {
		uint64_t cpu = thread_cpu_us(), wall = now - w->sample_us, lost = wall - (cpu - w->sample_cpu_us);

		if ((int64_t)lost < 0)
			lost = 0;
		pause = pause > lost ? pause - lost : 0;
		w->sample_us = now;
		w->sample_cpu_us = cpu;
	}
	if (pause > w->pause_us)
		w->pause_us = pause;
}

static void slot_done(struct bdev_io *io, int status)
{
	struct slot *s = container_of(io, struct slot, io);
	struct worker *w = s->worker;

	w->nr_done++;
	if (opt.background)
		note_pause(w);
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

static fiber_fn int fill(void);

static fiber_fn int open_and_fill(const char *name)
{
	int rc = bdev_open(name, true, NULL, NULL, &desc);

	if (rc)
		return rc;
	rc = fill();
	bdev_close(desc);
	return rc;
}

static fiber_fn int make_lvol(const char **ret_name)
{
	const struct lvol_store_create_opts store_opts = { .name = "bench", .base_bdev = opt.delay ? "slow" : "base",
							   .cluster_size_bytes = opt.cluster, .checksums = opt.checksums };
	const uint64_t slow_us[DELAY_NR] = { [DELAY_AVG_READ] = 80, [DELAY_P99_READ] = 80, [DELAY_AVG_WRITE] = 15,
					     [DELAY_P99_WRITE] = 15 };
	uint64_t volumes = opt.background == WORK_SNAPSHOT ? opt.rounds * opt.time_s * 1000000 / WORK_SNAPSHOT_US + 2
							   : opt.background ? 4 : 1; /* that the store must hold */
	uint64_t base_mib = opt.size_mib * volumes * 5 / 4 + 64;
	struct lvol_create_opts opts = { .name = "volume", .size_bytes = opt.size_mib << 20, .thin = true };
	struct lvol_store *store;
	struct bdev *slow;
	struct lvol *lvol;
	uuid_t uuid;
	int rc;

	uuid_clear(uuid);
	rc = bdev_malloc_create("base", NULL, (base_mib << 20) / opt.block_size, opt.block_size, NULL);
	if (!rc && opt.background) /* a first touch of memory takes longer than what is measured */
		rc = open_and_fill("base");
	if (!rc && opt.delay)
		rc = bdev_delay_create("slow", "base", slow_us, uuid, &slow);
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

/* --- background work --- */

struct phase {
	double p99_us;
	uint64_t pause_us, nr_ios;
};

static fiber_fn void measure(struct bdev *bdev, struct phase *ret)
{
	struct bdev_histogram *h = calloc(2, sizeof(*h));
	double us = clock_tick_rate() / 1e6;

	for (unsigned i = 0; i < nr_workers; i++)
		workers[i].pause_us = 0;
	bdev_reset_stats(bdev, BDEV_RESET_ALL);
	fiber_sleep(opt.time_s * 1000000ull);
	bdev_get_histogram(bdev, BDEV_READ, &h[0]);
	bdev_get_histogram(bdev, BDEV_WRITE, &h[1]);
	histogram_sum(&h[0], &h[1]);
	*ret = (struct phase){ .p99_us = histogram_percentile(&h[0], 0.99) / us,
			       .nr_ios = histogram_count(&h[0]) };
	for (unsigned i = 0; i < nr_workers; i++)
		if (workers[i].pause_us > ret->pause_us)
			ret->pause_us = workers[i].pause_us;
	free(h);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* By turns without and with it. */
static fiber_fn int with_background(struct bdev *bdev)
{
	double ratios[64], rates[64];
	uint64_t pause = 0, pause_without = 0;
	int64_t done = 0;
	unsigned n;

	for (n = 0; n < opt.rounds && n < 64; n++) {
		struct phase without, with;
		int rc = work_prepare(opt.background, lvol_from_bdev(bdev), opt.size_mib << 20);

		if (rc)
			return rc;
		fiber_sleep(200000);
		measure(bdev, &without);
		rc = work_start();
		if (rc)
			return rc;
		measure(bdev, &with);
		done = work_stop();
		if (done < 0)
			return (int)done;
		ratios[n] = with.p99_us / without.p99_us;
		rates[n] = (double)with.nr_ios / without.nr_ios;
		pause = with.pause_us > pause ? with.pause_us : pause;
		pause_without = without.pause_us > pause_without ? without.pause_us : pause_without;
		if (!opt.json)
			printf("%s: p99 %.1f us without, %.1f us with; longest pause %llu us without, %llu us with; work %lld\n", work_names[opt.background], without.p99_us, with.p99_us,
			       (unsigned long long)without.pause_us, (unsigned long long)with.pause_us, (long long)done);
		fflush(stdout);
	}
	qsort(ratios, n, sizeof(ratios[0]), compare_doubles);
	qsort(rates, n, sizeof(rates[0]), compare_doubles);
	printf(opt.json ? "{\"background\":\"%s\",\"p99_ratio\":%.3f,\"p99_ratio_min\":%.3f,\"p99_ratio_max\":%.3f,"
			  "\"rate_ratio\":%.3f,\"pause_us\":%llu,\"pause_without_us\":%llu}\n"
			: "%s: p99 with it %.2f of that without (%.2f to %.2f), I/Os %.2f; longest pause %llu us (without it %llu us)\n",
	       work_names[opt.background], ratios[n / 2], ratios[0], ratios[n - 1], rates[n / 2], (unsigned long long)pause,
	       (unsigned long long)pause_without);
	return 0;
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
	if (opt.background)
		rc = with_background(bdev);
	else
		fiber_sleep(opt.time_s * 1000000ull);
	for (unsigned i = 0; i < nr_workers; i++) {
		thread_call(workers[i].thread, worker_stop, &workers[i]);
		fiber_wait(&over[i]);
		nr_done += workers[i].nr_done;
		if (workers[i].error)
			rc = workers[i].error;
	}
	if (!opt.background)
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
	      "                 [--block-size BYTES] [--fua] [--no-fill] [--json] [--checksums] [--cluster BYTES] [--delay]\n"
	      "                 [--background scrub|inflate|free|checkpoint|snapshot] [--rounds N]\n"
	      "--checksums, --cluster: of lvol's store; --delay: its device takes 80 us for a read, 15 us for a write.\n"
	      "--background: the store does that meanwhile, and it is said what that does to latencies.\n"
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

static void set_background(const char *name)
{
	for (unsigned i = 1; i < NR_WORKS; i++)
		if (!strcmp(name, work_names[i]))
			opt.background = i;
	if (!opt.background)
		usage();
	opt.bdev = "lvol";
	opt.checksums |= opt.background == WORK_SCRUB;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "bdev", 1, NULL, 'b' }, { "rw", 1, NULL, 'w' },	 { "bs", 1, NULL, 's' },
		{ "qd", 1, NULL, 'q' },	  { "time", 1, NULL, 't' },	 { "read-percent", 1, NULL, 'p' },
		{ "cores", 1, NULL, 'c' }, { "size", 1, NULL, 'z' },	 { "block-size", 1, NULL, 'B' },
		{ "checksums", 0, NULL, 'k' }, { "background", 1, NULL, 'S' },	 { "rounds", 1, NULL, 'r' },
		{ "cluster", 1, NULL, 'C' }, { "delay", 0, NULL, 'd' },
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
			set_background(optarg);
			break;
		case 'r':
			opt.rounds = strtoul(optarg, NULL, 0);
			break;
		case 'C':
			opt.cluster = strtoul(optarg, NULL, 0);
			break;
		case 'd':
			opt.delay = true;
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
	if (optind != argc || !opt.rounds || !opt.qd || !opt.bs || !opt.time_s || opt.block_size < 512)
		usage();
}

int main(int argc, char **argv)
{
	struct runtime_opts runtime = { .name = "bdevbench", .pin = true };
	int rc;

	parse(argc, argv);
	runtime.cores = opt.cores;
	runtime.poll = opt.background != WORK_NONE; /* a pause would look like sleep */
	rc = runtime_run(&runtime, bench_main, NULL);
	return rc || result ? 1 : 0;
}
