"""The final record of a run: what GET /runs/{id} shows, and the one line of the log that tells of its end."""

import re
from dataclasses import dataclass

import httpx

from .waiting import deadline, eventually_async

RECORD_SECONDS = 10
# http-api.md section 9, in this order.
RECORD_KEYS = [
    "id", "prompt", "model", "status", "started_at", "cost_usd", "num_turns", "duration_secs", "error", "files_count",
    "feedback", "feedback_user", "raw_prompt", "agent_session_id", "sandbox_id", "team_id", "user_id", "channel_id",
    "thread_ts", "config_snapshot", "error_code", "result_subtype", "exit_code", "prompt_truncated", "trigger", "runtime",
    "ended_at",
]  # fmt: skip


@dataclass(frozen=True)
class Record:
    """How a run ended."""

    outcome: str  # completed, error, cancelled
    code: str | None
    sandbox_id: str | None


def records_told(server, run_id: str) -> list[Record]:
    """What the log tells of a run's end."""
    told = re.findall(rf"run {run_id} ended outcome=(\S+) code=(\S+) sandbox=(\S+)", server.stderr)
    return [Record(*(None if value == "-" else value for value in values)) for values in told]


async def final_record(server, run_id: str) -> Record:
    """Waits for the run's record, and for the line of the log, which tells the same, once. The line is the later of the two."""
    async with httpx.AsyncClient(timeout=deadline(5), trust_env=False) as client:

        async def ended() -> dict | None:
            found = (await client.get(f"{server.url}/runs/{run_id}")).json()
            return found if found["status"] != "running" else None

        found = await eventually_async(ended, RECORD_SECONDS, f"the end of run {run_id}")
    record = Record(found["status"], found["error_code"], found["sandbox_id"])
    await eventually_async(lambda: records_told(server, run_id), RECORD_SECONDS, f"the line of the log on the end of run {run_id}")
    assert records_told(server, run_id) == [record]
    return record
