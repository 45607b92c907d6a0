"""The coordinator's policy: what happened and ``now`` in, instructions out.

**The tension.** Work should start at once wherever a P is free, so it wants to be handed out early;
and it should never wait behind something long while another P is idle, so it wants to be kept back.

**Rejected.** One queue that workers pull from, a job at a time: fair, but every job costs a round
trip (0.2 ms here) with an idle P in it. Dealing everything out on arrival: no round trips, but a
long job hides all that was dealt behind it until somebody steals it back. Fixed batches: too
long for slow jobs and too short for fast ones, always.

**Chosen.** Credit by *time*: a P holds about 2 ms of fresh work (a running average per function of
the time that a job occupies P), at least one job. The rest waits here, in one queue that is fair
between clients. What hides all the same behind an unexpectedly long job is stolen back as soon as
another P has nothing: first revoked, in memory shared with the victim, which need not answer and
cannot claim it any more; then, and only then, handed out anew under a new token. What the victim
had claimed already shows itself as started by that.

**Children** of Gs live in their worker and are not known here one by one. A worker says that it
has some; when another P has nothing, it is asked for the older half of them, and becomes the
client of those that it gives: they are queued, leased and lost like jobs. Their worker's own P
gets them back only once it has no others left.

Isolated jobs wait in a queue of their own, for workers of their own: ``sched.isolated``.

**The record.** Every accepted job is in exactly one place: the timer heap, one of the two queues,
or one lease (P, epoch); ``validate`` checks it. A hand-out is named by its token, and tokens rise
for ever: a message about an old one finds nothing and changes nothing. Nothing started is run again
before the kernel confirmed the death of its worker, so ``p_died`` (``isolated_died``) is the only
way back for a STARTED job whose function did not end by itself.

**Silence** is not death. A P that holds something and is not heard of for ``SILENT_NS`` is looked
at, in memory that it shares; if its run loop stands still it is *deaf*: robbed of what it did not
claim, and passed over until it moves again.

It never reads a clock, rolls dice, does IO or logs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gmpd.errors import ProtocolError
from gmpd.job import PRIORITY_MAX, RETRIES_MAX, SECONDS_MAX
from gmpd.protocol import Define, Finished, Outcome, Submit
from gmpd.sched.audit import audit
from gmpd.sched.delays import Delays
from gmpd.sched.functions import Functions
from gmpd.sched.globq import GlobalQueue
from gmpd.sched.instructions import (
    AskChildren,
    CancelAt,
    Collect,
    Dispatch,
    Exit,
    Forget,
    Instruction,
    Kill,
    Look,
    PullAt,
    Retire,
    Revoke,
    StartIsolated,
    Teach,
    TellKept,
    TellRunning,
    Yielded,
)
from gmpd.sched.isolated import FAILURES_MAX, IsolatedP, Isolation, Stage, options_for_worker
from gmpd.sched.outboxes import Outboxes
from gmpd.sched.records import (
    Buffers,
    Function,
    Job,
    Options,
    Policy,
    PRecord,
    Session,
)
from gmpd.sched.runq import half_up
from gmpd.sched.states import JobState, transition
from gmpd.sched.steal import (
    CHILDREN_CREDIT_NS,
    CHILDREN_LOW_NS,
    CHILDREN_MAX,
    LOOK_NS_MAX,
    SILENT_NS,
    STALE_DOUBLINGS,
    STALE_NS,
    WORTH_NS,
    RandomOrder,
)
from gmpd.sched.tally import Tally

#: First wait before a failed job is tried again; doubles per attempt up to the second value.
RETRY_MIN_NS = 100_000_000
RETRY_MAX_NS = 30_000_000_000

_OK = Outcome.OK
_NO_BUFFERS: Buffers = ()


class Sched:
    """The ledger of every job and the decisions about them. Not for two threads."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.queue = GlobalQueue()
        self.isolated = Isolation(policy.isolated, policy.isolated_spares)
        self.tally = Tally()
        self.sessions: dict[int, Session] = {}
        self.ps: dict[int, PRecord] = {}
        self.functions = Functions(self._forget)
        self.delays = Delays()
        self.outboxes = Outboxes(policy.outbox_bytes)
        #: Takes no more jobs; what it has, it finishes.
        self.draining = False
        self._jobs_nbytes = 0
        #: Accepted and not final: in heap, queue or lease.
        self.unfinished = 0
        self._next_sid = 1
        #: Ps without fresh work, the one that became so last at the end: LIFO keeps caches warm
        #: and leaves the others asleep (Go's idle P list).
        self._idle: list[PRecord] = []
        #: Ps whose workers said that they have fresh children, by number.
        self._parents: dict[int, PRecord] = {}
        self._order = RandomOrder(policy.seed)
        self._out: list[Instruction] = []

    # -- sessions --------------------------------------------------------------------------------

    def open_session(self, link: Any, name: str) -> Session:
        """A client said Hello."""
        session = Session(self._next_sid, link, name)
        self._next_sid += 1
        self.sessions[session.sid] = session
        return session

    def close_session(self, session: Session, now: int) -> None:
        """A client is gone: nobody waits for its jobs. Queued ones are dropped, running ones asked
        to end; their outcomes will find no session and be dropped too."""
        if self.sessions.pop(session.sid, None) is None:
            return
        self.queue.drop_session(session.sid)
        self.isolated.queue.drop_session(session.sid)
        held: list[Job] = []
        for job in list(session.jobs.values()):
            if job.state in (JobState.LEASED, JobState.STARTED):
                job.cancelling = True
                held.append(job)
            else:
                self._end(job, Outcome.CANCELLED)
        self._cancel_held(held, now)
        self.outboxes.drop(session)
        self.functions.release_all(session)

    def define(self, session: Session, message: Define, digest: bytes) -> None:
        """A session names a function; raises as ``Functions.define``."""
        self.functions.define(session, message, digest)

    def undefine(self, session: Session, fids: Sequence[int]) -> None:
        """A session needs these no more; raises as ``Functions.undefine``."""
        self.functions.undefine(session, fids)

    def _forget(self, fn: Function) -> None:
        for p in self.ps.values():
            if fn.fid in p.defined:
                p.defined.discard(fn.fid)
                self._out.append(Forget(p, [fn.fid]))

    @property
    def nbytes(self) -> int:
        """Payload bytes of all unfinished jobs and of outcomes not yet sent."""
        return self._jobs_nbytes + self.outboxes.nbytes

    # -- jobs come in ----------------------------------------------------------------------------

    def submit(
        self, session: Session, message: Submit, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Accept a batch, or refuse all of it with a reason: every job gets an outcome.

        Raises ProtocolError, nothing changed, for an unknown function, a seq that is in use, or
        options that the policy has to read and cannot.
        """
        fn = session.functions.get(message.fid)
        if fn is None:
            raise ProtocolError(f"Submit names function {message.fid}, which was never defined")
        seqs = range(message.first_seq, message.first_seq + len(message.payloads))
        if not session.jobs.keys().isdisjoint(seqs):
            raise ProtocolError(f"Submit repeats a seq from {message.first_seq} on")
        options = message.options or {}
        _check_options(options)
        nbytes = sum(map(len, message.payloads)) + sum(len(b) for bs in buffers for b in bs)
        refusal = self._refusal(session, len(message.payloads), nbytes)
        if refusal is not None:
            self._reject(session, seqs, *refusal)
            return
        delay_ns = int(options.get("delay", 0) * 1e9)
        state = JobState.DELAYED if delay_ns else JobState.QUEUED
        jobs = self._accept(session, fn, message, buffers, state, now)
        self._jobs_nbytes += nbytes
        if delay_ns:
            self.delays.add(jobs, now + delay_ns)
        else:
            self._put(jobs)

    def _refusal(self, session: Session, n: int, nbytes: int) -> tuple[str, str, int] | None:
        """(reason label, text, room) when a limit refuses ``n`` more jobs."""
        policy = self.policy
        if self.draining:
            return "draining", "the daemon is draining and takes no more jobs", 0
        if session.owed + n > policy.window:
            room = max(0, policy.window - session.owed)
            return "window", f"this client's window of {policy.window} jobs is full", room
        if self.unfinished + n > policy.queue_jobs:
            room = max(0, policy.queue_jobs - self.unfinished)
            return "queue_jobs", f"limits.queue_jobs = {policy.queue_jobs} jobs are held", room
        if nbytes > policy.queue_bytes and n == 1:
            return "too_large", f"it has more than limits.queue_bytes = {policy.queue_bytes}", 0
        if self.nbytes + nbytes > policy.queue_bytes:
            return (
                "queue_bytes",
                f"{self.nbytes} of limits.queue_bytes = {policy.queue_bytes} bytes are held",
                0,
            )
        return None

    def _reject(
        self, session: Session, seqs: Collection[int], label: str, text: str, room: int
    ) -> None:
        if session.parent is None:
            self.tally.rejected[label] += len(seqs)
        details = {"reason": label, "text": text, "room": room, "retry_after": 0.1}
        for seq in seqs:
            self.outboxes.add(session, seq, b"", _NO_BUFFERS, 0, [int(Outcome.REJECTED), details])

    def _accept(
        self,
        session: Session,
        fn: Function,
        message: Submit,
        buffers: Sequence[Buffers],
        state: JobState,
        now: int,
    ) -> list[Job]:
        jobs = []
        options, seq, mine = message.options, message.first_seq, session.jobs
        for payload, own in zip(message.payloads, buffers, strict=True):
            nbytes = len(payload) + sum(len(b) for b in own) if own else len(payload)
            job = Job(session, seq, fn, options, payload, own, nbytes, state, now)
            job.moved = session.parent is not None
            mine[seq] = job
            jobs.append(job)
            seq += 1
        fn.jobs += len(jobs)
        self.unfinished += len(jobs)
        if session.parent is None:
            self.tally.submitted += len(jobs)
        else:
            self.tally.children += len(jobs)
            session.parent.lost += len(jobs)
        return jobs

    # -- Ps come and go --------------------------------------------------------------------------

    def p_ready(self, p: int, epoch: int) -> PRecord:
        """A worker said Hello: P ``p`` lives in it from now on.

        Raises ProtocolError, nothing changed, while the worker before it is not confirmed dead, and
        for a worker that is: its Hello was late.
        """
        record = self.ps.get(p)
        if record is None:
            record = self.ps[p] = PRecord(p, epoch)
        elif record.ready:
            raise ProtocolError(f"P{p} is ready already, in epoch {record.epoch}")
        elif epoch <= record.epoch:
            raise ProtocolError(f"P{p} was in epoch {record.epoch}, a Hello of {epoch} is too late")
        record.epoch = epoch
        record.ready = True
        record.draining = False
        record.defined.clear()
        record.deaf = False
        record.look_ns = 0
        record.collected.clear()
        self._idle.append(record)
        return record

    def p_died(
        self, p: int, executing: Collection[int], culprit: int | None, end: Exit, now: int
    ) -> None:
        """The kernel confirmed that the worker of P ``p`` is gone.

        ``executing``: tokens that it had begun (from its claim table); ``culprit``: the one that
        was running at the moment of death. What it had not begun moves on, attempt unchanged; what
        it had begun is lost, or tried again if its options allow. Results that it left behind must
        have been given to ``finished`` before.
        """
        record = self.ps.get(p)
        if record is None:
            return
        record.ready = False
        self._not_idle(record)
        self._orphan(record, now)
        back: list[Job] = []
        guilty = None if culprit is None else record.job(culprit)
        beside = end
        if guilty is not None:  # its neighbours' errors name it, too
            beside = end._replace(text=f"{end.text} while it ran {guilty.fn.name}")
        lost = list(record.started.values())
        for token, job in record.fresh.items():
            (lost if token in executing or token == culprit else back).append(job)
        record.fresh.clear()
        record.started.clear()
        record.defined.clear()
        record.used_ns = 0
        self._take_back(back, now)
        again = []
        for job in lost:
            blamed = job is guilty
            if not self._lost(job, end if blamed else beside, blamed, now):
                again.append(job)
        self.queue.put_back(again)

    def _orphan(self, record: PRecord, now: int) -> None:
        """Nobody awaits the children of a dead worker: they end like the jobs of a client that
        left."""
        self.children(record, record.epoch, 0)
        record.asked = False
        if record.session is not None:
            self.close_session(record.session, now)
            record.session = None

    def _lost(self, job: Job, end: Exit, blamed: bool, now: int) -> bool:
        """Whether that was its end; else it is to be queued again."""
        job.deaths += blamed
        poisoned = job.deaths >= self.policy.strikes
        retry = job.attempt <= job.option("retries", 0) and not poisoned and not job.streamed
        if retry and not job.cancelling and job.session.sid in self.sessions:
            self.tally.retried["lost"] += 1
            job.attempt += 1
            job.p = None
            transition(job, JobState.QUEUED)
            return False
        details = {"signal": end.signal, "exitcode": end.exitcode, "text": end.text,
                   "blamed": blamed, "poisoned": poisoned, "pid": end.pid}  # fmt: skip
        self._finish(job, Outcome.LOST, b"", _NO_BUFFERS, 0, details, now)
        return True

    def remove_p(self, p: int) -> None:
        """A P that was shrunk away has ended; its record goes when nothing is leased to it."""
        record = self.ps.get(p)
        if record is not None and not record.fresh and not record.started:
            self._not_idle(record)
            del self.ps[p]

    def drain_p(self, p: int, now: int) -> None:
        """Shrink: P ``p`` gets nothing more, finishes what it claimed; the rest is taken back."""
        record = self.ps[p]
        if record.draining:
            return
        record.draining = True
        self._not_idle(record)
        if record.fresh:
            self._out.append(Revoke(record, list(record.fresh), None, now))
        self._out.append(Retire(record))

    def isolated_died(
        self, p: int, begun: Collection[int], end: Exit, now: int, why: str = ""
    ) -> None:
        """The kernel confirmed that the isolated worker ``p`` is gone, or it could not be started.

        ``begun``: tokens that it had begun; ``why``: what it said was wrong before it ended.
        """
        record = self.isolated.remove(p)
        if record is None:
            return
        jobs = [*record.started.items(), *record.fresh.items()]
        unused = record.stage in (Stage.STARTING, Stage.SPARE)
        for token, job in jobs:
            unused = not self._isolated_lost(record, job, token in begun, end, now)
        record.fresh.clear()
        record.started.clear()
        record.used_ns = 0
        if unused:
            self._isolated_failed(why or f"it {end.text}", end, now)

    def _isolated_lost(self, record: IsolatedP, job: Job, begun: bool, end: Exit, now: int) -> bool:
        """What becomes of the job of a dead worker; False when nothing was wrong but the worker."""
        if job.cancelling or job.session.sid not in self.sessions:
            self._finish(job, Outcome.CANCELLED, b"", _NO_BUFFERS, 0, {"pid": end.pid}, now)
        elif record.expired:
            if not self._retried(job, Outcome.TIMEOUT, now):
                ran_us = (now - record.leased_ns) // 1000
                details = {"pid": end.pid, "text": "its worker was killed"}
                self._finish(job, Outcome.TIMEOUT, b"", _NO_BUFFERS, ran_us, details, now)
        elif begun or job.state is JobState.STARTED:
            if not self._lost(job, end, True, now):
                self.isolated.queue.put_back([job])
        else:
            job.p = None
            transition(job, JobState.QUEUED)
            self.isolated.queue.put_back([job])
            return False
        self.isolated.failures = 0
        return True

    def _isolated_failed(self, why: str, end: Exit, now: int) -> None:
        """A worker never came to run a job. After some in a row, those who wait are told."""
        isolated = self.isolated
        isolated.failed(now)
        if isolated.failures < FAILURES_MAX:
            return
        text = (
            f"{isolated.failures} workers for isolated jobs in a row did not start; the last: {why}"
            " (the daemon's log has more)"
        )
        details = {"signal": end.signal, "exitcode": end.exitcode, "text": text,
                   "unstarted": True, "isolated": True}  # fmt: skip
        while isolated.queue:
            for job in isolated.queue.pop_run(1):
                self._finish(job, Outcome.LOST, b"", _NO_BUFFERS, 0, details, now)

    # -- workers report --------------------------------------------------------------------------

    def heard(self, record: PRecord, epoch: int, now: int) -> None:
        """Any message of a worker: its run loop lives."""
        if epoch == record.epoch:
            record.look_ns = now + SILENT_NS
            record.pause_ns = SILENT_NS
            record.deaf = False

    def looked(self, record: PRecord, *, moves: bool, asleep: bool, now: int) -> None:
        """The shell did ``Look``: the P's run loop moves, or it sleeps as it may, or it is deaf."""
        deaf = not moves and not asleep
        if deaf and not record.deaf:
            record.deaf_ns = now
        record.deaf = deaf
        record.look_ns = 0 if asleep else now + record.pause_ns
        record.pause_ns = min(LOOK_NS_MAX, record.pause_ns * 2)
        if record.deaf:
            self._out.append(Collect(record))

    def finished(
        self, record: PRecord, epoch: int, message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Outcomes of hand-outs; those of an unknown token are dropped and counted."""
        if epoch != record.epoch:
            self.tally.dropped["stale_epoch"] += len(message.tokens)
            return
        jobs = [self._end_lease(record, token) for token in message.tokens]
        found = [job for job in jobs if job is not None]
        if len(found) < len(jobs):
            self._unknown(
                record, [t for t, job in zip(message.tokens, jobs, strict=True) if job is None]
            )
        record.finished += sum([job.session.parent is None for job in found])
        for job, occupied_us in zip(jobs, message.occupied_us, strict=True):
            if job is not None:
                job.fn.learn(occupied_us * 1000)
                self.tally.occupied.add(occupied_us * 1000)
        if message.specials is None and len(found) == len(jobs) and _one_client(found):
            self._finish_plain(found, message, buffers, now)
        else:
            self._finish_each(jobs, message, buffers, now)
        self._rest(record)

    def _unknown(self, record: PRecord, tokens: Sequence[int]) -> None:
        """Outcomes of hand-outs that ended: old ones, or collected from the page before."""
        late = record.collected.intersection(tokens)
        record.collected -= late
        if len(late) < len(tokens):
            self.tally.dropped["unknown_token"] += len(tokens) - len(late)

    def _finish_each(
        self, jobs: list[Job | None], message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        specials = message.specials or {}
        rows = zip(jobs, message.payloads, buffers, message.ran_us, strict=True)
        for i, (job, payload, own, ran_us) in enumerate(rows):
            if job is None:
                continue
            special = specials.get(i)
            if special is None:
                self._finish(job, _OK, payload, own, ran_us, None, now)
                continue
            outcome = Outcome(special[0])
            if not self._retried(job, outcome, now):
                self._finish(job, outcome, payload, own, ran_us, special[1] or {}, now)

    def _retried(self, job: Job, outcome: Outcome, now: int) -> bool:
        """Whether the job gets another attempt: errors and timeouts, within its ``retries``."""
        if outcome not in (Outcome.ERROR, Outcome.TIMEOUT) or job.cancelling or job.streamed:
            return False
        if job.attempt > job.option("retries", 0) or job.session.sid not in self.sessions:
            return False
        self.tally.retried[outcome.name.lower()] += 1
        wait = min(RETRY_MAX_NS, RETRY_MIN_NS << (job.attempt - 1))
        job.attempt += 1
        job.p = None
        transition(job, JobState.DELAYED)
        self.delays.add([job], now + wait)
        return True

    def started(self, record: PRecord, epoch: int, tokens: Sequence[int]) -> None:
        """Hand-outs that began and did not end at once."""
        if epoch != record.epoch:
            self.tally.dropped["stale_epoch"] += len(tokens)
            return
        self._started(record, tokens)
        self._rest(record)

    def _started(self, record: PRecord, tokens: Sequence[int]) -> None:
        running: dict[Session, list[int]] = {}
        for token in tokens:
            job = record.fresh.pop(token, None)
            if job is None:
                # That it was claimed may have shown before its worker could say so.
                if token not in record.started:
                    self.tally.dropped["unknown_token"] += 1
                continue
            record.used_ns -= job.est_ns
            transition(job, JobState.STARTED)
            record.started[token] = job
            running.setdefault(job.session, []).append(job.seq)
        self._out.extend(
            TellRunning(session, seqs)
            for session, seqs in running.items()
            if session.sid in self.sessions and session.parent is None
        )

    def revoked(self, what: Revoke, got: Collection[int], now: int) -> None:
        """The shell did ``what``: ``got`` was not claimed, and never will be under these tokens.

        The rest is claimed: it runs, or ended a moment ago. So each revocation leaves fewer fresh
        jobs than before, and the next ``take`` may go on from there.
        """
        record, thief = what.p, what.thief
        jobs = [job for token in got if (job := record.fresh.pop(token, None)) is not None]
        claimed = [token for token in what.tokens if token in record.fresh]
        record.used_ns -= sum(job.est_ns for job in jobs)
        self._started(record, claimed)
        # With a cancel, also what its worker said to have started since it was to be revoked.
        begun = claimed if thief is not None else what.tokens
        cancels = [
            token
            for token in begun
            if (job := record.started.get(token)) is not None and job.cancelling
        ]
        if cancels:
            self._out.append(CancelAt(record, cancels))
        if thief is not None:
            self.tally.steal.add(now - what.asked_ns)
            if jobs:
                thief.hits += 1
            else:
                thief.misses += 1
            record.lost += len(jobs)
            for job in jobs:
                job.moved = True
                job.moves += 1
        self._take_back(jobs, now)
        self._rest(record)

    def collected(
        self, record: PRecord, message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Outcomes that a deaf worker could not send. Its own message, later, is no news."""
        self.finished(record, record.epoch, message, buffers, now)
        record.collected.update(message.tokens)

    def items(
        self, record: PRecord, epoch: int, token: int, payloads: list[bytes], buffers: list[Buffers]
    ) -> None:
        """A generator job yielded."""
        job = self._handed_out(record, epoch, token)
        if job is None:
            return
        job.streamed = True
        if job.session.sid in self.sessions:
            self._out.append(Yielded(job.session, job.seq, payloads, buffers))

    def kept(self, record: PRecord, epoch: int, tokens: Sequence[int]) -> None:
        """A cancel came too late for these."""
        for token in tokens:
            job = self._handed_out(record, epoch, token)
            if job is None or job.session.parent is not None:
                continue
            if job.session.sid in self.sessions:
                self._out.append(TellKept(job.session, [job.seq]))

    # -- children of Gs --------------------------------------------------------------------------

    def parent_session(self, record: PRecord, epoch: int) -> Session:
        """A worker as the client of its children that run elsewhere.

        Raises ProtocolError for one that is dead, or was replaced.
        """
        if epoch != record.epoch or not record.ready:
            raise ProtocolError(f"children from epoch {epoch} of P{record.p}, which is no more")
        if record.session is None:
            record.session = self.open_session(record, f"P{record.p}")
            record.session.parent = record
        return record.session

    def children(self, record: PRecord, epoch: int, n: int, *, asked: bool = False) -> None:
        """A worker has ``n`` fresh children; ``asked``: this answers AskChildren, and what it gives
        has been submitted before."""
        if epoch != record.epoch:
            self.tally.dropped["stale_epoch"] += 1
            return
        record.children = n
        if asked:
            record.asked = False
        if n:
            self._parents[record.p] = record
        else:
            self._parents.pop(record.p, None)

    def _ask_children(self) -> None:
        """A P has nothing, or soon will: ask a P that has children for the older half of them."""
        if not self._parents or self.draining:
            return
        takers = [p for p in self.ps.values() if p.ready and not p.draining and not p.children]
        if not takers or not self._is_low(takers):
            return
        parents = list(self._parents.values())
        for at in self._order.positions(len(parents)):
            victim = parents[at]
            if not victim.asked:
                victim.asked = True
                self._out.append(AskChildren(victim, CHILDREN_MAX))
                return

    def _is_low(self, takers: list[PRecord]) -> bool:
        """Whether a P that takes children has none left, or will have used them up before an
        answer can come."""
        head = self.queue.head()
        if head is None:
            return any(p in self._idle or _has_children(p) for p in takers)
        est_ns = head.fn.est_ns
        if head.session.parent is None or est_ns is None:
            return False
        return len(self.queue) * est_ns < CHILDREN_LOW_NS * len(takers)

    def _handed_out(self, record: PRecord, epoch: int, token: int) -> Job | None:
        """The job of a live hand-out; None, and counted, for any other."""
        if epoch != record.epoch:
            self.tally.dropped["stale_epoch"] += 1
            return None
        job = record.started.get(token) or record.fresh.get(token)
        if job is None:
            self.tally.dropped["unknown_token"] += 1
        return job

    # -- clients ask -----------------------------------------------------------------------------

    def cancel(self, session: Session, seqs: Sequence[int], now: int) -> None:
        """End jobs that wait; ask the workers about those that were handed out."""
        held: list[Job] = []
        # A job that is not there any more has its outcome on the way: the client sees that instead.
        mine = session.jobs
        jobs = [job for seq in dict.fromkeys(seqs) if (job := mine.get(seq)) is not None]
        waiting = [job for job in jobs if job.state is JobState.QUEUED]
        self.queue.remove([job for job in waiting if not _is_isolated(job)])
        self.isolated.queue.remove([job for job in waiting if _is_isolated(job)])
        for job in jobs:
            job.cancelling = True
            if job.p is not None:
                held.append(job)
            else:
                self._finish(job, Outcome.CANCELLED, b"", _NO_BUFFERS, 0, {}, now)
        self._cancel_held(held, now)

    def _cancel_held(self, jobs: Sequence[Job], now: int) -> None:
        """Take back what was not claimed; ask the workers to end the rest, now or when it shows."""
        fresh: dict[PRecord, list[int]] = {}
        started: dict[PRecord, list[int]] = {}
        for job in jobs:
            record = job.p
            assert record is not None
            # What a dead worker held is dealt with by its death.
            if isinstance(record, IsolatedP):  # it can always be ended: nobody else is in there
                self._out.append(Kill(record))
            elif record.ready:
                at = fresh if job.state is JobState.LEASED else started
                at.setdefault(record, []).append(job.token)
        self._out.extend(Revoke(p, tokens, None, now) for p, tokens in fresh.items())
        self._out.extend(CancelAt(p, tokens) for p, tokens in started.items())

    def pull(self, session: Session, seq: int, n: int) -> None:
        """A client has room for more items of a generator job."""
        job = session.jobs.get(seq)
        if job is None or job.p is None or job.state not in (JobState.LEASED, JobState.STARTED):
            return  # not begun: its options carry the first window
        self._out.append(PullAt(job.p, job.token, n))

    def ack(self, session: Session, outcomes: int) -> None:
        """The client has so many outcomes; raises as ``Outboxes.ack``."""
        self.outboxes.ack(session, outcomes)

    # -- decisions -------------------------------------------------------------------------------

    def take(self, now: int) -> list[Instruction]:
        """Decide, and give the shell all that is to be done: after each batch of events."""
        self._wake_delayed(now)
        self._pump(now)
        if not self._look(now):  # else there is another ``take``, that knows who is deaf
            self._steal(now)
        self._ask_children()
        if not self.isolated.quiet:
            self._isolate(now)
        out, self._out = self._out, []
        out.extend(self.outboxes.take())
        return out

    @property
    def stealing(self) -> bool:
        """Whether a P was asked for children and has not answered: Ps without work search."""
        return any(record.asked for record in self.ps.values())

    def next_deadline(self) -> int | None:
        """When ``take`` has something to do even if nothing happens until then."""
        deadlines = [] if self.delays.next_due is None else [self.delays.next_due]
        deadlines.extend(p.look_ns for p in self.ps.values() if p.look_ns and _to_watch(p))
        if not self.queue and (thief := self._thief()) is not None:
            skip = _own_children(thief)
            oldest = [_oldest(p, skip) for p in self.ps.values() if p.ready and not p.draining]
            deadlines.extend(_stale_ns(job) for job in oldest if job is not None)
        if not self.isolated.quiet and (due := self.isolated.deadline(self.draining)) is not None:
            deadlines.append(due)
        return min(deadlines, default=None)

    def _wake_delayed(self, now: int) -> None:
        for job in self.delays.take_due(now):
            transition(job, JobState.QUEUED)
            self._put([job])

    def _look(self, now: int) -> bool:
        """See after Ps that hold something and have not been heard of; whether there are any."""
        due = [p for p in self.ps.values() if p.look_ns and p.look_ns <= now and _to_watch(p)]
        self._out.extend(map(Look, due))
        return bool(due)

    def _pump(self, now: int) -> None:
        """Hand out while there is work and a P with room: idle Ps first, then by what they hold."""
        if not self.queue:
            return
        # Latest first; those where something started still runs or waits come after the free ones.
        latest = self._idle[::-1]
        for record in sorted(latest, key=_has_started):
            self._fill(record, now)
        if not self.queue:
            return
        for record in sorted(self.ps.values(), key=_used):
            while self.queue and self._fill(record, now):
                pass

    def _fill(self, record: PRecord, now: int) -> bool:
        """Give one P its share of the queue (Go: globrunqgetbatch); False if it has no room."""
        skip = _own_children(record)
        head = self.queue.head(skip)
        room = 0 if head is None else self._room(record, head)
        if room <= 0:
            return False
        share = self.queue.length // max(1, len(self.ps)) + 1
        jobs = self.queue.pop_run(min(room, share), skip)
        if not record.look_ns or not _to_watch(record):
            record.look_ns = now + SILENT_NS
        for job in jobs:
            job.leased_ns = now
        self._lease(record, jobs, jobs[0].options)
        return True

    def _room(self, record: PRecord, head: Job) -> int:
        """How many jobs like ``head`` this P may get now: 2 ms worth (children: 10), at least one
        if it has none."""
        policy, fn = self.policy, head.fn
        if not record.ready or record.draining or (record.deaf and self._another_hears()):
            return 0
        held = len(record.fresh)
        if held >= policy.credit_max or len(record.started) + held >= policy.started_max:
            return 0
        credit_ns = policy.credit_ns if head.session.parent is None else CHILDREN_CREDIT_NS
        est = credit_ns if fn.est_ns is None else fn.est_ns
        by_time = (credit_ns - record.used_ns) // max(1, est)
        if by_time < 1:
            return 0 if held else 1
        return min(by_time, policy.credit_max - held)

    def _another_hears(self) -> bool:
        return any(p.ready and not p.draining and not p.deaf for p in self.ps.values())

    def _lease(self, record: PRecord, jobs: list[Job], options: Options | None) -> None:
        fn = jobs[0].fn
        if fn.fid not in record.defined:
            record.defined.add(fn.fid)
            self._out.append(Teach(record, fn))
        est = min(self.policy.credit_ns, self.policy.credit_ns if fn.est_ns is None else fn.est_ns)
        first = token = record.next_token
        fresh = record.fresh
        payloads, buffers = [], []
        for job in jobs:
            transition(job, JobState.LEASED)
            job.p = record
            job.token = token
            job.est_ns = est
            fresh[token] = job
            if job.moved:
                job.moved = False
                record.stolen += 1
            payloads.append(job.payload)
            buffers.append(job.buffers)
            token += 1
        record.next_token = token
        self._not_idle(record)
        record.used_ns += est * len(jobs)
        self._out.append(Dispatch(record, fn, options, first, payloads, buffers))

    def _isolate(self, now: int) -> None:
        """Isolated jobs and their workers: end what is over, hand out, start what is missing."""
        isolated = self.isolated
        self._out.extend(Retire(record) for record in isolated.retire(now))
        self._out.extend(Kill(record) for record in isolated.overdue(now))
        for record in isolated.free():
            (job,) = isolated.queue.pop_run(1)
            isolated.lease(record, job.option("timeout", None), now)
            self._lease(record, [job], options_for_worker(job.options))
        self._out.extend(Kill(record) for record in isolated.surplus(self.draining))
        new = isolated.wanted(now, self.draining)
        self._out.extend(StartIsolated(record.p) for record in new)

    def _steal(self, now: int) -> None:
        """An idle P and an empty queue: take from a busy P what it has not claimed.

        The older half of it (Go: ``runqgrab``); all of it from one that is deaf; and else what has
        lain there for long.
        """
        if self.queue or (thief := self._thief()) is None:
            return
        records = list(self.ps.values())
        for at in self._order.positions(len(records)):
            victim = records[at]
            if victim.ready and not victim.draining and (loot := self._loot(victim, thief, now)):
                self._out.append(Revoke(victim, loot, thief, now))
                return

    def _loot(self, victim: PRecord, thief: PRecord, now: int) -> list[int]:
        """The hand-outs to take from ``victim``. Not a thief's own children, which are nothing for
        it while it has others of them at home."""
        skip = _own_children(thief)
        oldest = _oldest(victim, skip)
        if oldest is None:
            return []
        tokens = [token for token, job in victim.fresh.items() if job.session.sid != skip]
        if victim.deaf:
            return tokens
        if self._has_spare(victim, free=not thief.started):
            return tokens[: half_up(len(tokens))]
        return [oldest.token] if now >= _stale_ns(oldest) else []

    def _thief(self) -> PRecord | None:
        """The idle P to steal for: the latest that has nothing started, else the latest."""
        full = self.policy.started_max
        able = [p for p in self._idle if not p.deaf and len(p.started) < full]
        best = [p for p in able if not p.started] or able
        return best[-1] if best else None

    def _has_spare(self, victim: PRecord, *, free: bool) -> bool:
        """Whether it has something beside what it runs, or runs something long.

        A last fresh job, or a little work, moves only to a P that is ``free`` of started ones:
        between two Ps that both run something long it would be carried to and fro.
        """
        if len(victim.fresh) > 1 and victim.used_ns >= WORTH_NS:
            return True
        return free and bool(victim.started)

    def record(self, p: int) -> PRecord | None:
        """The P, or the isolated worker, of this number."""
        return self.ps.get(p) or self.isolated.ps.get(p)

    # -- moves -----------------------------------------------------------------------------------

    def _put(self, jobs: list[Job]) -> None:
        """Jobs of one session, alike in options, begin to wait."""
        queue = self.isolated.queue if _is_isolated(jobs[0]) else self.queue
        queue.put(jobs[0].option("priority", 0), jobs)

    def _end_lease(self, record: PRecord, token: int) -> Job | None:
        job = record.fresh.pop(token, None)
        if job is not None:
            record.used_ns -= job.est_ns
            return job
        return record.started.pop(token, None)

    def _take_back(self, jobs: list[Job], now: int) -> None:
        """Jobs that were handed out and not begun: to the head of the queue, in order."""
        back = []
        for job in jobs:
            job.p = None
            if job.cancelling or job.session.sid not in self.sessions:
                self._finish(job, Outcome.CANCELLED, b"", _NO_BUFFERS, 0, {}, now)
            else:
                transition(job, JobState.QUEUED)
                back.append(job)
        if back:
            queue = self.isolated.queue if _is_isolated(back[0]) else self.queue
            queue.put_back(back)

    def _finish(
        self,
        job: Job,
        outcome: Outcome,
        payload: bytes,
        buffers: Buffers,
        ran_us: int,
        details: dict[str, Any] | None,
        now: int,
    ) -> None:
        """How a job comes to its outcome: count it and put it into its session's outbox."""
        waited_ns = now - job.accepted_ns - ran_us * 1000
        if job.session.parent is None:
            self.tally.wait.add(waited_ns)
            self.tally.run.add(ran_us * 1000)
        self._end(job, outcome)
        if job.session.sid not in self.sessions:
            return
        special = None
        if details is not None:
            common = {"attempt": job.attempt, "waited_us": max(0, waited_ns // 1000)}
            if job.p is not None:
                common["p"] = job.p.p
            special = [int(outcome), {**common, **details}]
        self.outboxes.add(job.session, job.seq, payload, buffers, ran_us, special)

    def _finish_plain(
        self, jobs: list[Job], message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        """``_finish`` for jobs of one client that are all OK, a column at a time: most are, and
        one by one each costs three times as much."""
        wait, run = self.tally.wait, self.tally.run
        mine = jobs[0].session.jobs
        for job, ran_us in zip(jobs, message.ran_us, strict=True):
            wait.add(now - job.accepted_ns - ran_us * 1000)
            run.add(ran_us * 1000)
            transition(job, JobState.FINAL)
            del mine[job.seq]
            fn = job.fn
            fn.jobs -= 1
            if not fn.users:
                self.functions.retire_unused(fn)
        self.unfinished -= len(jobs)
        self._jobs_nbytes -= sum([job.nbytes for job in jobs])
        self.tally.finished[_LABEL[_OK]] += len(jobs)
        session = jobs[0].session
        if session.sid in self.sessions:
            seqs = [job.seq for job in jobs]
            self.outboxes.extend(session, seqs, message.payloads, buffers, message.ran_us)

    def _end(self, job: Job, outcome: Outcome) -> None:
        delayed = job.state is JobState.DELAYED
        transition(job, JobState.FINAL)
        if delayed:
            self.delays.ended()
        job.fn.jobs -= 1
        if not job.fn.users:
            self.functions.retire_unused(job.fn)
        del job.session.jobs[job.seq]
        self.unfinished -= 1
        self._jobs_nbytes -= job.nbytes
        if job.session.parent is None:
            self.tally.finished[_LABEL[outcome]] += 1

    def _rest(self, record: PRecord) -> None:
        """A P without fresh work goes to the idle list."""
        if not record.fresh and record.ready and not record.draining and record not in self._idle:
            self._idle.append(record)

    def _not_idle(self, record: PRecord) -> None:
        if record in self._idle:
            self._idle.remove(record)

    def validate(self) -> None:
        """Every invariant across the records; raises InvariantError. For tests."""
        audit(self)

    def could_run(self) -> bool:
        """Whether something waits that a P without work has room for: never, after ``take``."""
        return bool(self.queue) and any(
            self._room(p, head) for p in self._idle if (head := self.queue.head(_own_children(p)))
        )

    def is_idle(self, record: PRecord) -> bool:
        """Whether it is on the list of Ps without fresh work."""
        return record in self._idle


def _check_options(options: Options) -> None:
    """The options that the policy reads; a worker checks them all, but that would be too late."""
    delay = options.get("delay", 0)
    if type(delay) not in (int, float) or not 0 <= delay <= SECONDS_MAX:  # refuses nan
        raise ProtocolError(f"Submit with the delay {str(delay)[:40]!r}: no seconds up to a year")
    for name, low, high in (
        ("priority", -PRIORITY_MAX, PRIORITY_MAX),
        ("retries", 0, RETRIES_MAX),
    ):
        value = options.get(name, 0)
        if type(value) is not int or not low <= value <= high:
            raise ProtocolError(
                f"Submit with the {name} {str(value)[:40]!r}: no whole number from {low} to {high}"
            )
    isolate, timeout = options.get("isolate", False), options.get("timeout", 1)
    if type(isolate) is not bool:
        raise ProtocolError(f"Submit with isolate {str(isolate)[:40]!r}: neither true nor false")
    if isolate and (type(timeout) not in (int, float) or not 0 < timeout <= SECONDS_MAX):
        raise ProtocolError(
            f"Submit with the timeout {str(timeout)[:40]!r}: no seconds up to a year"
        )


def _is_isolated(job: Job) -> bool:
    return job.options is not None and job.options.get("isolate", False) is True


def _own_children(record: PRecord) -> int | None:
    """The session to pass over for this P: its own children, while it has more of them at home."""
    return record.session.sid if record.children and record.session is not None else None


def _has_children(record: PRecord) -> bool:
    """Whether what waits there is children that it took."""
    return any(job.session.parent is not None for job in record.fresh.values())


def _used(record: PRecord) -> int:
    return record.used_ns


def _one_client(jobs: list[Job]) -> bool:
    """Whether all are of one session, and that is a client's."""
    return (
        bool(jobs)
        and jobs[0].session.parent is None
        and len({id(job.session) for job in jobs}) == 1
    )


def _to_watch(record: PRecord) -> bool:
    return record.ready and bool(record.fresh or record.started)


def _oldest(record: PRecord, skip: int | None) -> Job | None:
    """The fresh job that was handed out first, and not by session ``skip``."""
    return next((job for job in record.fresh.values() if job.session.sid != skip), None)


def _stale_ns(job: Job) -> int:
    """From when on a fresh job is taken to any idle P."""
    return job.leased_ns + (STALE_NS << min(job.moves, STALE_DOUBLINGS))


def _has_started(record: PRecord) -> bool:
    return bool(record.started)


_LABEL = {outcome: outcome.name.lower() for outcome in Outcome}
