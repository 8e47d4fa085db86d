"""What the server's log has told so far, read on and on."""

import re
from collections import defaultdict

from harness.server import BUG_MARKS, Server

STARTED = re.compile(r"worker \d+\[(\d+)\] info: run ([0-9a-f]{16}) started")
ENDED = re.compile(r"run ([0-9a-f]{16}) ended outcome=(\S+) code=([\w-]+)")
DIED = re.compile(r"worker \d+ \(pid (\d+)\) of generation \d+ died while (.*)")
COUNTED = {
    "reloads": re.compile(r"generation \d+ serves, generation \d+ drains"),
    "reloads failed": re.compile(r"reload (?:refused|failed):"),
    "upgrades": re.compile(r"took over in process"),
    "upgrades refused": re.compile(r"upgrade refused"),
}


class LogWatch:
    """Runs and workers as the log tells of them."""

    def __init__(self, server: Server):
        self._server = server
        self._at = 0
        self.counts = dict.fromkeys(COUNTED, 0)
        self.workers: dict[str, int] = {}  # run → pid of its worker
        self.ends: dict[str, list[tuple[str, str | None]]] = defaultdict(list)  # run → outcome and code, each time it ended
        self.died: dict[int, str] = {}  # pid → how
        self.bugs: list[str] = []

    def read(self) -> None:
        """Whole lines that are new."""
        with self._server.log.open("rb") as log:
            log.seek(self._at)
            text = log.read()
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        for line in text.decode(errors="replace").splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        """One line."""
        if found := STARTED.search(line):
            self.workers[found[2]] = int(found[1])
        elif found := ENDED.search(line):
            self.ends[found[1]].append((found[2], None if found[3] == "-" else found[3]))
        elif found := DIED.search(line):
            self.died[int(found[1])] = found[2]
        else:
            for name, pattern in COUNTED.items():
                self.counts[name] += bool(pattern.search(line))
        if any(mark in line for mark in BUG_MARKS):
            self.bugs.append(line)

    def forget_runs(self) -> None:
        """Those that are judged."""
        self.workers.clear()
        self.ends.clear()
