/*
 * storebench: what a large store takes.  On a made-up device of terabytes that keeps metadata and drops data, it maps a volume
 * whole, takes snapshots and clones, counts, compares, deletes, makes many small volumes, opens again; and prints how
 * long each took, in microseconds unless it says otherwise, and the store's memory.
 *
 * --writes: first writes of 4 KiB to a fresh volume, and after a snapshot, beside overwrites.
 * --deletes: snapshots that have a volume's whole map alone are deleted while another volume is written.
 * --recovery: it maps a volume whole, fills the journal with random first writes while no checkpoint ends, dies, and opens
 * the store with nothing in memory.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bdev/bdev.h"
#include "tools/storebench.h"

/* --- what is measured --- */

static uint64_t started, cpu_started;

/* Of the process; what it waited for a CPU on a busy machine is not in it. */
static uint64_t cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000ull + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

void begin(void)
{
	started = clock_now_us();
	cpu_started = cpu_us();
}

uint64_t end(const char *what)
{
	uint64_t took = clock_now_us() - started;

	printf("%-48s %12llu   CPU %llu\n", what, (unsigned long long)took,
	       (unsigned long long)(cpu_us() - cpu_started));
	fflush(stdout);
	return took;
}

void check(const char *what, int rc)
{
	if (!rc)
		return;
	printf("%s: %s\n", what, strerror(-rc));
	exit(1);
}

fiber_fn struct blob *copy(struct blob *from, const char *name, bool snapshot)
{
	struct blob_copy_opts opts = { .name = name };
	struct blob *blob = NULL;

	check(name, snapshot ? blob_snapshot(from, &opts, &blob) : blob_clone(from, &opts, &blob));
	return blob;
}

fiber_fn void memory_now(struct store *store, const char *when)
{
	struct store_stats stats;

	store_get_stats(store, &stats);
	printf("%-48s %12.1f MiB in maps and counts\n", when, stats.resident_bytes / 1048576.0);
	fflush(stdout);
}

/* Reads in turn, so that what the machine does meanwhile meets all of them. */
static fiber_fn void read_at_depths(struct blob_channel *ch, struct blob *const *at)
{
	double rates[3] = { 0 };

	for (unsigned round = 0; round < 5; round++)
		for (unsigned i = 0; i < 3; i++)
			rates[i] += run(at[i], ch, BLOB_READ, 400000, MIB, RANDOM) / 5;
	for (unsigned i = 0; i < 3; i++)
		printf("%-45s%3u %12.0f /s, %.2f of those at depth 1\n", "random reads, clone depth", i == 2 ? 100 : i ? 10 : 1, rates[i],
		       rates[i] / rates[0]);
}

/* A clone of a snapshot of a clone and so on, each of which has written something. */
static fiber_fn void depths(struct store *store, struct blob_channel *ch)
{
	struct blob *deep = store_find_blob(store, "clone-0"), *clone, *at[3];
	char name[32];

	blob_open(deep);
	at[0] = deep;
	for (unsigned i = 1; i < 100; i++) {
		snprintf(name, sizeof(name), "deep-%u", i);
		run(deep, ch, BLOB_WRITE, 100, MIB, RANDOM);
		clone = copy(deep, name, true);
		snprintf(name, sizeof(name), "deeper-%u", i);
		clone = copy(clone, name, false);
		blob_open(clone);
		deep = clone;
		if (i == 9)
			at[1] = deep;
	}
	at[2] = deep;
	read_at_depths(ch, at);
	blob_close(store_find_blob(store, "clone-0"));
	for (unsigned i = 1; i < 100; i++) {
		snprintf(name, sizeof(name), "deeper-%u", i);
		blob_close(store_find_blob(store, name));
	}
}

