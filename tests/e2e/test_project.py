"""sandstorm.json while the server runs: changes count, faults do not, and no worker is an exception (http-api.md 15.1)."""

import json
import signal

import pytest
from harness.client import query
from harness.rules import by_rule
from harness.server import free_port, run_program
from harness.waiting import eventually_async

AGENT_CONFIG = "/opt/agent-runner/agent_config.json"


@pytest.fixture
def project(tmp_path):
    """A project directory: project.write(text or object) replaces its sandstorm.json, as an editor does."""

    class Project:
        """The directory."""

        folder = tmp_path / "project"
        file = folder / "sandstorm.json"

        def write(self, content) -> None:
            """A new version."""
            fresh = self.folder / "new"
            fresh.write_text(content if isinstance(content, str) else json.dumps(content))
            fresh.rename(self.file)

    Project.folder.mkdir()
    return Project()


@pytest.fixture
def start(start_server, project):
    """A server of that project."""
    return lambda *args, **more: start_server("--project-dir", project.folder, *args, **more)


async def model_of_a_run(client, double, server) -> str | None:
    """What the configuration of a new run names as its model."""
    answer = await query(client, server, "hi")
    assert answer.error_code is None, answer.events
    return json.loads(double.ledger.sandbox_of(answer.run_id).files[AGENT_CONFIG])["model"]


async def test_a_new_version_counts_for_the_next_run(start, project, double, client):
    project.write({"model": "first"})
    server = start()
    assert await model_of_a_run(client, double, server) == "first"
    project.write({"model": "second"})
    assert await model_of_a_run(client, double, server) == "second"


async def test_a_broken_version_leaves_the_last_good_one_and_is_warned_of_once(start, project, double, client):
    project.write({"model": "good"})
    server = start(workers=3)
    project.write({"model": 7})
    assert {await model_of_a_run(client, double, server) for _ in range(12)} == {"good"}
    assert server.stderr.count("model: must be a string; the last good version stays in use") == 1
    project.write("{")
    assert {await model_of_a_run(client, double, server) for _ in range(12)} == {"good"}
    assert server.stderr.count("is not JSON") == 1
    project.write({"model": "better"})
    assert await model_of_a_run(client, double, server) == "better"


async def test_a_worker_that_starts_while_the_file_is_broken_uses_what_the_others_use(start, project, double, client):
    project.write({"model": "at the start"})
    server = start(workers=1)
    project.write({"model": "while it ran"})
    assert await model_of_a_run(client, double, server) == "while it ran"
    project.file.unlink()
    (killed,) = server.workers()
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion: the caller's key dies with the worker")
    server.signal(signal.SIGKILL, killed)
    await eventually_async(lambda: server.workers() not in (set(), {killed}), 5, "another worker")
    assert await model_of_a_run(client, double, server) == "while it ran"


async def test_a_reload_accepts_a_file_that_is_gone_and_refuses_a_broken_one(start, project, double, client):
    project.write({"model": "good"})
    server = start()
    project.write({"timeout": 1})
    server.signal(signal.SIGHUP)
    log = server.wait_log("reload refused")
    assert f"{project.file}: timeout: must be at least 5" in log
    assert await model_of_a_run(client, double, server) == "good"
    project.file.unlink()
    assert await model_of_a_run(client, double, server) == "good"
    old = server.workers()
    server.signal(signal.SIGHUP)
    server.wait_log("generation 2 serves")
    server.wait_gone(old)
    assert await model_of_a_run(client, double, server) is None


def test_a_start_with_a_broken_file_is_refused_and_says_why(project):
    project.write({"max_turns": True, "skills_dir": "nowhere"})
    arguments = ["--project-dir", str(project.folder), "--bind", f"127.0.0.1:{free_port()}"]
    for more in ([], ["--check"]):
        ended = run_program(*arguments, *more, env={"ANTHROPIC_API_KEY": "k", "E2B_API_KEY": "e2b_0"})
        assert ended.returncode == 1
        assert f"{project.file}: max_turns: must be an integer" in ended.stderr
    project.write({"skills_dir": "nowhere"})
    ended = run_program(*arguments, "--check", env={"ANTHROPIC_API_KEY": "k", "E2B_API_KEY": "e2b_0"})
    assert f"{project.file}: skills_dir: cannot be read: No such file or directory" in ended.stderr
    assert "configuration NOT ok" in ended.stdout


def test_an_unknown_field_is_a_warning(project):
    project.write({"modle": "m", "runtime": {"provider": "e2b", "more": 1}})
    ended = run_program("--project-dir", str(project.folder), "--check", env={"E2B_API_KEY": "e2b_0"})
    assert ended.returncode == 0
    assert "modle: is unknown, and ignored" in ended.stderr
    assert "runtime.more: is unknown, and ignored" in ended.stderr


def test_the_runtime_of_the_project_counts_where_the_setting_is_auto(project):
    project.write({"runtime": {"provider": "local"}})
    arguments = ["--project-dir", str(project.folder), "--check"]
    given = {"E2B_API_KEY": "e2b_0"}
    assert "runtime in effect: local" in run_program(*arguments, env=given).stdout
    assert "runtime in effect: e2b" in run_program(*arguments, "--runtime", "e2b", env=given).stdout


