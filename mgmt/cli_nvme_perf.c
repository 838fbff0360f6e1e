/*
 * perf: keeps a number of operations in flight on each of some queues and counts what comes back.  The loop
 * is a completion callback that submits again; everything else (connecting, the progress line, the report) is
 * fiber code around it.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "mgmt/cli_nvme.h"
#include "nvme/latency.h"

enum { DIR_READ, DIR_WRITE, NR_DIRS };

/* One operation's place: its request, its buffer, when it began.  Owner: its worker's thread. */
struct perf_op {
	struct nvme_request req;
	struct iovec iov;
	struct perf_worker *worker;
	uint64_t start_ticks;
	uint64_t unit;     /* which block of io_bytes within the range */
	bool expect_stamp; /* it was written before this read began */
	uint8_t *verify_buf;
};

/* One queue with its thread.  Owner: that thread; the counters are read by the progress line, as they come.
 */
struct perf_worker {
	struct perf_run *run;
	struct thread *thread;
	struct nvme_qpair *qpair;
	struct poller *poller;
	struct perf_op *ops;
	uint8_t *buffers;
	uint32_t queue_depth, nr_in_flight;
	uint64_t rand_state, next_unit, first_unit, nr_units, end_ticks;
	uint64_t nr_submitted, nr_bad;
	uint64_t nr_done[NR_DIRS];
	struct latency latency[NR_DIRS]; /* ticks */
	struct fiber_wait *idle;
	uint16_t first_status;
	struct nvme_error error;
	int idx;
};

/* The whole run.  Owner: the app thread; constant for the workers but for phase, which they only read. */
struct perf_run {
	const struct cli_nvme_opts *opts;
	struct nvme_ctrlr *ctrlr;
	struct nvme_ns ns;
	uint32_t io_blocks;
	uint64_t first_block, nr_units;
	uint64_t ops_per_worker; /* 0: as many as the time allows */
	uint8_t *written;        /* a byte for each unit, for --verify */
	struct perf_worker *workers;
	enum { PHASE_WARMUP, PHASE_MEASURE, PHASE_STOP, PHASE_READ_BACK } phase;
	uint64_t begin_ticks, end_ticks;
};

/* --- stamps: what --verify writes, made of the address and the seed alone --------------------- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void stamp(const struct perf_run *run, uint8_t *buf, uint64_t unit)
{
	uint64_t *words = (uint64_t *)(void *)buf, nr = run->opts->io_bytes / 8, base = unit * nr;

	for (uint64_t i = 0; i < nr; i++)
		words[i] = mix(base + i + run->opts->seed * 0x9e3779b97f4a7c15ull);
}

static bool stamp_is_right(const struct perf_run *run, const struct perf_op *op)
{
	stamp(run, op->verify_buf, op->unit);
	return !memcmp(op->verify_buf, op->iov.iov_base, run->opts->io_bytes);
}

/* --- the loop --------------------------------------------------------------------------------- */

static uint64_t next_random(struct perf_worker *w)
{
	/* xorshift64*: speed matters more here than quality */
	w->rand_state ^= w->rand_state >> 12;
	w->rand_state ^= w->rand_state << 25;
	w->rand_state ^= w->rand_state >> 27;
	return w->rand_state * 0x2545f4914f6cdd1dull;
}

/* Numbers below a power of two, each once: multiplying by odd numbers and shifting can both be undone. */
static uint64_t permuted(uint64_t x, unsigned bits, uint64_t seed)
{
	uint64_t mask = bits < 64 ? (1ull << bits) - 1 : UINT64_MAX;

	x = (x + seed) & mask;
	for (unsigned i = 0; i < 3; i++) {
		x ^= x >> (bits + 1) / 2;
		x = x * 0xbf58476d1ce4e5b9ull & mask;
	}
	return x ^ x >> (bits + 1) / 2;
}

/* Each unit once: numbers that are none of them are passed over, at most as many as there are units. */
static uint64_t pick_unit_once(struct perf_worker *w)
{
	unsigned bits = 1;
	uint64_t unit;

	while (bits < 63 && 1ull << bits < w->nr_units)
		bits++;
	do
		unit = permuted(w->next_unit++, bits, w->run->opts->seed);
	while (unit >= w->nr_units);
	return w->first_unit + unit;
}

