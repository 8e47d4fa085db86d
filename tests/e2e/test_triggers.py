"""Triggers: webhooks that start runs nobody waits for, and schedules that fire once in the whole instance (http-api.md 14)."""

import json
import re
import signal
import time
from datetime import datetime

import pytest
from harness.client import script
from harness.record import final_record
from harness.rules import check_json
from harness.server import run_program
from harness.waiting import deadline, eventually_async

AGENT_CONFIG = "/opt/agent-runner/agent_config.json"
SECRET = {"X-Sandstorm-Trigger-Secret": "s3cret, of any printable bytes"}
HOOK = {
    "name": "hook",
    "type": "webhook",
    "path": "/hooks/push",
    "secret": "${HOOK_SECRET}",
    "prompt": "Look at {{ body.ref }} of {{body.commits.0.author}} by {{headers.x-event}}{{headers.authorization}}",
}
ENVIRONMENT = {"HOOK_SECRET": SECRET["X-Sandstorm-Trigger-Secret"]}
TAKEOVER_SECONDS = 5


@pytest.fixture
def start(start_server, tmp_path):
    """start(trigger, …, **fields of sandstorm.json): a server with these triggers."""
    folder = tmp_path / "project"
    folder.mkdir()

    def start_once(*triggers, args=(), env=None, workers=2, ready=True, **fields):
        write(folder, *triggers, **fields)
        start_once.began = int(time.time())
        return start_server("--project-dir", folder, *args, env=ENVIRONMENT | (env or {}), workers=workers, ready=ready)

    start_once.folder = folder
    return start_once


def write(folder, *triggers, **fields) -> None:
    """A new sandstorm.json, as an editor writes it."""
    (folder / "new").write_text(json.dumps({"triggers": triggers} | fields))
    (folder / "new").rename(folder / "sandstorm.json")


def cron(name: str, schedule: str = "* * * * * *", **fields) -> dict:
    """A cron trigger whose agent ends at once, if the script says nothing else."""
    return {"name": name, "type": "cron", "schedule": schedule, "prompt": script(**fields)}


async def records(client, server, trigger: str) -> list[dict]:
    """The runs of a trigger, the oldest first."""
    found = (await client.get(f"{server.url}/runs", params={"limit": 200})).json()
    return [record for record in reversed(found) if record["trigger"] == trigger]


