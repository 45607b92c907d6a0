"""Started Gs: coroutines that P resumes until they wait.

Two kinds share ``Steps``, the hot core: ``Task``, what ``loop.create_task`` makes, an
``asyncio.Task`` by every test that a library may make; and ``G``, what ``gmpd.go`` makes, a plain
slotted object that asyncio takes for a future, at a third of the cost.

A G that waits for an asyncio future registers *itself* as the callback, with an empty context: the
loop's ``call_soon`` knows a G and queues it without a Handle. A G that waits for a channel, lock or
timer of ours yields a ``Sudog`` and is made ready without any callback. Rejected: one class for
both (``Future.__init__`` and asyncio's registry of all tasks are half of a spawn, and a child G
needs neither).

This file knows nothing of Ms, and of the run queue only where a G goes when it yields or wakes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from _thread import allocate_lock, get_ident
from asyncio import CancelledError, base_tasks, coroutines
from asyncio.tasks import _current_tasks, _register_task  # type: ignore[attr-defined]
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from types import CodeType, CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TextIO

from gmpd.errors import InvariantError
from gmpd.runtime.m import current_m, entersyscallblock
from gmpd.runtime.sudog import Wait
from gmpd.sched.g import GEvent

if TYPE_CHECKING:
    from gmpd.runtime.loop import Loop

#: Wake-ups run in this context: inside its own one a G could not be entered again.
EMPTY: Final = Context()
#: How a coroutine is resumed: one for all of them. A bound ``coro.send`` would be an object of 72
#: bytes for each G.
SEND: Final = CoroutineType.send
#: Since 3.13 the last ``uncancel`` takes a cancellation back that was not delivered yet.
UNCANCEL_REVOKES: Final = sys.version_info >= (3, 13)


class _Gosched(tuple[Any]):
    """Awaited, it yields its one item. A tuple's iterator is made and resumed in C; a generator
    would
    be a frame more to resume."""

    __slots__ = ()
    __await__ = tuple.__iter__


#: What a G yields to let others run: it goes to the tail of the global queue (Go: ``Gosched``).
GOSCHED: Final = object()
#: ``await YIELD`` yields that.
YIELD: Final = _Gosched((GOSCHED,))


class Steps:
    """How a coroutine is resumed, waits and is cancelled. The storage is in the two subclasses."""

    if not TYPE_CHECKING:  # a type checker sees the names of the subclasses' slots instead
        __slots__ = ()

    #: The loop runs Gs and Handles alike; nobody cancels a G as a handle.
    _cancelled = False

    if TYPE_CHECKING:
        id: int
        _p: Loop
        #: How to resume it: ``SEND``, or ``send_other``. None: it has not begun.
        _send: Any
        #: What is resumed. Of a child that has not begun, or has no coroutine: its positional
        #: arguments, a tuple.
        _coro_or_args: Any
        _context: Context
        _fut_waiter: Any
        #: What to call; only children are made without their coroutine.
        _fn: Callable[..., Any]
        #: Its outcome; of a child that has not begun: its keyword arguments, or None.
        _value: Any
        #: What is thrown into the coroutine at its next step, if anything.
        _must_cancel: BaseException | Literal[False]
        #: Since when it waits, to a few ms; unset until it does.
        since_ns: int
        #: Unset until the first cancel.
        _cancels: int
        #: Unset until somebody names it.
        _name: str

        def done(self) -> bool: ...
        def _returned(self, value: Any) -> None: ...
        def _failed(self, exc: BaseException) -> None: ...
        def _was_cancelled(self, exc: CancelledError) -> None: ...

    def _run(self) -> None:  # noqa: C901, PLR0915 - one place, one frame
        """One step: resume the coroutine, then see what it waits for. The hot core.

        Leaves itself as the current task; who runs it clears that (see ``Loop``).
        """
        p = self._p
        _current_tasks[p] = self
        try:
            if not self._must_cancel:
                self._fut_waiter = None
                send, coro = self._send, self._coro_or_args
                if send is None:  # a child that has not begun: its arguments are still data
                    kwargs, self._value, self._coro_or_args = self._value, None, ()
                    coro = self._fn(*coro) if kwargs is None else self._fn(*coro, **kwargs)
                    self._coro_or_args = coro
                    send = self._send = SEND if type(coro) is CoroutineType else send_other
                result = self._context.run(send, coro, None)
            else:
                result = self._throw()
        except StopIteration as stop:
            if p.forked:
                leave_fork(0)
            self._returned(stop.value)
        except CancelledError as cancelled:
            if p.forked:
                leave_fork(1)
            self._was_cancelled(cancelled)
            self = None  # type: ignore[assignment]  # no cycle through the traceback
        except (KeyboardInterrupt, SystemExit) as leaving:
            if p.forked:
                leave_fork(1)
            self._failed(leaving)
            self = None  # type: ignore[assignment]
            if not p.shared:  # else the process is not the job's to end: it is the awaiter's
                raise
        except BaseException as error:  # noqa: BLE001 - it is the awaiter's
            if p.forked:
                leave_fork(1)
            self._failed(error)
            self = None  # type: ignore[assignment]
        else:
            if p.forked:
                leave_fork(0)
            if result is GOSCHED:
                p.runq.global_.append(self)
            elif result is None:
                p._ready.append(self)
            elif isinstance(result, Wait) and result._loop is p:  # else it says what is wrong
                result.g = self
                self._fut_waiter = result
                self.since_ns = p.polled_ns
                if self._must_cancel and result.cancel(_message(self._must_cancel)):
                    self._must_cancel = False
            else:
                self._wait(result)

    def _throw(self) -> Any:
        """Resume with what a cancel left to be thrown. If what it waited for has ended meanwhile,
        that is heard here, as asyncio does: an earlier cancel is the one told, an error gives way.
        """
        exc: Any = self._must_cancel
        waiter, self._fut_waiter = self._fut_waiter, None
        self._must_cancel = False
        if waiter is not None:
            try:
                waiter.result()
            except CancelledError as earlier:
                exc = earlier
            except BaseException:  # noqa: BLE001, S110 - the cancel came after it
                pass
        if self._send is None:
            raise exc  # it has not begun: nothing to unwind
        return self._context.run(self._coro_or_args.throw, exc)

    def _wait(self, result: Any) -> None:
        """The coroutine yielded something else than a Sudog: a future, or nonsense."""
        blocking = getattr(result, "_asyncio_future_blocking", None)
        if blocking and result is not self and _loop_of(result) is self._p:
            result._asyncio_future_blocking = False
            if isinstance(result, G):
                result.wake_when_done(self)
            else:
                result.add_done_callback(self, context=EMPTY)
            self._fut_waiter = result
            self.since_ns = self._p.polled_ns
            if self._must_cancel and result.cancel(msg=_message(self._must_cancel)):
                self._must_cancel = False
            return
        if not self._must_cancel:
            self._must_cancel = _misuse(self, result, blocking)
        self._p._ready.append(self)

    def __call__(self, _future: Any) -> None:
        """As the callback of a future on another loop, which knows nothing of Gs."""
        try:
            self._run()
        finally:
            _current_tasks.pop(self._p, None)

    def ready(self, _sg: Wait | None = None, /) -> None:
        """What it waited for is over: into ``runnext`` of P (Go: ``goready``). P holder only."""
        p = self._p
        runq = p.runq
        kicked, runq.runnext = runq.runnext, self
        if kicked is not None:
            runq.runqput(kicked)
        if p.tracer is not None:
            p.tracer(GEvent.UNBLOCK, self)

    @property
    def _coro(self) -> Any:
        coro = self._coro_or_args
        return None if coro.__class__ is tuple else coro

    def get_coro(self) -> Any:
        return self._coro

    @property
    def fn_name(self) -> str:
        """The function that it runs, by its qualified name; of a job, as its client named it."""
        return str(getattr(self._coro, "__qualname__", type(self._coro).__name__))

    def get_context(self) -> Context:
        return self._context

    def get_name(self) -> str:
        try:
            return self._name
        except AttributeError:
            return f"{self._name_prefix}-{self.id}"

    _name_prefix = "Task"

    def set_name(self, value: object) -> None:
        self._name = str(value)

    def cancelling(self) -> int:
        try:
            return self._cancels
        except AttributeError:
            return 0

    def uncancel(self) -> int:
        left = self.cancelling() - 1
        if left < 0:
            return 0
        self._cancels = left
        if UNCANCEL_REVOKES and not left:
            self._must_cancel = False
        return left

    def _request_cancel(self, msg: Any) -> None:
        """As ``Task.cancel``: through what it waits for, else with its next step."""
        if self.done():
            return
        p = self._p
        if p._thread_id not in (None, get_ident()) and not p.is_closed():
            # From a sync G without P, or a signal handler: P's own M must do it.
            p.call_soon_threadsafe(self._request_cancel, msg)
            return
        self._cancels = self.cancelling() + 1
        waiter = self._fut_waiter
        if waiter is not None and waiter.cancel(msg=msg):
            return
        self._must_cancel = CancelledError() if msg is None else CancelledError(msg)

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        return base_tasks._task_get_stack(self, limit)  # type: ignore[arg-type]

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        base_tasks._task_print_stack(self, limit, file)  # type: ignore[arg-type]


def send_other(coro: Any, value: None) -> Any:
    """``SEND`` for what is no coroutine of Python itself, as one that Cython made."""
    return coro.send(value)


def sender(coro: Coroutine[Any, Any, Any]) -> Callable[[Any, None], Any]:
    """How to resume ``coro``."""
    return SEND if coro.__class__ is CoroutineType else send_other


def leave_fork(code: int) -> NoReturn:
    """A fork that a job made came back from the job's code: it ends here. It must not go on as a
    second worker, nor touch what it shares with the first."""
    os._exit(code)


def _message(exc: BaseException) -> Any:
    """The message of a cancel that is under way."""
    return exc.args[0] if exc.args else None


def _loop_of(future: Any) -> Any:
    if isinstance(future, G):
        return future._p
    get_loop = getattr(future, "get_loop", None)
    return get_loop() if get_loop is not None else future._loop


def _misuse(g: Any, result: Any, blocking: bool | None) -> RuntimeError:
    """What to throw into a coroutine that yielded nonsense: asyncio's own words."""
    if blocking is not None:
        if _loop_of(result) is not g._p:
            return RuntimeError(f"Task {g!r} got Future {result!r} attached to a different loop")
        if result is g and blocking:
            return RuntimeError(f"Task cannot await on itself: {g!r}")
        return RuntimeError(f"yield was used instead of yield from in task {g!r} with {result!r}")
    if isinstance(result, Generator):
        return RuntimeError(
            f"yield was used instead of yield from for generator in task {g!r} with {result!r}"
        )
    return RuntimeError(f"Task got bad yield: {result!r}")


