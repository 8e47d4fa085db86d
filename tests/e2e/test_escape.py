"""Ways out of a sandbox: each is shown to work outside of it, and to fail inside, for root's sandboxes and a user's."""

import ctypes
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from escape_table import ATTEMPTS, Attempt
from sandboxd_client import BUILD, SLOW, Sandbox, running_daemons, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root shows that each attempt succeeds outside")

SHM_KEY = 0x5A000000 + os.getpid()  # kernel-wide: scenes of other processes stand at the same time
LIFE_SECONDS = 3600  # of sandboxes that all tests of a process share, however long they take
IPC_CREAT, IPC_RMID, O_RDWR_CREAT = 0o1000, 0, 0o102
NEIGHBOUR = """
import socket
server = socket.create_server(("127.0.0.1", 8099))
open("ready", "w")
while True:
    server.accept()[0].sendall(b"host")
"""


@dataclass
class Scene:
    """A host with something to steal, and sandboxes."""

    folder: Path
    words: dict[str, str]
    inside_words: dict[str, str]
    sandboxes: dict[str, Sandbox]
    neighbour: Sandbox

    def fill(self, argv: list[str], words: dict[str, str]) -> list[str]:
        for word, value in words.items():
            argv = [part.replace(f"@{word}@", value) for part in argv]
        return argv

    def outside(self, attempt: Attempt) -> subprocess.CompletedProcess:
        argv = [*attempt.outside, *self.fill(attempt.argv, self.words)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30 * SLOW, start_new_session=True)

    def inside(self, sandbox: Sandbox, attempt: Attempt):
        cmd, *args = self.fill(attempt.argv, self.words | self.inside_words | {"sandboxd": "1"})
        return sandbox.run("", cmd=cmd, args=args)


def serve(server: socket.socket) -> None:
    """Says "host" to whoever connects, until the socket is closed."""
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"host")


def own_address() -> str:
    """An address of this machine that is not 127.0.0.1."""
    found = subprocess.run(["ip", "-o", "-4", "addr", "show", "scope", "global"], capture_output=True, text=True)
    fields = found.stdout.split()
    return fields[fields.index("inet") + 1].partition("/")[0] if "inet" in fields else "127.0.0.2"


def a_control_group() -> str:
    """A file by which processes change their group."""
    return next(f"{group}/cgroup.procs" for group, _, files in os.walk("/sys/fs/cgroup") if "cgroup.procs" in files)


@contextmanager
def kernel_objects(mark: str):
    """Shared memory and a message queue of the host's."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"/escape-{mark}".encode()
    shared = libc.shmget(SHM_KEY, 4096, IPC_CREAT | 0o666)
    queue = libc.mq_open(name, O_RDWR_CREAT, 0o666, None)
    assert shared >= 0 and queue >= 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        libc.shmctl(shared, IPC_RMID, None)
        os.close(queue)
        libc.mq_unlink(name)


def user_daemon(start, folder: Path):
    """A sandboxd of an ordinary user, who can reach the programs."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("sandboxd", "sandbox-init"):
        shutil.copy(BUILD / name, programs)
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    return start(prefix=user, program=programs / "sandboxd", owner=65534)


@pytest.fixture(scope="module")
def folder():
    """One that an ordinary user can reach; pytest's own ones are closed again by the next pytest."""
    with tempfile.TemporaryDirectory(prefix="escape") as path:
        os.chmod(path, 0o711)
        yield Path(path)


