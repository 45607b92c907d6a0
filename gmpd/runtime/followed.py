"""Followed Gs: children and tasks that have events in P's ring; the others pay nothing for it.

A switch of a child takes 0.3 µs, and an event as long, so not every child can have events. While
events come slower than ``ring.EVENTS_PER_S``, the next few that are made are followed
(``P.to_follow``): they get a class of their own, with events around each step, wake-up and call. A
followed one whose events come too fast has none from its next step on, and the ring says so
(``Kind.LEFT``): so of each life either all is known, or until when.

It knows the classes of Gs and the ring, not how either is shown (``daemon.trace_runs``).
"""

from __future__ import annotations

import asyncio
import time
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from functools import partial
from types import BuiltinFunctionType, CoroutineType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from gmpd.runtime.coro import FAILED, PENDING, RETURNED
from gmpd.runtime.g import G, become
from gmpd.runtime.internals import clear_current_task
from gmpd.runtime.jobg import JobG
from gmpd.runtime.m import current_m
from gmpd.runtime.ring import (
    CANCELLED,
    ENDED,
    ERROR,
    NAME_SHIFT,
    OK,
    STEP,
    WAKE,
    YIELDED,
    Kind,
    Ring,
)
from gmpd.runtime.step import CoroG
from gmpd.runtime.syncg import SyncG
from gmpd.runtime.task import Task

if TYPE_CHECKING:
    from gmpd.runtime.p import P

#: Numbers, as in ``ring``.
_CHILD, _LEFT, _FAILED = int(Kind.CHILD), int(Kind.LEFT), int(Kind.FAILED)


def _woken(_future: Any, g: CoroG) -> None:
    """Its wait is over."""
    ring = g._p.ring
    if ring is not None:
        ring.add((WAKE, time.monotonic_ns(), 0, ~g.id))


def _task_woken(future: Any, g: CoroG) -> None:
    _woken(future, g)
    if Task.await_ends is not None:
        Task.await_ends(future, g)


class FollowedG(G):
    """A child whose function is a coroutine function."""

    __slots__ = ()

    await_ends = staticmethod(_woken)

    def _run(self) -> None:
        _step(self, G, G._run)

    def ready(self, _sg: Any = None, /) -> None:
        _woken(None, self)
        super().ready()

    def leave(self, on_cancel: Callable[[G], None]) -> None:
        _unfollow(self, G, elsewhere=True)
        G.leave(self, on_cancel)


class FollowedTask(Task):
    """A plain task."""

    __slots__ = ()

    await_ends: Any = staticmethod(_task_woken)

    def _run(self) -> None:
        _step(self, Task, Task._run)

    def ready(self, _sg: Any = None, /) -> None:
        _woken(None, self)
        super().ready()


# Its ``repr`` is for users, to whom it is a task as any other.
FollowedTask.__name__ = FollowedTask.__qualname__ = Task.__name__
FollowedTask.__module__ = Task.__module__


class FollowedSyncG(SyncG):
    """A child whose function is a plain one: one event, and those of hand-offs."""

    __slots__ = ()

    @property
    def token(self) -> int:
        """For the events of hand-offs."""
        return ~self.id

    def start(self) -> Coroutine[Any, Any, None] | None:
        cancelled, began = self._state != PENDING, time.monotonic_ns()
        coro = SyncG.start(self)
        ring = self._p.ring
        if coro is not None:
            _unfollow(self, SyncG)
        elif ring is not None:
            value = self._value
            outcome = OK if value.__class__ is tuple else ERROR
            if cancelled or isinstance(value, CancelledError):
                outcome = CANCELLED
            _add_end(ring, self, began, outcome)
        return coro

    def leave(self, on_cancel: Callable[[G], None]) -> None:
        _unfollow(self, SyncG, elsewhere=True)
        SyncG.leave(self, on_cancel)


#: Those that the home M resumes.
FOLLOWED: Final[frozenset[type]] = frozenset({FollowedG, FollowedTask})
_FOLLOWED_AS: Final[dict[type, type]] = {G: FollowedG, Task: FollowedTask, SyncG: FollowedSyncG}


def follow(p: P, g: Any) -> None:
    """``g`` was just made; P has room for one more that is followed."""
    ring, kind = p.ring, _FOLLOWED_AS.get(g.__class__)
    if ring is None or kind is None:
        p.to_follow = 0
        return
    p.to_follow -= 1
    _become(g, kind)
    ring.add((_CHILD | ring.child(name_of(g)) << 8, time.monotonic_ns(), _maker(p), ~g.id))


def _unfollow(g: CoroG, kind: type, *, elsewhere: bool = False) -> None:
    """It is an ordinary one again; ``elsewhere``: it runs in another worker."""
    ring = g._p.ring
    _become(g, kind)
    if ring is not None:
        ring.add((_LEFT | elsewhere << 8, time.monotonic_ns(), 0, ~g.id))


def _become(g: Any, kind: type) -> None:
    if isinstance(g, G):
        become(g, kind)
    else:
        g.__class__ = kind


def name_of(g: Any) -> str:
    """The function of a child or task, as far as that runs none of the user's code."""
    if not isinstance(g, G):
        coro = g._coro_or_args
        return coro.__qualname__ if type(coro) is CoroutineType else type(coro).__name__
    fn: Any = g._fn
    while (kind := type(fn)) is partial or kind is MethodType:
        fn = fn.func if kind is partial else fn.__func__
    if kind is FunctionType or kind is BuiltinFunctionType:
        return fn.__qualname__  # type: ignore[no-any-return]
    return kind.__name__


def _maker(p: P) -> int:
    """The token of the G that runs; 0: none does."""
    m = current_m()
    g: Any = asyncio.current_task(p.loop) if m is None or m.g is None else m.g
    if isinstance(g, JobG):
        g = g._job
    return ~g.id if isinstance(g, CoroG) else getattr(g, "token", 0)


def _step(g: CoroG, kind: type, run: Callable[[Any], None]) -> None:
    """One step of a followed one; ``run`` is that of its ``kind``."""
    p = g._p
    ring = p.ring
    if ring is None or not ring.takes_steps:
        _unfollow(g, kind)
        run(g)
        return
    began = time.monotonic_ns()
    try:
        run(g)
    finally:
        # The loop does that for its own kinds.
        clear_current_task(p.loop)
        if g.done():
            _add_end(ring, g, began, _outcome(g))
        else:
            waiter = g._fut_waiter
            code = YIELDED if waiter is None else ring.codes[waiter.__class__]
            ring.add((STEP | code << 8, began, time.monotonic_ns(), ~g.id))


def _add_end(ring: Ring, g: CoroG, began: int, outcome: int) -> None:
    """Its last step."""
    ended = time.monotonic_ns()
    code = ENDED | ring.child(name_of(g)) << NAME_SHIFT
    ring.add((STEP | code << 8, began, ended, ~g.id))
    if outcome != OK:
        ring.add((_FAILED | outcome << 8, ended, 0, ~g.id))


def _outcome(g: Any) -> int:
    if isinstance(g, G):
        return {RETURNED: OK, FAILED: ERROR}.get(g._state, CANCELLED)
    if g.cancelled():
        return CANCELLED
    return OK if g._exception is None else ERROR