static uint64_t pick_unit(struct perf_worker *w)
{
	if (w->run->opts->once && w->run->phase != PHASE_READ_BACK)
		return pick_unit_once(w);
	if (!w->run->opts->sequential && w->run->phase != PHASE_READ_BACK)
		return w->first_unit + (uint64_t)(((unsigned __int128)next_random(w) * w->nr_units) >> 64);
	uint64_t unit = w->first_unit + w->next_unit;

	if (++w->next_unit == w->nr_units)
		w->next_unit = 0;
	return unit;
}

static bool pick_read(struct perf_worker *w)
{
	uint32_t percent = w->run->opts->read_percent;

	if (percent == 100 || w->run->phase == PHASE_READ_BACK)
		return true;
	return percent && (next_random(w) >> 32) % 100 < percent;
}

/* Whether there is another to be submitted; during the reading back, skips what was never written. */
static bool want_more(struct perf_worker *w)
{
	const struct perf_run *run = w->run;

	if (run->phase == PHASE_READ_BACK) {
		while (w->nr_submitted < w->nr_units && !run->written[w->first_unit + w->next_unit]) {
			w->next_unit++;
			w->nr_submitted++;
		}
		return w->nr_submitted < w->nr_units;
	}
	return run->phase != PHASE_STOP && !(run->ops_per_worker && w->nr_submitted >= run->ops_per_worker);
}

static void submit(struct perf_op *op, uint64_t now)
{
	struct perf_worker *w = op->worker;
	const struct perf_run *run = w->run;
	bool read = pick_read(w);

	op->unit = pick_unit(w);
	op->start_ticks = now;
	w->nr_submitted++;
	nvme_cmd_rw(&op->req.cmd, read ? NVME_IO_READ : NVME_IO_WRITE, run->ns.nsid,
		    run->first_block + op->unit * run->io_blocks, run->io_blocks);
	op->expect_stamp = read && run->opts->verify && run->written[op->unit];
	if (!read) {
		if (run->opts->fua)
			op->req.cmd.rw.control = NVME_RW_FUA;
		if (run->opts->verify)
			stamp(run, op->iov.iov_base, op->unit);
	}
	nvme_qpair_submit(w->qpair, &op->req);
}

static void check_data(struct perf_op *op, bool read)
{
	struct perf_worker *w = op->worker;

	if (!read) {
		w->run->written[op->unit] = 1;
		return;
	}
	if (!op->expect_stamp || stamp_is_right(w->run, op))
		return;
	if (!w->nr_bad++)
		nvme_error_set(&w->error, -EILSEQ, 0, "wrong data at byte %llu of the namespace",
			       (unsigned long long)(w->run->first_block * w->run->ns.block_size +
						    op->unit * w->run->opts->io_bytes));
}

static void op_done(struct nvme_request *req, uint16_t status)
{
	struct perf_op *op = container_of(req, struct perf_op, req);
	struct perf_worker *w = op->worker;
	bool read = req->cmd.opcode == NVME_IO_READ;
	uint64_t now = clock_ticks();

	if (__builtin_expect(status, 0)) {
		w->nr_bad++;
		if (!w->first_status)
			w->first_status = status;
	} else {
		if (w->run->phase == PHASE_MEASURE) {
			w->nr_done[!read]++;
			latency_record(&w->latency[!read], now - op->start_ticks);
		}
		if (w->run->opts->verify)
			check_data(op, read);
	}
	if (!w->nr_bad && want_more(w)) {
		submit(op, now);
		return;
	}
	if (--w->nr_in_flight == 0 && w->idle)
		fiber_wake(w->idle, 0);
}

static enum poll_result poll_queue(void *arg)
{
	struct perf_worker *w = arg;

	return nvme_qpair_poll(w->qpair) ? POLL_BUSY : POLL_IDLE;
}

/* --- a worker's life, each step on its thread ------------------------------------------------- */

