#!/usr/bin/env python3
"""The methods for devices and exports: shapes, errors and texts as SPDK's clients know them."""
import contextlib
import ctypes
import os
import socket
import unittest

import ferrule

NQN = "nqn.2026-01.io.ferrule:m"
UUID = "11111111-2222-3333-4444-555555555555"


class Methods(ferrule.Case):
    def setUp(self):
        super().setUp()
        self.target = self.daemon("--ephemeral")
        self.rpc = self.target.rpc()
        self.addCleanup(self.rpc.close)

    def null(self, name="n0", **more):
        return self.rpc("bdev_null_create", {"name": name, "block_size": 512, "num_blocks": 2048, **more})

    def subsystem(self, **more):
        self.rpc("nvmf_create_transport", {"trtype": "TCP"})
        return self.rpc("nvmf_create_subsystem", {"nqn": NQN, **more})

    def address(self, port="4420", **more):
        return {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port, **more}

    # --- the process

    def test_the_list_of_methods_is_complete(self):
        names = self.rpc("rpc_get_methods")
        for name in """rpc_get_methods spdk_get_version framework_get_reactors thread_get_stats bdev_get_bdevs bdev_get_iostat
                bdev_malloc_create bdev_malloc_delete bdev_null_create bdev_null_delete bdev_aio_create bdev_aio_delete
                bdev_uring_create bdev_uring_delete bdev_wait_for_examine nvmf_create_transport nvmf_get_transports nvmf_get_stats
                nvmf_create_subsystem nvmf_delete_subsystem nvmf_get_subsystems nvmf_subsystem_add_ns nvmf_subsystem_remove_ns
                nvmf_subsystem_add_listener nvmf_subsystem_remove_listener nvmf_subsystem_get_listeners
                nvmf_subsystem_add_host nvmf_subsystem_remove_host nvmf_subsystem_allow_any_host
                nvmf_subsystem_get_controllers nvmf_subsystem_get_qpairs log_set_level log_get_level""".split():
            self.assertIn(name, names)
        self.assertFalse([name for name in names if name.startswith("ferrule_")])
        self.assert_error(-32601, "Method not found", self.rpc, "nvmf_no_such")

    def test_the_daemons_own_methods_are_not_for_clients(self):
        self.rpc.send("ferrule_namespace_gone", {"nqn": NQN, "nsid": 1})
        self.assertEqual(self.rpc.receive()["error"]["code"], -32600)

    def test_version_reactors_and_threads(self):
        version = self.rpc("spdk_get_version")
        self.assertEqual(sorted(version["fields"])[:4], ["major", "minor", "patch", "suffix"])
        reactors = self.rpc("framework_get_reactors")
        self.assertEqual(reactors["pid"], self.target.process.pid)
        reactor = reactors["reactors"][0]
        self.assertLessEqual({"lcore", "numa_id", "tid", "busy", "idle", "in_interrupt", "irq", "sys", "usr", "lw_threads"}, set(reactor))
        self.assertIs(type(reactor["numa_id"]), int)
        self.assertGreaterEqual(reactor["numa_id"], 0)
        self.assertLessEqual({"name", "id", "cpumask", "elapsed"}, set(reactor["lw_threads"][0]))
        threads = self.rpc("thread_get_stats")["threads"]
        self.assertIn("app", [t["name"] for t in threads])
        self.assertLessEqual({"name", "id", "cpumask", "busy", "idle", "active_pollers_count", "timed_pollers_count",
                              "paused_pollers_count"}, set(threads[0]))

    def test_log_levels(self):
        self.assertTrue(self.rpc("log_set_level", {"level": "DEBUG"}))
        self.assertEqual(self.rpc("log_get_level"), "DEBUG")
        self.assert_error(-32603, "spdk_json_decode_object failed", self.rpc, "log_set_level", {"level": "debug"},
                          parameter="level")

    # --- devices

    def test_a_device_as_it_is_shown(self):
        self.assertEqual(self.null(uuid=UUID.upper()), "n0")
        bdev = self.rpc("bdev_get_bdevs", {"name": "n0"})[0]
        self.assertEqual(bdev["aliases"], [UUID])
        self.assertEqual((bdev["product_name"], bdev["block_size"], bdev["num_blocks"], bdev["uuid"]),
                         ("Null disk", 512, 2048, UUID))
        self.assertEqual(len(bdev["supported_io_types"]), 20)
        self.assertTrue(bdev["supported_io_types"]["copy"])
        self.assertEqual(set(bdev["assigned_rate_limits"].values()), {0})
        self.assertEqual((bdev["claimed"], bdev["zoned"], bdev["driver_specific"]), (False, False, {}))
        self.assertEqual(self.rpc("bdev_get_bdevs", {"name": UUID})[0]["name"], "n0")

    def test_devices_get_names_and_wrong_ones_are_refused(self):
        self.assertEqual(self.rpc("bdev_malloc_create", {"block_size": 512, "num_blocks": 64}), "Malloc0")
        self.assertEqual(self.rpc("bdev_malloc_create", {"block_size": 4096, "num_blocks": 64}), "Malloc1")
        self.assertEqual(self.rpc("bdev_get_bdevs", {"name": "Malloc1"})[0]["product_name"], "Malloc disk")
        create = {"name": "Malloc0", "block_size": 512, "num_blocks": 64}
        self.assert_error(-17, "File exists", self.rpc, "bdev_malloc_create", create, parameter="name")
        self.assert_error(-22, "Invalid argument", self.rpc, "bdev_malloc_create", {"block_size": 512, "num_blocks": 0})
        self.assert_error(-12, "Cannot allocate memory", self.rpc, "bdev_malloc_create", {"block_size": 0, "num_blocks": 8},
                          parameter="block_size")
        self.assert_error(-22, "Invalid argument", self.rpc, "bdev_malloc_create",
                          {"block_size": 512, "num_blocks": 64, "md_size": 8}, parameter="md_size")
        self.assert_error(-32603, "spdk_json_decode_object failed", self.rpc, "bdev_null_create", {"name": "x"},
                          parameter="block_size")
        self.assert_error(-32603, "spdk_json_decode_object failed", self.rpc, "bdev_null_create",
                          {"name": "x", "block_size": 512, "num_blocks": 8, "colour": "red"}, parameter="colour")

    def test_the_one_wrong_field_is_named(self):
        self.target.make_file("disk", 8 * ferrule.MIB)
        self.rpc("bdev_malloc_create", {"name": "small", "block_size": 512, "num_blocks": 64})
        self.rpc("bdev_malloc_create", {"name": "tiny", "block_size": 512, "num_blocks": 1})
        self.rpc("bdev_malloc_create", {"name": "bare", "block_size": 512, "num_blocks": 65536})
        memory = {"name": "x", "block_size": 512, "num_blocks": 64}
        file = {"name": "x", "filename": "disk", "block_size": 512}
        invalid, store = (-22, "Invalid argument"), {"bdev_name": "small", "lvs_name": "s"}
        rows = [("bdev_malloc_create", memory, {"num_blocks": 1 << 53}, (-12, "Cannot allocate memory"), "too large"),
                ("bdev_get_iostat", {}, {"name": "no"}, (-19, "No such device"), "no device no"),
                ("bdev_lvol_create_lvstore", store, {"bdev_name": "small"}, (-32602, "No space left on device"), "8388608"),
                ("bdev_lvol_create_lvstore", store, {"bdev_name": "tiny"}, (-32602, "No space left on device"), "8388608"),
                ("bdev_lvol_open_lvstore", {}, {"bdev_name": "bare"}, invalid, "no superblock")]
        for method in ["bdev_malloc_create", "bdev_null_create"]:
            rows += [(method, memory, wrong, invalid, detail) for wrong, detail in [
                ({"num_blocks": 0}, "at least 1"), ({"num_blocks": 1 << 60}, "too large"), ({"block_size": 700}, "power of two"),
                ({"name": "n" * 300}, "255")]]
        for method in ["bdev_aio_create", "bdev_uring_create"]:
            rows += [(method, file, wrong, invalid, detail) for wrong, detail in [
                ({"block_size": 700}, "power of two"), ({"name": "n" * 300}, "255")]]
        for method, right, wrong, error, detail in rows:
            with self.subTest(method=method, wrong=wrong):
                caught = self.assert_error(*error, self.rpc, method, {**right, **wrong}, parameter=next(iter(wrong)))
                self.assertIn(detail, caught.data["detail"])

    def test_the_least_device_for_a_store_is_told_truly(self):
        for cluster in [32 << 10, 256 << 10, 1 << 20, 4 << 20]:
            least = max(8 * cluster, (1 << 20) + cluster)
            for nr_bytes in [least - 4096, least]:
                with self.subTest(cluster=cluster, nr_bytes=nr_bytes):
                    self.rpc("bdev_malloc_create", {"name": "d", "block_size": 4096, "num_blocks": nr_bytes // 4096})
                    store = {"bdev_name": "d", "lvs_name": "s", "cluster_sz": cluster}
                    if nr_bytes < least:
                        error = self.assert_error(-32602, "No space left on device", self.rpc, "bdev_lvol_create_lvstore",
                                                  store, parameter="bdev_name")
                        self.assertIn(f"at least {least}", error.data["detail"])
                    else:
                        self.rpc("bdev_lvol_create_lvstore", store)
                        self.rpc("bdev_lvol_delete_lvstore", {"lvs_name": "s"})
                    self.rpc("bdev_malloc_delete", {"name": "d"})

    def test_a_file_too_short_for_a_store_is_told_so(self):
        for nr_bytes in [0, 100, 512, 4096, 1 << 20]:
            with self.subTest(nr_bytes=nr_bytes):
                done = self.target.cli("store", "check", self.target.make_file("short", nr_bytes), check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"too short for a store: {nr_bytes} bytes", done.stderr)

    def test_devices_are_deleted_by_the_method_of_their_kind(self):
        self.null()
        self.assert_error(-19, "No such device", self.rpc, "bdev_malloc_delete", {"name": "n0"}, parameter="name")
        self.assertTrue(self.rpc("bdev_null_delete", {"name": "n0"}))
        self.assert_error(-19, "No such device", self.rpc, "bdev_null_delete", {"name": "n0"}, parameter="name")
        self.assertEqual(self.rpc("bdev_get_bdevs"), [])

    def test_an_unknown_device_is_waited_for_when_asked(self):
        self.assert_error(-19, "No such device", self.rpc, "bdev_get_bdevs", {"name": "x"}, parameter="name")
        self.assert_error(-110, "Connection timed out", self.rpc, "bdev_get_bdevs", {"name": "x", "timeout": 20})

    def test_counters_of_a_device(self):
        self.rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 8192})
        port = ferrule.export(self.rpc, "m")
        ferrule.nvme(port, "write", "--length", "65536", data=b"x" * 65536)
        stat = self.rpc("bdev_get_iostat", {"name": "m"})
        self.assertGreater(stat["tick_rate"], 0)
        one = stat["bdevs"][0]
        self.assertEqual(one["name"], "m")
        self.assertGreaterEqual(one["bytes_written"], 65536)
        self.assertGreater(one["num_write_ops"], 0)
        self.assertGreater(one["max_write_latency_ticks"], 0)
        self.rpc("bdev_get_iostat", {"names": ["m"], "reset_mode": "all"})
        self.assertEqual(self.rpc("bdev_get_iostat", {"names": ["m"]})["bdevs"][0]["bytes_written"], 0)
        self.assert_error(-19, "No such device", self.rpc, "bdev_get_iostat", {"names": ["x"]}, parameter="names")

    def test_the_channels_of_a_device_are_counted_apart(self):
        target = self.daemon("--ephemeral", "--cores", "0,1")
        with contextlib.closing(target.rpc()) as rpc:
            rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 8192})
            port = ferrule.export(rpc, "m")
            for _ in range(4):
                ferrule.nvme(port, "write", "--length", "4096", data=b"x" * 4096)
            stat = rpc("bdev_get_iostat", {"names": ["m"], "per_channel": True})
            threads = {t["id"] for t in rpc("thread_get_stats")["threads"]}
            whole = rpc("bdev_get_iostat", {"names": ["m"]})["bdevs"][0]
        self.assertEqual(set(stat), {"tick_rate", "ticks", "name", "channels"})
        self.assertEqual(stat["name"], "m")
        self.assertEqual(len(stat["channels"]), 2)
        ids = [c["thread_id"] for c in stat["channels"]]
        self.assertEqual(len(set(ids)), 2)
        self.assertLessEqual(set(ids), threads)
        for key in ["num_write_ops", "bytes_written"]:
            self.assertEqual(sum(c[key] for c in stat["channels"]), whole[key])
            self.assertGreater(whole[key], 0)

    def test_the_extremes_of_a_device_are_reset_by_themselves(self):
        self.rpc("bdev_malloc_create", {"name": "m", "block_size": 512, "num_blocks": 8192})
        port = ferrule.export(self.rpc, "m")
        ferrule.nvme(port, "write", "--length", "65536", data=b"x" * 65536)
        before = self.rpc("bdev_get_iostat", {"names": ["m"], "reset_mode": "maxmin"})["bdevs"][0]
        self.assertGreater(before["min_write_latency_ticks"], 0)
        after = self.rpc("bdev_get_iostat", {"names": ["m"]})["bdevs"][0]
        self.assertEqual(after["num_write_ops"], before["num_write_ops"])
        self.assertEqual(after["write_latency_ticks"], before["write_latency_ticks"])
        self.assertEqual((after["max_write_latency_ticks"], after["min_write_latency_ticks"]), (0, 0))
        ferrule.nvme(port, "write", "--length", "4096", data=b"x" * 4096)
        after = self.rpc("bdev_get_iostat", {"names": ["m"]})["bdevs"][0]
        self.assertGreater(after["min_write_latency_ticks"], 0)
        self.assertGreaterEqual(after["max_write_latency_ticks"], after["min_write_latency_ticks"])
        self.assert_error(-32603, "spdk_json_decode_object failed", self.rpc, "bdev_get_iostat", {"reset_mode": "some"},
                          parameter="reset_mode")

    # --- files

    def test_a_device_that_delays_another(self):
        self.null()
        latencies = {f"{kind}_{what}_latency": us for kind, us in (("avg", 80), ("p99", 90)) for what in ("read", "write")}
        self.assert_error(-19, "No such device", self.rpc, "bdev_delay_create", {"name": "d", "base_bdev_name": "n1", **latencies},
                          parameter="base_bdev_name")
        self.assertEqual(self.rpc("bdev_delay_create", {"name": "d", "base_bdev_name": "n0", **latencies}), "d")
        self.assert_error(-16, "Device or resource busy", self.rpc, "bdev_delay_create", {"name": "e", "base_bdev_name": "n0", **latencies},
                          parameter="base_bdev_name")
        update = {"delay_bdev_name": "d", "latency_type": "avg_read", "latency_us": 91}
        self.assert_error(-22, "Invalid argument", self.rpc, "bdev_delay_update_latency", update,
                          parameter="latency_us")
        self.assertTrue(self.rpc("bdev_delay_update_latency", {**update, "latency_us": 5}))
        shown = self.rpc("bdev_get_bdevs", {"name": "d"})[0]
        self.assertEqual(shown["driver_specific"],
                         {"delay": {"base_bdev_name": "n0", **latencies, "avg_read_latency": 5}})
        self.assert_error(-19, "No such device", self.rpc, "bdev_null_delete", {"name": "d"},
                          parameter="name")
        self.assertTrue(self.rpc("bdev_delay_delete", {"name": "d"}))
        self.assertFalse(self.rpc("bdev_get_bdevs", {"name": "n0"})[0]["claimed"])

    def test_a_file_is_a_device_under_both_names(self):
        path = self.target.make_file("disk", 8 * ferrule.MIB)
        self.assertEqual(self.rpc("bdev_aio_create", {"name": "a", "filename": path, "block_size": 4096}), "a")
        bdev = self.rpc("bdev_get_bdevs", {"name": "a"})[0]
        self.assertEqual((bdev["product_name"], bdev["num_blocks"]), ("AIO disk", 2048))
        self.assertEqual(bdev["driver_specific"]["aio"]["filename"], path)
        self.assertTrue(self.rpc("bdev_aio_delete", {"name": "a"}))
        self.assertEqual(self.rpc("bdev_uring_create", {"name": "u", "filename": "disk"}), "u")
        self.assertTrue(self.rpc("bdev_uring_delete", {"name": "u"}))

    def test_a_missing_file_is_told_with_the_remedy(self):
        error = self.assert_error(-2, "No such file or directory", self.rpc, "bdev_aio_create",
                                  {"name": "a", "filename": os.path.join(self.target.files, "none")}, parameter="filename")
        self.assertIn("truncate", error.data["detail"])

    def test_files_outside_of_the_folders_are_refused_however_they_are_named(self):
        outside = os.path.join(self.target.dir, "outside")
        with open(outside, "wb") as f:
            f.truncate(ferrule.MIB)
        os.symlink(outside, os.path.join(self.target.files, "link"))
        os.symlink(self.target.dir, os.path.join(self.target.files, "up"))
        os.symlink(os.path.join(self.target.files, "loop"), os.path.join(self.target.files, "loop"))
        self.target.make_file("inside", ferrule.MIB)
        for name in [outside, "../outside", "link", "up/outside", self.target.files + "/../outside",
                     self.target.files + "x/disk", "/etc/passwd", "/etc/nosuchfile", self.target.files, "/", ""]:
            for method in ["bdev_aio_create", "bdev_uring_create"]:
                with self.subTest(name=name, method=method):
                    self.assert_error(-13, "Permission denied", self.rpc, method, {"name": "a", "filename": name},
                                      parameter="filename")
        self.assert_error(-40, "Too many levels of symbolic links", self.rpc, "bdev_aio_create",
                          {"name": "a", "filename": "loop"})
        self.assertEqual(self.rpc("bdev_aio_create", {"name": "a", "filename": "./up/files/inside"}), "a")

    # --- exports

    def test_transports(self):
        self.assertEqual(self.rpc("nvmf_get_transports"), [])
        self.assertTrue(self.rpc("nvmf_create_transport", {"trtype": "tcp", "in_capsule_data_size": 8192, "future_key": 1,
                                                           "num_shared_buffers": 4096, "buf_cache_size": 32}))
        self.assert_error(-32602, "Transport type 'tcp' already exists", self.rpc, "nvmf_create_transport",
                          {"trtype": "tcp"}, parameter="trtype")
        for limit in [{"max_queue_depth": 1}, {"max_io_size": 12345}, {"in_capsule_data_size": 100}, {"max_aq_depth": 8}]:
            self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_create_transport", {"trtype": "TCP", **limit},
                              parameter=next(iter(limit)))
        self.assert_error(-32602, "Invalid transport type 'XYZ'", self.rpc, "nvmf_create_transport", {"trtype": "XYZ"})
        transport = self.rpc("nvmf_get_transports")[0]
        self.assertEqual((transport["trtype"], transport["in_capsule_data_size"]), ("TCP", 8192))
        self.assertLessEqual({"max_queue_depth", "max_io_qpairs_per_ctrlr", "max_io_size", "io_unit_size", "max_aq_depth",
                              "num_shared_buffers", "buf_cache_size", "c2h_success", "abort_timeout_sec"}, set(transport))
        self.assert_error(-19, "No such device", self.rpc, "nvmf_get_transports", {"trtype": "RDMA"})
        self.assert_error(-32603, "Unable to find a target.", self.rpc, "nvmf_get_transports", {"tgt_name": "other"})

    @unittest.skipIf(os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"), "there is an RDMA device")
    def test_a_transport_that_this_machine_cannot_have_names_the_remedy(self):
        error = self.assert_error(-32603, "Transport type 'rdma' create failed", self.rpc, "nvmf_create_transport",
                                  {"trtype": "rdma", "max_srq_depth": 1024, "no_srq": False})
        self.assertRegex(error.data["detail"], "rdma link add|librdmacm-dev")
        self.assertEqual(self.rpc("nvmf_get_transports"), [])

    def test_statistics_by_poll_group(self):
        self.rpc("nvmf_create_transport", {"trtype": "TCP"})
        stats = self.rpc("nvmf_get_stats")
        self.assertGreater(stats["tick_rate"], 0)
        group = stats["poll_groups"][0]
        self.assertTrue(group["name"])
        for key in ["admin_qpairs", "io_qpairs", "current_admin_qpairs", "current_io_qpairs", "pending_bdev_io", "completed_nvme_io"]:
            self.assertEqual(group[key], 0)
        self.assertEqual(group["transports"], [{"trtype": "TCP"}])

    def test_the_cache_sizes_of_a_transport_are_those_of_the_pool(self):
        for cores, mem in [("0", "256"), ("0,1", "144")]:
            target = self.daemon("--ephemeral", "--cores", cores, "--mem", mem)
            with contextlib.closing(target.rpc()) as rpc:
                rpc("nvmf_create_transport", {"trtype": "TCP"})
                transport = rpc("nvmf_get_transports")[0]
            nr_large = int(mem) * ferrule.MIB // 4 // transport["io_unit_size"]
            share = nr_large // (4 * len(cores.split(",")))
            self.assertEqual(transport["iobuf_large_cache_size"], min(share, 128))
            self.assertEqual(transport["iobuf_small_cache_size"], 128)
            self.assertEqual(transport["buf_cache_size"], min(share, 128) + 128)

    def sock_priorities(self):
        """SO_PRIORITY of each socket that the daemon has."""
        pid, found = self.target.process.pid, []
        pidfd = os.pidfd_open(pid)
        self.addCleanup(os.close, pidfd)
        libc = ctypes.CDLL(None, use_errno=True)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
                    continue
                ours = libc.syscall(438, pidfd, int(fd), 0)  # pidfd_getfd
                if ours < 0:
                    self.skipTest(f"no look into another process: {os.strerror(ctypes.get_errno())}")
                with socket.socket(fileno=ours) as copy:
                    found.append(copy.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY))
        return found

    def test_connections_have_the_priority_that_was_asked_for(self):
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_create_transport",
                          {"trtype": "TCP", "sock_priority": 4294967295}, parameter="sock_priority")
        self.assertTrue(self.rpc("nvmf_create_transport", {"trtype": "TCP", "sock_priority": 5}))
        self.assertEqual(self.rpc("nvmf_get_transports")[0]["sock_priority"], 5)
        self.null()
        port = ferrule.export(self.rpc, "n0")
        self.assertNotIn(5, self.sock_priorities())
        with socket.create_connection(("127.0.0.1", port)) as host:
            host.sendall(b"\0\0\x80\0\x80" + bytes(123))  # ICReq
            self.assertEqual(host.recv(1), b"\1")
            self.assertEqual(self.sock_priorities().count(5), 1)

    def test_a_name_that_is_cut_in_an_error_is_still_answered(self):
        for extra in ["", "x"]:  # a character of two bytes stands across the cut in one of them
            name = extra + "\u00e9" * 600
            cut = name.encode()[:223].decode(errors="ignore") + ("" if extra else "?")
            self.assert_error(-32603, "Unable to create subsystem " + cut, self.rpc, "nvmf_create_subsystem", {"nqn": name},
                              parameter="nqn")
            self.assert_error(-19, "No such device", self.rpc, "bdev_get_bdevs", {"name": name}, parameter="name")
            error = self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_get_subsystems", {name: 1})
            self.assertTrue(error.data["parameter"].startswith(extra + "\u00e9\u00e9"))

    def test_a_subsystem_as_it_is_shown(self):
        self.null(uuid=UUID)
        self.subsystem(serial_number="SN1", model_number="MN1", max_namespaces=32, max_discard_size_kib=1024)
        self.rpc("nvmf_subsystem_add_host", {"nqn": NQN, "host": "nqn.2026-01.io.ferrule:h"})
        self.assertEqual(self.rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "n0", "nsid": "7"}}), 7)
        port = ferrule.listen(self.rpc, NQN)
        discovery, subsystem = self.rpc("nvmf_get_subsystems")
        self.assertEqual(discovery["subtype"], "Discovery")
        self.assertEqual(discovery["nqn"], "nqn.2014-08.org.nvmexpress.discovery")
        self.assertEqual((subsystem["nqn"], subsystem["subtype"], subsystem["allow_any_host"]), (NQN, "NVMe", False))
        self.assertEqual((subsystem["serial_number"], subsystem["model_number"], subsystem["max_namespaces"]),
                         ("SN1", "MN1", 32))
        self.assertEqual((subsystem["min_cntlid"], subsystem["max_cntlid"], subsystem["dmrsl"]), (1, 65519, 2048))
        self.assertEqual(subsystem["hosts"], [{"nqn": "nqn.2026-01.io.ferrule:h"}])
        ns = subsystem["namespaces"][0]
        self.assertEqual((ns["nsid"], ns["bdev_name"], ns["name"], ns["uuid"], ns["nguid"]),
                         (7, "n0", "n0", UUID, UUID.replace("-", "").upper()))
        address = subsystem["listen_addresses"][0]
        self.assertEqual((address["trtype"], address["adrfam"], address["traddr"]), ("TCP", "IPv4", "127.0.0.1"))
        self.assertEqual(address["trsvcid"], str(port))
        listener = self.rpc("nvmf_subsystem_get_listeners", {"nqn": NQN})[0]
        self.assertEqual((listener["address"], listener["ana_state"]), (address, "optimized"))
        self.assertEqual(len(self.rpc("nvmf_get_subsystems", {"nqn": NQN})), 1)

    def test_subsystems_that_cannot_be(self):
        self.subsystem()
        self.assert_error(-32603, f"Unable to create subsystem {NQN}", self.rpc, "nvmf_create_subsystem", {"nqn": NQN},
                          parameter="nqn")
        self.assert_error(-32603, "Unable to create subsystem nonsense", self.rpc, "nvmf_create_subsystem",
                          {"nqn": "nonsense"}, parameter="nqn")
        other = {"nqn": NQN + "2"}
        self.assert_error(-32602, f"Subsystem {NQN}2: invalid serial number '{'9' * 21}'", self.rpc, "nvmf_create_subsystem",
                          {**other, "serial_number": "9" * 21}, parameter="serial_number")
        self.assert_error(-32602, f"Subsystem {NQN}2: invalid cntlid range [9-8]", self.rpc, "nvmf_create_subsystem",
                          {**other, "min_cntlid": 9, "max_cntlid": 8}, parameter="max_cntlid")
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_create_subsystem", {**other, "max_namespaces": 0},
                          parameter="max_namespaces")
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_create_subsystem", {**other, "passthrough": True},
                          parameter="passthrough")
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_create_subsystem", {**other, "colour": 1},
                          parameter="colour")
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_create_subsystem", parameter="nqn")
        self.assert_error(-32602, f"Subsystem with NQN '{NQN}9' not found", self.rpc, "nvmf_get_subsystems",
                          {"nqn": NQN + "9"}, parameter="nqn")
        for method in ["nvmf_delete_subsystem", "nvmf_subsystem_get_controllers", "nvmf_subsystem_get_qpairs",
                       "nvmf_subsystem_get_listeners"]:
            self.assert_error(-32602, "Invalid parameters", self.rpc, method, {"nqn": NQN + "9"}, parameter="nqn")

    def test_namespaces_that_cannot_be(self):
        self.null()
        self.null("n1")
        self.subsystem(max_namespaces=4)
        add = lambda **ns: self.rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": ns})
        self.assertEqual(add(bdev_name="n0"), 1)
        for ns, parameter in [({"bdev_name": "none"}, "bdev_name"), ({"bdev_name": "n1", "nsid": 1}, "nsid"),
                              ({"bdev_name": "n1", "nsid": 5}, "nsid"), ({"bdev_name": "n1", "nguid": "12"}, "nguid"),
                              ({"bdev_name": "n1", "eui64": "x" * 16}, "eui64"), ({"nsid": 2}, "bdev_name"),
                              ({"bdev_name": "n1", "no_auto_visible": True}, "no_auto_visible"),
                              ({"bdev_name": "n1", "ptpl_file": "/tmp/x"}, "ptpl_file"),
                              ({"bdev_name": "n1", "colour": 1}, "colour")]:
            with self.subTest(ns=ns):
                self.assert_error(-32602, "Invalid parameters", lambda: add(**ns), parameter="namespace." + parameter)
        self.assertTrue(self.rpc("nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": "1"}))
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": 1},
                          parameter="nsid")

    def test_a_namespace_goes_with_its_device(self):
        self.null()
        self.subsystem()
        self.rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": "n0"}})
        self.rpc("bdev_null_delete", {"name": "n0"})
        self.assertEqual(self.rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"], [])

    def test_listeners(self):
        self.rpc("nvmf_create_subsystem", {"nqn": NQN})
        add = lambda address: self.rpc("nvmf_subsystem_add_listener", {"nqn": NQN, "listen_address": address})
        self.assert_error(-32602, "Invalid parameters", lambda: add(self.address()), parameter="listen_address.trtype")
        self.rpc("nvmf_create_transport", {"trtype": "TCP"})
        ferrule.listen(self.rpc, NQN)
        address = self.rpc("nvmf_subsystem_get_listeners", {"nqn": NQN})[0]["address"]
        self.assert_error(-32602, "Invalid parameters", lambda: add(address), parameter="listen_address")
        self.assertTrue(add({"trtype": "tcp", "adrfam": "ipv6", "traddr": "::1", "trsvcid": ferrule.free_port()}))
        self.assertEqual(self.rpc("nvmf_subsystem_get_listeners", {"nqn": NQN})[1]["address"]["adrfam"], "IPv6")
        for bad, parameter in [({"traddr": "localhost"}, ".traddr"), ({"traddr": "1.2.3.4"}, ".traddr"),
                               ({"trsvcid": "70000"}, ".trsvcid"), ({"trsvcid": 0}, ".trsvcid"), ({"trsvcid": "http"}, ".trsvcid"),
                               ({"adrfam": "IB"}, ".adrfam"), ({"colour": 1}, ".colour")]:
            with self.subTest(bad=bad):
                self.assert_error(-32602, "Invalid parameters", lambda: add(self.address(**bad)),
                                  parameter="listen_address" + parameter)
        self.assertTrue(self.rpc("nvmf_subsystem_remove_listener", {"nqn": NQN, "listen_address": address}))
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_subsystem_remove_listener",
                          {"nqn": NQN, "listen_address": address}, parameter="listen_address")

    def test_hosts(self):
        self.subsystem()
        host = {"nqn": NQN, "host": "nqn.2026-01.io.ferrule:h"}
        self.assertTrue(self.rpc("nvmf_subsystem_add_host", host))
        self.assert_error(-32603, "Internal error", self.rpc, "nvmf_subsystem_add_host", host, parameter="host")
        self.assert_error(-32602, "Invalid parameters", self.rpc, "nvmf_subsystem_add_host",
                          {**host, "host": host["host"] + "2", "dhchap_key": "k"}, parameter="dhchap_key")
        self.assertTrue(self.rpc("nvmf_subsystem_allow_any_host", {"nqn": NQN, "allow_any_host": True}))
        self.assertTrue(self.rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["allow_any_host"])
        self.assertTrue(self.rpc("nvmf_subsystem_remove_host", host))
        self.assert_error(-32603, "Internal error", self.rpc, "nvmf_subsystem_remove_host", host, parameter="host")


if __name__ == "__main__":
    ferrule.main()
