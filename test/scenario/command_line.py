#!/usr/bin/env python3
"""The command line: every noun, its help, errors that say what to do, and the daemon's own options."""
import json
import os
import re
import signal
import socket
import subprocess

import ferrule

NQN = "nqn.2026-01.io.ferrule:c"


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=ferrule.DEADLINE)


class CommandLine(ferrule.Case):
    def test_devices_and_exports_by_hand(self):
        daemon = self.daemon("--ephemeral")
        cli = daemon.cli
        self.assertEqual(cli("bdev", "create-malloc", "m0", "64M").stdout, "m0\n")
        self.assertEqual(cli("bdev", "create-null", "n0", "1T", "--block-size=4K").stdout, "n0\n")
        daemon.make_file("disk", 16 * ferrule.MIB)
        self.assertEqual(cli("bdev", "create-file", "f0", "disk").stdout, "f0\n")
        lines = cli("bdev", "list").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["NAME", "m0", "n0", "f0"])
        self.assertIn("1 TiB", lines[2])
        cli("transport", "create", "TCP")
        cli("subsystem", "create", NQN, "--serial", "S1", "--allow-any-host")
        self.assertEqual(cli("namespace", "add", NQN, "m0", "--nsid", "3").stdout, "3\n")
        port = ferrule.listen(daemon.rpc(), NQN)
        cli("host", "add", NQN, "nqn.2026-01.io.ferrule:h")
        cli("host", "allow-any", NQN, "off")
        self.assertIn("nqn.2026-01.io.ferrule:h", cli("host", "list", NQN).stdout)
        self.assertIn(str(port), cli("listener", "list", NQN).stdout)
        self.assertEqual(json.loads(cli("subsystem", "show", NQN).stdout)["serial_number"], "S1")
        self.assertEqual(json.loads(cli("namespace", "list", NQN, "--json").stdout)[0]["nsid"], 3)
        self.assertIn("no controllers", cli("subsystem", "controllers", NQN).stdout)
        self.assertIn("3 devices", cli("status").stdout)
        self.assertEqual(json.loads(cli("--json", "status").stdout)["reactors"]["pid"], daemon.process.pid)
        cli("listener", "remove", NQN, f"127.0.0.1:{port}")
        cli("namespace", "remove", NQN, "3")
        cli("host", "remove", NQN, "nqn.2026-01.io.ferrule:h")
        cli("subsystem", "delete", NQN)
        for name in ["m0", "n0", "f0"]:
            cli("bdev", "delete", name)
        self.assertEqual(cli("bdev", "list").stdout, "no devices\n")
        cli("log", "level", "DEBUG")
        self.assertEqual(cli("log", "level").stdout, "DEBUG\n")
        self.assertEqual(json.loads(cli("rpc", "log_get_level").stdout), "DEBUG")
        self.assertEqual(json.loads(cli("rpc", "bdev_null_create",
                                        '{"name":"r","block_size":512,"num_blocks":8}').stdout), "r")

    def test_errors_say_what_to_do(self):
        daemon = self.daemon("--ephemeral")
        for args, code, said in [(["bdev", "delete", "x"], 1, "No such device"),
                                 (["bdev", "create-file", "f", "/etc/passwd"], 1, "outside of the folders"),
                                 (["bdev", "create-file", "f", "none"], 1, "truncate -s"),
                                 (["bdev", "create-malloc", "m", "1000"], 2, "multiple of the block size"),
                                 (["bdev", "create-malloc", "m", "huge"], 2, "no size"),
                                 (["bdev", "create-malloc", "m"], 2, "SIZE is missing"),
                                 (["bdev", "list", "a", "b"], 2, "one argument too many"),
                                 (["bdev", "list", "--colour"], 2, "no option --colour"),
                                 (["bdev", "paint"], 2, "no verb"), (["paint"], 2, "no noun"),
                                 (["host", "allow-any", NQN, "maybe"], 2, "on or off"),
                                 (["rpc", "log_get_level", "{"], 2, "no JSON"),
                                 (["rpc", "nope"], 1, "Method not found")]:
            with self.subTest(args=args):
                result = daemon.cli(*args, check=False)
                self.assertEqual(result.returncode, code, result.stderr)
                self.assertIn(said, result.stderr)

    def test_a_volume_gets_no_name_in_another_store(self):
        daemon = self.daemon("--ephemeral")
        for disk in ["d", "e"]:
            daemon.cli("bdev", "create-malloc", disk, "64M")
            daemon.rpc()("bdev_lvol_create_lvstore", {"bdev_name": disk, "lvs_name": "store-" + disk})
        daemon.cli("volume", "create", "store-d/v", "4M")
        uuid = daemon.rpc()("bdev_get_bdevs", {"name": "store-d/v"})[0]["name"]
        daemon.cli("volume", "snapshot", uuid, "store-d/s")
        for verb, of in [("rename", "store-d/v"), ("rename", uuid), ("snapshot", "store-d/v"), ("clone", "store-d/s")]:
            with self.subTest(verb=verb, of=of):
                result = daemon.cli("volume", verb, of, "store-e/x", check=False)
                self.assertEqual(result.returncode, 1)
                self.assertIn("is in store store-d", result.stderr)
        daemon.cli("volume", "rename", uuid, "store-d/w")
        daemon.cli("volume", "clone", "store-d/s", "c")
        self.assertEqual(sorted(v["alias"] for v in daemon.rpc()("bdev_lvol_get_lvols")),
                         ["store-d/c", "store-d/s", "store-d/w"])

    def test_errors_in_json(self):
        result = self.daemon("--ephemeral").cli("--json", "rpc", "bdev_get_bdevs", '{"name":"x"}', check=False)
        self.assertEqual((result.returncode, json.loads(result.stdout)["code"]), (1, -19))

    def test_without_a_daemon_it_says_where_it_looked(self):
        result = run(ferrule.FERRULE, "--socket", "/nonexistent/sock", "status")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nonexistent/sock", result.stderr)
        self.assertIn("start ferruled", result.stderr)

    def test_every_noun_and_verb_has_help(self):
        nouns = run(ferrule.FERRULE, "--complete").stdout.split()
        self.assertIn("volume", nouns)
        for noun in nouns:
            if noun == "nvme":
                continue
            self.assertEqual(run(ferrule.FERRULE, noun, "--help").returncode, 0, noun)
            for verb in run(ferrule.FERRULE, "--complete", noun).stdout.split():
                result = run(ferrule.FERRULE, noun, verb, "--help")
                self.assertEqual(result.returncode, 0)
                self.assertIn(f"Usage: ferrule {noun} {verb}", result.stdout)
        self.assertEqual(run(ferrule.FERRULE, "--help").returncode, 0)
        self.assertEqual(run(ferrule.FERRULE).returncode, 2)
        self.assertIn("ferrule 0", run(ferrule.FERRULE, "--version").stdout)

    def test_the_daemons_options(self):
        self.assertIn("--file-dir", run(ferrule.FERRULED, "--help").stdout)
        self.assertIn("ferruled 0", run(ferrule.FERRULED, "--version").stdout)
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../packaging/man/ferruled.8")) as page:
            manual = page.read().replace("\\-", "-")
        for option in re.findall(r"^ +(--[a-z-]+)", run(ferrule.FERRULED, "--help").stdout, re.M):
            if option not in ("--help", "--version"):
                self.assertIn(option, manual)
        for args in [["--nonsense"], ["extra"], ["--mem", "many"], ["--log-level", "loud"], ["--idle-us", "-1"],
                     ["--mem"]]:
            with self.subTest(args=args):
                self.assertEqual(run(ferrule.FERRULED, *args).returncode, 2)

    def test_what_cannot_be_started_says_why(self):
        for args, said in [(["--cores", "x"], "no list of cores"), (["--cores", "1000"], "no core 1000"),
                           (["--http", "nowhere"], "ADDR:PORT"), (["--rpc-socket", "/" + "x" * 120], "at most")]:
            with self.subTest(args=args):
                daemon = self.daemon("--ephemeral", start=False)
                daemon.spawn(*args)
                self.assertEqual(daemon.wait(), 1)
                self.assertIn(said, daemon.log())

    def test_the_service_manager_is_told(self):
        daemon = self.daemon("--ephemeral", start=False)
        path = os.path.join(daemon.dir, "notify")
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.settimeout(ferrule.DEADLINE)
        manager.bind(path)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            daemon.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        self.assertEqual(manager.recv(100), b"READY=1")
        daemon.stop()
        self.assertEqual(manager.recv(100), b"STOPPING=1")
        manager.close()

    def test_two_cores(self):
        if len(os.sched_getaffinity(0)) < 2:
            self.skipTest("there is one core")
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
        daemon = self.daemon("--ephemeral", "--cores", cores)
        rpc = daemon.rpc()
        self.assertEqual(len(rpc("framework_get_reactors")["reactors"]), 2)
        rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 8192})
        port = ferrule.export(rpc, "m")
        ferrule.nvme(port, "write", "--length", "4096", data=b"2" * 4096)
        self.assertEqual(ferrule.nvme(port, "read", "--length", "4096"), b"2" * 4096)
        daemon.stop()

    def test_a_load_visits_each_place_once(self):
        rpc = self.daemon("--ephemeral").rpc()
        rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 65536})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "m", "lvs_name": "s", "cluster_sz": 32768, "journal_pages": 16})
        rpc("bdev_lvol_create", {"lvs_name": "s", "lvol_name": "v", "size_in_mib": 5, "thin_provision": True})
        port = ferrule.export(rpc, "s/v")
        out = subprocess.run([ferrule.FERRULE, "nvme", "perf", "-a", "127.0.0.1", "-s", str(port), "-n", "nqn.2026-01.io.ferrule:t",
                              "--bs", "32K", "--read", "0", "--once", "--qd", "4", "--queues", "2", "--time", "60", "--json"],
                             stdout=subprocess.PIPE, check=True, timeout=ferrule.DEADLINE)
        self.assertEqual(json.loads(out.stdout)["ops"], 160)
        volume, = rpc("bdev_lvol_get_lvols", {"lvs_name": "s"})
        self.assertEqual(volume["num_allocated_clusters"], 160)


