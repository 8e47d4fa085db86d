"""A sandboxd as SDKs meet it: TCP on the loopback, an API key."""

import os
import subprocess
from pathlib import Path

from harness.server import BUG_MARKS, free_port
from harness.waiting import deadline

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / os.environ.get("SANDSTORM_BUILD", "build")
API_KEY = "e2b_" + "0123456789" * 4
STOP_SECONDS = 20


class Service:
    """One sandboxd, in a folder of its own, for all tests of a session."""

    def __init__(self, folder: Path):
        self.log_path = folder / "log"
        self.url = f"http://127.0.0.1:{free_port()}"
        key_file = folder / "keys"
        key_file.write_text(API_KEY + "\n")
        key_file.chmod(0o600)
        ready, told = os.pipe()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [BUILD / "sandboxd", "--listen", self.url.removeprefix("http://"), "--api-key-file", key_file,
                 "--ready-fd", str(told)],
                stdout=log, stderr=log, pass_fds=[told])  # fmt: skip
        os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read() == b"\n", f"sandboxd did not start: {self.log}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        """What points an SDK here."""
        return {"E2B_API_KEY": API_KEY, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url}

    def stop(self):
        """TERM, which must leave no process and no complaint."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.process.terminate()
        assert self.process.wait(deadline(STOP_SECONDS)) == 0, self.log
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
        assert not [mark for mark in BUG_MARKS if mark in self.log], self.log

    def destroy(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
