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

#include "runtime/runtime.h"
#include "test/crash/crash_lab.h"
#include "test/crash/kept.h"

#define NR_AGES		13u /* 0: just made */
#define SCRIPTS_A_CHILD 64u
#define FAILURES_A_CHILD 1u

struct crash_lab_opts opt = { .first_seed = 1, .nr_seeds = 4, .script = HISTORY_NO_SCRIPT, .mutant_s = 60,
			      .scrutiny = { .every = 1, .nr_looks = 3, .nr_phases = 3, .nested_one_in = 8 } };

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

double crash_lab_cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* --- children --- */

static void tell_how_to_see_it_again(void)
{
	char name[128];

	if (opt.damage) {
		printf("again: %s --damage %u --seed %lu\n", opt.program, opt.damage, (unsigned long)opt.first_seed);
		return;
	}

	if (witness->script == HISTORY_NO_SCRIPT) {
		printf("again: %s --seed %lu --event %lu --verbose\n", opt.program, (unsigned long)witness->seed,
		       (unsigned long)witness->event);
		return;
	}
	script_name(witness->script, name, sizeof(name));
	if (opt.failures) {
		printf("again: %s --failures --age %lu --script %lu --verbose (%s; failure %lu of kind %u)\n", opt.program,
		       (unsigned long)witness->seed, (unsigned long)witness->script, name, (unsigned long)witness->event,
		       witness->look);
		return;
	}
	printf("again: %s --age %lu --script %lu --event %lu --verbose (%s)\n", opt.program, (unsigned long)witness->seed,
	       (unsigned long)witness->script, (unsigned long)witness->event, name);
}

static bool child_ok(pid_t pid)
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
	tell_how_to_see_it_again();
	return false;
}

static bool run_history(uint64_t seed)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		history_run(seed, &opt.scrutiny);
	return child_ok(pid);
}

static bool run_scripts(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid && opt.failures)
		history_run_failures(age, first, nr, stride, end_s, &opt.scrutiny);
	if (!pid)
		history_run_scripts(age, first, nr, stride, end_s, &opt.scrutiny);
	return child_ok(pid);
}

/* Primes step through all scripts in the end. */
bool crash_lab_round(uint64_t i, uint64_t end_s)
{
	static const uint64_t stride = 7919;
	uint64_t n = i / 2;

	if (opt.mutants && i % 8 == 7) { /* some with failures */
		bool ok;

		opt.failures = true;
		ok = run_scripts(i / 8 % NR_AGES, i * stride % script_count(), FAILURES_A_CHILD, stride, end_s);
		opt.failures = false;
		return ok;
	}
	if (i % 2 == 0 && !opt.scripts_only && !opt.failures)
		return run_history(opt.first_seed + n);
	if (opt.failures && i < script_nr_single())
		return run_scripts(1 + i % (NR_AGES - 1), script_single(i), FAILURES_A_CHILD, stride, 0);
	if (opt.failures)
		return run_scripts(i % NR_AGES, (opt.first_seed + i) * stride % script_count(), FAILURES_A_CHILD, stride, end_s);
	return run_scripts(n % NR_AGES, (opt.first_seed - 1 + n) * SCRIPTS_A_CHILD * stride % script_count(), SCRIPTS_A_CHILD, stride, end_s);
}

/* --- command line --- */