static fiber_fn int worker_open(void *arg)
{
	struct perf_worker *w = arg;
	const struct cli_nvme_opts *opts = w->run->opts;
	uint32_t wanted = opts->queue_depth;
	int rc;

	rc = nvme_qpair_connect(w->run->ctrlr, (uint16_t)(w->idx + 1), wanted + 1, &w->qpair, &w->error);
	if (rc)
		return rc;
	w->queue_depth = wanted;
	if (!w->idx && nvme_qpair_depth(w->qpair) < wanted)
		fprintf(stderr,
			"ferrule nvme perf: the controller's queues take %u at a time; the rest of --qd %u "
			"waits here\n",
			nvme_qpair_depth(w->qpair), wanted);
	w->ops = calloc(wanted, sizeof(*w->ops));
	w->buffers = dma_alloc((size_t)opts->io_bytes * (wanted + 1), 4096);
	if (!w->ops || !w->buffers) {
		nvme_error_set(&w->error, -ENOMEM, 0, "no memory for %u operations of %u bytes", wanted,
			       opts->io_bytes);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < wanted; i++) {
		struct perf_op *op = &w->ops[i];

		op->worker = w;
		op->iov = (struct iovec){w->buffers + (size_t)i * opts->io_bytes, opts->io_bytes};
		op->verify_buf = w->buffers + (size_t)wanted * opts->io_bytes;
		op->req = (struct nvme_request){
			.iov = &op->iov, .iovcnt = 1, .len = opts->io_bytes, .done = op_done};
	}
	w->poller = poller_start("perf", poll_queue, w, 0);
	return w->poller ? 0 : -ENOMEM;
}

/* Fills the queue and waits until it is empty again. */
static fiber_fn int worker_run(void *arg)
{
	struct perf_worker *w = arg;
	struct fiber_wait wait;
	uint64_t now = clock_ticks();

	fiber_wait_init(&wait);
	w->nr_submitted = w->next_unit = 0;
	w->idle = &wait;
	for (uint32_t i = 0; i < w->queue_depth && want_more(w); i++) {
		w->nr_in_flight++;
		submit(&w->ops[i], now);
	}
	if (w->nr_in_flight)
		fiber_wait(&wait);
	w->idle = NULL;
	w->end_ticks = clock_ticks();
	return 0;
}

static fiber_fn int worker_close(void *arg)
{
	struct perf_worker *w = arg;

	if (w->poller)
		poller_stop(w->poller);
	nvme_qpair_disconnect(w->qpair);
	dma_free(w->buffers);
	free(w->ops);
	return 0;
}

/* --- the run ---------------------------------------------------------------------------------- */

struct worker_call {
	struct perf_worker *worker;
	fiber_fn int (*fn)(void *arg);
	struct perf_calls *calls;
};

/* Workers called at once.  Owner: the app thread's fiber that waits for them. */
struct perf_calls {
	struct worker_call *each;
	uint32_t nr_left;
	struct fiber_wait wait;
};

static void call_one(void *arg)
{
	struct worker_call *call = arg;
	struct perf_calls *calls = call->calls;

	thread_call_fiber(call->worker->thread, call->fn, call->worker);
	if (--calls->nr_left == 0)
		fiber_wake(&calls->wait, 0);
}

/* Runs fn for all workers, on their threads, at the same time. */
static fiber_fn int start_all(struct perf_run *run, struct perf_calls *calls, fiber_fn int (*fn)(void *arg))
{
	uint32_t nr = run->opts->nr_queues;

	calls->each = calloc(nr, sizeof(*calls->each));
	if (!calls->each)
		return cli_nvme_fail(run->opts, "no memory");
	calls->nr_left = 0;
	fiber_wait_init(&calls->wait);
	for (uint32_t i = 0; i < nr; i++) {
		calls->each[i] = (struct worker_call){&run->workers[i], fn, calls};
		calls->nr_left++;
		if (fiber_spawn(thread_current(), "perf", call_one, &calls->each[i]))
			return cli_nvme_fail(run->opts, "no memory");
	}
	return 0;
}

static fiber_fn void finish_all(struct perf_calls *calls)
{
	if (calls->nr_left)
		fiber_wait(&calls->wait);
	free(calls->each);
}

static uint64_t ops_so_far(const struct perf_run *run)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < run->opts->nr_queues; i++) {
		for (int dir = 0; dir < NR_DIRS; dir++)
			sum += __atomic_load_n(&run->workers[i].nr_done[dir], __ATOMIC_RELAXED);
	}
	return sum;
}

