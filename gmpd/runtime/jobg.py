"""The Gs of async jobs: a worker's own kind, an ``asyncio.Task`` to all other code.

A child of ``gmpd.go`` is a plain object, as programs make millions of them. A job is one message at
least, and its code may ask for anything that ``asyncio.current_task()`` promises: so it is a Task,
at a few hundred ns and bytes more. Counterpart: ``daemon.attempt``, whose coroutine it drives.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Coroutine
from contextvars import Context
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, TextIO

from gmpd.runtime.coro import sender
from gmpd.runtime.internals import (
    future_init,
    task_get_stack,
    task_init,
    task_print_stack,
)
from gmpd.runtime.ring import WAKE, Ring
from gmpd.runtime.roots import async_job
from gmpd.runtime.task import Task

if TYPE_CHECKING:
    from gmpd.runtime.p import P

#: Its set until it is in ``p.gs``. Nothing is ever added.
_NOWHERE: set[Any] = set()


class JobG(Task):
    """The coroutine of a worker's async job, driven as a G; the job is told when it ends."""

    __slots__ = ("_among", "_job")

    _name_prefix = "G"

    def __init__(self, p: P, job: Any, coro: Coroutine[Any, Any, Any], context: Context):
        # As Task.__init__, written out: one per async job.
        if task_init is None:
            future_init(self, loop=p.loop)
        else:
            # Other processes see the user's coroutine; the resumed one meters its steps.
            driven = getattr(job, "driven", None)
            seen = driven if driven.__class__ is CoroutineType else coro
            task_init(self, seen, loop=p.loop, name=f"G-{job.id}", context=context)
        self._p = p
        self._job = job
        self._cancelled_exc: CancelledError | None = None
        self._send = sender(coro)
        self._coro_or_args = coro
        self._among = _NOWHERE
        self._fut_waiter = None
        self._must_cancel = False
        self._context = context
        self.id = job.id
        self._log_destroy_pending = False  # it is dropped with its worker
        context.run(async_job.set, job)
        # Up to 3.13 it is not registered: that is a third of its making, and all_tasks finds it in
        # ``gs``.
        if p.loop._debug and self._source_traceback:  # type: ignore[attr-defined]
            self._source_traceback.clear()  # type: ignore[attr-defined]  # a message made it

    def ready(self, _sg: Any = None, /) -> None:
        if self._p.ring is not None:
            self.woken(self._p.ring)
        super().ready()

    def woken(self, ring: Ring) -> None:
        """Its wait is over."""
        if self._job.stepped:
            ring.add((WAKE, time.monotonic_ns(), 0, self._job.token))

    def _returned(self, value: Any) -> None:
        super()._returned(value)
        self._ended()

    def _failed(self, exc: BaseException) -> None:
        super()._failed(exc)
        self._ended()

    def _was_cancelled(self, exc: CancelledError) -> None:
        super()._was_cancelled(exc)
        self._ended()

    def _ended(self) -> None:
        self._among.discard(self)
        p = self._p
        if p.job_scopes is not None and p.job_scopes.scopes:
            p.job_scopes.scopes.pop(self.id, None)
        p.stats.finished += 1
        self._job.finished()

    @property
    def fn_name(self) -> str:
        return str(self._job.fn_name)

    @property
    def driven(self) -> Any:
        """The user's coroutine or generator, inside what the worker makes of it; None if none."""
        return getattr(self._job, "driven", None)

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        return task_get_stack(_Shown(self), limit)  # type: ignore[no-any-return]

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        task_print_stack(_Shown(self), limit, file)

    def __repr__(self) -> str:
        return f"<G {self.id} of job {self.fn_name}>"


class _Shown:
    """A job as asyncio prints its stack: that of the user's coroutine, not of the worker's."""

    def __init__(self, g: JobG):
        self._g = g
        self._coro = g.driven or g._coro
        self._exception = g.exception() if g.done() and not g.cancelled() else None

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        return task_get_stack(self, limit)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return repr(self._g)
