#!/usr/bin/env python3
"""Random runs for as long as is wanted, while workers are killed, stopped, reloaded and upgraded, clients vanish and the
sandbox service misbehaves: `make soak`.

    soak.py [--minutes 30] [--seed N] [--clients 16] [--workers 3] [--folder DIR]

Storms of half a minute follow each other; after each, the server comes to rest, and every run, record, sandbox, process,
descriptor and file is accounted for. In the last quarter no worker is replaced, and memory is compared. One line a minute
tells how it goes, a table at the end. Exits 1 as soon as a promise is broken, and says which, of which run; the folder
keeps the server's log. The choices of a seed are the same each time (choices.py).
"""

import argparse
import asyncio
import itertools
import json
import logging
import random
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from choices import GENTLE_MISHAPS, MASTER_MISHAPS, WORKER_MISHAPS, Mishaps, run_choice
from harness import versions
from harness.client import new_client
from harness.double import ThreadedDouble
from harness.running import running_double, running_servers
from harness.server import PROGRAM, REPOSITORY, Server, free_port
from harness.waiting import SLOW, eventually_async
from life import Life
from log_watch import LogWatch
from stillness import Level, Stillness, final_lines, growth, not_flat
from verdict import Facts, Verdict, describe
from visit import CUT, Visit, Visitor, new_slow_client, noting

ROUND_SECONDS = 40
STORM_SECONDS_MIN = 5
AFTER_STORM_SECONDS = 9  # about: the last runs and the stillness; then it is what it was the last time
CALM_SHARE = 4  # of the whole, one part in so many has no new workers
CALM_ROUNDS_MIN = 3  # one a third
CALM_AGAIN = 3
LINE_SECONDS = 60
PROBE_SECONDS = 0.5
TOLD_SECONDS = 10
STORM_RUNS_MAX = 900  # the server remembers the newest 1000
WORKER_TIMEOUT_SECONDS = 10
SHOWN_MAX = 10
# Time limits as they are but for these: a create that is refused is tried for two seconds, and the template is the one
# that is never fallen back from.
ENVIRONMENT = {"SANDSTORM_TEMPLATE": "claude-code", "SANDSTORM_CREATE_RETRY_TIMEOUT": "1900ms"}


class Broken(Exception):
    """A promise is."""


@dataclass(frozen=True)
class Options:
    """What is wanted."""

    minutes: float
    seed: int
    clients: int = 16
    workers: int = 3
    tell: Callable[[str], None] = print


