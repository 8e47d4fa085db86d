"""A name of the sandbox service that cannot be looked up, or not now (e2b.md A.4: not connected).

Sandboxes of a domain of one's own have a name each, which is looked up for the upload. The control API is 127.0.0.1, or a
name too.
"""

import asyncio
import signal
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from harness import procfs
from harness.client import open_query, query, script
from harness.name_server import NameServer, why_not
from harness.record import final_record
from harness.relay import Relay
from harness.server import PROGRAM, free_port
from harness.waiting import deadline, eventually_async

pytestmark = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))

SETTINGS = ("--workers", 1, "--connect-timeout", 2, "--log-level", "debug")
CODES = {"create": "sandbox_create_failed", "upload": "upload_failed"}
API = {"create": "api.test", "upload": "127.0.0.1"}  # the name that is looked up first
MANY = 40
LOOKUPS_MAX = 16  # worker/http_lookups.c
DESCRIPTORS_PER_LOOKUP = 3


@pytest.fixture
def names(tmp_path_factory):
    """The name server."""
    server = NameServer(tmp_path_factory.mktemp("names"))
    yield server
    server.close()


@pytest.fixture
def cells(double, authority):
    """The double behind TLS, for every name below cells.test."""
    relay = Relay(double.port, authority.server("cells", "DNS:*.cells.test"))
    yield relay
    relay.close()


@pytest.fixture
def named(names, cells, authority, start_server):
    """named() starts a server with one worker whose sandboxes have names; api_host: its control API has one too."""

    def start(api_host: str = "127.0.0.1"):
        port = free_port()
        argv = [PROGRAM, *SETTINGS, "--bind", f"127.0.0.1:{port}", "--ca-file", authority.certificate]
        env = {"E2B_DOMAIN": f"cells.test:{cells.port}", "E2B_API_URL": f"http://{api_host}:{cells.target_port}",
               "E2B_SANDBOX_URL": None}  # fmt: skip
        server = start_server(argv=names.asking(*argv), port=port, env=env)
        server.service_ports.add(cells.port)
        return server

    return start


@asynccontextmanager
async def stream_that_goes_on(client, server):
    """One that has begun, and whose events come all the time."""
    async with open_query(client, server, script(events=100_000, interval_ms=20)) as stream:
        await stream.next_numbered()
        yield stream


async def check_going_on(stream, events: int = 10) -> None:
    """Its next events come, long before a lookup would give up."""
    last = await asyncio.wait_for(stream.next_numbered(), deadline(10))
    for number in range(last["seq"] + 1, last["seq"] + events):
        assert (await asyncio.wait_for(stream.next_numbered(), deadline(10)))["seq"] == number


def worker_of(server) -> int:
    """Its one worker."""
    (worker,) = server.workers()
    return worker


async def check_idle(server) -> None:
    """No thread is left of any lookup."""
    worker = worker_of(server)
    await eventually_async(lambda: len(procfs.tasks(worker)) == 1, 10, "the end of every lookup")


async def check_end(server, answer, stage: str) -> None:
    """One terminal event, the right code, tried three times, a record that says the same."""
    assert answer.error_code == CODES[stage]
    assert "cannot reach the sandbox service: " in answer.events[-1]["error"]
    assert (await final_record(server, answer.run_id)).code == CODES[stage]


async def test_a_name_that_is_known_late_is_waited_for(names, named, client):
    names.way = "late"
    (await query(client, named("api.test"), script())).check_complete(3)
    assert {"api.test"} < names.names_asked()


async def test_a_server_starts_while_names_cannot_be_looked_up(names, named, client):
    names.way = "stall"
    server = named()
    assert (await client.get(f"{server.url}/health")).status_code == 200
    assert not names.asked, "nothing is needed by name, this machine's own neither"


@pytest.mark.parametrize("way", ["servfail", "nxdomain", "stall"])
@pytest.mark.parametrize("stage", CODES)
async def test_a_name_that_cannot_be_looked_up_ends_the_run(names, named, double, client, stage, way):
    names.way = way
    server = named(API[stage])
    answer = await query(client, server, script())
    await check_end(server, answer, stage)
    assert server.stderr.count(f"sandbox service: {stage}") == 2
    assert not double.ledger.of_stage(stage, answer.run_id) and not double.ledger.of_stage("find", answer.run_id)
    names.way = "answer"
    (await query(client, server, script())).check_complete(3)
    await check_idle(server)


async def test_lookups_without_an_answer_are_few_and_hold_nobody_up(names, named, double, client):
    server = named()
    worker = worker_of(server)
    async with stream_that_goes_on(client, server) as stream:
        own = len(procfs.descriptors(worker))
        names.way = "stall"
        runs = [asyncio.create_task(query(client, server, script())) for _ in range(MANY)]
        # What needs no name is not kept waiting by those that do.
        await double.until(lambda ledger: len(ledger.created()) == 1 + MANY, 10, "every sandbox")
        most_threads = most_descriptors = 0
        while not all(run.done() for run in runs):
            most_threads = max(most_threads, len(procfs.tasks(worker)))
            most_descriptors = max(most_descriptors, len(procfs.descriptors(worker)))
            await check_going_on(stream)
        for run in runs:
            await check_end(server, run.result(), "upload")
        assert most_threads == 1 + LOOKUPS_MAX
        connections = 2 * MANY + DESCRIPTORS_PER_LOOKUP * LOOKUPS_MAX
        assert most_descriptors <= own + connections
        assert "too many lookups of names have no answer" in "".join(str(run.result().events[-1]) for run in runs)
        names.way = "answer"
        for answer in await asyncio.gather(*(query(client, server, script()) for _ in range(MANY))):
            answer.check_complete(3)
        await check_going_on(stream)
    await check_idle(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
async def test_a_stop_does_not_wait_for_a_lookup(names, named, double, client, number):
    """It would take half a minute."""
    names.way = "stall"
    server = named()
    async with open_query(client, server, script()) as stream:
        await double.until(lambda ledger: ledger.created(), 10, "the sandbox")
        await eventually_async(lambda: len(procfs.tasks(worker_of(server))) >= 2, 10, "the lookup")
        server.signal(number)
        answer = await stream.rest()
    assert answer.error_code == ("upload_failed" if number == signal.SIGTERM else "server_shutdown")
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert not double.ledger.alive()


@pytest.mark.parametrize("way", ["servfail", "stall"])
async def test_a_deletion_waits_for_its_name(names, named, double, client, way):
    """Of a sandbox whose worker was killed: the one that takes over knows no name."""
    server = named("api.test")
    worker = worker_of(server)
    with suppress(httpx.TransportError):
        async with open_query(client, server, script(hold="go", hold_after=1)) as stream:
            await stream.next_numbered()
            names.way = way
            names.asked.clear()
            server.signal(signal.SIGKILL, worker)
            await stream.rest()
    await eventually_async(lambda: "cannot delete sandbox" in server.stderr, 15, "a try that fails")
    assert "api.test" in names.names_asked() and double.ledger.alive()
    names.way = "answer"
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
    await check_idle(server)
