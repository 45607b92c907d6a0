"""Jobs that are no longer wanted: cancelled one by one, or left behind by their client.

Queued jobs end here and now. Leases that are not claimed are revoked; for the others their worker
is asked to end the job. It does not know how a worker does that.
"""

from __future__ import annotations

from collections.abc import Sequence

from gmpd.protocol import Outcome
from gmpd.sched.instructions import CancelAt, Instruction, Kill, Revoke
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import Job, PRecord, Session
from gmpd.sched.replacing import Replacing
from gmpd.sched.states import JobState


class Cancels:
    """``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, replacing: Replacing, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._replacing = replacing
        self._out = out

    def cancel(
        self, session: Session, seqs: Sequence[int], now: int, *, force: bool = False
    ) -> None:
        """End jobs that wait; ask the workers about those that were leased. ``force``: replace the
        workers of functions that do not end."""
        ledger = self._ledger
        held: list[Job] = []
        # A job that is not there any more has its outcome on the way: the client sees that instead.
        mine = session.jobs
        jobs = [job for seq in dict.fromkeys(seqs) if (job := mine.get(seq)) is not None]
        ledger.remove_waiting(jobs)
        for job in ledger.held_first(jobs):
            job.cancelling = True
            if job.p is not None and job.state is not JobState.OVERRUNNING:
                held.append(job)
            else:  # it waits, be it for the end of a frame that overruns
                ledger.finish(job, Outcome.CANCELLED, {}, now)
        self._cancel_held(held, now)
        if force:
            for job in held:
                assert job.p is not None
                self._replacing.force(job.p, job.token, now)
            self._replacing.force_overrunning(session, frozenset(seqs), now)

    def close_session(self, session: Session, now: int) -> None:
        """A client is gone, and its jobs are not wanted. Queued ones are dropped, running ones
        asked to end; their outcomes will find no session and be dropped too."""
        ledger = self._ledger
        if ledger.sessions.pop(session.sid, None) is None:
            return
        for queue in ledger.queues:
            queue.drop_session(session.sid)
        if ledger.gates.waiting:
            mine = session.jobs.values()
            ledger.gates.remove([job for job in mine if job.state is JobState.LIMITED])
        held: list[Job] = []
        for job in ledger.held_first(session.jobs.values()):
            if job.state in (JobState.LEASED, JobState.STARTED):
                job.cancelling = True
                held.append(job)
            else:
                ledger.drop(job, Outcome.CANCELLED)
        self._cancel_held(held, now)
        ledger.outboxes.drop(session)
        ledger.functions.release_all(session)

    def _cancel_held(self, jobs: Sequence[Job], now: int) -> None:
        """Revoke unclaimed leases; ask workers to end the others, now or once reported."""
        fresh: dict[PRecord, list[int]] = {}
        started: dict[PRecord, list[int]] = {}
        for job in jobs:
            record = job.p
            assert record is not None
            # Jobs of a dead worker are dealt with by its death.
            if isinstance(record, IsolatedP):  # it can always be ended: it has no other job
                self._out.append(Kill(record))
            elif record.withheld.get(job.token) is job and not self._ledger.is_open(job.session):
                pass  # it has ended, and its result is asked for in portions: see ``backpressure``
            elif record.ready:
                at = fresh if job.state is JobState.LEASED else started
                at.setdefault(record, []).append(job.token)
        self._out.extend(Revoke(p, tokens, None, now) for p, tokens in fresh.items())
        self._out.extend(CancelAt(p, tokens) for p, tokens in started.items())
