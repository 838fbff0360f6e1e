noinst_LIBRARIES += %D%/libbdev.a
%C%_libbdev_a_SOURCES = %D%/bdev.h %D%/internal.h %D%/registry.h %D%/leaf.h %D%/histogram.h %D%/testing.h %D%/uring.h %D%/crash.h %D%/crash_disk.h %D%/writelog.h \
	%D%/registry.c %D%/examine.c %D%/channel.c %D%/submit.c %D%/range_lock.c %D%/emulate.c %D%/histogram.c \
	%D%/leaf.c %D%/delay.c %D%/delay.h %D%/null.c %D%/malloc.c \
	%D%/uring.c %D%/uring_open.c %D%/uring_discard.c \
	%D%/nvme.h %D%/nvme_internal.h %D%/nvme.c %D%/nvme_path.c %D%/nvme_hotplug.c %D%/nvme_event.c %D%/nvme_show.c %D%/nvme_choice.c %D%/nvme_pass.c %D%/nvme_stat.c \
	%D%/nvme_channel.c %D%/nvme_discovery.c %D%/nvme_ns.c %D%/nvme_ana.c %D%/nvme_io.c \
	%D%/crash.c %D%/crash_disk.c %D%/crash_tape.c %D%/writelog.c %D%/writelog_replay.c

check_PROGRAMS += %D%/bdev_test %D%/atomic_test %D%/uring_test %D%/crash_test
check_PROGRAMS += %D%/delay_test
%C%_delay_test_SOURCES = %D%/delay_test.c
%C%_delay_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_bdev_test_SOURCES = %D%/bdev_test.c
%C%_bdev_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_atomic_test_SOURCES = %D%/atomic_test.c
%C%_atomic_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_uring_test_SOURCES = %D%/uring_test.c
%C%_uring_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_crash_test_SOURCES = %D%/crash_test.c
%C%_crash_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
check_PROGRAMS += %D%/nvme_test %D%/nvme_trouble_test %D%/nvme_threads_test %D%/nvme_choice_test
%C%_nvme_test_SOURCES = %D%/nvme_test.c %D%/nvme_testing.h
%C%_nvme_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_nvme_choice_test_SOURCES = %D%/nvme_choice_test.c %D%/nvme_testing.h
%C%_nvme_choice_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_nvme_trouble_test_SOURCES = %D%/nvme_trouble_test.c %D%/nvme_testing.h
%C%_nvme_trouble_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
%C%_nvme_threads_test_SOURCES = %D%/nvme_threads_test.c %D%/nvme_testing.h
%C%_nvme_threads_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
check_PROGRAMS += %D%/nvme_ana_test
%C%_nvme_ana_test_SOURCES = %D%/nvme_ana_test.c %D%/nvme_testing.h
%C%_nvme_ana_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
check_PROGRAMS += %D%/nvme_tcp_test
%C%_nvme_tcp_test_SOURCES = %D%/nvme_tcp_test.c nvme/fake_target.h nvme/fake_target.c
%C%_nvme_tcp_test_LDADD = $(LIBS_BDEV) $(CHECK_LIBS)
