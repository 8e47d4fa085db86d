"""Bodies of uploads stream through sandboxd: no memory, back-pressure, and a connection that stays in step."""

import hashlib
import json
import os
import random
import re
import signal
import socket
from pathlib import Path

import pytest
from harness import procfs
from harness.server import memory_slack_kib
from sandboxd_client import SLOW, UnixConnection, wait_for

MIB = 1024 * 1024
RAW = {"Content-Type": "application/octet-stream"}


class Wire:
    """A connection on which a test writes HTTP itself."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10 * SLOW)
        self.socket.connect(str(sandbox.daemon.socket))
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def head(self, line, *headers) -> bytes:
        named = [f"E2b-Sandbox-Id: {self.sandbox.id}", "Host: localhost"]
        return "\r\n".join([line + " HTTP/1.1", *named, *headers, "", ""]).encode()

    def upload(self, path, *headers) -> bytes:
        return self.head(f"POST /files?path={path}", "Content-Type: application/octet-stream", *headers)

    def send(self, data: bytes):
        self.socket.sendall(data)

    def read(self):
        """More bytes; fails at the end."""
        more = self.socket.recv(65536)
        assert more, f"closed after {self.got!r}"
        self.got += more

    def answer(self):
        """The next answer: status, headers, body."""
        while b"\r\n\r\n" not in self.got:
            self.read()
        head, self.got = self.got.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        length = int(length[1]) if length else 0
        while len(self.got) < length:
            self.read()
        body, self.got = self.got[:length], self.got[length:]
        return int(head.split()[1]), head, body

    def is_cut(self) -> bool:
        """Whether the connection ends without a byte more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


@pytest.fixture
def wire(sandbox):
    with Wire(sandbox) as opened:
        yield opened


@pytest.fixture
def roomy(start_daemon):
    """A sandbox with a large home."""
    return start_daemon("--disk-mib", 2048).create()


