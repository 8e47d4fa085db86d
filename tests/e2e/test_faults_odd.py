"""Answers of the sandbox service that are odd and yet whole: they come byte by byte, or more comes than was asked for."""

import pytest
from harness.client import query, script
from harness.record import final_record

BYTE_SECONDS = 0.002
FILES = {"a.txt": "1", "b.txt": "2"}


def check_understood(faults, answer) -> None:
    """The run is whole, and nothing was asked twice."""
    assert answer.error_code is None and len(answer.of_type("result")) == 1
    assert [event["seq"] for event in answer.events if "seq" in event] == [0, 1, 2]
    assert {event["name"] for event in answer.of_type("file")} == set(FILES)
    assert not answer.of_type("warning")
    assert [faults.count(stage, answer.run_id) for stage in ("create", "upload", "start", "read")] == [1, 1, 1, len(FILES)]
    assert (faults.count("find", answer.run_id), faults.count("probe", answer.run_id)) == (0, 0)


@pytest.mark.parametrize("stage", ["create", "upload", "read", "kill"])
@pytest.mark.parametrize("action", ["drip", "twice", "surplus"])
async def test_an_odd_answer_is_understood_and_is_not_the_next_requests(faults, client, action, stage):
    """The second run would get what was left of the first one's answer, if its connection were used again."""
    rule = faults.double.inject(stage, action, seconds=BYTE_SECONDS)
    for _ in range(2):
        answer = await query(client, faults.server, script(files=FILES))
        check_understood(faults, answer)
        await faults.until_deleted(answer.run_id, 1)
        assert faults.count("kill", answer.run_id) == 1
        assert (await final_record(faults.server, answer.run_id)).outcome == "completed"
    assert rule.fired == 1


async def test_a_stream_that_drips_is_read_to_its_end(faults, client):
    answer = await query(client, faults.server, script(dribble=8, dribble_ms=BYTE_SECONDS * 1000, files=FILES))
    check_understood(faults, answer)
    await faults.until_deleted(answer.run_id, 1)


async def test_a_start_event_that_drips_must_come_in_time_all_the_same(faults, client):
    answer = await query(client, faults.server, script(dribble=1, dribble_ms=300))
    assert await faults.check_end(answer, "agent_start_failed") == "the agent did not start in time"
    await faults.until_deleted(answer.run_id, 1)


async def test_a_second_start_event_changes_nothing(faults, client):
    faults.double.inject("stream", "start_again", after=2)
    answer = await query(client, faults.server, script(files=FILES))
    check_understood(faults, answer)
    await faults.until_deleted(answer.run_id, 1)
