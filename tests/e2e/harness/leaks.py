"""What must be true after every e2e test: no sandbox, process, descriptor or file is left, and no bug was reported."""

from . import procfs
from .server import ALLOWED_FILES, BUG_MARKS, Server
from .waiting import eventually

DELETIONS_SECONDS = 15
SETTLE_SECONDS = 5


def check_ledger(double) -> None:
    """Every sandbox made was deleted, no stream is open, and the client broke no rule of the protocol."""
    double.wait(lambda ledger: not ledger.alive(), DELETIONS_SECONDS, "the deletion of every sandbox")
    double.wait(lambda ledger: not ledger.open_streams(), DELETIONS_SECONDS, "the end of every stream")
    assert not double.ledger.violations, "\n".join(double.ledger.violations)


def check_descriptors(server: Server) -> None:
    """Every worker has no more descriptors than a fresh one."""
    allowed = max(server.baseline.values(), default=0)
    for pid in server.workers():
        eventually(
            lambda pid=pid: not procfs.is_alive(pid) or server.own_descriptors(pid) <= allowed,
            SETTLE_SECONDS,
            f"worker {pid} to go back to {allowed} descriptors: {procfs.descriptors(pid)}",
        )


def check_processes(server: Server) -> None:
    """Nothing of the server's session runs after it ended."""
    eventually(lambda: not procfs.session(server.pid), SETTLE_SECONDS, "the end of every process of the session")


def check_files(server: Server) -> None:
    """Nothing was left in the server's directories."""
    left = [entry for folder in (server.cwd, server.tmp) for entry in folder.iterdir()]
    assert not [entry for entry in left if entry.name not in ALLOWED_FILES], f"files left: {left}"


def check_log(server: Server) -> None:
    """Neither a sanitizer nor the server itself reported a bug of ours, and no secret is in the log."""
    log = server.stderr
    assert not [mark for mark in BUG_MARKS if mark in log], log
    assert server.secret not in log, "the API key is in the log"
