"""What holds for plain HTTP holds for HTTPS: the tests of the connection once more, over TLS 1.3."""

import pytest
import test_backpressure
import test_client_gone
import test_http
import test_stream
from harness.client import new_client
from harness.running import running_servers

# The scheme in its Location is tested in test_tls.py.
PLAIN_ONLY = {"test_one_slash_too_many_is_307_to_the_path_as_the_client_sees_it"}

for module in (test_backpressure, test_client_gone, test_http, test_stream):
    globals().update(
        {name: item for name, item in vars(module).items() if not name.startswith("_") and name not in PLAIN_ONLY}
    )


@pytest.fixture
def start_server(double, tmp_path, authority):
    """As the fixture of the same name, with HTTPS."""
    certificate, key = authority.issue("server")
    with running_servers(double, tmp_path) as start:

        def start_tls(*args, **options):
            return start("--tls-cert", certificate, "--tls-key", key, *args, tls=authority.client, **options)

        yield start_tls


@pytest.fixture
async def client(authority):
    """As the fixture of the same name, for HTTPS."""
    async with new_client(tls=authority.client) as opened:
        yield opened
