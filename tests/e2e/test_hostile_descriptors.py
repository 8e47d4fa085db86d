"""Few open files and many who want them: those who wait longest give way, runs never do, and nothing spins."""

import json
import resource

import pytest
from harness import procfs
from harness.attack import HALF_BODY, HEALTH, Workers, attacked, connect, reset, say
from harness.client import RawConnection, body_of, dechunk, query, query_bytes, script, status_of
from harness.open_streams import OpenStreams
from harness.ports import free_port
from harness.server import PROGRAM
from harness.waiting import eventually

MAX_RUNS = 20
# What the smallest limit leaves to connections without a run.
FILES = 128 + 128 + 2 * MAX_RUNS
FLOOD = 500
CROWDED = "more than 128 connections without a run"
OUT_OF_FILES = "Too many open files"


@pytest.fixture
def server(start_server):
    """A server with one worker that may open as few files as it starts with."""
    port = free_port()
    argv = ["prlimit", f"--nofile={FILES}:{FILES}", PROGRAM, "--workers", 1, "--max-runs", MAX_RUNS, "--timeout", 600,
            "--bind", f"127.0.0.1:{port}", "--header-timeout", "60", "--body-timeout", "60"]  # fmt: skip
    return start_server(argv=argv, port=port)


def flood(server, first: bytes) -> list:
    """More connections that say only this than there may be."""
    return [say(connect(("127.0.0.1", server.port)), first) for _ in range(FLOOD)]


@pytest.mark.parametrize("first", [b"", HEALTH[:-2], HALF_BODY, HEALTH], ids=["silent", "half a head", "half a body", "kept"])
def test_who_waits_longest_gives_way(server, first):
    with attacked(server) as (workers, bystander):
        held = flood(server, first)
        bystander.wait_served()
        (worker,) = workers.pids
        assert len(procfs.descriptors(worker)) < FILES - MAX_RUNS
        for connection in held:
            reset(connection)
        held = flood(server, first)
    for connection in held:
        reset(connection)
    assert OUT_OF_FILES not in server.stderr
    assert 1 <= server.stderr.count(CROWDED) <= 3


def test_who_has_not_come_further_for_longest_gives_way_first(server):
    """What counts is the last step, not the age."""
    (worker,) = server.workers()
    address = ("127.0.0.1", server.port)
    old, asking, probing = (connect(address) for _ in range(3))
    asking.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n")
    others = [connect(address) for _ in range(100)]
    ports = {connection.getsockname()[1] for connection in (old, asking, probing, *others)}
    eventually(lambda: ports <= procfs.client_ports(server.port, worker), 10, "all to be accepted")
    probing.sendall(HEALTH)
    assert status_of(probing.recv(65536)) == 200
    asking.sendall(b"Expect: 100-continue\r\n\r\n")
    assert asking.recv(100).startswith(b"HTTP/1.1 100 ")
    others += [connect(address) for _ in range(100)]
    assert old.recv(100) == b""
    probing.sendall(HEALTH)
    assert status_of(probing.recv(65536)) == 200
    asking.sendall(b"{}")
    assert status_of(asking.recv(65536)) == 422
    for connection in (old, asking, probing, *others):
        connection.close()


async def test_runs_give_way_to_nobody(double, server, client):
    async with OpenStreams(double, server, client, MAX_RUNS - 1) as held:
        flooding = flood(server, HALF_BODY)
        (await query(client, server, script(events=3))).check_complete(3)
        double.release("go")
        for answer in await held.answers():
            answer.check_complete(4)
    for connection in flooding:
        reset(connection)
    assert CROWDED in server.stderr and OUT_OF_FILES not in server.stderr


def test_when_files_run_out_all_the_same(double, server):
    """Somebody lowered the limit below what is open: no new connection either way, and no more harm than that."""
    (worker,) = server.workers()
    workers = Workers(server)
    address = ("127.0.0.1", server.port)
    with RawConnection(server) as running, RawConnection(server) as asking:
        running.send(query_bytes(server, script(events=3, hold="go", hold_after=1)))
        answer = running.read_until(b'"seq":0')
        asking.send(HEALTH)
        asking.read_until(b'"status":"ok"')
        # No connection to the service is left but the running one: the next run needs a descriptor.
        double.wait(lambda ledger: all(entry.answered_at for entry in ledger.of_stage("survey")) and ledger.stages["survey"], 10,
                    "the server's first look at its sandboxes")  # fmt: skip
        double.drop_idle()
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, FILES))
        refused = [say(connect(address), HEALTH) for _ in range(20)]
        server.wait_log("cannot accept a connection: " + OUT_OF_FILES)
        workers.check_still()
        asking.send(query_bytes(server, script(events=3)))
        failed = [json.loads(line[6:]) for line in dechunk(body_of(asking.read_to_end()))[0].splitlines() if line.startswith(b"data: ")]
        assert [event.get("code") for event in failed] == ["sandbox_create_failed"]
        double.release("go")
        content, complete = dechunk(body_of(answer + running.read_to_end()))
        assert complete and content.count(b'"seq"') == 3 and b'"type":"result"' in content
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (FILES, FILES))
        for connection in refused:
            assert status_of(connection.recv(65536)) == 200
            connection.close()
    eventually(lambda: not double.ledger.alive(), 20, "the deletions")
    workers.check_alive()
    assert server.stderr.count("cannot accept a connection") < 30
