# Tries the power-cut tools themselves on the kernel's own target and a bare partition, which is known to be right: every cut
# must be judged good, and with flushes ignored the judge must notice.
# timeout: 1800
build_ledger
recorded_disk store:64:0
guest_boot -c 4 -- "${DISK[@]}"
step "workload on the kernel's target in the guest"
guest <<X
$PARTS
modprobe -a nvmet nvmet-tcp nvme-tcp
mount -t configfs none /sys/kernel/config
cd /sys/kernel/config/nvmet
mkdir -p subsystems/$NQN/namespaces/1 ports/1
echo 1 > subsystems/$NQN/attr_allow_any_host
echo -n /dev/vdb1 > subsystems/$NQN/namespaces/1/device_path
echo 1 > subsystems/$NQN/namespaces/1/enable
echo ipv4 > ports/1/addr_adrfam; echo tcp > ports/1/addr_trtype; echo 127.0.0.1 > ports/1/addr_traddr; echo 4420 > ports/1/addr_trsvcid
ln -s /sys/kernel/config/nvmet/subsystems/$NQN ports/1/subsystems/
TARGET=127.0.0.1 connect $NQN
wait_block /dev/nvme0n1
cp /lab/ledger /tmp/
/tmp/ledger -m /dev/vdb2 -s $RANDOM$RANDOM -t 6 -r ${SECONDS_OF_LOAD:-15} run /dev/nvme0n1
X
guest_cut

step "cuts"
printf '#!/bin/sh\nexec ln -f "$1/store" "$2"\n' > "$T/reader"
chmod +x "$T/reader"
"${CUT[@]}" --reader "$T/reader" --cuts "${CUTS:-100}" || fail "$(tail -1 "$OUT/log")"
