"""What the sandbox service can do to a run, stage by stage: every cell of e2b.md A.4 and A.5 for a run's own stages.

Each test has one failure for ever at one stage of one run, and looks at everything that must come of it: the client's
one terminal event, the record, the number of requests, the search for sandboxes nobody knows of, the empty ledger.
"""

import asyncio

import pytest
from fault_table import ROWS, RPC, RPC_STATUS, STREAM, cells, fault_of
from harness.client import open_query, query, script
from harness.record import final_record

ALWAYS = {"times": None}
SERVICE_GONE = {"action": "status", "status": 502, "times": None}
EVENTS = 3
KEEPALIVE_MS = 500  # of an agent that waits for the test
COLUMNS = [(stage, name) for stage in ("create", "upload", "start") for name in cells(stage)]


def check_tries(faults, stage, run_id, cell):
    """So many requests of the stage, none of a later one."""
    faults.check_tries(cell, faults.double.ledger.of_stage(stage, run_id))
    later = ("upload", "start", "collect")[("create", "upload", "start").index(stage) :]
    assert not [other for other in later if faults.count(other, run_id)]


async def check_search(faults, client, run_id, sandboxes):
    """Sandboxes that a create may have left are looked for and deleted; where none can be left, nobody looks."""
    faults.double.forget_faults()
    if sandboxes:
        await faults.double.until(lambda ledger: ledger.of_stage("find", run_id), 5, "a search")
        await faults.until_deleted(run_id, sandboxes)
        return
    # The same worker's next run would come after the search. It also shows that the fault is over.
    (await query(client, faults.server, script())).check_complete(EVENTS)
    assert not faults.count("find", run_id)


@pytest.mark.parametrize(("stage", "name"), COLUMNS, ids=[f"{stage} - {name}" for stage, name in COLUMNS])
async def test_a_failure_ends_the_run(faults, client, stage, name):
    row = ROWS[name]
    cell = getattr(row, stage)
    faults.double.inject(**fault_of(row, stage, None), applied=cell.search)
    if row.gone:
        faults.double.inject("probe", **SERVICE_GONE)
    answer = await query(client, faults.server, script(files={"a.txt": "1"}), anthropic_api_key=faults.caller_key)
    text = await faults.check_end(answer, cell.code)
    assert [event["type"] for event in answer.events] == ["error"]
    check_tries(faults, stage, answer.run_id, cell)
    assert faults.count("probe", answer.run_id) == cell.probe
    if row.action == "status":
        assert f"{row.options['status']}: " in text
    assert cell.text in text
    if stage == "create":
        await check_search(faults, client, answer.run_id, faults.count("create", answer.run_id) * cell.search)
    else:
        await faults.until_deleted(answer.run_id, 1)
        assert not faults.count("find", answer.run_id)


@pytest.mark.parametrize("name", STREAM)
async def test_a_broken_stream_ends_the_run(faults, client, name):
    row = STREAM[name]
    faults.double.inject("stream", row.action, after=2, **row.options)
    if row.gone:
        faults.double.inject("probe", **SERVICE_GONE)
    answer = await query(client, faults.server, script(events=5))
    text = await faults.check_end(answer, row.code)
    assert row.text in (None, text)
    assert [event["seq"] for event in answer.events if "seq" in event] == [0, 1]
    assert faults.count("start", answer.run_id) == 1
    assert faults.count("probe", answer.run_id) == row.probe
    assert faults.count("collect", answer.run_id) == (row.code == "agent_exit")
    assert not faults.count("find", answer.run_id)
    await faults.until_deleted(answer.run_id, 1)


# --- A.5: errors in Connect's words ---


@pytest.mark.parametrize("gone", [False, True], ids=["alive", "gone"])
@pytest.mark.parametrize("form", ["end of stream", "status"])
@pytest.mark.parametrize("code", RPC)
async def test_a_connect_error_before_the_start_event(faults, client, code, form, gone):
    words = "no room\nfor you"
    if form == "status":
        body = '{"code":"%s","message":"no room\\nfor you"}' % code
        faults.double.inject("start", "body", status=RPC_STATUS[code], body=body, **ALWAYS)
    else:
        faults.double.inject("start", "connect_error", code=code, message=words, **ALWAYS)
    if gone:
        faults.double.inject("probe", **SERVICE_GONE)
    answer = await query(client, faults.server, script())
    lost = gone and RPC[code].probe
    text = await faults.check_end(answer, "sandbox_lost" if lost else RPC[code].before)
    assert lost or "no room for you" in text or "401: " in text
    assert (faults.count("start", answer.run_id), faults.count("probe", answer.run_id)) == (1, RPC[code].probe)
    await faults.until_deleted(answer.run_id, 1)


@pytest.mark.parametrize("code", RPC)
async def test_a_connect_error_after_the_start_event(faults, client, code):
    faults.double.inject("stream", "error", after=2, code=code, message="the reason\nin two lines")
    answer = await query(client, faults.server, script(events=5))
    text = await faults.check_end(answer, RPC[code].after)
    if RPC[code].after == "upstream_protocol":
        assert text == f"{code}: the reason in two lines"
    assert faults.count("start", answer.run_id) == 1
    await faults.until_deleted(answer.run_id, 1)


