"""When a dead worker gets a successor: always, at once or after a pause.

The pause depends on when the death happened, never on an exit code: user code can end its process
with any status, by any signal, at any moment.

- *A known job ended it.* That counts against the job's function (``suspects``), not against the
  next worker, which starts at once.
- *It was serving*, and no job is known to be the cause: it was killed from outside, or by a thread
  that a job left behind. If it had finished any job, a successor starts at once; otherwise after
  pauses that grow with such deaths in a row. Many of them within ``storm_ns`` are a storm.
- *It never served*: an import failed, the system refused a process, it hung. The next one probably
  fails alike, so pauses grow from the second time on.

The last two make the daemon *degraded*, which is shown, slows restarts, and ends when a worker
serves again or the storm is over. Only when no P can get a worker at all are waiting jobs refused,
with the reason (``hopeless``); restarts continue all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

#: Starts in a row that failed: until then it may be a race (a module that is being installed).
FAULTS_MAX = 3


class Death(Enum):
    """The facts about a worker at its death."""

    #: It never said that it is ready.
    UNBEGUN = "unbegun"
    #: It served, and a job is blamed.
    OF_JOB = "of a job"
    #: It served, and no job is blamed.
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class RestartPolicy:
    """Times in ns; more than ``storm_deaths`` unexplained within ``storm_ns`` are a storm."""

    backoff_min_ns: int = 100_000_000
    backoff_max_ns: int = 10_000_000_000
    storm_deaths: int = 10
    storm_ns: int = 60_000_000_000


class Restarts:
    """The memory of deaths; one for all Ps."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        #: Starts in a row that failed, and why the last one did.
        self._unbegun: dict[int, tuple[int, str]] = {}
        #: Unexplained deaths in a row of workers that had finished nothing.
        self._fruitless: dict[int, int] = {}
        #: When unexplained deaths happened, within the storm window.
        self._deaths: deque[int] = deque()
        self._last = ""

    def serves(self, p: int) -> None:
        """A worker of P ``p`` is ready."""
        self._unbegun.pop(p, None)

    def died(self, p: int, death: Death, why: str, now: int, *, finished: int = 0) -> int:
        """When to start P ``p`` again. ``finished``: jobs that the dead worker had ended."""
        match death:
            case Death.UNBEGUN:
                row = self._unbegun.get(p, (0, ""))[0] + 1
                self._unbegun[p] = row, why
                return now + self._pause(row)
            case Death.OF_JOB:
                self._fruitless.pop(p, None)
                return now
            case Death.UNEXPLAINED:
                if finished:
                    self._fruitless.pop(p, None)
                    return now
                self._deaths.append(now)
                self._last = why
                row = self._fruitless[p] = self._fruitless.get(p, 0) + 1
                return now + self._pause(row)

    def _pause(self, row: int) -> int:
        """Before the start after the ``row``-th death in a row: none after the first."""
        if row < 2:
            return 0
        return min(self.policy.backoff_max_ns, self.policy.backoff_min_ns << min(row - 2, 30))

    def _is_storm(self, now: int) -> bool:
        while self._deaths and self._deaths[0] <= now - self.policy.storm_ns:
            self._deaths.popleft()
        return len(self._deaths) > self.policy.storm_deaths

    def degraded(self, now: int) -> str:
        """Why restarts are slow now; empty when all is well."""
        reasons = [
            f"P{p} has no worker: {why} ({row} times in a row; it is tried again)"
            for p, (row, why) in sorted(self._unbegun.items())
            if row > 1
        ]
        if self._is_storm(now):
            reasons.append(
                f"{len(self._deaths)} workers died within {self.policy.storm_ns / 1e9:g} s before"
                f" they had finished any job, and no job is known to be the cause; the last was"
                f" {self._last}"
            )
        return "; ".join(reasons)

    def hopeless(self, ps: Collection[int]) -> str:
        """Why none of these Ps can get a worker; empty when one can, or may."""
        rows = [self._unbegun.get(p, (0, "")) for p in ps]
        if not rows or min(row for row, _ in rows) < FAULTS_MAX:
            return ""
        row, why = rows[0]
        return f"no worker can start: {why} ({row} times in a row)"

    def forget(self, p: int) -> None:
        """P ``p`` is no more."""
        self._unbegun.pop(p, None)
        self._fruitless.pop(p, None)
