"""The final record of a run. Read from the server's log: one line per run end."""

import re
from dataclasses import dataclass

from .waiting import eventually_async

RECORD_SECONDS = 10


@dataclass(frozen=True)
class Record:
    """How a run ended."""

    outcome: str  # completed, error, cancelled
    code: str | None
    sandbox_id: str | None


async def final_record(server, run_id: str) -> Record:
    """Waits for the run's record; AssertionError when there is none, or more than one."""
    line = re.compile(rf"run {run_id} ended outcome=(\S+) code=(\S+) sandbox=(\S+)")
    found = await eventually_async(lambda: line.findall(server.stderr), RECORD_SECONDS, f"the record of run {run_id}")
    assert len(found) == 1, f"run {run_id} ended {len(found)} times: {found}"
    return Record(*(None if value == "-" else value for value in found[0]))
