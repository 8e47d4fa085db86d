"""USR2: another program takes the place of the master, and nobody but the log notices."""

import asyncio
import contextlib
import os
import shutil
import signal
import struct

import pytest
from harness import procfs, versions
from harness.asking import asking
from harness.client import open_query, query, script
from harness.open_streams import EVENTS, OpenStreams
from harness.server import PROGRAM, REPOSITORY, free_port, run_program
from harness.waiting import eventually_async

STREAMS = 20
NOTICE = "upgrade refused"


async def upgrade(server) -> set[int]:
    """USR2; returns the pids of the new workers once they serve."""
    taken = server.stderr.count("took over in process")
    serving = server.stderr.count(" serves, generation ")  # "ready: " may be about the generation of before
    before = server.workers()
    server.signal(signal.SIGUSR2)
    await asyncio.to_thread(server.wait_log, "took over in process", 15, taken + 1)
    await asyncio.to_thread(server.wait_log, " serves, generation ", 15, serving + 1)
    return server.workers() - before


async def running(client, server) -> set[str]:
    """Ids of the runs that GET /runs lists as running."""
    listed = await client.get(f"{server.url}/runs", params={"limit": 1000, "status": "running"})
    return {record["id"] for record in listed.json()}


async def test_three_upgrades_cut_no_stream_refuse_no_request_and_forget_no_run(double, server, client):
    pid = server.pid
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asking(client, server, runs=True))
        held = []
        for number in range(3):
            streams = OpenStreams(double, server, client, STREAMS, gate=f"gate-{number}")
            held.append(await stack.enter_async_context(streams))
            if number == 2:  # only two old generations may drain: the first one goes
                double.release("gate-0")
                for answer in await held[0].answers():
                    answer.check_complete(EVENTS)
            await upgrade(server)
            ids = {stream.run_id for stream in held[number].streams}
            assert ids <= await running(client, server), "runs of before are not known after"
        for number in (1, 2):
            double.release(f"gate-{number}")
            for answer in await held[number].answers():
                answer.check_complete(EVENTS)
    assert server.pid == pid and server.running
    await eventually_async(lambda: len(server.workers()) == 2, 15, "the end of the old workers")
    assert "died" not in server.stderr


async def test_a_run_of_before_is_cancelled_and_recorded_after(double, server, client):
    async with open_query(client, server, script(events=2, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
        new = await upgrade(server)
        assert procfs.socket_owner(stream.client_port, server.workers()) not in new
        cancelled = await client.post(f"{server.url}/runs/{stream.run_id}/cancel")
        assert cancelled.status_code == 200, cancelled.text
        assert (await stream.rest()).error_code == "cancelled"
    record = (await client.get(f"{server.url}/runs/{stream.run_id}")).json()
    assert record["status"] == "cancelled"


async def test_the_log_file_is_written_to_by_both_programs(start_server, tmp_path):
    log = tmp_path / "log"
    server = start_server("--log-file", log)
    server.signal(signal.SIGUSR2)
    await eventually_async(lambda: "generation 2 serves" in log.read_text(), 15, "the upgrade")
    text = log.read_text()
    assert text.index("handing over to") < text.index("took over in process") < text.index("reloading")


async def test_the_lock_of_the_state_directory_outlives_the_exec(double, server, client):
    await upgrade(server)
    second = run_program(
        "--bind", f"127.0.0.1:{free_port()}", "--workers", "1", "--runtime", "e2b", "--project-dir", str(server.cwd),
        env={"E2B_API_KEY": double.key},
    )  # fmt: skip
    assert second.returncode == 1
    assert f"held by another server, pid {server.pid}" in second.stderr


async def test_the_pid_file_is_kept_through_an_upgrade_and_goes_with_the_server(double, start_server, tmp_path):
    pid_file = tmp_path / "sandstorm.pid"
    pid_file.write_text("1\n")  # of a server that was killed, and pid 1 lives
    server = start_server("--pid-file", pid_file)
    await eventually_async(lambda: pid_file.read_text() == f"{server.pid}\n", 10, "the pid file")
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(server.wait_log, "generation 2 serves")
    await upgrade(server)
    assert pid_file.read_text() == f"{server.pid}\n"
    second = run_program("--bind", f"127.0.0.1:{free_port()}", "--runtime", "e2b", "--pid-file", str(pid_file),
                         "--project-dir", str(tmp_path), env={"E2B_API_KEY": double.key})  # fmt: skip
    assert second.returncode == 1
    assert f"held by another server, pid {server.pid}" in second.stderr
    assert await asyncio.to_thread(server.stop) == 0
    assert not pid_file.exists()


async def test_a_killed_worker_is_replaced_after_an_upgrade(double, server, client):
    new = await upgrade(server)
    await eventually_async(lambda: server.workers() == new, 15, "the end of the old workers")
    (await query(client, server, script())).check_complete(3)
    victim = min(new)
    server.signal(signal.SIGKILL, victim)
    await eventually_async(lambda: len(server.workers() - {victim}) == 2, 10, "a new worker")
    (await query(client, server, script())).check_complete(3)


@pytest.fixture
def copied(start_server, tmp_path):
    """A server of a program of its own, which a test may replace: server, program, configuration."""
    program = tmp_path / "sandstorm"
    config = tmp_path / "sandstorm.conf"
    config.write_text("# fine\n")
    versions.install(PROGRAM, program)
    runner = shutil.copy(REPOSITORY / "agent/runner.mjs", tmp_path)
    port = free_port()
    argv = [program, "--config", config, "--workers", 2, "--bind", f"127.0.0.1:{port}", "--agent-runner", runner]
    server = start_server(argv=argv, port=port, workers=2)
    return server, program, config


def replace(program, text: str | None) -> None:
    """Another program, or none, where the server's was."""
    program.unlink()
    if text is not None:
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "No such file or directory"), ("echo no luck >&2; exit 1", "no luck"),
     ("exit 0", "of a version that cannot take over"), ("kill -9 $$", "killed by SIGKILL")],
)  # fmt: skip
async def test_a_program_whose_check_fails_is_refused(copied, client, text, reason):
    server, program, _ = copied
    before = server.workers()
    replace(program, text)
    server.signal(signal.SIGUSR2)
    log = await asyncio.to_thread(server.wait_log, NOTICE)
    assert reason in log.split(NOTICE)[1].splitlines()[0]
    await eventually_async(lambda: server.workers() == before, 10, "the end of the check")
    (await query(client, server, script())).check_complete(3)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("no_such_key = 1", "no_such_key"), ("max_runs = 77", "setting max_runs changed, and needs a restart")],
)
async def test_a_configuration_that_is_no_good_is_refused(copied, client, line, reason):
    server, _, config = copied
    before = server.workers()
    config.write_text(f"# fine\n{line}\n")
    server.signal(signal.SIGUSR2)
    log = await asyncio.to_thread(server.wait_log, NOTICE)
    assert reason in log.split(NOTICE)[1].splitlines()[0]
    await eventually_async(lambda: server.workers() == before, 10, "the end of the check")
    (await query(client, server, script())).check_complete(3)


