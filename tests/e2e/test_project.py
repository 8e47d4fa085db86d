"""sandstorm.json while the server runs: changes count, faults do not, and no worker is an exception (http-api.md 15.1)."""

import json
import signal

import pytest
from harness.client import query
from harness.server import free_port, run_program
from harness.waiting import eventually, eventually_async

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
    server.signal(signal.SIGHUP)
    eventually(lambda: "generation 2 serves" in server.stderr, 10, "the reload")
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
    assert "runtime: has an unknown field, which is ignored" in ended.stderr


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
    server.signal(signal.SIGKILL, killed)
    await eventually_async(lambda: server.workers() not in (set(), {killed}), 5, "another worker")
    answer = await query(client, server, "hi", e2b_api_key=double.key)
    assert answer.events[-1]["type"] == "result"
    server.signal(signal.SIGHUP)
    server.wait_log("now wants the local runtime, which needs a restart")
    project.write({"runtime": {"provider": "e2b"}})
