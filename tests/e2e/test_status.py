"""GET /status and `sandstorm status`: how a running server is, also when it does not answer."""

import asyncio
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from harness import procfs
from harness.client import open_query, query, script
from harness.server import PROGRAM, bare_environment, run_program
from harness.waiting import deadline, eventually

KEY = "current-key-of-more-than-32-bytes-0001"
BEARER = {"Authorization": f"Bearer {KEY}"}
RUNS, UNSEEN, USAGE, STOPPED = 0, 1, 2, 3
NOBODY = 65534
SCOREBOARD = "/memfd:sandstorm-scoreboard"
# Columns of a run's row.
BEFORE_PROMPT = len(f"{'RUN':16}  {'STATE':7}  {'MODEL':24}  {'TURNS':5}  {'COST':9}  {'DURATION':11}  ")
# What moves between two looks.
MOVING = {"uptime_secs", "heartbeat_age_ms", "connections"}


def status(server, *args: str) -> subprocess.CompletedProcess:
    """`sandstorm status` of the server in this directory."""
    return run_program("status", "--project-dir", str(server.cwd), *args)


def still(report: object) -> object:
    """A report without what moves."""
    if isinstance(report, list):
        return [still(item) for item in report]
    if isinstance(report, dict):
        return {key: still(value) for key, value in report.items() if key not in MOVING}
    return report


def of_all(report: dict, count: str) -> int:
    """A count of the workers, over all of them."""
    return sum(worker[count] for worker in report["workers"])


def states(report: dict) -> list[tuple]:
    """What each worker does."""
    return sorted((worker["generation"], worker["state"], worker["live_runs"]) for worker in report["workers"])


async def report_until(client, server, view: Callable[[dict], object], wanted: object) -> httpx.Response:
    """Asks until the report shows what is wanted: what ended is counted a moment after others see its end."""
    end = time.monotonic() + deadline(10)
    while True:
        answer = await client.get(f"{server.url}/status")
        if (seen := view(answer.json())) == wanted:
            return answer
        assert time.monotonic() < end, f"not {wanted}, but {seen}"
        await asyncio.sleep(0.02)


@contextmanager
def stopped(server):
    """While the block runs, no worker does anything."""
    workers = server.workers()
    for pid in workers:
        server.signal(signal.SIGSTOP, pid)
    try:
        yield
    finally:
        for pid in workers:
            server.signal(signal.SIGCONT, pid)


async def test_any_worker_reports_for_all(double, client, start_server):
    server = start_server("--max-runs", "7", workers=3)
    await query(client, server, script())
    await query(client, server, script(error="no"))
    async with open_query(client, server, script(hold="on", hold_after=1)) as stream:
        await stream.next_numbered()
        async with open_query(client, server, script(hold="on", hold_after=1)) as other:
            await other.next_numbered()
        runs = {"live": 1, "max": 7, "completed": 1, "error": 1, "cancelled": 1}
        counts = {"live_runs": 1, "ended_runs": 3, "connections": 2}  # this one and the run's
        answer = await report_until(
            client, server, lambda it: (it["runs"], {name: of_all(it, name) for name in counts}), (runs, counts)
        )
        double.release("on")
        await stream.rest()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    report = answer.json()
    assert report["instance"] == "e2e"
    assert report["version"] == (await client.get(f"{server.url}/health")).json()["version"]
    assert report["cost_usd"] == 0.01
    assert report["kill_queue"] == 0
    age = (datetime.now(UTC) - datetime.fromisoformat(report["started_at"])).total_seconds()
    assert 0 <= report["uptime_secs"] <= age < deadline(60)
    workers = report["workers"]
    assert {worker["pid"] for worker in workers} == server.workers()
    assert {(worker["generation"], worker["state"]) for worker in workers} == {(1, "serving")}
    assert all(0 <= worker["heartbeat_age_ms"] < deadline(5) * 1000 for worker in workers)


async def test_a_worker_that_drains_is_shown(double, client, server):
    async with open_query(client, server, script(hold="on", hold_after=1)) as stream:
        await stream.next_numbered()
        server.signal(signal.SIGHUP)
        await report_until(client, server, states, [(1, "draining", 1), (2, "serving", 0), (2, "serving", 0)])
        double.release("on")
        await stream.rest()


