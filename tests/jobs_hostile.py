"""Jobs for tests that would take the worker with them if they could: forks and ends of the process.

``path``: a file to which each process that gets so far adds a line.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gmpd
from gmpd.runtime.go import this_loop
from gmpd.runtime.handoffs import hogs


def note(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


def _fork(path: str) -> str:
    """Both copies return; the first one after the other has ended."""
    pid = os.fork()
    note(path, str(os.getpid()))
    if not pid:
        return "copy"
    os.waitpid(pid, 0)  # for ever, should the copy go on
    return "first"


async def fork_async(path: str) -> str:
    return _fork(path)


async def fork_step(path: str) -> str:
    await asyncio.sleep(0)
    found = _fork(path)
    await asyncio.sleep(0)
    note(path, found)
    return found


async def fork_child(path: str) -> str:
    return str(await gmpd.go(_fork, path))


async def fork_child_async(path: str) -> str:
    return str(await gmpd.go(fork_async, path))


def fork_child_sync(path: str) -> str:
    return str(gmpd.go(_fork, path).result())


async def fork_task(path: str) -> str:
    return await asyncio.create_task(fork_async(path))


async def fork_callback(path: str) -> str:
    found = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: found.set_result(_fork(path)))
    return str(await found)


async def fork_blocking(path: str) -> str:
    return await gmpd.blocking(_fork, path)


def fork_and_wait(path: str) -> str:
    """The copy waits for what only the worker could do."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return "first"
    gmpd.go(note, path, "child").result()
    return "copy"


def fork_generator(path: str) -> Iterator[str]:
    yield "begin"
    yield _fork(path)


async def leave_in_task(how: str) -> str:
    """A part of the job leaves, and the job sees it."""

    async def leave() -> None:
        await asyncio.sleep(0)
        raise SystemExit(7) if how == "exit" else KeyboardInterrupt("7")

    try:
        await asyncio.gather(leave())
    except BaseException as exc:
        return repr(exc)
    return "nothing"


async def leave_in_child() -> str:
    try:
        await gmpd.go(leave_in_step)
    except BaseException as exc:
        return repr(exc)
    return "nothing"


async def leave_in_step() -> None:
    await gmpd.gosched()
    sys.exit(7)


async def leave_in_callback() -> int:
    loop = asyncio.get_running_loop()
    loop.call_soon(sys.exit, 3)
    loop.call_later(0, sys.exit, 4)
    await asyncio.sleep(0.01)
    return os.getpid()


async def stop_loop() -> int:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return os.getpid()


async def pid_later(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


def _worker() -> Any:
    """The worker that runs this job: what no job should reach for."""
    for frame in sys._current_frames().values():
        at: Any = frame
        while at is not None:
            if type(at.f_locals.get("worker")).__name__ == "Worker":
                return at.f_locals["worker"]
            at = at.f_back
    raise LookupError("no worker on any stack")


def say_and_sleep(frame: bytes) -> None:
    """Send a frame as if the worker had."""
    worker = _worker()
    worker.loop.call_soon_threadsafe(worker.link.send, [frame])
    time.sleep(60)


def hear_and_sleep(frame: bytes) -> None:
    """Have the worker read a frame as if the coordinator had sent it."""
    worker = _worker()
    frames = iter([[memoryview(frame)], None])
    worker.link.recv = lambda: next(frames)
    worker.loop.call_soon_threadsafe(worker.on_readable)
    time.sleep(60)


def swallow_and_look(path: str) -> None:
    """Goes on after its time is over, until it asks."""
    while not gmpd.cancelled():
        try:
            time.sleep(0.01)
        except BaseException:
            continue
    Path(path).write_text("seen")


def shrug(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


@shrug
def compute_behind(path: str) -> None:
    while not os.path.exists(path):
        pass


@shrug
def answer_behind() -> str:
    return "ran"


async def hog_and_neighbour(path: str) -> str:
    """A decorated child, beside another one of the same decorator that computes."""
    hog = gmpd.go(compute_behind, path)
    while not hogs(this_loop("the job").p):
        await gmpd.sleep(0.001)
    try:
        return str(await asyncio.wait_for(gmpd.go(answer_behind), 20))
    finally:
        Path(path).touch()
        await hog


def _raise(kind: type[BaseException]) -> None:
    raise kind


class Unpickles:
    """Its unpickling, elsewhere than in a worker, runs what it says."""

    def __init__(self, fn: Callable[..., object], *args: object) -> None:
        self.what = fn, args

    def __reduce__(self) -> Any:
        return self.what


def unpickles_with(kind: type[BaseException]) -> Unpickles:
    return Unpickles(_raise, kind)


class Slow:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        time.sleep(self.seconds)


def unpickles_in(seconds: float) -> Slow:
    return Slow(seconds)


class NotesThread:
    """Knows the thread that unpickled it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.opened_by = threading.get_ident()

    def __getstate__(self) -> dict[str, Any]:
        return {"some": "state"}


class ErrorNotesThread(Exception):
    opened_by = 0

    def __reduce__(self) -> Any:
        return type(self), self.args, {"some": "state"}

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        self.opened_by = threading.get_ident()


def yield_noting() -> Iterator[Any]:
    yield 1
    yield NotesThread()
    raise ErrorNotesThread


def fail_noting_at(bad: int, i: int) -> int:
    if i == bad:
        raise ErrorNotesThread
    return i


def noting_beside_unsendable(i: int) -> Any:
    """The results of a chunk of these come in parts."""
    return NotesThread() if i == 0 else threading.Lock()


def endless() -> Iterator[int]:
    while True:
        yield 1
