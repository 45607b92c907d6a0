"""Recovery of the jobs that a dead worker held.

Nothing started is run again before the kernel confirmed the death of its worker, so
``worker_died`` and ``isolated_died`` are the only way back for a STARTED job whose function did not
end by itself. Jobs that a worker had not begun move on; those that it had begun are lost, or tried
again if their options allow.

It does not know when, or whether, a new worker starts: that is ``restart``'s.
"""

from __future__ import annotations

from gmpd.protocol import Outcome
from gmpd.sched.children import Children
from gmpd.sched.events import Exit, IsolatedDied, WorkerDied
from gmpd.sched.expiry import is_expired
from gmpd.sched.isolated import FAILURES_MAX, IsolatedP, Stage
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import Limits
from gmpd.sched.ps import Ps
from gmpd.sched.records import Job
from gmpd.sched.replacing import Replacing
from gmpd.sched.retries import allows
from gmpd.sched.states import JobState, transition

#: How often a job is retried without using up a retry because a neighbour ended their worker.
SPARED_MAX = 3


class Deaths:
    """Deaths of workers, each told once."""

    def __init__(
        self, ledger: Ledger, ps: Ps, children: Children, limits: Limits, replacing: Replacing
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._replacing = replacing
        self._ps = ps
        self._children = children

    def severed(self, p: int, now: int) -> None:
        """Nothing is heard of a host any more, and jobs may run there until ``worker_died``: none
        of them begins anew before. Those that were not sent move on."""
        record = self._ps.record(p)
        if record is None:
            return
        record.ready, record.draining, record.probe_at_ns = False, True, 0
        self._ps.not_idle(record)
        back = list(record.fresh.values())
        record.fresh.clear()
        record.used_ns = 0
        self._ledger.take_back(back, now)

    def worker_died(self, event: WorkerDied, now: int) -> None:
        """Jobs that the worker had not begun move on, attempt unchanged; begun ones are lost, or
        tried again if its options allow."""
        executing, culprit, end, unbegun = (
            event.executing, event.culprit, event.end, event.unbegun
        )  # fmt: skip
        record = self._ps.record(event.p)
        if record is None:
            return
        record.ready = False
        self._ps.not_idle(record)
        self._children.orphan(record, now)
        back: list[Job] = []
        guilty = None if culprit is None else record.job_of(culprit)
        overran = None if culprit is None else record.overrunning.get(culprit)
        blames = True
        if (replaced := self._replacing.died(record)) is not None:  # no crash
            guilty, text = replaced
            end, overran, blames = end._replace(text=text), None, False
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
        if guilty is not None and blames:
            self._ledger.suspects.ended_worker(guilty.fn, now)
        again = [job for job in lost if not self._lost(job, end, guilty, now)]
        self._ledger.begin_again(again, now)
        if overran is not None and overran.waits is not None:
            waits, overran.waits = overran.waits, None
            if not self._lost(waits, end, guilty, now):
                self._ledger.begin_again([waits], now)
        self._limits.died(record, now)
        self._ps.gone(record)

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
        may = may and allows(job.options, Outcome.LOST) and not is_expired(job, now)
        retry = may and not poisoned and not job.streamed
        if retry and not job.cancelling and ledger.is_open(job.session):
            ledger.counters.retried["lost"] += 1
            ledger.note(job, Outcome.LOST, again=True, text=end.text)
            job.next_attempt(spared=spared)
            if ledger.gates.passes:
                ledger.gates.ended(job, now)
            return False
        text, culprit = end.text, ""
        if guilty is not None:
            culprit = guilty.fn.name
            if not blamed and culprit not in text:
                text = f"{text} while it ran {culprit}"
        details = {"signal": end.signal, "exitcode": end.exitcode, "text": text, "blamed": blamed,
                   "poisoned": poisoned, "pid": end.pid, "culprit": culprit}  # fmt: skip
        ledger.finish(job, Outcome.LOST, details, now)
        return True

    # -- workers of isolated jobs ------------------------------------------------------------------

    def isolated_died(self, event: IsolatedDied, now: int) -> None:
        """Its job is lost, or tried again; one that it had not begun moves on."""
        record, end = self._ledger.isolated.remove(event.p), event.end
        if record is None:
            return
        jobs = [*record.started.items(), *record.fresh.items()]
        unused = record.stage in (Stage.STARTING, Stage.SPARE)
        ready = record.stage is not Stage.STARTING
        for token, job in jobs:
            unused = not self._isolated_lost(record, job, token in event.begun, end, now)
        record.fresh.clear()
        record.started.clear()
        record.used_ns = 0
        self._limits.died(record, now)
        if unused and (not ready or self._ledger.isolated.died_idle(now)):
            self._isolated_failed(record, event.why or f"it {end.text}", end, now)

    def _isolated_lost(self, record: IsolatedP, job: Job, begun: bool, end: Exit, now: int) -> bool:
        """Settle the job of a dead worker; False when nothing was wrong but the worker."""
        ledger = self._ledger
        if job.cancelling or not ledger.is_open(job.session):
            ledger.finish(job, Outcome.CANCELLED, {"pid": end.pid}, now)
        elif record.expired:
            ran_us = (now - record.leased_ns) // 1000
            if not ledger.retried(job, Outcome.TIMEOUT, now, ran_us=ran_us):
                details = {"pid": end.pid, "text": "its worker was killed"}
                ledger.finish(job, Outcome.TIMEOUT, details, now, ran_us=ran_us)
        elif begun or job.state is JobState.STARTED:
            if not self._lost(job, end, job, now):
                ledger.begin_again([job], now)
        else:
            job.p = None
            transition(job, JobState.QUEUED)
            ledger.isolated.queue.put_back([job])
            return False
        ledger.isolated.begun()
        return True

    def _isolated_failed(self, record: IsolatedP, why: str, end: Exit, now: int) -> None:
        """A worker never came to run a job. After some in a row, jobs that waited for this one are
        refused with the reason."""
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
        refused = isolated.refusable(record)
        isolated.queue.remove(refused)
        for job in refused:
            self._ledger.finish(job, Outcome.LOST, details, now)