async def test_the_route_needs_the_bearer(client, start_server):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    assert (await client.get(f"{server.url}/status")).status_code == 401
    assert (await client.get(f"{server.url}/status", headers=BEARER)).status_code == 200


async def test_the_command_says_the_same_as_the_route(double, client, server):
    await query(client, server, script(), model="opus")
    async with open_query(client, server, script(hold="on", hold_after=1), model="haiku") as stream:
        await stream.next_numbered()
        report = (await client.get(f"{server.url}/status")).json()
        seen = status(server, "--json")
        double.release("on")
        await stream.rest()
    assert (seen.returncode, seen.stderr) == (RUNS, "")
    printed = json.loads(seen.stdout)
    (live,) = printed.pop("live")
    assert still(printed) == still(report)
    assert (live["id"], live["status"], live["model"]) == (stream.run_id, "running", "haiku")
    assert json.loads(live["raw_prompt"])["hold"] == "on"
    assert live["ended_at"] is None


async def test_the_command_works_when_no_worker_answers(double, client, server):
    async with open_query(client, server, script(hold="on", hold_after=1)) as stream:
        await stream.next_numbered()
        with stopped(server):
            for args in ([], ["--json"], ["--pid", str(server.pid)]):
                seen = status(server, *args)
                assert (seen.returncode, seen.stderr) == (RUNS, "")
                assert stream.run_id in seen.stdout
        double.release("on")
        (await stream.rest()).check_complete(3)


async def test_a_person_is_shown_workers_runs_and_totals(double, client, server):
    await query(client, server, script())
    prompt = script(hold="on", hold_after=1)
    async with open_query(client, server, prompt, model="claude-opus-4-with-a-very-long-name") as stream:
        await stream.next_numbered()
        seen = status(server)
        double.release("on")
        await stream.rest()
    lines = seen.stdout.splitlines()
    assert lines[0].endswith(f"runs: master {server.pid}, instance e2e")
    assert lines[2].endswith("1 live of 1024; since the start 1 completed, 0 error, 0 cancelled, $0.0100")
    rows = [line.split() for line in lines]
    shown = {int(row[0]): row[1:4] for row in rows if row and row[0].isdigit()}
    assert set(shown) == server.workers()
    assert sorted(shown.values()) == [["1", "serving", "0"], ["1", "serving", "1"]]
    (run,) = [line for line in lines if line.startswith(stream.run_id)]
    assert run.split()[1:3] == ["running", "claude-opus-4-with-a-ver"]
    assert run.endswith(prompt)


