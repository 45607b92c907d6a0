"""Tasks: ``loop.create_task`` makes them."""

from __future__ import annotations

import asyncio
import os
from asyncio import CancelledError
from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from gmpd.runtime import step
from gmpd.runtime.coro import EMPTY, SEND, _message, send_other
from gmpd.runtime.internals import (
    await_begins,
    await_ends,
    future_init,
    register_task,
    task_init,
    task_repr,
)
from gmpd.runtime.interpreted import as_source

if TYPE_CHECKING:
    from gmpd.runtime.p import Face
    from gmpd.runtime.step import Resumable
else:
    # Its slots are read faster by Python's bytecode than by compiled code.
    Resumable = as_source(step).Resumable

_Future: Any = asyncio.Future
_future_cancel = _Future.cancel
_future_cancelled_error = _Future._make_cancelled_error
_future_exception = _Future.exception
_future_result = _Future.result
_future_set_result = _Future.set_result
_future_set_exception = _Future.set_exception


#: Directories of frames that do not name the maker of a task; and asyncio's functions that make
#: one.
_OWN, _ASYNCIO = os.path.dirname(__file__) + os.sep, os.path.dirname(asyncio.__file__) + os.sep
_MAKERS = frozenset({"create_task", "ensure_future", "_ensure_future"})


class Task(Resumable, asyncio.Task[Any]):
    """The task of ``loop.create_task``: a C Task by class, of which only the future is used.

    Since Python 3.14 other processes read the C fields of coroutine and name (``python -m asyncio
    ps``), so they are begun too. The step that asyncio would take is not: see ``Loop.call_soon``.
    """

    __slots__ = (
        "_cancelled_exc",
        "_cancels",
        "_context",
        "_coro_or_args",
        "_fut_waiter",
        "_must_cancel",
        "_name",
        "_p",
        "_send",
        "id",
        "since_ns",
    )

    if not TYPE_CHECKING:
        __new__ = asyncio.Task.__new__  # not that of a compiled base
    await_begins = await_begins
    await_ends = await_ends
    if task_init is not None:
        get_name = asyncio.Task.get_name
        set_name: Any = asyncio.Task.set_name

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: Face,
        name: object = None,
        context: Context | None = None,
    ):
        if task_init is not None:
            task_init(self, coro, loop=loop, name=name, context=EMPTY)
        else:
            future_init(self, loop=loop)
            if not asyncio.iscoroutine(coro):
                raise TypeError(f"a coroutine was expected, got {coro!r}")
            if name is not None:
                self._name = str(name)
            self._log_destroy_pending = True
            register_task(self)
        self._p = p = loop.p
        self._cancelled_exc: CancelledError | None = None
        self._send = SEND if coro.__class__ is CoroutineType else send_other
        self._coro_or_args = coro
        self._context = copy_context() if context is None else context
        self._fut_waiter = None
        self._must_cancel = False
        p.last_goid = self.id = p.last_goid + 1
        p.ready.append(self)

    def forget_own_frames(self) -> None:
        """In debug mode: the line that made it is the user's, not the loop's nor asyncio's."""
        origin = self._source_traceback  # type: ignore[attr-defined]
        while origin and origin[-1].filename.startswith(_OWN):
            del origin[-1]
        while len(origin) > 1 and origin[-1].name in _MAKERS:
            if not origin[-1].filename.startswith(_ASYNCIO):
                break
            del origin[-1]

    def cancel(self, msg: Any = None) -> bool:
        self._log_traceback = False
        if self.done():
            return False
        self._request_cancel(msg)
        return True

    def set_result(self, result: Any) -> None:
        raise RuntimeError("Task does not support set_result operation")

    def set_exception(self, exception: Any) -> None:
        raise RuntimeError("Task does not support set_exception operation")

    def _returned(self, value: Any) -> None:
        if self._must_cancel:  # cancelled right before it returned
            message = _message(self._must_cancel)
            self._must_cancel = False
            _future_cancel(self, message)
        else:
            _future_set_result(self, value)
        if self._p.main is self._coro_or_args:
            self._p.loop.main_returned()

    def _failed(self, exc: BaseException) -> None:
        _future_set_exception(self, exc)
        if self._p.main is self._coro_or_args:
            self._p.loop.main_returned()

    def _was_cancelled(self, exc: CancelledError) -> None:
        _future_cancel(self)
        self._cancelled_exc = exc
        if self._p.main is self._coro_or_args:
            self._p.loop.main_returned()

    def _make_cancelled_error(self) -> CancelledError:
        """The very error that the coroutine ended with, once; it has the traceback."""
        exc, self._cancelled_exc = self._cancelled_exc, None
        return exc if exc is not None else _future_cancelled_error(self)

    def result(self) -> Any:
        if self._cancelled_exc is not None:
            raise self._make_cancelled_error()
        return _future_result(self)

    def exception(self) -> BaseException | None:
        if self._cancelled_exc is not None:
            raise self._make_cancelled_error()
        return _future_exception(self)  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            self._asyncio_future_blocking = True
            yield self
            if not self.done():
                raise RuntimeError("await wasn't used with future")
        return self.result()

    __iter__ = __await__

    def __repr__(self) -> str:
        return task_repr(self)