static void progress_line(const struct perf_run *run, uint64_t second, uint64_t ops, uint64_t interval_us)
{
	double rate = (double)ops * 1e6 / (double)interval_us;

	fprintf(stderr, "%s%4llu s  %10.0f IOPS  %9.1f MiB/s%s", isatty(2) ? "\r" : "",
		(unsigned long long)second, rate, rate * run->opts->io_bytes / 1048576,
		isatty(2) ? "" : "\n");
}

/* Sleeps through a phase; early when all workers have stopped by themselves or someone has had enough. */
static fiber_fn void wait_phase(struct perf_run *run, const struct perf_calls *calls, uint64_t seconds,
				bool show)
{
	uint64_t begin_us = clock_now_us(), end_us = begin_us + seconds * 1000000, last_us = begin_us,
		 last_ops = ops_so_far(run);

	while (clock_now_us() < end_us && calls->nr_left && !cli_nvme_interrupted()) {
		uint64_t left_us = end_us - clock_now_us();

		fiber_sleep(left_us < 100000 ? left_us : 100000);
		uint64_t now_us = clock_now_us();

		if (!show || now_us - last_us < 1000000)
			continue;
		uint64_t ops = ops_so_far(run);

		progress_line(run, (now_us - begin_us) / 1000000, ops - last_ops, now_us - last_us);
		last_us = now_us;
		last_ops = ops;
	}
	if (show && isatty(2))
		fputc('\n', stderr);
}

/* When the last of workers that ended by themselves did. */
static uint64_t last_end(const struct perf_run *run)
{
	uint64_t last = run->begin_ticks + 1;

	for (uint32_t i = 0; i < run->opts->nr_queues; i++)
		if (run->workers[i].end_ticks > last)
			last = run->workers[i].end_ticks;
	return last;
}

static fiber_fn int run_phases(struct perf_run *run)
{
	bool show = run->opts->progress || (isatty(2) && !run->opts->json);
	struct perf_calls calls;

	run->phase = run->opts->warmup_seconds ? PHASE_WARMUP : PHASE_MEASURE;
	run->begin_ticks = clock_ticks();
	if (start_all(run, &calls, worker_run))
		return 1;
	if (run->phase == PHASE_WARMUP) {
		wait_phase(run, &calls, run->opts->warmup_seconds, false);
		run->begin_ticks = clock_ticks();
		run->phase = PHASE_MEASURE;
	}
	wait_phase(run, &calls, run->opts->seconds, show);
	run->end_ticks = calls.nr_left ? clock_ticks() : last_end(run);
	run->phase = PHASE_STOP;
	finish_all(&calls);
	if (run->opts->verify && !cli_nvme_interrupted()) {
		run->phase = PHASE_READ_BACK;
		if (start_all(run, &calls, worker_run))
			return 1;
		finish_all(&calls);
	}
	return 0;
}

/* --- setting up ------------------------------------------------------------------------------- */

/* Checks the options against what the namespace is. */
static int plan(struct perf_run *run)
{
	const struct cli_nvme_opts *opts = run->opts;
	uint64_t size = run->ns.nr_blocks * run->ns.block_size, range = opts->range_bytes;
	uint32_t bs = run->ns.block_size;

	if (opts->io_bytes % bs || opts->offset_bytes % bs)
		return cli_nvme_fail(opts,
				     "--bs %u and --offset %llu must be multiples of the block size, %u",
				     opts->io_bytes, (unsigned long long)opts->offset_bytes, bs);
	run->io_blocks = opts->io_bytes / bs;
	if (run->io_blocks > run->ns.max_xfer_blocks)
		return cli_nvme_fail(opts, "--bs %u is more than the controller takes at once: at most %llu",
				     opts->io_bytes, (unsigned long long)run->ns.max_xfer_blocks * bs);
	if (opts->offset_bytes >= size || (range && range > size - opts->offset_bytes))
		return cli_nvme_fail(opts, "--offset and --range lead past the namespace's end at %llu",
				     (unsigned long long)size);
	if (!range)
		range = size - opts->offset_bytes;
	run->first_block = opts->offset_bytes / bs;
	run->nr_units = range / opts->io_bytes;
	if (run->nr_units < opts->nr_queues)
		return cli_nvme_fail(opts, "the range of %llu bytes is too small for %u queues of %u bytes",
				     (unsigned long long)range, opts->nr_queues, opts->io_bytes);
	if (opts->verify && !(run->written = calloc(run->nr_units, 1)))
		return cli_nvme_fail(opts, "no memory to remember %llu blocks: a smaller --range needs less",
				     (unsigned long long)run->nr_units);
	return 0;
}

