noinst_LIBRARIES += %D%/liblvol.a
%C%_liblvol_a_SOURCES = %D%/lvol.h
