"""What the sandbox service tells of its sandboxes, and where it is told to tell it (http-api.md 13)."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import signal

import pytest
from harness import procfs
from harness.client import open_query, script
from harness.record import final_record
from harness.rules import check_json
from harness.waiting import deadline, eventually, eventually_async

SECRET = "a secret of the webhook"
WITH_SECRET = {"SANDSTORM_WEBHOOK_SECRET": SECRET}
KILLED = "sandbox.lifecycle.killed"
EVENTS = ["sandbox.lifecycle.created", "sandbox.lifecycle.updated", KILLED]


def signed(body: bytes, secret: str = SECRET) -> dict:
    """The header E2B sends."""
    digest = hashlib.sha256(secret.encode() + body).digest()
    return {"e2b-signature": base64.b64encode(digest).decode().rstrip("="), "Content-Type": "text/plain"}


async def deliver(client, server, event, secret: str = SECRET):
    """An event as E2B delivers it."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return await client.post(f"{server.url}/webhooks/e2b", content=body, headers=signed(body, secret))


def killed(sandbox_id: str, run_id: str, snake: bool = False) -> dict:
    """The event of a sandbox that was killed, in either spelling."""
    metadata = {"sandbox_metadata": {"request_id": run_id}}
    if snake:
        return {"type": KILLED, "sandbox_id": sandbox_id, "event_data": metadata}
    return {"type": KILLED, "sandboxId": sandbox_id, "eventData": metadata}


# --- signatures and bodies ------------------------------------------------------------------------------


async def test_a_wrong_signature_is_refused_before_the_body_is_read(start_server, client):
    server = start_server(env=WITH_SECRET)
    hexes = hmac.new(SECRET.encode(), b"{", hashlib.sha256).hexdigest()
    for headers in ({}, {"e2b-signature": "x"}, {"e2b-signature": hexes[1:]}, signed(b"{", "another"), signed(b"}")):
        answer = await client.post(f"{server.url}/webhooks/e2b", content=b"{", headers=headers)
        check_json(answer, 401, {"error": "invalid signature"})
    answer = await client.post(f"{server.url}/webhooks/e2b", content=b"{", headers={"e2b-signature": f"sha256={hexes}"})
    check_json(answer, 400, {"error": "invalid JSON"})
    assert SECRET not in server.stderr


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff{}", b"{}x"], ids=repr)
async def test_a_body_that_is_no_object(start_server, client, body):
    server = start_server(env=WITH_SECRET)
    check_json(await deliver(client, server, body), 400, {"error": "invalid JSON"})


@pytest.mark.parametrize("event", [{"eventData": 1}, {"event_data": []}, {"eventData": None}, {"eventData": "x"}], ids=str)
async def test_event_data_that_is_no_object(start_server, client, event):
    server = start_server(env=WITH_SECRET)
    check_json(await deliver(client, server, event), 400, {"error": "invalid event"})


async def test_events_are_counted_and_logged(start_server, client):
    server = start_server(env=WITH_SECRET, workers=2)
    for event in ({}, {"type": 7}, {"type": EVENTS[0], "sandboxId": "i1\n2", "eventData": {}}, {"type": EVENTS[0]}, {"type": "x" * 500}):
        check_json(await deliver(client, server, event), 200, {"status": "ok"})
    metrics = (await client.get(f"{server.url}/metrics")).text
    assert 'sandstorm_webhook_events_total{event_type="sandbox.lifecycle.created"} 2' in metrics
    assert 'sandstorm_webhook_events_total{event_type="unknown"} 3' in metrics
    assert "webhook: sandbox.lifecycle.created sandbox=i1\\x0a2 run=unknown" in server.stderr


# --- killed sandboxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("snake", [False, True], ids=["camelCase", "snake_case"])
async def test_a_killed_sandbox_ends_its_run_whichever_worker_hears_of_it(double, start_server, client, snake):
    server = start_server(env=WITH_SECRET, workers=3)
    for _ in range(3):  # whichever worker has it
        async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
            await stream.next()
            sandbox = double.ledger.sandbox_of(stream.run_id)
            event = killed(sandbox.id, stream.run_id, snake)
            assert {(await deliver(client, server, event)).status_code for _ in range(3)} == {200}
            answer = await asyncio.wait_for(stream.rest(), deadline(10))
            assert answer.error_code == "sandbox_lost"
            assert (await final_record(server, stream.run_id)).code == "sandbox_lost"


