"""The rows of e2b.md A.4 in which nothing is sent: no connection, no TLS handshake, a certificate that is refused."""

import asyncio
import time

import pytest
from harness.client import query, script
from harness.record import final_record
from harness.server import seconds_since
from harness.waiting import TICK_SECONDS
from tls_listener import TlsListener

BACKOFF_LEAST_SECONDS = (0.25 + 1) * 0.7
CODES = {"create": "sandbox_create_failed", "upload": "upload_failed", "start": "agent_start_failed"}


def failed_tries(faults, stage: str) -> int:
    """Tries of a stage that the log tells of and that were followed by another."""
    return faults.log.count(f"sandbox service: {stage}")


# --- not connected: the double leaves after the answer to the stage before ---

STAGE_BEFORE = {"create": None, "upload": "create", "start": "upload"}
# From then on connections are refused, or nothing is heard of them at all.
WAYS = pytest.mark.parametrize("way", ["leave", "vanish"])


def be_down_at(faults, stage: str, way: str) -> None:
    """The service cannot be reached from this stage of the next run on."""
    if STAGE_BEFORE[stage]:
        faults.double.inject(STAGE_BEFORE[stage], way)
    elif way == "leave":
        faults.double.go_down()
    else:
        faults.double.vanish()


@WAYS
@pytest.mark.parametrize("stage", STAGE_BEFORE)
async def test_a_service_that_is_down_is_tried_three_times(faults, client, stage, way):
    be_down_at(faults, stage, way)
    answer = await query(client, faults.server, script())
    faults.double.come_up()
    text = await faults.check_end(answer, CODES[stage])
    assert "cannot reach the sandbox service: " in text
    assert (failed_tries(faults, stage), faults.count(stage, answer.run_id)) == (2, 0)
    assert faults.duration(answer.run_id) >= BACKOFF_LEAST_SECONDS - 0.1  # the log rounds to tenths
    await faults.until_deleted(answer.run_id, 0 if stage == "create" else 1)
    (await query(client, faults.server, script())).check_complete(3)
    assert not faults.count("find", answer.run_id)


@pytest.mark.parametrize("stage", STAGE_BEFORE)
async def test_a_service_that_comes_back_is_found(faults, client, stage):
    """It is silent before: between two tries that are refused there is less than a second for it to come back."""
    be_down_at(faults, stage, "vanish")
    body = {"prompt": script()}
    async with client.stream("POST", f"{faults.server.url}/query", json=body) as answer:
        await faults.wait_log(f"sandbox service: {stage}")
        faults.double.come_up()
        assert '"type":"result"' in (await answer.aread()).decode()


async def test_a_service_that_goes_down_under_an_agent_loses_it(faults, client):
    """Whether the sandbox lives cannot be asked, and it is deleted as soon as the service is back."""
    faults.double.inject("stream", "leave", after=2)
    answer = await query(client, faults.server, script(events=5))
    assert await faults.check_end(answer, "sandbox_lost") == "connection to the sandbox was lost"
    await faults.wait_log("cannot delete sandbox")
    faults.double.come_up()
    await faults.until_deleted(answer.run_id, 1)


@WAYS
async def test_files_that_cannot_be_fetched_are_left_out(faults, client, way):
    faults.double.inject("collect", way)
    answer = await query(client, faults.server, script(files={"a.txt": "1", "b.txt": "2"}))
    faults.double.come_up()
    assert (answer.error_code, answer.of_type("file")) == (None, [])
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert failed_tries(faults, "read") == 2  # one of two tries for each file
    await faults.until_deleted(answer.run_id, 1)


@WAYS
async def test_a_deletion_waits_for_the_service(faults, client, way):
    faults.double.inject("collect", way)
    answer = await query(client, faults.server, script())
    await faults.wait_log("cannot delete sandbox")
    faults.double.come_up()
    answer.check_complete(3)
    await faults.until_deleted(answer.run_id, 1)


async def test_a_stop_waits_for_deletions_and_not_for_ever(double, start_server, client):
    """10 s, though runs would have graceful_timeout: 600 s."""
    server = start_server(workers=1)
    double.inject("collect", "leave")
    answer = await query(client, server, script())
    answer.check_complete(3)
    await asyncio.to_thread(server.wait_log, "cannot delete sandbox")
    begin = time.monotonic()
    assert await asyncio.to_thread(server.stop) == 0
    assert seconds_since(begin) >= 10 - TICK_SECONDS
    assert "leaving with 1 deletions" in server.stderr
    double.accept_left([answer.run_id])


# --- TLS ---


@pytest.fixture(params=["handshake broken", "certificate refused"])
def bad_tls(request, tmp_path):
    """A listener that spoils TLS, the connections it should get, and what the client should be told."""
    untrusted = request.param == "certificate refused"
    listener = TlsListener(tmp_path if untrusted else None)
    try:
        if untrusted:
            yield listener, 1, "the certificate of the sandbox service is refused: "
        else:
            yield listener, 3, "cannot speak TLS with the sandbox service: "
    finally:
        listener.close()


@pytest.mark.parametrize("stage", ["create", "upload"])
async def test_tls_that_fails(double, start_server, client, bad_tls, stage):
    listener, tries, words = bad_tls
    server = start_server(env={"E2B_API_URL" if stage == "create" else "E2B_SANDBOX_URL": listener.url})
    if stage == "create":  # the server's own survey fails there too
        await asyncio.to_thread(server.wait_log, "cannot look for sandboxes of this instance")
    before = listener.connections
    answer = await query(client, server, script())
    assert answer.error_code == CODES[stage]
    assert words in answer.events[-1]["error"]
    assert (await final_record(server, answer.run_id)).code == CODES[stage]
    assert listener.connections - before == tries
    told_operator = f"the certificate of {listener.url.removeprefix('https://')} is refused" in server.stderr
    assert told_operator == (tries == 1)
    assert not double.ledger.of_stage("find") and not double.ledger.of_stage(stage)
