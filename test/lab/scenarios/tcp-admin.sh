# A stock host's view of the target's admin side: connect-all through discovery, identify, logs, features, hosts, events.
# timeout: 1800
HOSTNQN=nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555
HOSTID=11111111-2222-3333-4444-555555555555
UUID=6f2b1f0e-9d8c-4b7a-a695-8473625140f1

step "target: a volume and a malloc device; discovery opens on 8009 with the first listener"
tap_up
target_start
rpc bdev_malloc_create name=base num_blocks=262144 block_size=512
rpc bdev_malloc_create name=m1 num_blocks=65536 block_size=512 uuid=$UUID
rpc bdev_lvol_create_lvstore bdev_name=base lvs_name=lvs
vol=$(rpc bdev_lvol_create lvol_name=vol size_in_mib=32 thin_provision=true lvs_name=lvs | tr -d '"')
export_bdevs "$NQN" lvs/vol



guest_boot -c 4
step "connect-all on port 8009"
guest <<X
modprobe nvme-tcp
nvme connect-all -t tcp -a 10.0.2.2 -q $HOSTNQN -I $HOSTID
for i in \$(seq 600); do grep -qs $NQN /sys/class/nvme/nvme*/subsysnqn && break; sleep 0.1; done
dev=\$(basename \$(dirname \$(grep -l $NQN /sys/class/nvme/nvme*/subsysnqn)))
wait_block /dev/\${dev}n1
nvme disconnect -n $NQN
X

step "identify and logs"
mkdir -p "$SHARE/j"
guest <<X
test \$(connect $NQN -q $HOSTNQN -I $HOSTID -k 15) = nvme0
wait_block /dev/nvme0n1
dd if=/dev/zero of=/dev/nvme0n1 bs=64k count=128 oflag=direct status=none
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=256 iflag=direct status=none
# One command that fails: it must be in the error log.
nvme read /dev/nvme0n1 -s 9999999 -c 0 -z 512 > /dev/null 2>&1 && { echo 'a read past the end succeeds'; exit 1; }
j() { local n=\$1; shift; nvme "\$@" -o json > /lab/j/\$n || { cat /lab/j/\$n; echo "nvme \$* failed"; return 1; }; }
j discover discover -t tcp -a 10.0.2.2 -q $HOSTNQN -I $HOSTID
j id-ctrl id-ctrl /dev/nvme0
j id-ns id-ns /dev/nvme0n1
j ns-descs ns-descs /dev/nvme0n1
j list-ns list-ns /dev/nvme0
j list-subsys list-subsys
j cmdset-ind-id-ns cmdset-ind-id-ns /dev/nvme0n1
j nvm-id-ctrl nvm-id-ctrl /dev/nvme0
j smart-log smart-log /dev/nvme0
j error-log error-log /dev/nvme0
j fw-log fw-log /dev/nvme0
j effects-log effects-log /dev/nvme0
j changed-ns-list-log changed-ns-list-log /dev/nvme0
j supported-log-pages supported-log-pages /dev/nvme0
j show-regs show-regs /dev/nvme0
X
J=$SHARE/j
cp -r "$J" "$OUT/"
jcheck "$J/discover" \
    "any(r['subtype'] == 'nvme subsystem' and r['subnqn'] == '$NQN' and r['traddr'] == '10.0.2.2' and r['trsvcid'].strip() == '4420' for r in d['records'])" \
    "any(r['subtype'] == 'current discovery subsystem' and r['trsvcid'].strip() == '8009' for r in d['records'])" "d['genctr'] > 0"
jcheck "$J/id-ctrl" "d['sn'].strip() == 'LAB0001'" "d['mn'].strip() == 'Ferrule lab'" "d['subnqn'] == '$NQN'" "d['cntrltype'] == 1" \
    "d['cntlid'] not in (0, 0xffff)" "d['ver'] >= 0x20000" "d['sqes'] == 0x66" "d['cqes'] == 0x44" "d['nn'] == 1024" "d['vwc'] & 1 == 1" \
    "d['mdts'] == 8" "d['oncs'] & 0x0d == 0x0d" "d['fuses'] & 1 == 1" "d['kas'] > 0" "d['maxcmd'] >= 1" "d['ioccsz'] >= 4" \
    "d['iorcsz'] == 1" "d['icdoff'] == 0" "d['oaes'] & 0x100 == 0x100" "d['ctratt'] & 1 == 1" "d['acl'] >= 0" "d['aerl'] >= 3" "d['lpa'] & 6 == 6"
