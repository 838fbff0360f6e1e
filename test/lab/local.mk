# test/lab
EXTRA_DIST += \
	%D%/init %D%/install-deps %D%/labvm %D%/mkinitrd %D%/mklab %D%/modules %D%/run \
	%D%/lib/agent %D%/lib/changes.py %D%/lib/cut-reader %D%/lib/enter %D%/lib/guest.sh %D%/lib/host.sh %D%/lib/jcheck.py \
	%D%/lib/ledger.c %D%/lib/nvmetcp.py %D%/lib/powercut.py %D%/lib/qmp.py %D%/lib/rdma.sh %D%/lib/rpc.py %D%/lib/target.sh \
	%D%/scenarios/ns-1024.sh %D%/scenarios/nvme-vfio.sh %D%/scenarios/power-cut-self.sh %D%/scenarios/power-cut.sh \
	%D%/scenarios/tcp-admin.sh %D%/scenarios/tcp-basic.sh %D%/scenarios/tcp-digests.sh %D%/scenarios/tcp-kill9.sh \
	%D%/scenarios/fs-kill9.sh

EXTRA_DIST += %D%/mksiw %D%/scenarios/rdma-basic.sh %D%/scenarios/rdma-faults.sh %D%/scenarios/rdma-initiator.sh %D%/scenarios/rdma-siw.sh

# A stock kernel's host in QEMU; SCENARIOS="tcp-basic ..." for some.
.PHONY: check-vm
check-vm: all
	BUILD='$(abs_top_builddir)' $(top_srcdir)/test/lab/run $(SCENARIOS)

# The host that breaks every rule, for the guest.
noinst_PROGRAMS += %D%/rdma_adversary
EXTRA_DIST += %D%/scenarios/rdma-adversary.sh
%C%_rdma_adversary_SOURCES = %D%/rdma_adversary.c transport/rdma/raw_host.c transport/rdma/raw_host.h
%C%_rdma_adversary_LDADD = $(LIBS_NVME) $(CHECK_LIBS)
