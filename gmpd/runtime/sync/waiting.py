"""The base of ``sync``: an object that has a home, and Gs that queue up for it."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any, ClassVar

from gmpd.runtime.owner import owner_loop
from gmpd.runtime.sudog import Sudog, WaitQueue, Waker


class Homed:
    """An object that belongs to a loop: the one where it was made or first waited on."""

    __slots__ = ("__weakref__", "_loop")

    def __init__(self) -> None:
        self._loop = owner_loop()

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} belongs to the worker where it was made")

    def _home(self) -> AbstractEventLoop | None:
        if self._loop is None:
            self._loop = owner_loop()
        return self._loop

    def _here(self) -> AbstractEventLoop:
        """The home of a waiter."""
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


class Queueing(Homed):
    """An object with a queue of waiting Gs."""

    __slots__ = ("_queue",)

    #: A wait in that queue.
    _waiter: ClassVar[type[Sudog]]

    def __init__(self) -> None:
        super().__init__()
        self._queue = WaitQueue()

    def _enqueue(self, g: Waker | None) -> Sudog:
        """Queue up. ``g``: None for a coroutine, which is told by its loop."""
        sg = self._waiter(self, self._here())
        sg.g = g
        self._queue.append(sg)
        return sg


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