jcheck "$J/id-ns" "d['nsze'] == 65536" "d['ncap'] == 65536" "d['nuse'] <= 65536" "d['lbafs'][d['flbas'] & 15]['ds'] == 9" "d['nmic'] & 1 == 1" \
    "d['nguid'] != '0' * 32"
jcheck "$J/ns-descs" "[n['uuid'] for n in d['ns-descs'] if n['nidt'] == 3] == ['$vol']" "any(n['nidt'] == 2 for n in d['ns-descs'])"
jcheck "$J/list-ns" "d['nsid_list'] == [{'nsid': 1}]"
jcheck "$J/list-subsys" "any(s['NQN'] == '$NQN' and s['Paths'][0]['State'] == 'live' for h in d for s in h['Subsystems'])"
jcheck "$J/cmdset-ind-id-ns" "d['nstat'] & 1 == 1" "d['nmic'] & 1 == 1"
jcheck "$J/smart-log" "d['critical_warning'] == 0" "d['host_read_commands'] >= 256" "d['host_write_commands'] >= 128" \
    "d['data_units_read'] >= 16 * 1048576 // 512000" "d['data_units_written'] >= 8 * 1048576 // 512000" "d['num_err_log_entries'] >= 1" \
    "d['temperature'] == 0" # kelvin; no drive here reports one
jcheck "$J/error-log" "d['errors'][0]['error_count'] >= 1" "d['errors'][0]['nsid'] == 1" "d['errors'][0]['lba'] == 9999999" "d['errors'][0]['sqid'] >= 1"
jcheck "$J/fw-log" "d['nvme0']['Active Firmware Slot (afi)'] & 7 == 1" "'Firmware Rev Slot 1' in d['nvme0']"
jcheck "$J/effects-log" \
    "{k.split()[0]: v & 1 for k, v in [e for e in d if e['command_set_identifier'] == 0][0]['admin_cmd_set'].items()}.items() >= {f'ACS_{n}': 1 for n in (2, 6, 8, 9, 10, 12, 24)}.items()" \
    "{k.split()[0]: v & 1 for k, v in [e for e in d if e['command_set_identifier'] == 0][0]['io_cmd_set'].items()}.items() >= {f'IOCS_{n}': 1 for n in (0, 1, 2, 5, 8, 9)}.items()"
jcheck "$J/supported-log-pages" "{0, 1, 2, 3, 4, 5, 0x12} <= {int(k.split('_')[1], 16) for e in d['supported_logs'] for k in e}"
jcheck "$J/show-regs" "d['vs'] >= 0x20000" "d['csts'] & 1 == 1" "d['cap'] & 0xffff >= 127" "d['cap'] >> 37 & 1 == 1"

step "features"
guest <<X
get() { nvme get-feature /dev/nvme0 -f 0x\$1 -o json \${2:-} | python3 -c "import json,sys; d = json.load(sys.stdin); print(int(d['feature: 0x\$1'][0]['Current'], 16))"; }
set_get() { # FEATURE VALUE: what was set must be read back
    local v
    nvme set-feature /dev/nvme0 -f 0x\$1 -V \$2 > /dev/null || { echo "set feature \$1 failed"; return 1; }
    v=\$(get \$1)
    [ \$v = \$((\$2)) ] || { echo "feature \$1 is \$v, not \$((\$2))"; return 1; }
}
refused() { # STATUS COMMAND...: by its name
    local want=\$1
    shift
    ! "\$@" > /tmp/refused 2>&1 && grep -qi "\$want" /tmp/refused && return
    cat /tmp/refused; echo "\$*: not refused with \$want"; return 1
}
for f in 01 02 04 05 06 07 0a 0b 0f; do get \$f > /dev/null || { echo "get feature \$f failed"; exit 1; }; done
set_get 01 0x07030103
set_get 02 0
refused 'invalid field' nvme set-feature /dev/nvme0 -f 2 -V 1
set_get 04 0x15e
set_get 05 100
[ \$(get 06) = 1 ] || { echo "no volatile write cache in feature 06"; exit 1; }
set_get 06 0
set_get 06 1
[ \$(get 07) != 0 ]
refused 'sequence error' nvme set-feature /dev/nvme0 -f 7 -V 0x30003
set_get 0a 1
set_get 0a 0
aec=\$(get 0b)
set_get 0b 0x100
set_get 0b \$aec
v=\$(get 0f); [ \$v -ge 15000 ] && [ \$v -le 30000 ] || { echo "keep alive timeout is \$(get 0f)"; exit 1; }
nvme set-feature /dev/nvme0 -f 0xf -V 20000 > /dev/null
[ \$(get 0f) -ge 20000 ]
python3 -c "open('/tmp/hbs', 'wb').write(bytes([1]) + bytes(511))"
nvme set-feature /dev/nvme0 -f 0x16 -l 512 -d /tmp/hbs > /dev/null
nvme get-feature /dev/nvme0 -f 0x16 -l 512 -b > /tmp/hbs2
cmp -n 512 /tmp/hbs /tmp/hbs2
nvme get-feature /dev/nvme0 -f 0x81 -c 1 -l 16 -b > /tmp/hostid
python3 -c "import uuid; b = open('/tmp/hostid', 'rb').read()[:16]; u = uuid.UUID('$HOSTID'); assert b in (u.bytes, u.bytes_le), b.hex()"
printf 0123456789abcdef > /tmp/id
refused 'sequence error' nvme set-feature /dev/nvme0 -f 0x81 -V 1 -l 16 -d /tmp/id
refused 'invalid field' nvme get-feature /dev/nvme0 -f 0x99
X

