#!/usr/bin/env python3
"""The demo: four prompts at once, four agents in four sandboxes, their messages as they come, then a table.

    demo.py [--build DIR] [--templates DIR] [--port PORT] [--model-delay SECONDS]

Starts the server on the local runtime, and the scripted model (tests/fake/model.py) when ANTHROPIC_API_KEY is not set;
its first line says which model answers. Needs what `make` builds and the template of `make template`. Stops
what it started, also on Ctrl-C. Exits 0 when every run gave a successful result, else 1.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from render import BOLD, DIM, RED, Screen, table

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "tests/fake/model.py"

# Label and prompt of each agent; the prompts are those of the deployment guide.
PROMPTS = (
    ("companies", "Scrape the top 50 YC companies and save as CSV"),
    ("security", "Analyze Python dependency security for requests==2.31.0"),
    ("papers", "Fetch today's arxiv papers on LLM agents and write a summary"),
    ("parks", "Build a SQLite DB of US national parks from NPS.gov"),
)

HOST = "127.0.0.1"
WORKERS = 4
RUN_TIMEOUT_S = 600
READY_TIMEOUT_S = 30
POLL_S = 0.05
# A client waits longer than a run may take: the server ends it, not we.
SILENCE_TIMEOUT_S = RUN_TIMEOUT_S + 60
# What ends a process, and how long each push may take: the second TERM makes the server end runs that are still open.
STOP_LADDER = ((signal.SIGTERM, 5), (signal.SIGTERM, 15), (signal.SIGKILL, 5))
LOG_LINES_SHOWN = 20

DEFAULT_MODEL_URL = "https://api.anthropic.com"
SCRIPTED_KEY = "scripted-model-needs-no-key"
# Settings of the caller's that would send the demo's server or agents elsewhere.
SERVER_VARIABLES = re.compile(r"SANDSTORM_|WEB_CONCURRENCY$|CORS_ORIGINS$")
PROVIDER_VARIABLES = re.compile(r"ANTHROPIC_|OPENROUTER_|CLAUDE_CODE_")


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass
class Run:
    """One prompt and what came of it."""

    number: int
    label: str
    prompt: str
    run_id: str = "-"
    result: dict | None = None
    error: str = ""
    files: int = 0
    seconds: float = 0.0

    @property
    def succeeded(self):
        """Whether the agent said so and nothing went wrong after it."""
        result = self.result or {}
        return result.get("subtype") == "success" and not result.get("is_error") and not self.error

    def take(self, event):
        """Notes what an event says about the run."""
        match event.get("type"):
            case "result":
                self.result = event
            case "error":
                self.error = str(event.get("error"))
            case "file":
                self.files += 1


# --- processes -----------------------------------------------------------------------------------


class Child:
    """A process of ours, in a session of its own, so that a Ctrl-C reaches us first."""

    def __init__(self, argv, **options):
        self._process = subprocess.Popen(
            [str(part) for part in argv], stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
        self.stdout = self._process.stdout

    @property
    def exit_status(self):
        """None while it runs."""
        return self._process.poll()

    def stop(self):
        """Ends it and waits for it."""
        for number, seconds in STOP_LADDER:
            if self.exit_status is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue


def start_model(delay_s, log):
    """Starts the scripted model; returns the process and its URL."""
    child = Child([sys.executable, MODEL, "--delay", delay_s], stdout=subprocess.PIPE, stderr=log, text=True)
    url = child.stdout.readline().strip()
    if not url:
        raise DemoError("the scripted model did not start")
    return child, url


def server_environment(model_url):
    """The server's environment; with a scripted model nothing of the caller's model settings is left in it."""
    dropped = [SERVER_VARIABLES] + ([PROVIDER_VARIABLES] if model_url else [])
    environment = {
        name: value for name, value in os.environ.items() if not any(pattern.match(name) for pattern in dropped)
    }
    if model_url:
        environment |= {"ANTHROPIC_BASE_URL": model_url, "ANTHROPIC_API_KEY": SCRIPTED_KEY}
    if os.geteuid() == 0:
        environment.setdefault("SANDSTORM_USER", "root")  # a demo of root's is for root
    return environment


def endpoint(url):
    """The host:port that a URL leads to."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or {'http': 80}.get(parts.scheme, 443)}"


def server_argv(arguments, port, network, folder):
    """The command line of the server."""
    return [
        arguments.build / "sandstorm",
        *("--workers", WORKERS),
        *("--timeout", RUN_TIMEOUT_S),
        *("--bind", f"{HOST}:{port}"),
        *("--runtime", "local"),
        *("--template-dir", arguments.templates),
        *("--network-allow", network),
        *("--local-socket", folder / "sandboxd.sock"),
    ]


def wait_ready(server, port, log):
    """Waits until the server answers; DemoError with the end of its log when it does not."""
    end = time.monotonic() + READY_TIMEOUT_S
    while server.exit_status is None and time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection(HOST, port, timeout=READY_TIMEOUT_S)
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(POLL_S)
        finally:
            connection.close()
    why = "does not answer" if server.exit_status is None else f"ended with status {server.exit_status}"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
    raise DemoError(f"the server {why}; the end of its log:\n{tail}")


