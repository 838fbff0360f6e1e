"""What tools/bench measures of stores and volumes: first writes, snapshots, checksums, memory, restarts, background work.

Each part starts a daemon of its own, so that no part meets what another left; what is compared runs in turn in one daemon.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time

NQN = "nqn.2026-11.ferrule.bench:"
FIRST_MIB = 1024     # a volume whose every 4 KiB is written once
PEER_FIRST_MIB = 256
JOURNAL_PAGES = 512  # so small that FIRST_MIB of first writes come across several checkpoints
IDLE_VOLUMES = 20000
RESTART_VOLUMES = 100000


class Daemon:
    """ferruled with a socket and a port, until the end of a with block."""

    def __init__(self, bench, args, folder, saved=False):
        self.bench, self.args, self.folder, self.saved = bench, args, folder, saved
        self.sock = os.path.join(folder, "rpc.sock")
        self.port = bench.free_port()
        self.proc = None

    def __enter__(self):
        self.start()
        return self

    def start(self):
        cmd = [os.path.join(self.args.build, "ferruled"), "--cores", str(self.args.target_core), "--no-huge", "--state-dir",
               self.folder, "--keep-dir", os.path.join(self.folder, "keep"), "--file-dir", self.folder, "--rpc-socket", self.sock,
               "--http", "none"]
        log = open(os.path.join(self.folder, "log"), "a")
        begin = time.perf_counter()
        self.proc = subprocess.Popen(cmd + ([] if self.saved else ["--ephemeral"]) + self.args.daemon_option, stdout=subprocess.PIPE,
                                     stderr=log, text=True)
        self.bench.set_nice(self.args, self.proc.pid)
        if not self.proc.stdout.readline().startswith("ready"):
            self.bench.die("ferruled did not start:\n" + open(log.name).read()[-2000:])
        self.ready_s = time.perf_counter() - begin
        self.rpc = self.bench.Rpc(self.sock)
        self.call = self.rpc.call
        return self.ready_s

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def __exit__(self, *_):
        if self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def export(self, name, bdev):
        nqn = NQN + name
        if not any(t["trtype"].upper() == "TCP" for t in self.call("nvmf_get_transports")):
            self.call("nvmf_create_transport", trtype="TCP")
        self.call("nvmf_create_subsystem", nqn=nqn, allow_any_host=True, serial_number="BENCH")
        self.call("nvmf_subsystem_add_ns", nqn=nqn, namespace={"bdev_name": bdev})
        self.call("nvmf_subsystem_add_listener", nqn=nqn,
                  listen_address={"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(self.port)})
        return nqn

    def host_command(self, nqn, *options):
        return [os.path.join(self.args.build, "ferrule"), "nvme", "perf", "-a", "127.0.0.1", "-s", str(self.port), "-n", nqn, "--core",
                str(self.args.host_core), "--json", *options]

    def perf(self, nqn, *options):
        """The host's report, and the share of the time for which the target waited for a CPU."""
        before = self.bench.threads_time(self.proc.pid)
        proc = subprocess.Popen(self.host_command(nqn, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.bench.set_nice(self.args, proc.pid)
        out, err = proc.communicate()
        if proc.returncode:
            self.bench.die("the host: " + err)
        result = json.loads(out)
        after = self.bench.threads_time(self.proc.pid)
        result["wait"] = (after[1] - before[1]) / max(result["seconds"], 0.001)
        return result

    def malloc(self, name, mib):
        """Memory that has been touched: the first touch is not what is measured."""
        self.call("bdev_malloc_create", name=name, num_blocks=mib << 11, block_size=512)
        nqn = self.export("fill-" + name, name)
        self.perf(nqn, "--qd", "8", "--bs", "128K", "--read", "0", "--sequential", "--ops", str(mib * 8), "--time", "600")
        self.call("nvmf_delete_subsystem", nqn=nqn)

    def rss(self):
        with open("/proc/%d/status" % self.proc.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) * 1024

    def make_store(self, bdev, name):
        self.call("bdev_lvol_create_lvstore", bdev_name=bdev, lvs_name=name, journal_pages=JOURNAL_PAGES)

    def generation(self, store):
        """Of the newest checkpoint, which an online check tells."""
        return self.call("bdev_lvol_check_lvstore", lvs_name=store)["generation"]


class Peer(Daemon):
    """A second target that is there already and takes the same calls (--peer-rpc SOCKET,PID); stopped outside the with block."""

    def __init__(self, bench, args):
        path, pid = args.peer_rpc.split(",")
        self.bench, self.args, self.pid = bench, args, int(pid)
        self.port = bench.free_port()
        os.kill(self.pid, signal.SIGCONT)
        self.rpc = bench.Rpc(path)
        self.proc = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.rpc.call("bdev_lvol_delete_lvstore", lvs_name="first")
        self.rpc.call("bdev_malloc_delete", name="Base")
        os.kill(self.pid, signal.SIGSTOP)

    def call(self, method, **params):
        return self.rpc.call(method, **params)

    def make_store(self, bdev, name):
        self.call("bdev_lvol_create_lvstore", bdev_name=bdev, lvs_name=name, cluster_sz=1 << 20, clear_method="none")

    def generation(self, store):
        return 0


def say(row, text, **values):
    print("%-36s %s" % (row, text), flush=True)
    return dict(row=row, **values)


def spread(values):
    return "%.2f (%.2f to %.2f)" % (statistics.median(values), min(values), max(values))


# --- first writes ------------------------------------------------------------------------------------------------------------


def first_writes_of(d, args, slow, mib, rounds):
    """Each 4 KiB of a fresh volume once, then again; a snapshot, then once more and again: the rates, for each round."""
    rates, waits, checkpoints = [], [], 0
    d.malloc("Base", mib * 2 * rounds * 9 // 8 + 64)
    base = "Base"
    if slow:
        base = "Slow"
        d.call("bdev_delay_create", name=base, base_bdev_name="Base", avg_read_latency=80, p99_read_latency=80, avg_write_latency=15,
               p99_write_latency=15)
    d.make_store(base, "first")
    for n in range(rounds):
        volume = "v%d" % n
        d.call("bdev_lvol_create", lvs_name="first", lvol_name=volume, size_in_mib=mib, thin_provision=True)
        nqn = d.export(volume, "first/" + volume)
        options = ("--qd", "32", "--bs", "4096", "--read", "0", "--once", "--time", "600", "--seed")
        before = d.generation("first")
        r = [d.perf(nqn, *options, "1")]
        checkpoints = d.generation("first") - before
        r.append(d.perf(nqn, *options, "2"))
        d.call("bdev_lvol_snapshot", lvol_name="first/" + volume, snapshot_name="s%d" % n)
        r += [d.perf(nqn, *options, "3"), d.perf(nqn, *options, "4")]
        rates.append([x["iops"] for x in r])
        waits.append(max(x["wait"] for x in r))
        d.call("nvmf_delete_subsystem", nqn=nqn)
    return rates, max(waits), checkpoints


def say_first_writes(prefix, slow, rates, wait, checkpoints):
    on = "delay" if slow else "malloc"
    first, after = [r[1] / r[0] for r in rates], [r[3] / r[2] for r in rates]
    k = [statistics.median(column) / 1000 for column in zip(*rates)]
    more = ", %d checkpoints" % checkpoints if checkpoints else ""
    return [say(prefix + "first-writes-" + on, "%4.1f k, overwrites %4.0f k: %s times%s, waited for a CPU %.0f %%" % (
                k[0], k[1], spread(first), more, 100 * wait),
                iops=k[0] * 1000, ratio=statistics.median(first), spread=[min(first), max(first)], checkpoints=checkpoints, wait=wait),
            say(prefix + "after-snapshot-" + on, "%4.1f k, overwrites %4.0f k: %s times" % (k[2], k[3], spread(after)),
                iops=k[2] * 1000, ratio=statistics.median(after), spread=[min(after), max(after)], wait=wait)]


def first_writes(bench, args, slow):
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder) as d:
        out = say_first_writes("", slow, *first_writes_of(d, args, slow, FIRST_MIB, args.rounds))
    if slow or not args.peer_rpc:
        return out
    with Peer(bench, args) as d:
        return out + say_first_writes("peer-", False, *first_writes_of(d, args, False, PEER_FIRST_MIB, 1))


# --- snapshots under load ----------------------------------------------------------------------------------------------------


def snapshots_under_load(bench, args):
    """A snapshot and a clone ten times a second, under 32 random reads and writes in flight; the host fails if one of them does."""
    calls = {"snapshot": [], "clone": [], "resize": []}
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder) as d:
        d.malloc("Base", 64 * 10 * (args.time + 1) + 256)
        d.call("bdev_lvol_create_lvstore", bdev_name="Base", lvs_name="load")
        d.call("bdev_lvol_create", lvs_name="load", lvol_name="v", size_in_mib=64, thin_provision=True)
        nqn = d.export("load", "load/v")
        d.perf(nqn, "--qd", "8", "--bs", "128K", "--read", "0", "--sequential", "--ops", "512", "--time", "60")
        options = ("--qd", "32", "--bs", "4096", "--read", "50", "--time", str(args.time))
        without = d.perf(nqn, *options)
        host = subprocess.Popen(d.host_command(nqn, *options), stdout=subprocess.PIPE, text=True)
        bench.set_nice(args, host.pid)
        for n in range(args.time * 10 - 5):
            time.sleep(0.1)
            calls["snapshot"].append(d.rpc.seconds("bdev_lvol_snapshot", [dict(lvol_name="load/v", snapshot_name="s%d" % n)]))
            calls["clone"].append(d.rpc.seconds("bdev_lvol_clone", [dict(snapshot_name="load/s%d" % n, clone_name="c%d" % n)]))
            calls["resize"].append(d.rpc.seconds("bdev_lvol_resize", [dict(name="load/c%d" % n, size_in_mib=65)]))
        out, _ = host.communicate()
        if host.returncode:
            bench.die("an I/O failed under snapshots")
        with_them = json.loads(out)
    text = ", ".join("%s %.2f ms (at most %.2f)" % (k, statistics.median(v) * 1e3, max(v) * 1e3) for k, v in calls.items())
    return [say("calls-under-load", text, **{k + "_ms": statistics.median(v) * 1e3 for k, v in calls.items()}),
            say("load-under-snapshots", "p99 %.0f us, p99.9 %.0f us, p99.99 %.0f us; without them %.0f, %.0f, %.0f us; none of %d failed" % (
                *(with_them["latency_us"][k] for k in ("p99", "p99.9", "p99.99")),
                *(without["latency_us"][k] for k in ("p99", "p99.9", "p99.99")), with_them["ops"]),
                p999_us=with_them["latency_us"]["p99.9"], without_p999_us=without["latency_us"]["p99.9"])]


# --- checksums ---------------------------------------------------------------------------------------------------------------


def checksums(bench, args):
    """Random reads with and without, in turn; then, after a restart, how many reads of the device a read takes."""
    out = []
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder) as d:
        nqns = {}
        for name, sums in (("plain", False), ("sums", True)):
            d.malloc("Base-" + name, 640)
            d.call("bdev_lvol_create_lvstore", bdev_name="Base-" + name, lvs_name=name, checksums=sums)
            d.call("bdev_lvol_create", lvs_name=name, lvol_name="v", size_in_mib=512, thin_provision=True)
            nqns[name] = d.export(name, name + "/v")
            d.perf(nqns[name], "--qd", "8", "--bs", "128K", "--read", "0", "--sequential", "--ops", "4096", "--time", "60")
        for depth in (32, 128):
            ratios, waits, iops = [], [], {"plain": [], "sums": []}
            for n in range(args.rounds):
                for name in ("plain", "sums") if n % 2 == 0 else ("sums", "plain"):
                    r = d.perf(nqns[name], "--qd", str(depth), "--bs", "4096", "--time", str(args.time))
                    iops[name].append(r["iops"])
                    waits.append(r["wait"])
                ratios.append(iops["sums"][-1] / iops["plain"][-1])
            out.append(say("checksums-read-qd%d" % depth, "%.0f k with, %.0f k without: %s" % (
                statistics.median(iops["sums"]) / 1000, statistics.median(iops["plain"]) / 1000, spread(ratios)) +
                ", waited for a CPU %.0f %%" % (100 * max(waits)), ratio=statistics.median(ratios), spread=[min(ratios), max(ratios)],
                wait=max(waits)))
    return out + [checksums_cold(bench, args)]


