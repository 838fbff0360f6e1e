#!/usr/bin/python3
"""insns.py COUNTS LIMIT RUN...: what an I/O costs in user mode, from what count_insns.c counted.

A RUN is NAME:PROGRAM:DONE:DRIVER:MAPS: the program's file with its symbols, the function that runs once for each I/O that completes,
the archive whose functions are the driver, and what /proc/PID/maps said.  LIMIT: the driver's instructions that ours, the
runs whose name begins with "ours", may take for one I/O; 0: any.  Where runs "ours NAME" and "peer NAME" are there, ours may also
take no more than the peer's in all.
"""
import bisect
import os
import subprocess
import sys


def symbols(path, *options):
    """(addresses, names) of the functions that a file defines."""
    text = subprocess.run(['nm', '--defined-only', *options, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = sorted((int(address, 16), name) for address, kind, name in (line.split()[:3] for line in text.splitlines()
                   if len(line.split()) >= 3) if kind in 'tTwWiV')
    return [a for a, _ in found], [n for _, n in found]


class Run:
    def __init__(self, text, blocks):
        self.name, self.program, self.done, driver, maps = text.split(':')
        base, spans = {}, []
        with open(maps) as f:
            for line in f:
                fields = line.split()
                start, end = (int(x, 16) for x in fields[0].split('-'))
                path = fields[5] if len(fields) > 5 else '?'
                base.setdefault(path, start)
                if 'x' in fields[1]:
                    spans.append((start, end, path))
        self.functions, self.modules, self.entries, self.total = {}, {}, {}, 0
        addresses, names = symbols(self.program)
        for address, nr_insns, nr_runs in blocks:
            path = next((p for start, end, p in spans if start <= address < end), None)
            if path is None:
                continue
            count, module = nr_insns * nr_runs, os.path.basename(path)
            self.total += count
            self.modules[module] = self.modules.get(module, 0) + count
            if module == os.path.basename(self.program):
                at = address - base[path]
                i = bisect.bisect_right(addresses, at) - 1
                self.functions[names[i]] = self.functions.get(names[i], 0) + count
                if addresses[i] == at:
                    self.entries[names[i]] = self.entries.get(names[i], 0) + nr_runs
        self.nr_ios = self.entries.get(self.done, 0)
        if self.nr_ios < 1000:
            sys.exit(f'{self.name}: {self.nr_ios} I/Os were counted, too few to say anything')
        members = {n.split('.')[0] for n in symbols(driver)[1]}
        self.driver = sum(n for name, n in self.functions.items() if name.split('.')[0] in members) / self.nr_ios
        self.each = self.total / self.nr_ios

    def show(self):
        print(f'{self.name}: {self.nr_ios} I/Os, {self.each:.0f} instructions for each, {self.driver:.0f} of them in the driver')
        print('    ' + ', '.join(f'{name} {n / self.nr_ios:.0f}' for name, n in sorted(self.modules.items(), key=lambda m: -m[1])
                                 if n / self.nr_ios >= 0.5))
        for name, n in sorted(self.functions.items(), key=lambda f: -f[1]):
            if n / self.nr_ios >= 0.5:
                calls = self.entries.get(name, 0) / self.nr_ios
                print(f'    {n / self.nr_ios:8.1f}  {name}' + (f'  ({calls:.2f} times)' if calls else ''))


def main():
    with open(sys.argv[1]) as f:
        blocks = [(int(a, 16), int(b), int(c)) for a, b, c in (line.split() for line in f)]
    limit, runs, bad = float(sys.argv[2]), {}, []
    for text in sys.argv[3:]:
        run = Run(text, blocks)
        run.show()
        runs[run.name] = run
    for name, run in runs.items():
        if name.startswith('ours') and limit and run.driver > limit:
            bad.append(f'{name}: {run.driver:.0f} instructions in the driver for an I/O, more than {limit:.0f}')
        peer = runs.get('peer' + name[4:]) if name.startswith('ours') else None
        if peer and run.each > peer.each:
            bad.append(f'{name}: {run.each:.0f} instructions for an I/O, the peer takes {peer.each:.0f}')
    sys.exit('; '.join(bad) or 0)


if __name__ == '__main__':
    main()
