#!/usr/bin/env python3
"""Snapshots, clones and what follows from them, through the daemon: contents, shapes, errors, kills in between, and under load."""
import base64
import contextlib
import json
import os
import pty
import re
import signal
import struct
import subprocess

import ferrule
import nvme_host
from ferrule import MIB, RpcError

NQN = "nqn.2026-01.io.ferrule:t"
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


class Base(ferrule.Case):
    def pool(self, daemon, size=256 * MIB, **more):
        rpc = daemon.rpc()
        daemon.make_file("pool", size)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool", "block_size": 512})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk", "lvs_name": "pool", **more})
        return rpc

    def volume(self, rpc, name="v", size_in_mib=16, thin=True):
        return rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": size_in_mib,
                                        "thin_provision": thin})

    def snapshot(self, rpc, volume, name):
        return rpc("bdev_lvol_snapshot", {"lvol_name": f"pool/{volume}", "snapshot_name": name})

    def clone(self, rpc, snapshot, name):
        return rpc("bdev_lvol_clone", {"snapshot_name": f"pool/{snapshot}", "clone_name": name})

    def open(self, rpc):
        """An address under which volumes are read and written by name."""
        with contextlib.suppress(RpcError):
            rpc("nvmf_create_transport", {"trtype": "TCP"})
        with contextlib.suppress(RpcError):
            rpc("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True})
        self.port = ferrule.listen(rpc, NQN)
        return self.port

    @contextlib.contextmanager
    def namespace(self, rpc, volume):
        nsid = rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": f"pool/{volume}"}})
        yield str(nsid)
        rpc("nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": nsid})

    def write(self, rpc, volume, offset, data):
        with self.namespace(rpc, volume) as nsid:
            ferrule.nvme(self.port, "write", "--nsid", nsid, "--offset", str(offset), "--length", str(len(data)), data=data)

    def read(self, rpc, volume, offset, length):
        with self.namespace(rpc, volume) as nsid:
            return ferrule.nvme(self.port, "read", "--nsid", nsid, "--offset", str(offset), "--length", str(length))

    def driver(self, rpc, volume):
        return rpc("bdev_get_bdevs", {"name": f"pool/{volume}"})[0]["driver_specific"]["lvol"]


