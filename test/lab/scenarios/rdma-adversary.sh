# A host that breaks every rule of NVMe/RDMA that it can, over soft-RoCE: the target answers as it must, cuts off whom it must, serves
# the next, and keeps nothing of them.
# timeout: 1200
. "$LIB/rdma.sh"
ADV_NQN=nqn.2024-01.example.ferrule:sub

step "guest"
guest_boot -c 2 -m 2048
rdma_up "${RDMA:-rxe}"
guest_target
guest_program "$BUILD/test/lab/rdma_adversary"

step "target"
grpc bdev_malloc_create name=m0 num_blocks=131072 block_size=512 > /dev/null
grpc nvmf_create_transport trtype=RDMA max_srq_depth=512 > /dev/null
grpc nvmf_create_subsystem nqn="$ADV_NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
grpc nvmf_subsystem_add_ns nqn="$ADV_NQN" namespace='{"bdev_name": "m0"}' > /dev/null
grpc nvmf_subsystem_add_listener nqn="$ADV_NQN" \
    listen_address='{"trtype": "RDMA", "adrfam": "IPv4", "traddr": "10.0.2.15", "trsvcid": "4420"}' > /dev/null

step "the adversary"
guest -t 600 "ulimit -l unlimited; LD_LIBRARY_PATH=/lab/bin/lib /lab/bin/rdma_adversary 10.0.2.15"
for i in $(seq 60); do
    grpc nvmf_get_stats > "$OUT/stats.json"
    "$LIB/jcheck.py" "$OUT/stats.json" "all(g['current_io_qpairs'] + g['current_admin_qpairs'] == 0 for g in d['poll_groups'])" > /dev/null && break
    [ "$i" -lt 60 ] || fail "queues are left of hosts that are gone"
    sleep 0.5
done
guest_target_stop
guest_off
