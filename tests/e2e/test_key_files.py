"""Keys in files of their own: settings *_file, and credentials of the service manager."""

import signal

import httpx
import pytest
from harness.client import query, script
from harness.server import run_program
from harness.waiting import deadline

KEY = "current-key-of-more-than-32-bytes-0001"
OTHER_KEY = "another-key-of-more-than-32-bytes-0002"
SHORT_KEY = "short-key-0003"
NAMES = {"api_key": "SANDSTORM_API_KEY", "api_key_previous": "SANDSTORM_API_KEY_PREVIOUS",
         "anthropic_api_key": "ANTHROPIC_API_KEY", "openrouter_api_key": "OPENROUTER_API_KEY",
         "e2b_api_key": "E2B_API_KEY"}  # fmt: skip


def status(server, key: str) -> int:
    """What a client with this key is told."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/runs", headers=headers, timeout=deadline(20)).status_code


def reload(server, said: str) -> None:
    """HUP, until the log says so."""
    server.signal(signal.SIGHUP)
    server.wait_log(said)


@pytest.fixture
def key_file(tmp_path):
    """Call it to write a file that only its owner reads; gives its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


async def test_every_key_may_have_a_file(double, start_server, key_file, client):
    files = {"api_key": f"{KEY}\n", "api_key_previous": f" {OTHER_KEY}\r\n", "anthropic_api_key": "sk-of-a-file",
             "e2b_api_key": f"{double.key}\n\n"}  # fmt: skip
    options = [word for name, text in files.items() for word in (f"--{name}-file", key_file(name, text))]
    server = start_server(*options, env={"E2B_API_KEY": None, "ANTHROPIC_API_KEY": None})
    assert [status(server, key) for key in (KEY, OTHER_KEY, SHORT_KEY)] == [200, 200, 401]
    client.headers["Authorization"] = f"Bearer {KEY}"
    (await query(client, server, script())).check_complete(3)
    assert double.ledger.created()[-1].env["ANTHROPIC_API_KEY"] == "sk-of-a-file"
    assert not any(key in server.stderr for key in (KEY, OTHER_KEY, "sk-of-a-file"))


def test_a_changed_file_counts_after_a_reload(start_server, key_file):
    server = start_server("--api-key-file", key_file("key", KEY))
    key_file("key", OTHER_KEY)
    assert [status(server, key) for key in (KEY, OTHER_KEY)] == [200, 401]
    old = server.workers()
    reload(server, "generation 2 serves, generation 1 drains")
    server.wait_gone(old)
    assert [status(server, key) for key in (KEY, OTHER_KEY)] == [401, 200]


async def test_credentials_count_where_no_file_is_named(double, start_server, key_file, tmp_path, client):
    key_file("sandstorm.api_key", KEY)
    key_file("sandstorm.anthropic_api_key", "sk-of-a-credential")
    given = {"CREDENTIALS_DIRECTORY": str(tmp_path), "ANTHROPIC_API_KEY": None}
    server = start_server(env=given)
    assert status(server, KEY) == 200
    client.headers["Authorization"] = f"Bearer {KEY}"
    (await query(client, server, script())).check_complete(3)
    assert double.ledger.created()[-1].env["ANTHROPIC_API_KEY"] == "sk-of-a-credential"
    named = start_server("--api-key-file", key_file("other", OTHER_KEY), env=given | {"SANDSTORM_INSTANCE": "named"})
    assert [status(named, key) for key in (KEY, OTHER_KEY)] == [401, 200]


def test_a_file_counts_before_dotenv_and_after_the_environment(start_server, key_file, tmp_path):
    (tmp_path / ".env").write_text(f"SANDSTORM_API_KEY={OTHER_KEY}\n")
    options = ["--project-dir", tmp_path, "--api-key-file", key_file("key", KEY)]
    assert status(start_server(*options), KEY) == 200
    third = "third-key-of-more-than-32-bytes-00000004"
    started_with = start_server(*options, "--state-dir", tmp_path / "second", env={"SANDSTORM_API_KEY": third})
    assert [status(started_with, key) for key in (KEY, OTHER_KEY, third)] == [401, 401, 200]


async def test_the_files_outlast_changes_of_dotenv(double, start_server, key_file, tmp_path, client):
    server = start_server("--project-dir", tmp_path, "--anthropic-api-key-file", key_file("key", "sk-of-a-file"),
                          env={"ANTHROPIC_API_KEY": None}, workers=1)  # fmt: skip
    for text in ("ANTHROPIC_API_KEY=sk-of-dotenv\n", "ANTHROPIC_API_KEY=sk-2\nDISABLE_TELEMETRY=1\n"):
        (tmp_path / ".env").write_text(text)
        (await query(client, server, script())).check_complete(3)
        assert double.ledger.created()[-1].env["ANTHROPIC_API_KEY"] == "sk-of-a-file"


FAULTS = {
    "missing": (None, "No such file or directory"),
    "folder": ("folder", "not a regular file"),
    "empty": (b" \n", "is empty"),
    "two lines": (f"{KEY}\n{OTHER_KEY}\n".encode(), "holds more than one line"),
    "NUL": (KEY.encode() + b"\0", "holds a NUL byte"),
    "large": (KEY.encode() * 2000, "File too large"),
}


@pytest.mark.parametrize("setting", NAMES)
@pytest.mark.parametrize(("content", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_is_no_key_refuses_the_start(key_file, tmp_path, setting, content, reason):
    path = tmp_path / "key"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        key_file("key", content)
    done = run_program("--check", f"--{setting}-file", str(path), "--project-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"setting {setting}_file: {path}: {reason}" in done.stderr
    assert KEY not in done.stderr + done.stdout


def test_a_key_of_clients_that_is_short_refuses_the_start(key_file, tmp_path):
    done = run_program("--check", "--api-key-file", key_file("key", SHORT_KEY), "--project-dir", str(tmp_path))
    assert done.returncode == 1 and "SANDSTORM_API_KEY is shorter than 32 bytes" in done.stderr
    assert SHORT_KEY not in done.stderr


@pytest.mark.parametrize(("content", "reason"), [("", "is empty"), (None, "No such file"), (SHORT_KEY, "shorter")])
def test_a_file_that_is_broken_refuses_the_reload(start_server, key_file, tmp_path, content, reason):
    server = start_server("--api-key-file", key_file("key", KEY))
    if content is None:
        (tmp_path / "key").unlink()
    else:
        key_file("key", content)
    reload(server, "reload refused")
    assert reason in server.stderr
    assert status(server, KEY) == 200


def test_the_check_shows_paths_and_no_key(key_file, tmp_path):
    done = run_program("--check", "--e2b-api-key-file", key_file("key", KEY), "--project-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"e2b_api_key_file = {tmp_path}/key" in done.stdout and KEY not in done.stdout
    assert "runtime in effect: e2b" in done.stdout
