"""A P whose time and dice are given: the same seed gives the same trace (Go: ``testing/synctest``).

The clock stands still while any G can run, and jumps to the next timer when all are parked. No
sysmon takes P away: a sync G runs to its end, however long that takes. Outside events
(sockets, threads, processes) take real time and are as random as ever: while a socket is open or
another thread lives, the clock goes as the real one does instead of jumping. Rejected: to let it
stand still for them too, as Go does. A thread of asyncio's executor, once made, lives as long as
the loop, and no sleep would ever end.

A sync G that has waited for a channel and the like continues with P, when it is its turn: elsewhere
it continues beside P, at the mercy of the GIL.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from math import inf, ulp
from typing import Any

from gmpd.errors import Deadlock
from gmpd.runtime.batch import BATCH_NS, CLOCK_EVERY, Batches
from gmpd.runtime.coro import Place
from gmpd.runtime.deadlock import is_quiet, waits_for_gs
from gmpd.runtime.fresh import FreshGs
from gmpd.runtime.loop import Loop
from gmpd.runtime.p import M, P
from gmpd.runtime.poller import Poller
from gmpd.runtime.sleepers import WAKE_MAX, Sleeper, Sleepers
from gmpd.runtime.stacks import deadlock_text
from gmpd.runtime.sudog import Sudog
from gmpd.runtime.sync.waiting import serve
from gmpd.runtime.syncg import SyncG
from gmpd.sched.g import GEvent

#: A batch ends after this many looks at the clock, instead of 2 ms.
LOOKS_PER_BATCH = 8
#: A chain of ``runnext`` loses its turn after this many picks: at 250 ns a switch this is Go's
#: slice of 10 ms.
CHAIN_MAX = 40_000
#: Sockets are polled after this many rounds while Gs are ready.
ROUNDS_PER_POLL = 8
#: Real seconds between two looks whether what is outside has ended, so that the clock can jump.
LOOK_S = 0.01

#: How far ahead of the clock a timer is due, at least: asyncio's resolution of the real one.
RESOLUTION_S = 1e-9


class DeterministicLoop(Loop):
    """``Loop`` with a fake clock that begins at 0.0, and ``rng`` seeded."""

    def __init__(self, seed: int, **options: Any):
        super().__init__(**options)
        #: Every choice that is left to chance asks this one.
        self.rng = random.Random(seed)
        #: The fake clock.
        self.now = 0.0
        self.p.sleepers = TossedSleepers(self.rng)
        self.p.on_wait_done = partial(_requeue, self.p)
        self.fresh = Resumes(self)
        self.batches = CountedBatches(self)
        self.poller = Jumper(self)
        #: The G that waits for all others to wait: see ``synctest``.
        self.settled: Sudog | None = None
        #: The M that gets P next, when the M that has it has left the loop.
        self.heir: Woken | None = None
        self.sysmon.asleep = False  # never to be woken

    def time(self) -> float:
        """Seconds on the fake clock."""
        return self.now

    def _releasep(self, m: M) -> None:
        super()._releasep(m)
        woken, self.heir = self.heir, None
        if woken is not None and self.p.owner is m:
            self._thread_id = woken.m.ident
            self.p.is_visible = False  # it is inside its sync G
            self.ms.give_back(m, woken.m)
            woken.wake()


class Woken:
    """A sync G that has waited, in the run queue: it is to continue."""

    __slots__ = ("id", "m", "wake")

    place = Place.ANY

    def __init__(self, m: M, wake: Callable[[], None]):
        self.id = m.g.id
        self.m = m
        self.wake = wake


def _requeue(p: P, m: M, wake: Callable[[], None]) -> None:
    """A sync G that has waited comes back to P."""
    p.runq.runqput(Woken(m, wake), True)


class Resumes(FreshGs):
    """Starts Gs, or gives P back to one that has waited."""

    __slots__ = ("_fake",)

    def __init__(self, loop: DeterministicLoop):
        super().__init__(loop.p, loop.ms, loop.handoffs)
        self._fake = loop

    def run(self, m: M, g: Any) -> int:
        """As for all fresh Gs; below 0 also when P is to go back to the M of ``g``."""
        if g.__class__ is not Woken:
            return super().run(m, g)
        loop = self._fake
        if g.m not in loop.p.detached or not g.m.wait_reason:  # it was interrupted meanwhile
            g.wake()
            return 0
        if loop.p.tracer is not None and g.m.g.__class__ is SyncG:
            loop.p.tracer(GEvent.SYSCALL_END, g.m.g)
        loop.heir = g
        return -1


class CountedBatches(Batches):
    """Batches and slices end by the number of Gs run, not by the time taken."""

    __slots__ = ("_chain",)

    def __init__(self, loop: DeterministicLoop):
        clock = count(0, BATCH_NS // LOOKS_PER_BATCH).__next__
        super().__init__(loop.p, loop.ms, loop.fresh, clock, long_ns=inf)
        self.past_max = 1  # none is looked past: Go's order, whatever the threads
        self._chain = 0

    def restore(self) -> None:
        """The one of the other kind was not picked, except its tick."""
        for g in self._p.aside:
            self._p.runq.putback(g)
        self._p.aside.clear()

    def _end(self, home: bool) -> None:
        runq = self._p.runq
        if runq.inherit:
            self._chain += CLOCK_EVERY * LOOKS_PER_BATCH
            self._p.preempt = self._chain > CHAIN_MAX
        else:
            self._chain = 0
        if self._p.preempt:
            self._chain = 0
        super()._end(home)


class TossedSleepers(Sleepers):
    """Sleepers that wake at the same instant do so in an order that the seed gives (Go:
    ``timer.rand`` in a bubble).
    """

    __slots__ = ("_rng",)

    def __init__(self, rng: random.Random):
        super().__init__()
        self._rng = rng

    def wake(self, end: float) -> int:
        """As of all sleepers."""
        due: list[Sleeper] = []
        while len(due) < WAKE_MAX and (sleeper := self._due(end)) is not None:
            due.append(sleeper)
        due.sort(key=lambda sleeper: (float(sleeper), self._rng.random()))
        for sleeper in due:
            if sleeper.ok is None:  # else one that woke before it has cancelled it
                sleeper.wake()
        return len(due)


class Jumper(Poller):
    """Waits for a timer by setting the clock."""

    __slots__ = ("_fake", "_looks")

    def __init__(self, loop: DeterministicLoop):
        super().__init__(loop.p, loop.ms, loop.sysmon)
        self._fake = loop
        self._looks = 0

    def look(self) -> None:
        """Sockets, among them the one by which threads wake P: every few rounds."""
        self._looks += 1
        if not self._fake.p.runq or self._looks % ROUNDS_PER_POLL == 0:
            self._poll(time.monotonic_ns())

    def wake_due(self) -> None:
        """Run asyncio's timers that are due, too: those of one instant come in an order that the
        seed gives.
        """
        loop = self._fake
        before = len(loop._ready)
        super().wake_due()
        timers = [loop._ready.pop() for _ in range(len(loop._ready) - before)]
        if any(not isinstance(timer, asyncio.TimerHandle) for timer in timers):
            loop._ready.extend(reversed(timers))
            return
        timers.sort(key=lambda timer: (timer.when(), loop.rng.random()))
        loop._ready.extend(timers)

    def idle(self, timeout: float | None, m: M | None) -> None:
        """All Gs are parked: jump to the next timer, unless an outside event may wake one."""
        loop = self._fake
        if loop.settled is not None and waits_for_gs(loop.p):
            settled, loop.settled = loop.settled, None
            serve(settled)
            return
        if timeout is not None and is_quiet(loop.p, looks=0):
            when = self.next_timer()
            assert when is not None
            if when < inf:
                loop.now = when
                # Of what is due, by a clock whose steps grow with it: at 1e9 s they are 0.1 us.
                loop._clock_resolution = max(RESOLUTION_S, ulp(when))
                return
            if loop.p.checkdead is not None and loop.p.checkdead(loop.p):
                raise Deadlock(deadlock_text(loop.p))  # all that is left are sleeps without an end
            super().idle(None, m)
        elif timeout is None or loop.p.detached:
            # A G without P takes real time, during which the fake clock stands still.
            super().idle(None, m)
        else:
            step = min(timeout, LOOK_S)
            end = time.monotonic() + step
            super().idle(step, m)
            if time.monotonic() >= end:
                when = self.next_timer()
                loop.now = loop.now + step if step < timeout or when is None else when