@pytest.fixture(scope="module")
def scene(folder):
    mark = str(os.getpid())
    for name in ("secret", "linked"):
        (folder / name).write_text("secret of the host\n")
    shutil.copy(BUILD / "sandbox-init", folder / "init")
    with ExitStack() as stack:
        start = stack.enter_context(running_daemons(folder))
        victim = stack.enter_context(subprocess.Popen(["bash", "-c", f"exec -a victim-{mark} sleep 1000"]))
        stack.callback(victim.kill)
        servers = [socket.create_server(("", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6),
                   socket.socket(socket.AF_UNIX)]  # fmt: skip
        servers[2].bind(f"\0escape-{mark}")
        servers[2].listen()
        for server in servers:
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=serve, args=(server,), daemon=True).start()
        stack.enter_context(kernel_objects(mark))
        daemons = {"root's": start(), "a user's": user_daemon(start, folder)}
        neighbour = daemons["root's"].create(timeout=LIFE_SECONDS)
        neighbour.upload({f"/{where}/neighbours-secret": b"hush" for where in ("home/user", "tmp")})
        server = neighbour.start("", cmd="python3", args=["-c", NEIGHBOUR, f"neighbour-{mark}"])
        stack.callback(server.close)
        wait_for(lambda: neighbour.read("ready").status == 200, "the neighbour's server")
        words = {"folder": str(folder), "secret": str(folder / "secret"), "linked": str(folder / "linked"),
                 "init": str(folder / "init"), "writable": str(folder), "hostname": os.uname().nodename, "mark": mark,
                 "victim": str(victim.pid), "target": str(victim.pid), "address": own_address(), "shm_key": str(SHM_KEY),
                 "port": str(servers[0].getsockname()[1]), "port6": str(servers[1].getsockname()[1]),
                 "socket": str(daemons["root's"].socket), "sandboxd": str(daemons["root's"].process.pid),
                 "group": a_control_group(), "device": "/dev/fuse"}  # fmt: skip
        inside_words = {"init": "/run/sandbox-init", "writable": "/home/user", "target": "1", "linked": "/usr/bin/env"}
        sandboxes = {whose: daemon.create(timeout=LIFE_SECONDS) for whose, daemon in daemons.items()}
        yield Scene(folder, words, inside_words, sandboxes, neighbour)
        for sandbox in daemons["root's"], daemons["a user's"]:
            assert sandbox.call("GET", "/health").status == 200


def succeeded(result) -> bool:
    return result.end is not None and result.end.get("status") == "exit status 0"


def test_there_are_many_ways_and_each_has_a_name_of_its_own():
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS) >= 40


@pytest.mark.parametrize("whose", ["root's", "a user's"])
def test_programs_like_the_attempts_run_inside(scene, whose):
    """So that an attempt fails for what it tries, not because nothing runs."""
    sandbox = scene.sandboxes[whose]
    assert succeeded(scene.inside(sandbox, Attempt("shell", "sh: test -d /proc/@target@ && ip -V && command -v mount")))
    control = "must(call('pidfd_open', os.getpid(), 0)); taken(-errno.EINVAL); open('@writable@/x', 'w').write('x')"
    result = scene.inside(sandbox, Attempt("python", control))
    assert succeeded(result), result


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_a_way_out_is_open_outside_and_closed_inside(scene, attempt):
    if attempt.equivalent == "outside is the neighbour itself":
        shown = scene.inside(scene.neighbour, attempt)
        assert succeeded(shown), shown
    else:
        shown = scene.outside(attempt)
        assert shown.returncode == 0, shown
    for whose, sandbox in scene.sandboxes.items():
        result = scene.inside(sandbox, attempt)
        assert result.end is not None and not succeeded(result), (whose, result)
        assert succeeded(sandbox.run("true")), "and the sandbox lives"


# --- the files API: what is asked for from outside, about paths that somebody inside prepared ---

READS = [
    ("a path that climbs", "", "/home/user/../..@secret@"),
    ("a path that climbs from the home", "", "../../../../../..@secret@"),
    ("a symlink to a file", "ln -sfn @secret@ ~/way", "way"),
    ("a symlink to a folder", "ln -sfn @folder@ ~/way", "way/secret"),
    ("a symlink to the root", "ln -sfn / ~/way", "way@secret@"),
    ("a symlink through process 1", "ln -sfn /proc/1/root@secret@ ~/way", "way"),
    ("a symlink through a process of the host", "", "/proc/@victim@/root@secret@"),
    ("the host's own path", "", "@secret@"),
    ("a path with a NUL", "", "/home/user/\0/../..@secret@"),
]


