#!/usr/bin/env python3
"""ferrule host on made-up machines: what is shown, what would be done, and that a drive in use is not taken."""
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading

import ferrule


class Kernel(threading.Thread):
    """What the kernel does when a drive is let go and looked at again.  Its files are pipes; who writes to one goes on at once."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.fds, self.refuses, self.log = root, {}, set(), []
        self.stopper, self.stop_fd = os.pipe()  # "+": there is another file; "x": the end
        self.file("/sys/bus/pci/drivers_probe", self.probe)

    def file(self, path, action):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        os.mkfifo(self.root + path)
        self.fds[os.open(self.root + path, os.O_RDWR | os.O_NONBLOCK)] = (path, action)
        os.write(self.stop_fd, b"+")

    def driver(self, name):
        path = f"/sys/bus/pci/drivers/{name}"
        if not os.path.exists(f"{self.root}{path}/unbind"):
            self.file(path + "/unbind", lambda address: os.unlink(self.link(address)))
        return self.root + path

    def link(self, address):
        return f"{self.root}/sys/bus/pci/devices/{address}/driver"

    def probe(self, address):
        with open(f"{self.root}/sys/bus/pci/devices/{address}/driver_override") as f:
            override = f.read().strip()
        name = override if override not in ("", "(null)") else "nvme"
        directory = f"{self.root}/sys/bus/pci/drivers/{name}"
        if name not in self.refuses and os.path.isdir(directory) and not os.path.islink(self.link(address)):
            os.symlink(directory, self.link(address))

    def run(self):
        while True:
            ready = select.select([self.stopper, *list(self.fds)], [], [])[0]
            if self.stopper in ready:
                if b"x" in os.read(self.stopper, 64):
                    return
                continue
            # A drive is let go before it is looked at: what is in the pipes now was written in that order.
            for fd in sorted(ready, key=lambda fd: self.fds[fd][0].endswith("drivers_probe")):
                path, action = self.fds[fd]
                address = os.read(fd, 64).decode()
                self.log.append((path, address))
                action(address)

    def end(self):
        os.write(self.stop_fd, b"x")
        self.join()
        for fd in [self.stopper, self.stop_fd, *self.fds]:
            os.close(fd)


class Host(ferrule.Case):
    def setUp(self):
        super().setUp()
        self.root = tempfile.mkdtemp(prefix="ferrule-host-")
        self.addCleanup(shutil.rmtree, self.root)
        self.kernel = Kernel(self.root)
        self.addCleanup(self.kernel.end)
        self.write("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "0\n")
        self.write("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "0\n")
        self.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
        self.kernel.driver("vfio-pci")
        self.write("/proc/mounts", "/dev/nvme1n1p2 /data ext4 rw 0 0\nproc /proc proc rw 0 0\n")
        self.write("/proc/swaps", "Filename Type Size Used Priority\n")
        self.drive("0000:01:00.0", "nvme", 0)
        self.drive("0000:02:00.0", "nvme", 1)
        self.drive("0000:03:00.0", "nvme", 2, holder="dm-0")
        self.drive("0000:04:00.0", "vfio-pci", None)
        self.write("/sys/bus/pci/devices/0000:05:00.0/class", "0x020000\n")
        self.kernel.start()

    def write(self, path, text):
        path = self.root + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def read(self, path):
        with open(self.root + path) as f:
            return f.read()

    def drive(self, address, driver, number, holder=None):
        base = f"/sys/bus/pci/devices/{address}"
        self.write(base + "/class", "0x010802\n")
        self.write(base + "/numa_node", "0\n")
        self.write(base + "/driver_override", "(null)\n")
        if driver:
            os.symlink(self.kernel.driver(driver), self.root + base + "/driver")
        if number is not None:
            name = f"nvme{number}n1"
            os.makedirs(f"{self.root}{base}/nvme/nvme{number}/{name}")
            os.makedirs(f"{self.root}/sys/class/block/{name}/holders" + (f"/{holder}" if holder else ""))

    def host(self, *args, code=0):
        result = subprocess.run([ferrule.FERRULE, *args], env={**os.environ, "FERRULE_HOST_ROOT": self.root}, capture_output=True,
                                text=True, timeout=ferrule.DEADLINE)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout if not code else result.stderr

    def test_status_shows_drives_and_who_uses_them(self):
        status = json.loads(self.host("--json", "host", "status"))
        drives = {d["address"]: d for d in status["drives"]}
        self.assertEqual(sorted(drives), [f"0000:0{i}:00.0" for i in (1, 2, 3, 4)])
        self.assertEqual(drives["0000:01:00.0"]["used"], "")
        self.assertIn("mounted at /data", drives["0000:02:00.0"]["used"])
        self.assertIn("on top of it", drives["0000:03:00.0"]["used"])
        self.assertEqual(drives["0000:04:00.0"]["driver"], "vfio-pci")
        self.assertFalse(status["iommu"])
        self.assertIn("any memory", self.host("host", "status"))

    def driver_of(self, address):
        return os.path.basename(os.readlink(self.kernel.link(address)))

    def test_setup_takes_what_nobody_uses(self):
        out = self.host("host", "setup", "--all", "--hugepages", "64M", "--dry-run")
        self.assertIn('"vfio-pci" to /sys/bus/pci/devices/0000:01:00.0/driver_override', out)
        self.assertIn('"32" to /sys/devices/system/node/node0', out)
        self.assertEqual(self.read("/sys/bus/pci/devices/0000:01:00.0/driver_override"), "(null)\n")
        out = self.host("host", "setup", "--all", "--hugepages", "64M")
        self.assertIn("0000:01:00.0: given to vfio-pci", out)
        self.assertIn("0000:02:00.0 is left alone", out)
        self.assertEqual(self.read("/sys/bus/pci/devices/0000:01:00.0/driver_override"), "vfio-pci")
        self.assertEqual(self.kernel.log, [("/sys/bus/pci/drivers/nvme/unbind", "0000:01:00.0"),
                                           ("/sys/bus/pci/drivers_probe", "0000:01:00.0")])
        self.assertEqual(self.driver_of("0000:01:00.0"), "vfio-pci")
        self.assertEqual(self.read("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"), "32")
        for untouched in ("0000:02:00.0", "0000:03:00.0"):
            self.assertEqual(self.read(f"/sys/bus/pci/devices/{untouched}/driver_override"), "(null)\n")

    def test_a_drive_in_use_is_refused_by_name(self):
        self.assertIn("mounted at /data", self.host("host", "setup", "0000:02:00.0", code=1))
        self.assertIn("on top of it", self.host("host", "setup", "0000:03:00.0", code=1))
        self.assertIn("no NVMe drive", self.host("host", "setup", "0000:09:00.0", code=1))

    def test_a_path_of_a_multipath_device_in_use_is_refused(self):
        self.drive("0000:07:00.0", "nvme", None)
        os.makedirs(self.root + "/sys/bus/pci/devices/0000:07:00.0/nvme/nvme7/nvme3c7n1")
        self.write("/proc/mounts", "/dev/nvme3n1 /srv xfs rw 0 0\n")
        self.assertIn("mounted at /srv", self.host("host", "setup", "0000:07:00.0", code=1))

    def test_uio_is_the_last_resort(self):
        self.assertIn("modprobe uio_pci_generic", self.host("host", "setup", "--driver", "uio_pci_generic", code=1))
        self.assertIn("vfio-pci or", self.host("host", "setup", "--driver", "nvme", code=1))
        os.makedirs(self.root + "/sys/bus/pci/drivers/uio_pci_generic")
        out = self.host("host", "setup", "0000:01:00.0", "--driver", "uio_pci_generic")
        self.assertIn("any memory", out)
        self.assertIn("0000:01:00.0: given to uio_pci_generic", out)
        self.assertEqual(self.read("/sys/bus/pci/devices/0000:01:00.0/driver_override"), "uio_pci_generic")
        self.drive("0000:06:00.0", "uio_pci_generic", None)
        self.assertNotIn("06:00.0", self.host("host", "setup", "0000:06:00.0", "--driver", "uio_pci_generic"))
        self.assertIn("0000:06:00.0: given back", self.host("host", "reset", "0000:06:00.0"))
        self.assertIn("mounted at /data", self.host("host", "setup", "0000:02:00.0", "--driver", "uio_pci_generic", code=1))

    def test_reset_gives_drives_back(self):
        self.assertIn("given back", self.host("host", "reset"))
        self.assertEqual(self.read("/sys/bus/pci/devices/0000:04:00.0/driver_override"), "\n")
        self.assertEqual(self.driver_of("0000:04:00.0"), "nvme")

    def test_reset_brings_back_a_drive_that_was_left_without_a_driver(self):
        self.drive("0000:06:00.0", None, None)
        self.write("/sys/bus/pci/devices/0000:06:00.0/driver_override", "vfio-pci\n")
        self.assertIn("0000:06:00.0: given back", self.host("host", "reset", "0000:06:00.0"))
        self.assertEqual(self.driver_of("0000:06:00.0"), "nvme")

    def test_without_an_iommu_no_drive_is_touched_unless_that_is_wanted(self):
        self.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n")
        self.assertIn("echo Y >", self.host("host", "setup", "--all", "--hugepages", "64M", code=1))
        self.assertEqual(self.kernel.log, [])
        self.assertEqual(self.driver_of("0000:01:00.0"), "nvme")
        self.assertEqual(self.read("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"), "0\n")
        os.makedirs(self.root + "/sys/class/iommu/dmar0")
        self.host("host", "setup", "0000:01:00.0")
        self.assertEqual(self.driver_of("0000:01:00.0"), "vfio-pci")

    def test_a_drive_that_the_driver_does_not_take_goes_back(self):
        self.kernel.refuses.add("vfio-pci")
        self.assertIn("it is back where it was", self.host("host", "setup", "0000:01:00.0", code=1))
        self.assertEqual(self.driver_of("0000:01:00.0"), "nvme")
        self.assertEqual(self.read("/sys/bus/pci/devices/0000:01:00.0/driver_override"), "\n")

    def test_hugepages_alone_leave_drives_and_what_is_there_already(self):
        nr = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
        self.host("host", "setup", "--hugepages", "64M")
        self.assertEqual(self.read(nr), "32")
        self.assertIn("has 32 hugepages already", self.host("host", "setup", "--hugepages", "32M"))
        self.assertEqual(self.read(nr), "32")
        self.assertEqual(self.kernel.log, [])

    def test_what_is_done_is_told_in_json_too(self):
        report = json.loads(self.host("--json", "host", "setup", "--dry-run"))
        self.assertTrue(report["dry_run"])
        self.assertIn({"path": "/sys/bus/pci/devices/0000:01:00.0/driver_override", "value": "vfio-pci"}, report["writes"])
        report = json.loads(self.host("--json", "host", "setup"))
        results = {d["address"]: d["result"] for d in report["drives"]}
        self.assertEqual(results, {"0000:01:00.0": "taken", "0000:02:00.0": "left alone", "0000:03:00.0": "left alone"})
        self.assertEqual(json.loads(self.host("--json", "host", "reset", "0000:01:00.0"))["drives"][0]["result"], "given back")

    def test_a_drive_of_no_node_has_none(self):
        self.write("/sys/bus/pci/devices/0000:01:00.0/numa_node", "-1\n")
        row = next(line for line in self.host("host", "status").splitlines() if line.startswith("0000:01:00.0"))
        self.assertEqual(row.split()[2], "-")


if __name__ == "__main__":
    ferrule.main()
