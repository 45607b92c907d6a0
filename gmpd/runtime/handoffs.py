"""P's memory of hand-offs from Gs: how often and why, which functions block or hog, and
which of them may try again.

Called by sysmon's thread and by Ms, some of it under ``p.lock``. It does not decide which M gets P,
or when. Counterparts: ``m`` (the hand-off itself), ``sysmon`` (which takes P away), ``fresh``
(which starts Gs by these traits).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from gmpd.runtime.ring import TRAITS, Event, Kind
from gmpd.runtime.step import CoroG
from gmpd.sched.g import GEvent
from gmpd.sched.sysmon import SLICE_NS, Trait

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P

#: Native Gs that run beside each other in any case.
CORES_MIN = 2


class Handoffs:
    """The hand-offs of one P."""

    __slots__ = ("_p",)

    def __init__(self, p: P):
        self._p = p

    def on_retake(self, m: M, tick: int, trait: Trait, *, learn: bool = True) -> None:
        """Sysmon took P from ``m``; ``learn``: the hand-off counts for its function."""
        stats = self._p.stats
        if trait is Trait.HOG:
            stats.handoff_hog += 1
        else:
            stats.handoff_blocked += 1
            stats.blocked_ns += time.monotonic_ns() - m.start_ns
        g = m.g
        if (
            learn and g is not None and m.tick == tick
        ):  # in this order: it ends by counting up, then goes
            self._p.learned.found(g.fn_key, trait)

    def on_standby_took(self, m: M) -> None:
        """A standby M took P from ``m``: its G is known to block. ``p.lock`` is held."""
        self._p.stats.handoff_learned += 1

    def on_exitsyscall(self, m: M) -> None:
        """The G on ``m`` ended after it had lost P; was it worth it? ``p.lock`` is held.

        A standby M takes P whenever the G releases the GIL, be it for a microsecond: so time
        decides.
        """
        computes = m.trait is Trait.HOG or m.trait is Trait.NATIVE
        if not computes and (blocked := getattr(m.g, "blocked", None)) is not None:
            blocked(m.lost_ns)
        if m.trait is Trait.BLOCKED or m.trait is Trait.NATIVE:
            if time.monotonic_ns() - m.start_ns < SLICE_NS:
                self._p.learned.ended_in_time(m.g.fn_key)
            else:
                self._p.learned.found(m.g.fn_key, m.trait)

    def on_given_back(self, m: M) -> None:
        """The G on ``m`` has waited without P, and has it again. ``p.lock`` is held."""
        if (away := getattr(m.g, "was_away", None)) is not None:
            away(time.monotonic_ns() - m.lost_ns)

    def on_rejudged(self, m: M, tick: int, trait: Trait) -> None:
        """Sysmon looked again at a G that runs without P."""
        g = m.g
        if g is None or m.tick != tick or m.wait_reason:
            return
        if m.trait is not trait:
            m.trait = trait
            self._p.learned.found(g.fn_key, trait)
            if trait is not Trait.HOG and self._p.deferred:
                self._p.p_callbacks.threadsafe(requeue_deferred, self._p)

    def rivals(self, trait: Trait | None) -> int:
        """How many Gs without P one with this trait would compete with: hogs for the GIL; native
        ones for a core, once each has one.
        """
        if trait is Trait.HOG:
            return hogs(self._p)
        if trait is not Trait.NATIVE:
            return 0
        native = sum(m.trait is Trait.NATIVE for m in self._p.detached[:])
        return native if native >= max(CORES_MIN, len(os.sched_getaffinity(0))) else 0

    def on_handoffp(self, m: M) -> None:
        """P has left ``m``; the M that took it does not run yet. ``p.lock`` is held."""
        p, g = self._p, m.g
        tracer, ring = p.tracer, p.ring
        if ring is not None and g is not None:
            ring.add(handed_off(m, g))
        if tracer is not None and isinstance(g, CoroG):  # a child
            tracer(GEvent.SYSCALL_BEGIN, g, f"M{m.id}")


def handed_off(m: M, g: Any) -> Event:
    """P leaves ``m``, which continues with ``g``."""
    heir = 0 if m.p.owner is None else m.p.owner.id
    number = m.id | TRAITS[m.trait] << 24 | heir << 32
    return Kind.HANDOFF | number << 8, m.start_ns, time.monotonic_ns(), getattr(g, "token", 0)


def requeue_deferred(p: P) -> None:
    """Let fresh Gs that had to wait try again. P holder only."""
    if p.deferred:
        p.runq.ring.extendleft(reversed(p.deferred))
        p.deferred.clear()


def hogs(p: P) -> int:
    """How many Gs without P compete with it for the GIL. One that waits now does not."""
    return sum(m.trait is Trait.HOG and not m.wait_reason for m in p.detached[:])
