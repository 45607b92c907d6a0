"""Gs: ``gmpd.go`` makes one of an ``async def``, and a worker of an async job.

A fresh one is data, and may run in another worker; its outcome comes back. To asyncio it is a
future. How it is resumed is in ``step``; sync Gs are in ``syncg``; what each slot holds in which
phase, in ``gstate``.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from asyncio import CancelledError
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from gmpd.errors import InvariantError
from gmpd.runtime.callee import fn_key, fn_name
from gmpd.runtime.coro import CANCELLED, FAILED, PENDING, RETURNED, _message
from gmpd.runtime.m import current_m, entersyscallblock
from gmpd.runtime.step import CoroG, Resumable
from gmpd.timeouts import checked, lock_s

if TYPE_CHECKING:
    import cython

    from gmpd.runtime.p import Face, P
else:
    from gmpd.runtime import interpreted as cython
if not cython.compiled:
    from gmpd.runtime.interpreted import set_class

#: The set of a G until it is in ``p.gs``. Nothing is ever added.
NOWHERE: Final[set[G]] = set()


class G(Resumable):
    """The G that ``gmpd.go`` makes of an ``async def``: a child that asyncio takes for a future.

    Fresh, it is a function and its arguments, and may leave for another worker. Started, it is
    bound to its P.
    """

    __slots__ = (
        "__weakref__",
        "_among",
        "_asyncio_future_blocking",
        "_callbacks",
        "_cancels",
        "_context",
        "_coro_or_args",
        "_fn",
        "_fut_waiter",
        "_must_cancel",
        "_name",
        "_p",
        "_send",
        "_state",
        "_value",
        "id",
        "made_at",
        "made_by",
        "since_ns",
    )

    _name_prefix = "G"

    def __init__(self, p: P, fn: Callable[..., Any], args: Any = (), kwargs: Any = None):
        self._p = p
        self._fn = fn
        self._coro_or_args = args
        self._value = kwargs
        self._send = self._fut_waiter = None
        #: Its awaiters: Gs, and callbacks with their contexts. Once it has failed: an
        #: ``UnretrievedError`` until the error is retrieved.
        self._callbacks: Any = None
        self._must_cancel = self._asyncio_future_blocking = False
        self._state = PENDING
        self._context = copy_context()
        #: The code that called ``go``, and where in it: unset for what no ``go`` made.
        self.made_by: CodeType
        self.made_at: int
        #: Where it is among ``p.gs``.
        self._among: set[G] = NOWHERE
        p.last_goid = self.id = p.last_goid + 1

    @property
    def fn(self) -> Callable[..., Any]:
        """The function that it calls."""
        return self._fn

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments; empty once it has started."""
        args = self._coro_or_args
        return args if args.__class__ is tuple else ()

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments; empty once it has started."""
        return self._value or {} if self.is_fresh() else {}

    @property
    def fn_key(self) -> Any:
        """Which function, for sysmon's learning."""
        return fn_key(self._fn)

    @property
    def fn_name(self) -> str:
        return fn_name(self._fn)

    @property
    def is_unwanted(self) -> bool:
        """Whether it was cancelled: for its own code to ask, while it runs."""
        return self._state == CANCELLED or self.cancelling() > 0

    def is_fresh(self) -> bool:
        """Whether it has not started, and may be given away."""
        return self._send is None and self._state == PENDING

    # ---- when it runs in another worker
    # -----------------------------------------------------------

    def leave(self, on_cancel: Callable[[G], None]) -> None:
        """It was taken from the run queue, still fresh, to run elsewhere; its outcome comes back by
        ``settle`` or ``settle_error``. A cancel ends it here at once, and calls ``on_cancel`` with
        it.
        """
        if not self.is_fresh():
            raise InvariantError(f"{self!r} has started here and cannot leave")
        self._send = started
        self._fut_waiter = Away(self, on_cancel)

    @property
    def may_leave(self) -> bool:
        """Whether it is fresh, and was not asked to end."""
        return self._send is None and self._state == PENDING and not self._must_cancel

    def come_back(self) -> bool:
        """It did not run elsewhere: fresh here again, to be queued. False if it was cancelled."""
        if self._state != PENDING:
            return False
        self._send = self._fut_waiter = None
        return True

    def settle(self, value: Any) -> None:
        """It returned ``value`` elsewhere. P holder only; ignored if it was cancelled meanwhile."""
        if self._state == PENDING:
            self._end(RETURNED, value)

    def settle_error(self, exc: BaseException) -> None:
        """It ended with ``exc`` elsewhere. P holder only; ignored if it was cancelled meanwhile."""
        if self._state != PENDING:
            return
        if isinstance(exc, CancelledError):
            self._was_cancelled(exc)
        else:
            self._failed(exc)

    # ---- how it ends ----------------------------------------------------------------------------

    def _returned(self, value: Any) -> None:
        if self._must_cancel:  # cancelled right before it returned
            message = _message(self._must_cancel)
            self._must_cancel = False
            self._end(CANCELLED, message)
            return
        self._state = RETURNED  # as in _end, written out
        self._value = value
        self._among.discard(self)
        if self._callbacks is not None:
            self._tell()

    def _failed(self, exc: BaseException) -> None:
        self._end(FAILED, exc)
        self._callbacks = self._p.unretrieved.add(self, exc)

    def _was_cancelled(self, exc: CancelledError) -> None:
        self._end(CANCELLED, exc.args[0] if exc.args else None)

    def _end(self, state: int, value: Any) -> None:
        self._state = state
        self._value = value
        self._among.discard(self)
        if self._callbacks is not None:
            self._tell()

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for entry in callbacks:
            if entry.__class__ is tuple:
                callback, context = entry
                self._p.loop.call_soon(callback, self, context=context)
            else:
                entry.ready()

    def wake_when_done(self, g: CoroG | _Joiner) -> None:
        """``g``, on the same P, waits for this one, which has not ended."""
        if self._callbacks is None:
            self._callbacks = [g]
        else:
            self._callbacks.append(g)

    def drop(self) -> None:
        """The program is over: it runs no more, and counts as cancelled. ``tell_dropped`` wakes its
        waiters.

        Its frame is kept until it is forgotten: what that runs would still be this program.
        """
        self._send = dropped
        self._must_cancel = False
        self._fut_waiter = None
        self._state = CANCELLED
        self._value = None
        self._among.discard(self)

    def tell_dropped(self) -> None:
        """Wake the waiters of a G that was dropped."""
        if self._callbacks is not None:
            self._tell()

    # ---- as a future ----------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        if self._state == PENDING:
            self._asyncio_future_blocking = True
            yield self
            if self._state == PENDING:
                raise RuntimeError("await wasn't used with future")
        return self._outcome()

    __iter__ = __await__

    def get_loop(self) -> Face:
        return self._p.loop

    @property
    def _loop(self) -> Face:
        return self._p.loop

    def done(self) -> bool:
        return self._state != PENDING

    def cancelled(self) -> bool:
        return self._state == CANCELLED

    def cancel(self, msg: Any = None) -> bool:
        """Request that it ends with CancelledError at its next step; False if it has ended."""
        if self._state != PENDING:
            return False
        self._request_cancel(msg)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Its return value; its exception is raised.

        In a sync G this waits up to ``timeout`` seconds (TimeoutError), while P does other work. In
        async code it does not wait: InvalidStateError if it has not ended; use ``await``.
        """
        if self._state == PENDING:
            self._join(timeout)
        return self._outcome()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Its exception, or None; waits as ``result`` does."""
        if self._state == PENDING:
            self._join(timeout)
        if self._state == FAILED:
            self._heard()
            return self._value  # type: ignore[no-any-return]
        self._outcome()
        return None

    def _outcome(self) -> Any:
        if self._state == RETURNED:
            return self._value
        if self._state == CANCELLED:
            raise self._make_cancelled_error()
        self._heard()
        raise self._value

    # The two that asyncio.gather asks a cancelled child for.

    @property
    def _cancel_message(self) -> Any:
        return self._value if self._state == CANCELLED else None

    def _make_cancelled_error(self) -> CancelledError:
        return CancelledError() if self._value is None else CancelledError(self._value)

    def _heard(self) -> None:
        unretrieved, self._callbacks = self._callbacks, None
        if unretrieved is not None:
            unretrieved.retrieved()

    def _join(self, timeout: float | None) -> None:
        timeout = checked(timeout)
        m = current_m()
        if m is None or m.g is None:
            raise asyncio.InvalidStateError("Result is not set: await the G")
        ended = allocate_lock()
        ended.acquire()
        over: Callable[[], None] = ended.release
        if timeout is None and m.p.owner is m:
            over = partial(m.p.on_wait_done, m, over)
        self._p.p_callbacks.threadsafe(self._joined, _Joiner(over))
        with entersyscallblock("chan receive"):
            if not ended.acquire(timeout=lock_s(timeout)):
                raise TimeoutError(f"{self!r} has not ended within {timeout} s")

    def _joined(self, waiter: _Joiner) -> None:
        """A thread waits for it. P holder only."""
        if self._state == PENDING:
            self.wake_when_done(waiter)
        else:
            waiter.ready()

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        if self._state != PENDING:
            self._p.loop.call_soon(callback, self, context=context)
        else:
            entry = callback, context if context is not None else copy_context()
            if self._callbacks is None:
                self._callbacks = [entry]
            else:
                self._callbacks.append(entry)

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        if self._state != PENDING:
            return 0
        before = self._callbacks or []
        self._callbacks = after = [
            entry
            for entry in before
            if (entry[0] if entry.__class__ is tuple else entry) != callback
        ]
        return len(before) - len(after)

    def __repr__(self) -> str:
        state = ("pending", "returned", "failed", "cancelled")[self._state]
        return f"<G {self.id} {self.fn_name} {state}>"


def become(g: G, kind: type[G]) -> None:
    """Let ``g`` be of another class with the same fields."""
    if cython.compiled:
        set_class(g, kind)
    else:
        g.__class__ = kind


class _Joiner:
    """A sync G, or its thread, that waits for a G."""

    __slots__ = ("ready",)

    def __init__(self, ready: Callable[[], None]):
        self.ready = ready


class Away:
    """The future of a child that runs in another worker."""

    __slots__ = ("_g", "_on_cancel")

    def __init__(self, g: G, on_cancel: Callable[[G], None]):
        self._g = g
        self._on_cancel = on_cancel

    def cancel(self, msg: Any = None) -> bool:
        self._g._end(CANCELLED, msg)
        self._on_cancel(self._g)
        return True


def started(_value: None) -> None:
    """Stands in ``_send`` of a SyncG that runs."""


def dropped(_coro: Any, _value: None) -> None:
    """Stands in ``_send`` of a G that outlived its program, when what it waited for came."""
    raise CancelledError
