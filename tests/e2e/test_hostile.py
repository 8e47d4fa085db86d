"""Attacks by many connections: nobody dies or spins, others are served meanwhile, and everything is given back."""

import fcntl
import os
import socket
import ssl
import struct
import termios
import time

import pytest
from harness import procfs
from harness.attack import HALF_BODY, HEALTH, Workers, attacked, connect, raise_descriptors, reset, say
from harness.client import RawConnection, query_bytes, script, status_of
from harness.ports import free_port
from harness.server import seconds_since
from harness.waiting import eventually

IDLE = 10000
STORM = 300  # of each kind
CROWD = 2000
# What else goes on on a machine only makes it worse: one comparison is enough.
COMPARISONS, FACTOR_MAX = 3, 4
# What a connection without a run may cost while it is there, and what its descriptor's place in libevent's tables keeps:
# one piece of a page, which keeps the page.
CONNECTION_KIB, PLACE_KIB = 6, 4
TLS_CONNECTION_KIB = 64
SLACK_KIB = 3072
# For some 12,000 bytes that come one by one.
BYTES_KIB = 2048

NO_RUN = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
EXPECTING = b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\nExpect: 100-continue\r\n\r\n"
# What a client has said when it leaves, or waits.
SAID = {
    "nothing": b"",
    "half a head": HEALTH[:20],
    "half a body": HALF_BODY,
    "a body announced": EXPECTING,
    "a request": HEALTH,
    "a request for a page": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n",
    "a refused one": NO_RUN,
    "nonsense": b"\0\0\r\n",
    "several at once": HEALTH * 3,
}


def hello_of(context: ssl.SSLContext) -> bytes:
    """The first message of a handshake."""
    came, went = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(came, went, server_hostname="127.0.0.1").do_handshake()
    return went.read()


@pytest.fixture
def tls_server(start_server, authority):
    """An HTTPS server with one worker, patient with slow clients."""
    certificate, key = authority.issue("server")
    return start_server(
        "--tls-cert", certificate, "--tls-key", key, "--header-timeout", "60", tls=authority.client, workers=1
    )


# --- many ---


