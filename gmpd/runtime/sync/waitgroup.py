"""WaitGroup: waits for a number of Gs to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from gmpd.errors import Panic
from gmpd.runtime.owner import Parker, run_on_owner, spawn, wait_on_owner
from gmpd.runtime.sudog import Sudog, park
from gmpd.runtime.sync.waiting import Queued, Queueing, serve_all


class WaitGroupWaiter(Queued):
    """A G in ``WaitGroup.wait``."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.WaitGroup.Wait"


class WaitGroup(Queueing):
    """Waits for a number of Gs to end (Go: ``sync.WaitGroup``)."""

    __slots__ = ("_n",)

    _waiter = WaitGroupWaiter

    def __init__(self) -> None:
        super().__init__()
        self._n = 0

    def add(self, delta: int) -> None:
        """Add to the counter; at 0 all waiters continue. Panic below 0. From any thread."""
        run_on_owner(self._home(), self._add, delta)

    def done(self) -> None:
        """``add(-1)``."""
        run_on_owner(self._home(), self._add, -1)

    def go(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``fn`` in a child G that the group counts, and return that G.

        However the child ends, it is done: Go lets a panic end the program, here an exception
        stays in the child.
        """
        loop = self._here()
        run_on_owner(loop, self._add, 1)
        child = spawn(loop, fn, args, kwargs)
        run_on_owner(loop, child.add_done_callback, self._member_ended)
        return child

    async def wait(self) -> None:
        """Wait until the counter is 0. Panic if the group is in use again before this G ran (Go's
        rule).
        """
        if self._n:
            sg = self._enqueue(None)
            await park(sg)
            self._check_reuse()

    @property
    def sync(self) -> SyncWaitGroup:
        """The face for sync Gs and threads."""
        return SyncWaitGroup(self)

    def _add(self, delta: int) -> None:
        if self._n + delta < 0:
            raise Panic("sync: negative WaitGroup counter")
        self._n += delta
        if not self._n:
            serve_all(self._queue)

    def _member_ended(self, _child: Any) -> None:
        self._add(-1)

    def _check_reuse(self) -> None:
        if self._n:
            raise Panic("sync: WaitGroup is reused before previous Wait has returned")


class SyncWaitGroup:
    """``wg.sync``: wait in a sync G or thread."""

    __slots__ = ("_wg",)

    def __init__(self, wg: WaitGroup):
        self._wg = wg

    def wait(self) -> None:
        """As ``WaitGroup.wait``; P is handed off for the wait."""
        wg = self._wg

        def attempt(parker: Parker) -> Sudog | None:
            return wg._enqueue(parker) if wg._n else None

        if wait_on_owner(wg._home(), WaitGroupWaiter.reason, attempt) is not None:
            wg._check_reuse()