_Future: Any = asyncio.Future
_future_init = _Future.__init__
_future_cancel = _Future.cancel
_future_cancelled_error = _Future._make_cancelled_error
_future_exception = _Future.exception
_future_result = _Future.result
_future_set_result = _Future.set_result
_future_set_exception = _Future.set_exception


class Task(Steps, asyncio.Task[Any]):
    """What ``loop.create_task`` makes: a C Task by class, of which only the future is used."""

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

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: Loop,
        name: object = None,
        context: Context | None = None,
    ):
        _future_init(self, loop=loop)
        if not coroutines.iscoroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        self._p = loop
        self._cancelled_exc: CancelledError | None = None
        self._send = sender(coro)
        self._coro_or_args = coro
        self._context = copy_context() if context is None else context
        self._fut_waiter = None
        self._must_cancel = False
        if name is not None:
            self._name = str(name)
        loop.made = self.id = loop.made + 1
        self._log_destroy_pending = True
        loop._ready.append(self)
        _register_task(self)

    def forget_frame(self) -> None:
        """In debug mode: the line that made it is the caller's, not the loop's."""
        if self._source_traceback:  # type: ignore[attr-defined]
            del self._source_traceback[-1]  # type: ignore[attr-defined]

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

    def _failed(self, exc: BaseException) -> None:
        _future_set_exception(self, exc)

    def _was_cancelled(self, exc: CancelledError) -> None:
        _future_cancel(self)
        self._cancelled_exc = exc

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
        return base_tasks._task_repr(self)


