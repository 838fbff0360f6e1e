#!/usr/bin/env python3
"""Namespaces of other targets as devices: attached and shown as SPDK's clients expect, there again after a restart, and a store
on one that outlives the other daemon's death."""
import base64
import os
import subprocess
import time

import ferrule
from ferrule import MIB, RpcError

FIRST = "nqn.2026-01.io.ferrule:first"
SECOND = "nqn.2026-01.io.ferrule:second"
THIRD = "nqn.2026-01.io.ferrule:third"


class Base(ferrule.Case):
    def first(self, size=256 * MIB):
        """A daemon that exports a volume; its port."""
        daemon = self.daemon()
        rpc = daemon.rpc()
        daemon.make_file("pool", size)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool", "block_size": 512})
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk", "lvs_name": "pool"})
        rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "v", "size_in_mib": 128, "thin_provision": True})
        return daemon, ferrule.export(rpc, "pool/v", FIRST)

    def attach(self, rpc, port, **more):
        return rpc("bdev_nvme_attach_controller", {"name": "Remote", "trtype": "TCP", "traddr": "127.0.0.1", "adrfam": "IPv4",
                                                   "trsvcid": str(port), "subnqn": FIRST, **more})

    def namespaces(self, rpc, nqn):
        return [s for s in rpc("nvmf_get_subsystems") if s["nqn"] == nqn][0]["namespaces"]

    def state(self, rpc):
        return [path["state"] for path in rpc("bdev_nvme_get_controllers", {"name": "Remote"})[0]["ctrlrs"]]

    def wait_for_state(self, rpc, state):
        end = time.monotonic() + ferrule.DEADLINE
        while self.state(rpc) != [state]:
            self.assertLess(time.monotonic(), end, f"{self.state(rpc)} instead of {state}")
            time.sleep(0.05)


