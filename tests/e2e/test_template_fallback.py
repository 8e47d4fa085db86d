"""A template that is missing: the run goes on with claude-code, says so, and installs the Agent SDK (http-api.md 6.4)."""

import asyncio

import pytest
from harness.client import open_query, query, script
from harness.waiting import deadline

OWN, FALLBACK = "sandstorm", "claude-code"
MISSING = "template 'sandstorm' not found"


def warnings(answer) -> list[str]:
    """Codes of the warnings of a stream."""
    return [event["code"] for event in answer.of_type("warning")]


def count(double, stage: str) -> int:
    """Requests of a stage so far."""
    return double.ledger.stages[stage]


async def test_a_missing_template_falls_back_and_warns(double, server, client):
    double.set_templates(FALLBACK)
    answer = await query(client, server, script(events=3))
    answer.check_complete(3)
    (warning,) = answer.of_type("warning")
    assert (warning["code"], warning["request_id"]) == ("template_fallback", answer.run_id)
    assert OWN in warning["message"] and FALLBACK in warning["message"]
    assert double.ledger.sandbox_of(answer.run_id).template == FALLBACK
    assert (count(double, "create"), count(double, "upload"), count(double, "install")) == (2, 1, 1)
    (install,) = [entry for entry in double.ledger.entries if entry.stage == "install"]
    assert install.command.endswith("@anthropic-ai/claude-agent-sdk@0.3.330")


async def test_what_is_missing_is_remembered_and_still_told(double, start_server, client):
    server = start_server(workers=1)
    double.set_templates(FALLBACK)
    answers = [await query(client, server, "hi") for _ in range(3)]
    assert [warnings(answer) for answer in answers] == [["template_fallback"]] * 3
    assert (count(double, "create"), count(double, "install")) == (4, 3)


async def test_a_403_that_names_the_template_falls_back(double, server, client):
    double.inject("create", "status", status=403, message="team has no access to template 'sandstorm'")
    answer = await query(client, server, "hi")
    assert (warnings(answer), answer.error_code) == (["template_fallback"], None)
    assert double.ledger.sandbox_of(answer.run_id).template == FALLBACK


async def test_the_template_exists(double, server, client):
    answer = await query(client, server, "hi")
    assert (warnings(answer), count(double, "install")) == ([], 0)
    assert double.ledger.sandbox_of(answer.run_id).template == OWN


async def test_neither_template_exists(double, server, client):
    double.set_templates("other")
    answer = await query(client, server, "hi")
    assert (warnings(answer), answer.error_code) == (["template_fallback"], "template_not_found")
    assert MISSING in answer.events[-1]["error"] and "template 'claude-code' not found" in answer.events[-1]["error"]
    assert (count(double, "create"), count(double, "find")) == (2, 0)


async def test_a_403_for_the_fallback_is_about_the_key(double, server, client):
    double.inject("create", "status", nth=1, status=404)
    double.inject("create", "status", nth=2, status=403, message="no access to template 'claude-code'")
    answer = await query(client, server, "hi")
    assert (warnings(answer), answer.error_code) == (["template_fallback"], "e2b_auth")


async def test_an_installation_that_fails_is_told_with_its_last_words(double, server, client):
    double.set_templates(FALLBACK)
    words = "npm warn old\nnpm error code E404\nnpm error 404 Not Found\n\n"
    answer = await query(client, server, script(install_exit=1, install_stderr=words))
    assert answer.error_code == "template_fallback_failed"
    assert answer.events[-1]["error"].endswith("(exit status 1): npm error 404 Not Found")
    assert count(double, "start") == 0


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"action": "status", "status": 401}, "template_fallback_failed"),
        ({"action": "status", "status": 502, "times": None}, "sandbox_lost"),
        ({"action": "connect_error", "code": "permission_denied"}, "template_fallback_failed"),
    ],
)
async def test_an_installation_that_cannot_begin(double, server, client, fault, code):
    double.set_templates(FALLBACK)
    double.inject("install", **fault)
    answer = await query(client, server, "hi")
    assert (answer.error_code, count(double, "start")) == (code, 0)


async def test_a_client_that_leaves_during_the_installation(double, server, client):
    double.set_templates(FALLBACK)
    double.inject("install", "silence")
    async with open_query(client, server, "hi") as stream:
        await double.until(lambda ledger: ledger.stages["install"], 5, "the installation")
        run_id = stream.run_id
    await double.until(lambda ledger: ledger.sandbox_of(run_id).deleted_at, 10, "the deletion")


async def test_the_deadline_counts_during_the_installation(double, server, client):
    double.set_templates(FALLBACK)
    double.inject("install", "silence")
    answer = await asyncio.wait_for(query(client, server, "hi", timeout=5), deadline(20))
    assert answer.error_code == "run_timeout"


async def test_a_time_to_live_that_is_too_long_is_lowered_once(double, server, client):
    double.inject("create", "status", nth=1, status=400, message="Timeout cannot be greater than 1 hours")
    answer = await query(client, server, "hi", timeout=100)
    assert answer.error_code is None
    assert double.ledger.sandbox_of(answer.run_id).ttl == 100
    double.inject("create", "status", status=400, message="Timeout cannot be greater than 1 hours", times=None)
    answer = await query(client, server, "hi", timeout=100)
    assert (answer.error_code, count(double, "create")) == ("sandbox_create_failed", 4)
