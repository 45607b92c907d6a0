"""The record of every accepted job: where it is, how it moves, how it comes to its outcome.

Every accepted job is in exactly one place: the timer heap, a gate, one of the queues, or one lease
(P, epoch); ``audit`` checks it. It leaves by ``finish`` (or ``finish_plain``, ``drop``), once.

It does not know why a job moves: which P gets which is decided in ``leasing`` and ``steal``, what a
message or a death means in ``lease_events``, ``cancels`` and ``deaths``. All of them go through
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from gmpd.protocol import Finished, Outcome
from gmpd.sched.captured import CapturedOutput
from gmpd.sched.counters import Counters
from gmpd.sched.delays import Delays
from gmpd.sched.expiry import Expiry, is_expired
from gmpd.sched.functions import Functions
from gmpd.sched.gates import Gates
from gmpd.sched.globq import GlobalQueue
from gmpd.sched.isolated import ISOLATED_FROM, Isolation
from gmpd.sched.leavers import p_of
from gmpd.sched.outboxes import Outboxes
from gmpd.sched.random_order import RandomOrder
from gmpd.sched.records import NO_BUFFERS, Buffers, Failure, Function, Job, Policy, PRecord, Session
from gmpd.sched.retries import allows, wait_ns
from gmpd.sched.states import JobState, transition, transition_all
from gmpd.sched.suspects import Suspects
from gmpd.sched.uniques import Uniques

#: How a job ends that is withdrawn.
Withdrawal: TypeAlias = tuple[Outcome, Mapping[str, Any]]


class Ledger:
    """All jobs of all sessions. ``forget`` is called for each function that the ledger drops."""

    def __init__(self, policy: Policy, forget: Callable[[Function], None]) -> None:
        self.policy = policy
        self.queue = GlobalQueue()
        self.suspects = Suspects()
        self.isolated = Isolation(policy.isolated, policy.isolated_spares)
        #: All in which jobs wait.
        self.queues = self.queue, self.suspects.queue, self.isolated.queue
        self.delays = Delays()
        #: Where jobs wait for the limits of their keys.
        self.gates = Gates(self._let_in)
        #: Of retries.
        self._dice = RandomOrder(policy.seed)
        self.expiry = Expiry()
        self.uniques = Uniques(self._begin_wait)
        #: Leased jobs that end so if they have not begun.
        self.withdrawn: dict[Job, Withdrawal] = {}
        self.outboxes = Outboxes(policy.outbox_bytes, policy.results_bytes, self._hold)
        self.functions = Functions(forget)
        self.sessions: dict[int, Session] = {}
        self.counters = Counters()
        #: Accepts no more jobs, and finishes those that it has.
        self.draining = False
        #: How far jobs are that told it: ``(done, total, note)``.
        self.progress: dict[Job, tuple[float, float | None, str]] = {}
        #: The output of captured jobs.
        self.output = CapturedOutput(policy.job_output, policy.output)
        #: Attempts that did not end well, until the shell takes them.
        self.failures: list[Failure] = []
        #: Why no P can get a worker; empty while one has, or may.
        self.stalled = ""
        #: Accepted and not final: in heap, queue or lease; and the bytes of their payloads.
        self.unfinished = 0
        self.jobs_nbytes = 0
        #: Sessions that have become full, or are so no more, until workers are told.
        self.turned: list[Session] = []
        #: Sessions of whose results workers keep some, to be asked for as they are taken.
        self.releasing: dict[int, Session] = {}
        #: The number of the next session.
        self.next_sid = 1

    @property
    def nbytes(self) -> int:
        """Payload bytes of all unfinished jobs and of outcomes not yet sent."""
        return self.jobs_nbytes + self.outboxes.nbytes

    def _hold(self, session: Session) -> None:
        """It is full: its jobs stay in the queues; or it is so no more."""
        for queue in self.queues:
            (queue.hold if session.full else queue.release)(session.sid)
            if session.full:  # others wait for what these hold
                self.gates.take_back(queue.drop_limited(session.sid))
        if not session.full:
            self.gates.takes_results()
        self.turned.append(session)

    def open_session(
        self,
        link: Any,
        name: str,
        *,
        waits: bool = False,
        key: str = "",
        owner: str = "",
        watches: bool = False,
        answers: bool = False,
    ) -> Session:
        """A client said Hello; ``waits``: offer it room when jobs of it were refused; ``watches``:
        tell it how far its jobs are; ``answers``: its workers may tell it values."""
        session = Session(
            self.next_sid, link, name, waits=waits, key=key, owner=owner, watches=watches,
            answers=answers,
        )  # fmt: skip
        self.next_sid += 1
        self.sessions[session.sid] = session
        return session

    def is_open(self, session: Session) -> bool:
        """Whether a client waits for its outcomes."""
        return session.sid in self.sessions

    # -- moves -----------------------------------------------------------------------------------

    def put(self, jobs: list[Job]) -> None:
        """Jobs of one session, alike in options, begin to wait."""
        first = jobs[0]
        options = first.options
        if options is None and not first.suspected:
            self.queue.put(0, jobs)
        elif first.state is JobState.LIMITED:
            self.gates.line_up(jobs)
        else:
            self._let_in(jobs)

    def _let_in(self, jobs: list[Job]) -> None:
        self.queue_of(jobs[0]).put(jobs[0].option("priority", 0), jobs)

    def _begin_wait(self, job: Job) -> None:
        """A HELD job has its key, and waits as others do."""
        assert job.options is not None
        if delay_ns := int(job.options.delay * 1e9):
            transition(job, JobState.DELAYED)
            self.delays.add([job], job.accepted_ns + delay_ns)
        else:
            transition(job, JobState.LIMITED if job.is_limited else JobState.QUEUED)
            self.put([job])

    def remove_waiting(self, jobs: Sequence[Job]) -> None:
        """Take those of these out of their queues that wait there: they are to end."""
        waiting = [job for job in jobs if job.state is JobState.QUEUED]
        for queue in self.queues:
            queue.remove([job for job in waiting if self.queue_of(job) is queue])
        if self.gates.waiting:
            self.gates.remove([job for job in jobs if job.state is JobState.LIMITED])

    def held_first(self, jobs: Iterable[Job]) -> list[Job]:
        """In the order in which they can end: the end of a job may let one begin that is HELD."""
        if not self.uniques.by_key:
            return list(jobs)
        return sorted(jobs, key=lambda job: job.state is not JobState.HELD)

    def queue_of(self, job: Job) -> GlobalQueue:
        """Where it waits, when it does."""
        if job.is_isolated:
            return self.isolated.queue
        return self.suspects.queue if job.suspected else self.queue

    def wake_delayed(self, now: int) -> None:
        """Jobs whose time has come begin to wait."""
        if self.delays.next_due is not None:
            for job in self.delays.take_due(now):
                transition(job, JobState.LIMITED if job.is_limited else JobState.QUEUED)
                self.put([job])

    def take_back(self, jobs: list[Job], now: int) -> None:
        """Jobs that were leased and not begun: to the head of the queue, in order."""
        back = []
        for job in jobs:
            job.p = None
            job.withheld = False
            if job.cancelling or not self.is_open(job.session) or job in self.withdrawn:
                self.gates.unbegun(job)
                outcome, details = self.withdrawn.pop(job, _CANCELLED)
                self.finish(job, outcome, dict(details), now)
            else:
                transition(job, JobState.QUEUED)
                back.append(job)
        if not back:
            return
        if self.gates.passes:  # others wait for what such hold whose client takes no results
            held = [job for job in back if job.session.full and job.is_limited]
            self.gates.take_back(held)
            back = [job for job in back if job.state is JobState.QUEUED]
        if back:
            self.queue_of(back[0]).put_back(back)

    def begin_again(self, jobs: Sequence[Job], now: int) -> None:
        """Jobs that were lost with their workers wait for their next attempts, before others."""
        for job in reversed(jobs):
            job.due_ns = now
            transition(job, JobState.LIMITED if job.is_limited else JobState.QUEUED)
            if job.state is JobState.LIMITED:
                self.gates.line_up([job], first=True)
        if queued := [job for job in jobs if job.state is JobState.QUEUED]:
            self.queue_of(queued[0]).put_back(queued)

    def note(
        self, job: Job, outcome: Outcome, *, again: bool, text: str = "", payload: bytes = b""
    ) -> None:
        """An attempt of a client's job did not end well. The policy of durable jobs tells of its
        own."""
        session = job.session
        if session.parent is None and not session.patient:
            p = None if job.p is None or job.p.p >= ISOLATED_FROM else p_of(job.p.p)
            self.failures.append(
                Failure(
                    job.id, job.fn.name, session.name, outcome,
                    job.attempt, again, text, payload, p,
                )
            )  # fmt: skip

    def retried(
        self,
        job: Job,
        outcome: Outcome,
        now: int,
        payload: bytes = b"",
        report: Mapping[str, Any] | None = None,
        ran_us: int = 0,
    ) -> bool:
        """Whether the job gets another attempt: errors and timeouts, within its ``retries``."""
        final = report is not None and report.get("final")
        if not self.may_retry(job, outcome) or final or is_expired(job, now):
            return False
        self.counters.retried[outcome.name.lower()] += 1
        self._count_attempt(job, outcome, ran_us, now)
        text = "" if report is None else report.get("remark", "")
        self.note(job, outcome, again=True, text=text, payload=payload)
        wait = wait_ns(job.options, job.used, self._dice.next() / (1 << 32), report)
        if self.gates.passes:
            self.gates.ended(job, now)
        job.next_attempt()
        transition(job, JobState.DELAYED)
        self.delays.add([job], now + wait)
        return True

    def may_retry(self, job: Job, outcome: Outcome) -> bool:
        """Whether an attempt that ends so may be followed by another one."""
        return (
            outcome in _TRIED_AGAIN
            and not job.cancelling
            and not job.streamed
            and job.may_retry
            and allows(job.options, outcome)
            and self.is_open(job.session)
        )

    def leased_to(self, record: PRecord, token: int) -> Job | None:
        """The job of a live lease; None for any other, and counted unless it overruns."""
        job = record.job(token)
        if job is None and token not in record.overrunning:
            self.counters.dropped["unknown_token"] += 1
        return job

    # -- ends ------------------------------------------------------------------------------------

    def finish(
        self,
        job: Job,
        outcome: Outcome,
        details: Mapping[str, Any] | None,
        now: int,
        payload: bytes = b"",
        buffers: Buffers = NO_BUFFERS,
        ran_us: int = 0,
        *,
        told: bool = False,
    ) -> None:
        """How a job comes to its outcome: count it and put it into its session's outbox.

        ``details``: None when there is nothing to say about it, as of one that is plainly OK.
        ``told``: its client has it.
        """
        has_run = self._count_attempt(job, outcome, ran_us, now)
        if self.gates.passes:
            self.gates.ended(job, now)
        followers = self._followers(job, outcome, details)
        if (
            self.output.rings
            and job.session.patient
            and (ring := self.output.take(job)) is not None
        ):
            details = {**(details or {}), "log": ring.since(0), "log_end": ring.end}
        self.drop(job, outcome)
        for follower in followers:
            self.finish(follower, outcome, details, now, payload, buffers, ran_us)
        if outcome in _FAILED:
            text = str(details.get("text", "")) if details else ""
            self.note(job, outcome, again=False, text=text, payload=payload)
        if told or not self.is_open(job.session):
            return
        special = None
        if details is not None:
            common: dict[str, Any] = {"attempt": job.attempt}
            if has_run:
                common["waited_us"] = max(0, (now - job.due_ns) // 1000 - ran_us)
            if job.p is not None:
                common["p"] = job.p.p  # the shell makes it the number of a P
            special = outcome, {**common, **details}
        self.outboxes.add(job.session, job.seq, payload, buffers, ran_us, special)

    def _count_attempt(self, job: Job, outcome: Outcome, ran_us: int, now: int) -> bool:
        """The wait and the run time of an attempt, which count if it ran to an end: of one that was
        lost with its worker they are not known."""
        has_run = ran_us > 0 or outcome in _HAS_RUN
        if has_run and job.session.parent is None:
            counts = self.counters.functions.of(job.fn)
            counts.wait.add(now - job.due_ns - ran_us * 1000)
            counts.run.add(ran_us * 1000)
        return has_run

    def finish_plain(
        self,
        session: Session,
        jobs: Sequence[Job],
        message: Finished,
        buffers: Sequence[Buffers],
        now: int,
    ) -> None:
        """``finish`` for jobs of one client that are all OK, a column at a time: most are, and
        one by one each costs three times as much."""
        mine, nbytes = session.jobs, 0
        if self.progress or self.output.rings:
            self._forget_told(jobs)
        if self.gates.passes:
            self.gates.all_ended(jobs, now)
        runs_ns = [us * 1000 for us in message.ran_us]
        seqs, waits_ns, fns = [], [], []
        transition_all(jobs, JobState.FINAL)
        for job, ran_ns in zip(jobs, runs_ns, strict=True):
            waits_ns.append(now - job.due_ns - ran_ns)
            seq = job.seq
            seqs.append(seq)
            del mine[seq]
            nbytes += job.nbytes
            fn = job.fn
            fns.append(fn)
            fn.jobs -= 1
            if not fn.users:
                self.functions.retire_unused(fn)
        self.counters.functions.add_plain(fns, waits_ns, runs_ns, message.occupied_us)
        self.unfinished -= len(seqs)
        self.jobs_nbytes -= nbytes
        session.nbytes -= nbytes
        if session.sid in self.sessions and not message.told:
            if session.patient:
                self.outboxes.mark(session, len(seqs), (Outcome.OK, {"p": _p_of(jobs)}))
            self.outboxes.extend(session, seqs, message.payloads, buffers, message.ran_us)
        if self.uniques.by_key:
            self._finish_followers(jobs, message, buffers, now)

    def _finish_followers(
        self, jobs: Sequence[Job], message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Jobs that follow these get their values."""
        for job, payload, own, ran_us in zip(
            jobs, message.payloads, buffers, message.ran_us, strict=True
        ):
            if job.is_unique:
                for follower in self.uniques.take_followers(job):
                    self.finish(follower, Outcome.OK, None, now, payload, own, ran_us)
                self.uniques.ended(job)

    def _followers(
        self, job: Job, outcome: Outcome, details: Mapping[str, Any] | None
    ) -> Sequence[Job]:
        """The jobs that share its outcome. When it has been cancelled or could not begin, one of
        them runs instead."""
        if not (self.uniques.by_key and job.is_unique) or outcome is Outcome.CANCELLED:
            return ()
        return () if details and details.get("expired") else self.uniques.take_followers(job)

    def drop(self, job: Job, outcome: Outcome) -> None:
        """It ends without a message. Its holder has released it.

        Whether a durable job has ended with an attempt that was not OK, its policy says, and counts
        it then.
        """
        before = job.state
        if self.gates.passes:
            self.gates.unbegun(job)
        transition(job, JobState.FINAL)
        if self.progress or self.output.rings:
            self._forget_told((job,))
        if before is JobState.DELAYED:
            self.delays.ended()
        elif before is JobState.OVERRUNNING:  # its frame runs on, and its end is not waited for
            assert job.p is not None
            if (overrun := job.p.overrunning.get(job.token)) is not None:
                overrun.waits = None
        if self.withdrawn:
            self.withdrawn.pop(job, None)
        job.fn.jobs -= 1
        if not job.fn.users:
            self.functions.retire_unused(job.fn)
        del job.session.jobs[job.seq]
        self.unfinished -= 1
        self.jobs_nbytes -= job.nbytes
        job.session.nbytes -= job.nbytes
        if job.session.parent is None and (outcome is Outcome.OK or not job.session.patient):
            self.counters.functions.of(job.fn).finished[outcome] += 1
        if self.uniques.by_key and job.is_unique:
            self.uniques.ended(job)

    def _forget_told(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.progress.pop(job, None)
        self.output.forget(jobs)


def _p_of(jobs: Sequence[Job]) -> int:
    """The P of jobs whose outcomes came in one message."""
    record = jobs[0].p
    assert record is not None
    return record.p


_CANCELLED: Withdrawal = (Outcome.CANCELLED, {})
#: LOST as an outcome of its lease: with a worker of a host, which the bridge to it outlives.
_TRIED_AGAIN = frozenset({Outcome.ERROR, Outcome.TIMEOUT, Outcome.LOST})
_HAS_RUN = frozenset({Outcome.OK, Outcome.ERROR})
_FAILED = frozenset({Outcome.ERROR, Outcome.TIMEOUT, Outcome.LOST})
