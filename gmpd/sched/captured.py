"""The output of running jobs that the coordinator keeps: the last bytes of each, within two bounds.

A worker sends what a captured job has printed. It is kept for readers while the attempt runs; with
the end of a durable job's attempt it goes into the store. A job that prints nothing has no record
here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gmpd.sched.records import Job

#: Bytes that each job keeps when all of them together have more than they may.
LEAST = 1024


class Ring:
    """The last bytes of one attempt's output. ``end``: how many it has written in all."""

    __slots__ = ("attempt", "chunks", "end", "nbytes")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.chunks: deque[bytes] = deque()
        self.nbytes = 0
        self.end = 0

    def __repr__(self) -> str:
        return f"<Ring of attempt {self.attempt}: {self.nbytes} of {self.end} bytes>"

    def add(self, chunk: bytes, skipped: int, most: int) -> None:
        """``chunk`` follows, after ``skipped`` bytes that its worker had no room for."""
        self.end += skipped + len(chunk)
        if skipped:
            self.chunks.clear()  # what is kept has no gaps
            self.nbytes = 0
        self.chunks.append(chunk)
        self.nbytes += len(chunk)
        while (over := self.nbytes - most) > 0:
            first = self.chunks.popleft()
            rest = whole(first[over:])  # none of it, if all of it is too much
            self.nbytes -= len(first) - len(rest)
            if rest:
                self.chunks.appendleft(rest)

    def since(self, at: int) -> bytes:
        """The bytes that are kept from the ``at``-th on."""
        kept = b"".join(self.chunks)
        first = self.end - self.nbytes
        return kept[max(0, at - first) :]


def whole(chunk: bytes) -> bytes:
    """Without the rest of a character of UTF-8 whose beginning was cut off."""
    for at in range(min(4, len(chunk))):
        if chunk[at] & 0xC0 != 0x80:
            return chunk[at:]
    return chunk if len(chunk) > 3 else b""


class CapturedOutput:
    """By job. ``job_most``: bytes of one attempt; ``most``: of all of them."""

    def __init__(self, job_most: int, most: int) -> None:
        self._job_most = job_most
        self._most = most
        self.nbytes = 0
        self.rings: dict[Job, Ring] = {}

    def add(self, job: Job, chunk: bytes, skipped: int) -> None:
        """A job has printed."""
        ring = self.rings.get(job)
        if ring is None or ring.attempt != job.attempt:
            self.take(job)
            ring = self.rings[job] = Ring(job.attempt)
        self.nbytes -= ring.nbytes
        room = self._job_most if self.nbytes + len(chunk) <= self._most else LEAST
        ring.add(chunk, skipped, min(room, self._job_most))
        self.nbytes += ring.nbytes

    def of(self, job: Job) -> Ring | None:
        """Its present attempt's; None if that has printed nothing."""
        ring = self.rings.get(job)
        return None if ring is None or ring.attempt != job.attempt else ring

    def take(self, job: Job) -> Ring | None:
        """The job, or its attempt, has ended."""
        ring = self.rings.pop(job, None)
        if ring is not None:
            self.nbytes -= ring.nbytes
        return ring

    def forget(self, jobs: Iterable[Job]) -> None:
        """These have ended."""
        for job in jobs:
            self.take(job)
