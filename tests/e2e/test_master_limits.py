"""What a master is refused, by the kernel or by what it is doing: it says so, goes on, and makes up for it."""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import leaks
from harness.client import open_query, query, script
from harness.server import PROGRAM, REPOSITORY, Server, bare_environment, free_port, run_program
from harness.waiting import deadline, eventually_async

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

AS_NOBODY = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


@pytest.fixture
def nobodys():
    """A folder of nobody's, which every user may enter, unlike pytest's own; with the agent's runner."""
    folder = Path(tempfile.mkdtemp(prefix="sandstorm-limits-"))
    folder.chmod(0o755)
    (folder / "state").mkdir()
    shutil.chown(folder / "state", "nobody", "nogroup")
    shutil.copy(REPOSITORY / "agent/runner.mjs", folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server_of_nobody(double, nobodys):
    """A server whose master has no privileges, with the checks for leftovers."""
    port = free_port()
    argv = [*AS_NOBODY, PROGRAM, "--workers", 2, "--bind", f"127.0.0.1:{port}", "--runtime", "e2b",
            "--state-dir", nobodys / "state", "--agent-runner", nobodys / "runner.mjs"]  # fmt: skip
    keys = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url, "E2B_SANDBOX_URL": double.url,
            "ANTHROPIC_API_KEY": "test-key", "SANDSTORM_USER": ""}  # fmt: skip
    server = Server(nobodys / "server", argv, keys, port)
    server.double_port = double.port
    try:
        server.wait_ready(2)
        yield server
        assert server.stop() == 0, server.stderr
        leaks.check_processes(server)
        leaks.check_log(server)
    finally:
        print(server.stderr[-4000:])
        server.destroy()


def run_as_nobody(*args, nofile: int | None = None) -> subprocess.CompletedProcess:
    """The program to its end, without privileges."""
    limit = [] if nofile is None else ["prlimit", f"--nofile={nofile}:{nofile}"]
    command = [str(word) for word in (*limit, *AS_NOBODY, PROGRAM, *args)]
    environment = bare_environment() | {"SANDSTORM_USER": ""}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=deadline(15), check=False)


def limit_processes(server, count: int) -> None:
    """How many its user may have when it asks for one more; as that user, for root is not quite root everywhere."""
    soft = "unlimited" if count == resource.RLIM_INFINITY else count
    subprocess.run([*AS_NOBODY, "prlimit", "--pid", str(server.pid), f"--nproc={soft}:"], check=True)


