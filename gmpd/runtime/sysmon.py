"""The sysmon thread: looks at the M that holds P, and takes P away from a G that keeps it too long.

It sleeps without a timer while P is idle and no G runs without P, so an idle worker has no periodic
wake-ups. Its decisions are in ``gmpd.sched.sysmon``; here are the clock, the thread and the acts.
It never runs user code.
"""

from __future__ import annotations

import resource
import signal
import threading
import time
from _thread import allocate_lock, get_ident
from typing import TYPE_CHECKING

from gmpd.runtime.frames import frame_of
from gmpd.runtime.handoffs import hogs
from gmpd.runtime.m import COMPUTING
from gmpd.runtime.overrun import is_import
from gmpd.runtime.p import ThreadGone
from gmpd.runtime.switch_interval import SWITCH_INTERVAL
from gmpd.runtime.turns import Turns
from gmpd.sched.sysmon import (
    BURNT_NS,
    LOOK_NS,
    SLICE_NS,
    Trait,
    is_blocked,
    is_native,
    judge,
    relook_ns,
)

if TYPE_CHECKING:
    from gmpd.runtime.handoffs import Handoffs
    from gmpd.runtime.m import Ms
    from gmpd.runtime.overrun import Overruns
    from gmpd.runtime.p import M, P

#: Signals that this thread never gets: all but those of its own faults.
_DEAF_TO = frozenset(signal.valid_signals()) - {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGTRAP,
}


def _sleeps() -> int:
    """How often the calling thread has given up its core to wait (voluntary context switches)."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Look:
    """Sysmon's view of one M: the G of that tick had used ``cpu_ns`` at ``at_ns``."""

    __slots__ = ("at_ns", "cpu_ns", "due_ns", "interval_ns", "m", "seen", "tick", "waited_ns")

    def __init__(self, m: M, now: int):
        self.m = m
        self.tick = m.tick
        self.at_ns = now
        self.cpu_ns = m.cpu_ns()
        #: In the kernel's run queue; asked for only when it looks blocked.
        self.waited_ns = 0
        #: How often sysmon had woken, and had slept for the GIL then; None before it was found to
        #: compute.
        self.seen: tuple[int, int] | None = None
        self.interval_ns = SLICE_NS
        self.due_ns = now + SLICE_NS

    def again(self, now: int, passes: int, waits: int) -> Trait | None:
        """Its activity since the last look, which this one replaces; None: that did not show.

        Without a CPU it did not compute, but on a busy machine that is not to be blocked.
        """
        cpu_ns = self.m.cpu_ns()
        wall_ns, ran_ns = now - self.at_ns, cpu_ns - self.cpu_ns
        self.at_ns, self.cpu_ns = now, cpu_ns
        trait = judge(ran_ns, wall_ns)
        if trait is Trait.HOG:
            return self._computes(passes, waits)
        if trait is None:
            return None
        self.seen = None
        waited_ns, runnable = self.m.queued()
        queued_ns, self.waited_ns = waited_ns - self.waited_ns, waited_ns
        return trait if is_blocked(ran_ns, queued_ns, wall_ns, runnable=runnable) else None

    def _computes(self, passes: int, waits: int) -> Trait | None:
        """With the GIL, as a G that has just lost P to a slice, or without it; None: as before.

        The holder of the GIL is unknown: beside hogs, a native call is not judged again.
        """
        before, self.seen = self.seen, (passes, waits)
        trait = self.m.trait
        native = None
        if before is not None:
            native = is_native(waits - before[1], passes - before[0])
        if native:
            return Trait.NATIVE
        if trait is Trait.NATIVE and (native is None or hogs(self.m.p)):
            return None
        return Trait.HOG

    def restart(self, now: int) -> None:
        """It was parked: its clock since the last look means nothing."""
        self.at_ns, self.cpu_ns = now, self.m.cpu_ns()
        self.seen = None
        self.due_ns = now + SLICE_NS

    def is_current(self) -> bool:
        return self.m.g is not None and self.m.tick == self.tick


