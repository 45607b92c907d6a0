"""How a ``map`` tells how far it is: a bar on a terminal, plain lines elsewhere, or a callable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

#: ``report(done, over)``: items done so far, and whether this is the last word.
Report = Callable[..., object]

#: Seconds between plain lines: a log is read later, by the screenful.
LINE_S = 5.0


def reporter(progress: bool | Report, total: int | None) -> Report | None:
    """What to call with ``(done, over)``. A caller's own function gets ``(done, total)``."""
    if progress is False:
        return None
    if callable(progress):
        own = progress
        return lambda done, over: own(done, total)
    return _Bar(total) if sys.stderr.isatty() else _Lines(total)


class _Lines:
    def __init__(self, total: int | None) -> None:
        self._total = total
        self._last = time.monotonic()

    def __call__(self, done: int, over: bool) -> None:
        now = time.monotonic()
        if over or now - self._last >= LINE_S:
            self._last = now
            of = f" of {self._total}" if self._total is not None else ""
            sys.stderr.write(f"{done}{of} done\n")


class _Bar:
    def __init__(self, total: int | None) -> None:
        from rich.console import Console  # 60 ms that only a progress bar pays
        from rich.progress import Progress

        self._progress: Any = Progress(console=Console(stderr=True))
        self._task = self._progress.add_task("", total=total)
        self._progress.start()

    def __call__(self, done: int, over: bool) -> None:
        self._progress.update(self._task, completed=done)
        if over:
            self._progress.stop()
