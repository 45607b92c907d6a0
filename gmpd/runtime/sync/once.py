"""Once: does something once."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from gmpd.runtime.sync.mutex import Mutex


class Once:
    """Calls a function once (Go: ``sync.Once``)."""

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
        """``Once.do`` with a plain function."""
        once = self._once
        if once._done:
            return
        with once._mutex.sync:
            if not once._done:
                try:
                    fn(*args)
                finally:
                    once._done = True
