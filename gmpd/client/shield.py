"""Ctrl-C waits while a client is in the middle of something: ``with SHIELD:``.

A KeyboardInterrupt may be raised between any two instructions of the main thread, and by any call
on a socket *after* it has taken a message: whoever reads one then has lost it. So in the main
thread SIGINT is only noted inside the block, and handled as its owner wants at the end. Blocks are
short: no user's code runs in one. Other threads never get it, and pay for one comparison.

Only SIGINT is held back. Other handlers that raise, and exceptions thrown into other threads, end
programs or jobs anyway.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal wraps: 0.3 us a block instead of 6
import os
import threading
from types import FrameType
from typing import Any

_SIGINT = 2


class Shield:
    """One for the process, since there is one main thread; blocks nest."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._depth = 0
        self._handler: Any = None
        self._came: tuple[FrameType | None] | None = None
        os.register_at_fork(after_in_child=self._in_fork)

    def _in_fork(self) -> None:
        self._main = threading.get_ident()  # the thread that forked is the child's main thread

    def __enter__(self) -> None:
        if threading.get_ident() != self._main:
            return
        if self._depth:
            self._depth += 1
            return
        if not callable(_signal.getsignal(_SIGINT)):
            return  # nothing of Python's would be raised
        self._came = None
        try:
            # What is pending is raised here and the handler stays as it was.
            self._handler = _signal.signal(_SIGINT, self._note)
        except ValueError:  # a subinterpreter's main thread, which gets no signals either
            return
        self._depth = 1

    def __exit__(self, *_: object) -> None:
        if not self._depth or threading.get_ident() != self._main:
            return
        self._depth -= 1
        if self._depth:
            return
        handler, self._handler = self._handler, None  # asyncio.run's own knows its whole task
        _signal.signal(_SIGINT, handler)
        came, self._came = self._came, None
        if came is not None:
            try:
                handler(_SIGINT, *came)
            finally:
                del came  # it may be this frame: a cycle, and so are all that called it

    def _note(self, _signum: int, frame: FrameType | None) -> None:
        self._came = (frame,)


SHIELD = Shield()
