"""Makes the status of the daemon, which ``gmpd.status`` declares.

It reads; it never changes anything, asks no worker, and waits for nothing. Totals are cumulative
over the life of the daemon: what a dead worker had counted is added to its successor's.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gmpd
from gmpd import compiled
from gmpd.daemon import log_queue
from gmpd.daemon.clients import Clients
from gmpd.daemon.cron import CronJobs
from gmpd.daemon.hosts import HostRow, Hosts
from gmpd.daemon.job_views import key_limit
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.shm import Slot
from gmpd.daemon.supervisor import Supervisor, WorkerProcess
from gmpd.daemon.totals import merge_totals, sum_of
from gmpd.daemon.traffic import Traffic
from gmpd.runtime.stats import COUNTERS, unfold
from gmpd.sched.histogram import Histogram
from gmpd.sched.isolated import Stage
from gmpd.sched.leavers import HOSTS_FROM, p_of
from gmpd.sched.schedt import Sched
from gmpd.status import (
    Bytes,
    Cluster,
    FunctionTotals,
    Hist,
    HostStatus,
    Isolated,
    IsolatedWorker,
    Jobs,
    KeyLimit,
    LeavingWorker,
    Overrun,
    PStatus,
    Queue,
    Recycling,
    Results,
    Schedules,
    Status,
    Steals,
    Unread,
)

if TYPE_CHECKING:
    from gmpd.daemon.durable import DurableJobs
    from gmpd.sched.isolated import IsolatedP
    from gmpd.sched.records import PRecord

#: A P is called deaf after this time. Its leases are revoked long before; but one whose long job is
#: just being handed off stands still for a moment too, on a busy machine.
DEAF_SHOWN_NS = 250_000_000
#: How many functions of a P that overran their time limits are named.
OVERRUNS_SHOWN = 10
#: How many functions of a worker that was replaced are named.
FUNCTIONS_SHOWN = 5
#: How many clients that take no results are named.
FULL_SHOWN = 10
#: A client that has read nothing for this long is named.
UNREAD_SHOWN_NS = 1_000_000_000
#: Keys of limits whose jobs are looked at, and how many with waiting jobs are named.
LIMITS_LOOKED_AT = 1000
LIMITS_SHOWN = 10
#: The counters of a P whose worker has not written any.
NOTHING_COUNTED = unfold([0] * len(COUNTERS), 0, 1, 0)
_TICKS_PER_S = 100  # USER_HZ: fixed by the kernel's interface
_PAGE = resource.getpagesize()


class Observed(Protocol):
    """The parts of a daemon that its snapshot shows."""

    epoch: int
    started_at: float
    loop_lag: Histogram
    sched: Sched
    supervisor: Supervisor
    pool: WorkerPool
    clients: Clients
    traffic: Traffic
    durable: DurableJobs
    cron: CronJobs
    hosts: Hosts

    @property
    def procs(self) -> int: ...
    @property
    def dropped(self) -> Counter[str]: ...


def snapshot(c: Observed) -> Status:
    """The status of the daemon now."""
    now = time.monotonic_ns()
    return Status(
        version=gmpd.__version__,
        python=platform.python_version(),
        variant=compiled.variant().name,
        pid=os.getpid(),
        epoch=c.epoch,
        started_at=c.started_at,
        uptime_s=time.time() - c.started_at,
        state="degraded" if c.pool.degraded else "draining" if c.sched.draining else "running",
        degraded=c.pool.degraded,
        stalled=c.sched.stalled,
        procs=c.procs,
        sessions=len(c.clients),
        queue=_queue(c.sched, now),
        results=_results(c.sched, now),
        jobs=_jobs(c.sched),
        functions=_functions(c.sched),
        children=c.sched.counters.children,
        ps=[p_status(c, p, now) for p in _local(c)],
        cluster=cluster_status(c),
        isolated=_isolated(c, now),
        durable=c.durable.status(),
        recycling=_recycling(c, now),
        cron=Schedules(*c.cron.summary()),
        hist=_histograms(c, now),
        messages=c.traffic.counts(),
        message_bytes=Bytes(c.traffic.bytes_in, c.traffic.bytes_out),
        dropped=dict(c.dropped),
        log=log_queue.lost(),
    )


def cluster_status(c: Observed) -> Cluster:
    """The engine, and the hosts that it has."""
    hosts = c.hosts
    at = hosts.address or hosts.scheduler_file
    rows = [_host(c, row) for _, row in sorted(hosts.rows.items())]
    return Cluster(hosts.engine, at, hosts.problem, rows)


def _host(c: Observed, row: HostRow) -> HostStatus:
    out = HostStatus(row.name, row.cores, problem=row.problem, p=row.p)
    record = None if row.p is None else c.sched.ps.get(row.p)
    worker = None if row.p is None else c.supervisor.processes.get(row.p)
    out.losses, out.lost_at, out.loss = row.losses, row.lost_at, row.loss
    out.lost_jobs = row.lost_jobs
    if row.is_lost:
        out.state, out.problem = "lost", row.loss
    elif row.waits_lease:
        out.state = "lost"
    elif worker is None:
        out.state = "refused" if row.problem else "joining"
    elif record is None or not record.ready:
        out.state = "joining"
    elif record.draining:
        out.state = "leaving"
    else:
        out.state = "running" if record.fresh or record.begun else "idle"
    if worker is not None:
        out.pid = worker.process.pid
        out.cpu_s, _ = _process(worker.process.pid)
        slots = worker.shm.slots
        out.batches_away, out.batches = slots[Slot.BATCHES_AWAY], slots[Slot.BATCHES]
        out.waiting = slots[Slot.AT_HOST]
    if record is not None:
        out.fresh, out.started = len(record.fresh), record.begun
        out.jobs_finished = record.finished
        out.stolen, out.lost = record.stolen_to, record.stolen_from
    return out


def _local(c: Observed) -> list[int]:
    """The Ps of this machine."""
    return sorted({*range(c.procs), *(p for p in c.sched.ps if p < HOSTS_FROM)})


def _queue(sched: Sched, now: int) -> Queue:
    suspects = len(sched.suspects.queue)
    oldest = min((job.accepted_ns for job in sched.queue.heads()), default=now)
    return Queue(
        in_queue=len(sched.queue) + suspects,
        suspects=suspects,
        oldest_age_s=(now - oldest) / 1e9,
        bytes=sched.arguments,
        delayed=len(sched.delays),
        limited=sched.gates.waiting,
        limits=_limits(sched, now),
        unfinished=sched.unfinished,
    )


def _limits(sched: Sched, now: int) -> list[KeyLimit]:
    if not sched.gates.waiting:
        return []
    looked_at = islice(sched.gates.by_key.values(), LIMITS_LOOKED_AT)
    waiting = [gate for gate in looked_at if len(gate.queue)]
    return [key_limit(gate, now) for gate in waiting[:LIMITS_SHOWN]]


def _results(sched: Sched, now: int) -> Results:
    return Results(
        bytes=sched.untaken,
        unread=_unread(sched, now),
        full=[session.name for session in sched.full[:FULL_SHOWN]],
        full_clients=len(sched.full),
        held_back=sched.held_back,
    )


def _unread(sched: Sched, now: int) -> list[Unread]:
    found = [
        Unread(
            client=session.name,
            for_s=(now - since) / 1e9,
            outcomes=len(session.outcomes.seqs) + session.delivered - session.acked,
            bytes=session.untaken,
        )
        for session in sched.sessions.values()
        if (since := session.unread_since_ns) is not None and now - since >= UNREAD_SHOWN_NS
    ]
    return sorted(found, key=lambda each: -each.for_s)[:FULL_SHOWN]


def _jobs(sched: Sched) -> Jobs:
    counters = sched.counters
    return Jobs(
        submitted=counters.submitted,
        rejected=dict(counters.rejected),
        finished=dict(counters.finished),
        retried=dict(counters.retried),
        overran=counters.overran,
    )


def _functions(sched: Sched) -> list[FunctionTotals]:
    return [
        FunctionTotals(
            name=row.name,
            finished=dict(row.outcomes()),
            wait=_hist(row.wait),
            run=_hist(row.run),
            occupied_s=row.occupied_ns / 1e9,
            large_results=row.large,
            large_bytes=row.large_bytes,
            largest_bytes=row.largest,
        )
        for row in sched.counters.functions.shown()
    ]


def p_status(c: Observed, p: int, now: int) -> PStatus:
    """The status of one P, made without asking it."""
    worker = c.supervisor.processes.get(p)
    record = c.sched.ps.get(p)
    out = _counters(c, p, now)
    out.up = int(worker is not None and worker.ready)
    out.state = _state(worker, record, now, c.sched.stealing)
    out.cpu_s = c.pool.past_cpu_s.get(p, 0.0)
    out.cpu_s += sum(_process(w.process.pid)[0] for w in _leaving_of(c, p))
    out.restarts = dict(c.pool.restart_counts.get(p, {}))
    if p in c.pool.wanted:  # its turn to start has not come
        out.state = "starting"
    if record is not None:
        _add_leases(out, record)
        for former in c.sched.leaving.values():
            if p_of(former.p) == p:
                _add_totals(out, former)
    if worker is not None:
        out.epoch, out.pid, out.core = worker.epoch, worker.process.pid, worker.core
        cpu_s, out.rss = _process(worker.process.pid)
        out.cpu_s += cpu_s
        out.beat_age_s = max(0, now - (worker.shm.slots[Slot.BEAT_NS] or now)) / 1e9
        if record is not None:
            out.running, out.running_s = _running(record, worker.shm.slots, now)
            out.overruns_now = _overrunning(record, now)
    return out


def former_status(c: Observed, record: PRecord, now: int) -> PStatus:
    """The status of a leaving worker, without its totals, which are its P's."""
    out = PStatus(p_of(record.p), up=1, state="leaving", epoch=record.epoch)
    out.started, out.overrunning = len(record.started), len(record.overrunning)
    out.overruns_now = _overrunning(record, now)
    worker = c.supervisor.processes.get(record.p)
    if worker is not None:
        out.pid = worker.process.pid
        out.beat_age_s = max(0, now - (worker.shm.slots[Slot.BEAT_NS] or now)) / 1e9
        out.running, out.running_s = _running(record, worker.shm.slots, now)
    return out


