"""Each cmocka program is one test here, so that one runner has the last word.

A plain build runs them under valgrind: no leak, no bad access. A sanitizer build brings its own checks.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("SANDSTORM_BUILD", "build")
PROGRAMS = sorted(path.stem for path in (ROOT / "tests/unit").glob("test_*.c"))
RACES = sorted(path.stem.removeprefix("race_") for path in (ROOT / "tests/unit").glob("race_*.c"))
VALGRIND = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PROGRAMS)
def test_unit(name):
    program = BUILD / "unit" / name
    assert program.exists(), f"{program} is not built: make {program}"
    sanitized = "san-" in str(BUILD)
    if not sanitized:
        assert shutil.which("valgrind"), "valgrind is missing: make deps-check"
    run = subprocess.run(
        ([] if sanitized else VALGRIND) + [program], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RACES)
def test_no_race(name):
    """Under ThreadSanitizer, which is part of these programs in every build."""
    run = subprocess.run([BUILD / "race" / name], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0 and "WARNING: ThreadSanitizer" not in run.stderr, run.stdout + run.stderr


def test_common_and_master_link_with_libc_alone():
    program = BUILD / "layers-ok"
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for name in ("libevent", "libcurl", "libssl", "libcrypto", "libjansson"):
        assert name not in libraries
