"""A batch of Gs: those that one round of the loop runs from the run queue, and when the batch ends
(Go: the inside of ``schedule``).

It knows the clock, not the polling between two batches. Counterparts: ``fresh`` (starts a G that
has not started), ``sched.runq`` (which G is next).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gmpd.runtime.coro import ANY, AWAY, HOME
from gmpd.runtime.followed import FOLLOWED
from gmpd.runtime.g import G
from gmpd.runtime.instrument import is_instrumented, run_instrumented
from gmpd.runtime.internals import clear_current_task, set_running_loop
from gmpd.runtime.jobg import JobG
from gmpd.runtime.task import Task

if TYPE_CHECKING:
    from gmpd.runtime.fresh import FreshGs
    from gmpd.runtime.m import Ms
    from gmpd.runtime.p import M, P

#: A batch of Gs ends after this time, so that sockets and timers are polled.
BATCH_NS = 2_000_000
#: The clock is read once for this many Gs: one read is a fifth of a G switch. As many run in a
#: round even if callbacks of asyncio are always ready.
CLOCK_EVERY = 16
#: A sync G that took this long ends its handful: the next ones would keep P from its sockets.
LONG_NS = 1_000_000
#: After this many Gs of the other kind a batch ends, and P goes to their M.
PAST_MAX = 64
#: A probe that did not come up again within this time was stolen: another is chosen.
PROBE_NS_MAX = 1_000_000_000


class Batches:
    """Runs Gs of one P, and follows one at a time to see how long they wait."""

    __slots__ = (
        "_fresh",
        "_long_ns",
        "_ms",
        "_p",
        "_probe",
        "_probe_ns",
        "clock",
        "past_max",
    )

    def __init__(
        self,
        p: P,
        ms: Ms,
        fresh: FreshGs,
        clock: Callable[[], int] = time.monotonic_ns,
        long_ns: float = LONG_NS,
    ):
        self._p = p
        self._ms = ms
        self._fresh = fresh
        self._long_ns = long_ns
        #: When batches end, in ns.
        self.clock = clock
        #: How many Gs of the other kind may be set aside.
        self.past_max = PAST_MAX
        #: The G whose wait in the ring is being measured, and since when.
        self._probe: Any = None
        self._probe_ns = 0

    def run(self, m: M) -> bool:  # noqa: C901, PLR0915 - what everything runs through
        """Run Gs until none is left or it is time to poll. False when this M lost P in one of them.

        The first of a handful is picked by all of Go's rules; the others from ``runnext`` and ring
        alone, up to the next look at the global queue. Those for another M are set aside, in front.
        """
        p = self._p
        runq, fresh, aside = p.runq, self._fresh, p.aside
        popleft, ring = runq.ring.popleft, runq.ring
        end = (clock := self.clock)() + BATCH_NS
        watched, probe = is_instrumented(p), self._probe
        home, handful, ran, past_max = m is p.home, 0, 0, self.past_max
        while (not aside or self._look_past()) and (g := runq.get()) is not None:
            # Small at first: the Gs of this batch may be long, and each is given its own look.
            left = total = min(runq.unchecked(), handful)
            handful = min(2 * handful + 1, CLOCK_EVERY)
            inherited = 0
            while True:
                if g is probe:
                    probe = self._latency()
                kind = type(g)
                if home and kind is G and not watched:
                    child = g  # typed, where this is compiled
                    child._run()
                elif home and (kind is Task or kind is JobG or kind is G):
                    g._run() if not watched else run_instrumented(p, g)
                elif home and kind in FOLLOWED:
                    g._run()
                elif (place := getattr(g, "place", AWAY)) is not ANY and home is (place is AWAY):
                    aside.append(g)
                    if len(aside) >= past_max:
                        break
                else:
                    took = fresh.run(m, g) if place is not HOME else fresh.begin(g)
                    if took < 0:
                        runq.picked(total - left - inherited, inherited)
                        g = None  # the traceback of its error leads here: no cycle
                        return False
                    if took > self._long_ns:
                        break
                if left == 0:
                    break
                g = runq.runnext
                if g is not None:
                    runq.runnext = None
                    inherited += 1
                elif ring:
                    g = popleft()
                else:
                    break
                left -= 1
            runq.picked(total - left - inherited, inherited)
            ran += total - left + 1
            # At the tick that looks at the global queue a handful is one G: not all of a round.
            # Work for another M is worth a whole batch: P changes its M for it.
            waiting = home and not aside and (p.ready or p.inbox or p.p_callbacks.ready)
            if (waiting and ran >= CLOCK_EVERY) or p.loop._stopping or clock() > end:
                break
        self._end(home)
        return True

    def _look_past(self) -> bool:
        """Whether Gs behind those that were set aside may run before them: those of the ring, and
        few. In the global queue are those that yielded to them.
        """
        p = self._p
        runq = p.runq
        return (
            len(p.aside) < self.past_max
            and (runq.runnext is not None or bool(runq.ring))
            and (runq.unchecked() > 0 or not runq.global_)
        )

    def restore(self) -> None:
        """Gs that were set aside are next again, in their order."""
        p = self._p
        p.runq.ring.extendleft(reversed(p.aside))
        p.aside.clear()

    def _end(self, home: bool) -> None:
        p = self._p
        p.current = None
        if home:
            clear_current_task(p.loop)
        elif not p.is_visible:
            p.is_visible = True
            set_running_loop(p.loop)
        p.left = len(p.aside)
        if p.left:
            self._leave()
        runq = p.runq
        if p.preempt:  # sysmon: a chain of runnext has used up its slice
            p.preempt = False
            runq.kick_runnext()
        if runq.ring and (self._probe is None or self._probe_ns + PROBE_NS_MAX < p.polled_ns):
            self._probe = runq.ring[-1]
            self._probe_ns = time.monotonic_ns()

    def _leave(self) -> None:
        """Gs that were set aside return to the queue; plain Gs wait elsewhere while no M is left
        to run them.
        """
        p = self._p
        if p.owner is p.home and not self._ms.spare():
            p.stats.max_ms_waits += p.left
            p.deferred.extend(p.aside)
            p.aside.clear()
            p.left = 0
        else:
            self.restore()

    def _latency(self) -> Any:
        """The probe, once the last in the ring, is about to run."""
        waited = time.monotonic_ns() - self._probe_ns
        self._probe = None
        stats = self._p.stats
        stats.sched_latency[waited.bit_length()] += 1
        stats.sched_latency_sum_ns += waited
        return None
