"""Events about leases: reports of workers, and answers of the shell from shared memory.

A message about a lease that has ended changes nothing but a counter; one of an old epoch does
not come here (``schedt``). The next step is decided at the end of the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from gmpd.protocol import Finished, Outcome
from gmpd.sched.events import Revoked
from gmpd.sched.instructions import (
    CancelAt,
    Instruction,
    NotifyNotCancelled,
    NotifyRunning,
    Withhold,
)
from gmpd.sched.isolated import IsolatedP
from gmpd.sched.ledger import Ledger
from gmpd.sched.limits import Limits
from gmpd.sched.per_function import LARGE_BYTES
from gmpd.sched.ps import Ps
from gmpd.sched.records import Buffers, Job, PRecord, Session
from gmpd.sched.replacing import Replacing
from gmpd.sched.states import JobState, transition

#: Results of a whole message below this are not counted: reading them takes a few microseconds.
#: A function of which one was larger is bulky.
SMALL_BYTES = 16 << 10

#: Nanoseconds that a byte of a larger result counts: the CPU time of all processes on its way is
#: 2 to 3, and they share the cores.
NS_PER_BYTE = 4


class LeaseEvents:
    """``out`` collects instructions for the shell."""

    def __init__(
        self,
        ledger: Ledger,
        ps: Ps,
        limits: Limits,
        replacing: Replacing,
        out: list[Instruction],
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._replacing = replacing
        self._counters = ledger.counters
        self._ps = ps
        self._out = out

    # -- outcomes --------------------------------------------------------------------------------

    def finished(
        self, record: PRecord, message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Outcomes of leases; those of an unknown token are dropped and counted."""
        if isinstance(record, IsolatedP) and record.is_late(message.ran_us):
            return  # it is being killed for that: its death says the rest
        jobs = [record.end_lease(token) for token in message.tokens]
        found = [job for job in jobs if job is not None]
        occupied_ns = [us * 1000 for us in message.occupied_us]
        sizes = _sizes(message, buffers)
        costs_ns = occupied_ns
        if sizes is not None:
            self._count_large(jobs, sizes)
            costs_ns = _costs_ns(occupied_ns, sizes)
        if len(found) < len(jobs):
            gone = [t for t, job in zip(message.tokens, jobs, strict=True) if job is None]
            self._unknown(record, gone, now)
            is_found = [job is not None for job in jobs]
            occupied_ns = [*compress(occupied_ns, is_found)]
            costs_ns = [*compress(costs_ns, is_found)]
        self._counters.occupied.add_all(occupied_ns)
        client = found[0].session if found else None
        for job, cost_ns in zip(found, costs_ns, strict=True):
            if job.session is not client:
                client = None
            if job.session.parent is None:
                record.finished += 1
            fn = job.fn
            est_ns = fn.est_ns
            fn.est_ns = cost_ns if est_ns is None else est_ns + ((cost_ns - est_ns) >> 3)
        plain = message.specials is None and len(found) == len(jobs)
        if self._ledger.output.rings:  # what a durable job has printed is stored with its outcome
            plain = plain and client is not None and not client.patient
        if plain and client is not None and client.parent is None:
            self._ledger.finish_plain(client, found, message, buffers, now)
        else:
            self._finish_each(jobs, message, buffers, now)
        self._ps.rest(record)

    def _count_large(self, jobs: list[Job | None], sizes: list[int]) -> None:
        functions = self._counters.functions
        for job, size in zip(jobs, sizes, strict=True):
            if size >= SMALL_BYTES and job is not None:
                job.fn.bulky = True
            if size >= LARGE_BYTES and job is not None and job.session.parent is None:
                functions.of(job.fn).add_large(size)

    def recovered(
        self, record: PRecord, message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Outcomes that a deaf or dead worker did not send. Its own message, later, is no news."""
        self.finished(record, message, buffers, now)
        record.collected.update(message.tokens)

    def _unknown(self, record: PRecord, tokens: Sequence[int], now: int) -> None:
        """Outcomes of leases that ended: old ones, or recovered from shared memory before; and of
        such as ran on past their time limit."""
        tokens = [token for token in tokens if not self._limits.ended(record, token, now)]
        late = record.collected.intersection(tokens)
        record.collected -= late
        if len(late) < len(tokens):
            self._counters.dropped["unknown_token"] += len(tokens) - len(late)

    def _finish_each(
        self, jobs: list[Job | None], message: Finished, buffers: Sequence[Buffers], now: int
    ) -> None:
        ledger, specials = self._ledger, message.specials or {}
        rows = zip(
            jobs, message.payloads, buffers, message.ran_us, message.occupied_us, strict=True
        )
        for i, (job, payload, own, ran_us, occupied_us) in enumerate(rows):
            if job is None:
                continue
            if job.session.parent is None:
                ledger.counters.functions.of(job.fn).occupied_ns += occupied_us * 1000
            special = specials.get(i)
            if special is None:
                ledger.finish(job, Outcome.OK, None, now, payload, own, ran_us, told=message.told)
                continue
            outcome = Outcome(special[0])
            if not ledger.retried(job, outcome, now, payload, special[1], ran_us):
                ledger.finish(job, outcome, special[1] or {}, now, payload, own, ran_us)

    # -- beginnings ------------------------------------------------------------------------------

    def started(self, record: PRecord, tokens: Sequence[int], now: int) -> None:
        """Leases that began and did not end at once."""
        self._begin(record, tokens, now, told=True)
        self._ps.rest(record)

    def expired(self, record: PRecord, tokens: Sequence[int], now: int) -> None:
        """The time limits of these have passed, and their frames have not ended."""
        for token in tokens:
            if record.job(token) is None and token not in record.overrunning:
                self._counters.dropped["unknown_token"] += 1
            self._limits.passed(record, token, now)
        self._ps.rest(record)

    def set_aside(self, record: PRecord, tokens: Sequence[int]) -> None:
        """These wait in their worker, while it begins others. One that ended meanwhile does not."""
        record.aside.update(token for token in tokens if token in record.fresh)

    def returned(self, record: PRecord, tokens: Sequence[int], now: int) -> None:
        """The bridge to a host claimed these and sent them there, where they have not begun: they
        wait again, and this was no attempt."""
        back = []
        for token in tokens:
            job = record.end_lease(token)
            if job is not None:
                back.append(job)
            elif not self._limits.ended(record, token, now):  # else its time limit had passed
                self._counters.dropped["unknown_token"] += 1
        self._ledger.take_back(back, now)
        self._ps.rest(record)

    def withheld(
        self, record: PRecord, tokens: Sequence[int], nbytes: Sequence[int], now: int
    ) -> None:
        """These have ended; their worker keeps the results until it is asked for them."""
        self._begin(record, [token for token in tokens if token in record.fresh], now)
        for token, size in zip(tokens, nbytes, strict=True):
            job = record.started.pop(token, None)
            if job is None:
                # Its time limit has passed, or it was recovered: its end is still to be told.
                self._out.append(Withhold(record, [token], False))
            else:
                record.withheld[token] = job
                if self._ledger.gates.passes:
                    self._ledger.gates.ended(job, now)
                job.session.kept[job.seq] = size
                self._ledger.releasing[job.session.sid] = job.session
        self._ps.rest(record)

    def claimed(self, record: PRecord, tokens: Sequence[int], now: int) -> None:
        """A deaf worker has begun these, and could not say so."""
        self._begin(record, [token for token in tokens if token in record.fresh], now)
        self._ps.rest(record)

    def _begin(
        self, record: PRecord, tokens: Sequence[int], now: int, *, told: bool = False
    ) -> None:
        """``told``: by its worker. Else they are claimed, a moment before they begin."""
        running: dict[Session, list[int]] = {}
        gates, withdrawn = self._ledger.gates, self._ledger.withdrawn
        for token in tokens:
            job = record.fresh.pop(token, None)
            if job is None:
                # That it was claimed, or its outcome, may have shown before its worker's word came.
                late = token in record.overrunning or token in record.collected
                if token not in record.started and not late:
                    self._counters.dropped["unknown_token"] += 1
                elif gates.passes and (job := record.started.get(token)) is not None:
                    gates.started(job, now)
                continue
            record.used_ns -= job.est_ns
            transition(job, JobState.STARTED)
            record.started[token] = job
            if job.options is not None:
                if withdrawn:  # too late for that
                    withdrawn.pop(job, None)
                self._limits.began(record, job, now)
                if told and gates.passes:
                    gates.started(job, now)
                if job.options.kill_after is not None:
                    self._replacing.began(record, job, job.options.kill_after, now)
            running.setdefault(job.session, []).append(job.seq)
        self._out.extend(
            NotifyRunning(session, seqs)
            for session, seqs in running.items()
            if session.parent is None and self._ledger.is_open(session)
        )

    # -- what was asked of them ------------------------------------------------------------------

    def revoked(self, record: PRecord, event: Revoked, thief: PRecord | None, now: int) -> None:
        """Some leases were revoked, the others are claimed. So each revocation leaves fewer
        fresh jobs than before, and the next turn may continue from there."""
        jobs = [job for token in event.got if (job := record.fresh.pop(token, None)) is not None]
        claimed = [token for token in event.tokens if token in record.fresh]
        record.used_ns -= sum(job.est_ns for job in jobs)
        self._begin(record, claimed, now)
        # With a cancel, also what its worker said to have started since it was to be revoked.
        begun = claimed if event.thief is not None else event.tokens
        cancels = [
            token
            for token in begun
            if (job := record.started.get(token)) is not None and job.cancelling
        ]
        if cancels:
            self._out.append(CancelAt(record, cancels))
        if event.thief is not None:
            self._counters.steal.add(now - event.asked_ns)
            record.stolen_from += len(jobs)
            for job in jobs:
                job.moved = True
                job.moves += 1
        if thief is not None:
            thief.steal_hits += bool(jobs)
            thief.steal_misses += not jobs
        self._ledger.take_back(jobs, now)
        self._ps.rest(record)

    def not_cancelled(self, record: PRecord, tokens: Sequence[int]) -> None:
        """A cancel came too late for these."""
        for token in tokens:
            job = self._ledger.leased_to(record, token)
            if job is None or job.session.parent is not None:
                continue
            if self._ledger.is_open(job.session):
                self._out.append(NotifyNotCancelled(job.session, [job.seq]))


def _sizes(message: Finished, buffers: Sequence[Buffers]) -> list[int] | None:
    """The bytes of each result; None if all are small."""
    if message.buffer_counts is None and sum(map(len, message.payloads)) < SMALL_BYTES:
        return None
    return [
        len(payload) + sum(map(len, own))
        for payload, own in zip(message.payloads, buffers, strict=True)
    ]


def _costs_ns(occupied_ns: list[int], sizes: list[int]) -> list[int]:
    """The cost of each job for the credit of its function: the time it occupied P, and that of its
    result's way. By time alone, a P gets hundreds of short jobs with large results, and the
    outcomes behind them wait until the coordinator has read all of those."""
    return [ns + NS_PER_BYTE * size for ns, size in zip(occupied_ns, sizes, strict=True)]
