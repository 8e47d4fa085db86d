"""Where it listens: unix sockets, sockets of the service manager, and a `bind` that changes on HUP."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys

import httpx
import pytest
from harness.asking import asking
from harness.client import open_query, query, query_bytes, script, status_of
from harness.leaving import assert_leaving_is_noticed
from harness.server import PROGRAM, ROOT_SAYS_SO, free_port, refuses, run_program
from harness.waiting import deadline, eventually

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def read_to_end(connection: socket.socket) -> bytes:
    """Everything up to the server's close."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def ask_path(path) -> int:
    """The status of /health over a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(deadline(10))
        connection.connect(str(path))
        connection.sendall(HEALTH)
        return status_of(read_to_end(connection))


def ask_port(port: int, host: str = "127.0.0.1") -> int:
    """The status of /health over TCP."""
    return httpx.get(f"http://{host}:{port}/health", trust_env=False, timeout=deadline(20)).status_code


# --- unix sockets ---


@pytest.mark.parametrize("mode", [None, "0600", "777"])
def test_a_unix_socket_has_its_mode_and_goes_with_the_server(start_server, tmp_path, mode):
    path = tmp_path / "s.sock"
    server = start_server("--bind", f"unix:{path}", *(["--unix-mode", mode] if mode else []))
    assert ask_path(path) == 200
    assert stat.S_IMODE(path.stat().st_mode) == int(mode or "0660", 8)
    assert f"unix:{path}" in server.stderr
    assert server.stop() == 0
    assert not path.exists()


def test_a_unix_socket_has_its_owner(start_server, tmp_path):
    path = tmp_path / "s.sock"
    if os.getuid() != 0:
        pytest.fail("this test needs root")
    start_server("--bind", f"unix:{path}", "--unix-owner", "nobody:daemon")
    assert (path.owner(), path.group()) == ("nobody", "daemon")


def test_a_client_of_a_unix_socket_that_leaves_is_noticed(double, start_server, tmp_path):
    path = tmp_path / "s.sock"
    server = start_server("--bind", f"unix:{path}", "--ping-interval", "0")

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return connection

    assert_leaving_is_noticed(double, server, connect)


@pytest.mark.parametrize(("trusted", "seen"), [("unix", "192.0.2.7"), ("127.0.0.1", "unix")])
def test_forwarded_headers_count_over_unix_sockets_if_they_are_trusted(start_server, tmp_path, trusted, seen):
    path = tmp_path / "s.sock"
    server = start_server("--bind", f"unix:{path}", "--trusted-proxies", trusted)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nExpect: nothing\r\n\r\n")
        assert status_of(read_to_end(connection)) == 417
    server.wait_log(f"417 Expectation Failed, client {seen}")


def test_a_stale_socket_is_replaced_and_a_served_one_is_not(double, start_server, tmp_path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = start_server("--bind", f"unix:{path}")
    assert ask_path(path) == 200
    assert "removing the stale socket" in server.stderr
    second = run_program("--bind", f"unix:{path}", "--runtime", "e2b", env={"E2B_API_KEY": double.key})
    assert second.returncode == 1
    assert f"cannot listen on unix:{path}: Address already in use" in second.stderr
    assert ask_path(path) == 200


def test_a_file_that_is_no_socket_is_left_alone(double, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    done = run_program("--bind", f"unix:{path}", "--runtime", "e2b", env={"E2B_API_KEY": double.key})
    assert done.returncode == 1
    assert "it is no socket" in done.stderr
    assert path.read_text() == "data"


def test_a_socket_that_another_server_took_over_is_not_removed(start_server, tmp_path):
    path = tmp_path / "s.sock"
    first = start_server("--bind", f"unix:{path}")
    path.unlink()
    start_server("--bind", f"unix:{path}")
    assert first.stop() == 0
    assert ask_path(path) == 200


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--bind", "unix:relative"], "expected unix:/path"),
        (["--bind", "unix:/" + "x" * 108], "too long for a socket"),
        (["--bind", "127.0.0.1:1;http2"], "the only option is ;proxy_protocol"),
        (["--bind", "h" * 260 + ":80"], "the host is too long"),
        (["--unix-mode", "0888"], "setting unix_mode"),
        (["--unix-mode", "01777"], "setting unix_mode"),
        (["--unix-owner", "nobody-of-this-name"], "setting unix_owner"),
        (["--unix-owner", ":no-group-of-this-name"], "setting unix_owner"),
    ],
)
def test_what_cannot_be_listened_on_is_refused_with_the_reason(args, reason):
    done = run_program("--check", *args)
    assert done.returncode == 1
    assert reason in done.stderr


# --- a bind that changes ---


@pytest.fixture
def changing(start_server, tmp_path):
    """A server whose bind is in its file: (server, a function that changes it and sends HUP)."""
    config = tmp_path / "sandstorm.conf"
    port = free_port()
    config.write_text(f"bind = 127.0.0.1:{port}\n")
    server = start_server(argv=[PROGRAM, "--workers", 2, "--config", config], port=port, workers=2)

    def change(*binds: str) -> None:
        config.write_text(f"bind = {','.join(binds)}\n")
        server.signal(signal.SIGHUP)

    return server, change


async def test_a_changed_bind_opens_the_new_before_it_closes_the_old(double, changing, client, tmp_path):
    server, change = changing
    path, port = tmp_path / "s.sock", free_port()
    async with open_query(client, server, script(events=4, hold="go", hold_after=1)) as stream:
        await stream.next_numbered()
        change(f"127.0.0.1:{port}", f"unix:{path}")
        await asyncio.to_thread(server.wait_log, "generation 2 serves")
        assert await asyncio.to_thread(ask_port, port) == 200
        assert await asyncio.to_thread(ask_path, path) == 200
        await asyncio.to_thread(eventually, lambda: refuses(server.port), 10, "the old address to be closed")
        double.release("go")
        (await stream.rest()).check_complete(4)
    await asyncio.to_thread(server.wait_log, f"listening on 127.0.0.1:{port} unix:{path}")
    change(f"127.0.0.1:{server.port}")
    await asyncio.to_thread(server.wait_log, "generation 3 serves")
    await asyncio.to_thread(eventually, lambda: not path.exists(), 10, "the old socket to go")
    (await query(client, server, script())).check_complete(3)


async def test_an_address_that_stays_refuses_nobody_while_others_change(changing, client, tmp_path):
    server, change = changing
    async with asking(client, server):
        for turn in range(4):
            change(f"127.0.0.1:{server.port}", *([f"unix:{tmp_path}/{turn}.sock"] if turn % 2 == 0 else []))
            await asyncio.to_thread(server.wait_log, f"generation {turn + 2} serves")


async def test_a_busy_address_refuses_the_reload(changing, client, tmp_path):
    server, change = changing
    workers = server.workers()
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = other.getsockname()[1]
        change(f"unix:{tmp_path}/s.sock", f"127.0.0.1:{busy}")
        log = await asyncio.to_thread(server.wait_log, "reload refused")
    assert f"cannot listen on 127.0.0.1:{busy}: Address already in use" in log
    assert server.workers() == workers
    assert not (tmp_path / "s.sock").exists(), "what was opened for it is closed again"
    (await query(client, server, script())).check_complete(3)
    change(f"127.0.0.1:{server.port}")
    await asyncio.to_thread(server.wait_log, "generation 2 serves")


# --- sockets of the service manager ---

# What systemd does: the sockets as descriptors 3, 4, … and the pid that exec keeps.
ACTIVATE = """
import os, sys
count = int(sys.argv[1])
fds = [int(fd) for fd in sys.argv[2].split(",") if fd]
high = [os.dup(fd) for fd in fds]
for place, fd in enumerate(high):
    os.dup2(fd, 100 + place)
