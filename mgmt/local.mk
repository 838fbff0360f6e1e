noinst_LIBRARIES += %D%/libmgmt.a
%C%_libmgmt_a_SOURCES = \
	%D%/decode.c \
	%D%/exchange.c %D%/exchange.h \
	%D%/journal.c \
	%D%/json_scan.c %D%/json_scan.h \
	%D%/replay.c \
	%D%/rpc.c %D%/rpc.h \
	%D%/server.c %D%/server.h \
	%D%/state.c %D%/state.h
