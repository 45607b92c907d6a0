"""The calls of jobs: ``gosched``, ``sleep``, ``blocking``, ``go`` (of ``spawn``), and queries of
their P.

All of it works in async and in sync Gs of a gmpd loop, where that makes sense; outside of one it
says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

from gmpd.runtime.coro import EMPTY
from gmpd.runtime.fresh import SyncCall
from gmpd.runtime.internals import running_loop
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import current_m, entersyscallblock
from gmpd.runtime.sleepers import from_now
from gmpd.runtime.spawn import go, gosched, this_loop
from gmpd.runtime.stacks import count_gs
from gmpd.runtime.stacks import stacks as stacks_of
from gmpd.runtime.sudog import Wait, parks

T = TypeVar("T")


@parks
def sleep(seconds: float) -> Generator[Wait, None, None]:
    """Wait at least ``seconds``; not at all, and without a yield, if ``seconds`` <= 0 (Go:
    ``time.Sleep``).

    ``inf`` and integers beyond a float mean for ever. ValueError for nan, TypeError for anything
    but a number.
    """
    if seconds <= 0:
        return
    loop = running_loop()
    if not isinstance(loop, Loop):
        from_now(0, seconds)
        yield from asyncio.sleep(seconds).__await__()
        return
    # One call at a time: the depth of its stack is part of the frame that it sleeps with.
    seconds = from_now(loop.time(), seconds)
    sleeper = loop.p.sleepers.add(loop, seconds)
    del seconds
    try:
        yield sleeper
    except BaseException:
        sleeper.abandon()
        raise
    if not sleeper.ok:
        raise sleeper.cancelled_error()


def _syscall(context: Context, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Give P away, then call."""
    with entersyscallblock("syscall"):
        return context.run(fn, *args, **kwargs)


def blocking(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> asyncio.Future[T]:
    """``await blocking(fn, ...)``: a call that is known to block runs on an M without P (Go: a
    syscall).

    The caller's context variables are seen by ``fn``, as with ``asyncio.to_thread``.
    """
    p = this_loop("gmpd.blocking").p
    call = SyncCall(p, partial(_syscall, copy_context(), fn, *args, **kwargs))
    p.runq.runqput(call)
    return call.future


def cancelled() -> bool:
    """Whether the job or G that calls this was cancelled, or its time is over.

    A coroutine gets a CancelledError; a plain function cannot be interrupted, so one that runs for
    long asks, and returns. False outside of gmpd: such a function works there too.
    """
    loop = running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if task is not None:
        return task.cancelling() > 0
    m = current_m()
    return m is not None and bool(getattr(m.g, "is_unwanted", False))


def gomaxprocs() -> int:
    """How many Ps share the work: of this daemon in a job, 1 under ``gmpd.run``."""
    return this_loop("gmpd.gomaxprocs").p.runq.procs


def num_g() -> int:
    """Gs of this P that have not ended, the caller included (Go: ``NumGoroutine``)."""
    return count_gs(this_loop("gmpd.num_g").p)


def stacks() -> str:
    """Every G of this P with its wait reason and frames, parked ones too, as Go dumps them."""
    return stacks_of(this_loop("gmpd.stacks").p).text


__all__ = [
    "EMPTY",
    "blocking",
    "cancelled",
    "go",
    "gomaxprocs",
    "gosched",
    "num_g",
    "sleep",
    "stacks",
    "this_loop",
]
