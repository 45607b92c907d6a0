"""Workers that are replaced because a job in them has to end: ``kill_after``, cancels by force.

**The tension.** Only the end of a process ends a function that ignores its interrupt or computes in
C, and the jobs beside it have done nothing wrong.

**Rejected.** A kill at once: neighbours that need a moment would lose their work. A new worker for
the P beside the old one: two processes with the right to run on one core.

**Chosen.** The attempt leaves its lease as one beyond its time limit does (``limits``), so its
client is told at once, unless another attempt waits for its end. Its P is *ending*: it gets no more
work, and unclaimed leases are revoked. When no other job runs there, or ``Policy.grace_ns`` later,
the worker is killed. Neighbours that have not ended by then are lost as by a crash, which counts as
a strike against no job and no function; a retry of theirs uses up none. If the function ends by
itself meanwhile, the worker is kept.

The decision needs nothing from the worker: it may be deaf. Only its shared memory is read, before
the attempt leaves its lease and before the kill: it may have ended in time.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heappop, heappush

from gmpd.protocol import Outcome
from gmpd.sched.instructions import Instruction, Kill, RecoverOutcomes, Revoke
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import LOOK_NS, Limits
from gmpd.sched.ps import Ps
from gmpd.sched.records import Job, PRecord, Session, earliest

#: A job that is cancelled by force gets this time to end by itself: a coroutine mostly does.
FORCE_NS = 250_000_000


class _Ending:
    """A P whose worker is to be replaced. ``why`` tells for which attempts, by token."""

    __slots__ = ("kill_at_ns", "killed", "looked", "why")

    def __init__(self, kill_at_ns: int) -> None:
        self.kill_at_ns = kill_at_ns
        #: Its shared memory was read in this turn, or the one before.
        self.looked = False
        self.why: dict[int, tuple[Job, str]] = {}
        self.killed = False


class Replacing:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, ps: Ps, limits: Limits, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._grace_ns = ledger.policy.grace_ns
        self._ps = ps
        self._limits = limits
        self._out = out
        #: (when, a count that keeps entries apart, P, token, forced, its shared memory was read).
        self._heap: list[tuple[int, int, PRecord, int, bool, bool]] = []
        self._count = 0
        self._ending: dict[PRecord, _Ending] = {}

    @property
    def is_used(self) -> bool:
        """Whether any attempt is to be ended at some time."""
        return bool(self._heap or self._ending)

    # -- events ------------------------------------------------------------------------------------

    def began(self, record: PRecord, job: Job, after_s: float, now: int) -> None:
        """An attempt with ``kill_after`` has begun and did not end at once."""
        if not isinstance(record, IsolatedP) and not record.host:  # they see to that themselves
            self._push(now + int(after_s * 1e9), record, job.token)

    def force(self, record: PRecord, token: int, now: int) -> None:
        """An attempt was cancelled by force; its worker was asked to end it. On a host that is all:
        an end of the bridge would cost all that has begun there."""
        if not isinstance(record, IsolatedP) and not record.host:  # the former was killed
            self._push(now + FORCE_NS, record, token, forced=True)

    def force_overrunning(self, session: Session, seqs: Collection[int], now: int) -> None:
        """The same for attempts whose ends were told, and whose frames have not ended."""
        for record in self._ps.records():
            for token, overrun in record.overrunning.items():
                if overrun.job.session is session and overrun.job.seq in seqs:
                    self.force(record, token, now)

    def died(self, record: PRecord) -> tuple[Job, str] | None:
        """The worker is confirmed dead. If it was killed here: for which job, and why."""
        ending = self._ending.pop(record, None)
        record.ending = False
        return next(iter(ending.why.values()), None) if ending and ending.killed else None

    def _push(
        self,
        due_ns: int,
        record: PRecord,
        token: int,
        *,
        forced: bool = False,
        looked: bool = False,
    ) -> None:
        self._count += 1
        heappush(self._heap, (due_ns, self._count, record, token, forced, looked))

    # -- decisions ---------------------------------------------------------------------------------

    def due(self, now: int) -> None:
        """Attempts whose time is over; Ps whose other jobs have ended, or had their time."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, record, token, forced, looked = heappop(heap)
            if not _runs(record, token):
                continue
            if looked:
                self._condemn(record, token, forced, now)
            else:
                self._out.append(RecoverOutcomes(record))
                self._push(now + LOOK_NS, record, token, forced=forced, looked=True)
        for record, ending in list(self._ending.items()):
            if not ending.killed:
                self._see_to(record, ending, now)

    def next_due(self) -> int | None:
        """When ``due`` has something to do even if nothing happens until then."""
        heap = self._heap
        while heap and not _runs(heap[0][2], heap[0][3]):
            heappop(heap)
        kills = [each.kill_at_ns for each in self._ending.values() if not each.killed]
        return earliest(heap[0][0] if heap else None, *kills)

    def _condemn(self, record: PRecord, token: int, forced: bool, now: int) -> None:
        """Its worker has to end for this attempt."""
        job = record.job_of(token)
        assert job is not None
        how = "its cancel by force" if forced else f"kill_after={job.option('kill_after', 0):g}"
        if token not in record.overrunning:
            text = "its function did not stop: its worker is replaced"
            outcome = Outcome.CANCELLED if forced else Outcome.TIMEOUT
            self._limits.passed(record, token, now, outcome, text)
        ending = self._ending.get(record)
        if ending is None:
            ending = self._ending[record] = _Ending(now + self._grace_ns)
            self._ps.end(record)
            if record.fresh:
                self._out.append(Revoke(record, list(record.fresh), None, now))
        ending.why[token] = job, f"was replaced: {job.fn.name} ran beyond {how}"

    def _see_to(self, record: PRecord, ending: _Ending, now: int) -> None:
        ending.why = {
            token: why for token, why in ending.why.items() if token in record.overrunning
        }
        if not ending.why:  # they have ended by themselves
            del self._ending[record]
            self._ps.keep(record)
        elif ending.kill_at_ns > now and (record.started or record.fresh or record.withheld):
            ending.looked = False
        elif ending.looked:
            ending.killed = True
            self._out.append(Kill(record, next(iter(ending.why.values()))[1]))
        else:  # they may have ended meanwhile
            ending.looked, ending.kill_at_ns = True, now
            self._out.append(RecoverOutcomes(record))


def _runs(record: PRecord, token: int) -> bool:
    """Whether the frame of an attempt has not ended, as far as is known."""
    return token in record.overrunning or token in record.started
