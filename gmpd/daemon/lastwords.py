"""Which job ended the worker's process: by ``os._exit``, ``os.abort``, SIGKILL to itself, or by a
crash in C code.

Shared memory names the job that P runs. But a job that has lost P runs beside it, and its end of
the process would be blamed on another. So those calls write the lease of their job first. A crash
runs no Python: faulthandler writes the stack of its thread into shared memory, which also lists the
threads beside P with their leases. A crash in a thread that Python does not know leaves no stack,
and is blamed on the job that P runs.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import posix
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from gmpd.daemon.shm import WorkerShm

#: Stored if no job is the cause: a thread that one has started, or gmpd itself.
NO_JOB = -1


#: The signals that faulthandler handles.
_CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"})
#: How faulthandler begins the stack of the thread that crashed, 3.14 with the thread's name.
_CRASHED = re.compile(rb"Current thread 0x([0-9a-f]+)[^\n]*\n((?:  [^\n]*\n)*)")


def leave_stacks(shm: WorkerShm) -> None:
    """Have a crash write the stacks of the threads into shared memory."""
    try:
        faulthandler.enable(shm.stacks_fd())
    except OSError as error:
        print(f"gmpd worker: crashes are blamed on the job that P runs: {error}", file=sys.stderr)  # noqa: T201


def crashed_thread(signal_name: str, stacks: bytes) -> tuple[int, str]:
    """The identifier of the thread that crashed, and its stack; (0, "") if no crash was written.
    ``signal_name`` ended the process: forks of it that crashed have written there before."""
    found = _CRASHED.findall(stacks) if signal_name in _CRASHES else []
    if not found:
        return 0, ""
    ident, stack = found[-1]
    return int(ident, 16), stack.decode(errors="replace")


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
