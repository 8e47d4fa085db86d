"""A client that leaves: its sandbox is deleted at once, whatever the run was doing (http-api.md 5.10)."""

import itertools
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import pytest
from harness import procfs
from harness.client import RawConnection, open_query, query_bytes, script
from harness.waiting import SLOW, eventually

# The promise itself: DELETE on the wire within this time.
DELETE_SECONDS = 0.25 * SLOW
TRIES = 5


def leave_by_close(connection: RawConnection) -> None:
    """FIN."""
    connection.socket.close()


def leave_by_reset(connection: RawConnection) -> None:
    """RST."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


def leave_by_half_close(connection: RawConnection) -> None:
    """FIN, but the socket stays open for reading."""
    connection.socket.shutdown(socket.SHUT_WR)


WAYS = [leave_by_close, leave_by_reset, leave_by_half_close]


def check_in_time(double, attempt: Callable[[], AbstractContextManager[float]]) -> None:
    """A DELETE comes in time, in one of some tries: noise can only make it later. attempt: a run, and since when it is over."""
    taken = []
    while not taken or (taken[-1] > DELETE_SECONDS and len(taken) < TRIES):
        made = len(double.ledger.created())
        with attempt() as since:
            double.wait(lambda ledger: len(ledger.created()) > made, 5, "the sandbox")  # noqa: B023
            run_id = double.ledger.created()[-1].run_id
            double.wait(lambda ledger: ledger.of_stage("kill", run_id), 5, "the DELETE")  # noqa: B023
        taken.append(double.ledger.delete_latency(run_id, since))
    print(json.dumps({"client_gone_to_delete_ms": [round(seconds * 1000, 1) for seconds in taken]}))
    assert taken[-1] <= DELETE_SECONDS, taken


@contextmanager
def next_of(double, stage: str):
    """Waits at the end of the block for a request of this stage that was made in it."""
    before = len(double.ledger.of_stage(stage))
    yield
    double.wait(lambda ledger: len(ledger.of_stage(stage)) > before, 5, f"the {stage}")


@pytest.mark.alone
@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("stage", ["upload", "start"])
def test_client_gone_before_the_agent_talks(double, server, stage, leave):
    double.inject(stage, "hold", gate="never", times=None)

    @contextmanager
    def attempt():
        with RawConnection(server) as connection:
            with next_of(double, stage):
                connection.send(query_bytes(server, "hello"))
            left = time.monotonic()
            leave(connection)
            yield left

    check_in_time(double, attempt)


@pytest.mark.alone
@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("events", [0, 5])
def test_client_gone_while_the_agent_works(double, server, events, leave):
    @contextmanager
    def attempt():
        began = len(double.ledger.began)
        with RawConnection(server) as connection:
            connection.send(query_bytes(server, script(init=False, events=events, hold="never", hold_after=events)))
            if events:
                connection.read_until(b'"seq":%d' % (events - 1))
            double.wait(lambda ledger: len(ledger.began) > began, 5, "the agent")
            left = time.monotonic()
            leave(connection)
            yield left

    check_in_time(double, attempt)


@pytest.mark.alone
def test_client_gone_while_the_agent_talks_without_pause(double, server):
    @contextmanager
    def attempt():
        with RawConnection(server) as connection:
            connection.send(query_bytes(server, script(flood_mib=200, bytes=2000)))
            connection.read_until(b'"seq":100')
            left = time.monotonic()
            leave_by_close(connection)
            yield left

    check_in_time(double, attempt)


@pytest.mark.alone
@pytest.mark.parametrize("leave", WAYS)
def test_client_gone_during_create_lets_the_create_finish(double, server, leave):
    gates = itertools.count()

    @contextmanager
    def attempt():
        gate = f"create {next(gates)}"
        double.inject("create", "hold", gate=gate)
        with RawConnection(server) as connection:
            with next_of(double, "create"):
                connection.send(query_bytes(server, "hello"))
            with seen_by(server, connection):
                leave(connection)
            released = time.monotonic()
            double.release(gate)
            yield released

    check_in_time(double, attempt)
    assert not double.ledger.of_stage("upload")
    assert not double.ledger.of_stage("start")


@contextmanager
def seen_by(server, connection: RawConnection):
    """The client leaves in the block; at its end the worker has seen it, and closed its own end."""
    sockets = procfs.sockets_to(connection.socket.getsockname()[1])

    def is_held() -> bool:
        return any(sockets & set(procfs.descriptors(pid).values()) for pid in server.workers())

    assert is_held()
    yield
    eventually(lambda: not is_held(), 5, "the server to close its end of the connection")


@pytest.mark.alone
def test_client_gone_while_files_are_collected(double, server):
    double.inject("read", "hold", gate="never", times=None)

    @contextmanager
    def attempt():
        with RawConnection(server) as connection:
            with next_of(double, "read"):
                connection.send(query_bytes(server, script(files={"a.txt": "x"})))
            left = time.monotonic()
            leave_by_close(connection)
            yield left

    check_in_time(double, attempt)


async def test_a_deletion_that_fails_is_tried_again(double, server, client):
    for status in (500, 429, 503):
        double.inject("kill", "status", status=status)
    double.inject("kill", "reset")
    async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
    await double.until(lambda ledger: not ledger.alive(), 30, "the deletion after four failures")
    assert len(double.ledger.of_stage("kill")) == 5
