# The daemon in a guest on QEMU's NVMe drives, under the driver of its own; a scenario sources this.
#
#   MODE                   how the drives are reached: vfio (with an IOMMU), noiommu (vfio's unsafe mode), uio (uio_pci_generic)
#   nvme_programs          the daemon, ferrule and their libraries go to the share
#   nvme_boot [ARGUMENT]   a guest with what MODE needs and QEMU's arguments for its drives
#   nvme_setup MIB         hugepages, the module, and `ferrule host` gives the drives away; writes /tmp/env.sh
#
# In the guest /tmp/env.sh has: ferrule, setup (ferrule host setup), rpc, daemon_start, daemon_stop, addresses (the drives', in order), perf (through the
# daemon, over TCP) and perf_drive ADDRESS (straight at a drive).

MODE=${MODE:-vfio}

nvme_programs() {
    local program
    mkdir -p "$SHARE/daemon/lib"
    for program in ferruled ferrule; do
        cp "$BUILD/$program" "$SHARE/daemon/"
        ldd "$BUILD/$program" | awk '$3 ~ /^\// { print $3 }'
    done | sort -u | grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv))\.so' | xargs -r cp -Lt "$SHARE/daemon/lib"
    [ "$MODE" != noiommu ] || cp "$("$LIB/../mkmodule" "$LAB_IMAGE" vfio-noiommu)" "$SHARE/vfio.ko" || fail "no module for no-IOMMU mode"
}

nvme_boot() {
    local iommu=()
    [ "$MODE" != vfio ] || iommu=(-i)
    guest_boot "${iommu[@]}" "$@"
}

nvme_setup() {
    local driver=vfio-pci
    [ "$MODE" != uio ] || driver=uio_pci_generic
    echo "driver=$driver" > "$SHARE/env.sh"
    cat >> "$SHARE/env.sh" <<'X'
ours=/tmp/daemon/lib # for our programs alone: the guest's own want the guest's
nqn=nqn.2026-11.io.ferrule:lab
ferrule() { LD_LIBRARY_PATH=$ours /tmp/daemon/ferrule "$@"; }
rpc() { /tmp/rpc.py /tmp/rpc.sock "$@"; }
daemon_start() {
    LD_LIBRARY_PATH=$ours /tmp/daemon/ferruled --cores 0 --mem "${DAEMON_MIB:-256}" --state-dir "${STATE:-/tmp/state}" --keep-dir /tmp/kept \
        --rpc-socket /tmp/rpc.sock --http none --file-dir /tmp >> /lab/daemon.log 2>&1 < /dev/null &
    echo $! > /tmp/pid
    for i in $(seq 600); do kill -0 $(cat /tmp/pid) && rpc spdk_get_version > /dev/null 2>&1 && return; sleep 0.1; done
    tail -5 /lab/daemon.log; return 1
}
daemon_stop() { kill $(cat /tmp/pid); for i in $(seq 300); do kill -0 $(cat /tmp/pid) 2> /dev/null || return 0; sleep 0.1; done; return 1; }
setup() { ferrule host setup --driver $driver "$@"; }
addresses() { ferrule --json host status | sed -n 's/.*"address": "\(.*\)".*/\1/p'; }
perf() { timeout 600 env LD_LIBRARY_PATH=$ours /tmp/daemon/ferrule nvme perf -a 127.0.0.1 -s 4420 -n $nqn --verify --read 50 "$@"; }
perf_drive() { timeout 600 env LD_LIBRARY_PATH=$ours /tmp/daemon/ferrule nvme perf --verify --read 50 -a "$@"; }
X
    guest <<X
cp -r /lab/daemon /lab/rpc.py /lab/env.sh /tmp/
. /tmp/env.sh
mkdir -p /dev/hugepages
mount -t hugetlbfs none /dev/hugepages
case $MODE in
    vfio) modprobe -a nvme vfio-pci vfio_iommu_type1 ;;
    noiommu) insmod /lab/vfio.ko enable_unsafe_noiommu_mode=1; modprobe -a nvme vfio-pci ;;
    uio) modprobe -a nvme uio_pci_generic ;;
esac
for d in \$(addresses); do
    for i in \$(seq 300); do ls /sys/bus/pci/devices/\$d/nvme/nvme*/nvme*n* > /dev/null 2>&1 && break; sleep 0.1; done
done
setup --all --hugepages $1M --dry-run
[ "\$(ferrule --json host status | grep -c '"driver": "nvme"')" = "\$(addresses | wc -l)" ]
setup --all --hugepages $1M
ferrule --json host status
ferrule --json host status | grep -q '"iommu": $([ "$MODE" = vfio ] && echo true || echo false)'
[ "\$(ferrule --json host status | grep -c "\"driver\": \"\$driver\"")" = "\$(addresses | wc -l)" ]
X
}
