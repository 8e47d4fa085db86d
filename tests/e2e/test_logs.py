"""The log of the server: a file instead of standard error, rotation, a disk without room."""

import asyncio
import os
import re
import resource
import signal

import pytest
from harness import procfs
from harness.client import query, script
from harness.server import run_program
from harness.waiting import eventually, eventually_async

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?P<name>sandstorm|history|worker \d+)\[(?P<pid>\d+)\] "
    r"(?P<level>error|warn|info|debug): (?P<text>.+)"
)


def log_lines(*paths) -> list[re.Match]:
    """The lines of some logs, all of them whole."""
    text = "".join(path.read_text() for path in paths)
    assert text.endswith("\n")
    lines = text.splitlines()
    parsed = [LINE.fullmatch(line) for line in lines]
    assert all(parsed), [line for line, match in zip(lines, parsed, strict=True) if not match]
    return parsed


def rotate(server, *paths) -> None:
    """What logrotate does: renames, then USR1. Waits until no process has a renamed file open."""
    old = [path.rename(f"{path}.{sum(1 for _ in path.parent.glob(path.name + '.*')) + 1}") for path in paths]
    pids = {server.pid} | server.workers()
    server.signal(signal.SIGUSR1)

    def released() -> bool:
        open_files = {target for pid in pids for target in procfs.descriptors(pid).values()}
        return not open_files & {str(path) for path in old}

    eventually(released, 5, "all processes to let go of the old logs")


# --- log_file ---


async def test_the_log_is_in_the_file_and_errors_on_stderr_too(start_server, client, tmp_path):
    log = tmp_path / "sandstorm.log"
    server = start_server("--log-file", log)
    answer = await query(client, server, script(events=1))
    await eventually_async(lambda: f"run {answer.run_id} ended" in log.read_text(), 5, "the end of the run in the log")
    names = {line["name"].split()[0] for line in log_lines(log)}
    assert names >= {"sandstorm", "worker"}
    assert server.stderr == ""
    assert log.stat().st_mode & 0o777 == 0o640 & ~current_umask()
    worker = min(server.workers())
    server.signal(signal.SIGKILL, worker)
    await asyncio.to_thread(server.wait_log, "killed by SIGKILL")
    await eventually_async(lambda: "killed by SIGKILL" in log.read_text(), 5, "the end of the worker in the log")
    assert [line["level"] for line in log_lines(log) if "killed by SIGKILL" in line["text"]] == ["error"]
    assert [match["level"] for match in map(LINE.fullmatch, server.stderr.splitlines())] == ["error"]


