"""The soak's judge: it lets nothing pass that a run must not do."""

import dataclasses
import json

import pytest
from agent_script import MULTIBYTE_TEXT
from choices import CELLS, COMPLETE, FaultChoice, Mishaps, RunChoice, run_choice
from harness.client import Answer
from stillness import Level, not_flat
from verdict import Facts, Verdict
from visit import CUT, LEFT, REFUSED, SILENT, Visit

RUN, OTHER = "0123456789abcdef", "fedcba9876543210"
EVENTS = 3
CHOICE = RunChoice(7, "short", {"events": EVENTS}, COMPLETE, ("completed", None))
RECORD = {"id": RUN, "status": "completed", "error_code": None, "error": None, "ended_at": "then", "sandbox_id": "i0"}
FACTS = Facts(record=RECORD, ends=[("completed", None)], sandboxes=1, deletes=1)
RESULT = {"type": "result", "subtype": "success"}
FAULTY = dataclasses.replace(
    CHOICE, trouble="fault", fault=FaultChoice({"stage": "stream", "action": "reset"}, frozenset({"sandbox_lost"}))
)
HUNG = dataclasses.replace(
    CHOICE, trouble="fault", fault=FaultChoice({"stage": "stream", "action": "silence"}, frozenset({"run_timeout"}), 5)
)


def numbered(number: int, run: str = RUN, pad: str = "") -> dict:
    """An event as the double's agent prints it."""
    return {"seq": number, "type": "assistant", "run": run, "text": MULTIBYTE_TEXT, "pad": pad}


def error(code: str) -> dict:
    """A terminal event of the server's."""
    return {"type": "error", "error": "why", "request_id": RUN, "code": code}


def recorded(status: str, code: str | None, **more) -> Facts:
    """A run that ended so, by its record and by the log."""
    return dataclasses.replace(FACTS, record=RECORD | {"status": status, "error_code": code}, ends=[(status, code)], **more)


def verdict(events: list[dict], facts: Facts = FACTS, choice: RunChoice = CHOICE, end: str = "complete", **seen) -> Verdict:
    """What is said about a client that saw this."""
    answer = Answer(200, {}, RUN, [json.dumps(event, ensure_ascii=False) for event in events])
    return Verdict(Visit(choice, end, answer=answer, **seen), facts)


WHOLE = [*map(numbered, range(EVENTS)), RESULT]
KILLED = {"worker_killed": True, "connection_cut": True}


@pytest.mark.parametrize(
    "given",
    [
        {"events": WHOLE},
        {"events": WHOLE[:2], "end": CUT, "facts": recorded("error", "worker_lost", **KILLED)},
        {"events": WHOLE[:2], "end": CUT, "facts": dataclasses.replace(FACTS, **KILLED)},
        {"events": [numbered(0), error("sandbox_lost")], "choice": FAULTY,
         "facts": recorded("error", "sandbox_lost", fault_fired=True)},
        {"events": WHOLE, "choice": FAULTY},
        {"events": [numbered(0), error("run_timeout")], "choice": HUNG, "facts": recorded("error", "run_timeout")},
        {"events": WHOLE, "choice": HUNG},
        {"events": WHOLE[:1], "end": LEFT, "choice": dataclasses.replace(CHOICE, trouble="leave"),
         "facts": recorded("cancelled", "client_gone")},
        {"events": [numbered(0), error("cancelled")], "choice": dataclasses.replace(CHOICE, trouble="cancel"), "cancel": 200,
         "facts": recorded("cancelled", "cancelled")},
    ],
)  # fmt: skip
def test_what_keeps_the_promises_passes(given):
    assert verdict(**given).complaints == []


