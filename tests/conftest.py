"""What all tests share: how they run at once (parallel.py), and a folder for temporary files that is theirs."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from parallel import ALONE, AloneLast, write_plan

FOLDER = pytest.StashKey[Path]()
# Most tests wait most of the time.
PROCESSES_PER_CORE = 2


def session_folder(config: pytest.Config) -> Path:
    """A folder that goes away with the session; in each of several processes a part of the one that deals the tests."""
    given = getattr(config, "workerinput", None)
    if given:
        folder = Path(given["folder"]) / given["workerid"]
        folder.mkdir()
    else:
        folder = Path(tempfile.mkdtemp(prefix="sandstorm-tests-"))
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    folder.chmod(0o755)  # servers of root's are other users
    return folder


def plan(folder: Path | str) -> Path:
    """Where the processes say how the tests are to be dealt."""
    return Path(folder) / "plan.json"


def pytest_configure(config: pytest.Config) -> None:
    # Who was started in the background ignores it, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", f"{ALONE}: runs while no other test does: it promises a time, or looks at the machine")
    config.stash[FOLDER] = session_folder(config)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays, to be looked at
    os.environ["TMPDIR"] = str(config.stash[FOLDER])
    tempfile.tempdir = None


def pytest_xdist_auto_num_workers() -> int:
    """What -n auto means."""
    return PROCESSES_PER_CORE * len(os.sched_getaffinity(0))


def pytest_configure_node(node) -> None:
    node.workerinput["folder"] = str(node.config.stash[FOLDER])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Of a process that runs tests, before it tells the scheduler what it found."""
    given = getattr(session.config, "workerinput", None)
    if given:
        write_plan(plan(given["folder"]), session.items)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> AloneLast:
    return AloneLast(config, log, plan(config.stash[FOLDER]))