async def test_only_the_sandbox_of_a_live_run_counts(double, start_server, client):
    server = start_server(env=WITH_SECRET)
    async with open_query(client, server, script(events=2, hold="go", hold_after=1)) as stream:
        await stream.next()
        sandbox, run_id = double.ledger.sandbox_of(stream.run_id), stream.run_id
        for event in (
            killed("iother", run_id),
            killed(sandbox.id, "0123456789abcdef"),
            killed(sandbox.id, run_id) | {"type": EVENTS[1]},
            {"type": KILLED, "sandboxId": sandbox.id},
        ):
            assert (await deliver(client, server, event)).status_code == 200
        double.release("go")
        answer = await stream.rest()
    answer.check_complete(2)
    assert (await deliver(client, server, killed(sandbox.id, run_id))).status_code == 200
    assert (await final_record(server, run_id)).outcome == "completed"


async def test_without_a_secret_nobody_can_end_a_run(double, server, client):
    async with open_query(client, server, script(events=2, hold="go", hold_after=1)) as stream:
        await stream.next()
        event = killed(double.ledger.sandbox_of(stream.run_id).id, stream.run_id)
        assert (await client.post(f"{server.url}/webhooks/e2b", json=event)).status_code == 200
        double.release("go")
        (await stream.rest()).check_complete(2)
    assert 'sandstorm_webhook_events_total{event_type="sandbox.lifecycle.killed"} 1' in (await client.get(f"{server.url}/metrics")).text


# --- registration ---------------------------------------------------------------------------------------


@pytest.fixture
def start(start_server, tmp_path):
    """start(url, …): a server whose sandstorm.json has this webhook_url, and a state directory."""
    project = tmp_path / "project"
    project.mkdir()

    def start_once(url: str | None, *args, **more):
        write(project, url)
        return start_server("--project-dir", project, "--state-dir", start_once.state, *args, **more)

    start_once.project, start_once.state = project, tmp_path / "state"
    return start_once


def write(project, url: str | None) -> None:
    """A new sandstorm.json."""
    (project / "new").write_text(json.dumps({"webhook_url": url} if url else {}))
    (project / "new").rename(project / "sandstorm.json")


async def registered(double, url: str) -> dict:
    """Waits until this and nothing else is registered."""
    found = await eventually_async(lambda: [w for w in double.webhooks.values() if w["url"] == url], 10, "the registration")
    assert len(double.webhooks) == len(found) == 1
    return found[0]


async def kept_registration(start) -> str:
    """Waits until the server has heard of its registration, which the double had before; what it keeps of it."""
    kept = start.state / "webhook.json"
    await eventually_async(lambda: kept.exists() and json.loads(kept.read_text())["id"], 10, "the file")
    return kept.read_text()


async def test_one_worker_registers_for_all_and_a_stop_deletes(double, start, client):
    server = start("https://me.example/base/", workers=3)
    hook = await registered(double, "https://me.example/base/webhooks/e2b")
    assert (hook["name"], hook["enabled"], hook["events"]) == ("sandstorm-auto", True, EVENTS)
    assert len(hook["signatureSecret"]) == 64
    assert hook["signatureSecret"] not in server.stderr
    kept = start.state / "webhook.json"
    await eventually_async(kept.exists, 5, "the file")
    assert kept.stat().st_mode & 0o777 == 0o600
    for _ in range(6):  # every worker knows the secret
        assert (await deliver(client, server, {}, hook["signatureSecret"])).status_code == 200
        assert (await deliver(client, server, {}, "another")).status_code == 401
    assert server.stop() == 0
    assert not double.webhooks
    assert len(double.ledger.of_stage("register")) == 1


async def test_a_registration_that_cannot_be_kept_is_in_force_all_the_same(double, start, client):
    (start.state / "webhook.json").mkdir(parents=True)
    server = start("https://me.example")
    server.wait_log(f"cannot keep the registration of the webhook in {start.state}/webhook.json: Is a directory")
    hook = await registered(double, "https://me.example/webhooks/e2b")
    assert (await deliver(client, server, {}, hook["signatureSecret"])).status_code == 200
    assert not list(start.state.glob("*.new"))
    assert server.stop() == 0
    assert not double.webhooks


