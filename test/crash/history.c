/*
 * Histories: a store on a disk that loses power, phase after phase, and looks at what a power cut would leave at each event.
 *
 * A phase runs under the simulation while a tape records what its disk does and the oracle is copied at each event.  After it
 * the tape is played to a copy of the disk; at each event the remains of several power cuts are made, opened and judged.  Then
 * power really goes (or the process dies and the disk's cache stays), and the next phase opens what that left.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lvol/lvol.h"
#include "runtime/sim.h"
#include "test/crash/lab.h"

struct witness *witness;
struct lab lab;

/* --- a phase --- */

static void at_event(struct crash_disk *disk, uint64_t event, void *arg)
{
	witness->event = event;
	if (event > lab.last_event)
		return;
	if (lab.nr_at == LAB_MAX_EVENTS) {
		lab.last_event = event - 1;
		return;
	}
	lab.kept[lab.nr_at] = kept_copy();
	lab.at[lab.nr_at++] = oracle_dup(lab.h.oracle);
	if (event == lab.last_event)
		workload_wind_down();
}

static void record(struct history *h)
{
	crash_disk_copy(lab.copy, h->disk);
	lab.tape = crash_tape_create();
	lab.first_event = crash_disk_nr_events(h->disk) + 1;
	lab.nr_at = 0;
	crash_disk_record(h->disk, lab.tape);
	crash_disk_on_event(h->disk, at_event, NULL);
}

/* The first event of closing is looked at as well: everything asked for has been answered then. */
static void record_ends(struct history *h)
{
	lab.last_event = crash_disk_nr_events(h->disk) + 1;
}

static void forget_recording(void)
{
	crash_tape_destroy(lab.tape);
	lab.tape = NULL;
	while (lab.nr_at) {
		oracle_destroy(lab.at[--lab.nr_at]);
		kept_free(lab.kept[lab.nr_at]);
	}
}

void history_run_phase(unsigned phase, uint64_t script, bool *ret_closed)
{
	struct sim_opts sim = { .seed = lab.h.seed * 1000 + phase, .nr_reactors = 1 + lab.h.seed % 3,
				.max_virtual_us = LAB_VIRTUAL_US, .nr_small = 32, .nr_large = 8 };
	struct workload w = { .h = &lab.h, .phase = phase, .script = script };
	int rc;

	witness->phase = phase;
	witness->nr_phases++;
	if (lab.h.died)
		kept_put_back(lab.h.died);
	else
		kept_begin();
	lies_begin(&lab.h);
	alarm(LAB_LOOK_SECONDS);
	rc = sim_run(&sim, workload_main, &w);
	if (rc) {
		snprintf(witness->wrong, sizeof(witness->wrong), "invariant 7, full is not broken: it hangs: %s", strerror(-rc));
		printf("  seed %lu phase %u: the simulation ended with %s\n", (unsigned long)lab.h.seed, phase, strerror(-rc));
		workload_print_waiting();
	}
	if (rc || !w.clean) {
		fflush(stdout);
		_exit(5);
	}
	*ret_closed = crash_disk_nr_events(lab.h.disk) <= lab.last_event;
}

static void lab_start(uint64_t seed, const struct scrutiny *scrutiny)
{
	history_make(&lab.h, seed, scrutiny->verbose);
	lab.scrutiny = scrutiny;
	lab.copy = crash_disk_create(&lab.h.disk_opts);
	lab.remains = crash_disk_create(&lab.h.disk_opts);
	witness->seed = seed;
	if (!lab.copy || !lab.remains) {
		fprintf(stderr, "no memory for a history\n");
		_exit(2);
	}
	look_begin();
}

