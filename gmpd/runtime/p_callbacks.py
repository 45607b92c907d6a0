"""gmpd's own callbacks of a P: served by whichever M holds it.

asyncio's callbacks, and all coroutines, belong to one thread, the P's home M: libraries keep things
there. Work of gmpd itself (its link, operations that threads send home, time limits) touches
nothing of a thread. In the ready queue of asyncio it would bring P home for each message; so it has
a queue of its own, and a load of plain Gs stays on one M.

Rejected: to mark single handles in asyncio's queue (a plain M would have to look past those that it
may not run, again and again).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gmpd.runtime.instrument import is_instrumented, run_instrumented
from gmpd.runtime.steps import leave_fork

if TYPE_CHECKING:
    from gmpd.runtime.loop import Loop


class PHandle(asyncio.Handle):
    """A callback that any M may run."""

    __slots__ = ()


class PTimer(asyncio.TimerHandle):
    """One whose time has not come."""

    __slots__ = ()


class PCallbacks:
    """The callbacks of one P. Only the M that holds P calls this, but for ``threadsafe``."""

    __slots__ = ("_loop", "ready")

    def __init__(self, loop: Loop):
        self._loop = loop
        self.ready: deque[asyncio.Handle] = deque()
        self.claim(loop._ssock.fileno())  # a wake-up

    def soon(self, fn: Callable[..., Any], *args: Any) -> None:
        """In the next round."""
        self.ready.append(PHandle(fn, args, self._loop))

    def threadsafe(self, fn: Callable[..., Any], *args: Any) -> None:
        """As ``soon``, from any thread. RuntimeError when the loop is closed."""
        loop = self._loop
        loop._check_closed()
        self.ready.append(PHandle(fn, args, loop))
        loop.wake()

    def later(self, delay_s: float, fn: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        timer = self._loop.call_later(delay_s, fn, *args)
        timer.__class__ = PTimer
        return timer

    def reader(self, fd: int, fn: Callable[[], Any]) -> None:
        """Call ``fn`` whenever ``fd`` can be read."""
        self._loop.add_reader(fd, fn)
        self.claim(fd)

    def claim(self, fd: int) -> None:
        """The callback for ``fd`` is gmpd's own."""
        handle, _ = self._loop._selector.get_key(fd).data
        handle.__class__ = PHandle

    def run(self) -> None:
        """Those that are ready now, not those that they add."""
        loop, ready = self._loop, self.ready
        watched = is_instrumented(loop)
        for _ in range(len(ready)):
            loop.current = handle = ready.popleft()
            if handle._cancelled:
                continue
            if watched:
                run_instrumented(loop, handle)
            else:
                handle._run()
            if loop.forked:
                leave_fork(0)
        loop.current = handle = None  # type: ignore[assignment]  # a traceback may lead here


def soon(loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], *args: Any) -> None:
    """Have ``loop``, on its thread, call what is gmpd's own; a plain loop has one queue for all."""
    callbacks = getattr(loop, "p_callbacks", None)
    if isinstance(callbacks, PCallbacks):
        callbacks.soon(fn, *args)
    else:
        loop.call_soon(fn, *args)


def soon_threadsafe(loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], *args: Any) -> None:
    """As ``soon``, from any thread."""
    callbacks = getattr(loop, "p_callbacks", None)
    if isinstance(callbacks, PCallbacks):
        callbacks.threadsafe(fn, *args)
    else:
        loop.call_soon_threadsafe(fn, *args)
