/*
 * The crash laboratory's command: runs histories and scripts, each in a child process, says how to see a failure again, and
 * kills mutants.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blob/mutant.h"
#include "runtime/runtime.h"
#include "test/crash/history.h"
#include "test/crash/kept.h"

#define NR_AGES		12u
#define SCRIPTS_A_CHILD 64u
#define FAILURES_A_CHILD 1u

static struct {
	uint64_t first_seed, nr_seeds, age, script;
	unsigned damage; /* every so many pages; 0: none */
	bool mutants, scripts_only, failures;
	uint64_t nr_ages; /* that failures begin from */
	const char *mutant;
	unsigned budget_s, mutant_s;
	struct scrutiny scrutiny;
} opt = { .first_seed = 1, .nr_seeds = 4, .script = HISTORY_NO_SCRIPT, .mutant_s = 60, .nr_ages = NR_AGES,
	  .scrutiny = { .every = 1, .nr_looks = 3, .nr_phases = 3, .nested_one_in = 8 } };

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* --- children --- */

static void tell_how_to_see_it_again(const char *program)
{
	char name[128];

	if (opt.damage) {
		printf("again: %s --damage %u --seed %lu\n", program, opt.damage, (unsigned long)opt.first_seed);
		return;
	}

	if (witness->script == HISTORY_NO_SCRIPT) {
		printf("again: %s --seed %lu --event %lu --verbose\n", program, (unsigned long)witness->seed,
		       (unsigned long)witness->event);
		return;
	}
	script_name(witness->script, name, sizeof(name));
	if (opt.failures) {
		printf("again: %s --failures --age %lu --script %lu --verbose (%s; failure %lu of kind %u)\n", program,
		       (unsigned long)witness->seed, (unsigned long)witness->script, name, (unsigned long)witness->event,
		       witness->look);
		return;
	}
	printf("again: %s --age %lu --script %lu --event %lu --verbose (%s)\n", program, (unsigned long)witness->seed,
	       (unsigned long)witness->script, (unsigned long)witness->event, name);
}

static bool child_ok(pid_t pid, const char *program)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (WIFSIGNALED(status))
		printf("  seed %lu event %lu: ended by signal %d (%s) in %s\n", (unsigned long)witness->seed,
		       (unsigned long)witness->event, WTERMSIG(status), strsignal(WTERMSIG(status)),
		       witness->nested ? "a look at a crash within recovery" : "the work or a look");
	tell_how_to_see_it_again(program);
	return false;
}

static bool run_history(uint64_t seed, const char *program)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		history_run(seed, &opt.scrutiny);
	return child_ok(pid, program);
}

static bool run_scripts(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s, const char *program)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid && opt.failures)
		history_run_failures(age, first, nr, stride, end_s, &opt.scrutiny);
	if (!pid)
		history_run_scripts(age, first, nr, stride, end_s, &opt.scrutiny);
	return child_ok(pid, program);
}

/* The i-th round: a history, or some scripts on one of the ages.  Primes step through all scripts in the end. */
static bool run_round(uint64_t i, uint64_t end_s, const char *program)
{
	static const uint64_t stride = 7919;
	uint64_t n = i / 2;

	if (opt.mutants && i % 8 == 7) { /* some with failures */
		bool ok;

		opt.failures = true;
		ok = run_scripts(1 + i / 8 % NR_AGES, i * stride % script_count(), FAILURES_A_CHILD, stride, end_s, program);
		opt.failures = false;
		return ok;
	}
	if (i % 2 == 0 && !opt.scripts_only && !opt.failures)
		return run_history(opt.first_seed + n, program);
	if (opt.failures)
		return run_scripts(1 + i % opt.nr_ages, (opt.first_seed + i) * stride % script_count(), FAILURES_A_CHILD, stride, end_s,
				   program);
	return run_scripts(1 + n % NR_AGES, n * SCRIPTS_A_CHILD * stride % script_count(), SCRIPTS_A_CHILD, stride, end_s,
			   program);
}

/* --- mutants --- */

#ifdef BLOB_MUTANTS
/* Of all children that have ended. */
static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static bool kill_mutant(enum blob_mutant mutant, const char *program, double *ret_s)
{
	double began = cpu_s();

	blob_mutant = mutant;
	for (uint64_t i = 0; cpu_s() - began < opt.mutant_s; i++) {
		/* At first few looks at many histories: most bugs need no more. */
		opt.scrutiny.every = i < 24 ? 8 : 1;
		if (!run_round(i, 0, program)) {
			*ret_s = cpu_s() - began;
			printf("mutant %s: killed in %.1f s\n", blob_mutant_name(mutant), *ret_s);
			return true;
		}
	}
	printf("mutant %s: survived %u s\n", blob_mutant_name(mutant), opt.mutant_s);
	return false;
}

