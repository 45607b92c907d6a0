"""Semaphore: n units, of which each holder takes as many as it needs."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import ClassVar

from gmpd.errors import Panic
from gmpd.runtime.owner import Parker, run_on_owner, wait_on_owner
from gmpd.runtime.sudog import Sudog, Wait, Waker, parks
from gmpd.runtime.sync.waiting import Queued, Queueing, serve


class SemaphoreWaiter(Queued):
    """A G in ``Semaphore.acquire``; ``elem`` is how many it wants."""

    __slots__ = ()
    reason: ClassVar[str] = "semacquire"

    def unlink(self) -> None:
        super().unlink()
        self.c._serve()  # those behind it may want less

    def undo(self) -> None:
        self.c._release(self.elem)


class Semaphore(Queueing):
    """``n`` tokens; a G takes some and gives them back (``golang.org/x/sync/semaphore.Weighted``).

    The longest wait is served first, also if it wants many and later ones few. ``async with
    semaphore:`` and, in plain functions, ``with semaphore.sync:`` take one. ValueError for a
    negative number.
    """

    __slots__ = ("_free", "_size")

    _waiter = SemaphoreWaiter

    def __init__(self, n: int):
        super().__init__()
        self._free = self._size = _number(n)

    @parks
    def acquire(self, n: int = 1) -> Generator[Wait, None, None]:
        """Take ``n``, waiting until they are free. More than there ever are: for ever, as in
        Go, but without keeping others waiting.
        """
        sg = self._attempt(None, _number(n))
        if sg is None:
            return
        try:
            yield sg
        except BaseException:
            sg.abandon()
            raise
        if not sg.ok:
            raise sg.cancelled_error()

    def try_acquire(self, n: int = 1) -> bool:
        """Take ``n`` if they are free and no G waits. True if so. From anywhere."""
        return run_on_owner(self._home(), self._try_acquire, _number(n))

    def release(self, n: int = 1) -> None:
        """Give ``n`` back. Panic if they were not taken. From anywhere."""
        run_on_owner(self._home(), self._release, _number(n))

    @property
    def free(self) -> int:
        """How many there are to take now."""
        return self._free

    @property
    def sync(self) -> SyncSemaphore:
        """The face for plain functions and threads."""
        return SyncSemaphore(self)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Semaphore {self._free}/{self._size}>"

    # ---- at home only -----------------------------------------------------------------------

    def _try_acquire(self, n: int) -> bool:
        free = n <= self._free and not self._queue.live()
        if free:
            self._free -= n
        return free

    def _attempt(self, g: Waker | None, n: int) -> Sudog | None:
        if self._try_acquire(n):
            return None
        sg = SemaphoreWaiter(self, self._here(), n)
        sg.g = g
        if n <= self._size:
            self._queue.append(sg)
        return sg

    def _release(self, n: int) -> None:
        if self._free + n > self._size:
            raise Panic("semaphore: released more than held")
        self._free += n
        self._serve()

    def _serve(self) -> None:
        queue = self._queue
        while queue.live() and queue[0].elem <= self._free:
            sg = queue.take()
            self._free -= sg.elem
            serve(sg)


class SyncSemaphore:
    """``semaphore.sync``; P is handed off for the wait."""

    __slots__ = ("_semaphore",)

    def __init__(self, semaphore: Semaphore):
        self._semaphore = semaphore

    def acquire(self, n: int = 1) -> None:
        """As ``Semaphore.acquire``; blocks the caller."""
        semaphore, wanted = self._semaphore, _number(n)

        def attempt(parker: Parker) -> Sudog | None:
            return semaphore._attempt(parker, wanted)

        wait_on_owner(semaphore._home(), SemaphoreWaiter.reason, attempt)

    def try_acquire(self, n: int = 1) -> bool:
        """As ``Semaphore.try_acquire``."""
        return self._semaphore.try_acquire(n)

    def release(self, n: int = 1) -> None:
        """As ``Semaphore.release``."""
        self._semaphore.release(n)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.release()


def _number(n: int) -> int:
    if n < 0:
        raise ValueError(f"a Semaphore counts from 0 up, not {n}")
    return n
