#!/usr/bin/env python3
"""qmp.py SOCKET COMMAND [JSON]: one QMP command; prints what it returns; waits for DEVICE_DELETED after device_del."""
import json
import socket
import sys

connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect(sys.argv[1])
stream = connection.makefile("rw")
stream.readline()


def call(command, arguments=None):
    stream.write(json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "error" in answer:
            sys.exit(answer["error"]["desc"])
        if "return" in answer:
            return answer["return"]


call("qmp_capabilities")
arguments = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None
returned = call(sys.argv[2], arguments)
if returned:
    print(json.dumps(returned))
while sys.argv[2] == "device_del":
    event = json.loads(stream.readline())
    if event.get("event") == "DEVICE_DELETED" and event["data"].get("device") == arguments["id"]:
        break
