"""The client of one run: asks, reads, and leaves if that is its choice. What it saw is judged in verdict.py."""

import asyncio
import socket
import struct
from dataclasses import dataclass, field

import httpx
from choices import RunChoice
from harness.client import ANSWER_SECONDS, Answer, Stream, query_bytes, script
from harness.waiting import deadline
from httpx_sse import aconnect_sse

READ_PIECE = 20  # events between two pauses of a slow reader
SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)]
VISIT_SECONDS = 120
# How a visit ends: by the last chunk; by the server's close without it; by the client itself; not at all; by another
# answer than a stream.
COMPLETE, CUT, LEFT, SILENT, REFUSED = "complete", "cut", "left", "silent", "refused"


@dataclass
class Visit:
    """What one client saw."""

    choice: RunChoice
    end: str = ""
    reason: str = ""
    ports: set[int] = field(default_factory=set)  # of its connections
    answer: Answer | None = None
    cancel: int = 0  # status of the answer to a cancel; 0: none came

    @property
    def run_id(self) -> str:
        """The run's id; empty when no answer began."""
        return self.answer.run_id if self.answer else ""

    @property
    def texts(self) -> list[str]:
        """The events it read."""
        return self.answer.texts if self.answer else []


def noting(ports: set[int]) -> dict:
    """What an httpx request is given, so that the port of its connection is known though it may get no answer."""

    async def trace(event: str, info: dict) -> None:
        if event == "connection.connect_tcp.complete":
            ports.add(info["return_value"].get_extra_info("client_addr")[1])

    return {"trace": trace}


def linger_not(stream: httpx.Response) -> socket.socket:
    """The connection's socket; its close will be a reset."""
    connection = stream.extensions["network_stream"].get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return connection


def new_slow_client() -> httpx.AsyncClient:
    """One that takes little at a time, so that a slow reader is felt by its agent."""
    return httpx.AsyncClient(timeout=deadline(ANSWER_SECONDS), transport=httpx.AsyncHTTPTransport(socket_options=SMALL_BUFFER))


class Visitor:
    """Makes visits to a server."""

    def __init__(self, client: httpx.AsyncClient, slow_client: httpx.AsyncClient, server):
        self._client, self._slow_client, self._server = client, slow_client, server

    async def visit(self, choice: RunChoice) -> Visit:
        """One run, from its request to its end."""
        seen = Visit(choice)
        try:
            async with asyncio.timeout(deadline(VISIT_SECONDS)):
                if choice.way == "half a request":
                    await self._ask_half(seen)
                elif choice.way == "before the answer":
                    await self._ask_and_leave(seen)
                else:
                    await self._follow(seen)
        except (TimeoutError, httpx.TimeoutException) as reason:
            seen.end, seen.reason = SILENT, repr(reason)
        except (httpx.TransportError, ConnectionError) as reason:
            seen.end, seen.reason = CUT, repr(reason)
        return seen

    async def _ask_half(self, seen: Visit) -> None:
        """Leaves in the middle of its request: there is no run."""
        request = query_bytes(self._server, script(**seen.choice.prompt))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        seen.ports.add(writer.get_extra_info("sockname")[1])
        writer.write(request[: len(request) // 2])
        await asyncio.sleep(seen.choice.wait_s)
        writer.close()
        seen.end = LEFT

    async def _ask_and_leave(self, seen: Visit) -> None:
        """Leaves a moment after its request; the answer may have begun."""
        following = asyncio.create_task(self._follow(seen))
        done, _ = await asyncio.wait([following], timeout=seen.choice.wait_s)
        if not done:
            following.cancel()
        try:
            await following
        except asyncio.CancelledError:
            seen.end = LEFT

    async def _follow(self, seen: Visit) -> None:
        """Reads a stream to its end, or as far as the choice says."""
        choice = seen.choice
        body = {"prompt": script(**choice.prompt), "anthropic_api_key": f"key-{choice.marker}"}
        if choice.fault and choice.fault.timeout:
            body["timeout"] = choice.fault.timeout
        client = self._slow_client if choice.read_pause_s or choice.way == "stop reading" else self._client
        asked = aconnect_sse(client, "POST", f"{self._server.url}/query", json=body, extensions=noting(seen.ports))
        async with asked as source:
            if source.response.status_code != 200:
                seen.end, seen.reason = REFUSED, f"{source.response.status_code} {await source.response.aread()!r}"
                return
            stream = Stream(source)
            seen.answer = stream.answer
            if await self._read(seen, stream):
                seen.end = COMPLETE
            else:
                await self._leave(seen, source.response, stream)
                seen.end = LEFT

    async def _read(self, seen: Visit, stream: Stream) -> bool:
        """True at the end of the stream; False when it is time to leave."""
        choice, numbered, cancelling = seen.choice, 0, None
        while True:
            if choice.trouble == "leave" and numbered >= choice.after:
                return False
            if choice.trouble == "cancel" and numbered >= choice.after and not cancelling:
                cancelling = asyncio.create_task(self._cancel(seen))
            try:
                numbered += (await stream.next()).startswith('{"seq":')
            except StopAsyncIteration:
                break
            if choice.read_pause_s and numbered % READ_PIECE == 0:
                await asyncio.sleep(choice.read_pause_s)  # the reader's own pace
        if cancelling:
            await cancelling
        return True

    async def _cancel(self, seen: Visit) -> None:
        """Asks whichever worker takes it."""
        ports: set[int] = set()
        url = f"{self._server.url}/runs/{seen.run_id}/cancel"
        try:
            seen.cancel = (await self._client.post(url, extensions=noting(ports))).status_code
        except httpx.TransportError as reason:
            seen.reason = f"cancel: {reason!r}"
            seen.ports |= ports

    async def _leave(self, seen: Visit, response: httpx.Response, stream: Stream) -> None:
        """The end of the block around it closes the connection."""
        match seen.choice.way:
            case "reset":
                linger_not(response)
            case "stop reading":
                await asyncio.sleep(seen.choice.wait_s)
            case "half close":
                response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_WR)
                await stream.rest()
