noinst_LIBRARIES += %D%/libnvme.a
%C%_libnvme_a_SOURCES = %D%/nvme.h %D%/cmd.h %D%/status.h %D%/fabrics.h %D%/identify.h %D%/log_page.h %D%/tcp_pdu.h %D%/rdma_cm.h \
	%D%/words.c %D%/transfer.h %D%/transfer.c %D%/crc32c.h %D%/crc32c.c %D%/initiator.h %D%/internal.h %D%/qpair.c %D%/rdma.h %D%/rdma.c %D%/rdma_data.c %D%/tcp.c %D%/tcp_tx.c %D%/tcp_rx.c \
	%D%/ctrlr.c %D%/ctrlr_fail.c %D%/namespace.c %D%/discover.c %D%/latency.h %D%/latency.c \
	%D%/bar.h %D%/pcie.h %D%/pcie_ctrlr.c %D%/pcie_qpair.c %D%/pcie_data.c %D%/pcie_cmb.c \
	%D%/vfio.h %D%/vfio_internal.h %D%/vfio.c %D%/vfio_dma.c %D%/uio.c %D%/mapped_bar.h %D%/mapped_bar.c %D%/msix.h %D%/msix.c \
	%D%/soft/soft.h %D%/soft/internal.h %D%/soft/soft.c %D%/soft/queue.c %D%/soft/admin.c %D%/soft/io.c

check_PROGRAMS += %D%/words_test
%C%_words_test_SOURCES = %D%/words_test.c
%C%_words_test_LDADD = nvme/libnvme.a $(ISAL_LIBS) $(CHECK_LIBS)

check_PROGRAMS += %D%/latency_test
%C%_latency_test_SOURCES = %D%/latency_test.c
%C%_latency_test_LDADD = nvme/libnvme.a $(CHECK_LIBS) -lm

check_PROGRAMS += %D%/initiator_test
%C%_initiator_test_SOURCES = %D%/initiator_test.c %D%/initiator_testing.h %D%/fake_target.h %D%/fake_target.c
%C%_initiator_test_LDADD = $(LIBS_NVME) $(CHECK_LIBS)

check_PROGRAMS += %D%/initiator_lies_test
%C%_initiator_lies_test_SOURCES = %D%/initiator_lies_test.c %D%/initiator_testing.h %D%/fake_target.h %D%/fake_target.c
%C%_initiator_lies_test_LDADD = $(LIBS_NVME) $(CHECK_LIBS)

check_PROGRAMS += %D%/pcie_test %D%/pcie_trouble_test
%C%_pcie_test_SOURCES = %D%/pcie_test.c %D%/pcie_testing.h
%C%_pcie_test_LDADD = $(LIBS_NVME) $(CHECK_LIBS)
%C%_pcie_trouble_test_SOURCES = %D%/pcie_trouble_test.c %D%/pcie_testing.h
%C%_pcie_trouble_test_LDADD = $(LIBS_NVME) $(CHECK_LIBS)

check_PROGRAMS += %D%/uio_test
%C%_uio_test_SOURCES = %D%/uio_test.c
%C%_uio_test_LDADD = $(LIBS_NVME) $(CHECK_LIBS)
