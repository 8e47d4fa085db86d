"""A client of sandboxd's unix socket for tests: the control API and envd, standard library only."""

import base64
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from harness import procfs

SLOW = float(os.environ.get("SANDSTORM_SLOW", "1"))
REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / os.environ.get("SANDSTORM_BUILD", "build")


def wait_for(condition, what: str, seconds: float = 10):
    """Waits until condition() is true and returns what it gave."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not in {seconds * SLOW:g} s: {what}")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout * SLOW)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Result:
    """All of one Start stream."""

    stdout: bytes = b""
    stderr: bytes = b""
    pty: bytes = b""
    events: list = field(default_factory=list)  # without data events
    end: dict | None = None  # the end event
    trailer: dict | None = None  # the end of stream; None: it was cut


def envelopes(reader):
    """The (flags, JSON) of each envelope, until the body ends; a cut raises IncompleteRead or ends short."""
    while True:
        head = reader.read(5)
        if not head:
            return
        if len(head) < 5:
            raise http.client.IncompleteRead(head)
        flags, length = struct.unpack(">BI", head)
        yield flags, json.loads(reader.read(length))


class Stream:
    """A streaming call while it runs."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.result = Result()
        self.events = envelopes(response)

    def next(self) -> dict:
        """The next event, put into the result too."""
        flags, message = next(self.events)
        if flags == 2:
            self.result.trailer = message
            return message
        event = message.get("event", message)  # WatchDir has no such wrapper
        if "data" in event:
            self.result.stdout += base64.b64decode(event["data"].get("stdout", ""))
            self.result.stderr += base64.b64decode(event["data"].get("stderr", ""))
            self.result.pty += base64.b64decode(event["data"].get("pty", ""))
        else:
            self.result.events.append(event)
            self.result.end = event.get("end", self.result.end)
        return event

    def until(self, condition) -> Result:
        """Reads on until condition(result) is true."""
        while not condition(self.result):
            self.next()
            assert self.result.trailer is None, f"ended before: {self.result}"
        return self.result

    @property
    def pid(self) -> int:
        return self.until(lambda result: result.events).events[0]["start"]["pid"]

    def finish(self) -> Result:
        """Reads to the end; a raw cut leaves trailer None."""
        try:
            while True:
                self.next()
        except (StopIteration, http.client.IncompleteRead, ConnectionError):
            pass
        self.close()
        return self.result

    def close(self):
        self.response.close()
        self.connection.close()


