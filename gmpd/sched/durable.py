"""The policy of durable jobs: which of them run now, and what follows from how an attempt ended.

**The idea.** To the rest of the policy durable jobs are those of one more client, whose session is
always open. This module is that client: it takes jobs from the store, a window of them at a time,
submits them, and has their ends stored. A job's arguments are in memory only while it is in the
window, so a million of them can wait.

**Rejected.** Durable jobs in the ledger, each change of state written: the ledger would wait for
the disk, and would hold all jobs in memory.

**The order of things**, on which the promises rest:

- A job is acknowledged after the transaction that has it was flushed, and submitted only then.
- The end of an attempt is stored before the job is submitted again, and before any client is told.
  The session acknowledges an outcome to the ledger only then, so outcomes that the disk does not
  take are held back like those that a client does not take.
- An attempt follows another one only when the ledger has reported the end of the first: its frame
  has ended, or its worker is confirmed dead.

It does no IO and reads no clock: the shell executes ``Ports``. How an attempt is judged is in
``durable_ends``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from gmpd import protocol
from gmpd.protocol import Outcome
from gmpd.sched import events
from gmpd.sched.counters import Counters
from gmpd.sched.durable_cancels import Cancels
from gmpd.sched.durable_counts import DurableCounts
from gmpd.sched.durable_ends import Held, Judge, known_to, result_of
from gmpd.sched.durable_functions import DefinedFunctions
from gmpd.sched.durable_limits import LimitedShare, Sizes
from gmpd.sched.durable_waiters import Waiters
from gmpd.sched.records import Failure, Outcomes
from gmpd.sched.stored import (
    Again,
    Answer,
    CancelJobs,
    Ended,
    Find,
    Finish,
    Freed,
    GiveBack,
    ListJobs,
    NewJob,
    Operation,
    PutJobs,
    PutResult,
    QueuedJob,
    ReadLog,
    Replaced,
    Retry,
    Revive,
    StoredFunction,
    StoredLog,
    StoredSchedule,
    StoredState,
    StoreFailure,
    Story,
    Sweep,
    Swept,
    TakeJobs,
    Taken,
    Verdict,
    alike,
    as_queued,
    running,
)

#: The ledger had no room, or the daemon no worker: the jobs are submitted again after this (ms).
PAUSE_MS = 1000
#: How often the store is searched for jobs whose times have passed, at least and at most (ms).
SWEEP_MIN_MS = 1000
SWEEP_MAX_MS = 3_600_000

Told = Callable[["Answer | StoreFailure"], None]
_A = TypeVar("_A")
_BAD = frozenset({"error", "timeout", "lost"})
#: Of these the frame may not have ended.
_EARLY = frozenset({"timeout", "cancelled"})
_PLAIN: dict[str, Any] = {"builtin_types": (bytes,), "str_keys": True}  # bytes stay bytes


class Ports(Protocol):
    """Calls of this policy that the shell executes."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def store(self, operation: Operation, told: Told) -> None:
        """Have an operation applied; ``told`` gets the answer, in order, once it is on disk."""

    def feed(self, event: events.ClientEvent) -> None:
        """Give an event to the rest of the policy."""

    def reply(self, link: Any, request: int, *, ok: bool, value: Any) -> None:
        """Answer a client's question."""

    def failed(self, failure: Failure) -> None:
        """An attempt did not end well."""

    def live_log(self, seq: int, after: int) -> dict[str, Any] | None:
        """The output of a running attempt from byte ``after`` on; None if it has not begun."""

    def where(self, seq: int) -> dict[str, Any]:
        """Where an attempt runs (``p``, ``pid``), its ``progress``, and what it ``waits_for``."""

    def limit(self, key: str) -> dict[str, Any] | None:
        """The limit of a key as it is now; None if no job of it is held."""

    def overrunning(self) -> Collection[int]:
        """Seqs of attempts whose frames run on although the ledger has reported an end."""


