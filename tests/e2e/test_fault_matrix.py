"""Every fault of the sandbox service at every stage of a run: the test that makes it, or why it cannot be made there.

Run as a program, it prints the matrix.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from fault_table import ROWS, RPC, STREAM

TESTS = Path(__file__).resolve().parents[1]
STAGES = ("create", "upload", "start", "stream", "read", "kill")
FAULTS = (
    "refuse", "TLS failure", "blackhole", "slow drip", "reset", "clean early EOF", "401", "404", "409",
    "429 with Retry-After", "429 without", "500", "502", "503", "504", "non-JSON", "truncated envelope",
    "oversized envelope", "garbage", "stall", "duplicated end", "data after end", "DNS stall", "DNS failure",
)  # fmt: skip


@cache
def source_of(file: str) -> str:
    """The text of a file of tests."""
    return (TESTS / file).read_text()


@dataclass(frozen=True)
class Row:
    """A row of ROWS: test_faults.py or test_faults_read_kill.py makes it at every stage it has a column for."""

    name: str

    def exists(self, stage: str) -> bool:
        return bool(getattr(ROWS[self.name], stage))


@dataclass(frozen=True)
class Stream:
    """A row of STREAM."""

    name: str

    def exists(self, stage: str) -> bool:
        return stage == "stream" and self.name in STREAM


@dataclass(frozen=True)
class Rpc:
    """A row of RPC. The status came long ago: envd can only end the stream with an error in Connect's words."""

    name: str

    def exists(self, stage: str) -> bool:
        return stage == "stream" and self.name in RPC


@dataclass(frozen=True)
class Test:
    """A test of its own."""

    __test__ = False  # pytest: no class of tests
    file: str
    name: str

    def exists(self, stage: str) -> bool:
        return f" {self.name}(" in source_of(self.file)


@dataclass(frozen=True)
class Meaningless:
    """There is no such thing, because …"""

    name: str

    def exists(self, stage: str) -> bool:
        return True


def rows(name: str) -> dict:
    """One row at all stages but the stream's."""
    return {stage: Row(name) for stage in STAGES if stage != "stream"}


def status(name: str, code: str, **others) -> dict:
    """A status at all stages, and what comes nearest to it in a stream."""
    return rows(name) | {"stream": Rpc(code)} | others


CONNECT, ODD, TLS, DNS = (f"e2e/test_faults_{name}.py" for name in ("connect", "odd", "tls", "dns"))
DOWN = Test(CONNECT, "test_a_service_that_is_down_is_tried_three_times")
UNREACHABLE = {
    "create": DOWN, "upload": DOWN, "start": DOWN,
    "read": Test(CONNECT, "test_files_that_cannot_be_fetched_are_left_out"),
    "kill": Test(CONNECT, "test_a_deletion_waits_for_the_service"),
}  # fmt: skip
ODD_ANSWER = Test(ODD, "test_an_odd_answer_is_understood_and_is_not_the_next_requests")
ODD_ANSWERS = {"create": ODD_ANSWER, "upload": ODD_ANSWER, "read": ODD_ANSWER, "kill": ODD_ANSWER}
DRIPPING = Test(ODD, "test_a_stream_that_drips_is_read_to_its_end")
# The limits of these are half a minute and more.
LIMITS = Test("unit/test_worker_e2b_call.c", "test_each_failure_has_its_tries_and_its_code")
DEADLINE = Test("e2e/test_faults.py", "test_the_deadline_ends_a_run_in_every_stage")
# The name that the upload knew is known for a minute, and its connection is used again.
NAMELESS = {
    "create": Test(DNS, "test_a_name_that_cannot_be_looked_up_ends_the_run"),
    "upload": Test(DNS, "test_a_name_that_cannot_be_looked_up_ends_the_run"),
    "start": LIMITS, "read": LIMITS,
    "stream": Meaningless("a stream has its connection: nothing is looked up"),
    "kill": Test(DNS, "test_a_deletion_waits_for_its_name"),
}  # fmt: skip

MATRIX = {
    "refuse": UNREACHABLE | {"stream": Test(CONNECT, "test_a_service_that_goes_down_under_an_agent_loses_it")},
    "TLS failure": {
        "create": Test(CONNECT, "test_tls_that_fails"),
        "upload": Test(CONNECT, "test_tls_that_fails"),
        "start": Test(TLS, "test_an_agent_that_cannot_be_started_over_tls"),
        "stream": Test(TLS, "test_a_stream_whose_tls_breaks_is_lost"),
        "read": Test(TLS, "test_files_that_cannot_be_read_over_tls"),
        "kill": Test(TLS, "test_a_deletion_waits_for_tls"),
    },
    "blackhole": UNREACHABLE | {"stream": Stream("silence")},
    "slow drip": ODD_ANSWERS | {"start": DRIPPING, "stream": DRIPPING},
    "reset": rows("reset") | {"stream": Stream("reset")},
    "clean early EOF": rows("closed") | {"start": Row("clean EOF"), "stream": Stream("clean EOF")},
    "401": status("401", "unauthenticated"),
    "404": status("404", "not_found"),
    "409": status("409", "aborted"),
    "429 with Retry-After": status("429 with Retry-After", "", stream=Meaningless("Connect's errors have no Retry-After")),
    "429 without": status("429 without", "resource_exhausted"),
    "500": status("500", "internal"),
    "502": status("502 page", "unavailable"),
    "503": status("503", "unavailable"),
    "504": status("504", "deadline_exceeded"),
    "non-JSON": rows("success page") | {
        "stream": Stream("not JSON"), "read": Meaningless("a file may hold anything: its bytes are not looked at"),
    },
    "truncated envelope": rows("short body") | {"start": Row("clean EOF in an envelope"), "stream": Stream("cut in an envelope")},
    "oversized envelope": rows("too large") | {"start": Row("envelope over 16 MiB"), "stream": Stream("envelope over 16 MiB")},
    "garbage": rows("no HTTP") | {"stream": Stream("garbage")},
    "stall": {
        "create": DEADLINE, "upload": DEADLINE, "start": Row("silence"), "stream": Stream("silence"),
        "read": Test("e2e/test_files.py", "test_collecting_has_an_end"),
        "kill": Test("unit/test_worker_kill_queue.c", "test_each_answer_has_its_action"),
    },
    "duplicated end": ODD_ANSWERS | {"start": Row("first event is end, twice"), "stream": Stream("end, then another end")},
    "data after end": ODD_ANSWERS | {
        "start": Row("output after an early end of stream"), "stream": Stream("end, then bytes after the end of stream"),
    },
    "DNS stall": NAMELESS,
    "DNS failure": NAMELESS,
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_test_at_every_stage(fault):
    assert set(MATRIX[fault]) == set(STAGES)
    for stage, cell in MATRIX[fault].items():
        assert cell.exists(stage), f"at {stage} there is no {cell}"


def test_there_are_no_other_faults():
    assert set(MATRIX) == set(FAULTS)


if __name__ == "__main__":
    for fault in FAULTS:
        for stage in STAGES:
            cell = MATRIX[fault][stage]
            print(f"{fault:22}{stage:8}{type(cell).__name__:12}{cell.name}")
