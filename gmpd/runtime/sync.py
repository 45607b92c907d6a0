"""Go's ``sync`` for Gs: WaitGroup, Mutex, RWMutex, Cond, Once.

Like a channel, each has a home loop and is touched by the holder of its P alone; ``.sync`` is the
face for sync Gs and threads, and operations that never wait (``done``, ``unlock``, ``signal``) may
be called from anywhere. Go cannot cancel a G that waits for a lock. Here a cancelled wait leaves
the queue; and what it had been given just before (the lock, a signal) is passed on to the next
one. Rejected: asyncio.Lock, which has no hand-over when a waiter starves, and neither readers,
sync Gs nor Go's words for why a G waits.

This file knows nothing of channels. Counterpart: ``group`` (errgroup).
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, ClassVar, TypeAlias

from gmpd.errors import Panic
from gmpd.runtime.home import Note, at_home, find_home, spawn, wait_at_home
from gmpd.runtime.sudog import Sudog, WaitQueue, Waker

#: A waiter that could not get a Mutex for so long is handed it at the next unlock (Go:
#: ``starvationThresholdNs``).
STARVING_S = 0.001


class Homed:
    """What belongs to a loop: the one where it was made or first waited on."""

    __slots__ = ("__weakref__", "_loop")

    def __init__(self) -> None:
        self._loop = find_home()

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} belongs to the worker where it was made")

    def _home(self) -> AbstractEventLoop | None:
        if self._loop is None:
            self._loop = find_home()
        return self._loop

    def _here(self) -> AbstractEventLoop:
        """Home, for one who is to wait."""
        loop = self._home()
        if loop is None:
            raise RuntimeError(
                f"{type(self).__name__} would wait, but no event loop is running that could end "
                "the wait: use it inside a G, or create it there"
            )
        return loop


class Queued(Sudog):
    """A G in the queue ``c._queue``."""

    __slots__ = ()

    def unlink(self) -> None:
        self.c._queue.unlink(self)


async def park(sg: Sudog) -> None:
    """Wait until it is served. CancelledError otherwise."""
    try:
        await sg
    except BaseException:
        sg.abandon()
        raise
    if not sg.ok:
        raise sg.cancelled_error()


def serve(sg: Sudog) -> None:
    """End a wait."""
    g, sg.g, sg.ok = sg.g, None, True
    if g is not None:
        g.ready(sg)


def serve_all(queue: WaitQueue) -> int:
    """End the waits of all that are in the queue now; how many there were."""
    served = 0
    while (sg := queue.take()) is not None:
        serve(sg)
        served += 1
    return served


# ---- WaitGroup ------------------------------------------------------------------------------


class WaitGroupWaiter(Queued):
    """A G in ``WaitGroup.wait``."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.WaitGroup.Wait"


