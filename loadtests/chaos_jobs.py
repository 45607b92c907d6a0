"""The jobs of ``chaos.py``: each writes its start and its end into the ledger of its worker.

What they do is in their names. The directory of the ledgers is in the environment variable
``CHAOS_LEDGERS``. See ``chaos_checker`` for the lines.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loadtests.chaos_checker import expected

VARIABLE = "CHAOS_LEDGERS"
#: A job that returns much returns its hash this many times.
BIG = 8192
#: How many of 16 attempts of a flaky job raise.
RAISING = 5


class Ledger:
    """A file of this process, opened when its first job begins."""

    def __init__(self) -> None:
        self._file = -1
        self._lock = threading.Lock()
        self.inc = ""

    def write(self, *words: object) -> None:
        """Append a line at once: the process may be killed at any moment."""
        os.write(self.opened(), (" ".join(map(str, words)) + "\n").encode())

    def opened(self) -> int:
        """The descriptor."""
        if self._file < 0:
            with self._lock:
                if self._file < 0:
                    pid, now = os.getpid(), time.monotonic_ns()
                    self.inc = f"{pid}.{now}"
                    path = os.path.join(os.environ[VARIABLE], f"worker-{self.inc}")
                    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
                    os.write(file, f"worker {self.inc} {pid} {os.getppid()} {now}\n".encode())
                    self._file = file
        return self._file


_ledger = Ledger()


@contextmanager
def _noted(key: str) -> Iterator[None]:
    _ledger.opened()
    _ledger.write("start", key, _ledger.inc, time.monotonic_ns())
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        _ledger.write("end", key, _ledger.inc, time.monotonic_ns(), outcome)


def quick(key: str) -> str:
    """Return at once."""
    with _noted(key):
        return expected(key)


def nap(key: str, seconds: float) -> str:
    """Block."""
    with _noted(key):
        time.sleep(seconds)
        return expected(key)


async def parked(key: str, seconds: float) -> str:
    """Wait beside others."""
    with _noted(key):
        await asyncio.sleep(seconds)
        return expected(key)


def spin(key: str, seconds: float) -> str:
    """Compute."""
    with _noted(key):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return expected(key)


def big(key: str, _argument: str) -> str:
    """Take much, and return much."""
    with _noted(key):
        return expected(key) * BIG


def flaky(key: str) -> str:
    """Raise now and then."""
    with _noted(key):
        if os.urandom(1)[0] % 16 < RAISING:
            raise ValueError(f"{key} does not like this byte")
        return expected(key)


def exits(key: str) -> str:
    """End the worker at the first attempt."""
    with _noted(key):
        try:
            os.close(
                os.open(os.path.join(os.environ[VARIABLE], f"exit-{key}"), os.O_CREAT | os.O_EXCL)
            )
        except FileExistsError:
            return expected(key)
        _ledger.write("exits", key, _ledger.inc, time.monotonic_ns())
        os._exit(3)
