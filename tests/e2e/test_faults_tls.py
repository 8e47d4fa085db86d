"""TLS to the sandbox service that goes bad once a sandbox exists (e2b.md A.4): for its start, its stream, its files, its end."""

import asyncio

import pytest
from harness.authority import Authority
from harness.client import query, script
from harness.record import final_record
from harness.relay import Relay, SpoiledRelay
from harness.waiting import eventually_async

FILES = {"a.txt": "1", "b.txt": "2"}
WORDS = {"broken": "cannot speak TLS with the sandbox service: ", "foreign": "the certificate of the sandbox service is refused: "}
NO_RECORD = b"\x00\xff\x13 no record of TLS"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A CA the server does not know."""
    return Authority(tmp_path_factory.mktemp("stranger") / "ca", "another CA")


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
def spoiled(request, double, authority, stranger, secure):
    """A way TLS goes bad when the double leaves, the relay, its server."""
    foreign = stranger.server("stranger") if request.param == "foreign" else None
    relay = SpoiledRelay(double.port, authority.server("service"), foreign)
    return request.param, relay, secure(relay)


async def all_deleted(double) -> None:
    """The service is back, and every sandbox goes."""
    double.come_up()
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion of every sandbox")


@pytest.mark.parametrize("spoiled", WORDS, indirect=True)
async def test_an_agent_that_cannot_be_started_over_tls(double, client, spoiled):
    way, relay, server = spoiled
    double.inject("upload", "leave")
    answer = await query(client, server, script())
    spoilt = relay.spoiled
    assert (answer.error_code, spoilt >= (3 if way == "broken" else 1)) == ("agent_start_failed", True)
    assert WORDS[way] in answer.events[-1]["error"]
    assert (await final_record(server, answer.run_id)).code == "agent_start_failed"
    assert server.stderr.count("sandbox service: start") == (2 if way == "broken" else 0)
    assert not double.ledger.of_stage("start")
    if way == "broken":
        await all_deleted(double)
    else:  # the next try would come after half a minute: the server stops without it
        double.accept_left([answer.run_id])


BROKEN = pytest.mark.parametrize("spoiled", ["broken"], indirect=True)


@BROKEN
async def test_files_that_cannot_be_read_over_tls(double, client, spoiled):
    _, _, server = spoiled
    double.inject("collect", "leave")
    answer = await query(client, server, script(files=FILES))
    assert (answer.error_code, answer.of_type("file")) == (None, [])
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert (await final_record(server, answer.run_id)).outcome == "completed"
    assert server.stderr.count("sandbox service: read") == len(FILES)
    await all_deleted(double)


@BROKEN
async def test_a_deletion_waits_for_tls(double, client, spoiled):
    """A refused certificate is asked again after half a minute only: tests/unit/test_worker_kill_queue.c."""
    _, relay, server = spoiled
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
