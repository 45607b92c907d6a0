"""RWMutex: many readers or one writer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from gmpd.errors import Panic
from gmpd.runtime.owner import run_on_owner, wait_on_owner
from gmpd.runtime.sudog import Sudog, Waker, park
from gmpd.runtime.sync.locker import Locker, SyncLock
from gmpd.runtime.sync.mutex import Mutex
from gmpd.runtime.sync.waiting import Queued, Queueing, serve, serve_all


class RWReader(Queued):
    """A G in ``RWMutex.rlock``."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.RWMutex.RLock"

    def undo(self) -> None:
        self.c._runlock()


class RWWriter(Sudog):
    """The G in ``RWMutex.lock`` that waits for the readers to leave."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.RWMutex.Lock"

    def unlink(self) -> None:
        self.c._drain = None
        self.c._release()

    def undo(self) -> None:
        self.c._release()


class RWMutex(Queueing, Locker):
    """Many readers or one writer (Go: ``sync.RWMutex``). A writer that waits keeps new readers
    out, so it cannot starve.

    ``async with rw:`` locks for writing, ``async with rw.rlocker():`` for reading; ``rw.sync`` and
    ``rw.rlocker().sync`` in sync Gs.
    """

    __slots__ = ("_drain", "_readers", "_turns", "_writing")

    #: The queue is of readers that wait for the writer.
    _waiter = RWReader

    def __init__(self) -> None:
        super().__init__()
        #: Among writers.
        self._turns = Mutex()
        #: A writer holds the lock, or waits for the readers to leave.
        self._writing = False
        self._readers = 0
        #: That waiting writer.
        self._drain: Sudog | None = None

    async def rlock(self) -> None:
        """Lock for reading."""
        sg = self._try_read(None)
        if sg is not None:
            await park(sg)

    async def lock(self) -> None:
        """Lock for writing."""
        await self._turns.lock()
        sg = self._announce(None)
        if sg is not None:
            await park(sg)

    def try_rlock(self) -> bool:
        """Lock for reading if no writer holds it or waits. From anywhere."""
        return run_on_owner(self._home(), self._try_rlock)

    def try_lock(self) -> bool:
        """Lock for writing if it is free. True if so. From anywhere."""
        return run_on_owner(self._home(), self._try_lock)

    def runlock(self) -> None:
        """Undo one ``rlock``. Panic if there is none. From anywhere."""
        run_on_owner(self._home(), self._runlock)

    def unlock(self) -> None:
        """Undo ``lock``; readers that waited go first. Panic if it is not locked for writing. From
        anywhere.
        """
        run_on_owner(self._home(), self._unlock)

    def rlocker(self) -> RLocker:
        """The reading side as a lock of its own (for ``Cond``, ``async with``)."""
        return RLocker(self)

    @property
    def sync(self) -> SyncLock:
        """The face for sync Gs and threads; for writing."""
        return SyncLock(self._lock_sync, self.unlock)

    def _rlock_sync(self) -> None:
        wait_on_owner(self._home(), RWReader.reason, self._try_read)

    def _lock_sync(self) -> None:
        self._turns._lock_sync()
        wait_on_owner(self._home(), RWWriter.reason, self._announce)

    def _try_rlock(self) -> bool:
        if self._writing:
            return False
        self._readers += 1
        return True

    def _try_lock(self) -> bool:
        if self._readers or not self._turns._try_lock():
            return False
        self._writing = True
        return True

    def _try_read(self, g: Waker | None) -> Sudog | None:
        return None if self._try_rlock() else self._enqueue(g)

    def _announce(self, g: Waker | None) -> Sudog | None:
        """It is the only writer now: keep new readers out, and wait for those inside."""
        self._writing = True
        if not self._readers:
            return None
        sg = self._drain = RWWriter(self, self._here())
        sg.g = g
        return sg

    def _runlock(self) -> None:
        if not self._readers:
            raise Panic("sync: RUnlock of unlocked RWMutex")
        self._readers -= 1
        if not self._readers and self._drain is not None:
            writer, self._drain = self._drain, None
            serve(writer)

    def _unlock(self) -> None:
        if not self._writing or self._drain is not None:
            raise Panic("sync: Unlock of unlocked RWMutex")
        self._release()

    def _release(self) -> None:
        self._writing = False
        self._readers += serve_all(self._queue)
        self._turns._unlock()


class RLocker(Locker):
    """The reading side of an RWMutex (Go: ``RLocker``)."""

    __slots__ = ("_rw",)

    def __init__(self, rw: RWMutex):
        self._rw = rw

    def lock(self) -> Awaitable[None]:
        """``rlock``."""
        return self._rw.rlock()

    def try_lock(self) -> bool:
        """``try_rlock``."""
        return self._rw.try_rlock()

    def unlock(self) -> None:
        """``runlock``."""
        self._rw.runlock()

    def _unlock(self) -> None:
        self._rw._runlock()

    @property
    def sync(self) -> SyncLock:
        """The face for sync Gs and threads."""
        return SyncLock(self._rw._rlock_sync, self._rw.runlock)