static int compare_times(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int kill_mutants(const char *program)
{
	double times[BLOB_MUTANT_NR], began = now_s();
	unsigned killed = 0, nr = 0;

	for (enum blob_mutant m = BLOB_MUTANT_NONE + 1; m < BLOB_MUTANT_NR; m++) {
		if (opt.mutant && strcmp(opt.mutant, blob_mutant_name(m)))
			continue;
		nr++;
		killed += kill_mutant(m, program, &times[killed]);
		fflush(stdout);
		if (opt.budget_s && now_s() - began > opt.budget_s)
			break;
	}
	qsort(times, killed, sizeof(times[0]), compare_times);
	printf("%u of %u mutants killed, the median one in %.1f s of one core\n", killed, nr, killed ? times[killed / 2] : 0.0);
	/* In haste the slow ones may live. */
	return nr && killed >= (opt.budget_s ? nr - nr / 4 : nr) ? 0 : 1;
}
#else
static int kill_mutants(const char *program)
{
	fprintf(stderr, "there are mutants only in %s_mutants\n", program);
	return 2;
}
#endif

/* --- command line --- */

static void usage(void)
{
	fputs("usage: crash_lab [--seed N | --age N --script N] [--event N] [--seeds N] [--budget SECONDS] [--scripts | --failures [--ages N] | --damage STEP]\n"
	      "                 [--every N] [--looks N] [--phases N] [--nested N] [--verbose]\n"
	      "                 [--mutants] [--mutant NAME] [--mutant-seconds N]\n",
	      stderr);
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' },	{ "seeds", 1, NULL, 'n' },    { "event", 1, NULL, 'e' },
		{ "every", 1, NULL, 'y' },	{ "looks", 1, NULL, 'l' },    { "phases", 1, NULL, 'p' },
		{ "verbose", 0, NULL, 'v' },	{ "mutants", 0, NULL, 'm' },  { "mutant", 1, NULL, 'M' },
		{ "mutant-seconds", 1, NULL, 'S' }, { "budget", 1, NULL, 'b' },
		{ "age", 1, NULL, 'a' },	{ "script", 1, NULL, 'c' },   { "scripts", 0, NULL, 'C' },
		{ "nested", 1, NULL, 'N' },	{ "failures", 0, NULL, 'F' },	{ "ages", 1, NULL, 'g' },	{ "damage", 1, NULL, 'D' }, { 0 },
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
			opt.scrutiny.only_event = n;
			break;
		case 'y':
			opt.scrutiny.every = n ? n : 1;
			break;
		case 'l':
			opt.scrutiny.nr_looks = n;
			break;
		case 'p':
			opt.scrutiny.nr_phases = n;
			break;
		case 'N':
			opt.scrutiny.nested_one_in = n;
			break;
		case 'a':
			opt.age = n;
			break;
		case 'c':
			opt.script = n;
			break;
		case 'C':
			opt.scripts_only = true;
			break;
		case 'D':
			opt.damage = n ? n : 1;
			break;
		case 'F':
			opt.failures = true;
			break;
		case 'g':
			opt.nr_ages = n && n < NR_AGES ? n : NR_AGES;
			break;
		case 'b':
			opt.budget_s = n;
			break;
		case 'v':
			opt.scrutiny.verbose = true;
			break;
		case 'M':
			opt.mutant = optarg;
			opt.mutants = true;
			break;
		case 'm':
			opt.mutants = true;
			break;
		case 'S':
			opt.mutant_s = n;
			break;
		default:
			usage();
		}
	}
	if (optind != argc)
		usage();
}

static unsigned run_all(const char *program)
{
	double began = now_s();
	unsigned nr_bad = 0;

	if (opt.script != HISTORY_NO_SCRIPT)
		return !run_scripts(opt.age, opt.script, 1, 1, 0, program);
	if (opt.nr_seeds == 1)
		return !run_history(opt.first_seed, program);
	for (uint64_t i = 0; i < 2 * opt.nr_seeds && !(opt.budget_s && now_s() - began > opt.budget_s); i++) {
		nr_bad += !run_round(i, opt.budget_s ? time(NULL) + (uint64_t)(began + opt.budget_s - now_s()) + 1 : 0, program);
		fflush(stdout);
	}
	return nr_bad;
}

int main(int argc, char **argv)
{
	double began = now_s();
	unsigned nr_bad;

	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(opt.scrutiny.verbose ? LOG_WARNING : LOG_ERROR);
	if (!witness_create() || !kept_init())
		return 2;
	if (opt.mutants)
		return kill_mutants(argv[0]);
	if (opt.damage) {
		pid_t pid = fork();

		if (!pid)
			damage_run(opt.first_seed % opt.damage, opt.damage);
		return !child_ok(pid, argv[0]);
	}
	nr_bad = run_all(argv[0]);
	if (opt.failures)
		printf("%lu operations and allocations were made to fail\n", (unsigned long)witness->nr_failures);
	printf("%lu calls on volumes, of which %lu snapshots, %lu clones, %lu of bdevs, %lu reverts, %lu new parents, %lu inflations, %lu shallow "
	       "copies, %lu growths of stores; %lu lies of the disk\n", (unsigned long)witness->nr_calls,
	       (unsigned long)witness->nr_snapshots, (unsigned long)witness->nr_clones, (unsigned long)witness->nr_outsides,
	       (unsigned long)witness->nr_reverts, (unsigned long)witness->nr_set_parents, (unsigned long)witness->nr_inflates,
	       (unsigned long)witness->nr_copies, (unsigned long)witness->nr_grows, (unsigned long)witness->nr_lies);
	printf("%lu histories from seed %lu, %lu scripts, %lu phases, %lu crash points, %lu looks (%lu within recoveries, %lu twice, "
	       "%lu spared), %lu distinct crash states, %.0f s: %u failed\n",
	       (unsigned long)witness->nr_histories, (unsigned long)opt.first_seed, (unsigned long)witness->nr_scripts,
	       (unsigned long)witness->nr_phases, (unsigned long)witness->nr_events, (unsigned long)witness->nr_looks,
	       (unsigned long)witness->nr_nested, (unsigned long)witness->nr_again, (unsigned long)witness->nr_skipped,
	       (unsigned long)witness->nr_distinct, now_s() - began, nr_bad);
	return nr_bad ? 1 : 0;
}
