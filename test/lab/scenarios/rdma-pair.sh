# Two guests on one network, a stock kernel's host in one and the target in the other: under load the link goes down and up at either
# end, the network is parted, and the target is killed and started again.  Each time the host must be back, and every byte right.
# timeout: 2400
. "$LIB/rdma.sh"
AT=10.0.2.15
HOST_GONE=
KATO=8 DOWN=${DOWN:-14} # seconds; longer than the keep alive timeout, so that the association ends

serve() {
    guest_pick target
    guest_target --file-dir /tmp
}

# expect_back WHAT: the host has reconnected once more, and its load goes on.
expect_back() {
    guest_pick host
    guest -t 300 "for i in \$(seq 1200); do
            [ \$(dmesg | grep -c 'Successfully reconnected') -gt $BACK ] && [ \"\$(cat /sys/class/nvme/nvme0/state)\" = live ] && break
            [ \$i -lt 1200 ] || { dmesg | grep -v 'no usable path' | tail -3; cat /sys/class/nvme/nvme0/state; exit 1; }
            sleep 0.2
        done
        before=\$(awk '{ print \$7 }' /sys/block/nvme0n1/stat)
        for i in \$(seq 300); do
            [ \$(awk '{ print \$7 }' /sys/block/nvme0n1/stat) -gt \$((before + 2048)) ] && exit 0
            sleep 0.2
        done
        echo no I/O goes through; exit 1" || fail "$TYPE: after $1: $(cat "$T/last-words")"
    count_back
}

count_back() {
    guest_pick host
    BACK=$(guest "dmesg | grep -c 'Successfully reconnected' || true")
}

# The host's own link over soft-RoCE, whose driver does not survive it (doc/rdma.md): the target lets go of it, and serves the next.
host_gone() {
    local i
    guest_pick host
    link_down_and_up
    HOST_GONE=1
    guest_pick target
    for i in $(seq 120); do
        grpc nvmf_get_stats > "$OUT/stats.json"
        "$LIB/jcheck.py" "$OUT/stats.json" "all(g['current_io_qpairs'] + g['current_admin_qpairs'] == 0 for g in d['poll_groups'])" > /dev/null && break
        [ "$i" -lt 120 ] || fail "$TYPE: the target holds on to a host whose link went"
        sleep 0.5
    done
    guest -t 120 "ulimit -l unlimited; LD_LIBRARY_PATH=/lab/bin/lib timeout 100 /lab/bin/ferrule nvme identify -t rdma -a $AT -n $NQN | grep -qi lab0001" ||
        fail "$TYPE: nobody else is served"
}

link_down_and_up() { guest -t 120 "n=\$(nic); ip link set \$n down; sleep $DOWN; ip link set \$n up"; }

play() {
    TYPE=$1
    step "$TYPE: the target"
    guest_pick target
    rdma_up "$TYPE"
    guest "truncate -s 64M /tmp/disk"
    serve
    grpc bdev_uring_create name=d0 filename=/tmp/disk block_size=512 > /dev/null
    grpc nvmf_create_transport trtype=RDMA max_srq_depth=256 > /dev/null
    grpc nvmf_create_subsystem nqn="$NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
    grpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "d0"}' > /dev/null
    rdma_listen "$NQN" $AT

    step "$TYPE: the host"
    guest_pick host
    rdma_up "$TYPE"
    guest "nvme discover -t rdma -a $AT -s 4420 -o json" > "$OUT/discover.json"
    jcheck "$OUT/discover.json" "any(r['subnqn'] == '$NQN' and r['trtype'] == 'rdma' for r in d['records'])"
    guest "nvme connect -t rdma -a $AT -s 4420 -n $NQN -i 2 --reconnect-delay=1 --ctrl-loss-tmo=900 --keep-alive-tmo=$KATO > /dev/null || { dmesg | tail -4; exit 1; }
        wait_block /dev/nvme0n1; rm -f /tmp/stop"
    guest_bg load "while [ ! -e /tmp/stop ]; do
            fio_verified /dev/nvme0n1 16k 1 --rw=randwrite --iodepth=8 --size=12m --rate=3m --verify_backlog=64
        done"
    count_back

    shift
    for what; do
        step "$TYPE: $what"
        case $what in
            target-link) guest_pick target; link_down_and_up ;;
            host-link) link_down_and_up ;;
            host-gone) host_gone; break ;; # the last there can be
            parted) ip link set tap0 down; sleep "$DOWN"; ip link set tap0 up ;;
            killed)
                guest_pick target
                guest "kill -9 \$(cat /tmp/target.pid)"
                guest_wait -t 60 target > /dev/null || true
                serve
                ;;
        esac
        expect_back "$what"
    done

    if [ -z "$HOST_GONE" ]; then
        guest "touch /tmp/stop"
        guest_wait load
        guest "nvme disconnect -n $NQN > /dev/null; wait_gone /dev/nvme0n1; rdma link delete rdma0; dmesg -C"
    fi
    guest_pick target
    guest_target_stop
    ! grep -E 'ERROR|Sanitizer' "$SHARE/target.log" || fail "the target's log has errors: $(grep -m1 -E 'ERROR|Sanitizer' "$SHARE/target.log")"
    guest "rdma link delete rdma0; rm -rf /tmp/state /tmp/disk"
}

bridge_up
step "guests"
guest_pick target
guest_boot -c 2 -m 1536
guest_pick host
guest_boot -c 2 -m 1536

SIW_EVENTS=${SIW_EVENTS-target-link host-link parted killed}
RXE_EVENTS=${RXE_EVENTS-target-link parted killed} # host-link is soft-iWARP's part: soft-RoCE's driver does not survive it; host-gone is that
[ -z "$SIW_EVENTS" ] || play siw $SIW_EVENTS
[ -z "$RXE_EVENTS" ] || play rxe $RXE_EVENTS
guest_pick target
guest_off
guest_pick host
if [ -n "$HOST_GONE" ]; then
    kill -9 "$(cat "$T/qemuhost.pid")" # it would wait for its driver
else
    guest_off
fi
