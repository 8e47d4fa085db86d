"""Clients that read a trickle, in a process of their own: neither the double nor the test waits for their checks.

As a program: connections to a port, each with the same request. They are read so many bytes a second until a line comes on
standard input, then as fast as they come. Every byte of every event is compared. What they saw is printed as JSON.
"""

import itertools
import json
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
RECEIVE_BUFFER_BYTES = 16384
READ_BYTES = 262144
STEPS_A_SECOND = 20


class Reader:
    """One connection: what came so far, and whether it is what the agent printed."""

    def __init__(self, port: int, request: bytes, event_bytes: int):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(request)
        self.socket.setblocking(False)
        self.bytes = self.events = 0
        self.wrong = ""
        self.has_result = self.is_complete = self.is_over = False
        self._event_bytes = event_bytes
        self._raw = bytearray()  # not dechunked yet
        self._text = bytearray()  # of an event that is not complete yet
        self._before = self._after = b""  # what an event is but for its number

    def read(self, count: int) -> None:
        """At most so many bytes, if there are any."""
        try:
            piece = self.socket.recv(count)
        except BlockingIOError:
            return
        except OSError as reason:
            self.end(str(reason))
            return
        self.bytes += len(piece)
        self._raw += piece
        if not self._before and b"\r\n\r\n" in self._raw:
            self._begin()
        if self._before:
            self._take_chunks()
        if not piece:
            self.end("" if self.is_complete else "cut")

    def end(self, wrong: str = "") -> None:
        """No more is read."""
        self.wrong = self.wrong or wrong
        self.is_over = True
        self.socket.close()

    def _begin(self) -> None:
        """The head has come; it names the run."""
        from agent_script import numbered_line  # noqa: PLC0415 - a program's path is set by its main()

        head, _, rest = bytes(self._raw).partition(b"\r\n\r\n")
        self._raw[:] = rest
        if not head.startswith(b"HTTP/1.1 200 "):
            self.end(head.decode(errors="replace"))
        run_id = head.lower().partition(b"x-sandstorm-run-id: ")[2].split(b"\r\n")[0].decode()
        line = b"data: " + numbered_line(run_id, 7, self._event_bytes).rstrip(b"\n")
        self._before, _, self._after = line.partition(b"7")
        assert self._before.endswith(b'"seq":')

    def _take_chunks(self) -> None:
        """Whole chunks only."""
        at = 0
        while (line_end := self._raw.find(b"\r\n", at)) >= 0:
            length = int(self._raw[at:line_end], 16)
            if length == 0:
                self.is_complete = True
                break
            if len(self._raw) < line_end + 2 + length + 2:
                break
            self._text += self._raw[line_end + 2 : line_end + 2 + length]
            at = line_end + 2 + length + 2
        del self._raw[:at]
        *whole, rest = self._text.split(b"\n\n")
        self._text = bytearray(rest)
        for text in whole:
            self._take(text)

    def _take(self, text: bytes) -> None:
        """One event, or a comment."""
        if text.startswith(self._before):
            if text != self._before + str(self.events).encode() + self._after:
                self.wrong = self.wrong or f"event {self.events}: {bytes(text[:80])!r}"
            self.events += 1
        elif text.startswith(b'data: {"type":"result"'):
            self.has_result = True
        elif text.startswith(b'data: {"type":"error"'):
            self.wrong = self.wrong or text.decode(errors="replace")

    @property
    def told(self) -> dict:
        """What the test wants to know."""
        return {"events": self.events, "wrong": self.wrong, "complete": self.is_complete and self.has_result}


def trickle(readers: list[Reader], rate: int) -> None:
    """Until standard input has a line: one in so many of the readers at each step, so that each has its rate."""
    begin = time.monotonic()
    for step in itertools.count():
        for reader in readers[step % STEPS_A_SECOND :: STEPS_A_SECOND]:
            if not reader.is_over:
                reader.read(rate)
        left = begin + (step + 1) / STEPS_A_SECOND - time.monotonic()
        if select.select([sys.stdin], [], [], max(left, 0))[0]:
            return


def flood(readers: list[Reader]) -> None:
    """To the end of each."""
    poll = select.poll()
    open_ones = {reader.socket.fileno(): reader for reader in readers if not reader.is_over}
    for number in open_ones:
        poll.register(number, select.POLLIN)
    while open_ones:
        for number, _ in poll.poll():
            reader = open_ones[number]
            reader.read(READ_BYTES)
            if reader.is_over:
                poll.unregister(number)
                del open_ones[number]


def main(port: str, count: str, rate: str, event_bytes: str) -> None:
    """The request comes on standard input first, as one JSON string."""
    sys.path.insert(0, str(TESTS / "fake"))
    request = json.loads(sys.stdin.buffer.raw.readline()).encode()
    readers = [Reader(int(port), request, int(event_bytes)) for _ in range(int(count))]
    trickle(readers, int(rate))
    slow_bytes = sum(reader.bytes for reader in readers)
    flood(readers)
    print(json.dumps({"slow_bytes": slow_bytes, "readers": [reader.told for reader in readers]}))


class SlowReaders:
    """The program, as a test sees it."""

    def __init__(self, server, request: bytes, count: int, rate: int, event_bytes: int):
        arguments = [str(number) for number in (server.port, count, rate, event_bytes)]
        self._process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)  # fmt: skip
        self._say(json.dumps(request.decode()))

    def _say(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def read_the_rest(self) -> dict:
        """As fast as it comes; what all of them saw."""
        self._say("now")
        return json.loads(self._process.stdout.readline())


if __name__ == "__main__":
    main(*sys.argv[1:])