/* Queues each have their own part of the range, unless they may meet at random. */
static int make_workers(struct perf_run *run)
{
	const struct cli_nvme_opts *opts = run->opts;
	bool split = opts->sequential || opts->verify || opts->once;
	uint64_t part = split ? run->nr_units / opts->nr_queues : run->nr_units;

	run->workers = calloc(opts->nr_queues, sizeof(*run->workers));
	if (!run->workers)
		return cli_nvme_fail(opts, "no memory");
	run->ops_per_worker = (opts->nr_ops + opts->nr_queues - 1) / opts->nr_queues;
	if (opts->once && (!run->ops_per_worker || run->ops_per_worker > part))
		run->ops_per_worker = part;
	for (uint32_t i = 0; i < opts->nr_queues; i++) {
		struct perf_worker *w = &run->workers[i];
		char name[16];

		snprintf(name, sizeof(name), "perf%u", i);
		w->run = run;
		w->idx = (int)i;
		w->rand_state = mix(opts->seed + i + 1) | 1;
		w->first_unit = split ? part * i : 0;
		w->nr_units = part;
		for (int dir = 0; dir < NR_DIRS; dir++)
			latency_init(&w->latency[dir]);
		w->thread = thread_create(name, i % runtime_nr_reactors());
		if (!w->thread)
			return cli_nvme_fail(opts, "no memory for queue %u", i + 1);
	}
	return 0;
}

/* --- the report ------------------------------------------------------------------------------- */

static const double percents[] = {50, 90, 99, 99.9, 99.99};
static const char *const percent_names[] = {"p50", "p90", "p99", "p99.9", "p99.99"};

static double to_us(uint64_t ticks)
{
	return (double)ticks * 1e6 / (double)clock_tick_rate();
}

static json_t *latency_json(const struct latency *h)
{
	json_t *o = json_object();

	json_object_set_new(o, "min", json_real(to_us(h->count ? h->min : 0)));
	json_object_set_new(o, "avg", json_real(h->count ? to_us(h->sum) / (double)h->count : 0));
	for (unsigned i = 0; i < sizeof(percents) / sizeof(percents[0]); i++)
		json_object_set_new(o, percent_names[i],
				    json_real(to_us(latency_percentile(h, percents[i]))));
	json_object_set_new(o, "max", json_real(to_us(h->max)));
	return o;
}

