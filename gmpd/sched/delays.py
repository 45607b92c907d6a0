"""Jobs whose time has not come, by when it will: a heap, as Go keeps its timers.

Holds jobs in state DELAYED, and for a while such as ended before they were due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from gmpd.errors import InvariantError
from gmpd.sched.records import Job
from gmpd.sched.states import JobState

#: Ended jobs that may stay in the heap; more are swept once they are half of it.
_DEAD_MAX = 64


class Delays:
    """Bounded by its user (Policy.queue_jobs): here is only the order. Times in ns."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []
        #: Jobs that are due at the same time keep their order.
        self._count = 0
        #: Jobs in the heap that ended (cancelled, or their client left) before they were due.
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def __repr__(self) -> str:
        return f"<Delays of {len(self)} jobs, the next due at {self.next_due} ns>"

    def __iter__(self) -> Iterator[Job]:
        return (job for _, _, job in self._heap if job.state is JobState.DELAYED)

    def add(self, jobs: Sequence[Job], due_ns: int) -> None:
        """These wait until ``due_ns``."""
        for job in jobs:
            self._count += 1
            job.due_ns = due_ns
            heappush(self._heap, (due_ns, self._count, job))

    @property
    def next_due(self) -> int | None:
        """When the first of them is due; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: int) -> Iterator[Job]:
        """Take out those whose time has come, still DELAYED."""
        while self._heap and self._heap[0][0] <= now:
            job = heappop(self._heap)[2]
            if job.state is JobState.DELAYED:
                yield job
            else:
                self._dead -= 1

    def ended(self) -> None:
        """One of them ended: it goes before it is due, which may be in a year."""
        self._dead += 1
        if self._dead > max(_DEAD_MAX, len(self._heap) // 2):
            self._heap = [each for each in self._heap if each[2].state is JobState.DELAYED]
            heapify(self._heap)
            self._dead = 0

    def validate(self) -> None:
        """Raise InvariantError when ended jobs were miscounted."""
        dead = len(self._heap) - sum(1 for _ in self)
        if dead != self._dead:
            raise InvariantError(f"{dead} ended jobs in the heap, {self._dead} counted")
