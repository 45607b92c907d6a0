"""The frames of other threads of this interpreter; no other module reads them.

``sys._current_frames`` looks at the threads of all interpreters of the process, and makes frame
objects of those of others without their GIL: beside ``concurrent.interpreters`` (any
sub-interpreter since 3.12) that aborts the process. Here one thread is asked for, by the state that
it told itself, while this interpreter's GIL is held; it also does not depend on how many threads
there are.
"""

from __future__ import annotations

import ctypes
from types import FrameType
from typing import Any, Protocol

_own_state: Any = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThreadState_Get", ctypes.pythonapi))
_frame_of: Any = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p)(
    ("PyThreadState_GetFrame", ctypes.pythonapi)
)


class Thread(Protocol):
    """A thread that can be looked at."""

    #: The result of ``own_state`` on the thread itself; 0 before it begins and once it ends.
    state: int


def own_state() -> int:
    """CPython's state of the thread that calls: valid until the thread ends."""
    return int(_own_state())


def frame_of(thread: Thread) -> FrameType | None:
    """The innermost frame that ``thread`` runs; None if it runs no Python code."""
    if not thread.state:
        return None
    try:
        # No other thread runs between the reading of ``state`` and the call: no bytecode in between
        # releases the GIL, nor does the call.
        frame: FrameType = _frame_of(thread.state)
    except ValueError:  # how ctypes says NULL
        return None
    return frame