class Contents(Base):
    def test_snapshots_and_clones_hold_what_they_should_after_every_kill(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.volume(rpc)
        self.open(rpc)
        a, b, c = (os.urandom(4 * MIB) for _ in range(3))

        def kill():
            daemon.kill()
            daemon.start()
            return daemon.rpc()

        self.write(rpc, "v", 0, a)
        self.snapshot(rpc, "v", "s1")
        rpc = kill()
        self.write(rpc, "v", 2 * MIB, b)
        self.assertEqual(self.read(rpc, "v", 0, 8 * MIB), a[:2 * MIB] + b + bytes(2 * MIB))
        self.assertEqual(self.read(rpc, "s1", 0, 8 * MIB), a + bytes(4 * MIB))
        self.snapshot(rpc, "v", "s2")
        self.clone(rpc, "s1", "c1")
        rpc = kill()
        self.assertEqual(self.read(rpc, "c1", 0, 8 * MIB), a + bytes(4 * MIB))
        self.write(rpc, "c1", MIB + 4096, c[:8192])
        self.write(rpc, "v", 0, c)
        rpc = kill()
        changed = a[:MIB + 4096] + c[:8192] + a[MIB + 12288:]
        self.assertEqual(self.read(rpc, "c1", 0, 4 * MIB), changed)
        self.assertEqual(self.read(rpc, "s1", 0, 4 * MIB), a)
        self.assertEqual(self.read(rpc, "s2", 0, 8 * MIB), a[:2 * MIB] + b + bytes(2 * MIB))
        # the oldest snapshot goes, with a clone and a younger snapshot that come from it
        self.assertTrue(rpc("bdev_lvol_delete", {"name": "pool/s1"}))
        rpc = kill()
        self.assertEqual(self.read(rpc, "c1", 0, 4 * MIB), changed)
        self.assertEqual(self.read(rpc, "s2", 0, 8 * MIB), a[:2 * MIB] + b + bytes(2 * MIB))
        self.assertEqual(self.read(rpc, "v", 0, 4 * MIB), c)
        self.assertTrue(rpc("bdev_lvol_revert", {"lvol_name": "pool/v", "snapshot_name": "pool/s2"}))
        rpc = kill()
        self.assertEqual(self.read(rpc, "v", 0, 8 * MIB), a[:2 * MIB] + b + bytes(2 * MIB))
        self.write(rpc, "v", 0, c)
        self.assertEqual(self.read(rpc, "s2", 0, 2 * MIB), a[:2 * MIB])
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_clones_of_clones_to_any_depth(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.volume(rpc, "c0")
        self.open(rpc)
        for i in range(20):
            self.write(rpc, f"c{i}", i * 4096, bytes([i + 1]) * 4096)
            self.snapshot(rpc, f"c{i}", f"s{i}")
            self.clone(rpc, f"s{i}", f"c{i + 1}")
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(self.read(rpc, "c20", 0, 21 * 4096),
                         b"".join(bytes([i + 1]) * 4096 for i in range(20)) + bytes(4096))
        # every second generation goes
        for i in range(0, 20, 2):
            rpc("bdev_lvol_delete", {"name": f"pool/c{i}"})
            rpc("bdev_lvol_delete", {"name": f"pool/s{i}"})
        self.assertEqual(self.driver(rpc, "c20")["base_snapshot"], "s19")
        self.assertEqual(self.driver(rpc, "s19")["base_snapshot"], "s17")
        self.assertEqual(self.read(rpc, "c20", 0, 20 * 4096), b"".join(bytes([i + 1]) * 4096 for i in range(20)))
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_a_snapshot_of_a_volume_under_load_fails_nothing_and_is_one_moment(self):
        cores = sorted(os.sched_getaffinity(0))[:2]
        daemon = self.daemon("--cores", ",".join(map(str, cores)))
        rpc = self.pool(daemon, 4096 * MIB)
        self.volume(rpc, size_in_mib=64)
        self.open(rpc)
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "pool/v"}})
        load = subprocess.Popen([ferrule.FERRULE, "nvme", "perf", "-a", "127.0.0.1", "-s", str(self.port), "-n", NQN, "--qd",
                                 "32", "--read", "30", "--verify", "--time", "4", "--range", "32M", "--offset", "32M", "--json"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(load.kill)
        # A writer that writes its number to one place, and when that is done to the next, by connections of different threads
        # in turn: in a snapshot no place is ahead of the one before it, and none is more than one behind.
        hosts = [nvme_host.Host(self.port, NQN) for _ in range(4)]
        places, taken, number = 8, 0, 0
        while load.poll() is None:
            number += 1
            for place in range(places):
                hosts[place % 4].io.call(nvme_host.WRITE, nsid=1, cdw10=struct.pack("<QHHI8x", place * 2048, 7, 0, 0),
                                         data=struct.pack("<Q", number) * 512)
            if taken < 12:
                rpc.send("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": f"s{taken}"})
                taken += 1
        out, err = load.communicate()
        for host in hosts:
            host.close()
        self.assertEqual(load.returncode, 0, err)
        self.assertGreater(json.loads(out)["ops"], 100)
        self.assertGreater(taken, 3)
        for _ in range(taken):
            self.assertIn("result", rpc.receive())
        for i in range(taken):
            seen = [struct.unpack_from("<Q", self.read(rpc, f"s{i}", place * MIB, 4096))[0] for place in range(places)]
            self.assertEqual(seen, sorted(seen, reverse=True), f"snapshot {i}")
            self.assertLessEqual(seen[0] - seen[-1], 1, f"snapshot {i}: {seen}")
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_a_volume_begins_with_what_another_device_holds(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        image = os.urandom(8 * MIB)
        with open(os.path.join(daemon.files, "image"), "wb") as f:
            f.write(image)
        rpc("bdev_aio_create", {"name": "image", "filename": "image", "block_size": 512, "readonly": True})
        self.open(rpc)
        clone = lambda **more: rpc("bdev_lvol_clone_bdev",
                                   {"bdev": "image", "lvs_name": "pool", "clone_name": "c", **more})
        uuid = clone()
        self.assertRegex(uuid, UUID)
        shown = self.driver(rpc, "c")
        self.assertEqual((shown["esnap_clone"], shown["external_snapshot_name"], shown["clone"], shown["thin_provision"],
                          shown["num_allocated_clusters"], shown["counting"]), (True, "image", False, True, 0, False))
        self.assertTrue(rpc("bdev_lvol_get_lvols")[0]["is_esnap_clone"])
        self.assertEqual(self.read(rpc, "c", 0, 8 * MIB), image)
        self.write(rpc, "c", 5 * MIB + 512, b"c" * 1024)
        self.snapshot(rpc, "c", "s")
        self.write(rpc, "c", 0, b"d" * 4096)
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        changed = image[:5 * MIB + 512] + b"c" * 1024 + image[5 * MIB + 1536:]
        self.assertEqual(self.read(rpc, "s", 0, 8 * MIB), changed)
        self.assertEqual(self.read(rpc, "c", 0, 8 * MIB), b"d" * 4096 + changed[4096:])
        bad = -32602
        self.assert_error(bad, "lvs does not exist", lambda: clone(lvs_name="none"), parameter="lvs_name")
        self.assert_error(bad, "bdev does not exist", lambda: clone(bdev="none"), parameter="bdev")
        self.assert_error(bad, "bdev is an lvol in same lvs as clone; use bdev_lvol_clone instead",
                          lambda: clone(bdev="pool/s"), parameter="bdev")
        self.assert_error(bad, "File exists", clone, parameter="clone_name")
        self.assert_error(bad, "Invalid argument", lambda: clone(clone_name="a/b"), parameter="clone_name")
        self.assert_error(bad, "Invalid argument", lambda: clone(bdev="disk", clone_name="d"), parameter="bdev")
        daemon.cli("volume", "clone-device", "image", "pool/e")
        self.assertEqual(self.read(rpc, "e", 7 * MIB, MIB), image[7 * MIB:])
        # a volume that does not need the image any more stands alone
        rpc("bdev_lvol_inflate", {"name": "pool/c"})
        self.assertFalse(self.driver(rpc, "c")["esnap_clone"])
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_what_volumes_are_cloned_from_is_not_written(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_malloc_create", {"name": "image", "block_size": 512, "num_blocks": 16384})
        self.open(rpc)
        add = lambda name: rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": name}})
        clone = lambda: rpc("bdev_lvol_clone_bdev", {"bdev": "image", "lvs_name": "pool", "clone_name": "c"})
        claim = lambda: rpc("bdev_get_bdevs", {"name": "image"})[0].get("claim_type")
        # who may write it keeps it from being cloned, and the other way round
        nsid = add("image")
        error = self.assert_error(-32602, "Operation not permitted", clone, parameter="bdev")
        self.assertIn("namespace", error.data["detail"])
        rpc("nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": nsid})
        clone()
        self.assertEqual(claim(), "read_many_write_none")
        error = self.assert_error(-32602, "Invalid parameters", add, "image", parameter="namespace.bdev_name")
        self.assertIn("cloned from it", error.data["detail"])
        self.assert_error(-1, "Operation not permitted", rpc, "bdev_lvol_create_lvstore", {"bdev_name": "image", "lvs_name": "q"},
                          parameter="bdev_name")
        self.snapshot(rpc, "c", "s")
        self.assert_error(-32602, "Operation not permitted", rpc, "bdev_lvol_start_shallow_copy",
                          {"src_lvol_name": "pool/s", "dst_bdev_name": "image"}, parameter="dst_bdev_name")
        # a volume of another store stays what it is as well
        rpc("bdev_malloc_create", {"name": "other", "block_size": 512, "num_blocks": 65536})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "other", "lvs_name": "other"})
        rpc("bdev_lvol_create", {"lvs_name": "other", "lvol_name": "b", "size_in_mib": 8, "thin_provision": True})
        rpc("bdev_lvol_snapshot", {"lvol_name": "other/b", "snapshot_name": "bs"})
        rpc("bdev_lvol_clone_bdev", {"bdev": "other/b", "lvs_name": "pool", "clone_name": "d"})
        for method, params, key in [
                ("bdev_lvol_revert", {"lvol_name": "other/b", "snapshot_name": "other/bs"}, "lvol_name"),
                ("bdev_lvol_resize", {"name": "other/b", "size_in_mib": 4}, "size_in_mib"),
                ("bdev_lvol_set_parent_bdev", {"lvol_name": "other/b", "parent_name": "image"}, "lvol_name")]:
            error = self.assert_error(-32602, "Device or resource busy", rpc, method, params, parameter=key)
            self.assertRegex(error.data["detail"], "cloned from|stand on")
        rpc("bdev_lvol_resize", {"name": "other/b", "size_in_mib": 12})
        # the last that needed it sets it free
        for name in ["pool/c", "pool/s"]:
            rpc("bdev_lvol_delete", {"name": name})
        for _ in range(1000):
            if not claim():
                break
        add("image")

    def test_a_clone_of_a_device_gets_another_device_for_a_parent(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        images = [os.urandom(8 * MIB), os.urandom(6 * MIB)]
        for i, image in enumerate(images):
            with open(os.path.join(daemon.files, f"image{i}"), "wb") as f:
                f.write(image)
            rpc("bdev_aio_create", {"name": f"image{i}", "filename": f"image{i}", "block_size": 512, "readonly": True})
        self.open(rpc)
        rpc("bdev_lvol_clone_bdev", {"bdev": "image0", "lvs_name": "pool", "clone_name": "c"})
        self.write(rpc, "c", MIB + 4096, b"c" * 8192)
        method = "bdev_lvol_set_parent_bdev"
        to = lambda parent, volume="pool/c": rpc(method, {"lvol_name": volume, "parent_name": parent})
        self.assertTrue(to("image1"))
        self.assert_error(-32602, "File exists", to, "image1", parameter="parent_name")
        self.assert_error(-32602, "No such device", to, "none", parameter="parent_name")
        self.assert_error(-19, "No such device", to, "image0", "pool/none", parameter="lvol_name")
        self.assert_error(-32602, "Invalid argument", to, "disk", parameter="parent_name")
        self.assert_error(-32603, "spdk_json_decode_object failed", rpc, method, {"lvol_name": "pool/c"}, parameter="parent_name")
        self.volume(rpc, "thick", thin=False)
        self.assert_error(-32602, "Invalid argument", to, "image0", "pool/thick", parameter="lvol_name")
        self.snapshot(rpc, "thick", "ts")
        self.assert_error(-32602, "Invalid argument", to, "pool/ts", parameter="parent_name")
        want = bytearray(images[1] + bytes(2 * MIB))
        want[MIB + 4096:MIB + 12288] = b"c" * 8192
        for _ in range(2):
            self.assertEqual(self.read(rpc, "c", 0, 8 * MIB), bytes(want))
            shown = self.driver(rpc, "c")
            self.assertEqual((shown["esnap_clone"], shown["external_snapshot_name"], shown["clone"]), (True, "image1", False))
            daemon.kill()
            daemon.start()
            rpc = daemon.rpc()
        # a clone of a snapshot becomes one of a device, by hand
        self.snapshot(rpc, "c", "s")
        self.write(rpc, "c", 4 * MIB, b"d" * 4096)
        daemon.cli("volume", "set-parent-device", "pool/c", "image0")
        want = bytearray(images[0])
        want[4 * MIB:4 * MIB + 4096] = b"d" * 4096
        self.assertEqual(self.read(rpc, "c", 0, 8 * MIB), bytes(want))
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_a_volume_gets_another_parent(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.volume(rpc, "base")
        self.open(rpc)
        self.write(rpc, "base", 0, b"a" * 3 * MIB)
        self.snapshot(rpc, "base", "s")
        self.volume(rpc, "v")
        self.write(rpc, "v", MIB, b"v" * MIB)
        set_parent = lambda volume, parent: rpc("bdev_lvol_set_parent",
                                                {"lvol_name": f"pool/{volume}", "parent_name": f"pool/{parent}"})
        self.assertTrue(set_parent("v", "s"))
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(self.read(rpc, "v", 0, 4 * MIB), b"a" * MIB + b"v" * MIB + b"a" * MIB + bytes(MIB))
        self.assertEqual(self.driver(rpc, "v")["base_snapshot"], "s")
        self.assertEqual(self.driver(rpc, "s")["clones"], ["base", "v"])
        self.assert_error(-32602, "File exists", set_parent, "v", "s", parameter="parent_name")
        self.assert_error(-32602, "Invalid argument", set_parent, "v", "base", parameter="parent_name")
        self.volume(rpc, "other", 17)
        self.snapshot(rpc, "other", "t")
        self.assert_error(-32602, "Invalid argument", set_parent, "v", "t", parameter="parent_name")
        self.assert_error(-32602, "Invalid argument", set_parent, "s", "t", parameter="parent_name")
        self.assert_error(-19, "No such device", set_parent, "v", "none", parameter="parent_name")
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_a_volume_made_read_only_stays_so(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.volume(rpc)
        self.open(rpc)
        self.write(rpc, "v", 0, b"r" * 4096)
        self.assertTrue(rpc("bdev_lvol_set_read_only", {"name": "pool/v"}))
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        with self.namespace(rpc, "v") as nsid:
            self.assertEqual(ferrule.nvme(self.port, "write", "--nsid", nsid, "--length", "4096", data=b"w" * 4096,
                                          check=False).returncode, 1)
        self.clone(rpc, "v", "c")
        self.write(rpc, "c", 4096, b"c" * 4096)
        self.assertEqual(self.read(rpc, "c", 0, 8192), b"r" * 4096 + b"c" * 4096)


class Long(Base):
    """Long operations on a slow device."""

    def slow_pool(self, daemon, microseconds):
        rpc = daemon.rpc()
        daemon.make_file("pool", 512 * MIB)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool", "block_size": 512})
        rpc("bdev_delay_create", {"name": "slow", "base_bdev_name": "disk", "avg_read_latency": microseconds,
                                  "p99_read_latency": microseconds, "avg_write_latency": 0, "p99_write_latency": 0})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "slow", "lvs_name": "pool"})
        self.volume(rpc, size_in_mib=64)
        self.open(rpc)
        self.data = os.urandom(MIB)
        for i in range(0, 64, 8):
            self.write(rpc, "v", i * MIB, self.data * 8)
        self.snapshot(rpc, "v", "s")
        self.clone(rpc, "s", "c")
        return rpc

    def faster(self, rpc):
        for kind in ["avg_read", "p99_read"]:
            rpc("bdev_delay_update_latency", {"delay_bdev_name": "slow", "latency_type": kind, "latency_us": 0})

    def begun(self, rpc, id):
        """A job that has done some of its work."""
        while True:
            job = rpc("job_get_jobs", {"job_id": id})[0]
            self.assertEqual(job["state"], "running", job)
            if job["done"]:
                return job

    def wait_for_copy(self, rpc, id):
        while True:
            state = rpc("bdev_lvol_check_shallow_copy", {"operation_id": id})
            if state["state"] != "in progress":
                return state

    def test_a_shallow_copy_writes_a_snapshots_own_clusters_in_their_places(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.volume(rpc)
        self.open(rpc)
        first, second = os.urandom(4 * MIB), os.urandom(MIB)
        self.write(rpc, "v", 0, first)
        self.snapshot(rpc, "v", "s1")
        self.write(rpc, "v", 2 * MIB, second)
        self.snapshot(rpc, "v", "s2")
        rpc("bdev_malloc_create", {"name": "copy", "block_size": 512, "num_blocks": 16 * MIB // 512})
        rpc("bdev_malloc_create", {"name": "small", "block_size": 512, "num_blocks": 8 * MIB // 512})
        start = lambda source, to: rpc("bdev_lvol_start_shallow_copy",
                                       {"src_lvol_name": f"pool/{source}", "dst_bdev_name": to})["operation_id"]
        id = start("s2", "copy")
        self.assertEqual(self.wait_for_copy(rpc, id), {"copied_clusters": 1, "total_clusters": 1, "state": "complete"})
        # the record goes with the answer that tells of the end
        self.assert_error(-19, "No such device", rpc, "bdev_lvol_check_shallow_copy", {"operation_id": id},
                          parameter="operation_id")
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "copy", "nsid": 9}})
        read = lambda length: ferrule.nvme(self.port, "read", "--nsid", "9", "--length", str(length))
        self.assertEqual(read(4 * MIB), bytes(2 * MIB) + second + bytes(MIB))
        rpc("nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": 9})
        daemon.cli("volume", "copy", "pool/s1", "copy")
        self.wait_for_copy(rpc, start("s2", "copy"))
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "copy", "nsid": 9}})
        self.assertEqual(read(4 * MIB), first[:2 * MIB] + second + first[3 * MIB:])
        rpc("nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": 9})
        # what is wrong with the pair is found by the copy
        for source, to, text in [("v", "copy", "Operation not permitted"), ("s1", "small", "Invalid argument")]:
            state = self.wait_for_copy(rpc, start(source, to))
            self.assertEqual((state["state"], state["error"]), ("error", text))
        self.assert_error(-32602, "No such device", start, "s1", "none", parameter="dst_bdev_name")
        self.assert_error(-32602, "Operation not permitted", start, "s1", "disk", parameter="dst_bdev_name")
        self.assert_error(-19, "No such device", start, "none", "copy", parameter="src_lvol_name")

    def test_a_snapshot_stays_while_what_comes_from_it_is_copied(self):
        daemon = self.daemon()
        rpc = self.slow_pool(daemon, 20000)
        self.write(rpc, "c", 0, self.data * 8)
        self.snapshot(rpc, "c", "t")
        rpc("bdev_malloc_create", {"name": "copy", "block_size": 512, "num_blocks": 64 * MIB // 512})
        rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "pool/s", "nsid": 7}})
        id = rpc("bdev_lvol_start_shallow_copy", {"src_lvol_name": "pool/t", "dst_bdev_name": "copy"})["operation_id"]
        self.begun(rpc, id)
        delete = lambda: rpc("bdev_lvol_delete", {"name": "pool/s"})
        self.assert_error(-32602, "Device or resource busy", delete, parameter="name")
        self.assertEqual(ferrule.nvme(self.port, "read", "--nsid", "7", "--length", "1024"), self.data[:1024])
        self.faster(rpc)
        self.assertEqual(self.wait_for_copy(rpc, id)["state"], "complete")
        # nothing of the refusal is left over
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(ferrule.nvme(self.port, "read", "--nsid", "7", "--length", "1024"), self.data[:1024])
        self.assertTrue(delete())
        self.assertEqual(rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"], [])

    def test_inflating_goes_on_after_kills_and_restarts(self):
        daemon = self.daemon()
        rpc = self.slow_pool(daemon, 100000)
        id = rpc("bdev_lvol_inflate", {"name": "pool/c", "background": True})["job_id"]
        job = self.begun(rpc, id)
        self.assertEqual((job["kind"], job["object"], job["total"], job["unit"]), ("inflate", "pool/c", 64, "clusters"))
        # what would wait for it is refused, naming it; what does not, goes on
        for method, params, parameter in [("bdev_lvol_resize", {"name": "pool/c", "size_in_mib": 65}, "name"),
                                          ("bdev_lvol_snapshot", {"lvol_name": "pool/c", "snapshot_name": "x"}, "lvol_name"),
                                          ("bdev_lvol_inflate", {"name": "pool/c"}, "name")]:
            error = self.assert_error(-32602, "Device or resource busy", rpc, method, params, parameter=parameter)
            self.assertIn(f"job {id} (inflate)", error.data["detail"])
        self.snapshot(rpc, "v", "s2")
        self.write(rpc, "c", MIB, b"n" * 4096)
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertTrue(self.begun(rpc, id)["resumed"])
        daemon.restart()
        rpc = daemon.rpc()
        self.begun(rpc, id)
        self.faster(rpc)
        job = rpc("job_wait", {"job_id": id})
        self.assertEqual((job["state"], job["done"]), ("complete", job["total"]))
        shown = self.driver(rpc, "c")
        self.assertEqual((shown["clone"], shown["thin_provision"], shown["num_allocated_clusters"]), (False, False, 64))
        rpc("bdev_lvol_delete", {"name": "pool/s"})
        self.assertEqual(self.read(rpc, "c", 0, 3 * MIB), self.data + b"n" * 4096 + self.data[4096:] + self.data)
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)

    def test_a_job_is_ended_by_its_number_or_with_its_volume(self):
        daemon = self.daemon()
        rpc = self.slow_pool(daemon, 100000)
        waiting = daemon.rpc()
        waiting.send("bdev_lvol_inflate", {"name": "pool/c"})
        while not rpc("job_get_jobs"):
            pass
        id = rpc("job_get_jobs")[0]["job_id"]
        self.begun(rpc, id)
        self.assertEqual(rpc("job_cancel", {"job_id": id})["state"], "canceled")
        self.assertEqual(waiting.receive()["error"]["message"], "Operation canceled")
        self.assertTrue(self.driver(rpc, "c")["clone"])
        id = rpc("bdev_lvol_inflate", {"name": "pool/c", "background": True})["job_id"]
        self.begun(rpc, id)
        self.assertTrue(rpc("bdev_lvol_delete", {"name": "pool/c"}))
        job = rpc("job_wait", {"job_id": id})
        self.assertEqual((job["state"], job["error"]["detail"]), ("canceled", "what it worked on was deleted"))
        self.clone(rpc, "s", "d")
        id = rpc("bdev_lvol_inflate", {"name": "pool/d", "background": True})["job_id"]
        self.begun(rpc, id)
        self.assertTrue(rpc("bdev_lvol_delete_lvstore", {"lvs_name": "pool"}))
        self.assertEqual(rpc("job_wait", {"job_id": id})["state"], "canceled")
        daemon.kill()
        daemon.start()
        self.assertEqual([j["state"] for j in daemon.rpc()("job_get_jobs")], ["canceled"] * 2)

    def test_a_terminal_shows_a_bar_and_an_interrupt_leaves_the_job(self):
        daemon = self.daemon()
        rpc = self.slow_pool(daemon, 50000)
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = subprocess.Popen([ferrule.FERRULE, "--socket", daemon.socket_path, "volume", "inflate", "pool/c"],
                                   stderr=theirs, stdout=subprocess.DEVNULL)
        os.close(theirs)
        shown = b""
        while not re.search(rb"inflate pool/c \[#+-+\] +\d+ % \d+/64 clusters", shown):
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(ferrule.DEADLINE), 130)
        while b"goes on" not in shown:
            shown += os.read(ours, 4096)
        id = rpc("job_get_jobs")[0]["job_id"]
        self.assertIn(b"ferrule job cancel %d ends it" % id, shown)
        self.begun(rpc, id)
        self.assertEqual(daemon.cli("job", "cancel", str(id)).stdout, "canceled\n")
        failed = daemon.cli("job", "wait", str(id), check=False)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("Operation canceled", failed.stderr)

    def test_the_end_does_not_wait_for_a_job(self):
        daemon = self.daemon()
        rpc = self.slow_pool(daemon, 300000)
        waiting = daemon.rpc()
        waiting.send("bdev_lvol_inflate", {"name": "pool/c"})
        while not rpc("job_get_jobs"):
            pass
        daemon.stop()
        self.assertEqual(waiting.receive()["error"]["message"], "Operation canceled")


