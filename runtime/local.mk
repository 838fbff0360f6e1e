noinst_LIBRARIES += %D%/libruntime.a
%C%_libruntime_a_SOURCES = \
	%D%/list.h %D%/trace.h %D%/internal.h %D%/runtime.h %D%/sim.h \
	%D%/clock.c %D%/clock.h %D%/log.c %D%/log.h \
	%D%/runtime.c %D%/cores.c %D%/budget.c %D%/budget.h %D%/eal.c \
	%D%/reactor.c %D%/thread.c %D%/thread.h %D%/message.c %D%/poller.c %D%/timer.c %D%/channel.c \
	%D%/fiber.c %D%/fiber.h %D%/fiber_sync.c %D%/fiber_switch.c %D%/fiber_switch.h \
	%D%/memory.c %D%/memory.h %D%/iobuf.c %D%/ring.c %D%/ring.h \
	%D%/stream.c %D%/stream.h %D%/stream_internal.h %D%/stream_socket.c %D%/stream_sim.c %D%/sim.c

check_PROGRAMS += %D%/thread_test %D%/fiber_test %D%/sim_test
%C%_thread_test_SOURCES = %D%/thread_test.c %D%/testing.h
%C%_thread_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)
%C%_fiber_test_SOURCES = %D%/fiber_test.c %D%/testing.h
%C%_fiber_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)
%C%_sim_test_SOURCES = %D%/sim_test.c %D%/testing.h
%C%_sim_test_LDADD = $(LIBS_RUNTIME) $(CHECK_LIBS)
