# Functions for scenarios; `enter` sources this first.  A scenario runs in network, process and mount namespaces of its own, so
# it may use any port, and nothing it starts outlives it.
#
# Variables: T scratch folder, SHARE the guest's /lab (of the guest that is spoken to, see guest_pick), OUT logs that are kept,
# BUILD the build folder, RPC the daemon's socket, LIB this folder, NQN a name to use, TARGET_PID the daemon (empty: none is
# meant to be running).

PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH # the distribution's own tools first
LIB=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
SHARE=$T/share
RPC=$T/rpc.sock
NQN=nqn.2026-11.io.ferrule:lab
TARGET_PID=
NET=slirp
GUEST= GUESTS=()
declare -A LABVM_PIDS

# fail REASON...: ends the scenario.  The first reason given is the one that is told.
fail() {
    [ -s "$T/reason" ] || echo "$*" > "$T/reason"
    echo "FAIL: $*"
    exit 1
}

# skip REASON...: this machine cannot show it.  Counts as a failure: what was not shown is not green.
skip() { fail "skipped: $*"; }

step() { echo "== $(date +%T) $*"; }

rpc() { "$LIB/rpc.py" "$RPC" "$@"; }

jcheck() { "$LIB/jcheck.py" "$@" || fail "$(basename "$1"): not as expected (see the log)"; }

# sanitizers_silent LOG: fails if ASan, LSan or UBSan has said something there (BUILD may be a build with --enable-sanitizers).
sanitizers_silent() {
    local found
    [ -e "$1" ] || return 0
    found=$(grep -aEm1 'ERROR: [A-Za-z]*Sanitizer|: runtime error: ' "$1") || return 0
    fail "the daemon's sanitizers: $found"
}

# export_bdevs NQN BDEV...: a subsystem with these as namespaces 1, 2, ..., open to any host, listening on every address, 4420.
export_bdevs() {
    local nqn=$1 b
    shift
    rpc nvmf_get_transports | grep -q '"TCP"' || rpc nvmf_create_transport trtype=TCP > /dev/null
    rpc nvmf_create_subsystem nqn="$nqn" allow_any_host=true serial_number=LAB0001 model_number='Ferrule lab' max_namespaces=1024 > /dev/null
    for b; do
        rpc nvmf_subsystem_add_ns nqn="$nqn" namespace="{\"bdev_name\": \"$b\"}" > /dev/null
    done
    rpc nvmf_subsystem_add_listener nqn="$nqn" \
        listen_address="{\"trtype\": \"TCP\", \"adrfam\": \"IPv4\", \"traddr\": \"${LISTEN:-127.0.0.1}\", \"trsvcid\": \"4420\"}" > /dev/null
}

# tap_up: from here on guests are joined by a tap, not slirp.  This machine is 10.0.2.2 and fd00:fe::2 on it.
tap_up() {
    ip tuntap add tap0 mode tap || fail "no tap device here"
    ip addr add 10.0.2.2/24 dev tap0
    ip -6 addr add fd00:fe::2/64 dev tap0 nodad
    ip link set tap0 up
    NET=tap
    LISTEN=10.0.2.2
}

# bridge_up: the same, for several guests, each with a tap of its own (tap0, tap1, ... in the order of booting) on one bridge.
bridge_up() {
    ip link add br0 type bridge || fail "no bridge here"
    ip addr add 10.0.2.2/24 dev br0
    ip -6 addr add fd00:fe::2/64 dev br0 nodad
    ip link set br0 up
    NET=bridge
    LISTEN=10.0.2.2
}

# guest_pick [NAME]: whom guest_boot boots, and whom guest, guest_off and the others speak to from now on.  The first needs no name.
# The guests booted first, second, ... are 10.0.2.15, 10.0.2.16, ... and fd00:fe::15, fd00:fe::16, ...
guest_pick() {
    GUEST=${1:-}
    SHARE=$T/share$GUEST
}

