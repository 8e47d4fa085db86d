#!/usr/bin/python3
"""What a relayed event costs: our server and nginx, which relays the same bytes from the same simulator to the same clients.

    relay.py --build build [--rounds 3] [--seconds 10] [--streams 1000,5000] [--bytes 200]

Paced loads have so many streams of five events a second; the flood has eight streams that are read as fast as they come.
Each round measures one after the other, so that what else the machine does meets both; the table shows medians. nginx gets
ready-made events over plain HTTP, ours come as base64 in JSON in envelopes from envd. Writes results.json into the build
directory. Exit 1 when an event was lost, doubled, torn or another run's, or a sandbox was left.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

KEY = "e2b_0123456789abcdef0123456789abcdef01234567"
PACED_US = 200_000
RAMP_PER_S = 500
SETTLE_S = 2
FLOOD_STREAMS = 8
FLOOD_EVENTS = 60_000
FAR_MS = 50
FAR_STREAMS = 40
LOST = ("lost", "doubled", "foreign", "torn", "failed", "refused")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    """Until somebody listens there."""
    for _ in range(200):
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
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


# --- what is measured -----------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


class Subject:
    """A running server: which processes do the work, and how it is asked."""

    def __init__(self, name: str, port: int, path: str, pids: list[int]):
        self.name, self.port, self.path, self.pids = name, port, path, pids


@contextmanager
def sandstorm(build: Path, upstream: int, folder: Path, workers: int, streams: int):
    """Our server, with the simulator as E2B."""
    port = free_port()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "E2B_API_KEY": KEY, "ANTHROPIC_API_KEY": "k",
           "E2B_API_URL": f"http://127.0.0.1:{upstream}", "E2B_SANDBOX_URL": f"http://127.0.0.1:{upstream}"}  # fmt: skip
    if os.geteuid() == 0:
        env["SANDSTORM_USER"] = "root"
    command = [build / "sandstorm", "--workers", workers, "--bind", f"127.0.0.1:{port}", "--max-runs", streams + 64,
               "--log-level", "error", "--project-dir", folder]  # fmt: skip
    with running(command, port, env=env, cwd=folder) as process:
        for _ in range(100):
            workers_there = children(process.pid)
            if len(workers_there) >= workers:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        yield Subject("sandstorm", port, "/query", children(process.pid))


@contextmanager
def nginx(_build: Path, upstream: int, folder: Path, _workers: int, _streams: int):
    """The yardstick."""
    port = free_port()
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes 2;\npid {folder}/nginx.pid;\nerror_log stderr crit;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events { worker_connections 8192; }\n"
        f"http {{\naccess_log off;\n{paths}upstream u {{ server 127.0.0.1:{upstream}; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_buffering off;"
        ' proxy_set_header Connection ""; proxy_read_timeout 300s; } }\n}\n'
    )
    command = ["/usr/sbin/nginx", "-e", "stderr", "-c", folder / "nginx.conf", "-p", folder]
    with running(command, port) as process:
        yield Subject("nginx", port, "/sse", children(process.pid))


SUBJECTS = {"sandstorm": sandstorm, "nginx": nginx}


class Load:
    """The load generator: its lines as they come."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self.last: dict = {}

    def line(self) -> dict:
        """The next line."""
        text = self._process.stdout.readline()
        assert text, "the load generator ended early"
        self.last = json.loads(text)
        return self.last

    def reset(self) -> None:
        """Latencies count from now on."""
        self._process.send_signal(signal.SIGUSR1)

    def end(self) -> dict:
        """Its last line."""
        self._process.terminate()
        while not self.last.get("over"):
            self.line()
        return self.last


