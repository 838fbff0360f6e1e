# Our initiator over soft-RoCE against our target and against the kernel's: discovery, Identify, exact ranges, verified load; and a
# stock host whose target is killed under load and started again.
# timeout: 1800
. "$LIB/rdma.sh"

step "guest"
guest_boot -c 4 -m 2048
rdma_up rxe
guest "truncate -s 64M /tmp/disk"
guest_target --file-dir /tmp

step "target"
grpc bdev_uring_create name=d0 filename=/tmp/disk block_size=512 > /dev/null
grpc nvmf_create_transport trtype=RDMA > /dev/null
grpc nvmf_create_subsystem nqn="$NQN" allow_any_host=true serial_number=LAB0001 > /dev/null
grpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "d0"}' > /dev/null
grpc nvmf_subsystem_add_listener nqn="$NQN" \
    listen_address='{"trtype": "RDMA", "adrfam": "IPv4", "traddr": "10.0.2.15", "trsvcid": "4420"}' > /dev/null

step "the kernel's target"
guest <<'X'
modprobe -a nvmet nvmet-rdma
modprobe null_blk nr_devices=1 memory_backed=1 gb=1 bs=512
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
wait_block /dev/nullb0
s=/sys/kernel/config/nvmet/subsystems/nqn.2026-11.io.ferrule:kernel
mkdir -p $s/namespaces/1
echo 1 > $s/attr_allow_any_host
echo -n /dev/nullb0 > $s/namespaces/1/device_path
echo 1 > $s/namespaces/1/enable
p=/sys/kernel/config/nvmet/ports/1
mkdir -p $p
echo rdma > $p/addr_trtype
echo ipv4 > $p/addr_adrfam
echo 10.0.2.15 > $p/addr_traddr
echo 4422 > $p/addr_trsvcid
ln -s $s $p/subsystems/
X

# initiator PORT NQN
initiator() {
    guest <<X
ulimit -l unlimited
f() { local v=\$1; shift; LD_LIBRARY_PATH=/lab/bin/lib /lab/bin/ferrule nvme \$v -t rdma -a 10.0.2.15 -s $1 "\$@"; }
f discover | grep -q '$2'
f identify -n $2 > /tmp/id
grep -qi lab0001 /tmp/id || [ $1 = 4422 ]
dd if=/dev/urandom of=/tmp/a bs=1000 count=3001 status=none
f write -n $2 --offset 777 --file /tmp/a
f read -n $2 --offset 777 --length 3001000 --file /tmp/b
cmp /tmp/a /tmp/b
for o in "4096 16" "131072 4" "1048576 2"; do
    set -- \$o
    f perf -n $2 --bs \$1 --qd \$2 --read 50 --queues 2 --time 3 --range 16M --verify > /tmp/perf || { cat /tmp/perf; exit 1; }
done
X
}

step "our initiator against our target"
initiator 4420 "$NQN"
step "our initiator against the kernel's target"
initiator 4422 nqn.2026-11.io.ferrule:kernel

step "a target that is killed under load"
guest "nvme connect -t rdma -a 10.0.2.15 -s 4420 -n $NQN -i 2 --reconnect-delay=1 --ctrl-loss-tmo=60 > /dev/null; wait_block /dev/nvme0n1"
guest_bg load "fio_verified /dev/nvme0n1 16k 1 --rw=randwrite --iodepth=8 --size=24m --rate=3m --verify_backlog=64"
guest "sleep 3; kill -9 \$(cat /tmp/target.pid)"
guest_wait -t 60 target > /dev/null || true
guest_target --file-dir /tmp
guest_wait load
guest "nvme disconnect -n $NQN > /dev/null; wait_gone /dev/nvme0n1"
guest_target_stop
guest_off
