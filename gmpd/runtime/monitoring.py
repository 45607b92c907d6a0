"""Stops threads by ``sys.monitoring`` (Python 3.12 and newer); no other module uses that.

Only the code objects on the stack of the thread that is asked are watched, for jumps and calls, and
only until it stops: some microseconds if it computes in Python. So other code runs at full speed;
other threads in the same code call back meanwhile, and continue. Events of the whole interpreter
would instrument all code that P runs, twice for each stop.

Debuggers, profilers and coverage have tool ids of their own; gmpd takes one of the unassigned ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from gmpd.runtime.frames import Thread, frame_of
from gmpd.runtime.stops import Unavailable, is_own, users_frames

#: ``sys.monitoring``; mypy reads this for Python 3.11, which lacks it.
_monitoring: Any = getattr(sys, "monitoring", None)
#: The ids that the documentation assigns to no kind of tool.
TOOL_IDS: Final = (4, 3)
TOOL_NAME: Final = "gmpd"


class MonitoringStopper:
    """The one of this process."""

    def __init__(self, on_stop: Callable[[FrameType], bool]):
        self._on_stop = on_stop
        #: Code that is watched for a thread.
        self._codes: dict[Thread, set[CodeType]] = {}
        self._tool = _take_tool()
        events = _monitoring.events
        watched = (events.JUMP, events.PY_START, events.PY_RESUME)
        self._events = sum(watched)
        for event in watched:
            _call(_monitoring.register_callback, self._tool, event, self._on_event)

    def ask(self, thread: Thread) -> None:
        codes = {frame.f_code for frame in users_frames(frame_of(thread)) if not is_own(frame)}
        self._codes[thread] = codes
        self._watch(codes, self._events)
        if thread not in self._codes:  # it has stopped meanwhile
            self._watch(codes, 0)

    def withdraw(self, thread: Thread) -> None:
        self._watch(self._codes.pop(thread, set()), 0)

    def _watch(self, codes: set[CodeType], events: int) -> None:
        for code in codes:
            try:
                _monitoring.set_local_events(self._tool, code, events)
            except ValueError:  # another tool took the id, by force
                return

    def _on_event(self, _code: CodeType, *_where: int) -> None:
        self._on_stop(sys._getframe(1))


def _call(function: Callable[..., object], *args: object) -> None:
    try:
        function(*args)
    except Exception as exc:  # an audit hook may refuse it, with any error
        raise Unavailable(f"sys.monitoring refuses {TOOL_NAME}: {exc!r}") from exc


def _take_tool() -> int:
    for tool in TOOL_IDS:
        if _monitoring.get_tool(tool) is None:
            _call(_monitoring.use_tool_id, tool, TOOL_NAME)
            return tool
    names = ", ".join(str(_monitoring.get_tool(tool)) for tool in TOOL_IDS)
    raise Unavailable(f"the tool ids {TOOL_IDS} of sys.monitoring are in use by {names}")
