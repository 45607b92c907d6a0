"""A G in a queue of waiters, and the contract by which it parks and is made ready.

Go's ``sudog``: one small object per wait of a G on a channel, lock or timer. Whoever ends the wait
fills in ``elem`` and ``ok``, clears ``g``, and calls ``g.ready(sg)``; nothing is allocated and no
callback runs on that way.

What a runtime does with it: a coroutine yields its ``Sudog``. A G of our own loop sees that
(``isinstance(res, Sudog)``, and ``res._loop`` is its own, else it is refused), sets ``res.g =
self``, remembers it as what it waits for (and cancels it at once if a cancel is pending), forgets
it when it is resumed with ``send(None)``, and has a method ``ready(sg)`` that makes it runnable.
``G.cancel`` calls ``sg.cancel(msg)``: True means that the wait is over and the G is, or already
was, made ready; the ``CancelledError`` is raised by the waiting coroutine itself.
``type(sg).reason`` is Go's wait reason, for ``stacks`` and for Deadlock. Any other asyncio task
takes a Sudog for a future: it has the few attributes that a Task asks a future for.

Everything here is called by the M that holds P (or the thread of a plain loop) and by no other;
``home`` is for the rest. It knows nothing of channels and locks. Rejected: an ``asyncio.Future``
per wait. It is a quarter faster under asyncio's C Task, but under a loop of our own it costs a
callback, a handle and twice the memory, and a value that it carries cannot be taken back when its
receiver is cancelled.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from itertools import repeat
from typing import Any, ClassVar, Protocol

#: A queue of waiters is swept when more than half of it is dead and at least so many are: below
#: that, skipping them one by one is cheaper than the sweep.
SWEEP_MIN = 16


class Waker(Protocol):
    """What a Sudog calls ``g``: a G, a thread that waits, a ``select``."""

    def ready(self, sg: Sudog, /) -> None:
        """Make the waiter runnable. ``sg.elem`` and ``sg.ok`` are filled in. Called once, by the P
        holder. Never raises.
        """


class Sudog:
    """One wait. Subclasses give the reason, and say what a cancel has to undo."""

    __slots__ = ("_asyncio_future_blocking", "_loop", "c", "elem", "g", "ok")

    #: Go's wait reason.
    reason: ClassVar[str] = ""

    #: Whom to wake. None: not waiting (not parked yet, served, or cancelled); queues skip such
    #: entries.
    g: Waker | None
    #: None while it waits; True: ``elem`` was handed over; False: closed, or cancelled.
    ok: bool | None
    #: The value on its way; the cancel message after a cancel.
    elem: Any
    #: What it waits on. None once it was abandoned.
    c: Any
    _asyncio_future_blocking: bool
    _loop: AbstractEventLoop

    def __init__(self, c: Any, loop: AbstractEventLoop, elem: Any = None):
        self.c = c
        self.elem = elem
        self.g = self.ok = None
        self._loop = loop
        self._asyncio_future_blocking = True

    def __await__(self) -> Generator[Any, None, None]:
        # Made and resumed in C, and one object of 48 bytes; a generator would be a frame more to
        # resume and to keep, a tuple's iterator two objects.
        return repeat(self, 1)  # type: ignore[return-value]

    def unlink(self) -> None:
        """Leave the queue: the wait was cancelled before anybody served it."""

    def undo(self) -> None:
        """Give back what was handed over: the wait was cancelled after it had been served, before
        the G ran.
        """

    def abandon(self) -> bool:
        """End the wait without waking: leave the queue, or give back what was handed over. False:
        done before.
        """
        if self.c is None:
            return False
        if self.ok is None:
            self.g = None
            self.unlink()
        elif self.ok:
            self.undo()
        self.c = self.elem = None
        self.ok = False
        return True

    def cancel(self, msg: object = None) -> bool:
        """End the wait and wake the G, which then raises CancelledError. False: it was abandoned
        before.

        Unlike a future's, it works after the wait was served too, as long as the G has not run:
        nothing handed over is lost.
        """
        g = self.g
        if not self.abandon():
            return False
        self.elem = msg
        if g is not None:
            g.ready(self)
        return True

    def cancelled_error(self) -> CancelledError:
        """For the waiting coroutine to raise when it is resumed and ``c`` is None."""
        return CancelledError() if self.elem is None else CancelledError(self.elem)

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """What an asyncio Task calls when its coroutine yields this."""
        self.g = TaskWaker(self._loop, callback, context)

    def result(self) -> None:
        """What an asyncio Task asks for when woken: the coroutine itself looks at what came."""

    def __repr__(self) -> str:
        state = "waiting" if self.g is not None else "served" if self.ok else "over"
        return f"<Sudog [{self.reason}] {state}>"


async def park(sg: Sudog) -> None:
    """Wait until it is served. CancelledError otherwise."""
    try:
        await sg
    except BaseException:
        sg.abandon()
        raise
    if not sg.ok:
        raise sg.cancelled_error()


class TaskWaker:
    """Wakes an asyncio Task that is not a G of ours, through its loop."""

    __slots__ = ("_callback", "_context", "_loop")

    def __init__(
        self, loop: AbstractEventLoop, callback: Callable[[Any], object], context: Context | None
    ):
        self._loop = loop
        self._callback = callback
        self._context = context

    def ready(self, sg: Sudog, /) -> None:
        self._loop.call_soon(self._callback, sg, context=self._context)


class WaitQueue(deque[Any]):
    """Sudogs, longest waiting first. Those with ``g`` None are dead: cancelled, or served through
    another case of their select.

    Takers pop until they find one that is alive, and count ``dead`` down for each that is not.
    """

    __slots__ = ("dead",)

    def __init__(self) -> None:
        #: Entries known to be dead.
        self.dead = 0

    def unlink(self, sg: Sudog) -> None:
        """Take one out: at once at either end, lazily in between. O(1) on average, however many
        leave.
        """
        if self[-1] is sg:
            self.pop()
        elif self[0] is sg:
            self.popleft()
        else:
            self.dead += 1
            if self.dead >= SWEEP_MIN and self.dead * 2 > len(self):
                alive = [entry for entry in self if entry.g is not None]
                self.clear()
                self.extend(alive)
                self.dead = 0

    def live(self) -> bool:
        """Whether anybody waits; drops dead entries in front."""
        while self:
            if self[0].g is not None:
                return True
            self.popleft()
            self.dead -= 1
        return False

    def take(self) -> Any:
        """The one that waits longest, or None (Go: ``dequeue``)."""
        while self:
            sg = self.popleft()
            if sg.g is not None:
                return sg
            self.dead -= 1
        return None
