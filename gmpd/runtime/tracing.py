"""Stops threads of Python 3.11, by a trace function that is taken back at its first event.

``_PyEval_SetTrace`` sets it for another thread, whose next line or call it then sees. The function
is C's ``PyObject_RichCompareBool``: it has the shape of a trace function, (object, frame, number
of the event, object), and calls a comparison method of the object. So what the method raises, as an
interrupt of the job may in there, is raised in the traced frame; ctypes would swallow it. And
nothing copies the frame's local variables and back, as ``sys.settrace`` does, which undoes changes
that other threads make to a closure meanwhile.

A thread that has a trace function of its own is not asked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from gmpd.runtime.frames import Thread, own_state
from gmpd.runtime.stops import Unavailable

#: The trace function of a thread is one of the first words of its state.
WORDS_MAX: Final = 24

_Words = ctypes.POINTER(ctypes.c_void_p)


class _OnEvent:
    """The object that C compares with a frame: for the events call, exception, line, return."""

    __slots__ = ("_seen",)

    def __init__(self, seen: Callable[[FrameType], None]):
        self._seen = seen

    def __lt__(self, frame: FrameType) -> bool:
        self._seen(frame)
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __eq__(self, frame: object) -> bool:
        assert isinstance(frame, FrameType)
        self._seen(frame)
        return False

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]


class TracingStopper:
    """The one of this process."""

    def __init__(self, on_stop: Callable[[FrameType], bool]):
        self._on_stop = on_stop
        self._on_event = _OnEvent(self._seen)
        try:
            self._set_trace: Any = ctypes.PYFUNCTYPE(
                ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
            )(("_PyEval_SetTrace", ctypes.pythonapi))
            compare = ctypes.cast(ctypes.pythonapi.PyObject_RichCompareBool, ctypes.c_void_p)
        except AttributeError as exc:
            raise Unavailable(f"this Python hides a function: {exc}") from None
        self._function: int = compare.value or 0
        self._word = 0
        self._word = self._find_word()

    def ask(self, thread: Thread) -> None:
        state = thread.state
        if state and self._traced(state) is None:
            self._set(state, self._function)

    def withdraw(self, thread: Thread) -> None:
        state = thread.state
        if state and self._traced(state) == self._function:
            self._set(state, None)

    def _set(self, state: int, function: int | None) -> bool:
        """Whether it was set: an audit hook may refuse it, with any error. That of a thread then
        stays as it is.
        """
        try:
            self._set_trace(state, function, id(self._on_event) if function else None)
        except Exception:  # noqa: BLE001 - neither sysmon nor the user's code can do anything
            return False
        return True

    def _traced(self, state: int) -> int | None:
        """The trace function of a thread."""
        function: int | None = ctypes.cast(state, _Words)[self._word]
        return function

    def _seen(self, frame: FrameType) -> None:
        if not self._word:
            return
        state = own_state()
        self._set(state, None)
        if self._on_stop(frame) and self._traced(state) is None:
            self._set(state, self._function)

    def _find_word(self) -> int:
        """Where the trace function is in the state of a thread."""
        state = own_state()
        words = ctypes.cast(state, _Words)
        before = words[:WORDS_MAX]
        if not self._set(state, self._function):
            raise Unavailable("an audit hook refuses trace functions")
        during = words[:WORDS_MAX]
        self._set(state, None)
        found = [
            n
            for n, word in enumerate(during)
            if word == self._function and before[n] is None and words[n] is None
        ]
        if len(found) != 1:
            raise Unavailable("this thread is traced, or Python keeps trace functions elsewhere")
        return found[0]
