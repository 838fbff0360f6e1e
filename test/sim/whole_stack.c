/*
 * The whole stack on one OS thread and in virtual time: hosts, the target, and the disk under it, from socket to platter, with
 * short reads, resets, disk errors and power cuts decided by a seed.
 *
 *   whole_stack [--seeds FIRST-LAST] [--rounds N] [--store | --disk] [--verbose]
 *
 * Each seed is a disk and a few rounds of life; each round is a process that starts the target on what the last one left,
 * compares all of it with what must be there, works, and ends in order or by a power cut.  A seed that fails is printed, and
 * whole_stack --seeds N-N does the same again.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/sim/host.h"
#include "test/sim/stack.h"

#define DISK_BYTES   (64u << 20)
#define NS_BYTES     (16u << 20)
#define MAX_HOSTS    3u
#define MAX_DELAY_US 2000u
#define EXIT_CUT     77

struct plan {
	uint64_t seed;
	unsigned round;
	bool store, verbose;
	struct crash_disk *disk;
	struct model *model;
	struct sim_opts sim;
	unsigned nr_hosts;
	struct host_opts hosts[MAX_HOSTS];
	struct stack_opts stack;
	uint64_t cut_after; /* events; 0: ends in order */
	unsigned write_error_ppm, read_error_ppm;
};

static uint64_t mix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static unsigned pick(uint64_t *state, unsigned from, unsigned to)
{
	return from + (unsigned)(mix(state) % (to - from + 1));
}

/* --- one round, in a process of its own ---------------------------------------------------------------------------------------------- */

static struct plan *plan;
static struct fiber_cond hosts_cond;
static unsigned nr_hosts_running;

static void host_over(void *arg)
{
	nr_hosts_running--;
	fiber_cond_broadcast(&hosts_cond);
}

static void host_main(void *arg)
{
	struct thread *thread = thread_current();

	host_work(arg);
	thread_send(runtime_app_thread(), host_over, NULL);
	thread_exit(thread);
}

static void power_cut(struct crash_disk *disk, uint64_t event, void *arg)
{
	const uint64_t *cut_at = arg;

	if (event < *cut_at)
		return;
	crash_disk_capture(disk);
	_exit(EXIT_CUT);
}

static uint64_t cut_at;

static void round_main(void *arg)
{
	struct host_opts all = plan->hosts[0];

	crash_disk_set_faults(plan->disk, 0, 0, 0); /* a power cut has left them as they were */
	stack_start(&plan->stack, plan->disk);
	all.first_block = 0;
	all.nr_blocks = plan->model->nr_blocks;
	all.faults = false;
	if (plan->round > 0 && plan->sim.reset_ppm == 0)
		host_verify(&all);
	plan->model->after_cut = false;
	crash_disk_set_faults(plan->disk, plan->read_error_ppm, plan->write_error_ppm, 0);
	if (plan->cut_after) {
		cut_at = crash_disk_nr_events(plan->disk) + plan->cut_after;
		crash_disk_on_event(plan->disk, power_cut, &cut_at);
	}
	fiber_cond_init(&hosts_cond);
	nr_hosts_running = plan->nr_hosts;
	for (unsigned i = 0; i < plan->nr_hosts; i++) {
		struct thread *thread = thread_create("host", i % plan->sim.nr_reactors);

		fiber_spawn(thread, "host", host_main, &plan->hosts[i]);
	}
	while (nr_hosts_running)
		fiber_cond_wait(&hosts_cond);
	crash_disk_set_faults(plan->disk, 0, 0, 0);
	stack_stop();
	runtime_stop(0);
}