def on_terminal(columns: int, *args: str) -> str:
    """What the program shows on a terminal of this width."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = b""
    with subprocess.Popen([PROGRAM, *args], env=bare_environment(), stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            shown += piece
    os.close(ours)
    assert process.returncode == RUNS
    return shown.decode()


async def test_prompts_are_cut_to_the_terminal_and_cleaned(double, client, server):
    double.inject("create", "hold", gate="create", times=None)
    prompts = {"\x1b]0;owned\x07\nred\x9b31m": " ]0;owned  red 31m", "x" * 90: "x" * 90, "漢字" * 40: "漢字" * 40}
    async with (
        open_query(client, server, list(prompts)[0]) as first,
        open_query(client, server, list(prompts)[1]) as second,
        open_query(client, server, list(prompts)[2]) as third,
    ):
        wide = on_terminal(300, "status", "--project-dir", str(server.cwd)).splitlines()
        narrow = on_terminal(101, "status", "--project-dir", str(server.cwd)).splitlines()
        double.release("create")
    for stream, prompt in zip((first, second, third), prompts.values(), strict=True):
        (row,) = [line for line in wide if line.startswith(stream.run_id)]
        (cut,) = [line for line in narrow if line.startswith(stream.run_id)]
        assert row.endswith(prompt)
        columns = len(cut) + sum(letter in "漢字" for letter in cut)
        assert 100 <= columns <= 101
        assert prompt.startswith(cut[BEFORE_PROMPT:])
        assert len(cut) > BEFORE_PROMPT
        assert row.isprintable()


async def test_a_server_that_ended_does_not_run(start_server):
    server = start_server()
    server.stop()
    for args in ([], ["--json"], ["--pid", str(server.pid)]):
        seen = status(server, *args)
        assert (seen.returncode, seen.stdout) == (STOPPED, "")
        assert seen.stderr.startswith("sandstorm is not running: ")


async def test_a_killed_master_does_not_run(double, start_server):
    server = start_server()
    server.expected_exit = -signal.SIGKILL
    server.signal(signal.SIGKILL)
    eventually(lambda: not server.running and not procfs.session(server.pid), 15, "the end of all processes")
    assert status(server).returncode == STOPPED


def test_a_server_that_never_ran_does_not_run(tmp_path):
    seen = run_program("status", "--state-dir", str(tmp_path / "none"))
    assert (seen.returncode, seen.stdout) == (STOPPED, "")
    assert f"{tmp_path}/none/lock" in seen.stderr


def test_a_process_that_is_no_master_is_not_taken_for_one(server):
    for pid in (os.getpid(), 2**22 + 1, min(server.workers())):
        seen = run_program("status", "--pid", str(pid))
        assert (seen.returncode, seen.stdout) == (STOPPED, "")
        assert f"process {pid} does not exist, or is no master" in seen.stderr


@pytest.mark.parametrize(
    "args", [["--pid"], ["--pid", "0"], ["--pid", "-5"], ["--pid=1x"], ["--pid="], ["--yaml"], ["now"], ["--json=1"]]
)
def test_a_wrong_command_line_is_told(args):
    seen = run_program("status", *args)
    assert (seen.returncode, seen.stdout) == (USAGE, "")
    assert "see --help" in seen.stderr


def test_its_options_are_no_options_of_the_server():
    for args in (["--json"], ["--pid", "1"], ["--workers", "1", "status"]):
        assert run_program(*args).returncode == USAGE
    text = run_program("--help").stdout
    assert "sandstorm status [--json] [--pid PID]" in text


def test_settings_that_are_wrong_hide_only_where_the_server_is(server):
    wrong = {"SANDSTORM_WORKERS": "none"}
    seen = run_program("status", "--project-dir", str(server.cwd), env=wrong)
    assert (seen.returncode, seen.stdout) == (UNSEEN, "")
    assert "SANDSTORM_WORKERS" in seen.stderr
    assert run_program("status", "--pid", str(server.pid), env=wrong).returncode == RUNS


def run_as_other(home: Path, *args: str) -> subprocess.CompletedProcess:
    """The program, run by a user to whom the server does not belong."""
    program = home / "sandstorm"
    shutil.copy(PROGRAM, program)
    other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run([program, *args], check=False, env=bare_environment(), capture_output=True, text=True,
                          timeout=deadline(15), cwd="/", **other)  # fmt: skip


def test_another_user_is_told_who_may_look(server):
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        pid = server.pid if os.geteuid() == 0 else 1
        seen = run_as_other(Path(home), "status", "--pid", str(pid))
        assert (seen.returncode, seen.stdout) == (UNSEEN, "")
        assert f"process {pid}: run this as root or as the server's user" in seen.stderr
        state = Path(home) / "state"
        state.mkdir(mode=0o700)
        state.chmod(0o700 if os.geteuid() == 0 else 0)
        seen = run_as_other(Path(home), "status", "--state-dir", str(state))
        state.chmod(0o700)
        assert (seen.returncode, seen.stdout) == (UNSEEN, "")
        assert f"{state}/lock: run this as root or as the server's user" in seen.stderr


def test_a_server_of_another_version_is_not_read(server):
    (fd,) = [fd for fd, target in procfs.descriptors(server.pid).items() if target.startswith(SCOREBOARD)]
    path = Path(f"/proc/{server.pid}/fd/{fd}")
    layout = path.read_bytes()[:8]
    for fake in (bytes(8), layout):
        with path.open("r+b") as scoreboard:
            scoreboard.write(fake)
        seen = status(server)
        assert seen.returncode == (RUNS if fake == layout else UNSEEN)
        assert fake == layout or "of another version" in seen.stderr


def test_output_that_cannot_be_written_is_an_error(server):
    with Path("/dev/full").open("wb") as full:
        seen = subprocess.run([PROGRAM, "status", "--pid", str(server.pid)], check=False, env=bare_environment(),
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=deadline(15))  # fmt: skip
    assert seen.returncode == UNSEEN
    assert "cannot be written" in seen.stderr
