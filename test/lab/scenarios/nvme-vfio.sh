# The daemon in a guest drives QEMU's NVMe drives through VFIO with an IOMMU, on hugepages: set-up by ferrule host, three drives with
# four namespaces between them, verified I/O from 512 bytes to 1 MiB straight, through the daemon, and through a stock host; resets
# under load; a drive pulled out under load and plugged in again; a store on a drive and a restart.  Environment: RESETS (20),
# PULLS (3).
# timeout: 3600
. "$LIB/nvme.sh"
RESETS=${RESETS:-20} PULLS=${PULLS:-3}

step "the daemon and its libraries"
nvme_programs
truncate -s 256M "$T/a" "$T/b" "$T/c" "$T/d"
for d in a b c d; do
    drives+=(-blockdev "driver=file,node-name=$d,filename=$T/$d,discard=unmap")
done
nvme_boot -c 2 -m 2048 -- -qmp "unix:$T/qmp,server=on,wait=off" "${drives[@]}" \
    -device pcie-root-port,id=port0,chassis=1,slot=1 -device pcie-root-port,id=port1,chassis=2,slot=2 \
    -device pcie-root-port,id=port2,chassis=3,slot=3 \
    -device nvme,id=nvme0,serial=LAB0,bus=port0 -device nvme-ns,drive=a,bus=nvme0,nsid=1 -device nvme-ns,drive=b,bus=nvme0,nsid=2 \
    -device nvme,id=hot,serial=LAB1,drive=c,bus=port1 \
    -device nvme,id=nvme2,serial=LAB2,bus=port2,mdts=9 \
    -device nvme-ns,drive=d,bus=nvme2,nsid=7,logical_block_size=4096,physical_block_size=4096

step "set up"
nvme_setup 640

step "identify and verified I/O without a daemon"
guest <<'X'
. /tmp/env.sh
set -- $(addresses)
for d; do ferrule nvme identify -a $d; done > /tmp/identify
for i in 0 1 2; do grep -q "LAB$i" /tmp/identify; done
perf_drive $1 --nsid 1 --bs 4096 --qd 8 --range 4M --ops 1000
perf_drive $1 --nsid 2 --bs 65536 --qd 4 --range 8M --ops 300
perf_drive $2 --bs 524288 --qd 2 --range 8M --ops 60
perf_drive $3 --nsid 7 --bs 4096 --qd 32 --queues 2 --range 4M --ops 1000
perf_drive $3 --nsid 7 --bs 1048576 --qd 4 --range 16M --ops 60
daemon_start
X

step "identify"
guest <<'X' > "$OUT/controllers"
. /tmp/env.sh
set -- $(addresses)
for i in 0 1 2; do
    rpc bdev_nvme_attach_controller name=Nvme$i trtype=PCIe traddr=$1
    shift
done
rpc bdev_nvme_get_controllers
rpc bdev_get_bdevs | grep -o '"name": "Nvme[^"]*"'
for i in 0 1 2; do rpc bdev_nvme_get_controller_health_info name=Nvme$i; done
rpc nvmf_create_transport trtype=TCP > /dev/null
rpc nvmf_create_subsystem nqn=$nqn allow_any_host=true > /dev/null
for d in Nvme0n1 Nvme0n2 Nvme1n1 Nvme2n7; do
    rpc nvmf_subsystem_add_ns nqn=$nqn namespace="{\"bdev_name\": \"$d\"}" > /dev/null
done
rpc nvmf_subsystem_add_listener nqn=$nqn \
    listen_address='{"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}' > /dev/null
X
cat "$OUT/controllers"
[ "$(grep -o '"name": "Nvme[012]n[127]"' "$OUT/controllers" | wc -l)" = 4 ] || fail "not four namespaces"

step "verified I/O through a stock host"
guest <<'X'
. /tmp/env.sh
TARGET=127.0.0.1 connect $nqn -i 2 > /dev/null
for n in 1 2 3 4; do wait_block /dev/nvme0n$n; done
for job in "1 4k 8" "2 64k 4" "3 1m 2" "4 4k 8" "4 1m 2"; do
    set -- $job
    fio_verified /dev/nvme0n$1 $2 1 --rw=randwrite --iodepth=$3 --size=8m
done
fio_verified /dev/nvme0n1 4k 1 --rw=randwrite --bsrange=512-1m --bs_unaligned=0 --blockalign=512 --iodepth=4 --size=8m
nvme disconnect -n $nqn > /dev/null
X

step "$RESETS resets under load"
guest_bg load ". /tmp/env.sh; touch /tmp/loading; while [ -e /tmp/loading ]; do perf --nsid 1 --bs 4096 --qd 8 --range 2M --time 10 > /dev/null; done"
guest -t 3000 ". /tmp/env.sh; sleep 2
for i in \$(seq $RESETS); do rpc bdev_nvme_reset_controller name=Nvme0 > /dev/null; sleep 0.2; done
rm /tmp/loading; rpc bdev_nvme_get_controllers name=Nvme0"  > "$T/resets"
guest_wait load || fail "the host saw an error across resets"
grep -q "\"resets\": $RESETS\\b" "$T/resets" || fail "not $RESETS resets: $(grep resets "$T/resets")"

