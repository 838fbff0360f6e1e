# Functions for commands in the guest; the agent sources this before each of them.

# connect NQN [nvme connect's options]: by $TRTYPE, the target's address is $TARGET, port 4420.  Prints the controller's name.
connect() {
    local nqn=$1 d i
    shift
    modprobe "nvme-${TRTYPE:-tcp}"
    nvme connect -t "${TRTYPE:-tcp}" -a "${TARGET:-10.0.2.2}" -s 4420 -n "$nqn" "$@" > /dev/null
    for i in $(seq 600); do
        for d in /sys/class/nvme/nvme*; do
            [ "$(cat "$d/subsysnqn" 2> /dev/null)" = "$nqn" ] && [ "$(cat "$d/state")" = live ] && { basename "$d"; return; }
        done
        sleep 0.1
    done
    echo "no live controller for $nqn"
    return 1
}

# nic: the name of the guest's network interface.
nic() { ls /sys/class/net | grep -v '^lo$' | head -1; }

# wait_block DEVICE [tries]: a plain file of that name would swallow writes and look well.
wait_block() {
    local i
    for i in $(seq "${2:-600}"); do
        [ -b "$1" ] && return
        sleep 0.1
    done
    echo "$1 is not a block device"
    return 1
}

# wait_gone PATH [tries]
wait_gone() {
    local i
    for i in $(seq "${2:-600}"); do
        [ -e "$1" ] || return 0
        sleep 0.1
    done
    echo "$1 is still there"
    return 1
}

# add_part DISK N START SIZE: tells the kernel, not the disk, of a partition; in MiB.
add_part() {
    python3 - "$@" << 'P'
import ctypes
import fcntl
import struct
import sys
number, start, size = (int(a) for a in sys.argv[2:])
part = ctypes.create_string_buffer(struct.pack('<qqi132x', start << 20, size << 20, number), 152)
with open(sys.argv[1]) as disk:
    fcntl.ioctl(disk, 0x1269, struct.pack('<iiiiQ', 1, 0, len(part), 0, ctypes.addressof(part)))  # BLKPG, add
P
    wait_block "$1$2"
}

# fio_verified FILE BS JOBS OPTIONS...: write, then read back and check.  fio's own words are shown when it fails.
fio_verified() {
    local file=$1 bs=$2 jobs=$3
    shift 3
    fio --name=v --filename="$file" --bs="$bs" --numjobs="$jobs" --direct=1 --ioengine=libaio --verify=crc32c \
        --verify_fatal=1 --do_verify=1 --group_reporting --minimal "$@" > /tmp/fio.out 2>&1 || {
        grep -v '^[0-9];' /tmp/fio.out | head -5
        echo "fio on $file, $bs, $*: failed: $(grep -m1 '^verify:' /tmp/fio.out)"
        return 1
    }
    ! grep -m1 '^verify:' /tmp/fio.out
}
