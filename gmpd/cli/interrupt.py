"""Ctrl-C while no command runs yet, or none any more: it ends the process without a traceback.

Python's own handler raises KeyboardInterrupt wherever the main thread is. Inside an import this
prints a traceback, or is swallowed by a finalizer of the import system. The kernel's default
disposition ends the process instead; a shell shows 130, as for `Exit.INTERRUPTED`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_ends_process() -> Iterator[None]:
    """For imports. Nothing changes if SIGINT is ignored, or is handled by the program itself."""
    changed = end_process_on_interrupt()
    try:
        yield
    finally:
        if changed:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end_process_on_interrupt() -> bool:
    """Give SIGINT its default disposition in place of Python's handler; whether it was changed."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # another thread than the main one: signals are not its own to set
        return False
    return True
