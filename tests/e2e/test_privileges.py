"""Started as root: the master binds, the workers are another user's."""

import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from harness import leaks, procfs
from harness.client import open_query, query, script
from harness.server import PROGRAM, REPOSITORY, Server, free_port, run_program
from harness.waiting import eventually_async

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="who is not root has no privileges to give up")

USER = "nobody"
RESULT = """echo '{"type":"result","subtype":"success","num_turns":1}'"""


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sandstorm-privileges-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start_as_nobody(double, open_folder):
    """start_as_nobody(*args, runtime="e2b"): a server of root's whose workers are nobody's."""
    started: list[Server] = []
    runner = shutil.copy(REPOSITORY / "agent/runner.mjs", open_folder)

    def start(*args, runtime="e2b") -> Server:
        port = free_port()
        home = open_folder / f"server-{len(started)}"
        argv = [PROGRAM, "--user", USER, "--workers", 2, "--bind", f"127.0.0.1:{port}", "--agent-runner", runner,
                "--runtime", runtime, *args]  # fmt: skip
        env = {"E2B_API_KEY": double.key, "E2B_API_URL": double.url, "E2B_SANDBOX_URL": double.url,
               "ANTHROPIC_API_KEY": "test-key", "XDG_RUNTIME_DIR": str(home / "tmp")}  # fmt: skip
        server = Server(home, argv, env, port)
        server.service_ports.add(double.port)
        started.append(server)
        server.wait_ready(2)  # a worker that was only forked is still root's
        return server

    try:
        yield start
        for server in started:
            assert server.stop() == server.expected_exit, server.stderr
            leaks.check_processes(server)
            leaks.check_files(server)
            leaks.check_log(server)
    finally:
        for server in started:
            print(server.stderr[-4000:])
            server.destroy()


def status(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def check_unprivileged(pid: int) -> None:
    """Nobody, for good."""
    nobody = pwd.getpwnam(USER)
    found = status(pid)
    assert set(found["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(found["Gid"].split()) == {str(nobody.pw_gid)}
    assert found["Groups"].split() == [str(nobody.pw_gid)]
    assert {found[key] for key in ("CapPrm", "CapEff", "CapAmb", "CapInh")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"
    assert Path(f"/proc/{pid}/maps").stat().st_uid == 0, "its memory can be read by its user"


async def test_workers_are_another_user_s_and_keep_the_history(double, start_as_nobody, client):
    server = start_as_nobody()
    assert set(status(server.pid)["Uid"].split()) == {"0"}
    for pid in server.workers():
        check_unprivileged(pid)
    answer = await query(client, server, script())
    answer.check_complete(3)
    state = server.cwd / ".sandstorm"
    await eventually_async(lambda: (state / "runs.jsonl").exists() and answer.run_id in (state / "runs.jsonl").read_text(),
                           10, "its record")  # fmt: skip
    assert {path.stat().st_uid for path in (state, *state.iterdir())} == {pwd.getpwnam(USER).pw_uid}
    assert "history" not in server.stderr


async def test_they_are_after_a_reload_and_an_upgrade_too(double, start_as_nobody, client):
    server = start_as_nobody()
    for number, change in enumerate([signal.SIGHUP, signal.SIGUSR2], start=2):
        before = server.workers()
        server.signal(change)
        await eventually_async(lambda n=number: f"generation {n} serves" in server.stderr, 15, change.name)
        await eventually_async(lambda b=before: not b & server.workers(), 15, "the end of the old workers")
        for pid in server.workers():
            check_unprivileged(pid)
        (await query(client, server, script())).check_complete(3)


async def test_they_reach_the_local_runtime_and_nobody_else_does(start_as_nobody, client):
    server = start_as_nobody("--template", "base", "--agent-command", RESULT, runtime="local")
    assert (await query(client, server, "hi")).events[-1]["type"] == "result"
    daemon = next(pid for pid in server.workers() if "sandboxd" in procfs.command(pid))
    assert set(status(daemon)["Uid"].split()) == {"0"}
    found = next(server.tmp.glob("sandstorm-*/sandboxd.sock"))
    assert found.stat().st_mode & 0o777 == 0o600
    assert found.parent.stat().st_mode & 0o777 == 0o700


async def test_rotated_logs_are_theirs(double, start_as_nobody, client, open_folder):
    """Though they could not make a file in that folder."""
    logs = open_folder / "logs"
    logs.mkdir()
    server = start_as_nobody("--log-file", logs / "log", "--access-log", logs / "access")
    for name in ("log", "access"):
        (logs / name).rename(logs / f"{name}.1")
    server.signal(signal.SIGUSR1)
    workers = server.workers()
    wanted = {str(logs / "log"), str(logs / "access")}
    await eventually_async(
        lambda: all(wanted <= set(procfs.descriptors(pid).values()) for pid in workers), 10, "the new files"
    )
    run_id = (await query(client, server, script())).run_id
    assert run_id in (logs / "log").read_text()
    await eventually_async(lambda: run_id in (logs / "access").read_text(), 5, "the line of the request")


async def test_a_killed_master_takes_them_along(double, start_as_nobody, client):
    server = start_as_nobody()
    workers = server.workers()
    async with open_query(client, server, script(events=2, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
        server.signal(signal.SIGKILL)
        assert (await stream.rest()).error_code == "server_shutdown"
    server.wait_exit()
    await eventually_async(lambda: not any(procfs.is_alive(pid) for pid in workers), 10, "the end of the workers")
    server.expected_exit = -signal.SIGKILL


def test_root_has_to_say_whom_the_workers_run_as(tmp_path):
    args = ["--bind", f"127.0.0.1:{free_port()}", "--runtime", "e2b", "--project-dir", str(tmp_path)]
    refused = run_program(*args, env={"SANDSTORM_USER": "", "E2B_API_KEY": "e2b_00"})
    assert refused.returncode == 1
    assert "started as root" in refused.stderr and "--user" in refused.stderr
    for option in ("user", "group"):
        unknown = run_program(*args, f"--{option}", "no-such-name", env={"E2B_API_KEY": "e2b_00"})
        assert unknown.returncode == 1
        assert f"setting {option}: no-such-name" in unknown.stderr
