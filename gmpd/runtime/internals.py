"""The private names of asyncio, threading and concurrent.futures; no other module uses any.

A P is built from parts that asyncio does not promise. Each is taken here, once, by feature, with
what it is for; no other module of gmpd names one that is not listed here. A Python that lacks one
is refused with the name of what is missing: ``UnsupportedPython``, when this module is imported.

Where versions differ: up to 3.13 the current task of a loop is an entry of a dict that all threads
share. Since 3.14 it is a field of the thread's state, beside its running loop, and only the C
functions of ``_asyncio`` reach it; ``swap_current_task`` costs there what the dict costs here.

threading has no private name that gmpd needs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent import futures
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gmpd.errors import UnsupportedPython
from gmpd.pythons import NEWEST, OLDEST, running


class Internal(NamedTuple):
    """A private name, and the reason why gmpd needs it."""

    where: str
    name: str
    purpose: str


#: All that was taken from modules.
TAKEN: Final[list[Internal]] = []


def _take(where: str, name: str, purpose: str) -> Any:
    TAKEN.append(Internal(where, name, purpose))
    try:
        return getattr(import_module(where), name)
    except (ImportError, AttributeError):
        raise UnsupportedPython(missing(f"{where}.{name}", purpose)) from None


def missing(name: str, purpose: str) -> str:
    """The sentence that refuses a Python."""
    return (
        f"Python {running()} has no {name}, which gmpd needs for {purpose}: "
        f"use Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}, or a newer gmpd"
    )


# ---- functions and constants of modules ----------------------------------------------------------

#: The loop that runs in this thread, or None.
running_loop: Callable[[], Any] = _take(
    "asyncio", "_get_running_loop", "finding the P of the caller"
)
#: Up to 3.11: the key in a thread's dict of what ``set_running_loop`` puts there, a new object each
#: time. Asking for the loop costs a system call there, as it is another one in a fork.
RUNNING_LOOP: Final = "__asyncio_running_event_loop__"
#: Set it. Since 3.14 the current task is seen only while its loop is the running one.
set_running_loop: Callable[[Any], None] = _take(
    "asyncio", "_set_running_loop", "showing P to asyncio"
)
#: Enter a task into what ``asyncio.all_tasks`` tells.
register_task: Callable[[Any], None] = _take(
    "asyncio", "_register_task", "asyncio.all_tasks() to show Gs"
)

#: Loop -> its current task, up to 3.13. None since then.
current_tasks: dict[Any, Any] | None = getattr(import_module("_asyncio"), "_current_tasks", None)
#: Set the current task of this thread, whose running loop it must be, since 3.14; up to 3.13 the
#: dict is written instead, as it is faster.
swap_current_task: Callable[[Any, Any], Any]

if current_tasks is not None:
    swap_current_task = current_tasks.__setitem__

    def clear_current_task(loop: Any) -> None:
        """No task of ``loop`` is running. For the M that holds P, while ``loop`` is shown."""
        assert current_tasks is not None
        current_tasks.pop(loop, None)

else:
    swap_current_task = _take(
        "_asyncio", "_swap_current_task", "asyncio.current_task() to show the running G"
    )

    def clear_current_task(loop: Any) -> None:
        """No task of ``loop`` is running. For the M that holds P, while ``loop`` is shown."""
        try:
            swap_current_task(loop, None)
        except RuntimeError:  # a user's code left another loop as the running one
            set_running_loop(loop)
            swap_current_task(loop, None)


#: All tasks of a loop that have not ended, for any caller.
_all_tasks: Callable[[Any], set[Any]] = asyncio.all_tasks


def all_tasks(loop: Any) -> set[Any]:
    """asyncio's own. Since 3.14 it tells the thread on which the loop runs only of tasks that were
    made on that thread, and any other of all.
    """
    running = running_loop()
    set_running_loop(None)
    try:
        return _all_tasks(loop)
    finally:
        set_running_loop(running)


def replace_all_tasks(fn: Callable[[Any], set[Any]]) -> None:
    """Let ``asyncio.all_tasks`` be another function, for asyncio too."""
    asyncio.all_tasks = fn  # type: ignore[assignment]
    _tasks.all_tasks = fn
    _originals.update({(asyncio, "all_tasks"): fn, (_tasks, "all_tasks"): fn})


_tasks: Any = import_module("asyncio.tasks")
_base_events: Any = import_module("asyncio.base_events")
#: Parts of asyncio that libraries patch and must not.
_originals: dict[tuple[Any, str], Any] = {
    (module, name): value
    for module in map(
        import_module, ("asyncio", "asyncio.events", "asyncio.futures", "asyncio.tasks")
    )
    for name, value in vars(module).items()
    if not name.startswith("__")
}


def restore_asyncio() -> None:
    """Undo the replacements of names in asyncio's modules."""
    for (module, name), value in _originals.items():
        if getattr(module, name, None) is not value:
            setattr(module, name, value)
    for module in {module for module, _ in _originals}:
        for name in [n for n in vars(module) if not n.startswith("__")]:
            if (module, name) not in _originals and not isinstance(
                getattr(module, name), ModuleType
            ):
                delattr(module, name)


