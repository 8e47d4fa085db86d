"""The life of the service: reload, stop, killed workers, a killed master, a busy port."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import sys
import termios
import time
from pathlib import Path

import httpx
import pytest
from harness import procfs
from harness.asking import asking
from harness.client import RawConnection, open_query, query, query_bytes, script, status_of
from harness.open_streams import OpenStreams
from harness.server import PROGRAM, free_port, memory_slack_kib, refuses, run_program, seconds_since
from harness.waiting import SLOW, deadline, eventually, eventually_async

OPEN_STREAMS = 50
# The promise: a worker killed with SIGKILL is replaced within this time.
REPLACED_SECONDS = 1.0 * SLOW
# With four workers.
READY_SECONDS = 0.1 * SLOW
MASTER_KIB = 2048
# Longer than a master that is awake is ever away from its loop: the time that passes is what is tested.
ASLEEP_SECONDS = 6


async def reload(server) -> set[int]:
    """HUP; returns the pids of the new workers once they are there."""
    before = server.workers()
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: len(server.workers() - before) >= 2, 10, "a new generation of workers")
    return server.workers() - before


def accepting_worker(server) -> int | None:
    """Which worker takes a new connection."""
    with RawConnection(server) as probe:
        probe.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        probe.read_until(b"}")
        return procfs.socket_owner(probe.socket.getsockname()[1], server.workers())


@contextlib.contextmanager
def others_suspended(server, worker: int):
    """Who connects meanwhile is this worker's client: the others are stopped."""
    others = server.workers() - {worker}
    for pid in others:
        server.suspend(pid)
    try:
        yield
    finally:
        for pid in others:
            server.signal(signal.SIGCONT, pid)


