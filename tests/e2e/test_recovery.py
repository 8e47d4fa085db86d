"""Nothing is left when a worker, the master or the machine dies (http-api.md 16, design.md 5)."""

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from harness import procfs
from harness.client import new_client, open_query, query, script
from harness.server import Server
from harness.waiting import deadline, eventually, eventually_async

MANY = 50
RECOVERED_SECONDS = 5
HELD = {"events": 1, "hold": "never", "hold_after": 1}
LONG_AGO_SECONDS = 120


@asynccontextmanager
async def held_runs(double, server, count: int, **fields):
    """Runs whose agents wait; gives their ids. The streams end with the block, or when their worker dies."""
    before = set(double.ledger.open)  # an ended one may still be among them
    async with new_client() as client:
        tasks = [asyncio.create_task(query(client, server, script(**HELD, marker=str(n)), **fields)) for n in range(count)]
        await double.until(lambda ledger: len(ledger.open - before) == count, 30, f"{count} agents")
        try:
            yield double.ledger.open - before
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def records(client, server, **params) -> dict[str, dict]:
    """The server's runs by id."""
    answer = await client.get(f"{server.url}/runs", params={"limit": 1000, **params})
    return {record["id"]: record for record in answer.json()}


async def until_gone(double, since: float, sandboxes: int) -> None:
    """Waits until so many sandboxes were made and all were deleted, in time."""
    await double.until(lambda ledger: not ledger.alive(), RECOVERED_SECONDS + 5, "the deletions")
    assert len(double.ledger.deleted()) == sandboxes
    taken = max(sandbox.deleted_at for sandbox in double.ledger.deleted()) - since
    print(json.dumps({"deleted": sandboxes, "seconds": round(taken, 2)}))
    assert taken < deadline(RECOVERED_SECONDS)


def kill_machine(server: Server) -> None:
    """Everything dies at once: nobody can clean up."""
    workers = server.workers()
    for pid in (server.pid, *workers):
        server.signal(signal.SIGSTOP, pid)
        eventually(lambda pid=pid: procfs.stat_fields(pid)[0] == "T", 5, "a process to stop")
    for pid in (*workers, server.pid):
        server.signal(signal.SIGKILL, pid)
    server.wait_exit()


@pytest.mark.alone
async def test_50_sandboxes_of_a_killed_worker_are_deleted_by_another(double, start_server, client):
    server = start_server(workers=1)
    (victim,) = server.workers()
    async with held_runs(double, server, MANY) as ids:
        server.signal(signal.SIGTTIN)
        await eventually_async(lambda: len(server.workers()) == 2, 10, "a second worker")
        begin = time.monotonic()
        server.signal(signal.SIGKILL, victim)
        await until_gone(double, begin, MANY)
        found = await records(client, server)
        assert {(found[run_id]["status"], found[run_id]["error_code"]) for run_id in ids} == {("error", "worker_lost")}
        assert all(found[run_id]["ended_at"] and found[run_id]["sandbox_id"] for run_id in ids)
    (await query(client, server, script())).check_complete(3)
    status = (await client.get(f"{server.url}/status")).json()
    assert (status["runs"]["live"], status["runs"]["error"]) == (0, MANY)


async def test_a_killed_workers_client_sees_its_connection_close(double, start_server):
    server = start_server(workers=1)
    async with new_client() as client, open_query(client, server, script(**HELD)) as stream:
        await stream.next_numbered()
        (worker,) = server.workers()
        server.signal(signal.SIGKILL, worker)
        with pytest.raises(httpx.TransportError):
            await stream.rest()
        await double.until(lambda ledger: not ledger.alive(), RECOVERED_SECONDS, "the deletion by the replacement")


@pytest.mark.parametrize("made", [True, False])
async def test_a_worker_that_dies_before_the_answer_of_a_create_leaves_no_sandbox(double, start_server, client, made):
    """The answer is held back; the sandbox exists already, or comes into being later."""
    server = start_server(workers=2)
    double.inject("create", "hold", gate="answer", applied=made, detached=not made)
    async with open_query(client, server, script()) as stream:
        await double.until(lambda ledger: ledger.of_stage("create"), 5, "the create")
        victim = procfs.socket_owner(stream.client_port, server.workers())
        server.signal(signal.SIGKILL, victim)
        with suppress(httpx.TransportError):
            await stream.rest()
        if not made:
            await double.until(lambda ledger: ledger.of_stage("find"), 5, "the first search")
            double.release("answer")
        await double.until(lambda ledger: ledger.created() and not ledger.alive(), 12, "the deletion")
    double.release("answer")
    (cut,) = double.ledger.violations
    assert "cut a create in flight" in cut  # it was the test that did
    double.ledger.violations.clear()
    found = await records(client, server)
    assert found[stream.run_id]["error_code"] == "worker_lost"


