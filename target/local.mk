sbin_PROGRAMS += ferruled
ferruled_SOURCES = \
	%D%/ferruled.c \
	%D%/notify.c %D%/notify.h \
	%D%/options.c %D%/options.h \
	%D%/places.c %D%/places.h
ferruled_LDADD = $(LIBS_MGMT)