@as_root
async def test_without_processes_to_be_had_it_goes_on_with_those_it_has(server_of_nobody, client):
    server = server_of_nobody
    busy = "Resource temporarily unavailable"
    limit_processes(server, 0)
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(server.wait_log, f"cannot check the project: {busy}")
    server.signal(signal.SIGUSR2)
    await asyncio.to_thread(server.wait_log, f"upgrade refused: {busy}")
    victim = min(server.workers())
    server.signal(signal.SIGKILL, victim)
    await asyncio.to_thread(server.wait_log, f"cannot start a worker: {busy}")
    (await query(client, server, script())).check_complete(3)
    assert len(server.workers() - {victim}) == 1
    limit_processes(server, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    await eventually_async(lambda: len(server.workers() - {victim}) == 2, 20, "another worker")
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(server.wait_log, "generation 2 serves")
    (await query(client, server, script())).check_complete(3)


@as_root
def test_too_few_descriptors_are_refused_with_a_number_that_fits(nobodys):
    args = ["--runtime", "e2b", "--state-dir", nobodys / "state", "--agent-runner", nobodys / "runner.mjs",
            "--bind", f"127.0.0.1:{free_port()}"]  # fmt: skip
    for action in ([], ["--check"]):
        refused = run_as_nobody(*args, *action, "--max-runs", 1000, nofile=512)
        assert refused.returncode == 1
        found = re.search(r"max_runs = 1000 needs \d+ open files in a worker, and the hard limit is 512: .*"
                          r"set max_runs to (\d+) or less", refused.stderr)  # fmt: skip
        assert found, refused.stderr
    fitting = int(found[1])
    assert run_as_nobody(*args, "--check", "--max-runs", fitting, nofile=512).returncode == 0
    assert run_as_nobody(*args, "--check", "--max-runs", fitting + 1, nofile=512).returncode == 1


@as_root
def test_a_directory_that_may_not_be_written_is_named_with_advice(nobodys):
    done = run_as_nobody("--runtime", "e2b", "--state-dir", nobodys / "state", "--agent-runner", nobodys / "runner.mjs",
                         "--bind", f"unix:{nobodys}/s.sock")  # fmt: skip
    assert done.returncode == 1
    assert f"{nobodys}/s.sock: Permission denied (" in done.stderr and "a directory that may be written" in done.stderr


@pytest.mark.parametrize("check", [[], ["--check"]], ids=["start", "check"])
def test_more_addresses_than_it_can_have_are_refused(tmp_path, check):
    port = free_port()
    binds = [word for number in range(1, 66) for word in ("--bind", f"127.0.1.{number}:{port}")]
    done = run_program("--runtime", "e2b", "--project-dir", str(tmp_path), *binds, *check, env={"E2B_API_KEY": "e2b_" + "0" * 40})
    assert done.returncode == 1
    assert f"cannot listen on 127.0.1.65:{port}: a server listens on 64 addresses at most" in done.stderr


@pytest.mark.parametrize(("args", "reason"), [
    (["--runtime", "local", "--sandboxd", "/nonexistent/sandboxd"], "setting sandboxd: /nonexistent/sandboxd: No such file"),
    (["--runtime", "local", "--sandboxd", "/"], "setting sandboxd: /: not a file"),
    (["--agent-runner", "/nonexistent/runner.mjs"], "setting agent_runner: /nonexistent/runner.mjs: No such file"),
    (["--pid-file", "/nonexistent/pid"], "/nonexistent/pid: No such file"),
    (["--log-file", "/nonexistent/log"], "setting log_file: /nonexistent/log: No such file"),
])  # fmt: skip
def test_the_check_names_what_is_missing(args, reason):
    done = run_program("--check", *args)
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_program_that_stands_alone_says_what_it_misses(tmp_path):
    alone = Path(shutil.copy(PROGRAM, tmp_path))
    done = run_program("--check", "--runtime", "local", "--project-dir", str(tmp_path), program=alone)
    assert done.returncode == 1
    for setting in ("agent_runner", "sandboxd"):
        assert f"setting {setting}: not set, and not found beside the program" in done.stderr, done.stderr


async def test_while_it_stops_it_ignores_what_would_change_it(double, server, client):
    async with open_query(client, server, script(events=2, hold="gate", hold_after=1)) as stream:
        await stream.next_numbered()
        server.signal(signal.SIGTERM)
        await asyncio.to_thread(server.wait_log, "SIGTERM")
        for number, words in (
            (signal.SIGHUP, "SIGHUP ignored: the server stops"),
            (signal.SIGUSR2, "SIGUSR2 ignored: the server stops"),
            (signal.SIGTTIN, "SIGTTIN ignored: the server starts, reloads or stops"),
            (signal.SIGTTOU, "SIGTTOU ignored: the server starts, reloads or stops"),
            (signal.SIGWINCH, "SIGWINCH ignored: the server starts, reloads or stops"),
        ):
            server.signal(number)
            await asyncio.to_thread(server.wait_log, words)
        double.release("gate")
        (await stream.rest()).check_complete(2)
    assert await asyncio.to_thread(server.wait_exit) == 0


async def test_workers_that_die_young_are_waited_for(server, client):
    victim = min(server.workers())
    before = server.workers()
    server.signal(signal.SIGKILL, victim)
    young = (await eventually_async(lambda: server.workers() - before, 10, "its successor")).pop()
    server.signal(signal.SIGKILL, young)
    await asyncio.to_thread(server.wait_log, "die young: the next one starts in")
    await eventually_async(lambda: len(server.workers() - {victim, young}) == 2, 15, "two workers")
    (await query(client, server, script())).check_complete(3)