def checksums_cold(bench, args):
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder, saved=True) as d:
        path = os.path.join(folder, "disk")
        with open(path, "wb") as f:
            f.truncate(40 << 30)
        d.call("bdev_uring_create", name="Disk", filename=path, block_size=4096)
        d.call("bdev_lvol_create_lvstore", bdev_name="Disk", lvs_name="cold", checksums=True)
        d.call("bdev_lvol_create", lvs_name="cold", lvol_name="v", size_in_mib=32 << 10, thin_provision=True)
        nqn = d.export("cold", "cold/v")
        # 4 KiB in each cluster: each has a page of checksums of its own.
        nr = 8192
        d.perf(nqn, "--qd", "32", "--bs", "4096", "--read", "0", "--seed", "7", "--ops", str(nr), "--time", "120")
        time.sleep(2)
        d.kill()
        d.start()
        time.sleep(5)  # what the kill left unsettled is read once

        def reads(bdev):
            return d.call("bdev_get_iostat", name=bdev)["bdevs"][0]["num_read_ops"]

        before = reads("Disk")
        r = d.perf(nqn, "--qd", "1", "--bs", "4096", "--seed", "7", "--ops", str(nr), "--time", "120")
        per = (reads("Disk") - before) / r["ops"]
    return say("checksums-cold", "%.2f reads of the device for each of %d reads after a restart" % (per, r["ops"]), reads=per)


