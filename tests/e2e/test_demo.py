"""The demo, run as a newcomer runs it: the real server, real sandboxes, real agents; only the model is scripted."""

import contextlib
import ctypes
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from harness import procfs
from harness.server import BUILD, REPOSITORY, bare_environment, free_port
from harness.waiting import deadline, eventually

DEMO = REPOSITORY / "tests/demo/demo.py"
# The interpreter that `make demo` uses, without the packages of the tests.
PYTHON = "/usr/bin/python3"
LABELS = ("companies", "security", "papers", "parks")
# What programs compute in the sandboxes: the scripted model cannot know it. And a file that each agent leaves.
COMPUTED = {
    "companies": "14 Developer tools",
    "security": "affected  CVE-2024-35195  requests 2.31.0",
    "papers": "6 abstracts in 5 topics",
    "parks": "built parks.db: 25 parks (sample data), integrity ok",
}
FILES = {"companies": "companies.csv", "security": "report.json", "papers": "summary.md", "parks": "parks.db"}
# Of each of a handful of answers: no agent has its last one before the others have begun, however late they are started.
MODEL_DELAY = "0.7"
DEMO_SECONDS = 90
STOP_SECONDS = 30
PR_SET_CHILD_SUBREAPER = 36

EVENT = re.compile(r"^\[(\w+)\] +(\S.*)$", re.MULTILINE)
ROW = re.compile(
    r"^(\w+) +(success|FAILED) +([0-9a-f]{16}) +(i[a-z0-9]{20}) +(\d+) +\$(\d+\.\d{4}) +(\d+\.\d) s +(\d+)$",
    re.MULTILINE,
)

pytestmark = pytest.mark.timeout(180)


class Demo:
    """One running demo. Its temporary files go to a folder of ours, and its orphans become our children."""

    def __init__(self, port: int, env: dict[str, str]):
        self.tmp = Path(tempfile.mkdtemp(prefix="demo-test-"))
        self.tmp.chmod(0o755)
        self._others = procfs.children(os.getpid())
        argv = [PYTHON, DEMO, "--build", BUILD, "--port", port, "--model-delay", MODEL_DELAY]
        self.process = subprocess.Popen(
            [str(part) for part in argv],
            env=bare_environment() | {"TMPDIR": str(self.tmp), "HOME": str(self.tmp)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, seconds: float = DEMO_SECONDS) -> tuple[int, str]:
        """Waits for its end; exit status and the output that was not read yet."""
        output, _ = self.process.communicate(timeout=deadline(seconds))
        return self.process.returncode, output

    def read_until(self, text: str) -> None:
        """Reads the output up to a line that holds a text."""
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"the output ended without {text!r}")

    def descendants(self) -> set[int]:
        """Processes that the demo started and that still run."""
        found, new = set(), procfs.children(os.getpid()) - self._others
        while new:
            found |= new
            new = set().union(*(procfs.children(pid) for pid in new)) - found
        return found

    def check_nothing_left(self) -> None:
        """No process and no file of the demo remains."""
        eventually(lambda: not self.descendants(), STOP_SECONDS, f"the end of every process: {self.descendants()}")
        assert not list(self.tmp.iterdir())

    def destroy(self) -> None:
        """Ends what a failed test left."""
        for pid in self.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.tmp, ignore_errors=True)


@pytest.fixture
def start_demo():
    """Starts demos: start_demo(port, env={…}). At the end none has left anything."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = []

    def start(port: int, env: dict[str, str] | None = None) -> Demo:
        started.append(Demo(port, env or {}))
        return started[-1]

    try:
        yield start
        for demo in started:
            demo.check_nothing_left()
    finally:
        for demo in started:
            demo.destroy()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def refusing_model():
    """The URL of a Messages API that takes no request. (A 401 would be retried by the agent for over a minute.)"""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_four_agents_run_at_once_and_succeed(start_demo):
    code, output = start_demo(free_port()).finish()
    assert code == 0, output
    assert "scripted stand-in" in output.splitlines()[0]

    events = EVENT.findall(output)
    labels = [label for label, _ in events]
    assert set(labels) == set(LABELS)
    first_end = next(i for i, (_, text) in enumerate(events) if text.startswith("■"))
    assert set(labels[:first_end]) == set(LABELS), "all talk before the first ends"
    switches = sum(one != other for one, other in zip(labels, labels[1:], strict=False))
    assert switches >= 2 * len(LABELS), "messages are shown as they come, not agent by agent"
    for label in LABELS:
        assert {text[0] for name, text in events if name == label} >= set("●→←■")

    shown = set(events)
    for label, computed in COMPUTED.items():
        assert any(name == label and computed in text for name, text in shown), f"no {computed!r}"
    for label, file in FILES.items():
        assert any(name == label and text.startswith(f"+ {file} (") for name, text in shown), f"no {file}"

    rows = ROW.findall(output)
    assert [row[0] for row in rows] == list(LABELS)
    assert {row[1] for row in rows} == {"success"}
    assert len({row[2] for row in rows}) == len({row[3] for row in rows}) == len(LABELS), "a run and a sandbox each"
    assert all(int(row[4]) > 3 and float(row[5]) > 0 and int(row[7]) >= 3 for row in rows)


def test_interrupt_stops_everything(start_demo):
    demo = start_demo(free_port())
    demo.read_until("→")
    demo.process.send_signal(signal.SIGINT)
    code, _ = demo.finish(STOP_SECONDS)
    assert code == 130


def test_failed_runs_and_busy_port_are_said_so(start_demo, refusing_model):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        env = {"ANTHROPIC_API_KEY": "sk-of-the-caller", "ANTHROPIC_BASE_URL": refusing_model}
        code, output = start_demo(port, env).finish()
    assert code == 1
    lines = output.splitlines()
    assert "real one" in lines[0]
    assert f"Port {port} cannot be used" in lines[1]
    assert [row[1] for row in ROW.findall(output)] == ["FAILED"] * len(LABELS)
    assert "sk-of-the-caller" not in output
