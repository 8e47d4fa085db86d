#!/usr/bin/env python3
"""E2B as our server sees it: control API and envd on one loopback port, by e2b.md part 0.

It runs no command. The prompt in a sandbox's agent_config.json says what its agent prints (agent_script.py), a ledger
keeps every request and sandbox (double_ledger.py), rules inject faults (double_faults.py), and what the client sends is
checked strictly (double_checks.py).

Alone, for development:

    e2b_double.py --port 3900            then E2B_API_URL=E2B_SANDBOX_URL=http://127.0.0.1:3900 build/sandstorm …
    curl 127.0.0.1:3900/__double/ledger  what happened so far
    curl -d '{"stage":"create","action":"status","status":429,"retry_after":"1"}' 127.0.0.1:3900/__double/fault
    curl -d '{"gate":"g"}' 127.0.0.1:3900/__double/release

It prints its ledger when it ends, and exits 1 when a sandbox was left or a rule of the protocol was broken.
"""

import argparse
import asyncio
import hashlib
import json
import re
import signal
import socket
import sys
import time
from contextlib import suppress

import connect_wire
import double_checks as checks
from agent_script import parse_prompt
from aiohttp import web
from black_hole import BlackHole
from double_faults import BEFORE_ANSWER, CLOSING, IN_STREAM, ON_ANSWER, Dropped, Fault, cut, error_answer
from double_ledger import Ledger, Sandbox
from double_stream import SIGNAL_TEXTS, AgentStream
from double_webhooks import Webhooks

DEFAULT_KEY = "e2b_0123456789abcdef0123456789abcdef01234567"
AGENT_CONFIG = "/opt/agent-runner/agent_config.json"
AGENT_CONFIG_KEYS = {
    "prompt", "cwd", "model", "max_turns", "system_prompt", "output_format", "agents", "mcp_servers", "has_skills",
    "allowed_tools", "timeout", "resume", "fork_session", "max_budget_usd",
}  # fmt: skip
FALLBACK_TEMPLATE = "claude-code"
INSTALL_COMMAND = re.compile(
    r"npm install --prefix /opt/agent-runner --omit=dev --no-audit --no-fund @anthropic-ai/claude-agent-sdk@[\w.-]+"
)
CLIENT_ID = "6532622b"
ENVD_VERSION = "0.6.13"
BODY_MAX_BYTES = 256 * 2**20
LISTEN_BACKLOG = 1024
LISTED_FILES_MAX = 11
LISTED_FILE_MAX_BYTES = 25 * 2**20


