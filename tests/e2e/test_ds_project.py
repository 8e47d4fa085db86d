"""`ds init`, `add`, `check`, `doctor`, `serve`, `template`: what needs no server, through pipes and on a terminal."""

import base64
import http.server
import json
import os
import re
import signal
import threading
from contextlib import contextmanager

import httpx
import pytest
from harness.ds import CTRL_C, FAILED, INTERRUPTED, OK, USAGE, ds, ds_on_terminal, ds_shown
from harness.server import REPOSITORY, free_port
from harness.waiting import eventually

STARTERS = ["general-assistant", "research-brief", "document-analyst", "support-triage", "api-extractor", "security-audit",
            "code-review"]  # fmt: skip
FILES = [".env.example", "README.md", "sandstorm.json"]


@pytest.fixture
def project(tmp_path):
    """A folder of a project, with a name of its own."""
    path = tmp_path / "project"
    path.mkdir()
    return path


def names(folder) -> list[str]:
    """What is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


# --- init ---


def test_the_starters_are_these():
    assert ds("init", "--list").stdout.split() == STARTERS
    assert names(REPOSITORY / "cli/starters") == sorted(STARTERS)


@pytest.mark.parametrize("starter", STARTERS)
def test_a_starter_is_a_good_project(starter, tmp_path):
    run = ds("init", starter, "new", cwd=tmp_path)
    assert run.returncode == OK, run.stderr
    assert names(tmp_path / "new") == FILES
    check = ds("check", "new", cwd=tmp_path, env={"ANTHROPIC_API_KEY": "x"})
    assert check.returncode == OK and check.stderr == "" and "configuration ok" in check.stdout
    readme = (tmp_path / "new/README.md").read_text()
    assert "ds serve" in readme and "cp .env.example .env" in readme


def test_init_overwrites_nothing_unless_told(project):
    assert ds("init", cwd=project).returncode == OK
    (project / "sandstorm.json").write_text("mine")
    (project / "README.md").unlink()
    refused = ds("init", "code-review", cwd=project)
    assert refused.returncode == FAILED and "is there already" in refused.stderr
    assert names(project) == [".env.example", "sandstorm.json"] and (project / "sandstorm.json").read_text() == "mine"
    code, shown = ds_shown("init", "code-review", ".", "--force", cwd=project)
    assert code == OK and "code-review is in ." in shown
    assert names(project) == FILES and "You review" in (project / "sandstorm.json").read_text()


@pytest.mark.parametrize("words", [("init", "nope"), ("init", "code-review", "a", "b"), ("add",), ("add", "nope"), ("add", "exa", "x"),
                                   ("add", "--custom", "x"), ("add", "--custom", "a b", "--", "c"), ("add", "exa", "--url", "https://x"),
                                   ("add", "--custom", "x", "--url", "ftp://x"), ("add", "--custom", "x", "--env", "A", "--", "y"),
                                   ("template",), ("template", "nope")])  # fmt: skip
def test_wrong_command_lines(words, project):
    run = ds(*words, cwd=project)
    assert run.returncode == USAGE and run.stderr.endswith("--help'.\n")
    assert names(project) == []


@pytest.mark.parametrize("command", ["init", "add", "doctor", "template"])
def test_help(command):
    run = ds(command, "--help")
    assert run.returncode == OK and run.stdout.startswith(f"usage: ds {command}") and run.stderr == ""


# --- add ---


@pytest.mark.parametrize(("name", "variable"), [("linear", "LINEAR_API_KEY"), ("notion", "NOTION_TOKEN"),
                                                ("firecrawl", "FIRECRAWL_API_KEY"), ("exa", "EXA_API_KEY"),
                                                ("github", "GITHUB_TOKEN")])  # fmt: skip
def test_a_known_server_is_added(name, variable, project):
    code, shown = ds_shown("add", name, cwd=project)
    assert code == OK
    assert shown == f"added {name} to sandstorm.json\nit needs {variable} in the server's environment or .env\n"
    config = json.loads((project / "sandstorm.json").read_text())
    assert list(config) == ["mcp_servers"] and list(config["mcp_servers"]) == [name]
    assert "${" + variable + "}" in (project / "sandstorm.json").read_text()
    assert ds("check", env={"ANTHROPIC_API_KEY": "x"}, cwd=project).returncode == OK


LAYOUTS = {
    "two blanks": '{\n  "model": "a",\n  "mcp_servers": {\n    "q": {"command": "x"}\n  },\n  "timeout": 60\n}\n',
    "tabs": '{\n\t"timeout": 6e1,\n\t"mcp_servers": {\n\t\t"q": {\n\t\t\t"command": "x"\n\t\t}\n\t}\n}',
    "one line": '{"timeout": 60.0, "mcp_servers": {"q": {"command": "x"}}}',
    "windows": '{\r\n    "model": "a",\r\n    "mcp_servers": {}\r\n}\r\n',
    "none yet": '{\n   "model": "\\u00e9 {\\"[,]}",\n   "agents": {"b": {}, "a": []}\n}\n',
    "empty": "{ }\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_file_keeps_its_layout(layout, project):
    path = project / "sandstorm.json"
    before = LAYOUTS[layout]
    path.write_bytes(before.encode())
    path.chmod(0o640)
    assert ds("add", "exa", cwd=project).returncode == OK
    after = path.read_bytes().decode()
    old, new = json.loads(before), json.loads(after)
    added = new["mcp_servers"].pop("exa")
    assert added["command"] == "npx"
    assert new == ({"mcp_servers": {}} | old) and list(new) == list(old | {"mcp_servers": {}})
    assert path.stat().st_mode & 0o777 == 0o640 and names(project) == ["sandstorm.json"]
    # What is taken away again leaves what was there, byte for byte, but for the blanks of an empty object.
    begin, end = os.path.commonprefix([before, after]), os.path.commonprefix([before[::-1], after[::-1]])
    assert len(begin) + len(end) >= len(before) - 1
    if layout in ("windows", "one line"):
        assert after.count("\n") == after.count("\r\n") and ("\n" in after) == (layout == "windows")


def test_an_added_member_is_laid_out_as_its_neighbours(project):
    (project / "sandstorm.json").write_text(LAYOUTS["tabs"])
    assert ds("add", "--custom", "mine", "--env", "A=${B:-c}", "--", "node", "s.js", "-y", cwd=project).returncode == OK
    assert (project / "sandstorm.json").read_text() == (
        '{\n\t"timeout": 6e1,\n\t"mcp_servers": {\n\t\t"q": {\n\t\t\t"command": "x"\n\t\t},\n\t\t"mine": {\n\t\t\t"command": '
        '"node",\n\t\t\t"args": [\n\t\t\t\t"s.js",\n\t\t\t\t"-y"\n\t\t\t],\n\t\t\t"env": {\n\t\t\t\t"A": "${B:-c}"\n\t\t\t}\n'
        "\t\t}\n\t}\n}"
    )  # fmt: skip


def test_a_server_is_replaced_only_with_force(project):
    path = project / "sandstorm.json"
    path.write_text('{\n  "mcp_servers": {"exa": 1, "z": {}},\n  "allowed_tools": ["Read"]\n}\n')
    refused = ds("add", "exa", cwd=project)
    assert refused.returncode == FAILED and "--force" in refused.stderr
    assert '"exa": 1' in path.read_text()
    words = ("add", "--custom", "exa", "--force", "--url", "https://e/mcp", "--header", "X-Key: ${K}", "--transport", "sse")
    run = ds(*words, cwd=project)
    assert run.returncode == OK and "needs K in" in run.stdout and '"mcp__exa"' in run.stdout
    assert json.loads(path.read_text()) == {
        "mcp_servers": {"exa": {"type": "sse", "url": "https://e/mcp", "headers": {"X-Key": "${K}"}}, "z": {}},
        "allowed_tools": ["Read"],
    }


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1,}', '{"mcp_servers": []}', '{"a": 1, "a": 2}'])
def test_a_file_that_is_not_understood_is_left_alone(text, project):
    (project / "sandstorm.json").write_text(text)
    run = ds("add", "exa", "--project-dir", project)
    assert run.returncode == FAILED and "sandstorm.json: " in run.stderr
    assert (project / "sandstorm.json").read_text() == text and names(project) == ["sandstorm.json"]


def test_a_link_to_the_file_stays_one(project):
    (project / "real.json").write_text("{}")
    (project / "sandstorm.json").symlink_to("real.json")
    assert ds("add", "exa", cwd=project).returncode == OK
    assert (project / "sandstorm.json").is_symlink() and "exa" in (project / "real.json").read_text()


# --- check, serve ---


def test_check_says_what_is_wrong(project):
    (project / "sandstorm.json").write_text('{"model": 3}')
    run = ds("check", project, env={"ANTHROPIC_API_KEY": "x"})
    assert run.returncode == FAILED and "model: must be a string" in run.stderr and "NOT ok" in run.stdout
    code, shown = ds_shown("check", project, "--workers", "0")
    assert code == USAGE and "--workers" in shown


def test_serve_is_the_server(project):
    port = free_port()
    with ds_on_terminal("serve", "--host", "127.0.0.1", "--port", port, "--workers", 1, "--runtime", "e2b", cwd=project) as screen:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers, 10, "the server to answer")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.finish() == OK


# --- doctor ---


def marks(text: str) -> dict[str, str]:
    """What doctor found: its mark by what was looked at."""
    return {name.strip(): mark for mark, name in re.findall(r"^([✓✗·]) (.{16})", text, re.MULTILINE)}


def test_doctor_finds_nothing_wrong(double, project):
    env = {"ANTHROPIC_API_KEY": "x", "E2B_API_KEY": double.key, "E2B_API_URL": double.url}
    run = ds("doctor", cwd=project, env=env)
    assert run.returncode == OK, run.stdout
    assert marks(run.stdout) == dict.fromkeys(
        ["configuration", "provider", "E2B key", "E2B's answer", "state folder", "open files"], "✓")  # fmt: skip
    code, shown = ds_shown("doctor", cwd=project, env=env)
    assert code == OK and "\033[32m✓\033[0m provider" in shown
    assert double.key not in run.stdout + shown and names(project) == []


def test_doctor_says_what_is_missing(project):
    (project / "sandstorm.json").write_text('{"timeout": "soon"}')
    run = ds("doctor", "--runtime", "e2b", "--state-dir", "sandstorm.json", cwd=project, env={"E2B_API_URL": "http://127.0.0.1:9"})
    assert run.returncode == FAILED
    found = marks(run.stdout)
    assert [name for name, mark in found.items() if mark == "✗"] == [
        "configuration", "provider", "E2B key", "E2B's answer", "state folder"]  # fmt: skip
    assert "timeout: must be an integer" in run.stdout and "set ANTHROPIC_API_KEY" in run.stdout


def test_doctor_of_the_local_runtime(project):
    (project / "sandstorm.json").write_text('{"runtime": {"provider": "local"}}')
    run = ds("doctor", "--deep", "--template", "none", cwd=project, env={"E2B_API_KEY": "e2b_x"})
    found = marks(run.stdout)
    assert {name: found[name] for name in ("bubblewrap", "namespaces", "memory", "sandbox", "template", "provider")} == {
        "bubblewrap": "✓", "namespaces": "✓", "memory": "✓", "sandbox": "✓", "template": "✗", "provider": "✗"}  # fmt: skip
    assert "ds template build --local none" in run.stdout and "E2B key" not in found


def test_doctor_of_a_wrong_command_line(project):
    run = ds("doctor", "--nope", cwd=project)
    assert run.returncode == USAGE and "--nope" in run.stdout


# --- template ---


def test_a_template_of_this_machine(project, tmp_path):
    (project / "note").write_text("hello")
    env = {"SANDSTORM_TEMPLATE_DIR": str(tmp_path / "templates")}
    run = ds("template", "build", "--local", "mine", "--file", "note:/opt/note", cwd=project, env=env)
    assert run.returncode == OK and "the template mine is built" in run.stdout, run.stderr
    assert "mine" in ds("template", "list", env=env).stdout
    assert "mine" not in ds("template", "list", "--template-dir", project, env=env).stdout
    code, shown = ds_shown("template", "remove", "mine", env=env)
    assert code == OK and "mine" not in ds("template", "list", env=env).stdout


class TemplateService:
    """E2B's template API as its documents describe it; strict about what it is sent."""

    def __init__(self, statuses: list[dict]):
        self.asked: list[tuple[str, str, dict | None]] = []
        self.statuses = statuses
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def log_message(self, *_):
                """Silent."""

            def answer(self, status: int, body: dict | None) -> None:
                """JSON, or nothing at all."""
                text = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_POST(self):  # noqa: N802
                """Both of them."""
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append(("POST", self.path, body))
                if self.headers["X-API-KEY"] != "e2b_good":
                    self.answer(401, {"code": 401, "message": "Unauthorized"})
                elif self.path == "/v3/templates":
                    self.answer(202, {"templateID": "t1", "buildID": "b1", "public": False, "names": ["sandstorm"], "tags": []})
                else:
                    self.answer(202, None)

            def do_GET(self):  # noqa: N802
                """The state of the build; the last one stays."""
                service.asked.append(("GET", self.path, None))
                if self.path != "/health" and self.headers["X-API-KEY"] != "e2b_good":
                    self.answer(401, {"code": 401, "message": "Unauthorized"})
                    return
                states = service.statuses
                state = {"templateID": "t1", "buildID": "b1", "logs": [], "logEntries": []}
                self.answer(200, state | (states.pop(0) if len(states) > 1 else states[0]))

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.env = {"E2B_API_URL": f"http://127.0.0.1:{self._server.server_port}", "E2B_API_KEY": "e2b_good"}
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        """No more of it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def template_service(*statuses: dict):
    """A running one."""
    service = TemplateService(list(statuses))
    try:
        yield service
    finally:
        service.stop()


def log(*messages: str) -> list[dict]:
    """Entries of a build's log."""
    return [{"timestamp": "2026-01-01T00:00:00Z", "level": "info", "message": message} for message in messages]


