"""A client that leaves: its sandbox is deleted at once, whatever the run was doing (http-api.md 5.10)."""

import json
import socket
import struct
import time

import pytest
from harness.client import RawConnection, open_query, query_bytes, script
from harness.waiting import SLOW

# The promise itself: DELETE on the wire within this time.
DELETE_SECONDS = 0.25 * SLOW


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


def check_in_time(double, run_id: str, since: float) -> None:
    """A run's DELETE came in time."""
    taken = double.ledger.delete_latency(run_id, since)
    print(json.dumps({"client_gone_to_delete_ms": round(taken * 1000, 1)}))
    assert taken <= DELETE_SECONDS


def check_deleted_soon(double, since: float) -> None:
    """The only run's DELETE came in time."""
    double.wait(lambda ledger: ledger.of_stage("kill"), 5, "the DELETE")
    (run_id,) = {sandbox.run_id for sandbox in double.ledger.created()}
    check_in_time(double, run_id, since)


@pytest.mark.alone
@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("stage", ["upload", "start"])
def test_client_gone_before_the_agent_talks(double, server, stage, leave):
    double.inject(stage, "hold", gate="never")
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, "hello"))
        double.wait(lambda ledger: ledger.of_stage(stage), 5, f"the {stage}")
        left = time.monotonic()
        leave(connection)
        check_deleted_soon(double, left)


@pytest.mark.alone
@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("events", [0, 5])
def test_client_gone_while_the_agent_works(double, server, events, leave):
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, script(init=False, events=events, hold="never", hold_after=events)))
        if events:
            connection.read_until(b'"seq":%d' % (events - 1))
        double.wait(lambda ledger: ledger.open_streams() == 1, 5, "the agent")
        left = time.monotonic()
        leave(connection)
        check_deleted_soon(double, left)


@pytest.mark.alone
def test_client_gone_while_the_agent_talks_without_pause(double, server):
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, script(flood_mib=200, bytes=2000)))
        connection.read_until(b'"seq":100')
        left = time.monotonic()
        leave_by_close(connection)
        check_deleted_soon(double, left)


@pytest.mark.alone
@pytest.mark.parametrize("leave", WAYS)
def test_client_gone_during_create_lets_the_create_finish(double, server, leave):
    double.inject("create", "hold", gate="create")
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, "hello"))
        double.wait(lambda ledger: ledger.of_stage("create"), 5, "the create")
        leave(connection)
        if leave is not leave_by_half_close:
            return_of_next_request(server)
        released = time.monotonic()
        double.release("create")
        check_deleted_soon(double, released)
    assert not double.ledger.of_stage("upload")
    assert not double.ledger.of_stage("start")


def return_of_next_request(server) -> None:
    """Waits until both workers have been through their loop once more, so that the close was seen."""
    for _ in range(4):
        with RawConnection(server) as probe:
            probe.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            probe.read_until(b"}")


@pytest.mark.alone
async def test_client_gone_while_files_are_collected(double, server, client):
    double.inject("read", "hold", gate="never")
    async with open_query(client, server, script(files={"a.txt": "x"})) as stream:
        await double.until(lambda ledger: ledger.of_stage("read"), 5, "the first read")
        run_id = stream.run_id
        left = time.monotonic()
    await double.until(lambda ledger: ledger.of_stage("kill"), 5, "the DELETE")
    check_in_time(double, run_id, left)


async def test_a_deletion_that_fails_is_tried_again(double, server, client):
    for status in (500, 429, 503):
        double.inject("kill", "status", status=status)
    double.inject("kill", "reset")
    async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
    await double.until(lambda ledger: not ledger.alive(), 30, "the deletion after four failures")
    assert len(double.ledger.of_stage("kill")) == 5