/* One random phase, looked back upon; then power goes, or the process dies. */
static void random_phase(unsigned phase, uint64_t *rng)
{
	uint64_t die = history_rand(rng) % 3, fate_seed, events = 1 + history_rand(rng) % 240;
	bool closed;

	lab.last_event = crash_disk_nr_events(lab.h.disk) + events;
	record(&lab.h);
	history_run_phase(phase, HISTORY_NO_SCRIPT, &closed);
	if (closed)
		lab.last_event = lab.first_event + lab.nr_at - 1;
	look_back();
	fate_seed = history_rand(rng);
	if (lab.scrutiny->verbose)
		printf("  seed %lu phase %u: events %lu to %lu, %s\n", (unsigned long)lab.h.seed, phase,
		       (unsigned long)lab.first_event, (unsigned long)lab.last_event,
		       closed ? "closed" : die ? "power cut" : "process died");
	lab.h.died = NULL;
	if (closed) {
		crash_disk_lose_power(lab.h.disk, CRASH_FATE_LOSE_ALL, fate_seed);
	} else {
		if (die)
			crash_disk_lose_power(lab.copy, CRASH_FATE_SEEDED, fate_seed);
		else
			crash_disk_process_died(lab.copy, fate_seed);
		crash_disk_copy(lab.h.disk, lab.copy);
		oracle_copy(lab.h.oracle, lab.at[lab.nr_at - 1]);
		if (!die) {
			lab.h.died = lab.kept[lab.nr_at - 1];
			lab.kept[lab.nr_at - 1] = NULL;
		}
	}
	lab.h.oracle->power_lost |= !lab.h.died;
	forget_recording();
}

void history_run(uint64_t seed, const struct scrutiny *scrutiny)
{
	uint64_t rng = seed ^ 0x68697374ull;

	lab_start(seed, scrutiny);
	witness->script = HISTORY_NO_SCRIPT;
	for (unsigned phase = 0; phase < scrutiny->nr_phases; phase++)
		random_phase(phase, &rng);
	witness->nr_histories++;
	fflush(stdout);
	_exit(0);
}

/* --- scripts --- */

/* A store that is as young as can be: made, and closed. */
static void be_born(void)
{
	bool closed;

	lab.last_event = UINT64_MAX;
	history_run_phase(0, 0 /* to a volume that is not there */, &closed);
	crash_disk_lose_power(lab.h.disk, CRASH_FATE_LOSE_ALL, 1);
	lab.h.oracle->power_lost = true;
}

/* Two phases of random work make a store old; scripts begin where they end. */
static void grow_old(uint64_t age)
{
	static const struct scrutiny blind = { .every = 1 };
	const struct scrutiny *seeing = lab.scrutiny;
	uint64_t rng = age ^ 0x616765ull;

	lab.scrutiny = &blind;
	for (unsigned phase = 0; phase < 2; phase++)
		random_phase(phase, &rng);
	lab.scrutiny = seeing;
}

static void one_script(uint64_t script)
{
	bool closed;

	witness->script = script;
	witness->nr_scripts++;
	lab.last_event = UINT64_MAX;
	lab.h.begins = record;
	lab.h.over = script % 8 ? record_ends : NULL; /* some until the store is closed */
	history_run_phase(2, script, &closed);
	look_back();
	forget_recording();
}

static struct crash_disk *old_disk;
static struct oracle *old_oracle;

void history_start_old(uint64_t age, const struct scrutiny *scrutiny, bool lies)
{
	lab_start(age, scrutiny);
	if (!lies)
		lab.h.lies = LIES_NONE;
	if (age)
		grow_old(age);
	else
		be_born();
	old_disk = crash_disk_create(&lab.h.disk_opts);
	old_oracle = oracle_dup(lab.h.oracle);
	crash_disk_copy(old_disk, lab.h.disk);
}

/* The store as it was when it was just that old. */
void history_be_old_again(void)
{
	crash_disk_copy(lab.h.disk, old_disk);
	oracle_copy(lab.h.oracle, old_oracle);
}

void history_run_scripts(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s,
			 const struct scrutiny *scrutiny)
{
	history_start_old(age, scrutiny, true);
	for (uint64_t i = 0; i < nr; i++) {
		if (end_s && (uint64_t)time(NULL) >= end_s)
			break;
		history_be_old_again();
		one_script((first + i * stride) % script_count());
	}
	fflush(stdout);
	_exit(0);
}