async def metric(client, server, name: str) -> float:
    """A counter, which need not have counted yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", (await client.get(f"{server.url}/metrics")).text, re.MULTILINE)
    return float(found[1]) if found else 0


# --- webhooks -------------------------------------------------------------------------------------------


async def test_a_webhook_starts_a_run_that_nobody_waits_for(start, double, client):
    server = start(HOOK, model="m-7", max_turns=4, output_format={"type": "json_schema"})
    body = {"ref": "<main>", "commits": [{"author": "Ada & Co"}]}
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET | {"X-Event": "push", "Authorization": "Bearer x"}, json=body)
    check_json(answer, 202, {"status": "accepted", "trigger": "hook"})
    run_id = answer.headers["X-Sandstorm-Run-Id"]
    assert (await final_record(server, run_id)).outcome == "completed"
    (record,) = await records(client, server, "hook")
    assert (record["id"], record["team_id"], record["user_id"], record["model"]) == (run_id, "__trigger__", "hook", "m-7")
    assert record["raw_prompt"] == (
        'Look at <trigger_value path="body.ref">&lt;main&gt;</trigger_value> of '
        '<trigger_value path="body.commits.0.author">Ada &amp; Co</trigger_value> by '
        '<trigger_value path="headers.x-event">push</trigger_value>'
    )
    sandbox = double.ledger.sandbox_of(run_id)
    config = json.loads(sandbox.files[AGENT_CONFIG])
    assert (config["prompt"], config["output_format"], config["max_turns"]) == (record["raw_prompt"], None, 4)
    await double.until(lambda ledger: not ledger.alive(), 5, "the deletion")
    assert not [entry for entry in double.ledger.entries if entry.stage in ("read", "find")], "nothing is collected"


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Sandstorm-Trigger-Secret": ""}, {"X-Sandstorm-Trigger-Secret": "wrong"}, {"Authorization": "Bearer the-bearer-of-this-server-0123456789"}],
    ids=["none", "empty", "wrong", "the bearer"],
)
async def test_without_its_secret_nothing_is_started(start, double, client, headers):
    server = start(HOOK, env={"SANDSTORM_API_KEY": "the-bearer-of-this-server-0123456789"})
    for content in (b'{"ref": "x"}', b"not JSON", b"x" * 100_000):
        answer = await client.post(f"{server.url}/hooks/push", headers=headers, content=content)
        check_json(answer, 401, {"error": "invalid trigger secret"})
    assert not double.ledger.sandboxes
    assert ENVIRONMENT["HOOK_SECRET"] not in server.stderr


async def test_the_bearer_is_not_for_webhooks(start, client):
    server = start(HOOK, env={"SANDSTORM_API_KEY": "the-bearer-of-this-server-0123456789"})
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
    assert answer.status_code == 202
    found = await client.get(f"{server.url}/runs/{answer.headers['X-Sandstorm-Run-Id']}")
    assert found.status_code == 401


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1,]", b"NaN", b"[" * 500 + b"]" * 500], ids=repr)
async def test_a_body_that_is_no_json(start, client, body):
    server = start(HOOK)
    headers = SECRET | {"Content-Type": "application/json"}
    check_json(await client.post(f"{server.url}/hooks/push", headers=headers, content=body), 400, {"error": "invalid JSON body"})


async def test_json_is_taken_whatever_its_type(start, client):
    server = start(HOOK | {"prompt": "[{{body.raw}}]"})
    for body in (b"7", b'"x"', b" [1, 2]\n", b"{}", b"null"):
        headers = SECRET | {"Content-Type": "text/plain"}
        answer = await client.post(f"{server.url}/hooks/push", headers=headers, content=body)
        assert answer.status_code == 202
        await final_record(server, answer.headers["X-Sandstorm-Run-Id"])
    prompts = [record["raw_prompt"] for record in await records(client, server, "hook")]
    wrapped = '[<trigger_value path="body.raw">%s</trigger_value>]'
    assert prompts == [wrapped % "7", wrapped % "x", wrapped % "[1, 2]", "[]", "[]"]


async def test_other_methods_and_paths_are_those_of_every_route(start, client):
    server = start(HOOK)
    answer = await client.get(f"{server.url}/hooks/push", headers=SECRET)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = await client.post(f"{server.url}/hooks/push/", headers=SECRET)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{server.url}/hooks/push")
    for path in ("/hooks", "/hooks/push/x", "/hooks%2Fpush"):
        assert (await client.post(f"{server.url}{path}", headers=SECRET)).status_code == 404


async def test_a_prompt_that_grows_too_long(start, double, client):
    server = start(HOOK | {"prompt": "{{body.x}}" * 20})
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={"x": "é" * 60_000})
    check_json(answer, 413, {"error": "prompt too long"})
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={"x": "y" * 4_000_000})
    check_json(answer, 413, {"error": "prompt too long"})
    assert not double.ledger.sandboxes


async def test_a_full_server_asks_to_come_again(start, double, client):
    server = start(HOOK | {"prompt": script(events=1, hold="go")}, args=("--max-runs", 1))
    first = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
    assert first.status_code == 202
    second = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
    assert (second.status_code, second.json()) == (503, {"detail": "Too many concurrent runs"})
    assert 1 <= int(second.headers["Retry-After"]) <= 30
    await double.until(lambda ledger: ledger.open_streams() == 1, 10, "the agent")
    double.release("go")
    assert (await final_record(server, first.headers["X-Sandstorm-Run-Id"])).outcome == "completed"


async def test_a_run_of_a_trigger_is_cancelled_like_every_run(start, double, client):
    server = start(HOOK | {"prompt": script(events=1, hold="never", hold_after=1)})
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
    run_id = answer.headers["X-Sandstorm-Run-Id"]
    await double.until(lambda ledger: ledger.open_streams() == 1, 10, "the agent")
    assert (await client.post(f"{server.url}/runs/{run_id}/cancel")).status_code == 200
    assert (await final_record(server, run_id)).code == "cancelled"


async def test_a_stop_waits_for_the_runs_of_triggers(start, double, client):
    server = start(HOOK | {"prompt": script(events=1, hold="go", hold_after=1)})
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
    run_id = answer.headers["X-Sandstorm-Run-Id"]
    await double.until(lambda ledger: ledger.open_streams() == 1, 10, "the agent")
    server.signal(signal.SIGTERM)
    await eventually_async(lambda: "draining 1 runs" in server.stderr, 5, "the drain")
    double.release("go")
    await eventually_async(lambda: not server.running, 15, "the end")
    assert f"run {run_id} ended outcome=completed" in server.stderr


async def test_without_credentials_the_record_says_so(start, double, client):
    server = start(HOOK, env={"ANTHROPIC_API_KEY": None})
    answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
    assert answer.status_code == 202
    record = await final_record(server, answer.headers["X-Sandstorm-Run-Id"])
    assert (record.outcome, record.code) == ("error", "config_error")
    (found,) = await records(client, server, "hook")
    assert found["error"].startswith("anthropic_api_key is required")
    assert not double.ledger.sandboxes


# --- configuration --------------------------------------------------------------------------------------


async def test_triggers_are_those_of_the_start_or_reload(start, client):
    server = start(HOOK)
    write(start.folder, HOOK | {"path": "/elsewhere"})
    assert (await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})).status_code == 202
    assert (await client.post(f"{server.url}/elsewhere", headers=SECRET, json={})).status_code == 404
    await eventually_async(lambda: "triggers: a change takes effect with a reload" in server.stderr, 5, "the warning")
    before = server.workers()
    server.signal(signal.SIGHUP)
    # An older one may take a connection before it hears that it drains.
    await eventually_async(lambda: "generation 2 serves" in server.stderr and not before & server.workers(), 20, "the end of the older workers")
    assert (await client.post(f"{server.url}/elsewhere", headers=SECRET, json={})).status_code == 202
    assert (await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})).status_code == 404


async def test_a_worker_that_is_replaced_has_the_triggers_of_its_generation(start, client):
    server = start(HOOK, workers=1)
    write(start.folder, HOOK | {"path": "/elsewhere"})
    (killed,) = server.workers()
    server.signal(signal.SIGKILL, killed)
    await eventually_async(lambda: server.workers() not in (set(), {killed}), 5, "another worker")

    async def is_there() -> bool:
        return (await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})).status_code == 202

    await eventually_async(is_there, 10, "the path")
    assert (await client.post(f"{server.url}/elsewhere", headers=SECRET, json={})).status_code == 404


def test_a_bad_trigger_refuses_the_start_and_the_reload(start):
    bad = HOOK | {"secret": "${NOBODY_SET_THIS}"}
    text = "triggers[0].secret: requires environment variable NOBODY_SET_THIS to be set"
    write(start.folder, bad)
    checked = run_program("--check", "--project-dir", start.folder, env=ENVIRONMENT)
    assert checked.returncode != 0
    assert text in checked.stderr
    server = start(HOOK)
    write(start.folder, bad)
    server.signal(signal.SIGHUP)
    server.wait_log(text)
    write(start.folder, HOOK | {"name": "second"})
    server.signal(signal.SIGHUP)
    server.wait_log("generation 2 serves")


async def test_a_public_webhook_is_warned_of(start, client):
    public = {key: value for key, value in HOOK.items() if key != "secret"} | {"public": True}
    server = start(public)
    assert "is public: anybody who reaches this server can start its agent" in server.stderr
    answer = await client.post(f"{server.url}/hooks/push", json={})
    assert answer.status_code == 202
    await final_record(server, answer.headers["X-Sandstorm-Run-Id"])


# --- schedules ------------------------------------------------------------------------------------------


async def fired(client, server, name: str, count: int) -> list[dict]:
    """Waits for so many runs of a trigger."""

    async def enough() -> list[dict] | None:
        found = await records(client, server, name)
        return found if len(found) >= count else None

    return await eventually_async(enough, count + 15, f"{count} runs of {name}")


def told_runs(server) -> list[str]:
    """The runs that the log says were fired."""
    return re.findall(r"trigger tick fired: run (\w+)\n", server.stderr)


def seconds(found: list[dict]) -> list[int]:
    """The second in which each run began."""
    return [int(datetime.fromisoformat(record["started_at"]).timestamp()) for record in found]


async def test_each_second_fires_once_in_all_workers(start, client):
    server = start(cron("tick"), cron("never", "0 0 29 2 *"), workers=3)
    found = await fired(client, server, "tick", 5)
    assert {record["user_id"] for record in found} == {"tick"}
    assert server.stderr.count("firing 2 schedules") == 1
    # Several may share a second when the machine is busy, since late ones fire; none is fired twice.
    assert len(found) <= seconds(found)[-1] - start.began + 1
    assert not await records(client, server, "never")


async def test_another_worker_takes_over_from_a_dead_one(start, client):
    server = start(cron("tick"), workers=2)
    await fired(client, server, "tick", 2)
    elected = int(re.search(r"\[(\d+)\] info: firing 1 schedules", server.stderr)[1])
    died_at = time.monotonic()
    server.signal(signal.SIGKILL, elected)
    await eventually_async(lambda: server.stderr.count("firing 1 schedules") == 2, TAKEOVER_SECONDS, "the takeover")
    assert time.monotonic() - died_at < deadline(TAKEOVER_SECONDS)
    before = len(await records(client, server, "tick"))
    await fired(client, server, "tick", before + 3)
    told = told_runs(server)
    found = await records(client, server, "tick")
    assert len(found) <= seconds(found)[-1] - start.began + 1
    ids = {record["id"] for record in found}
    assert len(told) == len(set(told)) and set(told) <= ids
    # The record is there before the line; whoever died may have been between the two.
    await eventually_async(lambda: len(ids - set(told_runs(server))) <= 1, 5, "the log")


async def test_a_reload_and_an_upgrade_lose_and_repeat_nothing(start, client):
    server = start(cron("tick"), workers=2)
    await fired(client, server, "tick", 2)
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: server.stderr.count("firing 1 schedules") == 2, 10, "the reload")
    server.signal(signal.SIGUSR2)
    await eventually_async(lambda: server.stderr.count("firing 1 schedules") >= 3, 20, "the upgrade")
    before = len(await records(client, server, "tick"))
    found = await fired(client, server, "tick", before + 2)
    starts = seconds(found)
    assert len(found) <= starts[-1] - starts[0] + 2, "none is repeated"
    assert len(found) >= starts[-1] - starts[0] - 1, "none is lost"


async def test_a_run_that_goes_on_keeps_the_next_from_starting(start, double, client):
    server = start(cron("slow", events=1, hold="go", hold_after=1))
    await double.until(lambda ledger: ledger.open_streams() == 1, 15, "the agent")

    async def skipped() -> bool:
        return await metric(client, server, 'sandstorm_trigger_skipped_total{trigger="slow",reason="overlap"}') >= 2

    await eventually_async(skipped, 15, "two skipped instants")
    assert len(await records(client, server, "slow")) == 1
    assert "trigger slow skipped: its last run still goes on" in server.stderr
    double.release("go")
    await fired(client, server, "slow", 2)


async def test_a_full_server_skips_instants(start, double, client):
    server = start(HOOK | {"prompt": script(events=1, hold="go", hold_after=1)}, cron("tick"), args=("--max-runs", 1))

    async def is_taken() -> bool:
        answer = await client.post(f"{server.url}/hooks/push", headers=SECRET, json={})
        return answer.status_code == 202

    await eventually_async(is_taken, 10, "the only slot")

    async def skipped() -> bool:
        return await metric(client, server, 'sandstorm_trigger_skipped_total{trigger="tick",reason="full"}') >= 1

    await eventually_async(skipped, 10, "a skipped instant")
    await double.until(lambda ledger: ledger.open_streams() == 1, 10, "the agent")
    double.release("go")


async def test_an_instant_that_is_missed_in_a_pause_fires_late(start, client):
    due = int(time.time()) + 12  # it has started long before
    server = start(cron("once", f"* * * * * {due % 60}"), args=("--worker-timeout", 30), workers=1)
    server.wait_log("firing 1 schedules")
    (worker,) = server.workers()
    server.signal(signal.SIGSTOP, worker)
    assert time.time() < due - 1
    await eventually_async(lambda: time.time() > due + 1.5, 15, "the instant to be over")
    server.signal(signal.SIGCONT, worker)
    (second,) = seconds(await fired(client, server, "once", 1))
    assert second > due
