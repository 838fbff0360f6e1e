noinst_LIBRARIES += %D%/liblvol.a
%C%_liblvol_a_SOURCES = %D%/lvol.h %D%/internal.h %D%/bdev.c %D%/copies.c %D%/store.c %D%/volume.c

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
