"""Whether a run kept the promises: what its client saw, what its record says, what was done to its sandbox."""

import base64
import json
from dataclasses import dataclass, field

import choices
import visit
from agent_script import MULTIBYTE_TEXT, AgentScript
from visit import Visit

CANCELLED = ("cancelled", "cancelled")
CLIENT_GONE = ("cancelled", "client_gone")
WORKER_LOST = ("error", "worker_lost")
TEXT_SHOWN = 200


@dataclass(frozen=True)
class Facts:
    """What is known of a run from others than its client."""

    record: dict | None = None
    ends: list[tuple[str, str | None]] = field(default_factory=list)  # as the log told them
    worker_killed: bool = False  # at any time, also after the run
    connection_cut: bool = False  # its client's, or that of its cancel, was a killed worker's
    fault_fired: bool = False
    sandboxes: int = 0  # made for it
    deletes: int = 0  # requests


def events_of(texts: list[str]) -> list[dict]:
    """The events; every one of a soak is a JSON object."""
    return [json.loads(text) for text in texts]


def is_terminal(event: dict) -> bool:
    """Whether it ends a run."""
    return event["type"] in ("result", "error")


def is_untouched(seen: Visit, facts: Facts) -> bool:
    """Nothing happened to the run: all of it must have come. A worker may die when it is over."""
    choice = seen.choice
    lived = seen.end == visit.COMPLETE or not facts.worker_killed
    has_time = choice.fault is None or choice.fault.timeout is None
    spared = choice.trouble == "none" or (choice.trouble == "fault" and not facts.fault_fired and has_time)
    return lived and not facts.connection_cut and spared


