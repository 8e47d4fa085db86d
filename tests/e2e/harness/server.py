"""The server under test: one process group of build/sandstorm with a home of its own."""

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from functools import cache
from pathlib import Path

import httpx

from . import procfs
from .ports import free_port  # noqa: F401 - for the tests, which start servers
from .waiting import deadline, eventually

REPOSITORY = Path(__file__).resolve().parents[3]
BUILD = (REPOSITORY / os.environ.get("SANDSTORM_BUILD", "build")).resolve()
PROGRAM = BUILD / "sandstorm"
START_SECONDS = 10
STOP_SECONDS = 20
SANITIZED_SLACK_KIB = 300 * 1024
# What a sanitizer, or the server itself, prints about a bug of ours.
BUG_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "panic:")
# The server may keep its state here; anything else it leaves in its directory is a leak.
ALLOWED_FILES = {".sandstorm"}
# A server of root's has to be told whom its workers run as.
ROOT_SAYS_SO = {"SANDSTORM_USER": "root"} if os.geteuid() == 0 else {}


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@cache
def memory_slack_kib(plain: int) -> int:
    """How much a worker's memory may differ: a sanitizer keeps freed memory in a quarantine of its own."""
    return SANITIZED_SLACK_KIB if b"__asan_init" in PROGRAM.read_bytes() else plain


def bare_environment() -> dict[str, str]:
    """An environment without any setting of the server's."""
    kept = ("PATH", "LANG", "LC_ALL", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")
    return {name: os.environ[name] for name in kept if name in os.environ} | ROOT_SAYS_SO


class Server:
    """One running server. Start it through the `server` fixture, which checks what it leaves behind."""

    def __init__(self, home: Path, argv: list[str], env: dict[str, str], port: int, tls: ssl.SSLContext | None = None):
        self.home = home
        self.port = port
        self.tls = tls  # what a client needs to speak HTTPS with it
        self.service_ports: set[int] = set()  # pooled connections to them are no leak
        self.secret = env.get("E2B_API_KEY") or "no key was given"
        self.expected_exit = 0
        self.cwd = home / "cwd"
        self.tmp = home / "tmp"
        self.log = home / "stderr.log"
        for folder in (self.cwd, self.tmp):
            folder.mkdir(parents=True)
        self.argv = [str(part) for part in argv]
        self._process = subprocess.Popen(
            self.argv,
            env=bare_environment() | {"TMPDIR": str(self.tmp), "HOME": str(self.cwd)} | env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=(home / "stdout.log").open("wb"),
            stderr=self.log.open("wb"),
            start_new_session=True,
        )
        self.baseline: dict[int, int] = {}

    # --- what it is ---

    @property
    def pid(self) -> int:
        """The master."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def stderr(self) -> str:
        """Everything it logged so far."""
        return self.log.read_text(errors="replace")

    @property
    def stdout(self) -> str:
        """Everything it printed so far."""
        return (self.home / "stdout.log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the master has not exited."""
        return self._process.poll() is None

    def workers(self) -> set[int]:
        """Pids of the master's children."""
        return procfs.children(self.pid)

    def own_descriptors(self, pid: int) -> int:
        """Descriptors of a worker without its pooled connections to the sandbox service."""
        pooled = set().union(*map(procfs.sockets_to, self.service_ports))
        return sum(target not in pooled for target in procfs.descriptors(pid).values())

    # --- what one does with it ---

    def wait_ready(self, workers: int | None = None) -> None:
        """Waits until it answers, with all its workers; AssertionError with its log when it does not."""
        try:
            eventually(self._answers, START_SECONDS, "the server to answer /health")
            if workers:
                eventually(lambda: self._serving() == workers, START_SECONDS, f"{workers} workers")
        except AssertionError as reason:
            raise AssertionError(f"{reason}; exit {self._process.poll()}; log:\n{self.stderr}") from None
        self.baseline = {pid: self.own_descriptors(pid) for pid in self.workers()}

    def _answers(self) -> bool:
        """Whether /health is answered with 200."""
        if not self.running:
            raise AssertionError("the server exited")
        try:
            return httpx.get(f"{self.url}/health", timeout=2, verify=self.tls or True).status_code == 200
        except httpx.TransportError:
            return False

    def _serving(self) -> int:
        """How many workers serve; one that dies before all do ends the server."""
        status = run_program("status", "--json", "--pid", str(self.pid))
        workers = json.loads(status.stdout)["workers"] if status.returncode == 0 else []
        return sum(worker["state"] == "serving" for worker in workers)

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        """Signals the master, or one of its workers."""
        os.kill(pid or self.pid, number)

    def suspend(self, pid: int) -> None:
        """Stops a process of it with SIGSTOP: it does nothing more when this returns."""
        self.signal(signal.SIGSTOP, pid)
        eventually(lambda: procfs.is_stopped(pid), START_SECONDS, f"{pid} to be stopped")

    def wait_exit(self, seconds: float = STOP_SECONDS) -> int:
        """Waits for the master's exit code."""
        try:
            return self._process.wait(deadline(seconds))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not exit in {deadline(seconds):g} s; log:\n{self.stderr}") from None

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """TERM, then the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait_exit(seconds)

    def wait_gone(self, pids: set[int], seconds: float = STOP_SECONDS) -> None:
        """Waits until none of these processes runs: old workers take connections for a moment after new ones serve."""
        eventually(lambda: not any(map(procfs.is_alive, pids)), seconds, f"the end of {pids}")

    def wait_log(self, text: str, seconds: float = START_SECONDS, times: int = 1) -> str:
        """Waits until the log holds a text, or so many of it, and the end of that line; returns the log."""
        eventually(lambda: self._whole_lines().count(text) >= times, seconds, f"{text!r} in the log, {times} times")
        return self.stderr

    def _whole_lines(self) -> str:
        """What it logged so far, without a line that is being written."""
        log = self.stderr
        return log[: log.rfind("\n") + 1]

    def destroy(self) -> None:
        """Ends whatever still runs of this session, by pid."""
        for pid in procfs.session(self.pid) | ({self.pid} if self.running else set()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


def run_program(*args: str, env: dict[str, str] | None = None, program: Path = PROGRAM) -> subprocess.CompletedProcess:
    """Runs the program to its end (--help, --check, errors at start)."""
    return subprocess.run(
        [str(program), *args], check=False, env=bare_environment() | (env or {}), capture_output=True, text=True,
        timeout=deadline(15),
    )


def seconds_since(instant: float) -> float:
    """Time since a time.monotonic()."""
    return time.monotonic() - instant
