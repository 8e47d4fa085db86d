"""`ds trigger` and `ds webhook`: through pipes and on a terminal."""

import calendar
import json
import re
import time

import pytest
from harness.client import script
from harness.ds import CTRL_C, FAILED, INTERRUPTED, OK, USAGE, ds, ds_checked, ds_on_terminal, ds_shown
from harness.server import free_port

SECRET = "s3cret, printable"
HOOK = {"name": "push", "type": "webhook", "path": "/hooks/push", "secret": "${HOOK_SECRET}", "prompt": "{{ body.ref }}"}
OPEN = {"name": "open", "type": "webhook", "path": "/hooks/open", "public": True, "prompt": "say hello"}
NIGHTLY = {"name": "nightly", "type": "cron", "schedule": "30 2 29 2 *", "prompt": script(events=2) + "{{ body.x }}{{headers.y}}"}
KEY = "the-bearer-of-this-server-0123456789"
WEBHOOK = {"SANDSTORM_WEBHOOK_SECRET": "a secret of the webhook"}


@pytest.fixture
def project(tmp_path):
    """project(trigger, …, **fields): a folder with these in its sandstorm.json, and the secret in its .env."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".env").write_text(f"HOOK_SECRET='{SECRET}'\n")

    def write(*triggers, **fields):
        (folder / "sandstorm.json").write_text(json.dumps({"triggers": triggers} | fields))
        return folder

    return write


# --- trigger list ---


def test_the_list_of_triggers(project):
    folder = project(NIGHTLY, HOOK, OPEN)
    run = ds("trigger", "list", "-n", "2", cwd=folder)
    assert run.returncode == OK and run.stderr == ""
    rows = [re.split(r" {2,}", row.strip()) for row in run.stdout.splitlines()]
    assert rows[0] == ["NAME", "TYPE", "WHEN", "SECRET", "NEXT (UTC)"]
    year = next(y for y in range(time.gmtime().tm_year, 3000)
                if calendar.isleap(y) and (y, 2, 29, 2, 30) > tuple(time.gmtime())[:5])  # fmt: skip
    assert rows[1] == ["nightly", "cron", "30 2 29 2 *", "-", f"{year}-02-29 02:30:00"]
    assert rows[2] == [f"{year + 4}-02-29 02:30:00"]
    assert rows[3:] == [["push", "webhook", "/hooks/push", "set", "-"], ["open", "webhook", "/hooks/open", "public", "-"]]
    assert ds_shown("trigger", "list", "-n", "2", cwd=folder, env={"NO_COLOR": "1"}) == (OK, run.stdout)
    listed = json.loads(ds("trigger", "list", "--json", "--project-dir", folder).stdout)
    assert listed[0]["next"] == [f"{year}-02-29T02:30:00+00:00"]
    assert [(one["name"], one["secret"]) for one in listed] == [("nightly", "-"), ("push", "set"), ("open", "public")]
    assert SECRET not in run.stdout


def test_the_list_tells_what_a_server_would_refuse(project):
    folder = project(HOOK | {"secret": "${NOWHERE}"}, NIGHTLY | {"schedule": "61 * * * *"})
    run = ds("trigger", "list", cwd=folder)
    assert run.returncode == FAILED
    assert "nightly: no schedule: the minute is not within 0-59" in run.stderr and "would not start" in run.stderr
    assert re.search(r"push +webhook +/hooks/push +missing", run.stdout)
    assert ds("check", cwd=folder, env={"ANTHROPIC_API_KEY": "x"}).returncode == FAILED
    (folder / "sandstorm.json").write_text("{")
    code, shown = ds_shown("trigger", "list", cwd=folder)
    assert code == FAILED and "sandstorm.json: line 1: " in shown


# --- trigger test ---


def test_a_webhook_is_tried_and_its_run_followed(start_server, project):
    folder = project(HOOK, OPEN, NIGHTLY)
    server = start_server("--project-dir", folder)
    run = ds("trigger", "test", "push", "-d", '{"ref": "main"}', server=server, cwd=folder)
    assert run.returncode == OK, run.stderr
    run_id, end = re.fullmatch(r"accepted as run (\w+)\n(completed, .*)\n", run.stdout).groups()
    assert re.fullmatch(r"completed, turns \d+, cost \$\S+, .* s", end)
    record = json.loads(ds("show", "--json", run_id, server=server).stdout)
    assert (record["trigger"], record["raw_prompt"]) == ("push", '<trigger_value path="body.ref">main</trigger_value>')
    given = ds("trigger", "test", "push", "-d", "-", "--json", server=server, cwd=folder, given=b'{"ref": "stdin"}\n')
    assert "stdin" in json.loads(given.stdout)["raw_prompt"] and given.stderr.startswith("accepted as run ")
    code, shown = ds_shown("trigger", "test", "open", server=server, cwd=folder)
    assert code == OK and "completed, turns" in shown


def test_a_webhook_that_is_refused(start_server, project):
    folder = project(HOOK)
    server = start_server("--project-dir", folder, env={"SANDSTORM_API_KEY": KEY})
    wrong = ds("trigger", "test", "push", server=server, cwd=folder, env={"HOOK_SECRET": "another"})
    assert wrong.returncode == FAILED and "refuses the secret" in wrong.stderr and wrong.stdout == ""
    blind = ds("trigger", "test", "push", server=server, cwd=folder)  # the run begins, and cannot be looked at
    assert blind.returncode == FAILED and "accepted as run" in blind.stdout and "the server wants its key" in blind.stderr
    assert ds("trigger", "test", "push", server=server, cwd=folder, env={"SANDSTORM_API_KEY": KEY}).returncode == OK
    body = ds("trigger", "test", "push", "-d", "no json", server=server, cwd=folder)
    assert body.returncode == FAILED and "invalid JSON body" in body.stderr
    for words, reason in (("nope",), "has no trigger nope"), ((), "which trigger?"):
        run = ds("trigger", "test", *words, server=server, cwd=folder)
        assert run.returncode != OK and reason in run.stderr
    unset = ds("trigger", "test", "push", server=server, cwd=project(HOOK | {"secret": "${NOWHERE}"}))
    assert unset.returncode == FAILED and "its secret is missing" in unset.stderr
    assert ds("trigger", "test", "push", cwd=project(HOOK), env={"SANDSTORM_URL": f"http://127.0.0.1:{free_port()}"}).returncode == FAILED


def test_an_interrupt_leaves_a_webhooks_run_alone(double, start_server, project):
    folder = project(OPEN | {"prompt": script(events=1, hold="gate", hold_after=1)})
    server = start_server("--project-dir", folder)
    with ds_on_terminal("trigger", "test", "open", server=server, cwd=folder) as screen:
        run_id = re.search(r"run (\w+)\n", screen.wait("accepted as run ") and screen.wait("\n"))[1]
        screen.press(CTRL_C)
        assert screen.finish() == INTERRUPTED
    assert f"the run goes on: ds cancel {run_id}" in screen.text
    assert json.loads(ds("show", "--json", run_id, server=server).stdout)["status"] == "running"
    double.release("gate")


def test_the_prompt_of_a_schedule_is_run(double, start_server, project):
    folder = project(NIGHTLY, output_format={"type": "json_schema"})
    server = start_server("--project-dir", folder)
    run = ds("trigger", "test", "nightly", server=server, cwd=folder)
    assert run.returncode == OK and "run " in run.stderr
    run_id = re.search(r"run (\w+)\n$", run.stderr)[1]
    config = json.loads(double.ledger.sandbox_of(run_id).files["/opt/agent-runner/agent_config.json"])
    assert (config["prompt"], config["output_format"]) == (script(events=2), None)
    code, shown = ds_shown("trigger", "test", "nightly", "--json", server=server, cwd=folder)
    assert code == OK and json.loads(shown.splitlines()[-1])["type"] == "result"
    assert ds("trigger", "test", "nightly", "-d", "{}", server=server, cwd=folder).returncode == USAGE


# --- webhook ---


def test_registrations(double, project):
    env = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url} | WEBHOOK
    folder = project(webhook_url="https://me.example/")
    assert ds("webhook", "register", cwd=folder, env=env).stdout == "registered wh-1 for https://me.example/webhooks/e2b\n"
    code, shown = ds_shown("webhook", "register", "https://two.example", "--name", "two", cwd=folder, env=env)
    assert (code, shown) == (OK, "registered wh-2 for https://two.example/webhooks/e2b\n")
    assert double.webhooks["wh-1"]["signatureSecret"] == WEBHOOK["SANDSTORM_WEBHOOK_SECRET"]
    rows = [re.split(r" {2,}", row.strip()) for row in ds("webhook", "list", env=env).stdout.splitlines()]
    assert rows == [["ID", "NAME", "ENABLED", "URL"], ["wh-1", "sandstorm", "yes", "https://me.example/webhooks/e2b"],
                    ["wh-2", "two", "yes", "https://two.example/webhooks/e2b"]]  # fmt: skip
    code, shown = ds_shown("webhook", "list", env=env | {"NO_COLOR": "1"})
    assert code == OK and [re.split(r" {2,}", row.strip()) for row in shown.splitlines()] == rows
    assert [hook["id"] for hook in json.loads(ds("webhook", "list", "--json", env=env).stdout)] == ["wh-1", "wh-2"]
    deleted = ds("webhook", "delete", "wh-1", "wh-9", env=env)
    assert deleted.returncode == FAILED and deleted.stdout == "wh-1 deleted\n" and "not deleted: wh-9" in deleted.stderr
    assert ds_shown("webhook", "delete", "wh-2", env=env) == (OK, "wh-2 deleted\n")
    assert not double.webhooks


def test_what_comes_from_outside_does_not_steer_the_terminal(double, project):
    env = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url, "NO_COLOR": "1"} | WEBHOOK
    double.inject("register", "body", body=json.dumps({"id": "wh\033[2J\n1"}), status=201)
    code, shown = ds_shown("webhook", "register", "https://x.example", cwd=project(), env=env)
    assert code == OK and "\033" not in shown and shown.count("\n") == 1
    double.inject("registrations", "body", body=json.dumps([{"id": "\033]0;x\a", "name": "\033[1m", "url": "u"}]), status=200)
    code, shown = ds_shown("webhook", "list", env=env)
    assert code == OK and "\033" not in shown and "\a" not in shown
    code, shown = ds_shown("trigger", "list", cwd=project(NIGHTLY | {"name": "\033[2J", "schedule": "x"}), env=env)
    assert code == FAILED and "\033" not in shown


def test_what_registering_needs(double, project):
    env = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url}
    for words, more, reason in (
        (("register", "https://x"), {}, "SANDSTORM_WEBHOOK_SECRET is not set"),
        (("register", "ftp://x"), WEBHOOK, "no http:// or https:// URL"),
        (("register",), WEBHOOK, "no webhook_url"),
        (("list",), {"E2B_API_KEY": ""}, "E2B_API_KEY is not set"),
        (("delete",), {}, "which registration?"),
        (("nope",), {}, "register, list, delete or test?"),
    ):
        run = ds("webhook", *words, cwd=project(), env=env | more)
        assert run.returncode == USAGE and reason in run.stderr and run.stdout == ""
    double.inject("registrations", "status", status=401)
    wrong = ds("webhook", "list", env=env)
    assert wrong.returncode == FAILED and wrong.stdout == "" and wrong.stderr.startswith("ds webhook: ")
    double.inject("registrations", "body", body="{}", status=200)
    odd = ds("webhook", "list", env=env)
    assert odd.returncode == FAILED and odd.stdout == "" and "gave no list of registrations" in odd.stderr
    assert not double.webhooks


def test_an_event_is_tried(start_server, project):
    server = start_server(env=WEBHOOK)
    good = ds("webhook", "test", server=server, env=WEBHOOK, cwd=project())
    assert (good.returncode, good.stdout) == (OK, f"{server.url} took the signed event\n")
    code, shown = ds_shown("webhook", "test", server=server, env={"SANDSTORM_WEBHOOK_SECRET": "another"}, cwd=project())
    assert code == FAILED and "refuses the signature: it has another secret" in shown
    unknown = ds("webhook", "test", server=server, cwd=project())
    assert unknown.returncode == FAILED and "has a secret that is not known here" in unknown.stderr
    (project() / ".sandstorm").mkdir()
    (project() / ".sandstorm/webhook.json").write_text(json.dumps({"id": "", "secret": WEBHOOK["SANDSTORM_WEBHOOK_SECRET"]}))
    assert ds("webhook", "test", server=server, cwd=project()).returncode == OK
    assert server.stderr.count("webhook: sandbox.lifecycle.killed sandbox=ds-webhook-test run=ds-webhook-test") == 2


def test_a_server_without_a_secret_says_so(server, project):
    run = ds("webhook", "test", server=server, cwd=project())
    assert run.returncode == OK and "took the unsigned event\nit has no secret" in run.stdout


# --- memory ---


def test_no_leak_and_no_bad_access(double, start_server, project):
    folder = project(HOOK, NIGHTLY)
    server = start_server("--project-dir", folder, env=WEBHOOK)
    env = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url} | WEBHOOK
    for words in (("trigger", "list"), ("trigger", "test", "push"), ("webhook", "register", "https://x.example"), ("webhook", "test")):
        ds_checked(*words, server=server, env=env, cwd=folder)
