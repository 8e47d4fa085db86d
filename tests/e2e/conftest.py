"""Fixtures of the e2e tests. Every test that uses them ends with the leak checks of harness/leaks.py."""

import pytest
from harness.double import ThreadedDouble
from harness.leaks import check_ledger


@pytest.fixture
def double():
    """An E2B double; at the end its ledger must be empty and unbroken."""
    running = ThreadedDouble()
    try:
        yield running
        check_ledger(running)
    finally:
        running.stop()