def isolated_status(c: Observed, p: int) -> PStatus:
    """The status of an isolated worker, as far as a P has one."""
    record, worker = c.sched.isolated.ps.get(p), c.supervisor.processes.get(p)
    out = PStatus(p, epoch=1, state="dead" if record is None else record.stage.value)
    out.pid = None if worker is None else worker.process.pid
    return out


def _isolated(c: Observed, now: int) -> Isolated:
    isolated = c.sched.isolated
    oldest = min((job.accepted_ns for job in isolated.queue.heads()), default=now)
    return Isolated(
        limit=isolated.limit,
        queued=len(isolated.queue),
        oldest_age_s=(now - oldest) / 1e9,
        started=isolated.started,
        states={stage.value: isolated.count(stage) for stage in Stage},
        workers=[_isolated_worker(c, record, now) for record in isolated.ps.values()],
    )


def _recycling(c: Observed, now: int) -> Recycling:
    pool = c.pool
    leaving = [_leaving(c, record, now) for record in c.sched.leaving.values()]
    return Recycling(pool.recycling.reloading, pool.recycling.problem, leaving)


def _leaving(c: Observed, record: PRecord, now: int) -> LeavingWorker:
    out = LeavingWorker(p_of(record.p), started=record.begun)
    worker = c.supervisor.processes.get(record.p)
    if worker is not None:
        out.pid, out.left_s = worker.process.pid, (now - worker.left_ns) / 1e9
        _, out.rss = _process(out.pid)
    begun = [*record.started.values(), *(each.job for each in record.overrunning.values())]
    out.functions = list(dict.fromkeys(job.fn.name for job in begun))[:FUNCTIONS_SHOWN]
    return out


