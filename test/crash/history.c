/*
 * Histories: a store on a disk that loses power, phase after phase, and looks at what a power cut would leave at each event.
 *
 * A phase runs under the simulation while a tape records what its disk does and the oracle is copied at each event.  After it
 * the tape is played to a copy of the disk; at each event the remains of several power cuts are made, opened and judged.  Then
 * power really goes (or the process dies and the disk's cache stays), and the next phase opens what that left.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "blob/mutant.h"
#include "lvol/lvol.h"
#include "runtime/sim.h"
#include "test/crash/history.h"
#include "test/crash/kept.h"

#define VIRTUAL_US   (60ull * 1000 * 1000) /* a phase that has not ended by then hangs */
#define LOOK_SECONDS 20
#define MAX_EVENTS   4096u
#define NR_NESTED    3u	/* crashes within a recovery that are looked at */
#define NR_AT_FLUSH  6u	/* at each flush in it, when the process before died: what that left in the cache may go now */

struct witness *witness;

/* What one child works with. */
static struct lab {
	const struct scrutiny *scrutiny;
	struct history h;
	struct crash_disk *copy, *remains;	     /* of the phase's disk; what a cut leaves of that */
	struct crash_disk *inner_copy, *inner_remains; /* the same for crashes within a recovery */
	struct oracle *oracle;			     /* a look's */
	bool wants_answer;			     /* whether looks are to be compared */
	struct oracle *after_use;		     /* the same, once it has used the store */
	struct crash_tape *tape, *inner_tape;
	struct oracle *at[MAX_EVENTS]; /* the oracle at each event of the phase */
	struct kept *kept[MAX_EVENTS]; /* and what outlives the process */
	uint64_t first_event, nr_at, last_event;
	uint64_t *judged; /* images with what was asked of them */
} lab;

#define JUDGED_CAP (1u << 20)

/* --- sets of hashes --- */

static bool set_add(uint64_t *set, uint64_t cap, uint64_t hash)
{
	hash += !hash;
	for (uint64_t i = hash % cap, n = 0; n < 64; i = (i + 1) % cap, n++) {
		if (set[i] == hash)
			return false;
		if (!set[i]) {
			set[i] = hash;
			return true;
		}
	}
	return true; /* full: better twice than never */
}

struct witness *witness_create(void)
{
	size_t len = sizeof(struct witness) + WITNESS_SEEN_CAP * sizeof(uint64_t);
	void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return witness = map == MAP_FAILED ? NULL : map;
}

/* --- looking --- */

static void look_failed(const char *fate, const char *wrong)
{
	printf("  seed %lu event %lu look %u%s (%s): %s\n", (unsigned long)witness->seed, (unsigned long)witness->event,
	       witness->look, witness->nested ? ", within recovery" : "", fate, wrong);
	fflush(stdout);
	_exit(1);
}

static void stop_recording(struct history *h)
{
	crash_disk_record(h->disk, NULL);
}

/* The moment, in a store that was opened anew and used, after which power goes again. */
static void note_use(struct history *h)
{
	crash_disk_record(h->disk, NULL);
	oracle_destroy(lab.after_use);
	lab.after_use = oracle_dup(h->oracle);
}

/* Opens and judges a disk, by a copy of the oracle.  kept: power was not lost.  Returns what was seen. */
static uint64_t judge_disk(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const struct kept *kept, bool use,
			   const char *fate)
{
	struct sim_opts sim = { .seed = seed, .nr_reactors = 1, .max_virtual_us = VIRTUAL_US, .nr_small = 8, .nr_large = 4 };
	struct history h = lab.h;
	struct verification v = { .h = &h, .seed = seed, .use = use, .failed = look_failed };
	int rc;

	oracle_copy(lab.oracle, oracle);
	lab.oracle->power_lost |= !kept; /* it may have been so before, and not recovered from */
	if (kept)
		kept_put_back(kept);
	else
		kept_off();
	h.disk = disk;
	h.oracle = lab.oracle;
	h.begins = h.over = NULL;
	h.recovered = use ? NULL : stop_recording;
	v.used = note_use;
	v.wants_answer = lab.wants_answer;
	alarm(LOOK_SECONDS);
	witness->nr_looks++;
	v.fate = fate;
	rc = sim_run(&sim, verify_main, &v);
	if (rc)
		look_failed(fate, strerror(-rc));
	return v.answer;
}