@pytest.mark.alone
def test_ten_thousand_connections_that_wait_leave_others_their_turn(start_server):
    raise_descriptors(IDLE + 2000)
    server = start_server("--header-timeout", "60")
    address = ("127.0.0.1", server.port)
    with attacked(server) as (workers, bystander):
        held = [say(connect(address), first) for _ in range(IDLE // 5) for first in (b"", b"G", HEALTH[:-2], HALF_BODY, HEALTH)]
        bystander.wait_served()
        assert workers.grown_kib() <= IDLE * CONNECTION_KIB + SLACK_KIB
    for connection in held:
        reset(connection)
    workers.check_returned(IDLE * PLACE_KIB + SLACK_KIB)


def taking_seconds(server, workers: set[int]) -> float:
    """How long it takes until a crowd that comes at once has been taken in."""
    begin = time.monotonic()
    crowd = [connect(("127.0.0.1", server.port)) for _ in range(CROWD)]
    eventually(lambda: sum(len(procfs.descriptors(pid)) for pid in workers) >= CROWD, 20, "all to be taken")
    taken = seconds_since(begin)
    for connection in crowd:
        reset(connection)
    eventually(lambda: sum(len(procfs.descriptors(pid)) for pid in workers) < CROWD / 10, 10, "all to have left")
    return taken


@pytest.mark.alone
def test_several_workers_take_a_crowd_in_nearly_as_fast_as_one(start_server):
    """Nobody has to wait behind a flood because they take turns."""
    servers = [start_server("--header-timeout", "60", workers=count) for count in (1, 4)]
    workers = [server.workers() for server in servers]
    seen = []
    while len(seen) < COMPARISONS and not (seen and seen[-1] <= FACTOR_MAX):
        one, several = map(taking_seconds, servers, workers)
        seen.append(round(several / one, 2))
    print(seen)
    assert seen[-1] <= FACTOR_MAX


def test_a_byte_at_a_time_keeps_a_byte_at_a_time(start_server, folder):
    """Slow senders of a head: what is kept of it is what came."""
    server = start_server("--header-timeout", "60", "--bind", f"unix:{folder}/s", workers=1)
    workers = Workers(server)
    senders = [connect(f"{folder}/s") for _ in range(8)]
    unread = bytearray(4)
    for byte in b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1500:
        for sender in senders:
            sender.sendall(bytes([byte]))
        for sender in senders:
            while fcntl.ioctl(sender, termios.TIOCOUTQ, unread) or any(unread):
                os.sched_yield()  # so that the next byte comes alone
    assert workers.grown_kib() <= BYTES_KIB
    for sender in senders:
        sender.sendall(b"\r\n\r\n")
        assert status_of(sender.recv(65536)) == 200
        sender.close()
    workers.check_alive()


# --- leaving ---


def test_storms_of_resets_in_every_state(double, start_server):
    server = start_server("--header-timeout", "60")
    with attacked(server) as (workers, _):
        for said in SAID.values():
            for _ in range(STORM):
                reset(say(connect(("127.0.0.1", server.port)), said))
        for number in range(STORM // 5):
            running = say(connect(("127.0.0.1", server.port)), query_bytes(server, script(events=1, hold="never", hold_after=1)))
            if number % 2:
                assert status_of(running.recv(65536)) == 200
            reset(running)
    double.wait(lambda ledger: not ledger.alive(), 20, "the deletion of the runs' sandboxes")
    workers.check_returned(SLACK_KIB)


def test_storms_of_handshakes_that_end_at_once(tls_server, authority):
    """Of those that left the memory is free before the next second."""
    hello = hello_of(authority.new_client())
    address = ("127.0.0.1", tls_server.port)
    firsts = [b"", hello[:1], hello[:100], hello, b"\x16\x03\x01\x00\x20" + os.urandom(32), b"\x15\x03\x01\x00\x02\x02\x28"]
    with attacked(tls_server) as (workers, _):
        for first in firsts:
            for _ in range(STORM):
                reset(say(connect(address), first))
        assert workers.grown_kib() <= STORM * TLS_CONNECTION_KIB
        for said in SAID.values():
            for _ in range(10):
                reset(say(authority.client.wrap_socket(connect(address), server_hostname="127.0.0.1"), said))
    workers.check_returned(SLACK_KIB)


def test_handshakes_that_stop_half_way(tls_server, authority):
    hello = hello_of(authority.new_client())
    with attacked(tls_server) as (workers, bystander):
        held = [say(connect(("127.0.0.1", tls_server.port)), hello[: 1 + number]) for number in range(STORM)]
        held += [say(connect(("127.0.0.1", tls_server.port)), hello) for _ in range(STORM)]
        bystander.wait_served()
        assert workers.grown_kib() <= 2 * STORM * TLS_CONNECTION_KIB
    for connection in held:
        reset(connection)
    workers.check_returned(2 * STORM * PLACE_KIB + SLACK_KIB)


# --- half ---


def test_who_only_listens_gets_the_whole_answer(server):
    """Half-closed after the request: the answer does not end with what the client has to say."""
    for target, least in (("/health", 10), ("/nothing", 10), ("/docs", 10000), ("/openapi.json", 40000)):
        for _ in range(10):
            with RawConnection(server) as connection:
                connection.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode())
                connection.socket.shutdown(socket.SHUT_WR)
                answer = connection.read_to_end()
            head, _, body = answer.partition(b"\r\n\r\n")
            assert len(body) >= least and b"Content-Length: %d\r\n" % len(body) in head + b"\r\n", (target, len(body))


def test_who_closes_half_way_and_half_is_not_waited_for(start_server):
    server = start_server("--header-timeout", "60", "--body-timeout", "60")
    with attacked(server):
        halves = [say(connect(("127.0.0.1", server.port)), first) for _ in range(30) for first in (b"", HEALTH[:9], HALF_BODY)]
        for half in halves:
            half.shutdown(socket.SHUT_WR)
        for half in halves:
            assert half.recv(100) == b""
            half.close()


# --- pipelining ---


def test_no_run_hides_behind_another_request(double, server):
    run = query_bytes(server, "hidden")
    workers = Workers(server)
    for first in (HEALTH, NO_RUN, b"nonsense\r\n\r\n", b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"):
        for _ in range(20):
            with RawConnection(server) as connection:
                connection.send(first + run + run)
                assert connection.read_to_end().count(b"HTTP/1.1 ") <= 1
    assert not double.ledger.of_runs()
    workers.check_alive()


# --- other doors ---

FLOOD = {
    "nothing": b"",
    "half a version 1": b"PROXY TCP4 192.0.2.9",
    "half a version 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0",
    "version 2 too long": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    "an endless version 1": b"PROXY " + b"x" * 5000,
    "no header": HEALTH,
    "a header for nothing": b"PROXY UNKNOWN\r\n",
    "a header and half a request": b"PROXY UNKNOWN\r\n" + HEALTH[:9],
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("door", ["proxied", "unix"])
def test_floods_of_other_doors_leave_the_first_one_open(start_server, folder, door):
    port = free_port()
    bind, address = {
        "proxied": (f"127.0.0.1:{port};proxy_protocol", ("127.0.0.1", port)),
        "unix": (f"unix:{folder}/s", f"{folder}/s"),
    }[door]
    server = start_server("--bind", bind, "--header-timeout", "60")
    with attacked(server) as (workers, bystander):
        held = []
        for first in FLOOD.values():
            for number in range(60):
                flooding = say(connect(address), first)
                held.append(flooding) if number % 2 else reset(flooding)
        bystander.wait_served()
    for flooding in held:
        reset(flooding)
    workers.check_returned(len(held) * PLACE_KIB + SLACK_KIB)
