"""A port of this machine that is a black hole: who connects to it hears nothing, neither yes nor no."""

import socket
import struct
import time

FULL_SECONDS = 10
# struct tcp_info of a listener: how many wait to be accepted, and how many may.
INFO_BYTES, WAITING = 104, struct.Struct("24xII")


class BlackHole:
    """A listener that accepts nobody and whose queue is full: the kernel drops every further SYN."""

    def __init__(self, port: int):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(0)
        self._filler = socket.create_connection(self._listener.getsockname(), FULL_SECONDS)
        self._wait_full()

    def _wait_full(self) -> None:
        """Until the kernel says so: that a connection does not come about may as well be a busy machine."""
        end = time.monotonic() + FULL_SECONDS
        while not self._is_full():
            if time.monotonic() > end:
                raise AssertionError("one connection does not fill a queue for none")
            time.sleep(0.001)

    def _is_full(self) -> bool:
        """Whether the listener takes nobody more."""
        waiting, most = WAITING.unpack_from(self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES))
        return waiting > most

    def close(self) -> None:
        """Nobody listens there any more."""
        for one in (self._filler, self._listener):
            one.close()
