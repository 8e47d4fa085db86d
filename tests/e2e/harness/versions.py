"""Two versions of the server, for upgrades: the one under test, and one that differs in what it calls itself."""

import subprocess
from pathlib import Path

# Of the same length as the version under test: it takes its place in the bytes of the program.
NEXT = "9.9.9"


def version_of(program: Path) -> str:
    """What it prints for --version."""
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    return said.stdout.split()[-1]


def _put(content: bytes, place: Path) -> None:
    """As a package manager does: the program that ran from there keeps its file."""
    fresh = place.with_name(f"{place.name}.fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.rename(place)


def install(program: Path, place: Path) -> None:
    """Puts a program where another one may run from."""
    _put(program.read_bytes(), place)


def install_next(program: Path, place: Path) -> None:
    """Likewise its next version."""
    own = version_of(program)
    content = program.read_bytes()
    assert len(own) == len(NEXT) and own.encode() in content
    _put(content.replace(own.encode(), NEXT.encode()), place)