static void calm(struct crash_disk *disk)
{
	crash_disk_set_delays(disk, 0, 0);
}

static enum crash_fate pick_fate(uint64_t seed, unsigned nr)
{
	/* Everything lost; everything kept but for what is in flight; or as it comes. */
	if (nr == 0)
		return CRASH_FATE_LOSE_ALL;
	return seed % 4 ? CRASH_FATE_SEEDED : CRASH_FATE_KEEP_ALL;
}

/* Power goes where the player of a recovery stands. */
static void look_inside(const struct oracle *oracle, uint64_t seed, unsigned nr)
{
	enum crash_fate fate = pick_fate(seed, nr);
	uint64_t hash;

	crash_disk_capture(lab.inner_copy);
	fate = crash_disk_remains(lab.inner_remains, lab.inner_copy, fate, seed, &hash);
	crash_disk_release(lab.inner_copy);
	calm(lab.inner_remains);
	witness->nr_nested++;
	witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
	if (set_add(lab.judged, JUDGED_CAP, hash ^ oracle_hash(oracle)))
		judge_disk(lab.inner_remains, oracle, seed, NULL, false, crash_fate_name(fate));
	else
		witness->nr_skipped++;
}

/* Judges a disk, and looks at crashes within its recovery as well.  kept: a process has died, and its cache is full. */
static void judge_nested(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const struct kept *kept,
			 const char *fate)
{
	uint64_t nr_events, left = NR_NESTED;
	struct crash_player *player;

	lab.inner_tape = crash_tape_create();
	crash_disk_copy(lab.inner_copy, disk);
	crash_disk_record(disk, lab.inner_tape);
	judge_disk(disk, oracle, seed, kept, false, fate);
	witness->nested = true;
	nr_events = crash_tape_nr_events(lab.inner_tape);
	player = crash_player_create(lab.inner_tape, lab.inner_copy);
	for (uint64_t i = 0; i < nr_events; i++) {
		crash_player_next(player);
		for (unsigned k = 0; kept && crash_player_at_flush(player) && k < NR_AT_FLUSH; k++)
			look_inside(oracle, history_rand(&seed), 1);
		/* So many of them, each as likely as the others. */
		if (history_rand(&seed) % (nr_events - i) < left) {
			left--;
			look_inside(oracle, history_rand(&seed), seed % 4);
		}
	}
	crash_player_destroy(player);
	crash_tape_destroy(lab.inner_tape);
	witness->nested = false;
}

/* Opens and judges it, uses it, and lets power go at the end of that. */
static void judge_twice(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const char *fate)
{
	struct crash_player *player;
	enum crash_fate again;
	uint64_t hash;

	lab.inner_tape = crash_tape_create();
	crash_disk_copy(lab.inner_copy, disk);
	crash_disk_record(disk, lab.inner_tape);
	oracle_destroy(lab.after_use);
	lab.after_use = NULL;
	judge_disk(disk, oracle, seed, NULL, true, fate);
	if (lab.after_use) { /* there was a store */
		witness->nested = true;
		player = crash_player_create(lab.inner_tape, lab.inner_copy);
		while (crash_player_next(player))
			;
		crash_disk_capture(lab.inner_copy);
		again = crash_disk_remains(lab.inner_remains, lab.inner_copy, pick_fate(seed, seed % 2), seed, &hash);
		crash_player_destroy(player);
		calm(lab.inner_remains);
		witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
		judge_disk(lab.inner_remains, lab.after_use, seed, NULL, false, crash_fate_name(again));
		witness->nested = false;
	}
	crash_tape_destroy(lab.inner_tape);
}