class Attaching(Base):
    def test_a_namespace_of_another_target_is_a_device(self):
        _, port = self.first()
        second = self.daemon()
        rpc = second.rpc()
        self.assertEqual(self.attach(rpc, port), ["Remoten1"])
        device = rpc("bdev_get_bdevs", {"name": "Remoten1"})[0]
        self.assertEqual(device["product_name"], "NVMe disk")
        self.assertEqual(device["num_blocks"] * device["block_size"], 128 * MIB)
        nvme = device["driver_specific"]["nvme"][0]
        self.assertEqual(nvme["trid"], {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port),
                                        "subnqn": FIRST})
        self.assertEqual(nvme["ns_data"]["id"], 1)
        self.assertTrue(nvme["ctrlr_data"]["model_number"])
        controller = rpc("bdev_nvme_get_controllers")[0]
        self.assertEqual(controller["name"], "Remote")
        self.assertEqual(controller["ctrlrs"][0]["state"], "enabled")
        health = rpc("bdev_nvme_get_controller_health_info", {"name": "Remote"})
        self.assertIn("host_read_commands", health)
        self.assertTrue(rpc("bdev_nvme_reset_controller", {"name": "Remote"}))
        self.assertEqual(self.state(rpc), ["enabled"])
        self.assertTrue(rpc("bdev_nvme_detach_controller", {"name": "Remote"}))
        self.assert_error(-19, "No such device", rpc, "bdev_get_bdevs", {"name": "Remoten1"})
        self.assertEqual(rpc("bdev_nvme_get_controllers"), [])

    def test_admin_commands_are_passed_through(self):
        _, port = self.first()
        rpc = self.daemon().rpc()
        self.attach(rpc, port)
        identify = bytes([0x06]) + bytes(39) + bytes([0x01]) + bytes(23)
        call = {"name": "Remote", "cmd_type": "admin", "data_direction": "c2h", "cmdbuf": base64.urlsafe_b64encode(identify).decode(),
                "data_len": 4096}
        answer = rpc("bdev_nvme_send_cmd", call)
        data = base64.urlsafe_b64decode(answer["data"])
        self.assertEqual(len(data), 4096)
        self.assertEqual(data[768:1024].split(b"\0")[0].decode(), FIRST)
        self.assertEqual(len(base64.urlsafe_b64decode(answer["cpl"])), 16)
        # The controller goes by the command's own words: a buffer of any other length is none for it.
        for wrong in (0, 512, 8192):
            self.assert_error(-32603, "spdk_json_decode_object failed", rpc, "bdev_nvme_send_cmd", {**call, "data_len": wrong}, parameter="data_len")
        self.assert_error(-32603, "spdk_json_decode_object failed", rpc, "bdev_nvme_send_cmd", {**call, "data_direction": "h2c"}, parameter="data_direction")
        # What the controller refuses is its answer; what is the driver's own does not get there.
        unknown = base64.urlsafe_b64encode(bytes([0xc0]) + bytes(63)).decode()
        cpl = base64.urlsafe_b64decode(rpc("bdev_nvme_send_cmd", {**call, "cmdbuf": unknown, "data_len": 0})["cpl"])
        self.assertEqual(int.from_bytes(cpl[14:16], "little") >> 1 & 0x7ff, 1)
        event = base64.urlsafe_b64encode(bytes([0x0c]) + bytes(63)).decode()
        self.assert_error(-1, "Operation not permitted", rpc, "bdev_nvme_send_cmd", {**call, "cmdbuf": event, "data_len": 0},
                          parameter="cmdbuf")
        self.assert_error(-19, "No such device", rpc, "bdev_nvme_send_cmd", {**call, "name": "None"}, parameter="name")
        with self.assertRaises(RpcError):
            rpc("bdev_nvme_send_cmd", {**call, "cmdbuf": "AAAA"})

    def command(self, opcode, nsid=0, **dwords):
        """The 64 bytes of a command, as base64."""
        cmd = bytearray(64)
        cmd[0] = opcode
        cmd[4:8] = nsid.to_bytes(4, "little")
        for name, value in dwords.items():
            at = 4 * int(name[2:])
            cmd[at:at + 4] = value.to_bytes(4, "little")
        return base64.urlsafe_b64encode(cmd).decode()

    def status(self, answer):
        return int.from_bytes(base64.urlsafe_b64decode(answer["cpl"])[14:16], "little") >> 1 & 0x7ff

    def test_io_commands_are_passed_through(self):
        _, port = self.first()
        rpc = self.daemon().rpc()
        self.attach(rpc, port)
        pattern = bytes(range(256)) * 16
        call = {"name": "Remote", "cmd_type": "io", "data_direction": "h2c", "cmdbuf": self.command(1, 1, dw10=8, dw12=7),
                "data": base64.urlsafe_b64encode(pattern).decode(), "timeout_ms": 10000}
        self.assertEqual(self.status(rpc("bdev_nvme_send_cmd", call)), 0)
        read = {"name": "Remote", "cmd_type": "io", "data_direction": "c2h", "cmdbuf": self.command(2, 1, dw10=8, dw12=7), "data_len": 4096}
        self.assertEqual(base64.urlsafe_b64decode(rpc("bdev_nvme_send_cmd", read)["data"]), pattern)
        # Past the end: the controller's answer.
        beyond = {**read, "cmdbuf": self.command(2, 1, dw10=1 << 30, dw12=7)}
        self.assertEqual(self.status(rpc("bdev_nvme_send_cmd", beyond)), 0x80)
        self.assert_error(-1, "Operation not permitted", rpc, "bdev_nvme_send_cmd", {**read, "cmdbuf": self.command(0x7f), "data_len": 0},
                          parameter="cmdbuf")
        self.assert_error(-32603, "spdk_json_decode_object failed", rpc, "bdev_nvme_send_cmd", {**read, "cmd_type": "fabrics"}, parameter="cmd_type")

    def test_copies_and_verifications_go_all_the_way_to_the_volume(self):
        first, port = self.first()
        rpc = self.daemon().rpc()
        self.attach(rpc, port)
        back = ferrule.export(rpc, "Remoten1", SECOND)
        pattern = os.urandom(MIB)
        ferrule.nvme(back, "write", "--length", str(MIB), data=pattern, nqn=SECOND)
        # A host of the second's: one that sends what it is told to.
        host = self.daemon().rpc()
        self.attach(host, back, subnqn=SECOND)
        blocks = MIB // 512
        source = bytes(8) + (0).to_bytes(8, "little") + (blocks - 1).to_bytes(2, "little") + bytes(14)
        call = {"name": "Remote", "cmd_type": "io", "data_direction": "h2c", "cmdbuf": self.command(0x19, 1, dw10=2 * blocks),
                "data": base64.urlsafe_b64encode(source).decode(), "timeout_ms": 10000}
        self.assertEqual(self.status(host("bdev_nvme_send_cmd", call)), 0)
        self.assertEqual(ferrule.nvme(back, "read", "--offset", str(2 * MIB), "--length", str(MIB), nqn=SECOND), pattern)
        for where, name in ((rpc, "Remoten1"), (first.rpc(), "pool/v")):
            stat = where("bdev_get_iostat", {"name": name})["bdevs"][0]
            self.assertEqual((stat["num_copy_ops"], stat["bytes_copied"]), (1, MIB))
        ferrule.nvme(back, "verify", "--offset", str(MIB), "--length", str(4 * MIB), nqn=SECOND)
        self.assertNotEqual(ferrule.nvme(back, "verify", "--offset", "100", "--length", "512", nqn=SECOND, check=False).returncode, 0)

    def test_what_each_path_carries_is_counted_when_asked_for(self):
        first, port = self.first()
        other = ferrule.listen(first.rpc(), FIRST)
        second = self.daemon()
        rpc = second.rpc()
        self.attach(rpc, port)
        self.attach(rpc, other)
        self.assert_error(-1, "Operation not permitted", rpc, "bdev_nvme_get_path_iostat", {"name": "Remoten1"}, parameter="name")
        rpc("bdev_nvme_set_options", {"io_path_stat": True})
        rpc("bdev_nvme_set_multipath_policy", {"name": "Remoten1", "policy": "active_active"})
        port2 = ferrule.export(rpc, "Remoten1", SECOND)
        ferrule.nvme(port2, "perf", "--ops", "400", "--read", "0", "--bs", "4096", "--qd", "4", nqn=SECOND)
        stat = rpc("bdev_nvme_get_path_iostat", {"name": "Remoten1"})
        self.assertEqual(stat["name"], "Remoten1")
        self.assertEqual(sorted(s["trid"]["trsvcid"] for s in stat["stats"]), sorted([str(port), str(other)]))
        for path in stat["stats"]:
            self.assertEqual(path["stat"]["num_write_ops"], 200)
            self.assertEqual(path["stat"]["bytes_written"], 200 * 4096)
            self.assertGreater(path["stat"]["write_latency_ticks"], 0)

    def test_what_cannot_be_attached_is_refused_with_a_reason(self):
        _, port = self.first()
        daemon = self.daemon()
        rpc = daemon.rpc()
        self.assert_error(-111, "Connection refused", self.attach, rpc, ferrule.free_port())
        with self.assertRaises(RpcError):
            self.attach(rpc, port, subnqn="nqn.2026-01.io.ferrule:none")
        self.assert_error(-95, "Operation not supported", lambda: self.attach(rpc, port, psk="x"))
        with self.assertRaises(RpcError):
            rpc("bdev_nvme_attach_controller", {"name": "Nvme0", "trtype": "PCIe", "traddr": "ffff:1f:1f.7"})
        self.assertEqual(rpc("bdev_nvme_get_controllers"), [])
        result = daemon.cli("controller", "attach", "X", "127.0.0.1", "--transport", "pigeon", "--nqn", FIRST, check=False)
        self.assertIn("trtype is PCIe, TCP or RDMA", result.stderr)
        self.attach(rpc, port)
        self.assert_error(-17, "File exists", self.attach, rpc, port)
        self.assert_error(-19, "No such device", rpc, "bdev_nvme_detach_controller", {"name": "Nvme9"}, parameter="name")
        self.assert_error(-19, "No such device", rpc, "bdev_nvme_reset_controller", {"name": "Nvme9"}, parameter="name")

    def test_a_controller_is_there_again_after_a_restart(self):
        _, port = self.first()
        second = self.daemon()
        self.attach(second.rpc(), port, ctrlr_loss_timeout_sec=-1, reconnect_delay_sec=1)
        second.restart()
        self.assertEqual(self.state(second.rpc()), ["enabled"])
        rpc = second.rpc()
        rpc("bdev_nvme_detach_controller", {"name": "Remote"})
        second.restart()
        self.assertEqual(second.rpc()("bdev_nvme_get_controllers"), [])

    def test_what_took_a_namespaces_place_while_nobody_looked_is_not_exported_for_it(self):
        first, port = self.first()
        one = first.rpc()
        second = self.daemon()
        rpc = second.rpc()
        self.attach(rpc, port)
        ferrule.export(rpc, "Remoten1", SECOND)
        second.stop()
        one("nvmf_subsystem_remove_ns", {"nqn": FIRST, "nsid": 1})
        one("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": "w", "size_in_mib": 128, "thin_provision": True})
        one("nvmf_subsystem_add_ns", {"nqn": FIRST, "namespace": {"bdev_name": "pool/w", "nsid": 1}})
        second.start()
        rpc = second.rpc()
        self.assertEqual(self.state(rpc), ["enabled"])
        self.assertTrue(rpc("bdev_get_bdevs", {"name": "Remoten1"}))
        self.assertIs(self.namespaces(rpc, SECOND)[0]["present"], False)
        self.assertIn("Remoten1 is another device than the one that was exported", second.log())
        # Who wants that one says so.
        rpc("nvmf_subsystem_remove_ns", {"nqn": SECOND, "nsid": 1})
        rpc("nvmf_subsystem_add_ns", {"nqn": SECOND, "namespace": {"bdev_name": "Remoten1"}})
        second.restart()
        self.assertNotIn("present", self.namespaces(second.rpc(), SECOND)[0])

    def test_what_no_path_is_like_is_not_detached_and_not_forgotten(self):
        _, port = self.first()
        second = self.daemon()
        rpc = second.rpc()
        self.attach(rpc, port)
        ferrule.export(rpc, "Remoten1", SECOND)
        for wrong in {"trtype": "RDMA"}, {"traddr": "127.0.0.2"}, {"trsvcid": "1"}, {"subnqn": SECOND}:
            self.assert_error(-19, "No such device", rpc, "bdev_nvme_detach_controller", {"name": "Remote", **wrong},
                              parameter="name")
        for key, wrong in ("trtype", "bogus"), ("trsvcid", f"{port}abc"):
            with self.assertRaises(RpcError) as raised:
                rpc("bdev_nvme_detach_controller", {"name": "Remote", key: wrong})
            self.assertEqual(raised.exception.data["parameter"], key)
        second.restart()
        rpc = second.rpc()
        self.assertEqual(self.state(rpc), ["enabled"])
        self.assertNotIn("present", self.namespaces(rpc, SECOND)[0])
        self.assertTrue(rpc("bdev_nvme_detach_controller", {"name": "Remote", "trtype": "tcp", "traddr": "127.0.0.1",
                                                            "trsvcid": str(port), "subnqn": FIRST}))
        second.restart()
        self.assertEqual(second.rpc()("bdev_nvme_get_controllers"), [])
        self.assertEqual(self.namespaces(second.rpc(), SECOND), [])

    def test_two_listeners_are_two_paths_and_either_may_go(self):
        first, port = self.first()
        other = ferrule.listen(first.rpc(), FIRST)
        rpc = self.daemon().rpc()
        self.attach(rpc, port)
        self.assertEqual(self.attach(rpc, other), ["Remoten1"])
        self.assertEqual(self.state(rpc), ["enabled", "enabled"])
        self.assertTrue(rpc("bdev_nvme_set_multipath_policy", {"name": "Remoten1", "policy": "active_active"}))
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "Remoten1"})[0]["driver_specific"]["mp_policy"], "active_active")
        paths = rpc("bdev_nvme_get_io_paths", {"name": "Remoten1"})["poll_groups"][0]["io_paths"]
        self.assertEqual([path["current"] for path in paths], [True, True])
        out = ferrule.export(rpc, "Remoten1", SECOND)
        args = [ferrule.FERRULE, "nvme", "perf", "-a", "127.0.0.1", "-s", str(out), "-n", SECOND, "--verify", "--qd", "8", "--bs",
                "4096", "--read", "50", "--time", "3", "--range", "16M"]
        perf = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.7)
        rpc("bdev_nvme_detach_controller", {"name": "Remote", "trsvcid": str(port)})
        self.assertEqual(self.state(rpc), ["enabled"])
        _, errors = perf.communicate(timeout=ferrule.DEADLINE)
        self.assertEqual(perf.returncode, 0, errors.decode())

    def test_paths_are_disabled_enabled_and_preferred(self):
        first, port = self.first()
        other = ferrule.listen(first.rpc(), FIRST)
        daemon = self.daemon()
        rpc = daemon.rpc()
        self.attach(rpc, port)
        self.attach(rpc, other)
        paths = lambda: rpc("bdev_nvme_get_io_paths", {"name": "Remoten1"})["poll_groups"][0]["io_paths"]
        current = lambda: [path["current"] for path in paths()]
        cntlids = [path["cntlid"] for path in paths()]
        self.assertEqual(current(), [True, False])
        self.assertTrue(rpc("bdev_nvme_set_preferred_path", {"name": "Remoten1", "cntlid": cntlids[1]}))
        self.assertEqual(current(), [False, True])
        self.assertTrue(rpc("bdev_nvme_disable_controller", {"name": "Remote", "cntlid": cntlids[1]}))
        self.assertEqual(self.state(rpc), ["enabled", "disabled"])
        self.assertEqual(current(), [True, False])
        disabled = rpc("bdev_nvme_get_controllers")[0]["ctrlrs"][1]
        self.assertEqual(disabled["cntlid"], cntlids[1])
        self.assert_error(-114, "Operation already in progress", rpc, "bdev_nvme_disable_controller",
                          {"name": "Remote", "cntlid": cntlids[1]}, parameter="name")
        port2 = ferrule.export(rpc, "Remoten1", SECOND)
        ferrule.nvme(port2, "write", "--length", str(MIB), data=bytes(MIB), nqn=SECOND)
        self.assertTrue(rpc("bdev_nvme_disable_controller", {"name": "Remote"}))
        self.assertEqual(self.state(rpc), ["disabled", "disabled"])
        self.assertNotEqual(ferrule.nvme(port2, "read", "--length", "4096", nqn=SECOND, check=False).returncode, 0)
        daemon.cli("controller", "enable", "Remote", "--cntlid", str(cntlids[0]))
        self.assertEqual(self.state(rpc), ["enabled", "disabled"])
        self.assertEqual(ferrule.nvme(port2, "read", "--length", "4096", nqn=SECOND), bytes(4096))
        self.assertTrue(rpc("bdev_nvme_enable_controller", {"name": "Remote"}))
        self.assertEqual(self.state(rpc), ["enabled", "enabled"])
        self.assertEqual(current(), [False, True])
        daemon.cli("controller", "prefer", "Remoten1", str(paths()[0]["cntlid"]))
        self.assertEqual(current(), [True, False])
        self.assertIn("disabled", (daemon.cli("controller", "disable", "Remote"), daemon.cli("controller", "list").stdout)[1])
        prefer = lambda name, cntlid: rpc("bdev_nvme_set_preferred_path", {"name": name, "cntlid": cntlid})
        self.assert_error(-19, "No such device", prefer, "Remoten1", 65000, parameter="cntlid")
        self.assert_error(-19, "No such device", prefer, "None", 1, parameter="name")
        self.assert_error(-19, "No such device", rpc, "bdev_nvme_enable_controller", {"name": "None"}, parameter="name")

    def test_a_path_that_goes_under_load_is_no_error_while_there_is_another(self):
        first, port = self.first()
        other = ferrule.listen(first.rpc(), FIRST)
        rpc = self.daemon().rpc()
        self.attach(rpc, port, reconnect_delay_sec=1, ctrlr_loss_timeout_sec=-1)
        self.attach(rpc, other, reconnect_delay_sec=1, ctrlr_loss_timeout_sec=-1)
        out = ferrule.export(rpc, "Remoten1", SECOND)
        args = [ferrule.FERRULE, "nvme", "perf", "-a", "127.0.0.1", "-s", str(out), "-n", SECOND, "--verify", "--qd", "8", "--bs",
                "4096", "--read", "50", "--time", "5", "--range", "16M"]
        perf = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for gone in (port, other):
            time.sleep(0.7)
            address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(gone)}
            first.rpc()("nvmf_subsystem_remove_listener", {"nqn": FIRST, "listen_address": address})
            end = time.monotonic() + ferrule.DEADLINE
            while "reconnect_is_delayed" not in self.state(rpc):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            first.rpc()("nvmf_subsystem_add_listener", {"nqn": FIRST, "listen_address": address})
            while self.state(rpc) != ["enabled", "enabled"]:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
        _, errors = perf.communicate(timeout=ferrule.DEADLINE)
        self.assertEqual(perf.returncode, 0, errors.decode())


