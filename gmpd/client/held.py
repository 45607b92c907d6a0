"""Outcomes of futures whose condition a thread held when they came: they are settled a little
later, or, where their holder is gone, all the same (see ``JobFuture.settle``)."""

from __future__ import annotations

import time
from collections import deque

from gmpd.client.futures import JobFuture
from gmpd.submit.events import JobDone

#: A future whose condition is held is tried again at this interval, and settled anyway after this
#: time (seconds): then its holder is gone.
HELD_S, HELD_MAX_S = 0.005, 1.0


class HeldFutures:
    """Any thread adds some; one settles them."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        #: With the time at which each was added.
        self._waiting: deque[tuple[JobFuture, JobDone, float]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, future: JobFuture, event: JobDone) -> None:
        """This one could not be settled now."""
        self._waiting.append((future, event, time.monotonic()))

    def settle(self) -> bool:
        """Try each once; whether none is left."""
        for _ in range(len(self._waiting)):
            future, event, since = self._waiting.popleft()
            force = time.monotonic() - since > HELD_MAX_S
            if not future.settle(event, force=force):
                self._waiting.append((future, event, since))
        return not self._waiting
