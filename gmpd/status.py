"""The status of a daemon: one declaration for `gmpd status --json`, the gateway and the metrics.

`Client.call("status")` returns it as plain maps, and `read` makes these objects of them. Totals are
cumulative over the life of the daemon and do not fall when a worker dies. Each row has all its
fields, whatever its worker does: a P without one has the pid None and counts of 0. A field that is
missing has its default, and unknown ones are ignored, so that a daemon of another version can be
read.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from msgspec import Struct, ValidationError, convert, field

from gmpd.errors import ProtocolError

T = TypeVar("T")

Counts: TypeAlias = dict[str, int]


class Hist(Struct):
    """A histogram: bucket k counts values of k bits, in nanoseconds."""

    buckets: list[int] = field(default_factory=list)
    sum_ns: int = 0
    count: int = 0

    def quantile_s(self, q: float) -> float:
        """The ``q`` quantile, in seconds: as far into its bucket as the bucket is full below it."""
        left = q * sum(self.buckets)
        for k, n in enumerate(self.buckets):
            if n and left <= n:
                low = 1 << k >> 1
                return (low + ((1 << k) - low) * left / n) / 1e9
            left -= n
        return 0.0


class KeyLimit(Struct):
    """The ``limit=`` of one key, for which jobs wait."""

    key: str = ""
    #: 0: not limited.
    at_once: int = 0
    starts: int = 0
    per_s: float = 0.0
    #: Jobs that have passed it, and whose frames have not ended.
    inside: int = 0
    #: Starts that count now.
    started: int = 0
    waiting: int = 0


class Queue(Struct, rename={"in_queue": "global"}):
    """Jobs that no worker has, and those that have not ended."""

    #: Jobs in the global queue, those included whose functions are leased one by one.
    in_queue: int = 0
    #: Of these: jobs of functions that ended several workers.
    suspects: int = 0
    oldest_age_s: float = 0.0
    #: Of arguments.
    bytes: int = 0
    #: Jobs with a delay, and retries that wait.
    delayed: int = 0
    #: Jobs that wait for the limits of their keys, and the first keys for which some do.
    limited: int = 0
    limits: list[KeyLimit] = field(default_factory=list)
    unfinished: int = 0


class Unread(Struct):
    """A client that does not read."""

    client: str = ""
    #: Since the first outcome that it has not confirmed was sent, in seconds.
    for_s: float = 0.0
    #: Outcomes that it has not confirmed, and their bytes.
    outcomes: int = 0
    bytes: int = 0


class Results(Struct):
    """Results that clients have not taken."""

    bytes: int = 0
    #: Clients that have read nothing for a second, the longest first: the first of them.
    unread: list[Unread] = field(default_factory=list)
    #: The first clients over their limit, by name, and how many there are.
    full: list[str] = field(default_factory=list)
    full_clients: int = 0
    #: Jobs that do not start until those clients take results.
    held_back: int = 0


class Jobs(Struct):
    """Totals of jobs."""

    submitted: int = 0
    #: By reason, by outcome, by reason.
    rejected: Counts = field(default_factory=dict)
    finished: Counts = field(default_factory=dict)
    retried: Counts = field(default_factory=dict)
    #: Functions that did not stop at their time limit.
    overran: int = 0


class FunctionTotals(Struct):
    """Totals of the jobs of one function. Its numbers are in those of all jobs."""

    #: `_other`: of all functions that have no row of their own.
    name: str = ""
    #: By outcome.
    finished: Counts = field(default_factory=dict)
    wait: Hist = field(default_factory=Hist)
    run: Hist = field(default_factory=Hist)
    #: On Ps, in seconds: less than the run time of jobs that wait or block.
    occupied_s: float = 0.0
    #: Results of a MiB or more: how many, their bytes, and those of the largest.
    large_results: int = 0
    large_bytes: int = 0
    largest_bytes: int = 0


class Overrun(Struct):
    """A function that runs on past its time limit."""

    name: str = ""
    client: str = ""
    over_s: float = 0.0
    #: Whether another attempt waits for its end.
    retry: bool = False


class Steals(Struct):
    """Attempts of a P to steal."""

    hit: int = 0
    empty: int = 0


class PStatus(Struct):
    """One P and its worker."""

    p: int = 0
    up: int = 0
    #: starting, idle, searching, running, draining, dead, or deaf: its loop has made no round for
    #: 250 ms while it holds work, and ``running`` names the function. Among the answers to
    #: ``stacks`` also leaving: another worker has taken its P over.
    state: str = "dead"
    #: By reason.
    restarts: Counts = field(default_factory=dict)

    # what it holds
    fresh: int = 0
    started: int = 0
    overrunning: int = 0
    overruns_now: list[Overrun] = field(default_factory=list)
    withheld: int = 0
    jobs_finished: int = 0
    steals: Steals = field(default_factory=Steals)
    #: Jobs it took from other Ps, and jobs other Ps took from it.
    stolen: int = 0
    lost: int = 0

    # its worker's process
    epoch: int = 0
    pid: int | None = None
    core: int | None = None
    cpu_s: float = 0.0
    rss: int = 0
    #: Since the worker last wrote to shared memory.
    beat_age_s: float = 0.0
    running: str | None = None
    running_s: float = 0.0

    # its scheduler's counters (runtime/stats.py)
    schedtick: int = 0
    syscalltick: int = 0
    runq: int = 0
    held: int = 0
    ms: int = 0
    idle_ms: int = 0
    max_ms_waits: int = 0
    overruns: int = 0
    overflows: int = 0
    gs_created: int = 0
    finished: int = 0
    picks: Counts = field(default_factory=dict)
    children: Counts = field(default_factory=dict)
    handoffs: Counts = field(default_factory=dict)
    gs: Counts = field(default_factory=dict)
    gc: Counts = field(default_factory=dict)
    state_s: dict[str, float] = field(default_factory=dict)


class LeavingWorker(Struct):
    """A worker that was replaced, and ends the jobs that it has begun."""

    p: int = 0
    pid: int = 0
    #: Since it left its P, in seconds.
    left_s: float = 0.0
    #: Jobs that it has begun and not ended.
    started: int = 0
    #: Functions of these, the first few.
    functions: list[str] = field(default_factory=list)
    rss: int = 0


class Recycling(Struct):
    """Replacement of workers that serve."""

    #: Workers that a reload has still to replace.
    reloading: int = 0
    #: Why a successor did not start, or why none may; empty: all is well.
    problem: str = ""
    leaving: list[LeavingWorker] = field(default_factory=list)


class IsolatedWorker(Struct):
    """The worker of one isolated job."""

    #: starting, spare, running, ending
    state: str = ""
    running: str | None = None
    running_s: float = 0.0
    pid: int | None = None
    cpu_s: float = 0.0
    rss: int = 0


class Blocked(Struct):
    """A function that cannot be imported, and the durable jobs that wait for it."""

    name: str = ""
    jobs: int = 0
    #: The error of the last attempt.
    why: str = ""


class Durable(Struct):
    """Durable jobs and their store; counts are at most about a second old."""

    #: none: no durable work was asked for, and there is no store from before; open; full: the disk
    #: is, so new ones are refused; refused: the store cannot be used; broken: the daemon ends.
    state: str = "none"
    #: Why they are refused.
    why: str = ""
    #: By state: queued, running, blocked, done, failed, cancelled, expired, quarantined, unknown.
    jobs: Counts = field(default_factory=dict)
    #: The functions with most blocked jobs.
    blocked: list[Blocked] = field(default_factory=list)
    #: Of the database.
    bytes: int = 0
    #: Jobs that are in memory.
    window: int = 0
    #: Transactions since the daemon began, and operations in them.
    commits: int = 0
    operations: int = 0


class Isolated(Struct):
    """Isolated jobs and their workers."""

    limit: int = 0
    queued: int = 0
    oldest_age_s: float = 0.0
    #: Workers started since the daemon began.
    started: int = 0
    #: Workers by state.
    states: Counts = field(default_factory=dict)
    workers: list[IsolatedWorker] = field(default_factory=list)


class Bytes(Struct, rename={"received": "in", "sent": "out"}):
    """Bytes of messages."""

    received: int = 0
    sent: int = 0


class Schedules(Struct):
    """Periodic jobs."""

    count: int = 0
    #: Why some do not run, by name.
    problems: dict[str, str] = field(default_factory=dict)


class HostStatus(Struct):
    """One host of the cluster, which is one P with the cores that it has."""

    name: str = ""
    cores: int = 0
    #: joining, idle, running, leaving; or refused, or lost: ``problem`` says why.
    state: str = "refused"
    problem: str = ""
    #: Of its P, and of the bridge to it; None: there is none.
    p: int | None = None
    pid: int | None = None
    cpu_s: float = 0.0
    #: Leases that were not sent there, and jobs that were; of these, those that it has not begun as
    #: far as it has said.
    fresh: int = 0
    started: int = 0
    waiting: int = 0
    jobs_finished: int = 0
    #: Jobs it took from other Ps, and jobs other Ps took from it.
    stolen: int = 0
    lost: int = 0
    #: Batches of its bridge: on their way there or back, or waiting there for outcomes; and those
    #: that came back.
    batches_away: int = 0
    batches: int = 0
    #: How often it was lost; when it was last (Unix time, in seconds; 0: never), why, and the jobs
    #: that it had begun then.
    losses: int = 0
    lost_at: float = 0.0
    loss: str = ""
    lost_jobs: int = 0


class Cluster(Struct):
    """The engine whose hosts run jobs, too; without one its name is empty."""

    engine: str = ""
    address: str = ""
    #: Why it cannot be reached.
    problem: str = ""
    hosts: list[HostStatus] = field(default_factory=list)


class Status(Struct):
    """The whole daemon."""

    version: str = ""
    python: str = ""
    #: compiled or pure: the core of the coordinator; empty: a daemon that does not know it.
    variant: str = ""
    pid: int = 0
    epoch: int = 0
    #: Unix time, in seconds.
    started_at: float = 0.0
    uptime_s: float = 0.0
    #: running, draining, degraded
    state: str = "running"
    #: Why restarts of workers are slow; empty: they are not.
    degraded: str = ""
    #: Why no P can get a worker, and jobs are refused; empty: they can.
    stalled: str = ""
    procs: int = 0
    sessions: int = 0
    queue: Queue = field(default_factory=Queue)
    results: Results = field(default_factory=Results)
    jobs: Jobs = field(default_factory=Jobs)
    #: The busiest functions, at most 100, the most time first; then `_other`.
    functions: list[FunctionTotals] = field(default_factory=list)
    #: Children of Gs that changed workers. They are not counted as jobs.
    children: int = 0
    #: Of this machine.
    ps: list[PStatus] = field(default_factory=list)
    cluster: Cluster = field(default_factory=Cluster)
    isolated: Isolated = field(default_factory=Isolated)
    durable: Durable = field(default_factory=Durable)
    recycling: Recycling = field(default_factory=Recycling)
    cron: Schedules = field(default_factory=Schedules)
    #: wait, run, occupied, steal, loop_lag; sched_latency, slice, gc_pause of all workers.
    hist: dict[str, Hist] = field(default_factory=dict)
    #: By direction and kind.
    messages: dict[str, Counts] = field(default_factory=dict)
    message_bytes: Bytes = field(default_factory=Bytes)
    #: Refused messages by reason.
    dropped: Counts = field(default_factory=dict)
    #: Lines of the coordinator's log that were not written: `dropped`, `suppressed`.
    log: Counts = field(default_factory=dict)


def read(answer: object) -> Status:
    """The answer to `status`, checked. Raises ProtocolError."""
    return _converted(answer, Status)


def read_p(answer: object) -> PStatus:
    """One P's part of such an answer, checked. Raises ProtocolError."""
    return _converted(answer, PStatus)


def _converted(answer: object, kind: type[T]) -> T:
    try:
        return convert(answer, kind)
    except ValidationError as error:
        raise ProtocolError(
            f"the daemon's status is none that this version reads ({error}): it is of another"
            " version; `gmpd down` ends it, `gmpd up` starts one of this version"
        ) from None
