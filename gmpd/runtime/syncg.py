"""Sync Gs: ``gmpd.go`` makes one of a plain function."""

from __future__ import annotations

import asyncio
from _thread import get_ident
from asyncio import CancelledError
from collections.abc import Coroutine
from typing import Any

from gmpd.runtime.coro import CANCELLED, PENDING, RETURNED, Place
from gmpd.runtime.g import G, started
from gmpd.runtime.turns import let_go


class SyncG(G):
    """The G that ``gmpd.go`` makes of a plain function: a sync G, a ``FreshG`` of the loop."""

    __slots__ = ()

    place = Place.AWAY
    #: For ``JobG``, if its function returns a coroutine: the ring has no steps of it.
    stepped = False

    def start(self) -> Coroutine[Any, Any, None] | None:
        """Run it to its end on the M that holds P; a coroutine that comes out is driven on."""
        args, self._coro_or_args = self._coro_or_args, ()
        if self._state != PENDING:
            return None
        kwargs, self._value = self._value, None
        self._send = started  # it has a frame now, and must stay
        try:
            value = self._context.run(self._fn, *args, **(kwargs or {}))
            if value is not None and asyncio.iscoroutine(value):
                return self._drive(value)
            self._value = (value,)
        except BaseException as exc:  # noqa: BLE001 - it is the awaiter's
            self._value = exc
            self = None  # type: ignore[assignment]  # no cycle through the traceback
        return None

    async def _drive(self, coro: Coroutine[Any, Any, Any]) -> None:
        """A plain function that returned a coroutine, as a decorator's wrapper does."""
        self._fut_waiter = asyncio.current_task()  # so that a cancel reaches it
        try:
            self._value = (await coro,)
        except BaseException as exc:  # noqa: BLE001 - it is the awaiter's
            self._value = exc
            self = None  # type: ignore[assignment]

    def finished(self) -> None:
        """P is here: notify the waiters."""
        if self._state != PENDING:  # cancelled meanwhile: not wanted
            return
        value = self._value
        if isinstance(value, tuple):
            self._end(RETURNED, value[0])
        elif isinstance(value, CancelledError):
            self._was_cancelled(value)
        else:
            self._failed(value)

    def _request_cancel(self, msg: Any) -> None:
        """A thread cannot be interrupted: its awaiter continues at once, and its outcome is
        dropped.
        """
        loop = self._p.loop
        if loop._thread_id not in (None, get_ident()) and not loop.is_closed():
            loop.call_soon_threadsafe(self._request_cancel, msg)
        elif self._fut_waiter is not None:
            self._fut_waiter.cancel(msg=msg)
        elif self._state == PENDING:
            self._end(CANCELLED, msg)
            let_go(self._p, self)

    def get_coro(self) -> None:
        return None