# --- memory and restarts -----------------------------------------------------------------------------------------------------


def idle_memory(bench, args):
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder) as d:
        d.malloc("Base", 1024)
        d.call("bdev_lvol_create_lvstore", bdev_name="Base", lvs_name="idle")
        make = [dict(lvs_name="idle", lvol_name="v%d" % i, size_in_mib=1024, thin_provision=True) for i in range(2 * IDLE_VOLUMES)]
        d.rpc.seconds("bdev_lvol_create", make[:IDLE_VOLUMES], 64)
        before = d.rss()
        d.rpc.seconds("bdev_lvol_create", make[IDLE_VOLUMES:], 64)
        each = (d.rss() - before) / IDLE_VOLUMES
    return [say("memory-idle-volume", "%.0f bytes (of %d more volumes)" % (each, IDLE_VOLUMES), bytes=each)]


def restart(bench, args):
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder, saved=True) as d:
        path = os.path.join(folder, "disk")
        with open(path, "wb") as f:
            f.truncate(8 << 30)
        d.call("bdev_uring_create", name="Disk", filename=path, block_size=4096)
        d.call("bdev_lvol_create_lvstore", bdev_name="Disk", lvs_name="many", cluster_sz=32768)
        d.rpc.seconds("bdev_lvol_create", [dict(lvs_name="many", lvol_name="v%d" % i, size_in_mib=1, thin_provision=True)
                                           for i in range(RESTART_VOLUMES)], 64)
        d.kill()
        begin = time.perf_counter()
        d.start()
        last = "many/v%d" % (RESTART_VOLUMES - 1)
        while True:
            try:
                d.call("bdev_wait_for_examine")
                if d.call("bdev_get_bdevs", name=last):
                    break
            except SystemExit:
                d.rpc = bench.Rpc(d.sock)
                d.call = d.rpc.call
            if time.perf_counter() - begin > 60:
                bench.die("after a minute there is no " + last)
        seconds = time.perf_counter() - begin
        rss = d.rss()
    return [say("restart-100000-volumes", "%.2f s from kill -9 to the last volume, %.0f MiB" % (seconds, rss / 2**20), s=seconds,
                mib=rss / 2**20)]