def current_umask() -> int:
    """What this process takes away from the modes of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("path", "reason"), [("/nonexistent/log", "No such file"), ("/", "Is a directory"), ("/proc/version/log", "Not a dir")]
)
@pytest.mark.parametrize("mode", [["--check"], []])
def test_a_log_that_cannot_be_opened_refuses_the_start(tmp_path, mode, path, reason):
    done = run_program(*mode, "--log-file", path, "--state-dir", str(tmp_path), env={"E2B_API_KEY": "e2b_00"})
    assert done.returncode == 1
    assert f"setting log_file: {path}: {reason}" in done.stderr


def test_the_check_makes_no_file(tmp_path):
    log = tmp_path / "new.log"
    assert run_program("--check", "--log-file", str(log), env={"E2B_API_KEY": "e2b_00"}).returncode == 0
    assert not log.exists()


async def test_a_reload_changes_the_file_or_is_refused(start_server, client, tmp_path):
    config, first, second = (tmp_path / name for name in ("sandstorm.conf", "first.log", "second.log"))
    config.write_text(f"log_file = {first}\n")
    server = start_server("--config", config)
    config.write_text("log_file = /nonexistent/log\n")
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: "reload refused" in first.read_text(), 5, "the refusal")
    assert "setting log_file: /nonexistent/log: No such file or directory" in first.read_text()
    config.write_text(f"log_file = {second}\n")
    old = server.workers()
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: second.exists() and "drains" in second.read_text(), 10, "the new generation")
    # The old workers hear of it a moment later, and take connections until then.
    await eventually_async(lambda: not old & server.workers(), 10, "the end of the old workers")
    answer = await query(client, server, script(events=1))
    await eventually_async(lambda: f"run {answer.run_id} ended" in second.read_text(), 5, "its run")
    config.write_text("")
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(server.wait_log, "info: generation 3 serves")
    log_lines(first)
    log_lines(second)


async def test_a_rotation_under_load_loses_and_tears_no_line(start_server, client, tmp_path):
    log = tmp_path / "sandstorm.log"
    server = start_server("--log-file", log, workers=4)
    runs: list[str] = []
    done = asyncio.Event()

    async def load():
        while not done.is_set():
            runs.append((await query(client, server, script(events=1))).run_id)

    tasks = [asyncio.create_task(load()) for _ in range(8)]
    for _ in range(3):
        before = len(runs)
        await eventually_async(lambda: len(runs) > before + 20, 30, "some runs")  # noqa: B023
        await asyncio.to_thread(rotate, server, log)
    done.set()
    await asyncio.gather(*tasks)
    files = [log, *tmp_path.glob("sandstorm.log.*")]
    assert len(files) == 4
    await eventually_async(
        lambda: sum(path.read_text().count(" ended outcome=completed") for path in files) == len(runs), 5, "every run"
    )
    texts = [line["text"] for line in log_lines(*files)]
    for run_id in runs:
        assert sum(text.startswith(f"run {run_id} started ") for text in texts) == 1
        assert sum(text.startswith(f"run {run_id} ended ") for text in texts) == 1
    assert len({line["pid"] for line in log_lines(*files) if line["name"] != "sandstorm"}) == 4
    assert f"run {(await query(client, server, script(events=1))).run_id} started" in log.read_text()


def limit_files(pids: set[int], size: int) -> None:
    """What a full disk is like: no file of these processes grows beyond this size."""
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_full_disk_costs_lines_and_nothing_else(start_server, client, tmp_path):
    log = tmp_path / "sandstorm.log"
    log.write_text("".join(f"{'x' * 99}\n" for _ in range(1000)))  # more than all other files together
    server = start_server("--log-file", log, workers=1)
    (worker,) = server.workers()
    size = log.stat().st_size
    limit_files({worker}, size + 40)
    for _ in range(3):
        (await query(client, server, script(events=2))).check_complete(2)
    await asyncio.to_thread(server.wait_log, "cannot write the log, its lines are lost: File too large")
    assert log.stat().st_size == size + 40
    limit_files({worker}, resource.RLIM_INFINITY)
    answer = await query(client, server, script(events=1))
    await eventually_async(lambda: f"run {answer.run_id} ended" in log.read_text(), 5, "lines again")
    lines = log.read_text()[size:].splitlines()
    assert len(lines[0]) == 40  # what was cut short has a line of its own
    assert all(LINE.fullmatch(line) for line in lines[1:])
    (lost,) = re.findall(r" error: (\d+) lines of the log are lost: File too large", "\n".join(lines))
    assert int(lost) == 9  # started, sandbox created, ended
    assert server.stderr.count("\n") == 2


# --- floods ---


async def test_a_flood_of_refusals_is_held_back_and_hides_no_other(start_server, client):
    key = "k" * 40
    server = start_server(workers=1, env={"SANDSTORM_API_KEY": key})
    headers = {"Authorization": f"Bearer {key[::-1]}x"}
    for _ in range(45):
        assert (await client.get(f"{server.url}/runs", headers=headers)).status_code == 401
    target = f"{server.url}/health?{'x' * 9000}"
    assert (await client.get(target)).status_code == 414
    log = await asyncio.to_thread(server.wait_log, "request refused: 414 URI too long")
    assert log.count("request refused: 401 Invalid authentication credentials") == 30
