"""Steps under observation: in debug mode slow ones are named, as asyncio does; a tracer records the
G's events. Otherwise nothing here runs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gmpd.runtime.internals import asyncio_logger
from gmpd.runtime.stacks import wait_reason
from gmpd.runtime.step import CoroG
from gmpd.runtime.trace import Tracer
from gmpd.sched.g import GEvent

if TYPE_CHECKING:
    from gmpd.runtime.p import P


def is_instrumented(p: P) -> bool:
    """Whether steps go through ``run_instrumented``."""
    return p.loop._debug or p.tracer is not None


def run_instrumented(p: P, handle: Any) -> None:
    """One step of a G, or one callback."""
    tracer = p.tracer
    if tracer is not None and isinstance(handle, CoroG):
        tracer(GEvent.START, handle)
        handle._run()
        _trace_end_of_step(tracer, handle)
        return
    if not p.loop._debug:
        handle._run()
        return
    p.loop._current_handle = handle
    try:
        start = p.loop.time()
        handle._run()
        took = p.loop.time() - start
        if took >= p.loop.slow_callback_duration:
            asyncio_logger().warning("Executing %s took %.3f seconds", _shown(handle), took)
    finally:
        p.loop._current_handle = handle = None  # a traceback may lead here: no cycle


def _trace_end_of_step(tracer: Tracer, g: Any) -> None:
    if g.done():
        tracer(GEvent.END, g)
    elif g._fut_waiter is not None:
        tracer(GEvent.BLOCK, g, wait_reason(g._fut_waiter))
    else:
        tracer(GEvent.STOP, g)


def _shown(handle: Any) -> str:
    """A callback as asyncio shows it: one that runs a Task is shown as that Task."""
    if isinstance(handle, CoroG):
        return repr(handle)
    task = getattr(handle._callback, "__self__", None)
    return repr(task) if isinstance(task, asyncio.Task) else str(handle)
