"""Each fuzz target takes every input of its stored corpus, under sanitizers: those of this build, or of one beside it."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("SANDSTORM_BUILD", "build")
REPLAYS = (BUILD if "san-" in str(BUILD) else BUILD / "sanitized") / "replay"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in (ROOT / "tests/fuzz").glob("fuzz_*.c"))


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_breaks_no_promise(target: str):
    corpus = ROOT / "tests/fuzz/corpus" / target
    assert (REPLAYS / target).exists(), f"{REPLAYS / target} is not built: make check does it"
    done = subprocess.run([REPLAYS / target, corpus], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(list(corpus.iterdir()))} inputs\n"
