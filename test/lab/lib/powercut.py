#!/usr/bin/python3
"""Cuts the power of a recorded drive: from a write log to disk images, each judged by `ledger check`.

The log is what QEMU's blklogwrites wrote (dm-log-writes' format): entries in the order in which the drive completed them.
The drive has parts that are judged (a store, what else the daemon keeps), a part for marks and one for events.  A cut at entry
n makes the image of a drive with a volatile cache whose power failed there: everything before the last flush that completed
is on the medium; of what completed after it any part may be, torn at sectors; a discarded range reads as it was, or zero.
The marks that had completed by then say which of the workload's operations must have survived; the events, lines of text,
what management had begun and what it had answered.

A READER command turns an image into the contents of the volume: READER FOLDER VOLUME, where FOLDER holds a file for each
part and the events so far; status 0 and VOLUME written.
"""
import argparse
import mmap
import os
import random
import shutil
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


class Part:
    """A stretch of the drive that is judged."""

    def __init__(self, text):
        self.name, rest = text.split('=', 1)
        start, size, initial = rest.split(':', 2)
        self.start, self.size, self.initial = int(start), int(size), initial


class Drive:
    """The parts' medium as cuts go forward through the log."""

    def __init__(self, args, rng):
        self.log, self.entries = read_log(args.log)
        self.parts = args.part
        self.rng = rng
        self.durable = {}
        for p in self.parts:
            with open(p.initial, 'rb') as f:
                self.durable[p.name] = bytearray(f.read())
        self.applied = 0  # entries below this are durable

    def part_of(self, e):
        for p in self.parts:
            if e.length and p.start <= e.offset and e.offset + e.length <= p.start + p.size:
                return p
        return None

    def records(self, place):
        """(entry index, record) of everything written to a place of records, in order."""
        start, size = place
        found = []
        for i, e in enumerate(self.entries):
            if e.flags & DISCARD or not start <= e.offset < start + size:
                continue
            for at in range(e.data, e.data + e.length, MARK_SLOT):
                found.append((i, self.log[at:at + SECTOR]))
        return found

    def put(self, images, e, sectors=None):
        """Writes an entry, or those of its sectors that are named, to its part's image."""
        part = self.part_of(e)
        image, at = images[part.name], e.offset - part.start
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

    def cut(self, cut, flushed, how, forgetful=None):
        """The images for a cut at entry `cut`; entries below `flushed` are durable.  With `forgetful`, the name of a part, that
        part alone goes by `flushed`, and the others by the last flush."""
        for e in self.entries[self.applied:flushed]:
            if self.part_of(e):
                self.put(self.durable, e)
        self.applied = max(self.applied, flushed)
        images = {name: bytearray(image) for name, image in self.durable.items()}
        covered = self.last_flush(cut) if forgetful else 0
        volatile = []
        for i, e in enumerate(self.entries[self.applied:cut], self.applied):
            part = self.part_of(e)
            if part and i < covered and part.name != forgetful:
                self.put(images, e)
            elif part:
                volatile.append(e)
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
            self.put(images, e, sectors)
        return images, len(volatile), nr_chosen


HOWS = ['random', 'torn', 'torn', 'none', 'all', 'all-but-one', 'one']


