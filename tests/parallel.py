"""How the tests of one session are dealt to the processes of pytest-xdist: one session, one summary.

A test is dealt alone, so that a long file holds nobody up. Tests that share something made once for their module are
dealt in groups, so that it is not made for each of them. Tests marked `alone` promise something about time, or look at
the machine as a whole: they come last, in one process, when every other process has ended.
"""

import json
import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).resolve().parent
ALONE = "alone"
GROUP_MAX = 16
# cmocka programs compute all the time, under valgrind for long. One is dealt with so many tests that wait: nothing long is
# left for the end, and not all of them compute at once.
COMPUTES = "unit/"
WAITING_PER_COMPUTING = 20
# Minutes: it begins first, and whatever else there is runs beside it.
LONGEST = "soak/"


def shares_something(item: pytest.Item) -> bool:
    """Whether a fixture of ours outlives the test."""
    fixtures = [found[-1] for found in getattr(item, "_fixtureinfo").name2fixturedefs.values()]
    ours = [fixture for fixture in fixtures if TESTS in Path(fixture.func.__code__.co_filename).parents]
    return any(fixture.scope != "function" for fixture in ours)


def unit_names(items: list[pytest.Item]) -> dict[str, str]:
    """Node id → the name of what it is dealt with."""
    names: dict[str, str] = {}
    shared: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker(ALONE):
            names[item.nodeid] = ALONE
        elif shares_something(item):
            file = item.nodeid.partition("::")[0]
            shared[file] = shared.get(file, -1) + 1
            names[item.nodeid] = f"{file}, group {shared[file] // GROUP_MAX}"
        else:
            names[item.nodeid] = item.nodeid
    return names


def in_turn(ids: list[str]) -> list[str]:
    """The order in which tests are dealt."""
    dealt = [nodeid for nodeid in ids if nodeid.startswith(LONGEST)]
    computing = [nodeid for nodeid in ids if nodeid.startswith(COMPUTES)]
    waiting = [nodeid for nodeid in ids if not nodeid.startswith((COMPUTES, LONGEST))]
    for nodeid in computing:
        dealt += [nodeid, *waiting[:WAITING_PER_COMPUTING]]
        del waiting[:WAITING_PER_COMPUTING]
    return dealt + waiting


def write_plan(path: Path, items: list[pytest.Item]) -> None:
    """A worker knows the tests, the scheduler only their ids: this tells it the rest. All workers write the same."""
    own = path.with_suffix(f".{os.getpid()}")
    own.write_text(json.dumps(unit_names(items)))
    own.replace(path)


class AloneLast(LoadScopeScheduling):
    """Deals units to whoever is free; those that want the machine for themselves go to the last process that is left.

    A worker of xdist begins its last test only when it knows what comes next, so it cannot wait idle: the others are
    ended, and the end of the last of them (remove_node) lets the one that is left go on.
    """

    def __init__(self, config: pytest.Config, log, plan: Path):
        super().__init__(config, log)
        self._plan = plan
        self._names: dict[str, str] = {}
        self._held: dict[str, bool] = {}  # the tests to be run alone, until they are dealt

    def _split_scope(self, nodeid: str) -> str:
        return self._names[nodeid]

    def schedule(self) -> None:
        if self.collection is None and self._check_nodes_have_same_collection():
            self.collection = list(next(iter(self.registered_collections.values())))
            self._names = json.loads(self._plan.read_text())
            for nodeid in in_turn(self.collection):
                self.workqueue.setdefault(self._names[nodeid], {})[nodeid] = False
            self._held = self.workqueue.pop(ALONE, {})
        for node in self.nodes * 2:  # twice: a worker begins a test when it has the one after it
            self._reschedule(node)

    @property
    def tests_finished(self) -> bool:
        return not self._held and super().tests_finished

    @property
    def has_pending(self) -> bool:
        return bool(self._held) or super().has_pending

    def remove_node(self, node) -> str | None:
        left = [(name, nodeid) for name, unit in self.assigned_work.pop(node).items() for nodeid, done in unit.items() if not done]
        for name, nodeid in left[1:]:  # of a process that died; what it died in is not tried again
            (self._held if name == ALONE else self.workqueue.setdefault(name, {}))[nodeid] = False
        for other in self.nodes:
            self._reschedule(other)
        return left[0][1] if left else None

    def _reschedule(self, node) -> None:
        if node.shutting_down or node not in self.registered_collections or self.collection is None:
            return
        if self.workqueue:
            if self._pending_of(self.assigned_work[node]) <= 2:
                self._assign_work_unit(node)
        elif not self._held or [other for other in self.nodes if other is not node and not other.shutting_down]:
            node.shutdown()
        elif self.nodes == [node]:
            self.workqueue[ALONE], self._held = self._held, {}
            self._assign_work_unit(node)
            node.shutdown()
