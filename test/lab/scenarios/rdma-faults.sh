# Hosts that come and go, and hosts that die under load: the target serves on, and nothing of them is left.
# timeout: 1800
. "$LIB/rdma.sh"

step "guest"
guest_boot -c 4 -m 3072
rdma_up "${RDMA:-rxe}"
guest_target

step "target"
grpc bdev_malloc_create name=m0 num_blocks=131072 block_size=512 > /dev/null
grpc nvmf_create_transport trtype=RDMA > /dev/null
grpc nvmf_create_subsystem nqn="$NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
grpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "m0"}' > /dev/null
grpc nvmf_subsystem_add_listener nqn="$NQN" \
    listen_address='{"trtype": "RDMA", "adrfam": "IPv4", "traddr": "10.0.2.15", "trsvcid": "4420"}' > /dev/null

# expect_nobody: every queue is gone, within a while.
expect_nobody() {
    local i
    for i in $(seq 60); do
        grpc nvmf_get_stats > "$OUT/stats.json"
        "$LIB/jcheck.py" "$OUT/stats.json" "all(g['current_io_qpairs'] + g['current_admin_qpairs'] == 0 for g in d['poll_groups'])" > /dev/null && return
        sleep 0.5
    done
    fail "queues are left of hosts that are gone"
}

step "hosts that come and go"
guest <<X
for i in \$(seq 12); do
    nvme connect -t rdma -a 10.0.2.15 -s 4420 -n $NQN -i \$((i % 4 + 1)) > /dev/null
    nvme disconnect -n $NQN > /dev/null
done
X
expect_nobody

step "hosts that die under load"
guest <<X
ulimit -l unlimited
for i in 1 2 3 4 5; do
    LD_LIBRARY_PATH=/lab/bin/lib /lab/bin/ferrule nvme perf -t rdma -a 10.0.2.15 -n $NQN --bs 65536 --qd 8 --read \$((i * 20)) --queues 2 --time 60 > /dev/null 2>&1 &
    pid=\$!
    sleep 1.\$i
    kill -9 \$pid
    wait \$pid 2> /dev/null || true
done
X
expect_nobody

guest_target_stop
! grep -E 'ERROR|Sanitizer' "$SHARE/target.log" || fail "the target's log has errors: $(grep -m1 -E 'ERROR|Sanitizer' "$SHARE/target.log")"
guest_off
