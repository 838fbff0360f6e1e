EXTRA_DIST += \
	%D%/adr/0001-buffer-pool-on-a-ring.md \
	%D%/adr/0002-readiness-by-ring-bytes-by-syscall.md \
	%D%/adr/0020-first-writes-by-the-owner.md \
	%D%/adr/0021-snapshot-moment.md \
	%D%/adr/0022-checksums-beside-their-clusters.md \
	%D%/adr/0023-map-cache.md \
	%D%/adr/0024-records-outlive-the-process.md \
	%D%/adr/0025-external-bdevs-in-maps.md \
	%D%/adr/0026-background-work-is-measured.md \
	%D%/adr/0030-groups-own-their-namespaces.md \
	%D%/adr/0040-half-a-pdu-is-not-a-bad-pdu.md \
	%D%/adr/0041-a-host-without-a-name.md \
	%D%/adr/0044-rdma-reads-on-iwarp-have-a-sink.md \
	%D%/bdev.md \
	%D%/bench.md \
	%D%/blob.md \
	%D%/crash.md \
	%D%/format-blob.md \
	%D%/lab.md \
	%D%/lvol.md \
	%D%/nvme.md \
	%D%/nvmf.md \
	%D%/runtime.md \
	%D%/transport.md