@pytest.mark.parametrize(
    ("complaint", "given"),
    {
        "1 events lost": {"events": [numbered(0), numbered(2), RESULT]},
        "2 events lost": {"events": [numbered(0), RESULT]},
        "1 events doubled": {"events": [numbered(0), *WHOLE]},
        "1 events foreign": {"events": [numbered(0), numbered(1, OTHER), numbered(2), RESULT]},
        "1 events torn": {"events": [numbered(0), numbered(1, pad="x"), numbered(2), RESULT]},
        "out of order": {"events": [numbered(1), numbered(0), numbered(2), RESULT]},
        "no agent printed": {"events": [*map(numbered, range(EVENTS + 1)), RESULT]},
        "0 terminal events": {"events": WHOLE[:-1]},
        "2 terminal events": {"events": [*WHOLE, error("internal")]},
        "ended with internal": {"events": [*WHOLE[:-1], error("internal")], "facts": recorded("error", "internal")},
        "ended with agent_exit": {"events": [error("agent_exit")], "choice": FAULTY,
                                  "facts": recorded("error", "agent_exit", fault_fired=True)},
        "ended with sandbox_lost": {"events": [error("sandbox_lost")], "choice": HUNG, "facts": recorded("error", "sandbox_lost")},
        "after the server's error": {"events": [error("sandbox_lost"), numbered(0)], "choice": FAULTY,
                                     "facts": recorded("error", "sandbox_lost", fault_fired=True)},
        "was not killed": {"events": WHOLE[:2], "end": CUT},
        "silent": {"events": WHOLE[:2], "end": SILENT},
        "refused": {"events": [], "end": REFUSED},
        "cancel answered 500": {"events": WHOLE, "choice": dataclasses.replace(CHOICE, trouble="cancel"), "cancel": 500},
        "has no record": {"events": WHOLE, "facts": dataclasses.replace(FACTS, record=None)},
        "in the record of run": {"events": WHOLE, "facts": dataclasses.replace(FACTS, record=RECORD | {"id": OTHER})},
        "the record says": {"events": WHOLE, "facts": recorded("error", "worker_lost")},
        "the record has no end": {"events": WHOLE, "facts": dataclasses.replace(FACTS, record=RECORD | {"ended_at": None})},
        "tells of 2 ends": {"events": WHOLE, "facts": dataclasses.replace(FACTS, ends=FACTS.ends * 2)},
        "the log says": {"events": WHOLE, "facts": dataclasses.replace(FACTS, ends=[("error", "internal")])},
        "files": {"events": WHOLE, "choice": dataclasses.replace(CHOICE, script={"events": EVENTS, "files": {"a": "b"}})},
        "stderr": {"events": WHOLE, "choice": dataclasses.replace(CHOICE, script={"events": EVENTS, "stderr": [[1, "one\n"]]})},
        "2 sandboxes made": {"events": WHOLE, "facts": dataclasses.replace(FACTS, sandboxes=2, deletes=2)},
        "0 deletions": {"events": WHOLE, "facts": dataclasses.replace(FACTS, deletes=0)},
    }.items(),
)  # fmt: skip
def test_what_breaks_a_promise_is_told(complaint, given):
    assert complaint in "; ".join(verdict(**given).complaints)


def test_a_killed_worker_excuses_no_hole():
    facts = recorded("error", "worker_lost", **KILLED)
    assert verdict([numbered(0), numbered(2)], facts, end=CUT).complaints == ["1 events lost"]


def test_the_choices_of_a_seed_are_the_same_each_time():
    assert [run_choice(5, number) for number in range(100)] == [run_choice(5, number) for number in range(100)]
    assert run_choice(5, 1) != run_choice(6, 1)
    assert Mishaps(5, "x", {"kill": 1, "reload": 1}).next() == Mishaps(5, "x", {"kill": 1, "reload": 1}).next()


def test_faults_of_every_stage_are_drawn():
    drawn = {choice.fault.rule["stage"] for number in range(1000) if (choice := run_choice(1, number)).fault}
    assert drawn == set(CELLS)


@pytest.mark.parametrize(
    ("name", "values", "flat"),
    [("workers_kib", [90, 100, 104], True), ("workers_kib", [90, 100, 106], False), ("workers_kib", [90, 100, 94], True),
     ("master_descriptors", [11, 11, 12], False), ("master_descriptors", [11, 12, 11], False),
     ("workers_descriptors", [33] * 9, True)],
)  # fmt: skip
def test_five_percent_is_flat(name, values, flat, monkeypatch):
    monkeypatch.setattr("stillness.memory_slack_kib", lambda plain: plain)
    levels = [dataclasses.replace(Level(100, 100, 11, 33), **{name: value}) for value in values]
    assert (not_flat(levels) == []) == flat
