#!/usr/bin/env python3
"""Kills the daemon at a random moment under load, again and again, and checks every block that was written.

The machine lives on, so everything that was acknowledged must be there, flushed or not: a host will not write it again.  Each
third round the next daemon is not shown what the dead one kept (--keep-dir), as after a power cut: then what a completed Flush
or FUA covered must be there, or anything written since.  A ledger knows of each 4 KiB what it may hold, and nothing of the
store.  `make check-kill ROUNDS=100` runs it long; SEED repeats a run's choices.
"""
import json
import os
import random
import shutil
import struct
import threading
import time

import ferrule
import nvme_host
from ferrule import MIB
from nvme_host import DSM, FLUSH, READ, WRITE, WRITE_ZEROES, Host, Lost

ROUNDS = int(os.environ.get("ROUNDS", "4"))
SEED = int(os.environ.get("SEED") or 0) or random.SystemRandom().randrange(1, 1 << 32)
NQN = "nqn.2026-01.io.ferrule:t"
UNIT = 4096
UNITS = 48 * MIB // UNIT
DEPTH = 24
ZERO = 0  # the stamp of a unit that reads zero


def fill(unit, stamp):
    """The bytes of a unit: every eight of them name the unit and the write."""
    return struct.pack("<II", unit, stamp) * (UNIT // 8) if stamp != ZERO else bytes(UNIT)


class Ledger:
    def __init__(self):
        self.may_hold = [[ZERO] for _ in range(UNITS)]  # the durable stamp, then those since, in order
        self.completed = [0] * UNITS  # index in may_hold of the newest that has completed
        self.busy = set()  # units with a write under way
        self.next_stamp = 1

    def begin(self, unit, count, stamp):
        for u in range(unit, unit + count):
            self.busy.add(u)
            self.may_hold[u].append(stamp)

    def end(self, unit, count, durable):
        for u in range(unit, unit + count):
            self.busy.discard(u)
            self.completed[u] = len(self.may_hold[u]) - 1
            if durable:
                self.forget_before(u, self.completed[u])

    def flush_begins(self):
        """What a Flush submitted now will cover."""
        return {u: self.may_hold[u][self.completed[u]] for u in range(UNITS) if self.completed[u]}

    def flush_ended(self, covered):
        for u, stamp in covered.items():
            if stamp in self.may_hold[u]:
                self.forget_before(u, self.may_hold[u].index(stamp))

    def all_acknowledged(self):
        """The daemon died, and what it kept was not taken away."""
        for u in range(UNITS):
            self.forget_before(u, self.completed[u])

    def forget_before(self, u, index):
        del self.may_hold[u][:index]
        self.completed[u] = max(0, self.completed[u] - index)

    def check(self, u, data):
        for stamp in reversed(self.may_hold[u]):
            if data == fill(u, stamp):
                self.may_hold[u] = [stamp]
                self.completed[u] = 0
                return None
        owner, stamp = struct.unpack_from("<II", data)
        return f"unit {u} holds stamp {stamp} of unit {owner}; it may hold {self.may_hold[u]}"


class Load:
    """Random writes, zeroes, trims and flushes on a volume until the connection breaks."""

    def __init__(self, host, ledger, rng):
        self.queue = host.io
        self.ledger = ledger
        self.rng = rng
        self.under_way = 0
        self.nr_done = self.nr_flushes = 0

    def fail_unless(self, status):
        self.under_way -= 1
        if status:
            raise nvme_host.NvmeError(status)
        self.nr_done += 1

    def submit_flush(self):
        covered = self.ledger.flush_begins()

        def done(status, data):
            self.fail_unless(status)
            self.ledger.flush_ended(covered)
            self.nr_flushes += 1

        self.under_way += 1
        self.queue.submit(FLUSH, nsid=1, done=done)

    def submit_change(self):
        count = self.rng.choice([1, 1, 1, 2, 5, 16, 40])
        # A few hot places, so that clusters are written, trimmed and written again.
        unit = self.rng.randrange(UNITS - count) if self.rng.random() < 0.5 else self.rng.randrange(2048 - count)
        if any(u in self.ledger.busy for u in range(unit, unit + count)):
            return
        kind = self.rng.random()
        fua = kind < 0.1
        stamp = ZERO if kind > 0.85 else self.ledger.next_stamp
        self.ledger.next_stamp += 1
        self.ledger.begin(unit, count, stamp)

        def done(status, data):
            self.fail_unless(status)
            self.ledger.end(unit, count, fua)

        self.under_way += 1
        blocks = UNIT // 512
        place = nvme_host.lba_range(unit * blocks, count * blocks, 1 << 30 if fua else 0)
        if kind > 0.93:
            ranges = struct.pack("<IIQ", 0, count * blocks, unit * blocks)
            self.queue.submit(DSM, nsid=1, cdw10=struct.pack("<II16x", 0, 4), data=ranges, done=done)
        elif kind > 0.85:
            self.queue.submit(WRITE_ZEROES, nsid=1, cdw10=place, done=done)
        else:
            data = b"".join(fill(u, stamp) for u in range(unit, unit + count))
            self.queue.submit(WRITE, nsid=1, cdw10=place, data=data, done=done)

    def run(self):
        try:
            while True:
                while self.under_way < DEPTH:
                    if self.rng.random() < 0.03:
                        self.submit_flush()
                    else:
                        self.submit_change()
                self.queue.wait()
        except Lost:
            pass
        self.ledger.busy.clear()


class Kill(ferrule.Case):
    def setUp(self):
        super().setUp()
        ferrule.signal.alarm(120 + 40 * ROUNDS)

    def verify(self, host, ledger):
        problems = []
        step = 64  # units in a read

        def reader(first):
            def done(status, data):
                if status:
                    problems.append(f"reading unit {first}: status {status:x}h")
                    return
                for i in range(step):
                    problem = ledger.check(first + i, data[i * UNIT:(i + 1) * UNIT])
                    if problem:
                        problems.append(problem)
            return done

        for first in range(0, UNITS, step):
            blocks = UNIT // 512
            host.io.submit(READ, nsid=1, cdw10=nvme_host.lba_range(first * blocks, step * blocks),
                           read_length=step * UNIT, done=reader(first))
            while len(host.io.pending) >= 16:
                host.io.wait()
        while host.io.pending:
            host.io.wait()
        self.assertEqual(problems[:5], [])

    def changes(self, rpc, answered, asked, rng):
        """Volumes made and deleted while the load runs, until the daemon is gone."""
        number = 0
        try:
            while True:
                name = f"extra{rng.randrange(8)}"
                if name in answered:
                    asked.discard(name)
                    rpc("bdev_lvol_delete", {"name": f"pool/{name}"})
                    answered.discard(name)
                else:
                    asked.add(name)
                    rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": 16,
                                             "thin_provision": rng.random() < 0.5})
                    answered.add(name)
                number += 1
        except (OSError, EOFError):
            pass

    def start_again(self, daemon, rng):
        """Starts the daemon, now and then killing it before it is up."""
        if rng.random() < 0.3:
            daemon.spawn()
            time.sleep(rng.random() * 0.4)
            daemon.kill()
        daemon.start()

    def one_round(self, number, daemon, port, ledger, volumes, rng):
        answered, asked = set(volumes), set(volumes)
        host = Host(port, NQN)
        rpc = daemon.rpc()
        load = Load(host, ledger, random.Random(rng.random()))
        side = threading.Thread(target=self.changes, args=(rpc, answered, asked, random.Random(rng.random())))
        killer = threading.Timer(0.05 + rng.random() * 1.2, daemon.process.kill)
        side.start()
        killer.start()
        load.run()
        killer.join()
        side.join()
        host.close()
        daemon.kill()
        if number % 3 == 2:
            shutil.rmtree(daemon.kept)
        else:
            ledger.all_acknowledged()
        found = json.loads(daemon.cli("--json", "store", "check", os.path.join(daemon.files, "pool"), check=False).stdout)
        self.assertEqual(found["findings"], [])
        self.start_again(daemon, rng)
        host = Host(port, NQN)
        self.verify(host, ledger)
        host.close()
        there = {v["name"] for v in daemon.rpc()("bdev_lvol_get_lvols")} - {"v"}
        # What was answered is so; what was asked and not answered may be so or not.
        self.assertLessEqual(answered & asked, there)
        self.assertLessEqual(there, answered | asked)
        return there, load

    def test_what_was_written_survives_a_kill_at_any_moment(self):
        print(f"seed {SEED}, {ROUNDS} rounds", flush=True)
        rng = random.Random(SEED)
        daemon = self.daemon()
        rpc = daemon.rpc()
        daemon.make_file("pool", 512 * MIB)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool", "block_size": 512})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk", "lvs_name": "pool"})
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": UNITS * UNIT // MIB,
                                 "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        ledger, volumes = Ledger(), set()
        nr_done = nr_flushes = 0
        for number in range(ROUNDS):
            print(f"round {number}", flush=True)
            volumes, load = self.one_round(number, daemon, port, ledger, volumes, rng)
            nr_done += load.nr_done
            nr_flushes += load.nr_flushes
        print(f"{nr_done} commands, {nr_flushes} flushes", flush=True)
        self.assertGreater(nr_flushes, 0)


if __name__ == "__main__":
    ferrule.main()
