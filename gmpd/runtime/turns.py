"""Parks the hogs of a P, and lets them run in turns; decided by ``gmpd.sched.turns``.

Sysmon's thread asks a hog to stop (``stops``). The hog parks itself in its own code, on a lock, and
wakes the one whose turn is next. It is left alone where it may hold a lock of gmpd or the standard
library; one that waits, is in C code, or does not stop for another reason is no obstacle: the next
one runs beside it.

A job that is to end (its time is over, it was cancelled) runs at once. No hog is parked for ever:
sysmon wakes it, and after ``PARK_S_MAX`` it continues by itself.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from _thread import LockType, allocate_lock, get_ident
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from gmpd.runtime.handoffs import hogs
from gmpd.runtime.stops import Stopper, Unavailable, may_stop_in
from gmpd.sched.sysmon import BUSY_SHARE, LOOK_NS, SLICE_NS, Trait
from gmpd.sched.turns import Contention, choose

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P

log = logging.getLogger(__name__)

#: A parked hog continues by itself after this time: sysmon's thread may have ended, or wait for a
#: lock that the hog holds.
PARK_S_MAX: Final = 1.0
#: A request to stop lasts a slice if the GIL is free at times, as it is then beside C code; else as
#: long as it may take the hog to get a core.
ASKED_NS_MAX: Final = 5 * SLICE_NS
#: A hog that may hold a lock at this many places in a row continues.
REFUSALS_MAX: Final = 100
#: A hog that did not stop when it was asked, or that is to end, is not asked again for this long.
REST_NS: Final = 100_000_000

#: Hogs that were asked to stop, and the locks on which hogs are parked, by thread. A key is removed
#: in one step, by the thread that acts on it.
_asked: dict[int, Turn] = {}
_parked: dict[int, LockType] = {}


class Turn:
    """One hog among those of its P (``gmpd.sched.turns.Hog``)."""

    __slots__ = (
        "_at_ns",
        "_busy",
        "_cpu_ns",
        "asked_ns",
        "computes",
        "heir",
        "m",
        "parked_ns",
        "refusals",
        "rest_ns",
        "since_ns",
        "tick",
    )

    def __init__(self, m: M, now: int):
        self.m = m
        self.tick = m.tick
        self.parked_ns = 0
        self.rest_ns = 0
        #: When it was asked to stop, the last time.
        self.asked_ns = 0
        #: The number of places where it did not, as it may hold a lock there.
        self.refusals = 0
        #: The one to be woken when this one parks.
        self.heir: Turn | None = None
        self._cpu_ns = 0
        self._begin(now)

    def _begin(self, now: int) -> None:
        self.since_ns = self._at_ns = now
        self._cpu_ns = self.m.cpu_ns()
        self.computes = self._busy = True

    def observe(self, now: int) -> None:
        """See whether it computes. It does unless two looks say otherwise: it may wait for a
        core.
        """
        wall_ns = now - self._at_ns
        if self.parked_ns or wall_ns < LOOK_NS:
            return
        cpu_ns = self.m.cpu_ns()
        busy = (cpu_ns - self._cpu_ns) * BUSY_SHARE >= wall_ns
        self._at_ns, self._cpu_ns = now, cpu_ns
        self.computes, self._busy = busy or self._busy, busy

    def is_current(self) -> bool:
        """Whether its G still runs without P."""
        m = self.m
        return m.tick == self.tick and m.g is not None and m.p.owner is not m

    def park(self) -> None:
        """Wait for the next turn. The thread of the hog calls this, in its own code; an interrupt
        of its job may be raised in here.
        """
        lock = allocate_lock()  # a new one: this one may be released when nothing waits any more
        lock.acquire()
        ident = self.m.ident
        try:
            self.parked_ns = time.monotonic_ns()
            _parked[ident] = lock
            heir, self.heir = self.heir, None
            if heir is not None:
                heir.wake()
            lock.acquire(timeout=PARK_S_MAX)
        finally:
            _parked.pop(ident, None)
            self._begin(time.monotonic_ns())
            self.parked_ns = 0

    def wake(self) -> None:
        """Its turn begins. Any thread may call this."""
        lock = _parked.pop(self.m.ident, None)
        if lock is not None:
            lock.release()

    def let_go(self) -> None:
        """It is to run at once, and for a while."""
        self.rest_ns = time.monotonic_ns() + REST_NS
        _asked.pop(self.m.ident, None)
        self.wake()


class Turns:
    """The turns of the hogs of one P. Sysmon's thread calls this."""

    def __init__(self, p: P):
        self._p = p
        self.contention = Contention()

    def look(self, now: int) -> None:
        """Park and wake hogs. They are looked at in every pass while there is one."""
        turns = self._update(now)
        pending = [turn for turn in turns if turn.m.ident in _asked]
        patience_ns = SLICE_NS if self.contention.misses else ASKED_NS_MAX
        if any(now - turn.asked_ns < patience_ns for turn in pending):
            return
        for turn in pending:
            self._end_request(turn, now)
        for turn in turns:
            turn.observe(now)
        park, wake = choose(turns, self.contention.misses, now)
        if park is not None:
            self._request(park, wake, now)
        elif wake is not None:
            wake.wake()

    def _request(self, turn: Turn, heir: Turn | None, now: int) -> None:
        stopper = _stopper()
        if stopper is None:
            return
        turn.heir = heir
        turn.asked_ns = now
        turn.refusals = 0
        _asked[turn.m.ident] = turn
        stopper.ask(turn.m)

    def _update(self, now: int) -> list[Turn]:
        """The hogs there are now."""
        p = self._p
        known = {turn.m: turn for turn in p.turns if turn.is_current()}
        gone = [turn for turn in p.turns if turn.m not in known]
        ms = [m for m in p.detached[:] if m.trait is Trait.HOG and not m.wait_reason]
        p.turns = turns = [known.pop(m) if m in known else Turn(m, now) for m in ms]
        for turn in [*gone, *known.values()]:
            self._end_request(turn, now)
            turn.wake()
        return turns

    def _end_request(self, turn: Turn, now: int) -> None:
        """It was not heard, or need not be any more."""
        stopper = _stopper.made
        if _asked.pop(turn.m.ident, None) is None or stopper is None:
            return
        turn.heir = None
        turn.rest_ns = now + REST_NS
        stopper.withdraw(turn.m)

    def running(self) -> int:
        """How many hogs are not parked."""
        parked: list[Turn] = [turn for turn in self._p.turns if turn.parked_ns]
        return hogs(self._p) - len(parked)

    def was_parked(self, m: M, since_ns: int) -> bool:
        """Whether its hog is parked, or was since then: its CPU clock says nothing."""
        return any(
            turn.m is m and (turn.parked_ns or turn.since_ns > since_ns) for turn in self._p.turns
        )

    def close(self) -> None:
        """There are no turns any more: all run."""
        turns, self._p.turns = self._p.turns, []
        for turn in turns:
            self._end_request(turn, 0)
            turn.wake()


