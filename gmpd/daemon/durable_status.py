"""The state of durable jobs for the status of the daemon: counts that the store makes.

The store is asked at most once a second, only when a status is asked for, and never before it was
opened. A status waits for the answer, but not long: then it shows the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gmpd.daemon.deadlines import Deadlines
from gmpd.sched.durable import Told
from gmpd.sched.stored import Answer, StoredState, StoreFailure, Surveyed

#: Counts are used for this long (s).
FRESH_S = 1.0
#: A status waits this long for new ones (ns): the store may wait for a slow disk.
LATE_NS = 500_000_000
#: Statuses that wait at a time.
WAITING_MAX = 64


class StoreSurvey:
    """``ask`` has the store make a ``Survey``."""

    def __init__(self, ask: Callable[[Told], None], deadlines: Deadlines) -> None:
        self._ask = ask
        self._deadline = deadlines.new(self._late)
        self._waiting: list[Callable[[], object]] = []
        self._is_asked = False
        self._fresh_until = 0.0
        self.last = Surveyed({}, (), 0)

    def refresh(self, then: Callable[[], object]) -> bool:
        """Call ``then`` once there are new counts; False: those that are there will do."""
        if time.monotonic() < self._fresh_until or len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(then)
        self._deadline.set(time.monotonic_ns() + LATE_NS)
        if not self._is_asked:
            self._is_asked = True
            self._ask(self._told)
        return True

    def _told(self, answer: Answer | StoreFailure) -> None:
        self._is_asked = False
        self._fresh_until = time.monotonic() + FRESH_S
        if isinstance(answer, Surveyed):
            self.last = answer
        self._release()

    def _late(self, _now: int) -> None:
        self._release()

    def _release(self) -> None:
        self._deadline.set(None)
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def jobs(self, running: int) -> dict[str, int]:
        """Jobs by state; the store does not know which of them run."""
        counts = {state.name.lower(): self.last.states.get(state, 0) for state in StoredState}
        waiting = counts.pop("leased") + counts["queued"]
        counts["running"] = min(running, waiting)
        counts["queued"] = waiting - counts["running"]
        return counts
