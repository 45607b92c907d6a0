"""Jobs of the fuzzer: they speak and hear on the link of the worker that runs them."""

from __future__ import annotations

import sys
import time
from typing import Any

#: A worker whose messages are refused is killed meanwhile.
LINGER_S = 0.5


def _worker() -> Any:
    for frame in sys._current_frames().values():
        at: Any = frame
        while at is not None:
            if type(at.f_locals.get("worker")).__name__ == "Worker":
                return at.f_locals["worker"]
            at = at.f_back
    raise LookupError("no worker on any stack")


def say(messages: list[list[bytes]]) -> None:
    """Send these as if the worker had."""
    worker = _worker()
    for frames in messages:
        worker.loop.call_soon_threadsafe(worker.link.send, frames)
    time.sleep(LINGER_S)


def hear(messages: list[list[bytes]]) -> None:
    """Have the worker read these as if the coordinator had sent them."""
    worker = _worker()
    waiting = [[memoryview(frame) for frame in frames] for frames in messages]
    worker.link.recv = lambda: waiting.pop(0) if waiting else None
    worker.loop.call_soon_threadsafe(worker.on_readable)
    time.sleep(LINGER_S)
