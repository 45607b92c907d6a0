"""How jobs come in: a batch is accepted whole, or refused whole and says why.

Every limit on what is held is checked here, and nowhere else. It does not know who will run a job.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gmpd.errors import ProtocolError
from gmpd.protocol import Outcome, Reason, Submit
from gmpd.sched.functions import PART
from gmpd.sched.ledger import Ledger
from gmpd.sched.records import NO_BUFFERS, Buffers, Function, Job, Session
from gmpd.sched.states import JobState
from gmpd.sched.waiting import Waiting

#: Refusals after which a client may be told when there is room.
_FOR_A_WHILE = frozenset({"queue_jobs", "queue_bytes"})


class Acceptance:
    """The door of the ledger."""

    def __init__(self, ledger: Ledger, waiting: Waiting) -> None:
        self._ledger = ledger
        self._waiting = waiting

    def submit(
        self, session: Session, message: Submit, buffers: Sequence[Buffers], now: int
    ) -> None:
        """Accept a batch, or refuse all of it with a reason: every job gets an outcome.

        Raises ProtocolError, nothing changed, for an unknown function or a seq that is in use.
        """
        fn = session.functions.get(message.fid)
        if fn is None or fn.kind == PART:
            raise ProtocolError(f"Submit names function {message.fid}, which was never defined")
        seqs = range(message.first_seq, message.first_seq + len(message.payloads))
        if not session.jobs.keys().isdisjoint(seqs):
            raise ProtocolError(f"Submit repeats a seq from {message.first_seq} on")
        nbytes = sum(map(len, message.payloads))
        if any(buffers):
            nbytes += sum(len(b) for bs in buffers for b in bs)
        refusal = self._refusal(session, len(message.payloads), nbytes)
        if refusal is not None:
            told = session.waits and refusal[0] in _FOR_A_WHILE
            if told:
                self._waiting.refused(session, len(seqs), nbytes)
            self._reject(session, seqs, *refusal, told=told)
            return
        self._waiting.accepted(session, len(seqs), now)
        delay_ns = 0 if message.options is None else int(message.options.delay * 1e9)
        state = JobState.DELAYED if delay_ns else JobState.QUEUED
        jobs = self._accept(session, fn, message, buffers, state, now)
        self._ledger.jobs_nbytes += nbytes
        session.nbytes += nbytes
        if delay_ns:
            self._ledger.delays.add(jobs, now + delay_ns)
        else:
            self._ledger.put(jobs)

    def _refusal(self, session: Session, n: int, nbytes: int) -> tuple[Reason, str, int] | None:
        """(reason label, text, room) when a limit refuses ``n`` more jobs."""
        ledger, policy = self._ledger, self._ledger.policy
        if ledger.draining:
            return "draining", "the daemon is draining and takes no more jobs", 0
        if session.owed + n > policy.window:
            room = max(0, policy.window - session.owed)
            return "window", f"this client's window of {policy.window} jobs is full", room
        free = policy.queue_jobs - ledger.unfinished - self._waiting.kept_from(session)
        if n > free:
            room = max(0, free)
            return "queue_jobs", f"limits.queue_jobs = {policy.queue_jobs} jobs are held", room
        if nbytes > policy.queue_bytes and n == 1:
            return (
                "too_large",
                f"its arguments have more than limits.queue_bytes = {policy.queue_bytes}",
                0,
            )
        room = self._waiting.bytes_for(session)
        if nbytes > room:
            text = (
                f"arguments of {ledger.jobs_nbytes} bytes, {session.nbytes} of them this client's,"
                f" are held; limits.queue_bytes = {policy.queue_bytes}, and a client may hold at"
                " most as much as remains free"
            )
            return "queue_bytes", text, room * n // nbytes
        return None

    def _reject(
        self,
        session: Session,
        seqs: Collection[int],
        label: Reason,
        text: str,
        room: int,
        *,
        told: bool,
    ) -> None:
        if session.parent is None:
            self._ledger.tally.rejected[label] += len(seqs)
        details: dict[str, Any] = {"reason": label, "text": text, "room": room, "retry_after": 0.1}
        if told:
            details["told"] = True
        special = Outcome.REJECTED, details
        for seq in seqs:
            self._ledger.outboxes.add(session, seq, b"", NO_BUFFERS, 0, special)

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
        self._ledger.unfinished += len(jobs)
        if session.parent is None:
            self._ledger.tally.submitted += len(jobs)
        else:
            self._ledger.tally.children += len(jobs)
            session.parent.lost += len(jobs)
        return jobs
