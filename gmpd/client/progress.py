"""How a ``map`` tells how far it is: a bar on a terminal, plain lines elsewhere, or a callable.

Both forms say the same: how many of how many, how many a second, and how long the rest will take.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

#: ``report(done, over)``: items done so far, and whether this is the last word.
Report = Callable[..., object]

#: Seconds between plain lines: a log is read later, by the screenful.
LINE_S = 5.0
#: Seconds between two redraws of the bar's numbers.
DRAW_S = 0.1


def reporter(progress: bool | Report, total: int | None) -> Report | None:
    """The function to call with ``(done, over)``; a caller's gets ``(done, total)``."""
    if progress is False:
        return None
    if callable(progress):
        own = progress
        return lambda done, over: own(done, total)
    return _Bar(total) if sys.stderr is not None and sys.stderr.isatty() else _Lines(total)


def in_words(done: int, total: int | None, elapsed_s: float, *, over: bool = False) -> str:
    """``1,200 of 10,000 done, 300/s, 0:29 left``; at the end ``10,000 done in 0:33, 303/s``."""
    rate = done / max(elapsed_s, 1e-9)
    speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
    if over:
        of = f" of {total:,}" if total is not None and total != done else ""
        return f"{done:,}{of} done in {clock(elapsed_s)}, {speed}"
    if total is None:
        return f"{done:,} done, {speed}"
    if not done:
        return f"0 of {total:,} done"
    left = clock((total - done) / rate) if total > done else "0:00"
    return f"{done:,} of {total:,} done, {speed}, {left} left"


def clock(seconds: float) -> str:
    """``0:05``, ``12:34``, ``1:02:03``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class _Lines:
    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._began = self._last = clock()

    def __call__(self, done: int, over: bool) -> None:
        now = self._clock()
        if (over or now - self._last >= LINE_S) and sys.stderr is not None:
            self._last = now
            line = in_words(done, self._total, now - self._began, over=over)
            sys.stderr.write(line + "\n")


class _Bar:
    def __init__(self, total: int | None) -> None:
        from rich.console import Console  # 60 ms that only a progress bar pays
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(), TextColumn("{task.description}"))
        self._progress: Any = Progress(*columns, console=Console(stderr=True))
        self._total = total
        self._began = time.monotonic()
        self._drawn = 0.0
        self._task = self._progress.add_task(in_words(0, total, 0), total=total)
        self._progress.start()

    def __call__(self, done: int, over: bool) -> None:
        now = time.monotonic()
        if over or now - self._drawn >= DRAW_S:
            self._drawn = now
            text = in_words(done, self._total, now - self._began, over=over)
            self._progress.update(self._task, completed=done, description=text)
        if over:
            self._progress.stop()
