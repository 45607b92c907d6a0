"""Replacement of workers that serve: the successor starts beside, takes the P over when it is
ready, and the former worker leaves: it ends what it has begun.

``sched.recycle`` decides which is next. This module executes that on processes, and knows why one
is to be replaced: its jobs, its size, its age, a reload. It never ends a worker that leaves, except
one that is unfit. Its counterpart is ``pool``, which starts workers where there is none.

    starts beside ── Hello ──▶ serves ── its successor is ready ──▶ leaves ── jobs ended ──▶ gone
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable
from typing import Protocol, assert_never

from gmpd.config import Config
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.supervisor import Supervisor, WorkerProcess
from gmpd.protocol import Wear
from gmpd.sched import events
from gmpd.sched.events import Exit
from gmpd.sched.leavers import HOSTS_FROM, number_beside
from gmpd.sched.records import earliest
from gmpd.sched.recycle import Reason, Recycles
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: Limits of jobs and age are up to this much higher, so that not all workers reach them at once.
JITTER = 0.1

#: Told when a reload is over: why it failed, or "".
Told = Callable[[str], None]


class Vacancies(Protocol):
    """``pool``: the Ps that have no worker, and starts."""

    procs: int

    def retire(self, worker: WorkerProcess, why: str, now: int) -> None: ...
    def count(self, p: int, reason: str) -> None: ...
    def start_successor(self, p: int) -> str: ...
    def takes_over(self, worker: WorkerProcess) -> None: ...
    def vacant(self, p: int) -> None: ...
    def drop_successors(self) -> None: ...
    def try_now(self) -> None: ...


class Recycling:
    """``pool`` has the Ps without a worker; the two share ``supervisor``."""

    def __init__(
        self,
        config: Config,
        pool: Vacancies,
        sched: Sched,
        supervisor: Supervisor,
        deadlines: Deadlines,
    ) -> None:
        self._pool = pool
        self._sched = sched
        self._supervisor = supervisor
        self._recycles = Recycles(0, 1)
        self._stopped = False
        self._told: list[Told] = []
        self._reload_problem = ""
        #: Called when a worker with the code of now serves.
        self.on_renewed: Callable[[], None] = _nothing
        self._deadline = deadlines.new(self._due)
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use these settings from now on."""
        self._config = config
        self._recycles.grace_ns = int(config.recycle.grace * 1e9)
        for worker in self._supervisor.processes.values():
            self._set_limits(worker)
        self._deadline.now()

    # -- why a worker is replaced ------------------------------------------------------------------

    def spawned(self, worker: WorkerProcess) -> None:
        """A worker for a P was started."""
        self._set_limits(worker)
        self._deadline.now()

    def _set_limits(self, worker: WorkerProcess) -> None:
        jobs, age = self._config.recycle.jobs, self._config.recycle.age
        more = 1 + JITTER * random.random()
        worker.recycle_at = int(jobs * more) if jobs and not worker.isolated else sys.maxsize
        began_ns = worker.start_by_ns - int(self._config.daemon.start_timeout * 1e9)
        worker.recycle_at_ns = began_ns + int(age * more * 1e9) if age else None

    def worn(self, worker: WorkerProcess, wear: Wear, why: str, now: int) -> None:
        """A worker says that it needs a successor."""
        if worker.retires or worker.isolated or worker.p < 0:
            return
        match wear:
            case Wear.LARGE:
                self._want(worker, Reason.MEMORY, why)
            case Wear.USED:
                worker.retires = why
                self._sched.handle(events.Drained(worker.p), now)
            case Wear.UNFIT:
                log.warning("%s retires: %s", worker, why)
                self._pool.retire(worker, why, now)
                self._pool.count(worker.p, "unfit")
                self._part(worker, now)
            case _:
                assert_never(wear)

    def used_up(self, worker: WorkerProcess) -> None:
        """It has run as many jobs as it may."""
        worker.recycle_at = sys.maxsize
        if not worker.isolated and worker.p >= 0:
            self._want(worker, Reason.JOBS, f"it has run {worker.finished:,} jobs (recycle.jobs)")

    def _want(self, worker: WorkerProcess, reason: Reason, why: str) -> None:
        log.info("%s is to be replaced: %s", worker, why)
        self._recycles.want(worker.p, reason)
        self._deadline.now()

    def reload(self, why: str, told: Told | None = None) -> int:
        """Replace every worker, one at a time; how many they are. ``told`` is called when all have
        a successor, or with the reason when one cannot start; then the others stay, too."""
        ps = sorted(worker.p for worker in self._serving())
        log.info("%s: %d workers are replaced, one at a time", why, len(ps))
        self._told.append(told or _nothing_told)
        self._reload_problem = ""
        self._sched.handle(events.IsolatedRenewed(), time.monotonic_ns())
        for p in ps:
            self._recycles.want(p, Reason.RELOAD)
        self._deadline.now()
        return len(ps)

    def leave_all(self, why: str, now: int) -> None:
        """Replace every worker at once: no further job runs in any of them. Those that are about
        to start may have old code, too."""
        log.info("%s: all workers are replaced", why)
        self._sched.handle(events.IsolatedRenewed(), now)
        self._pool.drop_successors()
        for worker in list(self._supervisor.processes.values()):
            if worker.isolated or worker.leaving or worker.expected:
                continue
            if not worker.ready:
                self._supervisor.kill(worker)
            else:
                self._pool.count(worker.p, Reason.WATCH.value)
                self._part(worker, now)
        self._pool.try_now()

    # -- what is shown -----------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why the last successor did not start, or why none may start; empty: all is well."""
        if self._recycles.is_full:
            return (
                f"{self._leaving()} workers that were replaced still run jobs, so no more are"
                " replaced until some of them end (recycle.leaving)"
            )
        return self._recycles.problem

    @property
    def reloading(self) -> int:
        """Workers that a reload has still to replace."""
        return self._recycles.reloading

    def _serving(self) -> list[WorkerProcess]:
        return [
            worker for worker in self._supervisor.processes.values() if 0 <= worker.p < HOSTS_FROM
        ]

    def _leaving(self) -> int:
        return sum(worker.leaving for worker in self._supervisor.processes.values())

    # -- successors --------------------------------------------------------------------------------

    def _due(self, now: int) -> None:
        if self._stopped:
            return
        for worker in self._serving():
            if worker.recycle_at_ns is not None and worker.recycle_at_ns <= now:
                worker.recycle_at_ns = None
                self._want(worker, Reason.AGE, "its time is over (recycle.age)")
        recycles, was_full = self._recycles, self._recycles.is_full
        recycles.leaving_max = self._config.recycle.leaving or 2 * self._pool.procs
        if (found := recycles.next(now, self._leaving())) is not None:
            self._begin(*found, now)
        if recycles.is_full and not was_full:
            log.warning("%s", self.problem)
        self._tell_reloaded()
        ages = [w.recycle_at_ns for w in self._serving() if w.recycle_at_ns is not None]
        if (due := earliest(recycles.next_due(), *ages)) is not None:
            self._deadline.set(max(due, now + 1))

    def _begin(self, p: int, reason: Reason, now: int) -> None:
        worker = self._supervisor.processes.get(p)
        if worker is None or worker.expected or worker.retires:
            self._recycles.forget(p)  # it ends by itself
            self._deadline.now()
        elif self._config.limits.plain_calls:
            # No more run at once than was promised: the successor comes when the old one is gone.
            worker.retires = reason.value
            self._pool.count(p, reason.value)
            self._recycles.succeeded(p, now)
            self._sched.handle(events.Drained(p), now)
        elif why := self._pool.start_successor(p):
            self._failed(p, why, now)

    def promote(self, worker: WorkerProcess, now: int) -> None:
        """A successor is ready: it takes its P over."""
        p = worker.of_p
        former = self._supervisor.processes.get(p)
        if former is not None:
            self._pool.count(p, self._recycles.reason.value)
            log.info("%s takes over from %s", worker, former)
            if former.ready:
                self._part(former, now)
            else:
                self._supervisor.renumber(former, number_beside(p, former.epoch))
                self._supervisor.kill(former)
        self._pool.takes_over(worker)
        self._recycles.succeeded(p, now)
        if former is None:
            self._recycles.left(p)
        self._deadline.now()

    def _part(self, worker: WorkerProcess, now: int) -> None:
        """A worker leaves its P."""
        p = worker.p
        if self._config.limits.plain_calls:
            worker.retires = worker.retires or "it is replaced"
            self._sched.handle(events.Drained(p), now)
            return
        self._sched.handle(events.Left(p), now)
        self._supervisor.renumber(worker, number_beside(p, worker.epoch))
        worker.left_ns = now
        self._pool.vacant(p)

    # -- ends --------------------------------------------------------------------------------------

    def ended(self, worker: WorkerProcess, end: Exit, now: int) -> None:
        """A worker beside its P has ended."""
        p = worker.of_p
        if worker.leaving:
            after_s = (now - worker.left_ns) / 1e9
            said = log.info if worker.expected else log.warning
            said("%s, which left its P %.1f s ago, %s", worker, after_s, end.text)
            self._recycles.left(p)
            self._deadline.now()
        elif not worker.unwanted:
            self._failed(p, worker.fault or f"{worker} {end.text}", now)

    def _failed(self, p: int, why: str, now: int) -> None:
        log.error("P%d keeps its worker, as no successor starts: %s", p, why)
        if self._recycles.failed(p, why, now):
            self._reload_problem = why
        self._tell_reloaded()
        self._deadline.now()

    def left(self, worker: WorkerProcess) -> None:
        """It has ended, and no successor was there before that."""
        self._recycles.left(worker.p)
        self._deadline.now()

    def forget(self, p: int) -> None:
        """The worker of P ``p`` has ended without a successor."""
        self._recycles.forget(p)
        self._deadline.now()

    def stop(self) -> None:
        """No worker is replaced any more."""
        self._stopped = True
        self._tell_reloaded("the daemon ends")

    def _tell_reloaded(self, why: str = "") -> None:
        if self._told and (why or not self._recycles.reloading):
            told, self._told = self._told, []
            for each in told:
                each(why or self._reload_problem)
            if not (why or self._reload_problem):
                self.on_renewed()


def _nothing() -> None:
    pass


def _nothing_told(_problem: str) -> None:
    pass
