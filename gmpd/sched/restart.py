"""When a dead worker gets a successor: at once, then with growing pauses, then not at all.

A worker that dies of its job says nothing about the next one; a worker that dies before it has
finished anything says that the next one will too (a broken import, a full machine). So the
pause grows only with deaths in a row that finished nothing, and a storm of those stops the
spawning: the daemon is then degraded, says so, and refuses work.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

#: Exit code of a worker that cannot serve (an import failed): a few tries, it may be a race.
EXIT_FAULT = 3
FAULTS_MAX = 3


@dataclass(frozen=True)
class RestartPolicy:
    """Times in ns; ``storm_deaths`` within ``storm_ns`` without one finished job are a storm."""

    backoff_min_ns: int = 100_000_000
    backoff_max_ns: int = 10_000_000_000
    storm_deaths: int = 10
    storm_ns: int = 60_000_000_000


class Restarts:
    """The memory of deaths; one for all Ps."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.degraded = ""
        self._fruitless: dict[int, int] = {}
        self._faults: dict[int, int] = {}
        self._deaths: deque[int] = deque()

    def died(self, p: int, finished: int, exitcode: int | None, now: int) -> int | None:
        """When to start P ``p`` again; None: not at all, ``degraded`` says why.

        ``finished``: jobs that the dead worker had ended.
        """
        if finished:
            self._fruitless[p] = self._faults[p] = 0
            self._deaths.clear()
            return now
        self._deaths.append(now)
        while self._deaths and self._deaths[0] < now - self.policy.storm_ns:
            self._deaths.popleft()
        self._faults[p] = self._faults.get(p, 0) + (exitcode == EXIT_FAULT)
        if self._faults[p] >= FAULTS_MAX:
            self.degraded = f"P{p} cannot serve: its worker failed to start {FAULTS_MAX} times"
            return None
        if len(self._deaths) > self.policy.storm_deaths:
            self.degraded = (
                f"{len(self._deaths)} workers died within {self.policy.storm_ns // 10**9} s"
                f" and none had finished a job"
            )
            return None
        row = self._fruitless[p] = self._fruitless.get(p, 0) + 1
        if row == 1:
            return now
        pause = self.policy.backoff_min_ns << min(row - 2, 30)
        return now + min(self.policy.backoff_max_ns, pause)
