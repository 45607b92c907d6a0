"""The work of makespan.py: found by name, by workers and by pools."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gmpd


def burn(rounds: int) -> int:
    """Run a loop that only computes for ``rounds`` rounds; the pid of its process."""
    x = 1
    for _ in range(rounds):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return os.getpid()


def calibrate() -> float:
    """Rounds per second on one core: the best of a few tries."""
    best = 0.0
    for _ in range(5):
        began = time.thread_time()
        burn(500_000)
        best = max(best, 500_000 / (time.thread_time() - began))
    return best


def burn_all(sizes: Sequence[int], core: int, barrier: Any, times: Any) -> None:
    """One half of the ideal."""
    os.sched_setaffinity(0, {core})
    barrier.wait()
    for size in sizes:
        burn(size)
    times.put(os.getpid())
    barrier.wait()  # its CPU time is read while it lives


async def root(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Spawn a child for each; how many each worker ran."""
    children = [gmpd.go(burn, size) for size in sizes]
    return list(Counter([await child for child in children]).items())