static fiber_fn void whole(struct store *store, struct blob_channel *ch, uint64_t tib)
{
	struct blob_create_opts opts = { .name = "volume", .size_bytes = tib << 40 };
	struct blob *volume, *snapshot, *clone;
	struct blob_diff diff;
	struct blob_range ranges[64];
	uint64_t clusters = tib << 20, nr_ranges = 0, exclusive;
	char name[32];
	uint32_t nr;

	check("create", blob_create(store, &opts, &volume));
	blob_open(volume);
	printf("%-48s %12.0f /s\n", "first writes, a cluster each", run(volume, ch, BLOB_WRITE, clusters, MIB, IN_ORDER));
	memory_now(store, "mapped, 4 KiB in each cluster");
	printf("%-48s %12.0f /s\n", "random overwrites", run(volume, ch, BLOB_WRITE, 1000000, MIB, RANDOM));
	printf("%-48s %12.0f /s\n", "random reads", run(volume, ch, BLOB_READ, 1000000, MIB, RANDOM));
	for (unsigned i = 0; i < 3; i++) {
		begin();
		check("exclusive", blob_exclusive(volume, &exclusive));
		end("exclusive space, all its own");
	}
	begin();
	snapshot = copy(volume, "snapshot", true);
	end("snapshot");
	places_max = clusters / 8;
	printf("%-48s %12.0f /s\n", "first random writes after it", run(volume, ch, BLOB_WRITE, clusters / 12, MIB, RANDOM));
	printf("%-48s %12.0f /s\n", "... and more of them, most overwrites", run(volume, ch, BLOB_WRITE, 1000000, MIB, RANDOM));
	printf("%-48s %12.0f /s\n", "random overwrites", run(volume, ch, BLOB_WRITE, 1000000, MIB, RANDOM));
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
	depths(store, ch);
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
		run(blob, ch, BLOB_WRITE, 1, MIB, IN_ORDER);
		blob_close(blob);
	}
	end("a write to each");
	memory_now(store, "with them");
}

static uint64_t tib = 1, nr_small = 100000;
static struct store_open_opts open_opts;

enum mode { WHOLE, WRITES, DELETES, RECOVERY, NR_MODES };
static const char *const mode_options[NR_MODES] = { NULL, "--writes", "--deletes", "--recovery" };
static enum mode mode;

static void bench(void *arg)
{
	struct store_create_opts create = { .name = "store" };
	struct blob_channel *ch;
	struct store *store;

	check("device", sparse_create(tib && mode != WRITES ? (tib << 40) + (tib << 37) : 1ull << 40));
	check("create", store_create("sparse", &create, &open_opts, &store, NULL));
	ch = blob_channel_get(store);
	if (mode == RECOVERY) {
		recovery(store, ch, tib, &open_opts); /* it closes both */
		bdev_unregister_all();
		runtime_stop(0);
		return;
	}
	if (mode == WRITES)
		writes(store, ch, tib);
	else if (mode == DELETES)
		deletes(store, ch, tib);
	else if (tib)
		whole(store, ch, tib);
	if (mode == WHOLE)
		many(store, ch, nr_small);
	blob_channel_put(ch);
	begin();
	check("close", store_close(store));
	end("close");
	if (mode == WHOLE) {
		begin();
		check("open", store_open("sparse", &open_opts, &store, NULL));
		end("open");
		memory_now(store, "opened");
		check("close", store_close(store));
	}
	bdev_unregister_all();
	runtime_stop(0);
}

int main(int argc, char **argv)
{
	struct runtime_opts runtime = { .name = "storebench" };

	for (unsigned i = 1; i < NR_MODES; i++)
		if (argc > 1 && !strcmp(argv[1], mode_options[i]))
			mode = i;
	argc -= mode != WHOLE;
	argv += mode != WHOLE;
	if (argc > 1)
		tib = strtoull(argv[1], NULL, 10);
	if (argc > 2 && mode == RECOVERY)
		open_opts.map_cache_bytes = strtoull(argv[2], NULL, 10) * MIB;
	else if (argc > 2)
		nr_small = strtoull(argv[2], NULL, 10);
	if ((!tib && mode != WHOLE) || nr_small < 16) {
		fprintf(stderr, "usage: storebench [TIB] [SMALL-VOLUMES] | --writes [GIB] | --deletes [TIB] | --recovery [TIB] "
				"[MAP-CACHE-MIB]\n");
		return 1;
	}
	return runtime_run(&runtime, bench, NULL) ? 1 : 0;
}
