"""What must be true after every e2e test: no sandbox, process, descriptor or file is left."""

DELETIONS_SECONDS = 10


def check_ledger(double) -> None:
    """Every sandbox made was deleted, no stream is open, and the client broke no rule of the protocol."""
    double.wait(lambda ledger: not ledger.alive(), DELETIONS_SECONDS, "the deletion of every sandbox")
    double.wait(lambda ledger: not ledger.open_streams(), DELETIONS_SECONDS, "the end of every stream")
    assert not double.ledger.violations, "\n".join(double.ledger.violations)
