"""One process stream of the double: turns a scripted agent into envelopes on a socket."""

import asyncio
import time

import connect_wire
from agent_script import AgentScript, Hold, Output, Pause, play
from aiohttp import web

SIGNAL_TEXTS = {"SIGNAL_SIGKILL": "killed", "SIGNAL_SIGTERM": "terminated"}


class AgentStream:
    """The answer to the Start call of an agent."""

    def __init__(self, double, request: web.Request, sandbox, config: dict, script: AgentScript | None):
        self.double = double
        self.request = request
        self.sandbox = sandbox
        self.config = config
        self.script = script or AgentScript()
        self.steps = play(script, sandbox.run_id, config.get("prompt", ""), config.get("model"))
        self.killed: str | None = None
        self.events = 0
        self._response = web.StreamResponse(headers={"Content-Type": "application/connect+json"})
        self._waiting: list[bytes] = []
        self._kill_seen = asyncio.Event()
        interval = float(request.headers.get("Keepalive-Ping-Interval", "90"))
        self._keepalive_s = self.script.keepalive_ms / 1000 or max(interval, 1)
        self._last_write = time.monotonic()

    async def run(self, pid: int) -> web.StreamResponse:
        """Plays the agent to its end; the caller deals with a client that leaves."""
        self._response.enable_chunked_encoding()
        await self._response.prepare(self.request)
        await self.write(connect_wire.start(pid))
        self.double.ledger.agent_began(self.sandbox.run_id)
        try:
            if await self._play():
                await self.flush()
                text = SIGNAL_TEXTS.get(self.killed or "", self.script.signal)
                await self.write(connect_wire.end(self.script.exit, text))
                await self.write(connect_wire.end_of_stream())
            await self._response.write_eof()
            return self._response
        finally:
            self.double.ledger.agent_over(self.sandbox.run_id)

    def kill(self, signal: str) -> None:
        """SendSignal reached this process: it prints nothing more."""
        self.killed = signal
        self._kill_seen.set()

    async def _play(self) -> bool:
        """The steps of the script and the faults between them; False when a fault ended the stream."""
        if not await self._faults():
            return False
        for step in self.steps:
            if self.killed:
                return True
            if isinstance(step, Output):
                await self._print(step)
                if step.events and not await self._faults():
                    return False
            elif isinstance(step, Pause):
                await self.flush()
                await self._idle(asyncio.sleep(step.seconds))
            elif isinstance(step, Hold):
                await self.hold(step.gate)
        return True

    async def _faults(self) -> bool:
        """Fires the faults that are due; False when one ended the stream."""
        for rule in self.double.stream_faults(self.config.get("prompt", ""), self.events):
            await self.flush()
            if not await self.double.fire_in_stream(self, rule):
                return False
        return True

    async def _print(self, step: Output) -> None:
        """Sends one data event, together with others when the script wants several envelopes in one write."""
        self._waiting.append(connect_wire.output(step.stream, step.piece))
        if len(self._waiting) >= self.script.batch:
            await self.flush()
        self.events += step.events
        self.double.ledger.agent_printed(self.sandbox.run_id, len(step.piece), step.events)

    async def flush(self) -> None:
        """Sends the envelopes that wait for company."""
        if self._waiting:
            together, self._waiting = b"".join(self._waiting), []
            await self.write(together)

    async def write(self, data: bytes) -> None:
        """Bytes to the socket, in slices when the script dribbles; waits while the client does not read."""
        size = self.script.dribble or len(data)
        for at in range(0, len(data), size):
            await self._response.write(data[at : at + size])
            if self.script.dribble:
                await asyncio.sleep(self.script.dribble_ms / 1000)
        self._last_write = time.monotonic()

    async def drained(self) -> None:
        """Waits until the kernel has taken everything, so that an abort drops nothing that was printed."""
        while self.request.transport and self.request.transport.get_write_buffer_size():
            await asyncio.sleep(0.001)

    async def hold(self, gate: str) -> None:
        """Keepalives only, until the test releases the gate or the process is killed."""
        await self.flush()
        await self._idle(self.double.gate(gate).wait())

    async def _idle(self, what) -> None:
        """Waits for something with keepalives; a kill ends the wait."""
        waits = [asyncio.ensure_future(what), asyncio.ensure_future(self._kill_seen.wait())]
        try:
            while True:
                left = self._last_write + self._keepalive_s - time.monotonic()
                done, _ = await asyncio.wait(waits, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return
                await self.write(connect_wire.keepalive())
        finally:
            for task in waits:
                task.cancel()
