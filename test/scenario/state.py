#!/usr/bin/env python3
"""The saved configuration: there after a restart and after a kill, refused when damaged, one daemon's alone."""
import concurrent.futures
import json
import os
import random
import shutil
import socket
import subprocess
import time

import ferrule
from ferrule import MIB

NQN = "nqn.2026-01.io.ferrule:s"
HOST = "nqn.2026-01.io.ferrule:h"


def configuration(rpc):
    """All that should survive, without what counts and moves."""
    bdevs = rpc("bdev_get_bdevs")
    return {
        "bdevs": bdevs,
        "transports": [{k: v for k, v in t.items() if k != "num_shared_buffers"} for t in rpc("nvmf_get_transports")],
        "subsystems": [s for s in rpc("nvmf_get_subsystems") if s["subtype"] == "NVMe"],
        "level": rpc("log_get_level"),
    }


class State(ferrule.Case):
    def configure(self, daemon):
        rpc = daemon.rpc()
        daemon.make_file("disk", 8 * MIB)
        rpc("bdev_malloc_create", {"name": "m0", "block_size": 4096, "num_blocks": 256})
        rpc("bdev_null_create", {"name": "n0", "block_size": 512, "num_blocks": 4096})
        rpc("bdev_null_create", {"name": "n1", "block_size": 512, "num_blocks": 4096})
        rpc("bdev_aio_create", {"name": "a0", "filename": "disk", "block_size": 512})
        rpc("nvmf_create_transport", {"trtype": "TCP", "in_capsule_data_size": 8192})
        rpc("nvmf_create_subsystem", {"nqn": NQN, "serial_number": "S", "max_namespaces": 16})
        rpc("nvmf_create_subsystem", {"nqn": NQN + "2", "allow_any_host": True})
        for name in ["n0", "m0", "a0", "n1"]:
            rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": name}})
        rpc("nvmf_subsystem_remove_ns", {"nqn": NQN, "nsid": 2})
        rpc("bdev_null_delete", {"name": "n1"})
        rpc("nvmf_subsystem_add_host", {"nqn": NQN, "host": HOST})
        rpc("nvmf_subsystem_add_host", {"nqn": NQN, "host": HOST + "2"})
        rpc("nvmf_subsystem_remove_host", {"nqn": NQN, "host": HOST + "2"})
        rpc("nvmf_subsystem_allow_any_host", {"nqn": NQN + "2", "allow_any_host": False})
        ferrule.listen(rpc, NQN)
        rpc("log_set_level", {"level": "INFO"})
        return configuration(rpc)

    def test_everything_is_there_after_a_restart(self):
        daemon = self.daemon()
        before = self.configure(daemon)
        self.assertEqual(len(before["subsystems"][0]["namespaces"]), 2)
        daemon.restart()
        self.assertEqual(configuration(daemon.rpc()), before)
        daemon.restart()
        self.assertEqual(configuration(daemon.rpc()), before)
        self.assertNotIn("ERROR", daemon.log())

    def test_what_was_answered_is_there_after_a_kill_at_any_moment(self):
        daemon = self.daemon()
        rng = random.Random(1)
        expected = {}
        for round in range(6):
            rpc = daemon.rpc()
            answered, sent = set(), set()
            for i in range(rng.randrange(5, 60)):
                name = f"k{round}-{i}"
                rpc.send("bdev_null_create", {"name": name, "block_size": 512, "num_blocks": 8}, id=name)
                sent.add(name)
            for _ in range(rng.randrange(len(sent))):
                answered.add(rpc.receive()["id"])
            daemon.kill()
            daemon.start()
            there = {b["name"] for b in daemon.rpc()("bdev_get_bdevs")}
            self.assertLessEqual(answered, there)
            self.assertLessEqual({n for n in there if n.startswith(f"k{round}-")}, sent)
            self.assertLessEqual(set(expected), there)
            expected = there
        daemon.stop()

    def test_many_clients_share_syncs_and_lose_nothing(self):
        daemon = self.daemon()

        def client(number):
            rpc = daemon.rpc()
            for i in range(25):
                rpc("bdev_null_create", {"name": f"c{number}-{i}", "block_size": 512, "num_blocks": 8})
            rpc.close()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(client, range(16)))
        daemon.kill()
        daemon.start()
        self.assertEqual(len(daemon.rpc()("bdev_get_bdevs")), 400)

    def test_a_long_history_is_made_short(self):
        daemon = self.daemon("--log-level", "WARNING")
        rpc = daemon.rpc()
        for start in range(0, 8000, 500):
            for i in range(500):
                rpc.send("log_set_level", {"level": "WARNING"})
                if i % 10 == 0:
                    rpc.send("bdev_null_create", {"name": "same", "block_size": 512, "num_blocks": 8})
                    rpc.send("bdev_null_delete", {"name": "same"})
            for _ in range(600):
                self.assertNotIn("error", rpc.receive())
        rpc("bdev_null_create", {"name": "last", "block_size": 512, "num_blocks": 8})
        self.assertLess(os.path.getsize(daemon.journal()), 2 * MIB)
        daemon.kill()
        daemon.start()
        self.assertEqual([b["name"] for b in daemon.rpc()("bdev_get_bdevs")], ["last"])

    def test_ephemeral_neither_reads_nor_writes(self):
        daemon = self.daemon()
        before = self.configure(daemon)
        journal = open(daemon.journal()).read()
        daemon.restart("--ephemeral")
        rpc = daemon.rpc()
        self.assertEqual(rpc("bdev_get_bdevs"), [])
        rpc("bdev_null_create", {"name": "x", "block_size": 512, "num_blocks": 8})
        self.assertEqual(open(daemon.journal()).read(), journal)
        daemon.restart()
        self.assertEqual(configuration(daemon.rpc()), before)

    def test_what_cannot_be_applied_is_kept_and_logged(self):
        daemon = self.daemon()
        before = self.configure(daemon)
        disk = os.path.join(daemon.files, "disk")
        os.rename(disk, disk + ".away")
        daemon.restart()
        self.assertIn("a0", daemon.log())
        rpc = daemon.rpc()
        self.assertNotIn("a0", [b["name"] for b in rpc("bdev_get_bdevs")])
        rpc("bdev_null_create", {"name": "more", "block_size": 512, "num_blocks": 8})
        rpc("bdev_null_delete", {"name": "more"})
        os.rename(disk + ".away", disk)
        daemon.restart()
        self.assertEqual(configuration(daemon.rpc()), before)

    def test_a_namespace_appears_when_its_device_comes_late(self):
        daemon = self.daemon()
        before = self.configure(daemon)
        disk = os.path.join(daemon.files, "disk")
        os.rename(disk, disk + ".away")
        daemon.restart()
        os.rename(disk + ".away", disk)
        rpc = daemon.rpc()
        rpc("bdev_aio_create", {"name": "a0", "filename": "disk", "block_size": 512})
        shown = [n for n in rpc("nvmf_get_subsystems", {"nqn": NQN})[0]["namespaces"] if n["bdev_name"] == "a0"]
        self.assertEqual(len(shown), 1)
        self.assertNotIn("present", shown[0])
        self.assertEqual(shown[0]["nsid"],
                         [n for n in before["subsystems"][0]["namespaces"] if n["bdev_name"] == "a0"][0]["nsid"])

    def test_a_listener_whose_address_is_late_is_tried_until_it_is_there_or_removed(self):
        daemon = self.daemon()
        rpc = daemon.rpc()
        rpc("bdev_null_create", {"name": "n0", "block_size": 512, "num_blocks": 4096})
        first = ferrule.export(rpc, "n0", NQN)
        second = ferrule.listen(rpc, NQN)
        daemon.stop()
        taken = []
        for port in first, second:
            taken.append(socket.socket())
            taken[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken[-1].bind(("127.0.0.1", port))
            taken[-1].listen()
        daemon.start()
        self.assertIn("tried again each second", daemon.log())
        rpc = daemon.rpc()
        listening = lambda: [s for s in rpc("nvmf_get_subsystems") if s["nqn"] == NQN][0]["listen_addresses"]
        self.assertEqual(listening(), [])
        address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(second)}
        self.assertTrue(rpc("nvmf_subsystem_remove_listener", {"nqn": NQN, "listen_address": address}))
        for port in taken:
            port.close()
        end = time.monotonic() + ferrule.DEADLINE
        while not listening():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertEqual([a["trsvcid"] for a in listening()], [str(first)])
        daemon.restart()
        rpc = daemon.rpc()
        self.assertEqual([a["trsvcid"] for a in listening()], [str(first)])

    def test_a_torn_tail_is_left_out(self):
        daemon = self.daemon()
        before = self.configure(daemon)
        daemon.stop()
        whole = open(daemon.journal(), "rb").read()
        for tail in [b"12345678 {\"seq\":", b"\0" * 4096, b"\n", b"deadbeef {}\n" + b"\0" * 100]:
            with open(daemon.journal(), "wb") as f:
                f.write(whole + tail)
            daemon.start()
            self.assertEqual(configuration(daemon.rpc()), before)
            self.assertIn("was not written to its end", daemon.log())
            daemon.rpc()("log_set_level", {"level": "INFO"})
            daemon.restart()
            self.assertNotIn("was not written to its end", daemon.log())
            daemon.stop()

    def test_damage_is_refused_with_the_line(self):
        daemon = self.daemon()
        self.configure(daemon)
        daemon.stop()
        lines = open(daemon.journal(), "rb").read().split(b"\n")
        middle = len(lines) // 2
        lines[middle] = lines[middle][:20] + b"X" + lines[middle][21:]
        with open(daemon.journal(), "wb") as f:
            f.write(b"\n".join(lines))
        daemon.spawn()
        self.assertEqual(daemon.wait(), 1)
        self.assertIn(f"line {middle + 1} ", daemon.log())
        self.assertIn("damaged", daemon.log())

    def test_a_state_folder_has_one_daemon(self):
        first = self.daemon()
        second = self.daemon(start=False)
        second.state_dir = first.state_dir
        second.spawn()
        self.assertEqual(second.wait(), 1)
        self.assertIn("another daemon", second.log())
        self.assertEqual(first.rpc()("log_get_level"), "NOTICE")

    def test_a_socket_has_one_daemon_and_a_stale_one_is_replaced(self):
        first = self.daemon()
        second = self.daemon(start=False)
        second.socket_path = first.socket_path
        second.spawn()
        self.assertEqual(second.wait(), 1)
        self.assertIn("another daemon", second.log())
        self.assertEqual(first.rpc()("log_get_level"), "NOTICE")
        first.kill()
        self.assertTrue(os.path.exists(first.socket_path))
        second.start()
        self.assertEqual(second.rpc()("log_get_level"), "NOTICE")
        second.stop()
        self.assertFalse(os.path.exists(first.socket_path))

    def test_a_file_in_the_sockets_place_is_left_alone(self):
        daemon = self.daemon(start=False)
        with open(daemon.socket_path, "w") as f:
            f.write("precious")
        daemon.spawn()
        self.assertEqual(daemon.wait(), 1)
        self.assertEqual(open(daemon.socket_path).read(), "precious")

    def test_two_daemons_run_side_by_side(self):
        first, second = self.daemon(), self.daemon()
        first.rpc()("bdev_null_create", {"name": "one", "block_size": 512, "num_blocks": 8})
        second.rpc()("bdev_null_create", {"name": "two", "block_size": 512, "num_blocks": 8})
        for daemon, name in [(first, "one"), (second, "two")]:
            ferrule.nvme(ferrule.export(daemon.rpc(), name), "read", "--length", "4096")
            self.assertEqual([b["name"] for b in daemon.rpc()("bdev_get_bdevs")], [name])
        first.stop()
        second.stop()

    def test_two_daemons_of_one_process_number_do_not_meet(self):
        # As in containers that share /run and /dev/hugepages: each is process 1.
        wrapper = ["unshare", "--pid", "--fork", "--kill-child", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        if subprocess.run([*wrapper, "true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("process number namespaces cannot be made here")
        daemons = [ferrule.Daemon("--ephemeral", wrapper=wrapper) for _ in range(2)]
        folders = []
        for daemon in daemons:
            self.addCleanup(daemon.remove)
            daemon.start()
            self.addCleanup(daemon.kill)
            with open(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children") as f:
                fds = f"/proc/{f.read().split()[0]}/fd"
            links = [os.readlink(os.path.join(fds, fd)) for fd in os.listdir(fds)]
            folders += [os.path.dirname(link) for link in links if link.endswith("/lock") and "eal" in link]
        self.assertEqual(len(set(folders)), 2)
        for daemon, folder in zip(daemons, folders):
            self.assertEqual(os.listdir(folder + "/dpdk"), ["ferrule-" + os.path.basename(folder)])
            daemon.rpc()("bdev_null_create", {"name": "n", "block_size": 512, "num_blocks": 8})
            ferrule.nvme(ferrule.export(daemon.rpc(), "n"), "read", "--length", "4096")

    def test_a_full_disk_is_told_and_made_good_later(self):
        if os.geteuid() != 0 or os.system("command -v mount >/dev/null"):
            self.skipTest("needs root to mount a small file system")
        daemon = self.daemon(start=False)
        os.makedirs(daemon.state_dir)
        if os.system(f"mount -t tmpfs -o size=64k none {daemon.state_dir} 2>/dev/null"):
            self.skipTest("mounting is not allowed here")
        try:
            daemon.start()
            rpc = daemon.rpc()
            names = [f"fill{i}" for i in range(20)]
            rpc("bdev_null_create", {"name": names[0], "block_size": 512, "num_blocks": 8})
            hog = os.path.join(daemon.state_dir, "hog")
            with open(hog, "wb", buffering=0) as f:
                while f.write(b"x" * 4096) == 4096:
                    if os.statvfs(daemon.state_dir).f_bfree == 0:
                        break
            errors = []
            for name in names[1:]:
                try:
                    rpc("bdev_null_create", {"name": name, "block_size": 512, "num_blocks": 8})
                except ferrule.RpcError as error:
                    errors.append(error)
            self.assertTrue(errors)
            self.assertEqual((errors[0].code, errors[0].message), (-28, "No space left on device"))
            self.assertIn("could not be saved", errors[0].data["detail"])
            os.unlink(hog)
            rpc("log_set_level", {"level": "INFO"})
            daemon.kill()
            daemon.start()
            self.assertEqual([b["name"] for b in daemon.rpc()("bdev_get_bdevs")], names)
            daemon.stop()
        finally:
            if daemon.process:
                daemon.kill()
            os.system(f"umount {daemon.state_dir}")


if __name__ == "__main__":
    ferrule.main()
