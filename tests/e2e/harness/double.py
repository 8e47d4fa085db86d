"""The E2B double in a thread of the test process: the test reads its ledger as plain objects."""

import asyncio
import threading
from collections.abc import Callable

from double_faults import Fault
from double_ledger import Ledger
from e2b_double import E2BDouble

from .ports import free_port
from .waiting import deadline


class ThreadedDouble:
    """A running double. wait() is for plain tests, until() for tests with an event loop of their own."""

    def __init__(self, **options):
        self._double = E2BDouble(**options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="e2b-double", daemon=True)
        self._thread.start()
        self._call(self._double.start(free_port()))

    def _call(self, coroutine):
        """Runs a coroutine in the double's loop and returns what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(deadline(10))

    @property
    def ledger(self) -> Ledger:
        """Everything that happened."""
        return self._double.ledger

    @property
    def webhooks(self) -> dict[str, dict]:
        """Where events would be sent, by the ids of the registrations."""
        return dict(self._double.webhooks.present)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._double.port

    @property
    def url(self) -> str:
        """Base URL of both APIs."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """The API key it demands."""
        return self._double.key

    def inject(self, stage: str, action: str, **when) -> Fault:
        """Adds a fault rule; see double_faults.Fault."""
        return self._double.inject(stage, action, **when)

    def forget_faults(self) -> None:
        """Takes every fault rule back."""
        self._double.forget_faults()

    def release(self, gate: str) -> None:
        """Opens a gate that a script or fault holds on."""
        self._double.release(gate)

    def set_templates(self, *names: str) -> None:
        """From now on only these templates exist."""
        self._double.templates = set(names)

    def accept_left(self, run_ids: list[str]) -> None:
        """These runs' sandboxes may stay: the test killed the process that would have deleted them."""
        self.ledger.accept_left(run_ids)

    def lose(self, run_id: str) -> None:
        """Kills a run's sandbox from outside."""
        sandbox = self.ledger.sandbox_of(run_id)
        self._loop.call_soon_threadsafe(self._double.lose_sandbox, sandbox)

    def drop_idle(self) -> None:
        """Ends the connections that wait for a next request; they are closed when this returns."""
        self._call(self._drop_idle())

    async def _drop_idle(self) -> None:
        """An aborted transport closes its socket in the loop's next turn."""
        self._double.drop_idle()
        for _ in range(2):
            await asyncio.sleep(0)

    def go_down(self) -> None:
        """Refuses connections from now on."""
        self._call(self._double.close_listener())

    def vanish(self) -> None:
        """Does not even refuse connections from now on."""
        self.go_down()
        self._call(self._open_black_hole())

    async def _open_black_hole(self) -> None:
        """In the double's loop."""
        self._double.open_black_hole()

    def come_up(self) -> None:
        """Accepts connections again."""
        self._call(self._double.open_listener())

    def wait(self, predicate: Callable[[Ledger], object], seconds: float, what: str) -> object:
        """Waits for the ledger to show something."""
        return self.ledger.wait(predicate, deadline(seconds), what)

    async def until(self, predicate: Callable[[Ledger], object], seconds: float, what: str) -> object:
        """wait() without blocking the caller's loop."""
        return await asyncio.to_thread(self.wait, predicate, seconds, what)

    def stop(self) -> None:
        """Ends it; a second call does nothing."""
        if not self._thread.is_alive():
            return
        self._call(self._double.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(deadline(10))
        self._loop.close()
