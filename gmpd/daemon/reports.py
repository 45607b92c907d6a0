"""Progress and output of running jobs: gathered in their worker, and sent some times a second.

A job may tell and print as often as it likes, from any thread: of its progress the latest is kept
until it is sent, of its output the last bytes. The rest leaves before the job's outcome. A child
that runs in another worker than its parent tells through the coordinator, which passes it on to the
parent's worker.

A job's code runs in here, and a time limit may raise in it between any two steps: so no lock is
taken, and each change is one step. A count of bytes may then be wrong, until the next message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from gmpd import protocol
from gmpd.runtime.p import P
from gmpd.runtime.progress import NOTE_MAX, Progress
from gmpd.sched.captured import whole

#: Progress and output that have gathered are sent after this time (s).
EVERY_S = 0.1
#: Rows of one message.
ROWS_MAX = 1024


class Reporting(Protocol):
    """An attempt."""

    token: int


class Output:
    """Output of one attempt that was not sent yet."""

    __slots__ = ("chunks", "nbytes", "skipped")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.nbytes = 0
        self.skipped = 0

    def add(self, chunk: bytes, most: int) -> None:
        """Keep the last ``most`` bytes."""
        if len(chunk) > most:
            self.skipped += len(chunk) - most
            chunk = whole(chunk[-most:])
        self.chunks.append(chunk)
        self.nbytes += len(chunk)
        while self.nbytes > most:
            try:
                first = self.chunks.popleft()
            except IndexError:  # it was sent meanwhile
                self.nbytes = 0
                return
            over = self.nbytes - most
            rest = whole(first[over:])  # none of it, if all of it is too much
            self.nbytes -= len(first) - len(rest)
            self.skipped += len(first) - len(rest)
            if rest:
                self.chunks.appendleft(rest)
                return

    def take(self) -> tuple[bytes, int]:
        """The output that has gathered, and how many bytes were left out before it."""
        skipped, self.skipped, self.nbytes = self.skipped, 0, 0
        taken = [self.chunks.popleft() for _ in range(len(self.chunks))]
        return b"".join(taken), skipped


class Reports:
    """``attempts``: those that have not ended, by token. ``output_most``: bytes of one attempt's
    output that are kept until they are sent. ``send`` sends a message; only the M that holds P
    calls it."""

    def __init__(
        self,
        attempts: Mapping[int, Reporting],
        p: P,
        output_most: int,
        send: Callable[[protocol.Progress | protocol.Output], None],
    ) -> None:
        self._attempts = attempts
        self._p = p
        self._output_most = output_most
        self._send = send
        #: Of attempts that told something since the last message.
        self._latest: dict[Reporting, Progress] = {}
        self._output: dict[Reporting, Output] = {}
        #: Of attempts that have ended: sent before their outcomes.
        self._last: list[tuple[int, Progress]] = []
        self._last_output: list[tuple[int, Output]] = []
        self._due = False

    def __bool__(self) -> bool:
        return bool(self._latest or self._output or self._last or self._last_output)

    # -- any thread --------------------------------------------------------------------------------

    def progressed(self, attempt: Reporting, progress: Progress) -> None:
        """An attempt is so far."""
        if not self._p.forked:
            self._latest[attempt] = progress
            self._soon()

    def printed(self, attempt: Reporting, chunk: bytes) -> bool:
        """An attempt that is captured has printed; False if that belongs elsewhere: it has ended,
        or this is a process that it has forked."""
        if self._p.forked or self._attempts.get(attempt.token) is not attempt:
            return False
        output = self._output.get(attempt)
        if output is None:
            output = self._output.setdefault(attempt, Output())
        output.add(chunk, self._output_most)
        self._soon()
        return True

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            callbacks = self._p.p_callbacks
            callbacks.threadsafe(callbacks.later, EVERY_S, self._send_latest)

    # -- the M that holds P ------------------------------------------------------------------------

    def ended(self, attempt: Reporting) -> bool:
        """An attempt has its outcome; ``flush`` comes before that is sent. Whether output of it is
        still to be sent: an outcome that the coordinator finds in shared memory overtakes it."""
        progress = self._latest.pop(attempt, None)
        if progress is not None:
            self._last.append((attempt.token, progress))
        output = self._output.pop(attempt, None)
        if output is None:
            return False
        self._last_output.append((attempt.token, output))
        return True

    def flush(self) -> None:
        """Send the last words of those that have ended."""
        last, self._last = self._last, []
        self._tell(last)
        output, self._last_output = self._last_output, []
        self._pass_on(output)

    def _send_latest(self) -> None:
        self._due = False  # first: what is told from now on is sent next time
        attempts, rows, self._last = self._attempts, self._last, []
        for _ in range(len(self._latest)):
            attempt, progress = self._latest.popitem()  # one step: others add to it meanwhile
            if attempts.get(attempt.token) is attempt:
                rows.append((attempt.token, progress))
        self._tell(rows)
        output, self._last_output = self._last_output, []
        for attempt, each in list(self._output.items()):
            if attempts.get(attempt.token) is attempt:
                output.append((attempt.token, each))
            else:  # it printed just when it ended
                del self._output[attempt]
        self._pass_on(output)

    def _tell(self, rows: list[tuple[int, Progress]]) -> None:
        for at in range(0, len(rows), ROWS_MAX):
            self._send(message_of(rows[at : at + ROWS_MAX]))

    def _pass_on(self, rows: Iterable[tuple[int, Output]]) -> None:
        message, nbytes = protocol.Output([], [], []), 0
        for token, output in rows:
            chunk, skipped = output.take()
            if not chunk:
                continue
            if message.jobs and nbytes + len(chunk) > protocol.GATHER_BYTES:
                self._send(message)
                message, nbytes = protocol.Output([], [], []), 0
            message.jobs.append(token)
            message.chunks.append(chunk)
            message.skipped.append(skipped)
            nbytes += len(chunk)
        if message.jobs:
            self._send(message)


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
