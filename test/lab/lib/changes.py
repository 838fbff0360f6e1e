#!/usr/bin/python3
"""What management does while the ledger runs, and whether a daemon that was started after a cut still knows it.

changes.py run SOCKET EVENTS SECONDS NQN: in the guest.  Makes volumes, exports them, fills and trims them at the host, which
is connected to NQN, lets them go, and makes and drops a second store.  Before and after each of these it writes an event, a line in a 4 KiB slot, to the block device EVENTS.  An end is written after the daemon's answer.

changes.py check SOCKET EVENTS: with the events of a cut in a file.  What was made must be there, what was dropped must not;
what was begun may be either.  Data that was flushed, and not trimmed since, must read as it was written.
"""
import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import sys
import tempfile
import time

import rpc

MIB = 1 << 20
SIDE_MIB = 4
BLKDISCARD = 0x1277
ADDRESS = {'trtype': 'TCP', 'adrfam': 'IPv4', 'traddr': '127.0.0.1', 'trsvcid': '4420'}


def pattern(name):
    """The contents of a filled volume: each 4 KiB says which volume and where."""
    seed = hashlib.sha256(name.encode()).digest()
    return b''.join((seed + struct.pack('<Q', at)).ljust(64, b'\x5c') * 64 for at in range(SIDE_MIB * MIB // 4096))


def export_nqn(name):
    return 'nqn.2026-11.io.ferrule:' + name


class Events:
    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
        self.buf = mmap.mmap(-1, 4096)
        self.at = 0
        self.size = os.lseek(self.fd, 0, os.SEEK_END)

    def has_room(self):
        """For one more turn."""
        return self.size - self.at >= 32 * 4096

    def say(self, line):
        self.buf[:512] = line.encode().ljust(512, b'\0')
        os.pwrite(self.fd, self.buf, self.at)
        self.at += 4096

    @contextlib.contextmanager
    def doing(self, *what):
        for w in what:
            self.say('begin ' + w)
        yield
        for w in what:
            self.say('end ' + w)


# --- in the guest ---

class Changes:
    def __init__(self, socket, events, nqn, second):
        self.call = rpc.Client(socket).call
        self.events = Events(events)
        self.nqn = nqn
        self.second = second
        self.kept = []

    def make_volume(self, name, thin):
        store, short = name.split('/')
        with self.events.doing('make volume ' + name):
            return self.call('bdev_lvol_create', lvs_name=store, lvol_name=short, size_in_mib=SIDE_MIB, thin_provision=thin)

    def drop_volume(self, name):
        with self.events.doing('drop volume ' + name):
            self.call('bdev_lvol_delete', name=name)

    def make_export(self, name):
        nqn = export_nqn(name.split('/')[1])
        with self.events.doing('make export ' + name):
            self.call('nvmf_create_subsystem', nqn=nqn, allow_any_host=True)
            self.call('nvmf_subsystem_add_ns', nqn=nqn, namespace={'bdev_name': name})
            self.call('nvmf_subsystem_add_listener', nqn=nqn, listen_address=ADDRESS)

    def drop_export(self, name):
        with self.events.doing('drop export ' + name):
            self.call('nvmf_delete_subsystem', nqn=export_nqn(name.split('/')[1]))

    def open_at_host(self, uuid):
        """The host sees a namespace some time after the target's event, and numbers its devices as it likes."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for name in os.listdir('/sys/block'):
                with contextlib.suppress(OSError):
                    with open(f'/sys/block/{name}/uuid') as f:
                        if f.read().strip() == uuid:
                            return os.open('/dev/' + name, os.O_RDWR | os.O_DIRECT)
            time.sleep(0.02)
        sys.exit(f'the host does not see {uuid}')

    def fill_and_trim(self, name, uuid, nsid, trim):
        self.call('nvmf_subsystem_add_ns', nqn=self.nqn, namespace={'bdev_name': name, 'nsid': nsid})
        fd = self.open_at_host(uuid)
        data = mmap.mmap(-1, SIDE_MIB * MIB)
        data[:] = pattern(name)
        with self.events.doing('fill data ' + name):
            for at in range(0, len(data), MIB):
                os.pwrite(fd, memoryview(data)[at:at + MIB], at)
            os.fsync(fd)
        if trim:
            with self.events.doing('trim data ' + name):
                fcntl.ioctl(fd, BLKDISCARD, struct.pack('<QQ', 0, SIDE_MIB * MIB))
                os.fsync(fd)
        os.close(fd)
        self.call('nvmf_subsystem_remove_ns', nqn=self.nqn, nsid=nsid)

    def second_store(self, make):
        if make:
            with self.events.doing('make store two'):
                self.call('bdev_lvol_create_lvstore', bdev_name=self.second, lvs_name='two', cluster_sz=MIB)
            self.make_volume('two/v', True)
        else:
            with self.events.doing('drop volume two/v', 'drop store two'):
                self.call('bdev_lvol_delete_lvstore', lvs_name='two')

    def turn(self, i):
        name = f'lvs/side-{i}'
        uuid = self.make_volume(name, i % 2 == 0)
        self.make_export(name)
        self.fill_and_trim(name, uuid, 2 + i % 8, i % 3 == 1)
        self.second_store(i % 2 == 0)
        self.kept.append(name)
        while len(self.kept) > 2:
            gone = self.kept.pop(0)
            self.drop_export(gone)
            self.drop_volume(gone)


def run(socket, events, seconds, nqn, second='store2'):
    changes, end, turns = Changes(socket, events, nqn, second), time.monotonic() + float(seconds), 0
    while time.monotonic() < end and changes.events.has_room():
        changes.turn(turns)
        turns += 1
    print(f'changes: {turns} turns')


# --- at the judge ---

def known(lines):
    """(kind, name) -> 'there', 'gone' or 'either'."""
    now = {}
    for line in lines:
        word, verb, kind, name = line.split()
        now[kind, name] = 'either' if word == 'begin' else 'there' if verb in ('make', 'fill') else 'gone'
    return now


def found(call):
    things = {('store', s['name']) for s in call('bdev_lvol_get_lvstores')}
    for volume in call('bdev_lvol_get_lvols'):
        things.add(('volume', volume['alias']))
        if volume['is_degraded']:
            sys.exit(f"{volume['alias']} is degraded")
    for s in call('nvmf_get_subsystems'):
        if not s['nqn'].startswith(export_nqn('side-')) or not s['listen_addresses']:
            continue
        for ns in s['namespaces']:
            if ns.get('present', True):
                things.add(('export', call('bdev_get_bdevs', name=ns['bdev_name'])[0]['aliases'][0]))
    return things


def check_data(call, name):
    import nvmetcp
    nqn = export_nqn('check')
    call('nvmf_create_subsystem', nqn=nqn, allow_any_host=True)
    call('nvmf_subsystem_add_ns', nqn=nqn, namespace={'bdev_name': name})
    call('nvmf_subsystem_add_listener', nqn=nqn, listen_address=ADDRESS)
    with tempfile.TemporaryFile() as f:
        nvmetcp.read_namespace((ADDRESS['traddr'], int(ADDRESS['trsvcid'])), nqn, 1, f.fileno())
        f.seek(0)
        if f.read() != pattern(name):
            sys.exit(f'{name} does not hold what was flushed to it')
    call('nvmf_delete_subsystem', nqn=nqn)


def check(socket, events, second='store2'):
    call = rpc.Client(socket).call
    with open(events) as f:
        now = known(f.read().splitlines())
    call('bdev_wait_for_examine')
    things = found(call)
    for (kind, name), state in now.items():
        if kind != 'data' and state != 'either' and ((kind, name) in things) != (state == 'there'):
            sys.exit(f"{kind} {name} is {'not there' if state == 'there' else 'there again'}")
    for (kind, name), state in now.items():
        if kind == 'data' and state == 'there' and now['volume', name] == 'there':
            check_data(call, name)
    if ('store', 'two') not in things:  # whatever is left of it is in nobody's way
        call('bdev_lvol_create_lvstore', bdev_name=second, lvs_name='two', cluster_sz=MIB)


if __name__ == '__main__':
    try:
        {'run': run, 'check': check}[sys.argv[1]](*sys.argv[2:])
    except (rpc.RpcError, OSError) as e:
        sys.exit(f'changes: {e}')
