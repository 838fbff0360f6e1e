# The daemon in a guest drives QEMU's NVMe drives through VFIO with an IOMMU, on hugepages: set-up by ferrule host, two drives with three
# namespaces between them, verified I/O of every size through a stock host, resets under load, a drive pulled out under load
# and plugged in again, and a store on a drive that is there after a restart.  Environment: RESETS (20), PULLS (3).
# timeout: 1800
step "the daemon and its libraries"
mkdir -p "$SHARE/daemon/lib"
cp "$BUILD/ferruled" "$BUILD/ferrule" "$SHARE/daemon/"
for program in ferruled ferrule; do
    ldd "$BUILD/$program" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv))\.so' | xargs -r cp -Lt "$SHARE/daemon/lib"
truncate -s 256M "$T/a" "$T/b" "$T/c"

guest_boot -i -c 4 -m 2048 -- -qmp "unix:$T/qmp,server=on,wait=off" \
    -blockdev "driver=file,node-name=a,filename=$T/a" -blockdev "driver=file,node-name=b,filename=$T/b" \
    -blockdev "driver=file,node-name=c,filename=$T/c" \
    -device pcie-root-port,id=port0,chassis=1,slot=1 -device pcie-root-port,id=port1,chassis=2,slot=2 \
    -device nvme,id=nvme0,serial=LAB0,bus=port0 -device nvme-ns,drive=a,bus=nvme0,nsid=1 -device nvme-ns,drive=b,bus=nvme0,nsid=2 \
    -device nvme,id=hot,serial=LAB1,drive=c,bus=port1

step "set up"
guest <<'X'
cp -r /lab/daemon /lab/rpc.py /tmp/
cat > /tmp/env.sh << 'Y'
ours=/tmp/daemon/lib # for our programs alone: the guest's own want the guest's
ferrule() { LD_LIBRARY_PATH=$ours /tmp/daemon/ferrule "$@"; }
rpc() { /tmp/rpc.py /tmp/rpc.sock "$@"; }
daemon_start() {
    LD_LIBRARY_PATH=$ours /tmp/daemon/ferruled --cores 0 --mem 256 --state-dir /tmp/state --keep-dir /tmp/kept --rpc-socket /tmp/rpc.sock --http 127.0.0.1:0 \
        >> /lab/daemon.log 2>&1 < /dev/null &
    echo $! > /tmp/pid
    for i in $(seq 600); do kill -0 $(cat /tmp/pid) && rpc spdk_get_version > /dev/null 2>&1 && return; sleep 0.1; done
    tail -5 /lab/daemon.log; return 1
}
daemon_stop() { kill $(cat /tmp/pid); for i in $(seq 300); do kill -0 $(cat /tmp/pid) 2> /dev/null || return 0; sleep 0.1; done; return 1; }
perf() { LD_LIBRARY_PATH=$ours timeout 300 /tmp/daemon/ferrule nvme perf -a 127.0.0.1 -s 4420 -n nqn.2026-11.io.ferrule:lab --verify --qd 4 --read 50 "$@"; }
Y
. /tmp/env.sh
mkdir -p /dev/hugepages
mount -t hugetlbfs none /dev/hugepages
modprobe -a nvme vfio-pci vfio_iommu_type1
for i in $(seq 100); do [ -b /dev/nvme1n1 ] && break; sleep 0.1; done
ferrule host setup --hugepages 640M --dry-run
ferrule host setup --hugepages 640M
ferrule --json host status
ferrule --json host status | grep -q '"iommu": true'
[ "$(ferrule --json host status | grep -c '"driver": "vfio-pci"')" = 2 ]
# The command line drives one by itself, before the daemon has it.
set -- $(ferrule --json host status | sed -n 's/.*"address": "\(.*\)".*/\1/p')
ferrule nvme identify -a $1 | head -3
timeout 200 env LD_LIBRARY_PATH=$ours /tmp/daemon/ferrule nvme perf -a $1 --nsid 1 --verify --qd 8 --read 50 --range 4M --ops 1000
daemon_start
X

step "identify"
guest <<'X' > "$OUT/controllers"
. /tmp/env.sh
set -- $(ferrule --json host status | sed -n 's/.*"address": "\(.*\)".*/\1/p')
echo "$1 $2" > /tmp/addresses
rpc bdev_nvme_attach_controller name=Nvme0 trtype=PCIe traddr=$1
rpc bdev_nvme_attach_controller name=Nvme1 trtype=PCIe traddr=$2
rpc bdev_nvme_get_controllers
rpc bdev_get_bdevs | grep '"name": "Nvme'
rpc bdev_nvme_get_controller_health_info name=Nvme0
rpc nvmf_create_transport trtype=TCP > /dev/null
rpc nvmf_create_subsystem nqn=nqn.2026-11.io.ferrule:lab allow_any_host=true > /dev/null
for d in Nvme0n1 Nvme0n2 Nvme1n1; do
    rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.ferrule:lab namespace="{\"bdev_name\": \"$d\"}" > /dev/null
