"""Who keeps P too long: sysmon sees that a step of async code lasts; here it is counted, and named
once per place.

What it needs is where P is, and the frames of the thread that holds it. It takes P from nobody:
asyncio code relies on that. Counterpart: ``sysmon``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from gmpd.runtime.steps import Steps
from gmpd.sched.sysmon import LEARNED_MAX

if TYPE_CHECKING:
    from gmpd.runtime.loop import Loop
    from gmpd.runtime.m import M

log = logging.getLogger(__name__)

#: Frames of these say nothing about where a G is.
_NOT_USERS = (os.path.dirname(__file__), os.path.dirname(os.__file__), "<frozen")


class Overruns:
    """The steps of one P that lasted longer than a slice. Called by sysmon's thread."""

    __slots__ = ("_loop", "_named")

    def __init__(self, loop: Loop):
        self._loop = loop
        #: Places that the log has already.
        self._named: set[str] = set()

    def step(self) -> object:
        """What P is at, to compare: while it stays equal, no other callback or G has begun."""
        loop = self._loop
        return loop.rounds, loop.current, asyncio.current_task(loop)

    def found(self, m: M) -> None:
        """A step on ``m`` lasts longer than a slice. Counted always, named once per place."""
        loop = self._loop
        current = running(loop)
        frame = sys._current_frames().get(m.ident)
        if current is None or not _is_in_step(frame):  # between two steps
            return
        loop.stats.overruns += 1
        if _is_own(current):  # counted; but nobody who reads it could mend gmpd
            return
        place = innermost(frame)
        if place in self._named:
            return
        if len(self._named) < LEARNED_MAX:
            self._named.add(place)
        log.warning(
            "%s holds P for more than 10 ms at %s: nothing else runs on it meanwhile. "
            "Await more often, or make it a plain function",
            in_words(current),
            place,
        )


def running(loop: Loop) -> Any:
    """The G or callback that runs on P, or None: also None for a sync G."""
    return asyncio.current_task(loop) or loop.current


def in_words(current: Any) -> str:
    """A G or a callback, shortly."""
    if isinstance(current, Steps):
        return f"{current.get_name()} ({current.fn_name})"
    callback = getattr(current, "_callback", current)
    return f"callback {getattr(callback, '__qualname__', callback)}"


def _is_own(current: Any) -> bool:
    """Whether it is a callback of gmpd itself."""
    if isinstance(current, Steps):
        return False
    callback = getattr(current, "_callback", current)
    while isinstance(callback, partial):
        callback = callback.func
    return str(getattr(callback, "__module__", "")).partition(".")[0] == "gmpd"


def _is_in_step(frame: FrameType | None) -> bool:
    """Whether a thread runs a G or callback; else it is P's own business, or P is on its way to
    another M: what ran last still stands as the current one then.
    """
    while frame is not None and (name := frame.f_code.co_name) != "_run_once":
        if name == "_run":  # of a G, or of asyncio's Handle
            return True
        frame = frame.f_back
    return False


def innermost(frame: FrameType | None) -> str:
    """``file:line in function`` of the frame that runs, past the frames of this runtime and the
    standard library.
    """
    chosen = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if "site-packages" in file or not file.startswith(_NOT_USERS):
            chosen = frame
            break
        frame = frame.f_back
    if chosen is None:
        return "an unknown place"
    code = chosen.f_code
    return f"{code.co_filename}:{chosen.f_lineno} in {code.co_qualname}"