static void look_once(const struct oracle *oracle, uint64_t seed, unsigned nr)
{
	enum crash_fate fate = pick_fate(seed, nr);
	uint64_t hash, answer, again;

	fate = crash_disk_remains(lab.remains, lab.copy, fate, seed, &hash);
	lies_rot(&lab.h, lab.remains, seed);
	calm(lab.remains);
	witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
	if (!set_add(lab.judged, JUDGED_CAP, hash ^ oracle_hash(oracle))) {
		witness->nr_skipped++;
		return;
	}
	if (lab.scrutiny->nested_one_in && seed / 16 % lab.scrutiny->nested_one_in == 0) {
		judge_nested(lab.remains, oracle, seed, NULL, crash_fate_name(fate));
		return;
	}
	if (seed / 3 % 4 == 0) {
		judge_twice(lab.remains, oracle, seed, crash_fate_name(fate));
		return;
	}
	lab.wants_answer = seed / 7 % 16 == 0;
	answer = judge_disk(lab.remains, oracle, seed, NULL, false, crash_fate_name(fate));
	if (!lab.wants_answer)
		return;
	/* The same image once more, with threads in another order. */
	crash_disk_remains(lab.remains, lab.copy, fate, seed, &again);
	calm(lab.remains);
	witness->nr_again++;
	if (again == hash && judge_disk(lab.remains, oracle, seed + 1, NULL, false, crash_fate_name(fate)) != answer)
		look_failed(crash_fate_name(fate), "invariant 6, bounded recovery: a second run of it gives another answer");
	lab.wants_answer = false;
}

/* The process dies, and power goes within the next one's recovery. */
static void look_death(const struct oracle *oracle, const struct kept *kept, uint64_t seed)
{
	crash_disk_copy(lab.remains, lab.copy);
	crash_disk_process_died(lab.remains, seed);
	calm(lab.remains);
	judge_nested(lab.remains, oracle, seed, kept, "process death");
}

static uint64_t look_seed(uint64_t event, unsigned nr)
{
	uint64_t seed = lab.h.seed * 1000003 + event * 17 + nr + witness->script * 7919;

	return history_rand(&seed);
}

static void look_at(uint64_t event, const struct oracle *oracle, const struct kept *kept)
{
	witness->event = event;
	witness->nr_events++;
	for (unsigned nr = 0; nr < lab.scrutiny->nr_looks; nr++) {
		uint64_t seed = look_seed(event, nr);

		witness->look = nr;
		look_once(oracle, seed, nr);
		if (nr == 1 && lab.scrutiny->nested_one_in && seed / 64 % lab.scrutiny->nested_one_in == 0)
			look_death(oracle, kept, seed);
	}
}

/* A root that only the cache has: the next process relies on it, and must first make it durable. */
static void look_at_root(uint64_t event, const struct oracle *oracle, const struct kept *kept)
{
	uint64_t seed = look_seed(event, 0);

	witness->event = event;
	witness->look = 0;
	if (lab.scrutiny->nested_one_in && seed % 2)
		look_death(oracle, kept, seed);
}

static bool is_looked_at(uint64_t event)
{
	const struct scrutiny *s = lab.scrutiny;

	if (!s->nr_looks)
		return false;
	return s->only_event ? event == s->only_event : event % s->every == lab.h.seed % s->every;
}

/* Plays the phase to the copy until its end, looking around; the copy then is what the phase's disk was. */
static void look_back(void)
{
	struct crash_player *player = crash_player_create(lab.tape, lab.copy);
	uint64_t event;

	while ((event = crash_player_next(player))) {
		uint64_t i = event - lab.first_event;

		crash_disk_capture(lab.copy);
		if (is_looked_at(event))
			look_at(event, lab.at[i], lab.kept[i]);
		else if (crash_player_at_root(player) && lab.scrutiny->nr_looks && !lab.scrutiny->only_event)
			look_at_root(event, lab.at[i], lab.kept[i]);
		if (event == lab.last_event)
			break; /* what was in flight stays captured */
		crash_disk_release(lab.copy);
	}
	crash_player_destroy(player);
}

/* --- a phase --- */