#: A task of ours is a C Task by class; of its parts only the future is begun.
future_init: Callable[..., None] = asyncio.Future.__init__

#: Begins a task's C fields too, since 3.14, where other processes read them: ``python -m asyncio
#: ps`` and ``pstree``, profilers. It calls ``call_soon`` with a ``FIRST_STEP``. None before 3.14.
task_init: Callable[..., None] | None = None
#: Tell a future which task awaits it, and take that back: asyncio's call graph, since 3.14. Both
#: names are public.
await_begins: Callable[[Any, Any], None] | None = getattr(asyncio, "future_add_to_awaited_by", None)
await_ends: Callable[[Any, Any], None] | None = getattr(
    asyncio, "future_discard_from_awaited_by", None
)
#: The class of what a C task gives to ``call_soon`` to be begun.
FIRST_STEP: type | None = None


class _Catcher:
    """Stands for a loop, to catch the callback that a task gives to ``call_soon``."""

    caught: Any = None

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, context: Any = None) -> None:
        self.caught = callback


def _first_step() -> type:
    async def nothing() -> None: ...

    stand_in: Any = _Catcher()
    task: Any = asyncio.Task(nothing(), loop=stand_in, name="counts in no program")
    task._log_destroy_pending = False
    task.get_coro().close()
    if getattr(stand_in.caught, "__self__", None) is not task:
        raise UnsupportedPython(
            missing("way from a task's first step to the task", "python -m asyncio ps")
        )
    return type(stand_in.caught)


if await_begins is not None:
    task_init = asyncio.Task.__init__
    FIRST_STEP = _first_step()

#: How asyncio shows tasks.
task_repr: Callable[[Any], str] = _take(
    "asyncio.base_tasks", "_task_repr", "repr() of a task to be asyncio's"
)
task_get_stack: Callable[[Any, int | None], Any] = _take(
    "asyncio.base_tasks", "_task_get_stack", "Task.get_stack()"
)
task_print_stack: Callable[[Any, int | None, Any], None] = _take(
    "asyncio.base_tasks", "_task_print_stack", "Task.print_stack()"
)
#: Undocumented, though their names are public.
DEBUG_STACK_DEPTH: int = _take(
    "asyncio.constants", "DEBUG_STACK_DEPTH", "origins of coroutines in debug mode"
)
_take("asyncio.base_events", "logger", "asyncio's own warnings in debug mode")


def asyncio_logger() -> Any:
    """The logger of asyncio's own loop now: tests of its users replace it."""
    return _base_events.logger


#: States of a ``concurrent.futures.Future``.
PENDING: str = _take("concurrent.futures._base", "PENDING", "states of a job's future")
RUNNING: str = _take("concurrent.futures._base", "RUNNING", "states of a job's future")
CANCELLED: str = _take("concurrent.futures._base", "CANCELLED", "states of a job's future")
CANCELLED_AND_NOTIFIED: str = _take(
    "concurrent.futures._base", "CANCELLED_AND_NOTIFIED", "states of a job's future"
)
FINISHED: str = _take("concurrent.futures._base", "FINISHED", "states of a job's future")
#: The class on which ``wait`` sleeps until many futures have ended.
ALL_COMPLETED_WAITER: Any = _take(
    "concurrent.futures._base", "_AllCompletedWaiter", "wait() for many futures"
)


# ---- attributes of their objects -----------------------------------------------------------------

#: Of ``asyncio.SelectorEventLoop``, from which a P is made.
LOOP: Final = {
    "_add_callback": "callbacks of sockets that are gmpd's own",
    "_asyncgen_finalizer_hook": "async generators that are dropped",
    "_asyncgen_firstiter_hook": "async generators that must be closed with the loop",
    "_check_closed": "refusals in asyncio's words",
    "_check_running": "refusals in asyncio's words",
    "_clock_resolution": "which timers are due",
    "_closed": "call_soon on a closed loop",
    "_csock": "signals that wake P",
    "_current_handle": "call_exception_handler in debug mode",
    "_debug": "steps that are watched in debug mode",
    "_process_events": "callbacks of sockets",
    "_process_self_data": "signals that wake P",
    "_ready": "callbacks that are ready",
    "_run_once": "a round of P in place of asyncio's",
    "_scheduled": "the heap of timers",
    "_selector": "waiting for sockets",
    "_signal_handlers": "telling a deadlock from a wait for a signal",
    "_set_coroutine_origin_tracking": "origins of coroutines in debug mode",
    "_stopping": "the end of run_forever",
    "_task_factory": "task factories of users",
    "_thread_id": "which thread the loop runs on",
    "_timer_cancelled_count": "cancelled timers in the heap",
    "_ssock": "wake-ups that any thread of P may take",
    "_write_to_self": "waking P from another thread",
}
#: Of ``asyncio.Handle``.
HANDLE: Final = {
    "_callback": "naming a callback",
    "_cancelled": "callbacks that were cancelled",
    "_context": "which job a callback belongs to",
    "_run": "running a callback",
    "_source_traceback": "where it was made, in debug mode",
}
#: Of ``asyncio.TimerHandle``.
TIMER: Final = {
    "_scheduled": "whether it is in the heap",
    "_when": "when it is due",
}
#: Of ``asyncio.Future``: what tasks ask of what they await, and what a Task of ours takes from it.
FUTURE: Final = {
    "_asyncio_future_blocking": "telling what is awaited from what is yielded",
    "_log_traceback": "errors that were not retrieved",
    "_loop": "which loop a future belongs to",
    "_make_cancelled_error": "the error of a cancelled future",
    "_source_traceback": "where it was made, in debug mode",
}
#: Of ``asyncio.Task``, beside those.
TASK: Final = {
    "_coro": "stacks as asyncio prints them",
    "_fut_waiter": "what a task waits for, as libraries look at it",
    "_log_destroy_pending": "tasks that are dropped before they end",
    "_must_cancel": "a cancel that was not delivered, as libraries look at it",
}
#: Of ``concurrent.futures.Future``: what ``wait`` and ``as_completed`` reach for.
EXECUTOR_FUTURE: Final = {
    "_condition": "wait() and as_completed()",
    "_done_callbacks": "callbacks",
    "_exception": "its outcome",
    "_result": "its outcome",
    "_state": "its state",
    "_waiters": "wait() and as_completed()",
}


