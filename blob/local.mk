BLOB_SOURCES = \
	%D%/admit.c \
	%D%/alloc.c \
	%D%/blob.c \
	%D%/blob.h \
	%D%/cache.h \
	%D%/check.c \
	%D%/checkpoint.c \
	%D%/control.c \
	%D%/copy.c \
	%D%/cow.c \
	%D%/create.c \
	%D%/csum.c \
	%D%/csum.h \
	%D%/csum_fill.c \
	%D%/csum_mark.c \
	%D%/csum_read.c \
	%D%/drain.c \
	%D%/entry.c \
	%D%/evict.c \
	%D%/external.c \
	%D%/figures.c \
	%D%/diff.c \
	%D%/figures.h \
	%D%/fill.c \
	%D%/fill.h \
	%D%/format.c \
	%D%/format.h \
	%D%/grace.c \
	%D%/grow.c \
	%D%/inflate.c \
	%D%/internal.h \
	%D%/io.c \
	%D%/journal.c \
	%D%/load.c \
	%D%/lock.c \
	%D%/map.c \
	%D%/map.h \
	%D%/mirror.c \
	%D%/mutant.c \
	%D%/mutant.h \
	%D%/mutant_alloc.h \
	%D%/nodes.c \
	%D%/pace.c \
	%D%/page.c \
	%D%/parent.c \
	%D%/payload.c \
	%D%/punch.c \
	%D%/reaper.c \
	%D%/record.c \
	%D%/recover.c \
	%D%/scrub.c \
	%D%/snapshot.c \
	%D%/store.c \
	%D%/vec.c
noinst_LIBRARIES += %D%/libblob.a
%C%_libblob_a_SOURCES = $(BLOB_SOURCES)

# The same with mutants, for the crash laboratory.
EXTRA_LIBRARIES += %D%/libblob_mutants.a
%C%_libblob_mutants_a_SOURCES = $(BLOB_SOURCES)
%C%_libblob_mutants_a_CPPFLAGS = $(AM_CPPFLAGS) -DBLOB_MUTANTS
LIBS_BLOB_MUTANTS = blob/libblob_mutants.a $(LIBS_BDEV)

EXTRA_DIST += %D%/testing.h
check_PROGRAMS += %D%/store_test
%C%_store_test_SOURCES = %D%/store_test.c
%C%_store_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/model_test
%C%_model_test_SOURCES = %D%/model.h %D%/model_copies.c %D%/model_test.c
%C%_model_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/csum_test
%C%_csum_test_SOURCES = %D%/csum_test.c
%C%_csum_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/scrub_test
%C%_scrub_test_SOURCES = %D%/scrub_test.c
%C%_scrub_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/grow_test
%C%_grow_test_SOURCES = %D%/grow_test.c
%C%_grow_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/external_test
%C%_external_test_SOURCES = %D%/external_test.c
%C%_external_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/copy_test
%C%_copy_test_SOURCES = %D%/copy_test.c
%C%_copy_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/damage_test
%C%_damage_test_SOURCES = %D%/damage_test.c
%C%_damage_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/cache_test
%C%_cache_test_SOURCES = %D%/cache_test.c
%C%_cache_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)

check_PROGRAMS += %D%/control_test
%C%_control_test_SOURCES = %D%/control_test.c
%C%_control_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/threads_test
%C%_threads_test_SOURCES = %D%/threads_test.c
%C%_threads_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/format_test
%C%_format_test_SOURCES = %D%/format_test.c
%C%_format_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/snapshot_test
%C%_snapshot_test_SOURCES = %D%/snapshot_test.c
%C%_snapshot_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/mirror_test
%C%_mirror_test_SOURCES = %D%/mirror_test.c
%C%_mirror_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
check_PROGRAMS += %D%/cut_test
%C%_cut_test_SOURCES = %D%/cut_test.c
%C%_cut_test_LDADD = $(LIBS_BLOB) $(CHECK_LIBS)