async def test_another_program_takes_over(copied, client):
    server, program, _ = copied
    own = versions.version_of(PROGRAM)
    for version in (versions.NEXT, own):
        if version == own:
            versions.install(PROGRAM, program)
        else:
            versions.install_next(PROGRAM, program)
        new = await upgrade(server)
        await eventually_async(lambda new=new: server.workers() == new, 15, "the end of the old workers, which serve the old one")
        assert os.stat(f"/proc/{server.pid}/exe").st_ino == program.stat().st_ino
        assert (await client.get(f"{server.url}/health")).json()["version"] == version
        (await query(client, server, script())).check_complete(3)


async def test_when_the_new_workers_cannot_start_the_old_ones_go_on(double, copied, client):
    server, program, _ = copied
    before = server.workers()
    runner = program.with_name("runner.mjs")
    # What the check found good is gone a moment later.
    replace(program, f'case "$*" in *--check) ;; *) rm {runner} ;; esac; exec {PROGRAM} "$@"')
    async with OpenStreams(double, server, client, 4) as held:
        server.signal(signal.SIGUSR2)
        await asyncio.to_thread(server.wait_log, "reload refused")
        assert server.workers() == before
        (await query(client, server, script())).check_complete(3)
        shutil.copy(REPOSITORY / "agent/runner.mjs", runner)
        server.signal(signal.SIGHUP)
        await asyncio.to_thread(server.wait_log, "generation 2 serves")
        double.release("go")
        for answer in await held.answers():
            answer.check_complete(EVENTS)
    await eventually_async(lambda: len(server.workers()) == 2, 15, "the end of the old workers")


def break_layout(server) -> None:
    """The scoreboard looks as if another version had made it."""
    found = [fd for fd, target in procfs.descriptors(server.pid).items() if "sandstorm-scoreboard" in target]
    assert len(found) == 1
    with open(f"/proc/{server.pid}/fd/{found[0]}", "r+b") as scoreboard:
        scoreboard.write(struct.pack("<Q", 0x1234))


async def test_workers_of_another_scoreboard_drain_unseen(double, server, client):
    async with OpenStreams(double, server, client, 4) as held:
        break_layout(server)
        await upgrade(server)
        assert "the scoreboard of before cannot be read (it is of another version)" in server.stderr
        (await query(client, server, script())).check_complete(3)
        assert len(server.workers()) > 2, "an old worker left its streams"
        double.release("go")
        for answer in await held.answers():
            answer.check_complete(EVENTS)
    await eventually_async(lambda: len(server.workers()) == 2, 15, "the end of the old workers")
    await upgrade(server)
    (await query(client, server, script())).check_complete(3)
