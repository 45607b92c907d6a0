"""A P whose time and dice are given: the same seed gives the same trace (Go: ``testing/synctest``).

The clock stands still while any G can run, and jumps to the next timer when all are parked. No
sysmon takes P away: a sync G runs to its end, unless it waits for a channel and the like. What
comes from outside (sockets, threads, processes) takes real time and is as random as ever.
"""

from __future__ import annotations

import random
from itertools import count
from math import inf
from typing import Any

from gmpd.errors import Deadlock
from gmpd.runtime.loop import BATCH_NS, CLOCK_EVERY, Loop
from gmpd.runtime.m import M
from gmpd.runtime.stacks import deadlock_text

#: A batch ends after so many looks at the clock, instead of 2 ms.
LOOKS_PER_BATCH = 8
#: A chain of ``runnext`` loses its turn after so many picks: at 250 ns a switch this is Go's slice
#: of 10 ms.
CHAIN_MAX = 40_000


class DeterministicLoop(Loop):
    """``Loop`` with a fake clock that begins at 0.0, and ``rng`` seeded."""

    def __init__(self, seed: int, **options: Any):
        super().__init__(**options)
        #: Every choice that is left to chance asks this one.
        self.rng = random.Random(seed)
        self._now = 0.0
        self._chain = 0
        step = BATCH_NS // LOOKS_PER_BATCH
        self.batch_clock = count(0, step).__next__
        self.sysmon.asleep = False  # never to be woken

    def time(self) -> float:
        """Seconds on the fake clock."""
        return self._now

    def _idle(self, timeout: float | None, m: M | None) -> None:
        """All Gs are parked: jump to the next timer, unless something outside may wake one."""
        if timeout is not None and self._is_dead():
            when = self._next_timer()
            assert when is not None
            if when == inf:  # all that is left are sleeps without an end
                raise Deadlock(deadlock_text(self))
            self._now = when
        else:
            # What runs without P takes real time, and the fake one stands still for it.
            super()._idle(None if self.ms.detached else timeout, m)

    def _end_batch(self) -> None:
        runq = self.runq
        if runq.inherit:
            self._chain += CLOCK_EVERY * LOOKS_PER_BATCH
            self.preempt = self._chain > CHAIN_MAX
        else:
            self._chain = 0
        if self.preempt:
            self._chain = 0
        super()._end_batch()
