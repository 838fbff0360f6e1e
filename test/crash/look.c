/*
 * Looking: a phase's tape is played to a copy of its disk, and at each event the remains of several power cuts are made, opened and
 * judged; some within their recovery, some twice, some after the process alone has died.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/sim.h"
#include "test/crash/lab.h"

#define NR_NESTED   3u /* crashes within a recovery that are looked at */
#define NR_AT_FLUSH 6u /* at each flush in it, when the process before died: what that left in the cache may go now */
#define JUDGED_CAP  (1u << 20)

static struct look {
	struct crash_disk *inner_copy, *inner_remains; /* as lab's, for crashes within a recovery */
	struct crash_tape *inner_tape;
	struct oracle *oracle;	  /* this look's */
	struct oracle *after_use; /* the same, once it has used the store */
	bool wants_answer;	  /* looks are compared */
	uint64_t *judged;	  /* images with what was asked of them */
} look;

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

void look_begin(void)
{
	look.inner_copy = crash_disk_create(&lab.h.disk_opts);
	look.inner_remains = crash_disk_create(&lab.h.disk_opts);
	look.oracle = oracle_create(lab.h.max_blocks, 8192);
	look.judged = calloc(JUDGED_CAP, sizeof(look.judged[0]));
	if (!look.inner_copy || !look.inner_remains || !look.judged) {
		fprintf(stderr, "no memory for a history\n");
		_exit(2);
	}
}

static void look_failed(const char *fate, const char *wrong)
{
	snprintf(witness->wrong, sizeof(witness->wrong), "%s", wrong);
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
	oracle_destroy(look.after_use);
	look.after_use = oracle_dup(h->oracle);
}

uint64_t look_judge(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const struct kept *kept, bool use,
		    const char *fate)
{
	struct sim_opts sim = { .seed = seed, .nr_reactors = 1, .max_virtual_us = LAB_VIRTUAL_US, .nr_small = 8, .nr_large = 4 };
	struct history h = lab.h;
	struct verification v = { .h = &h, .seed = seed, .use = use, .failed = look_failed };
	int rc;

	oracle_copy(look.oracle, oracle);
	look.oracle->power_lost |= !kept; /* it may have been so before, and not recovered from */
	if (kept)
		kept_put_back(kept);
	else
		kept_off();
	h.disk = disk;
	h.oracle = look.oracle;
	h.begins = h.over = NULL;
	h.recovered = use ? NULL : stop_recording;
	v.used = note_use;
	v.wants_answer = look.wants_answer;
	alarm(LAB_LOOK_SECONDS);
	witness->nr_looks++;
	v.fate = fate;
	rc = sim_run(&sim, verify_main, &v);
	if (rc)
		look_failed(fate, strerror(-rc));
	return v.answer;
}

void look_calm(struct crash_disk *disk)
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

	crash_disk_capture(look.inner_copy);
	fate = crash_disk_remains(look.inner_remains, look.inner_copy, fate, seed, &hash);
	crash_disk_release(look.inner_copy);
	look_calm(look.inner_remains);
	witness->nr_nested++;
	witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
	if (set_add(look.judged, JUDGED_CAP, hash ^ oracle_hash(oracle)))
		look_judge(look.inner_remains, oracle, seed, NULL, false, crash_fate_name(fate));
	else
		witness->nr_skipped++;
}

/* Judges a disk, and looks at crashes within its recovery as well.  kept: a process has died, and its cache is full. */
static void judge_nested(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const struct kept *kept,
			 const char *fate)
{
	uint64_t nr_events, left = NR_NESTED;
	struct crash_player *player;

	look.inner_tape = crash_tape_create();
	crash_disk_copy(look.inner_copy, disk);
	crash_disk_record(disk, look.inner_tape);
	look_judge(disk, oracle, seed, kept, false, fate);
	witness->nested = true;
	nr_events = crash_tape_nr_events(look.inner_tape);
	player = crash_player_create(look.inner_tape, look.inner_copy);
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
	crash_tape_destroy(look.inner_tape);
	witness->nested = false;
}

/* Opens and judges it, uses it, and lets power go at the end of that. */
static void judge_twice(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const char *fate)
{
	struct crash_player *player;
	enum crash_fate again;
	uint64_t hash;

	look.inner_tape = crash_tape_create();
	crash_disk_copy(look.inner_copy, disk);
	crash_disk_record(disk, look.inner_tape);
	oracle_destroy(look.after_use);
	look.after_use = NULL;
	look_judge(disk, oracle, seed, NULL, true, fate);
	if (look.after_use) { /* there was a store */
		witness->nested = true;
		player = crash_player_create(look.inner_tape, look.inner_copy);
		while (crash_player_next(player))
			;
		crash_disk_capture(look.inner_copy);
		again = crash_disk_remains(look.inner_remains, look.inner_copy, pick_fate(seed, seed % 2), seed, &hash);
		crash_player_destroy(player);
		look_calm(look.inner_remains);
		witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
		look_judge(look.inner_remains, look.after_use, seed, NULL, false, crash_fate_name(again));
		witness->nested = false;
	}
	crash_tape_destroy(look.inner_tape);
}

void look_judge_cut(const struct oracle *oracle, uint64_t seed, unsigned nr)
{
	uint64_t hash;
	enum crash_fate fate = crash_disk_remains(lab.remains, lab.copy, pick_fate(seed, nr), seed, &hash);

	look_calm(lab.remains);
	witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
	look_judge(lab.remains, oracle, seed, NULL, false, crash_fate_name(fate));
}

static void look_once(const struct oracle *oracle, uint64_t seed, unsigned nr)
{
	enum crash_fate fate = pick_fate(seed, nr);
	uint64_t hash, answer, again;

	fate = crash_disk_remains(lab.remains, lab.copy, fate, seed, &hash);
	lies_rot(&lab.h, lab.remains, seed);
	look_calm(lab.remains);
	witness->nr_distinct += set_add(witness->seen, WITNESS_SEEN_CAP, hash);
	if (!set_add(look.judged, JUDGED_CAP, hash ^ oracle_hash(oracle))) {
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
	look.wants_answer = seed / 7 % 16 == 0;
	answer = look_judge(lab.remains, oracle, seed, NULL, false, crash_fate_name(fate));
	if (!look.wants_answer)
		return;
	/* The same image once more, with threads in another order. */
	crash_disk_remains(lab.remains, lab.copy, fate, seed, &again);
	look_calm(lab.remains);
	witness->nr_again++;
	if (again == hash && look_judge(lab.remains, oracle, seed + 1, NULL, false, crash_fate_name(fate)) != answer)
		look_failed(crash_fate_name(fate), "invariant 6, bounded recovery: a second run of it gives another answer");
	look.wants_answer = false;
}

/* The process dies, and power goes within the next one's recovery. */
static void look_death(const struct oracle *oracle, const struct kept *kept, uint64_t seed)
{
	crash_disk_copy(lab.remains, lab.copy);
	crash_disk_process_died(lab.remains, seed);
	look_calm(lab.remains);
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

void look_back(void)
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
