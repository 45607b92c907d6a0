"""Parts that many tests need, and the product does not."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gmpd.compiled import VARIABLE

T = TypeVar("T")

#: How often a fact is looked at. Short, since most come true at once; not zero, since the process
#: that is waited for needs the core.
LOOK_EVERY_S = 0.005


def wait_until(fact: Callable[[], T], what: str, *, timeout: float = 30.0) -> T:
    """The first true value of `fact()`; AssertionError naming `what` after `timeout` seconds."""
    nothing = threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still not so: {what} (last: {value!r})")
        nothing.wait(LOOK_EVERY_S)


def is_setting(variable: str) -> bool:
    """Whether a variable of the environment holds a setting of gmpd. The one that says which
    variant of the core runs is none: a process that a test starts runs the same as the test."""
    return variable.startswith("GMPD_") and variable != VARIABLE


def surroundings() -> dict[str, str]:
    """The environment of this process, without settings of gmpd."""
    return {name: text for name, text in os.environ.items() if not is_setting(name)}


def stop(pid: int) -> None:
    """Stop a process. A thread that runs stops a moment after the signal was sent: all have
    stopped when this returns."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _states(pid) <= {"T", "t", "Z", "X"}, f"all threads of {pid} have stopped")


def stop_self() -> None:
    """Stop this process: its other threads a moment after the one that calls."""
    signal.raise_signal(signal.SIGSTOP)


def go_on(pid: int) -> None:
    """Let a stopped process continue."""
    os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    """The kernel's letter for each thread of a process."""
    letters = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            letters.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return letters