def test_a_template_in_the_cloud(project):
    states = {"status": "building", "logEntries": log("one", "t\033[2Jwo")}, {"status": "ready", "logEntries": log("three")}
    with template_service(*states) as service:
        code, shown = ds_shown("template", "build", "--cpus", 4, "--sdk-version", "1.2.3", cwd=project,
                               env=service.env | {"NO_COLOR": "1"})  # fmt: skip
    assert (code, shown) == (OK, "one\nt?[2Jwo\nthree\nthe template sandstorm is built\n")
    (_, _, made), (_, started, build), *looks = service.asked
    assert made == {"name": "sandstorm", "cpuCount": 4, "memoryMB": 2048}
    assert started == "/v2/templates/t1/builds/b1"
    assert [look[1] for look in looks] == [f"/templates/t1/builds/b1/status?logsOffset={n}" for n in (0, 2)]
    assert sorted(build) == ["force", "fromImage", "steps"] and build["force"] is False
    install, runner, give, user, folder = build["steps"]
    assert install["type"] == "RUN" and install["args"][1] == "root"
    assert install["args"][0].endswith(" @anthropic-ai/claude-agent-sdk@1.2.3")
    encoded = re.fullmatch(r"echo (\S+) \| base64 -d >/opt/agent-runner/runner.mjs", runner["args"][0])[1]
    assert base64.b64decode(encoded) == (REPOSITORY / "agent/runner.mjs").read_bytes()
    assert "chown -R user /opt/agent-runner" in give["args"][0]
    assert (user, folder) == ({"type": "USER", "args": ["user"]}, {"type": "WORKDIR", "args": ["/home/user"]})


