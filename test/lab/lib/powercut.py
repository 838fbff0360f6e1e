#!/usr/bin/python3
"""Cuts the power of a recorded drive: from a write log to disk images, each judged by `ledger check`.

The log is what QEMU's blklogwrites wrote (dm-log-writes' format): entries in the order in which the drive completed them.
The drive has a store partition and a marks partition.  A cut at entry n makes the image of a drive with a volatile cache
whose power failed there: everything before the last flush that completed is on the medium; of what completed after it any
part may be, torn at sectors; a discarded range reads as it was, or zero.  The marks that had completed by then
say which of the workload's operations must have survived.

A READER command turns an image into the contents of the volume: READER IMAGE VOLUME, status 0 and VOLUME written.
"""
import argparse
import mmap
import os
import random
import struct
import subprocess
import sys

SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
LOG_MAGIC = 0x6a736677736872
MARK_SLOT = 4096


class Entry:
    __slots__ = ('offset', 'length', 'flags', 'data')

    def __init__(self, offset, length, flags, data):
        self.offset, self.length, self.flags, self.data = offset, length, flags, data


def read_log(path):
    """The entries of a log, offsets and lengths in bytes; `data` is where the log holds the contents."""
    with open(path, 'rb') as f:
        log = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    magic, version, nr_entries, unit = struct.unpack_from('<QQQI', log, 0)
    if magic != LOG_MAGIC or version != 1:
        sys.exit(f'{path} is not a write log')
    entries, at = [], unit
    while at + unit <= len(log):
        sector, nr, flags, data_len = struct.unpack_from('<QQQQ', log, at)
        if flags & ~15 or data_len or (nr == 0 and flags == 0):
            break
        entries.append(Entry(sector * unit, nr * unit, flags, at + unit))
        at += unit + (0 if flags & DISCARD else nr * unit)
    if len(entries) < nr_entries:
        sys.exit(f'{path}: {len(entries)} entries of {nr_entries} can be read')
    return log, entries


class Drive:
    """The store partition's medium as cuts go forward through the log."""

    def __init__(self, args, rng):
        self.log, self.entries = read_log(args.log)
        self.start, self.size = args.store
        self.marks_start, self.marks_size = args.marks
        self.rng = rng
        self.durable = bytearray(open(args.initial, 'rb').read() if args.initial else self.size)
        self.durable = self.durable[:self.size]
        self.applied = 0  # entries below this are durable

    def in_store(self, e):
        return e.length and self.start <= e.offset and e.offset + e.length <= self.start + self.size

    def marks(self):
        """(entry index, record) of every mark, in order."""
        found = []
        for i, e in enumerate(self.entries):
            if e.flags & DISCARD or not self.marks_start <= e.offset < self.marks_start + self.marks_size:
                continue
            for at in range(e.data, e.data + e.length, MARK_SLOT):
                found.append((i, self.log[at:at + SECTOR]))
        return found

    def put(self, image, e, sectors=None):
        """Writes an entry, or those of its sectors that are named, to an image."""
        at = e.offset - self.start
        if e.flags & DISCARD:
            if self.rng.random() < 0.5:  # a drive may also ignore it
                image[at:at + e.length] = bytes(e.length)
            return
        if sectors is None:
            image[at:at + e.length] = self.log[e.data:e.data + e.length]
            return
        for s in sectors:
            image[at + s * SECTOR:at + (s + 1) * SECTOR] = self.log[e.data + s * SECTOR:e.data + (s + 1) * SECTOR]

    def last_flush(self, cut):
        """The index after the last flush that completed before the cut."""
        for i in range(cut - 1, -1, -1):
            if self.entries[i].flags & FLUSH:
                return i + 1
        return 0

    def cut(self, cut, flushed, how):
        """An image for a cut at entry `cut`; entries below `flushed` are durable."""
        for e in self.entries[self.applied:flushed]:
            if self.in_store(e):
                self.put(self.durable, e)
        self.applied = max(self.applied, flushed)
        image = bytearray(self.durable)
        volatile = [e for e in self.entries[self.applied:cut] if self.in_store(e)]
        rng = self.rng
        share = rng.uniform(0.1, 0.9)
        special = rng.randrange(len(volatile)) if volatile else 0
        nr_chosen = 0
        # Applied in the log's order: what a drive's reordering can leave behind is what leaving out and tearing can.
        for i, e in enumerate(volatile):
            chosen = {'none': False, 'all': True, 'one': i == special, 'all-but-one': i != special}.get(how, rng.random() < share)
            if not chosen and not e.flags & FUA:
                continue
            nr_chosen += 1
            sectors = None
            nr = e.length // SECTOR
            if how in ('torn', 'one') and nr > 1 and not e.flags & (FUA | DISCARD) and rng.random() < 0.5:
                k = rng.randrange(1, nr)
                sectors = rng.choice([range(k), range(k, nr), [s for s in range(nr) if rng.random() < 0.5]])
            self.put(image, e, sectors)
        return image, len(volatile), nr_chosen


