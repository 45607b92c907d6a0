"""Stopping a thread at a place in its Python code: a function runs there, on that thread.

How differs: by ``sys.monitoring`` since Python 3.12 (``monitoring``), before by a trace function
that is taken back at its first event (``tracing``). Either costs the thread nothing before it is
asked and after it has stopped. C code is not stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Protocol

from gmpd.errors import GmpdError
from gmpd.runtime.frames import Thread

#: gmpd's own code: no thread stops there, as it may hold a lock that P needs.
_GMPD = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: Of it what only runs users' work.
_FOR_USERS = (f"{_GMPD}cli{os.sep}", f"{_GMPD}contrib{os.sep}")
#: Modules that hold a lock of the whole process while they run a user's code.
_LOCKING = frozenset({"logging", "threading", "queue"})
_IMPORT = "<frozen importlib"
#: Where a plain G is started.
_FRESH = os.path.join(os.path.dirname(__file__), "fresh.py")
_START = "FreshGs.run"
#: So deep is a stack looked at.
DEPTH_MAX = 200


class Unavailable(GmpdError):
    """This process offers no way to stop a thread; the text says why."""


class Stopper(Protocol):
    """Asks threads to stop, and takes that back. Both may be called on any thread.

    It is made with a function that is called with the frame in which a thread can stop, on that
    thread, and may block there; also for threads that were not asked. If it returns True, it is
    called again at the next such place.
    """

    def ask(self, thread: Thread) -> None:
        """The function is to run on that thread, soon."""

    def withdraw(self, thread: Thread) -> None:
        """It need not any more, or has."""


def users_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a plain G, from the innermost on."""
    for _ in range(DEPTH_MAX):
        if frame is None or _is_start(frame.f_code):
            return
        yield frame
        frame = frame.f_back


def _is_start(code: CodeType) -> bool:
    return code.co_qualname == _START and code.co_filename == _FRESH


def is_own(frame: FrameType) -> bool:
    """Whether it is gmpd's own code."""
    file = frame.f_code.co_filename
    return file.startswith(_GMPD) and not file.startswith(_FOR_USERS)


def may_stop_in(frame: FrameType | None) -> bool:
    """Whether the G that runs this frame can be parked there without keeping others from a lock of
    gmpd or the standard library.
    """
    outside = True
    for each in users_frames(frame):
        if is_own(each):
            if outside and each is frame:
                return False
            outside = False
        elif not outside:  # called by gmpd, which was called by the user's code
            return False
        else:
            module = each.f_globals.get("__name__")
            if isinstance(module, str) and module.partition(".")[0] in _LOCKING:
                return False
            if each.f_code.co_filename.startswith(_IMPORT):
                return False
    return True
