"""Put into a sandbox: asks the proxy for a tunnel to each of the targets in argv and prints what came back as JSON."""

import json
import socket
import sys


def probe(target):
    with socket.create_connection(("127.0.0.1", 3128), 60) as proxy:
        proxy.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        reader = proxy.makefile("rb")
        status = int(reader.readline().split()[1])
        head = list(iter(reader.readline, b"\r\n"))
        if status != 200:
            return {"status": status, "text": reader.read().decode(), "head": len(head)}
        proxy.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return {"status": status} | json.loads(reader.read().split(b"\r\n\r\n", 1)[1])


print(json.dumps([probe(target) for target in sys.argv[1:]]))
