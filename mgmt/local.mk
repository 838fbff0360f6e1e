noinst_LIBRARIES += %D%/libmgmt.a
%C%_libmgmt_a_SOURCES = \
	%D%/cli.c %D%/cli.h %D%/cli_client.c %D%/cli_controller.c %D%/cli_host.c %D%/cli_host.h %D%/host_drives.c %D%/cli_job.c %D%/cli_show.c %D%/cli_size.c %D%/cli_storage.c \
	%D%/cli_store.c %D%/cli_verbs.c \
	%D%/cli_nvme.c %D%/cli_nvme.h %D%/cli_nvme_data.c %D%/cli_nvme_perf.c %D%/cli_nvme_show.c \
	%D%/decode.c \
	%D%/deletion.c %D%/deletion.h \
	%D%/event.c %D%/event.h \
	%D%/exchange.c %D%/exchange.h \
	%D%/file_dirs.c \
	%D%/http.c %D%/http.h \
	%D%/http_token.c %D%/http_token.h \
	%D%/job.c %D%/job.h \
	%D%/journal.c \
	%D%/json_scan.c %D%/json_scan.h %D%/text.h \
	%D%/known.c %D%/known.h \
	%D%/mgmt.c %D%/mgmt.h \
	%D%/methods.h \
	%D%/methods_app.c \
	%D%/methods_bdev.c %D%/methods_delay.c \
	%D%/methods_bdev_show.c \
	%D%/methods_job.c \
	%D%/methods_copy.c \
	%D%/methods_lvol.c %D%/methods_lvol.h \
	%D%/methods_lvol_ranges.c \
	%D%/methods_lvol_show.c \
	%D%/methods_nvme.c %D%/methods_nvme_pass.c %D%/methods_nvme_show.c \
	%D%/methods_store.c \
	%D%/methods_nvmf.c %D%/methods_nvmf.h \
	%D%/methods_nvmf_export.c \
	%D%/methods_nvmf_show.c \
	%D%/late.c %D%/late.h \
	%D%/replay.c \
	%D%/rpc.c %D%/rpc.h \
	%D%/rpc_list.c \
	%D%/server.c %D%/server.h \
	%D%/state.c %D%/state.h \
	%D%/watch.c %D%/watch.h

bin_PROGRAMS += ferrule
ferrule_SOURCES = %D%/ferrule.c
ferrule_LDADD = $(LIBS_MGMT)

check_PROGRAMS += %D%/decode_test %D%/journal_test %D%/json_scan_test
%C%_decode_test_SOURCES = %D%/decode_test.c
%C%_decode_test_LDADD = $(LIBS_MGMT) $(CHECK_LIBS)
%C%_journal_test_SOURCES = %D%/journal_test.c
%C%_journal_test_LDADD = $(LIBS_MGMT) $(CHECK_LIBS)
%C%_json_scan_test_SOURCES = %D%/json_scan_test.c
%C%_json_scan_test_LDADD = $(LIBS_MGMT) $(CHECK_LIBS)
check_PROGRAMS += %D%/cli_nvme_rdma_test
%C%_cli_nvme_rdma_test_SOURCES = %D%/cli_nvme_rdma_test.c transport/rdma/world_test.h
%C%_cli_nvme_rdma_test_LDADD = $(LIBS_MGMT) $(CHECK_LIBS)

EXTRA_DIST += doc/mgmt.md doc/adr/0010-saved-state-in-a-journal.md doc/adr/0042-jobs-in-the-saved-state.md doc/adr/0043-deletions-are-noted-before-they-begin.md

# Texts and journals of any content.  Replayed from mutations in make check; with --enable-fuzz (and clang) make fuzz-json.
check_PROGRAMS += %D%/json_replay
%C%_json_replay_SOURCES = %D%/json_fuzz.c
%C%_json_replay_CPPFLAGS = $(AM_CPPFLAGS) -DJSON_FUZZ_REPLAY
%C%_json_replay_LDADD = $(LIBS_MGMT)

.PHONY: fuzz-json
if FUZZ
noinst_PROGRAMS += %D%/json_fuzz
%C%_json_fuzz_SOURCES = %D%/json_fuzz.c
%C%_json_fuzz_LDADD = $(LIBS_MGMT)
%C%_json_fuzz_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer

fuzz-json: %D%/json_fuzz
	@mkdir -p fuzz-corpus/json
	%D%/json_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=20 -artifact_prefix=fuzz-corpus/json- fuzz-corpus/json
fuzz: fuzz-json
endif