async def test_hup_cuts_no_stream_and_a_new_generation_serves(double, server, client):
    old = server.workers()
    async with contextlib.AsyncExitStack() as stack:
        held = []
        for worker in old:
            with others_suspended(server, worker):
                held.append(await stack.enter_async_context(OpenStreams(double, server, client, OPEN_STREAMS // 2)))
        new = await reload(server)
        await asyncio.to_thread(server.wait_log, "draining ", times=2)  # the old ones accept nobody from now on
        for _ in range(8):
            assert accepting_worker(server) in new
        async with open_query(client, server, script(hold="go")) as fresh:
            await eventually_async(lambda: procfs.socket_owner(fresh.client_port, server.workers()), 5, "its worker")
            assert procfs.socket_owner(fresh.client_port, server.workers()) in new
            assert old <= server.workers(), "an old worker left its streams"
            double.release("go")
            (await fresh.rest()).check_complete(3)
        for streams in held:
            for answer in await streams.answers():
                answer.check_complete(4)
    await eventually_async(lambda: server.workers() == new, 10, "the end of the old workers")
    await double.until(lambda ledger: len(ledger.deleted()) == OPEN_STREAMS + 1, 10, "the deletion of the fresh one's too")


async def test_no_connection_is_refused_by_a_reload(server, client):
    async with asking(client, server):
        for _ in range(3):
            new = await reload(server)
            await eventually_async(lambda new=new: server.workers() == new, 10, "the end of the old workers")


async def test_hup_reads_the_file_again(start_server, tmp_path):
    config = tmp_path / "sandstorm.conf"
    config.write_text("ping_interval = 3\n")
    server = start_server("--config", config)
    config.write_text("ping_interval = 4\nbody_limit = 1KiB\n")
    new = await reload(server)
    await eventually_async(lambda: server.workers() == new, 10, "the end of the old workers")
    with RawConnection(server) as raw:
        raw.send(query_bytes(server, "x" * 2000))
        assert status_of(raw.read_to_end()) == 413


async def test_a_bad_reload_changes_nothing_and_says_why(double, start_server, client, tmp_path):
    config = tmp_path / "sandstorm.conf"
    config.write_text("# fine\n")
    server = start_server("--config", config)
    before = server.workers()
    config.write_text("# fine\n\nno_such_key = 1\n")
    server.signal(signal.SIGHUP)
    log = await asyncio.to_thread(server.wait_log, f"{config}:3")
    assert "no_such_key" in log
    assert server.workers() == before
    (await query(client, server, script())).check_complete(3)


async def test_a_worker_that_served_its_runs_is_replaced_without_a_cut(double, start_server, client):
    # At most 8 runs each.
    server = start_server("--worker-max-requests", "6", "--worker-max-requests-jitter", "2")
    old = server.workers()
    async with contextlib.AsyncExitStack() as stack:
        held = []
        for number, worker in enumerate(sorted(old), start=1):
            with others_suspended(server, worker):
                held.append(await stack.enter_async_context(OpenStreams(double, server, client, 8)))
            await eventually_async(lambda n=number: len(server.workers() - old) >= n, 15, f"replacement {number}")
        assert old <= server.workers(), "an old worker left its streams"
        for _ in range(4):
            (await query(client, server, script())).check_complete(3)
        double.release("go")
        for streams in held:
            for answer in await streams.answers():
                answer.check_complete(4)
    await eventually_async(lambda: not old & server.workers() and len(server.workers()) == 2, 15, "the end of the old ones")
    assert "died" not in server.stderr


async def test_winch_drains_the_workers_and_a_hup_serves_who_waited(double, server, client):
    async with OpenStreams(double, server, client, 4) as held:
        server.signal(signal.SIGWINCH)
        await asyncio.to_thread(server.wait_log, "draining ", times=2)  # the workers' own words: they accept nobody any more
        waiting = asyncio.create_task(query(client, server, script()))
        double.release("go")
        for answer in await held.answers():
            answer.check_complete(4)
    await eventually_async(lambda: not server.workers(), 10, "the end of the workers")
    assert not waiting.done()
    server.signal(signal.SIGHUP)
    (await waiting).check_complete(3)


# Gives itself a terminal, says which, and becomes the server.
ON_A_TERMINAL = """import fcntl, os, sys, termios
ours, theirs = os.openpty()
fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
os.set_inheritable(ours, True)
print(os.ttyname(theirs), flush=True)
os.execv(sys.argv[1], sys.argv[1:])"""


def test_a_resized_terminal_drains_nobody(start_server):
    port = free_port()
    argv = [sys.executable, "-c", ON_A_TERMINAL, PROGRAM, "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    server = start_server(argv=argv, port=port)
    terminal = os.open(server.stdout.strip(), os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    os.close(terminal)
    server.signal(signal.SIGHUP)
    assert "SIGWINCH" not in server.wait_log("generation 2 serves")


async def test_usr1_writes_to_a_new_file_once_the_log_was_renamed(start_server, client, tmp_path):
    log, rotated, port = tmp_path / "log", tmp_path / "log.1", free_port()
    command = f"exec {PROGRAM} --workers 2 --bind 127.0.0.1:{port} 2>>{log}"
    server = start_server(argv=["/bin/sh", "-c", command], port=port, workers=2)
    log.rename(rotated)
    assert (await query(client, server, script())).run_id in rotated.read_text()
    server.signal(signal.SIGUSR1)
    files = [Path(f"/proc/{pid}/fd/2") for pid in server.workers()]
    await eventually_async(lambda: all(file.readlink() == log for file in files), 10, "the workers to open it again")
    run_ids = [(await query(client, server, script())).run_id for _ in range(8)]
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: "generation 2 serves" in log.read_text(), 10, "the master's words")
    assert all(run_id in log.read_text() for run_id in run_ids)
    assert not any(run_id in rotated.read_text() for run_id in run_ids)


async def test_term_lets_streams_end(double, start_server, client):
    server = start_server("--graceful-timeout", "30")
    async with OpenStreams(double, server, client, 10) as held:
        server.signal(signal.SIGTERM)
        await eventually_async(lambda: refuses(server.port), 10, "new connections to be refused")
        double.release("go")
        for answer in await held.answers():
            answer.check_complete(4)
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert len(double.ledger.deleted()) == 10


async def test_term_ends_what_is_left_after_the_grace(double, start_server, client):
    server = start_server("--graceful-timeout", "1")
    async with OpenStreams(double, server, client, 10) as held:
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        for answer in await held.answers():
            assert answer.error_code == "server_shutdown"
            assert answer.events[-1]["error"] == "server is shutting down"
        assert 0.9 <= seconds_since(begin) <= deadline(10)
        assert await asyncio.to_thread(server.wait_exit) == 0
    assert len(double.ledger.deleted()) == 10


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_a_second_signal_ends_everything_now(double, start_server, client, second):
    server = start_server("--graceful-timeout", "60")
    async with OpenStreams(double, server, client, 4) as held:
        server.signal(signal.SIGTERM)
        await eventually_async(lambda: refuses(server.port), 10, "new connections to be refused")
        begin = time.monotonic()
        server.signal(second)
        for answer in await held.answers():
            assert answer.error_code == "server_shutdown"
        assert await asyncio.to_thread(server.wait_exit) == 0
        assert seconds_since(begin) <= deadline(10)
    assert len(double.ledger.deleted()) == 4


async def test_a_stop_waits_for_deletions(double, start_server, client):
    server = start_server("--graceful-timeout", "30")
    double.inject("kill", "status", status=500)
    assert (await query(client, server, script())).events
    server.signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert not double.ledger.alive()


async def test_a_create_in_flight_at_the_stop_is_deleted(double, start_server, client):
    server = start_server("--graceful-timeout", "0")
    double.inject("create", "hold", gate="create")
    waiting = asyncio.create_task(query(client, server, "hello"))
    await double.until(lambda ledger: ledger.of_stage("create"), 10, "the create")
    server.signal(signal.SIGTERM)
    assert (await waiting).error_code == "server_shutdown"
    double.release("create")
    assert await asyncio.to_thread(server.wait_exit) == 0
    assert len(double.ledger.deleted()) == 1


def test_who_connected_before_the_stop_is_answered(start_server):
    """Its request was on the way: it is told, and not cut."""
    server = start_server("--header-timeout", "10m")  # for longer than anybody here waits
    with RawConnection(server) as probe, RawConnection(server) as asker, RawConnection(server) as silent:
        for raw in (probe, asker, silent):
            port = raw.socket.getsockname()[1]
            eventually(lambda port=port: procfs.socket_owner(port, server.workers()), 10, "the connection to be accepted")
        server.signal(signal.SIGTERM)
        server.wait_log("draining ", times=2)
        probe.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of(probe.read_to_end()) == 200
        asker.send(query_bytes(server, script()))
        refused = asker.read_to_end()
        assert status_of(refused) == 503 and b"\r\nRetry-After: " in refused
        assert server.running
        server.signal(signal.SIGTERM)  # a second one waits for nobody
        assert silent.read_to_end() == b""
        assert server.wait_exit() == 0


def test_who_waits_in_the_queue_at_a_stop_is_answered(server):
    """Nobody has accepted these connections yet; closing their socket would reset them."""
    for pid in server.workers():
        server.suspend(pid)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(RawConnection(server)) for _ in range(20)]
        for raw in waiting:
            raw.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        server.signal(signal.SIGTERM)
        server.wait_log("stopping, runs may end")
        for pid in server.workers():
            server.signal(signal.SIGCONT, pid)
        assert [status_of(raw.read_to_end()) for raw in waiting] == [200] * len(waiting)
    assert server.wait_exit() == 0


async def test_an_idle_server_stops_at_once(server):
    begin = time.monotonic()
    assert await asyncio.to_thread(server.stop) == 0
    assert seconds_since(begin) < deadline(6)


@pytest.mark.alone
async def test_a_killed_worker_is_replaced_soon(start_server):
    server = start_server(workers=3)
    seconds = []
    for victim in sorted(server.workers()):  # each on a seat of its own: only the first death there is answered at once
        before = server.workers()
        begin = time.monotonic()
        server.signal(signal.SIGKILL, victim)
        await eventually_async(lambda b=before: server.workers() - b, 10, "a new worker")
        seconds.append(seconds_since(begin))
    assert min(seconds) <= REPLACED_SECONDS, seconds


async def test_a_killed_worker_is_replaced_and_the_others_go_on(double, server, client):
    workers = server.workers()
    victim = min(workers)
    async with contextlib.AsyncExitStack() as stack:
        held = {}
        for worker in workers:
            with others_suspended(server, worker):
                held[worker] = await stack.enter_async_context(OpenStreams(double, server, client, 6))
            assert {held[worker].owner(stream) for stream in held[worker].streams} == {worker}
        server.signal(signal.SIGKILL, victim)
        await eventually_async(lambda: len(server.workers() - {victim}) == 2, 10, "a new worker")
        double.release("go")
        answers = {worker: await streams.answers() for worker, streams in held.items()}
    for answer in answers.pop(victim):
        assert isinstance(answer, httpx.TransportError), "a dead worker's stream ended as if it were complete"
    (others,) = answers.values()
    for answer in others:
        answer.check_complete(4)
    for _ in range(4):
        (await query(client, server, script())).check_complete(3)


async def test_a_hung_worker_is_replaced(start_server, client):
    server = start_server("--worker-timeout", "3")  # a worker that is only kept waiting for a second is not hung
    victim = min(server.workers())
    server.suspend(victim)
    await eventually_async(lambda: not procfs.is_alive(victim), 15, "the end of the hung worker")
    await eventually_async(lambda: len(server.workers()) == 2, 10, "its replacement")
    (await query(client, server, script())).check_complete(3)


def longest_silence_ms(server) -> int:
    """Of all its workers, in longer than a second."""
    longest, end = 0, time.monotonic() + 1.5
    while time.monotonic() < end:
        report = json.loads(run_program("status", "--json", "--pid", str(server.pid)).stdout)
        longest = max(longest, *(worker["heartbeat_age_ms"] for worker in report["workers"]))
    return longest


@pytest.mark.alone
def test_a_short_worker_timeout_makes_signs_of_life_more_frequent(start_server):
    server = start_server("--worker-timeout", "1")
    assert min(longest_silence_ms(server) for _ in range(5)) < 600  # a busy machine can only make them late


async def test_a_machine_that_slept_is_no_reason_to_replace_workers(start_server, client):
    server = start_server("--worker-timeout", "4s")  # more than a busy machine keeps a worker waiting
    workers = server.workers()
    for pid in (server.pid, *workers):
        server.suspend(pid)
    await asyncio.sleep(ASLEEP_SECONDS)
    server.signal(signal.SIGCONT)  # the first to wake up sees that nobody gave a sign of life
    server.signal(signal.SIGTTIN)
    await asyncio.to_thread(server.wait_log, "3 workers wanted")
    for pid in workers:
        server.signal(signal.SIGCONT, pid)
    (await query(client, server, script())).check_complete(3)
    await eventually_async(lambda: len(server.workers()) == 3, 10, "the third worker")
    assert workers < server.workers()
    assert "is silent" not in server.stderr


async def test_a_killed_master_takes_its_workers_and_sandboxes_along(double, server, client):
    workers = server.workers()
    async with OpenStreams(double, server, client, 6) as held:
        server.signal(signal.SIGKILL)
        for answer in await held.answers():
            assert answer.error_code == "server_shutdown"
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletions")
    await eventually_async(lambda: not any(procfs.is_alive(pid) for pid in workers), 10, "the end of the workers")


def test_a_busy_port_is_an_error_that_names_it(double, server):
    second = run_program(
        "--bind", f"127.0.0.1:{server.port}", "--workers", "1", "--runtime", "e2b", env={"E2B_API_KEY": double.key}
    )
    assert second.returncode == 1
    assert f"127.0.0.1:{server.port}" in second.stderr
    assert re.search("in use", second.stderr, re.IGNORECASE)


def test_it_listens_on_ipv6_and_on_several_addresses(start_server):
    port = free_port()
    server = start_server("--bind", f"[::1]:{port}")
    for url in (server.url, f"http://[::1]:{port}"):
        assert httpx.get(f"{url}/health", trust_env=False, timeout=deadline(20)).status_code == 200


def test_an_address_that_is_not_ours_is_an_error(double):
    failed = run_program("--bind", "192.0.2.1:80", "--runtime", "e2b", env={"E2B_API_KEY": double.key})
    assert failed.returncode == 1
    assert "192.0.2.1:80" in failed.stderr


def test_workers_are_told_apart_in_the_log(server):
    eventually(lambda: all(str(pid) in server.stderr for pid in server.workers()), 5, "every worker's pid in the log")


@contextlib.contextmanager
def service_manager(tmp_path):
    """The socket on which a service tells how it is, as NOTIFY_SOCKET names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(deadline(10))
        yield told, {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def hear(told, mark: str) -> str:
    """The next message with a mark."""
    while True:
        text = told.recv(4096).decode()
        if mark in text:
            return text


@pytest.mark.alone
def test_four_workers_are_ready_soon(start_server, tmp_path):
    seconds = []
    with service_manager(tmp_path) as (told, env):
        for _ in range(3):  # the best of them: the machine has other things to do
            begin = time.monotonic()
            server = start_server(workers=4, env=env, ready=False)
            hear(told, "READY=1")
            seconds.append(seconds_since(begin))
            assert server.stop() == 0
    print(f"from start to READY: {[round(one * 1000) for one in seconds]} ms")
    assert min(seconds) <= READY_SECONDS


async def test_the_service_manager_hears_of_workers_runs_and_upgrades(double, start_server, client, tmp_path):
    with service_manager(tmp_path) as (told, env):
        server = start_server(env=env)
        listening = f"listening on 127.0.0.1:{server.port}"
        assert f"STATUS=2 workers, 0 runs, {listening}" in hear(told, "READY=1")
        async with OpenStreams(double, server, client, 3):
            assert await asyncio.to_thread(hear, told, "3 runs") == f"STATUS=2 workers, 3 runs, {listening}"
            server.signal(signal.SIGUSR2)
            assert "MONOTONIC_USEC=" in await asyncio.to_thread(hear, told, "RELOADING=1")
            assert "STATUS=2 workers, 3 runs" in await asyncio.to_thread(hear, told, f"READY=1\nMAINPID={server.pid}\n")


@pytest.mark.parametrize("interval", [2, 0.5])
async def test_a_service_manager_that_watches_hears_twice_per_interval(start_server, tmp_path, interval):
    with service_manager(tmp_path) as (told, env):
        start_server(env=env | {"WATCHDOG_USEC": f"{interval * 1_000_000:.0f}"})
        hear(told, "READY=1")
        hear(told, "WATCHDOG=1")
        begin = time.monotonic()
        for _ in range(4):  # together: one of them may be late on a busy machine
            assert await asyncio.to_thread(hear, told, "WATCHDOG=1") == "WATCHDOG=1"
        assert seconds_since(begin) < 4 * interval * SLOW, "it would have been killed"


async def test_the_master_is_small(start_server):
    server = start_server(workers=4)
    used = [procfs.own_kib(server.pid)]
    for number, change in enumerate([signal.SIGHUP, signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP], start=2):
        server.signal(change)
        await asyncio.to_thread(server.wait_log, f"generation {number} serves")
        used.append(procfs.own_kib(server.pid))
    print(f"the master's own memory: {used} KiB")
    assert max(used) <= memory_slack_kib(MASTER_KIB)
