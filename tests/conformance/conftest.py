"""Fixtures of the conformance suite: one sandboxd, and the published SDKs one after the other."""

import pytest
from javascript_half import JavaScriptHalf
from python_half import PythonHalf
from service import Service

# The SDK settings of the caller would lead the tests elsewhere, and any E2B_DEBUG changes what an SDK does.
FOREIGN = ("E2B_DEBUG", "E2B_DOMAIN", "E2B_ACCESS_TOKEN", "E2B_VALIDATE_API_KEY")


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """The sandboxd all halves talk to; stopping it must leave nothing behind."""
    running = Service(tmp_path_factory.mktemp("sdk"))
    try:
        yield running
        running.stop()
    finally:
        running.destroy()


@pytest.fixture(scope="session")
def sdk_environment(service):
    """The process's environment, pointing SDKs at the service."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOREIGN:
            patch.delenv(name, raising=False)
        for name, value in service.environment.items():
            patch.setenv(name, value)
        yield service.environment


@pytest.fixture(scope="session")
def halves(sdk_environment):
    """Starts each half once, when its first step is run."""
    started = {}

    def get(name: str):
        if name not in started:
            language, _, which = name.partition("-")
            started[name] = PythonHalf(which) if language == "python" else JavaScriptHalf(which)
        return started[name]

    yield get
    for half in started.values():
        half.close()
