noinst_LIBRARIES += %D%/libtransport.a
%C%_libtransport_a_SOURCES = \
	%D%/tcp/chunk.c %D%/tcp/conn.c %D%/tcp/internal.h %D%/tcp/listener.c %D%/tcp/pdu.c %D%/tcp/pdu.h %D%/tcp/recv.c \
	%D%/tcp/req.c %D%/tcp/send.c %D%/tcp/sgl.c %D%/tcp/tcp.c %D%/tcp/tcp.h \
	%D%/rdma/cm.c %D%/rdma/conn.c %D%/rdma/cq.c %D%/rdma/internal.h %D%/rdma/listener.c %D%/rdma/port.c %D%/rdma/rdma.c %D%/rdma/rdma.h \
	%D%/rdma/req.c %D%/rdma/sgl.c %D%/rdma/sink.c %D%/rdma/slot.c

check_PROGRAMS += %D%/tcp/pdu_test
%C%_tcp_pdu_test_SOURCES = %D%/tcp/pdu_test.c
%C%_tcp_pdu_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

EXTRA_DIST += doc/transport.md doc/rdma.md

# The real nvmf is left out: a fake one stands behind the connections.
check_PROGRAMS += %D%/tcp/conn_test
%C%_tcp_conn_test_SOURCES = %D%/tcp/conn_test.c %D%/tcp/conn_testing.h %D%/tcp/fake_nvmf.c %D%/tcp/fake_nvmf.h \
	%D%/tcp/raw_host.c %D%/tcp/raw_host.h
%C%_tcp_conn_test_LDADD = transport/libtransport.a $(LIBS_NVME) $(CHECK_LIBS)

check_PROGRAMS += %D%/tcp/conn_life_test
%C%_tcp_conn_life_test_SOURCES = %D%/tcp/conn_life_test.c %D%/tcp/conn_testing.h %D%/tcp/fake_nvmf.c %D%/tcp/fake_nvmf.h \
	%D%/tcp/raw_host.c %D%/tcp/raw_host.h
%C%_tcp_conn_life_test_LDADD = transport/libtransport.a $(LIBS_NVME) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/conn_test
%C%_rdma_conn_test_SOURCES = %D%/rdma/conn_test.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h %D%/rdma/world_test.h
%C%_rdma_conn_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/leaf_test
%C%_rdma_leaf_test_SOURCES = %D%/rdma/leaf_test.c %D%/rdma/world_test.h
%C%_rdma_leaf_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/device_test
%C%_rdma_device_test_SOURCES = %D%/rdma/device_test.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h %D%/rdma/world_test.h
%C%_rdma_device_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/connect_test
%C%_rdma_connect_test_SOURCES = %D%/rdma/connect_test.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h %D%/rdma/world_test.h
%C%_rdma_connect_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/end_test
%C%_rdma_end_test_SOURCES = %D%/rdma/end_test.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h %D%/rdma/world_test.h
%C%_rdma_end_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/cq_test
%C%_rdma_cq_test_SOURCES = %D%/rdma/cq_test.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h %D%/rdma/world_test.h
%C%_rdma_cq_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/share_test
%C%_rdma_share_test_SOURCES = %D%/rdma/share_test.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h %D%/rdma/world_test.h
%C%_rdma_share_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

check_PROGRAMS += %D%/rdma/initiator_test
%C%_rdma_initiator_test_SOURCES = %D%/rdma/initiator_test.c %D%/rdma/world_test.h
%C%_rdma_initiator_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)

# One table, over each transport.
check_PROGRAMS += %D%/tcp/conformance_test %D%/rdma/conformance_test
%C%_tcp_conformance_test_SOURCES = %D%/conformance_test.c %D%/conformance_host.c %D%/conformance_host.h %D%/wire.h %D%/tcp/wire.c %D%/tcp/raw_host.c %D%/tcp/raw_host.h
%C%_tcp_conformance_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)
%C%_rdma_conformance_test_SOURCES = %D%/conformance_test.c %D%/conformance_host.c %D%/conformance_host.h %D%/wire.h %D%/rdma/wire.c %D%/rdma/raw_host.c %D%/rdma/raw_host.h
%C%_rdma_conformance_test_LDADD = $(LIBS_TRANSPORT) $(CHECK_LIBS)