async def test_a_restart_keeps_the_secret(double, start):
    server = start("https://me.example")
    first = await registered(double, "https://me.example/webhooks/e2b")
    server.stop()
    start("https://me.example/webhooks/e2b")
    second = await registered(double, "https://me.example/webhooks/e2b")
    assert second["signatureSecret"] == first["signatureSecret"]


async def test_a_dead_worker_and_a_reload_change_nothing(double, start):
    server = start("https://me.example", workers=2)
    await registered(double, "https://me.example/webhooks/e2b")
    await kept_registration(start)  # whoever registers may die from now on
    for pid in server.workers():
        server.signal(signal.SIGKILL, pid)
        await eventually_async(lambda pid=pid: len(server.workers() - {pid}) == 2, 10, "another worker")
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: "generation 2 serves" in server.stderr, 10, "the reload")
    server.signal(signal.SIGUSR2)
    await eventually_async(lambda: "generation 3 serves" in server.stderr, 20, "the upgrade")
    assert server.stop() == 0
    assert len(double.ledger.of_stage("register")) == len(double.ledger.of_stage("unregister")) == 1
    assert not double.webhooks


async def test_a_worker_that_hears_of_its_election_too_late_registers_nothing(double, start):
    """It is elected while it stands still; another generation follows, and the instance stops before it goes on."""
    server = start("https://me.example", workers=2)
    await registered(double, "https://me.example/webhooks/e2b")
    await kept_registration(start)
    log = server.wait_log("webhook: registered as wh-1 ")
    elected = int(re.search(r"\[(\d+)\] info: webhook: registered as wh-1 ", log)[1])
    (other,) = server.workers() - {elected}
    server.signal(signal.SIGSTOP, other)
    await eventually_async(lambda: procfs.stat_fields(other)[0] == "T", 10, "it to stand still")
    server.signal(signal.SIGKILL, elected)
    await eventually_async(lambda: f"(pid {elected}) of generation 1 died" in server.stderr, 10, "the next election")
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: "generation 2 serves" in server.stderr, 20, "the reload")
    server.signal(signal.SIGTERM)
    await eventually_async(lambda: not double.webhooks, 10, "the deletion")
    server.signal(signal.SIGCONT, other)
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert len(double.ledger.of_stage("register")) == 1
    assert not double.webhooks


async def test_who_registers_for_an_instance_that_stops_deletes_it_though_another_was_elected(double, start):
    double.inject("register", "hold", gate="register")
    server = start("https://me.example", workers=1)
    await double.until(lambda ledger: ledger.of_stage("register"), 10, "the registration to be under way")
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: "generation 2 serves" in server.stderr, 20, "the reload")
    server.signal(signal.SIGTERM)
    await eventually_async(lambda: "of generation 2 ended as told" in server.stderr, 10, "the end of the elected worker")
    double.release("register")
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert not double.webhooks


async def test_a_reload_takes_another_url_or_none(double, start):
    server = start("https://one.example")
    await registered(double, "https://one.example/webhooks/e2b")
    write(start.project, "https://two.example")
    server.signal(signal.SIGHUP)
    await registered(double, "https://two.example/webhooks/e2b")
    write(start.project, None)
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: not double.webhooks, 10, "the deletion")


async def test_what_a_killed_instance_left_is_replaced(double, start):
    server = start("https://me.example")
    await registered(double, "https://me.example/webhooks/e2b")
    content = await kept_registration(start)
    server.stop()
    (start.state / "webhook.json").write_text(content.replace("wh-1", "wh-0"))  # as one would be that could not delete it
    double._double.webhooks.present["wh-0"] = {"url": "left"}
    start("https://me.example")
    await registered(double, "https://me.example/webhooks/e2b")


def test_a_service_that_fails_costs_nothing_but_events(double, start):
    double.inject("register", "status", status=500, times=None)
    double.inject("unregister", "status", status=500, times=None)
    server = start("https://me.example")
    server.wait_log("webhook: cannot register: the sandbox service answered 500")
    assert server.stop() == 0


def test_a_stop_while_it_registers_leaves_none(double, start):
    double.inject("register", "delay", seconds=1)
    server = start("https://me.example")
    eventually(lambda: double.ledger.of_stage("register"), 10, "the registration to be under way")
    assert server.stop() == 0
    assert not double.webhooks
