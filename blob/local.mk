BLOB_SOURCES = %D%/blob.h %D%/mutant.c %D%/mutant.h
noinst_LIBRARIES += %D%/libblob.a
%C%_libblob_a_SOURCES = $(BLOB_SOURCES)

# The same with mutants, for the crash laboratory.
EXTRA_LIBRARIES += %D%/libblob_mutants.a
%C%_libblob_mutants_a_SOURCES = $(BLOB_SOURCES)
%C%_libblob_mutants_a_CPPFLAGS = $(AM_CPPFLAGS) -DBLOB_MUTANTS
LIBS_BLOB_MUTANTS = blob/libblob_mutants.a $(LIBS_BDEV)
