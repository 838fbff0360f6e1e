# What a file system believes: ext4 has written pages back, the daemon that acknowledged them dies before they were durable, and
# the next one completes the flush.  sync then said that the files are safe, so they must be there.  Environment: ROUNDS (3).
# timeout: 1800
step "target"
tap_up
target_start
truncate -s 2G "$T/files/store"
rpc bdev_aio_create name=aio0 filename="$T/files/store" block_size=512
rpc bdev_lvol_create_lvstore bdev_name=aio0 lvs_name=lvs
rpc bdev_lvol_create lvol_name=a size_in_mib=1536 thin_provision=true lvs_name=lvs
export_bdevs "$NQN" lvs/a
guest_boot -m 1536
guest <<X
connect $NQN --ctrl-loss-tmo 3600 --reconnect-delay 1 -k 5
wait_block /dev/nvme0n1
mkfs.ext4 -q -F /dev/nvme0n1
mkdir -p /mnt/v
mount /dev/nvme0n1 /mnt/v
dd if=/dev/urandom of=/tmp/r bs=1M count=32 status=none
sync -f /mnt/v
echo 1 > /proc/sys/vm/dirty_writeback_centisecs
echo 1 > /proc/sys/vm/dirty_expire_centisecs
X
for round in $(seq "${ROUNDS:-3}"); do
    step "round $round"
    guest_bg files "for i in 1 2 3 4 5 6; do cp /tmp/r /mnt/v/f$round.\$i; echo written \$i; done; sync -f /mnt/v"
    for _ in $(seq 6000); do grep -qs "written $round" "$SHARE/q/files.out" && break; sleep 0.05; done
    sleep 0.$((RANDOM % 400 + 100))
    target_kill9
    target_start
    guest_wait files
    guest "echo 3 > /proc/sys/vm/drop_caches; for f in /mnt/v/f*; do cmp \$f /tmp/r || { echo \"sync had succeeded, and \$f is damaged\"; exit 1; }; done"
done
guest "umount /mnt/v; fsck.ext4 -n -f /dev/nvme0n1 > /tmp/fsck 2>&1 || { tail -1 /tmp/fsck; exit 1; }; nvme disconnect -n $NQN"
guest_off
