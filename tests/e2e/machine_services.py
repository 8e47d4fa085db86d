"""The services of a machine of two_machines.py, run in its network: machine_services.py NAME FOLDER.

A web server on ports 80 and 8080 of all addresses tells which machine and address was reached and what was sent, one on
port 8081 keeps what it gets; on "there" a name server answers from FOLDER/names.json, which it reads for each question.
"""

import itertools
import json
import socket
import socketserver
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME, FOLDER = sys.argv[1], Path(sys.argv[2])
FLOOD_BYTES = 64 * 1024 * 1024


def append(name, line):
    with open(FOLDER / name, "a") as out:
        out.write(line + "\n")


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        append(f"requests-{NAME}", self.requestline)
        if self.path == "/flood":
            return self.flood()
        if self.path == "/hold":
            self.rfile.read()
            return None
        if self.path.startswith("/files/"):
            return self.answer((FOLDER / self.path.removeprefix("/files/").split("?")[0]).read_bytes())
        return self.tell(b"")

    def do_PUT(self):
        append(f"requests-{NAME}", self.requestline)
        self.tell(self.read_body())

    do_POST = do_PUT

    def read_body(self):
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def tell(self, body):
        told = {"machine": NAME, "address": self.connection.getsockname()[0].removeprefix("::ffff:"), "path": self.path,
                "headers": dict(self.headers), "body_bytes": len(body)}  # fmt: skip
        self.answer(json.dumps(told).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def flood(self):
        self.send_response(200)
        self.send_header("Content-Length", str(FLOOD_BYTES))
        self.end_headers()
        try:
            for _ in range(FLOOD_BYTES // 65536):
                self.wfile.write(bytes(65536))
        except OSError:
            self.close_connection = True

    def log_message(self, *args):
        pass


class RawServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, *args):
        pass


class DualServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, *args):
        pass


class Raw(socketserver.BaseRequestHandler):
    """Keeps all it gets, answers a request without closing, and says at the end how many bytes came."""

    def handle(self):
        got = b""
        while piece := self.request.recv(65536):
            if b"\r\n\r\n" in got + piece and b"\r\n\r\n" not in got:
                self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            got += piece
        append("raw", repr(got))
        self.request.sendall(f"got {len(got)}".encode())


class Dns(socketserver.BaseRequestHandler):
    turns = itertools.count()

    def handle(self):
        packet, out = self.request
        labels, at = [], 12
        while length := packet[at]:
            labels.append(packet[at + 1 : at + 1 + length].decode())
            at += 1 + length
        kind, name = struct.unpack(">H", packet[at + 1 : at + 3])[0], ".".join(labels).lower()
        append("asked", name)
        names = json.loads((FOLDER / "names.json").read_text())
        addresses = names.get(name, [])
        if addresses is None:
            return
        if addresses[:1] == ["flip"]:
            addresses = [addresses[1 + next(self.turns) // 2 % (len(addresses) - 1)]]
        found = [socket.inet_pton(socket.AF_INET6 if kind == 28 else socket.AF_INET, address) for address in addresses
                 if kind == (28 if ":" in address else 1)]  # fmt: skip
        answers = b"".join(struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(raw)) + raw for raw in found)
        flags = 0x8180 if name in names else 0x8183
        out.sendto(packet[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0) + packet[12 : at + 5] + answers,
                   self.client_address)  # fmt: skip


if NAME == "there":
    threading.Thread(target=socketserver.UDPServer(("", 53), Dns).serve_forever, daemon=True).start()
servers = [DualServer(("::", 80), Web), DualServer(("::", 8080), Web), RawServer(("", 8081), Raw)]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
servers[0].serve_forever()
