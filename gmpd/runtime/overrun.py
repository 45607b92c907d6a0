"""Steps that keep P too long: sysmon sees that a step of async code lasts; here it is counted, and
one that continues for 100 ms (asyncio's ``slow_callback_duration``) is named, once per place.

It reads which thread holds P, and that thread's frames. It takes P from no G: asyncio code relies
on that. Not named are imports, which cannot be made shorter, and gmpd's own work: users can change
neither. Counterpart: ``sysmon``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from functools import partial
from inspect import CO_COROUTINE, CO_GENERATOR
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from gmpd.runtime import step
from gmpd.runtime.frames import frame_of
from gmpd.runtime.handoffs import hogs
from gmpd.runtime.step import CoroG
from gmpd.sched.sysmon import LEARNED_MAX, SLICE_NS, is_blocked

if TYPE_CHECKING:
    from gmpd.runtime.p import M, P

log = logging.getLogger(__name__)

#: Where gmpd's own code is, and that of imports.
_GMPD = os.path.dirname(os.path.dirname(__file__)) + os.sep
_IMPORT = "<frozen importlib"
_RUNTIME = os.path.dirname(__file__) + os.sep
#: Functions there that call steps.
_CALLERS = frozenset({"_run_once", "_run_ready", "_run_own", "run_instrumented", "_step"})
#: Frames of these say nothing about where a G is.
_NOT_USERS = (os.path.dirname(os.__file__), "<frozen")
#: Where ``_run`` is with which a step begins: of a G, of asyncio's Handle.
_STEP_FILES = (step.__file__, sys.modules[asyncio.Handle.__module__].__file__)


class Lasting(NamedTuple):
    """A step that has been counted, and may continue: what it was then."""

    step: object
    m: M
    at_ns: int
    cpu_ns: int
    waited_ns: int


class Overruns:
    """The steps of one P that lasted longer than a slice. Called by sysmon's thread."""

    __slots__ = ("_lasting", "_named", "_p")

    def __init__(self, p: P):
        self._p = p
        self._lasting: Lasting | None = None
        #: Places that the log has already.
        self._named: set[str] = set()

    def step(self) -> object:
        """P's position, to compare: while it stays equal, no other callback or G has begun."""
        step = self._step()
        lasting = self._lasting
        if lasting is not None:
            if lasting.step != step:
                self._lasting = None
            elif self._is_long(lasting) and self._step() == step:
                self._lasting = self._judge(lasting)
        return step

    def _step(self) -> object:
        p = self._p
        return p.rounds, p.current, asyncio.current_task(p.loop)

    def report(self, m: M) -> None:
        """A step on ``m`` lasts longer than a slice. Counted always, named if it continues."""
        p = self._p
        current = running(p)
        if current is None or not _is_in_step(frame_of(m)):
            return  # between two steps
        p.stats.overruns += 1
        if not _is_own(current):
            self._lasting = self._begin(m)

    def _begin(self, m: M) -> Lasting:
        return Lasting(self._step(), m, time.monotonic_ns(), m.cpu_ns(), m.queued()[0])

    def _is_long(self, lasting: Lasting) -> bool:
        """Whether it has computed, or been blocked, long enough to be worth a warning."""
        long_ns = int(self._p.loop.slow_callback_duration * 1e9)
        m, wall_ns = lasting.m, time.monotonic_ns() - lasting.at_ns + SLICE_NS
        if wall_ns < long_ns:
            return False
        cpu_ns = m.cpu_ns() - lasting.cpu_ns
        if cpu_ns + SLICE_NS >= long_ns * 3 // 4:
            return True
        if hogs(self._p):  # beside a hog P may only have waited for the GIL
            return False
        waited_ns, runnable = m.queued()
        return is_blocked(cpu_ns, waited_ns - lasting.waited_ns, wall_ns, runnable=runnable)

    def _judge(self, lasting: Lasting) -> Lasting | None:
        """It has lasted long: name it, if it is a user's doing, and be done with it. Else what to
        look at again: the same, if this look saw no step; from now on, if it saw an import or
        gmpd's own work, since the time until now may be theirs.
        """
        current, frame = running(self._p), frame_of(lasting.m)
        if current is None or not _is_in_step(frame):
            return lasting
        if not _is_users(frame):
            return self._begin(lasting.m)
        self._name(current, innermost(frame))
        return None

    def _name(self, current: Any, place: str) -> None:
        """In the log, if it is not there yet."""
        if place in self._named:
            return
        if len(self._named) < LEARNED_MAX:
            self._named.add(place)
        log.warning(
            "%s holds P for more than %d ms at %s: nothing else runs on it meanwhile. "
            "Await more often, or make it a plain function",
            in_words(current),
            self._p.loop.slow_callback_duration * 1e3,
            place,
        )