HOWS = ['random', 'torn', 'torn', 'none', 'all', 'all-but-one', 'one']


def judge(args, image, marks_file, count):
    """None, or why the image is not what it must be."""
    path, volume = os.path.join(args.work, 'image'), os.path.join(args.work, 'volume')
    with open(path, 'wb') as f:
        f.write(image)
    if os.path.exists(volume):
        os.unlink(volume)
    try:
        p = subprocess.run([args.reader, path, volume], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return 'the image is not served within 300 s'
    if p.returncode:
        return f'the image is not served: {p.stdout.strip()[-600:]}'
    p = subprocess.run([args.ledger, '-m', marks_file, '-n', str(count), 'check', volume], stdout=subprocess.PIPE, text=True,
                       stderr=subprocess.STDOUT)
    return None if p.returncode == 0 else p.stdout.strip()


def keep(args, name, image):
    """An image that failed, as the daemon first saw it."""
    if args.keep:
        os.makedirs(args.keep, exist_ok=True)
        subprocess.run(['zstd', '-q', '-f', '-o', os.path.join(args.keep, name + '.zst')], input=image, check=False)


def pick_cuts(rng, marks, nr_entries, n):
    """Half of the cuts anywhere, half right after a mark: there the least time has passed since something had to last."""
    first = marks[0][0] + 1
    cuts = [rng.randrange(first, nr_entries + 1) for _ in range(n - n // 2)]
    cuts += [rng.choice(marks)[0] + 1 for _ in range(n // 2)]
    return sorted(cuts)


def run(args, drive, rng, marks, marks_file, n, ignore_flush):
    failures = []
    for cut in pick_cuts(rng, marks, len(drive.entries), n):
        count = sum(1 for i, _ in marks if i < cut)
        # The control: the drive forgets everything that came after the workload's start, flushed or not.
        flushed = marks[0][0] if ignore_flush else drive.last_flush(cut)
        how = rng.choice(HOWS)
        image, nr_volatile, nr_chosen = drive.cut(cut, flushed, how)
        why = judge(args, image, marks_file, count)
        label = f'cut at {cut} of {len(drive.entries)}, {how}: {nr_chosen} of {nr_volatile} unflushed writes kept, {count} marks'
        if why:
            failures.append(f'{label}: {why}')
            if not ignore_flush:
                print(failures[-1], flush=True)
                keep(args, f'cut-{cut}-{how}', image)
    return failures


def main():
    pair = lambda s: tuple(int(x, 0) for x in s.split(':'))
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--log', required=True)
    p.add_argument('--store', type=pair, required=True, metavar='START:SIZE', help='the store partition, in bytes')
    p.add_argument('--marks', type=pair, required=True, metavar='START:SIZE', help='the marks partition')
    p.add_argument('--initial', help='what the store partition held at first; default zeros')
    p.add_argument('--reader', required=True)
    p.add_argument('--ledger', required=True)
    p.add_argument('--work', required=True, help='scratch folder')
    p.add_argument('--keep', help='folder for images that failed')
    p.add_argument('--cuts', type=int, default=100)
    p.add_argument('--control', type=int, default=10, help='cuts with flush ignored, of which some must fail')
    p.add_argument('--seed', type=int, default=int.from_bytes(os.urandom(4), 'little'))
    args = p.parse_args()

    print(f'seed {args.seed}')
    rng = random.Random(args.seed)
    drive = Drive(args, rng)
    marks = drive.marks()
    marks_file = os.path.join(args.work, 'marks')
    with open(marks_file, 'wb') as f:
        f.write(b''.join(record for _, record in marks))
    flushes = sum(1 for e in drive.entries if e.flags & FLUSH)
    stored = sum(1 for e in drive.entries if drive.in_store(e))
    discards = sum(1 for e in drive.entries if drive.in_store(e) and e.flags & DISCARD)
    print(f'log: {len(drive.entries)} entries, {stored} of the store ({discards} discards), {flushes} flushes, {len(marks)} marks')
    if len(marks) < 20:
        sys.exit('too few marks: the workload did not run')

    failures = run(args, drive, rng, marks, marks_file, args.cuts, False)
    print(f'{args.cuts} cuts, {len(failures)} failed')
    noticed = []
    if args.control:
        noticed = run(args, Drive(args, rng), rng, marks, marks_file, args.control, True)
        print(f'control: {args.control} cuts with flush ignored, {len(noticed)} noticed, {sum("ledger:" in n for n in noticed)} by the ledger')
    if failures:
        sys.exit(f'{len(failures)} of {args.cuts} cuts lost something (seed {args.seed}); first: {failures[0][:200]}')
    if args.control and len(noticed) * 2 < args.control:
        sys.exit(f'the control: only {len(noticed)} of {args.control} cuts with flush ignored were noticed')


if __name__ == '__main__':
    main()
