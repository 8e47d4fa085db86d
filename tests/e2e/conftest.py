"""Fixtures of the e2e tests. Every test that uses them ends with the leak checks of harness/leaks.py."""

import pytest
from harness.client import new_client
from harness.running import running_double, running_servers


@pytest.fixture
def double():
    """An E2B double of this test."""
    with running_double() as running:
        yield running


@pytest.fixture
def start_server(double, tmp_path):
    """Starts servers against the double; see harness/running.py."""
    with running_servers(double, tmp_path) as start:
        yield start


@pytest.fixture
def server(start_server):
    """A server with two workers and the defaults."""
    return start_server()


@pytest.fixture
async def client():
    """An HTTP client for this test."""
    async with new_client() as opened:
        yield opened
