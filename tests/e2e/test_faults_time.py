"""When a request that failed is sent again, what is never sent twice, and the words a client is told (e2b.md A.4, A.6)."""

import json

import pytest
from harness.client import open_query, query, script
from harness.waiting import TICK_SECONDS, deadline

JITTER = 0.3
LATE_SECONDS = deadline(0.2)
TRIES = 5  # a busy machine can only make it later
MESSAGE_MAX_BYTES = 4096


def gaps(faults, stage: str, run_id: str) -> list[float]:
    """Seconds from each answer to the next request of a stage."""
    requests = faults.double.ledger.of_stage(stage, run_id)
    return [later.at - earlier.answered_at for earlier, later in zip(requests, requests[1:], strict=False)]


# --- waiting ---


@pytest.mark.parametrize("stage", ["create", "upload", "start"])
async def test_retry_after_is_kept(faults, client, stage):
    faults.double.inject(stage, "status", status=429, retry_after="1", times=1)
    answer = await query(client, faults.server, script())
    answer.check_complete(3)
    (gap,) = gaps(faults, stage, answer.run_id)
    assert 1 - TICK_SECONDS <= gap <= deadline(5)


@pytest.mark.alone
async def test_a_retry_after_beyond_the_limit_ends_the_create_at_once(faults, client):
    faults.double.inject("create", "status", status=429, retry_after="30", times=None)
    durations = []
    while len(durations) < TRIES and min(durations, default=1) >= 1:
        answer = await query(client, faults.server, script())
        await faults.check_end(answer, "e2b_rate_limited")
        assert faults.count("create", answer.run_id) == 1
        durations.append(faults.duration(answer.run_id))
    assert min(durations) < 1, durations


@pytest.mark.alone
@pytest.mark.parametrize("stage", ["upload", "start"])
async def test_the_waits_between_tries(faults, client, stage):
    faults.double.inject(stage, "status", status=409, times=None)
    pairs = []
    for _ in range(TRIES):
        answer = await query(client, faults.server, script())
        first, second = gaps(faults, stage, answer.run_id)
        assert first >= 0.25 * (1 - JITTER) - TICK_SECONDS and second >= 1 - JITTER - TICK_SECONDS
        pairs.append((first, second))
        if first <= 0.25 * (1 + JITTER) + LATE_SECONDS and second <= 1 + JITTER + LATE_SECONDS:
            return
    raise AssertionError(f"waits of {pairs} s")


@pytest.mark.alone
async def test_a_create_is_tried_within_its_time(faults, client):
    faults.double.inject("create", "status", status=503, times=None)
    answer = await query(client, faults.server, script())
    tries = faults.double.ledger.of_stage("create", answer.run_id)
    assert len(tries) >= 2 and tries[-1].at - tries[0].at <= deadline(3.9 + TICK_SECONDS)


async def test_the_deadline_ends_the_waiting(faults, client):
    faults.double.inject("upload", "status", status=429, retry_after="60", times=None)
    answer = await query(client, faults.server, script(), timeout=5)
    await faults.check_end(answer, "run_timeout")
    assert faults.count("upload", answer.run_id) == 1
    await faults.until_deleted(answer.run_id, 1)


# --- sent once ---


@pytest.mark.parametrize("action", ["reset", "refuse"])
@pytest.mark.parametrize("stage", ["create", "start"])
async def test_what_may_have_arrived_is_not_sent_again_by_libcurl_either(faults, client, stage, action):
    # The worker's pool holds the connection of the run before. Its death is what libcurl would hide by a second POST.
    (await query(client, faults.server, script())).check_complete(3)
    faults.double.inject(stage, action, applied=stage == "create", times=None)
    answer = await query(client, faults.server, script())
    assert answer.error_code in ("sandbox_create_failed", "agent_start_failed")
    assert faults.count(stage, answer.run_id) == 1
    await faults.until_deleted(answer.run_id, 1)


async def test_a_search_leaves_other_runs_alone(faults, client):
    async with open_query(client, faults.server, script(hold="other run", keepalive_ms=500)) as other:
        await faults.double.until(lambda ledger: other.run_id in ledger.open, 5, "the other run's agent")
        faults.double.inject("create", "reset", applied=True)
        answer = await query(client, faults.server, script())
        await faults.until_deleted(answer.run_id, 1)
        assert not faults.double.ledger.sandbox_of(other.run_id).dead
        faults.double.release("other run")
        (await other.rest()).check_complete(3)


