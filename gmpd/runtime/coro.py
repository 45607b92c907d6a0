"""The kinds of started Gs with a coroutine: their common class, and what their steps share.

Two kinds behave alike (``step``): ``task.Task``, what ``loop.create_task`` makes, an
``asyncio.Task`` by every test that a library may make; and ``g.G``, what ``gmpd.go`` makes, a plain
object that asyncio takes for a future, at a third of the cost. Rejected: one class for both
(``Future.__init__`` and asyncio's registry of all tasks are half of a spawn, and a child G needs
neither).
"""

from __future__ import annotations

import os
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from contextvars import Context
from enum import Enum
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gmpd.runtime.internals import set_running_loop, swap_current_task

if TYPE_CHECKING:
    import cython
else:
    from gmpd.runtime import interpreted as cython

#: Wake-ups run in this context: inside its own one a G could not be entered again.
EMPTY: Final = Context()
#: How a coroutine is resumed: one for all of them. A bound ``coro.send`` would be an object of 72
#: bytes for each G.
SEND: Final = CoroutineType.send
#: Since 3.13 the last ``uncancel`` takes a cancellation back that was not delivered yet.
UNCANCEL_REVOKES: Final = sys.version_info >= (3, 13)


#: Yielded by a G to let others run: it goes to the tail of the global queue (Go: ``Gosched``).
GOSCHED: Final = object()


class YieldOnce:
    """Awaited, it yields ``GOSCHED``. One for all: between ``__await__`` and the first
    ``__next__`` nothing else runs, and all that are resumed later have yielded.
    """

    __slots__ = ("_has_yielded",)

    def __await__(self) -> YieldOnce:
        self._has_yielded = False
        return self

    def __iter__(self) -> YieldOnce:
        return self

    def __next__(self) -> object:
        if self._has_yielded:
            raise StopIteration
        self._has_yielded = True
        return GOSCHED


class _Gosched(tuple[Any]):
    """Its iterator is made and resumed in C, as ``YieldOnce`` is where that is compiled."""

    __slots__ = ()
    __await__ = tuple.__iter__


#: ``await YIELD`` yields ``GOSCHED``.
YIELD: Final = YieldOnce() if cython.compiled else _Gosched((GOSCHED,))


#: States of a ``G`` as a future. Modules that are compiled have them as numbers of C.
PENDING, RETURNED, FAILED, CANCELLED = range(4)


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


class AnyCoroG:
    """The kinds of Gs of coroutines; their behaviour is in ``step``."""

    if not TYPE_CHECKING:  # a type checker sees the names of the subclasses' slots instead
        __slots__ = ()

    place = Place.HOME
    #: The loop runs Gs and Handles alike; a G is never cancelled as a handle.
    _cancelled = False
    #: Tell a future that this task awaits it, and, when the future wakes it, that it does no longer
    #: (``Loop.call_soon``). None where asyncio takes no note of that: of a child, and up to 3.13.
    await_begins: Any = None
    await_ends: Any = None
    _name_prefix = "Task"


def set_visible_again(loop: AbstractEventLoop, g: AnyCoroG) -> None:
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
