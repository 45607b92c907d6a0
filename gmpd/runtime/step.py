"""How a started G is resumed, waits and is cancelled: the hot core.

A G that waits for an asyncio future registers *itself* as the callback, with an empty context: the
loop's ``call_soon`` knows a G and queues it without a Handle. A G that waits for a channel, lock or
timer of ours yields a ``Sudog`` and is made ready without any callback.

Compiled, it is there twice: a child is a struct of C to it, a task is none, and is stepped by the
same source as Python runs it (``task``).

It knows nothing of Ms, and of the run queue only where a G goes when it yields or wakes.
"""

from __future__ import annotations

from _thread import get_ident
from asyncio import CancelledError
from collections.abc import Callable, Generator
from contextvars import Context
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

from gmpd.runtime.coro import (
    EMPTY,
    GOSCHED,
    SEND,
    UNCANCEL_REVOKES,
    AnyCoroG,
    _message,
    leave_fork,
    send_other,
    sender,
    set_visible_again,
)
from gmpd.runtime.internals import (
    clear_current_task,
    current_tasks,
    running_loop,
    set_running_loop,
    swap_current_task,
    task_get_stack,
    task_print_stack,
)
from gmpd.runtime.sudog import Wait
from gmpd.sched.g import GEvent

if TYPE_CHECKING:
    import cython

    from gmpd.runtime.p import P
else:
    from gmpd.runtime import interpreted as cython
if not cython.compiled:
    from gmpd.runtime.interpreted import ENDED, resume, returned, taken

else:
    #: The result of ``resume`` when the coroutine has ended.
    ENDED = object()

#: Whether this is C.
COMPILED: Final = cython.compiled
#: With these a program ends.
LEAVING: Final = (KeyboardInterrupt, SystemExit)