static void usage(void)
{
	fputs("usage: crash_lab [--seed N | --age N --script N] [--event N] [--first SEED] [--seeds N] [--budget SECONDS] [--cpu-budget SECONDS] [--states N]\n"
	      "                 [--scripts | --failures | --damage STEP]\n"
	      "                 [--every N] [--looks N] [--phases N] [--nested N] [--verbose]\n"
	      "                 [--mutants] [--mutant NAME] [--mutant-seconds N] [--known]\n",
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
		{ "nested", 1, NULL, 'N' },	{ "failures", 0, NULL, 'F' },	{ "damage", 1, NULL, 'D' },
		{ "first", 1, NULL, 'f' },	{ "known", 0, NULL, 'k' },	{ "states", 1, NULL, 't' },	{ "cpu-budget", 1, NULL, 'B' }, { 0 },
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
		case 'b':
			opt.budget_s = n;
			break;
		case 'f':
			opt.first_seed = n;
			break;
		case 'k':
			opt.known = true;
			break;
		case 't':
			opt.nr_states = n;
			break;
		case 'B':
			opt.cpu_budget_s = n;
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

static bool is_over(uint64_t round, double began)
{
	if (opt.failures && round < script_nr_single())
		return false; /* each operation at least once */
	return (opt.budget_s && now_s() - began > opt.budget_s) || (opt.cpu_budget_s && crash_lab_cpu_s() > opt.cpu_budget_s) ||
	       (opt.nr_states && witness->nr_distinct >= opt.nr_states);
}

static unsigned run_all(void)
{
	double began = now_s();
	unsigned nr_bad = 0;

	if (opt.script != HISTORY_NO_SCRIPT)
		return !run_scripts(opt.age, opt.script, 1, 1, 0);
	if (opt.nr_seeds == 1)
		return !run_history(opt.first_seed);
	for (uint64_t i = 0; i < 2 * opt.nr_seeds && !is_over(i, began); i++) {
		nr_bad += !crash_lab_round(i, opt.budget_s ? time(NULL) + (uint64_t)(began + opt.budget_s - now_s()) + 1 : 0);
		fflush(stdout);
	}
	if (witness->nr_distinct < opt.nr_states) {
		printf("  %lu distinct crash states in %.0f s of one core are too few\n", (unsigned long)witness->nr_distinct,
		       crash_lab_cpu_s());
		nr_bad++;
	}
	return nr_bad;
}

int main(int argc, char **argv)
{
	double began = now_s();
	unsigned nr_bad;

	opt.program = argv[0];
	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(opt.scrutiny.verbose ? LOG_WARNING : LOG_ERROR);
	if (!witness_create() || !kept_init())
		return 2;
	if (opt.mutants)
		return mutants_kill();
	if (opt.damage) {
		pid_t pid = fork();

		if (!pid)
			damage_run(opt.first_seed % opt.damage, opt.damage);
		return !child_ok(pid);
	}
	nr_bad = run_all();
	if (opt.failures)
		printf("%lu operations and allocations were made to fail\n", (unsigned long)witness->nr_failures);
	printf("%lu calls on volumes, of which %lu snapshots, %lu clones, %lu of bdevs, %lu reverts, %lu new parents, %lu inflations, %lu shallow "
	       "copies, %lu growths of stores; %lu lies of the disk\n", (unsigned long)witness->nr_calls,
	       (unsigned long)witness->nr_snapshots, (unsigned long)witness->nr_clones, (unsigned long)witness->nr_outsides,
	       (unsigned long)witness->nr_reverts, (unsigned long)witness->nr_set_parents, (unsigned long)witness->nr_inflates,
	       (unsigned long)witness->nr_copies, (unsigned long)witness->nr_grows, (unsigned long)witness->nr_lies);
	printf("%lu histories from seed %lu, %lu scripts, %lu phases, %lu crash points, %lu looks (%lu within recoveries, %lu twice, "
	       "%lu spared), %lu distinct crash states, %.0f s, %.0f of one core: %u failed\n",
	       (unsigned long)witness->nr_histories, (unsigned long)opt.first_seed, (unsigned long)witness->nr_scripts,
	       (unsigned long)witness->nr_phases, (unsigned long)witness->nr_events, (unsigned long)witness->nr_looks,
	       (unsigned long)witness->nr_nested, (unsigned long)witness->nr_again, (unsigned long)witness->nr_skipped,
	       (unsigned long)witness->nr_distinct, now_s() - began, crash_lab_cpu_s(), nr_bad);
	return nr_bad ? 1 : 0;
}
