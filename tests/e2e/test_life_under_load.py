"""Reloads and upgrades one after the other, while streams come and go all the time: none is cut, none is refused."""

import asyncio
import itertools
import os
import re
import resource
import signal

import httpx
import pytest
from harness import versions
from harness.client import CONNECTIONS_MAX, new_client, query, script
from harness.server import PROGRAM, REPOSITORY, free_port
from harness.waiting import SLOW, deadline, eventually_async

STREAMS = int(os.environ.get("SANDSTORM_LOAD_STREAMS", "200"))
EVENTS = 10
INTERVAL_MS = max(200, STREAMS)  # what the double and the clients, one process together, can keep up with
CHANGES = [signal.SIGHUP] * 4 + [signal.SIGUSR2] + [signal.SIGHUP] * 3 + [signal.SIGUSR2] + [signal.SIGHUP] * 3 + [signal.SIGUSR2]
DESCRIPTORS_PER_STREAM = 4
WORKERS = 4


class Load:
    """So many streams that are open all the time: each is followed by another when it ends."""

    def __init__(self, server, count: int):
        self.server, self.count = server, count
        self.complete = self.health = 0
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task] = []

    async def __aenter__(self):
        clients = [new_client() for _ in range(self.count // CONNECTIONS_MAX + 1)]
        self._clients = clients
        for number in range(self.count):
            self._tasks.append(asyncio.create_task(self._streams(clients[number % len(clients)], number)))
        self._tasks.append(asyncio.create_task(self._probes()))
        return self

    async def __aexit__(self, *_):
        self._over.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            for client in self._clients:
                await client.aclose()

    async def _streams(self, client, number: int):
        await asyncio.sleep(number / self.count * EVENTS * INTERVAL_MS / 1000)  # so that they do not all begin at once
        while not self._over.is_set():
            answer = await query(client, self.server, script(events=EVENTS, interval_ms=INTERVAL_MS))
            answer.check_complete(EVENTS)
            self.complete += 1

    async def _probes(self):
        """Short requests, each on a connection of its own."""
        async with new_client() as client:
            while not self._over.is_set():
                assert (await client.get(f"{self.server.url}/health")).status_code == 200
                self.health += 1

    def check(self) -> None:
        """Nothing has failed so far."""
        for task in self._tasks:
            if task.done() and task.exception():
                raise task.exception()


def changes_done(server) -> int:
    """How often a generation took over from another."""
    return len(re.findall(r"generation \d+ serves, generation \d+ drains", server.stderr))


@pytest.fixture
def many_descriptors():
    """Clients and the double of this test are one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 1024 + STREAMS * DESCRIPTORS_PER_STREAM)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.alone
@pytest.mark.timeout(300 * SLOW)
@pytest.mark.usefixtures("many_descriptors")
async def test_ten_reloads_and_three_upgrades_under_load_cut_and_refuse_nothing(double, start_server, tmp_path):
    """Each upgrade is one to another version."""
    program, port = tmp_path / "sandstorm", free_port()
    versions.install(PROGRAM, program)
    argv = [program, "--bind", f"127.0.0.1:{port}", "--workers", WORKERS, "--max-runs", 4 * STREAMS, "--timeout", 600,
            "--agent-runner", REPOSITORY / "agent/runner.mjs"]  # fmt: skip
    server = start_server(argv=argv, port=port, workers=WORKERS)
    version = own = versions.version_of(PROGRAM)
    following = itertools.cycle([(versions.NEXT, versions.install_next), (own, versions.install)])
    async with Load(server, STREAMS) as load:
        await double.until(lambda ledger: ledger.open_streams() >= STREAMS * 0.9, 60, "the streams")
        for number, change in enumerate(CHANGES, start=1):
            before = load.health
            if change == signal.SIGUSR2:
                version, install = next(following)
                install(PROGRAM, program)
            server.signal(change)
            await eventually_async(
                lambda n=number: changes_done(server) >= n, 60, f"change {number}, {change.name}"
            )
            await eventually_async(lambda n=before: load.health > n, 10, "an answer")
            load.check()
            await asyncio.to_thread(server.wait_log, "draining ", 20, WORKERS * number)  # the old ones accept nobody any more
            assert httpx.get(f"{server.url}/health", timeout=deadline(20)).json()["version"] == version
        assert load.complete > STREAMS, "the streams were not renewed meanwhile"
    assert server.stderr.count("took over in process") == CHANGES.count(signal.SIGUSR2)
    assert "died" not in server.stderr
    made = len(double.ledger.deleted())
    print(f"{STREAMS} streams at a time, {made} runs, {made * EVENTS} events, {load.health} probes")
