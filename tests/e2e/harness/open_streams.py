"""Streams that are open while something happens to their server."""

import asyncio

from . import procfs
from .client import open_query, script
from .waiting import deadline

EVENTS = 4


class OpenStreams:
    """Streams that have shown their first event and are held at a gate."""

    def __init__(self, double, server, client, count: int, gate: str = "go", **fields):
        self.double, self.server, self.client, self.count, self.gate = double, server, client, count, gate
        self.prompt = script(events=EVENTS, hold=gate, hold_after=1, **fields)
        self.streams = [None] * count  # in the order of answers()
        self._tasks = []

    async def __aenter__(self):
        ready = [asyncio.Event() for _ in range(self.count)]
        self._tasks = [asyncio.create_task(self._one(number, event)) for number, event in enumerate(ready)]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in ready)), deadline(20))
        return self

    async def __aexit__(self, *_):
        self.double.release(self.gate)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one(self, number: int, ready: asyncio.Event):
        """One stream, to its end."""
        async with open_query(self.client, self.server, self.prompt) as stream:
            await stream.next_numbered()
            self.streams[number] = stream
            ready.set()
            return await stream.rest()

    async def answers(self) -> list:
        """What each stream came to: an answer or the exception its client got."""
        return await asyncio.gather(*self._tasks, return_exceptions=True)

    def owner(self, stream) -> int:
        """The worker that serves a stream."""
        return procfs.socket_owner(stream.client_port, self.server.workers())
