"""Every G of a P in words: where it is, what it waits for, its frames. Go's goroutine dump.

Reads, and changes nothing; costs only whoever asks.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from gmpd.runtime.g import Away, G, Steps, SyncG
from gmpd.runtime.sudog import Sudog
from gmpd.runtime.trace import PState

if TYPE_CHECKING:
    from gmpd.runtime.loop import Loop
    from gmpd.runtime.m import M

#: Frames shown of one G: the innermost. Deeper stacks are recursion.
FRAMES_MAX = 50


def wait_reason(waiter: Any) -> str:
    """Go's wait reason for what a G waits on."""
    if isinstance(waiter, Sudog):
        return waiter.reason
    if isinstance(waiter, Steps):
        return f"G wait (G {waiter.id})"
    if isinstance(waiter, Away):
        return "running in another worker"
    return "IO wait"


def p_state(loop: Loop) -> PState:
    """Who holds P, and its queues in the order in which they run. Any thread may look."""
    runq, owner = loop.runq, loop.ms.owner
    woken = [g for g in list(loop._ready) if isinstance(g, Steps)]
    nxt = runq.runnext
    return PState(
        m=None if owner is None else owner.id,
        runnext=None if nxt is None else getattr(nxt, "id", 0),
        local=tuple(getattr(g, "id", 0) for g in [*woken, *list(runq.ring)]),
        global_=tuple(getattr(g, "id", 0) for g in list(runq.global_)),
    )


def all_gs(loop: Loop) -> list[Any]:
    """All Gs of the loop that have not ended, in the order of their making."""
    gs: list[Any] = list(loop.gs)
    gs.extend(task for task in asyncio.all_tasks(loop) if isinstance(task, Steps))
    return sorted(gs, key=lambda g: int(g.id))


def stacks(loop: Loop) -> str:
    """The dump of all Gs, and of sync jobs that run on the loop's threads."""
    on_ms = _on_ms(loop)
    parts = [_dump(loop, g, on_ms.pop(g, None)) for g in all_gs(loop)]
    parts += [_dump_m(m, g) for g, m in on_ms.items()]
    return "\n".join(parts)


def deadlock_text(loop: Loop) -> str:
    """Go's words for a program that can never go on."""
    return f"all goroutines are asleep - deadlock!\n\n{stacks(loop)}"


def _on_ms(loop: Loop) -> dict[Any, M]:
    """Sync Gs that run, with P or without, and their Ms. One may end while we look."""
    owner = loop.ms.owner
    candidates = [*loop.ms.detached, *([owner] if owner is not None else [])]
    found = {m.g: m for m in candidates}
    found.pop(None, None)
    return found


def _dump(loop: Loop, g: Any, m: M | None) -> str:
    if m is not None:
        return _dump_m(m, g)
    if isinstance(g, G) and (g.is_fresh() or (isinstance(g, SyncG) and g._fut_waiter is None)):
        return f"goroutine {g.id} [runnable]:\n{g.fn_name}(...)\n"
    running = asyncio.current_task(loop) is g
    waiter = g._fut_waiter
    state = "running" if running else "runnable" if waiter is None else wait_reason(waiter)
    lines = [f"goroutine {g.id} [{state}]:"]
    frames = _await_chain(g.get_coro())
    lines += _frame_lines([(frame, frame.f_lineno) for frame in frames])
    return "\n".join(lines) + "\n"


def _dump_m(m: M, g: Any) -> str:
    state = m.wait_reason or ("running" if m.loop.ms.owner is m else "syscall")
    lines = [f"goroutine {g.id} [{state}, M{m.id}]:"]
    frame = sys._current_frames().get(m.ident)
    if frame is not None:
        chain = [f for f in traceback.walk_stack(frame) if not _is_runtime(f[0])]
        lines += _frame_lines(chain)
    return "\n".join(lines) + "\n"


def _is_runtime(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(("gmpd.runtime.", "threading"))


def _await_chain(coro: Any) -> Iterator[FrameType]:
    """Frames of a suspended coroutine, innermost first: what each awaits is followed."""
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
