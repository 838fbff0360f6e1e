noinst_LIBRARIES += %D%/liblvol.a
LVOL_SOURCES = %D%/lvol.h %D%/internal.h %D%/bdev.c %D%/copies.c %D%/store.c %D%/volume.c
%C%_liblvol_a_SOURCES = $(LVOL_SOURCES)
# The same with allocations that can be told to fail, for the crash laboratory.
EXTRA_LIBRARIES += %D%/liblvol_mutants.a
%C%_liblvol_mutants_a_SOURCES = $(LVOL_SOURCES)
%C%_liblvol_mutants_a_CPPFLAGS = $(AM_CPPFLAGS) -DBLOB_MUTANTS

check_PROGRAMS += %D%/lvol_test
%C%_lvol_test_SOURCES = %D%/lvol_test.c
%C%_lvol_test_LDADD = $(LIBS_LVOL) $(CHECK_LIBS)
check_PROGRAMS += %D%/copies_test
%C%_copies_test_SOURCES = %D%/copies_test.c
%C%_copies_test_LDADD = $(LIBS_LVOL) $(CHECK_LIBS)
EXTRA_DIST += %D%/testing.h
check_PROGRAMS += %D%/stores_test
%C%_stores_test_SOURCES = %D%/stores_test.c
%C%_stores_test_LDADD = $(LIBS_LVOL) $(CHECK_LIBS)
check_PROGRAMS += %D%/nvme_test
%C%_nvme_test_SOURCES = %D%/nvme_test.c
%C%_nvme_test_LDADD = $(LIBS_LVOL) $(CHECK_LIBS)
check_PROGRAMS += %D%/deleting_test
%C%_deleting_test_SOURCES = %D%/deleting_test.c
%C%_deleting_test_LDADD = $(LIBS_LVOL) $(CHECK_LIBS)
check_PROGRAMS += %D%/hidden_test
%C%_hidden_test_SOURCES = %D%/hidden_test.c
%C%_hidden_test_LDADD = $(LIBS_LVOL) $(CHECK_LIBS)
