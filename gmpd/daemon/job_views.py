"""Running jobs as their users see them: what a question about them is answered with."""

from __future__ import annotations

from typing import Any

from gmpd.sched.records import Job
from gmpd.sched.schedt import Sched
from gmpd.sched.states import JobState

#: States of a job that has begun.
BEGUN = frozenset({JobState.STARTED, JobState.OVERRUNNING})


def live_log(sched: Sched, job: Job, after: int) -> dict[str, Any] | None:
    """The output of a running attempt from byte ``after`` on; None if it has not begun."""
    ring = sched.output.of(job)
    if ring is None:
        if job.state not in BEGUN:
            return None
        return {"data": b"", "end": 0, "runs": True, "over": False}
    return {"data": ring.since(after), "end": ring.end, "runs": True, "over": False}