class Resumable(AnyCoroG):
    """How a coroutine is resumed, waits and is cancelled. The storage is in the two subclasses."""

    if not TYPE_CHECKING:  # a type checker sees the names of the subclasses' slots instead
        __slots__ = ()

    if TYPE_CHECKING:
        id: int
        _p: P
        #: How to resume it: ``SEND``, or ``send_other``. None: it has not begun.
        _send: Any
        #: The coroutine that is resumed. Of a child that has not begun, or has no coroutine: its
        #: positional arguments, a tuple.
        _coro_or_args: Any
        _context: Context
        _fut_waiter: Any
        #: The function to call; only children are made without their coroutine.
        _fn: Callable[..., Any]
        #: Its outcome; of a child that has not begun: its keyword arguments, or None.
        _value: Any
        #: Thrown into the coroutine at its next step, if anything.
        _must_cancel: BaseException | Literal[False]
        #: Since when it waits, to a few ms; unset until it does.
        since_ns: int
        #: Unset until the first cancel.
        _cancels: int
        #: Unset until it is named.
        _name: str

        def done(self) -> bool: ...

    def _returned(self, value: Any) -> None:
        """Its coroutine returned."""
        raise NotImplementedError

    def _failed(self, exc: BaseException) -> None:
        """Its coroutine raised."""
        raise NotImplementedError

    def _was_cancelled(self, exc: CancelledError) -> None:
        """Its coroutine ended with what a cancel threw into it."""
        raise NotImplementedError

    def _run(self) -> None:  # noqa: C901, PLR0915 - one place, one frame
        """One step: resume the coroutine, then register its wait. The hot core. It stays the
        current task until its caller ends that (``Loop``)."""
        p = self._p
        loop = p.loop
        if current_tasks is not None:
            current_tasks[loop] = self
        else:
            try:
                swap_current_task(loop, self)
            except RuntimeError:
                set_visible_again(loop, self)
        try:
            if not self._must_cancel:
                self._fut_waiter = None
                send, coro = self._send, self._coro_or_args
                if send is None:  # a child that has not begun: its arguments are still data
                    kwargs, self._value, self._coro_or_args = self._value, None, ()
                    coro = self._fn(*coro) if kwargs is None else self._fn(*coro, **kwargs)
                    self._coro_or_args = coro
                    send = self._send = SEND if type(coro) is CoroutineType else send_other
                if COMPILED and send is SEND:
                    result = taken(resume(self._context, coro))
                else:
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
        except BaseException as error:
            if p.forked:
                leave_fork(1)
            self._failed(error)
            self = None  # type: ignore[assignment]
            if isinstance(error, LEAVING) and not p.is_worker:
                raise  # a worker is not the job's to end: it is the awaiter's
        else:
            if p.forked:
                leave_fork(0)
            if result is GOSCHED:
                (put := p.put_global)(self)  # noqa: F841 - so it is read as a slot
            elif COMPILED and result is ENDED:
                self._returned(returned())
            elif result is None:
                p.ready.append(self)
            elif isinstance(result, Wait) and result._loop is loop:  # else it says what is wrong
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
        """The coroutine yielded a future, or an object that cannot be awaited."""
        blocking = getattr(result, "_asyncio_future_blocking", None)
        if blocking and result is not self and _loop_of(result) is self._p.loop:
            result._asyncio_future_blocking = False
            result.add_done_callback(self, context=EMPTY)
            begins = self.await_begins
            if begins is not None:
                begins(result, self)
            self._fut_waiter = result
            self.since_ns = self._p.polled_ns
            if self._must_cancel and result.cancel(msg=_message(self._must_cancel)):
                self._must_cancel = False
            return
        if not self._must_cancel:
            self._must_cancel = _misuse(self, result, blocking)
        self._p.ready.append(self)

    def __call__(self, _future: Any) -> None:
        """As the callback of a future on another loop, which knows nothing of Gs."""
        loop = self._p.loop
        outer = running_loop()
        set_running_loop(loop)
        if self.await_ends is not None:
            self.await_ends(_future, self)
        try:
            self._run()
        finally:
            clear_current_task(loop)
            set_running_loop(outer)

    def ready(self, _sg: Wait | None = None, /) -> None:
        """Its wait is over: into ``runnext`` of P (Go: ``goready``). P holder only."""
        p = self._p
        runq = p.runq
        kicked, runq.runnext = runq.runnext, self
        if kicked is not None:
            runq.runqput(kicked)
        if p.is_idle:  # then it is not P that wakes it, but a loop of another thread
            p.loop.wake()
        if p.tracer is not None:
            p.tracer(GEvent.UNBLOCK, self)

    @property
    def _coro(self) -> Any:
        coro = self._coro_or_args
        return None if coro.__class__ is tuple else coro

    @_coro.setter
    def _coro(self, coro: Any) -> None:
        """Libraries that run a task under another coroutine (greenback) put it in its place."""
        self._coro_or_args = coro
        self._send = sender(coro)

    def get_coro(self) -> Any:
        return self._coro

    @property
    def fn_name(self) -> str:
        """The function that it runs, by its qualified name; of a job, as its client named it."""
        return str(getattr(self._coro, "__qualname__", type(self._coro).__name__))

    def get_context(self) -> Context:
        return self._context

    def get_name(self) -> str:
        name = getattr(self, "_name", None)
        return name if name is not None else f"{self._name_prefix}-{self.id}"

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
        loop = self._p.loop
        if loop._thread_id not in (None, get_ident()) and not loop.is_closed():
            # From a sync G without P, or a signal handler: P's own M must do it.
            loop.call_soon_threadsafe(self._request_cancel, msg)
            return
        self._cancels = self.cancelling() + 1
        waiter = self._fut_waiter
        if waiter is not None and waiter.cancel(msg=msg):
            return
        self._must_cancel = CancelledError() if msg is None else CancelledError(msg)

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        return task_get_stack(self, limit)  # type: ignore[no-any-return]

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        task_print_stack(self, limit, file)


#: The class of all Gs of coroutines, for ``isinstance``.
CoroG: TypeAlias = Resumable
if not TYPE_CHECKING:
    CoroG = AnyCoroG


def is_started(g: Any) -> bool:
    """Whether this entry of a run queue has a frame here, and must not be given away."""
    return isinstance(g, CoroG) and g._send is not None


def _loop_of(future: Any) -> Any:
    get_loop = getattr(future, "get_loop", None)
    return get_loop() if get_loop is not None else future._loop


def _misuse(g: Any, result: Any, blocking: bool | None) -> RuntimeError:
    """The error for a coroutine that yielded nonsense, in asyncio's own words."""
    if blocking is not None:
        if _loop_of(result) is not g._p.loop:
            return RuntimeError(f"Task {g!r} got Future {result!r} attached to a different loop")
        if result is g and blocking:
            return RuntimeError(f"Task cannot await on itself: {g!r}")
        return RuntimeError(f"yield was used instead of yield from in task {g!r} with {result!r}")
    if isinstance(result, Generator):
        return RuntimeError(
            f"yield was used instead of yield from for generator in task {g!r} with {result!r}"
        )
    return RuntimeError(f"Task got bad yield: {result!r}")
