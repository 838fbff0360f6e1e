#!/usr/bin/env python3
"""Stores and volumes through the daemon: shapes and errors, restarts, kills, full stores, a thousand of them."""
import contextlib
import socket
import json
import os
import re
import subprocess
import time

import ferrule
from ferrule import MIB

NQN = "nqn.2026-01.io.ferrule:t"
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


class Volumes(ferrule.Case):
    def store(self, daemon, size=256 * MIB, name="pool"):
        rpc = daemon.rpc()
        daemon.make_file(name, size)
        rpc("bdev_uring_create", {"name": "disk-" + name, "filename": name, "block_size": 512})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk-" + name, "lvs_name": name})
        return rpc

    def test_stores_as_they_are_shown_and_refused(self):
        daemon = self.daemon("--ephemeral")
        rpc = daemon.rpc()
        daemon.make_file("disk", 256 * MIB)
        rpc("bdev_uring_create", {"name": "d", "filename": "disk"})
        uuid = rpc("bdev_lvol_create_lvstore", {"bdev_name": "d", "lvs_name": "lvs0", "cluster_sz": 4 * MIB,
                                                "clear_method": "none"})
        self.assertRegex(uuid, UUID)
        store = rpc("bdev_lvol_get_lvstores", {"lvs_name": "lvs0"})[0]
        self.assertEqual((store["uuid"], store["name"], store["base_bdev"], store["cluster_size"], store["block_size"]),
                         (uuid, "lvs0", "d", 4 * MIB, 512))
        self.assertGreater(store["total_data_clusters"], 50)
        self.assertLessEqual(store["free_clusters"], store["total_data_clusters"])
        self.assertGreater(store["max_growable_size"], 0)
        self.assertEqual(rpc("bdev_lvol_get_lvstores", {"uuid": uuid}), [store])
        self.assertEqual(rpc("bdev_lvol_get_lvstores"), [store])
        self.assertTrue(rpc("bdev_get_bdevs", {"name": "d"})[0]["claimed"])
        create = "bdev_lvol_create_lvstore"
        self.assert_error(-1, "Operation not permitted", rpc, create, {"bdev_name": "d", "lvs_name": "x"},
                          parameter="bdev_name")
        self.assert_error(-19, "No such device", rpc, create, {"bdev_name": "none", "lvs_name": "x"}, parameter="bdev_name")
        rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 131072})
        self.assert_error(-32602, "File exists", rpc, create, {"bdev_name": "m", "lvs_name": "lvs0"}, parameter="lvs_name")
        self.assert_error(-32602, "Invalid argument", rpc, create,
                          {"bdev_name": "m", "lvs_name": "x", "cluster_sz": 1000000}, parameter="cluster_sz")
        self.assert_error(-19, "No such device", rpc, "bdev_lvol_get_lvstores", {"lvs_name": "x"}, parameter="lvs_name")
        self.assert_error(-22, "Invalid argument", rpc, "bdev_lvol_delete_lvstore", {"lvs_name": "lvs0", "uuid": uuid})
        self.assert_error(-32603, "spdk_json_decode_object failed", rpc, create, {"bdev_name": "m"}, parameter="lvs_name")
        self.assertTrue(rpc("bdev_lvol_delete_lvstore", {"uuid": uuid}))
        self.assertEqual(rpc("bdev_lvol_get_lvstores"), [])
        self.assertFalse(rpc("bdev_get_bdevs", {"name": "d"})[0]["claimed"])

    def test_volumes_as_they_are_shown_and_refused(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.store(daemon)
        uuid = rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 100, "thin_provision": True,
                                        "clear_method": "none"})
        self.assertRegex(uuid, UUID)
        bdev = rpc("bdev_get_bdevs", {"name": "pool/v"})[0]
        self.assertEqual((bdev["name"], bdev["aliases"], bdev["uuid"], bdev["product_name"]),
                         (uuid, ["pool/v"], uuid, "Logical Volume"))
        self.assertEqual(bdev["block_size"] * bdev["num_blocks"], 100 * MIB)
        lvol = bdev["driver_specific"]["lvol"]
        self.assertEqual((lvol["base_bdev"], lvol["thin_provision"], lvol["num_allocated_clusters"], lvol["snapshot"],
                          lvol["clone"], lvol["esnap_clone"]), ("disk-pool", True, 0, False, False, False))
        listed = rpc("bdev_lvol_get_lvols", {"lvs_name": "pool"})[0]
        self.assertEqual((listed["alias"], listed["uuid"], listed["name"], listed["is_thin_provisioned"],
                          listed["is_snapshot"], listed["is_degraded"], listed["lvs"]["name"]),
                         ("pool/v", uuid, "v", True, False, False, "pool"))
        # older clients give bytes, and sizes as text
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "old", "size": 32 * MIB})
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "text", "size_in_mib": "7"})
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "pool/old"})[0]["num_blocks"], 65536)
        create = lambda **more: rpc("bdev_lvol_create", {"lvol_name": "x", "size_in_mib": 1, "lvs_name": "pool", **more})
        self.assert_error(-17, "File exists", lambda: create(lvol_name="v"), parameter="lvol_name")
        rpc("bdev_null_create", {"name": "pool/other", "block_size": 512, "num_blocks": 8})
        with self.assertRaises(ferrule.RpcError) as raised:
            create(lvol_name="other")
        self.assertIn("has the name pool/other", raised.exception.data["detail"])
        rpc("bdev_null_delete", {"name": "pool/other"})
        self.assert_error(-19, "No such device", lambda: create(lvs_name="none"), parameter="lvs_name")
        self.assert_error(-32602, "No space left on device", lambda: create(size_in_mib=100000), parameter="size_in_mib")
        self.assert_error(-32602, "Invalid argument", lambda: create(lvol_name="a/b"), parameter="lvol_name")
        self.assert_error(-32602, "Invalid argument", lambda: create(lvol_name="a\nb"), parameter="lvol_name")
        self.assert_error(-32602, "File too large", lambda: create(size_in_mib=1 << 40, thin_provision=True))
        self.assert_error(-32602, "Invalid argument", lambda: create(size_in_mib=0), parameter="size_in_mib")
        self.assert_error(-32603, "spdk_json_decode_object failed", rpc, "bdev_lvol_create",
                          {"lvs_name": "pool", "lvol_name": "x"}, parameter="size_in_mib")
        for method in ["bdev_lvol_delete", "bdev_lvol_resize", "bdev_lvol_rename"]:
            params = {"bdev_lvol_delete": {"name": "pool/none"}, "bdev_lvol_resize": {"name": "pool/none", "size_in_mib": 1},
                      "bdev_lvol_rename": {"old_name": "pool/none", "new_name": "y"}}[method]
            self.assert_error(-19, "No such device", rpc, method, params)
        self.assert_error(-32602, "File exists", rpc, "bdev_lvol_rename", {"old_name": "pool/v", "new_name": "old"},
                          parameter="new_name")
        self.assertTrue(rpc("bdev_lvol_rename", {"old_name": "pool/v", "new_name": "w"}))
        self.assertTrue(rpc("bdev_lvol_resize", {"name": uuid, "size_in_mib": 50}))
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "pool/w"})[0]["num_blocks"], 102400)
        self.assertTrue(rpc("bdev_lvol_delete", {"name": "pool/w"}))
        self.assertEqual(sorted(v["name"] for v in rpc("bdev_lvol_get_lvols")), ["old", "text"])

    def test_a_volume_and_its_export_come_back(self):
        daemon = self.daemon()
        rpc = self.store(daemon)
        uuid = rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 64, "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        data = os.urandom(MIB)
        ferrule.nvme(port, "write", "--offset", "1048576", "--length", str(MIB), data=data)
        ferrule.nvme(port, "flush")
        shown = rpc("nvmf_get_subsystems", {"nqn": NQN})
        for end in [daemon.stop, daemon.kill]:
            end()
            daemon.start()
            rpc = daemon.rpc()
            self.assertEqual(rpc("nvmf_get_subsystems", {"nqn": NQN}), shown)
            self.assertEqual(ferrule.nvme(port, "read", "--offset", "1048576", "--length", str(MIB)), data)
            self.assertEqual(ferrule.nvme(port, "read", "--length", str(MIB)), b"\0" * MIB)
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "pool/v"})[0]["name"], uuid)

    def test_deleting_an_exported_volume_takes_its_namespace_for_good(self):
        daemon = self.daemon()
        rpc = self.store(daemon)
        for name in "vw":
            rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": 64, "thin_provision": True})
        ferrule.export(rpc, "pool/v")
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "pool/w"}})
        rpc("bdev_lvol_delete", {"name": "pool/v"})
        self.assertEqual([n["nsid"] for n in rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"]], [2])
        daemon.restart()
        rpc = daemon.rpc()
        self.assertEqual([n["nsid"] for n in rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"]], [2])
        rpc("bdev_lvol_delete_lvstore", {"lvs_name": "pool"})
        self.assertEqual(rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"], [])
        daemon.restart()
        self.assertEqual(daemon.rpc()("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"], [])
        self.assertNotIn("ERROR", daemon.log())

    def test_a_store_whose_file_is_away_comes_back_with_it(self):
        daemon = self.daemon()
        rpc = self.store(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 64, "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        ferrule.nvme(port, "write", "--length", "4096", data=b"w" * 4096)
        ferrule.nvme(port, "flush")
        path = os.path.join(daemon.files, "pool")
        os.rename(path, path + ".away")
        daemon.restart()
        self.assertEqual(daemon.rpc()("bdev_lvol_get_lvstores"), [])
        os.rename(path + ".away", path)
        daemon.restart()
        self.assertEqual(ferrule.nvme(port, "read", "--length", "4096"), b"w" * 4096)

    def test_a_volume_whose_name_is_taken_when_its_store_comes_is_told_of_and_shown_later(self):
        daemon = self.daemon()
        rpc = self.store(daemon)
        uuid = {name: rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": 4,
                                               "thin_provision": True}) for name in ["v", "w"]}
        rpc("nvmf_create_transport", {"trtype": "TCP"})
        rpc("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True})
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": uuid["v"]}})
        rpc("bdev_uring_delete", {"name": "disk-pool"})
        for name in ["v", "w"]:
            rpc("bdev_malloc_create", {"name": f"pool/{name}", "block_size": 512, "num_blocks": 2048})
        rpc("bdev_uring_create", {"name": "disk-pool", "filename": "pool", "block_size": 512})

        def events(type, nr):
            found = []
            while len(found) < nr:
                found = [e for e in rpc("event_get_events")["events"] if e["type"] == type]
            return found

        event = events("volume_hidden", 2)[0]
        self.assertEqual((event["object"], event["data"]), ("pool/v", {"uuid": uuid["v"]}))
        self.assertIn("device pool/v has its name", event["text"])
        listed = {v["name"]: v for v in rpc("bdev_lvol_get_lvols", {"lvs_name": "pool"})}
        self.assertIn("device pool/w has its name", listed["w"]["hidden"])
        self.assertEqual(rpc("bdev_lvol_get_lvstores")[0]["hidden_volumes"], 2)
        self.assertIn("has its name", daemon.cli("volume", "list").stdout)
        error = self.assert_error(-19, "No such device", rpc, "bdev_lvol_resize", {"name": uuid["v"], "size_in_mib": 8},
                                  parameter="name")
        self.assertIn("is not shown", error.data["detail"])
        # one gets another name, of the other the device goes
        self.assertTrue(rpc("bdev_lvol_rename", {"old_name": uuid["w"], "new_name": "x"}))
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "pool/x"})[0]["name"], uuid["w"])
        rpc("bdev_malloc_delete", {"name": "pool/v"})
        events("volume_shown", 2)
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "pool/v"})[0]["name"], uuid["v"])
        self.assertEqual([v["hidden"] for v in rpc("bdev_lvol_get_lvols")], [None, None])
        self.assertTrue(rpc("bdev_lvol_resize", {"name": "pool/v", "size_in_mib": 8}))

    def test_a_store_whose_file_was_cut_is_shown_read_only_with_errors_for_what_is_gone(self):
        daemon = self.daemon()
        rpc = self.store(daemon, size=64 * MIB)
        uuid = rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 40, "thin_provision": True})
        rpc("nvmf_create_transport", {"trtype": "TCP"})
        rpc("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True})
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": uuid, "nsid": 1}})
        port = ferrule.listen(rpc, NQN)
        for i in range(0, 40, 8):
            ferrule.nvme(port, "write", "--nsid", "1", "--offset", str(i * MIB), "--length", str(8 * MIB),
                         data=b"d" * (8 * MIB))
        daemon.stop()
        os.truncate(os.path.join(daemon.files, "pool"), 24 * MIB)
        daemon.start()
        rpc = daemon.rpc()
        events = lambda: {e["type"]: e["text"] for e in rpc("event_get_events")["events"]}
        self.assertIn("the device only", events()["store_refused"])
        error = self.assert_error(-32602, "Structure needs cleaning", rpc, "bdev_lvol_open_lvstore", {"bdev_name": "disk-pool"},
                                  parameter="bdev_name")
        self.assertIn("read_only true", error.data["detail"])
        for opened in [lambda: rpc("bdev_lvol_open_lvstore", {"bdev_name": "disk-pool", "read_only": True}), lambda: None]:
            opened()
            store = rpc("bdev_lvol_get_lvstores")[0]
            self.assertTrue(store["read_only"])
            self.assertIn("the device ends after 6144 of 16384 pages", store["degraded"][0])
            self.assertRegex(daemon.cli("store", "list").stdout, r"pool +disk-pool .* yes +1 ")
            while "store_degraded" not in events():
                pass
            self.assertIn("the device ends", events()["store_degraded"])
            outcomes = set()
            for i in range(40):
                read = ferrule.nvme(port, "read", "--nsid", "1", "--offset", str(i * MIB), "--length", str(MIB), check=False)
                outcomes.add(read.returncode)
                if not read.returncode:
                    self.assertEqual(read.stdout, b"d" * MIB)
            self.assertEqual(outcomes, {0, 1})
            self.assertTrue(rpc("bdev_lvol_get_lvols")[0]["is_degraded"])
            # it stays so
            daemon.stop()
            daemon.start()
            rpc = daemon.rpc()

    def test_the_last_count_of_exclusive_space_is_there_after_a_restart(self):
        daemon = self.daemon()
        rpc = self.store(daemon)
        for name in ["v", "w"]:
            rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": 4, "thin_provision": True})
        rpc("bdev_lvol_get_space", {"name": "pool/v", "exclusive": True})
        daemon.restart()
        rpc = daemon.rpc()
        v, w = sorted(rpc("bdev_lvol_get_lvols"), key=lambda volume: volume["name"])
        self.assertEqual(v["exclusive_bytes"], 0)
        self.assertLess(v["exclusive_age_ms"], 600000)
        self.assertEqual((w["exclusive_bytes"], w["exclusive_age_ms"]), (None, None))
        self.assertIn("s ago", daemon.cli("volume", "space", "pool/v").stdout)

    def test_a_count_that_is_not_known_yet_is_said_to_be_under_way(self):
        daemon = self.daemon()
        rpc = self.store(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 16, "thin_provision": True})
        rpc("nvmf_create_transport", {"trtype": "TCP"})
        rpc("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True})
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "pool/v", "nsid": 1}})
        port = ferrule.listen(rpc, NQN)
        for length, snapshot in [(8, "s"), (2, "t"), (1, None)]:
            ferrule.nvme(port, "write", "--nsid", "1", "--length", str(length * MIB), data=os.urandom(length * MIB))
            if snapshot:
                rpc("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": snapshot})
        daemon.restart()
        rpc = daemon.rpc()
        volume = lambda: [v for v in rpc("bdev_lvol_get_lvols") if v["name"] == "v"][0]
        driver = lambda: rpc("bdev_get_bdevs", {"name": "pool/v"})[0]["driver_specific"]["lvol"]
        rpc("bdev_lvol_decouple_parent", {"name": "pool/v"})
        first = volume()
        self.assertEqual((first["counting"], first["num_allocated_clusters"]), (True, 8))
        while driver()["counting"]:
            pass
        self.assertEqual((volume()["counting"], volume()["num_allocated_clusters"]), (False, 2))
        self.assertEqual(driver()["num_allocated_clusters"], 2)

    def test_check_finds_a_store_sound_and_a_damaged_one_not(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.store(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 64, "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        ferrule.nvme(port, "write", "--length", str(4 * MIB), data=os.urandom(4 * MIB))
        self.assertIn("pool: 0 findings", daemon.cli("store", "check", "pool").stdout)
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["findings"], [])
        daemon.stop()
        path = os.path.join(daemon.files, "pool")
        good = daemon.cli("--json", "store", "check", path)
        self.assertEqual(json.loads(good.stdout)["nr_findings"], 0)
        self.assertEqual(json.loads(good.stdout)["volumes"], 1)
        with open(path, "r+b") as f:
            f.seek(100)
            f.write(b"\xff" * 64)
        bad = daemon.cli("store", "check", path, check=False)
        self.assertEqual(bad.returncode, 1, bad.stdout)
        self.assertIn("page 0", bad.stdout)
        with open(path, "r+b") as f:
            f.write(b"\0" * 4 * MIB)
        none = daemon.cli("store", "check", path, check=False)
        self.assertEqual(none.returncode, 1)
        self.assertTrue(none.stderr.startswith("ferrule: "))
        self.assertTrue(none.stderr.rstrip().endswith("is no superblock"), none.stderr)

    def test_a_full_store_says_so_and_keeps_what_it_has(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.store(daemon, 64 * MIB)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 1024, "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        first = os.urandom(MIB)
        ferrule.nvme(port, "write", "--length", str(MIB), data=first)
        result = ferrule.nvme(port, "write", "--offset", str(8 * MIB), "--length", str(128 * MIB),
                              data=b"f" * (128 * MIB), check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr.decode().lower(), "capacity exceeded|0?/?81")
        self.assertEqual(ferrule.nvme(port, "read", "--length", str(MIB)), first)
        # what is given back can be used again
        ferrule.nvme(port, "trim", "--offset", str(8 * MIB), "--length", str(40 * MIB))
        ferrule.nvme(port, "write", "--offset", str(500 * MIB), "--length", str(8 * MIB), data=b"g" * (8 * MIB))

    def test_changes_of_one_volume_keep_their_order_and_those_of_many_share_their_waits(self):
        rpc = self.daemon("--ephemeral").rpc()
        rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 262144})
        rpc("bdev_delay_create", {"name": "d", "base_bdev_name": "m", "avg_read_latency": 0, "p99_read_latency": 0,
                                  "avg_write_latency": 100000, "p99_write_latency": 100000})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "d", "lvs_name": "pool"})
        create = lambda name: ("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": 1,
                                                    "thin_provision": True})
        rpc("nvmf_create_subsystem", {"nqn": NQN})
        asked = [create("a"), create("b"), ("bdev_lvol_resize", {"name": "pool/a", "size_in_mib": 5}), create("a"),
                 ("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "pool/a"}}),
                 ("bdev_lvol_delete", {"name": "pool/b"}), create("b"), ("bdev_lvol_delete", {"name": "pool/a"}), create("a")]
        ids = [rpc.send(method, params) for method, params in asked]
        answers = {}
        for _ in asked:
            answer = rpc.receive()
            answers[answer["id"]] = answer
        self.assertEqual([i for i, id in enumerate(ids) if "error" in answers[id]], [3])
        self.assertEqual(answers[ids[3]]["error"]["code"], -17)
        # one after another these take at least a tenth of a second each
        start = time.monotonic()
        for i in range(40):
            rpc.send(*create(f"v{i}"))
        for i in range(40):
            self.assertIn("result", rpc.receive())
        self.assertLess(time.monotonic() - start, 3)

    def test_a_thousand_volumes(self):
        daemon = self.daemon()
        rpc = self.store(daemon, 1024 * MIB)
        rpc("nvmf_create_transport", {"trtype": "TCP"})
        rpc("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True, "max_namespaces": 1024})
        start = time.monotonic()
        for i in range(1000):
            rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": f"v{i}", "size_in_mib": 100, "thin_provision": True})
        made = time.monotonic()
        for i in range(1000):
            rpc.send("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": f"pool/v{i}"}})
        for i in range(1000):
            self.assertNotIn("error", rpc.receive())
        exported = time.monotonic()
        port = ferrule.listen(rpc, NQN)
        ferrule.nvme(port, "write", "--nsid", "1000", "--length", "4096", data=b"k" * 4096)
        ferrule.nvme(port, "flush", "--nsid", "1000")
        daemon.kill()
        killed = time.monotonic()
        daemon.start()
        started = time.monotonic()
        # Reported, not judged: the machine may be busy with anything.
        print(f"1,000 volumes: made in {made - start:.2f} s, exported in {exported - made:.2f} s, "
              f"started in {started - killed:.2f} s", flush=True)
        rpc = daemon.rpc()
        self.assertEqual(len(rpc("bdev_lvol_get_lvols")), 1000)
        self.assertEqual(len(rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"]), 1000)
        self.assertEqual(ferrule.nvme(port, "read", "--nsid", "1000", "--length", "4096"), b"k" * 4096)
        rpc("bdev_lvol_delete_lvstore", {"lvs_name": "pool"})
        self.assertEqual(rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"], [])


class Quickstart(ferrule.Case):
    def run_it(self, *args, **env):
        source = os.environ.get("SRC") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
        return subprocess.run([os.path.join(source, "quickstart"), *args], capture_output=True, text=True,
                              timeout=ferrule.DEADLINE, env={**os.environ, **env})

    def test_quickstart_makes_proves_and_ends(self):
        daemon = self.daemon(start=False)
        env = {"NO_BUILD": "1", "BUILD_DIR": ferrule.BUILD, "DATA_DIR": os.path.join(daemon.dir, "quick"),
               "PORT": str(ferrule.free_port()), "HTTP_PORT": str(ferrule.free_port())}
        self.addCleanup(self.run_it, "stop", **env)
        first = self.run_it(**env)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("the bytes are the same", first.stdout)
        self.assertIn("nvme connect -t tcp", first.stdout)
        again = self.run_it(**env)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("runs already", again.stdout)
        other = self.run_it(**{**env, "DATA_DIR": os.path.join(daemon.dir, "other")})
        self.assertEqual(other.returncode, 1)
        self.assertIn("is another process's", other.stderr)
        stopped = self.run_it("stop", **env)
        self.assertEqual(stopped.returncode, 0, stopped.stderr)
        self.assertIn("ended ferruled", stopped.stdout)
        self.assertEqual(self.run_it(**env).returncode, 0)
        self.assertEqual(self.run_it("stop", **env).returncode, 0)
        self.assertIn("no daemon", self.run_it("stop", **env).stdout)


class Connections(ferrule.Case):
    def test_a_connection_that_is_given_up_is_told_of_in_the_log(self):
        daemon = self.daemon()
        rpc = daemon.rpc()
        rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 2048})
        port = ferrule.export(rpc, "m")
        with socket.create_connection(("127.0.0.1", port)) as host:
            name = host.getsockname()
            host.sendall(bytes([0, 0, 128]))  # an ICReq that does not go on
            host.settimeout(ferrule.DEADLINE)
            with contextlib.suppress(ConnectionError):
                self.assertEqual(host.recv(1), b"")
        self.assertRegex(daemon.log(), f"NOTICE .*{name[1]}.*: stopped in the middle of its ICReq")


if __name__ == "__main__":
    ferrule.main()
