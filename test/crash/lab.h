/*
 * What one child of the crash laboratory works with, and its parts: history.c lives phases, look.c looks at what power cuts leave of
 * them, failures.c makes things fail in them, making.c chooses what they are like.
 */
#ifndef TEST_CRASH_LAB_H
#define TEST_CRASH_LAB_H

#include "test/crash/history.h"
#include "test/crash/kept.h"

#define LAB_VIRTUAL_US	 (60ull * 1000 * 1000) /* a phase that has not ended by then hangs */
#define LAB_LOOK_SECONDS 20
#define LAB_MAX_EVENTS	 4096u

struct lab {
	const struct scrutiny *scrutiny;
	struct history h;
	struct crash_disk *copy, *remains; /* of the phase's disk; what a cut leaves of that */
	struct crash_tape *tape;
	struct oracle *at[LAB_MAX_EVENTS]; /* the oracle at each event of the phase */
	struct kept *kept[LAB_MAX_EVENTS]; /* and what outlives the process */
	uint64_t first_event, nr_at, last_event;
};

extern struct lab lab;

/* look.c */
void look_begin(void); /* once, when lab.h is made */
void look_back(void);  /* plays the phase to lab.copy until its end, looking around; that then is what the phase's disk was */
/* Opens and judges a disk, by a copy of the oracle.  kept: power was not lost.  Returns what was seen. */
uint64_t look_judge(struct crash_disk *disk, const struct oracle *oracle, uint64_t seed, const struct kept *kept, bool use,
		    const char *fate);
/* Judges what a power cut leaves of lab.copy.  nr: 0 all is lost; or as the seed says. */
void look_judge_cut(const struct oracle *oracle, uint64_t seed, unsigned nr);
void look_calm(struct crash_disk *disk); /* from now on it does not dawdle */

/* history.c: scripts begin on a store that two random phases have made old. */
void history_start_old(uint64_t age, const struct scrutiny *scrutiny, bool lies);
void history_be_old_again(void);
void history_run_phase(unsigned phase, uint64_t script, bool *ret_closed); /* to be looked at until lab.last_event; closed: it ended before */

#endif
