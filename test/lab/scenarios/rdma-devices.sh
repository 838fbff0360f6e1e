# Several devices and addresses in one target: soft-RoCE by IPv4 and IPv6 and soft-iWARP beside it, with shared receive queues and without;
# devices that are taken away under load and come back, while the other one serves on.
# timeout: 1800
. "$LIB/rdma.sh"
NQN2=$NQN-2
ROCE=10.0.2.15 ROCE6=fd00:fe::15 IWARP=10.0.3.15

# target_up OPTION...: the daemon, with these parameters of nvmf_create_transport.
target_up() {
    guest_target
    grpc nvmf_create_transport trtype=RDMA "$@" > /dev/null
    for n in 1 2; do
        local nqn=$NQN
        [ $n = 1 ] || nqn=$NQN2
        grpc bdev_malloc_create name=m$n num_blocks=65536 block_size=512 > /dev/null
        grpc nvmf_create_subsystem nqn="$nqn" allow_any_host=true serial_number=LAB000$n > /dev/null
        grpc nvmf_subsystem_add_ns nqn="$nqn" namespace="{\"bdev_name\": \"m$n\"}" > /dev/null
        for a in $ROCE $ROCE6 $IWARP; do rdma_listen "$nqn" $a; done
    done
}

# host_up NQN ADDRESS: prints the block device.
host_up() {
    guest "nvme connect -t rdma -a $2 -s 4420 -n $1 -i 2 --reconnect-delay=1 --keep-alive-tmo=30 > /dev/null || { dmesg | tail -4; exit 1; }
        for i in \$(seq 300); do
            for d in /sys/class/nvme/nvme*; do
                [ \"\$(cat \$d/subsysnqn 2> /dev/null)\" = $1 ] || continue
                for s in /sys/class/nvme-subsystem/nvme-subsys*; do
                    [ \"\$(cat \$s/subsysnqn)\" = $1 ] && b=/dev/nvme\${s##*subsys}n1 && [ -b \$b ] && { echo \$b; exit; }
                done
            done
            sleep 0.1
        done
        echo no block device; exit 1" > "$T/block" || fail "$1 at $2: $(tail -1 "$T/block")"
    cat "$T/block"
}

host_down() { guest "nvme disconnect -n $1 > /dev/null"; }

use_every_address() {
    local a b
    for a in $ROCE $ROCE6 $IWARP; do
        b=$(host_up "$NQN" $a)
        guest "fio_verified $b 4k 1 --rw=randwrite --iodepth=16 --size=2m; fio_verified $b 128k 1 --rw=randwrite --iodepth=4 --size=8m"
        host_down "$NQN"
    done
    grpc nvmf_get_stats > "$OUT/stats.json"
    jcheck "$OUT/stats.json" "sorted(v['name'] for v in d['poll_groups'][0]['transports'][0]['devices']) == ['rdma0', 'rdma1']" \
        "all(v['total_send_wrs'] > 100 for v in d['poll_groups'][0]['transports'][0]['devices'])"
}

# take_away DEVICE TYPE NIC ADDRESS OTHER: under load at ADDRESS, while the other device serves on at OTHER.
take_away() {
    local gone stays
    gone=$(host_up "$NQN" "$4")
    stays=$(host_up "$NQN2" "$5")
    guest_bg stays "fio_verified $stays 16k 1 --rw=randwrite --iodepth=8 --size=16m --rate=2m --verify_backlog=32"
    guest_bg gone "fio --name=x --filename=$gone --bs=16k --iodepth=16 --rw=randrw --direct=1 --ioengine=libaio --time_based --runtime=300 --size=16m --allow_file_create=0 > /dev/null 2>&1 || true"
    guest "for d in ${gone##*/} ${stays##*/}; do
            until [ \$(awk '{ print \$3 + \$7 }' /sys/block/\$d/stat) -gt 512 ]; do sleep 0.2; done
        done"
    # The kernel waits until nobody has anything on it.
    guest -t 120 "timeout 100 rdma link delete $1" || fail "$1 cannot be taken away: somebody holds on to it"
    guest_wait gone > /dev/null
    guest_wait stays || fail "the other device's host noticed"
    grpc nvmf_get_stats > "$OUT/stats.json"
    jcheck "$OUT/stats.json" "all(v['name'] != '$1' for v in d['poll_groups'][0]['transports'][0]['devices'])"
    guest "nvme disconnect -n $NQN > /dev/null; wait_gone $gone"
    host_down "$NQN2"
    rdma_up "$2" "$1" "$3"
    guest "for i in \$(seq 200); do grep -q 'listening on $4 port 4420 again' /lab/target.log && exit 0; sleep 0.1; done; tail -3 /lab/target.log; exit 1"
    gone=$(host_up "$NQN" "$4")
    guest "fio_verified $gone 64k 1 --rw=randwrite --iodepth=8 --size=8m"
    host_down "$NQN"
}

step "guest"
guest_boot -c 2 -m 2048 -- -netdev user,id=n1,net=10.0.3.0/24 -device virtio-net-pci,netdev=n1,mac=52:54:00:12:35:56
guest "ip addr add $IWARP/24 dev eth1; ip link set eth1 up"
rdma_up rxe rdma0 eth0
rdma_up siw rdma1 eth1

step "shared receive queues"
target_up max_srq_depth=256
use_every_address
step "soft-iWARP is taken away"
take_away rdma1 siw eth1 $IWARP $ROCE
step "soft-RoCE is taken away"
take_away rdma0 rxe eth0 $ROCE $IWARP
guest_target_stop
guest "rm -rf /tmp/state"

step "receives of each connection's own"
target_up no_srq=true max_queue_depth=64
use_every_address
guest_target_stop
! grep -E 'ERROR|Sanitizer' "$SHARE/target.log" || fail "the target's log has errors: $(grep -m1 -E 'ERROR|Sanitizer' "$SHARE/target.log")"
guest_off
