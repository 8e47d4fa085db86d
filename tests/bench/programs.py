"""Programs that the benchmark starts, and what /proc tells about them."""

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import procfs  # noqa: E402
from harness.authority import Authority  # noqa: E402
from harness.ports import free_port  # noqa: E402

END_S = 60
LISTEN_S = 20
SIMULATOR = "simulator"  # its certificate's name
ESTABLISHED = "01"  # in /proc/net/tcp


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    """Until somebody listens there."""
    for _ in range(LISTEN_S * 20):
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}")


@contextmanager
def running(command: list, port: int | None = None, **options):
    """A program, ended by TERM."""
    with subprocess.Popen([str(word) for word in command], **options) as process:
        try:
            if port:
                wait_for_port(port, process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()


# --- what /proc tells -----------------------------------------------------------------------------------


def children(pid: int, count: int) -> list[int]:
    """Pids of a process's children, when there are so many."""
    for _ in range(LISTEN_S * 20):
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{pid} has {len(found)} children of {count}")


def cpu_us(pids: list[int]) -> float:
    """CPU time of all threads of these processes."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1000


def private_kib(pids: list[int]) -> int:
    """Memory that nobody else has."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1])
    return total


def connections(ports: list[int], pids: list[int]) -> list[int]:
    """How many clients of these ports each of these processes has."""
    established = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) in ports and fields[3] == ESTABLISHED:
            established.add(f"socket:[{fields[9]}]")
    return [len(established & set(procfs.descriptors(pid).values())) for pid in pids]


def allow_descriptors() -> int:
    """As many as may be, for whatever is started from here: how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_kib() -> int:
    """Memory that programs may still have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


# --- the two ends ---------------------------------------------------------------------------------------


class Simulator:
    """The sandbox service for measurements."""

    def __init__(self, port: int, authority: Authority | None, process: subprocess.Popen):
        self.port, self.authority, self._process = port, authority, process

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    def end_agents(self) -> None:
        """Every stream ends when its next event would have come."""
        self._process.send_signal(signal.SIGUSR1)

    def ledger(self) -> dict:
        """What was made, deleted and printed."""
        context = ssl.create_default_context(cafile=self.authority.certificate) if self.authority else None
        with urllib.request.urlopen(f"{self.url}/ledger", timeout=10, context=context) as answer:
            return json.load(answer)


@contextmanager
def simulator(build: Path, folder: Path, has_tls: bool, **options):
    """Starts one; options as its own, without --."""
    port = free_port()
    authority = Authority(folder / "ca") if has_tls else None
    command = [build / "bench/simulator", "--port", port]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    if authority:
        certificate, key = authority.issue(SIMULATOR, days=2)
        command += ["--tls-cert", certificate, "--tls-key", key]
    with running(command, port) as process:
        yield Simulator(port, authority, process)


class Load:
    """The load generator: its lines as they come."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self.last: dict = {}

    def line(self) -> dict:
        """The next line, a second after the one before."""
        text = self._process.stdout.readline()
        assert text, "the load generator ended early"
        self.last = json.loads(text)
        return self.last

    def lines(self, count: int) -> dict:
        """The last of so many."""
        for _ in range(count):
            self.line()
        return self.last

    def reset(self) -> None:
        """Latencies count from now on."""
        self._process.send_signal(signal.SIGUSR1)

    def rest(self, seconds: float) -> dict:
        """Its last line, when all streams have ended, or were given up after so many seconds."""
        for _ in range(int(seconds)):
            if self.line()["over"]:
                return self.last
        return self.stop()

    def stop(self) -> dict:
        """Its last line; streams that are open go on to nobody."""
        self._process.terminate()
        while not self.last.get("over"):
            self.line()
        return self.last


@contextmanager
def load(build: Path, ports: list[int], **options):
    """Starts one; options as its own, without --."""
    command = [build / "bench/load"]
    for port in ports:
        command += ["--port", port]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    with running(command, stdout=subprocess.PIPE, text=True) as process:
        yield Load(process)
