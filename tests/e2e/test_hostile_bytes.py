"""Requests that mean one thing to one and another to others, and requests without an end: each has one answer or none."""

import itertools
import json
import select
import threading
import time

import pytest
from harness.attack import Workers, attacked, connect, say
from harness.client import body_of, status_of
from harness.waiting import deadline

HOST = b"Host: x\r\n"
GET, POST = b"GET /health HTTP/1.1\r\n" + HOST, b"POST /query HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"prompt":1}'  # 422: it was read as it was sent
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
# How an endless sender sends.
BLOCK_BYTES, PACE_SECONDS = 65536, 0.01
# What the allocator may keep of bodies of a MiB; all of them together send some 200 MiB.
ENDLESS_KIB = 16384


def get(target: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A request of this target."""
    return b"GET %b %b\r\n%b\r\n" % (target, version, HOST)


# Besides those of test_http.py.
VARIANTS = {
    400: {
        "HTTP/0.9": b"GET /health\r\n",
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
        "a handshake of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "version in lower case": get(b"/health", b"http/1.1"),
        "version with a blank": get(b"/health", b"HTTP/1.1 "),
        "two blanks": get(b" /health"),
        "tabs for blanks": b"GET\t/health\tHTTP/1.1\r\n" + HOST + b"\r\n",
        "a blank line first": b"\r\n" + GET + b"\r\n",
        "a blank first": b" " + GET + b"\r\n",
        "bytes above ASCII in the target": get(b"/h\xc3\xa4"),
        "no path": get(b"health"),
        "only a query": get(b"?health"),
        "another scheme": get(b"ftp://x/health"),
        "a URL without a host": get(b"http:///health"),
        "a port out of range": get(b"http://x:99999/health"),
        "a port that is none": get(b"http://x:http/health"),
        "half an address": get(b"http://[/health"),
        "an address that is none": get(b"http://[zz]/health"),
        "a host with a broken escape": get(b"http://%zz/health"),
        "an authority": b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        "two hosts": GET + b"Host: y\r\n\r\n",
        "a fold": GET + b"X: a\r\n b\r\n\r\n",
        "a fold before the first field": b"GET /health HTTP/1.1\r\n Host: x\r\n" + HOST + b"\r\n",
        "a field without a name": GET + b": y\r\n\r\n",
        "a field without a colon": GET + b"Content-Length\r\n\r\n",
        "CR in a value": GET + b"X: a\rContent-Length: 5\r\n\r\n",
        "CR twice": b"GET /health HTTP/1.1\r\r\n" + HOST + b"\r\n",
        "a coding with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
        "a coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS,
        "a coding with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + CHUNKS,
        "a coding without a name": POST + b"Transfer-Encoding:\r\nContent-Length: 12\r\n\r\n" + BODY,
        "a coding in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + CHUNKS,
        "an empty length": POST + b"Content-Length:\r\n\r\n" + BODY,
        "a length of 2^63": POST + b"Content-Length: 9223372036854775808\r\n\r\n" + BODY,
        "a length of 2^64 + 12": POST + b"Content-Length: 18446744073709551628\r\n\r\n" + BODY,
        "a length with a blank": POST + b"Content-Length: 1 2\r\n\r\n" + BODY,
        "a chunk of 2^64 + 12": CHUNKED + b"1000000000000000c\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a chunk of 2^63": CHUNKED + b"8000000000000000\r\n",
        "a chunk in C": CHUNKED + b"0xc\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a chunk with a blank": CHUNKED + b"c \r\n" + BODY + b"\r\n0\r\n\r\n",
        "a chunk after a blank": CHUNKED + b" c\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a chunk without a size": CHUNKED + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "a chunk that is longer": CHUNKED + b"b\r\n" + BODY + b"\r\n0\r\n\r\n",
        "LF alone after a size": CHUNKED + CHUNKS.replace(b"c\r\n", b"c\n", 1),
        "LF alone after an extension": CHUNKED + CHUNKS.replace(b"c\r\n", b"c;a\n", 1),
        "LF alone after a chunk": CHUNKED + CHUNKS.replace(b"}\r\n", b"}\n", 1),
        "LF alone at the end": CHUNKED + CHUNKS[:-2] + b"\n",
        "CR in an extension": CHUNKED + CHUNKS.replace(b"c\r\n", b"c;a\rb\r\n", 1),
        "NUL in an extension": CHUNKED + CHUNKS.replace(b"c\r\n", b"c;\0\r\n", 1),
        "an extension of 9,000 bytes": CHUNKED + CHUNKS.replace(b"c\r\n", b"c;" + b"a" * 9000 + b"\r\n", 1),
        "trailers of 9,000 bytes": CHUNKED + CHUNKS[:-2] + b"A: b\r\n" * 2300 + b"\r\n",
        "a folded trailer": CHUNKED + CHUNKS[:-2] + b"A: b\r\n c\r\n\r\n",
    },
    405: {"a method of 3,000 bytes": b"A" * 3000 + b" /health HTTP/1.1\r\n" + HOST + b"\r\n"},
    413: {
        "a length of 10^18 - 1": POST + b"Content-Length: 999999999999999999\r\n\r\n" + BODY,
        "a chunk of 2^60 - 1": CHUNKED + b"fffffffffffffff\r\n" + BODY,
    },
    417: {"several expectations": POST + b"Expect: 100-continue, x\r\nContent-Length: 12\r\n\r\n" + BODY},
    422: {
        "a coding in capitals": CHUNKED.upper().replace(b"QUERY", b"query") + CHUNKS,
        "a coding behind tabs": CHUNKED.replace(b": chunked", b":\tchunked \t") + CHUNKS,
        "a length with zeros": POST + b"Content-Length: 00012\r\n\r\n" + BODY,
        "a chunk with zeros": CHUNKED + b"00" + CHUNKS,
        "a chunk in capitals": CHUNKED + CHUNKS.replace(b"c", b"C", 1),
        "an extension": CHUNKED + CHUNKS.replace(b"c\r\n", b'c;\ta="b;c"\r\n', 1),
        "trailers that say another length": CHUNKED + CHUNKS[:-2] + b"Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\n",
        "LF alone in the head": CHUNKED.replace(b"\r\n", b"\n") + CHUNKS,
        "one byte a chunk": CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    },
    # As HTTP/1.0, where a probe's connection ends as well.
    200: {
        "HTTP/1.0 without a host": b"GET /health HTTP/1.0\r\n\r\n",
        "a URL": get(b"HTTP://u:p@[::1]:81/health?a", b"HTTP/1.0"),
        "every other sign in a query": get(b"/health?\"'<>[]^`{}|\\%zz%&&==", b"HTTP/1.0"),
        "an upgrade": get(b"/health", b"HTTP/1.0")[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        "bytes above ASCII in a value": get(b"/health", b"HTTP/1.0")[:-2] + b"X: \xff\xfe\r\n\r\n",
    },
}  # fmt: skip


def ask(server, pieces) -> bytes:
    """Everything that is answered to bytes that come in pieces."""
    with connect(("127.0.0.1", server.port)) as connection:
        for piece in pieces:
            say(connection, piece)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def cut(request: bytes, length: int) -> list[bytes]:
    """A request in pieces."""
    return [request[at : at + length] for at in range(0, len(request), length)]


@pytest.mark.parametrize("status", VARIANTS)
def test_odd_requests_are_answered_once_and_with_json(double, server, status):
    workers = Workers(server)
    wrong = {}
    for (name, request), whole in itertools.product(VARIANTS[status].items(), (True, False)):
        answer = ask(server, [request] if whole else cut(request, max(7, len(request) // 50)))
        is_json = b"\r\nContent-Type: application/json\r\n" in answer and isinstance(json.loads(body_of(answer)), dict)
        if (status_of(answer), answer.count(b"HTTP/1."), is_json) != (status, 1, True):
            wrong[name, whole] = answer[:200]
    assert not wrong
    assert not double.ledger.of_runs()
    workers.check_alive()


# Begin, and what comes again and again: no such request has an end.
ENDLESS = {
    "blank lines": (b"", b"\r\n", {400}),
    "a method": (b"", b"A", {414}),
    "a target": (b"GET /", b"a", {414}),
    "a version": (b"GET / HTTP/", b"1", {414}),
    "a name": (GET, b"a", {431}),
    "a value": (GET + b"X: ", b"a", {431}),
    "fields": (GET, b"a: b\r\n", {431}),
    "a body": (POST + b"Content-Length: 16777217\r\n\r\n", b"a", {413}),
    "a size": (CHUNKED, b"0", {400}),
    "an extension": (CHUNKED + b"1;", b"a", {400}),
    "a chunk": (CHUNKED + b"fffff\r\n", b"a", {400}),
    "chunks": (CHUNKED, b"1\r\na\r\n", {413}),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n", {400}),
    "requests": (b"", GET + b"\r\n", {0}),
    "requests nobody knows": (b"", b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "zeros": (b"", b"\0", {400}),
}


class Endless(threading.Thread):
    """Sends what has no end, until it is cut off."""

    def __init__(self, server, what: str):
        super().__init__()
        begin, more, self.statuses = ENDLESS[what]
        self._block = more * (BLOCK_BYTES // len(more))
        self._connection = say(connect(("127.0.0.1", server.port)), begin)
        self._answered = select.poll()
        self._answered.register(self._connection, select.POLLIN)
        self.answer = b""

    def run(self):
        try:
            while not self._answered.poll(PACE_SECONDS * 1000):
                self._connection.sendall(self._block)
            self.answer = self._connection.recv(65536)
            while True:
                self._connection.sendall(self._block)
                time.sleep(PACE_SECONDS)
        except ConnectionError:
            self._connection.close()


def test_what_has_no_end_is_ended(double, start_server):
    server = start_server("--body-limit", "1MiB")
    with attacked(server) as (workers, _):
        senders = {what: Endless(server, what) for what in ENDLESS}
        for sender in senders.values():
            sender.start()
        for what, sender in senders.items():
            sender.join(deadline(20))
            assert not sender.is_alive(), what
    wrong = {what: sender.answer[:200] for what, sender in senders.items() if status_of(sender.answer) not in sender.statuses}
    assert not wrong
    workers.check_returned(ENDLESS_KIB)
