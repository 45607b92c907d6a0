"""gmpd's own callbacks of a P: run by the M that holds P.

asyncio's callbacks, and all coroutines, belong to one thread, the P's home M, because libraries
keep state there. Work of gmpd itself (its link, operations that threads send to P, time limits)
uses no state of a thread. In asyncio's ready queue it would move P to the home M for each message;
so it has a separate queue, and a load of plain Gs stays on one M.

Rejected: to mark single handles in asyncio's queue (a plain M would have to look past those that it
may not run, again and again).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from gmpd.runtime.internals import SelectorEventLoop


class PHandle(asyncio.Handle):
    """A callback that any M may run."""

    __slots__ = ()


class PTimer(asyncio.TimerHandle):
    """One whose time has not come."""

    __slots__ = ()


class PCallbacks:
    """The callbacks of one P. Only the M that holds P calls this, except ``threadsafe``."""

    __slots__ = ("_loop", "_wake", "ready")

    def __init__(self, loop: SelectorEventLoop, wake: Callable[[], None]):
        """``wake``, thread-safe, gets P out of select."""
        self._loop = loop
        self._wake = wake
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
        self._wake()

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


def soon(loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], *args: Any) -> None:
    """Have ``loop`` call gmpd's own function on its thread; a plain loop has one queue."""
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
