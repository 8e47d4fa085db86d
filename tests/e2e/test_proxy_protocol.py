"""PROXY protocol on the addresses that say so: the client's address, only from trusted_proxies, and never none."""

import socket
import struct
import time

import pytest
from harness.client import body_of, query_bytes, script, status_of
from harness.leaving import assert_leaving_is_noticed
from harness.server import free_port, seconds_since
from harness.waiting import deadline

V1 = b"PROXY TCP4 192.0.2.9 198.51.100.1 56324 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, bytes([192, 0, 2, 9]), bytes([198, 51, 100, 1]), 1, 2)
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
BAD_REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: nothing\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"
REFUSAL = "request refused: 417 Expectation Failed, client "


class Proxied:
    """A server with an address for proxies beside its plain one."""

    def __init__(self, start_server, authority, secure: bool, *args):
        self.port = free_port()
        self.context = authority.client if secure else None
        if secure:
            certificate, key = authority.issue("server")
            args += ("--tls-cert", certificate, "--tls-key", key)
        self.server = start_server("--bind", f"127.0.0.1:{self.port};proxy_protocol", *args, tls=self.context)

    def connect(self, *pieces: bytes) -> socket.socket:
        """A connection on which the proxy has said this; what follows the header is the client's TLS or HTTP."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=deadline(10))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        if self.context:
            connection = self.context.wrap_socket(connection, server_hostname="127.0.0.1")
        return connection

    def ask(self, header: bytes, request: bytes) -> bytes:
        """The answer to a request behind a header."""
        with self.connect(header) as connection:
            connection.sendall(request)
            return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    """Everything to the close; a reset counts as one."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)


@pytest.fixture(params=["plain", "tls"])
def proxied(request, start_server, authority):
    """Both kinds of server."""
    return lambda *args: Proxied(start_server, authority, request.param == "tls", *args)


@pytest.mark.parametrize(
    ("header", "client"), [(V1, "192.0.2.9"), (V2, "192.0.2.9"), (b"PROXY UNKNOWN\r\n", "203.0.113.1"), (V2_LOCAL, "203.0.113.1")]
)
def test_the_client_of_the_header_is_the_client(proxied, header, client):
    target = proxied()
    assert status_of(target.ask(header, BAD_REQUEST)) == 417
    target.server.wait_log(REFUSAL + client)


def test_a_run_behind_a_header(double, proxied):
    target = proxied()
    answer = target.ask(V2, query_bytes(target.server, script(events=3)))
    assert status_of(answer) == 200 and b'"type":"result"' in body_of(answer)


def test_a_header_may_come_byte_by_byte(proxied):
    target = proxied()
    for header in (V1, V2):
        with target.connect(*(bytes([byte]) for byte in header)) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert status_of(read_to_end(connection)) == 200


def test_header_and_request_may_come_at_once_and_the_connection_is_kept(start_server, authority):
    target = Proxied(start_server, authority, False)
    with target.connect() as connection:
        for first in (V1, b""):
            connection.sendall(first + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                piece = connection.recv(65536)
                assert piece, answer
                answer += piece
            assert status_of(answer) == 200


def test_the_other_addresses_know_no_header(start_server, authority):
    target = Proxied(start_server, authority, False)
    with socket.create_connection(("127.0.0.1", target.server.port), timeout=deadline(10)) as connection:
        connection.sendall(V1 + BAD_REQUEST)
        assert status_of(read_to_end(connection)) == 400


@pytest.mark.parametrize("first", [BAD_REQUEST, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PROXY TCP4 nobody\r\n", b"\r\n\r\n\0\r\nQUIT\nx"])
def test_a_connection_without_a_header_is_closed(proxied, first):
    target = proxied()
    with socket.create_connection(("127.0.0.1", target.port), timeout=deadline(10)) as connection:
        connection.sendall(first)
        assert read_to_end(connection) == b""
    target.server.wait_log("connection closed: no PROXY protocol header, peer 127.0.0.1")


def test_only_trusted_proxies_are_believed(proxied):
    target = proxied("--trusted-proxies", "192.0.2.1")
    with socket.create_connection(("127.0.0.1", target.port), timeout=deadline(10)) as connection:
        connection.sendall(V1 + BAD_REQUEST)
        assert read_to_end(connection) == b""
    target.server.wait_log("connection closed: it is not of trusted_proxies, peer 127.0.0.1")
    assert REFUSAL not in target.server.stderr


@pytest.mark.parametrize("first", [b"", b"PROXY TCP4 192.0.2.9"])
def test_a_slow_header_is_closed_after_header_timeout(proxied, first):
    target = proxied("--header-timeout", "300ms")
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", target.port), timeout=deadline(10)) as connection:
        connection.sendall(first)
        assert read_to_end(connection) == b""
        assert 0.2 < seconds_since(begin) < deadline(6)


def test_a_client_that_leaves_behind_a_header_is_noticed(double, proxied):
    target = proxied("--ping-interval", "0")
    assert_leaving_is_noticed(double, target.server, lambda: target.connect(V1))
