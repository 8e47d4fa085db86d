"""What `make install` puts on a machine works there, and its unit is sound and closed."""

import json
import re
import subprocess

import pytest
from harness.client import query, script
from harness.installed import files, make
from harness.server import free_port, run_program

# What the operator's own files are: an installation leaves them alone.
SETTINGS = {f"sandstorm/{name}" for name in ("sandstorm.conf", "sandstorm.env", "sandstorm.json", ".env")} | {
    "logrotate.d/sandstorm"
}
EXPOSURE_MAX = 12  # tenths, of systemd-analyze


@pytest.fixture
def prefix(tmp_path):
    """An installed tree with a prefix of its own."""
    make("install", PREFIX=tmp_path / "usr")
    return tmp_path / "usr"


@pytest.fixture
def stage(tmp_path):
    """A tree as a package has it, with /usr and /etc."""
    make("install", DESTDIR=tmp_path / "stage", PREFIX="/usr")
    return tmp_path / "stage"


async def test_an_installed_server_runs_without_settings(prefix, start_server, client):
    port = free_port()
    server = start_server(argv=[prefix / "bin/sandstorm", "--bind", f"127.0.0.1:{port}"], port=port)
    answer = await query(client, server, script(events=3))
    assert answer.status == 200
    answer.check_complete(3)


def test_an_installed_server_finds_its_files(prefix):
    values = run_program("--check", program=prefix / "bin/sandstorm").stdout
    assert re.search(rf"^agent_runner = {prefix}/share/sandstorm/agent/runner.mjs +# default$", values, re.MULTILINE)
    assert re.search(rf"^sandboxd = {prefix}/libexec/sandstorm/sandboxd +# default$", values, re.MULTILINE)


def test_an_installed_ds_finds_its_files(prefix, tmp_path):
    for words in (["init", "code-review", tmp_path / "new"], ["check", tmp_path / "new"], ["template", "list", "--template-dir", tmp_path]):
        run = run_program(*map(str, words), program=prefix / "bin/ds", env={"ANTHROPIC_API_KEY": "x"})
        assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "new/sandstorm.json").read_text())["agents"]


def test_the_completion_completes(prefix, tmp_path):
    """Words of ds, as bash asks for them."""
    script = tmp_path / "complete.bash"
    script.write_text(
        f'PATH={prefix}/bin:$PATH\n. {prefix}/share/bash-completion/completions/ds\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ds; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )

    def complete(*words: str) -> list[str]:
        return subprocess.run(["bash", script, *words], check=True, capture_output=True, text=True, cwd=tmp_path).stdout.split()

    assert complete("ds", "re") == ["replay"]
    assert complete("ds", "--server", "http://127.0.0.1:9", "runs", "--st") == ["--status"]
    assert complete("ds", "runs", "--status", "c") == ["completed", "cancelled"]
    assert complete("ds", "init", "s") == ["support-triage", "security-audit"]
    assert complete("ds", "add", "g") == ["github"]
    assert complete("ds", "webhook", "re") == ["register"]
    (tmp_path / "sandstorm.json").write_text('{"triggers": [{"name": "nightly", "type": "cron", "schedule": "@daily"}]}')
    assert complete("ds", "trigger", "test", "n") == ["nightly"]
    assert "--graceful-timeout" in complete("ds", "serve", "--g")


def test_an_installed_sandboxd_makes_sandboxes(prefix):
    check = run_program("--check", program=prefix / "libexec/sandstorm/sandboxd")
    assert check.returncode == 0, check.stderr


def test_the_installed_settings_are_good_and_of_the_service(stage):
    conf = stage / "etc/sandstorm/sandstorm.conf"
    named = dict(re.findall(r"^([a-z_]+) = (.*)$", conf.read_text(), re.MULTILINE))
    assert named == {
        "runtime": "e2b",
        "project_dir": "/etc/sandstorm",
        "state_dir": "/var/lib/sandstorm/state",
        "template_dir": "/var/lib/sandstorm/templates",
    }
    check = run_program("--config", str(conf), "--check", "--project-dir", str(conf.parent),
                        program=stage / "usr/bin/sandstorm")  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr
    assert (conf.parent / "sandstorm.env").stat().st_mode & 0o777 == 0o640
    assert (conf.parent / ".env").readlink().name == "sandstorm.env"


def test_an_installation_keeps_settings_and_can_be_taken_away(prefix):
    conf = prefix / "etc/sandstorm/sandstorm.conf"
    conf.write_text("workers = 1\n")
    make("install", PREFIX=prefix)
    assert conf.read_text() == "workers = 1\n"
    make("uninstall", PREFIX=prefix)
    assert files(prefix) == {f"etc/{name}" for name in SETTINGS}


def test_the_unit_is_sound(prefix):
    unit = prefix / "lib/systemd/system/sandstorm.service"
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )  # fmt: skip
    # It loads what the unit refers to as well: the machine's own units are none of ours.
    assert [line for line in run.stderr.splitlines() if "sandstorm" in line] == []
    assert run.returncode == 0, run.stderr


def test_the_unit_is_closed(stage):
    unit = stage / "usr/lib/systemd/system/sandstorm.service"
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE_MAX}", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level for sandstorm.service" in run.stdout


def test_the_unit_stops_no_drain_short(stage):
    """TimeoutStopSec covers the default graceful_timeout and what comes after it."""
    unit = (stage / "usr/lib/systemd/system/sandstorm.service").read_text()
    stop = int(re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)[1])
    values = run_program("--check", program=stage / "usr/bin/sandstorm").stdout
    assert stop >= int(re.search(r"^graceful_timeout = (\d+)s?\b", values, re.MULTILINE)[1]) + 30


def test_the_user_of_the_service(stage):
    """sysusers.d as systemd's own tool reads it."""
    subprocess.run(["systemd-sysusers", f"--root={stage}", "sandstorm.conf"], check=True, capture_output=True)
    user = (stage / "etc/passwd").read_text()
    assert re.search(r"^sandstorm:x:\d+:\d+:Sandstorm[^:]*:/nonexistent:/usr/sbin/nologin$", user, re.MULTILINE)


def test_the_directories_of_the_service(stage):
    """What is root's and what the server may read; systemd makes the state directory, which only it may enter."""
    lines = (stage / "usr/lib/tmpfiles.d/sandstorm.conf").read_text().splitlines()
    assert [line.split() for line in lines if not line.startswith("#")] == [
        ["d", "/var/lib/sandstorm", "0755", "root", "root", "-"],
        ["d", "/var/lib/sandstorm/templates", "0755", "root", "root", "-"],
        ["z", "/etc/sandstorm/sandstorm.env", "0640", "root", "sandstorm", "-"],
    ]
    unit = (stage / "usr/lib/systemd/system/sandstorm.service").read_text()
    assert "\nStateDirectory=sandstorm/state\nStateDirectoryMode=0700\n" in unit
