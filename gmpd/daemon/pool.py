"""The worker pool: starts, restarts, and recovery of outcomes and counters of dead workers.

It knows processes and their ends, no messages.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from gmpd.codec import error_summary
from gmpd.config import Config
from gmpd.cpus import starts_at_once
from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.early import Started, drop
from gmpd.daemon.host_mark import EXIT_S
from gmpd.daemon.lastwords import NO_JOB, crashed_thread
from gmpd.daemon.outbox_overflow import as_finished
from gmpd.daemon.recycling import Recycling
from gmpd.daemon.shm import Slot, WorkerShm
from gmpd.daemon.supervisor import HostSpec, Supervisor, WorkerProcess
from gmpd.daemon.totals import merge_totals
from gmpd.protocol import Ending, Fault, Stage
from gmpd.sched import events
from gmpd.sched.events import Exit
from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.leavers import HOSTS_FROM
from gmpd.sched.records import Job, PRecord, earliest
from gmpd.sched.restart import Death, RestartPolicy, Restarts
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: How long workers that were killed are waited for when the daemon closes (s).
REAP_S = 2.0

#: How it went with a worker that there never was.
_NO_PROCESS = Exit(0, "", None, "could not be started")


class WorkerPool:
    """Workers of Ps ``0`` to ``procs - 1``, and of isolated jobs.

    ``started`` is called with each new process, ``broken`` with the reason why the daemon cannot
    come up, and ``on_ready`` once all that are wanted are ready.
    """

    def __init__(
        self,
        config: Config,
        sched: Sched,
        supervisor: Supervisor,
        started: Callable[[WorkerProcess], None],
        broken: Callable[[str, Ending], None],
        deadlines: Deadlines,
    ) -> None:
        self._config = config
        self._sched = sched
        self.supervisor = supervisor
        self._started = started
        self._broken = broken
        self.on_ready: Callable[[], None] = _nothing
        #: Why a worker that is started now would not find the daemon; empty when it would.
        self.obstacle: Callable[[], str] = str
        #: Called with each bridge to a host that is ready, and with each that has ended.
        self.on_bridge: Callable[[WorkerProcess], None] = _unwatched
        self.on_bridge_end: Callable[[WorkerProcess, Exit, int], None] = _unwatched
        #: Called with a bridge that has ended while jobs may run on at its host, and until when.
        self.on_bridge_severed: Callable[[WorkerProcess, Exit, int], None] = _unwatched
        #: Called with each process that has ended, and whether it had begun jobs.
        self.on_end: Callable[[WorkerProcess, Exit, bool, int], None] = _unwatched
        self.procs = supervisor.procs
        #: Ps that want a worker, in order: a few start at a time.
        self.wanted: dict[int, None] = dict.fromkeys(range(self.procs))
        self.restarts = Restarts(_restart_policy(config))
        self.restart_counts: dict[int, Counter[str]] = {}
        #: Counters of workers that are gone, so that totals never go down.
        self.past_stats: dict[int, dict[str, Any]] = {}
        self.past_cpu_s: defaultdict[int, float] = defaultdict(float)
        self._starts_at_once = starts_at_once()
        #: When a P is wanted again.
        self._respawn: dict[int, int] = {}
        #: Their Ps are to be no more.
        self._shrinking: set[int] = set()
        #: Isolated workers that the system had no process for, and why: for the next turn.
        self._unstarted: list[tuple[int, str]] = []
        #: Neither ready nor dead.
        self._starting: set[WorkerProcess] = set()
        #: Unfit, and not dead.
        self._retiring: set[WorkerProcess] = set()
        #: Starting beside the worker that they will replace, by P.
        self._successors: dict[int, WorkerProcess] = {}
        #: Bridges that have ended without an end of their hosts' daemons, how, and until when jobs
        #: may run there; by P.
        self._severed: dict[int, tuple[WorkerProcess, Exit, int]] = {}
        #: A bridge has ended, and the agent on its host has not said that it ended its daemon.
        self._left_running = False
        self._announced = False
        self._stopping = False
        #: Due in this turn, or the next, after each change of what is wanted or waited for.
        self._deadline = deadlines.new(self._due)
        self.recycling = Recycling(config, self, sched, supervisor, deadlines)

    def configure(self, config: Config) -> None:
        """Use these settings from now on."""
        self._config = config
        self.restarts.policy = _restart_policy(config)
        self.recycling.configure(config)

    # -- starts ------------------------------------------------------------------------------------

    def _due(self, now: int) -> None:
        """Start workers that are wanted, and end starts that take too long."""
        for p, at in list(self._respawn.items()):
            if at <= now:
                del self._respawn[p]
                self.wanted[p] = None
        if self.wanted:
            self.start_some()
        while self._unstarted:
            p, why = self._unstarted.pop()
            self._sched.handle(events.IsolatedDied(p, (), _NO_PROCESS, why), now)
        self._end_severed(now)
        for worker in list(self._retiring):
            if worker.retire_by_ns <= now and not worker.expected:
                log.warning("%s is killed: its jobs did not end in time for it to retire", worker)
                self.supervisor.kill(worker)
        for worker in self._awaited():
            if worker.start_by_ns <= now:
                worker.fault = "it was not ready within daemon.start_timeout"
                log.error("%s was not ready within daemon.start_timeout: it is killed", worker)
                self.supervisor.kill(worker)
        self._deadline.set(self._next_due())

    def _next_due(self) -> int | None:
        if self._unstarted:
            return 0
        starts = [worker.retire_by_ns for worker in self._retiring if not worker.expected]
        starts += [worker.start_by_ns for worker in self._awaited()]
        fences = [until_ns for _, _, until_ns in self._severed.values()]
        return earliest(*starts, *fences, *self._respawn.values())

    def _awaited(self) -> list[WorkerProcess]:
        """The processes that ought to become ready."""
        return [worker for worker in self._starting if not worker.expected]

    def start_some(self) -> None:
        """Start workers that are wanted, a few at a time: the next when one is ready or gone."""
        self._deadline.now()
        room = self._starts_at_once - sum(not worker.isolated for worker in self._awaited())
        for p in list(self.wanted)[: max(0, room)]:
            del self.wanted[p]
            self._start(p)

    def _start(self, p: int) -> None:
        if why := self.obstacle():
            self._not_begun(p, why, time.monotonic_ns())
            return
        try:
            worker = self.supervisor.spawn(p)
        except OSError as error:
            self._not_begun(p, f"the system refused a new process: {error}", time.monotonic_ns())
            return
        self.recycling.spawned(worker)
        self._starting.add(worker)
        self._started(worker)

    def start_successor(self, p: int) -> str:
        """Start a worker beside that of P ``p``, which it replaces when it is ready. Gives the
        reason why not."""
        if why := self.obstacle():
            return why
        try:
            worker = self.supervisor.spawn_successor(p)
        except OSError as error:
            return f"the system refused a new process: {error}"
        self.recycling.spawned(worker)
        self._starting.add(worker)
        self._successors[p] = worker
        self._started(worker)
        self._deadline.now()
        return ""

    def takes_over(self, worker: WorkerProcess) -> None:
        """A successor is ready, and no other worker has its P."""
        del self._successors[worker.of_p]
        self.supervisor.renumber(worker, worker.of_p)

    def vacant(self, p: int) -> None:
        """The worker of P ``p`` leaves it: another one starts, unless one is there already."""
        if p not in self._successors and p < self.procs and not self._stopping:
            self.wanted[p] = None
            self._deadline.now()

    def drop_successors(self, from_p: int = 0) -> None:
        """End the workers that start beside others of these Ps."""
        for p in [p for p in self._successors if p >= from_p]:
            self.supervisor.kill(self._successors.pop(p))
            self.recycling.forget(p)

    def try_now(self) -> None:
        """Start workers that could not start a moment ago."""
        for p in self._respawn:
            self._respawn[p] = 0
            self.restarts.forget(p)
        self._deadline.now()

    def start_isolated(self, p: int) -> None:
        """A worker for an isolated job, which is told as dead if there is no process for it."""
        self._deadline.now()
        if self._stopping:
            return
        if why := self.obstacle():
            self._unstarted.append((p, why))
            return
        try:
            worker = self.supervisor.spawn_isolated(p)
        except OSError as error:
            log.error("no worker for an isolated job: %s", error)
            self._unstarted.append((p, str(error)))
            return
        self._starting.add(worker)
        self._started(worker)

    def start_bridge(self, p: int, host: HostSpec, forked: Started | None = None) -> str:
        """Start the bridge to a host. Gives the reason why not. ``forked``: a process that waits
        to be it."""
        if self._stopping or (why := self.obstacle()):
            if forked is not None:
                drop(forked)
            return why if not self._stopping else "the daemon stops"
        try:
            worker = self.supervisor.spawn_bridge(p, host, forked)
        except OSError as error:
            return f"the system refused a new process: {error}"
        worker.start_by_ns += int(self._config.daemon.start_timeout * 1e9)  # for two processes
        self._starting.add(worker)
        self._started(worker)
        self._deadline.now()
        return ""

    def end_bridge(self, worker: WorkerProcess) -> None:
        """Its host is gone before it was ready."""
        self.supervisor.kill(worker)

    def ready(self, worker: WorkerProcess) -> None:
        """It said Hello."""
        worker.ready = True
        self._deadline.now()
        self._starting.discard(worker)
        if worker.host is not None:
            self.on_bridge(worker)
            return
        if not worker.isolated:
            self.restarts.serves(worker.p)
            self._sched.handle(events.Stalled(""), time.monotonic_ns())
        log.info("%s is ready, epoch %d", worker, worker.epoch)
        if not (self._announced or self.wanted) and all(c.ready for c in self._of_ps()):
            self._announced = True
            self.on_ready()

    def faulted(self, worker: WorkerProcess, fault: Fault) -> None:
        """A worker cannot serve, and is about to end."""
        summary = error_summary(fault.error)
        if worker.host is not None:
            worker.fault = summary.message
            return
        what = "initializer" if fault.stage is Stage.INITIALIZER else f"import of {fault.name}"
        text = f"{what} failed: {summary.type}: {summary.message}"
        log.error("%s\n%s", text, summary.traceback)
        if worker.isolated:
            worker.fault = text
            self._sched.handle(events.IsolatedUnfit(worker.p), time.monotonic_ns())
            return
        worker.fault = text
        if fault.stage is Stage.INITIALIZER:
            self._broken(
                text, Ending.INITIALIZER
            )  # the pool is broken, as the standard library has it

    def retire(self, worker: WorkerProcess, why: str, now: int) -> None:
        """Its process is unfit: it is ended if its jobs have not, in ``daemon.drain_timeout``."""
        worker.retires = why
        worker.retire_by_ns = now + int(self._config.daemon.drain_timeout * 1e9)
        self._retiring.add(worker)
        self._deadline.now()

    def count(self, p: int, reason: str) -> None:
        """P ``p`` gets another worker."""
        self.restart_counts.setdefault(p, Counter())[reason] += 1

    # -- how many ----------------------------------------------------------------------------------

    def resize(self, procs: int) -> int:
        """Grow or shrink to ``procs`` Ps; gives the number before. No job is lost or repeated.

        Does not wait for workers that are to come: they start a few at a time.
        """
        before, self.procs = self.procs, procs
        self._deadline.now()
        self.supervisor.procs = procs
        limit = self._config.limits.isolated or procs
        self._sched.handle(events.IsolatedLimited(limit), time.monotonic_ns())
        for p in range(procs):
            if p not in self.supervisor.processes and p not in self._respawn:
                self.wanted[p] = None
        for worker in self._of_ps():
            p = worker.p
            if p >= procs and p not in self._shrinking:
                self._shrinking.add(p)
                self.recycling.forget(p)
                worker.expected = True
                if worker.ready:
                    self._sched.handle(events.Drained(p), time.monotonic_ns())
                else:
                    self.supervisor.kill(worker)
        for waiting in (self._respawn, self.wanted):
            for p in [p for p in waiting if p >= procs]:
                del waiting[p]
        self.drop_successors(procs)
        return before

    def _of_ps(self) -> list[WorkerProcess]:
        """Workers that serve Ps, or are to."""
        workers = self.supervisor.processes.values()
        return [worker for worker in workers if 0 <= worker.p < HOSTS_FROM]

    # -- ends --------------------------------------------------------------------------------------

    def on_exit(self, worker: WorkerProcess) -> None:
        """The kernel says that a worker ended: recover its outcomes, then tell the policy."""
        end = self.supervisor.reap(worker)
        self._deadline.now()
        self._starting.discard(worker)
        self._retiring.discard(worker)
        if self._successors.get(worker.of_p) is worker:
            del self._successors[worker.of_p]
        now = time.monotonic_ns()
        fence_ns = worker.shm.slots[Slot.FENCE_NS]
        self._left_running |= worker.host is not None and fence_ns > now + int(EXIT_S * 1e9)
        if worker.host is not None and not self._stopping and self._sever(worker, end, now):
            return
        self._ended(worker, end, now)

    def _sever(self, worker: WorkerProcess, end: Exit, now: int) -> bool:
        """Whether jobs may run on at the host of a bridge that has ended. Its outcomes and leases
        are seen to now; its jobs there are lost when they cannot run any more."""
        until_ns = worker.shm.slots[Slot.FENCE_NS]
        record = self._sched.record(worker.p)
        if until_ns <= now or record is None or record.epoch != worker.epoch:
            return False
        self._recover_stored(record, worker, now)
        claimed = [token for token in record.fresh if worker.shm.claims.is_claimed(token)]
        if not (claimed or record.begun):
            return False
        self._sched.handle(events.Claimed(worker.p, claimed), now)
        self._sched.handle(events.Severed(worker.p), now)
        self._severed[worker.p] = worker, end, until_ns
        self.on_bridge_severed(worker, end, until_ns)
        return True

    def _end_severed(self, now: int) -> None:
        """The leases of hosts have ended whose bridges had ended before."""
        for p, (worker, end, until_ns) in list(self._severed.items()):
            if until_ns <= now:
                del self._severed[p]
                self._ended(worker, end, now)

    def _ended(self, worker: WorkerProcess, end: Exit, now: int) -> None:
        """All that ran in it, or by it, has ended."""
        record = self._sched.record(worker.p)
        culprit = None
        ran = worker.finished > 0 or (record is not None and bool(record.started or record.fresh))
        self.on_end(worker, end, ran, now)
        if record is not None and record.epoch == worker.epoch:
            culprit = self._recover_outcomes(record, worker, end, now)
        counted = ISOLATED_FROM if worker.isolated else worker.of_p
        if worker.host is not None:
            counted = HOSTS_FROM  # numbers of hosts do not come again
        self.past_stats[counted] = merge_totals(
            self.past_stats.get(counted, {}), worker.shm.stats(now)
        )
        self.past_cpu_s[counted] += worker.cpu_s
        worker.shm.close()
        if worker.isolated:
            log.info("%s %s", worker, end.text)
        elif worker.host is not None:
            self._sched.handle(events.Removed(worker.p), now)
            self.on_bridge_end(worker, end, now)
        elif worker.p < 0:
            self._ended_beside(worker, end, now)
        elif worker.p in self._shrinking:
            self._shrinking.discard(worker.p)
            self._sched.handle(events.Removed(worker.p), now)
            self.restarts.forget(worker.p)
            if worker.p < self.procs and not self._stopping:  # it was called back meanwhile
                self.wanted[worker.p] = None
        elif not self._stopping:
            self._replace(worker, end, culprit, now)

    def _recover_outcomes(
        self, record: PRecord, worker: WorkerProcess, end: Exit, now: int
    ) -> Job | None:
        """Outcomes that were on their way are used; of the rest, what had begun is lost. Gives the
        job that ended the worker, if one is known to."""
        self._recover_stored(record, worker, now)
        claimed = {token for token in record.fresh if worker.shm.claims.is_claimed(token)}
        thread, stack = crashed_thread(end.signal, worker.shm.stacks())
        if stack:
            log.warning("the stack of the thread that ended %s:\n%s", worker, stack.rstrip())
        if worker.isolated:  # its only job is the reason
            self._sched.handle(events.IsolatedDied(worker.p, claimed, end, worker.fault), now)
            return None
        if worker.host is not None:  # no job is the reason
            why = worker.fault or f"its bridge {end.text}"
            end = end._replace(signal="", text=f"of host {worker.host.name} was lost: {why}")
            worker.lost_jobs = len(claimed | record.started.keys())
            self._sched.handle(events.WorkerDied(worker.p, claimed, None, end), now)
            return None
        waiting = worker.shm.waiting()
        begun = claimed | record.started.keys()
        culprit = _culprit(worker.shm, thread, begun, waiting)
        guilty = None if culprit is None else record.job_of(culprit)
        self._sched.handle(events.WorkerDied(worker.p, claimed, culprit, end, waiting), now)
        return guilty

    def _recover_stored(self, record: PRecord, worker: WorkerProcess, now: int) -> None:
        held = record.fresh.keys() | record.started.keys() | record.withheld.keys()
        stored = worker.shm.recover(held)
        if stored:
            worker.finished += len(stored)
            buffers = [each.buffers for each in stored]
            recovered = events.OutcomesRecovered(worker.p, as_finished(stored), buffers)
            self._sched.handle(recovered, now)

    def _ended_beside(self, worker: WorkerProcess, end: Exit, now: int) -> None:
        self.recycling.ended(worker, end, now)
        p = worker.of_p
        has_one = p in self.supervisor.processes or p in self._successors
        if worker.ready or worker.unwanted or has_one or self._stopping:
            return
        if p not in self._respawn and p < self.procs:  # the one before it has died meanwhile
            self._not_begun(p, worker.fault or f"{worker} {end.text}", now)

    def _replace(self, worker: WorkerProcess, end: Exit, culprit: Job | None, now: int) -> None:
        if worker.retires:
            log.info("%s has retired", worker)
            self._respawn[worker.p] = now
            self.recycling.left(worker)
            return
        if worker.unwanted:
            self._respawn[worker.p] = now
            return
        reason = "signal" if end.signal else "exit"
        self.count(worker.p, "replaced" if worker.replaced else reason)
        if worker.p in self._successors:
            log.warning("%s %s; its successor starts already", worker, end.text)
            return
        self.recycling.forget(worker.p)
        if worker.replaced:
            log.warning("%s %s", worker, worker.replaced)
            self._respawn[worker.p] = now
            return
        if not worker.ready:
            self._not_begun(worker.p, worker.fault or f"{worker} {end.text}", now)
            return
        text, death = f"{worker} {end.text}", Death.UNEXPLAINED
        if culprit is not None:
            death = Death.OF_JOB
            text += f" while it ran {culprit.fn.name} of {culprit.session.name!r}"
        log.warning("%s", text)
        at = self.restarts.died(worker.p, death, text, now, finished=worker.finished)
        self._respawn[worker.p] = at
        if at > now and (why := self.restarts.degraded(now)):
            log.error("degraded: %s", why)

    def _not_begun(self, p: int, why: str, now: int) -> None:
        """A worker never came to serve: it is tried again, and while no P has one, all that wait
        are told why."""
        at = self._respawn[p] = self.restarts.died(p, Death.UNBEGUN, why, now)
        log.error("P%d has no worker: %s; next try in %.1f s", p, why, (at - now) / 1e9)
        hopeless = "" if self._serve_some() else self.restarts.hopeless(range(self.procs))
        if hopeless and not self._announced:
            self._broken(hopeless, Ending.NO_WORKERS)
        elif hopeless:
            log.error("jobs are refused: %s", hopeless)
            self._sched.handle(events.Stalled(hopeless), now)

    def _serve_some(self) -> bool:
        return any(worker.ready for worker in self._of_ps())

    @property
    def degraded(self) -> str:
        """Why restarts are slow; empty when all is well."""
        return self.restarts.degraded(time.monotonic_ns())

    @property
    def hosts_run_on(self) -> bool:
        """Whether jobs may run on hosts after the end of this daemon."""
        bridges = [each for each in self.supervisor.processes.values() if each.host is not None]
        return self._left_running or bool(bridges or self._severed)

    def stop(self) -> None:
        """No further worker is to be started."""
        self._stopping = True
        self.recycling.stop()
        self._respawn.clear()
        self.wanted.clear()

    def kill_unready(self) -> None:
        """End those that no message ends: not ready, or the main thread is an isolated job's."""
        for worker in self.supervisor.processes.values():
            if not worker.ready or worker.isolated:
                self.supervisor.kill(worker)

    def kill_all(self) -> None:
        """End every worker now."""
        for worker in self.supervisor.processes.values():
            self.supervisor.kill(worker)

    def close(self) -> None:
        """No process is left, but one that the kernel cannot end."""
        self.kill_all()
        for worker, _, _ in self._severed.values():
            worker.shm.close()
        by = time.monotonic() + REAP_S
        for worker in list(self.supervisor.processes.values()):
            if self.supervisor.has_ended(worker, within_s=by - time.monotonic()):
                self.supervisor.reap(worker)
            else:
                log.error(
                    "%s was killed and does not end: it hangs in the kernel (see its state in"
                    " /proc/%d/status); the daemon ends without it",
                    worker,
                    worker.process.pid,
                )


def _culprit(shm: WorkerShm, thread: int, begun: set[int], waiting: set[int]) -> int | None:
    """The lease whose job ended its worker, if one is known to: it said so, its ``thread`` crashed
    beside P, or P ran it. One that only waited for an import is none; if a single other one had
    begun, that imports."""
    if dying := shm.slots[Slot.DYING]:
        return dying if dying != NO_JOB else None
    if thread and (beside := shm.beside().get(thread)):
        return beside
    current = shm.slots[Slot.CURRENT]
    if current not in waiting:
        return current or None
    others = begun - waiting
    return others.pop() if len(others) == 1 else None


def _restart_policy(config: Config) -> RestartPolicy:
    restart = config.restart
    return RestartPolicy(
        backoff_min_ns=int(restart.backoff_min * 1e9),
        backoff_max_ns=int(restart.backoff_max * 1e9),
        storm_deaths=restart.storm_deaths,
        storm_ns=int(restart.storm_window * 1e9),
    )


def _nothing() -> None:
    pass


def _unwatched(*_about: object) -> None:
    pass
