"""A P whose time and dice are given: the same seed gives the same trace (Go: ``testing/synctest``).

The clock stands still while any G can run, and jumps to the next timer when all are parked. No
sysmon takes P away: a sync G runs to its end, however long that takes. What comes from outside
(sockets, threads, processes) takes real time and is as random as ever; so is what a sync G does
after it has waited for a channel and the like: it goes on without P, on a thread of its own.
"""

from __future__ import annotations

import random
from itertools import count
from math import inf
from typing import Any

from gmpd.errors import Deadlock
from gmpd.runtime.batch import BATCH_NS, CLOCK_EVERY, Batches
from gmpd.runtime.deadlock import is_dead
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import M
from gmpd.runtime.poller import Poller
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
        #: The fake clock.
        self.now = 0.0
        self.batches = CountedBatches(self)
        self.poller = Jumper(self)
        self.sysmon.asleep = False  # never to be woken

    def time(self) -> float:
        """Seconds on the fake clock."""
        return self.now


class CountedBatches(Batches):
    """Batches and slices end by what was run, not by how long it took."""

    __slots__ = ("_chain",)

    def __init__(self, loop: DeterministicLoop):
        super().__init__(loop, count(0, BATCH_NS // LOOKS_PER_BATCH).__next__, long_ns=inf)
        self._chain = 0

    def _end(self) -> None:
        runq = self._loop.runq
        if runq.inherit:
            self._chain += CLOCK_EVERY * LOOKS_PER_BATCH
            self.preempt = self._chain > CHAIN_MAX
        else:
            self._chain = 0
        if self.preempt:
            self._chain = 0
        super()._end()


class Jumper(Poller):
    """Waits for a timer by setting the clock."""

    __slots__ = ("_fake",)

    def __init__(self, loop: DeterministicLoop):
        super().__init__(loop)
        self._fake = loop

    def idle(self, timeout: float | None, m: M | None) -> None:
        """All Gs are parked: jump to the next timer, unless something outside may wake one."""
        loop = self._fake
        if timeout is not None and is_dead(loop):
            when = self.next_timer()
            assert when is not None
            if when == inf:  # all that is left are sleeps without an end
                raise Deadlock(deadlock_text(loop))
            loop.now = when
        else:
            # What runs without P takes real time, and the fake one stands still for it.
            super().idle(None if loop.ms.detached else timeout, m)
