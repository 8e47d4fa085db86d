"""TLS to the sandbox service that goes bad once a sandbox exists (e2b.md A.4): for its start, its stream, its files, its end.

A certificate that is refused by then is tests/unit/test_worker_e2b_call.c and test_worker_kill_queue.c: its sandbox is deleted
after half a minute at the earliest.
"""

import asyncio

import pytest
from harness.client import query, script
from harness.record import final_record
from harness.relay import Relay, SpoiledRelay
from harness.waiting import eventually_async

FILES = {"a.txt": "1", "b.txt": "2"}
WORDS = "cannot speak TLS with the sandbox service: "
NO_RECORD = b"\x00\xff\x13 no record of TLS"


@pytest.fixture
def relays(double):
    """What is opened here is closed after every server has ended."""
    opened: list[Relay] = []
    yield opened
    for relay in opened:
        relay.close()


@pytest.fixture
def secure(relays, authority, start_server):
    """secure(relay) starts a server that reaches the double through it."""

    def start(relay: Relay):
        relays.append(relay)
        url = f"https://127.0.0.1:{relay.port}"
        server = start_server("--ca-file", authority.certificate, env={"E2B_API_URL": url, "E2B_SANDBOX_URL": url}, workers=1)
        server.service_ports.add(relay.port)
        return server

    return start


@pytest.fixture
def spoiled(double, authority, secure):
    """A relay whose TLS breaks when the double leaves, and its server."""
    relay = SpoiledRelay(double.port, authority.server("service"))
    return relay, secure(relay)


async def all_deleted(double) -> None:
    """The service is back, and every sandbox goes."""
    double.come_up()
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion of every sandbox")


async def test_an_agent_that_cannot_be_started_over_tls(double, client, spoiled):
    relay, server = spoiled
    double.inject("upload", "leave")
    answer = await query(client, server, script())
    assert (answer.error_code, relay.spoiled >= 3) == ("agent_start_failed", True)
    assert WORDS in answer.events[-1]["error"]
    assert (await final_record(server, answer.run_id)).code == "agent_start_failed"
    assert server.stderr.count("sandbox service: start") == 2
    assert not double.ledger.of_stage("start")
    await all_deleted(double)


async def test_files_that_cannot_be_read_over_tls(double, client, spoiled):
    _, server = spoiled
    double.inject("collect", "leave")
    answer = await query(client, server, script(files=FILES))
    assert (answer.error_code, answer.of_type("file")) == (None, [])
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert (await final_record(server, answer.run_id)).outcome == "completed"
    assert server.stderr.count("sandbox service: read") == len(FILES)
    await all_deleted(double)


async def test_a_deletion_waits_for_tls(double, client, spoiled):
    relay, server = spoiled
    double.inject("collect", "leave")
    answer = await query(client, server, script())
    await asyncio.to_thread(server.wait_log, "cannot delete sandbox")
    assert relay.spoiled
    answer.check_complete(3)
    await all_deleted(double)


async def test_a_stream_whose_tls_breaks_is_lost(double, authority, secure, client):
    relay = Relay(double.port, authority.server("service"))
    server = secure(relay)
    relay.parting = NO_RECORD
    double.inject("stream", "reset", after=2)
    answer = await query(client, server, script(events=5))
    assert (answer.error_code, answer.events[-1]["error"]) == ("sandbox_lost", "connection to the sandbox was lost")
    assert [event["seq"] for event in answer.events if "seq" in event] == [0, 1]
    assert (await final_record(server, answer.run_id)).code == "sandbox_lost"
    await eventually_async(lambda: len(double.ledger.of_stage("probe", answer.run_id)) == 1, 5, "a probe")
