/*
 * The crash laboratory: histories of a store on a disk that loses power.
 *
 * A history is a chain of phases.  Each runs in a child process, under the simulation: it opens what the phase before left,
 * judges it, and works on until a seeded moment, when power goes or the process dies.  Meanwhile, at every write, unmap and
 * flush of the disk, in work and in recovery alike, the child stops, and other children look at what a power cut right then
 * would leave.  One seed makes one history, and replays it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blob/mutant.h"
#include "runtime/keep.h"
#include "runtime/sim.h"
#include "test/crash/history.h"

#define CHILD_SECONDS 60
#define VIRTUAL_US    (60ull * 1000 * 1000) /* a phase that has not ended by then hangs */
#define KILLED	      42 /* exit status of a phase that was ended on purpose */

static struct {
	uint64_t first_seed, nr_seeds;
	uint64_t only_event; /* 0: all */
	unsigned nr_phases, every, nr_looks;
	bool verbose, mutants;
	const char *mutant;
	unsigned max_mutant_seeds, budget_s, enough;
} opt = { .first_seed = 1, .nr_seeds = 4, .nr_phases = 3, .every = 1, .nr_looks = 2, .max_mutant_seeds = 12 };

/* Counts that outlive children. */
static struct {
	uint64_t nr_events, nr_looks, nr_histories, nr_phases;
} *count;

/* Between a phase's process and the driver. */
struct channel_pair {
	int to_driver, from_child, to_child, from_driver;
};

static struct channel_pair pipes;
static uint64_t kill_at;

/* --- what a process's death leaves besides the disk --- */

static char kept[] = "/dev/shm/crash_lab.XXXXXX"; /* memory that outlives the phase's process */
static char kept_copy[sizeof(kept) + 8];		   /* the same, for one look */

