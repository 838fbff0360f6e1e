# What a stock kernel's host does with a volume, whatever the transport: one table of steps, which tcp-basic, tcp-digests, rdma-basic
# and rdma-siw all run; a scenario sources this.
#
#   stock_host TRTYPE ADDRESS QUEUES [CONNECT OPTION...]   the guest is up, and $NQN is served at ADDRESS, port 4420
#
# With while_connected defined, it is called when data has gone through.

STOCK_STEPS="discover connect verified_io every_queue file_system disconnect"

# block size, jobs, depth: 4 KiB to 1 MiB, at depth 1 to 128
STOCK_IO="4k:1:1 4k:4:32 16k:4:16 64k:2:8 128k:2:8 512k:2:4 1m:2:4 4k:1:128"

stock_host() {
    local s
    STOCK_TYPE=$1 STOCK_AT=$2 STOCK_QUEUES=$3
    shift 3
    STOCK_OPTIONS=$*
    for s in $STOCK_STEPS; do
        step "host over $STOCK_TYPE: ${s//_/ }"
        "stock_$s"
        if [ "$s" = every_queue ] && declare -F while_connected > /dev/null; then while_connected; fi
    done
}

stock_discover() {
    guest "modprobe nvme-$STOCK_TYPE; nvme discover -t $STOCK_TYPE -a $STOCK_AT -s 4420 -o json" > "$OUT/discover.json"
    jcheck "$OUT/discover.json" \
        "any(r['subnqn'] == '$NQN' and r['trtype'] == '$STOCK_TYPE' and r['trsvcid'].strip() == '4420' for r in d['records'])"
}

stock_connect() {
    guest "TRTYPE=$STOCK_TYPE TARGET=$STOCK_AT
        test \$(connect $NQN -i $STOCK_QUEUES $STOCK_OPTIONS) = nvme0; wait_block /dev/nvme0n1; cat /sys/class/nvme/nvme0/queue_count" > "$T/queues"
    [ "$(cat "$T/queues")" = $((STOCK_QUEUES + 1)) ] || fail "queue_count is $(cat "$T/queues"), not $((STOCK_QUEUES + 1))"
}

stock_verified_io() {
    guest "for job in $STOCK_IO; do
            set -- \${job//:/ }
            fio_verified /dev/nvme0n1 \$1 \$2 --rw=randwrite --iodepth=\$3 --size=4m --offset_increment=8m
        done
        fio_verified /dev/nvme0n1 4k 1 --rw=randwrite --bsrange=512-1m --bs_unaligned=0 --blockalign=512 --iodepth=8 --size=8m"
}

# The kernel maps a queue to each CPU.
stock_every_queue() {
    guest "for cpu in \$(seq 0 $((STOCK_QUEUES - 1))); do
            taskset -c \$cpu dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16 iflag=direct status=none
        done"
}

stock_file_system() {
    guest <<'X'
mkfs.ext4 -q -F /dev/nvme0n1
mkdir -p /mnt/v
mount /dev/nvme0n1 /mnt/v
fio_verified /mnt/v/f 4k 4 --rw=randwrite --iodepth=16 --size=2m --offset_increment=2m --fsync=32
fio_verified /mnt/v/g 1m 1 --rw=write --iodepth=4 --size=16m
fstrim /mnt/v
cp -r /usr/share/perl* /mnt/v/ 2> /dev/null
(cd /mnt/v && find . -xdev -type f -exec sha256sum {} + > /tmp/sums)
umount /mnt/v
fsck.ext4 -n -f /dev/nvme0n1 > /tmp/fsck 2>&1 || { tail -3 /tmp/fsck; exit 1; }
mount -o ro /dev/nvme0n1 /mnt/v
(cd /mnt/v && sha256sum --quiet -c /tmp/sums)
umount /mnt/v
X
}

stock_disconnect() {
    guest "nvme disconnect -n $NQN; wait_gone /dev/nvme0n1; ! dmesg | grep -iE 'nvme.*(error|timeout|fail|warn)|blk_update_request|I/O error'"
}
