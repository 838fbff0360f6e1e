# The crash laboratory: `make check-crash`, in full or with CRASH=quick.
CRASH_SOURCES = %D%/crash_lab.c %D%/crash_lab.h %D%/mutants.c %D%/history.c %D%/history.h %D%/lab.h %D%/look.c %D%/making.c %D%/failures.c %D%/outside.c %D%/kept.c %D%/kept.h %D%/damage.c %D%/lies.c %D%/image.c %D%/image.h \
	%D%/workload.c %D%/script.c %D%/ops.c %D%/ops_copies.c %D%/ops.h \
	%D%/verify.c %D%/oracle.c %D%/oracle_copies.c %D%/judge.c %D%/oracle.h
# quick: under two minutes.  ci: as many states as the laboratory promises, each operation with failures, all mutants.  full: more of
# everything, each mutant from the beginning.  long: hours (CRASH_HOURS) of histories and of failures, from seeds of their own (CRASH_SEED).
CRASH = full
CRASH_HOURS = 8
CRASH_SEED = 1000
CRASH_STATES_quick = --seeds 1000000 --cpu-budget 20
CRASH_STATES_ci = --seeds 1000000 --states 200000 --cpu-budget 300
CRASH_STATES_full = --seeds 1000000 --cpu-budget 600
CRASH_STATES_long = --first $(CRASH_SEED) --seeds 1000000000 --budget $$(($(CRASH_HOURS) * 1800))
CRASH_FAILURES_quick = --seeds 1000000 --cpu-budget 10
CRASH_FAILURES_ci = --seeds 1000000 --cpu-budget 40
CRASH_FAILURES_full = --seeds 1000000 --cpu-budget 200
CRASH_FAILURES_long = --first $(CRASH_SEED) --seeds 1000000000 --budget $$(($(CRASH_HOURS) * 1800))
CRASH_DAMAGE_quick = 10
CRASH_DAMAGE_ci = 1
CRASH_DAMAGE_full = 1
CRASH_DAMAGE_long = 1
CRASH_MUTANTS_quick = --known --mutant-seconds 30
CRASH_MUTANTS_ci = --known --mutant-seconds 120
CRASH_MUTANTS_full = --mutant-seconds 600
CRASH_MUTANTS_long = --mutant-seconds 600

EXTRA_PROGRAMS += %D%/crash_lab %D%/crash_lab_mutants
%C%_crash_lab_SOURCES = $(CRASH_SOURCES)
%C%_crash_lab_LDADD = $(LIBS_LVOL)
%C%_crash_lab_mutants_SOURCES = $(CRASH_SOURCES)
%C%_crash_lab_mutants_CPPFLAGS = $(AM_CPPFLAGS) -DBLOB_MUTANTS
%C%_crash_lab_mutants_LDADD = lvol/liblvol_mutants.a $(LIBS_BLOB_MUTANTS)

.PHONY: check-crash
check-crash: %D%/crash_lab %D%/crash_lab_mutants
	%D%/crash_lab $(CRASH_STATES_$(CRASH))
	%D%/crash_lab_mutants --failures $(CRASH_FAILURES_$(CRASH))
	%D%/crash_lab --damage $(CRASH_DAMAGE_$(CRASH))
	%D%/crash_lab_mutants --mutants $(CRASH_MUTANTS_$(CRASH))
