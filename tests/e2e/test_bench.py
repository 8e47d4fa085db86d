"""The benchmark's instruments: they count every event, and notice one that is lost, doubled, torn, another run's, or not the last."""

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress

import pytest
from harness import procfs
from harness.server import BUILD, REPOSITORY, bare_environment, free_port
from harness.waiting import deadline, eventually

BENCH = REPOSITORY / "tests/bench/relay.py"
# The interpreter that `make bench` uses, without the packages of the tests.
PYTHON = "/usr/bin/python3"
STREAMS = 50
EVENTS = 5
# What the load generator counts for each stream whose third event is spoiled, or whose end is.
FAULTS = {
    "none": {},
    "lose": {"lost": 1},
    "double": {"doubled": 1},
    "tear": {"torn": 1, "lost": 1},
    "stray": {"foreign": 1, "lost": 1},
    "cut": {"failed": 1},
}
COUNTED = ("lost", "doubled", "foreign", "torn", "failed", "refused")


def measure(tmp_path, part: str, *options) -> tuple[int, str, dict]:
    """The benchmark with few streams of five events a second: its exit code, what it said, its results. It leaves nothing."""
    results, temporary = tmp_path / "results.json", tmp_path / "tmp"
    temporary.mkdir()
    command = [PYTHON, BENCH, "--build", BUILD, "--only", part, "--rounds", 1, "--seconds", 1, "--streams", STREAMS,
               "--results", results, *options]  # fmt: skip
    with subprocess.Popen([str(word) for word in command], env=bare_environment() | {"TMPDIR": str(temporary)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=deadline(100))
            eventually(lambda: not procfs.session(process.pid), 5, f"the end of every process; it said {said}")
        finally:
            for pid in procfs.session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert not list(temporary.iterdir()), said
    assert results.exists(), said
    return process.returncode, said, json.loads(results.read_text())


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_the_load_generator_notices_a_spoiled_event(fault):
    port = str(free_port())
    options = ["--port", port, "--events", str(EVENTS), "--bytes", "200"]
    with subprocess.Popen([BUILD / "bench/simulator", *options, "--interval-us", "1000", "--fault", fault]) as simulator:
        try:
            eventually(lambda: listens(int(port)), 10, "the simulator")
            load = [BUILD / "bench/load", *options, "--path", "/sse", "--streams", str(STREAMS)]
            done = subprocess.run(load, capture_output=True, text=True, timeout=deadline(60))
        finally:
            simulator.terminate()
    counts = json.loads(done.stdout.splitlines()[-1])
    assert {name: counts[name] for name in COUNTED if counts[name]} == {name: count * STREAMS for name, count in FAULTS[fault].items()}
    assert done.returncode == (1 if FAULTS[fault] else 0)


def test_every_event_is_counted(tmp_path):
    code, said, results = measure(tmp_path, "paced")
    assert code == 0 and "FAULT" not in said, said
    found = results["loads"][f"{STREAMS} x 5/s"]
    for name in ("sandstorm", "nginx"):
        figures = found["figures"][name]
        assert figures["cpu_us_per_event"] > 0 and figures["kib_per_stream"] > 0, figures
        assert 0 < figures["p50_us"] <= figures["p99_us"], figures
    assert f"{STREAMS} x 5/s" in said and "private KiB an open run" in said, said
    page = tmp_path / "RESULTS.md"
    page.write_text((BENCH.parent / "RESULTS.md").read_text())
    subprocess.run([PYTHON, BENCH, "--results", tmp_path / "results.json", "--markdown", page], check=True)
    assert f"| {STREAMS} x 5/s | CPU, µs an event | {found['figures']['sandstorm']['cpu_us_per_event']:.1f} | " in page.read_text()


def test_a_lost_event_fails_the_benchmark(tmp_path):
    code, said, _ = measure(tmp_path, "tls", "--fault", "lose")
    assert code == 1, said
    for name in ("sandstorm", "nginx"):
        assert f"FAULT: {name}, {STREAMS} streams, TLS: {{'lost': {STREAMS}}}" in said, said
