# A flood of connections that come, go, and stay half open, while a live host keeps its I/O and others still get in; and more queues than
# the first completion queue holds.
# timeout: 1800
. "$LIB/rdma.sh"
AT=10.0.2.15
QUEUES=4 HOSTS=5 # with an admin queue each: 25, of which 14 have room in the first completion queue

step "guest"
guest_boot -c 4 -m 3072
rdma_up "${RDMA:-rxe}"
guest_target
guest_program "$BUILD/test/lab/rdma_flood"

step "target"
grpc bdev_malloc_create name=m0 num_blocks=131072 block_size=512 > /dev/null
grpc nvmf_create_transport trtype=RDMA max_srq_depth=512 > /dev/null
grpc nvmf_create_subsystem nqn="$NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
grpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "m0"}' > /dev/null
rdma_listen "$NQN" $AT

# expect_queues ADMIN IO: these are left, within a while.
expect_queues() {
    local i
    for i in $(seq 120); do
        grpc nvmf_get_stats > "$OUT/stats.json"
        "$LIB/jcheck.py" "$OUT/stats.json" "sum(g['current_admin_qpairs'] for g in d['poll_groups']) == $1" \
            "sum(g['current_io_qpairs'] for g in d['poll_groups']) == $2" > /dev/null && return
        sleep 0.5
    done
    fail "queues are left of hosts that are gone: $(tr -d '\n ' < "$OUT/stats.json" | cut -c1-200)"
}

step "a live host"
guest "nvme connect -t rdma -a $AT -s 4420 -n $NQN -i 2 --keep-alive-tmo=15 > /dev/null; wait_block /dev/nvme0n1; dmesg -C; rm -f /tmp/stop"
guest_bg load "n=0
    while [ ! -e /tmp/stop ]; do
        fio_verified /dev/nvme0n1 16k 1 --rw=randwrite --iodepth=8 --size=8m --rate=2m --verify_backlog=64
        n=\$((n + 1))
    done
    echo \$n"

step "the flood"
guest_bg flood "ulimit -l unlimited; LD_LIBRARY_PATH=/lab/bin/lib /lab/bin/rdma_flood $AT 4420 ${CALLERS:-64} ${ROUNDS:-4}"
for i in 1 2 3; do
    guest -t 120 "ulimit -l unlimited; LD_LIBRARY_PATH=/lab/bin/lib timeout 100 /lab/bin/ferrule nvme identify -t rdma -a $AT -n $NQN | grep -qi lab0001" ||
        fail "nobody else gets in during the flood"
done
guest_wait flood > "$OUT/flood.out" || fail "the flood: $(tail -1 "$OUT/flood.out")"
cat "$OUT/flood.out"
[ "$(sed -n 's/ connected.*//p' "$OUT/flood.out")" -ge 32 ] || fail "hardly anybody was connected: $(cat "$OUT/flood.out")"
expect_queues 1 2

step "the live host"
guest "touch /tmp/stop"
[ "$(guest_wait load | tail -1)" -ge 1 ] || fail "the live host did nothing"
guest "! dmesg | grep -iE 'nvme.*(error|timeout|fail|warn|reconnect)|I/O error'" || fail "the live host noticed: $(cat "$T/last-words")"

step "more queues than the first completion queue holds"
guest "for i in \$(seq $HOSTS); do
        nvme connect -t rdma -a $AT -s 4420 -n $NQN -i $QUEUES --duplicate-connect > /dev/null || { dmesg | tail -3; exit 1; }
    done"
expect_queues $((HOSTS + 1)) $((HOSTS * QUEUES + 2))
grep -qE 'enlarged to|another completion queue' "$SHARE/target.log" || fail "one completion queue as it was made holds all"
guest "for c in /sys/class/nvme/nvme*; do
        [ \"\$(cat \$c/state)\" = live ] || { echo \$c: \$(cat \$c/state); exit 1; }
    done
    echo round-robin > /sys/class/nvme-subsystem/nvme-subsys0/iopolicy
    fio_verified /dev/nvme0n1 4k 4 --rw=randwrite --iodepth=32 --size=2m --offset_increment=4m" ||
    fail "the hosts on the larger queue: $(cat "$T/last-words")"
guest "nvme disconnect -n $NQN > /dev/null"
expect_queues 0 0

guest_target_stop
! grep -E 'ERROR|Sanitizer' "$SHARE/target.log" || fail "the target's log has errors: $(grep -m1 -E 'ERROR|Sanitizer' "$SHARE/target.log")"
guest_off
