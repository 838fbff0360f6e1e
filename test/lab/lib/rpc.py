#!/usr/bin/python3
"""JSON-RPC 2.0 on a Unix socket.

rpc.py SOCKET METHOD [NAME=VALUE...]: calls METHOD and prints its result as JSON; VALUE is JSON where it parses as JSON, and
a string otherwise.  An error's text goes to stderr, and the exit status is 1.
rpc.py SOCKET - : reads calls from stdin, one "METHOD [NAME=VALUE...]" per line (shell quoting), and prints one result each.
"""
import json
import shlex
import socket
import sys


class RpcError(Exception):
    def __init__(self, method, error):
        super().__init__(f"{method}: {error.get('code')} {error.get('message')}"
                         + (f" ({json.dumps(error['data'])})" if 'data' in error else ''))
        self.code = error.get('code')


class Client:
    def __init__(self, path, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.decoder = json.JSONDecoder()
        self.buf = ''
        self.id = 0

    def call(self, method, **params):
        self.id += 1
        request = {'jsonrpc': '2.0', 'id': self.id, 'method': method}
        if params:
            request['params'] = params
        self.sock.sendall(json.dumps(request).encode() + b'\n')
        reply = self._reply()
        if reply.get('id') != self.id:
            raise RpcError(method, {'message': f'reply for id {reply.get("id")}'})
        if 'error' in reply:
            raise RpcError(method, reply['error'])
        return reply['result']

    def _reply(self):
        while True:
            try:
                reply, end = self.decoder.raw_decode(self.buf.lstrip())
                self.buf = self.buf.lstrip()[end:]
                return reply
            except json.JSONDecodeError:
                pass
            data = self.sock.recv(1 << 20)
            if not data:
                raise ConnectionError('the daemon closed the connection')
            self.buf += data.decode()


def value(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def run(client, words):
    params = {n: value(v) for n, v in (w.split('=', 1) for w in words[1:])}
    print(json.dumps(client.call(words[0], **params)))


def main():
    client = Client(sys.argv[1])
    if sys.argv[2] != '-':
        run(client, sys.argv[2:])
        return
    for line in sys.stdin:
        words = shlex.split(line, comments=True)
        if words:
            run(client, words)


if __name__ == '__main__':
    try:
        main()
    except (RpcError, OSError) as e:
        print(f'rpc: {e}', file=sys.stderr)
        sys.exit(1)
