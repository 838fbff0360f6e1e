# The target inside the guest, for networks that this machine's kernel has not got; a scenario sources this.
#
#   rdma_up [TYPE [NAME NIC]]  gives the guest an RDMA device on its network interface: rxe (soft-RoCE) or siw (soft-iWARP)
#   rdma_listen NQN ADDRESS [PORT]   a listener of the daemon there
#   guest_target [OPTION...]   starts the daemon there; grpc METHOD [NAME=VALUE...] calls it
#   guest_target_stop          SIGTERM; fails if it does not end in a minute with status 0

rdma_up() {
    local type=${1:-rxe} name=${2:-rdma0} load="modprobe rdma_${1:-rxe}"
    if [ "$type" = siw ]; then
        cp "$("$LIB/../mkmodule" "$LAB_IMAGE" siw)" "$SHARE/siw.ko" || fail "no module for soft-iWARP"
        load="lsmod | grep -q '^siw ' || insmod /lab/siw.ko"
    fi
    guest "modprobe -a crc32_generic crc32_pclmul crc32c_generic libcrc32c ib_uverbs rdma_ucm nvme-rdma; $load
        rdma link add $name type $type netdev ${3:-\$(nic)}
        for i in \$(seq 100); do rdma link show $name/1 | grep -q 'state ACTIVE' && exit 0; sleep 0.1; done
        rdma link show; exit 1" || fail "no RDMA device in the guest"
}

rdma_listen() {
    local family=IPv4
    case $2 in *:*) family=IPv6 ;; esac
    grpc nvmf_subsystem_add_listener nqn="$1" \
        listen_address="{\"trtype\": \"RDMA\", \"adrfam\": \"$family\", \"traddr\": \"$2\", \"trsvcid\": \"${3:-4420}\"}" > /dev/null
}

# guest_program FILE...: to /lab/bin, with their libraries, but for the RDMA ones, which must fit the guest's providers, and the C
# library, which is newer there.
guest_program() {
    local file lib
    mkdir -p "$SHARE/bin/lib"
    cp "$@" "$SHARE/bin/"
    for file; do
        ldd "$file" | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|ibverbs|rdmacm)\.so/ && $1 !~ /^libnl-/ { print $3 }' |
            while read -r lib; do cp "$lib" "$SHARE/bin/lib/"; done
    done
}

guest_target() {
    sanitizers_silent "$SHARE/target.log" # of the one before
    guest_program "$BUILD/ferruled" "$BUILD/ferrule"
    guest_bg target "ulimit -l unlimited; mkdir -p /tmp/state
        exec env LD_LIBRARY_PATH=/lab/bin/lib /lab/bin/ferruled --no-huge --cores ${TARGET_CORES:-0} --mem 512 --state-dir /tmp/state \
            --rpc-socket /tmp/rpc.sock --http none $* > /lab/target.log 2>&1 & echo \$! > /tmp/target.pid; wait \$!"
    guest "for i in \$(seq 600); do [ -S /tmp/rpc.sock ] && /lab/rpc.py /tmp/rpc.sock spdk_get_version > /dev/null 2>&1 && exit 0; sleep 0.1; done
        tail -3 /lab/target.log; exit 1" || fail "the daemon in the guest does not answer"
}

grpc() {
    local a line="/lab/rpc.py /tmp/rpc.sock"
    for a; do line+=" $(printf %q "$a")"; done
    guest "$line"
}

guest_target_stop() {
    guest "kill \$(cat /tmp/target.pid)"
    local rc=0
    guest_wait -t 120 target || rc=$?
    sanitizers_silent "$SHARE/target.log"
    [ "$rc" = 0 ] || fail "the daemon in the guest ended with status $rc: $(tail -1 "$SHARE/target.log")"
}
