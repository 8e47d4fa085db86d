"""The columns "read file" and "kill" of e2b.md A.4: failures that no longer change what the client is told of the run."""

import pytest
from fault_table import ROWS, cells, fault_of
from harness.client import query, script
from harness.record import final_record
from harness.waiting import TICK_SECONDS

CUTTING = ("reset", "refuse", "garbage")
NOT_DELETED = "is not deleted after"


def names(answer) -> list[str]:
    """Files that came back."""
    return [event["name"] for event in answer.of_type("file")]


async def check_completed(faults, answer):
    """The outcome is the agent's."""
    assert answer.error_code is None
    record = await final_record(faults.server, answer.run_id)
    assert (record.outcome, record.code) == ("completed", None)


@pytest.mark.parametrize("name", cells("read"))
async def test_a_file_that_cannot_be_read_is_left_out_and_said(faults, client, name):
    row = ROWS[name]
    faults.double.inject(**fault_of(row, "read", None), path="b.txt")
    answer = await query(client, faults.server, script(files={"a.txt": "1", "b.txt": "2", "c.txt": "3"}))
    await check_completed(faults, answer)
    assert names(answer) == (["a.txt"] if row.read.stop else ["a.txt", "c.txt"])
    tries = [entry for entry in faults.double.ledger.of_stage("read", answer.run_id) if "b.txt" in entry.path]
    faults.check_tries(row.read, tries)
    (warning,) = answer.of_type("warning")
    assert (warning["code"], warning["request_id"]) == ("files_incomplete", answer.run_id)
    assert answer.events.index(warning) > 0
    await faults.until_deleted(answer.run_id, 1)


@pytest.mark.parametrize("name", ["409", "500", "503", "reset", "502 not found"])
async def test_a_read_that_fails_once_is_repeated(faults, client, name):
    faults.double.inject(**fault_of(ROWS[name], "read", 1), path="b.txt")
    answer = await query(client, faults.server, script(files={"a.txt": "1", "b.txt": "2"}))
    await check_completed(faults, answer)
    assert (names(answer), answer.of_type("warning")) == (["a.txt", "b.txt"], [])


LISTINGS = {
    "refused": {"action": "status", "status": 500},
    "of a gone sandbox": {"action": "status", "status": 502},
    "page": {"action": "text", "status": 200},
    "reset": {"action": "reset"},
    "Connect error": {"action": "connect_error", "code": "permission_denied"},
}


@pytest.mark.parametrize("name", LISTINGS)
async def test_a_listing_that_fails_means_no_files(faults, client, name):
    faults.double.inject("collect", times=None, **LISTINGS[name])
    answer = await query(client, faults.server, script(files={"a.txt": "1"}))
    answer.check_complete(3)
    await check_completed(faults, answer)
    assert "listing of files failed: " in faults.log
    assert not faults.count("read", answer.run_id)
    await faults.until_deleted(answer.run_id, 1)


@pytest.mark.parametrize("name", cells("kill"))
async def test_a_deletion_that_fails(faults, client, name):
    row, cell = ROWS[name], ROWS[name].kill
    times = None if cell.given_up else 2 if row.action in CUTTING else 1
    faults.double.inject(**fault_of(row, "kill", times), applied=cell.tries == 1 and not cell.given_up)
    answer = await query(client, faults.server, script())
    answer.check_complete(3)
    sandbox = faults.double.ledger.sandbox_of(answer.run_id)
    await faults.wait_log(f"{sandbox.id} {NOT_DELETED}" if cell.given_up else f"{sandbox.id} deleted")
    requests = faults.double.ledger.of_stage("kill", answer.run_id)
    assert len(requests) == cell.tries
    assert cell.log in faults.log and (NOT_DELETED in faults.log) == cell.given_up
    if cell.wait_s:
        assert requests[1].at - requests[0].answered_at >= cell.wait_s - TICK_SECONDS
    if cell.given_up:
        faults.double.accept_left([answer.run_id])
    else:
        await faults.until_deleted(answer.run_id, 1)
    await check_completed(faults, answer)
