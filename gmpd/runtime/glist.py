"""The Gs of a P as rows: for tables of people and programs. ``stacks`` has them as text.

Reads, and changes nothing. Any thread may call it: what it sees of Gs that run meanwhile may be a
step apart.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from gmpd.runtime.gstate import on_ms, status_of
from gmpd.runtime.jobg import JobG
from gmpd.runtime.stacks import chosen, count_gs, tasks, wait_reason
from gmpd.runtime.step import CoroG
from gmpd.sched.g import GStatus

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P

#: Characters of a function's name, and of a wait reason.
NAME_MAX = 200


class Row(NamedTuple):
    """See ``protocol.GRow``."""

    id: int
    state: str
    reason: str
    function: str
    since_s: float | None
    job: bool
    m: int | None


def rows(p: P, limit: int) -> tuple[list[Row], int]:
    """At most ``limit`` Gs, those that run first, then those that have begun, then those in the
    run queue; and how many there are in all."""
    now = time.monotonic_ns()
    beside = on_ms(p)
    found = [_row(g, beside.get(g), now) for g in chosen(p, limit, beside)]
    known = {row.id for row in found}
    queued = [g for g in islice(list(p.runq.ring), limit) if g.id not in known]
    fresh = [_fresh(g) for g in queued]
    total = max(len(found) + len(fresh), count_gs(p) + len(fresh))
    return [*found, *fresh[: limit - len(found)]], total


def find(p: P, number: int) -> tuple[Any, M | None]:
    """The G of this number, and the M that runs its plain function; None if it has ended."""
    runq = p.runq
    beside = on_ms(p)
    queued = [*list(runq.ring), runq.runnext, *list(runq.global_), *list(p.deferred), *p.aside]
    others = (each for each in [*tasks(p), *queued] if each is not None)
    for g in (*beside, *others):
        if int(g.id) == number:
            return g, beside.get(g)
    return p.gs.find(number), None


def row(g: Any, m: M | None) -> Row:
    """One G."""
    if m is None and not isinstance(g, CoroG):
        return _fresh(g)
    return _row(g, m, time.monotonic_ns())


def _fresh(g: Any) -> Row:
    return Row(int(g.id), "runnable", "", g.fn_name[:NAME_MAX], None, True, None)


def _row(g: Any, m: M | None, now: int) -> Row:
    status = status_of(g, m)
    if m is not None:
        reason, since_ns = m.wait_reason or "", m.start_ns
    else:
        reason = wait_reason(g._fut_waiter) if status is GStatus.WAITING else ""
        since_ns = getattr(g, "since_ns", 0)
    since_s = round(max(0, now - since_ns) / 1e9, 3) if since_ns else None
    is_job = isinstance(g, JobG) or not isinstance(g, CoroG)
    name = getattr(g, "fn_name", type(g).__name__)
    return Row(
        int(g.id), status.name.lower(), reason[:NAME_MAX], str(name)[:NAME_MAX], since_s, is_job,
        None if m is None else m.id,
    )  # fmt: skip
