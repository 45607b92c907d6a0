"""Jobs for the tests of durable jobs. They append to files, so that what ran can be counted."""

from __future__ import annotations

import os
import time
from pathlib import Path


def note(path: str, word: str) -> str:
    """Append a word, and return it."""
    with open(path, "a") as file:
        file.write(word + "\n")
    return word


def fail(path: str, times: int) -> str:
    """Raise the first ``times`` times."""
    note(path, "try")
    if len(Path(path).read_text().split()) <= times:
        raise ValueError("not yet")
    return "at last"


def hold(path: str, go: str) -> str:
    """Note the start, wait for the file ``go``, note the end."""
    note(path, "start")
    end = time.monotonic() + 60
    while not Path(go).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return note(path, "end")


def die(path: str) -> None:
    """End the worker."""
    note(path, "die")
    os._exit(9)


def swallow(path: str, seconds: float) -> None:
    """Run on beyond any limit."""
    note(path, "start")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
    note(path, "end")


async def double(x: int) -> int:
    """An async one."""
    return 2 * x
