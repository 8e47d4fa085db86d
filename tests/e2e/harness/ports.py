"""Ports for servers that are started in a moment, possibly by programs that cannot take port 0.

Each process has a block of its own below the ports that the kernel gives to clients, so that neither another process of
tests nor a client takes a port between free_port() and the server's bind().
"""

import errno
import socket
from functools import cache
from itertools import cycle

FIRST, END, BLOCK = 10000, 32000, 500


@cache
def _own_block() -> tuple[socket.socket, cycle]:
    """A block that no other process of this machine has; the socket, whose name stands for it, keeps it."""
    for first in range(FIRST, END, BLOCK):
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0sandstorm-test-ports-{first}")
        except OSError as reason:
            mark.close()
            if reason.errno != errno.EADDRINUSE:
                raise
        else:
            return mark, cycle(range(first, first + BLOCK))
    raise AssertionError("every block of ports is taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port nobody listens on, and nobody else is given soon."""
    _, ports = _own_block()
    for _ in range(BLOCK):
        if _is_free(port := next(ports)):
            return port
    raise AssertionError("every port of the block is taken")
