/* The crash laboratory's command: what it was asked, and its rounds; crash_lab.c has them, mutants.c kills mutants with them. */
#ifndef TEST_CRASH_CRASH_LAB_H
#define TEST_CRASH_CRASH_LAB_H

#include "test/crash/history.h"

struct crash_lab_opts {
	const char *program;
	uint64_t first_seed, nr_seeds, age, script;
	uint64_t nr_states;  /* stop when so many distinct ones have been looked at, and fail when that takes too long; 0: no number */
	unsigned damage;     /* every so many pages; 0: none */
	bool mutants, scripts_only, failures;
	const char *mutant;  /* NULL: all */
	bool known;	     /* mutants: begin with the round that has killed each before */
	unsigned budget_s;   /* of wall clock; 0: no end */
	unsigned cpu_budget_s; /* of one core, in children; 0: no end */
	unsigned mutant_s;   /* of one core, for each */
	struct scrutiny scrutiny;
};

extern struct crash_lab_opts opt;

/* The i-th round: a history, or some scripts on one of the ages, in a child; end_s: the moment of time() to end it at, 0 none.  False:
 * something is wrong, and it was said. */
bool crash_lab_round(uint64_t i, uint64_t end_s);
double crash_lab_cpu_s(void); /* of all children that have ended */

int mutants_kill(void); /* the process's exit status */

#endif