def peak_memory(daemon) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def slack(plain: int) -> int:
    """What memory may differ by, in bytes."""
    return memory_slack_kib(plain // 1024) * 1024


# --- memory ---


@pytest.mark.parametrize("how", ["length", "chunks", "one chunk", "form"])
def test_300_mib_go_through_without_memory(roomy, how):
    before = peak_memory(roomy.daemon)
    piece, count = os.urandom(MIB), 300
    with Wire(roomy) as wire:
        if how == "length":
            wire.send(wire.upload("big", f"Content-Length: {count * MIB}"))
        elif how == "form":
            start = b'--B\r\nContent-Disposition: form-data; name="file"; filename="/home/user/big"\r\n\r\n'
            length = len(start) + count * MIB + len(b"\r\n--B--\r\n")
            wire.send(wire.head("POST /files", "Content-Type: multipart/form-data; boundary=B",
                                f"Content-Length: {length}") + start)  # fmt: skip
        else:
            wire.send(wire.upload("big", "Transfer-Encoding: chunked"))
        if how == "one chunk":
            wire.send(f"{count * MIB:x}\r\n".encode())
        for _ in range(count):
            wire.send(f"{MIB:x}\r\n".encode() + piece + b"\r\n" if how == "chunks" else piece)
        wire.send({"chunks": b"0\r\n\r\n", "one chunk": b"\r\n0\r\n\r\n", "form": b"\r\n--B--\r\n"}.get(how, b""))
        assert wire.answer()[0] == 200
    assert roomy.text("stat -c %s big; tail -c 1048576 big | sha256sum | cut -c1-16; head -c 1048576 big | sha256sum | cut "
                      "-c1-16").split() == [str(count * MIB), *[digest(piece)] * 2]  # fmt: skip
    assert peak_memory(roomy.daemon) - before < slack(8 * MIB)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def test_a_sandbox_that_does_not_write_holds_its_client_back(roomy):
    """Its init is stopped, so that no file is opened."""
    daemon = roomy.daemon
    [init] = [pid for pid in daemon.children if Path(f"/proc/{pid}/comm").read_text() == "sandbox-init\n"]
    before, count, sent = peak_memory(daemon), 64 * MIB, 0
    with Wire(roomy) as wire:
        os.kill(init, signal.SIGSTOP)
        wait_for(lambda: procfs.stat_fields(init)[0] == "T", "init has stopped")
        wire.send(wire.upload("held", f"Content-Length: {count}"))
        wire.socket.settimeout(0.5 * SLOW)
        with pytest.raises(TimeoutError):
            while sent < count:
                sent += wire.socket.send(bytes(65536))
        assert sent < 4 * MIB and peak_memory(daemon) - before < slack(4 * MIB)
        os.kill(init, signal.SIGCONT)
        wire.socket.settimeout(10 * SLOW)
        wire.send(bytes(count - sent))
        assert wire.answer()[0] == 200
    assert roomy.text("stat -c %s held") == f"{count}\n"


def test_a_stopped_upload_holds_nobody_up(sandbox, wire):
    wire.send(wire.upload("slow", "Content-Length: 1000") + b"x" * 500)
    assert sandbox.text("echo meanwhile") == "meanwhile\n"
    wait_for(lambda: sandbox.read("slow").body == b"x" * 500, "the half is written")
    wire.send(b"y" * 500)
    assert wire.answer()[0] == 200
    assert sandbox.read("slow").body == b"x" * 500 + b"y" * 500


def test_many_connections_leave_no_memory(sandbox):
    def connect(count):
        for i in range(count):
            with Wire(sandbox) as wire:
                if i % 2:
                    wire.send(wire.head("GET /health"))
                    assert wire.answer()[0] == 204

    connect(500)
    before = peak_memory(sandbox.daemon)
    connect(4000)
    assert peak_memory(sandbox.daemon) - before < slack(MIB)
    wait_for(lambda: sandbox.daemon.descriptors < sandbox.daemon.idle_fds + 8, "descriptors given back")


# --- heads and bodies in any pieces ---


def test_a_head_and_body_byte_by_byte(sandbox, wire):
    message = wire.upload("f", "Transfer-Encoding: chunked") + b"3;ext=1\r\nabc\r\n2\r\n\r\n\r\n0\r\nTrailer: x\r\n\r\n"
    for i in range(len(message)):
        wire.send(message[i : i + 1])
    assert wire.answer()[0] == 200
    assert sandbox.read("f").body == b"abc\r\n"


def test_messages_in_a_row_are_answered_in_order(sandbox, wire):
    wire.send(wire.head("GET /health")
              + wire.upload("one", "Content-Length: 3") + b"one"
              + wire.upload("two", "Transfer-Encoding: chunked") + b"3\r\ntwo\r\n0\r\n\r\n"
              + wire.upload("three", "Content-Length: 5", "X-Access-Token: x", "Content-Encoding: br") + b"three"
              + wire.upload("four", "Content-Length: 0")
              + wire.head("GET /files?path=two"))  # fmt: skip
    answers = [wire.answer() for _ in range(6)]
    assert [status for status, _, _ in answers] == [204, 200, 200, 400, 200, 200]
    assert [json.loads(answers[i][2])[0]["name"] for i in (1, 2, 4)] == ["one", "two", "four"]
    assert answers[5][2] == b"two"
    assert sandbox.read("one").body == b"one"


@pytest.mark.parametrize("seed", range(5))
def test_any_messages_in_any_pieces_are_answered_in_order(sandbox, wire, seed):
    chance = random.Random(seed)
    sent, expected = b"", []
    for i in range(60):
        body = chance.randbytes(chance.choice([0, 1, 100, 5000, 40000]))
        kind = chance.choice(["health", "raw", "chunks", "form", "read", "refused"])
        if kind == "health":
            sent += wire.head("GET /health")
        elif kind == "raw":
            sent += wire.upload(f"f{i}", f"Content-Length: {len(body)}") + body
        elif kind == "chunks":
            sent += wire.upload(f"f{i}", "Transfer-Encoding: chunked") + chunked(body, chance)
        elif kind == "form":
            part = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f%d"\r\n\r\n' % i
            body = part + body + b"\r\n--B--"
            sent += wire.head("POST /files", "Content-Type: multipart/form-data; boundary=B",
                              "Transfer-Encoding: chunked") + chunked(body, chance)  # fmt: skip
        elif kind == "refused":
            sent += wire.head("POST /files?path=x", "Content-Type: text/plain", f"Content-Length: {len(body)}") + body
        else:
            sent += wire.head("GET /files?path=/etc/passwd")
        expected.append({"health": (204, None), "refused": (400, None), "read": (200, None)}.get(kind, (200, f"f{i}")))
    while sent:
        size = chance.choice([1, 7, 100, 3000, 100000])
        wire.send(sent[:size])
        sent = sent[size:]
    answers = []
    for status, name in expected:
        answer = wire.answer()
        answers.append((answer[0], name and json.loads(answer[2])[0]["name"]))
    assert answers == expected


def chunked(body: bytes, chance) -> bytes:
    pieces = b""
    while body:
        size = chance.choice([1, 10, 1000, 100000])
        pieces += f"{len(body[:size]):X}\r\n".encode() + body[:size] + b"\r\n"
        body = body[size:]
    return pieces + b"0\r\n\r\n"


def test_a_body_that_looks_like_an_upload_is_no_upload(sandbox, wire):
    """In an ordinary message and in an upload, at the begin of a segment."""
    inner = wire.upload("stolen", "Content-Length: 3") + b"bad"
    wire.send(wire.head("POST /process.Process/List", "Content-Type: application/json", f"Content-Length: {len(inner)}"))
    wire.send(inner)
    assert wire.answer()[0] in {200, 400}
    wire.send(wire.upload("outer", f"Content-Length: {len(inner)}"))
    wire.send(inner)
    assert wire.answer()[0] == 200
    assert sandbox.read("outer").body == inner
    assert sandbox.read("stolen").status == 404


@pytest.mark.parametrize("headers", [
    ["Content-Length: 3", "Content-Length: 3"],
    ["Content-Length: 3", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: identity, chunked"],
    ["Content-Length: +3"],
    ["Content-Length: 3", " folded: x"],
])  # fmt: skip
def test_a_head_that_can_be_read_in_two_ways_is_not_streamed(sandbox, wire, headers):
    """evhttp judges it; whatever it does, what follows is never taken for another message."""
    wire.send(wire.upload("f", *headers) + b"abc" + wire.upload("stolen", "Content-Length: 3") + b"bad")
    wire.socket.shutdown(socket.SHUT_WR)
    assert sandbox.daemon.call("GET", "/health").status == 200
    assert b"HTTP/1.1 100" not in wire.got


def test_a_malformed_chunk_cuts_the_connection(sandbox, wire):
    wire.send(wire.upload("f", "Transfer-Encoding: chunked") + b"3\r\nabc\r\nzz\r\n")
    assert wire.is_cut()
    assert sandbox.text("echo hi") == "hi\n"


def test_expect_100_is_answered_before_the_body(sandbox, wire):
    wire.send(wire.upload("f", "Content-Length: 4", "Expect: 100-continue"))
    status, head, _ = wire.answer()
    assert status == 100
    wire.send(b"body")
    assert wire.answer()[0] == 200
    wire.send(wire.head("GET /files?path=f"))
    assert wire.answer()[2] == b"body"


def test_expect_100_is_not_answered_when_the_body_is_not_wanted(daemon):
    sandbox = daemon.create(secure=True)
    with Wire(sandbox) as wire:
        wire.send(wire.upload("f", "Content-Length: 4", "Expect: 100-continue"))
        status, head, _ = wire.answer()
        assert status == 401 and b"Connection: close" in head
        assert wire.is_cut()


# --- ends before the end ---


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_answer_before_the_end_leaves_the_connection_in_step(daemon, framing):
    sandbox = daemon.create(secure=True)
    body = b"x" * MIB
    with Wire(sandbox) as wire:
        if framing == "length":
            wire.send(wire.upload("f", f"Content-Length: {5 * MIB}"))
        else:
            wire.send(wire.upload("f", "Transfer-Encoding: chunked"))
        assert wire.answer()[0] == 401
        for _ in range(5):
            wire.send(body if framing == "length" else f"{MIB:x}\r\n".encode() + body + b"\r\n")
        wire.send(b"" if framing == "length" else b"0\r\n\r\n")
        wire.send(wire.head("GET /health"))
        assert wire.answer()[0] == 204


def test_a_full_disk_is_told_and_the_connection_goes_on(start_daemon):
    sandbox = start_daemon("--disk-mib", 16).create()
    connection = UnixConnection(sandbox.daemon.socket)
    connection.request("POST", "/files?path=big", bytes(40 * MIB), sandbox.headers | RAW)
    response = connection.getresponse()
    assert response.status == 507 and f"attempted to write {40 * MIB} bytes" in response.read().decode()
    connection.request("POST", "/files?path=big", b"small", sandbox.headers | RAW)
    response = connection.getresponse()
    assert response.status == 200 and response.read()
    connection.close()


def test_a_client_that_leaves_amid_an_upload_is_forgotten(sandbox):
    daemon = sandbox.daemon
    before = daemon.descriptors
    for _ in range(5):
        with Wire(sandbox) as wire:
            wire.send(wire.upload("part", f"Content-Length: {MIB}") + b"x" * 1000)
            wait_for(lambda: len(sandbox.read("part").body) == 1000, "the part is written")
    wait_for(lambda: daemon.descriptors <= before, "descriptors given back")


def test_a_kill_cuts_an_upload(sandbox, wire):
    wire.send(wire.upload("part", f"Content-Length: {MIB}") + b"x" * 1000)
    wait_for(lambda: len(sandbox.read("part").body) == 1000, "the part is written")
    assert sandbox.kill().status == 204
    assert wire.is_cut()


def test_a_pause_cuts_an_upload(sandbox, wire):
    wire.send(wire.upload("part", f"Content-Length: {MIB}") + b"x" * 1000)
    wait_for(lambda: len(sandbox.read("part").body) == 1000, "the part is written")
    path = f"/sandboxes/{sandbox.id}"
    assert sandbox.daemon.call("POST", f"{path}/pause").status == 204
    assert wire.is_cut()
    assert sandbox.daemon.call("POST", f"/v2{path}/connect").status == 201
    assert len(sandbox.read("part").body) == 1000


def test_many_uploads_at_once(roomy):
    wires = [Wire(roomy) for _ in range(30)]
    for i, wire in enumerate(wires):
        wire.send(wire.upload(f"f{i}", f"Content-Length: {MIB}"))
    for _ in range(16):
        for i, wire in enumerate(wires):
            wire.send(bytes([i]) * (MIB // 16))
    for i, wire in enumerate(wires):
        assert wire.answer()[0] == 200
        assert roomy.read(f"f{i}").body == bytes([i]) * MIB
        wire.socket.close()


def test_an_upload_costs_little_more_than_a_copy(roomy):
    """In processor time, which the load of the machine does not change."""
    before = processor_seconds(roomy.daemon)
    connection = UnixConnection(roomy.daemon.socket)
    connection.request("POST", "/files?path=big", bytes(200 * MIB), roomy.headers | RAW)
    assert connection.getresponse().status == 200
    connection.close()
    taken = processor_seconds(roomy.daemon) - before
    print(json.dumps({"upload_ms_a_gib": round(taken * 1000 * 1024 / 200)}))
    assert taken < 1 * SLOW


def processor_seconds(daemon) -> float:
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
