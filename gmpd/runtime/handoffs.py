"""P's memory of hand-offs from Gs: how often and why, which functions block or hog, and
who may try again.

Called by sysmon's thread and by Ms, some of it under ``ms.lock``. Who gets P, and when, is not
decided here. Counterparts: ``m`` (the hand-off itself), ``sysmon`` (who takes P away), ``fresh``
(which obeys what is learned).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gmpd.runtime.steps import leave_fork
from gmpd.runtime.syncg import SyncG
from gmpd.sched.g import GEvent
from gmpd.sched.sysmon import SLICE_NS, Learned, Trait

if TYPE_CHECKING:
    from gmpd.runtime.loop import Loop
    from gmpd.runtime.m import M

#: So many native Gs run beside each other in any case.
CORES_MIN = 2


class Handoffs:
    """The hand-offs of one P."""

    __slots__ = ("_loop", "learned")

    def __init__(self, loop: Loop):
        self._loop = loop
        #: Learned traits of the functions of sync Gs.
        self.learned = Learned()

    def on_entersyscall(self, m: M) -> None:
        """The sync G on ``m`` is about to block: hand P off now (Go: ``entersyscallblock``)."""
        loop = self._loop
        if loop.forked:  # no thread is there to take P, nor to end the wait
            leave_fork(1)
        if loop.ms.owner is m and loop.ms.handoff(m, m.tick, None):
            loop.stats.handoff_known += 1

    def on_retake(self, m: M, tick: int, trait: Trait, *, learn: bool = True) -> None:
        """Sysmon took P from ``m``; ``learn``: what it does says something of its function."""
        stats = self._loop.stats
        if trait is Trait.HOG:
            stats.handoff_hog += 1
        else:
            stats.handoff_blocked += 1
            stats.blocked_ns += time.monotonic_ns() - m.start_ns
        g = m.g
        if (
            learn and g is not None and m.tick == tick
        ):  # in this order: it ends by counting up, then goes
            self.learned.found(g.fn_key, trait)

    def on_standby_took(self, m: M) -> None:
        """A standby M took P from ``m``: its G is known to block. ``ms.lock`` is held."""
        self._loop.stats.handoff_learned += 1

    def on_exitsyscall(self, m: M) -> None:
        """The G on ``m`` ended after it had lost P; was it worth it? ``ms.lock`` is held.

        A standby M takes P whenever the G lets go of the GIL, be it for a microsecond: so time
        decides.
        """
        if m.trait is Trait.BLOCKED or m.trait is Trait.NATIVE:
            if time.monotonic_ns() - m.start_ns < SLICE_NS:
                self.learned.ended_in_time(m.g.fn_key)
            else:
                self.learned.found(m.g.fn_key, m.trait)

    def on_rejudged(self, m: M, tick: int, trait: Trait) -> None:
        """Sysmon looked again at a G that runs without P."""
        g = m.g
        if g is None or m.tick != tick or m.wait_reason:
            return
        if m.trait is not trait:
            m.trait = trait
            self.learned.found(g.fn_key, trait)
            if trait is not Trait.HOG:
                self._loop.fresh.requeue_deferred_soon()

    def on_wait_done(self, _m: M, wake: Callable[[], None]) -> None:
        """The wait for which the sync G on ``_m`` gave P away is over: it goes on, beside P."""
        wake()

    def hogs(self) -> int:
        """How many Gs without P compete with it for the GIL. One that waits now does not."""
        return sum(m.trait is Trait.HOG and not m.wait_reason for m in self._loop.ms.detached[:])

    def rivals(self, trait: Trait | None) -> int:
        """How many Gs without P one with this trait would compete with: hogs for the GIL; native
        ones for a core, once each has one.
        """
        if trait is Trait.HOG:
            return self.hogs()
        if trait is not Trait.NATIVE:
            return 0
        native = sum(m.trait is Trait.NATIVE for m in self._loop.ms.detached[:])
        return native if native >= max(CORES_MIN, len(os.sched_getaffinity(0))) else 0

    def on_handoffp(self, m: M) -> None:
        """P has left ``m``; the M that took it does not run yet. ``ms.lock`` is held."""
        tracer, g = self._loop.tracer, m.g
        if tracer is not None and g.__class__ is SyncG:
            tracer(GEvent.SYSCALL_BEGIN, g, f"M{m.id}")
