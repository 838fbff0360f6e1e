# The crash laboratory: `make check-crash`, in full or with CRASH=quick.
CRASH_SOURCES = %D%/crash_lab.c %D%/workload.c %D%/verify.c %D%/oracle.c %D%/oracle.h %D%/history.h
CRASH = full
CRASH_SECONDS_quick = 20
CRASH_SECONDS_full = 120
CRASH_MUTANTS_quick = --enough 8
CRASH_MUTANTS_full =

EXTRA_PROGRAMS += %D%/crash_lab %D%/crash_lab_mutants
%C%_crash_lab_SOURCES = $(CRASH_SOURCES)
%C%_crash_lab_LDADD = $(LIBS_LVOL)
%C%_crash_lab_mutants_SOURCES = $(CRASH_SOURCES)
%C%_crash_lab_mutants_CPPFLAGS = $(AM_CPPFLAGS) -DBLOB_MUTANTS
%C%_crash_lab_mutants_LDADD = lvol/liblvol.a $(LIBS_BLOB_MUTANTS)

.PHONY: check-crash
check-crash: %D%/crash_lab %D%/crash_lab_mutants
	%D%/crash_lab --seeds 100000 --budget $(CRASH_SECONDS_$(CRASH))
	%D%/crash_lab_mutants --mutants $(CRASH_MUTANTS_$(CRASH))
