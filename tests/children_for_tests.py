"""Jobs whose children are to run in other workers; tests name them as they name jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gmpd

#: What a spinning child takes: long beside a round trip, short beside a slice.
SPIN_S = 0.004


def spin(seconds: float) -> int:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return os.getpid()


def spin_and_square(n: int) -> tuple[int, int]:
    spin(SPIN_S)
    return os.getpid(), n * n


async def squares(n: int) -> list[Any]:
    """Children that take long enough to be worth stealing; [pid, square] of each, in order."""
    children = [gmpd.go(spin_and_square, i) for i in range(n)]
    return [await child for child in children]


def squares_sync(n: int) -> list[Any]:
    """The same from a sync G."""
    children = [gmpd.go(spin_and_square, i) for i in range(n)]
    return [child.result(30) for child in children]


async def nap_and_square(n: int) -> tuple[int, int]:
    done = spin_and_square(n)  # first: what has started stays where it is
    await gmpd.sleep(0.001)
    return done


async def squares_async(n: int) -> list[Any]:
    children = [gmpd.go(nap_and_square, i) for i in range(n)]
    return [await child for child in children]


async def tree(depth: int) -> Counter[int]:
    """How often each worker spun, over a tree of children of children; of 2 ** depth leaves."""
    if not depth:
        return Counter([spin(SPIN_S)])
    children = [gmpd.go(tree, depth - 1) for _ in range(2)]
    total = Counter[int]()
    for child in children:
        total += await child
    return total


class Unlucky(Exception):
    pass


def fail(n: int) -> None:
    spin(SPIN_S)
    raise Unlucky(n, os.getpid())


async def failures(n: int) -> list[tuple[int, int, str, str]]:
    """(number, pid, notes, remote traceback) of each child's error."""
    children = [gmpd.go(fail, i) for i in range(n)]
    found = []
    for child in children:
        try:
            await child
        except Unlucky as exc:
            notes = " ".join(getattr(exc, "__notes__", []))
            found.append((*exc.args, notes, str(exc.__cause__ or "")))
    return found


async def _pids(make: Callable[[int], Any], n: int) -> list[Any]:
    children = [make(i) for i in range(n)]
    return [await child for child in children]


def _spin_with(_thing: object) -> int:
    return spin(SPIN_S)


class Owner:
    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> int:
        self.calls += 1
        return spin(SPIN_S)


async def stay(kind: str, n: int) -> tuple[list[int], int]:
    """Children that cannot go elsewhere, or would not be the same there: (pids, side effects)."""
    seen: list[int] = []
    count = 0
    owner = Owner()

    def append() -> int:
        seen.append(1)
        return spin(SPIN_S)

    def increment() -> int:
        nonlocal count
        count += 1
        return spin(SPIN_S)

    makers: dict[str, Callable[[int], Any]] = {
        "lock": lambda _: gmpd.go(_spin_with, threading.Lock()),
        "mutex": lambda _: gmpd.go(_spin_with, gmpd.Mutex()),
        "waitgroup": lambda _: gmpd.go(_spin_with, gmpd.WaitGroup()),
        "event": lambda _: gmpd.go(_spin_with, asyncio.Event()),
        "generator": lambda _: gmpd.go(_spin_with, (i for i in range(3))),
        "closure": lambda _: gmpd.go(append),
        "nonlocal": lambda _: gmpd.go(increment),
        "method": lambda _: gmpd.go(owner.call),
    }
    pids = await _pids(makers[kind], n)
    return pids, len(seen) or count or owner.calls


async def go_closures(n: int) -> list[int]:
    """Closures over what cannot change travel by value."""
    factor = 7

    def multiply(i: int) -> tuple[int, int]:
        spin(SPIN_S)
        return os.getpid(), i * factor

    children = [gmpd.go(multiply, i) for i in range(n)]
    return [await child for child in children]


def note(path: str, text: str) -> None:
    """Append a line, in one write."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def notes(path: str) -> list[list[str]]:
    file = Path(path)
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


async def linger(path: str, number: int) -> None:
    """Wait to be cancelled, and tell of both."""
    spin(SPIN_S)
    note(path, f"began {number} {os.getpid()}")
    try:
        await gmpd.sleep(3600)
    except asyncio.CancelledError:
        note(path, f"cancelled {number} {os.getpid()}")
        raise


async def lingerers(path: str) -> tuple[list[Any], int]:
    """Children that begin one after another, so that some of them do in another worker."""
    return [gmpd.go(linger, path, i) for i in range(100)], os.getpid()


async def began_elsewhere(path: str, pid: int) -> list[int]:
    """Numbers of lingerers that began in another worker; waits until there are some."""
    while True:
        found = [int(n) for word, n, at in notes(path) if word == "began" and int(at) != pid]
        if found:
            return found
        await gmpd.sleep(0.01)


async def cancel_lingerers(path: str) -> tuple[int, int]:
    """Cancel those that run elsewhere: how many, and how many raised CancelledError here."""
    children, pid = await lingerers(path)
    away = await began_elsewhere(path, pid)
    raised = 0
    for number in away:
        children[number].cancel()
        try:
            await children[number]
        except asyncio.CancelledError:
            raised += 1
    return len(away), raised


async def leave_lingerers(path: str, how: str) -> None:
    """Die, or return, while children linger elsewhere."""
    _, pid = await lingerers(path)
    await began_elsewhere(path, pid)
    note(path, f"parent 0 {pid}")
    if how == "die":
        os.kill(pid, signal.SIGKILL)


async def lose_the_thief(path: str) -> tuple[int, list[str]]:
    """Kill the worker where lingerers run: (how many ran there, what each child then gave)."""
    children, pid = await lingerers(path)
    await began_elsewhere(path, pid)
    thief = next(int(at) for word, _, at in notes(path) if word == "began" and int(at) != pid)
    os.kill(thief, signal.SIGKILL)
    there = {int(n) for word, n, at in notes(path) if word == "began" and int(at) == thief}
    told = []
    for number in sorted(there):
        try:
            await children[number]
        except gmpd.errors.WorkerLost as exc:
            told.append(f"{exc.signal} {exc.pid == thief}")
    return len(there), told


async def with_own_module(n: int) -> set[int]:
    """A function that another worker cannot import, of a module made here."""
    import sys
    import types

    module = types.ModuleType("made_here")
    source = (
        "import os, time\ndef f(i):\n    time.sleep(0)\n    spin(0.004)\n    return os.getpid()\n"
    )
    module.__dict__["spin"] = spin
    exec(source, module.__dict__)
    sys.modules["made_here"] = module
    children = [gmpd.go(module.f, i) for i in range(n)]
    return {await child for child in children}