static void plan_hosts(struct plan *p, uint64_t *state)
{
	uint32_t share = p->model->nr_blocks / p->nr_hosts;

	for (unsigned i = 0; i < p->nr_hosts; i++) {
		p->hosts[i] = (struct host_opts){
			.model = p->model,
			.addr = { .host = "127.0.0.1", .port = STACK_PORT, .family = AF_INET },
			.nqn = STACK_NQN,
			.first_block = i * share,
			.nr_blocks = share,
			.nr_queues = pick(state, 1, 3),
			.nr_workers = pick(state, 1, 12),
			.nr_ops = pick(state, 20, 120),
			.queue_size = pick(state, 2, 64),
			.hdgst = pick(state, 0, 1),
			.ddgst = pick(state, 0, 1),
			.faults = p->sim.reset_ppm || p->write_error_ppm || p->read_error_ppm,
			.settle_us = 100 * MAX_DELAY_US,
		};
	}
}

/* Everything that this round is, from seed and round alone. */
static void plan_round(struct plan *p)
{
	uint64_t state = p->seed * 1000 + p->round;
	bool bad_net = pick(&state, 0, 2) == 0, bad_disk = pick(&state, 0, 3) == 0;

	p->sim = (struct sim_opts){
		.seed = mix(&state),
		.nr_reactors = pick(&state, 1, 3),
		.nr_small = pick(&state, 64, 256),
		.nr_large = pick(&state, 32, 64),
		.short_io_ppm = pick(&state, 0, 1) * pick(&state, 0, 300000),
		.again_ppm = pick(&state, 0, 1) * pick(&state, 0, 100000),
		.max_delay_us = pick(&state, 0, 500),
	};
	/* What a power cut has left is compared over a network that holds. */
	p->sim.reset_ppm = bad_net && !p->model->after_cut ? pick(&state, 10, 3000) : 0;
	p->write_error_ppm = bad_disk ? pick(&state, 100, 5000) : 0;
	p->read_error_ppm = bad_disk ? pick(&state, 100, 5000) : 0;
	p->nr_hosts = pick(&state, 1, MAX_HOSTS);
	p->cut_after = pick(&state, 0, 1) ? pick(&state, 10, 2000) : 0;
	p->stack = (struct stack_opts){
		.store = p->store,
		.create = p->round == 0,
		.volume_bytes = NS_BYTES,
		.in_capsule_data_size = 4096u << pick(&state, 0, 2),
		.max_queue_depth = 128,
		.c2h_success = pick(&state, 0, 1),
	};
	plan_hosts(p, &state);
}

