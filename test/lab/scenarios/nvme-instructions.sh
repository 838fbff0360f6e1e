# Instructions in user mode that a 4 KiB read and write cost at depth 32 on QEMU's NVMe drive, counted by QEMU, program and driver.  With
# PEER, a spdk_nvme_perf built for any x86-64 (the guest has no AVX-512), that program on the same drive, counted the same way: ours
# may take no more.  While it counts the guest is made so slow that the drive is always ahead: no poll is in vain.
# Environment: PEER, PEER_DRIVER (its libspdk_nvme.a), LIMIT (300 instructions in our driver), OPERATIONS (4000).
# timeout: 1800
. "$LIB/nvme.sh"
nvme_programs
gcc -O2 -Wall -shared -fPIC -pthread -o "$T/count.so" "$LIB/count_insns.c" || fail "count_insns.c does not build"
if [ -n "${PEER:-}" ]; then
    mkdir -p "$SHARE/peer/lib"
    cp "$PEER" "$SHARE/peer/perf"
    ldd "$PEER" | awk '$3 ~ /^\// { print $3 }' | grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv))\.so' | xargs -r cp -Lt "$SHARE/peer/lib"
fi
nvme_boot -c 2 -m 2048 -- -qmp "unix:$T/qmp,server=on,wait=off" -plugin "file=$T/count.so,out=$T/counts,while=$T/counting" \
    -blockdev driver=null-co,node-name=null,size=1073741824,read-zeroes=on -device nvme,id=nvme0,serial=LAB0,drive=null
nvme_setup 1024
guest ". /tmp/env.sh; addresses" > "$T/address"
drive=$(cat "$T/address")

operations() { # that the drive has carried out
    "$LIB/qmp.py" "$T/qmp" query-blockstats > "$T/stats"
    python3 -c 'import json, sys; print(max(d["stats"]["rd_operations"] + d["stats"]["wr_operations"] for d in json.load(open(sys.argv[1]))))' "$T/stats"
}

wait_for_operations() { # COUNT
    until [ "$(operations)" -ge "$1" ]; do
        [ ! -e "$SHARE/q/run.rc" ] || fail "$name ended: $(tail -1 "$SHARE/q/run.out")"
        sleep 0.2
    done
}

# count NAME COMMAND: counts what it costs once it is under way.
count() {
    local name=$1 before
    step "$name"
    before=$(operations)
    guest_bg run ". /tmp/env.sh; $2 > /tmp/run.log 2>&1 < /dev/null & pid=\$!
        while [ ! -e /lab/over ]; do
            cat /proc/\$pid/maps > /tmp/maps || { cp /tmp/run.log /lab/; tail -1 /tmp/run.log; exit 1; }
            sleep 0.2
        done
        cp /tmp/maps /lab/maps.${name// /-}; kill \$pid; wait \$pid || true"
    rm -f "$SHARE/over"
    wait_for_operations $((before + 5000))
    touch "$T/counting"
    wait_for_operations $(($(operations) + ${OPERATIONS:-4000}))
    rm "$T/counting"
    sleep 0.2
    : > "$SHARE/over"
    guest_wait run
}

for op in read write; do
    percent=100
    [ $op = read ] || percent=0
    count "ours $op" "LD_LIBRARY_PATH=\$ours exec /tmp/daemon/ferrule nvme perf -a $drive --bs 4096 --qd 32 --read $percent --core 1 --time 1000"
    RUNS+=("ours $op:$BUILD/ferrule:op_done:$BUILD/nvme/libnvme.a:$SHARE/maps.ours-$op")
    [ -n "${PEER:-}" ] || continue
    count "peer $op" "mkdir -p /tmp/peer; cp -ru /lab/peer /tmp/; OPENSSL_CONF=/dev/null LD_LIBRARY_PATH=/tmp/peer/lib exec /tmp/peer/perf -q 32 -o 4096 -w rand$op -t 1000 -c 2 -s 512 -r 'trtype:PCIe traddr:$drive'"
    RUNS+=("peer $op:$SHARE/peer/perf:io_complete:${PEER_DRIVER:-$(dirname "$PEER")/../lib/libspdk_nvme.a}:$SHARE/maps.peer-$op")
done
guest_off
step "what an I/O costs"
"$LIB/insns.py" "$T/counts" "${LIMIT:-300}" "${RUNS[@]}" || fail "$(tail -1 "$OUT/log")"
