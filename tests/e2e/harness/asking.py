"""Requests that never cease while a test does something to the server."""

import asyncio
from contextlib import asynccontextmanager

from .client import query, script


@asynccontextmanager
async def asking(client, server, *, runs: bool = False):
    """Asks for /health all the time, and for runs if told to; at the end no request has failed."""
    done = asyncio.Event()

    async def ask() -> None:
        while True:  # once at least, however short the test's block is
            assert (await client.get(f"{server.url}/health")).status_code == 200
            if runs:
                (await query(client, server, script(events=2))).check_complete(2)
            if done.is_set():
                return

    askers = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield
    finally:
        done.set()
        await asyncio.gather(*askers)
