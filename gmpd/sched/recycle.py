"""Which worker is replaced next, though nothing is wrong with it: it is old, or large, or its code
is an old version.

**The tension.** A worker that is replaced costs no job and no capacity: its successor starts
first, and takes the P over when it is ready; what runs ends in the old worker. But two workers need
twice the memory of one, and a hundred that start at once need all cores. So one P is replaced at a
time.

**Rejected.** To end the old worker first: its P stands still while it has jobs, and for as long as
its successor imports. To end the jobs of a leaving worker after a while: a job may wait for hours,
rightly. To wait for them: such a job would hold all recycling back. So the next P waits for the
jobs of the last one for ``grace_ns`` only, and the number of leaving workers has a limit.

A successor that cannot start changes nothing: the old worker serves on. A reload ends at the first
such failure, as its new code would fail everywhere; other reasons are tried again, ever later.

Time is given; jitter is the shell's.
"""

from __future__ import annotations

from enum import Enum

#: The pause after a successor that did not start; it doubles up to the second.
PAUSE_MIN_NS = 1_000_000_000
PAUSE_MAX_NS = 300_000_000_000


class Reason(Enum):
    """Why a worker is replaced."""

    JOBS = "jobs"
    MEMORY = "memory"
    AGE = "age"
    RELOAD = "reload"
    #: ``gmpd serve --watch``: its successor does not start before it leaves.
    WATCH = "watch"


class Recycles:
    """Ps that want another worker. ``leaving_max``: workers that may be leaving at once."""

    def __init__(self, grace_ns: int, leaving_max: int) -> None:
        self.grace_ns = grace_ns
        self.leaving_max = leaving_max
        #: In the order in which they asked.
        self.wanted: dict[int, Reason] = {}
        #: The P whose successor starts, or whose former worker is waited for.
        self.current: int | None = None
        self.reason = Reason.RELOAD
        #: The former worker of ``current`` is not waited for after this; None: its successor
        #: starts.
        self._until: int | None = None
        self._pause_until = 0
        self._failures = 0
        #: Why the last successor did not start; empty: it did.
        self.problem = ""
        self.is_full = False

    def want(self, p: int, reason: Reason) -> None:
        """The worker of P ``p`` is to be replaced. A reload goes before other reasons."""
        if reason is Reason.RELOAD:
            self.wanted.pop(p, None)
            self._pause_until = 0
        self.wanted.setdefault(p, reason)

    def next(self, now: int, leaving: int) -> tuple[int, Reason] | None:
        """The P whose successor is to start now."""
        self.is_full = bool(self.wanted) and leaving >= self.leaving_max
        if self.current is not None and (self._until is None or now < self._until):
            return None
        self.current = None
        if not self.wanted or self.is_full or now < self._pause_until:
            return None
        p = next((p for p, why in self.wanted.items() if why is Reason.RELOAD), None)
        p = next(iter(self.wanted)) if p is None else p
        self.current, self.reason, self._until = p, self.wanted.pop(p), None
        return p, self.reason

    def succeeded(self, p: int, now: int) -> None:
        """The successor serves; the former worker ends its jobs."""
        if p == self.current:
            self._until = now + self.grace_ns
            self._failures, self.problem = 0, ""

    def left(self, p: int) -> None:
        """A former worker of P ``p`` has ended."""
        if p == self.current and self._until is not None:
            self.current = None

    def failed(self, p: int, why: str, now: int) -> bool:
        """The successor did not start; the worker before it serves on. Whether that ends a
        reload."""
        self.problem = why
        if p != self.current:
            return False
        self.current = None
        if self.reason is Reason.RELOAD:
            self.wanted = {p: each for p, each in self.wanted.items() if each is not Reason.RELOAD}
            return True
        self._pause_until = now + min(PAUSE_MAX_NS, PAUSE_MIN_NS << min(self._failures, 30))
        self._failures += 1
        self.wanted.setdefault(p, self.reason)
        return False

    def forget(self, p: int) -> None:
        """The worker of P ``p`` has died, or the P is no more: the next one is new."""
        self.wanted.pop(p, None)
        if p == self.current:
            self.current = None

    @property
    def reloading(self) -> int:
        """Ps whose reload is not over: their successors do not serve yet."""
        waits = sum(reason is Reason.RELOAD for reason in self.wanted.values())
        starts = self.current is not None and self._until is None
        return waits + (starts and self.reason is Reason.RELOAD)

    def next_due(self) -> int | None:
        """When ``next`` may give another P though nothing happens until then."""
        if not self.wanted or self.is_full:
            return None
        if self.current is not None:
            return self._until
        return self._pause_until
