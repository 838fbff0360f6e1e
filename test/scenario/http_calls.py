#!/usr/bin/env python3
"""Calls over HTTP: the token, what is refused and how, large and slow requests."""
import concurrent.futures
import http.client
import json
import os
import socket
import stat

import ferrule


class Http(ferrule.Case):
    @classmethod
    def setUpClass(cls):
        cls.shared = ferrule.Daemon().start()
        cls.port = cls.shared.http_port()
        cls.token = cls.shared.token()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.shared.stop()
        finally:
            cls.shared.remove()

    def request(self, method="POST", path="/v1/rpc", body=None, token=True, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ferrule.DEADLINE)
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = "Bearer " + (self.token if token is True else token)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response, json.loads(text) if text else None

    def call(self, method, params=None):
        response, answer = self.request(body=json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        self.assertEqual(response.status, 200)
        self.assertEqual(response.getheader("Content-Type"), "application/json")
        return answer

    def test_the_token_is_a_secret_of_the_daemons_user(self):
        path = os.path.join(self.shared.state_dir, "token")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(len(self.token), 64)

    def test_the_token_stays_the_same_over_restarts(self):
        daemon = self.daemon()
        token = daemon.token()
        daemon.restart()
        self.assertEqual(daemon.token(), token)
        self.assertNotEqual(token, self.token)

    def test_calls_answer_as_on_the_socket(self):
        rpc = self.shared.rpc()
        self.assertEqual(self.call("rpc_get_methods")["result"], rpc("rpc_get_methods"))
        error = self.call("bdev_get_bdevs", {"name": "x"})["error"]
        self.assertEqual((error["code"], error["message"]), (-19, "No such device"))
        self.assertEqual(self.call("bdev_null_create", {"name": "h", "block_size": 512, "num_blocks": 8})["result"], "h")
        self.assertEqual(rpc("bdev_get_bdevs", {"name": "h"})[0]["name"], "h")

    def test_batches_and_notifications(self):
        batch = [{"id": 1, "method": "log_get_level"}, {"id": 2, "method": "log_get_level"}]
        self.assertEqual(len(self.request(body=json.dumps(batch))[1]), 2)
        response, answer = self.request(body='{"method":"log_get_level"}')
        self.assertEqual((response.status, answer), (204, None))

    def test_without_the_token_nothing_is_told(self):
        body = '{"id":1,"method":"log_get_level"}'
        wrong = ["x", self.token[:-1], self.token + "0", self.token.swapcase(), "", "é" * 10]
        for token in [None] + wrong:
            headers = {} if token is None else {"Authorization": ("Bearer " + token).encode("utf-8")}
            for path in ["/v1/rpc", "/", "/v1/nothing"]:
                with self.subTest(token=token, path=path):
                    response, answer = self.request(path=path, body=body, token=False, headers=headers)
                    self.assertEqual(response.status, 401)
                    self.assertIn("Bearer", response.getheader("WWW-Authenticate"))
                    self.assertIn("token", answer["error"]["data"]["detail"])
        response, _ = self.request(body=body, token=False, headers={"Authorization": "Basic " + self.token})
        self.assertEqual(response.status, 401)

    def test_other_paths_and_methods_are_refused(self):
        self.assertEqual(self.request(path="/v2/rpc", body="{}")[0].status, 404)
        for method in ["GET", "PUT", "DELETE", "PATCH"]:
            response, answer = self.request(method=method)
            self.assertEqual((response.status, response.getheader("Allow")), (405, "POST"))
            self.assertIn("error", answer)

    def test_bodies_that_are_no_request(self):
        for body in ["", "nonsense", "[" * 1000 + "]" * 1000, '{"id":', '"text"']:
            with self.subTest(body=body[:20]):
                response, answer = self.request(body=body)
                self.assertEqual(response.status, 400)
                self.assertIn("error", answer)
        self.assertEqual(self.request(body="{bad}")[1]["error"]["code"], -32700)

    def test_a_long_body_is_taken_and_a_longer_one_refused(self):
        body = json.dumps({"id": 1, "method": "bdev_get_bdevs", "params": {"name": "x" * (6 << 20)}})
        self.assertEqual(self.request(body=body)[1]["error"]["code"], -19)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ferrule.DEADLINE)
        connection.putrequest("POST", "/v1/rpc")
        connection.putheader("Authorization", "Bearer " + self.token)
        connection.putheader("Content-Length", str(9 << 20))
        connection.endheaders()
        self.assertEqual(connection.getresponse().status, 413)
        connection.close()

        def chunks():
            for _ in range(9):
                yield b" " * (1 << 20)

        # The length is not told beforehand.
        try:
            response, answer = self.request(body=chunks())
            self.assertEqual(response.status, 413)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def test_many_clients_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda i: self.call("log_get_level"), range(320)))
        self.assertEqual({a["result"] for a in answers}, {"NOTICE"})

    def test_a_slow_client_holds_up_nobody(self):
        slow = []
        for _ in range(20):
            s = socket.create_connection(("127.0.0.1", self.port))
            s.sendall(b"POST /v1/rpc HTTP/1.1\r\nAuthorization: Bearer " + self.token.encode() + b"\r\nContent-Length: 100\r\n\r\n{")
            slow.append(s)
        self.assertEqual(self.call("log_get_level")["result"], "NOTICE")
        for s in slow:
            s.close()

    def test_a_client_that_leaves_while_its_call_waits_is_forgotten(self):
        for _ in range(10):
            s = socket.create_connection(("127.0.0.1", self.port))
            body = json.dumps({"id": 1, "method": "bdev_get_bdevs", "params": {"name": "never", "timeout": 300}}).encode()
            s.sendall(b"POST /v1/rpc HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
                      % (self.token.encode(), len(body), body))
            s.close()
        self.assertEqual(self.call("log_get_level")["result"], "NOTICE")

    def test_a_port_that_is_taken_is_told(self):
        other = self.daemon(start=False)
        other.spawn("--http", f"127.0.0.1:{self.port}")
        self.assertEqual(other.wait(), 1)
        self.assertIn(f"127.0.0.1:{self.port}", other.log())
        self.assertIn("in use", other.log())

    def test_http_can_be_left_out_or_on_another_address(self):
        daemon = self.daemon(start=False).start("--http", "none")
        self.assertNotIn("HTTP on", daemon.log())
        daemon.restart("--http", "[::1]:0")
        s = socket.create_connection(("::1", daemon.http_port()))
        s.close()


if __name__ == "__main__":
    ferrule.main()
