"""What a soak does, drawn from its seed.

Runs and mishaps have a stream of choices each, and every run one of its own: run 17 of a seed is the same run however
fast the machine is. Only what meets what is the machine's.
"""

import random
from dataclasses import dataclass

from fault_table import ROWS, STREAM, cells, fault_of

STALL_MIB = 8  # more than the sockets between an agent and its client hold
HANG_TIMEOUT_SECONDS = 5  # of runs whose sandbox falls silent
COMPLETE = "complete"  # an end without an error event of the server's


@dataclass(frozen=True)
class FaultChoice:
    """A fault of the double's for one run."""

    rule: dict  # of ThreadedDouble.inject()
    ends: frozenset[str]  # codes of the server's error event that may follow; COMPLETE: the run is not ended by it
    timeout: int | None = None  # of the run, in seconds


@dataclass(frozen=True)
class RunChoice:
    """One run: its agent, its client, its double."""

    number: int
    shape: str
    script: dict
    end: str  # what follows when nothing happens to it: a code, or COMPLETE
    status: tuple[str, str | None]  # the record's then
    trouble: str = "none"  # none, leave, cancel, fault
    way: str = ""  # how the client leaves
    after: int = 0  # numbered events before it leaves or cancels
    wait_s: float = 0  # before it leaves a stream that it does not read any more, or an answer that has not begun
    read_pause_s: float = 0  # a slow reader's, after every READ_PIECE events
    think_s: float = 0  # before it asks
    fault: FaultChoice | None = None
    delay: dict | None = None  # a rule of the double's that makes one of its answers late, and breaks nothing

    @property
    def marker(self) -> str:
        """What tells this run from all others, in its prompt and its model's key."""
        return f"soak-{self.number}-"

    @property
    def prompt(self) -> dict:
        """The agent's script."""
        return self.script | {"marker": self.marker}


@dataclass(frozen=True)
class Mishap:
    """Something that happens to the processes."""

    number: int
    kind: str
    gap_s: float  # before it
    victim: float  # which of the workers there are then: 0 the first, 1 the last
    seconds: float  # how long a pause is


@dataclass(frozen=True)
class Shape:
    """A kind of agent; each field of its script is drawn from a range, or stands as it is."""

    weight: int
    fields: dict
    end: str = COMPLETE
    status: tuple[str, str | None] = ("completed", None)
    read_pause_s: float = 0


SHAPES = {
    "short": Shape(6, {"events": (1, 8), "interval_ms": (5, 60), "bytes": (0, 400)}),
    "long": Shape(3, {"events": (8, 16), "interval_ms": (200, 400), "bytes": (0, 400)}),
    "burst": Shape(2, {"events": (50, 200), "bytes": (0, 2000), "pack": (1, 8), "batch": (1, 4)}),
    "pieces": Shape(1, {"events": (5, 20), "bytes": (100, 1000), "split": (7, 500)}),
    "slow reader": Shape(1, {"events": (200, 500), "bytes": (2000, 4000)}, read_pause_s=0.1),
    "files": Shape(2, {"events": (1, 4), "interval_ms": (5, 60), "files": {"a.txt": "é of a", "b/c.bin": 40000}}),
    "stderr": Shape(1, {"events": (4, 8), "interval_ms": (20, 60), "stderr": [[1, "one\n"], [3, "two\n"]]}),
    "runner error": Shape(1, {"events": (1, 5), "error": "no luck"}, status=("error", "agent_error")),
    "no success": Shape(1, {"events": (1, 5), "result": {"subtype": "error_max_turns"}}, status=("error", "agent_result")),
    "no result": Shape(1, {"events": (1, 5), "result": False, "exit": 3}, "agent_exit", ("error", "agent_exit")),
}  # fmt: skip
TROUBLES = {"none": 62, "leave": 14, "cancel": 8, "fault": 16}
WAYS = ("half a request", "before the answer", "close", "reset", "half close", "stop reading")
STAGES = ("create", "upload", "start", "stream", "read", "kill")
# So that whatever ends a worker finds runs in every stage.
DELAYED = {"create": 4, "upload": 1, "start": 1, "collect": 1, "kill": 2}
DELAYED_SHARE = 0.2
DELAY_SECONDS = (0.1, 2)
# To whom: a finger on the workers, a finger on the master; they move at the same time.
WORKER_MISHAPS = {"kill": 8, "abort": 3, "pause": 8, "hang": 1}
MASTER_MISHAPS = {"reload": 8, "upgrade": 3, "more": 3, "fewer": 3, "pause master": 2, "reopen logs": 1}
# While memory is watched, no worker is replaced.
GENTLE_MISHAPS = {"pause": 1}
GAP_SECONDS = (0.1, 2)
PAUSE_SECONDS = (0.02, 1.5)


def pick(rng: random.Random, weights: dict[str, int]) -> str:
    """One of them."""
    return rng.choices(list(weights), list(weights.values()))[0]