class Verdict:
    """Complaints about one run, and what its events came to."""

    def __init__(self, seen: Visit, facts: Facts):
        self.seen, self.facts, self.choice = seen, facts, seen.choice
        self.complaints: list[str] = []
        self.counts = {"lost": 0, "doubled": 0, "foreign": 0, "torn": 0}
        self.untouched = is_untouched(seen, facts)
        self.script = AgentScript(**self.choice.prompt)
        try:
            self.events = events_of(seen.texts)
        except ValueError:
            self.events = []
            self._complain("an event is no JSON")
        self.terminals = [event for event in self.events if is_terminal(event)]
        self.code = self.terminals[-1].get("code") if self.terminals else None
        self._judge()

    def _complain(self, text: str) -> None:
        """A promise is broken."""
        self.complaints.append(text)

    def _demand(self, holds: bool, text: str) -> None:
        """A promise."""
        if not holds:
            self._complain(text)

    def _judge(self) -> None:
        """All of it."""
        self._judge_numbered()
        self._judge_end()
        if self.seen.end == visit.COMPLETE:
            self._judge_terminal()
            self._judge_extras()
        self._judge_record()
        self._judge_deletion()

    # --- the stream ---

    def _judge_numbered(self) -> None:
        """The numbered events are the run's own, whole, in order, none missing before the last."""
        numbered = [event for event in self.events if "seq" in event]
        numbers = [event["seq"] for event in numbered]
        own = [event for event in numbered if event["run"] == self.seen.run_id]
        intact = [event for event in numbered if event["text"] == MULTIBYTE_TEXT and len(event["pad"]) == self.script.bytes]
        wanted = self.script.events if self._must_be_whole() else max(numbers, default=-1) + 1
        self.counts = {
            "lost": len(set(range(wanted)) - set(numbers)),
            "doubled": len(numbers) - len(set(numbers)),
            "foreign": len(numbered) - len(own),
            "torn": len(numbered) - len(intact),
        }
        for name, count in self.counts.items():
            self._demand(not count, f"{count} events {name}")
        self._demand(numbers == sorted(numbers), f"events out of order: {numbers}")
        self._demand(max(numbers, default=-1) < self.script.events, "events that no agent printed")

    def _must_be_whole(self) -> bool:
        """Every event of the agent must have come: it printed its terminal line, and its client stayed."""
        stayed = self.seen.end == visit.COMPLETE
        return (stayed and bool(self.terminals) and self.code is None) or (self.untouched and stayed)

    def _judge_end(self) -> None:
        """A stream ends properly, unless its client left or its worker was killed."""
        match self.seen.end:
            case visit.REFUSED | visit.SILENT:
                self._complain(f"{self.seen.end}: {self.seen.reason}")
            case visit.CUT:
                left = self.choice.trouble == "leave"
                self._demand(self.facts.connection_cut or left, f"cut, though its worker was not killed: {self.seen.reason}")
        failed_cancel = self.choice.trouble == "cancel" and self.seen.end == visit.COMPLETE and self.seen.cancel not in (200, 409)
        self._demand(not failed_cancel or self.facts.connection_cut, f"cancel answered {self.seen.cancel}: {self.seen.reason}")
        self._demand(len(self.terminals) <= 1, f"{len(self.terminals)} terminal events")

    def _judge_terminal(self) -> None:
        """The one terminal event is one that the run's trouble leads to."""
        if self.choice.trouble == "leave":
            return  # half closed: the server may cut it as it likes
        if self._require_one_terminal():
            found = self.code or choices.COMPLETE
            self._demand(found in self._expected_ends(), f"ended with {found}, not {sorted(self._expected_ends())}")
            if self.code:
                self._demand(self.events[-1] == self.terminals[0], "events after the server's error event")

    def _require_one_terminal(self) -> bool:
        """A stream that ends properly has one."""
        self._demand(len(self.terminals) == 1, f"a whole stream with {len(self.terminals)} terminal events")
        return len(self.terminals) == 1

    def _expected_ends(self) -> set[str]:
        """Codes, or COMPLETE for the agent's own terminal line."""
        own = {self.choice.end}
        if self.choice.trouble == "cancel":
            return own | {"cancelled"}
        if self.choice.trouble == "fault" and self.facts.fault_fired:
            ends = self.choice.fault.ends
            return (ends - {choices.COMPLETE}) | (own if choices.COMPLETE in ends else set())
        if self.choice.fault and self.choice.fault.timeout:  # its time may be over before its fault is due
            own.add("run_timeout")
        return own

    def _judge_extras(self) -> None:
        """Files and standard error, of a run whose end nothing came in the way of."""
        if not self.untouched:
            return
        files = {event["relative_path"]: base64.b64decode(event["data"]) for event in self.events if event["type"] == "file"}
        self._demand(files == {path: self.script.file_bytes(path) for path in self.script.files}, f"files {sorted(files)}")
        told = "\n".join(event["data"] for event in self.events if event["type"] == "stderr")
        self._demand(told == "".join(text for _, text in self.script.stderr).strip(), f"stderr {told!r}")

    # --- the record ---

    def _judge_record(self) -> None:
        """One final record that fits what the client saw."""
        record, ends = self.facts.record, self.facts.ends
        if record is None:
            self._demand(not self.seen.run_id, f"run {self.seen.run_id} has no record")
            return
        status = (record["status"], record["error_code"])
        self._demand(self.seen.run_id in ("", record["id"]), f"its prompt is in the record of run {record['id']}")
        self._demand(status in self._fitting(), f"the record says {status}, not {sorted(self._fitting(), key=str)}")
        self._demand(record["ended_at"] is not None, "the record has no end")
        least = 0 if self.facts.worker_killed else 1
        self._demand(least <= len(ends) <= 1, f"the log tells of {len(ends)} ends: {ends}")
        self._demand(not ends or ends[0] == status, f"the log says {ends}, the record {status}")

    def _fitting(self) -> set[tuple[str, str | None]]:
        """What the record may say."""
        if self.seen.end == visit.COMPLETE and self.choice.trouble != "leave":
            return self._fitting_whole()
        own = self._after_own_end() | ({CLIENT_GONE} if self.choice.trouble == "leave" else set())
        if self.choice.trouble == "cancel":
            own.add(CANCELLED)
        if self.choice.trouble == "fault":
            own |= {("error", code) for code in self._expected_ends() - {choices.COMPLETE}}
        if self.facts.worker_killed:
            # Its client's close may have been seen before the kill.
            own |= {WORKER_LOST, CLIENT_GONE}
        return own

    def _after_own_end(self) -> set[tuple[str, str | None]]:
        """What the agent's own end leads to."""
        return {self.choice.status}

    def _fitting_whole(self) -> set[tuple[str, str | None]]:
        """Of a stream that came to its proper end: exactly what its terminal event says."""
        if self.code:
            return {CANCELLED if self.code == "cancelled" else ("error", self.code)}
        if self.choice.trouble == "cancel" and self.seen.cancel != 409:
            return {self.choice.status, CANCELLED}
        return {self.choice.status}

    # --- the sandbox ---

    def _judge_deletion(self) -> None:
        """An untouched run makes one sandbox and deletes it once; that none is left at all is looked at elsewhere."""
        if self.untouched and not self.facts.worker_killed and self.seen.end == visit.COMPLETE:
            made = (self.facts.sandboxes, self.facts.deletes)
            self._demand(made == (1, 1), f"{made[0]} sandboxes made and {made[1]} deletions asked for")


def describe(verdict: Verdict) -> str:
    """For a person who looks for the reason."""
    seen, facts = verdict.seen, verdict.facts
    return "\n  ".join([
        f"run number {seen.choice.number}, id {seen.run_id or '(unknown)'}: " + "; ".join(verdict.complaints),
        f"choice {seen.choice}",
        f"seen: {seen.end} {seen.reason}, cancel {seen.cancel}, {len(seen.texts)} events, the last "
        + " ".join(text[:TEXT_SHOWN] for text in seen.texts[-2:]),
        f"worker killed {facts.worker_killed}, connection cut {facts.connection_cut}, fault fired {facts.fault_fired}, "
        f"sandboxes {facts.sandboxes}, deletions {facts.deletes}, told {facts.ends}, "
        f"record {facts.record and {key: facts.record[key] for key in ('id', 'status', 'error_code', 'error', 'sandbox_id')}}",
    ])  # fmt: skip
