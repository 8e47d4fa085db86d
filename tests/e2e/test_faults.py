"""What the sandbox service can do to a run, stage by stage (e2b.md A.4, http-api.md 6 and appendix A)."""

import asyncio

import pytest
from harness.client import query, script

ALWAYS = {"times": None}
QUICK = {"SANDSTORM_CREATE_RETRY_TIMEOUT": "2", "SANDSTORM_AGENT_START_TIMEOUT": "3", "SANDSTORM_STREAM_IDLE_TIMEOUT": "1"}
TIMER_SECONDS = 0.01  # the grain of a millisecond timer
ENVELOPE = "application/connect+json"

# Faults that end the run: stage, action and its options, the code the client gets, requests of this stage (None: any).
FATAL = {
    "create 400": ("create", "status", {"status": 400}, "sandbox_create_failed", 1),
    "create 401": ("create", "status", {"status": 401}, "e2b_auth", 1),
    "create 403": ("create", "status", {"status": 403}, "e2b_auth", 1),
    "create 404": ("create", "status", {"status": 404, **ALWAYS}, "template_not_found", None),
    "create 409": ("create", "status", {"status": 409}, "sandbox_create_failed", 1),
    "create 429, no more sandboxes": ("create", "status", {"status": 429}, "e2b_capacity", 1),
    "create 429 for ever": ("create", "status", {"status": 429, "retry_after": "1", **ALWAYS}, "e2b_rate_limited", None),
    "create 500 twice": ("create", "status", {"status": 500, **ALWAYS}, "sandbox_create_failed", 2),
    "create 503 for ever": ("create", "status", {"status": 503, **ALWAYS}, "e2b_capacity", None),
    "create 504 for ever": ("create", "status", {"status": 504, **ALWAYS}, "e2b_capacity", None),
    "create 502 page": ("create", "text", {"status": 502}, "sandbox_create_failed", 1),
    "create 201 page": ("create", "text", {"status": 201}, "upstream_protocol", 1),
    "create 201 without id": ("create", "body", {"status": 201, "body": "{}"}, "upstream_protocol", 1),
    "create 201 with a bad id": ("create", "body", {"status": 201, "body": '{"sandboxID":"../x"}'}, "upstream_protocol", 1),
    "create 201 huge": ("create", "oversized", {"status": 201}, "upstream_protocol", 1),
    "create 302": ("create", "body", {"status": 302}, "upstream_protocol", 1),
    "create closed": ("create", "refuse", {}, "sandbox_create_failed", 1),
    "create reset": ("create", "reset", {}, "sandbox_create_failed", 1),
    "create garbage": ("create", "garbage", {}, None, 1),
    "upload 400": ("upload", "status", {"status": 400}, "upload_failed", 1),
    "upload 401": ("upload", "status", {"status": 401}, "upload_failed", 1),
    "upload 429 for ever": ("upload", "status", {"status": 429, **ALWAYS}, "e2b_rate_limited", 3),
    "upload 500 for ever": ("upload", "status", {"status": 500, **ALWAYS}, "upload_failed", 3),
    "upload 502 gone": ("upload", "status", {"status": 502, **ALWAYS}, "sandbox_lost", 2),
    "upload 507": ("upload", "status", {"status": 507}, "upload_failed", 1),
    "upload page": ("upload", "text", {"status": 200}, "upstream_protocol", 1),
    "start 401": ("start", "status", {"status": 401}, "agent_start_failed", 1),
    "start 429 for ever": ("start", "status", {"status": 429, **ALWAYS}, "e2b_rate_limited", 3),
    "start 500": ("start", "status", {"status": 500}, "agent_start_failed", 1),
    "start 502 gone": ("start", "status", {"status": 502, **ALWAYS}, "sandbox_lost", 2),
    "start page": ("start", "text", {"status": 200}, "upstream_protocol", 1),
    "start no event": ("start", "body", {"status": 200, "content_type": ENVELOPE}, "upstream_protocol", 1),
    "start reset": ("start", "reset", {}, "agent_start_failed", 1),
    "start closed": ("start", "refuse", {}, "agent_start_failed", 1),
    "start silence": ("start", "silence", {}, "agent_start_failed", 1),
    "start bad cwd": ("start", "connect_error", {"code": "invalid_argument"}, "agent_start_failed", 1),
    "start unavailable": ("start", "connect_error", {"code": "unavailable"}, "agent_start_failed", 1),
    "start exhausted": ("start", "connect_error", {"code": "resource_exhausted"}, "e2b_rate_limited", 1),
    "stream reset": ("stream", "reset", {"after": 2}, "sandbox_lost", None),
    "stream closed": ("stream", "fin", {"after": 2}, "sandbox_lost", None),
    "stream killed": ("stream", "kill", {"after": 2}, "sandbox_lost", None),
    "stream silent": ("stream", "silence", {"after": 2}, "sandbox_lost", None),
    "stream unavailable": ("stream", "error", {"after": 2, "code": "unavailable"}, "sandbox_lost", None),
    "stream canceled": ("stream", "error", {"after": 2, "code": "canceled"}, "sandbox_lost", None),
    "stream internal": ("stream", "error", {"after": 2, "code": "internal"}, "upstream_protocol", None),
    "stream ends unfinished": ("stream", "eof", {"after": 2}, "upstream_protocol", None),
    "stream ends without end": ("stream", "no_end", {"after": 2}, "upstream_protocol", None),
    "stream oversized": ("stream", "oversized", {"after": 2}, "upstream_protocol", None),
    "stream compressed": ("stream", "compressed", {"after": 2}, "upstream_protocol", None),
    "stream flags": ("stream", "bad_flags", {"after": 2}, "upstream_protocol", None),
    "stream no JSON": ("stream", "bad_json", {"after": 2}, "upstream_protocol", None),
    "stream no base64": ("stream", "bad_base64", {"after": 2}, "upstream_protocol", None),
}


