/*
 * Failures: each operation of the device fails in turn, and each allocation of the store's code, in a script or in the recovery before
 * it.  The process may not end, no cluster may be lost, and the next process must find all that was durable.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "blob/mutant.h"
#include "lvol/lvol.h"
#include "test/crash/lab.h"

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

static void failures_begin(struct history *h)
{
	nr_lost_clusters = verify_lost_clusters(h, 0);
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
	if (verify_lost_clusters(h, nr_lost_clusters) != nr_lost_clusters)
		workload_fail("invariant 7, full is not broken: clusters leaked");
}

/* What is left must hold all that was durable, with power lost after it or not. */
static void judge_failure(uint64_t seed)
{
	crash_disk_copy(lab.copy, lab.h.disk);
	crash_disk_fail_nth(lab.copy, 0, 0);
	crash_disk_copy(lab.remains, lab.copy);
	look_calm(lab.remains);
	look_judge(lab.remains, lab.h.oracle, seed, NULL, seed % 2, "after a failure");
	look_judge_cut(lab.h.oracle, seed, seed % 3);
}

/* One script, or the recovery before it, with the n-th thing failing.  False: there are not so many. */
static bool one_failure(uint64_t script, uint64_t nr)
{
	bool closed, in_recovery = failure == FAILURE_IO_IN_RECOVERY || failure == FAILURE_ALLOC_IN_RECOVERY;

	history_be_old_again();
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
	history_run_phase(2, script, &closed);
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
	history_start_old(age, scrutiny, false);
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
