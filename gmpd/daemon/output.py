"""A worker's ``sys.stdout`` and ``sys.stderr``: what a captured job prints goes to that job.

Both are streams of their own over the process's: each write looks in the context whose job it
belongs to (``runtime.roots``), as thousands of coroutines print in turns on one thread. A job that
is not captured, and whatever belongs to no job, prints where the process does: a line in one write,
as the log's thread and the other workers write there, too.

Not captured: what does not go through ``sys.stdout`` and ``sys.stderr`` (C code, other processes,
``sys.__stdout__``), and threads that a job has started by itself, which have no context of it.
"""

from __future__ import annotations

import io
import logging
import sys
from threading import get_ident
from typing import Any, Final

from gmpd.runtime.roots import root

#: Bytes of a line from which on it is written in parts.
LINE_MAX: Final = 8192


class _Bytes(io.BufferedIOBase):
    """The bytes of a stream, to the job that writes them, or to ``real``."""

    def __init__(self, real: Any) -> None:
        self._real = real
        #: The line that each thread has begun: `print` writes its words one by one, and with
        #: PYTHONUNBUFFERED each would be a write of its own.
        self._begun: dict[int, bytes] = {}
        self.mode = "wb"
        self.name = real.name
        self.raw = getattr(real, "raw", real)

    def write(self, data: Any, /) -> int:
        """Any buffer of bytes."""
        job = root.get()
        if job is not None and job.printed(data):
            return memoryview(data).nbytes
        line = self._begun.pop(get_ident(), b"") + bytes(data)
        if line.endswith(b"\n") or len(line) >= LINE_MAX:
            self._put(line)
        else:
            self._begun[get_ident()] = line
        return memoryview(data).nbytes

    def flush(self) -> None:
        job = root.get()
        if job is None or not job.is_captured:
            self._put(self._begun.pop(get_ident(), b""))
            self._flush()

    def flush_all(self) -> None:
        """Write the lines that threads have begun."""
        while self._begun:
            self._put(self._begun.popitem()[1])
        self._flush()

    def _put(self, data: bytes) -> None:
        if self._real.closed:
            return
        left = memoryview(data)
        while left:
            written = self._real.write(left)
            if written is None:  # a raw stream that does not wait; a buffered one raises by itself
                raise BlockingIOError(f"{self.name} takes no more now")
            left = left[written:]

    def _flush(self) -> None:
        if not self._real.closed:
            self._real.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The process's own: what is written there is not captured."""
        number: int = self._real.fileno()
        return number

    def isatty(self) -> bool:
        return bool(self._real.isatty())

    def close(self) -> None:
        """A job cannot close it for all others."""
        self.flush()


class Stream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, real: Any) -> None:
        real.flush()
        self._bytes = _Bytes(real.buffer)
        super().__init__(
            self._bytes, encoding="utf-8", errors="backslashreplace",
            line_buffering=real.line_buffering, write_through=True,
        )  # fmt: skip
        self.mode = "w"  # type: ignore[misc]

    def flush_all(self) -> None:
        """Write the lines that threads have begun."""
        self._bytes.flush_all()

    def close(self) -> None:
        """A job cannot close it for all others."""
        self.flush()

    def detach(self) -> Any:
        """As ``close``."""
        raise io.UnsupportedOperation("all jobs of this worker print to this stream")


class _LastResort(logging.Handler):
    """For records that no configured handler takes: those of a captured job with time, level and
    logger; others in the form of the daemon's log and without waiting for its reader, or, where
    the daemon has no log (``form`` is empty), as Python prints them."""

    def __init__(self, usual: logging.Handler, form: str) -> None:
        super().__init__(usual.level)
        self._usual = usual
        self._form = form
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        job = root.get()
        if job is None or not job.is_captured:
            if self._form:
                self._open()
            self._usual.handle(record)
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)

    def _open(self) -> None:
        """The first of them: most workers log nothing, and the start of each would take longer."""
        from gmpd.daemon.logs import queued

        form, self._form = self._form, ""
        self._usual = queued(form, sys.__stderr__ or sys.stderr, "worker")

    def flush(self) -> None:
        """Wait for lines that are not written yet, within a bound."""
        self._usual.flush()


#: Those of this worker, whatever a job puts into ``sys``.
_STREAMS: Final[list[Stream]] = []


def install(form: str) -> None:
    """From here on, in this process. Before modules of users take hold of the streams. ``form``: of
    the daemon's log, which records without a handler get; empty: it has none."""
    sys.stdout, sys.stderr = _STREAMS[:] = [Stream(sys.stdout), Stream(sys.stderr)]
    if logging.lastResort is not None:
        logging.lastResort = _LastResort(logging.lastResort, form)


def flush() -> None:
    """The process ends: write what is not written yet."""
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in _STREAMS:
        stream.flush_all()
    if logging.lastResort is not None:
        logging.lastResort.flush()
