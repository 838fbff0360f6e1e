sbin_PROGRAMS += ferruled
ferruled_SOURCES = \
	%D%/ferruled.c \
	%D%/notify.c %D%/notify.h \
	%D%/options.c %D%/options.h \
	%D%/places.c %D%/places.h
ferruled_LDADD = $(LIBS_MGMT)

check_PROGRAMS += %D%/places_test
%C%_places_test_SOURCES = %D%/places_test.c %D%/places.c %D%/places.h
%C%_places_test_LDADD = $(CHECK_LIBS)
