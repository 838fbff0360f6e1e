#!/usr/bin/env python3
"""Jobs, events and thresholds: long calls that answer at once, what happens by itself, and what is left after a restart."""
import json
import os
import re
import shutil
import subprocess
import time

import ferrule
from ferrule import MIB


class Jobs(ferrule.Case):
    def pool(self, daemon, size=128 * MIB, name="pool"):
        rpc = daemon.rpc()
        daemon.make_file(name, size)
        rpc("bdev_uring_create", {"name": "disk-" + name, "filename": name})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk-" + name, "lvs_name": name})
        return rpc

    def wait_until(self, true):
        end = time.monotonic() + ferrule.DEADLINE
        while not true():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def test_a_job_is_waited_for_or_answered_at_once(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 8, "thin_provision": True})
        report = rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})
        self.assertEqual((report["nr_findings"], report["volumes"]), (0, 1))
        id = rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        job = rpc("job_wait", {"job_id": id})
        self.assertEqual((job["job_id"], job["kind"], job["object"], job["state"], job["background"]),
                         (id, "check", "pool", "complete", True))
        self.assertEqual((job["done"], job["result"]["nr_findings"]), (job["total"], 0))
        self.assertGreaterEqual(job["ended_ms"], job["started_ms"])
        self.assertEqual(rpc("job_get_jobs", {"job_id": id}), [job])
        self.assertEqual([(j["state"], j["background"]) for j in rpc("job_get_jobs")],
                         [("complete", False), ("complete", True)])
        self.assertEqual(rpc("job_cancel", {"job_id": id})["state"], "complete")

    def test_a_job_that_ended_is_there_after_a_restart_until_forgotten(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        first = rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        job = rpc("job_wait", {"job_id": first})
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(rpc("job_get_jobs"), [job])
        self.assertTrue(rpc("job_forget", {"job_id": first}))
        self.assert_error(-2, "No such job", rpc, "job_wait", {"job_id": first}, parameter="job_id")
        daemon.restart()
        rpc = daemon.rpc()
        self.assertEqual(rpc("job_get_jobs"), [])
        # numbers are not used again
        second = rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        self.assertGreater(second, first)

    def test_a_job_that_was_under_way_is_taken_up_again(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool", "background": True})
        daemon.stop()
        # As a daemon that was killed before the job's end leaves it.
        with open(daemon.journal()) as f:
            lines = f.read().splitlines(keepends=True)
        begun = [i for i, line in enumerate(lines) if '"kind":"check"' in line and '"ended_ms"' not in line]
        self.assertTrue(begun)
        with open(daemon.journal(), "w") as f:
            f.writelines(lines[:begun[-1] + 1])
        daemon.start()
        rpc = daemon.rpc()
        self.assertIn("goes on after a restart", daemon.log())
        id = rpc("job_get_jobs")[0]["job_id"]
        job = rpc("job_wait", {"job_id": id})
        self.assertEqual((job["state"], job["resumed"]), ("complete", True))

    def test_a_job_waits_for_its_store(self):
        daemon = self.daemon()
        rpc = daemon.rpc()
        daemon.make_file("pool", 256 * MIB)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool"})
        slow = {"avg_read_latency": 20000, "p99_read_latency": 20000, "avg_write_latency": 0, "p99_write_latency": 0}
        rpc("bdev_delay_create", {"name": "slow", "base_bdev_name": "disk", **slow})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "slow", "lvs_name": "pool", "checksums": True})
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 64, "thin_provision": True})
        ferrule.nvme(ferrule.export(rpc, "pool/v"), "write", "--length", str(48 * MIB), data=os.urandom(48 * MIB))
        state = lambda: rpc("job_get_jobs", {"job_id": id})[0]["state"]
        id = rpc("bdev_lvol_scrub_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        # Its device goes while it works, and is not there at the next start.
        self.assertTrue(rpc("bdev_delay_delete", {"name": "slow"}))
        self.wait_until(lambda: state() == "waiting")
        path = os.path.join(daemon.files, "pool")
        daemon.kill()
        os.rename(path, path + ".away")
        daemon.start()
        rpc = daemon.rpc()
        self.wait_until(lambda: state() == "waiting")
        os.rename(path + ".away", path)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool"})
        job = rpc("job_wait", {"job_id": id})
        self.assertEqual((job["state"], job["resumed"], job["result"]["bad"]), ("complete", True, 0))
        # One whose store never comes is ended by hand.
        id = rpc("bdev_lvol_scrub_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        rpc("bdev_uring_delete", {"name": "disk"})
        self.wait_until(lambda: state() in ["waiting", "complete"])
        if state() == "waiting":
            rpc("job_cancel", {"job_id": id})
            self.assertEqual(rpc("job_wait", {"job_id": id})["state"], "canceled")

    def test_only_the_newest_jobs_stay(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.pool(daemon)
        for i in range(104):
            rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool", "background": i % 52 == 0})
            if i % 52 == 0:
                rpc("job_wait", {"job_id": i + 1})
        kept = rpc("job_get_jobs")
        self.assertEqual(len(kept), 102)
        self.assertEqual([j["job_id"] for j in kept if j["background"]], [1, 53])

    def test_wrong_input_names_the_parameter(self):
        rpc = self.daemon("--ephemeral").rpc()
        for method, params, parameter in [("job_wait", {}, "job_id"), ("job_cancel", {"job_id": -1}, "job_id"),
                                          ("job_wait", {"job_id": 1, "timeout_ms": "soon"}, "timeout_ms"),
                                          ("bdev_lvol_check_lvstore", {"lvs_name": "p", "background": 7}, "background"),
                                          ("event_get_events", {"after": "x"}, "after"),
                                          ("bdev_lvol_check_shallow_copy", {}, "operation_id")]:
            with self.subTest(method=method):
                self.assert_error(-32603, "spdk_json_decode_object failed", rpc, method, params, parameter=parameter)
        self.assert_error(-2, "No such job", rpc, "job_cancel", {"job_id": 5}, parameter="job_id")
        self.assert_error(-19, "No such device", rpc, "bdev_lvol_check_shallow_copy", {"operation_id": 5},
                          parameter="operation_id")


    def test_by_hand(self):
        daemon = self.daemon()
        self.pool(daemon)
        cli = daemon.cli
        self.assertEqual(cli("job", "list").stdout, "no jobs\n")
        self.assertIn("pool: 0 findings", cli("store", "check", "pool").stdout)
        self.assertEqual(json.loads(cli("store", "check", "pool", "--json").stdout)["nr_findings"], 0)
        jobs = json.loads(cli("job", "list", "--json").stdout)
        self.assertEqual([j["state"] for j in jobs], ["complete", "complete"])
        id = str(jobs[0]["job_id"])
        self.assertEqual(json.loads(cli("job", "show", id).stdout)["kind"], "check")
        cli("job", "wait", id)
        self.assertEqual(cli("job", "cancel", id).stdout, "complete\n")
        cli("job", "forget", id)
        self.assertIn("No such job", cli("job", "wait", id, check=False).stderr)
        self.assertEqual(len(cli("job", "list").stdout.splitlines()), 2)
        events = cli("events").stdout.splitlines()
        self.assertEqual(len(events), 2)
        self.assertIn("check of pool: complete", events[0])
        first = json.loads(cli("events", "--json").stdout.splitlines()[0])
        self.assertEqual(len(cli("events", "--after", str(first["seq"])).stdout.splitlines()), 1)
        self.assertEqual(cli("store", "thresholds", "pool").stdout, "80 %\n90 %\n95 %\n")
        cli("store", "thresholds", "pool", "50,75")
        self.assertEqual(json.loads(cli("store", "thresholds", "pool", "--json").stdout), [50, 75])
        cli("store", "thresholds", "pool", "none")
        self.assertEqual(cli("store", "thresholds", "pool").stdout, "")
        self.assertEqual(cli("store", "thresholds", "pool", "half", check=False).returncode, 2)
        self.assertIn("free", cli("store", "space", "pool").stdout)
        cli("store", "rename", "pool", "lake")
        self.assertEqual(json.loads(cli("store", "space", "lake", "--json").stdout)["name"], "lake")

    def test_following_events_shows_each_as_it_comes(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.pool(daemon)
        follower = subprocess.Popen([ferrule.FERRULE, "--socket", daemon.socket_path, "events", "--follow", "--json"],
                                    stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        for i in range(3):
            rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})
            self.assertEqual(json.loads(follower.stdout.readline())["data"]["job_id"], i + 1)


class Events(ferrule.Case):
    pool = Jobs.pool

    def test_a_reader_waits_for_the_next_event(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        seen = rpc("event_get_events", {"max": 0})
        self.assertEqual(seen["events"], [])
        reader = daemon.rpc()
        reader.send("event_get_events", {"after": seen["last"], "timeout_ms": 60000})
        id = rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        answer = reader.receive()["result"]
        event = answer["events"][0]
        self.assertEqual((event["type"], event["object"], event["data"]["job_id"], event["data"]["state"]),
                         ("job_ended", "pool", id, "complete"))
        self.assertEqual((answer["last"], answer["missed"]), (event["seq"], False))
        self.assertEqual(rpc("event_get_events", {"after": answer["last"]})["events"], [])
        # A waiting reader does not hold up the end, and numbers go on after it.
        reader.send("event_get_events", {"after": answer["last"], "timeout_ms": 3600000})
        daemon.restart()
        rpc = daemon.rpc()
        self.assertGreater(rpc("event_get_events", {"max": 0})["last"], answer["last"])
        self.assertTrue(rpc("event_get_events", {"after": answer["last"]})["missed"])

    def test_the_ring_keeps_the_newest(self):
        daemon = self.daemon("--ephemeral")
        rpc = self.pool(daemon)
        start = rpc("event_get_events", {"max": 0})["last"]
        for _ in range(1030):
            rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})
        read = rpc("event_get_events", {"after": start, "max": 5})
        self.assertTrue(read["missed"])
        self.assertEqual(len(read["events"]), 5)
        self.assertEqual(read["last"], read["events"][-1]["seq"])
        after, nr = read["last"], 5
        while read["events"]:
            read = rpc("event_get_events", {"after": after, "max": 500})
            self.assertFalse(read["missed"])
            after, nr = read["last"], nr + len(read["events"])
        self.assertEqual(nr, 1024)

    def test_a_store_that_fills_tells_of_its_thresholds(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        self.assertEqual(rpc("bdev_lvol_get_lvstore_space", {"lvs_name": "pool"})["threshold_percents"], [80, 90, 95])
        self.assertTrue(rpc("bdev_lvol_set_lvstore_thresholds", {"lvs_name": "pool", "percents": [40, 60, 90]}))
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        space = rpc("bdev_lvol_get_lvstore_space", {"lvs_name": "pool"})
        self.assertEqual(space["threshold_percents"], [40, 60, 90])
        last = rpc("event_get_events", {"max": 0})["last"]
        size = space["total_clusters"] * 7 // 10 * space["cluster_size"] // MIB
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "thick", "size_in_mib": size})
        crossed = lambda read: [(e["type"], e["object"], e["data"]["threshold_percent"], e["data"]["direction"])
                                for e in read["events"]]
        read = rpc("event_get_events", {"after": last, "timeout_ms": 60000})
        self.assertEqual(crossed(read), [("store_threshold", "pool", 40, "above"), ("store_threshold", "pool", 60, "above")])
        space = rpc("bdev_lvol_get_lvstore_space", {"lvs_name": "pool"})
        self.assertGreaterEqual(space["used_percent"], 60)
        self.assertGreater(space["reserved_clusters"], 0)
        rpc("bdev_lvol_delete", {"name": "pool/thick"})
        read = rpc("event_get_events", {"after": read["last"], "timeout_ms": 60000})
        self.assertEqual(crossed(read), [("store_threshold", "pool", 60, "below"), ("store_threshold", "pool", 40, "below")])
        for wrong in [[50, 40], [101], [1], ["80"], [10, 20, 30, 40, 50, 60, 70, 80, 90]]:
            self.assert_error(-32603, "spdk_json_decode_object failed", rpc, "bdev_lvol_set_lvstore_thresholds",
                              {"lvs_name": "pool", "percents": wrong}, parameter="percents")
        self.assert_error(-19, "No such device", rpc, "bdev_lvol_set_lvstore_thresholds", {"lvs_name": "x", "percents": []},
                          parameter="lvs_name")

    def test_data_that_rot_are_an_event_and_an_error_for_that_block_alone(self):
        daemon = self.daemon()
        rpc = daemon.rpc()
        path = daemon.make_file("pool", 64 * MIB)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool"})
        daemon.cli("store", "create", "pool", "disk", "--checksums")
        self.assertTrue(rpc("bdev_lvol_get_lvstores")[0]["checksums"])
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 8, "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        data = os.urandom(65536)
        ferrule.nvme(port, "write", "--length", "65536", data=data)
        ferrule.nvme(port, "flush")
        daemon.restart()
        rpc = daemon.rpc()
        with open(path, "r+b") as f:
            at = f.read().index(data[20480:24576])
            f.seek(at + 100)
            f.write(bytes([data[20580] ^ 1]))
            f.flush()
            os.fsync(f.fileno())
        last = rpc("event_get_events", {"max": 0})["last"]
        result = ferrule.nvme(port, "read", "--offset", "20480", "--length", "4096", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr.decode().lower(), "unrecovered|2/?81")
        event = rpc("event_get_events", {"after": last, "timeout_ms": 60000})["events"][0]
        self.assertEqual((event["type"], event["object"], event["data"]["lba"], event["data"]["nr_blocks"]),
                         ("checksum_mismatch", "pool/v", 40, 8))
        scrub = daemon.cli("store", "scrub", "pool", check=False)
        self.assertEqual(scrub.returncode, 1, scrub.stderr)
        self.assertIn("1 blocks of 4 KiB bad", scrub.stdout)
        # the rest is read, and all of it can be written
        self.assertEqual(ferrule.nvme(port, "read", "--length", "20480"), data[:20480])
        ferrule.nvme(port, "write", "--length", "65536", data=data)
        self.assertEqual(ferrule.nvme(port, "read", "--length", "65536"), data)

    def test_a_scrub_goes_on_where_it_was(self):
        daemon = self.daemon()
        rpc = daemon.rpc()
        daemon.make_file("pool", 256 * MIB)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool"})
        slow = {"avg_read_latency": 0, "p99_read_latency": 0, "avg_write_latency": 0, "p99_write_latency": 0}
        rpc("bdev_delay_create", {"name": "slow", "base_bdev_name": "disk", **slow})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "slow", "lvs_name": "pool", "checksums": True})
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 64, "thin_provision": True})
        port = ferrule.export(rpc, "pool/v")
        ferrule.nvme(port, "write", "--length", str(48 * MIB), data=os.urandom(48 * MIB))
        self.assertEqual(rpc("bdev_lvol_scrub_lvstore", {"lvs_name": "pool"}),
                         {"bytes": 48 * MIB, "bad": 0, "unverified": 0, "unreadable": 0})
        for kind in ["p99_read", "avg_read"]:
            rpc("bdev_delay_update_latency", {"delay_bdev_name": "slow", "latency_type": kind, "latency_us": 20000})
        id = rpc("bdev_lvol_scrub_lvstore", {"lvs_name": "pool", "background": True})["job_id"]
        while not rpc("job_get_jobs", {"job_id": id})[0]["done"]:
            pass
        # A daemon that is killed has saved it a second ago.
        def saved():
            with open(daemon.journal()) as f:
                return [int(n) for n in re.findall(r'"kind":"scrub".*"bytes":([0-9]+)', f.read())][-1:] or [0]
        end = time.monotonic() + ferrule.DEADLINE
        while saved() == [0]:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        daemon.kill()
        before = saved()
        daemon.start()
        daemon.restart()
        self.assertGreaterEqual(saved(), before)
        rpc = daemon.rpc()
        for kind in ["avg_read", "p99_read"]:
            rpc("bdev_delay_update_latency", {"delay_bdev_name": "slow", "latency_type": kind, "latency_us": 0})
        job = rpc("job_wait", {"job_id": id})
        self.assertEqual((job["state"], job["resumed"]), ("complete", True))
        self.assertIn(job["result"]["bytes"], range(48 * MIB, 51 * MIB))  # the cluster it was at is read again, each time
        rpc("bdev_lvol_delete_lvstore", {"lvs_name": "pool"})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "slow", "lvs_name": "bare"})
        error = self.assert_error(-32602, "Operation not supported", rpc, "bdev_lvol_scrub_lvstore", {"lvs_name": "bare"})
        self.assertIn("without checksums", error.data["detail"])

    def test_a_store_grows_with_its_file(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        before = rpc("bdev_lvol_get_lvstores")[0]["total_data_clusters"]
        self.assertTrue(rpc("bdev_lvol_grow_lvstore", {"lvs_name": "pool"}))
        self.assertEqual(rpc("bdev_lvol_get_lvstores")[0]["total_data_clusters"], before)
        os.truncate(os.path.join(daemon.files, "pool"), 256 * MIB)
        daemon.cli("bdev", "rescan", "disk-pool")
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "disk-pool"})[0]["num_blocks"], 256 * MIB // 512)
        daemon.cli("store", "grow", "pool")
        after = rpc("bdev_lvol_get_lvstores")[0]
        self.assertGreater(after["total_data_clusters"], before + 110)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 200})
        port = ferrule.export(rpc, "pool/v")
        data = os.urandom(MIB)
        for i in range(0, 200, 10):
            ferrule.nvme(port, "write", "--offset", str(i * MIB), "--length", str(10 * MIB), data=data * 10)
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(rpc("bdev_lvol_get_lvstores")[0]["total_data_clusters"], after["total_data_clusters"])
        self.assertEqual(ferrule.nvme(port, "read", "--offset", str(199 * MIB), "--length", str(MIB)), data)
        self.assertEqual(rpc("bdev_lvol_check_lvstore", {"lvs_name": "pool"})["nr_findings"], 0)
        os.truncate(os.path.join(daemon.files, "pool"), 200 * MIB)
        self.assert_error(-16, "Device or resource busy", rpc, "bdev_aio_rescan", {"name": "disk-pool"}, parameter="name")
        self.assert_error(-19, "No such device", rpc, "bdev_uring_rescan", {"name": "pool/v"}, parameter="name")
        self.assert_error(-19, "No such device", rpc, "bdev_lvol_grow_lvstore", {"lvs_name": "x"}, parameter="lvs_name")

    def test_a_store_that_is_refused_can_be_opened_by_hand(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 1})
        daemon.stop()
        shutil.copy(os.path.join(daemon.files, "pool"), os.path.join(daemon.files, "copy"))
        daemon.start()
        rpc = daemon.rpc()
        rpc("bdev_uring_create", {"name": "copy", "filename": "copy"})
        self.assertEqual([s["base_bdev"] for s in rpc("bdev_lvol_get_lvstores")], ["disk-pool"])
        open = "bdev_lvol_open_lvstore"
        self.assert_error(-32602, "File exists", rpc, open, {"bdev_name": "copy"}, parameter="bdev_name")
        self.assert_error(-32602, "Operation not permitted", rpc, open, {"bdev_name": "disk-pool"}, parameter="bdev_name")
        self.assert_error(-19, "No such device", rpc, open, {"bdev_name": "none"}, parameter="bdev_name")
        rpc("bdev_uring_delete", {"name": "disk-pool"})
        rpc("bdev_wait_for_examine")
        daemon.cli("store", "open", "copy", "--read-only")
        store = rpc("bdev_lvol_get_lvstores")[0]
        self.assertEqual((store["base_bdev"], store["read_only"]), ("copy", True))
        self.assert_error(-32602, "Read-only file system", rpc, "bdev_lvol_create",
                          {"lvs_name": "pool", "lvol_name": "w", "size_in_mib": 1})
        self.assertEqual(len(rpc("bdev_lvol_get_lvols")), 1)

    def test_a_store_opened_read_only_by_hand_stays_so(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 2, "thin_provision": True})
        rpc("bdev_lvol_snapshot", {"lvol_name": "pool/v", "snapshot_name": "s"})
        rpc("bdev_lvol_clone", {"snapshot_name": "pool/s", "clone_name": "c"})
        daemon.stop()
        shutil.copy(os.path.join(daemon.files, "pool"), os.path.join(daemon.files, "copy"))
        daemon.start()
        rpc = daemon.rpc()
        rpc("bdev_uring_create", {"name": "copy", "filename": "copy"})
        refused = []
        while not refused: # it is looked at after the answer
            refused = [e for e in rpc("event_get_events")["events"] if e["type"] == "store_refused"]
        self.assertEqual([e["object"] for e in refused], ["copy"])
        rpc("bdev_uring_delete", {"name": "disk-pool"})
        open = lambda **how: rpc("bdev_lvol_open_lvstore", {"bdev_name": "copy", **how})
        open(read_only=True)
        rpc("bdev_null_create", {"name": "null", "block_size": 512, "num_blocks": 4096})
        v, s, c = "pool/v", "pool/s", "pool/c"
        for method, params in [
                ("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "w", "size_in_mib": 1}),
                ("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "w", "size_in_mib": 1, "thin_provision": True}),
                ("bdev_lvol_delete", {"name": v}), ("bdev_lvol_resize", {"name": v, "size_in_mib": 4}),
                ("bdev_lvol_resize", {"name": v, "size_in_mib": 1}), ("bdev_lvol_rename", {"old_name": v, "new_name": "w"}),
                ("bdev_lvol_snapshot", {"lvol_name": v, "snapshot_name": "t"}),
                ("bdev_lvol_clone", {"snapshot_name": s, "clone_name": "d"}),
                ("bdev_lvol_revert", {"lvol_name": v, "snapshot_name": s}), ("bdev_lvol_decouple_parent", {"name": c}),
                ("bdev_lvol_set_parent", {"lvol_name": v, "parent_name": s}),
                ("bdev_lvol_set_parent_bdev", {"lvol_name": c, "parent_name": "null"}),
                ("bdev_lvol_clone_bdev", {"bdev": "null", "lvs_name": "pool", "clone_name": "e"}),
                ("bdev_lvol_inflate", {"name": c}), ("bdev_lvol_set_read_only", {"name": v}),
                ("bdev_lvol_set_xattr", {"name": v, "xattr_name": "a", "xattr_value": "b"}),
                ("bdev_lvol_remove_xattr", {"name": v, "xattr_name": "a"}),
                ("bdev_lvol_grow_lvstore", {"lvs_name": "pool"}), ("bdev_lvol_delete_lvstore", {"lvs_name": "pool"}),
                ("bdev_lvol_rename_lvstore", {"old_name": "pool", "new_name": "lake"})]:
            with self.subTest(method=method, params=params):
                error = self.assert_error(-32602, "Read-only file system", rpc, method, params)
                self.assertIn("store pool on copy was opened read-only", error.data["detail"])
                self.assertIn("bdev_lvol_open_lvstore", error.data["detail"])
        self.assertRegex(daemon.cli("store", "list").stdout, r"READ-ONLY +DEGRADED +UUID\npool .* yes +0 +[0-9a-f]")
        read_only = lambda: rpc("bdev_lvol_get_lvstores")[0]["read_only"]
        for end in [daemon.stop, daemon.kill]:
            end()
            daemon.start()
            rpc = daemon.rpc()
            self.assertTrue(read_only())
            self.assertEqual(len(rpc("bdev_lvol_get_lvols")), 3)
        # in use it is not taken away; then it is opened for writing, and stays so
        rpc("nvmf_create_subsystem", {"nqn": "nqn.2026-01.io.ferrule:t"})
        nsid = rpc("nvmf_subsystem_add_ns", {"nqn": "nqn.2026-01.io.ferrule:t", "namespace": {"bdev_name": v}})
        self.assert_error(-32602, "Device or resource busy", open, parameter="bdev_name")
        rpc("nvmf_subsystem_remove_ns", {"nqn": "nqn.2026-01.io.ferrule:t", "nsid": nsid})
        open()
        self.assertFalse(read_only())
        daemon.restart()
        rpc = daemon.rpc()
        self.assertFalse(read_only())
        self.assertTrue(rpc("bdev_lvol_delete", {"name": v}))

    def test_a_store_whose_superblocks_are_gone_is_missed(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        uuid = rpc("bdev_lvol_get_lvstores")[0]["uuid"]
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 1})
        rpc("bdev_malloc_create", {"name": "memory", "block_size": 512, "num_blocks": 65536})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "memory", "lvs_name": "memory"})
        daemon.stop()
        with open(os.path.join(daemon.files, "pool"), "r+b") as file:
            good = file.read(2 * MIB)
            for at in [0, MIB]:
                file.seek(at)
                file.write(bytes(4096))
        daemon.start()
        rpc = daemon.rpc()
        [missing] = [e for e in rpc("event_get_events")["events"] if e["type"] == "store_missing"]
        self.assertEqual(missing["object"], "disk-pool")
        for word in ["store pool", uuid, "superblocks", "bdev_lvol_open_lvstore"]:
            self.assertIn(word, missing["text"])
        self.assertIn("should hold store pool", daemon.log())
        open_it = lambda: rpc("bdev_lvol_open_lvstore", {"bdev_name": "disk-pool"})
        error = self.assert_error(-22, "Invalid argument", open_it, parameter="bdev_name")
        self.assertIn("both of its superblocks are gone", error.data["detail"])
        with open(os.path.join(daemon.files, "pool"), "r+b") as file:
            file.write(good)
        self.assertEqual(open_it(), uuid)
        self.assertEqual(len(rpc("bdev_lvol_get_lvols")), 1)
        # one that was deleted, or whose device was, is not missed
        rpc("bdev_lvol_delete_lvstore", {"lvs_name": "pool"})
        daemon.restart()
        rpc = daemon.rpc()
        self.assertEqual([e for e in rpc("event_get_events")["events"] if e["type"] == "store_missing"], [])

    def test_a_store_is_renamed(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 1})
        rename = lambda old, new: rpc("bdev_lvol_rename_lvstore", {"old_name": old, "new_name": new})
        self.assertTrue(rename("pool", "pool"))
        self.assertTrue(rename("pool", "lake"))
        self.assert_error(-2, "Lvol store pool not found", rename, "pool", "sea", parameter="old_name")
        self.assert_error(-32602, "Invalid argument", rename, "lake", "a/b", parameter="new_name")
        self.pool(daemon, name="sea")
        self.assert_error(-32602, "File exists", rename, "lake", "sea", parameter="new_name")
        daemon.kill()
        daemon.start()
        self.assertEqual(daemon.rpc()("bdev_get_bdevs", {"name": "lake/v"})[0]["aliases"], ["lake/v"])


if __name__ == "__main__":
    ferrule.main()
