#!/usr/bin/env python3
"""Exported volumes and stores that are deleted while the daemon is killed: a volume and its namespace go together, or both stay."""
import os
import time

import ferrule
from ferrule import MIB

NQN = "nqn.2026-01.io.ferrule:t"
VOLUMES = 16


class Deletions(ferrule.Case):
    def pool(self, daemon):
        rpc = daemon.rpc()
        daemon.make_file("pool", 256 * MIB)
        rpc("bdev_uring_create", {"name": "disk", "filename": "pool", "block_size": 512})
        rpc("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True, "max_namespaces": 64})
        return rpc

    def fill(self, rpc, number):
        """Exported volumes, by name and by UUID in turn."""
        names = [f"v{number}-{i}" for i in range(VOLUMES)]
        for i, name in enumerate(names):
            uuid = rpc("bdev_lvol_create", {"lvs_name": "pool", "lvol_name": name, "size_in_mib": 1, "thin_provision": True})
            rpc("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"bdev_name": f"pool/{name}" if i % 2 else uuid}})
        return names

    def namespaces(self, rpc):
        """Volumes that are exported; none may lack its device."""
        [subsystem] = [s for s in rpc("nvmf_get_subsystems") if s["nqn"] == NQN]
        self.assertEqual([ns for ns in subsystem["namespaces"] if not ns.get("present", True)], [])
        uuids = {v["uuid"]: v["name"] for v in rpc("bdev_lvol_get_lvols")}
        return [uuids[ns["uuid"]] for ns in subsystem["namespaces"]]

    def volumes(self, rpc):
        return [v["name"] for v in rpc("bdev_lvol_get_lvols")]

    def test_a_kill_inside_deletions_leaves_no_namespace_without_its_volume(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk", "lvs_name": "pool"})
        for number in range(int(os.environ.get("ROUNDS", "6"))):
            names = self.fill(rpc, number)
            ids = {rpc.send("bdev_lvol_delete", {"name": f"pool/{name}"}): name for name in names}
            answered = set()
            while len(answered) < number % 4:
                answer = rpc.receive()
                self.assertTrue(answer.get("result"), answer)
                answered.add(ids[answer["id"]])
            if number % 4 == 0:
                time.sleep(0.0005 * number)
            daemon.kill()
            daemon.start()
            rpc = daemon.rpc()
            there = self.volumes(rpc)
            self.assertEqual(sorted(self.namespaces(rpc)), sorted(there))
            self.assertFalse(answered & set(there))
            for name in there:
                rpc("bdev_lvol_delete", {"name": f"pool/{name}"})
            self.assertEqual(self.namespaces(rpc), [])

    def test_an_exported_volume_whose_deletion_cannot_be_noted_is_not_deleted(self):
        if os.geteuid() != 0 or os.system("command -v mount >/dev/null"):
            self.skipTest("needs root to mount a small file system")
        daemon = self.daemon(start=False)
        os.makedirs(daemon.state_dir)
        if os.system(f"mount -t tmpfs -o size=64k none {daemon.state_dir} 2>/dev/null"):
            self.skipTest("mounting is not allowed here")
        self.addCleanup(os.system, f"umount {daemon.state_dir}")
        self.addCleanup(lambda: daemon.process and daemon.kill())
        daemon.start()
        rpc = self.pool(daemon)
        rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk", "lvs_name": "pool"})
        names = self.fill(rpc, 0)
        hog = os.path.join(daemon.state_dir, "hog")
        with open(hog, "wb", buffering=0) as f:
            while os.statvfs(daemon.state_dir).f_bfree:
                f.write(b"x" * 4096)
        refused = []
        for name in names:
            try:
                rpc("bdev_lvol_delete", {"name": f"pool/{name}"})
            except ferrule.RpcError as error:
                if "nothing was deleted" in error.data["detail"]:
                    self.assertEqual(error.code, -28)
                    refused.append(name)
        self.assertTrue(refused)
        self.assertEqual(sorted(self.volumes(rpc)), sorted(refused))
        self.assertEqual(sorted(self.namespaces(rpc)), sorted(refused))
        os.unlink(hog)
        rpc("log_set_level", {"level": "INFO"})  # what could not be saved is saved with it
        daemon.kill()
        daemon.start()
        rpc = daemon.rpc()
        self.assertEqual(sorted(self.namespaces(rpc)), sorted(refused))
        for name in refused:
            rpc("bdev_lvol_delete", {"name": f"pool/{name}"})
        self.assertEqual((self.namespaces(rpc), self.volumes(rpc)), ([], []))

    def test_a_kill_inside_a_stores_deletion_leaves_no_namespace_without_its_volume(self):
        daemon = self.daemon()
        rpc = self.pool(daemon)
        for number in range(int(os.environ.get("ROUNDS", "6"))):
            rpc("bdev_lvol_create_lvstore", {"bdev_name": "disk", "lvs_name": "pool"})
            names = self.fill(rpc, number)
            rpc.send("bdev_lvol_delete_lvstore", {"lvs_name": "pool"})
            # its superblocks go last
            with open(os.path.join(daemon.files, "pool"), "rb") as file:
                deadline = time.monotonic() + ferrule.DEADLINE
                while number % 3 and any(os.pread(file.fileno(), 4096, 0)) and time.monotonic() < deadline:
                    pass
            daemon.kill()
            daemon.start()
            rpc = daemon.rpc()
            there = self.volumes(rpc)
            self.assertIn(sorted(there), [[], sorted(names)])
            self.assertEqual(sorted(self.namespaces(rpc)), sorted(there))
            if rpc("bdev_lvol_get_lvstores"):
                rpc("bdev_lvol_delete_lvstore", {"lvs_name": "pool"})
            self.assertEqual(self.namespaces(rpc), [])


if __name__ == "__main__":
    ferrule.main()
