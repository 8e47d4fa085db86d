"""npm e2b of one version: a node process that is told the steps, one after the other."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness.waiting import deadline
from service import REPOSITORY

SDK = REPOSITORY / "build/sdk"


class JavaScriptHalf:
    def __init__(self, pinned: str):
        package = SDK / f"js-{pinned}"
        if not (package / "node_modules/e2b/package.json").exists():
            pytest.fail(f"not run: npm e2b {pinned} is not installed (make check-sdk)")
        self.process = subprocess.Popen(
            [os.environ.get("SANDSTORM_NODE", "node"), Path(__file__).with_name("javascript_half.mjs"), package],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        hello = self.answer()
        self.version, self.steps = hello["version"], hello["steps"]

    def answer(self) -> dict:
        """The next line of node's; its end is the end of this half."""
        line = self.process.stdout.readline()
        assert line, f"node ended with {self.process.wait()}"
        return json.loads(line)

    def run(self, name: str):
        """One step with sandboxes of its own, which end with it."""
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        if error := self.answer()["error"]:
            pytest.fail(error, pytrace=False)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(deadline(10)) == 0
