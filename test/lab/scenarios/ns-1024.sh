# A subsystem with 1,024 namespaces: a stock host identifies them all, uses some, and lets go of them (which takes it a minute).
# timeout: 3600
NR=${NR:-1024}

step "target"
tap_up
target_start
export_bdevs "$NQN"
for i in $(seq "$NR"); do
    if [ $((i % 128)) = 0 ]; then echo "bdev_malloc_create name=b$i num_blocks=8192 block_size=512"
    else echo "bdev_null_create name=b$i num_blocks=$((8192 + i * 8)) block_size=512"; fi
    echo "nvmf_subsystem_add_ns nqn=$NQN namespace='{\"bdev_name\": \"b$i\"}'"
done | rpc - > /dev/null

step "connect"
guest_boot -c 2 -m 3072
# Expedited grace periods: the host's own work for a thousand disks is then seconds, not minutes.
guest <<X
echo 1 > /sys/kernel/rcu_expedited
test \$(connect $NQN -i 2) = nvme0
for i in \$(seq 1200); do [ \$(ls /sys/block | grep -c '^nvme0n') = $NR ] && break; sleep 0.5; done
[ \$(ls /sys/block | grep -c '^nvme0n') = $NR ] || { echo "\$(ls /sys/block | grep -c '^nvme0n') namespaces of $NR"; exit 1; }
nvme list-ns /dev/nvme0 -o json > /lab/list-ns
nvme id-ctrl /dev/nvme0 -o json > /lab/id-ctrl
for b in /sys/block/nvme0n*; do echo \$(cat \$b/nsid) \$(cat \$b/size) \$(cat \$b/uuid); done > /lab/sizes
X
jcheck "$SHARE/list-ns" "[n['nsid'] for n in d['nsid_list']] == list(range(1, $NR + 1))"
jcheck "$SHARE/id-ctrl" "d['nn'] >= $NR"
python3 - "$SHARE/sizes" "$NR" <<'P' || fail "sizes or UUIDs of the namespaces are wrong"
import sys
rows = [line.split() for line in open(sys.argv[1])]
want = {i: 8192 if i % 128 == 0 else 8192 + i * 8 for i in range(1, int(sys.argv[2]) + 1)}
assert {int(r[0]): int(r[1]) for r in rows} == want
assert len({r[2] for r in rows}) == len(rows)
P

step "use a few"
guest <<X
dev() { grep -lx \$1 /sys/block/nvme0n*/nsid | cut -d/ -f4; } # the host numbers disks as it comes upon them
for i in $((NR / 128 * 128)) 128 256; do
    d=/dev/\$(dev \$i)
    [ -b \$d ]
    fio_verified \$d 4k 1 --rw=randwrite --iodepth=16 --size=4m
done
for i in 1 2 777 $((NR - 1)); do
    d=/dev/\$(dev \$i)
    [ -b \$d ]
    cmp -n 65536 \$d /dev/zero
done
X

step "disconnect"
guest "nvme disconnect -n $NQN; wait_gone /dev/nvme0n1; [ \$(ls /sys/block | grep -c nvme) = 0 ]"
guest_off
