# The daemon is killed with -9 at random moments under load and started again on the same state, nothing replayed: the same
# exports are there, the host reconnects by itself, and what a flush or an FUA write had covered is there; a flush covers also
# what the daemon before the one that answers it had acknowledged.
# Environment: ROUNDS (5), SEED, KEEP=0 (nothing outlives the daemon, and a flush covers its own daemon's writes only).
# timeout: 3600
ROUNDS=${ROUNDS:-5}
if [ "${KEEP:-1}" = 0 ]; then strict= keep=(--keep-dir none); else strict=-x keep=(); fi
SEED=${SEED:-$(date +%s)}
RANDOM=$SEED
echo "SEED=$SEED"

# exports: what a host or an orchestrator may rely on, without the figures that a crash may change.
exports() {
    rpc nvmf_get_subsystems > "$T/e.subsystems"
    rpc bdev_get_bdevs > "$T/e.bdevs"
    rpc bdev_lvol_get_lvstores > "$T/e.stores"
    python3 - "$T/e" << 'P'
import json
import sys
get = lambda name: json.load(open(f'{sys.argv[1]}.{name}'))
for s in sorted(get('subsystems'), key=lambda s: s['nqn']):
    print(json.dumps(s, sort_keys=True))
for b in sorted(get('bdevs'), key=lambda b: b['name']):
    lvol = {k: v for k, v in b.get('driver_specific', {}).get('lvol', {}).items() if k != 'num_allocated_clusters'}
    print(*(b[k] for k in ('name', 'aliases', 'uuid', 'product_name', 'block_size', 'num_blocks')), json.dumps(lvol, sort_keys=True))
for s in get('stores'):
    print(s['name'], s['uuid'], s['base_bdev'], s['cluster_size'], s['total_data_clusters'])
P
}

step "target: two thin volumes in a store on a file"
tap_up
build_ledger
target_start "${keep[@]}"
truncate -s 512M "$T/files/store"
rpc bdev_aio_create name=aio0 filename="$T/files/store" block_size=512
rpc bdev_lvol_create_lvstore bdev_name=aio0 lvs_name=lvs
rpc bdev_lvol_create lvol_name=a size_in_mib=64 thin_provision=true lvs_name=lvs
rpc bdev_lvol_create lvol_name=b size_in_mib=64 thin_provision=true lvs_name=lvs
export_bdevs "$NQN" lvs/a lvs/b
exports > "$OUT/exports"

guest_boot -c 4
guest "connect $NQN --ctrl-loss-tmo 3600 --reconnect-delay 1 -k 5; wait_block /dev/nvme0n1; wait_block /dev/nvme0n2; cp /lab/ledger /tmp/
ls -l /sys/block; cat /sys/block/nvme0n*/uuid; nvme id-ctrl /dev/nvme0 | grep -E '^(sn|mn|fr|nn) '" > "$T/seen"

check_ledger() { guest "/tmp/ledger -m /tmp/marks check /dev/nvme0n1"; }

# The first kill of a round comes after the ledger has something to lose, however slow the guest is.
wait_under_way() {
    local i
    for i in $(seq 600); do
        grep -qs 'under way' "$SHARE/q/ledger.out" && return
        [ ! -e "$SHARE/q/ledger.rc" ] || return 0
        sleep 0.1
    done
    fail "the ledger does not get under way"
}

for round in $(seq "$ROUNDS"); do
    # Odd rounds end with the kill: what was written last is looked at as it is.  Even rounds write on across two kills.
    kills=$((2 - round % 2))
    step "round $round: $kills kills"
    options="-w $strict -r 16"
    [ $kills = 2 ] || options="-w $strict -b -r 120"
    guest_bg ledger "/tmp/ledger -m /tmp/marks -s $SEED -t 6 $options run /dev/nvme0n1"
    # A stock program's view: every write is FUA, so all of them must be there whenever the daemon died.
    guest_bg fio "fio_verified /dev/nvme0n2 16k 1 --rw=randwrite --iodepth=8 --sync=1 --size=48m --rate=4m --randseed=$RANDOM"
    for _ in $(seq $kills); do
        wait_under_way
        sleep $((RANDOM % 3)).$((RANDOM % 1000 + 1000))
        target_kill9
        sleep $((RANDOM % 2)).$((RANDOM % 1000 + 1000))
        target_start "${keep[@]}"
        exports > "$OUT/exports.after"
        diff -U0 "$OUT/exports" "$OUT/exports.after" > "$OUT/exports.diff" || fail "round $round: the exports differ: $(grep '^[+-][^+-]' "$OUT/exports.diff" | head -2 | cut -c1-120 | tr '\n' ' ')"
    done
    guest_wait ledger
    check_ledger || fail "round $round: $(cat "$T/last-words") (SEED=$SEED)"
    guest_wait fio || fail "round $round: FUA writes: $(cat "$T/last-words") (SEED=$SEED)"
done

step "an orderly restart loses nothing either"
guest "/tmp/ledger -m /tmp/marks -s $SEED -t 6 -w -r 3 run /dev/nvme0n1"
target_stop
target_start "${keep[@]}"
check_ledger
guest "ls -l /sys/block; cat /sys/block/nvme0n*/uuid; nvme id-ctrl /dev/nvme0 | grep -E '^(sn|mn|fr|nn) '" > "$T/seen-after"
sed -i 1d "$T/seen"
cmp "$T/seen" "$T/seen-after" || fail "the host sees other devices than before"
guest "nvme disconnect -n $NQN"
guest_off
