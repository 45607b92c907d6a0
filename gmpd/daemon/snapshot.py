"""The snapshot of the daemon as one plain map: for metrics, status and the gateway.

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
from gmpd.daemon.clients import Clients
from gmpd.daemon.pool import WorkerPool
from gmpd.daemon.shm import Slot
from gmpd.daemon.supervisor import Supervisor
from gmpd.daemon.totals import merge_totals, sum_of
from gmpd.daemon.traffic import Traffic
from gmpd.sched.counters import Histogram
from gmpd.sched.isolated import Stage
from gmpd.sched.schedt import Sched

if TYPE_CHECKING:
    from gmpd.sched.isolated import IsolatedP
    from gmpd.sched.records import PRecord

#: A P is called deaf after so long. Its leases are revoked long before; but one whose long job is
#: just being handed off stands still for a moment too, on a busy machine.
DEAF_SHOWN_NS = 250_000_000
#: So many functions of a P that run on past their time limits are named.
OVERRUNS_SHOWN = 10
#: And this many clients that take no results.
FULL_SHOWN = 10
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

    @property
    def procs(self) -> int: ...
    @property
    def dropped(self) -> Counter[str]: ...


def snapshot(c: Observed) -> dict[str, Any]:
    """The map described in ARCHITECTURE.md, section "The snapshot"."""
    now = time.monotonic_ns()
    counters, queue = c.sched.counters, c.sched.queue
    oldest = min((job.accepted_ns for job in queue.heads()), default=now)
    return {
        "version": gmpd.__version__,
        "python": platform.python_version(),
        "pid": os.getpid(),
        "epoch": c.epoch,
        "started_at": c.started_at,
        "uptime_s": time.time() - c.started_at,
        "state": "degraded" if c.pool.degraded else "draining" if c.sched.draining else "running",
        "degraded": c.pool.degraded,
        "stalled": c.sched.stalled,
        "procs": c.procs,
        "sessions": len(c.clients),
        "queue": {
            "global": len(queue) + len(c.sched.suspects.queue),
            "suspects": len(c.sched.suspects.queue),
            "oldest_age_s": (now - oldest) / 1e9,
            "bytes": c.sched.arguments,
            "delayed": len(c.sched.delays),
            "unfinished": c.sched.unfinished,
        },
        "results": {
            "bytes": c.sched.untaken,
            "full": [session.name for session in c.sched.full[:FULL_SHOWN]],
            "full_clients": len(c.sched.full),
            "held_back": c.sched.held_back,
        },
        "jobs": {
            "submitted": counters.submitted,
            "rejected": dict(counters.rejected),
            "finished": dict(counters.finished),
            "retried": dict(counters.retried),
            "overran": counters.overran,
        },
        "children": counters.children,
        "ps": [p_status(c, p, now) for p in sorted({*range(c.procs), *c.sched.ps})],
        "isolated": _isolated(c, now),
        "hist": {
            "wait": counters.wait.snapshot(),
            "run": counters.run.snapshot(),
            "occupied": counters.occupied.snapshot(),
            "steal": counters.steal.snapshot(),
            "loop_lag": c.loop_lag.snapshot(),
            **_worker_histograms(c, now),
        },
        "messages": c.traffic.counts(),
        "message_bytes": {"in": c.traffic.bytes_in, "out": c.traffic.bytes_out},
        "dropped": dict(c.dropped),
    }


def p_status(c: Observed, p: int, now: int) -> dict[str, Any]:
    """The snapshot of one P, made without asking it."""
    worker = c.supervisor.processes.get(p)
    record = c.sched.ps.get(p)
    out: dict[str, Any] = {
        "p": p,
        "up": int(worker is not None and worker.ready),
        "state": _state(worker, record, now, c.sched.stealing),
        "restarts": dict(c.pool.restart_counts.get(p, {})),
    }
    if p in c.pool.wanted:  # its turn to start has not come
        out["state"] = "starting"
    if record is not None:
        out.update(_lease(record))
    if worker is not None:
        out.update(epoch=worker.epoch, pid=worker.process.pid, core=worker.core)
        out.update(_process(worker.process.pid))
        out["cpu_s"] = out.get("cpu_s", 0.0) + c.pool.past_cpu_s.get(p, 0.0)
        out["beat_age_s"] = max(0, now - (worker.shm.slots[Slot.BEAT_NS] or now)) / 1e9
        if record is not None:
            out.update(_running(record, worker.shm.slots, now))
            out["overruns_now"] = _overrunning(record, now)
    out.update(_stats(c, p, now))
    return out


def _isolated(c: Observed, now: int) -> dict[str, Any]:
    isolated = c.sched.isolated
    oldest = min((job.accepted_ns for job in isolated.queue.heads()), default=now)
    return {
        "limit": isolated.limit,
        "queued": len(isolated.queue),
        "oldest_age_s": (now - oldest) / 1e9,
        "started": isolated.started,
        "states": {stage.value: isolated.count(stage) for stage in Stage},
        "workers": [_isolated_worker(c, record, now) for record in isolated.ps.values()],
    }


def _isolated_worker(c: Observed, record: IsolatedP, now: int) -> dict[str, Any]:
    out: dict[str, Any] = {"state": record.stage.value, "running": None, "running_s": 0.0}
    worker = c.supervisor.processes.get(record.p)
    if worker is not None:
        out.update(pid=worker.process.pid, **_process(worker.process.pid))
    for job in (*record.fresh.values(), *record.started.values()):
        out.update(running=job.fn.name, running_s=max(0, now - record.leased_ns) / 1e9)
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


def _lease(record: PRecord) -> dict[str, Any]:
    return {
        "fresh": len(record.fresh),
        "started": len(record.started),
        "overrunning": len(record.overrunning),
        "withheld": len(record.withheld),
        "jobs_finished": record.finished,
        "steals": {"hit": record.steal_hits, "empty": record.steal_misses},
        "stolen": record.stolen_to,
        "lost": record.stolen_from,
    }


def _running(record: PRecord, slots: Any, now: int) -> dict[str, Any]:
    token, since = slots[Slot.CURRENT], slots[Slot.CURRENT_NS]
    running_s = max(0, now - since) / 1e9
    if (job := record.job_of(token)) is not None:
        return {"running": job.fn.name, "running_s": running_s}
    return {"running": None, "running_s": 0.0}


def _overrunning(record: PRecord, now: int) -> list[dict[str, Any]]:
    """Overrunning jobs, the longest first."""
    return [
        {
            "name": each.job.fn.name,
            "client": each.job.session.name,
            "over_s": (now - each.since_ns) / 1e9,
            "retry": each.waits is not None,
        }
        for each in islice(record.overrunning.values(), OVERRUNS_SHOWN)
    ]


def _process(pid: int) -> dict[str, Any]:
    """CPU time and memory from /proc; nothing when the process has just ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return {}
    return {
        "cpu_s": (int(stat[11]) + int(stat[12])) / _TICKS_PER_S,
        "rss": int(stat[21]) * _PAGE,
    }


def _stats(c: Observed, p: int, now: int) -> dict[str, Any]:
    """The worker's own counters, with those of its predecessors added to the totals."""
    worker = c.supervisor.processes.get(p)
    current = worker.shm.stats(now) if worker is not None else {}
    merged = merge_totals(c.pool.past_stats.get(p, {}), current)
    merged.pop("hist", None)
    return merged


def _worker_histograms(c: Observed, now: int) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for p in {*c.supervisor.processes, *c.pool.past_stats}:
        worker = c.supervisor.processes.get(p)
        current = worker.shm.stats(now) if worker is not None else {}
        merged = merge_totals(c.pool.past_stats.get(p, {}), current)
        total = sum_of(total, merged.get("hist", {}))
    return total
