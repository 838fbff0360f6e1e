# Power cuts: the daemon runs in a guest, its store on a drive whose writes and flushes QEMU records; a stock host in the same
# guest loads a thin volume.  Then the recording is cut at many places, what no completed flush covers is dropped or torn, and
# the daemon is started on each image: every flushed block must be there.  With flush ignored the test must fail.
# Environment: CUTS (100), LOAD seconds (15), CUT_SEED.
# timeout: 7200
build_ledger
# The partition is full of old bytes: none of them may ever be seen through the volume.
recorded_disk 192 0xdb

step "the daemon and its libraries"
mkdir -p "$SHARE/daemon/lib"
cp "$BUILD/ferruled" "$SHARE/daemon/"
# The guest's own C library is newer and serves; everything else comes along.
ldd "$BUILD/ferruled" | awk '$3 ~ /^\// { print $3 }' | grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv))\.so' | xargs -r cp -Lt "$SHARE/daemon/lib"

guest_boot -c 4 -m 2048 -- "${DISK[@]}"
step "a store and a volume"
guest <<X
cp -r /lab/daemon /lab/ledger /lab/rpc.py /tmp/
mkdir -p /tmp/state
LD_LIBRARY_PATH=/tmp/daemon/lib /tmp/daemon/ferruled --no-huge --cores 0 --mem 512 --state-dir /tmp/state \
    --rpc-socket /tmp/rpc.sock --http 127.0.0.1:0 --file-dir /dev > /lab/daemon.log 2>&1 < /dev/null &
echo \$! > /tmp/pid
rpc() { /tmp/rpc.py /tmp/rpc.sock "\$@" > /dev/null; }
for i in \$(seq 300); do kill -0 \$(cat /tmp/pid) && rpc spdk_get_version 2> /dev/null && break; sleep 0.1; done
rpc bdev_aio_create name=store filename=/dev/vdb1 block_size=512
rpc bdev_lvol_create_lvstore bdev_name=store lvs_name=lvs
rpc bdev_lvol_create lvol_name=vol size_in_mib=64 thin_provision=true lvs_name=lvs
rpc nvmf_create_transport trtype=TCP
rpc nvmf_create_subsystem nqn=$NQN allow_any_host=true
rpc nvmf_subsystem_add_ns nqn=$NQN namespace='{"bdev_name": "lvs/vol"}'
rpc nvmf_subsystem_add_listener nqn=$NQN listen_address='{"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}'
TARGET=127.0.0.1 connect $NQN
wait_block /dev/nvme0n1
X

step "load"
guest "/tmp/ledger -m /dev/vdb2 -s $RANDOM$RANDOM -t 6 -r ${LOAD:-15} run /dev/nvme0n1
kill -0 \$(cat /tmp/pid)"
guest_cut

step "cuts"
export T
"${CUT[@]}" --reader "$LIB/cut-reader" --cuts "${CUTS:-100}" ${CUT_SEED:+--seed $CUT_SEED} || fail "$(tail -1 "$OUT/log")"
