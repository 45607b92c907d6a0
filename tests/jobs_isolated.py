"""Functions for isolated jobs: they leave things, look for things, and do not let go."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gmpd

MARK = "left_by_a_job"
#: Where to find the library that no other program has: tests copy one there.
LIBRARY = "left_behind.so"


def leave(directory: str) -> int:
    """Change all that a process can be told apart by; the pid."""
    os.chdir(directory)
    os.environ[MARK] = "1"
    ctypes.CDLL(None).signal(signal.SIGUSR1, 1)  # to be ignored; from any thread, unlike Python's
    os.umask(0o077)
    sys.modules[MARK] = ModuleType(MARK)
    ctypes.CDLL(f"{directory}/{LIBRARY}")
    threading.Thread(target=threading.Event().wait, name=MARK, daemon=True).start()
    os.open(f"{directory}/{LIBRARY}", os.O_RDONLY)
    return os.getpid()


def look(directory: str) -> dict[str, Any]:
    """Which of these changes this process has; none if it is clean."""
    umask = os.umask(0o022)
    os.umask(umask)
    found = {
        "cwd": Path.cwd() == Path(directory),
        "environ": MARK in os.environ,
        "signal": _is_ignored(signal.SIGUSR1),
        "umask": umask == 0o077,
        "module": MARK in sys.modules,
        "library": LIBRARY in Path("/proc/self/maps").read_text(),
        "thread": MARK in [each.name for each in threading.enumerate()],
        "file": any(_target(fd).endswith(LIBRARY) for fd in Path("/proc/self/fd").iterdir()),
    }
    return {name: value for name, value in found.items() if value}


def _is_ignored(number: int) -> bool:
    (line,) = [x for x in Path("/proc/self/status").read_text().split("\n") if "SigIgn" in x]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except OSError:  # the listing's own
        return ""


def span(seconds: float) -> tuple[int, float, float]:
    """The pid, and when it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), began, time.monotonic()


def noted_span(path: str, seconds: float) -> None:
    """Write when it began; and never come to the end, if killed before."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


def loop_for_ever() -> None:
    while True:
        pass


def hold_the_gil() -> None:
    """C code that does not let the interpreter go: no Python code of this process runs on."""
    ctypes.PyDLL(None).sleep(60)


async def wait_for_ever() -> None:
    await asyncio.sleep(3600)


async def wait_stubbornly() -> None:
    """Not even a cancel ends it."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def pid_later() -> int:
    await asyncio.sleep(0.01)
    return os.getpid()


def pids(n: int) -> Iterator[int]:
    for _ in range(n):
        yield os.getpid()


def endless() -> Iterator[int]:
    yield os.getpid()
    while True:
        time.sleep(0.001)
        yield 0


def pid_of(_: object) -> int:
    return os.getpid()


def hold_after_the_end() -> str:
    """The job ends, a thread of it does not, and holds the interpreter."""
    ended = threading.Event()

    def hold() -> None:
        ended.wait()
        ctypes.PyDLL(None).sleep(60)

    threading.Thread(target=hold, daemon=True).start()
    threading.Timer(0.01, ended.set).start()
    return "done"


def print_to(path: str) -> None:
    """Leave words in the buffer of standard output."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(fd, 1)
    print("last words")


def start_a_child() -> int:
    """A process that outlives its parent, if it may."""
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
        os._exit(0)
    return pid


def modules(*names: str) -> list[bool]:
    return [name in sys.modules for name in names]


def environ(name: str) -> str | None:
    return os.environ.get(name)


def put_environ(name: str, value: str) -> None:
    os.environ[name] = value


def has_main_thread() -> bool:
    """And may do what only that may: handle signals."""
    caught: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    while not caught:
        time.sleep(0.001)
    return threading.current_thread() is threading.main_thread()


def steps_on_main(n: int) -> Iterator[bool]:
    for _ in range(n):
        yield threading.current_thread() is threading.main_thread()


def own_loop() -> int:
    return asyncio.run(pid_later())


def use_go() -> list[int]:
    """Children, channels and a known blocking call, from a sync job that has the main thread."""
    ch: gmpd.Chan[int] = gmpd.Chan(0)

    async def send() -> None:
        for n in range(3):
            await gmpd.sleep(0.001)
            await ch.send(n)
        ch.close()

    gmpd.go(send)
    received = list(ch.sync)
    return [*received, gmpd.go(sum, received).result()]


def leave_early() -> None:
    raise SystemExit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def buffers(n: int) -> list[pickle.PickleBuffer]:
    """A result that travels beside its message."""
    return [pickle.PickleBuffer(bytearray(n))]


def blobs(n: int, size: int) -> Iterator[bytes]:
    for _ in range(n):
        yield b"x" * size