def absent() -> list[str]:
    """Attributes from these lists that this Python's objects do not have, as sentences."""
    loop = asyncio.SelectorEventLoop()
    try:
        objects: dict[str, tuple[Any, dict[str, str]]] = {
            "asyncio.SelectorEventLoop": (loop, LOOP),
            "asyncio.Handle": (asyncio.Handle(print, (), loop), HANDLE),
            "asyncio.TimerHandle": (asyncio.TimerHandle(0.0, print, (), loop), TIMER),
            "asyncio.Future": (asyncio.Future(loop=loop), FUTURE),
            "asyncio.Task": (asyncio.Task, TASK),
            "concurrent.futures.Future": (futures.Future(), EXECUTOR_FUTURE),
        }
        return [
            missing(f"{owner}.{name}", purpose)
            for owner, (thing, names) in objects.items()
            for name, purpose in names.items()
            if not hasattr(thing, name)
        ]
    finally:
        loop.close()


if TYPE_CHECKING:  # typeshed leaves the private names of a loop out
    from collections import deque

    class SelectorEventLoop(asyncio.SelectorEventLoop):
        """asyncio's loop, with the names of ``LOOP``."""

        _csock: Any
        _ssock: Any
        _clock_resolution: float
        _current_handle: Any
        _closed: bool
        _debug: bool
        _ready: deque[Any]
        _scheduled: list[Any]
        _selector: Any
        _signal_handlers: dict[int, Any]
        _stopping: bool
        _task_factory: Any
        _thread_id: int | None
        _timer_cancelled_count: int
        slow_callback_duration: float

        def _asyncgen_finalizer_hook(self, agen: Any) -> None: ...
        def _asyncgen_firstiter_hook(self, agen: Any) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _process_events(self, event_list: Any) -> None: ...
        def _process_self_data(self, data: bytes) -> None: ...
        def _run_once(self) -> Any: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _write_to_self(self) -> None: ...
else:
    SelectorEventLoop = asyncio.SelectorEventLoop


def _prove() -> None:
    """Check that the names still mean what they meant: the current task can be set, seen and reset,
    and this thread is left as it was.
    """
    outer, loop, task = running_loop(), object(), object()
    set_running_loop(loop)
    inner: Any = None
    try:
        if current_tasks is None:
            inner = swap_current_task(loop, None)  # of a task that imports this
        swap_current_task(loop, task)
        seen = asyncio.current_task(loop)  # type: ignore[arg-type]
        clear_current_task(loop)
        left = asyncio.current_task(loop)  # type: ignore[arg-type]
        if seen is not task or left is not None:
            raise UnsupportedPython(
                missing("way to set asyncio.current_task()", "TaskGroup and timeouts in coroutines")
            )
    finally:
        if inner is not None:
            swap_current_task(loop, inner)
        set_running_loop(outer)


_prove()
if sys.version_info[:2] > NEWEST and (_lacking := absent()):
    raise UnsupportedPython("; ".join(_lacking))

__all__ = [
    "ALL_COMPLETED_WAITER",
    "CANCELLED",
    "CANCELLED_AND_NOTIFIED",
    "DEBUG_STACK_DEPTH",
    "FINISHED",
    "FIRST_STEP",
    "PENDING",
    "RUNNING",
    "RUNNING_LOOP",
    "SelectorEventLoop",
    "absent",
    "all_tasks",
    "asyncio_logger",
    "await_begins",
    "await_ends",
    "clear_current_task",
    "current_tasks",
    "future_init",
    "missing",
    "register_task",
    "replace_all_tasks",
    "restore_asyncio",
    "running_loop",
    "set_running_loop",
    "swap_current_task",
    "task_get_stack",
    "task_init",
    "task_print_stack",
    "task_repr",
]
