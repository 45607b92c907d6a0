"""Which P gets how much of the queue, and when: leases to Ps, and to isolated workers.

A host is a P with more room: its credit is a longer time for each of its cores, because a batch
needs longer to get there. A job that can begin here at once is not sent there, and children of Gs
never are.

Credit is *time*: a P holds about 2 ms of fresh work (a running average per function of the time
that a job occupies P), at least one job; more of it while much of it waits (``backlog``). Leases
that its worker has set aside (calls of a hog's function, beside the hog) count only against their
function: others begin before them.

A lease is named by its token, and tokens rise for ever: a message about an old one finds nothing
and changes nothing.

It never revokes a lease: ``steal`` and ``backlog`` do.
"""

from __future__ import annotations

from functools import partial

from gmpd.protocol import BATCH_JOBS_MAX, Options, Outcome
from gmpd.sched.backlog import LONG_CREDITS, Backlog
from gmpd.sched.children import CHILDREN_CREDIT_NS
from gmpd.sched.globq import Fits
from gmpd.sched.instructions import DefineAt, Instruction, Kill, LeaseJobs, Retire, StartIsolated
from gmpd.sched.isolated import IsolatedP, Stage, options_for_worker
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import Limits
from gmpd.sched.ps import Ps
from gmpd.sched.records import Job, PRecord
from gmpd.sched.states import JobState, transition_all


