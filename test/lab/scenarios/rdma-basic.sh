# A stock kernel's host uses a volume over soft-RoCE (or what RDMA names), with four I/O queues: the steps of lib/stock-host.sh.
# timeout: 1800
. "$LIB/rdma.sh"
. "$LIB/stock-host.sh"

step "guest"
guest_boot -c 4 -m 2048
rdma_up "${RDMA:-rxe}"
guest_target

step "target"
grpc bdev_malloc_create name=m0 num_blocks=262144 block_size=512 > /dev/null
grpc nvmf_create_transport trtype=RDMA ${OPTIONS:-} > /dev/null
grpc nvmf_create_subsystem nqn="$NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
grpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "m0"}' > /dev/null
rdma_listen "$NQN" 10.0.2.15

while_connected() {
    grpc nvmf_get_stats > "$OUT/stats.json"
    jcheck "$OUT/stats.json" "d['poll_groups'][0]['current_io_qpairs'] == 4" \
        "d['poll_groups'][0]['transports'][0]['devices'][0]['name'] == 'rdma0'" \
        "d['poll_groups'][0]['transports'][0]['devices'][0]['total_send_wrs'] > 1000"
}
stock_host rdma 10.0.2.15 4
guest_target_stop
! grep -E 'ERROR|Sanitizer' "$SHARE/target.log" || fail "the target's log has errors: $(grep -m1 -E 'ERROR|Sanitizer' "$SHARE/target.log")"
guest_off
