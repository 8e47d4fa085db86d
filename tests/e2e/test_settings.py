"""Settings as an operator meets them: command line, environment, file, --check, --help."""

import re

import pytest
from harness.server import run_program


def check(*args, env=None) -> dict[str, tuple[str, str]]:
    """--check: key → (value, source)."""
    done = run_program("--check", *args, env=env)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(\w+) = (.*?)\s+# (.+)$", done.stdout, re.MULTILINE)
    return {key: (value, source) for key, value, source in found}


@pytest.fixture
def config(tmp_path):
    """A configuration file with these lines."""

    def write(*lines: str) -> str:
        path = tmp_path / "sandstorm.conf"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


def test_the_stronger_source_wins(config):
    path = config("# four settings", "timeout = 100", "ping_interval = 101", "header_timeout = 7")
    env = {"SANDSTORM_TIMEOUT": "200", "SANDSTORM_PING_INTERVAL": "201"}
    found = check("--config", path, "--timeout", "300", env=env)
    assert found["timeout"] == ("300", "command line")
    assert found["ping_interval"] == ("201", "environment")
    assert found["header_timeout"] == ("7", f"{path}:4")
    assert found["body_timeout"] == ("120", "default")


def test_dashes_and_underscores_are_the_same(config):
    found = check("--config", config("worker-timeout = 9"), "--graceful_timeout", "8", "--ping-interval=6")
    assert [found[key][0] for key in ("worker_timeout", "graceful_timeout", "ping_interval")] == ["9", "8", "6"]


def test_graceful_timeout_follows_timeout():
    assert check("--timeout", "77")["graceful_timeout"][0] == "77"


def test_check_prints_every_setting_of_the_help():
    helped = run_program("--help")
    assert helped.returncode == 0
    options = set(re.findall(r"^\s+--([a-z0-9-]+)\b", helped.stdout, re.MULTILINE)) - {"config", "check", "help", "version"}
    keys = {option.replace("-", "_") for option in options}
    assert keys == set(check())
    assert {"workers", "timeout", "bind", "worker_timeout", "graceful_timeout"} <= keys


@pytest.mark.parametrize(
    ("line", "fragment"),
    [("no_such_key = 1", "no_such_key"), ("workers = many", "workers"), ("workers = 0", "workers"),
     ("timeout", "key = value"), ("runtime = cloud", "runtime")],
)  # fmt: skip
@pytest.mark.parametrize("mode", [["--check"], []])
def test_an_error_in_the_file_names_file_and_line(config, mode, line, fragment):
    path = config("# first", "", line)
    done = run_program(*mode, "--config", path, env={"E2B_API_KEY": "e2b_00"})
    assert done.returncode == 1
    assert f"{path}:3: " in done.stderr and fragment in done.stderr


def test_all_errors_are_reported_at_once(config):
    path = config("workers = many", "bogus = 1")
    done = run_program("--check", "--config", path, env={"SANDSTORM_TIMEOUT": "soon"})
    assert done.returncode == 1
    assert all(text in done.stderr for text in (f"{path}:1", f"{path}:2", "SANDSTORM_TIMEOUT"))


def test_a_missing_file_is_an_error():
    done = run_program("--check", "--config", "/nonexistent/sandstorm.conf")
    assert done.returncode == 1
    assert "/nonexistent/sandstorm.conf" in done.stderr


@pytest.mark.parametrize("args", [["--no-such-option"], ["--workers", "many"], ["stray"]])
def test_a_usage_error_is_exit_2(args):
    done = run_program(*args)
    assert done.returncode == 2
    assert args[0].lstrip("-") in done.stderr


def test_version_is_printed():
    done = run_program("--version")
    assert done.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)
