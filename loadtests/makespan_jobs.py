"""The work of makespan.py: found by name, by workers and by pools."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gmpd


def burn(rounds: int) -> int:
    """So many rounds of a loop that only computes; the pid that did it."""
    x = 1
    for _ in range(rounds):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return os.getpid()


def calibrate() -> float:
    """Rounds per second on one core: the best of a few tries."""
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        burn(500_000)
        best = max(best, 500_000 / (time.perf_counter() - began))
    return best


def burn_all(sizes: Sequence[int], core: int, barrier: Any, times: Any) -> None:
    """One half of the ideal."""
    os.sched_setaffinity(0, {core})
    barrier.wait()
    began = time.perf_counter()
    for size in sizes:
        burn(size)
    times.put(time.perf_counter() - began)


async def root(sizes: Sequence[int]) -> tuple[float, list[tuple[int, int]]]:
    """Spawn a child for each; seconds until all have ended, and how many each worker ran."""
    began = time.perf_counter()
    children = [gmpd.go(burn, size) for size in sizes]
    pids = Counter([await child for child in children])
    return time.perf_counter() - began, list(pids.items())
