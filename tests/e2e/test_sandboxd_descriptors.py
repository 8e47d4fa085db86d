"""The number of a connection that sandboxd has just closed goes to the next pipe or terminal: that is watched all the same."""

import http.client
import json
import socket
import struct

import pytest
from sandboxd_client import SLOW, envelopes

HEADERS = {"Content-Type": "application/json", "X-API-KEY": "e2b_0"}
UNHEARD_SECONDS = 10 * SLOW  # what is not heard comes when the process has exited, after so long


class Asking:
    """One connection for everything: no accept comes between two requests."""

    def __init__(self, daemon):
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30 * SLOW)

    def ask(self, method: str, path: str, message: dict | None = None) -> tuple[int, bytes]:
        """A request of the control API."""
        self._connection.request(method, path, json.dumps(message) if message else None, HEADERS)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def create(self) -> dict:
        """A sandbox."""
        status, body = self.ask("POST", "/sandboxes", {"templateID": "base", "timeout": 120})
        assert status == 201, body
        return json.loads(body)

    def delete(self, created: dict) -> None:
        """Ends it; its streams are cut."""
        assert self.ask("DELETE", f"/sandboxes/{created['sandboxID']}")[0] == 204

    def stream(self, created: dict, command: str):
        """The events of a command on a terminal, as they come: its one descriptor is the next that sandboxd is given."""
        wish = {"process": {"cmd": "/bin/sh", "args": ["-c", command]}, "pty": {"size": {"cols": 80, "rows": 24}}}
        message = json.dumps(wish).encode()
        headers = {"E2b-Sandbox-Id": created["sandboxID"], "Content-Type": "application/connect+json"}
        self._connection.request("POST", "/process.Process/Start", struct.pack(">BI", 0, len(message)) + message, headers)
        return envelopes(self._connection.getresponse())

    def kill(self, created: dict, pid: int) -> None:
        """Kills a process, if there is one still."""
        message = json.dumps({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
        headers = HEADERS | {"E2b-Sandbox-Id": created["sandboxID"]}
        self._connection.request("POST", "/process.Process/SendSignal", message, headers)
        self._connection.getresponse().read()

    def is_heard(self, created: dict, other: "Asking") -> bool:
        """Whether output comes when it is printed, and not in the last look at a terminal whose process has exited.

        Who hears it kills the process, by another connection, which is there already.
        """
        events = {}
        for _, message in self.stream(created, f"echo seen; exec sleep {UNHEARD_SECONDS:g}"):
            came = message.get("event", {})
            events |= came
            if "data" in came:
                other.kill(created, events["start"]["pid"])
        return events["end"]["status"] == "signal: killed"


@pytest.fixture
def daemon(start_daemon):
    """On TCP, where a cut is a reset."""
    return start_daemon("--listen", "127.0.0.1:0")


@pytest.fixture
def asking(daemon):
    """The connection."""
    return Asking(daemon)


@pytest.fixture
def killing(daemon):
    """Another one, already made."""
    made = Asking(daemon)
    assert made.ask("GET", "/health")[0] == 200
    return made


def let_close(daemon, request: bytes) -> None:
    """A connection that sandboxd closes."""
    with socket.create_connection(("127.0.0.1", daemon.port)) as closing:
        closing.sendall(request)
        while closing.recv(65536):
            pass


@pytest.mark.parametrize(
    "request_bytes", [b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"no HTTP\r\n\r\n"],
    ids=["answered", "refused by evhttp itself"],
)  # fmt: skip
def test_after_a_connection_that_was_closed(daemon, asking, killing, request_bytes):
    created = asking.create()
    for _ in range(5):
        let_close(daemon, request_bytes)
        assert asking.is_heard(created, killing)
    asking.delete(created)


def test_after_a_stream_that_was_cut(daemon, asking, killing):
    for _ in range(5):
        created, other = Asking(daemon), asking.create()
        dying = created.create()
        events = created.stream(dying, "while :; do echo x; sleep 0.001; done")
        next(events)
        asking.delete(dying)
        assert asking.is_heard(other, killing)
        asking.delete(other)