def choose_port(wanted, screen):
    """The wanted port, or a free one when that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return probe.getsockname()[1]
            except OSError as error:
                screen.say(f"Port {port} cannot be used ({error.strerror}): taking a free one.", codes=[RED])
    raise DemoError("no port is free")


# --- one agent -----------------------------------------------------------------------------------


def events_of(response):
    """The events of a stream as they come; comments are skipped."""
    lines = []
    while raw := response.readline():
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and lines:
            yield json.loads("\n".join(lines))
            lines = []


def stream(run, connection, screen):
    """Posts the prompt and shows the agent's messages to the end of the stream."""
    body = json.dumps({"prompt": run.prompt})
    connection.request("POST", "/query", body, {"Content-Type": "application/json", "Accept": "text/event-stream"})
    response = connection.getresponse()
    if response.status != http.HTTPStatus.OK:
        raise DemoError(f"HTTP {response.status}: {response.read().decode('utf-8', 'replace')}")
    run.run_id = response.headers.get("X-Sandstorm-Run-Id", "-")
    for event in events_of(response):
        if isinstance(event, dict):
            run.take(event)
            screen.show(run.number, run.label, event)


def watch(run, port, screen):
    """One thread's work: a run from its request to its end, whatever ends it."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(HOST, port, timeout=SILENCE_TIMEOUT_S)
    try:
        stream(run, connection, screen)
        if run.result is None and not run.error:
            raise DemoError("the stream ended without a result")
    except (OSError, http.client.HTTPException, ValueError, DemoError) as error:
        run.error = str(error) or type(error).__name__
        screen.show(run.number, run.label, {"type": "error", "code": "client", "error": run.error})
    finally:
        connection.close()
        run.seconds = time.monotonic() - started


def run_all(port, screen):
    """All prompts at once; returns the runs when all have ended."""
    runs = [Run(number, label, prompt) for number, (label, prompt) in enumerate(PROMPTS)]
    threads = [threading.Thread(target=watch, args=(run, port, screen), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return runs


# --- the summary ---------------------------------------------------------------------------------


def sandboxes(log):
    """Which sandbox each run had, from the server's log."""
    return dict(re.findall(r"\brun ([0-9a-f]{16})\b.*?\bsandbox[ =]([a-z0-9]{12,})", log.read_text(errors="replace")))


def summary(runs, sandbox_of):
    """The table."""
    header = ["agent", "outcome", "run id", "sandbox", "turns", "cost", "duration", "files"]
    rows = []
    for run in runs:
        result = run.result or {}
        rows.append([
            run.label,
            "success" if run.succeeded else "FAILED",
            run.run_id,
            sandbox_of.get(run.run_id, "-"),
            str(result.get("num_turns", "-")),
            f"${result.get('total_cost_usd') or 0:.4f}",
            f"{run.seconds:.1f} s",
            str(run.files),
        ])  # fmt: skip
    return table(header, rows)


def introduce(model_url, screen):
    """The first line: which model answers."""
    if model_url:
        screen.say(
            "The model is a scripted stand-in on loopback, because ANTHROPIC_API_KEY is not set; the server, the "
            "sandboxes, the agents and the tools they use are real.",
            codes=[BOLD],
        )
    else:
        screen.say("The model is the real one: ANTHROPIC_API_KEY is set, and this demo spends money.", codes=[BOLD])


# --- from start to end ---------------------------------------------------------------------------


def play(arguments, folder, children, screen):
    """The whole demo; what it starts is in children as soon as it runs. Returns whether every run succeeded."""
    model_url = ""
    log = folder / "server.log"
    with log.open("wb") as output:
        if not os.environ.get("ANTHROPIC_API_KEY"):
            model, model_url = start_model(arguments.model_delay, output)
            children.append(model)
        introduce(model_url, screen)
        port = choose_port(arguments.port, screen)
        network = endpoint(model_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_MODEL_URL)
        argv = server_argv(arguments, port, network, folder)
        server = Child(argv, cwd=folder, env=server_environment(model_url), stdout=output, stderr=output)
        children.append(server)
    wait_ready(server, port, log)
    screen.say(f"Server: {' '.join(map(str, argv[:7]))} …", f"Four prompts go to http://{HOST}:{port}/query", "")
    runs = run_all(port, screen)
    server.stop()
    screen.say("", *summary(runs, sandboxes(log)))
    if model_url:
        screen.say("", "The agents computed these costs from scripted token counts; nothing was charged.", codes=[DIM])
    failed = [run.label for run in runs if not run.succeeded]
    if failed:
        tail = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        screen.say("", f"Without a successful result: {', '.join(failed)}. The end of the server's log:", codes=[RED])
        screen.say(*tail, codes=[DIM])
    return not failed


def check_made(arguments):
    """DemoError when something is missing that `make demo` makes."""
    made = (arguments.build / "sandstorm", arguments.build / "sandboxd", arguments.templates / "sandstorm/node_modules")
    for path in made:
        if not path.exists():
            raise DemoError(f"{path} is missing: run `make demo`")


def parse_arguments():
    """What was said on the command line."""
    parser = argparse.ArgumentParser(description="Four agents at once, on this machine.")
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build", help="where the programs are")
    parser.add_argument("--templates", type=Path, default=REPOSITORY / "build/templates", help="local templates")
    parser.add_argument("--port", type=int, default=8000, help="port of the server")
    parser.add_argument("--model-delay", type=float, default=0.3, metavar="SECONDS", help="pace of a scripted model")
    arguments = parser.parse_args()
    arguments.build, arguments.templates = arguments.build.resolve(), arguments.templates.resolve()
    return arguments


def interrupt(_number, _frame):
    """INT and TERM end the demo alike, also where a shell made us ignore INT."""
    raise KeyboardInterrupt


def main():
    """Returns the exit status."""
    arguments = parse_arguments()
    screen = Screen()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    folder = Path(tempfile.mkdtemp(prefix="sandstorm-demo-"))
    children = []
    try:
        check_made(arguments)
        return 0 if play(arguments, folder, children, screen) else 1
    except DemoError as error:
        screen.say(f"demo: {error}", codes=[RED])
        return 1
    except KeyboardInterrupt:
        screen.say("", "Interrupted: stopping the server.")
        screen.silence()
        return 128 + signal.SIGINT
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(children):
            child.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
