EXTRA_DIST += %D%/check-layers %D%/pre-push

noinst_PROGRAMS += %D%/rawexchange
%C%_rawexchange_SOURCES = %D%/rawexchange.c

noinst_PROGRAMS += %D%/writelog
%C%_writelog_SOURCES = %D%/writelog.c
%C%_writelog_LDADD = $(LIBS_BDEV)

EXTRA_DIST += %D%/bench %D%/bench_storage.py %D%/nvme-instructions
.PHONY: bench
bench: all
	$(top_srcdir)/tools/bench --build $(abs_top_builddir) --limit $(BENCH_OPTIONS)
	if command -v valgrind > /dev/null; then $(top_srcdir)/tools/nvme-instructions --build $(abs_top_builddir); fi

noinst_PROGRAMS += %D%/bdevbench
%C%_bdevbench_SOURCES = %D%/bdevbench.c %D%/bdevbench_work.c %D%/bdevbench_work.h
%C%_bdevbench_LDADD = $(LIBS_LVOL)
noinst_PROGRAMS += %D%/storebench
%C%_storebench_SOURCES = %D%/storebench.c %D%/storebench.h %D%/storebench_load.c %D%/storebench_modes.c
%C%_storebench_LDADD = $(LIBS_BLOB)

noinst_PROGRAMS += %D%/nvmecost
%C%_nvmecost_SOURCES = %D%/nvmecost.c
%C%_nvmecost_LDADD = $(LIBS_NVME)
