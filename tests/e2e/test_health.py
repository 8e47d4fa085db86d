"""GET /health, deep or not, and GET /ready (http-api.md section 11)."""

import asyncio
import signal

import pytest
from harness import procfs
from harness.client import RawConnection, open_query, query, script, status_of
from harness.waiting import deadline, eventually, eventually_async

KEY = "current-key-of-more-than-32-bytes-0001"
BEARER = {"Authorization": f"Bearer {KEY}"}
CHECKS = {
    "anthropic_api_key": True, "e2b_api_key": True, "e2b_api": True, "provider": True, "config": True, "state": True,
    "kill_queue": 0,
}  # fmt: skip
NO_BOOL = "Input should be a valid boolean, unable to interpret input"


async def deep(client, server) -> dict:
    """The deep answer; its status is 200 whatever it says."""
    answer = await client.get(f"{server.url}/health?deep=1")
    assert answer.status_code == 200
    assert list(answer.json()) == ["status", "version", "checks"]
    assert list(answer.json()["checks"]) == list(CHECKS)
    return answer.json()


def probes(double) -> int:
    """How often the control API was asked for its health."""
    return len(double.ledger.of_stage("api_health"))


async def test_deep_health_looks_at_what_runs_need(double, client, start_server):
    answer = await deep(client, start_server())
    assert (answer["status"], answer["checks"]) == ("ok", answer["checks"] | CHECKS)
    assert probes(double) == 1
    missing = {"ANTHROPIC_API_KEY": "", "E2B_API_KEY": "", "SANDSTORM_RUNTIME": "e2b"}
    answer = await deep(client, start_server(env=missing))
    lacking = {"anthropic_api_key": False, "e2b_api_key": False, "provider": False}
    assert (answer["status"], answer["checks"]) == ("ok", answer["checks"] | CHECKS | lacking)


@pytest.mark.parametrize("action", ["status", "reset"])
async def test_a_sandbox_service_that_fails_degrades(double, client, start_server, action):
    double.inject("api_health", action, times=None)  # libcurl repeats a GET whose pooled connection dies
    answer = await deep(client, start_server())
    assert (answer["status"], answer["checks"]["e2b_api"]) == ("degraded", False)


async def test_a_broken_configuration_degrades(client, server):
    config = server.cwd / "sandstorm.json"
    config.write_text("{")
    answer = await deep(client, server)
    config.unlink()
    assert (answer["status"], answer["checks"]["config"]) == ("degraded", False)


@pytest.mark.parametrize("workers", [1, 3])
async def test_many_who_ask_cause_one_probe(double, client, start_server, workers):
    """Section 11: the result counts for the instance, not for one worker."""
    server = start_server(workers=workers)
    double.inject("api_health", "hold", gate="health")
    asking = [asyncio.create_task(deep(client, server)) for _ in range(16)]
    await double.until(lambda ledger: ledger.of_stage("api_health"), 5, "the probe")
    double.release("health")
    assert {answer["status"] for answer in await asyncio.gather(*asking)} == {"ok"}
    for _ in range(6):
        assert (await deep(client, server))["status"] == "ok"
    assert probes(double) == 1


async def test_a_worker_that_dies_while_it_asks_is_replaced_as_the_one_who_asks(double, client, start_server):
    server = start_server(workers=2)
    # The search at the start: whoever makes it has a connection to the service, too.
    await double.until(lambda ledger: [entry for entry in ledger.of_stage("survey") if entry.status], 10, "the search")
    double.inject("api_health", "hold", gate="health")
    asking = [asyncio.create_task(client.get(f"{server.url}/health?deep=1")) for _ in range(16)]
    await double.until(lambda ledger: ledger.of_stage("api_health"), 5, "the probe")


    def asker() -> int | None:
        double.drop_idle()
        sockets = procfs.sockets_to(double.port, (procfs.ESTABLISHED,))
        found = [pid for pid in server.workers() if sockets & set(procfs.descriptors(pid).values())]
        return found[0] if len(found) == 1 else None

    victim = await eventually_async(asker, 5, "one worker with a connection to the service")
    (other,) = server.workers() - {victim}

    async def waits_too() -> bool:
        """Which worker takes a connection is the kernel's business."""
        asking.append(asyncio.create_task(client.get(f"{server.url}/health?deep=1")))
        await asyncio.sleep(0)
        held = set(procfs.descriptors(other).values())
        return any(procfs.sockets_to(port, (procfs.ESTABLISHED,)) & held for port in procfs.client_ports(server.port, other))

    await eventually_async(waits_too, 5, "a client of the other worker")
    server.signal(signal.SIGKILL, victim)
    double.release("health")
    answers = await asyncio.gather(*asking, return_exceptions=True)
    left = [answer for answer in answers if not isinstance(answer, Exception)]
    assert {answer.json()["status"] for answer in left} == {"ok"}
    assert probes(double) == 2