# guest_boot [-c cpus] [-m MiB] [-i] [-- QEMU ARGUMENTS]: boots a guest and waits for its agent.
guest_boot() {
    local i cpus=2 mem=1024 net=user,id=n0 nr=0 tap iommu=()
    while [ $# -gt 0 ]; do
        case $1 in -i) iommu=(-i); shift ;; -c) cpus=$2; shift 2 ;; -m) mem=$2; shift 2 ;; --) shift; break ;; esac
    done
    while [ $nr -lt ${#GUESTS[@]} ] && [ "${GUESTS[nr]}" != "$GUEST" ]; do nr=$((nr + 1)); done # one that was booted before keeps its place
    tap=tap$nr
    [ $NET = slirp ] || net=tap,id=n0,ifname=$tap,script=no,downscript=no
    if [ $NET = bridge ] && [ $nr = ${#GUESTS[@]} ]; then
        ip tuntap add "$tap" mode tap
        ip link set "$tap" up master br0
    fi
    GUESTS[nr]=$GUEST
    mkdir -p "$SHARE/q"
    cp "$LIB/agent" "$LIB/guest.sh" "$LIB/rpc.py" "$SHARE/"
    rm -f "$SHARE"/q/* "$T/qemu$GUEST.pid"
    "$LIB/../labvm" -d "$LAB_IMAGE" -s "$SHARE" -x agent -t 7200 -m "$mem" -c "$cpus" -n "$net" -e "52:54:00:12:34:$((56 + nr))" \
        -k "lab.addr=10.0.2.$((15 + nr))/24" -l "$OUT/guest$GUEST.log" -p "$T/qemu$GUEST.pid" \
        "${iommu[@]}" -- "$@" > /dev/null 2> "$OUT/qemu$GUEST.err" &
    LABVM_PIDS[_$GUEST]=$!
    for i in $(seq 3000); do
        [ -e "$SHARE/q/ready" ] && break
        kill -0 "${LABVM_PIDS[_$GUEST]}" 2> /dev/null ||
            fail "the guest does not come up: $(tail -1 "$OUT/guest$GUEST.log") $(tail -1 "$OUT/qemu$GUEST.err")"
        [ "$i" -lt 3000 ] || fail "the guest's agent does not start"
        sleep 0.1
    done
    [ "$nr" = 0 ] || guest "n=\$(nic); ip -6 addr del fd00:fe::15/64 dev \$n; ip -6 addr add fd00:fe::$((15 + nr))/64 dev \$n nodad"
}

# guest_bg NAME SCRIPT: runs shell text in the guest (with guest.sh, -eu, pipefail) and comes back at once.
guest_bg() {
    printf '%s\n' "$2" > "$SHARE/q/$1.sh"
    rm -f "$SHARE/q/$1".{rc,out}
    : > "$SHARE/q/$1.go"
}

# guest_wait [-t secs] NAME: waits for it, prints its output, returns its status.
guest_wait() {
    local secs=900 name
    [ "$1" = -t ] && { secs=$2; shift 2; }
    name=$1
    local end=$((SECONDS + secs))
    while [ ! -e "$SHARE/q/$name.rc" ]; do
        kill -0 "$(cat "$T/qemu$GUEST.pid" 2> /dev/null)" 2> /dev/null || fail "the guest died: $(tail -1 "$OUT/guest$GUEST.log")"
        [ $SECONDS -lt $end ] || fail "the guest's command did not end in $secs s: $(tail -1 "$SHARE/q/$name.out" 2> /dev/null)"
        sleep 0.05
    done
    cat "$SHARE/q/$name.out"
    tail -1 "$SHARE/q/$name.out" > "$T/last-words"
    return "$(cat "$SHARE/q/$name.rc")"
}

# guest [-t secs] SCRIPT: both.  With no argument the script is read from stdin.
guest() {
    local secs=900 name
    [ "${1:-}" = -t ] && { secs=$2; shift 2; }
    name=cmd$BASHPID.$SECONDS.$RANDOM
    guest_bg "$name" "${1:-$(cat)}"
    guest_wait -t "$secs" "$name"
}

guest_off() {
    local rc=0
    : > "$SHARE/q/off.go"
    wait "${LABVM_PIDS[_$GUEST]}" || rc=$?
    [ $rc = 0 ] || fail "the guest ended with status $rc: $(tail -1 "$OUT/guest$GUEST.log")"
}

# guest_cut: the guest's power fails.
guest_cut() {
    kill -9 "$(cat "$T/qemu$GUEST.pid")"
    wait "${LABVM_PIDS[_$GUEST]}" || true
}

# recorded_disk NAME:MIB:FILL...: makes $T/disk, for a guest whose drive is recorded in $T/log, in parts: those named, each full
# of the byte FILL or holding an empty ext4, then one for marks and one for events.  There is no partition table: in the guest run
# $PARTS, then they are vdb1, vdb2, ...  Sets DISK to QEMU's arguments and CUT to powercut.py's.  For a guest in which parts are drives of
# their own, RECORDED is QEMU's arguments for the parts alone: nodes part-NAME, for devices with share-rw=on.
recorded_disk() {
    local part name mib fill n=0 at=1
    RECORDED=() PARTS= CUT=("$LIB/powercut.py" --log "$T/log" --ledger "$SHARE/ledger" --work "$T" --keep "$OUT/images")
    for part in "$@" marks:8:0 events:8:0; do
        IFS=: read -r name mib fill <<< "$part"
        if [ "$fill" = ext4 ]; then
            truncate -s "${mib}M" "$T/initial.$name"
            mke2fs -q -F -t ext4 "$T/initial.$name" > /dev/null
        else
            head -c "${mib}M" /dev/zero | tr '\0' "\\$(printf %o "$((fill))")" > "$T/initial.$name"
        fi
        dd if="$T/initial.$name" of="$T/disk" bs=1M seek=$at conv=sparse,notrunc status=none
        RECORDED+=(-blockdev "driver=raw,node-name=part-$name,file=recorded,offset=$((at << 20)),size=$((mib << 20)),discard=unmap")
        n=$((n + 1))
        PARTS+="add_part /dev/vdb $n $at $mib; "
        case $name in
            marks | events) CUT+=("--$name" "$((at << 20)):$((mib << 20))") ;;
            *) CUT+=(--part "$name=$((at << 20)):$((mib << 20)):$T/initial.$name") ;;
        esac
        at=$((at + mib))
    done
    truncate -s "${at}M" "$T/disk"
    : > "$T/log"
    # The medium never waits for a flush, so that a flush's place in the log is where it was asked for: a write that was under
    # way then comes after it and is not covered.  write-zeroes=off: the driver's log of such a request can be wrong.
    local nodes=(-blockdev "driver=file,node-name=medium,filename=$T/disk,discard=unmap,cache.no-flush=on"
        -blockdev "driver=file,node-name=log,filename=$T/log,cache.no-flush=on"
        -blockdev "driver=blklogwrites,node-name=recorded,file=medium,log=log,log-sector-size=512,discard=unmap")
    RECORDED=("${nodes[@]}" "${RECORDED[@]}")
    DISK=("${nodes[@]}" -device virtio-blk-pci,drive=recorded,write-cache=on,write-zeroes=off)
}

# build_ledger: the integrity workload, static, into the share.
build_ledger() {
    mkdir -p "$SHARE"
    gcc -O2 -Wall -static -pthread -o "$SHARE/ledger" "$LIB/ledger.c" || fail "ledger.c does not build"
}

. "${LAB_TARGET:-$LIB/target.sh}"
