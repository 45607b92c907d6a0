"""Functions that tests send to workers, by name."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gmpd
from gmpd.daemon.claims import Claims
from gmpd.daemon.worker import Worker


def note(path: str, text: str) -> str:
    """Append a line: the record of what really ran."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


def note_and_exit(path: str, text: str) -> None:
    note(path, text)
    os._exit(7)


def die(name: str) -> None:
    """End the worker as ``name`` says."""
    match name:
        case "exit":
            os._exit(3)
        case "segv":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            os.abort()


def count_and_end(how: str) -> Iterator[object]:
    """``how``: to raise, to yield what cannot be sent, or a file that it waits for."""
    yield from range(3)
    if how == "raise":
        raise KeyError("after three values")
    if how == "unsendable":
        yield threading.Lock()
        return
    while not Path(how).exists():
        time.sleep(0.01)
    yield "over"


def die_once(path: str) -> str:
    """Die at the first attempt, succeed at the second."""
    if Path(path).exists():
        return "second"
    Path(path).touch()
    os._exit(9)


def spin(seconds: float) -> str:
    """Pure Python that never lets go by itself."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return "spun"


def count_to(n: int) -> Iterator[int]:
    yield from range(n)


class Evil(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


def raise_evil() -> None:
    raise Evil


def leave() -> None:
    sys.exit(4)


def pid() -> int:
    return os.getpid()


def big(n: int) -> bytes:
    return b"x" * n


def big_array(value: int, n: int) -> pickle.PickleBuffer:
    """A result that travels out of band."""
    return pickle.PickleBuffer(bytearray([value]) * n)


def count_and_leave(n: int) -> Iterator[int]:
    """A stream behind whose end the next G kills the worker."""
    yield from range(n)
    gmpd.go(os._exit, 3)


async def big_when(path: str, n: int) -> bytes:
    """A large result once a file is there."""
    while not os.path.exists(path):
        await asyncio.sleep(0.02)
    return bytes(n)


async def leave_when(path: str) -> None:
    """Ends its worker a while after a file is there."""
    await big_when(path, 0)
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


async def big_and_leave(n: int) -> bytes:
    """A result behind which the next G kills the worker.

    Async: a sync one that is slow to end, on a busy machine, loses P, and the next G comes before.
    """
    gmpd.go(os._exit, 3)
    return bytes(n)


def fail_until(path: str, n: int) -> int:
    """Raise until the n-th attempt."""
    note(path, "attempt")
    attempts = len(Path(path).read_text().splitlines())
    if attempts < n:
        raise ValueError(f"attempt {attempts}")
    return attempts


_SHARED = bytearray(100_000)


def fill_shared(value: int) -> pickle.PickleBuffer:
    """A result that is a view of memory which the next call overwrites."""
    _SHARED[:] = bytes([value]) * len(_SHARED)
    return pickle.PickleBuffer(_SHARED)


async def park_many(n: int, path: str) -> int:
    """Park ``n`` Gs on a channel; create ``path`` when all are, wake them when it is gone."""
    gate: gmpd.Chan[None] = gmpd.Chan()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await gate.recv_ok()
        woken += 1

    for at in range(0, n, 1000):
        for _ in range(min(1000, n - at)):
            gmpd.go(wait)
        await gmpd.gosched()
    await gmpd.gosched()
    Path(path).touch()
    while Path(path).exists():
        await gmpd.sleep(0.01)
    gate.close()
    while woken < n:
        await gmpd.sleep(0.01)
    return woken


def leak_cycles(n: int, alive: int) -> int:
    """Make ``n`` cycles, of which the newest ``alive`` are in use: long enough to be tenured."""
    kept: deque[list[object]] = deque(maxlen=alive)
    for _ in range(n):
        cycle: list[object] = [bytearray(200)]
        cycle.append(cycle)
        kept.append(cycle)
    return len(kept)


def note_and_spin(path: str, text: str, seconds: float) -> str:
    """Hold the GIL in C code for a while, as a regular expression gone wild does."""
    note(path, text)
    if seconds:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return text


async def note_and_never_await(path: str, text: str, seconds: float) -> str:
    """One step of a coroutine that lasts."""
    note(path, text)
    spin(seconds)
    return text


def stumble(signal_name: str, path: str, after: int, when: str) -> None:
    """For an initializer: the first worker that takes up its ``after``-th lease gets a signal,
    right ``before`` or right ``after`` it claims it."""
    claim: Callable[..., bool] = Claims.claim
    count = 0

    def claim_and_stumble(*args: Any) -> bool:
        nonlocal count
        count += 1
        if when == "before":
            _fall(count)
        claimed = claim(*args)
        if when == "after" and claimed:
            _fall(count)
        return claimed

    def _fall(count: int) -> None:
        if count < after:
            return
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        # This thread, so that it is the one that does not go on.
        signal.pthread_kill(threading.get_ident(), getattr(signal, signal_name))

    try:
        Claims.claim = claim_and_stumble  # type: ignore[method-assign, assignment]
    except TypeError:  # of C: its caller in the worker, which also notes the lease as the present
        frame = sys._getframe()
        while not isinstance(worker := frame.f_locals.get("self"), Worker):
            assert frame.f_back is not None
            frame = frame.f_back
        claim, worker.claim = worker.claim, claim_and_stumble


def linger_and_die(seconds: float) -> None:
    """Lose P first: it is executing all the same."""
    spin(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_and_die(how: str, seconds: float) -> None:
    """Blocks first, so that it runs beside P."""
    time.sleep(seconds)
    die(how)


async def spin_async(seconds: float) -> None:
    """P is busy with it, in steps."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await gmpd.gosched()
