"""Mutex: Go's lock with its two modes."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Generator
from typing import ClassVar

from gmpd.errors import Panic
from gmpd.runtime.owner import run_on_owner, wait_on_owner
from gmpd.runtime.sudog import Sudog, Wait, Waker, parks
from gmpd.runtime.sync.locker import Locker, SyncLock
from gmpd.runtime.sync.waiting import Queued, Queueing, serve

#: A waiter that could not get a Mutex for this long is handed it at the next unlock (Go:
#: ``starvationThresholdNs``).
STARVING_S = 0.001


class MutexWaiter(Queued):
    """A G in ``Mutex.lock``. ``elem``, once served: True if it was handed the lock, False if it
    may compete.
    """

    __slots__ = ()
    reason: ClassVar[str] = "sync.Mutex.Lock"

    def unlink(self) -> None:
        super().unlink()
        if not self.c._queue.live():
            self.c._starving = False

    def undo(self) -> None:
        mutex = self.c
        if self.elem:
            mutex._unlock()
        else:
            mutex._woken = False
            if not mutex._locked:
                mutex._wake_one()


class Turn:
    """One G's way to a Mutex: it may have to wait several times (Go: ``lockSlow``)."""

    __slots__ = ("_mutex", "_since")

    def __init__(self, mutex: Mutex):
        self._mutex = mutex
        self._since = -1.0

    def attempt(self, g: Waker | None) -> Sudog | None:
        """Take the lock, or queue up: at the end the first time, in front after a lost
        competition.
        """
        mutex = self._mutex
        again = self._since >= 0
        if again:
            mutex._woken = False
        if not mutex._locked:
            mutex._locked = True
            return None
        loop = mutex._here()
        sg = MutexWaiter(mutex, loop)  # not by _enqueue: a waiter that comes again is put in front
        sg.g = g
        if again:
            mutex._starving = mutex._starving or self._starves(loop)
            mutex._queue.appendleft(sg)
        else:
            self._since = loop.time()
            mutex._queue.append(sg)
        return sg

    def owns(self, sg: Sudog) -> bool:
        """After the wait: was it handed the lock? Then it ends the starvation if it was short, or
        the last.
        """
        if not sg.elem:
            return False
        mutex = self._mutex
        if not self._starves(sg._loop) or not mutex._queue.live():
            mutex._starving = False
        return True

    def _starves(self, loop: AbstractEventLoop) -> bool:
        return loop.time() - self._since > STARVING_S


class Mutex(Queueing, Locker):
    """A lock for Gs with Go's two modes: the first to come takes it, until a waiter starved for
    1 ms; then strictly in turn.

    ``async with mutex:`` and, in sync Gs, ``with mutex.sync:``. It belongs to no G: any may unlock
    it.
    """

    __slots__ = ("_locked", "_starving", "_woken")

    _waiter = MutexWaiter

    def __init__(self) -> None:
        super().__init__()
        self._locked = False
        #: A woken waiter is on its way to compete: no need to wake another.
        self._woken = False
        #: ``unlock`` hands the lock over; the queue is not empty then.
        self._starving = False

    @parks
    def lock(self) -> Generator[Wait, None, None]:
        """Lock, waiting while it is held."""
        if not self._locked:
            self._locked = True
            return
        turn = Turn(self)
        while (sg := turn.attempt(None)) is not None:
            try:  # as in ``park``; but many may wait for a lock, and one frame is half of two
                yield sg
            except BaseException:
                sg.abandon()
                raise
            if not sg.ok:
                raise sg.cancelled_error()
            if turn.owns(sg):
                return

    def try_lock(self) -> bool:
        """Lock if it is free. True if so. From anywhere."""
        return run_on_owner(self._home(), self._try_lock)

    def unlock(self) -> None:
        """Unlock. Panic if it is not locked. From anywhere."""
        run_on_owner(self._home(), self._unlock)

    def locked(self) -> bool:
        """Whether it is held now."""
        return self._locked

    @property
    def sync(self) -> SyncLock:
        """The face for sync Gs and threads."""
        return SyncLock(self._lock_sync, self.unlock)

    def _lock_sync(self) -> None:
        turn = Turn(self)
        while True:
            sg = wait_on_owner(self._home(), MutexWaiter.reason, turn.attempt)
            if sg is None or run_on_owner(self._home(), turn.owns, sg):
                return

    def _try_lock(self) -> bool:
        free = not self._locked
        self._locked = True
        return free

    def _unlock(self) -> None:
        if not self._locked:
            raise Panic("sync: unlock of unlocked mutex")
        if self._starving:
            heir = self._queue.take()
            if heir is not None:
                heir.elem = True
                serve(heir)
                return
            self._starving = False
        self._locked = False
        if not self._woken:
            self._wake_one()

    def _wake_one(self) -> None:
        sg = self._queue.take()
        if sg is not None:
            self._woken = True
            sg.elem = False
            serve(sg)
