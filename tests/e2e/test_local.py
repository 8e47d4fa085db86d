"""The server on the local runtime: sandboxd is the master's child, and everything ends with the server.

The agent is a shell command in a sandbox of the template `base`: what is tested here needs no model.
"""

import asyncio
import signal

import pytest
from harness import leaks, procfs
from harness.client import open_query, query
from harness.server import PROGRAM, Server, free_port, run_program
from harness.waiting import eventually_async

RESULT = """echo '{"type":"result","subtype":"success","num_turns":1}'"""
# A line at once, which cannot be missed, and the result when a test has had its time.
LATER = f"""echo '{{"type":"assistant"}}'; sleep 2; {RESULT}"""
SILENCE = "echo '{\"type\":\"assistant\"}'; sleep 600"
LOCAL = {"ANTHROPIC_API_KEY": "test-key"}


@pytest.fixture
def start_local(tmp_path):
    """start_local(command, *args): a server whose agents are that command; ends with the checks for leftovers."""
    started: list[Server] = []

    def start(command: str, *args) -> Server:
        port = free_port()
        argv = [PROGRAM, "--workers", "2", "--bind", f"127.0.0.1:{port}", "--runtime", "local", "--template", "base",
                "--agent-command", command, *args]  # fmt: skip
        home = tmp_path / f"server-{len(started)}"
        server = Server(home, argv, LOCAL | {"XDG_RUNTIME_DIR": str(home / "tmp")}, port)
        started.append(server)
        server.wait_ready()
        return server

    try:
        yield start
        for server in started:
            if server.running:
                assert server.stop() == 0, server.stderr
            leaks.check_files(server)
            leaks.check_log(server)
    finally:
        for server in started:
            server.destroy()


def sandboxd(server: Server) -> int:
    """The pid of the server's sandboxd."""
    found = [pid for pid in server.workers() if "sandboxd" in procfs.command(pid)]
    assert len(found) == 1, found
    return found[0]


async def another_sandboxd(server: Server, daemon: int) -> int:
    """The pid of the one that takes a dead one's place, once it is a program of its own."""

    def successors():
        return [pid for pid in server.workers() - {daemon} if "sandboxd" in procfs.command(pid)]

    return (await eventually_async(successors, 10, "another sandboxd"))[0]


async def test_a_run_gives_its_result_and_its_files_and_leaves_no_sandbox(start_local, client):
    server = start_local(f"cat given.txt; echo made >made.txt; {RESULT}")
    answer = await query(client, server, "hi", files={"given.txt": "plain text\n"})
    assert answer.texts[0] == "plain text"
    assert [event["type"] for event in answer.events] == ["result", "file"]
    assert [event["name"] for event in answer.of_type("file")] == ["made.txt"]  # what was given and not changed stays
    daemon = sandboxd(server)
    await eventually_async(lambda: not procfs.children(daemon), 5, "the end of every sandbox")


@pytest.mark.parametrize("settings, text", [
    ([], "10.0.0.1:80 is not allowed: it leads to a private address (10.0.0.0/8). "),
    (["--network", "none"], "10.0.0.1:80 is not allowed: sandboxes have no internet (the setting network is none). "),
])  # fmt: skip
async def test_the_network_of_the_settings_is_that_of_the_sandboxes(start_local, client, settings, text):
    server = start_local(f"curl -s -x 127.0.0.1:3128 http://10.0.0.1/; {RESULT}", *settings)
    answer = await query(client, server, "hi")
    assert answer.texts[:-1] == [text + "The setting network_allow = 10.0.0.1:80 would allow it."]


async def test_a_client_that_leaves_ends_its_sandbox(start_local, client):
    server = start_local(SILENCE)
    daemon = sandboxd(server)
    async with open_query(client, server, "hi") as stream:
        await stream.next()
        assert procfs.children(daemon)
    await eventually_async(lambda: not procfs.children(daemon), 5, "the end of the sandbox")


async def test_a_killed_sandboxd_loses_its_runs_and_is_replaced(start_local, client):
    server = start_local(SILENCE)
    daemon = sandboxd(server)
    async with open_query(client, server, "hi") as stream:
        await stream.next()
        sandboxes = procfs.children(daemon)
        server.signal(signal.SIGKILL, daemon)
        answer = await stream.rest()
    assert answer.error_code == "sandbox_lost"
    await eventually_async(lambda: not [pid for pid in sandboxes if procfs.is_alive(pid)], 5, "the end of its sandboxes")
    await another_sandboxd(server, daemon)
    async with open_query(client, server, "hi") as stream:
        assert await stream.next() == '{"type":"assistant"}'


async def test_a_reload_keeps_the_sandboxes(start_local, client):
    server = start_local(LATER)
    daemon = sandboxd(server)
    async with open_query(client, server, "hi") as stream:
        await stream.next()
        server.signal(signal.SIGHUP)
        answer = await stream.rest()
    assert answer.events[-1]["type"] == "result"
    assert sandboxd(server) == daemon


async def test_an_upgrade_keeps_sandboxd_and_its_sandboxes(start_local, client):
    server = start_local(LATER)
    daemon = sandboxd(server)
    async with open_query(client, server, "hi") as stream:
        await stream.next()
        server.signal(signal.SIGUSR2)
        await asyncio.to_thread(server.wait_log, "generation 2 serves")
        answer = await stream.rest()
    assert answer.events[-1]["type"] == "result"
    assert sandboxd(server) == daemon
    server.signal(signal.SIGKILL, daemon)  # whose end the new program sees, and whose socket it still holds
    successor = await another_sandboxd(server, daemon)
    await asyncio.to_thread(server.wait_log, f"sandboxd (pid {successor}) serves")
    assert (await query(client, server, "hi")).events[-1]["type"] == "result"


async def test_a_killed_master_takes_everything_with_it(start_local, client):
    server = start_local(SILENCE)
    daemon = sandboxd(server)
    everybody = server.workers()
    async with open_query(client, server, "hi") as stream:
        await stream.next()
        everybody |= procfs.children(daemon)
        server.signal(signal.SIGKILL)
        answer = await stream.rest()
    assert answer.error_code == "server_shutdown"
    server.wait_exit()
    await eventually_async(
        lambda: not [pid for pid in everybody if procfs.is_alive(pid)], 15, "the end of workers, sandboxd and sandboxes"
    )
    # Nobody was left to remove the socket's folder: that is the price of SIGKILL, paid here.
    for left in server.tmp.glob("sandstorm-*"):
        for entry in left.iterdir():
            entry.unlink()
        left.rmdir()


def test_a_runtime_that_cannot_start_is_a_reason_not_to_start():
    port = free_port()
    ended = run_program("--runtime", "local", "--sandboxd", "/bin/false", "--bind", f"127.0.0.1:{port}", env=LOCAL)
    assert ended.returncode == 1
    assert "sandboxd" in ended.stderr and "does not start" in ended.stderr


def test_the_check_of_the_runtime_says_that_this_machine_can():
    ended = run_program("--check", program=PROGRAM.parent / "sandboxd")
    assert ended.returncode == 0, ended.stderr
    assert "can run sandboxes" in ended.stdout