# --- words ---


async def refused(faults, client, stage, message, status=400, **fields) -> str:
    """The text a client is told when the service refuses a stage in these words."""
    faults.double.inject(stage, "status", status=status, message=message)
    answer = await query(client, faults.server, script(), **fields)
    text = answer.events[-1]["error"]
    faults.check_text(text)
    return text


@pytest.mark.parametrize("stage", ["create", "upload", "start"])
async def test_a_long_message_is_cut_between_characters(faults, client, stage):
    text = await refused(faults, client, stage, "é" * 5000)
    assert "éééé" in text and "\ufffd" not in text and len(text.encode()) < MESSAGE_MAX_BYTES


@pytest.mark.parametrize("stage", ["create", "upload", "start"])
async def test_a_message_becomes_one_line(faults, client, stage):
    assert "one two  three" in await refused(faults, client, stage, "one\ntwo\r\nthree\x7f")


@pytest.mark.parametrize("stage", ["create", "upload", "start"])
async def test_a_message_shows_no_credentials_of_a_url(faults, client, stage):
    text = await refused(faults, client, stage, "see https://user:hidden@host.example/x?y=a@b and http://tok@en@host:1/")
    assert "see https://host.example/x?y=a@b and http://host:1/" in text


async def test_a_message_shows_no_key(faults, client):
    message = f"team of {faults.double.key} may not send {faults.caller_key}, nor {faults.caller_key}"
    text = await refused(faults, client, "create", message, 403, anthropic_api_key=faults.caller_key)
    assert "team of *** may not send ***, nor ***" in text
    assert faults.caller_key not in faults.log and faults.double.key not in faults.log


async def test_the_log_of_a_try_that_is_repeated_shows_no_key(faults, client):
    message = f"team of {faults.double.key} may not send {faults.caller_key}"
    faults.double.inject("create", "status", status=503, message=message, times=1)
    (await query(client, faults.server, script(), anthropic_api_key=faults.caller_key)).check_complete(3)
    assert "create: try 1 failed: " in faults.log and "team of *** may not send ***" in faults.log
    assert faults.caller_key not in faults.log and faults.double.key not in faults.log


@pytest.mark.parametrize("stage", ["start", "stream"])
async def test_a_message_shows_no_access_token(faults, client, stage):
    faults.double.inject("upload", "hold", gate=f"token of {stage}")
    async with client.stream("POST", f"{faults.server.url}/query", json={"prompt": script()}) as answer:
        run_id = answer.headers["X-Sandstorm-Run-Id"]
        sandbox = await faults.double.until(lambda ledger: ledger.sandbox_of(run_id), 5, "the sandbox")
        words = {"code": "internal", "message": f"token {sandbox.token} is wrong"}
        if stage == "start":
            faults.double.inject("start", "connect_error", **words)
        else:
            faults.double.inject("stream", "error", **words)
        faults.double.release(f"token of {stage}")
        (event,) = [line for line in (await answer.aread()).decode().splitlines() if '"error"' in line]
    assert json.loads(event.removeprefix("data: "))["error"] == "internal: token *** is wrong"


async def test_an_upload_that_fails_names_its_files_and_still_says_why(faults, client):
    files = {f"{number:02}-{'n' * 150}": "x" for number in range(20)}
    text = await refused(faults, client, "upload", "no such owner", files=files)
    assert text.startswith(f"Failed to upload 23 files (00-{'n' * 97}, 01-n") and text.endswith("…) to sandbox: 400: no such owner")
    short = await refused(faults, client, "upload", "no such owner", files={"a/b.txt": "x"})
    assert short.startswith("Failed to upload 4 files (b.txt, ") and short.endswith("agent_config.json) to sandbox: 400: no such owner")


async def test_a_refused_key_is_told_in_the_words_clients_know(faults, client):
    faults.double.inject("create", "status", status=401)
    answer = await query(client, faults.server, script())
    assert await faults.check_end(answer, "e2b_auth") == "401: Unauthorized, please check your credentials."
