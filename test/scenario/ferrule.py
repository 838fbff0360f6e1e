"""What the scenarios share: a daemon of one's own, JSON-RPC clients, and a runner that prints libcheck's summary line."""
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BUILD = os.environ.get("BUILD") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build")
FERRULED = os.path.join(BUILD, "ferruled")
FERRULE = os.path.join(BUILD, "ferrule")
DEADLINE = 60  # seconds that anything may take, sanitizers and a busy machine included
MIB = 1 << 20


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data") or {}


class Rpc:
    """One connection to the socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(path)
        self.buffer = ""
        self.decoder = json.JSONDecoder()
        self.next_id = 1

    def close(self):
        self.socket.close()

    def send_bytes(self, data):
        self.socket.sendall(data)

    def send(self, method, params=None, id=None):
        request = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            request["params"] = params
        request["id"] = self.next_id if id is None else id
        self.next_id += 1
        self.socket.sendall(json.dumps(request).encode())
        return request["id"]

    def receive(self):
        parts = [self.buffer]
        while True:
            text = "".join(parts).lstrip()
            # Only a closing bracket can end an answer: parse no more often than that.
            if text and text.rstrip()[-1:] in "}]" or parts == [self.buffer]:
                try:
                    value, end = self.decoder.raw_decode(text)
                    self.buffer = text[end:]
                    return value
                except ValueError:
                    pass
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the daemon ended the connection")
            parts = [text, data.decode()]

    def __call__(self, method, params=None):
        id = self.send(method, params)
        answer = self.receive()
        assert answer["id"] == id, answer
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]


class Daemon:
    """A ferruled with its own folder, socket and ports."""

    def __init__(self, *args, directory=None, wrapper=()):
        self.dir = directory or tempfile.mkdtemp(prefix="ferrule-")
        self.state_dir = os.path.join(self.dir, "state")
        self.kept = os.path.join(self.dir, "kept")
        self.files = os.path.join(self.dir, "files")
        os.makedirs(self.files, exist_ok=True)
        self.socket_path = os.path.join(self.dir, "rpc.sock")
        self.log_path = os.path.join(self.dir, "log")
        self.args, self.wrapper = args, wrapper
        self.process = None

    def spawn(self, *more):
        argv = [*self.wrapper, FERRULED, "--state-dir", self.state_dir, "--keep-dir", self.kept, "--rpc-socket", self.socket_path, "--http", "127.0.0.1:0",
                "--file-dir", self.files, "--no-huge", *self.args, *more]
        self.log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)

    def start(self, *more):
        self.spawn(*more)
        line = self.read_line()
        if line != f"ready {self.socket_path}":
            self.process.wait(DEADLINE)
            raise AssertionError(f"the daemon did not start ({line!r}):\n{self.log()}")
        return self

    def read_line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        assert ready, f"the daemon says nothing:\n{self.log()}"
        return self.process.stdout.readline().decode().rstrip("\n")

    def log(self):
        with open(self.log_path, errors="replace") as log:
            log.seek(self.log_start)
            return log.read()

    def wait(self):
        code = self.process.wait(DEADLINE)
        self.process.stdout.close()
        self.process = None
        return code

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def stop(self):
        code = self.terminate()
        assert code == 0, f"the daemon ended with {code}:\n{self.log()}"

    def kill(self):
        self.process.kill()
        self.wait()

    def restart(self, *more):
        self.stop()
        return self.start(*more)

    def rpc(self):
        return Rpc(self.socket_path)

    def http_port(self):
        return int(re.search(r"HTTP on .* \(port (\d+)\)", self.log()).group(1))

    def token(self):
        with open(os.path.join(self.state_dir, "token")) as f:
            return f.read().strip()

    def journal(self):
        return os.path.join(self.state_dir, "state.journal")

    def make_file(self, name, size):
        path = os.path.join(self.files, name)
        with open(path, "wb") as f:
            f.truncate(size)
        return path

    def cli(self, *args, check=True):
        result = subprocess.run([FERRULE, "--socket", self.socket_path, *args], capture_output=True, text=True,
                                timeout=DEADLINE)
        if check and result.returncode:
            raise AssertionError(f"ferrule {' '.join(args)}: {result.stderr}")
        return result

    def remove(self):
        if self.process:
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Case(unittest.TestCase):
    """A scenario: self.daemon() gives daemons that are removed at its end."""

    def setUp(self):
        # A scenario that hangs is ended, and says where it hung.
        signal.signal(signal.SIGALRM, self.hung)
        signal.alarm(int(os.environ.get("SCENARIO_SECONDS", "300")))

    @staticmethod
    def hung(number, frame):
        raise TimeoutError("the scenario hangs")

    def tearDown(self):
        signal.alarm(0)

    def daemon(self, *args, start=True):
        daemon = Daemon(*args)
        self.addCleanup(daemon.remove)
        return daemon.start() if start else daemon

    def assert_error(self, code, message, call, *args, parameter=None):
        with self.assertRaises(RpcError) as caught:
            call(*args)
        error = caught.exception
        self.assertEqual((error.code, error.message), (code, message))
        if parameter:
            self.assertEqual(error.data.get("parameter"), parameter)
            self.assertTrue(error.data.get("detail"))
        return error


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listen(rpc, nqn, traddr="127.0.0.1"):
    """Adds a listener on a port that is free; gives the port."""
    for _ in range(20):
        port = free_port()
        address = {"trtype": "TCP", "adrfam": "IPv6" if ":" in traddr else "IPv4", "traddr": traddr, "trsvcid": str(port)}
        try:
            rpc("nvmf_subsystem_add_listener", {"nqn": nqn, "listen_address": address})
            return port
        except RpcError as error:  # somebody was quicker
            if "another process" not in error.data.get("detail", ""):
                raise
    raise AssertionError("no port is free")


def export(rpc, bdev_name, nqn="nqn.2026-01.io.ferrule:t"):
    """Exports a device to any host; gives the port."""
    with contextlib.suppress(RpcError):
        rpc("nvmf_create_transport", {"trtype": "TCP"})
    rpc("nvmf_create_subsystem", {"nqn": nqn, "allow_any_host": True})
    rpc("nvmf_subsystem_add_ns", {"nqn": nqn, "namespace": {"bdev_name": bdev_name}})
    return listen(rpc, nqn)


def nvme(port, verb, *args, nqn="nqn.2026-01.io.ferrule:t", data=None, check=True):
    """Runs our own initiator's command line; gives what it wrote to standard output."""
    argv = [FERRULE, "nvme", verb, "-a", "127.0.0.1", "-s", str(port), "-n", nqn, *args]
    result = subprocess.run(argv, input=data, capture_output=True, timeout=DEADLINE)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(argv)}: {result.stderr.decode()}")
    return result.stdout if check else result


def main():
    """Runs the scenarios of the calling module, and ends with the line that runtests counts by."""
    program = unittest.main(module="__main__", exit=False, verbosity=2, warnings="ignore")
    result = program.result
    failures, errors = len(result.failures), len(result.errors)
    checks = result.testsRun - len(result.skipped)
    share = 100 * (checks - failures - errors) // checks if checks else 0
    print(f"{share}%: Checks: {checks}, Failures: {failures}, Errors: {errors}", flush=True)
    sys.exit(0 if checks and result.wasSuccessful() else 1)
