# The crash laboratory: `make check-crash`, in full or with CRASH=quick.
CRASH_SOURCES = %D%/crash_lab.c %D%/history.c %D%/history.h %D%/lab.h %D%/look.c %D%/making.c %D%/failures.c %D%/outside.c %D%/kept.c %D%/kept.h %D%/damage.c %D%/lies.c %D%/image.c %D%/image.h \
	%D%/workload.c %D%/script.c %D%/ops.c %D%/ops_copies.c %D%/ops.h \
	%D%/verify.c %D%/oracle.c %D%/oracle_copies.c %D%/judge.c %D%/oracle.h
CRASH = full
CRASH_SECONDS_quick = 20
CRASH_SECONDS_full = 300
CRASH_FAILURES_quick = 15
CRASH_FAILURES_full = 120
CRASH_DAMAGE_quick = 25
CRASH_DAMAGE_full = 1
CRASH_MUTANTS_quick = --mutant-seconds 5 --budget 40
CRASH_MUTANTS_full = --mutant-seconds 180

EXTRA_PROGRAMS += %D%/crash_lab %D%/crash_lab_mutants
%C%_crash_lab_SOURCES = $(CRASH_SOURCES)
%C%_crash_lab_LDADD = $(LIBS_LVOL)
%C%_crash_lab_mutants_SOURCES = $(CRASH_SOURCES)
%C%_crash_lab_mutants_CPPFLAGS = $(AM_CPPFLAGS) -DBLOB_MUTANTS
%C%_crash_lab_mutants_LDADD = lvol/liblvol.a $(LIBS_BLOB_MUTANTS)

.PHONY: check-crash
check-crash: %D%/crash_lab %D%/crash_lab_mutants
	%D%/crash_lab --seeds 100000 --budget $(CRASH_SECONDS_$(CRASH))
	%D%/crash_lab_mutants --failures --seeds 100000 --budget $(CRASH_FAILURES_$(CRASH))
	%D%/crash_lab --damage $(CRASH_DAMAGE_$(CRASH))
	%D%/crash_lab_mutants --mutants $(CRASH_MUTANTS_$(CRASH))
