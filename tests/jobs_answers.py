"""Jobs that end or stop their worker at the moment of its answer to the client."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from functools import partial

from gmpd.netpoll import LentLane
from tests.support import stop_self

_send = LentLane.send


def at_answer(before: bool, *, dies: bool) -> int:
    """Its worker dies, or stops, right before, or after, the value leaves for the client."""
    end = partial(os.kill, os.getpid(), signal.SIGKILL) if dies else stop_self

    def send(lane: LentLane, message: bytes) -> bool:
        LentLane.send = _send  # type: ignore[method-assign]
        if before:
            end()
            return _send(lane, message)
        told = _send(lane, message)
        end()
        return told

    LentLane.send = send  # type: ignore[method-assign, assignment]
    return os.getpid()


def pid_after(seconds: float) -> int:
    """Of its worker."""
    time.sleep(seconds)
    return os.getpid()


def close_lanes() -> int:
    """As a job that closes every descriptor which it does not know; how many."""
    lanes = [each for each in gc.get_objects() if isinstance(each, LentLane)]
    for lane in lanes:
        with contextlib.suppress(OSError):  # the last one closed it
            os.close(lane.fd)
    return len(lanes)
