"""Ctrl-C while no command runs yet, or none any more: it ends the process without a traceback.

Python's own handler raises KeyboardInterrupt wherever the main thread is. Inside an import this
prints a traceback, or is swallowed by a finalizer of the import system. The kernel's default
disposition ends the process instead; a shell shows 130, as for `Exit.INTERRUPTED`.

It imports only what is built into the interpreter: `signal` and `contextlib` are read from files,
and take longer than all of `gmpd.cli` before `main`.
"""

from __future__ import annotations

#: For type checkers, which know the module by its public name alone.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal


class interrupt_ends_process:  # noqa: N801 - a context manager, used as a function
    """For imports. Nothing changes if SIGINT is ignored, or is handled by the program itself."""

    def __enter__(self) -> None:
        self._changed = end_process_on_interrupt()

    def __exit__(self, *_: object) -> None:
        if self._changed:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def end_process_on_interrupt() -> bool:
    """Give SIGINT its default disposition in place of Python's handler; whether it was changed."""
    if _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler:
        return False
    try:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    except ValueError:  # another thread than the main one: signals are not its own to set
        return False
    return True