class Ending(ferrule.Case):
    def test_a_call_under_way_is_answered_before_the_end(self):
        daemon = self.daemon()
        rpc = daemon.rpc()
        rpc.send("bdev_get_bdevs", {"name": "never", "timeout": 3600000}, id="waits")
        rpc.send("log_get_level", id="quick")
        self.assertEqual(rpc.receive()["id"], "quick")
        for i in range(50):
            rpc.send("bdev_null_create", {"name": f"e{i}", "block_size": 512, "num_blocks": 8}, id=i)
        daemon.process.send_signal(signal.SIGTERM)
        answered = {}
        try:
            while True:
                answer = rpc.receive()
                answered[answer["id"]] = answer
        except (EOFError, ConnectionResetError):
            pass
        self.assertEqual(daemon.wait(), 0)
        self.assertEqual(answered["waits"]["error"]["code"], -110)
        made = {f"e{i}" for i in range(50) if "result" in answered.get(i, {})}
        daemon.start()
        self.assertLessEqual(made, {b["name"] for b in daemon.rpc()("bdev_get_bdevs")})

    def test_the_end_comes_under_load(self):
        daemon = self.daemon("--ephemeral")
        rpc = daemon.rpc()
        rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 32768})
        port = ferrule.export(rpc, "m")
        load = subprocess.Popen([ferrule.FERRULE, "nvme", "perf", "-a", "127.0.0.1", "-s", str(port), "-n",
                                 "nqn.2026-01.io.ferrule:t", "--time", "60"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        self.addCleanup(load.kill)
        while rpc("bdev_get_iostat", {"names": ["m"]})["bdevs"][0]["num_read_ops"] < 1000:
            self.assertIsNone(load.poll())
        daemon.stop()
        load.wait(ferrule.DEADLINE)

    def test_the_end_comes_with_idle_and_half_open_clients(self):
        daemon = self.daemon()
        clients = [daemon.rpc() for _ in range(10)]
        for client in clients:
            client.send_bytes(b'{"id":1,')
        raw = [socket.create_connection(("127.0.0.1", daemon.http_port())) for _ in range(5)]
        daemon.stop()
        self.assertFalse(os.path.exists(daemon.socket_path))
        for s in raw:
            s.close()


if __name__ == "__main__":
    ferrule.main()