def _leaving_of(c: Observed, p: int) -> list[WorkerProcess]:
    """Former workers of a P that still live: their totals are its own."""
    if not c.sched.leaving:
        return []
    return [w for w in c.supervisor.processes.values() if w.leaving and w.of_p == p]


def _isolated_worker(c: Observed, record: IsolatedP, now: int) -> IsolatedWorker:
    out = IsolatedWorker(record.stage.value)
    worker = c.supervisor.processes.get(record.p)
    if worker is not None:
        out.pid = worker.process.pid
        out.cpu_s, out.rss = _process(worker.process.pid)
    for job in (*record.fresh.values(), *record.started.values()):
        out.running, out.running_s = job.fn.name, max(0, now - record.leased_ns) / 1e9
    return out


def _state(worker: Any, record: PRecord | None, now: int, stealing: bool) -> str:
    if worker is None or record is None:
        return "dead" if worker is None else "starting"
    if not record.ready:
        return "starting"
    if record.draining:
        return "draining"
    if record.fresh or record.begun:
        return "deaf" if record.is_deaf_for(DEAF_SHOWN_NS, now) else "running"
    return "searching" if stealing else "idle"


def _add_leases(out: PStatus, record: PRecord) -> None:
    out.fresh = len(record.fresh)
    out.started = len(record.started)
    out.overrunning = len(record.overrunning)
    out.withheld = len(record.withheld)
    _add_totals(out, record)


