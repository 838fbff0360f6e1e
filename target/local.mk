sbin_PROGRAMS += ferruled
ferruled_SOURCES = %D%/ferruled.c
ferruled_LDADD = $(LIBS_MGMT)