#: What a G is in until it is in ``p.gs``. Nothing is ever added.
NOWHERE: Final[set[G]] = set()

#: States of a ``G`` as a future.
PENDING, RETURNED, FAILED, CANCELLED = range(4)


class _Unheard:
    """Tells of an error that nobody asked for, when it is forgotten. An object of its own: a
    ``__del__``
    on G would cost every G."""

    __slots__ = ("exc", "g")

    def __init__(self, g: G, exc: BaseException):
        self.g = repr(g), g._p
        self.exc: BaseException | None = exc

    def __del__(self) -> None:
        text, loop = self.g
        if self.exc is not None and not loop.is_closed():
            loop.call_exception_handler(
                {"message": f"{text}: its exception was never retrieved", "exception": self.exc}
            )


class G(Steps):
    """What ``gmpd.go`` makes of an ``async def``: a child that asyncio takes for a future.

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

    def __init__(self, p: Loop, fn: Callable[..., Any], args: Any = (), kwargs: Any = None):
        self._p = p
        self._fn = fn
        self._coro_or_args = args
        self._value = kwargs
        self._send = self._fut_waiter = None
        #: Who waits for it: Gs, and callbacks with their contexts. Once it has failed: an
        #: ``_Unheard`` until somebody asks.
        self._callbacks: Any = None
        self._must_cancel = self._asyncio_future_blocking = False
        self._state = PENDING
        self._context = copy_context()
        #: The code that called ``go``, and where in it: unset for what no ``go`` made.
        self.made_by: CodeType
        self.made_at: int
        #: Where it is among ``p.gs``.
        self._among: set[G] = NOWHERE
        p.made = self.id = p.made + 1

    @property
    def fn(self) -> Callable[..., Any]:
        """What it calls."""
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
        return getattr(self._fn, "__code__", self._fn)

    @property
    def fn_name(self) -> str:
        return str(getattr(self._fn, "__qualname__", type(self._fn).__name__))

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
        self._send = _started
        self._fut_waiter = Away(self, on_cancel)

    @property
    def may_leave(self) -> bool:
        """Whether it is fresh, and nobody has asked it to end."""
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
        self._callbacks = _Unheard(self, exc)

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
                self._p.call_soon(callback, self, context=context)
            else:
                entry.ready()

    def wake_when_done(self, g: Steps) -> None:
        """``g``, on the same P, waits for this one, which has not ended."""
        if self._callbacks is None:
            self._callbacks = [g]
        else:
            self._callbacks.append(g)

    # ---- as a future ----------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        if self._state == PENDING:
            self._asyncio_future_blocking = True
            yield self
            if self._state == PENDING:
                raise RuntimeError("await wasn't used with future")
        return self._outcome()

    __iter__ = __await__

    def get_loop(self) -> Loop:
        return self._p

    @property
    def _loop(self) -> Loop:
        return self._p

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
        """What it returned; its exception is raised.

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
        unheard, self._callbacks = self._callbacks, None
        if unheard is not None:
            unheard.exc = None

    def _join(self, timeout: float | None) -> None:
        m = current_m()
        if m is None or m.g is None:
            raise asyncio.InvalidStateError("Result is not set: await the G")
        ended = allocate_lock()
        ended.acquire()
        over: Callable[[], None] = ended.release
        if timeout is None and m.loop.ms.owner is m:
            over = partial(m.loop.handoffs.over, m, over)
        self._p.call_soon_threadsafe(self.add_done_callback, lambda _: over())
        with entersyscallblock("chan receive"):
            if not ended.acquire(timeout=-1 if timeout is None else timeout):
                raise TimeoutError(f"{self!r} has not ended within {timeout} s")

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        if self._state != PENDING:
            self._p.call_soon(callback, self, context=context)
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


