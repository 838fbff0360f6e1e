noinst_LIBRARIES += %D%/libruntime.a
%C%_libruntime_a_SOURCES = \
	%D%/suite.h %D%/list.h %D%/asan.h %D%/trace.h %D%/internal.h %D%/runtime.h %D%/sim.h \
	%D%/clock.c %D%/clock.h %D%/log.c %D%/log.h \
	%D%/runtime.c %D%/cores.c %D%/cores.h %D%/budget.c %D%/budget.h %D%/eal.c \
	%D%/reactor.c %D%/thread.c %D%/thread.h %D%/message.c %D%/poller.c %D%/timer.c %D%/channel.c \
	%D%/fiber.c %D%/fiber.h %D%/fiber_sync.c %D%/fiber_switch.c %D%/fiber_switch.h \
	%D%/keep.c %D%/keep.h %D%/memory.c %D%/dma_watch.c %D%/memory.h %D%/iobuf.c %D%/progress.h %D%/ring.c %D%/ring.h \
	%D%/stream.c %D%/stream.h %D%/stream_internal.h %D%/stream_socket.c %D%/stream_sim.c %D%/sim.c \
	%D%/rnic.c %D%/rnic.h %D%/rnic_internal.h %D%/rnic_sim.c %D%/rnic_sim.h %D%/rnic_sim_cm.c %D%/rnic_sim_internal.h %D%/rnic_sim_qp.c %D%/rnic_verbs.c %D%/rnic_verbs.h %D%/rnic_verbs_cm.c \
	%D%/rnic_verbs_park.c

check_PROGRAMS += %D%/thread_test
%C%_thread_test_SOURCES = %D%/thread_test.c %D%/testing.h
%C%_thread_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/fiber_test
%C%_fiber_test_SOURCES = %D%/fiber_test.c %D%/testing.h
%C%_fiber_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/sim_test
%C%_sim_test_SOURCES = %D%/sim_test.c %D%/testing.h
%C%_sim_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/stream_test
%C%_stream_test_SOURCES = %D%/stream_test.c %D%/testing.h
%C%_stream_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/rnic_verbs_test
%C%_rnic_verbs_test_SOURCES = %D%/rnic_verbs_test.c %D%/testing.h
%C%_rnic_verbs_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/iobuf_test
%C%_iobuf_test_SOURCES = %D%/iobuf_test.c %D%/testing.h
%C%_iobuf_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/ring_test
%C%_ring_test_SOURCES = %D%/ring_test.c %D%/testing.h
%C%_ring_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/keep_test
%C%_keep_test_SOURCES = %D%/keep_test.c %D%/testing.h
%C%_keep_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)

check_PROGRAMS += %D%/start_test
%C%_start_test_SOURCES = %D%/start_test.c %D%/testing.h
%C%_start_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)
EXTRA_DIST += doc/runtime.md