class Bench:
    """One set of programs and options."""

    def __init__(self, build: Path, workers: int, size: int):
        self.build, self.workers, self.bytes = build, workers, size
        self.faults: list[str] = []

    @contextmanager
    def _running(self, name: str, streams: int, events: int, interval_us: int, delay_ms: int = 0):
        """Simulator and subject, both fresh."""
        upstream = free_port()
        simulator = [self.build / "bench/simulator", "--port", upstream, "--events", events, "--bytes", self.bytes,
                     "--interval-us", interval_us, "--delay-ms", delay_ms]  # fmt: skip
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandstorm-bench-")))
            stack.enter_context(running(simulator, upstream))
            subject = stack.enter_context(SUBJECTS[name](self.build, upstream, folder, self.workers, streams))
            yield subject, upstream

    @contextmanager
    def _load(self, subject: Subject, streams: int, events: int, *options):
        """The load generator."""
        command = [self.build / "bench/load", "--port", subject.port, "--path", subject.path, "--streams", streams,
                   "--bytes", self.bytes, "--events", events, *options]  # fmt: skip
        with running(command, stdout=subprocess.PIPE, text=True) as process:
            yield Load(process)

    def _check(self, what: str, line: dict) -> None:
        """Notes what went wrong with the events."""
        wrong = {key: line[key] for key in LOST if line[key]}
        if wrong:
            self.faults.append(f"{what}: {wrong}")

    def _check_ledger(self, what: str, upstream: int) -> None:
        """Every sandbox that was made is deleted."""
        for _ in range(100):
            with urllib.request.urlopen(f"http://127.0.0.1:{upstream}/ledger", timeout=10) as answer:
                ledger = json.load(answer)
            if ledger["created"] == ledger["deleted"] and ledger["streams"] == ledger["ended"]:
                return
            time.sleep(0.2)
        self.faults.append(f"{what}: {ledger}")

    def paced(self, name: str, streams: int, seconds: int) -> dict:
        """So many open streams: what an event costs, how late it is, what a stream takes."""
        what = f"{name}, {streams} streams"
        events = 1 + (streams // RAMP_PER_S + SETTLE_S + seconds + 30) * 1_000_000 // PACED_US
        with self._running(name, streams, events, PACED_US) as (subject, upstream):
            idle_kib = private_kib(subject.pids)
            with self._load(subject, streams, 0, "--ramp", RAMP_PER_S) as load:
                while load.line()["first"] < streams:
                    assert not load.last["refused"] and load.last["seconds"] < streams / RAMP_PER_S + 60, load.last
                for _ in range(SETTLE_S):
                    load.line()
                load.reset()
                before, cpu = load.line()["events"], cpu_us(subject.pids)
                for _ in range(seconds):
                    load.line()
                spent, relayed = cpu_us(subject.pids) - cpu, load.last["events"] - before
                kib = private_kib(subject.pids) - idle_kib
                line = load.end()
            self._check(what, line)
            if name == "sandstorm":
                self._check_ledger(what, upstream)
        latency = line["latency_us"]
        return {"cpu_us_per_event": spent / relayed, "kib_per_stream": kib / streams, "p50_us": latency["p50"],
                "p90_us": latency["p90"], "p99_us": latency["p99"], "events_per_s": relayed / seconds,
                "promised_per_s": streams * 1_000_000 / PACED_US}  # fmt: skip

    def flood(self, name: str) -> dict:
        """As fast as the clients take it."""
        what = f"{name}, flood"
        with self._running(name, FLOOD_STREAMS, FLOOD_EVENTS, 0) as (subject, upstream):
            cpu = cpu_us(subject.pids)
            with self._load(subject, FLOOD_STREAMS, FLOOD_EVENTS) as load:
                while not load.line()["over"]:
                    pass
                spent = cpu_us(subject.pids) - cpu
            self._check(what, load.last)
            if name == "sandstorm":
                self._check_ledger(what, upstream)
        return {"cpu_us_per_event": spent / load.last["events"], "events_per_s": load.last["events"] / load.last["seconds"]}

    def first_event(self, name: str) -> dict:
        """How many round trips of a far service pass before the first event."""
        what = f"{name}, far"
        with self._running(name, FAR_STREAMS, 1, 0, FAR_MS) as (subject, _upstream):
            with self._load(subject, FAR_STREAMS, 1, "--ramp", FAR_STREAMS) as load:
                while not load.line()["over"]:
                    pass
            self._check(what, load.last)
        return {"round_trips": load.last["first_event_us"]["p50"] / 1000 / FAR_MS}


# --- what is told ----------------------------------------------------------------------------------------


def median(rounds: list[dict]) -> dict:
    """Of each figure."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def machine() -> dict:
    """What it was measured on."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    nginx_version = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()[0],
            "nginx": nginx_version, "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def row(load: str, figure: str, goal: str, ours: float, theirs: float | None, form: str = "{:.1f}") -> None:
    """One line of the table."""
    ratio = f"{ours / theirs:.2f}" if theirs else "-"
    other = form.format(theirs) if theirs is not None else "-"
    print(f"{load:<22} {figure:<26} {form.format(ours):>10} {other:>10} {ratio:>7}   {goal}", flush=True)


def tell(results: dict) -> None:
    """The table."""
    print(f"\n{'load':<22} {'figure':<26} {'sandstorm':>10} {'nginx':>10} {'ratio':>7}   goal")
    for load, both in results.items():
        ours, theirs = both["sandstorm"], both.get("nginx", {})
        if "cpu_us_per_event" in ours:
            goal = "<= 4.00" if load == "flood" else "<= 1.25"
            row(load, "CPU, µs an event", goal, ours["cpu_us_per_event"], theirs.get("cpu_us_per_event"))
            row(load, "events/s of one core", "", 1e6 / ours["cpu_us_per_event"],
                1e6 / theirs["cpu_us_per_event"] if theirs else None, "{:.0f}")  # fmt: skip
        if "kib_per_stream" in ours:
            row(load, "private KiB a stream", "<= 20 KiB", ours["kib_per_stream"], theirs.get("kib_per_stream"))
            for key in ("p50_us", "p90_us", "p99_us"):
                row(load, f"latency, µs, {key[:3]}", "<= 2 at p99" if key == "p99_us" else "", ours[key], theirs.get(key), "{:.0f}")
            row(load, "events/s", f"{ours['promised_per_s']:.0f}", ours["events_per_s"], theirs.get("events_per_s"), "{:.0f}")
        if "round_trips" in ours:
            row(load, "round trips to first event", "create, upload, start", ours["round_trips"], theirs.get("round_trips"), "{:.2f}")


def main() -> int:
    """Measures, tells, and writes it down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=Path, default=Path("build"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--streams", default="1000,5000")
    options.add_argument("--bytes", type=int, default=200)
    options.add_argument("--workers", type=int, default=4)
    given = options.parse_args()
    bench = Bench(given.build.resolve(), given.workers, given.bytes)
    about = machine() | {"rounds": given.rounds, "seconds": given.seconds, "bytes": given.bytes, "workers": given.workers}
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    loads = {"far service": bench.first_event, "flood": bench.flood}
    for count in (int(part) for part in given.streams.split(",")):
        loads[f"{count} x 5/s"] = lambda name, count=count: bench.paced(name, count, given.seconds)
    results = {}
    for load, measure in loads.items():
        rounds: dict[str, list] = {name: [] for name in SUBJECTS}
        for number in range(given.rounds):
            for name in SUBJECTS if number % 2 == 0 else reversed(SUBJECTS):
                rounds[name].append(measure(name))
        results[load] = {name: median(found) for name, found in rounds.items()}
        print(f"measured: {load}", flush=True)
    tell(results)
    (given.build / "bench/results.json").write_text(json.dumps({"machine": about, "results": results}, indent=1))
    for fault in bench.faults:
        print(f"FAULT: {fault}")
    return 1 if bench.faults else 0


if __name__ == "__main__":
    sys.exit(main())
