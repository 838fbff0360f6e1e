# Power cuts: the daemon runs in a guest, its stores and its state on a drive whose writes and flushes QEMU records; a stock
# host in the same guest loads a thin volume, others are made, filled, trimmed and dropped meanwhile, and a second store as
# well.  Then the recording is cut at many places, what no completed flush covers is dropped or torn, and the daemon is
# started on each image: every flushed block must be there, and all that management answered.  With flush ignored the test
# must fail.  Environment: CUTS (100), LOAD seconds (20), CUT_SEED.
# timeout: 7200
build_ledger
# The stores' parts are full of old bytes: none of them may ever be seen through a volume.
recorded_disk store:192:0xdb state:32:ext4 store2:32:0xdb

step "the daemon and its libraries"
mkdir -p "$SHARE/daemon/lib"
cp "$BUILD/ferruled" "$SHARE/daemon/"
cp "$LIB/changes.py" "$SHARE/"
# The guest's own C library is newer and serves; everything else comes along.
ldd "$BUILD/ferruled" | awk '$3 ~ /^\// { print $3 }' | grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv))\.so' | xargs -r cp -Lt "$SHARE/daemon/lib"

guest_boot -c 4 -m 2048 -- "${DISK[@]}"
step "stores and a volume"
guest <<X
cp -r /lab/daemon /lab/ledger /lab/rpc.py /lab/changes.py /tmp/
$PARTS
modprobe ext4
mkdir -p /state
mount /dev/vdb2 /state
mknod /mnt/store b \$(tr : ' ' < /sys/class/block/vdb1/dev)
mknod /mnt/store2 b \$(tr : ' ' < /sys/class/block/vdb3/dev)
LD_LIBRARY_PATH=/tmp/daemon/lib /tmp/daemon/ferruled --no-huge --cores 0 --mem 512 --state-dir /state/state \
    --rpc-socket /tmp/rpc.sock --http 127.0.0.1:0 --file-dir /mnt > /lab/daemon.log 2>&1 < /dev/null &
echo \$! > /tmp/pid
rpc() { /tmp/rpc.py /tmp/rpc.sock "\$@" > /dev/null; }
for i in \$(seq 300); do kill -0 \$(cat /tmp/pid) && rpc spdk_get_version 2> /dev/null && break; sleep 0.1; done
/tmp/rpc.py /tmp/rpc.sock - > /dev/null <<Y
bdev_aio_create name=store filename=/mnt/store block_size=512
bdev_aio_create name=store2 filename=/mnt/store2 block_size=512
bdev_lvol_create_lvstore bdev_name=store lvs_name=lvs cluster_sz=1048576
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
guest_bg changes "/tmp/changes.py run /tmp/rpc.sock /dev/vdb5 ${LOAD:-20} $NQN"
guest "/tmp/ledger -m /dev/vdb4 -s $RANDOM$RANDOM -t 6 -r ${LOAD:-20} run /dev/nvme0n1
kill -0 \$(cat /tmp/pid)"
guest_wait changes || fail "$(cat "$T/last-words")"
guest_cut

step "cuts"
export T
"${CUT[@]}" --reader "$LIB/cut-reader" --cuts "${CUTS:-100}" ${CUT_SEED:+--seed $CUT_SEED} || fail "$(tail -1 "$OUT/log")"
