"""Clients of POST /query: the one our users have (httpx with httpx-sse) and a raw socket for what no client sends."""

import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from httpx_sse import EventSource, aconnect_sse

from . import procfs
from .waiting import deadline, eventually

ANSWER_SECONDS = 60
CONNECTIONS_MAX = 400


def script(**fields) -> str:
    """A prompt for the double's agent; see agent_script.AgentScript."""
    return json.dumps(fields)


def new_client(seconds: float = ANSWER_SECONDS, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """A client without a limit of its own on connections. tls: for HTTPS servers."""
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=deadline(seconds), limits=limits, trust_env=False, verify=tls or True)


@dataclass
class Answer:
    """One answered stream."""

    status: int
    headers: httpx.Headers
    run_id: str
    texts: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[dict]:
        """The events that are JSON objects."""
        parsed = []
        for text in self.texts:
            try:
                parsed.append(json.loads(text))
            except ValueError:
                continue
        return [event for event in parsed if isinstance(event, dict)]

    def of_type(self, kind: str) -> list[dict]:
        """Events of one type."""
        return [event for event in self.events if event.get("type") == kind]

    @property
    def error_code(self) -> str | None:
        """The code of the server's error event, which must be the only one and the last event."""
        errors = [event for event in self.of_type("error") if "code" in event]
        if not errors:
            return None
        assert len(errors) == 1 and self.events[-1] == errors[0], f"error is not the one last event: {self.events[-3:]}"
        assert errors[0]["request_id"] == self.run_id
        return errors[0]["code"]

    def check_complete(self, events: int) -> None:
        """Every numbered event came once, in order, from this run; the result is last."""
        numbered = [event for event in self.events if "seq" in event]
        assert [event["seq"] for event in numbered] == list(range(events))
        assert {event["run"] for event in numbered} <= {self.run_id}
        assert self.events[-1]["type"] == "result", self.events[-1]


class Stream:
    """An open stream that is read event by event."""

    def __init__(self, source: EventSource):
        response = source.response
        self.answer = Answer(response.status_code, response.headers, response.headers.get("X-Sandstorm-Run-Id", ""))
        self.client_port = response.extensions["network_stream"].get_extra_info("client_addr")[1]
        self._events: AsyncIterator = source.aiter_sse()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.answer.run_id

    async def next(self) -> str:
        """The text of the next event."""
        event = await anext(self._events)
        self.answer.texts.append(event.data)
        return event.data

    async def next_numbered(self) -> dict:
        """The next numbered event."""
        while True:
            event = json.loads(await self.next())
            if "seq" in event:
                return event

    async def rest(self) -> Answer:
        """Reads to the end of the stream."""
        async for event in self._events:
            self.answer.texts.append(event.data)
        return self.answer


@asynccontextmanager
async def open_query(client: httpx.AsyncClient, server, prompt: str, **fields):
    """POST /query as a stream; leaving the block closes the connection."""
    body = {"prompt": prompt, **fields}
    async with aconnect_sse(client, "POST", f"{server.url}/query", json=body) as source:
        yield Stream(source)


async def query(client: httpx.AsyncClient, server, prompt: str, **fields) -> Answer:
    """POST /query, read to its end."""
    async with open_query(client, server, prompt, **fields) as stream:
        return await stream.rest()


class RawConnection:
    """A TCP connection, or TLS as the server wants it, on which the test writes every byte itself."""

    def __init__(self, server, receive_buffer: int | None = None, source: str | None = None):
        self.socket = socket.socket()
        if source:
            self.socket.bind((source, 0))
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(deadline(20))
        self.socket.connect(("127.0.0.1", server.port))
        if server.tls:
            self.socket = server.tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._early = b""  # read by answers_within()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def wait_taken(self) -> None:
        """Waits until the server has read what was sent: its loop comes to other connections after that."""
        server, own = self.socket.getpeername()[1], self.socket.getsockname()[1]
        eventually(lambda: procfs.unsent_bytes(own, server) == 0, 10, "the bytes to reach the server")
        eventually(lambda: procfs.unread_bytes(server, own) == 0, 10, "the server to read")

    def answers_within(self, seconds: float) -> bool:
        """Whether the server has something to say, or closes; it is kept for the next read."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self._early += self.socket.recv(65536)
            return True
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(before)

    def read_some(self, count: int) -> bytes:
        """That many bytes, less only at the end: one recv() gives a record at most."""
        got, self._early = self._early, b""
        while len(got) < count and (piece := self.socket.recv(count - len(got))):
            got += piece
        return got

    def read_until(self, mark: bytes) -> bytes:
        """Reads to a mark; AssertionError when the server closes before it."""
        got, self._early = self._early, b""
        while mark not in got:
            piece = self.socket.recv(65536)
            assert piece, f"closed before {mark!r}: {got[-500:]!r}"
            got += piece
        return got

    def read_to_end(self) -> bytes:
        """Everything up to the server's close; a reset counts as a close."""
        pieces, self._early = [self._early], b""
        while True:
            try:
                piece = self.socket.recv(65536)
            except ConnectionError:
                piece = b""
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)


def query_bytes(server, prompt: str, version: str = "1.1", extra: str = "") -> bytes:
    """A POST /query as bytes."""
    body = json.dumps({"prompt": prompt})
    return (
        f"POST /query HTTP/{version}\r\nHost: 127.0.0.1:{server.port}\r\n{extra}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def status_of(answer: bytes) -> int:
    """The status of a raw answer; 0 when there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def body_of(answer: bytes) -> bytes:
    """What follows the headers of a raw answer."""
    return answer.partition(b"\r\n\r\n")[2]


def dechunk(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether its last chunk came."""
    pieces = []
    at = 0
    while (line_end := body.find(b"\r\n", at)) >= 0:
        length = int(body[at:line_end], 16)
        if length == 0:
            return b"".join(pieces), True
        pieces.append(body[line_end + 2 : line_end + 2 + length])
        at = line_end + 2 + length + 2
    return b"".join(pieces), False
