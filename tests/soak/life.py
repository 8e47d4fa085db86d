"""What happens to the server's processes while runs go on."""

import asyncio
import itertools
import json
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from choices import Mishap
from harness import procfs, versions
from harness.server import PROGRAM, Server, run_program
from harness.waiting import eventually_async
from log_watch import LogWatch

STILL = "TtZX"  # states of a process that runs nothing
CHANGE_SECONDS = 60  # a third reload waits for the runs of the first
HANG_SECONDS = 30  # beyond worker_timeout
RELOADED = ("reloads", "reloads failed")
UPGRADED = ("upgrades", "upgrades refused")


class Life:
    """Strikes the server; knows which connections and workers it has struck dead."""

    def __init__(self, server: Server, program: Path, watch: LogWatch):
        self._server, self._program, self._watch = server, program, watch
        self._following = itertools.cycle([versions.install_next, versions.install])
        self.counts: Counter = Counter()
        self.killed: set[int] = set()  # pids
        self.cut: set[int] = set()  # ports of clients whose connection was a killed worker's

    async def strike(self, mishap: Mishap) -> None:
        """One mishap, to its end."""
        match mishap.kind:
            case "kill" | "abort" | "hang" | "pause":
                await self._strike_worker(mishap)
            case "reload":
                await self.reload()
            case "upgrade":
                await self._upgrade()
            case "more" | "fewer":
                self._server.signal(signal.SIGTTIN if mishap.kind == "more" else signal.SIGTTOU)
            case "reopen logs":
                self._server.signal(signal.SIGUSR1)
            case "pause master":
                await self._pause(self._server.pid, mishap.seconds)
        self.counts[mishap.kind] += 1

    async def workers(self) -> dict[int, str]:
        """Pid and state of each, as the scoreboard has them: the master has other children, too."""
        shown = await asyncio.to_thread(run_program, "status", "--json", "--pid", str(self._server.pid))
        report = json.loads(shown.stdout) if shown.stdout else {"workers": []}
        return {worker["pid"]: worker["state"] for worker in report["workers"]}

    async def _strike_worker(self, mishap: Mishap) -> None:
        """One of those there are."""
        pids = sorted(pid for pid in await self.workers() if procfs.is_alive(pid))
        if not pids:
            return
        pid = pids[int(mishap.victim * len(pids))]
        with suppress(ProcessLookupError):  # it was about to leave
            if mishap.kind == "pause":
                await self._pause(pid, mishap.seconds)
            else:
                await self._end(pid, mishap.kind)

    async def _pause(self, pid: int, seconds: float) -> None:
        """It stands still for a while: all goes on after it."""
        self._server.signal(signal.SIGSTOP, pid)
        try:
            await asyncio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                self._server.signal(signal.SIGCONT, pid)

    async def _end(self, pid: int, kind: str) -> None:
        """Holds it, so that its connections can be told from others, and ends it, or lets the master do so."""
        self._server.signal(signal.SIGSTOP, pid)
        await eventually_async(lambda: (procfs.stat_fields(pid) or STILL)[0] in STILL, 10, f"worker {pid} to stop")
        self.killed.add(pid)
        self.cut |= procfs.client_ports(self._server.port, pid)
        if kind == "kill":
            self._server.signal(signal.SIGKILL, pid)
        elif kind == "abort":
            self._server.signal(signal.SIGABRT, pid)
            self._server.signal(signal.SIGCONT, pid)
        await eventually_async(lambda: not procfs.is_alive(pid), HANG_SECONDS, f"the end of worker {pid}")

    def _outcomes(self, names: tuple[str, ...]) -> int:
        """How often one of them was told of."""
        self._watch.read()
        return sum(self._watch.counts[name] for name in names)

    async def _until_told(self, outcomes: tuple[str, ...], before: int, what: str) -> None:
        """Waits until the log tells of one more of them."""
        await eventually_async(lambda: self._outcomes(outcomes) > before, CHANGE_SECONDS, what)

    async def reload(self) -> None:
        """HUP, until it is done or refused."""
        before = self._outcomes(RELOADED)
        self._server.signal(signal.SIGHUP)
        await self._until_told(RELOADED, before, "the reload")

    async def _upgrade(self) -> None:
        """USR2, to a program that calls itself otherwise; then it starts workers of its own."""
        next(self._following)(PROGRAM, self._program)
        reloads, upgrades, taken = self._outcomes(RELOADED), self._outcomes(UPGRADED), self._watch.counts["upgrades"]
        self._server.signal(signal.SIGUSR2)
        await self._until_told(UPGRADED, upgrades, "the upgrade")
        if self._watch.counts["upgrades"] > taken:
            await self._until_told(RELOADED, reloads, "the upgraded program's workers")

    def killed_runs(self) -> set[str]:
        """Runs whose worker was killed."""
        return {run_id for run_id, pid in self._watch.workers.items() if pid in self.killed}

    def forget_struck(self) -> None:
        """Connections and workers whose runs are judged: their numbers may be given again."""
        self.cut.clear()
        self.killed.clear()
        self._watch.died.clear()
