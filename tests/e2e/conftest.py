"""Fixtures of the e2e tests. Every test that uses them ends with the leak checks of harness/leaks.py."""

import shutil

import pytest
from harness.authority import Authority
from harness.client import new_client
from harness.faults import Faults
from harness.running import running_double, running_servers
from sandboxd_client import running_daemons


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


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A CA for the servers of this module."""
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def faulty_double():
    """An E2B double that the runs of a module share, one after the other."""
    with running_double() as running:
        yield running


@pytest.fixture(scope="module")
def faulty_server(faulty_double, tmp_path_factory):
    """A server with one worker and short time limits."""
    with running_servers(faulty_double, tmp_path_factory.mktemp("faults")) as start:
        yield start(env=Faults.SETTINGS, workers=1)


@pytest.fixture
def faults(faulty_double, faulty_server):
    """Both of them, for a test that breaks one thing."""
    with Faults(faulty_double, faulty_server).isolated() as opened:
        yield opened


@pytest.fixture
def folder(tmp_path_factory):
    """A folder whose name fits into a socket's address."""
    path = tmp_path_factory.mktemp("s")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start_daemon(folder):
    """Starts sandboxd, as often as is wanted; each must give back what it took, and exit 0 on TERM."""
    with running_daemons(folder) as start:
        yield start


@pytest.fixture
def daemon(start_daemon):
    """A sandboxd with the defaults."""
    return start_daemon()


@pytest.fixture
def sandbox(daemon):
    """A sandbox of it."""
    return daemon.create()
