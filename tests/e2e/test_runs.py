"""A run from the request to the deletion of its sandbox."""

import asyncio
import json
import re

from harness import procfs
from harness.client import new_client, query, script
from harness.server import memory_slack_kib
from harness.waiting import eventually_async

AGENT_CONFIG = "/opt/agent-runner/agent_config.json"
RUNS = 200
AT_ONCE = 50
# What malloc keeps for a next burst is no leak: a second burst like the first may add no more than this.
SETTLED_KIB = 1024


async def test_two_round_trips_before_the_agent_starts(double, server, client):
    answer = await query(client, server, "hello")
    assert double.ledger.round_trips_before_start(answer.run_id) == ["create", "upload"]
    (started,) = double.ledger.of_stage("start", answer.run_id)
    assert started.command == "node /opt/agent-runner/runner.mjs"


async def test_the_stream_has_its_headers_and_run_id(server, client):
    answer = await query(client, server, "hello")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Connection"].lower() == "close"
    assert answer.headers["Server"] == "sandstorm"
    assert re.fullmatch("[0-9a-f]{16}", answer.run_id)


async def test_the_headers_leave_before_the_sandbox_exists(double, server, client):
    double.inject("create", "hold", gate="create")
    async with client.stream("POST", f"{server.url}/query", json={"prompt": "hello"}) as answer:
        assert answer.status_code == 200
        assert not double.ledger.created()
        double.release("create")
        text = (await answer.aread()).decode()
    assert '"type":"result"' in text


async def test_the_sandbox_is_made_for_this_run(double, server, client):
    answer = await query(client, server, "hello", timeout=7)
    sandbox = double.ledger.sandbox_of(answer.run_id)
    assert sandbox.template == "sandstorm"
    assert sandbox.ttl == 7 + 60
    assert sandbox.metadata["sandstorm_instance"] == "e2e"
    assert sandbox.env["ANTHROPIC_API_KEY"] == "test-key"


async def test_keys_of_the_request_win_and_stay_out_of_the_config(double, server, client):
    answer = await query(client, server, "hello", anthropic_api_key="sk-of-the-caller")
    sandbox = double.ledger.sandbox_of(answer.run_id)
    assert sandbox.env["ANTHROPIC_API_KEY"] == "sk-of-the-caller"
    assert b"sk-of-the-caller" not in sandbox.files[AGENT_CONFIG]
    assert "sk-of-the-caller" not in server.stderr


async def test_the_agent_gets_its_configuration_and_files(double, server, client):
    files = {"in/data.csv": "a,b\né,2\n", "top.txt": ""}
    prompt = 'say "hi"\n\u2028 \U0001f642 \x00'
    answer = await query(client, server, prompt, model="m-1", max_turns=3, timeout=30, files=files)
    uploaded = double.ledger.sandbox_of(answer.run_id).files
    assert uploaded["/home/user/in/data.csv"].decode() == files["in/data.csv"]
    assert uploaded["/home/user/top.txt"] == b""
    assert b"query" in uploaded["/opt/agent-runner/runner.mjs"]
    assert json.loads(uploaded["/home/user/.claude/settings.json"])["permissions"] == {"allow": [], "deny": []}
    config = json.loads(uploaded[AGENT_CONFIG])
    wanted = {"prompt": prompt, "cwd": "/home/user", "model": "m-1", "max_turns": 3, "timeout": 30, "has_skills": False}
    assert {name: config[name] for name in wanted} == wanted
    assert {name for name, value in config.items() if value is None} == {
        "system_prompt", "output_format", "agents", "mcp_servers", "allowed_tools", "resume", "fork_session",
        "max_budget_usd",
    }  # fmt: skip


async def test_file_names_that_cannot_travel_in_a_part_header_still_arrive(double, server, client):
    files = {'say "hi".txt': "1", "back\\slash.txt": "2", "ünï.txt": "3", "line\nbreak.txt": "4"}
    answer = await query(client, server, "hello", files=files)
    uploaded = double.ledger.sandbox_of(answer.run_id).files
    assert {f"/home/user/{name}": text.encode() for name, text in files.items()}.items() <= uploaded.items()
    assert answer.events[-1]["type"] == "result"


async def test_a_timeout_over_the_cap_is_lowered_with_a_warning(double, start_server, client):
    server = start_server("--timeout", "20")
    answer = await query(client, server, "hello", timeout=3600)
    (warning,) = answer.of_type("warning")
    assert (warning["code"], warning["request_id"]) == ("timeout_capped", answer.run_id)
    assert "3600" in warning["message"] and "20" in warning["message"]
    assert double.ledger.sandbox_of(answer.run_id).ttl == 80


async def test_200_runs_lose_nothing_and_leave_nothing(double, server, client):
    workers = server.workers()
    await burst(server, client, RUNS)
    await double.until(lambda ledger: not ledger.alive(), 10, "200 deletions")
    assert len(double.ledger.created()) == len(double.ledger.deleted()) == RUNS
    assert server.workers() == workers


async def test_memory_goes_back_after_200_runs(start_server, client):
    server = start_server(workers=1)  # one worker takes every burst whole: two are then alike
    (worker,) = server.workers()
    await burst(server, client, RUNS)
    before = procfs.private_kib(worker)
    await burst(server, client, RUNS)
    await eventually_async(
        lambda: procfs.private_kib(worker) <= before + memory_slack_kib(SETTLED_KIB),
        5,
        f"the worker to go back to {before} KiB, it has {procfs.private_kib(worker)}",
    )


async def burst(server, client, runs: int) -> None:
    """Some runs, AT_ONCE at a time; every event of each must arrive once and in order."""
    gate = asyncio.Semaphore(AT_ONCE)
    shapes = [{}, {"split": 13}, {"pack": 5}, {"batch": 4}, {"dribble": 301}]

    async def one(number: int):
        async with gate:
            prompt = script(events=20, bytes=200, interval_ms=2, marker=f"run-{number}", **shapes[number % len(shapes)])
            answer = await query(client, server, prompt)
            answer.check_complete(20)
            return answer.run_id

    run_ids = await asyncio.gather(*(one(number) for number in range(runs)))
    assert len(set(run_ids)) == runs


async def test_runs_are_refused_at_the_limit(double, start_server, client):
    server = start_server("--max-runs", "2")
    held = [asyncio.create_task(query(client, server, script(hold="go"))) for _ in range(2)]
    await double.until(lambda ledger: ledger.open_streams() == 2, 10, "two agents")
    refused = await client.post(f"{server.url}/query", json={"prompt": "one too many"})
    assert (refused.status_code, refused.json()) == (503, {"detail": "Too many concurrent runs"})
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert len(double.ledger.created()) == 2
    double.release("go")
    for answer in await asyncio.gather(*held):
        answer.check_complete(3)
    (await query(client, server, script())).check_complete(3)


async def test_idle_connections_to_the_service_may_die_between_runs(double, server):
    async with new_client() as client:
        for _ in range(6):
            (await query(client, server, script())).check_complete(3)
            double.drop_idle()
    assert len(double.ledger.of_stage("start")) == 6
