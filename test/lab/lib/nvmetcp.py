#!/usr/bin/python3
"""nvmetcp.py ADDR:PORT NQN NSID FILE: reads a whole namespace over NVMe/TCP into a file.

A host of its own, of the few commands that takes: what judges the daemon shares no code with it.
"""
import os
import socket
import struct
import sys
import uuid

CHUNK = 256 * 1024
DEPTH = 8
IC_REQ, IC_RESP, C2H_TERM, CMD, RESP, C2H_DATA = 0, 1, 3, 4, 5, 7


class NvmeError(Exception):
    pass


class Queue:
    def __init__(self, addr, subnqn, hostnqn, hostid, qid, cntlid=0xffff, size=32):
        self.sock = socket.create_connection(addr, timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile('rb', buffering=1 << 20)
        self.sock.sendall(struct.pack('<BBBBIHBBI112x', IC_REQ, 0, 128, 0, 128, 0, 0, 0, 0))
        kind, _, body = self._pdu()
        if kind != IC_RESP:
            raise NvmeError(f'PDU {kind} instead of ICResp')
        data = struct.pack('<16sH238x256s256s256x', hostid.bytes, cntlid, subnqn.encode(), hostnqn.encode())
        sqe = bytearray(64)
        struct.pack_into('<BBHB', sqe, 0, 0x7f, 0x40, 0, 1)
        struct.pack_into('<QIB3xHHHBxI', sqe, 24, 0, len(data), 0, 0, qid, size - 1, 0, 0)
        sqe[39] = 1
        self.cntlid = self.admin(sqe, data)[0] & 0xffff

    def _read(self, n):
        data = self.file.read(n)
        if len(data) != n:
            raise NvmeError('the target closed the connection')
        return data

    def _pdu(self):
        kind, flags, hlen, pdo, plen = struct.unpack('<BBBBI', self._read(8))
        body = self._read(plen - 8)
        if kind == C2H_TERM:
            raise NvmeError(f'C2HTermReq, status {struct.unpack_from("<H", body)[0]}')
        return kind, flags, body

    def send(self, sqe, data=b''):
        self.sock.sendall(struct.pack('<BBBBI', CMD, 0, 72, 72 if data else 0, 72 + len(data)) + bytes(sqe) + data)

    def reap(self, buffers):
        """Waits for one completion; puts data where buffers[cid] says.  Returns (cid, result)."""
        while True:
            kind, flags, body = self._pdu()
            if kind == C2H_DATA:
                cid, offset, length = struct.unpack_from('<HxxII', body)
                buffers[cid][offset:offset + length] = body[16:16 + length]
                if flags & 8:
                    return cid, 0
            elif kind == RESP:
                result, _, _, cid, status = struct.unpack('<QHHHH', body[:16])
                if status >> 1:
                    raise NvmeError(f'status {status >> 1:#x}')
                return cid, result
            else:
                raise NvmeError(f'unexpected PDU {kind}')

    def admin(self, sqe, data=b'', length=0):
        buf = bytearray(length)
        self.send(sqe, data)
        return self.reap({0: buf})[1], buf

    def property(self, offset, value=None, size=4):
        sqe = bytearray(64)
        struct.pack_into('<BBHB', sqe, 0, 0x7f, 0x40, 0, 4 if value is None else 0)
        struct.pack_into('<B3xIQ', sqe, 40, size // 8, offset, value or 0)
        return self.admin(sqe)[0]


def command(opcode, cid, nsid, length, dw10=0, dw11=0, dw12=0):
    sqe = bytearray(64)
    struct.pack_into('<BBHI', sqe, 0, opcode, 0x40, cid, nsid)
    struct.pack_into('<QI3xB', sqe, 24, 0, length, 0x5a)
    struct.pack_into('<III', sqe, 40, dw10, dw11, dw12)
    return sqe


def read_namespace(addr, nqn, nsid, out):
    hostid = uuid.uuid4()
    hostnqn = f'nqn.2014-08.org.nvmexpress:uuid:{hostid}'
    admin = Queue(addr, nqn, hostnqn, hostid, 0)
    admin.property(0x14, 0x460001)
    while not admin.property(0x1c) & 1:
        pass
    mdts = admin.admin(command(6, 0, 0, 4096, 1), length=4096)[1][77]
    chunk = min(CHUNK, 4096 << mdts) if mdts else CHUNK
    _, ident = admin.admin(command(6, 0, nsid, 4096), length=4096)
    blocks = struct.unpack_from('<Q', ident)[0]
    shift = ident[128 + 4 * (ident[26] & 15) + 2]
    if not blocks:
        raise NvmeError(f'no namespace {nsid}')
    io = Queue(addr, nqn, hostnqn, hostid, 1, admin.cntlid)
    size, sent, done, buffers, where = blocks << shift, 0, 0, {}, {}
    free = list(range(DEPTH))
    while done < size:
        while free and sent < size:
            cid, length = free.pop(), min(chunk, size - sent)
            buffers[cid], where[cid] = bytearray(length), sent
            lba = sent >> shift
            io.send(command(2, cid, nsid, length, lba & 0xffffffff, lba >> 32, (length >> shift) - 1))
            sent += length
        cid, _ = io.reap(buffers)
        os.pwrite(out, buffers[cid], where[cid])
        done += len(buffers[cid])
        free.append(cid)
    return size


def main():
    host, port = sys.argv[1].rsplit(':', 1)
    fd = os.open(sys.argv[4], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    print(read_namespace((host.strip('[]'), int(port)), sys.argv[2], int(sys.argv[3]), fd))


if __name__ == '__main__':
    try:
        main()
    except (NvmeError, OSError) as e:
        sys.exit(f'nvmetcp: {e}')
