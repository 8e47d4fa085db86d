"""PyPI e2b, sync or async: runs the steps of python_steps.py in this process."""

import asyncio
from importlib.metadata import version

import python_steps
from harness.waiting import deadline

STEP_SECONDS = 40


class PythonHalf:
    version = version("e2b")

    def __init__(self, flavour: str):
        self.make = {"sync": python_steps.SyncSteps, "async": python_steps.AsyncSteps}[flavour]
        self.steps = [name.removeprefix("step_") for name in dir(self.make) if name.startswith("step_")]

    def run(self, name: str):
        """One step with sandboxes of its own, which end with it."""
        asyncio.run(asyncio.wait_for(self.make().run(name), deadline(STEP_SECONDS)))

    def close(self):
        pass