class Soak:
    """One server, one double, and all that happens to them."""

    def __init__(self, options: Options, double: ThreadedDouble, server: Server, program: Path, visitor: Visitor,
                 client: httpx.AsyncClient):  # fmt: skip
        self._options, self._double, self._server, self._client = options, double, server, client
        self._watch = LogWatch(server)
        self._life = Life(server, program, self._watch)
        self._still = Stillness(double, server, client, self._life, options.workers)
        self._numbers = itertools.count(1)
        self._visitor = visitor
        self._visits: list[Visit] = []
        self._faults: dict[int, object] = {}  # number of a run → the double's rule
        self._probes_failed: list[str] = []
        self._over = asyncio.Event()
        self._begun = time.monotonic()
        self._level: Level | None = None  # at the end of the last round
        self._after_storm_s = AFTER_STORM_SECONDS
        self.counts: Counter = Counter()
        self.runs: Counter = Counter()
        self.faults: Counter = Counter()
        self.levels: list[Level] = []

    # --- phases ---

    async def run(self) -> None:
        """All of it; Broken at the first round that breaks a promise."""
        end = self._begun + self._options.minutes * 60
        stormy_until = end - self._options.minutes * 60 / CALM_SHARE
        fingers = [Mishaps(self._options.seed, "workers", WORKER_MISHAPS), Mishaps(self._options.seed, "master", MASTER_MISHAPS)]
        ticking = asyncio.create_task(self._tell_each_minute())
        try:
            while (left := stormy_until - time.monotonic()) > self._after_storm_s:
                await self._round(min(ROUND_SECONDS, left), fingers, renew=True)
            await self._watch_memory(end)
        finally:
            ticking.cancel()

    async def _watch_memory(self, end: float) -> None:
        """Rounds with the same workers; more of them when memory has grown, since a leak grows on and warmth does not."""
        fingers = [Mishaps(self._options.seed, "gentle", GENTLE_MISHAPS)]
        seconds = end - time.monotonic()
        rounds = max(CALM_ROUNDS_MIN, round(seconds / ROUND_SECONDS))
        workers = await self._still.workers()
        for _ in range(1 + CALM_AGAIN):
            while len(self.levels) < rounds:
                await self._round((end - time.monotonic()) / (rounds - len(self.levels)), fingers, renew=False)
                self.levels.append(self._level)
                self._demand([] if await self._still.workers() == workers else ["a worker was replaced though nobody touched it"])
            complaints = not_flat(self.levels)
            if not complaints:
                return
            self._options.tell(f"once more: {'; '.join(complaints)}")
            self.levels = self.levels[rounds // 3 :]
            end = time.monotonic() + seconds / 3
        self._demand(complaints)

    async def _round(self, seconds: float, fingers: list[Mishaps], renew: bool) -> None:
        """A storm, and the stillness after it, in about so many seconds."""
        storm_s = max(STORM_SECONDS_MIN, seconds - self._after_storm_s)
        over = time.monotonic() + storm_s
        self._over.clear()
        tasks = [asyncio.create_task(self._visits_of_one()) for _ in range(self._options.clients)]
        tasks += [asyncio.create_task(self._strike(finger)) for finger in fingers]
        tasks.append(asyncio.create_task(self._probe()))
        asyncio.get_running_loop().call_later(storm_s, self._over.set)
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        complaints = await self._still.reach(renew)
        complaints += await self._judge_all()
        self._demand(complaints)
        self._forget()
        self._level = await self._still.level()
        self._after_storm_s = time.monotonic() - over
        self.counts["rounds"] += 1

    def _demand(self, complaints: list[str]) -> None:
        """None may be left."""
        if complaints:
            more = f"\n… and {len(complaints) - SHOWN_MAX} more" if len(complaints) > SHOWN_MAX else ""
            raise Broken("\n".join(complaints[:SHOWN_MAX]) + more)

    # --- the storm ---

    async def _visits_of_one(self) -> None:
        """One client after the other."""
        while not self._over.is_set() and len(self._visits) < STORM_RUNS_MAX:
            choice = run_choice(self._options.seed, next(self._numbers))
            if choice.fault:
                self._faults[choice.number] = self._double.inject(**choice.fault.rule)
            if choice.delay:
                self._double.inject(**choice.delay)
            await asyncio.sleep(choice.think_s)  # the choice's own pace
            self._visits.append(await self._visitor.visit(choice))

    async def _strike(self, mishaps: Mishaps) -> None:
        """One mishap after the other."""
        while not self._over.is_set():
            mishap = mishaps.next()
            try:
                await asyncio.wait_for(self._over.wait(), mishap.gap_s)
            except TimeoutError:
                await self._life.strike(mishap)

    async def _probe(self) -> None:
        """Whoever asks is answered, by whichever worker."""
        for path in itertools.cycle(["/health", "/runs?limit=20", "/status", "/metrics"]):
            ports: set[int] = set()
            try:
                answer = await self._client.get(f"{self._server.url}{path}", extensions=noting(ports))
                if answer.status_code != 200:
                    self._probes_failed.append(f"{path} answered {answer.status_code}: {answer.text:.200}")
            except httpx.TransportError as reason:
                if not ports & self._life.cut:
                    self._probes_failed.append(f"{path} was not answered: {reason!r}")
            self.counts["probes"] += 1
            try:
                await asyncio.wait_for(self._over.wait(), PROBE_SECONDS)
                return
            except TimeoutError:
                continue

    # --- the accounts ---

    async def _judge_all(self) -> list[str]:
        """Every run of this round, and what no run knows of."""
        records = await self._records()
        with suppress(AssertionError):  # what is not told by then is complained of
            await eventually_async(lambda: self._all_told(records), TOLD_SECONDS, "the last lines of the log and the history")
        lines = final_lines(self._server)
        by_number: dict[int, list[dict]] = {}
        complaints = []
        for record in records:
            by_number.setdefault(int(json.loads(record["raw_prompt"])["marker"].split("-")[1]), []).append(record)
        for seen in self._visits:
            complaints += self._judge(seen, by_number.pop(seen.choice.number, []), lines)
        complaints += [f"a run that nobody asked for: number {number}" for number in by_number]
        died = [(pid, how) for pid, how in self._watch.died.items() if pid not in self._life.killed]
        complaints += [f"worker {pid} died by itself: {how}" for pid, how in died]
        complaints += self._watch.bugs + self._probes_failed + self._still.check_protocol()
        return complaints

    def _all_told(self, records: list[dict]) -> bool:
        """The log and the history tell of every end: a record is there before both."""
        self._watch.read()
        lines = final_lines(self._server)
        logged = {record["id"] for record in records if self._watch.workers.get(record["id"]) not in self._life.killed}
        return logged <= set(self._watch.ends) and {record["id"] for record in records} <= set(lines)

    async def _records(self) -> list[dict]:
        """Those of this round."""
        known = (await self._client.get(f"{self._server.url}/runs", params={"limit": 1000})).json()
        numbers = {seen.choice.marker for seen in self._visits}
        return [record for record in known if json.loads(record["raw_prompt"])["marker"] in numbers]

    def _judge(self, seen: Visit, records: list[dict], lines: dict[str, list[dict]]) -> list[str]:
        """One run."""
        record = records[0] if records else None
        run_id = seen.run_id or (record["id"] if record else "")
        verdict = Verdict(seen, self._facts(seen, run_id, record))
        if len(records) > 1:
            verdict.complaints.append(f"{len(records)} runs of one request")
        verdict.complaints += self._check_history(record, lines.get(run_id, []), verdict.facts.worker_killed)
        self._count(verdict)
        return [describe(verdict)] if verdict.complaints else []

    def _facts(self, seen: Visit, run_id: str, record: dict | None) -> Facts:
        """What others know of a run."""
        ledger = self._double.ledger
        rule = self._faults.get(seen.choice.number)
        worker = self._watch.workers.get(run_id)
        return Facts(
            record=record,
            ends=self._watch.ends.get(run_id, []),
            # One that was killed before it could say that the run started had the run's connection.
            worker_killed=worker in self._life.killed if worker else bool(seen.ports & self._life.cut),
            connection_cut=bool(seen.ports & self._life.cut),
            fault_fired=bool(rule and rule.fired),
            sandboxes=sum(sandbox.run_id == run_id for sandbox in ledger.created()) if run_id else 0,
            deletes=len(ledger.of_stage("kill", run_id)) if run_id else 0,
        )

    @staticmethod
    def _check_history(record: dict | None, lines: list[dict], worker_killed: bool) -> list[str]:
        """The file has the run's end, once: a worker that was killed between the line and the record wrote one more."""
        if record is None:
            return []
        if not 1 <= len(lines) <= 1 + worker_killed:
            return [f"{len(lines)} ends in the history"]
        return [] if lines[-1]["status"] == record["status"] else [f"the history says {lines[-1]['status']}"]

    def _count(self, verdict: Verdict) -> None:
        """For the table."""
        seen = verdict.seen
        self.counts["runs"] += 1
        self.counts["untouched"] += verdict.untouched
        self.counts["events"] += sum("seq" in event for event in verdict.events)
        for name, count in verdict.counts.items():
            self.counts[name] += count
        self.counts["cut by a killed worker"] += seen.end == CUT and verdict.facts.connection_cut
        self.counts["vanished"] += seen.choice.trouble == "leave"
        self.counts["cancelled"] += seen.choice.trouble == "cancel"
        self.counts["faults"] += verdict.facts.fault_fired
        if verdict.facts.fault_fired:
            self.faults[seen.choice.fault.rule["stage"]] += 1
        self.runs[seen.choice.shape] += 1

    def _forget(self) -> None:
        """What was judged."""
        self.counts["lookups of sandboxes"] += len(self._double.ledger.of_stage("find"))
        self._visits.clear()
        self._faults.clear()
        self._double.forget_faults()
        self._double.ledger.forget_ended()
        self._watch.forget_runs()
        self._life.forget_struck()

    # --- the report ---

    async def _tell_each_minute(self) -> None:
        """How it goes."""
        for minute in itertools.count(1):
            await asyncio.sleep(self._begun + minute * LINE_SECONDS - time.monotonic())
            self._tell(minute)

    def _tell(self, minute: int) -> None:
        """One line: what is accounted for so far."""
        counts, life, log = self.counts, self._life.counts, self._watch.counts
        struck = life["kill"] + life["abort"] + life["hang"]
        self._options.tell(
            f"{minute:3} min  {counts['runs']} runs ({counts['untouched']} untouched), {counts['events']} events, "
            f"{counts['lost']} lost, {counts['doubled']} doubled, {counts['foreign']} foreign; {struck} workers ended, "
            f"{log['reloads']} reloads, {log['upgrades']} upgrades, {counts['vanished']} clients vanished, "
            f"{counts['faults']} faults; {self._level}"
        )

    def table(self) -> str:
        """What was done and what came of it."""
        life, log = self._life.counts, self._watch.counts
        rows = [
            *((name, count) for name, count in self.counts.items()),
            *((f"agents: {name}", count) for name, count in sorted(self.runs.items())),
            *((f"faults at {name}", count) for name, count in sorted(self.faults.items())),
            *((f"mishaps: {name}", count) for name, count in sorted(life.items())),
            *((f"log: {name}", count) for name, count in log.items()),
        ]
        if len(self.levels) >= 3:
            rows += [(name, f"{before:g} → {after:g}") for name, (before, after) in growth(self.levels).items()]
        return "\n".join(f"{name:28} {value}" for name, value in rows)


@contextmanager
def no_cores():
    """An aborted worker would leave one where it was started."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


async def soak(options: Options, double: ThreadedDouble, start, folder: Path) -> None:
    """A whole soak against a server that it starts. Broken: a promise is."""
    program, port = folder / "sandstorm", free_port()
    versions.install(PROGRAM, program)
    argv = [program, "--bind", f"127.0.0.1:{port}", "--workers", options.workers, "--timeout", 600,
            "--worker-timeout", round(WORKER_TIMEOUT_SECONDS * SLOW),
            "--agent-runner", REPOSITORY / "agent/runner.mjs"]  # fmt: skip
    options.tell(f"seed {options.seed}, {options.minutes:g} minutes, {options.clients} clients, {options.workers} workers")
    with no_cores():
        server = start(argv=argv, port=port, env=ENVIRONMENT)
        await asyncio.to_thread(server.wait_ready, options.workers)
        async with new_client() as client, new_slow_client() as slow_client:
            soaking = Soak(options, double, server, program, Visitor(client, slow_client, server), client)
            try:
                await soaking.run()
            finally:
                options.tell(soaking.table())


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="random runs while everything else goes wrong")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build/soak", help="emptied first; the log stays there")
    given = parser.parse_args()
    folder = given.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # the double would tell of each client that leaves it
    options = Options(given.minutes, given.seed, given.clients, given.workers, lambda text: print(text, flush=True))
    try:
        with running_double() as double, running_servers(double, folder, show_logs=False) as start:
            asyncio.run(soak(options, double, start, folder))
    except (Broken, AssertionError, TimeoutError) as reason:
        print(f"BROKEN, seed {given.seed}: {reason}\nthe server's log is in {folder}", file=sys.stderr)
        return 1
    print(f"every promise was kept, seed {given.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