def test_a_template_that_cannot_be_built(project):
    with template_service({"status": "error", "reason": {"message": "npm \033[1mfailed"}}) as service:
        run = ds("template", "build", "--e2b", "mine", cwd=project, env=service.env)
        assert run.returncode == FAILED and run.stderr == "ds template: the build failed: npm ?[1mfailed\n"
        refused = ds("template", "build", cwd=project, env=service.env | {"E2B_API_KEY": "e2b_bad"})
        assert refused.returncode == FAILED and refused.stderr == "ds template: Unauthorized\n"
    assert service.asked[0][2]["name"] == "mine"


def test_a_build_that_is_left_alone(project):
    with template_service({"status": "waiting", "logEntries": log("queued")}) as service:
        with ds_on_terminal("template", "build", cwd=project, env=service.env) as screen:
            screen.wait("queued")
            screen.press(CTRL_C)
            assert screen.finish() == INTERRUPTED and "E2B goes on" in screen.text


def test_a_version_is_no_way_into_a_shell(project):
    with template_service({"status": "ready"}) as service:
        run = ds("template", "build", "--sdk-version", "1; rm -rf /", cwd=project, env=service.env)
    assert run.returncode == USAGE and service.asked == []


def test_doctor_asks_whether_the_keys_are_taken(project):
    with template_service({}) as service:
        env = {"E2B_API_URL": service.env["E2B_API_URL"], "ANTHROPIC_BASE_URL": service.env["E2B_API_URL"]}
        (project / ".env").write_text("ANTHROPIC_API_KEY=sk-wrong\nE2B_API_KEY=e2b_wrong\n")
        run = ds("doctor", "--deep", cwd=project, env=env)
        assert run.returncode == FAILED
        assert (marks(run.stdout)["E2B key taken"], marks(run.stdout)["provider key"]) == ("✗", "✗")
        assert "refuses E2B_API_KEY (status 401)" in run.stdout and "wrong" not in run.stdout
        (project / ".env").write_text("ANTHROPIC_API_KEY=e2b_good\nE2B_API_KEY=e2b_good\n")
        run = ds("doctor", "--deep", cwd=project, env=env)
        assert run.returncode == OK, run.stdout
        assert (marks(run.stdout)["E2B key taken"], marks(run.stdout)["provider key"]) == ("✓", "✓")
    assert ("GET", "/v2/sandboxes?limit=1", None) in service.asked and ("GET", "/v1/models?limit=1", None) in service.asked