step "$PULLS times pulled out and plugged in under load"
for i in $(seq "$PULLS"); do
    guest_bg load ". /tmp/env.sh; rc=0; perf --nsid 3 --bs 4096 --qd 4 --range 4M --time 300 || rc=\$?; date +%s.%N > /tmp/ended; exit \$rc"
    guest_bg watch ". /tmp/env.sh; d=/sys/bus/pci/devices/\$(addresses | sed -n 2p); touch /tmp/watching
        while [ -e \$d ]; do sleep 0.05; done; date +%s.%N > /tmp/vanished"
    guest "for i in \$(seq 300); do [ -e /tmp/watching ] && [ \$(ss -Htn state established dport = 4420 | wc -l) -ge 2 ] && break; sleep 0.1; done; sleep 1"
    "$LIB/qmp.py" "$T/qmp" device_del '{"id": "hot"}'
    guest_wait load && fail "a drive that is gone went on serving"
    guest_wait watch
    # From when the kernel asks us to let go of it, or, where nobody tells, from when it has gone, to the end of the host's I/O.
    guest <<'X' | tee -a "$OUT/pulls"
asked=$(sed -n 's/^\([^ ]*\) .*the kernel asks for it back.*/\1/p' /lab/daemon.log | tail -1)
[ -n "$asked" ] && asked=$(date -d "$asked" +%s.%N) || asked=$(cat /tmp/vanished)
rm /tmp/watching
awk -v a=$asked -v b=$(cat /tmp/ended) 'BEGIN { printf "I/O ended after %.2f s\n", b - a }'
X
    guest ". /tmp/env.sh; for i in \$(seq 100); do rpc bdev_get_bdevs name=Nvme1n1 > /dev/null 2>&1 || break; sleep 0.1; done
    ! rpc bdev_get_bdevs name=Nvme1n1 > /dev/null 2>&1; rpc spdk_get_version > /dev/null"
    "$LIB/qmp.py" "$T/qmp" device_add '{"driver": "nvme", "id": "hot", "serial": "LAB1", "drive": "c", "bus": "port1"}'
    guest <<'X'
. /tmp/env.sh
address=$(addresses | sed -n 2p)
for i in $(seq 100); do [ -e /sys/bus/pci/devices/$address/driver ] && break; sleep 0.1; address=$(addresses | sed -n 2p); done
sleep 0.5
setup $address
for i in $(seq 300); do rpc bdev_get_bdevs name=Nvme1n1 > /dev/null 2>&1 && break; sleep 0.1; done
rpc bdev_get_bdevs name=Nvme1n1 > /dev/null
rpc nvmf_subsystem_remove_ns nqn=$nqn nsid=3 > /dev/null 2>&1 || true
rpc nvmf_subsystem_add_ns nqn=$nqn namespace='{"bdev_name": "Nvme1n1", "nsid": 3}' > /dev/null
perf --nsid 3 --bs 4096 --qd 4 --range 1M --ops 300 > /dev/null
X
done
# On a machine that is short of time the slowest say nothing.
[ ! -s "$OUT/pulls" ] || sort -k4n "$OUT/pulls" | awk '{ t[NR] = $4 } END { exit !(t[int((NR + 1) / 2)] <= 2 && t[NR] <= 20) }' ||
    fail "I/O did not end in time: $(sort -k4n "$OUT/pulls" | tail -1)"

step "a store on a drive, and a restart"
guest <<'X'
. /tmp/env.sh
rpc nvmf_subsystem_remove_ns nqn=$nqn nsid=2 > /dev/null
rpc bdev_lvol_create_lvstore bdev_name=Nvme0n2 lvs_name=lvs
rpc bdev_lvol_create lvs_name=lvs lvol_name=v size_in_mib=64 thin_provision=true
rpc nvmf_subsystem_add_ns nqn=$nqn namespace='{"bdev_name": "lvs/v", "nsid": 2}' > /dev/null
perf --nsid 2 --bs 16384 --qd 4 --range 8M --ops 2000
daemon_stop
grep -iE 'assert|sanitizer' /lab/daemon.log && exit 1
daemon_start
rpc bdev_lvol_get_lvstores lvs_name=lvs | grep -q Nvme0n2
perf --nsid 2 --bs 4096 --qd 4 --range 8M --ops 500
daemon_stop
ferrule host reset
[ "$(ferrule --json host status | grep -cE '"driver": "(vfio-pci|uio_pci_generic)"')" = 0 ]
X
guest "dmesg | grep -v 'module verification' | grep -iE 'dmar.*fault|vfio.*(error|fail)' && exit 1; true"
guest_off