for place in range(len(high)):
    os.dup2(100 + place, 3 + place)
os.closerange(3 + len(high), 200)
os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid() + int(sys.argv[3])))
os.execv(sys.argv[4], sys.argv[4:])
"""


def activated(sockets, *args, count=None, pid_offset=0) -> list:
    """The command line of a server that is given these sockets."""
    numbers = ",".join(str(made.fileno()) for made in sockets)
    return [sys.executable, "-c", ACTIVATE, len(sockets) if count is None else count, numbers, pid_offset, PROGRAM, *args]


def start_activated(double, tmp_path, sockets, *args, **options) -> subprocess.CompletedProcess:
    """A server that does not come up: its end."""
    command = [str(word) for word in activated(sockets, "--runtime", "e2b", *args, **options)]
    for made in sockets:
        os.set_inheritable(made.fileno(), True)
    environment = ROOT_SAYS_SO | {"PATH": os.environ["PATH"], "E2B_API_KEY": double.key}
    return subprocess.run(command, check=False, env=environment, cwd=tmp_path, close_fds=False, capture_output=True,
                          text=True, timeout=deadline(15))  # fmt: skip


def test_inherited_sockets_take_the_place_of_bind(start_server, tmp_path, monkeypatch):
    path = tmp_path / "given.sock"
    unused = free_port()
    monkeypatch.setattr(subprocess, "Popen", leaky_popen(subprocess.Popen))
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        for made in (tcp, unix):
            os.set_inheritable(made.fileno(), True)
        port = tcp.getsockname()[1]
        args = ("--workers", 2, "--bind", f"127.0.0.1:{unused}")
        server = start_server(argv=activated([tcp, unix], *args), port=port)
    assert ask_path(path) == 200
    assert refuses(unused)
    assert "the setting bind has no effect" in server.stderr
    server.signal(signal.SIGHUP)
    server.wait_log("generation 2 serves")
    assert (ask_port(port), ask_path(path)) == (200, 200)
    assert server.stop() == 0
    assert path.exists(), "the file is the service manager's"


def leaky_popen(original):
    """Popen that leaves inheritable descriptors open, as a service manager would."""

    def popen(*args, **options):
        return original(*args, **options | {"close_fds": False})

    return popen


def test_sockets_meant_for_another_process_are_not_taken(double, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        done = start_activated(double, tmp_path, [tcp], "--bind", "192.0.2.1:80", pid_offset=1)
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1:80" in done.stderr


def test_inherited_descriptors_that_do_not_listen_are_refused(double, tmp_path):
    with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as datagram, open("/dev/null") as no_socket:
        for made, fault in ((idle, "does not listen"), (datagram, "is no stream socket"), (no_socket, "is no socket")):
            done = start_activated(double, tmp_path, [made])
            assert done.returncode == 1
            assert f"LISTEN_FDS=1: descriptor 3 {fault}" in done.stderr
        done = start_activated(double, tmp_path, [], count=1)
        assert "descriptor 3 is no" in done.stderr  # not open, or one of the server's own by now
    for count in (0, 65, 10**12):
        done = start_activated(double, tmp_path, [], count=count)
        assert done.returncode == 1
        assert f"LISTEN_FDS={count}: expected 1 to 64 sockets" in done.stderr


# --- an upgrade in place ---


def test_an_upgrade_keeps_the_sockets_and_knows_what_they_are(changing, tmp_path):
    server, change = changing
    path = tmp_path / "s.sock"
    change(f"127.0.0.1:{server.port}", f"unix:{path}")
    server.wait_log("generation 2 serves")
    file = path.stat().st_ino
    server.signal(signal.SIGUSR2)
    server.wait_log("took over in process")
    server.wait_log("generation 3 serves")  # the reload that follows an upgrade finds its sockets open
    assert (ask_port(server.port), ask_path(path)) == (200, 200)
    assert path.stat().st_ino == file
    change(f"127.0.0.1:{server.port}")
    server.wait_log("generation 4 serves")
    eventually(lambda: not path.exists(), 10, "the old socket to go")
    assert ask_port(server.port) == 200