static _Noreturn void round_child(struct plan *p, FILE *said)
{
	int rc;

	if (!p->verbose)
		dup2(fileno(said), STDERR_FILENO);
	plan = p;
	log_set_level(p->verbose ? LOG_INFO : LOG_WARNING);
	rc = sim_run(&p->sim, round_main, NULL);
	if (rc)
		fprintf(stderr, "the simulation ended with %d\n", rc);
	exit(rc ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* What a child said matters when it failed; else it is about faults that were meant. */
static void show(FILE *said)
{
	char line[1024];

	rewind(said);
	while (fgets(line, sizeof(line), said))
		fputs(line, stderr);
}

/* Runs in a child; true: as it should. */
static bool run_round(struct plan *p, bool *ret_cut)
{
	FILE *said = tmpfile();
	bool ok = false;
	pid_t pid;
	int status;

	plan_round(p);
	fflush(NULL);
	pid = said ? fork() : -1;
	if (pid == 0)
		round_child(p, said);
	if (pid > 0 && waitpid(pid, &status, 0) == pid) {
		*ret_cut = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CUT;
		ok = *ret_cut || (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
	}
	if (!ok && said)
		show(said);
	if (said)
		fclose(said);
	return ok;
}

struct totals {
	uint64_t nr_seeds, nr_failed_seeds, nr_writes, nr_reads, nr_flushes, nr_failed, nr_reconnects, nr_cuts, nr_checked;
};

static void add_totals(struct totals *t, const struct model *m)
{
	t->nr_seeds++;
	t->nr_writes += m->nr_writes;
	t->nr_reads += m->nr_reads;
	t->nr_flushes += m->nr_flushes;
	t->nr_failed += m->nr_failed;
	t->nr_reconnects += m->nr_reconnects;
	t->nr_cuts += m->nr_cuts;
	t->nr_checked += m->nr_checked;
}

static void say_failed(const struct plan *p)
{
	fprintf(stderr,
		"seed %llu failed in round %u (%u reactors, resets %u ppm, disk errors %u ppm on reads, %u on writes, power cut "
		"after %llu events%s)\nreplay: whole_stack %s --seeds %llu-%llu\n",
		(unsigned long long)p->seed, p->round, p->sim.nr_reactors, p->sim.reset_ppm, p->read_error_ppm,
		p->write_error_ppm, (unsigned long long)p->cut_after, p->model->after_cut ? "; after a power cut" : "",
		p->store ? "--store" : "--disk", (unsigned long long)p->seed, (unsigned long long)p->seed);
}

static bool run_seed(uint64_t seed, unsigned rounds, bool store, bool verbose, struct totals *totals)
{
	const struct crash_disk_opts disk_opts = {
		.nr_blocks = (store ? DISK_BYTES : NS_BYTES) / MODEL_BLOCK_SIZE,
		.block_size = MODEL_BLOCK_SIZE,
		.seed = seed,
		.max_delay_us = seed % 3 ? MAX_DELAY_US : 0,
		.garbage = store,
	};
	struct plan p = { .seed = seed, .store = store, .verbose = verbose };
	bool ok = true, cut;

	p.disk = crash_disk_create(&disk_opts);
	p.model = model_create(seed, NS_BYTES / MODEL_BLOCK_SIZE);
	if (!p.disk || !p.model) {
		fprintf(stderr, "no memory\n");
		exit(EXIT_FAILURE);
	}
	for (p.round = 0; p.round < rounds && ok; p.round++) {
		ok = run_round(&p, &cut);
		if (!ok) {
			say_failed(&p);
		} else if (cut) {
			crash_disk_lose_power(p.disk, CRASH_FATE_SEEDED, seed * 100 + p.round);
			p.model->after_cut = true;
			p.model->nr_cuts++;
		} else if (p.write_error_ppm) {
			/* A store that could not write its journal has told so, and kept what was flushed. */
			p.model->after_cut = true;
		}
	}
	add_totals(totals, p.model);
	crash_disk_destroy(p.disk);
	model_destroy(p.model);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seeds", required_argument, NULL, 's' },
						 { "rounds", required_argument, NULL, 'r' },
						 { "store", no_argument, NULL, 'S' },
						 { "disk", no_argument, NULL, 'D' },
						 { "verbose", no_argument, NULL, 'v' },
						 { NULL, 0, NULL, 0 } };
	unsigned long long first = 1, last = 20;
	unsigned rounds = 3;
	int which = -1, opt;
	bool verbose = false;
	struct totals t = { 0 };

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's' && sscanf(optarg, "%llu-%llu", &first, &last) == 2)
			continue;
		else if (opt == 'r')
			rounds = (unsigned)atoi(optarg);
		else if (opt == 'S' || opt == 'D')
			which = opt == 'S';
		else if (opt == 'v')
			verbose = true;
		else
			return EXIT_FAILURE;
	}
	for (unsigned long long seed = first; seed <= last; seed++) {
		t.nr_failed_seeds += !run_seed(seed, rounds, which < 0 ? seed % 2 : which, verbose, &t);
		if (seed % 100 == 0)
			fprintf(stderr, "seed %llu: %llu failed so far\n", seed, (unsigned long long)t.nr_failed_seeds);
	}
	printf("%llu seeds, %llu failed: %llu writes, %llu reads, %llu flushes, %llu commands failed, %llu reconnects, %llu power "
	       "cuts, %llu blocks compared\n",
	       (unsigned long long)t.nr_seeds, (unsigned long long)t.nr_failed_seeds, (unsigned long long)t.nr_writes,
	       (unsigned long long)t.nr_reads, (unsigned long long)t.nr_flushes, (unsigned long long)t.nr_failed,
	       (unsigned long long)t.nr_reconnects, (unsigned long long)t.nr_cuts, (unsigned long long)t.nr_checked);
	return t.nr_failed_seeds ? EXIT_FAILURE : EXIT_SUCCESS;
}
