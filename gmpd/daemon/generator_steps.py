"""One step of a plain generator: it computes some values, on any M.

Its values leave when the step ends, whatever ends it, and those of a step that lasts leave earlier:
a generator may wait for what its client does with a value.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from gmpd.daemon.stream_window import is_large
from gmpd.runtime.roots import root

#: Values that are taken in one go: bounds what is computed ahead of need.
STEP_ITEMS = 64
#: A step ends with a large value, and with the first one after this time, so that its values leave
#: while they are fresh.
STEP_NS = 2_000_000


class GeneratorStep:
    """Calling it makes the step; it gives whether it was the last. ``room``: the most values."""

    __slots__ = ("_end_ns", "_job", "_room", "_source", "_values")

    def __init__(self, job: object, source: Iterator[Any], room: int) -> None:
        self._job = job
        self._source = source
        self._room = min(room, STEP_ITEMS)
        self._values: deque[Any] = deque()
        #: 0: it has not begun.
        self._end_ns = 0

    def __call__(self) -> bool:
        root.set(self._job)
        end = self._end_ns = time.monotonic_ns() + STEP_NS
        for _ in range(self._room):
            try:
                value = next(self._source)
            except StopIteration:
                return True
            self._values.append(value)
            large = is_large(value)
            del value
            if large or time.monotonic_ns() >= end:
                break
        return False

    def take(self) -> list[Any]:
        """The values so far, once each."""
        values = self._values
        return [values.popleft() for _ in range(len(values))]

    @property
    def is_late(self) -> bool:
        """Whether it ends with the next value."""
        return 0 < self._end_ns <= time.monotonic_ns()


async def ended_or_late(step: GeneratorStep, call: asyncio.Future[bool]) -> None:
    """Wait until ``call`` of ``step`` has ended, or the step is late for the first time. A cancel
    of this leaves ``call`` alone."""
    loop = asyncio.get_running_loop()
    was_late = step.is_late
    while not call.done():
        waiter: asyncio.Future[None] = loop.create_future()
        wake = _waker(waiter)
        call.add_done_callback(wake)
        timer = None if was_late else loop.call_later(STEP_NS / 1e9, wake)
        try:
            await waiter
        finally:
            call.remove_done_callback(wake)
            if timer is not None:
                timer.cancel()
        if not was_late and step.is_late:
            return


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait for its end, also when this is cancelled meanwhile; its outcome counts as seen."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # it has been seen


def _waker(waiter: asyncio.Future[None]) -> Callable[..., None]:
    def wake(*_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    return wake
