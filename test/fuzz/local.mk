# Fuzzing whole NVMe/TCP connections.  Without --enable-fuzz the target is built all the same and replays its corpus and some
# mutations of it in make check; with it (and clang), make fuzz runs libFuzzer for FUZZ_SECONDS.
check_PROGRAMS += %D%/connection_replay
%C%_connection_replay_SOURCES = %D%/connection_fuzz.c %D%/corpus.c %D%/corpus.h %D%/replay.c %D%/script.h \
	transport/tcp/raw_host.c transport/tcp/raw_host.h
%C%_connection_replay_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

FUZZ_SECONDS = 600

.PHONY: fuzz

if FUZZ
noinst_PROGRAMS += %D%/connection_fuzz
%C%_connection_fuzz_SOURCES = %D%/connection_fuzz.c %D%/script.h transport/tcp/raw_host.c transport/tcp/raw_host.h
%C%_connection_fuzz_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)
%C%_connection_fuzz_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer

fuzz: %D%/connection_fuzz %D%/connection_replay
	@mkdir -p fuzz-corpus/connection
	%D%/connection_replay --write fuzz-corpus/connection
	%D%/connection_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -timeout=20 -rss_limit_mb=2048 \
		-artifact_prefix=fuzz-corpus/connection- fuzz-corpus/connection
endif
