"""Where a job of the ledger is and what it waits for, as plain facts for ``gmpd.explain``."""

from __future__ import annotations

from typing import Any, Final

from gmpd.sched.isolated import ISOLATED_FROM
from gmpd.sched.leavers import p_of
from gmpd.sched.records import Job, PRecord
from gmpd.sched.schedt import Sched
from gmpd.sched.states import JobState

#: A P is called deaf after this time, as in the status.
DEAF_NS: Final = 250_000_000


def stage_of(sched: Sched, job: Job, now: int) -> dict[str, Any]:
    """The stage and its facts; those that do not apply are missing."""
    stage = {"stage": job.state.name.lower(), "stalled": sched.stalled}
    match job.state:
        case JobState.DELAYED:
            return stage | {"due_s": (job.due_ns - now) / 1e9}
        case JobState.QUEUED:
            return stage | _queued(sched, job)
        case JobState.HELD:
            return stage | {"holder": _holder(sched, job)}
        case JobState.LEASED | JobState.STARTED | JobState.OVERRUNNING if job.p is not None:
            return stage | _on_p(job, job.p, now)
        case _:
            return stage


def _queued(sched: Sched, job: Job) -> dict[str, Any]:
    queue = sched.isolated.queue if job.is_isolated else sched.queue
    busy = [record for record in sched.ps.values() if record.fresh or record.begun]
    return {
        "waiting": len(queue), "isolated": job.is_isolated, "isolated_max": sched.isolated.limit,
        "suspected": job.suspected, "held_back": job.session.full,
        "busy_ps": len(busy), "ps": len(sched.ps),
        "running": next((name for record in busy if (name := _running(record, job))), ""),
    }  # fmt: skip


def _on_p(job: Job, record: PRecord, now: int) -> dict[str, Any]:
    isolated = record.p >= ISOLATED_FROM
    return {
        "on": None if isolated else p_of(record.p),
        "token": job.token,
        "isolated": isolated,
        "deaf": record.is_deaf_for(DEAF_NS, now),
        "deaf_s": (now - record.deaf_ns) / 1e9 if record.deaf else 0.0,
        "aside": job.token in record.set_aside(),
        "withheld": job.token in record.withheld,
        "ahead": sum(1 for token in record.fresh if token < job.token),
        "running": _running(record, job),
    }


def _running(record: PRecord, but: Job) -> str:
    """A function that it has begun."""
    return next((job.fn.name for job in record.started.values() if job is not but), "")


def _holder(sched: Sched, job: Job) -> str:
    assert job.options is not None
    key = job.session.owner, str(job.options.unique)
    holder = sched.uniques.holder(key)
    return "" if holder is None or holder is job else holder.id