class Away:
    """What a G waits for that runs in another worker."""

    __slots__ = ("_g", "_on_cancel")

    def __init__(self, g: G, on_cancel: Callable[[G], None]):
        self._g = g
        self._on_cancel = on_cancel

    def cancel(self, msg: Any = None) -> bool:
        self._g._end(CANCELLED, msg)
        self._on_cancel(self._g)
        return True


class SyncG(G):
    """What ``gmpd.go`` makes of a plain function: a sync G, as ``FreshG`` of the loop."""

    __slots__ = ()

    def start(self) -> Coroutine[Any, Any, None] | None:
        """Run it to its end on the M that holds P; a coroutine that comes out is driven on."""
        args, self._coro_or_args = self._coro_or_args, ()
        if self._state != PENDING:
            return None
        kwargs, self._value = self._value, None
        self._send = _started  # it has a frame now, and must stay
        try:
            value = self._context.run(self._fn, *args, **(kwargs or {}))
            if value is not None and coroutines.iscoroutine(value):
                return self._drive(value)
            self._value = (value,)
        except BaseException as exc:  # noqa: BLE001 - it is the awaiter's
            self._value = exc
        return None

    async def _drive(self, coro: Coroutine[Any, Any, Any]) -> None:
        """A plain function that returned a coroutine, as a decorator's wrapper does."""
        self._fut_waiter = asyncio.current_task()  # so that a cancel reaches it
        try:
            self._value = (await coro,)
        except BaseException as exc:  # noqa: BLE001 - it is the awaiter's
            self._value = exc

    def finished(self) -> None:
        """P is here: tell who waits."""
        if self._state != PENDING:  # cancelled meanwhile: nobody wants it
            return
        value = self._value
        if isinstance(value, tuple):
            self._end(RETURNED, value[0])
        elif isinstance(value, CancelledError):
            self._was_cancelled(value)
        else:
            self._failed(value)

    def _request_cancel(self, msg: Any) -> None:
        """A thread cannot be interrupted: who awaits it goes on at once, and its outcome is
        dropped.
        """
        p = self._p
        if p._thread_id not in (None, get_ident()) and not p.is_closed():
            p.call_soon_threadsafe(self._request_cancel, msg)
        elif self._fut_waiter is not None:
            self._fut_waiter.cancel(msg=msg)
        elif self._state == PENDING:
            self._end(CANCELLED, msg)

    def get_coro(self) -> None:
        return None


