"""The log's way out of a process that must not wait for its reader: a bounded queue and a thread.

Standard error may be a pipe that is never emptied, a terminal that is stopped, a disk that hangs. A
record becomes a line where it is logged, and a thread of its own writes it. When the queue is full
lines are dropped and counted, and the count is written once there is room. The end of the process
waits for what is queued, within a bound.

The thread is not ``threading``'s: a worker counts those as threads of its jobs. It takes no lock of
``logging``. In a forked process, which has no such thread, lines are written where they are logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
import weakref
from _thread import allocate_lock, start_new_thread
from typing import Any, Protocol, TextIO

from gmpd.daemon.repeats import Repeats

#: Lines, and bytes of lines, that wait to be written.
LINES_MAX = 10_000
BYTES_MAX = 4 << 20
#: The end of the process waits for them for this time at most (s).
FLUSH_S = 2.0


class Out(Protocol):
    """Where lines go; ``write`` may take as long as it likes."""

    def write(self, line: bytes) -> None: ...


class Descriptor:
    """A file, pipe or terminal by its number, blocking or not."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, line: bytes) -> None:
        """All of it. Raises OSError when there is no reader any more, or no room on the disk."""
        left = memoryview(line)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # shared with a program that made it so
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


class Text:
    """A stream without a descriptor, as tests have."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        self._stream.write(line.decode())


class QueuedHandler(logging.Handler):
    """Writes to ``out`` without waiting for it. Its formatter never raises (``logs``)."""

    def __init__(
        self, out: Out, *, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX,
        repeats: Repeats | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        #: Each line is a JSON object.
        self.is_for_programs = False
        self._out = out
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._repeats = repeats or Repeats()
        #: Reentrant: a signal handler may log while its thread does.
        self._changes = threading.RLock()
        #: Lines; an empty one wakes the thread; a lock is released when its turn comes; None ends
        #: the thread. Each thread has its own.
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: Lines and bytes, put in and written; each changed by one side only.
        self._put = self._put_bytes = self._written = self._written_bytes = 0
        #: Lines for which there was no room; that could not be written; and those that were told.
        self._refused = self._failed = self._told = 0
        self._is_started = self._is_forked = False
        _HANDLERS.add(self)

    @property
    def dropped(self) -> int:
        """Lines for which there was no room, or that could not be written."""
        return self._refused + self._failed

    @property
    def suppressed(self) -> int:
        """Records that were not written, as too many were alike."""
        return self._repeats.suppressed

    # -- any thread --------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Queue it; or count it."""
        with self._changes:
            now = time.monotonic()
            self._summarise(now)
            due = self._repeats.due_s(now)
            if self._repeats.admit(record, now):
                self._add(record)
            elif due is None:  # the first one: the thread is to say so in time
                self._queue.put(b"")

    def announce(self, text: str) -> None:
        """Write a line whatever the level is: bare, or as a record where lines are for programs."""
        with self._changes:
            if self.is_for_programs:
                fields = {"name": "gmpd.serve", "levelno": logging.INFO, "levelname": "INFO"}
                self._add(logging.makeLogRecord({**fields, "msg": text}))
            else:
                self._enqueue(f"{text}\n".encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Wait until what is queued is written, ``FLUSH_S`` at most."""
        with self._changes:
            self._summarise(time.monotonic(), early=True)
            if not self._is_started or self._is_forked:
                return
            turn = allocate_lock()
            turn.acquire()
            self._queue.put(turn)
        turn.acquire(timeout=FLUSH_S)

    def close(self) -> None:
        """End the thread when it has written what is queued. A later record starts another one:
        `logging` closes handlers at the end of the process, and there may be words after that."""
        with self._changes:
            if self._is_started and not self._is_forked:
                self._queue.put(None)
                self._queue, self._is_started = queue.SimpleQueue(), False
        super().close()

    def _summarise(self, now: float, *, early: bool = False) -> None:
        for summary in self._repeats.take(now, early=early):
            self._add(summary.record)

    def _add(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._enqueue(f"{text}\n".encode("utf-8", "backslashreplace"))

    def _enqueue(self, data: bytes) -> None:
        if self._is_forked or not (self._is_started or self._start()):
            with contextlib.suppress(OSError):
                self._out.write(data)
            return
        waiting = self._put - self._written
        if waiting >= self._lines_max or (
            waiting and self._put_bytes - self._written_bytes + len(data) > self._bytes_max
        ):
            self._refused += 1
            return
        self._put += 1
        self._put_bytes += len(data)
        self._queue.put(data)

    def _start(self) -> bool:
        try:
            start_new_thread(self._write_lines, (self._queue,))
        except RuntimeError:  # the system has no thread to give: there may be one later
            return False
        self._is_started = True
        return True

    def in_child(self) -> None:
        """This process was forked: its copy of the queue is not its own."""
        self._is_forked = True
        self._changes = threading.RLock()

    # -- the thread --------------------------------------------------------------------------------

    def _write_lines(self, lines: queue.SimpleQueue[Any]) -> None:
        while True:
            try:
                item = lines.get(timeout=self._repeats.due_s(time.monotonic()))
            except queue.Empty:
                with self._changes:
                    self._summarise(time.monotonic())
                continue
            if item is None:
                return
            if isinstance(item, bytes):
                if item:
                    self._write(item)
                    self._written_bytes += len(item)
                    self._written += 1
                self._tell_dropped()
            else:
                item.release()

    def _write(self, data: bytes) -> None:
        try:
            self._out.write(data)
        except OSError:
            self._failed += 1

    def _tell_dropped(self) -> None:
        """There was no room, and there is again: the one line that is written past the queue."""
        dropped = self.dropped
        if dropped == self._told or self._put - self._written > self._lines_max // 2:
            return
        count = dropped - self._told
        text = (
            f"{count:,} lines of the log were dropped here: what it goes to was not read, or could"
            " not be written"
        )
        fields = {"name": "gmpd.log", "levelno": logging.WARNING, "levelname": "WARNING"}
        record = logging.makeLogRecord({**fields, "msg": text, "dropped": count})
        with contextlib.suppress(OSError):
            self._out.write(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
            self._told = dropped


_HANDLERS: weakref.WeakSet[QueuedHandler] = weakref.WeakSet()


def lost() -> dict[str, int]:
    """Lines of this process that were not written: for want of room, and as too many were alike."""
    handlers = list(_HANDLERS)
    return {
        "dropped": sum(each.dropped for each in handlers),
        "suppressed": sum(each.suppressed for each in handlers),
    }


def _in_child() -> None:
    for handler in list(_HANDLERS):
        handler.in_child()


os.register_at_fork(after_in_child=_in_child)
