"""How far a ``map`` or a job is, for people: a bar on a terminal, plain lines elsewhere.

Both forms say the same: how many of how many, how many a second, and how long the rest will take;
and what a running job says of itself by ``gmpd.progress``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gmpd.submit.events import JobProgress

#: ``report(done, over, inside)``: items done so far, whether this is the last word, and a call that
#: gives what the running jobs say.
Report = Callable[..., object]

#: Seconds between plain lines: a log is read later, by the screenful.
LINE_S = 5.0
#: Seconds between two redraws of the bar's numbers.
DRAW_S = 0.1
#: Seconds between two looks at the jobs that run, while none ends.
LOOK_S = 0.25


class Running(Protocol):
    """A future."""

    @property
    def progress(self) -> JobProgress | None: ...


class Inside:
    """The progress of all jobs that run, taken together."""

    def __init__(self, jobs: Iterable[tuple[Running, int]] = ()) -> None:
        #: Items that the parts of those that run make up.
        self.items = 0.0
        #: The first that has a note, in words.
        self.text = ""
        for future, items in jobs:
            if (told := future.progress) is not None:
                self.items += part(told) * items
                self.text = self.text or in_one_line(told)


def part(progress: JobProgress) -> float:
    """How much of a job is done, from 0 to 1; 0 if it does not say of how much."""
    done, total, _ = progress
    return min(1.0, done / total) if total else 0.0


def in_one_line(progress: JobProgress) -> str:
    """``1,200 of 10,000 reading``."""
    done, total, note = progress
    of = "" if total is None else f" of {_number(total)}"
    return f"{_number(done)}{of} {note}".rstrip()


def _number(amount: float) -> str:
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.2f}".rstrip("0").rstrip(".")


def reporter(progress: bool | Report, total: int | None) -> Report | None:
    """The function to call with ``(done, over, inside)``; a caller's gets ``(done, total)``."""
    if progress is False:
        return None
    if callable(progress):
        own = progress
        return lambda done, over, inside: own(done, total)
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

    def __call__(self, done: int, over: bool, inside: Callable[[], Inside]) -> None:
        now = self._clock()
        if (over or now - self._last >= LINE_S) and sys.stderr is not None:
            self._last = now
            line = _with(in_words(done, self._total, now - self._began, over=over), inside())
            sys.stderr.write(line + "\n")


class _Bar:
    def __init__(self, total: int | None) -> None:
        self._progress: Any = _columns()
        self._total = total
        self._began = time.monotonic()
        self._drawn = 0.0
        self._task = self._progress.add_task(in_words(0, total, 0), total=total)
        self._progress.start()

    def __call__(self, done: int, over: bool, inside: Callable[[], Inside]) -> None:
        now = time.monotonic()
        if over or now - self._drawn >= DRAW_S:
            self._drawn = now
            parts = inside()
            text = _with(in_words(done, self._total, now - self._began, over=over), parts)
            self._progress.update(self._task, completed=done + parts.items, description=text)
        if over:
            self._progress.stop()


def _with(text: str, inside: Inside) -> str:
    return f"{text} ({inside.text})" if inside.text else text


class JobBar:
    """The bar of one job on a terminal: nothing until the job says how far it is."""

    def __init__(self) -> None:
        self._progress: Any = None

    def show(self, progress: JobProgress | None) -> None:
        """Draw it."""
        if progress is None:
            return
        if self._progress is None:
            self._progress = _columns()
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        done, total, _ = progress
        self._progress.update(
            self._task, completed=done, total=total, description=in_one_line(progress)
        )

    def stop(self) -> None:
        """Leave it as it is."""
        if self._progress is not None:
            self._progress.stop()


def _columns() -> Any:
    from rich.console import Console  # 60 ms that only a progress bar pays
    from rich.progress import BarColumn, Progress, TextColumn

    text = TextColumn("{task.description}", markup=False)
    return Progress(BarColumn(), text, console=Console(stderr=True))
