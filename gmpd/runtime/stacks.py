"""Every G of a P in words: where it is, what it waits for and how long, its frames, its creator.
Go's goroutine dump.

Reads, and changes nothing; costs only the caller. Any thread may call it: what it sees of Gs that
run meanwhile may be a step apart.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from gmpd.runtime.frames import frame_of
from gmpd.runtime.g import Away, G
from gmpd.runtime.gstate import Phase, on_ms, phase_of, status_of, status_on
from gmpd.runtime.internals import all_tasks
from gmpd.runtime.jobg import JobG
from gmpd.runtime.step import CoroG
from gmpd.runtime.sudog import Wait
from gmpd.runtime.syncg import SyncG
from gmpd.runtime.task import Task
from gmpd.runtime.trace import PState
from gmpd.runtime.turns import is_parked
from gmpd.sched.g import GStatus

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P

#: Frames shown of one G: the innermost. Deeper stacks are recursion.
FRAMES_MAX = 50
#: Gs shown unless told otherwise: some 20 ms of work, and more than a person reads.
GS_MAX = 1000
#: Bytes of a dump unless told otherwise.
TEXT_MAX = 1 << 19

#: Where code is that calls ``go`` for others.
_RUNTIME = os.path.dirname(__file__)


class Dump(NamedTuple):
    """A dump of ``shown`` of ``gs`` Gs; all of them, unless a limit left some out."""

    text: str
    gs: int
    shown: int


def wait_reason(waiter: Any) -> str:
    """Go's wait reason for a G's wait."""
    if isinstance(waiter, Wait):
        return waiter.reason
    if isinstance(waiter, CoroG):
        return f"G wait (G {waiter.id})"
    if isinstance(waiter, Away):
        return "running in another worker"
    return "IO wait"


def p_state(p: P) -> PState:
    """The holder of P, and its queues in the order in which they run. Any thread may look."""
    runq, owner = p.runq, p.owner
    woken = [g for g in list(p.ready) if isinstance(g, CoroG)]
    nxt = runq.runnext
    return PState(
        m=None if owner is None else owner.id,
        runnext=None if nxt is None else nxt.id,
        local=tuple(g.id for g in [*woken, *list(p.aside), *list(runq.ring)]),
        global_=tuple(g.id for g in list(runq.global_)),
    )


def count_gs(p: P) -> int:
    """Gs of the loop that have not ended: started ones, children, and jobs that run on an M."""
    return len(p.gs) + len(tasks(p)) + sum(g not in p.gs for g in on_ms(p))


def stacks(p: P, limit: int = GS_MAX, nbytes: int = TEXT_MAX) -> Dump:
    """The dump of all Gs, and of sync jobs that run on the loop's threads: at most ``limit``, those
    that run first of all, in the order of their making, and about ``nbytes`` of text.
    """
    beside = on_ms(p)
    parts: list[str] = []
    left = nbytes
    for g in chosen(p, limit, beside):
        part = stack(g, beside.get(g))
        left -= len(part)
        if left < 0 and parts:
            break
        parts.append(part)
    shown = len(parts)
    gs = max(shown, count_gs(p))
    if gs > shown:
        parts.append(f"...{gs - shown} more goroutines not shown...\n")
    return Dump("\n".join(parts), gs, shown)


def chosen(p: P, limit: int, beside: dict[Any, M]) -> list[Any]:
    """At most ``limit`` Gs, those of ``beside`` (``on_ms``) before others, in the order of their
    making."""
    running = list(beside)[:limit]
    others = (g for g in [*tasks(p), *p.gs.some(limit)] if g not in beside)
    return sorted([*running, *islice(others, limit - len(running))], key=lambda g: int(g.id))


def deadlock_text(p: P) -> str:
    """Go's words for a program that can never continue."""
    return f"all goroutines are asleep - deadlock!\n\n{stacks(p).text}"


def tasks(p: P) -> list[Any]:
    """Tasks of ``loop.create_task``, followed ones too."""
    return [
        task for task in all_tasks(p.loop)
        if isinstance(task, Task) and not isinstance(task, JobG)
    ]  # fmt: skip


def stack(g: Any, m: M | None) -> str:
    """One G: header, frames, and where it comes from. ``m``: the M that runs its plain function."""
    if m is not None:
        lines = _of_m(m, g)
    elif (
        not isinstance(g, CoroG)
        or phase_of(g) is Phase.FRESH
        or (isinstance(g, SyncG) and g._fut_waiter is None)
    ):
        lines = [f"goroutine {g.id} [runnable]:", f"{g.fn_name}(...)"]
    else:
        status = status_of(g)
        if status is GStatus.WAITING:
            state = wait_reason(g._fut_waiter) + _age(getattr(g, "since_ns", 0))
        else:
            state = status.name.lower()
        lines = [f"goroutine {g.id} [{state}]:"]
        coro = (g.driven if isinstance(g, JobG) else None) or g.get_coro()
        lines += _frame_lines([(frame, frame.f_lineno) for frame in _await_chain(coro)])
    lines += _origin(g)
    return "\n".join(lines) + "\n"


def _of_m(m: M, g: Any) -> list[str]:
    """A sync G on its thread: with P, or computing beside it, it runs."""
    status = GStatus.RUNNABLE if is_parked(m) else status_on(m)
    state = m.wait_reason or status.name.lower()
    lines = [f"goroutine {g.id} [{state}{_age(m.start_ns)}, M{m.id}]:"]
    frame = frame_of(m)
    if frame is not None:
        lines += _frame_lines([f for f in traceback.walk_stack(frame) if not _is_runtime(f[0])])
    return lines


def _age(since_ns: int) -> str:
    """How long, as Go says it: minutes, from one on. Below, seconds, which Go leaves out."""
    seconds = (time.monotonic_ns() - since_ns) // 1_000_000_000 if since_ns else 0
    if seconds < 1:
        return ""
    return f", {seconds // 60} minutes" if seconds >= 60 else f", {seconds} seconds"


def _origin(g: Any) -> list[str]:
    """Go's ``created by``: the function that called ``go``, and the line; for a job, its name."""
    if isinstance(g, JobG) or not isinstance(g, CoroG):
        return [f"created by job {g.fn_name}"]
    code = getattr(g, "made_by", None)
    if not isinstance(g, G) or code is None or _RUNTIME in code.co_filename:
        return []  # no go made it, or one of our own
    line = next(islice(code.co_positions(), g.made_at // 2, None), (None,))[0]
    return [f"created by {code.co_qualname}", f"\t{code.co_filename}:{line or code.co_firstlineno}"]


def _is_runtime(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(("gmpd.runtime.", "threading"))


def _await_chain(coro: Any) -> Iterator[FrameType]:
    """Frames of a suspended coroutine and of those that it awaits, innermost first."""
    frames: list[FrameType] = []
    while coro is not None and len(frames) < FRAMES_MAX:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        frame = frame or getattr(coro, "ag_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coro = (
            getattr(coro, "cr_await", None)
            or getattr(coro, "gi_yieldfrom", None)
            or getattr(coro, "ag_await", None)
        )
    return reversed(frames)


def _frame_lines(frames: list[tuple[FrameType, int]]) -> list[str]:
    lines = []
    for frame, line in frames[:FRAMES_MAX]:
        code = frame.f_code
        lines += [f"{code.co_qualname}(...)", f"\t{code.co_filename}:{line}"]
    return lines
