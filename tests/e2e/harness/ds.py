"""`ds` as people use it (on a terminal) and as programs do (through pipes)."""

import codecs
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .server import BUILD, BUG_MARKS, bare_environment
from .waiting import deadline

DS = BUILD / "ds"
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
ANSWER_SECONDS = 20
COLUMNS, ROWS = 100, 30
CTRL_C = b"\x03"
VALGRIND = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]
VALGRIND_SECONDS = 60


def environment(server=None, env: dict[str, str] | None = None) -> dict[str, str]:
    """What ds is started with: the address of a server, and nothing of the caller's settings."""
    address = {"SANDSTORM_URL": server.url} if server else {}
    return bare_environment() | {"TERM": "xterm", "LC_ALL": "C.UTF-8"} | address | (env or {})


def check_sound(text: str) -> None:
    """No sanitizer had anything to say."""
    assert not [mark for mark in BUG_MARKS if mark in text], text


def ds(*args: object, server=None, env=None, given: bytes = b"", cwd=None) -> subprocess.CompletedProcess:
    """Runs it through pipes, to its end."""
    run = subprocess.run(
        [DS, *map(str, args)], env=environment(server, env), input=given, cwd=cwd, capture_output=True, check=False,
        timeout=deadline(ANSWER_SECONDS),
    )  # fmt: skip
    run.stdout, run.stderr = run.stdout.decode(), run.stderr.decode()
    check_sound(run.stderr)
    return run


def ds_checked(*args: object, server=None, env=None, cwd=None) -> None:
    """Runs it under valgrind, or with a sanitizer build's own checks: it must succeed, with no leak and no bad access."""
    memcheck = [] if b"__asan_init" in DS.read_bytes() else VALGRIND
    run = subprocess.run([*memcheck, DS, *map(str, args)], env=environment(server, env), cwd=cwd, capture_output=True, check=False,
                         timeout=deadline(VALGRIND_SECONDS))  # fmt: skip
    assert run.returncode == OK, run.stderr.decode()
    check_sound(run.stderr.decode())


class Screen:
    """One ds on a terminal of its own."""

    def __init__(self, process: subprocess.Popen, master: int):
        self.process = process
        self._master = master
        self._read = b""

    @property
    def text(self) -> str:
        """Everything it has shown; of a character that came in part, the rest comes with the next read."""
        return codecs.getincrementaldecoder("utf-8")().decode(self._read).replace("\r\n", "\n")

    def _read_more(self, end: float) -> bool:
        """Reads what is there; False at the end of the terminal."""
        assert select.select([self._master], [], [], max(0, end - time.monotonic()))[0], f"it shows no more than {self.text!r}"
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self._read += piece
        return bool(piece)

    def wait(self, text: str, seconds: float = ANSWER_SECONDS) -> str:
        """Until it shows a text; what it has shown."""
        end = time.monotonic() + deadline(seconds)
        while text not in self.text:
            assert self._read_more(end), f"it ended with {self.text!r}"
        return self.text

    def more(self) -> str:
        """What it has shown by now."""
        while select.select([self._master], [], [], 0)[0] and self._read_more(time.monotonic()):
            pass
        return self.text

    def press(self, keys: bytes) -> None:
        """As a keyboard does."""
        os.write(self._master, keys)

    def finish(self, seconds: float = ANSWER_SECONDS) -> int:
        """Reads to its end; its exit code."""
        end = time.monotonic() + deadline(seconds)
        while self._read_more(end):
            pass
        code = self.process.wait(deadline(seconds))
        self._read.decode()  # no part of a character is left
        check_sound(self.text)
        return code


@contextmanager
def ds_on_terminal(*args: object, server=None, env=None, cwd=None) -> Iterator[Screen]:
    """Starts it on a terminal, which is its controlling one."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (ROWS, COLUMNS))
    process = subprocess.Popen(
        ["setsid", "--ctty", DS, *map(str, args)], env=environment(server, env), cwd=cwd, stdin=slave, stdout=slave,
        stderr=slave,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Screen(process, master)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def ds_shown(*args: object, server=None, env=None, cwd=None) -> tuple[int, str]:
    """Runs it on a terminal to its end: its exit code, and what it showed."""
    with ds_on_terminal(*args, server=server, env=env, cwd=cwd) as screen:
        code = screen.finish()
        return code, screen.text
