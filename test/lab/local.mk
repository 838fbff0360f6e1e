# test/lab
EXTRA_DIST += \
	%D%/init %D%/install-deps %D%/labvm %D%/mkinitrd %D%/mklab %D%/modules %D%/run \
	%D%/lib/agent %D%/lib/changes.py %D%/lib/count_insns.c %D%/lib/cut-reader %D%/lib/enter %D%/lib/guest.sh %D%/lib/host.sh %D%/lib/insns.py \
	%D%/lib/jcheck.py \
	%D%/lib/ledger.c %D%/lib/nvme.sh %D%/lib/nvmetcp.py %D%/lib/powercut.py %D%/lib/qmp.py %D%/lib/rdma.sh %D%/lib/rpc.py %D%/lib/stock-host.sh %D%/lib/target.sh %D%/lib/tsc-khz \
	%D%/scenarios/ns-1024.sh %D%/scenarios/nvme-vfio.sh %D%/scenarios/power-cut-self.sh %D%/scenarios/power-cut.sh \
	%D%/scenarios/tcp-admin.sh %D%/scenarios/tcp-basic.sh %D%/scenarios/tcp-digests.sh %D%/scenarios/tcp-kill9.sh \
	%D%/scenarios/fs-kill9.sh %D%/scenarios/nvme-export.sh %D%/scenarios/nvme-instructions.sh %D%/scenarios/nvme-noiommu.sh \
	%D%/scenarios/power-cut-nvme.sh

EXTRA_DIST += %D%/mkmodule %D%/scenarios/rdma-basic.sh %D%/scenarios/rdma-devices.sh %D%/scenarios/rdma-faults.sh %D%/scenarios/rdma-initiator.sh %D%/scenarios/rdma-pair.sh %D%/scenarios/wanted/rdma-siw.sh

# A stock kernel's host in QEMU; SCENARIOS="tcp-basic ..." for some.
.PHONY: check-vm
check-vm: all
	BUILD='$(abs_top_builddir)' $(top_srcdir)/test/lab/run $(SCENARIOS)

# The flood of connection requests, for the guest.
noinst_PROGRAMS += %D%/rdma_flood
EXTRA_DIST += %D%/scenarios/rdma-flood.sh
%C%_rdma_flood_SOURCES = %D%/rdma_flood.c
%C%_rdma_flood_LDADD = $(RDMA_LIBS)

# The host that breaks every rule, for the guest.
noinst_PROGRAMS += %D%/rdma_adversary
EXTRA_DIST += %D%/scenarios/rdma-adversary.sh
%C%_rdma_adversary_SOURCES = %D%/rdma_adversary.c transport/rdma/raw_host.c transport/rdma/raw_host.h
%C%_rdma_adversary_LDADD = $(LIBS_NVME) $(CHECK_LIBS)
