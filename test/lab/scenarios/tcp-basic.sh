# A stock kernel's host uses a volume: discover, connect with eight I/O queues, file system, verified I/O, disconnect.
# timeout: 1800
OPTIONS=${OPTIONS:-}

step "target"
target_start
rpc bdev_malloc_create name=m0 num_blocks=1048576 block_size=512 > /dev/null
export_bdevs "$NQN" m0

step "guest"
guest_boot -c 8 -m 2048
guest "modprobe nvme-tcp; nvme discover -t tcp -a 10.0.2.2 -s 4420 -o json" > "$OUT/discover.json"
jcheck "$OUT/discover.json" "any(r['subnqn'] == '$NQN' and r['trtype'] == 'tcp' and r['trsvcid'].strip() == '4420' for r in d['records'])"

guest "test \$(connect $NQN -i 8 $OPTIONS) = nvme0; wait_block /dev/nvme0n1; cat /sys/class/nvme/nvme0/queue_count" > "$T/queues"
[ "$(cat "$T/queues")" = 9 ] || fail "queue_count is $(cat "$T/queues"), not 9"

step "verified I/O on the device"
guest <<'X'
[ -b /dev/nvme0n1 ]
for job in "4k 8 16" "16k 4 16" "64k 4 8" "128k 2 8" "512k 2 4" "1m 2 4"; do
    set -- $job
    fio_verified /dev/nvme0n1 $1 $2 --rw=randwrite --iodepth=$3 --size=8m --offset_increment=16m
done
fio_verified /dev/nvme0n1 4k 1 --rw=randwrite --bsrange=512-1m --bs_unaligned=0 --blockalign=512 --iodepth=8 --size=16m
# Every queue has carried something: the kernel maps one to each CPU.
for cpu in 0 1 2 3 4 5 6 7; do
    taskset -c $cpu dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16 iflag=direct status=none
done
X

step "a file system"
guest <<'X'
mkfs.ext4 -q -F /dev/nvme0n1
mkdir -p /mnt/v
mount /dev/nvme0n1 /mnt/v
fio_verified /mnt/v/f 4k 4 --rw=randwrite --iodepth=16 --size=4m --offset_increment=4m --fsync=32
fio_verified /mnt/v/g 1m 1 --rw=write --iodepth=4 --size=32m
fstrim /mnt/v
cp -r /usr/share/perl* /usr/bin /mnt/v/ 2> /dev/null
(cd /mnt/v && find . -xdev -type f -exec sha256sum {} + > /tmp/sums)
umount /mnt/v
fsck.ext4 -n -f /dev/nvme0n1 > /tmp/fsck 2>&1 || { tail -3 /tmp/fsck; exit 1; }
mount -o ro /dev/nvme0n1 /mnt/v
(cd /mnt/v && sha256sum --quiet -c /tmp/sums)
umount /mnt/v
X

step "disconnect"
guest "nvme disconnect -n $NQN; wait_gone /dev/nvme0n1; ! dmesg | grep -iE 'nvme.*(error|timeout|fail|warn)|blk_update_request|I/O error'"
guest_off