done
rpc nvmf_subsystem_add_listener nqn=nqn.2026-11.io.ferrule:lab \
    listen_address='{"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}' > /dev/null
X
cat "$OUT/controllers"
[ "$(grep -o '"name": "Nvme[01]n[12]"' "$OUT/controllers" | wc -l)" = 3 ] || fail "not three namespaces"

step "verified I/O through a stock host"
guest <<'X'
. /tmp/env.sh
TARGET=127.0.0.1 connect nqn.2026-11.io.ferrule:lab -i 2 > /dev/null
for n in 1 2 3; do wait_block /dev/nvme0n$n; done
for job in "1 4k 8" "2 64k 4" "3 1m 2"; do
    set -- $job
    fio_verified /dev/nvme0n$1 $2 1 --rw=randwrite --iodepth=$3 --size=8m
done
fio_verified /dev/nvme0n1 4k 1 --rw=randwrite --bsrange=512-1m --bs_unaligned=0 --blockalign=512 --iodepth=4 --size=8m
nvme disconnect -n nqn.2026-11.io.ferrule:lab > /dev/null
X

step "resets under load"
guest_bg load ". /tmp/env.sh; perf --nsid 1 --bs 4096 --range 4M --time 25"
guest ". /tmp/env.sh; sleep 1; for i in \$(seq ${RESETS:-20}); do rpc bdev_nvme_reset_controller name=Nvme0 > /dev/null; sleep 0.2; done
rpc bdev_nvme_get_controllers name=Nvme0 | grep resets"
guest_wait load || fail "the host saw an error across resets"

step "pulled out and plugged in under load"
for i in $(seq "${PULLS:-3}"); do
    guest_bg load ". /tmp/env.sh; perf --nsid 3 --bs 4096 --range 4M --time 60"
    sleep 4
    "$LIB/qmp.py" "$T/qmp" device_del '{"id": "hot"}'
    guest_wait load && fail "a drive that is gone went on serving"
    guest ". /tmp/env.sh; for i in \$(seq 100); do rpc bdev_get_bdevs name=Nvme1n1 > /dev/null 2>&1 || break; sleep 0.1; done
    ! rpc bdev_get_bdevs name=Nvme1n1 > /dev/null 2>&1; rpc spdk_get_version > /dev/null"
    "$LIB/qmp.py" "$T/qmp" device_add '{"driver": "nvme", "id": "hot", "serial": "LAB1", "drive": "c", "bus": "port1"}'
    guest <<'X'
. /tmp/env.sh
read -r _ address < /tmp/addresses
for i in $(seq 100); do [ -e /sys/bus/pci/devices/$address/driver ] && break; sleep 0.1; done
sleep 0.5
ferrule host setup $address
for i in $(seq 300); do rpc bdev_get_bdevs name=Nvme1n1 > /dev/null 2>&1 && break; sleep 0.1; done
rpc bdev_get_bdevs name=Nvme1n1 > /dev/null
rpc nvmf_subsystem_remove_ns nqn=nqn.2026-11.io.ferrule:lab nsid=3 > /dev/null 2>&1 || true
rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.ferrule:lab namespace='{"bdev_name": "Nvme1n1", "nsid": 3}' > /dev/null
perf --nsid 3 --bs 4096 --range 1M --ops 300
X
done

step "a store on a drive, and a restart"
guest <<'X'
. /tmp/env.sh
rpc nvmf_subsystem_remove_ns nqn=nqn.2026-11.io.ferrule:lab nsid=2 > /dev/null
rpc bdev_lvol_create_lvstore bdev_name=Nvme0n2 lvs_name=lvs
rpc bdev_lvol_create lvs_name=lvs lvol_name=v size_in_mib=64 thin_provision=true
rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.ferrule:lab namespace='{"bdev_name": "lvs/v", "nsid": 2}' > /dev/null
perf --nsid 2 --bs 16384 --range 8M --ops 2000
daemon_stop
grep -iE 'assert|sanitizer' /lab/daemon.log && exit 1
daemon_start
rpc bdev_lvol_get_lvstores lvs_name=lvs | grep -q Nvme0n2
perf --nsid 2 --bs 4096 --range 8M --ops 500
daemon_stop
ferrule host reset
[ "$(ferrule --json host status | grep -c '"driver": "vfio-pci"')" = 0 ]
X
guest "dmesg | grep -iE 'dmar.*fault|vfio.*(error|fail)' && exit 1; true"
guest_off
