#!/usr/bin/env python3
"""The management socket as a wire: framing, errors, batches, order, limits, many and slow clients."""
import json
import os
import select
import socket
import stat
import time

import ferrule


class Wire(ferrule.Case):
    @classmethod
    def setUpClass(cls):
        cls.shared = ferrule.Daemon("--ephemeral").start()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.shared.stop()
        finally:
            cls.shared.remove()

    def setUp(self):
        super().setUp()
        self.rpc = self.shared.rpc()
        self.addCleanup(self.rpc.close)

    def exchange(self, data):
        self.rpc.send_bytes(data)
        return self.rpc.receive()

    def assert_alive(self):
        self.assertEqual(self.rpc("log_get_level"), "NOTICE")

    def test_the_socket_is_for_its_user_and_group(self):
        mode = os.stat(self.shared.socket_path).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o660)

    def test_a_request_may_come_a_byte_at_a_time_and_pretty_printed(self):
        text = json.dumps({"jsonrpc": "2.0", "id": "x", "method": "log_get_level", "params": None}, indent="\t")
        for byte in text.encode():
            self.rpc.send_bytes(bytes([byte]))
        self.assertEqual(self.rpc.receive(), {"jsonrpc": "2.0", "id": "x", "result": "NOTICE"})

    def test_many_requests_in_one_write_are_all_answered(self):
        self.rpc.send_bytes(b"".join(b'{"id":%d,"method":"log_get_level"}' % i for i in range(2000)))
        self.assertEqual(sorted(self.rpc.receive()["id"] for _ in range(2000)), list(range(2000)))

    def test_after_a_parse_error_the_connection_goes_on(self):
        for text in [b'{"method":}', b'{"a" 1}', b"{]", b'{"a":"b}\n', b"nonsense\n", b'{"x":"\xff\xfe"}',
                     b'{"id":1,"method":"log_get_level","params":1e}']:
            with self.subTest(text=text):
                answer = self.exchange(text)
                self.assertEqual((answer["id"], answer["error"]["code"]), (None, -32700))
                self.assert_alive()

    def test_json_that_is_more_than_the_parser_takes_is_answered_by_its_id(self):
        huge = b'"params":{"name":"n","block_size":512,"num_blocks":18446744073709551615}'
        for text, id, code, words in [
                (b'{"id":7,"method":"log_get_level","method":"log_get_level"}', 7, -32600, "method"),
                (b'{"id":"a","method":"bdev_get_bdevs","params":{"name":"x","name":"y"}}', "a", -32600, "name"),
                (b'{"id":8,"method":"log_get_level","params":{"a\\u0000":1}}', 8, -32600, "u0000"),
                (b'{"id":9,"method":"log_get_level\\u0000"}', 9, -32600, "method"),
                (b'{"id":"i\\u0000","method":"nope"}', "i\0", -32601, "nope"),
                (b'{"id":10,"method":"bdev_get_bdevs","params":{"name":"x\\u0000y"}}', 10, -32603, "name"),
                (b'{"id":11,"method":"bdev_null_create",' + huge + b'}', 11, -32603, "num_blocks"),
                (b'{"id":12,"method":"log_get_level","params":1e999}', 12, -32600, "params"),
                (b'{"id":13,"method":"bdev_null_create","params":{"name":"1e999\\"","block_size":-1.5e999,"num_blocks":8}}', 13, -32603,
                 "block_size"),
                (b'{"id":"x","method":"bdev_null_create","params":{"name":"n","block_size":512,"num_blocks":1' + b"0" * 400 + b'}}', "x",
                 -32603, "num_blocks"),
                (b'{"id":36893488147419103232,"method":"log_get_level"}', None, -32600, "id")]:
            with self.subTest(text=text):
                answer = self.exchange(text)
                self.assertEqual((answer["id"], answer["error"]["code"]), (id, code))
                self.assertIsNot(type(answer["id"]), float)
                self.assertIn(words, answer["error"]["data"]["detail"])
        answers = self.exchange(b'[{"id":1,"method":"log_get_level"},{"id":2,"method":"bdev_null_create",' + huge + b'}]')
        self.assertEqual({a["id"]: "error" in a for a in answers}, {1: False, 2: True})
        answers = self.exchange(b'[{"id":1,"method":"log_get_level"},{"id":2,"id":3,"method":"log_get_level"}]')
        self.assertEqual([a["error"]["code"] for a in answers], [-32600, -32600])
        self.assert_alive()

    def test_a_parse_error_loses_no_earlier_answer(self):
        self.rpc.send_bytes(b'{"id":1,"method":"log_get_level"} {bad} {"id":2,"method":"log_get_level"}')
        answers = [self.rpc.receive() for _ in range(3)]
        self.assertEqual(sorted(str(a["id"]) for a in answers), ["1", "2", "None"])

    def test_requests_that_are_none_are_refused(self):
        for text in [b"[]", b'{"id":1}', b'{"id":1,"method":7}', b'{"id":{},"method":"log_get_level"}',
                     b'{"id":1,"jsonrpc":"1.0","method":"log_get_level"}', b'{"id":1,"method":"log_get_level","params":3}']:
            with self.subTest(text=text):
                answer = self.exchange(text)
                self.assertEqual((answer["error"]["code"], answer["error"]["message"]), (-32600, "Invalid request"))
        self.assert_alive()

    def test_an_unknown_method_is_named(self):
        error = self.assert_error(-32601, "Method not found", self.rpc, "no_such_method")
        self.assertIn("no_such_method", error.data["detail"])
        self.assert_error(-32601, "Method not found", self.rpc, "x" * 5000)

    def test_methods_without_parameters_refuse_even_empty_ones(self):
        for params in [{}, []]:
            answer = self.exchange(json.dumps({"id": 1, "method": "log_get_level", "params": params}).encode())
            self.assertEqual(answer["error"]["code"], -32602)
        self.assertEqual(self.exchange(b'{"id":1,"method":"log_get_level","params":null}')["result"], "NOTICE")

    def test_notifications_are_answered_only_when_they_fail(self):
        self.rpc.send_bytes(b'{"method":"log_get_level"}{"id":null,"method":"log_get_level"}{"method":"nope"}')
        answer = self.rpc.receive()
        self.assertEqual((answer["id"], answer["error"]["code"]), (None, -32601))
        self.assert_alive()

    def test_a_batch_is_answered_whole(self):
        batch = [{"id": i, "method": "log_get_level"} for i in range(500)] + [{"method": "log_get_level"}, 7]
        answer = self.exchange(json.dumps(batch).encode())
        self.assertEqual(len(answer), 501)
        self.assertEqual(sorted(a["id"] for a in answer if a["id"] is not None), list(range(500)))
        self.rpc.send_bytes(b'[{"method":"log_get_level"}]')
        self.assert_alive()

    def test_changes_run_in_the_order_of_their_arrival(self):
        for i in range(200):
            self.rpc.send("bdev_null_create", {"name": "order", "block_size": 512, "num_blocks": 8}, id=2 * i)
            self.rpc.send("bdev_null_delete", {"name": "order"}, id=2 * i + 1)
        for _ in range(400):
            answer = self.rpc.receive()
            self.assertNotIn("error", answer)

    def test_a_waiting_call_holds_up_no_other(self):
        self.rpc.send("bdev_get_bdevs", {"name": "later", "timeout": 30000}, id="waits")
        self.rpc.send("log_get_level", id="quick")
        self.assertEqual(self.rpc.receive()["id"], "quick")
        self.rpc.send("bdev_null_create", {"name": "later", "block_size": 512, "num_blocks": 8}, id="makes")
        answers = {a["id"]: a for a in (self.rpc.receive(), self.rpc.receive())}
        self.assertEqual(answers["waits"]["result"][0]["name"], "later")
        self.rpc("bdev_null_delete", {"name": "later"})

    def test_a_request_of_several_mebibytes_is_taken_and_a_longer_one_refused(self):
        name = "x" * (6 << 20)
        self.assert_error(-19, "No such device", self.rpc, "bdev_get_bdevs", {"name": name})
        answer = self.exchange(json.dumps({"id": 1, "method": "bdev_get_bdevs", "params": {"name": name + name}}).encode())
        self.assertEqual(answer["error"]["code"], -32600)
        self.assertIn("8 MiB", answer["error"]["data"]["detail"])
        self.assert_alive()

    def test_deep_and_wide_requests_are_refused(self):
        answer = self.exchange(b"[" * 100000 + b"]" * 100000)
        self.assertEqual(answer["error"]["code"], -32600)
        answer = self.exchange(b'{"id":1,"method":"x","params":[' + b"0," * 1000000 + b"0]}")
        self.assertEqual(answer["error"]["code"], -32600)
        self.assert_alive()

    def test_a_hundred_clients_at_once(self):
        clients = [self.shared.rpc() for _ in range(100)]
        for client in clients:
            client.send("spdk_get_version")
        for client in clients:
            self.assertIn("version", client.receive()["result"])
            client.close()

    def test_a_client_that_never_reads_disturbs_nobody(self):
        for i in range(200):
            self.rpc("bdev_null_create", {"name": f"slow{i}", "block_size": 512, "num_blocks": 8})
        slow = self.shared.rpc()
        slow.socket.setblocking(False)
        request = json.dumps({"id": 1, "method": "bdev_get_bdevs"}).encode() * 1000
        sent, quiet = 0, 0
        while quiet < 20 and sent < len(request) * 100:
            # Until the daemon has stopped reading: each answer is some 200 KiB, and it keeps only a few megabytes.
            try:
                sent += slow.socket.send(request)
                quiet = 0
            except BlockingIOError:
                select.select([], [slow.socket], [], 0.05)
                quiet += 1
        self.assert_alive()
        self.assertLess(sent, len(request) * 100)
        with open(f"/proc/{self.shared.process.pid}/status") as f:
            rss_kib = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        self.assertLess(rss_kib, 700 << 10)
        slow.close()
        for i in range(200):
            self.rpc("bdev_null_delete", {"name": f"slow{i}"})

    def test_an_answer_of_many_mebibytes_arrives_whole(self):
        names = [f"many-{i:04d}" for i in range(1000)]
        for name in names:
            self.rpc.send("bdev_null_create", {"name": name, "block_size": 512, "num_blocks": 8})
        for name in names:
            self.assertNotIn("error", self.rpc.receive())
        batch = [{"id": i, "method": "bdev_get_bdevs"} for i in range(60)]
        self.rpc.send_bytes(json.dumps(batch).encode())
        data = b""
        chunks = []
        while not data.endswith(b"]\n"):
            data = self.rpc.socket.recv(1 << 20)
            chunks.append(data)
        answer = json.loads(b"".join(chunks))
        self.assertGreater(sum(map(len, chunks)), 32 << 20)
        self.assertEqual([len(a["result"]) >= 1000 for a in answer], [True] * 60)
        for name in names:
            self.rpc.send("bdev_null_delete", {"name": name})
        for name in names:
            self.assertNotIn("error", self.rpc.receive())

    def test_a_client_that_hangs_up_in_the_middle_is_forgotten(self):
        for _ in range(50):
            client = self.shared.rpc()
            client.send("bdev_get_bdevs", {"name": "never", "timeout": 500})
            client.send_bytes(b'{"id":1,"meth')
            client.close()
        self.assert_alive()

    def test_a_client_that_ends_its_side_still_gets_its_answers(self):
        self.rpc.send_bytes(b'{"id":1,"method":"log_get_level"}{"id":2,')
        self.rpc.socket.shutdown(socket.SHUT_WR)
        answers = [self.rpc.receive(), self.rpc.receive()]
        self.assertEqual(sorted(str(a["id"]) for a in answers), ["1", "None"])
        with self.assertRaises(EOFError):
            self.rpc.receive()

    def test_a_management_call_is_quick(self):
        start = time.monotonic()
        for i in range(1000):
            self.rpc("bdev_null_create", {"name": f"q{i}", "block_size": 512, "num_blocks": 8})
        each_us = (time.monotonic() - start) * 1000
        print(f"a call, change and answer: {each_us:.0f} us", flush=True)  # reported, not judged
        for i in range(1000):
            self.rpc("bdev_null_delete", {"name": f"q{i}"})


if __name__ == "__main__":
    ferrule.main()
