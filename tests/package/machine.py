"""A booted Debian 12 in a container: systemd is process 1, the network is a loopback of its own.

Commands run in all its namespaces. Whoever enters its network is on its loopback: so the E2B double and the clients of a
test run here, in this process, and talk to the server there.
"""

import ctypes
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import procfs
from harness.waiting import deadline, eventually

BOOT_SECONDS = 90
COMMAND_SECONDS = 120
CLONE_NEWNET = 0x40000000
# nspawn covers files of /proc and makes /proc/sys read-only, which no real machine does, and which bubblewrap cannot have.
PLAIN_PROC = "mount -t proc -o nosuid,nodev,noexec proc /proc"


class Machine:
    """One machine. `log` holds its console."""

    def __init__(self, base: Path, folder: Path, *options: str):
        self.root = folder / "root"
        self.log = folder / "console.log"
        subprocess.run(["cp", "-a", "--reflink=auto", base, self.root], check=True)
        self._process = subprocess.Popen(
            ["systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--private-network", "--quiet",
             "--machine=sandstorm-test", f"--directory={self.root}", *options],
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL, stdout=self.log.open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            self.leader = eventually(self._find_leader, BOOT_SECONDS, "process 1 of the machine")
            eventually(self._is_up, BOOT_SECONDS, "the machine to be up")
        except BaseException:
            self._throw_away()
            raise

    def _find_leader(self) -> int | None:
        """Its process 1, once it is no longer nspawn's own."""
        assert self._process.poll() is None, self.log.read_text(errors="replace")
        children = procfs.children(self._process.pid)
        return next((pid for pid in children if "nspawn" not in procfs.command(pid)), None)

    def _is_up(self) -> bool:
        """Whether systemd has started everything."""
        return self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def run(self, command: str, check: bool = True, seconds: float = COMMAND_SECONDS) -> subprocess.CompletedProcess:
        """Runs a line of shell in it."""
        ran = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "sh", "-c", command],
            capture_output=True, text=True, check=False, timeout=deadline(seconds), env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert not check or ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran

    def start(self, command: str) -> subprocess.Popen:
        """Begins a line of shell in it."""
        return subprocess.Popen(["nsenter", "--target", str(self.leader), "--all", "sh", "-c", command])

    def put(self, path: str, text: str) -> None:
        """Writes a file, as an editor would: owner and mode stay."""
        self.run(f"mkdir -p {shlex.quote(os.path.dirname(path))}")
        (self.root / path.lstrip("/")).write_text(text)

    def uncover_proc(self) -> None:
        """Makes /proc that of a real machine. Its kernel settings are then this machine's own: nothing may change them."""
        self.run(PLAIN_PROC)

    @contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and those it starts, are on the machine's loopback meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net", encoding="ascii") as here, open(f"/proc/{self.leader}/ns/net", encoding="ascii") as there:
            assert libc.setns(there.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(here.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def stop(self) -> None:
        """Powers it off, pulls the plug if it does not obey, and throws it away."""
        self.run("systemctl poweroff", check=False)
        try:
            self._process.wait(deadline(30))
        finally:
            self._throw_away()

    def _throw_away(self) -> None:
        """nspawn takes everything in it along."""
        self._process.kill()
        self._process.wait()
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)