def judge(args, images, marks_file, count, events):
    """None, or why the image is not what it must be."""
    folder, volume = os.path.join(args.work, 'image'), os.path.join(args.work, 'volume')
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name, image in images.items():
        with open(os.path.join(folder, name), 'wb') as f:
            f.write(image)
    with open(os.path.join(folder, 'events'), 'w') as f:
        f.writelines(line + '\n' for line in events)
    if os.path.exists(volume):
        os.unlink(volume)
    try:
        p = subprocess.run([args.reader, folder, volume], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return 'the image is not served within 300 s'
    reasons = [f'the image is not served as it was: {p.stdout.strip()[-600:]}'] if p.returncode else []
    if os.path.exists(volume):
        p = subprocess.run([args.ledger, '-m', marks_file, '-n', str(count), 'check', volume], stdout=subprocess.PIPE, text=True,
                           stderr=subprocess.STDOUT)
        if p.returncode:
            reasons.append(p.stdout.strip())
    return '; '.join(reasons) or None


def keep(args, name, images):
    """Images that failed, as the daemon first saw them."""
    if args.keep:
        os.makedirs(args.keep, exist_ok=True)
        for part, image in images.items():
            subprocess.run(['zstd', '-q', '-f', '-o', os.path.join(args.keep, f'{name}.{part}.zst')], input=image, check=False)


def spans(events):
    """(entry of the beginning, entry of the end) of each thing that management did."""
    begun, found = {}, []
    for i, line in events:
        word, what = line.split(' ', 1)
        if word == 'begin':
            begun[what] = i
        elif word == 'end':
            found.append((begun.pop(what), i))
    return found


def pick_cuts(rng, marks, events, first, nr_entries, n):
    """Cuts from entry `first` on: right after a mark, where the least time has passed since something had to last; where there are
    events in the midst of one and right after it, each kind as often as the other; the rest anywhere."""
    kinds = {}
    for (a, b), line in zip(spans(events), [line for _, line in events if line.startswith('end ')]):
        if a >= first:
            kinds.setdefault(' '.join(line.split()[1:3]), []).append((a, b))
    cuts = [rng.choice([i for i, _ in marks if i >= first]) + 1 for _ in range(n // 3 if kinds else n // 2)]
    for _ in range(n // 3 if kinds else 0):
        a, b = rng.choice(kinds[rng.choice(sorted(kinds))])
        cuts.append(rng.choice([rng.randrange(a + 1, b + 1), b + 1]))
    cuts += [rng.randrange(first, nr_entries + 1) for _ in range(n - len(cuts))]
    return sorted(cuts)


def run(args, drive, rng, marks, events, marks_file, n, ignore_flush):
    failures = []
    first = max(marks[0][0], events[0][0] if events else 0) + 1
    if ignore_flush:  # late: by then there is something to forget
        first = max(first, marks[len(marks) // 2][0])
    for nr, cut in enumerate(pick_cuts(rng, marks, events, first, len(drive.entries), n)):
        count = sum(1 for i, _ in marks if i < cut)
        lines = [line for i, line in events if i < cut]
        # The control: a part forgets everything that came after the workload's start, flushed or not; the store first.
        forgetful = drive.parts[nr % 2 % len(drive.parts)].name if ignore_flush else None
        flushed = marks[0][0] if ignore_flush else drive.last_flush(cut)
        # All of it by turns: a store that is old and whole is for the ledger to notice, one of old and new parts notices itself.
        how = 'none' if ignore_flush and nr % 4 < 2 else rng.choice(HOWS)
        images, nr_volatile, nr_chosen = drive.cut(cut, flushed, how, forgetful)
        why = judge(args, images, marks_file, count, lines)
        label = f'cut at {cut} of {len(drive.entries)}, {how}: {nr_chosen} of {nr_volatile} unflushed writes kept, {count} marks, {len(lines)} events'
        if why:
            failures.append(f'{label}: {why}')
            print(('noticed: ' if ignore_flush else '') + failures[-1], flush=True)
            if not ignore_flush:
                keep(args, f'cut-{cut}-{how}', images)
    return failures


def main():
    pair = lambda s: tuple(int(x, 0) for x in s.split(':'))
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--log', required=True)
    p.add_argument('--part', type=Part, action='append', required=True, metavar='NAME=START:SIZE:FILE',
                   help='a part that is judged, in bytes, and what it held at first')
    p.add_argument('--marks', type=pair, required=True, metavar='START:SIZE', help='where the marks are')
    p.add_argument('--events', type=pair, required=True, metavar='START:SIZE', help='where the events are')
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
    marks = drive.records(args.marks)
    events = [(i, record.split(b'\0')[0].decode()) for i, record in drive.records(args.events)]
    marks_file = os.path.join(args.work, 'marks')
    with open(marks_file, 'wb') as f:
        f.write(b''.join(record for _, record in marks))
    flushes = sum(1 for e in drive.entries if e.flags & FLUSH)
    nr = {p.name: sum(1 for e in drive.entries if drive.part_of(e) is p) for p in drive.parts}
    discards = sum(1 for e in drive.entries if drive.part_of(e) and e.flags & DISCARD)
    print(f'log: {len(drive.entries)} entries, {nr} ({discards} discards), {flushes} flushes, {len(marks)} marks, '
          f'{len(events)} events')
    if len(marks) < 20:
        sys.exit('too few marks: the workload did not run')

    failures = run(args, drive, rng, marks, events, marks_file, args.cuts, False)
    print(f'{args.cuts} cuts, {len(failures)} failed')
    noticed = []
    if args.control:
        noticed = run(args, Drive(args, rng), rng, marks, events, marks_file, args.control, True)
        print(f'control: {args.control} cuts with flush ignored, {len(noticed)} noticed, {sum("ledger:" in n for n in noticed)} by the ledger')
    if failures:
        sys.exit(f'{len(failures)} of {args.cuts} cuts lost something (seed {args.seed}); first: {failures[0][:200]}')
    if args.control and len(noticed) * 2 < args.control:
        sys.exit(f'the control: only {len(noticed)} of {args.control} cuts with flush ignored were noticed')


if __name__ == '__main__':
    main()
