"""Jobs in workers that are replaced meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import gmpd

#: What a child computes before it waits: long beside a round trip.
SPIN_S = 0.004

_left: set[asyncio.Task[None]] = set()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


async def rest(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


async def leave_a_task(seconds: float, path: str) -> int:
    """Its task outlives it."""

    async def later() -> None:
        await asyncio.sleep(seconds)
        Path(path).write_text(str(os.getpid()))

    task = asyncio.create_task(later())
    _left.add(task)
    return os.getpid()


async def until_there(path: str) -> int:
    """A job that waits for a file."""
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return os.getpid()


async def square_into(results: gmpd.Chan[tuple[int, int]], path: str, n: int) -> int:
    """A child that computes for long enough to be stolen, and is done when the file is there; it
    sends to its parent's worker."""
    end = time.thread_time() + SPIN_S
    while time.thread_time() < end:
        pass
    await until_there(path)
    await results.send((n, n * n))
    return os.getpid()


async def squares(n: int, path: str) -> tuple[int, list[int], set[int]]:
    """Children that tell their squares over a channel, whose home is this worker: its pid, the
    squares, the pids of the children."""
    results: gmpd.Chan[tuple[int, int]] = gmpd.Chan()
    children = [gmpd.go(square_into, results, path, i) for i in range(n)]
    got = dict([await results.recv() for _ in range(n)])
    return os.getpid(), [got[i] for i in range(n)], {await child for child in children}
