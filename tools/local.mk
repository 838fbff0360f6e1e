EXTRA_DIST += %D%/check-layers

noinst_PROGRAMS += %D%/rawexchange
%C%_rawexchange_SOURCES = %D%/rawexchange.c
