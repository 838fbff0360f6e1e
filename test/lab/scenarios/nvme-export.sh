# Two machines: in one guest the daemon has a store on an NVMe drive under VFIO and exports two of its volumes and a bare namespace over
# TCP; in the other a stock host discovers and connects, verifies, makes a file system and uses it; the daemon is stopped and started
# meanwhile, and again between two connections.
# timeout: 3600
. "$LIB/nvme.sh"
on() { # GUEST COMMAND...: does it with that guest
    guest_pick "$1"
    shift
    "$@"
    guest_pick
}

# The host names namespaces in the order in which it has looked at them, which is not that of their numbers.
FIRST='for n in 1 2 3; do wait_block /dev/nvme0n$n; done; V=; for d in /sys/block/nvme0n*; do [ "$(cat $d/nsid)" != 1 ] || V=/dev/${d##*/}; done; [ -n "$V" ]'

step "two guests"
nvme_programs
truncate -s 512M "$T/a"
truncate -s 128M "$T/b"
bridge_up
nvme_boot -c 2 -m 1536 -- -blockdev "driver=file,node-name=a,filename=$T/a,discard=unmap" \
    -blockdev "driver=file,node-name=b,filename=$T/b,discard=unmap" -device nvme,id=nvme0,serial=LAB0 \
    -device nvme-ns,drive=a,bus=nvme0,nsid=1 -device nvme-ns,drive=b,bus=nvme0,nsid=2
on host guest_boot -c 2 -m 1024

step "a store, two volumes, a bare namespace"
nvme_setup 640
guest <<'X'
. /tmp/env.sh
daemon_start
rpc bdev_nvme_attach_controller name=Nvme0 trtype=PCIe traddr=$(addresses)
rpc bdev_lvol_create_lvstore bdev_name=Nvme0n1 lvs_name=lvs
rpc bdev_lvol_create lvs_name=lvs lvol_name=thin size_in_mib=256 thin_provision=true
rpc bdev_lvol_create lvs_name=lvs lvol_name=thick size_in_mib=96 thin_provision=false
rpc nvmf_create_transport trtype=TCP > /dev/null
rpc nvmf_create_subsystem nqn=$nqn allow_any_host=true serial_number=LAB0001 > /dev/null
for d in lvs/thin lvs/thick Nvme0n2; do
    rpc nvmf_subsystem_add_ns nqn=$nqn namespace="{\"bdev_name\": \"$d\"}" > /dev/null
done
rpc nvmf_subsystem_add_listener nqn=$nqn \
    listen_address='{"trtype": "TCP", "adrfam": "IPv4", "traddr": "10.0.2.15", "trsvcid": "4420"}' > /dev/null
X

step "the host: discover, connect, verify"
on host guest <<'X'
modprobe nvme-tcp
nvme discover -t tcp -a 10.0.2.15 -s 4420 | grep -q nqn.2026-11.io.ferrule:lab
TARGET=10.0.2.15 connect nqn.2026-11.io.ferrule:lab -i 2 --reconnect-delay=1 > /dev/null
for n in 1 2 3; do wait_block /dev/nvme0n$n; done
fio_verified /dev/nvme0n2 4k 2 --rw=randwrite --iodepth=8 --size=4m --offset_increment=8m
fio_verified /dev/nvme0n2 64k 1 --rw=randwrite --iodepth=4 --size=16m
fio_verified /dev/nvme0n3 1m 1 --rw=randwrite --iodepth=2 --size=16m
fio_verified /dev/nvme0n3 4k 1 --rw=randwrite --bsrange=512-1m --bs_unaligned=0 --blockalign=512 --iodepth=4 --size=8m
X

step "a file system, and the daemon started again under it"
on host guest <<X
$FIRST
mkfs.ext4 -q -F \$V
mkdir -p /mnt/v
mount \$V /mnt/v
fio_verified /mnt/v/f 4k 2 --rw=randwrite --iodepth=8 --size=4m --offset_increment=4m --fsync=32
X
on host guest_bg load "fio_verified /mnt/v/g 16k 1 --rw=randwrite --iodepth=8 --size=16m --rate=2m --fsync=16"
guest ". /tmp/env.sh; sleep 2; daemon_stop; daemon_start"
on host guest_wait load
on host guest <<'X'
cp -r /usr/bin /mnt/v/
fstrim /mnt/v
(cd /mnt/v && find . -xdev -type f -exec sha256sum {} + > /tmp/sums)
umount /mnt/v
dmesg | grep -iE 'I/O error|EXT4-fs error' && exit 1
nvme disconnect -n nqn.2026-11.io.ferrule:lab > /dev/null
wait_gone /dev/nvme0n1
X

step "the same after both have let go of it"
guest ". /tmp/env.sh; daemon_stop; grep -iE 'assert|sanitizer' /lab/daemon.log && exit 1; daemon_start"
on host guest <<X
TARGET=10.0.2.15 connect nqn.2026-11.io.ferrule:lab -i 2 > /dev/null
$FIRST
fsck.ext4 -n -f \$V > /tmp/fsck 2>&1 || { tail -3 /tmp/fsck; exit 1; }
mount -o ro \$V /mnt/v
(cd /mnt/v && sha256sum --quiet -c /tmp/sums)
umount /mnt/v
nvme disconnect -n nqn.2026-11.io.ferrule:lab > /dev/null
wait_gone /dev/nvme0n1
X
on host guest_off
guest ". /tmp/env.sh; daemon_stop; dmesg | grep -iE 'dmar.*fault|vfio.*(error|fail)' && exit 1; true"
guest_off
