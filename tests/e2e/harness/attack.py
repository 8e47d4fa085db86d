"""Who attacks a server, who only wants to be served meanwhile, and what the attack does to the workers."""

import os
import resource
import socket
import struct
import threading
import time
from contextlib import contextmanager

from . import procfs
from .client import RawConnection, query_bytes, script, status_of
from .server import Server, memory_slack_kib
from .waiting import SLOW, deadline, eventually

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HALF_BODY = b'POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n{"prompt"'
# An attack whose bytes do not come any more costs no time: a loop that spins takes all there is.
STILL_SECONDS = 0.7
STILL_SHARE = 0.1
# A bystander that is not served for so long was locked out.
PATIENCE_SECONDS = 10
# Each so many of its requests is a run; and between two of them others have their turn.
ONE_RUN_IN, PAUSE_SECONDS = 4, 0.02


def raise_descriptors(needed: int) -> None:
    """Lets this process have so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, needed), hard))


def connect(address: tuple | str, patience_s: float = PATIENCE_SECONDS) -> socket.socket:
    """A connection whose bytes go out one packet a send."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    opened = socket.socket(family)
    opened.settimeout(deadline(patience_s))
    opened.connect(address)
    if family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def reset(connection: socket.socket) -> None:
    """Ends it with an RST: nothing of it stays, not even a port that waits."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def say(connection: socket.socket, first: bytes) -> socket.socket:
    """Sends, unless the server has closed already."""
    try:
        connection.sendall(first)
    except ConnectionError:
        pass
    return connection


class Workers:
    """The workers of a server, before an attack and now."""

    def __init__(self, server: Server):
        self.server = server
        self.pids = server.workers()
        self.before_kib = {pid: procfs.private_kib(pid) for pid in self.pids}

    def cpu_seconds(self) -> float:
        """What they have used so far."""
        fields = [procfs.stat_fields(pid) for pid in self.pids]
        return sum(int(stat[11]) + int(stat[12]) for stat in fields) / os.sysconf("SC_CLK_TCK")

    def grown_kib(self) -> int:
        """Memory of all of them beyond what they had, and what a sanitizer may keep of it."""
        grown = sum(procfs.private_kib(pid) - self.before_kib[pid] for pid in self.pids)
        return grown - memory_slack_kib(0) * len(self.pids)

    def check_alive(self) -> None:
        """None was replaced."""
        assert self.server.workers() == self.pids, self.server.stderr[-3000:]

    def check_still(self) -> None:
        """With nothing to do they do nothing."""
        self.check_alive()
        # What a worker that was held up has still to do is done once; a loop that spins is never still.
        eventually(lambda: self._share() <= STILL_SHARE, 5, f"less than {STILL_SHARE} of a core with nothing to do")
        self.check_alive()

    def _share(self) -> float:
        """Of a core, for a moment."""
        before, begin = self.cpu_seconds(), time.monotonic()
        time.sleep(STILL_SECONDS)  # what is measured, not a synchronisation
        return (self.cpu_seconds() - before) / (time.monotonic() - begin)

    def check_returned(self, allowed_kib: int) -> None:
        """They are back at what they had."""
        eventually(lambda: self.grown_kib() <= allowed_kib, 10, f"memory within {allowed_kib} KiB of what it was")
        self.check_alive()


class Bystander:
    """A client among attackers: asks for health and for runs, each on a connection of its own, all the time."""

    def __init__(self, server: Server):
        self.server = server
        self.served = 0
        self.slowest_s = 0.0
        self.reason: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    def __enter__(self):
        self._thread.start()
        try:
            eventually(lambda: self.served or self.reason, PATIENCE_SECONDS, "the bystander's first answer")
        except AssertionError:
            self._over.set()
            raise
        return self

    def __exit__(self, kind, *_):
        self._over.set()
        self._thread.join()
        if kind is None:
            self.check()

    def _ask(self, request: bytes, mark: bytes) -> None:
        begin = time.monotonic()
        with RawConnection(self.server) as connection:
            connection.socket.settimeout(deadline(PATIENCE_SECONDS))
            connection.send(request)
            assert status_of(connection.read_until(mark)) == 200
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        self.served += 1

    def _ask_on(self) -> None:
        try:
            while not self._over.is_set():
                if self.served % ONE_RUN_IN == ONE_RUN_IN - 1:
                    self._ask(query_bytes(self.server, script(events=2)), b'"type":"result"')
                else:
                    self._ask(LAST_HEALTH, b'"status":"ok"')
                self._over.wait(PAUSE_SECONDS)
        except Exception as reason:  # noqa: BLE001 - told by check(), in the test's thread
            self.reason = reason

    def check(self) -> None:
        """Everything it asked for so far was served."""
        assert self.reason is None, f"after {self.served} answers: {self.reason!r}\n{self.server.stderr[-3000:]}"

    def wait_served(self, more: int = ONE_RUN_IN) -> None:
        """Waits until it was served so many times more."""
        wanted = self.served + more
        eventually(lambda: self.served >= wanted or self.reason, 2 * PATIENCE_SECONDS, "the bystander to be served")
        self.check()


@contextmanager
def attacked(server: Server):
    """Workers and a bystander, who must be served once more at the end of the block. What is open then costs no time."""
    workers = Workers(server)
    with Bystander(server) as bystander:
        yield workers, bystander
        bystander.wait_served()
    workers.check_still()
    print(f"bystander: {bystander.served} answers, the slowest in {bystander.slowest_s * 1000:.0f} ms; SLOW {SLOW:g}")