class E2BDouble:
    """One service. Its methods belong to its event loop, but for ledger, inject() and release()."""

    def __init__(self, key: str = DEFAULT_KEY, templates: set[str] | None = None):
        self.key = key
        self.templates = templates  # None: every template exists
        self.ledger = Ledger()
        self.webhooks = Webhooks()
        self.port = 0
        self._faults: list[Fault] = []
        self._gates: dict[str, asyncio.Event] = {}
        self._processes: dict[int, AgentStream | None] = {}
        self._next_pid = 1000
        self._made = 0
        self._detached: set[asyncio.Task] = set()  # held, or they would be collected
        self._transports: dict[asyncio.BaseTransport, int] = {}  # open connections → requests under way
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._hole: BlackHole | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- life ---

    async def start(self, port: int = 0) -> None:
        """Serves on 127.0.0.1; self.port tells where."""
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        for method, path, handler in (
            ("GET", "/__double/ledger", self._show_ledger),
            ("POST", "/__double/fault", self._take_fault),
            ("POST", "/__double/release", self._take_release),
            ("*", "/{path:.*}", self._serve),
        ):
            app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self.port = port
        await self.open_listener()

    async def stop(self) -> None:
        """Ends every connection."""
        for transport in list(self._transports):
            transport.abort()
        self._close_black_hole()
        await self._runner.cleanup()

    async def open_listener(self) -> None:
        """Accepts connections (again, on the same port)."""
        self._close_black_hole()
        listener = socket.create_server(("127.0.0.1", self.port), backlog=LISTEN_BACKLOG)
        self.port = listener.getsockname()[1]
        self._site = web.SockSite(self._runner, listener, backlog=LISTEN_BACKLOG)
        await self._site.start()

    async def close_listener(self) -> None:
        """Refuses new connections and ends idle ones; requests under way go on."""
        await self._site.stop()
        self.drop_idle()

    def open_black_hole(self) -> None:
        """Who connects hears nothing, until open_listener(); nobody listens when it is called."""
        self._hole = BlackHole(self.port)

    def _close_black_hole(self) -> None:
        """Nobody listens any more."""
        if self._hole:
            self._hole.close()
        self._hole = None

    def drop_idle(self) -> None:
        """Ends the connections that wait for a next request."""
        for transport, busy in list(self._transports.items()):
            if not busy:
                transport.abort()

    # --- for tests, from any thread ---

    def inject(self, stage: str, action: str, **when) -> Fault:
        """Adds a fault rule; see double_faults.Fault."""
        rule = Fault(stage, action, **when)
        self._faults.append(rule)
        return rule

    def forget_faults(self) -> None:
        """Takes every rule back."""
        self._faults.clear()

    def release(self, gate: str) -> None:
        """Opens a gate: whoever waits for it, now or later, goes on."""
        self._loop.call_soon_threadsafe(lambda: self.gate(gate).set())

    # --- for the helper modules ---

    def gate(self, name: str) -> asyncio.Event:
        """The gate of this name."""
        return self._gates.setdefault(name, asyncio.Event())

    def stream_faults(self, prompt: str, events: int) -> list[Fault]:
        """Stream faults that are due after this many numbered events."""
        return [rule for rule in self._faults if rule.after == events and rule.matches("stream", -1, prompt)]

    async def fire_in_stream(self, stream: AgentStream, rule: Fault) -> bool:
        """Does what the rule says; False when the stream ends here."""
        rule.fired += 1
        return await IN_STREAM[rule.action](self, stream, rule)

    def lose_sandbox(self, sandbox: Sandbox) -> None:
        """The sandbox dies without the client's doing: no request reaches it, its streams are cut."""
        if not sandbox.dead:
            self.ledger.note(sandbox, lost_at=time.monotonic())
        self._cut_streams(sandbox)

    # --- one request ---

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Books a request, serves it, books the answer."""
        sandbox = self._sandbox_of(request)
        stage, handler = self._route(request)
        entry = self.ledger.arrive(request.method, request.path_qs, stage, sandbox)
        transport = request.transport
        if transport:
            self.ledger.note(entry, on_new=transport not in self._transports)
            self._transports[transport] = self._transports.get(transport, 0) + 1
        try:
            body = await request.read()
            self._note_run(entry, request, body)
            response = await self._answer(request, body, stage, handler, sandbox, entry)
            if entry.fault in ("leave", "vanish"):
                response.force_close()
            self.ledger.note(entry, status=response.status, answered_at=time.monotonic())
            return response
        except Dropped:
            return web.Response(status=500)
        except (ConnectionError, asyncio.CancelledError):
            self.ledger.note(entry, gone_at=time.monotonic())
            if stage == "create" and entry.fault not in CLOSING:
                self.ledger.violation(f"{entry}: the client cut a create in flight")
            raise
        finally:
            self._idle(transport)

    def _idle(self, transport) -> None:
        """Books the end of a request on its connection."""
        if transport in self._transports:
            self._transports[transport] -= 1
            if transport.is_closing():
                del self._transports[transport]

    async def _answer(self, request, body, stage, handler, sandbox, entry) -> web.StreamResponse:
        """Checks the request, lets a fault answer, or the handler."""
        self._check(entry, checks.headers_of_all(request.headers))
        if "E2b-Sandbox-Id" in request.headers:
            self._check(entry, checks.headers_to_envd(request.headers, sandbox.token if sandbox else None))
        elif request.path != "/health":
            self._check(entry, checks.headers_to_api(request.headers, request.method, self.key))
        if handler == self._start_process and (other := self._other_process(body)):
            stage, handler = other
            self.ledger.note(entry, stage=stage)
        rule = self._due_fault(entry, sandbox, body)
        if rule:
            self.ledger.note(entry, fault=rule.action)
            if rule.action in ON_ANSWER:
                return await ON_ANSWER[rule.action](request, rule, await handler(request, body, sandbox, entry))
            if rule.applied:
                await handler(request, body, sandbox, entry)
            fault = BEFORE_ANSWER[rule.action](self, request, rule, stage, sandbox.id if sandbox else "")
            if rule.detached:
                return await asyncio.shield(self._detach(fault, handler(request, body, sandbox, entry)))
            answer = await fault
            if answer is not None:
                return answer
        if "E2b-Sandbox-Id" in request.headers and (sandbox is None or sandbox.dead):
            return error_answer(stage, request.headers["E2b-Sandbox-Id"], 502)
        return await handler(request, body, sandbox, entry)

    def _detach(self, fault, answer) -> asyncio.Task:
        """A task that goes on when the one who waits for it is cancelled."""

        async def run():
            return await fault or await answer

        task = asyncio.ensure_future(run())
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        return task

    def _note_run(self, entry, request, body: bytes) -> None:
        """Books whose create or lookup this is, before anything can go wrong with it."""
        metadata = {}
        if entry.stage == "find":
            metadata = checks.list_metadata(request.query_string) or {}
        elif entry.stage == "create":
            with suppress(ValueError, AttributeError):
                metadata = json.loads(body).get("metadata") or {}
        if metadata.get("request_id"):
            self.ledger.note(entry, run_id=metadata["request_id"])

    def _other_process(self, body: bytes):
        """Stage and handler of a Start that is not the agent's."""
        call, _ = checks.start_message(body)
        if command_line(call).startswith("find "):
            return "collect", self._collect
        return ("install", self._install) if command_line(call).startswith("npm ") else None

    def _route(self, request: web.Request):
        """Stage and handler of a request."""
        envd = "E2b-Sandbox-Id" in request.headers
        table = {
            ("POST", "/sandboxes", False): ("create", self._create),
            ("GET", "/v2/sandboxes", False): ("find" if self._names_a_run(request) else "survey", self._find),
            ("POST", "/events/webhooks", False): ("register", self._register),
            ("GET", "/events/webhooks", False): ("registrations", self._registrations),
            ("GET", "/health", False): ("api_health", self._api_health),
            ("GET", "/health", True): ("probe", self._probe),
            ("POST", "/files", True): ("upload", self._upload),
            ("GET", "/files", True): ("read", self._read),
            ("POST", "/process.Process/Start", True): ("start", self._start_process),
            ("POST", "/process.Process/SendSignal", True): ("signal", self._send_signal),
        }
        found = table.get((request.method, request.path, envd))
        if not found and not envd and request.method == "DELETE" and request.path.startswith("/sandboxes/"):
            found = ("kill", self._kill)
        if not found and not envd and request.method == "DELETE" and request.path.startswith("/events/webhooks/"):
            found = ("unregister", self._unregister)
        return found or ("unknown", self._unknown)

    @staticmethod
    def _names_a_run(request: web.Request) -> bool:
        """A list of one run's sandboxes, not of all that the instance has."""
        return "request_id" in (checks.list_metadata(request.query_string) or {"request_id": ""})

    def _sandbox_of(self, request: web.Request) -> Sandbox | None:
        """The sandbox a request names in its headers or, for DELETE, in its path."""
        name = request.headers.get("E2b-Sandbox-Id")
        if name is None and request.method == "DELETE":
            name = request.path.rsplit("/", 1)[-1]
        return self.ledger.sandboxes.get(name)

    def _due_fault(self, entry, sandbox: Sandbox | None, body: bytes) -> Fault | None:
        """The first rule that matches this request, counted as fired."""
        ordinal = self.ledger.ordinal(entry.stage)
        if entry.stage in ("create", "upload"):
            prompt = body.decode(errors="replace")
        else:
            prompt = agent_config(sandbox).get("prompt", "") if sandbox else ""
        for rule in self._faults:
            if rule.matches(entry.stage, ordinal, prompt, entry.path):
                rule.fired += 1
                return rule
        return None

    def _check(self, entry, breaches) -> None:
        """Books breaches of the protocol under the request that made them."""
        for breach in breaches:
            self.ledger.violation(f"{entry}: {breach}")

    def _cut_streams(self, sandbox: Sandbox) -> None:
        """Aborts a dead sandbox's connections: no end-of-stream, no last chunk (e2b.md B.3)."""
        for stream in list(sandbox.streams):
            cut(stream.request, reset=True)

    # --- the control API ---

    async def _create(self, request, body, _sandbox, entry) -> web.Response:
        """POST /sandboxes."""
        try:
            wanted = json.loads(body)
        except ValueError:
            self._check(entry, ["the create body is no JSON"])
            return error_answer("create", "", 400)
        self._check(entry, checks.create_body(wanted))
        if self.templates is not None and wanted.get("templateID") not in self.templates:
            return error_answer("create", "", 404, f"template '{wanted.get('templateID')}' not found")
        sandbox = self._make_sandbox(wanted)
        self.ledger.note(entry, sandbox_id=sandbox.id, run_id=sandbox.run_id)
        answer = {"templateID": "rki5dems9wqfm4r03t7g", "sandboxID": sandbox.id, "clientID": CLIENT_ID,
                  "envdVersion": ENVD_VERSION, "alias": sandbox.template, "envdAccessToken": sandbox.token,
                  "trafficAccessToken": None, "domain": None}  # fmt: skip
        return web.json_response(answer, status=201)

    def _make_sandbox(self, wanted: dict) -> Sandbox:
        """A sandbox that lives until it is deleted or its time is over."""
        self._made += 1
        name = hashlib.sha256(f"{self.port}/{self._made}".encode()).hexdigest()
        metadata = wanted.get("metadata", {})
        sandbox = Sandbox(
            id="i" + name[:20], token="token" + name[20:], run_id=metadata.get("request_id", ""),
            template=wanted.get("templateID", ""), made_at=time.monotonic(), ttl=wanted.get("timeout", 15),
            metadata=metadata, env=wanted.get("envVars", {}),
        )  # fmt: skip
        self.ledger.add_sandbox(sandbox)
        self._loop.call_later(sandbox.ttl, lambda: None if sandbox.dead else self.lose_sandbox(sandbox))
        return sandbox

    async def _register(self, _request, body, _sandbox, entry) -> web.Response:
        """POST /events/webhooks."""
        self._check(entry, self.webhooks.breaches(body))
        return self.webhooks.register(body)

    async def _registrations(self, _request, _body, _sandbox, _entry) -> web.Response:
        """GET /events/webhooks."""
        return self.webhooks.listed()

    async def _unregister(self, request, _body, _sandbox, _entry) -> web.Response:
        """DELETE /events/webhooks/{id}."""
        return self.webhooks.delete(request.path.rsplit("/", 1)[-1])

    async def _kill(self, request, body, sandbox, entry) -> web.Response:
        """DELETE /sandboxes/{id}."""
        if sandbox is None or sandbox.dead:
            missing = request.path.rsplit("/", 1)[-1]
            if sandbox and sandbox.deleted_at is None:
                self.ledger.note(sandbox, deleted_at=entry.at)
            text = f'Sandbox "{missing}" doesn\'t exist or you don\'t have access to it'
            return error_answer("kill", missing, 404, text)
        self.ledger.note(sandbox, deleted_at=entry.at)
        self._cut_streams(sandbox)
        return web.Response(status=204)

    async def _find(self, request, body, _sandbox, entry) -> web.Response:
        """GET /v2/sandboxes with a metadata filter, page by page; the token is the last one that was shown."""
        wanted = checks.list_metadata(request.query_string)
        if wanted is None:
            self._check(entry, ["the metadata filter does not decode"])
            return error_answer(entry.stage, "", 400, "Error parsing metadata")
        found = [
            {"templateID": s.template, "sandboxID": s.id, "clientID": CLIENT_ID, "startedAt": rfc3339(s.made_at),
             "endAt": rfc3339(s.made_at + s.ttl), "envdVersion": ENVD_VERSION, "cpuCount": 2, "memoryMB": 512,
             "diskSizeMB": 1024, "state": "running", "metadata": s.metadata}
            for s in self.ledger.created_before(request.query.get("nextToken", "").removesuffix("=="))
            if not s.dead and wanted.items() <= s.metadata.items()
        ]  # fmt: skip
        limit = int(request.query.get("limit", "100"))
        page = found[:limit]
        return web.json_response(page, headers={"X-Next-Token": page[-1]["sandboxID"] + "=="} if len(found) > limit else {})

    async def _api_health(self, request, body, _sandbox, entry) -> web.Response:
        """GET /health of the API."""
        return web.Response(text="Health check successful")

    async def _unknown(self, request, body, sandbox, entry) -> web.Response:
        """Anything a run has no business with."""
        self._check(entry, ["no such call is part of a run"])
        return error_answer("create", "", 404, f"{request.method} {request.path}: not found")

    # --- envd ---

    async def _probe(self, request, body, sandbox, entry) -> web.Response:
        """GET /health of a living sandbox."""
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def _upload(self, request, body, sandbox, entry) -> web.Response:
        """POST /files: multipart with full paths, or one raw body for ?path=."""
        content_type = request.headers.get("Content-Type", "")
        if content_type == "application/octet-stream":
            path = request.query.get("path", "")
            files, problems = [(path, body)], [] if path.startswith("/") else [f"raw upload to {path!r}"]
        else:
            files, problems = checks.upload_parts(content_type, body)
            if "path" in request.query:
                problems.append("a multipart upload names ?path=")
        self._check(entry, problems)
        if problems:
            return error_answer("upload", sandbox.id, 400, problems[0])
        for path, content in files:
            sandbox.files[path] = content
        self.ledger.note(sandbox, uploads=sandbox.uploads + 1)
        self._check_agent_config(entry, sandbox, [path for path, _ in files])
        answer = [{"name": path.rsplit("/", 1)[-1], "path": path, "type": "file"} for path, _ in files]
        return web.Response(text=json.dumps(answer))  # text/plain, as envd labels it

    def _check_agent_config(self, entry, sandbox: Sandbox, paths: list[str]) -> None:
        """agent_config.json holds exactly its keys and is the last part (http-api.md 6.5, 6.6)."""
        if AGENT_CONFIG not in paths:
            return
        if paths[-1] != AGENT_CONFIG:
            self._check(entry, [f"agent_config.json is not the last part: {paths}"])
        if set(agent_config(sandbox)) != AGENT_CONFIG_KEYS:
            self._check(entry, [f"agent_config.json has the keys {sorted(agent_config(sandbox))}"])

    async def _read(self, request, body, sandbox, entry) -> web.Response:
        """GET /files: what the agent left, or what was uploaded."""
        path = request.query.get("path", "")
        script = script_of(sandbox)
        relative = path.removeprefix("/home/user/")
        if script and relative in script.files:
            return web.Response(body=script.file_bytes(relative))
        if path in sandbox.files:
            return web.Response(body=sandbox.files[path])
        return error_answer("read", sandbox.id, 404, f"path '{path}' does not exist")

    async def _start_process(self, request, body, sandbox, entry) -> web.StreamResponse:
        """Process/Start of the agent."""
        self._check(entry, checks.start_call(request.headers, body))
        call, _ = checks.start_message(body)
        self.ledger.note(entry, command=command_line(call))
        try:
            stream = AgentStream(self, request, sandbox, agent_config(sandbox), script_of(sandbox))
        except (ValueError, TypeError) as reason:
            self._check(entry, [str(reason)])
            closing = connect_wire.end_of_stream("invalid_argument", f"error starting process: {reason}")
            return web.Response(body=closing, headers={"Content-Type": "application/connect+json"})
        pid = self._book_process(stream)
        sandbox.streams.add(stream)
        try:
            return await stream.run(pid)
        finally:
            sandbox.streams.discard(stream)
            del self._processes[pid]

    def _book_process(self, stream: AgentStream | None) -> int:
        """A pid for a new process."""
        self._next_pid += 1
        self._processes[self._next_pid] = stream
        return self._next_pid

    async def _collect(self, request, body, sandbox, entry) -> web.Response:
        """Process/Start of the command that lists new files: path TAB size NUL, sorted (http-api.md 6.10)."""
        self._check(entry, checks.start_call(request.headers, body))
        call, _ = checks.start_message(body)
        self.ledger.note(entry, command=command_line(call))
        script = script_of(sandbox)
        sizes = {path: len(script.file_bytes(path)) for path in script.files} if script else {}
        fitting = sorted(path for path, size in sizes.items() if size <= LISTED_FILE_MAX_BYTES)
        listing = b"".join(f"{path}\t{sizes[path]}\0".encode() for path in fitting[:LISTED_FILES_MAX])
        stream = connect_wire.start(self._book_process(None))
        if listing:
            stream += connect_wire.output("stdout", listing)
        stream += connect_wire.end() + connect_wire.end_of_stream()
        return web.Response(body=stream, headers={"Content-Type": "application/connect+json"})

    async def _install(self, request, body, sandbox, entry) -> web.Response:
        """Process/Start of the command that installs the Agent SDK into the fallback template, as root (6.4)."""
        self._check(entry, checks.start_call(request.headers, body, user="root"))
        call, _ = checks.start_message(body)
        self.ledger.note(entry, command=command_line(call))
        if sandbox.template != FALLBACK_TEMPLATE:
            self._check(entry, [f"the Agent SDK is installed into template {sandbox.template}"])
        if not INSTALL_COMMAND.fullmatch(command_line(call)):
            self._check(entry, [f"the installation runs {command_line(call)}"])
        script = script_of(sandbox)
        stream = connect_wire.start(self._book_process(None))
        if script and script.install_stderr:
            stream += connect_wire.output("stderr", script.install_stderr.encode())
        stream += connect_wire.end(script.install_exit if script else 0) + connect_wire.end_of_stream()
        return web.Response(body=stream, headers={"Content-Type": "application/connect+json"})

    async def _send_signal(self, request, body, sandbox, entry) -> web.Response:
        """Process/SendSignal to one pid."""
        self._check(entry, checks.connect_headers(request.headers, "application/json"))
        call = json.loads(body or b"{}")
        pid = call.get("process", {}).get("pid")
        if call.get("signal") not in SIGNAL_TEXTS:
            self._check(entry, [f"SendSignal sends {call.get('signal')}"])
            return web.json_response({"code": "unimplemented", "message": "invalid signal"}, status=501)
        stream = self._processes.get(pid)
        if stream is None or stream.sandbox is not sandbox:
            return web.json_response({"code": "not_found", "message": f"process with pid {pid} not found"}, status=404)
        sandbox.killed_pids.add(pid)
        stream.kill(call["signal"])
        return web.json_response({})

    # --- the double's own routes ---

    async def _show_ledger(self, request) -> web.Response:
        """What happened so far, for a person."""
        return web.json_response(self.ledger.summary(), dumps=lambda value: json.dumps(value, indent=1) + "\n")

    async def _take_fault(self, request) -> web.Response:
        """A fault rule as JSON."""
        try:
            self.inject(**await request.json(content_type=None))
        except (TypeError, ValueError) as reason:
            return web.json_response({"error": str(reason)}, status=400)
        return web.json_response({})

    async def _take_release(self, request) -> web.Response:
        """The name of a gate as JSON."""
        self.release((await request.json(content_type=None))["gate"])
        return web.json_response({})


