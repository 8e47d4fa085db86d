"""What all tests share: how they run at once (parallel.py), and a folder for temporary files that is theirs."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from parallel import ALONE, AloneLast, write_plan

PLAN = pytest.StashKey[Path]()
# Most tests wait most of the time.
PROCESSES_PER_CORE = 2


def new_folder(config: pytest.Config) -> Path:
    """A folder that goes away with the session; every user may enter it."""
    folder = Path(tempfile.mkdtemp(prefix="sandstorm-tests-"))
    folder.chmod(0o755)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{ALONE}: runs while no other test does: it promises a time, or looks at the machine")
    folder = new_folder(config)
    if config.getoption("numprocesses", None):  # the process that deals
        config.stash[PLAN] = folder / "plan.json"
    else:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays, to be looked at
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None


def pytest_xdist_auto_num_workers() -> int:
    """What -n auto means."""
    return PROCESSES_PER_CORE * len(os.sched_getaffinity(0))


def pytest_configure_node(node) -> None:
    node.workerinput["plan"] = str(node.config.stash[PLAN])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """A worker's, before it tells the scheduler what it found."""
    given = getattr(session.config, "workerinput", None)
    if given:
        write_plan(Path(given["plan"]), session.items)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> AloneLast:
    return AloneLast(config, log, config.stash[PLAN])
