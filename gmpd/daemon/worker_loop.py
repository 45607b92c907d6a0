"""The run loop of a worker: a P's, with what jobs of many programs need beside each other."""

from __future__ import annotations

from typing import Any

from gmpd.runtime.job_scopes import JobScopes, give_plain_jobs_loops
from gmpd.runtime.loop import Loop
from gmpd.runtime.patches import Guard
from gmpd.runtime.ring import Ring


def new_loop(settings: dict[str, Any]) -> Loop:
    """The loop of this process, as its settings want it."""
    isolated = settings["isolated"]
    loop = Loop(max_ms=settings["max_ms"])
    if settings["plain_calls"] and not isolated:
        loop.p.plain_calls = settings["plain_calls"]
    if settings["trace"]:
        loop.p.ring = Ring()
    loop.p.runq.procs = settings["procs"]
    loop.p.is_worker = True
    Guard(shared=not isolated).stand()
    if not isolated:
        loop.p.job_scopes = JobScopes(loop)
        loop.p.job_scopes.install()
        give_plain_jobs_loops()
    return loop