@pytest.mark.parametrize("name", FATAL)
async def test_a_fault_gives_its_code_and_leaves_nothing(double, start_server, client, name):
    stage, action, options, code, tries = FATAL[name]
    server = start_server(env=QUICK)
    double.inject(stage, action, **options)
    answer = await query(client, server, script(events=5))
    expected = {code} if code else {"upstream_protocol", "sandbox_create_failed"}
    assert answer.error_code in expected, answer.events[-1:]
    if tries:
        assert len(double.ledger.of_stage(stage)) == tries
    numbered = [event["seq"] for event in answer.events if "seq" in event]
    assert numbered == (list(range(options["after"])) if stage == "stream" else [])
    text = answer.events[-1]["error"]
    assert text and "\n" not in text and double.key not in text
    assert not double.ledger.of_stage("collect")


# Faults a run survives: stage, action and its options, how often they fire.
PASSING = {
    "create 429": ("create", "status", {"status": 429, "retry_after": "1"}),
    "create 500": ("create", "status", {"status": 500}),
    "create 503": ("create", "status", {"status": 503}),
    "upload 409": ("upload", "status", {"status": 409}),
    "upload 429": ("upload", "status", {"status": 429}),
    "upload 500 twice": ("upload", "status", {"status": 500, "times": 2}),
    "upload 503": ("upload", "status", {"status": 503}),
    "upload reset": ("upload", "reset", {}),
    "start 409": ("start", "status", {"status": 409}),
    "start 429": ("start", "status", {"status": 429}),
    "create slow": ("create", "delay", {"seconds": 0.3}),
    "kill 404": ("kill", "status", {"status": 404, "applied": True}),
    "listing refused": ("collect", "status", {"status": 500, "times": None}),
    "stream ends after its end": ("stream", "trailing", {"after": 5}),
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_passing_fault_is_survived(double, start_server, client, name):
    stage, action, options = PASSING[name]
    server = start_server(env=QUICK)
    rule = double.inject(stage, action, **options)
    answer = await query(client, server, script(events=5))
    if action == "trailing":
        assert answer.error_code == "agent_exit"
    else:
        answer.check_complete(5)
    if rule.times:
        await double.until(lambda ledger: rule.fired == rule.times, 5, "the fault to fire")


async def test_retry_after_is_kept(double, start_server, client):
    server = start_server()
    double.inject("create", "status", status=429, retry_after="2")
    (await query(client, server, script())).check_complete(3)
    first, second = double.ledger.of_stage("create")
    assert second.at - first.answered_at >= 2 - TIMER_SECONDS


async def test_a_service_that_is_down_is_tried_three_times(double, server, client):
    double.go_down()
    answer = await query(client, server, "hello")
    assert answer.error_code == "sandbox_create_failed"
    double.come_up()
    assert (await query(client, server, "hello")).error_code is None


async def test_a_service_that_comes_back_is_found(double, server, client):
    double.go_down()
    async with client.stream("POST", f"{server.url}/query", json={"prompt": "hello"}) as answer:
        double.come_up()
        assert '"type":"result"' in (await answer.aread()).decode()


TEXTS = {
    "create": ("create", "status", {"status": 401}, "401: Unauthorized, please check your credentials."),
    "lost": ("stream", "reset", {"after": 1}, "connection to the sandbox was lost"),
    "killed": ("stream", "kill", {"after": 1}, "the sandbox was killed or reached its end of life"),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_texts_that_clients_know(double, server, client, name):
    stage, action, options, text = TEXTS[name]
    double.inject(stage, action, **options)
    answer = await query(client, server, script(events=5))
    assert answer.events[-1]["error"] == text


async def test_a_missing_template_is_named(double, server, client):
    double.set_templates("other")
    assert (await query(client, server, "hello")).error_code == "template_not_found"


async def test_a_fault_of_one_run_is_not_its_neighbours(double, server, client):
    double.inject("stream", "reset", marker="the unlucky", after=1)
    lucky, unlucky = await asyncio.gather(
        query(client, server, script(events=30, interval_ms=5, marker="lucky")),
        query(client, server, script(events=30, interval_ms=5, marker="the unlucky one")),
    )
    lucky.check_complete(30)
    assert unlucky.error_code == "sandbox_lost"
