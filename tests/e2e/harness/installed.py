"""A tree that `make install` made: what an operator gets."""

import fcntl
import subprocess
from pathlib import Path

from .server import BUILD, REPOSITORY


def make(target: str, **variables: object) -> None:
    """Runs make on what is built already, one make at a time; variables are those of its command line."""
    words = [f"{name}={value}" for name, value in {"BUILD": BUILD.relative_to(REPOSITORY), **variables}.items()]
    with (BUILD / ".make-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = subprocess.run(["make", "-s", target, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def files(folder: Path) -> set[str]:
    """Everything below a folder that is no directory."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
