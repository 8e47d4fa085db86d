"""The `.env` of the project, as an operator meets it: sources, keys, reloads (http-api.md 15.2, 2.5)."""

import re
import signal

import httpx
import pytest
from harness.client import query, script
from harness.server import free_port, run_program
from harness.waiting import deadline, eventually

KEY = "current-key-of-more-than-32-bytes-0001"
OTHER_KEY = "another-key-of-more-than-32-bytes-0002"
SHORT_KEY = "short-key-0003"


@pytest.fixture
def project(tmp_path):
    """A project directory; call it to write its `.env`."""
    folder = tmp_path / "project"
    folder.mkdir()

    def write(*lines: str) -> str:
        (folder / ".env").write_text("".join(f"{line}\n" for line in lines))
        return str(folder)

    return write


def check(folder: str, *args: str, env=None) -> dict[str, tuple[str, str]]:
    """--check: key → (value, source)."""
    done = run_program("--check", "--project-dir", folder, *args, env=env)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(\w+) = (.*?)\s+# (.+)$", done.stdout, re.MULTILINE)
    return {key: (value, source) for key, value, source in found}


def test_the_check_shows_what_comes_from_the_file(project, tmp_path):
    config = tmp_path / "sandstorm.conf"
    config.write_text("ping_interval = 1\nheader_timeout = 2\n")
    folder = project("SANDSTORM_HEADER_TIMEOUT=3", "SANDSTORM_BODY_TIMEOUT=3", "WEB_CONCURRENCY=3",
                     "SANDSTORM_LINE_LIMIT=", "SANDSTORM_PROJECT_DIR=/nonexistent")  # fmt: skip
    found = check(folder, "--config", str(config), env={"SANDSTORM_BODY_TIMEOUT": "4"})
    assert found["ping_interval"] == ("1", f"{config}:1")
    assert found["header_timeout"] == ("3", ".env")
    assert found["workers"] == ("3", ".env")
    assert found["body_timeout"] == ("4", "environment")
    assert found["line_limit"] == ("32MiB", "default")
    assert found["project_dir"] == (folder, "command line")


def test_the_check_knows_the_runtime_of_the_file(project):
    folder = project("E2B_API_KEY=e2b_0000")
    assert "runtime in effect: e2b" in run_program("--check", "--project-dir", folder).stdout
    switched_off = run_program("--check", "--project-dir", folder, env={"PYTHON_DOTENV_DISABLED": "True"})
    assert "runtime in effect: local" in switched_off.stdout


def test_a_bad_line_is_named_by_its_number_and_no_more(project):
    done = run_program("--check", "--project-dir", project("SANDSTORM_WORKERS=3", "very secret", "SANDSTORM_TIMEOUT=99"))
    assert done.returncode == 0, done.stderr
    assert ".env:2: " in done.stderr and "secret" not in done.stderr + done.stdout
    assert re.search(r"^timeout = 99 +# .env$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("mode", [["--check"], []])
def test_a_short_key_is_refused_and_not_shown(project, mode):
    done = run_program(*mode, "--project-dir", project(f"SANDSTORM_API_KEY={SHORT_KEY}"), env={"E2B_API_KEY": "e2b_0"})
    assert done.returncode == 1
    assert "SANDSTORM_API_KEY is shorter than 32 bytes" in done.stderr
    assert SHORT_KEY not in done.stderr


def test_a_short_previous_key_is_ignored_with_a_warning(project):
    done = run_program("--check", "--project-dir", project(f"SANDSTORM_API_KEY_PREVIOUS={SHORT_KEY}"))
    assert done.returncode == 0, done.stderr
    assert "SANDSTORM_API_KEY_PREVIOUS is shorter than 32 bytes: ignored" in done.stderr
    assert SHORT_KEY not in done.stderr


def test_a_server_without_a_key_says_so_once(project, start_server):
    server = start_server("--project-dir", project())
    assert server.stderr.count("no SANDSTORM_API_KEY: every client is served") == 1


def reload(server, said: str) -> None:
    """HUP; waits until the log says this anew."""
    before = server.stderr.count(said)
    server.signal(signal.SIGHUP)
    eventually(lambda: server.stderr.count(said) > before, 10, f"{said!r} in the log")


def renew(server) -> None:
    """HUP; waits until nobody but the new workers takes requests."""
    old = server.workers()
    reload(server, "generation 2 serves, generation 1 drains")
    server.wait_gone(old)


def test_hup_reads_the_file_again(project, start_server):
    server = start_server("--project-dir", project(f"SANDSTORM_API_KEY={KEY}"))
    assert "every client is served" not in server.stderr
    project(f"SANDSTORM_API_KEY={OTHER_KEY}", "SANDSTORM_BODY_LIMIT=1024", "not understood")
    renew(server)
    assert ".env:3: " in server.stderr
    answer = httpx.post(f"{server.url}/query", content=b"x" * 2000, headers={"Authorization": f"Bearer {OTHER_KEY}"},
                        timeout=deadline(20))  # fmt: skip
    assert answer.status_code == 413
    assert KEY not in server.stderr and OTHER_KEY not in server.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [("", "SANDSTORM_API_KEY is gone"), ("SANDSTORM_API_KEY=", "SANDSTORM_API_KEY is gone"),
     (f"SANDSTORM_API_KEY={SHORT_KEY}", "SANDSTORM_API_KEY is shorter than 32 bytes"),
     (f"SANDSTORM_API_KEY={OTHER_KEY}\nSANDSTORM_BODY_TIMEOUT=soon", ".env SANDSTORM_BODY_TIMEOUT: \"soon\""),
     (f"SANDSTORM_API_KEY={OTHER_KEY}\nSANDSTORM_BACKLOG=7", "setting backlog changed, and needs a restart")],
)  # fmt: skip
def test_a_reload_that_would_open_or_break_the_server_is_refused(project, start_server, line, reason):
    server = start_server("--project-dir", project(f"SANDSTORM_API_KEY={KEY}"))
    workers = server.workers()
    project(line)
    reload(server, "reload refused")
    assert re.search(f" error: {re.escape(reason)}", server.stderr), server.stderr
    assert server.workers() == workers
    assert SHORT_KEY not in server.stderr
    project(f"SANDSTORM_API_KEY={KEY}")
    renew(server)


async def test_the_sandbox_service_of_the_file_counts_from_start_and_hup(double, project, start_server, client):
    folder = project(f"E2B_API_URL={double.url}", f"E2B_SANDBOX_URL={double.url}")
    server = start_server("--project-dir", folder, "--create-retry-timeout", "0",
                          env={"E2B_API_URL": None, "E2B_SANDBOX_URL": None})  # fmt: skip
    (await query(client, server, script())).check_complete(3)
    project(f"E2B_API_URL=http://127.0.0.1:{free_port()}", f"E2B_SANDBOX_URL={double.url}")
    (await query(client, server, script())).check_complete(3)
    renew(server)
    answer = await query(client, server, script())
    assert [event["code"] for event in answer.of_type("error")] == ["sandbox_create_failed"]
