"""Deadlines and waits. Nothing in these tests sleeps to let something happen: they wait for a condition."""

import asyncio
import os
import time
from collections.abc import Callable

# Multiplies every deadline (not the promises themselves): for sanitizer builds and busy machines.
SLOW = float(os.environ.get("SANDSTORM_SLOW", "1"))
POLL_SECONDS = 0.01
# How much too early a libevent timer may be: its clock goes by the kernel's ticks, of 10 ms at most.
TICK_SECONDS = 0.01


def deadline(seconds: float) -> float:
    """A deadline for this machine and build."""
    return seconds * SLOW


def eventually(condition: Callable[[], object], seconds: float, what: str) -> object:
    """Polls until the condition gives something true, and returns it; AssertionError after the deadline."""
    end = time.monotonic() + deadline(seconds)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline(seconds):g} s for {what}")
        time.sleep(POLL_SECONDS)


async def eventually_async(condition: Callable[[], object], seconds: float, what: str) -> object:
    """eventually() for tests whose clients live in the same loop; the condition may be a coroutine function."""
    if not asyncio.iscoroutinefunction(condition):
        return await asyncio.to_thread(eventually, condition, seconds, what)
    end = time.monotonic() + deadline(seconds)
    while not (value := await condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline(seconds):g} s for {what}")
        await asyncio.sleep(POLL_SECONDS)
    return value
