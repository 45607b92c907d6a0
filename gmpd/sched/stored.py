"""Durable jobs as a store keeps them, and the operations on a store, as values.

The counterpart of ``events`` and ``instructions`` for the policy of durable jobs (``durable``): it
returns operations, the shell has them applied (``daemon.store``), and gives the results back. Times
are milliseconds since 1970, as they must mean the same after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

#: One job of a function that cannot be imported is tried again after this (ms).
BLOCKED_MS = 5_000


class StoredState(IntEnum):
    """Where a durable job is. The numbers are in stores: none is ever given another meaning."""

    #: It waits, or runs: a store does not know which, as neither survives the coordinator.
    QUEUED = 0
    #: It must not run twice, and may have begun: the next coordinator makes it UNKNOWN.
    LEASED = 1
    #: Its function cannot be imported. It waits until it can be, or is cancelled.
    BLOCKED = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5
    #: It could not begin before its ``expires``.
    EXPIRED = 6
    #: It ended its worker too often.
    QUARANTINED = 7
    #: It is not to run twice, and its end was not seen.
    UNKNOWN = 8


class Verdict(IntEnum):
    """The answer about one job that was to be stored."""

    NEW = 0
    #: The same job is there already.
    SAME = 1
    #: Another job has this id.
    CONFLICT = 2
    #: A job with this ``unique`` key has not ended.
    HELD = 3


class StoredFunction(Struct, frozen=True, gc=False):
    """A function of durable jobs. ``digest`` names it; ``needs`` are digests of parts."""

    digest: bytes
    kind: str
    name: str
    payload: bytes
    needs: tuple[bytes, ...] = ()


class NewJob(Struct, frozen=True, gc=False):
    """A job to be stored. ``digest``: of its function, arguments and options, so that the same id
    with another content is found out. ``buffers``: the out-of-band frames of ``payload``."""

    id: bytes
    digest: bytes
    function: bytes
    client: str
    priority: int
    #: MessagePack of the job's options, as the wire has them.
    options: bytes
    payload: bytes
    buffers: tuple[bytes, ...]
    created_ms: int
    run_at_ms: int
    expires_ms: int | None = None
    keep_ms: int = 86_400_000
    unique: str | None = None
    once: bool = False
    #: The name of the key of its client, which is on another machine; else empty. Keys have
    #: ``unique`` keys of their own.
    owner: str = ""
    #: The key of its ``limit``; empty: it has none.
    limit: str = ""
    #: It takes the place of the job that has its ``unique`` key.
    replaces: bool = False


class QueuedJob(Struct, frozen=True, gc=False):
    """A job that is to run now. ``number`` is its place in the order of acceptance."""

    number: int
    id: bytes
    function: bytes
    options: bytes
    payload: bytes
    buffers: tuple[bytes, ...]
    attempt: int
    deaths: int
    spared: int
    expires_ms: int | None
    once: bool

    @property
    def used(self) -> int:
        """Attempts that count against ``retries``, this one included."""
        return self.attempt - self.spared


def as_queued(job: NewJob, number: int) -> QueuedJob:
    """A job that was stored as ``number`` and runs at once."""
    return QueuedJob(
        number, job.id, job.function, job.options, job.payload, job.buffers, 1, 0, 0,
        job.expires_ms, job.once,
    )  # fmt: skip


def alike(jobs: Sequence[QueuedJob], most: int) -> Iterator[list[QueuedJob]]:
    """Neighbours of one function with the same options, up to ``most`` at a time."""
    for _, same in groupby(jobs, key=_made_alike):
        run = list(same)
        for at in range(0, len(run), most):
            yield run[at : at + most]


def _made_alike(job: QueuedJob) -> tuple[bytes, bytes, int, int | None]:
    return job.function, job.options, job.used, job.expires_ms


class Attempt(Struct, frozen=True, gc=False):
    """How one attempt ended. ``outcome`` is a name in lower case, as the metrics have it.

    ``began_ms``: 0 if it was not seen to begin. ``strikes``: workers that the job has ended so far.
    ``log``: the last bytes of its output, of ``log_end`` in all; a story leaves them out.
    """

    n: int
    ended_ms: int
    ran_us: int
    p: int | None
    pid: int | None
    outcome: str
    #: ``codec.encode_error`` of what it raised.
    error: bytes
    text: str
    began_ms: int = 0
    strikes: int = 0
    log_end: int = 0
    log: bytes = b""


def running(
    n: int, began_ms: int, ran_ms: int, strikes: int, live: dict[str, Any]
) -> dict[str, Any]:
    """An attempt that has not ended, in a story. ``live``: its ``p`` and ``pid``."""
    attempt = Attempt(
        n, 0, max(0, ran_ms) * 1000, live.get("p"), live.get("pid"), "running", b"", "", began_ms,
        strikes,
    )  # fmt: skip
    return msgspec.structs.asdict(attempt)


class StoredLog(Struct, frozen=True, gc=False):
    """The output of attempt ``n``, if it has ended: ``log`` are the last of ``end`` bytes.
    ``last``: the last attempt that has ended, 0: none. ``is_over``: the job has ended."""

    n: int
    log: bytes
    end: int
    last: int
    is_over: bool


class StoredJob(Struct, frozen=True, gc=False):
    """A job as ``Find`` and ``List`` give it: all but arguments and result."""

    number: int
    id: bytes
    function: str
    client: str
    state: StoredState
    priority: int
    attempt: int
    deaths: int
    created_ms: int
    run_at_ms: int
    ended_ms: int | None
    expires_ms: int | None
    keep_ms: int
    unique: str | None
    taken: bool
    text: str
    owner: str = ""
    #: The key of its ``limit``; empty: it has none.
    limit: str = ""
    #: It waits for the end of the job that has its ``unique`` key.
    waits: bool = False


class StoredResult(Struct, frozen=True, gc=False):
    """How a job ended. ``value``: what it returned, or ``codec.encode_error`` of what it raised."""

    state: StoredState
    value: bytes
    buffers: tuple[bytes, ...]
    ran_us: int
    #: Of the last attempt.
    outcome: str
    attempt: int
    text: str


# -- operations ----------------------------------------------------------------------------------


#: The outcome of a tick whose job was removed before its end was seen.
GONE = "removed"


class StoredSchedule(Struct, frozen=True, gc=False):
    """A schedule of a periodic job, and what became of its ticks; see ``sched.cron``."""

    name: str
    #: ``Schedule.when``: with other ticks the schedule begins anew.
    when: str
    #: The fate of ticks up to this one is decided (ms).
    decided_ms: int
    #: Ticks that are to run, and are no jobs yet.
    pending: tuple[int, ...] = ()
    #: The last tick that became a job, and its id; empty: none did.
    tick_ms: int = 0
    job: bytes = b""
    #: How that ended; empty: it has not.
    outcome: str = ""
    text: str = ""
    #: Ticks that were left out so far: the run before them had not ended; nothing ran them in time.
    skipped: int = 0
    missed: int = 0
    paused: bool = False


class PutJobs(Struct, frozen=True, gc=False):
    """Store jobs and their functions. Gives a ``PutResult``. ``schedule`` is stored with the tick
    that is the job, unless that is HELD."""

    functions: tuple[StoredFunction, ...]
    jobs: tuple[NewJob, ...]
    #: They are handed to the policy at once, as ``TakeJobs`` would.
    take: bool = False
    schedule: StoredSchedule | None = None


class Replaced(Struct, frozen=True, gc=False):
    """The fate of jobs whose places others have taken. ``ended``: they had not left the store.
    ``asked``: (id, the other one's id) of those that had: they are to end, and the others wait for
    that. ``aside``: new jobs among these that are not to run now."""

    aside: frozenset[bytes]
    ended: tuple[bytes, ...]
    asked: tuple[tuple[bytes, bytes], ...]


def replaced_by(id_: bytes) -> str:
    """The text of the attempt that does not follow."""
    return f"replaced by job {id_.hex()} with the same unique key"


class Freed(Struct, frozen=True, gc=False):
    """Jobs that waited for ``unique`` keys are due. ``ended``: ids of jobs that came back, and
    ended as they are replaced."""

    ended: tuple[bytes, ...] = ()


class PutResult(Struct, frozen=True, gc=False):
    """``numbers``: of each job; of one that is HELD the number of the job that holds the key, or
    that is the next one to do so. ``replaced``: by any job of the same transaction."""

    verdicts: tuple[Verdict, ...]
    numbers: tuple[int, ...]
    ids: tuple[bytes, ...]
    replaced: Replaced | None = None


class TakeJobs(Struct, frozen=True, gc=False):
    """Take up to ``n`` jobs that are due, by priority and age; at most half of them with limits.
    Gives ``Taken``."""

    now_ms: int
    n: int
    #: How many with limits: of these keys, of each other key, of all.
    of_keys: dict[str, int] = {}
    of_others: int = 1
    limited: int = 1


class Taken(Struct, frozen=True, gc=False):
    """``functions`` are those of ``jobs``, and the parts they need, parts first. ``more``: jobs
    that are due were left. ``next_ms``: when the next job that is not due yet will be."""

    jobs: tuple[QueuedJob, ...]
    functions: tuple[StoredFunction, ...]
    more: bool
    next_ms: int | None
    #: Ids of jobs that ended instead, as their arguments are damaged.
    ended: tuple[bytes, ...] = ()
    #: Keys of limits that have jobs left which are due; and whether one of them had fewer taken
    #: than it might, as ``limited`` was reached.
    left: frozenset[str] = frozenset()
    cut: bool = False
    #: Of keys that come for the first time since the store was opened: when attempts began before,
    #: which count for the limit as these jobs have it (ms).
    starts: dict[str, tuple[int, ...]] = {}


class GiveBack(Struct, frozen=True, gc=False):
    """These were taken and have not begun: they wait again, as they were. ``run_at_ms``: until
    then, if not None. Gives ``Freed``, or None."""

    numbers: tuple[int, ...]
    now_ms: int
    run_at_ms: int | None = None


class Ended(Struct, frozen=True, gc=False):
    """One job's end."""

    number: int
    state: StoredState
    value: bytes
    buffers: tuple[bytes, ...]
    attempt: Attempt


class Finish(Struct, frozen=True, gc=False):
    """These have ended for good. Gives ``Freed``, or None."""

    rows: tuple[Ended, ...]


class Again(Struct, frozen=True, gc=False):
    """One job's next attempt. ``attempt`` tells how the last one ended."""

    number: int
    next_attempt: int
    deaths: int
    spared: int
    run_at_ms: int
    attempt: Attempt
    state: StoredState = StoredState.QUEUED


class Retry(Struct, frozen=True, gc=False):
    """These are tried again. Gives ``Freed``, or None."""

    rows: tuple[Again, ...]


class Find(Struct, frozen=True, gc=False):
    """Jobs by id: a ``StoredJob`` or None for each."""

    ids: tuple[bytes, ...]


class Results(Struct, frozen=True, gc=False):
    """Results by id: a ``StoredResult`` for each that has ended, None for others; ``False`` for
    those that are not there."""

    ids: tuple[bytes, ...]


class Story(Struct, frozen=True, gc=False):
    """The attempts of one job, in order: a tuple of ``Attempt``."""

    id: bytes


class ReadCall(Struct, frozen=True, gc=False):
    """The arguments of one job: a ``StoredCall``, None if there is no such job, or it is done."""

    id: bytes


class StoredCall(Struct, frozen=True, gc=False):
    """The arguments of a job, as its client packed them."""

    payload: bytes
    buffers: tuple[bytes, ...]


class ReadLog(Struct, frozen=True, gc=False):
    """The output of attempt ``n`` of a job, None: of the last one. Gives a ``StoredLog``; None if
    there is no such job."""

    id: bytes
    n: int | None = None


class ListJobs(Struct, frozen=True, gc=False):
    """Jobs, the newest first: a tuple of ``StoredJob``. ``before``: with smaller numbers only.
    ``owner``: those of this owner only."""

    states: tuple[StoredState, ...] = ()
    function: str = ""
    limit: int = 100
    before: int | None = None
    owner: str | None = None


class CancelJobs(Struct, frozen=True, gc=False):
    """End those of these that wait and were not taken. Gives the ids that were ended."""

    ids: tuple[bytes, ...]
    now_ms: int


class Revive(Struct, frozen=True, gc=False):
    """Ended jobs run again, from their first attempt. Gives the ids of those that do."""

    ids: tuple[bytes, ...]
    now_ms: int


class Unblock(Struct, frozen=True, gc=False):
    """Jobs whose functions could not be imported are due now. Gives None."""


class Remove(Struct, frozen=True, gc=False):
    """Forget ended jobs, their results too. Gives the ids of those that were."""

    ids: tuple[bytes, ...]


class Sweep(Struct, frozen=True, gc=False):
    """End jobs whose ``expires`` has passed, and forget up to ``n`` jobs whose keep-time is over.
    Gives ``Swept``."""

    now_ms: int
    n: int = 1000


class Swept(Struct, frozen=True, gc=False):
    """``expired``: ids of jobs that did not begin in time. ``forgotten``: how many were removed.
    ``next_ms``: when there will be something to sweep again."""

    expired: tuple[bytes, ...]
    forgotten: int
    next_ms: int | None


class Count(Struct, frozen=True, gc=False):
    """How many jobs are in each state: a dict of ``StoredState`` to a number. ``owner``: of this
    owner only."""

    owner: str | None = None


class LoadSchedules(Struct, frozen=True, gc=False):
    """Gives all of them: a tuple of ``StoredSchedule``."""


class SaveSchedule(Struct, frozen=True, gc=False):
    """Store what is known of a schedule. Gives None."""

    schedule: StoredSchedule


class DropSchedule(Struct, frozen=True, gc=False):
    """Forget a schedule. Gives None."""

    name: str


class Survey(Struct, frozen=True, gc=False):
    """The state of the whole store, for people and metrics. Gives ``Surveyed``."""


class BlockedFunction(Struct, frozen=True, gc=False):
    """A function that cannot be imported, and how many jobs wait for it. ``text``: the error."""

    name: str
    jobs: int
    text: str


class Surveyed(Struct, frozen=True, gc=False):
    """Jobs by state, the functions with most blocked jobs, and the bytes of the store."""

    states: dict[StoredState, int]
    blocked: tuple[BlockedFunction, ...]
    nbytes: int


Operation: TypeAlias = (
    PutJobs | TakeJobs | GiveBack | Finish | Retry | Find | Results | Story | ReadCall | ReadLog
    | ListJobs | CancelJobs | Revive | Unblock | Remove | Sweep | Count | Survey | LoadSchedules
    | SaveSchedule | DropSchedule
)  # fmt: skip

Answer: TypeAlias = (
    PutResult | Taken | Swept | Freed | tuple[StoredJob | None, ...] | tuple[Attempt, ...]
    | tuple[StoredResult | bool | None, ...] | tuple[StoredJob, ...] | tuple[bytes, ...]
    | dict[StoredState, int] | StoredLog | StoredCall | tuple[StoredSchedule, ...] | Surveyed | None
)  # fmt: skip

#: Operations that change nothing: there is nothing to flush.
READS = (Find, Results, Story, ReadCall, ReadLog, ListJobs, Count, Survey)


class StoreFailure(Struct, frozen=True, gc=False):
    """In place of an answer: why there is none. ``full``: it may be asked for again later."""

    text: str
    full: bool = False
