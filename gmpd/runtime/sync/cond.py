"""Cond: a place to wait for a change of the state that a lock guards."""

from __future__ import annotations

from asyncio import CancelledError
from typing import ClassVar, TypeAlias

from gmpd.runtime.owner import Parker, run_on_owner, wait_on_owner
from gmpd.runtime.sudog import Sudog, park
from gmpd.runtime.sync.mutex import Mutex
from gmpd.runtime.sync.rwmutex import RLocker, RWMutex
from gmpd.runtime.sync.waiting import Queued, Queueing, serve, serve_all

#: The locks that a Cond accepts. No lock of others: it is unlocked where no user code may run.
Locker: TypeAlias = Mutex | RWMutex | RLocker


class CondWaiter(Queued):
    """A G in ``Cond.wait``."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.Cond.Wait"

    def undo(self) -> None:
        self.c._signal()


class Cond(Queueing):
    """A place to wait for a condition that ``lock`` guards (Go: ``sync.Cond``). ``cond.lock`` is
    Go's ``c.L``.
    """

    __slots__ = ("lock",)

    _waiter = CondWaiter

    def __init__(self, lock: Locker):
        super().__init__()
        self.lock = lock

    async def wait(self) -> None:
        """Unlock, wait for ``signal`` or ``broadcast``, lock again. Look at the condition again
        afterwards.

        The lock is held when this returns and when it is cancelled; a signal that a cancelled
        waiter had got goes to the next.
        """
        sg = self._enqueue(None)
        try:
            self.lock.unlock()
        except BaseException:  # it was not locked: a Panic
            sg.abandon()
            raise
        try:
            await park(sg)
        except GeneratorExit:  # it is dropped, and must not wait: it unlocks on its way out
            self.lock.try_lock()
            raise
        except BaseException:
            await self._relock()
            raise
        await self._relock()

    def signal(self) -> None:
        """Wake the one that waits longest, if any does. From anywhere."""
        run_on_owner(self._home(), self._signal)

    def broadcast(self) -> None:
        """Wake all that wait now. From anywhere."""
        run_on_owner(self._home(), serve_all, self._queue)

    @property
    def sync(self) -> SyncCond:
        """The face for sync Gs and threads."""
        return SyncCond(self)

    async def _relock(self) -> None:
        """The caller of ``wait`` will unlock: so lock, however often it is cancelled, and pass
        the cancel on then.
        """
        cancelled: CancelledError | None = None
        while True:
            try:
                await self.lock.lock()
                break
            except CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _signal(self) -> None:
        sg = self._queue.take()
        if sg is not None:
            serve(sg)


class SyncCond:
    """``cond.sync``: wait in a sync G or thread, holding ``cond.lock.sync``."""

    __slots__ = ("_cond",)

    def __init__(self, cond: Cond):
        self._cond = cond

    def wait(self) -> None:
        """As ``Cond.wait``; P is handed off for the wait."""
        cond = self._cond
        unlocked = False

        def attempt(parker: Parker) -> Sudog:
            nonlocal unlocked
            cond.lock._unlock()
            unlocked = True
            return cond._enqueue(parker)

        try:
            wait_on_owner(cond._here(), CondWaiter.reason, attempt)
        finally:
            if unlocked:
                cond.lock.sync.lock()