@pytest.mark.parametrize("how, prepared, path", READS, ids=[row[0] for row in READS])
def test_no_download_reads_a_file_of_the_host(scene, how, prepared, path):
    """Outside, the last of these paths is that of a file, which is read."""
    assert b"secret" in Path(scene.words["secret"]).read_bytes()
    for sandbox in scene.sandboxes.values():
        [prepared, path] = scene.fill([prepared, path], scene.words)
        assert succeeded(sandbox.run(prepared or "true"))
        answer = sandbox.call("GET", f"/files?path={quote(path, safe='')}")
        assert answer.status in {400, 403, 404, 500} and b"secret of" not in answer.body, answer


WRITES = [
    ("a path that climbs", "", "/home/user/../..@planted@"),
    ("a file name that climbs", "", "../../../../../..@planted@"),
    ("a symlink to a file that is not there", "mkdir -p ~/w; ln -sf @planted@ ~/w/ay", "/home/user/w/ay"),
    ("a symlink to a folder", "ln -sfn @folder@ ~/way", "/home/user/way/planted"),
    ("the host's own path", "", "@planted@"),
    ("a symlink through process 1", "ln -sfn /proc/1/root ~/way", "/home/user/way@planted@"),
]


@pytest.mark.parametrize("how, prepared, path", WRITES, ids=[row[0] for row in WRITES])
def test_no_upload_writes_a_file_of_the_host(scene, how, prepared, path):
    planted = scene.folder / "planted"
    planted.write_text("outside this path can be written to")
    planted.unlink()
    words = scene.words | {"planted": str(planted)}
    for sandbox in scene.sandboxes.values():
        [prepared, path] = scene.fill([prepared, path], words)
        assert succeeded(sandbox.run(prepared or "true"))
        answer = sandbox.upload({path: b"planted"})
        assert answer.status in {200, 400, 403, 500}, answer
        assert not planted.exists()


@pytest.mark.parametrize("path", ["/usr/bin/env", "/run/sandbox-init", "/etc/passwd", "/proc/self/mem", "/proc/1/mem",
                                  "/proc/sys/kernel/core_pattern", "/proc/self/exe", "/dev/planted", "/planted"])  # fmt: skip
def test_no_upload_changes_what_the_sandbox_stands_on(scene, path):
    """Outside, as root, each of these can be opened for writing (see the attempts)."""
    for sandbox in scene.sandboxes.values():
        assert sandbox.upload({path: b"planted"}).status in {400, 403, 500}
        assert succeeded(sandbox.run("true"))


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/1/environ", "/proc/self/maps", "/proc/kcore", "/dev/zero",
                                  "/proc/self/fd/3", "/proc/1/fd/4", "/dev/fuse"])  # fmt: skip
def test_no_download_reads_init_or_a_device(scene, path):
    """Outside, as root, each can be opened."""
    for sandbox in scene.sandboxes.values():
        answer = None
        with suppress(http.client.IncompleteRead):
            answer = sandbox.read(path)
        assert answer is not None and (answer.status != 200 or answer.body == b""), answer
        assert succeeded(sandbox.run("true"))


def test_a_hard_link_of_a_system_file_cannot_be_made_and_uploaded_over(scene):
    (scene.folder / "a").write_text("x")
    os.link(scene.folder / "a", scene.folder / "b")
    before = Path("/usr/bin/env").read_bytes()
    for sandbox in scene.sandboxes.values():
        assert not succeeded(sandbox.run("ln /usr/bin/env ~/env"))
        assert sandbox.upload({"/home/user/env": b"planted"}).status == 200
    assert Path("/usr/bin/env").read_bytes() == before