def test_a_client_that_does_not_wait_for_the_probe_leaves_nothing(double, start_server):
    server = start_server(workers=1)
    workers = server.workers()
    double.inject("api_health", "hold", gate="health")
    before = server.own_descriptors(*workers)
    with RawConnection(server) as gone, RawConnection(server) as staying, RawConnection(server) as talking:
        for connection in (gone, staying, talking):
            connection.send(b"GET /health?deep=yes HTTP/1.1\r\nHost: x\r\n\r\n")
        double.wait(lambda ledger: ledger.of_stage("api_health"), 5, "the probe")
        gone.socket.close()
        eventually(lambda: server.own_descriptors(*workers) <= before + 2, 5, "the end of the first connection")
        double.release("health")
        for _ in range(2):  # the connection is kept
            assert status_of(staying.read_until(b"}}")) == 200
            staying.send(b"GET /health?deep=on HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"status":"ok"' in talking.read_until(b"}}")
    assert server.workers() == workers


async def test_failed_deletions_of_all_workers_are_counted(double, client, start_server):
    server = start_server(workers=2)
    double.inject("kill", "status")
    double.inject("kill", "hold", gate="deletion")
    await query(client, server, "p")
    async with asyncio.timeout(deadline(10)):
        while (await deep(client, server))["checks"]["kill_queue"] != 1:
            await asyncio.sleep(0.05)
    double.release("deletion")
    await double.until(lambda ledger: not ledger.alive(), 15, "the deletion at last")


GUARDED = {
    "": 200,
    "?deep=0": 200,
    "?deep=true": 401,
    "?deep=oN": 401,
    "?deep=%31": 401,
    "?%64eep=t": 401,
    "?deep=1&deep=no": 200,
    "?deep=no&x=1&deep=1": 401,
    "?deeper=1&Deep=1": 200,
    "?deep": 422,
    "?deep=": 422,
    "?deep=maybe": 422,
    "?deep=+1": 422,
    "?deep=1&deep=2": 422,
}


async def test_only_deep_health_needs_the_bearer(client, start_server):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    for target, status in GUARDED.items():
        answer = await client.get(f"{server.url}/health{target}")
        assert answer.status_code == status, target
        if status == 422:
            assert answer.json() == {"detail": [{"type": "bool_parsing", "loc": ["query", "deep"], "msg": NO_BOOL}]}
        if status == 200:
            assert list(answer.json()) == ["status", "version"]
        if status == 401:
            answer = await client.get(f"{server.url}/health{target}", headers=BEARER)
            assert "checks" in answer.json(), target


async def test_ready_says_whether_a_run_would_be_taken(client, start_server):
    server = start_server("--max-runs", "1", workers=1)
    ready = f"{server.url}/ready"
    answer = await client.get(ready)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
        answer = await client.get(ready)
        assert (answer.status_code, answer.json()) == (503, {"status": "full"})
        with RawConnection(server) as probe:
            probe.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            probe.read_until(b"full")
            server.signal(signal.SIGTERM)
            await eventually_async(lambda: "draining" in server.stderr, 5, "the drain")
            probe.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert probe.read_to_end().endswith(b'{"status":"draining"}')