def drawn(rng: random.Random, fields: dict) -> dict:
    """A script: ranges become numbers."""
    return {name: rng.randint(*value) if isinstance(value, tuple) else value for name, value in fields.items()}


def stage_cells(stage: str) -> list[str]:
    """The failures of the fault table that a soak can have at a stage: their ends do not depend on other settings."""
    if stage == "stream":
        return [name for name, broken in STREAM.items() if not broken.gone]
    found = [name for name in cells(stage) if not ROWS[name].gone]
    if stage == "kill":  # whatever is given up, or taken for done, stays
        return [name for name in found if ROWS[name].kill.tries > 1 and not ROWS[name].kill.given_up]
    return found


CELLS = {stage: stage_cells(stage) for stage in STAGES}


def draw_fault(rng: random.Random, marker: str, script: dict) -> FaultChoice:
    """A failure at a stage of the run, once or for ever."""
    stage = rng.choice(STAGES)
    name = rng.choice(CELLS[stage])
    if stage == "stream":
        broken = STREAM[name]
        rule = {"stage": stage, "action": broken.action, "after": rng.randint(0, script["events"]), "marker": marker}
        ends = {broken.code}
        if broken.action == "end_reset":  # which takes what was on its way with it: the end of the process, too
            ends.add("sandbox_lost")
        if script.keys() & {"pack", "split"}:  # several lines at once: the last may be out before the fault, and decides
            ends.add(COMPLETE)
        return FaultChoice(rule | broken.options, *hung(broken.action, frozenset(ends)))
    times = 1 if stage == "kill" else rng.choice([1, None])
    rule = fault_of(ROWS[name], stage, times) | {"marker": marker}
    if stage in ("read", "kill"):
        return FaultChoice(rule, frozenset({COMPLETE}))
    end = getattr(ROWS[name], stage)
    if stage == "create" and end.search:
        rule["applied"] = rng.random() < 0.5
    return FaultChoice(rule, *hung(ROWS[name].action, frozenset({end.code} | ({COMPLETE} if times else set()))))


def draw_delay(rng: random.Random, marker: str) -> dict | None:
    """A late answer, if it is this run's turn; a sandbox that is made late may come to be though its client has gone."""
    if rng.random() >= DELAYED_SHARE:
        return None
    stage = pick(rng, DELAYED)
    late = {"stage": stage, "action": "delay", "seconds": rng.uniform(*DELAY_SECONDS), "marker": marker}
    return late | ({"detached": rng.random() < 0.5} if stage == "create" else {})


def hung(action: str, ends: frozenset[str]) -> tuple[frozenset[str], int | None]:
    """Who waits for what never comes is ended by the run's own time."""
    return (ends & {COMPLETE} | {"run_timeout"}, HANG_TIMEOUT_SECONDS) if action == "silence" else (ends, None)


def run_choice(seed: int, number: int) -> RunChoice:
    """The run of this number."""
    rng = random.Random(f"{seed}/run/{number}")
    shape = pick(rng, {name: one.weight for name, one in SHAPES.items()})
    trouble = pick(rng, TROUBLES)
    given = SHAPES[shape]
    script = drawn(rng, given.fields)
    choice = RunChoice(number, shape, script, given.end, given.status, trouble, think_s=rng.uniform(0, 0.6),
                       read_pause_s=given.read_pause_s)  # fmt: skip
    fields = {"after": rng.randint(0, script["events"]), "wait_s": rng.uniform(0, 0.03)}
    fields["delay"] = draw_delay(rng, choice.marker)
    if trouble == "leave":
        fields["way"] = rng.choice(WAYS)
        if fields["way"] == "stop reading":
            fields |= {"shape": "stall", "script": {"flood_mib": STALL_MIB, "bytes": 4000}, "after": rng.randint(0, 50),
                       "wait_s": rng.uniform(0.2, 2), "end": COMPLETE, "status": ("completed", None)}  # fmt: skip
    if trouble == "fault":
        fields["fault"] = fault = draw_fault(rng, choice.marker, script)
        if fault.rule["stage"] == "read":  # of files
            fields |= {"shape": "files", "script": drawn(rng, SHAPES["files"].fields), "end": COMPLETE,
                       "status": SHAPES["files"].status, "read_pause_s": 0}  # fmt: skip
    return RunChoice(**choice.__dict__ | fields)


class Mishaps:
    """A stream of mishaps of some kinds."""

    def __init__(self, seed: int, name: str, weights: dict[str, int]):
        self._rng = random.Random(f"{seed}/{name}")
        self._weights = weights
        self._number = 0

    def next(self) -> Mishap:
        """The next one."""
        self._number += 1
        rng = self._rng
        kind, gap_s = pick(rng, self._weights), rng.uniform(*GAP_SECONDS)
        return Mishap(self._number, kind, gap_s, rng.random(), rng.uniform(*PAUSE_SECONDS))
