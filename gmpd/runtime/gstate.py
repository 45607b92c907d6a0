"""In which state a G is, and what its slots hold in each: the one table, and the one function.

A G stores no state. Where it is says it: in a queue, on an M, in a list of waiters; a store per
switch would cost a tenth of one. Its slots are reused: what a fresh G needs (function, arguments) a
started one does not, and a started one needs no outcome yet. Separate slots would be three more,
24 bytes of the 0.8 kB that a parked G may take, and three more stores in a spawn.

So nothing but ``CoroG``, ``G`` and ``SyncG`` interprets the slots by itself; everything that shows
a G (``stacks``) asks here.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from gmpd.runtime.g import Away, dropped, started
from gmpd.runtime.m import COMPUTING
from gmpd.runtime.step import CoroG
from gmpd.runtime.sudog import Wait
from gmpd.sched.g import GStatus

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P


class Phase(Enum):
    """The kinds of content of a G's slots; ``SLOTS`` gives it slot by slot."""

    #: A function and its arguments: it may leave for another worker.
    FRESH = "fresh"
    #: As fresh; it runs in another worker, and its outcome comes back.
    AWAY = "away"
    #: A coroutine that has begun.
    COROUTINE = "coroutine"
    #: A plain function that has begun: its frame is on an M, or in a coroutine that it returned.
    CALL = "call"
    #: It has its outcome.
    ENDED = "ended"


#: The reused slots of a ``G`` in each phase. Tasks and jobs have no phase but COROUTINE and ENDED,
#: and keep outcome and awaiters in their ``asyncio.Future``.
SLOTS: Final[dict[Phase, dict[str, str]]] = {
    Phase.FRESH: {
        "_send": "None",
        "_coro_or_args": "the positional arguments, a tuple",
        "_value": "the keyword arguments, or None",
        "_fut_waiter": "None",
        "_callbacks": "its awaiters, or None",
        "_must_cancel": "False, or the CancelledError with which it ends when its turn comes",
    },
    Phase.AWAY: {
        "_send": "``started``: it must not be given away again",
        "_coro_or_args": "the positional arguments, a tuple",
        "_value": "the keyword arguments, or None",
        "_fut_waiter": "an ``Away``, by which a cancel reaches the other worker",
        "_callbacks": "its awaiters, or None",
        "_must_cancel": "False",
    },
    Phase.COROUTINE: {
        "_send": "how to resume it: ``SEND``, or ``send_other``",
        "_coro_or_args": "the coroutine",
        "_value": "None",
        "_fut_waiter": "the Wait or future on which it waits, until its next step; else None",
        "_callbacks": "its awaiters, or None",
        "_must_cancel": "False, or what its next step throws into the coroutine",
    },
    Phase.CALL: {
        "_send": "``started``",
        "_coro_or_args": "an empty tuple",
        "_value": "None; once the function has returned, (its value,) or its exception",
        "_fut_waiter": "None; the task that drives the coroutine that the function returned",
        "_callbacks": "its awaiters, or None",
        "_must_cancel": "False: a thread cannot be interrupted",
    },
    Phase.ENDED: {
        "_send": "as before; ``dropped`` if its program ended first",
        "_coro_or_args": "as before: nothing reads it",
        "_value": "the value, the exception, or the message of the cancel",
        "_fut_waiter": "as before: nothing reads it",
        "_callbacks": "None; of a failed G, an UnretrievedError until its error is retrieved",
        "_must_cancel": "as before: nothing reads it",
    },
}


def phase_of(g: CoroG) -> Phase:
    """The kind of content of its slots."""
    if g.done():
        return Phase.ENDED
    if g._send is None:
        return Phase.FRESH
    if g._send is not started:
        assert g._send is not dropped, "a dropped G has ended"
        return Phase.COROUTINE
    return Phase.AWAY if isinstance(g._fut_waiter, Away) else Phase.CALL


def status_of(g: CoroG, m: M | None = None) -> GStatus:
    """Its state, in Go's words. ``m``: the M that runs its plain function, of ``on_ms``.

    P holder only, or for a look: what it says of Gs that run meanwhile may be a step apart.
    """
    if m is not None:
        return status_on(m)
    phase = phase_of(g)
    if phase is Phase.ENDED:
        return GStatus.DEAD
    running: Any = asyncio.current_task(g._p.loop)
    if running is g:
        return GStatus.RUNNING
    waiter = g._fut_waiter
    if waiter is None or (isinstance(waiter, Wait) and waiter.g is None):
        return GStatus.RUNNABLE  # fresh, woken, or it yielded
    return GStatus.WAITING


def status_on(m: M) -> GStatus:
    """The state of the G whose plain function ``m`` runs: it runs with P, or computes beside it."""
    runs = m.p.owner is m or m.trait in COMPUTING
    return GStatus.RUNNING if runs else GStatus.SYSCALL


def on_ms(p: P) -> dict[Any, M]:
    """Gs whose plain functions run, with P or without, and their Ms. One may end while we look."""
    owner = p.owner
    candidates = [*p.detached, *([owner] if owner is not None else [])]
    found = {m.g: m for m in candidates}
    found.pop(None, None)
    return found