class Leasing:
    """Leases to Ps with room. ``out`` collects instructions for the shell."""

    def __init__(self, ledger: Ledger, ps: Ps, limits: Limits, out: list[Instruction]) -> None:
        self._ledger = ledger
        self._limits = limits
        self._policy = ledger.policy
        self._queue = ledger.queue
        self._ps = ps
        self._out = out
        self._backlog = Backlog(ledger.queue, ps, ledger.policy, out)

    def pump(self, now: int) -> None:
        """Lease while there is work and a P with room: idle Ps first, then by what they hold."""
        queue = self._queue
        if self._ledger.stalled:
            self._refuse_all(now)
            return
        suspects = self._ledger.suspects
        if suspects.queue.length or suspects.next_due is not None:
            self._probe(now)
        if queue.length:
            self._deal(now)
            if suspects.queue.length:
                self._probe(now)

    def _deal(self, now: int) -> None:
        queue = self._queue
        # Latest first; those where something started still runs or waits come after the free ones.
        busy: list[PRecord] = []
        hosts: list[PRecord] = []
        for record in self._ps.idle[::-1]:
            if record.host:
                (hosts if record.begun < record.cores else busy).append(record)
                continue
            if record.started or record.overrunning:
                busy.append(record)
                continue
            self._fill(record, now)
            if not queue.length:
                return
        for record in hosts + busy:
            self._fill(record, now)
            if not queue.length:
                return
        for record in sorted(self._ps.all.values(), key=_used):
            if not self._is_stocked(record, now):
                while queue.length and self._fill(record, now):
                    pass

    def _is_stocked(self, record: PRecord, now: int) -> bool:
        """Whether a P has work for longer than more of it needs to come. Then it gets no more yet:
        if jobs followed those that end at once, they would travel in small messages, and those cost
        more than the jobs."""
        if record.aside or record.host:
            return False
        if 4 * len(record.fresh) > max(4, self._policy.credit_max):
            return True
        if 2 * record.used_ns <= self._policy.credit_ns:
            return False
        turn = self._queue.turn()
        credit_ns = self._backlog.credit_ns(record, turn, now) if turn else self._policy.credit_ns
        # Beyond one credit they are children, whose credit is longer.
        return credit_ns < 2 * record.used_ns <= 2 * credit_ns

    def take_back(self, now: int) -> None:
        """After ``pump``: what waits still may be more urgent than what Ps hold."""
        self._backlog.take_back(now)

    def could_run(self) -> bool:
        """Whether a job is queued for which an idle P has room: never, after ``pump``."""
        return bool(self._queue) and any(
            self._room(p, head)
            for p in self._ps.idle
            if (head := self._queue.head(p.own_children()))
        )

    def _fill(self, record: PRecord, now: int) -> bool:
        """Give one P its share of the queue (Go: globrunqgetbatch); False if it has no room."""
        queue = self._queue
        skip = record.own_children()
        # Other functions than those set aside there need not wait behind more calls of these.
        looks = record.host or (record.aside and record.set_aside())
        fits = partial(self._fits, record) if looks else None
        turn = queue.turn(skip, fits)
        while turn and turn[2][0].fn.kills and self._divert(turn[2][0], skip, fits, now):
            turn = queue.turn(skip, fits)
        if turn is None:
            return False
        credit_ns = self._backlog.credit_ns(record, turn, now)
        room = self._room(record, turn[2][0], credit_ns)
        if room <= 0:
            return False
        share = queue.length * record.cores // self._ps.cores + 1
        jobs = queue.pop_turn(turn, min(room, share))
        self._ps.watch(record, now)
        for job in jobs:
            job.leased_ns = now
        self._lease(record, jobs, jobs[0].options)
        if credit_ns > self._policy.credit_ns:
            self._backlog.gave(record, turn)
        return True

    def _refuse_all(self, now: int) -> None:
        """No P can get a worker: queued jobs fail with the reason, instead of waiting."""
        ledger = self._ledger
        details = {"text": ledger.stalled, "unstarted": True}
        for queue in (ledger.queue, ledger.suspects.queue):
            while queue:
                for job in queue.pop_run(queue.length):
                    ledger.finish(job, Outcome.LOST, dict(details), now)
        for job in ledger.gates.take_all():
            ledger.finish(job, Outcome.LOST, dict(details), now)

    def _divert(self, head: Job, skip: int | None, fits: Fits | None, now: int) -> bool:
        """Whether ``head``, with the jobs of its function behind it, was put among the suspects."""
        suspects = self._ledger.suspects
        if not suspects.is_suspect(head.fn, now):
            return False
        jobs = self._queue.pop_run(self._queue.length, skip, fits)
        for job in jobs:
            job.suspected = True
        suspects.queue.put(head.option("priority", 0), jobs)
        return True

    def _probe(self, now: int) -> None:
        """Jobs of suspect functions: one to each P with room, when the pause is over."""
        suspects = self._ledger.suspects
        if not suspects.may_go(now):
            return
        # In the order of a deal: a thief would take the job back from any other.
        for record in sorted(self._ps.all.values(), key=_in_turn):
            if record.host:  # a death there costs all that has begun on the host
                continue
            head = suspects.queue.head(record.own_children())
            if head is not None and self._room(record, head) > 0:
                jobs = suspects.queue.pop_run(1, record.own_children())
                for job in jobs:
                    job.suspected = False
                    job.leased_ns = now
                self._ps.watch(record, now)
                self._lease(record, jobs, jobs[0].options)

    def _room(self, record: PRecord, head: Job, credit_ns: int = 0) -> int:
        """How many jobs like ``head`` this P may get now, at least one if it has none.
        ``credit_ns``: if it is not the usual credit (children have their own)."""
        policy, fn = self._policy, head.fn
        if not record.ready or record.draining or (record.deaf and self._ps.another_hears()):
            return 0
        held = len(record.fresh)
        begun = len(record.started) + len(record.overrunning)
        if record.host:
            return self._room_at_host(record, head)
        most = min(policy.credit_max - held, policy.started_max - held - begun)
        if most <= 0:
            return 0
        credit_ns = credit_ns or policy.credit_ns
        if head.session.parent is not None:
            credit_ns = CHILDREN_CREDIT_NS
        est = credit_ns if fn.est_ns is None else fn.est_ns
        used_ns = record.used_ns
        if (
            record.aside
            and (tokens := record.set_aside())
            and (aside := self._aside_for(record, tokens, head))
        ):
            held -= len(aside)
            used_ns -= sum(job.est_ns for job in aside)
        by_time = (credit_ns - used_ns) // max(1, est)
        if by_time < 1:
            return 0 if held else 1
        return min(by_time, most)

    def _room_at_host(self, record: PRecord, head: Job) -> int:
        """The same of a host: 30 ms worth for each core, at least one job for each."""
        if head.session.parent is not None:
            return 0
        policy, cores = self._policy, record.cores
        held = len(record.fresh)
        most = min(
            policy.credit_max * cores,
            BATCH_JOBS_MAX,
            policy.started_max * cores - record.begun,
        )
        core_ns = policy.host_credit_ns
        est = core_ns if head.fn.est_ns is None else min(head.fn.est_ns, core_ns)
        return min((core_ns * cores - record.used_ns) // max(1, est), most - held)

    def _aside_for(self, record: PRecord, tokens: set[int], head: Job) -> list[Job]:
        """The leases set aside there that give way to ``head``: all, unless one has its
        function."""
        aside = [record.fresh[token] for token in tokens]
        return [] if any(job.fn is head.fn for job in aside) else aside

    def _fits(self, record: PRecord, job: Job) -> bool:
        return self._room(record, job) > 0

    def _lease(self, record: PRecord, jobs: list[Job], options: Options | None) -> None:
        fn = jobs[0].fn
        if fn.fid not in record.defined:
            for each in (*fn.needs, fn):
                if each.fid not in record.defined:
                    record.defined.add(each.fid)
                    self._out.append(DefineAt(record, each))
        if record.host:
            est = most = self._policy.host_credit_ns
        else:
            est, most = self._policy.credit_ns, self._policy.credit_ns * LONG_CREDITS
        if fn.est_ns is not None and fn.est_ns <= most:
            est = fn.est_ns
        first = token = record.next_token
        fresh = record.fresh
        payloads, buffers, seqs, stolen, again = [], [], [], 0, False
        transition_all(jobs, JobState.LEASED)
        for job in jobs:
            job.p = record
            job.token = token
            job.est_ns = est
            fresh[token] = job
            if job.moved:
                job.moved = False
                stolen += 1
            if job.attempt != 1:
                again = True
            payloads.append(job.payload)
            buffers.append(job.buffers)
            seqs.append(job.seq)
            token += 1
        record.next_token = token
        record.stolen_to += stolen
        self._ps.not_idle(record)
        record.used_ns += est * len(jobs)
        attempts = [job.attempt for job in jobs] if again else None
        session = jobs[0].session
        answers = (
            session.answers
            and jobs[0].options is None  # an isolated worker is told fewer
            and len(session.jobs) <= self._policy.answered_max
            and not record.host
        )
        self._out.append(
            LeaseJobs(
                record, fn, options, first, payloads, buffers, stolen, session, seqs, attempts,
                answers,
            )
        )  # fmt: skip

    def isolate(self, now: int) -> None:
        """Isolated jobs and their workers: end those that are done, lease, start those that are
        missing."""
        isolated, draining = self._ledger.isolated, self._ledger.draining
        self._out.extend(Retire(record) for record in isolated.retire(now))
        for late in isolated.overdue(now):
            self._out.append(Kill(late))
            self._outlives_its_kill(late, now)
        for record in isolated.free():
            (job,) = isolated.queue.pop_run(1)
            limit_s = job.option("timeout", None) or job.option("kill_after", None)
            isolated.lease(record, limit_s, now)
            self._ps.watch(record, now)
            self._lease(record, [job], options_for_worker(job.options))
        self._out.extend(Kill(record) for record in isolated.surplus(draining))
        new = isolated.wanted(now, draining)
        self._out.extend(StartIsolated(record.p) for record in new)

    def _outlives_its_kill(self, record: IsolatedP, now: int) -> None:
        """The time of its job is over, it was killed, and its death is not confirmed yet."""
        if record.stage is Stage.RUNNING and record.due_ns is None:
            for token in (*record.started, *record.fresh):
                self._limits.passed(record, token, now)


def _used(record: PRecord) -> tuple[bool, int]:
    return bool(record.host), record.used_ns


def _in_turn(record: PRecord) -> tuple[bool, bool, int]:
    return bool(record.fresh), record.begun > 0, record.used_ns
