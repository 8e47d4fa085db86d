"""The double's ledger: every request in order of arrival, every sandbox with its times, every breach of the protocol.

The double writes it from its event loop; tests read it from their own thread and wait for what they expect with
wait(). Times are time.monotonic() of this process.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Entry:
    """One request; status stays None while no answer has begun (or when none ever did)."""

    number: int
    at: float
    method: str
    path: str
    stage: str
    sandbox_id: str | None = None
    run_id: str | None = None
    status: int | None = None
    answered_at: float | None = None
    gone_at: float | None = None  # the client left before the answer was complete
    fault: str | None = None
    command: str | None = None
    on_new: bool = True  # it is the first one on its connection

    def __str__(self):
        outcome = self.status or ("client gone" if self.gone_at else "no answer")
        return f"#{self.number} {self.stage} {self.method} {self.path} run={self.run_id} → {outcome}"


@dataclass
class Sandbox:
    """One sandbox and what the client put into it."""

    id: str
    token: str
    run_id: str
    template: str
    made_at: float
    ttl: float
    metadata: dict
    env: dict
    files: dict = field(default_factory=dict)
    uploads: int = 0
    deleted_at: float | None = None
    lost_at: float | None = None  # killed by the test, or its time to live ended
    streams: set = field(default_factory=set)
    killed_pids: set = field(default_factory=set)

    @property
    def dead(self) -> bool:
        """No request for this sandbox is served any more."""
        return self.deleted_at is not None or self.lost_at is not None


class Ledger:
    """What happened at one double."""

    def __init__(self):
        self.changed = threading.Condition()
        self.entries: list[Entry] = []
        self.sandboxes: dict[str, Sandbox] = {}
        self.violations: list[str] = []
        self.stages: Counter = Counter()
        self.progress: Counter = Counter()  # run id → numbered events handed to the client's socket
        self.streamed: Counter = Counter()  # run id → stdout bytes handed to the client's socket
        self.began: list[str] = []  # run ids in the order in which their agents started
        self.open: set[str] = set()  # run ids whose agent's stream is open
        self.accepted: set[str] = set()  # run ids whose sandboxes may stay

    # --- written by the double ---

    def arrive(self, method: str, path: str, stage: str, sandbox: Sandbox | None) -> Entry:
        """Notes a request whose headers are in."""
        with self.changed:
            entry = Entry(len(self.entries) + 1, time.monotonic(), method, path, stage)
            if sandbox:
                entry.sandbox_id, entry.run_id = sandbox.id, sandbox.run_id
            self.entries.append(entry)
            self.changed.notify_all()
            return entry

    def note(self, subject, **values) -> None:
        """Sets fields of an entry or a sandbox and wakes the waiting."""
        with self.changed:
            for name, value in values.items():
                setattr(subject, name, value)
            self.changed.notify_all()

    def ordinal(self, stage: str) -> int:
        """Counts one more request of a stage; the first is 1."""
        with self.changed:
            self.stages[stage] += 1
            return self.stages[stage]

    def add_sandbox(self, sandbox: Sandbox) -> None:
        """Notes a sandbox that now exists."""
        with self.changed:
            self.sandboxes[sandbox.id] = sandbox
            self.changed.notify_all()

    def agent_began(self, run_id: str) -> None:
        """Notes an agent whose start event is out."""
        with self.changed:
            self.began.append(run_id)
            self.open.add(run_id)
            self.changed.notify_all()

    def agent_over(self, run_id: str) -> None:
        """Notes an agent whose stream is closed."""
        with self.changed:
            self.open.discard(run_id)
            self.changed.notify_all()

    def agent_printed(self, run_id: str, size: int, events: int) -> None:
        """Counts output the client's socket took."""
        with self.changed:
            self.progress[run_id] += events
            self.streamed[run_id] += size
            self.changed.notify_all()

    def violation(self, text: str) -> None:
        """Notes a breach of the protocol by the client; the test that caused it fails."""
        with self.changed:
            self.violations.append(text)
            self.changed.notify_all()

    def accept_left(self, run_ids: list[str]) -> None:
        """Sandboxes of these runs no longer count as alive: nobody is left who could delete them."""
        with self.changed:
            self.accepted |= set(run_ids)
            self.changed.notify_all()

    def forget_ended(self) -> None:
        """Drops the requests so far and the sandboxes that are gone: a test that runs for long has looked at them."""
        with self.changed:
            self.entries = []
            self.sandboxes = {name: sandbox for name, sandbox in self.sandboxes.items() if sandbox.deleted_at is None}
            for counted in (self.progress, self.streamed, self.began):
                counted.clear()
            self.changed.notify_all()

    # --- read by tests ---

    def wait(self, predicate: Callable[["Ledger"], object], seconds: float, what: str = "the ledger") -> object:
        """Waits until the predicate holds for this ledger; TimeoutError with the last entries when it never does."""
        with self.changed:
            if not self.changed.wait_for(lambda: predicate(self), seconds):
                tail = "\n".join(str(entry) for entry in self.entries[-12:])
                raise TimeoutError(f"waited {seconds:g} s for {what}; alive: {len(self.alive())}; last requests:\n{tail}")
            return predicate(self)

    def of_stage(self, stage: str, run_id: str | None = None) -> list[Entry]:
        """Requests of one stage, of one run or of all."""
        with self.changed:
            return [e for e in self.entries if e.stage == stage and run_id in (None, e.run_id)]

    def of_runs(self) -> list[Entry]:
        """All requests but those that the server makes on its own."""
        with self.changed:
            return [entry for entry in self.entries if entry.stage not in ("survey", "api_health", "register", "unregister")]

    def of_run(self, run_id: str) -> list[Entry]:
        """All requests of one run in order of arrival."""
        with self.changed:
            return [entry for entry in self.entries if entry.run_id == run_id]

    def created(self) -> list[Sandbox]:
        """Every sandbox that was ever made."""
        with self.changed:
            return list(self.sandboxes.values())

    def created_before(self, sandbox_id: str) -> list[Sandbox]:
        """The newest first, from the one before this id on; all of them when the id is unknown."""
        with self.changed:
            newest_first = list(reversed(self.sandboxes.values()))
            ids = [sandbox.id for sandbox in newest_first]
            return newest_first[ids.index(sandbox_id) + 1 :] if sandbox_id in ids else newest_first

    def deleted(self) -> list[Sandbox]:
        """Sandboxes the client deleted."""
        with self.changed:
            return [s for s in self.sandboxes.values() if s.deleted_at is not None]

    def alive(self) -> list[Sandbox]:
        """Sandboxes the client has not deleted; one that expired was not deleted either."""
        with self.changed:
            return [s for s in self.sandboxes.values() if s.deleted_at is None and s.run_id not in self.accepted]

    def sandbox_of(self, run_id: str) -> Sandbox | None:
        """The sandbox of a run, or None while it has none."""
        with self.changed:
            return next((s for s in self.sandboxes.values() if s.run_id == run_id), None)

    def open_streams(self) -> int:
        """Agents whose stream is open now."""
        with self.changed:
            return len(self.open)

    def round_trips_before_start(self, run_id: str) -> list[str]:
        """The stages of a run's requests that came before its start call."""
        stages = [entry.stage for entry in self.of_run(run_id)]
        return stages[: stages.index("start")] if "start" in stages else stages

    def delete_latency(self, run_id: str, since: float) -> float | None:
        """Seconds from an instant to the arrival of the run's first DELETE; None when there was none."""
        kills = self.of_stage("kill", run_id)
        return kills[0].at - since if kills else None

    def summary(self) -> dict:
        """The figures a person wants to see."""
        with self.changed:
            return {
                "requests": len(self.entries),
                "created": len(self.sandboxes),
                "deleted": len(self.deleted()),
                "alive": [s.id for s in self.alive()],
                "open_streams": len(self.open),
                "violations": list(self.violations),
                "entries": [str(entry) for entry in self.entries[-200:]],
            }
