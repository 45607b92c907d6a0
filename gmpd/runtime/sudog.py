"""A G in a queue of waiters, and the contract by which it parks and is made ready.

Go's ``sudog``: one small object per wait of a G on a channel, lock or timer. The G that ends the
wait fills in ``elem`` and ``ok``, clears ``g``, and calls ``g.ready(sg)``; nothing is allocated and
no callback runs on that way.

The protocol: a coroutine yields its ``Sudog`` (see ``parks``). A G of our own loop sees that
(``isinstance(res, Wait)``, and ``res._loop`` is its own, else it is refused), sets
``res.g = self``, keeps it as the object of its wait (and cancels it at once if a cancel is
pending), drops it when it is resumed with ``send(None)``, and has a method ``ready(sg)`` that makes
it runnable.
``G.cancel`` calls ``sg.cancel(msg)``: True means that the wait is over and the G is, or already
was, made ready; the ``CancelledError`` is raised by the waiting coroutine itself.
``type(sg).reason`` is Go's wait reason, for ``stacks`` and for Deadlock. Any other asyncio task
takes a Sudog for a future: it has the few attributes that a Task asks a future for.

Everything here is called by the M that holds P (or the thread of a plain loop) and by no other;
``owner`` is for the rest. It knows nothing of channels and locks. Rejected: an ``asyncio.Future``
per wait. It is a quarter faster under asyncio's C Task, but under a loop of our own it costs a
callback, a handle and twice the memory, and a value that it carries cannot be recovered when its
receiver is cancelled.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import update_wrapper
from inspect import CO_COROUTINE, CO_GENERATOR
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar

from gmpd.runtime.internals import running_loop

Args = ParamSpec("Args")
R = TypeVar("R")

#: A queue of waiters is swept when more than half of it is dead and at least this many are: below
#: that, skipping them one by one is cheaper than the sweep.
SWEEP_MIN = 16


class Waker(Protocol):
    """The ``g`` of a Sudog: a G, a thread that waits, a ``select``."""

    def ready(self, sg: Any, /) -> None:
        """Make the waiter runnable. ``sg.elem`` and ``sg.ok`` are filled in. Called once, by the P
        holder. Never raises.
        """


def parks(fn: Callable[Args, Generator[Wait, None, R]]) -> Callable[Args, Coroutine[Any, Any, R]]:
    """Make a coroutine function of a generator function that yields its Sudog where it parks.

    The coroutine is a native one for all callers (``asyncio.create_task``, "was never awaited"),
    but there is no iterator between it and its Sudog: an ``await`` would make one of 48 bytes by a
    call in each wait, and a parked G would keep it. ``types.coroutine`` sets a flag of the code in
    the same way, but what it makes is no coroutine to asyncio since 3.12.
    """
    assert isinstance(fn, FunctionType)
    code = fn.__code__
    code = code.replace(co_flags=code.co_flags & ~CO_GENERATOR | CO_COROUTINE)
    made = FunctionType(code, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    made.__kwdefaults__ = fn.__kwdefaults__
    update_wrapper(made, fn)
    _, _, result = fn.__annotations__["return"].removesuffix("]").rpartition(", ")
    made.__annotations__ = {**fn.__annotations__, "return": result}  # as of an ``async def``
    del made.__wrapped__  # type: ignore[attr-defined]  # it is that function, not around it
    return made


class Wait:
    """The interface of a Sudog to the G that parks on it: ``Sudog`` and ``Sleeper``."""

    if not TYPE_CHECKING:  # a type checker sees the names of the subclasses' slots instead
        __slots__ = ()

    #: Go's wait reason.
    reason: ClassVar[str] = ""

    if TYPE_CHECKING:
        #: The G to wake. None: not waiting (not parked yet, served, or cancelled); queues skip such
        #: entries.
        g: Waker | None
        #: None while it waits; True: ``elem`` was handed over; False: closed, or cancelled.
        ok: bool | None
        #: The value on its way; the cancel message after a cancel.
        elem: Any
        #: The object it waits on. None once it was abandoned.
        c: Any
        _loop: AbstractEventLoop

    @property
    def _asyncio_future_blocking(self) -> bool:
        """An asyncio Task takes it for a future, if this is true, and then sets it to False."""
        return True

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None:
        pass

    def unlink(self) -> None:
        """Leave the queue: the wait was cancelled before it was served."""

    def undo(self) -> None:
        """Give back the value: the wait was cancelled after it had been served, before
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

    def cancelled_error(self) -> BaseException:
        """For the waiting coroutine to raise when it is resumed and was not served."""
        if self.ok is None:  # two await one coroutine: only this resumes the one that waits
            self.cancel()
            return RuntimeError("coroutine is being awaited already")
        return CancelledError() if self.elem is None else CancelledError(self.elem)

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """Called by an asyncio Task when its coroutine yields this."""
        self.g = TaskWaker(self._loop, callback, context)

    def result(self) -> None:
        """Called by an asyncio Task when woken: the coroutine itself reads the result."""

    def __repr__(self) -> str:
        if self.g is not None:
            state = "waiting"
        elif self.ok is None and self.c is not None:  # asyncio refuses it with this in its words
            state = "not waiting: in another loop or thread than its own, use .sync"
        else:
            state = "served" if self.ok else "over"
        return f"<Sudog [{self.reason}] {state}>"


class Sudog(Wait):
    """One wait. Subclasses give its reason, and undo it when it is cancelled."""

    __slots__ = ("_loop", "c", "elem", "g", "ok")

    def __init__(self, c: Any, loop: AbstractEventLoop, elem: Any = None):
        self.c = c
        self.elem = elem
        self.g = self.ok = None
        self._loop = loop


@parks
def park(sg: Wait) -> Generator[Wait, None, None]:
    """Wait until it is served. CancelledError otherwise."""
    try:
        yield sg
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

    def ready(self, sg: Wait, /) -> None:
        loop = self._loop
        if running_loop() is loop:
            loop.call_soon(self._callback, sg, context=self._context)
        else:  # another loop than the channel's own served it: this one may be asleep
            loop.call_soon_threadsafe(self._callback, sg, context=self._context)


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
        if not self:
            return  # it was resumed by hand, not parked: a taker found no G, and dropped it
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
        """Whether a G waits; drops dead entries in front."""
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
