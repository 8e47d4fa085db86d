"""A port of this machine that is a black hole: who connects to it hears nothing, neither yes nor no."""

import select
import socket
from contextlib import suppress

CONNECTED_SECONDS = 0.05  # on loopback a connection that comes about has done so long before
FILLERS_MAX = 16


class BlackHole:
    """A listener that accepts nobody and whose queue is full: the kernel drops every further SYN."""

    def __init__(self, port: int):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(0)
        self._fillers: list[socket.socket] = []
        while self._fill():
            if len(self._fillers) > FILLERS_MAX:
                raise AssertionError("this kernel never fills a queue")

    def _fill(self) -> bool:
        """One more connection; False when it did not come about."""
        filler = socket.socket()
        filler.setblocking(False)
        self._fillers.append(filler)
        with suppress(BlockingIOError):
            filler.connect(self._listener.getsockname())
        return bool(select.select([], [filler], [], CONNECTED_SECONDS)[1])

    def close(self) -> None:
        """Nobody listens there any more."""
        for one in (*self._fillers, self._listener):
            one.close()