# --- failures that pass ---


PASSING = ["409", "429 with Retry-After", "429 without", "500", "500 page", "503", "504", "reset", "short body"]
SURVIVED = [
    (stage, name)
    for stage, names in {
        "create": ["429 with Retry-After", "500", "503", "504"],
        "upload": [*PASSING, "502 not found"],
        "start": ["409", "429 with Retry-After", "429 without", "502 not found"],
    }.items()
    for name in names
]


@pytest.mark.parametrize(("stage", "name"), SURVIVED, ids=[f"{stage} - {name}" for stage, name in SURVIVED])
async def test_a_failure_that_passes_is_survived(faults, client, stage, name):
    rule = faults.double.inject(**fault_of(ROWS[name], stage, 1))
    answer = await query(client, faults.server, script(events=5))
    answer.check_complete(5)
    assert (rule.fired, faults.count(stage, answer.run_id)) == (1, 2)
    assert (await final_record(faults.server, answer.run_id)).outcome == "completed"


async def test_the_sandbox_of_a_first_create_is_found_while_the_second_works(faults, client):
    faults.double.inject("create", "status", status=503, applied=True)
    async with open_query(client, faults.server, script(hold="until found", keepalive_ms=KEEPALIVE_MS)) as stream:

        def one_left(ledger):
            made = [sandbox for sandbox in ledger.created() if sandbox.run_id == stream.run_id]
            return len(made) == 2 and [bool(sandbox.deleted_at) for sandbox in made] == [True, False]

        await faults.double.until(one_left, 10, "the deletion of the first sandbox alone")
        faults.double.release("until found")
        (await stream.rest()).check_complete(EVENTS)
    await faults.until_deleted(stream.run_id, 2)


def answered(stage, run_id):
    """A condition: a request of this stage has its answer, and no other waits for one."""

    def condition(ledger):
        requests = ledger.of_stage(stage, run_id)
        return requests and all(request.answered_at for request in requests)

    return condition


async def test_a_client_that_leaves_between_two_creates_leaves_no_sandbox(faults, client):
    faults.double.inject("create", "status", status=503, applied=True, times=None)
    async with open_query(client, faults.server, script()) as stream:
        await faults.double.until(answered("create", stream.run_id), 10, "the answer to the first create")
    assert (await final_record(faults.server, stream.run_id)).code == "client_gone"
    # Had it been slow to leave, a second create was under way: it is answered before anybody looks for sandboxes.
    await faults.double.until(answered("find", stream.run_id), 10, "a search")
    await faults.until_deleted(stream.run_id, faults.count("create", stream.run_id))


# --- the run's own time ---


SLOW_STAGES = {"create": "hold", "upload": "silence", "start": "silence", "stream": "hold"}


async def test_the_deadline_ends_a_run_in_every_stage(double, start_server, client):
    """All at once: each run hangs at one stage until 5 s are over, for create those of the setting `timeout`."""
    server = start_server("--timeout", "5")
    for stage, action in SLOW_STAGES.items():
        double.inject(stage, action, gate="late", marker=f"slow-{stage}")
    runs = [
        query(client, server, script(marker=f"slow-{stage}"), timeout=5, anthropic_api_key=f"key-slow-{stage}")
        for stage in SLOW_STAGES
    ]
    answers = await asyncio.gather(*runs)
    double.release("late")
    for stage, answer in zip(SLOW_STAGES, answers, strict=True):
        assert (answer.error_code, answer.events[-1]["error"]) == ("run_timeout", "run exceeded its timeout of 5 s"), stage
        assert (await final_record(server, answer.run_id)).code == "run_timeout"
        stages = [entry.stage for entry in double.ledger.of_run(answer.run_id) if entry.stage in SLOW_STAGES]
        assert stages == list(SLOW_STAGES)[: 1 + min(list(SLOW_STAGES).index(stage), 2)]


@pytest.mark.parametrize("action", ["reset", "eof"])
async def test_a_stream_lost_at_the_end_of_life_is_a_timeout(faults, client, action):
    # The time to live is lowered to the run's own timeout: 5 s. What is lost in its last two seconds was its end.
    faults.double.inject("create", "status", status=400, message="Timeout cannot be greater than 1 hours")
    faults.double.inject("stream", action, after=2)
    answer = await query(client, faults.server, script(events=3, interval_ms=3200, keepalive_ms=500), timeout=5)
    await faults.check_end(answer, "run_timeout")


# --- neighbours ---


async def test_a_fault_of_one_run_is_not_its_neighbours(double, server, client):
    double.inject("stream", "reset", marker="the unlucky", after=1)
    lucky, unlucky = await asyncio.gather(
        query(client, server, script(events=30, interval_ms=5, marker="lucky")),
        query(client, server, script(events=30, interval_ms=5, marker="the unlucky one")),
    )
    lucky.check_complete(30)
    assert unlucky.error_code == "sandbox_lost"
