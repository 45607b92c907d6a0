"""Which job ends the worker's process on purpose: ``os._exit``, ``os.abort``, SIGKILL to itself.

Shared memory says what P runs; but a job that has blocked runs beside P, and what it does then
would be another job's fault. So these calls leave the name of their job first. A crash in C code
leaves none: it is what P ran, if anything.
"""

from __future__ import annotations

import functools
import os
import posix
import signal
from collections.abc import Callable
from typing import Any

#: Stored if no job is the cause: a thread that one has started, or gmpd itself.
NO_JOB = -1


def leave_words(note: Callable[[], None]) -> None:
    """Have ``note`` called before code in this process, not in a fork of it, ends it."""
    own = os.getpid()
    for name in ("_exit", "abort"):
        _replace(name, _after(note, getattr(os, name), lambda *_: os.getpid() == own))
    kill = _after(
        note, os.kill, lambda pid, number: pid == own == os.getpid() and number == signal.SIGKILL
    )
    _replace("kill", kill)


def _replace(name: str, fn: Any) -> None:
    """In both modules that have it: where it says that it comes from it is found, and is the same,
    so it can be pickled as before."""
    for module in (os, posix):
        setattr(module, name, fn)


def _after(note: Callable[[], None], fn: Any, fatal: Callable[..., bool]) -> Any:
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if fatal(*args):
                note()
        except TypeError:  # called with other arguments: it says so itself
            pass
        return fn(*args, **kwargs)

    return call
