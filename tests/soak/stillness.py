"""A server at rest between two storms: what must be as it was, and how much memory and how many descriptors it holds."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import httpx
from harness import leaks, procfs
from harness.server import ALLOWED_FILES, Server, memory_slack_kib
from harness.waiting import eventually_async
from life import Life

REST_SECONDS = 60
# A create that was cut is looked for at once, after 5 s and after 75 s (http-api.md 6.3).
DELETED_SECONDS = 90
STATE_FILES = {"lock", "runs.jsonl", "instance"}
GROWTH_MAX = 0.05
# A worker gives memory back with a heartbeat, one a second, and frees the last connections with it.
BEATS_SECONDS, LOOK_SECONDS = 2.5, 0.25
CUT_A_CREATE = "the client cut a create in flight"


@dataclass(frozen=True)
class Level:
    """What a server at rest holds."""

    master_kib: int
    workers_kib: int
    master_descriptors: int
    workers_descriptors: int

    def __str__(self):
        return (
            f"master {self.master_kib} KiB, {self.master_descriptors} descriptors; "
            f"workers {self.workers_kib} KiB, {self.workers_descriptors} descriptors"
        )


class Stillness:
    """Waits for it, and looks."""

    def __init__(self, double, server: Server, client: httpx.AsyncClient, life: Life, workers: int):
        self._double, self._server, self._client, self._life, self._workers = double, server, client, life, workers
        self._master_descriptors = len(procfs.descriptors(server.pid))

    async def reach(self, renew: bool) -> list[str]:
        """Waits until nothing is under way any more; complaints about what does not end. renew: with fresh workers."""
        complaints = []
        checks = [self._await_deletions, self._await_rest, self._await_descriptors, self._await_processes]
        for check in [self._renew_workers] * renew + checks:
            try:
                await check()
            except (AssertionError, TimeoutError) as reason:
                complaints.append(f"{check.__name__.removeprefix('_')}: {reason}")
        return complaints + self._check_files()

    async def _renew_workers(self) -> None:
        """A reload, which also takes back what TTIN and TTOU did; until the old workers are gone."""
        before = set(await self._life.workers())
        await self._life.reload()

        async def renewed() -> bool:
            now = await self._life.workers()
            return not before & set(now) and list(now.values()) == ["serving"] * self._workers

        await eventually_async(renewed, REST_SECONDS, "fresh workers")

    async def _await_deletions(self) -> None:
        """The double's ledger is empty."""
        await self._double.until(lambda ledger: not ledger.alive(), DELETED_SECONDS, "the deletion of every sandbox")
        await self._double.until(lambda ledger: not ledger.open_streams(), REST_SECONDS, "the end of every agent's stream")

    async def status(self) -> dict:
        """The server's own report."""
        return (await self._client.get(f"{self._server.url}/status")).json()

    async def _await_rest(self) -> None:
        """The server knows of no run and no deletion, and all its workers serve."""

        async def rests() -> bool:
            report = await self.status()
            states = [worker["state"] for worker in report["workers"]]
            live = [worker["live_runs"] for worker in report["workers"]]
            idle = (report["runs"]["live"], report["kill_queue"], sum(live)) == (0, 0, 0)
            return idle and states == ["serving"] * self._workers

        await eventually_async(rests, REST_SECONDS, "a server without runs")

    async def _await_descriptors(self) -> None:
        """Workers have what fresh ones have, the master what it had at first."""
        await asyncio.to_thread(leaks.check_descriptors, self._server)
        await eventually_async(
            lambda: len(procfs.descriptors(self._server.pid)) == self._master_descriptors, REST_SECONDS,
            f"the master to have {self._master_descriptors} descriptors: {procfs.descriptors(self._server.pid)}",
        )  # fmt: skip

    async def _await_processes(self) -> None:
        """The master and its workers, nobody else."""
        await eventually_async(
            lambda: procfs.session(self._server.pid) == {self._server.pid} | self._server.workers()
            and len(self._server.workers()) == self._workers, REST_SECONDS,
            f"the master and {self._workers} workers alone",
        )  # fmt: skip

    def _check_files(self) -> list[str]:
        """Nothing but the state it keeps."""
        names = {entry.name for folder in (self._server.cwd, self._server.tmp) for entry in folder.iterdir()} - ALLOWED_FILES
        left = names | {entry.name for entry in (self._server.cwd / ".sandstorm").iterdir()} - STATE_FILES
        return [f"files left: {sorted(left)}"] if left else []

    def check_protocol(self) -> list[str]:
        """What the server did wrong towards the double; that a killed worker's creates were cut is not its doing."""
        ledger = self._double.ledger
        with ledger.changed:
            broken = list(ledger.violations)
            ledger.violations.clear()
        return [text for text in broken if CUT_A_CREATE not in text or not self._was_killed(text)]

    def _was_killed(self, violation: str) -> bool:
        """The run of the request is a killed worker's."""
        return any(f"run={run_id} " in violation for run_id in self._life.killed_runs())

    async def level(self) -> Level:
        """What it holds once it has given back what it does not need: the least of a few looks, below which no leak goes."""
        workers = await self.workers()
        least = self._look(workers)
        end = time.monotonic() + BEATS_SECONDS
        while time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
            look = self._look(workers)
            least = Level(*(min(getattr(level, name) for level in (least, look)) for name in Level.__dataclass_fields__))
        return least

    async def workers(self) -> set[int]:
        """Those that serve, which are as many as there should be; the master may have other children."""

        async def serving() -> set[int]:
            found = await self._life.workers()
            return set(found) if list(found.values()) == ["serving"] * self._workers else set()

        return await eventually_async(serving, REST_SECONDS, f"{self._workers} workers")

    def _look(self, workers: set[int]) -> Level:
        """What it holds now."""
        return Level(
            procfs.anonymous_kib(self._server.pid), sum(procfs.anonymous_kib(pid) for pid in workers),
            len(procfs.descriptors(self._server.pid)), sum(self._server.own_descriptors(pid) for pid in workers),
        )  # fmt: skip


def growth(levels: list[Level]) -> dict[str, tuple[float, float]]:
    """Medians of the second and the last third: the first one warms up."""
    third = len(levels) // 3
    found = {}
    for name in ("master_kib", "workers_kib", "master_descriptors", "workers_descriptors"):
        values = [getattr(level, name) for level in levels]
        found[name] = (statistics.median(values[third : 2 * third]), statistics.median(values[-third:]))
    return found


def not_flat(levels: list[Level]) -> list[str]:
    """What has grown by more than 5 %; descriptors must not become fewer either, memory may be given back at any time."""
    complaints = []
    for name, (before, after) in growth(levels).items():
        is_memory = name.endswith("kib")
        allowed = before * GROWTH_MAX + (memory_slack_kib(0) if is_memory else 0)
        if after - before > allowed or (not is_memory and before - after > allowed):
            complaints.append(f"{name} went from {before:g} to {after:g}, more than 5 %")
    return complaints


def final_lines(server: Server) -> dict[str, list[dict]]:
    """The lines of the history that tell of an end, by run."""
    found: dict[str, list[dict]] = {}
    for line in (server.cwd / ".sandstorm/runs.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["status"] != "running":
            found.setdefault(record["id"], []).append(record)
    return found