class Shapes(Base):
    def test_as_they_are_shown(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.pool(daemon)
        self.volume(rpc)
        self.open(rpc)
        self.write(rpc, "v", 0, b"x" * 2 * MIB)
        snapshot = rpc("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": "s",
                                              "xattrs": {"snapshot_timestamp": "2024-01-16T16:06:46Z", "user_created": "true"}})
        self.assertRegex(snapshot, UUID)
        clone = self.clone(rpc, "s", "c")
        self.assertRegex(clone, UUID)
        self.write(rpc, "c", 0, b"y" * 4096)
        shown = self.driver(rpc, "s")
        self.assertEqual((shown["snapshot"], shown["clone"], shown["clones"], shown["thin_provision"], shown["esnap_clone"],
                          shown["num_allocated_clusters"], shown["xattrs"]),
                         (True, False, ["v", "c"], True, False, 2,
                          {"snapshot_timestamp": "2024-01-16T16:06:46Z", "user_created": "true"}))
        shown = self.driver(rpc, "c")
        self.assertEqual((shown["snapshot"], shown["clone"], shown["base_snapshot"], shown["num_allocated_clusters"]),
                         (False, True, "s", 1))
        self.assertNotIn("clones", shown)
        self.assertEqual(self.driver(rpc, "v")["num_allocated_clusters"], 0)
        bdev = rpc("bdev_get_bdevs", {"name": "pool/s"})[0]
        self.assertEqual((bdev["name"], bdev["aliases"]), (snapshot, ["pool/s"]))
        self.assertRegex(bdev["creation_time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        listed = {v["name"]: v for v in rpc("bdev_lvol_get_lvols", {"lvs_name": "pool"})}
        self.assertEqual([(listed[n]["is_snapshot"], listed[n]["is_clone"], listed[n]["num_allocated_clusters"])
                          for n in "vsc"], [(False, True, 0), (True, False, 2), (False, True, 1)])
        self.assertEqual([listed[n]["referenced_bytes"] // MIB for n in "vsc"], [2, 2, 3])
        self.assertEqual(listed["c"]["exclusive_bytes"], None)
        space = rpc("bdev_lvol_get_space", {"name": "pool/c", "exclusive": True})
        self.assertEqual((space["name"], space["alias"], space["size_bytes"], space["referenced_bytes"],
                          space["exclusive_bytes"]), (clone, "pool/c", 16 * MIB, 3 * MIB, MIB))
        self.assertLess(space["exclusive_age_ms"], 60000)
        self.assertEqual(rpc("bdev_lvol_get_lvols", {"lvs_name": "pool"})[2]["exclusive_bytes"], MIB)
        self.assertTrue(rpc("bdev_lvol_decouple_parent", {"name": "pool/c"}))
        self.assertEqual(self.driver(rpc, "c")["clone"], False)
        self.assertEqual(self.read(rpc, "c", 0, 8192), b"y" * 4096 + b"x" * 4096)

    def test_wrong_input_names_the_parameter(self):
        rpc = self.pool(self.daemon("--ephemeral"))
        self.volume(rpc)
        self.volume(rpc, "other")
        self.snapshot(rpc, "v", "s")
        self.snapshot(rpc, "other", "t")
        invalid, exists, gone, bad = (-32602, "Invalid argument"), (-32602, "File exists"), (-19, "No such device"), \
            (-32603, "spdk_json_decode_object failed")
        for method, params, error, parameter in [
                ("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": "s"}, exists, "snapshot_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": "a/b"}, invalid, "snapshot_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": ""}, invalid, "snapshot_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/x", "snapshot_name": "n"}, gone, "lvol_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "disk", "snapshot_name": "n"}, gone, "lvol_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/s", "snapshot_name": "n"}, invalid, "lvol_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/v"}, bad, "snapshot_name"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": "n", "xattrs": {"k": 7}}, bad, "xattrs"),
                ("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": "n", "colour": 1}, bad, "colour"),
                ("bdev_lvol_clone", {"snapshot_name": "pool/v", "clone_name": "n"}, invalid, "snapshot_name"),
                ("bdev_lvol_clone", {"snapshot_name": "pool/s", "clone_name": "v"}, exists, "clone_name"),
                ("bdev_lvol_clone", {"snapshot_name": "pool/none", "clone_name": "n"}, gone, "snapshot_name"),
                ("bdev_lvol_revert", {"lvol_name": "pool/v", "snapshot_name": "pool/other"}, invalid, "snapshot_name"),
                ("bdev_lvol_revert", {"lvol_name": "pool/v", "snapshot_name": "pool/none"}, gone, "snapshot_name"),
                ("bdev_lvol_revert", {"lvol_name": "pool/s", "snapshot_name": "pool/t"},
                 (-32602, "Operation not permitted"), "lvol_name"),
                ("bdev_lvol_decouple_parent", {"name": "pool/s"}, invalid, "name"),
                ("bdev_lvol_inflate", {"name": "pool/none"}, gone, "name"),
                ("bdev_lvol_inflate", {"name": "pool/v", "background": "yes"}, bad, "background"),
                ("bdev_lvol_set_read_only", {"name": "pool/none"}, gone, "name"),
                ("bdev_lvol_get_space", {"name": "pool/v", "exclusive": "yes"}, bad, "exclusive"),
                ("bdev_lvol_get_changed_ranges", {"name": "pool/v", "base": "pool/none"}, gone, "base"),
                ("bdev_lvol_get_changed_ranges", {"name": "pool/v", "offset": 5}, bad, "offset"),
                ("bdev_lvol_get_changed_ranges", {"name": "pool/v", "max": 0}, bad, "max"),
                ("bdev_lvol_get_xattr", {"name": "pool/v", "xattr_name": "none"},
                 (-32603, "No such file or directory"), "xattr_name"),
                ("bdev_lvol_set_xattr", {"name": "pool/s", "xattr_name": "k", "xattr_value": "v"},
                 (-32602, "Operation not permitted"), "name"),
                ("bdev_lvol_set_xattr", {"name": "pool/v", "xattr_name": "", "xattr_value": "v"}, invalid, "xattr_name"),
                ("bdev_lvol_set_xattr", {"name": "pool/v", "xattr_name": "k", "xattr_value": "v" * 3000},
                 (-32602, "Argument list too long"), "xattr_value")]:
            with self.subTest(method=method, params=params):
                self.assert_error(*error, rpc, method, params, parameter=parameter)
        self.assertEqual(len(rpc("bdev_lvol_get_lvols")), 4)

    def test_a_thick_volumes_snapshot_needs_its_space_again(self):
        rpc = self.pool(self.daemon("--ephemeral"), 128 * MIB)
        self.volume(rpc, "thick", 80, thin=False)
        self.open(rpc)
        self.write(rpc, "thick", 0, b"t" * 60 * MIB)
        self.assert_error(-32602, "No space left on device", self.snapshot, rpc, "thick", "s")
        self.write(rpc, "thick", 0, b"u" * 60 * MIB)
        self.assertEqual(self.read(rpc, "thick", 30 * MIB, 4096), b"u" * 4096)

    def test_attributes_are_there_after_a_kill(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.volume(rpc)
        attribute = lambda name, value: rpc("bdev_lvol_set_xattr",
                                            {"name": "pool/v", "xattr_name": name, "xattr_value": value})
        self.assertTrue(attribute("foo", "bar"))
        self.assertTrue(attribute("foo", "baz"))
        self.assertTrue(attribute("gone", "x"))
        self.assertTrue(rpc("bdev_lvol_remove_xattr", {"name": "pool/v", "xattr_name": "gone"}))
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(rpc("bdev_lvol_get_xattr", {"name": "pool/v", "xattr_name": "foo"}), "baz")
        self.assertEqual(self.driver(rpc, "v")["xattrs"], {"foo": "baz"})
        self.assert_error(-32602, "No such file or directory", rpc, "bdev_lvol_remove_xattr",
                          {"name": "pool/v", "xattr_name": "gone"}, parameter="xattr_name")

    def test_a_volume_tells_its_own_clusters(self):
        rpc = self.pool(self.daemon("--ephemeral"), cluster_sz=4 * MIB)
        self.volume(rpc, size_in_mib=40)
        self.open(rpc)
        fragmap = lambda name="v", **more: rpc("bdev_lvol_get_fragmap", {"name": f"pool/{name}", **more})
        self.assertEqual(fragmap(), {"cluster_size": 4 * MIB, "num_clusters": 10, "num_allocated_clusters": 0,
                                     "fragmap": "AAA="})
        self.write(rpc, "v", 0, b"1" * 12 * MIB)
        self.write(rpc, "v", 28 * MIB, b"1" * 12 * MIB)
        self.assertEqual((fragmap()["num_allocated_clusters"], fragmap()["fragmap"]), (6, "hwM="))
        self.assertEqual(fragmap(offset=0, size=20 * MIB)["fragmap"], "Bw==")
        self.assertEqual(fragmap(offset=20 * MIB, size=20 * MIB)["fragmap"], "HA==")
        self.snapshot(rpc, "v", "s")
        self.assertEqual(fragmap("s")["fragmap"], "hwM=")
        self.assertEqual(fragmap()["fragmap"], "AAA=")
        self.write(rpc, "v", 16 * MIB, b"2" * 4096)
        self.assertEqual(base64.b64decode(fragmap()["fragmap"]), b"\x10\x00")
        self.assert_error(-22, f"offset 4096 and size {40 * MIB - 4096} must be a multiple of cluster size {4 * MIB}",
                          lambda: fragmap(offset=4096), parameter="offset")
        self.assert_error(-22, f"offset 0 and size {44 * MIB} exceed lvol size {40 * MIB}", lambda: fragmap(size=44 * MIB),
                          parameter="size")
        # Of one so large that the answer would hold everybody up, it is told in parts.
        most = 16 << 20
        self.volume(rpc, "huge", size_in_mib=(most + 20) * 4)
        self.assert_error(-27, "File too large", lambda: fragmap("huge"), parameter="size")
        self.write(rpc, "huge", most * 4 * MIB, b"3" * 32 * MIB)
        self.write(rpc, "huge", 12 * MIB, b"3" * 4096)
        whole = fragmap("huge", offset=0, size=most * 4 * MIB)
        self.assertEqual((whole["num_clusters"], whole["num_allocated_clusters"]), (most, 1))
        self.assertEqual(base64.b64decode(whole["fragmap"]), b"\x08" + bytes(most // 8 - 1))
        rest = fragmap("huge", offset=(most - 4) * 4 * MIB)
        self.assertEqual((rest["num_clusters"], rest["num_allocated_clusters"]), (24, 8))
        self.assertEqual(base64.b64decode(rest["fragmap"]), b"\xf0\x0f\x00")

    def test_what_changed_between_two_snapshots(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.pool(daemon)
        self.volume(rpc)
        self.open(rpc)
        self.write(rpc, "v", 0, b"1" * 2 * MIB)
        self.snapshot(rpc, "v", "s1")
        self.write(rpc, "v", 8192, b"2" * 4096)
        self.write(rpc, "v", 5 * MIB, b"2" * 8192)
        with self.namespace(rpc, "v") as nsid:
            ferrule.nvme(self.port, "trim", "--nsid", nsid, "--offset", str(MIB), "--length", str(MIB))
        self.snapshot(rpc, "v", "s2")
        changed = lambda **more: rpc("bdev_lvol_get_changed_ranges", {"name": "pool/s2", "base": "pool/s1", **more})
        ranges = [{"offset": 8192, "length": 4096, "mapped": True}, {"offset": MIB, "length": MIB, "mapped": False},
                  {"offset": 5 * MIB, "length": 8192, "mapped": True}]
        self.assertEqual(changed(), {"size_bytes": 16 * MIB, "ranges": ranges, "next_offset": None})
        part = changed(max=1)
        self.assertEqual((part["ranges"], part["next_offset"]), (ranges[:1], MIB))
        part = changed(offset=MIB)
        self.assertEqual(part["ranges"], ranges[1:])
        allocated = rpc("bdev_lvol_get_changed_ranges", {"name": "pool/s1"})
        self.assertEqual(sum(r["length"] for r in allocated["ranges"]), 2 * MIB)
        by_hand = json.loads(daemon.cli("volume", "diff", "pool/s2", "pool/s1", "--json").stdout)
        self.assertEqual(by_hand, ranges)
        self.assertEqual(len(daemon.cli("volume", "diff", "pool/s2", "pool/s1").stdout.splitlines()), 4)

    def test_by_hand(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.pool(daemon)
        cli = daemon.cli
        cli("volume", "create", "pool/v", "16M")
        self.assertRegex(cli("volume", "snapshot", "pool/v", "s").stdout.strip(), UUID)
        cli("volume", "clone", "pool/s", "pool/c")
        rows = {line.split()[0]: line for line in cli("volume", "list").stdout.splitlines()}
        self.assertRegex(rows["pool/c"], r"yes +no +no +s +")
        self.assertRegex(rows["pool/s"], r"yes +yes +no +- +")
        cli("volume", "attribute", "pool/v", "owner", "me")
        self.assertEqual(cli("volume", "attribute", "pool/v", "owner").stdout, "me\n")
        self.assertEqual(cli("volume", "attribute", "pool/v").stdout, "owner = me\n")
        self.assertEqual(json.loads(cli("volume", "attribute", "pool/v", "--json").stdout), {"owner": "me"})
        cli("volume", "attribute", "pool/v", "owner", "--remove")
        self.assertEqual(cli("volume", "attribute", "pool/v").stdout, "")
        self.assertIn("not counted yet", cli("volume", "space", "pool/c").stdout)
        self.assertIn("0 s ago", cli("volume", "space", "pool/c", "--exclusive").stdout)
        rows = {line.split()[0]: line for line in cli("volume", "list").stdout.splitlines()}
        self.assertRegex(rows["pool/c"], r" \d+ s ago ")
        self.assertNotIn("ago", rows["pool/v"])
        self.assertEqual(cli("volume", "diff", "pool/c").stdout, "no data\n")
        cli("volume", "revert", "pool/v", "pool/s")
        cli("volume", "decouple", "pool/c")
        cli("volume", "read-only", "pool/c")
        cli("volume", "inflate", "pool/v")
        id = cli("volume", "inflate", "pool/v", "--background").stdout.strip()
        cli("job", "wait", id)
        self.assertEqual(self.driver(rpc, "c")["clone"], False)
        self.assertIn("snapshot the volume first", cli("volume", "clone", "pool/v", "d", check=False).stderr)


if __name__ == "__main__":
    ferrule.main()
