"""Behind nginx and haproxy, configured as sandstorm-deploy(7) says: events come at once, a client's leaving arrives, a server
that stops gets nothing new and ends its streams."""

import asyncio
import json
import signal

import pytest
from harness import versions
from harness.asking import asking
from harness.balancer import running_haproxy, running_nginx
from harness.client import RawConnection, open_query, query, script
from harness.server import PROGRAM, REPOSITORY, free_port
from harness.waiting import eventually, eventually_async

STREAMS = 20


@pytest.fixture
def nginx(tmp_path, server):
    """nginx in front of one server."""
    with running_nginx(tmp_path, server) as running:
        yield running


@pytest.fixture
def pair(start_server):
    """Two servers, which are two instances to the sandbox service. haproxy may need a comment to notice who left."""
    return [start_server("--ping-interval", "1", env={"SANDSTORM_INSTANCE": name}) for name in ("one", "two")]


@pytest.fixture
def haproxy(tmp_path, pair):
    """haproxy in front of the two."""
    with running_haproxy(tmp_path, *(server.port for server in pair)) as running:
        yield running


@pytest.fixture
def patient_haproxy(tmp_path, pair):
    """Likewise, with servers that may be slow to answer a check, as they are when other tests run."""
    with running_haproxy(tmp_path, *(server.port for server in pair), check_every="1h") as running:
        yield running


async def check_events_come_at_once(front, double, client):
    """The second half of a stream is not even made before the first was read."""
    async with open_query(client, front, script(events=6, hold="half", hold_after=3)) as stream:
        for _ in range(3):
            await stream.next_numbered()
        double.release("half")
        answer = await stream.rest()
    answer.check_complete(6)


async def check_leaving_ends_the_run(front, double, client):
    """The sandbox is deleted although its agent would go on."""
    async with open_query(client, front, script(events=6, hold="never", hold_after=3)) as stream:
        await stream.next_numbered()
        run_id = stream.run_id
    await double.until(lambda ledger: not ledger.alive(), 15, "the deletion of the sandbox")
    assert double.ledger.sandbox_of(run_id)


async def test_nginx_passes_events_on_at_once(nginx, double, client):
    await check_events_come_at_once(nginx, double, client)


async def test_nginx_tells_that_the_client_left(nginx, double, client):
    await check_leaving_ends_the_run(nginx, double, client)


async def test_nginx_takes_a_large_request(nginx, client):
    """As large as the server itself takes."""
    answer = await query(client, nginx, script(events=1), files={f"{i}.txt": "x" * 1_000_000 for i in range(9)})
    answer.check_complete(1)


async def test_haproxy_passes_events_on_at_once(patient_haproxy, double, client):
    await check_events_come_at_once(patient_haproxy, double, client)


async def test_haproxy_tells_that_the_client_left(patient_haproxy, double, client):
    await check_leaving_ends_the_run(patient_haproxy, double, client)


@pytest.mark.alone
async def test_a_server_that_stops_is_drained_and_the_other_takes_its_clients(haproxy, pair, double, client):
    """No stream of either is cut, and nobody is refused."""

    async def hold(number: int):
        async with open_query(client, haproxy, script(events=6, hold="drain", hold_after=3, marker=str(number))) as stream:
            await stream.next_numbered()
            opened.release()
            return await stream.rest()

    opened = asyncio.Semaphore(0)
    held = [asyncio.create_task(hold(number)) for number in range(STREAMS)]
    for _ in held:
        await opened.acquire()
    stopping = asyncio.create_task(asyncio.to_thread(pair[0].stop, 60))
    await asyncio.to_thread(pair[0].wait_log, "stopping, runs may end")
    fresh = await asyncio.gather(*(query(client, haproxy, script(events=3, marker=f"new {n}")) for n in range(STREAMS)))
    for answer in fresh:
        assert answer.status == 200
        answer.check_complete(3)
    double.release("drain")
    for answer in await asyncio.gather(*held):
        answer.check_complete(6)
    assert await stopping == 0
    assert pair[0].stderr.count(" started model=") >= STREAMS // 4, "haproxy did not use both"


@pytest.mark.alone  # haproxy gives its servers a second to answer a check
async def test_one_of_two_is_upgraded_drained_and_replaced_under_load(tmp_path, start_server, double, client):
    """Also the one that comes back is another version, on the same address; what steers haproxy is /ready alone."""
    program, port = tmp_path / "sandstorm", free_port()
    versions.install(PROGRAM, program)
    argv = [program, "--workers", 2, "--bind", f"127.0.0.1:{port}", "--agent-runner", REPOSITORY / "agent/runner.mjs"]
    one = start_server(argv=argv, port=port, env={"SANDSTORM_INSTANCE": "one"})
    two = start_server(env={"SANDSTORM_INSTANCE": "two"})
    with running_haproxy(tmp_path, one.port, two.port) as haproxy:
        async with asking(client, haproxy, runs=True):
            async with open_query(client, haproxy, script(events=6, hold="half", hold_after=3)) as stream:
                await stream.next_numbered()
                versions.install_next(PROGRAM, program)
                one.signal(signal.SIGUSR2)
                await asyncio.to_thread(one.wait_log, "generation 2 serves")
                stopping = asyncio.create_task(asyncio.to_thread(one.stop, 60))
                await asyncio.to_thread(one.wait_log, "stopping, runs may end")
                served = two.stderr.count(" started model=")
                await eventually_async(lambda: two.stderr.count(" started model=") > served + 20, 20, "runs of the other")
                double.release("half")
                (await stream.rest()).check_complete(6)
                assert await stopping == 0
            again = start_server(argv=argv, port=port, env={"SANDSTORM_INSTANCE": "one"})
            await eventually_async(lambda: again.stderr.count(" started model=") > 5, 20, "runs of the one that is back")


async def test_haproxy_asks_the_other_one_where_one_is_full(tmp_path, start_server, double, client):
    """Also in the time until /ready tells that it is."""
    one = start_server("--max-runs", 1, "--access-log", "stderr", env={"SANDSTORM_INSTANCE": "one"})
    two = start_server(env={"SANDSTORM_INSTANCE": "two"})
    with running_haproxy(tmp_path, one.port, two.port, check_every="1h") as haproxy:
        await eventually_async(lambda: "/ready" in one.stderr, 20, "the one health check")
        async with open_query(client, one, script(events=2, hold="full", hold_after=1)) as stream:
            await stream.next_numbered()
            for _ in range(10):
                (await query(client, haproxy, script(events=3))).check_complete(3)
            double.release("full")
            await stream.rest()
    assert "request refused: 503" in one.stderr, "haproxy never asked the one that is full"


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
def test_haproxy_names_the_client_in_the_proxy_protocol(tmp_path, start_server, words):
    """Its health checks speak it too, and name nobody."""
    port, log = free_port(), tmp_path / "access.log"
    start_server("--bind", f"127.0.0.1:{port};proxy_protocol", "--access-log", log, "--access-log-format", "json")
    with running_haproxy(tmp_path, port, port, words, check_every="1h") as haproxy:
        eventually(lambda: "/ready" in log.read_text(), 20, "a health check")
        with RawConnection(haproxy, source="127.0.0.9") as raw:
            raw.send(b"GET /docs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert raw.read_to_end().startswith(b"HTTP/1.1 200")
        eventually(lambda: "/docs" in log.read_text(), 20, "the line of the request")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["client"] for line in lines if line["path"] == "/docs"} == {"127.0.0.9"}
    assert {line["client"] for line in lines if line["path"] == "/ready"} == {"127.0.0.1"}
