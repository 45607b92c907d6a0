"""Progress of running jobs: gathered in their worker, and sent some times a second.

A job may tell as often as it likes, from any thread: only its latest progress is kept until it is
sent. The last one leaves before the job's outcome. A child that runs in another worker than its
parent tells through the coordinator, which passes it on to the parent's worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from gmpd import protocol
from gmpd.runtime.p_callbacks import PCallbacks
from gmpd.runtime.progress import NOTE_MAX, Progress

#: Progress that has gathered is sent after this time (s).
EVERY_S = 0.1
#: Rows of one message.
ROWS_MAX = 1024


class Reporting(Protocol):
    """An attempt."""

    token: int


class Reports:
    """``attempts``: those that have not ended, by token. ``send`` sends a message; only the M that
    holds P calls it."""

    def __init__(
        self,
        attempts: Mapping[int, Reporting],
        callbacks: PCallbacks,
        send: Callable[[protocol.Progress], None],
    ) -> None:
        self._attempts = attempts
        self._callbacks = callbacks
        self._send = send
        #: Of attempts that told something since the last message.
        self._latest: dict[Reporting, Progress] = {}
        #: Of attempts that have ended: sent before their outcomes.
        self._last: list[tuple[int, Progress]] = []
        self._due = False

    def __bool__(self) -> bool:
        return bool(self._latest or self._last)

    # -- any thread --------------------------------------------------------------------------------

    def progressed(self, attempt: Reporting, progress: Progress) -> None:
        """An attempt is so far."""
        self._latest[attempt] = progress
        if not self._due:
            self._due = True
            self._callbacks.threadsafe(self._callbacks.later, EVERY_S, self._send_latest)

    # -- the M that holds P ------------------------------------------------------------------------

    def ended(self, attempt: Reporting) -> None:
        """An attempt has its outcome; ``flush`` comes before that is sent."""
        progress = self._latest.pop(attempt, None)
        if progress is not None:
            self._last.append((attempt.token, progress))

    def flush(self) -> None:
        """Send the last words of those that have ended."""
        last, self._last = self._last, []
        self._tell(last)

    def _send_latest(self) -> None:
        self._due = False  # first: what is told from now on is sent next time
        latest, attempts, rows = self._latest, self._attempts, self._last
        self._last = []
        for _ in range(len(latest)):
            attempt, progress = latest.popitem()  # one step: others add to it meanwhile
            if attempts.get(attempt.token) is attempt:
                rows.append((attempt.token, progress))
        self._tell(rows)

    def _tell(self, rows: list[tuple[int, Progress]]) -> None:
        for at in range(0, len(rows), ROWS_MAX):
            self._send(message_of(rows[at : at + ROWS_MAX]))


def message_of(rows: Iterable[tuple[int, Progress]]) -> protocol.Progress:
    """The message about these jobs."""
    jobs, told = zip(*rows, strict=True)
    done, total, notes = zip(*told, strict=True)
    return protocol.Progress(list(jobs), list(done), list(total), [*map(shortened, notes)])


def shortened(note: str) -> str:
    """The part of a note that is kept: in one line, of characters that every terminal takes."""
    cut = note[:NOTE_MAX]
    if cut.isprintable():
        return cut
    return "".join(each if each.isprintable() else " " for each in cut)


def rows_of(message: protocol.Progress) -> Iterable[tuple[int, Progress]]:
    """The rows of a message: job and progress."""
    told = zip(message.done, message.total, message.notes, strict=True)
    return zip(message.jobs, told, strict=True)
