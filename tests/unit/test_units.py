"""Each cmocka program is one test here, so that one runner has the last word.

A plain build runs them under valgrind: no leak, no bad access. A sanitizer build brings its own checks; the build that counts
what is run (make coverage) only counts.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
from harness import procfs
from harness.waiting import POLL_SECONDS, deadline

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("SANDSTORM_BUILD", "build")
PROGRAMS = sorted(path.stem for path in (ROOT / "tests/unit").glob("test_*.c"))
RACES = sorted(path.stem.removeprefix("race_") for path in (ROOT / "tests/unit").glob("race_*.c"))
LEAVE_SECONDS = 5
VALGRIND = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]


def left_of(session: int) -> set[int]:
    """What does not end by itself: a worker whose master is gone is on its way out for a moment."""
    end = time.monotonic() + deadline(LEAVE_SECONDS)
    while (left := procfs.session(session)) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return left


def run(*command: object) -> tuple[int, str]:
    """The exit code of a program and what it said. What it left running is ended, and told: it would hold a pipe open."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(280)
        finally:
            left = left_of(process.pid)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        said = output.read()
    assert not left, f"exit code {code}, {len(left)} processes were left: {said}"
    return code, said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PROGRAMS)
def test_unit(name):
    program = BUILD / "unit" / name
    assert program.exists(), f"{program} is not built: make {program}"
    bare = "san-" in str(BUILD) or BUILD.name == "coverage"
    if not bare:
        assert shutil.which("valgrind"), "valgrind is missing: make deps-check"
    code, said = run(*([] if bare else VALGRIND), program)
    assert code == 0, said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RACES)
def test_no_race(name):
    """Under ThreadSanitizer, which is part of these programs in every build."""
    code, said = run(BUILD / "race" / name)
    assert code == 0 and "WARNING: ThreadSanitizer" not in said, said


def test_common_and_master_link_with_libc_alone():
    program = BUILD / "layers-ok"
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for name in ("libevent", "libcurl", "libssl", "libcrypto", "libjansson"):
        assert name not in libraries
