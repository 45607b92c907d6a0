"""SIGQUIT (Ctrl-\\) to a program under ``gmpd.run``: every G on stderr, and the end, as in Go.

Python's handlers run on the main thread, which is there for them unless it runs C code; so a
program that hangs says where. A handler that the program has set, or that it inherited as ignored,
stays.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gmpd.runtime.stacks import stacks

if TYPE_CHECKING:
    from gmpd.runtime.p import P

#: Go's exit status for it.
QUIT_STATUS = 2
#: Seconds that stdout gets to take what was printed before.
FLUSH_S = 0.5


def _flush_stdout() -> None:
    """By a thread that need not end: stdout may be a pipe that is full, or be locked by the print
    that the signal came into."""

    def flush() -> None:
        with suppress(OSError, ValueError):
            if sys.stdout is not None:
                sys.stdout.flush()

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(FLUSH_S)


@contextmanager
def dumps_on_quit(p: P) -> Iterator[None]:
    """While this lasts, on the main thread."""

    def quit_(_number: int, _frame: object) -> None:
        # Not by sys.stderr: the signal may have come in the middle of a print.
        try:
            text = f"SIGQUIT: quit\n\n{stacks(p).text}".encode(errors="backslashreplace")
            while text:
                text = text[os.write(2, text) :]
            _flush_stdout()
        finally:
            os._exit(QUIT_STATUS)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGQUIT, quit_)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGQUIT) is quit_:
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
