"""A TCP relay in front of the sandbox service: TLS, a proxy, or TLS that goes bad."""

import asyncio
import ssl
import threading
from contextlib import suppress

from .server import refuses
from .waiting import deadline


class Relay:
    """A TCP relay in a thread: TLS towards who connects if it has a context, else a proxy that obeys CONNECT."""

    def __init__(self, target_port: int, context=None):
        self.target_port = target_port
        self.heads: list[bytes] = []  # what was asked of the proxy
        self.connections = 0
        self.parting = b""  # what those who connect get at the end of a connection, below TLS
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context))

    def _call(self, coroutine):
        """Runs a coroutine in the relay's loop and returns what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(deadline(10))

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer) -> None:
        """One connection, both ways."""
        self.connections += 1
        if not self._context:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer, self.parting))

    @staticmethod
    async def _copy(reader, writer, parting: bytes = b"") -> None:
        """One way. parting: sent at its end, and not as TLS."""
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        if parting:
            with suppress(OSError), writer.get_extra_info("socket").dup() as below:
                below.send(parting)
        writer.close()

    def close(self) -> None:
        """Ends it with its connections."""

        async def cancel_all() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(deadline(10))
        self._loop.close()


class SpoiledRelay(Relay):
    """One that speaks TLS as long as its target listens; then every handshake fails."""

    def __init__(self, target_port: int, context: ssl.SSLContext):
        context.sni_callback = self._on_hello
        self.spoiled = 0  # connections
        super().__init__(target_port, context)

    def _on_hello(self, *_) -> int | None:
        """A client says hello: no alert, or the one that it gets."""
        if not refuses(self.target_port):
            return None
        self.spoiled += 1
        return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