static json_t *part_json(const struct perf_run *run, const struct latency *h, double seconds)
{
	double iops = (double)h->count / seconds;
	json_t *o = json_object();

	json_object_set_new(o, "ops", json_integer((json_int_t)h->count));
	json_object_set_new(o, "iops", json_real(iops));
	json_object_set_new(o, "mib_s", json_real(iops * run->opts->io_bytes / 1048576));
	json_object_set_new(o, "latency_us", latency_json(h));
	return o;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void print_part(const char *name, const struct perf_run *run, const struct latency *h, double seconds)
{
	double iops = (double)h->count / seconds;

	if (!h->count)
		return;
	printf("%-6s %10.0f IOPS %9.1f MiB/s   latency us: avg %.1f min %.1f", name, iops,
	       iops * run->opts->io_bytes / 1048576, to_us(h->sum) / (double)h->count, to_us(h->min));
	for (unsigned i = 0; i < sizeof(percents) / sizeof(percents[0]); i++)
		printf(" %s %.1f", percent_names[i], to_us(latency_percentile(h, percents[i])));
	printf(" max %.1f\n", to_us(h->max));
}

static int report(const struct perf_run *run)
{
	static const char *const names[] = {"read", "write", "total"};
	struct latency *h = calloc(NR_DIRS + 1, sizeof(*h));
	double seconds = (double)(run->end_ticks - run->begin_ticks) / (double)clock_tick_rate();
	json_t *root;

	if (!h)
		return cli_nvme_fail(run->opts, "no memory");
	for (int i = 0; i <= NR_DIRS; i++)
		latency_init(&h[i]);
	for (uint32_t i = 0; i < run->opts->nr_queues; i++) {
		for (int dir = 0; dir < NR_DIRS; dir++) {
			latency_add(&h[dir], &run->workers[i].latency[dir]);
			latency_add(&h[NR_DIRS], &run->workers[i].latency[dir]);
		}
	}
	if (!run->opts->json) {
		for (int i = 0; i <= NR_DIRS; i++) {
			if (i < NR_DIRS || (h[DIR_READ].count && h[DIR_WRITE].count))
				print_part(names[i], run, &h[i], seconds);
		}
		if (run->opts->verify)
			printf("verified: everything written reads back as written\n");
		free(h);
		return 0;
	}
	root = part_json(run, &h[NR_DIRS], seconds);
	json_object_set_new(root, "seconds", json_real(seconds));
	json_object_set_new(root, "host_cpu_seconds", json_real(cpu_seconds()));
	json_object_set_new(root, "read", part_json(run, &h[DIR_READ], seconds));
	json_object_set_new(root, "write", part_json(run, &h[DIR_WRITE], seconds));
	json_object_set_new(root, "verified", json_boolean(run->opts->verify));
	json_object_set_new(root, "hdgst", json_boolean(nvme_qpair_has_hdgst(nvme_ctrlr_admin(run->ctrlr))));
	json_object_set_new(root, "ddgst", json_boolean(nvme_qpair_has_ddgst(nvme_ctrlr_admin(run->ctrlr))));
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(root);
	free(h);
	return 0;
}

/* The first thing that went wrong in any worker; 0 when nothing did. */
static int worker_errors(const struct perf_run *run)
{
	for (uint32_t i = 0; run->workers && i < run->opts->nr_queues; i++) {
		const struct perf_worker *w = &run->workers[i];

		if (w->error.err)
			return cli_nvme_fail(run->opts, "queue %u: %s", i + 1, w->error.text);
		if (w->qpair && !nvme_qpair_is_live(w->qpair))
			return cli_nvme_fail(run->opts, "queue %u: %s", i + 1,
					     nvme_qpair_error(w->qpair)->text);
		if (w->first_status)
			return cli_nvme_fail(run->opts, "queue %u: an operation failed: %s (%03xh)", i + 1,
					     nvme_status_name(w->first_status),
					     nvme_status_code(w->first_status));
	}
	return 0;
}

static fiber_fn int call_all(struct perf_run *run, fiber_fn int (*fn)(void *arg))
{
	struct perf_calls calls;

	if (start_all(run, &calls, fn))
		return 1;
	finish_all(&calls);
	return 0;
}

fiber_fn int cli_nvme_perf(const struct cli_nvme_opts *opts)
{
	struct perf_run *run = calloc(1, sizeof(*run));
	struct nvme_error error = {0};
	unsigned nr_queues;
	int rc = 1;

	if (!run)
		return cli_nvme_fail(opts, "no memory");
	run->opts = opts;
	if (cli_nvme_connect(opts, &run->ctrlr))
		goto out_free;
	nr_queues = nvme_ctrlr_nr_io_queues(run->ctrlr);
	if (opts->nr_queues > nr_queues) {
		cli_nvme_fail(opts, "--queues %u: the controller gives %u", opts->nr_queues, nr_queues);
		goto out_disconnect;
	}
	if (nvme_ns_open(run->ctrlr, opts->nsid, &run->ns, &error)) {
		cli_nvme_fail(opts, "%s", error.text);
		goto out_disconnect;
	}
	if (plan(run) || make_workers(run))
		goto out_workers;
	rc = call_all(run, worker_open) || worker_errors(run) || run_phases(run) || worker_errors(run) ||
	     report(run);
	call_all(run, worker_close);
out_workers:
	for (uint32_t i = 0; run->workers && i < opts->nr_queues; i++) {
		if (run->workers[i].thread)
			thread_exit(run->workers[i].thread);
	}
out_disconnect:
	nvme_ctrlr_disconnect(run->ctrlr);
out_free:
	free(run->workers);
	free(run->written);
	free(run);
	return rc;
}