async def test_a_sandbox_made_with_the_callers_key_is_left_to_its_time_to_live(double, start_server, client):
    server = start_server(workers=1, env={"E2B_API_KEY": None, "SANDSTORM_RUNTIME": "e2b"})
    async with open_query(client, server, script(**HELD), e2b_api_key=double.key) as stream:
        await stream.next_numbered()
        (worker,) = server.workers()
        server.signal(signal.SIGKILL, worker)
        log = await asyncio.to_thread(server.wait_log, "the key it was made with died with its worker")
    assert double.key not in log
    double.accept_left([stream.run_id])
    assert (await records(client, server))[stream.run_id]["error_code"] == "worker_lost"


@pytest.mark.alone
async def test_50_sandboxes_of_a_killed_master_are_deleted(double, start_server):
    server = start_server(workers=4)
    async with held_runs(double, server, MANY):
        begin = time.monotonic()
        server.signal(signal.SIGKILL)
        await until_gone(double, begin, MANY)


@pytest.mark.parametrize("count", [3, 120])
async def test_what_a_dead_machine_left_is_deleted_at_the_next_start(double, start_server, count):
    """Also when the list has more than one page."""
    server = start_server(workers=4)
    other = start_server(env={"SANDSTORM_INSTANCE": "other"})
    async with new_client() as client, open_query(client, other, script(**HELD)) as neighbour:
        await neighbour.next_numbered()
        async with held_runs(double, server, count):
            pass_over = double.ledger.sandbox_of(neighbour.run_id)
            kill_machine(server)
        for sandbox in double.ledger.alive():
            double.ledger.note(sandbox, made_at=sandbox.made_at - LONG_AGO_SECONDS)
        again = start_server()
        await double.until(lambda ledger: ledger.alive() == [pass_over], 15, "the deletion of what was left")
        assert again.running
        assert neighbour.run_id not in await records(client, again)


async def test_a_young_sandbox_that_no_run_knows_is_not_touched_yet(double, start_server, client):
    """It may belong to a create that is still under way somewhere."""
    server = start_server()
    async with held_runs(double, server, 2):
        kill_machine(server)
    old, young = double.ledger.alive()
    double.ledger.note(old, made_at=old.made_at - LONG_AGO_SECONDS)
    start_server()
    await double.until(lambda ledger: ledger.alive() == [young], 10, "the deletion of the older one")
    double.accept_left([young.run_id])


async def test_live_runs_are_not_touched_by_the_search(double, start_server, client):
    """However old they are: here the list that is asked for at the start comes only while they run."""
    double.inject("survey", "hold", gate="list")
    server = start_server()
    await double.until(lambda ledger: ledger.of_stage("survey"), 5, "the search at the start")
    async with held_runs(double, server, 3) as ids:
        for sandbox in double.ledger.alive():
            double.ledger.note(sandbox, made_at=sandbox.made_at - LONG_AGO_SECONDS)
        double.release("list")
        await double.until(lambda ledger: ledger.of_stage("survey")[0].status, 5, "the list")
        (await query(client, server, script())).check_complete(3)
        assert ids <= {sandbox.run_id for sandbox in double.ledger.alive()}


async def test_a_worker_that_leaves_a_deletion_unfinished_hands_it_over(double, start_server, client):
    server = start_server("--graceful-timeout", "0", workers=1)
    refusal = double.inject("kill", "status", status=503, times=None)
    (first,) = server.workers()
    async with open_query(client, server, script(**HELD)) as stream:
        await stream.next_numbered()
        server.signal(signal.SIGHUP)
        assert (await stream.rest()).error_code == "server_shutdown"
    await eventually_async(lambda: not procfs.is_alive(first), 20, "the end of the old worker")
    assert double.ledger.alive()
    refusal.times = 0  # the service recovers
    await double.until(lambda ledger: not ledger.alive(), 40, "the deletion, after the wait that is due")
