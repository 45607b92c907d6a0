"""Jobs that take from their process what others need."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import resource
import sys
import threading
import time
from pathlib import Path

_kept: list[object] = []


def leak_files() -> int:
    """Open files until none can be opened."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            _kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return len(_kept)


def read_a_file() -> str:
    return Path("/proc/self/comm").read_text()


def forbid_threads() -> None:
    """As a limit of processes does it."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = refuse  # type: ignore[method-assign]


def start_a_thread() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def grow(megabytes: int) -> int:
    _kept.append(bytearray(os.urandom(1 << 20)) * megabytes)
    return megabytes


def raise_want() -> None:
    raise OSError(errno.EMFILE, "as if")


def break_python(what: str) -> None:
    """As a monkeypatch that is not undone."""
    match what:
        case "modules":
            sys.modules.clear()
        case "path":
            sys.path.clear()
        case "asyncio":
            asyncio.sleep = None  # type: ignore[assignment]
        case "time":
            time.sleep = None  # type: ignore[assignment]
        case _:
            raise ValueError(what)


def replace_clock() -> None:
    """As a library that freezes time: what it puts there can be called."""
    real = time.time
    time.time = lambda: real()


def end_thread(how: str) -> None:
    """C code ends the thread that called it, or never comes back; with the GIL or without."""
    match how:
        case "without the GIL":
            ctypes.CDLL(None).pthread_exit(None)
        case "with the GIL":
            ctypes.PyDLL(None).pthread_exit(None)
        case "blocked beside P":
            time.sleep(0.3)
            ctypes.CDLL(None).pthread_exit(None)
        case "never back":
            ctypes.PyDLL(None).sleep(3600)
        case _:
            raise ValueError(how)


async def block_p(seconds: float) -> None:
    time.sleep(seconds)


async def end_main_thread() -> None:
    ctypes.CDLL(None).pthread_exit(None)


def compute_with_gil(n: int) -> None:
    """A regular expression gone wild: C code that lets no other thread run."""
    re.match("(a+)+$", "a" * n + "b")
