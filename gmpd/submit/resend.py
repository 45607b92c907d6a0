"""Jobs that the daemon refused for lack of room: kept until they can be sent again. Sans-IO.

Sent jobs are kept until the daemon has decided about them. Outcomes come in the order of its
decisions, so an outcome of a job means that all jobs sent before it were accepted, or that their
refusals have come.

The daemon offers room to a waiting client (``granted``). Otherwise the client tries one job, then
twice as many each time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gmpd.protocol import Buffers

if TYPE_CHECKING:  # a session unpacks no value, and the gateway does without the codec
    from gmpd.codec import FunctionRef

#: Shortest wait before jobs are sent again, seconds, whatever the daemon says.
WAIT_MIN_S = 0.01
#: And with a daemon that offers room, should it have lost the offer.
OFFERED_WAIT_S = 2.0
#: Reasons for which no waiting helps.
PERMANENT_REASONS = frozenset({"draining", "too_large", "not_registered", "unique"})


class Sent(NamedTuple):
    """Consecutive jobs, alike in function and options, as they were sent."""

    ref: FunctionRef
    first_seq: int
    options: dict[str, Any] | None
    payloads: list[bytes]
    buffers: list[Buffers] | None

    def part(self, first: int, end: int) -> Sent:
        """The jobs with the seqs from ``first`` to before ``end``."""
        a, b = first - self.first_seq, end - self.first_seq
        buffers = None if self.buffers is None else self.buffers[a:b]
        return Sent(self.ref, first, self.options, self.payloads[a:b], buffers)

    @property
    def end_seq(self) -> int:
        """The seq after the last."""
        return self.first_seq + len(self.payloads)


class ResendBuffer:
    """The jobs that were sent, and how many may be sent now."""

    def __init__(self) -> None:
        #: Seconds after which ``retry`` is to be called; 0 when it is not.
        self.wait_s = 0.0
        #: How many jobs may be sent until then; None: as many as the window allows.
        self.allowed: int | None = None
        self._probe = 1
        self._held = False
        #: The daemon has offered room since; and no job was sent for it yet.
        self.offered = self.offer_pending = False
        self._sent: deque[Sent] = deque()
        #: Sent again: their numbers say nothing about when. Kept until they have ended.
        self._resent: deque[Sent] = deque()

    def sent(self, jobs: Sent, *, again: bool) -> None:
        """These are on their way."""
        (self._resent if again else self._sent).append(jobs)
        if self.allowed is not None:
            self.allowed -= len(jobs.payloads)

    def acknowledge(self, newest_seq: int, unfinished: Container[int]) -> None:
        """The daemon has decided about a job: jobs sent before it need not be kept."""
        while self._sent and self._sent[0].first_seq <= newest_seq:
            self._sent.popleft()
        while self._resent and not any(
            seq in unfinished for seq in range(self._resent[0].first_seq, self._resent[0].end_seq)
        ):
            self._resent.popleft()

    def told(self, seq: int, unfinished: Container[int]) -> None:
        """A job has ended, which says nothing about those sent before it."""
        for sent in (self._sent, self._resent):
            for at, jobs in enumerate(sent):
                if jobs.first_seq <= seq < jobs.end_seq:
                    if not any(each in unfinished for each in range(jobs.first_seq, jobs.end_seq)):
                        del sent[at]
                    return

    def refused(self, seqs: Sequence[int], details: dict[str, Any]) -> list[Sent]:
        """The daemon had no room for these: the jobs to send again, in order.

        To be called before ``acknowledge`` of the same message. Jobs that were not kept are left
        out: the daemon had accepted them.
        """
        least = OFFERED_WAIT_S if details.get("told") else WAIT_MIN_S
        self.wait_s = max(least, float(details.get("retry_after") or 0.0))
        self._probe = max(1, int(details.get("room") or 0))
        # Room that it offered before still counts: it is unused, or used by jobs on their way.
        self.allowed = (self.allowed or 0) if self.offered else 0
        self._held = True
        return list(self._parts(sorted(seqs)))

    def _parts(self, seqs: list[int]) -> Iterator[Sent]:
        at = 0
        kept = [*self._sent, *self._resent]
        while at < len(seqs):
            first = seqs[at]
            end = first + 1
            at += 1
            jobs = next((s for s in reversed(kept) if s.first_seq <= first < s.end_seq), None)
            if jobs is None:
                continue
            while at < len(seqs) and seqs[at] == end and end < jobs.end_seq:
                end += 1
                at += 1
            yield jobs.part(first, end)

    def granted(self, jobs: int) -> None:
        """The daemon has room for this many jobs."""
        self.allowed = (self.allowed or 0) + jobs
        self.offered = self.offer_pending = True

    def reset(self) -> bool:
        """Nothing that was refused is held any more; whether some of the room is left over."""
        unused = bool(self.allowed)
        self.allowed, self.wait_s, self._held, self.offered = None, 0.0, False, False
        return unused

    def retry(self, *, waiting: bool) -> None:
        """``wait_s`` have passed: send some, twice as many when the last ones were accepted."""
        if not self.wait_s:
            return  # room was offered meanwhile
        if not waiting:
            self.allowed, self.wait_s, self._held = None, 0.0, False
            return
        if not self._held:
            self._probe *= 2
        self._held = False
        self.allowed = self._probe
