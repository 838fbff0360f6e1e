# A stock kernel's host uses a volume over soft-RoCE (or what RDMA names): discover, connect with several I/O queues, file system, verified I/O, disconnect.
# timeout: 1800
OPTIONS=${OPTIONS:-}
. "$LIB/rdma.sh"

step "guest"
guest_boot -c 4 -m 2048
rdma_up "${RDMA:-rxe}"
guest_target

step "target"
grpc bdev_malloc_create name=m0 num_blocks=262144 block_size=512 > /dev/null
grpc nvmf_create_transport trtype=RDMA $OPTIONS > /dev/null
grpc nvmf_create_subsystem nqn="$NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
grpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "m0"}' > /dev/null
grpc nvmf_subsystem_add_listener nqn="$NQN" \
    listen_address='{"trtype": "RDMA", "adrfam": "IPv4", "traddr": "10.0.2.15", "trsvcid": "4420"}' > /dev/null

step "discover and connect"
guest "nvme discover -t rdma -a 10.0.2.15 -s 4420 -o json" > "$OUT/discover.json"
jcheck "$OUT/discover.json" "any(r['subnqn'] == '$NQN' and r['trtype'] == 'rdma' and r['trsvcid'].strip() == '4420' for r in d['records'])"
guest "nvme connect -t rdma -a 10.0.2.15 -s 4420 -n $NQN -i 4 > /dev/null || { dmesg | tail -4; exit 1; }; wait_block /dev/nvme0n1; cat /sys/class/nvme/nvme0/queue_count" > "$T/queues"
[ "$(cat "$T/queues")" = 5 ] || fail "queue_count is $(cat "$T/queues"), not 5"

step "verified I/O"
guest <<'X'
for job in "4k 1 1" "4k 4 32" "16k 2 16" "128k 2 8" "1m 2 4" "4k 1 128"; do
    set -- $job
    fio_verified /dev/nvme0n1 $1 $2 --rw=randwrite --iodepth=$3 --size=4m --offset_increment=8m
done
fio_verified /dev/nvme0n1 4k 1 --rw=randwrite --bsrange=512-1m --bs_unaligned=0 --blockalign=512 --iodepth=8 --size=8m
X

step "statistics"
grpc nvmf_get_stats > "$OUT/stats.json"
jcheck "$OUT/stats.json" "d['poll_groups'][0]['current_io_qpairs'] == 4" \
    "d['poll_groups'][0]['transports'][0]['devices'][0]['name'] == 'rdma0'" \
    "d['poll_groups'][0]['transports'][0]['devices'][0]['total_send_wrs'] > 1000"

step "file system"
guest <<'X'
mkfs.ext4 -q /dev/nvme0n1
mkdir -p /tmp/mnt
mount /dev/nvme0n1 /tmp/mnt
dd if=/dev/urandom of=/tmp/mnt/a bs=1M count=8 status=none
sync
sum=$(sha256sum < /tmp/mnt/a)
umount /tmp/mnt
echo 3 > /proc/sys/vm/drop_caches
mount /dev/nvme0n1 /tmp/mnt
[ "$(sha256sum < /tmp/mnt/a)" = "$sum" ]
umount /tmp/mnt
e2fsck -fn /dev/nvme0n1 > /dev/null
X

step "disconnect"
guest "nvme disconnect -n $NQN | grep -q 'disconnected 1'; wait_gone /dev/nvme0n1"
guest_target_stop
guest_off