static void at_event(struct crash_disk *disk, uint64_t event, void *arg)
{
	witness->event = event;
	if (event > lab.last_event)
		return;
	if (lab.nr_at == MAX_EVENTS) {
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

/* Runs a phase, to be looked at until last_event.  *ret_closed: it ended by itself before that. */
static void run_phase(unsigned phase, uint64_t script, bool *ret_closed)
{
	struct sim_opts sim = { .seed = lab.h.seed * 1000 + phase, .nr_reactors = 1 + lab.h.seed % 3,
				.max_virtual_us = VIRTUAL_US, .nr_small = 32, .nr_large = 8 };
	struct workload w = { .h = &lab.h, .phase = phase, .script = script };
	int rc;

	witness->phase = phase;
	witness->nr_phases++;
	if (lab.h.died)
		kept_put_back(lab.h.died);
	else
		kept_begin();
	lies_begin(&lab.h);
	alarm(LOOK_SECONDS);
	rc = sim_run(&sim, workload_main, &w);
	if (rc) {
		printf("  seed %lu phase %u: the simulation ended with %s\n", (unsigned long)lab.h.seed, phase, strerror(-rc));
		workload_print_waiting();
	}
	if (rc || !w.clean) {
		fflush(stdout);
		_exit(5);
	}
	*ret_closed = crash_disk_nr_events(lab.h.disk) <= lab.last_event;
}

/* --- making histories --- */

static void choose_disk(struct history *h, uint64_t *rng)
{
	static const uint64_t mib = 1024 * 1024;
	struct crash_disk_opts *d = &h->disk_opts;
	bool small = h->seed % 8 < 6 || history_rand(rng) % 2;

	*d = (struct crash_disk_opts){ .block_size = 512, .seed = h->seed, .garbage = true };
	d->atomic_blocks = history_rand(rng) % 4 ? 1 : 8;
	d->unmap_keeps = history_rand(rng) % 4 == 0;
	d->write_through = history_rand(rng) % 10 == 0;
	d->max_delay_us = 1 + history_rand(rng) % 300;
	d->nr_blocks = (small ? 2 : 4 + history_rand(rng) % 3 * 4) * mib / d->block_size;
	d->max_cache_bytes = (small ? 4 : 16) * mib;
	if (history_rand(rng) % 4) { /* an adversarial order of completions */
		d->straggler_one_in = 2 + history_rand(rng) % 6;
		d->straggler_ops = history_rand(rng) % (1u << BDEV_NR_OPS);
		d->straggler_us = 500 << history_rand(rng) % 5;
	}
	h->cluster_bytes = small ? 32768 : 32768u << history_rand(rng) % 2;
	h->journal_pages = small ? 8 : 8u << history_rand(rng) % 3;
	while (h->journal_pages * 4096ull * 32 > d->nr_blocks * d->block_size && h->journal_pages > 8)
		h->journal_pages /= 2;
	h->leaf_shift = small ? 2 : 2 + history_rand(rng) % 3;
	h->inner_shift = small ? 2 : 1 + history_rand(rng) % 3;
	h->max_blocks = small ? 512 : 512u << history_rand(rng) % 2;
	h->small_io = small;
}

static void choose_load(struct history *h, uint64_t *rng)
{
	h->nr_threads = 1 + history_rand(rng) % 3;
	h->nr_fibers = history_rand(rng) % 2 ? 2 + history_rand(rng) % 3 : 6 + history_rand(rng) % 6;
	h->nr_ops = 60 + history_rand(rng) % 160;
	/* Few of either: commits are large, and their journal pages full. */
	h->flush_percent = history_rand(rng) % 2 ? 12 : history_rand(rng) % 2 ? 2 : 40;
	h->fua_one_in = history_rand(rng) % 2 ? 6 : 40;
	/* Much I/O while few volumes change, or the other way round. */
	h->pause_us = history_rand(rng) % 3 ? 200 * h->nr_threads * h->nr_fibers : 200;
	h->control_pause_us = history_rand(rng) % 3 ? 400 : 40;
	h->nr_controls = history_rand(rng) % 2 ? 1 : 2 + history_rand(rng) % 3;
	h->io_blocks = 12;
	h->near_percent = 33;
	h->unmap_percent = 11;
	h->unmap_blocks = history_rand(rng) % 2 ? 12 : 48;
	h->cluster_one_in = 8;
}

static void straggle(struct history *h, unsigned ops, unsigned one_in, uint64_t us)
{
	h->disk_opts.max_delay_us = 20;
	h->disk_opts.straggler_ops = ops;
	h->disk_opts.straggler_one_in = one_in;
	h->disk_opts.straggler_us = us;
}

/* A few clusters that come and go all the time, under reads, unmaps, or first writes that take long. */
static void choose_hot(struct history *h, bool reads)
{
	straggle(h, 1u << (!reads ? BDEV_WRITE : h->seed / 8 % 2 ? BDEV_UNMAP : BDEV_READ), 2, reads ? 20000 : 2000);
	h->max_blocks = reads ? 128 : 64;
	h->unmap_percent = 30;
	h->unmap_blocks = 32;
	h->io_blocks = 8;
	h->cluster_one_in = reads ? 2 : 16;
	h->flush_percent = 20;
	h->pause_us = 200;
	h->control_pause_us = 4000;
	h->taste = TASTE_FEW;
}

/* The same places are written over and over with FUA, or flushed, from one thread or few. */
static void choose_overwrites(struct history *h, bool fua)
{
	straggle(h, 1u << BDEV_FLUSH | 1u << BDEV_WRITE, 3, 1000);
	h->disk_opts.write_through = false;
	h->checksums = false;
	h->max_blocks = 128;
	h->io_blocks = 4;
	h->near_percent = 90;
	h->nr_threads = 1 + h->seed % 2;
	h->nr_fibers = 12;
	h->flush_percent = fua ? 3 : 30;
	h->fua_one_in = fua ? 1 : 40;
	h->unmap_percent = 1;
	h->cluster_one_in = 16;
	h->pause_us = 100;
	h->control_pause_us = 10000;
	h->taste = TASTE_FEW;
}

/* Snapshots all the time, under overwrites that take long. */
static void choose_snapshots(struct history *h)
{
	straggle(h, 1u << BDEV_WRITE, 4, 5000);
	h->max_blocks = 128;
	h->nr_threads = 2 + h->seed % 2;
	h->nr_fibers = 6;
	h->flush_percent = 5;
	h->unmap_blocks = 48;
	h->pause_us = 100;
	h->control_pause_us = 300;
	h->taste = TASTE_SNAPSHOTS;
}

/* Many attributes at once, so that a commit is of several pages. */
static void choose_attributes(struct history *h)
{
	straggle(h, 1u << BDEV_FLUSH, 2, 500);
	h->max_blocks = 128;
	h->nr_controls = 8;
	h->nr_threads = 1;
	h->nr_fibers = 2;
	h->control_pause_us = 20;
	h->taste = TASTE_ATTRIBUTES;
}

/* Each kind in turn; the last ones are of any kind. */
static void choose_kind(struct history *h)
{
	switch (h->seed % 8) {
	case 0:
		choose_snapshots(h);
		break;
	case 1:
		choose_hot(h, true);
		break;
	case 2:
		choose_overwrites(h, true);
		break;
	case 3:
		choose_attributes(h);
		break;
	case 4:
		choose_hot(h, false);
		break;
	case 5:
		choose_overwrites(h, false);
		break;
	default:
		break;
	}
}

void history_make(struct history *h, uint64_t seed, bool verbose)
{
	uint64_t rng = seed * 0x2545f4914f6cdd1dull;
	const struct crash_disk_opts *d = &h->disk_opts;

	memset(h, 0, sizeof(*h));
	h->seed = seed;
	h->verbose = verbose;
	choose_disk(h, &rng);
	choose_load(h, &rng);
	h->checksums = history_rand(&rng) % 4 == 0;
	h->map_cache_bytes = (uint64_t[]){ 16u << 20, 1, 4000 }[history_rand(&rng) % 3];
	lvol_set_map_cache(h->map_cache_bytes, true);
	choose_kind(h);
	if (seed % 8 == 6)
		h->lies = LIES_LOST;
	if (seed % 8 == 7)
		h->lies = seed / 8 % 3 ? seed / 8 % 2 ? LIES_ROT : LIES_MISDIRECTED : LIES_NONE;
	if (verbose)
		printf("seed %lu: %lu MiB, atomic %u, %s%s, delays to %lu us, 1 in %u of %x to %lu; clusters of %u, journal of %u "
		       "pages, leaves 2^%u, inner 2^%u; %u threads of %u fibers, %u operations, %u%% flushes, FUA 1 in %u, volumes "
		       "to %lu blocks, map cache of %lu bytes%s\n",
		       (unsigned long)seed, (unsigned long)(d->nr_blocks * d->block_size >> 20), d->atomic_blocks,
		       d->write_through ? "write-through" : "write-back", d->unmap_keeps ? ", unmap keeps" : "",
		       (unsigned long)d->max_delay_us, d->straggler_one_in, d->straggler_ops, (unsigned long)d->straggler_us,
		       h->cluster_bytes, h->journal_pages, h->leaf_shift, h->inner_shift, h->nr_threads, h->nr_fibers, h->nr_ops,
		       h->flush_percent, h->fua_one_in, (unsigned long)h->max_blocks, (unsigned long)h->map_cache_bytes,
		       h->checksums ? "; checksums" : "");
	h->disk = crash_disk_create(d);
	h->oracle = oracle_create(h->max_blocks, 8192);
	if (!h->disk) {
		fprintf(stderr, "no memory for a history\n");
		exit(2);
	}
}

void history_unmake(struct history *h)
{
	crash_disk_destroy(h->disk);
	oracle_destroy(h->oracle);
}

static void lab_start(uint64_t seed, const struct scrutiny *scrutiny)
{
	history_make(&lab.h, seed, scrutiny->verbose);
	lab.scrutiny = scrutiny;
	lab.copy = crash_disk_create(&lab.h.disk_opts);
	lab.remains = crash_disk_create(&lab.h.disk_opts);
	lab.inner_copy = crash_disk_create(&lab.h.disk_opts);
	lab.inner_remains = crash_disk_create(&lab.h.disk_opts);
	lab.oracle = oracle_create(lab.h.max_blocks, 8192);
	lab.judged = calloc(JUDGED_CAP, sizeof(lab.judged[0]));
	witness->seed = seed;
	if (!lab.copy || !lab.remains || !lab.inner_copy || !lab.inner_remains || !lab.judged) {
		fprintf(stderr, "no memory for a history\n");
		_exit(2);
	}
}

/* One random phase, looked back upon; then power goes, or the process dies. */
static void random_phase(unsigned phase, uint64_t *rng)
{
	uint64_t die = history_rand(rng) % 3, fate_seed, events = 1 + history_rand(rng) % 240;
	bool closed;

	lab.last_event = crash_disk_nr_events(lab.h.disk) + events;
	record(&lab.h);
	run_phase(phase, HISTORY_NO_SCRIPT, &closed);
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
	run_phase(2, script, &closed);
	look_back();
	forget_recording();
}

static struct crash_disk *old_disk;
static struct oracle *old_oracle;

static void start_on_age(uint64_t age, const struct scrutiny *scrutiny, bool lies)
{
	lab_start(age, scrutiny);
	if (!lies)
		lab.h.lies = LIES_NONE;
	grow_old(age);
	old_disk = crash_disk_create(&lab.h.disk_opts);
	old_oracle = oracle_dup(lab.h.oracle);
	crash_disk_copy(old_disk, lab.h.disk);
}

/* The store as it was when it was just that old. */
static void be_old_again(void)
{
	crash_disk_copy(lab.h.disk, old_disk);
	oracle_copy(lab.h.oracle, old_oracle);
}

void history_run_scripts(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s,
			 const struct scrutiny *scrutiny)
{
	start_on_age(age, scrutiny, true);
	for (uint64_t i = 0; i < nr; i++) {
		if (end_s && (uint64_t)time(NULL) >= end_s)
			break;
		be_old_again();
		one_script((first + i * stride) % script_count());
	}
	fflush(stdout);
	_exit(0);
}

/* --- failures --- */

#define BURST 8u /* operations of the device */

enum failure { FAILURE_IO, FAILURE_IO_BURST, FAILURE_IO_IN_RECOVERY, FAILURE_ALLOC, FAILURE_ALLOC_IN_RECOVERY, NR_FAILURES };

static enum failure failure;
static uint64_t failure_nr; /* the how manieth fails */

static void arm(uint64_t nr)
{
	if (failure != FAILURE_ALLOC && failure != FAILURE_ALLOC_IN_RECOVERY)
		crash_disk_fail_nth(lab.h.disk, nr, failure == FAILURE_IO_BURST ? BURST : 1);
#ifdef BLOB_MUTANTS
	else
		mutant_alloc_fail_nth(nr);
#endif
}

static bool has_failed(void)
{
#ifdef BLOB_MUTANTS
	if (failure == FAILURE_ALLOC || failure == FAILURE_ALLOC_IN_RECOVERY)
		return mutant_alloc_has_failed();
#endif
	return crash_disk_has_failed(lab.h.disk);
}

static bool failure_came;
static uint64_t nr_lost_clusters;

/* One bad copy is what a disk that lies leaves, and what the other copy is for. */
static void count_finding(const struct store_finding *finding, void *arg)
{
	*(unsigned *)arg += finding->kind != STORE_FINDING_COPY;
}

/* Clusters that are neither free nor in use, nor on their way back. */
static fiber_fn uint64_t lost_clusters(void)
{
	struct store *store = lvol_store_blobstore(lvol_store_first());
	struct store_check_result result;
	struct store_info info;
	unsigned nr_wrong = 0;
	int rc = store_wait_free(store);

	if (!rc)
		rc = store_check_online(store, count_finding, &nr_wrong, NULL, &result);
	store_get_info(store, &info);
	if (rc || info.read_only)
		return nr_lost_clusters; /* it has failed, and serves nobody's writes */
	if (nr_wrong)
		workload_fail("invariant 3, one owner: the store's check in memory has findings");
	if (lab.scrutiny->verbose)
		printf("  clusters: %lu, used %lu, metadata %lu, free %lu, promised %lu, coming %lu\n", (unsigned long)info.nr_clusters,
		       (unsigned long)result.nr_used_clusters, (unsigned long)info.nr_metadata_clusters,
		       (unsigned long)info.nr_free_clusters, (unsigned long)info.nr_reserved_clusters,
		       (unsigned long)info.nr_coming_clusters);
	return info.nr_clusters - result.nr_used_clusters - info.nr_metadata_clusters - info.nr_free_clusters -
	       info.nr_reserved_clusters;
}

static void failures_begin(struct history *h)
{
	nr_lost_clusters = 0;
	nr_lost_clusters = lost_clusters();
	arm(failure_nr);
}

static void recovery_over(struct history *h)
{
	failure_came = has_failed();
	arm(0);
}

static void failures_over(struct history *h)
{
	failure_came = has_failed();
	arm(0);
	if (lost_clusters() != nr_lost_clusters)
		workload_fail("invariant 7, full is not broken: clusters leaked");
}

/* What is left must hold all that was durable, with power lost after it or not. */
static void judge_failure(uint64_t seed)
{
	enum crash_fate fate;
	uint64_t hash;

	crash_disk_copy(lab.copy, lab.h.disk);
	crash_disk_fail_nth(lab.copy, 0, 0);
	crash_disk_copy(lab.remains, lab.copy);
	calm(lab.remains);
	judge_disk(lab.remains, lab.h.oracle, seed, NULL, seed % 2, "after a failure");
	fate = crash_disk_remains(lab.remains, lab.copy, pick_fate(seed, seed % 3), seed, &hash);
	calm(lab.remains);
	witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
	judge_disk(lab.remains, lab.h.oracle, seed, NULL, false, crash_fate_name(fate));
}

/* One script, or the recovery before it, with the n-th thing failing.  False: there are not so many. */
static bool one_failure(uint64_t script, uint64_t nr)
{
	bool closed, in_recovery = failure == FAILURE_IO_IN_RECOVERY || failure == FAILURE_ALLOC_IN_RECOVERY;

	be_old_again();
	witness->script = script;
	witness->event = nr;
	witness->look = failure;
	failure_nr = nr;
	failure_came = false;
	lab.last_event = UINT64_MAX;
	lab.h.failing = true;
	lab.h.begins = in_recovery ? NULL : failures_begin;
	lab.h.over = in_recovery ? NULL : failures_over;
	lab.h.recovered = in_recovery ? recovery_over : NULL;
	if (in_recovery)
		arm(nr);
	run_phase(2, script, &closed);
	lab.h.failing = false;
	if (!failure_came)
		return false;
	witness->nr_failures++;
	judge_failure(lab.h.seed * 31 + script * 7 + nr);
	return true;
}

void history_run_failures(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s,
			  const struct scrutiny *scrutiny)
{
	/* An error beside a lost copy is one fault too many. */
	start_on_age(age, scrutiny, false);
	if (!scrutiny->verbose && !freopen("/dev/null", "w", stderr)) /* a store that fails says so each time */
		_exit(2);
	for (uint64_t i = 0; i < nr; i++)
		for (failure = 0; failure < NR_FAILURES; failure++)
			for (uint64_t n = 1; !(end_s && (uint64_t)time(NULL) >= end_s); n++)
				if (!one_failure((first + i * stride) % script_count(), n))
					break;
	fflush(stdout);
	_exit(0);
}