def command_line(call: dict) -> str:
    """The line a Start call gives to bash."""
    args = call.get("process", {}).get("args") or [""]
    return args[-1]


def agent_config(sandbox: Sandbox) -> dict:
    """The agent's configuration as uploaded; empty before that."""
    return json.loads(sandbox.files.get(AGENT_CONFIG, b"{}"))


def script_of(sandbox: Sandbox):
    """The script in the sandbox's prompt, or None for plain text."""
    return parse_prompt(agent_config(sandbox).get("prompt", ""))


def rfc3339(monotonic: float) -> str:
    """A time of the ledger on the calendar."""
    wall = time.time() + monotonic - time.monotonic()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall)) + f".{int(wall % 1 * 1e6):06d}Z"


async def serve_until_signal(port: int, key: str) -> Ledger:
    """Runs a double until INT or TERM."""
    double = E2BDouble(key)
    await double.start(port)
    print(f"e2b double on http://127.0.0.1:{double.port}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await double.stop()
    return double.ledger


def main() -> int:
    """The stand-alone program."""
    parser = argparse.ArgumentParser(description="an E2B service that runs scripted agents")
    parser.add_argument("--port", type=int, default=0, help="0 lets the kernel choose")
    parser.add_argument("--key", default=DEFAULT_KEY, help="the API key to demand")
    options = parser.parse_args()
    ledger = asyncio.run(serve_until_signal(options.port, options.key))
    json.dump(ledger.summary(), sys.stdout, indent=1)
    print()
    return 1 if ledger.alive() or ledger.violations else 0


if __name__ == "__main__":
    sys.exit(main())
