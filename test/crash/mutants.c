/*
 * Mutants: each in turn is brought to life, and rounds of the laboratory go on until one fails.  Which round that was is known from
 * runs before, and with --known it comes first: an honest search that begins where it ended the last time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob/mutant.h"
#include "test/crash/crash_lab.h"

#ifdef BLOB_MUTANTS
#define NR_QUICK_ROUNDS 24u /* in which few looks are made at many histories: most bugs need no more */

static const uint32_t known[BLOB_MUTANT_NR] = { /* not named: the first */
	[BLOB_MUTANT_RECORD_BEFORE_DATA] = 1,
	[BLOB_MUTANT_EARLY_FUA_ACK] = 2,
	[BLOB_MUTANT_CUT_BEFORE_ROOT] = 4,
	[BLOB_MUTANT_JOURNAL_NO_CRC] = 4,
	[BLOB_MUTANT_FLUSH_BEFORE_COMPLETION] = 8,
	[BLOB_MUTANT_UNMAP_RACES_REUSE] = 10,
	[BLOB_MUTANT_RESIZE_KEEPS_TAIL] = 20,
	[BLOB_MUTANT_DELETE_BEFORE_COMMIT] = 4,
	[BLOB_MUTANT_SUMS_LATE_MARK] = 41,
	[BLOB_MUTANT_FUA_ON_VOLATILE_MAP] = 6,
	[BLOB_MUTANT_FUA_DROPPED] = 5,
	[BLOB_MUTANT_GROUP_FLUSH_SKIPPED] = 18,
	[BLOB_MUTANT_FLUSH_JOINS_RUNNING] = 8,
	[BLOB_MUTANT_COMMIT_JOINS_RUNNING] = 4,
	[BLOB_MUTANT_JOURNAL_ANY_EPOCH] = 52,
	[BLOB_MUTANT_EPOCH_KEPT] = 52,
	[BLOB_MUTANT_CHECKPOINT_NOT_FROZEN] = 4,
	[BLOB_MUTANT_SNAPSHOT_BEFORE_COMMIT] = 4,
	[BLOB_MUTANT_SNAPSHOT_NO_DRAIN] = 78,
	[BLOB_MUTANT_SNAPSHOT_PASSES_SIBLING] = 174,
	[BLOB_MUTANT_SUMS_CLEANING_KEPT] = 102,
	[BLOB_MUTANT_SNAPSHOT_NOT_CAUSAL] = 10,
	[BLOB_MUTANT_SNAPSHOT_COUNT_NOT_REPLAYED] = 4,
	[BLOB_MUTANT_CLONE_UNCOUNTED] = 4,
	[BLOB_MUTANT_REVERT_UNCOUNTED] = 10,
	[BLOB_MUTANT_COPY_SHARES_UNCOUNTED] = 26,
	[BLOB_MUTANT_DELETE_COUNTS_TWO] = 4,
	[BLOB_MUTANT_REAP_TWICE] = 4,
	[BLOB_MUTANT_SHARED_IN_PLACE] = 10,
	[BLOB_MUTANT_UNSETTLED_IN_PLACE] = 158,
	[BLOB_MUTANT_COPY_FORGETS_MASK] = 4,
	[BLOB_MUTANT_PUNCH_SHOWS_BASE] = 5,
	[BLOB_MUTANT_PUNCH_UNLOCKED] = 9,
	[BLOB_MUTANT_TRIM_FORGOTTEN] = 26,
	[BLOB_MUTANT_ATTRIBUTES_BEFORE_COMMIT] = 4,
	[BLOB_MUTANT_RESIZE_BEFORE_COMMIT] = 11,
	[BLOB_MUTANT_FAILED_PAGE_IGNORED] = 23,
	[BLOB_MUTANT_STALE_PAGE_TAKEN] = 122,
	[BLOB_MUTANT_NODE_GOES_DIRTY] = 2,
	[BLOB_MUTANT_NODE_GOES_EARLY] = 18,
	[BLOB_MUTANT_NODE_COMES_SETTLED] = 318,
	[BLOB_MUTANT_BIT_BEFORE_DATA] = 1,
	[BLOB_MUTANT_SUMS_CLEARED_EARLY] = 94,
	[BLOB_MUTANT_THICK_TAKES_PROMISED] = 14,
	[BLOB_MUTANT_CHECKPOINTS_CHASED] = 204,
};

struct kill {
	double cpu_s;
	uint64_t round;
};

static bool kills(uint64_t round)
{
	witness->wrong[0] = '\0';
	opt.scrutiny.every = round < NR_QUICK_ROUNDS ? 8 : 1;
	return !crash_lab_round(round, 0);
}

/* The round that failed must be one that does not fail without the mutant. */
static bool is_sound(uint64_t round)
{
	blob_mutant = BLOB_MUTANT_NONE;
	if (crash_lab_round(round, 0))
		return true;
	printf("round %lu fails without a mutant, too\n", (unsigned long)round);
	return false;
}

static bool kill_mutant(enum blob_mutant mutant, struct kill *ret_kill)
{
	double began = crash_lab_cpu_s();
	uint64_t first = opt.known ? known[mutant] : 0;
	char wrong[sizeof(witness->wrong)];
	bool killed;

	blob_mutant = mutant;
	ret_kill->round = first;
	killed = kills(first);
	for (uint64_t i = 0; !killed && crash_lab_cpu_s() - began < opt.mutant_s; i++) {
		ret_kill->round = i;
		killed = i != first && kills(i);
	}
	ret_kill->cpu_s = crash_lab_cpu_s() - began;
	snprintf(wrong, sizeof(wrong), "%s", witness->wrong[0] ? witness->wrong : "the process ended");
	if (killed && !is_sound(ret_kill->round))
		killed = false;
	else if (killed)
		printf("mutant %s: killed in %.1f s, in round %lu: %s\n", blob_mutant_name(mutant), ret_kill->cpu_s,
		       (unsigned long)ret_kill->round, wrong);
	else
		printf("mutant %s: survived %u s\n", blob_mutant_name(mutant), opt.mutant_s);
	fflush(stdout);
	return killed;
}

static int compare_times(const void *a, const void *b)
{
	double x = ((const struct kill *)a)->cpu_s, y = ((const struct kill *)b)->cpu_s;

	return x < y ? -1 : x > y;
}

int mutants_kill(void)
{
	struct kill kill[BLOB_MUTANT_NR];
	unsigned killed = 0, nr = 0;

	for (enum blob_mutant m = BLOB_MUTANT_NONE + 1; m < BLOB_MUTANT_NR; m++) {
		if (opt.mutant && strcmp(opt.mutant, blob_mutant_name(m)))
			continue;
		nr++;
		killed += kill_mutant(m, &kill[killed]);
	}
	qsort(kill, killed, sizeof(kill[0]), compare_times);
	printf("%u of %u mutants killed, the median one in %.1f s of one core\n", killed, nr, killed ? kill[killed / 2].cpu_s : 0.0);
	return nr && killed == nr ? 0 : 1;
}
#else
int mutants_kill(void)
{
	fprintf(stderr, "there are mutants only in %s_mutants\n", opt.program);
	return 2;
}
#endif
