"""What is measured: servers that bring the events of the simulator to clients.

`sandstorm` is ours. `nginx` relays the simulator's ready-made events and is the yardstick. `python` is what our users would
have written, with FastAPI. `direct` is no server at all: clients ask the simulator, which tells what the instruments take.
"""

import hashlib
import math
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from programs import LISTEN_S, SIMULATOR, Simulator, allow_descriptors, children, free_port, procfs, running

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
KEY = "e2b_0123456789abcdef0123456789abcdef01234567"
NGINX = "/usr/sbin/nginx"
# Of the server's limits: a run more or less must not be refused.
SPARE_RUNS = 64
# What a worker of ours is to have for each of max_runs, and beside them (master/preflight.c).
DESCRIPTORS_PER_RUN, RESERVED_DESCRIPTORS = 2, 256


class Subject:
    """A running server: how it is asked, which processes do the work, and which one they were started by."""

    def __init__(self, ports: list[int], path: str, pids: list[int], masters: list[int]):
        self.ports, self.path, self.pids, self.masters = ports, path, pids, masters


def instances(streams: int) -> int:
    """How many of our server it takes: each of its workers must be able to hold all of its runs."""
    most = (allow_descriptors() - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_RUN - SPARE_RUNS
    return math.ceil(streams / most)


@contextmanager
def sandstorm(build: Path, upstream: Simulator, folder: Path, workers: int, streams: int):
    """Our server, with the simulator as E2B."""
    count = instances(streams)
    with ExitStack() as stack:
        ports, pids, masters = [], [], []
        for number in range(count):
            home = folder / f"instance-{number}"
            home.mkdir()
            each = _instance(build, upstream, home, max(1, workers // count), math.ceil(streams / count) + SPARE_RUNS)
            port, master, workers_of_it = stack.enter_context(each)
            ports.append(port)
            masters.append(master)
            pids += workers_of_it
        yield Subject(ports, "/query", pids, masters)


@contextmanager
def _instance(build: Path, upstream: Simulator, folder: Path, workers: int, max_runs: int):
    """One of it: its port, its master and its workers."""
    port = free_port()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "E2B_API_KEY": KEY, "ANTHROPIC_API_KEY": "k",
           "E2B_API_URL": upstream.url, "E2B_SANDBOX_URL": upstream.url}  # fmt: skip
    if os.geteuid() == 0:
        env["SANDSTORM_USER"] = "root"
    command = [build / "sandstorm", "--workers", workers, "--bind", f"127.0.0.1:{port}", "--max-runs", max_runs,
               "--log-level", "error", "--project-dir", folder]  # fmt: skip
    if upstream.authority:
        command += ["--ca-file", upstream.authority.certificate]
    with running(command, port, env=env, cwd=folder) as process:
        yield port, process.pid, children(process.pid, workers)


@contextmanager
def nginx(_build: Path, upstream: Simulator, folder: Path, workers: int, streams: int):
    """The yardstick. It has two connections a stream, and its workers do not share evenly."""
    port = free_port()
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # It does not compare addresses with a certificate's, but its name.
    trust = (f"proxy_ssl_verify on; proxy_ssl_name {SIMULATOR}; proxy_ssl_trusted_certificate {upstream.authority.certificate};"
             if upstream.authority else "")  # fmt: skip
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\nerror_log stderr crit;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + f"events {{ worker_connections {streams * 2 + 512}; }}\n"
        f"http {{\naccess_log off;\n{paths}"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass {upstream.url}; proxy_http_version 1.1;"
        f' proxy_buffering off; proxy_set_header Connection ""; proxy_read_timeout 300s; {trust} }} }}\n}}\n'
    )
    with running([NGINX, "-e", "stderr", "-c", folder / "nginx.conf", "-p", folder], port) as process:
        yield Subject([port], "/sse", children(process.pid, workers), [process.pid])


def wait_for_workers(log: Path, process: subprocess.Popen, workers: int) -> None:
    """Until all of uvicorn's answer; it listens before."""
    for _ in range(LISTEN_S * 20):
        said = log.read_text()
        assert process.poll() is None, f"uvicorn ended with {process.returncode}: {said}"
        if said.count("Application startup complete") == workers:
            return
        time.sleep(0.05)
    raise AssertionError(f"uvicorn does not start: {said}")


@contextmanager
def python(build: Path, upstream: Simulator, folder: Path, workers: int, _streams: int):
    """FastAPI under uvicorn; the packages are there (see python_lack)."""
    port = free_port()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "E2B_API_KEY": KEY, "E2B_URL": upstream.url}
    command = [venv(build) / "bin/python", "-B", "-m", "uvicorn", "python_relay:app", "--app-dir", HERE, "--host", "127.0.0.1",
               "--port", port, "--workers", workers, "--loop", "uvloop", "--http", "httptools", "--no-access-log",
               "--backlog", 4096]  # fmt: skip
    log = folder / "uvicorn.log"
    with log.open("w") as output, running(command, port, env=env, cwd=folder, stdout=output, stderr=output) as process:
        wait_for_workers(log, process, workers)
        pids = [pid for pid in children(process.pid, workers) if "spawn_main" in procfs.command(pid)]
        yield Subject([port], "/query", pids, [process.pid])


@contextmanager
def direct(_build: Path, upstream: Simulator, _folder: Path, _workers: int, _streams: int):
    """Nobody between the simulator and its clients."""
    yield Subject([upstream.port], "/sse", [], [])


SUBJECTS = {"sandstorm": sandstorm, "nginx": nginx, "python": python, "direct": direct}


# --- the packages of the Python server ------------------------------------------------------------------


def venv(build: Path) -> Path:
    """Its virtual environment."""
    return build / "bench/venv"


def python_lack(build: Path) -> str | None:
    """Makes the virtual environment if it is not there yet. Why it cannot be had."""
    folder, stamp = venv(build), venv(build) / ".stamp"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    commands = ([sys.executable, "-m", "venv", "--clear", folder],
                [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", REQUIREMENTS])  # fmt: skip
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            return f"{' '.join(str(word) for word in command[1:4])}: {said[-1] if said else f'exit {done.returncode}'}"
    stamp.write_text(wanted)
    return None
