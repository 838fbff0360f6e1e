"""A small NVMe/TCP host, written from the specifications alone: one I/O queue, several commands at a time."""
import socket
import struct

ICREQ, ICRESP, H2C_TERM, C2H_TERM, CMD, RESP, H2C_DATA, C2H_DATA, R2T = 0, 1, 2, 3, 4, 5, 6, 7, 9
FLAG_LAST, FLAG_SUCCESS = 0x04, 0x08
FLUSH, WRITE, READ, WRITE_ZEROES, DSM, FABRICS = 0x00, 0x01, 0x02, 0x08, 0x09, 0x7F
IN_CAPSULE = 4096


class NvmeError(Exception):
    def __init__(self, status):
        super().__init__(f"status {status >> 8:x}/{status & 0xff:02x}h")
        self.status = status


class Lost(Exception):
    """The connection broke."""


class Queue:
    """A connection with its queue.  done(status, data) runs from wait()."""

    def __init__(self, port, host="127.0.0.1", depth=64):
        self.depth = depth
        self.pending = {}  # cid -> [done, data to be written, bytes read]
        self.next_cid = 0
        self.buffer = b""
        try:
            self.socket = socket.create_connection((host, port), timeout=60)
        except OSError as error:
            raise Lost from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(struct.pack("<BBBBIHBBI", ICREQ, 0, 128, 0, 128, 0, 0, 0, 0) + bytes(112))
        kind, _, _ = self._receive()
        if kind != ICRESP:
            raise Lost

    def close(self):
        self.socket.close()

    def _send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Lost from error

    def _take(self, length):
        while len(self.buffer) < length:
            try:
                data = self.socket.recv(1 << 18)
            except OSError as error:
                raise Lost from error
            if not data:
                raise Lost
            self.buffer += data
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        return taken

    def _receive(self):
        header = self._take(8)
        kind, flags, _, _, length = struct.unpack("<BBBBI", header)
        return kind, flags, header + self._take(length - 8)

    def submit(self, opcode, nsid=0, cdw10=bytes(24), data=b"", read_length=0, fctype=None, done=None):
        """One command.  data goes to the controller; read_length bytes come from it."""
        while self.next_cid in self.pending:
            self.next_cid = (self.next_cid + 1) % 0xFFFF
        cid = self.next_cid
        self.next_cid = (self.next_cid + 1) % 0xFFFF
        inside = data and len(data) <= IN_CAPSULE
        length = len(data) or read_length
        sgl = struct.pack("<QI3xB", 0, length, 0x01 if inside else 0x5A)
        second = struct.pack("<I", nsid) if fctype is None else struct.pack("<B3x", fctype)
        sqe = struct.pack("<BBH", opcode, 0x40, cid) + second + bytes(16) + sgl + cdw10
        pdo, tail = (72, data) if inside else (0, b"")
        self.pending[cid] = [done, data, bytearray(read_length)]
        self._send(struct.pack("<BBBBI", CMD, 0, 72, pdo, 72 + len(tail)) + sqe + tail)
        return cid

    def wait(self):
        """Takes one PDU; commands that end with it are done."""
        kind, flags, pdu = self._receive()
        if kind == RESP:
            result, _, _, cid, status = struct.unpack_from("<QHHHH", pdu, 8)
            self._done(cid, status >> 1, result)
        elif kind == R2T:
            cid, ttag, offset, length = struct.unpack_from("<HHII", pdu, 8)
            data = self.pending[cid][1][offset:offset + length]
            self._send(struct.pack("<BBBBIHHIII", H2C_DATA, FLAG_LAST, 24, 24, 24 + length, cid, ttag, offset, length, 0) + data)
        elif kind == C2H_DATA:
            cid, offset, length = struct.unpack_from("<HxxII", pdu, 8)
            start = pdu[3]
            self.pending[cid][2][offset:offset + length] = pdu[start:start + length]
            if flags & FLAG_SUCCESS:
                self._done(cid, 0, 0)
        else:
            raise Lost

    def _done(self, cid, status, result):
        done, _, data = self.pending.pop(cid)
        if done:
            done(status, bytes(data) or result)

    def call(self, *args, **kwargs):
        """One command, waited for; its data or result."""
        answer = []
        self.submit(*args, done=lambda status, data: answer.append((status, data)), **kwargs)
        while not answer:
            self.wait()
        status, data = answer[0]
        if status & 0x7FF:
            raise NvmeError(status & 0x7FF)
        return data

    def connect(self, nqn, qid, cntlid=0xFFFF):
        cdw10 = struct.pack("<HHHBxI12x", 0, qid, self.depth - 1, 0, 0)
        data = bytes(15) + b"\x01" + struct.pack("<H238x", cntlid) + nqn.encode().ljust(256, b"\0") + \
            b"nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001".ljust(256, b"\0") + bytes(256)
        return self.call(FABRICS, cdw10=cdw10, data=data, fctype=1) & 0xFFFF


class Host:
    """An association with one I/O queue on a subsystem."""

    def __init__(self, port, nqn, depth=64):
        self.admin = Queue(port, depth=32)
        cntlid = self.admin.connect(nqn, 0)
        self.admin.call(FABRICS, cdw10=struct.pack("<B3xIQ8x", 0, 0x14, 0x460001), fctype=0)
        self.io = Queue(port, depth=depth)
        self.io.connect(nqn, 1, cntlid)

    def close(self):
        self.io.close()
        self.admin.close()


def lba_range(slba, blocks, flags=0):
    return struct.pack("<QIIII", slba, blocks - 1 | flags, 0, 0, 0)