class JobG(G):
    """The coroutine of a worker's async job, driven as a G; the job is told when it ends."""

    __slots__ = ("_job",)

    def __init__(self, p: Loop, job: Any, coro: Coroutine[Any, Any, Any], context: Context):
        # As G.__init__, written out: one per async job.
        self._p = p
        self._fn = self._job = job
        self._send = sender(coro)
        self._coro_or_args = coro
        self._among = NOWHERE
        self._fut_waiter = self._callbacks = None
        self._must_cancel = self._asyncio_future_blocking = False
        self._state = PENDING
        self._context = context
        self.id = job.id

    def _returned(self, value: Any) -> None:
        super()._returned(value)
        if self._state == RETURNED:
            self._ended()

    @property
    def fn_name(self) -> str:
        return str(self._job.fn_name)

    @property
    def driven(self) -> Any:
        """The user's coroutine or generator, inside what the worker makes of it; None if none."""
        return getattr(self._job, "driven", None)

    def _end(self, state: int, value: Any) -> None:
        super()._end(state, value)
        self._ended()

    def _ended(self) -> None:
        self._p.stats.finished += 1
        self._job.finished()

    def __repr__(self) -> str:
        return f"<G {self.id} of job {self.fn_name}>"


def _started(_value: None) -> None:
    """Stands in ``_send`` of a SyncG that runs."""


def is_started(g: Any) -> bool:
    """Whether this entry of a run queue has a frame here, and must not be given away."""
    return isinstance(g, Steps) and g._send is not None
