"""When jobs may not begin any more: ``expires``, as a heap.

It holds jobs that were accepted with an ``expires``, also such as have begun or ended since. What
becomes of a job is decided in ``withdrawals``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from gmpd.sched.records import Job
from gmpd.sched.states import JobState

#: Ended jobs that may stay in the heap; more are swept at times.
_DEAD_MAX = 64


class Expiry:
    """Bounded by its user (Policy.queue_jobs): here is only the order. Times in ns."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []
        #: Jobs that expire at the same time keep their order.
        self._count = 0
        self._sweep_at = _DEAD_MAX

    def __len__(self) -> int:
        return len(self._heap)

    def __repr__(self) -> str:
        return f"<Expiry of {len(self)} jobs, the next at {self.next_due} ns>"

    def add(self, jobs: Sequence[Job], at_ns: int) -> None:
        """These do not begin from ``at_ns`` on."""
        for job in jobs:
            self._count += 1
            heappush(self._heap, (at_ns, self._count, job))
        if len(self._heap) > self._sweep_at:
            self._heap = [each for each in self._heap if each[2].state is not JobState.FINAL]
            heapify(self._heap)
            self._sweep_at = max(_DEAD_MAX, 2 * len(self._heap))

    @property
    def next_due(self) -> int | None:
        """When the first of them expires; None when there is none."""
        heap = self._heap
        while heap and heap[0][2].state is JobState.FINAL:
            heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: int) -> Iterator[Job]:
        """Take out those whose time has passed, and that have not ended."""
        while self._heap and self._heap[0][0] <= now:
            job = heappop(self._heap)[2]
            if job.state is not JobState.FINAL:
                yield job


def is_expired(job: Job, now: int) -> bool:
    """Whether no further attempt of it may begin."""
    expires_s = None if job.options is None else job.options.expires
    return expires_s is not None and now >= job.accepted_ns + int(expires_s * 1e9)