def management_saved(bench, args):
    """The calls of tools/bench once more, with state that is saved."""
    with tempfile.TemporaryDirectory(prefix="ferrule-bench.") as folder, Daemon(bench, args, folder, saved=True) as d:
        d.malloc("Base", 600)
        d.call("bdev_lvol_create_lvstore", bdev_name="Base", lvs_name="bench")
        d.call("bdev_lvol_create", lvs_name="bench", lvol_name="thin", size_in_mib=bench.VOLUME_MIB, thin_provision=True)
        return bench.management_rows(args, d.rpc, "saved-")


# --- without a daemon --------------------------------------------------------------------------------------------------------


def program(bench, args, *cmd):
    proc = subprocess.Popen([os.path.join(args.build, cmd[0]), *cmd[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    bench.set_nice(args, proc.pid)
    out, _ = proc.communicate()
    if proc.returncode:
        bench.die("%s ended with %d" % (" ".join(cmd), proc.returncode))
    return out


def figures(out, what):
    """All of storebench's lines that begin so: microseconds, and of them those with a CPU."""
    lines = re.findall("^" + re.escape(what) + r"\s+([\d.]+)(?: +MiB.*|\s+CPU (\d+))?", out, re.M)
    return [(float(a), float(b or 0)) for a, b in lines]


def stores(bench, args):
    out = []
    for tib in (1, 16):
        text = program(bench, args, "tools/storebench", "--recovery", str(tib))
        (wall, cpu), = figures(text, "open after a kill")
        memory = figures(text, "after those")[0][0]
        out.append(say("recovery-%d-tib" % tib, "%.2f s (CPU %.2f s)" % (wall / 1e6, cpu / 1e6), s=wall / 1e6, cpu_s=cpu / 1e6))
        (wall, cpu), = figures(text, "exclusive space, most of the map not in memory")
        out.append(say("exclusive-%d-tib-cold" % tib, "%.1f ms for each TiB (CPU %.1f ms)" % (wall / 1e3 / tib, cpu / 1e3 / tib),
                       ms=wall / 1e3 / tib))
        out.append(say("memory-%d-tib" % tib, "%.1f MiB for each TiB, 4 KiB written in each cluster and all read" % (memory / tib),
                       mib=memory / tib))
    text = program(bench, args, "tools/storebench", "--recovery", "1", "16")
    out.append(say("memory-1-tib-cache-16-mib", "%.1f MiB" % figures(text, "after those")[0][0], mib=figures(text, "after those")[0][0]))
    text = program(bench, args, "tools/storebench", "1", "100000")
    for row, what in (("snapshot-1-tib", "snapshot"), ("clones-100", "100 clones"),
                      ("exclusive-1-tib", "exclusive space, all its own"), ("exclusive-1-tib-shared", "exclusive space")):
        worst = max(figures(text, what))
        out.append(say(row, "%.3f ms (CPU %.3f ms)" % (worst[0] / 1e3, worst[1] / 1e3), ms=worst[0] / 1e3))
    depth = {int(a): float(b) for a, b in re.findall(r"clone depth\s+(\d+).*?, ([\d.]+) of those", text)}
    out.append(say("reads-at-clone-depth", "1: 1.00, 10: %.2f, 100: %.2f" % (depth[10], depth[100]), depth10=depth[10],
                   depth100=depth[100]))
    text = program(bench, args, "tools/storebench", "--deletes", "1")
    worst, space = max(figures(text, "delete, beside first writes: answer")), max(figures(text, "... space back"))
    out.append(say("delete-1-tib", "answer %.2f ms at most, space back %.2f s" % (worst[0] / 1e3, space[0] / 1e6), ms=worst[0] / 1e3,
                   s=space[0] / 1e6))
    return out


def background(bench, args):
    out = []
    for kind, size, more in (("scrub", 512, []), ("inflate", 512, []), ("free", 256, ["--cluster", "32768"]),
                             ("checkpoint", 256, ["--cluster", "32768"]), ("snapshot", 64, [])):
        for slow in ([], ["--delay"]):
            text = program(bench, args, "tools/bdevbench", "--background", kind, "--rw", "randrw", "--read-percent", "50", "--qd", "32",
                           "--time", "1", "--rounds", "5", "--size", str(size), "--cores", str(args.target_core), "--json", *more, *slow)
            r = json.loads(text)
            out.append(say("beside-%s-%s" % (kind, "delay" if slow else "malloc"),
                           "p99 %.2f of that without (%.2f to %.2f), longest pause %.2f ms, without %.2f ms" % (
                               r["p99_ratio"], r["p99_ratio_min"], r["p99_ratio_max"], r["pause_us"] / 1e3,
                               r["pause_without_us"] / 1e3), **r))
    return out


def local_peer(bench, args):
    """A written volume over malloc on one core, beside the peer's program (--peer-bdevperf)."""
    path, config, bdev = args.peer_bdevperf.split(",")
    out = []
    for rw in ("randread", "randwrite"):
        ratios, ours, peer = [], [], []
        for _ in range(args.rounds):
            text = program(bench, args, "tools/bdevbench", "--bdev", "lvol", "--rw", rw, "--bs", "4096", "--qd", "128", "--time",
                           str(args.time), "--cores", str(args.target_core), "--json")
            ours.append(json.loads(text)["iops"])
            proc = subprocess.Popen([path, "-c", config, "-q", "128", "-o", "4096", "-w", rw, "-t", str(args.time), "-m",
                                     hex(1 << args.target_core), "--no-huge", "-s", "2048", "-T", bdev],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            bench.set_nice(args, proc.pid)
            text, _ = proc.communicate()
            m = re.search(r"Total\s*:\s*([\d.]+)", text)
            if not m:
                bench.die("no result from %s:\n%s" % (path, text[-1000:]))
            peer.append(float(m[1]))
            ratios.append(ours[-1] / peer[-1])
        out.append(say("local-volume-" + rw, "%.2f M, the peer %.2f M: %s" % (statistics.median(ours) / 1e6,
                                                                             statistics.median(peer) / 1e6, spread(ratios)),
                       ratio=statistics.median(ratios), spread=[min(ratios), max(ratios)]))
    return out


def parts(args):
    """By name; each is called with tools/bench and its options, and returns rows."""
    out = {
        "first-writes": lambda b, a: first_writes(b, a, False) + first_writes(b, a, True),
        "snapshots": snapshots_under_load,
        "checksums": checksums,
        "idle": idle_memory,
        "restart": restart,
        "saved": management_saved,
        "stores": stores,
        "background": background,
    }
    if args.peer_bdevperf:
        out["local"] = local_peer
    return out


def rows(bench, args):
    results = []
    for name, part in parts(args).items():
        if re.search(args.storage, name):
            results += part(bench, args)
    return results
