# Power cuts of an NVMe drive under our own driver: what power-cut does, with the two stores on namespaces of QEMU's NVMe drive under
# VFIO.  One recording has every write and flush of the drive, and of the disks that hold the state, the marks and the events.
# Environment: CUTS (20), LOAD seconds (20), CUT_SEED.
# timeout: 7200
. "$LIB/nvme.sh"
build_ledger
# The stores' parts are full of old bytes: none of them may ever be seen through a volume.
recorded_disk store:192:0xdb state:32:ext4 store2:32:0xdb
# QEMU's log of a write-zeroes can be wrong, so these are refused below the drive, and its block layer writes zeroes instead.
for n in 1 2; do
    part=store${n#1}
    namespaces+=(-blockdev "driver=blkdebug,node-name=ns$n,image=part-$part,discard=unmap,inject-error.0.event=none,inject-error.0.iotype=write-zeroes,inject-error.0.errno=95"
        -device "nvme-ns,drive=ns$n,bus=nvme0,nsid=$n,share-rw=on")
done
for part in state marks events; do
    disks+=(-device "virtio-blk-pci,drive=part-$part,share-rw=on,write-cache=on,write-zeroes=off")
done

step "the daemon and its libraries"
nvme_programs
cp "$LIB/changes.py" "$SHARE/"
nvme_boot -c 2 -m 2048 -- "${RECORDED[@]}" -device nvme,id=nvme0,serial=LAB0 "${namespaces[@]}" "${disks[@]}"
nvme_setup 640

step "stores and a volume"
guest <<X
cp /lab/ledger /lab/changes.py /tmp/
. /tmp/env.sh
modprobe ext4
mkdir -p /state
mount /dev/vdb /state
STATE=/state/state DAEMON_MIB=512 daemon_start
/tmp/rpc.py /tmp/rpc.sock - > /dev/null <<Y
bdev_nvme_attach_controller name=Nvme0 trtype=PCIe traddr=\$(addresses)
bdev_lvol_create_lvstore bdev_name=Nvme0n1 lvs_name=lvs cluster_sz=1048576
bdev_lvol_create lvol_name=vol size_in_mib=64 thin_provision=true lvs_name=lvs
nvmf_create_transport trtype=TCP
nvmf_create_subsystem nqn=$NQN allow_any_host=true
nvmf_subsystem_add_ns nqn=$NQN namespace='{"bdev_name": "lvs/vol"}'
nvmf_subsystem_add_listener nqn=$NQN listen_address='{"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}'
Y
TARGET=127.0.0.1 connect $NQN
wait_block /dev/nvme0n1
X

step "load"
guest_bg changes "/tmp/changes.py run /tmp/rpc.sock /dev/vdd ${LOAD:-20} $NQN Nvme0n2"
guest "/tmp/ledger -m /dev/vdc -s $RANDOM$RANDOM -t 6 -r ${LOAD:-20} run /dev/nvme0n1
kill -0 \$(cat /tmp/pid)"
guest_wait changes || fail "$(cat "$T/last-words")"
guest_cut

step "cuts"
export T DRIVES="Nvme0n1=store Nvme0n2=store2"
"${CUT[@]}" --reader "$LIB/cut-reader" --cuts "${CUTS:-20}" ${CUT_SEED:+--seed $CUT_SEED} || fail "$(tail -1 "$OUT/log")"
