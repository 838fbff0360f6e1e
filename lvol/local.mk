noinst_LIBRARIES += %D%/liblvol.a
%C%_liblvol_a_SOURCES = %D%/lvol.h %D%/internal.h %D%/bdev.c %D%/store.c %D%/volume.c
