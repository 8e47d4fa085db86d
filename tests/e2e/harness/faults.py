"""One server and one double for many broken runs, one after the other; each is judged by its own run id."""

import re
from contextlib import contextmanager, suppress

from . import leaks
from .client import Answer
from .record import final_record
from .waiting import eventually_async

TEXT_MAX_BYTES = 4096


class Faults:
    """What a test of one fault uses."""

    # The fallback template is the configured one: no run remembers for the next that a template is missing. The time limits
    # are short enough to be waited for, and none is reached because the server or the double stands still for a second.
    SETTINGS = {
        "SANDSTORM_TEMPLATE": "claude-code", "SANDSTORM_CREATE_RETRY_TIMEOUT": "3900ms", "SANDSTORM_AGENT_START_TIMEOUT": "4",
        "SANDSTORM_STREAM_IDLE_TIMEOUT": "4", "SANDSTORM_CONNECT_TIMEOUT": "2", "SANDSTORM_EXTRACT_FILE_LIMIT": "1MiB", "SANDSTORM_LOG_LEVEL": "debug",
    }  # fmt: skip

    def __init__(self, double, server):
        self.double = double
        self.server = server
        self.caller_key = "sk-ant-of-the-caller"
        self._log_at = 0

    @contextmanager
    def isolated(self):
        """Takes every fault back at the end; nothing of this test's runs may be left then."""
        self._log_at = len(self.server.stderr)
        try:
            yield self
            self.double.forget_faults()
            leaks.check_ledger(self.double)
        finally:
            self.double.forget_faults()
            with suppress(OSError):  # it was up
                self.double.come_up()
            # A sandbox that was left is this test's failure, not the next one's too.
            self.double.accept_left([sandbox.run_id for sandbox in self.double.ledger.alive()])
            self.double.ledger.violations.clear()

    @property
    def log(self) -> str:
        """What the server logged during this test."""
        return self.server.stderr[self._log_at :]

    def count(self, stage: str, run_id: str) -> int:
        """Requests of a run at a stage."""
        return len(self.double.ledger.of_stage(stage, run_id))

    @staticmethod
    def check_tries(cell, requests: list) -> None:
        """So many requests as a cell of the table wants."""
        least, most = cell.tries
        ours = [request for request in requests if request.on_new] if cell.repeats else requests
        assert least <= len(requests) and len(ours) <= most, [str(request) for request in requests]

    def duration(self, run_id: str) -> float:
        """Seconds a run took, by its record."""
        return float(re.search(rf"run {run_id} ended .*duration=([\d.]+)s", self.server.stderr)[1])

    async def check_end(self, answer: Answer, code: str) -> str:
        """The code is the client's and the record's, the text is fit to be shown; returns the text."""
        assert answer.error_code == code, answer.events[-1:]
        record = await final_record(self.server, answer.run_id)
        assert (record.outcome, record.code) == ("error", code)
        text = answer.events[-1]["error"]
        self.check_text(text)
        return text

    def check_text(self, text: str) -> None:
        """One line of at most 4 KiB, with something to act on and nothing secret."""
        assert len(text) > len("400: ") and text.isprintable(), text
        assert len(text.encode()) <= TEXT_MAX_BYTES
        tokens = [sandbox.token for sandbox in self.double.ledger.created()]
        assert not [secret for secret in (self.double.key, self.caller_key, *tokens) if secret in text], text

    async def until_deleted(self, run_id: str, sandboxes: int) -> None:
        """Waits until so many sandboxes were made for a run and all of them deleted."""

        def all_deleted(ledger):
            made = [sandbox for sandbox in ledger.created() if sandbox.run_id == run_id]
            return len(made) == sandboxes and all(sandbox.deleted_at for sandbox in made)

        await self.double.until(all_deleted, 10, f"{sandboxes} sandboxes of run {run_id} to be made and deleted")

    async def wait_log(self, text: str, seconds: float = 10) -> None:
        """Waits until this test's part of the log holds a text."""
        await eventually_async(lambda: text in self.log, seconds, f"{text!r} in the log")

