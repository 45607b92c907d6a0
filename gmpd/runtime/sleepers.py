"""Gs that sleep, by the time at which they wake: the part of a P's timers that are Gs.

A heap beside asyncio's own, because a million Gs may sleep at once: its entries are floats, so that
they are compared in C (a pop among a million takes 0.8 µs, with handles of asyncio 5 µs), and a
round of the loop wakes a bounded number of them, so that sockets get their turn in between.

It knows the loop only as whom a sleeper belongs to; the clock is the caller's.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from heapq import heapify, heappop, heappush
from math import inf
from typing import ClassVar

from gmpd.runtime.sudog import Sudog

#: Sleepers woken in one round of the loop: about a millisecond, half of what a batch of Gs gets.
WAKE_MAX = 1024
#: Fewer cancelled ones than this are left to come up by themselves (asyncio's own limit).
SWEEP_MIN = 100


class Due(float):
    """A place in the heap: the time, and who wakes then; None once that was cancelled."""

    __slots__ = ("sg",)

    sg: Sleeper | None


class Sleeper(Sudog):
    """A G that sleeps."""

    __slots__ = ("_due",)

    reason: ClassVar[str] = "sleep"

    _due: Due
    c: Sleepers | None

    def unlink(self) -> None:
        if self._due.sg is not None:
            self._due.sg = None
            assert self.c is not None
            self.c.cancelled()


class Sleepers:
    """All that sleep on one P. Only its holder calls this."""

    __slots__ = ("_dead", "_heap")

    def __init__(self) -> None:
        self._heap: list[Due] = []
        #: Entries whose sleeper was cancelled.
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, loop: AbstractEventLoop, when: float) -> Sleeper:
        """One that wakes at ``when``, seconds on the loop's clock; for the G to await."""
        sleeper = Sleeper(self, loop)
        due = sleeper._due = Due(when)
        due.sg = sleeper
        heappush(self._heap, due)
        return sleeper

    def next(self) -> float | None:
        """When the next one wakes; None while nobody sleeps."""
        heap = self._heap
        while heap and heap[0].sg is None:
            heappop(heap)
            self._dead -= 1
        return float(heap[0]) if heap else None

    def wake(self, end: float) -> int:
        """Make those ready whose time is before ``end``, at most WAKE_MAX; gives how many."""
        heap = self._heap
        woken = 0
        while heap and heap[0] < end and woken < WAKE_MAX:
            due = heappop(heap)
            sleeper = due.sg
            if sleeper is None:
                self._dead -= 1
                continue
            due.sg = None
            woken += 1
            g = sleeper.g
            if g is not None:
                sleeper.g = None
                sleeper.ok = True
                g.ready(sleeper)
        return woken

    def cancelled(self) -> None:
        """One more of them is dead; forgets them when they are more than a quarter (Go:
        ``timers.adjust``).
        """
        self._dead += 1
        if self._dead > SWEEP_MIN and self._dead * 4 > len(self._heap):
            self._heap = [due for due in self._heap if due.sg is not None]
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
