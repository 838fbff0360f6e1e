noinst_LIBRARIES += %D%/libnvmf.a
%C%_libnvmf_a_SOURCES = \
	%D%/abort.c \
	%D%/admin.c \
	%D%/aer.c \
	%D%/buffer.c \
	%D%/connect.c \
	%D%/ctrlr.c \
	%D%/derive.c \
	%D%/discovery.c \
	%D%/discovery_port.c %D%/stats.c \
	%D%/copy.c \
	%D%/dsm.c \
	%D%/features.c \
	%D%/fused.c \
	%D%/group.c \
	%D%/host.c \
	%D%/identify.c \
	%D%/info.c \
	%D%/internal.h \
	%D%/io.c \
	%D%/io_long.c \
	%D%/keep_alive.c \
	%D%/listener.c \
	%D%/log_page.c \
	%D%/namespace.c \
	%D%/nvmf.h \
	%D%/property.c \
	%D%/qpair.c \
	%D%/request.c \
	%D%/smart.c \
	%D%/subsystem.c \
	%D%/target.c \
	%D%/transport.h

check_PROGRAMS += %D%/connect_test
%C%_connect_test_SOURCES = %D%/connect_test.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_connect_test_LDADD = $(LIBS_NVMF) $(CHECK_LIBS)

check_PROGRAMS += %D%/copy_test
%C%_copy_test_SOURCES = %D%/copy_test.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_copy_test_LDADD = $(LIBS_NVMF) $(CHECK_LIBS)
check_PROGRAMS += %D%/io_test
%C%_io_test_SOURCES = %D%/io_test.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_io_test_LDADD = $(LIBS_NVMF) $(CHECK_LIBS)

check_PROGRAMS += %D%/admin_test
%C%_admin_test_SOURCES = %D%/admin_test.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_admin_test_LDADD = $(LIBS_NVMF) $(CHECK_LIBS)

check_PROGRAMS += %D%/features_test
%C%_features_test_SOURCES = %D%/features_test.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_features_test_LDADD = $(LIBS_NVMF) $(CHECK_LIBS)

check_PROGRAMS += %D%/subsystem_test
%C%_subsystem_test_SOURCES = %D%/subsystem_test.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_subsystem_test_LDADD = $(LIBS_NVMF) $(CHECK_LIBS)

# Commands of any content against the whole room.  Without --enable-fuzz it is built all the same and replays inputs made from
# seeds in make check; with it (and clang) nvmf/command_fuzz is a libFuzzer target.
check_PROGRAMS += %D%/command_replay
%C%_command_replay_SOURCES = %D%/command_fuzz.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_command_replay_CPPFLAGS = $(AM_CPPFLAGS) -DNVMF_FUZZ_REPLAY
%C%_command_replay_LDADD = $(LIBS_NVMF)

if FUZZ
noinst_PROGRAMS += %D%/command_fuzz
%C%_command_fuzz_SOURCES = %D%/command_fuzz.c %D%/fake_transport_test.h %D%/gate_bdev_test.h
%C%_command_fuzz_LDADD = $(LIBS_NVMF)
%C%_command_fuzz_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
endif