class Discovering(Base):
    def devices(self, rpc):
        return sorted(d["name"] for d in rpc("bdev_get_bdevs") if d["product_name"] == "NVMe disk")

    def wait_for_devices(self, rpc, names):
        end = time.monotonic() + ferrule.DEADLINE
        while self.devices(rpc) != names:
            self.assertLess(time.monotonic(), end, f"{self.devices(rpc)} instead of {names}")
            time.sleep(0.05)

    def test_what_a_target_lists_is_attached_and_follows_its_changes(self):
        first, port = self.first()
        one = first.rpc()
        second = self.daemon()
        rpc = second.rpc()
        # Somebody else's controller has one of the names that the discovery would give.
        third = self.daemon().rpc()
        third("bdev_malloc_create", {"name": "own", "num_blocks": 2048, "block_size": 512})
        rpc("bdev_nvme_attach_controller", {"name": "D1", "trtype": "TCP", "traddr": "127.0.0.1", "subnqn": THIRD,
                                            "trsvcid": str(ferrule.export(third, "own", THIRD))})
        for wrong in ({"trsvcid": "45141abc"}, {"adrfam": "IPv6"}):
            call = {"name": "D", "trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": str(port), **wrong}
            self.assert_error(-32603, "spdk_json_decode_object failed", rpc, "bdev_nvme_start_discovery", call, parameter=next(iter(wrong)))
        self.assertTrue(rpc("bdev_nvme_start_discovery", {"name": "D", "trtype": "TCP", "traddr": "127.0.0.1", "adrfam": "IPv4",
                                                          "trsvcid": str(port), "wait_for_attach": True}))
        self.assertEqual(self.devices(rpc), ["D0n1", "D1n1"])
        info = rpc("bdev_nvme_get_discovery_info")[0]
        self.assertEqual((info["name"], info["trid"]["trsvcid"], info["connected"]), ("D", str(port), True))
        self.assertEqual(info["referrals"], [])
        # Another subsystem comes, and goes.
        one("bdev_malloc_create", {"name": "m", "num_blocks": 2048, "block_size": 512})
        ferrule.export(one, "m", SECOND)
        self.wait_for_devices(rpc, ["D0n1", "D1n1", "D2n1"])
        one("nvmf_delete_subsystem", {"nqn": SECOND})
        self.wait_for_devices(rpc, ["D0n1", "D1n1"])
        # After a restart it is all there again; after the end nothing is.
        second.restart()
        rpc = second.rpc()
        self.wait_for_devices(rpc, ["D0n1", "D1n1"])
        self.assert_error(-17, "File exists", rpc, "bdev_nvme_start_discovery",
                          {"name": "D", "trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": str(port)}, parameter="name")
        self.assertTrue(rpc("bdev_nvme_stop_discovery", {"name": "D"}))
        self.assertEqual(self.devices(rpc), ["D1n1"])
        self.assertEqual(rpc("bdev_nvme_get_discovery_info"), [])
        self.assert_error(-19, "No such device", rpc, "bdev_nvme_stop_discovery", {"name": "D"}, parameter="name")

    def test_an_export_stays_that_of_its_namespace_though_another_has_its_name_after_a_restart(self):
        first, port = self.first()
        one = first.rpc()
        one("bdev_malloc_create", {"name": "m", "num_blocks": 2048, "block_size": 512})
        ferrule.nvme(ferrule.export(one, "m", SECOND), "write", "--length", "4096", nqn=SECOND, data=b"m" * 4096)
        second = self.daemon()
        rpc = second.rpc()
        rpc("bdev_nvme_start_discovery", {"name": "D", "trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": str(port),
                                          "wait_for_attach": True})
        self.wait_for_devices(rpc, ["D0n1", "D1n1"])
        out = ferrule.export(rpc, "D1n1", THIRD)
        uuid = rpc("bdev_get_bdevs", {"name": "D1n1"})[0]["uuid"]
        one("nvmf_delete_subsystem", {"nqn": FIRST})
        one("nvmf_subsystem_add_listener", {"nqn": SECOND, "listen_address": {"trtype": "TCP", "adrfam": "IPv4",
                                                                              "traddr": "127.0.0.1", "trsvcid": str(port)}})
        second.restart()
        rpc = second.rpc()
        self.wait_for_devices(rpc, ["D0n1"])
        end = time.monotonic() + ferrule.DEADLINE
        while not self.namespaces(rpc, THIRD)[0].get("present", True):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertEqual(self.namespaces(rpc, THIRD)[0]["uuid"], uuid)
        self.assertEqual(ferrule.nvme(out, "read", "--length", "4096", nqn=THIRD), b"m" * 4096)