class _TheStopper:
    """Made when it is first needed; the process has one, or None."""

    def __init__(self) -> None:
        self.made: Stopper | None = None
        self._tried = False

    def __call__(self) -> Stopper | None:
        if not self._tried:
            self._tried = True
            try:
                self.made = _make_stopper()
            except Unavailable as exc:
                log.warning("hogs do not run in turns, so P waits longer for the GIL: %s", exc)
        return self.made


def _make_stopper() -> Stopper:
    if sys.version_info >= (3, 12):
        from gmpd.runtime.monitoring import MonitoringStopper

        return MonitoringStopper(_on_stop)
    from gmpd.runtime.tracing import TracingStopper

    return TracingStopper(_on_stop)


_stopper = _TheStopper()


def _on_stop(frame: FrameType) -> bool:
    """A thread has come to a place where it can stop: one that was asked to, or any other. Whether
    it is to stop at another place.
    """
    ident = get_ident()
    turn = _asked.get(ident)
    if turn is None:
        return False
    may_park = turn.is_current() and may_stop_in(frame)
    if not may_park:
        turn.refusals += 1
        if turn.refusals < REFUSALS_MAX:
            return True
    if _asked.pop(ident, None) is None:  # taken back meanwhile
        return False
    stopper = _stopper.made
    if stopper is not None:
        stopper.withdraw(turn.m)
    if may_park:
        turn.park()
    return False


def let_go(p: P, g: Any) -> None:
    """G is to end: if it is a parked hog, it runs at once. Any thread may call this."""
    for turn in p.turns[:]:
        if turn.m.g is g:
            turn.let_go()


def is_parked(m: M) -> bool:
    """Whether the G on ``m`` waits for its turn."""
    return m.ident in _parked


def _in_fork() -> None:
    """Only the thread that forked is here, and runs."""
    asked = list(_asked.values())
    _asked.clear()
    _parked.clear()
    if _stopper.made is not None:
        for turn in asked:
            _stopper.made.withdraw(turn.m)


os.register_at_fork(after_in_child=_in_fork)
