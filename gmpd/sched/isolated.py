"""Isolated jobs: each has a worker of its own, which ends with it (Go: LockOSThread, and a thread
that ends with its goroutine).

**The tension.** A job that must not share its process needs an unused interpreter, and a fresh one
takes as long to start as hundreds of ordinary jobs to run.

**Rejected.** To empty an ordinary worker, give it to the job, and replace it: its P is idle
meanwhile, what runs there has to end first, and the job finds what jobs before it have left. To
bind a job to a process that only begins to start: the next job could not have it when this one is
cancelled, nor this one another that is ready sooner.

**Chosen.** Extra workers beside those of the Ps. They have records as Ps have, but in no list that
is searched for room or for something to steal. Jobs wait in a queue of their own, as fair as the
global one: they hold up no job behind them, and no job holds them up. The first
worker that is ready takes the next job. Records and their numbers are never reused, so late
messages from a dead worker match nothing.

    STARTING ── Hello ──▶ SPARE ── lease ──▶ RUNNING ── outcome ──▶ ENDING
        └───────────────────┴──────────────────┴───── the kernel confirmed its death ──▶ gone

A place is free again when its process is confirmed dead, so the limit is one of processes. A
cancelled or late job is killed with its process, without its cooperation.

When workers fail in a row, jobs are refused. A worker decides only about jobs that were there
before its start: the reason why it failed may be gone when a later job comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from msgspec.structs import replace

from gmpd.errors import ProtocolError
from gmpd.protocol import Options
from gmpd.sched.globq import GlobalQueue
from gmpd.sched.records import Job, PRecord

#: Workers of isolated jobs are numbered from here on: more than there can be Ps.
ISOLATED_FROM = 1 << 16
#: A worker whose job has ended gets this long to flush its output and go; then it is killed.
END_NS = 2_000_000_000
#: Starts in a row without a worker that ran a job, after which waiting jobs are refused.
FAILURES_MAX = 3
#: Workers in a row that were ready and died before their job began, which count as failures.
IDLE_DEATHS_MAX = 10
#: Wait after such a failure; doubles with each further one up to the second value.
PAUSE_MIN_NS = 100_000_000
PAUSE_MAX_NS = 10_000_000_000


class Stage(Enum):
    """Where the life of an isolated worker is."""

    STARTING = "starting"
    SPARE = "spare"
    RUNNING = "running"
    ENDING = "ending"


class IsolatedP(PRecord):
    """The coordinator's side of an isolated worker: at most one job, once.

    ``draining`` from the start: nothing that looks for room or victims may ever take it for a P.
    """

    __slots__ = ("asked_ns", "due_ns", "expired", "leased_ns", "limit_ns", "stage")

    def __init__(self, p: int, now: int) -> None:
        super().__init__(p, epoch=1)
        self.draining = True
        #: When its start was asked for.
        self.asked_ns = now
        self.stage = Stage.STARTING
        self.leased_ns = 0
        #: It is killed then: its job's time is over, or it ought to have ended by itself.
        self.due_ns: int | None = None
        #: It was killed because its job's time was over; and its limit.
        self.expired = False
        self.limit_ns = 0

    def __repr__(self) -> str:
        expired = ", expired" if self.expired else ""
        return f"<isolated worker {self.p} {self.stage.value}{expired}: {super().__repr__()}>"

    def is_late(self, ran_us: Sequence[int]) -> bool:
        """Whether an outcome comes from after the limit: its worker is being killed."""
        return self.expired and any(each * 1000 > self.limit_ns for each in ran_us)


class Isolation:
    """The queue of isolated jobs and the workers that are there for them.

    ``limit``: isolated jobs that may run at once. ``spares``: workers kept ready for
    more, from the first isolated job on: without isolated jobs there are none.
    """

    def __init__(self, limit: int, spares: int) -> None:
        self.limit = limit
        self.spares = spares
        self.queue = GlobalQueue()
        self.ps: dict[int, IsolatedP] = {}
        #: Workers asked for since the daemon began.
        self.started = 0
        #: In a row.
        self.failures = 0
        #: In a row, of workers that were ready and had not begun a job: they were killed from
        #: outside.
        self.idle_deaths = 0
        self._next_p = ISOLATED_FROM
        self._start_after_ns = 0

    def __repr__(self) -> str:
        return f"<Isolation: {self.queue!r}, {self.used} of {self.limit} places used>"

    def count(self, *stages: Stage) -> int:
        return sum(p.stage in stages for p in self.ps.values())

    @property
    def used(self) -> int:
        """Places taken: workers that have or had a job and are not confirmed dead."""
        return self.count(Stage.RUNNING, Stage.ENDING)

    @property
    def quiet(self) -> bool:
        """Nothing waits, runs, starts or ends: there is nothing to decide."""
        if not self.started:
            return not self.queue.length
        return (
            not self.queue.length
            and len(self.ps) == self.spares
            and all(p.stage is Stage.SPARE for p in self.ps.values())
        )

    # -- events ------------------------------------------------------------------------------------

    def ready(self, p: int) -> None:
        """A worker said Hello. ProtocolError, nothing changed, for one that is not expected."""
        record = self.ps.get(p)
        if record is not None and record.stage is Stage.ENDING:
            return  # it is being killed, see ``renew``
        if record is None or record.stage is not Stage.STARTING:
            raise ProtocolError(f"a Hello of isolated worker {p}, which was not waited for")
        record.ready = True
        record.stage = Stage.SPARE

    def broken(self, p: int) -> None:
        """A worker said that it cannot serve: it gets no job and is about to end."""
        record = self.ps.get(p)
        if record is not None and record.stage is Stage.SPARE:
            record.stage = Stage.STARTING

    def remove(self, p: int) -> IsolatedP | None:
        """Its process is confirmed dead, or never came to be."""
        return self.ps.pop(p, None)

    def failed(self, now: int) -> None:
        """A worker did not start."""
        self._pause(self.failures, now)
        self.failures += 1

    def died_idle(self, now: int) -> bool:
        """A worker that was ready died before a job began in it. That says little about the next
        one; whether it is one too many, as if none could start."""
        self._pause(self.idle_deaths, now)
        self.idle_deaths += 1
        return self.idle_deaths > IDLE_DEATHS_MAX

    def refusable(self, record: IsolatedP) -> list[Job]:
        """Waiting jobs that were there when ``record``, which failed, was asked for. Those of
        sessions that are held back wait for their client, not for a worker."""
        return [
            job for job in self.queue if job.accepted_ns <= record.asked_ns and not job.session.full
        ]

    def begun(self) -> None:
        """A job began in a worker: they start, and live."""
        self.failures = self.idle_deaths = 0

    def _pause(self, row: int, now: int) -> None:
        self._start_after_ns = now + min(PAUSE_MAX_NS, PAUSE_MIN_NS << min(row, 30))

    # -- decisions ---------------------------------------------------------------------------------

    def wanted(self, now: int, draining: bool) -> list[IsolatedP]:
        """Workers to be started now."""
        if now < self._start_after_ns:
            return []
        new = []
        for _ in range(self._wants(draining) - self.count(Stage.STARTING, Stage.SPARE)):
            record = self.ps[self._next_p] = IsolatedP(self._next_p, now)
            self._next_p += 1
            self.started += 1
            new.append(record)
        return new

    def _wants(self, draining: bool) -> int:
        """Workers that ought to be there without a job.

        Not the sum: a spare starts when those are under way for which jobs wait.
        """
        jobs = min(len(self.queue), max(0, self.limit - self.used))
        return max(jobs, 0 if draining or not self.started else self.spares)

    def surplus(self, draining: bool) -> list[IsolatedP]:
        """Ready ones that are not needed: the jobs they were started for were cancelled."""
        ready = [p for p in self.ps.values() if p.stage is Stage.SPARE]
        over = self.count(Stage.STARTING, Stage.SPARE) - self._wants(draining)
        gone = ready[: max(0, over)]
        for record in gone:
            record.stage = Stage.ENDING
        return gone

    def renew(self) -> list[IsolatedP]:
        """Workers without a job, which are to be killed: others start when they are wanted."""
        unused = [p for p in self.ps.values() if p.stage in (Stage.STARTING, Stage.SPARE)]
        for record in unused:
            record.stage = Stage.ENDING
        return unused

    def free(self) -> Iterator[IsolatedP]:
        """Ready ones, as long as jobs wait and the limit allows: each is to be leased its job."""
        for record in list(self.ps.values()):
            if not self.queue or self.used >= self.limit:
                return
            if record.stage is Stage.SPARE:
                yield record

    def lease(self, record: IsolatedP, timeout_s: float | None, now: int) -> None:
        """``record`` has its job, whose time begins: the process is there and does nothing else."""
        record.stage = Stage.RUNNING
        record.leased_ns = now
        record.limit_ns = 0 if timeout_s is None else int(timeout_s * 1e9)
        record.due_ns = None if timeout_s is None else now + record.limit_ns

    def retire(self, now: int) -> list[IsolatedP]:
        """Workers whose job has its outcome: each is to be told to end, and gets a moment for that.

        They do not end by themselves: what a process sent shortly before its end may be lost.
        """
        over = [
            record
            for record in self.ps.values()
            if record.stage is Stage.RUNNING and not record.fresh and not record.started
        ]
        for record in over:
            record.stage = Stage.ENDING
            record.due_ns = now + END_NS
            self.begun()
        return over

    def overdue(self, now: int) -> list[IsolatedP]:
        """Workers that are to be killed: once each, except one whose job's time is over. The kernel
        may not get it down at once, and its client is told when it is due again.
        """
        late = [p for p in self.ps.values() if p.due_ns is not None and p.due_ns <= now]
        for record in late:
            again = record.stage is Stage.RUNNING and not record.expired
            record.due_ns = now + END_NS if again else None
            record.expired = record.expired or record.stage is Stage.RUNNING
        return late

    def deadline(self, draining: bool) -> int | None:
        """When the policy has to act even if no event comes until then."""
        times = [p.due_ns for p in self.ps.values() if p.due_ns is not None]
        if self._wants(draining) > self.count(Stage.STARTING, Stage.SPARE):
            times.append(self._start_after_ns)
        return min(times, default=None)


def options_for_worker(options: Options | None) -> Options | None:
    """The options sent to an isolated worker: its time limit is kept here, by a kill."""
    told = (
        None if options is None else replace(options, isolate=False, timeout=None, kill_after=None)
    )
    return None if told == Options() else told