async def test_another_runtime_needs_a_reload(start, project, double, client):
    """15.1 runtime: until SIGHUP the one of the start counts, also in a worker that starts later."""
    project.write({"runtime": {"provider": "e2b"}})
    server = start(workers=1, env={"E2B_API_KEY": None})
    project.write({"model": "m", "runtime": {"provider": "local"}})
    answer = await query(client, server, "hi", e2b_api_key=double.key)
    assert answer.events[-1]["type"] == "result"
    assert server.stderr.count("runtime: a change takes effect with a reload") == 1
    (killed,) = server.workers()
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion: the caller's key dies with the worker")
    server.signal(signal.SIGKILL, killed)
    await eventually_async(lambda: server.workers() not in (set(), {killed}), 5, "another worker")
    answer = await query(client, server, "hi", e2b_api_key=double.key)
    assert answer.events[-1]["type"] == "result"
    server.signal(signal.SIGHUP)
    server.wait_log("now wants the local runtime, which needs a restart")
    project.write({"runtime": {"provider": "e2b"}})


# A member of sandstorm.json, as JSON text, and what --check says of it; None: it is fine.
RULES = {
    "an empty file is no object": ("", "is not JSON: expected a value at byte 0"),
    "an array": ("[]", "must be a JSON object"),
    "a BOM": ("\ufeff{}", "is not JSON: expected a value at byte 0"),
    "NaN": ('{"x":NaN}', "is not JSON: expected a value at byte 5"),
    "a lone surrogate": (r'{"x":"\ud800"}', "is not JSON: lone surrogate at byte 7"),
    "401 levels": ('{"x":' + "[" * 400 + "]" * 400 + "}", "is nested too deeply"),
    "1 MiB": ("{" + " " * (2**20 - 2) + "}", None),
    "1 MiB and a byte": ("{" + " " * (2**20 - 1) + "}", "is larger than 1 MiB"),
    "of a repeated field the last counts": ('{"model":1,"model":"m"}', None),
    "system_prompt: number": ('{"system_prompt":1}', "system_prompt: must be a string or an object"),
    "system_prompt: array": ('{"system_prompt":[]}', "system_prompt: must be a string or an object"),
    "system_prompt_append: object": ('{"system_prompt_append":{}}', "system_prompt_append: must be a string"),
    "model: empty": ('{"model":""}', "model: must not be blank"),
    "model: blank": (r'{"model":" \t"}', "model: must not be blank"),
    "model: null": ('{"model":null}', "model: must be a string"),
    "max_turns: 0": ('{"max_turns":0}', "max_turns: must be at least 1"),
    "max_turns: true": ('{"max_turns":true}', "max_turns: must be an integer"),
    "max_turns: a string": ('{"max_turns":"1"}', "max_turns: must be an integer"),
    "max_turns: 1.0": ('{"max_turns":1.0}', "max_turns: must be an integer"),
    "max_turns: 2^53": ('{"max_turns":9007199254740992}', "max_turns: must be at most 9007199254740991"),
    "timeout: 4": ('{"timeout":4}', "timeout: must be at least 5"),
    "timeout: 5": ('{"timeout":5}', None),
    "timeout: 3600": ('{"timeout":3600}', None),
    "timeout: 3601": ('{"timeout":3601}', "timeout: must be at most 3600"),
    "output_format: array": ('{"output_format":[]}', "output_format: must be an object"),
    "agents: string": ('{"agents":"x"}', "agents: must be an object or an array"),
    "mcp_servers: array": ('{"mcp_servers":[]}', "mcp_servers: must be an object"),
    "skills_dir: a file": ('{"skills_dir":"sandstorm.json"}', "skills_dir: cannot be read: Not a directory"),
    "skills_dir: empty": ('{"skills_dir":""}', "skills_dir: cannot be read: No such file or directory"),
    "skills_dir: NUL": (r'{"skills_dir":".\u0000"}', "skills_dir: must not hold NUL"),
    "template_skills: 1": ('{"template_skills":1}', "template_skills: must be true or false"),
    "allowed_tools: string": ('{"allowed_tools":"x"}', "allowed_tools: must be an array of strings"),
    "allowed_tools: a number in it": ('{"allowed_tools":["a",1]}', "allowed_tools: must be an array of strings"),
    "webhook_url: ftp": ('{"webhook_url":"ftp://h"}', "webhook_url: must be an http or https URL"),
    "webhook_url: NUL": (r'{"webhook_url":"http://h\u0000"}', "webhook_url: must be an http or https URL"),
    "triggers: object": ('{"triggers":{}}', "triggers: must be an array"),
    "channels: array": ('{"channels":[]}', "channels: must be an object"),
    "runtime: string": ('{"runtime":"e2b"}', "runtime: must be an object"),
    "runtime: auto": ('{"runtime":{"provider":"auto"}}', 'runtime: provider must be "e2b" or "local"'),
    "runtime: NUL": (r'{"runtime":{"provider":"e2b\u0000"}}', 'runtime: provider must be "e2b" or "local"'),
    "runtime: of a repeated member the last counts": ('{"runtime":{"provider":"x","provider":"e2b"}}', None),
}  # fmt: skip


@by_rule("rule", "15.1", RULES)
def test_the_check_knows_every_rule(project, rule):
    """15.1."""
    text, reason = RULES[rule]
    project.write(text)
    ended = run_program("--check", "--project-dir", str(project.folder), env={"E2B_API_KEY": "e2b_0"})
    assert ended.returncode == (0 if reason is None else 1)
    if reason is not None:
        assert f"error: {project.file}: {reason}\n" in ended.stderr