class Sandbox:
    def __init__(self, daemon, created):
        self.daemon, self.created = daemon, created
        self.id, self.token = created["sandboxID"], created.get("envdAccessToken")

    @property
    def headers(self):
        token = {"X-Access-Token": self.token} if self.token else {}
        return {"E2b-Sandbox-Id": self.id, "E2b-Sandbox-Port": "49983"} | token

    def call(self, method, path, body=None, headers=None) -> Answer:
        return self.daemon.call(method, path, body, self.headers | (headers or {}))

    def stream(self, path, message, headers=None) -> Stream:
        """Begins a streaming RPC with one message."""
        payload = json.dumps(message).encode()
        connection = UnixConnection(self.daemon.socket)
        sent = {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"}
        body = struct.pack(">BI", 0, len(payload)) + payload
        connection.request("POST", path, body, self.headers | sent | (headers or {}))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "application/connect+json"
        return Stream(connection, response)

    def start(self, command, headers=None, stdin=False, options=None, **process) -> Stream:
        """Begins bash -l -c command."""
        config = {"cmd": "/bin/bash", "args": ["-l", "-c", command]} | process
        message = {"process": config, "stdin": stdin} | (options or {})
        return self.stream("/process.Process/Start", message, headers)

    def attach(self, pid, headers=None) -> Stream:
        """Connects to a process."""
        return self.stream("/process.Process/Connect", {"process": {"pid": pid}}, headers)

    def run(self, command, headers=None, **process) -> Result:
        return self.start(command, headers, **process).finish()

    def text(self, command) -> str:
        """What a command that must succeed prints."""
        result = self.run(command)
        assert result.end == {"exited": True, "status": "exit status 0"}, result
        return result.stdout.decode()

    def rpc(self, method, body) -> Answer:
        return self.call("POST", f"/process.Process/{method}", json.dumps(body), {"Content-Type": "application/json"})

    def files(self, method, **body) -> Answer:
        """A unary RPC of Filesystem."""
        kind = {"Content-Type": "application/json"}
        return self.call("POST", f"/filesystem.Filesystem/{method}", json.dumps(body), kind)

    def upload(self, files: dict, query="") -> Answer:
        """One multipart request, the full paths as filenames."""
        parts = b"".join(
            f'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="{path}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
            + content
            + b"\r\n"
            for path, content in files.items()
        )
        kind = {"Content-Type": "multipart/form-data; boundary=b0undary"}
        return self.call("POST", "/files" + query, parts + b"--b0undary--\r\n", kind)

    def read(self, path) -> Answer:
        return self.call("GET", f"/files?path={quote(path, safe='')}")

    def kill(self) -> Answer:
        return self.daemon.call("DELETE", f"/sandboxes/{self.id}")


def children_of(pid: int) -> list[int]:
    """All descendants of a process."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except procfs.GONE:
        return []
    return children + [below for child in children for below in children_of(child)]


def facts(pids: list[int], fact) -> dict:
    """fact(pid) of each; a login shell's helpers come and go: who is gone has none."""
    found = {}
    for pid in pids:
        with suppress(*procfs.GONE):
            found[pid] = fact(pid)
    return found


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


class Daemon:
    """A sandboxd of one test, in a folder of its own."""

    def __init__(self, folder: Path, *args, prefix=(), program=BUILD / "sandboxd"):
        self.folder, self.socket = folder, folder / "sandboxd.sock"
        self.log_path = folder / "log"
        ready, told = os.pipe()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*prefix, program, "--socket", self.socket, "--ready-fd", str(told), *map(str, args)],
                stderr=log, stdout=log, cwd=folder, pass_fds=[told])  # fmt: skip
        os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read() == b"\n", self.log
        self.idle_fds = self.descriptors

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def port(self) -> int:
        """Of --listen 127.0.0.1:0."""
        return int(re.search(r"listens on 127\.0\.0\.1:(\d+)", self.log)[1])

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def children(self) -> list[int]:
        return children_of(self.process.pid)

    def call(self, method, path, body=None, headers=None) -> Answer:
        return self.ask(UnixConnection(self.socket), method, path, body, headers)

    def call_tcp(self, method, path, body=None, headers=None) -> Answer:
        return self.ask(http.client.HTTPConnection("127.0.0.1", self.port, 30 * SLOW), method, path, body, headers)

    def ask(self, connection, method, path, body, headers) -> Answer:
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def post(self, path, body) -> Answer:
        return self.call("POST", path, json.dumps(body), {"Content-Type": "application/json"})

    def create(self, path="/sandboxes", **fields) -> Sandbox:
        answer = self.post(path, {"templateID": "base", "timeout": 120} | fields)
        assert answer.status == 201, answer
        return Sandbox(self, answer.json)

    def stop(self):
        """TERM, which must leave nothing behind."""
        if self.process.poll() is not None:
            return
        children = self.children
        self.process.terminate()
        assert self.process.wait(10 * SLOW) == 0, self.log
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
        assert not self.socket.exists()

    def destroy(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_daemons(folder: Path):
    """A function that starts daemons; each must give back processes and descriptors, and exit 0 on TERM."""
    started = []

    def start(*args, owner=-1, **how) -> Daemon:
        own = folder / str(len(started))
        own.mkdir()
        os.chown(own, owner, owner)
        daemon = Daemon(own, *args, **how)
        started.append(daemon)
        return daemon

    try:
        yield start
        for daemon in started:
            daemon.stop()
            assert "Sanitizer" not in daemon.log and "panic" not in daemon.log, daemon.log
    finally:
        for daemon in started:
            daemon.destroy()
