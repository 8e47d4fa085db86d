"""GET /runs, GET /runs/{id}, POST /runs/{id}/cancel: any worker answers for all (http-api.md 10, 16.1)."""

import asyncio
import itertools
import json
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

import httpx
import pytest
from harness import procfs
from harness.client import new_client, open_query, query, script
from harness.record import RECORD_KEYS
from harness.server import seconds_since
from harness.waiting import deadline, eventually, eventually_async

ACT_SECONDS = 0.25
TRIES = 5
MANY = 400
MANY_ACT_SECONDS = 1.0
AT_ONCE = 32


async def get(client, server, path="/runs", **params):
    """An answer, with its JSON."""
    answer = await client.get(f"{server.url}{path}", params=params)
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    return answer


async def record(client, server, run_id: str) -> dict:
    """The record of a run."""
    answer = await get(client, server, f"/runs/{run_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def cancel(client, server, run_id: str) -> httpx.Response:
    """Asks for the end of a run."""
    return await client.post(f"{server.url}/runs/{run_id}/cancel")


@contextmanager
def only(server, worker: int):
    """While all other workers are stopped: one that is not yet could take a connection and stop with it."""
    others = server.workers() - {worker}
    for pid in others:
        server.signal(signal.SIGSTOP, pid)
        eventually(lambda pid=pid: procfs.stat_fields(pid)[0] == "T", 5, "a worker to stop")
    try:
        yield
    finally:
        for pid in others:
            server.signal(signal.SIGCONT, pid)


@asynccontextmanager
async def held_runs(double, client, server, count: int, **fields):
    """Runs whose agents wait, each as a task that reads its stream to the end."""
    before = set(double.ledger.open)  # an ended one may still be among them
    tasks = [asyncio.create_task(query(client, server, script(events=1, hold="never", hold_after=1, marker=str(n)), **fields)) for n in range(count)]
    await double.until(lambda ledger: len(ledger.open - before) == count, 30, f"{count} agents")
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- records --------------------------------------------------------------------------------------------


async def test_a_record_says_what_a_run_was(double, server, client):
    fields = {"model": "m-1", "max_turns": 3, "timeout": 30, "files": {"a//b.txt": "é"}, "allowed_tools": ["Read"],
              "team_id": "t", "user_id": "u", "channel_id": "c"}  # fmt: skip
    prompt = script(events=2, interval_ms=50)
    begin = time.monotonic()
    answer = await query(client, server, prompt, **fields)
    taken = seconds_since(begin)
    found = await record(client, server, answer.run_id)
    assert list(found) == RECORD_KEYS
    result = answer.of_type("result")[0]
    started, ended = (datetime.fromisoformat(found.pop(key)) for key in ("started_at", "ended_at"))
    assert 0.1 <= (ended - started).total_seconds() <= taken + 0.01
    assert 0.1 <= found.pop("duration_secs") <= taken + 0.01
    assert found.pop("model") in ("m-1", *[event["model"] for event in answer.events if event.get("subtype") == "init"])
    assert found.pop("agent_session_id") == result.get("session_id")
    sandbox = double.ledger.sandbox_of(answer.run_id)
    assert found == {
        "id": answer.run_id, "prompt": prompt[:100], "status": "completed", "cost_usd": result["total_cost_usd"],
        "num_turns": result["num_turns"], "error": None, "files_count": 1, "feedback": None, "feedback_user": None,
        "raw_prompt": prompt, "sandbox_id": sandbox.id, "team_id": "t", "user_id": "u", "channel_id": "c",
        "thread_ts": None,
        "config_snapshot": {"model": "m-1", "max_turns": 3, "timeout": 30, "allowed_tools": ["Read"], "files": {"a/b.txt": 2}},
        "error_code": None, "result_subtype": "success", "exit_code": 0, "prompt_truncated": False, "trigger": None,
        "runtime": "e2b",
    }  # fmt: skip


async def test_a_live_run_is_in_the_list_as_soon_as_its_headers_are_seen(double, server, client):
    double.inject("create", "hold", gate="create")
    async with open_query(client, server, script()) as stream:
        (found,) = (await get(client, server)).json()
        assert (found["id"], found["status"], found["duration_secs"], found["ended_at"]) == (stream.run_id, "running", None, None)
        double.release("create")
        await stream.rest()
    assert (await record(client, server, stream.run_id))["status"] == "completed"


async def test_the_record_is_final_before_the_last_byte(double, start_server, client):
    server = start_server(workers=4)
    for _ in range(20):
        answer = await query(client, server, script(events=1))
        assert (await record(client, server, answer.run_id))["status"] == "completed"


ENDS = {
    "result": ({"result": {"subtype": "error_max_turns", "is_error": True}}, "error", "agent_result", None, 0),
    "error line": ({"error": "no key", "exit": 1}, "error", "agent_error", "no key", 1),
    "exit without a result": ({"result": False, "exit": 3}, "error", "agent_exit",
                              "agent exited with code 3 before it gave a result", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
async def test_how_a_run_ended_is_in_its_record(double, server, client, name):
    fields, status, code, text, exit_code = ENDS[name]
    answer = await query(client, server, script(**fields))
    found = await record(client, server, answer.run_id)
    assert (found["status"], found["error_code"], found["error"]) == (status, code, text)
    assert found["exit_code"] == exit_code


async def test_a_client_that_leaves_is_in_the_record(double, server, client):
    async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()

    async def ended() -> bool:
        return (await record(client, server, stream.run_id))["status"] != "running"

    await eventually_async(ended, 5, "the end of the run")
    found = await record(client, server, stream.run_id)
    assert (found["status"], found["error_code"]) == ("cancelled", "client_gone")


async def test_prompts_can_be_left_out(double, start_server, client):
    server = start_server("--store-prompts", "off")
    answer = await query(client, server, "the secret plan")
    found = await record(client, server, answer.run_id)
    assert (found["prompt"], found["raw_prompt"], found["prompt_truncated"]) == ("", "", True)
    assert not [path for path in server.cwd.rglob("*") if path.is_file() and b"secret plan" in path.read_bytes()]


async def test_long_prompts_are_cut_in_records_and_shorter_in_lists(double, server, client):
    prompt = "✓" * 50000
    answer = await query(client, server, prompt)
    whole = await record(client, server, answer.run_id)
    assert whole["prompt"] == prompt[:100]
    assert whole["raw_prompt"] == prompt[: 65536 // 3] and whole["prompt_truncated"]
    (listed,) = (await get(client, server)).json()
    assert listed["raw_prompt"] == prompt[: 4096 // 3]


# --- lists ----------------------------------------------------------------------------------------------


async def test_lists_are_newest_first_filtered_and_paged(double, server, client):
    done = [(await query(client, server, script(marker=str(n)))).run_id for n in range(3)]
    failed = (await query(client, server, script(result=False))).run_id
    async with held_runs(double, client, server, 1):
        everything = [run["id"] for run in (await get(client, server)).json()]
        assert everything[1:] == [failed, *reversed(done)]
        assert [run["id"] for run in (await get(client, server, limit="2")).json()] == everything[:2]
        assert [run["id"] for run in (await get(client, server, before=done[1])).json()] == [done[0]]
        assert [run["id"] for run in (await get(client, server, status="running")).json()] == everything[:1]
        assert [run["id"] for run in (await get(client, server, status="error")).json()] == [failed]
        assert [run["id"] for run in (await get(client, server, status="completed", limit=1, unknown=1)).json()] == [done[2]]
        assert (await get(client, server, status="cancelled")).json() == []


def fault(kind, parameter, message, ctx=None):
    """One entry of a 422."""
    entry = {"type": kind, "loc": ["query", parameter], "msg": message}
    return entry | ({"ctx": ctx} if ctx is not None else {})


BAD = {
    "limit=0": fault("greater_than_equal", "limit", "Input should be greater than or equal to 1", {"ge": 1}),
    "limit=1001": fault("less_than_equal", "limit", "Input should be less than or equal to 1000", {"le": 1000}),
    "limit=99999999999999999999": fault("less_than_equal", "limit", "Input should be less than or equal to 1000", {"le": 1000}),
    "limit=ten": fault("int_parsing", "limit", "Input should be a valid integer, unable to parse string as an integer"),
    "limit=": fault("int_parsing", "limit", "Input should be a valid integer, unable to parse string as an integer"),
    "status=done": fault("literal_error", "status", "Input should be 'running', 'completed', 'error' or 'cancelled'",
                         {"expected": "'running', 'completed', 'error' or 'cancelled'"}),
    "before=0123456789abcdef": fault("value_error", "before", "Value error, Unknown run id", {"error": {}}),
    "before=x": fault("value_error", "before", "Value error, Unknown run id", {"error": {}}),
}  # fmt: skip


@pytest.mark.parametrize("query_string", BAD)
async def test_a_bad_parameter_is_named(double, server, client, query_string):
    answer = await client.get(f"{server.url}/runs?{query_string}")
    assert (answer.status_code, answer.json()) == (422, {"detail": [BAD[query_string]]})


async def test_all_bad_parameters_are_named_in_order_and_the_last_of_a_kind_counts(double, server, client):
    answer = await client.get(f"{server.url}/runs?before=x&status=y&limit=0&limit=%30")
    assert [entry["loc"][1] for entry in answer.json()["detail"]] == ["limit", "status", "before"]
    assert (await client.get(f"{server.url}/runs?limit=0&limit=+7+")).json() == []


async def test_unknown_runs(double, server, client):
    for run_id in ("0123456789abcdef", "0123456789ABCDEF", "x", "%2E"):
        answer = await client.get(f"{server.url}/runs/{run_id}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Unknown run id"}), run_id
    answer = await cancel(client, server, "0123456789abcdef")
    assert (answer.status_code, answer.json()) == (404, {"error": "unknown run_id"})


async def test_history_is_bounded_and_live_runs_are_never_forgotten(double, start_server, client):
    server = start_server("--run-history", "3")
    async with held_runs(double, client, server, 1):
        live = (await get(client, server)).json()[0]["id"]
        ended = [(await query(client, server, script(marker=str(n)))).run_id for n in range(6)]
        assert [run["id"] for run in (await get(client, server)).json()] == [*reversed(ended[-3:]), live]
        assert (await client.get(f"{server.url}/runs/{ended[0]}")).status_code == 404


async def test_hostile_texts_are_data(double, server, client):
    prompt = '"><img src=x onerror=alert(1)>\u2028\u0000\x7f \U0001f642'
    answer = await query(client, server, prompt, team_id="a\u0000b", user_id="\ufeff" + "ä" * 200)
    found = await record(client, server, answer.run_id)
    assert (found["prompt"], found["raw_prompt"], found["team_id"]) == (prompt, prompt, "a\u0000b")
    assert found["user_id"] == "\ufeff" + "ä" * 62


# --- cancels --------------------------------------------------------------------------------------------


async def acts_at_once(attempt: Callable[[], Awaitable[float]]) -> None:
    """One of some attempts takes no longer than promised: a busy machine can only make it later."""
    taken: list[float] = []
    while not taken or (taken[-1] >= deadline(ACT_SECONDS) and len(taken) < TRIES):
        taken.append(await attempt())
    assert taken[-1] < deadline(ACT_SECONDS), taken


@pytest.mark.alone
@pytest.mark.parametrize("stage", ["create", "upload", "start"])
async def test_a_cancel_acts_at_once_in_every_state(double, server, client, stage):
    gates = itertools.count()
    later = {"create": "upload", "upload": "start", "start": "collect"}[stage]

    async def attempt() -> float:
        gate = f"held {next(gates)}"
        double.inject(stage, "hold", gate=gate)
        async with open_query(client, server, script()) as stream:
            await double.until(lambda ledger: ledger.of_stage(stage, stream.run_id), 5, f"the {stage}")
            begin = time.monotonic()
            answer = await cancel(client, server, stream.run_id)
            assert (answer.status_code, answer.json()) == (200, {"status": "cancelling", "run_id": stream.run_id})
            ended = await stream.rest()
            seconds = seconds_since(begin)
        assert (ended.error_code, ended.events[-1]["error"]) == ("cancelled", "cancelled by user")
        double.release(gate)
        found = await record(client, server, stream.run_id)
        assert (found["status"], found["error_code"], found["error"]) == ("cancelled", "cancelled", "cancelled by user")
        await double.until(lambda ledger: ledger.created() and not ledger.alive(), 5, "the deletion")
        assert not double.ledger.of_stage(later)
        return seconds

    await acts_at_once(attempt)


@pytest.mark.alone
async def test_a_cancel_ends_a_talking_agent(double, server, client):
    async def attempt() -> float:
        async with open_query(client, server, script(events=1000, interval_ms=5)) as stream:
            await stream.next_numbered()
            begin = time.monotonic()
            assert (await cancel(client, server, stream.run_id)).status_code == 200
            ended = await stream.rest()
        assert ended.error_code == "cancelled"
        await double.until(lambda ledger: ledger.of_stage("kill", stream.run_id), 5, "the deletion")
        return double.ledger.of_stage("kill", stream.run_id)[0].at - begin

    await acts_at_once(attempt)


async def test_a_cancel_is_repeated_and_too_late(double, server, client):
    async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
        for _ in range(2):
            assert (await cancel(client, server, stream.run_id)).status_code == 200
        await stream.rest()
    again = await cancel(client, server, stream.run_id)
    assert (again.status_code, again.json()["status"]) == (200, "cancelling")
    for wanted, fields in (("completed", {}), ("error", {"result": False})):
        ended = await query(client, server, script(**fields))
        late = await cancel(client, server, ended.run_id)
        assert (late.status_code, late.json()) == (409, {"error": f"run status is {wanted}, cannot cancel"})


async def test_a_cancel_after_the_result_adds_no_event(double, server, client):
    async with open_query(client, server, script(linger="never", files={"a.txt": "x"})) as stream:
        while json.loads(await stream.next())["type"] != "result":
            pass
        assert (await cancel(client, server, stream.run_id)).status_code == 200
        ended = await stream.rest()
    assert ended.events[-1]["type"] == "result" and not ended.of_type("file")
    found = await record(client, server, stream.run_id)
    assert (found["status"], found["error_code"], found["num_turns"]) == ("cancelled", "cancelled", 1)


@pytest.mark.alone
async def test_a_draining_worker_obeys_a_cancel(double, start_server, client):
    async def attempt() -> float:
        server = start_server(workers=2)
        async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
            await stream.next_numbered()
            server.signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_log, "generation 1 drains")
            begin = time.monotonic()
            assert (await cancel(client, server, stream.run_id)).status_code == 200
            assert (await stream.rest()).error_code == "cancelled"
            seconds = seconds_since(begin)
        assert (await record(client, server, stream.run_id))["status"] == "cancelled"
        return seconds

    await acts_at_once(attempt)


@pytest.mark.alone
async def test_400_runs_are_listed_and_cancelled_by_any_of_4_workers(double, start_server, client):
    server = start_server("--max-runs", "1000", workers=4)
    async with held_runs(double, client, server, MANY) as tasks, new_client() as operator:
        ids = set()
        for worker in server.workers():
            with only(server, worker):
                listed = (await get(operator, server, status="running", limit=1000)).json()
            assert len(listed) == MANY
            ids = {run["id"] for run in listed}
        asked: dict[str, float] = {}
        turn = asyncio.Semaphore(AT_ONCE)  # what waits in this client has not asked yet

        async def ask(run_id: str) -> int:
            async with turn:
                asked[run_id] = time.monotonic()
                return (await cancel(operator, server, run_id)).status_code

        assert set(await asyncio.gather(*(ask(run_id) for run_id in ids))) == {200}
        ended = await asyncio.gather(*tasks)
        assert {answer.error_code for answer in ended} == {"cancelled"}
        listed = (await get(operator, server, status="cancelled", limit=1000)).json()
        assert {run["id"] for run in listed} == ids
        await double.until(lambda ledger: len(ledger.of_stage("kill")) == MANY, 10, "the deletions")
        late = sorted(entry.at - asked[entry.run_id] for entry in double.ledger.of_stage("kill"))
        # A moment's stall of the machine holds up what is under way then, here and there, and nothing else.
        assert late[-2 * AT_ONCE] < deadline(MANY_ACT_SECONDS), late


# --- keys -----------------------------------------------------------------------------------------------


async def test_runs_are_private_when_there_is_a_key(double, start_server, client):
    key = "k" * 32
    server = start_server(env={"SANDSTORM_API_KEY": key})
    for method, path in (("GET", "/runs"), ("GET", "/runs/0123456789abcdef"), ("POST", "/runs/0123456789abcdef/cancel")):
        refused = await client.request(method, server.url + path)
        assert (refused.status_code, refused.json()) == (401, {"detail": "Not authenticated"})
        allowed = await client.request(method, server.url + path, headers={"Authorization": f"Bearer {key}"})
        assert allowed.status_code in (200, 404)
    assert not re.search(key, server.stderr)
