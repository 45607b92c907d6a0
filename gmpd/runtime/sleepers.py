"""Gs that sleep, by the time at which they wake: the part of a P's timers that are Gs.

A heap beside asyncio's own, because a million Gs may sleep at once: its entries are floats, so that
they are compared in C (a pop among a million takes 0.8 µs, with handles of asyncio 5 µs), and a
round of the loop wakes a bounded number of them, so that sockets get their turn in between.

It knows the loop only as a sleeper's owner; the clock is the caller's.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, ClassVar

from gmpd.runtime.sudog import Wait, Waker

#: Sleepers woken in one round of the loop: about a millisecond, half of what a batch of Gs gets.
WAKE_MAX = 1024
#: Fewer cancelled ones than this are left to come up by themselves (asyncio's own limit).
SWEEP_MIN = 100


class Sleeper(float, Wait):
    """A G that sleeps, and its place in the heap: as a number, the time when it wakes."""

    __slots__ = ("_loop", "c", "elem", "g", "ok")

    reason: ClassVar[str] = "sleep"

    g: Waker | None
    ok: bool | None
    elem: Any
    c: Sleepers | None
    _loop: AbstractEventLoop

    def unlink(self) -> None:
        assert self.c is not None
        self.ok = False
        self.c.cancelled()

    def wake(self) -> None:
        """Its time has come."""
        self.ok = True
        g = self.g
        if g is not None:
            self.g = None
            g.ready(self)

    __repr__ = Wait.__repr__


class Sleepers:
    """All that sleep on one P. Only its holder calls this."""

    __slots__ = ("_dead", "_heap")

    def __init__(self) -> None:
        self._heap: list[Sleeper] = []
        #: Those among them that were cancelled: their ``ok`` is False.
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, loop: AbstractEventLoop, when: float) -> Sleeper:
        """One that wakes at ``when``, seconds on the loop's clock; for the G to await."""
        sleeper = Sleeper(when)
        sleeper.c = self
        sleeper.g = sleeper.ok = sleeper.elem = None
        sleeper._loop = loop
        heappush(self._heap, sleeper)
        return sleeper

    def next(self) -> float | None:
        """When the next one wakes; None while none sleeps."""
        heap = self._heap
        while heap and heap[0].ok is False:
            heappop(heap)
            self._dead -= 1
        return float(heap[0]) if heap else None

    def wake(self, end: float) -> int:
        """Make those ready whose time is before ``end``, at most WAKE_MAX; gives how many."""
        woken = 0
        while woken < WAKE_MAX and (sleeper := self._due(end)) is not None:
            woken += 1
            sleeper.wake()
        return woken

    def _due(self, end: float) -> Sleeper | None:
        """Take the next one out whose time is before ``end``."""
        heap = self._heap
        while heap and heap[0] < end:
            sleeper = heappop(heap)
            if sleeper.ok is not False:
                return sleeper
            self._dead -= 1
        return None

    def cancelled(self) -> None:
        """One more of them is dead; forgets them when they are more than a quarter (Go:
        ``timers.adjust``).
        """
        self._dead += 1
        if self._dead > SWEEP_MIN and self._dead * 4 > len(self._heap):
            self._heap = [sleeper for sleeper in self._heap if sleeper.ok is None]
            heapify(self._heap)
            self._dead = 0


def from_now(now: float, seconds: float) -> float:
    """``now + seconds``, on any loop's clock. ValueError for nan; what no float can hold is for
    ever, as in Go.
    """
    try:
        when = now + seconds
    except OverflowError:
        when = inf if seconds > 0 else now
    if when != when:
        raise ValueError("cannot wait for nan seconds: it is not a number")
    return when
