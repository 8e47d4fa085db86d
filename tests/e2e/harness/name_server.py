"""A name server of the test's own on an address of this machine, and programs that ask it and nobody else.

The library that looks names up asks port 53 only, and finds out whom from /etc/resolv.conf: a program that shall ask us
gets files of ours in their place, in a mount namespace of its own. Both need root.
"""

import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

PORT = 53
# The library's own patience is longer than every time limit of a test: nothing ends by itself.
RESOLV_CONF = "nameserver {address}\noptions timeout:30 attempts:1\n"
ASK_IT = (
    'mount --bind "$1/resolv.conf" /etc/resolv.conf && mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf && '
    'mount --bind "$1/hosts" /etc/hosts && shift && exec "$@"'
)
TYPE_A = 1
RESPONSE, SERVFAIL, NXDOMAIN = 0x8180, 0x8182, 0x8183


@cache
def why_not() -> str | None:
    """Why there can be no name server here."""
    if os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0:
        return None
    return "a name server on port 53 and files in /etc of one's own need root, and a mount namespace"


def bind_somewhere(server: socket.socket) -> str:
    """The first address of this machine whose port 53 nobody has: other tests run at the same time."""
    for number in range(250 * 250):
        address = f"127.53.{number // 250}.{number % 250 + 1}"
        with suppress(OSError):
            server.bind((address, PORT))
            return address
    raise AssertionError("no address is free")


class NameServer:
    """Every name is 127.0.0.1, unless `way` says otherwise: "answer", "servfail", "nxdomain", "stall", or "late".

    What was asked while it stalled is answered as soon as it does not any more.
    """

    def __init__(self, folder: Path):
        self.way = "answer"
        self.late_s = 0.5
        self.asked: list[str] = []
        self._kept: list[tuple[float, bytes, tuple]] = []
        self._folder = folder
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = bind_somewhere(self._socket)
        self._socket.settimeout(0.05)  # between two looks at what is due
        self._is_over = False
        for name, text in (
            ("resolv.conf", RESOLV_CONF.format(address=self.address)), ("nsswitch.conf", "hosts: files dns\n"),
            ("hosts", "127.0.0.1 localhost\n"),
        ):  # fmt: skip
            (folder / name).write_text(text)
        self._thread = threading.Thread(target=self._serve, name="name-server", daemon=True)
        self._thread.start()

    def asking(self, *command: object) -> list[str]:
        """A command line that runs a program as a process that asks this server; it keeps its pid."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ASK_IT, "sh", str(self._folder),
                *(str(part) for part in command)]  # fmt: skip

    def names_asked(self) -> set[str]:
        """Every name that was asked for."""
        return set(self.asked)

    def close(self) -> None:
        """Ends it."""
        self._is_over = True
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        """One question after the other."""
        while not self._is_over:
            try:
                question, peer = self._socket.recvfrom(4096)
            except TimeoutError:
                question = None
            if question:
                self.asked.append(name_in(question))
                self._kept.append((time.monotonic(), question, peer))
            self._answer_due()

    def _answer_due(self) -> None:
        """Whatever need not wait any longer."""
        way, now = self.way, time.monotonic()
        if way == "stall":
            return
        kept, self._kept = self._kept, []
        for at, question, peer in kept:
            if way == "late" and now < at + self.late_s:
                self._kept.append((at, question, peer))
            else:
                self._socket.sendto(answer_to(question, way), peer)


def name_in(question: bytes) -> str:
    """The name a question asks for."""
    labels, at = [], 12
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels)


def answer_to(question: bytes, way: str) -> bytes:
    """The address, no address of this type, or an error; whatever else the question held is left out."""
    end = question.index(b"\0", 12) + 5
    is_a = struct.unpack(">H", question[end - 4 : end - 2])[0] == TYPE_A
    code = {"servfail": SERVFAIL, "nxdomain": NXDOMAIN}.get(way, RESPONSE)
    answers = is_a and code == RESPONSE
    head = question[:2] + struct.pack(">HHHHH", code, 1, answers, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, 1, 4) + bytes([127, 0, 0, 1])
    return head + question[12:end] + record * answers
