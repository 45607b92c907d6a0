"""What becomes of the jobs that a dead worker held.

Nothing started is run again before the kernel confirmed the death of its worker, so ``p_died`` and
``isolated_died`` are the only way back for a STARTED job whose function did not end by itself. What
a worker had not begun moves on; what it had begun is lost, or tried again if its options allow.

It does not know when, or whether, a new worker starts: that is ``restart``'s.
"""

from __future__ import annotations

from collections.abc import Collection

from gmpd.protocol import Outcome
from gmpd.sched.children import Children
from gmpd.sched.instructions import Exit
from gmpd.sched.isolated import FAILURES_MAX, IsolatedP, Stage
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import Limits
from gmpd.sched.ps import Ps
from gmpd.sched.records import Job
from gmpd.sched.states import JobState, transition

#: So often a job is tried again, at no cost, because a neighbour ended their worker.
SPARED_MAX = 3


class Deaths:
    """Deaths of workers, each told once."""

    def __init__(self, ledger: Ledger, ps: Ps, children: Children, limits: Limits) -> None:
        self._ledger = ledger
        self._limits = limits
        self._ps = ps
        self._children = children

    def stall(self, why: str) -> None:
        """No P can get a worker, for this reason; empty: one has, or may again."""
        self._ledger.stalled = why

    def p_died(
        self,
        p: int,
        executing: Collection[int],
        culprit: int | None,
        end: Exit,
        now: int,
        *,
        unbegun: Collection[int] = (),
    ) -> Job | None:
        """The kernel confirmed that the worker of P ``p`` is gone. Gives the job that ended it.

        ``executing``: tokens that it had begun (from its claim table); ``culprit``: the one that
        was running at the moment of death. What it had not begun moves on, attempt unchanged; what
        it had begun is lost, or tried again if its options allow. Results that it left behind must
        have been given to ``finished`` before. ``unbegun``: of those that it had taken up, the
        ones that waited for an import: no line of their functions has run.
        """
        record = self._ps.all.get(p)
        if record is None:
            return None
        record.ready = False
        self._ps.not_idle(record)
        self._children.orphan(record, now)
        back: list[Job] = []
        guilty = None if culprit is None else record.job(culprit)
        overran = None if culprit is None else record.overrunning.get(culprit)
        if overran is not None:
            guilty = overran.job
        waited = [job for token, job in record.started.items() if token in unbegun]
        back += waited
        for job in waited:
            del record.started[job.token]
        lost = [*record.started.values(), *record.withheld.values()]
        record.withheld.clear()
        for token, job in record.fresh.items():
            begun = token in executing and token not in unbegun
            (lost if begun or token == culprit else back).append(job)
        record.fresh.clear()
        record.started.clear()
        record.defined.clear()
        record.used_ns = 0
        self._ledger.take_back(back, now)
        if guilty is not None:
            self._ledger.suspects.ended_worker(guilty.fn, now)
        again = [job for job in lost if not self._lost(job, end, guilty, now)]
        self._ledger.queue.put_back(again)
        if overran is not None and overran.waits is not None:
            waits, overran.waits = overran.waits, None
            if not self._lost(waits, end, guilty, now):
                self._ledger.queue.put_back([waits])
        self._limits.died(record, now)
        return guilty

    def _lost(self, job: Job, end: Exit, guilty: Job | None, now: int) -> bool:
        """Whether that was its end; else it is to be queued again.

        ``guilty``: the job that ended their worker. Its neighbours are tried again if their options
        allow any retry, and that uses up none, up to ``SPARED_MAX`` times.
        """
        ledger = self._ledger
        blamed = job is guilty
        job.deaths += blamed
        poisoned = job.deaths >= ledger.policy.strikes
        spared = guilty is not None and not blamed and job.spared < SPARED_MAX
        may = job.option("retries", 0) > 0 if spared else job.may_retry
        retry = may and not poisoned and not job.streamed
        if retry and not job.cancelling and ledger.is_open(job.session):
            ledger.tally.retried["lost"] += 1
            ledger.note(job, Outcome.LOST, again=True, text=end.text)
            job.attempt += 1
            job.spared += spared
            job.p = None
            job.withheld = False
            transition(job, JobState.QUEUED)
            return False
        text, culprit = end.text, ""
        if guilty is not None:
            culprit = guilty.fn.name
            if not blamed:
                text = f"{text} while it ran {culprit}"
        details = {"signal": end.signal, "exitcode": end.exitcode, "text": text, "blamed": blamed,
                   "poisoned": poisoned, "pid": end.pid, "culprit": culprit}  # fmt: skip
        ledger.finish(job, Outcome.LOST, details, now)
        return True

    # -- workers of isolated jobs ------------------------------------------------------------------

    def isolated_died(
        self, p: int, begun: Collection[int], end: Exit, now: int, why: str = ""
    ) -> None:
        """The kernel confirmed that the isolated worker ``p`` is gone, or it could not be started.

        ``begun``: tokens that it had begun; ``why``: what it said was wrong before it ended.
        """
        record = self._ledger.isolated.remove(p)
        if record is None:
            return
        jobs = [*record.started.items(), *record.fresh.items()]
        unused = record.stage in (Stage.STARTING, Stage.SPARE)
        ready = record.stage is not Stage.STARTING
        for token, job in jobs:
            unused = not self._isolated_lost(record, job, token in begun, end, now)
        record.fresh.clear()
        record.started.clear()
        record.used_ns = 0
        self._limits.died(record, now)
        if unused and (not ready or self._ledger.isolated.died_idle(now)):
            self._isolated_failed(why or f"it {end.text}", end, now)

    def _isolated_lost(self, record: IsolatedP, job: Job, begun: bool, end: Exit, now: int) -> bool:
        """What becomes of the job of a dead worker; False when nothing was wrong but the worker."""
        ledger = self._ledger
        if job.cancelling or not ledger.is_open(job.session):
            ledger.finish(job, Outcome.CANCELLED, {"pid": end.pid}, now)
        elif record.expired:
            if not ledger.retried(job, Outcome.TIMEOUT, now):
                ran_us = (now - record.leased_ns) // 1000
                details = {"pid": end.pid, "text": "its worker was killed"}
                ledger.finish(job, Outcome.TIMEOUT, details, now, ran_us=ran_us)
        elif begun or job.state is JobState.STARTED:
            if not self._lost(job, end, job, now):
                ledger.isolated.queue.put_back([job])
        else:
            job.p = None
            transition(job, JobState.QUEUED)
            ledger.isolated.queue.put_back([job])
            return False
        ledger.isolated.begun()
        return True

    def _isolated_failed(self, why: str, end: Exit, now: int) -> None:
        """A worker never came to run a job. After some in a row, those who wait are told."""
        isolated = self._ledger.isolated
        isolated.failed(now)
        deaths = max(isolated.failures, isolated.idle_deaths)
        if deaths < FAILURES_MAX:
            return
        text = (
            f"{deaths} workers for isolated jobs in a row did not start; the last: {why}"
            " (the daemon's log has more)"
        )
        details = {"signal": end.signal, "exitcode": end.exitcode, "text": text,
                   "unstarted": True, "isolated": True}  # fmt: skip
        while isolated.queue:
            for job in isolated.queue.pop_run(1):
                self._ledger.finish(job, Outcome.LOST, details, now)
