"""How a started G is resumed, waits and is cancelled: the hot core.

Two kinds share it: ``task.Task``, what ``loop.create_task`` makes, an ``asyncio.Task`` by every
test that a library may make; and ``g.G``, what ``gmpd.go`` makes, a plain slotted object that
asyncio takes for a future, at a third of the cost.

A G that waits for an asyncio future registers *itself* as the callback, with an empty context: the
loop's ``call_soon`` knows a G and queues it without a Handle. A G that waits for a channel, lock or
timer of ours yields a ``Sudog`` and is made ready without any callback. Rejected: one class for
both (``Future.__init__`` and asyncio's registry of all tasks are half of a spawn, and a child G
needs neither).

This file knows nothing of Ms, and of the run queue only where a G goes when it yields or wakes.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from enum import Enum
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TextIO

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
    from gmpd.runtime.p import P

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


#: Yielded by a G to let others run: it goes to the tail of the global queue (Go: ``Gosched``).
GOSCHED: Final = object()
#: ``await YIELD`` yields that.
YIELD: Final = _Gosched((GOSCHED,))


class Place(Enum):
    """Where a G may run."""

    #: On an M that is not the home M: it may block.
    AWAY = "away"
    #: On the home M alone: it is a coroutine, or a call that gives one and runs nothing else of
    #: the user's.
    HOME = "home"
    #: Wherever P is: it runs nothing itself.
    ANY = "any"


#: The same, for code that runs per G: up to Python 3.11 a member is looked up by a function, which
#: is a sixth of what a plain G costs.
ANY: Final = Place.ANY
AWAY: Final = Place.AWAY
HOME: Final = Place.HOME


class CoroG:
    """How a coroutine is resumed, waits and is cancelled. The storage is in the two subclasses."""

    if not TYPE_CHECKING:  # a type checker sees the names of the subclasses' slots instead
        __slots__ = ()

    place = Place.HOME
    #: The loop runs Gs and Handles alike; a G is never cancelled as a handle.
    _cancelled = False
    #: Tell a future that this task awaits it, and, when the future wakes it, that it does no longer
    #: (``Loop.call_soon``). None where asyncio takes no note of that: of a child, and up to 3.13.
    await_begins: Any = None
    await_ends: Any = None

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
        def _returned(self, value: Any) -> None: ...
        def _failed(self, exc: BaseException) -> None: ...
        def _was_cancelled(self, exc: CancelledError) -> None: ...

    def _run(self) -> None:  # noqa: C901, PLR0915 - one place, one frame
        """One step: resume the coroutine, then register its wait. The hot core. Leaves itself
        as the current task; its caller clears that (see ``Loop``).
        """
        loop = (p := self._p).loop
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
            if not p.is_worker:  # else the process is not the job's to end: it is the awaiter's
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
            if isinstance(result, Joinable):
                result.wake_when_done(self)
            else:
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


class Joinable(CoroG):
    """The object for which another G on its P may wait without a callback."""

    if not TYPE_CHECKING:
        __slots__ = ()

    def wake_when_done(self, g: CoroG) -> None:
        """``g``, on the same P, waits for this one, which has not ended."""
        raise NotImplementedError


def set_visible_again(loop: AbstractEventLoop, g: CoroG) -> None:
    """Make ``g`` the current task where what ran before left another loop as the running one."""
    set_running_loop(loop)
    swap_current_task(loop, g)


def send_other(coro: Any, value: None) -> Any:
    """``SEND`` for coroutines of other makes, such as Cython's."""
    return coro.send(value)


def sender(coro: Coroutine[Any, Any, Any]) -> Callable[[Any, None], Any]:
    """How to resume ``coro``."""
    return SEND if coro.__class__ is CoroutineType else send_other


def leave_fork(code: int) -> NoReturn:
    """A fork that a job made came back from the job's code: it ends here. It must not continue as a
    second worker, nor touch what it shares with the first."""
    os._exit(code)


def _message(exc: BaseException) -> Any:
    """The message of a cancel that is under way."""
    return exc.args[0] if exc.args else None


def _loop_of(future: Any) -> Any:
    if isinstance(future, Joinable):
        return future._p.loop
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


def is_started(g: Any) -> bool:
    """Whether this entry of a run queue has a frame here, and must not be given away."""
    return isinstance(g, CoroG) and g._send is not None