def _add_totals(out: PStatus, record: PRecord) -> None:
    out.jobs_finished += record.finished
    steals = out.steals
    out.steals = Steals(steals.hit + record.steal_hits, steals.empty + record.steal_misses)
    out.stolen += record.stolen_to
    out.lost += record.stolen_from


def _running(record: PRecord, slots: Any, now: int) -> tuple[str | None, float]:
    """The function on P, and for how many seconds."""
    token, since = slots[Slot.CURRENT], slots[Slot.CURRENT_NS]
    if (job := record.job_of(token)) is not None:
        return job.fn.name, max(0, now - since) / 1e9
    return None, 0.0


def _overrunning(record: PRecord, now: int) -> list[Overrun]:
    """Overrunning jobs, the longest first."""
    return [
        Overrun(
            name=each.job.fn.name,
            client=each.job.session.name,
            over_s=(now - each.since_ns) / 1e9,
            retry=each.waits is not None,
        )
        for each in islice(record.overrunning.values(), OVERRUNS_SHOWN)
    ]


def _process(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes from /proc; none when the process has just ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    return (int(stat[11]) + int(stat[12])) / _TICKS_PER_S, int(stat[21]) * _PAGE


def _counters(c: Observed, p: int, now: int) -> PStatus:
    """The worker's own counters, with those of its predecessors added to the totals."""
    worker = c.supervisor.processes.get(p)
    current = worker.shm.stats(now) if worker is not None else {}
    merged = merge_totals(_past(c, p, now), current)
    merged.pop("hist", None)
    return PStatus(p, **{**NOTHING_COUNTED, **merged})


def _past(c: Observed, p: int, now: int) -> dict[str, Any]:
    """The totals of a P's former workers."""
    past = c.pool.past_stats.get(p, {})
    for worker in _leaving_of(c, p):
        past = merge_totals(past, worker.shm.stats(now))
    return past


def _histograms(c: Observed, now: int) -> dict[str, Hist]:
    counters = c.sched.counters
    total = counters.functions.total()
    return {
        "wait": _hist(total.wait),
        "run": _hist(total.run),
        "occupied": _hist(counters.occupied),
        "steal": _hist(counters.steal),
        "loop_lag": _hist(c.loop_lag),
        **_worker_histograms(c, now),
    }


def _hist(counted: Histogram) -> Hist:
    return Hist(list(counted.buckets), counted.sum_ns, counted.count)


def _worker_histograms(c: Observed, now: int) -> dict[str, Hist]:
    total: dict[str, Any] = {}
    for p in {*c.supervisor.processes, *c.pool.past_stats, *map(p_of, c.sched.leaving)}:
        if p < 0:
            continue  # with its P
        worker = c.supervisor.processes.get(p)
        current = worker.shm.stats(now) if worker is not None else {}
        merged = merge_totals(_past(c, p, now), current)
        total = sum_of(total, merged.get("hist", {}))
    return {name: Hist(**each) for name, each in total.items()}
