"""SingleFlight: one call for all concurrent callers of the same key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from gmpd.runtime.owner import run_on_owner, spawn
from gmpd.runtime.sync.waiting import Homed


class Flight:
    """A call that is under way."""

    __slots__ = ("asked", "child", "waiting")

    def __init__(self, child: Any):
        self.child = child
        #: How many callers it had, and how many still wait.
        self.asked = self.waiting = 0


class SingleFlight(Homed):
    """Calls by key: a caller that comes during a call waits for that one, and gets its value
    (``golang.org/x/sync/singleflight.Group``).
    """

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        super().__init__()
        self._flights: dict[Hashable, Flight] = {}

    async def do(
        self, key: Hashable, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> tuple[Any, bool]:
        """(what ``fn(*args, **kwargs)`` gave, whether others got it too); its error goes to all.

        It runs in a child G: if one waiter is cancelled the others get it nevertheless, if all
        are, so is the call.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = Flight(spawn(self._here(), fn, args, kwargs))
            self._flights[key] = flight
            flight.child.add_done_callback(partial(self._landed, key, flight))
        flight.asked += 1
        flight.waiting += 1
        try:
            value = await asyncio.shield(flight.child)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.child.done():
                flight.child.cancel()
                self._landed(key, flight, None)
        return value, flight.asked > 1

    def forget(self, key: Hashable) -> None:
        """Later callers start a new call, whether one is under way or not. From anywhere."""
        run_on_owner(self._home(), self._flights.pop, key, None)

    @property
    def sync(self) -> SyncSingleFlight:
        """The face for plain functions and threads."""
        return SyncSingleFlight(self)

    def _landed(self, key: Hashable, flight: Flight, _child: Any) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class SyncSingleFlight:
    """``flights.sync``; P is handed off for the wait."""

    __slots__ = ("_flights",)

    def __init__(self, flights: SingleFlight):
        self._flights = flights

    def do(
        self, key: Hashable, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> tuple[Any, bool]:
        """As ``SingleFlight.do``; blocks the caller."""
        flights = self._flights
        child = spawn(flights._here(), flights.do, (key, fn, *args), kwargs)
        return child.result()  # type: ignore[no-any-return]

    def forget(self, key: Hashable) -> None:
        """As ``SingleFlight.forget``."""
        self._flights.forget(key)