static void kept_clear(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

static bool kept_make(void)
{
	if (!mkdtemp(kept))
		memcpy(kept, "/var/tmp/crlab.XXXXXX", sizeof("/var/tmp/crlab.XXXXXX"));
	if (!strchr(kept, 'X') || mkdtemp(kept)) {
		snprintf(kept_copy, sizeof(kept_copy), "%s/copy", kept);
		return !mkdir(kept_copy, 0700);
	}
	return false;
}

static void kept_remove(void)
{
	kept_clear(kept_copy);
	rmdir(kept_copy);
	kept_clear(kept);
	rmdir(kept);
}

static bool copy_file(int from_dir, int to_dir, const char *name)
{
	int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC), to = openat(to_dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct stat st;
	bool ok = from >= 0 && to >= 0 && !fstat(from, &st) && sendfile(to, from, NULL, st.st_size) == st.st_size;

	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return ok;
}

/* One look may change it, and the phase that was stopped for it goes on with its own. */
static bool kept_use_copy(void)
{
	int to = open(kept_copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = opendir(kept);
	struct dirent *entry;
	bool ok = d && to >= 0;

	kept_clear(kept_copy);
	while (ok && (entry = readdir(d)))
		if (entry->d_type == DT_REG)
			ok = copy_file(dirfd(d), to, entry->d_name);
	if (d)
		closedir(d);
	if (to >= 0)
		close(to);
	return ok && !keep_set_folder(kept_copy);
}

/* --- in the phase's process --- */

static void at_event(struct crash_disk *disk, uint64_t event, void *arg)
{
	char go;

	crash_disk_capture(disk);
	if (write(pipes.to_driver, &event, sizeof(event)) != sizeof(event) || read(pipes.from_driver, &go, 1) != 1)
		_exit(4);
	alarm(CHILD_SECONDS); /* the looks took their time */
	if (event == kill_at)
		_exit(KILLED);
	crash_disk_release(disk);
}

static void phase_child(struct history *h, unsigned phase)
{
	struct sim_opts sim = { .seed = h->seed * 1000 + phase, .nr_reactors = 1 + h->seed % 3,
				.max_virtual_us = VIRTUAL_US,
				.nr_small = 32, .nr_large = 8 };
	struct workload w = { .h = h, .phase = phase };
	int rc;

	close(pipes.from_child);
	close(pipes.to_child);
	alarm(CHILD_SECONDS);
	crash_disk_on_event(h->disk, at_event, NULL);
	if (keep_set_folder(kept))
		_exit(4);
	rc = sim_run(&sim, workload_main, &w);
	if (rc) {
		printf("  seed %lu phase %u: the simulation ended with %s\n", (unsigned long)h->seed, phase, strerror(-rc));
		workload_print_waiting();
	}
	fflush(stdout);
	_exit(rc || !w.clean ? 5 : 0);
}

/* --- looking --- */

static void look_child(struct history *h, uint64_t event, unsigned nr)
{
	uint64_t seed = h->seed * 1000003 + event * 17 + nr;
	struct sim_opts sim = { .seed = seed, .nr_reactors = 1, .max_virtual_us = VIRTUAL_US,
				.nr_small = 32, .nr_large = 8 };
	struct verification v = { .h = h, .seed = seed };
	/* Everything lost; everything kept but for what is in flight; or as it comes. */
	enum crash_fate fate = nr == 0 ? CRASH_FATE_LOSE_ALL : seed % 3 ? CRASH_FATE_SEEDED : CRASH_FATE_KEEP_ALL;
	bool dies = nr > 0 && seed % 4 == 0;
	int rc;

	alarm(CHILD_SECONDS);
	if (crash_disk_make_private(h->disk) || oracle_make_private(h->oracle))
		_exit(4);
	if (dies) {
		if (!kept_use_copy())
			_exit(4);
		crash_disk_process_died(h->disk, seed);
	} else {
		fate = crash_disk_lose_power(h->disk, fate, seed);
		h->oracle->power_lost = true;
	}
	rc = sim_run(&sim, verify_main, &v);
	if (v.wrong || rc) {
		printf("  seed %lu event %lu look %u (%s): %s\n", (unsigned long)h->seed, (unsigned long)event, nr,
		       dies ? "the process died" : crash_fate_name(fate), v.wrong ? v.wrong : strerror(-rc));
		fflush(stdout);
		_exit(1);
	}
	_exit(0);
}

static bool child_ok(pid_t pid, const struct history *h, const char *what, uint64_t event, int *ret_status)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (ret_status && WIFEXITED(status)) {
		*ret_status = WEXITSTATUS(status);
		return true;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (WIFSIGNALED(status))
		printf("  seed %lu event %lu: %s ended by signal %d (%s)\n", (unsigned long)h->seed, (unsigned long)event,
		       what, WTERMSIG(status), strsignal(WTERMSIG(status)));
	return false;
}

static bool look_at(struct history *h, uint64_t event)
{
	for (unsigned nr = 0; nr < opt.nr_looks; nr++) {
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (!pid) {
			struct history mine = *h;

			look_child(&mine, event, nr);
		}
		count->nr_looks++;
		if (!child_ok(pid, h, "a look", event, NULL))
			return false;
	}
	return true;
}

/* --- a history --- */

static bool run_phase(struct history *h, unsigned phase, bool *ret_killed)
{
	int up[2], down[2], status = -1;
	uint64_t event = 0;
	bool ok = true;
	pid_t pid;

	if (pipe(up) || pipe(down))
		return false;
	pipes = (struct channel_pair){ .to_driver = up[1], .from_child = up[0], .to_child = down[1], .from_driver = down[0] };
	fflush(stdout);
	pid = fork();
	if (!pid)
		phase_child(h, phase);
	close(up[1]);
	close(down[0]);
	count->nr_phases++;
	while (read(up[0], &event, sizeof(event)) == sizeof(event)) {
		count->nr_events++;
		if (opt.only_event ? event == opt.only_event : event % opt.every == h->seed % opt.every)
			ok = look_at(h, event);
		if (!ok || write(down[1], "g", 1) != 1)
			break;
	}
	close(up[0]);
	close(down[1]); /* a child that waits ends on that */
	if (!child_ok(pid, h, "a phase", event, &status))
		return false;
	*ret_killed = status == KILLED;
	if (ok && status != KILLED && status != 0)
		printf("  seed %lu phase %u: broken after event %lu (status %d)\n", (unsigned long)h->seed, phase,
		       (unsigned long)event, status);
	return ok && (status == KILLED || status == 0);
}

static void make_history(struct history *h, uint64_t seed)
{
	static const uint64_t mib = 1024 * 1024;
	uint64_t rng = seed * 0x2545f4914f6cdd1dull;
	struct crash_disk_opts disk = { .block_size = 512, .seed = seed, .garbage = true, .max_cache_bytes = 16 * mib };

	memset(h, 0, sizeof(*h));
	h->seed = seed;
	h->verbose = opt.verbose;
	disk.atomic_blocks = history_rand(&rng) % 3 ? 1 : 8;
	disk.unmap_keeps = history_rand(&rng) % 3 == 0;
	disk.write_through = history_rand(&rng) % 8 == 0;
	disk.max_delay_us = 1 + history_rand(&rng) % 300;
	disk.nr_blocks = (4 + history_rand(&rng) % 3 * 4) * mib / disk.block_size;
	h->cluster_bytes = 32768u << history_rand(&rng) % 2;
	h->journal_pages = 8u << history_rand(&rng) % 3;
	while (h->journal_pages * 4096ull * 32 > disk.nr_blocks * disk.block_size)
		h->journal_pages /= 2;
	h->leaf_shift = 2 + history_rand(&rng) % 3;
	h->inner_shift = 1 + history_rand(&rng) % 3;
	h->nr_threads = 1 + history_rand(&rng) % 3;
	h->nr_fibers = history_rand(&rng) % 2 ? 2 + history_rand(&rng) % 3 : 8 + history_rand(&rng) % 8;
	h->nr_ops = 60 + history_rand(&rng) % 160;
	h->max_blocks = 512u << history_rand(&rng) % 3;
	/* Few of either: commits are large, and their journal pages full. */
	h->flush_percent = history_rand(&rng) % 2 ? 12 : 2;
	h->fua_one_in = history_rand(&rng) % 2 ? 6 : 40;
	if (opt.verbose)
		printf("seed %lu: %lu MiB, atomic %u, %s%s, delays to %lu us; clusters of %u, journal of %u pages, leaves 2^%u, "
		       "inner 2^%u; %u threads of %u fibers, %u operations, %u%% flushes, FUA 1 in %u, volumes to %lu blocks\n",
		       (unsigned long)seed, (unsigned long)(disk.nr_blocks * disk.block_size / mib), disk.atomic_blocks,
		       disk.write_through ? "write-through" : "write-back", disk.unmap_keeps ? ", unmap keeps" : "",
		       (unsigned long)disk.max_delay_us, h->cluster_bytes, h->journal_pages, h->leaf_shift, h->inner_shift,
		       h->nr_threads, h->nr_fibers, h->nr_ops, h->flush_percent, h->fua_one_in, (unsigned long)h->max_blocks);
	/* Much I/O while few volumes change, or the other way round. */
	h->pause_us = history_rand(&rng) % 3 ? 200 * h->nr_threads * h->nr_fibers : 200;
	h->disk = crash_disk_create(&disk);
	h->oracle = oracle_create();
	if (!h->disk || !h->oracle) {
		fprintf(stderr, "no memory for a history\n");
		exit(2);
	}
}

static bool run_history(uint64_t seed)
{
	uint64_t rng = seed ^ 0x68697374ull;
	struct history h;
	bool ok = true;

	make_history(&h, seed);
	for (unsigned phase = 0; phase < opt.nr_phases && ok; phase++) {
		uint64_t at = crash_disk_nr_events(h.disk), die = history_rand(&rng) % 3, fate_seed;
		bool killed = false;

		kill_at = at + 1 + history_rand(&rng) % 240;
		ok = run_phase(&h, phase, &killed);
		fate_seed = history_rand(&rng);
		if (opt.verbose)
			printf("  seed %lu phase %u: events %lu to %lu, %s\n", (unsigned long)seed, phase,
			       (unsigned long)at + 1, (unsigned long)crash_disk_nr_events(h.disk),
			       !killed ? "closed" : die ? "power cut" : "process died");
		if (killed && !die) {
			crash_disk_process_died(h.disk, fate_seed);
		} else {
			crash_disk_lose_power(h.disk, killed ? CRASH_FATE_SEEDED : CRASH_FATE_LOSE_ALL, fate_seed);
			h.oracle->power_lost = true;
			kept_clear(kept);
		}
	}
	kept_clear(kept);
	crash_disk_destroy(h.disk);
	oracle_destroy(h.oracle);
	count->nr_histories++;
	return ok;
}

/* --- mutants --- */

#ifdef BLOB_MUTANTS
static bool kill_mutant(enum blob_mutant mutant)
{
	blob_mutant = mutant;
	for (uint64_t i = 0; i < 2 * opt.max_mutant_seeds; i++) {
		/* At first few looks at many histories: most bugs need no more. */
		opt.every = i < opt.max_mutant_seeds ? 8 : 1;
		if (!run_history(opt.first_seed + i)) {
			printf("mutant %s: killed by seed %lu\n", blob_mutant_name(mutant), (unsigned long)(opt.first_seed + i));
			return true;
		}
	}
	printf("mutant %s: survived %u histories\n", blob_mutant_name(mutant), 2 * opt.max_mutant_seeds);
	return false;
}

static int kill_mutants(void)
{
	unsigned killed = 0, nr = 0;

	for (enum blob_mutant m = BLOB_MUTANT_NONE + 1; m < BLOB_MUTANT_NR; m++) {
		if (opt.mutant && strcmp(opt.mutant, blob_mutant_name(m)))
			continue;
		nr++;
		killed += kill_mutant(m);
		fflush(stdout);
		if (opt.enough && killed == opt.enough)
			break;
	}
	printf("%u of %u mutants killed\n", killed, nr);
	return killed >= (nr < 8 ? nr : 8) && nr ? 0 : 1;
}
#else
static int kill_mutants(void)
{
	fprintf(stderr, "there are mutants only in crash_lab_mutants\n");
	return 2;
}
#endif

/* --- command line --- */

static void usage(void)
{
	fputs("usage: crash_lab [--seed N] [--seeds N] [--event N] [--every N] [--looks N] [--phases N] [--budget SECONDS]\n"
	      "                 [--verbose] [--mutants] [--mutant NAME] [--mutant-seeds N] [--enough N]\n",
	      stderr);
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' },	   { "seeds", 1, NULL, 'n' },	{ "event", 1, NULL, 'e' },
		{ "every", 1, NULL, 'y' },	   { "looks", 1, NULL, 'l' },	{ "phases", 1, NULL, 'p' },
		{ "verbose", 0, NULL, 'v' },	   { "mutants", 0, NULL, 'm' }, { "mutant", 1, NULL, 'M' },
		{ "mutant-seeds", 1, NULL, 'S' }, { "budget", 1, NULL, 'b' },
		{ "enough", 1, NULL, 'E' },	   { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 's':
			opt.first_seed = n;
			opt.nr_seeds = 1;
			break;
		case 'n':
			opt.nr_seeds = n;
			break;
		case 'e':
			opt.only_event = n;
			break;
		case 'y':
			opt.every = n ? n : 1;
			break;
		case 'l':
			opt.nr_looks = n;
			break;
		case 'p':
			opt.nr_phases = n;
			break;
		case 'b':
			opt.budget_s = n;
			break;
		case 'E':
			opt.enough = n;
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 'M':
			opt.mutant = optarg;
			opt.mutants = true;
			break;
		case 'm':
			opt.mutants = true;
			break;
		case 'S':
			opt.max_mutant_seeds = n;
			break;
		default:
			usage();
		}
	}
	if (optind != argc)
		usage();
}

int main(int argc, char **argv)
{
	time_t began = time(NULL);
	unsigned nr_bad = 0;

	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(opt.verbose ? LOG_NOTICE : LOG_ERROR);
	count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (count == MAP_FAILED)
		return 2;
	if (!kept_make() || atexit(kept_remove))
		return 2;
	if (opt.mutants)
		return kill_mutants();
	for (uint64_t i = 0; i < opt.nr_seeds; i++) {
		if (opt.budget_s && time(NULL) - began > opt.budget_s)
			break;
		if (!run_history(opt.first_seed + i)) {
			printf("seed %lu failed; again: crash_lab --seed %lu --verbose\n", (unsigned long)(opt.first_seed + i),
			       (unsigned long)(opt.first_seed + i));
			nr_bad++;
		}
		fflush(stdout);
	}
	printf("%lu histories from seed %lu, %lu phases, %lu crash points, %lu looks: %u failed\n",
	       (unsigned long)count->nr_histories, (unsigned long)opt.first_seed, (unsigned long)count->nr_phases,
	       (unsigned long)count->nr_events, (unsigned long)count->nr_looks, nr_bad);
	return nr_bad ? 1 : 0;
}