_SIZES = Sizes()


class Durable:
    """The client that submits durable jobs, as session ``sid``. Not for two threads.

    ``counters``: those of the policy, in which it counts jobs that are stored or have ended.
    """

    def __init__(
        self, ports: Ports, sid: int, judge: Judge, counters: Counters, sizes: Sizes = _SIZES
    ) -> None:
        self._ports = ports
        self._sizes = sizes
        self._sid = sid
        self._judge = judge
        self._counts = DurableCounts(counters)
        self._next_seq = 1
        self._by_seq: dict[int, Held] = {}
        self._by_id: dict[bytes, Held] = {}
        self._functions = DefinedFunctions(self._sid, self._ports.feed)
        #: Places of the window that jobs have which are being stored.
        self._reserved = 0
        #: The store may have jobs that are due and not in the window.
        self._backlog = True
        self._limited = LimitedShare(sizes)
        self._taking = False
        #: Keys of limits whose starts before this daemon are known to their gates.
        self._recalled: set[str] = set()
        #: When a job of the store will be due, and when to sweep (ms).
        self._due_ms: int | None = None
        self._sweep_ms = 0
        self._delivered = 0
        self._draining = False
        #: Jobs that ended before their frames, perhaps: they were cancelled or ran out of time.
        self._left: dict[bytes, int] = {}
        self._cancels = Cancels(self._by_id, self._end)
        self._waiters = Waiters(ports)

    def __repr__(self) -> str:
        more = ", more in the store" if self._backlog else ""
        return f"<Durable: {len(self._by_seq)} jobs in the window{more}>"

    @property
    def held(self) -> int:
        """Jobs in the window."""
        return len(self._by_seq)

    def identities(self, seqs: Iterable[int]) -> list[tuple[bytes, int]]:
        """Ids of submitted jobs, and the numbers of their attempts; of one that is not in the
        window any more, no id."""
        window = self._by_seq
        return [
            (window[seq].job.id, window[seq].job.attempt) if seq in window else (bytes(16), 1)
            for seq in seqs
        ]

    def running_now(self) -> int:
        """Attempts that have begun, and did not end at once."""
        return sum(held.started_ms > 0 for held in self._by_seq.values())

    # -- clients -----------------------------------------------------------------------------------

    def enqueue(
        self, link: Any, request: int, jobs: Sequence[NewJob],
        functions: Sequence[StoredFunction], schedule: StoredSchedule | None = None,
    ) -> None:  # fmt: skip
        """Store jobs, and the schedule whose tick they are; the reply has a verdict for each."""
        wall_ms = self._ports.wall_ms()
        take = (
            not (self._backlog or self._taking or self._draining)
            and self.held + self._reserved + len(jobs) <= self._sizes.window
            and all(job.run_at_ms <= wall_ms and not job.limit for job in jobs)
        )
        if take:
            self._reserved += len(jobs)

        def told(answer: Answer | StoreFailure) -> None:
            if take:
                self._reserved -= len(jobs)
            if isinstance(answer, StoreFailure):
                self._ports.reply(link, request, ok=False, value=answer.text)
                return
            result = _expect(answer, PutResult)
            value = {"verdicts": bytes(result.verdicts), "ids": list(result.ids)}
            self._ports.reply(link, request, ok=True, value=value)
            self._stored(jobs, functions, result, taken=take)

        self._ports.store(PutJobs(tuple(functions), tuple(jobs), take, schedule), told)

    def _stored(
        self,
        jobs: Sequence[NewJob],
        functions: Sequence[StoredFunction],
        result: PutResult,
        *,
        taken: bool,
    ) -> None:
        """Jobs are on disk: they run, or wait there."""
        fresh = [
            (job, number)
            for job, number, verdict in zip(jobs, result.numbers, result.verdicts, strict=True)
            if verdict is Verdict.NEW
        ]
        self._counts.stored(len(fresh))
        if result.replaced is not None:
            fresh = self._replaced(result.replaced, fresh)
        if not fresh:
            return
        if taken:
            self._submit([as_queued(job, number) for job, number in fresh], functions)
            return
        for job, _ in fresh:
            # The clock may have been set back since: what was not to wait does not.
            at_ms = job.run_at_ms if job.run_at_ms > job.created_ms else 0
            if not job.limit or at_ms or self._limited.stored(job.limit):
                self.is_due(at_ms)
            self._sweep_by(job.expires_ms)
        self._refill()

    def _replaced(
        self, replaced: Replaced, fresh: list[tuple[NewJob, int]]
    ) -> list[tuple[NewJob, int]]:
        """Jobs have taken the places of others. Gives those of the new ones that may run."""
        for job, _ in fresh:
            self._sweep_by(job.expires_ms)
        self._ended_in_store(replaced.ended, Outcome.CANCELLED)
        self._cancels.replace(replaced)
        return [(job, number) for job, number in fresh if job.id not in replaced.aside]

    def await_result(self, link: Any, request: int, id_: bytes) -> None:
        """Reply when this job has ended; at once if it has, or if there is no such job."""
        self._waiters.add(link, request, id_)

    def forget(self, link: Any) -> None:
        """A client has gone: it waits for nothing."""
        self._waiters.forget(link)

    def ask(self, link: Any, request: int, operation: Operation, owner: str | None = None) -> None:
        """A question, or a change, of stored jobs that needs no decision. ``owner``: to one that
        may know this owner's jobs only, others are not there."""

        def told(answer: Answer | StoreFailure) -> None:
            if isinstance(answer, StoreFailure):
                self._ports.reply(link, request, ok=False, value=answer.text)
                return
            if isinstance(operation, Find) and owner is not None:
                answer = known_to(owner, answer)
            value = msgspec.to_builtins(answer, **_PLAIN)
            if isinstance(operation, Find | ListJobs):
                self._tell_where(value)
            elif isinstance(operation, Story) and (held := self._by_id.get(operation.id)):
                value = [*value, *self._running(held)]
            self._ports.reply(link, request, ok=True, value=value)

        self._ports.store(operation, told)

    def ask_running(
        self, link: Any, request: int, function: str, limit: int, owner: str | None
    ) -> None:
        """Jobs whose attempts have begun, the newest first, as ``ListJobs`` gives them."""
        begun = [held for held in self._by_seq.values() if held.started_ms]
        if function:
            begun = [held for held in begun if self._functions[held.job.function].name == function]
        begun.sort(key=lambda held: held.job.number, reverse=True)
        self.ask(link, request, Find(tuple(held.job.id for held in begun[:limit])), owner)

    def _running(self, held: Held) -> list[dict[str, Any]]:
        """The attempt that runs, as ``Story`` gives those that have ended."""
        if not held.started_ms:
            return []
        live, ran_ms = self._ports.where(held.seq), self._ports.wall_ms() - held.started_ms
        return [running(held.job.attempt, held.started_ms, ran_ms, held.job.deaths, live)]

    def log(self, link: Any, request: int, id_: bytes, n: int | None, after: int) -> None:
        """Reply with the output of an attempt: live while it runs, else from the store."""
        held = self._by_id.get(id_)
        if held is not None and n in (None, held.job.attempt):
            live = self._ports.live_log(held.seq, after)
            if live is not None:
                value = {"n": held.job.attempt, **live, "last": held.job.attempt - 1}
                self._ports.reply(link, request, ok=True, value=value)
                return

        def told(answer: Answer | StoreFailure) -> None:
            if isinstance(answer, StoreFailure):
                self._ports.reply(link, request, ok=False, value=answer.text)
                return
            value = None
            if answer is not None:
                log = _expect(answer, StoredLog)
                start = log.end - len(log.log)
                data = log.log[max(0, after - start) :]
                value = {"n": log.n, "data": data, "end": log.end, "runs": False}
                value |= {"last": log.last, "over": log.is_over}
            self._ports.reply(link, request, ok=True, value=value)

        self._ports.store(ReadLog(id_, n), told)

    def revive(self, link: Any, request: int, ids: Sequence[bytes]) -> None:
        """Run ended jobs again; the reply has the ids of those that do. A job whose last attempt
        has not left its frame yet is none of them: two attempts would run at once."""
        self._drop_ended_frames()
        ids = [id_ for id_ in ids if id_ not in self._left]

        def told(answer: Answer | StoreFailure) -> None:
            if isinstance(answer, StoreFailure):
                self._ports.reply(link, request, ok=False, value=answer.text)
                return
            revived = list(_expect(answer, tuple))
            self._counts.stored(len(revived))
            self._ports.reply(link, request, ok=True, value=revived)
            self.is_due(self._ports.wall_ms())
            self._refill()

        self._ports.store(Revive(tuple(ids), self._ports.wall_ms()), told)

    def _drop_ended_frames(self) -> None:
        running = self._ports.overrunning()
        self._left = {id_: seq for id_, seq in self._left.items() if seq in running}

    def cancel(self, link: Any, request: int, ids: Sequence[bytes], *, force: bool = False) -> None:
        """End jobs that wait; ask those to end that run. The reply lists both. ``force``: replace
        the workers of functions that do not end, also of those whose end was told."""
        cancel = self._cancels.begin(ids, force=force)
        left = [id_ for id_ in ids if id_ in self._left] if force else []
        if left:
            self._end([self._left[id_] for id_ in left], force)

        def told(answer: Answer | StoreFailure) -> None:
            self._cancels.answered(cancel)
            if isinstance(answer, StoreFailure):
                self._ports.reply(link, request, ok=False, value=answer.text)
                return
            cancelled = list(_expect(answer, tuple))
            value = {"cancelled": cancelled, "asked": [*cancel.asked, *left]}
            self._ports.reply(link, request, ok=True, value=value)
            self._ended_in_store(cancelled, Outcome.CANCELLED)

        self._ports.store(CancelJobs(tuple(ids), self._ports.wall_ms()), told)

    def _end(self, seqs: list[int], force: bool = False) -> None:
        self._ports.feed(events.Cancelled(self._sid, seqs, force))

    # -- the window --------------------------------------------------------------------------------

    def is_due(self, at_ms: int) -> None:
        """A job of the store can run from then on."""
        if at_ms <= self._ports.wall_ms():
            self._backlog = True
        elif self._due_ms is None or at_ms < self._due_ms:
            self._due_ms = at_ms

    def _refill(self) -> None:
        """Take jobs from the store if some are due and there is room for a good many."""
        free = self._sizes.window - self.held - self._reserved
        if not self._backlog or self._taking or self._draining or free < self._sizes.refill:
            return
        self._taking, self._backlog = True, False
        take = TakeJobs(self._ports.wall_ms(), free, **self._limited.wanted()._asdict())
        self._ports.store(take, self._took)

    def _took(self, answer: Answer | StoreFailure) -> None:
        self._taking = False
        if isinstance(answer, StoreFailure):
            return
        taken = _expect(answer, Taken)
        if taken.more:  # else what has become due since it was asked stays known
            self._backlog = True
        if taken.next_ms is not None:
            self.is_due(taken.next_ms)
        self._recall(taken)
        self._submit(taken.jobs, taken.functions)
        if self._limited.took(taken.left, cut=taken.cut):
            self._backlog = True
        self._ended_in_store(taken.ended, Outcome.ERROR)
        self._refill()

    def _recall(self, taken: Taken) -> None:
        """Starts before this daemon count for limits by interval."""
        wall_ms = self._ports.wall_ms()
        for job in taken.jobs if taken.starts else ():
            limit = self._judge.options(job, wall_ms).limit
            if limit is None or not (starts := taken.starts.get(limit[0])):
                continue
            if limit[0] not in self._recalled:
                self._recalled.add(limit[0])
                ago_ns = tuple(max(0, wall_ms - at_ms) * 1_000_000 for at_ms in starts)
                self._ports.feed(events.StartsRecalled(self._sid, limit, ago_ns))

    def _submit(self, jobs: Sequence[QueuedJob], functions: Sequence[StoredFunction]) -> None:
        if self._draining:
            self._give_back([job.number for job in jobs])
            return
        for function in functions:
            self._functions.define(function)
        for run in alike(jobs, protocol.BATCH_JOBS_MAX):
            self._submit_run(run)
        self._functions.shrink()

    def _submit_run(self, run: list[QueuedJob]) -> None:
        """Jobs of one function with the same options."""
        function = self._functions[run[0].function]
        first = self._next_seq
        self._next_seq += len(run)
        options = self._judge.options(run[0], self._ports.wall_ms())
        limit = options.limit
        for seq, job in enumerate(run, first):
            self._by_seq[seq] = self._by_id[job.id] = Held(job, seq, limit[0] if limit else "")
            if limit is not None:
                self._limited.held(limit)
        function.users += len(run)
        payloads = [job.payload for job in run]
        submit = protocol.Submit(function.fid, first, options, payloads, None)
        self._ports.feed(events.Submitted(self._sid, submit, [job.buffers for job in run]))
        self._cancels.submitted([job.id for job in run])

    def _give_back(self, numbers: Sequence[int], at_ms: int | None = None) -> None:
        self._ports.store(GiveBack(tuple(numbers), self._ports.wall_ms(), at_ms), self._freed)
        if at_ms is not None:
            self.is_due(at_ms)

    # -- attempts end ------------------------------------------------------------------------------

    def ended(self, out: Outcomes) -> None:
        """Attempts have ended: their ends are stored, then told."""
        wall_ms = self._ports.wall_ms()
        finished: list[Ended] = []
        again: list[Again] = []
        back: list[int] = []
        ids: list[bytes] = []
        for row, seq in enumerate(out.seqs):
            held = self._leaves(seq)
            verdict = self._judge.judge(held, out, row, wall_ms)
            if verdict is not None:
                self._tell(held, verdict, out, row)
            match verdict:
                case Ended():
                    if verdict.attempt.outcome in _EARLY:
                        self._left[held.job.id] = seq
                    finished.append(verdict)
                    ids.append(held.job.id)
                case Again():
                    again.append(verdict)
                    self._sweep_by(held.job.expires_ms)
                case None:
                    back.append(held.job.number)
                    self._sweep_by(held.job.expires_ms)
        self._delivered += len(out.seqs)
        if len(self._left) > self._sizes.window:
            self._drop_ended_frames()
        if back:
            self._give_back(back, None if self._draining else wall_ms + PAUSE_MS)
        if again:
            self._ports.store(Retry(tuple(again)), self._freed)
            self.is_due(min(row.run_at_ms for row in again))
        self._ports.store(Finish(tuple(finished)), self._finished(self._delivered, ids, finished))

    def _ended_in_store(self, ids: Collection[bytes], outcome: Outcome) -> None:
        """Jobs that were not in the window have ended there."""
        self._counts.ended_in_store(len(ids), outcome)
        self._waiters.ended_in_store(ids)

    def _leaves(self, seq: int) -> Held:
        """It is in the window no more."""
        held = self._by_seq.pop(seq)
        del self._by_id[held.job.id]
        self._functions[held.job.function].users -= 1
        if not held.started_ms:
            self._begun(held)
        return held

    def _tell(self, held: Held, verdict: Ended | Again, out: Outcomes, row: int) -> None:
        """An attempt ended: count it, and report it if it did not end well."""
        name, end = self._functions[held.job.function].name, verdict.attempt
        self._counts.judged(name, verdict)
        if end.outcome not in _BAD:
            return
        again = isinstance(verdict, Again)
        id_, outcome, text = held.job.id.hex(), Outcome[end.outcome.upper()], end.text
        if end.error:  # its text is in there
            text = (out.specials[row][1] or {}).get("remark", "")
        self._ports.failed(
            Failure(id_, name, "durable jobs", outcome, end.n, again, text, end.error, end.p)
        )

    def _finished(self, delivered: int, ids: list[bytes], rows: list[Ended]) -> Told:
        def told(answer: Answer | StoreFailure) -> None:
            if isinstance(answer, StoreFailure):
                self._waiters.fail(answer.text)  # nothing is acknowledged: it runs again
                return
            self._ports.feed(events.Acknowledged(self._sid, delivered))
            for id_, row in zip(ids, rows, strict=True):
                self._waiters.ended(id_, partial(result_of, row))
            self._freed(answer)
            self._refill()

        return told

    def _freed(self, answer: Answer | StoreFailure) -> None:
        """Jobs that have ended, or came back, may have had keys for which others wait."""
        if isinstance(answer, Freed):
            self._backlog = True
            self._ended_in_store(answer.ended, Outcome.CANCELLED)
            self._refill()

    def running(self, seqs: Iterable[int]) -> None:
        """Attempts have begun and did not end at once."""
        wall_ms = self._ports.wall_ms()
        for held in filter(None, map(self._by_seq.get, seqs)):
            if not held.started_ms:
                self._begun(held)
            held.started_ms = wall_ms
        self._refill()

    def _begun(self, held: Held) -> None:
        """It does not wait for its limit any more."""
        if held.limit and self._limited.gone(held.limit):
            self._backlog = True

    def _tell_where(self, jobs: Iterable[dict[str, Any] | None]) -> None:
        """The store does not know which jobs run."""
        for job in jobs:
            if job is not None:
                held = self._by_id.get(job["id"])
                job["runs_since_ms"] = None if held is None else held.started_ms or None
                if held is not None:
                    job |= self._ports.where(held.seq)
                elif job["waits"]:
                    job["stage"] = {"stage": "held", "holder": ""}
                elif job["limit"] and job["state"] == StoredState.QUEUED:
                    due = job["run_at_ms"] <= self._ports.wall_ms()
                    job["waits_for"] = self._ports.limit(job["limit"]) if due else None

    # -- time --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due; see ``next_ms``."""
        wall_ms = self._ports.wall_ms()
        if self._due_ms is not None and self._due_ms <= wall_ms:
            self._due_ms = None
            self._backlog = True
        self._refill()
        if self._sweep_ms <= wall_ms:
            self._sweep_ms = wall_ms + SWEEP_MAX_MS
            self._ports.store(Sweep(wall_ms), self._swept)

    def _sweep_by(self, expires_ms: int | None) -> None:
        """A job that expires then waits in the store."""
        if expires_ms is not None:
            self._sweep_ms = min(self._sweep_ms, expires_ms)

    def _swept(self, answer: Answer | StoreFailure) -> None:
        if isinstance(answer, StoreFailure):
            return
        swept = _expect(answer, Swept)
        self._ended_in_store(swept.expired, Outcome.TIMEOUT)
        if swept.next_ms is not None:
            soonest = self._ports.wall_ms() + SWEEP_MIN_MS
            self._sweep_ms = min(self._sweep_ms, max(swept.next_ms, soonest))

    def next_ms(self) -> int:
        """When ``tick`` has something to do (ms since 1970)."""
        return self._sweep_ms if self._due_ms is None else min(self._due_ms, self._sweep_ms)

    def drain(self, unbegun: Iterable[int]) -> None:
        """Submit no more. ``unbegun``: seqs that no worker has; they stay in the store."""
        self._draining = True
        if seqs := [seq for seq in unbegun if seq in self._by_seq]:
            self._end(seqs)


def _expect(answer: Any, kind: type[_A]) -> _A:
    assert isinstance(answer, kind), answer
    return answer
