"""The hosts of a cluster: a process that asks the engine which there are, and a bridge to each.

The coordinator knows names, cores and processes; engines are the watcher's and the bridges' own
business (``gmpd.cluster``). A host is a P with a number from ``HOSTS_FROM`` on, a new one each time
that it comes. Its bridge says why it ends; while the host is still there, another one is tried.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from gmpd.config import Config
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.early import Started, drop, name_of
from gmpd.daemon.supervisor import HostSpec, WorkerProcess
from gmpd.daemon.template import Template
from gmpd.errors import ConfigError
from gmpd.sched import events
from gmpd.sched.events import Exit
from gmpd.sched.leavers import HOSTS_FROM, HOSTS_MAX
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: A host that did not take work is asked again after this (seconds); one that was lost and is there
#: again, sooner.
REFUSED_S = 15.0
LOST_S = 1.0
#: A watcher that has ended is started again after this (seconds).
WATCHER_S = 5.0
#: A host that was lost and does not come back is shown for this time (seconds), the last ones only.
LOST_SHOWN_S = 600.0
LOST_SHOWN = 16


class Bridges(Protocol):
    """``pool``: the processes."""

    def start_bridge(self, p: int, host: HostSpec, forked: Started | None = None) -> str: ...
    def end_bridge(self, worker: WorkerProcess) -> None: ...


@dataclass
class HostRow:
    """A host that the engine has, or had a moment ago."""

    name: str
    cores: int
    p: int | None = None
    #: A fork of the template was asked for, to be its bridge.
    is_asked: bool = False
    #: Whether the engine has it, and it takes work.
    is_there: bool = True
    leaves: bool = False
    #: Its agent says that it leaves, whatever the engine knows of that.
    said_leaves: bool = False
    #: Its bridge has ended, and jobs may run there until the end of its lease.
    waits_lease: bool = False
    #: Its bridge was ready.
    served: bool = False
    #: Why it has no bridge, and when the next one is tried (ns).
    problem: str = ""
    again_ns: int = 0
    #: Since when it is lost (ns); 0: it has served since, or was never lost.
    lost_ns: int = 0
    #: How often it was lost; when it was last (Unix time, in seconds), why, and the jobs that it
    #: had begun.
    losses: int = 0
    lost_at: float = 0.0
    loss: str = ""
    lost_jobs: int = 0

    @property
    def is_lost(self) -> bool:
        """Whether it was lost, and is not there, or has not been tried again."""
        return self.p is None and self.lost_ns > 0 and (self.served or not self.is_there)

    def forget_after_ns(self) -> int:
        """When a host that is not there is shown no more."""
        return self.lost_ns + int(LOST_SHOWN_S * 1e9) if self.is_lost else 0


class Hosts:
    """``watch`` and ``unwatch``: descriptors in the coordinator's loop. ``lends``: the class of an
    object of this machine that its workers use, or empty."""

    def __init__(
        self,
        config: Config,
        sched: Sched,
        pool: Bridges,
        worker_of: Callable[[int], WorkerProcess | None],
        watch: Callable[[int, Callable[[], object]], None],
        unwatch: Callable[[int], None],
        deadlines: Deadlines,
        lends: str = "",
    ) -> None:
        self._sched = sched
        self._pool = pool
        self._worker_of = worker_of
        self._watch = watch
        self._unwatch = unwatch
        self._deadline = deadlines.new(self._due)
        self._deadlines = deadlines
        self._watcher: Template | None = None
        self._watcher_at_ns: int | None = None
        self._line = b""
        self._next_p = HOSTS_FROM
        self.rows: dict[str, HostRow] = {}
        #: As ``cluster.engine`` and ``cluster.address``; and why the engine cannot be used.
        self.engine = config.cluster.engine
        self.address = config.cluster.address
        self.scheduler_file = config.cluster.scheduler_file
        self.problem = ""
        #: Called with the lease of hosts before the first of them gets jobs.
        self.on_serves: Callable[[float], None] = _unheard
        self._config = config
        self._lends = lends
        if self.engine:
            self._deadline.now()

    # -- it begins and ends ------------------------------------------------------------------------

    def up(self, engine: str, address: str, scheduler_file: str = "") -> None:
        """Use the hosts of this engine from now on. Raises ConfigError while others are used, and
        when the workers here use objects that no other machine has."""
        if self._lends:
            raise ConfigError(
                f"the initializer of this pool has a {self._lends} of multiprocessing, which is an"
                " object of its program's machine, so no other machine can run its jobs: make the"
                " pool without such objects"
            )
        own, new = (self.address, self.scheduler_file), (address, scheduler_file)
        if self.engine and (self.engine, own) != (engine, new):
            at = self.address or self.scheduler_file
            raise ConfigError(f"this daemon uses {self.engine} at {at}: `gmpd cluster down` first")
        self.engine, self.problem = engine, ""
        self.address, self.scheduler_file = new
        for row in self.rows.values():
            row.again_ns = 0
        self._deadline.now()

    def down(self) -> int:
        """Use hosts no more: what has begun there ends first. How many there are."""
        self.engine = self.address = self.scheduler_file = self.problem = ""
        self.stop()
        self._set([])
        self._forget_lost(time.monotonic_ns())
        return sum(row.p is not None for row in self.rows.values())

    def stop(self) -> None:
        """Look for no hosts."""
        self._watcher_at_ns = None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def engine_settings(self) -> dict[str, Any]:
        """The settings of the engine in a watcher or a bridge."""
        return {
            "address": self.address,
            "scheduler_file": self.scheduler_file,
            "timeout_s": self._config.cluster.timeout,
        }

    # -- the watcher -------------------------------------------------------------------------------

    def _start_watcher(self) -> None:
        settings = {
            "engine": self.engine,
            "engine_settings": self.engine_settings(),
            "parent": os.getpid(),
        }
        self._line = b""
        self._watcher = Template(settings, self._heard, self._watch, self._unwatch, self._deadlines)

    def _heard(self, data: bytes) -> None:
        """The watcher has said something, or has ended."""
        if not data:
            self.stop()
            self.problem = self.problem or "the process that asks the engine has ended"
            self._watcher_at_ns = time.monotonic_ns() + int(WATCHER_S * 1e9)
            self._deadline.now()
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if (problem := told.get("problem", "")) and problem != self.problem:
                log.error("%s; jobs run on this machine meanwhile", problem)
            self.problem = problem
            if "hosts" in told:
                self._set([(str(name), int(cores), bool(x)) for name, cores, x in told["hosts"]])

    def _set(self, hosts: list[tuple[str, int, bool]]) -> None:
        """These are there now."""
        there = {name: (cores, leaves) for name, cores, leaves in hosts}
        for name, (cores, leaves) in there.items():
            row = self.rows.setdefault(name, HostRow(name, cores))
            if row.p is None:
                row.cores = cores
            row.is_there, row.leaves = True, leaves
        for name, row in list(self.rows.items()):
            if name not in there:
                row.is_there = False
            if not row.is_there or row.leaves:
                self._leaves(row)
        self._deadline.now()

    def _leaves(self, row: HostRow) -> None:
        """It gets no more jobs. Its bridge ends once what it has begun has, or is lost."""
        if row.p is None:
            if not row.is_there and not row.is_lost:
                del self.rows[row.name]
            return
        worker = self._worker_of(row.p)
        if worker is None or worker.expected:
            return
        worker.expected = True
        if worker.ready:
            log.info("host %s leaves", row.name)
            self._sched.handle(events.Drained(row.p), time.monotonic_ns())
        else:
            self._pool.end_bridge(worker)

    # -- bridges -----------------------------------------------------------------------------------

    def _due(self, now: int) -> None:
        if self.engine and self._watcher is None and (self._watcher_at_ns or 0) <= now:
            try:
                self._start_watcher()
            except OSError as error:
                self.problem = f"the system refused a process that asks the engine: {error}"
                self._watcher_at_ns = now + int(WATCHER_S * 1e9)
        self._forget_lost(now)
        for row in list(self.rows.values()):
            if row.is_there and not row.leaves and self._is_free(row) and row.again_ns <= now:
                self._start_bridge(row)
        waits = [
            row.again_ns if row.is_there else row.forget_after_ns()
            for row in self.rows.values()
            if self._is_free(row) and not (row.is_there and row.leaves)
        ]
        if self.engine and self._watcher is None and self._watcher_at_ns is not None:
            waits.append(self._watcher_at_ns)
        self._deadline.set(max(now + 1, min(waits)) if waits else None)

    def _is_free(self, row: HostRow) -> bool:
        """Whether it has no bridge, and none is about to come."""
        return row.p is None and not row.is_asked

    def _start_bridge(self, row: HostRow) -> None:
        """At once where it can be forked, which takes the template a moment."""
        if self._watcher is not None and self._watcher.forks:
            row.is_asked = True
            self._watcher.fork(name_of(self._next_p), partial(self._begin_bridge, row))
        else:
            self._begin_bridge(row, None)

    def _begin_bridge(self, row: HostRow, forked: Started | None) -> None:
        """``forked``: a process that waits to be it; None: a fresh one is started."""
        row.is_asked = False
        is_wanted = self.engine and self.rows.get(row.name) is row and not row.leaves
        if not (is_wanted and row.is_there):
            if forked is not None:
                drop(forked)
            self._deadline.now()
            return
        p, now = self._number(), time.monotonic_ns()
        settings = self.engine_settings()
        cluster = self._config.cluster
        spec = HostSpec(row.name, row.cores, self.engine, settings, cluster.lease, cluster.drain)
        if why := self._pool.start_bridge(p, spec, forked):
            row.problem, row.again_ns = why, now + int(REFUSED_S * 1e9)
            self._deadline.now()
        else:
            row.p, row.served = p, False

    def _number(self) -> int:
        """A number that no P has; one comes again only after all others."""
        while True:
            p, self._next_p = self._next_p, self._next_p + 1
            if self._next_p >= HOSTS_FROM + HOSTS_MAX:
                self._next_p = HOSTS_FROM
            if p not in self._sched.ps and self._worker_of(p) is None:
                return p

    def serves(self, worker: WorkerProcess) -> None:
        """A bridge is ready."""
        row = self._row_of(worker)
        if row is not None:
            row.problem, row.served, row.lost_ns = "", True, 0
            self.on_serves(self._config.cluster.lease)
            log.info("host %s is ready with %d cores, as P%d", row.name, row.cores, worker.p)

    def leaves(self, worker: WorkerProcess, why: str) -> None:
        """The agent of a bridge says that its process is about to end: the engine, if it says so at
        all, does it later."""
        row = self._row_of(worker)
        if row is not None:
            log.info("host %s: %s", row.name, why)
            row.said_leaves = True
            self._leaves(row)

    def severed(self, worker: WorkerProcess, end: Exit, until_ns: int) -> None:
        """The process of a bridge has ended, and the jobs that it sent may run on until then. No
        other bridge begins before: it would have a second daemon there on the same cores."""
        row = self._row_of(worker)
        if row is None:
            return
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + _left_s(until_ns)))
        row.problem = (
            f"lost, waiting for the end of its lease until {until}:"
            f" {worker.fault or f'its bridge {end.text}'}"
        )
        row.waits_lease = True
        log.error("host %s is %s", row.name, row.problem)

    def ended(self, worker: WorkerProcess, end: Exit, now: int) -> None:
        """The process of a bridge has ended."""
        row = self._row_of(worker)
        if row is None:
            return
        row.p, row.waits_lease, row.problem = None, False, ""
        if worker.fault:
            row.problem = worker.fault
        elif not worker.expected:
            row.problem = f"its bridge {end.text}"
        if row.problem and not worker.expected:
            log.error("host %s %s: %s", row.name, _lost_or_refused(row), row.problem)
        if row.problem and row.served:
            row.losses += 1
            row.lost_ns, row.lost_at = now, time.time()
            row.loss, row.lost_jobs = row.problem, worker.lost_jobs
        is_soon = row.served and not row.said_leaves  # else its process may not have ended yet
        row.again_ns = now + int((LOST_S if is_soon else REFUSED_S) * 1e9)
        row.said_leaves = False
        if not row.is_there and not row.is_lost:
            del self.rows[row.name]
        self._forget_lost(now)
        self._deadline.now()

    def _forget_lost(self, now: int) -> None:
        """Show no more hosts that were lost long ago, or too many; without an engine, none."""
        lost = [row for row in self.rows.values() if row.is_lost and not row.is_there]
        lost.sort(key=lambda row: row.lost_ns, reverse=True)
        for place, row in enumerate(lost):
            if not self.engine or place >= LOST_SHOWN or row.forget_after_ns() <= now:
                del self.rows[row.name]

    def _row_of(self, worker: WorkerProcess) -> HostRow | None:
        row = None if worker.host is None else self.rows.get(worker.host.name)
        return row if row is not None and row.p == worker.p else None


def _unheard(_lease_s: float) -> None:
    pass


def _left_s(until_ns: int) -> float:
    return (until_ns - time.monotonic_ns()) / 1e9


def _lost_or_refused(row: HostRow) -> str:
    return "is lost" if row.served else "takes no work"