class Sysmon:
    """Go's sysmon for one P."""

    def __init__(self, p: P, ms: Ms, handoffs: Handoffs, overruns: Overruns):
        self._p = p
        self._ms = ms
        self._handoffs = handoffs
        self._overruns = overruns
        self._turns = Turns(p)
        self._note = allocate_lock()
        self._note.acquire()
        #: Nothing to watch: the next time P leaves idle it must call ``wake``.
        self.asleep = True
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._look: Look | None = None
        self._detached: list[Look] = []
        #: (schedtick, since when, picks from runnext then): a chain of runnext counts as one slice.
        self._slice = -1, 0, 0
        #: (what P ran, since when, CPU time then); 0: already counted.
        self._step: tuple[object, int, int] | None = None
        #: That step computes little: (when seen, CPU time then, time in the kernel's queue then).
        self._stall: tuple[int, int, int] | None = None
        self._idle_passes = 0
        #: How often it looked: stands still while the worker is idle.
        self.passes = 0
        #: How often it had to wait for the GIL after a pause.
        self._waits = 0

    @property
    def thread(self) -> threading.Thread | None:
        """None before there was anything to watch."""
        return self._thread

    def wake(self) -> None:
        """P leaves idle. Only the M that holds P calls this, when it sees ``asleep``."""
        self.asleep = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gmpd-sysmon", daemon=True)
            self._thread.start()
        else:
            self._note.release()

    def stop(self) -> None:
        """End the thread and wait for it."""
        if self._thread is None or self._stopped:
            return
        self._stopped = True
        if self._note.locked():
            self._note.release()
        self._thread.join()

    def _run(self) -> None:
        # A program that blocks a signal to wait for it (``sigwait``) knows nothing of this thread:
        # the kernel would send it here, and its default would end the process.
        self._p.sysmon_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
        self._p.sysmon_ident = get_ident()
        try:
            self._watch()
        finally:
            self._turns.close()
            SWITCH_INTERVAL.set_hogs(id(self), 0)

    def _watch(self) -> None:
        while not self._stopped:
            now = time.monotonic_ns()
            self.passes += 1
            self._p.status_slots[3] = self.passes
            try:
                pause_ns = min(self._retake(now), self._relook(now))
                if self._p.detached or self._p.turns:
                    self._turns.look(now)
            except ThreadGone as gone:
                if self._p.on_gone is not None:
                    self._p.on_gone(gone.m)
                raise
            running = self._turns.running() if self._p.detached else 0
            SWITCH_INTERVAL.set_hogs(id(self), running)
            if self._p.is_idle:
                self._idle_passes += 1
            else:
                self._idle_passes = 0
            if self._idle_passes > 1 and not self._detached and not self._p.detached:
                self._sleep_deeply()
            else:
                self._pause(pause_ns)

    def _pause(self, pause_ns: int) -> None:
        """Sleep for that time, and see whether the GIL was there to be had afterwards: that takes a
        sleep of its own if not.
        """
        before = _sleeps()
        self._note.acquire(timeout=pause_ns / 1e9)
        waited = _sleeps() - before > 1
        self._waits += waited
        self._turns.contention.add(waited)

    def _sleep_deeply(self) -> None:
        self._look = None
        self._idle_passes = 0
        self.asleep = True
        # P may have left idle between the last look and this line, and have seen us awake.
        if self._p.is_idle and not self._stopped:
            self._note.acquire()
        self.asleep = False

    def _retake(self, now: int) -> int:
        """Hand P off if the G that runs with it has used up its slice; ns until the next look (Go:
        ``retake``).
        """
        m = self._p.owner
        if m is None or m.g is None:
            self._look = None
            return SLICE_NS if m is None else self._overrun(m, now)
        look = self._look
        if look is None or look.m is not m or look.tick != m.tick:
            look = self._look = Look(m, now)
        left = m.start_ns + SLICE_NS - now
        if left > 0:
            return left
        trait = judge(look.m.cpu_ns() - look.cpu_ns, now - look.at_ns)
        if trait is None:
            return look.at_ns + LOOK_NS - now + 1
        if trait is Trait.BLOCKED and m.queued()[1]:  # it waits for a CPU: see what it does then
            self._look = Look(m, now)
            return LOOK_NS + 1
        if self._ms.handoff(m, look.tick, trait):
            imports = trait is Trait.HOG and is_import(frame_of(m))
            self._handoffs.on_retake(m, look.tick, trait, learn=not imports)
            look.due_ns = now + SLICE_NS
            self._detached.append(look)
        self._look = None
        return SLICE_NS

    def _overrun(self, m: M, now: int) -> int:
        """P runs callbacks or async Gs. It is never taken from them; one that runs a whole slice is
        named. Ns until the next look.
        """
        runq = self._p.runq
        tick, since, inherited = self._slice
        if tick != runq.schedtick:
            self._slice = runq.schedtick, now, runq.inherited
        elif now - since >= SLICE_NS and runq.inherited != inherited:
            self._p.preempt = True
        step = self._overruns.step()
        seen = self._step
        if seen is None or seen[0] != step:
            self._step = step, now, m.cpu_ns()
            self._stall = None
        elif seen[1] and now - seen[1] >= SLICE_NS and not self._p.is_idle:
            if m.cpu_ns() - seen[2] < BURNT_NS:
                if hogs(self._p):  # beside a hog P may only have waited for the GIL
                    return SLICE_NS
                first = self._stall is None
                if not self._stalled(m, now):
                    return LOOK_NS + 1 if first else SLICE_NS
                if self._overruns.step() != step:  # it ended while we looked without the GIL
                    return SLICE_NS
            self._step = step, 0, 0  # counted once, however long it continues
            self._overruns.report(m)
        return SLICE_NS

    def _stalled(self, m: M, now: int) -> bool:
        """Whether the thread has been blocked since the look before; False at the first."""
        cpu_ns = m.cpu_ns()
        waited_ns, runnable = m.queued()
        before, self._stall = self._stall, (now, cpu_ns, waited_ns)
        if before is None:
            return False
        at, cpu_then, waited_then = before
        return is_blocked(cpu_ns - cpu_then, waited_ns - waited_then, now - at, runnable=runnable)

    def _relook(self, now: int) -> int:
        """A G without P may turn from blocked to hog and back: look again, ever less often.

        Gs that gave P away themselves, or lost it to a standby M, are first seen here.
        """
        looks = self._detached = [look for look in self._detached if look.is_current()]
        if len(looks) < len(self._p.detached):
            known = {look.m for look in looks}
            looks.extend(Look(m, now) for m in self._p.detached[:] if m not in known)
        for look in looks:
            if self._turns.was_parked(look.m, look.at_ns):
                look.restart(now)
            elif look.due_ns <= now:
                trait = look.again(now, self.passes, self._waits)
                look.interval_ns = relook_ns(look.interval_ns)
                look.due_ns = now + look.interval_ns
                if trait is not None:
                    self._handoffs.on_rejudged(look.m, look.tick, trait)
        if self._p.is_idle and looks and not any(look.m.trait in COMPUTING for look in looks):
            return max(min(look.due_ns for look in looks) - now, LOOK_NS)
        return SLICE_NS
