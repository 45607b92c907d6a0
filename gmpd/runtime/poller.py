"""P's waits between two batches: for sockets, timers, and wake-ups by other threads.

One wait serves all three: the loop's selector, until the next timer is due. asyncio's timers are in
the heap that asyncio keeps, sleeping Gs in one of their own (``sleepers``). It runs no G and no
callback: it makes them ready. Only the M that holds P calls this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heapify, heappop
from time import sleep as nap
from typing import TYPE_CHECKING, Any

from gmpd.errors import Deadlock
from gmpd.runtime.gil_poll import make_gil_poll
from gmpd.runtime.m import tell_late
from gmpd.runtime.p_callbacks import PTimer
from gmpd.runtime.ring import IDLE
from gmpd.runtime.stacks import deadlock_text
from gmpd.timeouts import wait_s

if TYPE_CHECKING:
    from gmpd.runtime.m import Ms
    from gmpd.runtime.p import M, P
    from gmpd.runtime.sysmon import Sysmon

#: Sockets are polled at most this often while Gs are ready (Go polls every 10 ms while every P is
#: busy). A poll that finds something releases the GIL, and wakes sysmon if that waits for it.
POLL_NS = 1_000_000
#: While other threads run in this process, a busy P hands the GIL over at least this often: between
#: two of its polls it may have been released for microseconds only, by a user's socket or file.
SHARE_NS = 3_000_000
#: P sleeps for this long, in seconds, and the kernel's timer slack (50 us): enough for a thread on
#: another core to wake and take the GIL.
NAP_S = 5e-6
#: Fewer cancelled timers than this are left to come up by themselves (asyncio's own limit).
SWEEP_MIN = 100


class Poller:
    """The netpoller and the timers of one P."""

    __slots__ = ("_gil_poll", "_gil_poll_of", "_ms", "_p", "_shared_ns", "_sysmon", "_was_late")

    def __init__(self, p: P, ms: Ms, sysmon: Sysmon):
        self._p = p
        self._ms = ms
        self._sysmon = sysmon
        #: Tells whether the selector that was peeked at has events, without releasing the GIL.
        self._gil_poll: Callable[[], int] | None = None
        self._gil_poll_of: Any = None
        #: When P last released the GIL long enough for a waiting thread to get it.
        self._shared_ns = 0
        #: The last wait ended by an exception for a G that had ended.
        self._was_late = False

    def timeout(self) -> float | None:
        """Seconds that P may sleep in select; None: until it is woken. Drops cancelled timers on
        the way.
        """
        p = self._p
        if p.loop._timer_cancelled_count > SWEEP_MIN:
            self._sweep_timers()
        if p.ready or p.p_callbacks.ready or p.loop._stopping or p.runq or p.inbox:
            return 0
        when = self.next_timer()
        return None if when is None else wait_s(when - p.loop.time())

    def look(self) -> None:
        """A socket is ready: poll again if the last poll was long ago."""
        p = self._p
        now = time.monotonic_ns()
        if not p.runq or now - p.polled_ns > POLL_NS:
            self._poll(now)

    def _poll(self, now: int) -> None:
        p = self._p
        p.polled_ns = now
        self._netpoll(0)
        if p.ring is not None:
            p.to_follow = p.ring.settle(now)
        if p.on_poll is not None:
            p.on_poll(now)
        if now - self._shared_ns > SHARE_NS:
            self._shared_ns = now
            if self._ms.others():
                nap(NAP_S)

    def idle(self, timeout: float | None, m: M | None) -> None:
        """Nothing is ready: wait for a socket, the next timer, or a wake-up from another thread."""
        p = self._p
        if timeout is None and p.checkdead is not None and p.checkdead(p):
            p.checkdead = None  # once: the end of the program may wait again
            raise Deadlock(deadlock_text(p))
        slots, stats = p.status_slots, p.stats
        p.is_idle = True
        if p.on_poll is not None:
            p.on_poll(0)
        slots[0] = p.rounds << 1 | 1
        slots[1] = start = time.monotonic_ns()
        # Work queued before is_idle was set has not woken us; poll without blocking.
        came = p.inbox or p.ready or p.p_callbacks.ready or p.runq
        try:
            self._netpoll(0 if came else timeout)
        except BaseException as exc:
            if m is None or m is p.m0 or not p.is_worker or self._was_late:
                raise  # two in a row are an error of the poll itself
            tell_late(exc)  # as in a parked thread; the next poll finds the sockets as they are
            self._was_late = True
        else:
            self._was_late = False
        p.polled_ns = self._shared_ns = now = time.monotonic_ns()
        stats.idle_ns += now - start
        slots[2] = stats.idle_ns
        slots[1] = 0
        p.is_idle = False
        if p.ring is not None:
            p.ring.add((IDLE, start, now, 0))
            p.to_follow = p.ring.settle(now)
        if self._sysmon.asleep and m is not None:
            self._sysmon.wake()

    def _netpoll(self, timeout: float | None) -> None:
        p = self._p
        selector = p.loop._selector
        if timeout == 0:
            if selector is not self._gil_poll_of:  # the first time, or a test has put in its own
                self._gil_poll_of, self._gil_poll = selector, make_gil_poll(selector)
            if self._gil_poll is not None and self._gil_poll() == 0:
                return
        found = selector.select(timeout)
        if found:
            p.stats.poller += len(found)
            p.loop._process_events(found)

    def next_timer(self) -> float | None:
        """When the next timer or sleeper is due, on the loop's clock; drops cancelled ones."""
        p = self._p
        scheduled = p.loop._scheduled
        while scheduled and scheduled[0]._cancelled:
            p.loop._timer_cancelled_count -= 1
            heappop(scheduled)._scheduled = False
        sleeper = p.sleepers.next() if p.sleepers else None
        if not scheduled:
            return sleeper
        when = float(scheduled[0]._when)
        return when if sleeper is None else min(when, sleeper)

    def _sweep_timers(self) -> None:
        """Forget cancelled timers when they are more than a quarter (Go: ``timers.adjust``)."""
        p = self._p
        scheduled = p.loop._scheduled
        if p.loop._timer_cancelled_count * 4 <= len(scheduled):
            return
        alive = []
        for handle in scheduled:
            if handle._cancelled:
                handle._scheduled = False
            else:
                alive.append(handle)
        heapify(alive)
        scheduled[:] = alive
        p.loop._timer_cancelled_count = 0

    def wake_due(self) -> None:
        """Make ready whose time has come: timers of asyncio, and sleeping Gs."""
        p = self._p
        end = p.loop.time() + p.loop._clock_resolution
        scheduled, stats = p.loop._scheduled, p.stats
        while scheduled and scheduled[0]._when < end:
            handle = heappop(scheduled)
            handle._scheduled = False
            (p.p_callbacks.ready if handle.__class__ is PTimer else p.ready).append(handle)
            stats.timer += 1
        if p.sleepers:
            stats.timer += p.sleepers.wake(end)