class WaitGroup(Homed):
    """Waits for a number of Gs to end (Go: ``sync.WaitGroup``)."""

    __slots__ = ("_n", "_queue")

    def __init__(self) -> None:
        super().__init__()
        self._n = 0
        self._queue = WaitQueue()

    def add(self, delta: int) -> None:
        """Add to the counter; at 0 all who wait go on. Panic if it falls below. From anywhere."""
        at_home(self._home(), self._add, delta)

    def done(self) -> None:
        """``add(-1)``."""
        at_home(self._home(), self._add, -1)

    def go(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``fn`` in a child G that the group counts, and return that G.

        However the child ends, it is done: Go lets a panic end the program, here an exception
        stays in the child.
        """
        loop = self._here()
        at_home(loop, self._add, 1)
        child = spawn(loop, fn, args, kwargs)
        at_home(loop, child.add_done_callback, self._member_ended)
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

    def _enqueue(self, g: Waker | None) -> Sudog:
        sg = WaitGroupWaiter(self, self._here())
        sg.g = g
        self._queue.append(sg)
        return sg

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

        def attempt(note: Note) -> Sudog | None:
            return wg._enqueue(note) if wg._n else None

        if wait_at_home(wg._home(), WaitGroupWaiter.reason, attempt) is not None:
            wg._check_reuse()


# ---- Mutex ----------------------------------------------------------------------------------


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
        sg = MutexWaiter(mutex, loop)
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


class Mutex(Homed):
    """A lock for Gs with Go's two modes: whoever comes first takes it, until somebody starved for
    1 ms; then strictly in turn.

    ``async with mutex:`` and, in sync Gs, ``with mutex.sync:``. It belongs to no G: any may unlock
    it.
    """

    __slots__ = ("_locked", "_queue", "_starving", "_woken")

    def __init__(self) -> None:
        super().__init__()
        self._locked = False
        self._queue = WaitQueue()
        #: A woken waiter is on its way to compete: no need to wake another.
        self._woken = False
        #: ``unlock`` hands the lock over; there is somebody in the queue then.
        self._starving = False

    async def lock(self) -> None:
        """Lock, waiting as long as somebody else holds it."""
        if not self._locked:
            self._locked = True
            return
        turn = Turn(self)
        while (sg := turn.attempt(None)) is not None:
            await park(sg)
            if turn.owns(sg):
                return

    def try_lock(self) -> bool:
        """Lock if nobody holds it. From anywhere."""
        return at_home(self._home(), self._try_lock)

    def unlock(self) -> None:
        """Unlock. Panic if it is not locked. From anywhere."""
        at_home(self._home(), self._unlock)

    def locked(self) -> bool:
        """Whether somebody holds it now."""
        return self._locked

    @property
    def sync(self) -> SyncLock:
        """The face for sync Gs and threads."""
        return SyncLock(self._lock_sync, self.unlock)

    async def __aenter__(self) -> None:
        await self.lock()

    async def __aexit__(self, *_exc: object) -> None:
        self.unlock()

    def _lock_sync(self) -> None:
        turn = Turn(self)
        while True:
            sg = wait_at_home(self._home(), MutexWaiter.reason, turn.attempt)
            if sg is None or at_home(self._home(), turn.owns, sg):
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


class SyncLock:
    """A lock's face for sync Gs and threads: ``with mutex.sync:``; P is handed off for the wait."""

    __slots__ = ("_lock", "_unlock")

    def __init__(self, lock: Callable[[], None], unlock: Callable[[], None]):
        self._lock = lock
        self._unlock = unlock

    def lock(self) -> None:
        """As the lock's own ``lock``; blocks the caller."""
        self._lock()

    def unlock(self) -> None:
        """As the lock's own ``unlock``."""
        self._unlock()

    def __enter__(self) -> None:
        self._lock()

    def __exit__(self, *_exc: object) -> None:
        self._unlock()


# ---- RWMutex --------------------------------------------------------------------------------


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


class RWMutex(Homed):
    """Many readers or one writer (Go: ``sync.RWMutex``). A writer that waits keeps new readers
    out, so it cannot starve.

    ``async with rw:`` locks for writing, ``async with rw.rlocker():`` for reading; ``rw.sync`` and
    ``rw.rlocker().sync`` in sync Gs.
    """

    __slots__ = ("_drain", "_queue", "_readers", "_turns", "_writing")

    def __init__(self) -> None:
        super().__init__()
        #: Among writers.
        self._turns = Mutex()
        #: A writer holds the lock, or waits for the readers to leave.
        self._writing = False
        self._readers = 0
        #: That waiting writer.
        self._drain: Sudog | None = None
        #: Readers that wait for the writer.
        self._queue = WaitQueue()

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
        return at_home(self._home(), self._try_rlock)

    def try_lock(self) -> bool:
        """Lock for writing if nobody holds it. From anywhere."""
        return at_home(self._home(), self._try_lock)

    def runlock(self) -> None:
        """Undo one ``rlock``. Panic if there is none. From anywhere."""
        at_home(self._home(), self._runlock)

    def unlock(self) -> None:
        """Undo ``lock``; readers that waited go first. Panic if it is not locked for writing. From
        anywhere.
        """
        at_home(self._home(), self._unlock)

    def rlocker(self) -> RLocker:
        """The reading side as a lock of its own (for ``Cond``, ``async with``)."""
        return RLocker(self)

    @property
    def sync(self) -> SyncLock:
        """The face for sync Gs and threads; for writing."""
        return SyncLock(self._lock_sync, self.unlock)

    async def __aenter__(self) -> None:
        await self.lock()

    async def __aexit__(self, *_exc: object) -> None:
        self.unlock()

    def _rlock_sync(self) -> None:
        wait_at_home(self._home(), RWReader.reason, self._try_read)

    def _lock_sync(self) -> None:
        self._turns._lock_sync()
        wait_at_home(self._home(), RWWriter.reason, self._announce)

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
        if self._try_rlock():
            return None
        sg = RWReader(self, self._here())
        sg.g = g
        self._queue.append(sg)
        return sg

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


class RLocker:
    """The reading side of an RWMutex (Go: ``RLocker``)."""

    __slots__ = ("_rw",)

    def __init__(self, rw: RWMutex):
        self._rw = rw

    async def lock(self) -> None:
        """``rlock``."""
        await self._rw.rlock()

    def unlock(self) -> None:
        """``runlock``."""
        self._rw.runlock()

    def _unlock(self) -> None:
        self._rw._runlock()

    @property
    def sync(self) -> SyncLock:
        """The face for sync Gs and threads."""
        return SyncLock(self._rw._rlock_sync, self._rw.runlock)

    async def __aenter__(self) -> None:
        await self._rw.rlock()

    async def __aexit__(self, *_exc: object) -> None:
        self._rw.runlock()


# ---- Cond -----------------------------------------------------------------------------------


#: What a Cond may be made for. No lock of others: it is unlocked where no user code may run.
Locker: TypeAlias = Mutex | RWMutex | RLocker


class CondWaiter(Queued):
    """A G in ``Cond.wait``."""

    __slots__ = ()
    reason: ClassVar[str] = "sync.Cond.Wait"

    def undo(self) -> None:
        self.c._signal()


class Cond(Homed):
    """A place to wait for a condition that ``lock`` guards (Go: ``sync.Cond``). ``cond.lock`` is
    Go's ``c.L``.
    """

    __slots__ = ("_queue", "lock")

    def __init__(self, lock: Locker):
        super().__init__()
        self.lock = lock
        self._queue = WaitQueue()

    async def wait(self) -> None:
        """Unlock, wait for ``signal`` or ``broadcast``, lock again. Look at the condition again
        afterwards.

        The lock is held when this returns and when it is cancelled; a signal that a cancelled
        waiter had got goes to the next.
        """
        sg = self._enqueue(None)
        self.lock.unlock()
        try:
            await park(sg)
        finally:
            await self._relock()

    def signal(self) -> None:
        """Wake the one that waits longest, if any does. From anywhere."""
        at_home(self._home(), self._signal)

    def broadcast(self) -> None:
        """Wake all that wait now. From anywhere."""
        at_home(self._home(), serve_all, self._queue)

    @property
    def sync(self) -> SyncCond:
        """The face for sync Gs and threads."""
        return SyncCond(self)

    async def _relock(self) -> None:
        """Whoever called ``wait`` will unlock: so lock, however often it is cancelled, and pass
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

    def _enqueue(self, g: Waker | None) -> Sudog:
        sg = CondWaiter(self, self._here())
        sg.g = g
        self._queue.append(sg)
        return sg

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

        def attempt(note: Note) -> Sudog:
            sg = cond._enqueue(note)
            cond.lock._unlock()
            return sg

        try:
            wait_at_home(cond._here(), CondWaiter.reason, attempt)
        finally:
            cond.lock.sync.lock()


# ---- Once -----------------------------------------------------------------------------------


class Once:
    """Does something once (Go: ``sync.Once``)."""

    __slots__ = ("_done", "_mutex")

    def __init__(self) -> None:
        self._done = False
        self._mutex = Mutex()

    async def do(self, fn: Callable[..., Any], *args: Any) -> None:
        """Call ``fn``, plain or async, if no call was made yet; every caller returns only after
        that call ended.

        If it raised, its caller gets the exception and it counts as done (Go's rule for a panic).
        If it was cancelled it does not: the next caller does it again.
        """
        if not self._done:
            async with self._mutex:
                await self._first(fn, args)

    async def _first(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._done:
            return
        try:
            outcome = fn(*args)
            if isawaitable(outcome):
                await outcome
        except CancelledError:
            raise
        except BaseException:
            self._done = True
            raise
        self._done = True

    @property
    def sync(self) -> SyncOnce:
        """The face for sync Gs and threads."""
        return SyncOnce(self)


class SyncOnce:
    """``once.sync``."""

    __slots__ = ("_once",)

    def __init__(self, once: Once):
        self._once = once

    def do(self, fn: Callable[..., Any], *args: Any) -> None:
        """As ``Once.do``, for a plain function."""
        once = self._once
        if once._done:
            return
        with once._mutex.sync:
            if not once._done:
                try:
                    fn(*args)
                finally:
                    once._done = True