def running(p: P) -> Any:
    """The G or callback that runs on P, or None: also None for a sync G."""
    return asyncio.current_task(p.loop) or p.current


def in_words(current: Any) -> str:
    """A G or a callback, shortly."""
    if isinstance(current, CoroG):
        return f"{current.get_name()} ({current.fn_name})"
    callback = getattr(current, "_callback", current)
    return f"callback {getattr(callback, '__qualname__', callback)}"


def _is_own(current: Any) -> bool:
    """Whether it is a callback of gmpd itself. Its module may be ``__main__``, in a worker."""
    if isinstance(current, CoroG):
        return False
    callback = getattr(current, "_callback", current)
    while isinstance(callback, partial):
        callback = callback.func
    if str(getattr(callback, "__module__", "")).partition(".")[0] == "gmpd":
        return True
    code = getattr(callback, "__code__", None)
    return code is not None and code.co_filename.startswith(_GMPD)


def is_import(frame: FrameType | None) -> bool:
    """Whether a thread imports a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORT):
            return True
        frame = frame.f_back
    return False


def _is_users(frame: FrameType | None) -> bool:
    """Whether a thread in a step runs a user's code, or the standard library for one: not gmpd for
    itself, as when it packs a result, nor an import.
    """
    gmpds = False
    users = False
    while frame is not None and not _begins_step(frame):
        file = frame.f_code.co_filename
        if file.startswith(_IMPORT):
            return False
        users = users or _is_users_file(file)
        gmpds = gmpds or file.startswith(_GMPD)
        frame = frame.f_back
    return users or not gmpds


def _begins_step(frame: FrameType) -> bool:
    """Frames below it do not belong to the step, nor does it itself."""
    code = frame.f_code
    return (code.co_name == "_run" and code.co_filename in _STEP_FILES) or _runs_steps(frame)


def _runs_steps(frame: FrameType) -> bool:
    """Whether it is of a function from which steps are called: they have no frame if compiled."""
    return frame.f_code.co_name in _CALLERS and frame.f_code.co_filename.startswith(_RUNTIME)


def _is_users_file(file: str) -> bool:
    if file.startswith(_GMPD):
        return False
    return "site-packages" in file or not file.startswith(_NOT_USERS)


def _is_in_step(frame: FrameType | None) -> bool:
    """Whether a thread runs a G or callback; else it is P's own business, or P is on its way to
    another M: the last step still stands as the current one then.
    """
    first = 0
    while frame is not None and not _runs_steps(frame):
        if frame.f_code.co_name == "_run":  # of a G, or of asyncio's Handle
            return True
        first = frame.f_code.co_flags
        frame = frame.f_back
    # A compiled step has no frame: the G's coroutine is the first, and P's own business none.
    return frame is not None and first & (CO_COROUTINE | CO_GENERATOR) != 0


def innermost(frame: FrameType | None) -> str:
    """``file:line in function`` of the frame that runs, past the frames of this runtime and the
    standard library.
    """
    chosen = frame
    while frame is not None and not _begins_step(frame):
        if _is_users_file(frame.f_code.co_filename):
            chosen = frame
            break
        frame = frame.f_back
    if chosen is None:
        return "an unknown place"
    code = chosen.f_code
    return f"{code.co_filename}:{chosen.f_lineno} in {code.co_qualname}"