step "a namespace that is added appears, one that grows grows, one that is removed disappears"
rpc nvmf_subsystem_add_ns nqn="$NQN" namespace='{"bdev_name": "m1"}'
guest "wait_block /dev/nvme0n2; dd if=/dev/nvme0n2 of=/dev/null bs=1M count=4 iflag=direct status=none; test \$(cat /sys/block/nvme0n2/uuid) = $UUID; grep -q back /sys/block/nvme0n2/queue/write_cache"
guest "nvme list-ns /dev/nvme0 -o json" > "$T/list-ns"
jcheck "$T/list-ns" "[n['nsid'] for n in d['nsid_list']] == [1, 2]"
rpc bdev_lvol_resize name=lvs/vol size_in_mib=64
guest "for i in \$(seq 600); do [ \$(blockdev --getsize64 /dev/nvme0n1) = $((64 << 20)) ] && exit 0; sleep 0.1; done; echo 'the host does not see the new size'; exit 1"
rpc nvmf_subsystem_remove_ns nqn="$NQN" nsid=2
guest "wait_gone /dev/nvme0n2; [ -b /dev/nvme0n1 ]"

step "a persistent discovery controller is told of a change"
guest_bg aen "
cat > /tmp/aen.py <<'P'
import socket
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
s.bind((0, -1))
s.settimeout(300)
open('/tmp/listening', 'w').close()
while b'NVME_AEN=0x70f002' not in s.recv(65536): pass
P
nvme discover -t tcp -a 10.0.2.2 -q $HOSTNQN -I $HOSTID -p > /dev/null
python3 /tmp/aen.py & p=\$!
for i in \$(seq 100); do [ -e /tmp/listening ] && break; sleep 0.1; done
touch /lab/listening
wait \$p || { echo 'no event for the discovery log'; exit 1; }"
for i in $(seq 3000); do [ -e "$SHARE/listening" ] && break; sleep 0.1; done
rpc nvmf_create_subsystem nqn="$NQN-2" serial_number=LAB0002 max_namespaces=8
rpc nvmf_subsystem_add_ns nqn="$NQN-2" namespace='{"bdev_name": "m1", "nsid": 5}'
rpc nvmf_subsystem_add_listener nqn="$NQN-2" listen_address='{"trtype": "TCP", "adrfam": "IPv6", "traddr": "fd00:fe::2", "trsvcid": "4420"}'
rpc nvmf_subsystem_add_host nqn="$NQN-2" host=$HOSTNQN
guest_wait aen

step "only a host that is named gets in; IPv6"
guest <<X
nvme connect -t tcp -a fd00:fe::2 -s 4420 -n $NQN-2 -q nqn.2026-11.io.ferrule:stranger -I 99999999-2222-3333-4444-555555555555 > /dev/null 2>&1 &&
    { echo 'a host that nobody named gets in'; exit 1; }
d=\$(TARGET=fd00:fe::2 connect $NQN-2 -q $HOSTNQN -I $HOSTID)
for i in \$(seq 600); do ls /sys/block | grep -q "\${d}.*n" && break; sleep 0.1; done
nvme list-ns /dev/\$d -o json > /lab/j/list-ns-2
nvme disconnect-all
wait_gone /dev/nvme0
X
jcheck "$J/list-ns-2" "d['nsid_list'] == [{'nsid': 5}]"
guest_off