class Chain(Base):
    def test_the_first_daemons_death_is_a_pause_for_the_seconds_hosts(self):
        """A store on the first's volume, a volume of it exported: the first is killed under load and comes back."""
        first, port = self.first()
        second = self.daemon()
        rpc = second.rpc()
        self.attach(rpc, port, ctrlr_loss_timeout_sec=-1, reconnect_delay_sec=1)
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "Remoten1", "lvs_name": "far"})
        rpc("bdev_lvol_create", {"lvs_name": "far", "lvol_name": "w", "size_in_mib": 64, "thin_provision": True})
        out = ferrule.export(rpc, "far/w", SECOND)
        args = [ferrule.FERRULE, "nvme", "perf", "-a", "127.0.0.1", "-s", str(out), "-n", SECOND, "--verify", "--qd", "8", "--bs",
                "4096", "--read", "50", "--time", "6", "--range", "16M"]
        perf = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        first.kill()
        self.wait_for_state(rpc, "reconnect_is_delayed")
        time.sleep(1)
        self.assertIsNone(perf.poll())
        first.start()
        self.wait_for_state(rpc, "enabled")
        _, errors = perf.communicate(timeout=ferrule.DEADLINE)
        self.assertEqual(perf.returncode, 0, errors.decode())
        self.assertTrue(rpc("bdev_lvol_get_lvstores", {"lvs_name": "far"}))
        # And everything is there again when both start anew.
        second.stop()
        first.restart()
        second.start()
        self.assertEqual(second.rpc()("bdev_lvol_get_lvstores")[0]["name"], "far")


if __name__ == "__main__":
    ferrule.main()
